"""The estimators: compatibility with scikit-learn and imbalanced-learn, and the effect of each parameter."""

import copy
import io
import pickle
import random
from functools import partial

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from imblearn.pipeline import make_pipeline as make_sampling_pipeline
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import TripletMarginLoss
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, get_scorer, make_scorer, roc_auc_score
from sklearn.model_selection import GridSearchCV, KFold, cross_val_predict
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator
from torch import nn

from helpers import Killed
from mlmetric.estimators import MetricClassifier, MetricEmbedder
from mlmetric.heads import EmbeddingHead
from mlmetric.losses import AsymmetricLoss, MultiLabelProxyAnchorLoss
from mlmetric.metrics import best_thresholds, mean_average_precision, ndcg_at_k
from mlmetric.miners import MultiLabelSemiHardMiner
from mlmetric.training import apply_in_batches
from mlmetric.under_sampling import MultiLabelTomekLinks

TINY = partial(EmbeddingHead, widths=(8, 4))
FAST = {"head": TINY, "n_members": 1, "max_epochs": 2, "batch_size": 32, "mixup": 0.4, "random_state": 0}
RECIPE = {
    "head": partial(EmbeddingHead, widths=(64, 32), dropout=0.2, norm_exponent=0.5),
    "n_members": 2,
    "max_epochs": 15,
    "lr": 0.005,
    "mixup": 0.4,
    "classifier_weight": 0.3,
    "random_state": 0,
}
# Smallest improvements of `RECIPE` on test rows; an untrained head gives none.
NDCG_GAINED = 0.1
MAP_GAINED = 0.25
F1_GAINED = 0.05
ESTIMATORS = [MetricEmbedder, MetricClassifier]
# On few rows an undersampler often raises MeanIR a little.
ignores_sampler_warnings = pytest.mark.filterwarnings(r"ignore:\w+ (removed|raised|left) :UserWarning")
each_estimator = pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda cls: cls.__name__)
each_fit = pytest.mark.parametrize(
    "make", [*ESTIMATORS, partial(MetricClassifier, two_stage=True)], ids=["embedder", "classifier", "two stages"]
)


def table(num_rows=160, seed=0):
    """Return features and labels: five labels, the last one rare.

    Of the 20 features, each row is the sum of a direction for each of its labels, noise, and twice as strong noise
    along 8 directions, which is unrelated to the labels: most nearest neighbours have other labels.
    """
    rng = np.random.default_rng(seed)
    y = (rng.random((num_rows, 5)) < [0.5, 0.4, 0.3, 0.2, 0.1]).astype(int)
    loud = 2 * rng.normal(size=(num_rows, 8)) @ rng.normal(size=(8, 20))
    return y @ rng.normal(size=(5, 20)) + loud + rng.normal(size=(num_rows, 20)), y


class RecordingHead(EmbeddingHead):
    """A head that appends the first feature of each training row to a list."""

    def __init__(self, in_features, seen):
        super().__init__(in_features, (8, 4))
        self.seen = seen

    def forward(self, features):
        if self.training:
            self.seen.extend(features[:, 0].tolist())
        return super().forward(features)


def numbered(X):
    """Return features with the index of the row as the first one."""
    return np.column_stack([np.arange(len(X)), X[:, 1:]])


def rows_trained_on(estimator, X, y):
    """Return the indices of the rows of `numbered(X)` in the order in which they are trained on."""
    seen = []
    estimator.set_params(head=partial(RecordingHead, seen=seen), mixup=0.0).fit(X, y)
    return np.array(seen, dtype=int)


def validation_rows(estimator, X, y):
    return np.setdiff1d(np.arange(len(X)), rows_trained_on(clone(estimator), numbered(X), y))


def label_batches(estimator, X, y):
    """Return the labels with which the loss is called, for each batch."""
    batches = []

    def loss(embeddings, labels):
        batches.append(labels.numpy())
        return embeddings.square().mean()

    estimator.set_params(loss=loss).fit(X, y)
    return batches


def macro_f1(y, predictions):
    return f1_score(y, predictions, average="macro")


def brier(y, probabilities):
    return np.square(y - probabilities).mean()


def state_of(estimator):
    modules = [estimator.head_, *([estimator.classifier_] if hasattr(estimator, "classifier_") else [])]
    return [value for module in modules for value in module.state_dict().values()]


def same_fit(first, second):
    pairs = list(zip(state_of(first), state_of(second), strict=True))
    thresholds = (getattr(each, "thresholds_", np.zeros(0)) for each in (first, second))
    return all(torch.equal(ours, theirs) for ours, theirs in pairs) and np.array_equal(*thresholds)


# The checks of scikit-learn

# These checks pass class ids, which the estimators reject; they are run on subclasses that one-hot encode class ids.
PASSES_CLASS_IDS = {
    MetricEmbedder: {
        "check_fit_score_takes_y",
        "check_estimators_overwrite_params",
        "check_dont_overwrite_parameters",
        "check_estimators_fit_returns_self",
        "check_readonly_memmap_input",
        "check_n_features_in_after_fitting",
        "check_positive_only_tag_during_fit",
        "check_estimators_dtypes",
        "check_dtype_object",
        "check_f_contiguous_array_estimator",
        "check_transformer_data_not_an_array",
        "check_transformer_general",
        "check_transformer_preserve_dtypes",
        "check_methods_subset_invariance",
        "check_fit2d_1feature",
        "check_dict_unchanged",
        "check_fit2d_predict1d",
    },
    MetricClassifier: {  # most checks of classifiers pass a column of 0 and 1
        "check_estimators_dtypes",
        "check_classifier_data_not_an_array",
        "check_transformer_data_not_an_array",
        "check_transformer_general",
        "check_transformer_preserve_dtypes",
        "check_fit2d_1feature",
    },
}
NOT_MULTI_LABEL = {
    "check_classifiers_classes": "compares `classes_` with the classes of one column",
    "check_classifier_multioutput": "requires decisions `decision_function(X) > 0`, without thresholds",
    "check_classifiers_train": "requires predictions of shape (n,)",
    "check_classifiers_regression_target": "requires another error message for continuous targets",
    "check_classifier_not_supporting_multiclass": "requires a binary classifier",
}
# The first has a tolerance of 1e-7, below the precision of float32. The second compares the ranking of one column of
# predict_proba with that of all columns of decision_function, so that rounding decides. Tests below replace them.
DEPENDS_ON_ROUNDING = {"check_methods_sample_order_invariance", "check_decision_proba_consistency"}


def one_hot(y):
    """One-hot encode class ids, a vector or a column; return anything else unchanged."""
    ids = np.asarray(y)
    if y is None or ids.dtype.kind == "f" or (ids.ndim == 2 and (ids.shape[1] > 1 or set(ids.flat) <= {0, 1})):
        return y
    return (ids.reshape(-1, 1) == np.unique(ids)).astype(int)


class OneHotEmbedder(MetricEmbedder):
    def fit(self, X, y=None):
        return super().fit(X, one_hot(y))


class OneHotClassifier(MetricClassifier):
    def fit(self, X, y=None):
        return super().fit(X, one_hot(y))


def sklearn_checks(estimator, *, excluded=frozenset(), expected_failed_checks=None):
    for pair in estimator_checks_generator(estimator, expected_failed_checks=expected_failed_checks, mark="xfail"):
        _, check = getattr(pair, "values", pair)
        if check.func.__name__ not in excluded | DEPENDS_ON_ROUNDING:
            yield pair


@pytest.mark.parametrize(
    ("estimator", "check"),
    [
        *sklearn_checks(MetricEmbedder(**FAST), excluded=PASSES_CLASS_IDS[MetricEmbedder]),
        *sklearn_checks(MetricClassifier(**FAST), excluded=PASSES_CLASS_IDS[MetricClassifier] | NOT_MULTI_LABEL.keys()),
        *sklearn_checks(OneHotEmbedder(**FAST)),
        *sklearn_checks(OneHotClassifier(**FAST), expected_failed_checks=NOT_MULTI_LABEL),
    ],
    ids=lambda value: value.func.__name__ if hasattr(value, "func") else type(value).__name__,
)
def test_estimator_passes_the_checks_of_sklearn(estimator, check):
    check(estimator)


