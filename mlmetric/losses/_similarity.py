"""Regression of the label similarity by the cosine of embeddings."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_metric_learning.distances import CosineSimilarity

from mlmetric.losses._base import LabelledBatch, LossDict, MultiLabelBaseLoss
from mlmetric.losses._relational import element_loss
from mlmetric.similarity import Jaccard, SimilarityFunction, check_similarity


class SimilarityRegressionLoss(MultiLabelBaseLoss):
    """Make the cosine of two embeddings the similarity of their labels: mean squared difference over all pairs.

    `(cos(a, j) - S(a, j))^2`, mean over the refs of an anchor, then over anchors. 0 is best. Of two items whose labels
    are uncertain the best cosine is the expected similarity, so that neighbours are ranked by the similarity that is to
    be expected: what a graded retrieval metric asks for, without a miner, a margin or a temperature. An all-zero row
    has similarity 0 to all under Jaccard and is made orthogonal to them.

    Args:
        similarity: Label similarity, in [0, 1]; Jaccard by default.
        validate_args: Whether each call looks at the values of labels and similarities.
        **settings: `distance` (by default the cosine), `reducer`, `collect_stats`.

    Raises:
        TypeError: If `similarity` is not callable.
        ValueError: If `distance` is an actual distance.

    Examples:
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
        >>> labels = torch.tensor([[1, 1], [1, 0], [0, 1]])  # similarities 1/2, 1/2, 0; cosines 0, 1, 0
        >>> SimilarityRegressionLoss()(embeddings, labels)
        tensor(0.1667)

    Source:
        Regression of a similarity by inner products is that of Liu et al., "Supervised hashing with kernels", CVPR
        2012, with codes relaxed to unit vectors and the similarity graded.
    """

    def __init__(
        self, similarity: SimilarityFunction | None = None, *, validate_args: bool = True, **settings: Any
    ) -> None:
        super().__init__(validate_args=validate_args, **settings)
        self.similarity = Jaccard() if similarity is None else check_similarity(similarity)
        if not self.distance.is_inverted:
            raise ValueError(
                f"`distance` must be a similarity, larger for what is nearer, got {type(self.distance).__name__}."
            )

    def get_default_distance(self) -> CosineSimilarity:
        """Compare embeddings by the cosine."""
        return CosineSimilarity()

    def compute_loss(self, batch: LabelledBatch) -> LossDict:
        """Return a loss for each anchor that is compared with a ref."""
        pairs = batch.pairs()
        counts = pairs.sum(dim=1)
        anchors = counts.nonzero().squeeze(1)
        if len(anchors) == 0:
            return self.no_loss()
        squares = (batch.distances(self.distance) - batch.similarity(self.similarity).to(batch.dtype)).square()
        losses = torch.where(pairs, squares, 0).sum(dim=1)[anchors] / counts[anchors]
        return {"loss": element_loss(losses, anchors)}
