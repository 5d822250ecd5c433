"""The folder of a run: which one it is, and what is written there besides checkpoints and figures."""

from __future__ import annotations

import csv
import json
import platform
import resource
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from mlmetric.distributed import on_first_rank, rank

from .labelled_images import LabelledImages

RUNS = Path("runs")
_PACKAGES = ("mlmetric", "torch", "torchvision", "pytorch-metric-learning", "numpy", "scikit-learn", "imbalanced-learn")
_MAY_DIFFER_ON_RESUME = {"output", "resume", "num_workers", "device", "cache", "on_bad_image"}


def open_run_folder(config: Any, name: str) -> Path:
    """Choose the folder of a run, the same for all its processes: a new one, or that of the killed run to resume.

    Args:
        config: A configuration with `output` and `resume`.
        name: Of the example; new folders are named after it and the time.

    Returns:
        The folder, with the options in its `config.json`.

    Raises:
        ValueError: If a folder to resume was run with other options.
        FileExistsError: If `output` holds a run and `resume` is not asked for.
        FileNotFoundError: If there is no run to resume.
    """
    return on_first_rank(lambda: _open_run_folder(config, name))


def _open_run_folder(config: Any, name: str) -> Path:
    folder = config.output
    if folder is None:
        started = sorted(path.parent for path in RUNS.glob(f"{name}-*/config.json"))
        unfinished = [path for path in started if any(path.rglob("*.pt")) and not (path / "report.md").exists()]
        if config.resume and not started:
            raise FileNotFoundError(f"There is no run under {RUNS} to resume.")
        folder = (unfinished or started)[-1] if config.resume else RUNS / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
        if config.resume:
            print(f"Resuming {folder}")
    options = json.loads(json.dumps(asdict(config), default=str))
    saved = folder / "config.json"
    if saved.exists() and any(folder.rglob("*.pt")):  # before the first checkpoint nothing hangs on the options
        if not config.resume:
            raise FileExistsError(f"{folder} holds a run already: add --resume to go on with it, or choose another.")
        before = json.loads(saved.read_text())["options"]
        for option, value in options.items():
            if option not in _MAY_DIFFER_ON_RESUME and before.get(option) != value:
                raise ValueError(
                    f"The run in {folder} was started with --{option.replace('_', '-')} {before.get(option)}, "
                    f"not {value}: resume with the options of the start, or start another run."
                )
    elif config.resume and not folder.is_dir():
        raise FileNotFoundError(f"There is no run in {folder} to resume.")
    save_config(folder, options)
    return folder


def save_config(folder: Path, options: Mapping[str, Any], **resolved: Any) -> None:
    """Write `config.json`: the options, what they resolved to, and the versions."""
    versions = {package: version(package) for package in _PACKAGES} | {"python": platform.python_version()}
    folder.mkdir(parents=True, exist_ok=True)
    content = {"options": dict(options), "resolved": resolved, "versions": versions}
    write_whole(folder / "config.json", json.dumps(content, indent=1, default=str))


def write_whole(path: Path, text: str) -> None:
    """Write a file such that it is there whole or not at all."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.write_text(text)
    unfinished.replace(path)


def save_predictions(
    path: Path, images: LabelledImages, parts: Mapping[str, Tensor], scores: Tensor, thresholds: Tensor
) -> None:
    """Write `predictions.csv`: for each image of some parts its labels, what is predicted, and each probability."""
    names = images.label_names
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "part", "labels", "predicted", *(f"probability_{name}" for name in names)])
        for part, rows in parts.items():
            for row in rows.tolist():
                decided = (scores[row] >= thresholds).tolist()
                predicted = [name for name, yes in zip(names, decided, strict=True) if yes]
                probabilities = [f"{score:.6f}" for score in scores[row].tolist()]
                labels = images.names_of(row)
                writer.writerow([images.paths[row], part, "|".join(labels), "|".join(predicted), *probabilities])


def bar(name: str, items: Iterable[Any] | None = None, *, total: int | None = None, unit: str = "it") -> Any:
    """Draw a progress bar with counts and rates; nothing where the output is no terminal, or not the first process."""
    return tqdm(items, desc=name, total=total, unit=unit, disable=True if rank() else None)


def advance(progress: Any, done: int, total: int) -> None:
    """Move a progress bar to where `done` of `total` are."""
    progress.total = total
    progress.update(done - progress.n)


@contextmanager
def clock(step: str, seconds: dict[str, float]) -> Iterator[None]:
    """Note how long a step takes."""
    start = time.perf_counter()
    yield
    seconds[step] = time.perf_counter() - start


def peak_memory_mb() -> float:
    """Return the largest resident set of this process so far, in MB (10^6 bytes)."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
