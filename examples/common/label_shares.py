"""Why two images are alike: the share of each label in the Jaccard index of their labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from mlmetric.similarity import explain_similarity, jaccard

SHARES_NOTE = (
    "The Jaccard index of two images is the number of labels that both have, divided by the number of labels that at "
    "least one of them has. The numbers after the labels (Shapley values) add up to it: they are positive for labels of "
    "both images, and negative for labels of only one of them."
)


def label_shares(query: set[str], found: Sequence[set[str]]) -> list[list[tuple[str, float]]]:
    """Return the labels of the query and of each image that was found, with their shares, highest first.

    Labels with a share of 0, such as those of images without a common label, are left out.
    """
    names = sorted(query.union(*found)) or ["none"]
    matrix = np.array([[name in labels for name in names] for labels in (query, *found)], dtype=np.float64)
    shares = explain_similarity(jaccard, matrix[:1], matrix[1:]).shares.tolist()
    ordered = [sorted(zip(names, row, strict=True), key=lambda item: -item[1]) for row in shares]
    return [[(name, share) for name, share in row if share] for row in ordered]


def similarity_text(shares: Iterable[tuple[str, float]]) -> str:
    """Format the Jaccard index of two label sets, and the shares that do not round to 0."""
    pairs = list(shares)
    listed = [f"{name} {share:+.2f}" for name, share in pairs if abs(share) >= 0.005]
    return f"Jaccard {sum(share for _, share in pairs):.2f}: {', '.join(listed)}" if pairs else "no label in common"
