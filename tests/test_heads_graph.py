"""Graphs over labels and the heads on them, by hand, by loops and by gradients; a backbone's pooling and its thaw."""

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
def drawn_alike():
    """Modules made within draw the same weights each time, and leave the global generator alone."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def state_of(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def random_labels(generator, rows=40, labels=5):
    shares = torch.tensor([0.7, 0.5, 0.3, 0.2, 0.1])[:labels]
    return (torch.rand(rows, labels, generator=generator) < shares).long()


# The graph of labels that imply each other

# Four labels on eight rows. Counts: 6, 2, 2, 2. Together: 0 with 1 twice, 0 with 2 once, 2 with 3 once.
#
# P(j|i), row i, column j, the diagonal left out:
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


def test_cooccurrence_adjacency_as_the_paper_has_it_is_the_one_worked_by_hand():
    # Each label takes from those that it implies; these share 0.2, and 0.8 stays:
    #     0.8  0    0    0       sums to 0.8
    #     0.2  0.8  0    0       sums to 1
    #     0.1  0    0.8  0.1     sums to 1
    #     0    0    0.2  0.8     sums to 1
    # Every entry is divided by the roots of the sums of its row and of the row of its column's number: the entries of
    # row 0 and of column 0 by root 0.8, the corner by both.
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


def test_cooccurrence_adjacency_as_the_authors_code_has_it_is_the_one_worked_by_hand():
    # The matrix of who implies whom, its columns brought to the sum 0.25 and 1 added on the diagonal:
    #     1      0  0     0        sums to 1
    #     0.125  1  0     0        sums to 1.125
    #     0.125  0  1     0.25     sums to 1.375
    #     0      0  0.25  1        sums to 1.25
    # Every entry is divided by the roots of two of these sums, of its row and of the row of its column's number, and
    # the whole is transposed: each label takes from those that imply it.
    expected = torch.tensor(
        [
            [1.0, 0.125 / math.sqrt(1 * 1.125), 0.125 / math.sqrt(1 * 1.375), 0.0],
            [0.0, 1 / 1.125, 0.0, 0.0],
            [0.0, 0.0, 1 / 1.375, 0.25 / math.sqrt(1.375 * 1.25)],
            [0.0, 0.0, 0.25 / math.sqrt(1.375 * 1.25), 1 / 1.25],
        ]
    )
    torch.testing.assert_close(cooccurrence_adjacency(TABLE, convention="code"), expected)


def test_cooccurrence_adjacency_conventions_take_from_opposite_neighbours():
    takes_from = {convention: cooccurrence_adjacency(TABLE, convention=convention) > 0 for convention in CONVENTIONS}
    assert takes_from["paper"].int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 1], [0, 0, 1, 1]]
    assert torch.equal(takes_from["code"], takes_from["paper"].T)


def adjacency_of_the_authors_code(labels, threshold):
    """The published code, line by line: `gen_A` and `gen_adj` of ML-GCN, on the counts that its data file has."""
    labels = np.asarray(labels, dtype=np.float64)
    nums = labels.sum(0)
    adj = labels.T @ labels
    np.fill_diagonal(adj, 0)
    with np.errstate(invalid="ignore"):  # 0 / 0 of labels that never occur, which reach no threshold
        adj = adj / nums[:, None]
    b = (adj >= threshold).astype(np.float64)
    b = b * 0.25 / np.maximum(b.sum(0, keepdims=True), 1)
    b = b + np.identity(len(b))
    d = np.diag(b.sum(1) ** -0.5)
    return (b @ d).T @ d


@pytest.mark.parametrize("threshold", [0.2, 0.4, 0.6])
def test_cooccurrence_adjacency_convention_code_gives_what_the_authors_code_gives(threshold, generator):
    for _ in range(10):
        labels = random_labels(generator)
        labels[:, 4] *= (torch.rand(1, generator=generator) < 0.5).long()  # now and then it never occurs
        adjacency = cooccurrence_adjacency(labels, threshold=threshold, convention="code")
        np.testing.assert_allclose(adjacency, adjacency_of_the_authors_code(labels, threshold), atol=1e-6)


def adjacency_by_loops(labels, threshold, p):
    """Equations 6 to 8 of the paper, entry by entry."""
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
def test_cooccurrence_adjacency_of_hard_and_soft_labels_follows_the_equations(threshold, p, generator):
    hard = random_labels(generator)
    soft = hard * torch.rand(40, 5, generator=generator)
    for labels in (hard, soft, soft.double(), hard.bool()):
        adjacency = cooccurrence_adjacency(labels, threshold=threshold, neighbor_weight=p)
        np.testing.assert_allclose(adjacency, adjacency_by_loops(labels, threshold, p), atol=1e-6)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_cooccurrence_adjacency_of_labels_that_are_alone_or_never_occur_keeps_themselves_only(convention):
    # Label 2 only ever alone, label 3 never, labels 0 and 1 together.
    labels = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0]])
    expected = torch.tensor([[0.8, 0.2, 0, 0], [0.2, 0.8, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    torch.testing.assert_close(cooccurrence_adjacency(labels, convention=convention), expected)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("labels", [torch.zeros(0, 3), torch.zeros(4, 3), torch.eye(3)])
def test_cooccurrence_adjacency_without_company_is_the_identity(labels, convention):
    torch.testing.assert_close(cooccurrence_adjacency(labels, convention=convention), torch.eye(3))


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_cooccurrence_adjacency_without_weight_for_neighbours_is_the_identity(convention):
    adjacency = cooccurrence_adjacency(TABLE, neighbor_weight=0, convention=convention)
    torch.testing.assert_close(adjacency, torch.eye(4))


@pytest.mark.parametrize("num_rows", [3, 7, 10, 49, 100])
def test_cooccurrence_adjacency_takes_a_share_that_meets_the_threshold_exactly(num_rows):
    # Label 0 on every row, label 1 on `together` of them, as 7 of 25, or 29 of 100 at 0.29.
    for together in range(1, num_rows + 1):
        labels = torch.ones(num_rows, 2)
        labels[together:, 1] = 0
        assert cooccurrence_adjacency(labels, threshold=together / num_rows)[0, 1] > 0
        if together < num_rows:
            assert cooccurrence_adjacency(labels, threshold=(together + 0.01) / num_rows)[0, 1] == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cooccurrence_adjacency_takes_a_soft_share_that_meets_the_threshold_exactly(dtype):
    for share in (0.1, 0.3, 0.4, 0.6, 0.7, 0.9):
        labels = torch.tensor([[1, share], [1, share]], dtype=dtype)
        assert cooccurrence_adjacency(labels, threshold=share)[0, 1] > 0


def test_cooccurrence_adjacency_at_threshold_1_joins_what_never_comes_without_the_other():
    # Label 1 always with 0; label 2 with 0 but once.
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
def test_cooccurrence_adjacency_of_any_labels_spreads_nothing_out_of_nothing(labels, threshold, p, convention, order):
    options = {"threshold": threshold, "neighbor_weight": p, "convention": convention}
    adjacency = cooccurrence_adjacency(torch.from_numpy(labels), **options)
    assert (adjacency >= 0).all()
    assert (adjacency.diagonal() > 0).all()
    # Normalised by its sums, it is a matrix of shares in another basis: no eigenvalue beyond 1, and 1 is one of them.
    np.testing.assert_allclose(np.abs(np.linalg.eigvals(adjacency.double().numpy())).max(), 1, atol=1e-3)
    order = [label for label in order if label < labels.shape[1]]
    other = cooccurrence_adjacency(torch.from_numpy(labels[:, order]), **options)
    torch.testing.assert_close(other, adjacency[order][:, order])


def test_cooccurrence_adjacency_rows_sum_to_1_where_every_label_has_a_neighbour():
    labels = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 1, 1], [1, 0, 1], [0, 1, 1]])
    adjacency = cooccurrence_adjacency(labels, threshold=0.5)
    torch.testing.assert_close(adjacency.sum(dim=1), torch.ones(3))
    torch.testing.assert_close(adjacency.diagonal(), torch.full((3,), 0.8))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"threshold": 0}, r"`threshold` must be a share in \(0, 1\], got 0\."),
        ({"threshold": -0.5}, r"`threshold` .* got -0\.5\."),
        ({"threshold": 1.25}, r"`threshold` .* got 1\.25\."),
        ({"threshold": float("nan")}, r"`threshold` .* got nan\."),
        ({"neighbor_weight": 1}, r"`neighbor_weight` must be in \[0, 1\), got 1\."),
        ({"neighbor_weight": -0.1}, r"`neighbor_weight` .* got -0\.1\."),
        ({"neighbor_weight": float("nan")}, r"`neighbor_weight` .* got nan\."),
        ({"convention": "Paper"}, r"`convention` must be 'paper' or 'code', got 'Paper'\."),
    ],
)
def test_cooccurrence_adjacency_names_a_setting_out_of_range(setting, message):
    with pytest.raises(ValueError, match=message):
        cooccurrence_adjacency(TABLE, **setting)


def test_cooccurrence_adjacency_refuses_what_is_no_label_matrix():
    with pytest.raises(ValueError, match=r"got shape \(3,\)"):
        cooccurrence_adjacency(torch.ones(3))
    with pytest.raises(ValueError, match=r"numbers in \[0, 1\], got 3\.0 at row 0, label 1"):
        cooccurrence_adjacency(torch.tensor([[1, 3]]))
    with pytest.raises(TypeError, match="got list"):
        cooccurrence_adjacency([[1, 0]])


# The convolution


def test_graph_convolution_mixes_along_rows_and_maps(generator):
    adjacency = torch.tensor([[1.0, 0.0, 0.0], [0.5, 1.0, 0.25], [0.0, 0.0, 2.0]])
    convolution = GraphConvolution(adjacency, 2, 4)
    vectors = torch.randn(3, 2, generator=generator)
    mixed = torch.stack([vectors[0], 0.5 * vectors[0] + vectors[1] + 0.25 * vectors[2], 2 * vectors[2]])
    torch.testing.assert_close(convolution(vectors), mixed @ convolution.weight)


def test_graph_convolution_keeps_the_graph_as_a_buffer():
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


def test_graph_convolution_weights_begin_within_a_bound_that_falls_with_their_number():
    with drawn_alike():
        weight = GraphConvolution(torch.eye(2), 50, 100).weight
    assert 0.099 < weight.abs().max() <= 0.1
    assert weight.mean().abs() < 0.005


# ML-GCN


def make_label_graph_head(hidden_features=3):
    with drawn_alike():
        return LabelGraphHead(
            4, torch.randn(4, 5), cooccurrence_adjacency(TABLE, convention="paper"), hidden_features=hidden_features
        )


def test_label_graph_head_scores_are_those_of_the_paper(generator):
    head = make_label_graph_head()
    features = torch.randn(2, 4, generator=generator)
    # x . (A LeakyReLU(A Z W1) W2), in float64 and with the matrix worked by hand above.
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


def test_label_graph_head_keeps_its_own_copy_of_vectors_and_graph():
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
    """Compare the gradients of features and of every parameter with differences."""
    head = head.double()
    names = [name for name, _ in head.named_parameters()]

    def scores(features, *values):
        return last(torch.func.functional_call(head, dict(zip(names, values, strict=True)), (features,)))

    return torch.autograd.gradcheck(scores, (features.double().requires_grad_(), *head.parameters()))


def test_label_graph_head_gradients_are_right(generator):
    assert check_gradients(make_label_graph_head(), torch.randn(3, 4, generator=generator))


def test_label_graph_head_from_labels_makes_graph_and_vectors_of_them(generator):
    labels = random_labels(generator)
    with drawn_alike():
        head = LabelGraphHead.from_labels(6, labels)
    with drawn_alike():
        expected = LabelGraphHead(6, cooccurrence_vectors(labels), cooccurrence_adjacency(labels))
    assert set(head.state_dict()) == set(expected.state_dict())
    assert all(torch.equal(value, head.state_dict()[name]) for name, value in expected.state_dict().items())
    assert head.first.weight.shape == (5, 1024)


def test_label_graph_head_from_labels_hands_its_settings_on():
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


def test_label_graph_head_from_labels_names_what_is_wrong():
    with pytest.raises(TypeError, match="treshold"):
        LabelGraphHead.from_labels(6, TABLE, treshold=0.3)
    with pytest.raises(ValueError, match=r"`threshold` must be a share in \(0, 1\], got 2"):
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
def test_label_graph_head_names_what_does_not_fit(vectors, adjacency, message):
    with pytest.raises(ValueError, match=message):
        LabelGraphHead(4, vectors, adjacency)


# Projection into the space of the labels' vectors

# Directions at 0, 60, 90 and 180 degrees, and a vector of nothing. Lengths do not matter.
DIRECTIONS = torch.tensor([[2.0, 0.0], [0.5, 0.75**0.5], [0.0, 3.0], [-1.0, 0.0], [0.0, 0.0]])


def test_semantic_head_graph_of_nearest_neighbours_is_the_one_worked_by_hand():
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


def test_semantic_head_graph_leaves_out_all_but_the_nearest():
    # At 0, 10, 30 and 60 degrees the first's nearest is the second, the third's the second, the fourth's the third.
    angles = torch.tensor([0.0, 10.0, 30.0, 60.0]).deg2rad()
    vectors = torch.stack([angles.cos(), angles.sin()], dim=1)

    def joined(num_neighbors):
        adjacency = SemanticProjectionHead(3, vectors, num_neighbors=num_neighbors).refinement.adjacency
        torch.testing.assert_close(adjacency, adjacency.T)
        return (adjacency > 0).int().tolist()

    assert joined(0) == torch.eye(4).int().tolist()
    assert joined(1) == [[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 1], [0, 0, 1, 1]]
    assert joined(2) == [[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1], [0, 1, 1, 1]]
    assert joined(3) == [[1] * 4] * 4


def test_semantic_head_graph_joins_no_labels_that_point_apart():
    angles = torch.tensor([0.0, 110.0, 230.0]).deg2rad()
    head = SemanticProjectionHead(3, torch.stack([angles.cos(), angles.sin()], dim=1))
    torch.testing.assert_close(head.refinement.adjacency, torch.eye(3))


def make_semantic_head(vectors=DIRECTIONS, in_features=3, **options):
    """A head none of whose parameters is 0 or 1."""
    with drawn_alike():
        head = SemanticProjectionHead(in_features, vectors, **options)
        with torch.no_grad():
            head.bias.normal_()
            head.scale.fill_(1.5)
    return head


def scores_by_loops(head, features):
    """What the class says, number by number, in Python's floats."""

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


