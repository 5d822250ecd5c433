"""Supervised contrastive loss on label sets."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from pytorch_metric_learning.distances import CosineSimilarity
from torch import Tensor

from mlmetric.losses._base import LabelledBatch, LossDict, MultiLabelBaseLoss
from mlmetric.losses._relational import element_loss
from mlmetric.losses._tuples import to_pairs
from mlmetric.similarity import Jaccard, SimilarityFunction, check_similarity, exceeds

Positives = Literal["similarity", "per_label", "any"]


class MultiLabelSupConLoss(MultiLabelBaseLoss):
    """Supervised contrastive loss for several labels: raise the share of an anchor's positives in a softmax.

    With `log q(a, j)` the logarithm of the softmax of `similarity / temperature` over all refs but the anchor itself,
    one of three readings of "positive":

    - `"similarity"`: each ref more similar in its labels than `positive_threshold`, weighed by that similarity:
      `-1 / |P(a)| * sum_p S(a, p) log q(a, p)`, mean over anchors.
    - `"per_label"`: a term for each label of each anchor, whose positives are the refs that carry this label:
      `-1 / |P(a, l)| * sum_p log q(a, p)`, mean over all terms.
    - `"any"`: each ref that shares a label, all alike: `-1 / |P(a)| * sum_p log q(a, p)`, mean over anchors.

    The lower the better; an anchor reaches 0 where all of the softmax is on its only positive. Anchors and labels
    without a positive are left out of the mean; a batch without any gives a zero that can be differentiated. An
    all-zero row is no anchor, and a negative of all, but for `empty_alike`. Soft labels weigh positives and terms by
    their shares in `"per_label"`. An index tuple says which pairs are positive, whatever their similarity, which weighs
    them still, and which other refs the softmax is over; `"per_label"` takes those positives that carry the label.

    Args:
        positives: The reading.
        similarity: Label similarity of the reading `"similarity"`; Jaccard by default.
        positive_threshold: Of the reading `"similarity"`. 0 means "shares something".
        empty_alike: Whether two all-zero rows are of similarity 1 in the reading `"similarity"`.
        temperature: Of the softmax, above 0.
        validate_args: Whether each call looks at the values of labels and similarities.
        **settings: `distance` (by default the cosine; an actual distance counts negative), `reducer`, `collect_stats`.

    Raises:
        TypeError: If `similarity` is not callable.
        ValueError: If `positives` is none of the readings or the temperature is not above 0.

    Examples:
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
        >>> labels = torch.tensor([[1, 1], [1, 0], [0, 1]])
        >>> # Each positive pair has a Jaccard similarity of 1/2: the rows have losses of 0.4067, 0.3466 and 0.1566.
        >>> MultiLabelSupConLoss(temperature=1.0)(embeddings, labels)
        tensor(0.3033)

    Source:
        Khosla et al., "Supervised contrastive learning", NeurIPS 2020. `"per_label"` is MulSupCon: Zhang and Wu,
        "Multi-label supervised contrastive learning", AAAI 2024. `"similarity"` is the Jaccard-weighted MultiSupCon as
        proposed for pytorch-metric-learning, which divides by the number of positives, not by their weights. Deviation:
        MulSupCon remembers past batches in a queue; here refs are the batch, or what
        [MultiLabelCrossBatchMemory][mlmetric.losses.MultiLabelCrossBatchMemory] hands over.
    """

    def __init__(
        self,
        positives: Positives = "similarity",
        *,
        similarity: SimilarityFunction | None = None,
        positive_threshold: float = 0.0,
        empty_alike: bool = False,
        temperature: float = 0.1,
        validate_args: bool = True,
        **settings: Any,
    ) -> None:
        super().__init__(validate_args=validate_args, **settings)
        if positives not in get_args(Positives):
            raise ValueError(f"`positives` must be one of {', '.join(get_args(Positives))}, got {positives!r}.")
        if not temperature > 0:
            raise ValueError(f"`temperature` must be above 0, got {temperature}.")
        self.positives = positives
        self.similarity = Jaccard() if similarity is None else check_similarity(similarity)
        self.positive_threshold = positive_threshold
        self.empty_alike = empty_alike
        self.temperature = temperature
        self.add_to_recordable_attributes(list_of_names=["temperature"], is_stat=False)

    def get_default_distance(self) -> CosineSimilarity:
        """Compare embeddings by the cosine."""
        return CosineSimilarity()

    def compute_loss(self, batch: LabelledBatch) -> LossDict:
        """Return a loss for each anchor, or for each label of each anchor."""
        log_softmax = self._log_softmax(batch)
        if self.positives == "per_label":
            losses, anchors = self._per_label(batch, log_softmax)
        else:
            losses, anchors = self._per_anchor(batch, log_softmax)
        return {"loss": element_loss(losses, anchors)} if len(losses) else self.no_loss()

    def _log_softmax(self, batch: LabelledBatch) -> Tensor:
        distances = batch.distances(self.distance)
        logits = (distances if self.distance.is_inverted else -distances) / self.temperature
        pairs = batch.pairs()
        # The sum over no pair at all would be an infinity, whose gradient is NaN.
        left_out = ~pairs & pairs.any(dim=1, keepdim=True)
        total = logits.masked_fill(left_out, -torch.inf).logsumexp(dim=1, keepdim=True)
        return (logits - total).masked_fill(~pairs, 0)

    def _per_anchor(self, batch: LabelledBatch, log_softmax: Tensor) -> tuple[Tensor, Tensor]:
        weights, positive = self._weights(batch)
        num_positives = positive.sum(dim=1)
        anchors = num_positives.nonzero().squeeze(1)
        losses = -(weights * positive * log_softmax).sum(dim=1)[anchors] / num_positives[anchors]
        return losses, anchors

    def _weights(self, batch: LabelledBatch) -> tuple[Tensor, Tensor]:
        """Return what pairs weigh, and which are positive."""
        if self.positives == "any":
            shared = batch.labels.to(batch.dtype) @ batch.ref_labels.to(batch.dtype).T
            weights, positive = torch.ones_like(shared), shared > 0
        else:
            weights = batch.similarity(self.similarity)
            if self.empty_alike:
                empty, empty_refs = (~(rows > 0).any(dim=1) for rows in (batch.labels, batch.ref_labels))
                weights = weights.masked_fill(empty[:, None] & empty_refs, 1)
            positive = exceeds(weights, self.positive_threshold)
        return weights.to(batch.dtype), self._allowed(batch, positive)

    def _per_label(self, batch: LabelledBatch, log_softmax: Tensor) -> tuple[Tensor, Tensor]:
        carries, ref_carries = batch.labels.to(batch.dtype), batch.ref_labels.to(batch.dtype)
        allowed = self._allowed(batch, batch.pairs())
        num_positives = allowed.to(batch.dtype) @ ref_carries
        sums = (log_softmax * allowed) @ ref_carries
        anchors, labels = torch.where((carries > 0) & (num_positives > 0))
        losses = -sums[anchors, labels] / num_positives[anchors, labels] * carries[anchors, labels]
        return losses, anchors

    def _allowed(self, batch: LabelledBatch, positive: Tensor) -> Tensor:
        """Leave out the pair of an item with itself; of a tuple, take its positive pairs whatever their similarity."""
        if batch.indices is None:
            return positive & batch.pairs()
        anchors, positives, *_ = to_pairs(batch.indices)
        return torch.zeros_like(positive).index_put_((anchors, positives), positive.new_ones(()))
