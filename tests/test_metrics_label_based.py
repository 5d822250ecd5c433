"""Metrics of predicted labels against scikit-learn, loops and values computed by hand."""

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as sk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

from mlmetric import metrics
from mlmetric.metrics._inputs import ResampleWeights

PER_LABEL = {
    metrics.precision: sk.precision_score,
    metrics.recall: sk.recall_score,
    metrics.f1: sk.f1_score,
}
ALL = [
    *PER_LABEL,
    metrics.cf1,
    metrics.of1,
    metrics.pooled_accuracy,
    metrics.hamming_loss,
    metrics.subset_accuracy,
    metrics.example_f1,
]

# Labels: true and predicted, never predicted, neither true nor predicted, predicted but never true.
PREDS = torch.tensor([[0.9, 0.1, 0.2, 0.5], [0.4, 0.2, 0.1, 0.1], [0.8, 0.3, 0.0, 0.1], [0.1, 0.3, 0.0, 0.2]])
TARGET = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])


@st.composite
def prediction_matrices(draw, min_labels=1):
    shape = draw(st.tuples(st.integers(1, 8), st.integers(min_labels, 4)))
    preds = draw(hnp.arrays(np.float64, shape, elements=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])))
    return preds, draw(hnp.arrays(np.bool_, shape))


def _sklearn(function, target, decisions, average, zero_division, **options):
    if target.shape[1] == 1:  # scikit-learn takes one column for a binary problem with two classes
        value = function(target[:, 0], decisions[:, 0], zero_division=zero_division, **options)
        return np.array([value]) if average is None else value
    return function(target, decisions, average=average, zero_division=zero_division, **options)


def _assert_equal(actual, expected):
    assert actual.dtype == torch.float64
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("zero_division", [0, 1, np.nan])
@pytest.mark.parametrize("function", PER_LABEL)
@settings(max_examples=30, deadline=None)
@given(matrices=prediction_matrices(), threshold=st.sampled_from([0.25, 0.5, 0.6]))
def test_label_metric_equals_scikit_learn(function, zero_division, matrices, threshold):
    preds, target = matrices
    for average in ("macro", "micro", "none"):
        expected = _sklearn(
            PER_LABEL[function],
            target,
            preds >= threshold,
            None if average == "none" else average,
            zero_division,
        )
        _assert_equal(
            function(preds, target, threshold=threshold, average=average, zero_division=zero_division), expected
        )


@pytest.mark.parametrize("function", PER_LABEL)
@settings(max_examples=40, deadline=None)
@given(matrices=prediction_matrices())
def test_weighted_average_equals_scikit_learn(function, matrices):
    preds, target = matrices
    expected = _sklearn(PER_LABEL[function], target, preds >= 0.5, "weighted", 0)
    _assert_equal(function(preds, target, average="weighted", zero_division=0), expected)
    defined = ~np.isnan(_sklearn(PER_LABEL[function], target, preds >= 0.5, None, np.nan))
    if (target.any(axis=0) & defined).any():
        expected = _sklearn(PER_LABEL[function], target, preds >= 0.5, "weighted", np.nan)
    else:  # nothing to weigh by: scikit-learn falls back to equal weights
        expected = np.nan
    _assert_equal(function(preds, target, average="weighted"), expected)


@settings(max_examples=40, deadline=None)
@given(matrices=prediction_matrices(min_labels=2))
def test_row_and_entry_metrics_equal_scikit_learn(matrices):
    preds, target = matrices
    decisions = preds >= 0.5
    _assert_equal(metrics.hamming_loss(preds, target), sk.hamming_loss(target, decisions))
    _assert_equal(metrics.pooled_accuracy(preds, target), sk.accuracy_score(target.ravel(), decisions.ravel()))
    _assert_equal(metrics.subset_accuracy(preds, target), sk.accuracy_score(target, decisions))
    _assert_equal(metrics.of1(preds, target, zero_division=0), _sklearn(sk.f1_score, target, decisions, "micro", 0))
    for zero_division in (0, 1, np.nan):
        expected = sk.f1_score(target, decisions, average="samples", zero_division=zero_division)
        _assert_equal(metrics.example_f1(preds, target, zero_division=zero_division), expected)


