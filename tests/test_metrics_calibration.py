"""Calibration error, Brier score, log loss and reliability curves against loops, scikit-learn and torchmetrics."""

import math

import numpy as np
import pytest
import sklearn.metrics as sk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.calibration import calibration_curve

from mlmetric.metrics import (
    _probabilities,
    brier_score,
    calibration_error,
    confidence_interval,
    log_loss,
    reliability_curve,
)

ALL = [brier_score, calibration_error, log_loss]
each_metric = pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.__name__)


@st.composite
def cases(draw):
    """Draw probabilities with ties and edges of bins, labels, a mask or None, and weights or None."""
    shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 4)))
    levels = st.sampled_from([0.0, 0.1, 0.2, 0.25, 0.4, 0.5, 0.7, 0.9, 1.0])
    mask = draw(st.none() | hnp.arrays(np.bool_, shape))
    weight = draw(st.none() | hnp.arrays(np.float64, shape[0], elements=st.sampled_from([0.0, 1.0, 2.0])))
    return draw(hnp.arrays(np.float64, shape, elements=levels)), draw(hnp.arrays(np.bool_, shape)), mask, weight


def columns_of(preds, target, mask, weight, average):
    """Return for each label, or for all in common, the included probabilities, labels and weights."""
    mask = np.ones_like(target) if mask is None else mask
    weight = np.ones(len(preds)) if weight is None else weight
    weight = np.broadcast_to(weight[:, None], preds.shape)
    if average == "micro":
        return [(preds[mask], target[mask], weight[mask])]
    return [(preds[mask[:, c], c], target[mask[:, c], c], weight[mask[:, c], c]) for c in range(preds.shape[1])]


def averaged(values, supports, average):
    defined = [not math.isnan(value) for value in values]
    if average == "none":
        return values
    if average == "weighted":
        supports = [support if keep else 0 for support, keep in zip(supports, defined, strict=True)]
        total = sum(supports)
        return sum(s * v for s, v in zip(supports, values, strict=True) if s) / total if total else math.nan
    kept = [value for value in values if not math.isnan(value)]
    return sum(kept) / len(kept) if kept else math.nan


def error_by_loops(preds, target, weight, norm, n_bins, binning):
    total, bins = weight.sum(), {}
    for p, y, w in zip(preds, target, weight, strict=True):
        if not w:
            continue
        if binning == "width":  # the first bin whose upper edge is not below p
            index = next(b for b in range(n_bins) if b == n_bins - 1 or p <= np.linspace(0, 1, n_bins + 1)[b + 1])
        else:
            index = math.floor(n_bins * weight[preds < p].sum() / total)
        bins.setdefault(index, []).append((p, y, w))
    gaps = {b: abs(sum(w * (p - y) for p, y, w in rows)) for b, rows in bins.items()}
    if not bins:
        return math.nan
    if norm == "expected":
        return sum(gaps.values()) / total
    return max(gaps[b] / sum(w for *_, w in rows) for b, rows in bins.items())


@pytest.mark.parametrize("average", ["none", "macro", "weighted", "micro"])
@pytest.mark.parametrize("binning", ["width", "mass"])
@pytest.mark.parametrize("norm", ["expected", "maximum"])
@settings(max_examples=25, deadline=None)
@given(case=cases(), n_bins=st.sampled_from([1, 2, 5, 10]))
def test_calibration_error_equals_loops(norm, binning, average, case, n_bins):
    preds, target, mask, weight = case
    columns = columns_of(*case, average)
    values = [error_by_loops(*column, norm, n_bins, binning) for column in columns]
    expected = averaged(values, [(y * w).sum() for _, y, w in columns], average)
    actual = calibration_error(
        preds, target, norm=norm, n_bins=n_bins, binning=binning, average=average, mask=mask, sample_weight=weight
    )
    assert actual.dtype == torch.float64
    np.testing.assert_allclose(actual, expected, atol=1e-12)


