"""Bootstrap confidence intervals of metrics."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from mlmetric.distributed import gather_objects, num_ranks
from mlmetric.metrics._inputs import ResampleWeights, TensorLike, check_weights, to_tensor

CHUNK_SIZE = 2**22
"""Number of weights drawn at once: 32 MB, plus as much for each temporary copy."""

Function = TypeVar("Function", bound=Callable[..., Any])


class ConfidenceInterval(NamedTuple):
    """The value of a metric and the bounds of its confidence interval.

    Attributes:
        value: The metric on all rows, float64, of the shape that the metric returns; NaN where it is undefined.
        low: Lower bound, same shape.
        high: Upper bound, same shape.
    """

    value: Tensor
    low: Tensor
    high: Tensor


def supports_resample_weights(function: Function) -> Function:
    """Mark a metric whose argument `sample_weight` also accepts `ResampleWeights`."""
    function.__dict__["supports_resample_weights"] = True
    return function


def confidence_interval(
    metric: Callable[..., Any],
    *rows: TensorLike,
    confidence_level: float = 0.95,
    n_resamples: int = 1000,
    generator: torch.Generator | None = None,
) -> ConfidenceInterval:
    """Estimate a bootstrap confidence interval of a metric by resampling its rows.

    The rows are resampled with replacement `n_resamples` times; the bounds are bias-corrected percentiles of the
    metric over the resamples. The interval measures the variation due to the choice of test rows, not the variation
    between trainings. Resamples for which the metric is undefined are excluded. With few rows, or few positives of a
    label, the interval is too narrow; average precision is then biased upwards, and the bounds may lie below the value.

    Args:
        metric: A function of `mlmetric.metrics`, with options bound by `functools.partial`, or any function that takes
            rows and returns a number or a tensor. The functions of `mlmetric.metrics`, but not a lambda that calls one,
            process all resamples together by weighting the rows; any other function is called once for each resample. A
            function that compares rows with each other, such as a retrieval metric of another library, gives wrong
            intervals, because it would retrieve the copies of a row that is drawn twice.
        *rows: Positional arguments of `metric`, such as `preds, target`, with the same number of rows each. For
            retrieval metrics only the queries are resampled, not the database.
        confidence_level: Nominal coverage of the interval, above 0 and below 1.
        n_resamples: Number of resamples, at least 1.
        generator: CPU generator of the resamples; by default torch's global one, which `torch.manual_seed` seeds.

    Returns:
        The value on all rows and its bounds, in the shape that `metric` returns: with `average="none"` one interval for
        each label.

    Raises:
        TypeError: If an argument does not contain real numbers.
        ValueError: If `confidence_level` or `n_resamples` is out of range, there are no `rows`, their lengths differ,
            or `metric` rejects its arguments.

    Examples:
        >>> import torch
        >>> from mlmetric.metrics import confidence_interval, subset_accuracy
        >>> preds = torch.tensor([[0.9, 0.6], [0.8, 0.2], [0.3, 0.7], [0.4, 0.9]])
        >>> target = torch.tensor([[1, 0], [1, 0], [1, 1], [0, 1]])
        >>> generator = torch.Generator().manual_seed(0)
        >>> value, low, high = confidence_interval(subset_accuracy, preds, target, generator=generator)
        >>> f"{value:.2f}, from {low:.2f} to {high:.2f}"
        '0.50, from 0.00 to 1.00'

    Source:
        Efron, "Better bootstrap confidence intervals", JASA 82, 1987: the bias-corrected percentile interval (BC).
    """
    tensors = [to_tensor(part, "rows") for part in rows]
    if not tensors:
        raise ValueError("`rows` must be the positional arguments of `metric`, such as `preds, target`, got none.")
    check_resampling(confidence_level, n_resamples)
    weights = draw_weights(len(tensors[0]), n_resamples, generator)
    value = _to_float64(metric(*tensors))
    function, options = (metric.func, metric.keywords) if isinstance(metric, partial) else (metric, {})
    interpolated = options.get("interpolation", "none") != "none"  # does not support weights
    if getattr(function, "supports_resample_weights", False) and not interpolated:
        resampled = _resample_with_weights(metric, tensors, weights, options)
    else:
        resampled = _resample_rows(metric, tensors, weights)
    return ConfidenceInterval(value, *interval_bounds(resampled, value, confidence_level))


def _resample_with_weights(
    metric: Callable[..., Any], rows: list[Tensor], resamples: Iterator[Tensor], options: Mapping[str, Any]
) -> Tensor:
    """Return the values of a metric of `mlmetric.metrics` for all resamples, `(B, ...)`."""
    device = rows[0].device
    sample_weight = check_weights(options.get("sample_weight"), len(rows[0]), device)
    values = []
    for weights in resamples:
        weights = weights.to(device)
        weights = weights if sample_weight is None else sample_weight * weights
        values.append(metric(*rows, sample_weight=ResampleWeights(weights)))
    return torch.cat(values)


def _resample_rows(metric: Callable[..., Any], rows: list[Tensor], resamples: Iterator[Tensor]) -> Tensor:
    """Return the values of any function of rows for all resamples, `(B, ...)`."""
    if len({len(part) for part in rows}) > 1:
        raise ValueError(f"`rows` must have the same number of rows each, got {[len(part) for part in rows]}.")
    values = []
    for weights in resamples:
        for weight in weights:
            indices = torch.arange(len(weight)).repeat_interleave(weight.long()).to(rows[0].device)
            values.append(_to_float64(metric(*(part[indices] for part in rows))))
    return torch.stack(values)


def check_resampling(confidence_level: float, n_resamples: int) -> None:
    """Check the options of the bootstrap."""
    if not 0 < confidence_level < 1:
        raise ValueError(f"`confidence_level` must be above 0 and below 1, got {confidence_level}.")
    if n_resamples < 1:
        raise ValueError(f"`n_resamples` must be at least 1, got {n_resamples}.")


def draw_weights(num_rows: int, n_resamples: int, generator: torch.Generator | None) -> Iterator[Tensor]:
    """Yield how often each row is drawn in each resample: float64 `(B, N)`, some of the `n_resamples` at a time."""
    chunk_size = max(1, CHUNK_SIZE // max(1, num_rows))
    for start in range(0, n_resamples, chunk_size):
        size = min(chunk_size, n_resamples - start)
        if not num_rows:
            yield torch.zeros(size, 0, dtype=torch.float64)
            continue
        indices = torch.randint(num_rows, (size, num_rows), generator=generator, device="cpu")
        indices += num_rows * torch.arange(size, device="cpu")[:, None]
        yield indices.flatten().bincount(minlength=size * num_rows).reshape(size, num_rows).double()


def bootstrap_intervals(
    values: Mapping[str, Tensor],
    resample: Callable[[Tensor], Mapping[str, Tensor]],
    num_rows: int,
    *,
    confidence_level: float,
    n_resamples: int,
    generator: torch.Generator | None,
    synced: bool,
) -> dict[str, tuple[float, float]]:
    """Return the bounds of several metrics, computed from the same resamples.

    Args:
        values: Each metric on all rows, 0-d.
        resample: Returns each metric, `(B,)`, for the float64 weights of B resamples, `(B, N)`.
        num_rows: N.
        confidence_level: Nominal coverage, above 0 and below 1.
        n_resamples: Number of resamples, at least 1.
        generator: CPU generator of the resamples, or None for torch's global one.
        synced: Whether the rows come from all processes of a distributed run. Without a generator, all processes then
            use a generator that is seeded by the first one, so that they draw the same resamples.
    """
    check_resampling(confidence_level, n_resamples)
    if generator is None and synced and num_ranks() > 1:
        seed = gather_objects(int(torch.randint(2**62, (), device="cpu")))[0]
        generator = torch.Generator().manual_seed(seed)
    resampled = [resample(weights) for weights in draw_weights(num_rows, n_resamples, generator)]
    intervals = {}
    for key, value in values.items():
        low, high = interval_bounds(torch.cat([each[key] for each in resampled]), value, confidence_level)
        intervals[key] = (float(low), float(high))
    return intervals


def interval_bounds(resampled: Tensor, value: Tensor, confidence_level: float) -> tuple[Tensor, Tensor]:
    """Return the bounds `(...)` around `value` `(...)` from the values of the resamples, `(B, ...)`."""
    columns = resampled.reshape(len(resampled), -1).T.cpu()
    bounds = [_bounds(*pair, confidence_level) for pair in zip(columns, value.reshape(-1).cpu(), strict=True)]
    low, high = torch.tensor(bounds, dtype=torch.float64).reshape(-1, 2).T.to(resampled.device)
    return low.reshape(value.shape), high.reshape(value.shape)


def _bounds(resampled: Tensor, value: Tensor, confidence_level: float) -> tuple[float, float]:
    defined = resampled[~resampled.isnan()]
    if not len(defined) or bool(value.isnan()):
        return math.nan, math.nan
    # Resamples contain duplicate rows, which biases ranking metrics upwards: the percentiles are shifted according to
    # the rank of the value among the resamples.
    tolerance = 1e-12 * value.abs()
    below = ((defined < value - tolerance).double() + (defined <= value + tolerance).double()).mean() / 2
    smallest = torch.tensor(0.5 / len(defined), dtype=torch.float64)
    shift = 2 * torch.special.ndtri(below.clamp(smallest, 1 - smallest))
    tail = torch.special.ndtri(torch.tensor((1 - confidence_level) / 2, dtype=torch.float64))
    low, high = torch.quantile(defined, torch.special.ndtr(torch.stack([shift + tail, shift - tail]))).tolist()
    return low, high


def _to_float64(value: Any) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64).detach()
