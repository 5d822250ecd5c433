"""Label-ranking metrics against scikit-learn and loops over the formulas."""

from functools import partial

import numpy as np
import pytest
import sklearn.metrics as sk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mlmetric.metrics import coverage_error, label_ranking_average_precision, one_error, ranking_loss
from mlmetric.metrics._inputs import ResampleWeights

half_ranking_loss = partial(ranking_loss, ties="half")
FUNCTIONS = [coverage_error, label_ranking_average_precision, ranking_loss, half_ranking_loss, one_error]
# With the value that scikit-learn assigns to rows without pairs.
SKLEARN = [
    (coverage_error, 0, sk.coverage_error),
    (label_ranking_average_precision, 1, sk.label_ranking_average_precision_score),
    (ranking_loss, 0, sk.label_ranking_loss),
]

# Rows: correct ranking, wrong ranking, tied labels, no true label, all labels true.
PREDS = torch.tensor([[0.9, 0.6, 0.1], [0.1, 0.6, 0.9], [0.5, 0.5, 0.5], [0.9, 0.6, 0.1], [0.9, 0.6, 0.1]])
TARGET = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0], [1, 1, 1]])


@st.composite
def score_matrices(draw, min_labels=1):
    shape = draw(st.tuples(st.integers(1, 6), st.integers(min_labels, 6)))
    grid = draw(st.sampled_from([[0.3], [0.0, 1.0], [-2.0, -0.0, 0.0, 0.1, 7.0]]) | st.none())
    elements = st.floats(-1e6, 1e6) if grid is None else st.sampled_from(grid)
    target = draw(hnp.arrays(np.bool_, shape))
    for full in draw(st.lists(st.booleans(), max_size=2)):
        target[draw(st.integers(0, shape[0] - 1))] = full
    return draw(hnp.arrays(np.float64, shape, elements=elements)), target


def _row(function, scores, positive):
    """Return the metric of one row, from its formula; NaN for 0/0."""
    scores, positive = list(scores), list(map(bool, positive))
    true = [s for s, y in zip(scores, positive, strict=True) if y]
    other = [s for s, y in zip(scores, positive, strict=True) if not y]
    if function is one_error:
        top = [y for s, y in zip(scores, positive, strict=True) if s == max(scores)]
        return np.mean([not y for y in top]) if top else np.nan
    if not true or (not other and function in (ranking_loss, half_ranking_loss)):
        return np.nan
    if function is coverage_error:
        return max(sum(t >= s for t in scores) for s in true)
    if function is label_ranking_average_precision:
        return np.mean([sum(t >= s for t in true) / sum(t >= s for t in scores) for s in true])
    tied = 1 if function is ranking_loss else 0.5
    return np.mean([1 if s < t else tied * (s == t) for s in true for t in other])


def _mean(function, preds, target, mask=None, weight=None):
    mask = np.ones_like(target, dtype=bool) if mask is None else mask
    values = [_row(function, s[m], y[m]) for s, y, m in zip(preds, target, mask, strict=True)]
    values, weight = np.array(values), np.ones(len(values)) if weight is None else np.asarray(weight)
    defined = ~np.isnan(values)
    if not weight[defined].sum():
        return np.nan
    return (weight[defined] * values[defined]).sum() / weight[defined].sum()


def _assert_equal(actual, expected):
    assert actual.dtype == torch.float64
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("function", "zero_division", "expected"), SKLEARN)
@settings(max_examples=50, deadline=None)
@given(matrices=score_matrices(min_labels=2), data=st.data())
def test_metric_equals_scikit_learn_with_and_without_weights(function, zero_division, expected, matrices, data):
    preds, target = matrices
    _assert_equal(function(preds, target, zero_division=zero_division), expected(target, preds))
    weight = data.draw(hnp.arrays(np.float64, len(preds), elements=st.floats(0.125, 8)))
    _assert_equal(
        function(preds, target, zero_division=zero_division, sample_weight=weight),
        expected(target, preds, sample_weight=weight),
    )


