"""What all losses on label matrices share: the contract of pytorch-metric-learning, with (N, L) labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mlmetric._pml import BaseMetricLossFunction, ClassWeightedReducer, refs_begin_with_batch
from mlmetric.labels import check_labels
from mlmetric.losses._tuples import Indices, to_pairs
from mlmetric.similarity import SimilarityFunction, compare_labels

LossDict = dict[str, dict[str, Any]]
"""What reducers of pytorch-metric-learning take: for each part of a loss the values and what they belong to."""


class MultiLabelBaseLoss(BaseMetricLossFunction):  # type: ignore[misc, unused-ignore]
    """Base of the losses that take label matrices, which pytorch-metric-learning's own base rejects.

    A subclass says in `compute_loss` what the loss of a checked [batch][mlmetric.losses.LabelledBatch] is.

    Args:
        validate_args: Whether each call looks at the values of labels and similarities. On CUDA that waits for the
            device.
        **settings: `distance`, `reducer`, `embedding_regularizer` and whatever else the base of
            pytorch-metric-learning takes.
    """

    takes_refs = True
    """Whether `ref_emb` may be given, as by a cross-batch memory."""
    takes_tuples = True
    """Whether `indices_tuple` may be given, as by a miner."""
    takes_soft_labels = True
    """Whether labels between 0 and 1 mean shares to it, as mixed rows have them."""

    def __init__(self, *, validate_args: bool = True, **settings: Any) -> None:
        super().__init__(**settings)
        if isinstance(self.reducer, ClassWeightedReducer):
            raise ValueError("`reducer` must not be a ClassWeightedReducer, which looks a weight up by a class id.")
        self.validate_args = validate_args

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor | None = None,
        indices_tuple: Indices | None = None,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
        *,
        batch_first: bool | None = None,
    ) -> Tensor:
        """Compute the loss of a batch.

        Args:
            embeddings: Shape `(N, D)`.
            labels: Shape `(N, L)`, multi-hot or soft.
            indices_tuple: Three index tensors (anchors, positives, negatives) of triplets, or four (anchors,
                positives, anchors, negatives) of pairs: the loss sees these only. Positives and negatives index
                `ref_emb` if there is one.
            ref_emb: Shape `(M, D)`, what anchors are compared with; the batch itself by default.
            ref_labels: Shape `(M, L)`, of `ref_emb`.
            batch_first: Whether ref i is item i of the batch, for each item, so that the pair of the two is left
                out. By default decided as the [miners][mlmetric.miners] do: if `ref_labels` is the very object
                `labels`, and, where processes are joined, if the refs begin with the numbers of the batch.

        Returns:
            What the reducer makes of it: a scalar, for all but `DoNothingReducer`.

        Raises:
            TypeError: If embeddings or labels are no tensors.
            ValueError: If a shape does not fit, labels are missing or lie outside [0, 1], or the loss takes no refs
                or no tuple.
        """
        self.reset_stats()
        ref_emb, ref_labels = check_batch(embeddings, labels, ref_emb, ref_labels)
        if labels is None or ref_labels is None:
            missing = "labels" if labels is None else "ref_labels"
            raise ValueError(f"`{missing}` must be given to `{type(self).__name__}`, got None.")
        if ref_emb is not embeddings or ref_labels is not labels:
            self.check_refs()
        if self.validate_args:
            check_labels(labels)
            if ref_labels is not labels:
                check_labels(ref_labels, name="ref_labels")
        if batch_first is None:
            batch_first = refs_begin_with_batch(embeddings, labels, ref_emb, ref_labels)
        elif batch_first and len(ref_emb) < len(embeddings):
            raise ValueError(
                f"`ref_emb` must begin with the batch under `batch_first=True`, got {len(ref_emb)} refs for "
                f"{len(embeddings)} embeddings."
            )
        device = embeddings.device
        given_tuple = check_tuple(indices_tuple, device)
        if given_tuple is not None and not self.takes_tuples:
            raise ValueError(
                f"`{type(self).__name__}` takes no `indices_tuple`, got one of {len(given_tuple)} tensors."
            )
        same_labels = ref_labels is labels
        labels = labels.to(device)
        ref_labels = labels if same_labels else ref_labels.to(device)
        if 0 in (len(embeddings), len(ref_emb)):
            loss_dict = self.no_loss()
        else:
            batch = LabelledBatch(embeddings, labels, ref_emb, ref_labels, batch_first, given_tuple, self.validate_args)
            with torch.autocast(device.type, enabled=False):
                loss_dict = self.compute_loss(batch)
        # Reducers sum in the dtype of the embeddings.
        raised = embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
        self.add_embedding_regularization_to_loss_dict(loss_dict, raised)
        reduced: Tensor = self.reducer(loss_dict, raised, labels)
        return reduced

    def compute_loss(self, batch: LabelledBatch) -> LossDict:
        """Return the parts of the loss, for the reducer."""
        raise NotImplementedError

    def check_refs(self) -> None:
        """Raise a ValueError if the loss takes no refs."""
        if not self.takes_refs:
            raise ValueError(
                f"`{type(self).__name__}` compares items with its proxies and takes no `ref_emb`, nor does a "
                "`MultiLabelCrossBatchMemory` hold anything for it. Use it on the batch alone."
            )

    def no_loss(self) -> LossDict:
        """Return what the reducer makes a zero of that can be differentiated: nothing is to be compared."""
        loss_dict: LossDict = self.zero_losses()
        return loss_dict


@dataclass(frozen=True)
class LabelledBatch:
    """A batch `(N, D)` with labels `(N, L)` against refs `(M, D)` with labels `(M, L)`, checked and on one device."""

    embeddings: Tensor
    labels: Tensor
    ref_emb: Tensor
    ref_labels: Tensor
    batch_first: bool
    indices: Indices | None = None
    validate_args: bool = True

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that sums are taken in: that of the embeddings, float32 at least."""
        return torch.promote_types(self.embeddings.dtype, torch.float32)

    def similarity(self, function: SimilarityFunction) -> Tensor:
        """Compare the labels: shape `(N, M)`, without gradient, in the dtype that the similarity has."""
        with torch.no_grad(), torch.autocast(self.labels.device.type, enabled=False):
            return compare_labels(function, self.labels, self.ref_labels, validate_args=self.validate_args)

    def distances(self, distance: Any) -> Tensor:
        """Compare the embeddings by a distance of pytorch-metric-learning: shape `(N, M)`, in `dtype`."""
        queries = self.embeddings.to(self.dtype)
        refs = queries if self.ref_emb is self.embeddings else self.ref_emb.to(queries)
        with torch.autocast(self.labels.device.type, enabled=False):
            compared: Tensor = distance(queries, refs)
        return compared

    def pairs(self) -> Tensor:
        """Say which pairs are compared: all, but of an item with itself; or those of the tuple. Bool, `(N, M)`."""
        shape = (len(self.embeddings), len(self.ref_emb))
        if self.indices is None:
            pairs = torch.ones(shape, dtype=torch.bool, device=self.labels.device)
            return pairs.fill_diagonal_(False) if self.batch_first else pairs
        anchors, positives, negative_anchors, negatives = to_pairs(self.indices)
        pairs = torch.zeros(shape, dtype=torch.bool, device=self.labels.device)
        pairs[anchors, positives] = True
        pairs[negative_anchors, negatives] = True
        return pairs


