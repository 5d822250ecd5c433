"""MultiLabelMetrics with any division into batches, against each function on all rows."""

import copy
import math
import pickle
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import sklearn.metrics as sk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mlmetric import metrics
from mlmetric.metrics import MultiLabelMetrics

DECIDED = {
    "op": partial(metrics.precision, average="micro"),
    "or": partial(metrics.recall, average="micro"),
    "of1": metrics.of1,
    "cp": metrics.precision,
    "cr": metrics.recall,
    "cf1": metrics.cf1,
    "macro_f1": metrics.f1,
    "weighted_f1": partial(metrics.f1, average="weighted"),
    "example_f1": metrics.example_f1,
    "pooled_accuracy": metrics.pooled_accuracy,
    "subset_accuracy": metrics.subset_accuracy,
}
RANKED = {
    "map": metrics.mean_average_precision,
    "micro_ap": partial(metrics.mean_average_precision, average="micro"),
    "coverage_error": metrics.coverage_error,
    "lrap": metrics.label_ranking_average_precision,
    "ranking_loss": metrics.ranking_loss,
    "one_error": metrics.one_error,
}

# Labels: ranked well, never predicted, without positives. Rows: all labels correct, some correct, no true label.
PREDS = torch.tensor([[0.9, 0.1, 0.2], [0.8, 0.3, 0.6], [0.1, 0.2, 0.4]], dtype=torch.float64)
TARGET = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 0, 0]])


@st.composite
def batches(draw):
    """Return scores, true labels, a mask, slices of the rows, and whether each slice is passed with its mask."""
    shape = draw(st.tuples(st.integers(0, 8), st.integers(1, 4)))
    preds = draw(hnp.arrays(np.float64, shape, elements=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])))
    target, mask = (draw(hnp.arrays(np.bool_, shape)) for _ in range(2))
    ends = [0, *sorted(draw(st.lists(st.integers(0, shape[0]), max_size=4))), shape[0]]
    masked = draw(st.lists(st.booleans(), min_size=len(ends) - 1, max_size=len(ends) - 1))
    for (start, end), own in zip(pairwise(ends), masked, strict=True):
        mask[start:end] |= not own
    return preds, target, mask, list(pairwise(ends)), masked


