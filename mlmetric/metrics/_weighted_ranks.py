"""Average precision of weighted rows, for many weightings at once."""

from __future__ import annotations

import torch
from torch import Tensor

from mlmetric.metrics._inputs import Predictions

CHUNK = 2**22
"""How many weights are added up at once: 8 bytes each, and some copies."""


def weighted_label_precisions(predictions: Predictions, weight: Tensor) -> Tensor:
    """Return the AP of each label, its rows weighted: float64 `(L,)` or `(B, L)`, NaN without positive weight."""
    labels = zip(
        predictions.preds.T,
        predictions.target.T,
        predictions.preds.T if predictions.mask is None else predictions.mask.T,
        strict=True,
    )
    values = []
    for scores, positive, mask in labels:
        rows = torch.arange(len(scores), device=scores.device)
        rows = rows if predictions.mask is None else rows[mask]
        values.append(_average_precision(scores[rows], positive[rows], rows, weight))
    return torch.stack(values, dim=-1) if values else weight.new_empty(*weight.shape[:-1], 0)


def weighted_pooled_precision(predictions: Predictions, weight: Tensor) -> Tensor:
    """Return the AP of all entries as one ranking, each with the weight of its row: float64, 0-d or `(B,)`."""
    rows = torch.arange(len(predictions.preds), device=predictions.preds.device).repeat_interleave(
        predictions.preds.shape[1]
    )
    scores, positive = predictions.preds.reshape(-1), predictions.target.reshape(-1)
    if predictions.mask is not None:
        counts = predictions.mask.reshape(-1)
        scores, positive, rows = scores[counts], positive[counts], rows[counts]
    return _average_precision(scores, positive, rows, weight)


def _average_precision(scores: Tensor, positive: Tensor, rows: Tensor, weight: Tensor) -> Tensor:
    """Return the AP of entries `(M,)` whose weights are those of `rows`, int64 `(M,)`."""
    scores, order = scores.sort(descending=True)
    positive, rows = positive[order], rows[order]
    places = positive.nonzero().squeeze(1)
    if not len(places):
        return weight.new_full(weight.shape[:-1], torch.nan)
    # Tied entries are retrieved together: each positive counts all up to the last entry of its score.
    _, tied = scores.unique_consecutive(return_counts=True)  # type: ignore[no-untyped-call]
    last = (tied.cumsum(0) - 1).repeat_interleave(tied)[places]
    last_hit = positive.cumsum(0)[last] - 1
    values = []
    for weights in torch.split(weight.reshape(-1, weight.shape[-1]), max(1, CHUNK // len(rows))):
        ordered = weights.index_select(1, rows)
        own = ordered.index_select(1, places)
        retrieved = ordered.cumsum(dim=1).index_select(1, last)
        hits = own.cumsum(dim=1).index_select(1, last_hit)
        precision = torch.where(own > 0, hits / retrieved, 0.0)
        values.append((own * precision).sum(dim=1) / own.sum(dim=1))
    return torch.cat(values).reshape(weight.shape[:-1])
