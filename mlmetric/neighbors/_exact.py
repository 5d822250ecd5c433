"""Squared distances by differences in float64, and the k smallest of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlmetric.neighbors._rows import DenseRows, Rows
from mlmetric.neighbors._slices import slices

# Numbers in a block of differences: few enough for a cache, many enough that the blocks are few.
_DIFFERENCES = 2**20


class Squares:
    """Squared distances between any rows of two matrices.

    Args:
        queries: Rows on one side.
        refs: Rows on the other side, of the same kind, on the same device.
        scale: What differences are multiplied with before they are squared.
    """

    def __init__(self, queries: Rows, refs: Rows, scale: float) -> None:
        self.queries, self.refs, self.scale = queries, refs, scale

    def of_candidates(self, rows: Tensor, candidates: Tensor) -> Tensor:
        """Square the distances of each query to its candidates.

        Args:
            rows: Numbers of queries, shape `(R,)`.
            candidates: Numbers of refs, shape `(R, C)`.

        Returns:
            float64, shape `(R, C)`.
        """
        num_columns, width = candidates.shape[1], self.refs.shape[1]
        if num_columns * width > 4 * _DIFFERENCES or not isinstance(self.refs, DenseRows):
            pairs = rows.repeat_interleave(num_columns), candidates.flatten()
            return self.of_pairs(*pairs).view(candidates.shape)
        squares = torch.empty(candidates.shape, dtype=torch.float64, device=candidates.device)
        for part in slices(len(rows), _DIFFERENCES // (num_columns * width)):
            found = self.refs.take(candidates[part].flatten()).view(-1, num_columns, width)
            squares[part] = self._sum(found.sub_(self.queries.take(rows[part])[:, None]))
        return squares

    def of_pairs(self, rows: Tensor, numbers: Tensor) -> Tensor:
        """Square the distance of each query to the ref beside it: float64, shape of `rows` and of `numbers`."""
        squares = torch.empty(len(rows), dtype=torch.float64, device=rows.device)
        is_dense = isinstance(self.refs, DenseRows)
        for part in slices(len(rows), _DIFFERENCES // (self.refs.shape[1] if is_dense else 16)):
            differences = self.refs.take(numbers[part]) - self.queries.take(rows[part])
            squares[part] = self._sum(differences) if is_dense else self._sum_sparse(differences)
        return squares

    def _sum(self, differences: Tensor) -> Tensor:
        if self.scale != 1:
            differences.mul_(self.scale)
        squares = differences.square_()
        if squares.device.type == "cpu":
            # numpy adds up a row alike wherever it stands; torch may share a lone row out among threads.
            return torch.from_numpy(squares.numpy().sum(axis=-1))
        return squares.sum(dim=-1)

    def _sum_sparse(self, differences: Any) -> Tensor:
        scaled = differences * self.scale
        return torch.from_numpy(np.asarray(scaled.multiply(scaled).sum(axis=1)).ravel())


def smallest(values: Tensor, numbers: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k smallest of each row in order, the lower number first where they are equal.

    Args:
        values: Shape `(R, C)`.
        numbers: What each is the value of, shape `(R, C)`.
        k: At most C.

    Returns:
        Values and numbers, each of shape `(R, k)`.
    """
    numbers, order = numbers.sort(dim=1)
    values, by_value = values.gather(1, order).sort(dim=1, stable=True)
    return values[:, :k], numbers.gather(1, by_value[:, :k])
