"""Calibration of multi-label scores against scikit-learn's calibration of one label, and as an estimator."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

from mlmetric.data import MultiLabelStratifiedKFold
from mlmetric.decisions import LabelCalibrator, MultiLabelCalibratedClassifier, _label_calibrator
from mlmetric.metrics import calibration_error, log_loss

METHODS = ["temperature", "platt", "isotonic"]
each_method = pytest.mark.parametrize("method", METHODS)
LINEAR = OneVsRestClassifier(LogisticRegression())


def scored(num_rows=400, seed=0):
    """Return logits of four labels, too confident by factors of 2, 0.5, 5 and 2, and labels; the last one is rare."""
    rng = np.random.default_rng(seed)
    logits = rng.normal([0, 1, -1, -5], size=(num_rows, 4))
    labels = rng.random(logits.shape) < expit(logits)
    labels[:, 3] = False
    labels[:4, 3] = True
    return logits * [2, 0.5, 5, 2] + [0, 1, -1, 0], labels


class LinearDecision(LogisticRegression):
    """A fitted binary classifier whose decision is its only feature."""

    def decision_function(self, X):
        return np.asarray(X)[:, 0]


def calibrated_by_sklearn(method, scores, labels, new):
    """Calibrate one label with the calibration of scikit-learn."""
    frozen = FrozenEstimator(LinearDecision().fit(scores[:, None], labels))
    fitted = CalibratedClassifierCV(frozen, method={"platt": "sigmoid"}.get(method, method), ensemble=False)
    return fitted.fit(scores[:, None], labels).predict_proba(new[:, None])[:, 1]


@pytest.mark.parametrize("method", ["temperature", "platt"])
def test_calibration_of_each_label_equals_scikit_learn(method):
    if method == "temperature":
        pytest.importorskip("sklearn", minversion="1.8")
    scores, labels = scored()
    fitted = LabelCalibrator(method, min_positives=1).fit(scores, labels)
    new = scored(50, seed=1)[0]
    for label in range(3):
        expected = calibrated_by_sklearn(method, scores[:, label], labels[:, label], new[:, label])
        np.testing.assert_allclose(fitted.transform(new)[:, label], expected, atol=1e-5)


def test_isotonic_calibration_equals_scikit_learn_between_the_bounds_of_platt():
    scores, labels = scored()
    fitted = LabelCalibrator("isotonic", min_positives=1).fit(scores, labels)
    probabilities, outside = fitted.transform(scores), fitted.transform(np.array([[-99.0] * 4, [99.0] * 4]))
    for label in range(4):
        free = IsotonicRegression(out_of_bounds="clip").fit(scores[:, label], labels[:, label])
        positives = labels[:, label].sum()
        bounds = 1 / (len(labels) - positives + 2), (positives + 1) / (positives + 2)
        np.testing.assert_allclose(probabilities[:, label], np.clip(free.predict(scores[:, label]), *bounds))
        assert outside[:, label].tolist() == [probabilities[:, label].min(), probabilities[:, label].max()]


@pytest.mark.parametrize("method", ["temperature", "platt"])
def test_scaling_minimises_the_cross_entropy(method):
    """The optimum of scipy, with Platt's targets for Platt scaling, on included entries only."""
    scores, labels = scored()
    mask = np.random.default_rng(2).random(labels.shape) < 0.7
    fitted = LabelCalibrator(method, min_positives=1).fit(scores, labels, mask)
    for label in range(4):
        z, y = scores[mask[:, label], label], labels[mask[:, label], label]
        target = np.where(y, (y.sum() + 1) / (y.sum() + 2), 1 / ((~y).sum() + 2)) if method == "platt" else y

        def cross_entropy(ab, z=z, target=target):
            logits = ab[0] * z + (ab[1] if method == "platt" else 0)
            return (np.logaddexp(0, logits) - target * logits).sum()

        best = minimize(cross_entropy, [1.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-10}).x
        best = np.clip(best, np.exp(-10), None) if method == "temperature" else best
        np.testing.assert_allclose(fitted.slopes_[label], best[0], rtol=1e-4, atol=1e-6)
        if method == "platt":
            np.testing.assert_allclose(fitted.intercepts_[label], best[1], rtol=1e-4, atol=1e-4)


def test_perfectly_separated_labels_have_finite_parameters():
    scores = np.array([[-2.0], [-1.0], [1.0], [2.0]]) * [1, -1]
    labels = np.array([[0, 0], [0, 0], [1, 1], [1, 1]])
    for method in METHODS:
        probabilities = LabelCalibrator(method, min_positives=1).fit(scores, labels).transform(scores)
        assert ((probabilities >= 0) & (probabilities <= 1)).all()
        assert (probabilities[2:, 0] > 0.5).all()
        assert (probabilities[:2, 0] < 0.5).all()


