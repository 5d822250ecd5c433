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

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from sklearn.base import clone
from torch import Tensor

from ads import figures
from ads.evaluation import (
    Scored,
    choose_thresholds,
    measure_counts,
    measure_labels,
    measure_retrieval,
    measure_scores,
)
from ads.labelled_images import LabelledImages
from ads.methods import METHODS, MethodSettings, Workshop, linear_probe
from ads.options import option, parse
from ads.processes import joined_processes
from ads.reader import read_annotations
from ads.report import COMPARED, NOTE, comparison_report, comparison_rows, run_report, table
from ads.run_folder import (
    RUNS,
    advance,
    bar,
    clock,
    open_run_folder,
    peak_memory_mb,
    save_config,
    save_predictions,
    write_whole,
)
from ads.synthetic import make_synthetic_ads
from mlmetric.data import ImageDataset, extract_features, stratified_split
from mlmetric.distributed import on_first_rank, rank
from mlmetric.heads import FrozenBackbone, WeightsUnavailableError
from mlmetric.imbalance import label_cardinality, mean_ir, scumble
from mlmetric.under_sampling import (
    LPRUS,
    MLRUS,
    MLUL,
    REMEDIAL,
    BaseMultiLabelSampler,
    LabelCapUnderSampler,
    MLeNN,
    MultiLabelTomekLinks,
    RandomLabelUnderSampler,
)

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
OPTIONS_OF_METHODS = {
    "margin": ("paper",),
    "positive_order": ("paper",),
    "word_vectors": ("label-graph", "semantic"),
}
UNDERSAMPLERS: dict[str, BaseMultiLabelSampler] = {
    "cap": LabelCapUnderSampler(),
    "cap-rows": RandomLabelUnderSampler(),
    "tomek": MultiLabelTomekLinks(protect_minority=True),  # the published rule would remove nearly every row
    "mlrus": MLRUS(),
    "lprus": LPRUS(),
    "mlenn": MLeNN(),
    "mlul": MLUL(),
    "remedial": REMEDIAL(),
}
DRY_RUN_IMAGES = 48
MIN_IMAGES = 20


@dataclass(frozen=True, kw_only=True)
class Config:
    """What every run can be told, whatever its images."""

    output: Path | None = option(None, "folder of the run; by default a new one under runs/")
    cache: Path = option(Path("runs/feature_cache"), "folder of the feature cache; runs share it")
    resume: bool = option(False, "go on with a killed run: the one in --output, by default the latest unfinished")
    dry_run: bool = option(False, f"try everything in seconds: {DRY_RUN_IMAGES} images, 2 epochs")
    backbone: str = option("resnet50", "torchvision classification model whose features are used")
    weights: str = option("DEFAULT", "of the backbone: a member of its weights enum, a .pth file, or none for random")
    on_bad_image: Literal["error", "skip"] = option("error", "what to do with images that cannot be read")
    undersampler: Literal["none", "cap", "cap-rows", "tomek", "mlrus", "lprus", "mlenn", "mlul", "remedial"] = option(
        "cap", "applied to the training part; the paper's is cap"
    )
    method: Literal["recommended", "paper", "label-graph", "semantic", "linear-probe"] = option(
        "recommended", "what is trained; paper: its triplets and its settings of what follows"
    )
    compare: bool = option(False, "run every method on one cache, and print one table")
    epochs: int | None = option(None, "of each stage; by default the method's own, 50, the paper's 10")
    batch_size: int | None = option(None, "by default the method's own, 64, the paper's 256")
    lr: float | None = option(None, "learning rate of each stage; by default the method's own, 0.001, the paper's 0.01")
    lr_drops: tuple[int, ...] = option((), "epochs after which the learning rate falls to a tenth")
    margin: float | None = option(None, "of the paper's triplet loss, on squared Euclidean distance; by default 1")
    positive_order: Literal["farthest", "random"] | None = option(None, "of the paper's miner; by default farthest")
    activation: Literal["sigmoid", "softmax"] | None = option(
        None, "of the classifier and the linear probe; by default sigmoid, the paper's softmax"
    )
    word_vectors: Path | None = option(
        None, "word2vec or GloVe file for label-graph and semantic; by default what labels occur together"
    )
    image_batch_size: int = option(32, "images that pass through the backbone together")
    num_workers: int = option(2, "processes that read images ahead of the backbone")
    device: str = option("cuda" if torch.cuda.is_available() else "cpu", "where the networks run")
    seed: int = option(0, "of the split, the undersampler, the heads and the batches")

    def __post_init__(self) -> None:
        for name, least in (
            ("epochs", 1),
            ("batch_size", 2),
            ("image_batch_size", 1),
            ("margin", 0),
            ("num_workers", 0),
        ):
            if getattr(self, name) is not None and getattr(self, name) < least:
                raise ValueError(f"--{name.replace('_', '-')} must be at least {least}, got {getattr(self, name)}.")
        for name, methods in OPTIONS_OF_METHODS.items():
            if getattr(self, name) is not None and not self.compare and self.method not in methods:
                raise ValueError(
                    f"--{name.replace('_', '-')} is for --method {' or '.join(methods)}, got --method {self.method}."
                )
        if self.word_vectors is not None and not self.word_vectors.is_file():
            raise ValueError(f"--word-vectors {self.word_vectors} is no file.")
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"--device {self.device} cannot be used here ({error}).") from error

    def settings(self) -> MethodSettings:
        """Return what the method is trained with: its own settings, but for what is chosen here."""
        names = ("epochs", "batch_size", "lr", "lr_drops", "margin", "positive_order", "activation")
        chosen = {name: value for name in names if (value := getattr(self, name)) is not None}
        settings = replace(METHODS[self.method].settings, **chosen)
        if not self.dry_run:
            return settings
        return replace(settings, epochs=min(settings.epochs, 2), batch_size=min(settings.batch_size, 16))


