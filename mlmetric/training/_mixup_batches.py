"""The batches of an epoch, with mixup."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mlmetric._random_generators import thread_generator
from mlmetric.samplers import MultiLabelBatchSampler
from mlmetric.training._config import TrainingConfig


@dataclass(frozen=True)
class MixupRows:
    """Row indices of a mixup batch, with partners and mixing weights; without partners the rows are not mixed.

    Attributes:
        rows: Row indices, shape `(B,)`.
        partners: Index of the row that each row is mixed with, shape `(B,)`; None without mixup.
        weights: Weight of each row, from 0.5 to 1, shape `(B,)`; the partner has the rest. None without mixup.
    """

    rows: Tensor
    partners: Tensor | None = None
    weights: Tensor | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def mix(self, values: Tensor, *, skip_nan: bool = False) -> Tensor:
        """Select these rows of features or labels, shape `(N, ...)`, and mix them with their partners.

        Args:
            values: Shape `(N, ...)`.
            skip_nan: Whether features may be NaN because a view is missing; each row then keeps its own views, and
                features that the partner lacks are not mixed.
        """
        selected = values.index_select(0, self.rows.to(values.device))  # faster than indexing
        if self.partners is None or self.weights is None:
            return selected
        dtype = torch.promote_types(values.dtype, torch.float32) if values.is_floating_point() else torch.float32
        weights = self.weights.to(values.device, dtype).view(-1, *[1] * (values.ndim - 1))
        selected = selected.to(dtype)
        partners = values.index_select(0, self.partners.to(values.device))
        mixed = torch.lerp(partners.to(dtype), selected, weights)
        return torch.where(mixed.isnan(), selected, mixed) if skip_nan else mixed

    def chunk(self, index: int, num_chunks: int) -> MixupRows:
        """Return one of `num_chunks` chunks of about equal size."""

        def chunk_of(values: Tensor) -> Tensor:
            return torch.tensor_split(values, num_chunks)[index]

        if self.partners is None or self.weights is None:
            return MixupRows(chunk_of(self.rows))
        return MixupRows(chunk_of(self.rows), chunk_of(self.partners), chunk_of(self.weights))


def draw_mixup(batches: Sequence[Tensor], alpha: float, generator: torch.Generator | None = None) -> list[MixupRows]:
    """Draw partners and weights for the rows of batches; alpha 0 draws none.

    Args:
        batches: The row indices of each batch, shape `(B,)`.
        alpha: A row has weight w or 1 - w, whichever is larger, with w drawn from Beta(alpha, alpha).
        generator: Draws partners and weights, on the CPU; None for torch's global generator.

    Returns:
        The rows of each batch; each of them is the partner of one row of its batch.
    """
    if not alpha:
        return [MixupRows(rows) for rows in batches]
    sizes = [len(rows) for rows in batches]
    seed = int(torch.randint(2**62, (), generator=generator))  # torch's Beta distribution accepts no generator
    weights = torch.from_numpy(np.random.default_rng(seed).beta(alpha, alpha, sum(sizes)).astype(np.float32))
    weights = torch.maximum(weights, 1 - weights)
    return [
        MixupRows(rows, rows[torch.randperm(len(rows), generator=generator)], part)
        for rows, part in zip(batches, torch.split(weights, sizes), strict=True)
    ]


def mixup_batches(labels: Tensor, config: TrainingConfig, *, seed: int, epoch: int) -> list[MixupRows]:
    """Draw the batches of an epoch from the generator of this thread, or torch's global generator outside `seeded`.

    Args:
        labels: Labels of the training rows, shape `(N, L)`.
        config: Settings of the stage.
        seed: Seed of the sampler for `items_per_label`.
        epoch: Number of the epoch, from 0.

    Returns:
        The rows of each batch.
    """
    return draw_mixup(_row_batches(labels, config, seed=seed, epoch=epoch), config.mixup, thread_generator())


def _row_batches(labels: Tensor, config: TrainingConfig, *, seed: int, epoch: int) -> list[Tensor]:
    if config.items_per_label is not None:
        num_labelled = int((labels > 0).any(dim=1).sum())
        if num_labelled < 2:
            raise ValueError(f"`items_per_label` requires at least two rows with labels, got {num_labelled}.")
        sampler = MultiLabelBatchSampler(
            labels,
            min(config.batch_size, num_labelled),
            items_per_label=config.items_per_label,
            generator=torch.Generator().manual_seed(seed),
            num_replicas=1,
            rank=0,
        )
        sampler.set_epoch(epoch)
        return [torch.tensor(batch) for batch in sampler]
    batches = list(torch.split(torch.randperm(len(labels), generator=thread_generator()), config.batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1:  # too few rows for batch normalisation and miners
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches
