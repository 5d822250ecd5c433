"""How each miner class of pytorch-metric-learning is read with label sets, or why it cannot be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import Tensor

from mlmetric._pml import BaseMiner, MultiLabelBaseMiner, Refusal, pml_miners
from mlmetric.miners import _readings
from mlmetric.miners._readings import Batch
from mlmetric.miners._triplets import TripletKind


@dataclass(frozen=True)
class Reading:
    """How a miner is read.

    Attributes:
        mine: Gives index tensors of the miner's settings and a batch that has a row and a ref at least.
        gives: `"pairs"`: (anchors, positives, anchors, negatives); `"triplets"`: (anchors, positives, negatives).
        text: What it mines, for the table of the docs.
    """

    mine: Callable[[Any, Batch], tuple[Tensor, ...]]
    gives: Literal["pairs", "triplets"]
    text: str


READINGS: dict[type, Reading | Refusal] = {
    pml_miners.AngularMiner: Reading(
        _readings.angular,
        "triplets",
        "those whose angle at the negative exceeds `angle`, between the embeddings as they are, not normalized",
    ),
    pml_miners.BaseMiner: Refusal(
        "mines nothing by itself, and what your subclass of it makes of labels is not known here",
        "`MultiLabelSemiHardMiner`, or a miner that this table reads",
    ),
    pml_miners.BatchEasyHardMiner: Reading(
        _readings.batch_easy_hard,
        "pairs",
        "for each anchor the positive and the negative of `pos_strategy` and `neg_strategy` within the allowed "
        'ranges; `"all"` takes all of its side, whatever the range',
    ),
    pml_miners.BatchHardMiner: Reading(
        _readings.batch_hard, "triplets", "for each anchor its farthest positive and its nearest negative"
    ),
    pml_miners.DistanceWeightedMiner: Refusal(
        "draws by class, as if classes cut the batch into parts",
        "`UniformHistogramMiner`, which spreads pairs over all distances too",
    ),
    pml_miners.EmbeddingsAlreadyPackagedAsTriplets: Reading(
        _readings.packaged_triplets,
        "triplets",
        "rows 0, 1, 2, then 3, 4, 5, and so on; labels play no part, refs are refused",
    ),
    pml_miners.HDCMiner: Reading(
        _readings.hardest_share,
        "pairs",
        "of all positive pairs the share `filter_percentage` that is farthest, of all negative ones the nearest; pairs "
        "from `set_idx_externally` replace the relation's, and a call leaves them as they are",
    ),
    pml_miners.MultiSimilarityMiner: Reading(
        _readings.multi_similarity,
        "pairs",
        "positives farther than the anchor's nearest negative less `epsilon`, negatives nearer than its farthest "
        "positive and `epsilon`",
    ),
    pml_miners.PairMarginMiner: Reading(
        _readings.pair_margin, "pairs", "positives farther than `pos_margin`, negatives nearer than `neg_margin`"
    ),
    pml_miners.TripletMarginMiner: Reading(
        _readings.triplet_margin,
        "triplets",
        'those in the distance relation `type_of_triplets`; an exact tie is not `"hard"` but `"semihard"`, and a gap '
        'of exactly `margin` is `"easy"`',
    ),
    pml_miners.UniformHistogramMiner: Reading(
        _readings.uniform_histogram,
        "pairs",
        "`pos_per_bin` positive and `neg_per_bin` negative pairs from each bin of distances, drawn with replacement",
    ),
}


def find_reading(miner: Any) -> Reading:
    """Return how a miner is read: as its class, or as the nearest ancestor of its class that the table holds.

    Raises:
        TypeError: If it is no miner of pytorch-metric-learning, or takes label matrices already.
        ValueError: If its class or one of its settings has no reading.
    """
    name = type(miner).__name__
    if not isinstance(miner, BaseMiner):
        kind = f"the class {miner.__name__} itself" if isinstance(miner, type) else name
        raise TypeError(f"`miner` must be an instance of a miner of pytorch_metric_learning.miners, got {kind}.")
    if isinstance(miner, MultiLabelBaseMiner):
        raise TypeError(f"`miner` must be a miner of class ids, got {name}: it takes label matrices already.")
    lineage = type(miner).__mro__
    known = next(cls for cls in lineage if cls in READINGS)
    reading = READINGS[known]
    if isinstance(reading, Refusal):
        raise ValueError(reading.message(name))
    for cls in lineage[: lineage.index(known)]:
        lost = _methods(known) & set(vars(cls)) - {"__init__", "get_default_distance"}
        if lost:
            raise ValueError(
                f"`{name}` overrides `{min(lost)}` of {known.__name__}, which a multi-label reading replaces here: "
                f"what it mines would be lost. Wrap {known.__name__}."
            )
    if isinstance(miner, pml_miners.TripletMarginMiner):
        _check_triplet_margin(miner)
    return reading


def _methods(known: type) -> set[str]:
    """Return the names that a class of pytorch-metric-learning and its ancestors among miners define."""
    own = {name for cls in known.__mro__ if issubclass(cls, BaseMiner) for name in vars(cls)}
    return {name for name in own if callable(getattr(known, name))}


def _check_triplet_margin(miner: Any) -> None:
    if miner.type_of_triplets not in get_args(TripletKind):
        raise ValueError(
            f"`type_of_triplets` of {type(miner).__name__} must be one of "
            f"{', '.join(map(repr, get_args(TripletKind)))}, got {miner.type_of_triplets!r}."
        )
    if not miner.margin >= 0:
        raise ValueError(f"`margin` of {type(miner).__name__} must be a number >= 0, got {miner.margin}.")
