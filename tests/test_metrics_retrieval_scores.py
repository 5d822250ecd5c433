"""Each retrieval metric compared with loops over queries and ranks, for each kind of ranking; `RetrievalMetrics`."""

import inspect
import math
import pickle
import re
import sys
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from pytorch_metric_learning.utils.inference import CustomKNN
from scipy import sparse

from mlmetric import metrics
from mlmetric.metrics import RetrievalMetrics, confidence_interval
from mlmetric.metrics._inputs import ResampleWeights
from mlmetric.metrics._retrieval import _evaluation, _ranking
from mlmetric.metrics._retrieval._ranking import stable_argsort
from mlmetric.similarity import Jaccard, inner_product, jaccard

# Distances from row 0: 1 to row 1, 1 to row 2, 2 to row 3.
EMBEDDINGS = torch.tensor([[0.0], [1.0], [-1.0], [2.0]])
LABELS = torch.tensor([[1, 1, 0], [0, 0, 1], [1, 0, 0], [1, 1, 0]])
THRESHOLD = 2
"""The relevance threshold of the tests that pass one."""


def _mean(values):
    return sum(values) / len(values) if values else math.nan


def _hits(order, relevant, k):
    return [rank for rank, row in enumerate(order[:k], start=1) if relevant[row]]


def _precision_sum(order, relevant, k):
    return sum(len(_hits(order, relevant, rank)) / rank for rank in _hits(order, relevant, k))


# Arguments: the ranked rows; the grade, relevance and number of labels of each row; k; R, the number of relevant rows.
LOOPS = {
    "acg": lambda order, grades, relevant, sizes, k, R: _mean([grades[j] for j in order[:k]]),
    "precision": lambda order, grades, relevant, sizes, k, R: len(_hits(order, relevant, k)) / min(k, len(order)),
    "hit_rate": lambda order, grades, relevant, sizes, k, R: float(bool(_hits(order, relevant, k))),
    "recall": lambda order, grades, relevant, sizes, k, R: len(_hits(order, relevant, k)) / R,
    "wmap": lambda order, grades, relevant, sizes, k, R: _mean(
        [_mean([grades[j] for j in order[:rank]]) for rank in _hits(order, relevant, k)] or [0.0]
    ),
    "map, min": lambda order, grades, relevant, sizes, k, R: _precision_sum(order, relevant, k) / min(R, k),
    "map, relevant": lambda order, grades, relevant, sizes, k, R: _precision_sum(order, relevant, k) / R,
    "map, hits": lambda order, grades, relevant, sizes, k, R: (
        _precision_sum(order, relevant, k) / max(1, len(_hits(order, relevant, k)))
    ),
    "map_at_r": lambda order, grades, relevant, sizes, k, R: _precision_sum(order, relevant, R) / R,
    "r_precision": lambda order, grades, relevant, sizes, k, R: len(_hits(order, relevant, R)) / R,
    "mrr": lambda order, grades, relevant, sizes, k, R: 1 / min(_hits(order, relevant, k), default=math.inf),
    "size_ratio": lambda order, grades, relevant, sizes, k, R: (
        _mean([sizes[j] for j in order[:k]]) / (_mean([sizes[j] for j in order]) or math.nan)
    ),
}
FUNCTIONS = {
    "acg": lambda *rows, k, **options: metrics.acg_at_k(*rows, k=k, **options),
    "precision": lambda *rows, k, **options: metrics.precision_at_k(*rows, k=k, **options),
    "hit_rate": lambda *rows, k, **options: metrics.hit_rate_at_k(*rows, k=k, **options),
    "recall": lambda *rows, k, **options: metrics.recall_at_k(*rows, k=k, **options),
    "wmap": lambda *rows, k, **options: metrics.wmap_at_k(*rows, k=k, **options),
    "map, min": lambda *rows, k, **options: metrics.map_at_k(*rows, k=k, **options),
    "map, relevant": lambda *rows, k, **options: metrics.map_at_k(*rows, k=k, denominator="relevant", **options),
    "map, hits": lambda *rows, k, **options: metrics.map_at_k(*rows, k=k, denominator="hits", **options),
    "map_at_r": lambda *rows, k, **options: metrics.map_at_r(*rows, **options),
    "r_precision": lambda *rows, k, **options: metrics.r_precision(*rows, **options),
    "mrr": lambda *rows, k, **options: metrics.mrr(*rows, k=k, **options),
    "size_ratio": lambda *rows, k, **options: metrics.size_ratio_at_k(*rows, k=k, **options),
}
ALL = [
    metrics.acg_at_k,
    metrics.hit_rate_at_k,
    metrics.map_at_k,
    metrics.map_at_r,
    metrics.mrr,
    metrics.ndcg_at_k,
    metrics.precision_at_k,
    metrics.r_precision,
    metrics.recall_at_k,
    metrics.size_ratio_at_k,
    metrics.wmap_at_k,
]


@st.composite
def searches(draw):
    """Draw embeddings on a small integer grid with many ties, labels, a database or None, and k, also too large."""
    dim, num_labels = draw(st.integers(1, 3)), draw(st.integers(1, 4))

    def side(min_rows):
        rows = draw(st.integers(min_rows, 8))
        embeddings = draw(hnp.arrays(np.int64, (rows, dim), elements=st.integers(-2, 2)))
        return embeddings, draw(hnp.arrays(np.int64, (rows, num_labels), elements=st.integers(0, 1)))

    separate = draw(st.booleans())
    query = side(1 if separate else 2)
    ref = side(1) if separate else (None, None)
    return query, ref, draw(st.integers(1, len(ref[0]) + 2 if separate else len(query[0]) + 1))


