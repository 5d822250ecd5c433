"""The record of a training run as JSON, and values that JSON cannot represent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
from torch import Tensor

from mlmetric._repr import short_repr


def to_json(value: Any) -> Any:
    """Convert a value to JSON.

    Args:
        value: Dictionaries, lists, tuples and sets are converted with their content; arrays and tensors become lists,
            or numbers if they have one value without a dimension; NaN and infinity become None, since JSON cannot
            represent them; other objects become their `repr`.

    Returns:
        Dictionaries with string keys, lists, strings, numbers, booleans and None.
    """
    if isinstance(value, Tensor):
        value = value.detach().cpu().tolist()
    elif isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return utf8(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {utf8(str(key)): to_json(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(part) for part in value]
    if isinstance(value, set | frozenset):
        return sorted((to_json(part) for part in value), key=str)
    return utf8(str(value) if isinstance(value, PurePath) else short_repr(value))


def utf8(text: str) -> str:
    """Return a text in which escapes replace what UTF-8 cannot encode, such as other bytes in the name of a file."""
    return text.encode("utf-8", "backslashreplace").decode()


def thresholds_to_json(thresholds: Tensor) -> list[float | str]:
    """Return float32 thresholds with the fewest digits that identify them; infinities are "inf" and "-inf"."""
    values = thresholds.detach().cpu().float().numpy()
    return [float(str(value)) if np.isfinite(value) else str(value) for value in values]


def thresholds_from_json(values: Any) -> list[float]:
    """Read thresholds that `thresholds_to_json` returned.

    Raises:
        ValueError: If they are not a list of numbers, or one is NaN.
    """
    if not isinstance(values, list):
        raise ValueError(f"`thresholds` must be a list of numbers, got {type(values).__name__}.")
    thresholds = []
    for value in values:
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
        if not is_number and value not in ("inf", "-inf"):
            raise ValueError(f'`thresholds` must be numbers, "inf" or "-inf", got {value!r}.')
        thresholds.append(float(value))
    return thresholds
