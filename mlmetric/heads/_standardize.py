"""Standardisation of features as a module."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn


class Standardize(nn.Module):
    """Scale each feature to mean 0 and standard deviation 1, with statistics that `fit` computes once.

    It does nothing until it is fitted. A feature that is constant, up to 1e-7 of its magnitude, is only centred. The
    result has the dtype of the statistics, float32 unless the module is converted. State dicts contain the statistics.

    Args:
        num_features: D, the number of features.

    Attributes:
        mean: Mean of each feature, shape `(D,)`; 0 before `fit`.
        scale: Standard deviation of each feature, shape `(D,)`; 1 before `fit`, and for constant features.

    Examples:
        >>> import torch
        >>> from mlmetric.heads import Standardize
        >>> standardize = Standardize(2).fit(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
        >>> standardize(torch.tensor([[3.0, 6.0]]))
        tensor([[1., 1.]])
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("scale", torch.ones(num_features))

    def fit(self, features: Tensor, *, skip_nan: bool = False) -> Self:
        """Compute mean and standard deviation (of the population) of training features.

        Args:
            features: Shape `(N, D)`, with N >= 1.
            skip_nan: Whether to leave NaN, such as the features of missing views, out of the statistics; each feature
                must then have at least one number.

        Returns:
            The module.

        Raises:
            ValueError: If the shape is wrong, or a feature is not finite; with `skip_nan`, if a feature is infinite or
                has no number.
        """
        if features.ndim != 2 or features.shape[1] != len(self.mean) or len(features) == 0:
            raise ValueError(
                f"`features` must have shape (N, {len(self.mean)}) with N >= 1, got {tuple(features.shape)}."
            )
        mean, scale = torch.empty_like(self.mean), torch.empty_like(self.scale)
        # float64 sums over blocks of columns, to avoid a second copy of the features.
        for columns in torch.split(torch.arange(len(self.mean)), 256):
            block = features[:, columns].double()
            if skip_nan:
                center = block.nanmean(dim=0)
                deviation = (block - center).square().nanmean(dim=0).sqrt()
                block = block.where(~block.isnan(), center)
            else:
                center = block.mean(dim=0)
                deviation = block.std(dim=0, correction=0)
            mean[columns] = center.to(mean)
            is_constant = deviation <= 1e-7 * block.abs().amax(dim=0)
            scale[columns] = torch.where(is_constant, 1, deviation).to(scale)
        if not bool(mean.isfinite().all() & scale.isfinite().all()):
            raise ValueError("`features` must be finite, got NaN or infinity.")
        self.mean.copy_(mean)
        self.scale.copy_(scale)
        return self

    def forward(self, features: Tensor) -> Tensor:
        """Standardise features of shape `(N, D)`."""
        return (features.to(self.mean.dtype) - self.mean) / self.scale

    def extra_repr(self) -> str:
        """Show the number of features."""
        return f"num_features={len(self.mean)}"
