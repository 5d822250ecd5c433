"""The batch sampler that fills batches label by label."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from numbers import Integral
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Sampler

from mlmetric.distributed import num_ranks
from mlmetric.distributed import rank as own_rank
from mlmetric.samplers._carriers import Labels, carriers


class MultiLabelBatchSampler(Sampler[list[int]]):
    """Fill batches label by label, `items_per_label` items of each: M per class for items of several labels.

    A label is drawn, and the batch is given items of it until `items_per_label` carry the label, or all there are;
    those that other labels have brought count. Then the next label is drawn, each once before any comes again. With
    all labels done and room left, further rounds give each label `items_per_label` more, whatever the batch holds of
    it. So a batch of L * `items_per_label` or more has that many of each label; no batch holds an item twice.

    Each label goes through its items in a shuffled cycle of its own that passes over those that have come up as often
    as it has gone round, by whichever label: none is drawn by a label again before all others of that label have come
    up. Cycles begin anew with each epoch, which depends on `seed` and its number only. What rare labels gain, items of
    frequent labels alone lose: an epoch leaves some of them to another, the fewer the smaller `items_per_label` is.
    Items without labels, and items of labels of weight 0 only, never come.

    Of several processes, each plans the same joined batch of `batch_size * num_replicas` items and yields its own run
    of `batch_size`; the runs are disjoint, and items of a label stay together but where a run ends. As with
    `torch.utils.data.DistributedSampler`, call `set_epoch` before each epoch, or each has the same batches.

    Args:
        labels: Of the whole data set, shape `(N, L)`, multi-hot or soft; an item carries a label where it is > 0.
        batch_size: Items of a batch, of each process. A multiple of `items_per_label` leaves no label a remainder.
        items_per_label: Items that a label is given in its turn, M of M per class. 1 draws labels but no pairs.
        label_weights: How likely a label is the next to be drawn: `"uniform"`, `"inverse_frequency"` (1 / its number
            of items), or numbers >= 0 of shape `(L,)`, which need not add up to 1. In a round that a batch has room
            for, they decide the order only. Labels without items are left out.
        num_batches: Batches of an epoch, of each process; N // (batch_size * num_replicas) by default.
        seed: Fixes the batches, on any platform. The same in all processes.
        num_replicas: Number of processes, and `rank` the number of this one, from 0; both or neither. By default what
            torch.distributed says, one process where it is not initialised.
        rank: See `num_replicas`.

    Raises:
        TypeError: If `labels` is neither a tensor nor an array.
        ValueError: If labels are no matrix or lie outside [0, 1], a number is out of range, or a joined batch
            exceeds the items that can be drawn.

    Warns:
        UserWarning: If no label has two items, so that no item has a positive.

    Examples:
        >>> labels = torch.tensor([[1, 0], [1, 0], [1, 0], [1, 0], [1, 0], [1, 0], [0, 1], [0, 1]])
        >>> list(MultiLabelBatchSampler(labels, batch_size=4, items_per_label=2))
        [[7, 6, 4, 5], [6, 7, 2, 0]]

    Source:
        M per class: the sampler of pytorch-metric-learning, after Hermans et al., "In Defense of the Triplet Loss for
        Person Re-Identification", arXiv 1703.07737 (P classes by K items). Deviations: several labels to an item,
        and a label of fewer than M items gives what it has, where theirs repeats items.
    """

    def __init__(
        self,
        labels: Labels,
        batch_size: int,
        *,
        items_per_label: int = 4,
        label_weights: Literal["uniform", "inverse_frequency"] | Labels = "uniform",
        num_batches: int | None = None,
        seed: int = 0,
        num_replicas: int | None = None,
        rank: int | None = None,
    ) -> None:
        if num_replicas is None and rank is None:
            num_replicas, rank = num_ranks(), own_rank()
        if num_replicas is None or rank is None:
            raise ValueError(f"`num_replicas` and `rank` must be given together, got {num_replicas} and {rank}.")
        _check_integer("num_replicas", num_replicas, least=1)
        _check_integer("rank", rank, least=0)
        _check_integer("batch_size", batch_size, least=1)
        _check_integer("items_per_label", items_per_label, least=1)
        _check_integer("seed", seed, least=0)
        if rank >= num_replicas:
            raise ValueError(f"`rank` must be below `num_replicas`, got {rank} of {num_replicas}.")
        self._carries = carriers(labels)
        self._num_items = self._carries.sum(axis=0, dtype=np.int64)
        self._weights = _checked_weights(label_weights, self._num_items)
        num_drawable = int(self._carries[:, self._weights > 0].any(axis=1).sum())
        if batch_size * num_replicas > num_drawable:
            raise ValueError(
                f"`batch_size` of {batch_size} in each of {num_replicas} processes exceeds the {num_drawable} items "
                "that carry a label of weight above 0. Choose a smaller one."
            )
        if (self._num_items < 2).all():
            warnings.warn("`labels` has no label of two items, so no item has a positive.", UserWarning, stacklevel=2)
        if num_batches is None:
            num_batches = len(self._carries) // (batch_size * num_replicas)
        _check_integer("num_batches", num_batches, least=1)
        self.batch_size = batch_size
        self.items_per_label = items_per_label
        self.num_batches = num_batches
        self.seed = seed
        self.num_replicas = num_replicas
        self.rank = rank
        self.epoch = 0

    def __len__(self) -> int:
        return self.num_batches

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches are drawn next.

        Args:
            epoch: Its number, from 0; the same in all processes.

        Raises:
            ValueError: If it is negative or no integer.
        """
        _check_integer("epoch", epoch, least=0)
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        start = self.rank * self.batch_size
        for batch in self._joined_batches(np.random.default_rng((self.seed, self.epoch))):
            yield batch[start : start + self.batch_size]

    def _joined_batches(self, rng: np.random.Generator) -> Iterator[list[int]]:
        times_drawn = np.zeros(len(self._carries), dtype=np.int64)
        in_batch = np.zeros(len(self._carries), dtype=np.bool_)
        cycles = [_cycle(np.flatnonzero(carriers), times_drawn, in_batch, rng) for carriers in self._carries.T]
        for _ in range(self.num_batches):
            batch: list[int] = []
            counts = np.zeros_like(self._num_items)
            for label, wanted in self._turns(counts, rng):
                while counts[label] < wanted and len(batch) < self.batch_size * self.num_replicas:
                    item = next(cycles[label])
                    batch.append(item)
                    in_batch[item] = True
                    times_drawn[item] += 1
                    counts += self._carries[item]
                if len(batch) == self.batch_size * self.num_replicas:
                    break
            yield batch
            in_batch[batch] = False

    def _turns(self, counts: npt.NDArray[np.int64], rng: np.random.Generator) -> Iterator[tuple[int, int]]:
        """Draw labels without end, each with the number of items that the batch is then to hold of it."""
        labels = np.flatnonzero(self._weights)
        shares = self._weights[labels] / self._weights.sum()
        for first_round in itertools.chain([True], itertools.repeat(False)):
            for label in rng.choice(labels, size=len(labels), replace=False, p=shares):
                held = 0 if first_round else counts[label]
                yield label, min(held + self.items_per_label, self._num_items[label])


