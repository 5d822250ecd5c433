"""Losses against the embeddings of past batches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mlmetric._pml import BaseMiner, CrossBatchMemory, MultiLabelBaseMiner
from mlmetric.labels import check_labels
from mlmetric.losses._base import MultiLabelBaseLoss
from mlmetric.losses._multi_label import MultiLabelLoss
from mlmetric.losses._registry import READINGS, Reading
from mlmetric.losses._tuples import Indices, all_pairs, to_pairs, to_triplets
from mlmetric.similarity import SimilarityFunction


class MultiLabelCrossBatchMemory(CrossBatchMemory):  # type: ignore[misc, unused-ignore]
    """Compare each batch with itself and with the batches before it, remembered with their label matrices.

    A batch enters the memory first, detached, in the place of the oldest items once the memory is full; then its
    items are anchors, and all that is remembered are refs. An item is neither the positive nor the negative of its
    own entry, and a miner leaves that entry out before its caps count. Gradients reach the anchors only. All-zero
    rows are remembered as any other: refs that are nobody's positive, and a negative of all. Embeddings and labels
    are remembered as they are given, in a dtype that holds those of all batches since the last reset: a soft label
    stays soft after a batch of integers.

    Args:
        loss: A loss of pytorch-metric-learning, which is then wrapped with the thresholds below, or a loss of this
            library, a `MultiLabelLoss` or one of its own, which has what it needs.
        embedding_size: D, the columns of the embeddings.
        num_labels: L, the columns of the labels.
        memory_size: How many items are remembered, at least a batch.
        miner: A [miner][mlmetric.miners], or another that takes label matrices and refs, of which self pairs are
            removed afterwards; None for all pairs of the relation.
        similarity: As `MultiLabelLoss` has it.
        positive_threshold: As `MultiLabelLoss` has it; 0 if None.
        negative_threshold: As `MultiLabelLoss` has it.

    Raises:
        TypeError: If `loss` is no loss of pytorch-metric-learning, or `miner` no miner.
        ValueError: If the loss has no multi-label reading or takes no refs, takes no index tuple and there is a
            miner, brings a relation of its own and thresholds are given, or a size is below 1.

    Examples:
        >>> from pytorch_metric_learning.distances import LpDistance
        >>> from pytorch_metric_learning.losses import ContrastiveLoss
        >>> loss = ContrastiveLoss(distance=LpDistance(normalize_embeddings=False))
        >>> memory = MultiLabelCrossBatchMemory(loss, embedding_size=1, num_labels=2, memory_size=3)
        >>> memory(torch.tensor([[0.0], [1.0]]), torch.tensor([[1, 0], [1, 1]]))
        tensor(1.)
        >>> memory(torch.tensor([[3.0]]), torch.tensor([[1, 1]]))  # remembered positives at distances 3 and 2
        tensor(2.5000)

    Source:
        Wang et al., "Cross-batch memory for embedding learning", CVPR 2020, as in pytorch-metric-learning's class of
        that name. Deviations from the latter: own entries are left out as negatives and in `NCALoss` too; refs come
        with the batch first, so that an `indices_tuple` mined on the batch alone points at it at every step, where
        there it points into the ring; and the state dict holds the position in the ring.
    """

    embedding_memory: Tensor
    label_memory: Tensor

    def __init__(
        self,
        loss: Any,
        embedding_size: int,
        num_labels: int,
        memory_size: int = 1024,
        miner: BaseMiner | None = None,
        similarity: SimilarityFunction | None = None,
        *,
        positive_threshold: float | None = None,
        negative_threshold: float | None = None,
    ) -> None:
        if not isinstance(loss, MultiLabelBaseLoss):
            loss = MultiLabelLoss(
                loss,
                similarity,
                positive_threshold=0.0 if positive_threshold is None else positive_threshold,
                negative_threshold=negative_threshold,
            )
        elif any(given is not None for given in (similarity, positive_threshold, negative_threshold)):
            raise ValueError(
                f"`similarity` and thresholds must be those of the {type(loss).__name__} that is given, got others "
                "besides. Set them there."
            )
        loss.check_refs()
        if miner is not None and not isinstance(miner, BaseMiner):
            raise TypeError(f"`miner` must be a miner, got {type(miner).__name__}.")
        if miner is not None and not loss.takes_tuples:
            raise ValueError(f"`miner` must be None for `{loss.loss_name}`, which takes no tuple, got one.")
        sizes = {"embedding_size": embedding_size, "num_labels": num_labels, "memory_size": memory_size}
        for name, size in sizes.items():
            if not isinstance(size, int) or size < 1:
                raise ValueError(f"`{name}` must be an integer >= 1, got {size}.")
        self.num_labels = num_labels
        super().__init__(loss, embedding_size, memory_size, miner)

    @property
    def takes_soft_labels(self) -> bool:
        """Whether labels between 0 and 1 mean shares to the loss, as mixed rows have them."""
        takes: bool = self.loss.takes_soft_labels
        return takes

    @staticmethod
    def supported_losses() -> list[str]:
        """Return the names of the losses that take refs."""
        return [cls.__name__ for cls, reading in READINGS.items() if isinstance(reading, Reading) and reading.refs]

    @classmethod
    def check_loss_support(cls, loss_name: str) -> None:
        """Leave the check to the constructor, which goes by class and not by name."""

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices_tuple: Indices | None = None,
        enqueue_mask: Tensor | None = None,
    ) -> Tensor:
        """Remember a batch, and compute its loss against all that is remembered.

        Args:
            embeddings: Shape `(N, D)`.
            labels: Shape `(N, L)`, multi-hot or soft.
            indices_tuple: Triplets or pairs within the batch, added to those of the miner or of the relation. Losses
                without a relation need a miner for it.
            enqueue_mask: Shape `(N,)`, bool. Given, its items enter the memory and only the others are anchors, as
                with the momentum encoder of MoCo.

        Returns:
            What the reducer of the loss makes of it: a scalar, for all but `DoNothingReducer`.

        Raises:
            TypeError: If labels or similarities are no tensors.
            ValueError: If a shape does not fit, more items enter than the memory holds, both `indices_tuple` and
                `enqueue_mask` are given, or the first is given for a loss without a relation and there is no miner.
        """
        self.reset_stats()
        self._check(embeddings, labels, indices_tuple, enqueue_mask)
        self.embedding_memory = self._able_to_hold(self.embedding_memory, embeddings)
        self.label_memory = self._able_to_hold(self.label_memory, labels.to(embeddings.device))
        labels = labels.to(self.label_memory)
        first, entering, entering_labels = self.queue_idx, embeddings, labels
        if enqueue_mask is not None:
            enters = enqueue_mask.to(embeddings.device)
            entering, entering_labels = embeddings[enters], labels[enters]
            embeddings, labels = embeddings[~enters], labels[~enters]
        if len(entering):
            self.add_to_memory(entering.to(self.embedding_memory), entering_labels, len(entering))

        size = self.memory_size if self.has_been_filled else self.queue_idx
        order = (torch.arange(size, device=embeddings.device) + first) % max(size, 1)
        ref_emb, ref_labels = self.embedding_memory[order], self.label_memory[order]
        batch_first = enqueue_mask is None
        indices = self._mine(embeddings, labels, ref_emb, ref_labels, indices_tuple, batch_first=batch_first)
        loss: Tensor = self.loss(embeddings, labels, indices, ref_emb, ref_labels, batch_first=batch_first)
        return loss

    def _able_to_hold(self, memory: Tensor, entries: Tensor) -> Tensor:
        """Return the memory on the device of the entries, in a dtype that holds them and what is in it exactly."""
        empty = not self.has_been_filled and self.queue_idx == 0
        dtype = entries.dtype if empty else torch.promote_types(memory.dtype, entries.dtype)
        return memory.to(entries.device, dtype)

    def _mine(
        self,
        embeddings: Tensor,
        labels: Tensor,
        ref_emb: Tensor,
        ref_labels: Tensor,
        given: Indices | None,
        *,
        batch_first: bool,
    ) -> Indices | None:
        if self.miner is None and given is None:
            return None
        mined: Indices
        if self.miner is None:
            if not isinstance(self.loss, MultiLabelLoss):
                raise ValueError(
                    f"`indices_tuple` must be None for `{type(self.loss).__name__}` without a miner: it has no pairs "
                    "of its own that these could be added to. Give the memory a miner."
                )
            relation, _ = self.loss.relate(embeddings, labels, ref_emb, ref_labels, batch_first=batch_first)
            mined = all_pairs(relation)
        elif isinstance(self.miner, MultiLabelBaseMiner):
            mined = self.miner(embeddings, labels, ref_emb, ref_labels, batch_first=batch_first)
        else:
            mined = self.miner(embeddings, labels, ref_emb, ref_labels)
            mined = _without_self_pairs(mined) if batch_first else mined
        if given is None:
            return mined
        if len(given) < len(mined):
            given = to_pairs(given)
        elif len(given) > len(mined):
            given = to_triplets(given, len(embeddings))
        return tuple(torch.cat([own, more.to(own)]) for own, more in zip(mined, given, strict=True))

    def _check(
        self, embeddings: Tensor, labels: Tensor, indices_tuple: Indices | None, enqueue_mask: Tensor | None
    ) -> None:
        check_labels(labels, validate_args=False)
        if labels.shape[1] != self.num_labels:
            raise ValueError(f"`labels` must have {self.num_labels} columns (`num_labels`), got {labels.shape[1]}.")
        expected = (len(labels), self.embedding_size)
        if embeddings.shape != expected:
            raise ValueError(f"`embeddings` must have shape {expected}, got {tuple(embeddings.shape)}.")
        if indices_tuple is not None and enqueue_mask is not None:
            raise ValueError("`indices_tuple` and `enqueue_mask` must not both be given, got both.")
        if enqueue_mask is not None and (enqueue_mask.dtype != torch.bool or enqueue_mask.shape != (len(labels),)):
            raise ValueError(
                f"`enqueue_mask` must be bool of shape ({len(labels)},), got {enqueue_mask.dtype} of shape "
                f"{tuple(enqueue_mask.shape)}."
            )
        entering = len(labels) if enqueue_mask is None else int(enqueue_mask.sum())
        if entering > self.memory_size:
            raise ValueError(f"`memory_size` must be at least a batch, got {self.memory_size} for {entering} items.")

    def reset_queue(self) -> None:
        """Forget everything."""
        self.register_buffer("embedding_memory", torch.zeros(self.memory_size, self.embedding_size))
        self.register_buffer("label_memory", torch.zeros(self.memory_size, self.num_labels))
        self.has_been_filled = False
        self.queue_idx = 0

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Loading copies into what is there, in its dtype: what was remembered would be rounded.
        for name in ("embedding_memory", "label_memory"):
            loaded = state_dict.get(prefix + name)
            if loaded is not None:
                setattr(self, name, getattr(self, name).to(loaded.dtype))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def get_extra_state(self) -> dict[str, Any]:
        """Return the position in the ring, for the state dict."""
        return {"queue_idx": self.queue_idx, "has_been_filled": self.has_been_filled}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Continue at the position in the ring that a state dict holds."""
        self.queue_idx, self.has_been_filled = state["queue_idx"], state["has_been_filled"]


def _without_self_pairs(indices: Indices) -> Indices:
    """Remove the pairs, or the triplets with a pair, of an anchor and the ref of its own number."""
    if len(indices) == 3:
        anchors, positives, negatives = indices
        keep = (anchors != positives) & (anchors != negatives)
        return anchors[keep], positives[keep], negatives[keep]
    positive_anchors, positives, negative_anchors, negatives = indices
    positive, negative = positive_anchors != positives, negative_anchors != negatives
    return positive_anchors[positive], positives[positive], negative_anchors[negative], negatives[negative]
