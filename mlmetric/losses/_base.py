"""What all losses on label matrices share: the contract of pytorch-metric-learning, with (N, L) labels.

Losses are computed in float32 at least, whatever `torch.autocast` asks for: half precision has too few digits for
differences of distances, `cdist` does not take it everywhere, and sums and exponentials leave its range.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mlmetric._pml import BaseMetricLossFunction, ClassWeightedReducer, check_norms, refs_begin_with_batch
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
        """Compute the loss of a batch, in float32 at least.

        Args:
            embeddings: Shape `(N, D)`; the gradient comes back in their dtype.
            labels: Shape `(N, L)`, multi-hot or soft.
            indices_tuple: Three index tensors (anchors, positives, negatives) of triplets, or four (anchors,
                positives, anchors, negatives) of pairs: the loss sees these only. Positives and negatives index
                `ref_emb` if there is one.
            ref_emb: Shape `(M, D)`, what anchors are compared with, in the dtype that the batch is computed in; the
                batch itself by default.
            ref_labels: Shape `(M, L)`, of `ref_emb`.
            batch_first: Whether ref i is item i of the batch, for each item, so that the pair of the two is left
                out. By default decided as the [miners][mlmetric.miners] do: if `ref_labels` is the very object
                `labels`, and, where processes are joined, if the refs begin with the numbers of the batch.

        Returns:
            What the reducer makes of it: a scalar, for all but `DoNothingReducer`.

        Raises:
            TypeError: If embeddings or labels are no tensors.
            ValueError: If a shape does not fit, labels are missing or lie outside [0, 1], the loss takes no refs or no
                tuple, or an embedding has a norm whose square overflows: above 9.2e18 in float32.
        """
        self.reset_stats()
        ref_emb, ref_labels = check_batch(embeddings, labels, ref_emb, ref_labels)
        if ref_emb is not embeddings or ref_labels is not labels:
            self.check_refs()
        if indices_tuple is not None:
            if not self.takes_tuples:
                raise ValueError(
                    f"`{self.loss_name}` takes no `indices_tuple`, got one of {len(indices_tuple)} tensors."
                )
            indices_tuple = check_tuple(indices_tuple, embeddings.device)
        raised = embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
        same_emb = ref_emb is embeddings
        ref_emb = raised if same_emb else ref_emb.to(raised)
        if self.validate_args:
            check_norms(raised.detach(), "embeddings")
            if not same_emb:
                check_norms(ref_emb.detach(), "ref_emb")
        with torch.autocast(raised.device.type, enabled=False):
            return self._evaluate(raised, labels, indices_tuple, ref_emb, ref_labels, batch_first)

    def compute_loss(self, batch: LabelledBatch) -> LossDict:
        """Return the parts of the loss, for the reducer."""
        raise NotImplementedError

    @property
    def loss_name(self) -> str:
        """The class that messages name: of a wrapper the loss that it wraps."""
        return type(self).__name__

    def _evaluate(
        self,
        embeddings: Tensor,
        labels: Tensor | None,
        indices: Indices | None,
        ref_emb: Tensor,
        ref_labels: Tensor | None,
        batch_first: bool | None,
    ) -> Tensor:
        """Compute and reduce the loss of a batch of checked shapes, in float32 at least and outside of autocast."""
        if labels is None or ref_labels is None:
            missing = "labels" if labels is None else "ref_labels"
            raise ValueError(f"`{missing}` must be given to `{self.loss_name}`, got None.")
        if self.validate_args:
            check_labels(labels)
            if ref_labels is not labels:
                check_labels(ref_labels, name="ref_labels")
        batch_first = refs_begin_with_batch(embeddings, labels, ref_emb, ref_labels, batch_first)
        device, same_labels = embeddings.device, ref_labels is labels
        labels = labels.to(device)
        ref_labels = labels if same_labels else ref_labels.to(device)
        if 0 in (len(embeddings), len(ref_emb)):
            loss_dict = self.no_loss()
        else:
            batch = LabelledBatch(embeddings, labels, ref_emb, ref_labels, batch_first, indices, self.validate_args)
            loss_dict = self.compute_loss(batch)
        return reduce_losses(self, loss_dict, embeddings, labels)

    def check_refs(self) -> None:
        """Raise a ValueError if the loss takes no refs."""
        if not self.takes_refs:
            raise ValueError(
                f"`{self.loss_name}` compares items with its proxies and takes no `ref_emb`, nor does a "
                "`MultiLabelCrossBatchMemory` hold anything for it. Use it on the batch alone."
            )

    def no_loss(self) -> LossDict:
        """Return what the reducer makes a zero of that can be differentiated: nothing is to be compared."""
        return zero_losses(self)


@dataclass(frozen=True)
class LabelledBatch:
    """A batch `(N, D)` with labels `(N, L)` against refs `(M, D)` with labels `(M, L)`, checked and on one device.

    Embeddings are in float32 at least; the gradient goes back in the dtype that they came in.
    """

    embeddings: Tensor
    labels: Tensor
    ref_emb: Tensor
    ref_labels: Tensor
    batch_first: bool
    indices: Indices | None = None
    validate_args: bool = True

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the embeddings, and of all that is computed from them."""
        return self.embeddings.dtype

    def similarity(self, function: SimilarityFunction) -> Tensor:
        """Compare the labels: shape `(N, M)`, without gradient, in the dtype that the similarity has."""
        with torch.no_grad():
            return compare_labels(function, self.labels, self.ref_labels, validate_args=self.validate_args)

    def distances(self, distance: Any) -> Tensor:
        """Compare the embeddings by a distance of pytorch-metric-learning: shape `(N, M)`, in `dtype`."""
        compared: Tensor = distance(self.embeddings, self.ref_emb)
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


def zero_losses(loss: Any) -> LossDict:
    """Return the parts of a loss of which each is zero, whatever the reducer."""
    loss_dict: LossDict = loss.zero_losses()
    return loss_dict


def reduce_losses(loss: Any, loss_dict: LossDict, embeddings: Tensor, labels: Tensor | None) -> Tensor:
    """Add the regularizer of the embeddings, and let the reducer of the loss make of the parts what it does."""
    if len(embeddings):  # the mean over no rows would be NaN
        loss.add_embedding_regularization_to_loss_dict(loss_dict, embeddings)
    reduced: Tensor = loss.reducer(loss_dict, embeddings, labels)
    return reduced


def check_tuple(indices: Indices, device: torch.device) -> Indices:
    """Check that a tuple holds triplets or pairs, and move it."""
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
