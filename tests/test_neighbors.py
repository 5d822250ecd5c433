import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse
from sklearn.neighbors import NearestNeighbors

from mlmetric.neighbors import _euclidean_search, _lower_bound_search, kneighbors
from mlmetric.neighbors._euclidean_search import limit_duplicates
from mlmetric.neighbors._lower_bounds import LowerBounds, Normalization, matmul_keeps_float32
from mlmetric.neighbors._row_matrix import DenseRows, SparseRows

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


def by_differences(X, k, queries=None):
    """The same with arrays: all distances from float64 differences."""
    X = np.asarray(X, dtype=np.float64)
    rows = X if queries is None else np.asarray(queries, dtype=np.float64)
    squares = np.stack([((X - row) ** 2).sum(axis=1) for row in rows])
    if queries is None:
        np.fill_diagonal(squares, np.inf)
    indices = squares.argsort(axis=1, kind="stable")[:, :k]
    return np.sqrt(np.take_along_axis(squares, indices, axis=1)), indices


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
    assert_neighbors(kneighbors(X, 3, queries=X[:2], metric=metric), by_loop(X, 3, X[:2], metric=metric))
    found = kneighbors(torch.from_numpy(X), 3, metric=metric)
    assert isinstance(found[0], torch.Tensor)
    assert_neighbors((found[0].numpy(), found[1].numpy()), by_loop(X, 3, metric=metric))
    if metric == "manhattan":
        assert_neighbors(kneighbors(sparse.csr_array(X), 3, metric=metric), by_loop(X, 3, metric=metric))


def test_metric_may_be_a_callable():
    X = np.random.default_rng(0).integers(0, 5, size=(12, 3)).astype(float)
    actual = kneighbors(X, 4, metric=lambda a, b: np.abs(a - b).sum(), working_memory=1e-3)
    assert_neighbors(actual, by_loop(X, 4, metric="manhattan"))


def test_cosine_matches_a_loop():
    X = np.random.default_rng(0).normal(size=(40, 20))
    for kind in (np.asarray, sparse.csr_array, torch.from_numpy):
        found = kneighbors(kind(X), 4, metric="cosine")
        assert_neighbors(tuple(map(np.asarray, found)), by_loop(X, 4, metric="cosine"))
        found = kneighbors(kind(X), 4, queries=kind(3 * X[:5]), metric="cosine")
        assert_neighbors(tuple(map(np.asarray, found)), by_loop(X, 4, X[:5], metric="cosine"))


def test_l2_is_the_exact_euclidean_search():
    X = np.random.default_rng(0).normal(size=(40, 20)) + 1e8
    assert_neighbors(kneighbors(X, 3, metric="l2"), by_loop(X, 3))


def test_more_duplicates_than_candidates_are_ordered_by_index():
    X = np.ones((100, 3))
    distances, indices = kneighbors(X, 2)
    assert (distances == 0).all()
    assert indices[0].tolist() == [1, 2]
    assert indices[1].tolist() == [0, 2]
    assert (indices[2:] == [0, 1]).all()


def test_more_duplicates_than_candidates_do_not_hide_other_neighbours():
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


def test_outlier_does_not_reduce_the_precision_of_other_rows():
    X = np.round(np.random.default_rng(0).normal(size=(120, 20)) * 2**20) / 2**20
    X[7] = 2.0**33
    assert_neighbors(kneighbors(X, 4), by_loop(X, 4))


def test_neighbours_of_nearly_equal_rows():
    X = 1 + np.random.default_rng(0).integers(0, 2**10, size=(120, 20)) * 2.0**-40
    assert_neighbors(kneighbors(X, 4), by_loop(X, 4))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_random_rows_match_sklearn_brute_force_in_float64(dtype):
    X = np.random.default_rng(1).normal(size=(300, 40)).astype(dtype)
    expected = NearestNeighbors(n_neighbors=6, algorithm="brute").fit(X.astype(np.float64)).kneighbors()
    assert_neighbors(kneighbors(X, 6), expected)


