"""Which items carry which labels."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from torch import Tensor

from mlmetric.labels import check_labels

Labels: TypeAlias = Tensor | npt.NDArray[Any]


def carriers(labels: Labels) -> npt.NDArray[np.bool_]:
    dense: Any = labels.detach().cpu() if isinstance(labels, Tensor) else labels
    return np.asarray(check_labels(dense) > 0)
