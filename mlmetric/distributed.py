"""Communication between the processes of torch.distributed, for losses that compare all rows of a distributed batch.

Without an initialised process group there is one process, of rank 0, and no communication.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

__all__ = ["gather_objects", "gather_rows", "num_ranks", "on_first_rank", "rank", "sum_over_ranks"]

T = TypeVar("T")


def rank() -> int:
    """Return the rank of this process, counted from 0; 0 without a process group."""
    return dist.get_rank() if num_ranks() > 1 else 0


def num_ranks() -> int:
    """Return the number of processes; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather_rows(rows: Tensor) -> Tensor:
    """Concatenate the rows of all processes, in the order of ranks; gradients flow to the rows of this process.

    Ranks may have different numbers of rows, or none, as in the last batch of an epoch. The wrappers of
    pytorch-metric-learning support equal numbers only (`drop_last=True`): with unequal numbers, the gloo backend aborts
    the process.

    On each rank, compute the triplets and the loss of the whole batch, with the same random numbers. The backward pass
    computes the gradients of the rank's own rows only; their sum over ranks is the gradient of the whole batch.
    `DistributedDataParallel` averages gradients over ranks, so multiply the loss by `num_ranks()`.

    Args:
        rows: Shape `(N, ...)`, embeddings or labels, any dtype. All dimensions except the first must be the
            same on each rank.

    Returns:
        Shape `(sum of all N, ...)`.

    Raises:
        ValueError: If the shapes differ in any dimension except the first, or the dtypes differ.

    Examples:
        >>> import torch
        >>> from mlmetric.distributed import gather_rows
        >>> gather_rows(torch.tensor([[1.0], [2.0]]))  # in one process
        tensor([[1.],
                [2.]])
    """
    if num_ranks() == 1:
        return rows
    shapes, dtypes = map(list, zip(*gather_objects((tuple(rows.shape), rows.dtype)), strict=True))
    if len({shape[1:] for shape in shapes}) > 1:
        raise ValueError(f"`rows` must have the same shape on each rank except in the first dimension, got {shapes}.")
    if len(set(dtypes)) > 1:
        raise ValueError(f"`rows` must have the same dtype on each rank, got {dtypes}.")
    padded = rows.new_zeros(max(shape[0] for shape in shapes), *rows.shape[1:])
    padded[: len(rows)] = rows.detach()
    # As bytes, which every backend supports; gloo supports neither int16 nor unsigned integers beyond uint8.
    sent = padded.view(-1).view(torch.uint8)
    received = [torch.empty_like(sent) for _ in shapes]
    dist.all_gather(received, sent)
    parts = [part.view(rows.dtype).view_as(padded)[: shape[0]] for part, shape in zip(received, shapes, strict=True)]
    parts[rank()] = rows
    return torch.cat(parts)


def sum_over_ranks(tensors: Iterable[Tensor]) -> None:
    """Replace each tensor by its sum over all processes, in place.

    Args:
        tensors: Tensors of the same shapes and dtypes on each rank, of dtypes that the backend can add up, such as
            float32.
    """
    if num_ranks() > 1:
        for tensor in tensors:
            dist.all_reduce(tensor)


def gather_objects(value: T) -> list[T]:
    """Collect an object from each process; each process waits for all others.

    Args:
        value: A small object that can be pickled.

    Returns:
        The objects of all processes, in the order of ranks.
    """
    if num_ranks() == 1:
        return [value]
    values: list[Any] = [None] * num_ranks()
    dist.all_gather_object(values, value)
    return values


def on_first_rank(function: Callable[[], T]) -> T:
    """Call a function in the first process only, while the others wait.

    Args:
        function: A function whose result and errors can be pickled.

    Returns:
        The result of the function on the first rank.

    Raises:
        Exception: The exception that the function raises, in each process.

    Examples:
        >>> from mlmetric.distributed import on_first_rank
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
