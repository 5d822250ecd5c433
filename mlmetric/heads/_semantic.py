"""The head that projects features into the space of the labels' words."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlmetric.heads._graph import GraphConvolution, check_graph, digest, normalize_adjacency
from mlmetric.heads._standardize import Standardize
from mlmetric.labels import check_labels


class SemanticProjectionHead(nn.Module):
    """Project features into the space of label vectors, and score labels by how near they are; after Pilli et al.

    A linear layer maps the feature to d numbers; a graph convolution along the semantic nearness of the labels, not
    their co-occurrence, refines the vectors of the labels, to which its result is added. The logit of a label is a
    scale times its nearness to the projection, plus a bias of the label; scale and biases are learnt.

    Args:
        in_features: Size of the feature.
        label_vectors: Shape `(L, d)`: vectors of the labels' words, or of their co-occurrence, from
            [mlmetric.label_vectors][]. Brought to unit length; a zero vector stays one.
        distance: `"cosine"`, or `"euclidean"`: 1 - half the squared distance, which is the cosine of a projection of
            length 1, but lets it have another.
        num_neighbors: Semantic neighbours of a label in the graph: those with the highest cosine above 0.
        separation: Weight of the part of the loss that separates present labels from absent ones.

    Raises:
        ValueError: If shapes do not fit, a number is not finite, or a setting is out of range.

    Examples:
        >>> head = SemanticProjectionHead(16, torch.eye(3))
        >>> head(torch.zeros(4, 16)).shape
        torch.Size([4, 3])

    Source:
        After Pilli et al., "Predicting sentiments in image advertisements using semantic relations among sentiment
        labels", CVPR Workshops 2020. Public of it is: ResNet-152 features are projected into the space of word vectors
        of the labels, a graph convolution uses semantic relations of the labels, and the loss goes by a distance that
        was chosen for the distribution of labels. Our choices: one linear projection, a symmetric graph of nearest
        neighbours, a residual around the convolution, and for the loss binary cross entropy plus the pairwise
        `log(1 + sum_absent exp(s) * sum_present exp(-s))` of Li et al., "Improving pairwise ranking for multi-label
        image classification", CVPR 2017.
    """

    label_vectors: Tensor

    def __init__(
        self,
        in_features: int,
        label_vectors: Tensor,
        *,
        distance: Literal["cosine", "euclidean"] = "cosine",
        num_neighbors: int = 3,
        separation: float = 0.1,
    ) -> None:
        super().__init__()
        if distance not in ("cosine", "euclidean"):
            raise ValueError(f"`distance` must be 'cosine' or 'euclidean', got {distance!r}.")
        if num_neighbors < 0 or not separation >= 0:
            raise ValueError(
                f"`num_neighbors` and `separation` must be at least 0, got {num_neighbors} and {separation}."
            )
        self.distance = distance
        self.separation = separation
        vectors = functional.normalize(label_vectors.detach().float()) if label_vectors.ndim == 2 else label_vectors
        adjacency = _semantic_adjacency(vectors, num_neighbors) if vectors.ndim == 2 else vectors
        check_graph(vectors, adjacency)
        num_labels, size = vectors.shape
        self.register_buffer("label_vectors", vectors)
        self.standardize = Standardize(in_features)
        self.projection = nn.Linear(in_features, size)
        if distance == "euclidean":  # standardised features are projected to about length 1
            nn.init.normal_(self.projection.weight, std=(in_features * size) ** -0.5)
            nn.init.zeros_(self.projection.bias)
        self.refinement = GraphConvolution(adjacency, size, size)
        self.scale = nn.Parameter(torch.tensor(10.0))
        self.bias = nn.Parameter(torch.zeros(num_labels))

    def forward(self, features: Tensor) -> Tensor:
        """Score features of shape `(N, in_features)`: logits of shape `(N, L)`."""
        labels = functional.normalize(self.label_vectors + self.refinement(self.label_vectors))
        projected = self.project(features)
        if self.distance == "cosine":
            nearness = projected @ labels.T
        else:
            squares = projected.square().sum(dim=1, keepdim=True) + labels.square().sum(dim=1)
            nearness = 1 + projected @ labels.T - squares / 2
        return self.scale * nearness + self.bias

    def project(self, features: Tensor) -> Tensor:
        """Project features of shape `(N, in_features)`: shape `(N, d)`, of unit length under the cosine."""
        projected: Tensor = self.projection(self.standardize(features))
        return functional.normalize(projected) if self.distance == "cosine" else projected

    def probabilities(self, logits: Tensor) -> Tensor:
        """Turn logits `(N, L)` into probabilities."""
        return logits.sigmoid()

    def loss(self, logits: Tensor, labels: Tensor, *, validate_args: bool = True) -> Tensor:
        """Take binary cross entropy plus separation, each the mean over rows, of logits and labels.

        Labels of at least one half are present. A row of which all or none are has nothing to separate.

        Args:
            logits: Shape `(N, L)`.
            labels: Shape `(N, L)`, in [0, 1].
            validate_args: Whether to check that labels are in [0, 1]. On a CUDA tensor that waits for the device.

        Raises:
            ValueError: If `labels` is not a matrix, or one is NaN or outside [0, 1].
        """
        check_labels(labels, validate_args=validate_args)
        entropy = functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))
        if not self.separation:
            return entropy
        present = labels >= 0.5
        highest_absent = logits.masked_fill(present, -torch.inf).logsumexp(dim=1)
        lowest_present = (-logits).masked_fill(~present, -torch.inf).logsumexp(dim=1)
        gaps = functional.softplus(highest_absent + lowest_present)
        return entropy + self.separation * gaps.sum() / max(len(labels), 1)

    def extra_repr(self) -> str:
        """Show the settings, and a digest of the label vectors, so that two sets of them can be told apart."""
        vectors = digest(self.label_vectors)
        return f"distance={self.distance!r}, separation={self.separation}, label_vectors={vectors}"


def _semantic_adjacency(unit_vectors: Tensor, num_neighbors: int) -> Tensor:
    """Join each label to the labels whose vectors are nearest, both ways, by their cosines, itself by 1."""
    cosine = (unit_vectors @ unit_vectors.T).fill_diagonal_(0).clamp(min=0)
    kept = torch.zeros_like(cosine)
    count = min(num_neighbors, len(cosine) - 1)
    if count > 0:
        values, neighbors = cosine.topk(count, dim=1)
        kept.scatter_(1, neighbors, values)
    return normalize_adjacency(torch.maximum(kept, kept.T).fill_diagonal_(1))
