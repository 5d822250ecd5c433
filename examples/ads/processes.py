"""The processes that `torchrun` starts: joined for the length of a run.

Nothing here imports torch where a process is alone.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

T = TypeVar("T")

_PATIENCE = timedelta(hours=1)  # of a process that waits for the others; torchrun ends it sooner if one of them fails


def is_joined() -> bool:
    """Say whether `torchrun` started this process."""
    return "LOCAL_RANK" in os.environ


def is_first() -> bool:
    """Say whether this process is alone or the first."""
    return os.environ.get("RANK", "0") == "0"


def read_on_first(function: Callable[[], T]) -> T:
    """Call a function in the first process only, and return its result in all; where it exits, all exit."""
    if not is_joined():
        return function()
    from mlmetric.distributed import on_first_rank

    def result_or_exit() -> tuple[T | None, SystemExit | None]:
        try:
            return function(), None
        except SystemExit as end:
            return None, end

    result, end = on_first_rank(result_or_exit)
    if end is not None:
        raise end
    return result  # type: ignore[return-value]


@contextmanager
def joined_processes() -> Iterator[None]:
    """Join the processes that `torchrun` started, each with a GPU of its own if there are enough; else do nothing.

    Warnings, which all of them would give, are left to the first.
    """
    if not is_joined():
        yield
        return
    import torch
    from torch import distributed

    backend = None  # gloo on the CPU, NCCL on CUDA
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
        if int(os.environ["LOCAL_WORLD_SIZE"]) > torch.cuda.device_count():
            backend = "gloo"  # NCCL refuses a GPU that processes share
    distributed.init_process_group(backend, timeout=_PATIENCE)
    if not is_first():
        logging.getLogger().setLevel(logging.ERROR)
    yield
    distributed.destroy_process_group()  # not after an error: it might wait for a process that never answers