def _squares(query, ref):
    refs = query[0] if ref[0] is None else ref[0]
    return ((query[0][:, None] - refs[None]) ** 2).sum(axis=2)


def _orders(query, ref):
    """Return for each query the rows in order of distance, then index, without the query itself."""
    squares = _squares(query, ref)
    return [
        [j for j in sorted(range(len(row)), key=lambda j: (row[j], j)) if ref[0] is not None or j != i]
        for i, row in enumerate(squares)
    ]


def _expected(name, query, ref, k, lowest):
    ref_labels = query[1] if ref[0] is None else ref[1]
    values = []
    for labels, order in zip(query[1], _orders(query, ref), strict=True):
        grades = [int((labels & other).sum()) for other in ref_labels]
        relevant = [grade >= lowest for grade in grades]
        num_relevant = sum(relevant[j] for j in order)
        defined = num_relevant or name == "size_ratio"
        sizes = ref_labels.sum(axis=1)
        values.append(LOOPS[name](order, grades, relevant, sizes, k, num_relevant) if defined else math.nan)
    return values


def _forms(query, ref):
    """Yield the arguments for embeddings, distances and indices, each with its `metric`."""
    squares, orders = _squares(query, ref), np.array(_orders(query, ref))
    given_labels = (query[1], None, ref[1])
    yield (*query, *ref), "euclidean"
    for dtype in (np.float64, np.float32, np.int64):
        yield (squares.astype(dtype), *given_labels), "precomputed"
    yield (orders, *given_labels), "retrieved"
    if ref[0] is None:  # an index that returns the query itself first
        yield (np.c_[np.arange(len(orders)), orders], *given_labels), "retrieved"


@pytest.mark.parametrize("name", LOOPS)
@settings(max_examples=12, deadline=None)
@given(search=searches(), threshold=st.sampled_from([None, THRESHOLD]), max_pairs=st.sampled_from([1, 10, 2**21]))
@pytest.mark.slow
def test_metric_equals_loops_for_each_kind_of_ranking(name, search, threshold, max_pairs):
    query, ref, k = search
    expected = _expected(name, query, ref, k, 1 if threshold is None else threshold)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_evaluation, "MAX_PAIRS", max_pairs)
        for rows, metric in _forms(query, ref):
            options = {"k": k, "similarity": inner_product, "relevance_threshold": threshold, "metric": metric}
            actual = FUNCTIONS[name](*rows, average="none", **options)
            assert actual.dtype == torch.float64
            np.testing.assert_allclose(actual, expected, rtol=1e-12, err_msg=metric)
            mean = math.nan if np.isnan(expected).all() else np.nanmean(expected)
            np.testing.assert_allclose(FUNCTIONS[name](*rows, **options), mean, rtol=1e-12)


@settings(max_examples=25, deadline=None)
@given(search=searches())
def test_ranking_of_all_rows_begins_with_the_nearest_rows(search):
    query, ref, k = search
    refs = None if ref[0] is None else torch.from_numpy(ref[0]).double()
    ranking = _ranking.EmbeddingRanking(torch.from_numpy(query[0]).double(), refs)
    nearest = ranking.top(slice(0, len(query[0])), min(k, ranking.max_k))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_ranking, "MAX_SEARCH_K", 0)
        everything = ranking.top(slice(0, len(query[0])), ranking.max_k)
    np.testing.assert_array_equal(everything, _orders(query, ref))
    np.testing.assert_array_equal(nearest, everything[:, :k])


@pytest.mark.parametrize("name", LOOPS)
@settings(max_examples=25, deadline=None)
@given(search=searches(), data=st.data())
def test_metric_of_padded_indices_equals_loops(name, search, data):
    query, ref, k = search
    ref_labels = query[1] if ref[0] is None else ref[1]
    retrieved, expected = [], []
    for labels, order in zip(query[1], _orders(query, ref), strict=True):
        num_found = data.draw(st.integers(0, len(order)))
        retrieved.append(order[:num_found] + [-1] * (len(order) - num_found))
        # The last entry of these lists belongs to the padding, -1.
        grades = [*(int((labels & other).sum()) for other in ref_labels), 0]
        relevant = [grade > 0 for grade in grades]
        if name == "size_ratio":
            sizes = ref_labels.sum(axis=1)
            mean = _mean([sizes[j] for j in order])
            expected.append(_mean([sizes[j] for j in order[: min(k, num_found)]]) / mean if mean else math.nan)
        elif any(relevant[j] for j in order):
            num_relevant = sum(relevant[j] for j in order)
            expected.append(LOOPS[name](retrieved[-1], grades, relevant, None, k, num_relevant))
        else:
            expected.append(math.nan)
    rows = (np.array(retrieved), query[1], None, ref[1])
    options = {"k": k, "similarity": inner_product, "metric": "retrieved", "average": "none"}
    np.testing.assert_allclose(FUNCTIONS[name](*rows, **options), expected, rtol=1e-12)


def test_ndcg_counts_padding_as_grade_0():
    retrieved = torch.tensor([[2, -1], [0, 2], [-1, -1], [0, 2]], dtype=torch.int32)
    result = metrics.ndcg_at_k(retrieved, LABELS, k=2, metric="retrieved", gain="exponential", average="none")
    ideal = (2**1 - 1) / math.log2(2) + (2**0.5 - 1) / math.log2(3)  # of row 0: row 3 before row 2
    assert result[0].item() == pytest.approx((2**0.5 - 1) / ideal)
    assert result[1].isnan()
    assert result[2:].tolist() == [0, 1]


