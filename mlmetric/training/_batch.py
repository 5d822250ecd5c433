"""Some rows of a batch, each mixed with a partner where there are partners."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Some rows, each mixed with a partner where there are partners."""

    rows: Tensor
    partners: Tensor | None = None
    shares: Tensor | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def of(self, values: Tensor) -> Tensor:
        """Take these rows of features or labels."""
        taken = values[self.rows]
        if self.partners is None or self.shares is None:
            return taken
        dtype = torch.promote_types(values.dtype, torch.float32) if values.is_floating_point() else torch.float32
        shares = self.shares.to(values.device, dtype).view(-1, *[1] * (values.ndim - 1))
        return shares * taken + (1 - shares) * values[self.partners]

    def part(self, index: int, count: int) -> Batch:
        """Take one of `count` parts."""

        def cut(values: Tensor) -> Tensor:
            return torch.tensor_split(values, count)[index]

        if self.partners is None or self.shares is None:
            return Batch(cut(self.rows))
        return Batch(cut(self.rows), cut(self.partners), cut(self.shares))


def mixed(rows: Tensor, mixup: float) -> Batch:
    """Mix each row with another, the greater share, drawn from Beta(mixup, mixup), its own; 0 mixes none."""
    if not mixup:
        return Batch(rows)
    shares = torch.distributions.Beta(mixup, mixup).sample((len(rows),))
    return Batch(rows, rows[torch.randperm(len(rows))], torch.maximum(shares, 1 - shares))
