"""Inputs of the losses: their checks, and the argument of `MultiLabelBaseLoss.compute_loss`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mlmetric._label_dtypes import widen_integers
from mlmetric._label_matrix import has_missing
from mlmetric._pml import BaseDistance
from mlmetric.labels import LabelsLike, label_tensor
from mlmetric.losses._indices_tuple import IndicesTuple, to_pairs
from mlmetric.similarity import SimilarityFunction, compare_labels


@dataclass(frozen=True)
class LossInputs:
    """Inputs of `MultiLabelBaseLoss.compute_loss`: a batch and its references, checked and on one device.

    Attributes:
        embeddings: Shape `(N, D)`, float32 or float64.
        labels: Labels of `embeddings`, shape `(N, L)`; uint8 and other small integers arrive as int64. NaN for labels
            that are not annotated, if the loss supports missing labels.
        ref_emb: Reference embeddings, shape `(M, D)`, in the dtype of `embeddings`; the same object as `embeddings` if
            no references are given.
        ref_labels: Labels of `ref_emb`, shape `(M, L)`.
        ref_includes_query: Whether reference i is row i of the batch, so that self-pairs are excluded.
        indices_tuple: Three index tensors (anchors, positives, negatives) for triplets, four (anchors, positives,
            anchors, negatives) for pairs, or None.
        validate_args: Whether to check values, which synchronises on CUDA.
    """

    embeddings: Tensor
    labels: Tensor
    ref_emb: Tensor
    ref_labels: Tensor
    ref_includes_query: bool
    indices_tuple: IndicesTuple | None = None
    validate_args: bool = True

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the embeddings, in which the loss is computed."""
        return self.embeddings.dtype

    @property
    def has_missing_labels(self) -> bool:
        """Whether a label is NaN, which means that it is not annotated."""
        return has_missing(self.labels) or (self.ref_labels is not self.labels and has_missing(self.ref_labels))

    def similarity(self, function: SimilarityFunction) -> Tensor:
        """Compute the label similarities.

        Args:
            function: Label similarity `(labels, ref_labels) -> (N, M)`.

        Returns:
            Shape `(N, M)`, without gradient, in the dtype that `function` returns; NaN for pairs of rows without a
            label that is annotated in both.
        """
        with torch.no_grad():
            return compare_labels(function, self.labels, self.ref_labels, validate_args=self.validate_args)

    def comparable_pairs(self, function: SimilarityFunction) -> tuple[Tensor, Tensor]:
        """Compute the label similarities, and select the pairs that they compare.

        Args:
            function: Label similarity `(labels, ref_labels) -> (N, M)`.

        Returns:
            The result of `similarity`, with 0 in place of NaN, and the result of `pairs`, without the pairs of
            similarity NaN; both of shape `(N, M)`.
        """
        similarity, pairs = self.similarity(function), self.pairs()
        if not self.has_missing_labels:
            return similarity, pairs
        incomparable = similarity.isnan()
        return similarity.masked_fill(incomparable, 0), pairs & ~incomparable

    def distances(self, distance: BaseDistance) -> Tensor:
        """Compute the distances of the embeddings.

        Args:
            distance: A distance of pytorch-metric-learning.

        Returns:
            Shape `(N, M)`, in the dtype of the embeddings.
        """
        result: Tensor = distance(self.embeddings, self.ref_emb)
        return result

    def pairs(self) -> Tensor:
        """Return which pairs of a row and a reference are compared.

        Returns:
            Shape `(N, M)`, bool: the pairs in `indices_tuple` or, if it is None, all pairs except self-pairs.
        """
        shape = (len(self.embeddings), len(self.ref_emb))
        if self.indices_tuple is None:
            pairs = torch.ones(shape, dtype=torch.bool, device=self.labels.device)
            return pairs.fill_diagonal_(False) if self.ref_includes_query else pairs
        anchors, positives, negative_anchors, negatives = to_pairs(self.indices_tuple)
        pairs = torch.zeros(shape, dtype=torch.bool, device=self.labels.device)
        pairs[anchors, positives] = True
        pairs[negative_anchors, negatives] = True
        return pairs


def check_inputs(
    embeddings: Tensor, labels: LabelsLike | None, ref_emb: Tensor | None, ref_labels: LabelsLike | None
) -> tuple[Tensor | None, Tensor, Tensor | None]:
    """Check types and shapes, and return labels, reference embeddings and reference labels as tensors."""
    if ref_emb is None and ref_labels is not None:
        raise ValueError("`ref_emb` and `ref_labels` must be given together, got only `ref_labels`.")
    same_labels = ref_emb is None or (ref_labels is labels and labels is not None)
    labels = _check_rows(embeddings, labels, "embeddings", "labels")
    if ref_emb is None:
        return labels, embeddings, labels
    ref_labels = _check_rows(ref_emb, labels if same_labels else ref_labels, "ref_emb", "ref_labels")
    if ref_emb.shape[1] != embeddings.shape[1]:
        raise ValueError(
            f"`ref_emb` must have as many columns as `embeddings`, {embeddings.shape[1]}, got {ref_emb.shape[1]}."
        )
    if labels is not None and ref_labels is not None and ref_labels.shape[1] != labels.shape[1]:
        raise ValueError(
            f"`labels` and `ref_labels` must have the same number of labels, got {labels.shape[1]} and "
            f"{ref_labels.shape[1]}."
        )
    return labels, ref_emb, ref_labels


def check_indices_tuple(indices_tuple: IndicesTuple, device: torch.device) -> IndicesTuple:
    """Check that there are three or four index tensors, and return them on a device."""
    if len(indices_tuple) not in (3, 4):
        raise ValueError(
            f"`indices_tuple` must have three tensors (triplets) or four (pairs), got {len(indices_tuple)} of them."
        )
    return tuple(part.to(device) for part in indices_tuple)


def _check_rows(embeddings: Tensor, labels: LabelsLike | None, embeddings_name: str, labels_name: str) -> Tensor | None:
    """Check that embeddings and labels have the same number of rows, and return the labels as a tensor."""
    if not isinstance(embeddings, Tensor):
        raise TypeError(f"`{embeddings_name}` must be a torch.Tensor, got {type(embeddings).__name__}.")
    matrix = None if labels is None else widen_integers(label_tensor(labels, name=labels_name, validate_args=False))
    rows = "N" if matrix is None else len(matrix)
    if embeddings.ndim != 2 or rows not in ("N", len(embeddings)):
        raise ValueError(
            f"`{embeddings_name}` must have shape ({rows}, D), one row for each row of `{labels_name}`, "
            f"got {tuple(embeddings.shape)}."
        )
    return matrix
