"""mlmetric: multi-label metric learning for PyTorch.

A submodule is imported when it is first used: after `import mlmetric`, `mlmetric.miners.MultiLabelSemiHardMiner` needs
no other import.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlmetric import (
        data,
        decisions,
        distributed,
        estimators,
        evaluation,
        heads,
        imbalance,
        label_errors,
        label_vectors,
        labels,
        losses,
        metrics,
        miners,
        models,
        neighbors,
        over_sampling,
        relations,
        samplers,
        search,
        similarity,
        text,
        training,
        under_sampling,
    )

    __version__: str

__all__ = [
    "data",
    "decisions",
    "distributed",
    "estimators",
    "evaluation",
    "heads",
    "imbalance",
    "label_errors",
    "label_vectors",
    "labels",
    "losses",
    "metrics",
    "miners",
    "models",
    "neighbors",
    "over_sampling",
    "relations",
    "samplers",
    "search",
    "similarity",
    "text",
    "training",
    "under_sampling",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("mlmetric")
        except PackageNotFoundError as error:
            raise AttributeError("module 'mlmetric' has no attribute '__version__': it is not installed") from error
    if name in __all__:
        return importlib.import_module(f"mlmetric.{name}")
    raise AttributeError(f"module 'mlmetric' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
