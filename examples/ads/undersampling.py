"""The undersamplers that a run can choose, and what they do to its training part."""

from __future__ import annotations

import torch
from sklearn.base import clone
from torch import Tensor

from mlmetric.under_sampling import (
    LPRUS,
    MLRUS,
    MLUL,
    REMEDIAL,
    BaseMultiLabelSampler,
    LabelCapUnderSampler,
    MLeNN,
    MultiLabelTomekLinks,
    RandomLabelUnderSampler,
)

from .config import Config

UNDERSAMPLERS: dict[str, BaseMultiLabelSampler] = {
    "cap": LabelCapUnderSampler(),
    "cap-rows": RandomLabelUnderSampler(),
    "tomek": MultiLabelTomekLinks(protect_minority=True),  # the published rule would remove nearly every row
    "mlrus": MLRUS(),
    "lprus": LPRUS(),
    "mlenn": MLeNN(),
    "mlul": MLUL(),
    "remedial": REMEDIAL(),
}


def undersample(config: Config, features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return which training rows are kept, and their labels; a row that was split is there twice."""
    if config.undersampler == "none":
        return torch.arange(len(targets)), targets
    sampler = clone(UNDERSAMPLERS[config.undersampler])
    if "random_state" in sampler.get_params():
        sampler.set_params(random_state=config.seed)
    _, kept_targets = sampler.fit_resample(features.numpy(), targets.numpy())
    rows = sampler.source_indices_ if isinstance(sampler, REMEDIAL) else sampler.sample_indices_
    return torch.from_numpy(rows), torch.from_numpy(kept_targets)
