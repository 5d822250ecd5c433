"""The table of metrics against each function, in batches, beside torchmetrics and without it."""

import copy
import math
import pickle
import sys
from contextlib import nullcontext
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
ALONE = "mlmetric.metrics._torchmetrics"

# Labels: ranked well, never predicted, without positives. Rows: right, half right, without labels.
PREDS = torch.tensor([[0.9, 0.1, 0.2], [0.8, 0.3, 0.6], [0.1, 0.2, 0.4]], dtype=torch.float64)
TARGET = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 0, 0]])


@pytest.fixture(scope="module", params=["beside torchmetrics", "alone"])
def make(request):
    """Create an instance where torchmetrics can be imported, and where it cannot."""
    if request.param == "beside torchmetrics":
        pytest.importorskip("torchmetrics")
        return MultiLabelMetrics

    def alone(**options):
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, ALONE, None)
            return MultiLabelMetrics(**options)

    return alone


@st.composite
def batches(draw):
    """Scores, truth, which entries count, where to cut the rows, and whether each part comes with its mask."""
    shape = draw(st.tuples(st.integers(0, 8), st.integers(1, 4)))
    preds = draw(hnp.arrays(np.float64, shape, elements=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])))
    target, mask = (draw(hnp.arrays(np.bool_, shape)) for _ in range(2))
    cuts = [0, *sorted(draw(st.lists(st.integers(0, shape[0]), max_size=4))), shape[0]]
    masked = draw(st.lists(st.booleans(), min_size=len(cuts) - 1, max_size=len(cuts) - 1))
    for (start, end), own in zip(pairwise(cuts), masked, strict=True):
        mask[start:end] |= not own
    return preds, target, mask, list(pairwise(cuts)), masked


