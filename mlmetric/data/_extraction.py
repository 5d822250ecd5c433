"""Features of a frozen network, computed once for each image and kept on disk.

What is in no part of the cache is computed; so a killed run, an added image and a mended one are all the same case.
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
    """What extraction asks of a network: `mlmetric.heads.FrozenBackbone` is one."""

    def __call__(self, images: Tensor) -> Tensor:
        """Map a batch of images to features `(N, D)`."""

    def fingerprint(self) -> str:
        """Digest all that determines a feature besides the image."""


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

    Whatever ends the extraction early, an error or Ctrl-C, the features of all batches before are in the cache.

    On Linux the processes that read images are forked, so that transforms may be lambdas and scripts need no `__main__`
    guard. A lock that another thread holds at that moment stays locked in them: beside threads that draw random numbers
    from torch's global generator, a transform that draws from it, too, can wait for ever. The extraction then ends
    after ten minutes; use `num_workers=0` there. On other systems the processes start afresh: the data set must be
    picklable, and scripts need the guard.

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
        TypeError: If the data set has no `identity`, or gives images that are no tensors; if the backbone has no
            `fingerprint`, or returns anything but a dense tensor; if the transform or the network holds something that
            cannot be inspected.
        ValueError: If `on_bad_image` is neither of these, `batch_size` is below 1, `num_workers` is below 0, or there
            is no image; if images of a batch differ in shape; if features are not of shape `(N, D)`, not finite, or of
            another D than those in the cache.
        OSError: If the machine fails: no space on the disk, too little memory, too many open files, a process that
            reads images dies or does not answer for ten minutes. A failure to read an image is one of the machine
            unless the file's content is at fault, and ends the extraction with `on_bad_image="skip"`, too. Or if joined
            processes do not see the same cache folder.
    """
    _check_arguments(backbone, dataset, batch_size, num_workers, on_bad_image)
    store = FeatureCache(Path(cache_dir) / backbone.fingerprint()[:32])
    network = backbone if isinstance(backbone, nn.Module) else nn.Module()
    parameter = next(network.parameters(), None)
    like = torch.empty(0) if parameter is None else parameter
    identities = [dataset.identity(index) for index in range(len(dataset))]
    known = store.known()
    own = [index for cell in _cells(len(dataset), batch_size) for index in cell]
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
                    features = _checked(output, dataset, batch.indices)
                    store.add([identities[index] for index in batch.indices], features)
                done += len(batch.indices) + len(batch.reasons)
                if number % _BATCHES_PER_PART == 0:
                    store.write(still_to_come=len(own) - done)
                if progress is not None:
                    progress(done, len(own))
    finally:
        store.write(still_to_come=0)
    absent = {
        index: f"{name_of(dataset, index)} did not exist when the extraction began: run again."
        for index, identity in enumerate(identities)
        if identity is None
    }
    answers = gather_objects((absent, bad))  # when all have answered, all have written
    all_bad: dict[int, str] = {}
    for reasons in [absent for absent, _ in answers] + [bad for _, bad in answers]:
        all_bad |= reasons

    bad_images = [all_bad[index] for index in sorted(all_bad)]
    if bad_images and (on_bad_image == "error" or len(bad_images) == len(dataset)):
        raise BadImagesError(bad_images, len(dataset))
    good = {
        index: identity for index, identity in enumerate(identities) if index not in all_bad and identity is not None
    }
    features = _gather(store, list(good.values()))
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
            f"`dataset` must have a length, items and the method `identity`, got {type(dataset).__name__}. Give an "
            "`ImageDataset` of the paths that are wanted, in place of a `Subset` or `ConcatDataset`."
        )
    if len(dataset) == 0:
        raise ValueError("`dataset` must hold at least one image, got none.")


def _checked(output: Any, dataset: IdentifiedImages, indices: list[int]) -> npt.NDArray[np.float32]:
    """Return what the backbone gave as an array, or say what is wrong with it."""
    if not isinstance(output, Tensor):
        raise TypeError(
            f"`backbone` must return a tensor of features (N, D), got {type(output).__name__}. Wrap the network in a "
            "module that picks the features out of what it returns."
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
            f"images, the first: {first}. Look at its weights, its precision and the preprocessing. The features of "
            "this batch are not kept, those of the batches before are."
        )
    return features


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
