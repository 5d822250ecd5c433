"""Rules for thresholds and for rows, against searches over all decisions in exact fractions."""

from fractions import Fraction
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.base import clone
from sklearn.linear_model import LinearRegression
from sklearn.metrics import fbeta_score

from mlmetric.decisions import (
    ExpectedCost,
    FBeta,
    MinPrecision,
    MinRecall,
    PredictedCount,
    ThresholdRule,
    TopK,
)
from mlmetric.metrics import best_thresholds

SHARES = [Fraction(1, 10), Fraction(1, 3), Fraction(1, 2), Fraction(7, 10), Fraction(9, 10), Fraction(1)]
COSTS = [Fraction(0), Fraction(1), Fraction(1, 2), Fraction(3)]


class Decision:
    """Counts of a set of predicted entries."""

    def __init__(self, predicted, positive):
        self.hits, self.predicted, self.positives = (int(x.sum()) for x in (predicted & positive, predicted, positive))

    def f_beta(self, beta):
        square = Fraction(beta) ** 2
        return (1 + square) * self.hits / (self.predicted + square * self.positives)

    def cost(self, false_positive, false_negative):
        return false_positive * (self.predicted - self.hits) + false_negative * (self.positives - self.hits)


@st.composite
def masked_matrices(draw, labels=3, rows=8):
    """Return scores with ties, true labels with at least one included positive, and a mask."""
    shape = draw(st.tuples(st.integers(1, rows), st.integers(1, labels)))
    each = {"fill": st.nothing()}
    preds = draw(hnp.arrays(np.float64, shape, elements=st.sampled_from([-2.0, 0.0, 0.125, 0.5, 0.75, 7.0]), **each))
    target, mask = (draw(hnp.arrays(np.bool_, shape, **each)) for _ in range(2))
    mask |= draw(st.booleans())
    target[0, 0] = mask[0, 0] = True
    return preds, target & mask, mask


def decisions(scores, positive):
    """Return the decision of every threshold, the one with the fewest predictions first: nothing is predicted."""
    accepted = [np.inf, *sorted(set(scores.tolist()), reverse=True)]
    return [(scores >= threshold, Decision(scores >= threshold, positive)) for threshold in accepted]


def best(scores, positive, value):
    """Return the predicted entries with the highest value, of several those with the fewest predictions."""
    found = decisions(scores, positive)
    values = [value(decision) for _, decision in found]
    return found[max(range(len(found)), key=lambda i: (values[i], -i))][0]


def each_label(matrices, thresholds):
    preds, target, mask = matrices
    for scores, positive, included, threshold in zip(preds.T, target.T, mask.T, thresholds.tolist(), strict=True):
        yield scores[included], positive[included], scores[included] >= threshold


@settings(max_examples=40, deadline=None)
@given(matrices=masked_matrices(), beta=st.sampled_from([0.25, 0.5, 1, 2, 4]))
def test_f_beta_equals_an_exhaustive_search(matrices, beta):
    thresholds = best_thresholds(*matrices[:2], metric=FBeta(beta), mask=matrices[2], fallback=np.inf)
    for scores, positive, predicted in each_label(matrices, thresholds):
        if positive.any():
            np.testing.assert_array_equal(predicted, best(scores, positive, lambda d: d.f_beta(beta)))
        else:
            assert not predicted.any()


def test_f1_is_f_beta_of_one_and_no_other_thresholds_have_a_higher_f_beta():
    generator = torch.Generator().manual_seed(0)
    preds, target = torch.rand(60, 4, generator=generator), torch.rand(60, 4, generator=generator) < 0.3
    options = {"shrinkage": 2.0, "max_predicted": 1.5}
    assert torch.equal(
        best_thresholds(preds, target, metric=FBeta(), **options), best_thresholds(preds, target, **options)
    )
    for average in ("macro", "micro"):
        found = best_thresholds(preds, target, metric=FBeta(2), average=average)
        reached = fbeta_score(target, preds >= found, beta=2, average=average)
        for other in (best_thresholds(preds, target, metric=FBeta(0.5), average=average), 0.5, 0.2):
            assert reached >= fbeta_score(target, preds >= other, beta=2, average=average)


