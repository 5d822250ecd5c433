import math
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from imblearn.pipeline import Pipeline
from imblearn.under_sampling import TomekLinks
from imblearn.utils.estimator_checks import check_param_validation, estimator_checks_generator
from scipy import sparse
from sklearn import config_context
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.estimator_checks import parametrize_with_checks

from mlmetric.under_sampling import LabelCapUnderSampler, MultiLabelTomekLinks

# On small random data a removal often raises MeanIR a little; the warnings have tests of their own.
pytestmark = pytest.mark.filterwarnings("ignore:MultiLabelTomekLinks:UserWarning")

properties = settings(max_examples=50, deadline=None)
SAMPLERS = [LabelCapUnderSampler(cap_ratio=1, empty_rows="drop", random_state=0), MultiLabelTomekLinks(mutual=True)]
each_sampler = pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: type(sampler).__name__)
label_matrices = hnp.arrays(
    np.int64, st.tuples(st.integers(3, 25), st.integers(1, 4)), elements=st.integers(0, 1), fill=st.nothing()
)

# On a line, with the nearest other row in brackets. Counts 6, 3, 1; IRLbl 1, 2, 6; MeanIR 3; SCUMBLE 0.033 and so
# the automatic threshold 1 / sqrt(3) = 0.58 > 0.5 -> 0.5. Majority labels 0 and 1, minority label 2.
LINE = np.array([[0.0], [1.0], [10.0], [11.0], [20.0], [20.5], [30.0], [30.2], [40.0]])
LINE_LABELS = np.array(
    [
        [1, 0, 0],  # 0 (1): Jaccard 0
        [1, 0, 0],  # 1 (0): 0
        [1, 1, 0],  # 2 (3): 1/2
        [1, 0, 0],  # 3 (2): 1/2
        [1, 0, 0],  # 4 (5): 1
        [0, 1, 0],  # 5 (4): 1
        [0, 0, 1],  # 6 (7): 1
        [1, 1, 0],  # 7 (6): 1
        [0, 0, 0],  # 8 (7): 1
    ]
)


def dataset(num_rows=80, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(num_rows, 4))
    y = (X @ rng.normal(size=(4, 3)) + rng.normal(size=(num_rows, 3)) > [-1.5, 0.5, 2]).astype(int)
    return X, y


def resample(sampler, X, y):
    return clone(sampler).fit_resample(X, y)


# The hosts' own checks


@parametrize_with_checks([LabelCapUnderSampler(), MultiLabelTomekLinks()])
def test_sampler_passes_the_checks_of_sklearn(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    ("estimator", "check"),
    [
        pair  # imbalanced-learn's own decorator hands pytest a generator, which pytest deprecates
        for sampler in (LabelCapUnderSampler(), MultiLabelTomekLinks())
        for pair in estimator_checks_generator(
            sampler,
            expected_failed_checks={"check_target_type": "demands that multi-label targets be refused"},
            mark="xfail",
        )
    ],
    ids=lambda value: value.func.__name__ if hasattr(value, "func") else type(value).__name__,
)
def test_sampler_passes_the_checks_of_imblearn(estimator, check):
    check(estimator)


@each_sampler
def test_every_parameter_is_validated(sampler):
    check_param_validation(type(sampler).__name__, sampler)


# What goes in comes back


