"""Settings of a training stage."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral

_MAX_SEED = 2**32 - 1


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Settings of a training stage; the optimiser is Adam.

    [MetricEmbedder][mlmetric.estimators.MetricEmbedder] and
    [MetricClassifier][mlmetric.estimators.MetricClassifier] have defaults of their own: 20 epochs, a learning rate of
    0.003, mixup and averaged weights.

    Args:
        max_epochs: Largest number of passes over the training rows; `patience` can end training earlier.
        batch_size: Number of rows in a batch. A metric loss compares the rows of one batch with each other.
        lr: Learning rate.
        lr_drops: Epochs after which the learning rate is divided by 10.
        weight_decay: Weight decay of Adam (an L2 penalty).
        ema_decay: Decay of an exponential moving average of the weights, in [0, 1); 0 for no average. The average, not
            the last weights, is validated and returned: 0.99 averages over about the last 100 batches. The decay after
            n batches is at most (1 + n) / (10 + n), so that the influence of the first weights soon fades. Averages
            allow a constant, high learning rate, and therefore fewer epochs. Buffers, such as the statistics of batch
            normalisation, are not averaged: they are those of the last batch.
        mixup: Parameter alpha of mixup, which regularises training on few rows: the features and labels of each row are
            averaged with those of another row of the batch. The weight of the row itself is w or 1 - w, whichever is
            larger, with w drawn from Beta(alpha, alpha). Views that the other row lacks are not mixed. The labels
            become soft. Losses that require labels 0 or 1, such as losses with a proxy or a margin for each label, do
            not support this. 0 turns mixup off.
        items_per_label: If given, [MultiLabelBatchSampler][mlmetric.samplers.MultiLabelBatchSampler] composes batches
            label by label, with this many rows of each label; rows without labels are then not used.
        keep_best: Whether to end with the weights of the epoch with the best validation score; requires validation
            rows. False ends with the weights of the last epoch.
        patience: Number of epochs without a better validation score after which training stops; requires validation
            rows. None trains for `max_epochs` epochs.
        seed: Seed of the order of the rows, mixup, dropout, and miners without a generator of their own; from 0 to
            `2**32 - 1`. None draws one from torch's global generator when training starts. A checkpoint stores the
            seed, so that a resumed run continues with it; all processes of a process group use the seed of rank 0.
            torch's global generator is seeded in each epoch and restored after it. Other threads must not draw from it
            during an epoch; epochs of fits in several threads run one after the other.

    Raises:
        ValueError: If a setting is out of range, or `seed` is not an integer.

    Examples:
        >>> from mlmetric.training import TrainingConfig
        >>> TrainingConfig(max_epochs=20, seed=0).batch_size
        64

    Source:
        Mixup: Zhang et al., "mixup: beyond empirical risk minimization", ICLR 2018. Averages of weights: Polyak and
        Juditsky, "Acceleration of stochastic approximation by averaging", SIAM J. Control Optim. 1992; with a moving
        average as in Tarvainen and Valpola, "Mean teachers are better role models", NeurIPS 2017. The smaller decay of
        the first batches follows `tf.train.ExponentialMovingAverage`.
    """

    max_epochs: int = 50
    batch_size: int = 64
    lr: float = 0.001
    lr_drops: tuple[int, ...] = ()
    weight_decay: float = 0.0
    ema_decay: float = 0.0
    mixup: float = 0.0
    items_per_label: int | None = None
    keep_best: bool = False
    patience: int | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        for name, smallest in (("max_epochs", 1), ("batch_size", 2)):
            if not getattr(self, name) >= smallest:
                raise ValueError(f"`{name}` must be at least {smallest}, got {getattr(self, name)}.")
        if self.seed is not None:
            if isinstance(self.seed, bool) or not isinstance(self.seed, Integral) or not 0 <= self.seed <= _MAX_SEED:
                raise ValueError(f"`seed` must be None or an integer from 0 to {_MAX_SEED}, got {self.seed!r}.")
            object.__setattr__(self, "seed", int(self.seed))  # seeds derived from a numpy integer could overflow
        if not 0 < self.lr < math.inf:
            raise ValueError(f"`lr` must be above 0 and finite, got {self.lr}.")
        for name in ("weight_decay", "mixup"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"`{name}` must be at least 0 and finite, got {getattr(self, name)}.")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"`ema_decay` must be in [0, 1), got {self.ema_decay}.")
        for name in ("items_per_label", "patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be None or at least 1, got {value}.")
