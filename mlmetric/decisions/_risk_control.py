"""Thresholds with a guarantee on new rows: conformal risk control, and learn then test."""

from __future__ import annotations

import math
import warnings
from numbers import Real

import torch
from scipy.optimize import brentq
from scipy.stats import binom
from torch import Tensor

from mlmetric._docstrings import inherit_docs
from mlmetric.labels import LabelsLike
from mlmetric.metrics._inputs import Predictions, TensorLike, check_predictions, count_true

TOLERANCE = 1e-10
"""Mean losses that differ by less, as by rounding, count as equal."""
SAMPLE_SIZE = 2**20
"""Number of entries from which the number of high scores is estimated."""


def conformal_fnr_threshold(
    preds: TensorLike,
    target: LabelsLike,
    *,
    alpha: float,
    per_label: bool = False,
    mask: TensorLike | None = None,
) -> Tensor:
    """Find the highest threshold that misses at most a share `alpha` of a new row's true labels, on average.

    The false negative rate of a row is the share of its true labels with scores below the threshold; it is 0 for a row
    without labels. For a new row, the expected rate is at most `alpha` if the new row and the N calibration rows are
    exchangeable, for example drawn independently from one population. Neither the classifier nor its scores need to be
    accurate: with poor scores more labels are predicted. The expectation is over the calibration rows as well: for a
    given set of them, the rate on new rows may be above `alpha`.

    The guarantee does not hold if the classifier was trained or its settings were chosen on the calibration rows, or if
    the new rows come from another population. It applies to the mean over all rows: the rate of a single label, or of
    rows of one kind, may be higher. For a guarantee on rows that have labels, leave the other rows out of the
    calibration rows.

    Args:
        preds: Scores of the calibration rows, shape `(N, L)`, any real dtype and scale, which is the scale of the
            threshold: a tensor, an array, a list of rows, a scipy sparse matrix or a data frame.
        target: True labels, shape `(N, L)`, entries 0 and 1 of any dtype; a tensor, an array, a list of rows, a scipy
            sparse matrix or a data frame.
        alpha: Highest expected rate, in (0, 1).
        per_label: Whether to return a threshold for each label. If a new row has the label, the threshold misses it
            with a probability of at most `alpha`, provided that the rows that have the label are exchangeable.
        mask: Entries to include, bool `(N, L)`; all by default. Excluded entries, such as labels that were not
            annotated, may contain any value. Rows without included entries are left out, and the rate of a row counts
            its included labels only.

    Returns:
        float64, 0-d, or `(L,)` with `per_label=True`, on the device of `preds`: one of the scores of positives, or +inf
        or -inf. It is -inf, which predicts all labels, if there are fewer than `1 / alpha - 1` rows, or for a label
        with fewer positives. It is +inf if predicting nothing satisfies the bound because few rows have labels.

    Raises:
        TypeError: If an argument does not contain real numbers.
        ValueError: If the shapes do not match, a score is NaN, an entry of `target` is neither 0 nor 1, or `alpha` is
            not in (0, 1).

    Warns:
        UserWarning: If there are too few rows or positives, so that a threshold is -inf.

    Examples:
        >>> import torch
        >>> from mlmetric.decisions import conformal_fnr_threshold
        >>> preds = torch.tensor([[0.9, 0.3, 0.6], [0.6, 0.1, 0.5], [0.2, 0.7, 0.1], [0.1, 0.4, 0.8]])
        >>> target = torch.tensor([[1, 0, 1], [1, 0, 0], [0, 1, 0], [0, 1, 1]])
        >>> conformal_fnr_threshold(preds, target, alpha=0.3)  # misses one of the two labels of the last row
        tensor(0.6000, dtype=torch.float64)

    Source:
        Angelopoulos, Bates, Fisch, Lei and Schuster, "Conformal risk control", ICLR 2024: with R(t) the mean rate of
        the n calibration rows at the threshold t, the result is the highest t with
        `n / (n + 1) R(t) + 1 / (n + 1) <= alpha`, here by an exact search over the scores of all positives. For a
        single label this is label-conditional conformal prediction: Vovk, "Conditional validity of inductive conformal
        predictors", ACML 2012.
    """
    alpha = _check_level(alpha, "alpha")
    predictions = check_predictions(preds, target, mask)
    if per_label:
        return _label_thresholds(predictions, alpha)
    num_rows = _num_rows(predictions)
    allowed = (num_rows + 1) * alpha - 1 + TOLERANCE * (num_rows + 1)
    if allowed < 0:
        warnings.warn(
            f"A false negative rate of at most {alpha:g} can only be guaranteed with at least {_min_positives(alpha)} "
            f"rows, got {num_rows}: the threshold is -inf, which predicts all labels.",
            stacklevel=2,
        )
        return predictions.preds.new_tensor(-torch.inf, dtype=torch.float64)
    rows, labels = predictions.target.nonzero(as_tuple=True)
    scores, order = predictions.preds[rows, labels].double().sort()
    missed = (1 / count_true(predictions.target, dim=1).double())[rows[order]].cumsum(0)
    # A threshold equal to a score misses the positives with lower scores.
    distinct, counts = scores.unique_consecutive(return_counts=True)  # type: ignore[no-untyped-call]
    num_missed = int((missed[counts.cumsum(0) - 1] <= allowed).sum())
    candidates = torch.cat([distinct, distinct.new_full((1,), torch.inf)])
    return candidates[num_missed]


