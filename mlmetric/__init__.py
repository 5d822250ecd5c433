"""mlmetric: the multi-label layer for PyTorch metric learning.

Modules are imported when they are first used: `mlmetric.miners.MultiLabelSemiHardMiner` needs no import of its own.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = [
    "data",
    "distributed",
    "estimators",
    "heads",
    "imbalance",
    "label_vectors",
    "labels",
    "losses",
    "metrics",
    "miners",
    "neighbors",
    "relations",
    "samplers",
    "similarity",
    "training",
    "under_sampling",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("mlmetric")
    if name in __all__:
        return importlib.import_module(f"mlmetric.{name}")
    raise AttributeError(f"module 'mlmetric' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
