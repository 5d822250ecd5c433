"""The cache of the features of one network on disk.

The cache of a network is a folder of files called parts. A part is an array of pairs: the identity of an image or a
text, and its feature. A part is written to a temporary file and renamed when it is complete. Its name contains the
digest of its content, so that a truncated or changed file is detected and not used. Runs that share a cache need no
lock: a part is replaced only by a part that contains its rows.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from mlmetric._atomic_write import atomic_write
from mlmetric._digest import sha256_hex

if sys.platform != "win32":
    import fcntl

_log = logging.getLogger(__name__)
_ROWS_PER_BLOCK = 4096
_LISTINGS = 100
_BYTES_PER_READ = 2**20


class FeatureCache:
    """The parts of the cache of one network, and the features that will be the next part.

    Args:
        folder: The folder of this network; it is created if it does not exist.

    Raises:
        OSError: If the folder cannot be created or read.
        ValueError: If parts have features of different sizes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.parts: list[npt.NDArray[Any]] = []
        self.paths: list[Path] = []
        self._new: list[tuple[bytes, npt.NDArray[np.float32]]] = []
        self._size: int | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror or str(error)
            raise OSError(
                error.errno, f"The cache folder {folder} could not be created: {reason}. Choose another."
            ) from error
        _remove_temporary_files(folder)
        self._list()

    def known(self) -> dict[bytes, tuple[int, int]]:
        """Return the part number and the row of each cached identity."""
        return {
            identity.tobytes(): (number, row)
            for number, part in enumerate(self.parts)
            for row, identity in enumerate(part["identity"])
        }

    def add(self, identities: Sequence[bytes | None], features: npt.NDArray[np.float32]) -> None:
        """Add features to the next part, except those of images without an identity."""
        self._check_size(features.shape[1])
        pairs = zip(identities, features, strict=True)
        self._new += [(identity, feature) for identity, feature in pairs if identity is not None]

    def write(self, *, still_to_come: int) -> None:
        """Write the added features as a part.

        Args:
            still_to_come: Number of features that will be added later.

        Raises:
            OSError: If the part cannot be written, or there is no space on the disk for it and the later features.
        """
        if not self._new:
            return
        part = np.empty(len(self._new), dtype=_part_dtype(len(self._new[0][1])))
        part["identity"] = [np.frombuffer(identity, dtype=np.uint8) for identity, _ in self._new]
        part["feature"] = [feature for _, feature in self._new]
        self._write(lambda: [part], len(part), part.dtype, still_to_come)
        self._new = []

    def merge(self, identities: list[bytes]) -> None:
        """Merge all parts into one with the images in this order, if these are exactly the cached images."""
        places = self.known()
        if set(identities) == places.keys() and not self._is_in_order(identities):
            self._merge([places[identity] for identity in identities], range(len(self.parts)))

    def close_parts_without(self, identities: Iterable[bytes | None]) -> None:
        """Close the parts that contain none of these images; other runs may merge and remove them in the meantime.

        On a network file system, reading a mapped file that another machine has removed ends the process.
        """
        wanted = set(identities)
        kept = [
            number
            for number, part in enumerate(self.parts)
            if any(identity.tobytes() in wanted for identity in part["identity"])
        ]
        self.parts = [self.parts[number] for number in kept]
        self.paths = [self.paths[number] for number in kept]

    def merge_parts_of(self, identities: list[bytes]) -> None:
        """Merge the parts that contain only these images into one, in this order; other parts stay as they are."""
        wanted = set(identities)
        own = [
            number
            for number, part in enumerate(self.parts)
            if all(identity.tobytes() in wanted for identity in part["identity"])
        ]
        if len(own) > 1:
            places = {
                identity.tobytes(): (number, row)
                for number in own
                for row, identity in enumerate(self.parts[number]["identity"])
            }
            self._merge([places[identity] for identity in dict.fromkeys(identities) if identity in places], own)

    def gather(self, identities: list[bytes]) -> npt.NDArray[np.float32]:
        """Return the features of these images: a memory map if they are one part in this order, otherwise a copy."""
        if self._is_in_order(identities):
            features: npt.NDArray[np.float32] = self.parts[0]["feature"][: len(identities)]
            return features
        places = self.known()
        missing = set(identities) - places.keys()
        if missing:
            raise OSError(
                f"{len(missing)} features of other processes are not in {self.folder}: all processes must use the "
                "same cache folder."
            )
        return np.stack([self.parts[part]["feature"][row] for part, row in map(places.__getitem__, identities)])

    def _list(self) -> None:
        """Read the parts in the folder; start again if another run merges them at the same time."""
        for _ in range(_LISTINGS):
            self.parts, self.paths = [], []
            with suppress(FileNotFoundError):  # merged into a part that was not listed
                for path in sorted(self.folder.glob("part-*.npy")):
                    self._add_if_valid(path)
                return
        raise OSError(f"{self.folder} changes constantly because other runs use this cache. Run again.")

    def _add_if_valid(self, path: Path) -> None:
        if not path.is_file() and os.path.lexists(path):
            _log.warning("%s is not a regular file; it is not used.", path)
        elif path.stem != f"part-{_digest(path)}":
            _log.warning("%s is damaged or changed; it is removed and its features are computed again.", path)
            with suppress(OSError):
                path.unlink()
        elif (part := _load(path)) is None:
            _log.warning("%s contains features that are not finite, or no features; it is not used.", path)
        else:
            self._check_size(part.dtype["feature"].shape[0])
            self.parts.append(part)
            self.paths.append(path)

    def _check_size(self, size: int) -> None:
        """Raise ValueError if features differ in size from the cached and added ones."""
        if self._size is None:
            self._size = size
        if size != self._size:
            raise ValueError(
                f"A network must return features of one size, got {self._size} and {size} for the cache {self.folder}. "
                "The size must not depend on the input, and `fingerprint` must differ between networks; if both hold, "
                "remove this folder."
            )

    def _is_in_order(self, identities: list[bytes]) -> bool:
        wanted = np.frombuffer(b"".join(identities), dtype=np.uint8).reshape(-1, 32)
        return len(self.parts) == 1 and np.array_equal(self.parts[0]["identity"][: len(wanted)], wanted)

    def _merge(self, order: list[tuple[int, int]], merged: Sequence[int]) -> None:
        """Replace parts by one part that contains the rows of `order`, pairs of a part number and a row."""
        parts, paths = self.parts, self.paths

        def blocks() -> Iterator[npt.NDArray[Any]]:
            for start in range(0, len(order), _ROWS_PER_BLOCK):
                yield np.stack([parts[part][row] for part, row in order[start : start + _ROWS_PER_BLOCK]])

        others = [number for number in range(len(parts)) if number not in set(merged)]
        self.parts, self.paths = [], []
        try:
            self._write(blocks, len(order), parts[0].dtype, 0)
        except OSError as error:
            _log.warning("%s The parts of the cache are unchanged.", error)
            self.parts, self.paths = parts, paths
            return
        for path in {paths[number] for number in merged} - set(self.paths):
            with suppress(OSError):  # an additional part is harmless
                path.unlink()
        self.parts += [parts[number] for number in others]
        self.paths += [paths[number] for number in others]

    def _write(
        self, blocks: Callable[[], Iterable[npt.NDArray[Any]]], num_rows: int, dtype: Any, still_to_come: int
    ) -> None:
        needed = (num_rows + still_to_come) * dtype.itemsize
        header = io.BytesIO()
        fields = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (num_rows,)}
        np.lib.format.write_array_header_2_0(header, fields)
        digest = sha256_hex(chain([header.getvalue()], (block.tobytes() for block in blocks())))
        path = self.folder / f"part-{digest[:32]}.npy"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)  # it may have been removed since the start
            free = shutil.disk_usage(self.folder).free
            if free < needed:
                raise OSError(errno.ENOSPC, f"{needed / 1e6:.1f} MB are needed, {free / 1e6:.1f} MB are free")
            with ExitStack() as until_renamed, atomic_write(path) as file:
                until_renamed.enter_context(_locked(file))
                file.write(header.getvalue())
                for block in blocks():
                    file.write(block.tobytes())
        except OSError as error:
            reason = error.__cause__.strerror if isinstance(error.__cause__, OSError) else error.strerror
            kept = " Features written before are kept there." if any(part.exists() for part in self.paths) else ""
            raise OSError(
                error.errno,
                f"The features could not be written to {self.folder}: {reason}.{kept} Free some space, or choose "
                "another cache folder, and run again.",
            ) from error
        try:
            part = np.load(path, mmap_mode="r")
        except FileNotFoundError:  # merged by another run already
            part = np.concatenate(list(blocks()))
        self.parts.append(part)
        self.paths.append(path)


