"""Cross-batch memory: losses between a batch and the embeddings of previous batches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mlmetric._docstrings import inherit_docs
from mlmetric._pml import BaseMiner, CrossBatchMemory, MultiLabelBaseMiner
from mlmetric.labels import LabelsLike, label_tensor
from mlmetric.losses._base_loss import MultiLabelBaseLoss
from mlmetric.losses._indices_tuple import IndicesTuple, all_pairs, to_pairs, to_triplets
from mlmetric.losses._loss_support import LOSS_ADAPTERS, LossAdapter
from mlmetric.losses._multi_label_loss import MultiLabelLoss
from mlmetric.relations import LabelRelation
from mlmetric.similarity import SimilarityFunction


@inherit_docs(LabelRelation)
class MultiLabelCrossBatchMemory(CrossBatchMemory):  # type: ignore[misc, unused-ignore]
    """Cross-batch memory: compares each batch with itself and with previous batches and their label matrices.

    Each batch is first detached and added to the memory, where it replaces the oldest rows if the memory is full. Then
    its rows are the anchors, and all rows of the memory are the references. The pair of a row with its own entry in the
    memory is excluded; miners exclude it before they apply their caps. Only anchors have gradients. An all-zero row is
    never a positive, and is a negative of every row, unless its similarity can be above 0, as with `Hamming`.
    Embeddings and labels are stored without rounding, in a dtype that represents the values of all batches since the
    last reset: soft labels stay soft after a batch of integer labels. Missing labels (NaN) are supported if the loss
    and the miner support them.

    Args:
        loss: A loss of pytorch-metric-learning, which is wrapped by a `MultiLabelLoss` with `similarity` and the
            thresholds, or a loss of this library, for which `similarity` and the thresholds must keep their defaults.
        embedding_size: D, the number of columns of the embeddings.
        num_labels: L, the number of columns of the labels.
        memory_size: Number of rows in the memory, at least the batch size.
        miner: A [miner][mlmetric.miners], or another miner that accepts label matrices and references, whose self-pairs
            are removed from the result. None for all pairs of the relation.

    Attributes:
        loss: The loss; a `MultiLabelLoss` if a loss of pytorch-metric-learning is given.
        embedding_memory: Stored embeddings, shape `(memory_size, D)`.
        label_memory: Stored labels, shape `(memory_size, L)`.

    Raises:
        TypeError: If `loss` is not a loss of pytorch-metric-learning, or `miner` is not a miner.
        ValueError: If the loss does not support label sets or references, a miner is given for a loss that does not
            support `indices_tuple`, `similarity` or a threshold is given for a loss of this library, or a size is below
            1.

    Examples:
        >>> import torch
        >>> from pytorch_metric_learning.distances import LpDistance
        >>> from pytorch_metric_learning.losses import ContrastiveLoss
        >>> from mlmetric.losses import MultiLabelCrossBatchMemory
        >>> loss = ContrastiveLoss(distance=LpDistance(normalize_embeddings=False))
        >>> memory = MultiLabelCrossBatchMemory(loss, embedding_size=1, num_labels=2, memory_size=3)
        >>> memory(torch.tensor([[0.0], [1.0]]), torch.tensor([[1, 0], [1, 1]]))
        tensor(1.)
        >>> memory(torch.tensor([[3.0]]), torch.tensor([[1, 1]]))  # positives in the memory at distances 3 and 2
        tensor(2.5000)

    Source:
        Wang et al., "Cross-batch memory for embedding learning", CVPR 2020, as in `CrossBatchMemory` of
        pytorch-metric-learning. Deviations from the latter: the pair of a row with its own entry is also excluded from
        negatives, and in `NCALoss`; references begin with the batch, so that an `indices_tuple` mined on the batch
        refers to the batch at every step, whereas there it refers to positions in the memory; and the state dict
        contains the position in the memory.
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
        *,
        similarity: SimilarityFunction | None = None,
        positive_threshold: float = 0.0,
        negative_threshold: float | None = None,
    ) -> None:
        if not isinstance(loss, MultiLabelBaseLoss):
            loss = MultiLabelLoss(
                loss,
                similarity=similarity,
                positive_threshold=positive_threshold,
                negative_threshold=negative_threshold,
            )
        elif similarity is not None or positive_threshold != 0 or negative_threshold is not None:
            raise ValueError(
                f"`similarity` and thresholds must be set in the {type(loss).__name__}, not in the memory, got "
                f"{similarity}, {positive_threshold} and {negative_threshold}."
            )
        loss.check_refs()
        if miner is not None and not isinstance(miner, BaseMiner):
            raise TypeError(f"`miner` must be a miner, got {type(miner).__name__}.")
        if miner is not None and not loss.supports_indices_tuple:
            raise ValueError(
                f"`miner` must be None for `{loss.loss_name}`, which does not support `indices_tuple`, "
                f"got {type(miner).__name__}."
            )
        sizes = {"embedding_size": embedding_size, "num_labels": num_labels, "memory_size": memory_size}
        for name, size in sizes.items():
            if not isinstance(size, int) or size < 1:
                raise ValueError(f"`{name}` must be an integer >= 1, got {size}.")
        self.num_labels = num_labels
        super().__init__(loss, embedding_size, memory_size, miner)

    @property
    def supports_soft_labels(self) -> bool:
        """Whether labels can be between 0 and 1, as after mixup."""
        supports: bool = self.loss.supports_soft_labels
        return supports

    @property
    def supports_missing_labels(self) -> bool:
        """Whether labels can be NaN, which means that they are not annotated."""
        return all(getattr(part, "supports_missing_labels", False) for part in self._parts())

    def _parts(self) -> list[Any]:
        return [self.loss] if self.miner is None else [self.loss, self.miner]

    def extra_repr(self) -> str:
        """Return the sizes for the `repr` of the module."""
        sizes = f"embedding_size={self.embedding_size}, num_labels={self.num_labels}"
        return f"{sizes}, memory_size={self.memory_size}"

    @staticmethod
    def supported_losses() -> list[str]:
        """Return the class names of the supported losses of pytorch-metric-learning."""
        return [
            cls.__name__
            for cls, adapter in LOSS_ADAPTERS.items()
            if isinstance(adapter, LossAdapter) and adapter.supports_refs
        ]

    @classmethod
    def check_loss_support(cls, loss_name: str) -> None:
        """Do nothing: the constructor checks the class of the loss, not its name."""

    def forward(
        self,
        embeddings: Tensor,
        labels: LabelsLike,
        indices_tuple: IndicesTuple | None = None,
        enqueue_mask: Tensor | None = None,
    ) -> Tensor:
        """Add a batch to the memory, and compute its loss with all rows of the memory as references.

        Args:
            embeddings: Shape `(N, D)`.
            labels: Shape `(N, L)`, multi-hot or soft, of any kind that
                [`check_labels`][mlmetric.labels.check_labels] reads; NaN for labels that are not annotated, if
                `supports_missing_labels` is True.
            indices_tuple: Triplets or pairs of rows of the batch, used in addition to those of the miner or the
                relation; None for no others. A loss of this library other than `MultiLabelLoss` requires a miner for
                this.
            enqueue_mask: Shape `(N,)`, bool: the rows that are added to the memory; only the other rows are then
                anchors, as with the momentum encoder of MoCo. None to add all rows, which are all anchors.

        Returns:
            The result of the reducer of the loss: a scalar, unless the reducer is a `DoNothingReducer`.

        Raises:
            TypeError: If labels do not contain numbers, or similarities are not tensors.
            ValueError: If a shape is wrong, more rows than `memory_size` are added, both `indices_tuple` and
                `enqueue_mask` are given, or `indices_tuple` is given without a miner for a loss that requires one.
        """
        self.reset_stats()
        # The labels are checked before they are stored: each later batch would be compared with them.
        validate_args = self.loss.validate_args or getattr(self.miner, "validate_args", False)
        unsupporting = [part for part in self._parts() if not getattr(part, "supports_missing_labels", False)]
        labels = label_tensor(
            labels,
            validate_args=validate_args,
            allow_missing=not unsupporting,
            used_by=", ".join(f"`{type(part).__name__}`" for part in unsupporting),
        )
        self._check(embeddings, labels, indices_tuple, enqueue_mask)
        self.embedding_memory = self._promote(self.embedding_memory, embeddings)
        self.label_memory = self._promote(self.label_memory, labels.to(embeddings.device))
        labels = labels.to(self.label_memory)
        first, added, added_labels = self.queue_idx, embeddings, labels
        if enqueue_mask is not None:
            mask = enqueue_mask.to(embeddings.device)
            added, added_labels = embeddings[mask], labels[mask]
            embeddings, labels = embeddings[~mask], labels[~mask]
        if len(added):
            self.add_to_memory(added.to(self.embedding_memory), added_labels, len(added))

        size = self.memory_size if self.has_been_filled else self.queue_idx
        order = (torch.arange(size, device=embeddings.device) + first) % max(size, 1)
        ref_emb, ref_labels = self.embedding_memory[order], self.label_memory[order]
        ref_includes_query = enqueue_mask is None
        indices_tuple = self._mine(
            embeddings, labels, ref_emb, ref_labels, indices_tuple, ref_includes_query=ref_includes_query
        )
        loss: Tensor = self.loss(
            embeddings, labels, indices_tuple, ref_emb, ref_labels, ref_includes_query=ref_includes_query
        )
        return loss

    def _promote(self, memory: Tensor, entries: Tensor) -> Tensor:
        """Return the memory on the device of new entries, in a dtype that represents old and new entries exactly."""
        empty = not self.has_been_filled and self.queue_idx == 0
        dtype = entries.dtype if empty else torch.promote_types(memory.dtype, entries.dtype)
        return memory.to(entries.device, dtype)

    def _mine(
        self,
        embeddings: Tensor,
        labels: Tensor,
        ref_emb: Tensor,
        ref_labels: Tensor,
        given: IndicesTuple | None,
        *,
        ref_includes_query: bool,
    ) -> IndicesTuple | None:
        if self.miner is None and given is None:
            return None
        mined: IndicesTuple
        if self.miner is None:
            if not isinstance(self.loss, MultiLabelLoss):
                raise ValueError(
                    f"`indices_tuple` must be None for `{type(self.loss).__name__}` without a miner, because it has no "
                    "other pairs to which it could be added. Set `miner`."
                )
            relation, _ = self.loss.relate(
                embeddings, labels, ref_emb, ref_labels, ref_includes_query=ref_includes_query
            )
            mined = all_pairs(relation)
        elif isinstance(self.miner, MultiLabelBaseMiner):
            mined = self.miner(embeddings, labels, ref_emb, ref_labels, ref_includes_query=ref_includes_query)
        else:
            mined = self.miner(embeddings, labels, ref_emb, ref_labels)
            mined = _without_self_pairs(mined) if ref_includes_query else mined
        if given is None:
            return mined
        if len(given) < len(mined):
            given = to_pairs(given)
        elif len(given) > len(mined):
            given = to_triplets(given, len(embeddings))
        return tuple(torch.cat([own, more.to(own)]) for own, more in zip(mined, given, strict=True))

    def _check(
        self, embeddings: Tensor, labels: Tensor, indices_tuple: IndicesTuple | None, enqueue_mask: Tensor | None
    ) -> None:
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
        num_added = len(labels) if enqueue_mask is None else int(enqueue_mask.sum())
        if num_added > self.memory_size:
            raise ValueError(
                f"`memory_size` must be at least the number of rows added, {num_added}, got {self.memory_size}."
            )

    def reset_queue(self) -> None:
        """Remove all rows from the memory."""
        self.register_buffer("embedding_memory", torch.zeros(self.memory_size, self.embedding_size))
        self.register_buffer("label_memory", torch.zeros(self.memory_size, self.num_labels))
        self.has_been_filled = False
        self.queue_idx = 0

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Values are loaded in the dtype of the buffers, which must not round them.
        for name in ("embedding_memory", "label_memory"):
            loaded = state_dict.get(prefix + name)
            if loaded is not None:
                setattr(self, name, getattr(self, name).to(loaded.dtype))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def get_extra_state(self) -> dict[str, Any]:
        """Return the position in the memory, for the state dict."""
        return {"queue_idx": self.queue_idx, "has_been_filled": self.has_been_filled}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore the position in the memory from a state dict.

        Args:
            state: A result of `get_extra_state`.
        """
        self.queue_idx, self.has_been_filled = state["queue_idx"], state["has_been_filled"]


def _without_self_pairs(indices_tuple: IndicesTuple) -> IndicesTuple:
    """Remove the pairs, or the triplets with a pair, of an anchor and the reference of the same index."""
    if len(indices_tuple) == 3:
        anchors, positives, negatives = indices_tuple
        keep = (anchors != positives) & (anchors != negatives)
        return anchors[keep], positives[keep], negatives[keep]
    positive_anchors, positives, negative_anchors, negatives = indices_tuple
    positive, negative = positive_anchors != positives, negative_anchors != negatives
    return positive_anchors[positive], positives[positive], negative_anchors[negative], negatives[negative]
