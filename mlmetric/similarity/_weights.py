"""Label weights from label frequencies."""

from __future__ import annotations

import torch
from torch import Tensor

from mlmetric.labels import label_counts


def inverse_frequency_weights(labels: Tensor, kind: str = "inverse") -> Tensor:
    """Weigh labels so that sharing a rare one counts for more.

    Args:
        labels: Training labels, shape `(N, L)`, multi-hot or soft.
        kind: `"inverse"`: 1 / count; `"log_count"`: 1 / ln(count + 2); `"log_rank"`: 1 / ln(rank + 1) with rank 1
            for the rarest label and ties sharing the lower rank.

    Returns:
        float32, shape `(L,)`, > 0. A label that never occurs is weighed like one that occurs once under
        `"inverse"`.

    Raises:
        ValueError: If `kind` is none of these, or `labels` is not a matrix in [0, 1].

    Examples:
        >>> labels = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 1], [1, 0, 0]])
        >>> inverse_frequency_weights(labels)
        tensor([0.2500, 0.5000, 1.0000])
        >>> inverse_frequency_weights(labels, kind="log_rank")
        tensor([0.7213, 0.9102, 1.4427])

    Source:
        The two logarithmic kinds are the label weights of the triplet-loss pipeline that mlmetric's miner follows.
        That the rarest label has rank 1 is our reading: the other order would favour frequent labels.
    """
    counts = label_counts(torch.as_tensor(labels))
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
