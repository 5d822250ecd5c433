"""Label graphs and their heads against values computed by hand, loops and gradients; pooling and unfrozen parts."""

import copy
import math
import pickle
from contextlib import contextmanager

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn

from mlmetric.heads import (
    FrozenBackbone,
    GraphConvolution,
    LabelGraphHead,
    SemanticProjectionHead,
    cooccurrence_adjacency,
)
from mlmetric.label_vectors import cooccurrence_vectors
from mlmetric.training import TrainingConfig, apply_in_batches, fit_classifier

CONVENTIONS = ["paper", "code"]
DISTANCES = ["cosine", "euclidean"]


@contextmanager
def same_initial_weights():
    """Give modules that are made inside the same initial weights each time, and restore the global generator."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def state_of(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def random_labels(generator, rows=40, labels=5):
    shares = torch.tensor([0.7, 0.5, 0.3, 0.2, 0.1])[:labels]
    return (torch.rand(rows, labels, generator=generator) < shares).long()


# The label graph

# Four labels on eight rows. Counts: 6, 2, 2, 2. Together: 0 with 1 twice, 0 with 2 once, 2 with 3 once.
#
# P(j|i) in row i and column j, without the diagonal:
#     -    2/6  1/6  0
#     1    -    0    0
#     1/2  0    -    1/2
#     0    0    1/2  -
# At 0.4 label 0 implies none, 1 implies 0, 2 implies 0 and 3, and 3 implies 2.
TABLE = torch.tensor(
    [
        [1, 1, 0, 0],
        [1, 1, 0, 0],
        [1, 0, 1, 0],
        [0, 0, 1, 1],
        [0, 0, 0, 1],
        [1, 0, 0, 0],
        [1, 0, 0, 0],
        [1, 0, 0, 0],
    ]
)


def test_cooccurrence_adjacency_of_the_paper_equals_values_computed_by_hand():
    # The neighbours are the labels that a label implies, with weights of 0.2 in sum; the label itself has 0.8:
    #     0.8  0    0    0       sums to 0.8
    #     0.2  0.8  0    0       sums to 1
    #     0.1  0    0.8  0.1     sums to 1
    #     0    0    0.2  0.8     sums to 1
    # Each entry (i, j) is divided by the roots of the sums of rows i and j: row 0 and column 0 by root 0.8, and
    # entry (0, 0) by 0.8.
    root = math.sqrt(0.8)
    expected = torch.tensor(
        [
            [1.0, 0.0, 0.0, 0.0],
            [0.2 / root, 0.8, 0.0, 0.0],
            [0.1 / root, 0.0, 0.8, 0.1],
            [0.0, 0.0, 0.2, 0.8],
        ]
    )
    adjacency = cooccurrence_adjacency(TABLE)
    assert adjacency.dtype == torch.float32
    torch.testing.assert_close(adjacency, expected)
    torch.testing.assert_close(
        cooccurrence_adjacency(TABLE, threshold=0.4, neighbor_weight=0.2, convention="paper"), expected
    )


def test_cooccurrence_adjacency_of_the_code_equals_values_computed_by_hand():
    # The matrix of implications, with columns scaled to the sum 0.25 and 1 on the diagonal:
    #     1      0  0     0        sums to 1
    #     0.125  1  0     0        sums to 1.125
    #     0.125  0  1     0.25     sums to 1.375
    #     0      0  0.25  1        sums to 1.25
    # Each entry (i, j) is divided by the roots of the sums of rows i and j, and the matrix is transposed: the
    # neighbours are the labels that imply a label.
    expected = torch.tensor(
        [
            [1.0, 0.125 / math.sqrt(1 * 1.125), 0.125 / math.sqrt(1 * 1.375), 0.0],
            [0.0, 1 / 1.125, 0.0, 0.0],
            [0.0, 0.0, 1 / 1.375, 0.25 / math.sqrt(1.375 * 1.25)],
            [0.0, 0.0, 0.25 / math.sqrt(1.375 * 1.25), 1 / 1.25],
        ]
    )
    torch.testing.assert_close(cooccurrence_adjacency(TABLE, convention="code"), expected)


def test_cooccurrence_adjacency_conventions_have_opposite_neighbours():
    takes_from = {convention: cooccurrence_adjacency(TABLE, convention=convention) > 0 for convention in CONVENTIONS}
    assert takes_from["paper"].int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 1], [0, 0, 1, 1]]
    assert torch.equal(takes_from["code"], takes_from["paper"].T)


def adjacency_of_the_authors_code(labels, threshold):
    """The published code: `gen_A` and `gen_adj` of ML-GCN, on the counts of its data file."""
    labels = np.asarray(labels, dtype=np.float64)
    nums = labels.sum(0)
    adj = labels.T @ labels
    np.fill_diagonal(adj, 0)
    with np.errstate(invalid="ignore"):  # 0 / 0 for labels without rows: NaN reaches no threshold
        adj = adj / nums[:, None]
    b = (adj >= threshold).astype(np.float64)
    b = b * 0.25 / np.maximum(b.sum(0, keepdims=True), 1)
    b = b + np.identity(len(b))
    d = np.diag(b.sum(1) ** -0.5)
    return (b @ d).T @ d


@pytest.mark.parametrize("threshold", [0.2, 0.4, 0.6])
def test_cooccurrence_adjacency_of_the_code_equals_that_of_the_published_code(threshold, generator):
    for _ in range(10):
        labels = random_labels(generator)
        labels[:, 4] *= (torch.rand(1, generator=generator) < 0.5).long()  # sometimes without rows
        adjacency = cooccurrence_adjacency(labels, threshold=threshold, convention="code")
        np.testing.assert_allclose(adjacency, adjacency_of_the_authors_code(labels, threshold), atol=1e-6)


def adjacency_by_loops(labels, threshold, p):
    """Equations 6 to 8 of the paper for each entry."""
    rows = [[float(share) for share in row] for row in labels]
    num_labels = len(rows[0])
    weights = [[0.0] * num_labels for _ in range(num_labels)]
    for i in range(num_labels):
        occurs = sum(row[i] for row in rows)
        neighbors = [
            j
            for j in range(num_labels)
            if j != i and occurs > 0 and sum(row[i] * row[j] for row in rows) / occurs >= threshold
        ]
        for j in neighbors:
            weights[i][j] = p / len(neighbors)
        weights[i][i] = 1 - p
    degrees = [sum(row) for row in weights]
    return [[weights[i][j] / math.sqrt(degrees[i] * degrees[j]) for j in range(num_labels)] for i in range(num_labels)]


@pytest.mark.parametrize(("threshold", "p"), [(0.05, 0.2), (0.33, 0.7), (0.5, 0.2), (1.0, 0.4)])
def test_cooccurrence_adjacency_of_hard_and_soft_labels_equals_the_equations(threshold, p, generator):
    hard = random_labels(generator)
    soft = hard * torch.rand(40, 5, generator=generator)
    for labels in (hard, soft, soft.double(), hard.bool()):
        adjacency = cooccurrence_adjacency(labels, threshold=threshold, neighbor_weight=p)
        np.testing.assert_allclose(adjacency, adjacency_by_loops(labels, threshold, p), atol=1e-6)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_labels_without_neighbours_or_rows_are_only_adjacent_to_themselves(convention):
    # Labels 0 and 1 occur together, label 2 alone, label 3 in no row.
    labels = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0]])
    expected = torch.tensor([[0.8, 0.2, 0, 0], [0.2, 0.8, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    torch.testing.assert_close(cooccurrence_adjacency(labels, convention=convention), expected)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("labels", [torch.zeros(0, 3), torch.zeros(4, 3), torch.eye(3)])
def test_cooccurrence_adjacency_without_cooccurrence_is_the_identity(labels, convention):
    torch.testing.assert_close(cooccurrence_adjacency(labels, convention=convention), torch.eye(3))


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_cooccurrence_adjacency_with_neighbor_weight_0_is_the_identity(convention):
    adjacency = cooccurrence_adjacency(TABLE, neighbor_weight=0, convention=convention)
    torch.testing.assert_close(adjacency, torch.eye(4))


@pytest.mark.parametrize("num_rows", [3, 7, 10, 49, 100])
def test_probability_equal_to_the_threshold_makes_a_neighbour(num_rows):
    # Label 0 in each row, label 1 in `together` of them, such as 7 of 25, or 29 of 100 at 0.29.
    for together in range(1, num_rows + 1):
        labels = torch.ones(num_rows, 2)
        labels[together:, 1] = 0
        assert cooccurrence_adjacency(labels, threshold=together / num_rows)[0, 1] > 0
        if together < num_rows:
            assert cooccurrence_adjacency(labels, threshold=(together + 0.01) / num_rows)[0, 1] == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_soft_probability_equal_to_the_threshold_makes_a_neighbour(dtype):
    for share in (0.1, 0.3, 0.4, 0.6, 0.7, 0.9):
        labels = torch.tensor([[1, share], [1, share]], dtype=dtype)
        assert cooccurrence_adjacency(labels, threshold=share)[0, 1] > 0


def test_threshold_of_1_requires_that_labels_always_occur_together():
    # Label 1 always occurs with 0; label 2 once without it.
    labels = torch.tensor([[1, 1, 0], [1, 0, 1], [1, 0, 1], [0, 0, 1]])
    assert (cooccurrence_adjacency(labels, threshold=1) > 0).int().tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]


@settings(max_examples=50, deadline=None)
@given(
    labels=hnp.arrays(np.uint8, st.tuples(st.integers(0, 7), st.integers(1, 5)), elements=st.integers(0, 1)),
    threshold=st.floats(0.01, 1),
    p=st.floats(0, 0.95),
    convention=st.sampled_from(CONVENTIONS),
    order=st.permutations(range(5)),
)
def test_cooccurrence_adjacency_of_any_labels_has_a_largest_eigenvalue_of_1(labels, threshold, p, convention, order):
    options = {"threshold": threshold, "neighbor_weight": p, "convention": convention}
    adjacency = cooccurrence_adjacency(torch.from_numpy(labels), **options)
    assert (adjacency >= 0).all()
    assert (adjacency.diagonal() > 0).all()
    # It is similar to a stochastic matrix: the largest absolute eigenvalue is 1.
    np.testing.assert_allclose(np.abs(np.linalg.eigvals(adjacency.double().numpy())).max(), 1, atol=1e-3)
    order = [label for label in order if label < labels.shape[1]]
    other = cooccurrence_adjacency(torch.from_numpy(labels[:, order]), **options)
    torch.testing.assert_close(other, adjacency[order][:, order])


def test_cooccurrence_adjacency_rows_sum_to_1_if_each_label_has_a_neighbour():
    labels = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 1, 1], [1, 0, 1], [0, 1, 1]])
    adjacency = cooccurrence_adjacency(labels, threshold=0.5)
    torch.testing.assert_close(adjacency.sum(dim=1), torch.ones(3))
    torch.testing.assert_close(adjacency.diagonal(), torch.full((3,), 0.8))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"threshold": 0}, r"`threshold` must be in \(0, 1\], got 0\."),
        ({"threshold": -0.5}, r"`threshold` .* got -0\.5\."),
        ({"threshold": 1.25}, r"`threshold` .* got 1\.25\."),
        ({"threshold": float("nan")}, r"`threshold` .* got nan\."),
        ({"neighbor_weight": 1}, r"`neighbor_weight` must be in \[0, 1\), got 1\."),
        ({"neighbor_weight": -0.1}, r"`neighbor_weight` .* got -0\.1\."),
        ({"neighbor_weight": float("nan")}, r"`neighbor_weight` .* got nan\."),
        ({"convention": "Paper"}, r"`convention` must be 'paper' or 'code', got 'Paper'\."),
    ],
)
def test_cooccurrence_adjacency_rejects_settings_out_of_range(setting, message):
    with pytest.raises(ValueError, match=message):
        cooccurrence_adjacency(TABLE, **setting)


def test_cooccurrence_adjacency_rejects_invalid_labels():
    with pytest.raises(ValueError, match=r"got shape \(3,\)"):
        cooccurrence_adjacency(torch.ones(3))
    with pytest.raises(ValueError, match=r"numbers in \[0, 1\], got 3\.0 at row 0, label 1"):
        cooccurrence_adjacency(torch.tensor([[1, 3]]))
    with pytest.raises(TypeError, match="MultiLabelBinarizer"):
        cooccurrence_adjacency([["sun"], ["sun", "sea"]])


# The convolution


def test_graph_convolution_is_the_product_of_three_matrices(generator):
    adjacency = torch.tensor([[1.0, 0.0, 0.0], [0.5, 1.0, 0.25], [0.0, 0.0, 2.0]])
    convolution = GraphConvolution(adjacency, 2, 4)
    vectors = torch.randn(3, 2, generator=generator)
    mixed = torch.stack([vectors[0], 0.5 * vectors[0] + vectors[1] + 0.25 * vectors[2], 2 * vectors[2]])
    torch.testing.assert_close(convolution(vectors), mixed @ convolution.weight)


def test_adjacency_of_a_graph_convolution_is_a_buffer():
    given_adjacency = torch.eye(3, dtype=torch.float64).requires_grad_()
    convolution = GraphConvolution(given_adjacency, 2, 4)
    assert [name for name, _ in convolution.named_parameters()] == ["weight"]
    assert set(convolution.state_dict()) == {"adjacency", "weight"}
    assert convolution.adjacency.dtype == torch.float32
    assert not convolution.adjacency.requires_grad
    with torch.no_grad():
        given_adjacency.zero_()
    assert torch.equal(convolution.adjacency, torch.eye(3))
    assert convolution.to(torch.float64).adjacency.dtype == torch.float64
    assert convolution.to("meta").adjacency.device.type == "meta"


def test_initial_weights_of_a_graph_convolution_are_bounded():
    with same_initial_weights():
        weight = GraphConvolution(torch.eye(2), 50, 100).weight
    assert 0.099 < weight.abs().max() <= 0.1
    assert weight.mean().abs() < 0.005


# ML-GCN


def make_label_graph_head(hidden_features=3):
    with same_initial_weights():
        return LabelGraphHead(
            4, torch.randn(4, 5), cooccurrence_adjacency(TABLE, convention="paper"), hidden_features=hidden_features
        )


def test_label_graph_head_computes_the_scores_of_the_paper(generator):
    head = make_label_graph_head()
    features = torch.randn(2, 4, generator=generator)
    # x . (A LeakyReLU(A Z W1) W2), in float64, with the matrix computed by hand above.
    graph = np.array([[1, 0, 0, 0], [0.2236068, 0.8, 0, 0], [0.1118034, 0, 0.8, 0.1], [0, 0, 0.2, 0.8]])
    z, first, second = (
        value.detach().double().numpy() for value in (head.label_vectors, head.first.weight, head.second.weight)
    )
    hidden = graph @ z @ first
    assert (hidden < 0).any()
    assert (hidden > 0).any()
    hidden = np.where(hidden > 0, hidden, 0.2 * hidden)
    classifiers = graph @ hidden @ second
    expected = features.double().numpy() @ classifiers.T
    np.testing.assert_allclose(head(features).detach(), expected, rtol=1e-4, atol=1e-5)


def test_label_graph_head_has_two_weights_and_no_bias():
    head = make_label_graph_head(hidden_features=3)
    assert {name: tuple(value.shape) for name, value in head.named_parameters()} == {
        "first.weight": (5, 3),
        "second.weight": (3, 4),
    }
    assert head(torch.zeros(2, 4)).tolist() == [[0.0] * 4] * 2
    default = LabelGraphHead(6, torch.eye(2), torch.eye(2))
    assert default.first.weight.shape == (2, 1024)
    assert default.second.weight.shape == (1024, 6)


def test_label_graph_head_standardizes_features_first(generator):
    head = make_label_graph_head()
    features = 5 + 3 * torch.randn(20, 4, generator=generator)
    scores = head(features)
    head.standardize.fit(features)
    assert not torch.allclose(head(features), scores)
    torch.testing.assert_close(head(features).mean(dim=0), torch.zeros(4), atol=1e-5, rtol=0)


def test_label_graph_head_copies_vectors_and_adjacency():
    vectors, adjacency = torch.ones(2, 3, dtype=torch.float64), torch.eye(2)
    head = LabelGraphHead(4, vectors, adjacency, hidden_features=2)
    vectors.zero_()
    adjacency.zero_()
    assert torch.equal(head.label_vectors, torch.ones(2, 3))
    assert torch.equal(head.first.adjacency, torch.eye(2))
    assert torch.equal(head.second.adjacency, torch.eye(2))


def entropy_by_loops(logits, labels):
    terms = [
        math.log1p(math.exp(-score)) if label else math.log1p(math.exp(score))
        for row, marks in zip(logits.tolist(), labels.tolist(), strict=True)
        for score, label in zip(row, marks, strict=True)
    ]
    return sum(terms) / len(terms)


def test_label_graph_head_loss_is_binary_cross_entropy_of_its_probabilities(generator):
    head = make_label_graph_head()
    logits = torch.randn(6, 4, generator=generator)
    labels = torch.randint(0, 2, (6, 4), generator=generator)
    assert head.loss(logits, labels).item() == pytest.approx(entropy_by_loops(logits, labels), rel=1e-5)
    torch.testing.assert_close(head.probabilities(logits), 1 / (1 + (-logits).exp()))
    assert head.loss(torch.tensor([[1000.0, -1000.0]]), torch.tensor([[0, 1]])).item() == 1000.0


def check_gradients(head, features, last=lambda scores: scores):
    """Compare the gradients of features and parameters with finite differences."""
    head = head.double()
    names = [name for name, _ in head.named_parameters()]

    def scores(features, *values):
        return last(torch.func.functional_call(head, dict(zip(names, values, strict=True)), (features,)))

    return torch.autograd.gradcheck(scores, (features.double().requires_grad_(), *head.parameters()))


def test_label_graph_head_gradients_are_right(generator):
    assert check_gradients(make_label_graph_head(), torch.randn(3, 4, generator=generator))


def test_label_graph_head_from_labels_computes_adjacency_and_vectors(generator):
    labels = random_labels(generator)
    with same_initial_weights():
        head = LabelGraphHead.from_labels(6, labels)
    with same_initial_weights():
        expected = LabelGraphHead(6, cooccurrence_vectors(labels), cooccurrence_adjacency(labels))
    assert set(head.state_dict()) == set(expected.state_dict())
    assert all(torch.equal(value, head.state_dict()[name]) for name, value in expected.state_dict().items())
    assert head.first.weight.shape == (5, 1024)


def test_label_graph_head_from_labels_uses_its_arguments():
    vectors = torch.arange(8.0).reshape(4, 2)
    head = LabelGraphHead.from_labels(
        6,
        TABLE,
        label_vectors=vectors,
        hidden_features=7,
        threshold=0.3,
        neighbor_weight=0.5,
        convention="code",
    )
    assert torch.equal(head.label_vectors, vectors)
    assert head.first.weight.shape == (2, 7)
    adjacency = cooccurrence_adjacency(TABLE, threshold=0.3, neighbor_weight=0.5, convention="code")
    for one in ({"threshold": 0.4}, {"neighbor_weight": 0.2}, {"convention": "paper"}):
        settings = {"threshold": 0.3, "neighbor_weight": 0.5, "convention": "code"} | one
        assert not torch.equal(cooccurrence_adjacency(TABLE, **settings), adjacency)
    assert torch.equal(head.first.adjacency, adjacency)
    assert torch.equal(head.second.adjacency, adjacency)


def test_label_graph_head_from_labels_rejects_invalid_arguments():
    with pytest.raises(TypeError, match="treshold"):
        LabelGraphHead.from_labels(6, TABLE, treshold=0.3)
    with pytest.raises(ValueError, match=r"`threshold` must be in \(0, 1\], got 2"):
        LabelGraphHead.from_labels(6, TABLE, threshold=2)
    with pytest.raises(ValueError, match=r"`adjacency` must have shape \(3, 3\), got \(4, 4\)"):
        LabelGraphHead.from_labels(6, TABLE, label_vectors=torch.eye(3))


@pytest.mark.parametrize(
    ("vectors", "adjacency", "message"),
    [
        (torch.zeros(3), torch.eye(3), r"`label_vectors` must have shape \(L, d\), got \(3,\)\."),
        (torch.zeros(1, 3, 2), torch.eye(3), r"`label_vectors` .* got \(1, 3, 2\)\."),
        (torch.zeros(3, 2), torch.eye(2), r"`adjacency` must have shape \(3, 3\), got \(2, 2\)\."),
        (torch.zeros(3, 2), torch.zeros(3), r"`adjacency` must have shape \(3, 3\), got \(3,\)\."),
        (torch.full((3, 2), float("nan")), torch.eye(3), "must be finite, got NaN or infinity"),
        (torch.zeros(3, 2), torch.eye(3) / 0, "must be finite, got NaN or infinity"),
    ],
)
def test_label_graph_head_rejects_shapes_that_do_not_match(vectors, adjacency, message):
    with pytest.raises(ValueError, match=message):
        LabelGraphHead(4, vectors, adjacency)


# The semantic projection

# Directions of 0, 60, 90 and 180 degrees, and a zero vector. Lengths do not matter.
DIRECTIONS = torch.tensor([[2.0, 0.0], [0.5, 0.75**0.5], [0.0, 3.0], [-1.0, 0.0], [0.0, 0.0]])


def test_semantic_graph_equals_values_computed_by_hand():
    # Cosines above 0: 0 with 1 1/2, 1 with 2 root 3/4. With one neighbour each, 0 and 2 choose 1, and 1 chooses 2; that
    # 0 chose 1 joins them both ways. Sums with 1 for each itself: 3/2, 3/2 + c, 1 + c, 1, 1, where c is root 3/4.
    c = math.sqrt(0.75)
    first, second = 0.5 / math.sqrt(1.5 * (1.5 + c)), c / math.sqrt((1.5 + c) * (1 + c))
    expected = torch.tensor(
        [
            [1 / 1.5, first, 0, 0, 0],
            [first, 1 / (1.5 + c), second, 0, 0],
            [0, second, 1 / (1 + c), 0, 0],
            [0, 0, 0, 1, 0],
            [0, 0, 0, 0, 1],
        ]
    )
    for num_neighbors in (1, 2, 3, 100):
        head = SemanticProjectionHead(3, DIRECTIONS, num_neighbors=num_neighbors)
        torch.testing.assert_close(head.refinement.adjacency, expected)


def test_semantic_graph_has_the_nearest_neighbours_only():
    # At 0, 10, 30 and 60 degrees the nearest neighbours are the second, first, second and third.
    angles = torch.tensor([0.0, 10.0, 30.0, 60.0]).deg2rad()
    vectors = torch.stack([angles.cos(), angles.sin()], dim=1)

    def edges(num_neighbors):
        adjacency = SemanticProjectionHead(3, vectors, num_neighbors=num_neighbors).refinement.adjacency
        torch.testing.assert_close(adjacency, adjacency.T)
        return (adjacency > 0).int().tolist()

    assert edges(0) == torch.eye(4).int().tolist()
    assert edges(1) == [[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 1], [0, 0, 1, 1]]
    assert edges(2) == [[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1], [0, 1, 1, 1]]
    assert edges(3) == [[1] * 4] * 4


def test_semantic_graph_has_no_edges_of_negative_cosine():
    angles = torch.tensor([0.0, 110.0, 230.0]).deg2rad()
    head = SemanticProjectionHead(3, torch.stack([angles.cos(), angles.sin()], dim=1))
    torch.testing.assert_close(head.refinement.adjacency, torch.eye(3))


def make_semantic_head(vectors=DIRECTIONS, in_features=3, **options):
    """Make a head without parameters of 0 or 1."""
    with same_initial_weights():
        head = SemanticProjectionHead(in_features, vectors, **options)
        with torch.no_grad():
            head.bias.normal_()
            head.scale.fill_(1.5)
    return head


def scores_by_loops(head, features):
    """Compute the documented scores in loops."""

    def unit(vector):
        length = math.sqrt(sum(number**2 for number in vector))
        return [number / length for number in vector] if length > 0 else vector

    def dot(first, second):
        return sum(x * y for x, y in zip(first, second, strict=True))

    vectors = [unit(vector) for vector in DIRECTIONS.tolist()]
    graph, weight = head.refinement.adjacency.tolist(), head.refinement.weight.tolist()
    labels = []
    for row, own in zip(graph, vectors, strict=True):
        mixed = [sum(share * vector[k] for share, vector in zip(row, vectors, strict=True)) for k in range(2)]
        refined = [dot(mixed, [weight[k][out] for k in range(2)]) for out in range(2)]
        labels.append(unit([x + y for x, y in zip(own, refined, strict=True)]))
    scores = []
    for feature in features.tolist():
        point = [
            dot(line, feature) + offset
            for line, offset in zip(head.projection.weight.tolist(), head.projection.bias.tolist(), strict=True)
        ]
        if head.distance == "cosine":
            near = [dot(unit(point), label) for label in labels]
        else:
            near = [1 - sum((x - y) ** 2 for x, y in zip(point, label, strict=True)) / 2 for label in labels]
        scores.append([head.scale.item() * x + b for x, b in zip(near, head.bias.tolist(), strict=True)])
    return scores


@pytest.mark.parametrize("distance", DISTANCES)
def test_semantic_head_scores_are_those_of_a_loop(distance, generator):
    head = make_semantic_head(distance=distance)
    features = 2 * torch.randn(4, 3, generator=generator)
    np.testing.assert_allclose(head(features).detach(), scores_by_loops(head, features), rtol=1e-4, atol=1e-5)


def test_length_of_the_projection_matters_for_euclidean_only(generator):
    features = torch.randn(4, 3, generator=generator)
    for distance in DISTANCES:
        head = make_semantic_head(distance=distance)
        with torch.no_grad():
            head.projection.bias.zero_()
            same = torch.allclose(head(features), head(5 * features), atol=1e-5)
        assert same == (distance == "cosine")


@pytest.mark.parametrize("distance", DISTANCES)
def test_initial_loss_of_the_semantic_head_is_close_to_log_2(distance, generator):
    labels = (torch.rand(400, 30, generator=generator) < 0.1).float()
    with same_initial_weights():
        head = SemanticProjectionHead(200, cooccurrence_vectors(labels), distance=distance, separation=0.0)
    with torch.no_grad():
        loss = head.loss(head(torch.randn(400, 200, generator=generator)), labels)
    assert loss < 2.5  # log 2 for probabilities of 0.5


def test_scores_are_similarities_to_the_projection(generator):
    features = 5 + 3 * torch.randn(6, 3, generator=generator)
    for distance in DISTANCES:
        head = make_semantic_head(DIRECTIONS[:1], distance=distance)
        with torch.no_grad():
            head.refinement.weight.zero_()  # the label vector is not refined
        head.standardize.fit(features)
        points, scores = head.project(features), head(features)
        assert points.shape == (6, 2)
        squares = (points[:, 0] - 1) ** 2 + points[:, 1] ** 2
        similarity = points[:, 0] if distance == "cosine" else 1 - squares / 2
        torch.testing.assert_close(scores[:, 0], 1.5 * similarity + head.bias)
        assert torch.allclose(points.norm(dim=1), torch.ones(6)) == (distance == "cosine")


def test_semantic_head_has_initial_scale_10_and_bias_0_and_standardises_features(generator):
    head = SemanticProjectionHead(3, DIRECTIONS)
    assert head.scale.item() == 10
    assert head.bias.tolist() == [0] * 5
    assert (head.distance, head.separation) == ("cosine", 0.1)
    features = 5 + 3 * torch.randn(20, 3, generator=generator)
    head.standardize.fit(features)
    fresh = SemanticProjectionHead(3, DIRECTIONS)
    fresh.load_state_dict({**head.state_dict(), "standardize.mean": torch.zeros(3), "standardize.scale": torch.ones(3)})
    standardized = (features - features.mean(dim=0)) / features.std(dim=0, correction=0)
    torch.testing.assert_close(head(features), fresh(standardized), atol=1e-4, rtol=1e-4)


def test_semantic_head_normalises_label_vectors_except_zero_vectors():
    vectors = DIRECTIONS.double().clone()
    head = SemanticProjectionHead(3, vectors)
    vectors.zero_()
    assert "label_vectors" in dict(head.named_buffers())
    assert "label_vectors" not in dict(head.named_parameters())
    torch.testing.assert_close(head.label_vectors.norm(dim=1), torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0]))


def test_semantic_head_keeps_zero_vectors_of_cooccurrence(generator):
    for _ in range(20):
        labels = (torch.rand(30, 8, generator=generator) < 0.3).long()
        labels[:, 3], labels[:, 5] = 0, 1
        lengths = SemanticProjectionHead(3, cooccurrence_vectors(labels)).label_vectors.norm(dim=1)
        torch.testing.assert_close(lengths, torch.tensor([1.0, 1, 1, 0, 1, 0, 1, 1]))


@pytest.mark.parametrize("distance", DISTANCES)
def test_semantic_head_of_zero_vectors_and_a_zero_projection_has_finite_scores_and_gradients(distance):
    head = make_semantic_head(torch.zeros(2, 3), distance=distance)
    with torch.no_grad():
        head.projection.bias.zero_()
    logits = head(torch.zeros(4, 3))
    similarity = 0 if distance == "cosine" else 1  # of two zero vectors
    torch.testing.assert_close(logits, (similarity * head.scale + head.bias).expand(4, 2))
    head.loss(logits, torch.tensor([[1, 0], [0, 1], [1, 1], [0, 0]])).backward()
    assert all(parameter.grad.isfinite().all() for parameter in head.parameters())


@pytest.mark.parametrize("distance", DISTANCES)
def test_semantic_head_supports_one_label(distance, generator):
    head = make_semantic_head(torch.tensor([[3.0, 4.0]]), distance=distance)
    logits = head(torch.randn(4, 3, generator=generator))
    labels = torch.tensor([[1], [0], [1], [1]])
    assert logits.shape == (4, 1)
    assert head.loss(logits, labels).item() == pytest.approx(entropy_by_loops(logits, labels), rel=1e-5)


def separation_by_loops(logits, labels):
    total = 0.0
    for row, marks in zip(logits.tolist(), labels.tolist(), strict=True):
        present = [score for score, mark in zip(row, marks, strict=True) if mark > 0]
        absent = [score for score, mark in zip(row, marks, strict=True) if mark == 0]
        total += math.log(1 + sum(math.exp(a - p) for a in absent for p in present))
    return total / len(logits)


@pytest.mark.parametrize("separation", [0.0, 0.1, 2.0])
def test_semantic_head_loss_is_cross_entropy_plus_ranking_loss(separation, generator):
    head = make_semantic_head(separation=separation)
    logits = 2 * torch.randn(8, 5, generator=generator)
    labels = torch.randint(0, 2, (8, 5), generator=generator)
    labels[0], labels[1] = 0, 1
    expected = entropy_by_loops(logits, labels) + separation * separation_by_loops(logits, labels)
    for given_labels in (labels, labels.bool(), labels.double()):
        assert head.loss(logits, given_labels).item() == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(head.probabilities(logits), 1 / (1 + (-logits).exp()))


def test_ranking_loss_treats_soft_labels_of_at_least_one_half_as_present(generator):
    head = make_semantic_head(separation=0.5)
    logits = torch.randn(3, 5, generator=generator)
    soft = torch.tensor([[0.1, 0, 0, 0.9, 0], [0.3, 0.2, 0.1, 0.5, 1], [0, 0, 0, 0, 0]])
    entropy = -(soft * logits.sigmoid().log() + (1 - soft) * (-logits).sigmoid().log()).mean()
    expected = entropy.item() + 0.5 * separation_by_loops(logits, (soft >= 0.5).float())
    assert head.loss(logits, soft).item() == pytest.approx(expected, rel=1e-5)


def test_ranking_loss_of_rows_with_all_or_no_labels_is_0(generator):
    head = make_semantic_head(separation=0.5)
    logits = torch.randn(2, 5, generator=generator, requires_grad=True)
    labels = torch.tensor([[0] * 5, [1] * 5])
    loss = head.loss(logits, labels)
    assert loss.item() == pytest.approx(entropy_by_loops(logits, labels), rel=1e-5)
    loss.backward()
    torch.testing.assert_close(logits.grad, (logits.detach().sigmoid() - labels) / 10)


def test_semantic_head_loss_is_finite_at_extreme_logits():
    head = SemanticProjectionHead(3, torch.eye(2), separation=1)
    logits = torch.tensor([[1000.0, -1000.0]], requires_grad=True)
    loss = head.loss(logits, torch.tensor([[0, 1]]))
    assert loss.item() == 3000.0  # the mean of 1000 and 1000, and a ranking loss of 2000
    loss.backward()
    assert logits.grad.tolist() == [[1.5, -1.5]]


@pytest.mark.parametrize("distance", DISTANCES)
def test_semantic_head_gradients_are_right(distance, generator):
    head = make_semantic_head(distance=distance, separation=0.7)
    features = torch.randn(4, 3, generator=generator)
    assert check_gradients(head, features)
    labels = torch.tensor([[1, 0, 0, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1], [0, 1, 0, 0, 1]])
    assert check_gradients(head, features, lambda logits: head.loss(logits, labels))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"distance": "dot"}, r"`distance` must be 'cosine' or 'euclidean', got 'dot'\."),
        ({"num_neighbors": -1}, r"`num_neighbors` and `separation` must be at least 0, got -1 and 0\.1\."),
        ({"separation": -0.5}, r"must be at least 0, got 3 and -0\.5\."),
        ({"separation": float("nan")}, r"must be at least 0, got 3 and nan\."),
        ({"label_vectors": torch.zeros(3)}, r"`label_vectors` must have shape \(L, d\), got \(3,\)\."),
        ({"label_vectors": torch.zeros(1, 2, 3)}, r"`label_vectors` must have shape \(L, d\), got \(1, 2, 3\)\."),
        ({"label_vectors": torch.tensor([[float("nan"), 1.0]])}, "must be finite, got NaN or infinity"),
        ({"label_vectors": torch.tensor([[float("inf"), 1.0]])}, "must be finite, got NaN or infinity"),
    ],
)
def test_semantic_head_rejects_invalid_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        SemanticProjectionHead(3, **{"label_vectors": torch.eye(2), **arguments})


def test_repr_of_the_semantic_head_shows_its_settings():
    shown = repr(SemanticProjectionHead(3, torch.eye(2), distance="euclidean", separation=0.25))
    assert "label_vectors=(2, 2), distance='euclidean', num_neighbors=3, separation=0.25" in shown


# Both heads


@pytest.fixture(params=["label graph", "cosine", "euclidean"])
def make_head(request):
    """A function that makes a head for 12 features and 4 labels."""

    def make(labels=TABLE):
        if request.param == "label graph":
            return LabelGraphHead.from_labels(12, labels, hidden_features=16)
        return SemanticProjectionHead(12, cooccurrence_vectors(labels), distance=request.param)

    return make


@pytest.fixture
def rows(generator):
    """Features and labels; each label adds a direction to the noise of the features."""
    labels = (torch.rand(300, 4, generator=generator) < 0.35).long()
    directions = torch.randn(4, 12, generator=generator)
    return labels.float() @ directions + 0.1 * torch.randn(300, 12, generator=generator), labels


def test_graph_heads_are_trained_by_fit_classifier(make_head, rows):
    features, labels = rows
    with same_initial_weights():
        head = make_head(labels[:200])
    before = state_of(head)
    head.standardize.fit(features[:200])
    config = TrainingConfig(max_epochs=15, batch_size=32, lr=0.01, seed=0)
    history = fit_classifier(
        head, features[:200], labels[:200], config=config, validation=(features[200:], labels[200:])
    )
    assert labels[200:].float().mean() < 0.45  # the mAP of random scores
    assert history[-1]["val_map"] > 0.9
    assert history[-1]["loss"] < history[0]["loss"]
    after = head.state_dict()
    fixed = [name for name in before if "adjacency" in name or name == "label_vectors"]
    assert len(fixed) >= 2
    assert all(torch.equal(after[name], before[name]) for name in fixed)
    assert not any(torch.equal(value, before[name]) for name, value in head.named_parameters())


def test_graph_heads_resumed_from_a_checkpoint_equal_uninterrupted_ones(make_head, rows, tmp_path):
    with same_initial_weights():
        whole, stopped, resumed = (copy.deepcopy(head) for head in [make_head(rows[1])] * 3)
    fit_classifier(whole, *rows, config=TrainingConfig(max_epochs=2, seed=0))
    path = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        fit_classifier(stopped, *rows, config=TrainingConfig(max_epochs=2, seed=0), checkpoint=path, callback=interrupt)
    fit_classifier(resumed, *rows, config=TrainingConfig(max_epochs=2, seed=0), checkpoint=path)
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items())


def interrupt(record):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("make", "setting", "values"),
    [
        (LabelGraphHead.from_labels, "hidden_features", (8, 16)),
        (LabelGraphHead.from_labels, "threshold", (0.2, 0.5)),
        (SemanticProjectionHead, "num_neighbors", (0, 3)),
        (SemanticProjectionHead, "separation", (0.1, 0.2)),
    ],
)
def test_checkpoint_of_a_graph_head_with_other_settings_is_an_error(make, setting, values, rows, tmp_path):
    features, labels = rows
    source = labels if make == LabelGraphHead.from_labels else DIRECTIONS[[0, 1, 2, 3]]
    first, second = (make(12, source, **{setting: value}) for value in values)
    path = tmp_path / "checkpoint"
    fit_classifier(first, features, labels, config=TrainingConfig(max_epochs=1, seed=0), checkpoint=path)
    with pytest.raises(ValueError, match="has other settings or data"):
        fit_classifier(second, features, labels, config=TrainingConfig(max_epochs=1, seed=0), checkpoint=path)


def test_state_dict_copy_and_pickle_of_graph_heads_are_complete(make_head, generator):
    features = torch.randn(3, 12, generator=generator)
    head = make_head()
    head.standardize.fit(torch.randn(10, 12, generator=generator))
    expected = head(features)
    other = make_head(TABLE[:4])  # graph and vectors are in the state dict
    assert not torch.allclose(other(features), expected)
    other.load_state_dict(head.state_dict())
    for twin in (other, copy.deepcopy(head), pickle.loads(pickle.dumps(head))):
        assert torch.equal(twin(features), expected)
        assert all(torch.equal(value, head.state_dict()[name]) for name, value in twin.state_dict().items())


def test_graph_heads_compile_without_graph_breaks(make_head, generator):
    head = make_head()
    features = torch.randn(3, 12, generator=generator)
    compiled = torch.compile(head, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(features), head(features))


def test_graph_heads_are_moved_with_all_buffers(make_head):
    head = make_head().to(torch.float64)
    assert {value.dtype for value in head.state_dict().values()} == {torch.float64}
    assert head(torch.zeros(2, 12)).dtype == torch.float64
    assert {value.device.type for value in head.to("meta").state_dict().values()} == {"meta"}


# The backbone: maximum pooling


@pytest.fixture(scope="module")
def weights_of(tmp_path_factory):
    """State dicts of random networks with batch-norm statistics of noise, so that features do not vanish."""
    folder = tmp_path_factory.mktemp("weights")

    def save(name):
        path = folder / f"{name}.pth"
        if not path.exists():
            with same_initial_weights():
                model = torchvision.models.get_model(name, weights=None)
                for part in model.modules():
                    if isinstance(part, nn.BatchNorm2d):
                        part.momentum = None
                with torch.no_grad():
                    model.train()(torch.rand(8, 3, 64, 64))
            torch.save(model.state_dict(), path)
        return path

    return save


@pytest.mark.parametrize(
    ("name", "pool", "rest"),
    [
        ("resnet18", "avgpool", None),
        ("squeezenet1_0", "classifier.3", None),
        ("mobilenet_v3_small", "avgpool", "classifier"),  # layers between the pooling and the classifier
        ("efficientnet_b0", "avgpool", None),
    ],
)
def test_maximum_pooling_returns_the_maximum_of_the_last_feature_map(name, pool, rest, weights_of, generator):
    mean, maximum = (FrozenBackbone(name, weights=weights_of(name), pooling=pooling) for pooling in ("avg", "max"))
    maps = []
    mean.model.get_submodule(pool).register_forward_pre_hook(lambda _, inputs: maps.append(inputs[0]))
    images = torch.rand(2, 3, 64, 64, generator=generator)
    features_of_mean, features = mean(images), maximum(images)
    assert maps[0].shape[2] * maps[0].shape[3] > 1
    expected = maps[0].flatten(2).max(dim=2).values
    if rest is not None:
        expected = mean.model.get_submodule(rest)(expected)
    assert features.shape == (2, mean.feature_size)
    assert features.std() > 0.01
    torch.testing.assert_close(features, expected)
    assert not torch.allclose(features, features_of_mean, rtol=0.01, atol=0.01 * features.std().item())


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "efficientnet_b0", "maxvit_t", "resnet18", "squeezenet1_0"])
def test_maximum_pooling_replaces_one_layer_only(name):
    with torch.device("meta"):
        kinds = [
            {place: type(part) for place, part in FrozenBackbone(name, weights=None, pooling=pooling).named_modules()}
            for pooling in ("avg", "max")
        ]
    assert kinds[0].keys() == kinds[1].keys()
    changes = [(kinds[0][place], kinds[1][place]) for place in kinds[0] if kinds[0][place] != kinds[1][place]]
    assert changes == [(nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)]


@pytest.mark.parametrize("name", ["densenet121", "vit_b_16", "vgg11", "mobilenet_v2"])
def test_maximum_pooling_of_a_network_without_pooling_layer_is_an_error(name):
    message = f"`pooling='max'` requires a network with a layer that pools to 1 x 1, got '{name}'"
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        FrozenBackbone(name, weights=None, pooling="max")


class Map(nn.Module):
    def forward(self, images):
        return images[:, :2]


@pytest.mark.parametrize("shape", [(3, 4, 5, 6), (3, 4, 2, 3, 2)])
def test_maximum_pooling_of_the_feature_maps_of_any_module(shape, generator):
    images = torch.randn(shape, generator=generator)
    places = images[:, :2].flatten(2)
    torch.testing.assert_close(FrozenBackbone(Map(), pooling="avg")(images), places.sum(2) / places.shape[2])
    torch.testing.assert_close(FrozenBackbone(Map(), pooling="max")(images), places.sort(2).values[:, :, -1])


@pytest.mark.parametrize("pooling", ["avg", "max", "cls"])
def test_pooling_of_a_module_that_pools_itself_is_an_error(pooling):
    backbone = FrozenBackbone(nn.Linear(4, 3), pooling=pooling)
    with pytest.raises(ValueError, match=rf"`pooling='{pooling}'` requires .* but Linear returns \(2, 3\)"):
        backbone(torch.zeros(2, 4))
    assert FrozenBackbone(nn.Linear(4, 3))(torch.zeros(2, 4)).shape == (2, 3)


def test_unknown_pooling_is_an_error():
    with pytest.raises(ValueError, match=r"`pooling` must be None, 'avg', 'max' or 'cls', got 'mean'\."):
        FrozenBackbone(Map(), pooling="mean")


def test_backbone_fingerprint_depends_on_pooling(weights_of):
    convolution = nn.Conv2d(3, 2, 1)
    by_kind = {pooling: FrozenBackbone(convolution, pooling=pooling).fingerprint() for pooling in ("avg", "max")}
    assert by_kind["avg"] != by_kind["max"]
    assert FrozenBackbone(convolution, pooling="max").fingerprint() == by_kind["max"]
    path = weights_of("resnet18")
    by_kind = [FrozenBackbone("resnet18", weights=path, pooling=pooling).fingerprint() for pooling in ("avg", "max")]
    assert by_kind[0] != by_kind[1]


# The backbone: unfrozen parts


def make_unfrozen(**options):
    with same_initial_weights():
        return FrozenBackbone("resnet18", weights=None, **{"unfrozen": ("layer4",), **options})


def test_only_the_unfrozen_part_is_trained(generator):
    backbone = make_unfrozen()
    head = nn.Linear(512, 2)
    before, fingerprint = state_of(backbone.model), backbone.fingerprint()
    trained = {name for name, parameter in backbone.model.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, _ in backbone.model.named_parameters() if name.startswith("layer4.")}
    model = nn.Sequential(backbone, head).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.rand(4, 3, 64, 64, generator=generator)).square().sum().backward()
        optimizer.step()
    assert {name for name, value in backbone.model.named_parameters() if value.grad is not None} == trained
    moved = {name for name, value in backbone.model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {name for name in before if name.startswith("layer4.")}  # statistics among them
    assert {"layer4.0.bn1.running_mean", "layer4.1.bn2.running_var"} <= moved
    assert backbone.fingerprint() != fingerprint


def test_only_the_unfrozen_part_changes_its_mode(generator):
    backbone = make_unfrozen()

    def training_parts():
        return {name for name, part in backbone.model.named_modules() if part.training}

    layer4 = {name for name, _ in backbone.model.named_modules() if name.split(".")[0] == "layer4"}
    model = nn.Sequential(backbone, nn.Linear(512, 2))
    assert training_parts() == layer4  # a new module is in training mode
    assert model.eval()[0] is backbone
    assert training_parts() == set()
    model.train()
    assert training_parts() == layer4
    assert not backbone.training
    assert backbone.eval() is backbone
    before = state_of(backbone)
    backbone(torch.rand(4, 3, 64, 64, generator=generator))
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    backbone.train()
    apply_in_batches(backbone, torch.rand(4, 3, 64, 64, generator=generator))
    assert training_parts() == layer4
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_nested_parts_and_parts_of_any_module_can_be_unfrozen():
    backbone = make_unfrozen(unfrozen=["layer1.0.conv2", "layer4.1"], pooling="max")
    trained = {name for name, parameter in backbone.model.named_parameters() if parameter.requires_grad}
    everything = {name for name, _ in backbone.model.named_parameters()}
    assert trained == {name for name in everything if name.startswith(("layer1.0.conv2.", "layer4.1."))}
    own = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.Dropout(), nn.Conv2d(2, 2, 1))
    backbone = FrozenBackbone(own, unfrozen=("1", "2"))
    assert [part.training for part in own] == [False, True, True, False]
    assert [name for name, parameter in own.named_parameters() if parameter.requires_grad] == ["1.weight", "1.bias"]


def test_backbone_without_unfrozen_parts_has_no_gradients():
    for options in ({}, {"unfrozen": ()}, {"unfrozen": []}):
        with torch.device("meta"):
            backbone = FrozenBackbone("resnet18", weights=None, **options).train()
        assert not any(parameter.requires_grad for parameter in backbone.parameters())
        assert not any(part.training for part in backbone.modules())


@pytest.mark.parametrize(
    ("unfrozen", "shown"),
    [
        (("layer5",), "'layer5'"),
        (("layer4", "layer4.7"), r"'layer4\.7'"),
        (("model.layer4",), r"'model\.layer4'"),
        ("layer4", "'layer4'"),
        ("", "''"),
        (("",), "''"),
    ],
)
def test_unknown_unfrozen_part_is_an_error(unfrozen, shown):
    message = rf"`unfrozen` must name submodules of the network, such as conv1, .* layer4, .*; got {shown}\."
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        FrozenBackbone("resnet18", weights=None, unfrozen=unfrozen)


@pytest.mark.parametrize("bad", [math.inf, 2.0, -1.0])
def test_labels_outside_0_1_are_an_error_in_heads_and_graphs(bad):
    labels = torch.tensor([[0.0, 1.0], [bad, 1.0]])
    graph, semantic = LabelGraphHead(3, torch.eye(2), torch.eye(2)), SemanticProjectionHead(3, torch.eye(2))
    for take in (
        lambda: graph.loss(torch.zeros(2, 2), labels),
        lambda: semantic.loss(torch.zeros(2, 2), labels),
        lambda: LabelGraphHead.from_labels(3, labels),
        lambda: cooccurrence_adjacency(labels),
        lambda: cooccurrence_vectors(labels),
    ):
        with pytest.raises(
            ValueError, match=rf"`labels` must contain numbers in \[0, 1\], got {bad} at row 1, label 0"
        ):
            take()


def test_graphs_and_vectors_accept_numpy_labels():
    labels = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 1, 1]])
    torch.testing.assert_close(cooccurrence_adjacency(labels.numpy()), cooccurrence_adjacency(labels))
    torch.testing.assert_close(cooccurrence_vectors(labels.numpy()), cooccurrence_vectors(labels))
