"""The rows that are compared, whatever holds them."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mlmetric.neighbors._slices import slices

Array: TypeAlias = npt.NDArray[Any]


class DenseRows:
    """Rows of a numpy array or of a tensor on any device, float32 or float64."""

    def __init__(self, matrix: Array | Tensor) -> None:
        self.matrix = matrix
        self.shape = (matrix.shape[0], matrix.shape[1])
        self.device = matrix.device if isinstance(matrix, Tensor) else torch.device("cpu")

    def take(self, numbers: Tensor) -> Tensor:
        """Return rows by number: float64 `(len(numbers), d)`, a copy."""
        if isinstance(self.matrix, Tensor):
            return self.matrix[numbers].double()
        # Copied before torch sees it, which warns of arrays that must not be written to.
        return torch.from_numpy(self.matrix[numbers.numpy()].astype(np.float64, copy=False))

    def write_centred(self, numbers: Tensor, centre: Tensor, out: Tensor, *, negated: bool) -> None:
        """Write rows less `centre`, or `centre` less rows, to `out`, computed in the wider of both dtypes."""
        chosen: Any = _as_slice(numbers)
        if isinstance(self.matrix, Tensor):
            wider = torch.promote_types(self.matrix.dtype, out.dtype)
            rows, centre = self.matrix[chosen].to(wider), centre.to(wider)
            out.copy_(centre - rows if negated else rows - centre)
            return
        target: Array = out.numpy()
        first, second = (centre.numpy(), self.matrix[chosen]) if negated else (self.matrix[chosen], centre.numpy())
        np.subtract(first, second, out=target, dtype=np.result_type(self.matrix, target), casting="same_kind")

    def centre(self) -> Tensor:
        """Return about the mean row, as float64 but exact in the dtype of the rows."""
        if not isinstance(self.matrix, Tensor):
            return torch.from_numpy(self.matrix.mean(axis=0, dtype=np.float64).astype(self.matrix.dtype)).double()
        total = self.matrix.new_zeros(self.shape[1], dtype=torch.float64)
        for part in slices(self.shape[0], 2**20 // self.shape[1]):
            total += self.matrix[part].sum(dim=0, dtype=torch.float64)
        return (total / self.shape[0]).to(self.matrix.dtype).double()

    def reach(self, centre: Tensor) -> float:
        """Return how far an entry lies from that of `centre` at most."""
        if isinstance(self.matrix, Tensor):
            lowest, highest = (end.double() for end in torch.aminmax(self.matrix, dim=0))
        else:
            ends = self.matrix.min(axis=0), self.matrix.max(axis=0)
            lowest, highest = (torch.from_numpy(end.astype(np.float64)) for end in ends)
        return float(torch.maximum(centre - lowest, highest - centre).max())

    def keys(self, factors: Tensor) -> Tensor:
        """Return a number for each row: the same for equal rows, and for others hardly ever."""
        every = torch.arange(self.shape[0], device=self.device)
        keys = torch.empty_like(every)
        for part in slices(len(every), 2**18 // self.shape[1]):
            keys[part] = _mixed(self.take(every[part])).mul_(factors).sum(dim=1)
        return keys

    def are_equal(self, numbers: Tensor, others: Tensor) -> bool:
        """Say whether each row equals the one beside it."""
        parts = slices(len(numbers), 2**20 // self.shape[1])
        return all(torch.equal(self.take(numbers[part]), self.take(others[part])) for part in parts)


class SparseRows:
    """Rows of a scipy csr matrix without duplicate entries. They are not centred, which would fill them."""

    def __init__(self, matrix: Any) -> None:
        self.matrix = matrix
        self.shape = (matrix.shape[0], matrix.shape[1])
        self.device = torch.device("cpu")

    def take(self, numbers: Tensor) -> Any:
        """Return rows by number: a float64 csr matrix, a copy."""
        return self.matrix[numbers.numpy()].astype(np.float64)

    def centre(self) -> Tensor:
        """Return 0."""
        return torch.zeros(1, dtype=torch.float64)

    def reach(self, centre: Tensor) -> float:
        """Return how far an entry lies from 0 at most."""
        return float(max(self.matrix.max(), -self.matrix.min()))

    def keys(self, factors: Tensor) -> Tensor:
        """Return a number for each row: the same for equal rows, and for others hardly ever."""
        data = _mixed(torch.from_numpy(self.matrix.data.astype(np.float64)))
        indices = torch.from_numpy(self.matrix.indices.astype(np.int64))
        sums = torch.cat([data.new_zeros(1), (data * factors[indices]).cumsum(0)])
        starts = torch.from_numpy(self.matrix.indptr.astype(np.int64))
        return sums[starts[1:]] - sums[starts[:-1]]

    def are_equal(self, numbers: Tensor, others: Tensor) -> bool:
        """Say whether each row equals the one beside it."""
        return bool((self.take(numbers) != self.take(others)).nnz == 0)


Rows: TypeAlias = DenseRows | SparseRows


def _mixed(values: Tensor) -> Tensor:
    """Return bits of the values as integers, 0 for 0, that differ in their low digits where the values do."""
    bits = (values + 0.0).view(torch.int64)  # -0.0 becomes 0.0
    return bits ^ (bits >> 29)


def _as_slice(numbers: Tensor) -> Any:
    """Return ascending numbers as a slice where they are one, for a slice is a view."""
    first, last = int(numbers[0]), int(numbers[-1])
    if last - first + 1 == len(numbers):
        return slice(first, last + 1)
    return numbers if numbers.device.type != "cpu" else numbers.numpy()
