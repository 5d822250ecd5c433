"""The classifier with thresholds: out-of-fold scores, any estimator, any labels, and errors."""

import pickle
from functools import partial

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from imblearn.pipeline import make_pipeline as make_sampling_pipeline
from scipy import sparse
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics import f1_score, make_scorer
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    RepeatedKFold,
    ShuffleSplit,
    TunedThresholdClassifierCV,
    cross_val_predict,
    cross_val_score,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.validation import check_is_fitted

from mlmetric.data import MultiLabelStratifiedKFold
from mlmetric.decisions import ExpectedCost, FBeta, MinPrecision, MinRecall, MultiLabelThresholdClassifier, TopK
from mlmetric.estimators import MetricClassifier
from mlmetric.heads import EmbeddingHead
from mlmetric.metrics import best_thresholds
from mlmetric.under_sampling import LabelCapUnderSampler

LOGISTIC = OneVsRestClassifier(LogisticRegression())


def table(num_rows=150, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(num_rows, 5))
    return X, (X[:, :4] + 0.7 * rng.normal(size=(num_rows, 4)) > [0, 0.5, 1, 1.6]).astype(int)


def scores_of_class_one(probabilities):
    return np.column_stack([each[:, 1] for each in probabilities])


# What is fitted


@pytest.mark.parametrize(
    "options",
    [{}, {"average": "micro", "per_label": False}, {"shrinkage": 5.0, "max_predicted": 1.5}, {"metric": FBeta(2)}],
)
def test_thresholds_are_those_of_the_out_of_fold_scores_and_the_classifier_is_fitted_on_all_rows(options):
    X, y = table()
    model = MultiLabelThresholdClassifier(LOGISTIC, cv=3, random_state=1, **options).fit(X, y)
    splitter = MultiLabelStratifiedKFold(3, shuffle=True, random_state=1)
    scores = cross_val_predict(LOGISTIC, X, y, cv=splitter, method="predict_proba")
    np.testing.assert_allclose(model.thresholds_, np.broadcast_to(best_thresholds(scores, y, **options), 4), rtol=1e-12)
    each = [best_thresholds(scores[test], y[test], **options) for _, test in splitter.split(X, y)]
    expected = np.stack([np.broadcast_to(one, 4) for one in each])
    np.testing.assert_allclose(model.fold_thresholds_, expected, rtol=1e-12)
    np.testing.assert_allclose(model.threshold_spread_, expected.std(axis=0, ddof=1), rtol=1e-9)
    fitted = clone(LOGISTIC).fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), fitted.predict_proba(X))
    np.testing.assert_array_equal(model.predict(X), fitted.predict_proba(X) >= model.thresholds_)
    np.testing.assert_array_equal(model.positives_, y.sum(axis=0))
    assert model.predict(X).dtype == np.int64


def test_folds_depend_on_labels_and_order_only_without_a_seed():
    X, y = table()
    first, second = (MultiLabelThresholdClassifier(LOGISTIC, cv=4).fit(X, y) for _ in range(2))
    np.testing.assert_array_equal(first.thresholds_, second.thresholds_)
    given = MultiLabelThresholdClassifier(LOGISTIC, cv=MultiLabelStratifiedKFold(4)).fit(X, y)
    np.testing.assert_array_equal(first.thresholds_, given.thresholds_)
    pairs = MultiLabelThresholdClassifier(LOGISTIC, cv=list(MultiLabelStratifiedKFold(4).split(X, y)), n_jobs=2)
    with joblib.parallel_config("threading"):
        np.testing.assert_array_equal(first.thresholds_, pairs.fit(X, y).thresholds_)


@pytest.mark.parametrize(
    "cv", [RepeatedKFold(n_splits=3, n_repeats=2, random_state=0), ShuffleSplit(3, random_state=0)]
)
def test_rows_can_be_in_several_test_folds_or_in_none(cv):
    X, y = table()
    model = MultiLabelThresholdClassifier(LOGISTIC, cv=cv).fit(X, y)
    splits = list(cv.split(X, y))
    scores = [clone(LOGISTIC).fit(X[train], y[train]).predict_proba(X[test]) for train, test in splits]
    expected = best_thresholds(np.concatenate(scores), np.concatenate([y[test] for _, test in splits]))
    np.testing.assert_allclose(model.thresholds_, expected, rtol=1e-12)
    assert model.fold_thresholds_.shape == (len(splits), 4)


