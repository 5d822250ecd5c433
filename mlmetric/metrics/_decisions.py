"""How right the decisions `preds >= threshold` are, label by label."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from mlmetric.metrics._checks import TensorLike, check_choice, decide
from mlmetric.metrics._counting import count_columns
from mlmetric.metrics._undefined import Empty, settle, settled_mean

Average = Literal["macro", "micro", "weighted", "none"]


def precision(
    preds: TensorLike,
    target: TensorLike,
    *,
    threshold: float | TensorLike = 0.5,
    average: Average = "macro",
    empty: Empty = "nan",
) -> Tensor:
    """Divide the true positives by what was predicted: `TP / (TP + FP)`.

    1 is best, 0 worst. A label that is never predicted is undefined.

    Args:
        preds: Scores, shape `(N, L)`, any real dtype; a matrix of decisions (bool, 0/1) with the default threshold.
        target: Truth, shape `(N, L)`, hard multi-hot: bool, or the numbers 0 and 1.
        threshold: A label is predicted where `preds >= threshold`: a number, or one a label `(L,)`, rounded to the
            dtype of `preds`. Scores and threshold must be on the same scale: 0.5 suits probabilities; for logits
            the same decision is 0. Nothing is inferred from the values.
        average: `"macro"`: mean over labels. `"weighted"`: mean weighted by the number of positives.
            `"micro"`: over all entries of the matrix as one. `"none"`: each label.
        empty: What 0/0 gets: `"nan"` (left out of the mean), `"zero"` (as scikit-learn's `zero_division=0`), `"one"`
            or `"error"`. A mean over nothing, or with no positives to weigh by, is undefined in the same way.

    Returns:
        float64, 0-d or `(L,)`, in [0, 1], on the device of `preds`.

    Raises:
        TypeError: If an argument does not hold real numbers.
        ValueError: If a shape does not fit, a score is NaN, `target` is soft, `average` or `empty` is none of
            these, or `empty` is `"error"` and something is undefined.

    Example:
        >>> preds = torch.tensor([[0.9, 0.6, 0.1], [0.8, 0.2, 0.1], [0.3, 0.7, 0.2]])
        >>> target = torch.tensor([[1, 0, 0], [0, 0, 1], [1, 1, 0]])
        >>> precision(preds, target, average="none")  # the third label is never predicted
        tensor([0.5000, 0.5000,    nan], dtype=torch.float64)
        >>> precision(preds, target)
        tensor(0.5000, dtype=torch.float64)
    """
    counts = _count(preds, target, threshold)
    return counts.score(counts.hits, counts.predicted, average, empty, "precision")


def recall(
    preds: TensorLike,
    target: TensorLike,
    *,
    threshold: float | TensorLike = 0.5,
    average: Average = "macro",
    empty: Empty = "nan",
) -> Tensor:
    """Divide the true positives by the positives: `TP / (TP + FN)`.

    1 is best, 0 worst. A label without positives is undefined. Arguments, result and errors are those of
    `precision`.

    Example:
        >>> preds = torch.tensor([[0.9, 0.6, 0.1], [0.8, 0.2, 0.1], [0.3, 0.7, 0.2]])
        >>> target = torch.tensor([[1, 0, 0], [0, 0, 1], [1, 1, 0]])
        >>> recall(preds, target, average="none")
        tensor([0.5000, 1.0000, 0.0000], dtype=torch.float64)
    """
    counts = _count(preds, target, threshold)
    return counts.score(counts.hits, counts.support, average, empty, "recall")


def f1(
    preds: TensorLike,
    target: TensorLike,
    *,
    threshold: float | TensorLike = 0.5,
    average: Average = "macro",
    empty: Empty = "nan",
) -> Tensor:
    """Take the harmonic mean of precision and recall: `2 TP / (2 TP + FP + FN)`.

    1 is best, 0 worst. A label without positives that is never predicted is undefined; either alone gives 0.
    Arguments, result and errors are those of `precision`. `average="macro"` is the mean of the labels' F1; the CF1
    of multi-label image recognition is another number, `cf1`.

    Example:
        >>> preds = torch.tensor([[0.9, 0.6, 0.1], [0.8, 0.2, 0.1], [0.3, 0.7, 0.2]])
        >>> target = torch.tensor([[1, 0, 0], [0, 0, 0], [1, 1, 0]])
        >>> f1(preds, target, average="none")
        tensor([0.5000, 0.6667,    nan], dtype=torch.float64)
        >>> f1(preds, target)
        tensor(0.5833, dtype=torch.float64)
        >>> f1(preds, target, empty="zero")
        tensor(0.3889, dtype=torch.float64)
    """
    counts = _count(preds, target, threshold)
    return counts.score(2 * counts.hits, counts.predicted + counts.support, average, empty, "f1")


def cf1(preds: TensorLike, target: TensorLike, *, threshold: float | TensorLike = 0.5, empty: Empty = "nan") -> Tensor:
    """Take the harmonic mean of macro precision (CP) and macro recall (CR): per-class F1 as ML-GCN reports it.

    1 is best, 0 worst; 0 if both means are 0. This is not macro F1, the mean of the labels' F1. A label that is never
    predicted is left out of CP, one without positives out of CR, unless `empty` says otherwise.
    Arguments, result (0-d) and errors are those of `precision`.

    Example:
        >>> preds = torch.tensor([[0.9, 0.6], [0.8, 0.2], [0.3, 0.7]])
        >>> target = torch.tensor([[1, 0], [0, 0], [1, 1]])
        >>> cf1(preds, target)  # CP = (1/2 + 1/2) / 2, CR = (1/2 + 1) / 2
        tensor(0.6000, dtype=torch.float64)

    Source:
        Chen et al., "Multi-label image recognition with graph convolutional networks", CVPR 2019, section 4.1. The
        authors' code counts a label that is never predicted as precision 0: `empty="zero"`.
    """
    counts = _count(preds, target, threshold)
    mean_precision = counts.score(counts.hits, counts.predicted, "macro", empty, "cf1")
    mean_recall = counts.score(counts.hits, counts.support, "macro", empty, "cf1")
    total = mean_precision + mean_recall
    return torch.where(total == 0, 0.0, 2 * mean_precision * mean_recall / total)


def of1(preds: TensorLike, target: TensorLike, *, threshold: float | TensorLike = 0.5, empty: Empty = "nan") -> Tensor:
    """Take F1 over all entries of the matrix (micro F1): "overall" F1 in multi-label image recognition.

    1 is best, 0 worst. Arguments, result (0-d) and errors are those of `precision`.

    Example:
        >>> preds = torch.tensor([[0.9, 0.6], [0.8, 0.2], [0.3, 0.7]])
        >>> target = torch.tensor([[1, 0], [0, 0], [1, 1]])
        >>> of1(preds, target)
        tensor(0.5714, dtype=torch.float64)

    Source:
        Chen et al., "Multi-label image recognition with graph convolutional networks", CVPR 2019, section 4.1.
    """
    return f1(preds, target, threshold=threshold, average="micro", empty=empty)


class _LabelCounts(NamedTuple):
    """Per label, float64 `(L,)`: true positives, predicted rows, positive rows."""

    hits: Tensor
    predicted: Tensor
    support: Tensor

    def score(self, numerator: Tensor, denominator: Tensor, average: Average, empty: Empty, name: str) -> Tensor:
        check_choice(average, "average", Average)
        if average == "micro":
            return settle(numerator.sum() / denominator.sum(), empty, name)
        values = numerator / denominator
        if average == "macro":
            return settled_mean(values, empty, name)
        values = settle(values, empty, name)
        if average == "none":
            return values
        weights = self.support * ~values.isnan()
        return settle((values.nan_to_num() * weights).sum() / weights.sum(), empty, name)


def _count(preds: TensorLike, target: TensorLike, threshold: float | TensorLike) -> _LabelCounts:
    decided, truth = decide(preds, target, threshold)
    return _LabelCounts(count_columns(decided & truth), count_columns(decided), count_columns(truth))
