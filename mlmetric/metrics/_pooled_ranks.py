"""Ranks of the positives among all entries of a matrix."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mlmetric.metrics._ranks import ascending

Array = npt.NDArray[Any]
SMALL = 2**16
"""Fewer entries are sorted."""
CHUNK = 2**17
"""How many entries are put into bins at once: what a processor's cache holds."""
BINS_PER_POSITIVE = 4
MAX_BINS = 2**22


def pooled_average_precision(scores: Tensor, positive: Tensor, mask: Tensor | None) -> Tensor:
    """Return the AP of all entries as one ranking: float64, 0-d, NaN without positives.

    `scores`, `positive` and `mask`, bool or None, have the same shape.
    """
    wide = scores if scores.dtype == torch.float64 else scores.float()
    needles = ascending(wide[positive])
    if not len(needles):
        return needles.new_full((), torch.nan, dtype=torch.float64)
    entries = wide.reshape(-1) if mask is None else wide[mask]
    hits = len(needles) - torch.searchsorted(needles, needles)
    return (hits.double() / count_at_least(entries, needles)).mean()


def count_at_least(entries: Tensor, needles: Tensor) -> Tensor:
    """Count for each of the ascending `needles` the `entries` `(M,)` that are as high or higher: int64.

    On the CPU only the entries that share a bin with a needle are sorted, for a sort of them all takes longer than
    everything else that a table of metrics needs.
    """
    if entries.device.type != "cpu":
        return len(entries) - torch.searchsorted(entries.sort().values, needles)
    return torch.from_numpy(_count_by_bins(entries.numpy(), needles.numpy()))


def _count_by_bins(entries: Array, needles: Array) -> Array:
    num_bins = min(BINS_PER_POSITIVE * len(needles), MAX_BINS)
    lowest = needles[0]
    with np.errstate(all="ignore"):
        scale = entries.dtype.type(num_bins / (needles[-1] - lowest))
    # Few entries, or needles that are all equal or infinitely far apart.
    if len(entries) < SMALL or not np.isfinite(scale) or not scale:
        return _count_sorted(np.sort(entries), needles)

    def bins(values: Array) -> Array:
        # Rounded, but alike for all: a higher number never gets a lower bin.
        with np.errstate(over="ignore"):
            places = np.clip((values - lowest) * scale, -1, num_bins + 1)
        result: Array = np.add(places, 1, out=places).astype(np.int32)
        return result

    needle_bins = bins(needles)
    has_needle = np.zeros(num_bins + 3, dtype=np.bool_)
    has_needle[needle_bins] = True

    def count(part: Array) -> tuple[Array, Array]:
        counts, near = np.zeros(num_bins + 3, dtype=np.int64), [part[:0]]
        for start in range(0, len(part), CHUNK):
            values = part[start : start + CHUNK]
            places = bins(values)
            np.add.at(counts, places, 1)
            near.append(np.compress(has_needle.take(places), values))  # faster than a mask as index
        return counts, _count_sorted(np.sort(np.concatenate(near)), needles)

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        parts = list(pool.map(count, np.array_split(entries, torch.get_num_threads())))
    far = np.where(has_needle, 0, sum(counts for counts, _ in parts))
    result: Array = far[::-1].cumsum()[::-1][needle_bins] + sum(near for _, near in parts)
    return result


def _count_sorted(ascending_entries: Array, needles: Array) -> Array:
    result: Array = len(ascending_entries) - np.searchsorted(ascending_entries, needles)
    return result
