"""Rules that choose thresholds by a value computed from counts: the base class, and F-beta."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor


class ThresholdCounts(NamedTuple):
    """Counts of predicted entries at each of several thresholds, for G labels; float64 except for `labels`.

    Attributes:
        true_positives: Positives that are predicted, shape `(G, P)`, one column for each threshold.
        predicted: Entries that are predicted, shape `(G, P)`.
        positives: Positives of the label, shape `(G, 1)`.
        labels: Column of each label in the label matrix, int64, shape `(G, 1)`; 0 where the entries of all labels are
            counted together.
    """

    true_positives: Tensor
    predicted: Tensor
    positives: Tensor
    labels: Tensor

    @property
    def of_no_prediction(self) -> ThresholdCounts:
        """The counts if nothing is predicted, `(G, 1)`."""
        zero = self.positives.new_zeros(self.positives.shape)
        return self._replace(true_positives=zero, predicted=zero)


class ThresholdRule(ABC):
    """Base class of rules that choose thresholds; subclass it and define `value` to write your own rule.

    For each label, an exact search finds the threshold with the highest value, or the highest of several such
    thresholds. It compares +inf, at which nothing is predicted, and the thresholds at which the predicted entry with
    the lowest score is a positive. Predicting a further negative must therefore never increase the value.

    Examples:
        >>> import torch
        >>> from mlmetric.decisions import ThresholdRule
        >>> from mlmetric.metrics import best_thresholds
        >>> class JaccardIndex(ThresholdRule):
        ...     def value(self, counts):
        ...         union = counts.predicted + counts.positives - counts.true_positives
        ...         return counts.true_positives / union
        >>> preds = torch.tensor([[0.9], [0.6], [0.5], [0.1]])
        >>> best_thresholds(preds, [[1], [0], [1], [0]], metric=JaccardIndex())
        tensor([0.3000], dtype=torch.float64)
    """

    is_constraint: ClassVar[bool] = False
    """Whether the value is -inf where a requirement is not met; `shrinkage` and `max_predicted` are then rejected."""
    is_sum: ClassVar[bool] = False
    """Whether the value of several labels is the sum of their values, also defined for labels without positives."""

    @abstractmethod
    def value(self, counts: ThresholdCounts) -> Tensor:
        """Compute the value of each threshold from its `counts`.

        Args:
            counts: The counts at each threshold. The counts of no prediction are passed in a separate call.

        Returns:
            float64, of the shape of `counts.predicted`, `(G, P)`; -inf or NaN for thresholds that must not be chosen.
        """

    def check_labels(self, num_labels: int) -> None:  # noqa: B027
        """Raise a ValueError if the rule does not suit `num_labels` labels; by default it suits any number."""


@dataclass(frozen=True)
class FBeta(ThresholdRule):
    """Maximise F-beta, the weighted harmonic mean of precision and recall.

    Args:
        beta: How many times as important recall is as precision, above 0. 1 gives F1.

    Raises:
        ValueError: If `beta` is not a finite number above 0.

    Examples:
        >>> import torch
        >>> from mlmetric.decisions import FBeta
        >>> from mlmetric.metrics import best_thresholds
        >>> preds, target = torch.tensor([[0.9], [0.6], [0.5], [0.1]]), torch.tensor([[1], [0], [0], [1]])
        >>> [best_thresholds(preds, target, metric=FBeta(beta)).item() for beta in (0.5, 2)]
        [0.75, 0.10000000149011612]

    Source:
        van Rijsbergen, "Information Retrieval", 2nd edition, 1979, chapter 7.
    """

    beta: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.beta < math.inf:
            raise ValueError(f"`beta` must be a finite number above 0, got {self.beta}.")

    def value(self, counts: ThresholdCounts) -> Tensor:
        """Compute F-beta at each threshold from its `counts`."""
        numerator, denominator = self.fraction(counts)
        return numerator / denominator

    def fraction(self, counts: ThresholdCounts) -> tuple[Tensor, Tensor]:
        """Compute the numerator and the denominator of F-beta, whose sums over labels give the micro F-beta.

        Args:
            counts: The counts at each threshold.

        Returns:
            Two tensors, float64, shape `(G, P)`.
        """
        square = self.beta**2
        return (1 + square) * counts.true_positives, counts.predicted + square * counts.positives
