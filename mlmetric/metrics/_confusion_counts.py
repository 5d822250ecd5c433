"""Confusion counts for each label and for each row."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mlmetric.metrics._inputs import Predictions, count_true


class LabelCounts(NamedTuple):
    """Counts of rows for each label: float64 `(L,)`, or `(B, L)` for B resamples.

    Attributes:
        true_positives: Rows for which the label is predicted and true.
        predicted_positives: Rows for which the label is predicted.
        support: Rows for which the label is true.
    """

    true_positives: Tensor
    predicted_positives: Tensor
    support: Tensor


class RowCounts(NamedTuple):
    """Counts of labels for each row: float64 `(N,)`.

    Attributes:
        true_positives: Labels that are predicted and true.
        predicted_positives: Labels that are predicted.
        support: Labels that are true.
        entries: Labels that the mask includes.
    """

    true_positives: Tensor
    predicted_positives: Tensor
    support: Tensor
    entries: Tensor

    @property
    def correct(self) -> Tensor:
        """True positives and true negatives."""
        return self.entries - self.predicted_positives - self.support + 2 * self.true_positives


def count_labels(predictions: Predictions, predicted: Tensor) -> LabelCounts:
    """Count the rows of each label; `predicted` is bool `(N, L)`."""
    masks = (predicted & predictions.target, predicted, predictions.target)
    if predictions.weight is None:
        return LabelCounts(*(count_true(mask, dim=0).double() for mask in masks))
    return LabelCounts(*(predictions.weight @ mask.double() for mask in masks))


def count_rows(predictions: Predictions, predicted: Tensor) -> RowCounts:
    """Count the labels of each row; `predicted` is bool `(N, L)`."""
    masks = (predicted & predictions.target, predicted, predictions.target)
    true_positives, predicted_positives, support = (count_true(mask, dim=1).double() for mask in masks)
    if predictions.mask is None:
        entries = torch.full_like(true_positives, predicted.shape[1])
    else:
        entries = count_true(predictions.mask, dim=1).double()
    return RowCounts(true_positives, predicted_positives, support, entries)
