"""Thresholds against an exhaustive search over all distinct predictions, in exact fractions."""

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
    predicted = scores >= accepted
    return Fraction(2 * int((predicted & positive).sum()), int(predicted.sum() + positive.sum()))


def _search(scores, positive):
    """Return the highest of the best thresholds, halfway between two scores, and its F1."""
    distinct = sorted(set(scores.tolist()), reverse=True)
    best = max(range(len(distinct)), key=lambda i: (_f1(scores, positive, distinct[i]), -i))
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
    reached = f1(preds, target, threshold=thresholds, average="none", zero_division=0)
    for label, (scores, positive) in enumerate(zip(preds.T, target.T, strict=True)):
        expected, highest = _search(scores, positive) if positive.any() else (pooled, 0)
        np.testing.assert_allclose(thresholds[label], expected, rtol=1e-12)
        assert reached[label].item() == float(highest)


@st.composite
def masked_matrices(draw):
    """Return scores, true labels with at least one included positive, and a mask."""
    shape = draw(st.tuples(st.integers(1, 5), st.integers(1, 3)))
    each = {"fill": st.nothing()}  # no value that most entries have
    preds = draw(hnp.arrays(np.float64, shape, elements=st.sampled_from([-2.0, 0.0, 0.125, 0.75, 7.0]), **each))
    target, mask = (draw(hnp.arrays(np.bool_, shape, **each)) for _ in range(2))
    mask |= draw(st.booleans())
    target[0, 0] = mask[0, 0] = True
    return preds, target & mask, mask


def _predictions(preds, mask, accepted):
    """Yield the predicted labels for each combination of thresholds, one of `accepted` for each label."""
    for thresholds in product(*accepted):
        yield (preds >= np.array(thresholds)) & mask


def _micro(predicted, target):
    return Fraction(2 * int((predicted & target).sum()), int(predicted.sum() + target.sum()))


def _macro(predicted, target):
    """Average over the labels with positives."""
    values = [_micro(d, y) for d, y in zip(predicted.T, target.T, strict=True) if y.any()]
    return sum(values) / len(values)


F1 = {"macro": _macro, "micro": _micro}


def _corrupt(preds, target, mask):
    return np.where(mask, preds, np.nan), np.where(mask, target, -1)


@pytest.mark.parametrize("average", F1)
@settings(max_examples=50, deadline=None)
@given(matrices=masked_matrices())
def test_thresholds_per_label_have_the_highest_f1_of_all_combinations(average, matrices):
    preds, target, mask = matrices
    accepted = [[*set(s[m]), np.inf] for s, m in zip(preds.T, mask.T, strict=True)]
    highest = max(F1[average](predicted, target) for predicted in _predictions(preds, mask, accepted))
    options = {"average": average, "mask": mask, "fallback": np.inf}
    thresholds = best_thresholds(*_corrupt(*matrices), **options)
    assert F1[average]((preds >= thresholds.numpy()) & mask, target) == highest
    # By default, a label without positives has the common threshold.
    with_positives = torch.from_numpy(target.any(axis=0))
    common = best_thresholds(*_corrupt(*matrices), average="micro", per_label=False, mask=mask)
    assert torch.equal(
        best_thresholds(*_corrupt(*matrices), average=average, mask=mask),
        torch.where(with_positives, thresholds, common),
    )


def test_of_combinations_with_the_same_micro_f1_the_highest_thresholds_are_returned():
    preds = torch.tensor([[3.0, 3.0], [2.0, 2.0], [1.0, 1.0]])
    target = torch.tensor([[0, 0], [0, 1], [1, 1]])
    # All entries: 3 of 6 are true positives, 2 * 3 / (6 + 3). Without the first label: 2 of 3, 2 * 2 / (3 + 3).
    assert best_thresholds(preds, target, average="micro").tolist() == [torch.inf, 1]


@pytest.mark.parametrize("average", F1)
@settings(max_examples=50, deadline=None)
@given(matrices=masked_matrices())
def test_common_threshold_is_the_highest_of_the_best_thresholds(average, matrices):
    preds, target, mask = matrices
    threshold = best_thresholds(*_corrupt(*matrices), average=average, per_label=False, mask=mask)
    assert threshold.shape == ()
    # A label without positives has no F1, so its scores are not candidates for macro F1.
    with_positives = mask & (target.any(axis=0) if average == "macro" else True)
    distinct = sorted(set(preds[with_positives]), reverse=True)
    reached = [F1[average]((preds >= score) & mask, target) for score in distinct]
    best = reached.index(max(reached))
    expected = distinct[best] if best + 1 == len(distinct) else (distinct[best] + distinct[best + 1]) / 2
    assert threshold.item() == expected
    assert F1[average]((preds >= expected) & mask, target) == max(reached)


