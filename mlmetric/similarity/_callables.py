"""The similarities as configured callables, and how they combine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mlmetric.labels import check_labels
from mlmetric.similarity._functions import cosine, dice, hamming, inner_product, jaccard, overlap
from mlmetric.similarity._sets import Sets, ratio

SimilarityFunction = Callable[[Tensor, Tensor], Tensor]
"""What a miner takes for a similarity: `(labels, ref_labels) -> (N, M)`, larger is more alike."""


class Similarity:
    """Base of the configured similarities: call it on labels; add, scale and clamp it.

    Examples:
        >>> mixed = 0.5 * Jaccard() + 0.5 * Cosine()
        >>> mixed(torch.tensor([[1, 1, 0], [0, 1, 0]]))
        tensor([[1.0000, 0.6036],
                [0.6036, 1.0000]])
        >>> mixed.clamp(min=0.7)(torch.tensor([[1, 1, 0], [0, 1, 0]]))
        tensor([[1.0000, 0.7000],
                [0.7000, 1.0000]])
    """

    def __call__(self, labels: Tensor, ref_labels: Tensor | None = None) -> Tensor:
        """Compare the rows of `labels`, shape `(N, L)`, with those of `ref_labels`, `(M, L)`: shape `(N, M)`."""
        raise NotImplementedError

    def __add__(self, other: SimilarityFunction) -> Similarity:
        return _Sum(self, other) if callable(other) else NotImplemented

    __radd__ = __add__

    def __mul__(self, factor: float) -> Similarity:
        return _Scaled(self, float(factor)) if isinstance(factor, int | float) else NotImplemented

    __rmul__ = __mul__

    def clamp(self, min: float | None = None, max: float | None = None) -> Similarity:
        """Return this similarity with values below `min` raised to it and values above `max` lowered to it."""
        return _Clamped(self, min, max)


@dataclass(frozen=True, eq=False)
class _Sum(Similarity):
    first: SimilarityFunction
    second: SimilarityFunction

    def __call__(self, labels: Tensor, ref_labels: Tensor | None = None) -> Tensor:
        ref_labels = labels if ref_labels is None else ref_labels
        return self.first(labels, ref_labels) + self.second(labels, ref_labels)


@dataclass(frozen=True, eq=False)
class _Scaled(Similarity):
    base: Similarity
    factor: float

    def __call__(self, labels: Tensor, ref_labels: Tensor | None = None) -> Tensor:
        return self.factor * self.base(labels, ref_labels)


@dataclass(frozen=True, eq=False)
class _Clamped(Similarity):
    base: Similarity
    min: float | None
    max: float | None

    def __call__(self, labels: Tensor, ref_labels: Tensor | None = None) -> Tensor:
        return self.base(labels, ref_labels).clamp(self.min, self.max)


@dataclass(frozen=True, eq=False)
class _Weighted(Similarity):
    weights: Tensor | None = None

    def __post_init__(self) -> None:
        if self.weights is not None and not bool((self.weights >= 0).all()):
            raise ValueError(f"`weights` must be numbers >= 0, got {self.weights.min().item()} among them.")


class InnerProduct(_Weighted):
    """[`inner_product`][mlmetric.similarity.inner_product] with `weights` set; `(L,)`, >= 0, or None for 1 each."""

    def __call__(self, labels: Tensor, ref_labels: Tensor | None = None) -> Tensor:
        return inner_product(labels, ref_labels, weights=self.weights)


class Jaccard(_Weighted):
    """[`jaccard`][mlmetric.similarity.jaccard] with `weights` set; `(L,)`, >= 0, or None for 1 each."""

    def __call__(self, labels: Tensor, ref_labels: Tensor | None = None) -> Tensor:
        return jaccard(labels, ref_labels, weights=self.weights)


class Dice(_Weighted):
    """[`dice`][mlmetric.similarity.dice] with `weights` set; `(L,)`, >= 0, or None for 1 each."""

    def __call__(self, labels: Tensor, ref_labels: Tensor | None = None) -> Tensor:
        return dice(labels, ref_labels, weights=self.weights)


class Cosine(_Weighted):
    """[`cosine`][mlmetric.similarity.cosine] with `weights` set; `(L,)`, >= 0, or None for 1 each."""

    def __call__(self, labels: Tensor, ref_labels: Tensor | None = None) -> Tensor:
        return cosine(labels, ref_labels, weights=self.weights)


class Overlap(_Weighted):
    """[`overlap`][mlmetric.similarity.overlap] with `weights` set; `(L,)`, >= 0, or None for 1 each."""

    def __call__(self, labels: Tensor, ref_labels: Tensor | None = None) -> Tensor:
        return overlap(labels, ref_labels, weights=self.weights)


class Hamming(_Weighted):
    """[`hamming`][mlmetric.similarity.hamming] with `weights` set; `(L,)`, >= 0, or None for 1 each."""

    def __call__(self, labels: Tensor, ref_labels: Tensor | None = None) -> Tensor:
        return hamming(labels, ref_labels, weights=self.weights)


class Semantic(Similarity):
    """Soft cosine: labels that are related, yet not equal, count as partly shared.

    `S(y, y') = y R y' / sqrt(y R y * y' R y')` with the relation `R` of the labels. 1 is best; with a relation
    that has negative entries the similarity can be negative (`.clamp(min=0)` cuts that off). An all-zero row has
    similarity 0 to everything. Two disjoint sets of related labels have a similarity above 0: with a miner, set
    `positive_threshold` and `partial_threshold` to the similarity that shall count.

    Args:
        relation: Shape `(L, L)`, symmetric, with a diagonal above 0 (1 for a label that is wholly itself), and
            positive semi-definite to within rounding, as a matrix of cosines is; the identity gives
            [`cosine`][mlmetric.similarity.cosine].

    Raises:
        ValueError: If `relation` is empty, not square, not finite, not symmetric, not positive semi-definite, or has
            a diagonal entry that is not above 0.

    Examples:
        >>> relation = torch.tensor([[1.0, 0.6, 0.0], [0.6, 1.0, 0.0], [0.0, 0.0, 1.0]])
        >>> Semantic(relation)(torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1]]))
        tensor([[1.0000, 0.6000, 0.0000],
                [0.6000, 1.0000, 0.0000],
                [0.0000, 0.0000, 1.0000]])

    Source:
        Sidorov et al., "Soft similarity and soft cosine measure", Computacion y Sistemas 18(3), 2014.
    """

    def __init__(self, relation: Tensor) -> None:
        if relation.ndim != 2 or relation.shape[0] != relation.shape[1]:
            raise ValueError(f"`relation` must be a square matrix (L, L), got shape {tuple(relation.shape)}.")
        if len(relation) == 0:
            raise ValueError("`relation` must relate at least one label, got shape (0, 0).")
        relation = relation.double()
        if not bool(relation.isfinite().all()) or not torch.allclose(relation, relation.T):
            raise ValueError("`relation` must be finite and symmetric; average it with its transpose.")
        if not bool((relation.diagonal() > 0).all()):
            raise ValueError(
                f"`relation` must have a diagonal above 0, got {relation.diagonal().min().item()}: "
                "a label is related to itself."
            )
        smallest = float(torch.linalg.eigvalsh(relation).min())
        if smallest < -1e-6 * float(relation.diagonal().max()):
            raise ValueError(
                f"`relation` must be positive semi-definite, got an eigenvalue of {smallest:.3g}. "
                "A matrix of cosines is; `Semantic.from_vectors` makes one."
            )
        self.relation = relation

    @classmethod
    def from_cooccurrence(cls, labels: Tensor) -> Semantic:
        """Relate labels that occur on the same rows: the cosine of their columns.

        Args:
            labels: Training labels, shape `(N, L)`, multi-hot or soft. A label that never occurs is related to itself
                alone.

        Returns:
            A similarity over the same L labels.

        Raises:
            ValueError: If `labels` is not a matrix in [0, 1] of at least one label.
        """
        return cls.from_vectors(check_labels(torch.as_tensor(labels)).double().T)

    @classmethod
    def from_vectors(cls, vectors: Tensor) -> Semantic:
        """Relate labels whose vectors point the same way: the cosine of their vectors.

        Args:
            vectors: Shape `(L, d)`, say word vectors of the labels' names. A zero vector is related to itself alone.

        Returns:
            A similarity over the L labels.

        Raises:
            ValueError: If `vectors` is not a matrix of at least one row, or a number is NaN or infinite.
        """
        if vectors.ndim != 2 or len(vectors) == 0:
            raise ValueError(
                f"`vectors` must have shape (L, d), one vector for each of at least one label, "
                f"got {tuple(vectors.shape)}."
            )
        if not bool(vectors.isfinite().all()):
            label = int((~vectors.isfinite()).any(dim=1).int().argmax())
            raise ValueError(f"`vectors` must be finite, got NaN or infinity in the vector of label {label}.")
        unit = torch.nn.functional.normalize(vectors.double())
        relation = unit @ unit.T
        return cls(((relation + relation.T) / 2).fill_diagonal_(1))

    def __call__(self, labels: Tensor, ref_labels: Tensor | None = None) -> Tensor:
        sets = Sets(labels, ref_labels, None)
        num_labels, device = sets.labels.shape[1], sets.labels.device
        if num_labels != len(self.relation):
            raise ValueError(f"`labels` must have the {len(self.relation)} labels of `relation`, got {num_labels}.")
        with torch.autocast(device.type, enabled=False):
            relation = self.relation.to(device)
            values, ref_values = sets.labels.double(), sets.ref_labels.double()
            related = values @ relation
            squares = (related * values).sum(1).clamp(min=0)
            ref_squares = ((ref_values @ relation) * ref_values).sum(1).clamp(min=0)
            cosines = ratio(related @ ref_values.T, (squares[:, None] * ref_squares).sqrt_())
            # Terms of both signs may cancel, and leave rounding where the cosine is 0.
            return sets.finish(cosines.masked_fill(cosines.abs() < 1e-12, 0))

    def __repr__(self) -> str:
        return f"Semantic(relation of {len(self.relation)} labels)"
