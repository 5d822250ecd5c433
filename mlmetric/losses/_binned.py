"""Losses by histograms whose values lie between two bins and are shared out among them.

Those of pytorch-metric-learning fail with an index error at the ends of their range: at equal and opposite rows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mlmetric.losses._base import LossDict, zero_losses
from mlmetric.losses._tuples import Indices

_ROUNDING = 1e-3  # by which cosines may leave [-1, 1]


def histogram(loss: Any, embeddings: Tensor, ref_emb: Tensor, indices: Indices) -> LossDict:
    """Return the probability that a negative pair is more similar than a positive one, by histograms of both.

    Ustinova and Lempitsky, "Learning deep embeddings with histogram loss", NeurIPS 2016. A pair of two items counts
    once, in however many triplets and in whichever order.
    """
    anchors, positives, negatives = indices
    if len(anchors) == 0:
        return zero_losses(loss)
    similarity = loss.distance(embeddings, ref_emb)
    num_bins = round(2 / loss.delta)
    densities = []
    for others in (positives, negatives):
        pairs = torch.zeros_like(similarity, dtype=torch.bool)
        pairs[torch.minimum(anchors, others), torch.maximum(anchors, others)] = True
        values = similarity[pairs]
        # Without this check an index error, or on CUDA an assertion of the device, would follow.
        beyond = values[values.abs() > 1 + _ROUNDING]
        if len(beyond):
            raise ValueError(
                f"`HistogramLoss` has bins for similarities in [-1, 1], got {beyond[0].item():.3g} from "
                f"{type(loss.distance).__name__}. Take `CosineSimilarity`."
            )
        lower, share = _between(values, -1, loss.delta, num_bins)
        densities.append(_fill(lower, lower + 1, share, num_bins + 1) / len(values))
    positive, negative = densities
    value = (negative * positive.cumsum(0)).sum()
    return {"loss": {"losses": value, "indices": None, "reduction_type": "already_reduced"}}


def dynamic_soft_margin(loss: Any, embeddings: Tensor, ref_emb: Tensor, indices: Indices) -> LossDict:
    """Return the mean of d(a, p) - d(a, n), each weighted by the share of past ones that it exceeds.

    Zhang and Rusinkiewicz, "Learning local descriptors with a CDF-based dynamic soft margin", ICCV 2019. The past is
    a running histogram, whose outermost bins take what lies beyond them. It keeps no graph from batch to batch, which
    makes the second `backward` of pytorch-metric-learning's own fail, nor a batch that is not finite.
    """
    anchors, positives, negatives = indices
    if len(anchors) == 0:
        return zero_losses(loss)
    distance = loss.distance(embeddings, ref_emb)
    gaps = distance[anchors, positives] - distance[anchors, negatives]
    past = loss.hist_.to(gaps)
    lower, share = _between(gaps, loss.min_val, loss.delta, loss.num_bins)
    upper = (lower + 1).clamp(max=loss.num_bins - 1)
    momentum = loss.momentum if past.sum() != 0 else 1.0
    running = (1 - momentum) * past + momentum * _fill(lower, upper, share, loss.num_bins)
    running = running / running.sum()
    loss.hist_ = torch.where(running.isfinite().all(), running, past).detach()
    losses = (running.cumsum(0)[lower] * gaps).mean()
    return {"loss": {"losses": losses, "indices": None, "reduction_type": "already_reduced"}}


def _between(values: Tensor, start: float, width: float, num_bins: int) -> tuple[Tensor, Tensor]:
    """Return for each value the number of its bin and its position therein, in [0, 1].

    Values outside of all bins count as the nearest end; NaN has NaN for its position in some bin.
    """
    position = ((values - start) / width).clamp(0, num_bins)
    lower = position.detach().nan_to_num(0).long().clamp(max=num_bins - 1)
    return lower, position - lower


def _fill(lower: Tensor, upper: Tensor, share: Tensor, size: int) -> Tensor:
    return share.new_zeros(size).scatter_add(0, lower, 1 - share).scatter_add(0, upper, share)
