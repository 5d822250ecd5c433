"""Array operations that are several times faster in numpy than in torch on the CPU."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def argsort_rows(values: Tensor) -> Tensor:
    """Return the indices that sort each row of `(R, M)` values, int64; the order of ties is undefined."""
    if values.device.type != "cpu":
        return values.argsort(dim=1)
    if values.dtype == torch.bfloat16:  # which numpy does not support
        values = values.float()
    if values.dtype != torch.float32:
        return torch.from_numpy(np.argsort(values.numpy(), axis=1))
    # The bits of a float, with all but the sign bit flipped for negative numbers, are an integer of the same order.
    # With the column index in the lower half of an int64, sorting the integers sorts the indices too.
    bits = values.contiguous().view(torch.int32)
    keys = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long() << 32
    keys |= torch.arange(values.shape[1], device=values.device)
    keys.numpy().sort(axis=1)
    return keys.bitwise_and_(0xFFFFFFFF)


def repeat(values: Tensor, counts: Tensor, total: int | None = None) -> Tensor:
    """Repeat each of `(P,)` values `counts` times; `total` is the sum of the counts, if it is known."""
    if values.device.type == "cpu":
        return torch.from_numpy(np.repeat(values.numpy(), counts.numpy()))
    return torch.repeat_interleave(values, counts, output_size=total)


def empty(length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return uninitialised memory; numpy requests large pages from the system, which are faster to write."""
    like = torch.empty(0, dtype=dtype, device="cpu")
    if device.type == "cpu":
        return torch.from_numpy(np.empty(length, like.numpy().dtype))
    return torch.empty(length, dtype=dtype, device=device)


def copy_into(target: Tensor, values: Tensor) -> None:
    """Copy values into uninitialised memory, on the CPU with one thread: threads that share a large page block."""
    if target.device.type == "cpu":
        np.copyto(target.numpy(), values.numpy())
    else:
        target.copy_(values)
