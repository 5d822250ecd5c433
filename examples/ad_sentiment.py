"""Sentiments of advertisement images, predicted from an embedding that is trained on label similarity.

The pipeline of "From image to emotion: multi-label image classification based on triplet loss" (2021): features of a
frozen ResNet-50; a `MetricClassifier`, which trains an embedding by metric learning and a classifier of the labels;
evaluation and figures. By default it has the settings that this library recommends; `--method paper` uses those of the
paper, with the classifier trained on the frozen embedding, and `--compare` compares both with a label graph, a semantic
projection and a linear probe. Without arguments the pipeline runs on a generated synthetic set; `--help` lists the
options for the real one. `torchrun --nproc-per-node 2 examples/ad_sentiment.py` runs it in two processes.
"""

from __future__ import annotations

from ads.config import DRY_RUN_IMAGES, AdsConfig, Config
from ads.program import run_program

if __name__ == "__main__":
    run_program(AdsConfig)  # checks the options before the slow imports, then calls `main` below

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ads import figures
from ads.evaluation import (
    LABEL_FREQUENCIES,
    Predictions,
    choose_thresholds,
    measure_counts,
    measure_labels,
    measure_retrieval,
    measure_scores,
)
from ads.files import write_atomically
from ads.labelled_images import LabelledImages, save_predictions
from ads.methods import METHODS, RunContext, linear_probe, settings_of, undersample
from ads.monitoring import collected_warnings, peak_memory_mb, progress_bar, set_progress, timed
from ads.options import RUNS
from ads.plots import plot_comparison
from ads.reader import read_annotations
from ads.report import COMPARED, comparison_report, comparison_rows, is_pittsburgh, results, run_report
from ads.run_folder import open_run_folder, save_config
from ads.synthetic import make_synthetic_ads
from mlmetric.data import ImageDataset, extract_features, stratified_split
from mlmetric.distributed import on_first_rank, rank
from mlmetric.heads import FrozenBackbone, WeightsUnavailableError
from mlmetric.imbalance import label_cardinality, mean_ir, scumble

# The settings in which the four runs of the paper differ, and those that they have in common.
PAPER_RUNS: dict[str, dict[str, Any]] = {
    "paper_run_1": {"epochs": 10, "margin": 1.0, "lr_drops": ()},
    "paper_run_2": {"epochs": 10, "margin": 2.0, "lr_drops": ()},
    "paper_run_3": {"epochs": 20, "margin": 1.0, "lr_drops": (15,)},
    "paper_run_4": {"epochs": 20, "margin": 2.0, "lr_drops": (15,)},
}
PAPER_OPTIONS = {"method": "paper", "undersampler": "cap", "experiments": "one"} | dict.fromkeys(
    ("positive_order", "batch_size", "lr", "activation")
)
MIN_IMAGES = 20


def main(config: AdsConfig) -> None:
    """Run the pipeline with one method, with all methods, or with the settings of the paper's four runs."""
    images = read_ads(config)
    with open_run_folder(config) as folder:
        if config.experiments == "one":
            run_methods(config, images, folder)
            return
        configs = {name: replace(config, **PAPER_OPTIONS | settings) for name, settings in PAPER_RUNS.items()}
        run_all(configs, images, folder, title=f"The paper's four runs on {images.title}")


def run_methods(config: Config, images: LabelledImages, folder: Path) -> None:
    """Run the pipeline with one method, or with all of them."""
    if not config.compare:
        run(config, images, folder)
        return
    configs = {name: replace(config, method=name) for name in METHODS}
    run_all(configs, images, folder, title=f"The methods on {images.title}")


def run_all(configs: Mapping[str, Config], images: LabelledImages, folder: Path, *, title: str) -> None:
    """Run the pipeline with several configurations, each in a subfolder, and print a table of the results."""
    runs = {name: run(config, images, folder / name) for name, config in configs.items()}
    if rank() > 0:
        return
    compared = comparison_rows(runs)
    failed = figures.draw({"comparison.png": lambda path: plot_comparison(compared, COMPARED, path)}, folder)
    report = comparison_report(title, runs, is_pittsburgh=is_pittsburgh(images), failed_figures=failed)
    write_atomically(folder / "report.md", report)
    print(f"\n{report}\nThe reports of the runs: {folder}")


