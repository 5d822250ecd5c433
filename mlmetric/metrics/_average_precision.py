"""How well the scores of each label rank its positives."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from mlmetric.metrics._bootstrap import weighable
from mlmetric.metrics._checks import TensorLike, check_choice
from mlmetric.metrics._inputs import Predictions, check_predictions
from mlmetric.metrics._pooled_ranks import pooled_average_precision
from mlmetric.metrics._ranks import RankedGroups, rank_groups
from mlmetric.metrics._weighted_ranks import weighted_label_precisions, weighted_pooled_precision
from mlmetric.metrics._zero_division import fill_undefined, mean_of_defined

Average = Literal["macro", "micro"]
Interpolation = Literal["none", "voc2007", "voc2010"]


@weighable
def average_precision(
    preds: TensorLike,
    target: TensorLike,
    *,
    interpolation: Interpolation = "none",
    mask: TensorLike | None = None,
    sample_weight: TensorLike | None = None,
    zero_division: float = math.nan,
) -> Tensor:
    """Average the precision at each positive of a label: average precision (AP).

    `AP_c = (1/P_c) sum over positives i of #{positives j: s_j >= s_i} / #{j: s_j >= s_i}`. 1 is best: every positive
    scores higher than every negative. Tied rows are retrieved together, so the order of the rows does not matter;
    with all scores tied AP is the share of positives. A label without positives is undefined.

    Args:
        preds: Scores, shape `(N, L)`, any real dtype, any scale (logits or probabilities), infinities allowed. They
            are ranked as they are; integers are read as float64.
        target: Truth, shape `(N, L)`, hard multi-hot: bool, or the numbers 0 and 1.
        interpolation: `"none"`: the formula above, which COCO papers and scikit-learn use too. The development kits
            of Pascal VOC take, at each recall, the highest precision at that recall or above it: `"voc2010"` over
            all positives, never lower than `"none"`; `"voc2007"` at the recalls 0, 0.1, ..., 1 only.
        mask: Entries that count, bool `(N, L)`; all by default. The others, labels not annotated, may hold anything;
            each label is ranked among its own entries that count.
        sample_weight: Weight of each row, `(N,)`; all equal by default. `(B, N)` takes B weightings at once and
            gives a result for each. With `interpolation="none"` only.
        zero_division: What a label without positives gets: nan, 0 (as in scikit-learn) or 1.

    Returns:
        float64, shape `(L,)`, or `(B, L)` for B weightings, in [0, 1], on the device of `preds`.

    Raises:
        TypeError: If an argument does not hold real numbers.
        ValueError: If a shape does not fit, a score is NaN, `target` is soft, a weight is negative or comes with an
            interpolation, or another argument is none of the above.

    Examples:
        >>> preds = torch.tensor([[0.9, 0.4], [0.8, 0.4], [0.7, 0.1]])
        >>> target = torch.tensor([[1, 0], [0, 1], [1, 0]])
        >>> average_precision(preds, target)
        tensor([0.8333, 0.5000], dtype=torch.float64)

    Source:
        Equal to scikit-learn's `average_precision_score(average=None)`, but for `zero_division`. Everingham et al.,
        "The Pascal Visual Object Classes challenge: a retrospective", IJCV 111, 2015, for the interpolations.
    """
    predictions = check_predictions(preds, target, mask, sample_weight)
    return fill_undefined(label_precisions(predictions, interpolation), zero_division)


@weighable
def mean_average_precision(
    preds: TensorLike,
    target: TensorLike,
    *,
    average: Average = "macro",
    interpolation: Interpolation = "none",
    mask: TensorLike | None = None,
    sample_weight: TensorLike | None = None,
    zero_division: float = math.nan,
) -> Tensor:
    """Average the AP of the labels (mAP), or take one AP over all entries of the matrix.

    1 is best. Labels without positives are left out of the macro mean by default; `average_precision` shows which
    these are.

    Args:
        preds: Scores, shape `(N, L)`, any real dtype and scale.
        target: Truth, shape `(N, L)`, hard multi-hot.
        average: `"macro"`: the mean over labels. `"micro"`: the N * L entries as one ranking; that compares scores
            of different labels with each other.
        interpolation: As for `average_precision`.
        mask: As for `average_precision`.
        sample_weight: As for `average_precision`.
        zero_division: What a label (micro: a matrix) without positives gets: nan (left out of the mean), 0 (as
            in scikit-learn) or 1.

    Returns:
        float64, 0-d, or `(B,)` for B weightings, in [0, 1], on the device of `preds`. NaN if no label has positives
        and `zero_division` is nan.

    Raises:
        TypeError: If an argument does not hold real numbers.
        ValueError: As for `average_precision`, or if `average` is none of these.

    Examples:
        >>> preds = torch.tensor([[0.9, 0.4, 0.2], [0.8, 0.4, 0.3], [0.7, 0.1, 0.5]])
        >>> target = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 0, 0]])
        >>> mean_average_precision(preds, target)  # the third label has no positives
        tensor(0.6667, dtype=torch.float64)
        >>> mean_average_precision(preds, target, average="micro")
        tensor(0.7222, dtype=torch.float64)

    Source:
        Equal to scikit-learn's `average_precision_score`, but for `zero_division`.
    """
    check_choice(average, "average", Average)
    predictions = check_predictions(preds, target, mask, sample_weight)
    if average == "micro":
        return fill_undefined(pooled_precision(predictions, interpolation), zero_division)
    return mean_of_defined(label_precisions(predictions, interpolation), zero_division)


def label_precisions(predictions: Predictions, interpolation: Interpolation = "none") -> Tensor:
    """Return the AP of each label: float64 `(L,)` or `(B, L)`, NaN without positives."""
    check_choice(interpolation, "interpolation", Interpolation)
    if predictions.weight is not None:
        _check_not_interpolated(interpolation)
        return weighted_label_precisions(predictions, predictions.weight)
    mask = None if predictions.mask is None else predictions.mask.T
    judge = _PRECISIONS[interpolation]
    return rank_groups(predictions.preds.T, predictions.target.T, mask, lambda ranked: (judge(ranked),), 1)[0]


def pooled_precision(predictions: Predictions, interpolation: Interpolation = "none") -> Tensor:
    """Return the AP of all entries as one ranking: float64, 0-d or `(B,)`, NaN without positives."""
    check_choice(interpolation, "interpolation", Interpolation)
    if predictions.weight is not None:
        _check_not_interpolated(interpolation)
        return weighted_pooled_precision(predictions, predictions.weight)
    if interpolation == "none":
        return pooled_average_precision(predictions.preds, predictions.target, predictions.mask)
    return label_precisions(predictions.pooled(), interpolation).squeeze(0)


def _check_not_interpolated(interpolation: Interpolation) -> None:
    if interpolation != "none":
        raise ValueError(f'`sample_weight` goes with `interpolation="none"` only, got {interpolation!r}.')


def _non_interpolated(ranked: RankedGroups) -> Tensor:
    return _precision(ranked).sum(dim=1) / ranked.positives.squeeze(1)


def _all_points(ranked: RankedGroups) -> Tensor:
    highest = _precision(ranked).cummax(dim=1).values
    return (highest * ranked.valid).sum(dim=1) / ranked.positives.squeeze(1)


def _eleven_points(ranked: RankedGroups) -> Tensor:
    precision, hits = _precision(ranked), ranked.at_least()[1]
    # Recall hits / positives >= tenth / 10, in whole numbers: 0.3 and 3 / 10 differ.
    points = [torch.where(10 * hits >= tenth * ranked.positives, precision, 0).amax(dim=1) for tenth in range(11)]
    return torch.stack(points).mean(dim=0)


def _precision(ranked: RankedGroups) -> Tensor:
    retrieved, hits = ranked.at_least()
    return torch.where(ranked.valid, hits / retrieved, 0.0)


_PRECISIONS = {"none": _non_interpolated, "voc2007": _eleven_points, "voc2010": _all_points}
