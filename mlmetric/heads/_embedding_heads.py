"""The head that maps features to an embedding, and an ensemble of such heads."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from mlmetric.heads._dropout import Dropout
from mlmetric.heads._standardize import Standardize

_MIN_NORM = 1e-6


class EmbeddingHead(nn.Module):
    """Fully connected layers that map the features of a frozen backbone to an embedding.

    The default is the head of the paper cited below: two layers, the last one without activation. Features first pass
    through `standardize`, which does nothing until `head.standardize.fit(train_features)` is called.

    Args:
        in_features: D, the number of features.
        widths: Sizes of the layers; the last one is the size of the embedding, E. The paper states only the size of the
            last layer, 256; 512 for the first layer is our choice.
        activation: Called without arguments to make the activation between two layers.
        batch_norm: Whether to apply batch normalisation before each activation between layers.
        clip: Standardised features are clipped to the range from `-clip` to `clip`; None does not clip them. Without
            clipping, a rare feature, such as a word in few rows, can be tens of standard deviations from its mean and
            dominate the embedding.
        input_dropout: Dropout probability of the features, in [0, 1).
        dropout: Dropout probability after each activation between layers, in [0, 1).
        activate_last: Whether to apply the activation after the last layer too. With ReLU the embedding then has no
            negative entries, like the input of the last layer of a multi-layer perceptron.
        norm_exponent: The norm of each embedding is raised to this power, in [0, 1]. 1 keeps the norm, 0 normalises
            embeddings to unit length. Partial normalisation keeps some of the norm as a confidence signal: Euclidean
            neighbours are then suited to graded retrieval, which depends on directions, and to the prediction of
            labels from neighbours, which depends on confidence.

    Attributes:
        embedding_size: E.

    Raises:
        ValueError: If there is no layer, a size is below 1, `clip` is not above 0, a dropout probability is out of
            range, or `norm_exponent` is outside [0, 1].

    Examples:
        >>> import torch
        >>> from mlmetric.heads import EmbeddingHead
        >>> EmbeddingHead(2048)(torch.zeros(4, 2048)).shape
        torch.Size([4, 256])

    Source:
        "From image to emotion: multi-label image classification based on triplet loss" (2021), section 4. The paper
        does not mention standardisation, which is off until it is fitted.
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
        norm_exponent: float = 1.0,
    ) -> None:
        super().__init__()
        if not widths or min(in_features, *widths) < 1:
            raise ValueError(
                "`in_features` and `widths` must be sizes of at least 1, with at least one layer, "
                f"got {in_features} and {tuple(widths)}."
            )
        check_head_settings(clip, norm_exponent)
        self.in_features = in_features
        self.embedding_size = widths[-1]
        self.clip = clip
        self.norm_exponent = norm_exponent
        self.standardize = Standardize(in_features)
        layers: list[nn.Module] = [Dropout(input_dropout)] if input_dropout else []
        size = in_features
        for width in widths[:-1]:
            layers.append(nn.Linear(size, width))
            layers += [nn.BatchNorm1d(width)] if batch_norm else []
            layers.append(activation())
            layers += [Dropout(dropout)] if dropout else []
            size = width
        layers.append(nn.Linear(size, widths[-1]))
        layers += [activation()] if activate_last else []
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """Embed features of shape `(N, D)`, and return shape `(N, E)`."""
        features = self.standardize(features)
        if self.clip is not None:
            features = features.clamp(-self.clip, self.clip)
        embeddings: Tensor = self.layers(features)
        return rescale_norms(embeddings, self.norm_exponent)

    def extra_repr(self) -> str:
        """Show the settings that no submodule shows."""
        return f"clip={self.clip}, norm_exponent={self.norm_exponent}"


def check_head_settings(clip: float | None, norm_exponent: float) -> None:
    """Check the settings that embedding heads have in common.

    Raises:
        ValueError: If `clip` is not above 0, or `norm_exponent` is outside [0, 1].
    """
    if clip is not None and not clip > 0:
        raise ValueError(f"`clip` must be None or above 0, got {clip}.")
    if not 0 <= norm_exponent <= 1:
        raise ValueError(f"`norm_exponent` must be in [0, 1], got {norm_exponent}.")


def rescale_norms(embeddings: Tensor, exponent: float) -> Tensor:
    """Raise the norm of each embedding, shape `(N, E)`, to a power in [0, 1]; 0 normalises them to unit length."""
    if exponent == 1:
        return embeddings
    if exponent == 0:
        return torch.nn.functional.normalize(embeddings)
    norms = torch.linalg.vector_norm(embeddings, dim=1, keepdim=True)
    rescaled: Tensor = embeddings * norms.clamp(min=_MIN_NORM) ** (exponent - 1)
    return rescaled


class EmbeddingEnsemble(nn.Module):
    """Concatenate the embeddings of several heads; squared distances are the means of the members' squared distances.

    Heads that are trained separately, with different initial weights and batches, make different errors; the errors of
    their mean distance are smaller. Embeddings are divided by the square root of the number of members.

    Args:
        members: Heads that map `(N, D)` to `(N, E)`; E may differ.

    Attributes:
        members: The heads, a `ModuleList`.

    Raises:
        ValueError: If there is no member.

    Examples:
        >>> import torch
        >>> from mlmetric.heads import EmbeddingEnsemble
        >>> ensemble = EmbeddingEnsemble([torch.nn.Identity(), torch.nn.Identity()])
        >>> embeddings = ensemble(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
        >>> embeddings.shape, torch.cdist(embeddings, embeddings)[0, 1]
        (torch.Size([2, 4]), tensor(5.))
    """

    def __init__(self, members: Iterable[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        if not self.members:
            raise ValueError("`members` must contain at least one head, got none.")

    @property
    def embedding_size(self) -> int:
        """The sum of the members' `embedding_size`."""
        sizes: list[int] = [member.embedding_size for member in self.members]  # type: ignore[misc]
        return sum(sizes)

    def forward(self, features: Tensor) -> Tensor:
        """Embed features of shape `(N, D)`, and return shape `(N, sum of all E)`."""
        joined = torch.cat([member(features) for member in self.members], dim=1)
        return joined / math.sqrt(len(self.members))
