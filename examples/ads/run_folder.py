"""The folder of a run: locked while the run is active, and restored if the run fails at the start."""

from __future__ import annotations

import json
import platform
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import version
from itertools import chain, count
from pathlib import Path
from typing import Any

from mlmetric.distributed import on_first_rank, rank

from .config import Config
from .files import UNFINISHED, locked, write_atomically
from .options import LOCK, RUNS, read_options

_PACKAGES = ("mlmetric", "torch", "torchvision", "pytorch-metric-learning", "numpy", "scikit-learn", "imbalanced-learn")


class RunInterrupted(KeyboardInterrupt):
    """Raised when a run is interrupted; `folder` is the folder of the run."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self.folder = folder


@contextmanager
def open_run_folder(config: Config) -> Iterator[Path]:
    """Create or open the folder of a run, the same one in all its processes, and lock it.

    If the run fails before the backbone is loaded, the files and folders created here are removed, since there is
    nothing to resume.

    Args:
        config: The options; `output` is the folder, by default a new one named after the example and the time.

    Yields:
        The folder, with the options in its `config.json`.

    Raises:
        BlockingIOError: If another run uses the folder.
        FileExistsError: If `output` contains a run and `resume` is not set, or the `config.json` of another program.
        RunInterrupted: If a KeyboardInterrupt is raised in the block.
    """
    with ExitStack() as stack:
        folder = on_first_rank(lambda: _open(config, stack))
        before = set(_content(folder))
        try:
            yield folder
        except KeyboardInterrupt as error:
            raise RunInterrupted(folder) from error
        except Exception:
            if rank() == 0 and not config.resume:
                with suppress(OSError):
                    _remove_start(folder, before)
            raise


def _open(config: Config, stack: ExitStack) -> Path:
    folder = config.output or _new_folder(config.example)
    folder.mkdir(parents=True, exist_ok=True)
    stack.callback(_remove_empty, folder)  # called after the lock is removed
    try:
        stack.enter_context(locked(folder / LOCK))
    except BlockingIOError as error:
        raise BlockingIOError(
            f"Another run is using {folder}: wait until it has ended, or choose another --output."
        ) from error
    for path in _content(folder):
        if path.suffix == UNFINISHED:  # left by a run that was killed while writing
            path.unlink()
    if not config.resume:
        if _has_checkpoint(folder):  # before the first checkpoint the options can still change
            raise FileExistsError(
                f"{folder} already contains a run: add --resume to resume it, or choose another --output."
            )
        if (folder / "config.json").exists():
            try:
                read_options(type(config), folder)
            except ValueError as error:
                raise FileExistsError(f"{error} It is not overwritten: choose another --output.") from error
    save_config(folder, asdict(config))
    print(f"{'Resuming' if config.resume else 'Run folder:'} {folder}")
    return folder


def _new_folder(example: str) -> Path:
    """Create a new folder, with a number appended if runs start in the same second."""
    stem = f"{example}-{datetime.now():%Y%m%d-%H%M%S}"
    for number in count(1):
        folder = RUNS / (stem if number == 1 else f"{stem}-{number}")
        with suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder
    raise AssertionError


def _content(folder: Path) -> Iterator[Path]:
    """List a folder and its subfolders, the two levels to which a run writes files."""
    return chain(folder.glob("*"), folder.glob("*/*"))


def _has_checkpoint(folder: Path) -> bool:
    return any(path.suffix == ".pt" for path in _content(folder))


def _written_files(folder: Path, before: Collection[Path]) -> list[Path]:
    """List the files that this process has written, excluding files of others and files that existed before."""
    new = [path for path in _content(folder) if path not in before and path.name in ("config.json", "split.json")]
    return [folder / "config.json", *new]


def _is_resolved(written: Collection[Path]) -> bool:
    """Return whether the options of a run are resolved, which happens when the backbone is loaded."""
    return any(json.loads(path.read_bytes()).get("resolved") for path in written if path.name == "config.json")


def _remove_start(folder: Path, before: Collection[Path]) -> None:
    written = _written_files(folder, before)
    if _is_resolved(written):
        return
    for path in written:
        path.unlink(missing_ok=True)
    created = [path for path in _content(folder) if path not in before and path.is_dir()]
    for path in sorted(created, reverse=True):
        _remove_empty(path)


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):  # not empty
        folder.rmdir()


def save_config(folder: Path, options: Mapping[str, Any], **resolved: Any) -> None:
    """Write `config.json`: the options, the values they resolve to, and the versions of the packages."""
    versions = {package: version(package) for package in _PACKAGES} | {"python": platform.python_version()}
    content = {"options": dict(options), "resolved": resolved, "versions": versions}
    write_atomically(folder / "config.json", json.dumps(content, indent=1, default=str))
