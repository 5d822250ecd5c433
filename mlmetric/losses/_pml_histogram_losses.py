"""Formulas of the losses of pytorch-metric-learning on soft histograms: a value contributes to its two nearest bins.

The formulas in pytorch-metric-learning raise an index error at the ends of the range, for equal or opposite rows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mlmetric.losses._base_loss import LossDict, reduced_loss, zero_loss_dict
from mlmetric.losses._indices_tuple import IndicesTuple

_TOLERANCE = 1e-3  # by which cosines may exceed [-1, 1] due to rounding errors


def histogram(loss: Any, embeddings: Tensor, ref_emb: Tensor, indices_tuple: IndicesTuple) -> LossDict:
    """Return the probability that a negative pair is more similar than a positive one, by histograms of both.

    Ustinova and Lempitsky, "Learning deep embeddings with histogram loss", NeurIPS 2016. A pair counts once, whatever
    its order and the number of triplets that contain it.
    """
    anchors, positives, negatives = indices_tuple
    if len(anchors) == 0:
        return zero_loss_dict(loss)
    similarity = loss.distance(embeddings, ref_emb)
    num_bins = round(2 / loss.delta)
    densities = []
    for others in (positives, negatives):
        pairs = torch.zeros_like(similarity, dtype=torch.bool)
        pairs[torch.minimum(anchors, others), torch.maximum(anchors, others)] = True
        values = similarity[pairs]
        # Without this check there would be an index error, or on CUDA a device-side assertion.
        outside = values[values.abs() > 1 + _TOLERANCE]
        if len(outside):
            raise ValueError(
                f"`HistogramLoss` has bins for similarities in [-1, 1], got {outside[0].item():.3g} from "
                f"{type(loss.distance).__name__}. Use `CosineSimilarity`."
            )
        lower, share = _locate(values, -1, loss.delta, num_bins)
        densities.append(_soft_histogram(lower, lower + 1, share, num_bins + 1) / len(values))
    positive, negative = densities
    value = (negative * positive.cumsum(0)).sum()
    return {"loss": reduced_loss(value)}


def dynamic_soft_margin(loss: Any, embeddings: Tensor, ref_emb: Tensor, indices_tuple: IndicesTuple) -> LossDict:
    """Return the mean of d(a, p) - d(a, n), weighted by the share of previous values that it exceeds.

    Zhang and Rusinkiewicz, "Learning local descriptors with a CDF-based dynamic soft margin", ICCV 2019. The previous
    values are in a running histogram; values outside its range are counted in the outermost bins. It is detached after
    each batch (in pytorch-metric-learning it is not, so that the second `backward` fails), and not updated by a batch
    that is not finite.
    """
    anchors, positives, negatives = indices_tuple
    if len(anchors) == 0:
        return zero_loss_dict(loss)
    distance = loss.distance(embeddings, ref_emb)
    gaps = distance[anchors, positives] - distance[anchors, negatives]
    previous = loss.hist_.to(gaps)
    lower, share = _locate(gaps, loss.min_val, loss.delta, loss.num_bins)
    upper = (lower + 1).clamp(max=loss.num_bins - 1)
    momentum = loss.momentum if previous.sum() != 0 else 1.0
    running = (1 - momentum) * previous + momentum * _soft_histogram(lower, upper, share, loss.num_bins)
    running = running / running.sum()
    loss.hist_ = torch.where(running.isfinite().all(), running, previous).detach()
    losses = (running.cumsum(0)[lower] * gaps).mean()
    return {"loss": reduced_loss(losses)}


def _locate(values: Tensor, start: float, width: float, num_bins: int) -> tuple[Tensor, Tensor]:
    """Return the bin of each value and its relative position in the bin, in [0, 1].

    Values outside the range are moved to its nearest end. For NaN the position is NaN and the bin undefined.
    """
    position = ((values - start) / width).clamp(0, num_bins)
    lower = position.detach().nan_to_num(0).long().clamp(max=num_bins - 1)
    return lower, position - lower


def _soft_histogram(lower: Tensor, upper: Tensor, share: Tensor, size: int) -> Tensor:
    return share.new_zeros(size).scatter_add(0, lower, 1 - share).scatter_add(0, upper, share)
