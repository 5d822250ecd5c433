"""The folder of a run: made, held by one run at a time, and left as it was found by a start that failed."""

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
from .files import UNFINISHED, write_whole
from .locks import locked
from .resume import LOCK, RUNS, read_options

_PACKAGES = ("mlmetric", "torch", "torchvision", "pytorch-metric-learning", "numpy", "scikit-learn", "imbalanced-learn")


class RunInterrupted(KeyboardInterrupt):
    """A run was interrupted; `folder` is what `--resume --output` goes on with."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self.folder = folder


@contextmanager
def open_run_folder(config: Config) -> Iterator[Path]:
    """Open the folder of a run, the same for all its processes: a new one, or that of the run to resume.

    While it is open no other run can open it. If the run fails before its network is loaded, what was made here is
    removed again: there is nothing to go on with.

    Args:
        config: The options; `output` is the folder, by default a new one named after the example and the time.

    Yields:
        The folder, with the options in its `config.json`.

    Raises:
        BlockingIOError: If another run uses the folder.
        FileExistsError: If `output` holds a run and `resume` is not asked for, or a `config.json` that is no run's.
        RunInterrupted: In place of a KeyboardInterrupt in the block.
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
    stack.callback(_remove_empty, folder)  # after the lock is gone
    try:
        stack.enter_context(locked(folder / LOCK))
    except BlockingIOError as error:
        raise BlockingIOError(
            f"Another run is using {folder}: wait until it has ended, or choose another --output."
        ) from error
    for path in _content(folder):
        if path.suffix == UNFINISHED:  # of a run that was killed as it wrote
            path.unlink()
    if not config.resume:
        if _has_checkpoint(folder):  # before the first one the options may still change
            raise FileExistsError(f"{folder} holds a run already: add --resume to go on with it, or choose another.")
        if (folder / "config.json").exists():
            try:
                read_options(type(config), folder)
            except ValueError as error:
                raise FileExistsError(f"{error} It is not overwritten: choose another --output.") from error
    save_config(folder, asdict(config))
    print(f"{'Resuming' if config.resume else 'Run folder:'} {folder}")
    return folder


def _new_folder(example: str) -> Path:
    """Make a folder that no other run has."""
    stem = f"{example}-{datetime.now():%Y%m%d-%H%M%S}"
    for number in count(1):
        folder = RUNS / (stem if number == 1 else f"{stem}-{number}")
        with suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder
    raise AssertionError


def _content(folder: Path) -> Iterator[Path]:
    """List what is in a folder and in those right below it, as deep as a run writes its own files."""
    return chain(folder.glob("*"), folder.glob("*/*"))


def _has_checkpoint(folder: Path) -> bool:
    return any(path.suffix == ".pt" for path in _content(folder))


def _written(folder: Path, before: Collection[Path]) -> list[Path]:
    """List the files that a start wrote, but none that was there before or is of someone else."""
    new = [path for path in _content(folder) if path not in before and path.name in ("config.json", "split.json")]
    return [folder / "config.json", *new]


def _has_begun(written: Collection[Path]) -> bool:
    """Say whether a run came so far that its options are resolved."""
    return any(json.loads(path.read_bytes()).get("resolved") for path in written if path.name == "config.json")


def _remove_start(folder: Path, before: Collection[Path]) -> None:
    written = _written(folder, before)
    if _has_begun(written):
        return
    for path in written:
        path.unlink(missing_ok=True)
    made = [path for path in _content(folder) if path not in before and path.is_dir()]
    for path in sorted(made, reverse=True):
        _remove_empty(path)


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):  # not empty
        folder.rmdir()


def save_config(folder: Path, options: Mapping[str, Any], **resolved: Any) -> None:
    """Write `config.json`: the options, what they resolved to, and the versions."""
    versions = {package: version(package) for package in _PACKAGES} | {"python": platform.python_version()}
    content = {"options": dict(options), "resolved": resolved, "versions": versions}
    write_whole(folder / "config.json", json.dumps(content, indent=1, default=str))
