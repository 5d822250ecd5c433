"""Thresholds with guarantees, against searches over all thresholds written from the papers' formulas."""

import math
import warnings
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse
from scipy.stats import binom

from mlmetric.decisions import conformal_fnr_threshold, ltt_fdr_threshold

ALPHAS = ["0.05", "0.1", "0.25", "0.3", "0.5", "0.8"]
ignores_warnings = pytest.mark.filterwarnings("ignore:A (false|missed)")
each_function = pytest.mark.parametrize("function", [conformal_fnr_threshold, ltt_fdr_threshold])


@st.composite
def cases(draw, max_rows=12):
    """Draw scores with many ties, labels, a mask and a level as an exact fraction."""
    shape = draw(st.tuples(st.integers(1, max_rows), st.integers(1, 4)))
    scores = draw(hnp.arrays(np.float32, shape, elements=st.sampled_from([-math.inf, -2.0, 0.1, 0.25, 0.7, 3.0])))
    target, mask = (draw(hnp.arrays(np.bool_, shape)) for _ in range(2))
    mask = draw(st.sampled_from([mask, np.ones_like(mask)]))
    return scores, target, mask, Fraction(draw(st.sampled_from(ALPHAS)))


def false_negative_rate(scores, target, threshold):
    return Fraction(int((target & (scores < threshold)).sum()), max(int(target.sum()), 1))


def false_discovery_rate(scores, target, threshold):
    predicted = scores >= threshold
    return Fraction(int((predicted & ~target).sum()), max(int(predicted.sum()), 1))


def included_rows(scores, target, mask):
    """Return the rows with included entries, each with these entries only."""
    return [(row[kept], true[kept]) for row, true, kept in zip(scores, target, mask, strict=True) if kept.any()]


def highest_threshold(rows, alpha):
    """Return the highest threshold of conformal risk control, by trying all of them."""
    candidates = sorted({-math.inf, math.inf, *(float(score) for row, _ in rows for score in row)})

    def satisfies(threshold):
        total = sum(false_negative_rate(*row, threshold) for row in rows)
        return total / (len(rows) + 1) + Fraction(1, len(rows) + 1) <= alpha

    return max((threshold for threshold in candidates if satisfies(threshold)), default=-math.inf)


@ignores_warnings
@settings(max_examples=100)
@given(case=cases())
def test_conformal_threshold_equals_a_search_over_all_thresholds(case):
    scores, target, mask, alpha = case
    expected = highest_threshold(included_rows(scores, target, mask), alpha)
    assert conformal_fnr_threshold(scores, target, alpha=float(alpha), mask=mask).item() == expected

    thresholds = conformal_fnr_threshold(scores, target, alpha=float(alpha), mask=mask, per_label=True)
    positive = target & mask
    for label, threshold in enumerate(thresholds.tolist()):
        column = scores[positive[:, label], label]
        rows = [(column[i : i + 1], np.array([True])) for i in range(len(column))]
        assert threshold == highest_threshold(rows, alpha)


@ignores_warnings
@settings(max_examples=50)
@given(case=cases())
def test_mean_rate_of_each_row_with_the_threshold_of_the_others_is_at_most_alpha(case):
    # For any rows, whichever they are: this is why the guarantee holds for exchangeable rows.
    scores, target, mask, alpha = case
    rows = included_rows(scores, target, mask)
    assume(len(rows) > 1)
    kept = mask.any(axis=1)
    scores, target, mask = scores[kept], target[kept], mask[kept]
    total, missed = Fraction(0), np.zeros(target.shape[1])
    for i, row in enumerate(rows):
        others = [np.delete(values, i, axis=0) for values in (scores, target, mask)]
        threshold = conformal_fnr_threshold(*others[:2], alpha=float(alpha), mask=others[2])
        total += false_negative_rate(*row, threshold.item())
        thresholds = conformal_fnr_threshold(*others[:2], alpha=float(alpha), mask=others[2], per_label=True)
        missed += target[i] & mask[i] & (scores[i] < thresholds.numpy())
    assert total / len(rows) <= alpha
    assert (missed <= float(alpha) * (target & mask).sum(axis=0) + 1e-9).all()


