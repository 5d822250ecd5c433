"""The relation of label sets against a loop, its thresholds, and errors."""

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from mlmetric import similarity as sim
from mlmetric.relations import LabelRelation

LABELS = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0]])


def loop_relation(similarity, positive_threshold, negative_threshold):
    """The relation written from its definition, entry by entry."""

    def relate(value):
        if value > positive_threshold:
            return 1
        return -1 if value <= negative_threshold else 0

    return [[relate(value) for value in row] for row in similarity.double().tolist()]


SIMILARITIES = [sim.InnerProduct(), sim.Jaccard(), sim.Hamming(), 0.5 * sim.Dice() + 0.5 * sim.Cosine()]


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(0, 7),
    m=st.one_of(st.none(), st.integers(0, 7)),
    num_labels=st.integers(1, 5),
    soft=st.booleans(),
    similarity=st.sampled_from(SIMILARITIES),
    thresholds=st.sampled_from([(0.0, None), (0.5, None), (0.5, 0.5), (0.5, 0.0), (0.75, 0.25), (1.0, -1.0)]),
)
def test_relation_equals_the_loop(seed, n, m, num_labels, soft, similarity, thresholds):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (n, num_labels), generator=generator)
    ref_labels = None if m is None else torch.randint(0, 2, (m, num_labels), generator=generator)
    labels = labels / 2 if soft else labels
    positive, negative = thresholds
    related = LabelRelation(similarity=similarity, positive_threshold=positive, negative_threshold=negative)(
        labels, ref_labels
    )
    expected = loop_relation(similarity(labels, ref_labels), positive, positive if negative is None else negative)
    assert related.dtype == torch.int8
    assert related.shape == (n, n if m is None else m)
    assert related.tolist() == expected


def test_relation_by_default_is_positive_if_a_label_is_shared():
    assert LabelRelation()(LABELS).tolist() == [
        [1, 1, 1, -1, -1],
        [1, 1, 1, -1, -1],
        [1, 1, 1, 1, -1],
        [-1, -1, 1, 1, -1],
        [-1, -1, -1, -1, -1],
    ]


def test_relation_with_different_thresholds_ignores_pairs_in_between():
    relation = LabelRelation(positive_threshold=1, negative_threshold=0)
    assert relation(LABELS[:1], LABELS).tolist() == [[1, 1, 0, -1, -1]]


def test_relation_at_a_threshold_is_not_positive_but_negative():
    assert LabelRelation(positive_threshold=2)(LABELS[:1], LABELS).tolist() == [[-1] * 5]
    at_both = LabelRelation(positive_threshold=2, negative_threshold=1)
    assert at_both(LABELS[:1], LABELS).tolist() == [[0, 0, -1, -1, -1]]


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.float32, torch.float64])
def test_relation_at_a_fraction_is_not_positive_but_negative_whatever_the_dtype(dtype):
    labels = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0]]).to(dtype)  # similarities 2/3, 1/3 and 1/2
    relation = LabelRelation(similarity=sim.Jaccard(), positive_threshold=2 / 3, negative_threshold=1 / 3)
    assert relation(labels).tolist() == [[1, 0, -1], [0, 1, 0], [-1, 0, 1]]
    returned = LabelRelation(similarity=lambda a, b: sim.jaccard(a, b).bfloat16(), positive_threshold=2 / 3)
    assert returned(labels).tolist() == [[1, -1, -1], [-1, 1, -1], [-1, -1, 1]]


@pytest.mark.parametrize("similarity", [sim.InnerProduct(), sim.Jaccard(), sim.Dice(), sim.Overlap(), sim.Cosine()])
def test_relation_calls_an_all_zero_row_a_negative_of_all_itself_included(similarity):
    assert LabelRelation(similarity=similarity)(LABELS)[4].tolist() == [-1] * 5


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), similarity=st.sampled_from(SIMILARITIES))
def test_relation_of_a_batch_with_itself_is_symmetric_and_moves_with_its_rows(seed, similarity):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (8, 4), generator=generator)
    relation = LabelRelation(similarity=similarity, positive_threshold=0.5, negative_threshold=0.25)
    related, order = relation(labels), torch.randperm(8, generator=generator)
    assert torch.equal(related, related.T)
    assert torch.equal(relation(labels[order]), related[order][:, order])


class Learned(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([1.0, 0.0, 1.0, 1.0]))

    def forward(self, labels, ref_labels):
        return (labels * self.weight) @ ref_labels.float().T


def test_relation_takes_a_function_and_a_module_and_builds_no_graph():
    module = Learned()
    by_module = LabelRelation(similarity=module)(LABELS)
    assert not by_module.requires_grad
    assert torch.equal(by_module, LabelRelation(similarity=lambda a, b: (a * module.weight) @ b.float().T)(LABELS))
    assert by_module[0].tolist() == [1, 1, -1, -1, -1]
    assert list(LabelRelation(similarity=module).state_dict()) == ["similarity.weight"]


