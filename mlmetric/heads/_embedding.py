"""The head that a metric loss trains."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mlmetric.heads._standardize import Standardize

_SHORTEST = 1e-6


class EmbeddingHead(nn.Module):
    """Fully connected layers from the feature of a frozen backbone to an embedding.

    The default is the paper's: two layers, 256 numbers at the end, nothing after the last one. Features pass
    through `standardize` first, which does nothing until `head.standardize.fit(train_features)`.

    Args:
        in_features: D, the size of the feature.
        widths: Sizes of the layers; the last one is the size of the embedding. The paper gives 256 for the last
            and no other; 512 is our choice.
        activation: Makes the activation between the layers.
        batch_norm: Whether batch normalisation stands before each activation between layers.
        clip: Features beyond plus or minus this, in deviations once they are standardised, are cut to it; None leaves
            them. A word that few rows have stands out by tens of deviations otherwise, and leads all else.
        input_dropout: Share of the features dropped in training, in [0, 1).
        dropout: Share of hidden units dropped in training after each activation between layers, in [0, 1).
        activate_last: Whether the activation stands after the last layer, too: the embedding is then what a
            perceptron's classifier sees, and with ReLU cannot be negative.
        normalize: How far embeddings are brought to unit length, in [0, 1]: their length is raised to the power
            `1 - normalize`. True brings all to length 1, False leaves them as they are. In between, what the network is
            sure of stays farther out than what it doubts, though less so: Euclidean neighbours then serve graded
            retrieval, which wants directions, and label scores from neighbours, which want doubt to show.

    Raises:
        ValueError: If there is no layer, a size is below 1, `clip` is not above 0, or `normalize` is outside [0, 1].

    Examples:
        >>> EmbeddingHead(2048)(torch.zeros(4, 2048)).shape
        torch.Size([4, 256])

    Source:
        "From image to emotion: multi-label image classification based on triplet loss" (2021), section 4.
        Standardisation, which the paper does not mention, is off until it is fitted.
    """

    def __init__(
        self,
        in_features: int,
        widths: Sequence[int] = (512, 256),
        *,
        activation: Callable[[], nn.Module] = nn.ReLU,
        batch_norm: bool = False,
        clip: float | None = None,
        input_dropout: float = 0.0,
        dropout: float = 0.0,
        activate_last: bool = False,
        normalize: bool | float = False,
    ) -> None:
        super().__init__()
        if not widths or min(in_features, *widths) < 1:
            raise ValueError(
                "`in_features` and `widths` must name layers of at least 1 unit, "
                f"got {in_features} and {tuple(widths)}."
            )
        if clip is not None and not clip > 0:
            raise ValueError(f"`clip` must be None or above 0, got {clip}.")
        if not 0 <= normalize <= 1:
            raise ValueError(f"`normalize` must be in [0, 1], or a bool, got {normalize}.")
        self.in_features = in_features
        self.embedding_size = widths[-1]
        self.clip = clip
        self.normalize = normalize
        self.standardize = Standardize(in_features)
        layers: list[nn.Module] = [nn.Dropout(input_dropout)] if input_dropout else []
        size = in_features
        for width in widths[:-1]:
            layers.append(nn.Linear(size, width))
            layers += [nn.BatchNorm1d(width)] if batch_norm else []
            layers.append(activation())
            layers += [nn.Dropout(dropout)] if dropout else []
            size = width
        layers.append(nn.Linear(size, widths[-1]))
        layers += [activation()] if activate_last else []
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """Embed features of shape `(N, D)`: shape `(N, embedding_size)`."""
        features = self.standardize(features)
        if self.clip is not None:
            features = features.clamp(-self.clip, self.clip)
        embeddings: Tensor = self.layers(features)
        if not self.normalize:
            return embeddings
        if self.normalize == 1:
            return torch.nn.functional.normalize(embeddings)
        lengths = torch.linalg.vector_norm(embeddings, dim=1, keepdim=True)
        shortened: Tensor = embeddings * lengths.clamp(min=_SHORTEST) ** -self.normalize
        return shortened

    def extra_repr(self) -> str:
        """Show where features are cut, and how far embeddings are brought to unit length."""
        return f"clip={self.clip}, normalize={self.normalize}"
