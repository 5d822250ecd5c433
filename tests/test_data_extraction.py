"""The feature cache: correct features, computed once, damage detected, kept when a run is killed."""

import errno
import hashlib
import logging
import os
import shutil
import signal
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, Subset

from mlmetric.data import BadImagesError, ImageDataset, extract_features
from mlmetric.data import _feature_cache as cache_module
from mlmetric.data import _forward_passes as passes_module
from mlmetric.data._feature_cache import _locked
from mlmetric.heads import FrozenBackbone

DiskUsage = namedtuple("DiskUsage", "total used free")


class MeanColour:
    """A backbone whose features can be checked by hand, and that counts the images that it sees."""

    def __init__(self, name="mean"):
        self.name, self.seen = name, 0

    def __call__(self, images):
        self.seen += len(images)
        return images.mean((2, 3))

    def fingerprint(self):
        return hashlib.sha256(self.name.encode()).hexdigest()


def to_tensor(image):
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "images"
    root.mkdir()
    for i in range(10):
        Image.new("RGB", (4, 4), (i * 20, 255 - i, 7)).save(root / f"{i}.png")
    return root


def dataset(root, numbers=range(10)):
    return ImageDataset(root, [f"{i}.png" for i in numbers], transform=to_tensor)


def colours(numbers):
    return np.array([[i * 20, 255 - i, 7] for i in numbers], dtype=np.float32) / 255


def extract(backbone, data, cache, **options):
    return extract_features(backbone, data, cache, **({"num_workers": 0, "batch_size": 2} | options))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_extract_gives_each_image_its_feature_in_order(folder, tmp_path, num_workers):
    calls = []
    extracted = extract(
        MeanColour(), dataset(folder), tmp_path, num_workers=num_workers, progress=lambda *done: calls.append(done)
    )
    np.testing.assert_allclose(extracted.features, colours(range(10)), atol=1e-6)
    assert extracted.features.dtype == np.float32
    assert extracted.indices.tolist() == list(range(10))
    assert extracted.bad_images == []
    assert calls == [(2, 10), (4, 10), (6, 10), (8, 10), (10, 10)]


def test_extract_twice_computes_once_and_reads_a_memory_map(folder, tmp_path):
    backbone = MeanColour()
    first = extract(backbone, dataset(folder), tmp_path)
    second = extract(backbone, dataset(folder), tmp_path)
    assert backbone.seen == 10
    assert np.array_equal(first.features, second.features)
    assert isinstance(second.features, np.memmap)


def test_extract_computes_only_what_is_new_and_keeps_the_asked_order(folder, tmp_path):
    backbone = MeanColour()
    extract(backbone, dataset(folder, [3, 4, 5]), tmp_path)
    extracted = extract(backbone, dataset(folder, [9, 5, 0, 3, 3]), tmp_path)
    assert backbone.seen == 5
    np.testing.assert_allclose(extracted.features, colours([9, 5, 0, 3, 3]), atol=1e-6)
    extract(backbone, dataset(folder, [4]), tmp_path)
    assert backbone.seen == 5


def test_extract_with_another_backbone_shares_nothing(folder, tmp_path):
    extract(MeanColour("one"), dataset(folder), tmp_path)
    other = MeanColour("two")
    extract(other, dataset(folder), tmp_path)
    assert other.seen == 10


def test_extract_after_an_image_changed_computes_that_image(folder, tmp_path):
    backbone = MeanColour()
    extract(backbone, dataset(folder), tmp_path)
    Image.new("RGB", (4, 4), (255, 0, 0)).save(folder / "3.png")
    extracted = extract(backbone, dataset(folder), tmp_path)
    assert backbone.seen == 11
    assert extracted.features[3].tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("damage", ["flip", "truncate", "swap"])
def test_extract_detects_a_damaged_part_and_computes_it_again(folder, tmp_path, damage, caplog):
    backbone = MeanColour()
    extract(backbone, dataset(folder), tmp_path)
    (part,) = tmp_path.glob("*/part-*.npy")
    content = bytearray(part.read_bytes())
    if damage == "flip":
        content[-3] ^= 1
    elif damage == "truncate":
        content = content[:-10]
    else:
        content[-12:], content[-400:-388] = content[-400:-388], content[-12:]
    part.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        extracted = extract(backbone, dataset(folder), tmp_path)
    assert "is damaged or changed" in caplog.text
    assert backbone.seen == 20
    np.testing.assert_allclose(extracted.features, colours(range(10)), atol=1e-6)


