"""Average precision against scikit-learn and the formula in loops."""

from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import sklearn.metrics as sk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mlmetric.metrics import _average_precision_kernels, average_precision, mean_average_precision
from mlmetric.metrics._inputs import ResampleWeights


@st.composite
def score_matrices(draw):
    shape = draw(st.tuples(st.integers(1, 12), st.integers(1, 4)))
    grid = draw(st.sampled_from([[0.3], [0.0, 1.0], [-2.0, -0.0, 0.0, 0.1, 7.0]]) | st.none())
    elements = st.floats(-1e6, 1e6) if grid is None else st.sampled_from(grid)
    return draw(hnp.arrays(np.float64, shape, elements=elements)), draw(hnp.arrays(np.bool_, shape))


def _loop(scores, positive):
    """Return AP of one label, written from the formula."""
    hits = [s for s, y in zip(scores, positive, strict=True) if y]
    if not hits:
        return np.nan
    return np.mean([sum(h >= s for h in hits) / sum(t >= s for t in scores) for s in hits])


def _sklearn(preds, target):
    columns = zip(preds.T, target.T, strict=True)
    return [sk.average_precision_score(y, s) if y.any() else np.nan for s, y in columns]


@settings(max_examples=50, deadline=None)
@given(matrices=score_matrices())
def test_average_precision_equals_scikit_learn_and_the_formula(matrices):
    preds, target = matrices
    actual = average_precision(preds, target)
    np.testing.assert_allclose(actual, _sklearn(preds, target), rtol=1e-12)
    np.testing.assert_allclose(actual, [_loop(*c) for c in zip(preds.T, target.T, strict=True)], rtol=1e-12)


@settings(max_examples=50, deadline=None)
@given(matrices=score_matrices())
def test_mean_average_precision_equals_scikit_learn(matrices):
    preds, target = matrices
    per_label = np.array(_sklearn(preds, target))
    macro = per_label[target.any(axis=0)].mean() if target.any() else np.nan
    np.testing.assert_allclose(mean_average_precision(preds, target), macro, rtol=1e-12)
    zero = mean_average_precision(preds, target, zero_division=0)
    np.testing.assert_allclose(zero, np.nan_to_num(per_label).mean(), rtol=1e-12)
    micro = sk.average_precision_score(target.ravel(), preds.ravel()) if target.any() else np.nan
    np.testing.assert_allclose(mean_average_precision(preds, target, average="micro"), micro, rtol=1e-12)


def _sklearn_included(preds, target, mask, weight=None):
    """Return scikit-learn's AP of each label on the included rows; NaN if no positive has a weight."""
    weight = np.ones(len(preds)) if weight is None else weight
    columns = zip(preds.T, target.T, mask.T, strict=True)
    return [
        sk.average_precision_score(y[m], s[m], sample_weight=weight[m]) if (y * weight)[m].any() else np.nan
        for s, y, m in columns
    ]


@settings(max_examples=50, deadline=None)
@given(matrices=score_matrices(), data=st.data())
def test_masked_and_weighted_average_precision_equals_scikit_learn_on_the_included_entries(matrices, data):
    preds, target = matrices
    mask = data.draw(hnp.arrays(np.bool_, preds.shape))
    weight = data.draw(hnp.arrays(np.float64, len(preds), elements=st.just(0.0) | st.floats(0.125, 8)))
    corrupted = np.where(mask, preds, np.nan), np.where(mask, target, -1)
    every, each = np.ones_like(mask), weight[:, None].repeat(preds.shape[1], axis=1)
    for options, kept, w in [
        ({"mask": mask}, mask, None),
        ({"sample_weight": weight}, every, weight),
        ({"mask": mask, "sample_weight": weight}, mask, weight),
    ]:
        arguments = corrupted if "mask" in options else matrices
        expected = _sklearn_included(preds, target, kept, w)
        np.testing.assert_allclose(average_precision(*arguments, **options), expected, rtol=1e-12)
        macro = np.nan if np.isnan(expected).all() else np.nanmean(expected)
        np.testing.assert_allclose(mean_average_precision(*arguments, **options), macro, rtol=1e-12)
        pooled = _sklearn_included(
            preds[kept][:, None], target[kept][:, None], every[kept][:, None], w if w is None else each[kept]
        )
        np.testing.assert_allclose(
            mean_average_precision(*arguments, average="micro", **options), pooled[0], rtol=1e-12
        )


