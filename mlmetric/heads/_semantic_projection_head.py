"""The head that projects features into the space of the label vectors."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlmetric._docstrings import inherit_docs
from mlmetric.heads._classifier_head import ClassifierHead
from mlmetric.heads._label_entropy import label_entropy
from mlmetric.heads._label_graph_head import GraphConvolution, check_graph, normalize_adjacency
from mlmetric.heads._standardize import Standardize
from mlmetric.labels import LabelsLike, label_tensor


class SemanticProjectionHead(nn.Module):
    """A projection of features into the space of label vectors, where near labels get high scores (Pilli et al.).

    A linear layer projects the features to d dimensions. The label vectors are refined by a graph convolution whose
    edges are the semantic similarities of the labels, not their co-occurrence; its result is added to them. The logit
    of a label is `scale * similarity + bias`, where the similarity compares its refined vector with the projection. The
    scale, and a bias for each label, are trained.

    Args:
        in_features: D, the number of features.
        label_vectors: Shape `(L, d)`: word vectors of the label names, or vectors from co-occurrence; see
            [mlmetric.label_vectors][]. They are scaled to unit length; zero vectors stay zero.
        distance: `"cosine"`: the similarity is the cosine. `"euclidean"`: it is 1 - half the squared distance, which
            equals the cosine for projections of unit length, but is also defined for others.
        num_neighbors: Number of neighbours of a label in the graph: the labels with the highest cosines above 0.
        separation: Weight of the ranking term in the loss, which separates present from absent labels.

    Raises:
        ValueError: If a shape is wrong, a number is not finite, or a setting is out of range.

    Examples:
        >>> import torch
        >>> from mlmetric.heads import SemanticProjectionHead
        >>> head = SemanticProjectionHead(16, torch.eye(3))
        >>> head(torch.zeros(4, 16)).shape
        torch.Size([4, 3])

    Source:
        After Pilli et al., "Predicting sentiments in image advertisements using semantic relations among sentiment
        labels", CVPR Workshops 2020. The paper states the following: ResNet-152 features are projected into the space
        of word vectors of the labels, a graph convolution uses the semantic relations of the labels, and the loss is
        based on a distance that suits the distribution of the labels. Our choices: one linear projection, a symmetric
        graph of nearest neighbours, a residual connection around the convolution, and as loss the binary cross entropy
        plus the pairwise ranking loss `log(1 + sum_absent exp(s) * sum_present exp(-s))` of Li et al., "Improving
        pairwise ranking for multi-label image classification", CVPR 2017.
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
        self.num_neighbors = num_neighbors
        self.separation = separation
        vectors = functional.normalize(label_vectors.detach().float()) if label_vectors.ndim == 2 else label_vectors
        adjacency = _semantic_adjacency(vectors, num_neighbors) if vectors.ndim == 2 else vectors
        check_graph(vectors, adjacency)
        num_labels, size = vectors.shape
        self.register_buffer("label_vectors", vectors)
        self.standardize = Standardize(in_features)
        self.projection = nn.Linear(in_features, size)
        if distance == "euclidean":  # standardised features are projected to a length of about 1
            nn.init.normal_(self.projection.weight, std=(in_features * size) ** -0.5)
            nn.init.zeros_(self.projection.bias)
        self.refinement = GraphConvolution(adjacency, size, size)
        self.scale = nn.Parameter(torch.tensor(10.0))
        self.bias = nn.Parameter(torch.zeros(num_labels))

    def forward(self, features: Tensor) -> Tensor:
        """Compute logits `(N, L)` from features `(N, D)`."""
        labels = functional.normalize(self.label_vectors + self.refinement(self.label_vectors))
        projected = self.project(features)
        if self.distance == "cosine":
            similarity = projected @ labels.T
        else:
            squares = projected.square().sum(dim=1, keepdim=True) + labels.square().sum(dim=1)
            similarity = 1 + projected @ labels.T - squares / 2
        return self.scale * similarity + self.bias

    def project(self, features: Tensor) -> Tensor:
        """Project features `(N, D)` to `(N, d)`, of unit length if `distance` is `"cosine"`."""
        projected: Tensor = self.projection(self.standardize(features))
        return functional.normalize(projected) if self.distance == "cosine" else projected

    def probabilities(self, logits: Tensor) -> Tensor:
        """Convert logits `(N, L)` to probabilities of the same shape."""
        return logits.sigmoid()

    @inherit_docs(ClassifierHead.loss)
    def loss(self, logits: Tensor, labels: LabelsLike, *, validate_args: bool = True) -> Tensor:
        """Compute the binary cross entropy plus `separation` times the pairwise ranking loss, each the mean over rows.

        In the ranking loss, labels of at least 0.5 are present. It is 0 for a row in which all labels or no labels are
        present. Missing labels, NaN, are left out of both losses.
        """
        target = label_tensor(labels, validate_args=validate_args, allow_missing=True).to(logits)
        entropy = label_entropy(logits, target, validate_args=False)
        if not self.separation:
            return entropy
        present, absent = target >= 0.5, target < 0.5
        highest_absent = logits.masked_fill(~absent, -torch.inf).logsumexp(dim=1)
        lowest_present = (-logits).masked_fill(~present, -torch.inf).logsumexp(dim=1)
        ranking = functional.softplus(highest_absent + lowest_present)
        return entropy + self.separation * ranking.sum() / (present | absent).any(dim=1).sum().clamp(min=1)

    def extra_repr(self) -> str:
        """Show the settings and the shape of the label vectors."""
        return (
            f"label_vectors={tuple(self.label_vectors.shape)}, distance={self.distance!r}, "
            f"num_neighbors={self.num_neighbors}, separation={self.separation}"
        )


def _semantic_adjacency(unit_vectors: Tensor, num_neighbors: int) -> Tensor:
    """Return a symmetric adjacency matrix: the cosines of nearest neighbours if above 0, and 1 on the diagonal."""
    cosine = (unit_vectors @ unit_vectors.T).fill_diagonal_(0).clamp(min=0)
    kept = torch.zeros_like(cosine)
    count = min(num_neighbors, len(cosine) - 1)
    if count > 0:
        values, neighbors = cosine.topk(count, dim=1)
        kept.scatter_(1, neighbors, values)
    return normalize_adjacency(torch.maximum(kept, kept.T).fill_diagonal_(1))