@pytest.mark.parametrize("zero_division", [0, np.nan])
@settings(max_examples=40, deadline=None)
@given(matrices=prediction_matrices())
def test_cf1_is_the_harmonic_mean_of_scikit_learns_macro_means(zero_division, matrices):
    preds, target = matrices
    means = [_sklearn(f, target, preds >= 0.5, "macro", zero_division) for f in (sk.precision_score, sk.recall_score)]
    expected = 0.0 if sum(means) == 0 else 2 * means[0] * means[1] / sum(means)
    _assert_equal(metrics.cf1(preds, target, zero_division=zero_division), expected)


def test_hand_computed_values_per_label():
    assert metrics.precision(PREDS, TARGET, average="none", zero_division=0).tolist() == [1 / 2, 0, 0, 0]
    assert metrics.recall(PREDS, TARGET, average="none", zero_division=0).tolist() == [1 / 2, 0, 0, 0]
    f1 = metrics.f1(PREDS, TARGET, average="none")
    assert f1[[0, 1, 3]].tolist() == [1 / 2, 0, 0]
    assert f1[2].isnan()


def test_hand_computed_means():
    # Predicted: labels 0 and 3; positive: labels 0 and 1.
    assert metrics.precision(PREDS, TARGET).item() == 1 / 4
    assert metrics.recall(PREDS, TARGET).item() == 1 / 4
    assert metrics.cf1(PREDS, TARGET).item() == 1 / 4
    assert metrics.f1(PREDS, TARGET).item() == pytest.approx(1 / 6)
    assert metrics.f1(PREDS, TARGET, zero_division=0).item() == 1 / 8
    assert metrics.f1(PREDS, TARGET, average="weighted").item() == pytest.approx(1 / 3)
    assert metrics.of1(PREDS, TARGET).item() == pytest.approx(2 / 6)
    assert metrics.pooled_accuracy(PREDS, TARGET).item() == 12 / 16
    assert metrics.hamming_loss(PREDS, TARGET).item() == 4 / 16
    assert metrics.subset_accuracy(PREDS, TARGET).item() == 1 / 4
    assert metrics.example_f1(PREDS, TARGET).item() == pytest.approx((1 / 2 + 0 + 0) / 3)
    assert metrics.example_f1(PREDS, TARGET, zero_division=1).item() == pytest.approx((1 / 2 + 0 + 0 + 1) / 4)


def test_cf1_is_not_macro_f1():
    preds, target = torch.tensor([[1, 1], [1, 0], [1, 0]]), torch.tensor([[1, 1], [0, 1], [0, 1]])
    assert metrics.f1(preds, target).item() == pytest.approx(1 / 2)
    assert metrics.cf1(preds, target).item() == pytest.approx(2 / 3)


def test_cf1_is_zero_if_both_means_are_zero():
    assert metrics.cf1(torch.tensor([[1, 0]]), torch.tensor([[0, 1]])) == 0


def test_threshold_is_inclusive_and_rounded_to_the_dtype_of_the_scores():
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        preds = torch.tensor([[0.7], [0.6]], dtype=torch.float64).to(dtype)
        for threshold in (0.7, [0.7], np.array([0.7]), torch.tensor([0.7], dtype=torch.float64)):
            assert metrics.subset_accuracy(preds, [[1], [0]], threshold=threshold) == 1, (dtype, threshold)


def test_threshold_per_label_applies_to_its_column():
    preds = torch.tensor([[0.3, 0.3], [0.7, 0.7]])
    target = torch.tensor([[1, 0], [1, 0]])
    assert metrics.subset_accuracy(preds, target, threshold=[0.2, 0.8]) == 1
    assert metrics.subset_accuracy(preds, target, threshold=[0.8, 0.2]) == 0


def test_logits_are_compared_with_the_threshold_without_a_sigmoid():
    logits = torch.tensor([[0.3, -1.0]])
    assert metrics.subset_accuracy(logits, [[1, 0]]) == 0
    assert metrics.subset_accuracy(logits, [[1, 0]], threshold=0.0) == 1


def _kinds(matrix):
    """The same matrix in every supported kind."""
    read_only = matrix.numpy().astype(np.float32)
    read_only.flags.writeable = False
    return {
        "bool": matrix.bool(),
        "half": matrix.half(),
        "list": matrix.tolist(),
        "read-only": read_only,
        "negative strides": matrix.numpy()[::-1, ::-1].copy()[::-1, ::-1],
        "transposed": matrix.T.contiguous().T,
        "sparse array": sparse.csr_array(matrix.numpy()),
        "sparse tensor": matrix.to_sparse(),
        "data frame": pd.DataFrame(matrix.numpy()),
        "nullable data frame": pd.DataFrame(matrix.numpy()).astype("Int64"),
        "uint16": matrix.to(torch.uint16),
    }


