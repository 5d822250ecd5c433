"""All measures of a label matrix as one object, with a table and a plot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlmetric.imbalance._imbalance_ratios import (
    FloatArray,
    above_mean,
    below_mean,
    count_positives,
    imbalance_ratios,
    mean_of_ratios,
    read_hard_labels,
    variation_of_ratios,
)
from mlmetric.imbalance._label_set_measures import (
    label_cardinality,
    label_density,
    mean_of_scores,
    mean_over_rows_with_label,
    scumble_from_ratios,
    tcs,
)
from mlmetric.labels import LabelsLike

_KIND_COLOURS = {"majority": "tab:blue", "neither": "tab:grey", "minority": "tab:orange"}


@dataclass(frozen=True, eq=False, repr=False)
class ImbalanceReport:
    """Measures of the imbalance of a label matrix; `str(report)` is a table in Markdown.

    Attributes:
        label_names: Names of the L labels, in the order of the columns.
        counts: Positives of each label, int64, shape `(L,)`.
        num_annotated: Rows that are annotated for each label, int64, shape `(L,)`; N without missing labels.
        ir_lbl: Imbalance ratio of each label, float64, shape `(L,)`; NaN for a label without positives.
        scumble_per_label: SCUMBLELbl, float64, shape `(L,)`; NaN for a label without positives.
        is_majority: Whether the ratio of a label is below MeanIR, bool, shape `(L,)`.
        is_minority: Whether the ratio of a label is above MeanIR, bool, shape `(L,)`.
        num_rows: N.
        num_rows_without_label: Number of rows that are annotated for all labels and have none.
        annotated_share: Share of the N * L entries that are annotated; 1 without missing labels.
        cardinality: Mean number of labels per row.
        density: Cardinality / L.
        mean_ir: Mean of the imbalance ratios; NaN if no label has positives.
        cvir: Standard deviation of the imbalance ratios / their mean; NaN if fewer than two labels have positives.
        scumble: Mean SCUMBLE of the rows: how strongly frequent and rare labels co-occur in them. This and
            `scumble_per_label` leave out rows with missing labels; NaN if all rows have missing labels.
        tcs: Theoretical complexity score, or None if the number of features was not given.
    """

    label_names: list[str]
    counts: npt.NDArray[np.int64]
    num_annotated: npt.NDArray[np.int64]
    ir_lbl: FloatArray
    scumble_per_label: FloatArray
    is_majority: npt.NDArray[np.bool_]
    is_minority: npt.NDArray[np.bool_]
    num_rows: int
    num_rows_without_label: int
    annotated_share: float
    cardinality: float
    density: float
    mean_ir: float
    cvir: float
    scumble: float
    tcs: float | None

    def __repr__(self) -> str:
        score = "" if self.tcs is None else f", tcs={self.tcs:.4g}"
        share = f", annotated_share={self.annotated_share:.4g}" if self.annotated_share < 1 else ""
        return (
            f"ImbalanceReport(num_rows={self.num_rows}, num_labels={len(self.counts)}, "
            f"num_rows_without_label={self.num_rows_without_label}{share}, cardinality={self.cardinality:.4g}, "
            f"density={self.density:.4g}, mean_ir={self.mean_ir:.4g}, cvir={self.cvir:.4g}, "
            f"scumble={self.scumble:.4g}{score})"
        )

    def __str__(self) -> str:
        """Return the measures, and a table of the labels, most frequent first."""
        facts = [
            f"{self.num_rows} rows ({self.num_rows_without_label} without a label)",
            f"{len(self.counts)} labels",
            f"cardinality {self.cardinality:.2f}",
            f"density {self.density:.3f}",
        ]
        has_missing = self.annotated_share < 1
        if has_missing:
            facts.append(f"{self.annotated_share:.1%} of the labels annotated")
        measures = [f"MeanIR {self.mean_ir:.2f}", f"CVIR {self.cvir:.2f}", f"SCUMBLE {self.scumble:.3f}"]
        if self.tcs is not None:
            measures.append(f"TCS {self.tcs:.2f}")
        width = max(len("label"), *map(len, self.label_names))
        lines = [
            f"| {'label':{width}} |   count |{' annotated |' * has_missing}   IRLbl | SCUMBLELbl | kind     |",
            f"| {'-' * width} | ------: |{' --------: |' * has_missing} ------: | ---------: | -------- |",
        ]
        for i in self._most_frequent_first():
            ratio, concurrence = _number(self.ir_lbl[i], 2), _number(self.scumble_per_label[i], 3)
            annotated = f" {self.num_annotated[i]:9d} |" * has_missing
            cells = f"{self.counts[i]:7d} |{annotated} {ratio:>7} | {concurrence:>10} | {self._kind(i):8}"
            lines.append(f"| {self.label_names[i]:{width}} | {cells} |")
        return "\n".join([", ".join(facts) + ".", ", ".join(measures) + ".", "", *lines])

    def plot(self, axes: Any = None) -> Any:
        """Plot the count of each label, most frequent first, and the count whose imbalance ratio is MeanIR.

        With missing labels, the line of this count is left out: the counts include annotated rows only, unlike the
        ratios.

        Args:
            axes: matplotlib axes to draw on; the axes of a new figure by default.

        Returns:
            The matplotlib axes.

        Raises:
            ImportError: If matplotlib is not installed.
        """
        if axes is None:
            try:
                from matplotlib import pyplot as plt
            except ImportError as error:
                raise ImportError("`plot` requires matplotlib: `pip install matplotlib`.") from error
            width = min(max(5.0, 0.34 * len(self.counts)), 40.0)
            axes = plt.subplots(figsize=(width, 4.0), layout="constrained")[1]
        order = self._most_frequent_first()
        for kind, colour in _KIND_COLOURS.items():
            places = [place for place, i in enumerate(order) if self._kind(i) == kind]
            if places:
                axes.bar(places, self.counts[order][places], color=colour, label=kind)
        if not math.isnan(self.mean_ir) and self.annotated_share == 1:
            axes.axhline(self.counts.max() / self.mean_ir, color="black", linestyle="--", label="IRLbl = MeanIR")
        names = [self.label_names[i] for i in order]
        axes.set_xticks(range(len(order)), names, rotation=60, ha="right", rotation_mode="anchor")
        axes.set(ylabel="rows with the label", title=f"MeanIR {self.mean_ir:.2f}, SCUMBLE {self.scumble:.3f}")
        axes.legend()
        return axes

    def _most_frequent_first(self) -> npt.NDArray[np.intp]:
        return np.argsort(-self.counts, kind="stable")

    def _kind(self, label: int) -> str:
        return "majority" if self.is_majority[label] else "minority" if self.is_minority[label] else "neither"


def imbalance_report(
    labels: LabelsLike, *, label_names: Sequence[str] | None = None, num_features: int | None = None
) -> ImbalanceReport:
    """Compute all measures of this module for a label matrix.

    Args:
        labels: Multi-hot, shape `(N, L)`: a tensor, an array, a list of rows, a scipy sparse matrix or a data frame,
            with at least one row and one label. NaN for labels that are not annotated; each measure describes how it
            treats them.
        label_names: Names of the L labels; their column indices by default.
        num_features: Number of input features, >= 1, for the theoretical complexity score; None leaves it out.
            With missing labels it must be None.

    Returns:
        The measures as attributes of one object, as a table with `str`, and as a plot with `plot`.

    Raises:
        TypeError: If `labels` is not numeric.
        ValueError: If `labels` is not two-dimensional, is empty, or has an entry that is neither 0, 1 nor NaN,
            `label_names` does not have L names, or `num_features` is below 1 or given with missing labels.

    Examples:
        >>> from mlmetric.imbalance import imbalance_report
        >>> y = [[1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 0, 0], [1, 0, 1], [0, 0, 0]]
        >>> print(imbalance_report(y, label_names=["eager", "calm", "sad"]))
        6 rows (1 without a label), 3 labels, cardinality 1.33, density 0.444.
        MeanIR 2.83, CVIR 0.71, SCUMBLE 0.075.
        <BLANKLINE>
        | label |   count |   IRLbl | SCUMBLELbl | kind     |
        | ----- | ------: | ------: | ---------: | -------- |
        | eager |       5 |    1.00 |      0.090 | majority |
        | calm  |       2 |    2.50 |      0.096 | majority |
        | sad   |       1 |    5.00 |      0.255 | minority |

    Source:
        See the sources of the individual measures.
    """
    values = read_hard_labels(labels)
    names = list(map(str, range(values.shape[1]))) if label_names is None else [str(name) for name in label_names]
    if len(names) != values.shape[1]:
        raise ValueError(f"`label_names` must name the {values.shape[1]} columns of `labels`, got {len(names)} names.")
    counts, annotated = count_positives(values)
    ratios = imbalance_ratios(counts, annotated, num_rows=len(values))
    scores = scumble_from_ratios(values, ratios)
    return ImbalanceReport(
        label_names=names,
        counts=counts.astype(np.int64),
        num_annotated=annotated.astype(np.int64),
        ir_lbl=ratios,
        scumble_per_label=mean_over_rows_with_label(scores, values),
        is_majority=below_mean(ratios),
        is_minority=above_mean(ratios),
        num_rows=len(values),
        num_rows_without_label=int((values == 0).all(axis=1).sum()),
        annotated_share=float(annotated.sum()) / values.size,
        cardinality=label_cardinality(values),
        density=label_density(values),
        mean_ir=mean_of_ratios(ratios),
        cvir=variation_of_ratios(ratios),
        scumble=mean_of_scores(scores),
        tcs=None if num_features is None else tcs(values, num_features=num_features),
    )


def _number(value: float, digits: int) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}f}"
