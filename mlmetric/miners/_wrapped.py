"""The wrapper that gives miners of pytorch-metric-learning label matrices."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mlmetric._pml import MultiLabelBaseMiner, ordered_distance
from mlmetric.miners._readings import Batch
from mlmetric.miners._registry import find_reading
from mlmetric.relations import LabelRelation
from mlmetric.similarity import SimilarityFunction


class MultiLabelMiner(MultiLabelBaseMiner):
    """Give a miner of pytorch-metric-learning label matrices, which it rejects by itself.

    A pair is positive if its similarity exceeds `positive_threshold`, negative if it does not exceed
    `negative_threshold`, and ignored in between: no ignored pair is mined, and none is mined as both. An all-zero
    row is nobody's positive under the similarities of sets, and a negative of all. An anchor without a positive
    gives no triplet; a batch in which nothing qualifies gives empty int64 tensors, and the losses of
    pytorch-metric-learning make of them a differentiable zero.

    Margins, strategies and the distance are those of the wrapped miner at the time of the call; margins and ranges
    are in the distance's own values, inverted or not. The [table of miners](../pml_miners.md) says how each class is
    read, and which are refused and why. A subclass of your own is read as its nearest ancestor there, unless it
    overrides how that mines.

    Args:
        miner: An instance of a miner of pytorch-metric-learning; it stays reachable as the attribute `miner`, whose
            `collect_stats` decides whether each call records statistics, as attributes of the wrapper:
            `num_triplets`, or `num_pos_pairs` and `num_neg_pairs`, and `pos_pair_dist` and `neg_pair_dist` (means
            over what was mined, in the distance's own values).
        similarity: Label similarity `(labels, ref_labels) -> (N, M)`, larger is more alike: one of
            [mlmetric.similarity][], a function, an `nn.Module`. The number of shared labels by default.
        positive_threshold: A positive pair is more similar than this, by more than rounding: see
            [`exceeds`][mlmetric.similarity.exceeds]. 0 means "shares something".
        negative_threshold: A negative pair is not more similar than this, at most `positive_threshold`; None for
            `positive_threshold` itself, which leaves nothing to ignore.
        validate_args: Whether each call looks at the values of labels, similarities and distances. On CUDA that
            waits for the device.

    Raises:
        TypeError: If `miner` is no instance of a miner of pytorch-metric-learning or takes label matrices already,
            or `similarity` is not callable.
        ValueError: If the miner, or a setting of it, has no multi-label reading, or the thresholds are out of order.

    Examples:
        >>> from mlmetric.similarity import Jaccard
        >>> from pytorch_metric_learning.distances import LpDistance
        >>> from pytorch_metric_learning.miners import BatchHardMiner
        >>> embeddings = torch.tensor([[0.0], [3.0], [1.0], [2.0]])
        >>> labels = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1]])
        >>> hardest = BatchHardMiner(distance=LpDistance(normalize_embeddings=False))
        >>> miner = MultiLabelMiner(hardest, Jaccard(), positive_threshold=0.4, negative_threshold=0.0)
        >>> miner(embeddings, labels)  # item 2 shares a third with items 0 and 1: ignored
        (tensor([0, 1, 3]), tensor([1, 0, 2]), tensor([3, 3, 1]))

    Source:
        The definitions of pytorch-metric-learning: with one-hot labels the mined tuples are its own as a set.
        Deviations, at exact ties and where it fails: `TripletMarginMiner` decides ties as `MultiLabelSemiHardMiner`
        does; `AngularMiner` adds no 1e-6 to differences, so that three equal points have angle 0 and not 27 degrees;
        `HDCMiner` does not shrink pairs that were set externally from call to call; `MultiSimilarityMiner` never
        mines a pair that is neither positive nor negative.
    """

    def __init__(
        self,
        miner: Any,
        similarity: SimilarityFunction | None = None,
        *,
        positive_threshold: float = 0.0,
        negative_threshold: float | None = None,
        validate_args: bool = True,
    ) -> None:
        reading = find_reading(miner)
        relation = LabelRelation(
            similarity,
            positive_threshold=positive_threshold,
            negative_threshold=negative_threshold,
            validate_args=validate_args,
        )
        super().__init__(collect_stats=miner.collect_stats)
        del self.distance  # that of the wrapped miner is in force
        self.miner = miner
        self.reading = reading
        self.relation = relation
        self.validate_args = validate_args
        self.add_to_recordable_attributes(list_of_names=["pos_pair_dist", "neg_pair_dist"], is_stat=True)

    def mine(
        self, embeddings: Tensor, labels: Tensor, ref_emb: Tensor, ref_labels: Tensor, *, batch_first: bool = False
    ) -> tuple[Tensor, ...]:
        """Mine a batch whose arguments are checked and on one device; the order of the tuples is not defined."""
        relation = self.relation(labels, ref_labels)
        if batch_first:
            relation.fill_diagonal_(0)
        if relation.numel() == 0:
            number = 4 if self.reading.gives == "pairs" else 3
            return tuple(torch.empty(0, dtype=torch.int64, device=embeddings.device) for _ in range(number))
        distance = ordered_distance(self.miner.distance, embeddings, ref_emb, validate_args=self.validate_args)
        sign = -1 if self.miner.distance.is_inverted else 1
        batch = Batch(embeddings, ref_emb, distance, sign, relation, batch_first)
        mined = self.reading.mine(self.miner, batch)
        if self.collect_stats:
            self.pos_pair_dist = _mean(sign * distance[mined[0], mined[1]])
            self.neg_pair_dist = _mean(sign * distance[mined[-2] if len(mined) == 4 else mined[0], mined[-1]])
        return mined


def _mean(values: Tensor) -> float:
    return values.mean().item() if len(values) > 0 else 0.0
