import math
from collections import Counter
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import chisquare

from mlmetric.under_sampling import LabelCapUnderSampler

# On small random data MeanIR often increases a little; other tests check the warnings.
pytestmark = pytest.mark.filterwarnings(r"ignore:\w+ (removed|raised) :UserWarning")

properties = settings(max_examples=50, deadline=None)
label_matrices = hnp.arrays(
    np.int64, st.tuples(st.integers(3, 25), st.integers(1, 4)), elements=st.integers(0, 1), fill=st.nothing()
)


def dataset(num_rows=80, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(num_rows, 4))
    y = (X @ rng.normal(size=(4, 3)) + rng.normal(size=(num_rows, 3)) > [-1.5, 0.5, 2]).astype(int)
    return X, y


def test_capping_matches_values_computed_by_hand():
    # Counts 8, 2, 1, 0: mean 2.75, cap 2.75 -> 2, so label 0 is removed from 6 of its 8 rows.
    y = np.array([[1, 0, 0, 0]] * 5 + [[1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]])
    X = np.arange(9.0).reshape(-1, 1)
    for empty_rows in ("keep", "skip", "drop"):
        sampler = LabelCapUnderSampler(cap_ratio=1, empty_rows=empty_rows, random_state=3)
        X_actual, y_actual = sampler.fit_resample(X, y)
        assert sampler.cap_ == 2
        assert sampler.capped_labels_.tolist() == [0]
        assert sampler.counts_before_.tolist() == [8, 2, 1, 0]
        assert sampler.counts_after_.tolist() == y_actual.sum(axis=0).tolist() == [2, 2, 1, 0]
        emptied = sampler.n_emptied_rows_
        if empty_rows == "skip":
            assert emptied == 3  # rows 5, 6, 7 lose it first, then three of the five that have no other label
        np.testing.assert_array_equal(X_actual, X[sampler.sample_indices_])
        if empty_rows == "drop":
            assert 3 <= emptied <= 5
            assert len(y_actual) == 9 - emptied
            assert 8 in sampler.sample_indices_  # it had no labels and is kept
        else:
            assert sampler.sample_indices_.tolist() == list(range(9))
            assert (~y_actual.any(axis=1)).sum() == emptied + 1


@given(label_matrices, st.sampled_from([0.3, 0.5, 1, 1.5, 2]), st.sampled_from(["keep", "skip", "drop"]))
@properties
def test_counts_after_capping_are_exact_and_no_label_is_added(y, cap_ratio, empty_rows):
    sampler = LabelCapUnderSampler(cap_ratio=cap_ratio, empty_rows=empty_rows, random_state=0)
    _, y_actual = sampler.fit_resample(np.zeros((len(y), 1)), y)
    counts = y.sum(axis=0)
    cap = max(1, math.floor(cap_ratio * counts.sum() / y.shape[1] + 1e-9))
    assert y_actual.sum(axis=0).tolist() == [min(count, cap) for count in counts]
    source = y[sampler.sample_indices_]
    assert (y_actual <= source).all()
    lost_all = source.any(axis=1) & ~y_actual.any(axis=1)
    assert not sampler.mean_ir_after_ > sampler.mean_ir_before_ * (1 + 1e-12)
    if empty_rows == "drop":
        assert not lost_all.any()
        assert len(y) - len(y_actual) == sampler.n_emptied_rows_
        assert not (~y.any(axis=1))[np.setdiff1d(np.arange(len(y)), sampler.sample_indices_)].any()
    else:
        assert lost_all.sum() == sampler.n_emptied_rows_


def test_cap_that_is_an_integer_up_to_rounding_is_not_rounded_down():
    sampler = LabelCapUnderSampler(cap_ratio=0.58, random_state=0)  # 0.58 * 50 is 28.999999999999996
    y = np.repeat([[1, 0], [0, 0]], 50, axis=0)
    y[50:, 1] = 1
    sampler.fit_resample(np.zeros((100, 1)), y)
    assert sampler.counts_after_.tolist() == [29, 29]


