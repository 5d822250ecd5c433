"""NDCG and precision compared with loops over queries and rows, on embeddings whose distances are exact."""

import math

import numpy as np
import pytest
import sklearn.metrics as sk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mlmetric.metrics import ndcg_at_k, precision_at_k
from mlmetric.similarity import Hamming, SoftCosine, inner_product, jaccard

GAINS = {"linear": lambda grade: grade, "exponential": lambda grade: 2**grade - 1}

# Distances from row 0: 1 to row 1, 1 to row 2, 2 to row 3.
EMBEDDINGS = torch.tensor([[0.0], [1.0], [-1.0], [2.0]])
LABELS = torch.tensor([[1, 1, 0], [0, 0, 1], [1, 0, 0], [1, 1, 0]])


def _by_index(labels, ref_labels):
    """Return the value of the only label of each row as its grade."""
    return ref_labels.T.expand(len(labels), -1)


def _num_shared(a, b):
    return sum(x and y for x, y in zip(a, b, strict=True))


def _order(query, refs, excluded):
    """Return row indices in order of distance, then index; the coordinates are integers, so nothing is rounded."""
    distance = {j: sum((a - b) ** 2 for a, b in zip(query, ref, strict=True)) for j, ref in enumerate(refs)}
    return [j for j in sorted(distance, key=lambda j: (distance[j], j)) if j != excluded]


def _ndcg(order, grades, k, gain):
    def dcg(sequence):
        return sum(GAINS[gain](grade) / math.log2(rank + 1) for rank, grade in enumerate(sequence[:k], start=1))

    ideal = dcg(sorted((grades[j] for j in order), reverse=True))
    return dcg([grades[j] for j in order]) / ideal if ideal else math.nan


def _precision(order, grades, k, relevant):
    if not any(relevant(grades[j]) for j in order):
        return math.nan
    return sum(relevant(grades[j]) for j in order[:k]) / min(k, len(order))


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
    k = draw(st.integers(1, len(ref[0]) + 2 if separate else len(query[0]) + 1))
    return query, ref, k


def _expected(query, ref, score):
    refs, ref_labels = query if ref[0] is None else ref
    expected = []
    for i, (embedding, labels) in enumerate(zip(*query, strict=True)):
        order = _order(embedding.tolist(), refs.tolist(), i if ref[0] is None else None)
        expected.append(score(order, [_num_shared(labels, other) for other in ref_labels]))
    return expected


@pytest.mark.parametrize("gain", GAINS)
@settings(max_examples=50, deadline=None)
@given(search=searches())
def test_ndcg_equals_loops(gain, search):
    query, ref, k = search
    expected = _expected(query, ref, lambda order, grades: _ndcg(order, grades, k, gain))
    actual = ndcg_at_k(*query, *ref, k=k, gain=gain, similarity=inner_product, average="none")
    assert actual.dtype == torch.float64
    np.testing.assert_allclose(actual, expected, rtol=1e-12)


@pytest.mark.parametrize("threshold", [None, 1, 2])
@settings(max_examples=50, deadline=None)
@given(search=searches())
@pytest.mark.slow
def test_precision_equals_loops(threshold, search):
    query, ref, k = search
    lowest = 1 if threshold is None else threshold
    expected = _expected(query, ref, lambda order, grades: _precision(order, grades, k, lambda r: r >= lowest))
    settings_ = {"k": k, "similarity": inner_product, "relevance_threshold": threshold}
    np.testing.assert_allclose(precision_at_k(*query, *ref, average="none", **settings_), expected, rtol=1e-12)
    mean = math.nan if np.isnan(expected).all() else np.nanmean(expected)
    np.testing.assert_allclose(precision_at_k(*query, *ref, **settings_), mean, rtol=1e-12)
    np.testing.assert_allclose(
        precision_at_k(*query, *ref, zero_division=0, **settings_), np.nan_to_num(expected).mean(), rtol=1e-12
    )


def test_ndcg_equals_scikit_learn_without_ties():
    generator = torch.Generator().manual_seed(0)
    queries, refs = torch.randn(12, 5, generator=generator), torch.randn(30, 5, generator=generator)
    labels, ref_labels = (torch.rand(rows, 4, generator=generator) < 0.4 for rows in (12, 30))
    grades, distances = jaccard(labels, ref_labels).double(), torch.cdist(queries, refs)
    assert (grades.sum(1) > 0).all(), "scikit-learn counts queries without relevant rows as 0"
    for k in (1, 7, 30):
        expected = sk.ndcg_score(grades, -distances, k=k, ignore_ties=True)
        assert ndcg_at_k(queries, labels, refs, ref_labels, k=k).item() == pytest.approx(expected, rel=1e-12)


