"""Losses with a proxy for each label."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pytorch_metric_learning.losses import ProxyAnchorLoss
from torch import Tensor, nn
from torch.nn.functional import normalize

from mlmetric._docstrings import inherit_docs
from mlmetric._pml import BaseDistance
from mlmetric.losses._base_loss import LossDict, MultiLabelBaseLoss, reduced_loss
from mlmetric.losses._loss_inputs import LossInputs
from mlmetric.losses._multi_label_loss import MultiLabelLoss


@inherit_docs(MultiLabelBaseLoss, validate_args="labels, similarities and embeddings=>labels and embeddings")
class MultiLabelProxyAnchorLoss(MultiLabelLoss):
    """Proxy Anchor loss: the proxy of each label is pulled towards rows with the label and pushed away from others.

    For each label, the rows with the label are positive and the other rows are negative; harder rows have a larger
    weight. The lowest value is 0. If no row of the batch has a label, its proxy is only pushed away; all proxies are
    pushed away from an all-zero row. A row is neither positive nor negative for a missing label (NaN). This class is
    [MultiLabelLoss][mlmetric.losses.MultiLabelLoss] with `ProxyAnchorLoss` of pytorch-metric-learning.

    Args:
        num_labels: L, the number of columns of the labels.
        embedding_size: D, the number of columns of the embeddings.
        margin: The similarity to a proxy should exceed `margin` for positives, and be below `-margin` for negatives.
        alpha: Scale of the exponents: the larger it is, the larger the weights of hard rows.
        distance: An inverted distance of pytorch-metric-learning. None for `CosineSimilarity()`.
        reducer: A reducer of pytorch-metric-learning, but not `ClassWeightedReducer`. None for `DivisorReducer()`.
        weight_init_func: Function that initialises the proxies in place. None for `kaiming_normal_` with
            `mode="fan_out"`, as in pytorch-metric-learning.
        weight_regularizer: A regularizer of pytorch-metric-learning that is applied to the proxies; None for no
            regularizer.
        weight_reg_weight: Weight of `weight_regularizer`.

    Attributes:
        loss: The `ProxyAnchorLoss`; its parameter `proxies` has shape `(L, D)`. Pass the parameters of this module to
            the optimizer.

    Raises:
        ValueError: If `reducer` is a `ClassWeightedReducer`.

    Examples:
        >>> import torch
        >>> from mlmetric.losses import MultiLabelProxyAnchorLoss
        >>> loss = MultiLabelProxyAnchorLoss(num_labels=3, embedding_size=2)
        >>> bool(loss(torch.eye(2), torch.tensor([[1, 0, 1], [0, 0, 1]])) > 0)
        True

    Source:
        Kim et al., "Proxy anchor loss for deep metric learning", CVPR 2020, with the positive and negative rows of a
        proxy defined by the label matrix.
    """

    def __init__(
        self,
        num_labels: int,
        embedding_size: int,
        margin: float = 0.1,
        alpha: float = 32,
        *,
        distance: BaseDistance | None = None,
        reducer: nn.Module | None = None,
        weight_init_func: Callable[[Tensor], Any] | None = None,
        weight_regularizer: nn.Module | None = None,
        weight_reg_weight: float = 1,
        embedding_regularizer: nn.Module | None = None,
        embedding_reg_weight: float = 1,
        collect_stats: bool | None = None,
        validate_args: bool = True,
    ) -> None:
        loss = ProxyAnchorLoss(
            num_labels,
            embedding_size,
            margin,
            alpha,
            distance=distance,
            reducer=reducer,
            weight_init_func=weight_init_func,
            weight_regularizer=weight_regularizer,
            weight_reg_weight=weight_reg_weight,
            embedding_regularizer=embedding_regularizer,
            embedding_reg_weight=embedding_reg_weight,
            collect_stats=collect_stats,
        )
        super().__init__(loss, validate_args=validate_args)

    def extra_repr(self) -> str:
        """Return the parameters for the `repr` of the module."""
        num_labels, embedding_size = self.loss.proxies.shape
        sizes = f"num_labels={num_labels}, embedding_size={embedding_size}"
        return f"{sizes}, margin={self.loss.margin}, alpha={self.loss.alpha}"


@inherit_docs(MultiLabelBaseLoss, validate_args="labels, similarities and embeddings=>labels and embeddings")
class HyP2Loss(MultiLabelBaseLoss):
    """Hybrid proxy-pair loss: a proxy for each label, and pairs of rows that share no label.

    The loss is the sum of three means, with cosines c: `1 - c` between rows and the proxies of their labels;
    `max(0, c - threshold)` between rows and the other proxies; and `beta * max(0, c - threshold)` between pairs of rows
    with at least two labels each that share no label, which proxies alone do not separate. Without such pairs, the
    third term is 0. The lowest value is 0. All proxies are pushed away from an all-zero row. A soft label above 0
    counts as present. Missing labels (NaN) are left out of the first two means, and pairs are compared on the labels
    annotated in both rows.

    Args:
        num_labels: L, the number of columns of the labels.
        embedding_size: D, the number of columns of the embeddings.
        threshold: Cosine, in [-1, 1], below which the second and third terms are 0. The paper derives it for L points
            on a sphere in D dimensions; for hundreds of dimensions it is near 0, the default here.
        beta: Weight of the third term, >= 0.
        reducer: A reducer of pytorch-metric-learning, but not `ClassWeightedReducer`. The terms are already means,
            which reducers do not change.

    Attributes:
        proxies: Parameter of shape `(L, D)`, normally distributed with variance 2 / L at the start. Pass the parameters
            of this module to the optimizer.

    Raises:
        ValueError: If a size is below 1, the threshold is not in [-1, 1], `beta` is below 0, or `reducer` is a
            `ClassWeightedReducer`.

    Examples:
        >>> import torch
        >>> from mlmetric.losses import HyP2Loss
        >>> loss = HyP2Loss(num_labels=2, embedding_size=2, threshold=0.25)
        >>> _ = loss.proxies.data.copy_(torch.eye(2))
        >>> # The cosines to the proxy of the label are 1 and 0.6, to the other proxy 0 and 0.8.
        >>> with torch.no_grad():
        ...     loss(torch.tensor([[1.0, 0.0], [0.6, 0.8]]), torch.tensor([[1, 0], [1, 0]]))
        tensor(0.4750)

    Source:
        Xu et al., "HyP2 loss: beyond hypersphere metric space for multi-label image retrieval", ACM MM 2022. As in the
        code of the authors, the third term includes rows with at least two labels and excludes self-pairs.
    """

    supports_refs = False
    supports_indices_tuple = False
    supports_missing_labels = True

    def __init__(
        self,
        num_labels: int,
        embedding_size: int,
        threshold: float = 0.0,
        beta: float = 0.5,
        *,
        reducer: nn.Module | None = None,
        embedding_regularizer: nn.Module | None = None,
        embedding_reg_weight: float = 1,
        collect_stats: bool | None = None,
        validate_args: bool = True,
    ) -> None:
        super().__init__(
            reducer=reducer,
            embedding_regularizer=embedding_regularizer,
            embedding_reg_weight=embedding_reg_weight,
            collect_stats=collect_stats,
            validate_args=validate_args,
        )
        del self.distance  # the loss always uses the cosine
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

    def extra_repr(self) -> str:
        """Return the parameters for the `repr` of the module."""
        num_labels, embedding_size = self.proxies.shape
        sizes = f"num_labels={num_labels}, embedding_size={embedding_size}"
        return f"{sizes}, {super().extra_repr()}"

    def _sub_loss_names(self) -> list[str]:
        return ["positive_loss", "negative_loss", "pair_loss"]

    @inherit_docs(MultiLabelBaseLoss.compute_loss)
    def compute_loss(self, inputs: LossInputs) -> LossDict:
        """Return the three means."""
        if inputs.labels.shape[1] != len(self.proxies):
            raise ValueError(
                f"`labels` must have {len(self.proxies)} columns (`num_labels`), got {inputs.labels.shape[1]}."
            )
        if inputs.embeddings.shape[1] != self.proxies.shape[1]:
            raise ValueError(
                f"`embeddings` must have {self.proxies.shape[1]} columns (`embedding_size`), "
                f"got {inputs.embeddings.shape[1]}."
            )
        embeddings = normalize(inputs.embeddings)
        cosine = embeddings @ normalize(self.proxies.to(inputs.dtype)).T
        present = inputs.labels > 0
        several = present.sum(dim=1) > 1
        rows, label_sets = embeddings[several], present[several].to(inputs.dtype)
        disjoint = label_sets @ label_sets.T == 0  # False for self-pairs, since these rows have labels
        if inputs.has_missing_labels:
            sizes = label_sets @ (~inputs.labels[several].isnan()).to(inputs.dtype).T  # on labels annotated in both
            disjoint &= torch.minimum(sizes, sizes.T) > 1
        terms = {
            "positive_loss": _mean(1 - cosine, present),
            "negative_loss": _mean(torch.relu(cosine - self.threshold), inputs.labels <= 0),
            "pair_loss": self.beta * _mean(torch.relu(rows @ rows.T - self.threshold), disjoint),
        }
        return {name: reduced_loss(value) for name, value in terms.items()}


def _mean(values: Tensor, keep: Tensor) -> Tensor:
    """Return the mean of the entries where `keep` is True, 0 if there are none."""
    return torch.where(keep, values, 0).sum() / keep.sum().clamp(min=1)
