"""Features of a frozen network, computed once for each image and kept on disk.

What is in no part of the cache is computed; so a killed run, an added image and a mended one are all the same case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from mlmetric._modes import evaluation_mode
from mlmetric.data._feature_cache import FeatureCache
from mlmetric.data._images import BadImageError, BadImagesError
from mlmetric.distributed import gather_objects, num_ranks, on_first_rank, rank

_BATCHES_PER_PART = 8

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
        backbone: The network, on any device. Images pass through a torch module in evaluation mode, whatever mode it
            is in; anything else must be in it.
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
    store = FeatureCache(Path(cache_dir) / backbone.fingerprint()[:32])
    network = backbone if isinstance(backbone, nn.Module) else nn.Module()
    parameter = next(network.parameters(), None)
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
            with evaluation_mode(network), torch.inference_mode():
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


def _gather(store: FeatureCache, identities: list[bytes]) -> npt.NDArray[np.float32]:
    if num_ranks() == 1:
        store.merge(identities)
    else:  # one merges the parts of all while no other reads them
        on_first_rank(lambda: FeatureCache(store.folder).merge(identities))
        store = FeatureCache(store.folder)
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