def test_semantic_head_cosine_does_not_see_the_length_of_the_projection_and_euclidean_does(generator):
    features = torch.randn(4, 3, generator=generator)
    for distance in DISTANCES:
        head = make_semantic_head(distance=distance)
        with torch.no_grad():
            head.projection.bias.zero_()
            same = torch.allclose(head(features), head(5 * features), atol=1e-5)
        assert same == (distance == "cosine")


@pytest.mark.parametrize("distance", DISTANCES)
def test_semantic_head_begins_near_the_loss_of_even_odds(distance, generator):
    labels = (torch.rand(400, 30, generator=generator) < 0.1).float()
    with drawn_alike():
        head = SemanticProjectionHead(200, cooccurrence_vectors(labels), distance=distance, separation=0.0)
    with torch.no_grad():
        loss = head.loss(head(torch.randn(400, 200, generator=generator)), labels)
    assert loss < 2.5  # even odds: log 2


def test_semantic_head_projection_is_the_point_whose_nearness_is_scored(generator):
    features = 5 + 3 * torch.randn(6, 3, generator=generator)
    for distance in DISTANCES:
        head = make_semantic_head(DIRECTIONS[:1], distance=distance)
        with torch.no_grad():
            head.refinement.weight.zero_()  # the label stays at (1, 0)
        head.standardize.fit(features)
        points, scores = head.project(features), head(features)
        assert points.shape == (6, 2)
        squares = (points[:, 0] - 1) ** 2 + points[:, 1] ** 2
        nearness = points[:, 0] if distance == "cosine" else 1 - squares / 2
        torch.testing.assert_close(scores[:, 0], 1.5 * nearness + head.bias)
        assert torch.allclose(points.norm(dim=1), torch.ones(6)) == (distance == "cosine")


