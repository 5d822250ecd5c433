import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse
from sklearn.neighbors import NearestNeighbors

from mlmetric import neighbors
from mlmetric.neighbors import kneighbors

properties = settings(max_examples=50, deadline=None)
# Small integers: every sum below is exact, so ties are ties.
grids = hnp.arrays(np.int64, st.tuples(st.integers(2, 40), st.integers(1, 3)), elements=st.integers(0, 4))

DISTANCES = {
    "euclidean": lambda a, b: np.sqrt(((a - b) ** 2).sum()),
    "manhattan": lambda a, b: np.abs(a - b).sum(),
    "chebyshev": lambda a, b: np.abs(a - b).max(),
    "cosine": lambda a, b: 1 - a @ b / np.sqrt((a @ a) * (b @ b)),
}


def by_loop(X, k, queries=None, metric="euclidean"):
    X = np.asarray(X, dtype=np.float64)
    rows = X if queries is None else np.asarray(queries, dtype=np.float64)
    distances, indices = [], []
    for i, row in enumerate(rows):
        ranked = sorted(
            (DISTANCES[metric](row, other), j) for j, other in enumerate(X) if queries is not None or i != j
        )
        distances.append([distance for distance, _ in ranked[:k]])
        indices.append([j for _, j in ranked[:k]])
    return np.array(distances), np.array(indices)


def assert_neighbors(actual, expected):
    np.testing.assert_array_equal(actual[1], expected[1])
    np.testing.assert_allclose(actual[0], expected[0], rtol=1e-12, atol=1e-12)


@given(grids, st.data())
@properties
def test_ties_and_duplicates_on_a_grid_match_a_loop(X, data):
    k = data.draw(st.integers(1, len(X) - 1))
    assert_neighbors(kneighbors(X, k), by_loop(X, k))
    assert_neighbors(kneighbors(sparse.csc_matrix(X), k), by_loop(X, k))