def test_prefitted_classifier_scores_the_rows_of_fit_and_stays_as_it_is():
    X, y = table()
    fitted = clone(LOGISTIC).fit(X[:80], y[:80])
    expected = best_thresholds(fitted.predict_proba(X[80:]), y[80:])
    model = MultiLabelThresholdClassifier(fitted, cv="prefit").fit(X[80:], y[80:])
    assert model.estimator_ is fitted
    np.testing.assert_array_equal(model.thresholds_, expected)
    assert model.fold_thresholds_.shape == (1, 4)
    assert np.isnan(model.threshold_spread_).all()
    frozen = MultiLabelThresholdClassifier(FrozenEstimator(fitted)).fit(X[80:], y[80:])
    np.testing.assert_array_equal(frozen.thresholds_, expected)


def test_threshold_of_one_label_is_as_good_as_that_of_scikit_learn_on_the_same_fold():
    X, y = table(140)
    split = [(np.arange(100), np.arange(100, 140))]
    model = MultiLabelThresholdClassifier(MultiOutputClassifier(LogisticRegression()), cv=split).fit(X, y[:, [2]])
    candidates = np.sort(model.estimator_.predict_proba(X)[0][:, 1])
    peer = TunedThresholdClassifierCV(LogisticRegression(), scoring="f1", thresholds=candidates, cv=split)
    peer = peer.fit(X, y[:, 2])
    scores = LogisticRegression().fit(X[:100], y[:100, 2]).predict_proba(X[100:])[:, 1]
    reached = f1_score(y[100:, 2], scores >= model.thresholds_[0])
    assert reached >= peer.best_score_
    thresholds = np.append(candidates, model.thresholds_)
    both = TunedThresholdClassifierCV(LogisticRegression(), scoring="f1", thresholds=thresholds, cv=split)
    assert both.fit(X, y[:, 2]).best_score_ == reached


def test_labels_without_positives_in_a_fold_have_no_threshold_of_the_fold():
    X, y = table(60)
    y[:, 3] = 0
    y[:2, 3] = 1
    model = MultiLabelThresholdClassifier(RandomForestClassifier(10, random_state=0), cv=3).fit(X, y)
    assert np.isnan(model.fold_thresholds_[:, 3]).sum() == 1
    finite = model.fold_thresholds_[~np.isnan(model.fold_thresholds_[:, 3]), 3]
    assert model.threshold_spread_[3] == pytest.approx(finite.std(ddof=1))


def test_infinite_thresholds_of_folds_are_left_out_of_the_spread():
    X, y = table()
    rule = ExpectedCost(1, [1, 1, 1, 0])
    model = MultiLabelThresholdClassifier(LOGISTIC, metric=rule).fit(X, y)
    assert np.isinf(model.thresholds_[3])
    assert not model.predict(X)[:, 3].any()
    assert np.isnan(model.threshold_spread_[3])
    assert np.isfinite(model.threshold_spread_[:3]).all()


def test_unreached_precision_is_warned_of_once():
    X, y = np.random.default_rng(0).normal(size=(80, 3)), np.tile([[1, 0], [0, 1], [0, 0], [0, 0]], (20, 1))
    with pytest.warns(UserWarning, match="No threshold meets MinPrecision") as caught:
        MultiLabelThresholdClassifier(LOGISTIC, metric=MinPrecision(1.0)).fit(X, y)
    assert len(caught) == 1


def test_rule_for_rows_is_fitted_on_the_out_of_fold_scores():
    class Recorder(BaseEstimator):
        def fit(self, scores, y):
            self.seen_ = scores, y
            return self

        def predict(self, scores):
            return scores > 0.3

    X, y = table()
    folds = list(MultiLabelStratifiedKFold(5).split(X, y))
    model = MultiLabelThresholdClassifier(LOGISTIC, metric=Recorder()).fit(X, y)
    scores = cross_val_predict(LOGISTIC, X, y, cv=folds, method="predict_proba")
    order = np.concatenate([test for _, test in folds])
    np.testing.assert_array_equal(model.rule_.seen_[0], scores[order])
    np.testing.assert_array_equal(model.rule_.seen_[1], y[order])
    np.testing.assert_array_equal(model.predict(X), model.predict_proba(X) > 0.3)


