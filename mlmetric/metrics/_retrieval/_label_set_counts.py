"""Distinct label sets of rows that are read once, and the number of rows with each."""

from __future__ import annotations

from copy import copy
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mlmetric._label_matrix import missing_hint
from mlmetric.labels import label_tensor

Array = npt.NDArray[Any]
_BYTES_OF_INTEGER = 8


class LabelSetCounts:
    """Distinct rows of label matrices, and how often each occurs.

    A row is stored as one value, its key. While all entries are 0 or 1, the key contains the labels as bits, so that
    eight labels take one byte. From the first block with another entry on, the key contains the bytes of the row;
    usually each row is then distinct.

    Args:
        num_labels: Number of columns.
        dtype: Dtype of the labels.
    """

    def __init__(self, num_labels: int, dtype: torch.dtype) -> None:
        self.num_labels, self.dtype = num_labels, dtype
        self.is_soft = False
        self._keys: Array = np.empty(0, self._key_dtype())
        self._counts = np.empty(0, np.int64)
        self._pending: list[tuple[Array, Array]] = []
        self._num_pending = 0

    def copy(self) -> LabelSetCounts:
        """Return a copy; the arrays are never changed, so that only the list of them is copied."""
        copied = copy(self)
        copied._pending = [*self._pending]
        return copied

    def encode(self, labels: Tensor) -> Array:
        """Return the key of each row, shape `(R,)`; of soft labels only after `is_soft` has been set."""
        values = self._to_array(labels)
        if self.is_soft:
            return np.ascontiguousarray(values).view(self._key_dtype()).ravel()
        packed = np.packbits(values if values.dtype == np.bool_ else values != 0, axis=1)
        if packed.shape[1] > _BYTES_OF_INTEGER:
            return packed.view(self._key_dtype()).ravel()
        padded = np.zeros((len(packed), _BYTES_OF_INTEGER), np.uint8)
        padded[:, : packed.shape[1]] = packed
        keys: Array = padded.view(self._key_dtype()).ravel()
        return keys

    def decode(self, keys: Array) -> Tensor:
        """Return the label rows of keys, shape `(R, L)`, in the dtype of the labels, on the CPU."""
        if self.is_soft:
            values = keys.view(self._value_dtype()).reshape(len(keys), self.num_labels)
        else:
            packed = np.ascontiguousarray(keys).view(np.uint8).reshape(len(keys), keys.dtype.itemsize)
            values = np.unpackbits(packed, axis=1, count=self.num_labels)
        return torch.from_numpy(values.copy()).to(self.dtype)

    def needs_soft(self, labels: Tensor) -> bool:
        """Return whether a row contains an entry other than 0 and 1, and keys are still bits."""
        return not self.is_soft and labels.is_floating_point() and not bool(((labels == 0) | (labels == 1)).all())

    def soften(self, keys: Array) -> Array:
        """Return the keys of soft labels for keys that are bits."""
        soft = copy(self)
        soft.is_soft = True
        return soft.encode(self.decode(keys))

    def softened(self) -> LabelSetCounts:
        """Return the same counts with keys of soft labels."""
        if self.is_soft:
            return self
        keys, counts = self.distinct()
        soft = LabelSetCounts(self.num_labels, self.dtype)
        soft.is_soft = True
        soft._keys = np.empty(0, soft._key_dtype())
        soft.add(self.soften(keys), counts)
        return soft

    def add(self, keys: Array, counts: Array | None = None) -> None:
        """Count rows by their keys, once each or as often as `counts` says."""
        if counts is None:
            keys, counts = np.unique(keys, return_counts=True)
        self._pending.append((keys, counts))
        self._num_pending += len(keys)
        # Merged when they are as many as the distinct ones, so that each is merged few times.
        if self._num_pending > max(len(self._keys), 2**16):
            self.distinct()

    def distinct(self) -> tuple[Array, Array]:
        """Return the distinct keys in ascending order, and the number of rows of each."""
        if self._pending:
            keys = np.concatenate([self._keys, *(keys for keys, _ in self._pending)])
            counts = np.concatenate([self._counts, *(counts for _, counts in self._pending)])
            order = np.argsort(keys, kind="stable")
            keys, counts = keys[order], counts[order]
            is_first = np.ones(len(keys), bool)
            is_first[1:] = keys[1:] != keys[:-1]
            starts = np.flatnonzero(is_first)
            self._keys = keys[starts]
            self._counts = np.add.reduceat(counts, starts) if len(starts) else counts
            self._pending, self._num_pending = [], 0
        return self._keys, self._counts

    def _to_array(self, labels: Tensor) -> Array:
        labels = labels.cpu()
        return (labels.float() if labels.dtype == torch.bfloat16 else labels).numpy()

    def _value_dtype(self) -> np.dtype[Any]:
        return self._to_array(torch.empty(0, dtype=self.dtype)).dtype

    def _key_dtype(self) -> np.dtype[Any]:
        # Byte strings of numpy end at the last byte that is not 0, which tells strings of one size apart.
        if self.is_soft:
            return np.dtype(f"S{self.num_labels * self._value_dtype().itemsize}")
        num_bytes = -(-self.num_labels // 8)
        return np.dtype(np.uint64) if num_bytes <= _BYTES_OF_INTEGER else np.dtype(f"S{num_bytes}")


def check_label_block(labels: Any, name: str, start: int) -> Tensor:
    """Check rows of a label matrix, and return them as a tensor; the row numbers in errors begin at `start`."""
    matrix = label_tensor(labels, name=name, validate_args=False)
    if matrix.dtype == torch.bool or not matrix.numel():
        return matrix
    lowest, highest = (float(end) for end in torch.aminmax(matrix))
    if not (lowest >= 0 and highest <= 1):
        invalid = ~((matrix >= 0) & (matrix <= 1))
        row, column = invalid.nonzero()[0].tolist()
        value = matrix[row, column].item()
        votes = "Convert annotator votes with `mlmetric.labels.votes_to_labels`."
        raise ValueError(
            f"`{name}` must contain numbers in [0, 1], got {value:g} at row {start + row}, label {column}. "
            f"{votes if value == value else missing_hint('`RetrievalMetrics`')}"
        )
    return matrix
