"""Recall of an approximate search against the exact one."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mlmetric.metrics import confidence_interval, neighbor_recall


@st.composite
def padded_rows(draw, num_queries):
    width = draw(st.integers(1, 6))
    rows = []
    for _ in range(num_queries):
        found = draw(st.lists(st.integers(0, 9), max_size=width, unique=True))
        rows.append(found + [-1] * (width - len(found)))
    return rows


@given(st.data(), st.integers(1, 4))
def test_recall_equals_a_loop_over_sets(data, num_queries):
    retrieved, exact = data.draw(padded_rows(num_queries)), data.draw(padded_rows(num_queries))
    expected = []
    for found, nearest in zip(retrieved, exact, strict=True):
        wanted = set(nearest) - {-1}
        expected.append(len(wanted & set(found)) / len(wanted) if wanted else math.nan)
    actual = neighbor_recall(retrieved, exact, average="none")
    assert actual.dtype == torch.float64
    np.testing.assert_allclose(actual, expected, rtol=1e-12)
    defined = [value for value in expected if not math.isnan(value)]
    mean = sum(defined) / len(defined) if defined else math.nan
    np.testing.assert_allclose(neighbor_recall(np.array(retrieved, np.int32), exact), mean, rtol=1e-12)
    zeros = [0 if math.isnan(value) else value for value in expected]
    np.testing.assert_allclose(neighbor_recall(retrieved, exact, zero_division=0), np.mean(zeros), rtol=1e-12)


def test_weights_and_intervals():
    retrieved, exact = [[0, 1], [2, 3], [4, 9]], [[1, 0], [8, 9], [9, 8]]  # recall 1, 0 and 1/2
    assert neighbor_recall(retrieved, exact, sample_weight=[3, 0, 1]).item() == pytest.approx(3.5 / 4)
    generator = torch.Generator().manual_seed(0)
    interval = confidence_interval(neighbor_recall, retrieved, exact, n_resamples=200, generator=generator)
    assert interval.low < interval.value == 0.5 < interval.high
    generator.manual_seed(0)
    one_by_one = confidence_interval(  # a lambda is called once for each resample
        lambda *rows: neighbor_recall(*rows), retrieved, exact, n_resamples=200, generator=generator
    )
    torch.testing.assert_close(torch.stack(one_by_one), torch.stack(interval))


def test_row_numbers_may_be_on_any_device(device):
    retrieved, exact = torch.tensor([[3, 1], [2, -1]]), torch.tensor([[1, 2, 3], [2, 1, 0]])
    result = neighbor_recall(retrieved.to(device), exact.to(device), average="none")
    assert result.device == torch.empty(0, device=device).device
    torch.testing.assert_close(result.cpu(), torch.tensor([2 / 3, 1 / 3], dtype=torch.float64))


@pytest.mark.parametrize(
    ("retrieved", "exact", "options", "error", "message"),
    [
        ([[0.0]], [[0]], {}, TypeError, r"`retrieved` must contain integer indices, got torch\.float64"),
        ([[0]], [[True]], {}, TypeError, r"`exact` must contain integer indices, got torch\.bool"),
        ([0, 1], [[0]], {}, ValueError, r"`retrieved` must have shape \(N, K\), got \(2,\)"),
        (
            [[0]],
            [[-2]],
            {},
            ValueError,
            "`exact` must contain indices of at least 0, or -1 as padding, got -2 for query 0",
        ),
        ([[0], [1]], [[0]], {}, ValueError, "one row for each query, got 2 and 1 rows"),
        ([[-1, 0]], [[0]], {}, ValueError, r"`retrieved` must contain -1, the padding, at the end .* got \[-1, 0\]"),
        ([[0]], [[4, 4]], {}, ValueError, "`exact` must contain each index at most once .* for query 0"),
        ([[0]], [[0]], {"average": "sum"}, ValueError, "`average` must be one of 'mean', 'none', got 'sum'"),
        ([[0]], [[0]], {"zero_division": 2}, ValueError, r"`zero_division` must be 0\.0, 1\.0 or nan, got 2"),
        (
            [[0]],
            [[0]],
            {"average": "none", "sample_weight": [1]},
            ValueError,
            '`sample_weight` requires `average="mean"`',
        ),
    ],
)
def test_invalid_argument_raises(retrieved, exact, options, error, message):
    with pytest.raises(error, match=message):
        partial(neighbor_recall, **options)(retrieved, exact)
