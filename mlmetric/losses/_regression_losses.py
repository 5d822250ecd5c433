"""Losses that fit distances or cosines of embeddings to label similarities."""

from __future__ import annotations

import torch
from pytorch_metric_learning.distances import CosineSimilarity
from torch import Tensor, nn

from mlmetric._docstrings import inherit_docs
from mlmetric._pml import BaseDistance
from mlmetric.losses._base_loss import LossDict, MultiLabelBaseLoss, element_loss, zero_loss_dict
from mlmetric.losses._indices_tuple import IndicesTuple, comparable_triplets
from mlmetric.losses._loss_inputs import LossInputs
from mlmetric.losses._squared_euclidean_distance import SquaredEuclideanDistance
from mlmetric.similarity import Jaccard, SimilarityFunction, check_similarity


@inherit_docs(MultiLabelBaseLoss)
class SimilarityRegressionLoss(MultiLabelBaseLoss):
    """Mean squared difference between the cosine of two embeddings and the similarity of their labels.

    The loss is `(cos(a, j) - S(a, j))^2`, averaged over the references of an anchor, then over anchors. The lowest
    value is 0. If labels are uncertain, the best cosine of two rows is their expected similarity. Neighbours are
    therefore ranked by expected similarity, as graded retrieval metrics require, without a miner, margin or
    temperature. With the Jaccard index, the target of an all-zero row is a cosine of 0 to every row. Rows with missing
    labels (NaN) are compared on the labels annotated in both rows; pairs without such a label are omitted.

    Args:
        similarity: Label similarity `(labels, ref_labels) -> (N, M)`, in [0, 1]. None for
            [`Jaccard()`][mlmetric.similarity.Jaccard].
        distance: An inverted distance of pytorch-metric-learning, larger for nearer embeddings. None for
            `CosineSimilarity()`.

    Raises:
        TypeError: If `similarity` is not callable.
        ValueError: If `distance` is not inverted, or `reducer` is a `ClassWeightedReducer`.

    Examples:
        >>> import torch
        >>> from mlmetric.losses import SimilarityRegressionLoss
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
        >>> labels = torch.tensor([[1, 1], [1, 0], [0, 1]])  # similarities 1/2, 1/2, 0; cosines 0, 1, 0
        >>> SimilarityRegressionLoss()(embeddings, labels)
        tensor(0.1667)

    Source:
        Liu et al., "Supervised hashing with kernels", CVPR 2012, regress a similarity on inner products. Here the codes
        are unit vectors, and the similarity is graded.
    """

    supports_missing_labels = True

    def __init__(
        self,
        *,
        similarity: SimilarityFunction | None = None,
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
            validate_args=validate_args,
        )
        self.similarity = Jaccard() if similarity is None else check_similarity(similarity)
        if not self.distance.is_inverted:
            raise ValueError(
                f"`distance` must be inverted, larger for nearer embeddings, got {type(self.distance).__name__}."
            )

    def get_default_distance(self) -> CosineSimilarity:
        """Return the default distance: the cosine."""
        return CosineSimilarity()

    @inherit_docs(MultiLabelBaseLoss.compute_loss)
    def compute_loss(self, inputs: LossInputs) -> LossDict:
        """Return a loss for each anchor that is compared with a reference."""
        similarity, pairs = inputs.comparable_pairs(self.similarity)
        counts = pairs.sum(dim=1)
        anchors = counts.nonzero().squeeze(1)
        if len(anchors) == 0:
            return zero_loss_dict(self)
        squares = (inputs.distances(self.distance) - similarity.to(inputs.dtype)).square()
        losses = torch.where(pairs, squares, 0).sum(dim=1)[anchors] / counts[anchors]
        return {"loss": element_loss(losses, anchors)}


