"""What a label matrix is: `(N, L)`, multi-hot in {0, 1}, or soft in [0, 1].

Functions take torch tensors and numpy arrays and return the kind that they were given.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["binarize", "check_labels", "cooccurrence", "label_counts", "votes_to_labels"]

LabelMatrix = TypeVar("LabelMatrix", torch.Tensor, npt.NDArray[Any])


def check_labels(labels: LabelMatrix, *, name: str = "labels", validate_args: bool = True) -> LabelMatrix:
    """Check that `labels` is a label matrix and return it unchanged.

    Args:
        labels: Tensor or array of shape `(N, L)`, any real dtype or bool, entries in [0, 1].
        name: The argument's name in messages.
        validate_args: Whether to look at the values too. On a CUDA tensor that waits for the device.

    Returns:
        The same object.

    Raises:
        TypeError: If `labels` is neither a tensor nor an array, or an array of something else than numbers.
        ValueError: If it is not two-dimensional, or an entry is NaN or outside [0, 1].

    Examples:
        >>> check_labels(torch.tensor([[1, 0], [0, 1]])).shape
        torch.Size([2, 2])
    """
    if not isinstance(labels, torch.Tensor | np.ndarray):
        raise TypeError(f"`{name}` must be a torch.Tensor or numpy.ndarray, got {type(labels).__name__}.")
    if labels.ndim != 2:
        raise ValueError(
            f"`{name}` must be a 2-D multi-hot matrix of shape (N, L), got shape {tuple(labels.shape)}. "
            "For class ids use `torch.nn.functional.one_hot`."
        )
    if isinstance(labels, np.ndarray) and labels.dtype.kind not in "biuf" and not _holds_numbers(labels):
        raise TypeError(
            f"`{name}` must hold numbers, 0 or 1 for each label of each row, got dtype {labels.dtype}. "
            "Names of labels become these by `sklearn.preprocessing.MultiLabelBinarizer`."
        )
    if validate_args and not bool(((labels >= 0) & (labels <= 1)).all()):
        raise ValueError(
            f"`{name}` must hold numbers in [0, 1], got {_first_outside(labels)}. "
            "Annotator votes become labels by `mlmetric.labels.votes_to_labels`."
        )
    return labels


def _holds_numbers(labels: npt.NDArray[Any]) -> bool:
    return labels.dtype == object and all(isinstance(value, Real) for value in labels.flat)


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
    shares = votes.astype(np.float64) / num_annotators[:, None]
    return check_labels(shares.astype(np.float32), name="votes / num_annotators")


def label_counts(labels: LabelMatrix) -> LabelMatrix:
    """Count the positives of each label; soft labels add up their shares.

    Args:
        labels: Shape `(N, L)`, in [0, 1].

    Returns:
        float64, shape `(L,)`.

    Raises:
        TypeError: If `labels` is neither a tensor nor an array.
        ValueError: If it is not two-dimensional, or an entry is NaN or outside [0, 1].

    Examples:
        >>> label_counts(torch.tensor([[1, 0, 1], [1, 0, 0]]))
        tensor([2., 0., 1.], dtype=torch.float64)
    """
    check_labels(labels)
    if isinstance(labels, torch.Tensor):
        return labels.sum(dim=0, dtype=torch.float64)
    return cast(LabelMatrix, labels.sum(axis=0, dtype=np.float64))


def cooccurrence(labels: LabelMatrix) -> LabelMatrix:
    """Count for each pair of labels the rows that carry both; the diagonal holds the counts.

    Args:
        labels: Shape `(N, L)`, in [0, 1]. Soft labels count as the product of their shares.

    Returns:
        float64, shape `(L, L)`, symmetric.

    Raises:
        TypeError: If `labels` is neither a tensor nor an array.
        ValueError: If it is not two-dimensional, or an entry is NaN or outside [0, 1].

    Examples:
        >>> cooccurrence(torch.tensor([[1, 0, 1], [1, 1, 1]]))
        tensor([[2., 1., 2.],
                [1., 1., 1.],
                [2., 1., 2.]], dtype=torch.float64)
    """
    check_labels(labels)
    if isinstance(labels, torch.Tensor):
        values = labels.double()
        return values.T @ values
    array = labels.astype(np.float64)
    return cast(LabelMatrix, array.T @ array)
