"""A dataclass as a command line: each field is an option, and its `help` is the field's documentation."""

from __future__ import annotations

import argparse
import types
from dataclasses import MISSING, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

ConfigT = TypeVar("ConfigT")


def option(default: Any, help: str) -> Any:
    """Make a field with a default and its documentation."""
    return field(default=default, metadata={"help": help})


def parse(config_class: type[ConfigT], argv: list[str] | None = None) -> ConfigT:
    """Read a configuration from the command line.

    Args:
        config_class: A dataclass of `option` fields of type bool, int, float, str, Path, Literal, tuples of these, or
            one of these or None. Its docstring is the description.
        argv: The arguments; by default those of the program.

    Returns:
        The configuration.
    """
    parser = argparse.ArgumentParser(
        description=config_class.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    hints = get_type_hints(config_class)
    for item in fields(config_class):  # type: ignore[arg-type]
        default = None if item.default is MISSING else item.default
        shown = "" if default is None or default is False or default == () else f" (default: {default})"
        parser.add_argument(
            f"--{item.name.replace('_', '-')}",
            default=default,
            required=item.default is MISSING,
            help=item.metadata["help"] + shown,
            **_argument(hints[item.name]),
        )
    return config_class(**vars(parser.parse_args(argv)))


def _argument(hint: Any) -> dict[str, Any]:
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(choice for choice in get_args(hint) if choice is not type(None))
    if hint is bool:
        return {"action": "store_true"}
    if get_origin(hint) is Literal:
        return {"choices": get_args(hint)}
    if get_origin(hint) is tuple:
        return {"type": _tuple_of(get_args(hint)[0]), "metavar": "A,B,..."}
    return {"type": hint, "metavar": {Path: "PATH", str: "NAME"}.get(hint, hint.__name__.upper())}


def _tuple_of(kind: Any) -> Any:
    def read(text: str) -> tuple[Any, ...]:
        return tuple(kind(part) for part in text.split(",") if part)

    read.__name__ = f"comma-separated {kind.__name__}"
    return read
