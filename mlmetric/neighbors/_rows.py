"""The rows that are compared, whatever holds them: read in float64, some at a time."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array: TypeAlias = npt.NDArray[Any]


class Rows(Protocol):
    """N rows of d numbers."""

    shape: tuple[int, int]
    device: torch.device

    def take(self, numbers: Tensor) -> Tensor:
        """Return rows by number, dense: float64 `(len(numbers), d)`, a copy."""

    def centre(self) -> Tensor:
        """Return about the mean row, as float64 but exact in the dtype of the rows; 0 where they are not centred."""

    def reach(self, centre: Tensor) -> float:
        """Return how far an entry lies from that of `centre` at most."""


class DenseRows:
    """Rows of a numpy array or of a tensor on any device, float32 or float64."""

    def __init__(self, matrix: Array | Tensor) -> None:
        self.matrix = matrix
        self.shape = (matrix.shape[0], matrix.shape[1])
        self.device = matrix.device if isinstance(matrix, Tensor) else torch.device("cpu")

    def take(self, numbers: Tensor) -> Tensor:
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
        if isinstance(self.matrix, Tensor):
            return self.matrix.mean(dim=0, dtype=torch.float64).to(self.matrix.dtype).double()
        mean = self.matrix.mean(axis=0, dtype=np.float64).astype(self.matrix.dtype)
        return torch.from_numpy(mean).double()

    def reach(self, centre: Tensor) -> float:
        if isinstance(self.matrix, Tensor):
            lowest, highest = (end.double() for end in torch.aminmax(self.matrix, dim=0))
        else:
            ends = self.matrix.min(axis=0), self.matrix.max(axis=0)
            lowest, highest = (torch.from_numpy(end.astype(np.float64)) for end in ends)
        return float(torch.maximum(centre - lowest, highest - centre).max())


class SparseRows:
    """Rows of a scipy csr matrix. They are not centred, which would fill them."""

    def __init__(self, matrix: Any) -> None:
        self.matrix = matrix
        self.shape = (matrix.shape[0], matrix.shape[1])
        self.device = torch.device("cpu")

    def take(self, numbers: Tensor) -> Tensor:
        return torch.from_numpy(self.matrix[numbers.numpy()].astype(np.float64).toarray())

    def centre(self) -> Tensor:
        return torch.zeros(1, dtype=torch.float64)

    def reach(self, centre: Tensor) -> float:
        return float(abs(self.matrix).max())


def _as_slice(numbers: Tensor) -> Any:
    """Return ascending numbers as a slice where they are one, for a slice is a view."""
    first, last = int(numbers[0]), int(numbers[-1])
    if last - first + 1 == len(numbers):
        return slice(first, last + 1)
    return numbers if numbers.device.type != "cpu" else numbers.numpy()
