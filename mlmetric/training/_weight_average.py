"""An exponential moving average of the weights of a module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class WeightAverage:
    """The exponential moving average of the trainable weights of a module; buffers are not averaged.

    Args:
        module: The module.
        decay: Weight of the previous average, in [0, 1); after n updates at most (1 + n) / (10 + n). 0 for no average.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.num_updates = 0
        self._weights: list[Tensor] = (
            [weight for weight in module.parameters() if weight.requires_grad] if decay else []
        )
        self._averages = [weight.detach().clone() for weight in self._weights]

    @torch.no_grad()
    def update(self) -> None:
        """Include the current weights in the average."""
        if self._weights:
            decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
            torch._foreach_lerp_(self._averages, self._weights, 1 - decay)
            self.num_updates += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Exchange the weights of the module with their averages until the block ends."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for weight, average in zip(self._weights, self._averages, strict=True):
            weight.data, average.data = average.data, weight.data

    def state_dict(self) -> dict[str, Any]:
        """Return the averages and the number of updates."""
        return {"averages": self._averages, "num_updates": self.num_updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace the averages and the number of updates by those of a state.

        Raises:
            ValueError: If the state does not match the module.
        """
        averages: list[Tensor] = state["averages"]
        for average, saved in zip(self._averages, averages, strict=True):
            if average.shape != saved.shape or not bool(saved.isfinite().all()):
                raise ValueError("The average of a weight is malformed.")
            average.copy_(saved)
        self.num_updates = int(state["num_updates"])
