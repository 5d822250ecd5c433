"""Shares of labels in a similarity against Shapley values over all orders of the labels in plain Python."""

import functools
import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from mlmetric.similarity import (
    Cosine,
    Dice,
    Hamming,
    InnerProduct,
    Jaccard,
    Overlap,
    SoftCosine,
    cosine,
    dice,
    explain_similarity,
    hamming,
    inner_product,
    jaccard,
    overlap,
)

NUM_LABELS = 5
WEIGHTS = torch.tensor([1.0, 0.5, 2.0, 0.0, 3.0]).double()
SOFT_COSINE = SoftCosine.from_vectors(torch.randn(NUM_LABELS, 3, generator=torch.Generator().manual_seed(0)))


def squared(labels, ref_labels):
    """The square of the number of common labels: what one label adds depends on the others."""
    return (labels.double() @ ref_labels.double().T) ** 2


class Halved(Jaccard):
    """A subclass that computes something other than its base class."""

    def __call__(self, labels, ref_labels=None):
        return super().__call__(labels, ref_labels) / 2


SHAPLEY = {
    "jaccard": jaccard,
    "dice": dice,
    "overlap": overlap,
    "cosine": cosine,
    "Jaccard": Jaccard(),
    "Jaccard, weighted": Jaccard(WEIGHTS),
    "Dice, weighted": Dice(WEIGHTS),
    "Overlap, weighted": Overlap(WEIGHTS),
    "Cosine, weighted": Cosine(WEIGHTS),
    "SoftCosine": SOFT_COSINE,
    "sum": 0.5 * (Jaccard() + 0.3 * SOFT_COSINE) + squared,
    "clamped": (0.5 * Dice() + Jaccard()).clamp(min=0.2, max=0.9),
    "clamped Hamming": Hamming().clamp(min=0.3),
    "function": squared,
    "subclass": Halved(),
}
ADDITIVE = {
    "inner_product": (inner_product, lambda x, y, w: x * y),
    "InnerProduct": (InnerProduct(), lambda x, y, w: x * y),
    "InnerProduct, weighted": (InnerProduct(WEIGHTS), lambda x, y, w: w * x * y),
    "hamming": (hamming, lambda x, y, w: (1 - abs(x - y)) / NUM_LABELS),
    "Hamming, weighted": (Hamming(WEIGHTS), lambda x, y, w: w * (1 - abs(x - y)) / float(WEIGHTS.sum())),
}


def shapley_loop(similarity, row, ref):
    """Add the labels one by one, in all orders."""
    players = [label for label in range(len(row)) if row[label] or ref[label]]

    @functools.cache
    def value(members):
        kept = [[each if label in members else 0 for label, each in enumerate(values)] for values in (row, ref)]
        first, second = torch.tensor(kept, dtype=torch.float64).split(1)
        return similarity(first, second).item() if members else 0.0

    totals = [0.0] * len(row)
    for order in itertools.permutations(players):
        for place, label in enumerate(order):
            totals[label] += value(frozenset(order[: place + 1])) - value(frozenset(order[:place]))
    return [total / math.factorial(len(players)) for total in totals]


def pairs(values, num_labels=NUM_LABELS):
    row = st.lists(st.sampled_from(values), min_size=num_labels, max_size=num_labels)
    return st.tuples(row, row)


def random_labels(*shape, seed=0, share=0.5):
    return (torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < share).double()


@pytest.mark.parametrize("name", SHAPLEY)
@settings(max_examples=8, deadline=None)
@given(pair=pairs([0, 1]) | pairs([0, 0.25, 1]))
def test_shares_equal_shapley_values_over_all_orders(name, pair):
    labels, ref_labels = torch.tensor([pair]).double().unbind(1)
    actual, errors = explain_similarity(SHAPLEY[name], labels, ref_labels)
    np.testing.assert_allclose(actual[0], shapley_loop(SHAPLEY[name], *pair), atol=1e-9)
    assert not errors.any()


@pytest.mark.parametrize("name", ADDITIVE)
@given(pair=pairs([0, 1]) | pairs([0, 0.25, 1]))
def test_shares_of_an_additive_similarity_are_its_terms(name, pair):
    similarity, term = ADDITIVE[name]
    labels, ref_labels = torch.tensor([pair]).double().unbind(1)
    expected = [term(x, y, w) for x, y, w in zip(*pair, WEIGHTS.tolist(), strict=True)]
    np.testing.assert_allclose(explain_similarity(similarity, labels, ref_labels).shares[0], expected, atol=1e-12)


