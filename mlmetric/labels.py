"""Check, convert and count label matrices.

A label matrix has shape `(N, L)`, with one row per sample and one column per label. Its entries are 0 or 1 (multi-hot),
or numbers in [0, 1] (soft labels). Functions accept torch tensors, numpy arrays, lists of rows, scipy sparse matrices
and data frames. They return a tensor for a tensor and an array for anything else.

NaN, or None in a list or a data frame, marks a missing label: one that is not annotated for the row. Similarities,
relations, miners, losses, splits, batch samplers, imbalance measures, training and the estimators support missing
labels; everything else raises a ValueError that says so.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias, cast, overload

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse

from mlmetric._label_matrix import NAMES_HINT, describe_invalid, to_matrix

__all__ = ["LabelsLike", "binarize", "check_labels", "cooccurrence", "label_counts", "votes_to_labels"]

LabelsLike: TypeAlias = torch.Tensor | npt.ArrayLike | sparse.sparray | sparse.spmatrix
"""Types accepted as a label matrix: a tensor, an array, a list of rows, a scipy sparse matrix or a data frame."""


@overload
def check_labels(
    labels: torch.Tensor, *, name: str = ..., validate_args: bool = ..., allow_missing: bool = ...
) -> torch.Tensor: ...
@overload
def check_labels(
    labels: npt.NDArray[Any], *, name: str = ..., validate_args: bool = ..., allow_missing: bool = ...
) -> npt.NDArray[Any]: ...
@overload
def check_labels(
    labels: LabelsLike, *, name: str = ..., validate_args: bool = ..., allow_missing: bool = ...
) -> torch.Tensor | npt.NDArray[Any]: ...
def check_labels(
    labels: LabelsLike, *, name: str = "labels", validate_args: bool = True, allow_missing: bool = False
) -> torch.Tensor | npt.NDArray[Any]:
    """Check that `labels` is a label matrix, and return it as a tensor or an array.

    Args:
        labels: Shape `(N, L)`, any real dtype or bool, entries in [0, 1]: a tensor, an array, a list of rows, a scipy
            sparse matrix, or a data frame, whose columns may have nullable dtypes.
        name: Name of the argument in error messages.
        validate_args: Whether to check the values as well as the shape. On a CUDA tensor this check synchronises with
            the device.
        allow_missing: Whether entries may be NaN, which means that the label is not annotated.

    Returns:
        A tensor or a numeric array, unchanged; anything else as an array. A sparse tensor becomes dense, a tensor of
        dtype uint16, uint32 or uint64 becomes int64, and a float8 tensor becomes float32.

    Raises:
        TypeError: If `labels` is not numeric, for example lists of label names, or is complex.
        ValueError: If `labels` is not two-dimensional, an entry is outside [0, 1], or an entry is missing and
            `allow_missing` is False.

    Examples:
        >>> from mlmetric.labels import check_labels
        >>> check_labels([[1, 0], [0, 1]])
        array([[1, 0],
               [0, 1]])
        >>> check_labels([[1, None], [0, 1]], allow_missing=True)
        array([[ 1., nan],
               [ 0.,  1.]])
    """
    return _check(labels, name, validate_args=validate_args, allow_missing=allow_missing)


def _check(
    labels: LabelsLike, name: str, *, validate_args: bool, allow_missing: bool = False, used_by: str = "this function"
) -> torch.Tensor | npt.NDArray[Any]:
    """Check labels like `check_labels`; the error for missing labels says that `used_by` does not support them."""
    matrix = to_matrix(labels, name)
    if matrix.ndim != 2:
        raise ValueError(
            f"`{name}` must be a 2-D multi-hot matrix of shape (N, L), got shape {tuple(matrix.shape)}. "
            "Convert class ids with `torch.nn.functional.one_hot`."
        )
    values: Any = matrix
    if validate_args and isinstance(matrix, torch.Tensor) and matrix.numel():
        values = torch.stack(matrix.detach().aminmax())  # NaN if any entry is
    if validate_args and not bool(((values >= 0) & (values <= 1)).all()):
        invalid = describe_invalid(matrix, name, allow_missing=allow_missing, used_by=used_by)
        if invalid is not None:
            raise ValueError(invalid)
    return matrix


def label_tensor(
    labels: LabelsLike,
    *,
    name: str = "labels",
    validate_args: bool = True,
    allow_missing: bool = False,
    used_by: str = "this function",
) -> torch.Tensor:
    """Check labels like `check_labels`, and return a tensor, which may share memory with an array.

    The error for missing labels says that `used_by` does not support them.
    """
    matrix = _check(labels, name, validate_args=validate_args, allow_missing=allow_missing, used_by=used_by)
    if isinstance(matrix, torch.Tensor):
        return matrix
    dtype = matrix.dtype.newbyteorder("=")  # torch has native byte order only
    if dtype.kind == "u" and dtype.itemsize > 1:  # torch supports few operations on these dtypes
        dtype = np.dtype(np.int64)
    elif dtype.kind == "f" and dtype.itemsize > 8:  # torch has no long double
        dtype = np.dtype(np.float64)
    return torch.from_numpy(np.require(matrix, dtype, ["C", "W"]))


def label_array(
    labels: LabelsLike,
    *,
    name: str = "labels",
    validate_args: bool = True,
    allow_missing: bool = False,
    used_by: str = "this function",
) -> npt.NDArray[Any]:
    """Check labels like `check_labels`, and return an array, which may share memory with a tensor on the CPU.

    The error for missing labels says that `used_by` does not support them.
    """
    matrix = _check(labels, name, validate_args=validate_args, allow_missing=allow_missing, used_by=used_by)
    if isinstance(matrix, torch.Tensor):
        matrix = matrix.detach().cpu()
        if matrix.is_floating_point() and matrix.element_size() < 4:  # bfloat16 is unknown to numpy
            matrix = matrix.float()
        return matrix.numpy()
    return matrix


def binarize(label_sets: Sequence[Iterable[int]], num_labels: int) -> torch.Tensor:
    """Convert sets of label indices to a multi-hot matrix.

    Args:
        label_sets: N collections of label indices, integers from 0 to `num_labels - 1`. Repeated indices count once; an
            empty collection gives an all-zero row.
        num_labels: L, the number of columns.

    Returns:
        uint8 tensor of shape `(N, L)`.

    Raises:
        TypeError: If a collection contains anything other than integers, for example label names; the message gives
            the row.
        ValueError: If an index is outside 0 to `num_labels - 1`; the message gives the row. Also if `num_labels` is not
            an integer of at least 0.

    Examples:
        >>> from mlmetric.labels import binarize
        >>> binarize([[0, 2], [], [1]], num_labels=3)
        tensor([[1, 0, 1],
                [0, 0, 0],
                [0, 1, 0]], dtype=torch.uint8)
    """
    if isinstance(num_labels, bool) or not isinstance(num_labels, int | np.integer) or num_labels < 0:
        raise ValueError(f"`num_labels` must be an integer of at least 0, got {num_labels!r}.")
    labels = torch.zeros(len(label_sets), int(num_labels), dtype=torch.uint8)
    for row, indices in enumerate(label_sets):
        for index in _integers(indices, row):
            if not 0 <= index < num_labels:
                raise ValueError(
                    f"`label_sets[{row}]` contains label {index}, outside 0 to {num_labels - 1} "
                    f"(`num_labels` is {num_labels})."
                )
            labels[row, index] = 1
    return labels


def _integers(indices: Iterable[int], row: int) -> list[int]:
    try:
        values = list(indices)
        if any(isinstance(value, bool) for value in values):
            raise TypeError
        return [operator.index(value) for value in values]
    except TypeError:
        raise TypeError(
            f"`label_sets[{row}]` must contain integer label indices, got {indices!r:.60}. {NAMES_HINT}"
        ) from None


@overload
def votes_to_labels(  # type: ignore[overload-overlap]
    votes: torch.Tensor, num_annotators: npt.ArrayLike | torch.Tensor | None = ..., *, min_votes: int = ...
) -> torch.Tensor: ...
@overload
def votes_to_labels(
    votes: LabelsLike, num_annotators: npt.ArrayLike | torch.Tensor | None = ..., *, min_votes: int = ...
) -> npt.NDArray[Any]: ...
def votes_to_labels(
    votes: LabelsLike, num_annotators: npt.ArrayLike | torch.Tensor | None = None, *, min_votes: int = 1
) -> torch.Tensor | npt.NDArray[Any]:
    """Convert annotator votes to hard labels (at least `min_votes`) or to soft labels (fractions of the annotators).

    Args:
        votes: Number of annotators who chose each label, shape `(N, L)`, >= 0: a tensor, an array, a list of rows, a
            scipy sparse matrix or a data frame.
        num_annotators: Number of annotators of each row, shape `(N,)`, >= 1. If given, the labels are soft:
            votes / annotators. If None, they are hard.
        min_votes: Number of votes that a hard label requires, >= 1: 1 takes the union over annotators; 2 requires two
            of them to agree.

    Returns:
        Shape `(N, L)`, hard labels as uint8 or soft labels as float32; a tensor for a tensor, otherwise an array.

    Raises:
        TypeError: If `votes` is not numeric.
        ValueError: If `votes` is not two-dimensional or has a negative entry, `min_votes` is below 1,
            `num_annotators` has another shape, or a label has more votes than its row has annotators.

    Examples:
        >>> import torch
        >>> from mlmetric.labels import votes_to_labels
        >>> votes = torch.tensor([[3, 1, 0], [0, 2, 2]])
        >>> votes_to_labels(votes, min_votes=2)
        tensor([[1, 0, 0],
                [0, 1, 1]], dtype=torch.uint8)
        >>> votes_to_labels(votes, torch.tensor([4, 2]))
        tensor([[0.7500, 0.2500, 0.0000],
                [0.0000, 1.0000, 1.0000]])
    """
    counts = to_matrix(votes, "votes")
    if counts.ndim != 2 or not bool((counts >= 0).all()):
        raise ValueError(f"`votes` must be a matrix (N, L) of numbers >= 0, got shape {tuple(counts.shape)}.")
    if not min_votes >= 1:
        raise ValueError(f"`min_votes` must be at least 1, got {min_votes}.")
    if num_annotators is None:
        hard = counts >= min_votes
        return hard.to(torch.uint8) if isinstance(hard, torch.Tensor) else hard.astype(np.uint8)
    annotators = torch.as_tensor(num_annotators) if isinstance(counts, torch.Tensor) else np.asarray(num_annotators)
    if tuple(annotators.shape) != (len(counts),):
        raise ValueError(
            f"`num_annotators` must have shape ({len(counts)},), one number per row of `votes`, "
            f"got {tuple(annotators.shape)}."
        )
    if isinstance(counts, torch.Tensor):
        shares = (counts.double() / torch.as_tensor(annotators, device=counts.device)[:, None]).float()
        return check_labels(shares, name="votes / num_annotators")
    ratios: npt.NDArray[np.float32] = (counts.astype(np.float64) / annotators[:, None]).astype(np.float32)
    return check_labels(ratios, name="votes / num_annotators")


@overload
def label_counts(labels: torch.Tensor) -> torch.Tensor: ...  # type: ignore[overload-overlap]
@overload
def label_counts(labels: LabelsLike) -> npt.NDArray[np.float64]: ...
def label_counts(labels: LabelsLike) -> torch.Tensor | npt.NDArray[np.float64]:
    """Count the positives of each label; soft labels contribute their values.

    Args:
        labels: Shape `(N, L)`, in [0, 1]: a tensor, an array, a list of rows, a scipy sparse matrix or a data frame.

    Returns:
        float64, shape `(L,)`; a tensor for a tensor, otherwise an array.

    Raises:
        TypeError: If `labels` is not numeric.
        ValueError: If `labels` is not two-dimensional, or an entry is missing, NaN or outside [0, 1].

    Examples:
        >>> import torch
        >>> from mlmetric.labels import label_counts
        >>> label_counts(torch.tensor([[1, 0, 1], [1, 0, 0]]))
        tensor([2., 0., 1.], dtype=torch.float64)
    """
    matrix = _check(labels, "labels", validate_args=True, used_by="`label_counts`")
    if isinstance(matrix, torch.Tensor):
        return matrix.sum(dim=0, dtype=torch.float64)
    return cast(npt.NDArray[np.float64], matrix.sum(axis=0, dtype=np.float64))


@overload
def cooccurrence(labels: torch.Tensor) -> torch.Tensor: ...  # type: ignore[overload-overlap]
@overload
def cooccurrence(labels: LabelsLike) -> npt.NDArray[np.float64]: ...
def cooccurrence(labels: LabelsLike) -> torch.Tensor | npt.NDArray[np.float64]:
    """Count the rows that have both labels, for each pair of labels.

    Args:
        labels: Shape `(N, L)`, in [0, 1]: a tensor, an array, a list of rows, a scipy sparse matrix or a data frame.
            Two soft labels of a row contribute the product of their values.

    Returns:
        float64, shape `(L, L)`, symmetric; for hard labels the diagonal contains the label counts. A tensor for a
        tensor, otherwise an array.

    Raises:
        TypeError: If `labels` is not numeric.
        ValueError: If `labels` is not two-dimensional, or an entry is missing, NaN or outside [0, 1].

    Examples:
        >>> import torch
        >>> from mlmetric.labels import cooccurrence
        >>> cooccurrence(torch.tensor([[1, 0, 1], [1, 1, 1]]))
        tensor([[2., 1., 2.],
                [1., 1., 1.],
                [2., 1., 2.]], dtype=torch.float64)
    """
    matrix = _check(labels, "labels", validate_args=True, used_by="`cooccurrence`")
    values: Any = matrix.double() if isinstance(matrix, torch.Tensor) else matrix.astype(np.float64)
    return cast(torch.Tensor | npt.NDArray[np.float64], values.T @ values)
