"""Similarities as objects with parameters, which can be added, scaled and clamped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from mlmetric._label_dtypes import widen_integers
from mlmetric._repr import short_repr
from mlmetric.labels import LabelsLike
from mlmetric.similarity._set_similarities import cosine, dice, hamming, inner_product, jaccard, overlap

SimilarityFunction = Callable[[Tensor, Tensor], Tensor]
"""A label similarity: a callable `(labels, ref_labels) -> (N, M)` on tensors `(N, L)` and `(M, L)`, larger is more
similar. The functions and classes of this module, other functions and an `nn.Module` are such callables. Labels in
uint8 and other small or unsigned integers arrive as int64; bool and floating point arrive unchanged, with NaN for
labels that are not annotated. For two rows that it cannot compare, it returns NaN."""


class Similarity:
    """Base class of the similarities with parameters, which can be called, added, scaled and clamped.

    A subclass implements `__call__`.

    Examples:
        >>> import torch
        >>> from mlmetric.similarity import Cosine, Jaccard
        >>> mixed = 0.5 * Jaccard() + 0.5 * Cosine()
        >>> mixed
        0.5 * Jaccard() + 0.5 * Cosine()
        >>> mixed(torch.tensor([[1, 1, 0], [0, 1, 0]]))
        tensor([[1.0000, 0.6036],
                [0.6036, 1.0000]])
        >>> mixed.clamp(min=0.7)(torch.tensor([[1, 1, 0], [0, 1, 0]]))
        tensor([[1.0000, 0.7000],
                [0.7000, 1.0000]])
    """

    def __call__(self, labels: LabelsLike, ref_labels: LabelsLike | None = None) -> Tensor:
        """Compare the rows of two label matrices.

        Args:
            labels: Shape `(N, L)`, of any kind that [`check_labels`][mlmetric.labels.check_labels] reads; NaN for
                labels that are not annotated, unless the similarity does not support missing labels.
            ref_labels: Shape `(M, L)`; None for `labels` itself.

        Returns:
            Shape `(N, M)`, larger is more similar; NaN for pairs of rows without a label that is annotated in both.
        """
        raise NotImplementedError

    def __add__(self, other: SimilarityFunction) -> Similarity:
        return _Sum(self, other) if callable(other) else NotImplemented

    def __radd__(self, other: SimilarityFunction) -> Similarity:
        return _Sum(other, self) if callable(other) else NotImplemented

    def __mul__(self, factor: float) -> Similarity:
        return _Scaled(self, float(factor)) if isinstance(factor, int | float) else NotImplemented

    __rmul__ = __mul__

    def clamp(self, min: float | None = None, max: float | None = None) -> Similarity:
        """Return this similarity with its values limited to a range, as `torch.clamp` does.

        Args:
            min: Lower bound; None for no lower bound.
            max: Upper bound; None for no upper bound.

        Returns:
            A similarity.
        """
        return _Clamped(self, min, max)


@dataclass(frozen=True, eq=False, repr=False)
class _Sum(Similarity):
    first: SimilarityFunction
    second: SimilarityFunction

    def __call__(self, labels: LabelsLike, ref_labels: LabelsLike | None = None) -> Tensor:
        ref_labels = labels if ref_labels is None else ref_labels
        return self.first(labels, ref_labels) + self.second(labels, ref_labels)  # type: ignore[arg-type]

    def __repr__(self) -> str:
        second = short_repr(self.second)
        return f"{short_repr(self.first)} + {f'({second})' if isinstance(self.second, _Sum) else second}"


@dataclass(frozen=True, eq=False, repr=False)
class _Scaled(Similarity):
    base: Similarity
    factor: float

    def __call__(self, labels: LabelsLike, ref_labels: LabelsLike | None = None) -> Tensor:
        return self.factor * self.base(labels, ref_labels)

    def __repr__(self) -> str:
        return f"{self.factor:g} * {_operand_repr(self.base)}"


@dataclass(frozen=True, eq=False, repr=False)
class _Clamped(Similarity):
    base: Similarity
    min: float | None
    max: float | None

    def __call__(self, labels: LabelsLike, ref_labels: LabelsLike | None = None) -> Tensor:
        return self.base(labels, ref_labels).clamp(self.min, self.max)

    def __repr__(self) -> str:
        bounds = [f"{name}={value}" for name, value in (("min", self.min), ("max", self.max)) if value is not None]
        return f"{_operand_repr(self.base)}.clamp({', '.join(bounds)})"


def _operand_repr(similarity: Similarity) -> str:
    """Represent the operand of a product or a method call, in brackets if it is a sum or a product."""
    text = short_repr(similarity)
    return f"({text})" if isinstance(similarity, _Sum | _Scaled) else text


@dataclass(frozen=True, eq=False, repr=False)
class _Weighted(Similarity):
    weights: Tensor | None = None

    def __post_init__(self) -> None:
        if self.weights is not None and not bool((self.weights >= 0).all()):
            raise ValueError(f"`weights` must be >= 0, got {self.weights.min().item()}.")

    def __repr__(self) -> str:
        weights = "" if self.weights is None else f"weights={short_repr(self.weights)}"
        return f"{type(self).__name__}({weights})"


class InnerProduct(_Weighted):
    """Weighted inner product of label vectors, [`inner_product`][mlmetric.similarity.inner_product], as an object.

    Two rows are compared on the labels annotated in both; the result is NaN if there are none.

    Args:
        weights: Weight of each label, shape `(L,)`, >= 0; None for equal weights of 1.

    Raises:
        ValueError: If a weight is below 0.
    """

    def __call__(self, labels: LabelsLike, ref_labels: LabelsLike | None = None) -> Tensor:
        return inner_product(labels, ref_labels, weights=self.weights)


class Jaccard(_Weighted):
    """Jaccard index of label sets, [`jaccard`][mlmetric.similarity.jaccard], as an object.

    Two rows are compared on the labels annotated in both; the result is NaN if there are none.

    Args:
        weights: Weight of each label, shape `(L,)`, >= 0; None for equal weights of 1.

    Raises:
        ValueError: If a weight is below 0.
    """

    def __call__(self, labels: LabelsLike, ref_labels: LabelsLike | None = None) -> Tensor:
        return jaccard(labels, ref_labels, weights=self.weights)


class Dice(_Weighted):
    """Dice coefficient of label sets, [`dice`][mlmetric.similarity.dice], as an object.

    Two rows are compared on the labels annotated in both; the result is NaN if there are none.

    Args:
        weights: Weight of each label, shape `(L,)`, >= 0; None for equal weights of 1.

    Raises:
        ValueError: If a weight is below 0.
    """

    def __call__(self, labels: LabelsLike, ref_labels: LabelsLike | None = None) -> Tensor:
        return dice(labels, ref_labels, weights=self.weights)


class Cosine(_Weighted):
    """Cosine of label vectors, [`cosine`][mlmetric.similarity.cosine], as an object.

    Two rows are compared on the labels annotated in both; the result is NaN if there are none.

    Args:
        weights: Weight of each label, shape `(L,)`, >= 0; None for equal weights of 1.

    Raises:
        ValueError: If a weight is below 0.
    """

    def __call__(self, labels: LabelsLike, ref_labels: LabelsLike | None = None) -> Tensor:
        return cosine(labels, ref_labels, weights=self.weights)


class Overlap(_Weighted):
    """Overlap coefficient of label sets, [`overlap`][mlmetric.similarity.overlap], as an object.

    Two rows are compared on the labels annotated in both; the result is NaN if there are none.

    Args:
        weights: Weight of each label, shape `(L,)`, >= 0; None for equal weights of 1.

    Raises:
        ValueError: If a weight is below 0.
    """

    def __call__(self, labels: LabelsLike, ref_labels: LabelsLike | None = None) -> Tensor:
        return overlap(labels, ref_labels, weights=self.weights)


class Hamming(_Weighted):
    """Share of labels on which two rows agree, [`hamming`][mlmetric.similarity.hamming], as an object.

    Two rows are compared on the labels annotated in both; the result is NaN if there are none.

    Args:
        weights: Weight of each label, shape `(L,)`, >= 0, with a sum above 0; None for equal weights of 1.

    Raises:
        ValueError: If a weight is below 0.
    """

    def __call__(self, labels: LabelsLike, ref_labels: LabelsLike | None = None) -> Tensor:
        return hamming(labels, ref_labels, weights=self.weights)


def check_similarity(similarity: SimilarityFunction) -> SimilarityFunction:
    """Check that `similarity` is callable and not a class, and return it.

    Args:
        similarity: A label similarity `(labels, ref_labels) -> (N, M)`.

    Returns:
        The same object.

    Raises:
        TypeError: If it is not callable, or is a class instead of an instance.
    """
    if isinstance(similarity, type):
        raise TypeError(f"`similarity` must be an instance, got the class: write `{similarity.__name__}()`.")
    if not callable(similarity):
        raise TypeError(f"`similarity` must be callable, got {type(similarity).__name__}.")
    return similarity


def compare_labels(
    similarity: SimilarityFunction, labels: Tensor, ref_labels: Tensor, *, validate_args: bool = True
) -> Tensor:
    """Call `similarity`, and check that it returns a tensor `(N, M)`, with NaN only for rows with missing labels.

    Args:
        similarity: A label similarity `(labels, ref_labels) -> (N, M)`, larger is more similar.
        labels: Shape `(N, L)`; `similarity` receives uint8, int8 and int16 as int64, so that its sums and differences
            do not overflow.
        ref_labels: Shape `(M, L)`.
        validate_args: Whether to check for NaN, which synchronises on CUDA.

    Returns:
        The similarities, shape `(N, M)`, in the dtype that `similarity` returns, on the device of `labels`.

    Raises:
        TypeError: If `similarity` does not return a tensor.
        ValueError: If its shape is not `(N, M)`, or it contains NaN for two rows without missing labels.
    """
    wide = widen_integers(labels)
    result = similarity(wide, wide if ref_labels is labels else widen_integers(ref_labels))
    if not isinstance(result, Tensor):
        raise TypeError(f"`similarity` must return a torch.Tensor, got {type(result).__name__}.")
    expected = (len(labels), len(ref_labels))
    if result.shape != expected:
        raise ValueError(
            f"`similarity` must return shape {expected}, one row for each row of `labels` and one column for each row "
            f"of `ref_labels`, got {tuple(result.shape)}."
        )
    # The maximum is NaN if any entry is, and ten times faster than `isnan().any()`.
    if validate_args and result.is_floating_point() and result.numel() and bool(result.max().isnan()):
        complete, complete_refs = (~rows.isnan().any(dim=1).to(result.device) for rows in (labels, ref_labels))
        if bool((result.isnan() & complete[:, None] & complete_refs).any()):
            raise ValueError(
                "`similarity` must not return NaN for rows without missing labels; return a number, such as 0, for "
                "rows without labels."
            )
    return result.to(labels.device)
