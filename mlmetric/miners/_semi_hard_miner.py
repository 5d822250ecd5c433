"""The semi-hard multi-label triplet miner."""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from mlmetric._docstrings import inherit_docs
from mlmetric._pml import BaseDistance, MultiLabelBaseMiner, distance_matrix
from mlmetric.miners._triplet_selection import TripletKind, TripletRule, Triplets, select_triplets
from mlmetric.relations import LabelRelation
from mlmetric.similarity import InnerProduct, SimilarityFunction, check_similarity, compare_labels, exceeds

_TRIPLETS_PER_CHUNK = 2**20


@inherit_docs(LabelRelation, validate_args="labels and similarities=>labels, similarities and distances")
class MultiLabelSemiHardMiner(MultiLabelBaseMiner):
    """Miner of triplets by graded label similarity: the negative is less similar to the anchor than the positive.

    The positives of an anchor are the references with `similarity > positive_threshold`. The negatives of an anchor and
    a positive are the references strictly less similar to the anchor than that positive. They are *partial* if
    `similarity > partial_threshold`, so that they share labels with the anchor, and *disjoint* otherwise. The default
    `type_of_triplets="hard"` selects negatives that are nearer to the anchor than the positive.

    An all-zero row is never a positive, unless its similarity can be above 0, as with `Hamming`; it can be a disjoint
    negative. An anchor without positives gives no triplets. A batch without triplets gives three empty int64 tensors,
    for which the losses of pytorch-metric-learning return a differentiable zero. A pair can be positive in one triplet
    and negative in another: use a loss that supports this, such as `TripletMarginLoss`, `MarginLoss` or
    `ContrastiveLoss`, as in `loss(embeddings, indices_tuple=triplets)`. Rows with missing labels (NaN) are compared on
    the labels annotated in both rows; a pair without such a label is neither positive nor negative.

    Memory use is proportional to the size of the `(N, M)` distances and similarities plus the number of returned
    triplets. The running time is a small multiple of the time to compute and sort the distances, plus time proportional
    to the number of returned triplets. Triplets that the caps (the `max_...` parameters) exclude take no memory, but
    they take time. All positives are visited unless `max_triplets_per_anchor` is reached, and each one is compared with
    up to M references, except for caps of up to 8 random negatives in large batches.

    Args:
        positive_threshold: A reference is a positive if its similarity to the anchor exceeds this value by more than a
            rounding error (see [`exceeds`][mlmetric.similarity.exceeds]). With the default similarity, 0 means that
            they share a label.
        partial_threshold: A negative is partial if its similarity to the anchor exceeds this value, otherwise disjoint.
        margin: Margin of `type_of_triplets`, in units of `distance`, >= 0. Not used by `"hard"`.
        type_of_triplets: Condition on the distances of the anchor to the positive, d_ap, and to the negative, d_an.
            `"hard"`: d_an < d_ap, as in the paper; `"semihard"`: d_ap <= d_an < d_ap + margin, as in FaceNet and
            pytorch-metric-learning; `"all"`: d_an < d_ap + margin, both of these; `"easy"`: d_an >= d_ap + margin.
        max_partial_per_positive: Maximum number of partial negatives for each positive; None for no limit.
        max_disjoint_per_positive: Maximum number of disjoint negatives for each positive; None for no limit.
        max_triplets_per_anchor: Maximum number of triplets for each anchor; None for no limit. Positives are used in
            `positive_order`, with partial negatives before disjoint ones.
        positive_order: Order in which `max_triplets_per_anchor` uses the positives: `"farthest"` first, as in the
            paper, or `"random"`.
        disjoint_negatives: Which disjoint negatives qualify: `"violating"`, those that satisfy the condition of
            `type_of_triplets`, as in the reference implementation, or `"any"`. The paper does not specify this.
        negative_order: Which negatives the caps keep: a `"random"` sample, or the `"hardest"` ones, which are nearest
            to the anchor.
        distance: A distance of pytorch-metric-learning, which can be inverted. None for the default of
            pytorch-metric-learning, the Euclidean distance of normalised embeddings.
        generator: Random generator. None for torch's global generator of the device of the embeddings, which
            `torch.manual_seed` seeds.
        collect_stats: Whether to record statistics of each call in the attributes below. None for the global setting of
            pytorch-metric-learning.

    Attributes:
        num_triplets: Number of triplets of the last call.
        num_anchors_without_triplets: Number of anchors without triplets. This attribute and the following ones exist
            only if `collect_stats` is True.
        partial_share: Share of the triplets whose negative is partial.
        disjoint_share: Share of the triplets whose negative is disjoint.
        pos_pair_dist: Mean distance of anchor and positive, over triplets.
        neg_pair_dist: Mean distance of anchor and negative, over triplets.
        similarity_gap: Mean, over triplets, of the similarity of anchor and positive minus the similarity of anchor and
            negative.

    Raises:
        TypeError: If `similarity` is not callable or is a class, `distance` is not a distance of
            pytorch-metric-learning, or `generator` is not a `torch.Generator`.
        ValueError: If an option is not one of the values above, a cap is not an integer or is below 0
            (`max_triplets_per_anchor`: below 1), the margin is below 0, or a threshold is NaN.

    Examples:
        >>> import torch
        >>> from pytorch_metric_learning.distances import LpDistance
        >>> from mlmetric.miners import MultiLabelSemiHardMiner
        >>> from mlmetric.similarity import Jaccard
        >>> embeddings = torch.tensor([[0.0, 0.0], [3.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
        >>> labels = torch.tensor([[1, 1, 0], [1, 1, 0], [1, 0, 1], [0, 0, 1]])
        >>> miner = MultiLabelSemiHardMiner(similarity=Jaccard(), distance=LpDistance(normalize_embeddings=False))
        >>> anchors, positives, negatives = miner(embeddings, labels)
        >>> list(zip(anchors.tolist(), positives.tolist(), negatives.tolist()))
        [(0, 1, 2), (0, 1, 3), (1, 0, 2), (2, 3, 0), (2, 3, 1), (3, 2, 0)]

    Source:
        "From image to emotion: multi-label image classification based on triplet loss" (2021), sections 4.2-4.3,
        which builds on abarthakur/multilabel-deep-metric and on Wang et al., "Learning fine-grained image
        similarity with deep ranking", CVPR 2014. Deviations: the caps are exact (the reference implementation exceeds
        them), and disjoint negatives must also be less similar than the positive, which matters if `partial_threshold`
        exceeds `positive_threshold`. For equal distances, or a difference of exactly the margin, the conditions above
        apply, which differ from those of pytorch-metric-learning: equal distances are not `"hard"`.
    """

    supports_missing_labels = True

    def __init__(
        self,
        *,
        similarity: SimilarityFunction | None = None,
        positive_threshold: float = 0.0,
        partial_threshold: float = 0.0,
        margin: float = 0.2,
        type_of_triplets: TripletKind = "hard",
        max_partial_per_positive: int | None = None,
        max_disjoint_per_positive: int | None = None,
        max_triplets_per_anchor: int | None = None,
        positive_order: Literal["farthest", "random"] = "farthest",
        disjoint_negatives: Literal["violating", "any"] = "violating",
        negative_order: Literal["random", "hardest"] = "random",
        distance: BaseDistance | None = None,
        generator: torch.Generator | None = None,
        collect_stats: bool | None = None,
        validate_args: bool = True,
    ) -> None:
        similarity = InnerProduct() if similarity is None else check_similarity(similarity)
        if distance is not None and not isinstance(distance, BaseDistance):
            raise TypeError(
                f"`distance` must be a distance of pytorch_metric_learning.distances, got {type(distance).__name__}."
            )
        _check_choice("type_of_triplets", type_of_triplets, get_args(TripletKind))
        _check_choice("positive_order", positive_order, ("farthest", "random"))
        _check_choice("disjoint_negatives", disjoint_negatives, ("violating", "any"))
        _check_choice("negative_order", negative_order, ("random", "hardest"))
        if not isinstance(margin, int | float) or not margin >= 0:
            raise ValueError(f"`margin` must be a number >= 0, got {margin!r}.")
        for name, threshold in (("positive", positive_threshold), ("partial", partial_threshold)):
            if not isinstance(threshold, int | float) or math.isnan(threshold):
                raise ValueError(f"`{name}_threshold` must be a number, got {threshold!r}.")
        if generator is not None and not isinstance(generator, torch.Generator):
            raise TypeError(f"`generator` must be a torch.Generator, got {type(generator).__name__}.")
        max_partial_per_positive = _check_cap("max_partial_per_positive", max_partial_per_positive, least=0)
        max_disjoint_per_positive = _check_cap("max_disjoint_per_positive", max_disjoint_per_positive, least=0)
        max_triplets_per_anchor = _check_cap("max_triplets_per_anchor", max_triplets_per_anchor, least=1)

        super().__init__(distance=distance, collect_stats=collect_stats)
        self.similarity = similarity
        self.positive_threshold = positive_threshold
        self.partial_threshold = partial_threshold
        self.margin = margin
        self.type_of_triplets: TripletKind = type_of_triplets
        self.max_partial_per_positive = max_partial_per_positive
        self.max_disjoint_per_positive = max_disjoint_per_positive
        self.max_triplets_per_anchor = max_triplets_per_anchor
        self.positive_order: Literal["farthest", "random"] = positive_order
        self.disjoint_negatives: Literal["violating", "any"] = disjoint_negatives
        self.negative_order: Literal["random", "hardest"] = negative_order
        self.generator = generator
        self.validate_args = validate_args
        self.add_to_recordable_attributes(
            list_of_names=["margin", "positive_threshold", "partial_threshold"], is_stat=False
        )
        self.add_to_recordable_attributes(
            list_of_names=[
                "num_anchors_without_triplets",
                "partial_share",
                "disjoint_share",
                "pos_pair_dist",
                "neg_pair_dist",
                "similarity_gap",
            ],
            is_stat=True,
        )

    @inherit_docs(MultiLabelBaseMiner.mine)
    def mine(
        self,
        embeddings: Tensor,
        labels: Tensor,
        ref_emb: Tensor,
        ref_labels: Tensor,
        *,
        ref_includes_query: bool = False,
    ) -> Triplets:
        """Mine triplets, sorted by anchor, then positives in `positive_order`, then partial before disjoint."""
        similarity = compare_labels(self.similarity, labels, ref_labels, validate_args=self.validate_args)
        distance = distance_matrix(self.distance, embeddings, ref_emb, validate_args=self.validate_args)
        triplets = select_triplets(
            distance, similarity, self._rule(), ref_includes_query=ref_includes_query, generator=self.generator
        )
        if self.collect_stats:
            self._set_stats(distance, similarity, triplets)
        return triplets

    def _rule(self) -> TripletRule:
        return TripletRule(
            positive_threshold=self.positive_threshold,
            partial_threshold=self.partial_threshold,
            type_of_triplets=self.type_of_triplets,
            margin=self.margin,
            max_partial_per_positive=self.max_partial_per_positive,
            max_disjoint_per_positive=self.max_disjoint_per_positive,
            max_triplets_per_anchor=self.max_triplets_per_anchor,
            positive_order=self.positive_order,
            disjoint_negatives=self.disjoint_negatives,
            negative_order=self.negative_order,
        )

    def _set_stats(self, distance: Tensor, similarity: Tensor, triplets: Triplets) -> None:
        has_triplets = torch.zeros(len(distance), dtype=torch.bool, device=distance.device)
        has_triplets.index_fill_(0, triplets[0], True)
        self.num_anchors_without_triplets = len(distance) - int(has_triplets.sum())
        if len(triplets[0]) == 0:
            return
        sums = torch.zeros(4, dtype=torch.float64, device=distance.device)
        for part in zip(*(torch.split(indices, _TRIPLETS_PER_CHUNK) for indices in triplets), strict=True):
            anchors, positives, negatives = part
            negative_similarity = similarity[anchors, negatives]
            values = (
                exceeds(negative_similarity, self.partial_threshold),
                distance[anchors, positives],
                distance[anchors, negatives],
                similarity[anchors, positives].double() - negative_similarity.double(),
            )
            sums += torch.stack([value.sum(dtype=torch.float64) for value in values])
        partial, positive, negative, gap = (sums / len(triplets[0])).tolist()
        sign = -1 if self.distance.is_inverted else 1
        self.partial_share, self.disjoint_share = partial, 1 - partial
        self.pos_pair_dist, self.neg_pair_dist = sign * positive, sign * negative
        self.similarity_gap = gap


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, choices))}, got {value!r}.")


def _check_cap(name: str, value: int | None, *, least: int) -> int | None:
    if value is None:
        return None
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"`{name}` must be None or an integer >= {least}, got {value!r}.")
    return int(value)
