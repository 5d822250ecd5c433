"""Similarities of label sets, as functions of label matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from mlmetric._docstrings import inherit_docs
from mlmetric.labels import LabelsLike
from mlmetric.similarity._pairwise_sums import PairwiseSums, ratio


def inner_product(
    labels: LabelsLike, ref_labels: LabelsLike | None = None, *, weights: Tensor | None = None, paired: bool = False
) -> Tensor:
    """Compute the weighted inner product of label vectors, `sum_l w_l y_l y'_l`.

    On multi-hot labels without weights, it is the number of shared labels. The lowest value is 0; there is no fixed
    upper bound. An all-zero row has similarity 0 to every row. With missing labels, the sum is over the labels
    annotated in both rows.

    Args:
        labels: Shape `(N, L)`, entries in [0, 1], any dtype, of any kind that
            [`check_labels`][mlmetric.labels.check_labels] reads; NaN for labels that are not annotated. The values are
            not checked.
        ref_labels: Shape `(M, L)`, compared with `labels`; None for `labels` itself.
        weights: Weight of each label, shape `(L,)`, >= 0; None for equal weights of 1.
        paired: Whether row i is compared with `ref_labels[i]` only, as in scikit-learn's `paired_distances`.

    Returns:
        Shape `(N, M)`, or `(N,)` with `paired=True`; float64 if `labels` is float64, else float32. NaN for pairs of
        rows without a label of weight above 0 that is annotated in both.

    Raises:
        TypeError: If `labels` or `ref_labels` does not contain numbers, such as lists of label names.
        ValueError: If a label matrix is not two-dimensional, the numbers of labels differ, `weights` has another shape,
            or the numbers of rows differ with `paired=True`.

    Examples:
        >>> import torch
        >>> from mlmetric.similarity import inner_product
        >>> inner_product(torch.tensor([[1, 1, 0], [0, 1, 1], [0, 0, 0]]))
        tensor([[2., 1., 0.],
                [1., 2., 0.],
                [0., 0., 0.]])
    """
    sums = PairwiseSums(labels, ref_labels, weights, paired=paired)
    return sums.round_result(sums.product())


@inherit_docs(inner_product)
def jaccard(
    labels: LabelsLike, ref_labels: LabelsLike | None = None, *, weights: Tensor | None = None, paired: bool = False
) -> Tensor:
    """Compute the Jaccard index: the size of the intersection of two label sets divided by the size of their union.

    It is 1 for equal sets and 0 for disjoint sets. An all-zero row has similarity 0 to every row, including another
    all-zero row, so it is never a positive. With missing labels, only the labels annotated in both rows are used.

    Examples:
        >>> import torch
        >>> from mlmetric.similarity import jaccard
        >>> jaccard(torch.tensor([[1, 1, 0], [0, 1, 1], [0, 0, 0]]))
        tensor([[1.0000, 0.3333, 0.0000],
                [0.3333, 1.0000, 0.0000],
                [0.0000, 0.0000, 0.0000]])
        >>> jaccard(torch.tensor([[1, 1, torch.nan], [1, 0, 1], [torch.nan, torch.nan, 1]]))
        tensor([[1.0000, 0.5000,    nan],
                [0.5000, 1.0000, 1.0000],
                [   nan, 1.0000, 1.0000]])

    Source:
        Jaccard (1901). On soft labels, it is the sum of the minima divided by the sum of the maxima (Ruzicka 1958).
    """
    sums = PairwiseSums(labels, ref_labels, weights, paired=paired)
    shared = sums.intersection()
    sizes, ref_sizes = sums.sizes()
    return sums.round_result(ratio(shared, (sizes + ref_sizes).sub_(shared)))


@inherit_docs(inner_product)
def dice(
    labels: LabelsLike, ref_labels: LabelsLike | None = None, *, weights: Tensor | None = None, paired: bool = False
) -> Tensor:
    """Compute the Dice coefficient: the size of the intersection of two label sets divided by their mean size.

    It is 1 for equal sets and 0 for disjoint sets. An all-zero row has similarity 0 to every row. With missing labels,
    only the labels annotated in both rows are used.

    Examples:
        >>> import torch
        >>> from mlmetric.similarity import dice
        >>> dice(torch.tensor([[1, 1, 0], [0, 1, 1], [0, 0, 1]]))
        tensor([[1.0000, 0.5000, 0.0000],
                [0.5000, 1.0000, 0.6667],
                [0.0000, 0.6667, 1.0000]])

    Source:
        Dice (1945), Sorensen (1948).
    """
    sums = PairwiseSums(labels, ref_labels, weights, paired=paired)
    sizes, ref_sizes = sums.sizes()
    return sums.round_result(ratio(sums.intersection().mul_(2), sizes + ref_sizes))


@inherit_docs(inner_product)
def overlap(
    labels: LabelsLike, ref_labels: LabelsLike | None = None, *, weights: Tensor | None = None, paired: bool = False
) -> Tensor:
    """Compute the overlap coefficient: the size of the intersection divided by the size of the smaller label set.

    It is 1 if one set contains the other, and 0 for disjoint sets. An all-zero row has similarity 0 to every row. With
    missing labels, only the labels annotated in both rows are used.

    Examples:
        >>> import torch
        >>> from mlmetric.similarity import overlap
        >>> overlap(torch.tensor([[1, 1, 0], [0, 1, 0], [0, 1, 1]]))
        tensor([[1.0000, 1.0000, 0.5000],
                [1.0000, 1.0000, 1.0000],
                [0.5000, 1.0000, 1.0000]])

    Source:
        Szymkiewicz (1934), Simpson (1960).
    """
    sums = PairwiseSums(labels, ref_labels, weights, paired=paired)
    return sums.round_result(ratio(sums.intersection(), torch.minimum(*sums.sizes())))


@inherit_docs(inner_product)
def cosine(
    labels: LabelsLike, ref_labels: LabelsLike | None = None, *, weights: Tensor | None = None, paired: bool = False
) -> Tensor:
    """Compute the cosine of the angle between label vectors.

    It is 1 for vectors of the same direction and 0 for disjoint sets. An all-zero row has similarity 0 to every row.
    With missing labels, only the labels annotated in both rows are used.

    Examples:
        >>> import torch
        >>> from mlmetric.similarity import cosine
        >>> cosine(torch.tensor([[1, 1, 0], [0, 1, 0], [0, 0, 1]]))
        tensor([[1.0000, 0.7071, 0.0000],
                [0.7071, 1.0000, 0.0000],
                [0.0000, 0.0000, 1.0000]])

    Source:
        Ochiai (1957) for sets.
    """
    sums = PairwiseSums(labels, ref_labels, weights, paired=paired)
    # In float64: a square root in float32 could give different values for equal cosines.
    squares, ref_squares = sums.squares()
    lengths = (squares.double() * ref_squares).sqrt_()
    return sums.round_result(ratio(sums.product().double(), lengths))


@inherit_docs(inner_product, weights=">= 0;=>>= 0, with a sum above 0;")
def hamming(
    labels: LabelsLike, ref_labels: LabelsLike | None = None, *, weights: Tensor | None = None, paired: bool = False
) -> Tensor:
    """Compute the share of labels on which two rows agree, absent labels included: 1 - Hamming distance.

    It is 1 for equal rows, including two all-zero rows, and 0 if every label differs. Disjoint sets can have a
    similarity above 0: with a miner, choose a `positive_threshold` above 0. With missing labels, it is the share among
    the labels annotated in both rows.

    Examples:
        >>> import torch
        >>> from mlmetric.similarity import hamming
        >>> hamming(torch.tensor([[1, 1, 0], [0, 1, 0], [0, 0, 1]]))
        tensor([[1.0000, 0.6667, 0.0000],
                [0.6667, 1.0000, 0.3333],
                [0.0000, 0.3333, 1.0000]])

    Source:
        Hamming (1950).
    """
    sums = PairwiseSums(labels, ref_labels, weights, paired=paired)
    # Without a subtraction, so that the result is exactly 0 where all labels differ.
    return sums.round_result((sums.intersection() + sums.complement().intersection()) / sums.total_weight())
