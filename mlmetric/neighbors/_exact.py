"""Squared distances by differences in float64, and the k smallest of them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from mlmetric.neighbors._rows import Rows

# What a few passes over a block of differences can find in a cache.
_DIFFERENCES_BYTES = 2**21


class Squares:
    """Squared distances between any rows of two matrices.

    Args:
        queries: Rows on one side.
        refs: Rows on the other side, on the same device.
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
        squares = torch.empty(candidates.shape, dtype=torch.float64, device=candidates.device)
        for part in slices(len(rows), _DIFFERENCES_BYTES // (8 * num_columns * width)):
            found = self.refs.take(candidates[part].flatten()).view(-1, num_columns, width)
            squares[part] = self._sum(found.sub_(self.queries.take(rows[part])[:, None]))
        return squares

    def of_pairs(self, rows: Tensor, numbers: Tensor) -> Tensor:
        """Square the distance of each query to the ref beside it: float64, shape of `rows` and of `numbers`."""
        squares = torch.empty(len(rows), dtype=torch.float64, device=rows.device)
        for part in slices(len(rows), _DIFFERENCES_BYTES // (8 * self.refs.shape[1])):
            squares[part] = self._sum(self.refs.take(numbers[part]).sub_(self.queries.take(rows[part])))
        return squares

    def _sum(self, differences: Tensor) -> Tensor:
        if self.scale != 1:
            differences.mul_(self.scale)
        squares = differences.square_()
        if squares.device.type == "cpu":
            # numpy adds up a row alike wherever it stands; torch may share a lone row out among threads.
            return torch.from_numpy(squares.numpy().sum(axis=-1))
        return squares.sum(dim=-1)


def slices(total: int, step: int) -> Iterator[slice]:
    """Cut `total` into as few slices as there can be of at most `step`, about equal; a `step` below 1 counts as 1."""
    step = -(-total // max(1, -(-total // max(1, step))))
    return (slice(start, min(start + step, total)) for start in range(0, total, max(1, step)))


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
