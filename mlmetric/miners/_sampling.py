"""Samples of integers without replacement."""

from __future__ import annotations

from mlmetric.miners._array_ops import Array, arange, argsort_rows, expand, nonzero, repeat, sort_rows, where
from mlmetric.miners._negative_lists import Rand, pick


def sample_without_replacement(first: Array, population: Array, num: Array, rand: Rand) -> Array:
    """Sample `num` of the `population` integers from `first`, each set of them with the same probability, for each row.

    Time and memory are proportional to the size of the sample, not of the population.

    Args:
        first: Shape `(P,)`, int64.
        population: Shape `(P,)`, int64.
        num: Shape `(P,)`, int64, at most `population`.
        rand: Source of random numbers.

    Returns:
        int64, shape `(sum of num,)`: the sample of one row after the other.
    """
    sampled = expand(first, num)
    rows = nonzero((num > 0) & (num < population))[0]
    if len(rows) == 0:
        return sampled
    start, population, num = (num.cumsum(0) - num)[rows], population[rows], num[rows]
    sparse = 4 * num < population
    for some, sample in ((sparse, _sample_by_rejection), (~sparse, _sample_by_keys)):
        chosen = nonzero(some)[0]
        if len(chosen):
            counts = num[chosen]
            values = sample(population[chosen], counts, rand)
            values += repeat(first[rows[chosen]], counts)
            sampled[expand(start[chosen], counts)] = values
    return sampled


def _sample_by_rejection(population: Array, num: Array, rand: Rand) -> Array:
    """Sample with replacement, and sample duplicates again until there are none."""
    population, width = population[:, None], int(num.max())
    column = arange(width, num)
    used = column < num[:, None]
    population = population + 0 * column
    sampled = where(used, pick(population, rand), population + column)  # unused entries are never duplicates
    while width > 1:
        sampled = sort_rows(sampled)
        row, column = nonzero(sampled[:, 1:] == sampled[:, :-1])
        if len(row) == 0:
            break
        sampled[row, column] = pick(population[row, column], rand)
    return sampled[used]


def _sample_by_keys(population: Array, num: Array, rand: Rand) -> Array:
    """Assign a random key to each integer, and return the integers with the largest keys."""
    most, width = int(population.max()), int(num.max())
    keys = rand(len(population), most)
    keys = where(arange(most, num) < population[:, None], -keys, 0.0)
    return argsort_rows(keys)[:, :width][arange(width, num) < num[:, None]]