@inherit_docs(conformal_fnr_threshold)
def ltt_fdr_threshold(  # noqa: D417
    preds: TensorLike,
    target: LabelsLike,
    *,
    alpha: float,
    delta: float = 0.1,
    mask: TensorLike | None = None,
) -> Tensor:
    """Find the lowest threshold whose mean share of wrong labels is at most `alpha`, with high probability.

    A label is predicted if its score is at least the threshold. The false discovery rate of a row is the share of its
    predicted labels that are wrong; it is 0 for a row without predicted labels. With a probability of at least
    `1 - delta` over the draw of the N calibration rows, the expected rate of a new row is at most `alpha`, if all rows
    are drawn independently from one population. Neither the classifier nor its scores need to be accurate: with poor
    scores few labels are predicted, or none.

    The guarantee does not hold if the classifier was trained or its settings were chosen on the calibration rows, or if
    the new rows come from another population. It applies to the mean over all rows: among the rows with predictions,
    and for a single label, the rate may be higher.

    Args:
        delta: Highest probability with which the expected rate may exceed `alpha`, in (0, 1).

    Returns:
        float64, 0-d, on the device of `preds`: one of the scores, or +inf if no threshold has the guarantee; scores of
        +inf are predicted even then. If all scores reach the threshold, it is the lowest score.

    Raises:
        TypeError: If an argument does not contain real numbers.
        ValueError: If the shapes do not match, a score is NaN, an entry of `target` is neither 0 nor 1, or `alpha` or
            `delta` is not in (0, 1).

    Warns:
        UserWarning: If no threshold has the guarantee, because there are fewer than `log(delta) / log(1 - alpha)` rows,
            or because too many of the labels with the highest scores are wrong.

    Examples:
        >>> import torch
        >>> from mlmetric.decisions import ltt_fdr_threshold
        >>> generator = torch.Generator().manual_seed(0)
        >>> target = torch.rand(1000, 5, generator=generator) < 0.3
        >>> preds = target + torch.randn(1000, 5, generator=generator)
        >>> ltt_fdr_threshold(preds, target, alpha=0.2, delta=0.1)
        tensor(1.4910, dtype=torch.float64)

    Source:
        Angelopoulos, Bates, Candès, Jordan and Lei, "Learn then test: calibrating predictive algorithms to achieve risk
        control", Annals of Applied Statistics 19(2), 2025: p-values of Hoeffding and Bentkus, and fixed-sequence
        testing. The paper tests a fixed list of thresholds; we test all numbers from +inf downwards until the first
        p-value above `delta`. Between two neighbouring scores the p-value is constant, so it is computed at the scores
        only. The guarantee holds without a correction for the number of thresholds: let t be the supremum of the
        thresholds with an expected rate above `alpha`. The expected rate is continuous from the left, so it is at least
        `alpha` at t. t is tested before the thresholds below, so a wrong result requires a p-value of at most `delta`
        at t, which has a probability of at most `delta`.
    """
    alpha, delta = _check_level(alpha, "alpha"), _check_level(delta, "delta")
    predictions = check_predictions(preds, target, mask)
    num_rows = _num_rows(predictions)
    allowed = _highest_certified_sum(num_rows, alpha, delta)
    threshold = None if allowed is None else _lowest_threshold(predictions, allowed + TOLERANCE * num_rows)
    if threshold is not None:
        return threshold
    bound = f"A false discovery rate of at most {alpha:g} with a probability of at least {1 - delta:g}"
    if allowed is None:
        reason = f"{bound} can only be guaranteed with at least {_min_rows(alpha, delta)} rows, got {num_rows}"
    else:
        reason = f"{bound} is not reached by any threshold, because too many labels with the highest scores are wrong"
    warnings.warn(f"{reason}: the threshold is inf, which predicts no label.", stacklevel=2)
    return predictions.preds.new_tensor(torch.inf, dtype=torch.float64)


def _label_thresholds(predictions: Predictions, alpha: float) -> Tensor:
    """Return for each label the highest threshold that misses a share `alpha` of its positives: `(L,)`."""
    positives = count_true(predictions.target, dim=0)
    rows, labels = predictions.target.nonzero(as_tuple=True)
    scores, order = predictions.preds[rows, labels].double().sort()
    scores = scores[labels[order].argsort(stable=True)]  # ascending within each label
    # In float64, which an integer times a number is not; never all positives, even if alpha is 1 up to rounding.
    allowed = ((positives + 1).double() * (alpha + TOLERANCE) - 1).floor().long().minimum(positives - 1)
    too_few = allowed < 0
    thresholds = torch.full_like(positives, -torch.inf, dtype=torch.float64)
    # The threshold misses `allowed` positives, those with lower scores.
    thresholds[~too_few] = scores[(positives.cumsum(0) - positives + allowed)[~too_few]]
    if bool(too_few.any()):
        warnings.warn(
            f"A missed share of at most {alpha:g} can only be guaranteed for labels with at least "
            f"{_min_positives(alpha)} positives: the thresholds of {int(too_few.sum())} of {len(positives)} labels are "
            "-inf, which predicts them for all rows.",
            stacklevel=3,
        )
    return thresholds


