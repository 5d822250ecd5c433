"""Send tensors through a pipe between processes, and read them into their memory without a copy in between.

A pickle of a batch would be copied three times in the process that receives it, which could then not keep a GPU busy.
"""

from __future__ import annotations

import os
from multiprocessing.connection import Connection

import torch
from torch import Tensor

_IS_STREAM = hasattr(os, "readv")  # on Windows, connections are not file descriptors


def send_tensor(connection: Connection, tensor: Tensor) -> None:
    """Send the bytes of a contiguous tensor on the CPU; the receiver must know its dtype and shape.

    Raises:
        OSError: If the other end is closed.
    """
    content = _bytes_of(tensor)
    if not _IS_STREAM:
        connection.send_bytes(content)
        return
    while len(content) > 0:
        content = content[os.write(connection.fileno(), content) :]


def receive_tensor(connection: Connection, dtype: torch.dtype, shape: torch.Size, *, pin_memory: bool) -> Tensor:
    """Receive a tensor of a dtype and shape.

    Args:
        connection: The pipe.
        dtype: The dtype.
        shape: The shape.
        pin_memory: Whether its memory is pinned.

    Returns:
        The tensor, on the CPU.

    Raises:
        EOFError: If the other end is closed before all bytes were sent.
        OSError: If the pipe cannot be read.
    """
    tensor = torch.empty(shape, dtype=dtype, pin_memory=pin_memory)
    content = _bytes_of(tensor)
    if not _IS_STREAM:
        connection.recv_bytes_into(content)
        return tensor
    while len(content) > 0:
        received = os.readv(connection.fileno(), [content])
        if received == 0:
            raise EOFError
        content = content[received:]
    return tensor


def _bytes_of(tensor: Tensor) -> memoryview:
    """Return the memory of a contiguous tensor."""
    return tensor.flatten().view(torch.uint8).numpy().data
