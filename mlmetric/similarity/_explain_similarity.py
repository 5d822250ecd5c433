"""Explanation of the similarity of two rows: the share of each label."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mlmetric.labels import LabelsLike, label_tensor
from mlmetric.similarity._compare_pairs import as_function, compare_pairs, linear_parts
from mlmetric.similarity._set_similarities import cosine, dice, hamming, inner_product, jaccard, overlap
from mlmetric.similarity._shapley_values import exact_shares, sampled_shares
from mlmetric.similarity._similarity_classes import SimilarityFunction, check_similarity

_SET_SIMILARITIES = [(function, None) for function in (cosine, dice, jaccard, overlap)]
_LARGEST_EXACT = 16
_ELEMENTS_PER_BLOCK = 2**22


class LabelShares(NamedTuple):
    """The share of each label in the similarity of pairs of rows.

    Attributes:
        shares: Shape `(N, L)`; the sum of row i is the similarity of pair i.
        standard_errors: Standard error of each share, shape `(N, L)`; 0 where the share is exact.
    """

    shares: Tensor
    standard_errors: Tensor


@torch.no_grad()
def explain_similarity(
    similarity: SimilarityFunction,
    labels: LabelsLike,
    ref_labels: LabelsLike,
    *,
    max_exact_labels: int = 12,
    num_permutations: int = 1000,
    seed: int = 0,
) -> LabelShares:
    """Divide the similarity of row i of `labels` and row i of `ref_labels` among the labels.

    For `InnerProduct` and `Hamming`, which are sums over labels, the share of a label is its term; for `Hamming`,
    labels that both rows lack have a term too. For any other similarity, it is the Shapley value of the label among the
    n labels that are above 0 in at least one of the two rows:

    `share(l) = sum over S without l of |S|! (n - |S| - 1)! / n! * (v(S + l) - v(S))`

    where `v(S)` is the similarity of the two rows with all labels outside S set to 0, and `v` of no labels is 0. This
    is the mean amount that the label adds to the similarity when the labels are added one by one, over all n! orders.
    Labels that make the rows less similar have negative shares, for example, with `Jaccard`, the labels of only one of
    the rows. Interchangeable labels have equal shares, and the shares of a sum of similarities are the sums of the
    shares. If the similarity of rows without labels is not 0, as after `.clamp(min=0.2)`, it is divided equally among
    the n labels.

    Up to `max_exact_labels` labels, Shapley values are computed from all 2^n sets S. For more labels, they are
    estimated from random orders, each also used in reverse, with standard errors. For `Jaccard` without weights on
    multi-hot labels, they are computed in closed form for any number of labels. The shares add up to the similarity,
    whether exact or estimated, unless neither row has a label.

    Args:
        similarity: A label similarity `(labels, ref_labels) -> (N, M)`: a function or object of this module, a sum of
            several, or any other callable. Other callables receive blocks of 64 rows, and only the diagonals of their
            results are used.
        labels: Shape `(N, L)`, entries in [0, 1], any dtype, of any kind that
            [`check_labels`][mlmetric.labels.check_labels] reads. A single row is compared with each row of
            `ref_labels`.
        ref_labels: Shape `(N, L)`. A single row is compared with each row of `labels`.
        max_exact_labels: Highest n for which all 2^n sets are compared, from 0 to 16.
        num_permutations: Number of orders of the labels for a higher n, even and at least 4. Each order needs n
            comparisons.
        seed: Seed of the random orders. The result for a pair of rows does not depend on the other pairs.

    Returns:
        Shares and standard errors, both of shape `(N, L)`, on the device of `labels`; float64 if `labels` is float64,
        else float32. The Shapley values of two rows without labels are 0, even if their similarity is not.

    Raises:
        TypeError: If `similarity` is not callable or does not return a tensor, or a label matrix does not contain
            numbers.
        ValueError: If the label matrices differ in the number of labels or rows, an entry is not in [0, 1],
            `max_exact_labels` or `num_permutations` is out of range, or `similarity` returns NaN or a shape other than
            `(N, M)`.

    Examples:
        >>> import torch
        >>> from mlmetric.similarity import Jaccard, SoftCosine, explain_similarity, inner_product
        >>> sea_sunset, sea = torch.tensor([[1, 1, 0]]), torch.tensor([[1, 0, 0]])
        >>> explain_similarity(Jaccard(), sea_sunset, sea).shares
        tensor([[ 0.7500, -0.2500,  0.0000]])
        >>> explain_similarity(inner_product, sea_sunset, sea).shares
        tensor([[1., 0., 0.]])
        >>> related = SoftCosine(torch.tensor([[1.0, 0.6, 0.0], [0.6, 1.0, 0.0], [0.0, 0.0, 1.0]]))
        >>> explain_similarity(related, sea_sunset, sea).shares
        tensor([[ 0.9472, -0.0528,  0.0000]])

    Source:
        Shapley, "A value for n-person games", Contributions to the Theory of Games 2, 1953. Estimation from random
        orders: Castro et al., "Polynomial calculation of the Shapley value based on sampling", Computers & Operations
        Research 36(5), 2009; with reversed orders: Mitchell et al., "Sampling permutations for Shapley value
        estimation", Journal of Machine Learning Research 23, 2022.
    """
    check_similarity(similarity)
    if not 0 <= max_exact_labels <= _LARGEST_EXACT:
        raise ValueError(f"`max_exact_labels` must be from 0 to {_LARGEST_EXACT}, got {max_exact_labels}.")
    if num_permutations < 4 or num_permutations % 2:
        raise ValueError(f"`num_permutations` must be even and at least 4, got {num_permutations}.")
    used_by = "`explain_similarity`"
    rows, refs = _aligned(
        label_tensor(labels, used_by=used_by), label_tensor(ref_labels, name="ref_labels", used_by=used_by)
    )
    shares = torch.zeros(rows.shape, device=rows.device, dtype=torch.promote_types(torch.float32, rows.dtype))
    errors = torch.zeros_like(shares)
    is_multi_hot = _is_multi_hot(rows) and _is_multi_hot(refs)
    others = []
    for factor, part in linear_parts(similarity):
        function, weights = as_function(part)
        if function in (inner_product, hamming):
            _add_terms(shares, factor, rows, refs, weights, agreement=function is hamming)
        elif function is jaccard and weights is None and is_multi_hot:
            _add_jaccard_shares(shares, factor, rows, refs)
        else:
            others.append((factor, part))
    if others:
        found, deviations = _shapley_values(others, rows, refs, max_exact_labels, num_permutations, seed)
        shares += found.to(shares)
        errors += deviations.to(errors)
    return LabelShares(shares, errors)


def _shapley_values(
    parts: list[tuple[float, SimilarityFunction]],
    labels: Tensor,
    ref_labels: Tensor,
    max_exact_labels: int,
    num_permutations: int,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """Compute the Shapley values of a sum of similarities, and their standard errors; float64, shape `(N, L)`.

    Args:
        parts: Factors and similarities.
        labels: Shape `(N, L)`.
        ref_labels: Shape `(N, L)`.
        max_exact_labels: As in `explain_similarity`.
        num_permutations: As in `explain_similarity`.
        seed: As in `explain_similarity`.
    """

    def game(labels: Tensor, ref_labels: Tensor) -> Tensor:
        return torch.stack([factor * compare_pairs(part, labels, ref_labels) for factor, part in parts]).sum(0)

    ignores_absent_labels = all(as_function(part) in _SET_SIMILARITIES for _, part in parts)
    present = (labels != 0) | (ref_labels != 0)
    shares, errors = torch.zeros(2, *present.shape, dtype=torch.float64, device=labels.device)
    sizes = present.sum(1)
    for size in torch.unique(sizes[sizes > 0]).tolist():
        numbers = (sizes == size).nonzero()[:, 0]
        columns = players = present[numbers].nonzero()[:, 1].reshape(-1, size)
        rows, refs = labels[numbers], ref_labels[numbers]
        if ignores_absent_labels:  # then the other columns are not needed
            rows, refs = rows.gather(1, columns), refs.gather(1, columns)
            players = torch.arange(size, device=labels.device).expand_as(columns)
        shares[numbers[:, None], columns], errors[numbers[:, None], columns] = (
            exact_shares(game, rows, refs, players)
            if size <= max_exact_labels
            else sampled_shares(game, rows, refs, players, num_permutations=num_permutations, seed=seed)
        )
    return shares, errors


def _aligned(labels: Tensor, ref_labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return both matrices on one device and with equal shapes: a single row is repeated for the rows of the other."""
    if labels.shape[1] != ref_labels.shape[1]:
        raise ValueError(
            f"`labels` and `ref_labels` must have the same number of labels, got {labels.shape[1]} and "
            f"{ref_labels.shape[1]}."
        )
    num_rows, num_refs = len(labels), len(ref_labels)
    if num_rows != num_refs and 1 not in (num_rows, num_refs):
        raise ValueError(
            f"`labels` and `ref_labels` must have the same number of rows, or one of them a single row, got {num_rows} "
            f"and {num_refs}."
        )
    shape = (num_refs if num_rows == 1 else num_rows, -1)
    return labels.expand(shape), ref_labels.to(labels.device).expand(shape)


