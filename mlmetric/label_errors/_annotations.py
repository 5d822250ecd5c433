"""Reading of label matrices in which entries may lack an annotation."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mlmetric.labels import LabelsLike, label_array
from mlmetric.metrics._inputs import TensorLike, to_tensor

Doubles: TypeAlias = npt.NDArray[np.float64]
Annotations: TypeAlias = npt.NDArray[np.int8]
"""1, 0, or `NOT_ANNOTATED`, shape `(N, L)`."""

NOT_ANNOTATED = -1
_CHUNK_ENTRIES = 2**20


def read_annotations(labels: LabelsLike, mask: TensorLike | None) -> Annotations:
    """Check `labels` and `mask`, and return the annotations."""
    matrix = label_array(labels, validate_args=False)
    if 0 in matrix.shape:
        raise ValueError(f"`labels` must have at least one row and one label, got shape {matrix.shape}.")
    annotations = np.full(matrix.shape, NOT_ANNOTATED, dtype=np.int8)
    annotations[matrix == 0] = 0
    annotations[matrix == 1] = 1
    known = read_mask(mask, matrix.shape)
    invalid = annotations == NOT_ANNOTATED
    if matrix.dtype.kind == "f":
        invalid &= ~np.isnan(matrix)
    if known is not None:
        annotations[~known] = NOT_ANNOTATED
        invalid &= known
    if invalid.any():
        row, label = np.argwhere(invalid)[0]
        raise ValueError(
            f"`labels` must contain 0 and 1, and NaN where an entry is not annotated, got {matrix[row, label]} at row "
            f"{row}, label {label}. Convert soft labels with a comparison such as `labels >= 0.5`."
        )
    return annotations


def read_mask(mask: TensorLike | None, shape: tuple[int, ...]) -> npt.NDArray[np.bool_] | None:
    """Check `mask`, and return it as booleans."""
    if mask is None:
        return None
    known = to_tensor(mask, "mask").cpu().numpy()
    if known.shape != shape:
        raise ValueError(
            f"`mask` must have the shape of `labels`, {shape}, with True for the annotated entries, got {known.shape}."
        )
    if known.dtype != bool and not ((known == 0) | (known == 1)).all():
        raise ValueError("`mask` must be bool or contain only 0 and 1: True for the annotated entries.")
    return np.asarray(known == 1)


def read_probabilities(probabilities: TensorLike, shape: tuple[int, ...]) -> npt.NDArray[np.floating[Any]]:
    """Check probabilities of the labels, and return them as an array of floating-point numbers."""
    tensor = to_tensor(probabilities, "probabilities").cpu()
    values: npt.NDArray[np.floating[Any]] = (
        tensor if tensor.dtype.itemsize >= 4 and tensor.is_floating_point() else tensor.float()
    ).numpy()
    if values.shape != shape:
        raise ValueError(f"`probabilities` must have the shape of `labels`, {shape}, got {values.shape}.")
    if not (values.min() >= 0 and values.max() <= 1):  # False if any is NaN
        row, label = np.argwhere(~((values >= 0) & (values <= 1)))[0]
        raise ValueError(
            f"`probabilities` must contain numbers in [0, 1], got {values[row, label]} at row {row}, label {label}. "
            "Convert logits with `torch.sigmoid`."
        )
    return values


def row_chunks(shape: tuple[int, ...]) -> list[slice]:
    """Split the rows of a matrix into chunks of about a million entries."""
    size = max(1, _CHUNK_ENTRIES // shape[1])
    return [slice(start, min(start + size, shape[0])) for start in range(0, shape[0], size)]
