"""The order of numbers in rows, equal ones by their index."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[Any]
Repair = Callable[[int, Array, Array], None]
"""Gets the number of a row, its values and their order, and puts the order right in place."""
SMALL = 2**16
"""Fewer numbers are put in order by one thread: to start others takes longer."""


def stable_order(values: Tensor, repair: Repair | None = None) -> Tensor:
    """Return for each row the indices in ascending order of its values, equal ones in ascending order: int64 `(B, M)`.

    Args:
        values: Shape `(B, M)`, float32 or float64; NaN come last.
        repair: What may change the order of a row, on the CPU only.
    """
    if values.device.type != "cpu":
        return values.sort(dim=1, stable=True).indices
    rows = values.numpy()
    orders = np.empty(rows.shape, dtype=np.int64)

    def sort(part: Array) -> None:
        for row in part:
            orders[row] = _order(_digits(rows[row]))
            if repair is not None:
                repair(row, rows[row], orders[row])

    every = np.arange(len(rows))
    if rows.size < SMALL:
        sort(every)
    else:
        threads = torch.get_num_threads()
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(sort, np.array_split(every, threads)))
    return torch.from_numpy(orders)


def _order(digits: list[Array]) -> Array:
    """Sort by digits of 16 bits, the last one first: numpy sorts these in time proportional to their number."""
    order: Array = np.argsort(digits[0], kind="stable")
    for digit in digits[1:]:
        order = order.take(np.argsort(digit.take(order), kind="stable"))
    return order


def _digits(row: Array) -> list[Array]:
    signed: type[np.signedinteger[Any]] = np.int32 if row.dtype == np.float32 else np.int64
    bits = 8 * row.dtype.itemsize
    # Of the numbers below 0 those with larger bits are the lower ones. Adding 0 makes -0 a 0.
    keys = (row + row.dtype.type(0)).view(signed)
    keys = np.where(keys < 0, ~keys, keys ^ np.iinfo(signed).min).view(f"u{bits // 8}")
    return [(keys >> keys.dtype.type(shift)).astype(np.uint16) for shift in range(0, bits, 16)]
