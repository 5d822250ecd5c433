"""Proper scores of predicted probabilities: Brier score and log loss."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy

from mlmetric._docstrings import inherit_docs
from mlmetric.labels import LabelsLike
from mlmetric.metrics._bootstrap import supports_resample_weights
from mlmetric.metrics._calibration_error import calibration_error
from mlmetric.metrics._inputs import Predictions, TensorLike
from mlmetric.metrics._label_based import Average, average_ratio
from mlmetric.metrics._probabilities import check_probabilities, label_chunks


@supports_resample_weights
@inherit_docs(
    calibration_error,
    average="the error of the entries of all labels in common bins (pooled)=>mean over all entries",
)
def brier_score(
    preds: TensorLike,
    target: LabelsLike,
    *,
    average: Average = "macro",
    mask: TensorLike | None = None,
    sample_weight: TensorLike | None = None,
    zero_division: float = math.nan,
) -> Tensor:
    """Compute the Brier score: the mean squared difference between the predicted probability and the true label.

    0 is best, 1 worst. The score is strictly proper: its expected value is lowest for the true probabilities. It
    measures calibration and discrimination together. It depends on the frequency q of the label, because predicting q
    for all rows gives the score q (1 - q): compare models on the same rows. For each label it equals scikit-learn's
    `brier_score_loss`.

    Examples:
        >>> import torch
        >>> from mlmetric.metrics import brier_score
        >>> preds = torch.tensor([[0.9, 0.5], [0.2, 0.5]])
        >>> target = torch.tensor([[1, 1], [0, 0]])
        >>> brier_score(preds, target, average="none")
        tensor([0.0250, 0.2500], dtype=torch.float64)

    Source:
        Brier, "Verification of forecasts expressed in terms of probability", Monthly Weather Review 78, 1950.
    """
    predictions = check_probabilities(preds, target, mask, sample_weight)

    def loss(part: Predictions) -> Tensor:
        return (part.preds - part.target.double()).square()

    return _average_losses(predictions, loss, average, zero_division)


@supports_resample_weights
@inherit_docs(brier_score)
def log_loss(
    preds: TensorLike,
    target: LabelsLike,
    *,
    average: Average = "macro",
    mask: TensorLike | None = None,
    sample_weight: TensorLike | None = None,
    zero_division: float = math.nan,
) -> Tensor:
    """Compute the log loss (cross entropy): the mean negative logarithm of the probability of the true value.

    0 is best. The loss is strictly proper, like the Brier score, and confident errors dominate it. As in scikit-learn,
    probabilities are clipped to `[eps, 1 - eps]`, where eps is the machine epsilon of the dtype of `preds`: an entry
    with the label and the probability 0 has a loss of 36 with float64 and 16 with float32. For each label the loss
    equals scikit-learn's `log_loss`.

    Returns:
        float64, 0-d or `(L,)`, at least 0, on the device of `preds`.

    Examples:
        >>> import torch
        >>> from mlmetric.metrics import log_loss
        >>> preds = torch.tensor([[0.9, 0.5], [0.2, 0.5]])
        >>> target = torch.tensor([[1, 1], [0, 0]])
        >>> log_loss(preds, target, average="none")
        tensor([0.1643, 0.6931], dtype=torch.float64)
    """
    predictions = check_probabilities(preds, target, mask, sample_weight)
    eps = torch.finfo(predictions.preds.dtype).eps

    def loss(part: Predictions) -> Tensor:
        return binary_cross_entropy(part.preds.clamp(eps, 1 - eps), part.target.double(), reduction="none")

    return _average_losses(predictions, loss, average, zero_division)


def _average_losses(
    predictions: Predictions, loss: Callable[[Predictions], Tensor], average: Average, zero_division: float
) -> Tensor:
    """Average the losses of the entries, with weights `(N,)` or `(B, N)` of the rows."""
    weight = predictions.weight
    if weight is None:
        weight = torch.ones(len(predictions.preds), dtype=torch.float64, device=predictions.preds.device)
    sums: list[tuple[Tensor, Tensor, Tensor]] = []
    for part in label_chunks(predictions):
        losses = loss(part)
        included = torch.ones_like(losses) if part.mask is None else part.mask.double()
        sums.append((weight @ (losses * included), weight @ included, weight @ part.target.double()))
    numerator, denominator, support = (torch.cat(parts, dim=-1) for parts in zip(*sums, strict=True))
    return average_ratio(numerator, denominator, support, average, zero_division)
