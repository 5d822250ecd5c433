"""Labels in small and unsigned dtypes give the results of int64: nothing is negated, subtracted or summed in them."""

import dataclasses
import importlib
import inspect
import warnings

import numpy as np
import pytest
import torch
from pytorch_metric_learning import losses as pml_losses
from pytorch_metric_learning import miners as pml_miners
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

import mlmetric
from mlmetric import (
    data,
    decisions,
    evaluation,
    heads,
    imbalance,
    label_errors,
    label_vectors,
    labels,
    losses,
    metrics,
    over_sampling,
    samplers,
    search,
    training,
    under_sampling,
)
from mlmetric import similarity as sim
from mlmetric.estimators import MetricClassifier, MetricEmbedder
from mlmetric.miners import MultiLabelMiner, MultiLabelSemiHardMiner
from mlmetric.relations import LabelRelation

# 300 rows with 3 labels: a label has more than 255 positives. 12 rows with most of 290 labels: two rows share more than
# 255 labels. Both overflow uint8 and int8.
RANDOM = torch.Generator().manual_seed(0)
ROWS = (torch.rand(300, 3, generator=RANDOM) < torch.tensor([0.97, 0.5, 0.1])).long()
WIDE = (torch.rand(12, 290, generator=RANDOM) < 0.97).long()
BATCH = (torch.rand(14, 4, generator=RANDOM) < 0.4).long()
FEATURES = torch.randn(300, 4, generator=RANDOM) + ROWS.float() @ torch.randn(3, 4, generator=RANDOM)
X, LOGITS = FEATURES.numpy(), FEATURES[:, :3]
LINEAR = OneVsRestClassifier(LogisticRegression())
DTYPES = {str(dtype): dtype for dtype in (torch.uint8, torch.uint16, torch.bool, torch.int8)} | {
    f"numpy.{dtype}": dtype for dtype in ("uint8", "uint16", "bool", "int8")
}


def convert(matrix, dtype):
    return matrix.to(dtype) if isinstance(dtype, torch.dtype) else matrix.numpy().astype(dtype)


def embeddings_for(y, size=4, **options):
    return torch.randn(len(y), size, generator=torch.Generator().manual_seed(1), **options)


def scores_for(y):
    return torch.rand(tuple(y.shape), generator=torch.Generator().manual_seed(1))


def plain(result):
    """Turn a result of any type into lists and numbers."""
    if isinstance(result, torch.Tensor | np.ndarray):
        return torch.as_tensor(result).detach().double().tolist()
    if dataclasses.is_dataclass(result):
        return plain([getattr(result, field.name) for field in dataclasses.fields(result)])
    if isinstance(result, dict):
        return [[name, plain(value)] for name, value in result.items()]
    return [plain(value) for value in result] if isinstance(result, list | tuple) else result


def assert_same(found, expected):
    if isinstance(expected, list):
        assert len(found) == len(expected)
        for pair in zip(found, expected, strict=True):
            assert_same(*pair)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-6, nan_ok=True)
    else:
        assert found == expected


def updated(metric, *arguments):
    metric.update(*arguments)
    return metric.compute()


def has_labels(function):
    return inspect.isfunction(function) and bool({"labels", "target"} & inspect.signature(function).parameters.keys())


def functions_on_labels(module):
    return {name: getattr(module, name) for name in module.__all__ if has_labels(getattr(module, name))}