@pytest.mark.parametrize("name", [name for name in LOOPS if name != "size_ratio"])
def test_query_that_retrieved_nothing_has_0_where_it_is_defined(name):
    retrieved = np.full((4, 3), -1)
    values = FUNCTIONS[name](retrieved, LABELS, k=3, metric="retrieved", average="none")
    assert values[[0, 2, 3]].tolist() == [0, 0, 0]
    assert values[1].isnan()


def test_missing_rows_are_not_relevant_even_if_grade_0_is():
    options = {"k": 3, "metric": "retrieved", "relevance_threshold": 0, "average": "none"}
    retrieved = [[1, 2, 3], [0, 2, -1], [0, -1, -1], [-1, -1, -1]]
    assert metrics.precision_at_k(retrieved, LABELS, **options).tolist() == pytest.approx([1, 2 / 3, 1 / 3, 0])


def test_grade_equal_to_the_threshold_is_relevant_in_each_dtype():
    labels = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0]])  # grades 2/3, 1/3 and 1/2
    for dtype in (torch.bool, torch.float16, torch.float32, torch.float64):
        for graded in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
            options = {"similarity": lambda a, b, graded=graded: jaccard(a, b).to(graded), "average": "none"}
            for threshold, expected in ((2 / 3, [1, 1, torch.nan]), (1 / 3, [2, 2, 2]), (0.7, [torch.nan] * 3)):
                hits = 2 * metrics.precision_at_k(
                    torch.eye(3), labels.to(dtype), k=2, relevance_threshold=threshold, **options
                )
                np.testing.assert_array_equal(hits, expected)


def test_values_of_row_0_computed_by_hand():
    # In order: row 1 (grade 0), row 2 (1/2), row 3 (1); two of three are relevant.
    values = {
        "acg": (0 + 1 / 2 + 1) / 3,
        "precision": 2 / 3,
        "hit_rate": 1,
        "recall": 1,
        "wmap": ((0 + 1 / 2) / 2 + (0 + 1 / 2 + 1) / 3) / 2,
        "map, min": (1 / 2 + 2 / 3) / 2,
        "map, relevant": (1 / 2 + 2 / 3) / 2,
        "map, hits": (1 / 2 + 2 / 3) / 2,
        "map_at_r": (1 / 2) / 2,
        "r_precision": 1 / 2,
        "mrr": 1 / 2,
        "size_ratio": 1,
    }
    for name, expected in values.items():
        assert FUNCTIONS[name](EMBEDDINGS, LABELS, k=3, average="none")[0].item() == pytest.approx(expected), name
    at_2 = {"map, min": 1 / 4, "map, relevant": 1 / 4, "map, hits": 1 / 2, "recall": 1 / 2, "size_ratio": 1 / (4 / 3)}
    for name, expected in at_2.items():
        assert FUNCTIONS[name](EMBEDDINGS, LABELS, k=2, average="none")[0].item() == pytest.approx(expected), name


def test_three_denominators_of_map_at_k_differ():
    # Relevant: rows 0, 2 and 3 of four; retrieved first: 0, 1.
    rows = (torch.tensor([[0, 1, 2, 3]]), torch.tensor([[1]]), None, torch.tensor([[1], [0], [1], [1]]))
    results = {d: metrics.map_at_k(*rows, k=2, denominator=d, metric="retrieved").item() for d in ("min", "hits")}
    results["relevant"] = metrics.map_at_k(*rows, k=2, denominator="relevant", metric="retrieved").item()
    assert results == pytest.approx({"min": 1 / 2, "hits": 1, "relevant": 1 / 3})


def _calculator(k):
    search = CustomKNN(LpDistance(normalize_embeddings=False))
    names = ("precision_at_1", "r_precision", "mean_average_precision_at_r", "mean_average_precision")
    include = (*names, "mean_reciprocal_rank")
    return AccuracyCalculator(include=include, k=k, device=torch.device("cpu"), knn_func=search)


@pytest.mark.parametrize("separate", [True, False])
def test_single_labels_give_the_values_of_pytorch_metric_learning(separate):
    generator = torch.Generator().manual_seed(0)
    classes = torch.arange(60) % 5
    embeddings = torch.randn(60, 8, generator=generator) + classes[:, None]
    one_hot = torch.nn.functional.one_hot(classes)
    calculator = _calculator(k=40 if separate else 59)
    if separate:
        theirs = calculator.get_accuracy(embeddings[:20], classes[:20], embeddings[20:], classes[20:])
        rows = (embeddings[:20], one_hot[:20], embeddings[20:], one_hot[20:])
    else:
        theirs = calculator.get_accuracy(embeddings, classes, embeddings, classes, ref_includes_query=True)
        rows = (embeddings, one_hot)
    ours = {
        "precision_at_1": metrics.precision_at_k(*rows, k=1),
        "r_precision": metrics.r_precision(*rows),
        "mean_average_precision_at_r": metrics.map_at_r(*rows),
        "mean_average_precision": metrics.map_at_k(*rows, k=None),
        "mean_reciprocal_rank": metrics.mrr(*rows),
    }
    assert {name: value.item() for name, value in ours.items()} == pytest.approx({n: theirs[n] for n in ours}, abs=1e-6)


