"""The rows that are set aside for validation: the same for all members, or different rows for each."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from mlmetric.data import stratified_split
from mlmetric.estimators._training_data import TrainingData


class Part(NamedTuple):
    """Rows to train on, and rows that choose epochs and settings; None if there are none."""

    train: TrainingData
    validation: TrainingData | None


class Parts(Protocol):
    """The training rows and validation rows of each member: `parts[m]` is the part of member m.

    Attributes:
        data: All rows.
    """

    data: TrainingData

    def __len__(self) -> int: ...
    def __getitem__(self, member: int) -> Part: ...


class ViewParts:
    """The rows of each part that have a view, with the features of this view only.

    Args:
        parts: The parts of all views.
        name: The name of the view.
        columns: The columns of the view.

    Raises:
        ValueError: If fewer than two training rows of a part have the view.
    """

    def __init__(self, parts: Parts, name: str, columns: slice) -> None:
        self.data = parts.data.of_view(columns)
        self._parts, self._columns = parts, columns
        fewest = min(len(self[number].train.labels) for number in range(len(parts)))
        if fewest < 2:
            raise ValueError(
                f"The view {name!r} is in {len(self.data.labels)} of {len(parts.data.labels)} rows, and in {fewest} of "
                "the training rows of a member: at least 2 are required. Leave it out, or pass more rows with it."
            )

    def __len__(self) -> int:
        return len(self._parts)

    def __getitem__(self, member: int) -> Part:
        train, validation = self._parts[member]
        held_out = None if validation is None else validation.of_view(self._columns)
        return Part(train.of_view(self._columns), held_out if held_out is not None and len(held_out.labels) else None)


class ValidationParts:
    """The training rows and validation rows of each member.

    Member m uses part m modulo the number of parts.

    Args:
        data: The rows passed as `X` and `y`.
        validation: The rows passed as `validation`, for all members; None to set aside rows of `data`.
        fraction: Share of the rows that each part sets aside; 0 for none.
        num_parts: Number of parts, at least 1. There are fewer if they would require more rows than there are.
        seed: Seed of the choice of rows.

    Attributes:
        data: The rows passed as `X` and `y`.
        validation: The rows passed as `validation`, or None.
        rows: For each part, the indices of the rows of `data` that it sets aside; empty if `validation` is given or no
            rows are set aside.
    """

    def __init__(
        self, data: TrainingData, validation: TrainingData | None, *, fraction: float, num_parts: int, seed: int
    ) -> None:
        if not 0 <= fraction < 1:
            raise ValueError(f"`validation_fraction` must be in [0, 1), got {fraction}.")
        self.data = data
        self.validation = validation
        self.rows = [] if validation is not None else _rows_set_aside(data, fraction, num_parts, seed)

    def __len__(self) -> int:
        """Return the number of different parts."""
        return max(1, len(self.rows))

    def __getitem__(self, member: int) -> Part:
        """Return the part of a member."""
        if not self.rows:
            return Part(self.data, self.validation)
        set_aside = self.rows[member % len(self)]
        is_training = torch.ones(len(self.data.labels), dtype=torch.bool)
        is_training[set_aside] = False
        return Part(self.data.select(is_training.nonzero().squeeze(1)), self.data.select(set_aside))

    @property
    def has_validation(self) -> bool:
        """Whether there are validation rows."""
        return self.validation is not None or bool(self.rows)


def _rows_set_aside(data: TrainingData, fraction: float, num_parts: int, seed: int) -> list[Tensor]:
    """Choose the rows of each part, stratified by label: at least one, unless fewer than two would be left."""
    num_rows = len(data.labels)
    if fraction == 0 or num_rows < 3:
        return []
    num_parts = max(1, min(num_parts, int(1 / fraction + 1e-9), int(num_rows * fraction)))
    rest = 1 - num_parts * fraction
    fractions = (rest, *[fraction] * num_parts) if rest > 1e-9 else (fraction,) * num_parts
    generator = torch.Generator().manual_seed(seed)
    parts = stratified_split(data.hard.labels, [part / sum(fractions) for part in fractions], generator=generator)
    set_aside = parts[-num_parts:]
    if any(len(part) == 0 or num_rows - len(part) < 2 for part in set_aside):
        return [torch.randperm(num_rows, generator=torch.Generator().manual_seed(seed))[-1:]]
    return set_aside
