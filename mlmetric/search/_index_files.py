"""The files of an index: arrays as npy, the rest as JSON with the size and the digest of each array."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from mlmetric._atomic_write import atomic_write
from mlmetric._digest import sha256_hex
from mlmetric.search._faiss import Metric
from mlmetric.search._rows import check_label_names, id_list

Array = npt.NDArray[Any]
FORMAT = "mlmetric search index"
VERSION = 1
DESCRIPTION = "index.json"
_BYTES_PER_READ = 2**20


class StoredIndex(NamedTuple):
    """Contents of the files of an index."""

    embeddings: Array
    labels: Array | None
    ids: list[str | int]
    label_names: list[str] | None
    metric: Metric


class _DigestedFile:
    """A file that is being written, with the number and the digest of the bytes so far."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._digest, self.num_bytes = file, hashlib.sha256(), 0

    def write(self, block: bytes) -> None:
        self._file.write(block)
        self._digest.update(block)
        self.num_bytes += len(block)

    @property
    def record(self) -> dict[str, Any]:
        return {"bytes": self.num_bytes, "sha256": self._digest.hexdigest()}


def write_index(folder: Path, index: StoredIndex) -> None:
    """Write the arrays as npy files and the rest as `index.json`.

    All files are complete before the first of them replaces an older one.

    Raises:
        OSError: If a file cannot be written; existing files are then unchanged.
    """
    try:
        with ExitStack() as stack:  # renames the last file first
            description_file = stack.enter_context(atomic_write(folder / DESCRIPTION))
            files = {}
            for name, array in (("embeddings.npy", index.embeddings), ("labels.npy", index.labels)):
                if array is not None:
                    file = _DigestedFile(stack.enter_context(atomic_write(folder / name)))
                    # numpy writes to objects that are not files in blocks, so that no memory map is read as a whole.
                    np.lib.format.write_array(file, array, allow_pickle=False)
                    files[name] = file.record
            description = {"format": FORMAT, "version": VERSION, "metric": index.metric, "files": files}
            description |= {"label_names": index.label_names, "ids": index.ids}
            description_file.write(json.dumps(description, indent=1).encode())
    except OSError as error:
        cause: BaseException = error
        while isinstance(cause.__cause__, OSError):
            cause = cause.__cause__
        reason = cause.strerror if isinstance(cause, OSError) else None
        raise OSError(
            error.errno or errno.EIO,
            f"The index could not be written to {folder}: {reason or cause}. Files that were there are unchanged.",
        ) from error
    if index.labels is None:  # of an index that was there before
        (folder / "labels.npy").unlink(missing_ok=True)


def read_index(folder: Path, *, mmap: bool) -> StoredIndex:
    """Read what `write_index` wrote; the arrays are memory maps, if `mmap`.

    Raises:
        FileNotFoundError: If the folder or a file is missing.
        ValueError: If a file is incomplete, does not belong to the others, is newer than this version, or is not a file
            of an index.
    """
    description = _read_description(folder)
    arrays = {name: _read_array(folder / name, record, mmap=mmap) for name, record in description["files"].items()}
    embeddings, labels = arrays["embeddings.npy"], arrays.get("labels.npy")
    try:
        label_names = description["label_names"]
        if embeddings.ndim != 2 or not embeddings.size or embeddings.dtype != np.float32:
            raise ValueError(f"embeddings.npy has shape {embeddings.shape} and dtype {embeddings.dtype}.")
        if labels is not None and (
            labels.dtype not in (np.uint8, np.float32)
            or labels.ndim != 2
            or len(labels) != len(embeddings)
            or (label_names is not None and labels.shape[1] != len(label_names))
        ):
            raise ValueError(f"labels.npy has shape {labels.shape} and dtype {labels.dtype}.")
        ids = id_list(description["ids"], set())
        if len(ids) != len(embeddings):
            raise ValueError(f"there are {len(ids)} ids and {len(embeddings)} rows.")
        if label_names is not None:
            label_names = check_label_names(label_names)
        if description["metric"] not in get_args(Metric):
            raise ValueError(f"`metric` is {description['metric']!r}.")
        return StoredIndex(embeddings, labels, ids, label_names, description["metric"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / DESCRIPTION} is malformed: {error}") from error


def _read_array(path: Path, record: Any, *, mmap: bool) -> Array:
    if not path.is_file():
        raise FileNotFoundError(
            f"The index in {path.parent} is incomplete: {path.name} is missing. Save the index again."
        )
    _check_content(path, record)
    try:
        # A memory map is never larger than the file, whatever shape the file claims to have.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OverflowError) as error:
        raise ValueError(f"{path} is not an array of numbers: {error}") from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{path} is not an array of numbers: it is an archive of several.")
    return array if mmap else np.array(array)


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / DESCRIPTION
    if not path.is_file():
        found = "there is no such folder"
        if folder.exists():
            found = "it has no index.json" if folder.is_dir() else "it is a file, not a folder"
        raise FileNotFoundError(f"There is no search index in {folder}: {found}.")
    try:
        description = json.loads(path.read_bytes())
    except (RecursionError, ValueError) as error:
        raise ValueError(f"{path} is incomplete or not a JSON file: {error}. Save the index again.") from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise ValueError(f"{path} does not describe a search index of mlmetric.")
    if description.get("version") != VERSION:
        raise ValueError(
            f"{path} has version {description.get('version')!r} of the format, and this version of mlmetric reads "
            f"version {VERSION}: update mlmetric."
        )
    files = description.get("files")
    if not isinstance(files, dict) or not {"embeddings.npy"} <= files.keys() <= {"embeddings.npy", "labels.npy"}:
        raise ValueError(f"{path} is malformed: `files` must be embeddings.npy and labels.npy, got {files!r:.80}.")
    return description


def _check_content(path: Path, record: Any) -> None:
    if not isinstance(record, dict):
        raise ValueError(f"{path.with_name(DESCRIPTION)} is malformed: it has no size of {path.name}.")
    num_bytes, expected = path.stat().st_size, record.get("bytes")
    if num_bytes != expected:
        raise ValueError(
            f"{path} is incomplete or belongs to another index: it has {num_bytes} bytes, and index.json says "
            f"{expected}. Save the index again."
        )
    with path.open("rb") as file:
        if sha256_hex(_blocks(file)) != record.get("sha256"):
            raise ValueError(
                f"{path} is damaged or belongs to another index: its digest differs from the one in index.json. Save "
                "the index again."
            )


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    return iter(partial(file.read, _BYTES_PER_READ), b"")
