"""MLeNN and MLUL, and neighbours of one search that several samplers use."""

from collections import Counter
from fractions import Fraction
from math import floor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from imblearn.pipeline import Pipeline
from scipy.stats import chisquare
from sklearn import config_context
from sklearn.base import clone
from sklearn.tree import DecisionTreeClassifier

from mlmetric.neighbors import kneighbors
from mlmetric.under_sampling import MLUL, MLeNN, MultiLabelTomekLinks

# On small random data MeanIR often increases a little; other tests check the warnings.
pytestmark = pytest.mark.filterwarnings(r"ignore:\w+ (removed|raised) :UserWarning")

properties = settings(max_examples=60, deadline=None)
label_matrices = hnp.arrays(
    np.int64, st.tuples(st.integers(4, 20), st.integers(1, 4)), elements=st.integers(0, 1), fill=st.nothing()
)


def nearest_by_loop(X, k):
    return [
        [j for _, j in sorted((((X[i] - X[j]) ** 2).sum(), j) for j in range(len(X)) if j != i)[:k]]
        for i in range(len(X))
    ]


def minority(y):
    counts = [int(column.sum()) for column in y.T]
    ratios = {label: Fraction(max(counts), size) for label, size in enumerate(counts) if size}
    mean = sum(ratios.values()) / len(ratios) if ratios else 0
    return {label for label, ratio in ratios.items() if ratio > mean}


# MLeNN

# On a line. Counts 6, 4, 1: IRLbl 1, 1.5, 6; MeanIR 2.83, so label 2 is the only minority label.
LINE = np.array([[0], [1], [2], [3], [10], [11], [12], [13], [14], [30]])
LINE_LABELS = np.array(
    [
        [0, 1, 0],  # 0 (1, 2, 3): Dice distances 0, 1, 0
        [0, 1, 0],  # 1 (0, 2, 3): 0, 1, 0
        [1, 0, 0],  # 2 (1, 3, 0): 1, 1, 1
        [0, 1, 0],  # 3 (2, 1, 0): 1, 0, 0
        [1, 1, 0],  # 4 (11, 12, 13): 1/3, 1, 1/3
        [1, 0, 0],  # 5 (10, 12, 13): 1/3, 1, 0
        [0, 0, 1],  # 6 (11, 13, 10): 1, 1, 1
        [1, 0, 0],  # 7 (12, 14, 11): 1, 0, 0
        [1, 0, 0],  # 8 (13, 12, 11): 0, 1, 0
        [1, 0, 0],  # 9 (14, 13, 12): 0, 0, 1
    ]
)


@pytest.mark.parametrize(
    ("parameters", "removed"),
    [
        ({}, [2]),  # row 6 has the minority label
        ({"threshold": 0.33}, [2, 4, 5]),
        ({"threshold": 0.34}, [2]),
        ({"threshold": 1}, []),
        ({"n_neighbors": 1}, [2, 3, 7]),
        ({"n_neighbors": 2}, [0, 1, 2, 3, 4, 5, 7, 8]),  # one of two is half
    ],
)
def test_mlenn_matches_values_computed_by_hand(parameters, removed):
    sampler = MLeNN(**parameters)
    X_actual, y_actual = sampler.fit_resample(LINE, LINE_LABELS)
    kept = np.setdiff1d(np.arange(10), removed)
    assert sampler.sample_indices_.tolist() == kept.tolist()
    np.testing.assert_array_equal(X_actual, LINE[kept])
    np.testing.assert_array_equal(y_actual, LINE_LABELS[kept])


@given(label_matrices, st.data(), st.integers(1, 3), st.sampled_from([0.0, 0.3, 0.5, 0.75]))
@properties
def test_mlenn_matches_a_loop_from_the_specification(y, data, k, threshold):
    X = data.draw(hnp.arrays(np.int64, (len(y), 2), elements=st.integers(0, 4)))
    sets = [set(np.flatnonzero(row).tolist()) for row in y]
    kept = []
    for i, neighbours in enumerate(nearest_by_loop(X, k)):
        disagreeing = 0
        for j in neighbours:
            size = len(sets[i]) + len(sets[j])
            disagreeing += bool(size) and Fraction(len(sets[i] ^ sets[j]), size) > Fraction(str(threshold))
        if sets[i] & minority(y) or 2 * disagreeing < k:
            kept.append(i)
    sampler = MLeNN(n_neighbors=k, threshold=threshold)
    if not kept:
        with pytest.raises(ValueError, match=f"MLeNN would remove all {len(y)} rows"):
            sampler.fit_resample(X, y)
        return
    sampler.fit_resample(X, y)
    assert sampler.sample_indices_.tolist() == kept


