"""Row matrices of each supported kind, with the operations that the search needs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array: TypeAlias = npt.NDArray[Any]


def even_slices(total: int, max_size: int) -> Iterator[slice]:
    """Split `range(total)` into the fewest slices of at most `max_size` (at least 1), of about equal sizes."""
    num_slices = -(-total // max(1, max_size))
    size = -(-total // max(1, num_slices))
    return (slice(start, min(start + size, total)) for start in range(0, total, max(1, size)))


class DenseRows:
    """Rows of a numpy array or of a tensor on any device, float32 or float64."""

    def __init__(self, matrix: Array | Tensor) -> None:
        self.matrix = matrix
        self.shape = (matrix.shape[0], matrix.shape[1])
        self.device = matrix.device if isinstance(matrix, Tensor) else torch.device("cpu")

    def take(self, indices: Tensor) -> Tensor:
        """Return a copy of rows: float64 `(len(indices), d)`."""
        if isinstance(self.matrix, Tensor):
            return self.matrix[indices].double()
        # Copied before the conversion, because torch warns about read-only arrays.
        return torch.from_numpy(self.matrix[indices.numpy()].astype(np.float64, copy=False))

    def write_centred(self, indices: Tensor, centre: Tensor, out: Tensor, *, negated: bool) -> None:
        """Write rows minus `centre`, or `centre` minus rows, to `out`, computed in the wider of both dtypes."""
        selection: Any = _as_slice(indices)
        if isinstance(self.matrix, Tensor):
            wider = torch.promote_types(self.matrix.dtype, out.dtype)
            rows, centre = self.matrix[selection].to(wider), centre.to(wider)
            out.copy_(centre - rows if negated else rows - centre)
            return
        target: Array = out.numpy()
        operands = (self.matrix[selection], centre.numpy())
        first, second = operands[::-1] if negated else operands
        np.subtract(first, second, out=target, dtype=np.result_type(self.matrix, target), casting="same_kind")

    def centre(self) -> Tensor:
        """Return approximately the mean row: float64, exactly representable in the dtype of the rows."""
        if not isinstance(self.matrix, Tensor):
            return torch.from_numpy(self.matrix.mean(axis=0, dtype=np.float64).astype(self.matrix.dtype)).double()
        total = self.matrix.new_zeros(self.shape[1], dtype=torch.float64)
        for part in even_slices(self.shape[0], 2**20 // self.shape[1]):
            total += self.matrix[part].sum(dim=0, dtype=torch.float64)
        return (total / self.shape[0]).to(self.matrix.dtype).double()

    def max_deviation(self, centre: Tensor) -> float:
        """Return the largest absolute difference of an entry from that of `centre`."""
        if isinstance(self.matrix, Tensor):
            lowest, highest = (end.double() for end in torch.aminmax(self.matrix, dim=0))
        else:
            ends = self.matrix.min(axis=0), self.matrix.max(axis=0)
            lowest, highest = (torch.from_numpy(end.astype(np.float64)) for end in ends)
        return float(torch.maximum(centre - lowest, highest - centre).max())

    def hashes(self, factors: Tensor) -> Tensor:
        """Return a hash of each row, int64 `(N,)`: equal for equal rows, and different for most others."""
        indices = torch.arange(self.shape[0], device=self.device)
        hashes = torch.empty_like(indices)
        for part in even_slices(len(indices), 2**18 // self.shape[1]):
            hashes[part] = _mix_bits(self.take(indices[part])).mul_(factors).sum(dim=1)
        return hashes

    def are_equal(self, indices: Tensor, others: Tensor) -> bool:
        """Return whether each row of `indices` equals the row of `others` at the same position."""
        parts = even_slices(len(indices), 2**20 // self.shape[1])
        return all(torch.equal(self.take(indices[part]), self.take(others[part])) for part in parts)


class SparseRows:
    """Rows of a scipy csr matrix without duplicate entries. They are not centred, so that they stay sparse."""

    def __init__(self, matrix: Any) -> None:
        self.matrix = matrix
        self.shape = (matrix.shape[0], matrix.shape[1])
        self.device = torch.device("cpu")

    def take(self, indices: Tensor) -> Any:
        """Return a copy of rows: a float64 csr matrix."""
        return self.matrix[indices.numpy()].astype(np.float64)

    def centre(self) -> Tensor:
        """Return 0."""
        return torch.zeros(1, dtype=torch.float64)

    def max_deviation(self, centre: Tensor) -> float:
        """Return the largest absolute value of an entry."""
        return float(max(self.matrix.max(), -self.matrix.min()))

    def hashes(self, factors: Tensor) -> Tensor:
        """Return a hash of each row, int64 `(N,)`: equal for equal rows, and different for most others."""
        data = _mix_bits(torch.from_numpy(self.matrix.data.astype(np.float64)))
        columns = torch.from_numpy(self.matrix.indices.astype(np.int64))
        sums = torch.cat([data.new_zeros(1), (data * factors[columns]).cumsum(0)])
        starts = torch.from_numpy(self.matrix.indptr.astype(np.int64))
        return sums[starts[1:]] - sums[starts[:-1]]

    def are_equal(self, indices: Tensor, others: Tensor) -> bool:
        """Return whether each row of `indices` equals the row of `others` at the same position."""
        return bool((self.take(indices) != self.take(others)).nnz == 0)


Rows: TypeAlias = DenseRows | SparseRows


def _mix_bits(values: Tensor) -> Tensor:
    """Return the bits of the values as integers, 0 for 0, mixed so that different values differ in their low bits."""
    bits = (values + 0.0).view(torch.int64)  # -0.0 becomes 0.0
    return bits ^ (bits >> 29)


def _as_slice(indices: Tensor) -> Any:
    """Return ascending indices as a slice if they are consecutive, because slicing returns a view."""
    first, last = int(indices[0]), int(indices[-1])
    if last - first + 1 == len(indices):
        return slice(first, last + 1)
    return indices if indices.device.type != "cpu" else indices.numpy()
