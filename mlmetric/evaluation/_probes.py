"""Label predictions from embeddings: the labels of the nearest rows, and a logistic regression for each label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from mlmetric.data import MultiLabelStratifiedKFold
from mlmetric.evaluation._inputs import Rows
from mlmetric.labels import label_counts
from mlmetric.metrics import best_thresholds, mean_average_precision
from mlmetric.neighbors import kneighbors
from mlmetric.training._logistic_regression import CLEARLY_LOWER, PATIENCE, minimise

_TOLERANCE = 1e-3


def neighbor_shares(queries: Tensor, refs: Rows, k: int, metric: str) -> Tensor:
    """Return the share of each label among the k nearest rows of each query: float32 `(N, L)`."""
    _, nearest = kneighbors(refs.embeddings, k, queries=queries, metric=metric)
    counts = torch.zeros(len(queries), refs.labels.shape[1], device=refs.labels.device)
    for column in nearest.T:  # one neighbour at a time, so that the labels of all of them are not in memory together
        counts += refs.labels[column]
    return counts / k


class LinearProbe(NamedTuple):
    """Scores of the test rows by logistic regressions, and what was chosen on the training rows.

    Attributes:
        scores: Logits, float32 `(N, L)`.
        thresholds: Lowest logit of a predicted label, float64 `(L,)`.
        C: Inverse strength of the penalty.
    """

    scores: Tensor
    thresholds: Tensor
    C: float


def fit_linear_probe(
    queries: Tensor, refs: Rows, *, strengths: Sequence[float], cv: int, max_predicted: float, seed: int
) -> LinearProbe:
    """Train a logistic regression for each label on `refs`, and score `queries`.

    The rows are centred and divided by one number, the root mean square of the training rows, so that the penalty does
    not depend on the scale of an embedding.
    """
    center = refs.embeddings.mean(dim=0)
    scale = (refs.embeddings - center).square().mean().sqrt()
    scale = torch.where(scale > 0, scale, 1)
    train, test = (((rows - center) / scale).float() for rows in (refs.embeddings, queries))
    C, held_out_scores = _cross_validate(train, refs.labels, strengths, cv, seed)
    thresholds = best_thresholds(held_out_scores, refs.labels, max_predicted=max_predicted)
    model = _Regressions(refs.labels, train.shape[1])
    model.solve(train, refs.labels, C)
    return LinearProbe(model.score(test), thresholds, C)


def _cross_validate(
    rows: Tensor, labels: Tensor, strengths: Sequence[float], cv: int, seed: int
) -> tuple[float, Tensor]:
    """Return the penalty with the highest mAP of the held-out scores of all rows, and these scores.

    The folds share the search: it begins with the strongest penalty and ends where the mAP has been clearly below the
    best for two penalties in a row. Each fold starts from its solution for the penalty before.
    """
    splitter = MultiLabelStratifiedKFold(cv, shuffle=True, random_state=seed)
    splits = [
        tuple(torch.from_numpy(part).to(rows.device) for part in split)
        for split in splitter.split(rows.cpu().numpy(), labels.cpu().numpy())
    ]
    models = [_Regressions(labels[train], rows.shape[1]) for train, _ in splits]
    best, best_map, without_progress = (strengths[0], torch.empty(0)), -math.inf, 0
    for C in strengths:
        scores = torch.empty_like(labels)
        for model, (train, held_out) in zip(models, splits, strict=True):
            model.solve(rows[train], labels[train], C)
            scores[held_out] = model.score(rows[held_out])
        value = float(mean_average_precision(scores, labels))
        if value > best_map:
            best, best_map = (C, scores), value
        without_progress = without_progress + 1 if value < best_map - CLEARLY_LOWER else 0
        if without_progress == PATIENCE:
            break
    return best


class _Regressions:
    """The logistic regressions of all labels; each solution starts at the previous one, the first at the frequencies.

    Args:
        labels: Labels of the training rows, `(N, L)`.
        num_columns: D.
    """

    def __init__(self, labels: Tensor, num_columns: int) -> None:
        frequencies = (label_counts(labels) + 0.5) / (len(labels) + 1)
        self._weight = labels.new_zeros(labels.shape[1], num_columns, requires_grad=True)
        self._bias = frequencies.logit().to(labels.dtype).requires_grad_()

    def solve(self, rows: Tensor, labels: Tensor, C: float) -> None:
        """Minimise the penalised cross entropies."""
        loss = minimise(self._weight, self._bias, rows, labels, C, _TOLERANCE)
        if not math.isfinite(loss):
            raise FloatingPointError(f"The logistic regression with C={C} is not finite: check the embeddings.")

    def score(self, rows: Tensor) -> Tensor:
        """Return logits `(N, L)`."""
        with torch.no_grad():
            return functional.linear(rows, self._weight, self._bias)
