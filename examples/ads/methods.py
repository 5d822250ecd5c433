"""The undersamplers and the methods that a run can choose."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from sklearn.base import clone
from torch import Tensor

from common.progress import progress_bar
from mlmetric.estimators import MetricClassifier
from mlmetric.heads import ClassifierHead, LabelGraphHead, SemanticProjectionHead
from mlmetric.label_vectors import cooccurrence_vectors, read_word_vectors
from mlmetric.training import EpochRecord, TrainingConfig, apply_in_batches, fit_classifier, fit_logistic_regression
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

from .config import Config
from .metric_names import LINEAR_PROBE
from .monitoring import monitored_stages, timed

UNDERSAMPLERS: dict[str, BaseMultiLabelSampler] = {
    "cap": LabelCapUnderSampler(),
    "cap-rows": RandomLabelUnderSampler(),
    "tomek": MultiLabelTomekLinks(protect_minority=True),  # without it, nearly every row would be removed
    "mlrus": MLRUS(),
    "lprus": LPRUS(),
    "mlenn": MLeNN(),
    "mlul": MLUL(),
    "remedial": REMEDIAL(),
}


def undersample(config: Config, features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Undersample the training part.

    Args:
        config: The options of the run, with an undersampler.
        features: Shape `(N, D)`.
        targets: Labels, shape `(N, L)`.

    Returns:
        The indices of the rows that are kept, and their labels. REMEDIAL splits rows: their indices occur twice.
    """
    sampler = clone(UNDERSAMPLERS[config.chosen_undersampler])
    if "random_state" in sampler.get_params():
        sampler.set_params(random_state=config.seed)
    _, kept_targets = sampler.fit_resample(features.numpy(), targets.numpy())
    rows = sampler.source_indices_ if isinstance(sampler, REMEDIAL) else sampler.sample_indices_
    return torch.from_numpy(rows), torch.from_numpy(kept_targets)


def _training_settings(estimator: MetricClassifier) -> dict[str, Any]:
    """Return the settings that an estimator shares with other methods, named as the options of the application."""
    return {
        "epochs": estimator.max_epochs,
        "batch_size": estimator.batch_size,
        "lr": estimator.lr,
        "lr_drops": estimator.lr_drops,
        "keep_best": estimator.keep_best,
    }


DEFAULT_SETTINGS = _training_settings(MetricClassifier())
# A single head without averaged weights, which allow fewer epochs at a higher rate.
HEAD_SETTINGS = {"epochs": 50, "batch_size": 64, "lr": 0.001, "lr_drops": (), "keep_best": True}
PAPER_SETTINGS = _training_settings(MetricClassifier.paper(keep_best=False)) | {  # the paper has no validation images
    "activation": MetricClassifier.paper().activation,
    "margin": 1.0,
    "positive_order": "farthest",
}
DEFAULT_FUSIONS = {"recommended": MetricClassifier().fusion, "paper": MetricClassifier.paper().fusion}
"""The methods that combine image and text, and how. The head of the paper does not support missing text itself."""


@dataclass(frozen=True)
class MethodResult:
    """The results of a method.

    Attributes:
        scores: The probabilities of every image, shape `(N, L)`.
        embeddings: The embeddings for retrieval, shape `(N, E)`.
        thresholds: The thresholds that the method has chosen on the validation images, shape `(L,)`; None if it chooses
            none.
        estimator: The trained estimator; None if the method is not an estimator.
    """

    scores: Tensor
    embeddings: Tensor
    thresholds: Tensor | None = None
    estimator: MetricClassifier | None = None