@settings(max_examples=40, deadline=None)
@given(matrices=masked_matrices(labels=2, rows=5), beta=st.sampled_from([0.5, 2]))
def test_micro_f_beta_is_the_highest_of_all_combinations(matrices, beta):
    preds, target, mask = matrices
    options = {"metric": FBeta(beta), "average": "micro", "mask": mask}
    accepted = [[*set(s[m]), np.inf] for s, m in zip(preds.T, mask.T, strict=True)]
    highest = max(Decision((preds >= np.array(t)) & mask, target).f_beta(beta) for t in product(*accepted))
    thresholds = best_thresholds(preds, target, fallback=np.inf, **options).numpy()
    assert Decision((preds >= thresholds) & mask, target).f_beta(beta) == highest
    common = best_thresholds(preds, target, per_label=False, **options).item()
    expected = best(preds[mask], target[mask], lambda d: d.f_beta(beta))
    np.testing.assert_array_equal(preds[mask] >= common, expected)


@settings(max_examples=40, deadline=None)
@given(matrices=masked_matrices(), recall=st.sampled_from(SHARES))
def test_recall_is_reached_with_the_fewest_predictions(matrices, recall):
    preds, target, mask = matrices

    def value(decision):
        return -decision.predicted if decision.hits >= recall * decision.positives else -1000

    rule = MinRecall(float(recall))
    thresholds = best_thresholds(preds, target, metric=rule, mask=mask)
    common = best_thresholds(preds, target, metric=rule, mask=mask, average="micro", per_label=False).item()
    np.testing.assert_array_equal(preds[mask] >= common, best(preds[mask], target[mask], value))
    for label, (scores, positive, predicted) in enumerate(each_label(matrices, thresholds)):
        if positive.any():
            np.testing.assert_array_equal(predicted, best(scores, positive, value))
        else:
            assert thresholds[label] == common


@pytest.mark.filterwarnings("ignore:No threshold meets:UserWarning")
@settings(max_examples=40, deadline=None)
@given(matrices=masked_matrices(), precision=st.sampled_from(SHARES))
def test_precision_is_reached_with_the_highest_recall(matrices, precision):
    preds, target, mask = matrices

    def value(decision):
        return decision.hits if decision.hits >= precision * decision.predicted else -1000

    rule = MinPrecision(float(precision))
    thresholds = best_thresholds(preds, target, metric=rule, mask=mask, fallback=np.inf)
    for scores, positive, predicted in each_label(matrices, thresholds):
        np.testing.assert_array_equal(predicted, best(scores, positive, value))
    common = best_thresholds(preds, target, metric=rule, mask=mask, average="micro", per_label=False).item()
    np.testing.assert_array_equal(preds[mask] >= common, best(preds[mask], target[mask], value))


def test_precision_that_no_threshold_reaches_gives_infinity_and_a_warning():
    preds, target = [[0.9, 0.9, 0.1], [0.5, 0.2, 0.2]], [[0, 1, 0], [1, 0, 0]]
    rule = MinPrecision(0.8)
    with pytest.warns(UserWarning, match=r"No threshold meets MinPrecision\(.*\) for 1 of the labels: columns 0\. "):
        assert best_thresholds(preds, target, metric=rule, fallback=0.5).tolist() == [np.inf, pytest.approx(0.55), 0.5]
    with pytest.warns(UserWarning, match=r"No threshold meets MinPrecision\(precision=0\.8\)\. The"):
        found = best_thresholds([[0.9], [0.5]], [[0], [1]], metric=rule, average="micro", per_label=False)
    assert found.item() == np.inf


