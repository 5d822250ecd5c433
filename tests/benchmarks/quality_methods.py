"""The methods that `quality.py` compares: rivals, the way from the paper's recipe to ours, and what else was tried."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import MultiSimilarityLoss, TripletMarginLoss
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mlmetric.estimators import RECOMMENDED_HEAD, MetricEmbedder
from mlmetric.heads import ClassifierHead, EmbeddingHead, LabelGraphHead, SemanticProjectionHead
from mlmetric.label_vectors import cooccurrence_vectors
from mlmetric.losses import (
    AsymmetricLoss,
    HyP2Loss,
    LogRatioLoss,
    MultiLabelLoss,
    MultiLabelProxyAnchorLoss,
    MultiLabelSupConLoss,
    MultiLabelTripletMarginLoss,
    SimilarityRegressionLoss,
    TwoWayLoss,
)
from mlmetric.miners import MultiLabelSemiHardMiner
from mlmetric.similarity import Jaccard
from mlmetric.training import TrainingConfig, apply_in_batches, fit_classifier, fit_embedding

LEARNING_RATES = (3e-4, 1e-3, 3e-3)


@dataclass(frozen=True)
class Parts:
    """A set, split for one seed; `train` is `fit` and `validation` together."""

    train: Tensor
    train_labels: Tensor
    fit: Tensor
    validation: Tensor
    test: Tensor
    test_labels: Tensor
    seed: int


@dataclass(frozen=True)
class Result:
    """Embeddings of the training and test rows; label scores of both where the method has its own."""

    train: Tensor
    test: Tensor
    scores: tuple[Tensor, Tensor] | None = None
    seconds: float = 0.0


def no_loss(embeddings: Tensor, labels: Tensor) -> Tensor:
    """Leave all to the classifier that is trained along."""
    return embeddings.sum() * 0


class Averaged(nn.Module):
    """Train a head, and embed by the exponential moving average of its weights."""

    def __init__(self, head: nn.Module, decay: float = 0.99) -> None:
        super().__init__()
        self.head = head
        self.average = AveragedModel(head, multi_avg_fn=get_ema_multi_avg_fn(decay))

    def forward(self, features: Tensor) -> Tensor:
        """Embed features, `(N, D)`."""
        if self.training:
            self.average.update_parameters(self.head)
            return self.head(features)
        return self.average(features)


def averaged_head(num_features: int) -> nn.Module:
    """Make the recommended head with averaged weights."""
    return Averaged(RECOMMENDED_HEAD(num_features))


DROPOUT = {"input_dropout": 0.25, "dropout": 0.5}
PLAIN_DROPOUT = partial(EmbeddingHead, **DROPOUT)
UNIT = partial(EmbeddingHead, norm_exponent=0.0)
UNIT_DROPOUT = partial(EmbeddingHead, norm_exponent=0.0, **DROPOUT)
PERCEPTRON = partial(EmbeddingHead, activate_last=True)  # the embedding is its second hidden layer
PERCEPTRON_DROPOUT = partial(EmbeddingHead, activate_last=True, **DROPOUT)
# One head, nothing mixed, no classifier trained along: what is common to the methods that are compared.
SINGLE: dict[str, Any] = {"n_members": 1, "mixup": 0.0, "classifier_weight": 0.0}


def triplet_settings(
    *,
    margin: float,
    power: int = 1,
    order: str = "random",
    per_anchor: int = 10,
    kind: str = "all",
    by_gap: bool = False,
) -> dict[str, Any]:
    """Give loss and miner of a triplet recipe: of triplets in the wrong order, or of all within the margin."""
    distance = LpDistance(normalize_embeddings=False, power=power)
    loss = (
        MultiLabelTripletMarginLoss(margin, distance=distance)
        if by_gap
        else TripletMarginLoss(margin=margin, distance=distance)
    )
    miner = MultiLabelSemiHardMiner(
        margin=margin,
        type_of_triplets=kind,
        max_partial_per_positive=1,
        max_disjoint_per_positive=1,
        max_triplets_per_anchor=per_anchor,
        positive_order=order,
        distance=distance,
    )
    return {"loss": loss, "miner": miner}


# Methods. Each is called with the parts and a learning rate.


def raw(parts: Parts, lr: float) -> Result:
    """Take the features as they are: the linear probe."""
    return Result(parts.train, parts.test)


def embed(
    parts: Parts, lr: float, *, proxies: Callable[[int], nn.Module] | None = None, beside: float = 0.0, **settings: Any
) -> Result:
    """Train a `MetricEmbedder`; `beside` is the weight of the raw features beside the embedding."""
    torch.manual_seed(parts.seed)
    if proxies is not None:
        settings["loss"] = proxies(parts.train_labels.shape[1])
    embedder = MetricEmbedder(**{"lr": lr, "standardize": False, "random_state": parts.seed} | settings)
    rows = (parts.train[parts.fit].numpy(), parts.train_labels[parts.fit].numpy())
    held_back = (parts.train[parts.validation].numpy(), parts.train_labels[parts.validation].numpy())
    started = time.perf_counter()
    if embedder.validation_fraction:
        embedder.fit(*rows, validation=held_back)
    else:
        embedder.fit(*rows)
    seconds = time.perf_counter() - started
    train, test = (torch.from_numpy(embedder.transform(part.numpy())) for part in (parts.train, parts.test))
    if beside:
        scale = beside * float(train.norm(dim=1).mean() / parts.train.norm(dim=1).mean())
        train, test = torch.cat([train, scale * parts.train], 1), torch.cat([test, scale * parts.test], 1)
    return Result(train, test, seconds=seconds)


class Classifier(ClassifierHead):
    """A linear classifier with another loss than binary cross entropy."""

    def __init__(self, in_features: int, num_labels: int, label_loss: nn.Module) -> None:
        super().__init__(in_features, num_labels)
        self.label_loss = label_loss

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Take the loss of logits."""
        value: Tensor = self.label_loss(logits, labels.to(logits.dtype))
        return value


