"""How each loss class of pytorch-metric-learning is read with label sets, or why it cannot be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from mlmetric._pml import ClassWeightedReducer, Refusal, pml_losses
from mlmetric.losses import _binned, _pairwise, _proxies, _relational
from mlmetric.losses._base import LossDict


@dataclass(frozen=True)
class Reading:
    """What a loss is given in place of class ids.

    Attributes:
        given: `"pairs"` or `"triplets"`: an index tuple, the caller's or all of the relation's; `"relation"`: the
            relation itself; `"labels"`: the label matrix, a column for each proxy.
        tuples: What an index tuple does, if the caller hands one over: `"graded"`: it replaces the relation, and a
            pair may be positive in one triplet and negative in another; `"binary"`: it may not; `"positives"`: its
            positive pairs do; `"weights"`: it weighs the items; `"none"`: the loss takes no tuple.
        refs: Whether positives and negatives may come from refs, as in a cross-batch memory.
        soft: Whether labels between 0 and 1 have a meaning where the labels are given.
        formula: Replaces the class's `compute_loss`; None calls the loss itself with the tuple.
    """

    given: Literal["pairs", "triplets", "relation", "labels"]
    tuples: Literal["graded", "binary", "positives", "weights", "none"]
    refs: bool = False
    soft: bool = True
    formula: Callable[..., LossDict] | None = None


@dataclass(frozen=True)
class Setting(Refusal):
    """A setting of a loss that has no reading, though its class has one."""

    name: str
    is_set: Callable[[Any], bool]


_PAIRS = Reading("pairs", "graded", refs=True, formula=_pairwise.pair_based)
_BINARY_PAIRS = replace(_PAIRS, tuples="binary")
_TRIPLETS = Reading("triplets", "graded", refs=True)
_MARGIN_SOFTMAX = Reading("labels", "weights", soft=False, formula=_proxies.margin_softmax)
_BASE = Refusal(
    "is a base, and what your subclass makes of labels is not known here",
    "a subclass of `GenericPairLoss` or of another loss that is read",
)
_NO_LABELS = "the loss itself, without a wrapper"

READINGS: dict[Any, Reading | Refusal] = {
    pml_losses.AngularLoss: Reading("relation", "positives", refs=True, formula=_relational.angular),
    pml_losses.ArcFaceLoss: _MARGIN_SOFTMAX,
    pml_losses.BaseLossWrapper: _BASE,
    pml_losses.BaseMetricLossFunction: _BASE,
    pml_losses.CircleLoss: _BINARY_PAIRS,
    pml_losses.ContrastiveLoss: _PAIRS,
    pml_losses.CosFaceLoss: _MARGIN_SOFTMAX,
    pml_losses.CrossBatchMemory: Refusal("remembers class ids", "`MultiLabelCrossBatchMemory`"),
    pml_losses.DynamicSoftMarginLoss: replace(_TRIPLETS, formula=_binned.dynamic_soft_margin),
    pml_losses.EmbeddingRegularizerMixin: _BASE,
    pml_losses.FastAPLoss: Reading("relation", "weights", refs=True, formula=_relational.fast_ap),
    pml_losses.GeneralizedLiftedStructureLoss: _BINARY_PAIRS,
    pml_losses.GenericPairLoss: _PAIRS,
    pml_losses.HistogramLoss: Reading("triplets", "graded", formula=_binned.histogram),
    pml_losses.InstanceLoss: Refusal(
        "takes the rank of a class id for the position of an item in the batch", "`SupConLoss`"
    ),
    pml_losses.IntraPairVarianceLoss: _PAIRS,
    pml_losses.LargeMarginSoftmaxLoss: _MARGIN_SOFTMAX,
    pml_losses.LiftedStructureLoss: replace(_PAIRS, formula=_pairwise.lifted_structure),
    pml_losses.ManifoldLoss: Refusal("takes no labels, only one meta-class for each item", _NO_LABELS),
    pml_losses.MarginLoss: _TRIPLETS,
    pml_losses.MultiSimilarityLoss: _BINARY_PAIRS,
    pml_losses.MultipleLosses: Refusal(
        "is a container and hands labels on as they are", "it around losses that are each a `MultiLabelLoss`"
    ),
    pml_losses.NCALoss: Reading("relation", "weights", refs=True, formula=_relational.nca),
    pml_losses.NPairsLoss: Refusal(
        "keeps one positive pair for each class and calls the positives of all other classes negatives, "
        "which share labels here",
        "`NTXentLoss`",
    ),
    pml_losses.NTXentLoss: replace(_PAIRS, formula=_pairwise.nt_xent),
    pml_losses.NormalizedSoftmaxLoss: Reading("labels", "weights", formula=_proxies.normalized_softmax),
    pml_losses.P2SGradLoss: Reading("labels", "none", formula=_proxies.p2s_grad),
    pml_losses.PNPLoss: Reading("relation", "none", refs=True, formula=_relational.pnp),
    pml_losses.ProxyAnchorLoss: Reading("labels", "weights", soft=False, formula=_proxies.proxy_anchor),
    pml_losses.ProxyNCALoss: Refusal(
        "is content with one proxy near an item, and an item of several labels needs each of its proxies",
        "`ProxyAnchorLoss`",
    ),
    pml_losses.RankedListLoss: Reading("relation", "none", refs=True, formula=_relational.ranked_list),
    pml_losses.SelfSupervisedLoss: Refusal("takes no labels: a view of an item is its positive", _NO_LABELS),
    pml_losses.SignalToNoiseRatioContrastiveLoss: _PAIRS,
    pml_losses.SmoothAPLoss: Refusal(
        "needs classes that cut the batch into blocks of one size", "`FastAPLoss` or `PNPLoss`"
    ),
    pml_losses.SoftTripleLoss: Reading("labels", "weights", soft=False, formula=_proxies.soft_triple),
    pml_losses.SphereFaceLoss: _MARGIN_SOFTMAX,
    pml_losses.SubCenterArcFaceLoss: _MARGIN_SOFTMAX,
    pml_losses.SupConLoss: _BINARY_PAIRS,
    pml_losses.ThresholdConsistentMarginLoss: Reading("pairs", "graded"),
    pml_losses.TripletMarginLoss: _TRIPLETS,
    pml_losses.TupletMarginLoss: replace(_PAIRS, formula=_pairwise.tuplet_margin),
    pml_losses.VICRegLoss: Refusal("takes no labels: a view of an item is its positive", _NO_LABELS),
    pml_losses.WeightRegularizerMixin: _BASE,
}

SETTINGS = (
    Setting(
        name="triplets_per_anchor=<int>",
        is_set=lambda loss: getattr(loss, "triplets_per_anchor", "all") != "all",
        reason="draws triplets by class, as if classes cut the batch into parts",
        instead='`triplets_per_anchor="all"`, and a miner with `max_triplets_per_anchor` in front',
    ),
    Setting(
        name="MarginLoss(num_classes=<int>)",
        is_set=lambda loss: isinstance(loss, pml_losses.MarginLoss) and len(loss.beta) > 1,
        reason="holds a beta for each class, and an anchor of several labels would have several",
        instead="one `beta`, without `num_classes`",
    ),
    Setting(
        name="reducer=ClassWeightedReducer(...)",
        is_set=lambda loss: any(isinstance(part, ClassWeightedReducer) for part in loss.modules()),
        reason="weighs an item by its class id",
        instead="another reducer, and weigh labels in the similarity",
    ),
)

GRADED = sorted(
    cls.__name__
    for cls, reading in READINGS.items()
    if isinstance(reading, Reading) and reading.tuples == "graded" and cls is not pml_losses.GenericPairLoss
)


def find_reading(loss: Any) -> Reading:
    """Return how a loss is read: as its class, or as the nearest ancestor of its class that the table holds.

    Raises:
        TypeError: If it is no loss of pytorch-metric-learning.
        ValueError: If its class or one of its settings has no reading.
    """
    name = type(loss).__name__
    known: Any = next((cls for cls in type(loss).__mro__ if cls in READINGS), None)
    if known is None:
        kind = f"the class {loss.__name__} itself" if isinstance(loss, type) else name
        raise TypeError(f"`loss` must be an instance of a loss of pytorch_metric_learning.losses, got {kind}.")
    reading = READINGS[known]
    if isinstance(reading, Refusal):
        raise ValueError(reading.message(name))
    own = [
        method
        for method in ("forward", "compute_loss", "_compute_loss")
        if getattr(type(loss), method, None) is not getattr(known, method, None)
    ]
    if own and reading.given in ("relation", "labels"):
        raise ValueError(
            f"`{name}` overrides `{own[0]}` of {known.__name__}, which a multi-label formula replaces here: "
            "what it computes would be lost. Override what the formula calls, or wrap the parent."
        )
    if own:
        reading = replace(reading, formula=_pairwise.pair_based if own == ["_compute_loss"] else None)
    for setting in SETTINGS:
        if setting.is_set(loss):
            raise ValueError(setting.message(f"{name}` with `{setting.name}"))
    return reading


def check_refs(loss: Any, reading: Reading) -> None:
    """Raise `ValueError` if a loss cannot compare a batch with refs."""
    if not reading.refs:
        raise ValueError(f"`{type(loss).__name__}` takes no `ref_emb`: it compares the batch with itself only.")
    if getattr(loss, "swap", False):
        raise ValueError(
            f"`{type(loss).__name__}` with `swap=True` takes no `ref_emb`: it would look up the distance of a "
            "positive and a negative where that of an anchor and a negative stands. Use `swap=False`."
        )
