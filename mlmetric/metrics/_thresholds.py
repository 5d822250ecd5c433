"""Thresholds chosen on a validation split."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mlmetric.metrics._checks import TensorLike, check_choice, check_scores
from mlmetric.metrics._counting import label_columns, rank_positives

Average = Literal["none", "micro"]


def best_thresholds(
    preds: TensorLike, target: TensorLike, *, average: Average = "none", fallback: float | None = None
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
        average: `"none"`: one threshold a label for the F1 of each label, which makes macro F1 as high as it gets.
            `"micro"`: one threshold for all labels and the micro F1.
        fallback: The threshold where there is no positive to learn from. By default a label without positives gets
            the `"micro"` threshold of the whole matrix: on the scale of the other labels and within reach of the
            scores, whereas "accept nothing" would hold for ever. Where labels have scales of their own, pass a
            number, or `float("inf")` to accept nothing.

    Returns:
        float64, shape `(L,)`, or 0-d for `"micro"`, on the device of `preds`.

    Raises:
        TypeError: If an argument does not hold real numbers.
        ValueError: If a shape does not fit, a score is NaN, `target` is soft, `average` is none of these, or there
            is no positive at all and no `fallback`.

    Example:
        >>> preds = torch.tensor([[0.9, 0.3, 0.6], [0.6, 0.1, 0.5], [0.5, 0.2, 0.1], [0.1, 0.2, 0.2]])
        >>> target = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0]])
        >>> best_thresholds(preds, target)  # the third label has no positives
        tensor([0.5500, 0.1500, 0.1500], dtype=torch.float64)
        >>> best_thresholds(preds, target, average="micro")
        tensor(0.1500, dtype=torch.float64)
    """
    check_choice(average, "average", Average)
    preds, target = check_scores(preds, target)
    if average == "micro":
        return _threshold(*_pooled(preds, target), preds.dtype, fallback)
    if fallback is None and not bool(target.any(dim=0).all()):
        fallback = float(_threshold(*_pooled(preds, target), preds.dtype, None))
    thresholds = preds.new_empty(preds.shape[1], dtype=torch.float64)
    for label, (scores, positive) in enumerate(zip(label_columns(preds), target.T.contiguous(), strict=True)):
        thresholds[label] = _threshold(scores, positive, preds.dtype, fallback)
    return thresholds


def _pooled(preds: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    return label_columns(preds.reshape(-1, 1))[0], target.reshape(-1)


def _threshold(scores: Tensor, positive: Tensor, dtype: torch.dtype, fallback: float | None) -> Tensor:
    ranks = rank_positives(scores, positive)
    if not len(ranks.positives):
        if fallback is None:
            raise ValueError(f"`target` must hold a positive, got none in {len(scores)} entries. Pass a `fallback`.")
        return scores.new_tensor(fallback, dtype=torch.float64)
    # A lower cut that adds no positive only lowers F1: the best one lies at the score of a positive.
    f1 = 2 * ranks.hits / (ranks.retrieved + len(ranks.positives))
    best = len(f1) - 1 - f1.flip(0).argmax()
    accepted = ranks.positives[best].double()
    num_rejected = len(scores) - int(ranks.retrieved[best])
    if not num_rejected:
        return accepted
    rejected = ranks.scores[num_rejected - 1].double()
    # Between neighbouring numbers of the dtype, and from -inf, there is no middle.
    middle = (rejected / 2 + accepted / 2).to(dtype).double()
    return torch.where(middle > rejected, middle, accepted)
