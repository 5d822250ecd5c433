"""The repr of public objects shows their parameters, and neither addresses nor private names."""

import re

import pytest
import torch
from pytorch_metric_learning import losses as pml_losses
from pytorch_metric_learning import miners as pml_miners

from mlmetric import (
    data,
    decisions,
    estimators,
    heads,
    imbalance,
    label_errors,
    label_vectors,
    losses,
    metrics,
    miners,
    over_sampling,
    relations,
    samplers,
    similarity,
    training,
    under_sampling,
)

LABELS = torch.eye(4, dtype=torch.long).repeat(3, 1)
MIXTURE = 0.5 * similarity.Jaccard() + 0.5 * similarity.Cosine()
WRAPPED = losses.MultiLabelLoss(pml_losses.ContrastiveLoss(neg_margin=0.7))
# How each object is made, and what its repr contains.
OBJECTS = {
    "similarity": (lambda: similarity.Jaccard(), "Jaccard()"),
    "similarity with weights": (lambda: similarity.Dice(weights=torch.tensor([1.0, 2.0])), "Dice(weights="),
    "mixture of similarities": (lambda: MIXTURE, "0.5 * Jaccard() + 0.5 * Cosine()"),
    "clamped similarity": (lambda: MIXTURE.clamp(min=0), "(0.5 * Jaccard() + 0.5 * Cosine()).clamp(min=0)"),
    "soft cosine": (lambda: similarity.SoftCosine.from_cooccurrence(LABELS), "SoftCosine("),
    "relation": (lambda: relations.LabelRelation(positive_threshold=0.3), "positive_threshold=0.3"),
    "relation by a function": (lambda: relations.LabelRelation(similarity=similarity.jaccard), "jaccard"),
    "miner": (lambda: miners.MultiLabelSemiHardMiner(margin=0.3), "margin=0.3"),
    "miner by a mixture": (
        lambda: miners.MultiLabelSemiHardMiner(similarity=MIXTURE),
        "0.5 * Jaccard() + 0.5 * Cosine()",
    ),
    "wrapped miner": (lambda: miners.MultiLabelMiner(pml_miners.MultiSimilarityMiner()), "MultiSimilarityMiner("),
    "wrapped loss": (lambda: WRAPPED, "ContrastiveLoss("),
    "cross-batch memory": (
        lambda: losses.MultiLabelCrossBatchMemory(WRAPPED, 8, 4, memory_size=16),
        "memory_size=16",
    ),
    "SupCon loss": (lambda: losses.MultiLabelSupConLoss(temperature=0.2), "temperature=0.2"),
    "log-ratio loss": (lambda: losses.LogRatioLoss(), "LogRatioLoss("),
    "triplet loss": (lambda: losses.MultiLabelTripletMarginLoss(margin=0.3), "margin=0.3"),
    "regression loss": (lambda: losses.SimilarityRegressionLoss(), "SimilarityRegressionLoss("),
    "proxy-anchor loss": (lambda: losses.MultiLabelProxyAnchorLoss(4, 8, alpha=16), "alpha=16"),
    "HyP2 loss": (lambda: losses.HyP2Loss(4, 8), "HyP2Loss("),
    "asymmetric loss": (lambda: losses.AsymmetricLoss(gamma_neg=3), "gamma_neg=3"),
    "proper asymmetric loss": (lambda: losses.ProperAsymmetricLoss(slope_neg=2.5), "slope_neg=2.5"),
    "calibrator": (lambda: decisions.LabelCalibrator("isotonic"), "LabelCalibrator(method='isotonic')"),
    "two-way loss": (lambda: losses.TwoWayLoss(), "TwoWayLoss("),
    "embedding head": (lambda: heads.EmbeddingHead(8, (6, 4), clip=2.0), "clip=2.0"),
    "ensemble": (lambda: heads.EmbeddingEnsemble([heads.EmbeddingHead(8, (6, 4))]), "EmbeddingHead("),
    "classifier head": (lambda: heads.ClassifierHead(8, 4), "activation='sigmoid'"),
    "label-graph head": (lambda: heads.LabelGraphHead.from_labels(8, LABELS), "GraphConvolution("),
    "semantic head": (
        lambda: heads.SemanticProjectionHead(8, label_vectors.cooccurrence_vectors(LABELS)),
        "separation=0.1",
    ),
    "standardisation": (lambda: heads.Standardize(8), "Standardize("),
    "embedder": (lambda: estimators.MetricEmbedder(n_members=3), "MetricEmbedder(n_members=3)"),
    "classifier of the paper": (lambda: estimators.MetricClassifier.paper(), "activation='softmax'"),
    "batch sampler": (lambda: samplers.MultiLabelBatchSampler(LABELS, 4), "batch_size=4"),
    "report of positives": (lambda: samplers.positive_report([[0, 1, 4]], LABELS), "PositiveReport("),
    "undersampler": (lambda: under_sampling.LabelCapUnderSampler(cap_ratio=1.5), "LabelCapUnderSampler(cap_ratio=1.5)"),
    "oversampler": (lambda: over_sampling.MLSOL(percentage=50), "MLSOL(percentage=50)"),
    "metrics": (lambda: metrics.MultiLabelMetrics(threshold=0.3), "threshold=0.3"),
    "retrieval metrics": (lambda: metrics.RetrievalMetrics(k=5), "k=(5,)"),
    "training settings": (lambda: training.TrainingConfig(batch_size=16), "batch_size=16"),
    "images": (lambda: data.ImageDataset("folder", ["a.png"]), "ImageDataset("),
    "rule of thresholds": (lambda: decisions.MinRecall(0.9), "MinRecall(recall=0.9)"),
    "rule for rows": (lambda: decisions.TopK(3), "TopK(k=3)"),
    "classifier with thresholds": (
        lambda: decisions.MultiLabelThresholdClassifier(estimators.MetricClassifier(), metric=decisions.FBeta(2)),
        "FBeta(beta=2)",
    ),
    "report of imbalance": (lambda: imbalance.imbalance_report(LABELS), "ImbalanceReport("),
    "label errors": (lambda: label_errors.rank_label_errors([[1]], probabilities=[[0.2]]), "LabelErrors(pairs=1"),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_repr_shows_parameters_and_no_address_or_private_class(name):
    make, shown = OBJECTS[name]
    text = repr(make())
    assert re.findall(r" at 0x|(?<![\w.])_[A-Za-z]\w*", text) == []
    assert shown in text
