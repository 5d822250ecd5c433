"""The samplers that the benchmarks compare."""

from __future__ import annotations

from typing import Any

from sklearn.base import clone

from mlmetric.over_sampling import MLSMOTE, MLSOL
from mlmetric.under_sampling import (
    LPRUS,
    MLRUS,
    MLUL,
    REMEDIAL,
    LabelCapUnderSampler,
    MLeNN,
    MultiLabelTomekLinks,
    RandomLabelUnderSampler,
)

SAMPLERS: dict[str, Any] = {
    "LabelCapUnderSampler()": LabelCapUnderSampler(),
    "LabelCapUnderSampler(cap_ratio=1)": LabelCapUnderSampler(cap_ratio=1),
    "RandomLabelUnderSampler(cap_ratio=1)": RandomLabelUnderSampler(cap_ratio=1),
    "MultiLabelTomekLinks()": MultiLabelTomekLinks(),
    "MultiLabelTomekLinks(protect_minority=True)": MultiLabelTomekLinks(protect_minority=True),
    "MultiLabelTomekLinks(protect_minority=True, threshold=0.5)": MultiLabelTomekLinks(
        protect_minority=True, threshold=0.5
    ),
    "MultiLabelTomekLinks(mutual=True)": MultiLabelTomekLinks(mutual=True),
    "MLRUS()": MLRUS(),
    "LPRUS()": LPRUS(),
    "MLeNN()": MLeNN(),
    "MLUL()": MLUL(),
    "REMEDIAL()": REMEDIAL(),
}
OVER_SAMPLERS: dict[str, Any] = {
    "MLSMOTE()": MLSMOTE(),
    'MLSMOTE(label_rule="union")': MLSMOTE(label_rule="union"),
    'MLSMOTE(label_rule="intersection")': MLSMOTE(label_rule="intersection"),
    "MLSOL()": MLSOL(),
    "MLSOL(percentage=100)": MLSOL(percentage=100),
}
NEIGHBOR_SAMPLERS = (MultiLabelTomekLinks, MLeNN, MLUL)
MAX_NEIGHBORS = 5
"""The largest number of neighbours that one of the samplers uses."""


def seeded(sampler: Any, seed: int) -> Any:
    """Return a copy with this seed, if the sampler has random choices."""
    parameters = {"random_state": seed} if "random_state" in sampler.get_params() else {}
    return clone(sampler).set_params(**parameters)