@pytest.mark.slow
def test_small_blocks_change_nothing(monkeypatch):
    X = np.random.default_rng(2).integers(0, 3, size=(190, 4)).astype(float)
    monkeypatch.setattr(_euclidean_search, "_MAX_TREE_WIDTH", 0)
    for kind in (np.asarray, sparse.csr_matrix):
        assert_neighbors(kneighbors(kind(X), 5, working_memory=1e-3), by_loop(X, 5))
        assert_neighbors(kneighbors(kind(X), 5, queries=X[:70] + 1, working_memory=1e-3), by_loop(X, 5, X[:70] + 1))
    actual = kneighbors(X, 5, metric="manhattan", working_memory=1e-3)
    assert_neighbors(actual, by_loop(X, 5, metric="manhattan"))


def random_rows(n, d, rng):
    return rng.normal(size=(n, d))


def shifted(n, d, rng):
    return rng.normal(size=(n, d)) + 1000


def collapsed(n, d, rng):
    """Unit vectors that differ by about 1e-4."""
    rows = rng.normal(size=d) + 1e-4 * rng.normal(size=(n, d))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def clusters(n, d, rng):
    """Tight clusters far apart, which no single centre brings close to 0."""
    return 100 * rng.normal(size=(8, d))[rng.integers(0, 8, size=n)] + 1e-4 * rng.normal(size=(n, d))


