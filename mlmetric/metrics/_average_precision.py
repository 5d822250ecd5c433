"""Average precision of the scores of each label, or of all entries."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from mlmetric._docstrings import inherit_docs
from mlmetric.labels import LabelsLike
from mlmetric.metrics._average_precision_kernels import (
    pooled_average_precision,
    weighted_label_precisions,
    weighted_pooled_precision,
)
from mlmetric.metrics._bootstrap import supports_resample_weights
from mlmetric.metrics._inputs import Predictions, TensorLike, check_choice, check_predictions
from mlmetric.metrics._ranked_groups import RankedGroups, map_groups
from mlmetric.metrics._zero_division import fill_undefined, mean_of_defined

Average = Literal["macro", "micro"]
Interpolation = Literal["none", "voc2007", "voc2010"]


@supports_resample_weights
def average_precision(
    preds: TensorLike,
    target: LabelsLike,
    *,
    interpolation: Interpolation = "none",
    mask: TensorLike | None = None,
    sample_weight: TensorLike | None = None,
    zero_division: float = math.nan,
) -> Tensor:
    """Compute the average precision (AP) of each label.

    `AP_c = (1/P_c) sum over positives i of #{positives j: s_j >= s_i} / #{j: s_j >= s_i}`. 1 is best: every positive
    has a higher score than every negative. Tied rows are retrieved together, so the result does not depend on the
    order of the rows; if all scores are tied, AP is the share of positives. The AP of a label without positives is
    undefined.

    Args:
        preds: Scores, shape `(N, L)`, any real dtype and scale (logits or probabilities), infinities allowed: a
            tensor, an array, a list of rows, a scipy sparse matrix or a data frame. They are ranked without
            transformation; integers are converted to float64.
        target: True labels, shape `(N, L)`, entries 0 and 1 of any dtype; a tensor, an array, a list of rows, a scipy
            sparse matrix or a data frame.
        interpolation: `"none"`: the formula above, used by scikit-learn and in papers on COCO. The development kits of
            Pascal VOC replace the precision at each recall by the highest precision at that recall or above:
            `"voc2010"` at the recalls of all positives, never lower than `"none"`; `"voc2007"` at the recalls 0, 0.1,
            ..., 1 only.
        mask: Entries to include, bool `(N, L)`; all by default. Excluded entries, such as labels that were not
            annotated, may contain any value and are not ranked.
        sample_weight: Weight of each row, shape `(N,)`, finite and >= 0; equal weights by default. Supported with
            `interpolation="none"` only.
        zero_division: Replacement for undefined values (0/0): nan, 0 (as in scikit-learn) or 1.

    Returns:
        float64, shape `(L,)`, in [0, 1], on the device of `preds`.

    Raises:
        TypeError: If an argument does not contain real numbers.
        ValueError: If the shapes do not match, a score is NaN, an entry of `target` is neither 0 nor 1, a weight is
            negative or not finite, `sample_weight` is passed with an interpolation, or another argument is none of
            the values above.

    Examples:
        >>> import torch
        >>> from mlmetric.metrics import average_precision
        >>> preds = torch.tensor([[0.9, 0.4], [0.8, 0.4], [0.7, 0.1]])
        >>> target = torch.tensor([[1, 0], [0, 1], [1, 0]])
        >>> average_precision(preds, target)
        tensor([0.8333, 0.5000], dtype=torch.float64)

    Source:
        Equal to scikit-learn's `average_precision_score(average=None)`, except for `zero_division`. Interpolations:
        Everingham et al., "The Pascal Visual Object Classes challenge: a retrospective", IJCV 111, 2015.
    """
    predictions = check_predictions(preds, target, mask, sample_weight)
    return fill_undefined(label_precisions(predictions, interpolation), zero_division)


@supports_resample_weights
@inherit_docs(average_precision)
def mean_average_precision(  # noqa: D417
    preds: TensorLike,
    target: LabelsLike,
    *,
    average: Average = "macro",
    interpolation: Interpolation = "none",
    mask: TensorLike | None = None,
    sample_weight: TensorLike | None = None,
    zero_division: float = math.nan,
) -> Tensor:
    """Compute the mean average precision (mAP) over labels, or the AP of all entries of the matrix.

    1 is best. By default, labels without positives are excluded from the macro mean; `average_precision` shows which
    labels these are.

    Args:
        average: `"macro"`: mean over labels. `"micro"`: the AP of all N * L entries as a single ranking, which compares
            scores of different labels with each other.
        zero_division: Replacement for an undefined AP (0/0), that is, of a label without positives or, with
            `average="micro"`, of a matrix without positives: nan (excluded from the mean), 0 (as in scikit-learn) or 1.

    Returns:
        float64, 0-d, in [0, 1], on the device of `preds`. NaN if there are no positives and `zero_division` is nan.

    Examples:
        >>> import torch
        >>> from mlmetric.metrics import mean_average_precision
        >>> preds = torch.tensor([[0.9, 0.4, 0.2], [0.8, 0.4, 0.3], [0.7, 0.1, 0.5]])
        >>> target = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 0, 0]])
        >>> mean_average_precision(preds, target)  # the third label has no positives
        tensor(0.6667, dtype=torch.float64)
        >>> mean_average_precision(preds, target, average="micro")
        tensor(0.7222, dtype=torch.float64)

    Source:
        Equal to scikit-learn's `average_precision_score`, except for `zero_division`.
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
    function = _PRECISIONS[interpolation]
    return map_groups(predictions.preds.T, predictions.target.T, mask, lambda ranked: (function(ranked),), 1)[0]


def pooled_precision(predictions: Predictions, interpolation: Interpolation = "none") -> Tensor:
    """Return the AP of all entries as a single ranking: float64, 0-d or `(B,)`, NaN without positives."""
    check_choice(interpolation, "interpolation", Interpolation)
    if predictions.weight is not None:
        _check_not_interpolated(interpolation)
        return weighted_pooled_precision(predictions, predictions.weight)
    if interpolation == "none":
        return pooled_average_precision(predictions.preds, predictions.target, predictions.mask)
    return label_precisions(predictions.pooled(), interpolation).squeeze(0)


def _check_not_interpolated(interpolation: Interpolation) -> None:
    if interpolation != "none":
        raise ValueError(f'`sample_weight` is supported with `interpolation="none"` only, got {interpolation!r}.')


def _non_interpolated(ranked: RankedGroups) -> Tensor:
    return _precision(ranked).sum(dim=1) / ranked.positives.squeeze(1)


def _all_points(ranked: RankedGroups) -> Tensor:
    highest = _precision(ranked).cummax(dim=1).values
    return (highest * ranked.valid).sum(dim=1) / ranked.positives.squeeze(1)


def _eleven_points(ranked: RankedGroups) -> Tensor:
    precision, true_positives = _precision(ranked), ranked.count_at_least()[1]
    # recall >= tenth / 10 is compared in integers, because 0.3 and 3 / 10 differ.
    points = [
        torch.where(10 * true_positives >= tenth * ranked.positives, precision, 0).amax(dim=1) for tenth in range(11)
    ]
    return torch.stack(points).mean(dim=0)


def _precision(ranked: RankedGroups) -> Tensor:
    retrieved, true_positives = ranked.count_at_least()
    return torch.where(ranked.valid, true_positives / retrieved, 0.0)


_PRECISIONS = {"none": _non_interpolated, "voc2007": _eleven_points, "voc2010": _all_points}
