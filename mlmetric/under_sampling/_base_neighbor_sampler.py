"""The base class of the samplers that use the nearest neighbours of each row, and distances between label sets."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from mlmetric.neighbors import kneighbors
from mlmetric.similarity import dice, hamming, jaccard
from mlmetric.under_sampling._base_sampler import BaseMultiLabelSampler
from mlmetric.under_sampling._type_conversion import LabelArray, RowIndices, RowMask, to_cpu

LabelDistance: TypeAlias = Literal["jaccard", "dice", "hamming"]
LABEL_SIMILARITIES = {"jaccard": jaccard, "dice": dice, "hamming": hamming}
_CHUNK_ENTRIES = 2**22


class BaseNeighborSampler(BaseMultiLabelSampler):
    """Base class of samplers that use nearest neighbours; a subclass implements `_num_neighbors` and `_keep`.

    The neighbours are found by `mlmetric.neighbors.kneighbors`: exact nearest neighbours by Euclidean distance between
    the features. A row is not its own neighbour, and the row with the lower index comes first among equal distances.
    """

    def fit_resample(self, X: Any, y: Any, *, neighbors: Any = None) -> tuple[Any, Any]:
        """Resample the data.

        Args:
            X: Features of shape `(N, d)`: an array, a tensor, a list, a scipy sparse matrix or a data frame, with
                finite numbers. If `neighbors` is given, `X` may contain anything: NaN, strings, file paths.
            y: Multi-hot labels of shape `(N, L)`, of any of these types, or class ids of shape `(N,)`.
            neighbors: Indices of the nearest other rows of each row, nearest first, integers of shape `(N, K)`, for
                example `kneighbors(X, K)[1]`, or neighbours by another metric. One search with the largest K can be
                used for several samplers. None searches for the neighbours.

        Returns:
            The resampled `X` and `y`, with the type, the dtype and, for data frames, the index and the columns of the
            input.

        Raises:
            TypeError: If `y` contains lists or sets of label names.
            ValueError: If a parameter is out of range, `y` contains NaN, `y` is neither multi-hot nor class ids of at
                least two classes, `X` contains NaN or infinity and `neighbors` is None, the lengths differ, there are
                too few rows for the number of neighbours, `neighbors` has a wrong shape or invalid indices, or all rows
                would be removed.
        """
        return self._resample(X, y, neighbors is None, neighbors=neighbors, tensor=dense_tensor(X))

    def _fit_resample(
        self, X: Any, labels: LabelArray, neighbors: Any = None, tensor: Tensor | None = None
    ) -> tuple[RowIndices, LabelArray | None]:
        found = find_neighbors(self, X if tensor is None else tensor, len(labels), self._num_neighbors(), neighbors)
        return np.flatnonzero(self._keep(labels, found)), None

    @abstractmethod
    def _num_neighbors(self) -> int:
        """Return the number of neighbours of each row that are used."""

    @abstractmethod
    def _keep(self, labels: LabelArray, neighbors: RowIndices) -> RowMask:
        """Return which rows are kept, given the neighbours of each row, shape `(N, k)`."""


def dense_tensor(X: Any) -> Tensor | None:
    """Return `X` if it is a dense tensor, which is searched on its own device, otherwise None."""
    return X if isinstance(X, Tensor) and X.layout is torch.strided else None


def find_neighbors(sampler: Any, X: Any, num_rows: int, k: int, given: Any = None) -> RowIndices:
    """Return the k nearest other rows of each row, either given or found by Euclidean distance.

    Args:
        sampler: The sampler that uses the neighbours, named in the error message.
        X: Features, searched if `given` is None.
        num_rows: N.
        k: Number of neighbours of each row.
        given: Indices of shape `(N, k or more)`, or None.

    Returns:
        Shape `(N, k)`, nearest first.

    Raises:
        ValueError: If there are too few rows, or `given` has a wrong shape or invalid indices.
    """
    if k >= num_rows:
        raise ValueError(
            f"{type(sampler).__name__} requires at least {k + 1} rows for {k} neighbours of each row, got "
            f"{num_rows} rows."
        )
    return _check_neighbors(to_cpu(kneighbors(X, k)[1] if given is None else given), num_rows, k)


def _check_neighbors(neighbors: Any, num_rows: int, k: int) -> RowIndices:
    found = np.asarray(neighbors)
    if found.ndim != 2 or len(found) != num_rows or found.shape[1] < k or found.dtype.kind not in "iu":
        raise ValueError(
            f"`neighbors` must contain integers of shape ({num_rows}, {k} or more), the indices of the nearest rows of "
            f"each row, got {found.dtype} of shape {found.shape}. Pass for example "
            f"`mlmetric.neighbors.kneighbors(X, {k})[1]`."
        )
    found = found[:, :k].astype(np.intp)
    wrong = (found < 0) | (found >= num_rows) | (found == np.arange(num_rows)[:, None])
    if wrong.any():
        row, place = np.argwhere(wrong)[0]
        raise ValueError(
            f"`neighbors` must contain indices of other rows, 0 to {num_rows - 1}, got {found[row, place]} for row "
            f"{row}."
        )
    return found


def label_distances(labels: LabelArray, neighbors: RowIndices, kind: LabelDistance) -> Tensor:
    """Compute the distance between the label set of each row and the label sets of its neighbours.

    Args:
        labels: Multi-hot, shape `(N, L)`.
        neighbors: Row indices, shape `(N, k)`.
        kind: Name of the similarity that is subtracted from 1. Two empty sets have distance 0.

    Returns:
        float64, shape `(N, k)`, in [0, 1].
    """
    distances = torch.empty(neighbors.shape, dtype=torch.float64)
    step = max(1, _CHUNK_ENTRIES // labels.shape[1])
    for start in range(0, len(labels), step):
        part = slice(start, start + step)
        first = torch.from_numpy(labels[part]).double()
        for place, numbers in enumerate(neighbors[part].T):
            second = torch.from_numpy(labels[numbers]).double()
            distance = 1 - LABEL_SIMILARITIES[kind](first, second, paired=True)
            distance[~first.any(dim=1) & ~second.any(dim=1)] = 0
            distances[part, place] = distance
    return distances