def test_capping_warns_if_more_than_half_of_the_rows_lost_their_last_label(recwarn):
    y = np.repeat([[1, 0], [0, 1]], 4, axis=0)
    LabelCapUnderSampler(cap_ratio=0.5, random_state=0).fit_resample(np.zeros((8, 1)), y)
    assert not recwarn.list
    message = "LabelCapUnderSampler removed the last label of 6 of 8 rows, more than half"
    with pytest.warns(UserWarning, match=message) as caught:
        LabelCapUnderSampler(cap_ratio=0.25, random_state=0).fit_resample(np.zeros((8, 1)), y)
    assert caught[0].filename == __file__
    message = "LabelCapUnderSampler removed 6 of 8 rows, more than half"
    with pytest.warns(UserWarning, match=message) as caught:
        LabelCapUnderSampler(cap_ratio=0.25, empty_rows="drop", random_state=0).fit_resample(np.zeros((8, 1)), y)
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("dtype", "values"),
    [("bool", [True, False]), ("int64", [1, 0]), ("float64", [1.0, 0.0])],
    ids=["bool", "int", "float"],
)
def test_categorical_columns_keep_their_dtype(dtype, values):
    y = pd.DataFrame({"a": [1] * 7 + [0], "b": [1] + [0] * 7}).astype(dtype).astype("category")
    sampler = LabelCapUnderSampler(cap_ratio=1, random_state=0)
    _, actual = sampler.fit_resample(np.zeros((8, 1)), y)
    assert actual.dtypes.equals(y.dtypes)
    assert not actual.isna().any().any()
    assert (actual.astype(int).sum().to_numpy() == sampler.counts_after_).all()
    constant = pd.DataFrame({"a": [1] * 8, "b": [1] + [0] * 7}).astype("category")
    with pytest.raises(ValueError, match=r"the category 0 in each column .*, but column 'a' has \[1\]"):
        LabelCapUnderSampler(cap_ratio=1, random_state=0).fit_resample(np.zeros((8, 1)), constant)


def test_label_equal_to_the_cap_is_not_changed():
    y = np.zeros((10, 4), dtype=int)
    y[:8, 0] = y[:4, 1] = y[:4, 2] = 1  # mean 4, cap 8
    sampler = LabelCapUnderSampler(random_state=0)
    assert sampler.fit_resample(np.zeros((10, 1)), y)[1].tolist() == y.tolist()
    assert sampler.capped_labels_.tolist() == []
    y[8, 0], y[3, 1], y[3, 2] = 1, 0, 0  # mean 15 / 4, cap 7
    sampler.fit_resample(np.zeros((10, 1)), y)
    assert sampler.capped_labels_.tolist() == [0]
    assert sampler.counts_after_.tolist() == [7, 3, 3, 0]


def test_skip_removes_a_last_label_only_if_necessary():
    # Labels 0 and 1, on five rows each, are capped at 3; four rows have both, and the second removal follows the first.
    y = np.array([[1, 1, 0], [1, 1, 0], [1, 1, 0], [1, 1, 0], [1, 0, 0], [0, 1, 0]])
    for seed in range(10):
        sampler = LabelCapUnderSampler(cap_ratio=0.9, empty_rows="skip", random_state=seed)  # 0.9 * 10 / 3 = 3
        y_actual = sampler.fit_resample(np.zeros((6, 1)), y)[1]
        assert sampler.cap_ == 3
        assert y_actual[4:].tolist() == [[1, 0, 0], [0, 1, 0]]
        assert sampler.n_emptied_rows_ == 0


def frequencies_of_changed_rows(y, num_seeds, **parameters):
    """Return how often each set of rows loses label 0."""
    found = Counter()
    for seed in range(num_seeds):
        _, y_actual = LabelCapUnderSampler(random_state=seed, **parameters).fit_resample(np.zeros((len(y), 1)), y)
        found[frozenset(np.flatnonzero(y[:, 0] > y_actual[:, 0]).tolist())] += 1
    return found


