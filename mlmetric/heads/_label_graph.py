"""The head that makes classifiers of labels out of a graph over them."""

from __future__ import annotations

from typing import Any, Self

from torch import Tensor, nn
from torch.nn import functional

from mlmetric.heads._graph import GraphConvolution, check_graph, cooccurrence_adjacency, digest
from mlmetric.heads._standardize import Standardize
from mlmetric.label_vectors import cooccurrence_vectors
from mlmetric.labels import check_labels


class LabelGraphHead(nn.Module):
    """ML-GCN: two graph convolutions turn label vectors into classifiers, so that related labels have related ones.

    Vectors of labels `(L, d)` pass through a graph convolution, a LeakyReLU of slope 0.2, and a second one that gives
    `in_features` numbers a label; the logit of a label is the inner product of these and the feature. No bias. Trained
    like any classifier head, by [fit_classifier][mlmetric.training.fit_classifier]; it needs raw features, not an
    embedding. Features pass through `standardize` first, which does nothing until it is fitted.

    Args:
        in_features: Size of the feature.
        label_vectors: Shape `(L, d)`, from [mlmetric.label_vectors][]; they are not trained.
        adjacency: Shape `(L, L)`, from [cooccurrence_adjacency][mlmetric.heads.cooccurrence_adjacency].
        hidden_features: Length of the vectors between the convolutions.

    Raises:
        ValueError: If shapes do not fit or a number is not finite.

    Examples:
        >>> import torch
        >>> labels = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 1, 1]])
        >>> head = LabelGraphHead.from_labels(16, labels)
        >>> head(torch.zeros(4, 16)).shape
        torch.Size([4, 3])

    Source:
        Chen et al., "Multi-label image recognition with graph convolutional networks", CVPR 2019, which takes GloVe
        vectors of the labels' names and max pooling: `FrozenBackbone(pooling="max")`.
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
    def from_labels(
        cls, in_features: int, labels: Tensor, *, label_vectors: Tensor | None = None, **settings: Any
    ) -> Self:
        """Make graph and, where none are given, vectors from training labels.

        Args:
            in_features: Size of the feature.
            labels: Training labels, shape `(N, L)`.
            label_vectors: Shape `(L, d)`; by default from co-occurrence.
            **settings: `hidden_features`, and those of
                [cooccurrence_adjacency][mlmetric.heads.cooccurrence_adjacency].
        """
        hidden = {name: settings.pop(name) for name in ("hidden_features",) if name in settings}
        adjacency = cooccurrence_adjacency(labels, **settings)
        vectors = cooccurrence_vectors(labels) if label_vectors is None else label_vectors
        return cls(in_features, vectors, adjacency, **hidden)

    def forward(self, features: Tensor) -> Tensor:
        """Score features of shape `(N, in_features)`: logits of shape `(N, L)`."""
        hidden = functional.leaky_relu(self.first(self.label_vectors), 0.2)
        logits: Tensor = self.standardize(features) @ self.second(hidden).T
        return logits

    def probabilities(self, logits: Tensor) -> Tensor:
        """Turn logits `(N, L)` into probabilities."""
        return logits.sigmoid()

    def loss(self, logits: Tensor, labels: Tensor, *, validate_args: bool = True) -> Tensor:
        """Take the mean binary cross entropy, in nats, of logits to labels.

        Args:
            logits: Shape `(N, L)`.
            labels: Shape `(N, L)`, in [0, 1].
            validate_args: Whether to check that labels are in [0, 1]. On a CUDA tensor that waits for the device.

        Raises:
            ValueError: If `labels` is not a matrix, or one is NaN or outside [0, 1].
        """
        check_labels(labels, validate_args=validate_args)
        return functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))

    def extra_repr(self) -> str:
        """Show a digest of the label vectors, so that two sets of them can be told apart."""
        return f"label_vectors={digest(self.label_vectors)}"
