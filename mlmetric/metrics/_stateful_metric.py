"""Base class of metrics that store the rows of all batches."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from mlmetric._repr import short_repr
from mlmetric.distributed import gather_objects, gather_rows

Tensors = tuple[Tensor, ...]
"""Tensors with the same number of rows, `(N, ...)` each."""


class StatefulMetric(torch.nn.Module):
    """A metric with `update`, `compute`, `forward`, `reset` and `merge_state`, as in torchmetrics.

    If torchmetrics is installed, instances are virtual instances of `torchmetrics.Metric`, with the attributes and
    methods that `MetricCollection` and `MetricTracker` use. Nothing else of `torchmetrics.Metric` is available: other
    wrappers, arithmetic (`metric + 1`) and indexing (`metric["map"]`) are not supported. Stored batches are neither
    part of `state_dict` nor moved by `to`.

    Args:
        sync_on_compute: Whether `compute` evaluates the rows of all processes in a distributed run.
    """

    # As in torchmetrics.Metric.
    is_differentiable: ClassVar[bool | None] = None
    higher_is_better: ClassVar[bool | None] = None
    full_state_update: ClassVar[bool | None] = None

    def __init__(self, *, sync_on_compute: bool) -> None:
        super().__init__()
        _register_with_torchmetrics()
        self.sync_on_compute = sync_on_compute
        self._batches: list[Any] = []
        # Metrics without entries in `_defaults` do not share states within compute groups of a MetricCollection.
        self._defaults: dict[str, Any] = {}
        self._computed = None
        self._forward_cache = None

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        _register_with_torchmetrics()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Add a batch and return the values of this batch alone, in this process.

        Args:
            *args: Positional arguments of `update`.
            **kwargs: Keyword arguments of `update`.

        Returns:
            The same keys as `compute`.
        """
        previous, num_previous = self._reference_batches(), len(self._batches)
        self.update(*args, **kwargs)
        all_batches = self._batches
        self._batches = [*previous, *all_batches[num_previous:]]
        try:
            return self._compute(synced=False)
        finally:
            self._batches = all_batches

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Add a batch."""
        raise NotImplementedError

    def compute(self) -> Any:
        """Compute the metrics of all batches, of all processes if `sync_on_compute`."""
        return self._compute(synced=self.sync_on_compute)

    def reset(self) -> None:
        """Remove all batches."""
        self._batches = []

    def merge_state(self, other: Self) -> None:
        """Add all batches of another metric of the same class.

        Args:
            other: The metric whose batches to add; it is not changed.

        Raises:
            TypeError: If the class differs.
            ValueError: If the number of columns or the dtype differs.
        """
        if not isinstance(other, StatefulMetric) or type(other) is not type(self):
            raise TypeError(f"`other` must be of class {type(self).__name__}, got {type(other).__name__}.")
        for batch in other._batches:
            self._check_consistent(batch)
        self._batches = self._batches + other._batches

    def clone(self) -> Self:
        """Return a deep copy with the same batches."""
        return copy.deepcopy(self)

    @property
    def update_count(self) -> int:
        """Number of batches since construction or the last `reset`."""
        return len(self._batches)

    @property
    def update_called(self) -> bool:
        """Whether a batch was added since construction or the last `reset`."""
        return bool(self._batches)

    @property
    def metric_state(self) -> dict[str, Any]:
        """States that torchmetrics manages: none."""
        return {}

    def persistent(self, mode: bool = False) -> None:
        """Do nothing: batches are never part of `state_dict`.

        Args:
            mode: Ignored.
        """

    def set_dtype(self, dst_type: str | torch.dtype) -> Self:
        """Return the metric unchanged: batches keep the dtype of `update`.

        Args:
            dst_type: Ignored.
        """
        return self

    def extra_repr(self) -> str:
        """Return the values of the constructor arguments, as text for `repr`."""
        names = [name for name in inspect.signature(type(self)).parameters if name not in self._modules]
        return ", ".join(f"{name}={short_repr(getattr(self, name))}" for name in names if hasattr(self, name))

    @property
    def _update_count(self) -> int:
        return self.update_count

    @property
    def _update_signature(self) -> inspect.Signature:
        return inspect.signature(self.update)

    def _filter_kwargs(self, **kwargs: Any) -> dict[str, Any]:
        """Return the keyword arguments that `update` accepts."""
        return {name: value for name, value in kwargs.items() if name in self._update_signature.parameters}

    def _check_consistent(self, batch: Any) -> None:
        """Check that a batch has the number of columns and the dtypes of earlier batches."""
        for earlier in self._batches[:1]:
            expected = self._named_tensors(earlier)
            for name, tensor in self._named_tensors(batch).items():
                if (tensor.shape[1], tensor.dtype) != (expected[name].shape[1], expected[name].dtype):
                    raise ValueError(
                        f"`{name}` must have {expected[name].shape[1]} columns of {expected[name].dtype} as in earlier "
                        f"batches, got {tensor.shape[1]} of {tensor.dtype}."
                    )

    def _named_tensors(self, batch: Any) -> dict[str, Tensor]:
        """Return the tensors of a batch that must have the same columns and dtype in all batches, by argument name."""
        raise NotImplementedError

    def _reference_batches(self) -> list[Any]:
        """Return the batches that `forward` evaluates together with a new batch, such as the database of retrieval."""
        return []

    def _compute(self, *, synced: bool) -> Any:
        raise NotImplementedError


def concatenate_batches(
    batches: Sequence[Tensors], *, synced: bool, device: torch.device | str | None
) -> Tensors | None:
    """Concatenate batches, of all processes in the order of their ranks if `synced`.

    Args:
        batches: The batches of this process.
        synced: Whether to gather the batches of all processes.
        device: Device of the empty tensors that a process without batches contributes.

    Returns:
        One tensor for each position of a batch, or None if there are no batches in any process.

    Raises:
        ValueError: If the columns or dtypes differ between processes.
    """
    own = [(tuple(tensor.shape[1:]), tensor.dtype) for tensor in batches[0]] if batches else None
    gathered = gather_objects(own) if synced else [own]
    layouts = [layout for layout in gathered if layout is not None]
    if not layouts:
        return None
    if any(layout != layouts[0] for layout in layouts):
        raise ValueError(f"Rows must have the same columns and dtypes in each process, got {layouts}.")
    empty = tuple(torch.zeros(0, *shape, dtype=dtype, device=device) for shape, dtype in layouts[0])
    concatenated = tuple(torch.cat(tensors) for tensors in zip(*(batches or [empty]), strict=True))
    if len(gathered) == 1:
        return concatenated
    return tuple(map(gather_rows, concatenated))


def _register_with_torchmetrics() -> None:
    """Make `isinstance(metric, torchmetrics.Metric)` true if torchmetrics is installed."""
    try:
        from torchmetrics import Metric
    except ImportError:
        return
    Metric.register(StatefulMetric)