@each_fit
def test_outputs_of_a_row_do_not_depend_on_the_other_rows(make):
    X, y = table()
    fitted = make(**FAST).fit(X, y)
    order = np.random.default_rng(0).permutation(len(X))
    for name in ("transform", "decision_function", "predict_proba"):
        if hasattr(fitted, name):
            method = getattr(fitted, name)
            np.testing.assert_allclose(method(X[order]), method(X)[order], rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(method(X[7:8]), method(X)[7:8], rtol=1e-4, atol=1e-6)


# Pipelines


def sampling_pipeline(**settings):
    sampler = MultiLabelTomekLinks(protect_minority=True)
    return make_sampling_pipeline(StandardScaler(), sampler, MetricClassifier(**FAST | settings))


@ignores_sampler_warnings
def test_pipeline_with_an_undersampler_trains_on_resampled_rows_and_predicts_all_rows():
    X, y = table()
    pipeline = sampling_pipeline().fit(X, y)
    scaled = StandardScaler().fit_transform(X)
    resampled = MultiLabelTomekLinks(protect_minority=True).fit_resample(scaled, y)
    assert len(resampled[0]) < len(X)
    expected = MetricClassifier(**FAST).fit(*resampled)
    assert same_fit(pipeline[-1], expected)
    np.testing.assert_array_equal(pipeline.predict(X), expected.predict(scaled))
    np.testing.assert_array_equal(pipeline.predict_proba(X), expected.predict_proba(scaled))
    assert pipeline.predict(X).shape == y.shape


@ignores_sampler_warnings
def test_pipeline_with_an_undersampler_is_cloned_and_pickled():
    X, y = table()
    pipeline = sampling_pipeline().fit(X, y)
    with pytest.raises(NotFittedError):
        clone(pipeline).predict(X)
    assert same_fit(clone(pipeline).fit(X, y)[-1], pipeline[-1])
    loaded = pickle.loads(pickle.dumps(pipeline))
    np.testing.assert_array_equal(loaded.predict(X), pipeline.predict(X))
    np.testing.assert_array_equal(loaded.predict_proba(X), pipeline.predict_proba(X))


@ignores_sampler_warnings
@pytest.mark.slow
def test_grid_search_over_sampler_and_classifier_prefers_a_trained_classifier():
    X, y = table(240)
    grid = {"multilabeltomeklinks__threshold": [0.5, 1.0], "metricclassifier__lr": [1e-9, 0.02]}
    by_name = {name: name for name in ("average_precision", "roc_auc", "f1_macro")}
    of_probabilities = make_scorer(average_precision_score, response_method="predict_proba")
    search = GridSearchCV(
        sampling_pipeline(head=partial(EmbeddingHead, widths=(32, 16)), max_epochs=12, two_stage=True),
        grid,
        cv=KFold(2),
        scoring=by_name | {"of_probabilities": of_probabilities},
        refit="average_precision",
        error_score="raise",
    ).fit(X, y)
    assert search.best_params_["metricclassifier__lr"] == search.best_estimator_[-1].lr == 0.02
    trained = search.cv_results_["param_metricclassifier__lr"] == 0.02
    for name in (*by_name, "of_probabilities"):
        scores = search.cv_results_[f"mean_test_{name}"]
        assert scores[trained].max() > scores[~trained].max() + 0.05
        assert len(set(scores)) == 4  # the threshold of the sampler has an effect too
    assert search.predict(X).shape == y.shape


@pytest.mark.parametrize(
    ("scoring", "metric", "method"),
    [
        ("average_precision", average_precision_score, "decision_function"),
        ("roc_auc", roc_auc_score, "decision_function"),
        ("f1_macro", partial(f1_score, average="macro"), "predict"),
        ("f1_samples", partial(f1_score, average="samples", zero_division=0), "predict"),
        ("accuracy", accuracy_score, "predict"),
    ],
)
@pytest.mark.filterwarnings("ignore:F-score is ill-defined")  # some rows have no label
def test_scorers_of_sklearn_score_the_classifier(scoring, metric, method):
    X, y = table()
    classifier = MetricClassifier(**FAST).fit(X, y)
    expected = metric(y, getattr(classifier, method)(X))
    assert 0 < expected < 1
    assert get_scorer(scoring)(classifier, X, y) == pytest.approx(expected)


@pytest.mark.parametrize("method", ["predict", "predict_proba", "decision_function"])
def test_cross_val_predict_predicts_each_row_from_the_other_fold(method):
    X, y = table()
    classifier = MetricClassifier(**FAST)
    predicted = cross_val_predict(classifier, X, y, cv=KFold(2), method=method)
    for rows, others in KFold(2).split(X):
        expected = getattr(clone(classifier).fit(X[rows], y[rows]), method)(X[others])
        np.testing.assert_array_equal(predicted[others], expected)


CLASSIFIERS = pytest.mark.parametrize(
    "classifier", [KNeighborsClassifier(), OneVsRestClassifier(LogisticRegression())], ids=["neighbours", "logistic"]
)


@CLASSIFIERS
def test_embedder_in_a_pipeline_transforms_features_for_a_classifier_of_sklearn(classifier):
    X, y = table()
    pipeline = make_pipeline(MetricEmbedder(**FAST), clone(classifier)).fit(X, y)
    embedder = MetricEmbedder(**FAST).fit(X, y)
    expected = clone(classifier).fit(embedder.transform(X), y).predict(embedder.transform(X))
    np.testing.assert_array_equal(pipeline.predict(X), expected)


# Label names and classes


NAMES = [f"label {letter}" for letter in "abcde"]


def names_of(y):
    return [[NAMES[label] for label in np.flatnonzero(row)] for row in y]


@each_estimator
@pytest.mark.parametrize(
    "kind", [list, tuple, lambda rows: [set(row) for row in rows], pd.Series, lambda rows: np.array(rows, dtype=object)]
)
def test_label_names_give_the_fit_of_their_matrix_and_sorted_classes(estimator, kind):
    X, y = table(80)
    fitted = estimator(**FAST).fit(X, kind(names_of(y)))
    assert fitted.classes_.tolist() == NAMES
    expected = estimator(**FAST).fit(X, y)
    assert expected.classes_.tolist() == 5 * [[0, 1]]
    assert same_fit(fitted, expected)


def test_classes_of_a_frame_are_its_columns_in_their_order():
    X, y = table(80)
    frame = pd.DataFrame(y, columns=["sun", "sea", "sky", "fun", "art"])
    classifier = MetricClassifier(**FAST).fit(X, frame)
    assert classifier.classes_.tolist() == ["sun", "sea", "sky", "fun", "art"]
    assert same_fit(classifier, MetricClassifier(**FAST).fit(X, y))


def test_validation_labels_are_brought_into_the_order_of_the_classes():
    X, y = table(120)
    columns = ["sun", "sea", "sky", "fun", "art"]
    frame, held_out = pd.DataFrame(y[:80], columns=columns), pd.DataFrame(y[80:], columns=columns)
    expected = MetricClassifier(**FAST).fit(X[:80], y[:80], validation=(X[80:], y[80:]))
    for validation in (held_out, held_out[sorted(columns)], y[80:]):
        assert same_fit(MetricClassifier(**FAST).fit(X[:80], frame, validation=(X[80:], validation)), expected)
    named = MetricClassifier(**FAST).fit(X[:80], names_of(y[:80]), validation=(X[80:], names_of(y[80:])))
    assert same_fit(named, expected)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (lambda y: [["label a", "beach"]] * len(y), r"`y` has labels that are not in `classes_`: \['beach'\]"),
        (lambda y: pd.DataFrame(y, columns=list("abcde")), r"`y` must have the columns \['label a', .* got \['a', 'b'"),
        (lambda y: y[:, :4], "`y` must have the 5 labels of `fit`, got 4"),
    ],
)
def test_validation_labels_of_other_classes_are_an_error(labels, message):
    X, y = table(120)
    with pytest.raises(ValueError, match=f"`validation` must be a pair .*: {message}"):
        MetricClassifier(**FAST).fit(X[:80], names_of(y[:80]), validation=(X[80:], labels(y[80:])))


@pytest.mark.parametrize("num_labels", [2, 4])
def test_columns_of_a_frame_are_brought_into_the_order_of_fit(num_labels):
    X, y = table(80)
    frame = pd.DataFrame(y[:, :num_labels], columns=["sun", "sea", 3, "art"][:num_labels])
    classifier = MetricClassifier(**FAST).fit(X, frame)
    assert classifier.score(X, frame[frame.columns[::-1]]) == classifier.score(X, frame)
    with pytest.raises(ValueError, match=r"`y` must have the columns \['sun', 'sea'.* got \['beach', 'sea'"):
        classifier.score(X, frame.rename(columns={"sun": "beach"}))


def test_random_draws_of_a_callback_do_not_change_the_fit():
    X, y = table(80)
    settings = FAST | {"n_members": 2}
    fitted = MetricEmbedder(**settings).fit(X, y, callback=lambda stage, record: torch.rand(3))
    assert same_fit(fitted, MetricEmbedder(**settings).fit(X, y))


def test_a_callback_that_changes_its_record_does_not_change_the_history():
    X, y = table(80)
    fitted = MetricEmbedder(**FAST).fit(X, y, callback=lambda stage, record: record.clear())
    assert fitted.history_ == MetricEmbedder(**FAST).fit(X, y).history_


def test_labels_in_half_precision_are_read():
    X, y = table(80)
    half = torch.tensor(y, dtype=torch.bfloat16)
    assert same_fit(MetricEmbedder(**FAST).fit(X, half), MetricEmbedder(**FAST).fit(X, y))


def test_validation_names_without_names_in_fit_are_an_error():
    X, y = table(120)
    with pytest.raises(ValueError, match="`y` must be a label matrix as in `fit`, got label names"):
        MetricClassifier(**FAST).fit(X[:80], y[:80], validation=(X[80:], names_of(y[80:])))


@pytest.mark.parametrize("num_labels", [1, 2, 3])
@pytest.mark.parametrize(
    "kind", [np.asarray, pd.DataFrame, lambda y: [np.array(list("abc"))[: y.shape[1]][row == 1].tolist() for row in y]]
)
@pytest.mark.parametrize("response_method", ["decision_function", "predict_proba"])
def test_scorers_of_one_or_two_labels_do_not_expect_a_binary_target(num_labels, kind, response_method):
    X, y = table()
    y = y[:, :num_labels]
    classifier = MetricClassifier(**FAST).fit(X, kind(y))
    scorer = make_scorer(roc_auc_score, response_method=response_method)
    expected = roc_auc_score(y, classifier.predict_proba(X))
    assert expected > 0.5
    assert scorer(classifier, X, y) == pytest.approx(expected)


