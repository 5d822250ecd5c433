"""The methods that can be compared: each turns features and labels of the training part into scores of every image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import TripletMarginLoss
from torch import Tensor, nn

from mlmetric.distributed import on_first_rank
from mlmetric.estimators import RECOMMENDED_HEAD, MetricEmbedder
from mlmetric.heads import ClassifierHead, EmbeddingEnsemble, EmbeddingHead, LabelGraphHead, SemanticProjectionHead
from mlmetric.label_vectors import cooccurrence_vectors, read_word_vectors
from mlmetric.losses import LogRatioLoss
from mlmetric.miners import MultiLabelSemiHardMiner
from mlmetric.similarity import InnerProduct
from mlmetric.training import EpochRecord, TrainingConfig, apply_in_batches, fit_classifier, fit_embedding

from .config import Config
from .progress import bar, clock

RECIPE = MetricEmbedder().get_params()


@dataclass(frozen=True)
class MethodSettings:
    """What a method is trained with where the command line does not say otherwise."""

    epochs: int
    batch_size: int
    lr: float
    lr_drops: tuple[int, ...] = ()
    margin: float = 1.0
    positive_order: str = "random"
    activation: str = "sigmoid"
    keep_best: bool = True


PAPER_SETTINGS = MethodSettings(
    epochs=10, batch_size=256, lr=0.01, positive_order="farthest", activation="softmax", keep_best=False
)
OUR_SETTINGS = MethodSettings(epochs=RECIPE["max_epochs"], batch_size=RECIPE["batch_size"], lr=RECIPE["lr"])


@dataclass
class Workshop:
    """The rows of a run, and how its heads are trained: with bars, clocks, and a checkpoint for each.

    Attributes:
        features: Of every image, shape `(N, D)`.
        rows: The training rows after undersampling; one that was split is there twice.
        targets: Labels of these rows.
        validation: The rows to choose epochs by.
        labels: Hard labels of every image.
        label_names: Their names.
        settings: What heads are trained with.
        folder: Where checkpoints go; those that are there are gone on with.
        device: Where heads are trained.
        seed: Of starts and batches.
        word_vectors: File of word vectors for the label-graph methods; None for co-occurrence.
        seconds: What each stage took; filled in.
        histories: The records of each stage; filled in.
    """

    features: Tensor
    rows: Tensor
    targets: Tensor
    validation: Tensor
    labels: Tensor
    label_names: list[str]
    settings: MethodSettings
    folder: Path
    device: str
    seed: int
    word_vectors: Path | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    histories: dict[str, list[EpochRecord]] = field(default_factory=dict)

    def fit_embedding(
        self, stage: str, head: EmbeddingHead, *, seed: int = 0, mixup: float = 0.0, **parts: Any
    ) -> None:
        """Train a head by a metric loss."""
        head.to(self.device)
        head.standardize.fit(self.features[self.rows])
        config = self._config(seed=1000 * self.seed + seed, keep_best=self.settings.keep_best, mixup=mixup)
        with clock(stage, self.seconds), bar(stage, total=config.max_epochs, unit="epochs") as progress:
            self.histories[stage] = fit_embedding(
                head,
                self.features[self.rows],
                self.targets,
                config=config,
                validation=(self.features[self.validation], self.labels[self.validation]),
                checkpoint=self.folder / f"{stage}.pt",
                callback=lambda record: progress.update(),
                **parts,
            )

    def fit_classifier(self, stage: str, head: Any, inputs: Tensor) -> Tensor:
        """Train a head that scores labels, and return the probabilities of every image."""
        head.to(self.device)
        head.standardize.fit(inputs[self.rows])
        config = self._config(seed=self.seed, keep_best=self.settings.keep_best)
        with clock(stage, self.seconds), bar(stage, total=config.max_epochs, unit="epochs") as progress:
            self.histories[stage] = fit_classifier(
                head,
                inputs[self.rows],
                self.targets,
                config=config,
                validation=(inputs[self.validation], self.labels[self.validation]),
                checkpoint=self.folder / f"{stage}.pt",
                callback=lambda record: progress.update(),
            )
        return on_first_rank(lambda: head.probabilities(apply_in_batches(head, inputs)).cpu())

    def embed(self, head: nn.Module) -> Tensor:
        """Embed every image; where processes are joined, all get what the first one has."""
        return on_first_rank(lambda: apply_in_batches(head, self.features).cpu())

    def label_vectors(self) -> Tensor:
        """Make a vector for each label: from the word vectors, or from what occurs together in training."""
        if self.word_vectors is None:
            return cooccurrence_vectors(self.targets)
        return read_word_vectors(self.word_vectors, self.label_names).vectors

    def _config(self, **others: Any) -> TrainingConfig:
        given = self.settings
        return TrainingConfig(
            max_epochs=given.epochs, batch_size=given.batch_size, lr=given.lr, lr_drops=given.lr_drops, **others
        )


@dataclass(frozen=True)
class Fitted:
    """What a method makes of every image: probabilities `(N, L)`, and what its neighbours are found by `(N, E)`."""

    scores: Tensor
    embeddings: Tensor


def linear_probe(shop: Workshop) -> Fitted:
    """Train a linear classifier on the features."""
    head = ClassifierHead(shop.features.shape[1], shop.labels.shape[1], activation=shop.settings.activation)
    head.init_from_labels(shop.targets)
    return Fitted(shop.fit_classifier("linear_probe", head, shop.features), shop.features)


def paper(shop: Workshop) -> Fitted:
    """Train the paper's two stages: triplets, one for each anchor; then a classifier on the frozen embedding."""
    distance = LpDistance(normalize_embeddings=False, power=2)
    miner = MultiLabelSemiHardMiner(
        similarity=InnerProduct(),
        max_partial_per_positive=1,
        max_disjoint_per_positive=1,
        max_triplets_per_anchor=1,
        positive_order=shop.settings.positive_order,
        distance=distance,
    )
    head = EmbeddingHead(shop.features.shape[1])
    loss = TripletMarginLoss(margin=shop.settings.margin, distance=distance)
    shop.fit_embedding("embedding", head, loss=loss, miner=miner)
    return _classified(shop, head, activation=shop.settings.activation)


