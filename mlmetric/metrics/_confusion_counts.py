"""Counts of decisions, by label and by row."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mlmetric.metrics._checks import count_true
from mlmetric.metrics._inputs import Predictions


class LabelCounts(NamedTuple):
    """Per label, float64 `(L,)`, or `(B, L)` for B weightings: true positives, predicted rows, positive rows."""

    hits: Tensor
    predicted: Tensor
    support: Tensor


class RowCounts(NamedTuple):
    """Per row, float64 `(N,)`: true positives, predicted labels, positive labels, entries that count."""

    hits: Tensor
    predicted: Tensor
    support: Tensor
    entries: Tensor

    @property
    def right(self) -> Tensor:
        """Entries decided as they are."""
        return self.entries - self.predicted - self.support + 2 * self.hits


def count_labels(predictions: Predictions, decided: Tensor) -> LabelCounts:
    """Count each label's rows; `decided` is bool `(N, L)`."""
    masks = (decided & predictions.target, decided, predictions.target)
    if predictions.weight is None:
        return LabelCounts(*(count_true(mask, dim=0).double() for mask in masks))
    return LabelCounts(*(predictions.weight @ mask.double() for mask in masks))


def count_rows(predictions: Predictions, decided: Tensor) -> RowCounts:
    """Count each row's labels; `decided` is bool `(N, L)`."""
    masks = (decided & predictions.target, decided, predictions.target)
    hits, predicted, support = (count_true(mask, dim=1).double() for mask in masks)
    every = torch.full_like(hits, decided.shape[1])
    return RowCounts(
        hits, predicted, support, every if predictions.mask is None else count_true(predictions.mask, dim=1).double()
    )
