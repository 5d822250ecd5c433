"""How far a run is, what each step takes, and how much memory the process took."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from mlmetric.distributed import rank

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_SECONDS_BETWEEN_LINES = 15


def bar(name: str, items: Iterable[Any] | None = None, *, total: int | None = None, unit: str = "items") -> Any:
    """Show how far a step is: a bar on a terminal, else a line now and then; nothing but in the first process."""
    if rank() == 0 and not sys.stderr.isatty():
        return _Lines(name, items, total=total, unit=unit)
    return tqdm(items, desc=name, total=total, unit=unit, disable=rank() > 0)


class _Lines:
    """A bar in lines, for a file or a pipe: one at the start, one at the end, and one every some seconds between."""

    def __init__(self, name: str, items: Iterable[Any] | None, *, total: int | None, unit: str) -> None:
        self.name, self.items, self.unit = name, items, unit
        self.total = len(items) if total is None and isinstance(items, Sized) else total
        self.n = 0
        self.start = self.shown = time.monotonic()
        self.first: tuple[float, int] | None = None  # what was there before is in the first number
        self._print("started")

    def __iter__(self) -> Iterator[Any]:
        with self:
            for item in self.items or ():
                yield item
                self.update()

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        seconds = time.monotonic() - self.start
        done = f"{self.n} {self.unit}" if self.n or kind else "done"  # all of it was there already
        self._print(f"{done} in {seconds:.1f} s" + (", not finished" if kind else ""))

    def update(self, count: int = 1) -> None:
        """Note that so many more are done."""
        self.n += count
        now = time.monotonic()
        since, before = self.first = self.first or (now, self.n)
        if now - self.shown >= _SECONDS_BETWEEN_LINES and self.n != self.total:
            self.shown = now
            of_all = f" of {self.total}" if self.total else ""
            more = self.n - before
            left = (now - since) * (self.total - self.n) / more if self.total and more else None
            self._print(f"{self.n}{of_all} {self.unit}" + ("" if left is None else f", about {left:.0f} s left"))

    def _print(self, text: str) -> None:
        print(f"{self.name}: {text}", file=sys.stderr, flush=True)


def advance(progress: Any, done: int, total: int) -> None:
    """Move a progress bar to where `done` of `total` are."""
    progress.total = total
    progress.update(done - progress.n)


@contextmanager
def clock(step: str, seconds: dict[str, float]) -> Iterator[None]:
    """Note how long a step takes."""
    start = time.perf_counter()
    yield
    seconds[step] = time.perf_counter() - start


def peak_memory_mb() -> float:
    """Return the largest resident set of this process so far, in MB (10^6 bytes); NaN where the system has no count."""
    if resource is None:
        return math.nan
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
