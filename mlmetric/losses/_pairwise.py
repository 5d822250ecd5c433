"""Losses on positive and negative pairs.

With label sets a batch holds many more positive pairs than with classes. Three losses set each positive pair against
the negatives of its anchor, for which pytorch-metric-learning takes a table of all positive by all negative pairs: 10^9
entries at 256 items with 3 of 20 labels each. Here the negatives of an anchor are summed once, to the same values. The
other losses use their own `_compute_loss`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from mlmetric.losses._base import LossDict, zero_losses
from mlmetric.losses._tuples import Indices, to_pairs


def pair_based(loss: Any, embeddings: Tensor, ref_emb: Tensor, indices: Indices) -> LossDict:
    """Let a `GenericPairLoss` compute its loss of these pairs, however few they are.

    Its own `compute_loss` makes a zero of at most one positive and one negative pair, so that a single triplet, or a
    memory that has just begun, would train nothing.
    """
    pairs = to_pairs(indices)
    if all(len(part) == 0 for part in pairs):
        return zero_losses(loss)
    loss_dict: LossDict = loss.loss_method(loss.distance(embeddings, ref_emb), pairs)
    return loss_dict


def nt_xent(loss: Any, embeddings: Tensor, ref_emb: Tensor, indices: Indices) -> LossDict:
    """Return -log(e(a, p) / (e(a, p) + sum_n e(a, n))) for each positive pair, e = exp(similarity / temperature).

    Sohn, "Improved deep metric learning with multi-class N-pair loss objective", NeurIPS 2016; Chen et al., "A
    simple framework for contrastive learning of visual representations", ICML 2020. In logarithms throughout: a share
    that underflows counts in full, where pytorch-metric-learning adds the smallest number of the dtype to it.
    """
    distance = loss.distance(embeddings, ref_emb)
    logits = (distance if loss.distance.is_inverted else -distance) / loss.temperature
    anchors, positives, *negative_pairs = to_pairs(indices)
    return _pair_losses(
        loss, softplus(_negatives(logits, *negative_pairs)[anchors] - logits[anchors, positives]), indices
    )


def tuplet_margin(loss: Any, embeddings: Tensor, ref_emb: Tensor, indices: Indices) -> LossDict:
    """Return log(1 + sum_n exp(s (cos(a, n) - cos(angle(a, p) - margin)))) for each positive pair.

    Yu and Tao, "Deep metric learning with tuplet margin loss", ICCV 2019.
    """
    cosine = loss.distance(embeddings, ref_emb)
    anchors, positives, *negative_pairs = to_pairs(indices)
    angles = _angles(cosine[anchors, positives])
    loss.set_stats(angles, cosine[tuple(negative_pairs)].clamp(-1, 1))
    near = loss.scale * torch.cos(angles - loss.margin)
    return _pair_losses(loss, softplus(_negatives(loss.scale * cosine, *negative_pairs)[anchors] - near), indices)


def lifted_structure(loss: Any, embeddings: Tensor, ref_emb: Tensor, indices: Indices) -> LossDict:
    """Return max(0, log sum_n exp(margin - d(n)) + d(a, p))^2 / 2, over negatives of the anchor and of the positive.

    Song et al., "Deep metric learning via lifted structured feature embedding", CVPR 2016. Refs have no negatives of
    their own, so that with refs those of the anchor count alone; pytorch-metric-learning adds there the negatives of
    the item of the batch that has the number of the ref.
    """
    distance = loss.distance(embeddings, ref_emb)
    anchors, positives, *negative_pairs = to_pairs(indices)
    negatives = _negatives(loss.distance.margin(loss.neg_margin, distance), *negative_pairs)
    of_pair = negatives[anchors]
    if ref_emb is embeddings:
        of_pair = torch.logaddexp(of_pair, negatives[positives])
    near = loss.distance.margin(distance[anchors, positives], loss.pos_margin)
    losses = torch.relu(of_pair.masked_fill(of_pair.isneginf(), 0) + near) ** 2 / 2
    return _pair_losses(loss, losses, indices)


def _angles(cosine: Tensor) -> Tensor:
    """Return angles, without gradient where a cosine is 1 or -1 to rounding: that of `acos` is infinite there."""
    parallel = cosine.abs() >= 1
    angles = cosine.masked_fill(parallel, 0).acos()
    return torch.where(parallel, cosine.detach().clamp(-1, 1).acos(), angles)


def _negatives(logits: Tensor, anchors: Tensor, negatives: Tensor) -> Tensor:
    """Return log sum_n exp(logits[a, n]) over the negative pairs of each anchor, `(N,)`; -inf where there is none."""
    values = logits[anchors, negatives]
    peak = values.new_full((len(logits),), -torch.inf).scatter_reduce(0, anchors, values.detach(), "amax")
    sums = torch.zeros_like(peak).index_add(0, anchors, (values - peak[anchors]).exp())
    return sums.log() + peak


def _pair_losses(loss: Any, losses: Tensor, indices: Indices) -> LossDict:
    anchors, positives, negative_anchors, _ = to_pairs(indices)
    if len(anchors) == 0 or len(negative_anchors) == 0:
        return zero_losses(loss)
    return {"loss": {"losses": losses, "indices": (anchors, positives), "reduction_type": "pos_pair"}}