@settings(max_examples=40, deadline=None)
@given(matrices=masked_matrices(), costs=st.tuples(*[st.lists(st.sampled_from(COSTS), min_size=3, max_size=3)] * 2))
def test_cost_is_the_lowest_of_all_thresholds(matrices, costs):
    preds, target, mask = matrices
    num_labels = preds.shape[1]
    costs = list(zip(*costs, strict=True))[:num_labels]
    rule = ExpectedCost(*(np.array(values, dtype=float) for values in zip(*costs, strict=True)))
    for average in ("macro", "micro"):
        thresholds = best_thresholds(preds, target, metric=rule, mask=mask, average=average)
        for (scores, positive, predicted), pair in zip(each_label(matrices, thresholds), costs, strict=True):
            expected = best(scores, positive, lambda d, pair=pair: -d.cost(*pair))
            if positive.any() or pair[0] > 0:
                np.testing.assert_array_equal(predicted, expected)
        common = best_thresholds(preds, target, metric=rule, mask=mask, average=average, per_label=False).item()

        def total(threshold):
            labels = zip(preds.T, target.T, mask.T, costs, strict=True)
            return sum(Decision(s[m] >= threshold, y[m]).cost(*pair) for s, y, m, pair in labels)

        accepted = [np.inf, *sorted(set(preds[mask]), reverse=True)]
        lowest = min(map(total, accepted))
        assert total(common) == lowest
        of_fewest = next(t for t in accepted if total(t) == lowest)
        np.testing.assert_array_equal((preds >= common) & mask, (preds >= of_fewest) & mask)


def test_cost_of_labels_without_positives_is_lowest_without_predictions():
    assert best_thresholds([[0.1, 0.2]], [[0, 0]], metric=ExpectedCost(1, 5)).tolist() == [np.inf, np.inf]
    assert best_thresholds([[0.1, 0.2]], [[0, 0]], metric=ExpectedCost(1, 5), fallback=0.3).tolist() == [0.3, 0.3]


class Accuracy(ThresholdRule):
    def value(self, counts):
        return 2 * counts.true_positives - counts.predicted


class Undefined(ThresholdRule):
    def value(self, counts):
        return counts.true_positives / counts.predicted


@settings(max_examples=30, deadline=None)
@given(matrices=masked_matrices())
def test_own_rule_is_maximised(matrices):
    thresholds = best_thresholds(*matrices[:2], metric=Accuracy(), mask=matrices[2], fallback=np.inf)
    for scores, positive, predicted in each_label(matrices, thresholds):
        expected = best(scores, positive, lambda d: 2 * d.hits - d.predicted)
        np.testing.assert_array_equal(predicted, expected)


def test_value_that_is_not_a_number_is_never_chosen():
    preds, target = [[0.9], [0.5], [0.25]], [[0], [1], [1]]
    assert best_thresholds(preds, target, metric=Undefined()).item() == 0.25
    with pytest.raises(ValueError, match=r'`average` must be "micro" with `per_label=False` and .*is not finite'):
        best_thresholds(preds, target, metric=Undefined(), per_label=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": MinRecall(0.9), "shrinkage": 1.0}, r"`shrinkage` must have its default with MinRecall.*got 1\.0"),
        ({"metric": MinRecall(0.9), "max_predicted": 2}, r"`max_predicted` must have its default .*, got 2\."),
        ({"metric": MinRecall(0.9), "per_label": False}, r'`average` must be "micro" with `per_label=False`.*"macro"'),
        (
            {"metric": MinPrecision(0.9), "average": "micro"},
            r'`average` must be "macro" for a threshold for each label',
        ),
        ({"metric": Accuracy(), "average": "micro"}, r'`average` must be "macro" for a threshold for each label'),
        ({"metric": ExpectedCost([1, 2], 1)}, r"`false_positive` must be a number or have shape \(1,\), got .*\(2,\)"),
    ],
)
def test_arguments_that_do_not_suit_a_rule_are_rejected(options, message):
    with pytest.raises(ValueError, match=message):
        best_thresholds([[0.1]], [[1]], **options)