@given(grids, st.data())
@properties
def test_queries_on_a_grid_match_a_loop_and_exclude_nothing(X, data):
    k = data.draw(st.integers(1, len(X)))
    queries = X[: max(1, len(X) // 2)]
    expected = by_loop(X, k, queries)
    assert (expected[0][:, 0] == 0).all()
    for kind in (np.asarray, sparse.csr_matrix):
        for query_kind in (np.asarray, sparse.csr_array):
            assert_neighbors(kneighbors(kind(X), k, queries=query_kind(queries)), expected)


@given(grids.filter(lambda X: len(X) > 3), st.sampled_from(["manhattan", "chebyshev"]))
@properties
def test_other_metrics_on_a_grid_match_a_loop(X, metric):
    assert_neighbors(kneighbors(X, 3, metric=metric), by_loop(X, 3, metric=metric))
    assert_neighbors(kneighbors(sparse.csr_array(X), 3, metric=metric), by_loop(X, 3, metric=metric))


def test_cosine_matches_a_loop():
    X = np.random.default_rng(0).normal(size=(40, 5))
    assert_neighbors(kneighbors(X, 4, metric="cosine"), by_loop(X, 4, metric="cosine"))


def test_more_duplicates_than_candidates_are_neighbours_by_lowest_index():
    X = np.ones((100, 3))
    distances, indices = kneighbors(X, 2)
    assert (distances == 0).all()
    assert indices[0].tolist() == [1, 2]
    assert indices[1].tolist() == [0, 2]
    assert (indices[2:] == [0, 1]).all()


def test_a_row_keeps_a_true_neighbour_when_its_duplicates_fill_the_candidates():
    X = np.vstack([np.zeros((60, 20)), np.ones((3, 20))])
    _, indices = kneighbors(X, 3)
    assert indices[60].tolist() == [61, 62, 0]
    assert indices[59].tolist() == [0, 1, 2]


@pytest.mark.parametrize("num_columns", [1, 3, 30])
@pytest.mark.parametrize("offset", [0.0, 1000.0, 1e8])
def test_shifted_data_gives_the_neighbours_of_exact_differences(num_columns, offset):
    # Multiples of 2^-20: the shift is exact, so shifted data has the very same differences.
    X = np.round(np.random.default_rng(num_columns).normal(size=(150, num_columns)) * 2**20) / 2**20
    assert_neighbors(kneighbors(X + offset, 5), by_loop(X, 5))
    assert_neighbors(kneighbors(X + offset, 5, queries=X[:20] + offset), by_loop(X, 5, X[:20]))
    assert_neighbors(kneighbors(sparse.csr_matrix(X + offset), 5), by_loop(X, 5))


def test_an_outlier_does_not_cost_the_digits_of_the_others():
    X = np.round(np.random.default_rng(0).normal(size=(120, 20)) * 2**20) / 2**20
    X[7] = 2.0**33
    assert_neighbors(kneighbors(X, 4), by_loop(X, 4))


def test_nearly_collapsed_rows_are_told_apart():
    X = 1 + np.random.default_rng(0).integers(0, 2**10, size=(120, 20)) * 2.0**-40
    assert_neighbors(kneighbors(X, 4), by_loop(X, 4))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_random_rows_match_sklearn_brute_force_in_float64(dtype):
    X = np.random.default_rng(1).normal(size=(300, 40)).astype(dtype)
    expected = NearestNeighbors(n_neighbors=6, algorithm="brute").fit(X.astype(np.float64)).kneighbors()
    assert_neighbors(kneighbors(X, 6), expected)


def test_small_blocks_change_nothing(monkeypatch):
    X = np.random.default_rng(2).integers(0, 3, size=(90, 4)).astype(float)
    expected = by_loop(X, 5)
    monkeypatch.setattr(neighbors, "_BLOCK_BYTES", 2000)
    assert_neighbors(kneighbors(X, 5), expected)
    assert_neighbors(kneighbors(sparse.csr_matrix(X), 5), expected)
    assert_neighbors(kneighbors(X, 5, metric="manhattan"), by_loop(X, 5, metric="manhattan"))


def test_lists_and_tensors_are_taken():
    X = [[0.0], [2.0], [3.0]]
    assert kneighbors(X, 1)[1].tolist() == [[1], [2], [1]]
    assert kneighbors(torch.tensor(X), 1)[1].tolist() == [[1], [2], [1]]


@pytest.mark.parametrize("k", [0, 3, 4])
def test_k_outside_the_rows_raises(k):
    with pytest.raises(ValueError, match=rf"`k` must be from 1 to 2 for 3 rows \(a row is not .*\), got {k}"):
        kneighbors(np.eye(3), k)


def test_k_above_the_rows_with_queries_raises():
    assert kneighbors(np.eye(3), 3, queries=np.eye(3)[:1])[1].tolist() == [[0, 1, 2]]
    with pytest.raises(ValueError, match=r"`k` must be from 1 to 3 for 3 rows \(there are no more\), got 4"):
        kneighbors(np.eye(3), 4, queries=np.eye(3))


def test_k_that_is_no_integer_raises():
    with pytest.raises(TypeError, match=r"`k` must be an integer, got 1\.5"):
        kneighbors(np.eye(3), 1.5)


def test_an_unknown_metric_raises():
    with pytest.raises(ValueError, match=r"`metric` must be one of 'euclidean', .*, got 'l3'"):
        kneighbors(np.eye(3), 1, metric="l3")


def test_nan_and_infinity_raise():
    X = np.eye(3)
    X[1, 1] = np.nan
    with pytest.raises(ValueError, match="Input X contains NaN"):
        kneighbors(X, 1)
    with pytest.raises(ValueError, match="Input queries contains NaN"):
        kneighbors(np.eye(3), 1, queries=X)
    X[1, 1] = np.inf
    with pytest.raises(ValueError, match="Input X contains infinity"):
        kneighbors(X, 1)


def test_queries_of_another_width_raise():
    with pytest.raises(ValueError, match="`queries` must have the 3 columns of `X`, got 2"):
        kneighbors(np.eye(3), 1, queries=np.eye(2))


def test_numbers_whose_squares_overflow_raise():
    with pytest.raises(ValueError, match=r"`X` must hold numbers below 1e150, .* got 1e\+200"):
        kneighbors([[0.0], [1e200]], 1)
    with pytest.raises(ValueError, match=r"`queries` must hold numbers below 1e150, .* got 1e\+160"):
        kneighbors([[0.0], [1.0]], 1, queries=[[-1e160]])


def test_an_all_zero_row_under_cosine_raises():
    with pytest.raises(ValueError, match="`X` must have no all-zero row under the cosine metric, got row 2"):
        kneighbors([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]], 1, metric="cosine")
