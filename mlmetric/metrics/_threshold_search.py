"""Thresholds that maximise F1, or the value of another rule, on a validation split."""

from __future__ import annotations

import math
import warnings
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from mlmetric.labels import LabelsLike
from mlmetric.metrics._inputs import Predictions, TensorLike, check_choice, check_predictions
from mlmetric.metrics._threshold_candidates import ThresholdCandidates, midpoint
from mlmetric.metrics._threshold_rules import FBeta, ThresholdCounts, ThresholdRule

Average = Literal["macro", "micro"]


def best_thresholds(
    preds: TensorLike,
    target: LabelsLike,
    *,
    metric: Literal["f1"] | ThresholdRule = "f1",
    average: Average = "macro",
    per_label: bool = True,
    shrinkage: float = 0.0,
    max_predicted: float = math.inf,
    fallback: float | None = None,
    mask: TensorLike | None = None,
) -> Tensor:
    """Find the thresholds that maximise F1, or the value of another rule, by an exact search.

    Choose thresholds on a validation split, never on the rows for which you report metrics. A threshold lies halfway
    between the lowest score that reaches it and the next lower score; if all scores reach it, it is the lowest score.
    Of several thresholds with the same F1, the highest is returned. Tied scores are predicted together. Both
    `preds >= thresholds` and the argument `threshold=` of the metrics give the intended predictions in the dtype of
    `preds` and in wider dtypes.

    Args:
        preds: Scores, shape `(N, L)`, any real dtype and scale, which is the scale of the thresholds: a tensor, an
            array, a list of rows, a scipy sparse matrix or a data frame.
        target: True labels, shape `(N, L)`, entries 0 and 1 of any dtype; a tensor, an array, a list of rows, a scipy
            sparse matrix or a data frame.
        metric: What to maximise: `"f1"`, or a rule of [mlmetric.decisions][mlmetric.decisions] such as `FBeta(2)`,
            `MinRecall(0.9)`, `MinPrecision(0.9)` or `ExpectedCost(1, 10)`, or one of your own. Where F1 is named below,
            the value of the rule takes its place.
        average: The F1 to maximise. `"macro"`: the mean F1 of the labels with positives; thresholds for each label
            then maximise the F1 of each label, and so weighted F1 too. `"micro"`: the F1 of all entries (OF1).
            `MinRecall` and `MinPrecision` must hold for each label with `"macro"`, which requires `per_label=True`, and
            for all entries together with `"micro"`, which requires `per_label=False`. `ExpectedCost` adds up the costs
            of all labels in both cases. A rule of your own with `"micro"` requires `per_label=False`.
        per_label: Whether to return a threshold for each label; False returns one common threshold. Thresholds for each
            label overfit where labels have few positives: on new rows macro F1 increases, but micro F1 may decrease.
        shrinkage: How far the thresholds of rare labels are shrunk towards the common threshold, as a number of
            positives, >= 0: for a label with P positives the result is
            `(P t_label + shrinkage t_common) / (P + shrinkage)`, where t_common is the threshold returned by
            `average="micro", per_label=False`. It suits labels whose scores are on the same scale. 0: no shrinkage.
        max_predicted: Largest number of predictions of a label, as a multiple of its number of positives, above 0. The
            result is the threshold with the highest F1 among those within the limit, or the one with the fewest
            predictions if none is. Without a limit, a label that is hard to predict has its highest F1 where it is
            predicted for most rows. With 1, the limit is the number of positives. The limit is applied before
            `shrinkage`.
        fallback: The threshold of labels without positives. The default, t_common, suits labels whose scores are on the
            same scale, and allows such a label to be predicted. For scores on different scales pass a number, or
            `float("inf")` to never predict these labels, which is the default for `ExpectedCost`.
        mask: Entries to include, bool `(N, L)`; all by default. Excluded entries, such as labels that were not
            annotated, may contain any value.

    Returns:
        float64, shape `(L,)`, or 0-d with `per_label=False`, on the device of `preds`. It is +inf for a label for which
        every prediction would lower micro F1 or increase the cost, or for which no threshold reaches the required
        precision; scores of +inf are predicted even then.

    Raises:
        TypeError: If an argument does not contain real numbers, or `metric` is neither `"f1"` nor a rule.
        ValueError: If the shapes do not match, a score is NaN, an entry of `target` is neither 0 nor 1, `average` is
            none of the values above, `shrinkage` is negative or not finite, `max_predicted` is not above 0, one of the
            two is passed with `per_label=False`, there are no positives and no `fallback`, or `metric` does not support
            the combination of `average`, `per_label`, `shrinkage` and `max_predicted`.

    Warns:
        UserWarning: If no threshold of a label with positives reaches the precision of `MinPrecision`.

    Examples:
        >>> import torch
        >>> from mlmetric.metrics import best_thresholds
        >>> preds = torch.tensor([[0.9, 0.3, 0.6], [0.6, 0.1, 0.5], [0.5, 0.2, 0.1], [0.1, 0.2, 0.2]])
        >>> target = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0]])
        >>> best_thresholds(preds, target)  # the third label has no positives
        tensor([0.5500, 0.1500, 0.1500], dtype=torch.float64)
        >>> best_thresholds(preds, target, average="micro", per_label=False)
        tensor(0.1500, dtype=torch.float64)

    Source:
        The common micro threshold and the macro thresholds of labels are found by a sweep over the sorted scores, the
        micro thresholds of labels with the algorithm of Dinkelbach, "On nonlinear fractional programming", Management
        Science 13(7), 1967. For thresholds of labels with few positives see Yang, "A study of thresholding strategies
        for text categorization", SIGIR 2001, which also describes predictions in proportion to the frequency. The
        formula of `shrinkage`, and the limit of `max_predicted` as a multiple, are our own.
    """
    rule = check_threshold_arguments(metric, average, per_label, shrinkage, max_predicted)
    predictions = check_predictions(preds, target, mask)
    num_labels = predictions.preds.shape[1]
    rule.check_labels(num_labels)
    positives = predictions.target.sum(dim=0)
    if not bool(positives.any()):
        if rule.is_sum and fallback is None:
            fallback = math.inf
        if fallback is None and (num_labels or not per_label):
            raise ValueError(
                f"`target` must contain at least one positive unless `fallback` is given, got none in "
                f"{predictions.target.numel()} entries."
            )
        return predictions.preds.new_full((num_labels,) if per_label else (), fallback or 0.0, dtype=torch.float64)
    if not per_label:
        thresholds = _common_threshold(rule, predictions, average)
        _warn_of_unreached(rule, thresholds)
        return thresholds
    candidates = ThresholdCandidates(predictions, max_predicted=max_predicted)
    if average == "micro" and isinstance(rule, FBeta):
        chosen = _maximise_micro(rule, candidates)
    else:
        chosen = candidates.maximise(rule.value)
    thresholds = candidates.thresholds(chosen)
    _warn_of_unreached(rule, thresholds.where(positives > 0, 0.0))
    if fallback is None and not (rule.is_sum or bool(positives.all())):
        thresholds = torch.where(positives > 0, thresholds, _common_threshold(rule, predictions, "micro"))
    if shrinkage:
        common = _common_threshold(rule, predictions, "micro")
        shrunk = (positives * thresholds + shrinkage * common) / (positives + shrinkage)
        thresholds = torch.where(shrunk.isnan(), thresholds, shrunk)  # NaN between infinities of both signs
    return thresholds if fallback is None else torch.where(positives > 0, thresholds, fallback)


