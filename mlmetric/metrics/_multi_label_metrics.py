"""The class that computes all metrics of predicted labels and label rankings over batches."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mlmetric.distributed import gather_objects
from mlmetric.labels import LabelsLike
from mlmetric.metrics._bootstrap import bootstrap_intervals
from mlmetric.metrics._inputs import Predictions, TensorLike, check_predictions
from mlmetric.metrics._metrics_report import MetricsReport
from mlmetric.metrics._stateful_metric import StatefulMetric, Tensors, concatenate_batches
from mlmetric.metrics._summary import MetricSummary
from mlmetric.metrics._zero_division import check_zero_division


class MultiLabelMetrics(StatefulMetric):
    """All metrics of predicted labels and label rankings, computed over batches.

    `update` adds a batch; `compute` returns what the functions of `mlmetric.metrics` return for all rows together,
    regardless of how they are divided into batches. In a distributed run (torch.distributed), `compute`, `per_label`
    and `report` evaluate the rows of all processes, and each process must call them. All scores and true labels are
    stored: 5 bytes for each entry with float32 scores. The constructor's arguments are attributes of the same names.

    | key | description |
    | --- | --- |
    | `map`, `micro_ap` | `mean_average_precision` over labels, and of all entries |
    | `op`, `or`, `of1` | micro `precision`, `recall`, `f1`: "overall" in multi-label image recognition |
    | `cp`, `cr`, `cf1` | macro `precision`, `recall`, and `cf1`, the harmonic mean of the two |
    | `macro_f1`, `weighted_f1`, `example_f1` | F1 averaged over labels, over labels weighted by positives, over rows |
    | `pooled_accuracy`, `subset_accuracy` | share of correct entries, share of rows with all labels correct |
    | `coverage_error`, `lrap`, `ranking_loss`, `one_error` | metrics of the ranking of each row's labels |

    If torchmetrics is installed, an instance is also an instance of `torchmetrics.Metric` and can be part of a
    `MetricCollection`. It is a `torch.nn.Module` without parameters; `state_dict` does not contain the stored rows.

    Args:
        threshold: A number, or one for each label, shape `(L,)`, rounded to the dtype of `preds`; a label is predicted
            where `preds >= threshold`. It must be on the scale of the scores: 0.5 suits probabilities, and 0 gives the
            same predictions from logits. With None, all labels are predicted unless `top_k` excludes them.
        top_k: Labels are predicted only if they reach the threshold and are among the k highest scores of the row;
            among labels tied for the last places, those with the lowest indices are predicted. None: no limit.
        zero_division: Replacement for undefined values (0/0): nan, 0 or 1. Means exclude NaN; a mean over no values is
            undefined as well.
        label_names: Names of the L labels for reports, which otherwise show their indices.
        device: Device on which the rows are stored; by default the device of `preds`.
        sync_on_compute: Whether to evaluate the rows of all processes in a distributed run.

    Raises:
        ValueError: If `zero_division` is none of the values above.

    Examples:
        >>> import torch
        >>> from mlmetric.metrics import MultiLabelMetrics
        >>> metrics = MultiLabelMetrics(threshold=0.5)
        >>> metrics.update(torch.tensor([[0.9, 0.6], [0.8, 0.2]]), torch.tensor([[1, 0], [1, 0]]))
        >>> metrics.update(torch.tensor([[0.3, 0.7]]), torch.tensor([[1, 1]]))
        >>> values = metrics.compute()
        >>> f"{values['map']:.3f} {values['macro_f1']:.3f} {values['subset_accuracy']:.3f}"
        '1.000 0.733 0.333'
        >>> print(metrics.report(confidence_level=None).label_table())
        | label | support | average precision | precision | recall |    f1 |
        | ----- | ------: | ----------------: | --------: | -----: | ----: |
        | 0     |       3 |             1.000 |     1.000 |  0.667 | 0.800 |
        | 1     |       1 |             1.000 |     0.500 |  1.000 | 0.667 |
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
        self.device = device

    def update(self, preds: TensorLike, target: LabelsLike, mask: TensorLike | None = None) -> None:
        """Add a batch.

        Args:
            preds: Scores, shape `(N, L)`, any real dtype and scale: a tensor, an array, a list of rows, a scipy sparse
                matrix or a data frame.
            target: True labels, shape `(N, L)`, entries 0 and 1 of any dtype; a tensor, an array, a list of rows, a
                scipy sparse matrix or a data frame.
            mask: Entries to include, bool `(N, L)`; all by default. Excluded entries, such as labels that were not
                annotated, may contain any value.

        Raises:
            TypeError: If an argument does not contain real numbers.
            ValueError: If the shapes do not match, a score is NaN, an entry of `target` is neither 0 nor 1, or the
                number of columns or the dtype of `preds` differs from earlier batches: thresholds are rounded to the
                dtype of the scores.
        """
        predictions = check_predictions(preds, target, mask)
        num_labels = predictions.preds.shape[1]
        if self.label_names is not None and num_labels != len(self.label_names):
            raise ValueError(
                f"`preds` must have one column for each of the {len(self.label_names)} `label_names`, got {num_labels}."
            )
        self._check_consistent(predictions)
        device = self.device or predictions.preds.device
        # Copies, because the caller may write the next batch to the same memory.
        stored = (None if part is None else part.to(device, copy=True) for part in predictions)
        self._batches.append(Predictions(*stored))  # type: ignore[arg-type]

    def compute(self) -> dict[str, Tensor]:
        """Compute all metrics over the rows added so far in all processes.

        Returns:
            The keys above, each with a float64 0-d tensor on the device of the rows.

        Raises:
            ValueError: If there are no rows yet, or `threshold` or `top_k` does not suit the number of labels.
        """
        return self._compute(synced=self.sync_on_compute)

    def per_label(self) -> dict[str, Tensor]:
        """Compute the metrics of each label over the rows added so far in all processes.

        Returns:
            `support` (number of positives), `average_precision`, `precision`, `recall` and `f1`: float64 `(L,)` each,
            NaN where undefined, regardless of `zero_division`.

        Raises:
            ValueError: If there are no rows yet, or `threshold` or `top_k` does not suit the number of labels.
        """
        return self._summary(synced=self.sync_on_compute).per_label()

    def report(
        self,
        *,
        per_label: bool = False,
        confidence_level: float | None = 0.95,
        n_resamples: int = 1000,
        generator: torch.Generator | None = None,
    ) -> MetricsReport:
        """Compute all metrics over the rows added so far in all processes, and return a report that prints as a table.

        Args:
            per_label: Whether the printed report includes a second table with the metrics of each label.
            confidence_level: Nominal coverage of the bootstrap intervals, above 0 and below 1, as in
                `confidence_interval`; None for no intervals.
            n_resamples: Number of resamples of the bootstrap, at least 1.
            generator: CPU generator of the resamples; by default torch's global one, which `torch.manual_seed` seeds.
                In a distributed run all processes then use the same resamples.

        Returns:
            The values, their intervals, the number of labels or rows in each mean, and the metrics of each label.

        Raises:
            ValueError: If there are no rows yet, `threshold` or `top_k` does not suit the number of labels, or
                `confidence_level` or `n_resamples` is out of range.
        """
        summary = self._summary(synced=self.sync_on_compute)
        values = summary.values(self.zero_division)
        intervals = None
        if confidence_level is not None:
            preds = summary.predictions.preds
            intervals = bootstrap_intervals(
                values,
                lambda weights: summary.values(self.zero_division, weights.to(preds.device)),
                len(preds),
                confidence_level=confidence_level,
                n_resamples=n_resamples,
                generator=generator,
                synced=self.sync_on_compute,
            )
        return MetricsReport(
            values={key: float(value) for key, value in values.items()},
            num_averaged=summary.num_averaged(self.zero_division),
            intervals=intervals,
            confidence_level=confidence_level,
            per_label={key: each.tolist() for key, each in summary.per_label().items()},
            label_names=self.label_names,
            show_per_label=per_label,
        )

    def _compute(self, *, synced: bool) -> dict[str, Tensor]:
        return self._summary(synced=synced).values(self.zero_division)

    def _summary(self, *, synced: bool) -> MetricSummary:
        return MetricSummary(self._rows(synced=synced), self.threshold, self.top_k)

    def _rows(self, *, synced: bool) -> Predictions:
        """Concatenate all batches, of all processes if `synced`."""
        batches: list[Predictions] = self._batches
        masked_here = any(batch.mask is not None for batch in batches)
        masked = any(gather_objects(masked_here)) if synced else masked_here
        parts: list[Tensors] = [batch[:2] for batch in batches]
        if masked:
            parts = [(b.preds, b.target, torch.ones_like(b.target) if b.mask is None else b.mask) for b in batches]
        rows = concatenate_batches(parts, synced=synced, device=self.device)
        if rows is None:
            raise ValueError("`MultiLabelMetrics` has no rows yet: call `update` first.")
        return Predictions(*rows)

    def _named_tensors(self, batch: Predictions) -> dict[str, Tensor]:
        return {"preds": batch.preds}
