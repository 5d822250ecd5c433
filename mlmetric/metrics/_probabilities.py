"""Checks of predicted probabilities, and their division into bins."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from mlmetric.labels import LabelsLike
from mlmetric.metrics._inputs import Predictions, ResampleWeights, TensorLike, check_choice, check_predictions

Binning = Literal["width", "mass"]

_CHUNK_SIZE = 2**22
"""Number of entries processed at once: 32 MB for each temporary copy."""


class BinSums(NamedTuple):
    """Sums over the entries of each bin: float64, `(L, n_bins)`.

    Attributes:
        weight: Weights of the entries; their number without weights.
        predicted: Weights times predicted probabilities.
        positive: Weights of the entries with the label.
    """

    weight: Tensor
    predicted: Tensor
    positive: Tensor


def check_probabilities(
    preds: TensorLike,
    target: LabelsLike,
    mask: TensorLike | None,
    sample_weight: TensorLike | ResampleWeights | None,
) -> Predictions:
    """Check the arguments and convert them; excluded entries have the probability 0."""
    predictions = check_predictions(preds, target, mask, sample_weight)
    if predictions.mask is not None:
        predictions = predictions._replace(preds=predictions.preds.masked_fill(~predictions.mask, 0))
    invalid = (predictions.preds < 0) | (predictions.preds > 1)
    if bool(invalid.any()):
        row, label = invalid.nonzero()[0].tolist()
        raise ValueError(
            f"`preds` must contain probabilities, in [0, 1], got {predictions.preds[row, label].item():g} at row "
            f"{row}, label {label}. Convert logits with `torch.sigmoid`."
        )
    return predictions


def check_bins(n_bins: int, binning: str) -> None:
    """Check the number of bins and how they are formed."""
    check_choice(binning, "binning", Binning)
    if not n_bins >= 1:
        raise ValueError(f"`n_bins` must be at least 1, got {n_bins}.")


def label_chunks(predictions: Predictions) -> Iterator[Predictions]:
    """Yield the predictions of some labels at a time; the probabilities as float64."""
    num_rows, num_labels = predictions.preds.shape
    size = max(1, _CHUNK_SIZE // max(num_rows, 1))
    for start in range(0, max(num_labels, 1), size):
        columns = slice(start, start + size)
        mask = None if predictions.mask is None else predictions.mask[:, columns]
        yield Predictions(
            predictions.preds[:, columns].double(),
            predictions.target[:, columns],
            mask,
            predictions.weight,
        )


def pool_entries(predictions: Predictions) -> Predictions:
    """Return all entries as rows of a single label, `(N L, 1)`, with the weights of their rows."""
    weight = predictions.weight
    if weight is not None:
        weight = weight.repeat_interleave(predictions.preds.shape[1])
    return predictions.pooled()._replace(weight=weight)


def bin_sums(predictions: Predictions, n_bins: int, binning: Binning) -> BinSums:
    """Divide the entries of each label into bins by their probability, and sum over the entries of each bin.

    Args:
        predictions: Probabilities and true labels, with weights `(N,)` or None.
        n_bins: Number of bins.
        binning: `"width"`: bins of equal width, open on the left, as in scikit-learn. `"mass"`: bins with an equal
            share of the weight; equal probabilities are in the same bin.
    """
    parts = [_chunk_sums(chunk, n_bins, binning) for chunk in label_chunks(predictions)]
    return BinSums(*(torch.cat(sums) for sums in zip(*parts, strict=True)))


def _chunk_sums(chunk: Predictions, n_bins: int, binning: Binning) -> tuple[Tensor, ...]:
    preds, target = chunk.preds.T.contiguous(), chunk.target.T
    weight = torch.ones_like(preds) if chunk.weight is None else chunk.weight.expand_as(preds)
    if chunk.mask is not None:
        weight = weight * chunk.mask.T
    if binning == "width":
        edges = torch.linspace(0, 1, n_bins + 1, dtype=torch.float64, device=preds.device)
        bins = torch.bucketize(preds, edges[1:-1])
    else:
        preds, order = preds.sort(dim=1)
        weight, target = weight.gather(1, order), target.gather(1, order)
        bins = _mass_bins(preds, weight, n_bins)
    num_labels = len(preds)
    bins = (bins + n_bins * torch.arange(num_labels, device=preds.device)[:, None]).reshape(-1)
    return tuple(
        torch.bincount(bins, values.reshape(-1), minlength=n_bins * num_labels).reshape(num_labels, n_bins)
        for values in (weight, weight * preds, weight * target)
    )


def _mass_bins(ordered: Tensor, weight: Tensor, n_bins: int) -> Tensor:
    """Return the bin of each sorted entry: `n_bins` times the share of the weight with a lower probability."""
    cumulated = weight.cumsum(dim=1)
    is_tied = torch.zeros_like(ordered, dtype=torch.bool)
    is_tied[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    lower = (cumulated - weight).masked_fill_(is_tied, 0).cummax(dim=1).values
    return (n_bins * lower / cumulated[:, -1:]).nan_to_num_().long().clamp_(max=n_bins - 1)
