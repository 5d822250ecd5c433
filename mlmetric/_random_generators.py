"""Seeding of torch's global generator, by one thread at a time, and of a separate generator for each thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_LOCK = threading.RLock()


class _ThreadState(threading.local):
    generator: torch.Generator | None = None
    seeds_global_generator: bool = True


_thread = _ThreadState()


def thread_generator(device: torch.device | None = None) -> torch.Generator | None:
    """Return the generator of this thread in a block of `seeded`, for draws on the CPU.

    Args:
        device: Where the numbers are drawn; None for the CPU.

    Returns:
        The generator; None, which selects torch's global generator of the device, outside such a block or for another
        device.
    """
    return _thread.generator if device is None or device.type == "cpu" else None


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed the generator of this thread and torch's global generator while the block runs, then restore their states.

    All threads share the global generator, so blocks in different threads run one after the other; a block nested in a
    block of the same thread does not wait. If another thread draws from the global generator outside such a block while
    one runs, the draws of both affect each other. In a block of `without_global_generator` only the generator of the
    thread is seeded, and blocks in different threads run at the same time.

    Args:
        seed: Seed of the generators of the thread, of the CPU and of `device`.
        device: A device whose generator is also seeded; its state is restored on CUDA only. None for the CPU alone.
    """
    outer, _thread.generator = _thread.generator, torch.Generator().manual_seed(seed)
    try:
        if _thread.seeds_global_generator:
            with _seeded_globally(seed, torch.device("cpu") if device is None else device):
                yield
        else:
            yield
    finally:
        _thread.generator = outer


@contextmanager
def without_global_generator() -> Iterator[None]:
    """Let `seeded` seed only the generator of this thread, for blocks that draw from no other generator."""
    outer, _thread.seeds_global_generator = _thread.seeds_global_generator, False
    try:
        yield
    finally:
        _thread.seeds_global_generator = outer


@contextmanager
def _seeded_globally(seed: int, device: torch.device) -> Iterator[None]:
    with _LOCK, torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)  # `torch.manual_seed` would seed the generators of all devices
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        elif device.type not in ("cpu", "meta"):
            torch.get_device_module(device).manual_seed(seed)
        yield


def draw_seed() -> int:
    """Draw a seed below 2^32 from torch's global generator, outside blocks of `seeded` in other threads."""
    with _LOCK:
        return int(torch.randint(2**32, (), generator=torch.default_generator, device="cpu"))
