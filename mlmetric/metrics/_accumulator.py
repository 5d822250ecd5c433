"""What metric objects share: rows that are fed batch by batch, from several processes if there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from mlmetric.distributed import gather_objects, gather_rows

Batch = tuple[Tensor, ...]
"""Parts of the same rows, `(N, ...)` each."""


class Accumulator:
    """An object with `update`, `compute`, `reset`, and a call that does the first two of one batch.

    Where torchmetrics is installed, an instance is one of its metrics too and goes into a `MetricCollection`. All that
    it does is done here; torchmetrics only recognises it.
    """

    def __new__(cls, *_args: Any, **_options: Any) -> Self:
        """Create an instance, of a class that is a torchmetrics metric too if that package is there."""
        try:
            from mlmetric.metrics._torchmetrics import joined
        except ImportError:
            return super().__new__(cls)
        return super().__new__(joined(cls, _create))  # type: ignore[arg-type]

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

    def reset(self) -> None:
        """Forget all batches."""
        self._batches = []
        getattr(super(), "reset", lambda: None)()  # torchmetrics counts updates and keeps what it computed

    def merge_state(self, other: Self) -> None:
        """Take in all batches of another object of the same kind."""
        if not isinstance(other, Accumulator) or other.__class__ is not self.__class__:
            raise TypeError(f"`other` must be of class {type(self).__name__} too, got {type(other).__name__}.")
        for batch in other._batches:
            self._check_fits(batch)
        self._batches = self._batches + other._batches
        if hasattr(self, "_update_count"):  # by which torchmetrics warns of an object without rows
            self._update_count += getattr(other, "_update_count", 0)

    def _check_fits(self, batch: Any) -> None:
        """Check that a batch has the columns and dtypes of the earlier ones."""
        for earlier in self._batches[:1]:
            for name, part, before in zip(self._names(), self._parts(batch), self._parts(earlier), strict=True):
                if (part.shape[1], part.dtype) != (before.shape[1], before.dtype):
                    raise ValueError(
                        f"`{name}` must have {before.shape[1]} columns of {before.dtype} as in earlier batches, "
                        f"got {part.shape[1]} of {part.dtype}."
                    )

    def _names(self) -> tuple[str, ...]:
        """Return the names of what `_parts` returns."""
        raise NotImplementedError

    def _parts(self, batch: Any) -> Batch:
        """Return the tensors of a batch whose columns are those of any other."""
        raise NotImplementedError

    def _lasting(self) -> list[Any]:
        """Return the batches that a batch is measured with."""
        return []

    def _measure(self, *, synced: bool) -> Any:
        raise NotImplementedError


def join(batches: Sequence[Batch], *, synced: bool, device: torch.device | str | None) -> Batch | None:
    """Join batches part by part, those of all processes in the order of ranks if `synced`; None where none has any.

    `device`: where a process without batches has its none.
    """
    mine = [(tuple(part.shape[1:]), part.dtype) for part in batches[0]] if batches else None
    everyone = gather_objects(mine) if synced else [mine]
    kinds = [kind for kind in everyone if kind is not None]
    if not kinds:
        return None
    if any(kind != kinds[0] for kind in kinds):
        raise ValueError(f"Rows must have the same columns and dtypes in each process, got {kinds}.")
    none = tuple(torch.zeros(0, *shape, dtype=dtype, device=device) for shape, dtype in kinds[0])
    joined = tuple(torch.cat(parts) for parts in zip(*(batches or [none]), strict=True))
    if len(everyone) == 1:
        return joined
    return tuple(map(gather_rows, joined))


def _create(cls: type[Accumulator]) -> Accumulator:
    """Create an instance to be filled from a pickle."""
    return cls.__new__(cls)
