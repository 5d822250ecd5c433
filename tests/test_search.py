import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mlmetric.neighbors import kneighbors
from mlmetric.search import Hit, SearchIndex
from mlmetric.similarity import jaccard

NAMES = ["cat", "dog", "indoors"]
ROWS = [[0.0, 0.0], [1.0, 0.0], [4.0, 0.0]]
LABELS = [["cat"], ["cat", "indoors"], ["dog"]]
MATRIX = [[1, 0, 0], [1, 0, 1], [0, 1, 0]]


def make_index(**options):
    index = SearchIndex(**({"label_names": NAMES} | options))
    index.add(ROWS if index.metric == "euclidean" else np.add(ROWS, 1), ids=["a", "b", "c"], labels=LABELS)
    return index


# Search


def search_loop(rows, ids, labels, names, queries, query_labels, k):
    """Search with sets and Python loops."""
    results = []
    for query, own in zip(queries, query_labels, strict=True):
        ranked = sorted((math.dist(query, row), number) for number, row in enumerate(rows))[:k]
        hits = []
        for distance, number in ranked:
            theirs = {name for name, has in zip(names, labels[number], strict=True) if has}
            ours = {name for name, has in zip(names, own, strict=True) if has}
            shared = {name: 1 / len(ours | theirs) for name in names if name in ours & theirs}
            hits.append((ids[number], pytest.approx(distance), tuple(n for n in names if n in theirs), shared))
        results.append(hits)
    return results


@given(data=st.data(), size=st.integers(1, 12), width=st.integers(1, 9))
def test_search_equals_a_loop_over_sets(data, size, width):
    generator = np.random.default_rng(data.draw(st.integers(0, 99)))
    rows, queries = generator.integers(-3, 4, (size, width)), generator.integers(-3, 4, (3, width))
    labels, query_labels = generator.integers(0, 2, (size, 3)), generator.integers(0, 2, (3, 3))
    k = data.draw(st.integers(1, size))
    index = SearchIndex(label_names=NAMES)
    first = data.draw(st.integers(0, size - 1))
    for part in (slice(0, first), slice(first, None)):
        if len(rows[part]):
            index.add(rows[part], ids=[f"row {row}" for row in range(size)][part], labels=labels[part])
    actual = index.search(queries, k, labels=query_labels)
    assert actual == search_loop(rows, index.ids, labels, NAMES, queries, query_labels, k)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_search_by_each_metric_equals_kneighbors(metric, generator):
    rows = torch.randn(300, 12, generator=generator)
    index = SearchIndex(metric=metric)
    index.add(rows)
    distances, indices = index.kneighbors(rows[:50] + 0.1, 7)
    expected = kneighbors(rows.numpy(), 7, queries=rows[:50].numpy() + np.float32(0.1), metric=metric)
    np.testing.assert_array_equal(indices, expected[1])
    np.testing.assert_allclose(distances, expected[0], atol=1e-6)
    assert (distances.dtype, indices.dtype) == (np.float64, np.int64)
    assert [[hit.id for hit in hits] for hits in index.search(rows[:50] + 0.1, 7)] == indices.tolist()


@pytest.mark.parametrize("soft", [True, False])
def test_shares_add_up_to_the_jaccard_similarity_highest_first(soft):
    generator = np.random.default_rng(0)
    labels = generator.random((40, 6)) if soft else generator.integers(0, 2, (40, 6))
    labels = np.where(labels > 0.3, labels, 0)
    index = SearchIndex()
    index.add(generator.random((40, 8)), labels=labels)
    queries = generator.random((5, 8))
    for query, hits in enumerate(index.search(queries, 40, labels=labels[:5])):
        for hit in hits:
            shares = list(hit.shared.values())
            similarity = jaccard(torch.tensor(labels[query : query + 1]).double(), labels[[hit.id]]).item()
            assert sum(shares) == pytest.approx(similarity, abs=1e-6)
            assert shares == sorted(shares, reverse=True)
            assert set(hit.shared) == {str(c) for c in range(6) if labels[query, c] > 0 and labels[hit.id, c] > 0}
            assert hit.labels == tuple(str(c) for c in range(6) if labels[hit.id, c] > 0)