@settings(max_examples=30, deadline=None)
@given(matrices=masked_matrices(), average=st.sampled_from(["macro", "micro"]), per_label=st.booleans())
def test_excluded_entries_may_contain_any_value_and_change_nothing(matrices, average, per_label):
    preds, target, mask = matrices
    options = {"average": average, "per_label": per_label, "mask": mask}
    expected = best_thresholds(*_corrupt(*matrices), **options)
    for filler in (-np.inf, np.inf, 0.5):
        assert torch.equal(best_thresholds(np.where(mask, preds, filler), target | ~mask, **options), expected)


def test_label_that_only_lowers_micro_f1_is_never_predicted():
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(200, 2, generator=generator) < torch.tensor([0.5, 0.02])
    preds = torch.stack([target[:, 0] + 0.0, torch.rand(200, generator=generator)], dim=1)
    assert best_thresholds(preds, target, average="micro").tolist() == [0.5, torch.inf]
    assert best_thresholds(preds, target)[1].isfinite()


def test_hand_computed_common_thresholds():
    preds = torch.tensor([[0.9, 0.5], [0.8, 0.4], [0.7, 0.2], [0.6, 0.1]], dtype=torch.float64)
    target = torch.tensor([[1, 1], [1, 0], [1, 0], [1, 0]])
    # F1 of the labels: 1 and 0 at 0.6, both 1 at 0.5. Micro F1 is also 1 at 0.5.
    for average in F1:
        assert best_thresholds(preds, target, average=average, per_label=False).item() == pytest.approx(0.45)
    # With the lowest score for the positive of the second label, macro F1 is 1/2 at 0.6, (1 + 2/5) / 2 at 0.1; micro F1
    # 8/9 and 10/13.
    target[:, 1] = torch.tensor([0, 0, 0, 1])
    assert best_thresholds(preds, target, average="macro", per_label=False).item() == pytest.approx(0.1)
    assert best_thresholds(preds, target, average="micro", per_label=False).item() == pytest.approx(0.55)
    # The scores of a label without positives do not change the macro threshold.
    preds, target = torch.tensor([[0.9, 0.1], [0.1, 0.6]]), torch.tensor([[1, 0], [0, 0]])
    assert best_thresholds(preds, target, per_label=False).item() == pytest.approx(0.5)
    assert best_thresholds(preds, target, average="micro", per_label=False).item() == pytest.approx(0.75)


@pytest.mark.parametrize("average", F1)
def test_shrinkage_pulls_the_thresholds_of_rare_labels_towards_the_common_threshold(average):
    generator = torch.Generator().manual_seed(1)
    target = torch.rand(60, 4, generator=generator) < torch.tensor([0.5, 0.2, 0.05, -1.0])
    preds, counts = torch.rand(60, 4, generator=generator) + 0.3 * target, target.sum(dim=0)
    mask = torch.rand(60, 4, generator=generator) < 0.9
    positives = (target & mask).sum(dim=0).tolist()
    assert 0 == positives[3] < positives[2] < positives[1] < positives[0] < counts[0]
    own = best_thresholds(preds, target, average=average, mask=mask)
    common = best_thresholds(preds, target, average="micro", per_label=False, mask=mask).item()
    for shrinkage in (0.5, 10.0):
        found = best_thresholds(preds, target, average=average, shrinkage=shrinkage, mask=mask)
        expected = [
            (p * t + shrinkage * common) / (p + shrinkage) for p, t in zip(positives, own.tolist(), strict=True)
        ]
        assert found.tolist() == pytest.approx(expected, rel=1e-12)
        assert found[3] == pytest.approx(common, rel=1e-12)
    assert torch.equal(best_thresholds(preds, target, average=average, shrinkage=0, mask=mask), own)
    found = best_thresholds(preds, target, average=average, shrinkage=1.0, fallback=9.0, mask=mask)
    assert found[3] == 9


def test_shrinkage_between_infinities_is_not_nan():
    inf = torch.inf
    preds = torch.tensor([[-inf, inf], [-inf, 0.0], [-inf, inf]])
    target = torch.tensor([[1, 1], [1, 0], [1, 1]])
    assert best_thresholds(preds, target).tolist() == [-inf, inf]
    assert not best_thresholds(preds, target, shrinkage=1.0).isnan().any()


@pytest.mark.parametrize(
    "options",
    [{"shrinkage": -1.0}, {"shrinkage": np.nan}, {"shrinkage": np.inf}, {"shrinkage": 1.0, "per_label": False}],
)
def test_invalid_shrinkage_is_rejected(options):
    message = rf"`shrinkage` must be a number >= 0, and 0 with `per_label=False`, got {options['shrinkage']}"
    with pytest.raises(ValueError, match=message):
        best_thresholds([[0.1]], [[1]], **options)


