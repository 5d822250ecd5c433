"""A wrapper of the miners of pytorch-metric-learning for label matrices."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mlmetric._docstrings import inherit_docs
from mlmetric._pml import MultiLabelBaseMiner, distance_matrix
from mlmetric.miners._miner_support import find_miner_adapter
from mlmetric.miners._pml_mining_rules import MinerInputs
from mlmetric.relations import LabelRelation
from mlmetric.similarity import SimilarityFunction


@inherit_docs(LabelRelation, validate_args="labels and similarities=>labels, similarities and distances")
class MultiLabelMiner(MultiLabelBaseMiner):
    """Wrapper that makes a miner of pytorch-metric-learning accept label matrices.

    A pair is positive if its similarity exceeds `positive_threshold`, negative if it does not exceed
    `negative_threshold`, and ignored in between: ignored pairs are not mined, and no pair is mined as both positive and
    negative. An all-zero row is never a positive, and is a negative of every row, unless its similarity can be above 0,
    as with `Hamming`. An anchor without positives gives no triplets. A batch in which nothing qualifies gives empty
    int64 tensors, for which the losses of pytorch-metric-learning return a differentiable zero. Rows with missing
    labels (NaN) are compared on the labels annotated in both rows; pairs without such a label are ignored.

    Margins, strategies and the distance of the wrapped miner are read in each call; margins and ranges refer to the
    values that the distance returns, inverted or not. The [table of miners](../guide/pml_miners.md) lists the supported
    miners with their mining rules, and the unsupported ones with the reason. A subclass of a miner is treated as its
    nearest base class in the table, and rejected if it overrides a method that the rule replaces.

    Args:
        miner: A miner of pytorch-metric-learning. Its `collect_stats` decides whether distances are recorded in the
            attributes below.

    Attributes:
        miner: The wrapped miner.
        relation: The [`LabelRelation`][mlmetric.relations.LabelRelation] of the thresholds.
        num_triplets: Number of triplets of the last call, for miners of triplets.
        num_pos_pairs: Number of positive pairs of the last call, for miners of pairs.
        num_neg_pairs: Number of negative pairs of the last call, for miners of pairs.
        pos_pair_dist: Mean distance of the mined positive pairs, if the `collect_stats` of `miner` is True.
        neg_pair_dist: Mean distance of the mined negative pairs, if the `collect_stats` of `miner` is True.

    Raises:
        TypeError: If `miner` is not an instance of a miner of pytorch-metric-learning or already accepts label
            matrices, or `similarity` is not callable.
        ValueError: If the miner or one of its settings does not support label sets, or `negative_threshold` exceeds
            `positive_threshold`.

    Examples:
        >>> import torch
        >>> from pytorch_metric_learning.distances import LpDistance
        >>> from pytorch_metric_learning.miners import BatchHardMiner
        >>> from mlmetric.miners import MultiLabelMiner
        >>> from mlmetric.similarity import Jaccard
        >>> embeddings = torch.tensor([[0.0], [3.0], [1.0], [2.0]])
        >>> labels = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1]])
        >>> batch_hard = BatchHardMiner(distance=LpDistance(normalize_embeddings=False))
        >>> miner = MultiLabelMiner(batch_hard, similarity=Jaccard(), positive_threshold=0.4, negative_threshold=0.0)
        >>> miner(embeddings, labels)  # the similarity of row 2 to rows 0 and 1 is 1/3: ignored
        (tensor([0, 1, 3]), tensor([1, 0, 2]), tensor([3, 3, 1]))

    Source:
        The definitions of pytorch-metric-learning: with one-hot labels the result is the same set of tuples. This class
        deviates for equal distances, and where pytorch-metric-learning fails: `TripletMarginMiner` treats equal
        distances as `MultiLabelSemiHardMiner` does; `AngularMiner` does not add 1e-6 to differences, so that three
        equal points have an angle of 0 and not 27 degrees; a call of `HDCMiner` does not reduce pairs that were set
        externally; `MultiSimilarityMiner` never mines a pair that is neither positive nor negative.
    """

    supports_missing_labels = True

    def __init__(
        self,
        miner: Any,
        *,
        similarity: SimilarityFunction | None = None,
        positive_threshold: float = 0.0,
        negative_threshold: float | None = None,
        validate_args: bool = True,
    ) -> None:
        adapter = find_miner_adapter(miner)
        relation = LabelRelation(
            similarity=similarity,
            positive_threshold=positive_threshold,
            negative_threshold=negative_threshold,
            validate_args=validate_args,
        )
        super().__init__(collect_stats=miner.collect_stats)
        del self.distance  # that of the wrapped miner is used
        self.miner = miner
        self.adapter = adapter
        self.relation = relation
        self.validate_args = validate_args
        self.add_to_recordable_attributes(list_of_names=["pos_pair_dist", "neg_pair_dist"], is_stat=True)

    @inherit_docs(MultiLabelBaseMiner.mine)
    def mine(
        self,
        embeddings: Tensor,
        labels: Tensor,
        ref_emb: Tensor,
        ref_labels: Tensor,
        *,
        ref_includes_query: bool = False,
    ) -> tuple[Tensor, ...]:
        """Mine pairs or triplets, in undefined order."""
        relation = self.relation._relate(labels, ref_labels)
        if ref_includes_query:
            relation.fill_diagonal_(0)
        if relation.numel() == 0:
            number = 4 if self.adapter.output == "pairs" else 3
            return tuple(torch.empty(0, dtype=torch.int64, device=embeddings.device) for _ in range(number))
        distance = distance_matrix(self.miner.distance, embeddings, ref_emb, validate_args=self.validate_args)
        sign = -1 if self.miner.distance.is_inverted else 1
        inputs = MinerInputs(embeddings, ref_emb, distance, sign, relation, ref_includes_query)
        mined = self.adapter.mine(self.miner, inputs)
        if self.collect_stats:
            self.pos_pair_dist = _mean(sign * distance[mined[0], mined[1]])
            self.neg_pair_dist = _mean(sign * distance[mined[-2] if len(mined) == 4 else mined[0], mined[-1]])
        return mined


def _mean(values: Tensor) -> float:
    return values.mean().item() if len(values) > 0 else 0.0