def _random(num_rows=40, num_labels=5, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    preds, target, mask = torch.rand(3, num_rows, num_labels, generator=generator)
    return preds.to(dtype), target < 0.4, mask < 0.8


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
def test_compute_of_any_batches_equals_each_function_on_all_rows(make, batch, data):
    preds, target, mask, parts, masked = batch
    options = {
        "threshold": data.draw(
            st.sampled_from([0.5, None]) | hnp.arrays(np.float64, preds.shape[1], elements=st.floats(0, 1))
        ),
        "top_k": data.draw(st.none() | st.integers(1, preds.shape[1])),
        "zero_division": data.draw(st.sampled_from([math.nan, 0, 1])),
    }
    table, whole = make(**options), make(**options)
    for (start, end), own in zip(parts, masked, strict=True):
        table.update(preds[start:end], target[start:end], *([mask[start:end]] if own else []))
    whole.update(preds, target, mask)
    _assert_equal(table.compute(), whole.compute(), rtol=0)
    _assert_equal(table.compute(), _expected(preds, target, mask, **options))


def test_a_call_measures_the_batch_and_takes_it_in(make):
    preds, target, mask = _random()
    table = make(threshold=0.6)
    table.update(preds[:10], target[:10])
    _assert_equal(table(preds[10:25], target[10:25]), _expected(preds[10:25], target[10:25], threshold=0.6))
    last = preds[25:], target[25:], mask[25:]
    _assert_equal(table.forward(*last[:2], mask=last[2]), _expected(*last, threshold=0.6))
    mask[:25] = True
    _assert_equal(table.compute(), _expected(preds, target, mask, threshold=0.6))


def test_a_refused_batch_leaves_earlier_ones_as_they_are(make):
    table = make()
    table.update(PREDS, TARGET)
    for take in (table.update, table):
        with pytest.raises(ValueError, match="must hold no NaN"):
            take(PREDS * torch.nan, TARGET)
    _assert_equal(table.compute(), _expected(PREDS, TARGET))


def test_compute_follows_later_updates_and_a_reset_forgets_all(make):
    preds, target, _ = _random()
    table = make()
    table.update(preds[:10], target[:10])
    _assert_equal(table.compute(), _expected(preds[:10], target[:10]))
    table.update(preds[10:], target[10:])
    _assert_equal(table.compute(), _expected(preds, target))
    table.reset()
    with pytest.raises(ValueError, match="holds no rows yet"):
        table.report()
    table.update(PREDS, TARGET)  # of another number of labels
    _assert_equal(table.compute(), _expected(PREDS, TARGET))


def test_merge_state_takes_in_the_rows_of_another_object(make):
    preds, target, mask = _random()
    table, other = make(), make()
    table.update(preds[:10], target[:10])
    other.update(preds[10:], target[10:], mask[10:])
    table.compute()
    table.merge_state(other)
    mask[:10] = True
    _assert_equal(table.compute(), _expected(preds, target, mask))
    _assert_equal(other.compute(), _expected(preds[10:], target[10:], mask[10:]))
    other.update(preds[:10], target[:10])
    _assert_equal(table.compute(), _expected(preds, target, mask))
    with pytest.raises(TypeError, match=r"`other` must be of class MultiLabelMetrics too, got dict"):
        table.merge_state({})


def test_merging_into_an_object_without_rows_needs_no_update(make):
    table, other = make(), make()
    other.update(PREDS, TARGET)
    table.merge_state(other)
    _assert_equal(table.compute(), _expected(PREDS, TARGET))


def test_per_label_equals_each_function_whatever_the_policy(make):
    preds, target, mask = _random(6)
    target[:, 0], mask[:, 1] = False, False
    table = make(threshold=0.8, zero_division=0)
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


def test_report_holds_values_and_the_intervals_of_each_function(make):
    preds, target, mask = _random(100)
    table = make(threshold=[0.3, 0.4, 0.5, 0.6, 0.7], top_k=3)
    table.update(preds[:60], target[:60], mask[:60])
    table.update(preds[60:], target[60:], mask[60:])
    report = table.report(n_resamples=200)
    assert report.values == {key: value.item() for key, value in table.compute().items()}
    assert report.confidence_level == 0.95
    for key, function in (DECIDED | RANKED).items():
        options = {"threshold": table.threshold, "top_k": 3} if key in DECIDED else {}
        function = partial(function, mask=mask, **options)
        value, low, high = metrics.confidence_interval(function, preds, target, n_resamples=200)
        np.testing.assert_allclose([report.values[key], *report.intervals[key]], [value, low, high], rtol=1e-12)
        assert low < report.values[key] < high
    assert report.per_label["support"] == table.per_label()["support"].tolist()


def test_report_is_the_same_each_time_and_follows_its_options(make):
    preds, target, _ = _random()
    table = make()
    table.update(preds, target)
    report = table.report(n_resamples=20)
    assert report == table.report(n_resamples=20)
    again = table.report(n_resamples=20, generator=torch.Generator().manual_seed(0))
    assert again == report != table.report(n_resamples=20, generator=torch.Generator().manual_seed(1))
    low, high = report.intervals["map"]
    narrow = table.report(n_resamples=20, confidence_level=0.5).intervals["map"]
    assert low < narrow[0] < narrow[1] < high
    assert table.report(confidence_level=None).intervals is None
    with pytest.raises(ValueError, match=r"`confidence_level` must be above 0 and below 1, got 95"):
        table.report(confidence_level=95)
    with pytest.raises(ValueError, match=r"`n_resamples` must be at least 1, got 0"):
        table.report(n_resamples=0)


def test_report_leaves_undefined_resamples_out(make):
    table = make()
    table.update([[0.9, 0.2], [0.8, 0.7], [0.6, 0.9]], [[1, 0], [1, 0], [0, 1]])
    report = table.report(n_resamples=50)  # a third of the draws lack the second label
    assert all(np.isfinite(bound) for interval in report.intervals.values() for bound in interval)


def test_report_counts_what_each_mean_is_over(make):
    table = make()
    table.update(PREDS, TARGET)
    # Labels with positives, predicted, or either; rows with labels, predicted labels, or pairs.
    assert table.report(confidence_level=None).averaged == {
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
    table = make(zero_division=0)
    table.update(PREDS, TARGET)
    assert set(table.report(confidence_level=None).averaged.values()) == {(3, 3)}


def test_report_prints_as_a_table(make):
    table = make()
    table.update(PREDS, TARGET)
    lines = str(table.report(confidence_level=None)).splitlines()
    assert lines[:3] == [
        "| metric               | value | mean over |",
        "| -------------------- | ----: | --------: |",
        "| mAP                  | 1.000 |    2 of 3 |",
    ]
    assert "| OF1 (micro F1)       | 0.667 |           |" in lines
    assert len(lines) == 2 + len(DECIDED | RANKED)
    lines = str(table.report(confidence_level=0.9, n_resamples=20)).splitlines()
    assert lines[0] == "| metric               | value |  90 % interval | mean over |"
    assert lines[-1] == "| one-error            | 0.333 | 0.000 to 0.667 |    3 of 3 |"
    assert {len(line) for line in lines} == {len(lines[0])}


def test_undefined_metric_and_its_interval_print_as_blanks(make):
    table = make()
    table.update([[0.9], [0.2]], [[0], [0]])
    line = str(table.report(n_resamples=5)).splitlines()[2]
    assert [cell.strip() for cell in line.split("|")[1:-1]] == ["mAP", "", "", "0 of 1"]


def test_label_table_sorts_by_positives_and_names_the_labels(make):
    table = make(label_names=["sky", "tree", "a car"])
    table.update(PREDS, TARGET)
    assert table.report(confidence_level=None).label_table().splitlines() == [
        "| label | support | average precision | precision | recall |    f1 |",
        "| ----- | ------: | ----------------: | --------: | -----: | ----: |",
        "| sky   |       2 |             1.000 |     1.000 |  1.000 | 1.000 |",
        "| tree  |       1 |             1.000 |           |  0.000 | 0.000 |",
        "| a car |       0 |                   |     0.000 |        | 0.000 |",
    ]
    table = make()
    table.update(PREDS.flip(1), TARGET.flip(1))
    lines = table.report(confidence_level=None).label_table().splitlines()
    assert [line[2] for line in lines[2:]] == ["2", "1", "0"]


@pytest.mark.parametrize("masked", [False, True])
def test_batches_may_be_overwritten_after_they_were_taken_in(make, masked):
    batch = _random()[: 2 + masked]
    expected = _expected(*batch)
    own, arrays = [part.clone() for part in batch], [part.clone().numpy() for part in batch]
    table = make()
    table.update(*own)
    table.update(*arrays)
    for part in (*own, *arrays):
        part[...] = 0
    _assert_equal(table.compute(), expected)  # of each row twice


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_batches_of_any_dtype_are_measured_as_they_are(make, dtype):
    preds, target, _ = _random(dtype=dtype)
    preds[0] = 0.1
    for threshold in (0.1, 0.7):  # rounded to the dtype
        table = make(threshold=threshold)
        table.update(preds[:15], target[:15])
        table.update(preds[15:], target[15:])
        _assert_equal(table.compute(), _expected(preds, target, threshold=threshold))


def test_batches_of_another_dtype_are_refused(make):
    # A threshold is rounded to the dtype of the scores: 0.1 in half precision lies below 0.1.
    half = torch.tensor([[0.1]]).half()
    table = make(threshold=0.1)
    table.update(half, [[1]])
    assert table.compute()["or"] == 1
    with pytest.raises(ValueError, match=r"1 columns of torch\.float16 as in earlier batches, got 1 of torch\.float32"):
        table.update(half.float(), [[1]])
    table.update(half, torch.tensor([[1.0]]))
    assert table.compute()["or"] == 1
    other = make(threshold=0.1)
    other.update(half.float(), [[1]])
    with pytest.raises(ValueError, match=r"1 columns of torch\.float16 as in earlier batches, got 1 of torch\.float32"):
        table.merge_state(other)


def test_merging_another_number_of_labels_is_refused_and_loses_nothing(make):
    table, other = make(), make()
    table.update(PREDS, TARGET)
    other.update(torch.zeros(1, 2), torch.zeros(1, 2))
    with pytest.raises(ValueError, match=r"`preds` must have 3 columns of torch\.float64 .*, got 2 of torch\.float32"):
        table.merge_state(other)
    _assert_equal(table.compute(), _expected(PREDS, TARGET))


def test_names_of_labels_that_would_break_a_table_do_not(make):
    table = make(label_names=[1, "a|b", "c"])
    table.update(PREDS, TARGET)
    lines = table.report(confidence_level=None).label_table().splitlines()
    assert {line.split(" | ")[0].strip("| ") for line in lines[2:]} == {"1", r"a\|b", "c"}


def test_only_batches_without_rows_are_undefined(make):
    table = make()
    table.update(torch.zeros(0, 3), torch.zeros(0, 3))
    assert all(value.isnan() for value in table.compute().values())
    report = table.report(n_resamples=3)
    assert all(np.isnan(report.intervals["map"]))
    assert report.averaged["map"] == (0, 3)
    assert report.averaged["one_error"] == (0, 0)


def test_copies_and_pickles_go_on_from_where_they_were(make, monkeypatch):
    table = make(threshold=0.6, label_names=list("abcde"))
    if type(table) is MultiLabelMetrics:
        monkeypatch.setitem(sys.modules, ALONE, None)
    preds, target, _ = _random()
    table.update(preds[:10], target[:10])
    for other in (copy.deepcopy(table), pickle.loads(pickle.dumps(table))):
        assert type(other) is type(table)
        _assert_equal(other.compute(), table.compute(), rtol=0)
        other.update(preds[10:], target[10:])
        _assert_equal(other.compute(), _expected(preds, target, threshold=0.6))
        assert other.label_names == table.label_names
    _assert_equal(table.compute(), _expected(preds[:10], target[:10], threshold=0.6))


@pytest.mark.parametrize("written", ["beside torchmetrics", "alone"])
def test_pickles_cross_between_places_with_and_without_torchmetrics(written, monkeypatch):
    torchmetrics = pytest.importorskip("torchmetrics")
    with monkeypatch.context() as patch:
        if written == "alone":
            patch.setitem(sys.modules, ALONE, None)
        table = MultiLabelMetrics(threshold=0.6)
        table.update(PREDS, TARGET)
        pickled = pickle.dumps(table)
    if written != "alone":
        monkeypatch.setitem(sys.modules, ALONE, None)
    read = pickle.loads(pickled)
    assert isinstance(read, torchmetrics.Metric) == (written == "alone")
    _assert_equal(read.compute(), _expected(PREDS, TARGET, threshold=0.6))
    read.reset()
    read.update(PREDS[:2], TARGET[:2])
    _assert_equal(read.compute(), _expected(PREDS[:2], TARGET[:2], threshold=0.6))


def test_instance_is_a_torchmetrics_metric_only_where_that_is_installed(make, request):
    table = make()
    assert isinstance(table, MultiLabelMetrics)
    assert type(table).__name__ == "MultiLabelMetrics"
    if "alone" in request.node.name:
        assert type(table) is MultiLabelMetrics
    else:
        assert isinstance(table, pytest.importorskip("torchmetrics").Metric)


def test_no_rows_yet_is_refused(make):
    table = make()
    for method in (table.report, table.per_label):
        with pytest.raises(ValueError, match=r"`MultiLabelMetrics` holds no rows yet: call `update` first"):
            method()
    plain = type(table) is MultiLabelMetrics
    with (
        nullcontext() if plain else pytest.warns(UserWarning, match="was called before the ``update`` method"),
        pytest.raises(ValueError, match=r"`MultiLabelMetrics` holds no rows yet"),
    ):
        table.compute()


def test_each_compute_asks_the_other_processes(make, monkeypatch):
    # One that kept its result while another got rows would let that one wait for ever.
    calls = []
    monkeypatch.setattr("mlmetric.metrics._table.gather_objects", lambda value: calls.append(value) or [value])
    table = make()
    table.update(PREDS, TARGET)
    table.compute()
    table.compute()
    assert len(calls) == 2


def test_another_number_of_labels_is_refused(make):
    table = make()
    table.update(PREDS, TARGET)
    for num_labels in (2, 4):
        with pytest.raises(ValueError, match=rf"`preds` must have 3 columns .*, got {num_labels} of"):
            table.update(torch.zeros(1, num_labels), torch.zeros(1, num_labels))
    with pytest.raises(ValueError, match=r"a column for each of the 2 `label_names`, got 3"):
        make(label_names=["a", "b"]).update(PREDS, TARGET)


def test_a_call_refuses_another_number_of_labels_too(make):
    table = make()
    table.update(PREDS, TARGET)
    with pytest.raises(ValueError, match=r"`preds` must have 3 columns .*, got 2 of"):
        table(torch.zeros(1, 2), torch.zeros(1, 2))
    _assert_equal(table.compute(), _expected(PREDS, TARGET))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": [0.1, 0.2]}, r"`threshold` must be a number or one a label, shape \(3,\), got shape \(2,\)"),
        ({"top_k": 4}, r"`top_k` must be from 1 to 3, the number of labels, or None, got 4"),
    ],
)
def test_option_that_does_not_fit_the_labels_is_refused(make, options, message):
    table = make(**options)
    table.update(PREDS, TARGET)
    with pytest.raises(ValueError, match=message):
        table.compute()