@each_method
def test_label_with_few_positives_or_negatives_uses_the_function_of_all_labels(method):
    scores, labels = scored()
    labels[:, 1] = True
    labels[:3, 1] = False
    fitted = LabelCalibrator(method, min_positives=10).fit(scores, labels)
    assert fitted.is_pooled_.tolist() == [False, True, False, True]
    pooled = LabelCalibrator(method, min_positives=1).fit(scores.reshape(-1, 1), labels.reshape(-1, 1))
    own = LabelCalibrator(method, min_positives=1).fit(scores, labels)
    new = scored(30, seed=1)[0]
    for label in range(4):
        expected = (pooled.transform(new[:, [label]]) if label in (1, 3) else own.transform(new)[:, [label]])[:, 0]
        np.testing.assert_allclose(fitted.transform(new)[:, label], expected, rtol=1e-6)


@each_method
def test_excluded_entries_have_no_influence(method):
    scores, labels = scored()
    mask = np.random.default_rng(1).random(labels.shape) < 0.8
    expected = LabelCalibrator(method).fit(scores, labels, mask)
    changed = LabelCalibrator(method).fit(np.where(mask, scores, np.nan), np.where(mask, labels, 1), mask)
    np.testing.assert_array_equal(changed.transform(scores), expected.transform(scores))


@each_method
def test_result_does_not_depend_on_the_number_of_labels_fitted_at_once(method, monkeypatch):
    scores, labels = scored()
    expected = LabelCalibrator(method).fit(scores, labels).transform(scores)
    monkeypatch.setattr(_label_calibrator, "_CHUNK_SIZE", 1)
    np.testing.assert_allclose(LabelCalibrator(method).fit(scores, labels).transform(scores), expected, rtol=1e-6)


@each_method
def test_calibration_improves_test_rows(method):
    """Synthetic scores that are too confident, on other rows than those of the fit."""
    scores, labels = scored(2000)
    new, truth = scored(2000, seed=1)
    calibrated = LabelCalibrator(method).fit(scores, labels).transform(new)
    assert log_loss(calibrated, truth) < log_loss(expit(new), truth) - 0.05
    if method != "temperature":  # which cannot correct the shifts
        assert calibration_error(calibrated, truth) < 0.5 * calibration_error(expit(new), truth)


@each_method
def test_probabilities_are_converted_to_clipped_logits(method):
    scores, labels = scored()
    probabilities = expit(scores).round(2)
    fitted = LabelCalibrator(method, scale="probabilities", clip=0.01).fit(probabilities, labels)
    expected = LabelCalibrator(method).fit(logit(probabilities.clip(0.01, 0.99)), labels)
    np.testing.assert_allclose(
        fitted.transform(probabilities), expected.transform(logit(probabilities.clip(0.01, 0.99)))
    )


@each_method
def test_scores_and_labels_of_any_kind_are_read(method):
    scores, labels = scored(60)
    expected = LabelCalibrator(method).fit(scores, labels).transform(scores)
    for kind in (torch.tensor, pd.DataFrame, np.ndarray.tolist):
        fitted = LabelCalibrator(method).fit(kind(scores), kind(labels.astype(int)))
        np.testing.assert_array_equal(fitted.transform(kind(scores)), expected)
    np.testing.assert_array_equal(
        LabelCalibrator(method).fit(scores, sparse.csr_array(labels)).transform(scores), expected
    )
    assert expected.dtype == np.float64
    single = LabelCalibrator(method).fit(scores.astype(np.float32), labels).transform(scores.astype(np.float32))
    np.testing.assert_allclose(single, expected, atol=1e-4)


@each_method
def test_calibrator_is_cloned_pickled_and_refitted(method):
    scores, labels = scored()
    fitted = LabelCalibrator(method).fit(scores, labels)
    with pytest.raises(NotFittedError):
        clone(fitted).transform(scores)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).transform(scores), fitted.transform(scores))
    assert fitted.transform(scores[:0]).shape == (0, 4)


@pytest.mark.parametrize(
    ("options", "change", "message"),
    [
        ({"method": "beta"}, {}, "`method` must be one of 'temperature', 'platt', 'isotonic', got 'beta'"),
        ({"scale": "scores"}, {}, "`scale` must be one of 'logits', 'probabilities', got 'scores'"),
        ({"min_positives": 0}, {}, "`min_positives` must be at least 1, got 0"),
        ({"clip": 0.5}, {}, r"`clip` must be in \(0, 0.5\), got 0.5"),
        ({}, {"preds": [[np.inf], [0.0]]}, "`preds` must contain finite numbers, got inf at row 0, label 0"),
        ({"scale": "probabilities"}, {"preds": [[0.5], [2.0]]}, r"in \[0, 1\], got 2 at row 1, label 0"),
        ({}, {"target": [[1], [1]]}, "at least one positive and one negative among the included entries, got 2 and 0"),
        ({}, {"target": [[1], [0.5]]}, "`target` must contain only 0 and 1, got 0.5"),
        ({}, {"target": [[1]]}, "`preds` and `target` must have the same shape"),
    ],
)
def test_errors_of_the_calibrator(options, change, message):
    with pytest.raises(ValueError, match=message):
        LabelCalibrator(**options).fit(**{"preds": [[0.0], [1.0]], "target": [[0], [1]]} | change)


