"""The value of an option: read from text, taken back from JSON, and held to its range."""

from __future__ import annotations

import types
from dataclasses import fields
from math import isfinite
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def flag(name: str) -> str:
    """Return the option of a field: `batch_size` is `--batch-size`."""
    return f"--{name.replace('_', '-')}"


def argument(hint: Any) -> dict[str, Any]:
    """Return what `argparse` is given for a field of this type."""
    hint = _without_none(hint)
    if hint is bool:
        return {"action": "store_true"}
    if get_origin(hint) is Literal:
        return {"choices": get_args(hint)}
    if get_origin(hint) is tuple:
        return {"type": _tuple_of(get_args(hint)[0]), "metavar": "A,B,..."}
    return {"type": hint, "metavar": {Path: "PATH", str: "NAME"}.get(hint, hint.__name__.upper())}


def from_json(config_class: type[Any], name: str, value: Any) -> Any:
    """Return the value of a field as JSON has it in the field's own type.

    Args:
        config_class: The dataclass.
        name: Of the field.
        value: None, a boolean, a number, a string or a list.

    Returns:
        The value.

    Raises:
        ValueError: If the value is of another type.
    """
    given = get_type_hints(config_class)[name]
    hint = _without_none(given)
    if value is None and hint is not given:
        return None
    if get_origin(hint) is Literal and value in get_args(hint):
        return value
    if get_origin(hint) is tuple and isinstance(value, list) and all(type(part) is get_args(hint)[0] for part in value):
        return tuple(value)
    if hint in (bool, int, float, str) and (type(value) is hint or (hint is float and type(value) is int)):
        return hint(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    raise ValueError(f"{flag(name)} cannot be {value!r}.")


def check_ranges(config: Any) -> None:
    """Hold each number of a configuration to the range of its field.

    Args:
        config: A dataclass of `option` fields. What is None is not looked at; of a tuple each number is.

    Raises:
        ValueError: If a number is not finite or outside its range; the message names the option.
    """
    for item in fields(config):
        value = getattr(config, item.name)
        least, above, most = (item.metadata.get(bound) for bound in ("least", "above", "most"))
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, bool) or not isinstance(number, int | float):
                continue
            expected = [f"at least {least}"] * (least is not None) + [f"above {above}"] * (above is not None)
            expected += [f"at most {most}"] * (most is not None)
            if isinstance(number, int) and most is None and number >= 2**31:
                most = 2**31 - 1
                expected.append(f"at most {most}")
            if (
                not isfinite(number)
                or (least is not None and number < least)
                or (above is not None and number <= above)
                or (most is not None and number > most)
            ):
                wanted = " and ".join([*expected, *["finite"] * (not isfinite(number))])
                raise ValueError(f"{flag(item.name)} must be {wanted}, got {number}.")


def _without_none(hint: Any) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        return next(choice for choice in get_args(hint) if choice is not type(None))
    return hint


def _tuple_of(kind: Any) -> Any:
    def read(text: str) -> tuple[Any, ...]:
        return tuple(kind(part) for part in text.split(",") if part)

    read.__name__ = f"comma-separated {kind.__name__}"
    return read