def similarity_calls():
    weights = torch.linspace(0.5, 2, 290)
    for name in ("inner_product", "jaccard", "dice", "cosine", "overlap", "hamming"):
        function, cls = getattr(sim, name), getattr(sim, name.title().replace("_", ""))
        yield name, WIDE, function
        yield f"{name} of references", WIDE, lambda y, f=function: f(y[:5], y[5:])
        yield f"{name} of pairs", WIDE, lambda y, f=function: f(y[:6], y[6:], paired=True)
        yield f"{name} with weights", WIDE, lambda y, f=function: f(y, weights=weights)
        yield f"{cls.__name__}", WIDE, lambda y, c=cls: (0.5 * c() + 0.5 * sim.Jaccard())(y)
    for kind in ("inverse", "log_count", "log_rank"):
        yield f"inverse_frequency_weights {kind}", ROWS, lambda y, k=kind: sim.inverse_frequency_weights(y, k)
    yield "SoftCosine", BATCH, lambda y: sim.SoftCosine.from_cooccurrence(y)(y)
    yield "LabelRelation", WIDE, LabelRelation(similarity=sim.inner_product, positive_threshold=272)


def metric_calls():
    for name, function in functions_on_labels(metrics).items():
        parameters = inspect.signature(function).parameters
        inputs_for = scores_for if "target" in parameters else embeddings_for
        options = {"k": 5} if "k" in parameters else {}
        for matrix in (ROWS, WIDE):
            described = f"{name} of {len(matrix)} rows"
            yield described, matrix, lambda y, f=function, i=inputs_for, o=options: f(i(y), y, **o)
    yield "MultiLabelMetrics", ROWS, lambda y: updated(metrics.MultiLabelMetrics(), scores_for(y), y)
    yield "RetrievalMetrics", WIDE, lambda y: updated(metrics.RetrievalMetrics(k=5), embeddings_for(y), y)
    yield "f1 with a mask", ROWS, lambda y: metrics.f1(scores_for(y), y, mask=ROWS.flip(0).bool())
    yield "f1 of labels as scores", ROWS, lambda y: metrics.f1(y, ROWS.flip(0))


LOSSES = {
    "AsymmetricLoss": lambda size: losses.AsymmetricLoss(),
    "ProperAsymmetricLoss": lambda size: losses.ProperAsymmetricLoss(),
    "TwoWayLoss": lambda size: losses.TwoWayLoss(),
    "HyP2Loss": lambda size: losses.HyP2Loss(size, 4),
    "MultiLabelProxyAnchorLoss": lambda size: losses.MultiLabelProxyAnchorLoss(size, 4),
    "LogRatioLoss": lambda size: losses.LogRatioLoss(),
    "MultiLabelTripletMarginLoss": lambda size: losses.MultiLabelTripletMarginLoss(),
    "SimilarityRegressionLoss": lambda size: losses.SimilarityRegressionLoss(),
    "MultiLabelSupConLoss": lambda size: losses.MultiLabelSupConLoss(),
    "MultiLabelSupConLoss per_label": lambda size: losses.MultiLabelSupConLoss("per_label"),
    "MultiLabelSupConLoss any": lambda size: losses.MultiLabelSupConLoss("any"),
    "MultiLabelLoss": lambda size: losses.MultiLabelLoss(pml_losses.ContrastiveLoss()),
    "MultiLabelLoss of classes": lambda size: losses.MultiLabelLoss(pml_losses.NormalizedSoftmaxLoss(size, 4)),
    "MultiLabelCrossBatchMemory": lambda size: losses.MultiLabelCrossBatchMemory(
        losses.MultiLabelSupConLoss(), 4, size, memory_size=40
    ),
}
HAMMING = {"similarity": sim.Hamming(), "positive_threshold": 0.5, "partial_threshold": 0.3}
MINERS = {
    "MultiLabelSemiHardMiner": lambda: MultiLabelSemiHardMiner(type_of_triplets="all"),
    "MultiLabelSemiHardMiner by Hamming": lambda: MultiLabelSemiHardMiner(type_of_triplets="all", **HAMMING),
    "MultiLabelMiner": lambda: MultiLabelMiner(pml_miners.TripletMarginMiner()),
}


