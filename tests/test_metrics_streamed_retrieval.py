"""`RetrievalMetrics(streamed=True)` compared with the metrics of a database in memory."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from mlmetric.metrics import RetrievalMetrics
from mlmetric.neighbors import kneighbors
from mlmetric.neighbors._streamed_search import StreamedSearch
from mlmetric.similarity import Dice, inner_product

LABEL_KINDS = {
    "bool": lambda labels: labels > 0.7,
    "uint8": lambda labels: (labels > 0.7).astype(np.uint8),
    "int64": lambda labels: (labels > 0.7).astype(np.int64),
    "float32": lambda labels: (labels > 0.7).astype(np.float32),
    "few soft values": lambda labels: (np.round(labels * 4) / 4).astype(np.float32),
    "soft": lambda labels: labels,
    "soft at the end": lambda labels: np.where(np.arange(len(labels))[:, None] < len(labels) - 3, labels > 0.7, labels),
}


def tables(**options):
    return RetrievalMetrics(full_ranking=False, **options), RetrievalMetrics(
        full_ranking=False, streamed=True, **options
    )


def values_of(table):
    return {key: value.item() for key, value in table.compute().items()}


def assert_equal(found, expected):
    assert values_of(found) == pytest.approx(values_of(expected), rel=1e-12, abs=1e-12, nan_ok=True)


def make_rows(seed, num_rows, width, num_labels, kind="uint8", embeddings="normal"):
    rng = np.random.default_rng(seed)
    rows = rng.integers(-1, 2, (num_rows, width)) if embeddings == "grid" else rng.standard_normal((num_rows, width))
    return rows.astype(np.float32), LABEL_KINDS[kind](rng.random((num_rows, num_labels)))


def add_shards(table, embeddings, labels, ends):
    for start, end in zip([0, *ends], [*ends, None], strict=True):
        table.update_ref(embeddings[start:end], labels[start:end])


@st.composite
def streams(draw):
    """Draw queries, a database, the ends of its shards, and options."""
    width, num_labels = draw(st.integers(1, 9)), draw(st.sampled_from([1, 3, 8, 9, 64, 65, 70]))
    num_refs, kind = draw(st.integers(1, 60)), draw(st.sampled_from(sorted(LABEL_KINDS)))
    embeddings = draw(st.sampled_from(["grid", "normal"]))
    metric = draw(st.sampled_from(["euclidean", "cosine"]))
    queries, refs = (
        make_rows(draw(st.integers(0, 10**6)), size, width, num_labels, kind, embeddings)
        for size in (draw(st.integers(1, 8)), num_refs)
    )
    if metric == "cosine":
        for rows, _ in (queries, refs):
            rows[~rows.any(axis=1)] = 1
    options = {
        "k": tuple(draw(st.lists(st.integers(1, 70), min_size=1, max_size=3))),
        "metric": metric,
        "zero_division": draw(st.sampled_from([math.nan, 0.0, 1.0])),
        "relevance_threshold": draw(st.sampled_from([None, 0.3])),
        "similarity": draw(st.sampled_from([None, Dice(), inner_product])),
    }
    ends = sorted(draw(st.lists(st.integers(0, num_refs), max_size=6)))
    return queries, refs, ends, options


@pytest.mark.parametrize("seen_together", [False, True])
@settings(max_examples=150, deadline=None)
@given(stream=streams())
def test_values_are_those_in_memory_for_any_shards(stream, seen_together):
    queries, refs, ends, options = stream
    expected, found = tables(**options)
    for table in (expected, found):
        table.update(*queries)
    expected.update_ref(*refs)
    if seen_together:
        found.update_ref(*refs)
    else:
        add_shards(found, *refs, ends)
    assert_equal(found, expected)


def ranking(refs, k, queries):
    return kneighbors(refs, min(k, len(refs)), queries=queries)[1]


def streamed_ranking(refs, k, queries, size, block_rows=None):
    search = StreamedSearch(torch.from_numpy(queries).double(), k)
    search.block_rows = block_rows or search.block_rows
    for start in range(0, len(refs), size):
        part = torch.from_numpy(refs[start : start + size])
        added = search.add(part, float(part.abs().max()))
        nearest = search.nearest()
        new = nearest.indices[nearest.indices >= start].unique() - start
        assert torch.isin(new, added).all()
    return nearest.indices.numpy()


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(
        ["normal", "grid", "copies", "nearer and nearer", "far apart", "tight", "huge", "tiny", "huge at the end"]
    ),
    seed=st.integers(0, 10**6),
    k=st.sampled_from([1, 2, 10, 50]),
    size=st.sampled_from([100, 333, 1000]),
    block_rows=st.sampled_from([16, 64, 300]),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_search_finds_the_rows_of_kneighbors(kind, seed, k, size, block_rows, dtype):
    rng = np.random.default_rng(seed)
    refs, queries = rng.standard_normal((1000, 12)), rng.standard_normal((20, 12))
    if kind == "grid":
        refs, queries = np.round(refs), np.round(queries)
    elif kind == "copies":
        refs = refs[rng.integers(0, 5, 1000)]
        queries[:5] = refs[:5]
    elif kind == "nearer and nearer":
        refs *= np.linspace(10, 0, 1000)[:, None]
    elif kind == "far apart":
        refs += 1000 * (np.arange(1000) // 250)[:, None]
    elif kind == "tight":
        refs, queries = 100 + 1e-4 * refs, 100 + 1e-4 * queries
    elif dtype == np.float64 and kind in ("huge", "tiny"):  # whose squares are infinite or 0
        factor = 1e200 if kind == "huge" else 1e-200
        refs, queries = factor * refs, factor * queries
    elif dtype == np.float64 and kind == "huge at the end":
        refs *= np.geomspace(1e-60, 1e120, 1000)[:, None]
    refs, queries = refs.astype(dtype), queries.astype(dtype)
    found = streamed_ranking(refs, k, queries, size, block_rows)
    largest = max(abs(refs).max(), abs(queries).max())
    scale = 1 if dtype == np.float32 else 2.0 ** -(math.frexp(largest)[1] - 1)
    np.testing.assert_array_equal(found, ranking(refs * dtype(scale), k, queries * dtype(scale)))


def test_search_of_many_rows_in_blocks_of_the_usual_size_finds_the_rows_of_kneighbors():
    rng = np.random.default_rng(0)
    refs, queries = (rng.standard_normal((size, 24)).astype(np.float32) for size in (40_000, 700))
    np.testing.assert_array_equal(streamed_ranking(refs, 10, queries, 15_000), ranking(refs, 10, queries))


def test_search_of_rows_of_two_dtypes_far_from_the_origin_finds_the_rows_of_kneighbors():
    rng = np.random.default_rng(0)
    refs = 100.123 + 1e-4 * rng.standard_normal((5000, 12))
    queries = 100.123 + 1e-4 * rng.standard_normal((500, 12))
    refs[100:] = refs[100:].astype(np.float32)
    search = StreamedSearch(torch.from_numpy(queries), 5)
    for part in (torch.from_numpy(refs[:100]), *torch.from_numpy(refs[100:]).float().split(500)):
        search.add(part, float(part.max()))
    np.testing.assert_array_equal(search.nearest().indices, ranking(refs, 5, queries))


def test_search_in_products_of_lower_precision_finds_the_rows_of_kneighbors():
    rng = np.random.default_rng(0)
    refs, queries = (rng.standard_normal((size, 24)).astype(np.float32) for size in (5000, 30))
    previous = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        found = streamed_ranking(refs, 10, queries, 5000)
    finally:
        torch.set_float32_matmul_precision(previous)
    np.testing.assert_array_equal(found, ranking(refs, 10, queries))


@pytest.fixture
def rows():
    return make_rows(0, 12, 4, 5), make_rows(1, 300, 4, 5)


def expected_table(queries, refs, **options):
    table = RetrievalMetrics(full_ranking=False, **options)
    table.update(*queries)
    table.update_ref(*refs)
    return table


def streamed_table(queries, refs=None, ends=(), **options):
    table = RetrievalMetrics(full_ranking=False, streamed=True, **options)
    table.update(*queries)
    if refs is not None:
        add_shards(table, *refs, ends)
    return table


def test_shards_of_each_kind_give_the_same_values(rows, tmp_path):
    queries, (embeddings, labels) = rows
    embeddings = embeddings.astype(np.float16)
    expected = expected_table(queries, (embeddings.astype(np.float32), labels), k=(1, 7))
    np.save(tmp_path / "embeddings.npy", embeddings)
    np.save(tmp_path / "labels.npy", labels)
    maps = [np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("embeddings", "labels")]
    kinds = [
        maps,
        (torch.from_numpy(embeddings), torch.from_numpy(labels)),
        (embeddings.astype(np.float64), sparse.csc_array(labels)),
        (sparse.coo_array(embeddings.astype(np.float32)), torch.from_numpy(labels).to_sparse()),
        (np.asfortranarray(embeddings), labels[::-1][::-1]),
    ]
    for kind in kinds:
        found = streamed_table(queries, k=(1, 7))
        found.update_ref(*kind)
        assert_equal(found, expected)
    lists = expected_table((queries[0], queries[1].astype(np.int64)), (embeddings.astype(np.float32), labels.tolist()))
    found = streamed_table((queries[0], queries[1].astype(np.int64)), (embeddings.tolist(), labels.tolist()))
    assert_equal(found, lists)


class MatrixInFile:
    """A matrix that is read where it is sliced, as of h5py or `join_shards`."""

    def __init__(self, matrix):
        self._matrix, self.shape, self.dtype = matrix, matrix.shape, matrix.dtype
        self.sizes = []

    def __getitem__(self, rows):
        self.sizes.append(len(self._matrix[rows]))
        return self._matrix[rows]

    def __array__(self, dtype=None, copy=None):
        raise MemoryError


def test_matrices_in_files_are_read_in_blocks(rows, monkeypatch):
    monkeypatch.setattr("mlmetric.metrics._retrieval._streamed_database._VALUES_PER_BLOCK", 4)
    monkeypatch.setattr("mlmetric.neighbors._streamed_search._BLOCK_ROWS", 128)
    queries, refs = rows
    in_files = [MatrixInFile(part) for part in refs]
    found = streamed_table(queries)
    found.update_ref(*in_files)
    assert_equal(found, expected_table(*rows))
    assert [part.sizes for part in in_files] == [[128, 128, 44], [128, 128, 44]]


def test_large_shards_are_converted_in_blocks():
    queries, (embeddings, labels) = make_rows(0, 9, 600, 5), make_rows(1, 5000, 600, 5)
    assert_equal(streamed_table(queries, (embeddings, labels)), expected_table(queries, (embeddings, labels)))


def test_embeddings_without_labels_in_common_are_undefined(rows):
    queries, (embeddings, labels) = rows
    for zero_division in (math.nan, 0.0):
        given = queries, (embeddings, np.zeros_like(labels))
        found = streamed_table(*given, zero_division=zero_division)
        assert_equal(found, expected_table(*given, zero_division=zero_division))
        assert values_of(found)["queries_without_relevant"] == len(queries[0])


def test_rows_that_left_the_nearest_are_dropped():
    rng = np.random.default_rng(0)
    queries = make_rows(0, 50, 3, 5)
    refs = rng.standard_normal((100_000, 3)) * np.linspace(9, 0, 100_000)[:, None]
    labels = (rng.random((100_000, 5)) < 0.3).astype(np.uint8)
    found = streamed_table(queries, (refs, labels), range(2000, 100_000, 2000), k=500)
    assert_equal(found, expected_table((queries[0].astype(np.float64), queries[1]), (refs, labels), k=500))
    assert sum(len(indices) for indices, _ in found._database.state().kept) <= 4 * 50 * 500 + 2**16


def test_report_and_its_intervals_are_those_in_memory(rows):
    reports = [
        table.report(generator=torch.Generator().manual_seed(0), n_resamples=50)
        for table in (streamed_table(*rows, ends=[100]), expected_table(*rows))
    ]
    assert str(reports[0]) == str(reports[1])
    assert reports[0].num_averaged == reports[1].num_averaged


def test_table_can_be_pickled_copied_and_reset_between_shards(rows):
    queries, (embeddings, labels) = rows
    table = streamed_table(queries, (embeddings[:200], labels[:200]), ends=[90])
    assert table.update_count == 3
    pickled = pickle.loads(pickle.dumps(table))
    cloned, copied = table.clone(), copy.deepcopy(table)
    for each in (table, pickled, cloned, copied):
        each.update_ref(embeddings[200:], labels[200:])
        assert_equal(each, expected_table(*rows))
    table.reset()
    assert table.update_count == 0
    table.update(*queries)
    table.update_ref(embeddings[:50], labels[:50])
    assert_equal(table, expected_table(queries, (embeddings[:50], labels[:50])))
    assert_equal(pickled, expected_table(*rows))


@settings(max_examples=40, deadline=None)
@given(stream=streams(), cut=st.floats(0, 1))
def test_merged_state_is_that_of_the_joined_database(stream, cut):
    queries, (embeddings, labels), _, options = stream
    cut = int(cut * len(labels))
    first, second = (
        streamed_table(queries, (embeddings[part], labels[part]), **options)
        for part in (slice(None, cut), slice(cut, None))
    )
    before = None if cut == len(labels) else values_of(second)
    first.merge_state(pickle.loads(pickle.dumps(second)))
    expected = expected_table(queries, (embeddings, labels), **options)
    assert_equal(first, expected)
    if before is not None:
        assert values_of(second) == pytest.approx(before, nan_ok=True)
    fresh = streamed_table(queries, **options)
    fresh.merge_state(first)
    assert_equal(fresh, expected)


def test_merged_state_of_values_of_other_magnitude(rows):
    queries, (embeddings, labels) = rows
    large = embeddings.astype(np.float64) * 1e100
    tables = [streamed_table(queries, shard) for shard in [(embeddings, labels), (large, labels)]]
    for order in (tables, tables[::-1]):
        merged = order[0].clone()
        merged.merge_state(order[1])
        both = (embeddings.astype(np.float64), large)[:: 1 if order is tables else -1]
        queries64 = (queries[0].astype(np.float64), queries[1])
        assert_equal(merged, expected_table(queries64, (np.concatenate(both), np.concatenate([labels, labels]))))
        merged.update_ref(embeddings, labels)
        assert merged.compute()


def test_merged_state_of_other_queries_or_options_raises(rows):
    queries, refs = rows
    table = streamed_table(queries, refs)
    others = [
        streamed_table((queries[0][1:], queries[1][1:]), refs),
        streamed_table((queries[0] + 1, queries[1]), refs),
        streamed_table(queries, refs, k=3),
        streamed_table(queries, refs, metric="cosine"),
        RetrievalMetrics(streamed=True, full_ranking=False),
        expected_table(queries, refs),
    ]
    for other in others:
        with pytest.raises(ValueError, match="`other` must have the same queries, `k` and `metric`"):
            table.merge_state(other)
        with pytest.raises(ValueError, match="`other` must have the same queries, `k` and `metric`"):
            other.merge_state(table)
    with pytest.raises(TypeError, match="`other` must be of class RetrievalMetrics, got int"):
        table.merge_state(3)

    class Other(RetrievalMetrics):
        pass

    with pytest.raises(TypeError, match="`other` must be of class Other, got RetrievalMetrics"):
        Other(streamed=True, full_ranking=False).merge_state(table)
    assert_equal(table, expected_table(queries, refs))


def test_metrics_of_the_whole_ranking_are_refused():
    with pytest.raises(ValueError, match=r"`full_ranking` must be False .* `map`, `map_at_r`, `r_precision` and `mrr`"):
        RetrievalMetrics(streamed=True)


def test_queries_after_the_database_raise(rows):
    queries, refs = rows
    table = RetrievalMetrics(streamed=True, full_ranking=False)
    with pytest.raises(ValueError, match="has no queries yet: call `update` first"):
        table.compute()
    with pytest.raises(ValueError, match="`update` must add the queries before `update_ref`"):
        table.update_ref(*refs)
    table.update(*queries)
    with pytest.raises(ValueError, match="`streamed=True` requires a database: call `update_ref`"):
        table.compute()
    table.update_ref(*refs)
    with pytest.raises(ValueError, match="`update` must add all queries before the first `update_ref`"):
        table.update(*queries)
    with pytest.raises(ValueError, match="`forward` evaluates each batch with the database"):
        table(*queries)
    assert_equal(table, expected_table(*rows))


def test_forward_of_a_table_in_memory_is_unchanged(rows):
    queries, refs = rows
    table = RetrievalMetrics(full_ranking=False)
    table.update_ref(*refs)
    batch = {key: value.item() for key, value in table(*queries).items()}
    assert batch == pytest.approx(values_of(expected_table(*rows)), nan_ok=True)


INVALID = {
    "shapes": (lambda e, y: (e[1:], y), ValueError, r"shapes \(N, D\) and \(N, L\), got \(299, 4\) and \(300, 5\)"),
    "one dimension": (lambda e, y: (e[:, 0], y), ValueError, r"got \(300,\) and \(300, 5\)"),
    "columns": (lambda e, y: (e[:, :3], y), ValueError, "`embeddings` and `ref_emb` must have the same number"),
    "labels": (lambda e, y: (e, y[:, :3]), ValueError, "`labels` and `ref_labels` must have the same number"),
    "label dtype": (lambda e, y: (e, y.astype(bool)), ValueError, r"must be of torch\.uint8, .* got torch\.bool"),
    "label value": (lambda e, y: (e, changed(y, 2)), ValueError, r"numbers in \[0, 1\], got 2 at row 290, label 1"),
    "NaN": (lambda e, y: (changed(e, np.nan), y), ValueError, "`ref_emb` must be finite, got nan at row 290"),
    "infinity": (lambda e, y: (changed(e, np.inf), y), ValueError, "`ref_emb` must be finite, got inf at row 290"),
    "names": (lambda e, y: (e, [["a"]] * 300), TypeError, "`ref_labels` must contain numbers"),
    "complex": (lambda e, y: (e.astype(complex), y), TypeError, "`ref_emb` must contain real numbers"),
}  # fmt: skip


def changed(matrix, value):
    result = matrix.copy()
    result[290, 1] = value
    return result


@pytest.mark.parametrize("case", INVALID)
def test_invalid_shard_raises_and_adds_nothing(rows, case, monkeypatch):
    monkeypatch.setattr("mlmetric.metrics._retrieval._streamed_database._VALUES_PER_BLOCK", 4)
    monkeypatch.setattr("mlmetric.neighbors._streamed_search._BLOCK_ROWS", 100)
    change, error, message = INVALID[case]
    queries, refs = rows
    first = streamed_table(queries)
    with pytest.raises(error, match=message):
        first.update_ref(*change(*refs))
    first.update(*queries)  # queries may still be added
    table = streamed_table(queries, refs)
    with pytest.raises(error, match=message):
        table.update_ref(*change(*refs))
    assert_equal(table, expected_table(*rows))
    assert table.update_count == 2


def test_zero_row_of_cosine_distance_raises_with_its_number(rows, monkeypatch):
    monkeypatch.setattr("mlmetric.metrics._retrieval._streamed_database._VALUES_PER_BLOCK", 4)
    monkeypatch.setattr("mlmetric.neighbors._streamed_search._BLOCK_ROWS", 100)
    queries, (embeddings, labels) = rows
    embeddings[250] = 0
    with pytest.raises(ValueError, match=r"`ref_emb` must contain no zero row .* got one at row 250"):
        streamed_table(queries, (embeddings, labels), metric="cosine")
    with pytest.raises(ValueError, match="`embeddings` must contain no zero row"):
        streamed_table((np.zeros_like(queries[0]), queries[1]), (embeddings, labels), metric="cosine")


def test_negative_grades_raise(rows):
    table = streamed_table(*rows, similarity=lambda labels, refs: inner_product(labels, refs) - 1)
    with pytest.raises(ValueError, match="`similarity` must return grades >= 0 for NDCG"):
        table.compute()


def test_no_queries_in_the_batch_give_undefined_means(rows):
    queries, refs = rows
    empty = (queries[0][:0], queries[1][:0])
    assert_equal(streamed_table(empty, refs, ends=[50]), expected_table(empty, refs))


def test_empty_shards_and_shards_without_labels_columns(rows):
    queries, (embeddings, labels) = rows
    assert_equal(streamed_table(queries, (embeddings, labels), ends=[0, 0, 300]), expected_table(*rows))
    without = (queries[0], queries[1][:, :0]), (embeddings, labels[:, :0])
    assert_equal(streamed_table(*without), expected_table(*without))


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_rows_on_a_device_give_the_values_of_the_cpu(rows, device, metric):
    queries, (embeddings, labels) = rows
    expected = expected_table(*rows, metric=metric)
    shards = [
        (embeddings[:120], labels[:120]),
        [torch.from_numpy(part[120:]).to(device) for part in (embeddings, labels)],
    ]
    table = streamed_table([torch.from_numpy(part).to(device) for part in queries], metric=metric)
    for shard in shards:  # of which one is on the CPU
        table.update_ref(*shard)
    other = streamed_table(queries, metric=metric, device=device)
    other.merge_state(table)
    for each in (table, other):
        assert {value.device for value in each.compute().values()} == {device}
        assert values_of(each) == pytest.approx(values_of(expected), nan_ok=True)


def test_bfloat16_rows_are_converted_exactly(rows):
    queries, (embeddings, labels) = rows
    half, soft = torch.from_numpy(embeddings).bfloat16(), torch.from_numpy(labels).bfloat16() / 2
    found = streamed_table((queries[0], torch.from_numpy(queries[1]).bfloat16()), (half, soft), similarity=Dice())
    queries = (queries[0], queries[1].astype(np.float32))
    assert_equal(found, expected_table(queries, (half.float(), soft.float()), similarity=Dice()))
