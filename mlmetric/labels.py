"""Label matrices: checks, conversions and counts.

A label matrix has shape `(N, L)`, a row for each sample and a column for each label; it is multi-hot in {0, 1}, or soft
in [0, 1]. Functions take torch tensors, numpy arrays, lists of rows, scipy sparse matrices and data frames. They return
a tensor for a tensor, and an array for anything else.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any, TypeAlias, TypeVar, cast, overload

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse

__all__ = ["LabelsLike", "binarize", "check_labels", "cooccurrence", "label_counts", "votes_to_labels"]

LabelMatrix = TypeVar("LabelMatrix", torch.Tensor, npt.NDArray[Any])
LabelsLike: TypeAlias = torch.Tensor | npt.ArrayLike | sparse.sparray | sparse.spmatrix
"""What `check_labels` reads as a label matrix: a tensor, an array, a list of rows, a sparse matrix or a data frame."""

_NAMES_HINT = "Names of labels become a label matrix by `sklearn.preprocessing.MultiLabelBinarizer`."


@overload
def check_labels(labels: torch.Tensor, *, name: str = ..., validate_args: bool = ...) -> torch.Tensor: ...
@overload
def check_labels(labels: npt.NDArray[Any], *, name: str = ..., validate_args: bool = ...) -> npt.NDArray[Any]: ...
@overload
def check_labels(
    labels: LabelsLike, *, name: str = ..., validate_args: bool = ...
) -> torch.Tensor | npt.NDArray[Any]: ...
def check_labels(
    labels: LabelsLike, *, name: str = "labels", validate_args: bool = True
) -> torch.Tensor | npt.NDArray[Any]:
    """Check that `labels` is a label matrix, and return it as a tensor or an array.

    Args:
        labels: Shape `(N, L)`, any real dtype or bool, entries in [0, 1]: a tensor, an array, a list of rows, a scipy
            sparse matrix, or a data frame, whose columns may have nullable dtypes.
        name: The argument's name in messages.
        validate_args: Whether to check the values too. On a CUDA tensor that waits for the device.

    Returns:
        A dense tensor, or an array of numbers, the same object; anything else as an array.

    Raises:
        TypeError: If `labels` does not hold numbers, such as lists of label names.
        ValueError: If it is not two-dimensional, or an entry is missing, NaN or outside [0, 1].

    Examples:
        >>> check_labels([[1, 0], [0, 1]])
        array([[1, 0],
               [0, 1]])
    """
    matrix = _to_matrix(labels, name)
    if matrix.ndim != 2:
        raise ValueError(
            f"`{name}` must be a 2-D multi-hot matrix of shape (N, L), got shape {tuple(matrix.shape)}. "
            "For class ids use `torch.nn.functional.one_hot`."
        )
    if validate_args and not bool(((matrix >= 0) & (matrix <= 1)).all()):
        raise ValueError(
            f"`{name}` must hold numbers in [0, 1], got {_first_outside(matrix)}. "
            "Annotator votes become labels by `mlmetric.labels.votes_to_labels`."
        )
    return matrix


def label_tensor(labels: LabelsLike, *, name: str = "labels", validate_args: bool = True) -> torch.Tensor:
    """Check labels as `check_labels` does, and return a tensor; it may share memory with an array."""
    matrix = check_labels(labels, name=name, validate_args=validate_args)
    if isinstance(matrix, torch.Tensor):
        return matrix
    if matrix.dtype.kind == "u" and matrix.dtype.itemsize > 1:  # for which torch has few operations
        matrix = matrix.astype(np.int64)
    return torch.from_numpy(np.require(matrix, requirements=["C", "W"]))


def _to_matrix(labels: LabelsLike, name: str) -> torch.Tensor | npt.NDArray[Any]:
    """Return a tensor as a dense one, and anything else as an array of numbers."""
    if isinstance(labels, torch.Tensor):
        return labels if labels.layout is torch.strided else labels.to_dense()
    if sparse.issparse(labels):
        return np.asarray(cast(Any, labels).toarray())
    try:
        array = np.asarray(labels)
    except (TypeError, ValueError) as error:  # rows of different lengths, or no rows at all
        raise TypeError(
            f"`{name}` must hold numbers, 0 or 1 for each label of each row, got {type(labels).__name__} that numpy "
            f"does not read as a matrix: {error}. {_NAMES_HINT}"
        ) from error
    if array.dtype.kind in "biuf":
        return array
    if array.dtype == object and array.ndim == 2 and all(isinstance(value, Real) for value in array.flat):
        return array.astype(np.float64)  # a frame with nullable dtypes, or Python numbers
    shown = f"dtype {array.dtype}" if array.size else f"{type(labels).__name__}"
    if array.dtype == object and array.size:
        odd = next(value for value in array.flat if not isinstance(value, Real)) if array.ndim == 2 else array.flat[0]
        shown = f"{odd!r:.60}"
    raise TypeError(f"`{name}` must hold numbers, 0 or 1 for each label of each row, got {shown}. {_NAMES_HINT}")


def _first_outside(labels: torch.Tensor | npt.NDArray[Any]) -> str:
    values = labels.detach().cpu().float().numpy() if isinstance(labels, torch.Tensor) else labels
    row, column = np.argwhere(~((values >= 0) & (values <= 1)))[0]
    return f"{values[row, column]} at row {row}, label {column}"


def binarize(label_sets: Sequence[Iterable[int]], num_labels: int) -> torch.Tensor:
    """Turn sets of label indices into a multi-hot matrix.

    Args:
        label_sets: For each of N rows the indices of its labels, 0 to `num_labels - 1`; repetitions count once,
            an empty set gives an all-zero row.
        num_labels: L, the number of columns.

    Returns:
        uint8 tensor of shape `(N, L)`.

    Raises:
        TypeError: If a set holds something else than integers, say names of labels; the message names the row.
        ValueError: If an index lies outside 0 to `num_labels - 1`, the message names the row; or if `num_labels` is not
            a whole number, 0 or more.

    Examples:
        >>> binarize([[0, 2], [], [1]], num_labels=3)
        tensor([[1, 0, 1],
                [0, 0, 0],
                [0, 1, 0]], dtype=torch.uint8)
    """
    if isinstance(num_labels, bool) or not isinstance(num_labels, int | np.integer) or num_labels < 0:
        raise ValueError(f"`num_labels` must be a whole number, 0 or more, got {num_labels!r}.")
    labels = torch.zeros(len(label_sets), int(num_labels), dtype=torch.uint8)
    for row, indices in enumerate(label_sets):
        for index in _integers(indices, row):
            if not 0 <= index < num_labels:
                raise ValueError(
                    f"`label_sets[{row}]` holds label {index}, outside 0 to {num_labels - 1} "
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
            f"`label_sets[{row}]` must hold indices of labels, integers, got {indices!r:.60}. "
            "Names of labels become a label matrix by `sklearn.preprocessing.MultiLabelBinarizer`."
        ) from None


def votes_to_labels(
    votes: LabelMatrix, num_annotators: LabelMatrix | None = None, *, min_votes: int = 1
) -> LabelMatrix:
    """Turn annotator votes into labels, hard by a minimum of votes or soft as shares.

    Args:
        votes: How many annotators chose the label, shape `(N, L)`, integers >= 0.
        num_annotators: How many annotators saw each row, shape `(N,)`, integers >= 1. Given, the labels are soft,
            votes / annotators; without it they are hard.
        min_votes: For hard labels, the votes that a label needs: 1 is the union over annotators, 2 agreement.

    Returns:
        Hard labels as uint8, or soft ones as float32, shape `(N, L)`.

    Raises:
        ValueError: If `votes` is no matrix or holds a negative number, `min_votes` is below 1, `num_annotators` has
            the wrong shape, or a label has more votes than the row has annotators.

    Examples:
        >>> votes = torch.tensor([[3, 1, 0], [0, 2, 2]])
        >>> votes_to_labels(votes, min_votes=2)
        tensor([[1, 0, 0],
                [0, 1, 1]], dtype=torch.uint8)
        >>> votes_to_labels(votes, torch.tensor([4, 2]))
        tensor([[0.7500, 0.2500, 0.0000],
                [0.0000, 1.0000, 1.0000]])
    """
    if votes.ndim != 2 or not bool((votes >= 0).all()):
        raise ValueError(f"`votes` must be a matrix (N, L) of numbers >= 0, got shape {tuple(votes.shape)}.")
    if not min_votes >= 1:
        raise ValueError(f"`min_votes` must be at least 1, got {min_votes}.")
    if num_annotators is None:
        hard = votes >= min_votes
        return hard.to(torch.uint8) if isinstance(hard, torch.Tensor) else hard.astype(np.uint8)
    if tuple(num_annotators.shape) != (votes.shape[0],):
        raise ValueError(
            f"`num_annotators` must have shape ({votes.shape[0]},), one number a row of `votes`, "
            f"got {tuple(num_annotators.shape)}."
        )
    if isinstance(votes, torch.Tensor):
        return check_labels((votes.double() / num_annotators[:, None]).float(), name="votes / num_annotators")
    shares: npt.NDArray[np.float32] = (votes.astype(np.float64) / num_annotators[:, None]).astype(np.float32)
    return check_labels(shares, name="votes / num_annotators")


@overload
def label_counts(labels: torch.Tensor) -> torch.Tensor: ...  # type: ignore[overload-overlap]
@overload
def label_counts(labels: LabelsLike) -> npt.NDArray[np.float64]: ...
def label_counts(labels: LabelsLike) -> torch.Tensor | npt.NDArray[np.float64]:
    """Count the positives of each label; soft labels add up their shares.

    Args:
        labels: Shape `(N, L)`, in [0, 1], of any kind that `check_labels` reads.

    Returns:
        float64, shape `(L,)`: a tensor for a tensor, otherwise an array.

    Raises:
        TypeError: If `labels` does not hold numbers.
        ValueError: If it is not two-dimensional, or an entry is missing, NaN or outside [0, 1].

    Examples:
        >>> label_counts(torch.tensor([[1, 0, 1], [1, 0, 0]]))
        tensor([2., 0., 1.], dtype=torch.float64)
    """
    matrix = check_labels(labels)
    if isinstance(matrix, torch.Tensor):
        return matrix.sum(dim=0, dtype=torch.float64)
    return cast(npt.NDArray[np.float64], matrix.sum(axis=0, dtype=np.float64))


@overload
def cooccurrence(labels: torch.Tensor) -> torch.Tensor: ...  # type: ignore[overload-overlap]
@overload
def cooccurrence(labels: LabelsLike) -> npt.NDArray[np.float64]: ...
def cooccurrence(labels: LabelsLike) -> torch.Tensor | npt.NDArray[np.float64]:
    """Count for each pair of labels the rows that carry both; the diagonal holds the counts.

    Args:
        labels: Shape `(N, L)`, in [0, 1], of any kind that `check_labels` reads. Soft labels count as the product of
            their shares.

    Returns:
        float64, shape `(L, L)`, symmetric: a tensor for a tensor, otherwise an array.

    Raises:
        TypeError: If `labels` does not hold numbers.
        ValueError: If it is not two-dimensional, or an entry is missing, NaN or outside [0, 1].

    Examples:
        >>> cooccurrence(torch.tensor([[1, 0, 1], [1, 1, 1]]))
        tensor([[2., 1., 2.],
                [1., 1., 1.],
                [2., 1., 2.]], dtype=torch.float64)
    """
    matrix = check_labels(labels)
    if isinstance(matrix, torch.Tensor):
        values = matrix.double()
        return values.T @ values
    array = matrix.astype(np.float64)
    return array.T @ array