def test_share_of_a_soft_label_is_the_smaller_value_divided_by_the_sum_of_the_larger():
    index = SearchIndex(label_names=NAMES)
    index.add([[0.0]], labels=[[0.25, 0.5, 0.0]])
    (hit,) = index.search([[0.0]], 1, labels=[[1.0, 0.25, 0.5]])[0]
    assert hit == Hit(0, 0.0, ("cat", "dog"), {"cat": 0.25 / 2, "dog": 0.25 / 2})
    assert list(index.search([[0.0]], 1, labels=[[0.25, 0.5, 1.0]])[0][0].shared) == ["dog", "cat"]


def test_rows_without_labels_share_nothing():
    index = SearchIndex(label_names=NAMES)
    index.add([[0.0], [1.0]], labels=[[], ["cat"]])
    assert [hit.shared for hit in index.search([[0.0]], 2, labels=[[]])[0]] == [{}, {}]
    assert index.search([[0.0]], 2)[0] == [Hit(0, 0.0, (), {}), Hit(1, 1.0, ("cat",), {})]


def test_index_without_labels_returns_ids_and_distances():
    index = SearchIndex()
    index.add([[0.0], [2.0]], ids=[7, "x"])
    assert index.search([[1.5]], 2) == [[Hit("x", 0.5, (), {}), Hit(7, 1.5, (), {})]]
    assert index.labels is None
    with pytest.raises(ValueError, match="`labels` must be None, because the rows of this index have no labels"):
        index.search([[1.5]], 1, labels=[[1]])


def test_k_above_the_size_of_the_index_raises():
    with pytest.raises(ValueError, match="`k` must be from 1 to 3 for 3 rows, got 4"):
        make_index().search([[0.0, 0.0]], 4)


def test_empty_index_raises(tmp_path):
    for call in (lambda i: i.search([[0.0]]), lambda i: i.save(tmp_path), lambda i: i.hits([[0.0]], [[0]])):
        with pytest.raises(ValueError, match="The index is empty: call `add` first"):
            call(SearchIndex())


def test_hits_of_an_approximate_search_skip_minus_1():
    index = make_index()
    hits = index.hits(torch.tensor([[0.5, 9.0], [9.0, 9.0]]), np.array([[2, -1], [-1, -1]]), labels=[["dog"], ["cat"]])
    assert hits == [[Hit("c", 0.5, ("dog",), {"dog": 1.0})], []]


@pytest.mark.parametrize(
    ("distances", "indices", "error", "message"),
    [
        ([[0.0]], [[0.0]], TypeError, "`indices` must be integers, got float64"),
        ([[0.0, 1.0]], [[0]], ValueError, r"the same shape \(Q, k\), got \(1, 2\) and \(1, 1\)"),
        ([0.0], [0], ValueError, r"the same shape \(Q, k\), got \(1,\) and \(1,\)"),
        ([[0.0]], [[3]], ValueError, "from 0 to 2, or -1 where nothing was found, got 3"),
        ([[0.0]], [[-2]], ValueError, "from 0 to 2, or -1 where nothing was found, got -2"),
    ],
)
def test_hits_of_invalid_results_raise(distances, indices, error, message):
    with pytest.raises(error, match=message):
        make_index().hits(distances, indices)


# Rows, ids and labels


@pytest.mark.parametrize(
    "convert",
    [np.asarray, torch.tensor, pd.DataFrame, lambda rows: torch.tensor(rows, dtype=torch.bfloat16, requires_grad=True)],
    ids=["array", "tensor", "frame", "bfloat16"],
)
def test_rows_and_labels_of_each_kind_are_accepted(convert):
    index = SearchIndex(label_names=NAMES)
    index.add(convert(ROWS), ids=pd.Series(["a", "b", "c"]), labels=convert(np.array(MATRIX, dtype=float).tolist()))
    expected = make_index()
    np.testing.assert_array_equal(index.embeddings, expected.embeddings)
    np.testing.assert_array_equal(index.labels, expected.labels)
    assert index.labels.dtype == np.uint8
    assert index.search(convert(ROWS), 2, labels=LABELS) == expected.search(ROWS, 2, labels=MATRIX)


