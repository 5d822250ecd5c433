"""How many positives the anchors of batches have."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mlmetric.samplers._carriers import Labels, carriers
from mlmetric.similarity import exceeds


@dataclass(frozen=True, eq=False)
class PositiveReport:
    """How many positives the anchors of some batches have.

    Attributes:
        num_batches: Number of batches.
        num_anchors: Number of items of all batches, repetitions included; each is an anchor once.
        anchors_with_positive: Share of the anchors that have a positive in their batch; 1 is best, 0 worst.
        positives_per_anchor: Mean number of positives of an anchor.
        label_counts: How often each label appears, int64, shape `(L,)`.
        label_paired: Share of a label's appearances that meet another of it in their batch, float64, shape `(L,)`; NaN
            for a label that never appears. The share of anchors hides rare labels behind frequent ones; this does not.
        unseen: Items that are in no batch, int64, ascending.
    """

    num_batches: int
    num_anchors: int
    anchors_with_positive: float
    positives_per_anchor: float
    label_counts: Tensor
    label_paired: Tensor
    unseen: Tensor


def positive_report(
    batches: Iterable[Sequence[int] | Tensor],
    labels: Labels,
    *,
    similarity: Callable[[Tensor, Tensor], Tensor] | None = None,
    positive_threshold: float = 0.0,
) -> PositiveReport:
    """Count the positives that anchors find in their batches, for any batch sampler.

    An anchor is not its own positive, but an item that is in a batch twice is one of its copy. An item without labels
    has none under the default.

    Args:
        batches: Item numbers of each batch: a batch sampler, `DataLoader.batch_sampler`, or a list.
        labels: Of the whole data set, shape `(N, L)`, multi-hot or soft.
        similarity: Label similarity `(labels, ref_labels) -> (N, M)`, say of [mlmetric.similarity][]. The (weighted)
            number of shared labels by default.
        positive_threshold: A positive is more similar than this. 0 means "shares something".

    Returns:
        The figures, one object.

    Raises:
        TypeError: If `labels` is neither a tensor nor an array.
        ValueError: If labels are no matrix or lie outside [0, 1], there is no batch, a batch is no list of item
            numbers, or `similarity` returns another shape.

    Examples:
        >>> labels = torch.tensor([[1, 0], [1, 1], [0, 1], [0, 0]])
        >>> report = positive_report([[0, 1, 2], [2, 0]], labels)
        >>> report.anchors_with_positive, report.positives_per_anchor
        (0.6, 0.8)
        >>> report.label_counts, report.label_paired, report.unseen
        (tensor([3, 3]), tensor([0.6667, 0.6667], dtype=torch.float64), tensor([3]))
    """
    carries = carriers(labels)
    seen = np.zeros(len(carries), dtype=np.bool_)
    counts, positives = [], []
    for batch in batches:
        items = torch.as_tensor(batch)
        if items.ndim != 1:
            raise ValueError(
                f"`batches` must hold lists of item numbers, got {batch!r:.60}. A sampler of single items becomes "
                "one of batches by `torch.utils.data.BatchSampler`; of a DataLoader take `batch_sampler`."
            )
        batch_labels = torch.as_tensor(labels[items.tolist()])
        compared = (_num_shared if similarity is None else similarity)(batch_labels, batch_labels)
        positive = exceeds(compared, positive_threshold)
        if positive.shape != (len(items), len(items)):
            raise ValueError(f"`similarity` must return shape {(len(items), len(items))}, got {tuple(positive.shape)}.")
        positives.append(positive.fill_diagonal_(False).sum(dim=1).cpu())
        counts.append(torch.from_numpy(carries[items.tolist()].sum(axis=0, dtype=np.int64)))
        seen[items.tolist()] = True
    if not positives:
        raise ValueError("`batches` must hold at least one batch, got 0; an iterator can be read only once.")
    per_anchor = torch.cat(positives).double()
    per_batch = torch.stack(counts)
    label_counts = per_batch.sum(dim=0)
    return PositiveReport(
        num_batches=len(positives),
        num_anchors=len(per_anchor),
        anchors_with_positive=(per_anchor > 0).double().mean().item(),
        positives_per_anchor=per_anchor.mean().item(),
        label_counts=label_counts,
        label_paired=(per_batch * (per_batch > 1)).sum(dim=0).double() / label_counts,
        unseen=torch.from_numpy(np.flatnonzero(~seen)),
    )


def _num_shared(labels: Tensor, ref_labels: Tensor) -> Tensor:
    return labels.double() @ ref_labels.double().T
