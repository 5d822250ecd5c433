"""Probabilities of the labels of each row, from the annotations of its nearest rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mlmetric.label_errors._annotations import Annotations, read_annotations, row_chunks
from mlmetric.labels import LabelsLike
from mlmetric.metrics._inputs import TensorLike
from mlmetric.neighbors import kneighbors


def neighbor_probabilities(
    labels: LabelsLike,
    embeddings: Any,
    *,
    k: int = 20,
    metric: str | Callable[..., float] = "euclidean",
    mask: TensorLike | None = None,
) -> npt.NDArray[np.float32]:
    """Estimate the probability of each label in each row from the annotations of the k nearest rows.

    The row itself is not one of its neighbours. Let m of the neighbours be annotated with 0 or 1, and s of these with
    1, and let f be the share of 1 among all annotations of the label. The probability is (s + f) / (m + 1): the share
    among the neighbours, shrunk towards the frequency of the label as if there were one more neighbour with the value
    f.

    Args:
        labels: 0 or 1, NaN where an entry is not annotated, shape `(N, L)`: a tensor, an array, a list of rows, a
            scipy sparse matrix or a data frame.
        embeddings: Features in which similar rows are near each other, shape `(N, d)`: anything that
            `mlmetric.neighbors.kneighbors` accepts.
        k: Number of neighbours, from 1 to N - 1.
        metric: Distance of embeddings, as in `mlmetric.neighbors.kneighbors`.
        mask: True or 1 where an entry is annotated, shape `(N, L)`. By default all entries that are not NaN are.

    Returns:
        Shape `(N, L)`; 0 for a label without annotations.

    Raises:
        TypeError: If `labels` or `mask` is not numeric, or `k` is not an integer.
        ValueError: If an annotated entry is neither 0 nor 1, shapes differ, there are no rows or labels, or
            `kneighbors` rejects `embeddings`, `k` or `metric`.

    Examples:
        >>> from mlmetric.label_errors import neighbor_probabilities
        >>> embeddings = [[0.0], [0.1], [0.3], [5.0], [5.1], [5.3]]
        >>> labels = [[1], [1], [0], [0], [0], [0]]
        >>> neighbor_probabilities(labels, embeddings, k=2).round(2).ravel()
        array([0.44, 0.44, 0.78, 0.11, 0.11, 0.11], dtype=float32)
    """
    annotations = read_annotations(labels, mask)
    voter = NeighborVoter(annotations, embeddings, k=k, metric=metric)
    result = np.empty(annotations.shape, dtype=np.float32)
    for rows in row_chunks(annotations.shape):
        result[rows] = voter.probabilities(rows)
    return result


class NeighborVoter:
    """Find the neighbours of all rows once, and compute the probabilities of some rows at a time."""

    def __init__(
        self, annotations: Annotations, embeddings: Any, *, k: int, metric: str | Callable[..., float]
    ) -> None:
        num_rows = embeddings.shape[0] if hasattr(embeddings, "shape") else len(embeddings)
        if num_rows != len(annotations):
            raise ValueError(f"`embeddings` must have {len(annotations)} rows like `labels`, got {num_rows}.")
        indices = kneighbors(embeddings, k, metric=metric)[1]
        self._indices = indices.cpu().numpy() if isinstance(indices, torch.Tensor) else indices
        self._annotations = annotations
        known = np.count_nonzero(annotations >= 0, axis=0)
        self._is_complete = bool((known == len(annotations)).all())
        self._frequencies = np.count_nonzero(annotations == 1, axis=0) / np.maximum(known, 1)

    def probabilities(self, rows: slice) -> npt.NDArray[np.float64]:
        """Return the probabilities of a chunk of rows, shape `(n, L)`."""
        shape = (rows.stop - rows.start, self._annotations.shape[1])
        positives, unknown = np.zeros((2, *shape), dtype=np.int32)
        for neighbors in self._indices[rows].T:
            votes = self._annotations[neighbors]
            positives += votes
            if not self._is_complete:
                unknown += votes < 0
        positives += unknown  # an unknown entry is -1
        return np.asarray((positives + self._frequencies) / (self._indices.shape[1] - unknown + 1))
