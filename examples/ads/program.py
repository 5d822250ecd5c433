"""An example as a program: options are checked before the slow imports, and errors are printed as one line.

Nothing here imports torch unless `torchrun` started several processes.
"""

from __future__ import annotations

import logging
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from importlib import import_module
from typing import NoReturn, TextIO, TypeVar

from .config import Config
from .options import parse

T = TypeVar("T")

_EXIT_STATUS_OF_INTERRUPT = 130  # 128 + SIGINT, as shells report it
_TIMEOUT = timedelta(hours=1)  # for a process to wait for the others; if one fails, torchrun ends them sooner


def run_program(config_class: type[Config]) -> NoReturn:
    """Parse the options of an example, import it, call its `main`, and end the process.

    Args:
        config_class: The dataclass of the options; its `example` is the name of the module.

    Raises:
        SystemExit: Always: with status 0 after a run, with 130 after Ctrl-C, otherwise with the error message.
    """
    for stream in (sys.stdout, sys.stderr):
        _configure(stream)
    logging.basicConfig(format="%(levelname)s: %(message)s")
    try:
        with process_group():
            config = parse_on_first_rank(lambda: parse(config_class))
            import_module(config_class.example).main(config)
    except KeyboardInterrupt as interrupt:
        if os.environ.get("RANK", "0") == "0":
            folder = getattr(interrupt, "folder", None)
            command = shlex.join(["python", sys.argv[0], "--resume", "--output", str(folder)])
            print("interrupted" + (f"; continue with: {command}" if folder else ""), file=sys.stderr)
        raise SystemExit(_EXIT_STATUS_OF_INTERRUPT) from None
    except (ValueError, OSError, FloatingPointError, MemoryError) as error:
        raise SystemExit(f"error: {str(error) or type(error).__name__}") from error
    raise SystemExit(0)


@contextmanager
def process_group() -> Iterator[None]:
    """Initialise torch.distributed if `torchrun` started this process; otherwise do nothing.

    Each process uses its own GPU if there are enough of them. Only the first process shows warnings.
    """
    if "LOCAL_RANK" not in os.environ:
        yield
        return
    import torch
    from torch import distributed

    backend = None  # gloo on the CPU, NCCL on CUDA
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
        if int(os.environ["LOCAL_WORLD_SIZE"]) > torch.cuda.device_count():
            backend = "gloo"  # NCCL does not support processes that share a GPU
    distributed.init_process_group(backend, timeout=_TIMEOUT)
    if os.environ["RANK"] != "0":
        logging.getLogger().setLevel(logging.ERROR)
    yield
    distributed.destroy_process_group()  # not after an error: it could wait for a process that has failed


def parse_on_first_rank(function: Callable[[], T]) -> T:
    """Call a function that may exit in the first process only; return its result, or exit, in every process."""
    if "LOCAL_RANK" not in os.environ:
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


def _configure(stream: TextIO) -> None:
    """Flush after each line, and escape characters that the encoding of the locale lacks."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")
