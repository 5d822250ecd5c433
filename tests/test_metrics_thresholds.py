"""Chosen thresholds against a search through every decision that a threshold can make, in exact fractions."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mlmetric.metrics import best_thresholds, f1


@st.composite
def score_matrices(draw, dtype=np.float64):
    shape = draw(st.tuples(st.integers(1, 10), st.integers(1, 3)))
    grid = draw(st.sampled_from([[0.25], [0.0, 1.0], [-2.0, 0.0, 0.125, 0.75, 7.0]]) | st.none())
    elements = st.floats(-100, 100, width=dtype().itemsize * 8) if grid is None else st.sampled_from(grid)
    return draw(hnp.arrays(dtype, shape, elements=elements)), draw(hnp.arrays(np.bool_, shape))


def _f1(scores, positive, accepted):
    decided = scores >= accepted
    return Fraction(2 * int((decided & positive).sum()), int(decided.sum() + positive.sum()))


def _search(scores, positive):
    """Return the highest of the best cuts, in the middle between two scores, and its F1."""
    distinct = sorted(set(scores.tolist()), reverse=True)
    best = max(range(len(distinct)), key=lambda cut: (_f1(scores, positive, distinct[cut]), -cut))
    accepted = distinct[best]
    threshold = accepted if best == len(distinct) - 1 else (accepted + distinct[best + 1]) / 2
    return (threshold if threshold != distinct[min(best + 1, len(distinct) - 1)] else accepted), _f1(
        scores, positive, accepted
    )


@settings(max_examples=50, deadline=None)
@given(matrices=score_matrices())
def test_thresholds_equal_an_exhaustive_search(matrices):
    preds, target = matrices
    if not target.any():
        target[0, 0] = True
    pooled, pooled_f1 = _search(preds.ravel(), target.ravel())
    micro = best_thresholds(preds, target, average="micro", per_label=False)
    assert micro.shape == ()
    np.testing.assert_allclose(micro, pooled, rtol=1e-12)
    assert f1(preds, target, threshold=micro, average="micro").item() == float(pooled_f1)

    thresholds = best_thresholds(preds, target)
    reached = f1(preds, target, threshold=thresholds, average="none", empty="zero")
    for label, (scores, positive) in enumerate(zip(preds.T, target.T, strict=True)):
        expected, highest = _search(scores, positive) if positive.any() else (pooled, 0)
        np.testing.assert_allclose(thresholds[label], expected, rtol=1e-12)
        assert reached[label].item() == float(highest)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_thresholds_decide_the_same_in_the_dtype_of_the_scores_and_in_wider_ones(dtype, data):
    preds, target = data.draw(score_matrices(dtype))
    target[0] = True
    thresholds = best_thresholds(preds, target)
    highest = [float(_search(scores, positive)[1]) for scores, positive in zip(preds.T, target.T, strict=True)]
    for scores in (torch.from_numpy(preds), torch.from_numpy(preds).double()):
        assert f1(scores, target, threshold=thresholds, average="none").tolist() == highest
        wide = f1(scores.double() >= thresholds, target, average="none")
        assert wide.tolist() == highest


def test_hand_worked_table():
    preds = torch.tensor([[0.9, 0.9], [0.6, 0.6], [0.5, 0.5], [0.1, 0.1]], dtype=torch.float64)
    target = torch.tensor([[1, 0], [1, 0], [0, 1], [0, 0]])
    # Label 1: F1 is 0, 0, 2/4, 2/5 from the top.
    assert best_thresholds(preds, target).tolist() == pytest.approx([0.55, 0.3])


def test_equal_f1_takes_the_highest_cut():
    # Accepting 1 of 2 positives alone: 2/3. Accepting 4 with both: 4/6.
    preds = torch.tensor([[0.8], [0.6], [0.4], [0.2]], dtype=torch.float64)
    assert best_thresholds(preds, [[1], [0], [0], [1]]).item() == pytest.approx(0.7)


def test_threshold_that_accepts_every_row_is_the_lowest_score():
    assert best_thresholds([[0.9], [0.4]], [[1], [1]]).item() == 0.4
    assert best_thresholds([[0.5]], [[1]]).item() == 0.5


def test_tied_scores_are_accepted_together():
    preds = torch.tensor([[0.75], [0.75], [0.75], [0.25]], dtype=torch.float64)
    target = torch.tensor([[1], [0], [0], [0]])
    assert best_thresholds(preds, target).item() == 0.5
    assert f1(preds, target, threshold=best_thresholds(preds, target)).item() == 1 / 2


def test_optimum_off_any_grid_is_found():
    preds = torch.tensor([[0.5000003], [0.5000002], [0.5000001]], dtype=torch.float64)
    target = torch.tensor([[1], [0], [0]])
    assert f1(preds, target, threshold=best_thresholds(preds, target)).item() == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_neighbouring_numbers_of_the_dtype_are_told_apart(dtype):
    low = torch.tensor(0.7, dtype=dtype)
    high = torch.nextafter(low.double(), low.double() + 1) if dtype == torch.float64 else None
    if high is None:
        high = low + torch.finfo(dtype).eps * 0.5
        assert high > low
    preds, target = torch.stack([low, high])[:, None], torch.tensor([[0], [1]])
    assert f1(preds, target, threshold=best_thresholds(preds, target)).item() == 1


def test_extreme_scores_get_a_finite_or_reachable_threshold():
    huge = torch.tensor([[1.7e308], [-1.7e308]], dtype=torch.float64)
    assert best_thresholds(huge, [[1], [0]]).item() == 0
    assert best_thresholds(huge.abs() / torch.tensor([[1], [2]]), [[1], [0]]).item() == pytest.approx(1.275e308)
    infinite = torch.tensor([[torch.inf], [-torch.inf], [0.0]])
    assert best_thresholds(infinite, [[1], [0], [0]]).item() == torch.inf
    assert best_thresholds(infinite, [[1], [0], [1]]).item() == 0
    assert best_thresholds(infinite[:2], [[1], [0]]).item() == torch.inf


def test_integer_scores_get_thresholds_between_them():
    assert best_thresholds([[3], [2]], [[1], [0]]).item() == 2.5
    assert best_thresholds([[True], [False]], [[1], [0]]).item() == 0.5


def test_label_without_positives_gets_the_pooled_threshold_or_the_fallback():
    preds = torch.tensor([[0.9, 0.6], [0.2, 0.5]], dtype=torch.float64)
    target = torch.tensor([[1, 0], [0, 0]])
    pooled = best_thresholds(preds, target, average="micro", per_label=False)
    assert pooled.item() == 0.75
    assert best_thresholds(preds, target).tolist() == [0.55, pooled]
    assert best_thresholds(preds, target, fallback=2.0).tolist() == [0.55, 2.0]
    assert best_thresholds(preds, target, fallback=float("inf")).tolist() == [0.55, torch.inf]


@pytest.mark.parametrize("shape", [(2, 2), (0, 2)])
def test_no_positive_at_all_needs_a_fallback(shape):
    preds, target = torch.zeros(shape), torch.zeros(shape)
    for average, per_label in product(("macro", "micro"), (True, False)):
        with pytest.raises(ValueError, match=rf"`target` must hold a positive, got none in {preds.numel()} entries"):
            best_thresholds(preds, target, average=average, per_label=per_label)
        expected = [0.3, 0.3] if per_label else 0.3
        result = best_thresholds(preds, target, average=average, per_label=per_label, fallback=0.3)
        assert result.tolist() == pytest.approx(expected)


def test_no_labels_gives_no_thresholds():
    result = best_thresholds(torch.zeros(3, 0), torch.zeros(3, 0))
    assert result.shape == (0,)
    assert result.dtype == torch.float64


def test_thresholds_hold_on_unseen_rows_of_the_same_kind():
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(2, 10_000, 3, generator=generator) < torch.tensor([0.5, 0.1, 0.02])
    preds = torch.randn(2, 10_000, 3, generator=generator) + 2.5 * target
    chosen = f1(preds[1], target[1], threshold=best_thresholds(preds[0], target[0]))
    highest = f1(preds[1], target[1], threshold=best_thresholds(preds[1], target[1]))
    assert f1(preds[1], target[1], threshold=0.0) + 0.1 < chosen
    assert highest - 0.02 < chosen <= highest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"average": "none"}, r"`average` must be one of 'macro', 'micro', got 'none'"),
        ({"preds": [[np.nan, 0.9]]}, r"`preds` must hold no NaN, got one at row 0, label 0"),
        ({"target": [[0.5, 1]]}, r"`target` must be hard multi-hot, 0 or 1, got 0\.5"),
        ({"target": [[0, 1, 1]]}, r"the same shape \(N, L\), got \(1, 2\) and \(1, 3\)"),
    ],
)
def test_bad_argument_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        best_thresholds(**{"preds": [[0.1, 0.9]], "target": [[0, 1]]} | arguments)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_result_lies_on_the_device_of_the_scores():
    generator = torch.Generator().manual_seed(2)
    preds, target = torch.rand(2, 100, 3, generator=generator)
    target = target < 0.3
    result = best_thresholds(preds.cuda(), target)
    assert result.is_cuda
    assert torch.equal(result.cpu(), best_thresholds(preds, target))