def test_pytorch_metric_learning_does_not_support_multi_hot_labels():
    calculator = _calculator(k=3)
    with pytest.raises(RuntimeError, match="size of tensor"):
        calculator.get_accuracy(EMBEDDINGS, LABELS, EMBEDDINGS, LABELS, ref_includes_query=True)
    assert metrics.precision_at_k(EMBEDDINGS, LABELS, k=1).item() == pytest.approx(1 / 3)


def test_relevant_rows_at_the_end_of_the_ranking_are_found():
    generator = torch.Generator().manual_seed(1)
    embeddings = torch.randn(400, 3, generator=generator)
    labels = torch.zeros(400, 1).index_fill(0, torch.tensor([5, 250, 399]), 1)
    squares = ((embeddings.double()[:, None] - embeddings.double()[None]) ** 2).sum(2).fill_diagonal_(math.inf)
    ranks = squares.argsort(dim=1).argsort(dim=1) + 1
    found = [sorted(ranks[i, j].item() for j in (5, 250, 399) if j != i) for i in (5, 250, 399)]
    expected = np.mean([(1 / first + 2 / second) / 2 for first, second in found])
    assert metrics.map_at_k(embeddings, labels, k=None).item() == pytest.approx(expected, rel=1e-12)
    assert metrics.mrr(embeddings, labels).item() == pytest.approx(np.mean([1 / first for first, _ in found]))


@pytest.mark.parametrize("function", ALL)
def test_duplicates_are_ranked_by_index(function):
    # 25 duplicates of each row, far from 0: a matrix product rounds the distances of duplicates differently.
    generator = torch.Generator().manual_seed(2)
    distinct = 1000 + torch.rand(8, 33, generator=generator)
    labels = torch.rand(200, 4, generator=generator) < 0.4
    rows = distinct[torch.arange(200) % 8]
    squares = ((rows.double()[:, None] - rows.double()[None]) ** 2).sum(2)
    queries = {"average": "none"} | ({} if function in (metrics.map_at_r, metrics.r_precision) else {"k": 150})
    expected = function(squares, labels, metric="precomputed", **queries)
    torch.testing.assert_close(function(rows, labels, **queries), expected, rtol=0, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("shift", [0.0, 2.0**19])
def test_shift_and_scale_of_all_rows_change_no_ranking(shift):
    generator = torch.Generator().manual_seed(3)
    embeddings = torch.randint(-8, 9, (150, 6), generator=generator).float() / 8
    labels = torch.rand(150, 4, generator=generator) < 0.3
    expected = metrics.map_at_k(embeddings, labels, k=None, average="none")
    for factor in (1.0, 2.0**30, 2.0**-30):
        moved = (embeddings + shift).double() * factor
        torch.testing.assert_close(
            metrics.map_at_k(moved, labels, k=None, average="none"), expected, rtol=0, atol=0, equal_nan=True
        )


@pytest.mark.parametrize("kind", ["outlier", "tight clusters", "huge", "tiny", "far from 0", "duplicates and a grid"])
def test_ranking_of_all_rows_is_that_of_exact_differences(kind):
    generator = torch.Generator().manual_seed(8)
    rows = torch.randn(240, 5, generator=generator, dtype=torch.float64)
    centres = rows[torch.arange(240) % 8]
    rows = {
        "outlier": torch.cat([rows[:1] * 1e8, rows[1:]]),
        "tight clusters": centres + 1e-7 * rows,
        "huge": rows * 1e200,
        "tiny": rows * 1e-200,
        "far from 0": 1e6 + rows * 1e-3,
        "duplicates and a grid": torch.cat([centres[:120], (rows[120:] * 2).round()]),
    }[kind]
    factor = {"huge": 1e200, "tiny": 1e-200}.get(kind, 1.0)
    differences = (rows[:, None] - rows[None]) / factor
    squares = (differences**2).sum(dim=2).fill_diagonal_(math.inf).numpy()
    expected = np.argsort(squares, axis=1, kind="stable")[:, :-1]
    ranking = _ranking.EmbeddingRanking(rows, None)
    np.testing.assert_array_equal(ranking.top(slice(0, 240), 239), expected)
    np.testing.assert_array_equal(ranking.top(slice(0, 240), 20), expected[:, :20])


def test_cosine_of_huge_and_tiny_rows():
    generator = torch.Generator().manual_seed(9)
    rows, labels = torch.randn(30, 4, generator=generator).double(), torch.rand(30, 3, generator=generator) < 0.4
    expected = metrics.map_at_k(rows, labels, k=None, metric="cosine")
    for factor in (1e200, 1e-200):
        torch.testing.assert_close(metrics.map_at_k(rows * factor, labels, k=None, metric="cosine"), expected)


def test_similarity_with_trainable_parameters_gives_no_gradient():
    relation = torch.eye(3, requires_grad=True)
    result = metrics.ndcg_at_k(EMBEDDINGS, LABELS, k=2, similarity=lambda a, b: a.float() @ relation @ b.float().T)
    assert not result.requires_grad
    assert result == metrics.ndcg_at_k(EMBEDDINGS, LABELS, k=2, similarity=inner_product)


def test_similarity_may_return_an_array():
    result = metrics.ndcg_at_k(EMBEDDINGS, LABELS, k=2, similarity=lambda a, b: a.numpy() @ b.numpy().T)
    assert result == metrics.ndcg_at_k(EMBEDDINGS, LABELS, k=2, similarity=inner_product)


def test_distance_of_a_query_to_itself_may_be_nan():
    distances = torch.cdist(EMBEDDINGS, EMBEDDINGS)
    expected = metrics.mrr(distances, LABELS, metric="precomputed")
    assert metrics.mrr(distances.fill_diagonal_(torch.nan), LABELS, metric="precomputed") == expected


def test_unsigned_indices_and_labels_are_supported():
    retrieved, labels = np.array([[1], [0], [0], [0]], dtype=np.uint16), LABELS.numpy().astype(np.uint32)
    result = metrics.precision_at_k(retrieved, labels, k=1, metric="retrieved", average="none")
    np.testing.assert_array_equal(result, [0, np.nan, 1, 1])


def test_query_that_retrieved_itself_is_excluded():
    found = metrics.precision_at_k([[0, 1], [2, 0], [1, 0]], torch.ones(3, 1), k=1, metric="retrieved")
    assert found == 1


def test_equal_rows_are_ranked_by_index():
    labels = torch.tensor([[1], [0], [1], [1]])
    result = metrics.map_at_k(torch.full((4, 3), 0.1), labels, k=None, average="none")
    # Rankings: 1, 2, 3 of row 0; 0, 1, 3 of row 2; 0, 1, 2 of row 3.
    expected = [(1 / 2 + 2 / 3) / 2, math.nan, (1 / 1 + 2 / 3) / 2, (1 / 1 + 2 / 3) / 2]
    np.testing.assert_allclose(result, expected)


def test_cosine_ranks_all_rows_by_angle():
    refs = torch.tensor([[0.0, 1.0], [100.0, 1.0], [1.0, 1.0]])
    rows = (torch.tensor([[3.0, 0.0]]), torch.tensor([[1]]), refs, torch.tensor([[1], [0], [0]]))
    assert metrics.mrr(*rows, metric="cosine").item() == pytest.approx(1 / 3)
    assert metrics.mrr(*rows).item() == pytest.approx(1 / 2)


@settings(max_examples=40, deadline=None)
@given(
    values=hnp.arrays(np.float64, (2, 9), elements=st.floats(allow_nan=False) | st.sampled_from([0.0, -0.0, 1.0]))
    | hnp.arrays(np.float32, (2, 9), elements=st.floats(width=32, allow_nan=False) | st.sampled_from([0.0, -0.0]))
)
def test_stable_argsort_is_ascending_and_stable(values):
    expected = np.argsort(values, axis=1, kind="stable")
    for min_size in (0, 2**16):  # several threads, and one
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_ranking, "MIN_SIZE_FOR_THREADS", min_size)
            np.testing.assert_array_equal(stable_argsort(torch.from_numpy(values)), expected)


