"""Metrics of predicted labels, averaged over labels."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from mlmetric._docstrings import inherit_docs
from mlmetric.labels import LabelsLike
from mlmetric.metrics._bootstrap import supports_resample_weights
from mlmetric.metrics._confusion_counts import LabelCounts, count_labels
from mlmetric.metrics._inputs import TensorLike, check_choice, check_predictions, decide
from mlmetric.metrics._zero_division import fill_undefined, mean_of_defined

Average = Literal["macro", "micro", "weighted", "none"]


@supports_resample_weights
def precision(
    preds: TensorLike,
    target: LabelsLike,
    *,
    threshold: float | TensorLike | None = 0.5,
    top_k: int | None = None,
    average: Average = "macro",
    mask: TensorLike | None = None,
    sample_weight: TensorLike | None = None,
    zero_division: float = math.nan,
) -> Tensor:
    """Compute the precision: `TP / (TP + FP)`.

    1 is best, 0 worst. The precision of a label that is never predicted is undefined.

    Args:
        preds: Scores, shape `(N, L)`, any real dtype: a tensor, an array, a list of rows, a scipy sparse matrix or a
            data frame. With the default threshold, predicted labels (bool or 0 and 1) are also accepted.
        target: True labels, shape `(N, L)`, entries 0 and 1 of any dtype; a tensor, an array, a list of rows, a scipy
            sparse matrix or a data frame.
        threshold: A number, or one for each label, shape `(L,)`, rounded to the dtype of `preds`; a label is predicted
            where `preds >= threshold`. It must be on the scale of the scores: 0.5 suits probabilities, and 0 gives the
            same predictions from logits. The scale is never inferred from the values. With None, all labels are
            predicted unless `top_k` excludes them.
        top_k: Labels are predicted only if they reach the threshold and are among the k highest scores of the row;
            among labels tied for the last places, those with the lowest indices are predicted. `top_k=3` alone means
            "among the top 3 and at least 0.5", `top_k=3, threshold=None` means "the top 3 at any score". Papers call
            both "top 3".
        average: `"macro"`: mean over labels. `"weighted"`: mean over labels, weighted by the number of positives
            (undefined without positives). `"micro"`: from the counts summed over all labels. `"none"`: one value for
            each label.
        mask: Entries to include, bool `(N, L)`; all by default. Excluded entries, such as labels that were not
            annotated, may contain any value.
        sample_weight: Weight of each row, shape `(N,)`, finite and >= 0; equal weights by default.
        zero_division: Replacement for undefined values (0/0): nan, 0 or 1. Means exclude NaN; a mean over no values is
            undefined as well.

    Returns:
        float64, 0-d or `(L,)`, in [0, 1], on the device of `preds`.

    Raises:
        TypeError: If an argument does not contain real numbers.
        ValueError: If the shapes do not match, a score is NaN, an entry of `target` is neither 0 nor 1, `top_k` is not
            from 1 to L, a weight is negative or not finite, or another argument is none of the values above.

    Examples:
        >>> import torch
        >>> from mlmetric.metrics import precision
        >>> preds = torch.tensor([[0.9, 0.6, 0.1], [0.8, 0.2, 0.1], [0.3, 0.7, 0.2]])
        >>> target = torch.tensor([[1, 0, 0], [0, 0, 1], [1, 1, 0]])
        >>> precision(preds, target, average="none")  # the third label is never predicted
        tensor([0.5000, 0.5000,    nan], dtype=torch.float64)
        >>> precision(preds, target)
        tensor(0.5000, dtype=torch.float64)
    """
    counts = _count(preds, target, threshold, top_k, mask, sample_weight)
    return average_ratio(counts.true_positives, counts.predicted_positives, counts.support, average, zero_division)


@supports_resample_weights
@inherit_docs(precision)
def recall(
    preds: TensorLike,
    target: LabelsLike,
    *,
    threshold: float | TensorLike | None = 0.5,
    top_k: int | None = None,
    average: Average = "macro",
    mask: TensorLike | None = None,
    sample_weight: TensorLike | None = None,
    zero_division: float = math.nan,
) -> Tensor:
    """Compute the recall: `TP / (TP + FN)`.

    1 is best, 0 worst. The recall of a label without positives is undefined.

    Examples:
        >>> import torch
        >>> from mlmetric.metrics import recall
        >>> preds = torch.tensor([[0.9, 0.6, 0.1], [0.8, 0.2, 0.1], [0.3, 0.7, 0.2]])
        >>> target = torch.tensor([[1, 0, 0], [0, 0, 1], [1, 1, 0]])
        >>> recall(preds, target, average="none")
        tensor([0.5000, 1.0000, 0.0000], dtype=torch.float64)
    """
    counts = _count(preds, target, threshold, top_k, mask, sample_weight)
    return average_ratio(counts.true_positives, counts.support, counts.support, average, zero_division)


@supports_resample_weights
@inherit_docs(precision)
def f1(
    preds: TensorLike,
    target: LabelsLike,
    *,
    threshold: float | TensorLike | None = 0.5,
    top_k: int | None = None,
    average: Average = "macro",
    mask: TensorLike | None = None,
    sample_weight: TensorLike | None = None,
    zero_division: float = math.nan,
) -> Tensor:
    """Compute F1, the harmonic mean of precision and recall: `2 TP / (2 TP + FP + FN)`.

    1 is best, 0 worst. The F1 of a label that has no positives and is never predicted is undefined; if only one of the
    two is true, F1 is 0. `average="macro"` is the mean of the F1 values of the labels. CF1, used in multi-label image
    recognition, is a different number: see `cf1`.

    Examples:
        >>> import torch
        >>> from mlmetric.metrics import f1
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
    return average_ratio(
        2 * counts.true_positives, counts.predicted_positives + counts.support, counts.support, average, zero_division
    )


