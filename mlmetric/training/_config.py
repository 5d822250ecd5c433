"""How a stage is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass

_MAX_SEED = 2**32 - 1


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How a stage is trained, by Adam.

    Args:
        epochs: Passes over the training rows.
        batch_size: Rows of a batch; a metric loss finds its triplets within one.
        lr: Learning rate.
        lr_drops: After each of these epochs the learning rate falls to a tenth.
        weight_decay: Of Adam.
        mixup: Each row is mixed with another of its batch, features and labels alike, the greater share, drawn from
            Beta(mixup, mixup), its own. That makes soft labels, which similarities and most losses take, but not those
            that want labels 0 or 1: with proxies or a margin for each label. 0 is off; at 1 shares are uniform from one
            half to one, a remedy for few rows.
        items_per_label: If given, batches are filled label by label, this many items of each, by
            [MultiLabelBatchSampler][mlmetric.samplers.MultiLabelBatchSampler]; rows without labels then never come.
        keep_best: Whether to end with the weights of the epoch that scored best on validation, which must be given.
        patience: Stop after this many epochs without a better score on validation; None trains them all.
        seed: Fixes batches, dropout, and a miner's draws where the miner has no generator of its own; below 2^32. These
            draw from torch's global generator, which is seeded for each epoch and put back into its state after it.
            Fits in several threads therefore take turns, epoch by epoch; what a thread draws from that generator
            outside of a fit while another one trains changes both.

    Raises:
        ValueError: If a number is out of range.
    """

    epochs: int = 10
    batch_size: int = 256
    lr: float = 0.01
    lr_drops: tuple[int, ...] = ()
    weight_decay: float = 0.0
    mixup: float = 0.0
    items_per_label: int | None = None
    keep_best: bool = False
    patience: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 2), ("seed", 0)):
            if not getattr(self, name) >= least:
                raise ValueError(f"`{name}` must be at least {least}, got {getattr(self, name)}.")
        if self.seed > _MAX_SEED:
            raise ValueError(f"`seed` must be at most {_MAX_SEED}, got {self.seed}.")
        if not 0 < self.lr < math.inf:
            raise ValueError(f"`lr` must be above 0 and finite, got {self.lr}.")
        for name in ("weight_decay", "mixup"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"`{name}` must be at least 0 and finite, got {getattr(self, name)}.")
        for name in ("items_per_label", "patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be None or at least 1, got {value}.")
