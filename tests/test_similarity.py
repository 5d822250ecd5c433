"""Similarities against Python sets, loops over fuzzy sets, and scikit-learn."""

import functools
import math
import pickle
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse
from sklearn.metrics.pairwise import cosine_similarity

from mlmetric import similarity as sim

SETS = {
    "inner_product": lambda a, b, w: sum(w[i] for i in a & b),
    "jaccard": lambda a, b, w: _over(sum(w[i] for i in a & b), sum(w[i] for i in a | b)),
    "dice": lambda a, b, w: _over(2 * sum(w[i] for i in a & b), sum(w[i] for i in a) + sum(w[i] for i in b)),
    "overlap": lambda a, b, w: _over(sum(w[i] for i in a & b), min(sum(w[i] for i in a), sum(w[i] for i in b))),
    "cosine": lambda a, b, w: _over(sum(w[i] for i in a & b), math.sqrt(sum(w[i] for i in a) * sum(w[i] for i in b))),
    "hamming": lambda a, b, w: 1 - sum(w[i] for i in a ^ b) / sum(w),
}
FUZZY = {
    "jaccard": lambda x, y: _over(np.minimum(x, y).sum(), np.maximum(x, y).sum()),
    "dice": lambda x, y: _over(2 * np.minimum(x, y).sum(), x.sum() + y.sum()),
    "overlap": lambda x, y: _over(np.minimum(x, y).sum(), min(x.sum(), y.sum())),
    "hamming": lambda x, y: 1 - np.abs(x - y).mean(),
}
CLASSES = [sim.InnerProduct, sim.Jaccard, sim.Dice, sim.Cosine, sim.Overlap, sim.Hamming]
FRACTIONS = [(p, q) for q in range(1, 13) for p in range(q + 1) if math.gcd(p, q) == 1]
LABEL_DTYPES = [
    *(torch.bool, torch.uint8, torch.int64),
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
]


def _over(numerator, denominator):
    return numerator / denominator if denominator > 0 else 0.0


def multi_hot(min_rows=1):
    shape = st.tuples(st.integers(min_rows, 6), st.integers(1, 5))
    return shape.flatmap(lambda s: hnp.arrays(np.int64, s, elements=st.integers(0, 1)))


@pytest.mark.parametrize("name", SETS)
@settings(max_examples=40, deadline=None)
@given(labels=multi_hot(), weighted=st.booleans())
def test_similarity_of_multi_hot_labels_equals_that_of_python_sets(name, labels, weighted):
    weights = np.linspace(0.5, 2.0, labels.shape[1]) if weighted else np.ones(labels.shape[1])
    sets = [set(np.flatnonzero(row)) for row in labels]
    expected = [[SETS[name](a, b, weights) for b in sets] for a in sets]
    actual = getattr(sim, name)(torch.from_numpy(labels).double(), weights=torch.from_numpy(weights))
    np.testing.assert_allclose(actual, np.array(expected, dtype=float), atol=1e-12)


@pytest.mark.parametrize("name", FUZZY)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_similarity_of_soft_labels_equals_that_of_fuzzy_sets(name, data):
    shape = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 4)))
    votes = data.draw(hnp.arrays(np.int64, shape, elements=st.integers(0, 4)))
    soft = votes / 4
    expected = [[FUZZY[name](x, y) for y in soft] for x in soft]
    np.testing.assert_allclose(getattr(sim, name)(torch.from_numpy(soft)), np.array(expected), atol=1e-12)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("soft", [False, True])
def test_similarity_paired_is_the_diagonal(name, soft):
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randint(0, 3 if soft else 2, (7, 4), generator=generator) / (2 if soft else 1) for _ in "ab")
    weights = torch.tensor([1.0, 2.0, 0.5, 3.0])
    function = getattr(sim, name)
    paired = function(first, second, weights=weights, paired=True)
    torch.testing.assert_close(paired, function(first, second, weights=weights).diagonal())


@pytest.mark.parametrize("name", ["jaccard", "dice", "overlap"])
def test_similarity_of_disjoint_soft_sets_is_exactly_zero(name):
    first = torch.tensor([[0.1, 0.3, 0.7, 0.0, 0.0, 0.0]])
    second = torch.tensor([[0.0, 0.0, 0.0, 0.9, 1 / 3, 0.2]])
    assert getattr(sim, name)(first, second).item() == 0.0


