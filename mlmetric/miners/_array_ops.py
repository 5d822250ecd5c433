"""Operations on arrays of numpy and of torch: numpy on the CPU, where its calls are much faster than torch's.

An array is a `numpy.ndarray` for tensors on the CPU, and the tensor itself on another device. What both have as methods
and operators, such as comparisons, indexing with indices, `cumsum`, `reshape` and `sum`, is used directly.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

Array: TypeAlias = Any
"""A numpy array, for tensors on the CPU, or a tensor on another device."""


def to_array(values: Tensor) -> Array:
    """Return a tensor as an array that shares its memory; half precision, which numpy supports in part, as float32."""
    if values.dtype in (torch.float16, torch.bfloat16):
        values = values.float()
    return values.numpy() if values.device.type == "cpu" else values


def to_tensor(values: Array) -> Tensor:
    """Return an array as a tensor that shares its memory."""
    return torch.from_numpy(values) if isinstance(values, np.ndarray) else values


def arange(length: int, like: Array) -> Array:
    """Return 0, 1, ..., `length - 1` as int64, on the device of `like`."""
    return np.arange(length) if isinstance(like, np.ndarray) else torch.arange(length, device=like.device)


def argsort_rows(values: Array) -> Array:
    """Return the indices that sort each row of `(R, M)` values, int64; the order of ties is undefined."""
    if not isinstance(values, np.ndarray):
        return values.argsort(dim=1)
    if values.dtype != np.float32:
        return values.argsort(axis=1)
    # The bits of a float, with all but the sign bit flipped for negative numbers, are an integer of the same order.
    # With the column index in the lower half of an int64, sorting the integers sorts the indices too.
    bits = np.ascontiguousarray(values).view(np.int32)
    keys = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).astype(np.int64)
    keys <<= 32
    keys |= np.arange(values.shape[1])
    keys.sort(axis=1)
    keys &= 0xFFFFFFFF
    return keys


def stable_argsort(values: Array) -> Array:
    """Return the indices that sort `(P,)` values, with ties in their order."""
    return values.argsort(kind="stable") if isinstance(values, np.ndarray) else values.argsort(stable=True)


def sort_rows(values: Array) -> Array:
    """Return each row of `(R, M)` values in ascending order."""
    return np.sort(values, axis=1) if isinstance(values, np.ndarray) else values.sort(dim=1).values


def running_minimum(values: Array) -> Array:
    """Return the smallest of the first 1, 2, ..., M values of each row."""
    if isinstance(values, np.ndarray):
        return np.minimum.accumulate(values, axis=1)
    return values.cummin(dim=1).values


def running_maximum(values: Array) -> Array:
    """Return the largest of the first 1, 2, ..., M values of each row."""
    if isinstance(values, np.ndarray):
        return np.maximum.accumulate(values, axis=1)
    return values.cummax(dim=1).values


def nonzero(mask: Array) -> tuple[Array, ...]:
    """Return the indices where a mask is True, one array for each dimension."""
    return mask.nonzero() if isinstance(mask, np.ndarray) else mask.nonzero(as_tuple=True)


def minimum(values: Array, most: Array | int) -> Array:
    """Return the smaller of two values, for each element."""
    if isinstance(values, np.ndarray):
        return np.minimum(values, most)
    return torch.minimum(values, most) if isinstance(most, Tensor) else values.clamp(max=most)


def maximum(values: Array, least: int) -> Array:
    """Return the larger of a value and a number, for each element."""
    return np.maximum(values, least) if isinstance(values, np.ndarray) else values.clamp(min=least)


def where(condition: Array, values: Array, others: Array) -> Array:
    """Return `values` where the condition is True, and `others` elsewhere."""
    where = np.where if isinstance(condition, np.ndarray) else torch.where
    return where(condition, values, others)


def concatenate(parts: list[Array]) -> Array:
    """Concatenate arrays along the first dimension."""
    return np.concatenate(parts) if isinstance(parts[0], np.ndarray) else torch.cat(parts)


def stack_columns(*columns: Array) -> Array:
    """Return `(P,)` arrays as the columns of one array."""
    if not isinstance(columns[0], np.ndarray):
        return torch.stack(columns, dim=1)
    stacked = np.empty((len(columns[0]), len(columns)), columns[0].dtype)
    for number, column in enumerate(columns):
        stacked[:, number] = column
    return stacked


def searchsorted(ascending: Array, values: Array) -> Array:
    """Return how many of the ascending numbers are below each value, int64."""
    if isinstance(ascending, np.ndarray):
        return ascending.searchsorted(values)
    return torch.searchsorted(ascending, values)


def bincount(indices: Array, length: int) -> Array:
    """Count the occurrences of 0, 1, ..., `length - 1`."""
    if isinstance(indices, np.ndarray):
        return np.bincount(indices, minlength=length)
    return torch.bincount(indices, minlength=length)


def repeat(values: Array, counts: Array, total: int | None = None) -> Array:
    """Repeat each of `(P,)` values `counts` times; `total` is the sum of the counts, if it is known."""
    if isinstance(values, np.ndarray):
        return values.repeat(counts)
    return torch.repeat_interleave(values, counts, output_size=total)


def expand(starts: Array, counts: Array) -> Array:
    """Return `counts[i]` consecutive integers from `starts[i]`, for each i, flat."""
    shifts = repeat(starts - counts.cumsum(0) + counts, counts)
    shifts += arange(len(shifts), shifts)
    return shifts


def to_int(values: Array, bits: int) -> Array:
    """Return integers or booleans as integers of 16, 32 or 64 bits."""
    name = f"int{bits}"
    return values.astype(name) if isinstance(values, np.ndarray) else values.to(getattr(torch, name))


def join(parts: list[Array]) -> Array:
    """Concatenate int32 arrays as int64, and free each one after it is copied."""
    if len(parts) == 1:
        return to_int(parts.pop(), 64)
    length, done = sum(len(part) for part in parts), 0
    is_numpy = isinstance(parts[0], np.ndarray)
    # numpy requests large pages from the system, which are faster to write.
    joined: Array = np.empty(length, np.int64) if is_numpy else parts[0].new_empty(length, dtype=torch.int64)
    while parts:
        part = parts.pop(0)
        joined[done : done + len(part)] = part
        done += len(part)
    return joined
