"""Checks and conversions of the arguments of metrics."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any, NamedTuple, TypeAlias, cast, get_args

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor

from mlmetric.labels import LabelsLike, label_tensor

TensorLike: TypeAlias = Tensor | npt.ArrayLike | sparse.sparray | sparse.spmatrix
"""Real numbers as a tensor, an array, a number, a list, a scipy sparse matrix or a data frame."""

_UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)


class ResampleWeights(NamedTuple):
    """Weights of the rows in each of B bootstrap resamples, float64 `(B, N)`, passed as `sample_weight`.

    A metric with the decorator `supports_resample_weights` returns a result for each resample, `(B, ...)`.
    """

    weights: Tensor


class Predictions(NamedTuple):
    """Scores and true labels of the same shape `(N, L)`, on one device.

    Attributes:
        preds: Floating point; -inf where the mask excludes an entry.
        target: bool; False where the mask excludes an entry.
        mask: bool, True for the entries to include, or None to include all.
        weight: float64 `(N,)`, `(B, N)` for B resamples, or None for equal weights.
    """

    preds: Tensor
    target: Tensor
    mask: Tensor | None = None
    weight: Tensor | None = None

    def pooled(self) -> Predictions:
        """Return all entries as rows of a single label, `(N L, 1)`, without weights."""
        mask = None if self.mask is None else self.mask.reshape(-1, 1)
        return Predictions(self.preds.reshape(-1, 1), self.target.reshape(-1, 1), mask)


def check_predictions(
    preds: TensorLike,
    target: LabelsLike,
    mask: TensorLike | None = None,
    sample_weight: TensorLike | ResampleWeights | None = None,
) -> Predictions:
    """Check the arguments and convert them; integer and bool scores become float64."""
    target = to_tensor(label_tensor(target, name="target", validate_args=False), "target")
    preds = to_tensor(preds, "preds")
    if preds.shape != target.shape:
        raise ValueError(
            f"`preds` and `target` must have the same shape (N, L), got {tuple(preds.shape)} and {tuple(target.shape)}."
        )
    preds = preds if preds.is_floating_point() else preds.double()
    target = target.to(preds.device)
    included = None if mask is None else _check_mask(mask, preds)
    if included is not None:
        preds, target = preds.masked_fill(~included, -torch.inf), target.masked_fill(~included, 0)
    if has_nan(preds):
        raise ValueError(f"`preds` must not contain NaN, got one at {_first_position(preds.isnan())}.")
    if target.dtype != torch.bool:
        positive = target == 1
        invalid = ~(positive | (target == 0))
        if bool(invalid.any()):
            raise ValueError(
                f"`target` must contain only 0 and 1, got {target[invalid][0].item():g} at {_first_position(invalid)}. "
                "Convert soft labels with a comparison such as `target >= 0.5`; exclude entries that were not "
                "annotated with `mask`."
            )
        target = positive
    return Predictions(preds, target, included, check_weights(sample_weight, len(preds), preds.device))


def decide(predictions: Predictions, threshold: float | TensorLike | None, top_k: int | None) -> Tensor:
    """Return the predicted labels: bool `(N, L)`, False where the mask excludes an entry."""
    preds = predictions.preds
    predicted = (
        torch.ones_like(preds, dtype=torch.bool) if threshold is None else preds >= _check_threshold(threshold, preds)
    )
    if predictions.mask is not None:
        predicted &= predictions.mask
    return predicted if top_k is None else predicted & _top_k_labels(predictions, top_k)


def to_tensor(values: TensorLike, name: str) -> Tensor:
    """Convert `values` to a dense, detached tensor of real numbers; Python floats become float64."""
    tensor = values if isinstance(values, Tensor) else _array_to_tensor(values, name)
    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    if tensor.dtype in _UNSIGNED:  # torch implements few operations for these
        tensor = tensor.long()
    if tensor.is_complex():
        raise TypeError(f"`{name}` must contain real numbers, got {tensor.dtype}.")
    return tensor.detach()


def _array_to_tensor(values: TensorLike, name: str) -> Tensor:
    if sparse.issparse(values):
        return torch.from_numpy(np.asarray(cast(Any, values).toarray()))
    try:
        array: npt.NDArray[Any] = np.asarray(values)
        if array.dtype == object and all(isinstance(value, Real) for value in array.flat):
            array = array.astype(np.float64)  # data frames with nullable dtypes, lists of Python numbers
        # torch shares memory only with writable arrays without negative strides.
        return torch.from_numpy(np.require(array, requirements=["C", "W"]))
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"`{name}` must contain real numbers, got {values!r:.80}. To convert label names to a label matrix, use "
            "`sklearn.preprocessing.MultiLabelBinarizer`."
        ) from error


def count_true(mask: Tensor, *, dim: int) -> Tensor:
    """Count the True entries of a bool matrix along a dimension: int64."""
    if mask.device.type == "cpu":
        # numpy counts them ten times faster than torch.
        return torch.from_numpy(np.count_nonzero(mask.numpy(), axis=dim))
    return mask.sum(dim=dim)


def has_nan(values: Tensor) -> bool:
    """Return whether any number is NaN."""
    if values.device.type == "cpu" and values.dtype in (torch.float32, torch.float64):
        # numpy uses one thread. After a torch operation its idle threads spin for a while, which slows the sorting
        # that follows.
        return bool(np.isnan(values.numpy()).any())
    return bool(values.isnan().any())


def check_choice(value: object, name: str, literal: Any) -> None:
    """Check that `value` is one of the strings of a `Literal` type."""
    choices: Sequence[str] = get_args(literal)
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, choices))}, got {value!r}.")


def check_weights(
    sample_weight: TensorLike | ResampleWeights | None, num_rows: int, device: torch.device
) -> Tensor | None:
    """Return the weights as float64 on `device`: shape `(N,)`, or `(B, N)` for `ResampleWeights`."""
    if sample_weight is None:
        return None
    if isinstance(sample_weight, ResampleWeights):
        return sample_weight.weights
    weight = to_tensor(sample_weight, "sample_weight")
    if weight.shape != (num_rows,):
        raise ValueError(
            f"`sample_weight` must have shape ({num_rows},), one weight for each row, got {tuple(weight.shape)}."
        )
    weight = weight.to(device, torch.float64)
    valid = (weight >= 0) & weight.isfinite()
    if not bool(valid.all()):
        raise ValueError(f"`sample_weight` must contain finite numbers >= 0, got {weight[~valid][0].item():g}.")
    return weight


def _check_threshold(threshold: float | TensorLike, preds: Tensor) -> Tensor:
    thresholds, num_labels = to_tensor(threshold, "threshold"), preds.shape[1]
    if thresholds.shape not in ((), (num_labels,)):
        raise ValueError(
            f"`threshold` must be a number or have shape ({num_labels},), one for each label, "
            f"got shape {tuple(thresholds.shape)}."
        )
    if bool(thresholds.isnan().any()):
        raise ValueError(f"`threshold` must not contain NaN, got {thresholds.tolist()}.")
    return thresholds.to(preds)


def _top_k_labels(predictions: Predictions, k: int) -> Tensor:
    preds, num_labels = predictions.preds, predictions.preds.shape[1]
    if not 1 <= k <= num_labels:
        raise ValueError(f"`top_k` must be from 1 to {num_labels}, the number of labels, or None, got {k}.")
    kth_score = preds.topk(k, dim=1).values[:, -1:]
    above, tied = preds > kth_score, preds == kth_score
    if predictions.mask is not None:
        tied &= predictions.mask
    # Among the labels tied for the last places, those with the lowest indices are predicted.
    return above | (tied & (tied.cumsum(dim=1) <= k - above.sum(dim=1, keepdim=True)))


def _check_mask(mask: TensorLike, preds: Tensor) -> Tensor:
    included = to_tensor(mask, "mask")
    if included.shape != preds.shape:
        raise ValueError(
            f"`mask` must have the shape of `preds`, {tuple(preds.shape)}, with True for the entries to include, "
            f"got {tuple(included.shape)}."
        )
    if included.dtype != torch.bool:
        if not bool(((included == 0) | (included == 1)).all()):
            raise ValueError("`mask` must be bool or contain only 0 and 1: True for the entries to include.")
        included = included == 1
    return included.to(preds.device)


def _first_position(where: Tensor) -> str:
    row, label = where.nonzero()[0].tolist()
    return f"row {row}, label {label}"
