"""Base class of the losses for label matrices, with the interface of the losses of pytorch-metric-learning.

Losses are computed in float32 or float64, even under `torch.autocast`: half precision has too few digits for
differences of distances, `cdist` supports it only partly, and sums and exponentials overflow.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mlmetric._pml import (
    BaseDistance,
    BaseMetricLossFunction,
    ClassWeightedReducer,
    check_norms,
    resolve_ref_includes_query,
)
from mlmetric._repr import parameters_repr
from mlmetric.labels import LabelsLike, label_tensor
from mlmetric.losses._indices_tuple import IndicesTuple
from mlmetric.losses._loss_inputs import LossInputs, check_indices_tuple, check_inputs
from mlmetric.similarity._autocast import without_autocast

LossDict = dict[str, dict[str, Any]]
"""Input of the reducers of pytorch-metric-learning: for each sub-loss its values, their indices and reduction type."""


class MultiLabelBaseLoss(BaseMetricLossFunction):  # type: ignore[misc, unused-ignore]
    """Base class of the losses for label matrices, which the base class of pytorch-metric-learning rejects.

    A subclass implements `compute_loss(inputs)`, which receives checked [`LossInputs`][mlmetric.losses.LossInputs]. Its
    class attributes state what it supports: `supports_refs`, `supports_indices_tuple`, `supports_soft_labels` and
    `supports_missing_labels`.

    Args:
        distance: A distance of pytorch-metric-learning. None for the default of the loss, `LpDistance()` unless stated
            otherwise.
        reducer: A reducer of pytorch-metric-learning, but not `ClassWeightedReducer`. None for the default of the loss,
            `MeanReducer()` unless stated otherwise.
        embedding_regularizer: A regularizer of pytorch-metric-learning that is applied to the embeddings; None for no
            regularizer.
        embedding_reg_weight: Weight of `embedding_regularizer`.
        collect_stats: Whether to record statistics of each call as attributes. None for the global setting of
            pytorch-metric-learning.
        validate_args: Whether to check the values of labels, similarities and embeddings in each call, which
            synchronises on CUDA.

    Raises:
        ValueError: If `reducer` is a `ClassWeightedReducer`, which requires class ids.
    """

    supports_refs = True
    """Whether `ref_emb` can be given, for example by a cross-batch memory."""
    supports_indices_tuple = True
    """Whether `indices_tuple` can be given, for example by a miner."""
    supports_soft_labels = True
    """Whether labels can be between 0 and 1, as after mixup."""
    supports_missing_labels = False
    """Whether labels can be NaN, which means that they are not annotated."""

    def __init__(
        self,
        *,
        distance: BaseDistance | None = None,
        reducer: nn.Module | None = None,
        embedding_regularizer: nn.Module | None = None,
        embedding_reg_weight: float = 1,
        collect_stats: bool | None = None,
        validate_args: bool = True,
    ) -> None:
        super().__init__(
            distance=distance,
            reducer=reducer,
            embedding_regularizer=embedding_regularizer,
            embedding_reg_weight=embedding_reg_weight,
            collect_stats=collect_stats,
        )
        if isinstance(self.reducer, ClassWeightedReducer):
            raise ValueError("`reducer` must not be a ClassWeightedReducer, which requires class ids.")
        self.validate_args = validate_args

    def extra_repr(self) -> str:
        """Return the parameters for the `repr` of the module."""
        return parameters_repr(self)

    def forward(
        self,
        embeddings: Tensor,
        labels: LabelsLike | None = None,
        indices_tuple: IndicesTuple | None = None,
        ref_emb: Tensor | None = None,
        ref_labels: LabelsLike | None = None,
        *,
        ref_includes_query: bool | None = None,
    ) -> Tensor:
        """Compute the loss of a batch.

        Args:
            embeddings: Shape `(N, D)`, any floating-point dtype; the gradient has the same dtype.
            labels: Labels of `embeddings`, shape `(N, L)`, multi-hot or soft, of any kind that
                [`check_labels`][mlmetric.labels.check_labels] reads; NaN for labels that are not annotated, if
                `supports_missing_labels` is True. Optional with an `indices_tuple` if a
                `MultiLabelLoss` wraps a loss on pairs or triplets.
            indices_tuple: Pairs or triplets for which the loss is computed, such as the result of a miner: three index
                tensors (anchors, positives, negatives) for triplets, or four (anchors, positives, anchors, negatives)
                for pairs. Positives and negatives are indices into `ref_emb`. None for the pairs or triplets that the
                loss itself selects.
            ref_emb: Reference embeddings, with which the embeddings are compared, shape `(M, D)`; None for
                `embeddings`.
            ref_labels: Labels of `ref_emb`, shape `(M, L)`.
            ref_includes_query: Whether reference i is row i of the batch, for each row, as in the `AccuracyCalculator`
                of pytorch-metric-learning; self-pairs are then excluded. None decides automatically: True if
                `ref_labels` is the same object as `labels`, or if `torch.distributed` is initialised and the references
                begin with rows equal to the batch.

        Returns:
            The result of the reducer, in float32 or float64: a scalar, unless the reducer is a `DoNothingReducer`.

        Raises:
            TypeError: If embeddings are not tensors, or labels do not contain numbers.
            ValueError: If a shape is wrong, `labels` is None but required, labels are not in [0, 1], the loss does not
                support `ref_emb`, `indices_tuple` or soft labels, a pair is both positive and negative in
                `indices_tuple` and the loss does not support it, or the squared norm of an embedding overflows (a norm
                above 9.2e18 in float32).
        """
        self.reset_stats()
        labels, ref_emb, ref_labels = check_inputs(embeddings, labels, ref_emb, ref_labels)
        if ref_emb is not embeddings or ref_labels is not labels:
            self.check_refs()
        if indices_tuple is not None:
            if not self.supports_indices_tuple:
                raise ValueError(
                    f"`{self.loss_name}` does not support `indices_tuple`, got {len(indices_tuple)} tensors."
                )
            indices_tuple = check_indices_tuple(indices_tuple, embeddings.device)
        query = embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
        same_emb = ref_emb is embeddings
        ref_emb = query if same_emb else ref_emb.to(query)
        if self.validate_args:
            check_norms(query.detach(), "embeddings")
            if not same_emb:
                check_norms(ref_emb.detach(), "ref_emb")
        with without_autocast(query.device):
            return self._evaluate(query, labels, indices_tuple, ref_emb, ref_labels, ref_includes_query)

    def compute_loss(self, inputs: LossInputs) -> LossDict:
        """Return the sub-losses for the reducer, as in pytorch-metric-learning.

        Args:
            inputs: The batch and its references, with at least one row each.

        Returns:
            For each sub-loss its `losses`, `indices` and `reduction_type`.
        """
        raise NotImplementedError

    @property
    def loss_name(self) -> str:
        """Class name for error messages; a wrapper returns the class name of the wrapped loss."""
        return type(self).__name__

    def _evaluate(
        self,
        embeddings: Tensor,
        labels: Tensor | None,
        indices_tuple: IndicesTuple | None,
        ref_emb: Tensor,
        ref_labels: Tensor | None,
        ref_includes_query: bool | None,
    ) -> Tensor:
        """Compute and reduce the loss of inputs with checked shapes, in float32 or float64, without autocast."""
        if labels is None or ref_labels is None:
            missing = "labels" if labels is None else "ref_labels"
            raise ValueError(f"`{missing}` must be given to `{self.loss_name}`, got None.")
        if self.validate_args:
            options: dict[str, Any] = {
                "allow_missing": self.supports_missing_labels,
                "used_by": f"`{self.loss_name}`",
            }
            label_tensor(labels, **options)
            if ref_labels is not labels:
                label_tensor(ref_labels, name="ref_labels", **options)
        ref_includes_query = resolve_ref_includes_query(embeddings, labels, ref_emb, ref_labels, ref_includes_query)
        device, same_labels = embeddings.device, ref_labels is labels
        labels = labels.to(device)
        ref_labels = labels if same_labels else ref_labels.to(device)
        if 0 in (len(embeddings), len(ref_emb)):
            loss_dict = zero_loss_dict(self)
        else:
            inputs = LossInputs(
                embeddings, labels, ref_emb, ref_labels, ref_includes_query, indices_tuple, self.validate_args
            )
            loss_dict = self.compute_loss(inputs)
        return reduce_losses(self, loss_dict, embeddings, labels)

    def check_refs(self) -> None:
        """Raise a ValueError if the loss does not support references."""
        if not self.supports_refs:
            raise ValueError(
                f"`{self.loss_name}` compares embeddings with its proxies and does not support `ref_emb` or "
                "`MultiLabelCrossBatchMemory`. Use it without them."
            )


def zero_loss_dict(loss: Any) -> LossDict:
    """Return sub-losses of zero, which every reducer reduces to a differentiable zero."""
    loss_dict: LossDict = loss.zero_losses()
    return loss_dict


def element_loss(losses: Tensor, indices: Tensor) -> dict[str, Any]:
    """Return a sub-loss with one value for each of the rows `indices`."""
    return {"losses": losses, "indices": indices, "reduction_type": "element"}


def reduced_loss(loss: Tensor) -> dict[str, Any]:
    """Return the sub-loss of a scalar."""
    return {"losses": loss, "indices": None, "reduction_type": "already_reduced"}


def reduce_losses(loss: Any, loss_dict: LossDict, embeddings: Tensor, labels: Tensor | None) -> Tensor:
    """Add the regularizer of the embeddings to the sub-losses, and reduce them by the reducer of the loss."""
    if len(embeddings):  # the mean over no rows would be NaN
        loss.add_embedding_regularization_to_loss_dict(loss_dict, embeddings)
    reduced: Tensor = loss.reducer(loss_dict, embeddings, labels)
    return reduced
