"""A search index as a faiss index, and the evaluation of what an approximate search returns."""

import sys

import faiss
import numpy as np
import pytest

from mlmetric import metrics
from mlmetric.metrics import neighbor_recall
from mlmetric.search import SearchIndex

SIZE, WIDTH = 1300, 8


@pytest.fixture(scope="module")
def rows():
    return np.random.default_rng(0).normal(size=(SIZE, WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def labels():
    return np.random.default_rng(1).integers(0, 2, (SIZE, 4))


def make_index(rows, **options):
    index = SearchIndex(**options)
    index.add(rows)
    return index


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_flat_faiss_index_finds_the_same_rows(rows, metric):
    index = make_index(rows, metric=metric)
    distances, found = index.to_faiss().search(rows[:20] + np.float32(0.01), 10)
    expected = index.kneighbors(rows[:20] + np.float32(0.01), 10)
    np.testing.assert_array_equal(found, expected[1])
    if metric == "euclidean":
        np.testing.assert_allclose(np.sqrt(distances), expected[0], atol=1e-3)
    assert neighbor_recall(found, expected[1]) == 1


@pytest.mark.parametrize("factory", ["Flat", "IVF16,Flat", "HNSW8", "IDMap,Flat", "IVF16,Flat,RFlat"])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_index_of_a_faiss_index_has_its_vectors(rows, labels, factory, metric):
    index = make_index(rows, metric=metric)
    if factory == "IDMap,Flat":
        kind = faiss.METRIC_L2 if metric == "euclidean" else faiss.METRIC_INNER_PRODUCT
        faiss_index = faiss.index_factory(WIDTH, factory, kind)
        faiss_index.add_with_ids(index.embeddings, np.arange(SIZE) + 1000)
        ids = list(range(1000, 1000 + SIZE))
    else:
        faiss_index, ids = index.to_faiss(factory), list(range(SIZE))
    result = SearchIndex.from_faiss(faiss_index, labels=labels, label_names=list("abcd"))
    np.testing.assert_allclose(result.embeddings, index.embeddings, atol=1e-6)
    assert (result.metric, result.ids, result.label_names) == (metric, ids, list("abcd"))
    named = SearchIndex.from_faiss(faiss_index, ids=[f"row {row}" for row in range(SIZE)])
    assert named.search(rows[3:4], 1)[0][0].id == "row 3"


def test_compressed_faiss_index_gives_approximations(rows):
    result = SearchIndex.from_faiss(make_index(rows).to_faiss("SQ8"))
    assert 0 < np.abs(result.embeddings - rows).max() < 0.02


def test_metric_of_an_inner_product_of_rows_of_any_length_must_be_given(rows):
    faiss_index = faiss.IndexFlatIP(WIDTH)
    faiss_index.add(rows)
    with pytest.raises(
        ValueError, match=r"inner product of rows that do not have unit length, got lengths from 0\.\d+ to"
    ):
        SearchIndex.from_faiss(faiss_index)
    result = SearchIndex.from_faiss(faiss_index, metric="cosine")
    np.testing.assert_array_equal(result.embeddings, make_index(rows, metric="cosine").embeddings)


def test_other_faiss_indexes_raise(rows):
    with pytest.raises(TypeError, match="`index` must be a faiss index, got ndarray"):
        SearchIndex.from_faiss(rows)
    with pytest.raises(ValueError, match="at least one row, got an empty faiss index"):
        SearchIndex.from_faiss(faiss.IndexFlatL2(3))
    manhattan = faiss.IndexFlat(WIDTH, faiss.METRIC_L1)
    manhattan.add(rows)
    with pytest.raises(
        ValueError, match=f"`metric` must be given for a faiss index with metric type {faiss.METRIC_L1}"
    ):
        SearchIndex.from_faiss(manhattan)
    assert len(SearchIndex.from_faiss(manhattan, metric="euclidean")) == SIZE
    numbered = make_index(rows).to_faiss("IVF16,Flat")
    numbered.reset()
    numbered.add_with_ids(rows, np.arange(SIZE) + 1)
    with pytest.raises(ValueError, match="rows numbered from 0, got a faiss index with other numbers"):
        SearchIndex.from_faiss(numbered)


def test_faiss_index_that_cannot_be_read_raises(rows):
    shards = faiss.IndexShards(WIDTH)
    shard = make_index(rows).to_faiss()
    shards.add_shard(shard)
    with pytest.raises(ValueError, match=r"of which row 0 can be read, got IndexShards: .*not implemented"):
        SearchIndex.from_faiss(shards)


def test_unknown_kind_of_faiss_index_raises(rows):
    index = make_index(rows)
    with pytest.raises(ValueError, match=r"cannot make an index 'Nonsense' of 1300 rows: .*could not parse"):
        index.to_faiss("Nonsense")
    with pytest.raises(ValueError, match=r"an index 'IVF2000,Flat' of 1300 rows: .*training points \(1300\) should be"):
        index.to_faiss("IVF2000,Flat")
    with pytest.raises(ValueError, match="The index is empty"):
        SearchIndex().to_faiss()


def test_missing_faiss_raises_with_the_extra(rows, monkeypatch):
    faiss_index = make_index(rows).to_faiss()
    monkeypatch.setitem(sys.modules, "faiss", None)
    for call in (make_index(rows).to_faiss, lambda: SearchIndex.from_faiss(faiss_index)):
        with pytest.raises(ImportError, match=r"faiss is not installed: run `pip install \"mlmetric\[faiss\]\"`"):
            call()


# Evaluation of an approximate search


@pytest.fixture(scope="module")
def approximate(rows):
    """The exact and the approximate search of 40 queries; where the one cell searched has fewer rows, -1."""
    index = make_index(rows)
    queries = np.random.default_rng(2).normal(size=(40, WIDTH)).astype(np.float32)
    distances, found = index.to_faiss("IVF32,Flat").search(queries, 100)
    missing = (found == -1).sum(axis=1)
    assert missing.any()
    return queries, distances, found, index.kneighbors(queries, 100)[1]


def test_recall_of_an_approximate_search_equals_a_loop(approximate):
    _, _, found, exact = approximate
    expected = []
    for retrieved, nearest in zip(found, exact, strict=True):
        expected.append(sum(row in retrieved for row in nearest) / len(nearest))
    np.testing.assert_allclose(neighbor_recall(found, exact, average="none"), expected, rtol=1e-12)
    assert 0.2 < neighbor_recall(found, exact).item() < 0.9


def test_precision_recall_and_size_ratio_of_an_approximate_search_equal_a_loop(approximate, labels):
    _, _, found, _ = approximate
    query_labels = labels[:40] * (np.arange(4) < 2)
    expected = {"precision": [], "recall": [], "size_ratio": []}
    for retrieved, own in zip(found, query_labels, strict=True):
        rows = [row for row in retrieved if row != -1]
        relevant = {row for row in range(SIZE) if (labels[row] & own).any()}
        hits = sum(row in relevant for row in rows)
        expected["precision"].append(hits / 100 if relevant else np.nan)
        expected["recall"].append(hits / len(relevant) if relevant else np.nan)
        expected["size_ratio"].append(np.mean([labels[row].sum() for row in rows]) / labels.sum(axis=1).mean())
    for name, values in expected.items():
        actual = getattr(metrics, f"{name}_at_k")(
            found, query_labels, ref_labels=labels, metric="retrieved", k=100, average="none"
        )
        np.testing.assert_allclose(actual, values, rtol=1e-12, err_msg=name)


def test_hits_of_an_approximate_search(approximate, rows):
    queries, distances, found, _ = approximate
    hits = make_index(rows).hits(np.sqrt(distances), found)
    assert [[hit.id for hit in each] for each in hits] == [[row for row in each if row >= 0] for each in found]
    for query, each in zip(queries, hits, strict=True):
        np.testing.assert_allclose(
            [hit.distance for hit in each], [np.linalg.norm(rows[hit.id] - query) for hit in each], atol=1e-3
        )