def _highest_certified_sum(num_rows: int, alpha: float, delta: float) -> float | None:
    """Return the highest sum of the rates of n rows with a p-value of at most `delta`; None if not even 0 has one.

    The p-value is the smaller of Hoeffding's and Bentkus' p-values, which increase with the sum.
    """
    highest = -math.log(delta) / num_rows if num_rows else math.inf
    if -math.log1p(-alpha) < highest:  # of a sum of 0, Bentkus' p-value is larger by a factor of e
        return None
    rate = brentq(lambda rate: _relative_entropy(rate, alpha) - highest, 0, alpha)
    num_wrong = int(binom.ppf(delta / math.e, num_rows, alpha))
    if math.e * binom.cdf(num_wrong, num_rows, alpha) > delta:
        num_wrong -= 1
    return float(max(num_rows * rate, num_wrong))


def _relative_entropy(rate: float, alpha: float) -> float:
    """Return `h1(rate, alpha)` of the paper, the relative entropy of two Bernoulli distributions."""
    first = rate * math.log(rate / alpha) if rate else 0.0
    return first + (1 - rate) * math.log((1 - rate) / (1 - alpha))


def _lowest_threshold(predictions: Predictions, allowed: float) -> Tensor | None:
    """Return the lowest score such that at it and all higher scores the rates of all rows sum to at most `allowed`."""
    # In most cases few labels of a row are predicted: only the highest scores are sorted, and more where required.
    num_highest = len(predictions.target) + int(count_true(predictions.target, dim=1).sum())
    while True:
        lowest = (
            -torch.inf
            if num_highest >= predictions.preds.numel()
            else _approximate_highest(predictions.preds, num_highest)
        )
        scores, sums = _summed_rates(predictions, lowest)
        exceeding = (sums > allowed).nonzero()
        if len(exceeding):
            first = int(exceeding[0])
            return scores[first - 1] if first else None
        if lowest == -torch.inf:
            return scores[-1]
        num_highest *= 8


def _summed_rates(predictions: Predictions, lowest: float) -> tuple[Tensor, Tensor]:
    """Return the distinct scores from `lowest` on, descending, and the sum of the rates of all rows at each of them."""
    selected = predictions.preds >= lowest
    if predictions.mask is not None:
        selected &= predictions.mask
    rows, labels = selected.nonzero(as_tuple=True)
    scores, order = predictions.preds[rows, labels].double().sort(descending=True)
    rows, wrong = rows[order], ~predictions.target[rows, labels][order]
    by_row = rows.argsort(stable=True)  # descending within each row
    counts = count_true(selected, dim=1)
    start = (counts.cumsum(0) - counts)[rows[by_row]]
    num_wrong = wrong[by_row].cumsum(0)
    num_wrong -= (num_wrong - wrong[by_row].long())[start]  # of the same row only
    position = torch.arange(1, len(rows) + 1, device=rows.device) - start
    rates = num_wrong.double() / position
    changes = torch.empty_like(rates)
    changes[by_row] = rates - torch.where(position > 1, rates.roll(1), 0)
    sums = changes.cumsum(0)
    distinct, num_tied = scores.unique_consecutive(return_counts=True)  # type: ignore[no-untyped-call]
    return distinct, sums[num_tied.cumsum(0) - 1]


def _approximate_highest(preds: Tensor, number: int) -> float:
    """Return a score that about `number` entries reach, estimated from a sample of the entries."""
    values, size = preds.flatten(), min(preds.numel(), SAMPLE_SIZE)
    if size < len(values):
        values = values[
            torch.randint(len(values), (size,), generator=torch.Generator().manual_seed(0)).to(values.device)
        ]
    rank = max(1, round(number * size / preds.numel()))
    return float(values.float().kthvalue(size - rank + 1).values)


def _check_level(level: float, name: str) -> float:
    if isinstance(level, bool) or not isinstance(level, Real) or not 0 < level < 1:
        raise ValueError(f"`{name}` must be a number in (0, 1), got {level!r}.")
    return float(level)


def _num_rows(predictions: Predictions) -> int:
    """Count the rows with included entries."""
    if predictions.mask is None:
        return len(predictions.target) if predictions.target.shape[1] else 0
    return int(predictions.mask.any(dim=1).sum())


def _min_positives(alpha: float) -> int:
    """Return the smallest n with `1 / (n + 1) <= alpha`."""
    return math.ceil(1 / (alpha + TOLERANCE) - 1)


def _min_rows(alpha: float, delta: float) -> int:
    """Return the smallest n with `(1 - alpha)^n <= delta`."""
    return math.ceil(math.log(delta) / math.log1p(-alpha))