def test_terms_of_an_inner_product_are_its_shapley_values():
    labels, ref_labels = random_labels(2, 6, NUM_LABELS)
    expected = explain_similarity(lambda a, b: InnerProduct(WEIGHTS)(a, b), labels, ref_labels).shares
    torch.testing.assert_close(explain_similarity(InnerProduct(WEIGHTS), labels, ref_labels).shares, expected)


@pytest.mark.parametrize("name", [*SHAPLEY, *ADDITIVE])
@pytest.mark.parametrize("max_exact_labels", [3, 12])
def test_shares_add_up_to_the_similarity_exact_or_estimated(name, max_exact_labels):
    similarity = SHAPLEY[name] if name in SHAPLEY else ADDITIVE[name][0]
    labels, ref_labels = random_labels(2, 40, NUM_LABELS)
    labels[:, 0] = 1  # no pair without labels
    options = {"max_exact_labels": max_exact_labels, "num_permutations": 10}
    shares = explain_similarity(similarity, labels, ref_labels, **options).shares
    torch.testing.assert_close(shares.sum(1), similarity(labels, ref_labels).diagonal())


@pytest.mark.parametrize("name", SHAPLEY)
def test_shares_of_rows_without_labels_are_0(name):
    shares, errors = explain_similarity(SHAPLEY[name], torch.zeros(2, NUM_LABELS), torch.zeros(2, NUM_LABELS))
    assert not shares.any()
    assert not errors.any()


def test_label_matrices_without_columns_have_no_shares():
    for similarity in (jaccard, dice, inner_product):
        assert explain_similarity(similarity, torch.zeros(2, 0), torch.zeros(2, 0)).shares.shape == (2, 0)


def test_labels_that_both_rows_lack_have_a_share_of_hamming_only():
    mixed = 0.5 * Hamming() + 0.5 * Dice()
    shares = explain_similarity(mixed, [[1, 1, 0, 0]], [[1, 0, 0, 0]]).shares
    dice_shares = explain_similarity(Dice(), [[1, 1, 0, 0]], [[1, 0, 0, 0]]).shares
    torch.testing.assert_close(shares, 0.5 * dice_shares + torch.tensor([[0.125, 0, 0.125, 0.125]]))
    assert dice_shares[0, 2:].tolist() == [0, 0]


@pytest.mark.parametrize("max_exact_labels", [0, 12])
def test_label_that_changes_no_value_has_a_share_of_0(max_exact_labels):
    labels, ref_labels = random_labels(2, 20, NUM_LABELS)
    for similarity in (Jaccard, Dice, Cosine, Overlap):  # label 3 has a weight of 0
        shares = explain_similarity(similarity(WEIGHTS), labels, ref_labels, max_exact_labels=max_exact_labels).shares
        assert shares[:, 3].abs().max() < 1e-12
        assert shares[:, 0].abs().max() > 0.01


def test_labels_that_can_be_exchanged_have_equal_shares():
    row, ref = torch.tensor([[1, 1, 1, 1, 0, 0, 0]]), torch.tensor([[1, 1, 0, 0, 1, 1, 0]])
    for similarity in (Jaccard(), Dice(), Cosine(), Overlap(), squared):
        shares = explain_similarity(similarity, row.double(), ref.double()).shares[0]
        torch.testing.assert_close(shares[[0, 2, 4]], shares[[1, 3, 5]])
        torch.testing.assert_close(explain_similarity(similarity, ref.double(), row.double()).shares[0], shares)


# Closed form


@pytest.mark.parametrize("num_labels", [1, 4, 9, 12])
def test_closed_form_of_jaccard_equals_enumeration(num_labels):
    labels, ref_labels = random_labels(2, 30, num_labels, share=0.6)
    for factor in (1, -0.5):
        expected = explain_similarity(lambda a, b, f=factor: f * jaccard(a, b), labels, ref_labels).shares
        closed = explain_similarity(factor * Jaccard(), labels, ref_labels)
        torch.testing.assert_close(closed.shares, expected)
        assert not closed.standard_errors.any()


