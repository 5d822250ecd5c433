"""Checks of the parts of a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mlmetric.heads import FrozenBackbone
from mlmetric.models._module_config import input_size
from mlmetric.models._record import utf8


def features_of(
    embedding: nn.Module,
    classifier: nn.Module,
    backbone: FrozenBackbone | None,
    in_features: int | None,
    feature_names: Sequence[str] | None,
    num_text_features: int,
) -> int:
    """Check that the parts of a model have the same number of features, and return it.

    Raises:
        TypeError: If a part is of another kind.
        ValueError: If the numbers differ, no number is known, it is not a whole number from 1, or the features of the
            text leave none for the backbone.
    """
    for name, part in (("embedding", embedding), ("classifier", classifier)):
        if not isinstance(part, nn.Module):
            raise TypeError(f"`{name}` must be a torch module, got {type(part).__name__}.")
    if not callable(getattr(classifier, "probabilities", None)):
        raise TypeError(
            "`classifier` must have a method `probabilities(logits)`, like `mlmetric.heads.ClassifierHead`; "
            f"{type(classifier).__name__} has none."
        )
    if backbone is not None and not isinstance(backbone, FrozenBackbone):
        raise TypeError(
            f"`backbone` must be a `mlmetric.heads.FrozenBackbone`, got {type(backbone).__name__}: make one with "
            "`FrozenBackbone(module, transform=...)`."
        )

    def with_text(size: int | None) -> int | None:
        return None if size is None else size + num_text_features

    sizes = {
        "in_features": in_features,
        "backbone": with_text(None if backbone is None else backbone.feature_size),
        "embedding": input_size(embedding),
        "classifier": input_size(classifier),
        "feature_names": with_text(None if feature_names is None else len(feature_names)),
    }
    known = {name: size for name, size in sizes.items() if size is not None}
    if len(set(known.values())) > 1:
        listed = ", ".join(f"{size} (`{name}`)" for name, size in known.items())
        listed += f", with the {num_text_features} of the text" if num_text_features else ""
        raise ValueError(f"The parts of a model must agree in their number of features, got {listed}.")
    if not known:
        raise ValueError(
            f"`in_features` is required: the number of features cannot be read from {type(embedding).__name__} and "
            f"{type(classifier).__name__}."
        )
    size = next(iter(known.values()))
    if not isinstance(size, int | np.integer) or size < 1:
        raise ValueError(f"`in_features` must be a whole number from 1, got {size!r}.")
    if size < num_text_features + (backbone is not None):
        raise ValueError(
            f"The last of {size} features are those of the text, but `text_features` has {num_text_features}"
            f"{'' if backbone is None else ', which leaves none to the backbone'}."
        )
    return int(size)


def output_sizes(row: Tensor, **heads: Callable[[Tensor], Any]) -> list[int]:
    """Apply heads to one row of features, and return the sizes of their outputs.

    Raises:
        ValueError: If a head cannot be applied, or does not return a matrix.
    """
    sizes = []
    for name, head in heads.items():
        try:
            output = head(row)
        except Exception as error:  # of any module
            raise ValueError(f"`{name}` cannot be applied to a row of {row.shape[1]} features: {error}") from error
        if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != 1:
            found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(f"`{name}` must map one row of features to a matrix of one row, got {found}.")
        sizes.append(output.shape[1])
    return sizes


def check_names(label_names: Sequence[str] | None, num_labels: int) -> list[str]:
    """Return the names of the labels, by default their indices.

    Raises:
        TypeError: If the names are a single string.
        ValueError: If their number is wrong, a name occurs twice, or contains half of a surrogate pair.
    """
    if label_names is None:
        return [str(label) for label in range(num_labels)]
    if isinstance(label_names, str):
        raise TypeError(f"`label_names` must be a list of names, got the text {label_names!r}.")
    names = [str(name) for name in label_names]
    if len(names) != num_labels:
        raise ValueError(f"`label_names` must name the {num_labels} labels of the classifier, got {len(names)} names.")
    repeated = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if repeated:
        raise ValueError(
            f"`label_names` must be different, but {repeated[0]!r} occurs {names.count(repeated[0])} times."
        )
    for name in names:
        if not name.isascii() and name != utf8(name):
            raise ValueError(f"`label_names` must be texts that UTF-8 can encode, got {name!r}.")
    return names


def read_thresholds(thresholds: float | Sequence[float] | npt.ArrayLike | Tensor, num_labels: int) -> Tensor:
    """Return thresholds as float32, shape `(L,)`.

    Raises:
        ValueError: If their number is wrong, or one is NaN.
    """
    values = thresholds.detach().cpu() if isinstance(thresholds, Tensor) else np.array(thresholds, dtype=np.float64)
    rows = torch.as_tensor(values).float()
    rows = rows.expand(num_labels) if rows.ndim == 0 else rows
    if rows.shape != (num_labels,):
        raise ValueError(
            f"`thresholds` must be a number or have shape ({num_labels},), one for each label, got {tuple(rows.shape)}."
        )
    if bool(rows.isnan().any()):
        raise ValueError(f"`thresholds` must not be NaN, got NaN for label {int(rows.isnan().nonzero()[0])}.")
    return rows.clone()


def reference_tensor(*modules: nn.Module | None) -> Tensor:
    """Return the first parameter of modules, whose device and dtype their inputs must have."""
    parameters = (part for module in modules if module is not None for part in module.parameters())
    return next((part for part in parameters if part.is_floating_point()), torch.empty(0))