def test_score_takes_labels_of_the_kinds_of_fit():
    X, y = table(80)
    classifier = MetricClassifier(**FAST).fit(X, names_of(y))
    expected = accuracy_score(y, classifier.predict(X))
    for labels in (y, names_of(y), sparse.csr_matrix(y), pd.DataFrame(y, columns=NAMES).astype("Int64")):
        assert classifier.score(X, labels) == pytest.approx(expected)
    weights = np.arange(80.0)
    weighted = accuracy_score(y, classifier.predict(X), sample_weight=weights)
    assert classifier.score(X, y, weights) == pytest.approx(weighted)


# Checkpoints and callbacks


def kill_after(stage, epoch):
    def callback(current, record):
        if (current, record["epoch"]) == (stage, epoch):
            raise Killed

    return callback


RESUMABLE = FAST | {"head": partial(TINY, dropout=0.5), "n_members": 3, "max_epochs": 3}
STAGES = ["embedding_1", "embedding_2", "embedding_3", "classifier"]
KINDS = {  # each with its stages, whose epochs are reported, and its files
    "embedder": (MetricEmbedder, STAGES[:3], STAGES[:3]),
    "classifier": (MetricClassifier, STAGES[:3], [*STAGES[:3], "classifier_ensemble"]),
    "two stages": (partial(MetricClassifier, two_stage=True), STAGES, STAGES),
}
each_kind = pytest.mark.parametrize(("make", "stages", "files"), KINDS.values(), ids=KINDS)


@each_kind
def test_callback_is_called_with_stage_and_record_of_each_epoch(make, stages, files):
    X, y = table(80)
    calls = []
    fitted = make(**RESUMABLE).fit(X, y, callback=lambda *arguments: calls.append(arguments))
    histories = fitted.history_[: len(stages)]
    assert calls == [(stage, record) for stage, records in zip(stages, histories, strict=True) for record in records]
    assert [record["epoch"] for _, record in calls] == [1, 2, 3] * len(stages)


@each_kind
@pytest.mark.parametrize(("stage", "epoch"), [("embedding_1", 1), ("embedding_2", 3), ("embedding_3", 2)])
def test_fit_resumed_from_its_folder_has_the_bits_of_an_uninterrupted_one(make, stages, files, stage, epoch, tmp_path):
    X, y = table(80)
    expected = make(**RESUMABLE).fit(X, y)
    folder = tmp_path / "new" / "checkpoints"
    with pytest.raises(Killed):
        make(**RESUMABLE).fit(X, y, checkpoint_dir=str(folder), callback=kill_after(stage, epoch))
    reported = []
    for _ in range(2):  # the second fit only loads the checkpoints
        resumed = make(**RESUMABLE).fit(X, y, checkpoint_dir=folder, callback=lambda *call: reported.append(call))
        assert same_fit(resumed, expected)
        assert resumed.history_ == expected.history_
    assert len(reported) == 2 * 3 * len(stages)
    assert sorted(file.name for file in folder.iterdir()) == sorted(f"{stage}.pt" for stage in files)


def test_fit_resumed_in_stage_two_has_the_bits_of_an_uninterrupted_one(tmp_path):
    X, y = table(80)
    settings = RESUMABLE | {"two_stage": True}
    expected = MetricClassifier(**settings).fit(X, y)
    with pytest.raises(Killed):
        MetricClassifier(**settings).fit(X, y, checkpoint_dir=tmp_path, callback=kill_after("classifier", 2))
    assert same_fit(MetricClassifier(**settings).fit(X, y, checkpoint_dir=tmp_path), expected)


def test_folder_contains_the_state_dict_of_the_classifier(tmp_path):
    X, y = table(80)
    fitted = MetricClassifier(**RESUMABLE).fit(X, y, checkpoint_dir=tmp_path)
    saved = torch.load(tmp_path / "classifier_ensemble.pt", weights_only=True)["module"]
    other = MetricClassifier(**RESUMABLE | {"random_state": 1}).fit(X, y)
    assert not np.array_equal(other.decision_function(X), fitted.decision_function(X))
    other.classifier_.load_state_dict(saved)
    np.testing.assert_array_equal(other.decision_function(X), fitted.decision_function(X))


def test_classifier_continues_from_the_checkpoints_of_an_embedder(tmp_path):
    X, y = table(80)
    batches = []

    class Loss(nn.Module):
        def forward(self, embeddings, labels):
            batches.append(len(labels))
            return embeddings.square().mean()

        def fingerprint(self):
            return "mean of squares"

    settings = RESUMABLE | {"loss": Loss()}
    rows = {"X": X[:60], "y": y[:60], "validation": (X[60:], y[60:])}
    MetricEmbedder(**settings).fit(**rows, checkpoint_dir=tmp_path)
    expected = len(batches)
    MetricClassifier(**settings, two_stage=True).fit(**rows, checkpoint_dir=tmp_path)
    assert len(batches) == expected > 0


def test_fit_without_a_random_state_resumes_with_the_seeds_of_its_folder(tmp_path):
    X, y = table(80)
    settings = RESUMABLE | {"random_state": None}
    with pytest.raises(Killed):
        MetricClassifier(**settings).fit(X, y, checkpoint_dir=tmp_path, callback=kill_after("embedding_2", 2))
    np.random.random(3)  # noqa: NPY002
    first, second = (MetricClassifier(**settings).fit(X, y, checkpoint_dir=tmp_path) for _ in range(2))
    assert same_fit(first, second)
    assert (tmp_path / "seeds.json").exists()
    assert not same_fit(MetricClassifier(**settings).fit(X, y), first)
    (tmp_path / "seeds.json").write_text("[1")
    with pytest.raises(OSError, match=r"seeds\.json is damaged"):
        MetricClassifier(**settings).fit(X, y, checkpoint_dir=tmp_path)


@pytest.mark.parametrize(
    ("settings", "others", "message"),
    [
        ({}, {"lr": 0.002}, r"embedding_1\.pt has other settings or data: lr was 0\.003 and is 0\.002"),
        ({}, {"classifier_weight": 1.0}, r"embedding_1\.pt has other settings or data: classifier_weight was 3\.0"),
        ({}, {"random_state": 1}, r"embedding_1\.pt has other settings or data: seed was \d+ and is \d+"),
        ({}, {"label_loss": AsymmetricLoss()}, r"embedding_1\.pt has other settings or data: classifier_loss was None"),
        ({}, {"two_stage": True}, r"embedding_1\.pt has other settings or data: keeps_label_network was True"),
        (
            {"two_stage": True},
            {"activation": "softmax"},
            r"classifier\.pt has other settings or data: module\.activation was 'sigmoid'",
        ),
    ],
)
def test_checkpoint_of_other_settings_is_an_error_that_names_the_file(settings, others, message, tmp_path):
    X, y = table(80)
    MetricClassifier(**FAST | settings).fit(X, y, checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match=message):
        MetricClassifier(**FAST | settings | others).fit(X, y, checkpoint_dir=tmp_path)


def test_checkpoint_of_other_rows_is_an_error_that_names_the_file(tmp_path):
    X, y = table(80)
    settings = FAST | {"validation_fraction": 0}
    MetricEmbedder(**settings).fit(X, y, checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match=r"embedding_1\.pt has other settings or data: labels has other values"):
        MetricEmbedder(**settings).fit(X, 1 - y, checkpoint_dir=tmp_path)


def test_pipeline_passes_folder_and_callback_to_its_steps(tmp_path):
    X, y = table(80)
    stages = []
    pipeline = make_pipeline(StandardScaler(), MetricClassifier(**FAST))
    pipeline.fit(
        X,
        y,
        metricclassifier__checkpoint_dir=tmp_path / "classifier",
        metricclassifier__callback=lambda stage, _: stages.append(stage),
    )
    assert stages == ["embedding_1"] * 2
    assert len(list((tmp_path / "classifier").iterdir())) == 2
    two_stages = make_pipeline(StandardScaler(), MetricClassifier(**FAST, two_stage=True))
    two_stages.fit(X, y, metricclassifier__callback=lambda stage, _: stages.append(stage))
    assert stages[2:] == ["embedding_1"] * 2 + ["classifier"] * 2
    embedding = make_pipeline(MetricEmbedder(**FAST), KNeighborsClassifier())
    embedding.fit(X, y, metricembedder__checkpoint_dir=tmp_path / "embedder")
    assert [file.name for file in (tmp_path / "embedder").iterdir()] == ["embedding_1.pt"]


def test_fit_logs_stages_and_epochs_as_info(caplog):
    X, y = table(80)
    with caplog.at_level("INFO", logger="mlmetric"):
        MetricClassifier(**FAST, two_stage=True).fit(X, y)
    assert {record.levelname for record in caplog.records} == {"INFO"}
    messages = [record.getMessage() for record in caplog.records]
    assert messages[0] == "embedding_1: 64 training rows, 16 validation rows"
    assert messages[1].startswith("epoch 1 of 2: loss ")
    assert "val_map" in messages[1]
    assert messages[3] == "classifier: 64 training rows, 16 validation rows"
    assert len(messages) == 6
    caplog.clear()
    with caplog.at_level("INFO", logger="mlmetric"):
        MetricClassifier(**FAST).fit(X, y)
    assert [record.getMessage() for record in caplog.records] == messages[:3]


# Kinds of features and labels


@each_fit
def test_all_kinds_of_labels_give_the_same_fit(make):
    X, y = table()
    expected = make(**FAST).fit(X, y)
    for given in (
        sparse.csr_matrix(y),
        sparse.csc_array(y),
        y.tolist(),
        y.astype(bool),
        y.astype(np.float16),
        torch.tensor(y),
        np.asfortranarray(y),
    ):
        assert same_fit(make(**FAST).fit(X, given), expected)