def test_stable_argsort_puts_nan_last():
    values = torch.tensor([[torch.nan, torch.inf, 0.0, torch.inf]])
    for dtype in (torch.float32, torch.float64):
        assert stable_argsort(values.to(dtype)).tolist() == [[2, 1, 3, 0]]


@pytest.mark.parametrize("function", ALL)
def test_sample_weight_weights_queries_in_the_mean(function):
    generator = torch.Generator().manual_seed(4)
    rows = (torch.randn(30, 3, generator=generator), torch.rand(30, 4, generator=generator) < 0.3)
    weights = torch.rand(3, 30, generator=generator, dtype=torch.float64)
    each = function(*rows, average="none")
    defined = ~each.isnan()
    expected = (weights[:, defined] * each[defined]).sum(1) / weights[:, defined].sum(1)
    torch.testing.assert_close(function(*rows, sample_weight=ResampleWeights(weights)), expected)
    torch.testing.assert_close(function(*rows, sample_weight=weights[1]), expected[1])


def test_interval_resamples_queries_only():
    generator = torch.Generator().manual_seed(5)
    rows = (torch.randn(40, 3, generator=generator), torch.rand(40, 4, generator=generator) < 0.4)
    each = metrics.ndcg_at_k(*rows, average="none")
    value, low, high = confidence_interval(
        metrics.ndcg_at_k, *rows, n_resamples=300, generator=torch.Generator().manual_seed(0)
    )
    _, expected_low, expected_high = confidence_interval(
        torch.nanmean, each, n_resamples=300, generator=torch.Generator().manual_seed(0)
    )
    assert value.item() == pytest.approx(each.nanmean().item())
    assert (low.item(), high.item()) == pytest.approx((expected_low.item(), expected_high.item()))
    assert low < value < high


def _values(metric):
    return {name: value.item() for name, value in metric.compute().items()}