def duplicates(n, d, rng):
    return rng.normal(size=(n // 20, d))[rng.integers(0, n // 20, size=n)]


def equal_but_one(n, d, rng):
    rows = np.ones((n, d))
    rows[n // 2] = 2
    return rows


def integers(n, d, rng):
    return rng.integers(0, 3, size=(n, d)).astype(float)


def with_outliers(n, d, rng):
    rows = rng.normal(size=(n, d))
    rows[::97] *= 1e6
    return rows


KINDS = [random_rows, shifted, collapsed, clusters, duplicates, equal_but_one, integers, with_outliers]
each_kind = pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)


@each_kind
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("width", [1, 6, 40, pytest.param(700, marks=pytest.mark.slow)])
def test_neighbours_are_those_of_float64_differences(make, dtype, width):
    rng = np.random.default_rng(width)
    X = make(250, width, rng).astype(dtype)
    queries = np.concatenate([X[:30], make(250, width, rng)[:30].astype(dtype)])
    for k in (1, 3, 20):
        assert_neighbors(kneighbors(X, k), by_differences(X, k))
    assert_neighbors(kneighbors(X, 3, queries=queries), by_differences(X, 3, queries))
    other = queries.astype(np.float32 if dtype is np.float64 else np.float64)
    assert_neighbors(kneighbors(X, 3, queries=other), by_differences(X, 3, other))
    # Small blocks of a read-only array in Fortran order, and a tensor.
    read_only = X.copy(order="F")
    read_only.setflags(write=False)
    assert_neighbors(kneighbors(read_only, 3, working_memory=0.05), by_differences(X, 3))
    distances, indices = kneighbors(torch.from_numpy(X), 3)
    assert (distances.dtype, indices.dtype) == (torch.float64, torch.int64)
    assert_neighbors((distances.numpy(), indices.numpy()), by_differences(X, 3))


@each_kind
def test_neighbours_without_a_tree_are_those_of_float64_differences(make, monkeypatch):
    monkeypatch.setattr(_euclidean_search, "_MAX_TREE_WIDTH", 0)
    for width in (1, 3):
        X = make(500, width, np.random.default_rng(0))
        assert_neighbors(kneighbors(X, 5), by_differences(X, 5))


def test_neighbours_of_wide_sparse_rows_are_those_of_float64_differences():
    X = sparse.random_array((300, 5000), density=0.01, format="csr", random_state=np.random.default_rng(0))
    X = sparse.vstack([X, X[:50]]).tocsr()
    assert_neighbors(kneighbors(X, 4), by_differences(X.toarray(), 4))
    counts = sparse.csr_matrix(np.ceil(X.toarray()))
    assert_neighbors(kneighbors(counts, 4, working_memory=1), by_differences(counts.toarray(), 4))


def test_more_rows_than_one_float32_block():
    X = np.random.default_rng(0).normal(size=(3000, 30)).astype(np.float32)
    assert_neighbors(kneighbors(X, 6, working_memory=2), by_differences(X, 6))


def test_smaller_k_gives_the_first_columns():
    X = np.random.default_rng(0).integers(0, 4, size=(200, 12))
    distances, indices = kneighbors(X, 9)
    for k in (1, 4):
        assert_neighbors(kneighbors(X, k), (distances[:, :k], indices[:, :k]))


@pytest.mark.parametrize("magnitude", [1e-140, 1e-30, 1e-12, 1e12, 1e30, 1e140])
@pytest.mark.parametrize("width", [3, 40])
def test_neighbours_of_very_large_and_very_small_numbers(magnitude, width):
    X = np.random.default_rng(0).normal(size=(120, width))
    distances, indices = by_differences(X, 4)
    actual = kneighbors(X * magnitude, 4)
    np.testing.assert_array_equal(actual[1], indices)
    np.testing.assert_allclose(actual[0], distances * magnitude, rtol=1e-12)


@pytest.mark.parametrize("exponent", [-600, -40, 29, 30, 40, 400])
@pytest.mark.parametrize("width", [1, 3, 9])
def test_ties_of_very_large_and_very_small_numbers_go_to_the_lowest_index(exponent, width):
    X = np.random.default_rng(0).integers(0, 4, size=(200, width)).astype(float)
    distances, indices = by_differences(X, 3)
    actual = kneighbors(X * 2.0**exponent, 3)
    np.testing.assert_array_equal(actual[1], indices)
    np.testing.assert_allclose(actual[0], distances * 2.0**exponent, rtol=1e-12)


@pytest.mark.parametrize("width", [3, 20])
def test_small_distances_next_to_a_huge_entry_are_exact(width):
    X = np.random.default_rng(1).normal(size=(50, width)) * 1e-12
    X[7] = 1e149
    assert_neighbors(kneighbors(X, 2), by_differences(X, 2))


def test_subnormal_numbers_are_supported():
    assert kneighbors([[0.0], [1e-310], [3e-310]], 1)[1].tolist() == [[1], [0], [1]]


# Parts of the search


@given(
    st.integers(1, 60),
    st.sampled_from([torch.float32, torch.float64]),
    st.sampled_from([1e-18, 1e-6, 1.0, 1e6, 1e9, 1e25]),
    st.sampled_from([0.0, 1.0, 1e5]),
    st.integers(0, 2**32 - 1),
)
@properties
def test_bounds_never_exceed_half_the_squared_distance(width, dtype, magnitude, offset, seed):
    rng = np.random.default_rng(seed)
    X = (rng.normal(size=(20, width)) * rng.choice([1e-3, 1, 1e3], size=(20, 1)) + offset) * magnitude
    X[1] = X[0]
    for rows in (
        DenseRows(X),
        DenseRows(X.astype(np.float32)),
        DenseRows(torch.from_numpy(X)),
        SparseRows(sparse.csr_array(X)),
    ):
        normalization = Normalization.of(rows, rows)
        indices = torch.arange(20)
        exact = rows.take(indices).toarray() if isinstance(rows, SparseRows) else rows.take(indices).numpy()
        squares = (((exact[:, None] - exact) * normalization.scale) ** 2).sum(axis=-1) / 2
        product_dtype = torch.float64 if isinstance(rows, SparseRows) else dtype
        bounds = LowerBounds(rows, rows, normalization, product_dtype)
        lower = bounds.between(bounds.prepare_queries(indices), bounds.prepare_refs(indices)).double().numpy()
        assert (lower <= squares).all()
        # They are tight: below the exact value by a small fraction of the norms.
        norms = ((exact - normalization.centre.numpy()) * normalization.scale) ** 2
        norms = norms.sum(axis=1)
        slack = 12 * (width + 8) * torch.finfo(product_dtype).eps * (norms[:, None] + norms) + 1e-25
        assert (squares - lower <= slack).all()


@pytest.mark.parametrize("max_pending", [1, 40, 10**6])
def test_running_smallest_keeps_the_smallest_values(max_pending):
    values = torch.from_numpy(np.random.default_rng(0).permutation(30 * 500).reshape(30, 500)).double()
    indices = torch.arange(500) * 7
    smallest = _lower_bound_search._RunningSmallest(30, 4, torch.float64, torch.device("cpu"), max_pending=max_pending)
    for start in range(0, 500, 70):
        part, columns = slice(0, 12), slice(start, start + 70)
        smallest.update(part, values[part, columns], indices[columns])
        part = slice(12, 30)
        smallest.update(part, values[part, columns].T.contiguous(), indices[columns], dim=0)
    smallest.merge_pending()
    expected, columns = values.sort(dim=1)
    actual, order = smallest.values.sort(dim=1)
    assert torch.equal(actual, expected[:, :4])
    assert torch.equal(smallest.indices.gather(1, order), indices[columns[:, :4]])


def test_clusters_require_float64_and_equal_distances_require_all_pairs(monkeypatch):
    searched, compared = [], []

    def recording_find_candidates(bounds, rows, *args, **kwargs):
        searched.append((bounds.dtype, len(rows)))
        return _lower_bound_search.find_candidates(bounds, rows, *args, **kwargs)

    def recording_find_pairs(bounds, rows, *args, **kwargs):
        compared.append(len(rows))
        return _lower_bound_search.find_pairs_within(bounds, rows, *args, **kwargs)

    monkeypatch.setattr(_euclidean_search, "find_candidates", recording_find_candidates)
    monkeypatch.setattr(_euclidean_search, "find_pairs_within", recording_find_pairs)
    rng = np.random.default_rng(0)
    kneighbors(random_rows(400, 40, rng), 1)
    assert searched == [(torch.float32, 400)]
    kneighbors(100 * np.eye(40)[rng.integers(0, 8, size=400)] + 1e-3 * random_rows(400, 40, rng), 1)
    assert searched[1:] == [(torch.float32, 400), (torch.float64, 400)]
    assert not compared
    X = random_rows(400, 40, rng)
    X[:9] = X[0]
    assert_neighbors(kneighbors(X, 1), by_differences(X, 1))
    assert searched[3:] == [(torch.float32, 400), (torch.float64, 9)]
    kneighbors(integers(400, 40, rng), 3)
    assert compared[0] > 0
    # With many rows, a sample is searched for first, and the others in float32 only if float32 decides most of it.
    searched.clear()
    X = random_rows(2000, 40, rng)
    assert_neighbors(kneighbors(X, 1), by_differences(X, 1))
    assert searched[0][1] < 80
    assert searched[1:] == [(torch.float32, 2000)]
    searched.clear()
    X = 100 * np.eye(40)[rng.integers(0, 8, size=2000)] + 1e-3 * random_rows(2000, 40, rng)
    assert_neighbors(kneighbors(X, 1), by_differences(X, 1))
    assert [dtype for dtype, _ in searched] == [torch.float32, torch.float64]
    assert searched[0][1] < 80
    assert searched[1][1] == 2000


def test_float32_products_of_lower_precision_are_not_used(monkeypatch):
    dtypes = []

    def recording_find_candidates(bounds, *args, **kwargs):
        dtypes.append(bounds.dtype)
        return _lower_bound_search.find_candidates(bounds, *args, **kwargs)

    monkeypatch.setattr(_euclidean_search, "find_candidates", recording_find_candidates)
    X = random_rows(300, 40, np.random.default_rng(0)).astype(np.float32)
    cpu = torch.device("cpu")
    before = torch.get_float32_matmul_precision()
    assert matmul_keeps_float32(cpu)
    try:
        torch.set_float32_matmul_precision("medium")
        assert not matmul_keeps_float32(cpu)
        actual = kneighbors(X, 3)
    finally:
        torch.set_float32_matmul_precision(before)
    assert_neighbors(actual, by_differences(X, 3))
    assert dtypes == [torch.float64]
    assert matmul_keeps_float32(cpu)


def test_autocast_does_not_apply_to_the_products():
    X = torch.from_numpy(random_rows(300, 40, np.random.default_rng(0)).astype(np.float32))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        distances, indices = kneighbors(X, 3)
    assert_neighbors((distances.numpy(), indices.numpy()), by_differences(X.numpy(), 3))


def test_limit_duplicates_keeps_the_given_number_of_equal_rows():
    rows = np.array([[1.0, 0.0], [2.0, 0.0], [1.0, 0.0], [1.0, -0.0], [2.0, 0.0], [1.0, 0.0]])
    assert limit_duplicates(DenseRows(rows), 2).tolist() == [0, 1, 2, 4]
    assert limit_duplicates(SparseRows(sparse.csr_array(rows)), 1).tolist() == [0, 1]
    assert limit_duplicates(DenseRows(torch.from_numpy(rows)), 4).tolist() == [0, 1, 2, 3, 4, 5]


def test_limit_duplicates_keeps_all_rows_after_a_hash_collision(monkeypatch):
    for kind in (DenseRows, SparseRows):
        monkeypatch.setattr(kind, "hashes", lambda self, _: torch.zeros(self.shape[0], dtype=torch.int64))
    rows = np.array([[1.0], [1.0], [2.0]])
    assert limit_duplicates(DenseRows(rows), 1).tolist() == [0, 1, 2]
    assert limit_duplicates(SparseRows(sparse.csr_array(rows)), 1).tolist() == [0, 1, 2]


# Input


def test_lists_tensors_and_data_frames_are_supported():
    X = [[0.0], [2.0], [3.0]]
    assert kneighbors(X, 1)[1].tolist() == [[1], [2], [1]]
    assert kneighbors(pd.DataFrame(X), 1)[1].tolist() == [[1], [2], [1]]
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.int64, torch.uint8):
        distances, indices = kneighbors(torch.tensor(X).to(dtype), 1)
        assert indices.tolist() == [[1], [2], [1]]
        assert distances.dtype == torch.float64
    _, indices = kneighbors(torch.tensor(X, requires_grad=True), 1, queries=np.array([[2.4]]))
    assert indices.tolist() == [[1]]
    assert kneighbors(X, 1, queries=torch.tensor([[2.4]]))[1].tolist() == [[1]]


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "manhattan"])
def test_same_object_as_queries_excludes_nothing(metric):
    X = np.random.default_rng(0).normal(size=(6, 3))
    for rows in (X, sparse.csr_array(X), torch.from_numpy(X)):
        _, indices = kneighbors(rows, 6, queries=rows, metric=metric)
        assert np.asarray(indices)[:, 0].tolist() == list(range(6))