def test_number_of_labels_must_be_that_of_fit():
    with pytest.raises(ValueError, match=r"`preds` must have shape \(n, 4\), got \(2, 3\)"):
        LabelCalibrator().fit(*scored()).transform(np.zeros((2, 3)))


# The meta-estimator


def table(num_rows=160, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(num_rows, 6))
    return X, (X[:, :3] + rng.normal(size=(num_rows, 3)) > [0, 0.5, 1]).astype(int)


@pytest.mark.parametrize(
    ("classifier", "method"),
    [
        (LINEAR, "temperature"),
        (make_pipeline(StandardScaler(), LINEAR), "platt"),
        (ClassifierChain(LogisticRegression()), "isotonic"),
        (OneVsRestClassifier(GaussianNB()), "temperature"),
        (RandomForestClassifier(3, random_state=0), "isotonic"),
        (KNeighborsClassifier(), "platt"),
        (MultiOutputClassifier(LogisticRegression()), "platt"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_classifier_is_calibrated_on_out_of_fold_scores(classifier, method):
    X, y = table()
    fitted = MultiLabelCalibratedClassifier(classifier, method=method, cv=3).fit(X, y)
    assert clone(fitted).get_params()["estimator"] is not classifier  # a copy, and the original is not fitted
    with pytest.raises(NotFittedError):
        classifier.predict(X)

    def scores_of(model, rows):
        if hasattr(model, "decision_function"):
            return model.decision_function(rows)
        scores = model.predict_proba(rows)
        return np.column_stack([part[:, 1] for part in scores]) if isinstance(scores, list) else scores

    out_of_fold = np.empty(y.shape)
    for train, test in MultiLabelStratifiedKFold(3).split(X, y):
        out_of_fold[test] = scores_of(clone(classifier).fit(X[train], y[train]), X[test])
    np.testing.assert_allclose(fitted.oof_scores_, out_of_fold)
    scale = "logits" if hasattr(classifier, "decision_function") else "probabilities"
    calibrator = LabelCalibrator(method, scale=scale).fit(out_of_fold, y)
    expected = calibrator.transform(scores_of(clone(classifier).fit(X, y), X))
    np.testing.assert_allclose(fitted.predict_proba(X), expected)
    np.testing.assert_array_equal(fitted.predict(X), expected > 0.5)


def test_scores_of_labels_that_a_fold_did_not_learn_are_excluded():
    X, y = table()
    y[:, 2] = 0
    y[5, 2] = 1  # in its test fold the label has no training rows; in the others it has one
    folds = KFold(4)
    with pytest.warns(UserWarning, match="is present in all training examples"):
        fitted = MultiLabelCalibratedClassifier(LINEAR, cv=folds).fit(X, y)
    mask = np.ones_like(y)
    mask[next(iter(folds.split(X)))[1], 2] = 0
    expected = LabelCalibrator().fit(fitted.oof_scores_, y, mask)
    np.testing.assert_array_equal(fitted.calibrator_.slopes_, expected.slopes_)


@pytest.mark.parametrize("value", [0, 1])
def test_label_with_one_value_in_all_rows_is_predicted_to_have_it(value):
    X, y = table()
    y[:, 2] = value
    fitted = MultiLabelCalibratedClassifier(RandomForestClassifier(5, random_state=0), method="isotonic").fit(X, y)
    assert (fitted.oof_scores_[:, 2] == value).all()
    assert (fitted.predict(X)[:, 2] == value).all()


def test_cross_val_predict_and_score():
    X, y = table()
    classifier = MultiLabelCalibratedClassifier(LINEAR, cv=2)
    predicted = cross_val_predict(classifier, X, y, cv=KFold(2), method="predict")
    for rows, others in KFold(2).split(X):
        np.testing.assert_array_equal(predicted[others], clone(classifier).fit(X[rows], y[rows]).predict(X[others]))
    fitted = classifier.fit(pd.DataFrame(X, columns=list("abcdef")), pd.DataFrame(y))
    assert fitted.feature_names_in_.tolist() == list("abcdef")
    expected = (fitted.predict(pd.DataFrame(X, columns=list("abcdef"))) == y).all(axis=1).mean()
    assert fitted.score(pd.DataFrame(X, columns=list("abcdef")), y) == expected


def test_errors_of_the_classifier():
    X, y = table()
    for changed, error, message in (
        (0.5 * y, ValueError, "`y` must contain only 0 and 1, got 0.5. Convert soft labels"),
        (y[:-1], ValueError, "inconsistent numbers of samples"),
        (None, ValueError, "requires y to be passed, but the target y is None"),
    ):
        with pytest.raises(error, match=message):
            MultiLabelCalibratedClassifier(LINEAR).fit(X, changed)
    with pytest.raises(AttributeError, match="`estimator` must have `predict_proba`, got StandardScaler"):
        MultiLabelCalibratedClassifier(StandardScaler()).fit(X, y)
    with pytest.raises(ValueError, match="`cv` must have each row in one test fold"):
        MultiLabelCalibratedClassifier(LINEAR, cv=[(np.arange(80), np.arange(80, 159))]).fit(X, y)
    assert not hasattr(MultiLabelCalibratedClassifier(StandardScaler()), "predict_proba")


def test_label_names_one_label_fit_arguments_and_fitted_classifiers():
    X, y = table()
    names = [[name for name, value in zip("abc", row, strict=True) if value] for row in y[:, :3]]
    named, matrix = (MultiLabelCalibratedClassifier(LINEAR).fit(X, labels) for labels in (names, y[:, :3]))
    assert named.classes_.tolist() == ["a", "b", "c"]
    assert named.positives_.tolist() == y[:, :3].sum(axis=0).tolist()
    np.testing.assert_array_equal(named.predict_proba(X), matrix.predict_proba(X))
    assert named.score(X, names) == matrix.score(X, y[:, :3])
    single = MultiLabelCalibratedClassifier(LINEAR, method="temperature").fit(X, y[:, :1])
    expected = CalibratedClassifierCV(LogisticRegression(), method="sigmoid", ensemble=False).fit(X, y[:, 0])
    assert single.predict_proba(X).shape == (len(X), 1)
    assert abs(single.predict_proba(X)[:, 0] - expected.predict_proba(X)[:, 1]).max() < 0.2
    fitted = clone(LINEAR).fit(X[:80], y[:80])
    frozen = MultiLabelCalibratedClassifier(fitted, cv="prefit").fit(X[80:], y[80:])
    assert frozen.estimator_ is fitted
    np.testing.assert_array_equal(frozen.oof_scores_, fitted.decision_function(X[80:]))
    shuffled = [MultiLabelCalibratedClassifier(LINEAR, random_state=seed).fit(X, y).oof_scores_ for seed in (0, 0, 1)]
    np.testing.assert_array_equal(shuffled[0], shuffled[1])
    assert not np.array_equal(shuffled[0], shuffled[2])


class OneHotClassifier(MultiLabelCalibratedClassifier):
    """One-hot encodes the class ids that the checks of scikit-learn pass."""

    def fit(self, X, y=None):
        ids = np.asarray(y)
        is_class_ids = ids.dtype.kind != "f" or (np.isfinite(ids).all() and (ids == np.floor(ids)).all())
        if not is_class_ids or y is None or ids.size == 0 or (ids.ndim == 2 and ids.shape[1] > 1):
            return super().fit(X, y)
        classes = np.unique(ids)
        return super().fit(X, (ids.reshape(-1, 1) == (classes if len(classes) > 1 else [classes[0], None])).astype(int))


EXPECTED_FAILURES = {
    "check_fit_score_takes_y": "compares a label matrix with the class ids",
    "check_pipeline_consistency": "compares a label matrix with the class ids",
    "check_estimator_sparse_array": "requires predictions of shape (n,)",
    "check_estimator_sparse_matrix": "requires predictions of shape (n,)",
    "check_classifiers_one_label": "no label has both values, so that there is nothing to calibrate",
    "check_classifiers_classes": "compares `classes_` with the classes of one column",
    "check_classifiers_train": "requires predictions of shape (n,)",
    "check_classifiers_regression_target": "requires another error message for continuous targets",
    "check_classifier_not_supporting_multiclass": "requires a binary classifier",
}


@pytest.mark.parametrize(
    ("estimator", "check"),
    list(
        estimator_checks_generator(
            OneHotClassifier(RandomForestClassifier(2, random_state=0), method="temperature", cv=2),
            expected_failed_checks=EXPECTED_FAILURES,
            mark="xfail",
        )
    ),
    ids=lambda value: value.func.__name__ if hasattr(value, "func") else type(value).__name__,
)
def test_classifier_passes_the_checks_of_sklearn(estimator, check):
    check(estimator)
