"""ML-RUS, LP-RUS and RandomLabelUnderSampler, against the exact probabilities of all results."""

from collections import Counter
from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import chisquare

from mlmetric.under_sampling import LPRUS, MLRUS, RandomLabelUnderSampler

# On small random data MeanIR often increases a little; other tests check the warnings.
pytestmark = pytest.mark.filterwarnings(r"ignore:\w+ (removed|raised) :UserWarning")

properties = settings(max_examples=60, deadline=None)
small_labels = hnp.arrays(
    np.int64, st.tuples(st.integers(2, 6), st.integers(1, 3)), elements=st.integers(0, 1), fill=st.nothing()
)
label_matrices = hnp.arrays(
    np.int64, st.tuples(st.integers(2, 40), st.integers(1, 4)), elements=st.integers(0, 1), fill=st.nothing()
)
percentages = st.sampled_from([1, 10, 25, 29, 50, 90, 99.5])


def count(y, rows):
    return [sum(int(y[row][label]) for row in rows) for label in range(y.shape[1])]


def ratio(counts, label):
    return Fraction(max(counts), counts[label])


def mlrus_outcomes(y, budget):
    """Return each set of rows that ML-RUS can keep, with its probability."""
    counts = count(y, range(len(y)))
    present = [label for label in range(y.shape[1]) if counts[label]]
    limit = sum(ratio(counts, label) for label in present) / len(present) if present else 0
    outcomes = Counter()

    def go_on(kept, active, turns, left, probability):
        if not left or not active:
            outcomes[kept] += probability
        elif not turns:
            go_on(kept, active, sorted(active), left, probability)
        elif turns[0] not in active:
            go_on(kept, active, turns[1:], left, probability)
        else:
            with_label = [row for row in kept if y[row][turns[0]]]
            for row in with_label:
                rest = kept - {row}
                now = count(y, rest)
                still = {label for label in active if now[label] and ratio(now, label) < limit}
                go_on(rest, still, turns[1:], left - 1, probability / len(with_label))

    majority = {label for label in present if ratio(counts, label) < limit}
    go_on(frozenset(range(len(y))), majority, [], budget, Fraction(1))
    return outcomes


def cap_outcomes(y, cap):
    """Return each set of rows that RandomLabelUnderSampler can keep, with its probability."""
    outcomes = Counter()

    def go_on(kept, probability):
        counts = count(y, kept)
        if max(counts) <= cap:
            outcomes[kept] += probability
            return
        with_label = [row for row in kept if y[row][counts.index(max(counts))]]
        for row in with_label:
            go_on(kept - {row}, probability / len(with_label))

    go_on(frozenset(range(len(y))), Fraction(1))
    return outcomes


def lprus_shares(sizes, budget):
    """Return the rows that each bag loses, in ascending order of size, rounded by the largest remainder."""
    mean = Fraction(sum(sizes), len(sizes))
    most = [floor(size - mean) if size > mean else 0 for size in sizes]
    left = Fraction(min(budget, sum(most)))
    total, real = int(left), []
    for place, ceiling in enumerate(most):
        real.append(min(Fraction(ceiling), left / (len(most) - place)))
        left -= real[-1]
    whole = [floor(share) for share in real]
    by_remainder = sorted(range(len(real)), key=lambda place: (real[place] - whole[place], place), reverse=True)
    for place in by_remainder[: total - sum(whole)]:
        whole[place] += 1
    return whole


def assert_frequencies(sampler, y, outcomes, num_seeds=1500):
    """Compare the frequency of each result with its probability."""
    found = Counter()
    for seed in range(num_seeds):
        sampler.set_params(random_state=seed).fit_resample(np.zeros((len(y), 1)), y)
        found[frozenset(sampler.sample_indices_.tolist())] += 1
    assert set(found) <= set(outcomes)
    assert sum(outcomes.values()) == 1
    expected = [float(outcomes[key]) * num_seeds for key in outcomes]
    assert chisquare([found[key] for key in outcomes], expected).pvalue > 1e-3


# ML-RUS