def test_similarity_of_equal_rows_is_equal_to_the_last_bit_at_any_position():
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 2, (1, 37), generator=generator).float().repeat(523, 1)
    weights = torch.rand(37, generator=generator)
    for function in (sim.inner_product, sim.jaccard, sim.dice, sim.cosine):
        assert len(function(labels, weights=weights).unique()) == 1


def test_similarity_of_equal_rows_in_float64_is_1_and_equal_at_any_position():
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 2, (40, 30), generator=generator).double().repeat(10, 1)
    weights = torch.rand(30, generator=generator, dtype=torch.float64)
    for similarity in (sim.Jaccard(weights), sim.Dice(weights), sim.SoftCosine.from_cooccurrence(labels)):
        values = similarity(labels)
        assert values.max() == 1
        assert (values.diagonal() == 1).all()
        assert torch.equal(values[:, :40], values[:, 40:80])


def test_similarity_takes_arrays():
    labels = np.array([[1, 1, 0], [0, 1, 0]])
    for function in (sim.jaccard, sim.SoftCosine.from_cooccurrence(labels)):
        torch.testing.assert_close(function(labels), function(torch.from_numpy(labels)))
    assert sim.inverse_frequency_weights(labels).tolist() == [1.0, 0.5, 1.0]


@pytest.mark.parametrize("convert", [np.ndarray.tolist, sparse.csr_array, pd.DataFrame])
def test_similarity_takes_labels_of_every_kind(convert):
    labels = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1]])
    mixed = 0.5 * sim.Jaccard() + 0.5 * sim.SoftCosine.from_cooccurrence(convert(labels))
    for function in (sim.jaccard, sim.hamming, mixed):
        torch.testing.assert_close(function(convert(labels)), function(torch.from_numpy(labels)))
        torch.testing.assert_close(function(torch.from_numpy(labels), convert(labels)), function(labels))
    assert sim.inverse_frequency_weights(convert(labels)).tolist() == [1.0, 0.5, 1.0]


def test_similarity_of_label_names_raises_a_type_error():
    for function in (sim.jaccard, sim.Dice(), sim.SoftCosine(torch.eye(2)), sim.inverse_frequency_weights):
        with pytest.raises(TypeError, match=r"`labels` must .*MultiLabelBinarizer"):
            function([["a"], ["a", "b"]])
    with pytest.raises(TypeError, match=r"`ref_labels` must .*MultiLabelBinarizer"):
        sim.jaccard([[1, 0]], [["a", "b"]])


class Custom:
    def __call__(self, labels, ref_labels):
        return labels @ ref_labels.T


@pytest.mark.parametrize(
    ("similarity", "expected"),
    [
        (sim.Jaccard(), "Jaccard()"),
        (sim.Jaccard(torch.ones(30)), "Jaccard(weights=tensor of 30)"),
        (0.5 * sim.Jaccard() + 0.5 * sim.Cosine(), "0.5 * Jaccard() + 0.5 * Cosine()"),
        ((0.5 * sim.Jaccard() + sim.Cosine()).clamp(min=0), "(0.5 * Jaccard() + Cosine()).clamp(min=0)"),
        (2 * (sim.Dice() + sim.dice), "2 * (Dice() + dice)"),
        (sim.Dice() + (sim.Cosine() + sim.Overlap()), "Dice() + (Cosine() + Overlap())"),
        (sim.cosine + sim.Dice().clamp(0.1, 0.9), "cosine + Dice().clamp(min=0.1, max=0.9)"),
        (sim.SoftCosine(torch.eye(4)), "SoftCosine(label_similarity=tensor of (4, 4))"),
        (sim.Dice() + torch.nn.CosineSimilarity(), "Dice() + CosineSimilarity()"),
        (sim.Dice() + Custom(), "Dice() + Custom(...)"),
        (
            sim.Dice() + functools.partial(sim.jaccard, weights=torch.ones(2)),
            "Dice() + partial(jaccard, weights=tensor of 2)",
        ),
    ],
)
def test_similarity_representation_is_its_formula(similarity, expected):
    assert repr(similarity) == expected


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.bfloat16])
def test_similarity_counts_exactly_in_small_dtypes(dtype):
    labels = torch.ones(2, 1001).to(dtype)
    result = sim.inner_product(labels)
    assert result.dtype == torch.float32
    assert result.tolist() == [[1001.0, 1001.0], [1001.0, 1001.0]]


