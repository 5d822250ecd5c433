"""The decisions that a threshold can make: cuts at the scores of positives."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from mlmetric.metrics._inputs import Predictions
from mlmetric.metrics._ranks import RankedGroups, ranked_groups

Value = Callable[[Tensor, Tensor, Tensor], Tensor]
"""What cuts are worth: of true positives, accepted and positive rows, shapes `(G, P)`, `(G, P)` and `(G, 1)`."""


class _Run(NamedTuple):
    ranked: RankedGroups
    retrieved: Tensor
    hits: Tensor


class ThresholdCandidates:
    """The cuts of each label. One that adds no positive only lowers F1, so each lies at the score of a positive.

    A choice of cuts is int64 `(L,)`: the place of the lowest accepted positive among the label's positives in
    ascending order, or -1 to accept nothing.
    """

    def __init__(self, predictions: Predictions) -> None:
        mask = None if predictions.mask is None else predictions.mask.T
        self._dtype = predictions.preds.dtype
        self._support = predictions.target.sum()
        self._nothing = torch.full_like(predictions.target[:0].sum(dim=0), -1)
        self._runs = [
            _Run(ranked, *ranked.at_least())
            for ranked in ranked_groups(predictions.preds.T, predictions.target.T, mask)
        ]

    def best(self, value: Value, *, above: float) -> Tensor:
        """Choose for each label the cut that is worth most, of equals the highest; none where that is not `above`."""
        chosen = self._nothing.clone()
        for ranked, retrieved, hits in self._runs:
            worth = value(hits, retrieved, ranked.positives).masked_fill(~ranked.valid, -torch.inf)
            place = worth.shape[1] - 1 - worth.flip(1).argmax(dim=1)
            most = worth.gather(1, place[:, None]).squeeze(1)
            chosen[ranked.groups] = torch.where(most > above, place, -1)
        return chosen

    def pooled_f1(self, chosen: Tensor) -> tuple[float, float]:
        """Return F1 of all entries under a choice, as the whole numbers of a fraction."""
        hits = accepted = 0.0
        for run in self._runs:
            place = chosen[run.ranked.groups, None]
            hits += float(torch.where(place < 0, 0, run.hits.gather(1, place.clamp(min=0))).sum())
            accepted += float(torch.where(place < 0, 0, run.retrieved.gather(1, place.clamp(min=0))).sum())
        return 2 * hits, accepted + float(self._support)

    def thresholds(self, chosen: Tensor) -> Tensor:
        """Return the threshold of each label, float64 `(L,)`; +inf where nothing is accepted."""
        thresholds = chosen.new_full(chosen.shape, torch.inf, dtype=torch.float64)
        for ranked, retrieved, _ in self._runs:
            place = chosen[ranked.groups, None]
            accepted = ranked.needles.gather(1, place.clamp(min=0))
            num_accepted = retrieved.gather(1, place.clamp(min=0)).long()
            # Masked entries lie in front, as -inf: below the rejected ones.
            below = ranked.scores.gather(1, (ranked.scores.shape[1] - num_accepted - 1).clamp(min=0))
            cut = between(below, accepted, self._dtype)
            cut = torch.where(num_accepted == ranked.entries, accepted.double(), cut)
            thresholds[ranked.groups] = torch.where(place < 0, torch.inf, cut).squeeze(1)
        return thresholds


def f1_of_cuts(hits: Tensor, accepted: Tensor, positives: Tensor) -> Tensor:
    """Return the F1 of cuts."""
    return 2 * hits / (accepted + positives)


def best_common_cut(predictions: Predictions) -> Tensor:
    """Return the one threshold for all labels whose mean of the F1 of the labels with positives is highest: 0-d."""
    learnt = predictions.target.any(dim=0)
    scores, changes = [], []
    for label in learnt.nonzero().squeeze(1).tolist():
        counts = slice(None) if predictions.mask is None else predictions.mask[:, label]
        descending, order = predictions.preds[counts, label].sort(descending=True)
        hits = predictions.target[counts, label][order].cumsum(0).double()
        accepted = torch.arange(1, len(hits) + 1, dtype=torch.float64, device=hits.device)
        scores.append(descending)
        changes.append(f1_of_cuts(hits, accepted, hits[-1:]).diff(prepend=hits.new_zeros(1)))
    pooled, order = torch.cat(scores).sort(descending=True)
    # The sum of the labels' F1 after each entry; a cut lies behind the last entry of a score.
    sums = torch.cat(changes)[order].cumsum(0)
    distinct, tied = pooled.unique_consecutive(return_counts=True)  # type: ignore[no-untyped-call]
    sums = sums[tied.cumsum(0) - 1]
    # Sums that differ by rounding are equal.
    best = int((sums >= sums.max() - 1e-12 * len(scores)).int().argmax())
    accepted = distinct[best]
    return accepted.double() if best + 1 == len(distinct) else between(distinct[best + 1], accepted, accepted.dtype)


def between(rejected: Tensor, accepted: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a threshold in the middle of two scores, in the numbers of `dtype`: float64."""
    rejected, accepted = rejected.double(), accepted.double()
    # Between neighbouring numbers of the dtype, and from -inf, there is no middle.
    middle = (rejected / 2 + accepted / 2).to(dtype).double()
    return torch.where(middle > rejected, middle, accepted)
