"""Command-line options from the fields of a dataclass, and their values in JSON."""

from __future__ import annotations

import argparse
import inspect
import types
from dataclasses import MISSING, field, fields
from math import isfinite
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def option(
    default: Any, help: str, *, least: float | None = None, above: float | None = None, most: float | None = None
) -> Any:
    """Create a field with a default, a help text and, for a number, a range.

    Args:
        default: The default value.
        help: The help text.
        least: Smallest allowed value.
        above: Exclusive lower bound.
        most: Largest allowed value.
    """
    return field(default=default, metadata={"help": help, "least": least, "above": above, "most": most})


def parse_options(config_class: type[Any], argv: list[str] | None = None) -> dict[str, Any]:
    """Parse the command line.

    Args:
        config_class: A dataclass of `option` fields of type bool, int, float, str, Path, Literal, tuples of these, or
            one of these or None. Its docstring is the description of the program.
        argv: The arguments; by default those of the program.

    Returns:
        The options that were passed, as arguments of `config_class`.
    """
    parser = argparse.ArgumentParser(
        description=inspect.getdoc(config_class),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,  # so that the result contains only the options that are passed
    )
    hints = get_type_hints(config_class)
    for item in fields(config_class):
        default = None if item.default is MISSING else item.default
        suffix = "" if default is None or default is False or default == () else f" (default: {default})"
        parser.add_argument(
            flag(item.name),
            required=item.default is MISSING,
            help=item.metadata["help"] + suffix,
            **_argument(hints[item.name]),
        )
    passed = vars(parser.parse_args(argv))
    return {name: tuple(value) if isinstance(value, list) else value for name, value in passed.items()}


def flag(name: str) -> str:
    """Return the command-line option of a field: `--batch-size` for `batch_size`."""
    return f"--{name.replace('_', '-')}"


def check_ranges(config: Any) -> None:
    """Check that each number of a configuration is in the range of its field.

    Args:
        config: A dataclass of `option` fields. None is not checked; each number of a tuple is.

    Raises:
        ValueError: If a number is not finite or out of range; the message names the option.
    """
    for item in fields(config):
        value = getattr(config, item.name)
        least, above, most = (item.metadata.get(bound) for bound in ("least", "above", "most"))
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, bool) or not isinstance(number, int | float):
                continue
            if isinstance(number, int) and most is None and number >= 2**31:
                most = 2**31 - 1
            bounds = {"at least": least, "above": above, "at most": most}
            expected = [f"{text} {bound}" for text, bound in bounds.items() if bound is not None]
            if (
                not isfinite(number)
                or (least is not None and number < least)
                or (above is not None and number <= above)
                or (most is not None and number > most)
            ):
                expected += ["finite"] * (not isfinite(number))
                raise ValueError(f"{flag(item.name)} must be {' and '.join(expected)}, got {number}.")


def _argument(hint: Any) -> dict[str, Any]:
    """Return the arguments of `add_argument` for a field of this type."""
    hint = _without_none(hint)
    if hint is bool:
        return {"action": "store_true"}
    if get_origin(hint) is Literal:
        return {"choices": get_args(hint)}
    if get_origin(hint) is tuple and get_args(hint)[0] is str:  # texts, which may contain commas
        return {"nargs": "+", "metavar": "NAME"}
    if get_origin(hint) is tuple:
        return {"type": _tuple_of(get_args(hint)[0]), "metavar": "A,B,..."}
    return {"type": hint, "metavar": {Path: "PATH", str: "NAME"}.get(hint, hint.__name__.upper())}


def from_json(config_class: type[Any], name: str, value: Any) -> Any:
    """Convert a value read from JSON to the type of a field.

    Args:
        config_class: A dataclass of `option` fields.
        name: The name of a field.
        value: A value that `json` read.

    Returns:
        The value in the type of the field.

    Raises:
        ValueError: If there is no such field, or it has another type.
    """
    if name not in (item.name for item in fields(config_class)):
        raise ValueError(f"there is no option {flag(name)}.")
    annotation = get_type_hints(config_class)[name]
    hint = _without_none(annotation)
    if value is None and hint is not annotation:
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


def _without_none(hint: Any) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        return next(choice for choice in get_args(hint) if choice is not type(None))
    return hint


def _tuple_of(kind: Any) -> Any:
    def read(text: str) -> tuple[Any, ...]:
        return tuple(kind(part) for part in text.split(",") if part)

    read.__name__ = f"comma-separated {kind.__name__}"
    return read