def test_similarity_under_autocast_counts_exactly():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert sim.inner_product(torch.ones(1, 1001)).item() == 1001.0


@pytest.mark.parametrize("name", SETS)
def test_similarity_of_no_rows_is_empty(name):
    assert getattr(sim, name)(torch.zeros(0, 3), torch.zeros(4, 3)).shape == (0, 4)


def test_similarity_of_wrong_shapes_raises():
    with pytest.raises(ValueError, match="same number of labels, got 3 and 2"):
        sim.jaccard(torch.zeros(1, 3), torch.zeros(1, 2))
    with pytest.raises(ValueError, match=r"`weights` must have shape \(3,\).*got \(2,\)"):
        sim.jaccard(torch.zeros(1, 3), weights=torch.ones(2))
    with pytest.raises(ValueError, match=r"`ref_labels` must be a 2-D .*got shape \(3,\)"):
        sim.jaccard(torch.zeros(1, 3), torch.zeros(3))
    with pytest.raises(ValueError, match="must have the same number of rows with `paired=True`, got 1 and 2"):
        sim.jaccard(torch.zeros(1, 3), torch.zeros(2, 3), paired=True)


@pytest.mark.parametrize("cls", CLASSES)
def test_class_gives_what_its_function_gives_and_pickles(cls):
    labels = torch.tensor([[1, 1, 0], [0, 1, 1], [0, 0, 0]])
    weights = torch.tensor([1.0, 0.5, 2.0])
    name = "inner_product" if cls is sim.InnerProduct else cls.__name__.lower()
    similarity = pickle.loads(pickle.dumps(cls(weights)))
    torch.testing.assert_close(similarity(labels), getattr(sim, name)(labels, weights=weights))


def test_class_with_a_negative_weight_is_rejected():
    with pytest.raises(ValueError, match=r"`weights` must be >= 0, got -1\.0"):
        sim.Jaccard(torch.tensor([1.0, -1.0]))


def test_sum_scale_and_clamp_combine_with_any_callable():
    labels = torch.tensor([[1, 1, 0], [0, 1, 0]])
    mixed = 0.25 * sim.Jaccard() + sim.Dice() * 0.75 + (lambda a, b: torch.ones(len(a), len(b)))
    expected = 0.25 * sim.jaccard(labels) + 0.75 * sim.dice(labels) + 1
    torch.testing.assert_close(mixed(labels), expected)
    other_order = (lambda a, b: torch.ones(len(a), len(b))) + sim.Dice()
    torch.testing.assert_close(other_order(labels), sim.dice(labels) + 1)
    torch.testing.assert_close(mixed.clamp(max=1.5)(labels), expected.clamp(max=1.5))


def test_sum_with_a_number_and_product_with_a_similarity_raise():
    with pytest.raises(TypeError):
        sim.Jaccard() + 1
    with pytest.raises(TypeError):
        sim.Jaccard() * sim.Dice()


def test_soft_cosine_with_the_identity_is_cosine():
    labels = torch.tensor([[1, 1, 0], [0, 1, 1], [0, 0, 0]])
    torch.testing.assert_close(sim.SoftCosine(torch.eye(3))(labels), sim.cosine(labels))


def test_soft_cosine_worked_by_hand():
    matrix = torch.tensor([[1.0, 0.5], [0.5, 1.0]])
    labels = torch.tensor([[1, 0], [1, 1]])
    # y R y' = 1.5, y R y = 1, y' R y' = 3
    assert sim.SoftCosine(matrix)(labels)[0, 1].item() == pytest.approx(1.5 / math.sqrt(3))


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.float64])
def test_soft_cosine_of_labels_at_right_angles_is_exactly_zero(dtype):
    vectors, _ = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(0)).double())
    similarity = sim.SoftCosine.from_vectors(vectors)
    assert similarity(torch.eye(8).to(dtype)).tolist() == torch.eye(8).tolist()


