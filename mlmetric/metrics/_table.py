"""Every metric of scores, decisions and rankings of rows that come batch by batch, as one table."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mlmetric.distributed import gather_objects
from mlmetric.metrics._accumulator import Accumulator, Batch, join
from mlmetric.metrics._bootstrap import bounds, check_draws, draw_weights
from mlmetric.metrics._checks import TensorLike
from mlmetric.metrics._inputs import Predictions, check_predictions
from mlmetric.metrics._report import MetricsReport
from mlmetric.metrics._summary import MetricSummary
from mlmetric.metrics._zero_division import check_zero_division


class MultiLabelMetrics(Accumulator):
    """Measure scores against the truth by every metric of decisions and rankings at once.

    Feed it batches with `update`; `compute` gives what the functions of `mlmetric.metrics` give on all rows together,
    in whatever batches they came. Where several processes are joined (torch.distributed), `compute` and `report`
    measure the rows of all of them, and each process must call them. The rows are kept, as `preds` and a bool truth:
    5 bytes an entry with float32 scores.

    | key | what it is |
    | --- | --- |
    | `map`, `micro_ap` | `mean_average_precision`, over labels and over all entries |
    | `op`, `or`, `of1` | micro `precision`, `recall`, `f1`: "overall" in multi-label image recognition |
    | `cp`, `cr`, `cf1` | macro `precision`, `recall`, and `cf1`, the harmonic mean of the two |
    | `macro_f1`, `weighted_f1`, `example_f1` | F1 averaged over labels, by positives, over rows |
    | `pooled_accuracy`, `subset_accuracy` | right entries, rows that are right as a whole |
    | `coverage_error`, `lrap`, `ranking_loss`, `one_error` | of the ranking of each row's labels |

    Where torchmetrics is installed an instance is a `torchmetrics.Metric` too, and goes into a `MetricCollection`.

    Args:
        threshold: A label is predicted where `preds >= threshold`: a number, one a label, or None; see `precision`.
        top_k: How many labels of a row are predicted at most; see `precision`.
        zero_division: What 0/0 gets: nan (left out of means), 0 or 1.
        label_names: Names of the L labels, for reports; numbers by default.
        device: Where the rows are kept; by default where they come from.
        sync_on_compute: Whether the rows of all processes are measured, where several are joined; then each of them
            must ask for the result.

    Raises:
        ValueError: If `zero_division` is none of these.

    Examples:
        >>> metrics = MultiLabelMetrics(threshold=0.5)
        >>> metrics.update(torch.tensor([[0.9, 0.6], [0.8, 0.2]]), torch.tensor([[1, 0], [1, 0]]))
        >>> metrics.update(torch.tensor([[0.3, 0.7]]), torch.tensor([[1, 1]]))
        >>> values = metrics.compute()
        >>> f"{values['map']:.3f} {values['macro_f1']:.3f} {values['subset_accuracy']:.3f}"
        '1.000 0.733 0.333'
    """

    def __init__(
        self,
        *,
        threshold: float | TensorLike | None = 0.5,
        top_k: int | None = None,
        zero_division: float = math.nan,
        label_names: Sequence[str] | None = None,
        device: torch.device | str | None = None,
        sync_on_compute: bool = True,
    ) -> None:
        check_zero_division(zero_division)
        super().__init__(sync_on_compute=sync_on_compute)
        self.threshold = threshold
        self.top_k = top_k
        self.zero_division = zero_division
        self.label_names = None if label_names is None else [str(name) for name in label_names]
        self.rows_device = device

    def update(self, preds: TensorLike, target: TensorLike, mask: TensorLike | None = None) -> None:
        """Take in a batch.

        Args:
            preds: Scores, shape `(N, L)`, any real dtype and scale.
            target: Truth, shape `(N, L)`, hard multi-hot.
            mask: Entries that count, bool `(N, L)`; all by default.

        Raises:
            TypeError: If an argument does not hold real numbers.
            ValueError: If a shape does not fit, a score is NaN, `target` is soft, or `preds` has other columns or
                another dtype than in earlier batches: thresholds are rounded to the dtype of the scores.
        """
        predictions = check_predictions(preds, target, mask)
        num_labels = predictions.preds.shape[1]
        if self.label_names is not None and num_labels != len(self.label_names):
            raise ValueError(
                f"`preds` must have a column for each of the {len(self.label_names)} `label_names`, got {num_labels}."
            )
        self._check_fits(predictions)
        # Of its own: a loop may write the next batch into the same tensors.
        preds, target = (part.to(self.rows_device or part.device, copy=True) for part in predictions[:2])
        self._batches.append(
            Predictions(
                preds, target, None if predictions.mask is None else predictions.mask.to(preds.device, copy=True)
            )
        )

    def compute(self) -> dict[str, Tensor]:
        """Measure all rows so far, of all processes.

        Returns:
            The keys above, each a float64 0-d tensor on the device of the rows.

        Raises:
            ValueError: If there is no row yet, or `threshold` or `top_k` does not fit the number of labels.
        """
        return self._measure(synced=self.sync_on_compute)

    def per_label(self) -> dict[str, Tensor]:
        """Measure each label, over all rows so far, of all processes.

        Returns:
            `support` (positives), `average_precision`, `precision`, `recall` and `f1`: float64 `(L,)` each, with NaN
            where undefined whatever `zero_division` says.
        """
        return self._measured(synced=self.sync_on_compute).per_label()

    def report(
        self,
        *,
        confidence_level: float | None = 0.95,
        n_resamples: int = 1000,
        generator: torch.Generator | None = None,
    ) -> MetricsReport:
        """Measure all rows so far, of all processes, as a table that prints well.

        Args:
            confidence_level: Of the bootstrap interval beside each value, see `confidence_interval`; None for none.
            n_resamples: How often rows are drawn.
            generator: Where the draws come from; by default a new one of seed 0.

        Returns:
            The values, over how many labels or rows each is a mean, the intervals, and every label.
        """
        measured = self._measured(synced=self.sync_on_compute)
        intervals = None
        if confidence_level is not None:
            check_draws(confidence_level, n_resamples)
            device = measured.predictions.preds.device
            drawn = [
                measured.summary(self.zero_division, weights.to(device))
                for weights in draw_weights(len(measured.predictions.preds), n_resamples, generator)
            ]
            intervals = {}
            for key, value in measured.summary(self.zero_division).items():
                low, high = bounds(torch.cat([values[key] for values in drawn]), value, confidence_level)
                intervals[key] = (float(low), float(high))
        return MetricsReport(
            values={key: float(value) for key, value in measured.summary(self.zero_division).items()},
            averaged=measured.averaged(self.zero_division),
            intervals=intervals,
            confidence_level=confidence_level,
            per_label={key: values.tolist() for key, values in measured.per_label().items()},
            label_names=self.label_names,
        )

    def _measure(self, *, synced: bool) -> dict[str, Tensor]:
        return self._measured(synced=synced).summary(self.zero_division)

    def _measured(self, *, synced: bool) -> MetricSummary:
        return MetricSummary(self._rows(synced=synced), self.threshold, self.top_k)

    def _rows(self, *, synced: bool) -> Predictions:
        """Join all batches; where processes are joined, those of all."""
        batches: list[Predictions] = self._batches
        masked_here = any(batch.mask is not None for batch in batches)
        masked = any(gather_objects(masked_here)) if synced else masked_here
        parts: list[Batch] = [batch[:2] for batch in batches]
        if masked:
            parts = [(b.preds, b.target, torch.ones_like(b.target) if b.mask is None else b.mask) for b in batches]
        joined = join(parts, synced=synced, device=self.rows_device)
        if joined is None:
            raise ValueError("`MultiLabelMetrics` holds no rows yet: call `update` first.")
        return Predictions(*joined)

    def _names(self) -> tuple[str, ...]:
        return ("preds",)

    def _parts(self, batch: Predictions) -> Batch:
        return (batch.preds,)
