"""Statistics of the positives in batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mlmetric._label_rows import has_label
from mlmetric.labels import LabelsLike, label_tensor
from mlmetric.similarity import InnerProduct, SimilarityFunction, check_similarity, compare_labels, exceeds


@dataclass(frozen=True, eq=False, repr=False)
class PositiveReport:
    """Statistics of the positives that anchors have in their batches; `str(report)` is a table in Markdown.

    Attributes:
        num_batches: Number of batches.
        num_anchors: Total number of items in the batches; each item of a batch is an anchor once.
        fraction_with_positive: Fraction of the anchors that have at least one positive in their batch; 1 is best, 0
            worst.
        positives_per_anchor: Mean number of positives per anchor.
        label_counts: Number of items with each label, summed over the batches, int64, shape `(L,)`.
        label_fraction_with_positive: For each label, the fraction of these items whose batch contains another item with
            that label, regardless of the similarity; float64, shape `(L,)`, NaN for a label that does not occur.
            Frequent labels dominate `fraction_with_positive`; this attribute shows rare labels too.
        unsampled_items: Indices of the items that are in no batch, int64, ascending.
    """

    num_batches: int
    num_anchors: int
    fraction_with_positive: float
    positives_per_anchor: float
    label_counts: Tensor
    label_fraction_with_positive: Tensor
    unsampled_items: Tensor

    def __repr__(self) -> str:
        return (
            f"PositiveReport(num_batches={self.num_batches}, num_anchors={self.num_anchors}, "
            f"fraction_with_positive={self.fraction_with_positive:.4g}, "
            f"positives_per_anchor={self.positives_per_anchor:.4g}, label_counts=<shape {(len(self.label_counts),)}>, "
            f"label_fraction_with_positive=<shape {(len(self.label_counts),)}>, "
            f"unsampled_items=<shape {(len(self.unsampled_items),)}>)"
        )

    def __str__(self) -> str:
        """Return the statistics, and a table of the labels, most frequent first."""
        lines = [
            f"{self.num_batches} batches, {self.num_anchors} anchors, {len(self.unsampled_items)} items not sampled.",
            f"{self.fraction_with_positive:.1%} of the anchors have a positive, "
            f"{self.positives_per_anchor:.2f} positives per anchor.",
            "",
            "| label |   count | with positive |",
            "| ----- | ------: | ------------: |",
        ]
        for label in self.label_counts.argsort(descending=True, stable=True).tolist():
            fraction = float(self.label_fraction_with_positive[label])
            shown = "" if np.isnan(fraction) else f"{fraction:.1%}"
            lines.append(f"| {label:<5} | {int(self.label_counts[label]):7d} | {shown:>13} |")
        return "\n".join(lines)


def positive_report(
    batches: Iterable[Sequence[int] | Tensor],
    labels: LabelsLike,
    *,
    similarity: SimilarityFunction | None = None,
    positive_threshold: float = 0.0,
) -> PositiveReport:
    """Count the positives of each anchor in its batch, for any batch sampler.

    Each item of a batch is an anchor once. An item is not its own positive, but an item that a batch contains twice is
    a positive of its copy. With the default similarity, an item without labels has no positives. Two items are not
    positives of each other if no label is annotated in both.

    Args:
        batches: Item indices of each batch: a batch sampler, `DataLoader.batch_sampler`, or a list of lists.
        labels: Labels of the whole data set, shape `(N, L)`, multi-hot or soft: a tensor, an array, a list of rows, a
            scipy sparse matrix or a data frame. NaN for labels that are not annotated.
        similarity: Label similarity `(labels, ref_labels) -> (N, M)`, larger is more similar: an object or function of
            [mlmetric.similarity][], another function or an `nn.Module`. None for the number of shared labels,
            `InnerProduct()`.
        positive_threshold: A pair is positive if its similarity exceeds this value by more than a rounding error (see
            [`exceeds`][mlmetric.similarity.exceeds]). With the default similarity, 0 means that the two items share a
            label.

    Returns:
        The statistics as attributes of one object, and as a table with `str`.

    Raises:
        TypeError: If `labels` is not numeric, or `similarity` is not callable or does not return a tensor.
        ValueError: If `labels` is not two-dimensional or has entries outside [0, 1], there are no batches, a batch is
            not a list of item indices, or `similarity` returns a wrong shape or NaN.

    Examples:
        >>> import torch
        >>> from mlmetric.samplers import positive_report
        >>> labels = torch.tensor([[1, 0], [1, 1], [0, 1], [0, 0]])
        >>> report = positive_report([[0, 1, 2], [2, 0]], labels)
        >>> print(report)
        2 batches, 5 anchors, 1 items not sampled.
        60.0% of the anchors have a positive, 0.80 positives per anchor.
        <BLANKLINE>
        | label |   count | with positive |
        | ----- | ------: | ------------: |
        | 0     |       3 |         66.7% |
        | 1     |       3 |         66.7% |
        >>> report.fraction_with_positive, report.unsampled_items
        (0.6, tensor([3]))
    """
    similarity = InnerProduct() if similarity is None else check_similarity(similarity)
    matrix = label_tensor(labels, allow_missing=True)
    present = has_label(matrix)
    sampled = np.zeros(len(present), dtype=np.bool_)
    counts, positives = [], []
    for batch in batches:
        items = torch.as_tensor(batch)
        if items.ndim != 1:
            raise ValueError(
                f"`batches` must contain lists of item indices, got {batch!r:.60}. Wrap a sampler of single items in "
                "`torch.utils.data.BatchSampler`; pass the `batch_sampler` of a DataLoader."
            )
        indices = items.tolist()
        batch_labels = matrix[indices]
        positive = exceeds(compare_labels(similarity, batch_labels, batch_labels), positive_threshold)
        positives.append(positive.fill_diagonal_(False).sum(dim=1).cpu())
        counts.append(torch.from_numpy(present[indices].sum(axis=0, dtype=np.int64)))
        sampled[indices] = True
    if not positives:
        raise ValueError("`batches` must contain at least one batch, got 0; an iterator can be consumed only once.")
    per_anchor = torch.cat(positives).double()
    per_batch = torch.stack(counts)
    label_counts = per_batch.sum(dim=0)
    return PositiveReport(
        num_batches=len(positives),
        num_anchors=len(per_anchor),
        fraction_with_positive=(per_anchor > 0).double().mean().item(),
        positives_per_anchor=per_anchor.mean().item(),
        label_counts=label_counts,
        label_fraction_with_positive=(per_batch * (per_batch > 1)).sum(dim=0).double() / label_counts,
        unsampled_items=torch.from_numpy(np.flatnonzero(~sampled)),
    )
