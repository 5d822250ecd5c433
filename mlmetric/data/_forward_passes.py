"""Forward passes of batches of images: one runs while the features of the previous one are stored.

On CUDA the forward pass and all copies are asynchronous: batches are copied from pinned memory on a separate stream,
and features are read after the next forward pass has been started, so that the device does not wait for this process.
On other devices each step ends before the next one starts.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mlmetric._evaluation_mode import evaluation_mode
from mlmetric.data._feature_cache import FeatureCache
from mlmetric.data._reader_processes import IdentifiedImages, ImageBatch, name_of, read_batches

_BATCHES_PER_PART = 8
_WORK_PER_WRITE = 20.0  # a GPU waits while a part is written and synced: for at most 5 % of the time


@runtime_checkable
class Backbone(Protocol):
    """A network whose features can be cached, such as `mlmetric.heads.FrozenBackbone`."""

    def __call__(self, images: Tensor) -> Tensor:
        """Map a batch of images to features `(N, D)`."""

    def fingerprint(self) -> str:
        """Return a digest of everything but the image that determines a feature."""


def compute_missing(
    backbone: Backbone,
    dataset: IdentifiedImages,
    cache: FeatureCache,
    identities: Mapping[int, bytes | None],
    batches: Sequence[range],
    *,
    num_workers: int,
    progress: Callable[[int, int], None] | None,
) -> dict[int, str]:
    """Compute the features of images that the cache lacks, and add them to it.

    Even if an error or Ctrl-C ends it, the features of all computed batches are in the cache.

    Args:
        backbone: The network.
        dataset: The images.
        cache: The cache of the network.
        identities: The identity of each image of the batches; None if it does not exist.
        batches: The indices of the images of each batch, cached or not.
        num_workers: Number of worker processes that read images.
        progress: Called after each batch with the numbers of images done and of all images of the batches.

    Returns:
        For each image that cannot be read, a message that names it and the reason.

    Raises:
        TypeError: If the network returns anything but a dense tensor of real numbers.
        ValueError: If features are not of shape `(N, D)` or are not finite.
        Exception: As in `read_batches` and `FeatureCache.write`.
    """
    known = cache.known()
    missing = missing_batches(identities, known, batches)
    total = sum(map(len, batches))
    done = total - sum(map(len, missing))
    passes = _ForwardPasses(backbone, dataset, cache, identities)
    bad: dict[int, str] = {}
    not_written, written_at, seconds_to_write = 0, 0.0, 0.0

    def keep() -> None:
        nonlocal done, not_written, written_at, seconds_to_write
        done += passes.keep_first()
        not_written += 1
        now = time.monotonic()
        if not_written >= _BATCHES_PER_PART and now - written_at >= _WORK_PER_WRITE * seconds_to_write:
            cache.write(still_to_come=total - done)
            written_at = time.monotonic()
            not_written, seconds_to_write = 0, written_at - now
        if progress is not None:
            progress(done, total)

    try:
        with closing(read_batches(dataset, missing, num_workers, pin_memory=passes.pin_memory)) as read:
            for batch in read:
                bad |= batch.reasons
                passes.start(batch)
                if len(passes) > 1:
                    keep()
        while passes:
            keep()
    except Exception:
        passes.keep_all()
        raise
    except BaseException:  # Ctrl-C, which no error of a batch replaces
        with suppress(Exception):
            passes.keep_all()
        raise
    finally:
        cache.write(still_to_come=0)
    return bad


def missing_batches(
    identities: Mapping[int, bytes | None], known: Mapping[bytes, Any], batches: Sequence[range]
) -> list[list[int]]:
    """Return the missing images of each batch of the grid, so that batches do not depend on interruptions."""
    missing = ([index for index in batch if identities[index] not in known] for batch in batches)
    return [batch for batch in missing if batch]


def grid(num_images: int, batch_size: int) -> list[range]:
    """Return the batches of all image indices, on a fixed grid."""
    return [range(start, min(start + batch_size, num_images)) for start in range(0, num_images, batch_size)]


class _ForwardPasses:
    """The forward passes that were started and whose features are not in the cache yet, the oldest first."""

    def __init__(
        self,
        backbone: Backbone,
        dataset: IdentifiedImages,
        cache: FeatureCache,
        identities: Mapping[int, bytes | None],
    ) -> None:
        self._backbone, self._dataset, self._cache, self._identities = backbone, dataset, cache, identities
        self._network = backbone if isinstance(backbone, nn.Module) else nn.Module()
        parameter = next(self._network.parameters(), None)
        self._like = torch.empty(0) if parameter is None else parameter
        self._copies: torch.cuda.Stream | None = None
        if _is_cuda(self._like):
            self._copies = torch.cuda.Stream(self._like.device)  # type: ignore[no-untyped-call]
        self._running: deque[tuple[ImageBatch, _Features | None]] = deque()

    def __len__(self) -> int:
        return len(self._running)

    @property
    def pin_memory(self) -> bool:
        """Whether batches should be in pinned memory."""
        return self._copies is not None

    def start(self, batch: ImageBatch) -> None:
        """Start the forward pass of a batch, which may have no images."""
        features = None
        if batch.images is not None:
            with evaluation_mode(self._network), torch.inference_mode():
                output = self._backbone(self._on_device(batch.images))
            features = _Features(_checked_output(output, len(batch.indices)))
        self._running.append((ImageBatch(batch.indices, None, batch.reasons), features))

    def keep_first(self) -> int:
        """Add the features of the oldest batch to the cache, and return its number of images."""
        batch, features = self._running[0]  # removed only after they are stored: Ctrl-C can come before
        try:
            if features is not None:
                values = features.read()
                _check_finite(values, self._dataset, batch.indices)
                self._cache.add([self._identities[index] for index in batch.indices], values)
        except Exception:
            self._running.clear()  # later batches are not stored
            raise
        self._running.popleft()
        return len(batch.indices) + len(batch.reasons)

    def keep_all(self) -> None:
        """Add the features of all batches to the cache."""
        while self._running:
            self.keep_first()

    def _on_device(self, images: Tensor) -> Tensor:
        if self._copies is None:
            return images.to(self._like, non_blocking=True)
        images = images.to(self._like.dtype)  # torch would also convert on the CPU, but to memory that is not pinned
        pinned = images if images.is_pinned() else images.pin_memory()
        with torch.cuda.stream(self._copies):
            moved = pinned.to(self._like.device, non_blocking=True)
        computing = torch.cuda.current_stream(self._like.device)
        computing.wait_stream(self._copies)
        moved.record_stream(computing)
        return moved


class _Features:
    """The features of a batch, which are being copied to the CPU."""

    def __init__(self, output: Tensor) -> None:
        self._copied: torch.cuda.Event | None = None
        if _is_cuda(output):
            self._values = output.float().to("cpu", non_blocking=True)  # torch allocates pinned memory for this
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._copied.record(torch.cuda.current_stream(output.device))
        else:
            # A copy, because the network may write the next features to the same memory.
            self._values = output.float().to("cpu", copy=True)

    def read(self) -> npt.NDArray[np.float32]:
        """Wait for the features, and return them."""
        if self._copied is not None:
            self._copied.synchronize()
        values: npt.NDArray[np.float32] = self._values.numpy()
        return values


def _is_cuda(tensor: Tensor) -> bool:
    return tensor.is_cuda


def _checked_output(output: Any, num_images: int) -> Tensor:
    """Return the output of the backbone, or raise an error if it is not a matrix with a row for each image."""
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
    if output.ndim != 2 or len(output) != num_images:
        raise ValueError(
            f"`backbone` must return features of shape ({num_images}, D) for {num_images} images, got "
            f"{tuple(output.shape)}."
        )
    return output


def _check_finite(features: npt.NDArray[np.float32], dataset: IdentifiedImages, indices: list[int]) -> None:
    broken = ~np.isfinite(features).all(1)
    if broken.any():
        first = name_of(dataset, indices[int(broken.argmax())])
        raise ValueError(
            f"`backbone` must return finite features, got NaN or infinite ones for {broken.sum()} of {len(indices)} "
            f"images, the first: {first}. Check its weights, its precision and the preprocessing. The features of "
            "previous batches are kept; those of this batch are not."
        )
