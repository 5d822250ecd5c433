"""Parts of pytorch-metric-learning that its versions 2 and 3 share, and the base class of the multi-label miners."""

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

from mlmetric._repr import parameters_repr
from mlmetric.labels import LabelsLike, label_tensor

__all__ = [
    "BaseDistance",
    "BaseMetricLossFunction",
    "BaseMiner",
    "ClassWeightedReducer",
    "CrossBatchMemory",
    "MultiLabelBaseMiner",
    "Unsupported",
    "check_norms",
    "distance_matrix",
    "pml_losses",
    "pml_miners",
    "resolve_ref_includes_query",
]


@dataclass(frozen=True)
class Unsupported:
    """Reason why a class of pytorch-metric-learning does not support label sets, and an alternative."""

    reason: str
    alternative: str

    def message(self, name: str) -> str:
        """Return the error message for the class or setting `name`."""
        return f"`{name}` does not support multi-label data: it {self.reason}. Use {self.alternative}."


class MultiLabelBaseMiner(BaseMiner):  # type: ignore[misc, unused-ignore]
    """Base class of the miners for label matrices, which the base class of pytorch-metric-learning rejects."""

    validate_args: bool
    supports_missing_labels = False
    """Whether labels can be NaN, which means that they are not annotated."""

    def extra_repr(self) -> str:
        """Return the parameters for the `repr` of the module."""
        return parameters_repr(self)

    def forward(
        self,
        embeddings: Tensor,
        labels: LabelsLike,
        ref_emb: Tensor | None = None,
        ref_labels: LabelsLike | None = None,
        *,
        ref_includes_query: bool | None = None,
    ) -> tuple[Tensor, ...]:
        """Mine pairs or triplets from a batch.

        Args:
            embeddings: Anchors, shape `(N, D)`, any floating-point dtype; distances of half-precision embeddings are
                computed in float32.
            labels: Labels of `embeddings`, shape `(N, L)`, multi-hot or soft, of any kind that
                [`check_labels`][mlmetric.labels.check_labels] reads; NaN for labels that are not annotated, if
                `supports_missing_labels` is True.
            ref_emb: Reference embeddings, from which positives and negatives are taken, shape `(M, D)`; None for
                `embeddings`.
            ref_labels: Labels of `ref_emb`, shape `(M, L)`.
            ref_includes_query: Whether reference i is row i of the batch, for each row, as in the `AccuracyCalculator`
                of pytorch-metric-learning; a row is then neither its own positive nor its own negative. None decides
                automatically: True if `ref_labels` is the same object as `labels`, as in pytorch-metric-learning, or if
                `torch.distributed` is initialised and the references begin with rows equal to the batch, as in its
                `DistributedMinerWrapper(efficient=True)`.

        Returns:
            Indices as int64 tensors on the device of `embeddings`: three tensors (anchors, positives, negatives) for
            triplets, or four (anchors, positives, anchors, negatives) for pairs.

        Raises:
            TypeError: If embeddings or similarities are not tensors, or labels do not contain numbers.
            ValueError: If a shape is wrong, labels are not in [0, 1], a similarity or distance is NaN, or the squared
                norm of an embedding overflows (a norm above 9.2e18 in float32).
        """
        self.reset_stats()
        if (ref_emb is None) != (ref_labels is None):
            raise ValueError("`ref_emb` and `ref_labels` must be given together, got only one of them.")
        if ref_emb is None or ref_labels is None:
            ref_emb, ref_labels = embeddings, labels
        for name, value in {"embeddings": embeddings, "ref_emb": ref_emb}.items():
            if not isinstance(value, Tensor):
                raise TypeError(f"`{name}` must be a torch.Tensor, got {type(value).__name__}.")
        with torch.no_grad(), torch.autocast(embeddings.device.type, enabled=False):
            same_labels = ref_labels is labels
            labels = self._check(embeddings, labels, "embeddings", "labels")
            if same_labels and ref_emb is embeddings:
                ref_labels = labels
            else:
                checked = self._check(ref_emb, ref_labels, "ref_emb", "ref_labels")
                ref_labels = labels if same_labels else checked
            ref_includes_query = resolve_ref_includes_query(embeddings, labels, ref_emb, ref_labels, ref_includes_query)
            device = embeddings.device
            mined = self.mine(
                embeddings.detach(),
                labels.to(device),
                ref_emb.detach().to(device),
                ref_labels.to(device),
                ref_includes_query=ref_includes_query,
            )
        self.output_assertion(mined)
        return mined

    def mine(
        self,
        embeddings: Tensor,
        labels: Tensor,
        ref_emb: Tensor,
        ref_labels: Tensor,
        *,
        ref_includes_query: bool = False,
    ) -> tuple[Tensor, ...]:
        """Mine pairs or triplets from a batch; the arguments are checked tensors on one device.

        Args:
            embeddings: Anchors, shape `(N, D)`.
            labels: Labels of `embeddings`, shape `(N, L)`.
            ref_emb: Reference embeddings, shape `(M, D)`.
            ref_labels: Labels of `ref_emb`, shape `(M, L)`.
            ref_includes_query: Whether reference i is row i of the batch, so that self-pairs are excluded.

        Returns:
            Three index tensors (anchors, positives, negatives) for triplets, or four (anchors, positives, anchors,
            negatives) for pairs, int64.
        """
        raise NotImplementedError

    def _check(self, embeddings: Tensor, labels: LabelsLike, embeddings_name: str, labels_name: str) -> Tensor:
        """Return checked labels as a tensor."""
        labels = label_tensor(
            labels,
            name=labels_name,
            validate_args=self.validate_args,
            allow_missing=self.supports_missing_labels,
            used_by=f"`{type(self).__name__}`",
        )
        if embeddings.ndim != 2 or len(embeddings) != len(labels):
            raise ValueError(
                f"`{embeddings_name}` must have shape ({len(labels)}, D), one row for each row of `{labels_name}`, "
                f"got {tuple(embeddings.shape)}."
            )
        return labels