@pytest.mark.parametrize("dtype", ["int64", "bool", "float32", "Int64", "boolean"])
def test_labels_in_a_data_frame_give_the_same_fit(dtype):
    X, y = table()
    frame = pd.DataFrame(y, columns=list("abcde"), index=np.arange(len(y)) * 7).astype(dtype)
    assert same_fit(MetricClassifier(**FAST).fit(X, frame), MetricClassifier(**FAST).fit(X, y))


@each_estimator
def test_all_kinds_of_features_give_the_same_fit(estimator):
    X, y = table()
    X = X.astype(np.float32).astype(float)
    expected = estimator(**FAST).fit(X, y)
    for given in (X.tolist(), X.astype(np.float32), torch.tensor(X), np.asfortranarray(X), pd.DataFrame(X)):
        fitted = estimator(**FAST).fit(given, y)
        assert same_fit(fitted, expected)
        np.testing.assert_allclose(fitted.transform(given), expected.transform(X), rtol=1e-4, atol=1e-6)


@each_estimator
def test_feature_names_are_stored_and_checked(estimator):
    X, y = table()
    names = [f"pixel {number}" for number in range(20)]
    frame = pd.DataFrame(X, columns=names)
    fitted = estimator(**FAST).fit(frame, y)
    assert fitted.feature_names_in_.tolist() == names
    assert fitted.n_features_in_ == 20
    with pytest.raises(ValueError, match=r"feature names should match(.|\n)*- pixel 3"):
        fitted.transform(frame.rename(columns={"pixel 3": "pixel 99"}))
    with pytest.raises(ValueError, match=r"X has 19 features, but \w+ is expecting 20"):
        estimator(**FAST).fit(X, y).transform(X[:, 1:])


@each_estimator
def test_set_output_gives_a_data_frame_with_named_columns(estimator):
    X, y = table()
    frame = pd.DataFrame(X, index=np.arange(len(X)) * 3)
    fitted = estimator(**FAST).fit(frame, y)
    embedded = fitted.transform(frame)
    named = fitted.set_output(transform="pandas").transform(frame)
    prefix = estimator.__name__.lower()
    assert named.columns.tolist() == [f"{prefix}{number}" for number in range(4)]
    assert named.columns.tolist() == fitted.get_feature_names_out().tolist()
    assert named.index.equals(frame.index)
    np.testing.assert_array_equal(named, embedded)
    assert embedded.dtype == np.float32


@each_estimator
def test_fit_does_not_change_data_loss_and_miner(estimator):
    X, y = table()
    loss = MultiLabelProxyAnchorLoss(num_labels=5, embedding_size=4)
    miner = MultiLabelSemiHardMiner()
    given = X.copy(), y.copy(), copy.deepcopy(loss.state_dict())
    fitted = estimator(**FAST | {"loss": loss, "miner": miner, "mixup": 0.0, "n_members": 2}).fit(X, y)
    np.testing.assert_array_equal(X, given[0])
    np.testing.assert_array_equal(y, given[1])
    assert all(torch.equal(value, given[2][name]) for name, value in loss.state_dict().items())
    assert fitted.loss is loss
    assert fitted.miner is miner


@pytest.mark.parametrize(
    ("X", "y"),
    [
        (table()[0], np.column_stack([table()[1], np.zeros(160, dtype=int)])),
        (table()[0], np.column_stack([table()[1], np.ones(160, dtype=int)])),
        (table()[0], table()[1][:, :1]),
        (table()[0], table()[1] * (np.arange(160) % 2)[:, None]),
        (table()[0], np.zeros((160, 3), dtype=int)),
        (np.zeros((160, 20)), table()[1]),
        (np.repeat(table()[0][:20], 8, axis=0), table()[1]),
        (table()[0][:, :1], table()[1]),
        (table()[0][:2], table()[1][:2]),
        (table()[0][:3], table()[1][:3]),
    ],
    ids=[
        "a label without positives",
        "a label of all rows",
        "one label",
        "rows without labels",
        "no label at all",
        "constant features",
        "duplicates",
        "one feature",
        "two rows",
        "three rows",
    ],
)
@pytest.mark.filterwarnings("ignore:Epochs cannot be scored")  # if no validation row has a label
def test_unusual_data_can_be_fitted_and_predicted(X, y):
    classifier = MetricClassifier(**FAST).fit(X, y)
    probabilities = classifier.predict_proba(X)
    assert probabilities.shape == classifier.decision_function(X).shape == y.shape
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    assert np.isfinite(classifier.transform(X)).all()
    assert np.isfinite(classifier.thresholds_).all()
    assert set(np.unique(classifier.predict(X))) <= {0, 1}
    assert classifier.classes_.tolist() == y.shape[1] * [[0, 1]]


def test_probabilities_approach_soft_labels():
    X, y = table()
    soft = np.column_stack([np.full(160, 0.7), y[:, 0] * 0.4])
    settings = FAST | {"max_epochs": 30, "lr": 0.03, "validation_fraction": 0}
    probabilities = MetricClassifier(**settings).fit(X, soft).predict_proba(X)
    assert probabilities[:, 0].mean() == pytest.approx(0.7, abs=0.03)
    assert probabilities[y[:, 0] == 1, 1].mean() == pytest.approx(0.4, abs=0.15)
    assert probabilities[y[:, 0] == 0, 1].mean() < 0.15


def test_soft_validation_labels_of_at_least_one_half_are_present():
    X, y = table()
    soft = np.where(y, 0.5, 0.49)
    fitted = MetricClassifier(**FAST).fit(X, soft)
    validation = validation_rows(MetricClassifier(**FAST), X, soft)
    expected = best_thresholds(fitted.predict_proba(X[validation]), y[validation])
    np.testing.assert_allclose(fitted.thresholds_, expected, rtol=1e-5)


# Seeds and copies


@each_fit
def test_same_random_state_gives_same_bits_and_other_ones_do_not(make):
    X, y = table()
    settings = FAST | {"head": partial(TINY, dropout=0.5), "n_members": 2}
    first = make(**settings).fit(X, y)
    torch.rand(3)
    assert same_fit(make(**settings).fit(X, y), first)
    assert same_fit(first.fit(X, y), clone(first).fit(X, y))
    assert same_fit(make(**settings | {"random_state": np.random.RandomState(0)}).fit(X, y), first)
    assert not same_fit(make(**settings | {"random_state": 1}).fit(X, y), first)
    unseeded = [make(**settings | {"random_state": None}).fit(X, y) for _ in range(2)]
    assert not same_fit(*unseeded)


@each_fit
def test_fits_in_threads_equal_those_of_one_thread_and_restore_the_global_generator(make):
    X, y = table()

    def fit(seed):
        return make(**FAST | {"random_state": seed, "n_members": 2}).fit(X, y)

    alone = [fit(seed) for seed in range(3)]
    state = torch.get_rng_state()
    together = joblib.Parallel(n_jobs=3, backend="threading")(joblib.delayed(fit)(seed) for seed in range(3))
    assert torch.equal(torch.get_rng_state(), state)
    for first, second in zip(alone, together, strict=True):
        assert first.history_ == second.history_
        assert same_fit(first, second)


@each_fit
def test_random_state_instance_advances_and_a_clone_has_a_copy(make):
    X, y = table()
    shared = make(**FAST | {"random_state": np.random.RandomState(0)})
    own = clone(shared)
    first = copy.deepcopy(shared.fit(X, y))
    assert not same_fit(shared.fit(X, y), first)
    assert same_fit(own.fit(X, y), first)


def global_states():
    name, keys, *position = np.random.get_state()  # noqa: NPY002
    return torch.get_rng_state().tolist(), [name, keys.tolist(), *position], random.getstate()


@each_fit
def test_fit_restores_the_global_generators(make):
    X, y = table()
    torch.rand(7)  # a state that no fit leaves
    before = global_states()
    make(**FAST | {"head": partial(TINY, dropout=0.5), "items_per_label": 2}).fit(X, y)
    assert global_states() == before


@each_estimator
def test_clone_is_unfitted_and_has_the_same_parameters(estimator):
    X, y = table()
    fitted = estimator(**FAST | {"label_loss": AsymmetricLoss()} if estimator is MetricClassifier else FAST).fit(X, y)
    other = clone(fitted)
    for name in ("transform", "decision_function", "predict_proba", "predict"):
        if hasattr(other, name):
            with pytest.raises(NotFittedError, match=f"This {estimator.__name__} instance is not fitted yet"):
                getattr(other, name)(X)
    assert not [name for name in vars(other) if name.endswith("_")]
    assert {name for name in other.get_params() if name in FAST} == set(FAST)
    assert other.get_params()["batch_size"] == 32


@each_estimator
def test_set_params_sets_parameters_by_name(estimator):
    X, y = table()
    changed = estimator(**FAST).set_params(max_epochs=1, batch_size=64)
    assert same_fit(changed.fit(X, y), estimator(**FAST | {"max_epochs": 1, "batch_size": 64}).fit(X, y))
    with pytest.raises(ValueError, match="Invalid parameter 'epochs'"):
        changed.set_params(epochs=3)


def test_both_estimators_have_the_same_defaults():
    embedder, classifier = MetricEmbedder().get_params(), MetricClassifier().get_params()
    assert classifier.keys() - embedder.keys() == {
        "two_stage",
        "classifier_lr",
        "activation",
        "label_loss",
        "calibration",
        "threshold",
        "max_predicted",
    }
    assert {name: classifier[name] for name in embedder} == embedder


