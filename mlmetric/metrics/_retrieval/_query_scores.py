"""Scores of single queries, computed from the results of a batch of queries."""

from __future__ import annotations

from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mlmetric.metrics._inputs import count_true

Gain = Literal["linear", "exponential"]
Denominator = Literal["min", "hits", "relevant"]


class RelevantResults(NamedTuple):
    """Relevant rows among the results of a batch of queries, sorted by query and rank."""

    queries: Tensor
    """Index of the query in the batch, int64 `(P,)`."""

    ranks: Tensor
    """Rank of the row, from 1, float64 `(P,)`."""

    cumulative_hits: Tensor
    """Number of relevant rows up to this rank, from 1, float64 `(P,)`."""

    counts: Tensor
    """Number of relevant results of each query, int64 `(B,)`."""

    def sum_by_query(self, values: Tensor) -> Tensor:
        """Sum `values` `(P,)` over the results of each query: float64 `(B,)`."""
        sums: Tensor = torch.segment_reduce(values.double(), "sum", lengths=self.counts)
        return sums


class RetrievalResults:
    """Rows that a batch of queries retrieved, and the relevance of the whole database.

    Attributes:
        ranked: Indices of the retrieved rows in order of distance, int64 `(B, K)`, padded with -1.
        grades: Relevance grade of each row for each query, float64 `(B, M)`; -inf for the query itself.
        relevant: Whether each row is relevant, bool `(B, M)`; False for the query itself.
        num_relevant: Number of relevant rows in the database, float64 `(B,)`.
        num_labels: Number of labels of each row, float64 `(M,)`.
        mean_num_labels: Mean number of labels of the rows that a query can retrieve, float64 `(B,)`.
        counts: Number of rows of the database that each of the M rows stands for, int64 `(M,)`; None for one each.
    """

    def __init__(
        self,
        ranked: Tensor,
        grades: Tensor,
        relevant: Tensor,
        num_labels: Tensor,
        mean_num_labels: Tensor,
        counts: Tensor | None = None,
    ) -> None:
        self.ranked = ranked
        self.is_padded = bool((ranked[:, -1:] < 0).any())
        self.grades = grades
        self.relevant = relevant
        self.counts = counts
        if counts is None:
            self.num_relevant = count_true(relevant, dim=1).double()
        else:
            self.num_relevant = relevant.double() @ counts.double()
        self.num_labels = num_labels
        self.mean_num_labels = mean_num_labels

    def grades_at(self, k: int) -> Tensor:
        """Return the grades of the first k, float64 `(B, k)`; 0 where nothing was retrieved."""
        return self._take(k, self.grades, 0.0)

    def highest_grades(self, k: int) -> Tensor:
        """Return the k highest grades in the database in descending order, float64 `(B, k)`."""
        values, rows = self.grades.topk(min(k, self.grades.shape[1]), dim=1)
        if self.counts is None:
            return values
        ends = self.counts[rows].cumsum(dim=1)
        places = torch.arange(k, device=ends.device).expand(len(ends), -1).contiguous()
        return values.gather(1, torch.searchsorted(ends, places, right=True))

    def relevant_at(self, k: int) -> Tensor:
        """Return which of the first k are relevant, bool `(B, k)`; False where nothing was retrieved."""
        return self._take(k, self.relevant, False)

    def hits_at(self, k: int) -> Tensor:
        """Count the relevant rows among the first k, float64 `(B,)`."""
        return self.relevant_at(k).sum(dim=1).double()

    def mean_num_labels_at(self, k: int) -> Tensor:
        """Return the mean number of labels of the first k, float64 `(B,)`; NaN where nothing was retrieved."""
        return self._take(k, self.num_labels.expand(len(self.ranked), -1), torch.nan).nanmean(dim=1)

    def _take(self, k: int, values: Tensor, missing: float) -> Tensor:
        ranked = self.ranked[:, :k]
        if not self.is_padded:
            return values.gather(1, ranked)
        return values.gather(1, ranked.clamp(min=0)).masked_fill(ranked < 0, missing)

    @cached_property
    def relevant_results(self) -> RelevantResults:
        """The relevant rows among all results."""
        is_relevant = self.relevant_at(self.ranked.shape[1])
        positions = _flat_nonzero(is_relevant)
        queries = positions // max(1, is_relevant.shape[1])
        counts = count_true(is_relevant, dim=1)
        offsets = counts.cumsum(0) - counts
        hits = torch.arange(1, len(positions) + 1, device=positions.device) - offsets[queries]
        ranks = positions - queries * is_relevant.shape[1] + 1
        return RelevantResults(queries, ranks.double(), hits.double(), counts)


