"""The cache of one network's features on disk.

It is a folder for each network and preprocessing, in it parts: arrays of (image identity, feature) rows. A part is
written under another name and renamed when it is whole, and its name carries the digest of its content: what is torn
or altered is found out and never used.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt

_log = logging.getLogger(__name__)
_ROWS_PER_BLOCK = 4096
_STALE_SECONDS = 3600


class FeatureCache:
    """The parts of one network's cache."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.parts: list[npt.NDArray[Any]] = []
        self.paths: list[Path] = []
        for path in folder.glob("unfinished-*.npy"):  # of killed runs; one being written is younger
            with suppress(FileNotFoundError):  # whole by now
                if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    path.unlink()
        for path in sorted(folder.glob("part-*.npy")):
            with suppress(FileNotFoundError):  # merged by another run
                self._add_if_whole(path)

    def _add_if_whole(self, path: Path) -> None:
        if path.stem == f"part-{_digest(path)}":
            self._add(path)
        else:
            _log.warning("%s is torn or altered; it is removed and its images are computed again.", path)
            path.unlink()

    def _add(self, path: Path) -> None:
        self.parts.append(np.load(path, mmap_mode="r"))
        self.paths.append(path)

    def known(self) -> dict[bytes, tuple[int, int]]:
        """Return for each identity its part and row."""
        return {
            identity.tobytes(): (number, row)
            for number, part in enumerate(self.parts)
            for row, identity in enumerate(part["identity"])
        }

    def append(self, rows: list[tuple[bytes, npt.NDArray[np.float32]]], *, still_to_come: int) -> None:
        if not rows:
            return
        part = np.empty(len(rows), dtype=[("identity", "u1", 32), ("feature", "<f4", rows[0][1].shape)])
        part["identity"] = [np.frombuffer(identity, dtype=np.uint8) for identity, _ in rows]
        part["feature"] = [feature for _, feature in rows]
        self._write([part], len(part), part.dtype, still_to_come)

    def merge(self, identities: list[bytes]) -> None:
        """Write these images, if they are all that is cached, as one part in this order."""
        places = self.known()
        if set(identities) == places.keys() and not self._is_in_order(identities):
            self._merge([places[identity] for identity in identities])

    def gather(self, identities: list[bytes]) -> npt.NDArray[np.float32]:
        """Return the features of these images: a memory map where they are one part, else a copy."""
        if self._is_in_order(identities):
            features: npt.NDArray[np.float32] = self.parts[0]["feature"][: len(identities)]
            return features
        places = self.known()
        missing = set(identities) - places.keys()
        if missing:
            raise OSError(
                f"{len(missing)} features of other processes are not in {self.folder}: the cache folder must be one "
                "that all processes see."
            )
        return np.stack([self.parts[part]["feature"][row] for part, row in map(places.__getitem__, identities)])

    def _is_in_order(self, identities: list[bytes]) -> bool:
        wanted = np.frombuffer(b"".join(identities), dtype=np.uint8).reshape(-1, 32)
        return len(self.parts) == 1 and np.array_equal(self.parts[0]["identity"][: len(wanted)], wanted)

    def _merge(self, order: list[tuple[int, int]]) -> None:
        parts, paths = self.parts, self.paths
        blocks = (
            np.stack([parts[part][row] for part, row in order[start : start + _ROWS_PER_BLOCK]])
            for start in range(0, len(order), _ROWS_PER_BLOCK)
        )
        self.parts, self.paths = [], []
        try:
            self._write(blocks, len(order), parts[0].dtype, 0)
        except OSError as error:
            _log.warning("%s The parts of the cache are left as they are.", error)
            self.parts, self.paths = parts, paths
            return
        for path in set(paths) - set(self.paths):
            path.unlink(missing_ok=True)

    def _write(self, blocks: Iterable[npt.NDArray[Any]], num_rows: int, dtype: Any, still_to_come: int) -> None:
        unfinished = self.folder / f"unfinished-{uuid4().hex}.npy"
        needed = (num_rows + still_to_come) * dtype.itemsize
        try:
            free = shutil.disk_usage(self.folder).free
            if free < needed:
                raise OSError(errno.ENOSPC, f"{needed / 1e6:.1f} MB are needed, {free / 1e6:.1f} MB are free")
            with unfinished.open("wb") as file:
                header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (num_rows,)}
                np.lib.format.write_array_header_2_0(file, header)
                for block in blocks:
                    file.write(block.tobytes())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            raise OSError(
                error.errno,
                f"The features could not be written to {self.folder}: {error.strerror}. What was computed before is "
                "kept there. Free some space, or take another cache folder, and run again.",
            ) from error
        path = self.folder / f"part-{_digest(unfinished)}.npy"
        unfinished.rename(path)
        self._add(path)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]
