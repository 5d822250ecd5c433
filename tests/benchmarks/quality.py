"""How well embeddings retrieve and how well labels are told from them: every method, on real sets.

python tests/benchmarks/quality.py --data FILE_OR_FOLDER [...]    # .npz files with X, Y and, if fixed, n_train
python tests/benchmarks/quality.py --quick                        # a smoke run on a synthetic set: it means nothing

Protocol. The first `n_train` rows train and the others test; a set without `n_train` is shuffled once and split 70 to
30. Features are standardised by the training rows. For each seed a fifth of these is held back, stratified: it alone
chooses epochs, the regularisation of the classifier, and thresholds. Each rival may choose among three learning rates,
by the sum of NDCG@10 and kNN mAP on the rows that the first seed holds back, classifiers without an embedding by their
mAP; joined heads take the rate of the single one. Recipes of ours, the paper's and the steps between have one rate on
every set. Test rows are the queries, all training rows the database.

How the recommended recipe came about. First trials on emotions, scene, yeast and MIML looked at figures of their test
rows. Its loss, head, weights and learning rate were then settled on training rows alone: a fifth held back as a test
part, by three splits that are none of these. On those four sets its lead may still be flattered, on others not.

Columns. NDCG@10 with Jaccard gain, the ideal over the database. Size ratio: labels of a retrieved row by labels of a
row of the database. kNN mAP: labels scored by their share among the 20 nearest training rows. mAP and macro F1: of a
logistic regression for each label on the frozen embedding; of the method's own scores where it is a classifier of
features, whose retrieval is that of raw features or, for the semantic projection, of the projected ones. Seconds: of
one training, on one thread.

Places. A recipe of ours is first where it leads every rival by more than the larger of both deviations over seeds,
tied within it, and behind otherwise. For NDCG only rivals whose size ratio is allowed count.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import MultiSimilarityLoss, TripletMarginLoss
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mlmetric.data import stratified_split
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
from mlmetric.metrics import best_thresholds, f1, mean_average_precision, ndcg_at_k, size_ratio_at_k
from mlmetric.miners import MultiLabelSemiHardMiner
from mlmetric.neighbors import kneighbors
from mlmetric.similarity import Jaccard
from mlmetric.training import TrainingConfig, apply_in_batches, fit_classifier, fit_embedding
from mlmetric.training._identity import describe, digest

LEARNING_RATES = (3e-4, 1e-3, 3e-3)
REGULARISATION = (0.001, 0.01, 0.1, 1.0, 10.0)
NUM_NEIGHBORS = 20
MEASURES = {"ndcg": "NDCG@10", "size": "size ratio", "knn": "kNN mAP", "map": "mAP", "macro_f1": "macro F1"}
PLACES = ("ndcg", "knn", "map", "macro_f1")
SIZE_RATIOS = (0.95, 1.1)


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


def read_sets(paths: list[Path] | None) -> Iterator[tuple[str, Tensor, Tensor, int]]:
    """Read every set: features and labels, the training rows first, and how many these are."""
    if paths is None:
        rng = np.random.default_rng(0)
        X = rng.normal(size=(120, 6)).astype(np.float32)
        y = X @ rng.normal(size=(6, 3)) + rng.normal(size=(120, 3)) > [-1, 0, 1]
        yield "synthetic", torch.from_numpy(X), torch.from_numpy(y).float(), 90
        return
    files = [file for path in paths for file in (path.glob("*.npz") if path.is_dir() else [path])]
    for path in sorted(files):
        with np.load(path) as data:
            X, y = data["X"].astype(np.float32), data["Y"].astype(np.float32)
            if "n_train" in data:
                order, n_train = np.arange(len(X)), int(data["n_train"])
            else:
                order, n_train = np.random.default_rng(0).permutation(len(X)), round(0.7 * len(X))
            yield path.stem, torch.from_numpy(X[order]), torch.from_numpy(y[order]), n_train


def split(X: Tensor, y: Tensor, n_train: int, seed: int) -> Parts:
    """Standardise, and hold rows back."""
    mean, deviation = X[:n_train].mean(0), X[:n_train].std(0, correction=0)
    X = (X - mean) / torch.where(deviation > 0, deviation, 1)
    generator = torch.Generator().manual_seed(seed)
    fit, validation = stratified_split(y[:n_train], (0.8, 0.2), generator=generator)
    return Parts(X[:n_train], y[:n_train], fit, validation, X[n_train:], y[n_train:], seed)


# What methods are made of.


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
UNIT = partial(EmbeddingHead, normalize=True)
UNIT_DROPOUT = partial(EmbeddingHead, normalize=True, **DROPOUT)
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
    return TrainingConfig(epochs=50, batch_size=64, lr=lr, keep_best=True, seed=parts.seed)


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
for title, settings in {
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
}.items():
    RIVALS[f"miner: {title}"] = metric(loss=TripletMarginLoss(margin=0.2), miner=MultiLabelSemiHardMiner(**settings))
# The way from the paper's recipe to ours: at each step what is added, and to which part.
STEPS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("lr 0.001", "embedder", {"lr": 0.001}),
    ("batches of 64", "embedder", {"batch_size": 64}),
    ("best of 50 epochs", "embedder", {"max_epochs": 50, "validation_fraction": 0.2}),
    ("unit length", "head", {"normalize": True}),
    ("margin 0.2", "triplets", {"margin": 0.2}),
    ("all triplets within the margin", "triplets", {"kind": "all"}),
    ("10 random positives", "triplets", {"order": "random", "per_anchor": 10}),
    ("margin by Jaccard gap, 0.5", "triplets", {"margin": 0.5, "by_gap": True}),
    ("dropout", "head", DROPOUT),
    ("log-ratio loss for triplets", "embedder", {"loss": LogRatioLoss(), "miner": None}),
    ("lengths as they are", "head", {"normalize": False}),
    ("BCE trained along", "embedder", {"classifier_weight": MetricEmbedder().classifier_weight}),
    ("rectified embedding", "head", {"activate_last": True}),
    ("mixup 0.4", "embedder", {"mixup": 0.4}),
    ("lr 0.003", "embedder", {"lr": 0.003}),
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
    "one head, half normalised": one_head(head=partial(RECOMMENDED_HEAD, normalize=0.5)),
    "one head, mixup 1": one_head(mixup=1.0),
    "one head, label-balanced batches": one_head(items_per_label=4),
    "one head, averaged weights": one_head(head=averaged_head),
    "one head, raw features beside": one_head(beside=0.5),
}


# Measuring.


def choose(method: Method, parts: Parts) -> tuple[float, Result]:
    """Train with each learning rate and keep what does best on the rows held back."""
    best: tuple[float, float, Result] | None = None
    for rate in method.rates:
        result = method.make(parts, rate)
        if len(method.rates) == 1:
            return rate, result
        target = parts.train_labels[parts.validation]
        if result.scores is not None:
            value = float(mean_average_precision(result.scores[0][parts.validation], target))
        else:
            queries, refs = result.train[parts.validation], result.train[parts.fit]
            ref_labels = parts.train_labels[parts.fit]
            value = float(ndcg_at_k(queries, target, refs, ref_labels, k=10))
            value += float(mean_average_precision(neighbor_scores(queries, refs, ref_labels), target))
        if best is None or value > best[0]:
            best = value, rate, result
    assert best is not None
    return best[1:]


def neighbor_scores(queries: Tensor, refs: Tensor, ref_labels: Tensor) -> Tensor:
    """Score labels by their share among the nearest rows."""
    _, rows = kneighbors(refs, min(NUM_NEIGHBORS, len(refs)), queries=queries)
    return ref_labels[rows].mean(dim=1)


def regression_scores(parts: Parts, result: Result) -> tuple[Tensor, Tensor]:
    """Score validation and test rows by a logistic regression for each label, on an embedding scaled as a whole."""
    scale = float(result.train.std()) or 1.0
    train, test = (result.train / scale).numpy(), (result.test / scale).numpy()
    fit, held_back = parts.fit.numpy(), parts.validation.numpy()
    labels = parts.train_labels.numpy()
    best: tuple[float, tuple[Tensor, Tensor]] | None = None
    for strength in REGULARISATION:
        columns: list[tuple[Any, Any]] = []
        for label in range(labels.shape[1]):
            y = labels[fit, label]
            if y.min() == y.max():
                columns.append((np.full(len(held_back), y[0]), np.full(len(test), y[0])))
                continue
            model = LogisticRegression(C=strength, max_iter=300, tol=1e-3).fit(train[fit], y)
            columns.append((model.decision_function(train[held_back]), model.decision_function(test)))
        validation_scores, test_scores = (
            torch.from_numpy(np.stack(part, axis=1)) for part in zip(*columns, strict=True)
        )
        value = float(mean_average_precision(validation_scores, parts.train_labels[parts.validation]))
        if best is None or value > best[0]:
            best = value, (validation_scores, test_scores)
    assert best is not None
    return best[1]


def measure(parts: Parts, result: Result) -> dict[str, float]:
    """Measure one training."""
    if result.scores is None:
        validation_scores, test_scores = regression_scores(parts, result)
    else:
        validation_scores, test_scores = result.scores[0][parts.validation], result.scores[1]
    thresholds = best_thresholds(validation_scores, parts.train_labels[parts.validation])
    retrieval = (result.test, parts.test_labels, result.train, parts.train_labels)
    k = min(10, len(result.train))
    nearest = neighbor_scores(result.test, result.train, parts.train_labels)
    decided = f1(test_scores, parts.test_labels, threshold=thresholds, average="macro", empty="zero")
    return {
        "ndcg": float(ndcg_at_k(*retrieval, k=k)),
        "size": float(size_ratio_at_k(*retrieval, k=k)),
        "knn": float(mean_average_precision(nearest, parts.test_labels)),
        "map": float(mean_average_precision(test_scores, parts.test_labels)),
        "macro_f1": float(decided),
        "seconds": result.seconds,
    }


def run(name: str, X: Tensor, y: Tensor, n_train: int, seed: int, rate: float | None = None) -> dict[str, float]:
    """Run one method with one seed, at the learning rate given or at the one that does best on the rows held back."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=ConvergenceWarning)
    parts, method = split(X, y, n_train, seed), METHODS[name]
    rate, result = choose(method, parts) if rate is None else (rate, method.make(parts, rate))
    return measure(parts, result) | {"lr": rate}


