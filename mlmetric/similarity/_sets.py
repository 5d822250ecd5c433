"""The sums that similarities are made of."""

from __future__ import annotations

from copy import copy

import torch
from torch import Tensor

from mlmetric.labels import check_labels


class Sets:
    """Two label matrices on one dtype and device, and the sums that the similarity functions are computed from.

    Sums are taken in float64 wherever they are not counts and rounded once at the end, float64 results to 12 digits, so
    that equal label sets get equal similarities and a strict `<` between two similarities sees no rounding noise.
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

    def complement(self) -> Sets:
        """Return the sets of the labels that the rows do not carry."""
        others = copy(self)
        others.labels, others.ref_labels = 1 - self.labels, 1 - self.ref_labels
        return others

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
        if similarity.dtype == torch.float64:
            # Veltkamp's way to round to 53 - 12 bits: relative, so that small shares stay, and with a gradient of 1.
            shifted = similarity * (2**12 + 1)
            similarity = shifted - (shifted - similarity)
        return similarity.to(self.out_dtype)


def _is_hard(labels: Tensor) -> bool:
    if not labels.is_floating_point():
        return True
    return bool(((labels == 0) | (labels == 1)).all())


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Divide into the memory of `numerator`, 0 where the denominator is not above 0."""
    return numerator.div_(denominator.masked_fill(denominator <= 0, torch.inf))
