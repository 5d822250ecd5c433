"""The two stages: an embedding by a metric loss, a classifier on the frozen embedding."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from mlmetric._evaluation_mode import evaluation_mode
from mlmetric.heads import ClassifierHead
from mlmetric.labels import check_labels
from mlmetric.losses import MultiLabelBaseLoss, MultiLabelCrossBatchMemory
from mlmetric.metrics import f1, mean_average_precision, ndcg_at_k
from mlmetric.training._batch import Batch
from mlmetric.training._config import TrainingConfig
from mlmetric.training._loop import EpochRecord, Stage, device_of

MetricLoss = Callable[..., Tensor]
LabelLoss = Callable[[Tensor, Tensor], Tensor]
Miner = Callable[[Tensor, Tensor], tuple[Tensor, ...]]


class LabelHead(Protocol):
    """A head that scores labels: [ClassifierHead][mlmetric.heads.ClassifierHead] and the label-graph heads."""

    def __call__(self, inputs: Tensor) -> Tensor:
        """Score inputs `(N, D)`: logits `(N, L)`."""

    def probabilities(self, logits: Tensor) -> Tensor:
        """Turn logits into probabilities."""

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss of logits, a scalar."""


_MAX_VALIDATION_QUERIES = 1000


def fit_embedding(
    head: nn.Module,
    features: Tensor,
    labels: Tensor,
    *,
    loss: MetricLoss,
    miner: Miner | None = None,
    classifier: ClassifierHead | None = None,
    classifier_weight: float = 1.0,
    config: TrainingConfig | None = None,
    validation: tuple[Tensor, Tensor] | None = None,
    checkpoint: str | Path | None = None,
    callback: Callable[[EpochRecord], None] | None = None,
) -> list[EpochRecord]:
    """Train a head so that distance between embeddings follows similarity of labels: stage one.

    Where torch.distributed has joined processes, call this in each of them with the same arguments. Each embeds its
    share of every batch; triplets and loss are those of the whole batch, as in one process, and all end with the same
    head. Miner and loss are the plain ones, in no wrapper. The first process reads and writes the checkpoint.

    Args:
        head: Maps features `(N, D)` to embeddings; trained in place.
        features: Shape `(N, D)`, in memory or on a device; batches are moved to where the head is.
        labels: Shape `(N, L)`.
        loss: Called as `loss(embeddings, indices_tuple=miner(embeddings, labels))`, a loss of
            [mlmetric.losses][] with the labels too; without a miner as `loss(embeddings, labels)`. If it is a module
            with parameters, these are moved, trained and saved too.
        miner: Finds triplets in a batch. To resume a run to the bit, give it no generator: its draws then come
            from the seed of the epoch.
        classifier: Scores labels from embeddings; trained along with the head, so that these serve labels, too.
        classifier_weight: Of the classifier's loss beside the metric loss.
        config: How to train.
        validation: Features and labels; after each epoch at most 1,000 of these rows, evenly spaced, are queries to the
            training rows, which count by the labels that are trained on. Epochs are scored by this retrieval, with a
            classifier by the sum of it and its mAP, for which labels must be 0 or 1.
        checkpoint: File of the state after each epoch, written whole or not at all. If it exists, training goes
            on from there, provided that head, loss, miner, classifier, `config` and rows are the same. They are
            compared by everything they contain except their weights; your own functions by their code. A different
            version of Python, or of the package that defines them, counts as a different setting. Pass new objects,
            not ones that have been trained with: a loss with a memory, for example, must start with an empty one.
        callback: Called with the record of each epoch, those restored from a checkpoint included.

    Returns:
        A record for each epoch: `loss` (mean over rows), `lr`, `triplets` (with a miner), and with `validation`
        `val_ndcg_at_10` (Jaccard gain) and, with a classifier, `val_map` (macro).

    Raises:
        ValueError: If shapes do not fit, labels of `validation` are soft where a classifier is measured, the loss
            wants labels 0 or 1 and rows are mixed, the checkpoint is of other settings or other data, or joined
            processes are given different ones.
        TypeError: If `validation` holds no tensors, or, with a checkpoint, something that the loss or another part
            holds cannot be looked into, as an open file; a method `fingerprint()` of its class then says what it is.
        FloatingPointError: If the loss is no longer finite; the checkpoint of the epoch before stays.
        OSError: If a checkpoint cannot be written or read, or is damaged.

    Warns:
        UserWarning: If the mean loss of an epoch is more than 10 times the first loss that is not 0, as at a learning
            rate that is too high.
    """
    device = device_of(head)
    _check_validation(validation, features, labels, hard=classifier is not None)
    if config is not None and config.mixup and not getattr(loss, "takes_soft_labels", True):
        raise ValueError(
            f"`mixup` makes soft labels, which `{type(loss).__name__}` does not take, got {config.mixup}: set it to 0."
        )
    if not 0 <= classifier_weight < math.inf:
        raise ValueError(f"`classifier_weight` must be at least 0 and finite, got {classifier_weight}.")

    label_loss = None if classifier is None else _without_checks(classifier)

    def step(batch: Batch) -> tuple[Tensor, int]:
        embeddings = stage.forward(features, batch)
        batch_labels = batch.of(labels).to(device)
        indices = None if miner is None else miner(embeddings, batch_labels)
        if indices is None:
            value = loss(embeddings, batch_labels)
        elif isinstance(loss, MultiLabelBaseLoss | MultiLabelCrossBatchMemory):
            value = loss(embeddings, batch_labels, indices)
        else:
            value = loss(embeddings, indices_tuple=indices)
        if classifier is not None and label_loss is not None:
            value = value + classifier_weight * label_loss(classifier(embeddings), batch_labels)
        return value, 0 if indices is None else len(indices[0])

    def validate() -> tuple[EpochRecord, float]:
        assert validation is not None
        step_size = -(-len(validation[0]) // _MAX_VALIDATION_QUERIES)
        query_features, query_labels = (part[::step_size] for part in validation)
        queries, refs = (_finite(apply_in_batches(head, rows), stage) for rows in (query_features, features))
        query_labels = query_labels.to(device)
        score = float(ndcg_at_k(queries, query_labels, refs, labels.to(device), k=min(10, len(refs))))
        if classifier is None:
            return {"val_ndcg_at_10": score}, score
        ranked = float(mean_average_precision(_finite(apply_in_batches(classifier, queries), stage), query_labels))
        return {"val_ndcg_at_10": score, "val_map": ranked}, score + ranked

    for part in (loss, classifier):
        if isinstance(part, nn.Module):
            part.to(device)
    objective = {"loss": loss, "miner": miner, "classifier": classifier, "classifier_weight": classifier_weight}
    stage = Stage(head, config, checkpoint, callback, objective)
    count = None if miner is None else "triplets"
    return stage.fit(features, labels, step, validate, validation=validation, count=count)


def fit_classifier(
    head: LabelHead,
    embeddings: Tensor,
    labels: Tensor,
    *,
    loss: LabelLoss | None = None,
    config: TrainingConfig | None = None,
    validation: tuple[Tensor, Tensor] | None = None,
    checkpoint: str | Path | None = None,
    callback: Callable[[EpochRecord], None] | None = None,
) -> list[EpochRecord]:
    """Train a classifier on a frozen embedding: stage two; or on features: a linear probe, a label graph.

    Joined processes share it out as in `fit_embedding`.

    Args:
        head: The classifier, any of [mlmetric.heads][] that scores labels; trained in place.
        embeddings: Shape `(N, D)`, or raw features.
        labels: Shape `(N, L)`, in [0, 1].
        loss: Of logits and labels, such as [AsymmetricLoss][mlmetric.losses.AsymmetricLoss]; by default the head's,
            for a `ClassifierHead` the binary cross entropy.
        config: How to train.
        validation: Embeddings and hard labels, measured after each epoch; epochs are scored by `val_map`.
        checkpoint: As in `fit_embedding`.
        callback: As in `fit_embedding`.

    Returns:
        A record for each epoch: `loss` (mean over rows; nats by default), `lr`, and with `validation` `val_loss`,
        `val_map` (macro) and `val_macro_f1` (at probability 0.5).

    Raises:
        ValueError: If shapes do not fit, labels of `validation` are soft, the checkpoint is of other settings or other
            data, or joined processes are given different ones.
        TypeError: If `head` is no torch module, `validation` holds no tensors, or something cannot be compared with
            a checkpoint, as in `fit_embedding`.
        FloatingPointError: If the loss is no longer finite; the checkpoint of the epoch before stays.
        OSError: If a checkpoint cannot be written or read, or is damaged.

    Warns:
        UserWarning: If training diverges, as in `fit_embedding`.
    """
    if not isinstance(head, nn.Module):
        raise TypeError(f"`head` must be a torch module that scores labels, got {type(head).__name__}.")
    device = device_of(head)
    _check_validation(validation, embeddings, labels, hard=True)
    label_loss = _without_checks(head) if loss is None else loss
    if isinstance(loss, nn.Module):
        loss.to(device)

    def step(batch: Batch) -> tuple[Tensor, int]:
        logits = stage.forward(embeddings, batch)
        return label_loss(logits, batch.of(labels).to(device, logits.dtype)), 0

    def validate() -> tuple[EpochRecord, float]:
        assert validation is not None
        target = validation[1].to(device)
        logits = _finite(apply_in_batches(head, validation[0]), stage)
        scores = head.probabilities(logits)
        ranked = float(mean_average_precision(scores, target))
        return {
            "val_loss": float(label_loss(logits, target.to(logits.dtype)).detach()),
            "val_map": ranked,
            "val_macro_f1": float(f1(scores, target, average="macro", threshold=0.5, zero_division=0)),
        }, ranked

    stage = Stage(head, config, checkpoint, callback, {"loss": loss})
    return stage.fit(embeddings, labels, step, validate, validation=validation, count=None)


def apply_in_batches(module: nn.Module, inputs: Tensor, *, batch_size: int = 4096) -> Tensor:
    """Pass rows through a module in evaluation mode, without gradients.

    Args:
        module: It and its parts are left in the modes that they were in. Several threads may pass rows through one
            module, while none trains it.
        inputs: Shape `(N, D)`.
        batch_size: Rows at a time.

    Returns:
        Shape `(N, ...)`, on the module's device.
    """
    device = device_of(module, default=inputs.device)
    with evaluation_mode(module), torch.no_grad():
        return torch.cat([module(rows.to(device)) for rows in torch.split(inputs, batch_size)])


def _finite(outputs: Tensor, stage: Stage) -> Tensor:
    if not bool(outputs.isfinite().all()):
        raise FloatingPointError(
            f"The outputs for rows are no longer finite after epoch {len(stage.history)}: lower the learning rate "
            f"({stage.config.lr}), or standardise the features."
        )
    return outputs


def _without_checks(head: LabelHead) -> LabelLoss:
    """Return the loss of a head without its check of each batch: all labels were checked, and on CUDA that waits."""
    if "validate_args" in inspect.signature(head.loss).parameters:
        return partial(head.loss, validate_args=False)  # type: ignore[call-arg]
    return head.loss


def _check_validation(validation: tuple[Tensor, Tensor] | None, inputs: Tensor, labels: Tensor, *, hard: bool) -> None:
    if validation is None:
        return
    if not len(validation[0]) == len(validation[1]) > 0:
        raise ValueError(
            "`validation` must be rows and as many rows of labels, at least one, "
            f"got {len(validation[0])} and {len(validation[1])}."
        )
    for name, part, trained_on in (("rows", validation[0], inputs), ("labels", validation[1], labels)):
        if not isinstance(part, Tensor):
            raise TypeError(f"The {name} of `validation` must be a torch.Tensor, got {type(part).__name__}.")
        if part.shape[1:] != trained_on.shape[1:]:
            raise ValueError(
                f"The {name} of `validation` must have shape (N, {', '.join(map(str, trained_on.shape[1:]))}) as those "
                f"to train on, got {tuple(part.shape)}."
            )
    check_labels(validation[1], name="labels of validation")
    if hard and not bool(((validation[1] == 0) | (validation[1] == 1)).all()):
        raise ValueError(
            "`validation` must have labels 0 or 1 where a classifier is measured on them, got others. Say which soft "
            "ones count as present, such as `labels >= 0.5`."
        )
