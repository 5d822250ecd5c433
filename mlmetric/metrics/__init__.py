"""Metrics of predicted labels, probabilities, label rankings and retrieval for multi-label data.

Functions accept numbers as torch tensors, arrays, lists, scipy sparse matrices or data frames (`TensorLike` in
signatures), and return a float64 tensor on the device of their first argument: 0-d for a single number, `(L,)` for one
number for each label, `(N,)` for one for each query. Scores are ranked without transformation and compared with a
`threshold` on their own scale; whether they are probabilities or logits is never inferred. `calibration_error`,
`brier_score`, `log_loss` and `reliability_curve` require probabilities.

`zero_division` replaces undefined values (0/0), such as the recall of a label without positives:

- nan, the default: means exclude undefined values. `average="none"` shows which labels or queries these are.
- 0 or 1: undefined values are replaced by this number, which means include. 0 gives the values of scikit-learn.

With `metric="retrieved"` the retrieval metrics evaluate row numbers that any search returned. -1 at the end of a row
means that the search found fewer rows, as an approximate search may. A missing row has grade 0 and is not relevant.
Denominators do not change: precision and ACG divide by k, NDCG by the highest DCG that the whole database allows, mAP
and recall by what is relevant in the whole database; mAP with `denominator="hits"` and WMAP divide by the relevant rows
that were retrieved. Only the size ratio is a mean over the retrieved rows. A query for which nothing was retrieved has
the value 0 where it is defined; its size ratio is undefined. `neighbor_recall` compares the result of the search with
that of an exact search.
"""

from mlmetric.metrics._average_precision import average_precision, mean_average_precision
from mlmetric.metrics._bootstrap import ConfidenceInterval, confidence_interval
from mlmetric.metrics._calibration_error import calibration_error
from mlmetric.metrics._example_based import example_f1, hamming_loss, pooled_accuracy, subset_accuracy
from mlmetric.metrics._label_based import cf1, f1, of1, precision, recall
from mlmetric.metrics._label_ranking import (
    coverage_error,
    label_ranking_average_precision,
    one_error,
    ranking_loss,
)
from mlmetric.metrics._metrics_report import METRIC_NAMES, MetricsReport
from mlmetric.metrics._multi_label_metrics import MultiLabelMetrics
from mlmetric.metrics._proper_scores import brier_score, log_loss
from mlmetric.metrics._reliability_curve import ReliabilityCurve, reliability_curve
from mlmetric.metrics._retrieval._graded import acg_at_k, ndcg_at_k, size_ratio_at_k, wmap_at_k
from mlmetric.metrics._retrieval._neighbor_recall import neighbor_recall
from mlmetric.metrics._retrieval._relevance import (
    hit_rate_at_k,
    map_at_k,
    map_at_r,
    mrr,
    precision_at_k,
    r_precision,
    recall_at_k,
)
from mlmetric.metrics._retrieval._retrieval_metrics import RetrievalMetrics
from mlmetric.metrics._threshold_search import best_thresholds

__all__ = [
    "METRIC_NAMES",
    "ConfidenceInterval",
    "MetricsReport",
    "MultiLabelMetrics",
    "ReliabilityCurve",
    "RetrievalMetrics",
    "acg_at_k",
    "average_precision",
    "best_thresholds",
    "brier_score",
    "calibration_error",
    "cf1",
    "confidence_interval",
    "coverage_error",
    "example_f1",
    "f1",
    "hamming_loss",
    "hit_rate_at_k",
    "label_ranking_average_precision",
    "log_loss",
    "map_at_k",
    "map_at_r",
    "mean_average_precision",
    "mrr",
    "ndcg_at_k",
    "neighbor_recall",
    "of1",
    "one_error",
    "pooled_accuracy",
    "precision",
    "precision_at_k",
    "r_precision",
    "ranking_loss",
    "recall",
    "recall_at_k",
    "reliability_curve",
    "size_ratio_at_k",
    "subset_accuracy",
    "wmap_at_k",
]
