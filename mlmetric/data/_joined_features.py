"""Rows of features in several files, as one array that is never copied as a whole."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


class JoinedFeatures:
    """Features of a data set in one or more files, read where they are indexed.

    Index it by rows like an array: an integer returns a feature, shape `(D,)`; a slice, a boolean mask, or integers in
    a list, array or tensor return a matrix, shape `(n, D)`. Both are new arrays in memory. `blocks` reads all rows in
    order, a few thousand at a time; `numpy.asarray` copies all of them into memory.

    A torch `DataLoader` can read it, since it has a length and items. A pickle contains the names of the files and the
    positions of the rows, but no features.

    [join_shards][mlmetric.data.join_shards] returns it, and has an example.

    Args:
        paths: The files: arrays with the field `feature`, float32, shape `(D,)`, in the format of NumPy.
        part_numbers: The number of the file of each row, int64, shape `(K,)`.
        part_rows: The row in this file, int64, shape `(K,)`.
        indices: The attribute `indices`.

    Attributes:
        shape: `(K, D)`.
        dtype: float32.
        ndim: 2.
        indices: The indices of these rows in the data set, int64, shape `(K,)`, ascending.

    Raises:
        OSError: If a file does not exist.
    """

    dtype = np.dtype(np.float32)
    ndim = 2

    def __init__(
        self,
        paths: Sequence[Path],
        part_numbers: npt.NDArray[np.int64],
        part_rows: npt.NDArray[np.int64],
        indices: npt.NDArray[np.int64],
    ) -> None:
        self._paths = list(paths)
        self._part_numbers, self._part_rows, self.indices = part_numbers, part_rows, indices
        self._open()

    def _open(self) -> None:
        try:
            self._parts = [np.asarray(np.load(path, mmap_mode="r"))["feature"] for path in self._paths]
        except FileNotFoundError as error:
            raise OSError(
                error.errno,
                f"{error.filename} does not exist any more: another run has merged or removed files of the cache. "
                "Call `join_shards` again.",
            ) from error

    @property
    def shape(self) -> tuple[int, int]:
        """Return `(K, D)`."""
        return len(self._part_numbers), self._parts[0].shape[1]

    def __len__(self) -> int:
        return len(self._part_numbers)

    def __repr__(self) -> str:
        return f"JoinedFeatures(shape={self.shape}, dtype=float32, files={len(self._paths)})"

    def __getitem__(self, rows: Any) -> npt.NDArray[np.float32]:
        """Read the feature of a row, shape `(D,)`, or the features of several rows, shape `(n, D)`."""
        if isinstance(rows, slice):
            return self._read(rows)
        if isinstance(rows, tuple) or rows is None or rows is Ellipsis:
            raise IndexError(f"Only rows can be indexed, got {rows!r}: use `features[rows][:, columns]`.")
        try:
            row = operator.index(rows)
        except TypeError:
            return self._read(self._checked_rows(rows))
        if isinstance(rows, bool | np.bool_):
            raise IndexError(f"A row must be an integer, got {rows!r}.")
        if not -len(self) <= row < len(self):
            raise IndexError(f"A row must be from {-len(self)} to {len(self) - 1}, got {row}.")
        feature: npt.NDArray[np.float32] = np.array(self._parts[self._part_numbers[row]][self._part_rows[row]])
        return feature

    def __iter__(self) -> Iterator[npt.NDArray[np.float32]]:
        return (self[row] for row in range(len(self)))

    def blocks(self, rows: int = 4096) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Read all rows in order.

        Args:
            rows: Number of rows of a block, at least 1; the last block may have fewer.

        Yields:
            The number of the first row and the features of a block, float32, shape `(rows, D)`, a new array.

        Raises:
            ValueError: If `rows` is below 1.
        """
        if rows < 1:
            raise ValueError(f"`rows` must be at least 1, got {rows}.")
        return ((start, self[start : start + rows]) for start in range(0, len(self), rows))

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """Copy all features into memory."""
        if copy is False:
            raise ValueError("`copy=False` is not possible: the features are in files. Use `blocks` to read a part.")
        features = self[:]
        return features if dtype is None else features.astype(dtype, copy=False)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_parts"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()

    def _checked_rows(self, rows: Any) -> npt.NDArray[Any]:
        values = np.asarray(rows)
        if values.size == 0 and values.ndim == 1 and values.dtype != np.bool_:
            values = values.astype(np.intp)
        if values.ndim != 1 or values.dtype.kind not in "biu":
            raise IndexError(
                "Rows must be an integer, a slice, or a one-dimensional sequence of integers or booleans, got "
                f"{type(rows).__name__} of {values.dtype}, shape {values.shape}."
            )
        return values

    def _read(self, rows: slice | npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        numbers, part_rows = self._part_numbers[rows], self._part_rows[rows]
        read = np.empty((len(numbers), self.shape[1]), dtype=np.float32)
        order = np.argsort(numbers, kind="stable")
        for places in np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1) if len(order) else []:
            part, wanted = self._parts[numbers[places[0]]], part_rows[places]
            read[_as_slice(places)] = part[_as_slice(wanted)]
        return read


def _as_slice(rows: npt.NDArray[np.int64]) -> slice | npt.NDArray[np.int64]:
    """Return consecutive row numbers as a slice, which is read without another copy."""
    return slice(rows[0], rows[-1] + 1) if (np.diff(rows) == 1).all() else rows