def test_unknown_policy_is_refused(make):
    with pytest.raises(ValueError, match=r"`zero_division` must be 0.0, 1.0 or nan, got 'skip'"):
        make(zero_division="skip")


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        ((PREDS, TARGET * 0.5), ValueError, r"`target` must be hard multi-hot, 0 or 1, got 0\.5 at row 0, label 0"),
        ((PREDS, TARGET[:2]), ValueError, r"the same shape \(N, L\), got \(3, 3\) and \(2, 3\)"),
        ((PREDS, TARGET, TARGET[:2]), ValueError, r"`mask` must have the shape of `preds`"),
        ((PREDS * 1j, TARGET), TypeError, r"`preds` must hold real numbers"),
    ],
)
def test_bad_batch_is_refused(make, batch, error, message):
    with pytest.raises(error, match=message):
        make().update(*batch)


def test_collection_of_torchmetrics_takes_it_in():
    torchmetrics = pytest.importorskip("torchmetrics")
    preds, target, _ = _random()
    theirs = torchmetrics.classification.MultilabelF1Score(5)
    collection = torchmetrics.MetricCollection({"table": MultiLabelMetrics(), "theirs": theirs})
    collection.update(preds[:20], target[:20].long())
    batch = collection(preds[20:], target[20:].long())
    named = collection.clone(prefix="val_")
    for values, rows in [(batch, slice(20, None)), (collection.compute(), slice(None))]:
        assert values.pop("theirs").item() == pytest.approx(metrics.f1(preds[rows], target[rows]).item(), abs=1e-6)
        _assert_equal(values, _expected(preds[rows], target[rows]))
    collection.reset()
    collection.update(preds[:5], target[:5].long())
    values = collection.compute()
    del values["theirs"]
    _assert_equal(values, _expected(preds[:5], target[:5]))
    values = named.compute()  # of its own rows
    del values["val_theirs"]
    _assert_equal(values, {f"val_{key}": value for key, value in _expected(preds, target).items()})


