"""Similarities of label sets: functions of label matrices, and objects with parameters that can be combined.

A similarity is any callable `(labels, ref_labels) -> (N, M)`, larger is more similar. The functions of this module are
such callables. The classes have parameters, and can be added, scaled and clamped:
`0.5 * Jaccard() + 0.5 * SoftCosine(label_similarity)`.

Soft labels are treated as fuzzy sets: the size of an intersection is the sum of the smaller of the two values of each
label, and the size of a set is the sum of its values. So `jaccard`, `dice` and `overlap` lie in [0, 1], are 1 for equal
non-empty sets and exactly 0 for disjoint ones, and on multi-hot labels equal the similarity of ordinary sets.
`inner_product`, `cosine` and `SoftCosine` treat label rows as vectors. Values are not checked: the result for labels
outside [0, 1] is meaningless.

NaN marks a missing label, one that is not annotated. Two rows are then compared on K(a, b), the labels annotated in
both rows, as if there were no others: `jaccard` is |a and b| / |a or b| over K(a, b). The similarity is NaN if K(a, b)
is empty or its labels have the weight 0: such rows cannot be compared. If both rows are all-zero on K(a, b), they count
as all-zero rows: the similarity of a pair never depends on other rows. The sum of two similarities is NaN where one of
them is; `clamp` and factors do not change NaN. `SoftCosine` does not support missing labels.

This library compares similarities with thresholds by `exceeds`, or by `reaches` where equality is enough: a similarity
of exactly 2/3 does not exceed 2/3, whatever the dtype of the labels and however it was computed.

`explain_similarity` says why two rows are alike: it divides their similarity among the labels.
"""

from mlmetric.similarity._explain_similarity import LabelShares, explain_similarity
from mlmetric.similarity._label_weights import inverse_frequency_weights
from mlmetric.similarity._set_similarities import cosine, dice, hamming, inner_product, jaccard, overlap
from mlmetric.similarity._similarity_classes import (
    Cosine,
    Dice,
    Hamming,
    InnerProduct,
    Jaccard,
    Overlap,
    Similarity,
    SimilarityFunction,
    check_similarity,
    compare_labels,
)
from mlmetric.similarity._soft_cosine import SoftCosine
from mlmetric.similarity._threshold_comparison import exceeds, reaches

__all__ = [
    "Cosine",
    "Dice",
    "Hamming",
    "InnerProduct",
    "Jaccard",
    "LabelShares",
    "Overlap",
    "Similarity",
    "SimilarityFunction",
    "SoftCosine",
    "check_similarity",
    "compare_labels",
    "cosine",
    "dice",
    "exceeds",
    "explain_similarity",
    "hamming",
    "inner_product",
    "inverse_frequency_weights",
    "jaccard",
    "overlap",
    "reaches",
]