def each_kind_of(array):
    read_only = array.copy()
    read_only.setflags(write=False)
    backwards = np.ascontiguousarray(array[::-1])[::-1]
    tensor = torch.from_numpy(array.copy())
    kinds = [
        array.tolist(),
        pd.DataFrame(array),
        sparse.csr_array(array),
        sparse.coo_matrix(array),
        read_only,
        backwards,
    ]
    return [*kinds, array.astype(object), tensor, tensor.clone().requires_grad_(), torch._neg_view(-tensor)]


def test_queries_of_each_kind_match_rows_of_each_kind():
    X = np.random.default_rng(0).normal(size=(30, 4))
    X[:5, 0] = 0.1
    X[0, 0] += 1e-9  # lost if a list were converted to float32
    queries = X[3:9] + 1e-9
    expected = by_differences(X, 3, queries)
    for rows in each_kind_of(X):
        for query_rows in each_kind_of(queries):
            distances, indices = kneighbors(rows, 3, queries=query_rows)
            assert isinstance(indices, torch.Tensor) == isinstance(rows, torch.Tensor)
            assert_neighbors((np.asarray(distances), np.asarray(indices)), expected)
    assert kneighbors(X, 1, queries=torch.zeros(1, 4, dtype=torch.bfloat16))[1].shape == (1, 1)
    assert kneighbors(torch.tensor([[True], [False]]), 1)[1].tolist() == [[1], [0]]