@each_sampler
@pytest.mark.parametrize(
    "convert",
    [
        lambda a: a.tolist(),
        lambda a: torch.tensor(a, dtype=torch.float32),
        lambda a: a.astype(np.float32),
        sparse.csr_matrix,
        sparse.csc_array,
        sparse.coo_matrix,
        sparse.lil_array,
        lambda a: pd.DataFrame(a, index=np.arange(len(a)) * 7, columns=[f"c{i}" for i in range(a.shape[1])]),
    ],
    ids=["list", "tensor", "float32", "csr_matrix", "csc_array", "coo_matrix", "lil_array", "frame"],
)
def test_each_kind_of_X_and_y_comes_back_as_that_kind(sampler, convert):
    X, y = dataset()
    X = X.astype(np.float32).astype(float)
    X_expected, y_expected = resample(sampler, X, y)
    assert len(X_expected) < len(X)
    X_given, y_given = convert(X), convert(y)
    X_actual, y_actual = resample(sampler, X_given, y_given)
    for actual, given_, expected in ((X_actual, X_given, X_expected), (y_actual, y_given, y_expected)):
        assert type(actual) is type(given_)
        assert getattr(actual, "dtype", None) == getattr(given_, "dtype", None)
        np.testing.assert_array_equal(actual.toarray() if sparse.issparse(actual) else np.asarray(actual), expected)


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
    pd.testing.assert_frame_equal(X_actual, X_frame.iloc[fitted.sample_indices_])
    pd.testing.assert_index_equal(y_actual.index, index[fitted.sample_indices_])
    assert y_actual.dtypes.equals(y_frame.dtypes)
    expected = resample(sampler, X_frame.to_numpy(), y)[1]
    np.testing.assert_array_equal(y_actual.to_numpy(dtype=int), expected)


def test_capping_leaves_the_callers_data_alone():
    X, y = dataset()
    frame = pd.DataFrame(y)
    LabelCapUnderSampler(cap_ratio=0.5).fit_resample(X, frame)
    np.testing.assert_array_equal(frame.to_numpy(), y)


def test_a_series_of_class_ids_comes_back_as_a_series():
    X = np.arange(9.0).reshape(-1, 1)
    y = pd.Series(list("aaaaaaabc"), index=range(100, 109), name="kind")
    sampler = LabelCapUnderSampler(empty_rows="drop", random_state=0)
    X_actual, y_actual = sampler.fit_resample(X, y)
    pd.testing.assert_series_equal(y_actual, y.iloc[sampler.sample_indices_])
    assert y_actual.value_counts().to_dict() == {"a": 6, "b": 1, "c": 1}
    assert len(X_actual) == 8


def test_a_column_of_zeros_and_ones_is_one_label_and_of_more_values_class_ids():
    X = np.arange(6.0).reshape(-1, 1)
    sampler = LabelCapUnderSampler().fit(X, np.array([[0], [1], [1], [1], [1], [1]]))
    assert sampler.sampling_strategy_ == {0: 5}
    sampler.fit(X, np.array([[0], [1], [1], [1], [1], [2]]))
    assert sampler.sampling_strategy_ == {0: 1, 1: 4, 2: 1}


def test_capping_class_ids_that_would_be_cleared_raises():
    X = np.arange(9.0).reshape(-1, 1)
    with pytest.raises(ValueError, match="LabelCapUnderSampler would clear it in 1 rows"):
        LabelCapUnderSampler().fit_resample(X, list("aaaaaaabc"))


def test_y_of_an_unknown_kind_raises_where_labels_are_edited():
    class Labels:
        shape = (9, 3)

        def __array__(self, dtype=None, copy=None):
            return LINE_LABELS

        def __len__(self):
            return 9

        def __getitem__(self, rows):
            return self

    with pytest.raises(TypeError, match=r"`y` must be an array, .*, got Labels"):
        LabelCapUnderSampler().fit_resample(LINE, Labels())


@each_sampler
@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.where(LINE_LABELS == 1, 0.25, 0), r"`y` must hold hard labels, 0 or 1, got 0\.25 at row 0, label 0"),
        (LINE_LABELS * 2, "`y` must hold hard labels, 0 or 1, got 2 at row 0, label 0"),
        ([["0", "1"]] * 9, "`y` must hold hard labels, 0 or 1, got '0' at row 0, label 0"),
        (np.where(LINE_LABELS == 1, np.nan, 0), "Input y contains NaN"),
        (np.linspace(0, 1, 9), "Unknown label type: continuous"),
        (np.zeros(9), "`y` must hold at least 2 classes where it holds class ids, got 1 class"),
        (LINE_LABELS[:5], r"inconsistent numbers of samples: \[9, 5\]"),
        (None, "requires y to be passed, but the target y is None"),
    ],
    ids=["soft", "votes", "strings", "nan", "continuous", "one class", "length", "none"],
)
def test_y_that_is_no_label_matrix_raises(sampler, y, message):
    with pytest.raises(ValueError, match=message):
        clone(sampler).fit_resample(LINE, y)
    with pytest.raises(ValueError, match=message):
        clone(sampler).fit(LINE, y)