def _is_multi_hot(labels: Tensor) -> bool:
    return not labels.is_floating_point() or bool(((labels == 0) | (labels == 1)).all())


def _add_terms(
    shares: Tensor, factor: float, labels: Tensor, ref_labels: Tensor, weights: Tensor | None, *, agreement: bool
) -> None:
    """Add to `shares` the terms of the weighted agreement of the rows, or else of their inner product."""
    num_labels = labels.shape[1]
    if weights is not None and weights.shape != (num_labels,):
        raise ValueError(
            f"`weights` must have shape ({num_labels},), one weight per label, got {tuple(weights.shape)}."
        )
    scales = torch.ones(num_labels).double() if weights is None else weights.double()
    scales = (factor * scales / scales.sum() if agreement else factor * scales).to(labels.device)
    for block, rows, refs in _blocks(shares, labels, ref_labels):
        block += scales * (1 - (rows - refs).abs() if agreement else rows * refs)


def _add_jaccard_shares(shares: Tensor, factor: float, labels: Tensor, ref_labels: Tensor) -> None:
    """Add to `shares` the Shapley values of the Jaccard index of label sets in closed form.

    The c common labels have equal shares, and so do the n - c other labels of the union. In a random order, another
    label that comes after p labels, i of them common, changes the similarity from i / p to i / (p + 1). The mean of i
    is p c / (n - 1), and p is 0, ..., n - 1 with equal probability, so that its share is
    -c (1/2 + ... + 1/n) / (n (n - 1)). The shares of the common labels are equal and complete the sum of c / n.
    """
    harmonic = (1 / torch.arange(1, labels.shape[1] + 2).double()).cumsum(0).to(labels.device)
    for block, rows, refs in _blocks(shares, labels, ref_labels):
        common, union = rows * refs, torch.maximum(rows, refs)
        num_common, num_labels = common.sum(1, keepdim=True), union.sum(1, keepdim=True).clamp(min=1)
        last = harmonic[num_labels.long() - 1] - 1
        other = -num_common * last / (num_labels * (num_labels - 1).clamp(min=1))
        both = 1 / num_labels - other * (num_labels - num_common) / num_common.clamp(min=1)
        block += factor * torch.where(common > 0, both, other * union)


def _blocks(shares: Tensor, labels: Tensor, ref_labels: Tensor) -> zip[tuple[Tensor, Tensor, Tensor]]:
    """Return views of `shares`, and the labels in float64, in blocks of rows that need bounded memory."""
    size = max(1, _ELEMENTS_PER_BLOCK // max(1, labels.shape[1]))
    return zip(
        torch.split(shares, size),
        (rows.double() for rows in torch.split(labels, size)),
        (refs.double() for refs in torch.split(ref_labels, size)),
        strict=True,
    )
