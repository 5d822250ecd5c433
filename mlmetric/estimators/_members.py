"""The members of an ensemble: heads with a classifier that is trained together with each."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import NamedTuple

from torch import nn

from mlmetric.estimators._recipes import RECOMMENDED_HEAD
from mlmetric.estimators._training_data import TrainingData
from mlmetric.estimators._validation_parts import ValidationParts
from mlmetric.heads import ClassifierHead, LabelNetwork, Standardize
from mlmetric.training import apply_in_batches


class Member(NamedTuple):
    """A head and the classifier that is trained with it, or None."""

    head: nn.Module
    classifier: ClassifierHead | None

    def network(self) -> LabelNetwork:
        """Return copies of both, to receive the weights after another epoch."""
        assert self.classifier is not None
        return LabelNetwork(copy.deepcopy(self.head), copy.deepcopy(self.classifier)).eval()


class FittedMembers(NamedTuple):
    """The result of training the members.

    Attributes:
        networks: The networks of the members after the epochs that are best for labels; empty if not required.
        parts: The training rows and validation rows of each member.
        next_seed: Seed of the next stage.
    """

    networks: list[LabelNetwork]
    parts: ValidationParts
    next_seed: int


def make_member(
    make_head: Callable[[int], nn.Module] | None, data: TrainingData, *, standardize: bool, with_classifier: bool
) -> Member:
    """Initialise a member on the CPU.

    Args:
        make_head: Makes a head from the number of features; None for the recommended head.
        data: The rows passed as `X` and `y`.
        standardize: Whether to fit the standardisation of the head.
        with_classifier: Whether a classifier is trained with the head.

    Returns:
        The member.
    """
    head = (RECOMMENDED_HEAD if make_head is None else make_head)(data.features.shape[1])
    if standardize:
        part = getattr(head, "standardize", None)
        if not isinstance(part, Standardize):
            raise ValueError(
                f"`standardize` needs `head.standardize`; {type(head).__name__} has none. Pass `standardize=False`."
            )
        part.fit(data.features)
    if not with_classifier:
        return Member(head, None)
    size = apply_in_batches(head, data.features[:1]).shape[1]
    return Member(head, ClassifierHead(size, data.labels.shape[1]))