@pytest.mark.parametrize("kind", _kinds(TARGET))
@pytest.mark.parametrize("function", ALL)
def test_target_and_predicted_labels_of_any_kind_are_accepted(function, kind):
    assert function(PREDS, _kinds(TARGET)[kind]) == function(PREDS, TARGET)
    decisions = (PREDS >= 0.5).long()
    assert function(_kinds(decisions)[kind], TARGET) == function(PREDS, TARGET)


@pytest.mark.parametrize("function", ALL)
@pytest.mark.parametrize("names", [[["cat"], ["cat", "dog"]], [["cat", "dog"], ["dog", "cat"]], ["cat", "dog"]])
def test_label_names_are_rejected_with_a_hint(function, names):
    with pytest.raises(TypeError, match=r"`target` must .*MultiLabelBinarizer"):
        function(names, names)
    with pytest.raises(TypeError, match=r"`preds` must contain real numbers, .*MultiLabelBinarizer"):
        function(names, [[0, 1], [1, 1]])


@pytest.mark.parametrize("function", ALL)
def test_result_does_not_depend_on_the_order_of_rows_or_labels(function):
    preds, target = torch.rand(2, 30, 5, generator=torch.Generator().manual_seed(0))
    target = target > 0.6
    rows, labels = torch.arange(29, -1, -1), torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(
        function(preds, target), function(preds[rows][:, labels], target[rows][:, labels]), rtol=0, atol=1e-12
    )


def _divide(numerator, denominator):
    return numerator / denominator if denominator else np.nan


def _mean(values, weight):
    kept = [(v, w) for v, w in zip(values, weight, strict=True) if not np.isnan(v)]
    return _divide(sum(v * w for v, w in kept), sum(w for _, w in kept))


def _predict(preds, mask, threshold, top_k):
    """Return the predicted labels: of each row the top k included labels, by score and then index, at the threshold."""
    predicted_labels = np.zeros(preds.shape, dtype=bool)
    for row, scores in enumerate(preds):
        ranked = sorted((label for label in range(len(scores)) if mask[row, label]), key=lambda i: (-scores[i], i))
        for label in ranked[:top_k]:
            predicted_labels[row, label] = threshold is None or scores[label] >= threshold
    return predicted_labels


def _loop(function, predicted_labels, target, mask, weight=None, average="macro"):
    """Return a metric of the included entries; means exclude values of 0/0."""
    weight = np.ones(len(target)) if weight is None else weight
    entries = [
        (row, label, bool(target[row, label]), bool(predicted_labels[row, label]))
        for row, label in np.argwhere(mask).tolist()
    ]

    def sums(chosen):
        rows = [(weight[row], y, p) for row, label, y, p in entries if chosen(row, label)]
        return [sum(w for w, y, p in rows if of(y, p)) for of in (lambda y, p: y and p, lambda _, p: p, lambda y, _: y)]

    def metric_of_counts(function, true_positives, predicted, support):
        if function is metrics.precision:
            return _divide(true_positives, predicted)
        return (
            _divide(true_positives, support)
            if function is metrics.recall
            else _divide(2 * true_positives, predicted + support)
        )

    labels = [sums(lambda _, label, own=own: label == own) for own in range(target.shape[1])]
    rows = [[(y, p) for row, _, y, p in entries if row == own] for own in range(len(target))]
    if function in PER_LABEL or function is metrics.of1:
        if average == "micro" or function is metrics.of1:
            return metric_of_counts(function, *sums(lambda *_: True))
        values = [metric_of_counts(function, *counts) for counts in labels]
        weights = [counts[2] if average == "weighted" else 1 for counts in labels]
        return values if average == "none" else _mean(values, weights)
    if function is metrics.cf1:
        means = [
            _mean([metric_of_counts(f, *counts) for counts in labels], [1] * len(labels)) for f in list(PER_LABEL)[:2]
        ]
        return 0.0 if sum(means) == 0 else 2 * means[0] * means[1] / sum(means)
    if function in (metrics.pooled_accuracy, metrics.hamming_loss):
        wrong = sum(weight[row] for row, _, y, p in entries if (y == p) == (function is metrics.pooled_accuracy))
        return _divide(wrong, sum(weight[row] for row, *_ in entries))
    if function is metrics.subset_accuracy:
        return _mean([float(all(y == p for y, p in row)) if row else np.nan for row in rows], weight)
    return _mean([_divide(2 * sum(y and p for y, p in row), sum(y + p for y, p in row)) for row in rows], weight)