def p_value(total, num_rows, alpha):
    """Return the p-value of Hoeffding and Bentkus for the sum of the rates."""
    rate = min(float(total / num_rows), alpha)
    entropy = (1 - rate) * math.log((1 - rate) / (1 - alpha)) + (rate * math.log(rate / alpha) if rate else 0)
    return min(math.exp(-num_rows * entropy), math.e * binom.cdf(math.ceil(total), num_rows, alpha))


def lowest_certified(rows, alpha, delta):
    """Return the score before the first p-value above `delta`, from the highest score downwards."""
    certified = math.inf
    if p_value(Fraction(0), len(rows), alpha) > delta:  # of thresholds above all scores
        return certified
    for threshold in sorted({float(score) for row, _ in rows for score in row}, reverse=True):
        total = sum(false_discovery_rate(*row, threshold) for row in rows)
        if p_value(total, len(rows), alpha) > delta:
            break
        certified = threshold
    return certified


@ignores_warnings
@settings(max_examples=100)
@given(case=cases(), delta=st.sampled_from([0.1, 0.3, 0.7, 0.95]))
def test_ltt_threshold_equals_fixed_sequence_testing_of_all_scores(case, delta):
    scores, target, mask, alpha = case
    rows = included_rows(scores, target, mask)
    expected = lowest_certified(rows, float(alpha), delta) if rows else math.inf
    assert ltt_fdr_threshold(scores, target, alpha=float(alpha), delta=delta, mask=mask).item() == expected


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("noise", [0.2, 0.6, 3.0])
def test_ltt_threshold_equals_fixed_sequence_testing_with_more_rows(noise, seed):
    rng = np.random.default_rng(seed)
    target = rng.random((150, 6)) < 0.3
    scores = (target + noise * rng.normal(size=target.shape)).round(2)  # with ties
    alpha, delta = rng.choice([0.1, 0.2, 0.45]), rng.choice([0.05, 0.2])
    expected = lowest_certified(list(zip(scores, target, strict=True)), alpha, delta)
    with warnings.catch_warnings():
        warnings.simplefilter("error" if expected < math.inf else "ignore")
        assert ltt_fdr_threshold(scores, target, alpha=alpha, delta=delta).item() == expected


def test_ltt_threshold_that_all_scores_reach_is_the_lowest_score():
    # Far more labels are predicted than there are positives and rows, which are the scores that are sorted first.
    scores = np.linspace(0, 1, 4000).reshape(100, 40)
    assert ltt_fdr_threshold(scores, np.ones((100, 40)), alpha=0.1) == 0
    target = np.zeros((100, 40))
    target[:, -8:] = 1
    assert ltt_fdr_threshold(scores, target, alpha=0.95) == 0


@pytest.mark.parametrize("sample_size", [1, 20, 200])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ltt_threshold_does_not_depend_on_the_sample_of_high_scores(sample_size, dtype, monkeypatch):
    rng = np.random.default_rng(3)
    target = rng.random((60, 8)) < 0.2
    scores = (target + 0.3 * rng.normal(size=target.shape)).astype(dtype)
    expected = [lowest_certified(list(zip(scores, target, strict=True)), alpha, 0.1) for alpha in (0.2, 0.8)]
    assert scores.min() < expected[1] < expected[0] < scores.max()
    monkeypatch.setattr("mlmetric.decisions._risk_control.SAMPLE_SIZE", sample_size)
    assert [ltt_fdr_threshold(scores, target, alpha=alpha).item() for alpha in (0.2, 0.8)] == expected


@ignores_warnings
def test_ltt_expected_rate_exceeds_alpha_in_at_most_a_share_delta_of_the_draws():
    rng = np.random.default_rng(0)
    population = rng.random((2000, 4)) < 0.4
    scores = (population + rng.normal(size=population.shape)).round(1)
    alpha, delta, draws = 0.15, 0.2, 300

    def expected_rate(threshold):
        predicted = scores >= threshold
        return ((predicted & ~population).sum(1) / predicted.sum(1).clip(1)).mean()

    assert expected_rate(scores.min()) > alpha  # the level is exceeded by some thresholds
    rows = rng.integers(0, len(scores), size=(draws, 200))  # independent draws
    thresholds = [ltt_fdr_threshold(scores[i], population[i], alpha=alpha, delta=delta).item() for i in rows]
    assert len(set(thresholds)) > 3
    exceeded = np.mean([expected_rate(threshold) > alpha for threshold in thresholds])
    assert exceeded <= delta + 3 * math.sqrt(delta * (1 - delta) / draws)


