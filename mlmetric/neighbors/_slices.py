"""Work in parts."""

from __future__ import annotations

from collections.abc import Iterator


def slices(total: int, step: int) -> Iterator[slice]:
    """Cut `total` into as few slices as there can be of at most `step`, about equal; a `step` below 1 counts as 1."""
    num_parts = -(-total // max(1, step))
    step = -(-total // max(1, num_parts))
    return (slice(start, min(start + step, total)) for start in range(0, total, max(1, step)))
