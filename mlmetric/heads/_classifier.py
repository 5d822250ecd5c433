"""The head that turns an embedding into label scores."""

from __future__ import annotations

from typing import Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlmetric.heads._standardize import Standardize
from mlmetric.labels import check_labels, label_counts


class ClassifierHead(nn.Module):
    """A linear layer on a frozen embedding, or on the feature itself: then it is the linear probe.

    Inputs pass through `standardize` first, which does nothing until `head.standardize.fit(train_embeddings)`.

    Args:
        in_features: Size of the input.
        num_labels: L.
        activation: `"sigmoid"`: each label decides for itself. `"softmax"`: the labels of a row share a
            probability of 1, as the paper has it; for reproduction only: a row with two labels cannot give both
            more than 0.5, so decisions at a threshold of 0.5 say little.

    Raises:
        ValueError: If `activation` is neither of these.

    Examples:
        >>> head = ClassifierHead(256, num_labels=30)
        >>> logits = head(torch.zeros(4, 256))
        >>> head.probabilities(logits).shape
        torch.Size([4, 30])

    Source:
        "From image to emotion: multi-label image classification based on triplet loss" (2021), section 4. Its
        softmax is an option here; sigmoid is the default.
    """

    def __init__(
        self, in_features: int, num_labels: int, *, activation: Literal["sigmoid", "softmax"] = "sigmoid"
    ) -> None:
        super().__init__()
        if activation not in ("sigmoid", "softmax"):
            raise ValueError(f"`activation` must be 'sigmoid' or 'softmax', got {activation!r}.")
        self.activation: Literal["sigmoid", "softmax"] = activation
        self.standardize = Standardize(in_features)
        self.linear = nn.Linear(in_features, num_labels)

    def init_from_labels(self, labels: Tensor) -> Self:
        """Begin at the frequencies of labels: weights of 0, and the bias that gives them whatever is embedded.

        On an embedding that tells labels already the best epoch is an early one. A random start has then not been
        forgotten, nor has it been learnt how rare labels are. Half an item with each label and half a one without are
        added, so that no frequency is 0 or 1. With softmax the probabilities are the shares of the frequencies.

        Args:
            labels: Of the training rows, shape `(N, L)`, multi-hot or soft, in [0, 1], any dtype.

        Returns:
            The head.

        Raises:
            ValueError: If the shape does not fit, or a label is NaN or outside [0, 1].

        Source:
            The bias from a prior: Lin et al., "Focal loss for dense object detection", ICCV 2017, section 3.3. Ours:
            each label has a prior of its own, and the weights are 0.
        """
        num_labels = self.linear.out_features
        if labels.ndim != 2 or labels.shape[1] != num_labels:
            raise ValueError(f"`labels` must have shape (N, {num_labels}), got {tuple(labels.shape)}.")
        frequencies = (label_counts(torch.as_tensor(labels)) + 0.5) / (len(labels) + 1)
        with torch.no_grad():
            self.linear.weight.zero_()
            self.linear.bias.copy_(frequencies.logit() if self.activation == "sigmoid" else frequencies.log())
        return self

    def forward(self, embeddings: Tensor) -> Tensor:
        """Score embeddings of shape `(N, in_features)`: logits of shape `(N, L)`."""
        logits: Tensor = self.linear(self.standardize(embeddings))
        return logits

    def probabilities(self, logits: Tensor) -> Tensor:
        """Turn logits `(N, L)` into probabilities, by the head's activation."""
        return logits.sigmoid() if self.activation == "sigmoid" else logits.softmax(dim=1)

    def loss(self, logits: Tensor, labels: Tensor, *, validate_args: bool = True) -> Tensor:
        """Take the mean binary cross entropy, in nats, of logits to labels.

        Args:
            logits: Shape `(N, L)`.
            labels: Shape `(N, L)`, in [0, 1].
            validate_args: Whether to check that labels are in [0, 1]. On a CUDA tensor that waits for the device.

        Raises:
            ValueError: If `labels` is not a matrix, or one is NaN or outside [0, 1].
        """
        check_labels(labels, validate_args=validate_args)
        labels = labels.to(logits.dtype)
        if self.activation == "sigmoid":
            return functional.binary_cross_entropy_with_logits(logits, labels)
        with torch.autocast(logits.device.type, enabled=False):
            return functional.binary_cross_entropy(logits.float().softmax(dim=1), labels.float())

    def extra_repr(self) -> str:
        """Show the activation."""
        return f"activation={self.activation!r}"
