import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from imblearn.pipeline import Pipeline
from imblearn.utils import estimator_checks as imblearn_checks
from scipy import sparse
from sklearn import config_context
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils import estimator_checks as sklearn_checks

from mlmetric import under_sampling
from mlmetric.imbalance import mean_ir
from mlmetric.neighbors import kneighbors
from mlmetric.under_sampling import (
    LPRUS,
    MLRUS,
    MLUL,
    REMEDIAL,
    BaseNeighborSampler,
    LabelCapUnderSampler,
    MLeNN,
    MultiLabelTomekLinks,
    RandomLabelUnderSampler,
)

# On small random data MeanIR often increases a little; other tests check the warnings.
pytestmark = pytest.mark.filterwarnings(r"ignore:\w+ (removed|raised) :UserWarning")

DEFAULTS = [
    LPRUS(random_state=0),
    MLRUS(random_state=0),
    MLUL(random_state=0),
    REMEDIAL(),
    LabelCapUnderSampler(random_state=0),
    MLeNN(),
    MultiLabelTomekLinks(),
    RandomLabelUnderSampler(random_state=0),
]
# Samplers with parameters that change `dataset()`.
SAMPLERS = [
    LPRUS(percentage=40, random_state=0),
    MLRUS(random_state=0),
    MLUL(random_state=0),
    REMEDIAL(),
    LabelCapUnderSampler(cap_ratio=1, empty_rows="drop", random_state=0),
    MLeNN(threshold=0.4),
    MultiLabelTomekLinks(mutual=True),
    RandomLabelUnderSampler(cap_ratio=1, random_state=0),
]
each_sampler = pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: type(sampler).__name__)
ROWS = np.array([[0.0], [1.0], [10.0], [11.0], [20.0], [20.5], [30.0], [30.2], [40.0]])
LABELS = np.array([[1, 0, 0], [1, 0, 0], [1, 1, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 0, 0]])


def dataset(num_rows=80, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(num_rows, 4))
    y = (X @ rng.normal(size=(4, 3)) + rng.normal(size=(num_rows, 3)) > [-1.5, 0.5, 2]).astype(int)
    return X, y


def resample(sampler, X, y):
    return clone(sampler).fit_resample(X, y)


def rows_of(fitted):
    """Return the rows of the input that the result consists of; REMEDIAL repeats some."""
    return fitted.source_indices_ if isinstance(fitted, REMEDIAL) else fitted.sample_indices_


# Checks of scikit-learn and imbalanced-learn


def name_of_check(value):
    return value.func.__name__ if hasattr(value, "func") else type(value).__name__


@pytest.mark.parametrize(
    ("estimator", "check"),
    [
        (estimator, check)
        for sampler in DEFAULTS
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
        for sampler in DEFAULTS
        for pair in imblearn_checks.estimator_checks_generator(
            sampler,
            expected_failed_checks={"check_target_type": "requires that multi-label targets raise"},
            mark="xfail",
        )
    ],
    ids=name_of_check,
)
def test_sampler_passes_the_checks_of_imblearn(estimator, check):
    check(estimator)


@each_sampler
def test_every_parameter_is_validated(sampler):
    imblearn_checks.check_param_validation(type(sampler).__name__, sampler)


# Types of the result


@each_sampler
@pytest.mark.parametrize(
    "convert",
    [
        lambda a: a.tolist(),
        lambda a: torch.tensor(a, dtype=torch.float32),
        lambda a: torch.tensor(a, dtype=torch.float32, requires_grad=True),
        lambda a: a.astype(np.float32),
        sparse.csr_matrix,
        sparse.csc_array,
        sparse.coo_matrix,
        sparse.lil_array,
        lambda a: pd.DataFrame(a, index=np.arange(len(a)) * 7, columns=[f"c{i}" for i in range(a.shape[1])]),
    ],
    ids=["list", "tensor", "with gradient", "float32", "csr_matrix", "csc_array", "coo_matrix", "lil_array", "frame"],
)
def test_result_has_the_types_of_X_and_y(sampler, convert):
    X, y = dataset()
    X = X.astype(np.float32).astype(float)
    X_expected, y_expected = resample(sampler, X, y)
    assert len(X_expected) != len(X)
    X_given, y_given = convert(X), convert(y)
    X_actual, y_actual = resample(sampler, X_given, y_given)
    for actual, given_, expected in ((X_actual, X_given, X_expected), (y_actual, y_given, y_expected)):
        assert type(actual) is type(given_)
        assert getattr(actual, "dtype", None) == getattr(given_, "dtype", None)
        actual = actual.detach() if isinstance(actual, torch.Tensor) else actual
        np.testing.assert_array_equal(actual.toarray() if sparse.issparse(actual) else np.asarray(actual), expected)


