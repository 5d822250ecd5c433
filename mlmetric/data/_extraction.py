"""Features of a frozen network, computed once for each image and cached on disk.

Only missing features are computed: an interrupted run, an added image and a repaired image need no special treatment.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mlmetric._evaluation_mode import evaluation_mode
from mlmetric.data._feature_cache import FeatureCache
from mlmetric.data._image_dataset import BadImagesError
from mlmetric.data._reader_processes import IdentifiedImages, name_of, read_batches
from mlmetric.distributed import gather_objects, num_ranks, on_first_rank, rank

_BATCHES_PER_PART = 8


@runtime_checkable
class Backbone(Protocol):
    """A network whose features can be cached, such as `mlmetric.heads.FrozenBackbone`."""

    def __call__(self, images: Tensor) -> Tensor:
        """Map a batch of images to features `(N, D)`."""

    def fingerprint(self) -> str:
        """Return a digest of everything but the image that determines a feature."""


@dataclass(frozen=True)
class ExtractedFeatures:
    """Features of the images that could be read.

    Attributes:
        features: float32, shape `(K, D)`; a read-only memory map if the cache contains exactly these images in this
            order.
        indices: The indices of these images in the data set, int64, shape `(K,)`, ascending.
        bad_images: For each skipped image, a message that names it and the reason.
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
    """Compute the features of images, or load them from the cache.

    With a process group of torch.distributed, call this in each process with the same data set and a cache folder that
    all processes can access. Each process computes a part of the features, and all return the features of all images.

    If the extraction ends early, by an error or Ctrl-C, the features of all previous batches are in the cache.

    On Linux the worker processes are forked, so that transforms may be lambdas and scripts need no `__main__` guard. A
    lock that another thread holds at that moment stays locked in them: if other threads draw random numbers from
    torch's global generator, a transform that draws from it can wait forever. The extraction then ends after ten
    minutes; use `num_workers=0` in this case. On other systems the processes are spawned: the data set must be
    picklable, and scripts need the guard.

    Args:
        backbone: The network, on any device. A torch module is in evaluation mode while it is called; any other
            callable must ensure this itself.
        dataset: The images, with the preprocessing of the network as their transform.
        cache_dir: Folder of the cache; several networks and data sets can use the same folder.
        batch_size: Number of images in a batch. Another size can change the last bits of the features.
        num_workers: Number of worker processes that read and preprocess images; 0 to do so in this process.
        on_bad_image: `"error"` computes the features of all other images, then raises an error; `"skip"` leaves out
            images that cannot be read.
        progress: Called after each batch as `progress(done, total)` with numbers of images; with a process group, of
            the images of this process.

    Returns:
        The features, in the order of the data set.

    Raises:
        BadImagesError: If images cannot be read and `on_bad_image` is `"error"`.
        TypeError: If the data set has no `identity`, or returns images that are not tensors; if the backbone has no
            `fingerprint`, or returns anything but a dense tensor; if the transform or the network contains an object
            that cannot be inspected.
        ValueError: If `on_bad_image` is neither of the two, `batch_size` is below 1, `num_workers` is below 0, or there
            are no images; if images of a batch differ in shape; if features are not of shape `(N, D)`, are not finite,
            or have another D than the features in the cache.
        OSError: If the system is the cause: no space left on the disk, not enough memory, too many open files, a worker
            process that dies or does not respond for ten minutes. This is raised even with `on_bad_image="skip"`,
            because the image file is not the cause. Also if processes of a process group do not share the cache folder.
    """
    _check_arguments(backbone, dataset, batch_size, num_workers, on_bad_image)
    cache = FeatureCache(Path(cache_dir) / backbone.fingerprint()[:32])
    network = backbone if isinstance(backbone, nn.Module) else nn.Module()
    parameter = next(network.parameters(), None)
    like = torch.empty(0) if parameter is None else parameter
    identities = [dataset.identity(index) for index in range(len(dataset))]
    known = cache.known()
    own = [index for batch in _grid_batches(len(dataset), batch_size) for index in batch]
    done = sum(identities[index] in known for index in own)
    bad: dict[int, str] = {}
    missing = _missing_batches(identities, known, batch_size)
    try:
        with closing(read_batches(dataset, missing, num_workers)) as batches:
            for number, batch in enumerate(batches, start=1):
                bad |= batch.reasons
                if batch.images is not None:
                    with evaluation_mode(network), torch.inference_mode():
                        output = backbone(batch.images.to(like, non_blocking=True))
                    features = _checked_features(output, dataset, batch.indices)
                    cache.add([identities[index] for index in batch.indices], features)
                done += len(batch.indices) + len(batch.reasons)
                if number % _BATCHES_PER_PART == 0:
                    cache.write(still_to_come=len(own) - done)
                if progress is not None:
                    progress(done, len(own))
    finally:
        cache.write(still_to_come=0)
    not_found = {
        index: f"{name_of(dataset, index)} did not exist when the extraction began: run again."
        for index, identity in enumerate(identities)
        if identity is None
    }
    gathered = gather_objects((not_found, bad))  # every process has written before any continues
    all_bad: dict[int, str] = {}
    for reasons in [not_found for not_found, _ in gathered] + [bad for _, bad in gathered]:
        all_bad |= reasons

    bad_images = [all_bad[index] for index in sorted(all_bad)]
    if bad_images and (on_bad_image == "error" or len(bad_images) == len(dataset)):
        raise BadImagesError(bad_images, len(dataset))
    good = {
        index: identity for index, identity in enumerate(identities) if index not in all_bad and identity is not None
    }
    features = _gather(cache, list(good.values()))
    return ExtractedFeatures(features, np.array(list(good), dtype=np.int64), bad_images)


