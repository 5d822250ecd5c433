"""How well the scores of each label rank its positives."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mlmetric.metrics._checks import TensorLike, check_choice, check_scores
from mlmetric.metrics._counting import label_columns, rank_positives
from mlmetric.metrics._undefined import Empty, settle, settled_mean

Average = Literal["macro", "micro"]


def average_precision(preds: TensorLike, target: TensorLike, *, empty: Empty = "nan") -> Tensor:
    """Average the precision at each positive of a label: non-interpolated average precision (AP).

    `AP_c = (1/P_c) sum over positives i of #{positives j: s_j >= s_i} / #{j: s_j >= s_i}`. 1 is best: every positive
    scores higher than every negative. Tied rows are retrieved together, so the order of the rows does not matter;
    with all scores tied AP is the share of positives. A label without positives is undefined.

    Args:
        preds: Scores, shape `(N, L)`, any real dtype, any scale (logits or probabilities), infinities allowed. They
            are ranked as they are; integers are read as float64.
        target: Truth, shape `(N, L)`, hard multi-hot: bool, or the numbers 0 and 1.
        empty: What a label without positives gets: `"nan"`, `"zero"` (as in scikit-learn), `"one"` or `"error"`.

    Returns:
        float64, shape `(L,)`, in [0, 1], on the device of `preds`.

    Raises:
        TypeError: If an argument does not hold real numbers.
        ValueError: If a shape does not fit, a score is NaN, `target` is soft, `empty` is none of these, or is
            `"error"` and a label has no positives.

    Example:
        >>> preds = torch.tensor([[0.9, 0.4], [0.8, 0.4], [0.7, 0.1]])
        >>> target = torch.tensor([[1, 0], [0, 1], [1, 0]])
        >>> average_precision(preds, target)
        tensor([0.8333, 0.5000], dtype=torch.float64)

    Source:
        Equal to scikit-learn's `average_precision_score(average=None)`, but for `empty`.
    """
    return settle(_per_label(*check_scores(preds, target)), empty, "average_precision")


def mean_average_precision(
    preds: TensorLike, target: TensorLike, *, average: Average = "macro", empty: Empty = "nan"
) -> Tensor:
    """Average the AP of the labels (mAP), or take one AP over all entries of the matrix.

    1 is best. Labels without positives are left out of the macro mean by default; `average_precision` shows which
    these are.

    Args:
        preds: Scores, shape `(N, L)`, any real dtype and scale.
        target: Truth, shape `(N, L)`, hard multi-hot.
        average: `"macro"`: the mean over labels. `"micro"`: the N * L entries as one ranking; that compares scores
            of different labels with each other.
        empty: What a label (micro: a matrix) without positives gets: `"nan"` (left out of the mean), `"zero"` (as
            in scikit-learn), `"one"` or `"error"`.

    Returns:
        float64, 0-d, in [0, 1], on the device of `preds`. NaN if no label has positives and `empty` is `"nan"`.

    Raises:
        TypeError: If an argument does not hold real numbers.
        ValueError: As for `average_precision`, or if `average` is none of these.

    Example:
        >>> preds = torch.tensor([[0.9, 0.4, 0.2], [0.8, 0.4, 0.3], [0.7, 0.1, 0.5]])
        >>> target = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 0, 0]])
        >>> mean_average_precision(preds, target)  # the third label has no positives
        tensor(0.6667, dtype=torch.float64)
        >>> mean_average_precision(preds, target, average="micro")
        tensor(0.7222, dtype=torch.float64)

    Source:
        Equal to scikit-learn's `average_precision_score`, but for `empty`.
    """
    check_choice(average, "average", Average)
    preds, target = check_scores(preds, target)
    if average == "micro":
        pooled = _per_label(preds.reshape(-1, 1), target.reshape(-1, 1)).squeeze(0)
        return settle(pooled, empty, "mean_average_precision")
    return settled_mean(_per_label(preds, target), empty, "mean_average_precision")


def _per_label(preds: Tensor, target: Tensor) -> Tensor:
    values = preds.new_empty(preds.shape[1], dtype=torch.float64)
    for label, (scores, positive) in enumerate(zip(label_columns(preds), target.T.contiguous(), strict=True)):
        ranks = rank_positives(scores, positive)
        values[label] = (ranks.hits / ranks.retrieved).mean()
    return values