def test_soft_cosine_from_cooccurrence_uses_the_cosines_of_their_columns():
    labels = torch.tensor([[1, 1, 0], [1, 1, 0], [1, 0, 1], [0, 0, 1]])
    one_label_each = torch.eye(3)
    expected = torch.from_numpy(cosine_similarity(labels.T.numpy())).float()
    torch.testing.assert_close(sim.SoftCosine.from_cooccurrence(labels)(one_label_each), expected)


def test_soft_cosine_of_a_label_that_never_occurs_is_similar_to_itself_only():
    similarity = sim.SoftCosine.from_cooccurrence(torch.tensor([[1, 0], [1, 0]]))
    assert similarity(torch.eye(2)).tolist() == [[1.0, 0.0], [0.0, 1.0]]


@pytest.mark.parametrize(
    ("relation", "message"),
    [
        (torch.ones(2, 3), r"square matrix \(L, L\), got shape \(2, 3\)"),
        (torch.zeros(0, 0), r"`label_similarity` must have at least one label, got shape \(0, 0\)"),
        (torch.tensor([[1.0, 0.2], [0.3, 1.0]]), "finite and symmetric"),
        (torch.tensor([[1.0, float("nan")], [float("nan"), 1.0]]), "finite and symmetric"),
        (torch.tensor([[0.0, 0.0], [0.0, 1.0]]), r"diagonal above 0, got 0\.0"),
        (torch.tensor([[1.0, 2.0], [2.0, 1.0]]), r"positive semi-definite, got an eigenvalue of -1"),
    ],
)
def test_soft_cosine_of_an_invalid_matrix_is_rejected(relation, message):
    with pytest.raises(ValueError, match=message):
        sim.SoftCosine(relation)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.zeros(5, 0), r"at least one label, got \(0, 5\)"),
        (torch.tensor([[1.0, math.nan]]), r"in \[0, 1\], got nan at row 0, label 1"),
        (torch.tensor([[1, 2]]), r"in \[0, 1\], got 2\.0 at row 0, label 1"),
        (torch.tensor([1, 0]), r"matrix of shape \(N, L\), got shape \(2,\)"),
    ],
)
def test_soft_cosine_from_invalid_labels_is_rejected(labels, message):
    with pytest.raises(ValueError, match=message):
        sim.SoftCosine.from_cooccurrence(labels)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (torch.tensor([[1.0, 0.0], [math.nan, 1.0]]), "must be finite, got NaN or infinity in the vector of label 1"),
        (torch.tensor([[math.inf, 0.0], [0.0, 1.0]]), "must be finite, got NaN or infinity in the vector of label 0"),
        (torch.zeros(0, 3), r"must have shape \(L, d\), .* at least one label, got \(0, 3\)"),
        (torch.zeros(3), r"must have shape \(L, d\), .*, got \(3,\)"),
    ],
)
def test_soft_cosine_from_invalid_vectors_is_rejected(vectors, message):
    with pytest.raises(ValueError, match=message):
        sim.SoftCosine.from_vectors(vectors)


def test_soft_cosine_from_labels_without_rows_makes_each_label_similar_to_itself_only():
    assert sim.SoftCosine.from_cooccurrence(torch.zeros(0, 2))(torch.eye(2)).tolist() == [[1.0, 0.0], [0.0, 1.0]]


@pytest.mark.parametrize("kind", ["inverse", "log_count", "log_rank"])
@pytest.mark.parametrize(("bad", "shown"), [(math.nan, "nan"), (3.0, r"3\.0"), (-1.0, r"-1\.0")])
def test_inverse_frequency_weights_reject_labels_outside_0_1(kind, bad, shown):
    with pytest.raises(ValueError, match=rf"in \[0, 1\], got {shown} at row 0, label 1"):
        sim.inverse_frequency_weights(torch.tensor([[1.0, bad]]), kind=kind)


def test_soft_cosine_with_another_number_of_labels_is_rejected():
    with pytest.raises(ValueError, match="must have 2 columns like `label_similarity`, got 3"):
        sim.SoftCosine(torch.eye(2))(torch.zeros(1, 3))