def test_another_rule_in_a_second_fit_replaces_the_first():
    X, y = table()
    model = MultiLabelThresholdClassifier(LOGISTIC, metric=MinRecall(0.9)).fit(X, y)
    assert model.rule_ == MinRecall(0.9)
    model.set_params(metric=TopK(2)).fit(X, y)
    assert (model.predict(X).sum(axis=1) == 2).all()
    assert not hasattr(model, "thresholds_")
    with pytest.raises(AttributeError, match=r"TopK\(k=2\) has no thresholds: it decides on whole rows"):
        model.threshold_table()
    model.set_params(metric__k=1).fit(X, y)
    assert (model.predict(X).sum(axis=1) == 1).all()


# Any estimator and any labels


@pytest.mark.parametrize(
    "estimator",
    [
        RandomForestClassifier(20, random_state=0),
        KNeighborsClassifier(),
        MultiOutputClassifier(LogisticRegression()),
        make_pipeline(StandardScaler(), KNeighborsClassifier()),
        GridSearchCV(KNeighborsClassifier(), {"n_neighbors": [5]}, cv=2),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_probabilities_of_each_label_in_a_list_become_a_matrix(estimator):
    X, y = table()
    model = MultiLabelThresholdClassifier(estimator).fit(X, y)
    expected = scores_of_class_one(clone(estimator).fit(X, y).predict_proba(X))
    np.testing.assert_array_equal(model.predict_proba(X), expected)
    np.testing.assert_array_equal(model.predict(X), expected >= model.thresholds_)


@pytest.mark.parametrize("value", [0, 1])
def test_label_with_one_class_has_the_probability_of_this_class(value):
    X, y = table()
    y[:, 1] = value
    model = MultiLabelThresholdClassifier(RandomForestClassifier(5, random_state=0)).fit(X, y)
    assert (model.predict_proba(X)[:, 1] == value).all()
    assert (model.predict(X)[:, 1] == value).all()


@pytest.mark.parametrize("value", [0, 1])
def test_single_label_with_one_class_has_the_probability_of_this_class(value):
    X, _ = table()
    model = MultiLabelThresholdClassifier(DecisionTreeClassifier(), fallback=0.5).fit(X, np.full((len(X), 1), value))
    assert (model.predict_proba(X) == value).all()
    assert (model.predict(X) == value).all()


def test_estimator_with_decisions_only_has_thresholds_for_these():
    X, y = table()
    model = MultiLabelThresholdClassifier(RidgeClassifier()).fit(X, y)
    decisions = clone(RidgeClassifier()).fit(X, y).decision_function(X)
    np.testing.assert_array_equal(model.decision_function(X), decisions)
    np.testing.assert_array_equal(model.predict(X), decisions >= model.thresholds_)
    assert not hasattr(model, "predict_proba")
    assert not hasattr(MultiLabelThresholdClassifier(KNeighborsClassifier()), "decision_function")
    chosen = MultiLabelThresholdClassifier(LOGISTIC, response_method="decision_function").fit(X, y)
    np.testing.assert_array_equal(chosen.predict(X), chosen.decision_function(X) >= chosen.thresholds_)
    assert (chosen.thresholds_ < 0).any()


def test_estimators_and_samplers_of_the_library_are_supported():
    X, y = table()
    head = partial(EmbeddingHead, widths=(8, 4))
    classifier = MetricClassifier(head=head, n_members=1, max_epochs=1, batch_size=32, random_state=0)
    model = MultiLabelThresholdClassifier(classifier, cv=2).fit(X, y)
    np.testing.assert_array_equal(model.predict(X), model.estimator_.predict_proba(X) >= model.thresholds_)
    sampling = make_sampling_pipeline(StandardScaler(), LabelCapUnderSampler(cap_ratio=1.2, random_state=0), LOGISTIC)
    model = MultiLabelThresholdClassifier(sampling).fit(X, y)
    np.testing.assert_array_equal(model.predict(X), clone(sampling).fit(X, y).predict_proba(X) >= model.thresholds_)


@pytest.mark.parametrize(
    "kind", [np.float32, bool, torch.from_numpy, sparse.csr_array, pd.DataFrame, np.ndarray.tolist]
)
def test_labels_of_any_kind_give_the_same_thresholds(kind):
    X, y = table()
    labels = y.astype(kind) if kind in (np.float32, bool) else kind(y)
    model = MultiLabelThresholdClassifier(LOGISTIC).fit(X, labels)
    np.testing.assert_array_equal(model.thresholds_, MultiLabelThresholdClassifier(LOGISTIC).fit(X, y).thresholds_)
    assert model.score(X, labels) == np.mean((model.predict(X) == y).all(axis=1))


def test_label_names_and_column_names_are_classes():
    X, y = table()
    names = ["d", "c", "b", "a"]
    rows = [[name for name, value in zip(names, row, strict=True) if value] for row in y]
    model = MultiLabelThresholdClassifier(LOGISTIC).fit(X, rows)
    assert model.classes_.tolist() == ["a", "b", "c", "d"]
    frame = pd.DataFrame(y, columns=names)
    framed = MultiLabelThresholdClassifier(LOGISTIC).fit(pd.DataFrame(X, columns=list("vwxyz")), frame)
    assert framed.classes_.tolist() == names
    assert framed.feature_names_in_.tolist() == list("vwxyz")
    assert model.score(X, rows) == model.score(X, frame)
    assert MultiLabelThresholdClassifier(LOGISTIC).fit(X, y).classes_.tolist() == [[0, 1]] * 4


def test_features_are_passed_on_as_they_are():
    class Texts(ClassifierMixin, BaseEstimator):
        def fit(self, X, y):
            assert all(isinstance(text, str) for text in X)
            self.fitted_ = True
            return self

        def predict_proba(self, X):
            return np.array([[len(text) / 10, text.count("a") / 10] for text in X])

    texts = ["a", "ab", "abc", "b", "bc", "bcd"] * 5
    y = np.array([[len(text) > 1, "a" in text] for text in texts]).astype(int)
    model = MultiLabelThresholdClassifier(Texts(), cv=3).fit(texts, y)
    np.testing.assert_array_equal(model.predict(texts), y)
    assert not hasattr(model, "n_features_in_")


def test_weights_are_divided_into_the_folds_with_and_without_routing():
    X, y = table()
    weights = np.random.default_rng(0).integers(0, 3, len(X)).astype(float)
    forest = RandomForestClassifier(10, random_state=0)
    model = MultiLabelThresholdClassifier(forest, cv=3).fit(X, y, sample_weight=weights)
    scores = np.empty(y.shape)
    for train, test in MultiLabelStratifiedKFold(3).split(X, y):
        fitted = clone(forest).fit(X[train], y[train], sample_weight=weights[train])
        scores[test] = scores_of_class_one(fitted.predict_proba(X[test]))
    np.testing.assert_array_equal(model.thresholds_, best_thresholds(scores, y))
    expected = clone(forest).fit(X, y, sample_weight=weights)
    np.testing.assert_array_equal(model.predict_proba(X), scores_of_class_one(expected.predict_proba(X)))
    with sklearn.config_context(enable_metadata_routing=True):
        requested = clone(forest).set_fit_request(sample_weight=True)
        routed = MultiLabelThresholdClassifier(requested, cv=3).fit(X, y, sample_weight=weights)
    np.testing.assert_array_equal(routed.thresholds_, model.thresholds_)


def test_classifier_works_in_a_pipeline_in_a_search_in_cross_validation_and_pickled():
    X, y = table()
    pipeline = make_pipeline(StandardScaler(), MultiLabelThresholdClassifier(LOGISTIC, cv=2))
    search = GridSearchCV(
        pipeline,
        {"multilabelthresholdclassifier__metric": [FBeta(0.5), FBeta(2)]},
        scoring=make_scorer(partial(f1_score, average="macro", zero_division=0)),
        cv=2,
    ).fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert cross_val_predict(pipeline, X, y, cv=2).shape == y.shape
    assert (cross_val_score(pipeline, X, y, cv=KFold(2), scoring="average_precision") > 0.5).all()
    copied = pickle.loads(pickle.dumps(search.best_estimator_))
    np.testing.assert_array_equal(copied.predict(X), search.predict(X))


def test_table_lists_the_rarest_labels_first():
    X, y = table()
    frame = pd.DataFrame(y, columns=["sunset", "sea", "trees", "desert"])
    model = MultiLabelThresholdClassifier(LOGISTIC).fit(X, frame)
    shown = model.threshold_table()
    assert pd.DataFrame(vars(shown))["threshold"].tolist() == model.thresholds_.tolist()
    lines = str(shown).splitlines()
    assert len({len(line) for line in lines}) == 1
    counts = [int(line.split("|")[2]) for line in lines[2:]]
    assert counts == sorted(y.sum(axis=0))
    assert lines[2].split("|")[1].strip() == frame.columns[y.sum(axis=0).argmin()]
    assert repr(shown) == "ThresholdTable(num_labels=4)"


# Errors


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"metric": "accuracy"}, TypeError, r'`metric` must be "f1" or a .*ThresholdRule.*, got \'accuracy\''),
        ({"metric": TopK(9)}, ValueError, r"`k` must be an integer from 1 to 4, the number of labels, got 9\."),
        (
            {"metric": TopK(1), "shrinkage": 1.0},
            ValueError,
            r"`shrinkage` must be 0\.0 with a `metric` that",
        ),
        ({"metric": MinRecall(0.9), "shrinkage": 1.0}, ValueError, r"`shrinkage` must have its default"),
        ({"average": "weighted"}, ValueError, r"`average` must be one of 'macro', 'micro', got 'weighted'"),
        ({"response_method": "predict"}, ValueError, r'`response_method` must be "auto", .*, got \'predict\''),
        (
            {"estimator": StandardScaler()},
            AttributeError,
            r"`estimator` must have `predict_proba` or `dec",
        ),
    ],
)
def test_invalid_argument_is_rejected(options, error, message):
    X, y = table()
    with pytest.raises(error, match=message):
        MultiLabelThresholdClassifier(**{"estimator": LOGISTIC} | options).fit(X, y)


