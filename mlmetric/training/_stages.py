"""The two stages: an embedding trained with a metric loss, and a classifier on the frozen embedding."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from mlmetric._docstrings import inherit_docs
from mlmetric._label_matrix import annotated_mask
from mlmetric.heads import ClassifierHead, LabelGraphHead, LabelNetwork
from mlmetric.labels import LabelsLike
from mlmetric.losses import MultiLabelBaseLoss, MultiLabelCrossBatchMemory
from mlmetric.metrics import f1
from mlmetric.training._config import TrainingConfig
from mlmetric.training._divergence import check_outputs_finite
from mlmetric.training._mixup_batches import MixupRows
from mlmetric.training._rows import apply_in_batches, check_missing_support, read_rows, read_validation
from mlmetric.training._trainer import EpochRecord, Trainer, device_of
from mlmetric.training._validation_scores import label_score, retrieval_score

MetricLoss = Callable[..., Tensor]
LabelLoss = Callable[[Tensor, Tensor], Tensor]
Miner = Callable[[Tensor, Tensor], tuple[Tensor, ...]]

_MAX_QUERIES, _MAX_DATABASE = 1000, 10_000
"""Largest numbers of queries and of database rows in the retrieval of a validation."""


class LabelHead(Protocol):
    """A head that scores labels: [ClassifierHead][mlmetric.heads.ClassifierHead] and the label-graph heads."""

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return the logits `(N, L)` of inputs `(N, D)`."""

    def probabilities(self, logits: Tensor) -> Tensor:
        """Convert logits to probabilities."""

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of logits, a scalar."""


def fit_embedding(
    head: nn.Module,
    features: Tensor,
    labels: LabelsLike,
    *,
    loss: MetricLoss,
    miner: Miner | None = None,
    classifier: ClassifierHead | None = None,
    classifier_weight: float = 1.0,
    classifier_loss: LabelLoss | None = None,
    label_network: LabelNetwork | None = None,
    config: TrainingConfig | None = None,
    validation: tuple[Tensor, LabelsLike] | None = None,
    checkpoint: str | Path | None = None,
    callback: Callable[[EpochRecord], None] | None = None,
) -> list[EpochRecord]:
    """Train an embedding head with a metric loss (stage one), so that similar label sets get nearby embeddings.

    With a process group of torch.distributed, call this function in each process with the same arguments, without a
    wrapper around miner or loss. Each process embeds a part of every batch; triplets and loss are computed from the
    whole batch, as in one process, and all processes end with the same weights. Rank 0 reads and writes the checkpoint.

    Args:
        head: Maps features `(N, D)` to embeddings `(N, E)`; trained in place.
        features: Shape `(N, D)`, or `(N, ...)` if the head accepts that, on any device; each batch is moved to the
            device of the head.
        labels: Shape `(N, L)`, multi-hot or soft, of any kind that [check_labels][mlmetric.labels.check_labels] reads.
            NaN for labels that are not annotated; this requires losses and miners whose `supports_missing_labels` is
            True, such as those of this package. With mixup, a label is missing if it is in one of the two rows.
        loss: Called as `loss(embeddings, indices_tuple=miner(embeddings, labels))` with a miner, where a loss of
            [mlmetric.losses][] also receives the labels; without a miner, as `loss(embeddings, labels)`. The parameters
            of a loss that is a module are also trained, and saved in the checkpoint.
        miner: Finds triplets or pairs in a batch; None for no miner. For a resumed run to give exactly the same result
            as an uninterrupted one, the miner must not have its own generator: it then draws from torch's global
            generator, which is seeded in each epoch.
        classifier: Predicts the labels from the embeddings; trained together with the head, so that the embeddings
            become useful for classification. None for no classifier.
        classifier_weight: Weight of the classifier's loss in the sum of both losses.
        classifier_loss: Loss of the classifier, called as `classifier_loss(logits, labels)`. None for the binary cross
            entropy.
        label_network: A `LabelNetwork` of copies of head and classifier, on any device. It receives their weights after
            the best epoch by mAP, which is seldom the epoch with the best neighbours. Without `keep_best`, it receives
            the weights of the last epoch. None to keep only the best epoch by retrieval.
        config: Settings of the training; None for `TrainingConfig()`.
        validation: Features and labels, scored after each epoch by the NDCG@10 of retrieval, by which `keep_best`
            chooses the epoch of the head. At most 1,000 of these rows, evenly spaced, are queries; at most 10,000 of
            the training rows, evenly spaced, with the labels given for training, are the database. With a classifier,
            its mAP is recorded too, which requires labels 0 or 1. Missing labels are left out of the mAP. A row is left
            out of the ranking for a query if no label is annotated in both. With `label_network`, `patience` ends
            training when neither score has improved for this number of epochs. None for no validation.
        checkpoint: File to which the state is saved atomically after each epoch; its folder is created if missing. If
            the file exists, training resumes from it, provided that head, loss, miner, classifier, `config` and rows
            are the same. Their whole content except weights is compared; your own functions are compared by their code.
            A different version of Python, or of the package that defines an object, counts as a difference. Pass new
            objects, not objects that have been used in training: a loss with a memory, for example, must start with an
            empty memory.
        callback: Called with the record of each epoch, including those restored from a checkpoint.

    Returns:
        A record for each epoch: `epoch`, `loss` (mean over rows), `lr`; with a miner, `triplets` (their number); with
        `validation`, `val_ndcg_at_10` (Jaccard gain) and, with a classifier, `val_map` (macro).

    Raises:
        ValueError: If a shape or setting is out of range, labels of `validation` are soft but a classifier is scored,
            `label_network` does not consist of copies of head and classifier, mixup is on but a loss requires labels 0
            or 1, labels are missing but a loss or miner does not support that, or the checkpoint or another process of
            a process group has other settings or data.
        TypeError: If features are not tensors, labels are not numbers, or, with a checkpoint, the content of a part
            cannot be compared, such as an open file; a method `fingerprint()` of its class can then describe it.
        FloatingPointError: If loss or weights are no longer finite; the checkpoint of the previous epoch is kept.
        OSError: If the checkpoint cannot be written or read, or is damaged.

    Warns:
        UserWarning: If the mean loss of an epoch is more than 10 times the first loss that is not 0, as with a learning
            rate that is too high; or if the validation score is NaN but is needed to choose epochs.
    """
    device = device_of(head)
    labels = read_rows(features, labels)
    validation = read_validation(validation, features, labels, hard=classifier is not None)
    if config is not None and config.mixup and not getattr(loss, "supports_soft_labels", True):
        raise ValueError(
            f"`mixup` creates soft labels, which `{type(loss).__name__}` does not support, got {config.mixup}: set it "
            "to 0."
        )
    if not 0 <= classifier_weight < math.inf:
        raise ValueError(f"`classifier_weight` must be at least 0 and finite, got {classifier_weight}.")

    if label_network is not None:
        _check_label_network(label_network, head, classifier)
    if config is not None and config.mixup and not getattr(classifier_loss, "supports_soft_labels", True):
        raise ValueError(
            f"`mixup` creates soft labels, which `{type(classifier_loss).__name__}` does not support, got "
            f"{config.mixup}: set it to 0."
        )

    reads_labels = miner is None or isinstance(loss, MultiLabelBaseLoss | MultiLabelCrossBatchMemory)
    parts = {"miner": miner, "classifier_loss": classifier_loss, "loss": loss if reads_labels else None}
    check_missing_support(labels, validation, **parts)
    label_loss = _unchecked_loss(classifier) if classifier is not None and classifier_loss is None else classifier_loss

    def step(batch: MixupRows) -> tuple[Tensor, int]:
        embeddings = trainer.forward(features, batch)
        batch_labels = batch.mix(labels).to(device)
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

    def validate() -> tuple[EpochRecord, dict[str, float]]:
        assert validation is not None
        target = validation[1].to(device)
        queries, database = _evenly_spaced(len(target), _MAX_QUERIES), _evenly_spaced(len(labels), _MAX_DATABASE)
        embeddings, refs = (_validation_outputs(head, rows, trainer) for rows in (validation[0], features[database]))
        score = retrieval_score(embeddings[queries], target[queries], refs, labels[database].to(device))
        if classifier is None:
            return {"val_ndcg_at_10": score}, {"retrieval": score}
        logits = _validation_outputs(classifier, embeddings, trainer)
        average_precision = label_score(logits, target)
        scores = {"retrieval": score} | ({} if label_network is None else {"labels": average_precision})
        return {"val_ndcg_at_10": score, "val_map": average_precision}, scores

    for part in (loss, classifier, classifier_loss):
        if isinstance(part, nn.Module):
            part.to(device)
    objective = {
        "loss": loss,
        "miner": miner,
        "classifier_loss": classifier_loss,
        "classifier_weight": classifier_weight,
        "keeps_label_network": label_network is not None,
        "classifier": classifier,
    }
    trainer = Trainer(head, config, checkpoint, callback, objective)
    count_name = None if miner is None else "triplets"
    history = trainer.fit(features, labels, step, validate, validation=validation, count_name=count_name)
    if label_network is not None:
        weights = trainer.best.weights("labels") or trainer.weights()
        label_network.head.load_state_dict(weights["module"])
        label_network.classifier.load_state_dict(weights["objective"][-1])  # the last module of the objective
    return history


@inherit_docs(
    fit_embedding,
    labels="multi-hot or soft, of=>in [0, 1], of",
    checkpoint="head, loss, miner, classifier, `config` and rows=>head, loss, `config` and rows",
)
def fit_classifier(  # noqa: D417
    head: LabelHead,
    embeddings: Tensor,
    labels: LabelsLike,
    *,
    loss: LabelLoss | None = None,
    config: TrainingConfig | None = None,
    validation: tuple[Tensor, LabelsLike] | None = None,
    checkpoint: str | Path | None = None,
    callback: Callable[[EpochRecord], None] | None = None,
) -> list[EpochRecord]:
    """Train a classifier on a frozen embedding (stage two), or on features, as for a linear probe or a label graph.

    With a process group of torch.distributed, call this function in each process with the same arguments: each process
    computes the logits of a part of every batch, and all end with the same weights. Rank 0 reads and writes the
    checkpoint.

    Args:
        head: The classifier, any head of [mlmetric.heads][] that scores labels; trained in place.
        embeddings: Shape `(N, D)`, or `(N, ...)` if the head accepts that; or features of this shape.
        loss: Called as `loss(logits, labels)`, such as [AsymmetricLoss][mlmetric.losses.AsymmetricLoss]. None for the
            loss of the head, which is the binary cross entropy for a `ClassifierHead`.
        validation: Embeddings, or features, and labels 0 or 1, scored after each epoch by `val_map`, which leaves out
            missing labels, NaN. None for no validation.

    Returns:
        A record for each epoch: `epoch`, `loss` (mean over rows; in nats by default), `lr`; with `validation`,
        `val_loss`, `val_map` (macro) and `val_macro_f1` (at probability 0.5).

    Raises:
        ValueError: If a shape or setting is out of range, labels of `validation` are soft, labels are missing but the
            loss does not support that, or the checkpoint or another process of a process group has other settings or
            data.
        TypeError: If `head` is not a torch module, embeddings are not tensors, labels are not numbers, or, with a
            checkpoint, the content of a part cannot be compared, such as an open file; a method `fingerprint()` of its
            class can then describe it.
        FloatingPointError: If loss or weights are no longer finite; the checkpoint of the previous epoch is kept.
        OSError: If the checkpoint cannot be written or read, or is damaged.

    Warns:
        UserWarning: If the mean loss of an epoch is more than 10 times the first loss that is not 0, as with a learning
            rate that is too high; or if the validation score is NaN but is needed to choose epochs.
    """
    if not isinstance(head, nn.Module):
        raise TypeError(f"`head` must be a torch module that scores labels, got {type(head).__name__}.")
    device = device_of(head)
    labels = read_rows(embeddings, labels)
    validation = read_validation(validation, embeddings, labels, hard=True)
    uses_other_head = loss is None and not isinstance(head, ClassifierHead | LabelGraphHead | LabelNetwork)
    check_missing_support(labels, validation, loss=loss, head=head if uses_other_head else None)
    label_loss = _unchecked_loss(head) if loss is None else loss
    if isinstance(loss, nn.Module):
        loss.to(device)

    def step(batch: MixupRows) -> tuple[Tensor, int]:
        logits = trainer.forward(embeddings, batch)
        return label_loss(logits, batch.mix(labels).to(device, logits.dtype)), 0

    def validate() -> tuple[EpochRecord, dict[str, float]]:
        assert validation is not None
        target = validation[1].to(device)
        logits = _validation_outputs(head, validation[0], trainer)
        scores = head.probabilities(logits)
        average_precision = label_score(scores, target)
        return {
            "val_loss": float(label_loss(logits, target.to(logits.dtype)).detach()),
            "val_map": average_precision,
            "val_macro_f1": float(
                f1(scores, target, average="macro", threshold=0.5, zero_division=0, mask=annotated_mask(target))
            ),
        }, {"labels": average_precision}

    trainer = Trainer(head, config, checkpoint, callback, {"loss": loss})
    return trainer.fit(embeddings, labels, step, validate, validation=validation, count_name=None)


def _evenly_spaced(num_rows: int, largest: int) -> slice:
    """Return a slice of at most `largest` evenly spaced rows."""
    return slice(None, None, max(1, -(-num_rows // largest)))


def _check_label_network(network: LabelNetwork, head: nn.Module, classifier: ClassifierHead | None) -> None:
    """Check that the network consists of copies of head and classifier."""
    if classifier is None:
        raise ValueError("`label_network` needs a `classifier` that is trained with the head, got None.")
    for name, copy, part in (("head", network.head, head), ("classifier", network.classifier, classifier)):
        shapes, expected = ({key: value.shape for key, value in each.state_dict().items()} for each in (copy, part))
        if copy is part or shapes != expected:
            raise ValueError(
                f"`label_network.{name}` must be a copy of `{name}`, such as `copy.deepcopy({name})`, got "
                f"{'the same object' if copy is part else 'a module with other parameters'}."
            )


def _validation_outputs(module: nn.Module, inputs: Tensor, trainer: Trainer) -> Tensor:
    outputs = apply_in_batches(module, inputs)
    return check_outputs_finite(outputs, epoch=len(trainer.history), lr=trainer.config.lr)


def _unchecked_loss(head: LabelHead) -> LabelLoss:
    """Return the loss of a head without the check of its labels, which costs a synchronisation on CUDA."""
    if "validate_args" in inspect.signature(head.loss).parameters:
        return partial(head.loss, validate_args=False)  # type: ignore[call-arg]
    return head.loss
