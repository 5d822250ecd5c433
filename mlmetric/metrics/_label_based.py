"""How right the decisions `preds >= threshold` are, label by label."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from mlmetric.metrics._bootstrap import weighable
from mlmetric.metrics._checks import TensorLike, check_choice
from mlmetric.metrics._confusion_counts import LabelCounts, count_labels
from mlmetric.metrics._inputs import check_predictions, decide
from mlmetric.metrics._zero_division import fill_undefined, mean_of_defined

Average = Literal["macro", "micro", "weighted", "none"]


@weighable
def precision(
    preds: TensorLike,
    target: TensorLike,
    *,
    threshold: float | TensorLike | None = 0.5,
    top_k: int | None = None,
    average: Average = "macro",
    mask: TensorLike | None = None,
    sample_weight: TensorLike | None = None,
    zero_division: float = math.nan,
) -> Tensor:
    """Divide the true positives by what was predicted: `TP / (TP + FP)`.

    1 is best, 0 worst. A label that is never predicted is undefined.

    Args:
        preds: Scores, shape `(N, L)`, any real dtype; a matrix of decisions (bool, 0/1) with the default threshold.
        target: Truth, shape `(N, L)`, hard multi-hot: bool, or the numbers 0 and 1.
        threshold: A label is predicted where `preds >= threshold`: a number, or one a label `(L,)`, rounded to the
            dtype of `preds`. Scores and threshold must be on the same scale: 0.5 suits probabilities; for logits
            the same decision is 0. Nothing is inferred from the values. None: everywhere, which leaves it to `top_k`.
        top_k: Of what passes the threshold, only labels among the k highest scores of their row are predicted; of
            labels that tie for the last place those of the lowest index. `top_k=3` alone is "top 3 and at least
            0.5"; `top_k=3, threshold=None` is "the top 3 whatever they score": papers report both as "top 3".
        average: `"macro"`: mean over labels. `"weighted"`: mean weighted by the number of positives.
            `"micro"`: over all entries of the matrix as one. `"none"`: each label.
        mask: Entries that count, bool `(N, L)`; all by default. The others, labels not annotated, may hold anything.
        sample_weight: Weight of each row, `(N,)`; all equal by default. `(B, N)` takes B weightings at once and
            gives a result for each.
        zero_division: What 0/0 gets: nan (left out of the mean), 0 or 1. A mean over nothing, or with no positives
            to weigh by, is undefined in the same way.

    Returns:
        float64, 0-d or `(L,)`, in [0, 1], on the device of `preds`; with B weightings `(B,)` or `(B, L)`.

    Raises:
        TypeError: If an argument does not hold real numbers.
        ValueError: If a shape does not fit, a score is NaN, `target` is soft, `top_k` is not from 1 to L, a weight is
            negative, or `average` or `zero_division` is none of these.

    Examples:
        >>> preds = torch.tensor([[0.9, 0.6, 0.1], [0.8, 0.2, 0.1], [0.3, 0.7, 0.2]])
        >>> target = torch.tensor([[1, 0, 0], [0, 0, 1], [1, 1, 0]])
        >>> precision(preds, target, average="none")  # the third label is never predicted
        tensor([0.5000, 0.5000,    nan], dtype=torch.float64)
        >>> precision(preds, target)
        tensor(0.5000, dtype=torch.float64)
    """
    counts = _count(preds, target, threshold, top_k, mask, sample_weight)
    return averaged(counts.hits, counts.predicted, counts.support, average, zero_division)


@weighable
def recall(
    preds: TensorLike,
    target: TensorLike,
    *,
    threshold: float | TensorLike | None = 0.5,
    top_k: int | None = None,
    average: Average = "macro",
    mask: TensorLike | None = None,
    sample_weight: TensorLike | None = None,
    zero_division: float = math.nan,
) -> Tensor:
    """Divide the true positives by the positives: `TP / (TP + FN)`.

    1 is best, 0 worst. A label without positives is undefined. Arguments, result and errors are those of
    `precision`.

    Examples:
        >>> preds = torch.tensor([[0.9, 0.6, 0.1], [0.8, 0.2, 0.1], [0.3, 0.7, 0.2]])
        >>> target = torch.tensor([[1, 0, 0], [0, 0, 1], [1, 1, 0]])
        >>> recall(preds, target, average="none")
        tensor([0.5000, 1.0000, 0.0000], dtype=torch.float64)
    """
    counts = _count(preds, target, threshold, top_k, mask, sample_weight)
    return averaged(counts.hits, counts.support, counts.support, average, zero_division)


@weighable
def f1(
    preds: TensorLike,
    target: TensorLike,
    *,
    threshold: float | TensorLike | None = 0.5,
    top_k: int | None = None,
    average: Average = "macro",
    mask: TensorLike | None = None,
    sample_weight: TensorLike | None = None,
    zero_division: float = math.nan,
) -> Tensor:
    """Take the harmonic mean of precision and recall: `2 TP / (2 TP + FP + FN)`.

    1 is best, 0 worst. A label without positives that is never predicted is undefined; either alone gives 0.
    Arguments, result and errors are those of `precision`. `average="macro"` is the mean of the labels' F1; the CF1
    of multi-label image recognition is another number, `cf1`.

    Examples:
        >>> preds = torch.tensor([[0.9, 0.6, 0.1], [0.8, 0.2, 0.1], [0.3, 0.7, 0.2]])
        >>> target = torch.tensor([[1, 0, 0], [0, 0, 0], [1, 1, 0]])
        >>> f1(preds, target, average="none")
        tensor([0.5000, 0.6667,    nan], dtype=torch.float64)
        >>> f1(preds, target)
        tensor(0.5833, dtype=torch.float64)
        >>> f1(preds, target, zero_division=0)
        tensor(0.3889, dtype=torch.float64)
    """
    counts = _count(preds, target, threshold, top_k, mask, sample_weight)
    return averaged(2 * counts.hits, counts.predicted + counts.support, counts.support, average, zero_division)


@weighable
def cf1(
    preds: TensorLike,
    target: TensorLike,
    *,
    threshold: float | TensorLike | None = 0.5,
    top_k: int | None = None,
    mask: TensorLike | None = None,
    sample_weight: TensorLike | None = None,
    zero_division: float = math.nan,
) -> Tensor:
    """Take the harmonic mean of macro precision (CP) and macro recall (CR): per-class F1 as ML-GCN reports it.

    1 is best, 0 worst; 0 if both means are 0. This is not macro F1, the mean of the labels' F1. A label that is never
    predicted is left out of CP, one without positives out of CR, unless `zero_division` says otherwise.
    Arguments, result (0-d) and errors are those of `precision`.

    Examples:
        >>> preds = torch.tensor([[0.9, 0.6], [0.8, 0.2], [0.3, 0.7]])
        >>> target = torch.tensor([[1, 0], [0, 0], [1, 1]])
        >>> cf1(preds, target)  # CP = (1/2 + 1/2) / 2, CR = (1/2 + 1) / 2
        tensor(0.6000, dtype=torch.float64)

    Source:
        Chen et al., "Multi-label image recognition with graph convolutional networks", CVPR 2019, section 4.1. The
        authors' code counts a label that is never predicted as precision 0: `zero_division=0`.
    """
    counts = _count(preds, target, threshold, top_k, mask, sample_weight)
    return harmonic_mean(
        averaged(counts.hits, counts.predicted, counts.support, "macro", zero_division),
        averaged(counts.hits, counts.support, counts.support, "macro", zero_division),
    )


@weighable
def of1(
    preds: TensorLike,
    target: TensorLike,
    *,
    threshold: float | TensorLike | None = 0.5,
    top_k: int | None = None,
    mask: TensorLike | None = None,
    sample_weight: TensorLike | None = None,
    zero_division: float = math.nan,
) -> Tensor:
    """Take F1 over all entries of the matrix (micro F1): "overall" F1 in multi-label image recognition.

    1 is best, 0 worst. Arguments, result (0-d) and errors are those of `precision`.

    Examples:
        >>> preds = torch.tensor([[0.9, 0.6], [0.8, 0.2], [0.3, 0.7]])
        >>> target = torch.tensor([[1, 0], [0, 0], [1, 1]])
        >>> of1(preds, target)
        tensor(0.5714, dtype=torch.float64)

    Source:
        Chen et al., "Multi-label image recognition with graph convolutional networks", CVPR 2019, section 4.1.
    """
    return f1(
        preds,
        target,
        threshold=threshold,
        top_k=top_k,
        average="micro",
        mask=mask,
        sample_weight=sample_weight,
        zero_division=zero_division,
    )


def averaged(numerator: Tensor, denominator: Tensor, support: Tensor, average: Average, zero_division: float) -> Tensor:
    """Divide label by label, `(L,)` or `(B, L)`, and average as `average` says."""
    check_choice(average, "average", Average)
    if average == "micro":
        return fill_undefined(numerator.sum(dim=-1) / denominator.sum(dim=-1), zero_division)
    values = numerator / denominator
    if average == "macro":
        return mean_of_defined(values, zero_division)
    values = fill_undefined(values, zero_division)
    if average == "none":
        return values
    weights = support * ~values.isnan()
    return fill_undefined((values.nan_to_num() * weights).sum(dim=-1) / weights.sum(dim=-1), zero_division)


def harmonic_mean(precision: Tensor, recall: Tensor) -> Tensor:
    """Take the harmonic mean of two numbers, 0 where both are."""
    total = precision + recall
    return torch.where(total == 0, 0.0, 2 * precision * recall / total)


def _count(
    preds: TensorLike,
    target: TensorLike,
    threshold: float | TensorLike | None,
    top_k: int | None,
    mask: TensorLike | None,
    sample_weight: TensorLike | None,
) -> LabelCounts:
    predictions = check_predictions(preds, target, mask, sample_weight)
    return count_labels(predictions, decide(predictions, threshold, top_k))
