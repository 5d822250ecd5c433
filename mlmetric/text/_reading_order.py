"""The order in which the text boxes of an image are read."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean
from typing import NamedTuple

_MIN_OVERLAP = 0.5


class TextBox(NamedTuple):
    """A text found in an image and its upright bounding box, in pixels from the upper left corner.

    Attributes:
        left: The left edge.
        top: The top edge.
        right: The right edge.
        bottom: The bottom edge.
        text: The text.
        confidence: The mean probability of its characters, in [0, 1].
    """

    left: float
    top: float
    right: float
    bottom: float
    text: str
    confidence: float


def join_in_reading_order(boxes: Iterable[TextBox]) -> str:
    """Join texts line by line from top to bottom, and the texts of a line from left to right.

    A box belongs to a line if its vertical overlap with the line is at least half of the larger of the two heights.
    Spaces at the ends of a text are removed, and several in a row are reduced to one.

    Args:
        boxes: The boxes, in any order.

    Returns:
        The texts of a line joined by spaces, the lines by line breaks; an empty string if there are no texts.
    """
    lines: list[list[TextBox]] = []
    for box in sorted(boxes, key=lambda box: (box.top + box.bottom, box.left, box.text)):
        best = max(lines, key=lambda line: _overlap(line, box), default=None)
        if best is not None and _overlap(best, box) >= _MIN_OVERLAP:
            best.append(box)
        else:
            lines.append([box])
    lines.sort(key=lambda line: fmean(box.top + box.bottom for box in line))
    texts = (" ".join(" ".join(box.text for box in sorted(line)).split()) for line in lines)
    return "\n".join(text for text in texts if text)


def _overlap(line: list[TextBox], box: TextBox) -> float:
    """Return the vertical overlap of a box with a line, as a share of the larger height."""
    top, bottom = fmean(box.top for box in line), fmean(box.bottom for box in line)
    shared = min(bottom, box.bottom) - max(top, box.top)
    return shared / max(bottom - top, box.bottom - box.top, 1e-9)
