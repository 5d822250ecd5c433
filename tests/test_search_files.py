"""The files of a search index: reading and writing, and files that are missing, damaged or foreign."""

import errno
import io
import json
import mmap as mmap_module
import pickle
import shutil
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest

from mlmetric.search import SearchIndex, _index_files

NAMES = ["cat", "dog"]


def make_index(seed=0, **options):
    generator = np.random.default_rng(seed)
    index = SearchIndex(label_names=NAMES, **options)
    index.add(
        generator.normal(size=(50, 10)),
        ids=[*range(25), *(f"é/{row}.jpg" for row in range(25))],
        labels=generator.integers(0, 2, (50, 2)),
    )
    return index


def assert_equal(first, second):
    np.testing.assert_array_equal(first.embeddings, second.embeddings)
    np.testing.assert_array_equal(first.labels, second.labels)
    assert (first.ids, first.label_names, first.metric) == (second.ids, second.label_names, second.metric)
    queries = np.random.default_rng(1).normal(size=(4, 10))
    assert first.search(queries, 7, labels=[["cat"]] * 4) == second.search(queries, 7, labels=[["cat"]] * 4)


def is_memory_map(array):
    while array is not None and not isinstance(array, mmap_module.mmap):
        array = getattr(array, "base", None)
    return array is not None


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_loaded_index_equals_the_saved_one(tmp_path, metric, mmap):
    index = make_index(metric=metric)
    index.save(tmp_path / "new" / "index")
    loaded = SearchIndex.load(tmp_path / "new" / "index", mmap=mmap)
    assert_equal(loaded, index)
    assert is_memory_map(loaded.embeddings) == mmap
    assert is_memory_map(loaded.labels) == mmap
    assert sorted(path.name for path in (tmp_path / "new" / "index").iterdir()) == [
        "embeddings.npy",
        "index.json",
        "labels.npy",
    ]


@pytest.mark.slow
def test_index_is_searched_in_a_new_process(tmp_path):
    index = make_index()
    index.save(tmp_path)
    program = (
        "import sys; from mlmetric.search import SearchIndex; index = SearchIndex.load(sys.argv[1]);"
        "print(ascii(index.search(index.embeddings[:2], 3, labels=index.labels[:2])))"
    )
    run = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ascii(index.search(index.embeddings[:2], 3, labels=index.labels[:2]))


def test_files_are_arrays_and_json(tmp_path):
    index = make_index()
    index.save(tmp_path)
    np.testing.assert_array_equal(np.load(tmp_path / "embeddings.npy"), index.embeddings)
    np.testing.assert_array_equal(np.load(tmp_path / "labels.npy"), index.labels)
    description = json.loads((tmp_path / "index.json").read_text())
    assert description["ids"] == index.ids
    assert description["label_names"] == NAMES


def test_soft_labels_and_no_labels_are_kept(tmp_path):
    soft = SearchIndex()
    soft.add([[0.0], [1.0]], labels=[[0.5, 1.0], [0.25, 0.0]])
    soft.save(tmp_path)
    loaded = SearchIndex.load(tmp_path)
    assert (loaded.labels.tolist(), loaded.label_names) == ([[0.5, 1.0], [0.25, 0.0]], None)
    unlabelled = SearchIndex()
    unlabelled.add([[0.0]])
    unlabelled.save(tmp_path)  # to the same folder
    assert SearchIndex.load(tmp_path).labels is None
    assert not (tmp_path / "labels.npy").exists()


def test_loaded_index_can_be_added_to_and_saved_to_its_folder(tmp_path):
    index = make_index()
    index.save(tmp_path)
    loaded = SearchIndex.load(tmp_path)
    with pytest.raises(ValueError, match="unique, got 3 at row 0, which the index already contains"):
        loaded.add([[0.0] * 10], ids=[3], labels=[["dog"]])
    for each in (index, loaded):
        each.add([[0.0] * 10], ids=["new"], labels=[["dog"]])
    assert_equal(loaded, index)
    loaded.save(tmp_path)
    assert_equal(loaded, SearchIndex.load(tmp_path))


def test_memory_map_is_written_in_blocks(tmp_path, monkeypatch):
    index = SearchIndex()
    index.add(np.zeros((30_000, 64), dtype=np.float32))
    index.save(tmp_path)
    written = []

    class Recorded(_index_files._DigestedFile):
        def write(self, block):
            written.append(len(block))
            super().write(block)

    monkeypatch.setattr(_index_files, "_DigestedFile", Recorded)
    SearchIndex.load(tmp_path).save(tmp_path / "copy")
    assert sum(written) == (tmp_path / "embeddings.npy").stat().st_size
    assert max(written) <= 2**24 / 2
    assert (tmp_path / "copy" / "embeddings.npy").read_bytes() == (tmp_path / "embeddings.npy").read_bytes()


@pytest.mark.parametrize("failing", ["embeddings.npy", "labels.npy", "index.json"])
def test_failure_to_write_a_file_leaves_all_files_unchanged(tmp_path, monkeypatch, failing):
    index = make_index()
    index.save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    @contextmanager
    def write(path):
        with original(path) as file:
            yield FullDisk() if path.name == failing else file

    class FullDisk(io.BytesIO):
        def write(self, block):
            raise OSError(errno.ENOSPC, "No space left on device")

    original = _index_files.atomic_write
    monkeypatch.setattr(_index_files, "atomic_write", write)
    with pytest.raises(OSError, match=r"could not be written to .*: No space left on device\. Files that") as error:
        make_index(seed=1).save(tmp_path)
    assert error.value.errno == errno.ENOSPC
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert_equal(SearchIndex.load(tmp_path), index)