def check_threshold_arguments(
    metric: object, average: Average, per_label: bool, shrinkage: float, max_predicted: float
) -> ThresholdRule:
    """Check these arguments of `best_thresholds`, and return the rule that `metric` is or names."""
    rule = FBeta() if isinstance(metric, str) and metric == "f1" else metric
    if not isinstance(rule, ThresholdRule):
        raise TypeError(
            f'`metric` must be "f1" or a `mlmetric.decisions.ThresholdRule` such as `FBeta(2)`, got {metric!r:.80}.'
        )
    check_choice(average, "average", Average)
    if not (shrinkage >= 0 and math.isfinite(shrinkage)) or (shrinkage and not per_label):
        raise ValueError(f"`shrinkage` must be a number >= 0, and 0 with `per_label=False`, got {shrinkage}.")
    if not max_predicted > 0 or (max_predicted < math.inf and not per_label):
        raise ValueError(
            f"`max_predicted` must be a number above 0, and infinite with `per_label=False`, got {max_predicted}."
        )
    if rule.is_constraint and (shrinkage or max_predicted < math.inf):
        name, value = ("shrinkage", shrinkage) if shrinkage else ("max_predicted", max_predicted)
        raise ValueError(f"`{name}` must have its default with {rule}, whose requirement it can violate, got {value}.")
    if rule.is_constraint and average == "macro" and not per_label:
        raise ValueError(f'`average` must be "micro" with `per_label=False` and {rule}, got "macro".')
    if average == "micro" and per_label and not (rule.is_sum or isinstance(rule, FBeta)):
        raise ValueError(
            f'`average` must be "macro" for a threshold for each label with {rule}, got "micro"; or pass '
            "`per_label=False`."
        )
    return rule