@pytest.mark.parametrize("function", ALL)
@settings(max_examples=40, deadline=None)
@given(matrices=prediction_matrices(), data=st.data())
def test_metric_with_mask_top_k_and_weights_equals_a_loop_over_the_included_entries(function, matrices, data):
    preds, target = matrices
    mask = data.draw(st.just(np.ones(preds.shape, dtype=bool)) | hnp.arrays(np.bool_, preds.shape))
    options = {
        "threshold": data.draw(st.sampled_from([None, 0.25, 0.5])),
        "top_k": data.draw(st.none() | st.integers(1, preds.shape[1])),
    }
    weight = data.draw(st.none() | hnp.arrays(np.float64, len(preds), elements=st.sampled_from([0.0, 0.5, 1.0, 3.0])))
    predicted_labels = _predict(preds, mask, **options)
    corrupted = np.where(mask, preds, np.nan), np.where(mask, target, -1)
    for average in ("macro", "micro", "weighted", "none") if function in PER_LABEL else (None,):
        choice = {} if average is None else {"average": average}
        actual = function(*corrupted, mask=mask, sample_weight=weight, **options, **choice)
        _assert_equal(actual, _loop(function, predicted_labels, target, mask, weight, **choice))


@pytest.mark.parametrize("function", PER_LABEL)
@settings(max_examples=30, deadline=None)
@given(matrices=prediction_matrices(), data=st.data())
def test_label_metric_with_sample_weight_equals_scikit_learn(function, matrices, data):
    preds, target = matrices
    weight = data.draw(hnp.arrays(np.float64, len(preds), elements=st.floats(0.125, 8)))
    for average in ("macro", "micro", "weighted", "none"):
        choice = None if average == "none" else average
        expected = _sklearn(PER_LABEL[function], target, preds >= 0.5, choice, 0, sample_weight=weight)
        _assert_equal(function(preds, target, average=average, zero_division=0, sample_weight=weight), expected)


@settings(max_examples=30, deadline=None)
@given(matrices=prediction_matrices(min_labels=2), data=st.data())
def test_row_and_entry_metrics_with_sample_weight_equal_scikit_learn(matrices, data):
    preds, target = matrices
    weight = data.draw(hnp.arrays(np.float64, len(preds), elements=st.floats(0.125, 8)))
    decisions, each = preds >= 0.5, weight.repeat(target.shape[1])
    weighted = {"sample_weight": weight}
    _assert_equal(metrics.hamming_loss(preds, target, **weighted), sk.hamming_loss(target, decisions, **weighted))
    _assert_equal(metrics.subset_accuracy(preds, target, **weighted), sk.accuracy_score(target, decisions, **weighted))
    expected = sk.accuracy_score(target.ravel(), decisions.ravel(), sample_weight=each)
    _assert_equal(metrics.pooled_accuracy(preds, target, **weighted), expected)
    expected = sk.f1_score(target, decisions, average="samples", zero_division=0, **weighted)
    _assert_equal(metrics.example_f1(preds, target, zero_division=0, **weighted), expected)


@pytest.mark.parametrize("function", ALL)
@pytest.mark.parametrize("masked", [False, True])
def test_resample_weights_equal_each_weight_alone(function, masked):
    generator = torch.Generator().manual_seed(0)
    preds, target, counts = torch.rand(3, 9, 5, generator=generator)
    arguments = (preds, target < 0.3)
    options = {"mask": counts < 0.7, "top_k": 3} if masked else {}
    weights = torch.rand(4, 9, generator=generator, dtype=torch.float64) ** 3
    weights[0], weights[1] = 0, 1
    averages = ("macro", "micro", "weighted", "none") if function in PER_LABEL else (None,)
    for average in averages:
        choice = {} if average is None else {"average": average}
        results = function(*arguments, sample_weight=ResampleWeights(weights), **options, **choice)
        assert results.shape == ((4, 5) if average == "none" else (4,))
        assert results[0].isnan().all()
        _assert_equal(results[1], function(*arguments, **options, **choice))
        each = [function(*arguments, sample_weight=weight, **options, **choice) for weight in weights]
        _assert_equal(results, torch.stack(each))