# Files that are missing, damaged or foreign


@pytest.fixture
def folder(tmp_path):
    make_index().save(tmp_path / "index")
    return tmp_path / "index"


def edit(folder, **changes):
    path = folder / "index.json"
    description = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in description.items() if value != "absent"}))


def test_missing_files_are_named(folder, tmp_path):
    (folder / "labels.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"index is incomplete: labels\.npy is missing"):
        SearchIndex.load(folder)
    (folder / "index.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no search index in .*index: it has no index\.json"):
        SearchIndex.load(folder)
    with pytest.raises(FileNotFoundError, match=r"^There is no search index in .*other: there is no such folder\.$"):
        SearchIndex.load(tmp_path / "other")
    (tmp_path / "file").touch()
    with pytest.raises(FileNotFoundError, match=r"no search index in .*file: it is a file, not a folder\.$"):
        SearchIndex.load(tmp_path / "file")


@pytest.mark.parametrize("name", ["embeddings.npy", "labels.npy", "index.json"])
@pytest.mark.parametrize("part", [0, 0.1, 0.5, 0.9, 0.999])
def test_truncated_file_is_named(folder, name, part):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(part * len(content))])
    with pytest.raises(ValueError, match=rf"{name} is incomplete or"):
        SearchIndex.load(folder)


@pytest.mark.parametrize("name", ["embeddings.npy", "labels.npy"])
@pytest.mark.parametrize("mmap", [True, False])
def test_changed_or_swapped_file_is_named(folder, tmp_path, name, mmap):
    make_index(seed=1).save(tmp_path / "other")
    shutil.copy(tmp_path / "other" / name, folder / name)
    with pytest.raises(ValueError, match=rf"{name} is damaged or belongs to another index: its digest differs"):
        SearchIndex.load(folder, mmap=mmap)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "has version 2 of the format, .* reads version 1: update mlmetric"),
        ({"format": "another"}, "does not describe a search index of mlmetric"),
        ({"format": "absent"}, "does not describe a search index of mlmetric"),
        ({"files": {}}, r"malformed: `files` must be embeddings\.npy and labels\.npy, got {}"),
        ({"files": {"embeddings.npy": {}, "../x.npy": {}}}, "malformed: `files` must be"),
        ({"files": {"embeddings.npy": 1}}, r"malformed: it has no size of embeddings\.npy"),
        ({"files": {"embeddings.npy": {}}}, "has 2128 bytes, and index.json says None"),
        ({"ids": "absent"}, "malformed: 'ids'"),
        ({"ids": [1, 2]}, "malformed: there are 2 ids and 50 rows"),
        ({"ids": [1] * 50}, "malformed: `ids` must be unique, got 1 at row 1"),
        ({"label_names": ["cat"]}, r"malformed: labels\.npy has shape \(50, 2\)"),
        ({"label_names": 1}, "malformed: "),
        ({"metric": "manhattan"}, "malformed: `metric` is 'manhattan'"),
    ],
)
def test_malformed_description_raises(folder, changes, message):
    edit(folder, **changes)
    with pytest.raises(ValueError, match=message):
        SearchIndex.load(folder)


def test_description_that_is_no_object_raises(folder):
    (folder / "index.json").write_text("[1]")
    with pytest.raises(ValueError, match="does not describe a search index of mlmetric"):
        SearchIndex.load(folder)


def write_header(file, shape):
    """Write the header of an array without its numbers."""
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    file.write(bytes(4))


def test_description_that_is_nested_too_deeply_raises(folder):
    (folder / "index.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="is incomplete or not a JSON file"):
        SearchIndex.load(folder)


class Executed:
    def __reduce__(self):
        return exec, ("raise SystemExit('executed')",)


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda file: np.save(file, np.array([Executed()]), allow_pickle=True), "is not an array of numbers"),
        (lambda file: pickle.dump(Executed(), file), "is not an array of numbers"),
        (lambda file: np.savez(file, np.zeros(2)), "an archive of several|not an array of numbers"),
        (lambda file: np.save(file, np.zeros((50, 10))), r"embeddings\.npy has shape \(50, 10\) and dtype float64"),
        (lambda file: np.save(file, np.zeros(50, np.float32)), r"embeddings\.npy has shape \(50,\)"),
        (lambda file: np.save(file, np.zeros((4, 10), np.float32)), r"labels\.npy has shape \(50, 2\)"),
        (lambda file: np.save(file, np.zeros((50, 0), np.float32)), r"embeddings\.npy has shape \(50, 0\)"),
        (lambda file: write_header(file, (10**15, 10)), "is not an array of numbers"),
        (lambda file: write_header(file, (10**30, 10)), "is not an array of numbers"),
    ],
    ids=["objects", "pickle", "archive", "float64", "vector", "fewer rows", "no columns", "large", "largest"],
)
def test_foreign_array_of_a_matching_digest_is_neither_used_nor_executed(folder, make, message, mmap):
    content = io.BytesIO()
    make(content)
    (folder / "embeddings.npy").write_bytes(content.getvalue())
    files = json.loads((folder / "index.json").read_text())["files"]
    record = _index_files._DigestedFile(io.BytesIO())
    record.write(content.getvalue())
    edit(folder, files=files | {"embeddings.npy": record.record})
    with pytest.raises(ValueError, match=message):
        SearchIndex.load(folder, mmap=mmap)
