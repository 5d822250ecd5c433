"""Selection of triplets from a distance matrix and a similarity matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from mlmetric.miners._anchor_chunk import AnchorChunk, TripletGroups, TripletKind, TripletRule
from mlmetric.miners._array_ops import copy_into, empty, repeat, to_array, to_tensor

Triplets = tuple[Tensor, Tensor, Tensor]

__all__ = ["TripletKind", "TripletRule", "Triplets", "select_triplets"]

# Number of elements of the (anchors, M) matrices that are processed together, and of triplets that are written
# together: a bound of the memory in addition to O(N*M) and the output.
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
    return _concatenate(groups, 8 * elements // max(1, num_refs), distance.device)


def _concatenate(groups: list[TripletGroups], pairs_per_chunk: int, device: torch.device) -> Triplets:
    """Concatenate triplets, column by column; the int32 negatives of each part are freed after the copy."""
    pairs = [part[:3] for part in groups]
    total = sum(len(part.negatives) for part in groups)
    negatives, done = empty(total, torch.int64, device), 0
    while groups:
        part = groups.pop(0).negatives
        copy_into(negatives[done : done + len(part)], part)
        done += len(part)
    if total == 0:
        return torch.empty_like(negatives), torch.empty_like(negatives), negatives
    anchors, positives, counts = (torch.cat(part) for part in zip(*pairs, strict=True))
    del pairs
    return (
        _repeat_in_chunks(anchors, counts, pairs_per_chunk),
        _repeat_in_chunks(positives, counts, pairs_per_chunk),
        negatives,
    )


def _repeat_in_chunks(values: Tensor, counts: Tensor, chunk_size: int) -> Tensor:
    """Repeat each value `counts` times, int64, `chunk_size` values at a time."""
    chunks = [torch.split(part, max(1, chunk_size)) for part in (values, counts, counts.cumsum(0))]
    ends = torch.stack([part[-1] for part in chunks[2]]).tolist()
    repeated, done = empty(ends[-1], torch.int64, values.device), 0
    for some, times, end in zip(*chunks[:2], ends, strict=True):
        copy_into(repeated[done:end], to_tensor(repeat(to_array(some), to_array(times), end - done)))
        done = end
    return repeated
