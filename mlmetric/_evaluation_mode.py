"""Temporary evaluation mode of modules."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn


@dataclass
class _SavedMode:
    """The mode of a submodule before evaluation, and the number of active blocks that need evaluation mode.

    Attributes:
        training: The value of `Module.training` to restore.
        num_blocks: Number of active blocks.
    """

    training: bool
    num_blocks: int = 0


_LOCK = threading.Lock()
_saved_modes: dict[nn.Module, _SavedMode] = {}


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Put a module and its submodules into evaluation mode while the block runs, and restore the mode of each.

    Several threads may do this with one module, or with modules that share submodules; the mode is restored when the
    last block ends. No thread may train the module in the meantime.

    Args:
        module: The module.
    """
    submodules = list(module.modules())
    with _LOCK:
        for submodule in submodules:
            _saved_modes.setdefault(submodule, _SavedMode(submodule.training)).num_blocks += 1
    try:
        with _LOCK:
            module.eval()
        yield
    finally:
        with _LOCK:
            for submodule in submodules:
                saved = _saved_modes[submodule]
                saved.num_blocks -= 1
                if not saved.num_blocks:
                    submodule.training = saved.training
                    del _saved_modes[submodule]
