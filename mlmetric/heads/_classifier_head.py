"""The head that maps an embedding to label scores."""

from __future__ import annotations

from typing import Literal, Self

import torch
from torch import Tensor, nn

from mlmetric._label_matrix import smoothed_frequencies
from mlmetric.heads._label_entropy import label_entropy
from mlmetric.heads._standardize import Standardize
from mlmetric.labels import LabelsLike, label_tensor


class ClassifierHead(nn.Module):
    """A linear multi-label classifier of embeddings, or of features (a linear probe).

    Inputs first pass through `standardize`, which does nothing until `head.standardize.fit(train_embeddings)` is
    called.

    Args:
        in_features: D, the number of inputs.
        num_labels: L.
        activation: `"sigmoid"`: a probability for each label, independent of the others. `"softmax"`, as in the paper:
            the probabilities of a row add up to 1. Use it for reproduction only: two labels of a row cannot both have a
            probability above 0.5, so a threshold of 0.5 is of little use.
        clip: Standardised inputs are clipped to the range from `-clip` to `clip`; None does not clip them. Clipping
            limits the effect of rare features, such as a word in few rows, that are tens of standard deviations from
            their mean.
        fill_missing: Whether to replace NaN in the inputs, such as the features of a missing view, by 0 after
            standardisation, which is the mean of the feature.

    Raises:
        ValueError: If `activation` is neither of these, or `clip` is not above 0.

    Examples:
        >>> import torch
        >>> from mlmetric.heads import ClassifierHead
        >>> head = ClassifierHead(256, num_labels=30)
        >>> logits = head(torch.zeros(4, 256))
        >>> head.probabilities(logits).shape
        torch.Size([4, 30])

    Source:
        "From image to emotion: multi-label image classification based on triplet loss" (2021), section 4, which uses
        softmax. Deviation: sigmoid is the default.
    """

    def __init__(
        self,
        in_features: int,
        num_labels: int,
        *,
        activation: Literal["sigmoid", "softmax"] = "sigmoid",
        clip: float | None = None,
        fill_missing: bool = False,
    ) -> None:
        super().__init__()
        if activation not in ("sigmoid", "softmax"):
            raise ValueError(f"`activation` must be 'sigmoid' or 'softmax', got {activation!r}.")
        if clip is not None and not clip > 0:
            raise ValueError(f"`clip` must be None or above 0, got {clip}.")
        self.activation: Literal["sigmoid", "softmax"] = activation
        self.clip = clip
        self.fill_missing = fill_missing
        self.standardize = Standardize(in_features)
        self.linear = nn.Linear(in_features, num_labels)

    def init_from_labels(self, labels: LabelsLike) -> Self:
        """Initialise the probabilities with the frequencies of the labels: set the weights to 0, and the bias to match.

        If the embedding already separates the labels, the best epoch comes early. At that epoch, a random
        initialisation would still have an effect, and the frequencies of rare labels would not have been learnt yet.
        Frequencies are (count + 0.5) / (n + 1) for the n rows that are annotated for a label, so that none is 0 or 1.
        With softmax the probabilities are the frequencies divided by their sum.

        Args:
            labels: Labels of the training rows, shape `(N, L)`, multi-hot or soft, of any kind that
                [check_labels][mlmetric.labels.check_labels] reads; NaN for labels that are not annotated.

        Returns:
            The head.

        Raises:
            TypeError: If `labels` does not contain numbers.
            ValueError: If the shape is wrong, or a label is outside [0, 1].

        Source:
            Bias from a prior: Lin et al., "Focal loss for dense object detection", ICCV 2017, section 3.3. Deviations:
            each label has its own prior, and the weights are 0.
        """
        num_labels = self.linear.out_features
        matrix = label_tensor(labels, allow_missing=True)
        if matrix.shape[1] != num_labels:
            raise ValueError(f"`labels` must have shape (N, {num_labels}), got {tuple(matrix.shape)}.")
        frequencies = smoothed_frequencies(matrix)
        with torch.no_grad():
            self.linear.weight.zero_()
            self.linear.bias.copy_(frequencies.logit() if self.activation == "sigmoid" else frequencies.log())
        return self

    def forward(self, embeddings: Tensor) -> Tensor:
        """Compute logits `(N, L)` from embeddings `(N, D)`."""
        logits: Tensor = self.linear(self.inputs(embeddings))
        return logits

    def inputs(self, embeddings: Tensor) -> Tensor:
        """Return the inputs of the linear layer: embeddings, shape `(N, D)`, standardised, filled and clipped."""
        standardized: Tensor = self.standardize(embeddings)
        if self.fill_missing:
            standardized = standardized.where(~standardized.isnan(), 0)
        return standardized if self.clip is None else standardized.clamp(-self.clip, self.clip)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Convert logits `(N, L)` to probabilities of the same shape with the head's activation."""
        return logits.sigmoid() if self.activation == "sigmoid" else logits.softmax(dim=1)

    def loss(self, logits: Tensor, labels: LabelsLike, *, validate_args: bool = True) -> Tensor:
        """Compute the mean binary cross entropy over the annotated labels, in nats; 0 if there are none.

        Args:
            logits: Shape `(N, L)`.
            labels: Shape `(N, L)`, in [0, 1], of any kind that [check_labels][mlmetric.labels.check_labels] reads; NaN
                for labels that are not annotated.
            validate_args: Whether to check that labels are in [0, 1], which synchronises with a CUDA device.

        Returns:
            The loss, a scalar.

        Raises:
            TypeError: If `labels` does not contain numbers.
            ValueError: If `labels` is not a matrix, or a label is outside [0, 1].
        """
        if self.activation == "sigmoid":
            return label_entropy(logits, labels, validate_args=validate_args)
        with torch.autocast(logits.device.type, enabled=False):
            probabilities = logits.float().softmax(dim=1)
            return label_entropy(probabilities, labels, validate_args=validate_args, probabilities=True)

    def extra_repr(self) -> str:
        """Show activation, clipping and filling."""
        return f"activation={self.activation!r}, clip={self.clip}, fill_missing={self.fill_missing}"