@pytest.mark.parametrize("average", ["none", "macro", "weighted", "micro"])
@pytest.mark.parametrize(("metric", "peer"), [(brier_score, sk.brier_score_loss), (log_loss, sk.log_loss)])
@settings(max_examples=25, deadline=None)
@given(case=cases())
def test_scores_equal_scikit_learn_on_the_included_entries(metric, peer, average, case):
    preds, target, mask, weight = case
    columns = columns_of(*case, average)
    options = {"labels": [False, True]}
    values = [peer(y, p, sample_weight=w, **options) if w.sum() else math.nan for p, y, w in columns]
    expected = averaged(values, [(y * w).sum() for _, y, w in columns], average)
    actual = metric(preds, target, average=average, mask=mask, sample_weight=weight)
    assert actual.dtype == torch.float64
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log_loss_clips_at_the_eps_of_the_dtype_as_scikit_learn(dtype):
    preds, target = np.array([[0.0], [1.0]], dtype=dtype), np.array([[1], [1]])
    expected = sk.log_loss(target[:, 0], preds[:, 0], labels=[0, 1])
    assert float(log_loss(preds, target)) == pytest.approx(expected, rel=1e-6)
    assert expected == pytest.approx(-np.log(np.finfo(dtype).eps) / 2, rel=1e-4)


def random_case(num_rows=200, num_labels=3, seed=0):
    rng = np.random.default_rng(seed)
    preds = rng.random((num_rows, num_labels)) ** 2
    return preds, rng.random(preds.shape) < preds ** [0.5, 1, 2]


@pytest.mark.parametrize(("binning", "strategy"), [("width", "uniform"), ("mass", "quantile")])
def test_curve_equals_scikit_learn(binning, strategy):
    preds, target = random_case()
    curve = reliability_curve(preds, target, n_bins=8, binning=binning)
    columns = [(preds.ravel(), target.ravel()), *zip(preds.T, target.T, strict=True)]
    for row, (scores, truth) in enumerate(columns):
        rate, mean = calibration_curve(truth, scores, n_bins=8, strategy=strategy)
        filled = curve.counts[row] > 0
        np.testing.assert_allclose(curve.positive_rate[row][filled], rate)
        np.testing.assert_allclose(curve.mean_predicted[row][filled], mean)
        assert curve.counts[row].sum() == len(scores)


@pytest.mark.parametrize(("norm", "peer_norm"), [("expected", "l1"), ("maximum", "max")])
def test_calibration_error_equals_torchmetrics(norm, peer_norm):
    functional = pytest.importorskip("torchmetrics.functional.classification")
    preds, target = map(torch.from_numpy, random_case())
    expected = [
        functional.binary_calibration_error(preds[:, c].contiguous(), target[:, c].int(), n_bins=10, norm=peer_norm)
        for c in range(preds.shape[1])
    ]
    actual = calibration_error(preds, target, norm=norm, n_bins=10, average="none")
    np.testing.assert_allclose(actual, torch.stack(expected), rtol=1e-5)


def test_bins_of_equal_mass_have_equal_counts_and_keep_ties_together():
    preds = np.arange(100)[:, None] / 100
    assert reliability_curve(preds, preds > 0.5, n_bins=5, binning="mass").counts.tolist() == [[20.0] * 5] * 2
    tied = np.where(preds < 0.5, 0.0, preds)
    assert reliability_curve(tied, preds > 0.5, n_bins=4, binning="mass").counts[1].tolist() == [50, 0, 25, 25]


@each_metric
def test_weights_equal_repeated_rows(metric):
    preds, target = random_case(40)
    weight = np.random.default_rng(1).integers(0, 3, 40)
    options = {"binning": "mass"} if metric is calibration_error else {}
    for average in ("macro", "micro", "weighted"):
        expected = metric(preds.repeat(weight, axis=0), target.repeat(weight, axis=0), average=average, **options)
        actual = metric(preds, target, average=average, sample_weight=weight, **options)
        torch.testing.assert_close(actual, expected)


@each_metric
def test_result_does_not_depend_on_the_number_of_labels_processed_at_once(metric, monkeypatch):
    preds, target = random_case()
    expected = metric(preds, target, average="none")
    monkeypatch.setattr(_probabilities, "_CHUNK_SIZE", 400)
    torch.testing.assert_close(metric(preds, target, average="none"), expected, rtol=0, atol=1e-15)