@supports_resample_weights
@inherit_docs(precision)
def cf1(
    preds: TensorLike,
    target: LabelsLike,
    *,
    threshold: float | TensorLike | None = 0.5,
    top_k: int | None = None,
    mask: TensorLike | None = None,
    sample_weight: TensorLike | None = None,
    zero_division: float = math.nan,
) -> Tensor:
    """Compute CF1, the harmonic mean of macro precision (CP) and macro recall (CR), as ML-GCN reports it.

    1 is best, 0 worst; it is 0 if both means are 0. CF1 differs from macro F1, the mean of the F1 of the labels. By
    default, labels that are never predicted are excluded from CP, and labels without positives from CR.

    Returns:
        float64, 0-d, in [0, 1], on the device of `preds`.

    Examples:
        >>> import torch
        >>> from mlmetric.metrics import cf1
        >>> preds = torch.tensor([[0.9, 0.6], [0.8, 0.2], [0.3, 0.7]])
        >>> target = torch.tensor([[1, 0], [0, 0], [1, 1]])
        >>> cf1(preds, target)  # CP = (1/2 + 1/2) / 2, CR = (1/2 + 1) / 2
        tensor(0.6000, dtype=torch.float64)

    Source:
        Chen et al., "Multi-label image recognition with graph convolutional networks", CVPR 2019, section 4.1. The
        authors' code counts the precision of a label that is never predicted as 0, as `zero_division=0` does.
    """
    counts = _count(preds, target, threshold, top_k, mask, sample_weight)
    true_positives, predicted_positives, support = counts
    return harmonic_mean(
        average_ratio(true_positives, predicted_positives, support, "macro", zero_division),
        average_ratio(true_positives, support, support, "macro", zero_division),
    )


@supports_resample_weights
@inherit_docs(cf1)
def of1(
    preds: TensorLike,
    target: LabelsLike,
    *,
    threshold: float | TensorLike | None = 0.5,
    top_k: int | None = None,
    mask: TensorLike | None = None,
    sample_weight: TensorLike | None = None,
    zero_division: float = math.nan,
) -> Tensor:
    """Compute OF1, the F1 over all entries of the matrix: micro F1, or "overall F1" in multi-label image recognition.

    1 is best, 0 worst.

    Examples:
        >>> import torch
        >>> from mlmetric.metrics import of1
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


def average_ratio(
    numerator: Tensor, denominator: Tensor, support: Tensor, average: Average, zero_division: float
) -> Tensor:
    """Divide the counts of each label, shape `(L,)` or `(B, L)`, and average the ratios according to `average`."""
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
    """Return the harmonic mean of two numbers, 0 where both are 0."""
    total = precision + recall
    return torch.where(total == 0, 0.0, 2 * precision * recall / total)


def _count(
    preds: TensorLike,
    target: LabelsLike,
    threshold: float | TensorLike | None,
    top_k: int | None,
    mask: TensorLike | None,
    sample_weight: TensorLike | None,
) -> LabelCounts:
    predictions = check_predictions(preds, target, mask, sample_weight)
    return count_labels(predictions, decide(predictions, threshold, top_k))
