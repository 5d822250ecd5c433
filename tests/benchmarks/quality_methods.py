"""The methods that `quality.py` compares: those of others, ours, and the steps from the paper's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from pytorch_metric_learning.losses import MultiSimilarityLoss, TripletMarginLoss

from mlmetric.estimators import RECOMMENDED_HEAD, MetricClassifier, MetricEmbedder
from mlmetric.heads import EmbeddingHead
from mlmetric.losses import (
    AsymmetricLoss,
    HyP2Loss,
    LogRatioLoss,
    MultiLabelLoss,
    MultiLabelProxyAnchorLoss,
    MultiLabelSupConLoss,
    SimilarityRegressionLoss,
    TwoWayLoss,
)
from mlmetric.miners import MultiLabelSemiHardMiner
from mlmetric.similarity import Jaccard
from quality_classifiers import classify, linear_probe, perceptrons
from quality_training import (
    DROPOUT,
    PERCEPTRON,
    PERCEPTRON_DROPOUT,
    PLAIN_DROPOUT,
    SINGLE,
    UNIT,
    Method,
    embed,
    label_graph,
    metric,
    no_loss,
    perceptron,
    semantic,
    triplet_settings,
)

GAP = triplet_settings(margin=0.5, by_gap=True)
BCE: dict[str, Any] = {"loss": no_loss, "classifier_weight": 1.0}
SUPCON_BCE: dict[str, Any] = {"loss": MultiLabelSupConLoss(), "classifier_weight": 1.0}
TEN_POSITIVES: dict[str, Any] = {
    "max_triplets_per_anchor": 10,
    "max_partial_per_positive": 1,
    "max_disjoint_per_positive": 1,
    "positive_order": "random",
}
OTHERS: dict[str, Method] = {
    "linear probe": Method(linear_probe, (0.0,)),
    "perceptron": Method(perceptrons),
    "4 perceptrons, mean logits": Method(partial(perceptrons, n_members=4), rate_of="perceptron"),
    "4 perceptrons, mean logits, mixed with the linear probe": Method(
        partial(perceptrons, n_members=4, mixed=True), rate_of="perceptron"
    ),
    "perceptron, BCE": metric(PERCEPTRON, **BCE),
    "perceptron, BCE, dropout": metric(PERCEPTRON_DROPOUT, **BCE),
    "perceptron, asymmetric loss, dropout": Method(partial(perceptron, label_loss=AsymmetricLoss())),
    "perceptron, two-way loss, dropout": Method(partial(perceptron, label_loss=TwoWayLoss())),
    "label graph (ML-GCN)": Method(label_graph),
    "semantic projection": Method(semantic),
    "SupCon, shares a label": metric(UNIT, loss=MultiLabelSupConLoss("any")),
    "SupCon, Jaccard": metric(UNIT, loss=MultiLabelSupConLoss()),
    "SupCon, Jaccard, 4 members": metric(UNIT, loss=MultiLabelSupConLoss(), n_members=4, rate_of="SupCon, Jaccard"),
    "SupCon, Jaccard, dropout": metric(loss=MultiLabelSupConLoss()),
    "SupCon, per label, dropout": metric(loss=MultiLabelSupConLoss("per_label")),
    "log-ratio, dropout": metric(PLAIN_DROPOUT, loss=LogRatioLoss()),
    "proxy anchor, dropout": metric(proxies=partial(MultiLabelProxyAnchorLoss, embedding_size=256)),
    "HyP2, dropout": metric(proxies=partial(HyP2Loss, embedding_size=256)),
    "multi-similarity (PML), dropout": metric(loss=MultiLabelLoss(MultiSimilarityLoss(), similarity=Jaccard())),
    "triplets, margin by Jaccard gap, dropout": metric(**GAP),
    "similarity regression, dropout": metric(loss=SimilarityRegressionLoss()),
    "triplets by gap + BCE, dropout": metric(**GAP, classifier_weight=0.3),
    "SupCon, Jaccard + BCE, dropout": metric(**SUPCON_BCE),
    "4 members: perceptron, BCE, dropout": metric(
        PERCEPTRON_DROPOUT, **BCE, n_members=4, rate_of="perceptron, BCE, dropout"
    ),
    "4 members: perceptron, BCE, dropout, mixup": metric(
        PERCEPTRON_DROPOUT, **BCE, n_members=4, mixup=0.4, rate_of="perceptron, BCE, dropout"
    ),
    "4 members: SupCon, Jaccard + BCE, dropout": metric(
        **SUPCON_BCE, n_members=4, rate_of="SupCon, Jaccard + BCE, dropout"
    ),
}
MINERS: dict[str, dict[str, Any]] = {
    "its defaults": {},
    "all violations of the margin": {"type_of_triplets": "all"},
    "FaceNet's semi-hard ones": {"type_of_triplets": "semihard"},
    "all violations, Jaccard": {"type_of_triplets": "all", "similarity": Jaccard()},
    "all violations, 10 positives, a negative each": {**TEN_POSITIVES, "type_of_triplets": "all"},
    "all violations, 10 positives, the hardest negative": {
        **TEN_POSITIVES,
        "type_of_triplets": "all",
        "negative_order": "hardest",
    },
}
OTHERS |= {
    f"miner: {title}": metric(loss=TripletMarginLoss(margin=0.2), miner=MultiLabelSemiHardMiner(**settings))
    for title, settings in MINERS.items()
}
# The steps from the paper's recipe to ours: the name, the part that changes, and the changes.
STEPS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("lr 0.001", "embedder", {"lr": 0.001}),
    ("batches of 64", "embedder", {"batch_size": 64}),
    ("best of 50 epochs", "embedder", {"max_epochs": 50, "validation_fraction": 0.2}),
    ("unit length", "head", {"norm_exponent": 0.0}),
    ("margin 0.2", "triplets", {"margin": 0.2}),
    ("all triplets within the margin", "triplets", {"kind": "all"}),
    ("10 random positives", "triplets", {"order": "random", "per_anchor": 10}),
    ("margin by Jaccard gap, 0.5", "triplets", {"margin": 0.5, "by_gap": True}),
    ("dropout", "head", DROPOUT),
    ("log-ratio loss instead of triplets", "embedder", {"loss": LogRatioLoss(), "miner": None}),
    ("norms unchanged", "head", {"norm_exponent": 1.0}),
    ("BCE of a classifier", "embedder", {"classifier_weight": 2.0}),
    ("ReLU after the last layer", "head", {"activate_last": True}),
    ("mixup 0.4", "embedder", {"mixup": 0.4}),
    ("features clipped at 3", "head", {"clip": 3.0}),
    ("norms to the power 0.75", "head", {"norm_exponent": 0.75}),
    ("BCE weight 3", "embedder", {"classifier_weight": 3.0}),
    ("averaged weights, 20 epochs, lr 0.003", "embedder", {"ema_decay": 0.999, "max_epochs": 20, "lr": 0.003}),
    ("mixup 0.3", "embedder", {"mixup": 0.3}),
    ("dropout 0.3 between layers", "head", {"dropout": 0.3}),
)
RECOMMENDED = "recommended"
ONE_MEMBER = "recommended, one member"
FORMER = "two stages, 4 members"
PAPER = "two stages, the paper's recipe"


def steps() -> dict[str, Method]:
    """Return the methods from the paper's recipe to ours, one step at a time."""
    embedder: dict[str, Any] = dict(SINGLE, batch_size=256, max_epochs=10, validation_fraction=0.0, lr=0.01)
    triplets: dict[str, Any] = {"margin": 1.0, "power": 2, "order": "farthest", "per_anchor": 1, "kind": "hard"}
    parts: dict[str, dict[str, Any]] = {"embedder": embedder, "triplets": triplets, "head": {}}

    def method() -> Method:
        settings = {**triplet_settings(**parts["triplets"]), **parts["embedder"]}
        rate = settings.pop("lr")
        return Method(partial(embed, head=partial(EmbeddingHead, **parts["head"]), **settings), (rate,))

    methods = {"paper": method()}
    for name, part, changes in STEPS:
        parts[part] = parts[part] | changes
        methods[f"... + {name}"] = method()
    return methods