@each_metric
def test_bootstrap_interval_contains_the_value(metric):
    preds, target = random_case()
    generator = torch.Generator().manual_seed(0)
    value, low, high = confidence_interval(metric, preds, target, n_resamples=100, generator=generator)
    assert value == metric(preds, target)
    assert low < high
    if metric is not calibration_error:  # whose resamples are biased upwards
        assert low < value < high


@pytest.mark.parametrize("metric", [brier_score, log_loss])
def test_resamples_weighted_at_once_equal_resamples_one_by_one(metric):
    preds, target = random_case(30)
    together, one_by_one = (
        confidence_interval(function, preds, target, n_resamples=20, generator=torch.Generator().manual_seed(0))
        for function in (metric, lambda *rows: metric(*rows))
    )
    for ours, theirs in zip(together, one_by_one, strict=True):
        torch.testing.assert_close(ours, theirs)


@each_metric
def test_label_without_entries_is_undefined(metric):
    preds, target = random_case(20)
    mask = np.ones_like(target)
    mask[:, 1] = False
    preds[:, 1] = np.nan
    values = metric(preds, target, mask=mask, average="none")
    assert values.isnan().tolist() == [False, True, False]
    assert metric(preds, target, mask=mask) == values[[0, 2]].mean()
    assert metric(preds, target, mask=mask, average="none", zero_division=1)[1] == 1
    assert metric(preds[:0], target[:0], average="none").isnan().all()
    assert metric(preds[:, :0], target[:, :0], average="none").shape == (0,)


@each_metric
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"preds": [[0.5, 1.5]]}, r"`preds` must contain probabilities, in \[0, 1\], got 1.5 at row 0, label 1"),
        ({"preds": [[-0.25, 0.5]]}, r"got -0.25 at row 0, label 0\. Convert logits"),
        ({"average": "samples"}, "`average` must be one of 'macro', 'micro', 'weighted', 'none', got 'samples'"),
        ({"target": [[0.5, 1]]}, "`target` must contain only 0 and 1"),
        ({"zero_division": 2}, "`zero_division` must be"),
    ],
)
def test_errors(metric, change, message):
    with pytest.raises(ValueError, match=message):
        metric(**{"preds": [[0.5, 0.5]], "target": [[0, 1]]} | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm": "l2"}, "`norm` must be one of 'expected', 'maximum', got 'l2'"),
        ({"binning": "quantile"}, "`binning` must be one of 'width', 'mass', got 'quantile'"),
        ({"n_bins": 0}, "`n_bins` must be at least 1, got 0"),
    ],
)
def test_errors_of_the_calibration_error(change, message):
    with pytest.raises(ValueError, match=message):
        calibration_error([[0.5]], [[1]], **change)


def test_plot_shows_the_chosen_labels_and_their_counts():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    preds, target = random_case()
    curve = reliability_curve(preds, target, n_bins=5, label_names=["calm", "sad", "eager"])
    assert repr(curve) == "ReliabilityCurve(num_labels=3, n_bins=5)"
    axes = curve.plot(["sad", 2])
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["calibrated", *(f"{n} entries)" for n in ("all labels (600", "sad (200", "eager (200"))]
    points = axes.lines[2].get_xydata()
    np.testing.assert_allclose(points, np.column_stack([curve.mean_predicted[2], curve.positive_rate[2]]))
    heights = [bar.get_height() for bar in axes.figure.axes[1].patches]
    np.testing.assert_array_equal(heights, curve.counts[[0, 2, 3]].ravel())
    assert len(curve.plot(["calm"], pooled=False, axes=axes).lines) == 6
    matplotlib.pyplot.close(axes.figure)


def test_plot_without_a_known_label_is_an_error():
    curve = reliability_curve(*random_case(), label_names=["calm", "sad", "eager"])
    for labels, message in ((["happy"], "`labels` must be in `label_names`, got 'happy'"), ([3], "from 0 to 2, got 3")):
        with pytest.raises(ValueError, match=message):
            curve.plot(labels)
    with pytest.raises(ValueError, match="at least one label with `pooled=False`"):
        curve.plot(pooled=False)
    with pytest.raises(ValueError, match="must name the 3 columns of `preds`, got 1 names"):
        reliability_curve(*random_case(), label_names=["calm"])
