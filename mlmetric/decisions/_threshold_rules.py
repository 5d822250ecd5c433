"""Rules that choose thresholds: a recall or precision that must be reached, and expected cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mlmetric.metrics._inputs import to_tensor
from mlmetric.metrics._threshold_rules import ThresholdCounts, ThresholdRule


@dataclass(frozen=True)
class MinRecall(ThresholdRule):
    """Reach a recall with as few predictions as possible: the highest threshold whose recall is at least `recall`.

    The recall is reached on the rows that the threshold is chosen on; on new rows it varies around that value, and
    varies more for labels with fewer positives.

    Args:
        recall: The recall to reach, in (0, 1].

    Raises:
        ValueError: If `recall` is outside (0, 1].

    Examples:
        >>> import torch
        >>> from mlmetric.decisions import MinRecall
        >>> from mlmetric.metrics import best_thresholds
        >>> preds, target = torch.tensor([[0.9], [0.6], [0.5], [0.1]]), torch.tensor([[1], [0], [1], [0]])
        >>> best_thresholds(preds, target, metric=MinRecall(0.5))
        tensor([0.7500], dtype=torch.float64)
    """

    is_constraint: ClassVar[bool] = True
    recall: float

    def __post_init__(self) -> None:
        _check_share("recall", self.recall)

    def value(self, counts: ThresholdCounts) -> Tensor:
        """Compute minus the number of predictions at each threshold from its `counts`; -inf below the recall."""
        reached = counts.true_positives / counts.positives >= self.recall
        return (-counts.predicted).masked_fill(~reached, -torch.inf)


@dataclass(frozen=True)
class MinPrecision(ThresholdRule):
    """Find as many positives as possible with a precision of at least `precision`.

    Of the thresholds whose precision is at least `precision`, the one with the highest recall is chosen. If no
    threshold of a label reaches the precision, a warning is issued and the threshold is infinity, so that the label is
    never predicted. The precision of labels with few predictions varies widely on new rows.

    Args:
        precision: The precision to reach, in (0, 1].

    Raises:
        ValueError: If `precision` is outside (0, 1].

    Examples:
        >>> import torch
        >>> from mlmetric.decisions import MinPrecision
        >>> from mlmetric.metrics import best_thresholds
        >>> preds, target = torch.tensor([[0.9], [0.6], [0.5], [0.1]]), torch.tensor([[1], [0], [1], [0]])
        >>> best_thresholds(preds, target, metric=MinPrecision(0.6))
        tensor([0.3000], dtype=torch.float64)
    """

    is_constraint: ClassVar[bool] = True
    precision: float

    def __post_init__(self) -> None:
        _check_share("precision", self.precision)

    def value(self, counts: ThresholdCounts) -> Tensor:
        """Compute the true positives at each threshold from its `counts`; -inf below the precision."""
        # Without predictions, precision is 0 / 0, and the value 0.
        reached = counts.true_positives / counts.predicted.clamp(min=1) >= self.precision
        return counts.true_positives.masked_fill(~reached & (counts.predicted > 0), -torch.inf)


@dataclass(frozen=True, eq=False)
class ExpectedCost(ThresholdRule):
    """Minimise the cost of errors: the sum of the costs of false positives and false negatives.

    If no prediction of a label lowers the cost, as for a label without positives, its threshold is infinity. With
    `per_label=False` the common threshold minimises the sum over all labels.

    Args:
        false_positive: Cost of predicting a label that a row does not have, >= 0: a number, or one for each label,
            shape `(L,)`.
        false_negative: Cost of not predicting a label that a row has, >= 0: a number, or one for each label, shape
            `(L,)`.

    Raises:
        TypeError: If a cost is not numeric.
        ValueError: If a cost is negative or not finite, or neither a number nor one-dimensional, or if there is not one
            cost for each label.

    Examples:
        >>> import torch
        >>> from mlmetric.decisions import ExpectedCost
        >>> from mlmetric.metrics import best_thresholds
        >>> preds, target = torch.tensor([[0.9], [0.6], [0.5], [0.1]]), torch.tensor([[1], [0], [1], [0]])
        >>> best_thresholds(preds, target, metric=ExpectedCost(false_positive=5, false_negative=1))
        tensor([0.7500], dtype=torch.float64)

    Source:
        Elkan, "The foundations of cost-sensitive learning", IJCAI 2001, derives the threshold of calibrated
        probabilities, `false_positive / (false_positive + false_negative)`. Here the threshold minimises the cost on
        the given rows, so that scores need not be calibrated.
    """

    is_sum: ClassVar[bool] = True
    false_positive: float | npt.ArrayLike = 1.0
    false_negative: float | npt.ArrayLike = 1.0

    def __post_init__(self) -> None:
        for name in ("false_positive", "false_negative"):
            costs = to_tensor(getattr(self, name), name).double()
            if costs.ndim > 1:
                raise ValueError(
                    f"`{name}` must be a number or have shape (L,), one for each label, got shape {tuple(costs.shape)}."
                )
            if not bool(((costs >= 0) & costs.isfinite()).all()):
                raise ValueError(f"`{name}` must be a finite cost >= 0, got {np.asarray(getattr(self, name))}.")

    def value(self, counts: ThresholdCounts) -> Tensor:
        """Compute minus the cost at each threshold from its `counts`."""
        false_positives = counts.predicted - counts.true_positives
        false_negatives = counts.positives - counts.true_positives
        return -(
            self._costs("false_positive", counts.labels) * false_positives
            + self._costs("false_negative", counts.labels) * false_negatives
        )

    def check_labels(self, num_labels: int) -> None:
        """Raise a ValueError if there is not one cost for each of `num_labels` labels."""
        for name in ("false_positive", "false_negative"):
            shape = np.shape(getattr(self, name))
            if shape not in ((), (num_labels,)):
                raise ValueError(f"`{name}` must be a number or have shape ({num_labels},), got shape {shape}.")

    def _costs(self, name: str, labels: Tensor) -> Tensor:
        costs = to_tensor(getattr(self, name), name).to(labels.device, torch.float64)
        return costs if costs.ndim == 0 else costs[labels]


def _check_share(name: str, value: float) -> None:
    if not 0 < value <= 1:
        raise ValueError(f"`{name}` must be in (0, 1], got {value}.")