def recommended(shop: Workshop) -> Fitted:
    """Train heads whose distances follow those of the labels and whose place tells them; then a classifier."""
    members = []
    for number in range(1, RECIPE["n_members"] + 1):
        head = RECOMMENDED_HEAD(shop.features.shape[1])
        shop.fit_embedding(
            f"embedding_{number}",
            head,
            seed=number,
            mixup=RECIPE["mixup"],
            loss=LogRatioLoss(),
            classifier=ClassifierHead(head.embedding_size, shop.labels.shape[1]),
            classifier_weight=RECIPE["classifier_weight"],
        )
        members.append(head)
    return _classified(shop, EmbeddingEnsemble(members), activation=shop.settings.activation)


def label_graph(shop: Workshop) -> Fitted:
    """Train ML-GCN: classifiers of the features that come out of a graph over labels."""
    head = LabelGraphHead.from_labels(shop.features.shape[1], shop.targets, label_vectors=shop.label_vectors())
    return Fitted(shop.fit_classifier("label_graph", head, shop.features), shop.features)


def semantic(shop: Workshop) -> Fitted:
    """Train a projection of the features into the space of label vectors, after Pilli et al."""
    head = SemanticProjectionHead(shop.features.shape[1], shop.label_vectors())
    scores = shop.fit_classifier("semantic", head, shop.features)
    with torch.no_grad():
        return Fitted(scores, on_first_rank(lambda: head.project(shop.features.to(shop.device)).cpu()))


def _classified(shop: Workshop, head: nn.Module, *, activation: Any) -> Fitted:
    embeddings = shop.embed(head)
    classifier = ClassifierHead(embeddings.shape[1], shop.labels.shape[1], activation=activation)
    classifier.init_from_labels(shop.targets)
    return Fitted(shop.fit_classifier("classifier", classifier, embeddings), embeddings)


@dataclass(frozen=True)
class Method:
    """A method: what it is called in tables, how it is trained, and with what."""

    title: str
    fit: Callable[[Workshop], Fitted]
    settings: MethodSettings = OUR_SETTINGS


METHODS = {
    "recommended": Method("recommended embedding", recommended),
    "paper": Method("paper's triplet embedding", paper, PAPER_SETTINGS),
    "label-graph": Method("label graph (ML-GCN)", label_graph),
    "semantic": Method("semantic projection", semantic),
    "linear-probe": Method("raw features, linear probe", linear_probe),
}


def settings_of(config: Config) -> MethodSettings:
    """Return what the method of a run is trained with: its own settings, but for what the options choose."""
    names = ("epochs", "batch_size", "lr", "lr_drops", "margin", "positive_order", "activation")
    chosen = {name: value for name in names if (value := getattr(config, name)) is not None}
    settings = replace(METHODS[config.method].settings, **chosen)
    if not config.dry_run:
        return settings
    return replace(settings, epochs=min(settings.epochs, 2), batch_size=min(settings.batch_size, 16))
