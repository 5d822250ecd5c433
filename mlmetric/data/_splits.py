"""Splits in which rare labels reach every part."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mlmetric.labels import check_labels


def stratified_split(
    labels: Tensor, fractions: Sequence[float] = (0.7, 0.2, 0.1), *, generator: torch.Generator
) -> list[Tensor]:
    """Split rows into parts that carry each label in the same proportion, as far as whole rows allow.

    A label that has at least as many rows as there are parts is wanted at least once in each part.

    Args:
        labels: Multi-hot, shape `(N, L)`. Rows without labels are spread over the parts too.
        fractions: Sizes of the parts, > 0, adding up to 1.
        generator: Breaks ties, and so makes one split of many.

    Returns:
        For each part its row numbers, int64, ascending.

    Raises:
        ValueError: If the fractions are not positive or do not add up to 1, or labels are not hard.

    Example:
        >>> labels = torch.tensor([[1, 0], [1, 0], [1, 1], [0, 1], [0, 1], [1, 0]])
        >>> first, second = stratified_split(labels, (0.5, 0.5), generator=torch.Generator().manual_seed(0))
        >>> labels[first].sum(0).tolist(), labels[second].sum(0).tolist()
        ([2, 1], [2, 2])

    Source:
        Iterative stratification: Sechidis, Tsoumakas, Vlahavas, "On the stratification of multi-label data",
        ECML PKDD 2011. Deviation: the wish for at least one row of each label in each part.
    """
    labels = check_labels(torch.as_tensor(labels))
    if min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-9:
        raise ValueError(f"`fractions` must be above 0 and add up to 1, got {tuple(fractions)}.")
    positive = labels.bool().cpu()
    if not bool((labels.cpu() == positive).all()):
        raise ValueError("`labels` must be multi-hot, 0 or 1, got soft labels; take `labels >= threshold`.")

    share = torch.tensor(fractions, dtype=torch.float64)
    wanted_rows = share * len(labels)
    wanted = _wanted_by_label(positive.sum(0), share)
    part_of = torch.full((len(labels),), -1)
    remaining = positive.sum(0)
    unassigned = positive.clone()
    while bool((remaining > 0).any()):
        label = int(torch.where(remaining > 0, remaining, remaining.max() + 1).argmin())
        rows = unassigned[:, label].nonzero().squeeze(1)
        for row in rows[torch.randperm(len(rows), generator=generator)].tolist():
            part = _neediest(wanted[:, label], wanted_rows, generator)
            part_of[row] = part
            wanted[part, positive[row]] -= 1
            wanted_rows[part] -= 1
        remaining -= positive[rows].sum(0)
        unassigned[rows] = False
    unlabelled = (part_of < 0).nonzero().squeeze(1)
    for row in unlabelled[torch.randperm(len(unlabelled), generator=generator)].tolist():
        part = _neediest(wanted_rows, wanted_rows, generator)
        part_of[row] = part
        wanted_rows[part] -= 1
    return [(part_of == part).nonzero().squeeze(1) for part in range(len(fractions))]


def _wanted_by_label(counts: Tensor, share: Tensor) -> Tensor:
    """How many rows of each label each part wants, shape `(parts, L)`."""
    wanted = share[:, None] * counts
    raised = torch.where(counts >= len(share), wanted.clamp(min=1), wanted)
    largest = int(share.argmax())
    raised[largest] -= raised.sum(0) - counts
    return raised


def _neediest(wanted: Tensor, wanted_rows: Tensor, generator: torch.Generator) -> int:
    neediest = (wanted == wanted.max()).nonzero().squeeze(1)
    if len(neediest) > 1:
        neediest = neediest[wanted_rows[neediest] == wanted_rows[neediest].max()]
    return int(neediest[torch.randint(len(neediest), (1,), generator=generator)])
