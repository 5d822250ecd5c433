"""Progress bars, durations, peak memory and warnings of a run."""

from __future__ import annotations

import logging
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import ExitStack, contextmanager
from typing import Any

from tqdm import tqdm

from mlmetric.distributed import rank
from mlmetric.training import EpochRecord

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_SECONDS_BETWEEN_LINES = 15
_WARNINGS_LOGGER = logging.getLogger("py.warnings")  # the logger that `logging.captureWarnings` uses


def progress_bar(
    name: str, items: Iterable[Any] | None = None, *, total: int | None = None, unit: str = "items"
) -> Any:
    """Create a progress bar, with tqdm on a terminal and as lines of text elsewhere; only the first process shows it.

    Args:
        name: Name of the operation.
        items: The items to iterate over, if any.
        total: Number of items; by default `len(items)`.
        unit: Name of the items, in the plural.
    """
    if rank() == 0 and not sys.stderr.isatty():
        return _ProgressLines(name, items, total=total, unit=unit)
    return tqdm(items, desc=name, total=total, unit=unit, disable=rank() > 0)


class _ProgressLines:
    """A progress bar for files and pipes: a line at the start, at the end, and every 15 seconds in between."""

    def __init__(self, name: str, items: Iterable[Any] | None, *, total: int | None, unit: str) -> None:
        self.name, self.items, self.unit = name, items, unit
        self.total = len(items) if total is None and isinstance(items, Sized) else total
        self.n = 0
        self.start = self.last_line = time.monotonic()
        self.first: tuple[float, int] | None = None  # the first update also counts items that were finished before
        self._print("started")

    def __iter__(self) -> Iterator[Any]:
        with self:
            for item in self.items or ():
                yield item
                self.update()

    def __enter__(self) -> _ProgressLines:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        seconds = time.monotonic() - self.start
        done = f"{self.n} {self.unit}" if self.n or kind else "done"  # 0 if a previous run has finished all of them
        self._print(f"{done} in {seconds:.1f} s" + (", not finished" if kind else ""))

    def update(self, count: int = 1) -> None:
        """Count further items as done."""
        self.n += count
        now = time.monotonic()
        since, before = self.first = self.first or (now, self.n)
        if now - self.last_line >= _SECONDS_BETWEEN_LINES and self.n != self.total:
            self.last_line = now
            of_total = f" of {self.total}" if self.total else ""
            more = self.n - before
            left = (now - since) * (self.total - self.n) / more if self.total and more else None
            self._print(f"{self.n}{of_total} {self.unit}" + ("" if left is None else f", about {left:.0f} s left"))

    def _print(self, text: str) -> None:
        print(f"{self.name}: {text}", file=sys.stderr, flush=True)


def set_progress(progress: Any, done: int, total: int) -> None:
    """Set a progress bar to `done` of `total` items."""
    progress.total = total
    progress.update(done - progress.n)


@contextmanager
def timed(step: str, seconds: dict[str, float]) -> Iterator[None]:
    """Write the duration of a block into `seconds[step]`."""
    start = time.perf_counter()
    yield
    seconds[step] = time.perf_counter() - start


@contextmanager
def monitored_stages(
    num_epochs: int, seconds: dict[str, float], histories: dict[str, list[EpochRecord]]
) -> Iterator[Callable[[str, EpochRecord], None]]:
    """Show a progress bar for each stage of training and keep the durations and the records.

    Args:
        num_epochs: Epochs of each stage.
        seconds: The duration of each stage is written here.
        histories: The records of each stage are written here.

    Yields:
        The callback for `fit`, called with the name of a stage and the record of an epoch.
    """
    bars: dict[str, Any] = {}
    starts: dict[str, float] = {}
    last = time.perf_counter()  # when the latest epoch ended
    with ExitStack() as open_bar:

        def on_epoch(stage: str, record: EpochRecord) -> None:
            nonlocal last
            if stage not in bars:
                open_bar.close()  # that of the previous stage
                bars[stage] = open_bar.enter_context(progress_bar(stage, total=num_epochs, unit="epochs"))
                starts[stage], histories[stage] = last, []
            bars[stage].update()
            histories[stage].append(record)
            last = time.perf_counter()
            seconds[stage] = last - starts[stage]

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
