"""What tells runs apart: losses, miners and rows as text, for a checkpoint and between processes."""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


def describe(part: Any) -> str:
    """Name a loss, a miner, or what one is made of, with all that its constructors were given."""
    if isinstance(part, Tensor):
        return f"Tensor({digest(part)[:16]})"
    if inspect.isroutine(part) or isinstance(part, type):
        return f"{part.__module__}.{part.__qualname__}"
    if part is None or isinstance(part, int | float | str | torch.Generator):
        return type(part).__name__ if isinstance(part, torch.Generator) else repr(part)
    if isinstance(part, functools.partial):
        keywords = (f"{name}={describe(value)}" for name, value in part.keywords.items())
        return f"partial({', '.join([describe(part.func), *map(describe, part.args), *keywords])})"
    if isinstance(part, np.ndarray):
        return f"array({digest(torch.from_numpy(np.ascontiguousarray(part)))[:16]})"
    if isinstance(part, np.generic):
        return repr(part.item())
    if isinstance(part, Mapping):
        return f"{type(part).__name__}({', '.join(f'{name!r}: {describe(value)}' for name, value in part.items())})"
    if isinstance(part, list | tuple):
        return f"{type(part).__name__}({', '.join(map(describe, part))})"
    names = {name: None for cls in type(part).__mro__[:-1] for name in _parameters(cls)}
    given = (f"{name}={describe(getattr(part, name))}" for name in names if hasattr(part, name))
    return f"{type(part).__name__}({', '.join(given)})"


def _parameters(cls: type) -> list[str]:
    """Name the parameters of a constructor; of a builtin base, such as dict, none are known."""
    try:
        return list(inspect.signature(cls).parameters)
    except ValueError:
        return []


def digest(rows: Tensor) -> str:
    values = rows.detach().cpu().contiguous().flatten().view(torch.uint8)
    return hashlib.sha256(values.numpy().data).hexdigest()
