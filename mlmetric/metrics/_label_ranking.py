"""Metrics of the ranking of each row's labels, averaged over rows."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from mlmetric._docstrings import inherit_docs
from mlmetric.labels import LabelsLike
from mlmetric.metrics._bootstrap import supports_resample_weights
from mlmetric.metrics._inputs import Predictions, TensorLike, check_choice, check_predictions, count_true
from mlmetric.metrics._ranked_groups import RankedGroups, map_groups
from mlmetric.metrics._zero_division import mean_of_defined

Ties = Literal["one", "half"]


@supports_resample_weights
def coverage_error(
    preds: TensorLike,
    target: LabelsLike,
    *,
    mask: TensorLike | None = None,
    sample_weight: TensorLike | None = None,
    zero_division: float = math.nan,
) -> Tensor:
    """Compute how many top-ranked labels are needed, on average over rows, to include all true labels.

    The best value of a row is its number of true labels, and the worst is L. Tied labels are counted together. A row
    without true labels is undefined. Zhang and Zhou and the Mulan library count one label fewer.

    Args:
        preds: Scores, shape `(N, L)`, any real dtype and scale, infinities allowed: a tensor, an array, a list of rows,
            a scipy sparse matrix or a data frame. They are ranked without transformation.
        target: True labels, shape `(N, L)`, entries 0 and 1 of any dtype; a tensor, an array, a list of rows, a scipy
            sparse matrix or a data frame.
        mask: Entries to include, bool `(N, L)`; all by default. Excluded entries, such as labels that were not
            annotated, may contain any value and are not ranked.
        sample_weight: Weight of each row, shape `(N,)`, finite and >= 0; equal weights by default.
        zero_division: Replacement for undefined rows: nan (excluded from the mean), 0 (as in scikit-learn) or 1. A mean
            over no rows is undefined as well.

    Returns:
        float64, 0-d, from 0 to L, on the device of `preds`.

    Raises:
        TypeError: If an argument does not contain real numbers.
        ValueError: If the shapes do not match, a score is NaN, an entry of `target` is neither 0 nor 1, a weight is
            negative or not finite, or another argument is none of the values above.

    Examples:
        >>> import torch
        >>> from mlmetric.metrics import coverage_error
        >>> preds = torch.tensor([[0.9, 0.6, 0.1], [0.2, 0.8, 0.5]])
        >>> target = torch.tensor([[1, 0, 0], [1, 0, 1]])
        >>> coverage_error(preds, target)  # 1 label, and all 3
        tensor(2., dtype=torch.float64)

    Source:
        Equal to scikit-learn's `coverage_error` with `zero_division=0`. Zhang and Zhou, "A review on multi-label
        learning algorithms", IEEE TKDE 26(8), 2014.
    """
    predictions = check_predictions(preds, target, mask, sample_weight)
    return mean_of_defined(label_rankings(predictions)[0], zero_division, weight=predictions.weight)


@supports_resample_weights
@inherit_docs(coverage_error, zero_division="0 (as in scikit-learn) or 1.=>0 or 1 (as in scikit-learn).")
def label_ranking_average_precision(
    preds: TensorLike,
    target: LabelsLike,
    *,
    mask: TensorLike | None = None,
    sample_weight: TensorLike | None = None,
    zero_division: float = math.nan,
) -> Tensor:
    """Compute the average precision of each row's labels, averaged over rows: label ranking average precision (LRAP).

    1 is best: in each row, every true label has a higher score than every other label. A row without true labels is
    undefined; `zero_division=1` counts it as 1, as scikit-learn does.

    Returns:
        float64, 0-d, in [0, 1], on the device of `preds`.

    Examples:
        >>> import torch
        >>> from mlmetric.metrics import label_ranking_average_precision
        >>> preds = torch.tensor([[0.9, 0.6, 0.1], [0.2, 0.8, 0.5]])
        >>> target = torch.tensor([[1, 0, 0], [1, 0, 1]])
        >>> label_ranking_average_precision(preds, target)  # 1, and (1/2 + 2/3) / 2
        tensor(0.7917, dtype=torch.float64)

    Source:
        Equal to scikit-learn's `label_ranking_average_precision_score` with `zero_division=1`. Zhang and Zhou, "A
        review on multi-label learning algorithms", IEEE TKDE 26(8), 2014, where it is called average precision.
    """
    predictions = check_predictions(preds, target, mask, sample_weight)
    return mean_of_defined(label_rankings(predictions)[1], zero_division, weight=predictions.weight)


@supports_resample_weights
@inherit_docs(coverage_error)
def ranking_loss(  # noqa: D417
    preds: TensorLike,
    target: LabelsLike,
    *,
    ties: Ties = "one",
    mask: TensorLike | None = None,
    sample_weight: TensorLike | None = None,
    zero_division: float = math.nan,
) -> Tensor:
    """Compute the share of pairs of a true and a false label that are ranked in the wrong order, averaged over rows.

    0 is best, 1 worst. A row without true labels or without false labels has no pairs and is undefined.

    Args:
        ties: Loss of a pair with equal scores: `"one"`, as in scikit-learn, or `"half"`, so that the loss of a row is
            1 - the area under its ROC curve.

    Returns:
        float64, 0-d, in [0, 1], on the device of `preds`.

    Examples:
        >>> import torch
        >>> from mlmetric.metrics import ranking_loss
        >>> preds = torch.tensor([[0.9, 0.6, 0.1], [0.2, 0.8, 0.5]])
        >>> target = torch.tensor([[1, 0, 0], [1, 0, 1]])
        >>> ranking_loss(preds, target)  # none of 2 pairs, and both of 2
        tensor(0.5000, dtype=torch.float64)

    Source:
        Equal to scikit-learn's `label_ranking_loss` with `zero_division=0`. Zhang and Zhou, "A review on multi-label
        learning algorithms", IEEE TKDE 26(8), 2014.
    """
    check_choice(ties, "ties", Ties)
    predictions = check_predictions(preds, target, mask, sample_weight)
    return mean_of_defined(label_rankings(predictions, ties)[2], zero_division, weight=predictions.weight)


@supports_resample_weights
@inherit_docs(coverage_error, zero_division="0 (as in scikit-learn) or 1.=>0 or 1.")
def one_error(
    preds: TensorLike,
    target: LabelsLike,
    *,
    mask: TensorLike | None = None,
    sample_weight: TensorLike | None = None,
    zero_division: float = math.nan,
) -> Tensor:
    """Compute the share of rows whose label with the highest score is not true.

    0 is best, 1 worst. If several labels share the highest score, the row counts as the share of these labels that are
    not true, which is the expected error of a random choice among them. A row without true labels counts as 1; a row
    with all entries excluded by `mask` is undefined.

    Returns:
        float64, 0-d, in [0, 1], on the device of `preds`.

    Examples:
        >>> import torch
        >>> from mlmetric.metrics import one_error
        >>> preds = torch.tensor([[0.9, 0.6, 0.1], [0.2, 0.8, 0.8]])
        >>> target = torch.tensor([[1, 0, 0], [1, 0, 1]])
        >>> one_error(preds, target)  # 0, and 1/2
        tensor(0.2500, dtype=torch.float64)

    Source:
        Zhang and Zhou, "A review on multi-label learning algorithms", IEEE TKDE 26(8), 2014.
    """
    predictions = check_predictions(preds, target, mask, sample_weight)
    return mean_of_defined(top_label_errors(predictions), zero_division, weight=predictions.weight)


def label_rankings(predictions: Predictions, ties: Ties = "one") -> tuple[Tensor, Tensor, Tensor]:
    """Return coverage, LRAP and ranking loss of each row: float64 `(N,)` each, NaN where undefined."""

    def metrics_of(ranked: RankedGroups) -> tuple[Tensor, Tensor, Tensor]:
        num_labels, true_positives = ranked.count_at_least()
        positives, entries = ranked.positives.squeeze(1), ranked.entries.squeeze(1)
        precision = torch.where(ranked.valid, true_positives / num_labels, 0.0)
        wrong_pairs = num_labels - true_positives
        if ties == "half":
            num_labels_above, true_positives_above = ranked.count_above()
            wrong_pairs = (wrong_pairs + num_labels_above - true_positives_above) / 2
        pairs = positives * (entries - positives)
        coverage = num_labels[:, 0]  # the first positive has the lowest score
        return coverage, precision.sum(dim=1) / positives, (wrong_pairs * ranked.valid).sum(dim=1) / pairs

    coverage, precision, loss = map_groups(predictions.preds, predictions.target, predictions.mask, metrics_of, 3)
    return coverage, precision, loss


def top_label_errors(predictions: Predictions) -> Tensor:
    """Return for each row the share of top labels that are not true: float64 `(N,)`, NaN without included entries."""
    if not predictions.preds.shape[1]:
        return predictions.preds.new_full((len(predictions.preds),), torch.nan, dtype=torch.float64)
    top = predictions.preds == predictions.preds.amax(dim=1, keepdim=True)
    if predictions.mask is not None:
        top &= predictions.mask
    return 1 - count_true(top & predictions.target, dim=1).double() / count_true(top, dim=1)