def test_semantic_head_begins_with_scale_10_and_biases_0_and_standardizes_features(generator):
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


def test_semantic_head_brings_label_vectors_to_unit_length_and_keeps_a_zero_vector():
    vectors = DIRECTIONS.double().clone()
    head = SemanticProjectionHead(3, vectors)
    vectors.zero_()
    assert "label_vectors" in dict(head.named_buffers())
    assert "label_vectors" not in dict(head.named_parameters())
    torch.testing.assert_close(head.label_vectors.norm(dim=1), torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0]))


def test_semantic_head_keeps_the_zero_vectors_of_labels_that_tell_nothing(generator):
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
    nearness = 0 if distance == "cosine" else 1  # no direction, and no distance
    torch.testing.assert_close(logits, (nearness * head.scale + head.bias).expand(4, 2))
    head.loss(logits, torch.tensor([[1, 0], [0, 1], [1, 1], [0, 0]])).backward()
    assert all(parameter.grad.isfinite().all() for parameter in head.parameters())


@pytest.mark.parametrize("distance", DISTANCES)
def test_semantic_head_takes_one_label(distance, generator):
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
def test_semantic_head_loss_is_cross_entropy_and_the_pairs_of_present_and_absent_labels(separation, generator):
    head = make_semantic_head(separation=separation)
    logits = 2 * torch.randn(8, 5, generator=generator)
    labels = torch.randint(0, 2, (8, 5), generator=generator)
    labels[0], labels[1] = 0, 1
    expected = entropy_by_loops(logits, labels) + separation * separation_by_loops(logits, labels)
    for given_labels in (labels, labels.bool(), labels.double()):
        assert head.loss(logits, given_labels).item() == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(head.probabilities(logits), 1 / (1 + (-logits).exp()))