@pytest.mark.parametrize(
    "names",
    [
        LABELS,
        [set(row) for row in LABELS],
        [dict.fromkeys(row, 0.9) for row in LABELS],
        tuple(LABELS),
        pd.Series(LABELS),
    ],
    ids=["lists", "sets", "dictionaries", "tuple", "column"],
)
def test_label_names_of_each_kind_are_accepted(names):
    index = SearchIndex(label_names=iter(NAMES))
    index.add(ROWS, labels=names)
    assert index.labels.tolist() == MATRIX


def test_ids_are_kept_as_strings_and_integers_and_default_to_row_numbers():
    index = SearchIndex()
    index.add(ROWS)
    index.add(ROWS, ids=np.array([10, 11, 12]))
    index.add(ROWS, ids=np.array(["a", "b", "3"]))
    index.add(ROWS[:1], ids=torch.tensor([3]))
    assert index.ids == [0, 1, 2, 10, 11, 12, "a", "b", "3", 3]
    assert {type(each) for each in index.ids} == {int, str}
    with pytest.raises(ValueError, match="unique, got 10 at row 0, which the index already contains"):
        index.add(ROWS)  # by default 10, 11 and 12


def test_changes_of_an_array_after_it_was_added_do_not_matter():
    rows, labels = np.zeros((2, 3), dtype=np.float32), np.zeros((2, 3), dtype=np.uint8)
    index = SearchIndex()
    index.add(rows, labels=labels)
    rows[:], labels[:] = 1, 1
    assert not index.embeddings.any()
    assert not index.labels.any()
    with pytest.raises(ValueError, match="read-only"):
        index.embeddings[0] = 1


def test_repr_shows_size_metric_and_labels():
    assert repr(SearchIndex(metric="cosine")) == 'SearchIndex(empty, metric="cosine")'
    assert repr(make_index()) == 'SearchIndex(3 rows of 2, metric="euclidean", 3 labels)'


INVALID = [
    ({"rows": "photo.jpg"}, TypeError, r"must be embeddings, a matrix of numbers .* got 'photo.jpg'\. An index with"),
    ({"rows": [[1.0], [1.0, 2.0]]}, ValueError, r"must be embeddings of shape \(n, D\): "),
    ({"rows": [1.0, 2.0]}, ValueError, r"got shape \(2,\)\. Pass one embedding as `embedding\[None\]`"),
    ({"rows": np.zeros((3, 0))}, ValueError, r"with D above 0, got shape \(3, 0\)"),
    ({"rows": np.zeros((3, 5))}, ValueError, "`rows` must have 2 columns like the index, got 5"),
    ({"rows": [[1.0, 2.0], [np.nan, 0.0]]}, ValueError, "finite in float32, got nan at row 1, column 0"),
    ({"rows": [[1.0, 1e39]]}, ValueError, r"finite in float32, got 1e\+39 at row 0, column 1"),
    ({"rows": np.zeros((0, 2)), "labels": np.zeros((0, 3))}, ValueError, "same length above 0, got 0 and 0"),
    ({"ids": ["x", "y"]}, ValueError, "`rows` and `ids` must have the same length above 0, got 3 and 2"),
    ({"ids": ["x", "b", "z"]}, ValueError, "unique, got 'b' at row 1, which the index already contains"),
    ({"ids": ["x", "y", "x"]}, ValueError, "unique, got 'x' at row 2, which an earlier row has too"),
    ({"ids": "xyz"}, TypeError, "an id for each row, got 'xyz'"),
    ({"ids": ["x", 1.5, "z"]}, TypeError, "strings or integers, got 1.5 at row 1"),
    ({"ids": ["x", True, "z"]}, TypeError, "strings or integers, got True at row 1"),
    ({"labels": None}, ValueError, "for all rows or for none: earlier rows have labels, got none"),
    ({"labels": MATRIX[:2]}, ValueError, r"for each of the 3 rows of `rows` .* got shape \(2, 3\)"),
    ({"labels": [[1, 0]] * 3}, ValueError, "3 columns, one for each of `label_names`, got 2"),
    ({"labels": [[2, 0, 0]] * 3}, ValueError, r"numbers in \[0, 1\], got 2"),
    ({"labels": [["cat"], ["cow"], []]}, ValueError, r"`labels\[1\]` contains 'cow', which is not one of"),
    ({"labels": ["cat", "dog", "dog"]}, TypeError, r"got the string 'cat': write \['cat'\] for a row with one label"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), INVALID)