def _random(num_rows=40, num_labels=5, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    preds, target, mask = torch.rand(3, num_rows, num_labels, generator=generator)
    return preds.to(dtype), target < 0.4, mask < 0.8


def _seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def _expected(preds, target, mask=None, zero_division=math.nan, **options):
    values = {
        key: function(preds, target, mask=mask, zero_division=zero_division, **options)
        for key, function in DECIDED.items()
    }
    return values | {
        key: function(preds, target, mask=mask, zero_division=zero_division) for key, function in RANKED.items()
    }


def _assert_equal(actual, expected, rtol=1e-12):
    assert actual.keys() == expected.keys()
    for key, value in actual.items():
        assert value.shape == ()
        assert value.dtype == torch.float64
        np.testing.assert_allclose(value.cpu(), expected[key].cpu(), rtol=rtol, err_msg=key)


@settings(max_examples=40, deadline=None)
@given(batch=batches(), data=st.data())
def test_compute_equals_each_function_on_all_rows_for_any_batches(batch, data):
    preds, target, mask, parts, masked = batch
    options = {
        "threshold": data.draw(
            st.sampled_from([0.5, None]) | hnp.arrays(np.float64, preds.shape[1], elements=st.floats(0, 1))
        ),
        "top_k": data.draw(st.none() | st.integers(1, preds.shape[1])),
        "zero_division": data.draw(st.sampled_from([math.nan, 0, 1])),
    }
    table, whole = MultiLabelMetrics(**options), MultiLabelMetrics(**options)
    for (start, end), is_masked in zip(parts, masked, strict=True):
        table.update(preds[start:end], target[start:end], *([mask[start:end]] if is_masked else []))
    whole.update(preds, target, mask)
    _assert_equal(table.compute(), whole.compute(), rtol=0)
    _assert_equal(table.compute(), _expected(preds, target, mask, **options))


def test_forward_returns_the_values_of_the_batch_and_adds_it():
    preds, target, mask = _random()
    table = MultiLabelMetrics(threshold=0.6)
    table.update(preds[:10], target[:10])
    _assert_equal(table(preds[10:25], target[10:25]), _expected(preds[10:25], target[10:25], threshold=0.6))
    last = preds[25:], target[25:], mask[25:]
    _assert_equal(table.forward(*last[:2], mask=last[2]), _expected(*last, threshold=0.6))
    mask[:25] = True
    _assert_equal(table.compute(), _expected(preds, target, mask, threshold=0.6))


def test_rejected_batch_does_not_change_the_state():
    table = MultiLabelMetrics()
    table.update(PREDS, TARGET)
    for take in (table.update, table):
        with pytest.raises(ValueError, match="must not contain NaN"):
            take(PREDS * torch.nan, TARGET)
    _assert_equal(table.compute(), _expected(PREDS, TARGET))


def test_compute_includes_later_updates_and_reset_removes_all_rows():
    preds, target, _ = _random()
    table = MultiLabelMetrics()
    table.update(preds[:10], target[:10])
    _assert_equal(table.compute(), _expected(preds[:10], target[:10]))
    table.update(preds[10:], target[10:])
    _assert_equal(table.compute(), _expected(preds, target))
    table.reset()
    with pytest.raises(ValueError, match="has no rows yet"):
        table.report()
    table.update(PREDS, TARGET)  # of another number of labels
    _assert_equal(table.compute(), _expected(PREDS, TARGET))


def test_merge_state_adds_the_rows_of_another_metric():
    preds, target, mask = _random()
    table, other = MultiLabelMetrics(), MultiLabelMetrics()
    table.update(preds[:10], target[:10])
    other.update(preds[10:], target[10:], mask[10:])
    table.compute()
    table.merge_state(other)
    mask[:10] = True
    _assert_equal(table.compute(), _expected(preds, target, mask))
    _assert_equal(other.compute(), _expected(preds[10:], target[10:], mask[10:]))
    other.update(preds[:10], target[:10])
    _assert_equal(table.compute(), _expected(preds, target, mask))
    with pytest.raises(TypeError, match=r"`other` must be of class MultiLabelMetrics, got dict"):
        table.merge_state({})


def test_merge_state_into_a_metric_without_rows():
    table, other = MultiLabelMetrics(), MultiLabelMetrics()
    other.update(PREDS, TARGET)
    table.merge_state(other)
    _assert_equal(table.compute(), _expected(PREDS, TARGET))


def test_per_label_equals_each_function_for_any_zero_division():
    preds, target, mask = _random(6)
    target[:, 0], mask[:, 1] = False, False
    table = MultiLabelMetrics(threshold=0.8, zero_division=0)
    table.update(preds, target, mask)
    options = {"mask": mask, "average": "none", "threshold": 0.8}
    expected = {
        "support": (target & mask).sum(dim=0),
        "average_precision": metrics.average_precision(preds, target, mask=mask),
        "precision": metrics.precision(preds, target, **options),
        "recall": metrics.recall(preds, target, **options),
        "f1": metrics.f1(preds, target, **options),
    }
    found = table.per_label()
    assert list(found) == list(expected)
    for key, values in expected.items():
        assert found[key].dtype == torch.float64
        np.testing.assert_allclose(found[key], values, rtol=1e-12)
    assert found["average_precision"].isnan().tolist()[:2] == [True, True]


def test_report_contains_the_values_and_intervals_of_each_function():
    preds, target, mask = _random(100)
    table = MultiLabelMetrics(threshold=[0.3, 0.4, 0.5, 0.6, 0.7], top_k=3)
    table.update(preds[:60], target[:60], mask[:60])
    table.update(preds[60:], target[60:], mask[60:])
    report = table.report(n_resamples=200, generator=_seeded())
    assert report.values == {key: value.item() for key, value in table.compute().items()}
    assert report.confidence_level == 0.95
    for key, function in (DECIDED | RANKED).items():
        options = {"threshold": table.threshold, "top_k": 3} if key in DECIDED else {}
        function = partial(function, mask=mask, **options)
        value, low, high = metrics.confidence_interval(function, preds, target, n_resamples=200, generator=_seeded())
        np.testing.assert_allclose([report.values[key], *report.intervals[key]], [value, low, high], rtol=1e-12)
        assert low < report.values[key] < high
    assert report.per_label["support"] == table.per_label()["support"].tolist()


def test_report_follows_its_options():
    preds, target, _ = _random()
    table = MultiLabelMetrics()
    table.update(preds, target)
    report = table.report(n_resamples=20, generator=_seeded())
    assert report == table.report(n_resamples=20, generator=_seeded())
    assert report != table.report(n_resamples=20, generator=_seeded(1))
    low, high = report.intervals["map"]
    narrow = table.report(n_resamples=20, confidence_level=0.5, generator=_seeded()).intervals["map"]
    assert low < narrow[0] < narrow[1] < high
    assert table.report(confidence_level=None).intervals is None
    with pytest.raises(ValueError, match=r"`confidence_level` must be above 0 and below 1, got 95"):
        table.report(confidence_level=95)
    with pytest.raises(ValueError, match=r"`n_resamples` must be at least 1, got 0"):
        table.report(n_resamples=0)


def test_report_draws_resamples_from_the_global_generator():
    table = MultiLabelMetrics()
    table.update(*_random()[:2])
    with torch.random.fork_rng():
        torch.manual_seed(5)
        first, second = table.report(n_resamples=20), table.report(n_resamples=20)
        torch.manual_seed(5)
        assert table.report(n_resamples=20) == first != second


def test_report_excludes_undefined_resamples():
    table = MultiLabelMetrics()
    table.update([[0.9, 0.2], [0.8, 0.7], [0.6, 0.9]], [[1, 0], [1, 0], [0, 1]])
    report = table.report(n_resamples=50, generator=_seeded())  # a third of the draws lack the second label
    assert all(np.isfinite(bound) for interval in report.intervals.values() for bound in interval)


def test_report_contains_the_number_of_averaged_values():
    table = MultiLabelMetrics()
    table.update(PREDS, TARGET)
    # Labels that are true, predicted, or either; rows with true labels, with predicted labels, or with pairs.
    assert table.report(confidence_level=None).num_averaged == {
        "map": (2, 3),
        "cp": (2, 3),
        "cr": (2, 3),
        "macro_f1": (3, 3),
        "example_f1": (2, 3),
        "subset_accuracy": (3, 3),
        "coverage_error": (2, 3),
        "lrap": (2, 3),
        "ranking_loss": (2, 3),
        "one_error": (3, 3),
    }
    table = MultiLabelMetrics(zero_division=0)
    table.update(PREDS, TARGET)
    assert set(table.report(confidence_level=None).num_averaged.values()) == {(3, 3)}


def test_report_prints_as_a_table():
    table = MultiLabelMetrics()
    table.update(PREDS, TARGET)
    lines = str(table.report(confidence_level=None)).splitlines()
    assert lines[:3] == [
        "| metric               | value | mean over |",
        "| -------------------- | ----: | --------: |",
        "| mAP                  | 1.000 |    2 of 3 |",
    ]
    assert "| OF1 (micro F1)       | 0.667 |           |" in lines
    assert len(lines) == 2 + len(DECIDED | RANKED)
    lines = str(table.report(confidence_level=0.9, n_resamples=20, generator=_seeded())).splitlines()
    assert lines[0] == "| metric               | value |  90 % interval | mean over |"
    assert lines[-1] == "| one-error            | 0.333 | 0.000 to 0.667 |    3 of 3 |"
    assert {len(line) for line in lines} == {len(lines[0])}


def test_undefined_metric_and_its_interval_are_printed_as_empty_cells():
    table = MultiLabelMetrics()
    table.update([[0.9], [0.2]], [[0], [0]])
    line = str(table.report(n_resamples=5)).splitlines()[2]
    assert [cell.strip() for cell in line.split("|")[1:-1]] == ["mAP", "", "", "0 of 1"]


def test_label_table_is_sorted_by_positives_and_contains_label_names():
    table = MultiLabelMetrics(label_names=["sky", "tree", "a car"])
    table.update(PREDS, TARGET)
    assert table.report(confidence_level=None).label_table().splitlines() == [
        "| label | support | average precision | precision | recall |    f1 |",
        "| ----- | ------: | ----------------: | --------: | -----: | ----: |",
        "| sky   |       2 |             1.000 |     1.000 |  1.000 | 1.000 |",
        "| tree  |       1 |             1.000 |           |  0.000 | 0.000 |",
        "| a car |       0 |                   |     0.000 |        | 0.000 |",
    ]
    table = MultiLabelMetrics()
    table.update(PREDS.flip(1), TARGET.flip(1))
    lines = table.report(confidence_level=None).label_table().splitlines()
    assert [line[2] for line in lines[2:]] == ["2", "1", "0"]


@pytest.mark.parametrize("masked", [False, True])
def test_batches_may_be_overwritten_after_update(masked):
    batch = _random()[: 2 + masked]
    expected = _expected(*batch)
    own, arrays = [part.clone() for part in batch], [part.clone().numpy() for part in batch]
    table = MultiLabelMetrics()
    table.update(*own)
    table.update(*arrays)
    for part in (*own, *arrays):
        part[...] = 0
    _assert_equal(table.compute(), expected)  # of each row twice


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_batches_of_any_dtype_are_evaluated_without_conversion(dtype):
    preds, target, _ = _random(dtype=dtype)
    preds[0] = 0.1
    for threshold in (0.1, 0.7):  # rounded to the dtype
        table = MultiLabelMetrics(threshold=threshold)
        table.update(preds[:15], target[:15])
        table.update(preds[15:], target[15:])
        _assert_equal(table.compute(), _expected(preds, target, threshold=threshold))


def test_batches_of_another_dtype_are_rejected():
    # A threshold is rounded to the dtype of the scores: 0.1 in half precision is less than 0.1.
    half = torch.tensor([[0.1]]).half()
    table = MultiLabelMetrics(threshold=0.1)
    table.update(half, [[1]])
    assert table.compute()["or"] == 1
    with pytest.raises(ValueError, match=r"1 columns of torch\.float16 as in earlier batches, got 1 of torch\.float32"):
        table.update(half.float(), [[1]])
    table.update(half, torch.tensor([[1.0]]))
    assert table.compute()["or"] == 1
    other = MultiLabelMetrics(threshold=0.1)
    other.update(half.float(), [[1]])
    with pytest.raises(ValueError, match=r"1 columns of torch\.float16 as in earlier batches, got 1 of torch\.float32"):
        table.merge_state(other)


def test_merge_state_with_another_number_of_labels_is_rejected_without_a_change():
    table, other = MultiLabelMetrics(), MultiLabelMetrics()
    table.update(PREDS, TARGET)
    other.update(torch.zeros(1, 2), torch.zeros(1, 2))
    with pytest.raises(ValueError, match=r"`preds` must have 3 columns of torch\.float64 .*, got 2 of torch\.float32"):
        table.merge_state(other)
    _assert_equal(table.compute(), _expected(PREDS, TARGET))


def test_report_per_label_prints_both_tables():
    table = MultiLabelMetrics(label_names=["sky", "tree", "a car"])
    table.update(PREDS, TARGET)
    plain, both = table.report(confidence_level=None), table.report(per_label=True, confidence_level=None)
    assert str(both) == f"{plain}\n\n{plain.label_table()}"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {},
            "MultiLabelMetrics(threshold=0.5, top_k=None, zero_division=nan, label_names=None, device=None, "
            "sync_on_compute=True)",
        ),
        ({"threshold": torch.zeros(3), "label_names": list("abcdefghij")}, "threshold=tensor of 3"),
        ({"label_names": list("abcdefghij")}, "label_names=['a', 'b', 'c', 'd', 'e', 'f', ...]"),
        ({"threshold": torch.zeros(30)}, "threshold=tensor of 30"),
    ],
)
def test_repr_shows_the_arguments(options, expected):
    assert expected in repr(MultiLabelMetrics(**options))


