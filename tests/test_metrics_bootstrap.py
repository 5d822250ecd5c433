"""Bootstrap intervals against percentiles of the metric computed for each resample."""

import warnings
from functools import partial

import numpy as np
import pytest
import sklearn.metrics as sk
import torch
from scipy.stats import norm

from mlmetric import metrics
from mlmetric.metrics import confidence_interval
from mlmetric.metrics._bootstrap import draw_weights
from mlmetric.metrics._inputs import ResampleWeights

METRICS = {
    "f1": metrics.f1,
    "f1 of labels": partial(metrics.f1, average="none", zero_division=0),
    "weighted f1 of top 2": partial(metrics.f1, average="weighted", top_k=2, threshold=None),
    "recall with thresholds": partial(metrics.recall, threshold=[0.3, 0.5, 0.7]),
    "cf1": metrics.cf1,
    "of1": metrics.of1,
    "hamming_loss": metrics.hamming_loss,
    "subset_accuracy": metrics.subset_accuracy,
    "example_f1": metrics.example_f1,
    "average_precision": metrics.average_precision,
    "mean_average_precision": metrics.mean_average_precision,
    "micro mean_average_precision": partial(metrics.mean_average_precision, average="micro"),
    "coverage_error": metrics.coverage_error,
    "lrap": partial(metrics.label_ranking_average_precision, zero_division=1),
    "ranking_loss": partial(metrics.ranking_loss, ties="half"),
    "one_error": metrics.one_error,
}


def _rows(num_rows=15, dtype=torch.float32):
    """Return scores with ties, and true labels of which the last is rare."""
    generator = torch.Generator().manual_seed(0)
    preds = (10 * torch.rand(num_rows, 3, generator=generator)).round() / 10
    target = torch.rand(num_rows, 3, generator=generator) < torch.tensor([0.6, 0.3, 0.0])
    target[-1, 2] = True
    return preds.to(dtype), target


def _resamples(num_rows, n_resamples, seed=0):
    """Return the row indices of each resample."""
    weights = torch.cat(list(draw_weights(num_rows, n_resamples, torch.Generator().manual_seed(seed))))
    return [torch.arange(num_rows).repeat_interleave(row.long()) for row in weights]


def _interval(metric, *rows, **options):
    """Call `confidence_interval` with the resamples of `_resamples`."""
    return confidence_interval(metric, *rows, generator=torch.Generator().manual_seed(0), **options)


def _bounds(values, value, confidence_level):
    """Return bias-corrected percentiles, separately for each number of `value`."""
    columns = np.stack(values).reshape(len(values), -1).T
    bounds = []
    for column, center in zip(columns, np.ravel(value), strict=True):
        known = column[~np.isnan(column)]
        if not len(known) or np.isnan(center):
            bounds.append([np.nan, np.nan])
            continue
        ties = np.isclose(known, center, rtol=1e-12, atol=0)
        share = (np.sum(known[~ties] < center) + np.sum(ties) / 2) / len(known)
        share = np.clip(share, 0.5 / len(known), 1 - 0.5 / len(known))
        ends = norm.ppf([(1 - confidence_level) / 2, (1 + confidence_level) / 2])
        bounds.append(np.quantile(known, norm.cdf(2 * norm.ppf(share) + ends)))
    return np.array(bounds).T.reshape(2, *np.shape(value))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", METRICS)
def test_bounds_equal_percentiles_of_the_metric_on_each_resample(name, dtype):
    metric, (preds, target) = METRICS[name], _rows(dtype=dtype)
    found = _interval(metric, preds, target, confidence_level=0.8, n_resamples=60)
    values = [metric(preds[indices], target[indices]).numpy() for indices in _resamples(15, 60)]
    expected = metric(preds, target)
    assert all(part.dtype == torch.float64 and part.shape == expected.shape for part in found)
    np.testing.assert_allclose(found.value, expected, rtol=1e-12)
    np.testing.assert_allclose([found.low, found.high], _bounds(values, expected, 0.8), rtol=1e-12)
    assert (found.low < found.high).any()


def test_mask_is_resampled_with_its_rows():
    preds, target = _rows()
    mask = torch.rand(15, 3, generator=torch.Generator().manual_seed(1)) < 0.7
    for metric in (metrics.f1, metrics.mean_average_precision, metrics.coverage_error):
        found = _interval(partial(metric, mask=mask), preds, target, n_resamples=60)
        values = [metric(preds[indices], target[indices], mask=mask[indices]).numpy() for indices in _resamples(15, 60)]
        np.testing.assert_allclose([found.low, found.high], _bounds(values, found.value, 0.95), rtol=1e-12)


def test_sample_weight_is_multiplied_with_the_resample_weights():
    preds, target = _rows()
    weight = torch.rand(15, generator=torch.Generator().manual_seed(1), dtype=torch.float64) ** 3
    found = _interval(partial(metrics.of1, sample_weight=weight), preds, target, n_resamples=60)
    values = [metrics.of1(preds[d], target[d], sample_weight=weight[d]).numpy() for d in _resamples(15, 60)]
    np.testing.assert_allclose([found.low, found.high], _bounds(values, found.value, 0.95), rtol=1e-12)


