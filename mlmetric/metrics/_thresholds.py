"""Thresholds chosen on a validation split."""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from mlmetric.metrics._checks import TensorLike, check_choice
from mlmetric.metrics._inputs import Predictions, check_predictions
from mlmetric.metrics._threshold_search import ThresholdCandidates, best_common_cut, f1_of_cuts

Average = Literal["macro", "micro"]


def best_thresholds(
    preds: TensorLike,
    target: TensorLike,
    *,
    average: Average = "macro",
    per_label: bool = True,
    shrinkage: float = 0.0,
    fallback: float | None = None,
    mask: TensorLike | None = None,
) -> Tensor:
    """Find the thresholds with the highest F1, exactly: every decision that a threshold can make is tried.

    Choose them on a validation split, never on the rows that are reported. The threshold lies halfway between the
    lowest score that it accepts and the next lower one, so that unseen rows have room on both sides; if it accepts
    every row, it is the lowest score. Of several cuts with the same F1 the highest is taken. Tied scores are
    accepted together. `preds >= thresholds` and the metrics' `threshold=` give the decisions that were meant, in
    the dtype of `preds` and in wider ones.

    Args:
        preds: Scores, shape `(N, L)`, any real dtype and scale; the thresholds are on that scale.
        target: Truth, shape `(N, L)`, hard multi-hot.
        average: The F1 that is to be high. `"macro"`: the mean of the labels' F1, over the labels with positives;
            with one threshold a label that is the highest F1 of each, so weighted F1 is highest too. `"micro"`:
            F1 of all entries (OF1).
        per_label: Whether each label gets a threshold of its own, or all of them the same. Thresholds of their own
            fit the split closely where a label has few positives: macro F1 of unseen rows rises, micro F1 may fall.
        shrinkage: How far the thresholds of rare labels are drawn to the common one, in positives, >= 0: a label with
            P positives gets `(P t_label + shrinkage t_common) / (P + shrinkage)`, where t_common is the threshold
            that `per_label=False` gives for micro F1. Suits labels whose scores are on one scale. 0 draws none.
        fallback: The threshold where there is no positive to learn from. By default a label without positives gets
            t_common: on the scale of the other labels and within reach of the scores, whereas "accept nothing" would
            hold for ever. Where labels have scales of their own, pass a number, or `float("inf")` to accept nothing.
        mask: Entries that count, bool `(N, L)`; all by default. The others, labels not annotated, may hold anything.

    Returns:
        float64, shape `(L,)`, or 0-d for `per_label=False`, on the device of `preds`. +inf for a label whose every
        prediction would lower micro F1; scores of +inf are accepted even so.

    Raises:
        TypeError: If an argument does not hold real numbers.
        ValueError: If a shape does not fit, a score is NaN, `target` is soft, `average` is none of these, `shrinkage`
            is negative or given without `per_label`, or there is no positive at all and no `fallback`.

    Examples:
        >>> preds = torch.tensor([[0.9, 0.3, 0.6], [0.6, 0.1, 0.5], [0.5, 0.2, 0.1], [0.1, 0.2, 0.2]])
        >>> target = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0]])
        >>> best_thresholds(preds, target)  # the third label has no positives
        tensor([0.5500, 0.1500, 0.1500], dtype=torch.float64)
        >>> best_thresholds(preds, target, average="micro", per_label=False)
        tensor(0.1500, dtype=torch.float64)

    Source:
        The common micro threshold and those of labels by a sweep over sorted scores; thresholds of labels for micro
        F1 by Dinkelbach, "On nonlinear fractional programming", Management Science 13(7), 1967. Yang, "A study of
        thresholding strategies for text categorization", SIGIR 2001, for what few positives do to a label's
        threshold; the formula of `shrinkage` is ours.
    """
    check_choice(average, "average", Average)
    if not (shrinkage >= 0 and math.isfinite(shrinkage)) or (shrinkage and not per_label):
        raise ValueError(f"`shrinkage` must be a number >= 0, and 0 with `per_label=False`, got {shrinkage}.")
    predictions = check_predictions(preds, target, mask)
    num_labels = predictions.preds.shape[1]
    counts = predictions.target.sum(dim=0)
    if not bool(counts.any()):
        if fallback is None and (num_labels or not per_label):
            raise ValueError(
                f"`target` must hold a positive, got none in {predictions.target.numel()} entries. Pass a `fallback`."
            )
        return predictions.preds.new_full((num_labels,) if per_label else (), fallback or 0.0, dtype=torch.float64)
    if not per_label:
        return best_common_cut(predictions) if average == "macro" else _pooled(predictions)
    cuts = ThresholdCandidates(predictions)
    thresholds = cuts.thresholds(_best_together(cuts) if average == "micro" else _best_of_each(cuts))
    if fallback is None and not bool(counts.all()):
        thresholds = torch.where(counts > 0, thresholds, _pooled(predictions))
    if shrinkage:
        drawn = (counts * thresholds + shrinkage * _pooled(predictions)) / (counts + shrinkage)
        thresholds = torch.where(drawn.isnan(), thresholds, drawn)  # between infinities
    return thresholds if fallback is None else torch.where(counts > 0, thresholds, fallback)


def _pooled(predictions: Predictions) -> Tensor:
    cuts = ThresholdCandidates(predictions.pooled())
    return cuts.thresholds(_best_of_each(cuts)).squeeze(0)


def _best_of_each(cuts: ThresholdCandidates) -> Tensor:
    return cuts.best(f1_of_cuts, above=-torch.inf)


def _best_together(cuts: ThresholdCandidates) -> Tensor:
    """Choose a cut for each label so that F1 of all entries is highest."""
    best = _best_of_each(cuts)
    while True:
        # A choice has a higher F1 than a / b if and only if it makes 2 TP * b - a * (P + Q) positive.
        reached = cuts.pooled_f1(best)
        chosen = cuts.best(partial(_worth, *reached), above=0.0)
        found = cuts.pooled_f1(chosen)
        if found[0] * reached[1] <= reached[0] * found[1]:
            return chosen
        best = chosen


def _worth(top: float, bottom: float, hits: Tensor, accepted: Tensor, _positives: Tensor) -> Tensor:
    return 2 * hits * bottom - top * accepted
