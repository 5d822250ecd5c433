"""How good decisions, rankings and embeddings are, on data that carries several labels at once.

Every function takes torch tensors and anything that `torch.as_tensor` or `numpy.asarray` takes, and returns a float64
tensor on the device of its first argument: 0-d for one number, `(L,)` for one number a label, `(N,)` for one a row or
query. Nothing is guessed: scores are ranked as they are, and compared with a `threshold` on their own scale.

`zero_division` says what takes the place of an undefined value (0/0), such as the recall of a label without positives:

- nan, the default: left out of means. `average="none"` shows which labels or queries these are.
- 0 or 1: this number, which means include. 0 gives scikit-learn's numbers.
"""

from mlmetric.metrics._average_precision import average_precision, mean_average_precision
from mlmetric.metrics._bootstrap import ConfidenceInterval, confidence_interval
from mlmetric.metrics._example_based import example_f1, hamming_loss, pooled_accuracy, subset_accuracy
from mlmetric.metrics._label_based import cf1, f1, of1, precision, recall
from mlmetric.metrics._label_ranking import (
    coverage_error,
    label_ranking_average_precision,
    one_error,
    ranking_loss,
)
from mlmetric.metrics._report import METRIC_NAMES, MetricsReport
from mlmetric.metrics._retrieval._graded import acg_at_k, ndcg_at_k, size_ratio_at_k, wmap_at_k
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
from mlmetric.metrics._table import MultiLabelMetrics
from mlmetric.metrics._thresholds import best_thresholds

__all__ = [
    "METRIC_NAMES",
    "ConfidenceInterval",
    "MetricsReport",
    "MultiLabelMetrics",
    "RetrievalMetrics",
    "acg_at_k",
    "average_precision",
    "best_thresholds",
    "cf1",
    "confidence_interval",
    "coverage_error",
    "example_f1",
    "f1",
    "hamming_loss",
    "hit_rate_at_k",
    "label_ranking_average_precision",
    "map_at_k",
    "map_at_r",
    "mean_average_precision",
    "mrr",
    "ndcg_at_k",
    "of1",
    "one_error",
    "pooled_accuracy",
    "precision",
    "precision_at_k",
    "r_precision",
    "ranking_loss",
    "recall",
    "recall_at_k",
    "size_ratio_at_k",
    "subset_accuracy",
    "wmap_at_k",
]
