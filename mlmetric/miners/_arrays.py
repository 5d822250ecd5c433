"""Array operations that numpy does several times faster than torch on the CPU."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def argsort_rows(values: Tensor) -> Tensor:
    """Return the indices that sort each row of `(R, M)` values, int64, ties in any order."""
    if values.device.type != "cpu":
        return values.argsort(dim=1)
    if values.dtype == torch.bfloat16:  # unknown to numpy
        values = values.float()
    if values.dtype != torch.float32:
        return torch.from_numpy(np.argsort(values.numpy(), axis=1))
    # The bits of a float, those below the sign flipped where it is set, are an integer of the same order; with the
    # column in the lower half, a sort of plain integers brings the indices along.
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
    """Return uninitialised memory; numpy asks the system for large pages, which are filled faster."""
    like = torch.empty(0, dtype=dtype, device="cpu")
    if device.type == "cpu":
        return torch.from_numpy(np.empty(length, like.numpy().dtype))
    return torch.empty(length, dtype=dtype, device=device)


def store(values: Tensor, target: Tensor) -> None:
    """Copy values into fresh memory; by one thread on the CPU, since two that touch one large page wait for another."""
    if target.device.type == "cpu":
        np.copyto(target.numpy(), values.numpy())
    else:
        target.copy_(values)
