"""Draw the posters of the synthetic set.

A poster has one panel for each sentiment that it shows. The look of a sentiment consists of properties that even an
untrained convolutional network responds to: colour, brightness, and the spacing and shape of a texture. Noise is added
to the same properties.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

__all__ = ["LOOKS", "Look", "draw_poster"]

FloatArray = npt.NDArray[np.float64]
Box = tuple[int, int, int, int]

# Each motif maps coordinates (u, v) to the opacity of the ink, 0 to 1, with a period of 1 or 2.
_MOTIFS: dict[str, Callable[[FloatArray, FloatArray], npt.NDArray[Any]]] = {
    "columns": lambda u, v: u % 1 < 0.5,
    "rows": lambda u, v: v % 1 < 0.4,
    "slants": lambda u, v: (u + v) % 1 < 0.5,
    "waves": lambda u, v: 0.5 + 0.5 * np.sin(2 * np.pi * (v + 0.4 * np.sin(np.pi * u))),
    "checks": lambda u, v: (np.floor(u) + np.floor(v)) % 2,
    "dots": lambda u, v: np.hypot(u % 1 - 0.5, v % 1 - 0.5) < 0.32,
    "rings": lambda u, v: np.hypot(u % 2 - 1, v % 2 - 1) % 0.5 < 0.25,
    "wedges": lambda u, v: u % 1 < v % 1,
    "specks": lambda u, v: np.sin(12.9898 * np.floor(2 * u) + 78.233 * np.floor(2 * v)) * 43758.5453 % 1 < 0.4,
}


class Look(NamedTuple):
    """The look of a sentiment.

    Attributes:
        hue: Hue of the colour, 0 to 1.
        saturation: Saturation of the colour, 0 to 1.
        value: Value (brightness) of the colour, 0 to 1. The second colour of the panel is lighter if the first one is
            dark, and darker otherwise.
        motif: The pattern of the panel, a key of `_MOTIFS`.
        frequency: Number of repetitions of the motif along the shorter side of a poster.
    """

    hue: float
    saturation: float
    value: float
    motif: str
    frequency: float


LOOKS = {
    "active": Look(0.04, 0.90, 0.95, "slants", 19),
    "afraid": Look(0.75, 0.60, 0.20, "specks", 38),
    "alarmed": Look(0.00, 0.95, 0.70, "checks", 27),
    "alert": Look(0.15, 0.95, 1.00, "columns", 30),
    "amazed": Look(0.80, 0.80, 0.90, "rings", 22),
    "amused": Look(0.12, 0.80, 1.00, "dots", 16),
    "angry": Look(0.99, 1.00, 0.50, "wedges", 25),
    "calm": Look(0.52, 0.30, 0.90, "waves", 9),
    "cheerful": Look(0.14, 0.70, 1.00, "rings", 12),
    "confident": Look(0.62, 0.80, 0.70, "columns", 12),
    "conscious": Look(0.35, 0.50, 0.60, "rows", 18),
    "creative": Look(0.85, 0.70, 0.95, "checks", 13),
    "disturbed": Look(0.22, 0.80, 0.35, "specks", 19),
    "eager": Look(0.06, 0.80, 0.75, "dots", 27),
    "educated": Look(0.60, 0.35, 0.95, "rows", 33),
    "emotional": Look(0.93, 0.35, 0.60, "waves", 18),
    "empathetic": Look(0.45, 0.45, 0.70, "dots", 12),
    "fashionable": Look(0.70, 0.10, 0.15, "slants", 11),
    "feminine": Look(0.92, 0.35, 1.00, "waves", 13),
    "grateful": Look(0.10, 0.40, 0.80, "rings", 33),
    "inspired": Look(0.55, 0.80, 0.95, "wedges", 12),
    "jealous": Look(0.30, 1.00, 0.55, "slants", 36),
    "loving": Look(0.97, 0.75, 0.90, "dots", 20),
    "manly": Look(0.58, 0.45, 0.30, "rows", 12),
    "persuaded": Look(0.48, 0.80, 0.75, "checks", 20),
    "pessimistic": Look(0.15, 0.15, 0.35, "rows", 25),
    "proud": Look(0.64, 0.95, 0.90, "columns", 19),
    "sad": Look(0.60, 0.30, 0.35, "columns", 38),
    "thrifty": Look(0.28, 0.70, 0.85, "specks", 27),
    "youthful": Look(0.42, 0.60, 1.00, "wedges", 18),
}

_BLANK_SHARE = 0.15
_COLOUR_NOISE = (0.015, 0.05, 0.05)  # of hue, saturation and value


def draw_poster(rng: np.random.Generator, sentiments: Mapping[str, float], headline: str, size: int) -> Image.Image:
    """Draw a poster that shows sentiments. The blank panel, product, headline, brightness and grain are random.

    Args:
        rng: The random generator.
        sentiments: Names from `LOOKS`, each with the share of the poster that its panel takes.
        headline: The text on the poster.
        size: The shorter side in pixels.

    Returns:
        An RGB image in square, portrait or landscape format.
    """
    width, height = ((size, size), (size, size * 5 // 4), (size * 5 // 4, size))[rng.integers(3)]
    names = [*sentiments, None]
    order = rng.permutation(len(names))
    shares = np.array([*sentiments.values(), _BLANK_SHARE])[order]
    canvas = np.empty((height, width, 3))
    for index, box in zip(order, _split((0, 0, width, height), shares), strict=True):
        _fill_panel(rng, canvas, box, names[index], size)
    poster = Image.fromarray(canvas.astype(np.uint8))
    _draw_product(rng, poster, size)
    _draw_headline(rng, poster, headline, size)
    lit = 128 + (np.asarray(poster) - 128.0) * rng.uniform(0.92, 1.08) + rng.normal(0, 4)
    lit += rng.normal(0, rng.uniform(2, 6), lit.shape)
    return Image.fromarray(lit.clip(0, 255).astype(np.uint8))


def _split(box: Box, shares: FloatArray) -> list[Box]:
    if len(shares) == 1:
        return [box]
    left, top, right, bottom = box
    half = len(shares) // 2
    share = shares[:half].sum() / shares.sum()
    if right - left > bottom - top:
        middle = left + round(share * (right - left))
        boxes = (left, top, middle, bottom), (middle, top, right, bottom)
    else:
        middle = top + round(share * (bottom - top))
        boxes = (left, top, right, middle), (left, middle, right, bottom)
    return _split(boxes[0], shares[:half]) + _split(boxes[1], shares[half:])


def _fill_panel(rng: np.random.Generator, canvas: FloatArray, box: Box, name: str | None, size: int) -> None:
    left, top, right, bottom = box
    if name is None:
        canvas[top:bottom, left:right] = _noisy_colour(rng, rng.random(), 0.5 * rng.random(), rng.uniform(0.3, 1))
        return
    look = LOOKS[name]
    frequency = look.frequency * rng.lognormal(0, 0.1) / size
    u, v = np.meshgrid(
        frequency * (np.arange(left, right) + rng.uniform(0, size)),
        frequency * (np.arange(top, bottom) + rng.uniform(0, size)),
    )
    ink = _noisy_colour(rng, look.hue, look.saturation, look.value)
    paper = ink + (255 * (look.value < 0.6) - ink) * rng.uniform(0.35, 0.5)
    canvas[top:bottom, left:right] = paper + _MOTIFS[look.motif](u, v)[..., None] * (ink - paper)


def _noisy_colour(rng: np.random.Generator, hue: float, saturation: float, value: float) -> FloatArray:
    noisy = rng.normal([hue, saturation, value], _COLOUR_NOISE)
    return 255 * np.array(colorsys.hsv_to_rgb(noisy[0] % 1, *noisy[1:].clip(0, 1)))


def _draw_product(rng: np.random.Generator, poster: Image.Image, size: int) -> None:
    draw = ImageDraw.Draw(poster)
    x, y = rng.uniform(0.2, 0.8, 2) * poster.size
    across, high = rng.uniform(0.05, 0.09, 2) * size
    colour = tuple(rng.integers(0, 256, 3).tolist())
    draw.rectangle((x - across / 3, y - 1.6 * high, x + across / 3, y), fill=colour, outline="white")
    draw.ellipse((x - across, y - high, x + across, y + high), fill=colour, outline="white")


def _draw_headline(rng: np.random.Generator, poster: Image.Image, headline: str, size: int) -> None:
    place = (0.05 * poster.width, rng.choice([0.04, 0.45, 0.86]) * poster.height)
    ink, edge = rng.permutation(["white", "black"]).tolist()
    font = ImageFont.load_default(size / 11)
    ImageDraw.Draw(poster).text(place, headline, fill=ink, font=font, stroke_width=1, stroke_fill=edge)