def test_two_tables_in_a_collection_keep_their_own_options():
    torchmetrics = pytest.importorskip("torchmetrics")
    preds, target, _ = _random()
    tables = {"low": MultiLabelMetrics(threshold=0.3), "high": MultiLabelMetrics(threshold=0.7)}
    collection = torchmetrics.MetricCollection(tables)
    for part in (slice(20), slice(20, None)):
        collection.update(preds[part], target[part])
    expected = {
        f"{name}_{key}": value
        for name, threshold in (("low", 0.3), ("high", 0.7))
        for key, value in _expected(preds, target, threshold=threshold).items()
    }
    _assert_equal(collection.compute(), expected)


def test_values_equal_those_of_torchmetrics_without_ties():
    classification = pytest.importorskip("torchmetrics.classification")
    preds, target, _ = _random(200, 6)
    assert preds.unique().numel() == preds.numel()
    target[0], target[1] = False, True
    table = MultiLabelMetrics()
    table.update(preds, target)
    values = table.compute()
    zero, one = (_expected(preds, target, zero_division=zero_division) for zero_division in (0, 1))
    for expected, theirs in [
        (values["macro_f1"], classification.MultilabelF1Score(6)),
        (values["of1"], classification.MultilabelF1Score(6, average="micro")),
        (values["weighted_f1"], classification.MultilabelF1Score(6, average="weighted")),
        (values["map"], classification.MultilabelAveragePrecision(6)),
        (values["micro_ap"], classification.MultilabelAveragePrecision(6, average="micro")),
        # Their rows without labels, or with all of them, count.
        (zero["ranking_loss"], classification.MultilabelRankingLoss(6)),
        (zero["coverage_error"], classification.MultilabelCoverageError(6)),
        (one["lrap"], classification.MultilabelRankingAveragePrecision(6)),
    ]:
        assert theirs(preds, target.long()).item() == pytest.approx(expected.item(), rel=1e-5)


