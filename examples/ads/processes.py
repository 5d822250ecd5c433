"""The processes that `torchrun` starts: joined for the length of a run."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import distributed

from mlmetric.distributed import rank

_PATIENCE = timedelta(hours=1)  # of a process that waits for the others; torchrun ends it sooner if one of them fails


@contextmanager
def joined_processes() -> Iterator[None]:
    """Join the processes that `torchrun` started, each with a GPU of its own if there are enough; else do nothing.

    Warnings, which all of them would give, are left to the first.
    """
    if "LOCAL_RANK" not in os.environ:
        yield
        return
    backend = None  # gloo on the CPU, NCCL on CUDA
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
        if int(os.environ["LOCAL_WORLD_SIZE"]) > torch.cuda.device_count():
            backend = "gloo"  # NCCL refuses a GPU that processes share
    distributed.init_process_group(backend, timeout=_PATIENCE)
    if rank() > 0:
        logging.getLogger().setLevel(logging.ERROR)
    yield
    distributed.destroy_process_group()  # not after an error: it might wait for a process that never answers