@pytest.mark.parametrize("function", ALL)
def test_integer_weights_equal_repeated_rows(function):
    weight = torch.tensor([2, 0, 1, 3])
    repeated = function(PREDS.repeat_interleave(weight, dim=0), TARGET.repeat_interleave(weight, dim=0))
    assert function(PREDS, TARGET, sample_weight=weight) == repeated != function(PREDS, TARGET)


@pytest.mark.parametrize("function", ALL)
def test_rows_and_labels_excluded_by_the_mask_are_undefined(function):
    mask = torch.ones_like(TARGET, dtype=torch.bool)
    assert function(PREDS, TARGET, mask=torch.zeros_like(mask)).isnan()
    for form in (mask.int(), mask.tolist(), mask.double().numpy()):
        assert function(PREDS, TARGET, mask=form) == function(PREDS, TARGET)
    mask[[0, 3]] = False
    assert function(PREDS, TARGET, mask=mask) == function(PREDS[1:3], TARGET[1:3])
    if function in PER_LABEL:
        mask[:, 0] = False
        assert function(PREDS, TARGET, mask=mask, average="none")[0].isnan()


def test_top_k_and_threshold_are_independent():
    preds = torch.tensor([[0.9, 0.6, 0.6, 0.1], [0.4, 0.3, 0.2, 0.1], [-torch.inf, -torch.inf, 0.7, -torch.inf]])
    mask = torch.tensor([[True, False, True, True], [False, True, True, True], [False, True, True, True]])
    for options, expected in [
        ({"top_k": 2}, [[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]]),
        ({"top_k": 2, "threshold": None}, [[1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0]]),
        ({"top_k": 4, "threshold": None}, [[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]]),
        ({"top_k": 1, "threshold": [1.0, 0.0, 0.7, 0.0]}, [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]]),
        ({"threshold": None}, [[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]]),
        ({"top_k": 2, "threshold": None, "mask": mask}, [[1, 0, 1, 0], [0, 1, 1, 0], [0, 1, 1, 0]]),
    ]:
        assert metrics.subset_accuracy(preds, expected, **options) == 1, options


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.int64])
def test_top_k_of_tied_scores_of_any_dtype_predicts_the_lowest_indices(dtype):
    preds = torch.tensor([[1, 2, 1, 1, 2, 1]]).to(dtype)
    for k, expected in [(1, [0, 1, 0, 0, 0, 0]), (3, [1, 1, 0, 0, 1, 0]), (5, [1, 1, 1, 1, 1, 0])]:
        assert metrics.subset_accuracy(preds, [expected], top_k=k, threshold=None) == 1


@pytest.mark.parametrize("function", ALL)
def test_metric_without_rows_follows_zero_division(function):
    preds, target = torch.zeros(0, 3), torch.zeros(0, 3)
    assert function(preds, target).isnan()
    assert function(preds, target, zero_division=0) == 0
    assert function(preds, target, zero_division=1) == 1


@pytest.mark.parametrize("function", ALL)
def test_metric_without_labels_is_undefined(function):
    result = function(torch.zeros(3, 0), torch.zeros(3, 0))
    assert result.isnan()


def test_result_without_average_has_one_value_per_label_even_without_rows():
    assert metrics.f1(torch.zeros(0, 3), torch.zeros(0, 3), average="none").shape == (3,)
    assert metrics.f1(torch.zeros(3, 0), torch.zeros(3, 0), average="none").shape == (0,)


def test_scores_that_require_grad_are_detached():
    result = metrics.f1(PREDS.clone().requires_grad_(), TARGET)
    assert result == metrics.f1(PREDS, TARGET)
    assert not result.requires_grad