def check_batch(
    embeddings: Tensor, labels: Tensor | None, ref_emb: Tensor | None, ref_labels: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Check the shapes of a batch and its refs, and return the refs: the batch itself where none are given."""
    if ref_emb is None:
        if ref_labels is not None:
            raise ValueError("`ref_emb` and `ref_labels` must be given together, got only `ref_labels`.")
        ref_emb, ref_labels = embeddings, labels
    _check_rows(embeddings, labels, "embeddings", "labels")
    _check_rows(ref_emb, ref_labels, "ref_emb", "ref_labels")
    if ref_emb.shape[1] != embeddings.shape[1]:
        raise ValueError(
            f"`ref_emb` must have the {embeddings.shape[1]} columns of `embeddings`, got {ref_emb.shape[1]}."
        )
    if labels is not None and ref_labels is not None and ref_labels.shape[1] != labels.shape[1]:
        raise ValueError(
            f"`labels` and `ref_labels` must have the same number of labels, got {labels.shape[1]} and "
            f"{ref_labels.shape[1]}."
        )
    return ref_emb, ref_labels


def check_tuple(indices: Indices | None, device: torch.device) -> Indices | None:
    """Check that a tuple holds triplets or pairs, and move it."""
    if indices is None:
        return None
    if len(indices) not in (3, 4):
        raise ValueError(
            f"`indices_tuple` must hold three tensors (triplets) or four (pairs), got {len(indices)} of them."
        )
    return tuple(part.to(device) for part in indices)


def _check_rows(embeddings: Tensor, labels: Tensor | None, embeddings_name: str, labels_name: str) -> None:
    if not isinstance(embeddings, Tensor):
        raise TypeError(f"`{embeddings_name}` must be a torch.Tensor, got {type(embeddings).__name__}.")
    if labels is not None:
        if not isinstance(labels, Tensor):
            raise TypeError(f"`{labels_name}` must be a torch.Tensor, got {type(labels).__name__}.")
        check_labels(labels, name=labels_name, validate_args=False)
    rows = "N" if labels is None else len(labels)
    if embeddings.ndim != 2 or rows not in ("N", len(embeddings)):
        raise ValueError(
            f"`{embeddings_name}` must have shape ({rows}, D), a row for each row of `{labels_name}`, "
            f"got {tuple(embeddings.shape)}."
        )