KINDS = {
    "tensor": torch.from_numpy,
    "array": np.asarray,
    "list": lambda labels: labels.tolist(),
    "sparse matrix": sparse.csr_matrix,
    "sparse array": sparse.coo_array,
    "data frame": pd.DataFrame,
    "nullable data frame": lambda labels: pd.DataFrame(labels).astype("Int64"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("function", ALL)
def test_labels_of_each_kind_give_the_same_value(function, kind):
    labels, ref_labels = (KINDS[kind](part) for part in (LABELS.numpy(), LABELS.numpy()[1:]))
    for refs, expected_refs in (((), ()), ((EMBEDDINGS[1:], ref_labels), (EMBEDDINGS[1:], LABELS[1:]))):
        assert function(EMBEDDINGS, labels, *refs) == function(EMBEDDINGS, LABELS, *expected_refs)


@pytest.mark.parametrize("kind", KINDS)
def test_retrieval_metrics_read_labels_of_each_kind(kind):
    table, expected = RetrievalMetrics(), RetrievalMetrics()
    table.update(EMBEDDINGS, KINDS[kind](LABELS.numpy()))
    table.update_ref(EMBEDDINGS, KINDS[kind](LABELS.numpy()))
    expected.update(EMBEDDINGS, LABELS)
    expected.update_ref(EMBEDDINGS, LABELS)
    assert _values(table) == _values(expected)


@pytest.mark.parametrize("function", ALL)
def test_lists_of_label_names_raise(function):
    with pytest.raises(TypeError, match=r"`labels` must .*MultiLabelBinarizer"):
        function([[0.0], [1.0]], [["a", "b"], ["c"]])


@pytest.mark.parametrize("function", ALL)
def test_docstring_describes_each_parameter(function):
    for name in inspect.signature(function).parameters:
        assert re.search(rf"^    {name}: \S", inspect.getdoc(function), re.MULTILINE), name


def test_indices_that_end_before_k_raise():
    indices, labels = [[1, 2], [0, 2], [0, 1], [0, 1]], torch.ones(4, 1)
    message = r"at least 3 indices for each query with `metric=\"retrieved\"` and `k=10`, .* got 2"
    with pytest.raises(ValueError, match=message):
        metrics.precision_at_k(indices, labels, k=10, metric="retrieved")
    padded = np.pad(indices, ((0, 0), (0, 8)), constant_values=-1)
    for k in (3, 10, None):
        assert metrics.precision_at_k(padded, labels, k=k, metric="retrieved").item() == pytest.approx(2 / 3)
        assert metrics.ndcg_at_k(padded, labels, k=k, metric="retrieved") < 1


# RetrievalMetrics


@pytest.fixture
def rows():
    generator = torch.Generator().manual_seed(6)
    labels = (torch.rand(60, 5, generator=generator) < 0.25).float()
    return torch.randn(60, 4, generator=generator) + labels[:, :4], labels


@pytest.mark.parametrize("separate", [True, False])
def test_retrieval_metrics_equal_the_functions_in_any_batches(rows, separate):
    embeddings, labels = rows
    given = (embeddings[:25], labels[:25], embeddings[25:], labels[25:]) if separate else rows
    options = {"similarity": inner_product, "relevance_threshold": 1.0}
    table = RetrievalMetrics(k=(1, 10), **options)
    for part in (slice(0, 0), slice(0, 10), slice(10, 25 if separate else 60)):
        table.update(given[0][part], given[1][part])
    if separate:
        table.update_ref(embeddings[25:30], labels[25:30])
        table.update_ref(embeddings[30:], labels[30:])
    expected = {
        f"{name}_at_{k}": getattr(metrics, f"{name}_at_k")(*given, k=k, **options).item()
        for name in ("ndcg", "acg", "size_ratio", "precision", "recall", "hit_rate", "wmap", "map")
        for k in (1, 10)
    }
    expected["map"] = metrics.map_at_k(*given, k=None, **options).item()
    for name in ("map_at_r", "r_precision", "mrr"):
        expected[name] = getattr(metrics, name)(*given, **options).item()
    expected["queries_without_relevant"] = int(metrics.mrr(*given, average="none", **options).isnan().sum())
    assert expected["queries_without_relevant"] > 0
    assert _values(table) == pytest.approx(expected, rel=1e-12)
    first = RetrievalMetrics(k=(1, 10), full_ranking=False, **options)
    first.update(*given[:2])
    if separate:
        first.update_ref(*given[2:])
    expected = {
        name: value for name, value in expected.items() if "_at_1" in name or name == "queries_without_relevant"
    }
    assert _values(first) == pytest.approx(expected, rel=1e-12)


def test_forward_returns_the_values_of_the_batch_and_stores_it(rows):
    embeddings, labels = rows
    table = RetrievalMetrics(k=3)
    batch = table(embeddings[:20], labels[:20])
    assert batch["map"].item() == metrics.map_at_k(embeddings[:20], labels[:20], k=None).item()
    table(embeddings[20:], labels[20:])
    assert table.compute()["map"].item() == metrics.map_at_k(*rows, k=None).item()
    table.reset()
    table.update(embeddings[:20], labels[:20])
    assert table.compute()["map"] == batch["map"]


def test_forward_uses_the_database(rows):
    embeddings, labels = rows
    table = RetrievalMetrics(k=3)
    table.update_ref(embeddings[20:], labels[20:])
    batch = table(embeddings[:20], labels[:20])
    expected = metrics.map_at_k(embeddings[:20], labels[:20], embeddings[20:], labels[20:], k=None)
    assert batch["map"] == expected
    assert table.compute()["map"] == expected


def test_retrieval_metrics_copy_their_rows_and_can_be_pickled(rows):
    embeddings, labels = (part.clone() for part in rows)
    table = RetrievalMetrics(k=3)
    table.update(embeddings, labels)
    expected = _values(table)
    embeddings.zero_()
    labels.zero_()
    assert _values(pickle.loads(pickle.dumps(table))) == expected


def test_retrieval_metrics_work_without_torchmetrics_and_in_a_collection(rows, monkeypatch):
    collections = pytest.importorskip("torchmetrics")
    collection = collections.MetricCollection({"search": RetrievalMetrics(k=3)})
    collection.update(embeddings=rows[0], labels=rows[1])
    inside = collection.compute()["map"]
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    alone = RetrievalMetrics(k=3)
    assert type(alone) is RetrievalMetrics
    alone.update(*rows)
    assert alone.compute()["map"] == inside


def test_retrieval_metrics_with_invalid_arguments_raise(rows):
    with pytest.raises(ValueError, match=r"`k` must be at least 1, got 0"):
        RetrievalMetrics(k=(3, 0))
    assert RetrievalMetrics(k=np.int64(3)).k == (3,)
    with pytest.raises(ValueError, match=r"`metric` must be one of 'euclidean', 'cosine', got 'retrieved'"):
        RetrievalMetrics(metric="retrieved")
    table = RetrievalMetrics(k=3)
    with pytest.raises(ValueError, match=r"shapes \(N, D\) and \(N, L\), got \(60, 4\) and \(59, 5\)"):
        table.update(rows[0], rows[1][1:])
    table.update(*rows)
    with pytest.raises(ValueError, match=r"`embeddings` must have 4 columns of .*, got 3 of torch\.float32"):
        table.update_ref(rows[0][:, 1:], rows[1])


@pytest.mark.parametrize("separate", [True, False])
def test_retrieval_metrics_clip_k_and_keep_its_key(rows, separate):
    embeddings, labels = rows[0][:6], rows[1][:6]
    given = (embeddings[:3], labels[:3], embeddings[3:], labels[3:]) if separate else (embeddings[:4], labels[:4])
    for full_ranking in (True, False):
        table = RetrievalMetrics(k=(2, 10), full_ranking=full_ranking)
        table.update(*given[:2])
        if separate:
            table.update_ref(*given[2:])
        values = _values(table)
        for name in ("ndcg", "precision", "wmap", "map", "size_ratio"):
            for k in (2, 10):
                expected = getattr(metrics, f"{name}_at_k")(*given, k=min(k, 3)).item()
                assert values[f"{name}_at_{k}"] == pytest.approx(expected, rel=1e-12, nan_ok=True)


@pytest.mark.parametrize("k", [(), []])
def test_retrieval_metrics_without_k_raise(k):
    with pytest.raises(ValueError, match="`k` must contain at least one number, got none"):
        RetrievalMetrics(k=k)


def test_repr_of_retrieval_metrics_shows_the_arguments():
    expected = (
        "RetrievalMetrics(k=(1, 10), full_ranking=True, similarity=jaccard, relevance_threshold=None, "
        "metric='cosine', zero_division=nan, device=None, sync_on_compute=True, streamed=False)"
    )
    assert repr(RetrievalMetrics(k=(1, 10), metric="cosine")) == expected


def test_retrieval_metrics_without_queries_raise():
    with pytest.raises(ValueError, match="`RetrievalMetrics` has no queries yet: call `update` first"):
        RetrievalMetrics().compute()


@pytest.mark.parametrize("function", [*ALL, RetrievalMetrics])
def test_default_similarity_is_none_for_jaccard(function, rows):
    assert inspect.signature(function).parameters["similarity"].default is None
    assert re.search(r"None uses\s+\[`jaccard`\]", inspect.getdoc(function))
    if function is not RetrievalMetrics:
        expected = function(*rows, similarity=jaccard, average="none")
        torch.testing.assert_close(function(*rows, average="none"), expected, rtol=0, atol=0, equal_nan=True)


def test_size_ratio_does_not_depend_on_similarity_and_ignores_padding():
    retrieved = torch.tensor([[1, 2, -1], [0, -1, -1], [3, -1, -1], [-1, -1, -1]])
    function = partial(metrics.size_ratio_at_k, retrieved, LABELS, metric="retrieved", k=3, average="none")
    expected = torch.tensor([1 / (4 / 3), 2 / (5 / 3), 2 / (5 / 3), math.nan], dtype=torch.float64)
    for options in ({}, {"similarity": inner_product, "relevance_threshold": 2}):
        torch.testing.assert_close(function(**options), expected, equal_nan=True)
    assert "grade 0" not in metrics.size_ratio_at_k.__doc__


# Invalid arguments


@pytest.mark.parametrize("function", ALL)
@pytest.mark.parametrize(
    ("embeddings", "metric"),
    [
        (torch.zeros(0, 2), "euclidean"),
        (torch.zeros(0, 0), "precomputed"),
        (torch.zeros(0, 3, dtype=torch.int64), "retrieved"),
        (torch.tensor([[-1]]), "retrieved"),
    ],
)
def test_empty_database_raises(function, embeddings, metric):
    with pytest.raises(ValueError, match="database must contain at least one row that a query can retrieve, got none"):
        function(embeddings, torch.ones(len(embeddings), 2), metric=metric)


PRECOMPUTED = {"embeddings": [[0.0, 1.0], [1.0, 0.0]], "metric": "precomputed"}
RETRIEVED = {"embeddings": [[1], [0]], "metric": "retrieved"}


@pytest.mark.parametrize("function", ALL)
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (PRECOMPUTED | {"ref_emb": [[1.0]]}, ValueError, r"`ref_emb` must be None .*\"precomputed\""),
        (PRECOMPUTED | {"ref_labels": [[1]]}, ValueError, r"distances to all 1 rows .* got shape \(2, 2\)"),
        (
            PRECOMPUTED | {"embeddings": [[np.nan, np.nan], [0.0, 0.0]]},
            ValueError,
            r"must contain distances, got NaN from query 0 to row 1",
        ),
        (RETRIEVED | {"embeddings": [[1.0], [0.0]]}, TypeError, r"must contain integer indices .* got torch\.float64"),
        (RETRIEVED | {"embeddings": [[1], [2]]}, ValueError, r"from 0 to 1 .* got 2 for query 1"),
        (RETRIEVED | {"embeddings": [[1], [-2]]}, ValueError, r"from 0 to 1 .* got -2 for query 1"),
        (
            RETRIEVED | {"embeddings": [[1, -1], [-1, 0]]},
            ValueError,
            r"-1, the padding, at the end of a row only, got \[-1, 0\] for query 1",
        ),
        (
            RETRIEVED | {"embeddings": [[0, 1], [1, 1]]},
            ValueError,
            r"each index at most once .* got a repeated index for query 1",
        ),
        (
            {"sample_weight": [1.0, 1.0], "average": "none"},
            ValueError,
            r"`sample_weight` requires `average=\"mean\"`, got \"none\"",
        ),
        ({"embeddings": np.zeros((2, 0))}, ValueError, r"`embeddings` must have at least one column"),
        (
            {"embeddings": [[1.0]], "labels": [[1]]},
            ValueError,
            r"database must contain at least one row that .*, got none",
        ),
        ({"sample_weight": [1.0]}, ValueError, r"`sample_weight` must have shape \(2,\), .* got \(1,\)"),
        ({"sample_weight": [1.0, -1.0]}, ValueError, r"`sample_weight` must contain finite numbers >= 0, got -1"),
    ],
)
def test_invalid_argument_raises(function, arguments, error, message):
    valid = {"embeddings": [[1.0], [0.0]], "labels": [[1], [1]]}
    k = {} if function in (metrics.map_at_r, metrics.r_precision) else {"k": 1}
    with pytest.raises(error, match=message):
        function(**valid | k | arguments)