@pytest.mark.parametrize("convert", [torch.Tensor.numpy, torch.Tensor.tolist, lambda rows: sparse.csr_array(rows)])
def test_relation_takes_labels_of_every_kind(convert):
    relation = LabelRelation(similarity=sim.Jaccard(), positive_threshold=0.25)
    assert torch.equal(relation(convert(LABELS)), relation(LABELS))
    assert torch.equal(relation(LABELS[:2], convert(LABELS)), relation(LABELS[:2], LABELS))


def test_relation_representation_shows_its_parameters():
    relation = LabelRelation(similarity=sim.Jaccard(torch.ones(30)), positive_threshold=0.5, negative_threshold=0.0)
    assert str(relation) == (
        "LabelRelation(similarity=Jaccard(weights=tensor of 30), positive_threshold=0.5, negative_threshold=0.0)"
    )
    assert "(similarity): Learned()" in str(LabelRelation(similarity=Learned()))


def test_relation_takes_a_boolean_similarity():
    assert torch.equal(
        LabelRelation(similarity=lambda a, b: (a.float() @ b.float().T) > 0)(LABELS), LabelRelation()(LABELS)
    )


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float16, torch.bfloat16, torch.float64])
def test_relation_takes_every_dtype_of_labels(dtype):
    relation = LabelRelation(similarity=sim.Jaccard(), positive_threshold=0.25)
    assert torch.equal(relation(LABELS.to(dtype)), relation(LABELS))


def test_relation_is_not_rounded_under_autocast():
    labels = torch.ones(2, 257)  # 257 is 256 in bfloat16
    relation = LabelRelation(similarity=lambda a, b: a @ b.T, positive_threshold=256)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert relation(labels).tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda relation: pickle.loads(pickle.dumps(relation))])
def test_relation_copies_and_pickles(copied):
    relation = LabelRelation(
        similarity=sim.Jaccard(), positive_threshold=0.5, negative_threshold=0.1, validate_args=False
    )
    other = copied(relation)
    assert torch.equal(other(LABELS), relation(LABELS))
    assert (other.positive_threshold, other.negative_threshold, other.validate_args) == (0.5, 0.1, False)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"similarity": 3}, TypeError, "`similarity` must be callable, got int"),
        ({"positive_threshold": 0.2, "negative_threshold": 0.3}, ValueError, r"must not exceed .* got 0\.3 and 0\.2"),
        ({"positive_threshold": float("nan")}, ValueError, "got nan and nan"),
        ({"negative_threshold": float("nan")}, ValueError, r"got nan and 0\.0"),
    ],
)
def test_relation_constructor_rejects_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        LabelRelation(**arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([["a"], ["a", "b"]],), TypeError, "`labels` must .*MultiLabelBinarizer"),
        ((LABELS, [["a", "b", "c", "d"]]), TypeError, "`ref_labels` must .*MultiLabelBinarizer"),
        ((torch.tensor([1, 0, 2]),), ValueError, r"`labels` must be a 2-D .* got shape \(3,\).*one_hot"),
        ((LABELS, LABELS[0]), ValueError, r"`ref_labels` must be a 2-D .* got shape \(4,\)"),
        ((3 * LABELS,), ValueError, r"`labels` must contain numbers in \[0, 1\], got 3\.0 at row 0, label 0"),
        ((LABELS, LABELS / -1), ValueError, r"`ref_labels` must contain .* got -1\.0 at row 0"),
    ],
)
def test_relation_rejects_bad_labels(arguments, error, message):
    with pytest.raises(error, match=message):
        LabelRelation()(*arguments)


@pytest.mark.parametrize(
    ("similarity", "error", "message"),
    [
        (lambda a, b: (a @ b.T)[0], ValueError, r"must return shape \(5, 5\).*got \(5,\)"),
        (lambda a, b: (a @ b.T) / 0.0, ValueError, "`similarity` must not return NaN"),
        (lambda a, b: (a @ b.T).numpy(), TypeError, "must return a torch.Tensor, got ndarray"),
    ],
)
def test_relation_rejects_wrong_results_of_a_similarity(similarity, error, message):
    with pytest.raises(error, match=message):
        LabelRelation(similarity=similarity)(LABELS)


def test_relation_that_does_not_validate_ignores_a_pair_without_a_similarity():
    relation = LabelRelation(similarity=lambda a, b: torch.full((len(a), len(b)), torch.nan), validate_args=False)
    assert relation(LABELS[:2]).tolist() == [[0, 0], [0, 0]]
