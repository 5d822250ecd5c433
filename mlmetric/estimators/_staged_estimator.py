"""The base class of the estimators: data, settings, checkpoints, callbacks and seeds of their stages."""

from __future__ import annotations

import copy
import json
import logging
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from torch import nn

from mlmetric._atomic_write import atomic_write
from mlmetric._label_columns import LabelsOrNames
from mlmetric.distributed import on_first_rank, rank
from mlmetric.estimators._training_data import TrainingData, read_training_data, read_validation_data
from mlmetric.training import EpochRecord, TrainingConfig
from mlmetric.training._checkpoint import write_checkpoint

StageCallback = Callable[[str, EpochRecord], None]
RandomState = int | np.random.RandomState | None

_MAX_SEED = 2**31 - 1
_logger = logging.getLogger(__name__)


class StageOutputs:
    """Checkpoints and callback of the stages of a fit.

    Args:
        checkpoint_dir: Folder of the checkpoints, one file for each stage; None for no checkpoints.
        callback: Called with the name of the stage and the record of each epoch.
    """

    def __init__(self, checkpoint_dir: str | os.PathLike[str] | None, callback: StageCallback | None) -> None:
        self.checkpoint_dir = None if checkpoint_dir is None else Path(checkpoint_dir)
        self.callback = callback

    def checkpoint(self, stage: str) -> Path | None:
        """Return the file of the checkpoint of a stage."""
        return None if self.checkpoint_dir is None else self.checkpoint_dir / f"{stage}.pt"

    def callback_of(self, stage: str) -> Callable[[EpochRecord], None] | None:
        """Return the callback of a stage."""
        return None if self.callback is None else partial(self.callback, stage)

    def save(self, name: str, module: nn.Module) -> None:
        """Save the state dict of a trained module as the entry "module" of a file."""
        if self.checkpoint_dir is not None:
            path, state = self.checkpoint_dir / f"{name}.pt", module.state_dict()
            on_first_rank(lambda: write_checkpoint(path, {"module": {key: state[key].cpu() for key in state}}))

    def seeds(self, random_state: RandomState) -> tuple[int, int]:
        """Draw two seeds, for the embedding and the classifier.

        If `random_state` is None, all processes of a process group use the seeds of rank 0, and a file in the
        checkpoint folder stores them for a resumed fit.

        Raises:
            OSError: If that file cannot be read or written, or is damaged.
        """
        if random_state is not None:
            return _draw_seeds(random_state)
        return on_first_rank(self._fresh_or_saved_seeds)

    def _fresh_or_saved_seeds(self) -> tuple[int, int]:
        if self.checkpoint_dir is None:
            return _draw_seeds(None)
        path = self.checkpoint_dir / "seeds.json"
        if path.exists():
            try:
                first, second = map(int, json.loads(path.read_bytes()))
            except (TypeError, ValueError) as error:
                raise OSError(f"The seed file {path} is damaged. Remove its folder to train from scratch.") from error
            return first, second
        seeds = _draw_seeds(None)
        with atomic_write(path) as file:
            file.write(json.dumps(seeds).encode())
        return seeds


def _draw_seeds(random_state: RandomState) -> tuple[int, int]:
    generator = check_random_state(random_state)
    return int(generator.randint(_MAX_SEED)), int(generator.randint(_MAX_SEED))


class StagedEstimator(BaseEstimator):
    """Base class of the estimators, with everything that does not depend on the stage."""

    def __getstate__(self) -> dict[str, Any]:
        """Return the state with trained modules on the CPU, since the device may be missing where it is unpickled."""
        state: dict[str, Any] = dict(super().__getstate__())  # on Python 3.11 this is the estimator's own dict
        for name, value in state.items():
            if name in ("head_", "classifier_") and any(part.device.type != "cpu" for part in value.parameters()):
                state[name] = copy.deepcopy(value).cpu()
        return state

    def _read(
        self, X: npt.ArrayLike, y: LabelsOrNames, validation: tuple[npt.ArrayLike, LabelsOrNames] | None
    ) -> tuple[TrainingData, TrainingData | None]:
        data = read_training_data(self, X, y)
        self.n_samples_fit_ = len(data.labels)
        return data, None if validation is None else read_validation_data(self, validation)

    def _config(self, seed: int, validation: TrainingData | None, *, is_embedding: bool = False) -> TrainingConfig:
        return TrainingConfig(
            max_epochs=self.max_epochs,
            batch_size=self.batch_size,
            lr=self.lr,
            lr_drops=tuple(self.lr_drops),
            ema_decay=self.ema_decay,
            mixup=self.mixup if is_embedding else 0.0,
            items_per_label=self.items_per_label if is_embedding else None,
            keep_best=self.keep_best and validation is not None,
            patience=None if validation is None else self.patience,
            seed=seed,
        )

    def _log_stage(self, stage: str, data: TrainingData, validation: TrainingData | None) -> None:
        if rank() == 0:
            num_validation = 0 if validation is None else len(validation.labels)
            _logger.info("%s: %d training rows, %d validation rows", stage, len(data.labels), num_validation)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.single_output = False
        tags.target_tags.multi_output = True
        tags.non_deterministic = self.random_state is None
        return tags