@pytest.mark.parametrize("function", [metrics.map_at_r, metrics.r_precision])
def test_fewer_indices_than_relevant_rows_raise(function):
    labels = torch.ones(4, 1)
    with pytest.raises(
        ValueError, match=r"at least as many indices for each query as there are relevant rows, 3, got 2"
    ):
        function([[1, 2], [0, 2], [0, 1], [0, 1]], labels, metric="retrieved")
    assert function([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]], labels, metric="retrieved") == 1


def test_unknown_denominator_raises():
    with pytest.raises(ValueError, match=r"`denominator` must be one of 'min', 'hits', 'relevant', got 'k'"):
        metrics.map_at_k(EMBEDDINGS, LABELS, k=1, denominator="k")


@pytest.mark.parametrize("function", ALL)
def test_result_is_on_the_device_of_the_queries(function, device):
    generator = torch.Generator().manual_seed(7)
    embeddings, labels = torch.randn(300, 16, generator=generator), torch.rand(300, 5, generator=generator) < 0.3
    expected = function(embeddings, labels)
    result = function(embeddings.to(device), labels)
    assert result.device == device
    torch.testing.assert_close(result.cpu(), expected, rtol=0, atol=1e-12)
    distances = torch.cdist(embeddings.double(), embeddings.double())
    result = function(distances.to(device), labels, metric="precomputed")
    torch.testing.assert_close(result.cpu(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("zero_division", [math.nan, 0.0])
def test_report_has_the_values_and_intervals_of_the_functions(rows, zero_division):
    embeddings, labels = rows
    table = RetrievalMetrics(k=(1, 200), zero_division=zero_division)
    table.update(embeddings[:25], labels[:25])
    table.update_ref(embeddings[25:], labels[25:])
    report = table.report(n_resamples=200, confidence_level=0.9, generator=torch.Generator().manual_seed(1))
    values = _values(table)
    num_undefined = int(values.pop("queries_without_relevant"))
    assert num_undefined > 0
    assert report.values == pytest.approx(values)
    refs = {"ref_emb": embeddings[25:], "ref_labels": labels[25:], "zero_division": zero_division}
    for key, function in (
        ("ndcg_at_1", partial(metrics.ndcg_at_k, k=1)),
        ("precision_at_200", partial(metrics.precision_at_k, k=200)),
        ("size_ratio_at_1", partial(metrics.size_ratio_at_k, k=1)),
        ("mrr", metrics.mrr),
        ("map", partial(metrics.map_at_k, k=None)),
    ):
        interval = confidence_interval(
            partial(function, **refs),
            embeddings[:25],
            labels[:25],
            n_resamples=200,
            confidence_level=0.9,
            generator=torch.Generator().manual_seed(1),
        )
        assert report.intervals[key] == pytest.approx((interval.low.item(), interval.high.item()), rel=1e-12)
        defined = 25 - num_undefined if math.isnan(zero_division) and key != "size_ratio_at_1" else 25
        assert report.num_averaged[key] == (defined, 25)
    text = str(report)
    assert "90 % interval" in text
    assert re.search(rf"^\| NDCG@1 +\| +{values['ndcg_at_1']:.3f} \| .* to .* \| +\d+ of 25 \|$", text, re.MULTILINE)
    assert re.search(r"^\| MAP@R +\|", text, re.MULTILINE)


def test_report_without_intervals(rows):
    table = RetrievalMetrics(k=3, full_ranking=False)
    table.update(*rows)
    report = table.report(confidence_level=None)
    assert report.intervals is None
    assert "interval" not in str(report)
    assert list(report.values) == [key for key in table.compute() if key != "queries_without_relevant"]
    with pytest.raises(ValueError, match="`n_resamples` must be at least 1, got 0"):
        table.report(n_resamples=0)


@pytest.mark.parametrize(
    ("similarity", "message"),
    [
        (3, "`similarity` must be callable, got int"),
        (Jaccard, r"must be an instance, got the class: write `Jaccard\(\)`"),
    ],
    ids=["number", "class"],
)
def test_similarity_that_cannot_be_called_on_labels_is_an_error(similarity, message):
    with pytest.raises(TypeError, match=message):
        RetrievalMetrics(similarity=similarity)
