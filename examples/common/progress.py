"""Progress of long steps: a bar on a terminal; in a pipe or a log file, a line for each step and every 30 seconds.

A line states the step, its progress, the rate and the remaining time:

    features: 640 of 1,500 images, 11.4 images/s, about 75 s left
    features: 1,500 images in 131.0 s (11.4 images/s)
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from tqdm import tqdm

from mlmetric.distributed import rank

_SECONDS_BETWEEN_LINES = 30
_SECONDS_BETWEEN_MARKS = 10  # the rate covers the last 10 to 20 seconds, or the last update if that took longer
_FEWEST_FOR_RATE, _SHORTEST_FOR_RATE = 10, 1.0  # items and seconds of a finished step


def progress_bar(
    name: str, items: Iterable[Any] | None = None, *, total: int | None = None, unit: str = ""
) -> Progress:
    """Show the progress of a step; with several processes, only the first one does.

    Args:
        name: Name of the step.
        items: The items to iterate over, if any.
        total: Number of items; by default `len(items)`.
        unit: Name of the items, in the plural; none for a step that is not counted.

    Returns:
        The progress: iterate over it, or use it as a context manager and call its methods.
    """
    kind = _HiddenProgress if rank() > 0 else _ProgressBar if sys.stderr.isatty() else _ProgressLines
    return kind(name, items, total=total, unit=unit)


class Progress:
    """The progress of a step, shown by subclasses.

    Attributes:
        name: Name of the step.
        unit: Name of the items, in the plural.
        total: Number of items; None if it is unknown.
        done: Number of items that are finished.
    """

    def __init__(self, name: str, items: Iterable[Any] | None, *, total: int | None, unit: str) -> None:
        self.name, self.unit = name, unit
        self.total = len(items) if total is None and isinstance(items, Sized) else total
        self.done = 0
        self._items = items

    def __iter__(self) -> Iterator[Any]:
        with self:
            for item in self._items or ():
                yield item
                self.update()

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._close(failed=kind is not None)

    def update(self, count: int = 1, note: str = "") -> None:
        """Count further items as done; `note` states which part of the step they belong to."""
        self.done += count
        self._show(note)

    def restore(self, count: int, note: str = "") -> None:
        """Count items that were finished before this start as done; the rate does not include them."""
        self.done += count
        self._restart(count, note)

    def set(self, done: int, total: int) -> None:
        """Show `done` of `total` items: a callback such as the argument `progress` of `extract_features`."""
        self.total = total
        self.update(done - self.done)

    def _open(self) -> None:
        """Begin to show the progress."""

    def _show(self, note: str) -> None:
        """Show the number of finished items after an update."""

    def _restart(self, count: int, note: str) -> None:
        """Show the number of finished items after `restore`."""

    def _close(self, *, failed: bool) -> None:
        """Show the end of the step."""


class _HiddenProgress(Progress):
    """No output."""


class _ProgressBar(Progress):
    """A bar of tqdm."""

    def _open(self) -> None:
        bar_format = None if self.unit else "{desc}: {elapsed}"
        self._bar = tqdm(
            desc=self.name, total=self.total, unit=f" {self.unit}", dynamic_ncols=True, bar_format=bar_format
        )

    def _show(self, note: str) -> None:
        self._bar.total = self.total
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(self.done - self._bar.n)

    def _restart(self, count: int, note: str) -> None:
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.initial += count  # excluded from the rate
        self._bar.n = self._bar.last_print_n = self.done
        self._bar.refresh()

    def _close(self, *, failed: bool) -> None:
        self._bar.close()


class _ProgressLines(Progress):
    """A line at the end, and at most one every 30 seconds before."""

    def _open(self) -> None:
        self._start = self._last_line = time.monotonic()
        self._restored = 0
        self._first: tuple[float, int] | None = None  # the first update can include items that were finished before
        self._marks: deque[tuple[float, int]] = deque(maxlen=2)

    def _show(self, note: str) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = now, self.done
            self._marks.append(self._first)
        if now - self._last_line >= _SECONDS_BETWEEN_LINES and self.done != self.total:
            self._last_line = now
            rate = _rate(self._marks[0], (now, self.done))
            left = (self.total - self.done) / rate if self.total and rate else None
            self._print(
                f"{self._count()}{f' ({note})' if note else ''}"
                + (f", {_number(rate)} {self.unit}/s" if rate else "")
                + ("" if left is None else f", about {_duration(left)} left")
            )
        if now - self._marks[-1][0] >= _SECONDS_BETWEEN_MARKS:
            self._marks.append((now, self.done))

    def _restart(self, count: int, note: str) -> None:
        self._restored += count
        self._first = time.monotonic(), self.done
        self._marks.clear()
        self._marks.append(self._first)

    def _close(self, *, failed: bool) -> None:
        now = time.monotonic()
        seconds = f"{now - self._start:.1f} s"
        if failed:
            self._print(f"{self._count()} in {seconds}, not finished")
        elif not self.done:
            self._print(f"done in {seconds}")
        elif self._restored == self.done:
            self._print(f"{self._units()}, finished before")
        else:
            rate = _rate(self._first or (self._start, 0), (now, self.done))
            before = f", {self._restored:,} of them finished before," if self._restored else ""
            has_rate = rate and self.done >= _FEWEST_FOR_RATE and now - self._start >= _SHORTEST_FOR_RATE
            shown = f" ({_number(rate)} {self.unit}/s)" if has_rate else ""
            self._print(f"{self._units()}{before} in {seconds}{shown}")

    def _count(self) -> str:
        return f"{self.done:,} of {self.total:,} {self.unit}" if self.total else self._units()

    def _units(self) -> str:
        return f"{self.done:,} {self.unit.removesuffix('s') if self.done == 1 else self.unit}"

    def _print(self, text: str) -> None:
        print(f"{self.name}: {text}", file=sys.stderr, flush=True)


def _rate(before: tuple[float, int], after: tuple[float, int]) -> float:
    """Return the number of items per second between two moments; 0 if it is unknown."""
    seconds, items = after[0] - before[0], after[1] - before[1]
    return items / seconds if seconds > 0 else 0.0


def _number(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


@contextmanager
def training_progress(
    num_epochs: int, *, checkpoint_dir: Path | None = None
) -> Iterator[Callable[[str, Mapping[str, float]], None]]:
    """Show one progress over the epochs of all stages of a fit, such as the members of an ensemble.

    Args:
        num_epochs: Number of epochs of all stages together.
        checkpoint_dir: The folder of checkpoints that is passed to the fit, if any: epochs of an earlier start, which
            the fit reports again from its checkpoints, are then excluded from the rate and from the time left.

    Yields:
        The callback of the fit, called with the name of a stage and the record of an epoch.
    """

    def written(stage: str) -> int | None:
        path = None if checkpoint_dir is None else checkpoint_dir / f"{stage}.pt"
        return path.stat().st_mtime_ns if path is not None and path.exists() else None

    before = {} if checkpoint_dir is None else {path.stem: written(path.stem) for path in checkpoint_dir.glob("*.pt")}
    with progress_bar("training", total=num_epochs, unit="epochs") as progress:

        def on_epoch(stage: str, record: Mapping[str, float]) -> None:
            # The checkpoint is written before the callback of a new epoch, and unchanged in that of an earlier one.
            if before.get(stage) is not None and written(stage) == before[stage]:
                progress.restore(1, stage)
            else:
                progress.update(1, stage)

        yield on_epoch
