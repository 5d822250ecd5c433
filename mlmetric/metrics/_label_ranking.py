"""How well the scores of each row rank its labels."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from mlmetric.metrics._bootstrap import weighable
from mlmetric.metrics._checks import TensorLike, check_choice, count_true
from mlmetric.metrics._inputs import Predictions, check_predictions
from mlmetric.metrics._ranks import RankedGroups, rank_groups
from mlmetric.metrics._zero_division import mean_of_defined

Ties = Literal["one", "half"]


@weighable
def coverage_error(
    preds: TensorLike,
    target: TensorLike,
    *,
    mask: TensorLike | None = None,
    sample_weight: TensorLike | None = None,
    zero_division: float = math.nan,
) -> Tensor:
    """Average over the rows how many labels must be taken, from the highest score on, until all true ones are.

    The number of labels of a row is best, L is worst; tied labels are taken together. A row without labels is
    undefined. Zhang and Zhou, like Mulan, count one less.

    Args:
        preds: Scores, shape `(N, L)`, any real dtype and scale, infinities allowed, ranked as they are.
        target: Truth, shape `(N, L)`, hard multi-hot: bool, or the numbers 0 and 1.
        mask: Entries that count, bool `(N, L)`; all by default. The others, labels not annotated, may hold anything;
            the labels of a row are ranked among those that count.
        sample_weight: Weight of each row, `(N,)`; all equal by default. `(B, N)` takes B weightings at once and
            gives a result for each.
        zero_division: What an undefined row gets: nan (left out of the mean), 0 (as in scikit-learn) or 1. The mean
            over nothing is undefined in the same way.

    Returns:
        float64, 0-d, or `(B,)` for B weightings, on the device of `preds`.

    Raises:
        TypeError: If an argument does not hold real numbers.
        ValueError: If a shape does not fit, a score is NaN, `target` is soft, a weight is negative, or `zero_division`
            is none of these.

    Examples:
        >>> preds = torch.tensor([[0.9, 0.6, 0.1], [0.2, 0.8, 0.5]])
        >>> target = torch.tensor([[1, 0, 0], [1, 0, 1]])
        >>> coverage_error(preds, target)  # 1 label, and all 3
        tensor(2., dtype=torch.float64)

    Source:
        Equal to scikit-learn's `coverage_error` with `zero_division=0`. Zhang and Zhou, "A review on multi-label
        learning algorithms", IEEE TKDE 26(8), 2014, for this and the three that follow.
    """
    predictions = check_predictions(preds, target, mask, sample_weight)
    return mean_of_defined(rank_rows(predictions)[0], zero_division, weight=predictions.weight)


@weighable
def label_ranking_average_precision(
    preds: TensorLike,
    target: TensorLike,
    *,
    mask: TensorLike | None = None,
    sample_weight: TensorLike | None = None,
    zero_division: float = math.nan,
) -> Tensor:
    """Average over the rows the average precision of the ranking of each row's labels (LRAP).

    1 is best: in each row every true label scores higher than every other. A row without labels is undefined;
    scikit-learn gives it 1, which is `zero_division=1`. Arguments, result (in [0, 1]) and errors are otherwise those of
    `coverage_error`.

    Examples:
        >>> preds = torch.tensor([[0.9, 0.6, 0.1], [0.2, 0.8, 0.5]])
        >>> target = torch.tensor([[1, 0, 0], [1, 0, 1]])
        >>> label_ranking_average_precision(preds, target)  # 1, and (1/2 + 2/3) / 2
        tensor(0.7917, dtype=torch.float64)
    """
    predictions = check_predictions(preds, target, mask, sample_weight)
    values = rank_rows(predictions)[1]
    return mean_of_defined(values, zero_division, weight=predictions.weight)


@weighable
def ranking_loss(
    preds: TensorLike,
    target: TensorLike,
    *,
    ties: Ties = "one",
    mask: TensorLike | None = None,
    sample_weight: TensorLike | None = None,
    zero_division: float = math.nan,
) -> Tensor:
    """Average over the rows the share of pairs of a true and another label that are in the wrong order.

    0 is best, 1 worst. A row without labels, or with all of them, has no pair and is undefined.

    Args:
        preds: As for `coverage_error`.
        target: As for `coverage_error`.
        ties: What a pair of equal scores counts: `"one"`, wrong, as in scikit-learn, or `"half"`, by which the loss
            of a row is 1 - its area under the ROC curve.
        mask: As for `coverage_error`.
        sample_weight: As for `coverage_error`.
        zero_division: As for `coverage_error`.

    Returns:
        float64, 0-d, or `(B,)` for B weightings, in [0, 1], on the device of `preds`.

    Raises:
        TypeError: As for `coverage_error`.
        ValueError: As for `coverage_error`, or if `ties` is none of these.

    Examples:
        >>> preds = torch.tensor([[0.9, 0.6, 0.1], [0.2, 0.8, 0.5]])
        >>> target = torch.tensor([[1, 0, 0], [1, 0, 1]])
        >>> ranking_loss(preds, target)  # none of 2 pairs, and both of 2
        tensor(0.5000, dtype=torch.float64)
    """
    check_choice(ties, "ties", Ties)
    predictions = check_predictions(preds, target, mask, sample_weight)
    return mean_of_defined(rank_rows(predictions, ties)[2], zero_division, weight=predictions.weight)


@weighable
def one_error(
    preds: TensorLike,
    target: TensorLike,
    *,
    mask: TensorLike | None = None,
    sample_weight: TensorLike | None = None,
    zero_division: float = math.nan,
) -> Tensor:
    """Count the share of rows whose label of the highest score is not a true one.

    0 is best, 1 worst. Where several labels tie for the top, a row counts the share of them that are not true: what
    picking one of them at random gets wrong on average. A row without labels counts as 1; only one of which the mask
    leaves nothing is undefined. Arguments, result (in [0, 1]) and errors are otherwise those of `coverage_error`.

    Examples:
        >>> preds = torch.tensor([[0.9, 0.6, 0.1], [0.2, 0.8, 0.8]])
        >>> target = torch.tensor([[1, 0, 0], [1, 0, 1]])
        >>> one_error(preds, target)  # 0, and 1/2
        tensor(0.2500, dtype=torch.float64)
    """
    predictions = check_predictions(preds, target, mask, sample_weight)
    return mean_of_defined(top_errors(predictions), zero_division, weight=predictions.weight)


def rank_rows(predictions: Predictions, ties: Ties = "one") -> tuple[Tensor, Tensor, Tensor]:
    """Return coverage, LRAP and ranking loss of each row: float64 `(N,)` each, NaN where undefined."""

    def judge(ranked: RankedGroups) -> tuple[Tensor, Tensor, Tensor]:
        retrieved, hits = ranked.at_least()
        positives, entries = ranked.positives.squeeze(1), ranked.entries.squeeze(1)
        precision = torch.where(ranked.valid, hits / retrieved, 0.0)
        wrong = retrieved - hits
        if ties == "half":
            retrieved_above, hits_above = ranked.above()
            wrong = (wrong + retrieved_above - hits_above) / 2
        pairs = positives * (entries - positives)
        # The first needle is the positive of the lowest score.
        return retrieved[:, 0], precision.sum(dim=1) / positives, (wrong * ranked.valid).sum(dim=1) / pairs

    coverage, precision, loss = rank_groups(predictions.preds, predictions.target, predictions.mask, judge, 3)
    return coverage, precision, loss


def top_errors(predictions: Predictions) -> Tensor:
    """Return for each row the share of its top labels that are not true: float64 `(N,)`, NaN where nothing counts."""
    if not predictions.preds.shape[1]:
        return predictions.preds.new_full((len(predictions.preds),), torch.nan, dtype=torch.float64)
    top = predictions.preds == predictions.preds.amax(dim=1, keepdim=True)
    if predictions.mask is not None:
        top &= predictions.mask
    return 1 - count_true(top & predictions.target, dim=1).double() / count_true(top, dim=1)
