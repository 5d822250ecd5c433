"""Metric objects that torchmetrics recognises. Imported only where that package is installed."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from torchmetrics import Metric


@cache
def joined(cls: type, create: Callable[[Any], Any]) -> type:
    """Return a class of the same name that is `cls` in all it does, and a `torchmetrics.Metric`.

    `create` makes an empty instance of `cls`, for pickles, which then need no torchmetrics.
    """
    if issubclass(cls, Metric):
        return cls

    def reduce(self: Any) -> tuple[Any, ...]:
        # By the class that can be imported, which this one cannot.
        return create, (cls,), self.__getstate__()

    def restore(self: Any, state: dict[str, Any]) -> None:
        if "_update_count" in state:
            Metric.__setstate__(self, state)
            return
        Metric.__init__(self)  # the pickle is from where torchmetrics is not installed
        self.__dict__.update(state)
        self._update_count = len(self._batches)

    return type(
        cls.__name__,
        (cls, Metric),
        {"__module__": cls.__module__, "__doc__": cls.__doc__, "__reduce__": reduce, "__setstate__": restore},
    )
