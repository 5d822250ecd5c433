"""Formulas of the losses of pytorch-metric-learning on the relation of all pairs, for which pairs do not suffice.

They are the formulas of the papers, where positive pairs replace pairs of the same class, and negative pairs replace
pairs of different classes; ignored pairs are omitted from all sums. With one-hot labels the values are those of
pytorch-metric-learning. The formulas use the settings, distance and reducer of the wrapped loss.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mlmetric.losses._base_loss import LossDict, element_loss, reduced_loss, zero_loss_dict
from mlmetric.losses._indices_tuple import IndicesTuple, all_pairs, miner_weights, to_pairs

_CHUNK_ELEMENTS = 2**24  # of the largest intermediate of PNP: 64 MB in float32


@dataclass(frozen=True)
class RelationInputs:
    """Inputs of a formula.

    Attributes:
        embeddings: Shape `(N, D)`.
        ref_emb: Shape `(M, D)`.
        relation: Shape `(N, M)`: 1 for positive, -1 for negative, 0 for ignored pairs.
        ref_includes_query: Whether reference i is row i of the inputs.
        indices_tuple: Triplets, pairs or None.
    """

    embeddings: Tensor
    ref_emb: Tensor
    relation: Tensor
    ref_includes_query: bool
    indices_tuple: IndicesTuple | None = None

    def weights(self) -> Tensor:
        """Return the weights of the anchors, by their number of occurrences in `indices_tuple`."""
        return miner_weights(self.indices_tuple, self.embeddings, anchors_only=self.ref_emb is not self.embeddings)


def log_one_plus_sum_exp(logits: Tensor, keep: Tensor, dim: int) -> Tensor:
    """Return log(1 + sum exp(logits)) over the entries where `keep` is True; 0 if there are none."""
    zero = torch.zeros_like(logits.narrow(dim, 0, 1))
    return torch.cat([logits.masked_fill(~keep, -torch.inf), zero], dim).logsumexp(dim)


def angular(loss: Any, inputs: RelationInputs) -> LossDict:
    """Return log(1 + sum_n exp(4 t (a + p) n - 2 (1 + t) a p)) for each positive pair, t the squared tangent.

    Wang et al., "Deep metric learning with angular loss", ICCV 2017. As in pytorch-metric-learning, anchors and
    positives are normalised and negatives are not.
    """
    pairs = all_pairs(inputs.relation) if inputs.indices_tuple is None else to_pairs(inputs.indices_tuple)
    anchors, positives, negative_anchors, _ = pairs
    if len(anchors) == 0 or len(negative_anchors) == 0:
        return zero_loss_dict(loss)
    a = loss.distance.normalize(inputs.embeddings[anchors])
    p = loss.distance.normalize(inputs.ref_emb[positives])
    negative = inputs.relation[anchors] < 0
    loss.set_stats(a, p, inputs.embeddings, inputs.ref_emb, negative)
    tangent = torch.tan(loss.alpha) ** 2
    logits = 4 * tangent * ((a + p) @ inputs.ref_emb.T) - 2 * (1 + tangent) * (a * p).sum(1, keepdim=True)
    losses = log_one_plus_sum_exp(logits, negative, dim=1)
    return {"loss": {"losses": losses, "indices": (anchors, positives), "reduction_type": "pos_pair"}}


def nca(loss: Any, inputs: RelationInputs) -> LossDict:
    """Return -log of the share of the positives in sum_j exp(-s d(a, j)), j positive or negative, for each anchor.

    Goldberger et al., "Neighbourhood components analysis", NeurIPS 2004. It is computed in logarithms, so that anchors
    whose share underflows are included; pytorch-metric-learning omits them.
    """
    anchors = _with_positives(inputs)
    if len(anchors) == 0:
        return zero_loss_dict(loss)
    distance = loss.distance(inputs.embeddings, inputs.ref_emb)
    logits = loss.softmax_scale * (distance if loss.distance.is_inverted else -distance)[anchors]
    relation = inputs.relation[anchors]
    every = logits.masked_fill(relation == 0, -torch.inf).logsumexp(1)
    positive = logits.masked_fill(relation <= 0, -torch.inf).logsumexp(1)
    return {"loss": element_loss((every - positive) * inputs.weights()[anchors], anchors)}


def fast_ap(loss: Any, inputs: RelationInputs) -> LossDict:
    """Return 1 - sum_bins h+ H+ / H / N+ for each anchor, h a soft histogram of distances, H its cumulative sum.

    Cakir et al., "Deep metric learning to rank", CVPR 2019.
    """
    anchors = _with_positives(inputs)
    if len(anchors) == 0:
        return zero_loss_dict(loss)
    distance = loss.distance(inputs.embeddings, inputs.ref_emb)[anchors]
    largest = 2**loss.distance.power
    centers = torch.linspace(0, largest, loss.num_edges, device=distance.device, dtype=distance.dtype)
    share = torch.relu(1 - (distance - centers.view(-1, 1, 1)).abs() * (loss.num_bins / largest))
    relation = inputs.relation[anchors]
    positive, negative = ((share * mask).sum(2) for mask in (relation > 0, relation < 0))
    hits = positive * positive.cumsum(0)
    ranked = (positive + negative).cumsum(0)
    precision = (hits / ranked.masked_fill(hits == 0, 1)).sum(0) / (relation > 0).sum(1)
    return {"loss": element_loss((1 - precision) * inputs.weights()[anchors], anchors)}


def pnp(loss: Any, inputs: RelationInputs) -> LossDict:
    """Return the mean over anchors and positives of a penalty on the soft number of negatives nearer than the positive.

    Li et al., "Rethinking the optimization of average precision: only penalizing negative instances before positive
    ones is enough", AAAI 2022. As in pytorch-metric-learning, the anchor itself is one of its positives.
    """
    anchors = _with_positives(inputs)
    if len(anchors) == 0:
        return zero_loss_dict(loss)
    positive = inputs.relation > 0
    if inputs.ref_includes_query:
        positive[anchors, anchors] = True
    similarity = loss.distance(inputs.embeddings, inputs.ref_emb)
    pairs = positive.nonzero()
    chunks = torch.split(pairs, max(1, _CHUNK_ELEMENTS // len(inputs.ref_emb)))
    num_nearer = torch.cat(
        [
            checkpoint(_num_nearer_negatives, similarity, inputs.relation, chunk, loss.anneal, use_reentrant=False)
            for chunk in chunks
        ]
    )
    sums = num_nearer.new_zeros(len(positive)).index_add(0, pairs[:, 0], _penalty(loss, num_nearer))
    mean = (sums[anchors] / positive[anchors].sum(1)).mean()
    losses = 1 - mean if loss.variant == "Dq" else mean
    return {"loss": reduced_loss(losses) | {"indices": anchors}}


def _num_nearer_negatives(similarity: Tensor, relation: Tensor, pairs: Tensor, anneal: float) -> Tensor:
    anchors, positives = pairs.T
    nearer = torch.sigmoid((similarity[anchors] - similarity[anchors, positives].unsqueeze(1)) / anneal)
    return (nearer * (relation[anchors] < 0)).sum(1)


def _penalty(loss: Any, num_nearer: Tensor) -> Tensor:
    penalties: dict[str, Callable[[], Tensor]] = {
        "Ds": lambda: torch.log1p(num_nearer),
        "Dq": lambda: torch.pow(1 + num_nearer, -loss.alpha),
        "Iu": lambda: (1 + num_nearer) * torch.log1p(num_nearer),
        "Ib": lambda: torch.div(loss.b * num_nearer - torch.log1p(loss.b * num_nearer), loss.b**2),
        "O": lambda: num_nearer,
    }
    return penalties[loss.variant]()


def ranked_list(loss: Any, inputs: RelationInputs) -> LossDict:
    """Return (1 - imbalance) L_P + imbalance L_N for each anchor, the weighted mean violations of two bounds.

    Wang et al., "Ranked list loss for deep metric learning", CVPR 2019. As in pytorch-metric-learning, pairs with
    distance 0 are omitted, and 1e-5 M is added to each denominator.
    """
    distance = loss.distance(inputs.embeddings, inputs.ref_emb)
    apart = distance > 0
    too_far = _weighted_mean(distance - (loss.alpha - loss.margin), apart & (inputs.relation > 0), loss.Tp)
    too_near = _weighted_mean(loss.alpha - distance, apart & (inputs.relation < 0), loss.Tn)
    losses = (1 - loss.imbalance) * too_far + loss.imbalance * too_near
    return {"loss": element_loss(losses, torch.arange(len(losses), device=losses.device))}


def _weighted_mean(violation: Tensor, related: Tensor, temperature: float) -> Tensor:
    counts = related & (violation > 0)
    violation = violation.masked_fill(~counts, 0)
    weight = torch.exp(temperature * violation) * counts
    return (weight * violation).sum(1) / (weight.sum(1) + 1e-5 * counts.shape[1])


def _with_positives(inputs: RelationInputs) -> Tensor:
    return (inputs.relation > 0).any(1).nonzero().squeeze(1)