@each_sampler
def test_result_of_half_precision_tensors_is_in_half_precision(sampler):
    X, y = dataset()
    X = torch.from_numpy(X).to(torch.bfloat16)
    expected = resample(sampler, X.double().numpy(), y)
    X_actual, y_actual = resample(sampler, X, torch.from_numpy(y).to(torch.bfloat16))
    assert X_actual.dtype == y_actual.dtype == torch.bfloat16
    np.testing.assert_array_equal(X_actual.double().numpy(), expected[0])
    np.testing.assert_array_equal(y_actual.double().numpy(), expected[1])


@each_sampler
@pytest.mark.parametrize(
    "dtypes",
    [{"x": bool, "y": "Int64", "z": "boolean"}, pd.SparseDtype("int8", 0), object, "category"],
    ids=["mixed", "sparse", "object", "category"],
)
def test_frames_keep_index_names_and_dtypes(sampler, dtypes):
    X, y = dataset()
    index = pd.date_range("2026-01-01", periods=len(X))
    X_frame = pd.DataFrame(X, columns=list("abcd"), index=index).astype({"a": "float32", "b": "int8"})
    y_frame = pd.DataFrame(y, columns=["x", "y", "z"], index=index).astype(dtypes)
    fitted = clone(sampler)
    X_actual, y_actual = fitted.fit_resample(X_frame, y_frame)
    assert list(fitted.feature_names_in_) == list("abcd")
    pd.testing.assert_frame_equal(X_actual, X_frame.iloc[rows_of(fitted)])
    pd.testing.assert_index_equal(y_actual.index, index[rows_of(fitted)])
    assert y_actual.dtypes.equals(y_frame.iloc[rows_of(fitted)].dtypes)  # sparse ones change before pandas 3.1
    expected = resample(sampler, X_frame.to_numpy(), y)[1]
    np.testing.assert_array_equal(y_actual.to_numpy(dtype=int), expected)


def test_column_of_zeros_and_ones_is_a_label_and_column_of_other_values_class_ids():
    X = np.arange(6.0).reshape(-1, 1)
    sampler = LabelCapUnderSampler().fit(X, np.array([[0], [1], [1], [1], [1], [1]]))
    assert sampler.sampling_strategy_ == {0: 5}
    sampler.fit(X, np.array([[0], [1], [1], [1], [1], [2]]))
    assert sampler.sampling_strategy_ == {0: 1, 1: 4, 2: 1}


@each_sampler
@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.where(LABELS == 1, 0.25, 0), r"`y` must contain hard labels, 0 or 1, got 0\.25 at row 0, label 0"),
        (LABELS * 2, "`y` must contain hard labels, 0 or 1, got 2 at row 0, label 0"),
        (
            np.where(LABELS == 1, np.nan, 0),
            "got nan at row 0, label 0. NaN means .*does not support missing",
        ),
        (np.where(LABELS[:, 0] == 1, np.nan, 0), "Input y contains NaN"),
        (np.linspace(0, 1, 9), "Unknown label type: continuous"),
        (np.zeros(9), "`y` must contain at least 2 classes if it contains class ids, got 1 class"),
        (np.zeros((9, 2, 2)), r"`y` must be a 2-D multi-hot matrix of shape \(N, L\), got shape \(9, 2, 2\)"),
        (LABELS[:5], r"inconsistent numbers of samples: \[9, 5\]"),
        (None, "requires y to be passed, but the target y is None"),
    ],
    ids=["soft", "votes", "nan", "nan in class ids", "continuous", "one class", "3-D", "length", "none"],
)
def test_y_that_is_neither_multi_hot_nor_class_ids_raises(sampler, y, message):
    with pytest.raises(ValueError, match=message):
        clone(sampler).fit_resample(ROWS, y)
    with pytest.raises(ValueError, match=message):
        clone(sampler).fit(ROWS, y)


