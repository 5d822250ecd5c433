"""MultiLabelMetrics within torchmetrics, and compared with its metrics."""

import copy
import pickle
import subprocess
import sys

import pytest
import torch

from mlmetric import metrics
from mlmetric.metrics import MultiLabelMetrics, RetrievalMetrics

torchmetrics = pytest.importorskip("torchmetrics")
classification = torchmetrics.classification


def _random(num_rows=40, num_labels=5):
    generator = torch.Generator().manual_seed(0)
    preds, target = torch.rand(2, num_rows, num_labels, generator=generator)
    return preds, target < 0.4


def _values(preds, target, **options):
    table = MultiLabelMetrics(**options)
    table.update(preds, target)
    return table.compute()


@pytest.mark.parametrize("kind", [MultiLabelMetrics, RetrievalMetrics])
def test_instance_is_a_torchmetrics_metric_and_of_its_own_class(kind):
    table = kind()
    assert type(table) is kind
    assert isinstance(table, torchmetrics.Metric)
    assert issubclass(kind, torchmetrics.Metric)
    assert not isinstance(torch.nn.Linear(1, 1), torchmetrics.Metric)
    assert kind.__mro__[2] is torch.nn.Module


def test_metric_collection_updates_computes_clones_and_resets():
    preds, target = _random()
    theirs = classification.MultilabelF1Score(5)
    collection = torchmetrics.MetricCollection({"table": MultiLabelMetrics(), "theirs": theirs})
    collection.update(preds[:20], target[:20].long())
    batch = collection(preds[20:], target[20:].long())
    clone = collection.clone(prefix="val_")
    for values, rows in [(batch, slice(20, None)), (collection.compute(), slice(None))]:
        assert values.pop("theirs").item() == pytest.approx(metrics.f1(preds[rows], target[rows]).item(), abs=1e-6)
        torch.testing.assert_close(values, _values(preds[rows], target[rows]))
    collection.reset()
    collection.update(preds[:5], target[:5].long())
    values = collection.compute()
    del values["theirs"]
    torch.testing.assert_close(values, _values(preds[:5], target[:5]))
    values = clone.compute()  # of its own rows
    del values["val_theirs"]
    torch.testing.assert_close(values, {f"val_{key}": value for key, value in _values(preds, target).items()})


def test_metric_collection_filters_keyword_arguments_and_has_no_state():
    preds, target = _random()
    collection = torchmetrics.MetricCollection([MultiLabelMetrics()], postfix="_all")
    collection.update(preds=preds, target=target, unrelated=1)
    expected = {f"{key}_all": value for key, value in _values(preds, target).items()}
    torch.testing.assert_close(collection.compute(), expected)
    assert collection.state_dict() == {}
    assert collection.metric_state == {"MultiLabelMetrics_all": {}}
    collection.persistent(True)
    collection.set_dtype(torch.float64)
    collection.load_state_dict(collection.state_dict())
    torch.testing.assert_close(collection.to("cpu").double().compute(), expected)
    assert "MultiLabelMetrics(threshold=0.5" in repr(collection)


def test_two_metrics_in_a_metric_collection_keep_their_options():
    preds, target = _random()
    tables = {"low": MultiLabelMetrics(threshold=0.3), "high": MultiLabelMetrics(threshold=0.7)}
    collection = torchmetrics.MetricCollection(tables)
    for part in (slice(20), slice(20, None)):
        collection.update(preds[part], target[part])
    expected = {
        f"{name}_{key}": value
        for name, threshold in (("low", 0.3), ("high", 0.7))
        for key, value in _values(preds, target, threshold=threshold).items()
    }
    torch.testing.assert_close(collection.compute(), expected)
    assert collection.compute_groups == {0: ["high"], 1: ["low"]}


def test_nested_metric_collection_and_tracker():
    preds, target = _random()
    inner = torchmetrics.MetricCollection([MultiLabelMetrics()], prefix="inner_")
    tracker = torchmetrics.MetricTracker(torchmetrics.MetricCollection([inner]), maximize=True)
    for part in (slice(20), slice(20, None)):
        tracker.increment()
        tracker.update(preds[part], target[part])
    expected = {f"inner_{key}": value for key, value in _values(preds[20:], target[20:]).items()}
    torch.testing.assert_close(tracker.compute(), expected)
    single = torchmetrics.MetricTracker(MultiLabelMetrics(), maximize=True)
    single.increment()
    single.update(preds, target)
    torch.testing.assert_close(single.compute(), _values(preds, target))


