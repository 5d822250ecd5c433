"""What the libraries warn of in a run: shown as it happens, and kept for the report."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_LOGGER = logging.getLogger("py.warnings")  # the standard name of the logger that warnings go to


@contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """Collect warnings and what is logged as a warning or an error, each text once.

    Yields:
        The texts, filled in as they come.
    """
    collector = _Collector(logging.WARNING)
    logging.getLogger().addHandler(collector)
    try:
        with warnings.catch_warnings():  # forgets which warnings were shown: a second run in one process warns again
            warnings.showwarning = _log
            yield collector.texts
    finally:
        logging.getLogger().removeHandler(collector)


class _Collector(logging.Handler):
    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text not in self.texts:
            self.texts.append(text)


def _log(message: Warning | str, *_: Any, **__: Any) -> None:
    _LOGGER.warning("%s", message)