def test_column_excluded_by_the_mask_is_undefined():
    preds, target = torch.tensor([[0.9, 0.4], [0.8, 0.4], [0.7, 0.1]]), torch.tensor([[1, 1], [0, 1], [1, 1]])
    mask = torch.tensor([[True, False]] * 3)
    assert average_precision(preds, target, mask=mask)[1].isnan()
    assert mean_average_precision(preds, target, mask=mask).item() == pytest.approx(5 / 6)
    assert mean_average_precision(preds, target, mask=mask, zero_division=0).item() == pytest.approx(5 / 12)
    for average in ("macro", "micro"):
        assert mean_average_precision(preds, target, mask=torch.zeros_like(mask), average=average).isnan()


@pytest.mark.parametrize("interpolation", ["none", "voc2007", "voc2010"])
def test_excluded_entries_do_not_tie_with_scores_of_minus_infinity(interpolation):
    inf = torch.inf
    preds = torch.tensor([[-inf], [-inf], [0.0], [9.0], [9.0]])
    target, mask = torch.tensor([[1], [0], [1], [1], [0]]), torch.tensor([[True], [True], [True], [False], [False]])
    # Precision 1 of 1 at recalls up to 0.5, and 2 of 3 at the recalls above, where the score is -inf.
    expected = (6 * 1 + 5 * 2 / 3) / 11 if interpolation == "voc2007" else (1 + 2 / 3) / 2
    options = {"interpolation": interpolation, "mask": mask}
    assert average_precision(preds, target, **options).item() == pytest.approx(expected, abs=1e-15)
    assert mean_average_precision(preds, target, average="micro", **options).item() == pytest.approx(
        expected, abs=1e-15
    )
    if interpolation == "none":
        weighted = average_precision(preds, target, **options, sample_weight=torch.ones(5))
        assert weighted.item() == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("options", [{}, {"average": "macro"}, {"average": "micro"}])
def test_resample_weights_equal_each_weight_alone_and_integer_weights_equal_repeated_rows(options, dtype):
    function = mean_average_precision if options else average_precision
    generator = torch.Generator().manual_seed(0)
    preds, target = torch.randn(12, 3, generator=generator).round(decimals=1).to(dtype), torch.zeros(12, 3)
    target[:7, 0], target[2:5, 1] = 1, 1  # no positives in the last
    counts = torch.randint(3, (5, 12), generator=generator)
    counts[0], counts[1], counts[2, :7] = 0, 1, 0
    results = function(preds, target, sample_weight=ResampleWeights(counts.double()), **options)
    assert results.shape == (5, 3) if function is average_precision else (5,)
    assert results[[0, 2]].isnan().all()
    np.testing.assert_allclose(results[1], function(preds, target, **options), rtol=1e-12)
    for result, weight in zip(results, counts, strict=True):
        repeated = function(preds.repeat_interleave(weight, dim=0), target.repeat_interleave(weight, dim=0), **options)
        np.testing.assert_allclose(result, repeated, rtol=1e-12)
        np.testing.assert_allclose(result, function(preds, target, sample_weight=weight / 7, **options), rtol=1e-12)


def _interpolated(interpolation, scores, positive):
    """Return AP as the development kits define it, with the highest precision at each recall or above."""
    scores, positive, total = list(scores), list(map(int, positive)), int(sum(positive))
    if not total:
        return np.nan
    curve = []
    for threshold in sorted(set(scores), reverse=True):
        retrieved = [y for s, y in zip(scores, positive, strict=True) if s >= threshold]
        curve.append((sum(retrieved), Fraction(sum(retrieved), len(retrieved))))
    if interpolation == "voc2007":
        points = [max(p for hits, p in curve if Fraction(hits, total) >= Fraction(i, 10)) for i in range(11)]
    else:
        points = [max(p for hits, p in curve if hits >= i) for i in range(1, total + 1)]
    return float(sum(points) / len(points))