def loss_and_gradient(build, y):
    loss = build(y.shape[1])
    is_on_logits = isinstance(loss, losses.AsymmetricLoss | losses.ProperAsymmetricLoss | losses.TwoWayLoss)
    embeddings = embeddings_for(y, y.shape[1] if is_on_logits else 4, requires_grad=True)
    value = loss(embeddings, y) + loss(embeddings, y)  # a memory compares from the second call on
    value.backward()
    return value, embeddings.grad


def loss_and_miner_calls():
    for matrix in (BATCH, WIDE):
        for name, build in LOSSES.items():
            yield f"{name} of {len(matrix)} rows", matrix, lambda y, b=build: loss_and_gradient(b, y)
        for name, build in MINERS.items():
            yield f"{name} of {len(matrix)} rows", matrix, lambda y, b=build: b()(embeddings_for(y), y)


RESAMPLERS = {
    "MLSMOTE": {"random_state": 0},
    "MLSOL": {"random_state": 0},
    "LPRUS": {"random_state": 0},
    "MLRUS": {"random_state": 0},
    "MLUL": {"random_state": 0},
    "REMEDIAL": {},
    "LabelCapUnderSampler": {"random_state": 0, "cap_ratio": 0.5},
    "MLeNN": {"threshold": 0.5},
    "MultiLabelTomekLinks": {"mode": "cleaning"},
    "RandomLabelUnderSampler": {"random_state": 0, "cap_ratio": 0.5},
}


def resampled(name, y):
    module = over_sampling if name in over_sampling.__all__ else under_sampling
    sampler = getattr(module, name)(**RESAMPLERS[name])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # on what the sampler removed or added
        rows, result = sampler.fit_resample(X, y)
    return rows, result, {key: value for key, value in vars(sampler).items() if key.endswith("_")}


def batches(y):
    sampler = samplers.MultiLabelBatchSampler(y, 20, label_weights="inverse_frequency", generator=RANDOM.manual_seed(0))
    chosen = list(sampler)
    return chosen, samplers.positive_report(chosen, y)


def data_calls():
    for name in RESAMPLERS:
        yield name, ROWS, lambda y, n=name: resampled(n, y)
    for splitter in (
        data.MultiLabelStratifiedKFold(3, shuffle=True, random_state=0),
        data.MultiLabelStratifiedShuffleSplit(2, random_state=0),
    ):
        yield type(splitter).__name__, ROWS, lambda y, s=splitter: list(s.split(X, y))
    yield "stratified_split", ROWS, lambda y: data.stratified_split(y, generator=RANDOM.manual_seed(0))
    yield "ImageDataset", BATCH, lambda y: data.ImageDataset(".", ["a"] * 14, y).labels
    yield "MultiLabelBatchSampler and positive_report", ROWS, batches
    yield "positive_report", WIDE, lambda y: samplers.positive_report([list(range(12))], y)
    yield "cooccurrence_vectors", ROWS, label_vectors.cooccurrence_vectors
    yield "cooccurrence_adjacency", ROWS, heads.cooccurrence_adjacency
    yield "votes_to_labels", ROWS, lambda y: labels.votes_to_labels(y, [2] * 300)
    for name, function in functions_on_labels(labels).items():
        yield name, ROWS, function
    for name, function in functions_on_labels(imbalance).items():
        for matrix in (ROWS, WIDE):
            options = {"num_features": 4} if name == "tcs" else {}
            yield f"{name} of {len(matrix)} rows", matrix, lambda y, f=function, o=options: f(y, **o)


CONFIG = training.TrainingConfig(max_epochs=1, batch_size=100, mixup=0.4, items_per_label=4, seed=0, keep_best=True)


def classifier(y):
    head = heads.ClassifierHead(4, 3).init_from_labels(y)
    training.fit_classifier(head, FEATURES, y, config=CONFIG, validation=(FEATURES, y))
    return head.state_dict(), head.loss(LOGITS, y)


def embedding(y):
    head, loss = heads.EmbeddingHead(4, (3,)), losses.MultiLabelSupConLoss("per_label")
    training.fit_embedding(head, FEATURES, y, loss=loss, config=CONFIG, validation=(FEATURES, y))
    return head.state_dict()