def test_inverse_frequency_weights_by_hand():
    labels = torch.tensor([[1, 1, 0, 0]] * 2 + [[1, 0, 1, 0]] * 2)
    assert sim.inverse_frequency_weights(labels).tolist() == [0.25, 0.5, 0.5, 1.0]
    log_count = sim.inverse_frequency_weights(labels, kind="log_count")
    torch.testing.assert_close(log_count, torch.tensor([1 / math.log(c + 2) for c in (4, 2, 2, 0)]))
    log_rank = sim.inverse_frequency_weights(labels, kind="log_rank")
    torch.testing.assert_close(log_rank, torch.tensor([1 / math.log(r + 1) for r in (4, 2, 2, 1)]))


def test_inverse_frequency_weights_of_an_unknown_kind_is_rejected():
    with pytest.raises(ValueError, match="got 'idf'"):
        sim.inverse_frequency_weights(torch.ones(1, 1), kind="idf")


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("name", SETS)
def test_similarity_has_the_gradient_of_finite_differences(name, paired):
    generator = torch.Generator().manual_seed(0)
    labels, ref_labels = torch.rand(2, 4, 3, generator=generator)
    weights = torch.rand(3, generator=generator) + 0.2
    labels.requires_grad_(), weights.requires_grad_()
    result = getattr(sim, name)(labels, ref_labels, weights=weights, paired=paired)
    gradients = torch.autograd.grad(result.sum(), [labels, weights], allow_unused=True)
    step = 1e-2
    for value, gradient in zip((labels, weights), gradients, strict=True):
        for index in np.ndindex(*value.shape):
            sums = []
            for sign in (1, -1):
                moved = {"labels": labels.detach().clone(), "weights": weights.detach().clone()}
                moved["labels" if value is labels else "weights"][index] += sign * step
                sums.append(getattr(sim, name)(moved["labels"], ref_labels, weights=moved["weights"], paired=paired))
            expected = ((sums[0] - sums[1]).sum() / (2 * step)).item()
            assert gradient[index].item() == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_similarity_of_rows_that_differ_everywhere_is_exactly_zero_under_hamming(dtype):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 2, (50, 9), generator=generator).to(dtype)
    weights = torch.rand(9, generator=generator, dtype=torch.float64)
    assert sim.hamming(labels, 1 - labels, weights=weights).diagonal().tolist() == [0.0] * 50


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_similarity_of_sets_that_share_little_is_above_zero(dtype):
    labels = torch.tensor([[1e-14, 1.0], [1.0, 0.0]], dtype=dtype)
    for similarity in (sim.InnerProduct(), sim.Jaccard(), sim.Dice(), sim.Overlap(), sim.Cosine()):
        assert similarity(labels)[0, 1] > 0
    shared = sim.inner_product(torch.ones(1, 1, dtype=dtype), weights=torch.tensor([1e-15]))
    assert shared.item() == pytest.approx(1e-15, rel=1e-6)


def test_cosine_of_sets_at_one_angle_is_equal_to_the_last_bit_whatever_their_sizes():
    sizes = [(p, s, t) for s in range(1, 17) for t in range(s, 17) for p in range(1, s + 1)]
    place = torch.arange(32)
    first = torch.stack([place < s for _, s, _ in sizes])
    second = torch.stack([(place >= s - p) & (place < s - p + t) for p, s, t in sizes])
    found = {}
    for (p, s, t), value in zip(sizes, sim.cosine(first, second, paired=True).tolist(), strict=True):
        found.setdefault(Fraction(p * p, s * t), set()).add(value)
    assert max(map(len, found.values())) == 1


# Comparison with a threshold.


def nested(p, q):
    """All of q labels, and p of them."""
    return torch.tensor([[1] * q, [1] * p + [0] * (q - p)])


def crossed(p, q):
    """Two sets of q labels that share p."""
    return torch.tensor([[1] * q + [0] * (q - p), [0] * (q - p) + [1] * q])