def test_semantic_head_loss_counts_a_soft_label_from_one_half_as_present(generator):
    head = make_semantic_head(separation=0.5)
    logits = torch.randn(3, 5, generator=generator)
    soft = torch.tensor([[0.1, 0, 0, 0.9, 0], [0.3, 0.2, 0.1, 0.5, 1], [0, 0, 0, 0, 0]])
    entropy = -(soft * logits.sigmoid().log() + (1 - soft) * (-logits).sigmoid().log()).mean()
    expected = entropy.item() + 0.5 * separation_by_loops(logits, (soft >= 0.5).float())
    assert head.loss(logits, soft).item() == pytest.approx(expected, rel=1e-5)


def test_semantic_head_loss_of_rows_with_all_labels_or_none_is_cross_entropy_alone(generator):
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
    assert loss.item() == 3000.0  # the mean of 1000 and 1000, and a gap of 2000
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
def test_semantic_head_names_what_is_wrong_with_its_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        SemanticProjectionHead(3, **{"label_vectors": torch.eye(2), **arguments})


def test_semantic_head_shows_its_settings():
    shown = repr(SemanticProjectionHead(3, torch.eye(2), distance="euclidean", separation=0.25))
    assert "distance='euclidean', separation=0.25" in shown


# What holds for both heads


