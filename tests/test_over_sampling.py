"""The interface of the oversamplers: types, statistics, pipelines, checks of scikit-learn and imbalanced-learn."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from imblearn.pipeline import Pipeline
from imblearn.utils import estimator_checks as imblearn_checks
from scipy import sparse
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.utils import estimator_checks as sklearn_checks

from mlmetric import over_sampling
from mlmetric.imbalance import mean_ir
from mlmetric.over_sampling import MLSMOTE, MLSOL
from mlmetric.over_sampling._type_conversion import convert_features_like

# On small random data MeanIR often increases a little; other tests check the warnings.
pytestmark = pytest.mark.filterwarnings(r"ignore:\w+ (raised|added) :UserWarning")

SAMPLERS = [MLSMOTE(label_rule="union", random_state=0), MLSOL(random_state=0)]
each_sampler = pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: type(sampler).__name__)
EXPECTED_FAILURES = {
    "MLSMOTE": {"check_target_type": "requires that multi-label targets raise"},
    "MLSOL": {
        "check_target_type": "requires that multi-label targets raise",
        "check_samplers_multiclass_ova": "a one-hot matrix is multi-hot: a new row may have several labels or none",
    },
}


def dataset(num_rows=80, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(num_rows, 4))
    y = (X @ rng.normal(size=(4, 3)) + rng.normal(size=(num_rows, 3)) > [-1.5, 0.5, 2]).astype(int)
    return X, y


def resample(sampler, X, y):
    return clone(sampler).fit_resample(X, y)


def name_of_check(value):
    return value.func.__name__ if hasattr(value, "func") else type(value).__name__


@pytest.mark.parametrize(
    ("estimator", "check"),
    [
        (estimator, check)
        for sampler in (MLSMOTE(random_state=0), MLSOL(random_state=0))
        for estimator, check in sklearn_checks.estimator_checks_generator(sampler)
        if name_of_check(check) != "check_array_api_input"  # skipped unless SCIPY_ARRAY_API is set
    ],
    ids=name_of_check,
)
def test_sampler_passes_the_checks_of_sklearn(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    ("estimator", "check"),
    [
        pair  # imbalanced-learn's decorator passes a generator to pytest, which pytest deprecates
        for sampler in (MLSMOTE(random_state=0), MLSOL(random_state=0))
        for pair in imblearn_checks.estimator_checks_generator(
            sampler, expected_failed_checks=EXPECTED_FAILURES[type(sampler).__name__], mark="xfail"
        )
    ],
    ids=name_of_check,
)
def test_sampler_passes_the_checks_of_imblearn(estimator, check):
    check(estimator)


@each_sampler
def test_every_parameter_is_validated(sampler):
    imblearn_checks.check_param_validation(type(sampler).__name__, sampler)


def test_every_public_sampler_is_tested_here():
    public = {name for name in over_sampling.__all__ if not name.startswith("Base")}
    assert {type(sampler).__name__ for sampler in SAMPLERS} == public


# Rows and statistics


@each_sampler
@pytest.mark.parametrize("seed", range(3))
def test_rows_of_the_input_come_first_and_new_rows_lie_between_their_parents(sampler, seed):
    X, y = dataset(seed=seed)
    given = X.copy(), y.copy()
    fitted = clone(sampler)
    X_all, y_all = fitted.fit_resample(X, y)
    for before, after, kept in zip(given, (X_all, y_all), (X, y), strict=True):
        np.testing.assert_array_equal(after[: len(before)], before)
        np.testing.assert_array_equal(kept, before)
    first, second = fitted.parent_indices_.T
    assert len(first) == len(X_all) - len(X) > 0
    low, high = np.minimum(X_all[first], X_all[second]), np.maximum(X_all[first], X_all[second])
    assert ((X_all[len(X) :] >= low - 1e-12) & (X_all[len(X) :] <= high + 1e-12)).all()
    either = y_all[first] | y_all[second]
    assert sampler is not SAMPLERS[1] or (y_all[len(X) :] <= either).all()


@each_sampler
def test_sampler_records_statistics_of_the_result(sampler):
    X, y = dataset()
    fitted = clone(sampler)
    y_all = fitted.fit_resample(X, y)[1]
    np.testing.assert_array_equal(fitted.counts_before_, y.sum(axis=0))
    np.testing.assert_array_equal(fitted.counts_after_, y_all.sum(axis=0))
    np.testing.assert_array_equal(fitted.added_per_label_, y_all.sum(axis=0) - y.sum(axis=0))
    assert (fitted.mean_ir_before_, fitted.mean_ir_after_) == (mean_ir(y), mean_ir(y_all))
    assert fitted.sampling_strategy_ == dict(enumerate(y.sum(axis=0)))


@pytest.mark.filterwarnings("default")
def test_sampler_warns_if_imbalance_increased_or_the_rows_more_than_doubled():
    X, y = dataset()
    sampler = MLSOL(percentage=150, random_state=0)
    with pytest.warns(UserWarning, match=r"MLSOL added 120 rows to 80, more than doubling them\.") as caught:
        sampler.fit_resample(X, y)
    assert {warning.filename for warning in caught} == {__file__}
    # The only row with label 1 is an outlier, so that only label 0 gains positives.
    y = np.column_stack([y[:, 1], np.arange(80) == 0])
    with pytest.warns(UserWarning, match=r"MLSOL raised MeanIR from \d+(\.\d+)? to \d+(\.\d+)?\."):
        sampler.set_params(percentage=30).fit_resample(X, y)
    assert sampler.mean_ir_after_ > sampler.mean_ir_before_
    assert sampler.added_per_label_[1] == 0


@each_sampler
def test_result_depends_on_random_state_only(sampler):
    X, y = dataset(200)
    first, second = resample(sampler, X, y), resample(sampler, X, y)
    other = resample(clone(sampler).set_params(random_state=1), X, y)
    shared = resample(clone(sampler).set_params(random_state=np.random.RandomState(0)), X, y)
    for part in range(2):
        np.testing.assert_array_equal(first[part], second[part])
        np.testing.assert_array_equal(first[part], shared[part])
    assert not np.array_equal(first[0], other[0])


@each_sampler
def test_labels_without_positives_get_no_rows(sampler):
    X = np.arange(9.0)[:, None]
    X_all, y_all = resample(sampler, X, np.zeros((9, 2), dtype=int))
    np.testing.assert_array_equal(X_all, X)
    assert y_all.shape == (9, 2)
    assert not y_all.any()


def test_percentage_0_adds_no_rows_and_percentages_are_rounded_down():
    X, y = dataset()
    assert [len(MLSOL(percentage=p, random_state=0).fit_resample(X, y)[0]) for p in (0, 1.2, 1.25, 200)] == [
        80,
        80,
        81,
        240,
    ]


# Types of the result


@each_sampler
@pytest.mark.parametrize(
    "convert",
    [
        lambda a: a.tolist(),
        lambda a: torch.tensor(a, dtype=torch.float32),
        lambda a: torch.tensor(a, dtype=torch.float32, requires_grad=True),
        lambda a: a.astype(np.float32),
        lambda a: a.astype(object),
        sparse.csr_matrix,
        sparse.csc_array,
        sparse.coo_matrix,
        sparse.lil_array,
        lambda a: pd.DataFrame(a, index=np.arange(len(a)) * 7, columns=[f"c{i}" for i in range(a.shape[1])]),
        lambda a: torch.tensor(a, dtype=torch.float32).to_sparse(),
    ],
    ids=["list", "tensor", "gradient", "float32", "object", "csr", "csc", "coo", "lil", "frame", "sparse tensor"],
)
def test_result_has_the_types_of_X_and_y(sampler, convert):
    X, y = dataset()
    X = X.astype(np.float32).astype(float)
    X_expected, y_expected = resample(sampler, X, y)
    X_given, y_given = convert(X), convert(y)
    X_actual, y_actual = resample(sampler, X_given, y_given)
    for actual, given, expected in ((X_actual, X_given, X_expected), (y_actual, y_given, y_expected)):
        assert type(actual) is type(given)
        assert getattr(actual, "dtype", None) == getattr(given, "dtype", None)
        actual = actual.detach().to_dense() if isinstance(actual, torch.Tensor) else actual
        actual = actual.toarray() if sparse.issparse(actual) else np.asarray(actual, dtype=float)
        np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-7)


@each_sampler
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state")
def test_sparse_tensor_of_labels_gives_a_sparse_tensor(sampler, layout):
    X, y = dataset()
    actual = resample(sampler, X, torch.from_numpy(y).to_sparse(layout=layout))[1]
    assert actual.layout is layout
    np.testing.assert_array_equal(actual.to_dense().numpy(), resample(sampler, X, y)[1])


@each_sampler
@pytest.mark.parametrize(
    "dtypes",
    [{"x": bool, "y": "Int64", "z": "boolean"}, pd.SparseDtype("int8", 0), object, "category"],
    ids=["mixed", "sparse", "object", "category"],
)
def test_frames_keep_names_and_dtypes_and_new_rows_have_the_index_of_their_origin(sampler, dtypes):
    X, y = dataset()
    X[:, 1] = np.rint(3 * X[:, 1])
    index = pd.date_range("2026-01-01", periods=len(X))
    X_frame = pd.DataFrame(X, columns=list("abcd"), index=index).astype({"a": "float32", "b": "int8"})
    y_frame = pd.DataFrame(y, columns=["x", "y", "z"], index=index).astype(dtypes)
    fitted = clone(sampler)
    X_actual, y_actual = fitted.fit_resample(X_frame, y_frame)
    pd.testing.assert_frame_equal(X_actual[:80], X_frame, check_freq=False)
    pd.testing.assert_frame_equal(y_actual[:80], y_frame, check_freq=False)
    assert X_actual.dtypes.equals(X_frame.dtypes)
    assert y_actual.dtypes.equals(y_frame.dtypes)
    origins = fitted.parent_indices_[:, 0]
    while (origins >= 80).any():
        origins = np.array([fitted.parent_indices_[row - 80, 0] if row >= 80 else row for row in origins])
    for part in (X_actual, y_actual):
        pd.testing.assert_index_equal(part.index[80:], index[origins])
    X_expected, y_expected = resample(sampler, X_frame.to_numpy(), y)
    X_expected[:, 1] = np.rint(X_expected[:, 1])
    np.testing.assert_allclose(X_actual.to_numpy(), X_expected, rtol=1e-6)
    np.testing.assert_array_equal(y_actual.to_numpy(dtype=int), y_expected)


@each_sampler
@pytest.mark.parametrize(
    "convert",
    [np.asarray, torch.tensor, sparse.csr_array, np.ndarray.tolist],
    ids=["array", "tensor", "sparse", "list"],
)
def test_integer_features_are_rounded(sampler, convert):
    X, y = dataset()
    X = np.rint(5 * X).astype(int)
    expected = resample(sampler, X.astype(float), y)[0]
    actual = resample(sampler, convert(X), y)[0]
    np.testing.assert_array_equal(actual.toarray() if sparse.issparse(actual) else actual, np.rint(expected))


@each_sampler
def test_list_with_rows_of_integers_and_a_row_of_fractions_is_not_rounded(sampler):
    X, y = dataset()
    X, y[0] = np.rint(5 * X), 0  # no row is made from a row without labels by MLSMOTE
    rows = [[value + 0.5 for value in X[0].tolist()], *X[1:].astype(int).tolist()]
    expected = resample(sampler, np.array(rows), y)[0]
    assert (expected != np.rint(expected))[len(X) :].any()
    np.testing.assert_array_equal(resample(sampler, rows, y)[0], expected)


@each_sampler
def test_half_precision_tensors_give_half_precision(sampler):
    X, y = dataset()
    X = torch.from_numpy(X).to(torch.bfloat16)
    actual = resample(sampler, X, torch.from_numpy(y).to(torch.bfloat16))
    expected = resample(sampler, X.double().numpy(), y)
    for part, wanted in zip(actual, expected, strict=True):
        assert part.dtype == torch.bfloat16
        assert torch.equal(part, torch.from_numpy(wanted).to(torch.bfloat16))


@each_sampler
@pytest.mark.parametrize("kind", ["array", "list", "column", "series"])
def test_class_ids_give_class_ids(sampler, kind):
    X, _ = dataset()
    ids = np.array(["few", "many", "some"])[np.random.default_rng(0).choice(3, size=80, p=[0.1, 0.6, 0.3])]
    given = {
        "array": ids,
        "list": ids.tolist(),
        "column": ids[:, None],
        "series": pd.Series(ids, index=np.arange(80) * 3, name="id"),
    }
    fitted = clone(sampler)
    actual = fitted.fit_resample(X, given[kind])[1]
    assert type(actual) is type(given[kind])
    assert len(actual) > 80
    assert np.ravel(actual).tolist()[:80] == ids.tolist()
    classes = np.ravel(actual)
    assert (classes[fitted.parent_indices_] == classes[80:, None]).any(axis=1).all()
    if kind == "series":
        assert actual.name == "id"
        assert actual.index.is_monotonic_increasing is False


# Errors


@each_sampler
@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (np.full((9, 1), np.nan), np.ones((9, 2)), "Input X contains NaN"),
        (np.full((9, 1), np.inf), np.ones((9, 2)), "Input X contains infinity"),
        (np.ones((9, 1)), np.full((9, 2), 0.25), r"`y` must contain hard labels, 0 or 1, got 0\.25 at row 0, label 0"),
        (np.ones((9, 1)), np.ones((8, 2)), r"inconsistent numbers of samples: \[9, 8\]"),
        (np.ones((9, 1)), None, "requires y to be passed, but the target y is None"),
    ],
    ids=["nan", "infinite", "soft", "length", "none"],
)
def test_invalid_data_raise(sampler, X, y, message):
    with pytest.raises(ValueError, match=message):
        clone(sampler).fit_resample(X, y)
    with pytest.raises(ValueError, match=message):
        clone(sampler).fit(X, y)


@each_sampler
def test_label_names_raise(sampler):
    with pytest.raises(TypeError, match=r"`y` must contain numbers, 0 or 1 .*MultiLabelBinarizer"):
        clone(sampler).fit_resample(np.ones((9, 1)), [["sea"], ["sun", "sea"], []] * 3)


def test_features_that_new_rows_cannot_have_raise():
    with pytest.raises(TypeError, match="`X` must have numeric columns, but column 'a' has dtype category"):
        convert_features_like(pd.DataFrame({"a": pd.Categorical([1, 2])}), np.array([[1.5], [1.5]]), np.dtype(float))
    with pytest.raises(TypeError, match=r"`X` must be an array, a tensor, .* got tuple"):
        convert_features_like((1, 2), np.array([[1.5], [1.5]]), np.dtype(float))


@each_sampler
def test_category_that_a_new_row_needs_must_exist(sampler):
    X, y = dataset()
    frame = pd.DataFrame(y).astype(pd.CategoricalDtype([0, 1, 2]))
    assert resample(sampler, X, frame)[1].dtypes.equals(frame.dtypes)


# Pipelines and model selection


@each_sampler
def test_a_pipeline_fits_the_classifier_on_the_resampled_rows(sampler):
    X, y = dataset()
    classifier = OneVsRestClassifier(LogisticRegression())
    pipeline = Pipeline([("sampler", clone(sampler)), ("classifier", clone(classifier))])
    expected = clone(classifier).fit(*resample(sampler, X, y))
    np.testing.assert_array_equal(pipeline.fit(X, y).predict_proba(X), expected.predict_proba(X))
    search = GridSearchCV(pipeline, {"sampler__n_neighbors": [2, 5]}, scoring="f1_macro", cv=2, error_score="raise")
    assert search.fit(X, y).best_params_["sampler__n_neighbors"] in (2, 5)


@each_sampler
def test_sampler_can_be_pickled_and_shows_its_parameters(sampler):
    X, y = dataset()
    fitted = clone(sampler)
    fitted.fit_resample(X, y)
    copy = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(copy.parent_indices_, fitted.parent_indices_)
    assert "random_state=0" in repr(copy)
