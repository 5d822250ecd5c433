"""What metric objects share: rows that are fed batch by batch, from several processes if there are."""

from __future__ import annotations

from typing import Any, Self


class Accumulator:
    """An object with `update`, `compute`, `reset`, and a call that does the first two of one batch.

    Where torchmetrics is installed, an instance is one of its metrics too: it goes into a `MetricCollection` and into
    Lightning's `log`. All that it does is done here; torchmetrics only recognises it.
    """

    def __new__(cls, *_args: Any, **_options: Any) -> Self:
        """Create an instance, of a class that is a torchmetrics metric too if that package is there."""
        try:
            from mlmetric.metrics._torchmetrics import joined
        except ImportError:
            return super().__new__(cls)
        return super().__new__(joined(cls))  # type: ignore[arg-type]

    def __init__(self, *, sync_on_compute: bool) -> None:
        super().__init__()
        self.sync_on_compute = sync_on_compute
        self.compute_with_cache = False  # torchmetrics': another process may have got rows since
        self._batches: list[Any] = []

    def __call__(self, *batch: Any, **options: Any) -> Any:
        return self.forward(*batch, **options)

    def forward(self, *batch: Any, **options: Any) -> Any:
        """Take in a batch and return what `compute` gives of this batch alone, in this process."""
        lasting, number = self._lasting(), len(self._batches)
        self.update(*batch, **options)
        every = self._batches
        self._batches = [*lasting, *every[number:]]
        try:
            return self._measure(synced=False)
        finally:
            self._batches = every

    def update(self, *batch: Any, **options: Any) -> None:
        """Take in a batch."""
        raise NotImplementedError

    def compute(self) -> Any:
        """Measure all batches, of all processes if several are joined and `sync_on_compute`."""
        return self._measure(synced=self.sync_on_compute)

    def _lasting(self) -> list[Any]:
        """Return the batches that a batch is measured with."""
        return []

    def _measure(self, *, synced: bool) -> Any:
        raise NotImplementedError

    def reset(self) -> None:
        """Forget all batches."""
        self._batches = []
        getattr(super(), "reset", lambda: None)()  # torchmetrics counts updates and keeps what it computed

    def merge_state(self, other: Self) -> None:
        """Take in all batches of another object of the same kind."""
        if not isinstance(other, Accumulator) or other.__class__ is not self.__class__:
            raise TypeError(f"`other` must be of class {type(self).__name__} too, got {type(other).__name__}.")
        self._batches = self._batches + other._batches
        if hasattr(self, "_update_count"):  # by which torchmetrics warns of an object without rows
            self._update_count += getattr(other, "_update_count", 0)


def create(cls: type[Accumulator]) -> Accumulator:
    """Create an instance to be filled from a pickle."""
    return cls.__new__(cls)
