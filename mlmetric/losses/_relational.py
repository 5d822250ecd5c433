"""Losses that need labels for more than an index tuple holds, written on a relation of pairs.

Each is its paper's formula with "of the same class" read as positive and "of another class" as negative; pairs that
are neither take no part in any sum. With one-hot labels each equals pytorch-metric-learning's. They use the wrapped
loss's hyper-parameters, distance and reducer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mlmetric.losses._base import LossDict, zero_losses
from mlmetric.losses._tuples import Indices, all_pairs, miner_weights, to_pairs

_CHUNK_ELEMENTS = 2**24  # of the largest intermediate of PNP: 64 MB in float32


@dataclass(frozen=True)
class Comparison:
    """A batch `(N, D)` against refs `(M, D)`, and the relation `(N, M)` of the two: 1, 0 or -1."""

    embeddings: Tensor
    ref_emb: Tensor
    relation: Tensor
    batch_first: bool
    indices_tuple: Indices | None = None

    def weights(self) -> Tensor:
        """Weigh the anchors by the index tuple."""
        return miner_weights(self.indices_tuple, self.embeddings, anchors_only=self.ref_emb is not self.embeddings)


def element_loss(losses: Tensor, indices: Tensor) -> dict[str, Any]:
    """Describe a loss for each of the items with these indices."""
    return {"losses": losses, "indices": indices, "reduction_type": "element"}


def log_one_plus_sum_exp(logits: Tensor, keep: Tensor, dim: int) -> Tensor:
    """Return log(1 + sum exp(logits)) over the kept entries; 0 where none is kept."""
    zero = torch.zeros_like(logits.narrow(dim, 0, 1))
    return torch.cat([logits.masked_fill(~keep, -torch.inf), zero], dim).logsumexp(dim)


def angular(loss: Any, batch: Comparison) -> LossDict:
    """Return log(1 + sum_n exp(4 t (a + p) n - 2 (1 + t) a p)) for each positive pair, t the squared tangent.

    Wang et al., "Deep metric learning with angular loss", ICCV 2017. As in pytorch-metric-learning,
    anchor and positive are unit vectors and the negatives are taken as they come.
    """
    pairs = all_pairs(batch.relation) if batch.indices_tuple is None else to_pairs(batch.indices_tuple)
    anchors, positives, negative_anchors, _ = pairs
    if len(anchors) == 0 or len(negative_anchors) == 0:
        return zero_losses(loss)
    a = loss.distance.normalize(batch.embeddings[anchors])
    p = loss.distance.normalize(batch.ref_emb[positives])
    negative = batch.relation[anchors] < 0
    loss.set_stats(a, p, batch.embeddings, batch.ref_emb, negative)
    tangent = torch.tan(loss.alpha) ** 2
    logits = 4 * tangent * ((a + p) @ batch.ref_emb.T) - 2 * (1 + tangent) * (a * p).sum(1, keepdim=True)
    losses = log_one_plus_sum_exp(logits, negative, dim=1)
    return {"loss": {"losses": losses, "indices": (anchors, positives), "reduction_type": "pos_pair"}}


def nca(loss: Any, batch: Comparison) -> LossDict:
    """Return -log of the share of the positives in sum_j exp(-s d(a, j)), j positive or negative, for each anchor.

    Goldberger et al., "Neighbourhood components analysis", NeurIPS 2004, in logarithms throughout: an anchor whose
    share underflows counts here, where pytorch-metric-learning leaves it out.
    """
    anchors = _with_positives(batch)
    if len(anchors) == 0:
        return zero_losses(loss)
    distance = loss.distance(batch.embeddings, batch.ref_emb)
    logits = loss.softmax_scale * (distance if loss.distance.is_inverted else -distance)[anchors]
    relation = batch.relation[anchors]
    every = logits.masked_fill(relation == 0, -torch.inf).logsumexp(1)
    positive = logits.masked_fill(relation <= 0, -torch.inf).logsumexp(1)
    return {"loss": element_loss((every - positive) * batch.weights()[anchors], anchors)}


def fast_ap(loss: Any, batch: Comparison) -> LossDict:
    """Return 1 - sum_bins h+ H+ / H / N+ for each anchor, h a soft histogram of distances and H its cumulation.

    Cakir et al., "Deep metric learning to rank", CVPR 2019.
    """
    anchors = _with_positives(batch)
    if len(anchors) == 0:
        return zero_losses(loss)
    distance = loss.distance(batch.embeddings, batch.ref_emb)[anchors]
    largest = 2**loss.distance.power
    centers = torch.linspace(0, largest, loss.num_edges, device=distance.device, dtype=distance.dtype)
    share = torch.relu(1 - (distance - centers.view(-1, 1, 1)).abs() * (loss.num_bins / largest))
    relation = batch.relation[anchors]
    positive, negative = ((share * mask).sum(2) for mask in (relation > 0, relation < 0))
    hits = positive * positive.cumsum(0)
    ranked = (positive + negative).cumsum(0)
    precision = (hits / ranked.masked_fill(hits == 0, 1)).sum(0) / (relation > 0).sum(1)
    return {"loss": element_loss((1 - precision) * batch.weights()[anchors], anchors)}


def pnp(loss: Any, batch: Comparison) -> LossDict:
    """Return the mean over anchors and their positives of a penalty on R, the soft count of negatives before one.

    Li et al., "Rethinking the optimization of average precision: only penalizing negative instances before positive
    ones is enough", AAAI 2022. As in pytorch-metric-learning, the anchor itself stands among its positives.
    """
    anchors = _with_positives(batch)
    if len(anchors) == 0:
        return zero_losses(loss)
    positive = batch.relation > 0
    if batch.batch_first:
        positive[anchors, anchors] = True
    similarity = loss.distance(batch.embeddings, batch.ref_emb)
    pairs = positive.nonzero()
    chunks = torch.split(pairs, max(1, _CHUNK_ELEMENTS // len(batch.ref_emb)))
    before = torch.cat(
        [
            checkpoint(_negatives_before, similarity, batch.relation, chunk, loss.anneal, use_reentrant=False)
            for chunk in chunks
        ]
    )
    sums = before.new_zeros(len(positive)).index_add(0, pairs[:, 0], _penalty(loss, before))
    mean = (sums[anchors] / positive[anchors].sum(1)).mean()
    losses = 1 - mean if loss.variant == "Dq" else mean
    return {"loss": {"losses": losses, "indices": anchors, "reduction_type": "already_reduced"}}


def _negatives_before(similarity: Tensor, relation: Tensor, pairs: Tensor, anneal: float) -> Tensor:
    anchors, positives = pairs.T
    ahead = torch.sigmoid((similarity[anchors] - similarity[anchors, positives].unsqueeze(1)) / anneal)
    return (ahead * (relation[anchors] < 0)).sum(1)


def _penalty(loss: Any, before: Tensor) -> Tensor:
    penalties: dict[str, Callable[[], Tensor]] = {
        "Ds": lambda: torch.log1p(before),
        "Dq": lambda: torch.pow(1 + before, -loss.alpha),
        "Iu": lambda: (1 + before) * torch.log1p(before),
        "Ib": lambda: torch.div(loss.b * before - torch.log1p(loss.b * before), loss.b**2),
        "O": lambda: before,
    }
    return penalties[loss.variant]()


def ranked_list(loss: Any, batch: Comparison) -> LossDict:
    """Return for each anchor (1 - imbalance) L_P + imbalance L_N, weighted means of how far pairs violate a bound.

    Wang et al., "Ranked list loss for deep metric learning", CVPR 2019. As in
    pytorch-metric-learning, pairs at distance 0 do not count, and 1e-5 M stands in each denominator.
    """
    distance = loss.distance(batch.embeddings, batch.ref_emb)
    apart = distance > 0
    too_far = _weighted_mean(distance - (loss.alpha - loss.margin), apart & (batch.relation > 0), loss.Tp)
    too_near = _weighted_mean(loss.alpha - distance, apart & (batch.relation < 0), loss.Tn)
    losses = (1 - loss.imbalance) * too_far + loss.imbalance * too_near
    return {"loss": element_loss(losses, torch.arange(len(losses), device=losses.device))}


def _weighted_mean(violation: Tensor, related: Tensor, temperature: float) -> Tensor:
    counts = related & (violation > 0)
    violation = violation.masked_fill(~counts, 0)
    weight = torch.exp(temperature * violation) * counts
    return (weight * violation).sum(1) / (weight.sum(1) + 1e-5 * counts.shape[1])


def _with_positives(batch: Comparison) -> Tensor:
    return (batch.relation > 0).any(1).nonzero().squeeze(1)