@pytest.mark.parametrize("function", ALL)
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"target": [[0.5, 1.0]]}, ValueError, r"`target` must contain only 0 and 1, got 0\.5 at row 0, label 0"),
        ({"target": [[0, -1]]}, ValueError, r"got -1 at row 0, label 1"),
        ({"target": [[0, np.nan]]}, ValueError, r"got nan at row 0, label 1"),
        (
            {"target": [0, 1]},
            ValueError,
            r"`target` must be a 2-D multi-hot matrix of shape \(N, L\), got shape \(2,\)",
        ),
        ({"target": [[0], [1]]}, ValueError, r"the same shape \(N, L\), got \(1, 2\) and \(2, 1\)"),
        (
            {"target": [["yes", "no"]]},
            TypeError,
            r"`target` must .* numbers, .* `sklearn.preprocessing.MultiLabelBinarizer`",
        ),
        ({"preds": [[0.1, np.nan]]}, ValueError, r"`preds` must not contain NaN, got one at row 0, label 1"),
        ({"preds": [[0.1, 1j]]}, TypeError, r"`preds` must contain real numbers, got torch\.complex128"),
        ({"preds": [[0.1], [0.2, 0.3]]}, TypeError, r"`preds` must contain real numbers, got \[\[0\.1\]"),
        ({"threshold": [0.1, 0.2, 0.3]}, ValueError, r"or have shape \(2,\), one for each label, got shape \(3,\)"),
        ({"threshold": np.nan}, ValueError, r"`threshold` must not contain NaN, got nan"),
        ({"zero_division": "skip"}, ValueError, r"`zero_division` must be 0.0, 1.0 or nan, got 'skip'"),
        ({"top_k": 0}, ValueError, r"`top_k` must be from 1 to 2, the number of labels, or None, got 0"),
        ({"top_k": 3}, ValueError, r"`top_k` must be from 1 to 2, the number of labels, or None, got 3"),
        ({"mask": [True, True]}, ValueError, r"`mask` must have the shape of `preds`, \(1, 2\), .* got \(2,\)"),
        ({"mask": [[True]]}, ValueError, r"`mask` must have the shape of `preds`, \(1, 2\), .* got \(1, 1\)"),
        (
            {"mask": [[1, 2]]},
            ValueError,
            r"`mask` must be bool or contain only 0 and 1: True for the entries to include",
        ),
        ({"mask": [[1, np.nan]]}, ValueError, r"`mask` must be bool or contain only 0 and 1"),
        ({"mask": [["a", "b"]]}, TypeError, r"`mask` must contain real numbers"),
        (
            {"mask": [[1, 0]], "preds": [[np.nan, np.nan]]},
            ValueError,
            r"`preds` must not contain NaN, got one at row 0, label 0",
        ),
        (
            {"mask": [[1, 0]], "target": [[-1, -1]]},
            ValueError,
            r"got -1 at row 0, label 0.* exclude entries .* with `mask`",
        ),
        (
            {"sample_weight": [1.0, 1.0]},
            ValueError,
            r"`sample_weight` must have shape \(1,\), one weight for each row, got \(2,\)",
        ),
        ({"sample_weight": 1.0}, ValueError, r"`sample_weight` must have shape \(1,\), .* got \(\)"),
        ({"sample_weight": [[[1.0]]]}, ValueError, r"`sample_weight` must have shape \(1,\), .* got \(1, 1, 1\)"),
        ({"sample_weight": [-0.5]}, ValueError, r"`sample_weight` must contain finite numbers >= 0, got -0\.5"),
        ({"sample_weight": [np.nan]}, ValueError, r"`sample_weight` must contain finite numbers >= 0, got nan"),
        ({"sample_weight": [np.inf]}, ValueError, r"`sample_weight` must contain finite numbers >= 0, got inf"),
        ({"sample_weight": [[1.0], [1.0]]}, ValueError, r"`sample_weight` must have shape \(1,\), .* got \(2, 1\)"),
    ],
)
def test_invalid_argument_is_rejected(function, arguments, error, message):
    with pytest.raises(error, match=message):
        function(**{"preds": [[0.1, 0.9]], "target": [[0, 1]]} | arguments)


@pytest.mark.parametrize("function", PER_LABEL)
def test_unknown_average_is_rejected(function):
    with pytest.raises(
        ValueError, match=r"`average` must be one of 'macro', 'micro', 'weighted', 'none', got 'samples'"
    ):
        function(PREDS, TARGET, average="samples")


@pytest.mark.parametrize("function", ALL)
def test_result_is_on_the_device_of_the_scores(function, device):
    mask = PREDS != 0.3
    for options in (
        {},
        {"mask": mask, "top_k": 2, "threshold": torch.full((4,), 0.2), "sample_weight": [1, 2, 0.5, 3]},
    ):
        result = function(PREDS.to(device), TARGET, **options)
        assert result.device == device
        torch.testing.assert_close(result.cpu(), function(PREDS, TARGET, **options), rtol=0, atol=1e-12)
