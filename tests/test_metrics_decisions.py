"""Decision metrics against scikit-learn, and hand-worked tables where it has no answer."""

import numpy as np
import pytest
import sklearn.metrics as sk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mlmetric import metrics

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
ZERO_DIVISION = {"zero": 0, "one": 1, "nan": np.nan}

# Labels: seen and predicted, never predicted, neither, never positive.
PREDS = torch.tensor([[0.9, 0.1, 0.2, 0.5], [0.4, 0.2, 0.1, 0.1], [0.8, 0.3, 0.0, 0.1], [0.1, 0.3, 0.0, 0.2]])
TARGET = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])


@st.composite
def decision_matrices(draw, min_labels=1):
    shape = draw(st.tuples(st.integers(1, 8), st.integers(min_labels, 4)))
    preds = draw(hnp.arrays(np.float64, shape, elements=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])))
    return preds, draw(hnp.arrays(np.bool_, shape))


def _sklearn(function, target, decisions, average, zero_division):
    if target.shape[1] == 1:  # scikit-learn takes one column for a binary problem with two classes
        value = function(target[:, 0], decisions[:, 0], zero_division=zero_division)
        return np.array([value]) if average is None else value
    return function(target, decisions, average=average, zero_division=zero_division)


def _assert_equal(actual, expected):
    assert actual.dtype == torch.float64
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("empty", ["zero", "one", "nan"])
@pytest.mark.parametrize("function", PER_LABEL)
@settings(max_examples=30, deadline=None)
@given(matrices=decision_matrices(), threshold=st.sampled_from([0.25, 0.5, 0.6]))
def test_label_metric_equals_scikit_learn(function, empty, matrices, threshold):
    preds, target = matrices
    for average in ("macro", "micro", "none"):
        expected = _sklearn(
            PER_LABEL[function],
            target,
            preds >= threshold,
            None if average == "none" else average,
            ZERO_DIVISION[empty],
        )
        _assert_equal(function(preds, target, threshold=threshold, average=average, empty=empty), expected)


@pytest.mark.parametrize("function", PER_LABEL)
@settings(max_examples=40, deadline=None)
@given(matrices=decision_matrices())
def test_weighted_average_equals_scikit_learn(function, matrices):
    preds, target = matrices
    expected = _sklearn(PER_LABEL[function], target, preds >= 0.5, "weighted", 0)
    _assert_equal(function(preds, target, average="weighted", empty="zero"), expected)
    defined = ~np.isnan(_sklearn(PER_LABEL[function], target, preds >= 0.5, None, np.nan))
    if (target.any(axis=0) & defined).any():
        expected = _sklearn(PER_LABEL[function], target, preds >= 0.5, "weighted", np.nan)
    else:  # nothing to weigh by: scikit-learn falls back to equal weights
        expected = np.nan
    _assert_equal(function(preds, target, average="weighted"), expected)


@settings(max_examples=40, deadline=None)
@given(matrices=decision_matrices(min_labels=2))
def test_row_and_entry_metrics_equal_scikit_learn(matrices):
    preds, target = matrices
    decisions = preds >= 0.5
    _assert_equal(metrics.hamming_loss(preds, target), sk.hamming_loss(target, decisions))
    _assert_equal(metrics.pooled_accuracy(preds, target), sk.accuracy_score(target.ravel(), decisions.ravel()))
    _assert_equal(metrics.subset_accuracy(preds, target), sk.accuracy_score(target, decisions))
    _assert_equal(metrics.of1(preds, target, empty="zero"), _sklearn(sk.f1_score, target, decisions, "micro", 0))
    for empty, zero_division in ZERO_DIVISION.items():
        expected = sk.f1_score(target, decisions, average="samples", zero_division=zero_division)
        _assert_equal(metrics.example_f1(preds, target, empty=empty), expected)


@pytest.mark.parametrize("empty", ["zero", "nan"])
@settings(max_examples=40, deadline=None)
@given(matrices=decision_matrices())
def test_cf1_is_the_harmonic_mean_of_scikit_learns_macro_means(empty, matrices):
    preds, target = matrices
    means = [
        _sklearn(f, target, preds >= 0.5, "macro", ZERO_DIVISION[empty]) for f in (sk.precision_score, sk.recall_score)
    ]
    expected = 0.0 if sum(means) == 0 else 2 * means[0] * means[1] / sum(means)
    _assert_equal(metrics.cf1(preds, target, empty=empty), expected)


