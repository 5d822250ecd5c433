"""Thresholds that maximise F1 on a validation split."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from mlmetric.labels import LabelsLike
from mlmetric.metrics._inputs import Predictions, TensorLike, check_choice, check_predictions
from mlmetric.metrics._ranked_groups import RankedGroups, ranked_groups

Average = Literal["macro", "micro"]
Objective: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Value of candidates: of true positives and predicted positives, both `(G, P)`, and positives, `(G, 1)`."""


def best_thresholds(
    preds: TensorLike,
    target: LabelsLike,
    *,
    average: Average = "macro",
    per_label: bool = True,
    shrinkage: float = 0.0,
    max_predicted: float = math.inf,
    fallback: float | None = None,
    mask: TensorLike | None = None,
) -> Tensor:
    """Find the thresholds with the highest F1 by an exact search over all distinct predictions.

    Choose thresholds on a validation split, never on the rows that are reported. A threshold lies halfway between the
    lowest score that reaches it and the next lower score; if all scores reach it, it is the lowest score. Of several
    thresholds with the same F1 the highest is returned. Tied scores are predicted together. Both `preds >= thresholds`
    and the argument `threshold=` of the metrics give the intended predictions in the dtype of `preds` and in wider
    dtypes.

    Args:
        preds: Scores, shape `(N, L)`, any real dtype and scale, which is the scale of the thresholds: a tensor, an
            array, a list of rows, a scipy sparse matrix or a data frame.
        target: True labels, shape `(N, L)`, entries 0 and 1 of any dtype; a tensor, an array, a list of rows, a scipy
            sparse matrix or a data frame.
        average: The F1 to maximise. `"macro"`: the mean F1 of the labels with positives; thresholds for each label
            then maximise the F1 of each label, and so weighted F1 too. `"micro"`: the F1 of all entries (OF1).
        per_label: Whether to return a threshold for each label, or a common one. Thresholds for each label overfit
            where labels have few positives: on new rows macro F1 increases, but micro F1 may decrease.
        shrinkage: How far the thresholds of rare labels are shrunk towards the common threshold, as a number of
            positives, >= 0: for a label with P positives the result is
            `(P t_label + shrinkage t_common) / (P + shrinkage)`, where t_common is the threshold returned by
            `average="micro", per_label=False`. It suits labels whose scores are on the same scale. 0: no shrinkage.
        max_predicted: Largest number of predictions of a label, as a multiple of its number of positives, above 0: the
            threshold with the highest F1 among those that predict at most so many entries, or the one that predicts
            fewest. Without a limit, a label that is hard to predict has its highest F1 where most rows get it. 1: in
            proportion to the label's frequency. Applied before `shrinkage`.
        fallback: The threshold of labels without positives. By default t_common, which suits labels whose scores are
            on the same scale and allows such a label to be predicted. For labels on different scales pass a number, or
            `float("inf")` to predict none of them.
        mask: Entries to include, bool `(N, L)`; all by default. Excluded entries, such as labels that were not
            annotated, may contain any value.

    Returns:
        float64, shape `(L,)`, or 0-d with `per_label=False`, on the device of `preds`. It is +inf for a label for which
        every prediction would lower micro F1; scores of +inf are predicted even then.

    Raises:
        TypeError: If an argument does not contain real numbers.
        ValueError: If the shapes do not match, a score is NaN, an entry of `target` is neither 0 nor 1, `average` is
            none of the values above, `shrinkage` is negative or not finite, `max_predicted` is not above 0, one of the
            two is passed with `per_label=False`, or there are no positives and no `fallback`.

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
    check_choice(average, "average", Average)
    if not (shrinkage >= 0 and math.isfinite(shrinkage)) or (shrinkage and not per_label):
        raise ValueError(f"`shrinkage` must be a number >= 0, and 0 with `per_label=False`, got {shrinkage}.")
    if not max_predicted > 0 or (max_predicted < math.inf and not per_label):
        raise ValueError(
            f"`max_predicted` must be a number above 0, and infinite with `per_label=False`, got {max_predicted}."
        )
    predictions = check_predictions(preds, target, mask)
    num_labels = predictions.preds.shape[1]
    positives = predictions.target.sum(dim=0)
    if not bool(positives.any()):
        if fallback is None and (num_labels or not per_label):
            raise ValueError(
                f"`target` must contain at least one positive unless `fallback` is given, got none in "
                f"{predictions.target.numel()} entries."
            )
        return predictions.preds.new_full((num_labels,) if per_label else (), fallback or 0.0, dtype=torch.float64)
    if not per_label:
        return _common_macro_threshold(predictions) if average == "macro" else _common_micro_threshold(predictions)
    candidates = ThresholdCandidates(predictions, max_predicted=max_predicted)
    chosen = _maximise_micro_f1(candidates) if average == "micro" else _maximise_label_f1(candidates)
    thresholds = candidates.thresholds(chosen)
    if fallback is None and not bool(positives.all()):
        thresholds = torch.where(positives > 0, thresholds, _common_micro_threshold(predictions))
    if shrinkage:
        common = _common_micro_threshold(predictions)
        shrunk = (positives * thresholds + shrinkage * common) / (positives + shrinkage)
        thresholds = torch.where(shrunk.isnan(), thresholds, shrunk)  # NaN between infinities of both signs
    return thresholds if fallback is None else torch.where(positives > 0, thresholds, fallback)


class ThresholdCandidates:
    """The candidate thresholds of each label: the scores of its positives.

    Other thresholds need not be considered: predicting further negatives, but no further positive, only lowers F1. A
    choice of candidates is int64 `(L,)`: for each label the index of the lowest predicted positive among the label's
    positives in ascending order, or -1 to predict none.

    Candidates that predict more than `max_predicted` times the positives of a label are left out, except the one that
    predicts fewest.
    """

    def __init__(self, predictions: Predictions, *, max_predicted: float = math.inf) -> None:
        self._max_predicted = max_predicted
        mask = None if predictions.mask is None else predictions.mask.T
        self._dtype = predictions.preds.dtype
        self._support = predictions.target.sum()
        self._none_chosen = torch.full_like(predictions.target[:0].sum(dim=0), -1)
        self._groups = [
            _CountedGroups(ranked, *ranked.count_at_least())
            for ranked in ranked_groups(predictions.preds.T, predictions.target.T, mask)
        ]

    def maximise(self, objective: Objective, *, above: float) -> Tensor:
        """Choose for each label the highest candidate that maximises the objective, or -1 if none is `above`."""
        chosen = self._none_chosen.clone()
        for ranked, predicted_positives, true_positives in self._groups:
            values = objective(true_positives, predicted_positives, ranked.positives)
            predicted = predicted_positives.masked_fill(~ranked.valid, torch.inf)
            limit = (self._max_predicted * ranked.positives).maximum(predicted.amin(dim=1, keepdim=True))
            values = values.masked_fill(~ranked.valid | (predicted > limit), -torch.inf)
            index = values.shape[1] - 1 - values.flip(1).argmax(dim=1)
            maximum = values.gather(1, index[:, None]).squeeze(1)
            chosen[ranked.groups] = torch.where(maximum > above, index, -1)
        return chosen

    def micro_f1(self, chosen: Tensor) -> tuple[float, float]:
        """Return the micro F1 of a choice as numerator and denominator, which are integers."""
        true_positives = predicted_positives = 0.0
        for group in self._groups:
            index = chosen[group.ranked.groups, None]
            none, index = index < 0, index.clamp(min=0)
            true_positives += float(torch.where(none, 0, group.true_positives.gather(1, index)).sum())
            predicted_positives += float(torch.where(none, 0, group.predicted_positives.gather(1, index)).sum())
        return 2 * true_positives, predicted_positives + float(self._support)

    def thresholds(self, chosen: Tensor) -> Tensor:
        """Return the threshold of each label, float64 `(L,)`; +inf where no positive is predicted."""
        thresholds = chosen.new_full(chosen.shape, torch.inf, dtype=torch.float64)
        for ranked, predicted_positives, _ in self._groups:
            index = chosen[ranked.groups, None]
            lowest_predicted = ranked.positive_scores.gather(1, index.clamp(min=0))
            num_predicted = predicted_positives.gather(1, index.clamp(min=0)).long()
            # Excluded entries come first, as -inf, below the scores that are not predicted.
            below = ranked.scores.gather(1, (ranked.scores.shape[1] - num_predicted - 1).clamp(min=0))
            threshold = midpoint(below, lowest_predicted, self._dtype)
            threshold = torch.where(num_predicted == ranked.entries, lowest_predicted.double(), threshold)
            thresholds[ranked.groups] = torch.where(index < 0, torch.inf, threshold).squeeze(1)
        return thresholds


class _CountedGroups(NamedTuple):
    ranked: RankedGroups
    predicted_positives: Tensor
    true_positives: Tensor


def midpoint(lower: Tensor, upper: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the threshold halfway between two scores, representable in `dtype`, as float64.

    It is the upper score if `dtype` has no number strictly between the two, or the lower one is -inf.
    """
    lower, upper = lower.double(), upper.double()
    middle = (lower / 2 + upper / 2).to(dtype).double()
    return torch.where(middle > lower, middle, upper)


