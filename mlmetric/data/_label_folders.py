"""Read the labels of images from a folder with a sub-folder for each label."""

from __future__ import annotations

import filecmp
import os
from pathlib import Path

import numpy as np

from mlmetric.data._label_text import IMAGE_SUFFIXES, LabelFileError, label_name, listing, number_of, quote
from mlmetric.data._labelled_paths import LabelledPaths, once


def is_image(path: Path) -> bool:
    """Return whether the name of a file ends like that of an image."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def sub_folders(folder: Path) -> list[Path]:
    """Return the folders in a folder that are not hidden, sorted by name."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def read_folders(root: Path) -> LabelledPaths:
    """Read a folder with a sub-folder for each label, which contains the images with this label.

    An image with several labels is in several sub-folders under the same name: as a copy, a symbolic or a hard link.

    Args:
        root: The folder.

    Returns:
        The images, sorted by their first path.

    Raises:
        LabelFileError: If `root` is not such a folder; if a sub-folder contains images in further folders.
    """
    folders = sub_folders(root)
    label_names = [label_name(folder.name, f"{root}: the folder {quote(folder.name)}") for folder in folders]
    notes: list[str] = []
    if outside := sorted(path.name for path in root.iterdir() if path.is_file() and is_image(path)):
        notes.append(f"Images left out, since they are in no sub-folder: {listing(outside)}.")
    paths: list[str] = []
    same_name: dict[str, list[int]] = {}  # images by the name of their file
    pairs: list[tuple[int, int]] = []
    others: list[str] = []
    for label, folder in enumerate(folders):
        for file in sorted(folder.iterdir()):
            if file.is_dir():
                _check_nested(root, file)
            elif not is_image(file):
                others.append(f"{folder.name}/{file.name}")
            else:
                earlier = same_name.setdefault(file.name, [])
                image = next((image for image in earlier if _is_same(root / paths[image], file)), len(paths))
                if image == len(paths):
                    paths.append(f"{folder.name}/{file.name}")
                    earlier.append(image)
                pairs.append((image, label))
    if not pairs:
        raise LabelFileError(f"{root} must have a sub-folder for each label with images in it; there is none.")
    if others:
        notes.append(f"Files left out, since they are not images: {listing(others)}.")
    if merged := len(pairs) - len(paths):
        notes.append(f"{number_of(merged, 'file')} with the name and content of an image of another label: merged.")
    chosen = np.array(pairs, dtype=np.int64)
    images, labels, _ = once(chosen[:, 0], chosen[:, 1], len(label_names))
    source = f"{root.name}: a folder with {number_of(len(folders), 'sub-folder')}, one for each label."
    annotators = np.ones(len(paths), dtype=np.int64)
    return LabelledPaths(root, paths, annotators, images, labels, label_names, source, notes=notes)


def _check_nested(root: Path, folder: Path) -> None:
    for _, _, files in os.walk(folder):
        if any(is_image(Path(name)) for name in files):
            raise LabelFileError(
                f"{root} must have one level of sub-folders, one for each label, but {folder} contains images. Pass "
                f"{folder.parent} if its sub-folders are the labels, or move the images."
            )


def _is_same(first: Path, second: Path) -> bool:
    try:
        return first.samefile(second) or filecmp.cmp(first, second, shallow=False)
    except FileNotFoundError:  # a link to a file that does not exist, which is an image that cannot be read
        return False