def copy_with_joblib(estimator):
    file = io.BytesIO()
    joblib.dump(estimator, file)
    file.seek(0)
    return joblib.load(file)


@each_fit
@pytest.mark.parametrize(
    "make_copy",
    [lambda estimator: pickle.loads(pickle.dumps(estimator)), copy_with_joblib, copy.deepcopy],
    ids=["pickle", "joblib", "deepcopy"],
)
def test_copy_of_a_fitted_estimator_predicts_the_same(make, make_copy):
    X, y = table()
    miner = MultiLabelSemiHardMiner()
    fitted = make(**FAST | {"loss": TripletMarginLoss(), "miner": miner}).fit(X, y)
    other = make_copy(fitted)
    assert same_fit(other, fitted)
    np.testing.assert_array_equal(other.transform(X), fitted.transform(X))
    if isinstance(fitted, MetricClassifier):
        np.testing.assert_array_equal(other.predict(X), fitted.predict(X))
    assert same_fit(other.fit(X, y), fitted)


# Quality


@pytest.fixture(scope="module")
def fitted_recipe():
    """A classifier and a scaler fitted on the first 300 rows of a table, and the table, with 200 test rows."""
    X, y = table(500)
    return MetricClassifier(**RECIPE).fit(X[:300], y[:300]), StandardScaler().fit(X[:300]), X, y


def retrieval(embeddings, y):
    return float(ndcg_at_k(embeddings[300:], y[300:], embeddings[:300], y[:300]))


def test_embedding_retrieves_better_than_the_features(fitted_recipe):
    classifier, scaler, X, y = fitted_recipe
    assert retrieval(classifier.transform(X), y) > retrieval(scaler.transform(X), y) + NDCG_GAINED


def test_classifier_ranks_labels_far_above_chance(fitted_recipe):
    classifier, _, X, y = fitted_recipe
    for scores in (classifier.predict_proba(X[300:]), classifier.decision_function(X[300:])):
        assert float(mean_average_precision(scores, y[300:])) > y[300:].mean() + MAP_GAINED


def test_predictions_are_better_than_predicting_all_labels(fitted_recipe):
    classifier, _, X, y = fitted_recipe
    assert macro_f1(y[300:], classifier.predict(X[300:])) > macro_f1(y[300:], np.ones_like(y[300:])) + F1_GAINED


@CLASSIFIERS
def test_classifiers_of_sklearn_predict_labels_from_the_embedding(fitted_recipe, classifier):
    embedder, scaler, X, y = fitted_recipe
    score, score_on_features = (
        macro_f1(y[300:], clone(classifier).fit(inputs[:300], y[:300]).predict(inputs[300:]))
        for inputs in (embedder.transform(X), scaler.transform(X))
    )
    assert score > macro_f1(y[300:], np.ones_like(y[300:])) + F1_GAINED
    if isinstance(classifier, KNeighborsClassifier):
        assert score > score_on_features + F1_GAINED


def test_classifier_and_embedder_have_the_same_embedding():
    X, y = table()
    for settings in ({"n_members": 2}, {"n_members": 3, "validation_fraction": 0}, {"two_stage": True}):
        classifier = MetricClassifier(**FAST | settings).fit(X, y)
        embedder = MetricEmbedder(**FAST | {name: settings[name] for name in settings.keys() - {"two_stage"}}).fit(X, y)
        np.testing.assert_array_equal(embedder.transform(X), classifier.transform(X))
        assert embedder.history_ == classifier.history_[: embedder.n_members]


@each_estimator
def test_fit_transform_equals_fit_and_transform(estimator):
    X, y = table()
    np.testing.assert_array_equal(estimator(**FAST).fit_transform(X, y), estimator(**FAST).fit(X, y).transform(X))


def test_head_computes_the_same_embeddings_as_transform(fitted_recipe):
    classifier, _, X, _ = fitted_recipe
    with torch.no_grad():
        embeddings = classifier.head_(torch.tensor(X, dtype=torch.float32))
    np.testing.assert_allclose(embeddings, classifier.transform(X), rtol=1e-4, atol=1e-5)


def test_best_epoch_on_validation_rows_is_kept():
    X, y = table()
    y = y[::-1]  # unrelated to the features: the score fluctuates
    settings = FAST | {"max_epochs": 8, "lr": 0.03, "classifier_weight": 0.0}
    fitted = MetricEmbedder(**settings).fit(numbered(X), y)
    validation = validation_rows(MetricEmbedder(**settings), X, y)
    trained_on = np.setdiff1d(np.arange(160), validation)
    embeddings = fitted.transform(numbered(X))
    score = float(ndcg_at_k(embeddings[validation], y[validation], embeddings[trained_on], y[trained_on]))
    scores = [record["val_ndcg_at_10"] for record in fitted.history_[0]]
    assert max(scores) > scores[-1]  # the last epoch is not the best
    assert score == pytest.approx(max(scores))


# The validation argument


def test_validation_argument_leaves_all_rows_for_training():
    X, y = table(240)
    validation = (X[160:], y[160:])
    seen = []
    settings = FAST | {"head": partial(RecordingHead, seen=seen), "mixup": 0.0, "max_epochs": 1}
    MetricEmbedder(**settings).fit(numbered(X[:160]), y[:160], validation)
    assert sorted(seen) == list(range(160))
    classifier = MetricClassifier(**FAST).fit(X[:160], y[:160], validation=validation)
    chosen = best_thresholds(classifier.predict_proba(X[160:]), y[160:])
    np.testing.assert_allclose(classifier.thresholds_, chosen, rtol=1e-5)
    embeddings = classifier.transform(X)
    score = float(ndcg_at_k(embeddings[160:], y[160:], embeddings[:160], y[:160]))
    assert score in [pytest.approx(record["val_ndcg_at_10"]) for record in classifier.history_[0]]


def test_validation_argument_works_with_a_validation_fraction_of_0():
    X, y = table()
    settings = FAST | {"validation_fraction": 0, "max_epochs": 9, "lr": 1e-12, "patience": 1}
    for two_stage in (False, True):
        classifier = MetricClassifier(**settings, two_stage=two_stage, classifier_lr=None)
        fitted = classifier.fit(X[:100], y[:100], validation=(X[100:], sparse.csr_matrix(y[100:])))
        assert [len(records) for records in fitted.history_[: 1 + two_stage]] == [2] * (1 + two_stage)
        assert fitted.thresholds_.tolist() != [0.5] * 5


@each_estimator
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X, y: (X, y[:, :4]), "must have the 5 labels of `fit`, got 4"),
        (lambda X, y: (X[:, :19], y), r"X has 19 features, but \w+ is expecting 20"),
        (lambda X, y: (X[1:], y), "must have the same number of rows, got 159 and 160"),
        (lambda X, y: (X[:0], y[:0]), r"Found array with 0 sample\(s\)"),
        (lambda X, y: (X, 2 * y), r"must contain numbers in \[0, 1\], got 2 at row"),
    ],
)
def test_invalid_validation_data_are_an_error(estimator, change, message):
    X, y = table()
    with pytest.raises(ValueError, match=f"`validation`.*{message}"):
        estimator(**FAST).fit(X, y, validation=change(X, y))


@each_estimator
def test_validation_that_is_not_a_pair_is_an_error(estimator):
    X, y = table()
    for given in (X, (X, y, y), 5):
        with pytest.raises((TypeError, ValueError), match="`validation` must be a pair of features `X` and labels `y`"):
            estimator(**FAST).fit(X, y, validation=given)


# Thresholds


def test_thresholds_are_chosen_on_validation_rows_only():
    X, y = table(240)
    validation = validation_rows(MetricClassifier(**FAST), X, y)
    trained_on = np.setdiff1d(np.arange(240), validation)
    for average in ("macro", "micro"):
        for limit in (0.8, 1.5, np.inf):
            settings = {"average": average, "max_predicted": limit}
            classifier = MetricClassifier(**FAST, threshold=average, max_predicted=limit).fit(X, y)
            of_rows = [
                best_thresholds(classifier.predict_proba(X[rows]), y[rows], **settings)
                for rows in (validation, trained_on)
            ]
            np.testing.assert_allclose(classifier.thresholds_, of_rows[0], rtol=1e-5)
            assert not np.allclose(classifier.thresholds_, of_rows[1].numpy(), rtol=1e-3)


def test_validation_fraction_is_kept_and_stratified():
    X, y = table(240)
    for fraction in (0.1, 0.25, 0.5):
        validation = validation_rows(MetricEmbedder(**FAST, validation_fraction=fraction), X, y)
        assert len(validation) == pytest.approx(240 * fraction, abs=6)
        assert y[validation].mean(axis=0) == pytest.approx(y.mean(axis=0), abs=0.05)
    assert len(validation_rows(MetricEmbedder(**FAST, validation_fraction=0), X, y)) == 0
    others = validation_rows(MetricEmbedder(**FAST | {"random_state": 1}, validation_fraction=0.5), X, y)
    assert set(others) != set(validation)


def test_extreme_validation_fractions_leave_training_and_validation_rows():
    X, y = table()
    for fraction in (0.01, 0.99):
        seen = rows_trained_on(MetricEmbedder(**FAST, validation_fraction=fraction), numbered(X[:8]), y[:8])
        assert 2 <= len(set(seen)) <= 7