def test_large_logits_become_ties_in_torchmetrics_and_not_here():
    classification = pytest.importorskip("torchmetrics.classification")
    logits, target = torch.tensor([[20.0, 30.0], [25.0, 20.0], [30.0, 25.0]]), torch.tensor([[0, 1], [0, 0], [1, 0]])
    table = MultiLabelMetrics(threshold=0.0)
    table.update(logits, target)
    # Each label's positive scores highest. A float32 sigmoid rounds all of them to 1.
    assert table.compute()["map"] == 1
    assert classification.MultilabelAveragePrecision(2)(logits, target).item() == pytest.approx(1 / 3)


def test_logits_are_guessed_by_batch_in_torchmetrics_and_never_here():
    classification = pytest.importorskip("torchmetrics.classification")
    # The logits of the first batch lie in [0, 1].
    logits = torch.tensor([[0.2, 0.9], [0.3, 0.1], [-1.0, 2.0], [3.0, -4.0]])
    target = torch.tensor([[1, 1], [1, 1], [0, 1], [1, 0]])
    found = {}
    for size in (2, 4):
        table, theirs = MultiLabelMetrics(threshold=0.0), classification.MultilabelF1Score(2)
        for start in range(0, 4, size):
            table.update(logits[start : start + size], target[start : start + size])
            theirs.update(logits[start : start + size], target[start : start + size])
        assert table.compute()["macro_f1"] == 1
        found[size] = theirs.compute().item()
    # In two batches they miss 0.2, 0.3 and 0.1: F1 2/4 and 4/5.
    assert found == pytest.approx({2: (1 / 2 + 4 / 5) / 2, 4: 1})


