"""Lower bounds of half the squared distances between two blocks of rows, from one matrix product.

`|a - b|^2 / 2 = |a|^2 / 2 + |b|^2 / 2 - ab`. For any order of summation in the matrix product, the rounding error of
this sum is at most a small fraction of `|a|^2 / 2 + |b|^2 / 2` (Higham, "Accuracy and stability of numerical
algorithms", 2002, section 3.1). With squared norms reduced by this fraction, the computed sum never exceeds the exact
value.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mlmetric.neighbors._row_matrix import Rows, SparseRows


class Normalization(NamedTuple):
    """Centring and scaling of rows, which changes no order of distances and reduces rounding errors of products."""

    centre: Tensor
    """Subtracted from each row."""

    scale: float
    """Factor of centred rows: a power of two, 1 unless squares in float32 could overflow or underflow."""

    difference_scale: float
    """Factor of float64 differences before they are squared: `scale`, but at least 1."""

    @classmethod
    def of(cls, queries: Rows, refs: Rows) -> Normalization:
        """Choose the normalization of two matrices."""
        centre = refs.centre()
        deviation = refs.max_deviation(centre)
        if queries is not refs:
            deviation = max(deviation, queries.max_deviation(centre))
        exponent = math.frexp(deviation)[1]
        scale = 1.0 if abs(exponent) <= 30 else 2.0 ** min(-exponent, 1000)
        return cls(centre, scale, max(scale, 1.0))


class LowerBounds:
    """Lower bounds of half the squared distances between normalized rows of two matrices.

    The product of a bound and `to_squared_distances` is comparable with squared distances whose differences were
    multiplied by `Normalization.difference_scale`.

    Args:
        queries: Rows of the first matrix.
        refs: Rows of the second matrix, on the same device.
        normalization: Normalization of both.
        dtype: Dtype of the product: float32 is faster, float64 gives tighter bounds. Sparse rows require float64.
    """

    def __init__(self, queries: Rows, refs: Rows, normalization: Normalization, dtype: torch.dtype) -> None:
        self.queries, self.refs, self.normalization, self.dtype = queries, refs, normalization, dtype
        num_terms, unit_roundoff = refs.shape[1] + 8, torch.finfo(dtype).eps / 2
        # In `dtype`: 2 (d + 2) roundings of the product, d + 2 of a norm, 1 of its storage and 4 of both rows, together
        # 3 d + 11. In float64: the roundings of the differences that the bound is compared with.
        self._error_fraction = 3 * num_terms * unit_roundoff + 4 * num_terms * torch.finfo(torch.float64).eps / 2
        self._max_underflow = 8 * num_terms * torch.finfo(dtype).tiny
        self.to_squared_distances = 2 * (normalization.difference_scale / normalization.scale) ** 2
        self._buffer: Tensor | None = None

    def prepare_queries(self, indices: Tensor) -> Any:
        """Prepare a block of queries; the indices must be ascending."""
        return self._prepare(self.queries, indices, negated=True)

    def prepare_refs(self, indices: Tensor) -> Any:
        """Prepare a block of refs; the indices must be ascending."""
        return self._prepare(self.refs, indices, negated=False)

    def _prepare(self, rows: Rows, indices: Tensor, *, negated: bool) -> Any:
        scale = self.normalization.scale
        if isinstance(rows, SparseRows):
            block = rows.take(indices) * scale
            halves = torch.from_numpy(np.asarray(block.multiply(block).sum(axis=1)).ravel() / 2)
            return block, self._reduce(halves)
        # Two columns more, half squared norms and ones, so that the product includes the sum of the norms.
        prepared = torch.empty(len(indices), rows.shape[1] + 2, dtype=self.dtype, device=rows.device)
        values, halves, ones = prepared[:, :-2], prepared[:, -2], prepared[:, -1]
        if not negated:
            halves, ones = ones, halves
        if scale == 1:
            rows.write_centred(indices, self.normalization.centre, values, negated=negated)
        else:
            values.copy_(rows.take(indices).sub_(self.normalization.centre).mul_(-scale if negated else scale))
        halves.copy_(self._reduce(torch.linalg.vector_norm(values, dim=1).double().square_() / 2))
        ones.fill_(1)
        return prepared

    def split(self, prepared: Any, position: int) -> tuple[Any, Any]:
        """Split a prepared block into two."""
        if isinstance(prepared, tuple):
            block, halves = prepared
            return (block[:position], halves[:position]), (block[position:], halves[position:])
        return prepared[:position], prepared[position:]

    def _reduce(self, halves: Tensor) -> Tensor:
        return halves * (1 - self._error_fraction) - self._max_underflow

    def between(self, queries: Any, refs: Any) -> Tensor:
        """Return the bounds between two prepared blocks, in a buffer that the next call overwrites."""
        if isinstance(queries, tuple):
            (block, halves), (ref_block, ref_halves) = queries, refs
            products = torch.from_numpy((block @ ref_block.T).toarray())
            return products.neg_().add_(halves[:, None]).add_(ref_halves)
        size = len(queries) * len(refs)
        if self._buffer is None or self._buffer.numel() < size:
            self._buffer = torch.empty(size, dtype=self.dtype, device=queries.device)
        product = self._buffer[:size].view(len(queries), len(refs))
        # torch's product, because the thread pools of torch and numpy would compete for the processors.
        with torch.autocast(queries.device.type, enabled=False):
            return torch.matmul(queries, refs.T, out=product)


def matmul_keeps_float32(device: torch.device) -> bool:
    """Return whether matrix products of float32 are computed in float32: torch can be set to use TF32 or bfloat16."""
    is_cuda = device.type == "cuda"
    backend = torch.backends.cuda if is_cuda else torch.backends.mkldnn
    precision = getattr(getattr(backend, "matmul", None), "fp32_precision", None)
    if precision is None:  # torch before 2.9
        return torch.get_float32_matmul_precision() == "highest" and not (
            is_cuda and torch.backends.cuda.matmul.allow_tf32
        )
    return precision in ("none", "ieee")
