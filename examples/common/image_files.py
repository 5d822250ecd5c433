"""The image files that are named on a command line."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

IMAGE_SUFFIXES = {".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}


def list_images(paths: Iterable[Path]) -> list[Path]:
    """Return the files, and in place of each folder the image files in it and its sub-folders, sorted.

    Raises:
        FileNotFoundError: If a path does not exist, or there is no image file.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist.")
        inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
        found += inside if path.is_dir() else [path]
    if not found:
        raise FileNotFoundError(f"There is no image file in {', '.join(map(str, paths))}.")
    return found