@each_sampler
@pytest.mark.parametrize(
    "y",
    [[["sea"], ["sun", "sea"], []] * 3, [["sea", "sun"]] * 9, [{"sea"}, {"sun", "sea"}, set()] * 3, [["0", "1"]] * 9],
    ids=["lists", "lists of one length", "sets", "strings of digits"],
)
def test_label_names_raise_the_error_of_all_entry_points(sampler, y):
    with pytest.raises(
        TypeError, match=r"`y` must contain numbers, 0 or 1 for each label of each row.*MultiLabelBinarizer"
    ):
        clone(sampler).fit_resample(ROWS, y)


@each_sampler
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state")
def test_sparse_tensor_of_labels_gives_a_sparse_tensor(sampler, layout):
    X, y = dataset()
    expected = resample(sampler, X, y)[1]
    actual = resample(sampler, X, torch.from_numpy(y).to_sparse(layout=layout))[1]
    assert actual.layout is layout
    np.testing.assert_array_equal(actual.to_dense().numpy(), expected)


BY_LABELS = [sampler for sampler in SAMPLERS if not isinstance(sampler, BaseNeighborSampler)]
BY_NEIGHBORS = [sampler for sampler in SAMPLERS if isinstance(sampler, BaseNeighborSampler)]
ANYTHING = {
    "nan": np.where(ROWS == 10, np.nan, ROWS),
    "infinite": np.where(ROWS == 10, np.inf, ROWS),
    "strings": np.array([f"{row}.jpg" for row in range(9)]).reshape(-1, 1),
    "paths": np.array([Path(f"{row}.jpg") for row in range(9)], dtype=object).reshape(-1, 1),
    "lists of strings": [[f"{row}.jpg", "a"] for row in range(9)],
    "frame": pd.DataFrame({"path": [f"{row}.jpg" for row in range(9)], "size": [None, *range(8)]}),
    "tensor": torch.full((9, 2), torch.nan),
    "sparse": sparse.csr_array(np.where(ROWS == 10, np.nan, ROWS)),
}


@pytest.mark.parametrize("sampler", BY_NEIGHBORS, ids=lambda sampler: type(sampler).__name__)
@pytest.mark.parametrize(("value", "shown"), [(np.nan, "Input X contains NaN"), (np.inf, "Input X contains infinity")])
def test_features_that_are_not_finite_raise_if_neighbours_are_searched(sampler, value, shown):
    X = np.where(ROWS == 10, value, ROWS)
    with pytest.raises(ValueError, match=shown):
        clone(sampler).fit_resample(X, LABELS)
    with pytest.raises(ValueError, match=shown):
        clone(sampler).fit(X, LABELS)


@pytest.mark.parametrize("kind", ANYTHING)
@each_sampler
def test_features_that_a_sampler_does_not_use_may_be_anything(sampler, kind):
    X = ANYTHING[kind]
    context = {"neighbors": kneighbors(ROWS, 5)[1]} if sampler in BY_NEIGHBORS else {}
    expected, same = clone(sampler), clone(sampler)
    _, y = expected.fit_resample(ROWS, LABELS)
    X_resampled, y_resampled = same.fit_resample(X, LABELS, **context)
    assert rows_of(same).tolist() == rows_of(expected).tolist()
    np.testing.assert_array_equal(y_resampled, y)
    assert type(X_resampled) is type(X)
    wanted = [np.asarray(_dense(X), dtype=object)[row] for row in rows_of(same)]
    found = np.asarray(_dense(X_resampled), dtype=object)
    pd.testing.assert_frame_equal(pd.DataFrame(found), pd.DataFrame(np.asarray(wanted, dtype=object)))


def _dense(X):
    return X.toarray() if sparse.issparse(X) else X


@pytest.mark.parametrize("sampler", BY_LABELS, ids=lambda sampler: type(sampler).__name__)
def test_sampler_that_uses_labels_only_fits_features_of_any_type(sampler):
    fitted = clone(sampler).fit(ANYTHING["frame"], LABELS)
    assert fitted.feature_names_in_.tolist() == ["path", "size"]
    with pytest.raises(ValueError, match="Expected 2D array, got 1D array instead"):
        clone(sampler).fit_resample([f"{row}.jpg" for row in range(9)], LABELS)


