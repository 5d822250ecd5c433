"""How far the decisions `preds >= threshold` agree with the truth, entry by entry and row by row."""

from __future__ import annotations

import torch
from torch import Tensor

from mlmetric.metrics._checks import TensorLike, decide
from mlmetric.metrics._counting import count_columns
from mlmetric.metrics._undefined import Empty, settle, settled_mean


def pooled_accuracy(
    preds: TensorLike, target: TensorLike, *, threshold: float | TensorLike = 0.5, empty: Empty = "nan"
) -> Tensor:
    """Divide the right decisions by all decisions: `sum(TP + TN) / (N L)` = 1 - Hamming loss.

    1 is best, 0 worst. With few labels a row it is high for a model that predicts nothing; rows that must be right
    as a whole are counted by `subset_accuracy`.

    Args:
        preds: Scores, shape `(N, L)`, any real dtype; a matrix of decisions (bool, 0/1) with the default threshold.
        target: Truth, shape `(N, L)`, hard multi-hot: bool, or the numbers 0 and 1.
        threshold: A label is predicted where `preds >= threshold`: a number, or one a label `(L,)`, rounded to the
            dtype of `preds`. Scores and threshold must be on the same scale: 0.5 suits probabilities; for logits
            the same decision is 0. Nothing is inferred from the values.
        empty: The result without rows: `"nan"`, `"zero"`, `"one"` or `"error"`.

    Returns:
        float64, 0-d, in [0, 1], on the device of `preds`.

    Raises:
        TypeError: If an argument does not hold real numbers.
        ValueError: If a shape does not fit, a score is NaN, `target` is soft, `empty` is none of these, or is
            `"error"` and something is undefined.

    Example:
        >>> preds = torch.tensor([[0.9, 0.6], [0.8, 0.2], [0.3, 0.7]])
        >>> target = torch.tensor([[1, 0], [1, 0], [1, 1]])
        >>> pooled_accuracy(preds, target)
        tensor(0.6667, dtype=torch.float64)
    """
    decided, truth = decide(preds, target, threshold)
    return settle(count_columns(decided == truth).sum() / truth.numel(), empty, "pooled_accuracy")


def hamming_loss(
    preds: TensorLike, target: TensorLike, *, threshold: float | TensorLike = 0.5, empty: Empty = "nan"
) -> Tensor:
    """Divide the wrong decisions by all decisions: 1 - pooled accuracy.

    0 is best, 1 worst. Arguments, result and errors are those of `pooled_accuracy`.

    Example:
        >>> preds = torch.tensor([[0.9, 0.6], [0.8, 0.2], [0.3, 0.7]])
        >>> target = torch.tensor([[1, 0], [1, 0], [1, 1]])
        >>> hamming_loss(preds, target)
        tensor(0.3333, dtype=torch.float64)
    """
    decided, truth = decide(preds, target, threshold)
    return settle(count_columns(decided != truth).sum() / truth.numel(), empty, "hamming_loss")


def subset_accuracy(
    preds: TensorLike, target: TensorLike, *, threshold: float | TensorLike = 0.5, empty: Empty = "nan"
) -> Tensor:
    """Count the share of rows whose labels are all right: exact match, scikit-learn's `accuracy_score`.

    1 is best, 0 worst. An all-zero row for which nothing is predicted is right. Arguments, result and errors are
    those of `pooled_accuracy`.

    Example:
        >>> preds = torch.tensor([[0.9, 0.6], [0.8, 0.2], [0.3, 0.7]])
        >>> target = torch.tensor([[1, 0], [1, 0], [1, 1]])
        >>> subset_accuracy(preds, target)
        tensor(0.3333, dtype=torch.float64)
    """
    decided, truth = decide(preds, target, threshold)
    return settled_mean((decided == truth).all(dim=1).to(torch.float64), empty, "subset_accuracy", unit="row")


def example_f1(
    preds: TensorLike, target: TensorLike, *, threshold: float | TensorLike = 0.5, empty: Empty = "nan"
) -> Tensor:
    """Average over the rows the F1 of each row's label set: `2 |p & y| / (|p| + |y|)`.

    1 is best, 0 worst. A row without labels for which nothing is predicted is undefined and left out by default; to
    count it as right, pass `empty="one"`. Arguments, result and errors are otherwise those of `pooled_accuracy`.

    Example:
        >>> preds = torch.tensor([[0.9, 0.6], [0.1, 0.2], [0.3, 0.7]])
        >>> target = torch.tensor([[1, 0], [0, 0], [1, 1]])
        >>> example_f1(preds, target)
        tensor(0.6667, dtype=torch.float64)
        >>> example_f1(preds, target, empty="one")
        tensor(0.7778, dtype=torch.float64)
    """
    decided, truth = decide(preds, target, threshold)
    decided, truth = decided.T, truth.T
    values = 2 * count_columns(decided & truth) / (count_columns(decided) + count_columns(truth))
    return settled_mean(values, empty, "example_f1", unit="row")