def test_other_wrappers_arithmetic_and_indexing_are_not_supported():
    with pytest.raises(AttributeError, match="_persistent"):
        torchmetrics.ClasswiseWrapper(MultiLabelMetrics())
    with pytest.raises(TypeError):
        MultiLabelMetrics() + 1
    with pytest.raises(TypeError):
        MultiLabelMetrics()["map"]


def test_update_count_follows_update_forward_reset_and_merge_state():
    preds, target = _random()
    table, other = MultiLabelMetrics(), MultiLabelMetrics()
    assert not table.update_called
    table.update(preds, target)
    table(preds, target)
    other.update(preds, target)
    table.merge_state(other)
    assert table.update_called
    assert table.update_count == 3
    assert copy.deepcopy(table).update_count == table.clone().update_count == 3
    table.reset()
    assert table.update_count == 0


WITHOUT_TORCHMETRICS = """
import pickle, sys
sys.modules["torchmetrics"] = None
from mlmetric.metrics import MultiLabelMetrics
if len(sys.argv) > 1:
    table = pickle.load(open(sys.argv[1], "rb"))
else:
    import torch
    table = MultiLabelMetrics(threshold=0.6)
    table.update(torch.tensor([[0.9, 0.1], [0.8, 0.7]]), torch.tensor([[1, 0], [0, 1]]))
assert type(table) is MultiLabelMetrics
sys.stdout.buffer.write(pickle.dumps((table, table.compute())))
"""


def _run_without_torchmetrics(*arguments):
    run = subprocess.run([sys.executable, "-c", WITHOUT_TORCHMETRICS, *arguments], capture_output=True, check=True)
    return pickle.loads(run.stdout)


@pytest.mark.slow
def test_pickles_are_exchanged_with_environments_without_torchmetrics(tmp_path):
    table, values = _run_without_torchmetrics()
    assert isinstance(table, torchmetrics.Metric)
    assert table.compute() == values
    torchmetrics.MetricCollection([table]).reset()
    table.update(*_random())
    (tmp_path / "table.pickle").write_bytes(pickle.dumps(table))
    _, found = _run_without_torchmetrics(str(tmp_path / "table.pickle"))
    assert found == _values(*_random(), threshold=0.6)


@pytest.mark.slow
def test_import_and_unpickling_register_the_class_only_when_needed():
    script = (
        "import sys, pickle, mlmetric.metrics as m; assert 'torchmetrics' not in sys.modules; "
        f"table = pickle.loads({pickle.dumps(MultiLabelMetrics())!r}); "
        "import torchmetrics; assert isinstance(table, torchmetrics.Metric)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_values_equal_those_of_torchmetrics_without_ties():
    preds, target = _random(200, 6)
    assert preds.unique().numel() == preds.numel()
    target[0], target[1] = False, True
    table = MultiLabelMetrics()
    table.update(preds, target)
    values = table.compute()
    zero, one = (_values(preds, target, zero_division=zero_division) for zero_division in (0, 1))
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


def test_large_logits_are_tied_in_torchmetrics_only():
    logits, target = torch.tensor([[20.0, 30.0], [25.0, 20.0], [30.0, 25.0]]), torch.tensor([[0, 1], [0, 0], [1, 0]])
    table = MultiLabelMetrics(threshold=0.0)
    table.update(logits, target)
    # Each label's positive scores highest. A float32 sigmoid rounds all of them to 1.
    assert table.compute()["map"] == 1
    assert classification.MultilabelAveragePrecision(2)(logits, target).item() == pytest.approx(1 / 3)


def test_logits_are_inferred_from_each_batch_in_torchmetrics_only():
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


def test_ignored_column_raises_in_torchmetrics_and_is_excluded_here():
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


def test_order_of_tied_labels_changes_the_ranking_loss_in_torchmetrics_only():
    preds, found = torch.tensor([[0.5, 0.5, 0.1]]), []
    for target in ([[1, 0, 0]], [[0, 1, 0]]):
        table = MultiLabelMetrics()
        table.update(preds, target)
        assert table.compute()["ranking_loss"] == 1 / 2
        found.append(classification.MultilabelRankingLoss(3)(preds, torch.tensor(target)).item())
    assert found == [1 / 2, 0]
