"""Features of shards: computed by any processes in any order, the same as computed at once, joined without a copy."""

import hashlib
import multiprocessing
import pickle
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

from mlmetric.data import (
    BadImagesError,
    ImageDataset,
    JoinedFeatures,
    extract_features,
    extract_shard,
    join_shards,
)
from mlmetric.data import _forward_passes as passes_module
from mlmetric.data._feature_cache import FeatureCache


class MeanColour:
    """A backbone that counts the images that it sees."""

    def __init__(self, name="mean"):
        self.name, self.seen = name, 0

    def __call__(self, images):
        self.seen += len(images)
        return images.mean((2, 3))

    def fingerprint(self):
        return hashlib.sha256(self.name.encode()).hexdigest()


def to_tensor(image):
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255


NUM_IMAGES = 11


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "images"
    root.mkdir()
    for i in range(NUM_IMAGES):
        Image.new("RGB", (4, 4), (i * 20, 255 - i, 7)).save(root / f"{i}.png")
    return root


def dataset(root, numbers=range(NUM_IMAGES)):
    return ImageDataset(root, [f"{i}.png" for i in numbers], transform=to_tensor)


def shard_of(root, cache, shard, num_shards=3, backbone=None, **options):
    options = {"batch_size": 2, "num_workers": 0} | options
    return extract_shard(backbone or MeanColour(), dataset(root), cache, shard=shard, num_shards=num_shards, **options)


def all_at_once(root, cache):
    return extract_features(MeanColour(), dataset(root), cache, batch_size=2, num_workers=0).features


@pytest.mark.parametrize("num_shards", [1, 2, 3, 6, 9])
def test_shards_in_any_order_give_the_features_computed_at_once(num_shards, folder, tmp_path):
    done = []
    for shard in reversed(range(num_shards)):
        done = shard_of(folder, tmp_path / "cache", shard, num_shards).indices.tolist() + done
    assert done == list(range(NUM_IMAGES))
    joined = join_shards(MeanColour(), dataset(folder), tmp_path / "cache")
    np.testing.assert_array_equal(np.asarray(joined), all_at_once(folder, tmp_path / "other"))
    assert (joined.shape, joined.dtype, joined.ndim, len(joined)) == ((11, 3), np.float32, 2, 11)
    assert joined.indices.tolist() == list(range(NUM_IMAGES))