def test_limit_bounds_the_number_of_predictions():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(240, 4)), rng.integers(0, 4, (240, 3)) == 0  # labels that features do not predict
    ratios = [
        MetricClassifier(**FAST, max_predicted=limit).fit(X, y).predict(X).sum() / y.sum() for limit in (0.5, 1.5, 9.0)
    ]
    assert ratios[0] < 1 < ratios[1] < ratios[2]


def test_numeric_threshold_applies_to_all_labels():
    X, y = table()
    shares = []
    for threshold in (0, 0.4, 0.6, 1.1):
        classifier = MetricClassifier(**FAST, threshold=threshold).fit(X, y)
        assert classifier.thresholds_.tolist() == [threshold] * 5
        np.testing.assert_array_equal(classifier.predict(X), classifier.predict_proba(X) >= threshold)
        shares.append(classifier.predict(X).mean())
    assert shares[0] == 1
    assert shares[-1] == 0
    assert shares == sorted(shares, reverse=True)


@pytest.mark.parametrize("threshold", ["macro", "micro"])
@pytest.mark.filterwarnings("ignore:Epochs cannot be scored")
def test_thresholds_are_one_half_without_validation_rows_or_positives(threshold):
    X, y = table()
    assert (
        MetricClassifier(**FAST, threshold=threshold, validation_fraction=0).fit(X, y).thresholds_.tolist() == [0.5] * 5
    )
    assert MetricClassifier(**FAST, threshold=threshold).fit(X, 0 * y).thresholds_.tolist() == [0.5] * 5


def test_probability_equal_to_the_threshold_is_predicted():
    X, y = table()
    classifier = MetricClassifier(**FAST).fit(X, y)
    classifier.thresholds_ = classifier.predict_proba(X)[3].astype(np.float64)
    assert classifier.predict(X)[3].tolist() == [1] * 5


# The effect of each parameter


def test_head_is_called_with_the_number_of_features_for_each_member():
    X, y = table()
    sizes = []

    def head(in_features):
        sizes.append(in_features)
        return EmbeddingHead(in_features, (7, 3))

    fitted = MetricEmbedder(**FAST | {"head": head, "n_members": 3}).fit(X, y)
    assert sizes == [20, 20, 20]
    assert fitted.transform(X).shape == (160, 9)
    assert [len(records) for records in fitted.history_] == [2, 2, 2]
    first, second, third = (member.layers[0].weight for member in fitted.head_.members)
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)


def test_members_are_trained_in_different_orders_of_rows():
    X, y = table()
    settings = FAST | {"n_members": 2, "max_epochs": 1, "validation_fraction": 0}
    first, second = rows_trained_on(MetricEmbedder(**settings), numbered(X), y).reshape(2, -1)
    assert sorted(first) == sorted(second) == list(range(160))
    assert first.tolist() != second.tolist()


@pytest.mark.parametrize(
    ("settings", "num_parts"),
    [({}, 4), ({"validation_fraction": 0.4}, 2), ({"validation_fraction": 0.6}, 1), ({"n_members": 2}, 2)],
)
@each_estimator
def test_members_set_other_rows_aside(estimator, settings, num_parts):
    X, y = table()
    settings = FAST | {"n_members": 4, "max_epochs": 1, "validation_fraction": 0.25} | settings
    trained_on = rows_trained_on(estimator(**settings), numbered(X), y).reshape(settings["n_members"], -1)
    set_aside = [np.setdiff1d(np.arange(160), rows) for rows in trained_on]
    assert {len(rows) for rows in set_aside} == {round(160 * settings["validation_fraction"])}
    for number, rows in enumerate(set_aside):
        for other, other_rows in enumerate(set_aside):
            same = number % num_parts == other % num_parts
            assert set(rows) & set(other_rows) == (set(rows) if same else set())


@pytest.mark.parametrize("settings", [{"two_stage": True}, {"validation": True}], ids=["two_stage", "validation"])
def test_members_share_their_validation_rows_in_two_stages_or_if_given(settings):
    X, y = table()
    validation = (numbered(X)[:40], y[:40]) if "validation" in settings else None
    seen = []
    classifier = MetricClassifier(**FAST | {"n_members": 3, "max_epochs": 1, "mixup": 0.0}).set_params(
        two_stage="two_stage" in settings, head=partial(RecordingHead, seen=seen)
    )
    classifier.fit(numbered(X), y, validation=validation)
    trained_on = np.array(seen, dtype=int).reshape(3, -1)
    assert trained_on.shape[1] == (128 if validation is None else 160)
    assert sorted(trained_on[0]) == sorted(trained_on[1]) == sorted(trained_on[2])


def test_squared_distance_is_the_mean_of_those_of_the_members():
    X, y = table()
    fitted = MetricEmbedder(**FAST | {"n_members": 3}).fit(X, y)
    members = fitted.transform(X).reshape(160, 3, 4) * np.sqrt(3)
    expected = ((members[:, None] - members[None]) ** 2).sum(axis=3).mean(axis=2)
    embeddings = fitted.transform(X)
    np.testing.assert_allclose(
        ((embeddings[:, None] - embeddings[None]) ** 2).sum(axis=2), expected, rtol=1e-4, atol=1e-5
    )


def test_embedding_minimises_the_given_loss():
    X, y = table()
    settings = FAST | {"max_epochs": 25, "lr": 0.1, "classifier_weight": 0.0}
    fitted = MetricEmbedder(**settings, loss=lambda embeddings, _: (embeddings - 7).square().mean()).fit(X, y)
    assert fitted.transform(X).mean() == pytest.approx(7, abs=0.3)
    assert fitted.history_[0][-1]["loss"] < 1


def test_loss_of_pytorch_metric_learning_is_called_with_mined_triplets():
    X, y = table()
    counts = []
    for cap in (1, 4, None):
        miner = MultiLabelSemiHardMiner(max_triplets_per_anchor=cap)
        fitted = MetricEmbedder(**FAST, loss=TripletMarginLoss(), miner=miner).fit(X, y)
        counts.append(fitted.history_[0][0]["triplets"])
    assert 0 < counts[0] <= 160
    assert counts[0] < counts[1] < counts[2]
    assert "triplets" not in MetricEmbedder(**FAST).fit(X, y).history_[0][0]


def test_classifier_weight_scales_the_loss_of_the_classifier():
    X, y = table()

    def without_a_metric(embeddings, _):
        return 0 * embeddings.sum()

    settings = FAST | {"loss": without_a_metric, "validation_fraction": 0}
    first, third = (
        MetricEmbedder(**settings | {"classifier_weight": 0.0, "max_epochs": epochs}).fit(X, y) for epochs in (1, 3)
    )
    assert same_fit(first, third)  # the loss has no gradient
    learning = MetricEmbedder(**settings | {"classifier_weight": 1.0, "max_epochs": 30, "lr": 0.01}).fit(X, y)
    losses = [record["loss"] for record in learning.history_[0]]
    assert losses[-1] < 0.8 * losses[0]
    doubled = MetricEmbedder(**settings | {"classifier_weight": 2.0, "max_epochs": 1, "lr": 1e-9}).fit(X, y)
    single = MetricEmbedder(**settings | {"classifier_weight": 1.0, "max_epochs": 1, "lr": 1e-9}).fit(X, y)
    assert doubled.history_[0][0]["loss"] == pytest.approx(2 * single.history_[0][0]["loss"])


@each_estimator
def test_with_standardize_the_scale_of_features_has_no_effect(estimator):
    X, y = table()
    rescaled = X * 2.0 ** np.arange(-5, 15) + 3
    alike, other = (
        [estimator(**FAST, standardize=standardize).fit(each, y).transform(each) for each in (X, rescaled)]
        for standardize in (True, False)
    )
    np.testing.assert_allclose(alike[0], alike[1], rtol=1e-2, atol=1e-3)
    assert np.abs(other[0] - other[1]).max() > 1