@pytest.mark.parametrize("function", FUNCTIONS)
@settings(max_examples=50, deadline=None)
@given(matrices=score_matrices(), data=st.data())
def test_metric_equals_its_formula_over_the_included_entries(function, matrices, data):
    preds, target = matrices
    mask = data.draw(hnp.arrays(np.bool_, preds.shape))
    weight = data.draw(hnp.arrays(np.float64, len(preds), elements=st.sampled_from([0.0, 0.5, 1.0, 3.0])))
    _assert_equal(function(preds, target), _mean(function, preds, target))
    corrupted = np.where(mask, preds, np.nan), np.where(mask, target, -1)
    _assert_equal(function(*corrupted, mask=mask), _mean(function, preds, target, mask))
    _assert_equal(function(*corrupted, mask=mask, sample_weight=weight), _mean(function, preds, target, mask, weight))


@settings(max_examples=50, deadline=None)
@given(matrices=score_matrices())
def test_ranking_loss_with_half_ties_is_one_minus_the_area_under_the_roc_curve(matrices):
    preds, target = matrices
    areas = [1 - sk.roc_auc_score(y, s) for s, y in zip(preds, target, strict=True) if y.any() and not y.all()]
    _assert_equal(half_ranking_loss(preds, target), np.mean(areas) if areas else np.nan)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.slow
def test_rows_of_many_labels_with_any_number_of_positives_equal_the_formula(function, dtype):
    generator = torch.Generator().manual_seed(0)
    share = torch.logspace(-2.5, 0, 60)[:, None]
    target = torch.rand(60, 200, generator=generator) < share
    target[0], target[1] = False, True
    assert len(torch.frexp(target.sum(dim=1).double()).exponent.unique()) >= 6
    preds = torch.randn(60, 200, generator=generator).to(dtype)
    mask = torch.rand(60, 200, generator=generator) < 0.8
    assert any(len(row.unique()) < 200 for row in preds) == (dtype == torch.float16)
    for counts in (None, mask):
        expected = _mean(function, preds.double().numpy(), target.numpy(), None if counts is None else mask.numpy())
        _assert_equal(function(preds, target, mask=counts), expected)


def test_hand_computed_values():
    # For each row; the fourth has no true label, and the last no pairs.
    rows = [(PREDS[[i]], TARGET[[i]]) for i in range(5)]
    nan = torch.nan
    for function, expected in [
        (coverage_error, [2, 3, 3, nan, 3]),
        (label_ranking_average_precision, [1, 1 / 3, 1 / 3, nan, 1]),
        (ranking_loss, [0, 1, 1, nan, nan]),
        (half_ranking_loss, [0, 1, 1 / 2, nan, nan]),
        (one_error, [0, 1, 2 / 3, 1, 0]),
    ]:
        np.testing.assert_allclose([function(*row) for row in rows], expected, rtol=1e-15)
        _assert_equal(function(PREDS, TARGET), np.nanmean(expected))


def test_undefined_rows_follow_zero_division():
    assert coverage_error(PREDS, TARGET, zero_division=0).item() == pytest.approx(11 / 5)
    assert coverage_error(PREDS, TARGET, zero_division=1).item() == pytest.approx(12 / 5)
    assert ranking_loss(PREDS, TARGET, zero_division=0).item() == pytest.approx(2 / 5)
    assert ranking_loss(PREDS, TARGET, zero_division=1).item() == pytest.approx(4 / 5)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_metric_without_rows_or_labels_is_undefined(function, shape):
    preds, target = torch.zeros(shape), torch.zeros(shape)
    assert function(preds, target).isnan()
    assert function(preds, target, zero_division=0) == 0
    assert function(preds, target, zero_division=1) == 1


def test_single_label_has_no_pairs():
    preds, target = torch.tensor([[0.2], [0.7]]), torch.tensor([[1], [0]])
    assert coverage_error(preds, target) == 1
    assert label_ranking_average_precision(preds, target) == 1
    assert ranking_loss(preds, target).isnan()
    assert one_error(preds, target) == 1 / 2


@pytest.mark.parametrize("function", FUNCTIONS)
def test_rows_excluded_by_the_mask_are_undefined(function):
    mask = torch.ones_like(TARGET, dtype=torch.bool)
    mask[[1, 2]] = False
    left = [0, 3, 4]
    torch.testing.assert_close(function(PREDS, TARGET, mask=mask), function(PREDS[left], TARGET[left]))
    assert function(PREDS, TARGET, mask=torch.zeros_like(mask)).isnan()


def test_large_logits_do_not_become_ties():
    logits, target = torch.tensor([[20.0, 25.0, 30.0]]), torch.tensor([[0, 1, 0]])
    assert len(logits.sigmoid().unique()) < 3, "a sigmoid would have made ties of them"
    assert coverage_error(logits, target) == 2
    assert label_ranking_average_precision(logits, target) == 1 / 2
    assert ranking_loss(logits, target) == ranking_loss(logits, target, ties="half") == 1 / 2
    assert one_error(logits, target) == 1


