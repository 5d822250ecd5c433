"""The program: options are checked before the slow imports, and errors are printed as one line.

Nothing here imports torch unless `torchrun` started several processes.
"""

from __future__ import annotations

import logging
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NoReturn, TextIO

from common.errors import error_text

from .config import Config
from .options import parse_options
from .saved_runs import options_to_resume, table_of_runs

_EXIT_STATUS_OF_INTERRUPT = 130  # 128 + SIGINT, as shells report it
_TIMEOUT = timedelta(hours=1)  # for a process to wait for the others; if one fails, torchrun ends them sooner


def run_program() -> NoReturn:
    """Parse the options, run the application, and end the process.

    Raises:
        SystemExit: Always: with status 0 after a run, with 130 after Ctrl-C, otherwise with the error message.
    """
    for stream in (sys.stdout, sys.stderr):
        _configure(stream)
    logging.basicConfig(format="%(levelname)s: %(message)s")
    try:
        with process_group():
            config = _parse_on_first_rank()
            from ads.runs import main  # here, since the import takes seconds

            main(config)
    except KeyboardInterrupt as interrupt:
        if os.environ.get("RANK", "0") == "0":
            folder = getattr(interrupt, "folder", None)
            command = shlex.join(["python", sys.argv[0], "--resume", "--output", str(folder)])
            print("interrupted" + (f"; continue with: {command}" if folder else ""), file=sys.stderr)
        raise SystemExit(_EXIT_STATUS_OF_INTERRUPT) from None
    except (ValueError, OSError, ImportError, FloatingPointError, MemoryError) as error:
        raise SystemExit(f"error: {error_text(error)}") from error
    raise SystemExit(0)


def parse(argv: list[str] | None = None) -> Config:
    """Parse the command line into a configuration; with `--resume`, add the options of the run to resume.

    Args:
        argv: The arguments; by default those of the program.

    Returns:
        The configuration.

    Raises:
        ValueError: If options contradict each other or those of the run to resume.
        OSError: If there is no run to resume.
        SystemExit: After `--help` and `--list-runs`, and if an option does not exist.
    """
    passed = parse_options(Config, argv)
    if passed.get("list_runs"):
        if len(passed) > 1:
            raise ValueError("--list-runs cannot be combined with other options.")
        print(table_of_runs())
        raise SystemExit(0)
    if not passed.get("resume"):
        return Config(**passed)
    options = options_to_resume(passed)
    try:
        return Config(**options)
    except ValueError as error:
        raise ValueError(f"The run in {options['output']} cannot be resumed with its config.json: {error}") from error


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


def _parse_on_first_rank() -> Config:
    """Parse the options in the first process only; return them, or exit, in every process."""
    if "LOCAL_RANK" not in os.environ:
        return parse()
    from mlmetric.distributed import on_first_rank

    def config_or_exit() -> tuple[Config | None, SystemExit | None]:
        try:
            return parse(), None
        except SystemExit as end:
            return None, end

    config, end = on_first_rank(config_or_exit)
    if config is None:
        assert end is not None
        raise end
    return config


def _configure(stream: TextIO) -> None:
    """Flush after each line, and escape characters that the encoding of the locale lacks."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")
