"""The squared Euclidean distance of all pairs of rows, accurate even for near rows."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_metric_learning.distances import LpDistance
from torch import Tensor

_SMALL_DISTANCE = 1e-9
"""Share of the squared norms up to which a squared distance is computed from the difference of the two rows."""


class SquaredEuclideanDistance(LpDistance):  # type: ignore[misc, unused-ignore]
    """Squared Euclidean distance without normalisation, whose logarithm is accurate even for near embeddings.

    The rounding errors of float32 matrix products are too large for logarithms of small distances. On the CPU, products
    of float64 are several times faster than the differences of all pairs of rows; only the few smallest distances are
    computed from differences.
    """

    def __init__(self) -> None:
        super().__init__(normalize_embeddings=False)

    def compute_mat(self, query_emb: Tensor, ref_emb: Tensor) -> Tensor:
        """Return the squared distances of float32 or float64 rows, shape `(N, M)`."""
        if query_emb.device.type != "cpu" or query_emb.dtype != torch.float32:
            return _squared_differences(query_emb, ref_emb)
        distances: Tensor = _SquaredDistances.apply(query_emb, None if ref_emb is query_emb else ref_emb)
        return distances

    def pairwise_distance(self, query_emb: Tensor, ref_emb: Tensor) -> Tensor:
        """Return the squared distance of each row of `query_emb` to the same row of `ref_emb`, shape `(N,)`."""
        return (query_emb - ref_emb).square().sum(dim=1)


def _squared_differences(query: Tensor, refs: Tensor) -> Tensor:
    return torch.cdist(query, refs, compute_mode="donot_use_mm_for_euclid_dist").square()


class _SquaredDistances(torch.autograd.Function):
    """Squared distances of float32 rows from products of float64; `refs` is None for `query` itself."""

    @staticmethod
    def forward(query: Tensor, refs: Tensor | None) -> Tensor:
        rows, others = _centred(query, refs)
        norms = rows.square().sum(dim=1)[:, None] + others.square().sum(dim=1)
        distances = torch.addmm(norms, rows, others.T, alpha=-2)
        row, other = (distances <= _SMALL_DISTANCE * norms).nonzero(as_tuple=True)
        if len(row) > 4 * max(distances.shape):  # many equal rows, whose differences would need much memory
            return _squared_differences(query, query if refs is None else refs)
        distances[row, other] = (rows[row] - others[other]).square().sum(dim=1)
        return distances.float()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor | None], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        query, refs = ctx.saved_tensors
        rows, others = _centred(query, refs)
        grad = grad.double()
        if refs is None:
            return _gradient(grad + grad.T, rows, rows), None
        of_query, of_refs = ctx.needs_input_grad
        return (
            _gradient(grad, rows, others) if of_query else None,
            _gradient(grad.T, others, rows) if of_refs else None,
        )


def _centred(query: Tensor, refs: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return both as float64, less the mean of the references, which makes the rounding errors of products smaller."""
    rows = query.double()
    others = rows if refs is None else refs.double()
    centre = others.detach().mean(dim=0)  # no distance depends on it
    rows = rows - centre
    return rows, rows if refs is None else others - centre


def _gradient(grad: Tensor, rows: Tensor, others: Tensor) -> Tensor:
    """Return the gradient of `rows`: twice the weighted sum of their differences from the others, as float32."""
    return torch.addmm(grad.sum(dim=1, keepdim=True) * rows, grad, others, alpha=-1).mul(2).float()
