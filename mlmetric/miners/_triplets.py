"""The selection of triplets from a distance and a similarity matrix, without a thought of embeddings or labels."""

from __future__ import annotations

import torch
from torch import Tensor

from mlmetric.miners._anchors import Anchors, Taken, TripletKind, TripletRule
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
    taken: list[Taken] = []
    for first in range(0, num_anchors if num_refs else 0, chunk):
        rows = slice(first, first + chunk)
        anchors = Anchors(distance[rows], similarity[rows], first, rule, self_pairs=self_pairs, generator=generator)
        taken += anchors.take(at_once=elements)
    return _written(taken, 8 * elements // max(1, num_refs), distance.device)


def _written(taken: list[Taken], pairs_at_once: int, device: torch.device) -> Triplets:
    """Write out triplets, a column after the other; int32 negatives are freed as soon as they are copied."""
    pairs = [part[:3] for part in taken]
    total = sum(len(part.negatives) for part in taken)
    negatives, done = empty(total, torch.int64, device), 0
    while taken:
        part = taken.pop(0).negatives
        store(part, negatives[done : done + len(part)])
        done += len(part)
    if total == 0:
        return torch.empty_like(negatives), torch.empty_like(negatives), negatives
    anchors, positives, counts = (torch.cat(part) for part in zip(*pairs, strict=True))
    del pairs
    return _repeated(anchors, counts, pairs_at_once), _repeated(positives, counts, pairs_at_once), negatives


def _repeated(values: Tensor, counts: Tensor, at_once: int) -> Tensor:
    """Write out each value as often as its count says, int64, `at_once` values together."""
    blocks = [torch.split(part, max(1, at_once)) for part in (values, counts, counts.cumsum(0))]
    ends = torch.stack([part[-1] for part in blocks[2]]).tolist()
    written, done = empty(ends[-1], torch.int64, values.device), 0
    for some, times, end in zip(*blocks[:2], ends, strict=True):
        store(repeat(some, times, end - done), written[done:end])
        done = end
    return written