def _f1(true_positives: Tensor, predicted_positives: Tensor, positives: Tensor) -> Tensor:
    return 2 * true_positives / (predicted_positives + positives)


def _maximise_label_f1(candidates: ThresholdCandidates) -> Tensor:
    return candidates.maximise(_f1, above=-torch.inf)


def _maximise_micro_f1(candidates: ThresholdCandidates) -> Tensor:
    """Choose a candidate for each label so that micro F1 is highest, by Dinkelbach's algorithm."""
    best = _maximise_label_f1(candidates)
    while True:
        # A choice has a higher F1 than a / b if and only if 2 TP * b - a * (TP + FP + P) is positive.
        numerator, denominator = candidates.micro_f1(best)
        chosen = candidates.maximise(partial(_gain, numerator, denominator), above=0.0)
        new_numerator, new_denominator = candidates.micro_f1(chosen)
        if new_numerator * denominator <= numerator * new_denominator:
            return chosen
        best = chosen


def _gain(
    numerator: float, denominator: float, true_positives: Tensor, predicted_positives: Tensor, _positives: Tensor
) -> Tensor:
    return 2 * true_positives * denominator - numerator * predicted_positives


def _common_micro_threshold(predictions: Predictions) -> Tensor:
    """Return the common threshold of all labels with the highest micro F1: 0-d."""
    candidates = ThresholdCandidates(predictions.pooled())
    return candidates.thresholds(_maximise_label_f1(candidates)).squeeze(0)