def read_ads(config: AdsConfig) -> LabelledImages:
    """Read annotated advertisements, or generate the synthetic set."""
    if config.annotations is None:
        num_images = DRY_RUN_IMAGES if config.dry_run else config.synthetic_images
        annotations, label_list, root = on_first_rank(
            lambda: make_synthetic_ads(
                RUNS / f"synthetic_ads_{num_images}_seed_{config.seed}",
                num_images=num_images,
                seed=config.seed,
                progress=lambda items: progress_bar("posters", items, unit="posters"),
            )
        )
    else:
        annotations, root = config.annotations, config.image_root or Path()
        label_list = config.label_list or annotations.parent / "Sentiments_List.txt"
    ads = read_annotations(annotations, label_list)
    labels = ads.labels(config.min_votes)
    labelled = (labels > 0).any(dim=1)
    notes = {
        "answers are free text or empty and were skipped": ads.skipped_answers.total(),
        "entries were merged into an earlier entry of the same image": ads.merged_entries,
        "images have no label and were excluded": ads.dropped_images,
        f"images have no label with {config.min_votes} votes and were excluded": int((~labelled).sum()),
    }
    images = LabelledImages(
        title="synthetic advertisements" if config.annotations is None else f"the advertisements of {annotations}",
        root=root,
        paths=ads.paths,
        labels=labels,
        targets=ads.labels(soft=True) if config.soft_labels else labels,
        label_names=ads.label_names,
        synthetic=config.annotations is None,
        notes=[f"{count} {what}." for what, count in notes.items() if count],
    )
    images = images.select(labelled.nonzero().squeeze(1))
    if not images.paths:
        raise ValueError(f"No image has a label with {config.min_votes} votes: choose a lower --min-votes.")
    return images.select(range(min(DRY_RUN_IMAGES, len(images.paths)))) if config.dry_run else images


def run(config: Config, images: LabelledImages, folder: Path) -> dict[str, Any]:
    """Run the pipeline on labelled images, collect its warnings for the report, and write the results into a folder."""
    with collected_warnings() as warning_texts:
        return run_pipeline(config, images, folder, warning_texts)


