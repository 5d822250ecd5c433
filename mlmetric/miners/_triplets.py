"""The selection of triplets from a distance and a similarity matrix, without a thought of embeddings or labels."""

from __future__ import annotations

import torch
from torch import Tensor

from mlmetric.miners._anchors import Anchors, TripletKind, TripletRule
from mlmetric.miners._arrays import empty, repeat, store

Triplets = tuple[Tensor, Tensor, Tensor]

__all__ = ["TripletKind", "TripletRule", "Triplets", "select_triplets"]

# Elements of the (anchors, M) matrices that are worked on together, and triplets that are written together: bound the
# memory beyond O(N*M) and the output.
_CHUNK_ELEMENTS = {"cpu": 2**19, "cuda": 2**21}


def select_triplets(
    distance: Tensor,
    similarity: Tensor,
    rule: TripletRule,
    *,
    self_pairs: bool,
    generator: torch.Generator | None,
) -> Triplets:
    """Select triplets by `rule`.

    Args:
        distance: Shape `(N, M)`, smaller is nearer.
        similarity: Shape `(N, M)`, larger is more alike.
        rule: What qualifies and what is kept.
        self_pairs: Whether ref i is anchor i, and so neither its positive nor its negative.
        generator: Source of random draws.

    Returns:
        Anchors, positives and negatives, int64, shape `(T,)` each: by anchor, then in the order in which its
        positives are visited, then partial before disjoint negatives.
    """
    num_anchors, num_refs = distance.shape
    elements = _CHUNK_ELEMENTS["cuda" if distance.is_cuda else "cpu"]
    chunk = max(1, elements // max(1, num_refs))
    negatives, pairs = [], []
    for first in range(0, num_anchors if num_refs else 0, chunk):
        rows = slice(first, first + chunk)
        anchors = Anchors(distance[rows], similarity[rows], first, rule, self_pairs=self_pairs, generator=generator)
        taken = anchors.take(at_once=elements)
        negatives.append(taken.negatives)
        pairs.append([part.int() for part in taken[:3]])
    return _written(pairs, negatives, distance.device)


def _written(pairs: list[list[Tensor]], negatives: list[Tensor], device: torch.device) -> Triplets:
    """Write out the triplets of all chunks; int32 negatives are freed as soon as they are copied."""
    sizes = [len(part) for part in negatives]
    triplets = []
    for which in (2, 0, 1):
        column = empty(sum(sizes), torch.int64, device)
        for target, (*named, counts) in zip(torch.split(column, sizes), pairs, strict=True):
            store(negatives.pop(0) if which == 2 else repeat(named[which], counts, len(target)), target)
        triplets.append(column)
    third, first, second = triplets
    return first, second, third
