"""The similarity functions."""

from __future__ import annotations

import torch
from torch import Tensor

from mlmetric.similarity._sets import Sets, ratio


def inner_product(
    labels: Tensor, ref_labels: Tensor | None = None, *, weights: Tensor | None = None, paired: bool = False
) -> Tensor:
    """Weigh the labels shared by two rows: `sum_l w_l y_l y'_l`.

    On multi-hot labels without weights this counts the shared labels. 0 is worst; there is no upper bound but the
    size of the sets. An all-zero row gives 0.

    Args:
        labels: Shape `(N, L)`, in [0, 1], any dtype.
        ref_labels: Shape `(M, L)`; `labels` itself by default.
        weights: Shape `(L,)`, >= 0; 1 for each label by default.
        paired: Compare row i with `ref_labels[i]` only.

    Returns:
        Shape `(N, M)`, or `(N,)` if `paired`; float32, or float64 where `labels` is.

    Raises:
        ValueError: If a shape does not fit.

    Examples:
        >>> inner_product(torch.tensor([[1, 1, 0], [0, 1, 1], [0, 0, 0]]))
        tensor([[2., 1., 0.],
                [1., 2., 0.],
                [0., 0., 0.]])
    """
    sets = Sets(labels, ref_labels, weights, paired=paired)
    return sets.finish(sets.product())


def jaccard(
    labels: Tensor, ref_labels: Tensor | None = None, *, weights: Tensor | None = None, paired: bool = False
) -> Tensor:
    """Divide the intersection of two label sets by their union.

    1 is best (equal sets), 0 worst (disjoint sets). Two all-zero rows have similarity 0: rows without labels share
    nothing, so they are positives of nobody.

    Args:
        labels: Shape `(N, L)`, in [0, 1], any dtype.
        ref_labels: Shape `(M, L)`; `labels` itself by default.
        weights: Shape `(L,)`, >= 0; 1 for each label by default.
        paired: Compare row i with `ref_labels[i]` only.

    Returns:
        Shape `(N, M)`, or `(N,)` if `paired`; float32, or float64 where `labels` is.

    Raises:
        ValueError: If a shape does not fit.

    Examples:
        >>> jaccard(torch.tensor([[1, 1, 0], [0, 1, 1], [0, 0, 0]]))
        tensor([[1.0000, 0.3333, 0.0000],
                [0.3333, 1.0000, 0.0000],
                [0.0000, 0.0000, 0.0000]])

    Source:
        Jaccard (1901); on soft labels the ratio of minima to maxima (Ruzicka 1958).
    """
    sets = Sets(labels, ref_labels, weights, paired=paired)
    shared = sets.intersection()
    return sets.finish(ratio(shared, (sets.sizes + sets.ref_sizes).sub_(shared)))


def dice(
    labels: Tensor, ref_labels: Tensor | None = None, *, weights: Tensor | None = None, paired: bool = False
) -> Tensor:
    """Divide the intersection of two label sets by their mean size.

    1 is best (equal sets), 0 worst (disjoint sets, or two all-zero rows).

    Args:
        labels: Shape `(N, L)`, in [0, 1], any dtype.
        ref_labels: Shape `(M, L)`; `labels` itself by default.
        weights: Shape `(L,)`, >= 0; 1 for each label by default.
        paired: Compare row i with `ref_labels[i]` only.

    Returns:
        Shape `(N, M)`, or `(N,)` if `paired`; float32, or float64 where `labels` is.

    Raises:
        ValueError: If a shape does not fit.

    Examples:
        >>> dice(torch.tensor([[1, 1, 0], [0, 1, 1], [0, 0, 1]]))
        tensor([[1.0000, 0.5000, 0.0000],
                [0.5000, 1.0000, 0.6667],
                [0.0000, 0.6667, 1.0000]])

    Source:
        Dice (1945), Sorensen (1948).
    """
    sets = Sets(labels, ref_labels, weights, paired=paired)
    return sets.finish(ratio(sets.intersection().mul_(2), sets.sizes + sets.ref_sizes))


