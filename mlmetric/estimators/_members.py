"""The members of an ensemble: heads, and the classifier that is trained together with each head."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mlmetric._random_generators import seeded
from mlmetric.distributed import num_ranks, on_first_rank
from mlmetric.estimators._member_threads import Caller, run_in_threads
from mlmetric.estimators._recipes import recommended_head
from mlmetric.estimators._staged_estimator import StageOutputs
from mlmetric.estimators._training_data import TrainingData
from mlmetric.estimators._validation_parts import Parts, ValidationParts
from mlmetric.heads import ClassifierHead, EmbeddingEnsemble, LabelNetwork, Standardize
from mlmetric.losses import LogRatioLoss
from mlmetric.training import EpochRecord, apply_in_batches, fit_embedding


class Member(NamedTuple):
    """A head and the classifier that is trained with it, or None."""

    head: nn.Module
    classifier: ClassifierHead | None

    def network(self) -> LabelNetwork:
        """Return copies of both, which can receive the weights of another epoch."""
        assert self.classifier is not None
        return LabelNetwork(copy.deepcopy(self.head), copy.deepcopy(self.classifier)).eval()


class TrainedMembers(NamedTuple):
    """The result of training the members.

    Attributes:
        parts: The training rows and validation rows of each member.
        heads: The trained heads.
        networks: The networks of the members after the epochs that are best for labels; empty if not required.
        histories: The records of the epochs of each member.
    """

    parts: Parts
    heads: list[nn.Module]
    networks: list[LabelNetwork]
    histories: list[list[EpochRecord]]

    def ensemble(self) -> EmbeddingEnsemble:
        """Return the heads as one, in evaluation mode."""
        return EmbeddingEnsemble(self.heads).eval()


class FittedMembers(NamedTuple):
    """The members of an estimator.

    Attributes:
        members: The members that are trained on all features; None with late fusion.
        of_views: With late fusion, the members that are trained on each view; otherwise None.
        parts: The training rows and validation rows, with all features.
        next_seed: Seed of the next stage.
    """

    members: TrainedMembers | None
    of_views: dict[str, TrainedMembers] | None
    parts: ValidationParts
    next_seed: int


def check_member_settings(estimator: Any) -> None:
    """Check the settings of an estimator that concern its members.

    Raises:
        TypeError: If `head` is a module.
        ValueError: If a setting is out of range.
    """
    for name, smallest in (("n_members", 1), ("classifier_weight", 0), ("max_epochs", 1)):
        if not getattr(estimator, name) >= smallest:
            raise ValueError(f"`{name}` must be at least {smallest}, got {getattr(estimator, name)!r}.")
    if isinstance(estimator.head, nn.Module):
        raise TypeError(
            "`head` must make a head from the number of features, such as `functools.partial(EmbeddingHead, "
            f"dropout=0.2)`, one for each member; got a module, {type(estimator.head).__name__}."
        )
    if estimator.patience is not None and estimator.patience < 1:
        raise ValueError(f"`patience` must be None or at least 1, got {estimator.patience}.")
    if estimator.fusion not in ("late", "gated", "concat"):
        raise ValueError(f"`fusion` must be 'late', 'gated' or 'concat', got {estimator.fusion!r}.")


def train_members(
    estimator: Any,
    parts: Parts,
    *,
    outputs: StageOutputs,
    stage: str,
    seed: int,
) -> TrainedMembers:
    """Train the members of an estimator.

    Args:
        estimator: The estimator, with its settings.
        parts: The training rows and validation rows of each member.
        outputs: The checkpoints and the callback.
        stage: Prefix of the names of the stages, which continue with the number of the member.
        seed: Seed of the weights; the seed of the training of member m is `seed % 100_000 + m`.

    Returns:
        The members, in evaluation mode.
    """
    # A `MetricClassifier` predicts labels with the networks of its members, unless it has a second stage.
    predicts_labels = not getattr(estimator, "two_stage", True)
    label_loss = estimator.label_loss if predicts_labels else None
    with seeded(seed):
        members = [_make_member(estimator, parts.data) for _ in range(estimator.n_members)]
    networks = [member.network() for member in members] if predicts_labels else []

    def train_member(number: int, caller: Caller) -> list[EpochRecord]:
        name, member = f"{stage}_{number + 1}", members[number]
        train, held_out = parts[number]
        estimator._log_stage(name, train, held_out)
        return fit_embedding(
            member.head.to(estimator.device),
            *train.pair,
            loss=LogRatioLoss(validate_args=False) if estimator.loss is None else copy.deepcopy(estimator.loss),
            miner=copy.deepcopy(estimator.miner),
            classifier=member.classifier,
            classifier_weight=estimator.classifier_weight,
            classifier_loss=copy.deepcopy(label_loss),
            label_network=networks[number] if networks else None,
            config=estimator._config(seed % 100_000 + number, held_out, is_embedding=True),
            validation=None if held_out is None else held_out.hard.pair,
            checkpoint=outputs.checkpoint(name),
            callback=partial(caller.run, outputs.callback_of(name)),
        )

    histories = run_in_threads(
        [partial(train_member, number) for number in range(len(members))], parallel=_can_run_in_threads(estimator)
    )
    return TrainedMembers(parts, [member.head.eval() for member in members], networks, histories)


def _can_run_in_threads(estimator: Any) -> bool:
    """Return whether all random numbers of the training are drawn from the generators of the threads, on the CPU."""
    custom_parts = (estimator.head, estimator.loss, estimator.miner, getattr(estimator, "label_loss", None))
    is_on_cpu = torch.device(estimator.device).type == "cpu"
    return is_on_cpu and num_ranks() == 1 and all(part is None for part in custom_parts)


def cpu_outputs(module: nn.Module, features: Tensor) -> Tensor:
    """Return the outputs for rows, on the CPU; in a process group, all ranks use the outputs of rank 0."""
    return on_first_rank(lambda: apply_in_batches(module, features).cpu())


def _make_member(estimator: Any, data: TrainingData) -> Member:
    """Initialise a member on the CPU, and fit the standardisation of its head."""
    size = data.features.shape[1]
    make_head = recommended_head(data.views, estimator.fusion) if estimator.head is None else estimator.head
    head = make_head(size)
    if estimator.standardize:
        part = getattr(head, "standardize", None)
        if not isinstance(part, Standardize):
            raise ValueError(
                f"`standardize` needs `head.standardize`; {type(head).__name__} has none. Pass `standardize=False`."
            )
        part.fit(data.features, skip_nan=data.views is not None)
    if data.views is not None:
        _check_embeds_missing_views(head, data.features)
    if not estimator.classifier_weight:
        return Member(head, None)
    return Member(head, ClassifierHead(apply_in_batches(head, data.features[:1]).shape[1], data.labels.shape[1]))


def _check_embeds_missing_views(head: nn.Module, features: Tensor) -> None:
    """Check that a head embeds rows that lack views, if there are any."""
    rows = features[features.isnan().any(dim=1)][:1]
    if len(rows) and not bool(torch.isfinite(apply_in_batches(head, rows)).all()):
        raise ValueError(
            f"`head` must embed rows that lack a view, whose features are NaN, but {type(head).__name__} returns NaN "
            "for them: use `mlmetric.heads.FusionHead`, or `fusion='late'`, which trains a head for each view."
        )