def _check_arguments(
    backbone: Backbone, dataset: IdentifiedImages, batch_size: int, num_workers: int, on_bad_image: str
) -> None:
    if on_bad_image not in ("error", "skip"):
        raise ValueError(f"`on_bad_image` must be 'error' or 'skip', got {on_bad_image!r}.")
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1, got {batch_size}.")
    if num_workers < 0:
        raise ValueError(f"`num_workers` must be 0 or more, got {num_workers}.")
    if not isinstance(backbone, Backbone):
        raise TypeError(
            f"`backbone` must be callable and have the method `fingerprint`, got {type(backbone).__name__}. Wrap a "
            "module in `mlmetric.heads.FrozenBackbone`."
        )
    if not isinstance(dataset, IdentifiedImages):
        raise TypeError(
            f"`dataset` must have a length, items and the method `identity`, got {type(dataset).__name__}. Pass an "
            "`ImageDataset` of the required paths instead of a `Subset` or `ConcatDataset`."
        )
    if len(dataset) == 0:
        raise ValueError("`dataset` must contain at least one image, got none.")


def _checked_features(output: Any, dataset: IdentifiedImages, indices: list[int]) -> npt.NDArray[np.float32]:
    """Return the output of the backbone as an array, or raise an error if it is not a matrix of finite features."""
    if not isinstance(output, Tensor):
        raise TypeError(
            f"`backbone` must return a tensor of features (N, D), got {type(output).__name__}. Wrap the network in a "
            "module that selects the features from its output."
        )
    if output.layout != torch.strided or output.is_meta or output.is_complex():
        raise TypeError(
            "`backbone` must return a dense tensor of real numbers, got one of layout "
            f"{output.layout}, {output.dtype}, on {output.device}."
        )
    if output.ndim != 2 or len(output) != len(indices):
        raise ValueError(
            f"`backbone` must return features of shape ({len(indices)}, D) for {len(indices)} images, got "
            f"{tuple(output.shape)}."
        )
    features: npt.NDArray[np.float32] = output.float().cpu().numpy()
    broken = ~np.isfinite(features).all(1)
    if broken.any():
        first = name_of(dataset, indices[int(broken.argmax())])
        raise ValueError(
            f"`backbone` must return finite features, got NaN or infinite ones for {broken.sum()} of {len(indices)} "
            f"images, the first: {first}. Check its weights, its precision and the preprocessing. The features of "
            "previous batches are kept; those of this batch are not."
        )
    return features


def _grid_batches(num_images: int, batch_size: int) -> list[range]:
    """Return the batches of image indices of this process, on a fixed grid."""
    starts = range(0, num_images, batch_size)[rank() :: num_ranks()]
    return [range(start, min(start + batch_size, num_images)) for start in starts]


def _missing_batches(identities: list[bytes | None], known: dict[bytes, Any], batch_size: int) -> list[list[int]]:
    """Return the missing images of each batch of the grid, so that batches do not depend on interruptions."""
    grid = _grid_batches(len(identities), batch_size)
    batches = ([index for index in batch if identities[index] not in known] for batch in grid)
    return [batch for batch in batches if batch]


def _gather(cache: FeatureCache, identities: list[bytes]) -> npt.NDArray[np.float32]:
    if num_ranks() == 1:
        cache.merge(identities)
    else:  # one process merges all parts while no other process reads them
        on_first_rank(lambda: FeatureCache(cache.folder).merge(identities))
        cache = FeatureCache(cache.folder)
    return cache.gather(identities)