def test_repr_of_a_subclass_skips_parameters_that_are_no_attributes():
    class Named(MultiLabelMetrics):
        def __init__(self, prefix, *args, threshold=0.5, **kwargs):
            super().__init__(threshold=threshold, **kwargs)

    assert repr(Named("val", 1, top_k=2)) == "Named(threshold=0.5)"


def test_metric_is_a_module_without_a_state_dict():
    table = MultiLabelMetrics()
    assert type(table) is MultiLabelMetrics
    assert isinstance(table, torch.nn.Module)
    table.update(PREDS, TARGET)
    assert table.state_dict() == {}
    assert list(table.parameters()) == []
    _assert_equal(table.double().compute(), _expected(PREDS, TARGET))


def test_label_names_are_escaped_in_tables():
    table = MultiLabelMetrics(label_names=[1, "a|b", "c"])
    table.update(PREDS, TARGET)
    lines = table.report(confidence_level=None).label_table().splitlines()
    assert {line.split(" | ")[0].strip("| ") for line in lines[2:]} == {"1", r"a\|b", "c"}


def test_batches_without_rows_are_undefined():
    table = MultiLabelMetrics()
    table.update(torch.zeros(0, 3), torch.zeros(0, 3))
    assert all(value.isnan() for value in table.compute().values())
    report = table.report(n_resamples=3)
    assert all(np.isnan(report.intervals["map"]))
    assert report.num_averaged["map"] == (0, 3)
    assert report.num_averaged["one_error"] == (0, 0)