# For a fraction p/q: the similarity, the label sets, and the exact value.
ATTAINED = {
    "jaccard": (lambda p, q: sim.Jaccard(), nested, Fraction),
    "jaccard, weighted": (lambda p, q: sim.Jaccard(torch.full((q,), 0.1)), nested, Fraction),
    "inner product": (lambda p, q: sim.InnerProduct(torch.full((q,), 1 / q)), nested, Fraction),
    "inner product, float64": (lambda p, q: sim.InnerProduct(torch.full((q,), 1 / q).double()), nested, Fraction),
    "hamming": (lambda p, q: sim.Hamming(), nested, Fraction),
    "hamming, weighted": (lambda p, q: sim.Hamming(torch.full((q,), 0.3)), nested, Fraction),
    "dice": (lambda p, q: sim.Dice(), crossed, Fraction),
    "overlap": (lambda p, q: sim.Overlap(), crossed, Fraction),
    "cosine": (lambda p, q: sim.Cosine(), crossed, Fraction),
    "scaled": (lambda p, q: 3 * sim.Dice() * (1 / 3), crossed, Fraction),
    "clamped": (lambda p, q: sim.Dice().clamp(max=1 / 3), crossed, lambda p, q: min(Fraction(p, q), Fraction(1, 3))),
    "sum": (lambda p, q: 0.1 * sim.Dice() + 0.2 * sim.Overlap() + 0.7 * sim.Cosine(), crossed, Fraction),
    "soft cosine": (lambda p, q: sim.SoftCosine(torch.eye(2 * q - p)), crossed, Fraction),
    "jaccard and soft cosine": (
        lambda p, q: 0.5 * sim.Jaccard() + 0.5 * sim.SoftCosine(torch.eye(2 * q - p)),
        crossed,
        lambda p, q: Fraction(p, 2 * q - p) / 2 + Fraction(p, q) / 2,
    ),
}


def assert_compared_exactly(values, fractions):
    """Compare each value, which is a fraction up to rounding errors, with each fraction."""
    for threshold in fractions:
        assert sim.exceeds(values, float(threshold)).tolist() == [one > threshold for one in fractions], threshold
        assert sim.reaches(values, float(threshold)).tolist() == [one >= threshold for one in fractions], threshold


@pytest.mark.parametrize("name", ATTAINED)
@pytest.mark.parametrize("dtype", LABEL_DTYPES)
def test_similarity_compares_exactly_with_a_threshold_whatever_the_dtype_of_labels(name, dtype):
    similarity, make_sets, exact = ATTAINED[name]
    values = [similarity(p, q)(*make_sets(p, q).to(dtype).split(1)).squeeze() for p, q in FRACTIONS]
    assert_compared_exactly(torch.stack(values), [exact(p, q) for p, q in FRACTIONS])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_similarity_of_every_dtype_compares_exactly_with_a_threshold(dtype):
    fractions = [Fraction(sign * p, q) for p, q in FRACTIONS for sign in (1, -1)]
    assert_compared_exactly(torch.tensor([float(one) for one in fractions], dtype=dtype), fractions)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int16, torch.int64])
def test_similarity_of_integers_compares_exactly_with_a_threshold(dtype):
    assert_compared_exactly(torch.tensor([0, 1]).to(dtype), [Fraction(0), Fraction(1)])
    assert sim.exceeds(torch.tensor([0, 1]).to(dtype), 2 / 3).tolist() == [False, True]


def test_threshold_of_0_is_exact_and_thresholds_may_be_infinite_or_overflow_the_dtype():
    values = torch.tensor([-torch.inf, -1e-30, 0.0, 1e-30, torch.inf, torch.nan])
    assert sim.exceeds(values, 0.0).tolist() == [False, False, False, True, True, False]
    assert sim.reaches(values, -0.0).tolist() == [False, False, True, True, True, False]
    assert sim.exceeds(values, -torch.inf).tolist() == [False, True, True, True, True, False]
    assert sim.reaches(values, torch.inf).tolist() == [False, False, False, False, True, False]
    assert not sim.exceeds(torch.tensor([60_000.0], dtype=torch.float16), 1e6)


def test_a_class_in_place_of_a_similarity_raises_a_type_error():
    with pytest.raises(TypeError, match=r"must be an instance, got the class: write `Jaccard\(\)`"):
        sim.check_similarity(sim.Jaccard)
    with pytest.raises(TypeError, match="must be callable, got int"):
        sim.check_similarity(3)
