"""Losses for classifier heads: logits `(N, L)` against label matrices `(N, L)`."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softplus

from mlmetric.labels import check_labels


class AsymmetricLoss(nn.Module):
    """Binary cross entropy that plays down easy negatives more than easy positives.

    With p the sigmoid of a logit and `p_m = max(0, p - margin)`: `-(1 - p)^gamma_positive log p` where a label is
    present, `-p_m^gamma_negative log(1 - p_m)` where it is absent, summed over labels, mean over the batch. 0 is best.
    With both gammas and the margin at 0 it is the binary cross entropy. A negative below the margin counts nothing,
    which helps where many labels are absent, and some of them only by mistake.

    Args:
        gamma_negative: Focusing of negatives, at least 0.
        gamma_positive: Focusing of positives, at least 0.
        margin: Probability that negatives may keep, in [0, 1).
        validate_args: Whether to check that labels are in [0, 1]. On a CUDA tensor that waits for the device.

    Raises:
        ValueError: If a gamma is below 0 or the margin outside [0, 1).

    Examples:
        >>> AsymmetricLoss(0, 0, 0)(torch.zeros(1, 2), torch.tensor([[1, 0]]))  # 2 log 2
        tensor(1.3863)

    Source:
        Ridnik et al., "Asymmetric loss for multi-label classification", ICCV 2021, with its settings for MS-COCO.
        As its authors do, no gradient goes through the focusing weights. Deviations: the mean over the batch in place
        of the sum, so that the learning rate does not depend on the batch size; logarithms of sigmoids, where theirs
        are clamped at 1e-8; and soft labels weigh the two parts.
    """

    def __init__(
        self,
        gamma_negative: float = 4.0,
        gamma_positive: float = 1.0,
        margin: float = 0.05,
        *,
        validate_args: bool = True,
    ) -> None:
        super().__init__()
        if not (gamma_negative >= 0 and gamma_positive >= 0):
            raise ValueError(
                f"`gamma_negative` and `gamma_positive` must be at least 0, got {gamma_negative} and {gamma_positive}."
            )
        if not 0 <= margin < 1:
            raise ValueError(f"`margin` must be a probability, in [0, 1), got {margin}.")
        self.gamma_negative = gamma_negative
        self.gamma_positive = gamma_positive
        self.margin = margin
        self.validate_args = validate_args

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss, a scalar.

        Args:
            logits: Shape `(N, L)`.
            labels: Shape `(N, L)`, multi-hot or soft.

        Raises:
            ValueError: If the shapes differ, or a label is NaN or outside [0, 1].
        """
        logits, labels = _checked(logits, labels, self.validate_args)
        probability = logits.sigmoid()
        if self.margin:
            kept = (probability - self.margin).clamp(min=0)
            log_absent = torch.log1p(-kept)
        else:
            kept, log_absent = probability, logsigmoid(-logits)
        with torch.no_grad():
            positive_weight = (1 - probability) ** self.gamma_positive
            negative_weight = kept**self.gamma_negative
        losses = labels * positive_weight * logsigmoid(logits) + (1 - labels) * negative_weight * log_absent
        return -losses.sum() / max(len(losses), 1)


class TwoWayLoss(nn.Module):
    """Rank present labels above absent ones within each item, and items that carry a label above others within each.

    For each item with a label, and likewise for each label of the batch:
    `softplus(T_n log sum_n exp(x_n / T_n) + T_p log sum_p exp(-x_p / T_p))`, n over the absent, p over the present
    ones; the mean over items plus the mean over labels. It is small where every present logit exceeds every absent one,
    in both directions. Items without labels, and labels without items, are left out; where nothing is absent the term
    is 0.

    Args:
        temperature_positive: T_p, above 0: high, so that all present ones count.
        temperature_negative: T_n, above 0: low, so that the highest absent ones count.
        validate_args: Whether to check that labels are in [0, 1]. On a CUDA tensor that waits for the device.

    Raises:
        ValueError: If a temperature is not above 0.

    Examples:
        >>> TwoWayLoss(1, 1)(torch.tensor([[2.0, 0.0]]), torch.tensor([[1, 0]]))  # log(1 + exp(-2)), and 0
        tensor(0.1269)

    Source:
        Kobayashi, "Two-way multi-label loss", CVPR 2023, with its temperatures. Deviation: its code replaces the
        logarithm of an empty sum by a number near -100 times the temperature; here it is -infinity, and the term 0.
    """

    def __init__(
        self, temperature_positive: float = 4.0, temperature_negative: float = 1.0, *, validate_args: bool = True
    ) -> None:
        super().__init__()
        if not (temperature_positive > 0 and temperature_negative > 0):
            raise ValueError(
                "`temperature_positive` and `temperature_negative` must be above 0, "
                f"got {temperature_positive} and {temperature_negative}."
            )
        self.temperature_positive = temperature_positive
        self.temperature_negative = temperature_negative
        self.validate_args = validate_args

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss, a scalar.

        Args:
            logits: Shape `(N, L)`.
            labels: Shape `(N, L)`; a label is present where it is above 0.

        Raises:
            ValueError: If the shapes differ, or a label is NaN or outside [0, 1].
        """
        logits, labels = _checked(logits, labels, self.validate_args)
        present = labels > 0
        return self._one_way(logits, present, dim=1) + self._one_way(logits, present, dim=0)

    def _one_way(self, logits: Tensor, present: Tensor, dim: int) -> Tensor:
        ranked = present.any(dim) & ~present.all(dim)
        counted = present.any(dim).sum().clamp(min=1)
        low = self.temperature_positive * _log_sum_exp(-logits / self.temperature_positive, present, ranked, dim)
        high = self.temperature_negative * _log_sum_exp(logits / self.temperature_negative, ~present, ranked, dim)
        return torch.where(ranked, softplus(high + low), 0).sum() / counted


def _log_sum_exp(values: Tensor, keep: Tensor, ranked: Tensor, dim: int) -> Tensor:
    """Take log sum exp over kept entries; where a row or column is not ranked over all, so that no gradient is NaN."""
    return values.masked_fill(~keep & ranked.unsqueeze(dim), -torch.inf).logsumexp(dim)


def _checked(logits: Tensor, labels: Tensor, validate_args: bool) -> tuple[Tensor, Tensor]:
    check_labels(labels, validate_args=validate_args)
    if logits.shape != labels.shape:
        raise ValueError(
            f"`logits` and `labels` must have the same shape (N, L), got {tuple(logits.shape)} and "
            f"{tuple(labels.shape)}."
        )
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits, labels.to(logits)
