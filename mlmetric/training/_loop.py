"""The loop that both stages share: configuration, seeds, schedule, checkpoints."""

from __future__ import annotations

import hashlib
import inspect
import io
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mlmetric.distributed import gather_objects, gather_rows, num_ranks, on_first_rank, rank, sum_over_ranks
from mlmetric.labels import check_labels

EpochRecord = dict[str, float]
"""What one epoch measured, by name; `epoch` counts from 1."""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How a stage is trained, by Adam.

    Args:
        epochs: Passes over the training rows.
        batch_size: Rows of a batch; a metric loss finds its triplets within one.
        lr: Learning rate.
        lr_drops: After each of these epochs the learning rate falls to a tenth.
        weight_decay: Of Adam.
        seed: Fixes batches, dropout, and a miner's draws where the miner has no generator of its own.

    Raises:
        ValueError: If a number is out of range.
    """

    epochs: int = 10
    batch_size: int = 256
    lr: float = 0.01
    lr_drops: tuple[int, ...] = ()
    weight_decay: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 2), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"`{name}` must be at least {least}, got {getattr(self, name)}.")
        if not self.lr > 0:
            raise ValueError(f"`lr` must be above 0, got {self.lr}.")


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
        objective: tuple[Any, ...] = (),
    ) -> None:
        self.module = module
        self.objective = objective
        self.trained = nn.ModuleList([module, *(part for part in objective if isinstance(part, nn.Module))])
        self.config = TrainingConfig() if config is None else config
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        self.callback = callback
        self.optimizer = torch.optim.Adam(
            self.trained.parameters(), lr=self.config.lr, weight_decay=self.config.weight_decay
        )
        self.scheduler = torch.optim.lr_scheduler.MultiStepLR(self.optimizer, list(self.config.lr_drops), gamma=0.1)
        self.history: list[EpochRecord] = []
        self.draws_of_rank = torch.Generator()

    def forward(self, inputs: Tensor, batch: Tensor) -> Tensor:
        """Pass these rows through the module, each rank its share of them; return what comes out for all."""
        device = device_of(self.module)
        if num_ranks() == 1:
            outputs: Tensor = self.module(inputs[batch].to(device))
            return outputs
        own = torch.tensor_split(batch, num_ranks())[rank()]
        with self._fork_rng():  # dropout differs between ranks; what is drawn after it, by a miner, does not
            torch.manual_seed(int(torch.randint(2**62, (), generator=self.draws_of_rank)))
            outputs = self.module(inputs[own].to(device))
        return gather_rows(outputs)

    def fit(
        self,
        inputs: Tensor,
        labels: Tensor,
        step: Callable[[Tensor], tuple[Tensor, int]],
        validate: Callable[[], EpochRecord],
        *,
        count: str | None,
    ) -> list[EpochRecord]:
        check_labels(labels)
        if not isinstance(inputs, Tensor) or not isinstance(labels, Tensor):
            raise TypeError(f"Rows must be a torch.Tensor, got {type(inputs).__name__} and {type(labels).__name__}.")
        if inputs.ndim != 2 or labels.ndim != 2 or len(inputs) != len(labels) or len(inputs) < 2:
            raise ValueError(
                "Rows to train on and their labels must have shapes (N, D) and (N, L) with N >= 2, "
                f"got {tuple(inputs.shape)} and {tuple(labels.shape)}."
            )
        self.settings = self._settings(inputs, labels)
        self._check_ranks()
        self._start()
        for record in self.history:
            self._report(record)
        while len(self.history) < self.config.epochs:
            with self._seeded():
                record = self._epoch(len(inputs), step, count)
            record |= validate()
            self.history.append(record)
            self._save()
            self._report(record)
        return self.history

    def _epoch(self, num_rows: int, step: Callable[[Tensor], tuple[Tensor, int]], count: str | None) -> EpochRecord:
        self.module.train()
        total_loss, total_count = torch.zeros((), device=device_of(self.module)), 0
        for batch in self._batches(num_rows):
            loss, number = step(batch)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            sum_over_ranks(part.grad for part in self.module.parameters() if part.grad is not None)
            self.optimizer.step()
            total_loss += loss.detach() * len(batch)
            total_count += number
        epoch = len(self.history) + 1
        if not bool(total_loss.isfinite()):
            raise FloatingPointError(
                f"The loss is {total_loss.item()} in epoch {epoch}: lower the learning rate ({self.config.lr}), or "
                "standardise the features."
            )
        lr = float(self.scheduler.get_last_lr()[0])
        record: EpochRecord = {"epoch": epoch, "loss": total_loss.item() / num_rows, "lr": lr}
        self.scheduler.step()
        return record if count is None else record | {count: total_count}

    def _batches(self, num_rows: int) -> list[Tensor]:
        batches = list(torch.split(torch.randperm(num_rows), self.config.batch_size))
        if len(batches) > 1 and len(batches[-1]) == 1:  # neither batch normalisation nor a miner can use one row
            batches[-2:] = [torch.cat(batches[-2:])]
        return batches

    @contextmanager
    def _seeded(self) -> Iterator[None]:
        """Give each epoch random numbers of its own, so that a resumed run draws what one never killed draws."""
        seed = self.config.seed * 100_003 + len(self.history)
        with self._fork_rng():
            torch.manual_seed(seed)
            self.draws_of_rank.manual_seed(seed * num_ranks() + rank())
            yield

    def _fork_rng(self) -> AbstractContextManager[None]:
        device = device_of(self.module)
        return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])

    def _settings(self, inputs: Tensor, labels: Tensor) -> dict[str, Any]:
        """Describe what a checkpoint must have been made of for training to go on from it, and what ranks share."""
        if self.checkpoint is None and num_ranks() == 1:
            return {}
        return {
            **asdict(self.config),
            "module": repr(self.module),
            "objective": [_describe(part) for part in self.objective],
            "inputs": _digest(inputs),
            "labels": _digest(labels),
        }

    def _check_ranks(self) -> None:
        """See that all processes train the same on the same rows."""
        if num_ranks() == 1:
            return
        given = gather_objects(self.settings)
        for name in self.settings:
            values = [settings[name] for settings in given]
            if any(value != values[0] for value in values):
                raise ValueError(
                    f"Every process must be given the same rows and settings, but {name} differs: {values}. Give each "
                    "of them all rows: every batch is shared out among them."
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
        return self._serialized()

    def _restore(self) -> None:
        if self.checkpoint is None or not self.checkpoint.exists():
            return
        try:
            state = torch.load(self.checkpoint, map_location=device_of(self.module), weights_only=True)
            saved = state["settings"]
        except Exception as error:
            raise OSError(
                f"The checkpoint {self.checkpoint} cannot be read ({type(error).__name__}); remove it to train anew."
            ) from error
        for name, value in self.settings.items():
            if saved.get(name) != value:
                raise ValueError(
                    f"The checkpoint {self.checkpoint} is of other settings or data: {name} was {saved.get(name)!r} "
                    f"and is {value!r}. Remove it to train anew."
                )
        self._load(state)

    def _load(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["module"])
        for part, part_state in zip(self.trained[1:], state["objective"], strict=True):
            part.load_state_dict(part_state)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.history = state["history"]

    def _serialized(self) -> bytes:
        state = {
            "settings": self.settings,
            "module": self.module.state_dict(),
            "objective": [part.state_dict() for part in self.trained[1:]],
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "history": self.history,
        }
        serialized = io.BytesIO()
        torch.save(state, serialized)
        return serialized.getvalue()

    def _save(self) -> None:
        if self.checkpoint is None or rank() > 0:
            return
        serialized = self._serialized()
        unfinished = self.checkpoint.with_name(f"{self.checkpoint.name}.unfinished")
        try:
            self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
            with unfinished.open("wb") as file:
                file.write(serialized)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(self.checkpoint)
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            raise OSError(
                error.errno,
                f"The checkpoint {self.checkpoint} could not be written: {error.strerror}. What was there before is "
                "kept. Free some space, or take another folder, and resume.",
            ) from error

    def _report(self, record: EpochRecord) -> None:
        if self.callback is not None:
            self.callback(record)


def _describe(part: Any) -> str:
    """Name a loss, a miner, or what one is made of, with all that its constructors were given."""
    if isinstance(part, Tensor):
        return f"Tensor({_digest(part)[:16]})"
    if inspect.isroutine(part):
        return f"{part.__module__}.{part.__qualname__}"
    if part is None or isinstance(part, int | float | str | torch.Generator):
        return type(part).__name__ if isinstance(part, torch.Generator) else repr(part)
    names = {name: None for cls in type(part).__mro__[:-1] for name in inspect.signature(cls).parameters}
    given = (f"{name}={_describe(getattr(part, name))}" for name in names if hasattr(part, name))
    return f"{type(part).__name__}({', '.join(given)})"


def _digest(rows: Tensor) -> str:
    values = rows.detach().cpu().contiguous().flatten().view(torch.uint8)
    return hashlib.sha256(values.numpy().data).hexdigest()
