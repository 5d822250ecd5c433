"""The sentiments of advertisement images, by an embedding that follows label similarity.

The pipeline of "From image to emotion: multi-label image classification based on triplet loss" (2021), built from
mlmetric's pieces: a frozen ResNet-50, two fully connected layers trained on the similarity of label sets, and a
classifier trained by binary cross entropy on the frozen embedding. By default the layers are trained by the recipe that
this library recommends; `--method paper` trains them by the paper's triplets, and `--compare` sets both beside a label
graph, a semantic projection and a linear probe. Without arguments it runs on a synthetic set that it makes; `--help`
shows how to run it on the real one. `torchrun --nproc-per-node 2 examples/ad_sentiment.py` shares the
work out among processes.
"""

from __future__ import annotations

from ads.config import DRY_RUN_IMAGES, AdsConfig, Config
from ads.program import run_program

if __name__ == "__main__":
    run_program(AdsConfig)  # calls `main` below, but checks the options before the imports, which take seconds

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
from ads.baseline import LABEL_FREQUENCIES
from ads.evaluation import (
    Scored,
    choose_thresholds,
    measure_counts,
    measure_labels,
    measure_retrieval,
    measure_scores,
)
from ads.files import write_whole
from ads.labelled_images import LabelledImages
from ads.methods import METHODS, Workshop, linear_probe, settings_of
from ads.plots import plot_comparison
from ads.predictions import save_predictions
from ads.progress import advance, bar, clock, peak_memory_mb
from ads.reader import read_annotations
from ads.report import COMPARED, comparison_report, comparison_rows, is_pittsburgh, results, run_report
from ads.resume import RUNS
from ads.run_folder import open_run_folder, save_config
from ads.run_warnings import collected_warnings
from ads.synthetic import make_synthetic_ads
from ads.undersampling import undersample
from mlmetric.data import ImageDataset, extract_features, stratified_split
from mlmetric.distributed import on_first_rank, rank
from mlmetric.heads import FrozenBackbone, WeightsUnavailableError
from mlmetric.imbalance import label_cardinality, mean_ir, scumble

# Of the paper's four runs, in what they differ; the rest is the method "paper" on a training part that is capped.
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
    """Run one method, all of them, or the paper's four runs on one cache, and print the comparison."""
    images = read_ads(config)
    with open_run_folder(config) as folder:
        if config.experiments == "one":
            run_methods(config, images, folder)
            return
        configs = {name: replace(config, **PAPER_OPTIONS | settings) for name, settings in PAPER_RUNS.items()}
        run_all(configs, images, folder, title=f"The paper's four runs on {images.title}")


def run_methods(config: Config, images: LabelledImages, folder: Path) -> None:
    """Run the method that is chosen, or all of them."""
    if not config.compare:
        run(config, images, folder)
        return
    configs = {name: replace(config, method=name) for name in METHODS}
    run_all(configs, images, folder, title=f"The methods on {images.title}")


def run_all(configs: Mapping[str, Config], images: LabelledImages, folder: Path, *, title: str) -> None:
    """Run several configurations on one cache, each in a folder of its own, and print one table."""
    runs = {name: run(config, images, folder / name) for name, config in configs.items()}
    if rank() > 0:
        return
    compared = comparison_rows(runs)
    failed = figures.draw({"comparison.png": lambda path: plot_comparison(compared, COMPARED, path)}, folder)
    report = comparison_report(title, runs, is_pittsburgh=is_pittsburgh(images), failed_figures=failed)
    write_whole(folder / "report.md", report)
    print(f"\n{report}\nEach run with its own report: {folder}")