def test_standardize_applies_to_the_embedding_of_the_classifier():
    X, y = table()
    fitted = MetricClassifier(**FAST, validation_fraction=0, two_stage=True).fit(X, y)
    embeddings = fitted.transform(X)
    statistics = fitted.classifier_.classifier.standardize
    np.testing.assert_allclose(statistics.mean, embeddings.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(statistics.scale, embeddings.std(axis=0), rtol=1e-4)
    unstandardised = MetricClassifier(**FAST, standardize=False, two_stage=True).fit(X, y)
    assert unstandardised.classifier_.classifier.standardize.scale.tolist() == [1] * 4
    assert unstandardised.head_.members[0].standardize.scale.tolist() == [1] * 20


def test_standardize_applies_to_the_features_of_the_logistic_regression():
    X, y = table()
    X[0] += 100  # clipped
    of_features = MetricClassifier(**FAST).fit(X, y).classifier_.members[-1]
    expected = StandardScaler().fit_transform(X)
    assert expected.max() > 3
    inputs = of_features.inputs(torch.tensor(X, dtype=torch.float32))
    np.testing.assert_allclose(inputs, expected.clip(-3, 3), rtol=1e-4, atol=1e-5)
    unstandardised = MetricClassifier(**FAST, standardize=False).fit(X, y).classifier_.members[-1]
    assert unstandardised.clip is None
    assert unstandardised.standardize.scale.tolist() == [1] * 20


def test_head_without_standardize_requires_standardize_false():
    X, y = table()

    def head(in_features):
        return nn.Linear(in_features, 3)

    settings = FAST | {"head": head}
    assert MetricEmbedder(**settings, standardize=False).fit(X, y).transform(X).shape == (160, 3)
    with pytest.raises(ValueError, match=r"Linear has none\. Pass `standardize=False`"):
        MetricEmbedder(**settings).fit(X, y)


@pytest.mark.parametrize("validation", [None, (table()[0] + 5, table()[1])], ids=["set aside", "given"])
def test_features_are_standardised_with_statistics_of_the_rows_of_x(validation):
    X, y = table()
    fitted = MetricClassifier(**FAST | {"n_members": 2}).fit(X, y, validation=validation)
    for part in (*fitted.head_.members, fitted.classifier_.members[0].head, fitted.classifier_.members[-1]):
        np.testing.assert_allclose(part.standardize.mean, X.astype(np.float32).mean(axis=0), atol=1e-5)
        np.testing.assert_allclose(part.standardize.scale, X.std(axis=0), rtol=1e-4)


def test_lr_drops_apply_to_both_stages():
    X, y = table()
    rates = {"lr": 0.1, "classifier_lr": None, "lr_drops": [1, 3]}
    fitted = MetricClassifier(**FAST | {"max_epochs": 4}, **rates, two_stage=True).fit(X, y)
    for records in fitted.history_:
        assert [record["lr"] for record in records] == pytest.approx([0.1, 0.01, 0.01, 0.001])
    assert len(fitted.history_) == 2


def test_classifier_lr_is_the_rate_of_the_second_stage():
    X, y = table()
    fitted = MetricClassifier(**FAST, lr=0.1, classifier_lr=0.02, two_stage=True).fit(X, y)
    rates = [{record["lr"] for record in records} for records in fitted.history_]
    assert rates == [{0.1}, {0.02}]
    paper = MetricClassifier.paper(**FAST | {"mixup": 0.0}, lr=0.05).fit(X, y)
    assert [{record["lr"] for record in records} for records in paper.history_] == [{0.05}, {0.05}]


def test_batch_size_applies_to_both_stages():
    X, y = table()
    batches, batches_of_logits = [], []

    def loss(embeddings, labels):
        batches.append(len(labels))
        return embeddings.square().mean()

    def label_loss(logits, labels):
        batches_of_logits.append(len(labels))
        return logits.square().mean()

    settings = FAST | {"batch_size": 50, "max_epochs": 1, "validation_fraction": 0, "loss": loss}
    MetricClassifier(**settings, label_loss=label_loss, two_stage=True).fit(X, y)
    assert batches == batches_of_logits == [50, 50, 50, 10]
    MetricClassifier(**settings, label_loss=label_loss).fit(X, y)  # in each batch of the members
    assert batches == batches_of_logits == 2 * [50, 50, 50, 10]


def test_mixup_applies_to_stage_one_only():
    X, y = table()
    batches = []

    def label_loss(logits, labels):
        batches.append(labels.numpy())
        return logits.square().mean()

    mixed = label_batches(MetricClassifier(**FAST, label_loss=label_loss, two_stage=True), X, y)
    assert any(((labels > 0.01) & (labels < 0.99)).any() for labels in mixed)
    assert all(set(np.unique(labels)) <= {0, 1} for labels in batches)
    batches.clear()
    mixed = label_batches(MetricClassifier(**FAST, label_loss=label_loss), X, y)
    assert all(np.array_equal(*pair) for pair in zip(mixed, batches, strict=True))  # the labels of both losses
    unmixed = label_batches(MetricClassifier(**FAST | {"mixup": 0.0}), X, y)
    assert all(set(np.unique(labels)) == {0, 1} for labels in unmixed)


def test_items_per_label_applies_to_stage_one_only():
    X, y = table()
    batches = []

    def label_loss(logits, labels):
        batches.append(labels.numpy())
        return logits.square().mean()

    settings = FAST | {"mixup": 0.0, "validation_fraction": 0, "max_epochs": 1}
    classifier = MetricClassifier(**settings, items_per_label=5, label_loss=label_loss, two_stage=True)
    balanced = label_batches(classifier, X, y)
    assert all(labels.sum(axis=0).min() >= 5 for labels in balanced)
    plain = label_batches(MetricEmbedder(**settings), X, y)
    assert any(labels.sum(axis=0).min() < 5 for labels in plain)
    in_stage_two = np.concatenate(batches)
    assert in_stage_two.sum(axis=0).tolist() == y.sum(axis=0).tolist()  # each row once


def test_patience_stops_each_stage_without_a_better_score():
    X, y = table()
    settings = FAST | {"max_epochs": 9, "lr": 1e-12}  # too low to change a score
    fitted = MetricClassifier(**settings, patience=2, two_stage=True, classifier_lr=None).fit(X, y)
    assert [len(records) for records in fitted.history_] == [3, 3]
    assert len(MetricClassifier(**settings, patience=2).fit(X, y).history_[0]) == 3
    fitted = MetricClassifier(**settings, two_stage=True).fit(X, y)
    assert [len(records) for records in fitted.history_] == [9, 9]


def test_probabilities_are_the_activation_of_the_logits():
    X, y = table()
    for activation in ("sigmoid", "softmax"):
        classifier = MetricClassifier(**FAST, activation=activation, two_stage=True).fit(X, y)
        logits = torch.from_numpy(classifier.decision_function(X))
        expected = logits.sigmoid() if activation == "sigmoid" else logits.softmax(dim=1)
        np.testing.assert_allclose(classifier.predict_proba(X), expected, rtol=1e-5)
    np.testing.assert_allclose(classifier.predict_proba(X).sum(axis=1), 1, rtol=1e-5)
    classifier = MetricClassifier(**FAST).fit(X, y)
    logits = torch.from_numpy(classifier.decision_function(X))
    np.testing.assert_allclose(classifier.predict_proba(X), logits.sigmoid(), rtol=1e-5)


@pytest.mark.parametrize("two_stage", [False, True])
def test_brier_score_after_few_epochs_is_close_to_that_of_frequencies(two_stage):
    X, y = table()
    train, test = slice(0, len(X) // 2), slice(len(X) // 2, None)
    classifier = MetricClassifier(**FAST | {"max_epochs": 20}, two_stage=two_stage).fit(X[train], y[train])
    probabilities = classifier.predict_proba(X[test])
    frequencies = np.broadcast_to(y[train].mean(axis=0), y[test].shape)
    assert brier(y[test], probabilities) < 1.02 * brier(y[test], frequencies)  # 1.6 with a random initialisation


def three(logits, labels):
    return (logits - 3).square().mean()


def test_logits_minimise_the_given_label_loss():
    X, y = table()
    settings = FAST | {"max_epochs": 20, "lr": 0.1, "validation_fraction": 0, "label_loss": three}
    classifier = MetricClassifier(**settings, two_stage=True, classifier_lr=None).fit(X, y)
    np.testing.assert_allclose(classifier.decision_function(X), 3, atol=0.5)


def test_logits_of_each_member_minimise_the_given_label_loss():
    X, y = table()
    settings = FAST | {"max_epochs": 25, "lr": 0.1, "n_members": 2, "validation_fraction": 0}
    fitted = MetricClassifier(**settings, label_loss=three).fit(X, y)
    *networks, of_features = fitted.classifier_.members
    features = torch.tensor(X, dtype=torch.float32)
    assert len(networks) == 2
    for network in networks:
        np.testing.assert_allclose(apply_in_batches(network, features), 3, atol=1)
    assert apply_in_batches(of_features, features).mean() < 0


def test_asymmetric_label_loss_raises_probabilities_of_absent_labels():
    X, y = table()
    settings = FAST | {"max_epochs": 20, "lr": 0.05, "validation_fraction": 0}
    for two_stage in (False, True):
        plain, asymmetric = (
            MetricClassifier(**settings, two_stage=two_stage, classifier_lr=None, label_loss=loss).fit(X, y)
            for loss in (None, AsymmetricLoss())
        )
        assert asymmetric.predict_proba(X)[y == 0].mean() > plain.predict_proba(X)[y == 0].mean() + 0.1
        assert np.array_equal(asymmetric.transform(X), plain.transform(X)) == two_stage


def test_estimator_is_trained_on_its_device():
    X, y = table()
    with pytest.raises(RuntimeError, match="device string: abacus"):
        MetricEmbedder(**FAST, device="abacus").fit(X, y)
    fitted = MetricClassifier(**FAST, device="cpu").fit(X, y)
    assert {value.device.type for value in state_of(fitted)} == {"cpu"}


def test_device_gives_the_results_of_the_cpu(device):
    X, y = table()
    for two_stage in (False, True):
        settings = FAST | {"mixup": 0.0, "two_stage": two_stage}
        on_cpu, on_device = (MetricClassifier(**settings, device=name).fit(X, y) for name in ("cpu", str(device)))
        assert {value.device for value in state_of(on_device)} == {device}
        np.testing.assert_allclose(on_device.predict_proba(X), on_cpu.predict_proba(X), atol=1e-2)
        assert on_device.predict(X).shape == y.shape


# The settings of the paper


@each_estimator
@pytest.mark.parametrize("margin", [1.0, 2.0])
def test_paper_has_the_parameters_of_the_paper(estimator, margin):
    settings = estimator.paper(margin=margin).get_params()
    assert type(estimator.paper()) is estimator
    assert settings["loss"].margin == margin
    for part in (settings["loss"], settings["miner"]):
        assert isinstance(part.distance, LpDistance)
        assert (part.distance.p, part.distance.power, part.distance.normalize_embeddings) == (2, 2, False)
    assert settings["miner"].positive_order == "farthest"
    stated = {"n_members": 1, "max_epochs": 10, "batch_size": 256, "lr": 0.01, "lr_drops": (), "mixup": 0.0}
    stated |= {"validation_fraction": 0.0, "keep_best": True, "classifier_weight": 0.0}
    stated |= {"two_stage": True, "activation": "softmax", "threshold": 0.5} if estimator is MetricClassifier else {}
    assert {name: settings[name] for name in stated} == stated
    layers = settings["head"](20).layers
    assert [layer.out_features for layer in layers if isinstance(layer, nn.Linear)] == [512, 256]
    assert not any(isinstance(layer, nn.Dropout) for layer in layers)


@each_estimator
def test_arguments_of_paper_replace_its_parameters(estimator):
    others = {"max_epochs": 20, "lr_drops": (15,), "loss": TripletMarginLoss(), "random_state": 3}
    others |= {"activation": "sigmoid"} if estimator is MetricClassifier else {}
    settings = estimator.paper(**others).get_params()
    assert {name: settings[name] for name in others} == others
    assert settings["batch_size"] == 256


@pytest.mark.parametrize("two_stage", [False, True])
def test_without_keep_best_validation_rows_do_not_change_the_last_epoch(two_stage):
    X, y = table()
    settings = FAST | {"validation_fraction": 0.0, "max_epochs": 6, "lr": 0.05, "two_stage": two_stage}
    opposite = (X[:40], 1 - y[:40])  # on which the first epoch is the best
    last, best, without = (
        MetricClassifier(**settings, keep_best=keep_best).fit(X, y, validation=validation)
        for keep_best, validation in ((False, opposite), (True, opposite), (True, None))
    )
    assert "val_map" in last.history_[0][0]
    logits_of_last, logits_of_best, logits_without = (
        apply_in_batches(
            fitted.classifier_ if two_stage else fitted.classifier_.members[0], torch.tensor(X, dtype=torch.float32)
        )
        for fitted in (last, best, without)
    )
    assert torch.equal(logits_of_last, logits_without)
    assert not torch.equal(logits_of_best, logits_of_last)
    np.testing.assert_array_equal(last.transform(X), without.transform(X))


@pytest.mark.filterwarnings("ignore:Training diverges")  # as it can at the paper's learning rate
@each_estimator
def test_paper_trains_with_at_most_one_triplet_for_each_anchor(estimator):
    X, y = table()
    fitted = estimator.paper(random_state=0, max_epochs=2).fit(X, y)
    assert fitted.transform(X).shape == (160, 256)
    records = fitted.history_[0]
    assert all(0 < record["triplets"] <= 160 for record in records)
    assert not any(name.startswith("val_") for name in records[0])
    if estimator is MetricClassifier:
        np.testing.assert_allclose(fitted.predict_proba(X).sum(axis=1), 1, rtol=1e-5)


# Errors


@each_estimator
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"n_members": 0}, "`n_members` must be at least 1, got 0"),
        ({"classifier_weight": -0.5}, r"`classifier_weight` must be at least 0, got -0\.5"),
        ({"classifier_weight": float("nan")}, "`classifier_weight` must be at least 0, got nan"),
        ({"validation_fraction": 1.0}, r"`validation_fraction` must be in \[0, 1\), got 1\.0"),
        ({"validation_fraction": -0.1}, r"`validation_fraction` must be in \[0, 1\), got -0\.1"),
        ({"max_epochs": 0}, "`max_epochs` must be at least 1, got 0"),
        ({"batch_size": 1}, "`batch_size` must be at least 2, got 1"),
        ({"lr": -0.1}, r"`lr` must be above 0 and finite, got -0\.1"),
        ({"mixup": -0.4}, r"`mixup` must be at least 0 and finite, got -0\.4"),
        ({"items_per_label": 0}, "`items_per_label` must be None or at least 1, got 0"),
        ({"patience": 0}, "`patience` must be None or at least 1, got 0"),
        ({"patience": 0, "validation_fraction": 0}, "`patience` must be None or at least 1, got 0"),
        ({"patience": 2, "validation_fraction": 0}, "`patience` requires validation rows, got none"),
        ({"random_state": "seven"}, "'seven' cannot be used to seed"),
    ],
)
def test_parameters_out_of_range_are_an_error(estimator, setting, message):
    with pytest.raises(ValueError, match=message):
        estimator(**FAST | setting).fit(*table())


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"threshold": "weighted"}, "`threshold` must be a number, 'macro' or 'micro', got 'weighted'"),
        ({"activation": "tanh"}, "`activation` must be 'sigmoid', or with .* 'softmax', got 'tanh'"),
        ({"max_predicted": 0.0}, r"`max_predicted` must be a number above 0, got 0\.0"),
        ({"classifier_lr": 0.0}, r"`classifier_lr` must be None or above 0 and finite, got 0\.0"),
        (
            {"activation": "softmax"},
            "`activation` must be 'sigmoid', or with `two_stage=True` 'softmax', got 'softmax'",
        ),
        ({"classifier_weight": 0}, "`classifier_weight` must be above 0, or `two_stage` be True"),
    ],
    ids=["threshold", "activation", "max_predicted", "classifier_lr", "softmax", "classifier_weight"],
)
def test_classifier_parameters_out_of_range_are_an_error_before_training(setting, message):
    X, y = table()
    seen = []
    with pytest.raises(ValueError, match=message):
        MetricClassifier(**FAST | {"head": partial(RecordingHead, seen=seen)} | setting).fit(X, y)
    assert seen == []


