"""Ranking of label errors: inputs, and selection of the most suspicious entries."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mlmetric.label_errors._annotations import Doubles, read_annotations, read_probabilities, row_chunks
from mlmetric.label_errors._confident_learning import Score, confident_joint, error_scores
from mlmetric.label_errors._label_errors import LabelErrors
from mlmetric.label_errors._neighbor_probabilities import NeighborVoter
from mlmetric.labels import LabelsLike
from mlmetric.metrics._inputs import TensorLike, check_choice


def rank_label_errors(
    labels: LabelsLike,
    *,
    probabilities: TensorLike | None = None,
    embeddings: Any = None,
    k: int = 20,
    metric: str | Callable[..., float] = "euclidean",
    mask: TensorLike | None = None,
    score: Score = "self_confidence",
    max_pairs: int = 1000,
    label_names: Sequence[str] | None = None,
) -> LabelErrors:
    """Rank the annotations of a label matrix by how probable it is that they are wrong.

    The evidence comes from a model (`probabilities`), from the annotations of similar rows (`embeddings`), or from
    both, whose probabilities are then averaged. In most of our measurements the average found more errors than either
    of them alone.

    Args:
        labels: 0 or 1, NaN where an entry is not annotated, shape `(N, L)`: a tensor, an array, a list of rows, a
            scipy sparse matrix or a data frame.
        probabilities: Probability of each label in each row, in [0, 1], shape `(N, L)`. They must come from models that
            were not trained on the row, for example from `sklearn.model_selection.cross_val_predict` with
            `cv=MultiLabelStratifiedKFold()`: a model that was trained on an error often repeats it.
        embeddings: Features in which similar rows are near each other, shape `(N, d)`: anything that
            `mlmetric.neighbors.kneighbors` accepts. They are used through `neighbor_probabilities`.
        k: Number of neighbours, from 1 to N - 1; only with `embeddings`.
        metric: Distance of embeddings, as in `mlmetric.neighbors.kneighbors`.
        mask: True or 1 where an entry is annotated, shape `(N, L)`. By default all entries that are not NaN are.
        score: How entries are compared. `"self_confidence"`: by p', the probability of the value that was not given. It
            suits errors that are equally frequent in all entries. `"adjusted_margin"`: by (p' - t') - (p - t), where p
            is 1 - p', and t and t' are the thresholds of the two values: the mean probability of the value in the rows
            annotated with it. It suits errors that are more frequent among the positives of a label than among its
            negatives. Both scores rank the positives of one label in the same order, and its negatives too.
        max_pairs: Largest number of missing labels, and of wrong labels, in the result. It limits memory.
        label_names: Names of the L labels; the columns of a data frame or the column indices by default.

    Returns:
        The most suspicious pairs of a row and a label, and the estimated number of errors of each label.

    Raises:
        TypeError: If `labels`, `probabilities` or `mask` is not numeric, or `k` or `max_pairs` is not an integer.
        ValueError: If neither `probabilities` nor `embeddings` is given, an annotated entry is neither 0 nor 1, shapes
            differ, there are no rows or labels, a probability is outside [0, 1], `score` is unknown, `max_pairs` is
            below 1, `label_names` does not have L names, or `kneighbors` rejects `embeddings`, `k` or `metric`.

    Examples:
        >>> from mlmetric.label_errors import rank_label_errors
        >>> labels = [[1, 0], [1, 1], [0, 1], [0, 0]]
        >>> probabilities = [[0.9, 0.1], [0.7, 0.9], [0.8, 0.9], [0.1, 0.2]]
        >>> errors = rank_label_errors(labels, probabilities=probabilities, label_names=["sea", "trees"], max_pairs=1)
        >>> print(errors.summary(1))
        Estimated errors: 1 missing and 0 wrong labels among 8 annotations.
        <BLANKLINE>
        Missing labels (annotated 0, probably 1):
        <BLANKLINE>
        |  row | label | score |
        | ---: | ----- | ----: |
        |    2 | sea   | 0.800 |
        <BLANKLINE>
        Wrong labels (annotated 1, probably 0):
        <BLANKLINE>
        |  row | label | score |
        | ---: | ----- | ----: |
        |    1 | sea   | 0.300 |

    Source:
        Northcutt, Jiang, Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 2021: thresholds,
        confident joint and its calibration, applied to each label as a two-class problem. Deviations: all annotations
        are ranked, where the paper removes the estimated number of each class; with two classes its normalised margin
        and its self-confidence give the same order. The neighbours and the average are ours.
    """
    annotations = read_annotations(labels, mask)
    check_choice(score, "score", Score)
    max_pairs = _read_max_pairs(max_pairs)
    names = _read_names(label_names, labels, annotations.shape[1])
    if probabilities is None and embeddings is None:
        raise ValueError("Pass `probabilities`, `embeddings` or both: without them nothing contradicts the labels.")
    model = None if probabilities is None else read_probabilities(probabilities, annotations.shape)
    voter = None if embeddings is None else NeighborVoter(annotations, embeddings, k=k, metric=metric)

    def combined(rows: slice) -> Doubles:
        parts = [] if model is None else [model[rows].astype(np.float64)]
        parts += [] if voter is None else [voter.probabilities(rows)]
        return parts[0] if len(parts) == 1 else (parts[0] + parts[1]) / 2

    chunks = row_chunks(annotations.shape)
    joint = confident_joint(annotations, chunks, combined)
    best = (_HighestScores(max_pairs), _HighestScores(max_pairs))
    for rows in chunks:
        given = annotations[rows]
        scores = error_scores(given, combined(rows), joint, score).ravel()
        for value in (0, 1):
            entries = np.flatnonzero(given == value)
            best[value].add(scores[entries], entries + rows.start * given.shape[1])
    scores, entries, values = (
        np.concatenate(parts) for parts in zip(*(best[i].with_value(i) for i in (0, 1)), strict=True)
    )
    order = np.lexsort((entries, -scores))
    pair_rows, pair_labels = np.divmod(entries[order], annotations.shape[1])
    return LabelErrors(
        rows=pair_rows,
        labels=pair_labels,
        scores=scores[order],
        given=values[order],
        label_names=names,
        estimated_errors=joint.estimated_errors(),
        num_annotated=joint.num_annotated,
        thresholds=joint.thresholds,
        confident_joint=joint.counts,
    )


class _HighestScores:
    """The entries with the highest scores of all that were added; of equal scores, those added first."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._scores: npt.NDArray[np.float64] = np.empty(0)
        self._entries: npt.NDArray[np.int64] = np.empty(0, dtype=np.int64)

    def add(self, scores: Doubles, entries: npt.NDArray[np.int64]) -> None:
        """Add entries, which are higher than all earlier ones and ascending."""
        if len(self._scores) == self._size:
            enters = scores > self._scores.min()
            scores, entries = scores[enters], entries[enters]
        scores, entries = np.concatenate([self._scores, scores]), np.concatenate([self._entries, entries])
        if len(scores) > self._size:
            lowest = np.partition(scores, len(scores) - self._size)[len(scores) - self._size]
            stays = scores > lowest
            tied = np.flatnonzero(scores == lowest)
            stays[tied[: self._size - np.count_nonzero(stays)]] = True
            scores, entries = scores[stays], entries[stays]
        self._scores, self._entries = scores, entries

    def with_value(self, value: int) -> tuple[npt.NDArray[Any], ...]:
        """Return the scores, the entries, and an array of the given value."""
        return self._scores, self._entries, np.full(len(self._scores), value, dtype=np.int8)


def _read_max_pairs(max_pairs: int) -> int:
    try:
        number = operator.index(max_pairs)
    except TypeError:
        raise TypeError(f"`max_pairs` must be an integer, got {max_pairs!r}.") from None
    if number < 1:
        raise ValueError(f"`max_pairs` must be at least 1, got {number}.")
    return number


def _read_names(label_names: Sequence[str] | None, labels: Any, num_labels: int) -> list[str]:
    columns = getattr(labels, "columns", range(num_labels))
    names = [str(name) for name in (columns if label_names is None else label_names)]
    if len(names) != num_labels:
        raise ValueError(f"`label_names` must name the {num_labels} columns of `labels`, got {len(names)} names.")
    return names