def test_infinite_scores_are_ranked_first_or_last_and_tie_with_each_other():
    inf = torch.inf
    preds = torch.tensor([[-inf, inf, 0.0, inf], [-inf, -inf, 0.0, 5.0]])
    target = torch.tensor([[0, 1, 1, 0], [1, 0, 1, 0]])
    mask = torch.tensor([[True, True, True, True], [True, True, True, False]])
    # Among the included labels of the second row, the true ones are first, and last and tied with another.
    for function, plain, masked in [
        (coverage_error, (3 + 4) / 2, (3 + 3) / 2),
        (label_ranking_average_precision, (7 / 12 + 1 / 2) / 2, (7 / 12 + 5 / 6) / 2),
        (ranking_loss, (2 / 4 + 3 / 4) / 2, (2 / 4 + 1 / 2) / 2),
        (half_ranking_loss, (1.5 / 4 + 2.5 / 4) / 2, (1.5 / 4 + 0.5 / 2) / 2),
        (one_error, (1 / 2 + 1) / 2, (1 / 2 + 0) / 2),
    ]:
        _assert_equal(function(preds, target), plain)
        _assert_equal(function(preds, target, mask=mask), masked)


def test_row_with_scores_of_minus_infinity_only_is_tied():
    preds, target = torch.tensor([[-torch.inf, -torch.inf, 3.0]]), torch.tensor([[1, 0, 1]])
    mask = torch.tensor([[True, True, False]])
    for function, expected in zip(FUNCTIONS, [2, 1 / 2, 1, 1 / 2, 1 / 2], strict=True):
        assert function(preds, target, mask=mask) == expected


@pytest.mark.parametrize("function", FUNCTIONS)
def test_resample_weights_equal_each_weight_alone(function):
    weights = torch.rand(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights[0], weights[1] = 0, 1
    results = function(PREDS, TARGET, sample_weight=ResampleWeights(weights))
    assert results.shape == (7,)
    assert results[0].isnan()
    _assert_equal(results[1], function(PREDS, TARGET))
    _assert_equal(results, [function(PREDS, TARGET, sample_weight=weight) for weight in weights])


@pytest.mark.parametrize("function", FUNCTIONS)
def test_integer_weights_equal_repeated_rows(function):
    weight = torch.tensor([3, 0, 2, 1, 1])
    repeated = function(PREDS.repeat_interleave(weight, dim=0), TARGET.repeat_interleave(weight, dim=0))
    _assert_equal(function(PREDS, TARGET, sample_weight=weight), repeated)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"preds": [[0.1, np.nan]]}, r"`preds` must not contain NaN, got one at row 0, label 1"),
        ({"preds": [[0.1]]}, r"the same shape \(N, L\), got \(1, 1\) and \(1, 2\)"),
        ({"target": [[0.25, 1]]}, r"`target` must contain only 0 and 1, got 0\.25 at row 0, label 0"),
        ({"mask": [True, False]}, r"`mask` must have the shape of `preds`, \(1, 2\)"),
        ({"sample_weight": [1, 1]}, r"`sample_weight` must have shape \(1,\), one weight for each row"),
        ({"zero_division": "skip"}, r"`zero_division` must be 0.0, 1.0 or nan, got 'skip'"),
    ],
)
def test_invalid_argument_is_rejected(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(**{"preds": [[0.1, 0.9]], "target": [[0, 1]]} | arguments)


def test_unknown_ties_are_rejected():
    with pytest.raises(ValueError, match=r"`ties` must be one of 'one', 'half', got 'zero'"):
        ranking_loss(PREDS, TARGET, ties="zero")


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_result_is_on_the_device_of_the_scores(function, dtype, device):
    generator = torch.Generator().manual_seed(2)
    preds, share, counts = torch.rand(3, 50, 20, generator=generator)
    arguments = {"mask": counts < 0.9, "sample_weight": torch.rand(50, generator=generator)}
    result = function(preds.to(device, dtype), share < 0.3, **arguments)
    assert result.device == device
    torch.testing.assert_close(result.cpu(), function(preds.to(dtype), share < 0.3, **arguments), rtol=0, atol=1e-12)