def perceptron(parts: Parts, lr: float, *, label_loss: nn.Module) -> Result:
    """Train a perceptron by a loss on logits; its second hidden layer is the embedding."""
    torch.manual_seed(parts.seed)
    head = PERCEPTRON_DROPOUT(parts.train.shape[1])
    started = time.perf_counter()
    fit_embedding(
        head,
        parts.train[parts.fit],
        parts.train_labels[parts.fit],
        loss=no_loss,
        classifier=Classifier(256, parts.train_labels.shape[1], label_loss),
        config=config(parts, lr),
        validation=(parts.train[parts.validation], parts.train_labels[parts.validation]),
    )
    seconds = time.perf_counter() - started
    return Result(apply_in_batches(head, parts.train), apply_in_batches(head, parts.test), seconds=seconds)


def config(parts: Parts, lr: float) -> TrainingConfig:
    """Train as the estimators do by default."""
    return TrainingConfig(max_epochs=50, batch_size=64, lr=lr, keep_best=True, seed=parts.seed)


def label_graph(parts: Parts, lr: float) -> Result:
    """Train ML-GCN on the features, with co-occurrence vectors of the labels."""
    torch.manual_seed(parts.seed)
    head = LabelGraphHead.from_labels(parts.train.shape[1], parts.train_labels[parts.fit])
    return scored(head, parts, lr)


def semantic(parts: Parts, lr: float) -> Result:
    """Train the semantic projection on the features, with co-occurrence vectors of the labels."""
    torch.manual_seed(parts.seed)
    head = SemanticProjectionHead(parts.train.shape[1], cooccurrence_vectors(parts.train_labels[parts.fit]))
    result = scored(head, parts, lr)
    with torch.no_grad():
        return replace(result, train=head.project(parts.train), test=head.project(parts.test))


