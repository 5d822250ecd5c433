"""The semi-hard multi-label triplet miner."""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from mlmetric._pml import BaseDistance, MultiLabelBaseMiner, ordered_distance
from mlmetric.miners._triplets import TripletKind, TripletRule, Triplets, select_triplets
from mlmetric.similarity import InnerProduct, SimilarityFunction, check_similarity, compare_labels, exceeds

_TRIPLETS_AT_ONCE = 2**20


class MultiLabelSemiHardMiner(MultiLabelBaseMiner):
    """Mine triplets by graded label similarity: a negative is less similar to the anchor than the positive is.

    For each anchor the refs with `similarity > positive_threshold` are its positives, visited from the farthest to
    the nearest (or at random). A negative of an anchor and its positive is always strictly less similar than that
    positive. It is *partial* if it still shares something with the anchor (`similarity > partial_threshold`), and
    *disjoint* otherwise. Partial negatives that lie closer than the positive are this library's semi-hard ones:
    comparable with the positive, in the wrong order.

    An all-zero row is never a positive under the similarities of sets; it is legal as a disjoint negative. An
    anchor without positives gives no triplet; a batch without triplets gives three empty int64 tensors, and the
    losses of pytorch-metric-learning make of them a differentiable zero. The same pair can be positive in one
    triplet and negative in another: pass the triplets to a loss that takes them so, such as `TripletMarginLoss`,
    `MarginLoss` or `ContrastiveLoss`, as `loss(embeddings, indices_tuple=triplets)`.

    Memory is that of the `(N, M)` distances and similarities and of the triplets that are returned, whatever the
    settings; time is a small multiple of computing and sorting the distances, plus the output. What the caps throw
    away is never enumerated, but every positive is visited unless `max_triplets_per_anchor` ends the visit.

    Args:
        similarity: Label similarity `(labels, ref_labels) -> (N, M)`, larger is more alike: one of
            [mlmetric.similarity][], a function, an `nn.Module`. The number of shared labels, `InnerProduct()`, by
            default.
        positive_threshold: A positive is more similar than this, by more than rounding: see
            [`exceeds`][mlmetric.similarity.exceeds]. 0 means "shares something".
        partial_threshold: A partial negative is more similar than this, a disjoint one is not.
        margin: Of the distance relation, in units of `distance`, >= 0. `"hard"` does not use it.
        type_of_triplets: The distance relation of a negative: `"hard"`: d_an < d_ap (the paper's); `"semihard"`:
            d_ap <= d_an < d_ap + margin (FaceNet's and pytorch-metric-learning's meaning); `"all"`: both of these,
            every violation of the margin; `"easy"`: d_an >= d_ap + margin.
        max_partial_per_positive: Keep at most this many partial negatives for each positive; None for all.
        max_disjoint_per_positive: The same for disjoint negatives.
        max_triplets_per_anchor: Keep at most this many triplets for each anchor, those of the positives visited
            first, and for each of these the partial negatives first; None for all.
        positive_order: `"farthest"` (the paper's) or `"random"`: decides which triplets the last cap keeps.
        disjoint_negatives: `"violating"`: disjoint negatives must stand in the distance relation too (the
            reference code's); `"any"`: they need not (the paper does not say).
        negative_order: Which negatives a cap keeps: `"random"`, drawn uniformly, or `"hardest"`, the nearest.
        distance: A distance of pytorch-metric-learning, inverted ones included; by default its own default,
            Euclidean between unit vectors.
        generator: Source of the random draws; None for torch's default generator.
        collect_stats: Whether to record statistics of each call as attributes: `num_triplets`,
            `num_anchors_without_triplets`, `partial_share` and `disjoint_share` of the negatives, `pos_pair_dist`
            and `neg_pair_dist` (means over triplets), `similarity_gap` (mean of S_ap - S_an). None for
            pytorch-metric-learning's global setting.
        validate_args: Whether each call looks at the values of labels, similarities and distances. On CUDA that
            waits for the device.

    Raises:
        TypeError: If `similarity` is not callable or a class, `distance` no distance of pytorch-metric-learning, or
            `generator` none of torch.
        ValueError: If a choice is not among those named above, a cap is no integer or below 0
            (`max_triplets_per_anchor`: below 1), the margin is below 0, or a threshold is NaN.

    Examples:
        >>> from mlmetric.similarity import Jaccard
        >>> from pytorch_metric_learning.distances import LpDistance
        >>> embeddings = torch.tensor([[0.0, 0.0], [3.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
        >>> labels = torch.tensor([[1, 1, 0], [1, 1, 0], [1, 0, 1], [0, 0, 1]])
        >>> miner = MultiLabelSemiHardMiner(Jaccard(), distance=LpDistance(normalize_embeddings=False))
        >>> anchors, positives, negatives = miner(embeddings, labels)
        >>> list(zip(anchors.tolist(), positives.tolist(), negatives.tolist()))
        [(0, 1, 2), (0, 1, 3), (1, 0, 2), (2, 3, 0), (2, 3, 1), (3, 2, 0)]

    Source:
        "From image to emotion: multi-label image classification based on triplet loss" (2021), sections 4.2-4.3,
        which builds on abarthakur/multilabel-deep-metric and on Wang et al., "Learning fine-grained image
        similarity with deep ranking", CVPR 2014. Deviations: the caps hold exactly (that code overshoots), and a
        disjoint negative, too, must be less similar than the positive, which matters where `partial_threshold`
        exceeds `positive_threshold`. Where distances are exactly equal, or differ by exactly the margin, the
        relations above decide, which differ there from pytorch-metric-learning's: an exact tie is not `"hard"`.
    """

    def __init__(
        self,
        similarity: SimilarityFunction | None = None,
        *,
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
        max_partial_per_positive = _checked_cap("max_partial_per_positive", max_partial_per_positive, least=0)
        max_disjoint_per_positive = _checked_cap("max_disjoint_per_positive", max_disjoint_per_positive, least=0)
        max_triplets_per_anchor = _checked_cap("max_triplets_per_anchor", max_triplets_per_anchor, least=1)

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

    def mine(
        self, embeddings: Tensor, labels: Tensor, ref_emb: Tensor, ref_labels: Tensor, *, batch_first: bool = False
    ) -> Triplets:
        """Mine a batch whose arguments are checked; by anchor, then as visited, then partial before disjoint."""
        similarity = compare_labels(self.similarity, labels, ref_labels, validate_args=self.validate_args)
        distance = ordered_distance(self.distance, embeddings, ref_emb, validate_args=self.validate_args)
        triplets = select_triplets(distance, similarity, self._rule(), self_pairs=batch_first, generator=self.generator)
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
        seen = torch.zeros(len(distance), dtype=torch.bool, device=distance.device).index_fill_(0, triplets[0], True)
        self.num_anchors_without_triplets = len(distance) - int(seen.sum())
        if len(triplets[0]) == 0:
            return
        sums = torch.zeros(4, dtype=torch.float64, device=distance.device)
        for part in zip(*(torch.split(indices, _TRIPLETS_AT_ONCE) for indices in triplets), strict=True):
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


def _checked_cap(name: str, value: int | None, *, least: int) -> int | None:
    if value is None:
        return None
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"`{name}` must be None or an integer >= {least}, got {value!r}.")
    return int(value)