def test_values_of_row_0_computed_by_hand():
    # In order: row 1 (grade 0), row 2 (1/2), row 3 (1).
    third, half = 1 / math.log2(3), 1 / 2
    assert ndcg_at_k(EMBEDDINGS, LABELS, k=1, average="none")[0] == 0
    linear = (0.5 * third + 1 * half) / (1 + 0.5 * third)
    assert ndcg_at_k(EMBEDDINGS, LABELS, k=3, average="none")[0].item() == pytest.approx(linear, abs=1e-12)
    root = math.sqrt(2) - 1
    exponential = (root * third + 1 * half) / (1 + root * third)
    result = ndcg_at_k(EMBEDDINGS, LABELS, k=3, gain="exponential", average="none")[0]
    assert result.item() == pytest.approx(exponential, abs=1e-12)
    assert precision_at_k(EMBEDDINGS, LABELS, k=2, average="none")[0] == 1 / 2
    assert precision_at_k(EMBEDDINGS, LABELS, k=3, relevance_threshold=1, average="none")[0].item() == pytest.approx(
        1 / 3
    )


def test_ideal_dcg_is_that_of_the_whole_database():
    # The only relevant row is ranked last, outside the first two.
    labels = torch.tensor([[1], [0], [0], [1]])
    assert ndcg_at_k(EMBEDDINGS, labels, k=2, average="none")[0] == 0


def test_query_without_relevant_rows_is_excluded_from_the_mean_and_nan_per_query():
    for function in (ndcg_at_k, precision_at_k):
        per_query = function(EMBEDDINGS, LABELS, k=2, average="none")
        assert per_query.isnan().tolist() == [False, True, False, False]
        assert function(EMBEDDINGS, LABELS, k=2).item() == pytest.approx(per_query[[0, 2, 3]].mean().item())
        assert function(EMBEDDINGS, LABELS, k=2, zero_division=0).item() == pytest.approx(per_query.nansum().item() / 4)
        assert function(EMBEDDINGS, LABELS, k=2, zero_division=1, average="none")[1] == 1


def test_query_is_excluded_by_index_and_its_duplicates_are_not():
    # All distances are 0: every query retrieves the row of lowest index that is not itself.
    grades = torch.tensor([[0.2], [0.6], [1.0]])
    result = ndcg_at_k(torch.zeros(3, 2), grades, k=1, similarity=_by_index, average="none")
    assert result.tolist() == pytest.approx([0.6 / 1.0, 0.2 / 1.0, 0.2 / 0.6])


def test_query_that_is_also_in_a_given_database_is_retrieved():
    result = precision_at_k(EMBEDDINGS, LABELS, EMBEDDINGS, LABELS, k=1, relevance_threshold=1)
    assert result == 1


@pytest.mark.parametrize("k", [1, 5, 40, 119])
def test_rows_at_the_same_distance_are_ranked_by_index(k):
    generator = torch.Generator().manual_seed(3)
    distinct = torch.randn(40, 33, generator=generator)
    sources = torch.arange(120) % 40
    query = torch.randn(1, 33, generator=generator)
    distance = (distinct.double() - query.double()).square().sum(1)
    order = sorted(range(120), key=lambda j: (distance[sources[j]].item(), j))
    grades = torch.rand(120, 1, generator=generator, dtype=torch.float64)
    actual = ndcg_at_k(query, torch.ones(1, 1), distinct[sources], grades, k=k, similarity=_by_index)
    assert actual.item() == pytest.approx(_ndcg(order, grades[:, 0].tolist(), k, "linear"), rel=1e-12)


@pytest.mark.parametrize("function", [ndcg_at_k, precision_at_k])
def test_shift_of_embeddings_changes_nothing(function):
    generator = torch.Generator().manual_seed(4)
    embeddings = torch.randint(-8, 9, (60, 6), generator=generator).double() / 8
    labels = torch.rand(60, 4, generator=generator) < 0.3
    for dtype, shift in ((torch.float32, 2.0**19), (torch.float64, 2.0**40)):
        shifted = (embeddings + shift).to(dtype)
        assert torch.equal(shifted.double() - shift, embeddings), "the dtype represents the shifted numbers exactly"
        assert function(shifted, labels) == function(embeddings, labels)