def scored(head: Any, parts: Parts, lr: float) -> Result:
    """Train a head that scores labels from features, whose neighbours stay those of the features."""
    held_back = (parts.train[parts.validation], parts.train_labels[parts.validation])
    started = time.perf_counter()
    fit_classifier(
        head,
        parts.train[parts.fit],
        parts.train_labels[parts.fit],
        config=config(parts, lr),
        validation=held_back,
    )
    seconds = time.perf_counter() - started
    scores = (apply_in_batches(head, parts.train), apply_in_batches(head, parts.test))
    return Result(parts.train, parts.test, scores, seconds)


@dataclass(frozen=True)
class Method:
    """How embeddings are made, and the learning rates to choose from, or the method whose choice is taken."""

    make: Callable[..., Result]
    rates: tuple[float, ...] = LEARNING_RATES
    rate_of: str | None = None


def metric(head: Callable[[int], nn.Module] = UNIT_DROPOUT, *, rate_of: str | None = None, **settings: Any) -> Method:
    """Describe a method that trains a single head, or several that are joined."""
    return Method(partial(embed, head=head, **SINGLE | settings), rate_of=rate_of)


GAP = triplet_settings(margin=0.5, by_gap=True)
BCE: dict[str, Any] = {"loss": no_loss, "classifier_weight": 1.0}
SUPCON_BCE: dict[str, Any] = {"loss": MultiLabelSupConLoss(), "classifier_weight": 1.0}
TEN_POSITIVES: dict[str, Any] = {
    "max_triplets_per_anchor": 10,
    "max_partial_per_positive": 1,
    "max_disjoint_per_positive": 1,
    "positive_order": "random",
}
RIVALS: dict[str, Method] = {
    "raw features, linear probe": Method(raw, (0.0,)),
    "perceptron, BCE": metric(PERCEPTRON, **BCE),
    "perceptron, BCE, dropout": metric(PERCEPTRON_DROPOUT, **BCE),
    "perceptron, asymmetric loss, dropout": Method(partial(perceptron, label_loss=AsymmetricLoss())),
    "perceptron, two-way loss, dropout": Method(partial(perceptron, label_loss=TwoWayLoss())),
    "label graph (ML-GCN)": Method(label_graph),
    "semantic projection": Method(semantic),
    "SupCon, shares a label": metric(UNIT, loss=MultiLabelSupConLoss("any")),
    "SupCon, Jaccard": metric(UNIT, loss=MultiLabelSupConLoss()),
    "SupCon, Jaccard, dropout": metric(loss=MultiLabelSupConLoss()),
    "SupCon, per label, dropout": metric(loss=MultiLabelSupConLoss("per_label")),
    "log-ratio, dropout": metric(PLAIN_DROPOUT, loss=LogRatioLoss()),
    "proxy anchor, dropout": metric(proxies=partial(MultiLabelProxyAnchorLoss, embedding_size=256)),
    "HyP2, dropout": metric(proxies=partial(HyP2Loss, embedding_size=256)),
    "multi-similarity (PML), dropout": metric(loss=MultiLabelLoss(MultiSimilarityLoss(), Jaccard())),
    "triplets, margin by Jaccard gap, dropout": metric(**GAP),
    "similarity regression, dropout": metric(loss=SimilarityRegressionLoss()),
    "triplets by gap + BCE, dropout": metric(**GAP, classifier_weight=0.3),
    "SupCon, Jaccard + BCE, dropout": metric(**SUPCON_BCE),
    "4 joined: perceptron, BCE, dropout": metric(
        PERCEPTRON_DROPOUT, **BCE, n_members=4, rate_of="perceptron, BCE, dropout"
    ),
    "4 joined: perceptron, BCE, dropout, mixup": metric(
        PERCEPTRON_DROPOUT, **BCE, n_members=4, mixup=0.4, rate_of="perceptron, BCE, dropout"
    ),
    "4 joined: SupCon, Jaccard + BCE, dropout": metric(
        **SUPCON_BCE, n_members=4, rate_of="SupCon, Jaccard + BCE, dropout"
    ),
}
MINERS: dict[str, dict[str, Any]] = {
    "its defaults": {},
    "all violations of the margin": {"type_of_triplets": "all"},
    "FaceNet's semi-hard ones": {"type_of_triplets": "semihard"},
    "all violations, Jaccard": {"type_of_triplets": "all", "similarity": Jaccard()},
    "all violations, 10 positives, a negative each": {**TEN_POSITIVES, "type_of_triplets": "all"},
    "all violations, 10 positives, the hardest negative": {
        **TEN_POSITIVES,
        "type_of_triplets": "all",
        "negative_order": "hardest",
    },
}
RIVALS |= {
    f"miner: {title}": metric(loss=TripletMarginLoss(margin=0.2), miner=MultiLabelSemiHardMiner(**settings))
    for title, settings in MINERS.items()
}
# The way from the paper's recipe to ours: at each step what is added, and to which part.
STEPS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("lr 0.001", "embedder", {"lr": 0.001}),
    ("batches of 64", "embedder", {"batch_size": 64}),
    ("best of 50 epochs", "embedder", {"max_epochs": 50, "validation_fraction": 0.2}),
    ("unit length", "head", {"norm_exponent": 0.0}),
    ("margin 0.2", "triplets", {"margin": 0.2}),
    ("all triplets within the margin", "triplets", {"kind": "all"}),
    ("10 random positives", "triplets", {"order": "random", "per_anchor": 10}),
    ("margin by Jaccard gap, 0.5", "triplets", {"margin": 0.5, "by_gap": True}),
    ("dropout", "head", DROPOUT),
    ("log-ratio loss for triplets", "embedder", {"loss": LogRatioLoss(), "miner": None}),
    ("lengths as they are", "head", {"norm_exponent": 1.0}),
    ("BCE trained along", "embedder", {"classifier_weight": 2.0}),
    ("rectified embedding", "head", {"activate_last": True}),
    ("mixup 0.4", "embedder", {"mixup": 0.4}),
    ("features clipped at 3", "head", {"clip": 3.0}),
    ("a quarter of the way to unit length", "head", {"norm_exponent": 0.75}),
    ("BCE weighs 3", "embedder", {"classifier_weight": 3.0}),
)
SINGLE_RECOMMENDED = f"... + {STEPS[-1][0]}"
RECOMMENDED = "recommended (... + 4 heads joined)"


