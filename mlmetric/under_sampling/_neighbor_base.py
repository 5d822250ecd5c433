"""What the samplers share that look at a row's nearest neighbours."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from mlmetric.neighbors import kneighbors
from mlmetric.similarity import dice, hamming, jaccard
from mlmetric.under_sampling._base import BaseMultiLabelSampler
from mlmetric.under_sampling._data import LabelArray, Mask, Rows, on_host

LabelDistance: TypeAlias = Literal["jaccard", "dice", "hamming"]
LABEL_SIMILARITIES = {"jaccard": jaccard, "dice": dice, "hamming": hamming}
_CHUNK_ENTRIES = 2**22


class BaseNeighborSampler(BaseMultiLabelSampler):
    """Base of the samplers by nearest neighbours; a sampler implements `_num_neighbors` and `_keep`.

    Neighbours are those of `mlmetric.neighbors.kneighbors`: Euclidean, by the features alone, exact, ties to the
    lowest row, never the row itself.
    """

    def fit_resample(self, X: Any, y: Any, *, neighbors: Any = None) -> tuple[Any, Any]:
        """Resample the data.

        Args:
            X: Array, tensor, list, scipy sparse matrix or data frame of shape `(N, d)`, finite numbers; with
                `neighbors` anything, NaN, strings and file paths too.
            y: Multi-hot labels of shape `(N, L)`, any of these kinds, or class ids of shape `(N,)`.
            neighbors: Row numbers of the nearest other rows of each row, nearest first, integers of shape `(N, K)`:
                `kneighbors(X, K)[1]`, or of another metric. One search with the largest K serves several samplers.
                By default they are searched for.

        Returns:
            `X` and `y` resampled, each of the kind, the dtype and, for data frames, the index and columns it came in.

        Raises:
            ValueError: If a parameter is out of range, an entry of `y` NaN, or of an `X` that is searched, `y` neither
                multi-hot nor class ids of at least two classes, the lengths differ, there are too few rows to have so
                many neighbours, `neighbors` does not fit, or every row would go.
        """
        searched = X if isinstance(X, torch.Tensor) else None
        return self._resample(X, y, neighbors is None, neighbors=neighbors, searched=searched)

    def _fit_resample(
        self, X: Any, labels: LabelArray, neighbors: Any = None, searched: Any = None
    ) -> tuple[Rows, LabelArray | None]:
        k = self._num_neighbors()
        if k >= len(labels):
            raise ValueError(
                f"{type(self).__name__} looks at {k} other rows for each, so it takes {k + 1} rows or more, got "
                f"{len(labels)} rows."
            )
        if neighbors is None:  # a tensor is searched where it lies
            neighbors = kneighbors(X if searched is None else searched, k)[1]
        found = _check_neighbors(on_host(neighbors), len(labels), k)
        return np.flatnonzero(self._keep(labels, found)), None

    @abstractmethod
    def _num_neighbors(self) -> int:
        """Return how many neighbours of each row are looked at."""

    @abstractmethod
    def _keep(self, labels: LabelArray, neighbors: Rows) -> Mask:
        """Say which rows stay, given the neighbours of each, shape `(N, k)`."""


def _check_neighbors(neighbors: Any, num_rows: int, k: int) -> Rows:
    found = np.asarray(neighbors)
    if found.ndim != 2 or len(found) != num_rows or found.shape[1] < k or found.dtype.kind not in "iu":
        raise ValueError(
            f"`neighbors` must hold integers of shape ({num_rows}, {k} or more), row numbers of the nearest rows of "
            f"each row, got {found.dtype} of shape {found.shape}. `mlmetric.neighbors.kneighbors(X, {k})[1]` is one."
        )
    found = found[:, :k].astype(np.intp)
    wrong = (found < 0) | (found >= num_rows) | (found == np.arange(num_rows)[:, None])
    if wrong.any():
        row, place = np.argwhere(wrong)[0]
        raise ValueError(
            f"`neighbors` must hold numbers of other rows, 0 to {num_rows - 1}, got {found[row, place]} for row {row}."
        )
    return found


def label_distances(labels: LabelArray, neighbors: Rows, kind: LabelDistance) -> npt.NDArray[np.float64]:
    """Measure how far the label set of each row is from those of its neighbours.

    Args:
        labels: Multi-hot, shape `(N, L)`.
        neighbors: Row numbers, shape `(N, k)`.
        kind: One minus which similarity. Two empty sets have distance 0.

    Returns:
        Shape `(N, k)`, in [0, 1].
    """
    distances = np.empty(neighbors.shape)
    step = max(1, _CHUNK_ENTRIES // labels.shape[1])
    for start in range(0, len(labels), step):
        part = slice(start, start + step)
        first = torch.from_numpy(labels[part]).double()
        for place, numbers in enumerate(neighbors[part].T):
            second = torch.from_numpy(labels[numbers]).double()
            distance = 1 - LABEL_SIMILARITIES[kind](first, second, paired=True)
            distance[~first.any(dim=1) & ~second.any(dim=1)] = 0
            distances[part, place] = distance.numpy()
    return distances


def above(distances: npt.NDArray[np.float64], threshold: float) -> Mask:
    """Say which label distances are above a threshold: equal is not above, whatever the last bit of 1 - 7/10."""
    return distances > threshold + 1e-9