def logistic_regression(y):
    head = heads.ClassifierHead(4, 3)
    training.fit_logistic_regression(head, FEATURES, y, C=(0.1, 1.0), validation=(FEATURES, y))
    return head.state_dict()


def losses_of_heads(y):
    graph = heads.LabelGraphHead.from_labels(4, y, label_vectors=torch.eye(3), hidden_features=5)
    projection = heads.SemanticProjectionHead(4, torch.eye(3), num_neighbors=1)
    network = heads.LabelNetwork(heads.EmbeddingHead(4, (3,)), heads.ClassifierHead(3, 3))
    return (
        graph.first.adjacency,
        [head.loss(LOGITS, y) for head in (graph, network)],
        projection.loss(projection(FEATURES), y),
    )


def decision_calls():
    scores = scores_for(ROWS) + 0.3 * ROWS
    yield "conformal_fnr_threshold", ROWS, lambda y: decisions.conformal_fnr_threshold(scores, y, alpha=0.2)
    yield "ltt_fdr_threshold", ROWS, lambda y: decisions.ltt_fdr_threshold(scores, y, alpha=0.4)
    for rule in (decisions.FBeta(2), decisions.MinRecall(0.8), decisions.TopK(2), decisions.PredictedCount()):
        model = decisions.MultiLabelThresholdClassifier(LINEAR, metric=rule, cv=2)
        yield f"MultiLabelThresholdClassifier {rule}", ROWS, lambda y, m=model: m.fit(X, y).predict(X)
    calibrated = decisions.MultiLabelCalibratedClassifier(LINEAR, cv=2)
    yield "MultiLabelCalibratedClassifier", ROWS, lambda y: calibrated.fit(X, y).predict_proba(X)
    yield "LabelCalibrator", ROWS, lambda y: decisions.LabelCalibrator().fit(LOGITS, y).transform(LOGITS)


def ranked_errors(y):
    errors = label_errors.rank_label_errors(y, probabilities=scores_for(ROWS), embeddings=X, k=5)
    return errors.rows, errors.labels, errors.scores, errors.estimated_errors


def explained_hits(y):
    index = search.SearchIndex(metric="euclidean")
    index.add(X, labels=y)
    hits = index.search(X[:3], k=4, labels=y[:3])
    return [[list(shares.values()) for shares in row] for row in search.explain_hits(index, hits, y[:3])]


def further_calls():
    for name in ("Jaccard", "Dice", "Hamming", "InnerProduct"):
        similarity = getattr(sim, name)()
        yield f"explain_similarity {name}", BATCH, lambda y, s=similarity: sim.explain_similarity(s, y[:7], y[7:])
    options = {"n_splits": 1, "C": 0.1, "cv": 2, "n_resamples": 20}
    yield "evaluate_embeddings", ROWS, lambda y: evaluation.evaluate_embeddings(X, y, **options).values
    yield "neighbor_probabilities", ROWS, lambda y: label_errors.neighbor_probabilities(y, X, k=5)
    yield "rank_label_errors", ROWS, ranked_errors
    yield "explain_hits", ROWS, explained_hits


def estimated(cls, y):
    estimator = cls(max_epochs=1, n_members=1, random_state=0).fit(X, y)
    if isinstance(estimator, MetricEmbedder):
        return estimator.transform(X)
    return estimator.predict_proba(X), estimator.score(X, y)


CALLS = [
    *similarity_calls(),
    *metric_calls(),
    *loss_and_miner_calls(),
    *data_calls(),
    ("fit_classifier", ROWS, classifier),
    ("fit_embedding", ROWS, embedding),
    ("fit_logistic_regression", ROWS, logistic_regression),
    ("losses of heads", ROWS, losses_of_heads),
    *decision_calls(),
    *further_calls(),
]
SLOW = [(cls.__name__, ROWS, lambda y, c=cls: estimated(c, y)) for cls in (MetricClassifier, MetricEmbedder)]