def test_soft_and_missing_labels_are_rejected():
    X, y = table()
    with pytest.raises(ValueError, match=r"`y` must contain only 0 and 1, got 0\.5\."):
        MultiLabelThresholdClassifier(LOGISTIC).fit(X, y / 2)
    with pytest.raises(ValueError, match="requires y to be passed, but the target y is None"):
        MultiLabelThresholdClassifier(LOGISTIC).fit(X, None)
    with pytest.raises(ValueError, match=r"`y` must have a column for each label, got 0 columns\."):
        MultiLabelThresholdClassifier(LOGISTIC).fit(X, y[:, :0])


class Scores(ClassifierMixin, BaseEstimator):
    def __init__(self, scores):
        self.scores = scores

    def fit(self, X, y):
        return self

    def predict_proba(self, X):
        return self.scores


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (np.zeros((2, 3)), r"`predict_proba` of `estimator` must return shape \(n, 4\), .*, got shape \(2, 3\)"),
        ([np.zeros((2, 2))], r"must return an array for each of the 4 labels, got 1\."),
        ([np.zeros((2, 3))] * 4, r"must have the classes 0 and 1, got \[0, 1\] and scores of 3 classes"),
    ],
)
def test_scores_that_are_not_of_the_labels_are_rejected(scores, message):
    with pytest.raises(ValueError, match=message):
        MultiLabelThresholdClassifier(Scores(scores), cv="prefit").fit(np.zeros((2, 1)), np.eye(4)[:2])