@pytest.mark.parametrize("parameters", [{"n_neighbors": 0}, {"n_neighbors": 1.5}, {"threshold": -0.1}])
def test_mlenn_with_a_parameter_out_of_range_raises(parameters):
    name, value = next(iter(parameters.items()))
    with pytest.raises(ValueError, match=f"The '{name}' parameter of MLeNN must be .* Got {value!r}"):
        MLeNN(**parameters).fit_resample(LINE, LINE_LABELS)


@pytest.mark.parametrize("sampler", [MLeNN(n_neighbors=10), MLUL(n_neighbors=10)])
def test_as_many_neighbours_as_rows_raise(sampler):
    name = type(sampler).__name__
    with pytest.raises(ValueError, match=f"{name} requires at least 11 rows for 10 neighbours of each row, got 10"):
        sampler.fit_resample(LINE, LINE_LABELS)


def test_result_of_tensors_on_a_device_is_on_that_device(device):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 14)).astype(np.float32), (rng.random(size=(60, 3)) < 0.4).astype(int)
    expected = MLeNN(threshold=0.4)
    expected.fit_resample(X, y)
    actual = MLeNN(threshold=0.4)
    X_actual, y_actual = actual.fit_resample(torch.from_numpy(X).to(device), torch.from_numpy(y).to(device))
    assert X_actual.device == device
    assert y_actual.device == device
    np.testing.assert_array_equal(actual.sample_indices_, expected.sample_indices_)


# MLUL


def weights_by_loop(X, y, k):
    nearest, (n, num_labels) = nearest_by_loop(X, k), y.shape
    minority_value = [int(2 * int(column.sum()) <= n) for column in y.T]
    opposite = [[sum(y[m][j] != y[i][j] for m in nearest[i]) for j in range(num_labels)] for i in range(n)]
    scores = [[None] * num_labels for _ in range(n)]
    for j in range(num_labels):
        informative = [i for i in range(n) if y[i][j] == minority_value[j] and opposite[i][j] < k]
        total = sum(int(opposite[i][j]) for i in informative)
        for i in informative:
            scores[i][j] = Fraction(int(opposite[i][j]), total) if total else Fraction(0)
    weights = []
    for i in range(n):
        own = sum(score for score in scores[i] if score is not None)
        reverse = [m for m in range(n) if i in nearest[m]]
        harm = Fraction(0)
        for m in reverse:
            for j in range(num_labels):
                if scores[m][j] is not None:
                    harm += scores[m][j] * (-1 if y[m][j] == y[i][j] else 1)
        weights.append(own - (harm / len(reverse) if reverse else 0))
    lowest = min(0, *weights)
    return [weight - lowest for weight in weights]


def test_mlul_weights_match_values_computed_by_hand():
    X = np.array([[0.0], [1.0], [2.1], [3.3], [9.0], [9.5], [10.1], [10.8]])
    y = np.array([[1], [1], [0], [0], [0], [0], [0], [1]])
    # 1 is the minority value. One neighbour of rows 0 (1, 2) and 1 (0, 2) is 0, and both of row 7, an outlier. So the
    # scores of rows 0 and 1 are 1/2. Row 0 is a neighbour of row 1: 1/2 + 1/2. Row 1 of rows 0, 2, 3: 1/2 + (1/2) / 3.
    # Row 2 is a neighbour of rows 0, 1, 3: -(1/2 + 1/2) / 3. That is the lowest weight and becomes 0.
    sampler = MLUL(n_neighbors=2, random_state=0)
    sampler.fit_resample(X, y)
    third = 1 / 3
    np.testing.assert_allclose(sampler.weights_, [1 + third, 2 / 3 + third, 0, third, third, third, third, third])
    assert len(sampler.sample_indices_) == 6


@given(label_matrices, st.data(), st.integers(1, 3), st.sampled_from([5, 25, 60]))
@properties
def test_mlul_weights_and_numbers_of_rows_match_a_loop_from_the_specification(y, data, k, percentage):
    X = data.draw(hnp.arrays(np.int64, (len(y), 2), elements=st.integers(0, 4)))
    sampler = MLUL(n_neighbors=k, percentage=percentage, random_state=0)
    sampler.fit_resample(X, y)
    expected = np.array([float(weight) for weight in weights_by_loop(X, y, k)])
    np.testing.assert_allclose(sampler.weights_, expected, atol=1e-12)
    assert len(sampler.sample_indices_) == len(y) - floor(len(y) * percentage / 100)


