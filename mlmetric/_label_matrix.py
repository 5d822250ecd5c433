"""Conversion of the types accepted as label matrices, and missing entries."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse

# torch does not compare tensors of these dtypes.
_COMPARABLE_DTYPES = {torch.uint16: torch.int64, torch.uint32: torch.int64, torch.uint64: torch.int64} | {
    getattr(torch, name): torch.float32 for name in dir(torch) if name.startswith("float8_")
}
NAMES_HINT = "Convert label names to a label matrix with `sklearn.preprocessing.MultiLabelBinarizer`."


def to_matrix(labels: Any, name: str) -> torch.Tensor | npt.NDArray[Any]:
    """Return a tensor as a dense tensor, and anything else as a numeric array."""
    if isinstance(labels, torch.Tensor):
        if labels.is_complex():
            raise TypeError(f"`{name}` must contain real numbers, got a tensor of dtype {labels.dtype}.")
        if labels.dtype in _COMPARABLE_DTYPES:
            labels = labels.to(_COMPARABLE_DTYPES[labels.dtype])
        tensor: torch.Tensor = labels
        return tensor if tensor.layout is torch.strided else tensor.to_dense()
    if sparse.issparse(labels):
        labels = labels.toarray()
    try:
        array = np.asarray(labels)
    except (TypeError, ValueError) as error:  # rows of different lengths, or no rows at all
        raise TypeError(
            f"`{name}` must contain numbers, 0 or 1 for each label of each row, got {type(labels).__name__}, which "
            f"numpy cannot convert to a matrix: {str(error).rstrip('.')}. {NAMES_HINT}"
        ) from error
    if array.dtype.kind in "biuf":
        return array
    shown = f"dtype {array.dtype}" if array.size else type(labels).__name__
    if array.dtype == object and array.size:
        wrong = [value for value in array.flat if not _is_number(value)] if array.ndim == 2 else list(array.flat[:1])
        if not wrong:  # a frame with nullable dtypes, or Python numbers and None
            return np.array([[np.nan if _is_missing(value) else value for value in row] for row in array], float)
        shown = f"{wrong[0]!r:.60}"
    raise TypeError(f"`{name}` must contain numbers, 0 or 1 for each label of each row, got {shown}. {NAMES_HINT}")


def _is_number(value: Any) -> bool:
    return isinstance(value, Real | np.bool_) or _is_missing(value)


def _is_missing(value: Any) -> bool:
    """Return whether a value is None or `pandas.NA`, without importing pandas."""
    return value is None or type(value).__name__ == "NAType"


def missing_hint(used_by: str) -> str:
    """Return advice about missing labels, which `used_by` does not support, for an error."""
    return (
        f"NaN means that a label is not annotated, and {used_by} does not support missing labels: remove these "
        "rows, or choose a value for their missing labels."
    )


def describe_invalid(
    labels: torch.Tensor | npt.NDArray[Any], name: str, *, allow_missing: bool, used_by: str
) -> str | None:
    """Describe the first entry that is not in [0, 1], for an error; None if there are only permitted missing labels."""
    values = labels.detach().cpu().float().numpy() if isinstance(labels, torch.Tensor) else labels
    invalid = ~((values >= 0) & (values <= 1))
    if allow_missing:
        invalid &= values == values
        if not invalid.any():
            return None
    row, column = np.argwhere(invalid)[0]
    value = values[row, column]
    text = f"`{name}` must contain numbers in [0, 1], got {value} at row {row}, label {column}"
    if value != value:
        return f"{text}. {missing_hint(used_by)}"
    if value < 0:
        return f"{text}. Write 0 for a label that is absent, such as by `{name} > 0`."
    return f"{text}. Convert annotator votes with `mlmetric.labels.votes_to_labels`."


def has_missing(labels: torch.Tensor) -> bool:
    """Return whether a label is missing; synchronises on CUDA if labels are floating-point numbers."""
    if not labels.is_floating_point() or not labels.numel():
        return False
    return bool(labels.detach().max().isnan())  # the maximum is NaN if any entry is


def may_have_missing(labels: torch.Tensor) -> bool:
    """Return whether a label may be missing, without a check that would synchronise with a device.

    On the CPU the labels are checked. On another device the result is True for floating-point labels. Labels of other
    dtypes are never missing.
    """
    return labels.is_floating_point() and (labels.device.type != "cpu" or has_missing(labels))


def annotated_mask(labels: torch.Tensor) -> torch.Tensor | None:
    """Return which labels are annotated, bool of the shape of `labels`; None if all are."""
    return ~labels.isnan() if has_missing(labels) else None


def smoothed_frequencies(labels: torch.Tensor) -> torch.Tensor:
    """Return (positives + 0.5) / (rows + 1) of each label among its annotated rows, float64 `(L,)`, never 0 or 1."""
    known, num_rows = annotated_mask(labels), len(labels)
    if known is None:
        return (labels.sum(dim=0, dtype=torch.float64) + 0.5) / (num_rows + 1)
    return (labels.nansum(dim=0, dtype=torch.float64) + 0.5) / (known.sum(dim=0) + 1)


def known_labels(labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return labels with 0 in place of NaN, and which ones are annotated."""
    known = ~labels.isnan()
    return torch.where(known, labels, 0), known
