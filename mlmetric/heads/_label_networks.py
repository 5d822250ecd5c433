"""Networks that score labels from features: a head with a classifier, an ensemble, and a calibrated classifier."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from mlmetric._docstrings import inherit_docs
from mlmetric.heads._classifier_head import ClassifierHead
from mlmetric.labels import LabelsLike


class LabelNetwork(nn.Module):
    """An embedding head followed by a classifier: a network that scores labels from features.

    [fit_embedding][mlmetric.training.fit_embedding] trains both together with a metric loss;
    [fit_classifier][mlmetric.training.fit_classifier] trains such a network by the loss of its classifier alone, as a
    multi-layer perceptron.

    Args:
        head: Maps features `(N, D)` to embeddings `(N, E)`.
        classifier: Maps embeddings to logits `(N, L)`.

    Attributes:
        head: The embedding head.
        classifier: The classifier.

    Examples:
        >>> import torch
        >>> from mlmetric.heads import ClassifierHead, EmbeddingHead, LabelNetwork
        >>> network = LabelNetwork(EmbeddingHead(2048, activate_last=True), ClassifierHead(256, num_labels=30))
        >>> network.probabilities(network(torch.zeros(4, 2048))).shape
        torch.Size([4, 30])
    """

    def __init__(self, head: nn.Module, classifier: ClassifierHead) -> None:
        super().__init__()
        self.head = head
        self.classifier = classifier

    def forward(self, features: Tensor) -> Tensor:
        """Compute logits `(N, L)` from features `(N, D)`."""
        logits: Tensor = self.classifier(self.head(features))
        return logits

    def probabilities(self, logits: Tensor) -> Tensor:
        """Convert logits `(N, L)` to probabilities of the same shape with the activation of the classifier."""
        return self.classifier.probabilities(logits)

    @inherit_docs(ClassifierHead.loss)
    def loss(self, logits: Tensor, labels: LabelsLike, *, validate_args: bool = True) -> Tensor:
        """Compute the loss of the classifier."""
        return self.classifier.loss(logits, labels, validate_args=validate_args)


class ClassifierEnsemble(nn.Module):
    """The weighted mean of the logits of several classifiers.

    Args:
        members: Classifiers that map `(N, D)` to logits `(N, L)`.
        weights: Weight of each member, at least 0; they are divided by their sum. None for equal weights.

    Attributes:
        members: The classifiers, a `ModuleList`.
        weights: Their weights, whose sum is 1, float32, shape `(len(members),)`; a buffer.

    Raises:
        ValueError: If there is no member, the numbers of members and weights differ, or a weight is negative or not
            finite, or all are 0.

    Examples:
        >>> import torch
        >>> from mlmetric.heads import ClassifierEnsemble
        >>> ensemble = ClassifierEnsemble([torch.nn.Identity(), torch.nn.Flatten()], weights=[3, 1])
        >>> ensemble(torch.tensor([[2.0, -2.0]])), ensemble.weights
        (tensor([[ 2., -2.]]), tensor([0.7500, 0.2500]))
    """

    weights: Tensor

    def __init__(self, members: Iterable[nn.Module], weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        if not self.members:
            raise ValueError("`members` must contain at least one classifier, got none.")
        weights = [1.0] * len(self.members) if weights is None else list(weights)
        if len(weights) != len(self.members):
            raise ValueError(
                f"`weights` must have a weight for each of {len(self.members)} members, got {len(weights)}."
            )
        if not all(0 <= weight < math.inf for weight in weights) or not any(weights):
            raise ValueError(f"`weights` must be finite and at least 0, and at least one above 0, got {weights}.")
        values = torch.tensor(weights, dtype=torch.float64)
        self.register_buffer("weights", (values / values.sum()).float())

    def forward(self, features: Tensor) -> Tensor:
        """Compute the mean logits `(N, L)` of features `(N, D)`."""
        weighted = [weight * member(features) for weight, member in zip(self.weights, self.members, strict=True)]
        return torch.stack(weighted).sum(0)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Convert logits `(N, L)` to probabilities of the same shape with the sigmoid."""
        return logits.sigmoid()

    def extra_repr(self) -> str:
        """Show the weights."""
        return f"weights={[round(weight, 4) for weight in self.weights.tolist()]}"


class CalibratedClassifier(nn.Module):
    """A classifier whose logits are scaled and shifted for each label: temperature or Platt scaling.

    Args:
        classifier: Maps `(N, D)` to logits `(N, L)`, and these to probabilities by the sigmoid.
        slopes: Factor of the logits of each label, floating point, shape `(L,)`.
        intercepts: Constant added to the scaled logits of each label, shape `(L,)`.

    Attributes:
        classifier: The classifier.
        slopes: The factors, float32, shape `(L,)`; a buffer.
        intercepts: The added constants, float32, shape `(L,)`; a buffer.

    Examples:
        >>> import torch
        >>> from mlmetric.heads import CalibratedClassifier
        >>> classifier = CalibratedClassifier(torch.nn.Identity(), torch.tensor([0.5, 1.0]), torch.tensor([0.0, -1.0]))
        >>> classifier(torch.tensor([[2.0, 2.0]]))
        tensor([[1., 1.]])

    Source:
        Guo et al., "On calibration of modern neural networks", ICML 2017; Platt, "Probabilistic outputs for support
        vector machines", 1999.
    """

    slopes: Tensor
    intercepts: Tensor

    def __init__(self, classifier: nn.Module, slopes: Tensor, intercepts: Tensor) -> None:
        super().__init__()
        self.classifier = classifier
        self.register_buffer("slopes", slopes.float())
        self.register_buffer("intercepts", intercepts.float())

    def forward(self, features: Tensor) -> Tensor:
        """Compute the calibrated logits `(N, L)` of features `(N, D)`."""
        logits: Tensor = self.classifier(features)
        return self.scale(logits)

    def scale(self, logits: Tensor) -> Tensor:
        """Scale and shift logits `(N, L)` of the classifier."""
        return logits * self.slopes.to(logits) + self.intercepts.to(logits)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Convert logits `(N, L)` of this module to probabilities of the same shape with the sigmoid."""
        return logits.sigmoid()