def _warn_of_unreached(rule: ThresholdRule, thresholds: Tensor) -> None:
    unreached = (thresholds.reshape(-1) == torch.inf).nonzero().squeeze(1).tolist()
    if rule.is_constraint and unreached:
        where = f" for {len(unreached)} of the labels: columns {str(unreached)[1:-1]:.80}" if thresholds.ndim else ""
        warnings.warn(
            f"No threshold meets {rule}{where}. The threshold is infinity, so that nothing is predicted.", stacklevel=3
        )


def _maximise_micro(rule: FBeta, candidates: ThresholdCandidates) -> Tensor:
    """Choose a candidate for each label so that micro F-beta is highest, by Dinkelbach's algorithm."""
    best = candidates.maximise(rule.value)
    while True:
        # A choice has a higher F-beta than a / b if and only if the sum of b * numerator - a * denominator is positive.
        numerator, denominator = candidates.fraction(best, rule)
        chosen = candidates.maximise(partial(_gain, rule, numerator, denominator))
        new_numerator, new_denominator = candidates.fraction(chosen, rule)
        if new_numerator * denominator <= numerator * new_denominator:
            return chosen
        best = chosen


def _gain(rule: FBeta, numerator: float, denominator: float, counts: ThresholdCounts) -> Tensor:
    """Return the gain over no prediction, in which the positives cancel."""
    return rule.fraction(counts)[0] * denominator - numerator * counts.predicted


def _common_threshold(rule: ThresholdRule, predictions: Predictions, average: Average) -> Tensor:
    """Return the highest of the common thresholds of all labels with the highest value: 0-d."""
    if average == "macro" or rule.is_sum:
        return _common_macro_threshold(rule, predictions)
    candidates = ThresholdCandidates(predictions.pooled())
    return candidates.thresholds(candidates.maximise(rule.value)).squeeze(0)


def _common_macro_threshold(rule: ThresholdRule, predictions: Predictions) -> Tensor:
    """Return the common threshold of all labels with the highest mean value of the labels.

    Labels without positives are left out unless the value is a sum.
    """
    included_labels = predictions.target.any(dim=0) | rule.is_sum
    scores, changes, of_none = [], [], 0.0
    for label in included_labels.nonzero().squeeze(1).tolist():
        included = slice(None) if predictions.mask is None else predictions.mask[:, label]
        descending, order = predictions.preds[included, label].sort(descending=True)
        if not len(order):
            continue
        true_positives = predictions.target[included, label][order].cumsum(0).double()[None]
        num_predicted = torch.arange(1, len(order) + 1, dtype=torch.float64, device=order.device)[None]
        columns = torch.full((1, 1), label, device=order.device)
        counts = ThresholdCounts(true_positives, num_predicted, true_positives[:, -1:], columns)
        none = rule.value(counts.of_no_prediction).squeeze(0)
        scores.append(descending)
        changes.append(rule.value(counts).squeeze(0).diff(prepend=none))
        of_none += float(none)
    if not math.isfinite(of_none):
        raise ValueError(f'`average` must be "micro" with `per_label=False` and {rule}, whose value is not finite.')
    pooled, order = torch.cat(scores).sort(descending=True)
    # The sum of the labels' gains over no prediction after each entry; a threshold includes all entries of its score.
    sums = torch.cat(changes)[order].cumsum(0)
    distinct, num_tied = pooled.unique_consecutive(return_counts=True)  # type: ignore[no-untyped-call]
    sums = sums[num_tied.cumsum(0) - 1]
    # Sums that differ by rounding count as equal.
    tolerance = 1e-12 * max(len(scores), abs(of_none))
    if not float(sums.max()) > tolerance:
        return pooled.new_full((), torch.inf, dtype=torch.float64)
    best = int((sums >= sums.max() - tolerance).int().argmax())
    lowest_predicted: Tensor = distinct[best]
    if best + 1 == len(distinct):
        return lowest_predicted.double()
    return midpoint(distinct[best + 1], lowest_predicted, lowest_predicted.dtype)