def read_ads(config: AdsConfig) -> LabelledImages:
    """Read annotated advertisements, or make the synthetic set."""
    if config.annotations is None:
        num_images = DRY_RUN_IMAGES if config.dry_run else config.synthetic_images
        annotations, label_list, root = on_first_rank(
            lambda: make_synthetic_ads(
                RUNS / f"synthetic_ads_{num_images}_seed_{config.seed}",
                num_images=num_images,
                seed=config.seed,
                progress=lambda items: bar("posters", items, unit="posters"),
            )
        )
    else:
        annotations, root = config.annotations, config.image_root or Path()
        label_list = config.label_list or annotations.parent / "Sentiments_List.txt"
    ads = read_annotations(annotations, label_list)
    labels = ads.labels(config.min_votes)
    labelled = (labels > 0).any(dim=1)
    notes = {
        "answers were free text or empty and were skipped": ads.skipped_answers.total(),
        "entries name an image that an earlier entry names: their answers count together": ads.merged_entries,
        "images had no label among their answers and were left out": ads.dropped_images,
        f"images have no label with {config.min_votes} votes and were left out": int((~labelled).sum()),
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
        raise ValueError(f"No image has a label with {config.min_votes} votes: lower --min-votes.")
    return images.select(range(min(DRY_RUN_IMAGES, len(images.paths)))) if config.dry_run else images


def run(config: Config, images: LabelledImages, folder: Path) -> dict[str, Any]:
    """Run the pipeline on labelled images and leave everything behind in a folder, warnings in the report."""
    with collected_warnings() as texts:
        return run_pipeline(config, images, folder, texts)


def run_pipeline(config: Config, images: LabelledImages, folder: Path, warned: list[str]) -> dict[str, Any]:
    """Run the pipeline.

    Args:
        config: What to do.
        images: On what.
        folder: Where checkpoints, figures and report go; checkpoints that are there are gone on with.
        warned: Warnings so far; later ones are appended.

    Returns:
        The content of `metrics.json`; nothing but in the first of several processes, which measures for all.
    """
    seconds: dict[str, float] = {}
    device = config.torch_device()

    # 1. The backbone, frozen, and the feature of each image, computed once and cached.
    backbone = load_backbone(config, synthetic=images.synthetic).to(device)
    resolved = {"weights": backbone.weights, "transform": repr(backbone.transform)}
    on_first_rank(lambda: save_config(folder, asdict(config), **resolved))
    with clock("features", seconds), bar("features", unit="images") as progress:
        extracted = extract_features(
            backbone,
            ImageDataset(images.root, images.paths, transform=backbone.transform),
            config.cache,
            batch_size=config.image_batch_size,
            num_workers=config.num_workers,
            on_bad_image=config.on_bad_image,
            progress=lambda done, total: advance(progress, done, total),
        )
    images = images.select(extracted.indices)
    if len(images.paths) < MIN_IMAGES:
        raise ValueError(
            f"{len(images.paths)} images are too few to train, validate and test: give {MIN_IMAGES} or more."
        )
    features = torch.from_numpy(np.array(extracted.features))

    # 2. A split that brings rare labels to every part.
    generator = torch.Generator().manual_seed(config.seed)
    train, validation, test = stratified_split(images.labels, (0.7, 0.2, 0.1), generator=generator)
    parts = {"train": train, "validation": validation, "test": test}
    split = {name: [images.paths[row] for row in rows.tolist()] for name, rows in parts.items()}
    on_first_rank(lambda: write_whole(folder / "split.json", json.dumps(split, indent=1)))

    # 3. Undersampling, of the training part only.
    with clock("undersampling", seconds), bar("undersampling", total=1, unit="set") as progress:
        kept, targets = undersample(config, features[train], images.targets[train])
        progress.update()

    # 4. The method: stage one, an embedding; stage two, a classifier on it. Beside it a linear probe of the features.
    method, settings = METHODS[config.method], settings_of(config)
    shop = Workshop(
        features=features,
        rows=train[kept],
        targets=targets,
        validation=validation,
        labels=images.labels,
        label_names=images.label_names,
        settings=settings,
        folder=folder,
        device=device,
        seed=config.seed,
        word_vectors=config.word_vectors,
        seconds=seconds,
    )
    torch.manual_seed(config.seed)
    fitted = {
        title: fit(shop)
        for title, fit in {METHODS["linear-probe"].title: linear_probe, method.title: method.fit}.items()
    }
    if rank() > 0:
        return {}

    # 5. Evaluation: thresholds are chosen on validation; the training images are the database of retrieval.
    measures: dict[str, dict[str, Any]] = {"validation": {}, "test": {}}
    intervals: dict[str, Any] = {}
    thresholds: dict[str, Tensor] = {}
    frequencies = images.labels[train].float().mean(0).expand(len(images.paths), -1)
    scores = {LABEL_FREQUENCIES: frequencies} | {title: result.scores for title, result in fitted.items()}
    with clock("evaluation", seconds):
        for title in bar("evaluation", scores, unit="methods"):
            thresholds[title] = choose_thresholds(Scored(scores[title][validation], images.labels[validation]))
            for part in measures:
                scored = Scored(scores[title][parts[part]], images.labels[parts[part]])
                values, bounds = measure_scores(scored, thresholds[title], intervals=part == "test")
                measures[part][title] = values
                intervals |= {title: bounds}
            if title in fitted:
                rows = fitted[title].embeddings
                values, bounds = measure_retrieval(rows[test], images.labels[test], rows[train], images.labels[train])
                measures["test"][title] |= values
                intervals[title] |= bounds
    result = fitted[method.title]
    tested = Scored(result.scores[test], images.labels[test])
    held_out = {"validation": validation, "test": test}
    save_predictions(folder / "predictions.csv", images, held_out, result.scores, thresholds[method.title])

    # 6. Numbers first, then figures, then the report.
    caveats = list(images.notes)
    if extracted.bad_images:
        caveats.append(f"{len(extracted.bad_images)} images could not be read and were left out: see metrics.json.")
    if backbone.weights == "random":
        caveats.insert(0, "The backbone has random weights: its features know nothing of photographs.")
    if images.synthetic:
        caveats.insert(0, "The images are synthetic: these numbers say nothing about real advertisements.")
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
        "history": shop.histories,
        "caveats": caveats,
        "warnings": warned,
        "bad_images": extracted.bad_images,
        "seconds": seconds,
        "peak_memory_mb": peak_memory_mb(),
    }
    write_whole(folder / "metrics.json", json.dumps(metrics, indent=1))
    wanted = {
        **figures.training_figures(shop.histories),
        **figures.label_figures(images.targets[train], targets, tested, images.label_names),
        **figures.space_figures(result.embeddings, images, parts, seed=config.seed),
    }
    with clock("figures", seconds):
        failed = figures.draw(wanted, folder / "figures")
    metrics |= {"figures": sorted(wanted.keys() - failed.keys()), "failed_figures": failed}
    write_whole(folder / "metrics.json", json.dumps(metrics, indent=1))
    report = run_report(f"A run on {images.title}", metrics, is_pittsburgh=is_pittsburgh(images))
    write_whole(folder / "report.md", report)
    shown = results(measures["test"], with_paper=config.method == "paper")
    print(*caveats, *shown, f"Report, figures and checkpoints: {folder}", sep="\n\n")
    return metrics


def load_backbone(config: Config, *, synthetic: bool) -> FrozenBackbone:
    """Load the backbone; in the synthetic demonstration random weights stand in for those that cannot be had."""
    torch.manual_seed(config.seed)
    weights = None if config.weights == "none" else config.weights
    try:
        return FrozenBackbone(config.backbone, weights=weights)
    except WeightsUnavailableError as error:
        if not synthetic:
            raise
        logging.warning("%s The synthetic demonstration goes on with RANDOM weights.", error)
        return FrozenBackbone(config.backbone, weights=None)
