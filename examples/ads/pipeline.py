"""The steps of a run: split, undersampling, training, evaluation, results."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.files import write_atomically
from common.progress import progress_bar
from mlmetric.data import stratified_split
from mlmetric.distributed import on_first_rank, rank

from .config import Config
from .evaluation import evaluate
from .features import ImageFeatures
from .labelled_images import LabelledImages
from .methods import METHODS, MethodResult, RunContext, linear_probe, settings_of, undersample
from .metric_names import LINEAR_PROBE
from .monitoring import collected_warnings, timed
from .results import TrainedRun, write_results
from .run_folder import save_config
from .texts import join_text

_SHARES = {"train": 0.7, "validation": 0.2, "test": 0.1}


def run(config: Config, extracted: ImageFeatures, folder: Path) -> dict[str, Any]:
    """Train and evaluate a method, and write the results into a folder.

    Args:
        config: The options.
        extracted: The features and their images.
        folder: Where checkpoints, figures and report are written; training continues from existing checkpoints.

    Returns:
        The content of `metrics.json`. Only the first of several processes evaluates; the others return an empty dict.
    """
    images, seconds = extracted.images, dict(extracted.seconds)
    on_first_rank(lambda: save_config(folder, asdict(config), **extracted.resolved))
    with collected_warnings() as warning_texts:
        parts = split(images, folder, seed=config.seed)
        rows = parts["train"]
        kept, targets = torch.arange(len(rows)), images.targets[rows]
        if config.chosen_undersampler != "none":
            with timed("undersampling", seconds), progress_bar("undersampling"):
                kept, targets = undersample(config, extracted.features[rows], targets)
        joined = None
        if images.texts is not None:
            with timed("text features", seconds):
                joined = join_text(config, extracted, rows, rows[kept])
        context = RunContext(
            features=extracted.features if joined is None else joined.features,
            labels=images.labels,
            label_names=images.label_names,
            train=rows[kept],
            targets=targets,
            validation=parts["validation"],
            settings=settings_of(config),
            folder=folder,
            device=config.torch_device(),
            seed=config.seed,
            word_vectors=config.word_vectors,
            views=None if joined is None else joined.views,
            seconds=seconds,
        )
        fitted = train(config, context)
        if rank() > 0:
            return {}
        with timed("evaluation", seconds):
            evaluation = evaluate(fitted, images.labels, parts, seed=config.seed)
        trained = TrainedRun(config, extracted, joined, parts, context, fitted, evaluation)
        return write_results(trained, folder, warning_texts)


def split(images: LabelledImages, folder: Path, *, seed: int) -> dict[str, Tensor]:
    """Divide the images into stratified parts, so that rare labels occur in every part, and write `split.json`."""
    generator = torch.Generator().manual_seed(seed)
    rows = stratified_split(images.labels, tuple(_SHARES.values()), generator=generator)
    parts = dict(zip(_SHARES, rows, strict=True))
    paths = {name: [images.paths[row] for row in part.tolist()] for name, part in parts.items()}
    on_first_rank(lambda: write_atomically(folder / "split.json", json.dumps(paths, indent=1)))
    return parts


def train(config: Config, context: RunContext) -> dict[str, MethodResult]:
    """Train the linear probe, which is the baseline, and the method; return the results by title."""
    torch.manual_seed(config.seed)
    fits = {LINEAR_PROBE: linear_probe, METHODS[config.method].title: METHODS[config.method].fit}
    return {title: fit(context) for title, fit in fits.items()}
