"""Log-ratio loss: distances of embeddings in the proportions of the distances of labels."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_metric_learning.distances import LpDistance
from torch import Tensor

from mlmetric.losses._base import LabelledBatch, LossDict, MultiLabelBaseLoss
from mlmetric.losses._relational import element_loss
from mlmetric.similarity import Jaccard, SimilarityFunction, check_similarity


class _SquaredEuclidean(LpDistance):  # type: ignore[misc, unused-ignore]
    """By differences: the matrix products of `cdist` leave more rounding between equal rows than a logarithm bears."""

    def compute_mat(self, query_emb: Tensor, ref_emb: Tensor) -> Tensor:
        return torch.cdist(query_emb, ref_emb, compute_mode="donot_use_mm_for_euclid_dist")


class LogRatioLoss(MultiLabelBaseLoss):
    """Make the ratio of two distances from an anchor that of their label distances, on a logarithmic scale.

    For an anchor a and refs i, j: `(log(D(a, i) / D(a, j)) - log(d(a, i) / d(a, j)))^2`, D between embeddings, d
    between labels: 1 - similarity. Mean over all pairs i, j of an anchor, then over anchors; of triplets the mean over
    these. 0 is best: distances, by default squared ones, are proportional to label distances, whatever the scale. No
    pair is positive or negative, so that no miner is needed, and the sum over pairs is taken in closed form: memory and
    time are those of the distances, O(N*M).

    Label sets that are equal would ask for a distance of zero, whose logarithm is -infinity: label distances are at
    least `floor`. An all-zero row is far from all others under Jaccard, as from another all-zero row. An anchor with
    fewer than two refs has no ratio and is left out.

    Args:
        similarity: Label similarity, at most 1, above which label distances are `floor`; Jaccard by default.
        floor: The least label distance, above 0. The smaller, the nearer equal label sets must be.
        epsilon: Added to each distance of embeddings, above 0: keeps the logarithm and its gradient finite.
        validate_args: Whether each call looks at the values of labels and similarities.
        **settings: `distance` (by default the squared Euclidean on embeddings as they are, the paper's), `reducer`,
            `collect_stats`.

    Raises:
        TypeError: If `similarity` is not callable.
        ValueError: If `floor` or `epsilon` is not above 0, or `distance` is a similarity.

    Examples:
        >>> labels = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 1, 1]])  # label distances 1/3, 1, 3/4
        >>> LogRatioLoss()(torch.tensor([[0.0], [1.0], [-2.0]]), labels)
        tensor(1.0705)

    Source:
        Kim et al., "Deep metric learning beyond binary supervision", CVPR 2019, equation 5, with all pairs of a batch
        (its dense triplet mining) for each anchor, the mean for their sum. Deviations: a label similarity in place of
        a distance of poses or captions, and the floor.
    """

    def __init__(
        self,
        similarity: SimilarityFunction | None = None,
        *,
        floor: float = 0.1,
        epsilon: float = 1e-6,
        validate_args: bool = True,
        **settings: Any,
    ) -> None:
        super().__init__(validate_args=validate_args, **settings)
        self.similarity = Jaccard() if similarity is None else check_similarity(similarity)
        for name, value in (("floor", floor), ("epsilon", epsilon)):
            if not value > 0:
                raise ValueError(f"`{name}` must be above 0, got {value}.")
        if self.distance.is_inverted:
            raise ValueError(
                f"`distance` must be an actual distance, smaller for what is nearer, "
                f"got {type(self.distance).__name__}."
            )
        self.floor = floor
        self.epsilon = epsilon
        self.add_to_recordable_attributes(list_of_names=["floor"], is_stat=False)

    def get_default_distance(self) -> LpDistance:
        """Compare embeddings by the squared Euclidean distance, at the length that they have."""
        return _SquaredEuclidean(normalize_embeddings=False, p=2, power=2)

    def compute_loss(self, batch: LabelledBatch) -> LossDict:
        """Return a loss for each anchor; with triplets for each of them."""
        label_distances = (1 - batch.similarity(self.similarity).to(batch.dtype)).clamp(min=self.floor)
        deviations = (batch.distances(self.distance) + self.epsilon).log() - label_distances.log()
        if batch.indices is not None and len(batch.indices) == 3:
            anchors, positives, negatives = batch.indices
            losses = (deviations[anchors, positives] - deviations[anchors, negatives]).square()
            if len(losses) == 0:
                return self.no_loss()
            return {"loss": {"losses": losses, "indices": batch.indices, "reduction_type": "triplet"}}
        losses, anchors = _mean_squared_difference(deviations, batch.pairs())
        return {"loss": element_loss(losses, anchors)} if len(losses) else self.no_loss()


def _mean_squared_difference(values: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """Take the mean of (v_i - v_j)^2 over pairs i != j of the kept entries of each row: twice their variance."""
    count = keep.sum(dim=1)
    rows = (count > 1).nonzero().squeeze(1)
    values, keep, count = values[rows], keep[rows], count[rows]
    mean = torch.where(keep, values, 0).sum(dim=1) / count
    squares = torch.where(keep, values - mean[:, None], 0).square().sum(dim=1)
    return 2 * squares / (count - 1), rows