@dataclass(frozen=True, kw_only=True)
class AdsConfig(Config):
    """Sentiments of advertisement images by embeddings that follow label similarity; on a synthetic set by default."""

    annotations: Path | None = option(None, "Sentiments.json; without it a synthetic set is made and used")
    label_list: Path | None = option(None, "Sentiments_List.txt; by default beside the annotations")
    image_root: Path | None = option(None, "folder that the keys of the annotations are relative to")
    experiments: Literal["one", "paper"] = option("one", "paper: its four runs, with its settings of all the above")
    min_votes: int = option(1, "annotators who must name a label: 1 is the union (the paper's), 2 agreement")
    soft_labels: bool = option(False, "train on votes / annotators; evaluate on --min-votes; needs --undersampler none")
    synthetic_images: int = option(1500, "size of the synthetic set")

    def __post_init__(self) -> None:
        if self.experiments == "paper":
            own = ("epochs", "batch_size", "lr", "margin", "positive_order", "activation", "word_vectors")
            given = [name for name in own if getattr(self, name) is not None] + ["lr_drops"] * bool(self.lr_drops)
            if given:
                raise ValueError(
                    f"--experiments paper has settings of its own for --{given[0].replace('_', '-')}: leave it out, or "
                    "take --method paper, which is one run."
                )
        super().__post_init__()
        if self.compare and self.experiments == "paper":
            raise ValueError("--compare and --experiments paper are two comparisons: choose one.")
        if self.soft_labels and (self.undersampler != "none" or self.experiments == "paper"):
            raise ValueError("--soft-labels needs --undersampler none: undersamplers count whole labels.")
        if self.annotations is not None and self.image_root is None:
            raise ValueError("--annotations needs --image-root, the folder that its keys are relative to.")


def main(config: AdsConfig) -> None:
    """Run one method, all of them, or the paper's four runs on one cache, and print the comparison."""
    images = read_ads(config)
    folder = open_run_folder(config, "ad_sentiment")
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
    report = comparison_report(title, runs, with_paper=isinstance(next(iter(configs.values())), AdsConfig))
    write_whole(folder / "report.md", report)
    figures.plot_comparison(comparison_rows(runs), COMPARED, folder / "comparison.png")
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
                progress=lambda items: bar("posters", items),
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
    """Run the pipeline on labelled images and leave everything behind in a folder.

    Args:
        config: What to do.
        images: On what.
        folder: Where checkpoints, figures and report go; checkpoints that are there are gone on with.

    Returns:
        The content of `metrics.json`; nothing but in the first of several processes, which measures for all.
    """
    seconds: dict[str, float] = {}
    (folder / "figures").mkdir(parents=True, exist_ok=True)

    # 1. The backbone, frozen, and the feature of each image, computed once and cached.
    backbone = load_backbone(config, synthetic=images.synthetic).to(config.device)
    resolved = {"weights": backbone.weights, "transform": repr(backbone.transform)}
    on_first_rank(lambda: save_config(folder, asdict(config), **resolved))
    with clock("features", seconds), bar("features", unit="img") as progress:
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
    method, settings = METHODS[config.method], config.settings()
    shop = Workshop(
        features=features,
        rows=train[kept],
        targets=targets,
        validation=validation,
        labels=images.labels,
        label_names=images.label_names,
        settings=settings,
        folder=folder,
        device=config.device,
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
    scores = {"label frequencies": frequencies} | {title: result.scores for title, result in fitted.items()}
    with clock("evaluation", seconds):
        for title in bar("evaluation", scores, unit="method"):
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
        "bad_images": extracted.bad_images,
        "seconds": seconds,
        "peak_memory_mb": peak_memory_mb(),
    }
    write_whole(folder / "metrics.json", json.dumps(metrics, indent=1))
    with clock("figures", seconds):
        figures.draw_training(shop.histories, folder / "figures")
        figures.draw_labels(images.targets[train], targets, images.label_names, folder / "figures")
        figures.draw_evaluation(tested, images.label_names, folder / "figures")
        figures.draw_space(result.embeddings, images, parts, folder / "figures", seed=config.seed)
    write_whole(folder / "metrics.json", json.dumps(metrics, indent=1))
    drawn = {path.name for path in (folder / "figures").iterdir()}
    report = run_report(f"A run on {images.title}", metrics, figures=drawn, with_paper=isinstance(config, AdsConfig))
    write_whole(folder / "report.md", report)
    print("", *caveats, "", table(measures["test"]), "", NOTE, f"Report, figures and checkpoints: {folder}", sep="\n")
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


def undersample(config: Config, features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return which training rows are kept, and their labels; a row that was split is there twice."""
    if config.undersampler == "none":
        return torch.arange(len(targets)), targets
    sampler = clone(UNDERSAMPLERS[config.undersampler])
    if "random_state" in sampler.get_params():
        sampler.set_params(random_state=config.seed)
    _, kept_targets = sampler.fit_resample(features.numpy(), targets.numpy())
    rows = sampler.source_indices_ if isinstance(sampler, REMEDIAL) else sampler.sample_indices_
    return torch.from_numpy(rows), torch.from_numpy(kept_targets)


if __name__ == "__main__":
    logging.basicConfig(format="%(levelname)s: %(message)s")
    try:
        with joined_processes():
            main(parse(AdsConfig))
    except (ValueError, OSError, FloatingPointError) as error:
        raise SystemExit(f"error: {error}") from error