@each_estimator
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X, y: (X, y[:, 0]), r"`y` must be a 2-D multi-hot matrix .* got shape \(160,\)"),
        (lambda X, y: (X, 3 * y), r"`y` must contain numbers in \[0, 1\], got 3 at row \d+, label \d"),
        (lambda X, y: (X, -y), r"`y` must contain numbers in \[0, 1\], got -1 at row \d+, label \d"),
        (lambda X, y: (X, y.astype(str)), "`y` must contain numbers, .* got dtype <U"),
        (lambda X, y: (X, ["sun", "sea"] * 80), "`y` must contain numbers, .* got dtype <U3.*MultiLabelBinarizer"),
        (lambda X, y: (X, [["sun"], ["sea", 3]] * 80), "`y` must contain numbers, .*MultiLabelBinarizer"),
        (lambda X, y: (X, [[0], [0, 2]] * 80), "`y` must contain numbers, .*MultiLabelBinarizer"),
        (lambda X, y: (X, [[]] * 160), "`y` must have a column for each label, got 0"),
        (lambda X, y: (X, y + 0j), "`y` must contain numbers, .* got dtype complex128|Complex data not supported"),
        (lambda X, y: (X, y[:, :0]), "`y` must have a column for each label, got 0"),
        (lambda X, y: (X, y[1:]), "`X` and `y` must have the same number of rows, got 160 and 159"),
        (lambda X, y: (X, sparse.csr_matrix(y[1:])), "`X` and `y` must have the same number of rows, got 160 and 159"),
        (lambda X, y: (X, None), "requires y to be passed, but the target y is None"),
        (lambda X, y: (X[:1], y[:1]), r"Found array with 1 sample\(s\) .* minimum of 2"),
        (lambda X, y: (X[:, 0], y), r"Expected 2D array, got 1D array"),
        (lambda X, y: (X[:, :0], y), r"Found array with 0 feature\(s\)"),
        (lambda X, y: (np.where(X > 4, np.nan, X), y), "Input X contains NaN"),
        (lambda X, y: (np.where(X > 4, np.inf, X), y), "Input X contains infinity"),
    ],
)
def test_invalid_data_are_an_error(estimator, change, message):
    with pytest.raises((TypeError, ValueError), match=message):
        estimator(**FAST).fit(*change(*table()))


@each_estimator
def test_head_that_is_a_module_is_an_error(estimator):
    with pytest.raises(TypeError, match="`head` must make a head from the number of features"):
        estimator(**FAST | {"head": EmbeddingHead(20)}).fit(*table())


@each_estimator
def test_mixup_with_a_loss_that_requires_hard_labels_is_an_error(estimator):
    loss = MultiLabelProxyAnchorLoss(5, 256)
    with pytest.raises(ValueError, match=r"`mixup` creates soft labels, which `\w+` does not support"):
        estimator(**FAST | {"head": None, "loss": loss, "mixup": 0.4}).fit(*table())
    estimator(**FAST | {"head": None, "loss": loss, "mixup": 0.0, "max_epochs": 1}).fit(*table())


@pytest.mark.filterwarnings("ignore:Epochs cannot be scored")
def test_soft_labels_that_never_reach_one_half_cause_a_warning():
    X, y = table()
    with pytest.warns(UserWarning, match=r"No label of `y` reaches 0\.5, .* the highest is 0\.4"):
        MetricEmbedder(**FAST).fit(X, 0.4 * y)


class MetaHead(torch.nn.Linear):
    """A head on the meta device."""

    def cpu(self):
        return torch.nn.Linear(self.in_features, self.out_features)


def test_pickled_state_is_on_the_cpu_and_the_estimator_is_unchanged():
    fitted = MetricEmbedder(**FAST).fit(*table())
    head = fitted.head_ = MetaHead(20, 2, device="meta")
    state = fitted.__getstate__()
    assert state["head_"].weight.device.type == "cpu"
    assert fitted.head_ is head


@each_estimator
def test_sparse_features_are_an_error(estimator):
    X, y = table()
    with pytest.raises(TypeError, match="Sparse data was passed for X, but dense data is required"):
        estimator(**FAST).fit(sparse.csr_matrix(X), y)


@each_estimator
def test_parameters_are_keyword_only(estimator):
    with pytest.raises(TypeError, match="positional"):
        estimator(TINY)