def overlap(
    labels: Tensor, ref_labels: Tensor | None = None, *, weights: Tensor | None = None, paired: bool = False
) -> Tensor:
    """Divide the intersection of two label sets by the smaller of the two: the overlap coefficient.

    1 is best (one set contains the other), 0 worst (disjoint sets, or an all-zero row).

    Args:
        labels: Shape `(N, L)`, in [0, 1], any dtype.
        ref_labels: Shape `(M, L)`; `labels` itself by default.
        weights: Shape `(L,)`, >= 0; 1 for each label by default.
        paired: Compare row i with `ref_labels[i]` only.

    Returns:
        Shape `(N, M)`, or `(N,)` if `paired`; float32, or float64 where `labels` is.

    Raises:
        ValueError: If a shape does not fit.

    Examples:
        >>> overlap(torch.tensor([[1, 1, 0], [0, 1, 0], [0, 1, 1]]))
        tensor([[1.0000, 1.0000, 0.5000],
                [1.0000, 1.0000, 1.0000],
                [0.5000, 1.0000, 1.0000]])

    Source:
        Szymkiewicz (1934), Simpson (1960).
    """
    sets = Sets(labels, ref_labels, weights, paired=paired)
    return sets.finish(ratio(sets.intersection(), torch.minimum(sets.sizes, sets.ref_sizes)))


def cosine(
    labels: Tensor, ref_labels: Tensor | None = None, *, weights: Tensor | None = None, paired: bool = False
) -> Tensor:
    """Take the cosine of the angle between two label vectors.

    1 is best (same direction), 0 worst (disjoint sets, or an all-zero row).

    Args:
        labels: Shape `(N, L)`, in [0, 1], any dtype.
        ref_labels: Shape `(M, L)`; `labels` itself by default.
        weights: Shape `(L,)`, >= 0, of the inner product; 1 for each label by default.
        paired: Compare row i with `ref_labels[i]` only.

    Returns:
        Shape `(N, M)`, or `(N,)` if `paired`; float32, or float64 where `labels` is.

    Raises:
        ValueError: If a shape does not fit.

    Examples:
        >>> cosine(torch.tensor([[1, 1, 0], [0, 1, 0], [0, 0, 1]]))
        tensor([[1.0000, 0.7071, 0.0000],
                [0.7071, 1.0000, 0.0000],
                [0.0000, 0.0000, 1.0000]])

    Source:
        Ochiai (1957) for sets.
    """
    sets = Sets(labels, ref_labels, weights, paired=paired)
    # In float64, for a root in float32 would leave equal cosines of different sets a bit apart.
    lengths = (sets.squares.double() * sets.ref_squares).sqrt_()
    return sets.finish(ratio(sets.product().double(), lengths))


def hamming(
    labels: Tensor, ref_labels: Tensor | None = None, *, weights: Tensor | None = None, paired: bool = False
) -> Tensor:
    """Take the share of labels on which two rows agree, absent labels included: 1 - Hamming distance.

    1 is best (equal rows, two all-zero rows among them), 0 worst (each label differs). Disjoint sets do not have
    similarity 0 here: with this similarity a miner's `positive_threshold=0` says little; choose a higher one.

    Args:
        labels: Shape `(N, L)`, in [0, 1], any dtype.
        ref_labels: Shape `(M, L)`; `labels` itself by default.
        weights: Shape `(L,)`, >= 0, with a sum above 0; 1 for each label by default.
        paired: Compare row i with `ref_labels[i]` only.

    Returns:
        Shape `(N, M)`, or `(N,)` if `paired`; float32, or float64 where `labels` is.

    Raises:
        ValueError: If a shape does not fit.

    Examples:
        >>> hamming(torch.tensor([[1, 1, 0], [0, 1, 0], [0, 0, 1]]))
        tensor([[1.0000, 0.6667, 0.0000],
                [0.6667, 1.0000, 0.3333],
                [0.0000, 0.3333, 1.0000]])

    Source:
        Hamming (1950).
    """
    sets = Sets(labels, ref_labels, weights, paired=paired)
    # Nothing is subtracted, so that no rounding is left where all labels differ.
    return sets.finish((sets.intersection() + sets.complement().intersection()) / sets.weights.sum())
