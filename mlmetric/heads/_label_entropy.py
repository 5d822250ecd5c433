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
    """Compute the mean binary cross entropy over the annotated labels, in nats; 0 if there are none.

    Args:
        logits: Shape `(N, L)`.
        labels: Shape `(N, L)`, in [0, 1]; NaN for labels that are not annotated.
        validate_args: Whether to check that labels are in [0, 1], which synchronises with a CUDA device.
        probabilities: Whether `logits` are probabilities.

    Returns:
        A scalar.
    """
    labels = label_tensor(labels, validate_args=validate_args, allow_missing=True)
    function = functional.binary_cross_entropy if probabilities else functional.binary_cross_entropy_with_logits
    target = labels.to(logits)
    if not may_have_missing(labels):
        mean: Tensor = function(logits, target)
        return mean
    target, known = known_labels(target)
    entropies = function(logits, target, reduction="none")
    total = torch.where(known, entropies, 0).sum(dtype=torch.promote_types(entropies.dtype, torch.float32))
    return (total / known.sum().clamp(min=1)).to(entropies.dtype)
