"""A page of images, without scripts, for small and large screens."""

from __future__ import annotations

import base64
import mimetypes
import os
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

_STYLE = """
:root { color-scheme: light dark; font-family: system-ui, sans-serif; line-height: 1.4; }
body { margin: 0 auto; padding: 1rem; max-width: 80rem; }
ul { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 14rem), 1fr)); gap: 1rem; padding: 0; }
li { list-style: none; border: 1px solid #888; border-radius: 0.5rem; padding: 0.5rem; overflow-wrap: anywhere; }
img { display: block; width: 100%; height: 12rem; object-fit: contain; }
p { margin: 0.25rem 0 0; }
""".strip()
_URL_STARTS = ("data:", "http://", "https://")


class Card(NamedTuple):
    """One pair on the page."""

    source: str
    """Value of the attribute `src` of the image, not escaped."""
    image: str
    row: int
    label: str
    score: float


def read_images(images: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Return paths and URLs as text."""
    if isinstance(images, str | os.PathLike):
        raise TypeError(f"`images` must be a sequence with the image of each row, got {images!r}.")
    return [os.fspath(image) for image in images]


def image_source(image: str, folder: Path, *, embed: bool) -> str:
    """Return the URL of an image for a page in `folder`."""
    if image.startswith(_URL_STARTS):
        return image
    file = Path(image)
    if not file.is_file():
        raise FileNotFoundError(f"`images` must contain files or URLs, got {image!r}, which is not a file.")
    if embed:
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        return f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"
    try:
        relative = Path(os.path.relpath(file.resolve(), folder.resolve())).as_posix()
    except ValueError:  # another drive of Windows
        return file.resolve().as_uri()
    return quote(relative)


def page(title: str, sections: Iterable[tuple[str, Sequence[Card]]]) -> str:
    """Return the HTML of a page with a section for each heading and its cards."""
    body = [f"<h1>{escape(title)}</h1>"]
    for heading, cards in sections:
        body.append(f"<h2>{escape(heading)}</h2>")
        body += ["<ul>", *map(_card, cards), "</ul>"] if cards else ["<p>None.</p>"]
    lines = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title>",
        f"<style>\n{_STYLE}\n</style>",
        "</head>",
        "<body>",
        *body,
        "</body>",
        "</html>",
    ]
    return "\n".join(lines) + "\n"


def _card(card: Card) -> str:
    is_file = not card.image.startswith(_URL_STARTS)
    name = f", {Path(card.image).name}" if is_file else ""
    return (
        f'<li><img src="{escape(card.source)}" alt="Image of row {card.row}{escape(name)}" loading="lazy">'
        f"<p><strong>{escape(card.label)}</strong></p><p>Row {card.row}{escape(name)}; score {card.score:.3f}</p></li>"
    )