def test_copies_and_pickles_keep_the_state():
    table = MultiLabelMetrics(threshold=0.6, label_names=list("abcde"))
    preds, target, _ = _random()
    table.update(preds[:10], target[:10])
    for other in (copy.deepcopy(table), pickle.loads(pickle.dumps(table))):
        assert type(other) is type(table)
        _assert_equal(other.compute(), table.compute(), rtol=0)
        other.update(preds[10:], target[10:])
        _assert_equal(other.compute(), _expected(preds, target, threshold=0.6))
        assert other.label_names == table.label_names
    _assert_equal(table.compute(), _expected(preds[:10], target[:10], threshold=0.6))


def test_compute_without_rows_is_rejected():
    table = MultiLabelMetrics()
    for method in (table.compute, table.report, table.per_label):
        with pytest.raises(ValueError, match=r"`MultiLabelMetrics` has no rows yet: call `update` first"):
            method()


def test_each_compute_communicates_with_the_other_processes(monkeypatch):
    # A process that returned a cached result would leave the other processes waiting.
    calls = []
    monkeypatch.setattr(
        "mlmetric.metrics._multi_label_metrics.gather_objects", lambda value: calls.append(value) or [value]
    )
    table = MultiLabelMetrics()
    table.update(PREDS, TARGET)
    table.compute()
    table.compute()
    assert len(calls) == 2


