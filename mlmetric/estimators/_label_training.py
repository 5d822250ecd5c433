"""Two ways to train a classifier: from the classifiers trained with the members, or in a second stage."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from numbers import Real
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mlmetric._label_matrix import annotated_mask
from mlmetric._random_generators import seeded
from mlmetric.decisions import LabelCalibrator
from mlmetric.estimators._members import TrainedMembers, cpu_outputs
from mlmetric.estimators._recipes import FEATURE_CLIP
from mlmetric.estimators._staged_estimator import StageOutputs
from mlmetric.estimators._training_data import TrainingData
from mlmetric.estimators._validation_parts import Part
from mlmetric.heads import (
    CalibratedClassifier,
    ClassifierEnsemble,
    ClassifierHead,
    LabelNetwork,
    LateFusionClassifier,
)
from mlmetric.metrics import best_thresholds
from mlmetric.training import EpochRecord, fit_classifier, fit_logistic_regression
from mlmetric.training._logistic_regression import INVERSE_PENALTIES
from mlmetric.training._validation_scores import label_score

_C_WITHOUT_VALIDATION = 0.01
_SHARE_WITHOUT_VALIDATION = 0.5
_SHARES = tuple(step / 20 for step in range(21))


class FittedClassifier(NamedTuple):
    """A trained classifier.

    Attributes:
        module: Maps features to logits.
        num_labels: L.
        histories: The records of the epochs, or of the penalties of each logistic regression.
        validation: Logits and labels, 0, 1 or NaN, of all validation rows, each scored by networks that were not
            trained on it; None without validation rows.
    """

    module: ClassifierEnsemble | LabelNetwork | LateFusionClassifier | CalibratedClassifier
    num_labels: int
    histories: list[list[EpochRecord]]
    validation: tuple[Tensor, Tensor] | None

    def calibrated(self, method: Literal["temperature", "platt"] | None) -> FittedClassifier:
        """Return the classifier with the logits of each label calibrated on the validation rows.

        Raises:
            ValueError: If there are no validation rows.
        """
        if method is None:
            return self
        if self.validation is None:
            raise ValueError(
                f"`calibration={method!r}` requires validation rows, got none: increase `validation_fraction`, or pass "
                "`validation`."
            )
        logits, target = self.validation
        calibrator = LabelCalibrator(method).fit(logits, target.nan_to_num(0), annotated_mask(target))
        slopes, intercepts = (torch.from_numpy(part) for part in (calibrator.slopes_, calibrator.intercepts_))
        device = next(self.module.parameters()).device
        module = CalibratedClassifier(self.module, slopes, intercepts).to(device).eval()
        return self._replace(module=module, validation=(module.scale(logits), target))

    def thresholds(
        self, threshold: float | Literal["macro", "micro"], *, max_predicted: float
    ) -> npt.NDArray[np.float64]:
        """Return the thresholds, shape `(L,)`: one for all labels, or chosen on the validation rows by an average F1.

        Without validation rows, the chosen thresholds are 0.5.
        """
        if not isinstance(threshold, str):
            return np.full(self.num_labels, float(threshold))
        if self.validation is None:
            return np.full(self.num_labels, 0.5)
        logits, target = self.validation
        probabilities = self.module.probabilities(logits)
        fallback, mask = None if bool((target == 1).any()) else 0.5, annotated_mask(target)
        thresholds = best_thresholds(
            probabilities, target, average=threshold, max_predicted=max_predicted, fallback=fallback, mask=mask
        )
        return thresholds.numpy()


def check_label_settings(classifier: Any) -> None:
    """Check the settings of a `MetricClassifier` that concern the labels.

    Raises:
        TypeError: If `label_loss` is not callable.
        ValueError: If a setting is out of range.
    """
    is_softmax = classifier.activation == "softmax"
    if classifier.activation not in ("sigmoid", "softmax") or (is_softmax and not classifier.two_stage):
        raise ValueError(
            f"`activation` must be 'sigmoid', or with `two_stage=True` 'softmax', got {classifier.activation!r}."
        )
    if not classifier.two_stage and not classifier.classifier_weight:
        raise ValueError("`classifier_weight` must be above 0, or `two_stage` be True, got 0 and False.")
    threshold, label_loss = classifier.threshold, classifier.label_loss
    is_average = isinstance(threshold, str) and threshold in ("macro", "micro")
    if not is_average and (not isinstance(threshold, Real) or math.isnan(threshold)):
        raise ValueError(f"`threshold` must be a number, 'macro' or 'micro', got {threshold!r}.")
    if label_loss is not None and not callable(label_loss):
        raise TypeError(f"`label_loss` must be None or a loss of logits and labels, got {label_loss!r}.")
    if classifier.classifier_lr is not None and not 0 < classifier.classifier_lr < math.inf:
        raise ValueError(f"`classifier_lr` must be None or above 0 and finite, got {classifier.classifier_lr!r}.")
    if classifier.calibration not in (None, "temperature", "platt") or (classifier.calibration and is_softmax):
        raise ValueError(
            "`calibration` must be None, 'temperature' or 'platt', and None with `activation='softmax'`, got "
            f"{classifier.calibration!r}."
        )
    if not classifier.max_predicted > 0:
        raise ValueError(f"`max_predicted` must be a number above 0, got {classifier.max_predicted!r}.")


def fit_joint_classifier(members: TrainedMembers, *, standardize: bool, device: str, seed: int) -> FittedClassifier:
    """Combine the networks with a logistic regression on the features.

    A logistic regression is trained on the training rows of each part; the ensemble has the mean of their weights. The
    validation rows of the first part choose its C, which the other parts use too. The logits of the networks are
    averaged, and mixed with those of the logistic regression. The share of the networks is the one with the best mAP on
    the validation rows. Without validation rows that have a label, it is 0.5, and C is 0.01.

    Args:
        members: The trained members, with their networks.
        standardize: Whether to standardise, and clip, the features of the logistic regression.
        device: The device of the result.
        seed: Seed of the initial weights of the logistic regression, which the label frequencies replace.

    Returns:
        The classifier.
    """
    parts = members.parts
    size, num_labels = parts.data.features.shape[1], parts.data.labels.shape[1]
    with seeded(seed):
        probe = ClassifierHead(
            size, num_labels, clip=FEATURE_CLIP if standardize else None, fill_missing=parts.data.views is not None
        )
    if standardize:
        probe.standardize.fit(parts.data.features, skip_nan=probe.fill_missing)
    probe, networks = probe.to(device), [network.to(device) for network in members.networks]
    histories: list[list[EpochRecord]] = []
    weights, biases = [], []
    strengths: float | tuple[float, ...] = INVERSE_PENALTIES
    logits: list[tuple[Tensor, Tensor]] = []
    targets: list[Tensor] = []
    for number in range(len(parts)):
        train, validation = parts[number]
        if validation is None or not validation.has_positive:
            histories.append(fit_logistic_regression(probe, *train.pair, C=_C_WITHOUT_VALIDATION))
        else:
            records = fit_logistic_regression(probe, *train.pair, C=strengths, validation=validation.hard.pair)
            histories.append(records)
            strengths = max(records, key=lambda record: record["val_map"])["C"]
        if validation is not None:
            features, target = validation.hard.pair
            unseen = ClassifierEnsemble(networks[number :: len(parts)])
            logits.append((cpu_outputs(unseen, features), cpu_outputs(probe, features)))
            targets.append(target)
        weights.append(probe.linear.weight.detach().clone())
        biases.append(probe.linear.bias.detach().clone())
    with torch.no_grad():
        probe.linear.weight.copy_(torch.stack(weights).mean(0))
        probe.linear.bias.copy_(torch.stack(biases).mean(0))
    if not targets:
        return FittedClassifier(_ensemble(networks, probe, _SHARE_WITHOUT_VALIDATION), num_labels, histories, None)
    of_networks, of_probe = (torch.cat(rows) for rows in zip(*logits, strict=True))
    target = torch.cat(targets)
    share = _best_share(of_networks, of_probe, target)
    mixed = share * of_networks + (1 - share) * of_probe
    return FittedClassifier(_ensemble(networks, probe, share), num_labels, histories, (mixed, target))


def _ensemble(networks: Sequence[LabelNetwork], probe: ClassifierHead, share: float) -> ClassifierEnsemble:
    weights = [share / len(networks)] * len(networks)
    return ClassifierEnsemble([*networks, probe], [*weights, 1 - share]).to(probe.linear.weight.device).eval()


def _best_share(logits: Tensor, others: Tensor, target: Tensor) -> float:
    """Return the share of the first logits whose mixture has the best mAP; among equal ones, the most even share."""

    def score(share: float) -> tuple[float, float]:
        average_precision = label_score(share * logits + (1 - share) * others, target)
        return average_precision, -abs(share - 0.5)

    return max(_SHARES, key=score) if bool((target == 1).any()) else _SHARE_WITHOUT_VALIDATION


def fit_frozen_classifier(estimator: Any, part: Part, *, outputs: StageOutputs, seed: int) -> FittedClassifier:
    """Train a linear classifier on the frozen embedding of an estimator: stage two of the paper.

    Args:
        estimator: The `MetricClassifier`, with its settings and the trained `head_`.
        part: The training rows and validation rows.
        outputs: The checkpoints and the callback.
        seed: Seed of the initial weights, which the label frequencies replace; and of the training.

    Returns:
        The classifier, a network of head and linear classifier.
    """
    head, loss = estimator.head_, estimator.label_loss
    estimator._log_stage("classifier", *part)

    def embed(rows: TrainingData) -> TrainingData:  # in a process group, all ranks use the embeddings of rank 0
        return TrainingData(cpu_outputs(head, rows.features), rows.labels)

    embedded = embed(part.train)
    with seeded(seed):
        classifier = ClassifierHead(
            embedded.features.shape[1], embedded.labels.shape[1], activation=estimator.activation
        )
    classifier.init_from_labels(embedded.labels)
    if estimator.standardize:
        classifier.standardize.fit(embedded.features)
    config = estimator._config(seed % 100_000, part.validation)
    records = fit_classifier(
        classifier.to(estimator.device),
        *embedded.pair,
        loss=copy.deepcopy(loss),
        config=config if estimator.classifier_lr is None else replace(config, lr=estimator.classifier_lr),
        validation=None if part.validation is None else embed(part.validation).hard.pair,
        checkpoint=outputs.checkpoint("classifier"),
        callback=outputs.callback_of("classifier"),
    )
    network = LabelNetwork(head, classifier).eval()
    num_labels = part.train.labels.shape[1]
    if part.validation is None:
        return FittedClassifier(network, num_labels, [records], None)
    features, target = part.validation.hard.pair
    return FittedClassifier(network, num_labels, [records], (cpu_outputs(network, features), target))
