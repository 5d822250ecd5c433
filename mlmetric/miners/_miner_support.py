"""Which miners of pytorch-metric-learning support label sets, by which rule, and why others do not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import Tensor

from mlmetric._pml import BaseMiner, MultiLabelBaseMiner, Unsupported, pml_miners
from mlmetric.miners import _pml_mining_rules as rules
from mlmetric.miners._pml_mining_rules import MinerInputs
from mlmetric.miners._triplet_selection import TripletKind


@dataclass(frozen=True)
class MinerAdapter:
    """Multi-label mining rule of a miner of pytorch-metric-learning.

    Attributes:
        mine: The rule: returns index tensors, given the miner and inputs with at least one row and one reference.
        output: `"pairs"`: (anchors, positives, anchors, negatives); `"triplets"`: (anchors, positives, negatives).
        description: What the rule selects, for the table of the documentation.
    """

    mine: Callable[[Any, MinerInputs], tuple[Tensor, ...]]
    output: Literal["pairs", "triplets"]
    description: str


MINER_ADAPTERS: dict[type, MinerAdapter | Unsupported] = {
    pml_miners.AngularMiner: MinerAdapter(
        rules.angular,
        "triplets",
        "triplets with an angle at the negative above `angle`, computed from the embeddings without normalization",
    ),
    pml_miners.BaseMiner: Unsupported(
        "is an abstract base class, and how your subclass uses labels is not known",
        "`MultiLabelSemiHardMiner`, or a supported miner",
    ),
    pml_miners.BatchEasyHardMiner: MinerAdapter(
        rules.batch_easy_hard,
        "pairs",
        "the positive and the negative of each anchor that `pos_strategy` and `neg_strategy` select within the "
        'allowed ranges; `"all"` selects all positives or negatives, whatever the range',
    ),
    pml_miners.BatchHardMiner: MinerAdapter(
        rules.batch_hard, "triplets", "the farthest positive and the nearest negative of each anchor"
    ),
    pml_miners.DistanceWeightedMiner: Unsupported(
        "samples by class, which requires that each row has exactly one class",
        "`UniformHistogramMiner`, which also samples pairs of all distances",
    ),
    pml_miners.EmbeddingsAlreadyPackagedAsTriplets: MinerAdapter(
        rules.packaged_triplets,
        "triplets",
        "rows 0, 1, 2, then 3, 4, 5, and so on; labels are not used, `ref_emb` is not supported",
    ),
    pml_miners.HDCMiner: MinerAdapter(
        rules.hdc,
        "pairs",
        "the share `filter_percentage` of all positive pairs that is farthest, and of all negative pairs that is "
        "nearest; pairs set by `set_idx_externally` replace those of the relation and are not changed by a call",
    ),
    pml_miners.MultiSimilarityMiner: MinerAdapter(
        rules.multi_similarity,
        "pairs",
        "positives farther than the anchor's nearest negative minus `epsilon`, and negatives nearer than its farthest "
        "positive plus `epsilon`",
    ),
    pml_miners.PairMarginMiner: MinerAdapter(
        rules.pair_margin, "pairs", "positives farther than `pos_margin`, and negatives nearer than `neg_margin`"
    ),
    pml_miners.TripletMarginMiner: MinerAdapter(
        rules.triplet_margin,
        "triplets",
        'triplets of the kind `type_of_triplets`; equal distances are `"semihard"`, not `"hard"`, and a difference of '
        'exactly `margin` is `"easy"`',
    ),
    pml_miners.UniformHistogramMiner: MinerAdapter(
        rules.uniform_histogram,
        "pairs",
        "`pos_per_bin` positive and `neg_per_bin` negative pairs from each bin of distances, sampled with replacement",
    ),
}


def find_miner_adapter(miner: Any) -> MinerAdapter:
    """Return the adapter of the class of a miner, or of its nearest base class in `MINER_ADAPTERS`.

    Raises:
        TypeError: If `miner` is not a miner of pytorch-metric-learning, or already accepts label matrices.
        ValueError: If its class or a setting does not support label sets.
    """
    name = type(miner).__name__
    if not isinstance(miner, BaseMiner):
        kind = f"the class {miner.__name__} itself" if isinstance(miner, type) else name
        raise TypeError(f"`miner` must be an instance of a miner of pytorch_metric_learning.miners, got {kind}.")
    if isinstance(miner, MultiLabelBaseMiner):
        raise TypeError(f"`miner` must be a miner for class ids, got {name}, which already accepts label matrices.")
    mro = type(miner).__mro__
    known = next(cls for cls in mro if cls in MINER_ADAPTERS)
    adapter = MINER_ADAPTERS[known]
    if isinstance(adapter, Unsupported):
        raise ValueError(adapter.message(name))
    for cls in mro[: mro.index(known)]:
        overridden = _methods(known) & set(vars(cls)) - {"__init__", "get_default_distance"}
        if overridden:
            raise ValueError(
                f"`{name}` overrides `{min(overridden)}` of {known.__name__}, which the multi-label rule does not "
                f"call: the override would have no effect. Use {known.__name__}."
            )
    if isinstance(miner, pml_miners.TripletMarginMiner):
        _check_triplet_margin(miner)
    return adapter


def _methods(known: type) -> set[str]:
    """Return the names of the methods that a miner of pytorch-metric-learning and its base miners define."""
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
