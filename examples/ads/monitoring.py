"""Durations, peak memory, warnings, and the records of training of a run."""

from __future__ import annotations

import logging
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.progress import training_progress
from mlmetric.training import EpochRecord

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_WARNINGS_LOGGER = logging.getLogger("py.warnings")  # the logger that `logging.captureWarnings` uses


@contextmanager
def timed(step: str, seconds: dict[str, float]) -> Iterator[None]:
    """Write the duration of a block into `seconds[step]`."""
    start = time.perf_counter()
    yield
    seconds[step] = time.perf_counter() - start


@contextmanager
def monitored_stages(
    num_epochs: int, folder: Path, seconds: dict[str, float], histories: dict[str, list[EpochRecord]]
) -> Iterator[Callable[[str, EpochRecord], None]]:
    """Show the progress of training and keep the durations and the records of its stages.

    Args:
        num_epochs: Epochs of all stages together.
        folder: The folder of checkpoints.
        seconds: The duration of each stage is written here; stages may overlap.
        histories: The records of each stage are written here.

    Yields:
        The callback for `fit`, called with the name of a stage and the record of an epoch.
    """
    starts: dict[str, float] = {}
    last = time.perf_counter()  # when the latest epoch ended
    with training_progress(num_epochs, checkpoint_dir=folder) as show:

        def on_epoch(stage: str, record: EpochRecord) -> None:
            nonlocal last
            if stage not in histories:
                starts[stage], histories[stage] = last, []
            histories[stage].append(record)
            last = time.perf_counter()
            seconds[stage] = last - starts[stage]
            show(stage, record)

        yield on_epoch


def peak_memory_mb() -> float:
    """Return the largest resident set size of this process so far, in MB (10^6 bytes); NaN where it is unknown."""
    if resource is None:
        return math.nan
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


@contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """Collect warnings, and log messages of level WARNING and above, each text once.

    Yields:
        The texts; later ones are appended while the block runs.
    """
    collector = _Collector(logging.WARNING)
    logging.getLogger().addHandler(collector)
    try:
        with warnings.catch_warnings():  # also clears the registry, so that a second run in one process warns again
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
    _WARNINGS_LOGGER.warning("%s", message)