@pytest.mark.slow
def test_mlul_keeps_rows_with_the_probabilities_of_weighted_sampling():
    X = np.array([[0.0], [1.0], [2.1], [3.3], [9.0], [10.1]])
    y = np.array([[1], [1], [0], [0], [0], [0]])
    weights = weights_by_loop(X, y, 2)
    outcomes = Counter()

    def go_on(drawn, probability):
        if len(drawn) == 3:
            outcomes[frozenset(drawn)] += probability
            return
        left = [i for i in range(6) if i not in drawn and weights[i]]
        for i in left:
            go_on([*drawn, i], probability * weights[i] / sum(weights[j] for j in left))

    go_on([], Fraction(1))
    num_seeds, found, neighbors = 1500, Counter(), kneighbors(X, 2)[1]
    for seed in range(num_seeds):
        sampler = MLUL(n_neighbors=2, percentage=50, random_state=seed)
        sampler.fit_resample(X, y, neighbors=neighbors)
        found[frozenset(sampler.sample_indices_.tolist())] += 1
    assert set(found) <= set(outcomes)
    expected = [float(outcomes[key]) * num_seeds for key in outcomes]
    assert chisquare([found[key] for key in outcomes], expected).pvalue > 1e-3


def test_mlul_keeps_rows_with_weight_0_only_if_no_other_rows_are_left():
    # In exact arithmetic rows 0, 2, 4 and 6 have weight 0, and two of them are kept. In floating point the sums differ.
    X = np.array([[1, 2], [1, 3], [4, 3], [1, 5], [5, 4], [0, 2], [5, 4], [2, 1]])
    y = np.array([[1, 0], [0, 1], [0, 0], [0, 1], [1, 0], [0, 1], [0, 1], [1, 0]])
    assert [row for row, weight in enumerate(weights_by_loop(X, y, 2)) if not weight] == [0, 2, 4, 6]
    found, neighbors = Counter(), kneighbors(X, 2)[1]
    for seed in range(600):
        sampler = MLUL(n_neighbors=2, random_state=seed)
        sampler.fit_resample(X, y, neighbors=neighbors)
        assert np.flatnonzero(sampler.weights_ == 0).tolist() == [0, 2, 4, 6]
        kept = set(sampler.sample_indices_.tolist())
        assert {1, 3, 5, 7} < kept
        found[frozenset(kept - {1, 3, 5, 7})] += 1
    assert len(found) == 6
    assert chisquare(list(found.values())).pvalue > 1e-3


# Neighbours of one search


@pytest.mark.parametrize(
    "sampler",
    [MLeNN(threshold=0.4), MLUL(random_state=0), MultiLabelTomekLinks(mutual=True), MultiLabelTomekLinks()],
)
def test_neighbours_of_one_search_can_be_passed_to_each_sampler(sampler, monkeypatch):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 4)), (rng.random(size=(60, 3)) < 0.4).astype(int)
    X_expected, y_expected = sampler.fit_resample(X, y)
    neighbors = kneighbors(X, 7)[1]
    monkeypatch.setattr("mlmetric.under_sampling._base_neighbor_sampler.kneighbors", None)
    for given_neighbors in (neighbors, neighbors.astype(np.int32), neighbors.tolist()):
        X_actual, y_actual = sampler.fit_resample(X, y, neighbors=given_neighbors)
        np.testing.assert_array_equal(X_actual, X_expected)
        np.testing.assert_array_equal(y_actual, y_expected)
    with config_context(enable_metadata_routing=True):
        routed = clone(sampler).set_fit_resample_request(neighbors=True)
        pipeline = Pipeline([("sampler", routed), ("classifier", DecisionTreeClassifier(random_state=0))])
        actual = pipeline.fit(X, y, neighbors=neighbors).predict(X)
    expected = DecisionTreeClassifier(random_state=0).fit(X_expected, y_expected).predict(X)
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize(
    ("neighbors", "message"),
    [
        (np.zeros((10, 2), dtype=int), r"shape \(10, 3 or more\), .*, got int64 of shape \(10, 2\)"),
        (np.zeros((9, 3), dtype=int), r"got int64 of shape \(9, 3\)"),
        (np.zeros((10, 3)), r"got float64 of shape \(10, 3\)"),
        (np.full((10, 3), 10), "indices of other rows, 0 to 9, got 10 for row 0"),
        (np.full((10, 3), 4), "indices of other rows, 0 to 9, got 4 for row 4"),
        (np.full((10, 3), -1), "indices of other rows, 0 to 9, got -1 for row 0"),
    ],
)
def test_neighbours_that_do_not_match_raise(neighbors, message):
    with pytest.raises(ValueError, match=message):
        MLeNN().fit_resample(LINE, LINE_LABELS, neighbors=neighbors)
