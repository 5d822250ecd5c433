"""Triplet loss whose margin follows the labels."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_metric_learning.reducers import AvgNonZeroReducer
from torch import Tensor

from mlmetric.losses._base import LabelledBatch, LossDict, MultiLabelBaseLoss
from mlmetric.losses._tuples import Indices, to_triplets
from mlmetric.similarity import Jaccard, SimilarityFunction, check_similarity


class MultiLabelTripletMarginLoss(MultiLabelBaseLoss):
    """Triplet loss with a margin proportional to how much more similar the positive is than the negative.

    `max(0, d(a, p) - d(a, n) + margin * (S(a, p) - S(a, n)))` for each triplet: a negative that shares nearly as much
    as the positive need not be much farther, one that shares nothing must be. 0 is best: each triplet keeps its margin.
    Triplets come from a [miner][mlmetric.miners], whose order of the labels is kept only if it goes by the same
    similarity; a triplet whose negative is the more similar one has a margin below 0. Without a miner all triplets of
    the batch with `S(a, p) > S(a, n)` are taken: O(N^3) of them.

    For the one margin of the paper take
    [MultiLabelLoss][mlmetric.losses.MultiLabelLoss] around `TripletMarginLoss` of pytorch-metric-learning.

    Args:
        margin: Margin of a triplet whose similarities differ by 1, in the units of `distance`, above 0.
        similarity: Label similarity; Jaccard by default.
        validate_args: Whether each call looks at the values of labels and similarities.
        **settings: `distance` (by default Euclidean between unit vectors, pytorch-metric-learning's default),
            `reducer` (by default the mean over triplets whose loss is above 0), `collect_stats`.

    Raises:
        TypeError: If `similarity` is not callable.
        ValueError: If the margin is not above 0.

    Examples:
        >>> from pytorch_metric_learning.distances import LpDistance
        >>> loss = MultiLabelTripletMarginLoss(margin=1.5, distance=LpDistance(normalize_embeddings=False))
        >>> embeddings = torch.tensor([[0.0], [1.0], [2.0]])
        >>> labels = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 1, 1]])  # similarities 1/2, 1/3, 0
        >>> # (0, 1, 2) keeps its margin of 1/4. (2, 0, 1) is 2 - 1 apart the wrong way, and 1/2 short of its margin.
        >>> loss(embeddings, labels)
        tensor(1.1250)

    Source:
        The triplet loss of Schroff et al., "FaceNet", CVPR 2015; margins that grow with the difference in relevance are
        known from ranking (margin rescaling). Here the margin is linear in the gap.
    """

    def __init__(
        self,
        margin: float = 0.2,
        *,
        similarity: SimilarityFunction | None = None,
        validate_args: bool = True,
        **settings: Any,
    ) -> None:
        super().__init__(validate_args=validate_args, **settings)
        if not margin > 0:
            raise ValueError(f"`margin` must be above 0, got {margin}.")
        self.margin = margin
        self.similarity = Jaccard() if similarity is None else check_similarity(similarity)
        self.add_to_recordable_attributes(list_of_names=["margin"], is_stat=False)

    def get_default_reducer(self) -> Any:
        """Take the mean over triplets whose loss is above 0."""
        return AvgNonZeroReducer()

    def compute_loss(self, batch: LabelledBatch) -> LossDict:
        """Return a loss for each triplet."""
        similarity = batch.similarity(self.similarity).to(batch.dtype)
        if batch.indices is None:
            indices = _ordered_triplets(similarity, batch.pairs())
        else:
            indices = to_triplets(batch.indices, len(batch.embeddings))
        anchors, positives, negatives = indices
        if len(anchors) == 0:
            return self.no_loss()
        distances = batch.distances(self.distance)
        violation = self.distance.margin(distances[anchors, positives], distances[anchors, negatives])
        gap = similarity[anchors, positives] - similarity[anchors, negatives]
        losses = torch.relu(violation + self.margin * gap)
        return {"loss": {"losses": losses, "indices": indices, "reduction_type": "triplet"}}


def _ordered_triplets(similarity: Tensor, pairs: Tensor) -> Indices:
    """Return all triplets whose positive is the more similar one, anchor by anchor, so that no cube is held."""
    found: list[Tensor] = []
    for anchor in range(len(similarity)):
        refs = pairs[anchor].nonzero().squeeze(1)
        row = similarity[anchor, refs]
        positives, negatives = torch.where(row[:, None] > row)
        found.append(torch.stack([torch.full_like(positives, anchor), refs[positives], refs[negatives]]))
    anchors, positives, negatives = torch.cat(found, dim=1)
    return anchors, positives, negatives
