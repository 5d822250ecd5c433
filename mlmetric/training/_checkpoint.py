"""The checkpoint file of a stage: written atomically, with a digest that detects damage.

It is an archive written by `torch.save`, so that `torch.load` reads it; the digest is the archive's comment.
"""

from __future__ import annotations

import glob
import io
import math
import struct
from pathlib import Path
from typing import Any

import torch

from mlmetric._atomic_write import atomic_write
from mlmetric._digest import sha256_hex
from mlmetric.training._config import TrainingConfig

_NO_COMMENT = struct.pack("<H", 0)
"""A zip archive ends with the length of its comment, followed by the comment."""
_DIGEST_COMMENT = struct.pack("<H", 64)


def serialize(state: dict[str, Any]) -> bytes:
    """Return a state as the bytes that `torch.save` writes."""
    content = io.BytesIO()
    torch.save(state, content)
    return content.getvalue()


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a state atomically. Only one process at a time may write a checkpoint.

    Raises:
        OSError: If the file cannot be written; an existing file is then unchanged.
    """
    content = serialize(state)
    for temporary in path.parent.glob(f"{glob.escape(path.name)}.{'?' * 32}.tmp"):  # left by a run killed while writing
        temporary.unlink(missing_ok=True)
    digest = sha256_hex([content]).encode()
    try:
        with atomic_write(path) as file:
            file.write(content.removesuffix(_NO_COMMENT) + _DIGEST_COMMENT + digest)
    except OSError as error:
        raise OSError(
            error.errno,
            f"The checkpoint {error.strerror} Free some space, or choose another folder, and resume.",
        ) from error


def read_checkpoint(path: Path, device: torch.device) -> dict[str, Any] | None:
    """Read a state onto a device; return None if the file does not exist.

    Raises:
        OSError: If the file cannot be read or is damaged.
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
    if comment != _DIGEST_COMMENT + sha256_hex([archive]).encode():
        raise OSError(
            f"The checkpoint {path} is damaged, or was not written by this version of mlmetric: the digest of its "
            "content differs from the one that it contains. Remove it to train from scratch."
        )
    state: dict[str, Any] = torch.load(io.BytesIO(archive), map_location=device, weights_only=True)
    return state


def check_progress(
    state: dict[str, Any],
    optimizer: torch.optim.Adam,
    scheduler: torch.optim.lr_scheduler.MultiStepLR,
    config: TrainingConfig,
) -> None:
    """Check that the history, schedule and optimizer of a state agree with each other and with the stage.

    Raises:
        ValueError: If they do not.
        Exception: Any other error that a malformed state causes.
    """
    schedule, epochs = state["scheduler"], [record["epoch"] for record in state["history"]]
    if schedule.keys() != scheduler.state_dict().keys() or epochs != list(range(1, schedule["last_epoch"] + 1)):
        raise ValueError("History and schedule do not match.")
    drops = sum(0 <= epoch <= len(epochs) for epoch in config.lr_drops)
    _check_adam(state["optimizer"], optimizer, lr=config.lr * 0.1**drops, trained=bool(epochs))


def _check_adam(saved: dict[str, Any], optimizer: torch.optim.Adam, *, lr: float, trained: bool) -> None:
    """Check the state of Adam: torch does not, and a fused step writes out of bounds if a tensor is too short."""
    settings = [
        [(name, value) for name, value in sorted(group.items()) if name not in ("lr", "initial_lr", "fused")]
        for group in (*saved["param_groups"], *optimizer.state_dict()["param_groups"])
    ]
    if settings[: len(settings) // 2] != settings[len(settings) // 2 :]:
        raise ValueError("The settings of Adam differ.")
    if not all(math.isclose(group["lr"], lr) for group in saved["param_groups"]):
        raise ValueError("The learning rate differs.")
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    if trained and weights and not saved["state"]:
        raise ValueError("Adam has no state.")
    for number, state in saved["state"].items():
        step, *moments = (state[name] for name in ("step", "exp_avg", "exp_avg_sq"))
        is_valid = all(
            moment.shape == weights[number].shape
            and moment.dtype == weights[number].dtype
            and not bool(moment.isnan().any())  # a squared gradient can overflow in a valid run
            for moment in moments
        )
        if not is_valid or step.shape != () or not 0 < float(step) < math.inf or bool((moments[1] < 0).any()):
            raise ValueError(f"The state of Adam for weight {number} is malformed.")
