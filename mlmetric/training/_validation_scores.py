"""Scores of validation rows, some of whose labels may be missing."""

from __future__ import annotations

import torch
from torch import Tensor

from mlmetric._label_matrix import annotated_mask, has_missing
from mlmetric.metrics import mean_average_precision, ndcg_at_k
from mlmetric.similarity import jaccard

_K = 10
_MAX_PAIRS = 10_000_000


def label_score(scores: Tensor, target: Tensor) -> float:
    """Compute the macro mAP of the annotated labels, which are 0 or 1."""
    return float(mean_average_precision(scores, target, mask=annotated_mask(target)))


def retrieval_score(embeddings: Tensor, labels: Tensor, ref_emb: Tensor, ref_labels: Tensor) -> float:
    """Compute the NDCG@10 of queries in a database, with the Jaccard similarity of the labels as gain.

    With missing labels, the similarity compares the labels that are annotated in both rows, and a row without such a
    label is left out of the ranking for this query. Queries without a similar row are left out of the mean.

    Args:
        embeddings: Embeddings of the queries, shape `(N, D)`.
        labels: Labels of the queries, shape `(N, L)`; NaN for missing labels.
        ref_emb: Embeddings of the database, shape `(M, D)`.
        ref_labels: Labels of the database, shape `(M, L)`; NaN for missing labels.

    Returns:
        The mean; NaN if no query has a similar row.
    """
    if not has_missing(labels) and not has_missing(ref_labels):
        return float(ndcg_at_k(embeddings, labels, ref_emb, ref_labels, k=_K))
    depth, refs = min(_K, len(ref_emb)), ref_emb.double()
    discounts = 1 / torch.arange(2, depth + 2, dtype=torch.float64, device=refs.device).log2()
    values = []
    rows = max(1, _MAX_PAIRS // len(refs))
    for queries, own in zip(torch.split(embeddings.double(), rows), torch.split(labels, rows), strict=True):
        grades = jaccard(own, ref_labels).double()
        distances = torch.cdist(queries, refs).masked_fill(grades.isnan(), torch.inf)
        grades = grades.nan_to_num(0)  # at the end of the ranking, where it adds nothing
        nearest = distances.topk(depth, dim=1, largest=False).indices
        gain, highest = grades.gather(1, nearest) @ discounts, grades.topk(depth, dim=1).values @ discounts
        values.append(gain / highest)
    return float(torch.cat(values).nanmean())