def test_column_that_is_ignored_breaks_torchmetrics_and_is_left_out_here():
    classification = pytest.importorskip("torchmetrics.classification")
    preds, target = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]]), torch.tensor([[1, -1], [0, -1], [1, -1]])
    table = MultiLabelMetrics()
    table.update(preds, target, target >= 0)
    assert table.compute()["map"].item() == pytest.approx((1 + 2 / 3) / 2)
    theirs = classification.MultilabelAveragePrecision(2, ignore_index=-1)
    theirs.update(preds, target)
    with pytest.raises(IndexError, match="out of bounds"):
        theirs.compute()
    # Bins of thresholds do not fail, and count the column as 0 in the mean.
    binned = classification.MultilabelAveragePrecision(2, ignore_index=-1, thresholds=1001)
    assert binned(preds, target).item() == pytest.approx((1 + 2 / 3) / 2 / 2)


def test_order_of_tied_labels_changes_the_ranking_loss_of_torchmetrics_and_not_ours():
    classification = pytest.importorskip("torchmetrics.classification")
    preds, found = torch.tensor([[0.5, 0.5, 0.1]]), []
    for target in ([[1, 0, 0]], [[0, 1, 0]]):
        table = MultiLabelMetrics()
        table.update(preds, target)
        assert table.compute()["ranking_loss"] == 1 / 2
        found.append(classification.MultilabelRankingLoss(3)(preds, torch.tensor(target)).item())
    assert found == [1 / 2, 0]


def test_label_without_positives_counts_as_0_in_scikit_learn_and_is_left_out_here():
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
    # As their code has it: right, predicted and true entries of each label; no prediction is precision 0.
    right, predicted, true = np.array([1, 1, 0]), np.array([3, 1, 0]), np.array([1, 3, 1])
    cp, cr = (right / np.maximum(predicted, 1)).mean(), (right / true).mean()
    expected = {"op": 2 / 4, "or": 2 / 5, "of1": 4 / 9, "cp": cp, "cr": cr, "cf1": 2 * cp * cr / (cp + cr)}
    assert {key: values[key].item() for key in expected} == pytest.approx(expected)
    assert values["cf1"].item() == pytest.approx(4 / 9)
    assert values["macro_f1"].item() == pytest.approx((1 / 2 + 1 / 2 + 0) / 3)


@pytest.mark.parametrize("kept_on", [None, "cpu"])
def test_rows_lie_where_they_come_from_or_where_told(make, kept_on, device):
    preds, target, mask = _random()
    table = make(device=kept_on, threshold=torch.full((5,), 0.4))
    table.update(preds.to(device), target.to(device), mask)
    table.update(preds.to(device), target)
    values = table.compute()
    assert all(value.device == torch.device(kept_on or device) for value in values.values())
    mask = torch.cat([mask, torch.ones_like(mask)])
    _assert_equal(values, _expected(preds.repeat(2, 1), target.repeat(2, 1), mask, threshold=0.4))
    report = table.report(n_resamples=20)
    expected = metrics.confidence_interval(
        partial(metrics.mean_average_precision, mask=mask), preds.repeat(2, 1), target.repeat(2, 1), n_resamples=20
    )
    np.testing.assert_allclose(report.intervals["map"], expected[1:], rtol=1e-12)