def test_batches_of_shards_are_those_of_the_whole_set_and_one_file_each(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(passes_module, "_BATCHES_PER_PART", 1)
    monkeypatch.setattr(passes_module, "_WORK_PER_WRITE", 0)

    class Batches(MeanColour):
        batches = []  # noqa: RUF012, of all instances

        def __call__(self, images):
            self.batches.append(len(images))
            return super().__call__(images)

    for shard in range(2):
        shard_of(folder, tmp_path / "cache", shard, 2, Batches())
        assert len(list((tmp_path / "cache").glob("*/part-*.npy"))) == shard + 1
    assert Batches.batches == [2, 2, 2, 2, 2, 1]


def test_extract_features_after_shards_computes_nothing(folder, tmp_path):
    for shard in range(3):
        shard_of(folder, tmp_path / "cache", shard)
    backbone = MeanColour()
    found = extract_features(backbone, dataset(folder), tmp_path / "cache", batch_size=2, num_workers=0).features
    assert backbone.seen == 0
    np.testing.assert_array_equal(found, all_at_once(folder, tmp_path / "other"))


def test_shard_computed_twice_computes_nothing_and_changes_no_file(folder, tmp_path):
    shard_of(folder, tmp_path / "cache", 1)
    before = sorted((tmp_path / "cache").rglob("*"))
    backbone, calls = MeanColour(), []
    again = shard_of(folder, tmp_path / "cache", 1, 3, backbone, progress=lambda *done: calls.append(done))
    assert (again.indices.tolist(), backbone.seen, calls) == ([4, 5, 6, 7], 0, [])
    assert sorted((tmp_path / "cache").rglob("*")) == before


def test_two_runs_of_one_shard_at_the_same_time_leave_its_features(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(passes_module, "_BATCHES_PER_PART", 1)
    monkeypatch.setattr(passes_module, "_WORK_PER_WRITE", 0)

    class OtherRunMeanwhile(MeanColour):
        def __call__(self, images):
            if self.seen == 4:
                shard_of(folder, tmp_path / "cache", 0, 1)
            return super().__call__(images)

    shard_of(folder, tmp_path / "cache", 0, 1, OtherRunMeanwhile())
    joined = join_shards(MeanColour(), dataset(folder), tmp_path / "cache")
    np.testing.assert_array_equal(np.asarray(joined), all_at_once(folder, tmp_path / "other"))


def test_merge_of_a_shard_leaves_parts_with_other_images_alone(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(passes_module, "_BATCHES_PER_PART", 1)
    monkeypatch.setattr(passes_module, "_WORK_PER_WRITE", 0)
    extract_features(MeanColour(), dataset(folder, [0, 1, 10]), tmp_path / "cache", batch_size=3, num_workers=0)
    (other,) = (tmp_path / "cache").glob("*/part-*.npy")
    shard_of(folder, tmp_path / "cache", 0)
    assert other.exists()
    assert len(list(other.parent.iterdir())) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_files_of_other_shards_are_closed_while_a_shard_is_computed(folder, tmp_path):
    class MappedFiles(MeanColour):
        def __call__(self, images):
            self.mapped = [part.name for part in parts if part.name in Path("/proc/self/maps").read_text()]
            return super().__call__(images)

    shard_of(folder, tmp_path / "cache", 0)
    extract_features(MeanColour(), dataset(folder, [4]), tmp_path / "own", batch_size=1, num_workers=0)
    (own,) = (tmp_path / "own").glob("*/part-*.npy")
    own.rename(next((tmp_path / "cache").iterdir()) / own.name)
    parts = list((tmp_path / "cache").glob("*/part-*.npy"))
    backbone = MappedFiles()
    shard_of(folder, tmp_path / "cache", 1, backbone=backbone)
    assert (len(parts), backbone.mapped, backbone.seen) == (2, [own.name], 3)


def test_features_of_another_size_than_those_of_other_shards_raise(folder, tmp_path):
    class Other(MeanColour):
        def __call__(self, images):
            return super().__call__(images)[:, :2]

        def fingerprint(self):
            return MeanColour().fingerprint()

    shard_of(folder, tmp_path / "cache", 0)
    with pytest.raises(ValueError, match=r"must return features of one size, got 3 and 2"):
        shard_of(folder, tmp_path / "cache", 1, backbone=Other())


def test_fingerprint_is_computed_once_for_all_folders(folder, tmp_path):
    class Counting(MeanColour):
        count = 0

        def fingerprint(self):
            self.count += 1
            return MeanColour().fingerprint()

    for shard in range(3):
        shard_of(folder, tmp_path / str(shard), shard)
    backbone = Counting()
    joined = join_shards(backbone, dataset(folder), [tmp_path / str(shard) for shard in range(3)])
    assert (len(joined), backbone.count) == (NUM_IMAGES, 1)


def test_caches_of_several_machines_are_joined_in_the_order_of_the_data_set(folder, tmp_path):
    caches = [tmp_path / f"machine {shard}" for shard in range(3)]
    for shard, cache in enumerate(caches):
        shard_of(folder, cache, shard)
    joined = join_shards(MeanColour(), dataset(folder), caches[::-1])
    np.testing.assert_array_equal(np.asarray(joined), all_at_once(folder, tmp_path / "other"))
    assert repr(joined) == "JoinedFeatures(shape=(11, 3), dtype=float32, files=3)"
    some = join_shards(MeanColour(), dataset(folder, [9, 5, 9]), caches)
    np.testing.assert_array_equal(np.asarray(some), np.asarray(joined)[[9, 5, 9]])


def test_files_of_several_caches_may_be_put_into_one_folder(folder, tmp_path):
    for shard in range(3):
        shard_of(folder, tmp_path / f"machine {shard}", shard)
    together = tmp_path / "together" / MeanColour().fingerprint()[:32]
    together.mkdir(parents=True)
    for part in tmp_path.glob("machine*/*/part-*.npy"):
        part.rename(together / part.name)
    joined = join_shards(MeanColour(), dataset(folder), tmp_path / "together")
    np.testing.assert_array_equal(np.asarray(joined), all_at_once(folder, tmp_path / "other"))


def test_missing_images_are_named_or_left_out(folder, tmp_path):
    for shard in (0, 2):
        shard_of(folder, tmp_path / "cache", shard)
    (folder / "10.png").unlink()
    names = r"5 of 11 images have no features in .*cache: image 4, 4\.png; .*; image 10, 10\.png, which does not exist"
    with pytest.raises(
        LookupError, match=names + r"\. Run `extract_shard` again, .* or leave them out with `on_missing"
    ):
        join_shards(MeanColour(), dataset(folder), tmp_path / "cache")
    some = join_shards(MeanColour(), dataset(folder), tmp_path / "cache", on_missing="skip")
    assert some.indices.tolist() == [0, 1, 2, 3, 8, 9]
    np.testing.assert_allclose(some[:][:, 0], some.indices * 20 / 255, atol=1e-6)
    Image.new("RGB", (4, 4), (200, 245, 7)).save(folder / "10.png")
    with pytest.raises(LookupError, match=r"5 of 11 images have no features"):
        join_shards(MeanColour(), dataset(folder), tmp_path / "cache")
    for shard in range(3):
        shard_of(folder, tmp_path / "cache", shard)
    assert len(join_shards(MeanColour(), dataset(folder), tmp_path / "cache")) == 11


def test_many_missing_images_are_counted(folder, tmp_path):
    shard_of(folder, tmp_path / "cache", 0)
    with pytest.raises(LookupError, match=r"7 of 11 .*: image 4, 4\.png; .*; image 8, 8\.png; and 2 more\. Run"):
        join_shards(MeanColour(), dataset(folder), [tmp_path / "cache"])


def test_shards_of_another_backbone_or_transform_are_not_joined(folder, tmp_path):
    shard_of(folder, tmp_path / "cache", 0, 1)
    data = ImageDataset(folder, ["0.png"] * NUM_IMAGES, transform=np.asarray)
    for on_missing in ("error", "skip"):
        with pytest.raises(LookupError, match=r"No features of this `backbone` are in .*Its weights and options"):
            join_shards(MeanColour("other"), dataset(folder), tmp_path / "cache", on_missing=on_missing)
        with pytest.raises(LookupError, match=r"11 of 11 images have no features .* another transform"):
            join_shards(MeanColour(), data, tmp_path / "cache", on_missing=on_missing)
    assert not (tmp_path / "cache" / MeanColour("other").fingerprint()[:32]).exists()


def test_damaged_file_of_a_shard_is_missing_and_computed_again(folder, tmp_path, caplog):
    for shard in range(3):
        shard_of(folder, tmp_path / "cache", shard)
    expected = np.asarray(join_shards(MeanColour(), dataset(folder), tmp_path / "cache"))
    part = sorted((tmp_path / "cache").glob("*/part-*.npy"))[0]
    part.write_bytes(part.read_bytes()[:-1] + b"!")
    with pytest.raises(LookupError, match="images have no features"):
        join_shards(MeanColour(), dataset(folder), tmp_path / "cache")
    assert "is damaged or changed" in caplog.text
    for shard in range(3):
        shard_of(folder, tmp_path / "cache", shard)
    found = join_shards(MeanColour(), dataset(folder), tmp_path / "cache")
    np.testing.assert_array_equal(np.asarray(found), expected)


def test_bad_images_of_a_shard_are_an_error_or_left_out_and_those_of_others_are_not_read(folder, tmp_path):
    (folder / "1.png").write_text("no image")
    (folder / "2.png").unlink()
    with pytest.raises(BadImagesError, match=r"2 of 4 images cannot be read; the first: .*1\.png is truncated"):
        shard_of(folder, tmp_path / "cache", 0)
    backbone = MeanColour()
    shard = shard_of(folder, tmp_path / "cache", 0, 3, backbone, on_bad_image="skip")
    assert (shard.indices.tolist(), len(shard.bad_images), backbone.seen) == ([0, 3], 2, 0)
    assert "2.png does not exist" in shard.bad_images[1]
    assert shard_of(folder, tmp_path / "cache", 1).bad_images == []
    (folder / "0.png").write_text("no image")
    (folder / "3.png").write_text("no image")
    nothing = shard_of(folder, tmp_path / "elsewhere", 0, on_bad_image="skip")
    assert (nothing.indices.tolist(), len(nothing.bad_images)) == ([], 4)


def test_image_of_a_shard_that_appears_meanwhile_is_left_out(folder, tmp_path):
    (folder / "3.png").rename(folder / "elsewhere")

    class Appears(MeanColour):
        def __call__(self, images):
            if (folder / "elsewhere").exists():
                (folder / "elsewhere").rename(folder / "3.png")
            return super().__call__(images)

    shard = shard_of(folder, tmp_path / "cache", 0, 3, Appears(), on_bad_image="skip")
    assert shard.indices.tolist() == [0, 1, 2]
    assert shard.bad_images == ["image 3, 3.png did not exist when the extraction began: run again."]


def test_arguments_out_of_range_raise(folder, tmp_path):
    with pytest.raises(ValueError, match="`num_shards` must be at least 1, got 0"):
        shard_of(folder, tmp_path, 0, 0)
    for shard in (-1, 3):
        with pytest.raises(ValueError, match=f"`shard` must be from 0 to 2, one below `num_shards`, got {shard}"):
            shard_of(folder, tmp_path, shard, 3)
    with pytest.raises(ValueError, match="`batch_size` must be at least 1, got 0"):
        shard_of(folder, tmp_path, 0, batch_size=0)
    with pytest.raises(ValueError, match="`on_missing` must be 'error' or 'skip', got 'ignore'"):
        join_shards(MeanColour(), dataset(folder), tmp_path, on_missing="ignore")
    with pytest.raises(ValueError, match="`cache_dirs` must contain at least one folder, got none"):
        join_shards(MeanColour(), dataset(folder), [])
    with pytest.raises(FileNotFoundError, match=r"The cache folder .*nowhere of `cache_dirs` does not exist"):
        join_shards(MeanColour(), dataset(folder), tmp_path / "nowhere")
    with pytest.raises(TypeError, match="`backbone` must be callable and have the method `fingerprint`"):
        join_shards(torch.nn.Flatten(), dataset(folder), tmp_path)


def test_features_of_two_sizes_in_two_folders_raise(folder, tmp_path):
    class Grey(MeanColour):
        def __call__(self, images):
            return super().__call__(images)[:, :1]

    shard_of(folder, tmp_path / "one", 0)
    shard_of(folder, tmp_path / "two", 1, 3, Grey())
    with pytest.raises(ValueError, match=r"features in `cache_dirs` must have one size, got \[1, 3\]"):
        join_shards(MeanColour(), dataset(folder), [tmp_path / "one", tmp_path / "two"])


@pytest.fixture(scope="module")
def joined(tmp_path_factory):
    """Features in random order in five files, and the array that they should be."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 4)).astype(np.float32)
    folder = tmp_path_factory.mktemp("parts")
    order = np.concatenate([rng.permutation(30), np.arange(30, 60)])
    paths, numbers, rows = [], np.empty(60, dtype=np.int64), np.empty(60, dtype=np.int64)
    for number, part in enumerate(np.array_split(order, 5)):
        array = np.zeros(len(part), dtype=[("identity", "u1", 32), ("feature", "<f4", (4,))])
        array["feature"] = features[part]
        paths.append(folder / f"{number}.npy")
        np.save(paths[-1], array)
        numbers[part], rows[part] = number, np.arange(len(part))
    return JoinedFeatures(paths, numbers, rows, np.arange(60)), features


ROWS = st.one_of(
    st.integers(-60, 59),
    st.slices(60),
    st.lists(st.integers(-60, 59)),
    st.lists(st.integers(-60, 59)).map(lambda rows: np.array(rows, dtype=np.int32)),
    st.lists(st.integers(-60, 59)).map(lambda rows: torch.tensor(rows, dtype=torch.int64)),
    st.lists(st.booleans(), min_size=60, max_size=60),
    st.lists(st.booleans(), min_size=60, max_size=60).map(np.array),
    st.integers(-60, 59).map(np.int64),
    st.integers(-60, 59).map(torch.tensor),
)


@given(rows=ROWS)
def test_rows_are_those_of_the_array(joined, rows):
    found, features = joined
    expected = features[np.asarray(rows, dtype=np.int64) if isinstance(rows, list) and not rows else rows]
    np.testing.assert_array_equal(found[rows], expected)
    assert (found[rows].dtype, found[rows].shape) == (np.float32, expected.shape)


@given(rows=st.integers(1, 70))
def test_blocks_are_all_rows_in_order(joined, rows):
    found, features = joined
    blocks = list(found.blocks(rows))
    assert [start for start, _ in blocks] == list(range(0, 60, rows))
    np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), features)


def test_what_is_read_belongs_to_the_caller(joined):
    found, features = joined
    for read in (found[3], found[3:4][0], next(found.blocks())[1][3], np.asarray(found)[3]):
        read[:] = 7
    np.testing.assert_array_equal(np.asarray(found), features)


def test_arrays_of_other_kinds_are_made_as_numpy_does(joined):
    found, features = joined
    assert np.asarray(found, dtype=np.float64).dtype == np.float64
    np.testing.assert_array_equal(np.array(list(found)), features)
    np.testing.assert_array_equal(np.stack([np.asarray(found, dtype=np.float16)])[0], features.astype(np.float16))
    with pytest.raises(ValueError, match=r"`copy=False` is not possible: .* Use `blocks`"):
        np.asarray(found, copy=False)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (60, "A row must be from -60 to 59, got 60"),
        (-61, "A row must be from -60 to 59, got -61"),
        (True, "A row must be an integer, got True"),
        ((slice(None), 1), r"Only rows can be indexed, got .*: use `features\[rows\]\[:, columns\]`"),
        (None, "Only rows can be indexed, got None"),
        (Ellipsis, "Only rows can be indexed, got Ellipsis"),
        ([1.5], r"one-dimensional sequence of integers or booleans, got list of float64, shape \(1,\)"),
        ([[1]], r"got list of int64, shape \(1, 1\)"),
        ("1", "got str of "),
        ([60], "out of bounds"),
        ([True], "boolean index did not match"),
    ],
)
def test_what_is_no_row_raises(joined, rows, message):
    with pytest.raises(IndexError, match=message):
        joined[0][rows]


def test_blocks_of_no_rows_raise(joined):
    with pytest.raises(ValueError, match="`rows` must be at least 1, got 0"):
        joined[0].blocks(0)


def test_pickle_contains_no_features_and_data_loaders_read_it(joined):
    found, features = joined
    pickled = pickle.dumps(found)
    assert features[0].tobytes() not in pickled
    np.testing.assert_array_equal(np.asarray(pickle.loads(pickled)), features)
    np.testing.assert_array_equal(torch.cat(list(DataLoader(found, batch_size=7))), features)


def test_pickle_of_files_that_are_gone_says_what_to_do(folder, tmp_path):
    for shard in range(3):
        shard_of(folder, tmp_path / "cache", shard)
    joined = join_shards(MeanColour(), dataset(folder), tmp_path / "cache")
    pickled = pickle.dumps(joined)
    expected = all_at_once(folder, tmp_path / "cache")  # merges all files into one
    np.testing.assert_array_equal(np.asarray(joined), expected)
    with pytest.raises(FileNotFoundError, match=r"part-.* does not exist any more: .*Call `join_shards` again"):
        pickle.loads(pickled)


PROGRAM = textwrap.dedent(
    """
    import hashlib, os, signal, sys
    import numpy as np
    import torch
    from mlmetric.data import ImageDataset, extract_shard
    from mlmetric.data import _forward_passes
    from mlmetric.heads import FrozenBackbone

    _forward_passes._BATCHES_PER_PART, _forward_passes._WORK_PER_WRITE = 1, 0
    folder, shard, dies_after = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3), torch.nn.ReLU())
    backbone = FrozenBackbone(network, transform=lambda image: torch.from_numpy(
        np.asarray(image).copy()).permute(2, 0, 1) / 255)
    dataset = ImageDataset(folder + "/images", [f"{i}.png" for i in range(11)], transform=backbone.transform)

    def progress(done, total):
        print(done, flush=True)
        if done == dies_after:
            os.kill(os.getpid(), signal.SIGKILL)

    options = {"batch_size": 1, "num_workers": 1, "progress": progress}
    extract_shard(backbone, dataset, folder + "/cache", shard=shard, num_shards=2, **options)
    """
)


def test_processes_compute_shards_at_once_and_a_killed_one_is_computed_again(folder, tmp_path):
    def start(shard, dies_after=-1):
        command = [sys.executable, "-c", PROGRAM, str(tmp_path), str(shard), str(dies_after)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    first, killed = start(0), start(1, dies_after=3)
    (shown, errors), _ = first.communicate(timeout=300), killed.communicate(timeout=300)
    assert (first.returncode, shown.split(), errors) == (0, [str(done) for done in range(1, 6)], "")
    assert killed.returncode == -signal.SIGKILL
    again = start(1)
    shown, _ = again.communicate(timeout=300)
    assert (again.returncode, shown.split()) == (0, ["4", "5", "6"])  # three were kept
    (store,) = (tmp_path / "cache").iterdir()
    assert len([path for path in store.iterdir() if path.suffix == ".npy"]) == 2
    assert len(FeatureCache(store).known()) == NUM_IMAGES


def run_shard(arguments):
    return extract_shard(*arguments[:3], shard=arguments[3], num_shards=2, batch_size=2, num_workers=0).indices.tolist()


def test_arguments_and_results_of_a_shard_are_pickled_as_an_engine_does(folder, tmp_path):
    arguments = (MeanColour(), dataset(folder), tmp_path / "cache")
    result = extract_shard(*pickle.loads(pickle.dumps(arguments)), shard=0, num_shards=2, batch_size=2, num_workers=0)
    assert pickle.loads(pickle.dumps(result)).indices.tolist() == list(range(6))
    context = multiprocessing.get_context("fork")
    with context.Pool(2) as pool:
        assert pool.map(run_shard, [(*arguments, shard) for shard in range(2)]) == [list(range(6)), list(range(6, 11))]
    assert len(join_shards(*arguments)) == NUM_IMAGES