@pytest.mark.parametrize("interpolation", ["voc2007", "voc2010"])
@settings(max_examples=50, deadline=None)
@given(matrices=score_matrices(), data=st.data())
def test_interpolated_average_precision_equals_its_definition(interpolation, matrices, data):
    preds, target = matrices
    mask = data.draw(st.just(np.ones_like(target)) | hnp.arrays(np.bool_, preds.shape))
    columns = zip(preds.T, target.T, mask.T, strict=True)
    expected = [_interpolated(interpolation, s[m], y[m]) for s, y, m in columns]
    options = {"interpolation": interpolation, "mask": mask}
    np.testing.assert_allclose(average_precision(preds, target, **options), expected, rtol=1e-12)
    macro = np.nan if np.isnan(expected).all() else np.nanmean(expected)
    np.testing.assert_allclose(mean_average_precision(preds, target, **options), macro, rtol=1e-12)
    pooled = _interpolated(interpolation, preds[mask], target[mask])
    np.testing.assert_allclose(mean_average_precision(preds, target, average="micro", **options), pooled, rtol=1e-12)


@pytest.mark.parametrize("positives", range(1, 31))
def test_recalls_of_voc_2007_are_compared_without_rounding(positives):
    # One negative after each positive: the precision decreases with recall, so an omitted recall changes AP.
    preds, target = torch.arange(2 * positives, 0, -1)[:, None], torch.tensor([1, 0] * positives)[:, None]
    expected = _interpolated("voc2007", preds.squeeze(1).tolist(), target.squeeze(1).tolist())
    assert average_precision(preds, target, interpolation="voc2007").item() == pytest.approx(expected, abs=1e-14)


def test_hand_computed_interpolations():
    # Precisions 1, 2/4, 3/5 at recalls 1/3, 2/3, 1: the second is raised to 3/5.
    preds, target = torch.arange(5, 0, -1)[:, None], torch.tensor([[1], [0], [0], [1], [1]])
    assert average_precision(preds, target).item() == pytest.approx((1 + 2 / 4 + 3 / 5) / 3, abs=1e-15)
    found = average_precision(preds, target, interpolation="voc2010").item()
    assert found == pytest.approx((1 + 3 / 5 + 3 / 5) / 3, abs=1e-15)
    found = average_precision(preds, target, interpolation="voc2007").item()
    assert found == pytest.approx((4 * 1 + 7 * 3 / 5) / 11, abs=1e-15)


def _sorted_precision(scores, positive):
    """Return AP from one stable sort of all entries."""
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], positive[order].cumsum()
    last = np.searchsorted(-scores, -scores, side="right") - 1
    return (hits[last] / (last + 1))[positive[order]].mean() if positive.any() else np.nan


KINDS = {
    "normal": lambda normal: normal,
    "all equal": lambda normal: normal * 0 + 0.3,
    "heavy ties": lambda normal: normal.round(),
    "probabilities": lambda normal: (8 * normal).sigmoid(),
    "magnitudes from 1e-30 to 1e30": lambda normal: normal.sign() * 10 ** (60 * normal.abs().clamp(max=1) - 30),
    "of both signs up to the largest": lambda normal: normal.clamp(-1, 1) * 3e38,
    "subnormal": lambda normal: normal * 1e-40,
    "one far off": lambda normal: torch.where(normal == normal.max(), 1e30, normal),
    "infinities": lambda normal: torch.where(normal.abs() > 1, normal * torch.inf, normal),
    "infinities only": lambda normal: torch.where(normal > 0, torch.inf, -torch.inf).to(normal),
}