def test_mlrus_matches_values_computed_by_hand():
    # Counts 7, 4, 1: IRLbl 1, 1.75, 7; MeanIR 3.25; majority labels 0 and 1. 4 rows: for labels 0, 1, 0, 1.
    y = np.array([[1, 0, 0]] * 5 + [[0, 1, 0]] * 2 + [[1, 1, 0], [1, 1, 0], [0, 0, 1]])
    for seed in range(20):
        sampler = MLRUS(percentage=40, random_state=seed)
        X_actual, y_actual = sampler.fit_resample(np.arange(10).reshape(-1, 1), y)
        assert len(sampler.sample_indices_) == 6
        assert 9 in sampler.sample_indices_
        assert X_actual.ravel().tolist() == sampler.sample_indices_.tolist()
        np.testing.assert_array_equal(y_actual, y[sampler.sample_indices_])
        assert 2 <= sampler.removed_per_label_[0] <= 4
        assert 2 <= sampler.removed_per_label_[1] <= 4
        assert sampler.removed_per_label_[2] == 0


def test_mlrus_stops_when_every_majority_label_has_reached_mean_ir():
    # Counts 6, 2: MeanIR 2, label 0 is the one majority label. With 1 row of it left the ratio is 2 / 1.
    y = np.array([[1, 0]] * 6 + [[0, 1]] * 2)
    sampler = MLRUS(percentage=99, random_state=0)
    sampler.fit_resample(np.zeros((8, 1)), y)
    assert sampler.counts_after_.tolist() == [1, 2]


@given(small_labels, percentages, st.integers(0, 2**32 - 1))
@properties
def test_mlrus_keeps_rows_that_a_loop_from_the_specification_can_keep(y, percentage, seed):
    sampler = MLRUS(percentage=percentage, random_state=seed)
    outcomes = mlrus_outcomes(y, int(Fraction(percentage) * len(y) / 100))
    if frozenset() in outcomes:
        return
    sampler.fit_resample(np.zeros((len(y), 1)), y)
    assert frozenset(sampler.sample_indices_.tolist()) in outcomes


@pytest.mark.parametrize(
    ("y", "percentage"),
    [
        ([[1, 0], [1, 0], [1, 1], [1, 1], [0, 1], [1, 0]], 50),
        ([[1, 1, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1]], 34),
    ],
)
@pytest.mark.slow
def test_mlrus_results_have_the_probabilities_of_the_specification(y, percentage):
    y = np.array(y)
    assert_frequencies(MLRUS(percentage=percentage), y, mlrus_outcomes(y, len(y) * percentage // 100))


# LP-RUS


def test_lprus_matches_values_computed_by_hand():
    # Bags {0} of 5, {0, 1} of 3, {1} of 1, {} of 1, mean 2.5: {0} can lose 2 rows, {0, 1} none; 4 are requested.
    y = np.array([[1, 0]] * 5 + [[1, 1]] * 3 + [[0, 1], [0, 0]])
    for seed in range(10):
        sampler = LPRUS(percentage=40, random_state=seed)
        _, y_actual = sampler.fit_resample(np.zeros((10, 1)), y)
        assert sampler.sample_indices_[3:].tolist() == [5, 6, 7, 8, 9]
        assert len(y_actual) == 8


def test_lprus_removes_from_larger_bags_what_a_small_bag_cannot_contribute():
    # Bags of 12, 6, 5, 1, 1, mean 5: they can lose 7, 1 and 0 rows. Equal shares of 5 rows would be 5 / 3 each.
    y = np.repeat(np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 0, 0]]), [12, 6, 5, 1, 1], axis=0)
    sampler = LPRUS(percentage=20, random_state=0)
    sampler.fit_resample(np.zeros((25, 1)), y)
    assert sampler.removed_per_label_.tolist() == [4, 1, 0]


def test_lprus_removes_the_remainder_from_the_largest_bags_and_among_equal_ones_from_the_last():
    y = np.repeat(np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]), [8, 8, 10, 2], axis=0)
    for percentage, expected in ((10, [0, 1, 1]), (15, [1, 1, 2]), (18, [1, 1, 3])):
        sampler = LPRUS(percentage=percentage, random_state=0)
        sampler.fit_resample(np.zeros((28, 1)), y)
        assert sampler.removed_per_label_.tolist() == expected