def test_metric_must_be_a_rule():
    for metric in ("f2", FBeta, None):
        with pytest.raises(TypeError, match=r'`metric` must be "f1" or a `mlmetric\.decisions\.ThresholdRule`.*, got'):
            best_thresholds([[0.1]], [[1]], metric=metric)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FBeta(0), r"`beta` must be a finite number above 0, got 0\."),
        (lambda: FBeta(np.nan), r"`beta` must be a finite number above 0, got nan\."),
        (lambda: MinRecall(0), r"`recall` must be in \(0, 1\], got 0\."),
        (lambda: MinPrecision(1.5), r"`precision` must be in \(0, 1\], got 1\.5\."),
        (lambda: ExpectedCost(-1, 1), r"`false_positive` must be a finite cost >= 0, got -1\."),
        (lambda: ExpectedCost(1, [[1]]), r"`false_negative` must be a number or have shape \(L,\).*got shape \(1, 1\)"),
    ],
)
def test_invalid_rule_is_rejected(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# Rules for rows


@settings(max_examples=30, deadline=None)
@given(matrices=masked_matrices(labels=5), k=st.integers(1, 5))
def test_top_k_labels_have_the_highest_scores(matrices, k):
    scores = matrices[0]
    k = min(k, scores.shape[1])
    predicted = TopK(k).fit(scores).predict(scores)
    assert predicted.dtype == np.int64
    for row, chosen in zip(scores, predicted, strict=True):
        by_score = sorted(range(len(row)), key=lambda label: (-row[label], label))
        assert sorted(by_score[:k]) == np.flatnonzero(chosen).tolist()


@pytest.mark.parametrize("k", [0, 3, 1.5, "all"])
def test_invalid_number_of_labels_is_rejected(k):
    with pytest.raises(ValueError, match=rf"`k` must be an integer from 1 to 2, the number of labels, got {k!r}\."):
        TopK(k).fit([[0.1, 0.2]])


def counted_rows(num_rows=200, seed=0):
    rng = np.random.default_rng(seed)
    y = (rng.random((num_rows, 6)) < [0.6, 0.5, 0.3, 0.2, 0.1, 0.1]).astype(int)
    return y + 0.2 * rng.normal(size=y.shape), y


@pytest.mark.parametrize("estimator", [None, LinearRegression()], ids=["default", "regressor"])
def test_predicted_number_of_labels_is_that_of_the_estimator_and_they_have_the_highest_scores(estimator):
    scores, y = counted_rows()
    rule = clone(PredictedCount(estimator)).fit(scores[:100], y[:100])
    predicted = rule.predict(scores[100:])
    descending = -np.sort(-scores[100:], axis=1)[:, : y[:100].sum(axis=1).max() + 1]
    counts = np.rint(rule.estimator_.predict(descending)).clip(0, rule.max_count_)
    np.testing.assert_array_equal(predicted.sum(axis=1), counts)
    for row, chosen in zip(scores[100:], predicted, strict=True):
        assert min(row[chosen == 1], default=np.inf) >= max(row[chosen == 0], default=-np.inf)
    assert np.mean(predicted.sum(axis=1) == y[100:].sum(axis=1)) > 0.7
    if estimator is None:
        assert rule.estimator_[-1].classes_.tolist() == np.unique(y[:100].sum(axis=1)).tolist()


def test_training_rows_with_one_number_of_labels_give_this_number():
    scores = np.array([[0.9, 0.1, 0.3], [0.2, 0.8, 0.1]])
    rule = PredictedCount().fit(pd.DataFrame(scores), [[1, 0, 0], [0, 1, 0]])
    np.testing.assert_array_equal(PredictedCount().fit(scores, np.zeros((2, 3))).predict(scores), np.zeros((2, 3)))
    np.testing.assert_array_equal(rule.predict(pd.DataFrame(scores)), [[1, 0, 0], [0, 1, 0]])
    with pytest.raises(ValueError, match=r"`scores` and `y` must have the same shape, got \(2, 3\) and \(2, 2\)\."):
        PredictedCount().fit(scores, [[1, 0], [0, 1]])


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.bool_, np.float16, np.float32])
def test_scores_of_any_dtype_that_are_read_only_give_the_same_numbers_of_labels(dtype, recwarn):
    scores, y = np.array([[0, 5, 1], [9, 0, 3], [0, 0, 7], [8, 9, 0]]), [[0, 1, 0], [1, 0, 1], [0, 0, 1], [1, 1, 0]]
    scores = scores.astype(dtype)
    scores.setflags(write=False)
    predicted = PredictedCount().fit(scores, y).predict(scores)
    expected = PredictedCount().fit(scores.astype(float), y).predict(scores.astype(float))
    np.testing.assert_array_equal(predicted, expected)
    assert not recwarn.list
