"""Worker processes that read batches of images while the network computes features.

torch's DataLoader does the same for any data set, with three disadvantages here. If one of its workers dies, a signal
handler raises an error at an arbitrary point of the main thread, for example while a file is written. Batches are
passed in shared memory, which is small in containers. And its workers seed torch's global generator when they start: if
another thread had locked the generator at the fork, they wait forever.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from mlmetric.data._image_file import BadImageError
from mlmetric.data._tensor_pipe import receive_tensor, send_tensor

_TIMEOUT_SECONDS = 600.0
_POLL_SECONDS = 5.0
_ADVICE = "run again with `num_workers=0`, `--num-workers 0` in the examples. Features computed before are kept."
_starting = threading.Lock()  # so that no process inherits a pipe that another thread is opening


@runtime_checkable
class IdentifiedImages(Protocol):
    """A data set whose features can be cached, such as `mlmetric.data.ImageDataset`."""

    def __len__(self) -> int:
        """Return the number of images."""

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """Return a tuple whose first element is the preprocessed image, or raise `BadImageError`."""

    def identity(self, index: int) -> bytes | None:
        """Return 32 bytes that change when the image changes; None if it does not exist."""


@dataclass(frozen=True)
class ImageBatch:
    """A batch of images.

    Attributes:
        indices: The indices of the images in the data set, without those that cannot be read.
        images: The images, shape `(len(indices), ...)`; None if there are none.
        reasons: The message of BadImageError for each index of an image that cannot be read.
    """

    indices: list[int]
    images: Tensor | None
    reasons: dict[int, str]


def read_batches(
    dataset: IdentifiedImages, batches: Sequence[list[int]], num_workers: int, *, pin_memory: bool = False
) -> Generator[ImageBatch, None, None]:
    """Read batches of images in the given order.

    Close the generator to end the worker processes early.

    Args:
        dataset: The images.
        batches: The indices of the images of each batch.
        num_workers: Number of worker processes; 0 to read in this process.
        pin_memory: Whether worker processes write into pinned memory, from which CUDA copies without waiting.

    Yields:
        The batches.

    Raises:
        TypeError: If an image of the data set is not a tensor.
        ValueError: If images of a batch differ in shape.
        OSError: If a worker process cannot be started, dies, or does not respond for ten minutes.
        Exception: Any error of the data set other than BadImageError; from a worker process, with its traceback as a
            note.
    """
    if num_workers == 0:
        yield from (_read_batch(dataset, indices) for indices in batches)
        return
    readers: list[_Reader] = []
    try:
        for indices in batches[:num_workers]:
            readers.append(_Reader(dataset, pin_memory))
            readers[-1].request(indices)
        for number in range(len(batches)):
            reader = readers[number % num_workers]
            batch = reader.receive()
            if number + num_workers < len(batches):
                reader.request(batches[number + num_workers])
            yield batch
    finally:
        for reader in readers:
            reader.end()


class _Reader:
    """A worker process, controlled from the main process."""

    def __init__(self, dataset: IdentifiedImages, pin_memory: bool) -> None:
        self._pin_memory = pin_memory
        # Only forked processes allow transforms that are lambdas, and scripts without a `__main__` guard.
        context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
        try:
            with _starting:
                self._connection, worker_end = context.Pipe()
                arguments = (worker_end, self._connection, dataset, os.getpid())
                self._process = context.Process(target=_run_worker, args=arguments, daemon=True)
                self._process.start()
                worker_end.close()
        except OSError as error:
            raise OSError(
                error.errno, f"No worker process could be started to read images ({error}): {_ADVICE}"
            ) from error

    def request(self, indices: list[int]) -> None:
        try:
            self._connection.send(indices)
        except OSError as error:
            raise self._worker_died() from error

    def receive(self) -> ImageBatch:
        self._wait()
        try:
            answer = pickle.loads(self._connection.recv_bytes())
        except (EOFError, OSError) as error:
            raise self._worker_died() from error
        if isinstance(answer, BaseException):
            raise answer
        indices, reasons, form = answer
        try:
            images = None if form is None else receive_tensor(self._connection, *form, pin_memory=self._pin_memory)
        except (EOFError, OSError) as error:
            raise self._worker_died() from error
        return ImageBatch(indices, images, reasons)

    def _wait(self) -> None:
        """Wait until there is an answer or the process has died."""
        last = time.monotonic() + _TIMEOUT_SECONDS
        while not self._connection.poll(min(_POLL_SECONDS, _TIMEOUT_SECONDS)) and self._process.is_alive():
            if time.monotonic() > last:
                raise TimeoutError(
                    f"A worker process that reads images has not responded for {_TIMEOUT_SECONDS:g} seconds. The "
                    "file system may not respond; or another thread had locked torch's random generator when the "
                    f"process was forked, and it waits for that lock: {_ADVICE}"
                )

    def _worker_died(self) -> OSError:
        self._process.join(_POLL_SECONDS)
        code = self._process.exitcode
        how = f"signal {-code}, {signal.strsignal(-code)}" if code is not None and code < 0 else f"exit code {code}"
        return OSError(f"A worker process that reads images died ({how}). There may not be enough memory: {_ADVICE}")

    def end(self) -> None:
        self._process.kill()
        self._process.join(_POLL_SECONDS)
        self._connection.close()


def _run_worker(connection: Connection, worker_end: Connection, dataset: IdentifiedImages, parent: int) -> None:
    """Read the requested batches in a worker process, until the parent process has ended."""
    worker_end.close()  # otherwise the pipe stays open here, and the end of the parent process is not detected
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C also reaches the parent process, which ends this one
    torch.set_num_threads(1)
    with suppress(EOFError, ConnectionError):
        while True:
            while not connection.poll(_POLL_SECONDS):
                if os.getppid() != parent:
                    return
            answer, images = _answer(dataset, connection.recv())
            connection.send_bytes(answer)
            if images is not None:
                send_tensor(connection, images)


def _answer(dataset: IdentifiedImages, indices: list[int]) -> tuple[bytes, Tensor | None]:
    """Return a pickle of the batch without its images, or of an error; and the images, which are sent after it."""
    try:
        batch = _read_batch(dataset, indices)
        images = None if batch.images is None else batch.images.detach().contiguous()
        form = None if images is None else (images.dtype, images.shape)
        return pickle.dumps((batch.indices, batch.reasons, form), pickle.HIGHEST_PROTOCOL), images
    except Exception as error:
        return _pickled_error(error), None


def _pickled_error(error: Exception) -> bytes:
    """Pickle an error with its traceback as a note; if it cannot be pickled, a RuntimeError instead."""
    note = f"In a worker process that reads images:\n{''.join(traceback.format_exception(error))}"
    error.add_note(note)
    try:
        pickled = pickle.dumps(error)
        pickle.loads(pickled)
    except Exception:  # a class can raise any error here
        replacement = RuntimeError(f"{type(error).__name__}: {error}")
        replacement.add_note(note)
        return pickle.dumps(replacement)
    return pickled


def _read_batch(dataset: IdentifiedImages, indices: list[int]) -> ImageBatch:
    images: dict[int, Tensor] = {}
    reasons: dict[int, str] = {}
    for index in indices:
        try:
            image = dataset[index][0]
        except BadImageError as error:
            reasons[index] = str(error)
            continue
        except Exception as error:
            error.add_note(f"Raised while reading {name_of(dataset, index)}.")
            raise
        if not isinstance(image, Tensor):
            raise TypeError(
                f"`dataset` must return images as tensors, got {type(image).__name__}. Pass the transform of the "
                "backbone to it."
            )
        images[index] = image
    shapes = {tuple(image.shape): index for index, image in images.items()}
    if len(shapes) > 1:
        examples = ", ".join(f"{name_of(dataset, index)}: {shape}" for shape, index in list(shapes.items())[:2])
        raise ValueError(
            f"`dataset` must return images of one shape in a batch, got {examples}. Its transform must fix both "
            "sides, with `Resize((224, 224))` or `Resize(256)` followed by `CenterCrop(224)`."
        )
    return ImageBatch(list(images), torch.stack(list(images.values())) if images else None, reasons)


def name_of(dataset: IdentifiedImages, index: int) -> str:
    """Return the index of an image, and its path if the data set has `paths`, for a message."""
    paths = getattr(dataset, "paths", None)
    return f"image {index}" if paths is None else f"image {index}, {paths[index]}"