@pytest.mark.parametrize("share", [0.0, 1e-5, 0.02, 0.6, 1.0])
@pytest.mark.parametrize("shape", [(2, 3), pytest.param((600, 500), marks=pytest.mark.slow)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_micro_average_precision_equals_a_sort_of_all_entries(kind, shape, share, monkeypatch):
    monkeypatch.setattr(
        _average_precision_kernels, "MIN_BINNED_ENTRIES", 0
    )  # so that few entries are put into bins too
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(shape, generator=generator, dtype=torch.float64)
    target, mask = torch.rand(2, *shape, generator=generator) < torch.tensor([share, 0.9])[:, None, None]
    target[0, 0] |= share > 0
    for dtype in (torch.float16, torch.float32, torch.float64):
        preds = KINDS[kind](normal).to(dtype)
        wide = preds.double().numpy()
        expected = _sorted_precision(wide.ravel(), target.numpy().ravel())
        np.testing.assert_allclose(mean_average_precision(preds, target, average="micro"), expected, rtol=1e-12)
        expected = _sorted_precision(wide[mask], target[mask].numpy())
        found = mean_average_precision(preds, target, average="micro", mask=mask)
        np.testing.assert_allclose(found, expected, rtol=1e-12)


@settings(max_examples=50, deadline=None)
@given(data=st.data(), dtype=st.sampled_from([np.float32, np.float64]))
def test_micro_average_precision_of_any_scores_equals_a_sort_of_all_entries(data, dtype):
    shape = data.draw(st.tuples(st.integers(1, 8), st.integers(1, 4)))
    preds = data.draw(hnp.arrays(dtype, shape, elements=st.floats(allow_nan=False, width=dtype().itemsize * 8)))
    target = data.draw(hnp.arrays(np.bool_, shape))
    expected = _sorted_precision(preds.ravel(), target.ravel())
    for small in (0, _average_precision_kernels.MIN_BINNED_ENTRIES):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_average_precision_kernels, "MIN_BINNED_ENTRIES", small)
            found = mean_average_precision(preds, target, average="micro")
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_zero_division_0_equals_scikit_learn():
    preds, target = np.array([[0.2, 0.1], [0.8, 0.5], [0.5, 0.5]]), np.array([[0, 1], [0, 0], [0, 1]])
    with pytest.warns(UserWarning, match="No positive class"):
        expected = sk.average_precision_score(target, preds)
    assert mean_average_precision(preds, target, zero_division=0).item() == pytest.approx(expected, abs=1e-12)


def test_large_random_matrix_equals_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    preds = torch.rand(3000, 5, generator=generator)
    target = torch.rand(3000, 5, generator=generator) < torch.tensor([0.001, 0.05, 0.3, 0.7, 1.1])
    assert preds.unique().numel() < preds.numel(), "float32 scores of this many rows tie"
    np.testing.assert_allclose(average_precision(preds, target), _sklearn(preds.numpy(), target.numpy()), rtol=1e-12)


def test_hand_computed_values():
    preds = torch.tensor([[4.0, 1.0, 2.0], [3.0, 1.0, 2.0], [2.0, 1.0, 1.0], [1.0, 1.0, 2.0]])
    target = torch.tensor([[0, 1, 1], [1, 0, 0], [0, 0, 1], [1, 0, 0]])
    expected = [(1 / 2 + 2 / 4) / 2, 1 / 4, (1 / 3 + 2 / 4) / 2]
    assert average_precision(preds, target).tolist() == pytest.approx(expected, abs=1e-15)


def test_tied_scores_are_retrieved_together_in_any_order_of_rows():
    preds = torch.tensor([[1.0], [1.0], [1.0]])
    for row in range(3):
        target = torch.zeros(3, 1).index_fill(0, torch.tensor(row), 1)
        assert average_precision(preds, target).item() == pytest.approx(1 / 3)


def test_large_logits_do_not_become_ties():
    logits = torch.tensor([[20.0], [25.0], [30.0]])
    assert len(logits.sigmoid().unique()) < 3, "a sigmoid would have made ties of them"
    assert average_precision(logits, [[0], [0], [1]]).item() == 1
    assert average_precision(logits, [[1], [0], [0]]).item() == pytest.approx(1 / 3)


def test_python_floats_keep_double_precision():
    assert average_precision([[0.5], [0.5 + 1e-12]], [[0], [1]]).item() == 1


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64, torch.uint8]
)
def test_result_does_not_depend_on_the_dtype_of_scores_that_it_represents_exactly(dtype):
    preds = torch.tensor([[3, 0], [2, 2], [2, 1], [0, 2]])
    target = torch.tensor([[1, 0], [0, 1], [1, 1], [0, 1]])
    result = average_precision(preds.to(dtype), target)
    assert result.dtype == torch.float64
    assert result.tolist() == average_precision(preds.double(), target).tolist()


def test_infinite_scores_rank_at_the_ends():
    preds = torch.tensor([[-torch.inf], [0.0], [torch.inf]])
    assert average_precision(preds, [[0], [0], [1]]).item() == 1
    assert average_precision(preds, [[1], [0], [0]]).item() == pytest.approx(1 / 3)


def test_negative_zero_ties_with_zero():
    assert average_precision([[0.0], [-0.0]], [[1], [0]]).item() == 1 / 2


def test_monotonic_transformation_of_the_scores_changes_nothing():
    generator = torch.Generator().manual_seed(1)
    preds = torch.randn(50, 3, generator=generator, dtype=torch.float64)
    target = torch.rand(50, 3, generator=generator) < 0.3
    assert torch.equal(average_precision(preds, target), average_precision(preds.exp() * 7 - 3, target))


