"""How good the order is in which queries retrieve a database: a number for each query."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mlmetric.metrics._retrieval._search import Found

Gain = Literal["linear", "exponential"]
Denominator = Literal["min", "hits", "relevant"]


def ndcg(found: Found, k: int, gain: Gain) -> Tensor:
    """Discounted gain of the first k by the highest there is; grades must be >= 0."""
    negative = (found.grades < 0) & (found.grades > -torch.inf)
    if bool(negative.any()):
        raise ValueError(
            f"`similarity` must return grades >= 0, got {found.grades[negative].min().item():g}. "
            "`.clamp(min=0)` cuts them off."
        )

    def dcg(grades: Tensor) -> Tensor:
        gains = grades if gain == "linear" else torch.exp2(grades) - 1
        return gains @ (1 / torch.arange(2, k + 2, dtype=torch.float64, device=grades.device).log2())

    return dcg(found.graded(k)) / dcg(found.grades.topk(k, dim=1).values)


def average_grade(found: Found, k: int) -> Tensor:
    """Mean grade of the first k."""
    return _defined(found, found.graded(k).mean(dim=1))


def size_ratio(found: Found, k: int) -> Tensor:
    """Labels that the first k carry on average by labels that a row of the database carries on average."""
    return found.carried(k) / found.mean_labels


def precision(found: Found, k: int) -> Tensor:
    """Share of the first k that is relevant."""
    return _defined(found, _hits_within(found, k) / k)


def recall(found: Found, k: int) -> Tensor:
    """Share of the relevant that is among the first k."""
    return _hits_within(found, k) / found.num_relevant


def hit_rate(found: Found, k: int) -> Tensor:
    """1 where anything relevant is among the first k."""
    return _defined(found, (_hits_within(found, k) > 0).double())


def reciprocal_rank(found: Found, k: int) -> Tensor:
    """1 / rank of the first hit among the first k, 0 without one."""
    hits = found.hits
    first = (hits.numbers == 1) & (hits.ranks <= k)
    return _defined(found, hits.total(first / hits.ranks))


def average_precision(found: Found, k: int, denominator: Denominator) -> Tensor:
    """Precision at each hit among the first k, added up and divided as told."""
    hits = found.hits
    within = hits.ranks <= k
    total = hits.total(within * hits.numbers / hits.ranks)
    if denominator == "hits":
        return _defined(found, total / hits.total(within).clamp(min=1))
    return _defined(found, total / found.num_relevant.clamp(max=k if denominator == "min" else torch.inf))


def weighted_average_precision(found: Found, k: int) -> Tensor:
    """Mean grade of all up to each hit among the first k, added up and divided by the hits."""
    hits = found.hits
    means = found.graded(k).cumsum(dim=1) / torch.arange(1, k + 1, dtype=torch.float64, device=found.grades.device)
    within = hits.ranks <= k
    at_hits = means[hits.rows[within], hits.ranks[within].long() - 1]
    values = torch.zeros_like(hits.ranks)
    values[within] = at_hits
    return _defined(found, hits.total(values) / hits.total(within).clamp(min=1))


def r_precision(found: Found) -> Tensor:
    """Share of the first R that is relevant, R being how many are."""
    hits = found.hits
    return hits.total(hits.ranks <= _all_relevant(found)[hits.rows]) / found.num_relevant


def average_precision_at_r(found: Found) -> Tensor:
    """Precision at each hit among the first R, added up and divided by R, R being how many are relevant."""
    hits = found.hits
    within = hits.ranks <= _all_relevant(found)[hits.rows]
    return hits.total(within * hits.numbers / hits.ranks) / found.num_relevant


def nothing_relevant(found: Found) -> Tensor:
    """1 where nothing in the database is relevant."""
    return (found.num_relevant == 0).double()


def _hits_within(found: Found, k: int) -> Tensor:
    return found.is_hit(k).sum(dim=1).double()


def _all_relevant(found: Found) -> Tensor:
    most, depth = int(found.num_relevant.max()) if len(found.num_relevant) else 0, found.order.shape[1]
    if most > depth:
        raise ValueError(
            f"`query_embeddings` must hold as many retrieved indices a query as rows are relevant to it, {most}, "
            f"got {depth}."
        )
    return found.num_relevant


def _defined(found: Found, values: Tensor) -> Tensor:
    return torch.where(found.num_relevant > 0, values, torch.nan)
