"""Formulas of the losses of pytorch-metric-learning on positive and negative pairs.

With label sets a batch has many more positive pairs than with classes. Three losses compare each positive pair with the
negatives of its anchor. For this, pytorch-metric-learning builds a matrix of all positive by all negative pairs: 10^9
entries for 256 rows with 3 of 20 labels each. Here the negatives of an anchor are summed once, which gives the same
values. The other losses use their own `_compute_loss`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from mlmetric.losses._base_loss import LossDict, zero_loss_dict
from mlmetric.losses._indices_tuple import IndicesTuple, to_pairs


def pair_based(loss: Any, embeddings: Tensor, ref_emb: Tensor, indices_tuple: IndicesTuple) -> LossDict:
    """Compute the loss of a `GenericPairLoss`, however few pairs there are.

    Its own `compute_loss` returns zero for at most one positive and one negative pair, so that a single triplet, or a
    cross-batch memory with few entries, would have no gradient.
    """
    pairs = to_pairs(indices_tuple)
    if all(len(part) == 0 for part in pairs):
        return zero_loss_dict(loss)
    loss_dict: LossDict = loss.loss_method(loss.distance(embeddings, ref_emb), pairs)
    return loss_dict


def nt_xent(loss: Any, embeddings: Tensor, ref_emb: Tensor, indices_tuple: IndicesTuple) -> LossDict:
    """Return -log(e(a, p) / (e(a, p) + sum_n e(a, n))) for each positive pair, e = exp(similarity / temperature).

    Sohn, "Improved deep metric learning with multi-class N-pair loss objective", NeurIPS 2016; Chen et al., "A
    simple framework for contrastive learning of visual representations", ICML 2020. It is computed
    in logarithms, so that a share that underflows has its exact loss; pytorch-metric-learning adds the smallest number
    of the dtype to the share.
    """
    distance = loss.distance(embeddings, ref_emb)
    logits = (distance if loss.distance.is_inverted else -distance) / loss.temperature
    anchors, positives, *negative_pairs = to_pairs(indices_tuple)
    return _pair_losses(
        loss, softplus(_negatives(logits, *negative_pairs)[anchors] - logits[anchors, positives]), indices_tuple
    )


def tuplet_margin(loss: Any, embeddings: Tensor, ref_emb: Tensor, indices_tuple: IndicesTuple) -> LossDict:
    """Return log(1 + sum_n exp(s (cos(a, n) - cos(angle(a, p) - margin)))) for each positive pair.

    Yu and Tao, "Deep metric learning with tuplet margin loss", ICCV 2019.
    """
    cosine = loss.distance(embeddings, ref_emb)
    anchors, positives, *negative_pairs = to_pairs(indices_tuple)
    angles = _angles(cosine[anchors, positives])
    loss.set_stats(angles, cosine[tuple(negative_pairs)].clamp(-1, 1))
    near = loss.scale * torch.cos(angles - loss.margin)
    return _pair_losses(loss, softplus(_negatives(loss.scale * cosine, *negative_pairs)[anchors] - near), indices_tuple)


def lifted_structure(loss: Any, embeddings: Tensor, ref_emb: Tensor, indices_tuple: IndicesTuple) -> LossDict:
    """Return max(0, log sum_n exp(margin - d(n)) + d(a, p))^2 / 2, over negatives of the anchor and of the positive.

    Song et al., "Deep metric learning via lifted structured feature embedding", CVPR 2016. References have no
    negatives, so that with references only the negatives of the anchor are used; pytorch-metric-learning adds the
    negatives of the row of the batch whose index is that of the reference.
    """
    distance = loss.distance(embeddings, ref_emb)
    anchors, positives, *negative_pairs = to_pairs(indices_tuple)
    negatives = _negatives(loss.distance.margin(loss.neg_margin, distance), *negative_pairs)
    pair_negatives = negatives[anchors]
    if ref_emb is embeddings:
        pair_negatives = torch.logaddexp(pair_negatives, negatives[positives])
    near = loss.distance.margin(distance[anchors, positives], loss.pos_margin)
    losses = torch.relu(pair_negatives.masked_fill(pair_negatives.isneginf(), 0) + near) ** 2 / 2
    return _pair_losses(loss, losses, indices_tuple)


def _angles(cosine: Tensor) -> Tensor:
    """Return angles, without gradient where a cosine is 1 or -1, where the gradient of `acos` is infinite."""
    parallel = cosine.abs() >= 1
    angles = cosine.masked_fill(parallel, 0).acos()
    return torch.where(parallel, cosine.detach().clamp(-1, 1).acos(), angles)


def _negatives(logits: Tensor, anchors: Tensor, negatives: Tensor) -> Tensor:
    """Return log sum_n exp(logits[a, n]) over the negative pairs of each anchor, `(N,)`; -inf where there is none."""
    values = logits[anchors, negatives]
    peak = values.new_full((len(logits),), -torch.inf).scatter_reduce(0, anchors, values.detach(), "amax")
    sums = torch.zeros_like(peak).index_add(0, anchors, (values - peak[anchors]).exp())
    return sums.log() + peak


def _pair_losses(loss: Any, losses: Tensor, indices_tuple: IndicesTuple) -> LossDict:
    anchors, positives, negative_anchors, _ = to_pairs(indices_tuple)
    if len(anchors) == 0 or len(negative_anchors) == 0:
        return zero_loss_dict(loss)
    return {"loss": {"losses": losses, "indices": (anchors, positives), "reduction_type": "pos_pair"}}