def test_closed_form_of_jaccard_is_exact_for_many_labels():
    labels, ref_labels = random_labels(2, 3, 300)
    shares, errors = explain_similarity(jaccard, labels, ref_labels)
    torch.testing.assert_close(shares.sum(1), jaccard(labels, ref_labels, paired=True))
    assert not errors.any()
    # An own sample: the mean change of the similarity by the last label of one row only, over random orders.
    row, ref = labels[0] > 0, ref_labels[0] > 0
    common, label = torch.nonzero(row & ref)[:, 0], torch.nonzero(row ^ ref)[0, 0]
    num_other = int((row ^ ref).sum()) - 1
    generator, changes = np.random.default_rng(0), []
    for _ in range(20_000):
        size = generator.integers(0, len(common) + num_other + 1)
        both = generator.hypergeometric(len(common), num_other, size)
        changes.append(-both / (size * (size + 1)) if size else 0)
    assert shares[0, label].item() == pytest.approx(np.mean(changes), abs=4 * np.std(changes) / len(changes) ** 0.5)


# Sampling


@pytest.mark.parametrize("soft", [False, True])
def test_estimates_are_within_their_standard_errors(soft):
    labels, ref_labels = random_labels(2, 12, 9)
    if soft:
        labels *= torch.rand(12, 9, generator=torch.Generator().manual_seed(1))
    similarity = 0.5 * Overlap() + 0.5 * Dice()
    exact = explain_similarity(similarity, labels, ref_labels).shares
    deviations = []
    for seed in range(20):
        options = {"max_exact_labels": 2, "num_permutations": 200, "seed": seed}
        shares, errors = explain_similarity(similarity, labels, ref_labels, **options)
        known = errors > 1e-9
        torch.testing.assert_close(shares[~known], exact[~known])
        deviations.append(((shares - exact)[known] / errors[known]).numpy())
    deviations = np.concatenate(deviations)
    assert abs(deviations.mean()) < 0.15
    assert 0.92 < (np.abs(deviations) < 2).mean() < 0.975  # 0.954 of a normal distribution


def test_estimate_is_the_same_without_the_other_pairs_and_for_the_same_seed():
    labels, ref_labels = random_labels(2, 9, 20)
    options = {"num_permutations": 8, "seed": 3}
    shares, errors = explain_similarity(cosine, labels, ref_labels, **options)
    for row in range(9):
        alone = explain_similarity(cosine, labels[row : row + 1], ref_labels[row : row + 1], **options)
        torch.testing.assert_close(alone.shares[0], shares[row], rtol=0, atol=1e-12)
        torch.testing.assert_close(alone.standard_errors[0], errors[row], rtol=0, atol=1e-12)
    assert not torch.equal(explain_similarity(cosine, labels, ref_labels, num_permutations=8).shares, shares)


def test_errors_become_smaller_with_more_orders():
    labels, ref_labels = random_labels(2, 5, 20)
    few, many = (
        explain_similarity(cosine, labels, ref_labels, num_permutations=number).standard_errors.max()
        for number in (20, 2000)
    )
    assert 0 < many < few / 5


def test_reversed_orders_make_estimates_for_a_square_exact():
    labels, ref_labels = random_labels(2, 4, 20)
    common = (labels * ref_labels).double()
    shares, errors = explain_similarity(squared, labels, ref_labels, num_permutations=4)
    torch.testing.assert_close(shares, common * common.sum(1, keepdim=True))  # (2 k + 1) + (2 (c - 1 - k) + 1) = 2 c
    assert errors.max() < 1e-9