@settings(max_examples=50, deadline=None)
@given(matrices=masked_matrices(), limit=st.sampled_from([0.5, 1.0, 1.5, 2.0, np.inf]))
def test_limited_thresholds_have_the_highest_f1_among_those_that_predict_few_enough(matrices, limit):
    preds, target, mask = matrices
    options = {"max_predicted": limit, "fallback": np.inf}
    thresholds = best_thresholds(*_corrupt(*matrices), mask=mask, **options).numpy()
    for scores, positive, included, threshold in zip(preds.T, target.T, mask.T, thresholds, strict=True):
        scores, positive = scores[included], positive[included]
        if not positive.any():
            continue
        accepted = sorted(set(scores[positive]), reverse=True)
        allowed = [s for s in accepted if (scores >= s).sum() <= limit * positive.sum()] or accepted[:1]
        assert _f1(scores, positive, threshold) == max(_f1(scores, positive, s) for s in allowed)


def test_limit_keeps_a_label_that_is_hard_to_predict_from_being_predicted_everywhere():
    preds = torch.linspace(1, 0, 10)[:, None]
    target = torch.tensor([1, 0, 0, 0, 0, 0, 0, 1, 1, 1])[:, None]
    assert int((preds >= best_thresholds(preds, target)).sum()) == 10
    for average in F1:
        limited = best_thresholds(preds, target, average=average, max_predicted=1.5)
        assert int((preds >= limited).sum()) == 1
    assert int((preds >= best_thresholds(preds, target, max_predicted=0.1)).sum()) == 1


@pytest.mark.parametrize(
    "options", [{"max_predicted": 0.0}, {"max_predicted": np.nan}, {"max_predicted": 1.5, "per_label": False}]
)
def test_invalid_limit_is_rejected(options):
    message = rf"`max_predicted` must be a number above 0, and infinite .*, got {options['max_predicted']}"
    with pytest.raises(ValueError, match=message):
        best_thresholds([[0.1]], [[1]], **options)


def test_no_positive_among_the_included_entries_requires_a_fallback():
    preds, target, mask = torch.zeros(2, 2), torch.ones(2, 2), torch.zeros(2, 2)
    with pytest.raises(ValueError, match=r"`target` must contain at least one positive .*, got none in 4 entries"):
        best_thresholds(preds, target, mask=mask)
    assert best_thresholds(preds, target, mask=mask, fallback=0.3).tolist() == pytest.approx([0.3, 0.3])


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_thresholds_give_the_same_predictions_in_the_dtype_of_the_scores_and_in_wider_dtypes(dtype, data):
    preds, target = data.draw(score_matrices(dtype))
    target[0] = True
    thresholds = best_thresholds(preds, target)
    highest = [float(_search(scores, positive)[1]) for scores, positive in zip(preds.T, target.T, strict=True)]
    for scores in (torch.from_numpy(preds), torch.from_numpy(preds).double()):
        assert f1(scores, target, threshold=thresholds, average="none").tolist() == highest
        wide = f1(scores.double() >= thresholds, target, average="none")
        assert wide.tolist() == highest


def test_hand_computed_values():
    preds = torch.tensor([[0.9, 0.9], [0.6, 0.6], [0.5, 0.5], [0.1, 0.1]], dtype=torch.float64)
    target = torch.tensor([[1, 0], [1, 0], [0, 1], [0, 0]])
    # Label 1: F1 is 0, 0, 2/4, 2/5 from the highest score down.
    assert best_thresholds(preds, target).tolist() == pytest.approx([0.55, 0.3])


def test_of_thresholds_with_the_same_f1_the_highest_is_returned():
    # F1 of the highest score only: 2/3. Of all four: 4/6.
    preds = torch.tensor([[0.8], [0.6], [0.4], [0.2]], dtype=torch.float64)
    assert best_thresholds(preds, [[1], [0], [0], [1]]).item() == pytest.approx(0.7)


def test_threshold_that_every_row_reaches_is_the_lowest_score():
    assert best_thresholds([[0.9], [0.4]], [[1], [1]]).item() == 0.4
    assert best_thresholds([[0.5]], [[1]]).item() == 0.5


def test_tied_scores_are_predicted_together():
    preds = torch.tensor([[0.75], [0.75], [0.75], [0.25]], dtype=torch.float64)
    target = torch.tensor([[1], [0], [0], [0]])
    assert best_thresholds(preds, target).item() == 0.5
    assert f1(preds, target, threshold=best_thresholds(preds, target)).item() == 1 / 2


