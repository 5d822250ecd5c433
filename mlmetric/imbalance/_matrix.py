"""Label matrices read for measuring: float64 arrays."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse

from mlmetric.labels import check_labels

Labels: TypeAlias = torch.Tensor | npt.NDArray[Any] | sparse.sparray | sparse.spmatrix
Floats: TypeAlias = npt.NDArray[np.float64]


def read_labels(labels: Labels) -> Floats:
    """Return soft or hard labels as a float64 array, not to be written to, at least one row and one label."""
    dense: Any = labels
    if sparse.issparse(labels):
        dense = dense.toarray()
    elif isinstance(labels, torch.Tensor):
        dense = labels.detach().cpu().double().numpy()
    values: Floats = check_labels(dense).astype(np.float64, copy=False)
    if values.size == 0:
        raise ValueError(f"`labels` must have at least one row and one label, got shape {values.shape}.")
    return values


def read_hard_labels(labels: Labels) -> Floats:
    """Return multi-hot labels as a float64 array, not to be written to."""
    values = read_labels(labels)
    soft = (values != 0) & (values != 1)
    if soft.any():
        row, column = np.argwhere(soft)[0]
        raise ValueError(
            f"`labels` must be multi-hot, got {values[row, column]} at row {row}, label {column}. "
            "This measure is one of label sets: choose a threshold, say `labels >= 0.5`."
        )
    return values


def divide(sums: Floats, counts: Floats) -> Floats:
    """Divide where `counts` is above 0; NaN elsewhere."""
    ratios = np.full_like(sums, np.nan)
    np.divide(sums, counts, out=ratios, where=counts > 0)
    return ratios