def results(cases: Mapping[str, tuple[Any, ...]], *, jobs: int) -> Iterator[tuple[str, dict[str, float]]]:
    """Run the cases, in processes of their own if there are several, and yield each as it ends."""
    if jobs == 1:
        yield from ((name, run(*case)) for name, case in cases.items())
        return
    with ProcessPoolExecutor(jobs) as pool:
        futures = {pool.submit(run, *case): name for name, case in cases.items()}
        yield from ((futures[future], future.result()) for future in as_completed(futures))


# Tables.

Runs = Mapping[str, list[dict[str, float]]]


def deviation(values: list[float]) -> float:
    """Take the standard deviation, 0 of one value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def cell(values: list[float]) -> str:
    """Write the mean and the deviation."""
    return f"{statistics.fmean(values):.3f} ({deviation(values):.3f})"


def table(runs: Runs) -> str:
    """Lay out the methods on one set."""
    lines = [f"| method | {' | '.join(MEASURES.values())} | seconds |", "| --- |" + " ---: |" * (len(MEASURES) + 1)]
    for name, rows in runs.items():
        cells = [cell([row[measured] for row in rows]) for measured in MEASURES]
        lines.append(f"| {name} | {' | '.join(cells)} | {statistics.fmean(row['seconds'] for row in rows):.1f} |")
    return "\n".join(lines)


def summary(sets: Mapping[str, Runs]) -> str:
    """Lay out the means on all sets side by side: NDCG@10 / size ratio / kNN mAP / mAP / macro F1."""
    lines = [f"| method | {' | '.join(sets)} |", "| --- |" + " --- |" * len(sets)]
    for name in next(iter(sets.values())):
        cells = [
            " / ".join(f"{statistics.fmean(row[measured] for row in runs[name]):.3f}" for measured in MEASURES)
            for runs in sets.values()
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def places(runs: Runs, ours: str) -> dict[str, str]:
    """Say where a recipe of ours stands among the rivals, place by place."""
    low, high = SIZE_RATIOS
    outside = {name for name, rows in runs.items() if not low <= statistics.fmean(row["size"] for row in rows) <= high}
    found = {}
    for measured in PLACES:
        values = {name: [row[measured] for row in rows] for name, rows in runs.items()}
        allowed = [name for name in RIVALS if measured != "ndcg" or name not in outside]
        if not allowed:
            found[measured] = f"{cell(values[ours])}; no rival has a size ratio of {low} to {high}"
            continue
        best = max(allowed, key=lambda name: statistics.fmean(values[name]))
        lead = statistics.fmean(values[ours]) - statistics.fmean(values[best])
        spread = max(deviation(values[ours]), deviation(values[best]))
        verdict = "first" if lead > spread else "tied" if lead >= -spread else "behind"
        found[measured] = f"{verdict} by {lead:+.3f}: {cell(values[ours])}; {best} {cell(values[best])}"
        if measured == "ndcg" and ours in outside:
            found[measured] = f"size ratio outside {low} to {high}, otherwise {found[measured]}"
        if measured == "ndcg" and outside & RIVALS.keys():
            found[measured] += f"; not counted: {', '.join(name for name in RIVALS if name in outside)}"
    return found


# Runs, and the file that keeps them.


def identity(name: str, X: Tensor, y: Tensor, n_train: int) -> str:
    """Digest what a run is of: the method with all its settings, the rows, and how many of them train."""
    method = METHODS[name]
    settings = [describe(method.make), describe(method.rates), method.rate_of, describe(MetricEmbedder())]
    text = "\n".join(map(str, [*settings, digest(X), digest(y), n_train]))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def keep(path: Path, done: Mapping[str, Any]) -> None:
    """Write all runs, whole or not at all."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.write_text(json.dumps(done, indent=1))
    unfinished.replace(path)


