"""The run that `--resume` goes on with: which one it is, and with which options."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from .locks import is_locked
from .values import flag, from_json

RUNS = Path("runs")
LOCK = ".lock"
_OF_EACH_START = {"output", "resume"}
_MAY_DIFFER = _OF_EACH_START | {"num_workers", "device", "cache", "on_bad_image"}


def with_saved_options(config_class: type[Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of the run to resume.

    Args:
        config_class: The dataclass of the options; its `example` names the runs.
        given: The options of the command line. Those that say where a run is computed (the device, the cache, ...) or
            what to do with bad images replace the saved ones; any other must be as it was.

    Returns:
        The options for `config_class`, with the folder of the run as `output`.

    Raises:
        FileNotFoundError: If there is no run to resume.
        ValueError: If an option contradicts the run, or its `config.json` cannot be read.
    """
    folder = given.get("output") or _latest_unfinished(config_class.example)
    saved = read_options(config_class, folder)
    for name, value in given.items():
        if name not in _MAY_DIFFER and saved.get(name, value) != value:
            raise ValueError(
                f"The run in {folder} was started with {flag(name)} {saved[name]}, not {value}: leave the option out "
                "to resume it, or start another run."
            )
    return saved | dict(given) | {"output": folder}


def read_options(config_class: type[Any], folder: Path) -> dict[str, Any]:
    """Read the options of a run, but for those of each start, from its `config.json`.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it cannot be read, or is of another program.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"There is no run in {folder} to resume: {path} does not exist.")
    wrong = f"{path} is not a configuration of a run of {config_class.example}.py"
    try:
        options = json.loads(path.read_bytes())["options"].items()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{wrong} ({type(error).__name__}: {error}). Put the file back, or start another run."
        ) from error
    known = {item.name for item in fields(config_class)}
    unknown = [name for name, _ in options if name not in known]
    if unknown:
        raise ValueError(f"{wrong}: there is no option {flag(unknown[0])}. Start another run.")
    try:
        return {name: from_json(config_class, name, value) for name, value in options if name not in _OF_EACH_START}
    except ValueError as error:
        raise ValueError(f"{wrong}: {error} Put the file back, or start another run.") from error


def _latest_unfinished(example: str) -> Path:
    started = sorted(path.parent for path in RUNS.glob(f"{example}-*/config.json"))
    unfinished = [folder for folder in started if not (folder / "report.md").exists()]
    idle = [folder for folder in unfinished if not is_locked(folder / LOCK)]
    if not idle:
        raise FileNotFoundError(
            f"There is no run under {RUNS} to resume: {len(started) - len(unfinished)} are finished, "
            f"{len(unfinished)} are running. Name another by --output."
        )
    return idle[-1]
