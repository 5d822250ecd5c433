"""The one place that touches pytorch-metric-learning, and only what its versions 2 and 3 share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pytorch_metric_learning import losses as pml_losses
from pytorch_metric_learning import miners as pml_miners
from pytorch_metric_learning.distances import BaseDistance
from pytorch_metric_learning.losses import BaseMetricLossFunction, CrossBatchMemory
from pytorch_metric_learning.miners import BaseMiner
from pytorch_metric_learning.reducers import ClassWeightedReducer
from torch import Tensor

from mlmetric.labels import check_labels

__all__ = [
    "BaseDistance",
    "BaseMetricLossFunction",
    "BaseMiner",
    "ClassWeightedReducer",
    "CrossBatchMemory",
    "MultiLabelBaseMiner",
    "Refusal",
    "ordered_distance",
    "pml_losses",
    "pml_miners",
    "refs_begin_with_batch",
]


@dataclass(frozen=True)
class Refusal:
    """Why a class of pytorch-metric-learning has no reading with label sets, and what to use instead."""

    reason: str
    instead: str

    def message(self, name: str) -> str:
        """Say so of the class or setting `name`."""
        return f"`{name}` has no multi-label reading: it {self.reason}. Use {self.instead}."


class MultiLabelBaseMiner(BaseMiner):  # type: ignore[misc, unused-ignore]
    """Base of the miners that take label matrices, which pytorch-metric-learning's own base rejects."""

    validate_args: bool

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
        *,
        batch_first: bool | None = None,
    ) -> tuple[Tensor, ...]:
        """Mine a batch.

        Args:
            embeddings: Shape `(N, D)`, any floating dtype; distances of half precision are taken in float32.
            labels: Shape `(N, L)`, multi-hot or soft.
            ref_emb: Shape `(M, D)`, where positives and negatives come from; the batch itself by default.
            ref_labels: Shape `(M, L)`, of `ref_emb`.
            batch_first: Whether ref i is item i of the batch, for each item, so that the pair of the two is left out:
                an item is neither its own positive nor its own negative. By default so if `ref_labels` is the very
                object `labels`, as pytorch-metric-learning has it, and, where processes are joined, if the refs begin
                with the numbers of the batch, as in its `DistributedMinerWrapper(efficient=True)`.

        Returns:
            Three index tensors (anchors, positives, negatives) of triplets, or four (anchors, positives, anchors,
            negatives) of pairs, int64, on the device of `embeddings`.

        Raises:
            TypeError: If embeddings, labels or similarities are no tensors.
            ValueError: If a shape does not fit, labels lie outside [0, 1], a similarity or distance is NaN, or an
                embedding has a norm whose square overflows: above 9.2e18 in float32.
        """
        self.reset_stats()
        if (ref_emb is None) != (ref_labels is None):
            raise ValueError("`ref_emb` and `ref_labels` must be given together, got only one of them.")
        if ref_emb is None or ref_labels is None:
            ref_emb, ref_labels = embeddings, labels
        given = {"embeddings": embeddings, "labels": labels, "ref_emb": ref_emb, "ref_labels": ref_labels}
        for name, value in given.items():
            if not isinstance(value, Tensor):
                raise TypeError(f"`{name}` must be a torch.Tensor, got {type(value).__name__}.")
        with torch.no_grad(), torch.autocast(embeddings.device.type, enabled=False):
            self._check(embeddings, labels, "embeddings", "labels")
            if ref_emb is not embeddings or ref_labels is not labels:
                self._check(ref_emb, ref_labels, "ref_emb", "ref_labels")
            batch_first = refs_begin_with_batch(embeddings, labels, ref_emb, ref_labels, batch_first)
            device = embeddings.device
            mined = self.mine(
                embeddings.detach(),
                labels.to(device),
                ref_emb.detach().to(device),
                ref_labels.to(device),
                batch_first=batch_first,
            )
        self.output_assertion(mined)
        return mined

    def mine(
        self, embeddings: Tensor, labels: Tensor, ref_emb: Tensor, ref_labels: Tensor, *, batch_first: bool = False
    ) -> tuple[Tensor, ...]:
        """Mine a batch whose arguments are checked and on one device."""
        raise NotImplementedError

    def _check(self, embeddings: Tensor, labels: Tensor, embeddings_name: str, labels_name: str) -> None:
        check_labels(labels, name=labels_name, validate_args=self.validate_args)
        if embeddings.ndim != 2 or len(embeddings) != len(labels):
            raise ValueError(
                f"`{embeddings_name}` must have shape ({len(labels)}, D), a row for each row of `{labels_name}`, "
                f"got {tuple(embeddings.shape)}."
            )


def refs_begin_with_batch(
    embeddings: Tensor, labels: Tensor, ref_emb: Tensor, ref_labels: Tensor, given: bool | None = None
) -> bool:
    """Say whether ref i is item i of the batch, for each item: as given, or see `MultiLabelBaseMiner.forward`."""
    if given and len(ref_emb) < len(embeddings):
        raise ValueError(
            f"`ref_emb` must begin with the batch under `batch_first=True`, got {len(ref_emb)} refs for "
            f"{len(embeddings)} embeddings."
        )
    if given is not None:
        return given
    if ref_labels is labels:
        return True
    joined = torch.distributed.is_available() and torch.distributed.is_initialized()
    if not joined or len(ref_labels) <= len(labels):
        return False
    if ref_labels.shape[1:] != labels.shape[1:] or ref_emb.shape[1:] != embeddings.shape[1:]:
        return False
    # Of two dtypes the one that holds the numbers of both: soft labels cast to integers would equal empty rows.
    same_labels = (ref_labels[: len(labels)] == labels.to(ref_labels.device)).all()
    same_embeddings = (ref_emb[: len(labels)] == embeddings.to(ref_emb.device)).all()
    return bool(same_labels & same_embeddings)


def ordered_distance(
    distance: BaseDistance, embeddings: Tensor, ref_emb: Tensor, *, validate_args: bool = True
) -> Tensor:
    """Return distances `(N, M)` of which the smaller is the nearer, of inverted ones the negative.

    Half precision is raised to float32: it would order neighbours by rounding, and `cdist` does not take it.
    """
    dtype = torch.promote_types(embeddings.dtype, torch.float32)
    query = embeddings.to(dtype)
    refs = query if ref_emb is embeddings else ref_emb.to(dtype)
    if validate_args:
        check_norms(query, "embeddings")
        if refs is not query:
            check_norms(refs, "ref_emb")
    result: Tensor = distance(query, refs)
    # A maximum is NaN where any number is, and ten times faster than `isnan().any()`.
    if validate_args and result.numel() and bool(result.max().isnan()):
        raise ValueError("`embeddings` or `ref_emb` hold NaN: their distances are NaN. Did training diverge?")
    return -result if distance.is_inverted else result


def check_norms(rows: Tensor, name: str) -> None:
    """Check that squared distances between the rows are finite; rows with NaN pass."""
    largest = torch.finfo(rows.dtype).max ** 0.5 / 2
    if float(torch.linalg.vector_norm(rows)) <= largest:  # of all rows together
        return
    too_large = torch.linalg.vector_norm(rows, dim=1) > largest
    if bool(too_large.any()):
        row = int(too_large.int().argmax())
        raise ValueError(
            f"`{name}` must have norms below {largest:.2g}, or squared distances overflow {rows.dtype}; got an entry "
            f"of {rows[row].abs().max().item():.3g} in row {row}. Did training diverge? If not, scale `{name}` down or "
            "pass float64."
        )
