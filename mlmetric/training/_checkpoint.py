"""The file of a stage: whole or not there, with a digest that shows whether it is still what was written.

It is an archive as `torch.save` writes it, so `torch.load` reads it; the digest is the archive's comment.
"""

from __future__ import annotations

import glob
import hashlib
import io
import struct
from pathlib import Path
from typing import Any

import torch

from mlmetric._atomic_write import atomic_write

_NO_COMMENT = struct.pack("<H", 0)
"""The end of a zip archive is the length of its comment, and the comment."""
_DIGEST_COMMENT = struct.pack("<H", 64)


def serialized(state: dict[str, Any]) -> bytes:
    """Return what `torch.save` writes."""
    content = io.BytesIO()
    torch.save(state, content)
    return content.getvalue()


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a state whole or not at all. One process at a time may write a checkpoint.

    Raises:
        OSError: If the file cannot be written; what was there before is kept.
    """
    content = serialized(state)
    for left in path.parent.glob(f"{glob.escape(path.name)}.{'?' * 32}.tmp"):  # by a run that was killed as it wrote
        left.unlink(missing_ok=True)
    digest = hashlib.sha256(content).hexdigest().encode()
    try:
        with atomic_write(path) as file:
            file.write(content.removesuffix(_NO_COMMENT) + _DIGEST_COMMENT + digest)
    except OSError as error:
        raise OSError(
            error.errno,
            f"The checkpoint {error.strerror} Free some space, or choose another folder, and resume.",
        ) from error


def read_checkpoint(path: Path, device: torch.device) -> dict[str, Any] | None:
    """Read a state onto a device; None if there is no file.

    Raises:
        OSError: If it cannot be read, or does not hold what was written.
    """
    if not path.exists():
        return None
    if not path.is_file():
        raise OSError(f"The checkpoint {path} is not a regular file: choose another path.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise OSError(error.errno, f"The checkpoint {path} cannot be read: {error.strerror}.") from error
    archive, comment = content[:-66] + _NO_COMMENT, content[-66:]
    if comment != _DIGEST_COMMENT + hashlib.sha256(archive).hexdigest().encode():
        raise OSError(
            f"The checkpoint {path} is damaged, or was not written by this version of mlmetric: its content does not "
            "have the digest that it should. Remove it to train anew."
        )
    state: dict[str, Any] = torch.load(io.BytesIO(archive), map_location=device, weights_only=True)
    return state
