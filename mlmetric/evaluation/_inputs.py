"""The arguments of `evaluate_embeddings`: embeddings and labels in memory, in files, or in parts."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeGuard

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor

from mlmetric._label_columns import LabelsOrNames, read_labels
from mlmetric.metrics._inputs import TensorLike, to_tensor
from mlmetric.metrics._retrieval._retrieval_inputs import check_embeddings

Source: TypeAlias = str | PathLike[str]
EmbeddingsLike: TypeAlias = TensorLike | Source | Sequence[TensorLike | Source]
"""A matrix of embeddings, the path of a file that contains one, or a sequence of these for parts of the rows."""
EvaluatedLabels: TypeAlias = LabelsOrNames | Source | Sequence[Any]
"""A label matrix, label names for each row, the path of a file, or a sequence of these for parts of the rows."""

_LARGEST = 1e15


class Rows(NamedTuple):
    """Embeddings, float32 or float64 `(N, D)`, and labels 0 or 1, float32 `(N, L)`."""

    embeddings: Tensor
    labels: Tensor

    def select(self, rows: Tensor) -> Rows:
        """Return some of the rows."""
        rows = rows.to(self.labels.device)
        return Rows(self.embeddings[rows], self.labels[rows])

    def to_unit_length(self, name: str) -> Rows:
        """Return the rows scaled to unit length; `name` is the name of the embeddings in error messages."""
        return self._replace(embeddings=check_embeddings(self.embeddings, name, "cosine").to(self.embeddings.dtype))


def read_rows(
    embeddings: EmbeddingsLike,
    labels: EvaluatedLabels,
    ref_embeddings: EmbeddingsLike | None,
    ref_labels: EvaluatedLabels | None,
    device: torch.device | str | None,
) -> tuple[Rows, Rows | None]:
    """Read and check the rows of `embeddings`, and of `ref_embeddings` if it is given."""
    if (ref_embeddings is None) != (ref_labels is None):
        given, missing = ("embeddings", "labels") if ref_labels is None else ("labels", "embeddings")
        raise ValueError(
            "`ref_embeddings` and `ref_labels` must be passed together, or neither of them, got "
            f"`ref_{given}` without `ref_{missing}`."
        )
    matrices = [_read_embeddings(embeddings, "embeddings")]
    if ref_embeddings is not None:
        matrices.append(_read_embeddings(ref_embeddings, "ref_embeddings"))
        if matrices[0].shape[1] != matrices[1].shape[1]:
            raise ValueError(
                "`embeddings` and `ref_embeddings` must have the same number of columns, got "
                f"{matrices[0].shape[1]} and {matrices[1].shape[1]}."
            )
    dtype = torch.float64 if any(each.dtype == torch.float64 for each in matrices) else torch.float32
    rows = []
    for prefix, matrix, target in zip(("", "ref_"), matrices, _read_label_matrices(labels, ref_labels), strict=False):
        if len(matrix) != len(target):
            raise ValueError(
                f"`{prefix}embeddings` and `{prefix}labels` must have the same number of rows, got {len(matrix)} and "
                f"{len(target)}."
            )
        device = matrices[0].device if device is None else device
        rows.append(Rows(matrix.to(device, dtype), target.to(device)))
    return rows[0], rows[1] if len(rows) > 1 else None


def _read_embeddings(value: EmbeddingsLike, name: str) -> Tensor:
    if _has_parts(value):
        parts = [_read_embeddings(part, f"{name}[{index}]") for index, part in enumerate(value)]
        if len({part.shape[1] for part in parts}) > 1:
            raise ValueError(
                f"The parts of `{name}` must have the same number of columns, got {[part.shape[1] for part in parts]}."
            )
        return torch.cat(parts)
    matrix = to_tensor(_load(value, name, "embeddings"), name)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ValueError(f"`{name}` must have shape (N, D) with N and D above 0, got {tuple(matrix.shape)}.")
    matrix = matrix if matrix.dtype == torch.float64 else matrix.float()
    if not bool(matrix.isfinite().all()):
        row, column = (~matrix.isfinite()).nonzero()[0].tolist()
        raise ValueError(f"`{name}` must be finite, got {matrix[row, column].item()} at row {row}, column {column}.")
    largest = float(matrix.abs().max())
    if largest > _LARGEST:
        raise ValueError(
            f"`{name}` must contain numbers of at most {_LARGEST:g}, whose squares are finite, got {largest}."
        )
    return matrix


def _read_label_matrices(labels: EvaluatedLabels, ref_labels: EvaluatedLabels | None) -> list[Tensor]:
    """Return the label matrices with the same columns; label names may occur in one of them only."""
    matrix, names, is_frame = _read_labels(labels, "labels")
    if ref_labels is None:
        return [_hard(matrix, "labels")]
    ref_matrix, ref_names, ref_is_frame = _read_labels(ref_labels, "ref_labels")
    if names is not None and ref_names is not None:
        if (is_frame or ref_is_frame) and set(names) != set(ref_names):
            differing = sorted({str(name) for name in set(names) ^ set(ref_names)})
            raise ValueError(
                f"`labels` and `ref_labels` must have the same label names, got {differing[0]!r} in one of them only."
            )
        columns = names if is_frame or ref_is_frame else sorted({*names, *ref_names})
        matrix, ref_matrix = _reorder(matrix, names, columns), _reorder(ref_matrix, ref_names, columns)
    elif matrix.shape[1] != ref_matrix.shape[1]:
        raise ValueError(
            "`labels` and `ref_labels` must have the same number of columns, got "
            f"{matrix.shape[1]} and {ref_matrix.shape[1]}."
        )
    return [_hard(matrix, "labels"), _hard(ref_matrix, "ref_labels")]


def _read_labels(value: EvaluatedLabels, name: str) -> tuple[npt.NDArray[Any], list[Any] | None, bool]:
    """Return a label matrix, its label names or None, and whether these names are the complete set."""
    if _has_parts(value):
        parts = [_load(part, f"{name}[{index}]", "labels") for index, part in enumerate(value)]
        matrices, names, _ = zip(
            *(_read_labels(part, f"{name}[{index}]") for index, part in enumerate(parts)), strict=True
        )
        if any(each != names[0] for each in names) or len({matrix.shape[1] for matrix in matrices}) > 1:
            raise ValueError(f"The parts of `{name}` must have the same columns, got different ones.")
        return np.concatenate(matrices), names[0], names[0] is not None
    value = _load(value, name, "labels")
    try:
        matrix, columns = read_labels(value, used_by="`evaluate_embeddings`")
    except (TypeError, ValueError) as error:
        raise type(error)(str(error).replace("`y", f"`{name}")) from error
    return matrix, columns.names, hasattr(value, "columns")


def _reorder(matrix: npt.NDArray[Any], names: Sequence[Any], columns: Sequence[Any]) -> npt.NDArray[Any]:
    """Return the columns in another order; absent ones are 0."""
    reordered = np.zeros((len(matrix), len(columns)), dtype=matrix.dtype)
    position = {name: index for index, name in enumerate(columns)}
    reordered[:, [position[name] for name in names]] = matrix
    return reordered


def _hard(matrix: npt.NDArray[Any], name: str) -> Tensor:
    """Check that labels are 0 or 1, and return them as a float32 tensor."""
    is_soft = (matrix != 0) & (matrix != 1)
    if is_soft.any():
        raise ValueError(
            f"`{name}` must contain 0 and 1 only, got {matrix[is_soft][0]:g}. Convert soft labels first, such as by "
            f"`{name} >= 0.5`."
        )
    if not matrix.any():
        raise ValueError(f"`{name}` must contain at least one positive, got none in shape {matrix.shape}.")
    return torch.from_numpy(matrix.astype(np.float32))


def _has_parts(value: Any) -> TypeGuard[Sequence[Any]]:
    """Return whether a value is a sequence of paths or matrices rather than one matrix."""
    if not isinstance(value, list | tuple) or not value:
        return False
    return all(
        isinstance(part, str | PathLike) or getattr(part, "ndim", 0) == 2 or sparse.issparse(part) for part in value
    )


def _load(value: Any, name: str, key: str) -> Any:
    """Return the array of an .npy or .npz file, .npy as a memory map; anything else unchanged."""
    if not isinstance(value, str | PathLike):
        return value
    path = Path(value)
    if path.suffix not in (".npy", ".npz"):
        raise ValueError(f"`{name}` must be an .npy or .npz file if it is a path, got {str(path)!r}.")
    try:
        loaded = np.load(path, mmap_mode="r" if path.suffix == ".npy" else None)
    except (OSError, ValueError) as error:
        raise type(error)(f"`{name}` cannot be read from {str(path)!r}: {error}") from error
    if path.suffix == ".npy":
        return loaded
    with loaded:
        keys = list(loaded)
        if key not in keys and len(keys) != 1:
            raise ValueError(
                f"`{name}`: {str(path)!r} must contain one array, or one that is named {key!r}, got {keys}."
            )
        return loaded[key if key in keys else keys[0]]
