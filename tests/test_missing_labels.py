"""Missing labels (NaN): checks, similarities, relations and miners."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.miners import BatchHardMiner, PairMarginMiner

from mlmetric import similarity as sim
from mlmetric._pml import MultiLabelBaseMiner, resolve_ref_includes_query
from mlmetric.labels import check_labels, cooccurrence, label_counts, label_tensor
from mlmetric.miners import MultiLabelMiner, MultiLabelSemiHardMiner
from mlmetric.relations import LabelRelation
from mlmetric.training._mixup_batches import MixupRows

NAN = math.nan
FUNCTIONS = [sim.cosine, sim.dice, sim.hamming, sim.inner_product, sim.jaccard, sim.overlap]


def draw(seed, rows, num_labels, *, soft=False, missing=0.4, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.rand(rows, num_labels, generator=generator, dtype=torch.float64)
    if not soft:
        labels = labels.round()
    unknown = torch.rand(rows, num_labels, generator=generator) < missing
    return labels.masked_fill(unknown, NAN).to(dtype)


def compare_by_hand(function, row, other, weights=None):
    """Compare two rows on the labels that both have annotated, as complete rows."""
    common = ~(row.isnan() | other.isnan())
    kept = None if weights is None else weights[common]
    if not common.any() or (kept is not None and kept.sum() == 0):
        return NAN
    return float(function(row[common][None], other[common][None], weights=kept))


def table_by_hand(function, labels, refs, weights=None):
    rows = [[compare_by_hand(function, row, other, weights) for other in refs] for row in labels]
    return torch.tensor(rows, dtype=torch.float64)


def test_missing_labels_are_accepted_only_where_they_are_allowed():
    frame = pd.DataFrame({"a": [1, None], "b": [0, 1]}, dtype="Int64")
    for labels in (torch.tensor([[1, 0], [NAN, 1]]), np.array([[1, 0], [NAN, 1]]), [[1, 0], [None, 1]], frame):
        checked = torch.as_tensor(check_labels(labels, allow_missing=True))
        assert checked.isnan().tolist() == [[False, False], [True, False]]
        assert checked.nan_to_num(0.5).tolist() == [[1, 0], [0.5, 1]]
        with pytest.raises(ValueError, match=r"got nan at row 1, label 0\. NaN means that a label is not annotated"):
            check_labels(labels)
        with pytest.raises(ValueError, match="and `Forest` does not support missing labels"):
            label_tensor(labels, used_by="`Forest`")


@pytest.mark.parametrize("bad", [2.0, -1.0, math.inf])
def test_the_other_labels_of_a_matrix_with_missing_ones_are_checked(bad):
    labels = torch.tensor([[NAN, 1.0], [0.0, bad]])
    with pytest.raises(ValueError, match=rf"`y` must contain numbers in \[0, 1\], got {bad} at row 1, label 1"):
        check_labels(labels, name="y", allow_missing=True)
    assert check_labels(labels, validate_args=False, allow_missing=True) is labels


@pytest.mark.parametrize("function", [label_counts, cooccurrence, sim.inverse_frequency_weights])
def test_other_functions_reject_missing_labels(function):
    with pytest.raises(ValueError, match="does not support missing labels"):
        function(torch.tensor([[NAN, 1.0], [0.0, 1.0]]))


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_similarity_is_that_of_the_labels_annotated_in_both_rows(function, soft, weighted):
    for seed in range(20):
        num_labels = seed % 5 + 1
        dtype = (torch.float64, torch.float32)[seed % 2]
        labels = draw(seed, 6, num_labels, soft=soft, dtype=dtype)
        refs = draw(100 + seed, 4, num_labels, soft=soft, dtype=dtype)
        weights = (torch.arange(num_labels, dtype=torch.float64) + seed % 2) / 3 if weighted else None
        tolerances = {"rtol": 1e-6 if dtype == torch.float32 else 1e-11, "atol": 0.0, "equal_nan": True}
        for others, arguments in ((refs, (labels, refs)), (labels, (labels,))):
            result = function(*arguments, weights=weights)
            assert result.dtype == dtype
            expected = table_by_hand(function, labels, others, weights)
            torch.testing.assert_close(result.double(), expected, **tolerances)
        paired = function(labels[:4], refs, weights=weights, paired=True)
        torch.testing.assert_close(
            paired.double(), table_by_hand(function, labels[:4], refs, weights).diag(), **tolerances
        )


@pytest.mark.parametrize("function", FUNCTIONS)
def test_similarity_of_two_rows_does_not_depend_on_missing_labels_of_other_rows(function):
    labels = draw(0, 6, 5, missing=0)
    with_missing = torch.cat([labels, draw(1, 2, 5)])
    assert torch.equal(function(with_missing)[:6, :6], function(labels))
    assert torch.equal(function(labels, with_missing)[:, :6], function(labels))
    whole = labels.to(torch.uint8)
    expected = function(whole, with_missing.float())
    torch.testing.assert_close(expected, function(labels.float(), with_missing.float()), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_similarity_of_half_precision_is_that_of_float32(function):
    labels = draw(2, 6, 5, dtype=torch.float16)
    torch.testing.assert_close(function(labels), function(labels.float()), rtol=0, atol=0, equal_nan=True)


def test_gradient_of_a_similarity_with_missing_labels_is_finite():
    labels = draw(3, 5, 4, soft=True).requires_grad_()
    sim.jaccard(labels).nansum().backward()
    assert labels.grad.isfinite().all()
    assert (labels.grad[labels.isnan()] == 0).all()
    assert labels.grad.abs().sum() > 0


def test_sums_products_and_clamps_keep_nan():
    labels = draw(4, 6, 4, missing=0.7)
    first, second = sim.jaccard(labels), sim.hamming(labels)
    assert first.isnan().any()
    for combined, expected in (
        (0.5 * sim.Jaccard() + sim.Hamming(), 0.5 * first + second),
        (sim.Jaccard().clamp(min=0.2), first.clamp(min=0.2)),
        (0 * sim.Jaccard(), 0 * first),
    ):
        torch.testing.assert_close(combined(labels), expected, equal_nan=True)
        assert torch.equal(combined(labels).isnan(), first.isnan())


def test_soft_cosine_rejects_missing_labels_by_name():
    soft_cosine, labels = sim.SoftCosine(torch.eye(3)), draw(5, 4, 3)
    for arguments in ((labels,), (labels.nan_to_num(0), labels), (labels, labels.nan_to_num(0))):
        with pytest.raises(ValueError, match="`SoftCosine` does not support missing labels"):
            soft_cosine(*arguments)
    with pytest.raises(ValueError, match="`SoftCosine` does not support missing labels"):
        LabelRelation(similarity=soft_cosine)(labels)


def test_only_a_pair_with_missing_labels_may_have_similarity_nan():
    labels = torch.tensor([[1.0, 0.0], [NAN, 1.0], [0.0, 1.0]])
    result = sim.compare_labels(lambda a, b: a @ b.T, labels, labels)
    assert result.isnan().tolist() == [[False, True, False], [True, True, True], [False, True, False]]
    with pytest.raises(ValueError, match="`similarity` must not return NaN for rows without missing labels"):
        sim.compare_labels(lambda a, b: a @ b.T * NAN, labels, labels)


@pytest.mark.parametrize("validate_args", [False, True])
@pytest.mark.parametrize("thresholds", [(0.0, None), (0.5, 0.0)])
def test_relation_ignores_pairs_without_a_label_annotated_in_both(validate_args, thresholds):
    relation = LabelRelation(
        similarity=sim.Jaccard(),
        positive_threshold=thresholds[0],
        negative_threshold=thresholds[1],
        validate_args=validate_args,
    )
    for seed in range(10):
        labels, refs = draw(seed, 6, 3, missing=0.6), draw(50 + seed, 5, 3, missing=0.6)
        low = thresholds[0] if thresholds[1] is None else thresholds[1]
        expected = [
            [0 if math.isnan(value) else int(value > thresholds[0]) - int(value <= low) for value in row]
            for row in table_by_hand(sim.jaccard, labels, refs).tolist()
        ]
        assert relation(labels, refs).tolist() == expected
    assert relation(torch.full((2, 3), NAN)).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("kind", ["hard", "semihard", "all", "easy"])
@pytest.mark.parametrize("thresholds", [(0.0, 0.0), (0.2, 0.5), (0.3, 0.1)])
@pytest.mark.parametrize("disjoint", ["violating", "any"])
def test_semi_hard_miner_uses_only_pairs_with_a_label_annotated_in_both(kind, thresholds, disjoint):
    for seed in range(3):
        labels = draw(seed, 9, 3, missing=0.5)
        embeddings = torch.randn(9, 2, generator=torch.Generator().manual_seed(seed))
        similarity = table_by_hand(sim.jaccard, labels, labels)
        distance = torch.cdist(embeddings, embeddings)
        qualifies = {
            "hard": lambda positive, negative: negative < positive,
            "semihard": lambda positive, negative: positive <= negative < positive + 0.5,
            "all": lambda positive, negative: negative < positive + 0.5,
            "easy": lambda positive, negative: negative >= positive + 0.5,
        }[kind]
        expected = {
            (a, p, n)
            for a in range(9)
            for p in range(9)
            for n in range(9)
            if a not in (p, n) and similarity[a, p] > thresholds[0] and similarity[a, n] < similarity[a, p]
            if qualifies(float(distance[a, p]), float(distance[a, n]))
            or (disjoint == "any" and similarity[a, n] <= thresholds[1])
        }
        options = {
            "similarity": sim.Jaccard(),
            "positive_threshold": thresholds[0],
            "partial_threshold": thresholds[1],
            "margin": 0.5,
            "type_of_triplets": kind,
            "disjoint_negatives": disjoint,
            "distance": LpDistance(normalize_embeddings=False),
        }
        mined = MultiLabelSemiHardMiner(**options)(embeddings, labels)
        assert set(zip(*(part.tolist() for part in mined), strict=True)) == expected
        assert len(mined[0]) == len(expected) > 0
        capped = MultiLabelSemiHardMiner(max_partial_per_positive=1, max_disjoint_per_positive=1, **options)
        assert set(zip(*(part.tolist() for part in capped(embeddings, labels)), strict=True)) <= expected


def test_semi_hard_miner_draws_no_incomparable_negative_in_a_large_batch():
    labels = draw(0, 150, 3, missing=0.6)
    embeddings = torch.randn(150, 2, generator=torch.Generator().manual_seed(0))
    miner = MultiLabelSemiHardMiner(similarity=sim.Jaccard(), type_of_triplets="all", max_disjoint_per_positive=1)
    anchors, positives, negatives = miner(embeddings, labels)
    similarity = sim.jaccard(labels)
    assert similarity.isnan().any()
    assert len(anchors) > 1000
    assert (similarity[anchors, negatives] < similarity[anchors, positives]).all()


def test_wrapped_miners_mine_no_incomparable_pair():
    labels = draw(1, 12, 3, missing=0.6)
    embeddings = torch.randn(12, 2, generator=torch.Generator().manual_seed(1))
    relation = LabelRelation()(labels).fill_diagonal_(0)
    all_pairs = MultiLabelMiner(PairMarginMiner(pos_margin=-1, neg_margin=10))(embeddings, labels)
    expected = (*torch.where(relation > 0), *torch.where(relation < 0))
    for found, wanted in zip((all_pairs[:2], all_pairs[2:]), (expected[:2], expected[2:]), strict=True):
        assert set(zip(*(part.tolist() for part in found), strict=True)) == set(
            zip(*(part.tolist() for part in wanted), strict=True)
        )
    anchors, positives, negatives = MultiLabelMiner(BatchHardMiner())(embeddings, labels)
    assert len(anchors) > 0
    assert (relation[anchors, positives] == 1).all()
    assert (relation[anchors, negatives] == -1).all()


def test_miner_of_users_rejects_missing_labels_unless_it_states_support():
    class Miner(MultiLabelBaseMiner):
        validate_args = True

        def mine(self, embeddings, labels, ref_emb, ref_labels, *, ref_includes_query=False):
            return (torch.arange(len(labels)),) * 3

    labels, embeddings = draw(2, 4, 3), torch.eye(4)
    with pytest.raises(ValueError, match="`Miner` does not support missing labels"):
        Miner()(embeddings, labels)
    Miner.supports_missing_labels = True
    assert len(Miner()(embeddings, labels)) == 3


def test_references_of_other_processes_include_a_batch_with_missing_labels(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    labels, embeddings = draw(3, 4, 3), torch.eye(4)
    refs = torch.cat([embeddings, embeddings]), torch.cat([labels, draw(4, 4, 3)])
    assert resolve_ref_includes_query(embeddings, labels, *refs)
    assert not resolve_ref_includes_query(embeddings, labels, refs[0], torch.cat([1 - labels, labels]))
    assert not resolve_ref_includes_query(embeddings, labels.nan_to_num(0), *refs)


def test_mixup_of_a_missing_label_is_missing():
    labels = torch.tensor([[1.0, NAN], [0.0, 1.0], [1.0, 0.0]])
    rows = MixupRows(torch.tensor([0, 1, 2]), torch.tensor([1, 0, 2]), torch.tensor([0.75, 1.0, 0.5]))
    mixed = rows.mix(labels)
    torch.testing.assert_close(mixed, torch.tensor([[0.75, NAN], [0.0, NAN], [1.0, 0.0]]), equal_nan=True)
