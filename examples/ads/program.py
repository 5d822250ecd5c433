"""An example as a program: its options are checked before the imports that take seconds; what ends it is one line."""

from __future__ import annotations

import logging
import shlex
import sys
from importlib import import_module
from typing import NoReturn, TextIO

from .config import Config
from .options import parse
from .processes import is_first, joined_processes, read_on_first

_INTERRUPTED = 130  # what a shell reports of a program that Ctrl-C ended: 128 + SIGINT


def run_program(config_class: type[Config]) -> NoReturn:
    """Read the options of an example, import it, call its `main`, and end the process.

    Args:
        config_class: The dataclass of the options; its `example` is the module.

    Raises:
        SystemExit: Always; 0 after a run, 130 after Ctrl-C, else with the error in one sentence.
    """
    for stream in (sys.stdout, sys.stderr):
        _prepare(stream)
    logging.basicConfig(format="%(levelname)s: %(message)s")
    try:
        with joined_processes():
            config = read_on_first(lambda: parse(config_class))
            import_module(config_class.example).main(config)
    except KeyboardInterrupt as interrupt:
        if is_first():
            folder = getattr(interrupt, "folder", None)
            command = shlex.join(["python", sys.argv[0], "--resume", "--output", str(folder)])
            print("interrupted" + (f"; continue with: {command}" if folder else ""), file=sys.stderr)
        raise SystemExit(_INTERRUPTED) from None
    except (ValueError, OSError, FloatingPointError, MemoryError) as error:
        raise SystemExit(f"error: {str(error) or type(error).__name__}") from error
    raise SystemExit(0)


def _prepare(stream: TextIO) -> None:
    """Have a line written as soon as it is whole, and in any locale: characters it lacks are written as escapes."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")
