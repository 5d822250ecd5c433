"""Pooling of the output of a network: feature maps or tokens to one feature vector for each image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

POOLINGS = ("avg", "max", "cls")


def pooled_features(output: Any, pooling: str | None, name: str) -> Tensor:
    """Return features `(N, D)`.

    Args:
        output: Features `(N, D)`, tokens `(N, T, D)` or feature maps `(N, D, ...)`, or a mapping or object that has
            them as `last_hidden_state`, as Hugging Face encoders return.
        pooling: `"avg"`, `"max"` or `"cls"`; None for the features as they are, or the mean over tokens or positions.
        name: Name of the network for errors.

    Raises:
        TypeError: If there is no tensor.
        ValueError: If the output cannot be pooled in this way.
    """
    if not isinstance(output, Tensor):
        found = output.get("last_hidden_state") if isinstance(output, Mapping) else None
        found = getattr(output, "last_hidden_state", None) if found is None else found
        if not isinstance(found, Tensor):
            raise TypeError(
                "`model` must return a tensor of features, or an object with the tensor `last_hidden_state`, but "
                f"{name} returns {type(output).__name__}. Wrap it in a module that returns the features only."
            )
        output = found
    return _pooled(output, pooling, name)


def _pooled(output: Tensor, pooling: str | None, name: str) -> Tensor:
    shape = tuple(output.shape)
    if output.ndim == 3:
        return _reduced(output, 1, pooling)
    if output.ndim > 3:
        if pooling == "cls":
            raise ValueError(
                f"`pooling='cls'` requires tokens (N, T, D), but {name} returns feature maps {shape}: use 'avg' or "
                "'max'."
            )
        return _reduced(output.flatten(2), 2, pooling)
    if output.ndim < 2:
        raise ValueError(
            f"`model` must return features (N, D), tokens (N, T, D) or feature maps (N, D, ...), but {name} returns "
            f"{shape}."
        )
    if pooling is not None:
        raise ValueError(
            f"`pooling={pooling!r}` requires feature maps (N, D, H, W) or tokens (N, T, D), but {name} returns "
            f"{shape}: remove its own pooling, or use `pooling=None`."
        )
    return output


def _reduced(output: Tensor, dim: int, pooling: str | None) -> Tensor:
    if pooling == "cls":
        return output.select(dim, 0)
    return output.amax(dim) if pooling == "max" else output.mean(dim)
