"""Splits in which rare labels reach every part."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mlmetric.data._stratification import stratify
from mlmetric.labels import check_labels


def stratified_split(
    labels: Tensor, fractions: Sequence[float] = (0.7, 0.2, 0.1), *, generator: torch.Generator
) -> list[Tensor]:
    """Split rows into parts of the sizes asked for that carry each label in the same proportion, as far as these allow.

    Sizes come first: each part has its fraction of the rows, rounded down or up so that they add up to N. Label shares
    come second; a label that has at least as many rows as there are parts is wanted at least once in each.

    Args:
        labels: Multi-hot, shape `(N, L)`. Rows without labels are spread over the parts too.
        fractions: Sizes of the parts, > 0, adding up to 1.
        generator: Breaks ties, and so makes one split of many.

    Returns:
        For each part its row numbers, int64, ascending. A part of less than one row may be empty.

    Raises:
        TypeError: If `labels` is neither a tensor nor an array.
        ValueError: If the fractions are not positive or do not add up to 1, or labels are not hard.

    Examples:
        >>> labels = torch.tensor([[1, 0], [1, 0], [1, 1], [0, 1], [0, 1], [1, 0]])
        >>> first, second = stratified_split(labels, (0.5, 0.5), generator=torch.Generator().manual_seed(0))
        >>> labels[first].sum(0).tolist(), labels[second].sum(0).tolist()
        ([2, 1], [2, 2])

    Source:
        After iterative stratification: Sechidis, Tsoumakas, Vlahavas, "On the stratification of multi-label data", ECML
        PKDD 2011. Deviations: sizes are kept exactly, a row is assigned by all of its labels, and the wish for at least
        one row of each label in each part.
    """
    labels = check_labels(torch.as_tensor(labels))
    fractions = tuple(map(float, fractions))
    if not fractions or not (min(fractions) > 0 and abs(sum(fractions) - 1) <= 1e-9):
        raise ValueError(f"`fractions` must be above 0 and add up to 1, got {fractions}.")
    positive = labels.bool().cpu()
    if not bool((labels.cpu() == positive).all()):
        raise ValueError("`labels` must be multi-hot, 0 or 1, got soft labels; take `labels >= threshold`.")
    part_of = stratify(positive.numpy(), _sizes(len(labels), fractions), generator=generator)
    return [torch.from_numpy(np.flatnonzero(part_of == part)) for part in range(len(fractions))]


def _sizes(num_rows: int, fractions: Sequence[float]) -> npt.NDArray[np.int64]:
    """Return whole numbers of rows that add up to all: fractions rounded down, the largest remainders up."""
    quotas = np.array(fractions) * num_rows
    sizes = np.floor(quotas + 1e-9).astype(np.int64)  # 0.29 of 100 rows is 29, not 28 by a binary digit
    rounded_up = np.argsort(sizes - quotas, kind="stable")[: num_rows - sizes.sum()]
    sizes[rounded_up] += 1
    return sizes
