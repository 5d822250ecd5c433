"""Confident learning for each label separately: thresholds, confident joint and scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from mlmetric.label_errors._annotations import Annotations, Doubles

Score: TypeAlias = Literal["self_confidence", "adjusted_margin"]

_ROUNDING = 1e-6  # probabilities that are all equal are not below their mean, which is rounded


class ConfidentJoint(NamedTuple):
    """Counts of confident learning.

    Attributes:
        thresholds: Mean probability of value 0 in the rows annotated with 0, and of value 1 in the rows annotated with
            1, shape `(L, 2)`; 1 where there are none.
        counts: Entry `[l, i, j]` is the number of rows annotated with i whose label l is confidently j: int64,
            shape `(L, 2, 2)`.
        num_annotated: Number of rows annotated with 0 and with 1, int64, shape `(L, 2)`.
    """

    thresholds: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]
    num_annotated: npt.NDArray[np.int64]

    def estimated_errors(self) -> npt.NDArray[np.float64]:
        """Return the estimated number of wrong annotations among the zeros and among the ones, shape `(L, 2)`.

        The estimate is the share of the confident rows that disagree, times the number of annotated rows; 0 where no
        row is confident.
        """
        wrong = np.stack([self.counts[:, 0, 1], self.counts[:, 1, 0]], axis=1)
        return np.asarray(wrong / np.maximum(self.counts.sum(axis=2), 1) * self.num_annotated)


def confident_joint(
    annotations: Annotations, chunks: Iterable[slice], probabilities: Callable[[slice], Doubles]
) -> ConfidentJoint:
    """Compute the thresholds and then the counts, in two passes over chunks of rows."""
    num_labels, chunks = annotations.shape[1], list(chunks)
    sums = np.zeros((num_labels, 2))
    num_annotated = np.stack([np.count_nonzero(annotations == value, axis=0) for value in (0, 1)], axis=1)
    for rows in chunks:
        given, positive = annotations[rows], probabilities(rows)
        sums[:, 0] += np.where(given == 0, 1 - positive, 0).sum(axis=0, dtype=np.float64)
        sums[:, 1] += np.where(given == 1, positive, 0).sum(axis=0, dtype=np.float64)
    thresholds = np.where(num_annotated > 0, sums / np.maximum(num_annotated, 1), 1.0)
    counts = np.zeros((num_labels, 2, 2), dtype=np.int64)
    for rows in chunks:
        given, positive = annotations[rows], probabilities(rows)
        is_confident = (1 - positive >= thresholds[:, 0] - _ROUNDING, positive >= thresholds[:, 1] - _ROUNDING)
        # Of two confident values, the more probable one counts.
        probable = positive > 0.5
        confident = (is_confident[0] & ~(is_confident[1] & probable), is_confident[1] & ~(is_confident[0] & ~probable))
        for i in (0, 1):
            for j in (0, 1):
                counts[:, i, j] += np.count_nonzero(confident[j] & (given == i), axis=0)
    return ConfidentJoint(thresholds, counts, num_annotated)


def error_scores(given: Annotations, positive: Doubles, joint: ConfidentJoint, score: Score) -> Doubles:
    """Return how suspicious each entry of a chunk is; the scores of entries without annotation are meaningless."""
    other = np.where(given == 1, 1 - positive, positive)  # probability of the value that was not given
    if score == "self_confidence":
        return other
    difference = joint.thresholds[:, 1] - joint.thresholds[:, 0]
    return np.asarray(2 * other - 1 + np.where(given == 1, difference, -difference))