def test_capping_changes_each_set_of_rows_equally_often():
    y = np.array([[1, 0], [1, 1], [1, 0], [0, 0], [1, 0]])  # cap 2.5 -> 2 of 4 keep it
    found = frequencies_of_changed_rows(y, 600, cap_ratio=1)
    assert set(found) == {frozenset(pair) for pair in combinations([0, 1, 2, 4], 2)}
    assert chisquare(list(found.values())).pvalue > 1e-3


def test_skip_changes_rows_with_another_label_equally_often_and_then_the_other_rows():
    y = np.array([[1, 0, 0], [1, 1, 0], [1, 0, 0], [1, 0, 0], [1, 0, 1]])  # cap 7 / 3 -> 2 of 5 keep it
    found = frequencies_of_changed_rows(y, 600, cap_ratio=1, empty_rows="skip")
    assert set(found) == {frozenset({1, 4, row}) for row in (0, 2, 3)}
    assert chisquare(list(found.values())).pvalue > 1e-3
    found = frequencies_of_changed_rows(y, 600, cap_ratio=1.8, empty_rows="skip")  # cap 4.2 -> 4
    assert set(found) == {frozenset({1}), frozenset({4})}
    assert chisquare(list(found.values())).pvalue > 1e-3


def test_capping_is_reproducible_with_a_seed_only():
    X, y = dataset(200)
    first, second = (LabelCapUnderSampler(cap_ratio=0.5, random_state=7).fit_resample(X, y)[1] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    shared = LabelCapUnderSampler(cap_ratio=0.5, random_state=np.random.RandomState(7))
    assert (shared.fit_resample(X, y)[1] != shared.fit_resample(X, y)[1]).any()


@pytest.mark.parametrize("parameters", [{"cap_ratio": 0}, {"cap_ratio": -1.5}, {"empty_rows": "leave"}])
def test_capping_with_a_parameter_out_of_range_raises(parameters):
    name, value = next(iter(parameters.items()))
    with pytest.raises(ValueError, match=f"The '{name}' parameter of LabelCapUnderSampler must be .* Got {value!r}"):
        LabelCapUnderSampler(**parameters).fit_resample(np.zeros((3, 1)), np.eye(3, dtype=int))


def test_capping_does_not_modify_the_input():
    X, y = dataset()
    frame = pd.DataFrame(y)
    LabelCapUnderSampler(cap_ratio=0.5).fit_resample(X, frame)
    np.testing.assert_array_equal(frame.to_numpy(), y)


def test_result_of_a_series_of_class_ids_is_a_series():
    X = np.arange(9.0).reshape(-1, 1)
    y = pd.Series(list("aaaaaaabc"), index=range(100, 109), name="kind")
    sampler = LabelCapUnderSampler(empty_rows="drop", random_state=0)
    X_actual, y_actual = sampler.fit_resample(X, y)
    pd.testing.assert_series_equal(y_actual, y.iloc[sampler.sample_indices_])
    assert y_actual.value_counts().to_dict() == {"a": 6, "b": 1, "c": 1}
    assert len(X_actual) == 8


def test_capping_raises_if_a_row_would_lose_its_class_id():
    X = np.arange(9.0).reshape(-1, 1)
    with pytest.raises(ValueError, match="LabelCapUnderSampler would remove the class of 1 rows"):
        LabelCapUnderSampler().fit_resample(X, list("aaaaaaabc"))


def test_y_of_an_unknown_type_raises_if_labels_are_changed():
    class Labels:
        shape = (3, 3)

        def __array__(self, dtype=None, copy=None):
            return np.eye(3, dtype=int)

        def __len__(self):
            return 3

        def __getitem__(self, rows):
            return self

    with pytest.raises(TypeError, match=r"`y` must be an array, .*, got Labels"):
        LabelCapUnderSampler().fit_resample(np.zeros((3, 1)), Labels())
