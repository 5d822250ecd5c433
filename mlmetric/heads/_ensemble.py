"""Several heads that act as one."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn


class EmbeddingEnsemble(nn.Module):
    """Join the embeddings of several heads: the squared distance is the mean of the squared distances of its members.

    Heads that were trained apart, from other starts and batches, err in other places; their mean distance errs less.

    Args:
        members: Heads `(N, D) -> (N, E)`, trained or to be trained, each by itself.

    Attributes:
        embedding_size: The sum of the members', where each names its own.

    Raises:
        ValueError: If there is no member.

    Examples:
        >>> ensemble = EmbeddingEnsemble([nn.Identity(), nn.Identity()])
        >>> embeddings = ensemble(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
        >>> embeddings.shape, torch.cdist(embeddings, embeddings)[0, 1]
        (torch.Size([2, 4]), tensor(5.))
    """

    def __init__(self, members: Iterable[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        if not self.members:
            raise ValueError("`members` must hold at least one head, got none.")

    @property
    def embedding_size(self) -> int:
        """E of the joined embedding."""
        sizes: list[int] = [member.embedding_size for member in self.members]  # type: ignore[misc]
        return sum(sizes)

    def forward(self, features: Tensor) -> Tensor:
        """Embed features of shape `(N, D)` by each member: shape `(N, sum of E)`."""
        joined = torch.cat([member(features) for member in self.members], dim=1)
        return joined / math.sqrt(len(self.members))