@pytest.fixture(params=["label graph", "cosine", "euclidean"])
def make_head(request):
    """Make a head on 12 features for 4 labels, each time another one unless under `drawn_alike`."""

    def make(labels=TABLE):
        if request.param == "label graph":
            return LabelGraphHead.from_labels(12, labels, hidden_features=16)
        return SemanticProjectionHead(12, cooccurrence_vectors(labels), distance=request.param)

    return make


@pytest.fixture
def rows(generator):
    """Labels, and features in which each label is a direction among a little noise."""
    labels = (torch.rand(300, 4, generator=generator) < 0.35).long()
    directions = torch.randn(4, 12, generator=generator)
    return labels.float() @ directions + 0.1 * torch.randn(300, 12, generator=generator), labels


def test_graph_heads_train_as_classifiers_do(make_head, rows):
    features, labels = rows
    with drawn_alike():
        head = make_head(labels[:200])
    before = state_of(head)
    head.standardize.fit(features[:200])
    config = TrainingConfig(max_epochs=15, batch_size=32, lr=0.01, seed=0)
    history = fit_classifier(
        head, features[:200], labels[:200], config=config, validation=(features[200:], labels[200:])
    )
    assert labels[200:].float().mean() < 0.45  # what chance would reach
    assert history[-1]["val_map"] > 0.9
    assert history[-1]["loss"] < history[0]["loss"]
    after = head.state_dict()
    fixed = [name for name in before if "adjacency" in name or name == "label_vectors"]
    assert len(fixed) >= 2
    assert all(torch.equal(after[name], before[name]) for name in fixed)
    assert not any(torch.equal(value, before[name]) for name, value in head.named_parameters())


