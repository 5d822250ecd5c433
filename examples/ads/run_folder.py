"""The folder of a run: locked while the run is active, and removed if the run fails before its first result."""

from __future__ import annotations

import json
import platform
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

from common.files import UNFINISHED, write_atomically
from mlmetric.distributed import on_first_rank, rank

from .config import Config
from .locks import locked
from .saved_runs import LOCK, PROGRAM, RUNS, content_of, has_computed, read_options

_PACKAGES = ("mlmetric", "torch", "torchvision", "pytorch-metric-learning", "numpy", "scikit-learn", "imbalanced-learn")
_FILES_OF_A_START = ("config.json", "split.json")


class RunInterrupted(KeyboardInterrupt):
    """Raised when a run is interrupted; `folder` is the folder of the run, None if it has computed nothing."""

    def __init__(self, folder: Path | None) -> None:
        super().__init__(str(folder))
        self.folder = folder


@contextmanager
def open_run_folder(config: Config) -> Iterator[Path]:
    """Create or open the folder of a run, the same one in all its processes, and lock it.

    If the run fails before its first checkpoint, or is interrupted before its first features, the files and folders
    created here are removed, since there is nothing to resume; features stay in the cache.

    Args:
        config: The options; `output` is the folder, by default a new one named after the program and the time.

    Yields:
        The folder, with the options in its `config.json`.

    Raises:
        BlockingIOError: If another run uses the folder.
        FileExistsError: If `output` contains a run and `resume` is not set, or the `config.json` of another program.
        RunInterrupted: If a KeyboardInterrupt is raised in the block.
    """
    with ExitStack() as stack:
        folder = on_first_rank(lambda: _open(config, stack))
        before = set(content_of(folder))
        can_be_removed = rank() == 0 and not config.resume
        try:
            yield folder
        except KeyboardInterrupt as error:
            if can_be_removed and not has_computed(folder):
                _remove_start(folder, before)
                raise RunInterrupted(None) from error
            raise RunInterrupted(folder) from error
        except Exception:
            if can_be_removed:
                _remove_start(folder, before)
            raise


def save_config(folder: Path, options: Mapping[str, Any], **resolved: Any) -> None:
    """Write `config.json`: the start of the run, the options, the values they resolve to, and versions of packages."""
    path = folder / "config.json"
    try:
        started = json.loads(path.read_bytes())["started"]  # by the first start, if this one resumes the run
    except (OSError, ValueError, KeyError, TypeError):
        started = datetime.now().isoformat(timespec="seconds")
    versions = {package: version(package) for package in _PACKAGES} | {"python": platform.python_version()}
    saved = {name: value for name, value in options.items() if name != "list_runs"}
    content = {"program": PROGRAM, "started": started, "options": saved, "resolved": resolved, "versions": versions}
    write_atomically(path, json.dumps(content, indent=1, default=str))


def _open(config: Config, stack: ExitStack) -> Path:
    if config.output is None:
        _remove_killed_starts()
        folder = _new_folder()
        created = [folder, RUNS]
    else:
        folder = config.output
        created = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
    for path in reversed(created):
        stack.callback(_remove_empty, path)  # called after the lock is removed, the deepest folder first
    try:
        stack.enter_context(locked(folder / LOCK))
    except BlockingIOError as error:
        raise BlockingIOError(
            f"Another run is using {folder}: wait until it has ended, or choose another --output."
        ) from error
    for path in content_of(folder):
        if path.suffix == UNFINISHED:  # left by a run that was killed while writing
            path.unlink()
    if not config.resume:
        if any(path.suffix == ".pt" for path in content_of(folder)):  # before, the options can still change
            raise FileExistsError(
                f"{folder} already contains a run: add --resume to resume it, or choose another --output."
            )
        if (folder / "config.json").exists():
            try:
                read_options(folder)
            except ValueError as error:
                raise FileExistsError(f"{error} It is not overwritten: choose another --output.") from error
    save_config(folder, asdict(config))
    print(f"{'Resuming' if config.resume else 'Run folder:'} {folder}")
    return folder


def _new_folder() -> Path:
    """Create a new folder, with a number appended if runs start in the same second."""
    stem = f"{PROGRAM}-{datetime.now():%Y%m%d-%H%M%S}"
    for number in count(1):
        folder = RUNS / (stem if number == 1 else f"{stem}-{number}")
        with suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder
    raise AssertionError


def _remove_killed_starts() -> None:
    """Remove the folders of runs that were killed before they computed anything, which could not do it themselves."""
    for folder in RUNS.glob(f"{PROGRAM}-*/"):
        if not (folder / "config.json").exists():  # maybe of a run that starts at this moment
            continue
        with suppress(OSError), locked(folder / LOCK) as is_exclusive:
            others = {path.name for path in folder.rglob("*")} - {"config.json", LOCK}
            if is_exclusive and not others and not has_computed(folder):
                (folder / "config.json").unlink()
        _remove_empty(folder)


def _remove_start(folder: Path, before: Collection[Path]) -> None:
    """Remove what this process has written, if it is not a result: no file of others, and none that existed before."""
    new = [path for path in content_of(folder) if path not in before and path.is_file() and path.name != LOCK]
    if any(path.name not in _FILES_OF_A_START for path in new):
        return
    for path in [*new, folder / "config.json"]:
        path.unlink(missing_ok=True)
    created = [path for path in content_of(folder) if path not in before and path.is_dir()]
    for path in sorted(created, reverse=True):
        _remove_empty(path)


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):  # not empty
        folder.rmdir()