def test_another_number_of_labels_is_rejected():
    table = MultiLabelMetrics()
    table.update(PREDS, TARGET)
    for num_labels in (2, 4):
        with pytest.raises(ValueError, match=rf"`preds` must have 3 columns .*, got {num_labels} of"):
            table.update(torch.zeros(1, num_labels), torch.zeros(1, num_labels))
    with pytest.raises(ValueError, match=r"one column for each of the 2 `label_names`, got 3"):
        MultiLabelMetrics(label_names=["a", "b"]).update(PREDS, TARGET)


def test_forward_rejects_another_number_of_labels():
    table = MultiLabelMetrics()
    table.update(PREDS, TARGET)
    with pytest.raises(ValueError, match=r"`preds` must have 3 columns .*, got 2 of"):
        table(torch.zeros(1, 2), torch.zeros(1, 2))
    _assert_equal(table.compute(), _expected(PREDS, TARGET))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"threshold": [0.1, 0.2]},
            r"`threshold` must be a number or have shape \(3,\), one for each label, got shape \(2,\)",
        ),
        ({"top_k": 4}, r"`top_k` must be from 1 to 3, the number of labels, or None, got 4"),
    ],
)
def test_option_that_does_not_suit_the_number_of_labels_is_rejected(options, message):
    table = MultiLabelMetrics(**options)
    table.update(PREDS, TARGET)
    with pytest.raises(ValueError, match=message):
        table.compute()