def test_extract_killed_in_the_middle_continues_from_the_last_part(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(passes_module, "_BATCHES_PER_PART", 1)
    monkeypatch.setattr(passes_module, "_WORK_PER_WRITE", 0)

    class Dies(MeanColour):
        def __call__(self, images):
            if self.seen == 6:
                raise KeyboardInterrupt
            return super().__call__(images)

    with pytest.raises(KeyboardInterrupt):
        extract(Dies(), dataset(folder), tmp_path)
    backbone = MeanColour()
    extracted = extract(backbone, dataset(folder), tmp_path)
    assert backbone.seen == 4
    np.testing.assert_allclose(extracted.features, colours(range(10)), atol=1e-6)


def test_extract_resumed_forms_the_batches_of_a_run_never_killed(folder, tmp_path):
    (folder / "1.png").write_text("bad")
    grid = [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    identities = {i: dataset(folder).identity(i) for i in range(10)}
    batches = passes_module.grid(10, 2)
    assert passes_module.missing_batches(identities, {}, batches) == grid
    done = {identities[i]: None for i in (0, 2, 3)}
    assert passes_module.missing_batches(identities, done, batches) == [[1], *grid[2:]]


def test_extract_with_bad_images_names_how_many_and_the_first_and_loses_nothing(folder, tmp_path):
    (folder / "2.png").unlink()
    (folder / "7.png").write_text("no image")
    backbone = MeanColour()
    with pytest.raises(BadImagesError, match=r"2 of 10 images cannot be read; the first: .*2\.png does not exist") as e:
        extract(backbone, dataset(folder), tmp_path)
    assert len(e.value.reasons) == 2
    assert "7.png is truncated or not an image" in e.value.reasons[1]
    assert backbone.seen == 8
    skipped = extract(backbone, dataset(folder), tmp_path, on_bad_image="skip")
    assert backbone.seen == 8
    assert skipped.indices.tolist() == [0, 1, 3, 4, 5, 6, 8, 9]
    np.testing.assert_allclose(skipped.features, colours(skipped.indices), atol=1e-6)
    assert len(skipped.bad_images) == 2
    Image.new("RGB", (4, 4), (40, 253, 7)).save(folder / "2.png")
    Image.new("RGB", (4, 4), (140, 248, 7)).save(folder / "7.png")
    repaired = extract(backbone, dataset(folder), tmp_path)
    assert backbone.seen == 10
    np.testing.assert_allclose(repaired.features, colours(range(10)), atol=1e-6)


def test_extract_of_nothing_but_bad_images_is_an_error_even_when_skipping(tmp_path):
    with pytest.raises(BadImagesError, match="10 of 10 images cannot be read"):
        extract(MeanColour(), dataset(tmp_path), tmp_path / "cache", on_bad_image="skip")


def test_extract_without_disk_space_says_so_and_keeps_what_is_there(folder, tmp_path, monkeypatch):
    extract(MeanColour(), dataset(folder, range(4)), tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: DiskUsage(100, 100, 0))
        with pytest.raises(OSError, match=r"could not be written to .* are needed, 0\.0 MB are free.*Free some space"):
            extract(MeanColour(), dataset(folder), tmp_path)
    backbone = MeanColour()
    extract(backbone, dataset(folder), tmp_path)
    assert backbone.seen == 6


def test_extract_when_the_disk_fills_up_while_writing_leaves_no_torn_part(folder, tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"No space left on device.*Free some space"):
            extract(MeanColour(), dataset(folder), tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.parent.name != "images"] == []


def test_extract_of_no_images_or_of_no_tensors_raises(folder, tmp_path):
    with pytest.raises(ValueError, match="at least one image, got none"):
        extract(MeanColour(), dataset(folder, []), tmp_path)
    with pytest.raises(TypeError, match=r"images as tensors, got PngImageFile\. Pass the transform of the backbone"):
        extract(MeanColour(), ImageDataset(folder, ["0.png"]), tmp_path)


def test_extract_leaves_the_parts_of_another_process_alone(folder, tmp_path):
    class ComputesMeanwhile(MeanColour):
        def __call__(self, images):
            if self.seen == 2:
                extract(MeanColour(), dataset(folder, [8, 9]), tmp_path)
            return super().__call__(images)

    extract(ComputesMeanwhile(), dataset(folder, range(6)), tmp_path)
    backbone = MeanColour()
    extracted = extract(backbone, dataset(folder), tmp_path)
    assert backbone.seen == 2
    np.testing.assert_allclose(extracted.features, colours(range(10)), atol=1e-6)


def test_extract_that_cannot_merge_its_parts_still_gives_the_features(folder, tmp_path, monkeypatch, caplog):
    extract(MeanColour(), dataset(folder, range(4)), tmp_path)
    extract(MeanColour(), dataset(folder, range(4, 10)), tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: DiskUsage(100, 100, 0))
    extracted = extract(MeanColour(), dataset(folder), tmp_path)
    np.testing.assert_allclose(extracted.features, colours(range(10)), atol=1e-6)
    assert "parts of the cache are unchanged" in caplog.text


def test_extract_does_not_touch_the_global_generator(folder, tmp_path):
    state = torch.get_rng_state()
    extract(MeanColour(), dataset(folder), tmp_path)
    assert torch.equal(torch.get_rng_state(), state)


def test_extract_removes_what_killed_runs_left_and_nothing_that_a_run_is_writing(folder, tmp_path):
    cache = tmp_path / "cache"
    extract(MeanColour(), dataset(folder), cache)
    (store,) = cache.iterdir()
    left, written, just_opened = (store / f"part-{number}.npy.{number}.tmp" for number in range(3))
    for path in (left, written):
        path.write_bytes(b"half of it")
    just_opened.touch()
    os.utime(written, (1, 1))  # however old a clock that jumped makes it
    with written.open("r+b") as file, _locked(file):
        extract(MeanColour(), dataset(folder), cache)
    assert [path.exists() for path in (left, written, just_opened)] == [False, True, True]
    extract(MeanColour(), dataset(folder), cache)
    assert not written.exists()


def test_extract_writes_parts_that_no_other_run_takes_for_left_over(folder, tmp_path, monkeypatch):
    replace = Path.replace

    def another_run_starts_first(path, target):
        extract(MeanColour(), dataset(folder, [0, 1]), tmp_path)
        return replace(path, target)

    extract(MeanColour(), dataset(folder, [0, 1]), tmp_path)
    monkeypatch.setattr(Path, "replace", another_run_starts_first)
    extracted = extract(MeanColour(), dataset(folder, range(10)), tmp_path)
    np.testing.assert_allclose(extracted.features, colours(range(10)), atol=1e-6)


def test_extract_where_another_run_merges_a_part_at_once_has_its_features(folder, tmp_path, monkeypatch):
    replace = Path.replace

    def merged_at_once(path, target):
        replace(path, target)
        target.unlink()

    monkeypatch.setattr(Path, "replace", merged_at_once)
    extracted = extract(MeanColour(), dataset(folder), tmp_path)
    np.testing.assert_allclose(extracted.features, colours(range(10)), atol=1e-6)


def test_extract_where_another_run_merges_parts_while_they_are_listed_computes_nothing_again(
    folder, tmp_path, monkeypatch
):
    for numbers in (range(4), range(4, 10)):
        extract(MeanColour(), dataset(folder, numbers), tmp_path)
    digest = cache_module._digest

    def another_run_merges(path):
        monkeypatch.setattr(cache_module, "_digest", digest)
        extract(MeanColour(), dataset(folder), tmp_path)
        return digest(path)

    monkeypatch.setattr(cache_module, "_digest", another_run_merges)
    backbone = MeanColour()
    extracted = extract(backbone, dataset(folder), tmp_path)
    assert backbone.seen == 0
    np.testing.assert_allclose(extracted.features, colours(range(10)), atol=1e-6)


def part_of(rows, fields, path):
    array = np.zeros(rows, dtype=fields)
    np.save(path / "new.npy", array)
    part = path / f"part-{cache_module._digest(path / 'new.npy')}.npy"
    (path / "new.npy").rename(part)
    return part


@pytest.mark.parametrize(
    "fields",
    [
        np.float64,
        [("identity", "u1", 32), ("feature", "<f8", (3,))],
        [("identity", "u1", 16), ("feature", "<f4", (3,))],
        [("feature", "<f4", (3,)), ("identity", "u1", 32)],
        [("identity", "u1", 32), ("feature", "<f4")],
    ],
)
def test_extract_uses_no_part_of_another_form_whatever_its_digest(fields, folder, tmp_path, caplog):
    cache = tmp_path / "cache"
    extract(MeanColour(), dataset(folder, range(4)), cache)
    (store,) = cache.iterdir()
    part = part_of(2, fields, store)
    backbone = MeanColour()
    extracted = extract(backbone, dataset(folder), cache)
    assert (backbone.seen, part.exists()) == (6, True)
    assert f"{part} contains features that are not finite, or no features" in caplog.text
    np.testing.assert_allclose(extracted.features, colours(range(10)), atol=1e-6)


def test_extract_uses_no_part_that_is_no_array_or_no_file(folder, tmp_path, caplog):
    cache = tmp_path / "cache"
    extract(MeanColour(), dataset(folder, range(4)), cache)
    (store,) = cache.iterdir()
    text = store / "text"
    text.write_text("no array")
    text.rename(store / f"part-{cache_module._digest(text)}.npy")
    os.mkfifo(store / "part-1.npy")
    (store / "part-2.npy").mkdir()
    (store / "part-3.npy").symlink_to("part-3.npy")
    backbone = MeanColour()
    extracted = extract(backbone, dataset(folder), cache)
    assert backbone.seen == 6
    assert caplog.text.count("is not a regular file") == 3
    np.testing.assert_allclose(extracted.features, colours(range(10)), atol=1e-6)


def test_extract_raises_for_features_of_another_size_than_the_cache_has(folder, tmp_path):
    class Grey(MeanColour):
        def __call__(self, images):
            return super().__call__(images)[:, :1]

    extract(MeanColour(), dataset(folder, range(4)), tmp_path)
    with pytest.raises(ValueError, match=r"features of one size, got 3 and 1 for the cache .*`fingerprint`"):
        extract(Grey(), dataset(folder), tmp_path)
    extract(MeanColour(), dataset(folder), tmp_path)


@pytest.mark.parametrize(
    ("give", "error", "message"),
    [
        (lambda x: (x,), TypeError, r"must return a tensor of features \(N, D\), got tuple"),
        (lambda x: {"features": x}, TypeError, r"must return a tensor of features \(N, D\), got dict"),
        (lambda x: x.to_sparse(), TypeError, r"dense tensor of real numbers, got one of layout torch\.sparse_coo"),
        (lambda x: x.to("meta"), TypeError, r"torch\.float32, on meta"),
        (lambda x: x.to(torch.complex64), TypeError, r"torch\.complex64, on cpu"),
        (lambda x: x[:1], ValueError, r"features of shape \(2, D\) for 2 images, got \(1, 3\)"),
        (lambda x: x[..., None, None], ValueError, r"features of shape \(2, D\) for 2 images, got \(2, 3, 1, 1\)"),
        (lambda x: x / 0, ValueError, "NaN or infinite ones for 2 of 2 images, the first: image 4, 4.png"),
        (lambda x: x.clone().index_fill_(0, torch.tensor([1]), float("nan")), ValueError, "1 of 2 .* image 5, 5.png"),
    ],
)
def test_extract_with_a_backbone_that_gives_no_features_says_so_and_keeps_those_before(
    give, error, message, folder, tmp_path
):
    class Odd(MeanColour):
        def __call__(self, images):
            features = super().__call__(images)
            return features if self.seen <= 4 else give(features)

    with pytest.raises(error, match=message):
        extract(Odd(), dataset(folder), tmp_path)
    backbone = MeanColour()
    extract(backbone, dataset(folder), tmp_path)
    assert backbone.seen == 6


def test_extract_of_a_data_set_or_backbone_without_identity_says_what_to_give(folder, tmp_path):
    for data in (Subset(dataset(folder), [1, 2]), ConcatDataset([dataset(folder)])):
        with pytest.raises(TypeError, match=rf"the method `identity`, got {type(data).__name__}\. Pass an `Image"):
            extract(MeanColour(), data, tmp_path)
    with pytest.raises(TypeError, match=r"the method `fingerprint`, got Conv2d\. Wrap a module in .*FrozenBackbone"):
        extract(torch.nn.Conv2d(3, 1, 1), dataset(folder), tmp_path)


def test_extract_raises_for_batches_of_no_images_and_less_than_no_processes(folder, tmp_path):
    with pytest.raises(ValueError, match="`batch_size` must be at least 1, got 0"):
        extract(MeanColour(), dataset(folder), tmp_path, batch_size=0)
    with pytest.raises(ValueError, match="`num_workers` must be 0 or more, got -1"):
        extract(MeanColour(), dataset(folder), tmp_path, num_workers=-1)


def died(_):
    os.kill(os.getpid(), signal.SIGKILL)


def without_files(_):
    raise OSError(errno.EMFILE, "Too many open files", "5.png")


def without_memory(_):
    raise MemoryError


@pytest.mark.parametrize(
    ("fail", "num_workers", "message"),
    [
        (died, 2, r"died \(signal 9, Killed\).*computed before are kept"),
        (without_files, 2, r"Too many open files: '5\.png'"),
        (without_files, 0, r"Too many open files: '5\.png'"),
        (without_memory, 2, r"not enough memory for the `transform` of .*5\.png, 4 x 4 pixels"),
    ],
)
def test_extract_where_the_machine_fails_ends_even_when_skipping_and_keeps_all_batches_before(
    fail, num_workers, message, folder, tmp_path
):
    data = dataset(folder)
    data.identity = dataset(folder).identity  # a failure of the machine is no other preprocessing
    data.transform = lambda image: fail(image) if image.getpixel((0, 0))[0] == 100 else to_tensor(image)
    with pytest.raises(OSError, match=message):
        extract(MeanColour(), data, tmp_path, num_workers=num_workers, on_bad_image="skip")
    backbone = MeanColour()
    extract(backbone, dataset(folder), tmp_path)
    assert backbone.seen == 6


def test_extract_leaves_out_an_image_that_appears_meanwhile(folder, tmp_path):
    (folder / "9.png").rename(folder / "elsewhere")

    class Appears(MeanColour):
        def __call__(self, images):
            if (folder / "elsewhere").exists():
                (folder / "elsewhere").rename(folder / "9.png")
            return super().__call__(images)

    extracted = extract(Appears(), dataset(folder), tmp_path, on_bad_image="skip")
    assert extracted.indices.tolist() == list(range(9))
    assert extracted.bad_images == ["image 9, 9.png did not exist when the extraction began: run again."]
    assert extract(MeanColour(), dataset(folder), tmp_path).indices.tolist() == list(range(10))


def test_extract_whose_cache_folder_vanishes_meanwhile_makes_it_again_with_all_features(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(passes_module, "_BATCHES_PER_PART", 1)
    monkeypatch.setattr(passes_module, "_WORK_PER_WRITE", 0)

    class Removes(MeanColour):
        def __call__(self, images):
            if self.seen == 4:
                shutil.rmtree(tmp_path / "cache")
            return super().__call__(images)

    extracted = extract(Removes(), dataset(folder), tmp_path / "cache")
    np.testing.assert_allclose(extracted.features, colours(range(10)), atol=1e-6)
    backbone = MeanColour()
    extract(backbone, dataset(folder), tmp_path / "cache")
    assert backbone.seen == 0


def test_extract_says_that_features_are_kept_only_where_they_are(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(passes_module, "_BATCHES_PER_PART", 1)
    monkeypatch.setattr(passes_module, "_WORK_PER_WRITE", 0)
    cache = tmp_path / "cache"

    class Replaces(MeanColour):
        def __call__(self, images):
            if self.seen == 4:
                shutil.rmtree(cache)
                cache.write_text("a file in place of the folder")
            return super().__call__(images)

    with pytest.raises(OSError, match=r"could not be written to .*: Not a directory\. Free some space"):
        extract(Replaces(), dataset(folder), cache)
    with pytest.raises(OSError, match=r"cache folder .* could not be created: Not a directory\. Choose another"):
        extract(MeanColour(), dataset(folder), cache)


def test_extract_with_another_policy_raises(folder, tmp_path):
    with pytest.raises(ValueError, match="`on_bad_image` must be 'error' or 'skip', got 'ignore'"):
        extract(MeanColour(), dataset(folder), tmp_path, on_bad_image="ignore")


def test_unfrozen_parts_pass_images_in_evaluation_mode_and_stay_in_theirs(folder, tmp_path):
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1), torch.nn.BatchNorm2d(2), torch.nn.Dropout())
    backbone = FrozenBackbone(network, unfrozen=("1", "2")).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    data = dataset(folder)
    found = extract(backbone, data, tmp_path / "cache").features
    assert [part.training for part in network] == [False, True, True]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    with torch.no_grad():
        expected = backbone.eval()(torch.stack([data[index][0] for index in range(10)]))
    torch.testing.assert_close(torch.from_numpy(np.array(found)), expected)