def test_graph_heads_resume_from_a_checkpoint_as_if_never_stopped(make_head, rows, tmp_path):
    with drawn_alike():
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
def test_graph_heads_do_not_resume_from_a_checkpoint_of_other_settings(make, setting, values, rows, tmp_path):
    features, labels = rows
    source = labels if make == LabelGraphHead.from_labels else DIRECTIONS[[0, 1, 2, 3]]
    first, second = (make(12, source, **{setting: value}) for value in values)
    path = tmp_path / "checkpoint"
    fit_classifier(first, features, labels, config=TrainingConfig(max_epochs=1, seed=0), checkpoint=path)
    with pytest.raises(ValueError, match="has other settings or data"):
        fit_classifier(second, features, labels, config=TrainingConfig(max_epochs=1, seed=0), checkpoint=path)


def test_graph_heads_travel_by_state_dict_copy_and_pickle(make_head, generator):
    features = torch.randn(3, 12, generator=generator)
    head = make_head()
    head.standardize.fit(torch.randn(10, 12, generator=generator))
    expected = head(features)
    other = make_head(TABLE[:4])  # another graph and other vectors: all of it is in the state
    assert not torch.allclose(other(features), expected)
    other.load_state_dict(head.state_dict())
    for twin in (other, copy.deepcopy(head), pickle.loads(pickle.dumps(head))):
        assert torch.equal(twin(features), expected)
        assert all(torch.equal(value, head.state_dict()[name]) for name, value in twin.state_dict().items())


def test_graph_heads_trace_as_one_graph(make_head, generator):
    head = make_head()
    features = torch.randn(3, 12, generator=generator)
    compiled = torch.compile(head, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(features), head(features))


def test_graph_heads_move_with_all_that_they_have(make_head):
    head = make_head().to(torch.float64)
    assert {value.dtype for value in head.state_dict().values()} == {torch.float64}
    assert head(torch.zeros(2, 12)).dtype == torch.float64
    assert {value.device.type for value in head.to("meta").state_dict().values()} == {"meta"}


# The backbone: maximum pooling


@pytest.fixture(scope="module")
def weights_of(tmp_path_factory):
    """State dicts of random networks whose batch-norm statistics are those of noise, so that features do not vanish."""
    folder = tmp_path_factory.mktemp("weights")

    def save(name):
        path = folder / f"{name}.pth"
        if not path.exists():
            with drawn_alike():
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
def test_backbone_with_maximum_pooling_takes_the_maximum_of_the_map_that_is_pooled(
    name, pool, rest, weights_of, generator
):
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
def test_backbone_with_maximum_pooling_differs_in_no_other_layer(name):
    with torch.device("meta"):
        kinds = [
            {place: type(part) for place, part in FrozenBackbone(name, weights=None, pooling=pooling).named_modules()}
            for pooling in ("avg", "max")
        ]
    assert kinds[0].keys() == kinds[1].keys()
    changes = [(kinds[0][place], kinds[1][place]) for place in kinds[0] if kinds[0][place] != kinds[1][place]]
    assert changes == [(nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)]


@pytest.mark.parametrize("name", ["densenet121", "vit_b_16", "vgg11", "mobilenet_v2"])
def test_backbone_without_a_pooling_layer_at_its_end_refuses_maximum_pooling(name):
    message = f"`pooling='max'` needs a network that pools by a layer, to 1 x 1, which '{name}' does not"
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        FrozenBackbone(name, weights=None, pooling="max")


class Map(nn.Module):
    def forward(self, images):
        return images[:, :2]


@pytest.mark.parametrize("shape", [(3, 4, 5, 6), (3, 4, 5), (3, 4, 2, 3, 2)])
def test_backbone_pools_the_maps_of_any_module(shape, generator):
    images = torch.randn(shape, generator=generator)
    places = images[:, :2].flatten(2)
    torch.testing.assert_close(FrozenBackbone(Map(), pooling="avg")(images), places.sum(2) / places.shape[2])
    torch.testing.assert_close(FrozenBackbone(Map(), pooling="max")(images), places.sort(2).values[:, :, -1])


