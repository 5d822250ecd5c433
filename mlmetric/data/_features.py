"""Features of a frozen network, computed once for each image and kept on disk.

The cache is a folder for each network and preprocessing, in it parts: arrays of (image identity, feature) rows. A
part is written under another name and renamed when it is whole, and its name carries the digest of its content: what
is torn or altered is found out and never used. What is in no part is computed; so a killed run, an added image and a
mended one are all the same case.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from mlmetric.data._images import BadImageError, BadImagesError
from mlmetric.distributed import gather_objects, num_ranks, on_first_rank, rank

_log = logging.getLogger(__name__)
_BATCHES_PER_PART = 8
_ROWS_PER_BLOCK = 4096
_STALE_SECONDS = 3600

_Batch = tuple[list[int], Tensor | None, dict[int, str]]


class Backbone(Protocol):
    """What extraction asks of a network: `mlmetric.heads.FrozenBackbone` is one."""

    def __call__(self, images: Tensor) -> Tensor:
        """Map a batch of images to features `(N, D)`."""

    def fingerprint(self) -> str:
        """Digest all that determines a feature besides the image."""


class IdentifiedImages(Protocol):
    """What extraction asks of a data set: `mlmetric.data.ImageDataset` is one."""

    def __len__(self) -> int:
        """Count the images."""

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """Return a preprocessed image and something else, or raise `BadImageError`."""

    def identity(self, index: int) -> bytes | None:
        """Return 32 bytes that change when the image does; None if it does not exist."""


@dataclass(frozen=True)
class ExtractedFeatures:
    """Features of the images that could be read.

    Attributes:
        features: float32, shape `(K, D)`; a memory map, read only, where these images are all that the cache holds.
        indices: Which images of the data set these are, int64, shape `(K,)`, ascending.
        bad_images: For each image left out, the message that names it and the reason.
    """

    features: npt.NDArray[np.float32]
    indices: npt.NDArray[np.int64]
    bad_images: list[str]


def extract_features(
    backbone: Backbone,
    dataset: IdentifiedImages,
    cache_dir: str | Path,
    *,
    batch_size: int = 32,
    num_workers: int = 2,
    on_bad_image: Literal["error", "skip"] = "error",
    progress: Callable[[int, int], None] | None = None,
) -> ExtractedFeatures:
    """Compute the feature of each image once, or take it from the cache.

    Where torch.distributed has joined processes, call this in each of them with the same data set and a cache folder
    that all of them see. Each computes its share of the images, and all return the features of all.

    Args:
        backbone: The network, on any device, in evaluation mode.
        dataset: The images, with the network's preprocessing as their transform.
        cache_dir: Folder of the cache; several networks and data sets can share it.
        batch_size: Images that pass through the network together. Another size can change the last bits.
        num_workers: Processes that read and preprocess images ahead of the network; 0 for none.
        on_bad_image: `"error"`: compute all others, then raise; `"skip"`: leave bad images out.
        progress: Called with (images done, images in all) after each batch; of this process, where several share.

    Returns:
        The features, in the order of the data set.

    Raises:
        BadImagesError: If images cannot be read and `on_bad_image` is `"error"`.
        TypeError: If the data set gives images that are no tensors.
        ValueError: If `on_bad_image` is neither of these, or there is no image.
        OSError: If the disk has no space for the features, or a worker no memory; features computed are kept. Or if
            joined processes do not see the same cache folder.
    """
    if on_bad_image not in ("error", "skip"):
        raise ValueError(f"`on_bad_image` must be 'error' or 'skip', got {on_bad_image!r}.")
    if len(dataset) == 0:
        raise ValueError("`dataset` must hold at least one image, got none.")
    store = _Store(Path(cache_dir) / backbone.fingerprint()[:32])
    parameter = next(backbone.parameters(), None) if isinstance(backbone, nn.Module) else None
    like = torch.empty(0) if parameter is None else parameter
    identities = [dataset.identity(index) for index in range(len(dataset))]
    known = store.known()
    loader = DataLoader(
        _OrReason(dataset),
        batch_sampler=_missing_batches(identities, known, batch_size),
        num_workers=num_workers,
        collate_fn=_collate,
        generator=torch.Generator(),  # its own: the global one is the caller's
        prefetch_factor=4 if num_workers else None,
    )
    own = [index for cell in _cells(len(dataset), batch_size) for index in cell]
    done = sum(identities[index] in known for index in own)
    bad: dict[int, str] = {}
    rows: list[tuple[bytes, npt.NDArray[np.float32]]] = []
    for number, (good, images, reasons) in enumerate(_workers_explained(loader), start=1):
        bad |= reasons
        if images is not None:
            with torch.inference_mode():
                features = backbone(images.to(like, non_blocking=True)).float().cpu().numpy()
            rows += [(_known(identities[index]), row) for index, row in zip(good, features, strict=True)]
        done += len(good) + len(reasons)
        if number % _BATCHES_PER_PART == 0:
            store.append(rows, still_to_come=len(own) - done)
            rows = []
        if progress is not None:
            progress(done, len(own))
    store.append(rows, still_to_come=0)
    for reasons in gather_objects(bad):  # when all have answered, all have written
        bad |= reasons

    bad_images = [bad[index] for index in sorted(bad)]
    if bad_images and (on_bad_image == "error" or len(bad_images) == len(dataset)):
        raise BadImagesError(bad_images, len(dataset))
    indices = np.array([index for index in range(len(dataset)) if index not in bad], dtype=np.int64)
    return ExtractedFeatures(_gather(store, [_known(identities[index]) for index in indices]), indices, bad_images)


def _workers_explained(loader: Iterable[_Batch]) -> Iterator[_Batch]:
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise OSError(
            f"A process that reads images died ({error}). It may have had too little (shared) memory: run again with "
            "`num_workers=0`, `--num-workers 0` in the examples. Features computed before are kept."
        ) from error


def _known(identity: bytes | None) -> bytes:
    assert identity is not None, "an image that was read exists"
    return identity


def _cells(num_images: int, batch_size: int) -> list[range]:
    """Cut the images into batches, and return those of this process."""
    starts = range(0, num_images, batch_size)[rank() :: num_ranks()]
    return [range(start, min(start + batch_size, num_images)) for start in starts]


def _missing_batches(identities: list[bytes | None], known: dict[bytes, Any], batch_size: int) -> list[list[int]]:
    """Batch on a fixed grid, so that a resumed run forms the batches of one never killed."""
    cells = _cells(len(identities), batch_size)
    batches = ([index for index in cell if identities[index] not in known] for cell in cells)
    return [batch for batch in batches if batch]


def _gather(store: _Store, identities: list[bytes]) -> npt.NDArray[np.float32]:
    if num_ranks() == 1:
        store.merge(identities)
    else:  # one merges the parts of all while no other reads them
        on_first_rank(lambda: _Store(store.folder).merge(identities))
        store = _Store(store.folder)
    return store.gather(identities)


class _OrReason(Dataset[tuple[int, Tensor | str]]):
    """Images by index, with the reason in place of one that cannot be read: a worker must not die of it."""

    def __init__(self, dataset: IdentifiedImages) -> None:
        self.dataset = dataset

    def __getitem__(self, index: int) -> tuple[int, Tensor | str]:
        try:
            image = self.dataset[index][0]
        except BadImageError as error:
            return index, str(error)
        if not isinstance(image, Tensor):
            raise TypeError(
                f"`dataset` must give images as tensors, got {type(image).__name__}. Give it the backbone's transform."
            )
        return index, image


def _collate(batch: list[tuple[int, Tensor | str]]) -> _Batch:
    """Stack the images of a batch, in the worker; return their indices, them, and the reasons for those left out."""
    images = {index: image for index, image in batch if isinstance(image, Tensor)}
    reasons = {index: reason for index, reason in batch if isinstance(reason, str)}
    return list(images), torch.stack(list(images.values())) if images else None, reasons


class _Store:
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