@each_function
def test_excluded_entries_and_rows_have_no_effect(function):
    rng = np.random.default_rng(1)
    target = rng.random((60, 5)) < 0.4
    scores = target + 0.4 * rng.normal(size=target.shape)
    expected = function(scores, target, alpha=0.2)
    mask = np.pad(np.ones_like(target), ((0, 7), (0, 2)))
    padded, labels = (
        np.pad(values.astype(float), ((0, 7), (0, 2)), constant_values=np.nan) for values in (scores, target)
    )
    assert torch.equal(function(padded, labels, alpha=0.2, mask=mask), expected)
    assert not torch.equal(function(scores[:40], target[:40], alpha=0.2), expected)


@each_function
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64])
def test_threshold_is_one_of_the_scores_in_their_dtype(function, dtype):
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(80, 5, generator=generator) < 0.4
    scores = (10 * (target + 0.4 * torch.randn(80, 5, generator=generator))).to(dtype)
    threshold = function(scores, target, alpha=0.2)
    assert threshold.dtype == torch.float64
    assert threshold.shape == ()
    assert (scores.double() == threshold).any()
    assert torch.equal(function(scores.double(), target, alpha=0.2), threshold)


@each_function
def test_scores_and_labels_of_other_types(function):
    rng = np.random.default_rng(2)
    target = (rng.random((60, 4)) < 0.4).astype(int)
    scores = target + 0.4 * rng.normal(size=target.shape)
    expected = function(torch.from_numpy(scores), torch.from_numpy(target), alpha=0.2)
    for kind in (np.asarray, pd.DataFrame, sparse.csr_array, lambda values: values.tolist()):
        assert torch.equal(function(kind(scores), kind(target), alpha=0.2), expected)


@each_function
def test_threshold_is_computed_on_the_device_of_the_scores(function, device):
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(80, 5, generator=generator) < 0.4
    scores = target + 0.4 * torch.randn(80, 5, generator=generator)
    threshold = function(scores.to(device), target.to(device), alpha=0.2)
    assert threshold.device == device
    assert torch.equal(threshold.cpu(), function(scores, target, alpha=0.2))


def test_conformal_threshold_is_inf_where_few_rows_have_labels():
    target = np.zeros((50, 3))
    target[0, 0] = 1
    assert conformal_fnr_threshold(np.zeros((50, 3)), target, alpha=0.1) == math.inf


def test_too_few_rows_are_reported():
    scores, target = np.arange(24.0).reshape(8, 3), np.eye(8, 3)
    message = r"at most 0\.1 can only be guaranteed with at least 9 rows, got 8: the threshold is -inf"
    with pytest.warns(UserWarning, match=message):
        assert conformal_fnr_threshold(scores, target, alpha=0.1) == -math.inf
    with pytest.warns(UserWarning, match="with at least 3 positives: the thresholds of 3 of 3 labels are -inf"):
        assert conformal_fnr_threshold(scores, target, alpha=0.25, per_label=True).tolist() == [-math.inf] * 3
    with pytest.warns(UserWarning, match=r"0\.1 with a probability of at least 0\.9 .* at least 22 rows, got 8"):
        assert ltt_fdr_threshold(scores, target, alpha=0.1) == math.inf
    scores, target = np.tile(scores, (3, 1))[:22], np.ones((22, 3))
    assert ltt_fdr_threshold(scores, target, alpha=0.1) == 0
    with pytest.warns(UserWarning, match="with at least 22 rows, got 21"):
        assert ltt_fdr_threshold(scores[:21], target[:21], alpha=0.1) == math.inf


def test_exactly_enough_positives_raise_no_warning():
    scores = np.arange(9.0)[:, None]
    assert conformal_fnr_threshold(scores, np.ones((9, 1)), alpha=0.1) == 0
    assert conformal_fnr_threshold(scores, np.ones((9, 1)), alpha=0.1, per_label=True).tolist() == [0]


