"""How far a metric may lie from what it would be on other rows of the same kind: the bootstrap."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from mlmetric.metrics._checks import TensorLike, check_weight, to_tensor

CHUNK = 2**22
"""How many weights of rows are drawn at once: 32 MB, and as much for the draws and what is made of them."""

Function = TypeVar("Function", bound=Callable[..., Any])


class ConfidenceInterval(NamedTuple):
    """What a metric is on all rows, and the bounds of its confidence interval; NaN where it is undefined."""

    value: Tensor
    low: Tensor
    high: Tensor


def weighable(function: Function) -> Function:
    """Mark a metric that takes many weightings at once, `sample_weight` `(B, N)`."""
    function.__dict__["takes_weightings"] = True
    return function


def confidence_interval(
    metric: Callable[..., Any],
    *rows: TensorLike,
    confidence_level: float = 0.95,
    n_resamples: int = 1000,
    generator: torch.Generator | None = None,
) -> ConfidenceInterval:
    """Estimate by the bootstrap over rows between which bounds a metric lies.

    The rows are drawn with replacement, as many as there are, `n_resamples` times; the bounds are percentiles of what
    the metric then is, corrected for bias. They tell how much the choice of test rows matters, not how much training
    again would. A resample in which the metric is undefined is left out. With a few rows, or labels with a few
    positives, bounds are too narrow; and average precision is then too high, so that they may lie below the value.

    Args:
        metric: One of this module, `functools.partial` of it for its options (no lambda); or any function of rows
            that returns a number or tensor. This module's take all resamples at once, as weights; any other is called
            for each. One that compares rows with each other, as retrieval does, must not be another: a row drawn
            twice would find its copy.
        *rows: What `metric` takes by position, such as `preds, target`: the same number of rows each. In retrieval
            metrics the queries are drawn; the database stays as it is.
        confidence_level: How often bounds made in this way are to hold, above 0 and below 1.
        n_resamples: How often rows are drawn.
        generator: Where the draws come from, a CPU generator. By default a new one of seed 0, so that the bounds of
            the same rows are the same each time.

    Returns:
        The value on all rows and its bounds, float64, in the shape that `metric` returns: `average="none"` gives one
        of each a label.

    Raises:
        ValueError: If `confidence_level` or `n_resamples` is out of range, there are no `rows`, or they differ in
            number.

    Examples:
        >>> preds = torch.tensor([[0.9, 0.6], [0.8, 0.2], [0.3, 0.7], [0.4, 0.9]])
        >>> target = torch.tensor([[1, 0], [1, 0], [1, 1], [0, 1]])
        >>> from mlmetric.metrics import subset_accuracy
        >>> value, low, high = confidence_interval(subset_accuracy, preds, target)
        >>> f"{value:.2f}, from {low:.2f} to {high:.2f}"
        '0.50, from 0.00 to 1.00'

    Source:
        Efron, "Better bootstrap confidence intervals", JASA 82, 1987: the bias-corrected percentile interval (BC).
    """
    given = [to_tensor(part, "rows") for part in rows]
    if not given:
        raise ValueError("`rows` must be what `metric` takes, such as `preds, target`, got none.")
    check_draws(confidence_level, n_resamples)
    draws = draw_weights(len(given[0]), n_resamples, generator)
    value = _number(metric(*given))
    function, options = (metric.func, metric.keywords) if isinstance(metric, partial) else (metric, {})
    if getattr(function, "takes_weightings", False):
        resampled = _resample_by_weights(metric, given, draws, options)
    else:
        resampled = _resample_rows(metric, given, draws)
    return ConfidenceInterval(value, *bounds(resampled, value, confidence_level))


def _resample_by_weights(
    metric: Callable[..., Any], rows: list[Tensor], draws: Iterator[Tensor], options: Mapping[str, Any]
) -> Tensor:
    """Return what one of this module's metrics is in each resample, `(B, ...)`."""
    device = rows[0].device
    own = check_weight(options.get("sample_weight"), len(rows[0]), device)
    if own is not None and own.ndim == 2:
        raise ValueError(f"`sample_weight` must be one number a row, got shape {tuple(own.shape)}.")
    if options.get("interpolation", "none") != "none":  # which takes no weights
        return _resample_rows(metric, rows, draws)
    weights = (drawn.to(device) for drawn in draws)
    return torch.cat([metric(*rows, sample_weight=w if own is None else own * w) for w in weights])


def _resample_rows(metric: Callable[..., Any], rows: list[Tensor], draws: Iterator[Tensor]) -> Tensor:
    """Return what a function of rows is of each resample, `(B, ...)`."""
    if len({len(part) for part in rows}) > 1:
        raise ValueError(f"`rows` must have the same number of rows each, got {[len(part) for part in rows]}.")
    drawn = (_indices(row).to(rows[0].device) for weights in draws for row in weights)
    return torch.stack([_number(metric(*(part[indices] for part in rows))) for indices in drawn])


def check_draws(confidence_level: float, n_resamples: int) -> None:
    """Check what all bootstraps are told."""
    if not 0 < confidence_level < 1:
        raise ValueError(f"`confidence_level` must be above 0 and below 1, got {confidence_level}.")
    if n_resamples < 1:
        raise ValueError(f"`n_resamples` must be at least 1, got {n_resamples}.")


def draw_weights(num_rows: int, n_resamples: int, generator: torch.Generator | None) -> Iterator[Tensor]:
    """Draw rows with replacement and count how often each was: float64 `(B, N)`, in parts of `n_resamples`."""
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    at_once = max(1, CHUNK // max(1, num_rows))
    for start in range(0, n_resamples, at_once):
        size = min(at_once, n_resamples - start)
        if not num_rows:
            yield torch.zeros(size, 0, dtype=torch.float64)
            continue
        drawn = torch.randint(num_rows, (size, num_rows), generator=generator, device="cpu")
        drawn += num_rows * torch.arange(size, device="cpu")[:, None]
        yield drawn.flatten().bincount(minlength=size * num_rows).reshape(size, num_rows).double()


def bounds(resampled: Tensor, value: Tensor, confidence_level: float) -> tuple[Tensor, Tensor]:
    """Return the bounds `(...)` around `value` `(...)` by what a metric was in each resample, `(B, ...)`."""
    columns = resampled.reshape(len(resampled), -1).T.cpu()
    found = [_bounds(*pair, confidence_level) for pair in zip(columns, value.reshape(-1).cpu(), strict=True)]
    low, high = torch.tensor(found, dtype=torch.float64).reshape(-1, 2).T.to(resampled.device)
    return low.reshape(value.shape), high.reshape(value.shape)


def _bounds(resampled: Tensor, value: Tensor, confidence_level: float) -> tuple[float, float]:
    defined = resampled[~resampled.isnan()]
    if not len(defined) or bool(value.isnan()):
        return math.nan, math.nan
    # Resamples repeat rows, which lifts ranking metrics: percentiles are moved by where the value lies among them.
    rounding = 1e-12 * value.abs()
    below = ((defined < value - rounding).double() + (defined <= value + rounding).double()).mean() / 2
    least = torch.tensor(0.5 / len(defined), dtype=torch.float64)
    shift = 2 * torch.special.ndtri(below.clamp(least, 1 - least))
    tail = torch.special.ndtri(torch.tensor((1 - confidence_level) / 2, dtype=torch.float64))
    low, high = torch.quantile(defined, torch.special.ndtr(torch.stack([shift + tail, shift - tail]))).tolist()
    return low, high


def _indices(counts: Tensor) -> Tensor:
    return torch.arange(len(counts)).repeat_interleave(counts.long())


def _number(value: Any) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64).detach()
