"""The loop that both stages share: seeds, schedule, checkpoints."""

from __future__ import annotations

import copy
import io
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mlmetric._fingerprint import describe
from mlmetric._global_generator import seeded_globally
from mlmetric.distributed import gather_objects, gather_rows, num_ranks, on_first_rank, rank, sum_over_ranks
from mlmetric.labels import check_labels
from mlmetric.samplers import MultiLabelBatchSampler
from mlmetric.training._batch import Batch, mixed
from mlmetric.training._checkpoint import (
    check_progress,
    read_checkpoint,
    serialized,
    weights_are_finite,
    write_checkpoint,
)
from mlmetric.training._config import TrainingConfig
from mlmetric.training._divergence import warn_of_divergence

EpochRecord = dict[str, float]
"""What one epoch measured, by name; `epoch` counts from 1."""


def device_of(module: nn.Module, default: torch.device | None = None) -> torch.device:
    parameter = next(module.parameters(), None)
    return parameter.device if parameter is not None else default or torch.device("cpu")


class Stage:
    """The loop that both stages share: seeds, schedule, checkpoints.

    Where processes are joined each of them runs this loop on the same rows, and all end with the same module. Only
    `forward` is shared out; whatever follows it sees the whole batch, and must do the same on each rank.
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
            fused=device_of(module).type in ("cpu", "cuda") or None,  # one pass over the weights for many
        )
        self.scheduler = torch.optim.lr_scheduler.MultiStepLR(self.optimizer, list(self.config.lr_drops), gamma=0.1)
        self.history: list[EpochRecord] = []
        self.best: tuple[float, int, dict[str, Any]] | None = None
        self.draws_of_rank = torch.Generator()
        self.first_loss = math.nan
        self.warned = False

    def forward(self, inputs: Tensor, batch: Batch) -> Tensor:
        """Pass these rows through the module, each rank its share of them; return what comes out for all."""
        device = device_of(self.module)
        if num_ranks() == 1:
            outputs: Tensor = self.module(batch.of(inputs).to(device))
            return outputs
        own = batch.part(rank(), num_ranks())
        seed = int(torch.randint(2**62, (), generator=self.draws_of_rank))
        with seeded_globally(seed, device):  # so dropout differs between ranks, and what a miner draws does not
            outputs = self.module(own.of(inputs).to(device))
        return gather_rows(outputs)

    def fit(
        self,
        inputs: Tensor,
        labels: Tensor,
        step: Callable[[Batch], tuple[Tensor, int]],
        validate: Callable[[], tuple[EpochRecord, float]],
        *,
        validation: tuple[Tensor, Tensor] | None,
        count: str | None,
    ) -> list[EpochRecord]:
        """Train; `validate` returns what an epoch measures on `validation`, and the score that chooses epochs."""
        check_labels(labels)
        if not isinstance(inputs, Tensor) or not isinstance(labels, Tensor):
            raise TypeError(f"Rows must be a torch.Tensor, got {type(inputs).__name__} and {type(labels).__name__}.")
        if inputs.ndim < 2 or labels.ndim != 2 or len(inputs) != len(labels) or len(inputs) < 2:
            raise ValueError(
                "Rows to train on and their labels must have shapes (N, D) (or (N, ...)) and (N, L) with N >= 2, "
                f"got {tuple(inputs.shape)} and {tuple(labels.shape)}."
            )
        chooses = self.config.keep_best or self.config.patience is not None
        if validation is None and chooses:
            raise ValueError("`keep_best` and `patience` need `validation` rows to score epochs by, got None.")
        self.settings = self._settings(inputs, labels, validation if chooses else None)
        self._check_ranks()
        self._start()
        for record in self.history:
            self._report(record)
        while len(self.history) < self.config.epochs and not self._is_over():
            with self._seeded():
                record = self._epoch(labels, step, count)
            self.history.append(record)
            if not self.warned and rank() == 0:
                self.warned = warn_of_divergence(
                    record["loss"], first_loss=self.first_loss, epoch=len(self.history), lr=self.config.lr
                )
            if validation is not None:
                measured, score = on_first_rank(validate)  # all go by one number, and stop together
                record |= measured
                self._note(score)
            self._save()
            self._report(record)
        if self.config.keep_best and self.best is not None:
            self._load_trained(self.best[2])
            self._save()  # so that the checkpoint of a finished stage holds the weights that it ended with
        return self.history

    def _note(self, score: float) -> None:
        """Remember the weights of the best epoch so far; the earlier one of equals, and any before a NaN."""
        chooses = self.config.keep_best or self.config.patience is not None
        if chooses and math.isnan(score) and (self.best is None or not math.isnan(self.best[0])) and rank() == 0:
            warnings.warn(
                "Epochs cannot be scored: the score on the validation rows is NaN, as where no row there has a label. "
                "Neither `keep_best` nor `patience` can go by it: an epoch with a score is kept, or the last one.",
                stacklevel=4,
            )
        if self.best is None or score > self.best[0] or math.isnan(self.best[0]):
            state = copy.deepcopy(self._trained_state()) if self.config.keep_best else {}
            self.best = (score, len(self.history), state)

    def _is_over(self) -> bool:
        patience = self.config.patience
        return patience is not None and self.best is not None and len(self.history) - self.best[1] >= patience

    def _epoch(self, labels: Tensor, step: Callable[[Batch], tuple[Tensor, int]], count: str | None) -> EpochRecord:
        self.trained.train()
        total_loss, total_count, num_rows = torch.zeros((), device=device_of(self.module)), 0, 0
        for batch in (mixed(rows, self.config.mixup) for rows in self._batches(labels)):
            loss, number = step(batch)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            sum_over_ranks(part.grad for part in self.module.parameters() if part.grad is not None)
            self.optimizer.step()
            if math.isnan(self.first_loss) or self.first_loss == 0:  # a batch without a pair says nothing
                self.first_loss = float(loss.detach())
            total_loss += loss.detach() * len(batch)
            total_count += number
            num_rows += len(batch)
        epoch = len(self.history) + 1
        if not bool(total_loss.isfinite()):
            raise FloatingPointError(
                f"The loss is {total_loss.item()} in epoch {epoch}: lower the learning rate ({self.config.lr}), or "
                "standardise the features."
            )
        if not weights_are_finite(self.trained):
            raise FloatingPointError(
                f"The weights are no longer finite after epoch {epoch}: lower the learning rate ({self.config.lr})."
            )
        lr = float(self.scheduler.get_last_lr()[0])
        record: EpochRecord = {"epoch": epoch, "loss": total_loss.item() / num_rows, "lr": lr}
        self.scheduler.step()
        return record if count is None else record | {count: total_count}

    def _batches(self, labels: Tensor) -> list[Tensor]:
        if self.config.items_per_label is not None:
            num_labelled = int((labels > 0).any(dim=1).sum())
            if num_labelled < 2:
                raise ValueError(f"`items_per_label` needs two rows with labels or more, got {num_labelled}.")
            sampler = MultiLabelBatchSampler(
                labels,
                min(self.config.batch_size, num_labelled),
                items_per_label=self.config.items_per_label,
                generator=torch.Generator().manual_seed(self.config.seed),
                num_replicas=1,
                rank=0,
            )
            sampler.set_epoch(len(self.history))
            return [torch.tensor(batch) for batch in sampler]
        batches = list(torch.split(torch.randperm(len(labels)), self.config.batch_size))
        if len(batches) > 1 and len(batches[-1]) == 1:  # neither batch normalisation nor a miner can use one row
            batches[-2:] = [torch.cat(batches[-2:])]
        return batches

    @contextmanager
    def _seeded(self) -> Iterator[None]:
        """Give each epoch random numbers of its own, so that a resumed run draws what one never killed draws."""
        seed = self.config.seed * 100_003 + len(self.history)
        with seeded_globally(seed, device_of(self.module)):
            self.draws_of_rank.manual_seed(seed * num_ranks() + rank())
            yield

    def _settings(self, inputs: Tensor, labels: Tensor, validation: tuple[Tensor, Tensor] | None) -> dict[str, str]:
        """Describe what a checkpoint must have been made of for training to go on from it, and what ranks share."""
        if self.checkpoint is None and num_ranks() == 1:
            return {}
        state: list[Tensor] = list(self.trained.parameters())
        for part in self.trained.modules():
            if isinstance(part, nn.modules.batchnorm._NormBase):  # whose buffers training moves
                state += part.buffers()
        settings = describe({**asdict(self.config), "module": self.module, **self.objective}, state=state)
        for name, rows in (("inputs", inputs), ("labels", labels), ("validation", validation)):
            settings |= describe({name: rows})
        return settings

    def _check_ranks(self) -> None:
        """See that all processes train the same on the same rows."""
        if num_ranks() == 1:
            return
        given = gather_objects(self.settings)
        for name in dict.fromkeys(chain.from_iterable(given)):
            if "<global " in name or "<closure" in name:  # the rank and the device of a process may be among these
                continue
            values = [settings.get(name, "absent") for settings in given]
            if any(value != values[0] for value in values):
                raise ValueError(
                    f"Every process must be given the same rows and settings, but {name} differs: {', '.join(values)}. "
                    "Give each of them all rows: every batch is shared out among them."
                )
        for part in self.module.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm) and not isinstance(part, nn.SyncBatchNorm):
                raise ValueError(
                    f"{part} would see another part of each batch in each process: train in one process, or on CUDA "
                    "take `torch.nn.SyncBatchNorm.convert_sync_batchnorm(head)`."
                )

    def _start(self) -> None:
        """Go on from the checkpoint if there is one; where processes are joined, all from what the first one has."""
        if num_ranks() == 1:
            self._restore()
        else:
            state = io.BytesIO(on_first_rank(self._restored))
            self._load(torch.load(state, map_location=device_of(self.module), weights_only=True))

    def _restored(self) -> bytes:
        self._restore()
        return serialized(self._state())

    def _restore(self) -> None:
        state = None if self.checkpoint is None else read_checkpoint(self.checkpoint, device_of(self.module))
        if state is None:
            return
        saved = state["settings"]
        for name in {**self.settings, **saved}:
            was, now = (settings.get(name, "absent") for settings in (saved, self.settings))
            if was != now:
                raise ValueError(
                    f"The checkpoint {self.checkpoint} is of other settings or data: {name} was {was} and is {now}. "
                    "Remove it to train anew."
                )
        try:
            self._load(state)
        except Exception as error:  # whatever torch raises where a state does not fit
            raise OSError(
                f"The checkpoint {self.checkpoint} does not fit what is trained ({type(error).__name__}). Remove it to "
                "train anew."
            ) from error

    def _load(self, state: dict[str, Any]) -> None:
        check_progress(state, self.optimizer, self.scheduler, self.config)
        self.best = state["best"]
        if self.config.keep_best and self.best is not None:
            self._load_trained(self.best[2])  # so that a state that does not fit is found here
        self._load_trained(state)
        if not weights_are_finite(self.trained):
            raise ValueError("The weights are not finite.")
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.history = list(state["history"])
        self.first_loss = state["first_loss"]

    def _load_trained(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["module"])
        for part, part_state in zip(self.trained[1:], state["objective"], strict=True):
            part.load_state_dict(part_state)

    def _trained_state(self) -> dict[str, Any]:
        objective = [part.state_dict() for part in self.trained[1:]]
        return {"module": self.module.state_dict(), "objective": objective}

    def _state(self) -> dict[str, Any]:
        return {
            "settings": self.settings,
            **self._trained_state(),
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "history": self.history,
            "first_loss": self.first_loss,
        }

    def _save(self) -> None:
        if self.checkpoint is not None and rank() == 0:
            write_checkpoint(self.checkpoint, self._state())

    def _report(self, record: EpochRecord) -> None:
        if self.callback is not None:
            self.callback(record)
