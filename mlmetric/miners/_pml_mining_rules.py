"""Mining rules of the miners of pytorch-metric-learning, on a relation of label sets: one function for each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mlmetric.miners._triplet_selection import TripletRule, Triplets, select_triplets

Pairs = tuple[Tensor, Tensor]

# Number of elements of the (pairs, M) or (pairs, D) matrices that `angular` processes together.
_CHUNK_ELEMENTS = 2**20


@dataclass(frozen=True)
class MinerInputs:
    """Inputs of a mining rule.

    Attributes:
        embeddings: Shape `(N, D)`.
        ref_emb: Shape `(M, D)`.
        distance: Shape `(N, M)`, smaller is nearer; inverted distances are negated.
        sign: -1 for inverted distances, else 1; `sign * distance` are the values that the distance returns.
        relation: Shape `(N, M)`, 1 for positive, -1 for negative, 0 for ignored pairs, including self-pairs.
        ref_includes_query: Whether reference i is row i of the inputs.
    """

    embeddings: Tensor
    ref_emb: Tensor
    distance: Tensor
    sign: int
    relation: Tensor
    ref_includes_query: bool

    @property
    def positive(self) -> Tensor:
        return self.relation > 0

    @property
    def negative(self) -> Tensor:
        return self.relation < 0


def triplet_margin(miner: Any, inputs: MinerInputs) -> Triplets:
    """Select the triplets of a positive and a negative pair that `type_of_triplets` allows."""
    rule = TripletRule(
        positive_threshold=0.5,
        partial_threshold=-0.5,
        max_partial_per_positive=0,  # ignored pairs, including self-pairs
        type_of_triplets=miner.type_of_triplets,
        margin=miner.margin,
    )
    similarity = inputs.relation.float()
    return select_triplets(inputs.distance, similarity, rule, ref_includes_query=False, generator=None)


def angular(miner: Any, inputs: MinerInputs) -> Triplets:
    """Select the triplets of a positive and a negative pair with `atan(|a - p| / (2 |n - (a + p) / 2|)) > angle`."""
    dtype = torch.promote_types(inputs.embeddings.dtype, torch.float32)
    embeddings, ref_emb = inputs.embeddings.to(dtype), inputs.ref_emb.to(dtype)
    chunk = max(1, _CHUNK_ELEMENTS // max(ref_emb.shape))
    found = []
    for anchors, positives in zip(*(torch.split(part, chunk) for part in torch.where(inputs.positive)), strict=True):
        a, p = embeddings[anchors], ref_emb[positives]
        to_center = torch.cdist((a + p) / 2, ref_emb, compute_mode="donot_use_mm_for_euclid_dist")
        angles = torch.atan2((a - p).norm(dim=1, keepdim=True), 2 * to_center)
        pair, negatives = torch.where((inputs.relation[anchors] < 0) & (angles > miner.angle))
        found.append((anchors[pair], positives[pair], negatives))
    anchors, positives, negatives = (torch.cat(part) for part in zip(*found, strict=True))
    return anchors, positives, negatives


def pair_margin(miner: Any, inputs: MinerInputs) -> tuple[Tensor, ...]:
    """Select positives farther than `pos_margin` and negatives nearer than `neg_margin`."""
    positive = inputs.positive & (inputs.distance > inputs.sign * miner.pos_margin)
    negative = inputs.negative & (inputs.distance < inputs.sign * miner.neg_margin)
    return *torch.where(positive), *torch.where(negative)


def multi_similarity(miner: Any, inputs: MinerInputs) -> tuple[Tensor, ...]:
    """Select pairs that violate the order, up to `epsilon`, against the nearest negative or the farthest positive."""
    farthest_positive, _ = _extreme(inputs.distance, inputs.positive, farthest=True)
    nearest_negative, _ = _extreme(inputs.distance, inputs.negative, farthest=False)
    positive = inputs.positive & (inputs.distance + miner.epsilon > nearest_negative[:, None])
    negative = inputs.negative & (inputs.distance - miner.epsilon < farthest_positive[:, None])
    return *torch.where(positive), *torch.where(negative)


def batch_easy_hard(miner: Any, inputs: MinerInputs) -> tuple[Tensor, ...]:
    """Select a positive and a negative for each anchor that has both; with the strategy `"all"`, all of them."""
    positive = inputs.positive & _within(miner.allowed_pos_range, inputs)
    negative = inputs.negative & _within(miner.allowed_neg_range, inputs)
    farthest_positive, farthest_negative = miner.pos_strategy != "easy", miner.neg_strategy == "easy"
    if miner.pos_strategy == "semihard":
        chosen, _ = _extreme(inputs.distance, negative, farthest=farthest_negative)
        positive &= inputs.distance < chosen[:, None]
    if miner.neg_strategy == "semihard":
        chosen, _ = _extreme(inputs.distance, positive, farthest=farthest_positive)
        negative &= inputs.distance > chosen[:, None]

    _, positives = _extreme(inputs.distance, positive, farthest=farthest_positive)
    _, negatives = _extreme(inputs.distance, negative, farthest=farthest_negative)
    has_positive, has_negative = positive.any(1), negative.any(1)
    if "all" not in (miner.pos_strategy, miner.neg_strategy):
        has_positive = has_negative = has_positive & has_negative
    return (
        *_pairs(miner.pos_strategy, inputs.positive, has_positive, positives),
        *_pairs(miner.neg_strategy, inputs.negative, has_negative, negatives),
    )


def batch_hard(miner: Any, inputs: MinerInputs) -> Triplets:
    """Select the farthest positive and the nearest negative of each anchor, as triplets."""
    anchors, positives, _, negatives = batch_easy_hard(miner, inputs)
    return anchors, positives, negatives


def hdc(miner: Any, inputs: MinerInputs) -> tuple[Tensor, ...]:
    """Select the farthest `filter_percentage` of the positive pairs, and the nearest of the negative pairs."""
    pairs = (*torch.where(inputs.positive), *torch.where(inputs.negative))
    if miner.was_set_externally:
        pairs = tuple(part.to(inputs.distance.device) for part in (miner.a1, miner.p, miner.a2, miner.n))

    def hardest(anchors: Tensor, others: Tensor, *, farthest: bool) -> Pairs:
        number = math.ceil(miner.filter_percentage * len(anchors))
        _, kept = inputs.distance[anchors, others].topk(number, largest=farthest)
        return anchors[kept], others[kept]

    return *hardest(*pairs[:2], farthest=True), *hardest(*pairs[2:], farthest=False)


def uniform_histogram(miner: Any, inputs: MinerInputs) -> tuple[Tensor, ...]:
    """Sample the same number of pairs, with replacement, from each non-empty bin of distances."""
    values = inputs.sign * inputs.distance

    def sample(number: int, anchors: Tensor, others: Tensor) -> Pairs:
        if len(anchors) == 0:
            return anchors, others
        pair_values = values[anchors, others]
        lowest, highest = pair_values.aminmax()
        edges = torch.linspace(
            lowest.item(), highest.item(), miner.num_bins + 1, dtype=values.dtype, device=values.device
        )
        bins = torch.bucketize(pair_values, edges, right=True).clamp_(max=miner.num_bins)
        members = torch.split(bins.argsort(stable=True), bins.bincount().tolist())
        sampled = torch.cat([part[_sample(part, number)] for part in members if len(part) > 0])
        return anchors[sampled], others[sampled]

    return (
        *sample(miner.pos_per_bin, *torch.where(inputs.positive)),
        *sample(miner.neg_per_bin, *torch.where(inputs.negative)),
    )


def packaged_triplets(miner: Any, inputs: MinerInputs) -> Triplets:
    """Use every three consecutive rows as a triplet."""
    number = len(inputs.embeddings)
    if number % 3 != 0 or not inputs.ref_includes_query:
        got = f"{number} rows" if number % 3 != 0 else "`ref_emb`"
        raise ValueError(
            f"`embeddings` must consist of triplets of rows (anchor, positive, negative), without `ref_emb`, for "
            f"{type(miner).__name__}; got {got}."
        )
    anchors, positives, negatives = torch.arange(number, device=inputs.distance.device).view(-1, 3).T
    return anchors, positives, negatives


def _extreme(distance: Tensor, mask: Tensor, *, farthest: bool) -> Pairs:
    """Return the largest or smallest masked distance of each row, and its index; infinite for rows without any."""
    masked = distance.masked_fill(~mask, -math.inf if farthest else math.inf)
    values, indices = masked.max(1) if farthest else masked.min(1)
    return values, indices


def _within(allowed: tuple[float, float] | None, inputs: MinerInputs) -> Tensor | bool:
    """Return which distances lie in a closed range of the values that the distance returns."""
    if allowed is None:
        return True
    values = inputs.sign * inputs.distance
    return (values >= allowed[0]) & (values <= allowed[1])


def _pairs(strategy: str, related: Tensor, has_selected: Tensor, selected: Tensor) -> Pairs:
    if strategy == "all":
        anchors, others = torch.where(related)
        return anchors, others
    (anchors,) = torch.where(has_selected)
    return anchors, selected[anchors]


def _sample(members: Tensor, number: int) -> Tensor:
    """Sample as pytorch-metric-learning does, from torch's global generator: a seed gives the same result in both."""
    weights = torch.ones(len(members), device=members.device)
    return torch.multinomial(weights, number, replacement=True)
