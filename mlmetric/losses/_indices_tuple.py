"""Index tensors of pairs and triplets, the `indices_tuple` of pytorch-metric-learning."""

from __future__ import annotations

import torch
from torch import Tensor

IndicesTuple = tuple[Tensor, ...]
"""Triplets (anchors, positives, negatives), or pairs (anchors, positives, anchors, negatives)."""


def all_pairs(relation: Tensor) -> IndicesTuple:
    """Return the positive and the negative pairs of a relation `(N, M)`, sorted by anchor, then by reference."""
    return *torch.where(relation > 0), *torch.where(relation < 0)


def to_pairs(indices_tuple: IndicesTuple) -> IndicesTuple:
    """Return pairs unchanged, and triplets as a positive and a negative pair for each."""
    if len(indices_tuple) == 4:
        return indices_tuple
    anchors, positives, negatives = indices_tuple
    return anchors, positives, anchors, negatives


def to_triplets(indices_tuple: IndicesTuple, num_anchors: int) -> IndicesTuple:
    """Return triplets unchanged, and pairs as all combinations of a positive and a negative pair of the same anchor.

    They are in the order of the positive pairs, then of the negative pairs. Memory is proportional to the result,
    whereas pytorch-metric-learning needs the product of the numbers of pairs.
    """
    if len(indices_tuple) == 3:
        return indices_tuple
    positive_anchors, positives, negative_anchors, negatives = indices_tuple
    device = positives.device
    per_anchor = torch.bincount(negative_anchors, minlength=num_anchors)
    first_of_anchor = per_anchor.cumsum(0) - per_anchor
    negatives = negatives[negative_anchors.argsort(stable=True)]

    per_pair = per_anchor[positive_anchors]
    pair = torch.arange(len(positives), device=device).repeat_interleave(per_pair)
    position = torch.arange(len(pair), device=device) - (per_pair.cumsum(0) - per_pair)[pair]
    anchors = positive_anchors[pair]
    return anchors, positives[pair], negatives[first_of_anchor[anchors] + position]


def comparable_triplets(triplets: IndicesTuple, similarity: Tensor) -> IndicesTuple:
    """Return the triplets for which neither of the two label similarities, shape `(N, M)`, is NaN."""
    anchors, positives, negatives = triplets
    keep = ~(similarity[anchors, positives].isnan() | similarity[anchors, negatives].isnan())
    return anchors[keep], positives[keep], negatives[keep]


def count_contradictions(indices_tuple: IndicesTuple, num_anchors: int, num_refs: int) -> int:
    """Count the pairs that are both positive and negative."""
    positive_anchors, positives, negative_anchors, negatives = to_pairs(indices_tuple)
    positive, negative = torch.zeros(2, num_anchors, num_refs, dtype=torch.bool, device=positives.device)
    positive[positive_anchors, positives] = True
    negative[negative_anchors, negatives] = True
    return int((positive & negative).sum())


def miner_weights(indices_tuple: IndicesTuple | None, embeddings: Tensor, *, anchors_only: bool) -> Tensor:
    """Weight each row by its number of occurrences in `indices_tuple`, divided by the largest number.

    This is `convert_to_weights` of pytorch-metric-learning.

    Args:
        indices_tuple: Triplets or pairs; None or empty for weights of 1.
        embeddings: The batch, shape `(N, D)`.
        anchors_only: Whether only the anchors are rows of the batch; positives and negatives are then not counted.

    Returns:
        Shape `(N,)`, in [0, 1], in the dtype of the embeddings.
    """
    if indices_tuple is None or all(len(part) == 0 for part in indices_tuple):
        return embeddings.new_ones(len(embeddings))
    used = to_pairs(indices_tuple)[::2][: len(indices_tuple) - 2] if anchors_only else indices_tuple
    counts = torch.bincount(torch.cat(used), minlength=len(embeddings)).to(embeddings.dtype)
    return counts / counts.max()
