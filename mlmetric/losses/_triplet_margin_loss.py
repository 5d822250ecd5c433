"""Triplet loss with a margin proportional to the difference of label similarities."""

from __future__ import annotations

import torch
from pytorch_metric_learning.reducers import AvgNonZeroReducer
from torch import Tensor, nn

from mlmetric._docstrings import inherit_docs
from mlmetric._pml import BaseDistance
from mlmetric.losses._base_loss import LossDict, MultiLabelBaseLoss, zero_loss_dict
from mlmetric.losses._indices_tuple import IndicesTuple, comparable_triplets, to_triplets
from mlmetric.losses._loss_inputs import LossInputs
from mlmetric.similarity import Jaccard, SimilarityFunction, check_similarity


@inherit_docs(MultiLabelBaseLoss)
class MultiLabelTripletMarginLoss(MultiLabelBaseLoss):
    """Triplet loss with a margin proportional to the difference of the similarities of the positive and the negative.

    The loss of a triplet is `max(0, d(a, p) - d(a, n) + margin * (S(a, p) - S(a, n)))`: the smaller the similarity of
    the negative, the larger its margin. The lowest value, 0, means that each triplet satisfies its margin. Use a
    [miner][mlmetric.miners] with the same similarity; if the negative of a triplet is more similar than the positive,
    its margin is below 0. Without a miner, the loss is computed for all O(N^3) triplets of the batch with
    `S(a, p) > S(a, n)`. Rows with missing labels (NaN) are compared on the labels annotated in both rows; triplets with
    a pair without such a label are omitted.

    For a constant margin, use [MultiLabelLoss][mlmetric.losses.MultiLabelLoss] with `TripletMarginLoss` of
    pytorch-metric-learning.

    Args:
        margin: Margin of a triplet whose similarities differ by 1, in units of `distance`, above 0.
        similarity: Label similarity `(labels, ref_labels) -> (N, M)`, larger is more similar. None for
            [`Jaccard()`][mlmetric.similarity.Jaccard].
        distance: A distance of pytorch-metric-learning, which can be inverted. None for the default of
            pytorch-metric-learning, the Euclidean distance of normalised embeddings.
        reducer: A reducer of pytorch-metric-learning, but not `ClassWeightedReducer`. None for `AvgNonZeroReducer()`,
            the mean over triplets with a loss above 0.

    Raises:
        TypeError: If `similarity` is not callable.
        ValueError: If the margin is not above 0, or `reducer` is a `ClassWeightedReducer`.

    Examples:
        >>> import torch
        >>> from pytorch_metric_learning.distances import LpDistance
        >>> from mlmetric.losses import MultiLabelTripletMarginLoss
        >>> loss = MultiLabelTripletMarginLoss(margin=1.5, distance=LpDistance(normalize_embeddings=False))
        >>> embeddings = torch.tensor([[0.0], [1.0], [2.0]])
        >>> labels = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 1, 1]])  # similarities 1/2, 1/3, 0
        >>> # Triplet (0, 1, 2) satisfies its margin of 1/4. The loss of (2, 0, 1) is 2 - 1 + 1.5 / 3 - 1.5 / 4.
        >>> loss(embeddings, labels)
        tensor(1.1250)

    Source:
        The triplet loss of Schroff et al., "FaceNet", CVPR 2015. Margins that grow with the difference in relevance are
        known from learning to rank (margin rescaling). Here the margin is linear in the difference.
    """

    supports_missing_labels = True

    def __init__(
        self,
        margin: float = 0.2,
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
        if not margin > 0:
            raise ValueError(f"`margin` must be above 0, got {margin}.")
        self.margin = margin
        self.similarity = Jaccard() if similarity is None else check_similarity(similarity)
        self.add_to_recordable_attributes(list_of_names=["margin"], is_stat=False)

    def get_default_reducer(self) -> AvgNonZeroReducer:
        """Return the default reducer: the mean over triplets with a loss above 0."""
        return AvgNonZeroReducer()

    @inherit_docs(MultiLabelBaseLoss.compute_loss)
    def compute_loss(self, inputs: LossInputs) -> LossDict:
        """Return a loss for each triplet."""
        similarity = inputs.similarity(self.similarity).to(inputs.dtype)
        if inputs.indices_tuple is None:
            triplets = _ordered_triplets(similarity, inputs.pairs())
        else:
            triplets = to_triplets(inputs.indices_tuple, len(inputs.embeddings))
            if inputs.has_missing_labels:
                triplets = comparable_triplets(triplets, similarity)
        anchors, positives, negatives = triplets
        if len(anchors) == 0:
            return zero_loss_dict(self)
        distances = inputs.distances(self.distance)
        violation = self.distance.margin(distances[anchors, positives], distances[anchors, negatives])
        gap = similarity[anchors, positives] - similarity[anchors, negatives]
        losses = torch.relu(violation + self.margin * gap)
        return {"loss": {"losses": losses, "indices": triplets, "reduction_type": "triplet"}}


def _ordered_triplets(similarity: Tensor, pairs: Tensor) -> IndicesTuple:
    """Return all triplets whose positive is more similar than the negative, without an `(N, M, M)` tensor."""
    found: list[Tensor] = []
    for anchor in range(len(similarity)):
        refs = pairs[anchor].nonzero().squeeze(1)
        row = similarity[anchor, refs]
        positives, negatives = torch.where(row[:, None] > row)
        found.append(torch.stack([torch.full_like(positives, anchor), refs[positives], refs[negatives]]))
    anchors, positives, negatives = torch.cat(found, dim=1)
    return anchors, positives, negatives
