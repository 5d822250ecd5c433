"""Weights of pretrained networks: state dicts in files, and the error for weights that are not available."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

WEIGHTS_FILES = (".pth", ".pt", ".safetensors")
"""Endings of the names of state-dict files."""
ENDINGS = ".pth, .pt or .safetensors"
_DOWNLOAD_TIMEOUT_SECONDS = 20.0


class WeightsUnavailableError(OSError):
    """Raised if pretrained weights cannot be downloaded or read."""


@dataclass(frozen=True)
class NamedNetwork:
    """A network without its classifier, built from the name of a model.

    Attributes:
        model: The network.
        weights: Description of its weights.
        transform: Preprocessing of an image for these weights.
        feature_size: D, the number of features.
        data_config: timm's description of the preprocessing; None for torchvision.
    """

    model: nn.Module
    weights: str
    transform: Callable[[Any], Tensor]
    feature_size: int
    data_config: dict[str, Any] | None = None


@contextmanager
def download_timeout() -> Iterator[None]:
    """Limit how long a download waits for an answer: torch.hub would wait forever on a network that drops packets."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict without running code from the file.

    Raises:
        ImportError: If the file ends in .safetensors and safetensors is not installed.
        ValueError: If the file contains something else.
        WeightsUnavailableError: If it cannot be read.
    """
    if path.exists() and not path.is_file():  # opening a named pipe would wait for a writer
        raise WeightsUnavailableError(f"The weights file {path} is not a regular file.")
    kind, advice, load = _reader(path)
    try:
        state_dict = load(path)
    except FileNotFoundError as error:
        raise WeightsUnavailableError(f"The weights file {path} does not exist.") from error
    except Exception as error:
        # Damaged files, and files of other formats, raise errors of many types.
        raise WeightsUnavailableError(
            f"The weights file {path} could not be read as {kind} ({type(error).__name__}). Save one with `{advice}`."
        ) from error
    if not isinstance(state_dict, dict):
        raise ValueError(
            f"`weights` must be a file of a state dict, a dict of tensors by name; {path} contains "
            f"{type(state_dict).__name__}."
        )
    for name, value in state_dict.items():
        unusable = _kind_of_weight(name, value)
        if unusable is not None:
            raise ValueError(
                f"`weights` must be a file of a state dict, a dict of tensors by name; {path} has {unusable} for "
                f"{name!r}."
            )
    return state_dict


def load_state_dict(model: nn.Module, state_dict: dict[str, Tensor], source: str) -> None:
    """Load a state dict that must match the network.

    Raises:
        ValueError: If a tensor is missing, does not belong to the network, or has another shape.
    """
    expected = model.state_dict()
    missing = sorted(expected.keys() - state_dict.keys())
    unexpected = sorted(state_dict.keys() - expected.keys())
    mismatched = sorted(
        key for key in expected.keys() & state_dict.keys() if expected[key].shape != state_dict[key].shape
    )
    if missing or unexpected or mismatched:
        first = (missing + unexpected + mismatched)[0]
        raise ValueError(
            f"`weights` {source} do not match {type(model).__name__}: missing tensors: {len(missing)}, "
            f"unexpected: {len(unexpected)}, of another shape: {len(mismatched)}; the first is {first!r}."
        )
    model.load_state_dict(state_dict)


def _reader(path: Path) -> tuple[str, str, Callable[[Path], Any]]:
    """Return the kind of a file, how to save one, and the function that reads it."""
    if path.suffix == ".safetensors":
        try:
            from safetensors.torch import load_file
        except ImportError as error:
            raise ImportError(
                f'{path} is read by safetensors, which is not installed: pip install "mlmetric[timm]".'
            ) from error
        return "safetensors", "safetensors.torch.save_file(model.state_dict(), path)", load_file
    return (
        "a torch state dict",
        "torch.save(model.state_dict(), path)",
        lambda path: torch.load(path, map_location="cpu", weights_only=True),
    )


def _kind_of_weight(name: Any, value: Any) -> str | None:
    """Return why an entry of a state dict is unusable as weights, or None."""
    if not isinstance(name, str):
        return "a name that is not a string"
    if not isinstance(value, Tensor):
        return type(value).__name__
    if value.is_meta:
        return "a tensor without data (device meta)"
    if value.layout is not torch.strided:
        return f"a sparse tensor ({value.layout})"
    return f"a tensor of {value.dtype}" if value.is_quantized or value.is_complex() else None