def test_backbone_refuses_the_maximum_of_a_module_that_has_pooled_already():
    backbone = FrozenBackbone(nn.Linear(4, 3), pooling="max")
    with pytest.raises(ValueError, match=r"`pooling='max'` needs feature maps .* but Linear gives \(2, 3\)"):
        backbone(torch.zeros(2, 4))
    assert FrozenBackbone(nn.Linear(4, 3))(torch.zeros(2, 4)).shape == (2, 3)


def test_backbone_names_another_pooling():
    with pytest.raises(ValueError, match=r"`pooling` must be 'avg' or 'max', got 'mean'\."):
        FrozenBackbone(Map(), pooling="mean")


def test_backbone_fingerprint_tells_the_poolings_apart(weights_of):
    convolution = nn.Conv2d(3, 2, 1)
    by_kind = {pooling: FrozenBackbone(convolution, pooling=pooling).fingerprint() for pooling in ("avg", "max")}
    assert by_kind["avg"] != by_kind["max"]
    assert FrozenBackbone(convolution).fingerprint() == by_kind["avg"]
    assert FrozenBackbone(convolution, pooling="max").fingerprint() == by_kind["max"]
    path = weights_of("resnet18")
    by_kind = [FrozenBackbone("resnet18", weights=path, pooling=pooling).fingerprint() for pooling in ("avg", "max")]
    assert by_kind[0] != by_kind[1]


# The backbone: parts that are trained


def make_thawed(**options):
    with drawn_alike():
        return FrozenBackbone("resnet18", weights=None, **{"unfrozen": ("layer4",), **options})


def test_backbone_trains_nothing_but_its_unfrozen_part(generator):
    backbone = make_thawed()
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


def test_backbone_mode_reaches_its_unfrozen_part_alone(generator):
    backbone = make_thawed()

    def training_parts():
        return {name for name, part in backbone.model.named_modules() if part.training}

    layer4 = {name for name, _ in backbone.model.named_modules() if name.split(".")[0] == "layer4"}
    model = nn.Sequential(backbone, nn.Linear(512, 2))
    assert training_parts() == layer4  # as any module, a new one is in training mode
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


def test_backbone_unfreezes_parts_of_parts_and_of_any_module():
    backbone = make_thawed(unfrozen=["layer1.0.conv2", "layer4.1"], pooling="max")
    trained = {name for name, parameter in backbone.model.named_parameters() if parameter.requires_grad}
    everything = {name for name, _ in backbone.model.named_parameters()}
    assert trained == {name for name in everything if name.startswith(("layer1.0.conv2.", "layer4.1."))}
    own = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.Dropout(), nn.Conv2d(2, 2, 1))
    backbone = FrozenBackbone(own, unfrozen=("1", "2"))
    assert [part.training for part in own] == [False, True, True, False]
    assert [name for name, parameter in own.named_parameters() if parameter.requires_grad] == ["1.weight", "1.bias"]


def test_backbone_without_unfrozen_parts_takes_no_gradient():
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
def test_backbone_names_what_it_cannot_unfreeze(unfrozen, shown):
    message = rf"`unfrozen` must name submodules of the network, such as conv1, .* layer4, .*; got {shown}\."
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        FrozenBackbone("resnet18", weights=None, unfrozen=unfrozen)


@pytest.mark.parametrize("bad", [math.nan, 2.0, -1.0])
def test_heads_and_graphs_refuse_labels_outside_0_1(bad):
    labels = torch.tensor([[0.0, 1.0], [bad, 1.0]])
    graph, semantic = LabelGraphHead(3, torch.eye(2), torch.eye(2)), SemanticProjectionHead(3, torch.eye(2))
    for take in (
        lambda: graph.loss(torch.zeros(2, 2), labels),
        lambda: semantic.loss(torch.zeros(2, 2), labels),
        lambda: LabelGraphHead.from_labels(3, labels),
        lambda: cooccurrence_adjacency(labels),
        lambda: cooccurrence_vectors(labels),
    ):
        with pytest.raises(ValueError, match=rf"`labels` must hold numbers in \[0, 1\], got {bad} at row 1, label 0"):
            take()


def test_graphs_and_vectors_take_labels_of_numpy():
    labels = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 1, 1]])
    torch.testing.assert_close(cooccurrence_adjacency(labels.numpy()), cooccurrence_adjacency(labels))
    torch.testing.assert_close(cooccurrence_vectors(labels.numpy()), cooccurrence_vectors(labels))