@pytest.mark.parametrize("function", [ndcg_at_k, precision_at_k])
def test_dtype_and_kind_of_inputs_change_nothing(function):
    expected = function(EMBEDDINGS, LABELS, k=2)
    for embeddings in (
        EMBEDDINGS.half(),
        EMBEDDINGS.bfloat16(),
        EMBEDDINGS.double(),
        EMBEDDINGS.int(),
        EMBEDDINGS.tolist(),
    ):
        assert function(embeddings, LABELS, k=2) == expected
    for labels in (LABELS.bool(), LABELS.half(), LABELS.numpy(), LABELS.tolist()):
        assert function(EMBEDDINGS, labels, k=2) == expected
    assert not function(EMBEDDINGS.clone().requires_grad_(), LABELS, k=2).requires_grad


@pytest.mark.parametrize("function", [ndcg_at_k, precision_at_k])
def test_perfect_order_gives_1(function):
    labels = torch.eye(4).repeat_interleave(3, dim=0)
    assert function(labels, labels, k=2).item() == pytest.approx(1)


def test_cosine_ranks_by_angle():
    refs = torch.tensor([[0.0, 1.0], [100.0, 1.0], [1.0, 1.0]])
    ref_labels = torch.tensor([[0], [1], [0]])
    query, labels = torch.tensor([[1.0, 0.0]]), torch.tensor([[1]])
    assert precision_at_k(query, labels, refs, ref_labels, k=1) == 0
    assert precision_at_k(query, labels, refs, ref_labels, k=1, metric="cosine") == 1


def test_relevance_threshold_is_inclusive_in_the_precision_of_the_similarity():
    labels, ref_labels = torch.ones(1, 10), torch.cat([torch.ones(1, 7), torch.zeros(1, 3)], dim=1)
    for dtype in (torch.float32, torch.float64):
        result = precision_at_k([[0]], labels.to(dtype), [[0]], ref_labels.to(dtype), k=1, relevance_threshold=0.7)
        assert result == 1
    assert precision_at_k([[0]], labels, [[0]], ref_labels, k=1, relevance_threshold=0.71, zero_division=0) == 0


def test_query_is_not_relevant_to_itself():
    # With threshold -1, other rows with grade -2 are not relevant, and neither is the query itself with grade 0.
    result = precision_at_k(
        EMBEDDINGS,
        LABELS,
        k=1,
        similarity=lambda a, b: -2.0 * (jaccard(a, b) < 1),
        relevance_threshold=-1,
        average="none",
    )
    assert result.isnan().tolist() == [False, True, True, False]


def test_soft_labels_and_composed_similarities_give_grades():
    soft = LABELS / 2
    assert ndcg_at_k(EMBEDDINGS, soft, k=2) == ndcg_at_k(EMBEDDINGS, LABELS, k=2)
    relation = SoftCosine(torch.eye(3)) * 0.5 + Hamming()
    grades = relation(LABELS, LABELS).double().tolist()
    order = _order([0], [[0], [1], [-1], [2]], 0)
    result = ndcg_at_k(EMBEDDINGS, LABELS, k=3, similarity=relation, average="none")[0]
    assert result.item() == pytest.approx(_ndcg(order, grades[0], 3, "linear"), rel=1e-12)


def test_result_of_the_similarity_is_not_modified():
    table = jaccard(LABELS, LABELS).double()
    kept = table.clone()
    ndcg_at_k(EMBEDDINGS, LABELS, k=2, similarity=lambda a, b: table)
    precision_at_k(EMBEDDINGS, LABELS, k=2, similarity=lambda a, b: table)
    assert torch.equal(table, kept)


@pytest.mark.parametrize("function", [ndcg_at_k, precision_at_k])
def test_result_without_queries_is_undefined(function):
    queries, labels = torch.zeros(0, 1), torch.zeros(0, 3)
    assert function(queries, labels, EMBEDDINGS, LABELS, k=1).isnan()
    assert function(queries, labels, EMBEDDINGS, LABELS, k=1, zero_division=0) == 0
    assert function(queries, labels, EMBEDDINGS, LABELS, k=1, average="none").shape == (0,)


