"""Batches of images, read ahead of the network by processes that serve one extraction.

torch's DataLoader does the same for any data set, at three costs that matter here. When one of its processes dies, a
signal handler raises wherever the main thread stands, be it in the middle of writing a file. Batches come through
shared memory, of which containers have little. And its processes seed torch's global generator as they start: where
another thread held the generator's lock at the fork, they wait for ever.
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

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mlmetric.data._image_file import BadImageError

_TIMEOUT_SECONDS = 600.0
_POLL_SECONDS = 5.0
_ADVICE = "run again with `num_workers=0`, `--num-workers 0` in the examples. Features computed before are kept."
_starting = threading.Lock()  # no process may inherit the open pipe of one that another thread starts


@runtime_checkable
class IdentifiedImages(Protocol):
    """What extraction asks of a data set: `mlmetric.data.ImageDataset` is one."""

    def __len__(self) -> int:
        """Count the images."""

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """Return a preprocessed image and something else, or raise `BadImageError`."""

    def identity(self, index: int) -> bytes | None:
        """Return 32 bytes that change when the image does; None if it does not exist."""


@dataclass(frozen=True)
class Batch:
    """Images that were read together.

    Attributes:
        indices: Which images of the data set these are.
        images: These images, shape `(len(indices), ...)`; None if there are none.
        reasons: For each image that cannot be read the message of its BadImageError, by index.
    """

    indices: list[int]
    images: Tensor | None
    reasons: dict[int, str]


def read_batches(
    dataset: IdentifiedImages, batches: Sequence[list[int]], num_workers: int
) -> Generator[Batch, None, None]:
    """Read batches of images, given by indices, in their order.

    Close the iterator to end the processes early.

    Raises:
        TypeError: If the data set gives images that are no tensors.
        ValueError: If images of a batch differ in shape.
        OSError: If a process cannot be started, dies, or does not answer for ten minutes.
        Exception: What the data set raises besides BadImageError, with the traceback of the process as a note.
    """
    if num_workers == 0:
        yield from (_read_batch(dataset, indices) for indices in batches)
        return
    readers: list[_Reader] = []
    try:
        for indices in batches[:num_workers]:
            readers.append(_Reader(dataset))
            readers[-1].ask(indices)
        for number in range(len(batches)):
            reader = readers[number % num_workers]
            batch = reader.answer()
            if number + num_workers < len(batches):
                reader.ask(batches[number + num_workers])
            yield batch
    finally:
        for reader in readers:
            reader.end()


class _Reader:
    """A process that reads batches, seen from the one that asks for them."""

    def __init__(self, dataset: IdentifiedImages) -> None:
        # Only a forked process can have transforms that are lambdas, and scripts without a `__main__` guard.
        context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
        try:
            with _starting:
                self._connection, theirs = context.Pipe()
                arguments = (theirs, self._connection, dataset, os.getpid())
                self._process = context.Process(target=_serve, args=arguments, daemon=True)
                self._process.start()
                theirs.close()
        except OSError as error:
            raise OSError(error.errno, f"No process to read images could be started ({error}): {_ADVICE}") from error

    def ask(self, indices: list[int]) -> None:
        try:
            self._connection.send(indices)
        except OSError as error:
            raise self._death() from error

    def answer(self) -> Batch:
        self._wait()
        try:
            answer = pickle.loads(self._connection.recv_bytes())
        except (EOFError, OSError) as error:
            raise self._death() from error
        if isinstance(answer, BaseException):
            raise answer
        indices, array, dtype, reasons = answer
        return Batch(indices, None if array is None else torch.from_numpy(array).view(dtype), reasons)

    def _wait(self) -> None:
        """Wait until there is an answer, or the process has died."""
        last = time.monotonic() + _TIMEOUT_SECONDS
        while not self._connection.poll(min(_POLL_SECONDS, _TIMEOUT_SECONDS)) and self._process.is_alive():
            if time.monotonic() > last:
                raise TimeoutError(
                    f"A process that reads images has not answered for {_TIMEOUT_SECONDS:g} seconds. The file system "
                    "may not answer; or another thread held a lock, such as that of torch's random generator, when the "
                    f"process was forked, and it waits for that lock: {_ADVICE}"
                )

    def _death(self) -> OSError:
        self._process.join(_POLL_SECONDS)
        code = self._process.exitcode
        how = f"signal {-code}, {signal.strsignal(-code)}" if code is not None and code < 0 else f"exit code {code}"
        return OSError(f"A process that reads images died ({how}). It may have had too little memory: {_ADVICE}")

    def end(self) -> None:
        self._process.kill()
        self._process.join(_POLL_SECONDS)
        self._connection.close()


def _serve(connection: Connection, theirs: Connection, dataset: IdentifiedImages, parent: int) -> None:
    """Read the batches that are asked for, until the process that asks has ended."""
    theirs.close()  # else this process would keep its own pipe open, and could not find out that nobody reads from it
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the one that asks, too, which ends this one
    torch.set_num_threads(1)
    with suppress(EOFError, ConnectionError):
        while True:
            while not connection.poll(_POLL_SECONDS):
                if os.getppid() != parent:
                    return
            connection.send_bytes(_answer(dataset, connection.recv()))


def _answer(dataset: IdentifiedImages, indices: list[int]) -> bytes:
    try:
        batch = _read_batch(dataset, indices)
        return pickle.dumps((batch.indices, *_as_array(batch.images), batch.reasons), pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        return _portable(error)


def _as_array(images: Tensor | None) -> tuple[npt.NDArray[np.uint8] | None, torch.dtype | None]:
    """Return the bytes of a tensor and their dtype, of which NumPy has not all."""
    return (None, None) if images is None else (images.detach().contiguous().view(torch.uint8).numpy(), images.dtype)


def _portable(error: Exception) -> bytes:
    """Pickle an error with its traceback as a note; where it cannot be pickled, a RuntimeError in its place."""
    note = f"In a process that reads images:\n{''.join(traceback.format_exception(error))}"
    error.add_note(note)
    try:
        pickled = pickle.dumps(error)
        pickle.loads(pickled)
    except Exception:  # what a foreign class raises here can be anything
        replacement = RuntimeError(f"{type(error).__name__}: {error}")
        replacement.add_note(note)
        return pickle.dumps(replacement)
    return pickled


def _read_batch(dataset: IdentifiedImages, indices: list[int]) -> Batch:
    images: dict[int, Tensor] = {}
    reasons: dict[int, str] = {}
    for index in indices:
        try:
            image = dataset[index][0]
        except BadImageError as error:
            reasons[index] = str(error)
            continue
        except Exception as error:
            error.add_note(f"While {name_of(dataset, index)} was read.")
            raise
        if not isinstance(image, Tensor):
            raise TypeError(
                f"`dataset` must give images as tensors, got {type(image).__name__}. Give it the backbone's transform."
            )
        images[index] = image
    shapes = {tuple(image.shape): index for index, image in images.items()}
    if len(shapes) > 1:
        examples = ", ".join(f"{name_of(dataset, index)}: {shape}" for shape, index in list(shapes.items())[:2])
        raise ValueError(
            f"`dataset` must give the images of a batch in one shape, got {examples}. Let its transform end with a "
            "size of both sides, `Resize((224, 224))` or `Resize(256)` followed by `CenterCrop(224)`."
        )
    return Batch(list(images), torch.stack(list(images.values())) if images else None, reasons)


def name_of(dataset: IdentifiedImages, index: int) -> str:
    """Name an image for a message: by its path where the data set has `paths`, else by its index."""
    paths = getattr(dataset, "paths", None)
    return f"image {index}" if paths is None else f"image {index}, {paths[index]}"