def test_sparse_matrix_with_duplicate_entries_is_not_modified():
    X = sparse.csr_matrix((np.ones(4), np.array([0, 0, 1, 2]), np.array([0, 2, 3, 4])), shape=(3, 3))
    for part in (X.data, X.indices, X.indptr):
        part.setflags(write=False)
    assert kneighbors(X, 1)[1].tolist() == [[1], [2], [1]]  # rows 2 0 0, 0 1 0 and 0 0 1
    assert X.nnz == 4


def test_cosine_of_very_short_rows():
    X = np.array([[1e-161, 2e-161], [1.0, 2.0], [2.0, 1.0], [1e-300, 0.9e-300]])
    for kind in (np.asarray, sparse.csr_array, torch.from_numpy):
        distances, indices = kneighbors(kind(X), 1, metric="cosine")
        assert np.asarray(indices).ravel().tolist() == [1, 0, 3, 2]
        assert np.asarray(distances)[0, 0] == pytest.approx(0, abs=1e-15)


def test_metric_that_returns_nan_raises_and_infinite_distances_exclude_the_row_itself():
    X = np.random.default_rng(0).normal(size=(6, 3))
    assert kneighbors(X, 2, metric=lambda a, b: np.inf)[1].tolist() == [[1, 2], [0, 2], *[[0, 1]] * 4]
    X[0] = 1
    with pytest.raises(ValueError, match="`metric` 'correlation' returned NaN between row 0 and row 1 of `X`"):
        kneighbors(X, 2, metric="correlation")
    with pytest.raises(ValueError, match="`metric` must compare rows, got 'precomputed'"):
        kneighbors(np.ones((3, 3)), 1, metric="precomputed")


