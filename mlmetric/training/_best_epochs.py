"""The best epoch of a stage by each of its validation scores, with the weights of the epoch."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

Weights = dict[str, Any]
BestEpoch = tuple[float, int, Weights]
"""A score, the epoch that reached it, from 1, and the weights after this epoch; these are empty if not kept."""


class BestEpochs:
    """The best epoch by each validation score: the first of several equal ones; any score is better than NaN.

    Args:
        keep_weights: Whether to keep the weights of the best epochs.
        warn: Whether to warn if a score is NaN.

    Attributes:
        by_score: The best epoch by the name of the score; empty before the first epoch that is scored.
    """

    def __init__(self, *, keep_weights: bool, warn: bool) -> None:
        self.keep_weights = keep_weights
        self.warn = warn
        self.by_score: dict[str, BestEpoch] = {}

    def update(self, scores: Mapping[str, float], epoch: int, weights: Callable[[], Weights]) -> None:
        """Compare the scores of an epoch (larger is better) with those of the best epochs."""
        if any(self._is_first_nan(name, score) for name, score in scores.items()):
            warnings.warn(
                "Epochs cannot be scored: the validation score is NaN, for example because no validation row has a "
                "label. `keep_best` and `patience` ignore such epochs; if no epoch has a score, the last is kept.",
                stacklevel=5,
            )
        for name, score in scores.items():
            best = self.by_score.get(name)
            if best is None or score > best[0] or math.isnan(best[0]):
                self.by_score[name] = (score, epoch, copy.deepcopy(weights()) if self.keep_weights else {})

    def _is_first_nan(self, name: str, score: float) -> bool:
        best = self.by_score.get(name)
        return self.warn and math.isnan(score) and (best is None or not math.isnan(best[0]))

    def epochs_without_progress(self, epoch: int) -> int:
        """Return the number of epochs up to this one since a score last improved; scores of NaN do not count."""
        scored = [best_epoch for score, best_epoch, _ in self.by_score.values() if not math.isnan(score)]
        return epoch - max(scored, default=epoch)

    def weights(self, name: str | None = None) -> Weights | None:
        """Return the weights of the best epoch by a score, by default the first; None if none are kept."""
        if not self.keep_weights or not self.by_score:
            return None
        return self.by_score[next(iter(self.by_score)) if name is None else name][2]

    def load(self, state: Mapping[str, BestEpoch]) -> None:
        """Replace the best epochs by those of a checkpoint."""
        self.by_score = {name: (float(score), int(epoch), weights) for name, (score, epoch, weights) in state.items()}
