"""Explanation of search results: the share of each label in the similarity of the label sets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlmetric.search._hits import Hit
from mlmetric.search._rows import LabelSets, label_matrix
from mlmetric.search._search_index import SearchIndex
from mlmetric.similarity import Jaccard, SimilarityFunction, explain_similarity


def explain_hits(
    index: SearchIndex,
    hits: Sequence[Sequence[Hit]],
    labels: LabelSets,
    *,
    similarity: SimilarityFunction | None = None,
    seed: int = 0,
) -> list[list[dict[str, float]]]:
    """Divide the label similarity of each query and each of its hits among the labels.

    `Hit.shared` divides the Jaccard index among the labels that both rows have. This function supports any similarity,
    and also includes the labels that lower it. The shares are computed by
    [`explain_similarity`][mlmetric.similarity.explain_similarity]; by default they are the Shapley values of the labels
    in the Jaccard index.

    Args:
        index: The index, with labels.
        hits: For each query, the rows that a search of `index` found.
        labels: Labels of the queries, of any kind that `SearchIndex.add` accepts.
        similarity: A label similarity `(labels, ref_labels) -> (N, M)`, which receives float64; None uses `Jaccard()`.
        seed: Seed of the estimates for pairs with more than 12 labels, which `Jaccard()` does not need for label sets.

    Returns:
        For each hit, a dictionary from label name to share, the highest share first, ties in the order of the columns.
        Labels with a share of 0 are left out. The shares add up to the similarity.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If the index has no labels, `labels` do not fit the queries or the index, or a hit is not a row of
            the index.

    Examples:
        >>> from mlmetric.search import SearchIndex, explain_hits
        >>> index = SearchIndex(label_names=["cat", "dog", "indoors"])
        >>> index.add([[0.0, 0.0], [1.0, 0.0]], ids=["a.jpg", "b.jpg"], labels=[["cat"], ["cat", "indoors"]])
        >>> queries, labels = [[0.9, 0.0]], [["cat", "indoors"]]
        >>> hits = index.search(queries, k=2, labels=labels)
        >>> for hit, shares in zip(hits[0], explain_hits(index, hits, labels)[0]):
        ...     print(hit.id, hit.shared, shares)
        b.jpg {'cat': 0.5, 'indoors': 0.5} {'cat': 0.5, 'indoors': 0.5}
        a.jpg {'cat': 0.5} {'cat': 0.75, 'indoors': -0.25}
    """
    ref_labels, names = index.labels if len(index) else None, index.label_names
    if ref_labels is None:
        raise ValueError("`index` must have labels, got an index without labels.")
    num_labels = ref_labels.shape[1]
    query_labels = label_matrix(labels, names, len(hits), "hits", num_labels)
    names = [str(label) for label in range(num_labels)] if names is None else names
    wanted = {hit.id for found in hits for hit in found}
    row_numbers = {each: row for row, each in enumerate(index.ids) if each in wanted}
    if missing := wanted - row_numbers.keys():
        raise ValueError(
            f"`hits` must be rows of `index`, got the id {next(iter(missing))!r}, which it does not contain."
        )
    queries = [query for query, found in enumerate(hits) for _ in found]
    rows = [row_numbers[hit.id] for found in hits for hit in found]
    shares = explain_similarity(
        Jaccard() if similarity is None else similarity,
        query_labels[queries].astype(np.float64),
        ref_labels[rows].astype(np.float64),
        seed=seed,
    ).shares.numpy()
    order = np.argsort(-shares, axis=1, kind="stable").tolist()
    named = iter(
        {names[label]: float(values[label]) for label in labels if values[label]}
        for labels, values in zip(order, shares, strict=True)
    )
    return [[next(named) for _ in found] for found in hits]
