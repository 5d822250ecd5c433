"""Comparison of each row of a label matrix with the same row of another one, by any similarity."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mlmetric.similarity._set_similarities import cosine, dice, hamming, inner_product, jaccard, overlap
from mlmetric.similarity._similarity_classes import (
    Cosine,
    Dice,
    Hamming,
    InnerProduct,
    Jaccard,
    Overlap,
    SimilarityFunction,
    _Clamped,
    _Scaled,
    _Sum,
    _Weighted,
    compare_labels,
)
from mlmetric.similarity._soft_cosine import SoftCosine

_FUNCTIONS = {
    Cosine: cosine,
    Dice: dice,
    Hamming: hamming,
    InnerProduct: inner_product,
    Jaccard: jaccard,
    Overlap: overlap,
}
_ROWS_PER_BLOCK = 64


def as_function(similarity: SimilarityFunction) -> tuple[Callable[..., Tensor], Tensor | None]:
    """Return the function and the weights of a similarity of this package, or any other callable itself and None."""
    if type(similarity) in _FUNCTIONS and isinstance(similarity, _Weighted):  # a subclass may compute something else
        return _FUNCTIONS[type(similarity)], similarity.weights
    return similarity, None


def linear_parts(similarity: SimilarityFunction, factor: float = 1.0) -> list[tuple[float, SimilarityFunction]]:
    """Return a similarity as a weighted sum: the factor and the similarity of each term."""
    if type(similarity) is _Sum:
        return linear_parts(similarity.first, factor) + linear_parts(similarity.second, factor)
    if type(similarity) is _Scaled:
        return linear_parts(similarity.base, factor * similarity.factor)
    return [(factor, similarity)]


def compare_pairs(similarity: SimilarityFunction, labels: Tensor, ref_labels: Tensor) -> Tensor:
    """Compare row i of `labels` with row i of `ref_labels`.

    Similarities of this package that support it compute only the N values. Any other similarity compares blocks of
    rows, and only the diagonals of the results are used.

    Args:
        similarity: A label similarity `(labels, ref_labels) -> (N, M)`.
        labels: Shape `(N, L)`.
        ref_labels: Shape `(N, L)`.

    Returns:
        float64, shape `(N,)`.

    Raises:
        TypeError: If `similarity` does not return a tensor.
        ValueError: If it returns a wrong shape or NaN.
    """
    if type(similarity) is _Sum or type(similarity) is _Scaled:
        parts = linear_parts(similarity)
        return torch.stack([factor * compare_pairs(part, labels, ref_labels) for factor, part in parts]).sum(0)
    if type(similarity) is _Clamped:
        return compare_pairs(similarity.base, labels, ref_labels).clamp(similarity.min, similarity.max)
    if type(similarity) is SoftCosine:
        return similarity._compare_pairs(labels, ref_labels).double()
    function, weights = as_function(similarity)
    if function in _FUNCTIONS.values():
        return function(labels, ref_labels, weights=weights, paired=True).double()
    blocks = zip(*(torch.split(each, _ROWS_PER_BLOCK) for each in (labels, ref_labels)), strict=True)
    return torch.cat([compare_labels(similarity, rows, refs).diagonal().double() for rows, refs in blocks])
