"""Features of a frozen network, computed once for each image and cached on disk.

Only missing features are computed: an interrupted run, an added image and a repaired image need no special treatment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from mlmetric.data._feature_cache import FeatureCache
from mlmetric.data._forward_passes import Backbone, compute_missing, grid
from mlmetric.data._image_dataset import BadImagesError
from mlmetric.data._reader_processes import IdentifiedImages, name_of
from mlmetric.distributed import gather_objects, num_ranks, on_first_rank, rank


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

    With a process group of torch.distributed, call this function in each process with the same data set and a cache
    folder that all processes can access. Each process computes a part of the features, and all return the features of
    all images. To compute a part without a process group, use [extract_shard][mlmetric.data.extract_shard].

    On CUDA, reading, copying and computing overlap: the features of a batch are read back after the next batch has been
    started.

    If the extraction ends early, by an error or Ctrl-C, the features of all previous batches are in the cache.

    On Linux the worker processes are forked, so that transforms may be lambdas and scripts need no `__main__` guard. A
    lock that another thread holds at the moment of the fork stays locked in the worker processes: if other threads draw
    random numbers from torch's global generator, a transform that draws from it can wait forever. The extraction then
    ends after ten minutes; use `num_workers=0` in this case. On other systems the processes are spawned: the data set
    must be picklable, and scripts need the guard.

    Args:
        backbone: The network, on any device. A torch module is in evaluation mode while it is called; any other
            callable must ensure this itself.
        dataset: The images, with the preprocessing of the network as their transform.
        cache_dir: Folder of the cache; several networks and data sets can use the same folder.
        batch_size: Number of images in a batch. Another size can change the last bits of the features.
        num_workers: Number of worker processes that read and preprocess images; 0 to use this process.
        on_bad_image: `"error"` computes the features of all other images, then raises an error; `"skip"` leaves out
            images that cannot be read.
        progress: Called after each batch as `progress(done, total)` with numbers of images; with a process group, these
            are the images of this process.

    Returns:
        The features, in the order of the data set.

    Raises:
        BadImagesError: If images cannot be read and `on_bad_image` is `"error"`.
        TypeError: If the data set has no `identity`, or returns images that are not tensors; if the backbone has no
            `fingerprint`, or returns anything but a dense tensor; if the transform or the network contains an object
            that cannot be inspected.
        ValueError: If `on_bad_image` is neither `"error"` nor `"skip"`, `batch_size` is below 1, `num_workers` is below
            0, or there are no images; if images of a batch differ in shape; if features are not of shape `(N, D)`, are
            not finite, or differ in D from the features in the cache.
        OSError: If the system is the cause: no space left on the disk, not enough memory, too many open files, a worker
            process that dies or does not respond for ten minutes. This is raised even with `on_bad_image="skip"`,
            because the image file is not the cause. Also if the processes of a process group do not share the cache
            folder.
    """
    check_arguments(backbone, dataset, batch_size, num_workers, on_bad_image)
    cache = FeatureCache(cache_folder(backbone, cache_dir))
    identities = {index: dataset.identity(index) for index in range(len(dataset))}
    own = grid(len(dataset), batch_size)[rank() :: num_ranks()]
    bad = compute_missing(backbone, dataset, cache, identities, own, num_workers=num_workers, progress=progress)
    # Every process has written before any continues.
    gathered = gather_objects((not_found(dataset, identities), bad))
    all_bad: dict[int, str] = {}
    for reasons in [absent for absent, _ in gathered] + [bad for _, bad in gathered]:
        all_bad |= reasons
    bad_images = [all_bad[index] for index in sorted(all_bad)]
    if bad_images and (on_bad_image == "error" or len(bad_images) == len(dataset)):
        raise BadImagesError(bad_images, len(dataset))
    good = {index: identity for index, identity in identities.items() if index not in all_bad and identity is not None}
    features = _gather(cache, list(good.values()))
    return ExtractedFeatures(features, np.array(list(good), dtype=np.int64), bad_images)


def check_arguments(
    backbone: Backbone, dataset: IdentifiedImages, batch_size: int, num_workers: int, on_bad_image: str
) -> None:
    """Raise TypeError or ValueError for arguments that `extract_features` does not accept."""
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


def not_found(dataset: IdentifiedImages, identities: Mapping[int, bytes | None]) -> dict[int, str]:
    """Return a message for each image without an identity."""
    return {
        index: f"{name_of(dataset, index)} did not exist when the extraction began: run again."
        for index, identity in identities.items()
        if identity is None
    }


def cache_folder(backbone: Backbone, cache_dir: str | Path) -> Path:
    """Return the folder of the features of a network."""
    return Path(cache_dir) / backbone.fingerprint()[:32]


def _gather(cache: FeatureCache, identities: list[bytes]) -> npt.NDArray[np.float32]:
    if num_ranks() == 1:
        cache.merge(identities)
    else:  # one process merges all parts while no other process reads them
        on_first_rank(lambda: FeatureCache(cache.folder).merge(identities))
        cache = FeatureCache(cache.folder)
    return cache.gather(identities)
