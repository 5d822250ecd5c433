"""The selection of triplets from a distance and a similarity matrix, without a thought of embeddings or labels."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from mlmetric.miners._anchors import Anchors, Runs, TripletKind, TripletRule
from mlmetric.miners._arrays import empty, repeat

Triplets = tuple[Tensor, Tensor, Tensor]

__all__ = ["TripletKind", "TripletRule", "Triplets", "select_triplets"]

# Elements of the (anchors, M) matrices that are worked on together, and triplets that are written together: bound the
# memory beyond O(N*M) and the output.
_CHUNK_ELEMENTS = {"cpu": 2**19, "cuda": 2**24}


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
    runs, negatives = [], []
    for first in range(0, num_anchors if num_refs else 0, chunk):
        rows = slice(first, first + chunk)
        anchors = Anchors(distance[rows], similarity[rows], first, rule, self_pairs=self_pairs, generator=generator)
        taken = anchors.take(pairs_at_once=max(1, elements // anchors.width))
        if len(taken.lengths) > 0:
            negatives.append(_negatives(anchors.refs, taken, elements))
            runs.append((taken.anchors.int(), taken.positives.int(), taken.lengths.int()))
    if not runs:
        return tuple(torch.empty(0, dtype=torch.int64, device=distance.device) for _ in range(3))  # type: ignore[return-value]
    total = sum(map(len, negatives))
    return *_columns(runs, total), _joined(negatives, total)


def _negatives(refs: Tensor, runs: Runs, elements: int) -> Tensor:
    """Write out the negatives of runs, int32."""
    ends = runs.lengths.cumsum(0)
    total = int(ends[-1])
    negatives = empty(total, torch.int32, refs.device)
    shifts = runs.starts - (ends - runs.lengths)
    marks = elements * torch.arange(1, -(-total // elements), device=refs.device)
    first_runs = [0, *(torch.searchsorted(ends, marks) + 1).tolist(), len(ends)]
    done = 0
    for first, last in pairwise(first_runs):
        place = repeat(shifts[first:last], runs.lengths[first:last])
        place += torch.arange(done, done + len(place), device=refs.device)
        torch.index_select(refs, 0, place, out=negatives[done : done + len(place)])
        done += len(place)
    return negatives


def _columns(runs: list[tuple[Tensor, Tensor, Tensor]], total: int) -> tuple[Tensor, Tensor]:
    anchors, positives, lengths = (torch.cat(part) for part in zip(*runs, strict=True))
    return repeat(anchors.long(), lengths, total), repeat(positives.long(), lengths, total)


def _joined(parts: list[Tensor], total: int) -> Tensor:
    """Join int32 parts to one int64 tensor, and free each part as soon as it is copied."""
    joined = empty(total, torch.int64, parts[0].device)
    for part in torch.split(joined, [len(part) for part in parts]):
        part.copy_(parts.pop(0))
    return joined
