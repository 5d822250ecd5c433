"""Draws without replacement, for many small urns at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Rand = Callable[..., Tensor]
"""Uniform numbers in [0, 1), float64, of a shape."""


def draw_distinct(number: Tensor, keep: Tensor, rand: Rand) -> Tensor:
    """Draw `keep` different of the integers below `number`, each set of them equally likely.

    Time and memory go with what is drawn, not with `number`.

    Args:
        number: Shape `(P,)`, int64.
        keep: Shape `(P,)`, int64, at most `number`.
        rand: Source of random numbers.

    Returns:
        Shape `(P, largest keep)`, int64; in row i only the first `keep[i]` have a meaning.
    """
    width = int(keep.max()) if len(keep) else 0
    few = 4 * keep < number
    drawn = keep.new_zeros(len(keep), width)
    drawn[few] = _few_of_many(number[few], keep[few], width, rand)
    drawn[~few] = _many_of_few(number[~few], width, rand)
    return drawn


def _few_of_many(number: Tensor, keep: Tensor, width: int, rand: Rand) -> Tensor:
    """Draw with replacement, and draw again what came twice until nothing does."""
    place = torch.arange(width, device=keep.device)
    drawn = _below(number[:, None].expand(-1, width), rand)
    drawn = torch.where(place < keep[:, None], drawn, -1 - place)  # what has no meaning never comes twice
    while width > 1:
        drawn = drawn.sort(dim=1, descending=True).values
        row, column = (drawn[:, 1:] == drawn[:, :-1]).nonzero(as_tuple=True)
        if len(row) == 0:
            break
        drawn[row, column] = _below(number[row], rand)
    return drawn


def _below(number: Tensor, rand: Rand) -> Tensor:
    return torch.minimum((rand(*number.shape) * number).long(), number - 1)


def _many_of_few(number: Tensor, width: int, rand: Rand) -> Tensor:
    """Give each integer a random key and take those with the largest."""
    most = max(width, int(number.max()) if len(number) else 0)
    keys = rand(len(number), most).masked_fill_(torch.arange(most, device=number.device) >= number[:, None], -1)
    return keys.topk(width, dim=1).indices
