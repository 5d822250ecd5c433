"""The names of metrics in tables, and what they mean."""

from __future__ import annotations

from collections.abc import Iterable

from mlmetric.metrics import METRIC_NAMES

THRESHOLD_METRICS = (
    "op",
    "or",
    "of1",
    "cp",
    "cr",
    "cf1",
    "macro_f1",
    "weighted_f1",
    "example_f1",
    "pooled_accuracy",
    "subset_accuracy",
)
"""Metrics that depend on the threshold."""
CHOSEN = "_chosen"
"""Suffix of metrics at thresholds that are chosen on the validation part."""
LABEL_FREQUENCIES = "label frequencies"
"""The baseline that predicts for every image the frequency of each label in the training part."""
LINEAR_PROBE = "raw features, linear probe"
"""The baseline that trains a logistic regression of the features, and retrieves by the features."""
RETRIEVAL = {
    "ndcg_at_10": "NDCG@10",
    "precision_at_10": "P@10",
    "retrieval_map": "mAP of retrieval",
    "size_ratio_at_10": "size ratio@10",
}
"""The metrics of retrieval."""
_CHOSEN_NAMES = {f"{key}{CHOSEN}": f"{METRIC_NAMES[key]}*" for key in THRESHOLD_METRICS}
ALL_NAMES = METRIC_NAMES | _CHOSEN_NAMES | RETRIEVAL
"""The names of all metrics, in the order of the table of a run."""
COLUMNS = {
    "map": "mAP",
    "macro_f1": "macro F1",
    "of1": "overall F1",
    "pooled_accuracy": "pooled acc.",
    "macro_f1_chosen": "macro F1*",
    "of1_chosen": "overall F1*",
    "ndcg_at_10": "NDCG@10",
    "precision_at_10": "P@10",
}
"""The metrics in the comparison of methods; the report of a single run has all metrics."""
FIGURE_COLUMNS = {
    key: COLUMNS[key] for key in ("map", "macro_f1_chosen", "of1_chosen", "ndcg_at_10", "precision_at_10")
}
"""The metrics in the figure of a comparison."""

_MEANINGS = {
    "map": "mean over the labels of the average precision of the ranking of the images",
    "micro_ap": "average precision of one ranking of all pairs of an image and a label",
    "op": "share of the predicted labels that are true",
    "or": "share of the true labels that are predicted",
    "of1": "F1 of the decisions on all labels together, the harmonic mean of their precision and recall",
    "cp": "mean over the labels of the precision",
    "cr": "mean over the labels of the recall",
    "cf1": "harmonic mean of CP and CR",
    "macro_f1": "mean over the labels of F1",
    "weighted_f1": "mean over the labels of F1, weighted by their numbers of images",
    "example_f1": "mean over the images of the F1 of their labels",
    "pooled_accuracy": "share of the pairs of an image and a label that are decided correctly, high even without any "
    "predicted label if labels are rare",
    "subset_accuracy": "share of the images whose labels are all decided correctly",
    "coverage_error": "mean number of top-ranked labels of an image that include all its labels; lower is better",
    "lrap": "mean over the images of the average precision of the ranking of the labels",
    "ranking_loss": "share of the pairs of a true and another label of an image in the wrong order; lower is better",
    "one_error": "share of the images whose top-ranked label is wrong; lower is better",
    "ndcg_at_10": "quality of the ranking of the 10 training images that are nearest to a test image; the gain of an "
    "image is the Jaccard similarity of the label sets",
    "precision_at_10": "share of these 10 images that have a label in common with the test image",
    "retrieval_map": "mean over the test images of the average precision of the ranking of all training images, of "
    "which those with a label in common are relevant",
    "size_ratio_at_10": "mean number of labels of the 10 images, divided by that of all training images",
}
_AT_THRESHOLDS = (
    "*: at thresholds chosen on the validation part, one for each label; a label without images there has the common "
    "threshold of all labels"
)
_AT_HALF = "without *: F1, precision, recall and accuracy at a probability of 0.5"
_ROWS = {
    LABEL_FREQUENCIES: "predicts for every image the share of the training images that have a label",
    LINEAR_PROBE: "a logistic regression of the features for each label; images are retrieved by the features",
}


def explanations(keys: Iterable[str], names: dict[str, str], rows: Iterable[str] = ()) -> str:
    """Explain the metrics and the baselines of a table.

    Args:
        keys: The metrics that the table contains.
        names: Their names in the table.
        rows: The methods that the table contains.

    Returns:
        A Markdown list.
    """
    present = set(keys)
    lines = [f"{method}: {text}" for method, text in _ROWS.items() if method in set(rows)]
    bases = {key.removesuffix(CHOSEN): names[key].removesuffix("*") for key in names if key in present}
    lines += [f"{name}: {_MEANINGS[key]}" for key, name in bases.items()]
    lines += [_AT_THRESHOLDS] if any(key.endswith(CHOSEN) for key in present) else []
    lines += [_AT_HALF] if present & set(THRESHOLD_METRICS) else []
    return "\n".join(["On the test part:", "", *(f"- {line}" for line in lines)])
