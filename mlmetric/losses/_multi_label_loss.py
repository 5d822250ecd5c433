"""A wrapper of the losses of pytorch-metric-learning for label matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from mlmetric._docstrings import inherit_docs
from mlmetric._pml import resolve_ref_includes_query
from mlmetric.labels import check_labels
from mlmetric.losses._base_loss import LossDict, MultiLabelBaseLoss, reduce_losses, zero_loss_dict
from mlmetric.losses._indices_tuple import IndicesTuple, all_pairs, count_contradictions, miner_weights, to_triplets
from mlmetric.losses._loss_support import GRADED_LOSSES, check_loss_refs, find_loss_adapter
from mlmetric.losses._pml_relation_losses import RelationInputs
from mlmetric.relations import LabelRelation
from mlmetric.similarity import SimilarityFunction


@inherit_docs(LabelRelation, validate_args="labels and similarities=>labels, similarities, embeddings and indices")
class MultiLabelLoss(MultiLabelBaseLoss):
    """Wrapper that makes a loss of pytorch-metric-learning accept label matrices.

    Losses on pairs, triplets or the neighbours of an anchor use a relation of label sets: a pair is positive if its
    similarity exceeds `positive_threshold`, negative if it does not exceed `negative_threshold`, and ignored in
    between. Self-pairs are ignored. An all-zero row is a negative of every row, unless its similarity can be above 0,
    as with `Hamming`. A batch without positive pairs gives a differentiable zero, or the value of the term for negative
    pairs if the loss has one. An `indices_tuple`, such as the result of a [miner][mlmetric.miners], replaces the
    relation; labels are then optional.

    Losses with a proxy or weight vector for each class use the label matrix itself, with a class for each label; the
    thresholds are not used. The margins and proxies of all labels of a row are included, and the target of a cross
    entropy is `y / sum(y)`. The cross entropy of an all-zero row is zero; in `ProxyAnchorLoss` all proxies are pushed
    away from it.

    With missing labels (NaN), the relation compares rows on the labels annotated in both rows, and ignores pairs
    without such a label. In a loss with a proxy for each label, a row contributes only for its annotated labels, also
    in the softmax of a cross entropy, and rows without annotated labels are omitted from the mean. The means of
    `MultiSimilarityLoss`, `GeneralizedLiftedStructureLoss` and `RankedListLoss` are over all rows: there, a row without
    pairs has a loss of 0.

    The [table of losses](../guide/pml_losses.md) lists the supported losses with what they use, and the unsupported
    ones with the reason. A subclass of a loss is treated as its nearest base class in the table. The state dict has the
    keys of the wrapped loss, so that either can load the state dict of the other; the parameters are those of the
    wrapped loss.
    `DistributedLossWrapper` of pytorch-metric-learning supports this class; with `efficient=True` it requires an
    `indices_tuple`, because it would otherwise compare label rows as class ids.

    Args:
        loss: A loss of pytorch-metric-learning; its `distance`, `reducer` and other settings are used.

    Attributes:
        loss: The wrapped loss.
        relation: The [`LabelRelation`][mlmetric.relations.LabelRelation] of the thresholds. It is not a submodule: a
            similarity with parameters is moved with the loss, but its parameters are not parameters of the loss.

    Raises:
        TypeError: If `loss` is not an instance of a loss of pytorch-metric-learning, or `similarity` is not callable.
        ValueError: If the loss or one of its settings does not support label sets, or `negative_threshold` exceeds
            `positive_threshold`.

    Examples:
        >>> import torch
        >>> from pytorch_metric_learning.distances import LpDistance
        >>> from pytorch_metric_learning.losses import ContrastiveLoss
        >>> from mlmetric.losses import MultiLabelLoss
        >>> loss = MultiLabelLoss(ContrastiveLoss(distance=LpDistance(normalize_embeddings=False)))
        >>> embeddings = torch.tensor([[0.0], [1.0], [3.0]])
        >>> labels = torch.tensor([[1, 0], [1, 1], [0, 1]])  # positive pairs at distances 1 and 2
        >>> loss(embeddings, labels)
        tensor(1.5000)

    Source:
        The papers of the losses. Where the implementation of pytorch-metric-learning deviates from a paper, this class
        does the same and the docstring of the formula states it, except where pytorch-metric-learning fails or omits
        pairs: [the page on these losses](../guide/pml_losses.md#where-the-values-differ) lists these cases with both
        values.
    """

    relation: LabelRelation
    supports_missing_labels = True

    def __init__(
        self,
        loss: Any,
        *,
        similarity: SimilarityFunction | None = None,
        positive_threshold: float = 0.0,
        negative_threshold: float | None = None,
        validate_args: bool = True,
    ) -> None:
        adapter = find_loss_adapter(loss)
        relation = LabelRelation(
            similarity=similarity,
            positive_threshold=positive_threshold,
            negative_threshold=negative_threshold,
            validate_args=validate_args,
        )
        super().__init__(validate_args=validate_args, collect_stats=loss.collect_stats)
        del self.distance, self.reducer  # those of the wrapped loss are used
        self.loss = loss
        self.adapter = adapter
        self.supports_soft_labels = adapter.supports_soft_labels
        # Not registered as a submodule: the relation is not trained here, and must not be in the state dict.
        object.__setattr__(self, "relation", relation)

    def _evaluate(
        self,
        embeddings: Tensor,
        labels: Tensor | None,
        indices_tuple: IndicesTuple | None,
        ref_emb: Tensor,
        ref_labels: Tensor | None,
        ref_includes_query: bool | None,
    ) -> Tensor:
        loss, adapter = self.loss, self.adapter
        loss.reset_stats()
        if 0 in (len(embeddings), len(ref_emb)):
            loss_dict = zero_loss_dict(loss)
        elif adapter.uses == "labels":
            loss_dict = self._compute_from_labels(embeddings, labels, indices_tuple)
        elif adapter.uses == "relation":
            relation, ref_includes_query = self.relate(
                embeddings, labels, ref_emb, ref_labels, ref_includes_query=ref_includes_query
            )
            inputs = RelationInputs(embeddings, ref_emb, relation, ref_includes_query, indices_tuple)
            loss_dict = self._formula(loss, inputs)
        else:
            if indices_tuple is None:
                relation, _ = self.relate(
                    embeddings, labels, ref_emb, ref_labels, ref_includes_query=ref_includes_query
                )
                indices_tuple = all_pairs(relation)
            elif adapter.indices_tuple == "binary" and self.validate_args:
                self._check_contradictions(indices_tuple, len(embeddings), len(ref_emb))
            if adapter.uses == "triplets":
                indices_tuple = to_triplets(indices_tuple, len(embeddings))
            if adapter.formula is None:
                result: Tensor = loss(embeddings, None, indices_tuple, ref_emb)
                return result
            loss_dict = self._formula(loss, embeddings, ref_emb, indices_tuple)
        return reduce_losses(loss, loss_dict, embeddings, labels)

    @property
    def loss_name(self) -> str:
        """Class name of the wrapped loss."""
        return type(self.loss).__name__

    @property
    def similarity(self) -> SimilarityFunction:
        """Label similarity of the relation."""
        return self.relation.similarity

    @property
    def positive_threshold(self) -> float:
        """Threshold that the similarity of positive pairs exceeds."""
        return self.relation.positive_threshold

    @property
    def negative_threshold(self) -> float:
        """Threshold that the similarity of negative pairs does not exceed."""
        return self.relation.negative_threshold

    @property
    def supports_indices_tuple(self) -> bool:  # type: ignore[override]
        """Whether the wrapped loss supports an `indices_tuple`."""
        return self.adapter.indices_tuple != "none"

    def check_refs(self) -> None:
        """Raise a ValueError if the wrapped loss does not support references."""
        check_loss_refs(self.loss, self.adapter)

    def relate(
        self,
        embeddings: Tensor,
        labels: Tensor | None,
        ref_emb: Tensor,
        ref_labels: Tensor | None,
        *,
        ref_includes_query: bool | None = None,
    ) -> tuple[Tensor, bool]:
        """Compute the relation of a batch to references.

        Args:
            embeddings: Shape `(N, D)`.
            labels: Labels of `embeddings`, shape `(N, L)`.
            ref_emb: Reference embeddings, shape `(M, D)`.
            ref_labels: Labels of `ref_emb`, shape `(M, L)`.
            ref_includes_query: Whether reference i is row i of the batch, for each row; None to decide as in `forward`.

        Returns:
            The relation, shape `(N, M)`, 0 for self-pairs, and whether reference i is row i of the batch.
        """
        if labels is None or ref_labels is None:
            missing = "labels" if labels is None else "ref_labels"
            raise ValueError(f"`{missing}` must be given to `{self.loss_name}`, got None.")
        ref_includes_query = resolve_ref_includes_query(embeddings, labels, ref_emb, ref_labels, ref_includes_query)
        device, same_labels = embeddings.device, ref_labels is labels
        labels = labels.to(device)
        relation: Tensor = self.relation(labels, labels if same_labels else ref_labels.to(device))
        return relation.fill_diagonal_(0) if ref_includes_query else relation, ref_includes_query

    def _compute_from_labels(
        self, embeddings: Tensor, labels: Tensor | None, indices_tuple: IndicesTuple | None
    ) -> LossDict:
        if labels is None:
            raise ValueError(f"`labels` must be given to `{self.loss_name}`, got None.")
        labels = check_labels(labels, validate_args=self.validate_args, allow_missing=True).to(embeddings.device)
        if self.validate_args and not self.supports_soft_labels:
            between = labels[(labels > 0) & (labels < 1)]
            if len(between):
                raise ValueError(
                    f"`labels` must be 0 or 1 for `{self.loss_name}`, which does not support soft labels, "
                    f"got {between[0].item():.3g}. Binarize them, or use a loss on pairs."
                )
        weights = miner_weights(indices_tuple, embeddings, anchors_only=False)
        return self._formula(self.loss, embeddings, labels, weights)

    def _formula(self, *arguments: Any) -> LossDict:
        assert self.adapter.formula is not None
        return self.adapter.formula(*arguments)

    def _check_contradictions(self, indices_tuple: IndicesTuple, num_anchors: int, num_refs: int) -> None:
        count = count_contradictions(indices_tuple, num_anchors, num_refs)
        if count:
            raise ValueError(
                f"`{self.loss_name}` requires that no pair is both positive and negative, but {count} pairs in "
                f"`indices_tuple` are. Use one of {', '.join(GRADED_LOSSES)}, which support this, or "
                "`MultiLabelMiner`, which never mines a pair as both, or labels without an `indices_tuple`."
            )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> MultiLabelLoss:
        self.relation._apply(fn)  # type: ignore[no-untyped-call]
        super()._apply(fn, recurse)
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Return the state dict of the wrapped loss."""
        return self.loss.state_dict(*args, **kwargs)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Submodules are loaded after this call, from the keys that begin with their names.
        for key in [key for key in state_dict if key.startswith(prefix)]:
            state_dict[f"{prefix}loss.{key.removeprefix(prefix)}"] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args)
