"""Ranks of the positives within many groups at once: the rows of a label, or the labels of a row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mlmetric.metrics._checks import count_true

Array = npt.NDArray[Any]
SMALL = 2**16
"""Fewer numbers are sorted by one thread: to start others takes longer."""
MANY = 64
"""So many needles are searched for row by row."""


class RankedGroups(NamedTuple):
    """G groups of M entries, of which about as many are positive in each.

    `groups`: which ones, `(G,)`; `scores`: ascending `(G, M)`, float32 or float64, masked entries in front as -inf;
    `needles`: scores of the positives, ascending `(G, P)`, then +inf; `valid`: bool `(G, P)`, the needles that are
    positives; `positives`, `entries`: how many positives and entries count in each group, `(G, 1)`.
    """

    groups: Tensor
    scores: Tensor
    needles: Tensor
    valid: Tensor
    positives: Tensor
    entries: Tensor

    def at_least(self) -> tuple[Tensor, Tensor]:
        """Count for each positive the entries, and the positives, that score as high or higher: float64 `(G, P)`."""
        return self._count(right=False)

    def above(self) -> tuple[Tensor, Tensor]:
        """Count for each positive the entries, and the positives, that score higher: float64 `(G, P)`."""
        return self._count(right=True)

    def _count(self, *, right: bool) -> tuple[Tensor, Tensor]:
        lower = _places(self.scores, self.needles, right=right)
        # For a positive at -inf the masked entries, which are -inf too, would count.
        retrieved = (self.scores.shape[1] - lower).minimum(self.entries)
        hits = self.positives - _places(self.needles, self.needles, right=right)
        return retrieved.double(), hits.clamp(min=0).double()


def rank_groups(
    scores: Tensor, positive: Tensor, mask: Tensor | None, judge: Callable[[RankedGroups], tuple[Tensor, ...]], n: int
) -> tuple[Tensor, ...]:
    """Judge each group by `n` numbers, of which `judge` makes `(G,)` each: float64 `(G,)` each, NaN without positives.

    Args:
        scores: Shape `(G, M)`, -inf where `mask` is False.
        positive: bool `(G, M)`.
        mask: bool `(G, M)`, or None.
        judge: Gets groups of like numbers of positives, at least one each.
        n: How many numbers it returns.
    """
    results = tuple(scores.new_full((len(scores),), torch.nan, dtype=torch.float64) for _ in range(n))
    for ranked in ranked_groups(scores, positive, mask):
        for result, values in zip(results, judge(ranked), strict=True):
            result[ranked.groups] = values
    return results


def ranked_groups(scores: Tensor, positive: Tensor, mask: Tensor | None) -> Iterator[RankedGroups]:
    """Rank the groups with positives, those of like numbers of them together; arguments as for `rank_groups`."""
    size = scores.shape[1]
    counts = count_true(positive, dim=1)
    # Needles are padded to as many as the group with most has: at most twice what is needed.
    kinds = torch.frexp(counts.double()).exponent
    groups = kinds.argsort(stable=True)[int((kinds == 0).sum()) :]
    ordered, found = _sort(scores, positive, groups)
    start = taken = 0
    for kind in kinds.unique().tolist():  # type: ignore[no-untyped-call]
        if kind == 0:  # no positives
            continue
        members = groups[kinds[groups] == kind]
        positives = counts[members, None]
        valid = torch.arange(int(positives.max()), device=scores.device) < positives
        needles = torch.full_like(valid, torch.inf, dtype=ordered.dtype)
        needles[valid] = found[taken : taken + int(positives.sum())]
        needles = ascending(needles)
        entries = torch.full_like(positives, size) if mask is None else count_true(mask[members], dim=1)[:, None]
        part = ordered[start : start + len(members)]
        yield RankedGroups(members, part, needles, valid, positives, entries)
        start, taken = start + len(members), taken + int(positives.sum())


def _sort(scores: Tensor, positive: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    """Copy `groups`, each ascending, `(G, M)`, and the scores of their positives one group after the other, `(P,)`."""
    if scores.dtype != torch.float64:
        scores = scores.float()
    if scores.device.type != "cpu":
        copies = scores[groups]
        return copies.sort(dim=1).values, copies[positive[groups]]
    ordered = scores.new_empty(len(groups), scores.shape[1])

    def sort(part: slice) -> Array:
        rows = groups[part].numpy()
        copies = ordered[part].numpy()
        copies[...] = scores.numpy()[rows]
        found: Array = np.compress(positive.numpy()[rows].ravel(), copies)  # faster than a mask as index
        copies.sort(axis=1)
        return found

    # numpy's sort of values takes a thirtieth of torch's, which sorts the indices too, but one thread. torch's own
    # threads wait busily for a while after each operation: so all is sorted in one go, in parts small enough that a
    # thread which is held up leaves them to the others.
    if ordered.numel() < SMALL:
        return ordered, torch.from_numpy(sort(slice(None)))
    threads = torch.get_num_threads()
    ends = [len(groups) * i // (4 * threads) for i in range(4 * threads + 1)]
    parts = [slice(*pair) for pair in pairwise(ends)]
    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(sort, parts))
    return ordered, torch.from_numpy(np.concatenate(found))


def _places(rows: Tensor, needles: Tensor, *, right: bool) -> Tensor:
    """Search each row of `needles` in that of `rows`, both ascending: int64, as `torch.searchsorted`."""
    if rows.device.type != "cpu" or needles.shape[1] < MANY:
        return torch.searchsorted(rows, needles, right=right)
    # numpy searches ascending needles several times faster, but one row at a time.
    side: Literal["left", "right"] = "right" if right else "left"
    places = np.empty(needles.shape, dtype=np.int64)
    for place, row, needle in zip(places, rows.numpy(), needles.numpy(), strict=True):
        place[:] = np.searchsorted(row, needle, side)
    return torch.from_numpy(places)


def ascending(values: Tensor) -> Tensor:
    """Sort float32 or float64 numbers along the last dimension."""
    return torch.from_numpy(np.sort(values.numpy())) if values.device.type == "cpu" else values.sort(dim=-1).values