def _cycle(
    items: npt.NDArray[np.int64],
    times_drawn: npt.NDArray[np.int64],
    in_batch: npt.NDArray[np.bool_],
    rng: np.random.Generator,
) -> Iterator[int]:
    """Go round the items of a label without end, shuffled each time; at least one must be outside of the batch."""
    for times_round in itertools.count():
        order = rng.permutation(items)
        # Those of the batch last: by the time they are reached, another batch may have begun.
        for item in order[np.argsort(in_batch[order], kind="stable")]:
            if times_drawn[item] <= times_round and not in_batch[item]:
                yield int(item)


def _checked_weights(label_weights: str | Labels, num_items: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    if isinstance(label_weights, str):
        if label_weights not in ("uniform", "inverse_frequency"):
            raise ValueError(
                f'`label_weights` must be "uniform", "inverse_frequency" or numbers of shape (L,), '
                f"got {label_weights!r}."
            )
        return np.ones(len(num_items)) if label_weights == "uniform" else 1 / np.maximum(num_items, 1)
    weights: npt.NDArray[np.float64] = torch.as_tensor(label_weights).detach().cpu().double().numpy()
    if weights.shape != num_items.shape:
        raise ValueError(
            f"`label_weights` must have shape {num_items.shape}, a number for each label, got {weights.shape}."
        )
    bad = ~(np.isfinite(weights) & (weights >= 0))
    if bad.any():
        label = int(bad.argmax())
        raise ValueError(
            f"`label_weights` must be finite numbers >= 0, got {weights[label]} for label {label}; 0 leaves it out."
        )
    return weights


def _check_integer(name: str, value: int, *, least: int) -> None:
    if not isinstance(value, Integral) or value < least:
        raise ValueError(f"`{name}` must be an integer of at least {least}, got {value!r}.")
