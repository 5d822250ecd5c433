"""Supervised contrastive loss for label sets."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from pytorch_metric_learning.distances import CosineSimilarity
from torch import Tensor, nn

from mlmetric._docstrings import inherit_docs
from mlmetric._label_matrix import known_labels
from mlmetric._pml import BaseDistance
from mlmetric.losses._base_loss import LossDict, MultiLabelBaseLoss, element_loss, zero_loss_dict
from mlmetric.losses._indices_tuple import to_pairs
from mlmetric.losses._loss_inputs import LossInputs
from mlmetric.similarity import Jaccard, SimilarityFunction, check_similarity, exceeds, inner_product

Positives = Literal["similarity", "per_label", "any"]


@inherit_docs(MultiLabelBaseLoss)
class MultiLabelSupConLoss(MultiLabelBaseLoss):
    """Supervised contrastive loss for label sets: the cross entropy of a softmax over the references of an anchor.

    `log q(a, j)` is the logarithm of the softmax of `similarity / temperature` of the embeddings over all references
    but the anchor itself. `positives` selects the definition of a positive:

    - `"similarity"`: references whose label similarity S exceeds `positive_threshold`, weighted by S:
      `-1 / |P(a)| * sum_p S(a, p) log q(a, p)`, averaged over anchors.
    - `"per_label"`: a term for each label of each anchor, whose positives are the references with this label:
      `-1 / |P(a, l)| * sum_p log q(a, p)`, averaged over all terms.
    - `"any"`: references that share a label, with equal weights: `-1 / |P(a)| * sum_p log q(a, p)`, averaged over
      anchors.

    Lower is better. The loss of an anchor is 0 if the softmax of its only positive is 1. Anchors and labels without
    positives are omitted from the mean; a batch without positives gives a differentiable zero. An all-zero row has no
    positives and is a negative of every row, unless `empty_rows_match` is True or rows without a common label can have
    a similarity above 0, as with `Hamming`. In `"per_label"`, soft labels are weights of positives and terms. With an
    `indices_tuple`, its positive pairs are the positives regardless of their similarity, which is still their weight;
    `"per_label"` uses the positive pairs that share the label. The softmax is then computed over the pairs of the
    `indices_tuple` only.

    Rows with missing labels (NaN) are compared on the labels annotated in both rows. Pairs without such a label are
    neither positives nor in the softmax; for `"per_label"`, the softmax of a term is over the references for which the
    label of the term is annotated.

    Args:
        positives: Definition of a positive: `"similarity"`, `"per_label"` or `"any"`.
        similarity: Label similarity `(labels, ref_labels) -> (N, M)` for `positives="similarity"`, larger is more
            similar. None for [`Jaccard()`][mlmetric.similarity.Jaccard].
        positive_threshold: For `positives="similarity"`: a pair is positive if its similarity exceeds this value by
            more than a rounding error (see [`exceeds`][mlmetric.similarity.exceeds]). With the default similarity, 0
            means that the rows share a label.
        empty_rows_match: For `positives="similarity"`: whether two all-zero rows have similarity 1.
        temperature: Temperature of the softmax, above 0.
        distance: A distance of pytorch-metric-learning; distances that are not inverted are negated. None for
            `CosineSimilarity()`.

    Raises:
        TypeError: If `similarity` is not callable.
        ValueError: If `positives` is not one of the three definitions, the temperature is not above 0, or `reducer` is
            a `ClassWeightedReducer`.

    Examples:
        >>> import torch
        >>> from mlmetric.losses import MultiLabelSupConLoss
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
        >>> labels = torch.tensor([[1, 1], [1, 0], [0, 1]])
        >>> # Each positive pair has a Jaccard index of 1/2: the rows have losses of 0.4067, 0.3466 and 0.1566.
        >>> MultiLabelSupConLoss(temperature=1.0)(embeddings, labels)
        tensor(0.3033)

    Source:
        Khosla et al., "Supervised contrastive learning", NeurIPS 2020. `"per_label"` is MulSupCon: Zhang and Wu,
        "Multi-label supervised contrastive learning", AAAI 2024. `"similarity"` is the Jaccard-weighted MultiSupCon as
        proposed for pytorch-metric-learning, which divides by the number of positives, not by the sum of their weights.
        Deviation: MulSupCon stores past batches in a queue; for that, use
        [MultiLabelCrossBatchMemory][mlmetric.losses.MultiLabelCrossBatchMemory].
    """

    supports_missing_labels = True

    def __init__(
        self,
        positives: Positives = "similarity",
        *,
        similarity: SimilarityFunction | None = None,
        positive_threshold: float = 0.0,
        empty_rows_match: bool = False,
        temperature: float = 0.1,
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
        if positives not in get_args(Positives):
            raise ValueError(f"`positives` must be one of {', '.join(get_args(Positives))}, got {positives!r}.")
        if not temperature > 0:
            raise ValueError(f"`temperature` must be above 0, got {temperature}.")
        self.positives = positives
        self.similarity = Jaccard() if similarity is None else check_similarity(similarity)
        self.positive_threshold = positive_threshold
        self.empty_rows_match = empty_rows_match
        self.temperature = temperature
        self.add_to_recordable_attributes(list_of_names=["temperature"], is_stat=False)

    def get_default_distance(self) -> CosineSimilarity:
        """Return the default distance: the cosine."""
        return CosineSimilarity()

    @inherit_docs(MultiLabelBaseLoss.compute_loss)
    def compute_loss(self, inputs: LossInputs) -> LossDict:
        """Return a loss for each anchor, or for each label of each anchor."""
        distances = inputs.distances(self.distance)
        logits = (distances if self.distance.is_inverted else -distances) / self.temperature
        losses, anchors = (self._per_label if self.positives == "per_label" else self._per_anchor)(inputs, logits)
        return {"loss": element_loss(losses, anchors)} if len(losses) else zero_loss_dict(self)

    def _per_anchor(self, inputs: LossInputs, logits: Tensor) -> tuple[Tensor, Tensor]:
        weights, positive = self._weights(inputs)
        pairs = inputs.pairs()
        if inputs.has_missing_labels:
            comparable = ~weights.isnan()
            weights, positive, pairs = weights.masked_fill(~comparable, 0), positive & comparable, pairs & comparable
        log_softmax = _log_softmax(logits, pairs)
        num_positives = positive.sum(dim=1)
        anchors = num_positives.nonzero().squeeze(1)
        losses = -(weights * positive * log_softmax).sum(dim=1)[anchors] / num_positives[anchors]
        return losses, anchors

    def _weights(self, inputs: LossInputs) -> tuple[Tensor, Tensor]:
        """Return the weights of all pairs, NaN for incomparable ones, and which pairs are positive."""
        if self.positives == "any":
            shared = inner_product(inputs.labels.to(inputs.dtype), inputs.ref_labels.to(inputs.dtype))
            weights, positive = torch.ones_like(shared).masked_fill(shared.isnan(), torch.nan), shared > 0
        else:
            weights = inputs.similarity(self.similarity)
            if self.empty_rows_match:
                weights = weights.masked_fill(self._both_empty(inputs), 1)
            positive = exceeds(weights, self.positive_threshold)
        return weights.to(inputs.dtype), self._allowed(inputs, positive)

    def _both_empty(self, inputs: LossInputs) -> Tensor:
        """Return for which pairs both rows are all-zero on the labels annotated in both."""
        present, present_refs = inputs.labels > 0, inputs.ref_labels > 0
        if not inputs.has_missing_labels:
            return ~present.any(dim=1)[:, None] & ~present_refs.any(dim=1)
        known, known_refs = ((~rows.isnan()).to(inputs.dtype) for rows in (inputs.labels, inputs.ref_labels))
        num_present = present.to(inputs.dtype) @ known_refs.T + known @ present_refs.to(inputs.dtype).T
        return (num_present == 0) & (known @ known_refs.T > 0)

    def _per_label(self, inputs: LossInputs, logits: Tensor) -> tuple[Tensor, Tensor]:
        labels, ref_labels = inputs.labels.to(inputs.dtype), inputs.ref_labels.to(inputs.dtype)
        if inputs.has_missing_labels:
            (labels, _), (ref_labels, known_refs) = known_labels(labels), known_labels(ref_labels)
        allowed, pairs = self._allowed(inputs, inputs.pairs()), inputs.pairs()
        num_positives = allowed.to(inputs.dtype) @ ref_labels
        terms = torch.where((labels > 0) & (num_positives > 0))
        if inputs.has_missing_labels:
            anchors, label_indices = terms
            compared = pairs[anchors] & known_refs.T[label_indices]
            log_softmax = _log_softmax(logits[anchors], compared)
            sums = (log_softmax * allowed[anchors] * ref_labels.T[label_indices]).sum(dim=1)
        else:
            sums = ((_log_softmax(logits, pairs) * allowed) @ ref_labels)[terms]
        losses = -sums / num_positives[terms] * labels[terms]
        return losses, terms[0]

    def _allowed(self, inputs: LossInputs, positive: Tensor) -> Tensor:
        """Exclude self-pairs, or return the positive pairs of `indices_tuple`, whatever their similarity."""
        if inputs.indices_tuple is None:
            return positive & inputs.pairs()
        anchors, positives, *_ = to_pairs(inputs.indices_tuple)
        return torch.zeros_like(positive).index_put_((anchors, positives), positive.new_ones(()))


def _log_softmax(logits: Tensor, pairs: Tensor) -> Tensor:
    """Return the logarithm of the softmax over the compared pairs of each row, and 0 for the other pairs."""
    # The logarithm of an empty sum is infinite, and its gradient NaN.
    excluded = ~pairs & pairs.any(dim=1, keepdim=True)
    total = logits.masked_fill(excluded, -torch.inf).logsumexp(dim=1, keepdim=True)
    return (logits - total).masked_fill(~pairs, 0)