@pytest.mark.parametrize(
    "scores",
    [np.array([0.1, 0.9]), np.array([[0.9, 0.1], [0.1, 0.9]]), [np.array([0.1, 0.9])], np.array([[0.1], [0.9]])],
)
def test_scores_of_a_single_label_have_any_form(scores):
    model = MultiLabelThresholdClassifier(Scores(scores), cv="prefit").fit(np.zeros((2, 1)), [[0], [1]])
    assert model.predict_proba(np.zeros((2, 1))).tolist() == [[0.1], [0.9]]
    assert model.thresholds_.tolist() == [0.5]


def test_classifier_is_not_fitted_before_fit():
    with pytest.raises(sklearn.exceptions.NotFittedError):
        MultiLabelThresholdClassifier(LOGISTIC).predict([[0.0]])
    check_is_fitted(MultiLabelThresholdClassifier(LOGISTIC).fit(*table()))


@pytest.mark.filterwarnings("ignore:Label (not )?.* is present in all training examples")
def test_scores_of_folds_that_could_not_learn_a_label_choose_no_threshold():
    X, y = table()
    y[:, -1] = 0
    y[0, -1] = 1  # its fold scores this row without having seen the label: with 0, like all other rows
    splits = list(MultiLabelStratifiedKFold(3).split(X, y))
    model = MultiLabelThresholdClassifier(LOGISTIC, cv=splits).fit(X, y)
    scores = cross_val_predict(LOGISTIC, X, y, cv=splits, method="predict_proba")
    learned = np.ones(y.shape, dtype=bool)
    learned[next(test for _, test in splits if 0 in test), -1] = False
    np.testing.assert_array_equal(model.thresholds_, best_thresholds(scores, y, mask=learned).numpy())
    assert best_thresholds(scores, y)[-1] == 0
    assert model.predict(X)[:, -1].sum() < len(X) / 2