def run_pipeline(config: Config, images: LabelledImages, folder: Path, warning_texts: list[str]) -> dict[str, Any]:
    """Run the pipeline.

    Args:
        config: The options.
        images: The images.
        folder: Where checkpoints, figures and report are written; training continues from existing checkpoints.
        warning_texts: The warnings collected so far; later ones are appended.

    Returns:
        The content of `metrics.json`. Only the first of several processes evaluates; the others return an empty dict.
    """
    seconds: dict[str, float] = {}
    device = config.torch_device()

    # 1. The features of the images from the frozen backbone, computed once and cached.
    backbone = load_backbone(config, synthetic=images.synthetic).to(device)
    resolved = {"weights": backbone.weights, "transform": repr(backbone.transform)}
    on_first_rank(lambda: save_config(folder, asdict(config), **resolved))
    with timed("features", seconds), progress_bar("features", unit="images") as bar:
        extracted = extract_features(
            backbone,
            ImageDataset(images.root, images.paths, transform=backbone.transform),
            config.cache,
            batch_size=config.image_batch_size,
            num_workers=config.num_workers,
            on_bad_image=config.on_bad_image,
            progress=lambda done, total: set_progress(bar, done, total),
        )
    images = images.select(extracted.indices)
    if len(images.paths) < MIN_IMAGES:
        raise ValueError(
            f"{len(images.paths)} images are too few to train, validate and test: at least {MIN_IMAGES} are required."
        )
    features = torch.from_numpy(np.array(extracted.features))

    # 2. A stratified split, so that rare labels occur in every part.
    generator = torch.Generator().manual_seed(config.seed)
    train, validation, test = stratified_split(images.labels, (0.7, 0.2, 0.1), generator=generator)
    parts = {"train": train, "validation": validation, "test": test}
    split = {name: [images.paths[row] for row in rows.tolist()] for name, rows in parts.items()}
    on_first_rank(lambda: write_atomically(folder / "split.json", json.dumps(split, indent=1)))

    # 3. Undersampling of the training part.
    with timed("undersampling", seconds), progress_bar("undersampling", total=1, unit="set") as bar:
        kept, targets = undersample(config, features[train], images.targets[train])
        bar.update()

    # 4. The method, and a linear probe of the features as a baseline.
    method, settings = METHODS[config.method], settings_of(config)
    context = RunContext(
        features=features,
        labels=images.labels,
        label_names=images.label_names,
        train=train[kept],
        targets=targets,
        validation=validation,
        settings=settings,
        folder=folder,
        device=device,
        seed=config.seed,
        word_vectors=config.word_vectors,
        seconds=seconds,
    )
    torch.manual_seed(config.seed)
    fits = {METHODS["linear-probe"].title: linear_probe, method.title: method.fit}
    fitted = {title: fit(context) for title, fit in fits.items()}
    if rank() > 0:
        return {}

    # 5. Evaluation. Thresholds are chosen on the validation part; the training images are the database of retrieval.
    measures: dict[str, dict[str, Any]] = {"validation": {}, "test": {}}
    intervals: dict[str, Any] = {}
    thresholds: dict[str, Tensor] = {}
    frequencies = images.labels[train].float().mean(0).expand(len(images.paths), -1)
    scores = {LABEL_FREQUENCIES: frequencies} | {title: result.scores for title, result in fitted.items()}
    with timed("evaluation", seconds):
        for title in progress_bar("evaluation", scores, unit="methods"):
            predictions = {name: Predictions(scores[title][rows], images.labels[rows]) for name, rows in parts.items()}
            thresholds[title] = choose_thresholds(predictions["validation"])
            measures["validation"][title], _ = measure_scores(predictions["validation"], thresholds[title])
            values, bounds = measure_scores(predictions["test"], thresholds[title], seed=config.seed)
            if title in fitted:
                rows = fitted[title].embeddings
                queries, database = (rows[test], images.labels[test]), (rows[train], images.labels[train])
                retrieval, retrieval_bounds = measure_retrieval(*queries, *database, seed=config.seed)
                values, bounds = values | retrieval, bounds | retrieval_bounds
            measures["test"][title], intervals[title] = values, bounds
    result = fitted[method.title]
    tested = Predictions(result.scores[test], images.labels[test])
    held_out = {"validation": validation, "test": test}
    save_predictions(folder / "predictions.csv", images, held_out, result.scores, thresholds[method.title])

    # 6. metrics.json, the figures, the report.
    caveats = list(images.notes)
    if extracted.bad_images:
        caveats.append(f"{len(extracted.bad_images)} images could not be read and were excluded: see metrics.json.")
    if backbone.weights == "random":
        caveats.insert(0, "The backbone has random weights: its features are not trained on photographs.")
    if images.synthetic:
        caveats.insert(0, "The images are synthetic: these results say nothing about real advertisements.")
    metrics = {
        **measures,
        "test_intervals": intervals,
        "train_labels": measure_counts(images.targets[train], targets, images.label_names),
        "test_labels": measure_labels(tested, thresholds[method.title], images.label_names),
        "data": {
            "images": len(images.paths),
            **{name: len(rows) for name, rows in parts.items()},
            "labels": len(images.label_names),
            "cardinality": label_cardinality(images.labels),
            "undersampler": config.undersampler,
            "train_after": len(targets),
            "mean_ir_before": mean_ir(images.targets[train]),
            "mean_ir_after": mean_ir(targets),
            "scumble_before": scumble(images.labels[train]),
        },
        "method": config.method,
        "title": method.title,
        "settings": asdict(settings),
        "history": context.histories,
        "caveats": caveats,
        "warnings": warning_texts,
        "bad_images": extracted.bad_images,
        "seconds": seconds,
        "peak_memory_mb": peak_memory_mb(),
    }
    write_atomically(folder / "metrics.json", json.dumps(metrics, indent=1))
    drawings = {
        **figures.training_figures(context.histories),
        **figures.label_figures(images.targets[train], targets, tested, images.label_names),
        **figures.embedding_figures(result.embeddings, images, parts, seed=config.seed),
    }
    with timed("figures", seconds):
        failed = figures.draw(drawings, folder / "figures")
    metrics |= {"figures": sorted(drawings.keys() - failed.keys()), "failed_figures": failed}
    write_atomically(folder / "metrics.json", json.dumps(metrics, indent=1))
    report = run_report(f"A run on {images.title}", metrics, is_pittsburgh=is_pittsburgh(images))
    write_atomically(folder / "report.md", report)
    tables = results(measures["test"], with_paper=config.method == "paper")
    print(*caveats, *tables, f"Report, figures and checkpoints: {folder}", sep="\n\n")
    return metrics


def load_backbone(config: Config, *, synthetic: bool) -> FrozenBackbone:
    """Load the backbone; on synthetic images, use random weights if the weights cannot be downloaded."""
    torch.manual_seed(config.seed)
    weights = None if config.weights == "none" else config.weights
    try:
        return FrozenBackbone(config.backbone, weights=weights)
    except WeightsUnavailableError as error:
        if not synthetic:
            raise
        logging.warning("%s The run on synthetic images continues with RANDOM weights.", error)
        return FrozenBackbone(config.backbone, weights=None)
