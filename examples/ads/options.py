"""Command-line options from the fields of a dataclass, and the saved options of a run that is resumed."""

from __future__ import annotations

import argparse
import json
import types
from collections.abc import Mapping
from dataclasses import MISSING, field, fields
from math import isfinite
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from .files import is_locked

ConfigT = TypeVar("ConfigT")

RUNS = Path("runs")
LOCK = ".lock"
_NOT_SAVED = {"output", "resume"}
_CAN_CHANGE = _NOT_SAVED | {"num_workers", "device", "cache", "on_bad_image"}


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


def parse(config_class: type[ConfigT], argv: list[str] | None = None) -> ConfigT:
    """Parse the command line into a configuration; with `--resume`, add the options of the run to resume.

    Args:
        config_class: A dataclass of `option` fields of type bool, int, float, str, Path, Literal, tuples of these, or
            one of these or None. Its docstring is the description of the program.
        argv: The arguments; by default those of the program.

    Returns:
        The configuration.

    Raises:
        ValueError: If options contradict each other or those of the run to resume.
        OSError: If there is no run to resume.
    """
    parser = argparse.ArgumentParser(
        description=config_class.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,  # so that the result contains only the options that are passed
    )
    hints = get_type_hints(config_class)
    for item in fields(config_class):  # type: ignore[arg-type]
        default = None if item.default is MISSING else item.default
        suffix = "" if default is None or default is False or default == () else f" (default: {default})"
        parser.add_argument(
            flag(item.name),
            required=item.default is MISSING,
            help=item.metadata["help"] + suffix,
            **_argument(hints[item.name]),
        )
    passed = vars(parser.parse_args(argv))
    if not passed.get("resume"):
        return config_class(**passed)
    options = add_saved_options(config_class, passed)
    try:
        return config_class(**options)
    except ValueError as error:
        raise ValueError(f"The run in {options['output']} cannot be resumed with its config.json: {error}") from error


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


def add_saved_options(config_class: type[Any], passed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of the run to resume.

    Args:
        config_class: The dataclass of the options; its `example` is the prefix of run folders.
        passed: The options of the command line. `--device`, `--cache`, `--num-workers` and `--on-bad-image` replace the
            saved ones; all others must be equal to them.

    Returns:
        The options for `config_class`, with the folder of the run as `output`.

    Raises:
        FileNotFoundError: If there is no run to resume.
        ValueError: If an option contradicts the run, or its `config.json` cannot be read.
    """
    folder = passed.get("output") or _latest_unfinished(config_class.example)
    saved = read_options(config_class, folder)
    for name, value in passed.items():
        if name not in _CAN_CHANGE and saved.get(name, value) != value:
            raise ValueError(
                f"The run in {folder} was started with {flag(name)} {saved[name]}, not {value}: omit the option to "
                "resume it, or start another run."
            )
    return saved | dict(passed) | {"output": folder}


def read_options(config_class: type[Any], folder: Path) -> dict[str, Any]:
    """Read the options of a run, without `--output` and `--resume`, from its `config.json`.

    Args:
        config_class: The dataclass of the options.
        folder: The folder of the run.

    Returns:
        The options, as arguments of `config_class`.

    Raises:
        FileNotFoundError: If there is no `config.json`.
        ValueError: If it cannot be read, or belongs to another program.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"There is no run in {folder} to resume: {path} does not exist.")
    wrong = f"{path} is not a configuration of a run of {config_class.example}.py"
    try:
        options = json.loads(path.read_bytes())["options"].items()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{wrong} ({type(error).__name__}: {error}). Restore the file, or start another run."
        ) from error
    known = {item.name for item in fields(config_class)}
    unknown = [name for name, _ in options if name not in known]
    if unknown:
        raise ValueError(f"{wrong}: there is no option {flag(unknown[0])}. Start another run.")
    try:
        return {name: _from_json(config_class, name, value) for name, value in options if name not in _NOT_SAVED}
    except ValueError as error:
        raise ValueError(f"{wrong}: {error} Restore the file, or start another run.") from error


def _latest_unfinished(example: str) -> Path:
    started = sorted(path.parent for path in RUNS.glob(f"{example}-*/config.json"))
    unfinished = [folder for folder in started if not (folder / "report.md").exists()]
    idle = [folder for folder in unfinished if not is_locked(folder / LOCK)]
    if not idle:
        raise FileNotFoundError(
            f"There is no run under {RUNS} to resume: {len(started) - len(unfinished)} are finished, "
            f"{len(unfinished)} are running. Pass the folder of another run with --output."
        )
    return idle[-1]


def _argument(hint: Any) -> dict[str, Any]:
    """Return the arguments of `add_argument` for a field of this type."""
    hint = _without_none(hint)
    if hint is bool:
        return {"action": "store_true"}
    if get_origin(hint) is Literal:
        return {"choices": get_args(hint)}
    if get_origin(hint) is tuple:
        return {"type": _tuple_of(get_args(hint)[0]), "metavar": "A,B,..."}
    return {"type": hint, "metavar": {Path: "PATH", str: "NAME"}.get(hint, hint.__name__.upper())}


def _from_json(config_class: type[Any], name: str, value: Any) -> Any:
    """Convert a value read from JSON to the type of a field; raise ValueError if it has another type."""
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