def test_invalid_zero_division_is_rejected():
    with pytest.raises(ValueError, match=r"`zero_division` must be 0.0, 1.0 or nan, got 'skip'"):
        MultiLabelMetrics(zero_division="skip")


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        ((PREDS, TARGET * 0.5), ValueError, r"`target` must contain only 0 and 1, got 0\.5 at row 0, label 0"),
        ((PREDS, TARGET[:2]), ValueError, r"the same shape \(N, L\), got \(3, 3\) and \(2, 3\)"),
        ((PREDS, TARGET, TARGET[:2]), ValueError, r"`mask` must have the shape of `preds`"),
        ((PREDS * 1j, TARGET), TypeError, r"`preds` must contain real numbers"),
    ],
)
def test_invalid_batch_is_rejected(batch, error, message):
    with pytest.raises(error, match=message):
        MultiLabelMetrics().update(*batch)


def test_label_without_positives_is_0_in_scikit_learn_and_excluded_here():
    table = MultiLabelMetrics()
    table.update(PREDS, TARGET)
    assert table.compute()["map"] == 1
    with pytest.warns(UserWarning, match="No positive class found"):
        expected = sk.average_precision_score(TARGET, PREDS)
    assert expected == pytest.approx(2 / 3)


def test_cf1_is_that_of_ml_gcn_and_not_macro_f1():
    preds = torch.tensor([[0.9, 0.9, 0.1], [0.9, 0.1, 0.1], [0.9, 0.1, 0.1]])
    target = torch.tensor([[1, 1, 1], [0, 1, 0], [0, 1, 0]])
    table = MultiLabelMetrics(zero_division=0)
    table.update(preds, target)
    values = table.compute()
    # As in the authors' code; the precision of a label that is never predicted is 0.
    right, predicted, true = np.array([1, 1, 0]), np.array([3, 1, 0]), np.array([1, 3, 1])
    cp, cr = (right / np.maximum(predicted, 1)).mean(), (right / true).mean()
    expected = {"op": 2 / 4, "or": 2 / 5, "of1": 4 / 9, "cp": cp, "cr": cr, "cf1": 2 * cp * cr / (cp + cr)}
    assert {key: values[key].item() for key in expected} == pytest.approx(expected)
    assert values["cf1"].item() == pytest.approx(4 / 9)
    assert values["macro_f1"].item() == pytest.approx((1 / 2 + 1 / 2 + 0) / 3)


@pytest.mark.parametrize("stored_on", [None, "cpu"])
def test_rows_are_stored_on_the_device_of_the_batch_or_the_given_device(stored_on, device):
    preds, target, mask = _random()
    table = MultiLabelMetrics(device=stored_on, threshold=torch.full((5,), 0.4))
    table.update(preds.to(device), target.to(device), mask)
    table.update(preds.to(device), target)
    values = table.compute()
    assert all(value.device == torch.device(stored_on or device) for value in values.values())
    mask = torch.cat([mask, torch.ones_like(mask)])
    _assert_equal(values, _expected(preds.repeat(2, 1), target.repeat(2, 1), mask, threshold=0.4))
    report = table.report(n_resamples=20, generator=_seeded())
    function = partial(metrics.mean_average_precision, mask=mask)
    expected = metrics.confidence_interval(
        function, preds.repeat(2, 1), target.repeat(2, 1), n_resamples=20, generator=_seeded()
    )
    np.testing.assert_allclose(report.intervals["map"], expected[1:], rtol=1e-12)
