"""Training of the methods that `quality.py` compares."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import TripletMarginLoss
from torch import Tensor, nn

from mlmetric.estimators import MetricEmbedder
from mlmetric.heads import (
    ClassifierHead,
    EmbeddingHead,
    LabelGraphHead,
    SemanticProjectionHead,
)
from mlmetric.label_vectors import cooccurrence_vectors
from mlmetric.losses import MultiLabelTripletMarginLoss
from mlmetric.miners import MultiLabelSemiHardMiner
from mlmetric.training import (
    TrainingConfig,
    apply_in_batches,
    fit_classifier,
    fit_embedding,
)

LEARNING_RATES = (3e-4, 1e-3, 3e-3)


@dataclass(frozen=True)
class Parts:
    """A data set with the split of one seed; `fit` and `validation` are row indices of `train`."""

    train: Tensor
    train_labels: Tensor
    fit: Tensor
    validation: Tensor
    test: Tensor
    test_labels: Tensor
    seed: int

    @property
    def rows(self) -> tuple[Tensor, Tensor]:
        """Features of training rows and test rows."""
        return self.train, self.test


@dataclass(frozen=True)
class Result:
    """Embeddings of training and test rows, and what the method's own classifier returns, if it has one.

    Attributes:
        train: Embeddings of the training rows.
        test: Embeddings of the test rows.
        scores: Label scores of training rows and test rows.
        predictions: Predicted labels of the test rows, if the method chooses its thresholds itself.
        seconds: CPU time of the training.
    """

    train: Tensor
    test: Tensor
    scores: tuple[Tensor, Tensor] | None = None
    predictions: Tensor | None = None
    seconds: float = 0.0


def no_loss(embeddings: Tensor, labels: Tensor) -> Tensor:
    """Return 0, so that only the classifier that is trained with the head has a loss."""
    return embeddings.sum() * 0


DROPOUT = {"input_dropout": 0.25, "dropout": 0.5}
PLAIN_DROPOUT = partial(EmbeddingHead, **DROPOUT)
UNIT = partial(EmbeddingHead, norm_exponent=0.0)
UNIT_DROPOUT = partial(EmbeddingHead, norm_exponent=0.0, **DROPOUT)
PERCEPTRON = partial(EmbeddingHead, activate_last=True)  # the embedding is its second hidden layer
PERCEPTRON_DROPOUT = partial(EmbeddingHead, activate_last=True, **DROPOUT)
# The best of 50 epochs: the training of all methods but the recommended ones.
BEST_OF_50: dict[str, Any] = {"max_epochs": 50, "batch_size": 64}
# One head, no averages, no mixup, no classifier trained with it: what the compared embeddings have in common.
SINGLE: dict[str, Any] = {**BEST_OF_50, "n_members": 1, "ema_decay": 0.0, "mixup": 0.0, "classifier_weight": 0.0}


def triplet_settings(
    *,
    margin: float,
    power: int = 1,
    order: str = "random",
    per_anchor: int = 10,
    kind: str = "all",
    by_gap: bool = False,
) -> dict[str, Any]:
    """Return the loss and the miner of a triplet recipe; `kind` is the type of triplets of the miner."""
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


# Methods, called with the parts and a learning rate.


def embed(
    parts: Parts,
    lr: float,
    *,
    proxies: Callable[[int], nn.Module] | None = None,
    feature_weight: float = 0.0,
    **settings: Any,
) -> Result:
    """Train a `MetricEmbedder`; with `feature_weight`, concatenate the embedding with the weighted features."""
    torch.manual_seed(parts.seed)
    if proxies is not None:
        settings["loss"] = proxies(parts.train_labels.shape[1])
    embedder = MetricEmbedder(**{"lr": lr, "standardize": False, "random_state": parts.seed} | settings)
    fitted = (parts.train[parts.fit].numpy(), parts.train_labels[parts.fit].numpy())
    validation = (parts.train[parts.validation].numpy(), parts.train_labels[parts.validation].numpy())
    started = time.process_time()
    if embedder.validation_fraction:
        embedder.fit(*fitted, validation=validation)
    else:
        embedder.fit(*fitted)
    seconds = time.process_time() - started
    train, test = (torch.from_numpy(embedder.transform(part.numpy())) for part in (parts.train, parts.test))
    if feature_weight:
        scale = feature_weight * float(train.norm(dim=1).mean() / parts.train.norm(dim=1).mean())
        train, test = torch.cat([train, scale * parts.train], 1), torch.cat([test, scale * parts.test], 1)
    return Result(train, test, seconds=seconds)


def perceptron(parts: Parts, lr: float, *, label_loss: nn.Module) -> Result:
    """Train a perceptron by a loss on logits; the embedding is its second hidden layer."""
    torch.manual_seed(parts.seed)
    head = PERCEPTRON_DROPOUT(parts.train.shape[1])
    started = time.process_time()
    fit_embedding(
        head,
        parts.train[parts.fit],
        parts.train_labels[parts.fit],
        loss=no_loss,
        classifier=ClassifierHead(256, parts.train_labels.shape[1]),
        classifier_loss=label_loss,
        config=training_config(parts, lr),
        validation=(parts.train[parts.validation], parts.train_labels[parts.validation]),
    )
    seconds = time.process_time() - started
    return Result(apply_in_batches(head, parts.train), apply_in_batches(head, parts.test), seconds=seconds)


def training_config(parts: Parts, lr: float) -> TrainingConfig:
    """Return the settings of the methods that classify features."""
    return TrainingConfig(**BEST_OF_50, lr=lr, keep_best=True, seed=parts.seed)


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
    """Train a head that classifies features; retrieval uses the features."""
    started = time.process_time()
    train_classifier(head, parts, training_config(parts, lr))
    seconds = time.process_time() - started
    scores = (apply_in_batches(head, parts.train), apply_in_batches(head, parts.test))
    return Result(parts.train, parts.test, scores, seconds=seconds)


def train_classifier(head: Any, parts: Parts, settings: TrainingConfig) -> None:
    """Train a head that classifies features."""
    fit, validation = ((parts.train[rows], parts.train_labels[rows]) for rows in (parts.fit, parts.validation))
    fit_classifier(head, *fit, config=settings, validation=validation)


@dataclass(frozen=True)
class Method:
    """A training function, and its candidate learning rates or the method whose learning rate it uses."""

    make: Callable[..., Result]
    rates: tuple[float, ...] = LEARNING_RATES
    rate_of: str | None = None


def metric(head: Callable[[int], nn.Module] = UNIT_DROPOUT, *, rate_of: str | None = None, **settings: Any) -> Method:
    """Return a method that trains one head or several."""
    return Method(partial(embed, head=head, **SINGLE | settings), rate_of=rate_of)