@dataclass
class RunContext:
    """The data and the settings with which methods are trained.

    Attributes:
        features: The features of every image, shape `(N, D)`; NaN where an image lacks a view.
        labels: The labels of every image, multi-hot, shape `(N, L)`.
        label_names: The names of the L labels.
        train: The indices of the M training images after undersampling.
        targets: The labels of these to train on, shape `(M, L)`.
        validation: The indices of the validation images, on which epochs are chosen.
        settings: The training settings, as in `Method.settings`.
        folder: The folder of checkpoints; training continues from existing ones.
        device: The device of the networks.
        seed: The seed of the weights and batches.
        word_vectors: File of word vectors for the label graph and the semantic projection; None for co-occurrence.
        views: The columns of the features of each view; None for features of images alone.
        seconds: The duration of each stage; filled in by training.
        histories: The records of each stage; filled in by training.
    """

    features: Tensor
    labels: Tensor
    label_names: list[str]
    train: Tensor
    targets: Tensor
    validation: Tensor
    settings: Mapping[str, Any]
    folder: Path
    device: str
    seed: int
    word_vectors: Path | None = None
    views: Mapping[str, slice] | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    histories: dict[str, list[EpochRecord]] = field(default_factory=dict)

    def fit_estimator(self, estimator: MetricClassifier) -> MethodResult:
        """Train an estimator and apply it to every image."""
        settings = self.settings
        estimator.set_params(
            max_epochs=settings["epochs"],
            **{name: settings[name] for name in ("batch_size", "lr", "lr_drops", "keep_best")},
            device=self.device,
            random_state=self.seed,
        )
        num_members = estimator.n_members
        if self.views is not None:
            estimator.set_params(views=self.views, fusion=settings["fusion"])
            num_members *= len(self.views) if settings["fusion"] == "late" else 1
        with self._monitored(num_members + estimator.two_stage) as on_epoch:
            estimator.fit(
                self.features[self.train],
                self.targets,
                validation=(self.features[self.validation], self.labels[self.validation]),
                checkpoint_dir=self.folder,
                callback=on_epoch,
            )
        scores, embeddings = estimator.predict_proba(self.features), estimator.transform(self.features)
        thresholds = torch.from_numpy(estimator.thresholds_) if isinstance(estimator.threshold, str) else None
        return MethodResult(torch.from_numpy(scores), torch.from_numpy(embeddings), thresholds, estimator)

    def fit_head(self, stage: str, head: Any) -> Tensor:
        """Train a head that classifies features, and return the probabilities of every image."""
        settings = self.settings
        head.to(self.device)
        head.standardize.fit(self.features[self.train])
        config = TrainingConfig(
            max_epochs=settings["epochs"],
            **{name: settings[name] for name in ("batch_size", "lr", "lr_drops", "keep_best")},
            seed=self.seed,
        )
        with self._monitored(1) as on_epoch:
            fit_classifier(
                head,
                self.features[self.train],
                self.targets,
                config=config,
                validation=(self.features[self.validation], self.labels[self.validation]),
                checkpoint=self.folder / f"{stage}.pt",
                callback=partial(on_epoch, stage),
            )
        return head.probabilities(apply_in_batches(head, self.features)).cpu()

    def _monitored(self, num_stages: int) -> AbstractContextManager[Callable[[str, EpochRecord], None]]:
        return monitored_stages(num_stages * self.settings["epochs"], self.folder, self.seconds, self.histories)

    def label_vectors(self) -> Tensor:
        """Return a vector for each label, from the word vectors or from the co-occurrence of labels in training."""
        if self.word_vectors is None:
            return cooccurrence_vectors(self.targets)
        return read_word_vectors(self.word_vectors, self.label_names).vectors


def recommended(run: RunContext) -> MethodResult:
    """Train the recommended recipe: an ensemble of embeddings with the log-ratio loss, and classifiers."""
    return run.fit_estimator(MetricClassifier())


def paper(run: RunContext) -> MethodResult:
    """Train the recipe of the paper: an embedding with the triplet loss, and a classifier on it."""
    estimator = MetricClassifier.paper(margin=run.settings["margin"], activation=run.settings["activation"])
    estimator.miner.positive_order = run.settings["positive_order"]
    return run.fit_estimator(estimator)


def label_graph(run: RunContext) -> MethodResult:
    """Train ML-GCN: classifiers of the features that a graph of the labels generates."""
    head = LabelGraphHead.from_labels(run.features.shape[1], run.targets, label_vectors=run.label_vectors())
    return MethodResult(run.fit_head("label_graph", head), run.features)


def semantic(run: RunContext) -> MethodResult:
    """Train a projection of the features into the space of label vectors, after Pilli et al."""
    head = SemanticProjectionHead(run.features.shape[1], run.label_vectors())
    scores = run.fit_head("semantic", head)
    with torch.no_grad():
        return MethodResult(scores, head.project(run.features.to(run.device)).cpu())


def linear_probe(run: RunContext) -> MethodResult:
    """Train a logistic regression of the features for each label; missing features are replaced by their means.

    Images are retrieved by the features of the image alone, even if the text has features too.
    """
    has_views = run.views is not None
    probe = ClassifierHead(run.features.shape[1], run.labels.shape[1], fill_missing=has_views).to(run.device)
    probe.standardize.fit(run.features[run.train], skip_nan=has_views)
    validation = (run.features[run.validation], run.labels[run.validation])
    with timed("linear_probe", run.seconds), progress_bar("linear probe"):
        fit_logistic_regression(probe, run.features[run.train], run.targets, validation=validation)
    scores = probe.probabilities(apply_in_batches(probe, run.features)).cpu()
    return MethodResult(scores, run.features if run.views is None else run.features[:, run.views["image"]])


@dataclass(frozen=True)
class Method:
    """A method.

    Attributes:
        title: Its title in tables.
        fit: The function that trains it.
        settings: The default training settings, by option; `keep_best` is not an option.
    """

    title: str
    fit: Callable[[RunContext], MethodResult]
    settings: Mapping[str, Any]


METHODS = {
    "recommended": Method("recommended embedding", recommended, DEFAULT_SETTINGS),
    "paper": Method("paper's triplet embedding", paper, PAPER_SETTINGS),
    "label-graph": Method("label graph (ML-GCN)", label_graph, HEAD_SETTINGS),
    "semantic": Method("semantic projection", semantic, HEAD_SETTINGS),
    "linear-probe": Method(LINEAR_PROBE, linear_probe, {}),
}


def settings_of(config: Config) -> dict[str, Any]:
    """Return the training settings of a run: those of its method, replaced by the options that are set."""
    settings = dict(METHODS[config.method].settings)
    settings |= {name: value for name in settings if (value := getattr(config, name, None)) not in (None, ())}
    if config.text_option and config.method in DEFAULT_FUSIONS:
        settings["fusion"] = config.fusion or DEFAULT_FUSIONS[config.method]
    if config.dry_run and settings:
        settings |= {"epochs": min(settings["epochs"], 2), "batch_size": min(settings["batch_size"], 16)}
    return settings