@each_sampler
def test_nan_in_X_raises(sampler):
    X = LINE.copy()
    X[3] = np.nan
    with pytest.raises(ValueError, match="Input X contains NaN"):
        clone(sampler).fit_resample(X, LINE_LABELS)


@each_sampler
def test_labels_without_any_positive_come_back_unchanged(sampler):
    X, y = clone(sampler).fit_resample(LINE, np.zeros((9, 2), dtype=int))
    np.testing.assert_array_equal(X, LINE)
    assert y.shape == (9, 2)
    assert not y.any()


# The label cap


def test_capping_a_table_worked_by_hand():
    # Counts 8, 2, 1, 0: mean 2.75, cap 2.75 -> 2, so label 0 is dropped from 6 of its 8 rows.
    y = np.array([[1, 0, 0, 0]] * 5 + [[1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]])
    X = np.arange(9.0).reshape(-1, 1)
    for empty_rows in ("keep", "skip", "drop"):
        sampler = LabelCapUnderSampler(cap_ratio=1, empty_rows=empty_rows, random_state=3)
        X_actual, y_actual = sampler.fit_resample(X, y)
        assert sampler.cap_ == 2
        assert sampler.capped_labels_.tolist() == [0]
        assert sampler.counts_before_.tolist() == [8, 2, 1, 0]
        assert sampler.counts_after_.tolist() == y_actual.sum(axis=0).tolist() == [2, 2, 1, 0]
        emptied = sampler.n_empty_rows_
        if empty_rows == "skip":
            assert emptied == 3  # rows 5, 6, 7 lose it first, then three of the five that carry nothing else
        np.testing.assert_array_equal(X_actual, X[sampler.sample_indices_])
        if empty_rows == "drop":
            assert 3 <= emptied <= 5
            assert len(y_actual) == 9 - emptied
            assert 8 in sampler.sample_indices_  # it came without labels and was not emptied
        else:
            assert sampler.sample_indices_.tolist() == list(range(9))
            assert (~y_actual.any(axis=1)).sum() == emptied + 1


@given(label_matrices, st.sampled_from([0.3, 0.5, 1, 1.5, 2]), st.sampled_from(["keep", "skip", "drop"]))
@properties
def test_counts_after_capping_are_exact_and_labels_only_ever_dropped(y, cap_ratio, empty_rows):
    sampler = LabelCapUnderSampler(cap_ratio=cap_ratio, empty_rows=empty_rows, random_state=0)
    _, y_actual = sampler.fit_resample(np.zeros((len(y), 1)), y)
    counts = y.sum(axis=0)
    cap = max(1, math.floor(cap_ratio * counts.sum() / y.shape[1] + 1e-9))
    assert y_actual.sum(axis=0).tolist() == [min(count, cap) for count in counts]
    source = y[sampler.sample_indices_]
    assert (y_actual <= source).all()
    lost_all = source.any(axis=1) & ~y_actual.any(axis=1)
    if empty_rows == "drop":
        assert not lost_all.any()
        assert len(y) - len(y_actual) == sampler.n_empty_rows_
        assert not (~y.any(axis=1))[np.setdiff1d(np.arange(len(y)), sampler.sample_indices_)].any()
    else:
        assert lost_all.sum() == sampler.n_empty_rows_