def _common_macro_threshold(predictions: Predictions) -> Tensor:
    """Return the common threshold of all labels with the highest mean F1 of the labels with positives: 0-d."""
    with_positives = predictions.target.any(dim=0)
    scores, changes = [], []
    for label in with_positives.nonzero().squeeze(1).tolist():
        included = slice(None) if predictions.mask is None else predictions.mask[:, label]
        descending, order = predictions.preds[included, label].sort(descending=True)
        true_positives = predictions.target[included, label][order].cumsum(0).double()
        num_predicted = torch.arange(1, len(order) + 1, dtype=torch.float64, device=order.device)
        scores.append(descending)
        values = _f1(true_positives, num_predicted, true_positives[-1:])
        changes.append(values.diff(prepend=values.new_zeros(1)))
    pooled, order = torch.cat(scores).sort(descending=True)
    # The sum of the labels' F1 after each entry; a threshold includes all entries of its score.
    sums = torch.cat(changes)[order].cumsum(0)
    distinct, num_tied = pooled.unique_consecutive(return_counts=True)  # type: ignore[no-untyped-call]
    sums = sums[num_tied.cumsum(0) - 1]
    # Sums that differ by rounding count as equal.
    best = int((sums >= sums.max() - 1e-12 * len(scores)).int().argmax())
    lowest_predicted: Tensor = distinct[best]
    if best + 1 == len(distinct):
        return lowest_predicted.double()
    return midpoint(distinct[best + 1], lowest_predicted, lowest_predicted.dtype)
