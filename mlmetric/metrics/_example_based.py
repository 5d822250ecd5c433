"""How far the decisions `preds >= threshold` agree with the truth, entry by entry and row by row."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mlmetric.metrics._bootstrap import weighable
from mlmetric.metrics._checks import TensorLike
from mlmetric.metrics._confusion_counts import RowCounts, count_rows
from mlmetric.metrics._inputs import check_predictions, decide
from mlmetric.metrics._zero_division import fill_undefined, mean_of_defined


@weighable
def pooled_accuracy(
    preds: TensorLike,
    target: TensorLike,
    *,
    threshold: float | TensorLike | None = 0.5,
    top_k: int | None = None,
    mask: TensorLike | None = None,
    sample_weight: TensorLike | None = None,
    zero_division: float = math.nan,
) -> Tensor:
    """Divide the right decisions by all decisions: `sum(TP + TN) / (N L)` = 1 - Hamming loss.

    1 is best, 0 worst. With few labels a row it is high for a model that predicts nothing; rows that must be right
    as a whole are counted by `subset_accuracy`.

    Args:
        preds: Scores, shape `(N, L)`, any real dtype; a matrix of decisions (bool, 0/1) with the default threshold.
        target: Truth, shape `(N, L)`, hard multi-hot: bool, or the numbers 0 and 1.
        threshold: A label is predicted where `preds >= threshold`: a number, or one a label `(L,)`, rounded to the
            dtype of `preds`. Scores and threshold must be on the same scale: 0.5 suits probabilities; for logits
            the same decision is 0. Nothing is inferred from the values. None: everywhere, which leaves it to `top_k`.
        top_k: Of what passes the threshold, only labels among the k highest scores of their row are predicted; of
            labels that tie for the last place those of the lowest index. `top_k=3` alone is "top 3 and at least
            0.5"; `top_k=3, threshold=None` is "the top 3 whatever they score".
        mask: Entries that count, bool `(N, L)`; all by default. The others, labels not annotated, may hold anything.
        sample_weight: Weight of each row, `(N,)`; all equal by default. `(B, N)` takes B weightings at once and
            gives a result for each.
        zero_division: The result without rows: nan, 0 or 1.

    Returns:
        float64, 0-d, or `(B,)` for B weightings, in [0, 1], on the device of `preds`.

    Raises:
        TypeError: If an argument does not hold real numbers.
        ValueError: If a shape does not fit, a score is NaN, `target` is soft, `top_k` is not from 1 to L, a weight is
            negative, or `zero_division` is none of these.

    Examples:
        >>> preds = torch.tensor([[0.9, 0.6], [0.8, 0.2], [0.3, 0.7]])
        >>> target = torch.tensor([[1, 0], [1, 0], [1, 1]])
        >>> pooled_accuracy(preds, target)
        tensor(0.6667, dtype=torch.float64)
    """
    return fill_undefined(1 - _share_of_wrong(preds, target, threshold, top_k, mask, sample_weight), zero_division)


@weighable
def hamming_loss(
    preds: TensorLike,
    target: TensorLike,
    *,
    threshold: float | TensorLike | None = 0.5,
    top_k: int | None = None,
    mask: TensorLike | None = None,
    sample_weight: TensorLike | None = None,
    zero_division: float = math.nan,
) -> Tensor:
    """Divide the wrong decisions by all decisions: 1 - pooled accuracy.

    0 is best, 1 worst. Arguments, result and errors are those of `pooled_accuracy`.

    Examples:
        >>> preds = torch.tensor([[0.9, 0.6], [0.8, 0.2], [0.3, 0.7]])
        >>> target = torch.tensor([[1, 0], [1, 0], [1, 1]])
        >>> hamming_loss(preds, target)
        tensor(0.3333, dtype=torch.float64)
    """
    return fill_undefined(_share_of_wrong(preds, target, threshold, top_k, mask, sample_weight), zero_division)


@weighable
def subset_accuracy(
    preds: TensorLike,
    target: TensorLike,
    *,
    threshold: float | TensorLike | None = 0.5,
    top_k: int | None = None,
    mask: TensorLike | None = None,
    sample_weight: TensorLike | None = None,
    zero_division: float = math.nan,
) -> Tensor:
    """Count the share of rows whose labels are all right: exact match, scikit-learn's `accuracy_score`.

    1 is best, 0 worst. An all-zero row for which nothing is predicted is right, a row of which the
    mask leaves nothing undefined. Arguments, result and errors are
    those of `pooled_accuracy`.

    Examples:
        >>> preds = torch.tensor([[0.9, 0.6], [0.8, 0.2], [0.3, 0.7]])
        >>> target = torch.tensor([[1, 0], [1, 0], [1, 1]])
        >>> subset_accuracy(preds, target)
        tensor(0.3333, dtype=torch.float64)
    """
    predictions = check_predictions(preds, target, mask, sample_weight)
    values = exact_matches(count_rows(predictions, decide(predictions, threshold, top_k)))
    return mean_of_defined(values, zero_division, weight=predictions.weight)


@weighable
def example_f1(
    preds: TensorLike,
    target: TensorLike,
    *,
    threshold: float | TensorLike | None = 0.5,
    top_k: int | None = None,
    mask: TensorLike | None = None,
    sample_weight: TensorLike | None = None,
    zero_division: float = math.nan,
) -> Tensor:
    """Average over the rows the F1 of each row's label set: `2 |p & y| / (|p| + |y|)`.

    1 is best, 0 worst. A row without labels for which nothing is predicted is undefined and left out by default; to
    count it as right, pass `zero_division=1`. Arguments, result and errors are otherwise those of `pooled_accuracy`.

    Examples:
        >>> preds = torch.tensor([[0.9, 0.6], [0.1, 0.2], [0.3, 0.7]])
        >>> target = torch.tensor([[1, 0], [0, 0], [1, 1]])
        >>> example_f1(preds, target)
        tensor(0.6667, dtype=torch.float64)
        >>> example_f1(preds, target, zero_division=1)
        tensor(0.7778, dtype=torch.float64)
    """
    predictions = check_predictions(preds, target, mask, sample_weight)
    values = row_f1(count_rows(predictions, decide(predictions, threshold, top_k)))
    return mean_of_defined(values, zero_division, weight=predictions.weight)


def pooled(values: Tensor, entries: Tensor, weight: Tensor | None) -> Tensor:
    """Divide the sum of `values` by that of `entries`, both `(N,)`, float64, rows weighted."""
    if weight is None:
        return values.sum() / entries.sum()
    return (weight @ values) / (weight @ entries)


def exact_matches(counts: RowCounts) -> Tensor:
    """Mark with 1 the rows that are right as a whole, `(N,)`; NaN where nothing counts."""
    return torch.where(counts.entries == 0, torch.nan, (counts.right == counts.entries).double())


def row_f1(counts: RowCounts) -> Tensor:
    """Take the F1 of each row's label set, `(N,)`; NaN where nothing is predicted and nothing true."""
    return 2 * counts.hits / (counts.predicted + counts.support)


def _share_of_wrong(
    preds: TensorLike,
    target: TensorLike,
    threshold: float | TensorLike | None,
    top_k: int | None,
    mask: TensorLike | None,
    sample_weight: TensorLike | None,
) -> Tensor:
    predictions = check_predictions(preds, target, mask, sample_weight)
    counts = count_rows(predictions, decide(predictions, threshold, top_k))
    return pooled(counts.entries - counts.right, counts.entries, predictions.weight)
