"""Shapley values of the labels of pairs of rows: the coalitions whose values are needed, and the mean contributions."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import comb

import torch
from torch import Tensor

Game = Callable[[Tensor, Tensor], Tensor]
"""The value of each pair of rows, `(labels, ref_labels) -> (N,)`, for the labels that are left in both."""
_ELEMENTS_PER_CALL = 2**22
"""Number of elements of each of the two label matrices that are compared in one call."""


def exact_shares(game: Game, labels: Tensor, ref_labels: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Compute Shapley values from the values of all coalitions.

    Args:
        game: The value of a coalition.
        labels: Shape `(N, L)`.
        ref_labels: Shape `(N, L)`.
        columns: The players of each pair of rows, shape `(N, n)`.

    Returns:
        The Shapley values, and their standard errors, which are 0; float64, shape `(N, n)`.
    """
    coalitions, coefficients = (tensor.to(columns.device) for tensor in _all_coalitions(columns.shape[1]))
    parts = _coalition_values(game, labels, ref_labels, columns, coalitions)
    shares = torch.cat([values @ coefficients for values in parts])
    return shares, torch.zeros_like(shares)


def sampled_shares(
    game: Game, labels: Tensor, ref_labels: Tensor, columns: Tensor, *, num_permutations: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Estimate Shapley values from random orders of the players, each of them also in reverse.

    Args:
        game: The value of a coalition.
        labels: Shape `(N, L)`.
        ref_labels: Shape `(N, L)`.
        columns: The players of each pair of rows, shape `(N, n)`.
        num_permutations: Number of orders, the reversed ones included; even.
        seed: Seed of the orders, which are the same for all pairs of rows.

    Returns:
        The estimates, and their standard errors; float64, shape `(N, n)`.
    """
    num_players = columns.shape[1]
    generator = torch.Generator().manual_seed(seed)
    places = torch.rand(num_permutations // 2, num_players, generator=generator).argsort(1)
    places = torch.cat([places, num_players - 1 - places]).to(columns.device)
    # Coalition k of an order: the players at places 0 to k.
    ends = torch.arange(num_players, device=columns.device)[:, None]
    coalitions = (places[:, None] <= ends).flatten(0, 1)
    shares, errors = [], []
    for values in _coalition_values(game, labels, ref_labels, columns, coalitions):
        values = values.reshape(-1, num_permutations, num_players)
        gains = values.diff(dim=2, prepend=torch.zeros_like(values[:, :, :1]))
        contributions = gains.gather(2, places.expand_as(gains))
        means = contributions.reshape(len(values), 2, -1, num_players).mean(1)  # of an order and its reverse
        shares.append(means.mean(1))
        errors.append(means.std(1) / means.shape[1] ** 0.5)
    return torch.cat(shares), torch.cat(errors)


@lru_cache(maxsize=16)
def _all_coalitions(num_players: int) -> tuple[Tensor, Tensor]:
    """Return the non-empty coalitions, `(2^n - 1, n)`, and the factors of their values in the Shapley values."""
    numbers = torch.arange(1, 2**num_players)
    coalitions = (numbers[:, None] >> torch.arange(num_players)) & 1 == 1
    # 1 / (n * binomial(n - 1, s)), for the contribution to a coalition of s other players.
    weights = [1 / (num_players * comb(num_players - 1, size)) for size in range(num_players)]
    factors = torch.tensor([*weights, 0], dtype=torch.float64)
    sizes = coalitions.sum(1, keepdim=True)
    return coalitions, torch.where(coalitions, factors[sizes - 1], -factors[sizes])


def _coalition_values(
    game: Game, labels: Tensor, ref_labels: Tensor, columns: Tensor, coalitions: Tensor
) -> list[Tensor]:
    """Return the values of C coalitions, shape `(rows, C)`, in parts of rows whose calls need bounded memory."""
    elements = max(1, labels.shape[1])
    rows_per_call = max(1, _ELEMENTS_PER_CALL // (elements * len(coalitions)))
    coalitions_per_call = max(1, _ELEMENTS_PER_CALL // (elements * rows_per_call))
    results = []
    for rows, refs, players in zip(
        *(torch.split(each, rows_per_call) for each in (labels, ref_labels, columns)), strict=True
    ):
        values = [
            game(_restrict(rows, players, part), _restrict(refs, players, part)).reshape(len(rows), -1)
            for part in torch.split(coalitions, coalitions_per_call)
        ]
        results.append(torch.cat(values, dim=1))
    return results


def _restrict(labels: Tensor, columns: Tensor, coalitions: Tensor) -> Tensor:
    """Return each row with the labels of each coalition only, shape `(N * C, L)`."""
    shape = (len(labels), len(coalitions), -1)
    present = labels.gather(1, columns)[:, None].expand(shape).masked_fill(~coalitions, 0)
    zeros = torch.zeros(len(labels), len(coalitions), labels.shape[1], dtype=labels.dtype, device=labels.device)
    return zeros.scatter_(2, columns[:, None].expand(shape), present).flatten(0, 1)