@pytest.mark.parametrize(
    ("sampler", "nothing"),
    [
        (MLRUS(), {"percentage": 0}),
        (LPRUS(), {"percentage": 0}),
        (MLUL(n_neighbors=2), {"percentage": 0}),
        (LabelCapUnderSampler(), {"cap_ratio": np.inf}),
        (RandomLabelUnderSampler(), {"cap_ratio": np.inf}),
        (MultiLabelTomekLinks(), {"threshold": 1}),
        (MLeNN(), {"threshold": 1}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_parameters_that_remove_nothing_return_the_data_unchanged(sampler, nothing):
    for labels in (LABELS, np.zeros((9, 2), dtype=int)):
        X, y = clone(sampler).set_params(**nothing).fit_resample(ROWS, labels)
        np.testing.assert_array_equal(X, ROWS)
        np.testing.assert_array_equal(y, labels)


@each_sampler
def test_labels_without_positives_are_returned_unchanged(sampler):
    X, y = clone(sampler).fit_resample(ROWS, np.zeros((9, 2), dtype=int))
    if isinstance(sampler, MLUL):  # it removes its percentage of the rows, by equal weights
        assert len(X) == 7
        return
    np.testing.assert_array_equal(X, ROWS)
    assert y.shape == (9, 2)
    assert not y.any()


# Pipelines and model selection


@each_sampler
@pytest.mark.parametrize(
    "classifier",
    [
        OneVsRestClassifier(LogisticRegression()),
        ClassifierChain(LogisticRegression()),
        MultiOutputClassifier(LogisticRegression()),
        KNeighborsClassifier(),
    ],
    ids=lambda classifier: type(classifier).__name__,
)
def test_a_pipeline_fits_the_classifier_on_the_resampled_rows(sampler, classifier):
    X, y = dataset()
    actual = Pipeline([("sampler", clone(sampler)), ("classifier", clone(classifier))]).fit(X, y)
    X_resampled, y_resampled = resample(sampler, X, y)
    assert (X_resampled.shape, y_resampled.sum()) != (X.shape, y.sum())
    expected = clone(classifier).fit(X_resampled, y_resampled)
    np.testing.assert_array_equal(actual.predict(X), expected.predict(X))


@each_sampler
def test_cross_validation_and_a_cached_pipeline_run(sampler, tmp_path):
    X, y = dataset()
    classifier = OneVsRestClassifier(LogisticRegression())
    plain = Pipeline([("sampler", clone(sampler)), ("classifier", classifier)])
    cached = Pipeline([("sampler", clone(sampler)), ("classifier", classifier)], memory=str(tmp_path))
    expected = cross_validate(plain, X, y, cv=3, scoring="f1_macro", error_score="raise")["test_score"]
    for _ in range(2):
        actual = cross_validate(cached, X, y, cv=3, scoring="f1_macro", error_score="raise")["test_score"]
        np.testing.assert_array_equal(actual, expected)


def test_every_public_sampler_is_tested_here():
    samplers = {name for name in under_sampling.__all__ if not name.startswith("Base")}
    assert (
        {type(sampler).__name__ for sampler in SAMPLERS} == {type(sampler).__name__ for sampler in DEFAULTS} == samplers
    )


@each_sampler
def test_sampler_records_statistics_of_the_result(sampler):
    X, y = dataset()
    fitted = clone(sampler)
    X_actual, y_actual = fitted.fit_resample(X, y)
    np.testing.assert_array_equal(X_actual, X[rows_of(fitted)])
    assert (np.diff(rows_of(fitted)) >= 0).all()
    np.testing.assert_array_equal(fitted.counts_before_, y.sum(axis=0))
    np.testing.assert_array_equal(fitted.counts_after_, y_actual.sum(axis=0))
    np.testing.assert_array_equal(fitted.removed_per_label_, y.sum(axis=0) - y_actual.sum(axis=0))
    assert (fitted.mean_ir_before_, fitted.mean_ir_after_) == (mean_ir(y), mean_ir(y_actual))


@each_sampler
def test_result_depends_on_random_state_only(sampler):
    X, y = dataset(200)
    first, second = resample(sampler, X, y), resample(sampler, X, y)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    if "random_state" in sampler.get_params():
        other = resample(clone(sampler).set_params(random_state=1), X, y)
        assert not (np.array_equal(first[0], other[0]) and np.array_equal(first[1], other[1]))
        generator = np.random.RandomState(0)
        shared = clone(sampler).set_params(random_state=generator)
        np.testing.assert_array_equal(shared.fit_resample(X, y)[0], first[0])


@pytest.mark.parametrize(
    "sampler",
    [sampler for sampler in SAMPLERS if "random_state" in sampler.get_params()],
    ids=lambda sampler: type(sampler).__name__,
)
def test_random_state_none_uses_the_global_random_state_of_numpy(sampler):
    X, y = dataset(200)
    unseeded = clone(sampler).set_params(random_state=None)
    before = np.random.get_state()  # noqa: NPY002
    try:
        np.random.seed(5)  # noqa: NPY002
        first, second = resample(unseeded, X, y), resample(unseeded, X, y)
        np.random.seed(5)  # noqa: NPY002
        again = resample(unseeded, X, y)
    finally:
        np.random.set_state(before)  # noqa: NPY002
    expected = resample(clone(sampler).set_params(random_state=5), X, y)
    for part in range(2):
        np.testing.assert_array_equal(first[part], again[part])
        np.testing.assert_array_equal(first[part], expected[part])
    assert not (np.array_equal(first[0], second[0]) and np.array_equal(first[1], second[1]))


@each_sampler
def test_repr_shows_the_parameters_that_are_not_defaults(sampler):
    defaults = type(sampler)().get_params()
    shown = [f"{name}={value!r}" for name, value in sampler.get_params().items() if value != defaults[name]]
    assert repr(sampler) == f"{type(sampler).__name__}({', '.join(shown)})"


@each_sampler
def test_input_data_are_not_modified(sampler):
    X, y = dataset()
    X_before, y_before = X.copy(), y.copy()
    resample(sampler, X, y)
    np.testing.assert_array_equal(X, X_before)
    np.testing.assert_array_equal(y, y_before)


@each_sampler
@pytest.mark.parametrize(
    ("X", "y"),
    [
        (np.zeros((9, 2)), LABELS),
        (np.repeat(ROWS[:3], 3, axis=0), LABELS),
        (ROWS, LABELS[:, :1]),
        (ROWS, np.ones((9, 3), dtype=int)),
        (ROWS, np.column_stack([LABELS, np.zeros(9, dtype=int)])),
    ],
    ids=["constant columns", "duplicates", "one label", "every label", "a label without positives"],
)
def test_degenerate_data_are_resampled(sampler, X, y):
    X_actual, y_actual = resample(sampler, X, y)
    assert len(X_actual) == len(y_actual) > 0
    assert y_actual.shape[1] == y.shape[1]


def test_a_grid_search_sets_the_parameters_of_the_samplers():
    X, y = dataset()
    steps = [("tomek", MultiLabelTomekLinks(mutual=True)), ("cap", LabelCapUnderSampler(random_state=0))]
    pipeline = Pipeline([*steps, ("classifier", OneVsRestClassifier(LogisticRegression()))])
    grid = {"tomek__threshold": [0.5, 1.0], "cap__cap_ratio": [0.8, 2.0]}
    search = GridSearchCV(pipeline, grid, cv=2, scoring="f1_macro", error_score="raise").fit(X, y)
    assert search.best_estimator_["cap"].cap_ratio == search.best_params_["cap__cap_ratio"]
    assert len(search.cv_results_["params"]) == 4


def test_metadata_are_routed_to_the_classifier_behind_the_sampler():
    X, y = dataset()
    sample_weight = np.random.default_rng(0).integers(0, 2, size=len(X))
    sampler = LabelCapUnderSampler(cap_ratio=0.5, random_state=0)
    with config_context(enable_metadata_routing=True):
        classifier = DecisionTreeClassifier(random_state=0).set_fit_request(sample_weight=True)
        pipeline = Pipeline([("sampler", sampler), ("classifier", classifier)])
        actual = pipeline.fit(X, y, sample_weight=sample_weight).predict(X)
    expected = DecisionTreeClassifier(random_state=0).fit(*resample(sampler, X, y), sample_weight=sample_weight)
    np.testing.assert_array_equal(actual, expected.predict(X))


@each_sampler
def test_set_output_does_not_change_the_type_of_the_result(sampler):
    X, y = dataset()
    with config_context(transform_output="pandas"):
        X_actual, y_actual = resample(sampler, X, y)
    assert type(X_actual) is type(y_actual) is np.ndarray


@each_sampler
def test_fitted_sampler_can_be_pickled_and_its_clone_is_unfitted(sampler):
    X, y = dataset()
    fitted = clone(sampler)
    fitted.fit_resample(X, y)
    loaded = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(rows_of(loaded), rows_of(fitted))
    assert clone(fitted).get_params() == sampler.get_params()
    assert not hasattr(clone(fitted), "mean_ir_after_")


@each_sampler
def test_parameters_are_keyword_only(sampler):
    with pytest.raises(TypeError, match="positional"):
        type(sampler)(0.5)
