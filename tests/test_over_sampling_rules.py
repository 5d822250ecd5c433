"""The rows and labels that MLSMOTE and MLSOL make, compared with loops written from the papers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse
from scipy.stats import chisquare

from mlmetric.neighbors import kneighbors
from mlmetric.over_sampling import MLSMOTE, MLSOL
from mlmetric.over_sampling._interpolation import interpolate

# On small random data MeanIR often increases a little; other tests check the warnings.
pytestmark = pytest.mark.filterwarnings(r"ignore:\w+ (raised|added) :UserWarning")

properties = settings(max_examples=60, deadline=None)
# Few different values, so that rows are often equal or equally near.
feature_matrices = st.integers(1, 3).flatmap(
    lambda width: hnp.arrays(np.float64, (14, width), elements=st.integers(0, 4).map(float), fill=st.nothing())
)
label_matrices = hnp.arrays(np.int64, st.tuples(st.just(14), st.integers(1, 4)), elements=st.integers(0, 1))


def nearest_by_loop(X, k):
    return [
        [j for _, j in sorted((((X[i] - X[j]) ** 2).sum(), j) for j in range(len(X)) if j != i)[:k]]
        for i in range(len(X))
    ]


def between(first, second, draws):
    return np.array([a if a == b else a + draws.random_sample() * (b - a) for a, b in zip(first, second, strict=True)])


# MLSMOTE


def mean_ir_by_loop(y):
    counts = [int(column.sum()) for column in y.T]
    ratios = [max(counts) / count for count in counts if count]
    return sum(ratios) / len(ratios) if ratios else np.nan


def mlsmote_by_loop(X, y, k, rule, seed):
    draws = np.random.RandomState(seed)
    X, y = list(X), list(y)
    mean = mean_ir_by_loop(np.array(y))
    for label in range(len(y[0])):
        counts = np.sum(y, axis=0)
        if not counts[label] or not counts.max() / counts[label] > mean * (1 + 1e-12):
            continue
        bag = [row for row in range(len(y)) if y[row][label]]
        if len(bag) == 1:
            continue
        neighbors = nearest_by_loop(np.array([X[row] for row in bag]), min(k, len(bag) - 1))
        chosen = draws.randint(len(neighbors[0]), size=len(bag))
        for sample, nearest in enumerate(neighbors):
            reference = bag[nearest[chosen[sample]]]
            X.append(between(X[bag[sample]], X[reference], draws))
            labels = y[bag[sample]] + sum(y[bag[neighbor]] for neighbor in nearest)
            wanted = {"ranking": labels >= (len(nearest) + 1) / 2, "union": labels > 0}
            y.append(wanted.get(rule, labels == len(nearest) + 1).astype(int))
    return np.array(X), np.array(y)


@properties
@given(feature_matrices, label_matrices, st.integers(1, 5), st.sampled_from(["ranking", "union", "intersection"]))
def test_mlsmote_equals_the_loop_of_the_paper(X, y, k, rule):
    expected = mlsmote_by_loop(X, y, k, rule, seed=3)
    actual = MLSMOTE(n_neighbors=k, label_rule=rule, random_state=3).fit_resample(X, y)
    np.testing.assert_allclose(actual[0], expected[0], rtol=1e-12)
    np.testing.assert_array_equal(actual[1], expected[1])


def test_mlsmote_by_hand():
    # Counts 4, 3, 2 and MeanIR (1 + 4 / 3 + 2) / 3 = 1.44: label 2 is the minority label, and each of its two rows has
    # the other as its only neighbour.
    X = np.array([[0.0, 5.0], [1.0, 5.0], [2.0, 5.0], [3.0, 5.0], [4.0, 7.0]])
    y = np.array([[1, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1], [0, 1, 1]])
    for rule, labels in {"ranking": [1, 1, 1], "union": [1, 1, 1], "intersection": [0, 1, 1]}.items():
        sampler = MLSMOTE(label_rule=rule, random_state=0)
        X_new, y_new = (part[5:] for part in sampler.fit_resample(X, y))
        assert sampler.parent_indices_.tolist() == [[3, 4], [4, 3]]
        assert ((X_new > [3, 5]) & (X_new < [4, 7])).all()
        assert y_new.tolist() == [labels] * 2
        assert sampler.added_per_label_.tolist() == [2 * label for label in labels]


def test_ranking_gives_labels_of_exactly_half_of_the_rows():
    # The minority label 2 is in rows 6 to 9, label 0 in two of these four rows, and label 1 in one of them.
    X = np.arange(10.0)[:, None]
    y = np.zeros((10, 3), dtype=int)
    y[:8, 0] = y[[0, 1, 2, 3, 4, 6], 1] = y[6:, 2] = 1
    sampler = MLSMOTE(n_neighbors=3, random_state=0)
    assert sampler.fit_resample(X, y)[1][10:].tolist() == [[1, 0, 1]] * 4


def test_rows_added_for_a_label_count_for_the_next_label():
    # Labels 1 and 2 have the same two rows. The two rows added for label 1 have label 2 too, whose ratio is then 2.25,
    # below the MeanIR of 3.33: label 2 gets no rows of its own.
    X = np.arange(11.0)[:, None]
    y = np.zeros((11, 3), dtype=int)
    y[:9, 0] = y[9:, 1] = y[9:, 2] = 1
    y = np.column_stack([y, np.ones(11, dtype=int)])
    y[:2, 3] = 0
    sampler = MLSMOTE(random_state=0)
    sampler.fit_resample(X, y)
    assert sampler.added_per_label_.tolist() == [0, 2, 2, 2]


def test_mlsmote_makes_rows_from_synthetic_rows():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 3)), (rng.random((60, 6)) < [0.9, 0.9, 0.9, 0.9, 0, 0]).astype(int)
    y[:6, 4] = y[:4, 5] = 1
    sampler = MLSMOTE(label_rule="union", random_state=0)
    X_all, _ = sampler.fit_resample(X, y)
    first, second = sampler.parent_indices_.T
    assert (first >= 60).any()
    assert (np.maximum(first, second) < 60 + np.arange(len(first))).all()
    low, high = np.minimum(X_all[first], X_all[second]), np.maximum(X_all[first], X_all[second])
    assert ((X_all[60:] >= low - 1e-12) & (X_all[60:] <= high + 1e-12)).all()


def test_minority_label_with_one_row_is_skipped_with_a_warning():
    y = np.array([[1, 0], [1, 0], [1, 0], [1, 1]])
    sampler = MLSMOTE()
    with pytest.warns(UserWarning, match=r"MLSMOTE added no rows for the minority labels \[1\], which have one row"):
        X, _ = sampler.fit_resample(np.arange(4.0)[:, None], y)
    assert sampler.skipped_labels_ == [1]
    assert len(X) == 4


# MLSOL


def mlsol_by_loop(X, y, k, percentage, seed):
    draws = np.random.RandomState(seed)
    num_rows, num_labels = y.shape
    nearest = nearest_by_loop(X, k)
    minority = [1 if 2 * int(column.sum()) <= num_rows else 0 for column in y.T]
    C = [[sum(y[m, j] != y[i, j] for m in nearest[i]) for j in range(num_labels)] for i in range(num_rows)]
    weights = np.zeros(num_rows)
    for j in range(num_labels):
        scores = [C[i][j] if y[i, j] == minority[j] and C[i][j] < k else 0 for i in range(num_rows)]
        weights += np.array(scores) / sum(scores) if sum(scores) else 0

    def kind(i, j):
        if y[i, j] != minority[j]:
            return "majority"
        if 10 * C[i][j] < 3 * k:
            return "safe"
        return "borderline" if 10 * C[i][j] < 7 * k else "rare" if C[i][j] < k else "outlier"

    T = [[kind(i, j) for j in range(num_labels)] for i in range(num_rows)]
    changed = True
    while changed:
        changed = False
        for i in range(num_rows):
            for j in range(num_labels):
                if T[i][j] == "rare" and any(T[m][j] in ("safe", "borderline") for m in nearest[i]):
                    T[i][j], changed = "borderline", True

    new = num_rows * percentage // 100 if weights.sum() > 0 else 0
    starts = draws.choice(num_rows, size=new, p=weights / weights.sum()) if new else []
    ends = [nearest[s][place] for s, place in zip(starts, draws.randint(k, size=new), strict=True)]
    X_new, y_new = list(X), list(y)
    for s, r in zip(starts, ends, strict=True):
        row = between(X[s], X[r], draws)
        d_s, d_r = np.linalg.norm(row - X[s]), np.linalg.norm(row - X[r])
        cd = d_s / (d_s + d_r) if d_s + d_r else 0.5
        labels = []
        for j in range(num_labels):
            own, other, position = (s, r, cd) if T[s][j] != "majority" else (r, s, 1 - cd)
            limit = {"safe": 0.5, "borderline": 0.75, "rare": 1 + 1e-5, "outlier": -1e-5, "majority": 0}[T[own][j]]
            labels.append(y[own, j] if y[s, j] == y[r, j] or position <= limit else y[other, j])
        X_new.append(row)
        y_new.append(labels)
    return np.array(X_new), np.array(y_new), weights


@properties
@given(feature_matrices, label_matrices, st.integers(1, 7), st.sampled_from([0, 30, 100, 150]))
def test_mlsol_equals_the_loop_of_the_paper(X, y, k, percentage):
    *expected, weights = mlsol_by_loop(X, y, k, percentage, seed=3)
    sampler = MLSOL(n_neighbors=k, percentage=percentage, random_state=3)
    actual = sampler.fit_resample(X, y)
    np.testing.assert_allclose(sampler.weights_, weights, rtol=1e-12)
    np.testing.assert_allclose(actual[0], expected[0], rtol=1e-12)
    np.testing.assert_array_equal(actual[1], expected[1])


# On a line with 10 neighbours each, given: row 0 has the positive label, and `num_opposite` of its neighbours do not.
@pytest.mark.parametrize(("num_opposite", "limit"), [(1, 0.5), (2, 0.5), (3, 0.75), (6, 0.75), (7, 1), (9, 1)], ids=str)
def test_label_of_a_row_depends_on_its_position_and_on_the_type_of_the_row(num_opposite, limit):
    # Rows 1 to 9 are positive, with neighbours of their own value (then safe) or of the other value only (outliers).
    X, y = np.zeros((40, 1)), np.zeros((40, 1), dtype=int)
    y[:10], X[20:] = 1, 1
    neighbors = np.tile(np.arange(20, 30), (40, 1))
    neighbors[20:30] = np.arange(30, 40)
    neighbors[0, num_opposite:] = np.arange(1, 11 - num_opposite)
    sampler = MLSOL(n_neighbors=10, percentage=1000, random_state=0)
    X_new, y_new = (part[40:, 0] for part in sampler.fit_resample(X, y, neighbors=neighbors))
    assert np.flatnonzero(sampler.weights_).tolist() == [0]
    to_other_value = sampler.parent_indices_[:, 1] >= 20
    assert to_other_value.any()
    assert (y_new[to_other_value] == (X_new[to_other_value] <= limit)).all()
    assert (y_new[~to_other_value] == 1).all()


def test_label_of_an_outlier_is_never_given_to_a_new_row():
    # Label 1 of row 0 is an outlier, label 0 of row 0 is borderline: it is sampled for label 0.
    X, y = np.arange(6.0)[:, None], np.array([[1, 1], [1, 0], [0, 0], [0, 0], [0, 0], [0, 0]])
    neighbors = np.array([[1, 2], [0, 2], [1, 3], [2, 4], [3, 5], [4, 3]])
    sampler = MLSOL(n_neighbors=2, percentage=1000, random_state=0)
    y_new = sampler.fit_resample(X, y, neighbors=neighbors)[1][6:]
    assert (sampler.parent_indices_ == 0).any()
    assert y_new[:, 0].any()
    assert not y_new[:, 1].any()


def test_rare_row_next_to_a_borderline_row_is_borderline():
    # Row 0 has 4 of 5 opposite neighbours; its neighbour, row 1, is borderline with 3 of 5, or an outlier.
    X, y = np.r_[np.zeros(10), np.ones(10)][:, None], np.zeros((20, 1), dtype=int)
    y[:4] = 1
    neighbors = np.tile(np.arange(10, 15), (20, 1))
    neighbors[10:15] = np.arange(15, 20)
    neighbors[0, 0] = 1
    for row_1, limit in (([2, 3, 10, 11, 12], 0.75), ([10, 11, 12, 13, 14], 1)):
        neighbors[1] = row_1
        sampler = MLSOL(percentage=2000, random_state=0)
        X_new, y_new = (part[20:, 0] for part in sampler.fit_resample(X, y, neighbors=neighbors))
        of_row_0 = (sampler.parent_indices_[:, 0] == 0) & (sampler.parent_indices_[:, 1] >= 10)
        assert (X_new[of_row_0] > 0.75).any()
        assert (y_new[of_row_0] == (X_new[of_row_0] <= limit)).all()


def test_rows_are_sampled_in_proportion_to_the_weights():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 2))
    y = (X[:, :1] + rng.normal(size=(30, 1)) > 0.7).astype(int)
    sampler = MLSOL(percentage=10_000, random_state=0)
    sampler.fit_resample(X, y)
    counts = np.bincount(sampler.parent_indices_[:, 0], minlength=30)
    possible = sampler.weights_ > 0
    assert not counts[~possible].any()
    expected = sampler.weights_[possible] / sampler.weights_.sum() * counts.sum()
    assert chisquare(counts[possible], expected).pvalue > 0.001


def test_neighbors_of_a_search_give_the_same_rows():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(50, 3)), (rng.random((50, 4)) < 0.3).astype(int)
    expected = MLSOL(random_state=0).fit_resample(X, y)
    actual = MLSOL(random_state=0).fit_resample(X, y, neighbors=kneighbors(X, 8)[1])
    for part in range(2):
        np.testing.assert_array_equal(actual[part], expected[part])
    with pytest.raises(ValueError, match=r"`neighbors` must contain integers of shape \(50, 5 or more\)"):
        MLSOL().fit_resample(X, y, neighbors=kneighbors(X, 4)[1])
    with pytest.raises(ValueError, match="MLSOL requires at least 51 rows for 50 neighbours of each row, got 50 rows"):
        MLSOL(n_neighbors=50).fit_resample(X, y)


def test_mlsol_warns_if_it_adds_no_rows():
    y = np.array([[1], [0], [0], [0]])
    with pytest.warns(UserWarning, match=r"MLSOL added no rows: .*Choose a larger `n_neighbors`"):
        X, _ = MLSOL(n_neighbors=2).fit_resample(np.arange(4.0)[:, None], y)
    assert len(X) == 4


@pytest.mark.filterwarnings("error")
def test_mlsol_does_not_warn_if_no_rows_are_wanted():
    MLSOL(n_neighbors=2, percentage=0).fit_resample(np.arange(4.0)[:, None], np.array([[1], [0], [0], [0]]))


@pytest.mark.parametrize("random_state", range(5))
def test_each_new_row_has_one_class_id_of_its_two_parents(random_state):
    rng = np.random.default_rng(random_state)
    X, y = rng.normal(size=(60, 2)), rng.choice(["a", "b", "c"], size=60, p=[0.6, 0.25, 0.15])
    sampler = MLSOL(percentage=200, random_state=random_state)
    _, classes = sampler.fit_resample(X, y)
    parents = y[sampler.parent_indices_]
    assert (parents == classes[60:, None]).any(axis=1).all()
    assert (parents[:, 0] != classes[60:]).any()


# Interpolation


@properties
@given(feature_matrices, st.lists(st.tuples(st.integers(0, 13), st.integers(0, 13)), max_size=6))
def test_interpolation_of_dense_and_sparse_rows_is_the_same(X, pairs):
    starts, ends = np.array(pairs, dtype=np.intp).reshape(-1, 2).T
    rows, positions = interpolate(X, starts, ends, np.random.RandomState(0))
    sparse_rows, sparse_positions = interpolate(sparse.csr_array(X), starts, ends, np.random.RandomState(0))
    np.testing.assert_array_equal(sparse_rows.toarray(), rows)
    np.testing.assert_allclose(sparse_positions, positions, rtol=1e-12)
    to_start, to_end = (np.linalg.norm(rows - X[ends_], axis=1) for ends_ in (starts, ends))
    np.testing.assert_allclose(positions * (to_start + to_end), to_start, atol=1e-12)
    assert (positions[starts == ends] == 0.5).all()


@pytest.mark.parametrize("convert", [np.asarray, sparse.csr_array])
def test_interpolation_in_chunks_is_that_of_all_rows(convert, monkeypatch):
    X = convert(np.random.default_rng(0).integers(0, 3, size=(20, 4)).astype(float))
    starts, ends = np.arange(20), np.arange(20)[::-1]
    expected = interpolate(X, starts, ends, np.random.RandomState(0))
    monkeypatch.setattr("mlmetric.over_sampling._interpolation._CHUNK_ENTRIES", 12)
    monkeypatch.setattr("mlmetric.over_sampling._interpolation._CHUNK_SPARSE_ROWS", 3)
    actual = interpolate(X, starts, ends, np.random.RandomState(0))
    for found, wanted in zip(actual, expected, strict=True):
        assert not (found != wanted).sum()
