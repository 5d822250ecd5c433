"""Reliability curves: the frequency of labels in each bin of predicted probabilities, with a plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlmetric._docstrings import inherit_docs
from mlmetric.labels import LabelsLike
from mlmetric.metrics._calibration_error import calibration_error
from mlmetric.metrics._inputs import TensorLike
from mlmetric.metrics._probabilities import Binning, bin_sums, check_bins, check_probabilities, pool_entries

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class ReliabilityCurve:
    """The frequency of labels in each bin of predicted probabilities, for all labels together and for each label.

    Row 0 of each array describes the entries of all labels, pooled; row c + 1 describes the entries of label c.

    Attributes:
        label_names: Names of the L labels.
        mean_predicted: Mean predicted probability of each bin, shape `(L + 1, n_bins)`; NaN for an empty bin.
        positive_rate: Share of the entries of each bin with the label, same shape; NaN for an empty bin.
        counts: Number of entries of each bin, or the sum of their weights, same shape.
    """

    label_names: list[str]
    mean_predicted: FloatArray
    positive_rate: FloatArray
    counts: FloatArray

    def __repr__(self) -> str:
        return f"ReliabilityCurve(num_labels={len(self.label_names)}, n_bins={self.counts.shape[1]})"

    def plot(self, labels: Sequence[int | str] = (), *, pooled: bool = True, axes: Any = None) -> Any:
        """Plot the share of entries with the label against the predicted probability, with the number of entries.

        The points of a calibrated model lie on the diagonal. The bars, with a logarithmic axis on the right, show the
        number of entries of each bin: points with few entries vary by chance.

        Args:
            labels: Names or indices of the labels to plot.
            pooled: Whether to plot the curve of all labels together.
            axes: matplotlib axes to draw on; the axes of a new figure by default.

        Returns:
            The matplotlib axes.

        Raises:
            ImportError: If matplotlib is not installed.
            ValueError: If a label does not exist, or there is nothing to plot.
        """
        rows = {"all labels": 0} if pooled else {}
        for label in labels:
            index = self._index(label)
            rows[self.label_names[index]] = index + 1
        if not rows:
            raise ValueError("`labels` must name at least one label with `pooled=False`, got none.")
        if axes is None:
            try:
                from matplotlib import pyplot as plt
            except ImportError as error:
                raise ImportError("`plot` requires matplotlib: `pip install matplotlib`.") from error
            axes = plt.subplots(figsize=(5.5, 4.5), layout="constrained")[1]
        bars = axes.twinx()
        axes.set_zorder(bars.get_zorder() + 1)
        axes.patch.set_visible(False)
        axes.plot([0, 1], [0, 1], color="black", linestyle="--", linewidth=1, label="calibrated")
        width = 0.8 / (self.counts.shape[1] * len(rows))
        for place, (name, row) in enumerate(rows.items()):
            filled = self.counts[row] > 0
            x, counts = self.mean_predicted[row][filled], self.counts[row][filled]
            total = f"{counts.sum():,.0f}"
            (line,) = axes.plot(x, self.positive_rate[row][filled], marker="o", label=f"{name} ({total} entries)")
            shift = width * (place - (len(rows) - 1) / 2)
            bars.bar(x + shift, counts, width=width, color=line.get_color(), alpha=0.25)
        bars.set(yscale="log", ylabel="entries of the bin")
        axes.set(xlabel="mean predicted probability", ylabel="share of entries with the label")
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.legend(loc="upper left")
        return axes

    def _index(self, label: int | str) -> int:
        if isinstance(label, str):
            if label not in self.label_names:
                raise ValueError(f"`labels` must be in `label_names`, got {label!r}.")
            return self.label_names.index(label)
        if not 0 <= label < len(self.label_names):
            raise ValueError(f"`labels` must be names or indices from 0 to {len(self.label_names) - 1}, got {label}.")
        return int(label)


@inherit_docs(calibration_error)
def reliability_curve(  # noqa: D417 - the others are inherited
    preds: TensorLike,
    target: LabelsLike,
    *,
    n_bins: int = 15,
    binning: Binning = "width",
    label_names: Sequence[str] | None = None,
    mask: TensorLike | None = None,
    sample_weight: TensorLike | None = None,
) -> ReliabilityCurve:
    """Compute the reliability curve: the share of entries with the label in each bin of predicted probabilities.

    Args:
        label_names: Names of the L labels; their indices by default.

    Returns:
        The curves of all labels together and of each label; their method `plot` draws the reliability diagram.

    Raises:
        TypeError: If an argument does not contain real numbers.
        ValueError: For the same reasons as in `calibration_error`, or if `label_names` does not have L names.

    Examples:
        >>> import torch
        >>> from mlmetric.metrics import reliability_curve
        >>> preds = torch.tensor([[0.9, 0.2], [0.9, 0.2], [0.8, 0.2], [0.6, 0.3]])
        >>> target = torch.tensor([[1, 1], [1, 0], [1, 0], [0, 0]])
        >>> curve = reliability_curve(preds, target, n_bins=2, label_names=["calm", "sad"])
        >>> curve.positive_rate  # all labels, calm, sad
        array([[0.25, 0.75],
               [ nan, 0.75],
               [0.25,  nan]])
        >>> curve.counts[0]
        array([4., 4.])
    """
    check_bins(n_bins, binning)
    predictions = check_probabilities(preds, target, mask, sample_weight)
    num_labels = predictions.preds.shape[1]
    names = list(map(str, range(num_labels))) if label_names is None else [str(name) for name in label_names]
    if len(names) != num_labels:
        raise ValueError(f"`label_names` must name the {num_labels} columns of `preds`, got {len(names)} names.")
    parts = [bin_sums(part, n_bins, binning) for part in (pool_entries(predictions), predictions)]
    weight, predicted, positive = (
        np.concatenate([sums.cpu().numpy() for sums in pair]) for pair in zip(*parts, strict=True)
    )
    with np.errstate(invalid="ignore"):
        return ReliabilityCurve(names, predicted / weight, positive / weight, weight)