def _part_dtype(size: int) -> np.dtype[Any]:
    return np.dtype([("identity", "u1", 32), ("feature", "<f4", (size,))])


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return sha256_hex(iter(partial(file.read, _BYTES_PER_READ), b""))[:32]


def _load(path: Path) -> npt.NDArray[Any] | None:
    """Map a part into memory; None if the file is not a part or has features that are not finite."""
    try:
        part = np.load(path, mmap_mode="r")
    except OSError:
        raise
    except Exception:  # NumPy raises many kinds of errors for other content
        return None
    is_part = (
        isinstance(part, np.ndarray)
        and part.ndim == 1
        and part.dtype.names == ("identity", "feature")
        and len(part.dtype["feature"].shape) == 1
        and part.dtype == _part_dtype(part.dtype["feature"].shape[0])
        and all(
            np.isfinite(part["feature"][start : start + _ROWS_PER_BLOCK]).all()
            for start in range(0, len(part), _ROWS_PER_BLOCK)
        )
    )
    return part if is_part else None


@contextmanager
def _locked(file: BinaryIO) -> Iterator[None]:
    """Lock a file that is being written, until the block or the process ends, even after the file is closed."""
    if sys.platform == "win32":  # where an open file cannot be removed
        yield
        return
    with os.fdopen(os.dup(file.fileno()), "wb") as same:
        with suppress(OSError):  # on a file system without locks
            fcntl.flock(same, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _remove_temporary_files(folder: Path) -> None:
    """Remove the temporary files of killed runs: those with content that no process has locked."""
    for path in folder.glob("part-*.tmp"):
        with suppress(OSError):  # locked, or renamed in the meantime
            if path.is_file() and path.stat().st_size > 0:
                with path.open("r+b") as file:
                    if sys.platform != "win32":
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
