"""What the miners of pytorch-metric-learning mine from a relation of labels, one function for each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mlmetric.miners._triplets import TripletRule, Triplets, select_triplets

Pairs = tuple[Tensor, Tensor]

# Elements of the (pairs, M) or (pairs, D) matrices that `angular` works on together.
_CHUNK_ELEMENTS = 2**20


@dataclass(frozen=True)
class Batch:
    """What a reading sees of a batch.

    Attributes:
        embeddings: Shape `(N, D)`.
        ref_emb: Shape `(M, D)`.
        distance: Shape `(N, M)`, smaller is nearer: of inverted distances the negative.
        sign: -1 for inverted distances, else 1; times `distance` it gives the distance's own values.
        relation: Shape `(N, M)`, 1 for positive, -1 for negative, 0 for ignored pairs, self-pairs among them.
        batch_first: Whether ref i is item i of the batch.
    """

    embeddings: Tensor
    ref_emb: Tensor
    distance: Tensor
    sign: int
    relation: Tensor
    batch_first: bool

    @property
    def positive(self) -> Tensor:
        return self.relation > 0

    @property
    def negative(self) -> Tensor:
        return self.relation < 0


def triplet_margin(miner: Any, batch: Batch) -> Triplets:
    """Select the triplets of the relation in the distance relation `type_of_triplets`."""
    rule = TripletRule(
        positive_threshold=0.5,
        partial_threshold=-0.5,
        max_partial_per_positive=0,  # the ignored pairs, self-pairs among them
        type_of_triplets=miner.type_of_triplets,
        margin=miner.margin,
    )
    similarity = batch.relation.float()
    return select_triplets(batch.distance, similarity, rule, self_pairs=False, generator=None)


def angular(miner: Any, batch: Batch) -> Triplets:
    """Select the triplets of the relation with `atan(|a - p| / (2 |n - (a + p) / 2|)) > angle`."""
    dtype = torch.promote_types(batch.embeddings.dtype, torch.float32)
    embeddings, ref_emb = batch.embeddings.to(dtype), batch.ref_emb.to(dtype)
    chunk = max(1, _CHUNK_ELEMENTS // max(ref_emb.shape))
    found = []
    for anchors, positives in zip(*(torch.split(part, chunk) for part in torch.where(batch.positive)), strict=True):
        a, p = embeddings[anchors], ref_emb[positives]
        to_center = torch.cdist((a + p) / 2, ref_emb, compute_mode="donot_use_mm_for_euclid_dist")
        angles = torch.atan2((a - p).norm(dim=1, keepdim=True), 2 * to_center)
        pair, negatives = torch.where((batch.relation[anchors] < 0) & (angles > miner.angle))
        found.append((anchors[pair], positives[pair], negatives))
    anchors, positives, negatives = (torch.cat(part) for part in zip(*found, strict=True))
    return anchors, positives, negatives


def pair_margin(miner: Any, batch: Batch) -> tuple[Tensor, ...]:
    """Select positives farther than `pos_margin` and negatives nearer than `neg_margin`."""
    positive = batch.positive & (batch.distance > batch.sign * miner.pos_margin)
    negative = batch.negative & (batch.distance < batch.sign * miner.neg_margin)
    return *torch.where(positive), *torch.where(negative)


def multi_similarity(miner: Any, batch: Batch) -> tuple[Tensor, ...]:
    """Select positives and negatives that lie within `epsilon` of the wrong order with the worst of the others."""
    farthest_positive, _ = _extreme(batch.distance, batch.positive, farthest=True)
    nearest_negative, _ = _extreme(batch.distance, batch.negative, farthest=False)
    positive = batch.positive & (batch.distance + miner.epsilon > nearest_negative[:, None])
    negative = batch.negative & (batch.distance - miner.epsilon < farthest_positive[:, None])
    return *torch.where(positive), *torch.where(negative)


def batch_easy_hard(miner: Any, batch: Batch) -> tuple[Tensor, ...]:
    """Select one positive and one negative for each anchor that has both; under `"all"` all of that side."""
    positive = batch.positive & _within(miner.allowed_pos_range, batch)
    negative = batch.negative & _within(miner.allowed_neg_range, batch)
    farthest_positive, farthest_negative = miner.pos_strategy != "easy", miner.neg_strategy == "easy"
    if miner.pos_strategy == "semihard":
        chosen, _ = _extreme(batch.distance, negative, farthest=farthest_negative)
        positive &= batch.distance < chosen[:, None]
    if miner.neg_strategy == "semihard":
        chosen, _ = _extreme(batch.distance, positive, farthest=farthest_positive)
        negative &= batch.distance > chosen[:, None]

    _, positives = _extreme(batch.distance, positive, farthest=farthest_positive)
    _, negatives = _extreme(batch.distance, negative, farthest=farthest_negative)
    has_positive, has_negative = positive.any(1), negative.any(1)
    if "all" not in (miner.pos_strategy, miner.neg_strategy):
        has_positive = has_negative = has_positive & has_negative
    return (
        *_pairs(miner.pos_strategy, batch.positive, has_positive, positives),
        *_pairs(miner.neg_strategy, batch.negative, has_negative, negatives),
    )


def batch_hard(miner: Any, batch: Batch) -> Triplets:
    """Select for each anchor its farthest positive and its nearest negative, as triplets."""
    anchors, positives, _, negatives = batch_easy_hard(miner, batch)
    return anchors, positives, negatives


def hardest_share(miner: Any, batch: Batch) -> tuple[Tensor, ...]:
    """Select the farthest share of all positive pairs, and the nearest of all negative ones."""
    pairs = (*torch.where(batch.positive), *torch.where(batch.negative))
    if miner.was_set_externally:
        pairs = tuple(part.to(batch.distance.device) for part in (miner.a1, miner.p, miner.a2, miner.n))

    def hardest(anchors: Tensor, others: Tensor, *, farthest: bool) -> Pairs:
        number = math.ceil(miner.filter_percentage * len(anchors))
        _, kept = batch.distance[anchors, others].topk(number, largest=farthest)
        return anchors[kept], others[kept]

    return *hardest(*pairs[:2], farthest=True), *hardest(*pairs[2:], farthest=False)


def uniform_histogram(miner: Any, batch: Batch) -> tuple[Tensor, ...]:
    """Draw as many pairs, with replacement, from each bin of distances that holds any."""
    values = batch.sign * batch.distance

    def draw(number: int, anchors: Tensor, others: Tensor) -> Pairs:
        if len(anchors) == 0:
            return anchors, others
        of_pairs = values[anchors, others]
        lowest, highest = of_pairs.aminmax()
        edges = torch.linspace(
            lowest.item(), highest.item(), miner.num_bins + 1, dtype=values.dtype, device=values.device
        )
        bins = torch.bucketize(of_pairs, edges, right=True).clamp_(max=miner.num_bins)
        members = torch.split(bins.argsort(stable=True), bins.bincount().tolist())
        drawn = torch.cat([part[_draw(part, number)] for part in members if len(part) > 0])
        return anchors[drawn], others[drawn]

    return (
        *draw(miner.pos_per_bin, *torch.where(batch.positive)),
        *draw(miner.neg_per_bin, *torch.where(batch.negative)),
    )


def packaged_triplets(miner: Any, batch: Batch) -> Triplets:
    """Take each three rows that follow one another for a triplet."""
    number = len(batch.embeddings)
    if number % 3 != 0 or not batch.batch_first:
        got = f"{number} rows" if number % 3 != 0 else "refs of their own"
        raise ValueError(
            f"`embeddings` must be triplets of rows, anchor, positive, negative, and there are no refs to them, "
            f"for {type(miner).__name__}; got {got}."
        )
    anchors, positives, negatives = torch.arange(number, device=batch.distance.device).view(-1, 3).T
    return anchors, positives, negatives


def _extreme(distance: Tensor, mask: Tensor, *, farthest: bool) -> Pairs:
    """Return the farthest, or nearest, distance of each row under a mask, and where it is; infinite without any."""
    masked = distance.masked_fill(~mask, -math.inf if farthest else math.inf)
    values, indices = masked.max(1) if farthest else masked.min(1)
    return values, indices


def _within(allowed: tuple[float, float] | None, batch: Batch) -> Tensor | bool:
    """Say which distances lie within a range that is given in the distance's own values, ends included."""
    if allowed is None:
        return True
    values = batch.sign * batch.distance
    return (values >= allowed[0]) & (values <= allowed[1])


def _pairs(strategy: str, related: Tensor, has_one: Tensor, one: Tensor) -> Pairs:
    if strategy == "all":
        anchors, others = torch.where(related)
        return anchors, others
    (anchors,) = torch.where(has_one)
    return anchors, one[anchors]


def _draw(members: Tensor, number: int) -> Tensor:
    """Draw as pytorch-metric-learning does, so that one seed gives one answer."""
    weights = torch.ones(len(members), device=members.device)
    return torch.multinomial(weights, number, replacement=True)