INVALID = [
    ({"embeddings": [0.0, 1.0]}, r"`embeddings` must have shape \(N, D\), got \(2,\)"),
    ({"embeddings": [[0.0], [np.inf]]}, r"`embeddings` must be finite, got inf"),
    ({"embeddings": [[0.0]]}, r"one row for each of the 1 rows of `embeddings`, got 2"),
    ({"labels": [1, 0]}, r"`labels` must be a 2-D multi-hot matrix .* got shape \(2,\)"),
    ({"labels": [[2], [0]]}, r"`labels` must .* in \[0, 1\], got 2.* at row 0"),
    ({"ref_emb": [[0.0]]}, r"must be given together, got `ref_emb` without `ref_labels`"),
    ({"ref_labels": [[1]]}, r"must be given together, got `ref_labels` without `ref_emb`"),
    ({"ref_emb": [[np.nan]], "ref_labels": [[1]]}, r"`ref_emb` must be finite, got nan"),
    ({"ref_emb": [[0, 1]], "ref_labels": [[1]]}, r"`embeddings` and `ref_emb` .* got 1 and 2"),
    ({"ref_emb": [[0]], "ref_labels": [[1, 1]]}, r"`labels` and `ref_labels` .* got 1 and 2"),
    ({"metric": "cosine"}, r"`embeddings` must contain no zero row with `metric=\"cosine\"`, .* got one at row 1"),
    ({"metric": "manhattan"}, r"`metric` must be one of 'euclidean', 'cosine', .*, got 'manhattan'"),
    ({"k": 0}, r"`k` must be at least 1, got 0"),
    ({"similarity": lambda a, b: jaccard(a)[:1]}, r"`similarity` must return shape \(2, 2\), .* got \(1, 2\)"),
    ({"similarity": lambda a, b: jaccard(a, b) * torch.nan}, r"`similarity` must return numbers, got NaN"),
    ({"average": "micro"}, r"`average` must be one of 'mean', 'none', got 'micro'"),
    ({"zero_division": "skip"}, r"`zero_division` must be 0.0, 1.0 or nan, got 'skip'"),
]


@pytest.mark.parametrize("function", [ndcg_at_k, precision_at_k])
@pytest.mark.parametrize(("arguments", "message"), INVALID)
def test_invalid_argument_raises(function, arguments, message):
    valid = {"embeddings": [[1.0], [0.0]], "labels": [[1], [1]], "k": 1}
    with pytest.raises(ValueError, match=message):
        function(**valid | arguments)


def test_invalid_gain_grade_or_threshold_raises():
    with pytest.raises(ValueError, match=r"`gain` must be one of 'linear', 'exponential', got 'log'"):
        ndcg_at_k(EMBEDDINGS, LABELS, k=1, gain="log")
    with pytest.raises(ValueError, match=r"`similarity` must return grades >= 0 for NDCG, got -1\. `\.clamp\(min=0\)`"):
        ndcg_at_k(EMBEDDINGS, LABELS, k=1, similarity=lambda a, b: -jaccard(a, b))
    with pytest.raises(ValueError, match=r"`relevance_threshold` must be a number or None, got nan"):
        precision_at_k(EMBEDDINGS, LABELS, k=1, relevance_threshold=math.nan)


def test_embeddings_that_are_not_numbers_raise():
    with pytest.raises(TypeError, match=r"`embeddings` must contain real numbers, got \[\['a'\]\]"):
        ndcg_at_k([["a"]], [[1]])


@pytest.mark.parametrize("function", [ndcg_at_k, precision_at_k])
def test_k_larger_than_the_database_is_clipped(function):
    for refs in ((), (EMBEDDINGS[1:], LABELS[1:])):
        expected = function(EMBEDDINGS, LABELS, *refs, k=3, average="none")
        for k in (4, 10, None):
            result = function(EMBEDDINGS, LABELS, *refs, k=k, average="none")
            torch.testing.assert_close(result, expected, rtol=0, atol=0, equal_nan=True)
    assert precision_at_k(EMBEDDINGS, LABELS, k=10, average="none")[0].item() == pytest.approx(2 / 3)


@pytest.mark.parametrize("function", [ndcg_at_k, precision_at_k])
def test_k_that_is_not_an_integer_raises(function):
    with pytest.raises(TypeError, match=r"`k` must be an integer, got 2\.5"):
        function(EMBEDDINGS, LABELS, k=2.5)
    assert function(EMBEDDINGS, LABELS, k=np.int64(2)) == function(EMBEDDINGS, LABELS, k=2)


@pytest.mark.parametrize("function", [ndcg_at_k, precision_at_k])
def test_result_is_on_the_device_of_the_queries(function, device):
    generator = torch.Generator().manual_seed(5)
    embeddings, labels = torch.randn(300, 16, generator=generator), torch.rand(300, 5, generator=generator) < 0.3
    for rest in ((), (embeddings, labels)):
        result = function(embeddings.to(device), labels, *rest)
        assert result.device == device
        torch.testing.assert_close(result.cpu(), function(embeddings, labels, *rest), rtol=0, atol=1e-12)
