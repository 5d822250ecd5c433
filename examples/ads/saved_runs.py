"""The runs on disk: their options, their states, and the table of all runs. Nothing here imports torch."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import chain
from pathlib import Path
from typing import Any

from common.tables import markdown_table

from .config import Config
from .locks import is_locked
from .options import flag, from_json

RUNS = Path("runs")
LOCK = ".lock"
PROGRAM = "ads"
"""Marks the `config.json` of this application, and begins the names of its run folders."""
_NOT_SAVED = {"list_runs", "output", "resume"}
_CAN_CHANGE = _NOT_SAVED | {"num_workers", "device", "cache", "on_bad_image"}
_NOT_LISTED = _CAN_CHANGE | {
    *("image_batch_size", "annotations", "label_list", "image_root", "images", "labels", "synthetic_images"),
    *("method", "compare", "experiments"),
}
_FIGURES = {"map": "mAP", "macro_f1_chosen": "macro F1*", "ndcg_at_10": "NDCG@10"}


@dataclass(frozen=True)
class SavedRun:
    """A run on disk.

    Attributes:
        folder: Its folder.
        started: When it was started, ISO 8601 in local time.
        options: The options of its `config.json`, as JSON values.
    """

    folder: Path
    started: str
    options: Mapping[str, Any]

    @property
    def state(self) -> str:
        """`finished`, `running`, `unfinished`, or `nothing computed` for a start that ended before its first result."""
        if is_locked(self.folder / LOCK):
            return "running"
        if (self.folder / "report.md").exists():
            return "finished"
        return "unfinished" if has_computed(self.folder) else "nothing computed"


def saved_runs() -> list[SavedRun]:
    """Return the runs in the folder `runs`, the oldest first; folders of other programs are left out."""
    runs = [run for path in RUNS.glob("*/config.json") if (run := _read_run(path)) is not None]
    return sorted(runs, key=lambda run: (run.started, run.folder.name))


def has_computed(folder: Path) -> bool:
    """Return whether a run, or one of the runs in its subfolders, has computed a feature or written a checkpoint."""
    return any(
        path.suffix == ".pt" or path.name == "split.json" or (path.name == "config.json" and _has_features(path))
        for path in content_of(folder)
    )


def content_of(folder: Path) -> Iterator[Path]:
    """List a folder and its subfolders, the two levels to which a run writes files."""
    return chain(folder.glob("*"), folder.glob("*/*"))


def options_to_resume(passed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of the run to resume: the one in `output`, by default the newest that is unfinished.

    Args:
        passed: The options of the command line. `--device`, `--cache`, `--num-workers` and `--on-bad-image` replace the
            saved ones; all others must be equal to them.

    Returns:
        The options for `Config`, with the folder of the run as `output`.

    Raises:
        FileNotFoundError: If there is no run to resume.
        ValueError: If an option contradicts the run, or its `config.json` cannot be read.
    """
    folder = passed.get("output") or _newest_unfinished()
    saved = read_options(folder)
    for name, value in passed.items():
        if name not in _CAN_CHANGE and saved.get(name, value) != value:
            raise ValueError(
                f"The run in {folder} was started {_with(name, saved[name])}, not {_with(name, value)}: omit the "
                "option to resume it, or start another run."
            )
    return saved | dict(passed) | {"output": folder}


