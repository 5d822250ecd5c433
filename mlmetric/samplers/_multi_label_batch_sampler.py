"""A batch sampler that fills each batch label by label."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from numbers import Integral
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Sampler

from mlmetric._label_rows import has_label
from mlmetric.distributed import gather_objects, num_ranks
from mlmetric.distributed import rank as own_rank
from mlmetric.labels import LabelsLike


class MultiLabelBatchSampler(Sampler[list[int]]):
    """Batch sampler with `items_per_label` items of each sampled label: M-per-class sampling for multi-label data.

    To fill a batch, labels are drawn one at a time without replacement, with probabilities proportional to
    `label_weights`. For each drawn label, items with that label are added until the batch contains `items_per_label` of
    them, or all of them if there are fewer; items added for earlier labels count. If all labels have been drawn and the
    batch is not full, the labels are drawn again, and each adds up to `items_per_label` further items. A batch of at
    least L * `items_per_label` items therefore contains `items_per_label` items of each label that has at least that
    many. No batch contains an item twice.

    Each label visits its items in random order, and in a new random order once it has visited all. On its n-th pass it
    skips items that have been sampled at least n times, for any label, so a label repeats an item only after all its
    other items have been sampled. The random orders start afresh in each epoch. Because rare labels are sampled more
    often, some items that have only frequent labels are not sampled in an epoch; a smaller `items_per_label` leaves out
    fewer items. Items without labels, and items whose labels all have weight 0, are never sampled.

    The batches depend only on a base seed, which is drawn at construction, and on the epoch. As with
    `torch.utils.data.DistributedSampler`, call `set_epoch` before each epoch; otherwise all epochs have the same
    batches. With several processes, each process computes the same joint batch of `batch_size * num_replicas` items and
    yields its own slice of `batch_size` items; the slices are disjoint.

    Args:
        labels: Labels of the whole data set, shape `(N, L)`, multi-hot or soft: a tensor, an array, a list of rows, a
            scipy sparse matrix or a data frame. An item has a label where the entry is above 0; missing labels (NaN)
            count as absent.
        batch_size: Number of items of a batch in each process; preferably a multiple of `items_per_label`.
        items_per_label: Number of items per drawn label, the M of M-per-class sampling; 1 does not create pairs.
        label_weights: Weight of each label in the random draws of labels: `"uniform"`, `"inverse_frequency"` (1 / its
            number of items), or numbers >= 0 of shape `(L,)`, which need not sum to 1. Labels without items are never
            drawn. If a batch is large enough for all labels, the weights only determine their order.
        num_batches: Number of batches per epoch in each process; N // (batch_size * num_replicas) by default.
        generator: Generator from which the base seed is drawn, as `torch.utils.data.DataLoader` draws its base seed.
            None for torch's global generator, which `torch.manual_seed` seeds. With torch.distributed, all processes
            use the base seed of rank 0, so construct the sampler in each of them. With an explicit `num_replicas` above
            1, pass a generator with the same seed in each process.
        num_replicas: Number of processes. By default the world size of torch.distributed, or 1 if it is not
            initialised.
        rank: Rank of this process, from 0 to `num_replicas - 1`; required if and only if `num_replicas` is passed.

    Attributes:
        base_seed: The base seed.
        epoch: The epoch set by `set_epoch`, 0 at first.

    Raises:
        TypeError: If `labels` is not numeric, or `generator` is not a `torch.Generator`.
        ValueError: If `labels` is not two-dimensional or has entries outside [0, 1], a number is out of range, a joint
            batch is larger than the number of items that can be sampled, or `num_replicas` is above 1 without a
            `generator`.

    Warns:
        UserWarning: If no label has two items, so that no item has a positive.

    Examples:
        >>> import torch
        >>> from mlmetric.samplers import MultiLabelBatchSampler
        >>> labels = torch.tensor([[1, 0], [1, 0], [1, 0], [1, 0], [1, 0], [1, 0], [0, 1], [0, 1]])
        >>> generator = torch.Generator().manual_seed(0)
        >>> sampler = MultiLabelBatchSampler(labels, batch_size=4, items_per_label=2, generator=generator)
        >>> list(sampler)
        [[7, 6, 5, 0], [3, 2, 7, 6]]

    Source:
        M-per-class: the sampler of pytorch-metric-learning, after Hermans et al., "In Defense of the Triplet Loss for
        Person Re-Identification", arXiv 1703.07737 (P classes with K items each). Deviations: an item can have several
        labels, and a label with fewer than M items contributes all of them once, where that sampler repeats items.
    """

    def __init__(
        self,
        labels: LabelsLike,
        batch_size: int,
        *,
        items_per_label: int = 4,
        label_weights: Literal["uniform", "inverse_frequency"] | npt.ArrayLike | Tensor = "uniform",
        num_batches: int | None = None,
        generator: torch.Generator | None = None,
        num_replicas: int | None = None,
        rank: int | None = None,
    ) -> None:
        is_joined = num_replicas is None and rank is None
        if is_joined:
            num_replicas, rank = num_ranks(), own_rank()
        if num_replicas is None or rank is None:
            raise ValueError(f"`num_replicas` and `rank` must be given together, got {num_replicas} and {rank}.")
        _check_integer("num_replicas", num_replicas, least=1)
        _check_integer("rank", rank, least=0)
        _check_integer("batch_size", batch_size, least=1)
        _check_integer("items_per_label", items_per_label, least=1)
        if rank >= num_replicas:
            raise ValueError(f"`rank` must be below `num_replicas`, got {rank} of {num_replicas}.")
        if generator is not None and not isinstance(generator, torch.Generator):
            raise TypeError(f"`generator` must be a torch.Generator or None, got {type(generator).__name__}.")
        if generator is None and num_replicas > 1 and not is_joined:
            raise ValueError(
                f"`generator` is required with `num_replicas={num_replicas}`: use the same seed in each process, for "
                "example `torch.Generator().manual_seed(0)`."
            )
        self._has_label = has_label(labels)
        self._num_items = self._has_label.sum(axis=0, dtype=np.int64)
        self._weights = _checked_weights(label_weights, self._num_items)
        num_drawable = int(self._has_label[:, self._weights > 0].any(axis=1).sum())
        if batch_size * num_replicas > num_drawable:
            raise ValueError(
                f"`batch_size` must be smaller: {batch_size} items in each of {num_replicas} processes exceed the "
                f"{num_drawable} items that have a label of weight above 0."
            )
        if (self._num_items < 2).all():
            warnings.warn("No label of `labels` has two items, so no item has a positive.", UserWarning, stacklevel=2)
        if num_batches is None:
            num_batches = len(self._has_label) // (batch_size * num_replicas)
        _check_integer("num_batches", num_batches, least=1)
        self.batch_size = batch_size
        self.items_per_label = items_per_label
        self.label_weights = label_weights
        self.num_batches = num_batches
        self.num_replicas = num_replicas
        self.rank = rank
        self.epoch = 0
        device = "cpu" if generator is None else generator.device
        base_seed = int(torch.empty((), dtype=torch.int64, device=device).random_(generator=generator))
        self.base_seed = gather_objects(base_seed)[0] if is_joined else base_seed

    def __repr__(self) -> str:
        is_name = isinstance(self.label_weights, str)
        weights = repr(self.label_weights) if is_name else f"<shape {self._weights.shape}>"
        return (
            f"{type(self).__name__}(labels=<shape {self._has_label.shape}>, batch_size={self.batch_size}, "
            f"items_per_label={self.items_per_label}, label_weights={weights}, num_batches={self.num_batches}, "
            f"num_replicas={self.num_replicas}, rank={self.rank})"
        )

    def __len__(self) -> int:
        return self.num_batches

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch whose batches are sampled next.

        Args:
            epoch: Number of the epoch, from 0; the same in all processes.

        Raises:
            ValueError: If `epoch` is negative or not an integer.
        """
        _check_integer("epoch", epoch, least=0)
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        start = self.rank * self.batch_size
        for batch in self._joint_batches(np.random.default_rng((self.base_seed, self.epoch))):
            yield batch[start : start + self.batch_size]

    def _joint_batches(self, rng: np.random.Generator) -> Iterator[list[int]]:
        times_sampled = np.zeros(len(self._has_label), dtype=np.int64)
        in_batch = np.zeros(len(self._has_label), dtype=np.bool_)
        cycles = [_cycle(np.flatnonzero(column), times_sampled, in_batch, rng) for column in self._has_label.T]
        for _ in range(self.num_batches):
            batch: list[int] = []
            counts = np.zeros_like(self._num_items)
            for label, wanted in self._label_draws(counts, rng):
                while counts[label] < wanted and len(batch) < self.batch_size * self.num_replicas:
                    item = next(cycles[label])
                    batch.append(item)
                    in_batch[item] = True
                    times_sampled[item] += 1
                    counts += self._has_label[item]
                if len(batch) == self.batch_size * self.num_replicas:
                    break
            yield batch
            in_batch[batch] = False

    def _label_draws(self, counts: npt.NDArray[np.int64], rng: np.random.Generator) -> Iterator[tuple[int, int]]:
        """Draw labels indefinitely, each with the number of its items that the batch should then contain."""
        labels = np.flatnonzero(self._weights)
        probabilities = self._weights[labels] / self._weights.sum()
        for first_round in itertools.chain([True], itertools.repeat(False)):
            for label in rng.choice(labels, size=len(labels), replace=False, p=probabilities):
                present = 0 if first_round else counts[label]
                yield label, min(present + self.items_per_label, self._num_items[label])


def _cycle(
    items: npt.NDArray[np.int64],
    times_sampled: npt.NDArray[np.int64],
    in_batch: npt.NDArray[np.bool_],
    rng: np.random.Generator,
) -> Iterator[int]:
    """Visit the items of a label indefinitely, in a new random order on each pass; one must not be in the batch."""
    for num_passes in itertools.count():
        order = rng.permutation(items)
        # Items of the current batch come last: the next batch may have started when they are reached.
        for item in order[np.argsort(in_batch[order], kind="stable")]:
            if times_sampled[item] <= num_passes and not in_batch[item]:
                yield int(item)


def _checked_weights(label_weights: Any, num_items: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
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
            f"`label_weights` must have shape {num_items.shape}, one number per label, got {weights.shape}."
        )
    bad = ~(np.isfinite(weights) & (weights >= 0))
    if bad.any():
        label = int(bad.argmax())
        raise ValueError(
            f"`label_weights` must be finite numbers >= 0, got {weights[label]} for label {label}; 0 excludes a label."
        )
    return weights


def _check_integer(name: str, value: int, *, least: int) -> None:
    if not isinstance(value, Integral) or value < least:
        raise ValueError(f"`{name}` must be an integer of at least {least}, got {value!r}.")
