"""Ranks of positives among many groups at once: the rows of each label, or the labels of each row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mlmetric.metrics._inputs import count_true

Array = npt.NDArray[Any]
MIN_PARALLEL_SIZE = 2**16
"""Fewer numbers are sorted by one thread, because starting further threads would take longer."""
MIN_NUMPY_POSITIVES = 64
"""From this number of positives on, numpy's `searchsorted`, called for each row, is faster than torch's."""


class RankedGroups(NamedTuple):
    """G groups of M entries each, with similar numbers of positives.

    Attributes:
        groups: Indices of the groups, `(G,)`.
        scores: Sorted scores, ascending, `(G, M)`, float32 or float64; excluded entries come first as -inf.
        positive_scores: Scores of the positives, ascending, `(G, P)`, padded with +inf.
        valid: bool `(G, P)`, False for the padding.
        positives: Number of positives of each group, `(G, 1)`.
        entries: Number of included entries of each group, `(G, 1)`.
    """

    groups: Tensor
    scores: Tensor
    positive_scores: Tensor
    valid: Tensor
    positives: Tensor
    entries: Tensor

    def count_at_least(self) -> tuple[Tensor, Tensor]:
        """Count for each positive the entries, and the positives, with an equal or higher score: float64 `(G, P)`."""
        return self._count(right=False)

    def count_above(self) -> tuple[Tensor, Tensor]:
        """Count for each positive the entries, and the positives, with a higher score: float64 `(G, P)`."""
        return self._count(right=True)

    def _count(self, *, right: bool) -> tuple[Tensor, Tensor]:
        num_lower = _search_sorted(self.scores, self.positive_scores, right=right)
        # For a positive at -inf, the difference would include the excluded entries, which are -inf too.
        num_entries = (self.scores.shape[1] - num_lower).minimum(self.entries)
        num_positives = self.positives - _search_sorted(self.positive_scores, self.positive_scores, right=right)
        return num_entries.double(), num_positives.clamp(min=0).double()


def map_groups(
    scores: Tensor,
    positive: Tensor,
    mask: Tensor | None,
    function: Callable[[RankedGroups], tuple[Tensor, ...]],
    num_results: int,
) -> tuple[Tensor, ...]:
    """Apply a function to all groups with positives, and return float64 `(G,)` tensors, NaN for the other groups.

    Args:
        scores: Shape `(G, M)`, -inf where `mask` is False.
        positive: bool `(G, M)`.
        mask: bool `(G, M)`, or None.
        function: Receives groups with similar numbers of positives, at least one each, and returns `num_results`
            tensors with a value for each of these groups.
        num_results: Number of tensors that `function` returns.
    """
    results = tuple(scores.new_full((len(scores),), torch.nan, dtype=torch.float64) for _ in range(num_results))
    for ranked in ranked_groups(scores, positive, mask):
        for result, values in zip(results, function(ranked), strict=True):
            result[ranked.groups] = values
    return results


def ranked_groups(scores: Tensor, positive: Tensor, mask: Tensor | None) -> Iterator[RankedGroups]:
    """Yield the groups with positives; groups with similar numbers of positives are yielded together.

    Args:
        scores: Shape `(G, M)`, -inf where `mask` is False.
        positive: bool `(G, M)`.
        mask: bool `(G, M)`, or None.
    """
    size = scores.shape[1]
    counts = count_true(positive, dim=1)
    # Positives are padded to the largest number within the part, which is less than twice the smallest.
    exponents = torch.frexp(counts.double()).exponent
    groups = exponents.argsort(stable=True)[int((exponents == 0).sum()) :]
    sorted_scores, all_positive_scores = _sort(scores, positive, groups)
    start = first_positive = 0
    for exponent in exponents.unique().tolist():  # type: ignore[no-untyped-call]
        if exponent == 0:  # no positives
            continue
        members = groups[exponents[groups] == exponent]
        positives = counts[members, None]
        num_positives = int(positives.sum())
        valid = torch.arange(int(positives.max()), device=scores.device) < positives
        positive_scores = torch.full_like(valid, torch.inf, dtype=sorted_scores.dtype)
        positive_scores[valid] = all_positive_scores[first_positive : first_positive + num_positives]
        positive_scores = sort_ascending(positive_scores)
        entries = torch.full_like(positives, size) if mask is None else count_true(mask[members], dim=1)[:, None]
        part = sorted_scores[start : start + len(members)]
        yield RankedGroups(members, part, positive_scores, valid, positives, entries)
        start, first_positive = start + len(members), first_positive + num_positives


def _sort(scores: Tensor, positive: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    """Sort the scores of `groups`, `(G, M)`, and return the scores of their positives group by group, `(P,)`."""
    if scores.dtype != torch.float64:
        scores = scores.float()
    if scores.device.type != "cpu":
        selected = scores[groups]
        return selected.sort(dim=1).values, selected[positive[groups]]
    sorted_scores = scores.new_empty(len(groups), scores.shape[1])

    def sort(part: slice) -> Array:
        rows = groups[part].numpy()
        selected = sorted_scores[part].numpy()
        selected[...] = scores.numpy()[rows]
        # Faster than indexing with a mask.
        positive_scores: Array = np.compress(positive.numpy()[rows].ravel(), selected)
        selected.sort(axis=1)
        return positive_scores

    # numpy sorts values in a thirtieth of the time of torch, which sorts the indices too, but in one thread. Threads of
    # torch spin for a while after each operation, so all sorting is done without one in between; with several parts
    # for each thread, the other threads take over the parts of a thread that is delayed.
    if sorted_scores.numel() < MIN_PARALLEL_SIZE:
        return sorted_scores, torch.from_numpy(sort(slice(None)))
    num_threads = torch.get_num_threads()
    ends = [len(groups) * i // (4 * num_threads) for i in range(4 * num_threads + 1)]
    parts = [slice(*pair) for pair in pairwise(ends)]
    with ThreadPoolExecutor(num_threads) as pool:
        positive_scores = list(pool.map(sort, parts))
    return sorted_scores, torch.from_numpy(np.concatenate(positive_scores))


def _search_sorted(rows: Tensor, values: Tensor, *, right: bool) -> Tensor:
    """Search each row of `values` in the same row of `rows`, both ascending, as `torch.searchsorted` does: int64."""
    if rows.device.type != "cpu" or values.shape[1] < MIN_NUMPY_POSITIVES:
        return torch.searchsorted(rows, values, right=right)
    # numpy searches ascending values several times faster, but only one row at a time.
    side: Literal["left", "right"] = "right" if right else "left"
    indices = np.empty(values.shape, dtype=np.int64)
    for index, row, value in zip(indices, rows.numpy(), values.numpy(), strict=True):
        index[:] = np.searchsorted(row, value, side)
    return torch.from_numpy(indices)


def sort_ascending(values: Tensor) -> Tensor:
    """Sort float32 or float64 numbers along the last dimension."""
    return torch.from_numpy(np.sort(values.numpy())) if values.device.type == "cpu" else values.sort(dim=-1).values
