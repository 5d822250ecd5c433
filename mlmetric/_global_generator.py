"""Torch's global generator, seeded for a while by one thread at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_LOCK = threading.RLock()


@contextmanager
def seeded_globally(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed torch's global generator while the block runs, and put it back into the state that it was in.

    All threads draw from it, whatever module they run. So the blocks of several threads run one after the other; a
    block within a block of the same thread does not wait. What a thread draws outside of such a block, while another
    one runs it, is not kept apart.

    Args:
        seed: Of the CPU's generator, and of that of `device`.
        device: Another device whose generator is seeded too, and put back on CUDA; of others, none is.
    """
    device = torch.device("cpu") if device is None else device
    with _LOCK, torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)  # `torch.manual_seed` would seed those of every device
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        elif device.type not in ("cpu", "meta"):
            torch.get_device_module(device).manual_seed(seed)
        yield


def draw_seed() -> int:
    """Draw a seed below 2^32 from torch's global generator, outside of blocks of `seeded_globally` in other threads."""
    with _LOCK:
        return int(torch.randint(2**32, (), generator=torch.default_generator, device="cpu"))
