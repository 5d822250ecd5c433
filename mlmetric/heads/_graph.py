"""Graphs over labels, and convolution along them."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from mlmetric._digest import sha256_hex
from mlmetric.labels import cooccurrence, label_counts


def cooccurrence_adjacency(
    labels: Tensor,
    *,
    threshold: float = 0.4,
    neighbor_weight: float = 0.2,
    convention: Literal["paper", "code"] = "paper",
) -> Tensor:
    """Make the graph of labels that imply each other, as ML-GCN has it.

    With `P(j|i)` the share of the rows with label i that carry label j too, label i takes part of its vector from each
    neighbour j with `P(j|i) >= threshold`: neighbours share `neighbor_weight` equally, and `1 - neighbor_weight` stays
    its own. Then the matrix is normalised symmetrically, by the square roots of its row sums on both sides. A label
    without neighbours, or that never occurs, keeps itself only.

    Args:
        labels: Training labels, shape `(N, L)`, multi-hot or soft.
        threshold: The least share, in (0, 1].
        neighbor_weight: p of the paper, in [0, 1).
        convention: Which neighbours. `"paper"`: j that i implies, `P(j|i) >= threshold`, as the text says. `"code"`:
            j that imply i, `P(i|j) >= threshold`, as the authors' published code has it, which transposes the matrix
            after it has taken the row sums of the normalisation; neighbours of 0.25 and self of 1 there come to the
            same as 0.2 and 0.8.

    Returns:
        float32, shape `(L, L)`: row i says what label i is made of.

    Raises:
        ValueError: If `labels` is not a matrix in [0, 1] or a setting is out of range.

    Examples:
        >>> labels = torch.tensor([[1, 1, 0], [1, 1, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 0, 1]])
        >>> cooccurrence_adjacency(labels)  # label 1 implies label 0, which implies it in 2 of 5 rows
        tensor([[0.8000, 0.2000, 0.0000],
                [0.2000, 0.8000, 0.0000],
                [0.0000, 0.0000, 1.0000]])

    Source:
        Chen et al., "Multi-label image recognition with graph convolutional networks", CVPR 2019, equations 6-8.
    """
    together, counts = torch.as_tensor(cooccurrence(labels)), torch.as_tensor(label_counts(labels))
    if not 0 < threshold <= 1:
        raise ValueError(f"`threshold` must be a share in (0, 1], got {threshold}.")
    if not 0 <= neighbor_weight < 1:
        raise ValueError(f"`neighbor_weight` must be in [0, 1), got {neighbor_weight}.")
    if convention not in ("paper", "code"):
        raise ValueError(f"`convention` must be 'paper' or 'code', got {convention!r}.")
    # A tolerance: a share that equals the threshold on paper may fall below it in floating point (float32 soft labels).
    implies = together >= threshold * counts[:, None] * (1 - 1e-6)
    implies &= (counts > 0)[:, None]
    implies.fill_diagonal_(False)
    sharing = implies.sum(dim=1 if convention == "paper" else 0, keepdim=True)
    shares = implies * (neighbor_weight / sharing.clamp(min=1))
    adjacency = normalize_adjacency(shares.fill_diagonal_(1 - neighbor_weight)).float()
    return adjacency if convention == "paper" else adjacency.T.contiguous()


def normalize_adjacency(adjacency: Tensor) -> Tensor:
    """Divide by the square roots of the row sums of the entry's row and of its column."""
    scale = adjacency.sum(dim=1).rsqrt()
    return scale[:, None] * adjacency * scale


class GraphConvolution(nn.Module):
    """Mix the vectors of labels along a graph, then map them linearly: `A Z W`, without bias.

    Args:
        adjacency: Shape `(L, L)`; stays as it is, a buffer and no parameter.
        in_features: Length of the vectors that come in.
        out_features: Length of those that go out.

    Source:
        Kipf and Welling, "Semi-supervised classification with graph convolutional networks", ICLR 2017.
    """

    adjacency: Tensor

    def __init__(self, adjacency: Tensor, in_features: int, out_features: int) -> None:
        super().__init__()
        self.register_buffer("adjacency", adjacency.detach().float().clone())
        self.weight = nn.Parameter(torch.empty(in_features, out_features))
        bound = 1 / math.sqrt(out_features)  # as the authors of ML-GCN do
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, vectors: Tensor) -> Tensor:
        """Convolve vectors of labels, shape `(L, in_features)`: shape `(L, out_features)`."""
        return self.adjacency @ (vectors @ self.weight)

    def extra_repr(self) -> str:
        """Show the sizes, and a digest of the graph, so that two graphs can be told apart."""
        in_features, out_features = self.weight.shape
        return f"{in_features}, {out_features}, adjacency={digest(self.adjacency)}"


def digest(values: Tensor) -> str:
    """Return eight digits that tell fixed numbers apart."""
    if values.is_meta:
        return "meta"
    flat = values.detach().cpu().contiguous().flatten().view(torch.uint8)
    return sha256_hex([flat.numpy().data])[:8]


def check_graph(label_vectors: Tensor, adjacency: Tensor) -> None:
    """See that there is a vector and a row of the graph for each label."""
    if label_vectors.ndim != 2:
        raise ValueError(f"`label_vectors` must have shape (L, d), got {tuple(label_vectors.shape)}.")
    expected = (len(label_vectors), len(label_vectors))
    if tuple(adjacency.shape) != expected:
        raise ValueError(f"`adjacency` must have shape {expected}, got {tuple(adjacency.shape)}.")
    if not bool(label_vectors.isfinite().all() and adjacency.isfinite().all()):
        raise ValueError("`label_vectors` and `adjacency` must be finite, got NaN or infinity.")