def test_a_cap_that_is_whole_but_for_rounding_is_not_rounded_down():
    sampler = LabelCapUnderSampler(cap_ratio=0.29, random_state=0)  # 0.29 * 100 is 28.999999999999996
    sampler.fit_resample(np.zeros((100, 1)), np.ones((100, 1), dtype=int))
    assert sampler.counts_after_.tolist() == [29]


def test_a_label_at_the_cap_is_left_and_one_above_it_capped():
    y = np.zeros((10, 4), dtype=int)
    y[:8, 0] = y[:4, 1] = y[:4, 2] = 1  # mean 4, cap 8
    sampler = LabelCapUnderSampler(random_state=0)
    assert sampler.fit_resample(np.zeros((10, 1)), y)[1].tolist() == y.tolist()
    assert sampler.capped_labels_.tolist() == []
    y[8, 0], y[3, 1], y[3, 2] = 1, 0, 0  # mean 15 / 4, cap 7
    sampler.fit_resample(np.zeros((10, 1)), y)
    assert sampler.capped_labels_.tolist() == [0]
    assert sampler.counts_after_.tolist() == [7, 3, 3, 0]


def test_skipping_takes_a_last_label_only_where_it_must():
    # Both labels 0 and 1 are capped at 2; every row carries two labels, and the second draw sees the first.
    y = np.array([[1, 1, 0], [1, 1, 0], [1, 1, 0], [1, 1, 0], [1, 0, 0], [0, 1, 0]])
    for seed in range(10):
        sampler = LabelCapUnderSampler(cap_ratio=0.9, empty_rows="skip", random_state=seed)  # 0.9 * 10 / 3 = 3
        y_actual = sampler.fit_resample(np.zeros((6, 1)), y)[1]
        assert sampler.cap_ == 3
        assert y_actual[4:].tolist() == [[1, 0, 0], [0, 1, 0]]
        assert sampler.n_empty_rows_ == 0


def test_capping_draws_each_carrier_equally_often():
    y = np.array([[1, 0], [1, 1], [1, 0], [0, 0], [1, 0]])
    dropped = np.zeros(5)
    for seed in range(400):  # cap 2.5 -> 2 of 4 keep it
        dropped += y[:, 0] - LabelCapUnderSampler(cap_ratio=1, random_state=seed).fit_resample(y, y)[1][:, 0]
    assert dropped[3] == 0
    assert ((dropped[[0, 1, 2, 4]] > 150) & (dropped[[0, 1, 2, 4]] < 250)).all()  # 200 each, five deviations of 10


