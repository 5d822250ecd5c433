"""Losses of logits for multi-label classifiers."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softplus

from mlmetric._label_matrix import known_labels, may_have_missing
from mlmetric._repr import parameters_repr
from mlmetric.labels import LabelsLike, label_tensor


class AsymmetricLoss(nn.Module):
    """Asymmetric loss: binary cross entropy with a lower weight for easy negatives than for easy positives.

    With p the sigmoid of a logit and `p_m = max(0, p - margin)`, the loss is `-(1 - p)^gamma_pos log p` for a present
    label and `-p_m^gamma_neg log(1 - p_m)` for an absent label, summed over labels and averaged over rows. The loss of
    a missing label (NaN) is 0, and rows without an annotated label are omitted from the mean. The lowest value is 0. If
    both gammas and the margin are 0, the loss is the binary cross entropy. The loss of an absent label with a
    probability below the margin is 0, which helps if most labels are absent and some present labels were not annotated.

    The loss is not a proper score unless the gammas and the margin are 0: the true probability does not minimise its
    expectation, so the sigmoid of the logits is not a calibrated probability. Calibrate the logits with
    [`LabelCalibrator`][mlmetric.decisions.LabelCalibrator], or train with `ProperAsymmetricLoss`.

    Args:
        gamma_neg: Focusing parameter of absent labels, at least 0.
        gamma_pos: Focusing parameter of present labels, at least 0.
        margin: Probability that is subtracted for absent labels, in [0, 1).
        validate_args: Whether to check that labels are in [0, 1], which synchronises on CUDA.

    Raises:
        ValueError: If a gamma is below 0 or the margin is not in [0, 1).

    Examples:
        >>> import torch
        >>> from mlmetric.losses import AsymmetricLoss
        >>> AsymmetricLoss(0, 0, 0)(torch.zeros(1, 2), torch.tensor([[1, 0]]))  # 2 log 2
        tensor(1.3863)

    Source:
        Ridnik et al., "Asymmetric loss for multi-label classification", ICCV 2021, with its settings for MS-COCO. As in
        the code of the authors, the focusing weights have no gradient. Deviations: the mean over the batch in place of
        the sum, so that the learning rate does not depend on the batch size; logarithms of sigmoids, which the authors
        clamp at 1e-8; and soft labels are weights of the two terms.
    """

    supports_missing_labels = True
    """Whether labels can be NaN, which means that they are not annotated."""

    def __init__(
        self,
        gamma_neg: float = 4.0,
        gamma_pos: float = 1.0,
        margin: float = 0.05,
        *,
        validate_args: bool = True,
    ) -> None:
        super().__init__()
        if not (gamma_neg >= 0 and gamma_pos >= 0):
            raise ValueError(f"`gamma_neg` and `gamma_pos` must be at least 0, got {gamma_neg} and {gamma_pos}.")
        if not 0 <= margin < 1:
            raise ValueError(f"`margin` must be a probability, in [0, 1), got {margin}.")
        self.gamma_neg = gamma_neg
        self.gamma_pos = gamma_pos
        self.margin = margin
        self.validate_args = validate_args

    def extra_repr(self) -> str:
        """Return the parameters for the `repr` of the module."""
        return parameters_repr(self)

    def forward(self, logits: Tensor, labels: LabelsLike) -> Tensor:
        """Compute the loss.

        Args:
            logits: Shape `(N, L)`.
            labels: Shape `(N, L)`, multi-hot or soft, of any kind that
                [`check_labels`][mlmetric.labels.check_labels] reads; NaN for labels that are not annotated.

        Returns:
            A scalar, float32 or float64.

        Raises:
            TypeError: If `labels` does not contain numbers.
            ValueError: If the shapes differ, or a label is not in [0, 1].
        """
        logits, targets = _check_logits(logits, labels, self.validate_args)
        known = None
        if may_have_missing(targets):
            targets, known = known_labels(targets)
        probability = logits.sigmoid()
        if self.margin:
            shifted = (probability - self.margin).clamp(min=0)
            log_absent = torch.log1p(-shifted)
        else:
            shifted, log_absent = probability, logsigmoid(-logits)
        with torch.no_grad():
            positive_weight = (1 - probability) ** self.gamma_pos
            negative_weight = shifted**self.gamma_neg
        losses = targets * positive_weight * logsigmoid(logits) + (1 - targets) * negative_weight * log_absent
        return -_mean_over_rows(losses, known)


class ProperAsymmetricLoss(nn.Module):
    """Strictly proper asymmetric loss: easy negatives have a lower weight, and the probabilities are calibrated.

    With z a logit and a and b the slope and the shift of each side, the loss is
    `softplus(-a_pos (z - b_pos)) / a_pos` for a present label and `softplus(a_neg (z - b_neg)) / a_neg` for an absent
    label, summed over labels and averaged over rows. The gradient of an absent label, `sigmoid(a_neg (z - b_neg))`,
    decreases faster for easy negatives the larger the slope and the shift are. With slopes 1 and shifts 0 the loss is
    the binary cross entropy.

    The loss of a present label decreases in z, and the loss of an absent label increases; both are strictly convex. The
    expected loss of a label with the true probability p therefore has one minimum, at the z for which `probabilities`
    is p: the loss is strictly proper together with this link. The link is not the sigmoid:

    `s_neg / (s_neg + s_pos)` with `s_neg = sigmoid(a_neg (z - b_neg))` and `s_pos = sigmoid(-a_pos (z - b_pos))`.

    If it is the `label_loss` of a `MetricClassifier`, whose probabilities are the sigmoid of the logits, the logits
    need calibration as with any other asymmetric loss.

    Args:
        slope_neg: a_neg, above 0. A slope of g + 1 reduces the gradient of easy negatives like `gamma_neg=g` of
            `AsymmetricLoss`.
        slope_pos: a_pos, above 0.
        shift_neg: b_neg. Absent labels with a logit well below it contribute little.
        shift_pos: b_pos. Present labels with a logit well above it contribute little.
        validate_args: Whether to check that labels are in [0, 1], which synchronises on CUDA.

    Raises:
        ValueError: If a slope is not above 0, or a parameter is not finite.

    Examples:
        >>> import torch
        >>> from mlmetric.losses import ProperAsymmetricLoss
        >>> loss = ProperAsymmetricLoss(slope_neg=2)
        >>> loss(torch.zeros(1, 2), torch.tensor([[1, 0]]))  # log 2 + (log 2) / 2
        tensor(1.0397)
        >>> loss.probabilities(torch.tensor([-1.0, 0.0, 1.0]))
        tensor([0.1402, 0.5000, 0.7661])

    Source:
        The idea of a strictly proper asymmetric loss with its own link is from Cheng and Vasconcelos, "Towards
        calibrated multi-label deep neural networks", CVPR 2024, who also show that `AsymmetricLoss` is not strictly
        proper. The formula here is derived from the condition above and was not compared with the one in the paper.
        Reid and Williamson, "Composite binary losses", JMLR 11, 2010, for the link that makes a loss proper.
    """

    supports_missing_labels = True

    def __init__(
        self,
        slope_neg: float = 3.0,
        slope_pos: float = 1.0,
        shift_neg: float = 0.0,
        shift_pos: float = 0.0,
        *,
        validate_args: bool = True,
    ) -> None:
        super().__init__()
        if not (0 < slope_neg < math.inf and 0 < slope_pos < math.inf):
            raise ValueError(
                f"`slope_neg` and `slope_pos` must be above 0 and finite, got {slope_neg} and {slope_pos}."
            )
        if not (math.isfinite(shift_neg) and math.isfinite(shift_pos)):
            raise ValueError(f"`shift_neg` and `shift_pos` must be finite, got {shift_neg} and {shift_pos}.")
        self.slope_neg = slope_neg
        self.slope_pos = slope_pos
        self.shift_neg = shift_neg
        self.shift_pos = shift_pos
        self.validate_args = validate_args

    def extra_repr(self) -> str:
        """Return the parameters for the `repr` of the module."""
        return parameters_repr(self)

    def forward(self, logits: Tensor, labels: LabelsLike) -> Tensor:
        """Compute the loss.

        Args:
            logits: Shape `(N, L)`.
            labels: Shape `(N, L)`, multi-hot or soft, of any kind that [`check_labels`][mlmetric.labels.check_labels]
                reads; soft labels are weights of the two terms, and NaN marks labels that are not annotated.

        Returns:
            A scalar, float32 or float64.

        Raises:
            TypeError: If `labels` does not contain numbers.
            ValueError: If the shapes differ, or a label is not in [0, 1].
        """
        logits, targets = _check_logits(logits, labels, self.validate_args)
        known = None
        if may_have_missing(targets):
            targets, known = known_labels(targets)
        absent, present = self._margins(logits)
        losses = targets * softplus(present) / self.slope_pos + (1 - targets) * softplus(absent) / self.slope_neg
        return _mean_over_rows(losses, known)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Convert logits, of any shape, to probabilities of the same shape, with the link of this loss."""
        absent, present = self._margins(logits)
        return (logsigmoid(absent) - logsigmoid(present)).sigmoid()

    def _margins(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return the arguments of softplus for absent and for present labels; its derivatives are their sigmoids."""
        return self.slope_neg * (logits - self.shift_neg), -self.slope_pos * (logits - self.shift_pos)


class TwoWayLoss(nn.Module):
    """Two-way multi-label loss: a ranking loss over the labels of each row and over the rows of each label.

    For each row that has labels: `softplus(T_n log sum_n exp(x_n / T_n) + T_p log sum_p exp(-x_p / T_p))`, where x are
    the logits of the row, n runs over its absent labels and p over its present labels. The same is computed for each
    label that occurs in the batch, over rows. The loss is the mean over rows plus the mean over labels. It is small if
    the logits of present labels exceed those of absent labels in each row and in each column. Rows without labels and
    labels without rows are omitted from the means; if no label is absent, the term is 0. A missing label (NaN) is
    neither present nor absent.

    Args:
        temperature_positive: T_p, above 0. A high value gives weight to all present labels.
        temperature_negative: T_n, above 0. A low value gives most weight to the absent labels with the highest logits.
        validate_args: Whether to check that labels are in [0, 1], which synchronises on CUDA.

    Raises:
        ValueError: If a temperature is not above 0.

    Examples:
        >>> import torch
        >>> from mlmetric.losses import TwoWayLoss
        >>> TwoWayLoss(1, 1)(torch.tensor([[2.0, 0.0]]), torch.tensor([[1, 0]]))  # log(1 + exp(-2)), and 0
        tensor(0.1269)

    Source:
        Kobayashi, "Two-way multi-label loss", CVPR 2023, with its temperatures. Deviation: the code of the author
        replaces the logarithm of an empty sum by about -100 times the temperature; here it is -infinity, and the term
        is 0.
    """

    supports_missing_labels = True
    """Whether labels can be NaN, which means that they are not annotated."""

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

    def extra_repr(self) -> str:
        """Return the parameters for the `repr` of the module."""
        return parameters_repr(self)

    def forward(self, logits: Tensor, labels: LabelsLike) -> Tensor:
        """Compute the loss.

        Args:
            logits: Shape `(N, L)`.
            labels: Shape `(N, L)`, of any kind that [`check_labels`][mlmetric.labels.check_labels] reads; a label above
                0 is present, and NaN marks a label that is not annotated.

        Returns:
            A scalar, float32 or float64.

        Raises:
            TypeError: If `labels` does not contain numbers.
            ValueError: If the shapes differ, or a label is not in [0, 1].
        """
        logits, targets = _check_logits(logits, labels, self.validate_args)
        present, absent = targets > 0, targets <= 0
        return self._one_way(logits, present, absent, dim=1) + self._one_way(logits, present, absent, dim=0)

    def _one_way(self, logits: Tensor, present: Tensor, absent: Tensor, dim: int) -> Tensor:
        has_term = present.any(dim) & absent.any(dim)
        num_terms = present.any(dim).sum().clamp(min=1)
        low = self.temperature_positive * _log_sum_exp(-logits / self.temperature_positive, present, has_term, dim)
        high = self.temperature_negative * _log_sum_exp(logits / self.temperature_negative, absent, has_term, dim)
        return torch.where(has_term, softplus(high + low), 0).sum() / num_terms


def _log_sum_exp(values: Tensor, keep: Tensor, has_term: Tensor, dim: int) -> Tensor:
    """Return log sum exp over the kept entries, or over all entries where there is no term, to avoid a NaN gradient."""
    return values.masked_fill(~keep & has_term.unsqueeze(dim), -torch.inf).logsumexp(dim)


def _mean_over_rows(losses: Tensor, known: Tensor | None) -> Tensor:
    """Return the sum of the losses of annotated labels, `(N, L)`, divided by the number of rows that have any."""
    if known is None:
        return losses.sum() / max(len(losses), 1)
    return torch.where(known, losses, 0).sum() / known.any(dim=1).sum().clamp(min=1)


def _check_logits(logits: Tensor, labels: LabelsLike, validate_args: bool) -> tuple[Tensor, Tensor]:
    """Return logits and labels in one dtype, float32 or float64, on the device of the logits."""
    labels = label_tensor(labels, validate_args=validate_args, allow_missing=True)
    if logits.shape != labels.shape:
        raise ValueError(
            f"`logits` and `labels` must have the same shape (N, L), got {tuple(logits.shape)} and "
            f"{tuple(labels.shape)}."
        )
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits, labels.to(logits)
