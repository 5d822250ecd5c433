"""How alike two label sets are: functions on label matrices, and configured callables that combine.

A similarity is any callable `(labels, ref_labels) -> (N, M)`, larger is more alike. The functions here are such
callables; the classes carry a configuration, and they add, scale and clamp:
`0.5 * Jaccard() + 0.5 * Semantic(relation)`.

Soft labels are read as fuzzy sets: the intersection of two is the sum of the smaller share of each label, the size
is the sum of the shares. So every similarity of sets lies in [0, 1], is 1 between equal non-empty sets, exactly 0
between disjoint ones, and on multi-hot labels equals the similarity of plain sets. `inner_product`, `cosine` and
`Semantic` read them as vectors. Values are not checked: labels outside [0, 1] give numbers without a meaning.

Wherever this library compares a similarity with a threshold it does so by `exceeds`, or by `reaches` where equal is
enough: a similarity of exactly 2/3 is not above 2/3, whatever the dtype of the labels and however it was computed.
"""

from mlmetric.similarity._callables import (
    Cosine,
    Dice,
    Hamming,
    InnerProduct,
    Jaccard,
    Overlap,
    Semantic,
    Similarity,
    SimilarityFunction,
)
from mlmetric.similarity._checked import check_similarity, compare_labels
from mlmetric.similarity._functions import cosine, dice, hamming, inner_product, jaccard, overlap
from mlmetric.similarity._thresholds import exceeds, reaches
from mlmetric.similarity._weights import inverse_frequency_weights

__all__ = [
    "Cosine",
    "Dice",
    "Hamming",
    "InnerProduct",
    "Jaccard",
    "Overlap",
    "Semantic",
    "Similarity",
    "SimilarityFunction",
    "check_similarity",
    "compare_labels",
    "cosine",
    "dice",
    "exceeds",
    "hamming",
    "inner_product",
    "inverse_frequency_weights",
    "jaccard",
    "overlap",
    "reaches",
]
