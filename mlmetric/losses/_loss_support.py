"""Which losses of pytorch-metric-learning support label sets, by which formula, and why others do not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from mlmetric._pml import ClassWeightedReducer, Unsupported, pml_losses
from mlmetric.losses import (
    _pml_histogram_losses,
    _pml_pair_losses,
    _pml_proxy_losses,
    _pml_relation_losses,
)
from mlmetric.losses._base_loss import LossDict


@dataclass(frozen=True)
class LossAdapter:
    """Multi-label inputs and formula of a loss of pytorch-metric-learning.

    Attributes:
        uses: What the loss uses in place of class ids: `"pairs"` or `"triplets"`: index tensors, from `indices_tuple`
            or of all pairs or triplets of the relation; `"relation"`: the relation; `"labels"`: the label matrix, with
            a proxy for each column.
        indices_tuple: Effect of an `indices_tuple`. `"graded"`: it replaces the relation, and a pair can be positive in
            one triplet and negative in another; `"binary"`: it replaces the relation, and no pair can be both;
            `"positives"`: its positive pairs replace those of the relation; `"weights"`: it determines row weights;
            `"none"`: it is not supported.
        supports_refs: Whether `ref_emb` is supported, for example from a cross-batch memory.
        supports_soft_labels: Whether labels can be between 0 and 1.
        formula: Replacement of `compute_loss`; None to call the loss itself with an `indices_tuple`.
    """

    uses: Literal["pairs", "triplets", "relation", "labels"]
    indices_tuple: Literal["graded", "binary", "positives", "weights", "none"]
    supports_refs: bool = False
    supports_soft_labels: bool = True
    formula: Callable[..., LossDict] | None = None


@dataclass(frozen=True)
class UnsupportedSetting(Unsupported):
    """A setting of a loss that does not support label sets although the class does."""

    name: str
    is_set: Callable[[Any], bool]


_PAIRS = LossAdapter("pairs", "graded", supports_refs=True, formula=_pml_pair_losses.pair_based)
_BINARY_PAIRS = replace(_PAIRS, indices_tuple="binary")
_TRIPLETS = LossAdapter("triplets", "graded", supports_refs=True)
_MARGIN_SOFTMAX = LossAdapter("labels", "weights", supports_soft_labels=False, formula=_pml_proxy_losses.margin_softmax)
_BASE = Unsupported(
    "is an abstract base class, and how your subclass uses labels is not known",
    "a subclass of `GenericPairLoss` or of another supported loss",
)
_NO_LABELS = "the loss without a wrapper"

LOSS_ADAPTERS: dict[Any, LossAdapter | Unsupported] = {
    pml_losses.AngularLoss: LossAdapter(
        "relation", "positives", supports_refs=True, formula=_pml_relation_losses.angular
    ),
    pml_losses.ArcFaceLoss: _MARGIN_SOFTMAX,
    pml_losses.BaseLossWrapper: _BASE,
    pml_losses.BaseMetricLossFunction: _BASE,
    pml_losses.CircleLoss: _BINARY_PAIRS,
    pml_losses.ContrastiveLoss: _PAIRS,
    pml_losses.CosFaceLoss: _MARGIN_SOFTMAX,
    pml_losses.CrossBatchMemory: Unsupported("stores class ids", "`MultiLabelCrossBatchMemory`"),
    pml_losses.DynamicSoftMarginLoss: replace(_TRIPLETS, formula=_pml_histogram_losses.dynamic_soft_margin),
    pml_losses.EmbeddingRegularizerMixin: _BASE,
    pml_losses.FastAPLoss: LossAdapter("relation", "weights", supports_refs=True, formula=_pml_relation_losses.fast_ap),
    pml_losses.GeneralizedLiftedStructureLoss: _BINARY_PAIRS,
    pml_losses.GenericPairLoss: _PAIRS,
    pml_losses.HistogramLoss: LossAdapter("triplets", "graded", formula=_pml_histogram_losses.histogram),
    pml_losses.InstanceLoss: Unsupported("interprets a class id as the position of a row in the batch", "`SupConLoss`"),
    pml_losses.IntraPairVarianceLoss: _PAIRS,
    pml_losses.LargeMarginSoftmaxLoss: _MARGIN_SOFTMAX,
    pml_losses.LiftedStructureLoss: replace(_PAIRS, formula=_pml_pair_losses.lifted_structure),
    pml_losses.ManifoldLoss: Unsupported("uses a meta-class for each row in place of labels", _NO_LABELS),
    pml_losses.MarginLoss: _TRIPLETS,
    pml_losses.MultiSimilarityLoss: _BINARY_PAIRS,
    pml_losses.MultipleLosses: Unsupported(
        "is a container that passes labels on unchanged", "`MultipleLosses` of losses that are each a `MultiLabelLoss`"
    ),
    pml_losses.NCALoss: LossAdapter("relation", "weights", supports_refs=True, formula=_pml_relation_losses.nca),
    pml_losses.NPairsLoss: Unsupported(
        "uses the positives of all other classes as negatives, which may share labels here",
        "`NTXentLoss`",
    ),
    pml_losses.NTXentLoss: replace(_PAIRS, formula=_pml_pair_losses.nt_xent),
    pml_losses.NormalizedSoftmaxLoss: LossAdapter("labels", "weights", formula=_pml_proxy_losses.normalized_softmax),
    pml_losses.P2SGradLoss: LossAdapter("labels", "none", formula=_pml_proxy_losses.p2s_grad),
    pml_losses.PNPLoss: LossAdapter("relation", "none", supports_refs=True, formula=_pml_relation_losses.pnp),
    pml_losses.ProxyAnchorLoss: LossAdapter(
        "labels", "weights", supports_soft_labels=False, formula=_pml_proxy_losses.proxy_anchor
    ),
    pml_losses.ProxyNCALoss: Unsupported(
        "requires only one proxy near each row, and a row with several labels must be near each of their proxies",
        "`ProxyAnchorLoss`",
    ),
    pml_losses.RankedListLoss: LossAdapter(
        "relation", "none", supports_refs=True, formula=_pml_relation_losses.ranked_list
    ),
    pml_losses.SelfSupervisedLoss: Unsupported(
        "does not use labels: the positive of a row is another view of it", _NO_LABELS
    ),
    pml_losses.SignalToNoiseRatioContrastiveLoss: _PAIRS,
    pml_losses.SmoothAPLoss: Unsupported(
        "requires that each row has exactly one class and all classes have the same number of rows",
        "`FastAPLoss` or `PNPLoss`",
    ),
    pml_losses.SoftTripleLoss: LossAdapter(
        "labels", "weights", supports_soft_labels=False, formula=_pml_proxy_losses.soft_triple
    ),
    pml_losses.SphereFaceLoss: _MARGIN_SOFTMAX,
    pml_losses.SubCenterArcFaceLoss: _MARGIN_SOFTMAX,
    pml_losses.SupConLoss: _BINARY_PAIRS,
    pml_losses.ThresholdConsistentMarginLoss: LossAdapter("pairs", "graded"),
    pml_losses.TripletMarginLoss: _TRIPLETS,
    pml_losses.TupletMarginLoss: replace(_PAIRS, formula=_pml_pair_losses.tuplet_margin),
    pml_losses.VICRegLoss: Unsupported("does not use labels: the positive of a row is another view of it", _NO_LABELS),
    pml_losses.WeightRegularizerMixin: _BASE,
}

UNSUPPORTED_SETTINGS = (
    UnsupportedSetting(
        name="triplets_per_anchor=<int>",
        is_set=lambda loss: getattr(loss, "triplets_per_anchor", "all") != "all",
        reason="samples triplets by class, which requires that each row has exactly one class",
        alternative='`triplets_per_anchor="all"` and a miner with `max_triplets_per_anchor`',
    ),
    UnsupportedSetting(
        name="MarginLoss(num_classes=<int>)",
        is_set=lambda loss: isinstance(loss, pml_losses.MarginLoss) and len(loss.beta) > 1,
        reason="has a beta for each class, so that an anchor with several labels would have several",
        alternative="one `beta`, without `num_classes`",
    ),
    UnsupportedSetting(
        name="reducer=ClassWeightedReducer(...)",
        is_set=lambda loss: any(isinstance(part, ClassWeightedReducer) for part in loss.modules()),
        reason="looks up the weight of a row by its class id",
        alternative="another reducer, and label weights in the similarity",
    ),
)

GRADED_LOSSES = sorted(
    cls.__name__
    for cls, adapter in LOSS_ADAPTERS.items()
    if isinstance(adapter, LossAdapter) and adapter.indices_tuple == "graded" and cls is not pml_losses.GenericPairLoss
)


def find_loss_adapter(loss: Any) -> LossAdapter:
    """Return the adapter of the class of a loss, or of its nearest base class in `LOSS_ADAPTERS`.

    Raises:
        TypeError: If `loss` is not a loss of pytorch-metric-learning.
        ValueError: If its class or a setting does not support label sets.
    """
    name = type(loss).__name__
    known: Any = next((cls for cls in type(loss).__mro__ if cls in LOSS_ADAPTERS), None)
    if known is None:
        kind = f"the class {loss.__name__} itself" if isinstance(loss, type) else name
        raise TypeError(f"`loss` must be an instance of a loss of pytorch_metric_learning.losses, got {kind}.")
    adapter = LOSS_ADAPTERS[known]
    if isinstance(adapter, Unsupported):
        raise ValueError(adapter.message(name))
    overridden = [
        method
        for method in ("forward", "compute_loss", "_compute_loss")
        if getattr(type(loss), method, None) is not getattr(known, method, None)
    ]
    if overridden and adapter.uses in ("relation", "labels"):
        raise ValueError(
            f"`{name}` overrides `{overridden[0]}` of {known.__name__}, which the multi-label formula does not call: "
            f"the override would have no effect. Override a method that the formula calls, or use {known.__name__}."
        )
    if overridden:
        adapter = replace(adapter, formula=_pml_pair_losses.pair_based if overridden == ["_compute_loss"] else None)
    for setting in UNSUPPORTED_SETTINGS:
        if setting.is_set(loss):
            raise ValueError(setting.message(f"{name}` with `{setting.name}"))
    return adapter


def check_loss_refs(loss: Any, adapter: LossAdapter) -> None:
    """Raise a ValueError if a loss does not support references."""
    if not adapter.supports_refs:
        raise ValueError(
            f"`{type(loss).__name__}` does not support `ref_emb`: it compares the batch only with itself or proxies."
        )
    if getattr(loss, "swap", False):
        raise ValueError(
            f"`{type(loss).__name__}` with `swap=True` does not support `ref_emb`: the distance of a positive and a "
            "negative is not in the distance matrix. Use `swap=False`."
        )