def test_optimum_off_any_grid_is_found():
    preds = torch.tensor([[0.5000003], [0.5000002], [0.5000001]], dtype=torch.float64)
    target = torch.tensor([[1], [0], [0]])
    assert f1(preds, target, threshold=best_thresholds(preds, target)).item() == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_neighbouring_numbers_of_the_dtype_are_separated(dtype):
    low = torch.tensor(0.7, dtype=dtype)
    high = torch.nextafter(low.double(), low.double() + 1) if dtype == torch.float64 else None
    if high is None:
        high = low + torch.finfo(dtype).eps * 0.5
        assert high > low
    preds, target = torch.stack([low, high])[:, None], torch.tensor([[0], [1]])
    assert f1(preds, target, threshold=best_thresholds(preds, target)).item() == 1


def test_extreme_scores_have_a_finite_or_reachable_threshold():
    huge = torch.tensor([[1.7e308], [-1.7e308]], dtype=torch.float64)
    assert best_thresholds(huge, [[1], [0]]).item() == 0
    assert best_thresholds(huge.abs() / torch.tensor([[1], [2]]), [[1], [0]]).item() == pytest.approx(1.275e308)
    infinite = torch.tensor([[torch.inf], [-torch.inf], [0.0]])
    assert best_thresholds(infinite, [[1], [0], [0]]).item() == torch.inf
    assert best_thresholds(infinite, [[1], [0], [1]]).item() == 0
    assert best_thresholds(infinite[:2], [[1], [0]]).item() == torch.inf


def test_integer_scores_have_thresholds_between_them():
    assert best_thresholds([[3], [2]], [[1], [0]]).item() == 2.5
    assert best_thresholds([[True], [False]], [[1], [0]]).item() == 0.5


def test_label_without_positives_has_the_common_threshold_or_the_fallback():
    preds = torch.tensor([[0.9, 0.6], [0.2, 0.5]], dtype=torch.float64)
    target = torch.tensor([[1, 0], [0, 0]])
    pooled = best_thresholds(preds, target, average="micro", per_label=False)
    assert pooled.item() == 0.75
    assert best_thresholds(preds, target).tolist() == [0.55, pooled]
    assert best_thresholds(preds, target, fallback=2.0).tolist() == [0.55, 2.0]
    assert best_thresholds(preds, target, fallback=float("inf")).tolist() == [0.55, torch.inf]


@pytest.mark.parametrize("shape", [(2, 2), (0, 2)])
def test_no_positive_requires_a_fallback(shape):
    preds, target = torch.zeros(shape), torch.zeros(shape)
    for average, per_label in product(("macro", "micro"), (True, False)):
        with pytest.raises(
            ValueError, match=rf"`target` must contain at least one positive .*, got none in {preds.numel()} entries"
        ):
            best_thresholds(preds, target, average=average, per_label=per_label)
        expected = [0.3, 0.3] if per_label else 0.3
        result = best_thresholds(preds, target, average=average, per_label=per_label, fallback=0.3)
        assert result.tolist() == pytest.approx(expected)


def test_no_labels_have_no_thresholds():
    result = best_thresholds(torch.zeros(3, 0), torch.zeros(3, 0))
    assert result.shape == (0,)
    assert result.dtype == torch.float64


def test_thresholds_are_nearly_optimal_on_new_rows():
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
        ({"preds": [[np.nan, 0.9]]}, r"`preds` must not contain NaN, got one at row 0, label 0"),
        ({"target": [[0.5, 1]]}, r"`target` must contain only 0 and 1, got 0\.5"),
        ({"target": [[0, 1, 1]]}, r"the same shape \(N, L\), got \(1, 2\) and \(1, 3\)"),
        ({"mask": [[1, 1, 1]]}, r"`mask` must have the shape of `preds`, \(1, 2\)"),
    ],
)
def test_invalid_argument_is_rejected(arguments, message):
    with pytest.raises(ValueError, match=message):
        best_thresholds(**{"preds": [[0.1, 0.9]], "target": [[0, 1]]} | arguments)


def test_result_is_on_the_device_of_the_scores(device):
    generator = torch.Generator().manual_seed(2)
    preds, target = torch.rand(2, 100, 3, generator=generator)
    target = target < 0.3
    mask = torch.rand(100, 3, generator=generator) < 0.9
    for average, per_label in product(F1, (True, False)):
        options = {"average": average, "per_label": per_label, "mask": mask}
        result = best_thresholds(preds.to(device), target, **options)
        assert result.device == device
        assert torch.equal(result.cpu(), best_thresholds(preds, target, **options))