@pytest.mark.parametrize(
    ("matrix", "call"),
    [
        *(pytest.param(matrix, call, id=name) for name, matrix, call in CALLS),
        *(pytest.param(matrix, call, id=name, marks=pytest.mark.slow) for name, matrix, call in SLOW),
    ],
)
def test_labels_of_small_and_unsigned_dtypes_give_the_results_of_int64(matrix, call):
    results = {}
    for name, dtype in {"int64": torch.int64, **DTYPES}.items():
        torch.manual_seed(0)
        results[name] = plain(call(convert(matrix, dtype)))
    for result in results.values():
        assert_same(result, results["int64"])


def test_every_public_function_of_labels_is_called():
    called = " ".join(name for name, _, _ in [*CALLS, *SLOW])
    public = {
        name
        for module in mlmetric.__all__
        for name in functions_on_labels(importlib.import_module(f"mlmetric.{module}"))
    }
    assert {name for name in public if name not in called} == {"compare_labels"}  # of functions that users wrote, below
    assert public >= {"jaccard", "f1", "ndcg_at_k", "scumble", "stratified_split", "label_counts"}
    for module in (losses, samplers, under_sampling, over_sampling):
        classes = {name for name in module.__all__ if inspect.isclass(getattr(module, name)) and "Base" not in name}
        assert {name for name in classes if name not in called} <= {"LossInputs", "PositiveReport"}


OF_USERS = {
    "differences": lambda y, refs: -(y[:, None] - refs).abs().sum(-1).double() + y.shape[1],
    "products": lambda y, refs: y @ refs.T,
    "absent labels": lambda y, refs: ((1 - y) @ (1 - refs).T).double(),
    "sums": lambda y, refs: y.shape[1] - (y.sum(1, keepdim=True) - refs.sum(1)).abs(),
}


class OwnLoss(losses.MultiLabelBaseLoss):
    """The differences of labels, computed in the dtype in which they arrive."""

    def compute_loss(self, inputs):
        differences = (inputs.labels[:, None] - inputs.ref_labels).abs() @ torch.ones_like(inputs.labels[0])
        pairs = inputs.distances(self.distance) * differences
        return {"loss": {"losses": pairs.sum(), "indices": None, "reduction_type": "already_reduced"}}


@pytest.mark.parametrize("matrix", [BATCH, WIDE], ids=["14 rows", "12 rows"])
@pytest.mark.parametrize("name", OF_USERS)
def test_functions_of_users_receive_labels_that_neither_wrap_nor_overflow(name, matrix):
    function, embeddings, threshold = OF_USERS[name], embeddings_for(matrix), matrix.shape[1] / 2
    thresholds = {"positive_threshold": threshold, "partial_threshold": threshold / 2}
    users = [
        LabelRelation(similarity=function, positive_threshold=threshold),
        lambda y: MultiLabelSemiHardMiner(similarity=function, type_of_triplets="all", **thresholds)(embeddings, y),
        lambda y: losses.SimilarityRegressionLoss(similarity=function)(embeddings, y),
        lambda y: losses.MultiLabelTripletMarginLoss(similarity=function)(embeddings, y),
        lambda y: samplers.positive_report(
            [list(range(len(matrix)))], y, similarity=function, positive_threshold=threshold
        ),
        lambda y: metrics.acg_at_k(embeddings, y, k=5, similarity=function),
        lambda y: updated(metrics.RetrievalMetrics(k=5, similarity=function), embeddings, y),
        lambda y: OwnLoss()(embeddings, y),
    ]
    for call in users:
        expected = plain(call(matrix))
        for dtype in [dtype for dtype in DTYPES.values() if dtype not in (torch.bool, "bool")]:
            assert_same(plain(call(convert(matrix, dtype))), expected)
