"""Recall of an approximate nearest-neighbour search."""

from __future__ import annotations

import math

import torch

from mlmetric.metrics._bootstrap import supports_resample_weights
from mlmetric.metrics._inputs import TensorLike, check_choice, check_weights, to_tensor
from mlmetric.metrics._retrieval._evaluation import Average
from mlmetric.metrics._retrieval._retrieval_inputs import check_row_numbers
from mlmetric.metrics._zero_division import fill_undefined, mean_of_defined


@supports_resample_weights
def neighbor_recall(
    retrieved: TensorLike,
    exact: TensorLike,
    *,
    average: Average = "mean",
    sample_weight: TensorLike | None = None,
    zero_division: float = math.nan,
) -> torch.Tensor:
    """Compute the fraction of the exact nearest neighbours that an approximate search retrieved.

    1 is best: all were retrieved, in any order. The recall does not depend on labels. With k columns in both arguments
    it is the k-recall@k of approximate search; with one exact neighbour and K retrieved rows it is 1-recall@K. Rows are
    compared by index. If several rows are at the distance of the last exact neighbour, such as copies of one row, a
    search that returns a different one of them than the exact search counts as having missed it.

    Args:
        retrieved: Indices of the rows that the approximate search retrieved for each query, integers of shape `(N, K)`.
            -1 at the end of a row is padding, as in faiss, where fewer than K rows were found.
        exact: Indices of the exact nearest neighbours, as returned by [`kneighbors`][mlmetric.neighbors.kneighbors],
            integers of shape `(N, k)`, padded with -1 in the same way.
        average: `"mean"`, the default: mean over the queries. `"none"`: one value for each query.
        sample_weight: Weight of each query in the mean, shape `(N,)`. By default all queries have the same weight.
        zero_division: Value of a query without exact neighbours, which is undefined: nan, the default, excludes it from
            the mean; 0.0 or 1.0 counts it with this value.

    Returns:
        float64 in [0, 1], 0-d, or shape `(N,)` with `average="none"`, on the device of `retrieved`.

    Raises:
        TypeError: If an argument does not contain real numbers, or the indices are not integers.
        ValueError: If the numbers of queries differ, an index is below -1, is repeated in a row or follows a -1, or
            another argument is invalid.

    Examples:
        >>> from mlmetric.metrics import neighbor_recall
        >>> neighbor_recall([[4, 7, 2], [5, -1, -1]], [[7, 2, 9], [5, 6, 0]], average="none")
        tensor([0.6667, 0.3333], dtype=torch.float64)

    Source:
        Jégou et al., "Product quantization for nearest neighbor search", IEEE TPAMI 33(1), 2011, for one exact
        neighbour; Aumüller et al., "ANN-Benchmarks", Information Systems 87, 2020, for k neighbours, which compares
        rows by distance instead of index.
    """
    found = check_row_numbers(to_tensor(retrieved, "retrieved"), "retrieved")
    wanted = check_row_numbers(to_tensor(exact, "exact"), "exact").to(found.device)
    if len(found) != len(wanted):
        raise ValueError(
            f"`retrieved` and `exact` must have one row for each query, got {len(found)} and {len(wanted)} rows."
        )
    check_choice(average, "average", Average)
    if average == "none" and sample_weight is not None:
        raise ValueError('`sample_weight` requires `average="mean"`, got "none".')
    weight = check_weights(sample_weight, len(found), found.device)
    is_wanted = wanted >= 0
    ordered = torch.nn.functional.pad(found.sort(dim=1).values, (0, 1), value=-1)
    positions = torch.searchsorted(ordered[:, :-1].contiguous(), wanted.contiguous())
    num_found = ((ordered.gather(1, positions) == wanted) & is_wanted).sum(dim=1)
    values = num_found.double() / is_wanted.sum(dim=1)
    if average == "none":
        return fill_undefined(values, zero_division)
    return mean_of_defined(values, zero_division, weight=weight)
