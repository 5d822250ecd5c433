"""Some test images and the training images that they retrieve, with the share of each label in their similarity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from common.label_shares import label_shares
from mlmetric.neighbors import kneighbors

from .labelled_images import LabelledImages

_NUM_QUERIES, _NUM_NEIGHBOURS = 5, 5


def retrieve(embeddings: Tensor, images: LabelledImages, parts: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """Find the nearest training images of some test images.

    Returns:
        For each test image its path and labels, and the images that were found, nearest first, each with its path, its
        labels, and the share of each label in the Jaccard index.
    """
    step = max(1, len(parts["test"]) // _NUM_QUERIES)
    queries, train = parts["test"][::step][:_NUM_QUERIES], parts["train"]
    _, nearest = kneighbors(embeddings[train], min(_NUM_NEIGHBOURS, len(train)), queries=embeddings[queries])
    results = []
    for query, rows in zip(queries.tolist(), train[nearest].tolist(), strict=True):
        names, found = set(images.names_of(query)), [set(images.names_of(row)) for row in rows]
        results.append(
            {
                "image": images.paths[query],
                "labels": sorted(names),
                "found": [
                    {"image": images.paths[row], "labels": sorted(its_names), "shares": dict(shares)}
                    for row, its_names, shares in zip(rows, found, label_shares(names, found), strict=True)
                ],
            }
        )
    return results