def test_capping_repeats_with_a_seed_and_varies_without_one():
    X, y = dataset(200)
    first, second = (LabelCapUnderSampler(cap_ratio=0.5, random_state=7).fit_resample(X, y)[1] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    shared = LabelCapUnderSampler(cap_ratio=0.5, random_state=np.random.RandomState(7))
    assert (shared.fit_resample(X, y)[1] != shared.fit_resample(X, y)[1]).any()


@pytest.mark.parametrize("parameters", [{"cap_ratio": 0}, {"cap_ratio": -1.5}, {"empty_rows": "leave"}])
def test_capping_with_a_parameter_out_of_range_raises(parameters):
    name, value = next(iter(parameters.items()))
    with pytest.raises(ValueError, match=f"The '{name}' parameter of LabelCapUnderSampler must be .* Got {value!r}"):
        LabelCapUnderSampler(**parameters).fit_resample(LINE, LINE_LABELS)


# Multi-label Tomek links


@pytest.mark.parametrize(
    ("parameters", "removed"),
    [
        ({}, [4, 5, 7]),
        ({"mode": "cleaning"}, [4, 5, 6, 7, 8]),
        ({"mode": "cleaning", "mutual": True}, [4, 5, 6, 7]),
        ({"mode": "cleaning", "protect_minority": True}, [4, 5, 7, 8]),
        ({"threshold": 0.49}, [2, 3, 4, 5, 7]),
        ({"threshold": 1.0}, []),
        ({"label_distance": "dice", "threshold": 0.33}, [2, 3, 4, 5, 7]),  # 1 - 2 / 3 between rows 2 and 3
        ({"label_distance": "dice", "threshold": 0.34}, [4, 5, 7]),
        ({"label_distance": "hamming", "threshold": 0.5}, [4, 5, 7]),  # 1/3, 2/3 and, between 6 and 7, 1
        ({"label_distance": "hamming", "threshold": 2 / 3}, [7]),
    ],
)
def test_tomek_links_on_a_table_worked_by_hand(parameters, removed):
    sampler = MultiLabelTomekLinks(**parameters)
    X_actual, y_actual = sampler.fit_resample(LINE, LINE_LABELS)
    kept = np.setdiff1d(np.arange(9), removed)
    assert sampler.sample_indices_.tolist() == kept.tolist()
    np.testing.assert_array_equal(X_actual, LINE[kept])
    np.testing.assert_array_equal(y_actual, LINE_LABELS[kept])
    assert sampler.removed_per_label_.tolist() == LINE_LABELS[removed].sum(axis=0).tolist()
    assert sampler.mean_ir_before_ == 3


def label_distance_by_sets(first, second, kind, num_labels):
    differing = len(first ^ second)
    size = {"jaccard": len(first | second), "dice": len(first) + len(second), "hamming": num_labels}[kind]
    return differing / size if differing else 0.0


@given(
    label_matrices,
    st.data(),
    st.sampled_from(["jaccard", "dice", "hamming"]),
    st.sampled_from([0.0, 0.25, 0.5]),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["undersampling", "cleaning"]),
)
@properties
def test_tomek_links_match_a_loop_from_the_specification(y, data, kind, threshold, mutual, protect, mode):
    n, num_labels = y.shape
    X = data.draw(hnp.arrays(np.int64, (n, 2), elements=st.integers(0, 4)))
    nearest = [min((((X[i] - X[j]) ** 2).sum(), j) for j in range(n) if j != i)[1] for i in range(n)]
    counts = y.sum(axis=0)
    ratios = {label: counts.max() / counts[label] for label in range(num_labels) if counts[label]}
    mean = sum(ratios.values()) / len(ratios) if ratios else None
    majority = {label for label, ratio in ratios.items() if ratio < mean - 1e-9}
    minority = {label for label, ratio in ratios.items() if ratio > mean + 1e-9}
    sets = [set(np.flatnonzero(row).tolist()) for row in y]
    kept = []
    for i in range(n):
        goes = label_distance_by_sets(sets[i], sets[nearest[i]], kind, num_labels) > threshold
        goes = goes and (mode == "cleaning" or bool(sets[i] & majority))
        goes = goes and (not mutual or nearest[nearest[i]] == i)
        if not goes or (protect and sets[i] & minority):
            kept.append(i)
    sampler = MultiLabelTomekLinks(
        mode=mode, threshold=threshold, mutual=mutual, protect_minority=protect, label_distance=kind
    )
    if not kept:
        with pytest.raises(ValueError, match=f"every one of the {n} rows"):
            sampler.fit_resample(X, y)
        return
    sampler.fit_resample(X, y)
    assert sampler.sample_indices_.tolist() == kept


@pytest.mark.parametrize("num_classes", [2, 4])
def test_mutual_links_between_classes_are_those_of_imblearn(num_classes):
    rng = np.random.default_rng(num_classes)
    X, y = rng.normal(size=(300, 3)), rng.integers(0, num_classes, size=300)
    expected = TomekLinks(sampling_strategy="all")
    X_expected, y_expected = expected.fit_resample(X, y)
    actual = MultiLabelTomekLinks(mode="cleaning", mutual=True)
    X_actual, y_actual = resample(actual, X, y)
    assert len(X_actual) < 300
    np.testing.assert_array_equal(X_actual, X_expected)
    np.testing.assert_array_equal(y_actual, y_expected)