def test_interpolation_without_support_for_weights_is_computed_for_each_resample():
    preds, target = _rows()
    metric = partial(metrics.mean_average_precision, interpolation="voc2007")
    found = _interval(metric, preds, target, n_resamples=40)
    values = [metric(preds[indices], target[indices]).numpy() for indices in _resamples(15, 40)]
    np.testing.assert_allclose([found.low, found.high], _bounds(values, found.value, 0.95), rtol=1e-12)


def test_weights_of_another_shape_and_missing_rows_are_rejected():
    with pytest.raises(ValueError, match=r"`sample_weight` must have shape \(15,\), .* got \(2, 15\)"):
        _interval(partial(metrics.f1, sample_weight=torch.ones(2, 15)), *_rows())
    with pytest.raises(ValueError, match=r"`rows` must be the positional arguments of `metric`, .* got none"):
        _interval(metrics.f1)


def test_rows_may_be_arrays_and_lists():
    preds, target = _rows()
    expected = _interval(metrics.f1, preds, target, n_resamples=20)
    assert _interval(metrics.f1, preds.numpy(), target.tolist(), n_resamples=20) == expected


@pytest.mark.parametrize(
    "metric",
    [
        lambda preds, target: ((preds >= 0.5) == target).double().mean(),
        lambda preds, target: float(((preds >= 0.5) == target).double().mean()),
        lambda preds, target: metrics.pooled_accuracy(preds, target),
        lambda preds, target: sk.accuracy_score(target.numpy().ravel(), preds.numpy().ravel() >= 0.5),
    ],
)
def test_any_function_of_rows_gets_the_same_resamples(metric):
    preds, target = _rows()
    found = _interval(metric, preds, target, n_resamples=60)
    expected = _interval(metrics.pooled_accuracy, preds, target, n_resamples=60)
    torch.testing.assert_close(tuple(found), tuple(expected), rtol=1e-12, atol=0)
    assert all(part.dtype == torch.float64 for part in found)


def test_f1_score_of_scikit_learn_has_the_same_bounds():
    preds, target = _rows()

    def f1_score(preds, target):
        return sk.f1_score(target, preds >= 0.5, average="macro", zero_division=0)

    found = _interval(f1_score, preds, target, n_resamples=60)
    expected = _interval(partial(metrics.f1, zero_division=0), preds, target, n_resamples=60)
    torch.testing.assert_close(tuple(found), tuple(expected), rtol=1e-12, atol=0)


def test_function_of_rows_may_take_any_number_of_arguments_and_return_any_shape():
    values = torch.arange(12.0).reshape(6, 2).requires_grad_()
    found = _interval(lambda rows: rows.mean(dim=0), values, n_resamples=30)
    means = [values.detach()[indices].double().mean(dim=0).numpy() for indices in _resamples(6, 30)]
    expected = _bounds(means, [5, 6], 0.95)
    np.testing.assert_allclose(torch.stack(found[1:]), expected, rtol=1e-6)
    assert found.value.tolist() == [5, 6]
    assert not any(part.requires_grad for part in found)
    three = _interval(lambda a, b, c: (a + b - c).sum(), *[torch.arange(4)] * 3, n_resamples=5)
    assert three.value == 6


def test_resamples_are_drawn_from_the_generator_or_the_global_one():
    preds, target = _rows()
    find = partial(confidence_interval, metrics.of1, preds, target, n_resamples=30)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        first, second = find(), find()
        torch.manual_seed(5)
        assert find() == first != second
        assert find(generator=torch.Generator().manual_seed(5)) == first
        state = torch.get_rng_state()
        generator = torch.Generator().manual_seed(1)
        first, second = find(generator=generator), find(generator=generator)
        assert first != second
        assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("chunk", [1, 40, 2**24])
def test_each_resample_has_the_number_of_rows_for_any_chunk_size(chunk, monkeypatch):
    monkeypatch.setattr("mlmetric.metrics._bootstrap.CHUNK_SIZE", chunk)
    parts = list(draw_weights(10, 7, torch.Generator().manual_seed(3)))
    assert [len(part) for part in parts] == {1: [1] * 7, 40: [4, 3], 2**24: [7]}[chunk]
    weights = torch.cat(parts)
    assert weights.shape == (7, 10)
    assert weights.dtype == torch.float64
    assert (weights.sum(dim=1) == 10).all()
    assert len(weights.unique(dim=0)) == 7


def test_rows_are_drawn_with_equal_probability():
    weights = torch.cat(list(draw_weights(5, 4000, torch.Generator().manual_seed(0))))
    # Binomial of 5 draws: the mean of 4000 has a standard error of 0.014.
    torch.testing.assert_close(weights.mean(dim=0), torch.ones(5).double(), rtol=0, atol=0.06)
    torch.testing.assert_close(weights.var(dim=0), torch.full((5,), 0.8).double(), rtol=0, atol=0.08)