def test_hand_worked_table_per_label():
    assert metrics.precision(PREDS, TARGET, average="none", empty="zero").tolist() == [1 / 2, 0, 0, 0]
    assert metrics.recall(PREDS, TARGET, average="none", empty="zero").tolist() == [1 / 2, 0, 0, 0]
    f1 = metrics.f1(PREDS, TARGET, average="none")
    assert f1[[0, 1, 3]].tolist() == [1 / 2, 0, 0]
    assert f1[2].isnan()


def test_hand_worked_table_of_means():
    # Predicted: labels 0 and 3; positive: labels 0 and 1.
    assert metrics.precision(PREDS, TARGET).item() == 1 / 4
    assert metrics.recall(PREDS, TARGET).item() == 1 / 4
    assert metrics.cf1(PREDS, TARGET).item() == 1 / 4
    assert metrics.f1(PREDS, TARGET).item() == pytest.approx(1 / 6)
    assert metrics.f1(PREDS, TARGET, empty="zero").item() == 1 / 8
    assert metrics.f1(PREDS, TARGET, average="weighted").item() == pytest.approx(1 / 3)
    assert metrics.of1(PREDS, TARGET).item() == pytest.approx(2 / 6)
    assert metrics.pooled_accuracy(PREDS, TARGET).item() == 12 / 16
    assert metrics.hamming_loss(PREDS, TARGET).item() == 4 / 16
    assert metrics.subset_accuracy(PREDS, TARGET).item() == 1 / 4
    assert metrics.example_f1(PREDS, TARGET).item() == pytest.approx((1 / 2 + 0 + 0) / 3)
    assert metrics.example_f1(PREDS, TARGET, empty="one").item() == pytest.approx((1 / 2 + 0 + 0 + 1) / 4)


def test_cf1_is_not_macro_f1():
    preds, target = torch.tensor([[1, 1], [1, 0], [1, 0]]), torch.tensor([[1, 1], [0, 1], [0, 1]])
    assert metrics.f1(preds, target).item() == pytest.approx(1 / 2)
    assert metrics.cf1(preds, target).item() == pytest.approx(2 / 3)


def test_cf1_is_zero_where_both_means_are():
    assert metrics.cf1(torch.tensor([[1, 0]]), torch.tensor([[0, 1]])) == 0


def test_threshold_is_inclusive_and_rounded_to_the_dtype_of_the_scores():
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        preds = torch.tensor([[0.7], [0.6]], dtype=torch.float64).to(dtype)
        for threshold in (0.7, [0.7], np.array([0.7]), torch.tensor([0.7], dtype=torch.float64)):
            assert metrics.subset_accuracy(preds, [[1], [0]], threshold=threshold) == 1, (dtype, threshold)


def test_threshold_per_label_decides_its_own_column():
    preds = torch.tensor([[0.3, 0.3], [0.7, 0.7]])
    target = torch.tensor([[1, 0], [1, 0]])
    assert metrics.subset_accuracy(preds, target, threshold=[0.2, 0.8]) == 1
    assert metrics.subset_accuracy(preds, target, threshold=[0.8, 0.2]) == 0


def test_logits_are_not_taken_for_probabilities():
    logits = torch.tensor([[0.3, -1.0]])
    assert metrics.subset_accuracy(logits, [[1, 0]]) == 0
    assert metrics.subset_accuracy(logits, [[1, 0]], threshold=0.0) == 1


@pytest.mark.parametrize("function", ALL)
def test_decisions_of_any_type_count_as_0_and_1(function):
    expected = function(PREDS, TARGET)
    decisions = PREDS >= 0.5
    for form in (
        decisions,
        decisions.int(),
        decisions.half(),
        decisions.numpy(),
        decisions.tolist(),
        decisions.to(torch.uint8),
    ):
        assert function(form, TARGET) == expected


@pytest.mark.parametrize("function", ALL)
def test_target_of_any_type_is_the_same_truth(function):
    expected = function(PREDS, TARGET)
    read_only = TARGET.numpy().astype(np.float32)
    read_only.flags.writeable = False
    for form in (
        TARGET.bool(),
        TARGET.half(),
        TARGET.tolist(),
        read_only,
        TARGET.numpy()[::-1][::-1],
        TARGET.T.contiguous().T,
    ):
        assert function(PREDS, form) == expected


