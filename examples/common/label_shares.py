"""Why two images are similar: the share of each label in the Jaccard index of their labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from mlmetric.similarity import explain_similarity, jaccard

SHARES_NOTE = (
    "The Jaccard index of two images is the number of labels that both have, divided by the number of labels that at "
    "least one of them has. The numbers after the labels (Shapley values) add up to it. They are positive for labels "
    "that both images have, and negative for labels that only one of them has, of which the sum is given."
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
    """Format the Jaccard index of two label sets, the positive shares of labels, and the sum of the negative ones."""
    pairs = list(shares)
    if not pairs:
        return "no label in common"
    negative = [(name, share) for name, share in pairs if share < 0]
    listed = [(name, share) for name, share in pairs if share > 0]
    if negative:
        name = negative[0][0] if len(negative) == 1 else f"{len(negative)} others"
        listed.append((name, sum(share for _, share in negative)))
    return f"Jaccard {sum(share for _, share in pairs):.2f}: {', '.join(f'{n} {share:+.2f}' for n, share in listed)}"