@given(label_matrices, percentages)
@properties
def test_lprus_removes_as_many_rows_of_each_bag_as_a_loop_from_the_specification(y, percentage):
    bags = Counter(map(tuple, y.tolist()))
    order = sorted(bags, key=lambda bag: (bags[bag], y.tolist().index(list(bag))))
    shares = lprus_shares([bags[bag] for bag in order], int(Fraction(percentage) * len(y) / 100))
    sampler = LPRUS(percentage=percentage, random_state=0)
    _, y_actual = sampler.fit_resample(np.zeros((len(y), 1)), y)
    left = Counter(map(tuple, y_actual.tolist()))
    assert [bags[bag] - left[bag] for bag in order] == shares


@pytest.mark.slow
def test_lprus_removes_each_row_of_a_bag_equally_often():
    y = np.array([[1, 0]] * 4 + [[0, 1]])
    outcomes = {frozenset({0, 1, 2, 3, 4}) - {row}: Fraction(1, 4) for row in range(4)}
    assert_frequencies(LPRUS(percentage=30), y, outcomes)


# RandomLabelUnderSampler


def test_random_label_matches_values_computed_by_hand():
    # Counts 8, 4, 2, 0, mean 3.5: the cap is 3, and 5 rows with label 0 are removed with their other labels.
    y = np.array([[1, 0, 0, 0]] * 5 + [[1, 1, 0, 0]] * 2 + [[1, 0, 1, 0], [0, 1, 0, 0], [0, 1, 1, 0]])
    for seed in range(20):
        sampler = RandomLabelUnderSampler(cap_ratio=1, random_state=seed)
        _, y_actual = sampler.fit_resample(np.arange(10).reshape(-1, 1), y)
        assert sampler.cap_ == 3
        assert sampler.capped_labels_.tolist() == [0, 1]
        assert sampler.counts_after_[0] <= 3
        assert y_actual.sum(axis=0).max() <= 3
        assert len(y_actual) in (4, 5)  # a sixth row is removed only if label 1 still exceeds the cap
        np.testing.assert_array_equal(y_actual, y[sampler.sample_indices_])


@given(small_labels, st.sampled_from([0.3, 0.6, 1, 1.5]), st.integers(0, 2**32 - 1))
@properties
def test_random_label_keeps_rows_that_a_loop_from_the_specification_can_keep(y, cap_ratio, seed):
    cap = max(1, int(Fraction(str(cap_ratio)) * int(y.sum()) / y.shape[1]))
    sampler = RandomLabelUnderSampler(cap_ratio=cap_ratio, random_state=seed)
    sampler.fit_resample(np.zeros((len(y), 1)), y)
    assert sampler.cap_ == cap
    assert frozenset(sampler.sample_indices_.tolist()) in cap_outcomes(y, cap)


@pytest.mark.slow
def test_random_label_results_have_the_probabilities_of_the_specification():
    y = np.array([[1, 0], [1, 1], [1, 0], [1, 1], [0, 1], [0, 0]])
    assert_frequencies(RandomLabelUnderSampler(cap_ratio=0.6), y, cap_outcomes(y, 2))


@pytest.mark.parametrize("sampler", [MLRUS, LPRUS])
@pytest.mark.parametrize("percentage", [100, -3])
def test_a_percentage_out_of_range_raises(sampler, percentage):
    with pytest.raises(
        ValueError, match=f"The 'percentage' parameter of {sampler.__name__} must be .* Got {percentage}"
    ):
        sampler(percentage=percentage).fit_resample(np.zeros((3, 1)), np.eye(3, dtype=int))


@pytest.mark.parametrize(
    ("num_rows", "percentage", "expected"), [(100, 29, 29), (1000, 0.1, 1), (7, 50, 3), (3, 33, 0), (9, 0, 0)]
)
def test_numbers_of_removed_rows_are_exact(num_rows, percentage, expected):
    y = np.zeros((num_rows, 2), dtype=int)
    y[:-1, 0] = y[-1, 1] = 1
    sampler = MLRUS(percentage=percentage, random_state=0)
    sampler.fit_resample(np.zeros((num_rows, 1)), y)
    assert num_rows - len(sampler.sample_indices_) == expected
