"""A split into parts with the same proportion of each label."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mlmetric.data._stratification import Integers, multi_hot_rows, stratify
from mlmetric.labels import LabelsLike


def stratified_split(
    labels: LabelsLike, fractions: Sequence[float] = (0.7, 0.2, 0.1), *, generator: torch.Generator | None = None
) -> list[Tensor]:
    """Split rows into parts of given sizes, and preserve the proportion of each label as far as the sizes allow.

    Sizes come first: each part has its fraction of the rows, rounded down or up so that the sum is N. Label proportions
    come second; each part should have at least one row of each label that has at least as many rows as there are parts.

    For scikit-learn's `cv=`, use `MultiLabelStratifiedKFold` or `MultiLabelStratifiedShuffleSplit`.

    Args:
        labels: Multi-hot, shape `(N, L)`: a tensor, an array, a list of rows, a scipy sparse matrix or a data frame.
            Rows without labels are also spread over the parts in proportion. A missing label, NaN, is treated as
            absent.
        fractions: Sizes of the parts as fractions of N, > 0, which sum to 1.
        generator: Draws the order of rows and breaks ties; None for torch's global generator.

    Returns:
        For each part its row indices, int64, ascending. A part whose fraction is less than one row may be empty.

    Raises:
        TypeError: If `labels` does not contain numbers.
        ValueError: If the fractions are not positive or their sum is not 1, or if labels are not 0, 1 or NaN.

    Examples:
        >>> import torch
        >>> from mlmetric.data import stratified_split
        >>> labels = torch.tensor([[1, 0], [1, 0], [1, 1], [0, 1], [0, 1], [1, 0]])
        >>> first, second = stratified_split(labels, (0.5, 0.5), generator=torch.Generator().manual_seed(0))
        >>> labels[first].sum(0).tolist(), labels[second].sum(0).tolist()
        ([2, 1], [2, 2])

    Source:
        After iterative stratification: Sechidis, Tsoumakas, Vlahavas, "On the stratification of multi-label data", ECML
        PKDD 2011. Deviations: sizes are exact, a row is assigned by all of its labels, and each part should have at
        least one row of each label.
    """
    rows = multi_hot_rows(labels, "labels")
    fractions = tuple(map(float, fractions))
    if not fractions or not (min(fractions) > 0 and abs(sum(fractions) - 1) <= 1e-9):
        raise ValueError(f"`fractions` must be above 0 and sum to 1, got {fractions}.")
    if generator is None:
        generator = torch.default_generator
    elif not isinstance(generator, torch.Generator):
        raise TypeError(f"`generator` must be a torch.Generator or None, got {type(generator).__name__}.")
    part_of = stratify(rows, _sizes(rows.shape[0], fractions), generator=generator)
    return [torch.from_numpy(np.flatnonzero(part_of == part)) for part in range(len(fractions))]


def _sizes(num_rows: int, fractions: Sequence[float]) -> Integers:
    """Return whole numbers of rows with the sum `num_rows`: fractions rounded down, the largest remainders up."""
    exact = np.array(fractions) * num_rows
    sizes = np.floor(exact + 1e-9).astype(np.int64)  # 0.29 of 100 rows is 29, not 28 by a rounding error
    rounded_up = np.argsort(sizes - exact, kind="stable")[: num_rows - sizes.sum()]
    sizes[rounded_up] += 1
    return sizes