def test_invalid_rows_raise_and_add_nothing(arguments, error, message):
    index = make_index()
    valid = {"rows": ROWS, "ids": ["x", "y", "z"], "labels": LABELS}
    if "rows" in arguments and "ids" not in arguments:
        valid["ids"] = None
    with pytest.raises(error, match=message):
        index.add(**valid | arguments)
    assert (len(index), len(index.embeddings), len(index.labels), index.ids) == (3, 3, 3, ["a", "b", "c"])
    index.add(ROWS, ids=["x", "y", "z"], labels=LABELS)


def test_paths_as_ids_raise_with_a_hint(tmp_path):
    with pytest.raises(TypeError, match=r"got PosixPath\(.* at row 0\. Convert paths with `str`"):
        SearchIndex().add([[1.0]], ids=[tmp_path])


def test_labels_for_some_rows_only_raise():
    index = SearchIndex()
    index.add(ROWS)
    with pytest.raises(ValueError, match="earlier rows have none, got some"):
        index.add(ROWS, labels=MATRIX)


def test_labels_of_another_width_or_without_names_raise():
    index = SearchIndex()
    index.add(ROWS, labels=MATRIX)
    with pytest.raises(ValueError, match="`labels` must have 3 columns like the index, got 2"):
        index.add(ROWS, labels=[[1, 0]] * 3)
    with pytest.raises(ValueError, match="contains names, and this index has none: pass `label_names`"):
        index.add(ROWS, labels=LABELS)
    with pytest.raises(ValueError, match=r"`labels` must have a row for each of the 2 rows of `queries`"):
        index.search(ROWS[:2], 1, labels=MATRIX)


def test_zero_row_with_cosine_raises():
    index = make_index(metric="cosine")
    for rows in ([[1.0, 0.0], [0.0, 0.0]], torch.zeros(2, 2)):
        with pytest.raises(ValueError, match=r'no zero row with `metric="cosine"`, got one at row [01]'):
            index.search(rows)
    with pytest.raises(ValueError, match="finite in float32, got inf at row 0, column 1"):
        index.search([[1.0, np.inf]])


def test_cosine_of_rows_of_any_length_is_exact_for_copies():
    index = SearchIndex(metric="cosine")
    direction = np.random.default_rng(0).normal(size=(1, 20))
    index.add(np.concatenate([direction * 1e-200, direction * 1e200, -direction]))
    distances, indices = index.kneighbors(direction, 3)
    assert indices.tolist() == [[0, 1, 2]]
    np.testing.assert_allclose(distances, [[0, 0, 2]], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(index.embeddings, axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"metric": "manhattan"}, ValueError, "`metric` must be 'euclidean' or 'cosine', got 'manhattan'"),
        ({"label_names": "cat"}, TypeError, "`label_names` must be a list of strings, got 'cat'"),
        ({"label_names": [1, 2]}, TypeError, r"`label_names` must be a list of strings, got \[1, 2\]"),
        ({"label_names": []}, ValueError, "at least one name, got none"),
        ({"label_names": ["cat", "dog", "cat"]}, ValueError, "must be different, got 'cat' more than once"),
    ],
)
def test_invalid_options_raise(arguments, error, message):
    with pytest.raises(error, match=message):
        SearchIndex(**arguments)


def test_values_without_order_are_errors():
    for ids in ({"a", "b"}, 5, "ab"):
        with pytest.raises(TypeError, match="`ids` must be a list with an id for each row, got "):
            SearchIndex().add([[0.0], [1.0]], ids=ids)
    for names in ({"a", "b"}, 5, "ab"):
        with pytest.raises(TypeError, match="`label_names` must be a list of strings, got "):
            SearchIndex(label_names=names)


def test_no_queries_have_no_hits():
    index = SearchIndex()
    index.add([[0.0], [1.0]])
    assert index.search(np.zeros((0, 1)), 2) == []
    assert [array.shape for array in index.kneighbors(np.zeros((0, 1)), 2)] == [(0, 2), (0, 2)]
    with pytest.raises(ValueError, match="`k` must be from 1 to 2 for 2 rows, got 3"):
        index.search(np.zeros((0, 1)), 3)
