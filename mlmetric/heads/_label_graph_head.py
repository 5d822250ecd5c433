"""Label graphs, graph convolution, and the head whose linear classifiers it produces."""

from __future__ import annotations

import math
from typing import Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlmetric._docstrings import inherit_docs
from mlmetric.heads._classifier_head import ClassifierHead
from mlmetric.heads._label_entropy import label_entropy
from mlmetric.heads._standardize import Standardize
from mlmetric.label_vectors import cooccurrence_vectors
from mlmetric.labels import LabelsLike, cooccurrence, label_counts, label_tensor


def cooccurrence_adjacency(
    labels: LabelsLike,
    *,
    threshold: float = 0.4,
    neighbor_weight: float = 0.2,
    convention: Literal["paper", "code"] = "paper",
) -> Tensor:
    """Compute the adjacency matrix of the label graph of ML-GCN, whose edges are conditional probabilities.

    P(j|i) is the share of the rows with label i that also have label j. Labels j with `P(j|i) >= threshold` are the
    neighbours of label i. They share the weight `neighbor_weight` equally; label i itself has the weight
    `1 - neighbor_weight`. The matrix is then normalised symmetrically: entry (i, j) is divided by the square roots of
    the sums of rows i and j. A label without neighbours, or without rows, is adjacent only to itself.

    Args:
        labels: Training labels, shape `(N, L)`, multi-hot or soft, of any kind that
            [check_labels][mlmetric.labels.check_labels] reads.
        threshold: Lowest conditional probability of a neighbour, in (0, 1].
        neighbor_weight: Weight of the neighbours, p in the paper, in [0, 1).
        convention: `"paper"`, as the paper describes it: the neighbours of i are the labels j that i implies,
            `P(j|i) >= threshold`. `"code"`, as the authors' published code computes it: the labels j that imply i,
            `P(i|j) >= threshold`, since the code transposes the matrix after it has computed the row sums; its
            neighbour weight of 0.25 and self weight of 1 are equivalent to 0.2 and 0.8.

    Returns:
        float32, shape `(L, L)`: row i has the weights of the labels whose vectors are summed for label i.

    Raises:
        TypeError: If `labels` does not contain numbers.
        ValueError: If `labels` is not a matrix in [0, 1], or a setting is out of range.

    Examples:
        >>> import torch
        >>> from mlmetric.heads import cooccurrence_adjacency
        >>> labels = torch.tensor([[1, 1, 0], [1, 1, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 0, 1]])
        >>> cooccurrence_adjacency(labels)  # P(0|1) is 1, P(1|0) is 2 / 5
        tensor([[0.8000, 0.2000, 0.0000],
                [0.2000, 0.8000, 0.0000],
                [0.0000, 0.0000, 1.0000]])

    Source:
        Chen et al., "Multi-label image recognition with graph convolutional networks", CVPR 2019, equations 6-8.
    """
    labels = label_tensor(labels, used_by="`cooccurrence_adjacency`")
    together, counts = torch.as_tensor(cooccurrence(labels)), torch.as_tensor(label_counts(labels))
    if not 0 < threshold <= 1:
        raise ValueError(f"`threshold` must be in (0, 1], got {threshold}.")
    if not 0 <= neighbor_weight < 1:
        raise ValueError(f"`neighbor_weight` must be in [0, 1), got {neighbor_weight}.")
    if convention not in ("paper", "code"):
        raise ValueError(f"`convention` must be 'paper' or 'code', got {convention!r}.")
    # The tolerance is for probabilities that equal the threshold up to rounding (float32 soft labels).
    implies = together >= threshold * counts[:, None] * (1 - 1e-6)
    implies &= (counts > 0)[:, None]
    implies.fill_diagonal_(False)
    num_neighbors = implies.sum(dim=1 if convention == "paper" else 0, keepdim=True)
    weights = implies * (neighbor_weight / num_neighbors.clamp(min=1))
    adjacency = normalize_adjacency(weights.fill_diagonal_(1 - neighbor_weight)).float()
    return adjacency if convention == "paper" else adjacency.T.contiguous()


def normalize_adjacency(adjacency: Tensor) -> Tensor:
    """Divide each entry (i, j) by the square roots of the sums of rows i and j."""
    scale = adjacency.sum(dim=1).rsqrt()
    return scale[:, None] * adjacency * scale


class GraphConvolution(nn.Module):
    """A graph convolution of label vectors Z: `A Z W` with adjacency matrix A and trained weights W, without bias.

    Args:
        adjacency: Adjacency matrix, shape `(L, L)`; a buffer, which is not trained.
        in_features: Size of the input vectors.
        out_features: Size of the output vectors.

    Examples:
        >>> import torch
        >>> from mlmetric.heads import GraphConvolution
        >>> GraphConvolution(torch.eye(3), in_features=8, out_features=4)(torch.zeros(3, 8)).shape
        torch.Size([3, 4])

    Source:
        Kipf and Welling, "Semi-supervised classification with graph convolutional networks", ICLR 2017.
    """

    adjacency: Tensor

    def __init__(self, adjacency: Tensor, in_features: int, out_features: int) -> None:
        super().__init__()
        self.register_buffer("adjacency", adjacency.detach().float().clone())
        self.weight = nn.Parameter(torch.empty(in_features, out_features))
        bound = 1 / math.sqrt(out_features)  # as in the code of the authors of ML-GCN
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, vectors: Tensor) -> Tensor:
        """Convolve label vectors of shape `(L, in_features)`, and return shape `(L, out_features)`."""
        return self.adjacency @ (vectors @ self.weight)

    def extra_repr(self) -> str:
        """Show the sizes."""
        in_features, out_features = self.weight.shape
        return f"num_labels={len(self.adjacency)}, in_features={in_features}, out_features={out_features}"


