"""Selection of triplets from a distance matrix and a similarity matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from mlmetric.miners._anchor_chunk import AnchorChunk, TripletGroups, TripletKind, TripletRule
from mlmetric.miners._array_ops import join, repeat, to_tensor

Triplets = tuple[Tensor, Tensor, Tensor]

__all__ = ["TripletKind", "TripletRule", "Triplets", "select_triplets"]

# Number of elements of the (anchors, M) and of the (pairs, M) matrices that are processed together: a bound of the
# memory in addition to O(N*M) and the output.
_CHUNK_ELEMENTS = {"cpu": 2**19, "cuda": 2**21}


def select_triplets(
    distance: Tensor,
    similarity: Tensor,
    rule: TripletRule,
    *,
    ref_includes_query: bool,
    generator: torch.Generator | None,
) -> Triplets:
    """Select triplets by a rule.

    Args:
        distance: Shape `(N, M)`, smaller is nearer.
        similarity: Shape `(N, M)`, larger is more similar.
        rule: Which triplets qualify, and how many are kept.
        ref_includes_query: Whether reference i is anchor i, and so neither its positive nor its negative.
        generator: Random generator; None for torch's global one.

    Returns:
        Anchors, positives and negatives, int64, shape `(T,)` each: sorted by anchor, then positives in
        `positive_order`, then partial before disjoint negatives.
    """
    num_anchors, num_refs = distance.shape
    elements = _CHUNK_ELEMENTS["cuda" if distance.is_cuda else "cpu"]
    chunk = max(1, elements // max(1, num_refs))
    groups: list[TripletGroups] = []
    for first in range(0, num_anchors if num_refs else 0, chunk):
        rows = slice(first, first + chunk)
        anchors = AnchorChunk(
            distance[rows], similarity[rows], first, rule, ref_includes_query=ref_includes_query, generator=generator
        )
        groups += anchors.select(chunk_size=elements)
    if not groups:
        nothing = torch.empty(0, dtype=torch.int64, device=distance.device)
        return nothing, nothing.clone(), nothing.clone()
    return _concatenate(groups)


def _concatenate(groups: list[TripletGroups]) -> Triplets:
    """Concatenate triplets, column by column."""
    anchors, positives, counts, negatives = (list(part) for part in zip(*groups, strict=True))
    groups.clear()
    per_pair = join(counts)
    all_negatives = join(negatives)
    total = len(all_negatives)
    return (
        to_tensor(repeat(join(anchors), per_pair, total)),
        to_tensor(repeat(join(positives), per_pair, total)),
        to_tensor(all_negatives),
    )
