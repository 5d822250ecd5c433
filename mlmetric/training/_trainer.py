"""The training loop of both stages: epochs, seeds, checkpoints, and choice of the best epoch."""

from __future__ import annotations

import copy
import io
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mlmetric._fingerprint import describe
from mlmetric._random_generators import draw_seed, seeded
from mlmetric.distributed import gather_objects, gather_rows, num_ranks, on_first_rank, rank, sum_over_ranks
from mlmetric.training._best_epochs import BestEpochs, Weights
from mlmetric.training._checkpoint import check_progress, read_checkpoint, serialize, write_checkpoint
from mlmetric.training._config import TrainingConfig
from mlmetric.training._divergence import all_weights_finite, check_epoch_finite, warn_if_diverging
from mlmetric.training._mixup_batches import MixupRows, mixup_batches
from mlmetric.training._weight_average import WeightAverage

EpochRecord = dict[str, float]
"""Measurements of an epoch by name: `epoch` (from 1), `loss`, `lr`, and others that depend on the stage."""

_logger = logging.getLogger(__name__)


def device_of(module: nn.Module, default: torch.device | None = None) -> torch.device:
    """Return the device of a module's first parameter; without parameters, `default` or the CPU."""
    parameter = next(module.parameters(), None)
    return parameter.device if parameter is not None else default or torch.device("cpu")