def check_graph(label_vectors: Tensor, adjacency: Tensor) -> None:
    """Check that label vectors `(L, d)` and adjacency matrix `(L, L)` match, and are finite."""
    if label_vectors.ndim != 2:
        raise ValueError(f"`label_vectors` must have shape (L, d), got {tuple(label_vectors.shape)}.")
    expected = (len(label_vectors), len(label_vectors))
    if tuple(adjacency.shape) != expected:
        raise ValueError(f"`adjacency` must have shape {expected}, got {tuple(adjacency.shape)}.")
    if label_vectors.is_meta:  # has a shape, but no values
        return
    if not bool(label_vectors.isfinite().all() and adjacency.isfinite().all()):
        raise ValueError("`label_vectors` and `adjacency` must be finite, got NaN or infinity.")


class LabelGraphHead(nn.Module):
    """The classifier of ML-GCN: two graph convolutions turn label vectors into the weights of a linear classifier.

    Label vectors `(L, d)` pass through a graph convolution, a LeakyReLU of slope 0.2, and a second graph convolution,
    which gives a weight vector of size `in_features` for each label, similar for related labels. The logit of a label
    is the inner product of its weight vector with the features; there is no bias. Train it like any classifier head
    with [fit_classifier][mlmetric.training.fit_classifier], on features rather than an embedding. Features first pass
    through `standardize`, which does nothing until it is fitted.

    Args:
        in_features: D, the number of features.
        label_vectors: Shape `(L, d)`, see [mlmetric.label_vectors][]; a buffer, which is not trained.
        adjacency: Adjacency matrix of the labels, shape `(L, L)`, such as the result of
            [cooccurrence_adjacency][mlmetric.heads.cooccurrence_adjacency].
        hidden_features: Size of the vectors between the convolutions.

    Raises:
        ValueError: If shapes do not match, or a number is not finite.

    Examples:
        >>> import torch
        >>> from mlmetric.heads import LabelGraphHead
        >>> labels = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 1, 1]])
        >>> head = LabelGraphHead.from_labels(16, labels)
        >>> head(torch.zeros(4, 16)).shape
        torch.Size([4, 3])

    Source:
        Chen et al., "Multi-label image recognition with graph convolutional networks", CVPR 2019. The paper uses GloVe
        vectors of the label names and max pooling, `FrozenBackbone(pooling="max")`.
    """

    label_vectors: Tensor

    def __init__(
        self, in_features: int, label_vectors: Tensor, adjacency: Tensor, *, hidden_features: int = 1024
    ) -> None:
        super().__init__()
        check_graph(label_vectors, adjacency)
        self.register_buffer("label_vectors", label_vectors.detach().float().clone())
        self.standardize = Standardize(in_features)
        self.first = GraphConvolution(adjacency, label_vectors.shape[1], hidden_features)
        self.second = GraphConvolution(adjacency, hidden_features, in_features)

    @classmethod
    @inherit_docs(cooccurrence_adjacency)
    def from_labels(  # noqa: D417
        cls,
        in_features: int,
        labels: LabelsLike,
        *,
        label_vectors: Tensor | None = None,
        hidden_features: int = 1024,
        threshold: float = 0.4,
        neighbor_weight: float = 0.2,
        convention: Literal["paper", "code"] = "paper",
    ) -> Self:
        """Make a head whose graph is computed from training labels, as are the label vectors unless they are given.

        Args:
            in_features: D, the number of features.
            label_vectors: Shape `(L, d)`; None for
                [cooccurrence_vectors][mlmetric.label_vectors.cooccurrence_vectors] of the labels.
            hidden_features: Size of the vectors between the convolutions.

        Returns:
            The head.
        """
        adjacency = cooccurrence_adjacency(
            labels, threshold=threshold, neighbor_weight=neighbor_weight, convention=convention
        )
        vectors = cooccurrence_vectors(labels) if label_vectors is None else label_vectors
        return cls(in_features, vectors, adjacency, hidden_features=hidden_features)

    def forward(self, features: Tensor) -> Tensor:
        """Compute logits `(N, L)` from features `(N, D)`."""
        hidden = functional.leaky_relu(self.first(self.label_vectors), 0.2)
        logits: Tensor = self.standardize(features) @ self.second(hidden).T
        return logits

    def probabilities(self, logits: Tensor) -> Tensor:
        """Convert logits `(N, L)` to probabilities of the same shape."""
        return logits.sigmoid()

    @inherit_docs(ClassifierHead.loss)
    def loss(self, logits: Tensor, labels: LabelsLike, *, validate_args: bool = True) -> Tensor:
        """Compute the mean binary cross entropy over the annotated labels, in nats; 0 if there are none."""
        return label_entropy(logits, labels, validate_args=validate_args)

    def extra_repr(self) -> str:
        """Show the shape of the label vectors."""
        return f"label_vectors={tuple(self.label_vectors.shape)}"