# Arguments


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.bool, torch.float32),
        (torch.uint8, torch.float32),
        (torch.int64, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_shares_of_labels_of_each_dtype(dtype, expected):
    labels, ref_labels = random_labels(2, 10, NUM_LABELS)
    for similarity in (dice, Jaccard(), hamming, SOFT_COSINE, lambda a, b: (a.float() @ b.float().T) ** 2):
        exact = explain_similarity(similarity, labels, ref_labels).shares
        shares, errors = explain_similarity(similarity, labels.to(dtype), ref_labels.to(dtype))
        assert shares.dtype == errors.dtype == expected
        torch.testing.assert_close(shares, exact.to(expected), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("convert", [np.array, np.ndarray.tolist, sparse.csr_array, pd.DataFrame])
def test_labels_of_every_kind(convert):
    labels, ref_labels = random_labels(2, 10, NUM_LABELS)
    shares = explain_similarity(dice, convert(labels.numpy()), convert(ref_labels.numpy())).shares
    torch.testing.assert_close(shares.double(), explain_similarity(dice, labels, ref_labels).shares)


def test_one_row_is_compared_with_each_row_of_the_other_matrix():
    labels, ref_labels = random_labels(2, 6, NUM_LABELS)
    for similarity in (dice, jaccard, hamming):
        expected = explain_similarity(similarity, labels[:1].repeat(6, 1), ref_labels).shares
        assert torch.equal(explain_similarity(similarity, labels[:1], ref_labels).shares, expected)
        assert torch.equal(explain_similarity(similarity, ref_labels, labels[:1]).shares, expected)
        assert explain_similarity(similarity, labels[:1], ref_labels[:0]).shares.shape == (0, NUM_LABELS)


def test_labels_and_the_similarity_are_not_changed_and_need_no_gradient():
    labels, ref_labels = random_labels(2, 6, NUM_LABELS)
    before = labels.clone(), ref_labels.clone()
    labels.requires_grad_()
    assert not explain_similarity(dice, labels, ref_labels).shares.requires_grad
    assert torch.equal(labels, before[0])
    assert torch.equal(ref_labels, before[1])


def test_calls_in_parts_give_the_same_shares(monkeypatch):
    labels, ref_labels = random_labels(2, 30, 7)
    options = {"max_exact_labels": 5, "num_permutations": 10}
    for similarity in (dice, jaccard, hamming, squared):
        whole = explain_similarity(similarity, labels, ref_labels, **options)
        with monkeypatch.context() as patch:
            patch.setattr("mlmetric.similarity._shapley_values._ELEMENTS_PER_CALL", 20)
            patch.setattr("mlmetric.similarity._explain_similarity._ELEMENTS_PER_BLOCK", 20)
            parts = explain_similarity(similarity, labels, ref_labels, **options)
        for first, second in zip(parts, whole, strict=True):
            torch.testing.assert_close(first, second, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("similarity", "options", "error", "message"),
    [
        (Jaccard, {}, TypeError, r"must be an instance, got the class: write `Jaccard\(\)`"),
        ("jaccard", {}, TypeError, "`similarity` must be callable, got str"),
        (lambda a, b: 1, {}, TypeError, r"must return a torch.Tensor, got int"),
        (lambda a, b: a.sum(1), {}, ValueError, r"`similarity` must return shape \(6, 6\)"),
        (lambda a, b: (a @ b.T) / 0, {}, ValueError, "`similarity` must not return NaN"),
        (InnerProduct(torch.ones(2)), {}, ValueError, r"`weights` must have shape \(5,\).*, got \(2,\)"),
        (Jaccard(torch.ones(2)), {}, ValueError, r"`weights` must have shape \(5,\).*, got \(2,\)"),
        (dice, {"max_exact_labels": 17}, ValueError, "`max_exact_labels` must be from 0 to 16, got 17"),
        (dice, {"max_exact_labels": -1}, ValueError, "`max_exact_labels` must be from 0 to 16, got -1"),
        (dice, {"num_permutations": 7}, ValueError, "`num_permutations` must be even and at least 4, got 7"),
        (dice, {"num_permutations": 2}, ValueError, "`num_permutations` must be even and at least 4, got 2"),
    ],
)
def test_invalid_similarity_or_option_raises(similarity, options, error, message):
    with pytest.raises(error, match=message):
        explain_similarity(similarity, torch.eye(2, NUM_LABELS), torch.eye(2, NUM_LABELS).flip(1), **options)


@pytest.mark.parametrize(
    ("labels", "ref_labels", "error", "message"),
    [
        ([[1, 0]], [[1, 0, 1]], ValueError, "same number of labels, got 2 and 3"),
        ([[1, 0]] * 2, [[1, 0]] * 3, ValueError, "same number of rows, or one of them a single row, got 2 and 3"),
        ([[2, 0]], [[1, 0]], ValueError, r"`labels` must .*in \[0, 1\], got 2"),
        ([[1, 0]], [[math.nan, 0]], ValueError, r"`ref_labels` must .*in \[0, 1\], got nan"),
        ([["sea"]], [[1]], TypeError, "MultiLabelBinarizer"),
        (torch.ones(3), torch.ones(1, 3), ValueError, r"`labels` must be a 2-D"),
    ],
)
def test_invalid_labels_raise(labels, ref_labels, error, message):
    with pytest.raises(error, match=message):
        explain_similarity(dice, labels, ref_labels)


def test_similarity_of_rows_without_labels_is_divided_equally():
    labels, ref_labels = torch.tensor([[1, 1, 0]]).double(), torch.tensor([[1, 0, 0]]).double()
    offset = explain_similarity(lambda a, b: jaccard(a, b) + 0.3, labels, ref_labels).shares
    torch.testing.assert_close(offset, torch.tensor([[0.75 + 0.15, -0.25 + 0.15, 0]]).double())