class Trainer:
    """The training loop of both stages: epochs, seeds, checkpoints, choice of the best epoch.

    In a process group of torch.distributed, each process runs this loop on the same rows, and all end with the same
    weights. Only `forward` divides a batch among them; other steps use the whole batch and are the same on each rank.

    Args:
        module: The module to train.
        config: Settings; None for `TrainingConfig()`.
        checkpoint: File to save to after each epoch, and to resume from.
        callback: Called with the record of each epoch.
        objective: Loss, miner and other parts of the objective, by name. Modules among them are trained and saved with
            `module`; a checkpoint must have been written with the same modules.
    """

    def __init__(
        self,
        module: nn.Module,
        config: TrainingConfig | None,
        checkpoint: str | Path | None,
        callback: Callable[[EpochRecord], None] | None,
        objective: dict[str, Any],
    ) -> None:
        self.module = module
        self.objective = objective
        self.trained = nn.ModuleList([module, *(part for part in objective.values() if isinstance(part, nn.Module))])
        self.config = TrainingConfig() if config is None else config
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        self.callback = callback
        self.optimizer = torch.optim.Adam(
            self.trained.parameters(),
            lr=self.config.lr,
            weight_decay=self.config.weight_decay,
            fused=device_of(module).type in ("cpu", "cuda") or None,  # faster; supported on these devices only
        )
        self.scheduler = torch.optim.lr_scheduler.MultiStepLR(self.optimizer, list(self.config.lr_drops), gamma=0.1)
        self.average = WeightAverage(self.trained, self.config.ema_decay)
        self.history: list[EpochRecord] = []
        self.best = BestEpochs(
            keep_weights=self.config.keep_best,
            warn=rank() == 0 and (self.config.keep_best or self.config.patience is not None),
        )
        self.seed = 0
        self.rank_generator = torch.Generator()
        self.first_loss = math.nan
        self.has_missing = False
        self.warned = False

    def forward(self, inputs: Tensor, batch: MixupRows) -> Tensor:
        """Return the outputs of the module for a batch; each rank computes a chunk of them."""
        device = device_of(self.module)
        if num_ranks() == 1:
            outputs: Tensor = self.module(batch.mix(inputs, skip_nan=self.has_missing).to(device))
            return outputs
        chunk = batch.chunk(rank(), num_ranks())
        seed = int(torch.randint(2**62, (), generator=self.rank_generator))
        with seeded(seed, device):  # dropout must differ between ranks, draws of a miner must not
            outputs = self.module(chunk.mix(inputs, skip_nan=self.has_missing).to(device))
        return gather_rows(outputs)

    def fit(
        self,
        inputs: Tensor,
        labels: Tensor,
        step: Callable[[MixupRows], tuple[Tensor, int]],
        validate: Callable[[], tuple[EpochRecord, dict[str, float]]],
        *,
        validation: tuple[Tensor, Tensor] | None,
        count_name: str | None,
    ) -> list[EpochRecord]:
        """Train the module.

        Args:
            inputs: Rows to train on, shape `(N, D)` or `(N, ...)`.
            labels: Their labels, shape `(N, L)`.
            step: Returns the loss of a batch, and a count, such as the number of its triplets.
            validate: Returns the measurements of an epoch on `validation`, and its scores by name (larger is better).
                The module ends with the weights of the best epoch by the first score.
            validation: The validation rows; None to skip `validate`.
            count_name: Name of the count in the records; None to leave it out.

        Returns:
            The record of each epoch.
        """
        needs_scores = self.config.keep_best or self.config.patience is not None
        if validation is None and needs_scores:
            raise ValueError("`keep_best` and `patience` require `validation` rows to score epochs, got None.")
        # Only mixup needs to know, and the check takes a pass over all rows.
        self.has_missing = bool(self.config.mixup) and inputs.is_floating_point() and bool(inputs.isnan().any())
        self.settings = self._settings(inputs, labels, validation if needs_scores else None)
        self._check_same_on_all_ranks()
        self.seed = on_first_rank(draw_seed) if self.config.seed is None else self.config.seed
        self._resume()
        for record in self.history:
            self._call_back(record)
        while len(self.history) < self.config.max_epochs and not self._patience_is_over():
            with self._seeded():
                record = self._train_epoch(labels, step, count_name)
            self.history.append(record)
            if not self.warned and rank() == 0:
                self.warned = warn_if_diverging(
                    record["loss"], first_loss=self.first_loss, epoch=len(self.history), lr=self.config.lr
                )
            if validation is not None:
                with self.average.applied():
                    measured, scores = on_first_rank(validate)  # the same on all ranks, so that they stop together
                    record |= measured
                    self.best.update(scores, len(self.history), self.weights)
            self._save()
            self._log(record)
            self._call_back(record)
        if final_weights := self.best.weights() or self._average_weights():
            self._load_weights(final_weights)
            self._save()  # the checkpoint of a finished stage has the final weights
        return self.history

    def _average_weights(self) -> Weights | None:
        if not self.config.ema_decay:
            return None
        with self.average.applied():
            return copy.deepcopy(self.weights())

    def _patience_is_over(self) -> bool:
        patience = self.config.patience
        return patience is not None and self.best.epochs_without_progress(len(self.history)) >= patience

    def _train_epoch(
        self, labels: Tensor, step: Callable[[MixupRows], tuple[Tensor, int]], count_name: str | None
    ) -> EpochRecord:
        self.trained.train()
        total_loss, total_count, num_rows = torch.zeros((), device=device_of(self.module)), 0, 0
        for batch in mixup_batches(labels, self.config, seed=self.seed, epoch=len(self.history)):
            loss, count = step(batch)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            sum_over_ranks(part.grad for part in self.module.parameters() if part.grad is not None)
            self.optimizer.step()
            self.average.update()
            if math.isnan(self.first_loss) or self.first_loss == 0:  # 0: a batch without pairs
                self.first_loss = float(loss.detach())
            total_loss += loss.detach() * len(batch)
            total_count += count
            num_rows += len(batch)
        epoch = len(self.history) + 1
        check_epoch_finite(total_loss, self.trained, epoch=epoch, lr=self.config.lr)
        lr = float(self.scheduler.get_last_lr()[0])
        record: EpochRecord = {"epoch": epoch, "loss": total_loss.item() / num_rows, "lr": lr}
        self.scheduler.step()
        return record if count_name is None else record | {count_name: total_count}

    @contextmanager
    def _seeded(self) -> Iterator[None]:
        """Seed each epoch by its number, so that a resumed run has the same random numbers as an uninterrupted one."""
        seed = self.seed * 100_003 + len(self.history)
        with seeded(seed, device_of(self.module)):
            self.rank_generator.manual_seed(seed * num_ranks() + rank())
            yield

    def _settings(self, inputs: Tensor, labels: Tensor, validation: tuple[Tensor, Tensor] | None) -> dict[str, str]:
        """Describe everything that must be the same in a checkpoint and on each rank."""
        if self.checkpoint is None and num_ranks() == 1:
            return {}
        state: list[Tensor] = list(self.trained.parameters())
        for part in self.trained.modules():
            if isinstance(part, nn.modules.batchnorm._NormBase):  # training changes its buffers
                state += part.buffers()
        settings = describe({**asdict(self.config), "module": self.module, **self.objective}, state=state)
        for name, rows in (("inputs", inputs), ("labels", labels), ("validation", validation)):
            settings |= describe({name: rows})
        return settings

    def _check_same_on_all_ranks(self) -> None:
        """Check that all processes have the same rows and settings."""
        if num_ranks() == 1:
            return
        settings_of_ranks = gather_objects(self.settings)
        for name in dict.fromkeys(chain.from_iterable(settings_of_ranks)):
            if "<global " in name or "<closure" in name:  # may contain the rank and the device of a process
                continue
            values = [settings.get(name, "absent") for settings in settings_of_ranks]
            if any(value != values[0] for value in values):
                raise ValueError(
                    f"Every process must have the same rows and settings, but {name} differs: {', '.join(values)}. "
                    "Pass all rows in each process: every batch is divided among them."
                )
        for part in self.module.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm) and not isinstance(part, nn.SyncBatchNorm):
                raise ValueError(
                    f"{part} would see another part of each batch in each process: train in one process, or on CUDA "
                    "use `torch.nn.SyncBatchNorm.convert_sync_batchnorm(head)`."
                )

    def _resume(self) -> None:
        """Load the checkpoint if it exists; in a process group, all ranks load the state of rank 0."""
        if num_ranks() == 1:
            self._load_checkpoint()
        else:
            state = io.BytesIO(on_first_rank(self._state_of_first_rank))
            self._load(torch.load(state, map_location=device_of(self.module), weights_only=True))
        if self.history and rank() == 0:
            _logger.info("%s: resumed after epoch %d of %d", self.checkpoint, len(self.history), self.config.max_epochs)

    def _state_of_first_rank(self) -> bytes:
        self._load_checkpoint()
        return serialize(self._state())

    def _load_checkpoint(self) -> None:
        state = None if self.checkpoint is None else read_checkpoint(self.checkpoint, device_of(self.module))
        if state is None:
            return
        saved = state.get("settings", {})  # absent in the file of a module that was trained in another way
        for name in {**self.settings, **saved}:
            was, now = (settings.get(name, "absent") for settings in (saved, self.settings))
            if was != now:
                is_data = "torch.Tensor" in f"{was}"  # with a digest, which tells users nothing
                difference = f"{name} has other values" if is_data else f"{name} was {was} and is {now}"
                raise ValueError(
                    f"The checkpoint {self.checkpoint} has other settings or data: {difference}. "
                    "Remove it to train from scratch, and the others in its folder, or choose another folder."
                )
        try:
            self._load(state)
        except Exception as error:  # whatever torch raises if a state does not match
            raise OSError(
                f"The checkpoint {self.checkpoint} does not match the module to train ({type(error).__name__}). Remove "
                "it to train from scratch."
            ) from error

    def _load(self, state: dict[str, Any]) -> None:
        check_progress(state, self.optimizer, self.scheduler, self.config)
        self.best.load(state["best"])
        for name in self.best.by_score:
            if best_weights := self.best.weights(name):
                self._load_weights(best_weights)  # to detect a state that does not match
        self._load_weights(state)
        if not all_weights_finite(self.trained):
            raise ValueError("The weights are not finite.")
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.average.load_state_dict(state["average"])
        self.history = list(state["history"])
        self.first_loss = state["first_loss"]
        self.seed = int(state["seed"])

    def _load_weights(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["module"])
        for part, part_state in zip(self.trained[1:], state["objective"], strict=True):
            part.load_state_dict(part_state)

    def weights(self) -> Weights:
        """Return the state of the module, and of the modules of the objective in their order."""
        objective = [part.state_dict() for part in self.trained[1:]]
        return {"module": self.module.state_dict(), "objective": objective}

    def _state(self) -> dict[str, Any]:
        return {
            "settings": self.settings,
            **self.weights(),
            "best": self.best.by_score,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "average": self.average.state_dict(),
            "history": self.history,
            "first_loss": self.first_loss,
            "seed": self.seed,
        }

    def _save(self) -> None:
        if self.checkpoint is not None and rank() == 0:
            write_checkpoint(self.checkpoint, self._state())

    def _log(self, record: EpochRecord) -> None:
        if rank() == 0 and _logger.isEnabledFor(logging.INFO):
            values = ", ".join(f"{name} {value:.4g}" for name, value in record.items() if name != "epoch")
            _logger.info("epoch %d of %d: %s", len(self.history), self.config.max_epochs, values)

    def _call_back(self, record: EpochRecord) -> None:
        if self.callback is not None:
            self.callback(dict(record))
