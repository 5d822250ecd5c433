"""Squared distances computed from float64 differences, and the k smallest of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlmetric.neighbors._row_matrix import DenseRows, Rows, even_slices

# Number of differences computed at once: few enough to fit a CPU cache, and enough to keep the number of steps low.
_MAX_DIFFERENCES = 2**20


class SquaredDistances:
    """Squared distances between rows of two matrices.

    Args:
        queries: Rows of the first matrix.
        refs: Rows of the second matrix, of the same kind, on the same device.
        scale: Factor of differences before they are squared.
    """

    def __init__(self, queries: Rows, refs: Rows, scale: float) -> None:
        self.queries, self.refs, self.scale = queries, refs, scale

    def of_candidates(self, rows: Tensor, candidates: Tensor) -> Tensor:
        """Compute the squared distances between each query and its candidates.

        Args:
            rows: Indices of queries, shape `(R,)`.
            candidates: Indices of refs, shape `(R, C)`.

        Returns:
            float64, shape `(R, C)`.
        """
        num_candidates, width = candidates.shape[1], self.refs.shape[1]
        if num_candidates * width > 4 * _MAX_DIFFERENCES or not isinstance(self.refs, DenseRows):
            pairs = rows.repeat_interleave(num_candidates), candidates.flatten()
            return self.of_pairs(*pairs).view(candidates.shape)
        squares = torch.empty(candidates.shape, dtype=torch.float64, device=candidates.device)
        for part in even_slices(len(rows), _MAX_DIFFERENCES // (num_candidates * width)):
            differences = self.refs.take(candidates[part].flatten()).view(-1, num_candidates, width)
            squares[part] = self._sum_squares(differences.sub_(self.queries.take(rows[part])[:, None]))
        return squares

    def of_pairs(self, rows: Tensor, ref_indices: Tensor) -> Tensor:
        """Compute the squared distance of each pair of a query and a ref: float64, shape of both arguments."""
        squares = torch.empty(len(rows), dtype=torch.float64, device=rows.device)
        is_dense = isinstance(self.refs, DenseRows)
        for part in even_slices(len(rows), _MAX_DIFFERENCES // (self.refs.shape[1] if is_dense else 16)):
            differences = self.refs.take(ref_indices[part]) - self.queries.take(rows[part])
            squares[part] = self._sum_squares(differences) if is_dense else self._sum_sparse_squares(differences)
        return squares

    def _sum_squares(self, differences: Tensor) -> Tensor:
        if self.scale != 1:
            differences.mul_(self.scale)
        squares = differences.square_()
        if squares.device.type == "cpu":
            # numpy sums each row in the same order at any position; torch may split a single row among threads.
            return torch.from_numpy(squares.numpy().sum(axis=-1))
        return squares.sum(dim=-1)

    def _sum_sparse_squares(self, differences: Any) -> Tensor:
        scaled = differences * self.scale
        return torch.from_numpy(np.asarray(scaled.multiply(scaled).sum(axis=1)).ravel())


def smallest_k(values: Tensor, indices: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k smallest values of each row in ascending order, ties in order of index.

    Args:
        values: Shape `(R, C)`.
        indices: Index of each value, shape `(R, C)`.
        k: At most C.

    Returns:
        Values and indices, each of shape `(R, k)`.
    """
    indices, order = indices.sort(dim=1)
    values, by_value = values.gather(1, order).sort(dim=1, stable=True)
    return values[:, :k], indices.gather(1, by_value[:, :k])
