"""The heads of the recommended recipe and of the paper, and the paper's loss and miner."""

from __future__ import annotations

from functools import partial

from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import TripletMarginLoss

from mlmetric.heads import EmbeddingHead
from mlmetric.miners import MultiLabelSemiHardMiner

FEATURE_CLIP = 3.0
"""Standardised features are clipped to the range from minus this to this by the recommended recipe."""
RECOMMENDED_HEAD = partial(
    EmbeddingHead,
    widths=(512, 256),
    clip=FEATURE_CLIP,
    input_dropout=0.25,
    dropout=0.5,
    activate_last=True,
    norm_exponent=0.75,
)
"""The head of the recommended recipe, for standardised features; called with the number of features."""
PAPER_HEAD = partial(EmbeddingHead, widths=(512, 256))
"""The head of the paper; called with the number of features."""


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