def test_one_row_without_queries_raises():
    with pytest.raises(ValueError, match=r"`X` must have at least 2 rows .* got 1"):
        kneighbors([[1.0]], 1)
    assert kneighbors([[1.0]], 1, queries=[[2.0]], working_memory=float("inf"))[1].tolist() == [[0]]


@pytest.mark.parametrize("make", KINDS)
def test_tensors_on_a_device(make, device):
    X = make(700, 40, np.random.default_rng(0)).astype(np.float32)
    distances, indices = kneighbors(torch.from_numpy(X).to(device), 3, queries=None)
    assert distances.device == device
    assert indices.device == device
    np.testing.assert_allclose(distances.cpu().numpy(), by_differences(X, 3)[0], rtol=1e-12)
    if make is not duplicates:  # a device may round sums of equal differences differently
        np.testing.assert_array_equal(indices.cpu().numpy(), by_differences(X, 3)[1])
    with pytest.raises(ValueError, match=f"`metric` must be 'euclidean' or 'cosine' on {device.type}"):
        kneighbors(torch.from_numpy(X).to(device), 3, metric="manhattan")


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (torch.eye(3).to_sparse(), "`X` must be a dense tensor of real numbers, got torch.sparse_coo"),
        (torch.ones(3), r"`X` must have shape \(N, d\) with N and d above 0, got \(3,\)"),
        (torch.ones(0, 3), r"`X` must have shape \(N, d\) with N and d above 0, got \(0, 3\)"),
        (torch.ones(3, 3, dtype=torch.complex64), "`X` must be a dense tensor of real numbers, got torch.complex64"),
        (torch.tensor([[1.0], [float("nan")]]), "X contains NaN or infinity: nan at row 1, column 0"),
        (torch.tensor([[0.0], [1e200]], dtype=torch.float64), r"`X` must contain values below 1e150, .* got 1e\+200"),
    ],
)
def test_invalid_tensors_raise(X, message):
    with pytest.raises(ValueError, match=message):
        kneighbors(X, 1)


@pytest.mark.parametrize("working_memory", [0, -1, float("nan")])
def test_invalid_working_memory_raises(working_memory):
    with pytest.raises(ValueError, match=rf"`working_memory` must be above 0 \(MiB\), got {working_memory}"):
        kneighbors(np.eye(3), 1, working_memory=working_memory)


@pytest.mark.parametrize("k", [0, 3, 4])
def test_k_out_of_range_raises(k):
    with pytest.raises(ValueError, match=rf"`k` must be from 1 to 2 for 3 rows \(a row is not .*\), got {k}"):
        kneighbors(np.eye(3), k)


def test_k_larger_than_the_number_of_rows_raises():
    assert kneighbors(np.eye(3), 3, queries=np.eye(3)[:1])[1].tolist() == [[0, 1, 2]]
    with pytest.raises(ValueError, match=r"`k` must be from 1 to 3 for 3 rows, got 4"):
        kneighbors(np.eye(3), 4, queries=np.eye(3))


def test_k_that_is_not_an_integer_raises():
    with pytest.raises(TypeError, match=r"`k` must be an integer, got 1\.5"):
        kneighbors(np.eye(3), 1.5)


def test_unknown_metric_raises():
    with pytest.raises(ValueError, match=r"'metric' parameter .* Got 'l3'"):
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


def test_queries_with_another_number_of_columns_raise():
    with pytest.raises(ValueError, match="`queries` must have 3 columns like `X`, got 2"):
        kneighbors(np.eye(3), 1, queries=np.eye(2))


def test_numbers_whose_squares_overflow_raise():
    with pytest.raises(ValueError, match=r"`X` must contain values below 1e150, .* got 1e\+200"):
        kneighbors([[0.0], [1e200]], 1)
    with pytest.raises(ValueError, match=r"`queries` must contain values below 1e150, .* got 1e\+160"):
        kneighbors([[0.0], [1.0]], 1, queries=[[-1e160]])


def test_zero_row_with_cosine_raises():
    with pytest.raises(ValueError, match=r"`X` must contain no zero row with `metric=\"cosine\"`, got one at row 2"):
        kneighbors([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]], 1, metric="cosine")
