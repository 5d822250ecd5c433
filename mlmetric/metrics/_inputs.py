"""Scores and the truth beside them, checked once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mlmetric.labels import check_labels
from mlmetric.metrics._checks import TensorLike, check_weight, has_nan, to_tensor


class Predictions(NamedTuple):
    """Scores and truth of the same shape `(N, L)`, on one device.

    `preds`: floating, -inf where the mask leaves an entry out; `target`: bool, False there; `mask`: bool, True where
    an entry counts, or None where all do; `weight`: float64 `(N,)` or `(B, N)`, or None where all rows weigh 1.
    """

    preds: Tensor
    target: Tensor
    mask: Tensor | None = None
    weight: Tensor | None = None

    def pooled(self) -> Predictions:
        """Return all entries as rows of one label, unweighted: `(N L, 1)`."""
        mask = None if self.mask is None else self.mask.reshape(-1, 1)
        return Predictions(self.preds.reshape(-1, 1), self.target.reshape(-1, 1), mask)


def check_predictions(
    preds: TensorLike,
    target: TensorLike,
    mask: TensorLike | None = None,
    sample_weight: TensorLike | None = None,
) -> Predictions:
    """Check scores, truth, mask and weights: `preds` floating (integers and bools become float64), `target` bool."""
    preds, target = to_tensor(preds, "preds"), to_tensor(target, "target")
    check_labels(target, name="target", validate_args=False)
    if preds.shape != target.shape:
        raise ValueError(
            f"`preds` and `target` must have the same shape (N, L), got {tuple(preds.shape)} and {tuple(target.shape)}."
        )
    preds = preds if preds.is_floating_point() else preds.double()
    target = target.to(preds.device)
    counts = None if mask is None else _check_mask(mask, preds)
    if counts is not None:
        preds, target = preds.masked_fill(~counts, -torch.inf), target.masked_fill(~counts, 0)
    if has_nan(preds):
        raise ValueError(f"`preds` must hold no NaN, got one at {_first(preds.isnan())}.")
    if target.dtype != torch.bool:
        positive = target == 1
        fractional = ~(positive | (target == 0))
        if bool(fractional.any()):
            raise ValueError(
                f"`target` must be hard multi-hot, 0 or 1, got {target[fractional][0].item():g} at "
                f"{_first(fractional)}. Soft labels become hard by a comparison, as `target >= 0.5`; entries that were "
                "not annotated are left out by `mask`."
            )
        target = positive
    return Predictions(preds, target, counts, check_weight(sample_weight, len(preds), preds.device))


def decide(predictions: Predictions, threshold: float | TensorLike | None, top_k: int | None) -> Tensor:
    """Decide which labels are predicted: bool `(N, L)`, False where the mask leaves an entry out."""
    preds = predictions.preds
    decided = (
        torch.ones_like(preds, dtype=torch.bool) if threshold is None else preds >= _check_threshold(threshold, preds)
    )
    if predictions.mask is not None:
        decided &= predictions.mask
    return decided if top_k is None else decided & _highest(predictions, top_k)


def _check_threshold(threshold: float | TensorLike, preds: Tensor) -> Tensor:
    given, num_labels = to_tensor(threshold, "threshold"), preds.shape[1]
    if given.shape not in ((), (num_labels,)):
        raise ValueError(
            f"`threshold` must be a number or one a label, shape ({num_labels},), got shape {tuple(given.shape)}."
        )
    if bool(given.isnan().any()):
        raise ValueError(f"`threshold` must hold no NaN, got {given.tolist()}.")
    return given.to(preds)


def _highest(predictions: Predictions, k: int) -> Tensor:
    preds, num_labels = predictions.preds, predictions.preds.shape[1]
    if not 1 <= k <= num_labels:
        raise ValueError(f"`top_k` must be from 1 to {num_labels}, the number of labels, or None, got {k}.")
    last = preds.topk(k, dim=1).values[:, -1:]
    above, tied = preds > last, preds == last
    if predictions.mask is not None:
        tied &= predictions.mask
    # Of the labels that tie for the last places those of the lowest index are taken.
    return above | (tied & (tied.cumsum(dim=1) <= k - above.sum(dim=1, keepdim=True)))


def _check_mask(mask: TensorLike, preds: Tensor) -> Tensor:
    given = to_tensor(mask, "mask")
    if given.shape != preds.shape:
        raise ValueError(
            f"`mask` must have the shape of `preds`, {tuple(preds.shape)}, True where an entry counts, "
            f"got {tuple(given.shape)}."
        )
    if given.dtype != torch.bool:
        if not bool(((given == 0) | (given == 1)).all()):
            raise ValueError("`mask` must be bool, or hold 0 and 1 only: True where an entry counts.")
        given = given == 1
    return given.to(preds.device)


def _first(where: Tensor) -> str:
    row, label = where.nonzero()[0].tolist()
    return f"row {row}, label {label}"
