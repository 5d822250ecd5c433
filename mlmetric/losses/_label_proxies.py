"""Losses with one proxy per label."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_metric_learning.losses import ProxyAnchorLoss
from torch import Tensor, nn
from torch.nn.functional import normalize

from mlmetric.losses._base import LabelledBatch, LossDict, MultiLabelBaseLoss
from mlmetric.losses._multi_label import MultiLabelLoss


class MultiLabelProxyAnchorLoss(MultiLabelLoss):
    """Pull the proxy of each label to the items that carry it, and push it from all others.

    For each label the items that carry it are positive, the others negative, harder ones weighed higher. 0 is best. A
    label that no item of the batch carries only pushes; an all-zero row is pushed from all proxies.

    It is [MultiLabelLoss][mlmetric.losses.MultiLabelLoss] around `ProxyAnchorLoss` of pytorch-metric-learning, under
    the names of this library.

    Args:
        num_labels: L.
        embedding_size: D.
        margin: Positives should be more, negatives less similar to a proxy than this and its negative.
        alpha: How much harder items weigh more.
        **settings: Whatever else `ProxyAnchorLoss` takes: `distance`, `reducer`, `weight_init_func` ...; it is the
            attribute `loss`, and its proxies are `loss.proxies`.

    Examples:
        >>> loss = MultiLabelProxyAnchorLoss(num_labels=3, embedding_size=2)
        >>> bool(loss(torch.eye(2), torch.tensor([[1, 0, 1], [0, 0, 1]])) > 0)
        True

    Source:
        Kim et al., "Proxy anchor loss for deep metric learning", CVPR 2020, with the sets of positives and negatives
        of a proxy read off the label matrix.
    """

    def __init__(
        self, num_labels: int, embedding_size: int, margin: float = 0.1, alpha: float = 32, **settings: Any
    ) -> None:
        super().__init__(ProxyAnchorLoss(num_labels, embedding_size, margin, alpha, **settings))


class HyP2Loss(MultiLabelBaseLoss):
    """Hybrid proxy-pair loss: one proxy per label, and pairs of items that share no label kept apart.

    The sum of three means, all on cosines c: `1 - c` of items to the proxies of their labels; `max(0, c - threshold)`
    of items to the other proxies; and `beta` times `max(0, c - threshold)` of pairs of items that share no label, both
    of them with two labels or more, where proxies alone leave items of different label sets in one place. 0 is best. An
    all-zero row is pushed from all proxies; a batch without such pairs has no third part. A soft label counts as
    present where it is above 0.

    Args:
        num_labels: L.
        embedding_size: D.
        threshold: Cosine below which nothing is pushed any more, in [-1, 1]. The paper derives it for L points on a
            sphere of D dimensions; at hundreds of dimensions it is near 0, our default.
        beta: Weight of the pairs.
        validate_args: Whether each call looks at the values of labels.
        **settings: `collect_stats`, `embedding_regularizer`. The parts are means already, which reducers leave alone.

    Attributes:
        proxies: Shape `(L, D)`, learnt, normal with variance 2 / L at the start: hand the loss to the optimizer, too.

    Raises:
        ValueError: If a size is below 1, the threshold outside [-1, 1], `beta` below 0, or a distance, an index tuple
            or refs are given.

    Examples:
        >>> loss = HyP2Loss(num_labels=2, embedding_size=2, threshold=0.25)
        >>> _ = loss.proxies.data.copy_(torch.eye(2))
        >>> # Cosines to own proxies 1 and 0.6, to others 0 and 0.8.
        >>> with torch.no_grad():
        ...     loss(torch.tensor([[1.0, 0.0], [0.6, 0.8]]), torch.tensor([[1, 0], [1, 0]]))
        tensor(0.4750)

    Source:
        Xu et al., "HyP2 loss: beyond hypersphere metric space for multi-label image retrieval", ACM MM 2022, whose
        third part is taken, as by its authors, over items with two labels or more, an item with itself excepted.
    """

    takes_refs = False
    takes_tuples = False

    def __init__(
        self,
        num_labels: int,
        embedding_size: int,
        threshold: float = 0.0,
        beta: float = 0.5,
        *,
        validate_args: bool = True,
        **settings: Any,
    ) -> None:
        if "distance" in settings:
            raise ValueError("`distance` cannot be chosen: `HyP2Loss` compares by the cosine.")
        super().__init__(validate_args=validate_args, **settings)
        if min(num_labels, embedding_size) < 1:
            raise ValueError(
                f"`num_labels` and `embedding_size` must be at least 1, got {num_labels} and {embedding_size}."
            )
        if not -1 <= threshold <= 1:
            raise ValueError(f"`threshold` must be a cosine, in [-1, 1], got {threshold}.")
        if not beta >= 0:
            raise ValueError(f"`beta` must be at least 0, got {beta}.")
        self.threshold = threshold
        self.beta = beta
        self.add_to_recordable_attributes(list_of_names=["threshold", "beta"], is_stat=False)
        self.proxies = nn.Parameter(torch.empty(num_labels, embedding_size))
        nn.init.kaiming_normal_(self.proxies, mode="fan_out")

    def _sub_loss_names(self) -> list[str]:
        return ["positive_loss", "negative_loss", "pair_loss"]

    def compute_loss(self, batch: LabelledBatch) -> LossDict:
        """Return the three means."""
        if batch.labels.shape[1] != len(self.proxies):
            raise ValueError(
                f"`labels` must have {len(self.proxies)} columns (`num_labels`), got {batch.labels.shape[1]}."
            )
        if batch.embeddings.shape[1] != self.proxies.shape[1]:
            raise ValueError(
                f"`embeddings` must have {self.proxies.shape[1]} columns (`embedding_size`), "
                f"got {batch.embeddings.shape[1]}."
            )
        embeddings = normalize(batch.embeddings.to(batch.dtype))
        cosine = embeddings @ normalize(self.proxies.to(batch.dtype)).T
        carries = batch.labels > 0
        several = carries.sum(dim=1) > 1
        apart, others = embeddings[several], carries[several].to(batch.dtype)
        disjoint = others @ others.T == 0  # never of an item with itself: it has labels
        parts = {
            "positive_loss": _mean(1 - cosine, carries),
            "negative_loss": _mean(torch.relu(cosine - self.threshold), ~carries),
            "pair_loss": self.beta * _mean(torch.relu(apart @ apart.T - self.threshold), disjoint),
        }
        return {
            name: {"losses": value, "indices": None, "reduction_type": "already_reduced"}
            for name, value in parts.items()
        }


def _mean(values: Tensor, keep: Tensor) -> Tensor:
    """Take the mean of the kept entries, 0 where there is none."""
    return torch.where(keep, values, 0).sum() / keep.sum().clamp(min=1)