def test_mutual_undersampling_of_two_classes_is_that_of_imblearn():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(300, 3)), (rng.random(300) < 0.3).astype(int)
    expected = TomekLinks().fit_resample(X, y)
    actual = MultiLabelTomekLinks(mutual=True).fit_resample(X, y)
    for ours, theirs in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_exact_duplicates_with_other_labels_are_linked():
    X = np.array([[0.0], [0.0], [5.0], [6.0], [5.2]])
    y = np.array([[1, 0], [0, 1], [1, 0], [1, 0], [1, 0]])
    sampler = MultiLabelTomekLinks(mutual=True)
    sampler.fit_resample(X, y)
    assert sampler.sample_indices_.tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("counts", "rows_of_both", "expected"),
    [
        ((10, 10), 0, 0.5),  # MeanIR 1: 1
        ((13, 2), 0, 0.5),  # MeanIR 3.75: 0.516
        ((14, 2), 0, 0.3),  # MeanIR 4, 0.5 is not above 0.5
        ((38, 2), 0, 0.3),  # MeanIR 10: 0.316
        ((44, 2), 0, 0.15),  # MeanIR 11.5: 0.295
        ((11, 1), 1, 0.3),  # MeanIR 6, SCUMBLE 1 row in 11 of 0.447
    ],
)
def test_automatic_threshold_follows_the_steps(counts, rows_of_both, expected):
    y = np.zeros((sum(counts) - rows_of_both, 2), dtype=int)
    y[: counts[0], 0] = 1
    y[counts[0] - rows_of_both :, 1] = 1
    sampler = MultiLabelTomekLinks()
    sampler.fit_resample(np.arange(len(y), dtype=float).reshape(-1, 1) ** 2, y)
    assert sampler.threshold_ == expected


def test_automatic_threshold_is_a_half_where_rare_and_frequent_labels_share_rows():
    # Each row but the last pairs label 0 with a label of its own: IRLbl 1, 40, 40, ...; 1 / sqrt(MeanIR) is 0.16.
    y = np.eye(40, 40, k=1, dtype=int)
    y[:, 0] = 1
    sampler = MultiLabelTomekLinks()
    sampler.fit_resample(np.arange(40.0).reshape(-1, 1), y)
    assert sampler.threshold_ == 0.5


def test_a_label_distance_equal_to_the_threshold_stays():
    # 3 of 10 labels differ; 1 - 7 / 10 is above 0.3 in floating point.
    y = np.ones((2, 10), dtype=int)
    y[0, 7:] = 0
    sampler = MultiLabelTomekLinks(mode="cleaning", threshold=0.3)
    sampler.fit_resample([[0.0], [1.0]], y)
    assert sampler.sample_indices_.tolist() == [0, 1]


def test_tomek_links_warn_when_more_than_half_of_the_rows_go():
    X = [[0.0], [1.0], [10.0], [11.0], [20.0], [21.0], [22.0]]
    y = [[1, 0], [0, 1], [1, 0], [0, 1], [1, 1], [1, 1], [1, 1]]
    with pytest.warns(UserWarning, match="MultiLabelTomekLinks removed 4 of 7 rows, more than half"):
        MultiLabelTomekLinks(mode="cleaning").fit_resample(X, y)


def test_tomek_links_do_not_warn_when_exactly_half_of_the_rows_go(recwarn):
    X = [[0.0], [1.0], [20.0], [21.0]]
    y = [[1, 0], [0, 1], [1, 1], [1, 1]]
    sampler = MultiLabelTomekLinks(mode="cleaning")
    sampler.fit_resample(X, y)
    assert sampler.sample_indices_.tolist() == [2, 3]
    assert not recwarn.list


def test_tomek_links_warn_when_a_label_vanished():
    X = [[0.0], [1.0], [10.0], [11.0], [20.0]]
    y = [[1, 0, 0], [0, 0, 1], [1, 1, 0], [1, 1, 0], [1, 1, 0]]
    with pytest.warns(UserWarning, match=r"MultiLabelTomekLinks removed every positive of labels \[2\]"):
        MultiLabelTomekLinks(mode="cleaning").fit_resample(X, y)


