"""Label weights from label frequencies."""

from __future__ import annotations

import torch
from torch import Tensor

from mlmetric.labels import LabelsLike, label_counts, label_tensor


def inverse_frequency_weights(labels: LabelsLike, kind: str = "inverse") -> Tensor:
    """Compute label weights that give rare labels more weight in a similarity.

    Args:
        labels: Training labels, shape `(N, L)`, multi-hot or soft, of any kind that
            [`check_labels`][mlmetric.labels.check_labels] reads.
        kind: `"inverse"`: 1 / count, where counts below 1 are replaced by 1; `"log_count"`: 1 / ln(count + 2);
            `"log_rank"`: 1 / ln(rank + 1), where the rarest label has rank 1 and equal counts share the lowest of their
            ranks.

    Returns:
        float32, shape `(L,)`, > 0.

    Raises:
        TypeError: If `labels` does not contain numbers.
        ValueError: If `kind` is not one of these, or `labels` is not a matrix in [0, 1].

    Examples:
        >>> import torch
        >>> from mlmetric.similarity import inverse_frequency_weights
        >>> labels = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 1], [1, 0, 0]])
        >>> inverse_frequency_weights(labels)
        tensor([0.2500, 0.5000, 1.0000])
        >>> inverse_frequency_weights(labels, kind="log_rank")
        tensor([0.7213, 0.9102, 1.4427])

    Source:
        The two logarithmic kinds are the label weights of the paper that
        [`MultiLabelSemiHardMiner`][mlmetric.miners.MultiLabelSemiHardMiner] implements. The paper does not state the
        order of the ranks; here the rarest label has rank 1, so that rare labels have the larger weights.
    """
    counts = label_counts(label_tensor(labels, used_by="`inverse_frequency_weights`"))
    if kind == "inverse":
        weights = 1 / counts.clamp(min=1)
    elif kind == "log_count":
        weights = 1 / torch.log(counts + 2)
    elif kind == "log_rank":
        ranks = torch.searchsorted(counts.sort().values, counts) + 1
        weights = 1 / torch.log(ranks.double() + 1)
    else:
        raise ValueError(f'`kind` must be "inverse", "log_count" or "log_rank", got {kind!r}.')
    return weights.float()