@ignores_warnings
@pytest.mark.parametrize("share", [1 - 2e-9, 1 + 2e-9])
def test_levels_next_to_a_whole_number_of_positives_are_not_rounded(share):
    for number in range(2, 40):
        alpha = 3 / (number + 2) * share  # 3 of number + 2, of which one is the new row
        scores = np.arange(number + 1.0)[:, None]
        threshold = conformal_fnr_threshold(scores, np.ones_like(scores), alpha=alpha, per_label=True)
        assert float(threshold) == (2 if share > 1 else 1)


def test_level_of_1_up_to_rounding_misses_all_positives_but_one():
    scores, target = [[1.0, 5.0], [2.0, 4.0], [3.0, 6.0]], [[1, 0], [1, 0], [0, 0]]
    with pytest.warns(UserWarning, match="of 1 of 2 labels are -inf"):
        thresholds = conformal_fnr_threshold(scores, target, alpha=1 - 1e-12, per_label=True)
    assert thresholds.tolist() == [2, -math.inf]


def test_wrong_labels_with_the_highest_scores_are_reported():
    with pytest.warns(UserWarning, match="is not reached by any threshold, .*: the threshold is inf"):
        assert ltt_fdr_threshold(np.zeros((100, 3)), np.zeros((100, 3)), alpha=0.2) == math.inf


@each_function
@pytest.mark.parametrize("shape", [(0, 3), (4, 0), (0, 0)])
def test_without_entries_nothing_is_guaranteed(function, shape):
    with pytest.warns(UserWarning, match="got 0: the threshold is"):
        assert function(np.zeros(shape), np.zeros(shape), alpha=0.2).isinf()


@each_function
@pytest.mark.parametrize("alpha", [0, 1, 2, -0.1, math.nan, True, "0.1", None])
def test_level_outside_0_and_1_is_an_error(function, alpha):
    with pytest.raises(ValueError, match=rf"`alpha` must be a number in \(0, 1\), got {alpha!r}\."):
        function(np.zeros((3, 2)), np.zeros((3, 2)), alpha=alpha)


def test_delta_outside_0_and_1_is_an_error():
    with pytest.raises(ValueError, match=r"`delta` must be a number in \(0, 1\), got 1\.5\."):
        ltt_fdr_threshold(np.zeros((3, 2)), np.zeros((3, 2)), alpha=0.1, delta=1.5)


@each_function
def test_arguments_that_do_not_match_are_errors(function):
    with pytest.raises(ValueError, match="`preds` and `target` must have the same shape"):
        function(np.zeros((3, 2)), np.zeros((3, 3)), alpha=0.1)
    with pytest.raises(ValueError, match="`target` must contain only 0 and 1"):
        function(np.zeros((3, 2)), np.full((3, 2), 0.5), alpha=0.1)
    with pytest.raises(ValueError, match="`preds` must not contain NaN"):
        function(np.full((3, 2), np.nan), np.zeros((3, 2)), alpha=0.1)


@pytest.mark.parametrize("seed", range(5))
def test_thresholds_equal_those_of_mapie(seed):
    control = pytest.importorskip("mapie.risk_control", reason="pip install mapie")
    methods = pytest.importorskip("mapie.risk_control.methods")
    rng = np.random.default_rng(seed)
    target = rng.random((200, 5)) < 0.4
    target[np.arange(200), rng.integers(0, 5, 200)] = True  # MAPIE requires a label in each row
    scores = 1 / (1 + np.exp(1 - 2 * target - rng.normal(size=target.shape)))
    grid = np.linspace(0, 1, 101)[:-1]
    controller = control.MultiLabelClassificationController(
        lambda X: X, predict_params=grid, target_level=0.9, risk="recall", method="crc"
    ).calibrate(scores, target.astype(int))
    # MAPIE predicts scores above the threshold: its result is the highest number of the grid below ours.
    assert (
        controller.best_predict_param[0] == grid[grid < conformal_fnr_threshold(scores, target, alpha=0.1).item()][-1]
    )

    thresholds = np.sort(scores.ravel())[::-1]
    predicted = scores >= thresholds[:, None, None]
    rates = ((predicted & ~target).sum(2) / predicted.sum(2).clip(1)).mean(1)
    p_values = methods.compute_hoeffding_bentkus_p_value(rates, 200, 0.2)[:, 0]
    certified = control.control_fwer(p_values, delta=0.1, fwer_method="fixed_sequence")
    assert ltt_fdr_threshold(scores, target, alpha=0.2, delta=0.1) == thresholds[certified[-1]]