def path() -> dict[str, Method]:
    """Go from the paper's recipe to ours, one step at a time."""
    embedder: dict[str, Any] = dict(SINGLE, batch_size=256, max_epochs=10, validation_fraction=0.0, lr=0.01)
    triplets: dict[str, Any] = {"margin": 1.0, "power": 2, "order": "farthest", "per_anchor": 1, "kind": "hard"}
    parts: dict[str, dict[str, Any]] = {"embedder": embedder, "triplets": triplets, "head": {}}

    def method() -> Method:
        settings = {**triplet_settings(**parts["triplets"]), **parts["embedder"]}
        rate = settings.pop("lr")
        return Method(partial(embed, head=partial(EmbeddingHead, **parts["head"]), **settings), (rate,))

    methods = {"paper": method()}
    for name, part, changes in STEPS:
        parts[part] = parts[part] | changes
        methods[f"... + {name}"] = method()
    return methods


def one_head(**changes: Any) -> Method:
    """Describe the recommended recipe with one head and another change."""
    return Method(partial(embed, **{"n_members": 1} | changes), (MetricEmbedder().lr,))


METHODS: dict[str, Method] = {
    **RIVALS,
    **path(),
    RECOMMENDED: one_head(n_members=MetricEmbedder().n_members),
    # What else was tried, with one head each, beside the last but one.
    "one head, similarity regression": one_head(loss=SimilarityRegressionLoss(), classifier_weight=0.3),
    "one head, half normalised, BCE weighs 5": one_head(
        head=partial(RECOMMENDED_HEAD, norm_exponent=0.5), classifier_weight=5.0
    ),
    "one head, unit length": one_head(head=partial(RECOMMENDED_HEAD, norm_exponent=0.0)),
    "one head, mixup 1": one_head(mixup=1.0),
    "one head, label-balanced batches": one_head(items_per_label=4),
    "one head, averaged weights": one_head(head=averaged_head),
    "one head, raw features beside": one_head(beside=0.5),
}
