"""Index tuples: made from a relation, turned from pairs into triplets, counted."""

from __future__ import annotations

import torch
from torch import Tensor

Indices = tuple[Tensor, ...]
"""Triplets (anchors, positives, negatives), or pairs (anchors, positives, anchors, negatives)."""


def all_pairs(relation: Tensor) -> Indices:
    """Return the positive and the negative pairs of a relation `(N, M)`, ordered by anchor, then by ref."""
    return *torch.where(relation > 0), *torch.where(relation < 0)


def to_pairs(indices: Indices) -> Indices:
    """Return pairs as they are, and triplets as one positive and one negative pair for each."""
    if len(indices) == 4:
        return indices
    anchors, positives, negatives = indices
    return anchors, positives, anchors, negatives


def to_triplets(indices: Indices, num_anchors: int) -> Indices:
    """Return triplets as they are, and join each positive pair with each negative pair of its anchor.

    The order is that of the positive pairs, then that of the negative ones. Memory is that of the result, where the
    join of pytorch-metric-learning takes the product of the numbers of pairs.
    """
    if len(indices) == 3:
        return indices
    positive_anchors, positives, negative_anchors, negatives = indices
    device = positives.device
    per_anchor = torch.bincount(negative_anchors, minlength=num_anchors)
    first_of_anchor = per_anchor.cumsum(0) - per_anchor
    negatives = negatives[negative_anchors.argsort(stable=True)]

    per_pair = per_anchor[positive_anchors]
    pair = torch.arange(len(positives), device=device).repeat_interleave(per_pair)
    position = torch.arange(len(pair), device=device) - (per_pair.cumsum(0) - per_pair)[pair]
    anchors = positive_anchors[pair]
    return anchors, positives[pair], negatives[first_of_anchor[anchors] + position]


def count_contradictions(indices: Indices, num_anchors: int, num_refs: int) -> int:
    """Count the pairs that are positive in one place of the tuple and negative in another."""
    positive_anchors, positives, negative_anchors, negatives = to_pairs(indices)
    positive, negative = torch.zeros(2, num_anchors, num_refs, dtype=torch.bool, device=positives.device)
    positive[positive_anchors, positives] = True
    negative[negative_anchors, negatives] = True
    return int((positive & negative).sum())


def miner_weights(indices: Indices | None, embeddings: Tensor, *, anchors_only: bool) -> Tensor:
    """Weigh each item by how often the tuple holds it, over the most that it holds any; without a tuple by 1.

    Args:
        indices: Triplets or pairs.
        embeddings: The batch, shape `(N, D)`.
        anchors_only: Whether only the anchors of the tuple are items of the batch.

    Returns:
        Shape `(N,)`, in the dtype of the embeddings, in [0, 1].
    """
    if indices is None or all(len(part) == 0 for part in indices):
        return embeddings.new_ones(len(embeddings))
    used = to_pairs(indices)[::2][: len(indices) - 2] if anchors_only else indices
    counts = torch.bincount(torch.cat(used), minlength=len(embeddings)).to(embeddings.dtype)
    return counts / counts.max()
