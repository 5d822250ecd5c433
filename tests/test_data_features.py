"""The feature cache: right features, computed once, found out where torn, kept where a run dies."""

import errno
import hashlib
import logging
import os
import shutil
from collections import namedtuple

import numpy as np
import pytest
import torch
from PIL import Image

from mlmetric.data import BadImagesError, ImageDataset, extract_features
from mlmetric.data import _features as features_module
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


@pytest.mark.parametrize("damage", ["flip", "cut", "swap"])
def test_extract_finds_out_a_damaged_part_and_computes_it_again(folder, tmp_path, damage, caplog):
    backbone = MeanColour()
    extract(backbone, dataset(folder), tmp_path)
    (part,) = tmp_path.glob("*/part-*.npy")
    content = bytearray(part.read_bytes())
    if damage == "flip":
        content[-3] ^= 1
    elif damage == "cut":
        content = content[:-10]
    else:
        content[-12:], content[-400:-388] = content[-400:-388], content[-12:]
    part.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        extracted = extract(backbone, dataset(folder), tmp_path)
    assert "is torn or altered" in caplog.text
    assert backbone.seen == 20
    np.testing.assert_allclose(extracted.features, colours(range(10)), atol=1e-6)


def test_extract_killed_in_the_middle_goes_on_from_the_last_part(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(features_module, "_BATCHES_PER_PART", 1)

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
    identities = [dataset(folder).identity(i) for i in range(10)]
    assert features_module._missing_batches(identities, {}, 2) == grid
    done = {identities[i]: None for i in (0, 2, 3)}
    assert features_module._missing_batches(identities, done, 2) == [[1], *grid[2:]]


def test_extract_with_bad_images_names_how_many_and_the_first_and_loses_nothing(folder, tmp_path):
    (folder / "2.png").unlink()
    (folder / "7.png").write_text("no image")
    backbone = MeanColour()
    with pytest.raises(BadImagesError, match=r"2 of 10 images cannot be read; the first: .*2\.png does not exist") as e:
        extract(backbone, dataset(folder), tmp_path)
    assert len(e.value.reasons) == 2
    assert "7.png is truncated or no image" in e.value.reasons[1]
    assert backbone.seen == 8
    skipped = extract(backbone, dataset(folder), tmp_path, on_bad_image="skip")
    assert backbone.seen == 8
    assert skipped.indices.tolist() == [0, 1, 3, 4, 5, 6, 8, 9]
    np.testing.assert_allclose(skipped.features, colours(skipped.indices), atol=1e-6)
    assert len(skipped.bad_images) == 2
    Image.new("RGB", (4, 4), (40, 253, 7)).save(folder / "2.png")
    Image.new("RGB", (4, 4), (140, 248, 7)).save(folder / "7.png")
    mended = extract(backbone, dataset(folder), tmp_path)
    assert backbone.seen == 10
    np.testing.assert_allclose(mended.features, colours(range(10)), atol=1e-6)


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
    assert [path for path in tmp_path.rglob("*.npy") if path.parent.name != "images"] == []


def test_extract_of_no_images_or_of_no_tensors_is_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="at least one image, got none"):
        extract(MeanColour(), dataset(folder, []), tmp_path)
    with pytest.raises(TypeError, match=r"images as tensors, got Image\. Give it the backbone's transform"):
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
    assert "parts of the cache are left as they are" in caplog.text


def test_extract_does_not_touch_the_global_generator(folder, tmp_path):
    state = torch.get_rng_state()
    extract(MeanColour(), dataset(folder), tmp_path)
    assert torch.equal(torch.get_rng_state(), state)


def test_extract_removes_what_killed_runs_left_unfinished(folder, tmp_path):
    extract(MeanColour(), dataset(folder), tmp_path)
    (store,) = (path for path in tmp_path.iterdir() if path.name != "images")
    stale, fresh = store / "unfinished-1.npy", store / "unfinished-2.npy"
    for path in (stale, fresh):
        path.touch()
    os.utime(stale, (1, 1))
    extract(MeanColour(), dataset(folder), tmp_path)
    assert [stale.exists(), fresh.exists()] == [False, True]


def test_extract_with_another_policy_is_refused(folder, tmp_path):
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