def read_options(folder: Path) -> dict[str, Any]:
    """Read the options of a run, without `--output` and `--resume`, from its `config.json`.

    Args:
        folder: The folder of the run.

    Returns:
        The options, as arguments of `Config`.

    Raises:
        FileNotFoundError: If there is no `config.json`.
        ValueError: If it cannot be read, or belongs to another program.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"There is no run in {folder} to resume: {path} does not exist.")
    wrong = f"{path} is not a configuration of a run of this program"
    try:
        options = json.loads(path.read_bytes())["options"].items()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{wrong} ({type(error).__name__}: {error}). Restore the file, or start another run."
        ) from error
    try:
        return {name: from_json(Config, name, value) for name, value in options if name not in _NOT_SAVED}
    except ValueError as error:
        raise ValueError(f"{wrong}: {error} Restore the file, or start another run.") from error


def table_of_runs() -> str:
    """Return a table of the runs under `runs/`, with a line for each run of a comparison."""
    rows = []
    defaults = {item.name: item.default for item in fields(Config)}
    for run in saved_runs():
        is_one = not run.options.get("compare") and run.options.get("experiments") == "one"
        method = run.options["method"] if is_one else "all" if run.options.get("compare") else "paper's runs"
        rows.append(_row(run, run.folder.name, run.state, method, defaults))
        if not is_one:
            parts = [part for path in run.folder.glob("*/config.json") if (part := _read_run(path)) is not None]
            for part in sorted(parts, key=lambda part: (part.started, part.folder.name)):
                state = "running" if run.state == "running" and part.state != "finished" else part.state
                rows.append(_row(part, f"  {part.folder.name}", state, part.options["method"], run.options))
    if not rows:
        return f"There are no runs under {RUNS}/."
    heads = ["run", "started", "state", "images", "method", *_FIGURES.values(), "settings"]
    notes = (
        "mAP, macro F1* (at thresholds chosen on the validation part) and NDCG@10 are those of the method on the test "
        "part; the report of a run explains them. Settings: the options that differ from the defaults, or from those "
        "of the comparison."
    )
    return f"{markdown_table(heads, rows, left=(*range(5), len(heads) - 1))}\n\n{notes}"


def _with(name: str, value: Any) -> str:
    """State how an option was given: `without --lr`, `with --lr 0.1`, `with --dry-run`."""
    if value is None or value is False or value == ():
        return f"without {flag(name)}"
    return f"with {_shown(name, value)}"


def _shown(name: str, value: Any) -> str:
    """Write an option as on the command line."""
    if value is True:
        return flag(name)
    if name == "exclude_columns":
        return f"{flag(name)} {shlex.join(value)}"
    return f"{flag(name)} {','.join(map(str, value)) if isinstance(value, list | tuple) else value}"


def _newest_unfinished() -> Path:
    states = {run.folder: run.state for run in saved_runs()}
    unfinished = [folder for folder, state in states.items() if state == "unfinished"]
    if not unfinished:
        counts = {state: list(states.values()).count(state) for state in ("finished", "running", "nothing computed")}
        raise FileNotFoundError(
            f"There is no run under {RUNS} to resume: {counts['finished']} are finished, {counts['running']} are "
            f"running, {counts['nothing computed']} have computed nothing. Pass the folder of another run with "
            "--output."
        )
    return unfinished[-1]


def _read_run(path: Path) -> SavedRun | None:
    """Read the `config.json` of a run; return None if it belongs to another program or is damaged."""
    content = _read_json(path)
    options, started = content.get("options"), content.get("started")
    if content.get("program") != PROGRAM or not isinstance(options, dict) or not isinstance(started, str):
        return None
    return SavedRun(path.parent, started, options)


def _has_features(path: Path) -> bool:
    resolved = _read_json(path).get("resolved")
    return isinstance(resolved, dict) and "features" in resolved


def _read_json(path: Path) -> dict[str, Any]:
    """Read an object; return an empty one if the file is missing or damaged."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _row(run: SavedRun, name: str, state: str, method: str, usual: Mapping[str, Any]) -> list[str]:
    """Return the cells of a run, with the options that differ from the usual ones."""
    changed = {
        option: value
        for option, value in run.options.items()
        if option not in _NOT_LISTED and value not in (usual.get(option), [])
    }
    source = run.options.get("annotations") or run.options.get("labels")
    metrics = _read_json(run.folder / "metrics.json")
    figures = metrics.get("test", {}).get(metrics.get("title"), {})
    cells = [f"{figures[key]:.3f}" if key in figures else "" for key in _FIGURES]
    images = Path(source).name if source else "synthetic"
    settings = " ".join(_shown(option, value) for option, value in changed.items())
    return [name, run.started.replace("T", " "), state, images, method, *cells, settings]
