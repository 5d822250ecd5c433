"""Temporary seeding of torch's global generator, by one thread at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_LOCK = threading.RLock()


@contextmanager
def seeded_globally(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed torch's global generator while the block runs, and restore its state afterwards.

    All threads share the generator, so blocks in different threads run one after the other; a block nested in a block
    of the same thread does not wait. If another thread draws random numbers outside such a block while one runs, its
    draws and those of the block affect each other.

    Args:
        seed: Seed of the generators of the CPU and of `device`.
        device: A device whose generator is also seeded; its state is restored on CUDA only. None for the CPU alone.
    """
    device = torch.device("cpu") if device is None else device
    with _LOCK, torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)  # `torch.manual_seed` would seed the generators of all devices
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        elif device.type not in ("cpu", "meta"):
            torch.get_device_module(device).manual_seed(seed)
        yield


def draw_seed() -> int:
    """Draw a seed below 2^32 from torch's global generator, outside blocks of `seeded_globally` in other threads."""
    with _LOCK:
        return int(torch.randint(2**32, (), generator=torch.default_generator, device="cpu"))
