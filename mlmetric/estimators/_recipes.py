"""The heads of the recommended recipe and of the paper, and the paper's loss and miner."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import TripletMarginLoss
from torch import nn

from mlmetric._views import Views
from mlmetric.heads import EmbeddingHead, FusionHead
from mlmetric.miners import MultiLabelSemiHardMiner

FEATURE_CLIP = 3.0
"""The recommended recipe clips standardised features to the range from minus this value to this value."""
_RECOMMENDED: dict[str, Any] = {
    "widths": (512, 256),
    "clip": FEATURE_CLIP,
    "input_dropout": 0.25,
    "dropout": 0.3,
    "activate_last": True,
    "norm_exponent": 0.75,
}
RECOMMENDED_HEAD = partial(EmbeddingHead, **_RECOMMENDED)
"""The default head, for standardised features: two layers of 512 and 256; called with the number of features."""
PAPER_HEAD = partial(EmbeddingHead, widths=(512, 256))
"""The head of `MetricEmbedder.paper()` and `MetricClassifier.paper()`; called with the number of features."""


def recommended_head(views: Views | None, fusion: Literal["concat", "gated"]) -> Callable[[int], nn.Module]:
    """Return a function that makes the head of the recommended recipe from the number of features.

    Args:
        views: The views of the features; None for features without views.
        fusion: How the views are fused, "concat" or "gated".
    """
    if views is None:
        return RECOMMENDED_HEAD
    return partial(FusionHead, views=views, fusion=fusion, **_RECOMMENDED)


def paper_loss(margin: float) -> TripletMarginLoss:
    """Return the paper's triplet loss, on the squared Euclidean distance."""
    return TripletMarginLoss(margin=margin, distance=LpDistance(normalize_embeddings=False, power=2))


def paper_miner() -> MultiLabelSemiHardMiner:
    """Return the paper's miner: one triplet for each anchor, with its farthest positive and a semi-hard negative."""
    return MultiLabelSemiHardMiner(
        max_partial_per_positive=1,
        max_disjoint_per_positive=1,
        max_triplets_per_anchor=1,
        positive_order="farthest",
        distance=LpDistance(normalize_embeddings=False, power=2),
    )
