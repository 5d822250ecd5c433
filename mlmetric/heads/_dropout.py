"""Dropout whose random numbers do not depend on other threads."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mlmetric._random_generators import thread_generator


class Dropout(nn.Dropout):
    """Dropout that, in training on the CPU, draws from its thread's generator, so that heads can train in parallel.

    In all other cases it is torch's dropout, which draws from the global generator of the device.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        """Set entries to 0 at random, and scale the others, in training mode."""
        generator = thread_generator(inputs.device)
        if not self.training or generator is None:
            return super().forward(inputs)
        keep = 1 - self.p
        scales = torch.empty_like(inputs).bernoulli_(keep, generator=generator)
        return inputs * (scales.div_(keep) if keep else scales)
