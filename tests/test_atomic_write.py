import errno
import os

import pytest

from mlmetric._atomic_write import atomic_write


def names(folder):
    return [path.name for path in folder.iterdir()]


def write_half(path, error):
    with atomic_write(path) as file:
        file.write(b"half")
        raise error


def test_atomic_write_replaces_the_whole_file_and_leaves_no_other(tmp_path):
    path = tmp_path / "new folder" / "file.bin"
    for content in (b"first, and longer", b"second"):
        with atomic_write(path) as file:
            file.write(content)
    assert path.read_bytes() == b"second"
    assert names(path.parent) == ["file.bin"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("wrong"), MemoryError()])
def test_atomic_write_of_a_block_that_fails_keeps_the_former_content(tmp_path, error):
    path = tmp_path / "file.bin"
    path.write_bytes(b"former")
    with pytest.raises(type(error)):
        write_half(path, error)
    assert path.read_bytes() == b"former"
    assert names(tmp_path) == ["file.bin"]


def test_atomic_write_on_a_full_disk_names_the_file_and_keeps_errno(tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"former")
    with pytest.raises(OSError, match=r"file\.bin could not be written: No space left on device") as caught:
        write_half(path, OSError(errno.ENOSPC, "No space left on device"))
    assert caught.value.errno == errno.ENOSPC
    assert path.read_bytes() == b"former"
    assert names(tmp_path) == ["file.bin"]


def test_atomic_write_syncs_the_content_before_it_renames(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append((os.fstat(number).st_size, names(tmp_path))))
    with atomic_write(tmp_path / "file.bin") as file:
        file.write(b"content")
    [(size, present)] = synced
    assert size == len(b"content")
    assert "file.bin" not in present


def test_atomic_write_by_two_writers_at_once_ends_with_one_whole_file(tmp_path):
    path = tmp_path / "file.bin"
    with atomic_write(path) as first, atomic_write(path) as second:
        first.write(b"first")
        second.write(b"second")
    assert path.read_bytes() == b"first"
    assert names(tmp_path) == ["file.bin"]
