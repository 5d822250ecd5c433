"""Lower bounds of half the squared distances between two blocks of rows, from one matrix product.

`|a - b|^2 / 2 = |a|^2 / 2 + |b|^2 / 2 - ab`, and the rounding error of that sum, in whatever order a matrix product
adds it up, is at most a small share of `|a|^2 / 2 + |b|^2 / 2` (Higham, "Accuracy and stability of numerical
algorithms", 2002, section 3.1). Half norms reduced by that share turn the product into a bound that no rounding lifts
above the truth.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mlmetric.neighbors._rows import Rows, SparseRows


class Frame(NamedTuple):
    """Where rows are moved to, which changes none of their distances but the digits that a product keeps."""

    centre: Tensor
    """Subtracted from every row."""

    scale: float
    """Multiplied with every row afterwards: a power of two, 1 unless squares in float32 could overflow or vanish."""

    unit: float
    """Multiplied with differences in float64 before they are squared: `scale`, unless that would make them smaller."""

    @classmethod
    def of(cls, queries: Rows, refs: Rows) -> Frame:
        """Find the frame of two matrices."""
        centre = refs.centre()
        reach = refs.reach(centre) if queries is refs else max(refs.reach(centre), queries.reach(centre))
        exponent = math.frexp(reach)[1]
        scale = 1.0 if abs(exponent) <= 30 else 2.0 ** min(-exponent, 1000)
        return cls(centre, scale, max(scale, 1.0))


class Bounds:
    """Lower bounds between any rows of two matrices.

    They are those of half the squared distances of the rows as the frame has scaled them; `to_squares` turns bounds
    into squared distances in the frame's unit, in which exact ones are.

    Args:
        queries: Rows on one side.
        refs: Rows on the other side, on the same device.
        frame: Of both.
        dtype: Of the product: float32 is faster, float64 is closer to the truth. Sparse rows take float64.
    """

    def __init__(self, queries: Rows, refs: Rows, frame: Frame, dtype: torch.dtype) -> None:
        self.queries, self.refs, self.frame, self.dtype = queries, refs, frame, dtype
        num_terms, unit = refs.shape[1] + 8, torch.finfo(dtype).eps / 2
        # In `dtype`: 2 (d + 2) roundings of the product, d + 2 of a norm, 1 of its storage and 4 of both rows make
        # 3 d + 11. In float64: the differences that the bound is compared with.
        self._share = 3 * num_terms * unit + 4 * num_terms * torch.finfo(torch.float64).eps / 2
        self._underflow = 8 * num_terms * torch.finfo(dtype).tiny
        self.to_squares = 2 * (frame.unit / frame.scale) ** 2
        self._product: Tensor | None = None

    def left(self, numbers: Tensor) -> Any:
        """Prepare queries, by ascending numbers."""
        return self._prepare(self.queries, numbers, is_left=True)

    def right(self, numbers: Tensor) -> Any:
        """Prepare refs, by ascending numbers."""
        return self._prepare(self.refs, numbers, is_left=False)

    def _prepare(self, rows: Rows, numbers: Tensor, *, is_left: bool) -> Any:
        if isinstance(rows, SparseRows):
            block = rows.take(numbers) * self.frame.scale
            halves = torch.from_numpy(np.asarray(block.multiply(block).sum(axis=1)).ravel() / 2)
            return block, self._reduced(halves)
        # Beside the rows stand their half norms and ones, so that the product adds the norms up too.
        prepared = torch.empty(len(numbers), rows.shape[1] + 2, dtype=self.dtype, device=rows.device)
        values, halves, ones = prepared[:, :-2], prepared[:, -2], prepared[:, -1]
        if not is_left:
            halves, ones = ones, halves
        if self.frame.scale == 1:
            rows.write_centred(numbers, self.frame.centre, values, negated=is_left)
        else:
            scale = -self.frame.scale if is_left else self.frame.scale
            values.copy_(rows.take(numbers).sub_(self.frame.centre).mul_(scale))
        halves.copy_(self._reduced(torch.linalg.vector_norm(values, dim=1).double().square_() / 2))
        ones.fill_(1)
        return prepared

    def cut(self, prepared: Any, place: int) -> tuple[Any, Any]:
        """Cut a prepared block in two."""
        if isinstance(prepared, tuple):
            block, halves = prepared
            return (block[:place], halves[:place]), (block[place:], halves[place:])
        return prepared[:place], prepared[place:]

    def _reduced(self, halves: Tensor) -> Tensor:
        return halves * (1 - self._share) - self._underflow

    def between(self, left: Any, right: Any) -> Tensor:
        """Return the lower bounds between two prepared blocks, in memory that the next call writes to again."""
        if isinstance(left, tuple):
            (block, halves), (ref_block, ref_halves) = left, right
            products = torch.from_numpy((block @ ref_block.T).toarray())
            return products.neg_().add_(halves[:, None]).add_(ref_halves)
        size = len(left) * len(right)
        if self._product is None or self._product.numel() < size:
            self._product = torch.empty(size, dtype=self.dtype, device=left.device)
        product = self._product[:size].view(len(left), len(right))
        # torch's product, not numpy's: the threads of two libraries would wait for each other.
        with torch.autocast(left.device.type, enabled=False):
            return torch.matmul(left, right.T, out=product)


def products_keep_float32(device: torch.device) -> bool:
    """Say whether products of float32 numbers are computed in float32: torch can be told to take TF32 or bfloat16."""
    is_cuda = device.type == "cuda"
    backend = torch.backends.cuda if is_cuda else torch.backends.mkldnn
    precision = getattr(getattr(backend, "matmul", None), "fp32_precision", None)
    if precision is None:  # torch before 2.9
        return torch.get_float32_matmul_precision() == "highest" and not (
            is_cuda and torch.backends.cuda.matmul.allow_tf32
        )
    return precision in ("none", "ieee")
