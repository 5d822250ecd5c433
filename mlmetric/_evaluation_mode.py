"""Modules in evaluation mode for a while."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn


@dataclass
class _Held:
    """A part of a module in evaluation mode: the mode to go back to, and how many blocks need it."""

    mode: bool
    blocks: int = 0


_LOCK = threading.Lock()
_held: dict[nn.Module, _Held] = {}


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Put a module and its parts into evaluation mode, and each back into the mode that it was in.

    Several threads may do so with one module, or with modules that share parts: the last one to leave puts a part back.
    No thread may train it in the meantime.
    """
    parts = list(module.modules())
    with _LOCK:
        for part in parts:
            _held.setdefault(part, _Held(part.training)).blocks += 1
    try:
        with _LOCK:
            module.eval()
        yield
    finally:
        with _LOCK:
            for part in parts:
                held = _held[part]
                held.blocks -= 1
                if not held.blocks:
                    part.training = held.mode
                    del _held[part]