def test_tomek_links_warn_when_mean_ir_rose():
    # The link of rows 6 and 7 costs label 0 one of its seven rows and label 1 one of its two.
    X = np.array([[0.0], [1.0], [10.0], [11.0], [20.0], [21.0], [30.0], [30.4]])
    y = np.array([[1, 0], [1, 0], [1, 0], [1, 0], [1, 0], [1, 1], [1, 0], [0, 1]])
    sampler = MultiLabelTomekLinks(mode="cleaning", threshold=0.9)
    with pytest.warns(UserWarning, match=r"MultiLabelTomekLinks raised MeanIR from 2\.25 to 3\.5") as caught:
        sampler.fit_resample(X, y)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert sampler.mean_ir_after_ > sampler.mean_ir_before_


def test_tomek_links_say_nothing_when_nothing_got_worse(recwarn):
    sampler = MultiLabelTomekLinks()
    sampler.fit_resample(LINE, LINE_LABELS)
    assert sampler.mean_ir_after_ == sampler.mean_ir_before_ == 3
    assert not recwarn.list


def test_tomek_links_that_would_remove_every_row_raise():
    with pytest.raises(ValueError, match="MultiLabelTomekLinks would remove every one of the 2 rows"):
        MultiLabelTomekLinks(mode="cleaning").fit_resample([[0.0], [1.0]], [[1, 0], [0, 1]])


def test_tomek_links_of_one_row_raise():
    with pytest.raises(ValueError, match="for 1 rows"):
        MultiLabelTomekLinks().fit_resample([[0.0]], [[1, 0]])


@pytest.mark.parametrize(
    "parameters", [{"mode": "clean"}, {"threshold": 1.5}, {"mutual": "yes"}, {"label_distance": "cosine"}]
)
def test_tomek_links_with_a_parameter_out_of_range_raise(parameters):
    name, value = next(iter(parameters.items()))
    with pytest.raises(ValueError, match=f"The '{name}' parameter of MultiLabelTomekLinks must be .* Got {value!r}"):
        MultiLabelTomekLinks(**parameters).fit_resample(LINE, LINE_LABELS)


# Inside the host


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


def test_a_grid_search_sets_the_parameters_of_the_samplers():
    X, y = dataset()
    steps = [("tomek", MultiLabelTomekLinks(mutual=True)), ("cap", LabelCapUnderSampler(random_state=0))]
    pipeline = Pipeline([*steps, ("classifier", OneVsRestClassifier(LogisticRegression()))])
    grid = {"tomek__threshold": [0.5, 1.0], "cap__cap_ratio": [0.8, 2.0]}
    search = GridSearchCV(pipeline, grid, cv=2, scoring="f1_macro", error_score="raise").fit(X, y)
    assert search.best_estimator_["cap"].cap_ratio == search.best_params_["cap__cap_ratio"]
    assert len(search.cv_results_["params"]) == 4


def test_metadata_is_routed_past_the_sampler_to_the_classifier():
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
def test_set_output_does_not_touch_what_a_sampler_gives_back(sampler):
    X, y = dataset()
    with config_context(transform_output="pandas"):
        X_actual, y_actual = resample(sampler, X, y)
    assert type(X_actual) is type(y_actual) is np.ndarray


@each_sampler
def test_a_fitted_sampler_survives_pickling_and_cloning_forgets_the_fit(sampler):
    X, y = dataset()
    fitted = clone(sampler)
    fitted.fit_resample(X, y)
    loaded = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(loaded.sample_indices_, fitted.sample_indices_)
    assert clone(fitted).get_params() == sampler.get_params()
    assert not hasattr(clone(fitted), "sample_indices_")


@each_sampler
def test_parameters_are_keyword_only(sampler):
    with pytest.raises(TypeError, match="positional"):
        type(sampler)(0.5)
