"""The similarity functions and the sums that they are made of."""

from __future__ import annotations

import torch
from torch import Tensor

from mlmetric.labels import check_labels


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

    Example:
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

    Example:
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

    Example:
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

    Example:
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

    Example:
        >>> cosine(torch.tensor([[1, 1, 0], [0, 1, 0], [0, 0, 1]]))
        tensor([[1.0000, 0.7071, 0.0000],
                [0.7071, 1.0000, 0.0000],
                [0.0000, 0.0000, 1.0000]])

    Source:
        Ochiai (1957) for sets.
    """
    sets = Sets(labels, ref_labels, weights, paired=paired)
    return sets.finish(ratio(sets.product(), (sets.squares * sets.ref_squares).sqrt_()))


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

    Example:
        >>> hamming(torch.tensor([[1, 1, 0], [0, 1, 0], [0, 0, 1]]))
        tensor([[1.0000, 0.6667, 0.0000],
                [0.6667, 1.0000, 0.3333],
                [0.0000, 0.3333, 1.0000]])

    Source:
        Hamming (1950).
    """
    sets = Sets(labels, ref_labels, weights, paired=paired)
    different = sets.sizes + sets.ref_sizes - 2 * sets.intersection()
    return sets.finish(1 - different / sets.weights.sum())


class Sets:
    """Two label matrices on one dtype and device, and what the formulas above are made of.

    Sums are taken in float64 wherever they are not counts and rounded once at the end, float64 results to 12 decimals,
    so that equal label sets get equal similarities and a strict `<` between two similarities sees no rounding noise.
    """

    def __init__(
        self, labels: Tensor, ref_labels: Tensor | None, weights: Tensor | None, *, paired: bool = False
    ) -> None:
        same = ref_labels is None or ref_labels is labels
        labels = torch.as_tensor(labels)
        ref_labels = labels if same else torch.as_tensor(ref_labels)
        check_labels(labels, validate_args=False)
        check_labels(ref_labels, name="ref_labels", validate_args=False)
        num_labels = labels.shape[1]
        if ref_labels.shape[1] != num_labels:
            raise ValueError(
                f"`labels` and `ref_labels` must have the same number of labels, "
                f"got {num_labels} and {ref_labels.shape[1]}."
            )
        if paired and len(ref_labels) != len(labels):
            raise ValueError(f"`paired` rows must be as many on both sides, got {len(labels)} and {len(ref_labels)}.")
        if weights is not None and weights.shape != (num_labels,):
            raise ValueError(
                f"`weights` must have shape ({num_labels},), one weight a label, got {tuple(weights.shape)}."
            )
        self.paired = paired
        self.out_dtype = torch.float64 if labels.dtype == torch.float64 else torch.float32
        self.hard = _is_hard(labels) and (ref_labels is labels or _is_hard(ref_labels))
        dtype = self.out_dtype if self.hard and weights is None else torch.float64
        self.labels = labels.to(dtype)
        self.ref_labels = self.labels if ref_labels is labels else ref_labels.to(self.labels)
        self.weights = self.labels.new_ones(num_labels) if weights is None else weights.to(self.labels)

    def product(self) -> Tensor:
        weighted = self.labels * self.weights
        if self.paired:
            return (weighted * self.ref_labels).sum(1)
        # Autocast would count in half precision.
        with torch.autocast(self.labels.device.type, enabled=False):
            return weighted @ self.ref_labels.T

    def intersection(self) -> Tensor:
        if self.hard:
            return self.product()
        if self.paired:
            return (torch.minimum(self.labels, self.ref_labels) * self.weights).sum(1)
        shared = self.labels.new_zeros(len(self.labels), len(self.ref_labels))
        # A pass a label: a sum that is exactly 0 between disjoint sets, in O(N*M) memory.
        for column, ref_column, weight in zip(self.labels.T, self.ref_labels.T, self.weights, strict=True):
            shared += weight * torch.minimum(column[:, None], ref_column)
        return shared

    @property
    def sizes(self) -> Tensor:
        return self._column((self.labels * self.weights).sum(1))

    @property
    def ref_sizes(self) -> Tensor:
        return (self.ref_labels * self.weights).sum(1)

    @property
    def squares(self) -> Tensor:
        return self._column((self.labels.square() * self.weights).sum(1))

    @property
    def ref_squares(self) -> Tensor:
        return (self.ref_labels.square() * self.weights).sum(1)

    def _column(self, values: Tensor) -> Tensor:
        return values if self.paired else values[:, None]

    def finish(self, similarity: Tensor) -> Tensor:
        if self.out_dtype == torch.float64:
            return similarity.round(decimals=12)
        return similarity.to(self.out_dtype)


def _is_hard(labels: Tensor) -> bool:
    if not labels.is_floating_point():
        return True
    return bool(((labels == 0) | (labels == 1)).all())


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Divide into the memory of `numerator`, 0 where the denominator is not above 0."""
    return numerator.div_(denominator.masked_fill(denominator <= 0, torch.inf))
