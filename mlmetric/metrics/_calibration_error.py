"""Calibration error of predicted probabilities."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from mlmetric.labels import LabelsLike
from mlmetric.metrics._inputs import TensorLike, check_choice
from mlmetric.metrics._label_based import Average, average_ratio
from mlmetric.metrics._probabilities import Binning, bin_sums, check_bins, check_probabilities, pool_entries

Norm = Literal["expected", "maximum"]


def calibration_error(
    preds: TensorLike,
    target: LabelsLike,
    *,
    norm: Norm = "expected",
    n_bins: int = 15,
    binning: Binning = "width",
    average: Average = "macro",
    mask: TensorLike | None = None,
    sample_weight: TensorLike | None = None,
    zero_division: float = math.nan,
) -> Tensor:
    """Compute the calibration error: how far predicted probabilities are from the frequencies of the labels.

    The entries of a label are divided into bins by their probability. The error of a bin is the absolute difference
    between its mean probability and the share of its entries with the label. 0 is best, 1 worst. A model that predicts
    the frequency of each label for all rows has no calibration error but is useless: also report a metric of the
    ranking or `brier_score`.

    The estimate depends on the bins, and is too high with few entries per bin: compare models on the same rows with the
    same bins. With bins of equal width, most entries of a rare label are in the lowest bin; `binning="mass"` divides
    these as well. `average="micro"` is usually lower than `"macro"`, because errors of opposite sign from different
    labels cancel each other within a bin.

    Args:
        preds: Probabilities, shape `(N, L)`, in [0, 1]: a tensor, an array, a list of rows, a scipy sparse matrix or a
            data frame.
        target: True labels, shape `(N, L)`, entries 0 and 1 of any dtype; a tensor, an array, a list of rows, a scipy
            sparse matrix or a data frame.
        norm: `"expected"`: mean of the errors of the bins, weighted by their number of entries (ECE). `"maximum"`: the
            largest error of a bin (MCE).
        n_bins: Number of bins, at least 1.
        binning: `"width"`: bins of equal width, `[0, 1/n]`, `(1/n, 2/n]` and so on. `"mass"`: bins with equal numbers
            of entries of the label; entries with the same probability are in the same bin.
        average: `"macro"`: mean over labels (classwise). `"weighted"`: mean over labels, weighted by the number of
            positives. `"micro"`: the error of the entries of all labels in common bins (pooled). `"none"`: one value
            for each label.
        mask: Entries to include, bool `(N, L)`; all by default. Excluded entries, such as labels that were not
            annotated, may contain any value.
        sample_weight: Weight of each row, shape `(N,)`, finite and >= 0; equal weights by default.
        zero_division: Replacement for undefined values, such as the value of a label without entries: nan, 0 or 1.
            Means exclude NaN; a mean over no values is undefined as well.

    Returns:
        float64, 0-d or `(L,)`, in [0, 1], on the device of `preds`.

    Raises:
        TypeError: If an argument does not contain real numbers.
        ValueError: If the shapes do not match, a probability is not in [0, 1], an entry of `target` is neither 0 nor 1,
            a weight is negative or not finite, or another argument is none of the values above.

    Examples:
        >>> import torch
        >>> from mlmetric.metrics import calibration_error
        >>> preds = torch.tensor([[0.9, 0.2], [0.9, 0.2], [0.9, 0.2], [0.9, 0.2]])
        >>> target = torch.tensor([[1, 1], [1, 0], [1, 0], [0, 0]])  # three of four rows, one of four rows
        >>> calibration_error(preds, target, average="none")
        tensor([0.1500, 0.0500], dtype=torch.float64)

    Source:
        Guo et al., "On calibration of modern neural networks", ICML 2017, for ECE and MCE, here for the probability of
        each label instead of the probability of the predicted class; the mean over classes: Kull et al., "Beyond
        temperature scaling", NeurIPS 2019; bins of equal mass: Nixon et al., "Measuring calibration in deep learning",
        CVPR workshops 2019.
    """
    check_choice(norm, "norm", Norm)
    check_choice(average, "average", Average)
    check_bins(n_bins, binning)
    predictions = check_probabilities(preds, target, mask, sample_weight)
    sums = bin_sums(pool_entries(predictions) if average == "micro" else predictions, n_bins, binning)
    gaps = (sums.predicted - sums.positive).abs()
    total = sums.weight.sum(dim=1)
    if norm == "expected":
        errors = gaps.sum(dim=1) / total
    else:
        errors = torch.where(total > 0, (gaps / sums.weight).nan_to_num().amax(dim=1), math.nan)
    support = sums.positive.sum(dim=1)
    return average_ratio(
        errors, torch.ones_like(errors), support, "macro" if average == "micro" else average, zero_division
    )