def test_bounds_are_corrected_for_the_bias_of_resamples():
    # Duplicate rows bias average precision upwards, so uncorrected percentiles are too high.
    generator = torch.Generator().manual_seed(2)
    target = torch.rand(40, 1, generator=generator) < 0.2
    preds = torch.randn(40, 1, generator=generator) + target
    found = _interval(metrics.mean_average_precision, preds, target)
    weights = torch.cat(list(draw_weights(40, 1000, torch.Generator().manual_seed(0))))
    resampled = metrics.mean_average_precision(preds, target, sample_weight=ResampleWeights(weights))
    assert (resampled > found.value).double().mean() > 0.55
    assert found.low < resampled.nanquantile(0.025)
    assert found.high < resampled.nanquantile(0.975)


def test_undefined_resamples_are_excluded():
    # A resample without the first row has no positive.
    preds, target = torch.tensor([[0.9], [0.95], [0.1]]), torch.tensor([[1], [0], [0]])
    values = [metrics.mean_average_precision(preds[d], target[d]).item() for d in _resamples(3, 40)]
    assert 5 < np.isnan(values).sum() < 35
    found = _interval(metrics.mean_average_precision, preds, target, n_resamples=40)
    np.testing.assert_allclose([found.low, found.high], _bounds(values, found.value, 0.95), rtol=1e-12)
    found = _interval(lambda p, y: metrics.mean_average_precision(p, y), preds, target, n_resamples=40)
    np.testing.assert_allclose([found.low, found.high], _bounds(values, found.value, 0.95), rtol=1e-12)


def test_undefined_metric_has_nan_bounds_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for shape in ((3, 2), (0, 2)):
            found = _interval(metrics.mean_average_precision, torch.zeros(shape), torch.zeros(shape))
            assert all(part.isnan() for part in found)
        # Only the second of two labels is undefined.
        found = _interval(metrics.average_precision, [[0.5, 0.5]], [[1, 0]], n_resamples=5)
        assert [part.isnan().tolist() for part in found] == [[False, True]] * 3
        assert all(part.isnan() for part in _interval(lambda _: np.nan, [1, 2], n_resamples=5))


@pytest.mark.parametrize("confidence_level", [0.8, 0.95])
def test_bounds_of_a_proportion_are_near_the_normal_approximation(confidence_level):
    decisions = torch.rand(400, 1, generator=torch.Generator().manual_seed(0)) < 0.3
    found = _interval(
        metrics.subset_accuracy, decisions, torch.ones(400, 1), confidence_level=confidence_level, n_resamples=4000
    )
    share = decisions.double().mean().item()
    error = (share * (1 - share) / 400) ** 0.5
    width = {0.8: 1.2816, 0.95: 1.96}[confidence_level] * error
    assert found.value.item() == pytest.approx(share)
    assert found.low.item() == pytest.approx(share - width, abs=0.25 * error)
    assert found.high.item() == pytest.approx(share + width, abs=0.25 * error)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"confidence_level": 0}, r"`confidence_level` must be above 0 and below 1, got 0"),
        ({"confidence_level": 95}, r"`confidence_level` must be above 0 and below 1, got 95"),
        ({"confidence_level": np.nan}, r"`confidence_level` must be above 0 and below 1, got nan"),
        ({"n_resamples": 0}, r"`n_resamples` must be at least 1, got 0"),
    ],
)
@pytest.mark.parametrize("metric", [metrics.f1, lambda preds, target: 0.0])
def test_invalid_option_is_rejected(metric, options, message):
    with pytest.raises(ValueError, match=message):
        _interval(metric, *_rows(), **options)


def test_rows_of_different_lengths_are_rejected():
    with pytest.raises(ValueError, match=r"`rows` must have the same number of rows each, got \[3, 2\]"):
        _interval(lambda _, __: 0.0, torch.zeros(3, 1), torch.zeros(2, 1))
    with pytest.raises(ValueError, match=r"the same shape \(N, L\), got \(3, 1\) and \(2, 1\)"):
        _interval(metrics.f1, torch.zeros(3, 1), torch.zeros(2, 1))


def test_rows_that_are_not_numbers_are_rejected():
    with pytest.raises(TypeError, match=r"`rows` must contain real numbers"):
        _interval(metrics.f1, [["a"]], [[1]])


@pytest.mark.parametrize("name", METRICS)
def test_bounds_are_on_the_device_of_the_rows_and_equal_those_on_the_cpu(name, device):
    preds, target = _rows()
    found = _interval(METRICS[name], preds.to(device), target.to(device), n_resamples=30)
    expected = _interval(METRICS[name], preds, target, n_resamples=30)
    assert all(part.device == device for part in found)
    torch.testing.assert_close([part.cpu() for part in found], list(expected), rtol=1e-12, atol=0)