@pytest.mark.parametrize("function", ALL)
def test_result_does_not_depend_on_the_order_of_rows_or_labels(function):
    preds, target = torch.rand(2, 30, 5, generator=torch.Generator().manual_seed(0))
    target = target > 0.6
    rows, labels = torch.arange(29, -1, -1), torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(
        function(preds, target), function(preds[rows][:, labels], target[rows][:, labels]), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("function", ALL)
def test_no_rows_is_undefined_and_follows_the_policy(function):
    preds, target = torch.zeros(0, 3), torch.zeros(0, 3)
    assert function(preds, target).isnan()
    assert function(preds, target, empty="zero") == 0
    assert function(preds, target, empty="one") == 1
    with pytest.raises(ValueError, match=r"is undefined \(0/0\)"):
        function(preds, target, empty="error")


@pytest.mark.parametrize("function", ALL)
def test_no_labels_is_undefined(function):
    result = function(torch.zeros(3, 0), torch.zeros(3, 0))
    assert result.isnan()


def test_per_label_result_has_one_entry_a_label_also_without_rows():
    assert metrics.f1(torch.zeros(0, 3), torch.zeros(0, 3), average="none").shape == (3,)
    assert metrics.f1(torch.zeros(3, 0), torch.zeros(3, 0), average="none").shape == (0,)


def test_scores_that_require_grad_are_taken_as_they_are():
    result = metrics.f1(PREDS.clone().requires_grad_(), TARGET)
    assert result == metrics.f1(PREDS, TARGET)
    assert not result.requires_grad


def test_error_policy_names_the_undefined_label_or_row():
    with pytest.raises(ValueError, match=r"`precision` is undefined \(0/0\) at label 1, the first of 2 among 4"):
        metrics.precision(PREDS, TARGET, empty="error")
    with pytest.raises(ValueError, match=r"`example_f1` is undefined \(0/0\) at row 3, the first of 1 among 4"):
        metrics.example_f1(PREDS, TARGET, empty="error")
    with pytest.raises(ValueError, match=r"`f1` is undefined \(0/0\)\. Pass"):
        metrics.of1([[0, 0]], [[0, 0]], empty="error")


def test_error_policy_is_silent_where_everything_is_defined():
    assert metrics.f1(PREDS[:, :2], TARGET[:, :2], empty="error") == metrics.f1(PREDS[:, :2], TARGET[:, :2])


@pytest.mark.parametrize("function", ALL)
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"target": [[0.5, 1.0]]}, ValueError, r"`target` must be hard multi-hot, 0 or 1, got 0\.5 at row 0, label 0"),
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
            r"`target` must be a tensor or an array of numbers, got \[\['yes', 'no'\]\]",
        ),
        ({"preds": [[0.1, np.nan]]}, ValueError, r"`preds` must hold no NaN, got one at row 0, label 1"),
        ({"preds": [[0.1, 1j]]}, TypeError, r"`preds` must hold real numbers, got torch\.complex128"),
        ({"preds": [[0.1], [0.2, 0.3]]}, TypeError, r"`preds` must be a tensor or an array of numbers, got \[\[0\.1\]"),
        ({"threshold": [0.1, 0.2, 0.3]}, ValueError, r"one a label, shape \(2,\), got shape \(3,\)"),
        ({"threshold": np.nan}, ValueError, r"`threshold` must hold no NaN, got nan"),
        ({"empty": "skip"}, ValueError, r"`empty` must be one of 'nan', 'zero', 'one', 'error', got 'skip'"),
    ],
)
def test_bad_argument_is_refused(function, arguments, error, message):
    with pytest.raises(error, match=message):
        function(**{"preds": [[0.1, 0.9]], "target": [[0, 1]]} | arguments)


@pytest.mark.parametrize("function", PER_LABEL)
def test_unknown_average_is_refused(function):
    with pytest.raises(
        ValueError, match=r"`average` must be one of 'macro', 'micro', 'weighted', 'none', got 'samples'"
    ):
        function(PREDS, TARGET, average="samples")


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("function", ALL)
def test_result_lies_on_the_device_of_the_scores(function):
    result = function(PREDS.cuda(), TARGET)
    assert result.is_cuda
    torch.testing.assert_close(result.cpu(), function(PREDS, TARGET), rtol=0, atol=1e-12)
