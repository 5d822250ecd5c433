"""The mean binary cross entropy of labels, some of which may be missing."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from mlmetric._label_matrix import known_labels, may_have_missing
from mlmetric.labels import LabelsLike, label_tensor


def label_entropy(
    logits: Tensor, labels: LabelsLike, *, validate_args: bool = True, probabilities: bool = False
) -> Tensor:
    """Compute the mean binary cross entropy over the annotated labels, in nats; 0 without any.

    Args:
        logits: Shape `(N, L)`.
        labels: Shape `(N, L)`, in [0, 1]; NaN for labels that are not annotated.
        validate_args: Whether to check that labels are in [0, 1], which synchronises with a CUDA device.
        probabilities: Whether `logits` are probabilities.

    Returns:
        A scalar.
    """
    labels = label_tensor(labels, validate_args=validate_args, allow_missing=True)
    target, weight = labels.to(logits), None
    if may_have_missing(labels):  # without missing labels, the weights are 1 and change nothing
        target, known = known_labels(target)
        count = known.sum().clamp(min=1).to(torch.promote_types(logits.dtype, torch.float32))
        weight = (known * (known.numel() / count)).to(logits.dtype)
    function = functional.binary_cross_entropy if probabilities else functional.binary_cross_entropy_with_logits
    entropy: Tensor = function(logits, target, weight)
    return entropy