def resolve_ref_includes_query(
    embeddings: Tensor, labels: Tensor, ref_emb: Tensor, ref_labels: Tensor, given: bool | None = None
) -> bool:
    """Return whether reference i is row i of the batch: `given`, or decided as in `MultiLabelBaseMiner.forward`."""
    if given and len(ref_emb) < len(embeddings):
        raise ValueError(
            f"`ref_emb` must begin with the batch if `ref_includes_query=True`, got {len(ref_emb)} references for "
            f"{len(embeddings)} embeddings."
        )
    if given is not None:
        return given
    if ref_labels is labels:
        return True
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    if not distributed or len(ref_labels) <= len(labels):
        return False
    if ref_labels.shape[1:] != labels.shape[1:] or ref_emb.shape[1:] != embeddings.shape[1:]:
        return False
    # Comparisons promote to the dtype that represents both: soft labels cast to integers would equal all-zero rows.
    first, labels = ref_labels[: len(labels)], labels.to(ref_labels.device)
    same_labels = ((first == labels) | (first.isnan() & labels.isnan())).all()
    same_embeddings = (ref_emb[: len(labels)] == embeddings.to(ref_emb.device)).all()
    return bool(same_labels & same_embeddings)


def distance_matrix(
    distance: BaseDistance, embeddings: Tensor, ref_emb: Tensor, *, validate_args: bool = True
) -> Tensor:
    """Return the distances `(N, M)`, negated for inverted distances, so that smaller always means nearer.

    Half precision is converted to float32: rounding would change the order of neighbours, and `cdist` does not support
    it.
    """
    dtype = torch.promote_types(embeddings.dtype, torch.float32)
    query = embeddings.to(dtype)
    refs = query if ref_emb is embeddings else ref_emb.to(dtype)
    if validate_args:
        check_norms(query, "embeddings")
        if refs is not query:
            check_norms(refs, "ref_emb")
    result: Tensor = distance(query) if refs is query else distance(query, refs)  # which would normalise twice
    # The maximum is NaN if any entry is, and ten times faster than `isnan().any()`.
    if validate_args and result.numel() and bool(result.max().isnan()):
        raise ValueError("`embeddings` or `ref_emb` contain NaN: their distances are NaN. Did training diverge?")
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
