"""Classifiers that `quality.py` compares by their own scores: ours, perceptrons, and the linear probe."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mlmetric.estimators import MetricClassifier
from mlmetric.heads import ClassifierHead, EmbeddingEnsemble, LabelNetwork
from mlmetric.metrics import mean_average_precision
from mlmetric.training import apply_in_batches, fit_logistic_regression
from quality_training import PERCEPTRON_DROPOUT, Parts, Result, train_classifier, training_config

REGULARISATION = (0.0001, 0.001, 0.01, 0.1, 1.0, 10.0)


def classify(
    parts: Parts,
    lr: float,
    *,
    make: Callable[..., MetricClassifier] = MetricClassifier,
    shares_validation: bool = False,
    **settings: Any,
) -> Result:
    """Train a `MetricClassifier` on all training rows, of which it sets validation rows aside itself.

    With `shares_validation`, the validation rows are those of the other methods. A classifier that uses none is then
    trained without them, and its thresholds are chosen on them.
    """
    classifier = make(lr=lr, random_state=parts.seed, **settings)
    rows = torch.cat([parts.fit, parts.validation]) if not shares_validation else parts.fit
    fit = (parts.train[rows].numpy(), parts.train_labels[rows].numpy())
    validation = None
    if shares_validation and classifier.validation_fraction:
        validation = (parts.train[parts.validation].numpy(), parts.train_labels[parts.validation].numpy())
    started = time.process_time()
    classifier.fit(*fit, validation=validation)
    seconds = time.process_time() - started
    train, test = (rows.numpy() for rows in parts.rows)

    def scores(rows: Any) -> Tensor:  # logits with softmax rank the rows differently than the probabilities
        is_softmax = classifier.activation == "softmax"
        return torch.from_numpy((classifier.predict_proba if is_softmax else classifier.decision_function)(rows))

    return Result(
        *(torch.from_numpy(classifier.transform(rows)) for rows in (train, test)),
        scores=(scores(train), scores(test)),
        predictions=torch.from_numpy(classifier.predict(test)) if isinstance(classifier.threshold, str) else None,
        seconds=seconds,
    )


def perceptrons(parts: Parts, lr: float, *, n_members: int = 1, mixed: bool = False) -> Result:
    """Train perceptrons by binary cross entropy and average their logits; the embedding is the second hidden layer.

    With `mixed`, the logits are mixed with those of a logistic regression, by the share that is best on the validation
    rows.
    """
    torch.manual_seed(parts.seed)
    num_features, num_labels = parts.train.shape[1], parts.train_labels.shape[1]
    networks = [
        LabelNetwork(PERCEPTRON_DROPOUT(num_features), ClassifierHead(256, num_labels)) for _ in range(n_members)
    ]
    started = time.process_time()
    for number, network in enumerate(networks):
        settings = replace(training_config(parts, lr), batch_size=128, seed=parts.seed * n_members + number)
        train_classifier(network, parts, settings)
    scores = [sum(apply_in_batches(network, rows) for network in networks) / n_members for rows in parts.rows]
    if mixed:
        others = logistic_regression(parts, parts.train, parts.test)
        target = parts.train_labels[parts.validation]

        def score(share: float) -> float:
            mixture = share * scores[0] + (1 - share) * others[0]
            return float(mean_average_precision(mixture[parts.validation], target))

        share = max((step / 20 for step in range(21)), key=score)
        scores = [share * own + (1 - share) * other for own, other in zip(scores, others, strict=True)]
    seconds = time.process_time() - started
    heads = EmbeddingEnsemble([network.head for network in networks])
    embeddings = (apply_in_batches(heads, rows) for rows in parts.rows)
    return Result(*embeddings, scores=(scores[0], scores[1]), seconds=seconds)


def linear_probe(parts: Parts, lr: float) -> Result:
    """Train a logistic regression for each label on the features; retrieval uses the features."""
    started = time.process_time()
    scores = logistic_regression(parts, parts.train, parts.test)
    return Result(parts.train, parts.test, scores, seconds=time.process_time() - started)


def logistic_regression(parts: Parts, train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Score training rows and test rows by a logistic regression for each label, on features or embeddings."""
    probe = ClassifierHead(train.shape[1], parts.train_labels.shape[1])
    fit, validation = ((train[rows], parts.train_labels[rows]) for rows in (parts.fit, parts.validation))
    fit_logistic_regression(probe, *fit, C=REGULARISATION, validation=validation)
    return apply_in_batches(probe, train), apply_in_batches(probe, test)
