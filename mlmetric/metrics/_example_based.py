"""Metrics of predicted labels, averaged over entries or rows."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mlmetric._docstrings import inherit_docs
from mlmetric.labels import LabelsLike
from mlmetric.metrics._bootstrap import supports_resample_weights
from mlmetric.metrics._confusion_counts import RowCounts, count_rows
from mlmetric.metrics._inputs import Predictions, TensorLike, check_predictions, decide
from mlmetric.metrics._label_based import of1
from mlmetric.metrics._zero_division import fill_undefined, mean_of_defined


@supports_resample_weights
@inherit_docs(of1)
def pooled_accuracy(
    preds: TensorLike,
    target: LabelsLike,
    *,
    threshold: float | TensorLike | None = 0.5,
    top_k: int | None = None,
    mask: TensorLike | None = None,
    sample_weight: TensorLike | None = None,
    zero_division: float = math.nan,
) -> Tensor:
    """Compute the share of correct entries: `(TP + TN) / (N L)`, which is 1 - Hamming loss.

    1 is best, 0 worst. Where rows have few labels, a model that predicts no labels has a high pooled accuracy.
    `subset_accuracy` counts the rows that are correct in all labels. Without rows it is undefined.

    Examples:
        >>> import torch
        >>> from mlmetric.metrics import pooled_accuracy
        >>> preds = torch.tensor([[0.9, 0.6], [0.8, 0.2], [0.3, 0.7]])
        >>> target = torch.tensor([[1, 0], [1, 0], [1, 1]])
        >>> pooled_accuracy(preds, target)
        tensor(0.6667, dtype=torch.float64)
    """
    predictions, counts = _count(preds, target, threshold, top_k, mask, sample_weight)
    return fill_undefined(1 - _error_rate(counts, predictions.weight), zero_division)


@supports_resample_weights
@inherit_docs(of1)
def hamming_loss(
    preds: TensorLike,
    target: LabelsLike,
    *,
    threshold: float | TensorLike | None = 0.5,
    top_k: int | None = None,
    mask: TensorLike | None = None,
    sample_weight: TensorLike | None = None,
    zero_division: float = math.nan,
) -> Tensor:
    """Compute the share of wrong entries: `(FP + FN) / (N L)`.

    0 is best, 1 worst. Without rows it is undefined.

    Examples:
        >>> import torch
        >>> from mlmetric.metrics import hamming_loss
        >>> preds = torch.tensor([[0.9, 0.6], [0.8, 0.2], [0.3, 0.7]])
        >>> target = torch.tensor([[1, 0], [1, 0], [1, 1]])
        >>> hamming_loss(preds, target)
        tensor(0.3333, dtype=torch.float64)
    """
    predictions, counts = _count(preds, target, threshold, top_k, mask, sample_weight)
    return fill_undefined(_error_rate(counts, predictions.weight), zero_division)


@supports_resample_weights
@inherit_docs(of1)
def subset_accuracy(
    preds: TensorLike,
    target: LabelsLike,
    *,
    threshold: float | TensorLike | None = 0.5,
    top_k: int | None = None,
    mask: TensorLike | None = None,
    sample_weight: TensorLike | None = None,
    zero_division: float = math.nan,
) -> Tensor:
    """Compute the share of rows whose labels are all correct (exact match, scikit-learn's `accuracy_score`).

    1 is best, 0 worst. A row without true or predicted labels is correct. A row with all entries excluded by `mask` is
    undefined.

    Examples:
        >>> import torch
        >>> from mlmetric.metrics import subset_accuracy
        >>> preds = torch.tensor([[0.9, 0.6], [0.8, 0.2], [0.3, 0.7]])
        >>> target = torch.tensor([[1, 0], [1, 0], [1, 1]])
        >>> subset_accuracy(preds, target)
        tensor(0.3333, dtype=torch.float64)
    """
    predictions, counts = _count(preds, target, threshold, top_k, mask, sample_weight)
    return mean_of_defined(exact_matches(counts), zero_division, weight=predictions.weight)


@supports_resample_weights
@inherit_docs(subset_accuracy)
def example_f1(
    preds: TensorLike,
    target: LabelsLike,
    *,
    threshold: float | TensorLike | None = 0.5,
    top_k: int | None = None,
    mask: TensorLike | None = None,
    sample_weight: TensorLike | None = None,
    zero_division: float = math.nan,
) -> Tensor:
    """Compute the F1 of each row's label set, averaged over rows: `2 |p & y| / (|p| + |y|)`.

    Here p is the set of predicted labels of a row, and y the set of its true labels. 1 is best, 0 worst. A row without
    true or predicted labels is undefined and excluded by default; `zero_division=1` counts it as correct.

    Examples:
        >>> import torch
        >>> from mlmetric.metrics import example_f1
        >>> preds = torch.tensor([[0.9, 0.6], [0.1, 0.2], [0.3, 0.7]])
        >>> target = torch.tensor([[1, 0], [0, 0], [1, 1]])
        >>> example_f1(preds, target)
        tensor(0.6667, dtype=torch.float64)
        >>> example_f1(preds, target, zero_division=1)
        tensor(0.7778, dtype=torch.float64)
    """
    predictions, counts = _count(preds, target, threshold, top_k, mask, sample_weight)
    return mean_of_defined(row_f1(counts), zero_division, weight=predictions.weight)


def pooled_ratio(values: Tensor, entries: Tensor, weight: Tensor | None) -> Tensor:
    """Divide the weighted sum of `values` by the weighted sum of `entries`, both float64 `(N,)`."""
    if weight is None:
        return values.sum() / entries.sum()
    return (weight @ values) / (weight @ entries)


def exact_matches(counts: RowCounts) -> Tensor:
    """Return 1 for rows with all labels correct and 0 for others, `(N,)`; NaN if the mask excludes the whole row."""
    return torch.where(counts.entries == 0, torch.nan, (counts.correct == counts.entries).double())


def row_f1(counts: RowCounts) -> Tensor:
    """Return the F1 of each row's label set, `(N,)`; NaN for rows without true or predicted labels."""
    return 2 * counts.true_positives / (counts.predicted_positives + counts.support)


def _count(
    preds: TensorLike,
    target: LabelsLike,
    threshold: float | TensorLike | None,
    top_k: int | None,
    mask: TensorLike | None,
    sample_weight: TensorLike | None,
) -> tuple[Predictions, RowCounts]:
    predictions = check_predictions(preds, target, mask, sample_weight)
    return predictions, count_rows(predictions, decide(predictions, threshold, top_k))


def _error_rate(counts: RowCounts, weight: Tensor | None) -> Tensor:
    return pooled_ratio(counts.entries - counts.correct, counts.entries, weight)
