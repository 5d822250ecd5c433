"""Computation of average precision over all entries of a matrix, and with weights of rows."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mlmetric.metrics._inputs import Predictions
from mlmetric.metrics._ranked_groups import sort_ascending

Array = npt.NDArray[Any]
MIN_BINNED_ENTRIES = 2**16
"""Fewer entries are sorted rather than counted in bins."""
BINNED_CHUNK_SIZE = 2**17
"""Number of entries assigned to bins at once, so that they fit into the processor's cache."""
BINS_PER_POSITIVE = 4
MAX_BINS = 2**22
WEIGHT_CHUNK_SIZE = 2**22
"""Number of weights summed at once, 8 bytes each plus temporary copies."""


def pooled_average_precision(scores: Tensor, positive: Tensor, mask: Tensor | None) -> Tensor:
    """Return the AP of all entries as a single ranking: float64, 0-d, NaN without positives.

    Args:
        scores: Any shape, floating point.
        positive: bool, same shape.
        mask: bool, same shape, or None.
    """
    wide = scores if scores.dtype == torch.float64 else scores.float()
    positive_scores = sort_ascending(wide[positive])
    if not len(positive_scores):
        return positive_scores.new_full((), torch.nan, dtype=torch.float64)
    entries = wide.reshape(-1) if mask is None else wide[mask]
    true_positives = len(positive_scores) - torch.searchsorted(positive_scores, positive_scores)
    return (true_positives.double() / count_at_least(entries, positive_scores)).mean()


def count_at_least(entries: Tensor, values: Tensor) -> Tensor:
    """Count for each of the ascending `values` the `entries`, `(M,)`, that are equal or higher: int64.

    On the CPU only the entries that share a bin with a value are sorted: sorting all of them would take longer than
    all other metrics of `MultiLabelMetrics` together.
    """
    if entries.device.type != "cpu":
        return len(entries) - torch.searchsorted(entries.sort().values, values)
    return torch.from_numpy(_count_with_bins(entries.numpy(), values.numpy()))


def _count_with_bins(entries: Array, values: Array) -> Array:
    num_bins = min(BINS_PER_POSITIVE * len(values), MAX_BINS)
    lowest = values[0]
    with np.errstate(all="ignore"):
        scale = entries.dtype.type(num_bins / (values[-1] - lowest))
    # Few entries, or values that are all equal or infinitely far apart.
    if len(entries) < MIN_BINNED_ENTRIES or not np.isfinite(scale) or not scale:
        return _count_sorted(np.sort(entries), values)

    def bins(numbers: Array) -> Array:
        # The rounding is monotonic: a higher number never gets a lower bin.
        with np.errstate(over="ignore"):
            indices = np.clip((numbers - lowest) * scale, -1, num_bins + 1)
        result: Array = np.add(indices, 1, out=indices).astype(np.int32)
        return result

    value_bins = bins(values)
    has_value = np.zeros(num_bins + 3, dtype=np.bool_)
    has_value[value_bins] = True

    def count(part: Array) -> tuple[Array, Array]:
        bin_counts, same_bin = np.zeros(num_bins + 3, dtype=np.int64), [part[:0]]
        for start in range(0, len(part), BINNED_CHUNK_SIZE):
            chunk = part[start : start + BINNED_CHUNK_SIZE]
            indices = bins(chunk)
            np.add.at(bin_counts, indices, 1)
            same_bin.append(np.compress(has_value.take(indices), chunk))  # faster than indexing with a mask
        return bin_counts, _count_sorted(np.sort(np.concatenate(same_bin)), values)

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        parts = list(pool.map(count, np.array_split(entries, torch.get_num_threads())))
    other_bins = np.where(has_value, 0, sum(bin_counts for bin_counts, _ in parts))
    result: Array = other_bins[::-1].cumsum()[::-1][value_bins] + sum(near_counts for _, near_counts in parts)
    return result


def _count_sorted(sorted_entries: Array, values: Array) -> Array:
    result: Array = len(sorted_entries) - np.searchsorted(sorted_entries, values)
    return result


def weighted_label_precisions(predictions: Predictions, weight: Tensor) -> Tensor:
    """Return the AP of each label with weighted rows: float64 `(L,)` or `(B, L)`, NaN without positive weight."""
    labels = zip(
        predictions.preds.T,
        predictions.target.T,
        predictions.preds.T if predictions.mask is None else predictions.mask.T,
        strict=True,
    )
    values = []
    for scores, positive, mask in labels:
        rows = torch.arange(len(scores), device=scores.device)
        rows = rows if predictions.mask is None else rows[mask]
        values.append(_weighted_average_precision(scores[rows], positive[rows], rows, weight))
    return torch.stack(values, dim=-1) if values else weight.new_empty(*weight.shape[:-1], 0)


def weighted_pooled_precision(predictions: Predictions, weight: Tensor) -> Tensor:
    """Return the AP of all entries as a single ranking, weighted by their rows: float64, 0-d or `(B,)`."""
    rows = torch.arange(len(predictions.preds), device=predictions.preds.device).repeat_interleave(
        predictions.preds.shape[1]
    )
    scores, positive = predictions.preds.reshape(-1), predictions.target.reshape(-1)
    if predictions.mask is not None:
        included = predictions.mask.reshape(-1)
        scores, positive, rows = scores[included], positive[included], rows[included]
    return _weighted_average_precision(scores, positive, rows, weight)


def _weighted_average_precision(scores: Tensor, positive: Tensor, rows: Tensor, weight: Tensor) -> Tensor:
    """Return the AP of entries `(M,)` that are weighted by their `rows`, int64 `(M,)`."""
    scores, order = scores.sort(descending=True)
    positive, rows = positive[order], rows[order]
    positive_indices = positive.nonzero().squeeze(1)
    if not len(positive_indices):
        return weight.new_full(weight.shape[:-1], torch.nan)
    # Tied entries are retrieved together: each positive counts all entries up to the last one of the same score.
    _, num_tied = scores.unique_consecutive(return_counts=True)  # type: ignore[no-untyped-call]
    last = (num_tied.cumsum(0) - 1).repeat_interleave(num_tied)[positive_indices]
    last_positive = positive.cumsum(0)[last] - 1
    values = []
    for weights in torch.split(weight.reshape(-1, weight.shape[-1]), max(1, WEIGHT_CHUNK_SIZE // len(rows))):
        entry_weights = weights.index_select(1, rows)
        positive_weights = entry_weights.index_select(1, positive_indices)
        retrieved = entry_weights.cumsum(dim=1).index_select(1, last)
        true_positives = positive_weights.cumsum(dim=1).index_select(1, last_positive)
        precision = torch.where(positive_weights > 0, true_positives / retrieved, 0.0)
        values.append((positive_weights * precision).sum(dim=1) / positive_weights.sum(dim=1))
    return torch.cat(values).reshape(weight.shape[:-1])
