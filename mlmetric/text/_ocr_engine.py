"""Detection and recognition of text by rapidocr."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np

from mlmetric.text._reading_order import TextBox

if TYPE_CHECKING:
    from PIL import Image

OcrEngine = Callable[["Image.Image"], list[TextBox]]
_MIN_SIDE = 32  # of the input of the detection network
_MAX_SCALE = 2.0  # small images that are enlarged more are read less reliably
_UNLIMITED = 10**6
_NOT_INSTALLED = 'Text is read by rapidocr with onnxruntime, which are not installed: pip install "mlmetric[ocr]".'


def load_ocr_engine(image_side: int) -> OcrEngine:
    """Load the networks that rapidocr contains, for one thread.

    Args:
        image_side: An image is resized to the area of a square of this side, in pixels, before text is detected, but at
            most to twice its size.

    Returns:
        A function from an image in RGB to its text boxes. It must not be called by two threads at the same time.

    Raises:
        ImportError: If rapidocr or onnxruntime is not installed.
    """
    try:
        import_module("onnxruntime")  # rapidocr imports it when it reads the first image
        from rapidocr import RapidOCR
    except ImportError as error:
        raise ImportError(_NOT_INSTALLED) from error

    engine: Any = RapidOCR(  # declares the results of all its modes
        params={
            "Global.log_level": "critical",
            "Global.text_score": 0.0,
            # On posters, the classifier of upside-down text is mistaken more often than text is upside down.
            "Global.use_cls": False,
            # The image has its final size already.
            "Global.min_side_len": 1,
            "Global.max_side_len": _UNLIMITED,
            "Global.min_height": 0,
            "Global.width_height_ratio": -1,
            "Det.limit_type": "max",
            "Det.limit_side_len": _UNLIMITED,
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }
    )

    def find_text(image: Image.Image) -> list[TextBox]:
        resized = resize_to_area(image, image_side)
        found = engine(np.ascontiguousarray(np.asarray(resized)[:, :, ::-1]))  # BGR
        if found.txts is None:
            return []
        return [
            _text_box(corners, text, score)
            for corners, text, score in zip(found.boxes, found.txts, found.scores, strict=True)
        ]

    return find_text


def ocr_engine_version() -> str:
    """Return the version of rapidocr, which determines the networks.

    Raises:
        ImportError: If rapidocr is not installed.
    """
    try:
        return f"rapidocr {version('rapidocr')}"
    except PackageNotFoundError as error:
        raise ImportError(_NOT_INSTALLED) from error


def resize_to_area(image: Image.Image, side: int) -> Image.Image:
    """Resize an image to about the area of a square of the given side, but at most to twice its size.

    No side becomes shorter than 32 pixels.
    """
    from PIL import Image

    scale = min(side / math.sqrt(image.width * image.height), _MAX_SCALE)
    size = max(_MIN_SIDE, round(image.width * scale)), max(_MIN_SIDE, round(image.height * scale))
    return image.resize(size, Image.Resampling.BICUBIC)


def _text_box(corners: Any, text: str, score: float) -> TextBox:
    """Convert a quadrilateral whose corners are given clockwise from the upper left one.

    Top and bottom are the mean heights of the two upper and the two lower corners, so that slanted lines above each
    other do not overlap.
    """
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = np.asarray(corners, dtype=float).tolist()
    top, bottom = sorted(((y0 + y1) / 2, (y2 + y3) / 2))
    return TextBox(min(x0, x1, x2, x3), top, max(x0, x1, x2, x3), bottom, text, float(score))
