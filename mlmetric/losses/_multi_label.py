"""The wrapper that gives losses of pytorch-metric-learning label matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from mlmetric._pml import refs_begin_with_batch
from mlmetric.labels import check_labels
from mlmetric.losses._base import LossDict, MultiLabelBaseLoss, reduce_losses, zero_losses
from mlmetric.losses._registry import GRADED, check_refs, find_reading
from mlmetric.losses._relational import Comparison
from mlmetric.losses._tuples import Indices, all_pairs, count_contradictions, miner_weights, to_triplets
from mlmetric.relations import LabelRelation
from mlmetric.similarity import SimilarityFunction


class MultiLabelLoss(MultiLabelBaseLoss):
    """Give a loss of pytorch-metric-learning label matrices, which it rejects by itself.

    Losses on pairs, triplets and neighbours see label sets through a relation: a pair is positive if its similarity
    exceeds `positive_threshold`, negative if it does not exceed `negative_threshold`, and left out in between. An
    item is neither its own positive nor its own negative. An all-zero row is then nobody's positive and a negative
    of all. A batch without positives gives a differentiable zero, or the part of the loss that pushes negatives
    apart where it has one of its own. An index tuple, say of a [miner][mlmetric.miners], replaces the relation, and
    needs no labels.

    Losses with a proxy or weight vector per label see the matrix itself, and the thresholds play no part: margins
    and proxies of all labels of an item count, and a cross entropy is taken against `y / sum(y)`. There an all-zero
    row has a cross entropy of zero; `ProxyAnchorLoss` pushes it from all proxies.

    The [table of losses](../pml_losses.md) says how each class is read, and which are refused and why. A subclass
    of your own is read as its nearest ancestor there. State dicts hold the keys of the wrapped loss unchanged, so
    that each loads into the other; parameters are those of the wrapped loss. pytorch-metric-learning's
    `DistributedLossWrapper` takes this class; with `efficient=True` it needs an `indices_tuple`, for it would compare
    label sets as class ids itself.

    Args:
        loss: An instance of a loss of pytorch-metric-learning; it stays reachable as the attribute `loss`.
        similarity: Label similarity `(labels, ref_labels) -> (N, M)`, larger is more alike: one of
            [mlmetric.similarity][], a function, an `nn.Module`, whose parameters are not part of this loss. The
            number of shared labels by default.
        positive_threshold: A positive pair is more similar than this. 0 means "shares something".
        negative_threshold: A negative pair is not more similar than this; None for `positive_threshold` itself.
        validate_args: Whether each call looks at the values of labels, similarities and tuples. On CUDA that waits
            for the device.

    Raises:
        TypeError: If `loss` is no instance of a loss of pytorch-metric-learning, or `similarity` is not callable.
        ValueError: If the loss, or a setting of it, has no multi-label reading, or the thresholds are out of order.

    Examples:
        >>> import torch
        >>> from pytorch_metric_learning.distances import LpDistance
        >>> from pytorch_metric_learning.losses import ContrastiveLoss
        >>> loss = MultiLabelLoss(ContrastiveLoss(distance=LpDistance(normalize_embeddings=False)))
        >>> embeddings = torch.tensor([[0.0], [1.0], [3.0]])
        >>> labels = torch.tensor([[1, 0], [1, 1], [0, 1]])  # positive pairs at distances 1 and 2
        >>> loss(embeddings, labels)
        tensor(1.5000)

    Source:
        The papers of the losses. Deviations of pytorch-metric-learning from them that its one-hot results show are
        kept and stated at the formulas, except where it fails or leaves pairs out: [the page on
        these losses](../pml_losses.md#where-the-values-differ) lists each such case with the numbers of both.
    """

    relation: LabelRelation

    def __init__(
        self,
        loss: Any,
        similarity: SimilarityFunction | None = None,
        *,
        positive_threshold: float = 0.0,
        negative_threshold: float | None = None,
        validate_args: bool = True,
    ) -> None:
        reading = find_reading(loss)
        relation = LabelRelation(
            similarity,
            positive_threshold=positive_threshold,
            negative_threshold=negative_threshold,
            validate_args=validate_args,
        )
        super().__init__(validate_args=validate_args, collect_stats=loss.collect_stats)
        del self.distance, self.reducer  # those of the wrapped loss are in force
        self.loss = loss
        self.reading = reading
        self.takes_soft_labels = reading.soft
        # Past the registration of submodules: the relation learns nothing here, and no state dict shall hold it.
        object.__setattr__(self, "relation", relation)

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor | None = None,
        indices_tuple: Indices | None = None,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
        *,
        batch_first: bool | None = None,
    ) -> Tensor:
        """Compute the loss of a batch, in float32 at least.

        Args:
            embeddings: Shape `(N, D)`; the gradient comes back in their dtype.
            labels: Shape `(N, L)`, multi-hot or soft; not needed by losses on pairs and triplets if there is an
                `indices_tuple`.
            indices_tuple: Three index tensors (anchors, positives, negatives) of triplets, or four (anchors,
                positives, anchors, negatives) of pairs; positives and negatives index `ref_emb` if there is one.
            ref_emb: Shape `(M, D)`, where positives and negatives come from; the batch itself by default.
            ref_labels: Shape `(M, L)`, of `ref_emb`.
            batch_first: Whether ref i is item i of the batch, for each item, so that the pair of the two is left
                out. By default decided as the [miners][mlmetric.miners] do: if `ref_labels` is the very object
                `labels`, and, where processes are joined, if the refs begin with the numbers of the batch.

        Returns:
            What the reducer of the loss makes of it: a scalar, for all but `DoNothingReducer`.

        Raises:
            TypeError: If labels or similarities are no tensors.
            ValueError: If a shape does not fit, values lie outside their range, the loss needs labels, takes no
                refs or no tuple, or takes each pair as positive or negative only and the tuple holds pairs as both.
        """
        return super().forward(embeddings, labels, indices_tuple, ref_emb, ref_labels, batch_first=batch_first)

    def _evaluate(
        self,
        embeddings: Tensor,
        labels: Tensor | None,
        indices: Indices | None,
        ref_emb: Tensor,
        ref_labels: Tensor | None,
        batch_first: bool | None,
    ) -> Tensor:
        loss, reading = self.loss, self.reading
        loss.reset_stats()
        if 0 in (len(embeddings), len(ref_emb)):
            loss_dict = zero_losses(loss)
        elif reading.given == "labels":
            loss_dict = self._from_labels(embeddings, labels, indices)
        elif reading.given == "relation":
            relation, batch_first = self.relate(embeddings, labels, ref_emb, ref_labels, batch_first=batch_first)
            loss_dict = self._formula(loss, Comparison(embeddings, ref_emb, relation, batch_first, indices))
        else:
            if indices is None:
                relation, _ = self.relate(embeddings, labels, ref_emb, ref_labels, batch_first=batch_first)
                indices = all_pairs(relation)
            elif reading.tuples == "binary" and self.validate_args:
                self._check_contradictions(indices, len(embeddings), len(ref_emb))
            if reading.given == "triplets":
                indices = to_triplets(indices, len(embeddings))
            if reading.formula is None:
                result: Tensor = loss(embeddings, None, indices, ref_emb)
                return result
            loss_dict = self._formula(loss, embeddings, ref_emb, indices)
        return reduce_losses(loss, loss_dict, embeddings, labels)

    @property
    def loss_name(self) -> str:
        """The class of the wrapped loss."""
        return type(self.loss).__name__

    @property
    def similarity(self) -> SimilarityFunction:
        """The label similarity of the relation."""
        return self.relation.similarity

    @property
    def positive_threshold(self) -> float:
        """The threshold above which the relation is positive."""
        return self.relation.positive_threshold

    @property
    def negative_threshold(self) -> float:
        """The threshold up to which the relation is negative."""
        return self.relation.negative_threshold

    @property
    def takes_tuples(self) -> bool:  # type: ignore[override]
        """Whether the wrapped loss takes an `indices_tuple`."""
        return self.reading.tuples != "none"

    def check_refs(self) -> None:
        """Raise a ValueError if the wrapped loss takes no refs."""
        check_refs(self.loss, self.reading)

    def relate(
        self,
        embeddings: Tensor,
        labels: Tensor | None,
        ref_emb: Tensor,
        ref_labels: Tensor | None,
        *,
        batch_first: bool | None = None,
    ) -> tuple[Tensor, bool]:
        """Return the relation `(N, M)` of a batch to refs, own entries ignored, and whether refs begin with the batch.

        See `forward` for the arguments.
        """
        if labels is None or ref_labels is None:
            missing = "labels" if labels is None else "ref_labels"
            raise ValueError(f"`{missing}` must be given to `{self.loss_name}` here, got None.")
        batch_first = refs_begin_with_batch(embeddings, labels, ref_emb, ref_labels, batch_first)
        relation: Tensor = self.relation(labels.to(embeddings.device), ref_labels.to(embeddings.device))
        return relation.fill_diagonal_(0) if batch_first else relation, batch_first

    def _from_labels(self, embeddings: Tensor, labels: Tensor | None, indices: Indices | None) -> LossDict:
        if labels is None:
            raise ValueError(f"`labels` must be given to `{self.loss_name}`, got None.")
        labels = check_labels(labels, validate_args=self.validate_args).to(embeddings.device)
        if self.validate_args and not self.reading.soft:
            between = labels[(labels != 0) & (labels != 1)]
            if len(between):
                raise ValueError(
                    f"`labels` must be 0 or 1 for `{self.loss_name}`, whose margins and proxies count or do not, "
                    f"got {between[0].item():.3g}. Binarize them, or take a loss on pairs."
                )
        weights = miner_weights(indices, embeddings, anchors_only=False)
        return self._formula(self.loss, embeddings, labels, weights)

    def _formula(self, *arguments: Any) -> LossDict:
        assert self.reading.formula is not None
        return self.reading.formula(*arguments)

    def _check_contradictions(self, indices: Indices, num_anchors: int, num_refs: int) -> None:
        count = count_contradictions(indices, num_anchors, num_refs)
        if count:
            raise ValueError(
                f"`{self.loss_name}` takes a pair as positive or as negative, and `indices_tuple` holds "
                f"{count} pairs as both. Graded triplets go into {', '.join(GRADED)}. For this one mine with "
                "`MultiLabelMiner`, whose thresholds make no pair both, or pass labels without a tuple."
            )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> MultiLabelLoss:
        self.relation._apply(fn)  # type: ignore[no-untyped-call]
        super()._apply(fn, recurse)
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Return the state of the wrapped loss, under its own keys."""
        return self.loss.state_dict(*args, **kwargs)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Submodules load after this, from the keys that begin with their names.
        for key in [key for key in state_dict if key.startswith(prefix)]:
            state_dict[f"{prefix}loss.{key.removeprefix(prefix)}"] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args)
