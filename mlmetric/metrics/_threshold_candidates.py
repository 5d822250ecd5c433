"""The thresholds of each label that the search compares."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from mlmetric.metrics._inputs import Predictions
from mlmetric.metrics._ranked_groups import RankedGroups, ranked_groups
from mlmetric.metrics._threshold_rules import FBeta, ThresholdCounts

Objective: TypeAlias = Callable[[ThresholdCounts], Tensor]
"""Value of each threshold, `(G, P)`."""


class ThresholdCandidates:
    """The candidate thresholds of each label: the scores of its positives, and +inf.

    Other thresholds need not be considered: predicting further negatives, but no further positive, only lowers the
    value. A choice of candidates is int64 `(L,)`: for each label the index of the lowest predicted positive among the
    label's positives in ascending order, or -1 to predict none.

    Candidates that predict more than `max_predicted` times the positives of a label are left out, except the one that
    predicts fewest.
    """

    def __init__(self, predictions: Predictions, *, max_predicted: float = math.inf) -> None:
        self._max_predicted = max_predicted
        mask = None if predictions.mask is None else predictions.mask.T
        self._dtype = predictions.preds.dtype
        self._none_chosen = torch.full_like(predictions.target[:0].sum(dim=0), -1)
        self._groups = []
        for ranked in ranked_groups(predictions.preds.T, predictions.target.T, mask):
            predicted, true_positives = ranked.count_at_least()
            counts = ThresholdCounts(true_positives, predicted, ranked.positives.double(), ranked.groups[:, None])
            self._groups.append(_CountedGroups(ranked, counts))

    def maximise(self, objective: Objective) -> Tensor:
        """Choose for each label the highest candidate that maximises the objective."""
        chosen = self._none_chosen.clone()
        for ranked, counts in self._groups:
            values = objective(counts)
            predicted = counts.predicted.masked_fill(~ranked.valid, torch.inf)
            limit = (self._max_predicted * counts.positives).maximum(predicted.amin(dim=1, keepdim=True))
            values = values.masked_fill(~ranked.valid | (predicted > limit) | values.isnan(), -torch.inf)
            index = values.shape[1] - 1 - values.flip(1).argmax(dim=1)
            maximum = values.gather(1, index[:, None]).squeeze(1)
            of_none = objective(counts.of_no_prediction).squeeze(1).nan_to_num(nan=-torch.inf, neginf=-torch.inf)
            chosen[ranked.groups] = torch.where(maximum > of_none, index, -1)
        return chosen

    def fraction(self, chosen: Tensor, rule: FBeta) -> tuple[float, float]:
        """Return the micro F-beta of a choice as numerator and denominator, integers for F1."""
        numerator = denominator = 0.0
        for group in self._groups:
            index = chosen[group.ranked.groups, None]
            none, index = index < 0, index.clamp(min=0)
            counts = group.counts._replace(
                true_positives=group.counts.true_positives.gather(1, index).masked_fill(none, 0),
                predicted=group.counts.predicted.gather(1, index).masked_fill(none, 0),
            )
            top, bottom = rule.fraction(counts)
            numerator, denominator = numerator + float(top.sum()), denominator + float(bottom.sum())
        return numerator, denominator

    def thresholds(self, chosen: Tensor) -> Tensor:
        """Return the threshold of each label, float64 `(L,)`; +inf where no positive is predicted."""
        thresholds = chosen.new_full(chosen.shape, torch.inf, dtype=torch.float64)
        for ranked, counts in self._groups:
            index = chosen[ranked.groups, None]
            lowest_predicted = ranked.positive_scores.gather(1, index.clamp(min=0))
            num_predicted = counts.predicted.gather(1, index.clamp(min=0)).long()
            # Excluded entries come first, as -inf, below the scores that are not predicted.
            below = ranked.scores.gather(1, (ranked.scores.shape[1] - num_predicted - 1).clamp(min=0))
            threshold = midpoint(below, lowest_predicted, self._dtype)
            threshold = torch.where(num_predicted == ranked.entries, lowest_predicted.double(), threshold)
            thresholds[ranked.groups] = torch.where(index < 0, torch.inf, threshold).squeeze(1)
        return thresholds


class _CountedGroups(NamedTuple):
    ranked: RankedGroups
    counts: ThresholdCounts


def midpoint(lower: Tensor, upper: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the threshold halfway between two scores, representable in `dtype`, as float64.

    It is the upper score if `dtype` has no number strictly between the two, or the lower one is -inf.
    """
    lower, upper = lower.double(), upper.double()
    middle = (lower / 2 + upper / 2).to(dtype).double()
    return torch.where(middle > lower, middle, upper)
