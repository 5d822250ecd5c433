"""One batch over several processes: what torch.distributed lacks for losses that look at all of its rows.

Where no processes are joined there is one, of rank 0, and everything here does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

__all__ = ["gather_objects", "gather_rows", "num_ranks", "on_first_rank", "rank", "sum_over_ranks"]

T = TypeVar("T")

# What not every backend adds up, and what it is added up as.
_SUMMED_AS = dict.fromkeys([torch.int16, torch.uint16, torch.uint32, torch.uint64], torch.int64)


def rank() -> int:
    """Return the number of this process among those joined; the first is 0."""
    return dist.get_rank() if num_ranks() > 1 else 0


def num_ranks() -> int:
    """Count the processes that are joined."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather_rows(rows: Tensor) -> Tensor:
    """Join the rows of all processes, in the order of their ranks; gradients flow into the rows of this one.

    A rank may have more rows than another, or none: the last batch of an epoch need not be even. The wrappers of
    pytorch-metric-learning take equal numbers only (`drop_last=True`): with others gloo aborts the process.

    Mine and take the loss of the joined batch on each rank, by the same draws. The gradients that its backward pass
    leaves in the network are the share of the rank's own rows: their sum over ranks is the gradient of the joined
    batch. `DistributedDataParallel` takes the mean: multiply the loss by `num_ranks()`.

    Args:
        rows: Shape `(N, ...)`, embeddings or labels, any dtype; all but N must be the same on each rank.

    Returns:
        Shape `(sum of all N, ...)`.

    Raises:
        ValueError: If the shapes differ in more than N, or the dtypes differ.

    Examples:
        >>> gather_rows(torch.tensor([[1.0], [2.0]]))  # in one process
        tensor([[1.],
                [2.]])
    """
    if num_ranks() == 1:
        return rows
    shapes, dtypes = map(list, zip(*gather_objects((tuple(rows.shape), rows.dtype)), strict=True))
    if len({shape[1:] for shape in shapes}) > 1:
        raise ValueError(f"`rows` must have the same shape on each rank but for the first number, got {shapes}.")
    if len(set(dtypes)) > 1:
        raise ValueError(f"`rows` must have the same dtype on each rank, got {dtypes}.")
    padded = rows.new_zeros(max(shape[0] for shape in shapes), *rows.shape[1:])
    padded[: len(rows)] = rows.detach()
    # As bytes, which every backend sends; gloo knows neither int16 nor unsigned integers beyond uint8.
    sent = padded.view(-1).view(torch.uint8)
    received = [torch.empty_like(sent) for _ in shapes]
    dist.all_gather(received, sent)
    parts = [part.view(rows.dtype).view_as(padded)[: shape[0]] for part, shape in zip(received, shapes, strict=True)]
    parts[rank()] = rows
    return torch.cat(parts)


def sum_over_ranks(tensors: Iterable[Tensor]) -> None:
    """Replace each tensor by its sum over all processes; the dtypes stay."""
    if num_ranks() > 1:
        for tensor in tensors:
            summed = tensor.to(_SUMMED_AS.get(tensor.dtype, tensor.dtype))
            dist.all_reduce(summed)
            if summed is not tensor:
                tensor.copy_(summed)


def gather_objects(value: T) -> list[T]:
    """Return what each process gives, in the order of their ranks; each waits for all.

    Args:
        value: Anything that can be pickled, small.

    Returns:
        One value for each rank.
    """
    if num_ranks() == 1:
        return [value]
    values: list[Any] = [None] * num_ranks()
    dist.all_gather_object(values, value)
    return values


def on_first_rank(function: Callable[[], T]) -> T:
    """Call a function in the first process only, while the others wait; each gets its result, or raises its error.

    Args:
        function: Its result and its errors must be such as can be pickled.

    Returns:
        What the function returned on the first rank.

    Examples:
        >>> on_first_rank(lambda: "written once")
        'written once'
    """
    if num_ranks() == 1:
        return function()
    outcome: list[Any] = [None, None]
    if rank() == 0:
        try:
            outcome[0] = function()
        except Exception as error:
            outcome[1] = error
    dist.broadcast_object_list(outcome, src=0)
    result, failure = outcome
    if failure is not None:
        raise failure
    return result  # type: ignore[no-any-return]