def one_member(**changes: Any) -> Method:
    """Return the embedding of the recommended recipe with one member and further changes."""
    return Method(partial(embed, **{"n_members": 1} | changes), (MetricEmbedder().lr,))


def classifier(make: Callable[..., MetricClassifier] = MetricClassifier, **changes: Any) -> Method:
    """Return a `MetricClassifier`, by default the recommended one, with changes."""
    return Method(partial(classify, make=make, **changes), (make().lr,))


METHODS: dict[str, Method] = {
    **OTHERS,
    **steps(),
    "... + 4 members": one_member(n_members=MetricEmbedder().n_members),
    # Classifiers that choose their thresholds themselves.
    PAPER: classifier(MetricClassifier.paper, shares_validation=True),
    FORMER: classifier(two_stage=True, shares_validation=True),
    "recommended, the same validation rows for all members": classifier(shares_validation=True),
    ONE_MEMBER: classifier(n_members=1),
    RECOMMENDED: classifier(),
    # Variants of the embedding with one member.
    "one member, similarity regression": one_member(loss=SimilarityRegressionLoss(), classifier_weight=0.3),
    "one member, norms to the power 0.5, BCE weight 5": one_member(
        head=partial(RECOMMENDED_HEAD, norm_exponent=0.5), classifier_weight=5.0
    ),
    "one member, unit length": one_member(head=partial(RECOMMENDED_HEAD, norm_exponent=0.0)),
    "one member, mixup 1": one_member(mixup=1.0),
    "one member, label-balanced batches": one_member(items_per_label=4),
    "one member, raw features concatenated": one_member(feature_weight=0.5),
}