def run_all(
    names: list[str], title: str, rows: tuple[Tensor, Tensor, int], seeds: range, jobs: int, output: Path | None
) -> Runs:
    """Run what the file does not hold yet: for each seed at first the methods that choose rates, then the others."""
    done = json.loads(output.read_text()) if output is not None and output.exists() else {}
    keys = {(name, seed): f"{title}/{name}/{seed}/{identity(name, *rows)}" for name in names for seed in seeds}
    for seed in seeds:
        for borrow in (False, True):
            cases = {}
            for name in names:
                key, source = keys[name, seed], METHODS[name].rate_of
                if key in done or (source is not None) != borrow:
                    continue
                first = keys.get((name if source is None else source, 0))
                rate = done[first]["lr"] if first is not None and (seed or borrow) else None
                cases[key] = (name, *rows, seed, rate)
            for key, result in results(cases, jobs=jobs):
                done[key] = result
                if output is not None:
                    keep(output, done)
    return {name: [done[keys[name, seed]] for seed in seeds] for name in names}


def main() -> None:
    """Print a table for each set, and the places of our recipes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", help=".npz files, or folders of them")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--only", help="methods whose name holds this text")
    parser.add_argument("--output", type=Path, help="JSON of every run, from which a later call goes on")
    parser.add_argument("--quick", action="store_true", help="a synthetic set, one seed, three methods")
    options = parser.parse_args()
    if options.data is None and not options.quick:
        parser.error("give --data FILE_OR_FOLDER, or --quick for a smoke run")
    names = [name for name in METHODS if options.only is None or options.only in name]
    seeds, jobs = range(options.seeds), options.jobs
    if options.quick:
        names, seeds, jobs = ["raw features, linear probe", "label graph (ML-GCN)", SINGLE_RECOMMENDED], range(1), 1
    sets: dict[str, Runs] = {}
    verdicts: dict[str, list[str]] = {ours: [] for ours in (RECOMMENDED, SINGLE_RECOMMENDED)}
    for title, *rows in read_sets(None if options.quick else options.data):
        X, y, n_train = rows
        runs = sets[title] = run_all(names, title, (X, y, n_train), seeds, jobs, options.output)
        print(f"\n{title}: {n_train} training rows, {len(X) - n_train} test rows, {X.shape[1]} features, ", end="")
        print(f"{y.shape[1]} labels; mean (deviation) of {len(seeds)} seeds\n\n{table(runs)}", flush=True)
        for ours in verdicts if names == list(METHODS) else ():
            print(f"\n{ours}:")
            for measured, place in places(runs, ours).items():
                print(f"- {MEASURES[measured]}: {place}", flush=True)
                verdicts[ours].append(place.split()[0])
    if len(sets) > 1:
        print(f"\n{' / '.join(MEASURES.values())}\n\n{summary(sets)}")
    for ours, found in verdicts.items():
        if found:
            print(f"\n{ours}: {', '.join(f'{word} {found.count(word)}' for word in dict.fromkeys(found))}")


if __name__ == "__main__":
    main()
