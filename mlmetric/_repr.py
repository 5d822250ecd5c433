"""Representations of parameters without memory addresses, for `__repr__` and `extra_repr`."""

from __future__ import annotations

import functools
import inspect
import re
import reprlib
from typing import Any

import torch
from torch import nn

_OMITTED_DEFAULTS = {"collect_stats": False, "embedding_reg_weight": 1, "validate_args": True}
"""Parameters that a module shows only where they have another value."""


def short_repr(value: Any) -> str:
    """Represent a value on one line: a function by its name, an array by its shape, a long list shortened."""
    if isinstance(value, functools.partial):
        keywords = [f"{name}={short_repr(part)}" for name, part in value.keywords.items()]
        return f"partial({', '.join([short_repr(value.func), *map(short_repr, value.args), *keywords])})"
    if isinstance(value, torch.Generator):
        return f"Generator(initial_seed={value.initial_seed()})"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        shape = tuple(value.shape)
        return f"{type(value).__name__.lower()} of {shape[0] if len(shape) == 1 else shape}"
    if hasattr(value, "__qualname__") and hasattr(value, "__name__"):  # functions, methods and classes
        return str(value.__name__)
    text = reprlib.repr(value) if isinstance(value, list | tuple) and len(value) > 6 else repr(value)
    return f"{type(value).__name__}(...)" if "\n" in text or re.search(r"\bat 0x[0-9a-fA-F]+", text) else text


def parameters_repr(module: nn.Module) -> str:
    """Represent the constructor parameters that a module stores as attributes, for `extra_repr`.

    Parameters that are None are omitted, and so are submodules, which torch shows itself.
    """
    shown = []
    for name in inspect.signature(type(module)).parameters:
        value = getattr(module, name, None)
        is_default = name in _OMITTED_DEFAULTS and value == _OMITTED_DEFAULTS[name]
        if value is not None and not isinstance(value, nn.Module) and not is_default:
            shown.append(f"{name}={short_repr(value)}")
    return ", ".join(shown)