def ndcg(results: RetrievalResults, k: int, gain: Gain) -> Tensor:
    """Discounted cumulative gain of the first k, divided by the highest possible; grades must be >= 0."""
    negative = (results.grades < 0) & (results.grades > -torch.inf)
    if bool(negative.any()):
        raise ValueError(
            f"`similarity` must return grades >= 0 for NDCG, got {results.grades[negative].min().item():g}. "
            "`.clamp(min=0)` of a similarity sets negative values to 0."
        )

    def dcg(grades: Tensor) -> Tensor:
        gains = grades if gain == "linear" else torch.exp2(grades) - 1
        return gains @ (1 / torch.arange(2, k + 2, dtype=torch.float64, device=grades.device).log2())

    return dcg(results.grades_at(k)) / dcg(results.highest_grades(k))


def mean_grade(results: RetrievalResults, k: int) -> Tensor:
    """Mean grade of the first k."""
    return _where_defined(results, results.grades_at(k).mean(dim=1))


def size_ratio(results: RetrievalResults, k: int) -> Tensor:
    """Mean number of labels of the first k, divided by the mean number in the database."""
    return results.mean_num_labels_at(k) / results.mean_num_labels


def precision(results: RetrievalResults, k: int) -> Tensor:
    """Fraction of the first k that are relevant."""
    return _where_defined(results, results.hits_at(k) / k)


def recall(results: RetrievalResults, k: int) -> Tensor:
    """Fraction of the relevant rows that are among the first k."""
    return results.hits_at(k) / results.num_relevant


def hit_rate(results: RetrievalResults, k: int) -> Tensor:
    """1 if a relevant row is among the first k, else 0."""
    return _where_defined(results, (results.hits_at(k) > 0).double())


def reciprocal_rank(results: RetrievalResults, k: int) -> Tensor:
    """1 / rank of the first relevant row among the first k, or 0 without one."""
    relevant = results.relevant_results
    is_first = (relevant.cumulative_hits == 1) & (relevant.ranks <= k)
    return _where_defined(results, relevant.sum_by_query(is_first / relevant.ranks))


def average_precision(results: RetrievalResults, k: int, denominator: Denominator) -> Tensor:
    """Sum of the precision at each relevant row among the first k, divided by the denominator."""
    relevant = results.relevant_results
    is_counted = relevant.ranks <= k
    total = relevant.sum_by_query(is_counted * relevant.cumulative_hits / relevant.ranks)
    if denominator == "hits":
        return _where_defined(results, total / relevant.sum_by_query(is_counted).clamp(min=1))
    return _where_defined(results, total / results.num_relevant.clamp(max=k if denominator == "min" else torch.inf))


def weighted_average_precision(results: RetrievalResults, k: int) -> Tensor:
    """Mean over the relevant rows among the first k of the mean grade up to their rank."""
    relevant = results.relevant_results
    ranks = torch.arange(1, k + 1, dtype=torch.float64, device=results.grades.device)
    mean_grades = results.grades_at(k).cumsum(dim=1) / ranks
    is_counted = relevant.ranks <= k
    values = torch.zeros_like(relevant.ranks)
    values[is_counted] = mean_grades[relevant.queries[is_counted], relevant.ranks[is_counted].long() - 1]
    return _where_defined(results, relevant.sum_by_query(values) / relevant.sum_by_query(is_counted).clamp(min=1))


def r_precision(results: RetrievalResults, k: int) -> Tensor:
    """Fraction of the first R that are relevant, where R is the number of relevant rows and at most k."""
    relevant = results.relevant_results
    is_counted = relevant.ranks <= _check_depth(results, k)[relevant.queries]
    return relevant.sum_by_query(is_counted) / results.num_relevant


def average_precision_at_r(results: RetrievalResults, k: int) -> Tensor:
    """Sum of the precision at each relevant row among the first R, divided by R, which is at most k."""
    relevant = results.relevant_results
    is_counted = relevant.ranks <= _check_depth(results, k)[relevant.queries]
    return relevant.sum_by_query(is_counted * relevant.cumulative_hits / relevant.ranks) / results.num_relevant


def has_no_relevant(results: RetrievalResults) -> Tensor:
    """1 if no row of the database is relevant, else 0."""
    return (results.num_relevant == 0).double()


def _check_depth(results: RetrievalResults, k: int) -> Tensor:
    """Check that k rows include the first R of each query, and return R."""
    highest = int(results.num_relevant.max()) if len(results.num_relevant) else 0
    if highest > k:
        raise ValueError(
            f"`embeddings` must have at least as many indices for each query as there are relevant rows, {highest}, "
            f"got {k}."
        )
    return results.num_relevant


def _where_defined(results: RetrievalResults, values: Tensor) -> Tensor:
    return torch.where(results.num_relevant > 0, values, torch.nan)


def _flat_nonzero(mask: Tensor) -> Tensor:
    """Return the flat indices of the True entries of a bool matrix: int64, ascending."""
    if mask.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(mask.numpy()))  # ten times faster than torch
    return mask.reshape(-1).nonzero().squeeze(1)
