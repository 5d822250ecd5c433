"""Sums over labels, for each pair of rows, from which the similarity functions are computed."""

from __future__ import annotations

from copy import copy

import torch
from torch import Tensor

from mlmetric._label_matrix import has_missing, known_labels
from mlmetric.labels import LabelsLike, label_tensor
from mlmetric.similarity._autocast import without_autocast

_CHUNK_ELEMENTS = 2**18
"""Number of elements of the (rows, M, L) minima that are computed together."""


class PairwiseSums:
    """Sums over labels for the pairs of rows of two label matrices of the same dtype, on the same device.

    Sums that are not counts are computed in float64. `round_result` rounds the similarity once (a float64 result to 12
    digits), so that equal label sets have equal similarities, and a strict `<` is not affected by rounding errors.

    If a label is missing (NaN), each sum is over the labels annotated in both rows of the pair, so that sizes and
    squares depend on both rows; `round_result` sets pairs without such a label of weight above 0 to NaN.

    Args:
        labels: Shape `(N, L)`.
        ref_labels: Shape `(M, L)`; None for `labels`.
        weights: Shape `(L,)`; None for equal weights of 1.
        paired: Whether row i is compared with `ref_labels[i]` only.

    Attributes:
        missing: Whether a label is missing.
    """

    def __init__(
        self, labels: LabelsLike, ref_labels: LabelsLike | None, weights: Tensor | None, *, paired: bool = False
    ) -> None:
        same = ref_labels is None or ref_labels is labels
        labels = label_tensor(labels, validate_args=False)
        ref_labels = (
            labels if same or ref_labels is None else label_tensor(ref_labels, name="ref_labels", validate_args=False)
        )
        num_labels = labels.shape[1]
        if ref_labels.shape[1] != num_labels:
            raise ValueError(
                f"`labels` and `ref_labels` must have the same number of labels, "
                f"got {num_labels} and {ref_labels.shape[1]}."
            )
        if paired and len(ref_labels) != len(labels):
            raise ValueError(
                f"`labels` and `ref_labels` must have the same number of rows with `paired=True`, "
                f"got {len(labels)} and {len(ref_labels)}."
            )
        if weights is not None and weights.shape != (num_labels,):
            raise ValueError(
                f"`weights` must have shape ({num_labels},), one weight per label, got {tuple(weights.shape)}."
            )
        self.paired = paired
        self.out_dtype = torch.float64 if labels.dtype == torch.float64 else torch.float32
        self.multi_hot = _is_multi_hot(labels) and (ref_labels is labels or _is_multi_hot(ref_labels))
        self.missing = not self.multi_hot and (
            has_missing(labels) or (ref_labels is not labels and has_missing(ref_labels))
        )
        if self.missing:
            same = ref_labels is labels
            labels, known = known_labels(labels)
            ref_labels, ref_known = (labels, known) if same else known_labels(ref_labels)
            self.multi_hot = _is_multi_hot(labels) and _is_multi_hot(ref_labels)
        dtype = self.out_dtype if self.multi_hot and weights is None else torch.float64
        self.labels = labels.to(dtype)
        self.ref_labels = self.labels if ref_labels is labels else ref_labels.to(self.labels)
        self.weights = None if weights is None else weights.to(self.labels)
        if self.missing:
            self.known, self.ref_known = known.to(self.labels), ref_known.to(self.labels)

    def complement(self) -> PairwiseSums:
        """Return the sums for the complements of the label sets."""
        complement = copy(self)
        known, ref_known = (self.known, self.ref_known) if self.missing else (1, 1)
        complement.labels, complement.ref_labels = known - self.labels, ref_known - self.ref_labels
        return complement

    def product(self) -> Tensor:
        """Return the weighted inner products."""
        return self._products(self.labels, self.ref_labels)

    def intersection(self) -> Tensor:
        """Return the weighted sizes of the intersections: the sum of the minima."""
        if self.multi_hot:
            return self.product()
        if self.paired:
            return self._weighted(torch.minimum(self.labels, self.ref_labels)).sum(1)
        # Sums of minima are exactly 0 for disjoint sets, unlike differences of sums.
        rows_per_chunk = max(1, _CHUNK_ELEMENTS // max(1, self.ref_labels.numel()))
        minima = (torch.minimum(rows[:, None], self.ref_labels) for rows in torch.split(self.labels, rows_per_chunk))
        return torch.cat([self._weighted(part).sum(2) for part in minima])

    def sizes(self) -> tuple[Tensor, Tensor]:
        """Return the weighted sizes of the sets in `labels`, as a column, and in `ref_labels`, as a row."""
        return self._sums(self.labels, self.ref_labels)

    def squares(self) -> tuple[Tensor, Tensor]:
        """Return the weighted sums of squares of the rows of `labels`, as a column, and of `ref_labels`, as a row."""
        squares = self.labels.square()
        return self._sums(squares, squares if self.ref_labels is self.labels else self.ref_labels.square())

    def total_weight(self) -> Tensor | int:
        """Return the sum of the weights of all labels or, for each pair, of the labels annotated in both rows."""
        if self.missing:
            return self._products(self.known, self.ref_known)
        return self.labels.shape[1] if self.weights is None else self.weights.sum()

    def _sums(self, values: Tensor, ref_values: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weighted sums of rows, so that they broadcast to the pairs."""
        if self.missing:
            return self._products(values, self.ref_known), self._products(self.known, ref_values)
        sums = self._weighted(values).sum(1)
        ref_sums = sums if ref_values is values else self._weighted(ref_values).sum(1)
        return sums if self.paired else sums[:, None], ref_sums

    def _products(self, values: Tensor, ref_values: Tensor) -> Tensor:
        """Return the weighted inner products of the pairs."""
        weighted = self._weighted(values)
        if self.paired:
            return (weighted * ref_values).sum(1)
        # Autocast would count in half precision.
        with without_autocast(values.device):
            return weighted @ ref_values.T

    def _weighted(self, values: Tensor) -> Tensor:
        return values if self.weights is None else values * self.weights

    def round_result(self, similarity: Tensor) -> Tensor:
        """Round a similarity to 12 digits, convert it to the dtype of the result, and set incomparable pairs to NaN."""
        if similarity.dtype == torch.float64:
            # Veltkamp's splitting to 53 - 12 bits: relative, so that small values are kept, and with a gradient of 1.
            shifted = similarity * (2**12 + 1)
            similarity = shifted - (shifted - similarity)
        if self.missing:
            similarity = similarity.masked_fill(torch.as_tensor(self.total_weight()) <= 0, torch.nan)
        return similarity.to(self.out_dtype)


def _is_multi_hot(labels: Tensor) -> bool:
    if not labels.is_floating_point():
        return True
    return bool(((labels == 0) | (labels == 1)).all())


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Divide in place, with 0 where the denominator is not above 0; return `numerator`."""
    return numerator.div_(denominator.masked_fill(denominator <= 0, torch.inf))
