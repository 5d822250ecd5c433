import math

import numpy as np
import pytest
import torch

from mlmetric.search import Hit, SearchIndex, explain_hits
from mlmetric.similarity import Cosine, Hamming, Jaccard, explain_similarity

NAMES = ["cat", "dog", "indoors", "night"]
SOFT = np.array([[1, 0, 0.5, 0], [0.25, 1, 0, 0], [0, 0, 0, 1], [1, 0.5, 0.5, 0.25]], dtype=np.float32)


def make_index(labels=SOFT, **options):
    index = SearchIndex(**({"label_names": NAMES} | options))
    index.add(np.arange(8.0).reshape(4, 2), ids=["a", "b", 7, "d"], labels=labels)
    return index


@pytest.mark.parametrize("similarity", [None, Cosine(), 0.5 * Hamming() + Cosine(), lambda a, b: (a @ b.T) ** 2])
@pytest.mark.parametrize("labels", [SOFT, SOFT > 0])
def test_shares_of_hits_are_those_of_each_pair(similarity, labels):
    index = make_index(labels)
    queries = labels[[3, 1, 2]]
    hits = index.search([[0.0, 1.0], [9.0, 9.0], [2.0, 2.0]], 3, labels=queries)
    hits[1] = hits[1][:1]
    actual = explain_hits(index, hits, queries, similarity=similarity)
    assert [len(each) for each in actual] == [3, 1, 3]
    for query, found, shares in zip(queries, hits, actual, strict=True):
        for hit, named in zip(found, shares, strict=True):
            row = torch.from_numpy(labels[[index.ids.index(hit.id)]]).double()
            expected = explain_similarity(similarity or Jaccard(), torch.from_numpy(query[None]).double(), row).shares
            assert [named.get(name, 0) for name in NAMES] == pytest.approx(expected[0].tolist(), abs=1e-12)
            assert list(named.values()) == sorted(named.values(), reverse=True)
            assert all(named.values())


def test_shares_of_label_names_by_hand():
    index = make_index([["cat", "dog"], ["cat", "dog", "night"], ["indoors"], []])
    hits = index.search([[0.0, 1.0]], 4)
    # Jaccard 2/3 of a and b: night takes -2 (1/2 + 1/3) / (3 * 2), and the others half of the rest each.
    first, second, third, fourth = explain_hits(index, hits, [["dog", "cat"]])[0]
    assert first == {"cat": 0.5, "dog": 0.5}
    assert list(first) == ["cat", "dog"]
    assert second == pytest.approx({"cat": (2 / 3 + 5 / 18) / 2, "dog": (2 / 3 + 5 / 18) / 2, "night": -5 / 18})
    assert third == fourth == {}


def test_shares_of_an_index_without_names_are_those_of_column_numbers():
    index = make_index(label_names=None)
    hits = index.search([[0.0, 1.0]], 1)
    assert explain_hits(index, hits, SOFT[:1]) == [[{"0": 0.5, "2": 0.5}]]  # equal rows: each alone gives 1


def test_no_hits_have_no_shares():
    assert explain_hits(make_index(), [[], []], SOFT[:2]) == [[], []]
    assert explain_hits(make_index(), [], np.zeros((0, 4))) == []


def test_estimates_of_many_labels_have_the_seed():
    labels = (np.random.default_rng(0).random((2, 30)) < 0.7).astype(float)
    index = SearchIndex()
    index.add([[0.0], [1.0]], labels=labels)
    hits = index.search([[0.0]], 2)
    first, second, other = (explain_hits(index, hits, labels[:1], similarity=Cosine(), seed=seed) for seed in (0, 0, 1))
    assert first == second != other
    assert math.isclose(sum(first[0][0].values()), 1, abs_tol=1e-9)


@pytest.mark.parametrize(
    ("index", "hits", "labels", "message"),
    [
        (make_index(None), [[]], [["cat"]], "`index` must have labels, got an index without labels"),
        (SearchIndex(label_names=NAMES), [[]], [["cat"]], "`index` must have labels"),
        (make_index(), [[Hit("z", 0.0, (), {})]], [["cat"]], "`hits` must be rows of `index`, got the id 'z'"),
        (make_index(), [[]], [["cat"], ["dog"]], "`labels` must have a row for each of the 1 rows of `hits`"),
        (make_index(), [[]], [["cow"]], r"`labels\[0\]` contains 'cow'"),
        (make_index(), [[]], [[1, 0]], "must have 4 columns"),
    ],
)
def test_hits_or_labels_that_do_not_fit_raise(index, hits, labels, message):
    with pytest.raises(ValueError, match=message):
        explain_hits(index, hits, labels)
