"""The integer dtype in which functions that users wrote receive labels."""

from __future__ import annotations

import torch


def widen_integers(labels: torch.Tensor) -> torch.Tensor:
    """Return labels of a small integer dtype as int64, other labels unchanged, for functions that users wrote.

    In uint8 `labels - ref_labels` wraps from 0 to 255, and in uint8 and int8 `labels @ ref_labels.T` overflows. torch
    raises for both in bool.
    """
    return labels.long() if labels.dtype in (torch.uint8, torch.int8, torch.int16) else labels
