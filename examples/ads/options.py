"""A dataclass as a command line: each field is an option, and its `help` is the field's documentation."""

from __future__ import annotations

import argparse
from dataclasses import MISSING, field, fields
from typing import Any, TypeVar, get_type_hints

from .resume import with_saved_options
from .values import argument, flag

ConfigT = TypeVar("ConfigT")


def option(
    default: Any, help: str, *, least: float | None = None, above: float | None = None, most: float | None = None
) -> Any:
    """Make a field with a default, its documentation and, for a number, its range."""
    return field(default=default, metadata={"help": help, "least": least, "above": above, "most": most})


def parse(config_class: type[ConfigT], argv: list[str] | None = None) -> ConfigT:
    """Read a configuration from the command line; with `--resume` from the run that goes on.

    Args:
        config_class: A dataclass of `option` fields of type bool, int, float, str, Path, Literal, tuples of these, or
            one of these or None. Its docstring is the description.
        argv: The arguments; by default those of the program.

    Returns:
        The configuration.

    Raises:
        ValueError: If the options do not go together, or not with those of the run that goes on.
        OSError: If there is no run to resume.
    """
    parser = argparse.ArgumentParser(
        description=config_class.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,  # so that what is given can be told from what is not
    )
    hints = get_type_hints(config_class)
    for item in fields(config_class):  # type: ignore[arg-type]
        default = None if item.default is MISSING else item.default
        shown = "" if default is None or default is False or default == () else f" (default: {default})"
        parser.add_argument(
            flag(item.name),
            required=item.default is MISSING,
            help=item.metadata["help"] + shown,
            **argument(hints[item.name]),
        )
    given = vars(parser.parse_args(argv))
    if not given.get("resume"):
        return config_class(**given)
    options = with_saved_options(config_class, given)
    try:
        return config_class(**options)
    except ValueError as error:
        raise ValueError(f"The run in {options['output']} cannot go on with its config.json: {error}") from error