@inherit_docs(MultiLabelBaseLoss)
class LogRatioLoss(MultiLabelBaseLoss):
    """Log-ratio loss: the ratio of two distances from an anchor is fitted to the ratio of their label distances.

    The loss of an anchor a and references i, j is `(log(D(a, i) / D(a, j)) - log(d(a, i) / d(a, j)))^2`, with the
    distance D of embeddings and the label distance d = 1 - similarity. It is averaged over all pairs i, j of an anchor,
    then over anchors, or over the triplets of an `indices_tuple`. The lowest value, 0, is reached where the distances
    of embeddings, squared by default, are proportional to the label distances with any factor. Pairs are neither
    positive nor negative, so no miner is needed. The mean over pairs is computed in closed form, with the time and
    memory of the distances, O(N*M).

    Label distances are at least `min_label_distance`, because the logarithm of the distance 0 of equal label sets is
    minus infinity. With the Jaccard index, an all-zero row has label distance 1 to every row. Anchors with fewer than
    two references have no ratio and are omitted. Rows with missing labels (NaN) are compared on the labels annotated in
    both rows; pairs without such a label are omitted.

    Args:
        similarity: Label similarity `(labels, ref_labels) -> (N, M)`, at most 1. None for
            [`Jaccard()`][mlmetric.similarity.Jaccard].
        min_label_distance: Lower bound of the label distances, above 0. The smaller it is, the nearer the embeddings of
            equal label sets are pulled.
        eps: Number above 0 that is added to each distance of embeddings, so that the logarithm and its gradient are
            finite.
        distance: A distance of pytorch-metric-learning, not inverted. None for the squared Euclidean distance without
            normalisation, as in the paper.

    Raises:
        TypeError: If `similarity` is not callable.
        ValueError: If `min_label_distance` or `eps` is not above 0, `distance` is inverted, or `reducer` is a
            `ClassWeightedReducer`.

    Examples:
        >>> import torch
        >>> from mlmetric.losses import LogRatioLoss
        >>> labels = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 1, 1]])  # label distances 1/3, 1, 3/4
        >>> LogRatioLoss()(torch.tensor([[0.0], [1.0], [-2.0]]), labels)
        tensor(1.0705)

    Source:
        Kim et al., "Deep metric learning beyond binary supervision", CVPR 2019, equation 5, with all pairs of the batch
        for each anchor (the dense triplet mining of the paper) and the mean in place of the sum. Deviations: label
        distances from a similarity of label sets in place of distances of poses or captions, and their lower bound.
    """

    supports_missing_labels = True

    def __init__(
        self,
        *,
        similarity: SimilarityFunction | None = None,
        min_label_distance: float = 0.1,
        eps: float = 1e-6,
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
            validate_args=validate_args,
        )
        self.similarity = Jaccard() if similarity is None else check_similarity(similarity)
        for name, value in (("min_label_distance", min_label_distance), ("eps", eps)):
            if not value > 0:
                raise ValueError(f"`{name}` must be above 0, got {value}.")
        if self.distance.is_inverted:
            raise ValueError(
                f"`distance` must not be inverted: smaller for nearer embeddings, got {type(self.distance).__name__}."
            )
        self.min_label_distance = min_label_distance
        self.eps = eps
        self.add_to_recordable_attributes(list_of_names=["min_label_distance"], is_stat=False)

    def get_default_distance(self) -> SquaredEuclideanDistance:
        """Return the default distance: squared Euclidean, without normalisation."""
        return SquaredEuclideanDistance()

    @inherit_docs(MultiLabelBaseLoss.compute_loss)
    def compute_loss(self, inputs: LossInputs) -> LossDict:
        """Return a loss for each anchor, or for each triplet if triplets are given."""
        similarity, pairs = inputs.comparable_pairs(self.similarity)
        label_distances = (1 - similarity.to(inputs.dtype)).clamp(min=self.min_label_distance)
        log_ratios = (inputs.distances(self.distance) + self.eps).log() - label_distances.log()
        if inputs.indices_tuple is not None and len(inputs.indices_tuple) == 3:
            triplets: IndicesTuple = inputs.indices_tuple
            if inputs.has_missing_labels:
                triplets = comparable_triplets(triplets, similarity.where(pairs, torch.nan))
            anchors, positives, negatives = triplets
            losses = (log_ratios[anchors, positives] - log_ratios[anchors, negatives]).square()
            if len(losses) == 0:
                return zero_loss_dict(self)
            return {"loss": {"losses": losses, "indices": triplets, "reduction_type": "triplet"}}
        losses, anchors = _mean_squared_difference(log_ratios, pairs)
        return {"loss": element_loss(losses, anchors)} if len(losses) else zero_loss_dict(self)


def _mean_squared_difference(values: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean of (v_i - v_j)^2 over pairs i != j of the kept entries of each row, and the rows that have pairs.

    It is twice their sample variance.
    """
    count = keep.sum(dim=1)
    rows = (count > 1).nonzero().squeeze(1)
    if len(rows) < len(values):
        values, keep, count = values[rows], keep[rows], count[rows]
    mean = torch.where(keep, values, 0).sum(dim=1) / count
    squares = torch.where(keep, values - mean[:, None], 0).square().sum(dim=1)
    return 2 * squares / (count - 1), rows