def test_label_without_positives_follows_zero_division():
    preds, target = torch.tensor([[0.2, 0.9], [0.8, 0.1]]), torch.tensor([[0, 1], [0, 0]])
    assert average_precision(preds, target).isnan().tolist() == [True, False]
    assert average_precision(preds, target, zero_division=0).tolist() == [0, 1]
    assert average_precision(preds, target, zero_division=1).tolist() == [1, 1]
    assert mean_average_precision(preds, target).item() == 1
    assert mean_average_precision(preds, target, zero_division=0).item() == 1 / 2


@pytest.mark.parametrize("average", ["macro", "micro"])
def test_mean_over_no_values_follows_zero_division(average):
    for shape in ((0, 3), (3, 0), (2, 2)):
        preds, target = torch.zeros(shape), torch.zeros(shape)
        assert mean_average_precision(preds, target, average=average).isnan()
        assert mean_average_precision(preds, target, average=average, zero_division=0) == 0
        assert mean_average_precision(preds, target, average=average, zero_division=1) == 1


def test_result_has_one_value_per_label_and_no_gradient():
    assert average_precision(torch.zeros(0, 3), torch.zeros(0, 3)).shape == (3,)
    assert average_precision(torch.zeros(3, 0), torch.zeros(3, 0)).shape == (0,)
    result = mean_average_precision(torch.rand(4, 1, requires_grad=True), torch.ones(4, 1))
    assert result.shape == ()
    assert not result.requires_grad
    assert result.item() == pytest.approx(1)


@pytest.mark.parametrize("function", [average_precision, mean_average_precision])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"preds": [[0.1, np.nan]]}, r"`preds` must not contain NaN, got one at row 0, label 1"),
        ({"preds": [[0.1]]}, r"the same shape \(N, L\), got \(1, 1\) and \(1, 2\)"),
        ({"target": [[0.25, 1]]}, r"`target` must contain only 0 and 1, got 0\.25 at row 0, label 0"),
        ({"zero_division": None}, r"`zero_division` must be 0.0, 1.0 or nan, got None"),
        ({"mask": [[True]]}, r"`mask` must have the shape of `preds`, \(1, 2\)"),
        ({"sample_weight": [1, 2]}, r"`sample_weight` must have shape \(1,\), one weight for each row"),
        ({"sample_weight": [-1]}, r"`sample_weight` must contain finite numbers >= 0, got -1"),
        ({"interpolation": "voc"}, r"`interpolation` must be one of 'none', 'voc2007', 'voc2010', got 'voc'"),
        (
            {"interpolation": "voc2010", "sample_weight": [1]},
            r"`sample_weight` is supported with `interpolation=\"none\"` only, got 'voc2010'",
        ),
    ],
)
def test_invalid_argument_is_rejected(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(**{"preds": [[0.1, 0.9]], "target": [[0, 1]]} | arguments)


def test_unknown_average_is_rejected():
    with pytest.raises(ValueError, match=r"`average` must be one of 'macro', 'micro', got 'weighted'"):
        mean_average_precision([[0.1]], [[1]], average="weighted")


def test_interpolation_with_weights_is_rejected_for_micro_average_precision():
    with pytest.raises(
        ValueError, match=r"`sample_weight` is supported with `interpolation=\"none\"` only, got 'voc2007'"
    ):
        mean_average_precision([[0.1]], [[1]], average="micro", interpolation="voc2007", sample_weight=[1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_result_is_on_the_device_of_the_scores(dtype, device):
    generator = torch.Generator().manual_seed(2)
    preds = torch.rand(200, 4, generator=generator).to(dtype)
    target = torch.rand(200, 4, generator=generator) < 0.3
    mask = torch.rand(200, 4, generator=generator) < 0.9
    weights = torch.rand(200, generator=generator)
    for options in ({}, {"mask": mask}, {"mask": mask, "interpolation": "voc2007"}, {"sample_weight": weights}):
        for function in (average_precision, partial(mean_average_precision, average="micro")):
            result = function(preds.to(device), target, **options)
            assert result.device == device
            torch.testing.assert_close(result.cpu(), function(preds, target, **options), rtol=0, atol=1e-12)
