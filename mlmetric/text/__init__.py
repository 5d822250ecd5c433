"""Text as a further view of images: reading it off the images."""

from __future__ import annotations

from mlmetric.text._text_reader import TextReader

__all__ = ["TextReader"]
