"""Read the labels of images from instance annotations in the format of COCO."""

from __future__ import annotations

import json
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np

from mlmetric.data._label_text import ImagePaths, LabelFileError, label_name, listing, number_of, quote, read_file
from mlmetric.data._labelled_paths import LabelledPaths, once

_KEYS = ("images", "annotations", "categories")


def read_coco(path: Path, root: Path) -> LabelledPaths:
    """Read which categories occur in each image.

    An image has a label if it has an annotation of this category; annotations of crowds (`iscrowd`) count. Images
    without annotations have no label.

    Args:
        path: A JSON file with the keys `images`, `annotations` and `categories`.
        root: The folder that `file_name` is relative to.

    Returns:
        The images and the categories in the order of the file.

    Raises:
        FileNotFoundError: If the file does not exist.
        OSError: If it cannot be read.
        LabelFileError: If it does not have this format; the message names the id.
    """
    content = _read_json(path)
    folder = ImagePaths(root)
    id_of_path: dict[str, Any] = {}
    for position, image in enumerate(content["images"]):
        name = _value(path, "images", position, image, "file_name", str)
        file = folder.normalise(name, f"{path}: `file_name` {quote(name)} of the image {quote(image.get('id'))}")
        key = _value(path, "images", position, image, "id", int | str)
        if file in id_of_path:
            raise LabelFileError(
                f"{path}: the images {quote(id_of_path[file])} and {quote(key)} have the same `file_name`, "
                f"{quote(name)}."
            )
        id_of_path[file] = key
    id_of_name: dict[str, Any] = {}
    for position, category in enumerate(content["categories"]):
        key = _value(path, "categories", position, category, "id", int | str)
        name = label_name(
            _value(path, "categories", position, category, "name", str), f"{path}: `name` of the category {quote(key)}"
        )
        if name in id_of_name:
            raise LabelFileError(
                f"{path}: the categories {quote(id_of_name[name])} and {quote(key)} have the same name, {quote(name)}."
            )
        id_of_name[name] = key
    image_of_id = _index(path, "images", list(id_of_path.values()))
    label_of_id = _index(path, "categories", list(id_of_name.values()))
    pairs = np.empty((len(content["annotations"]), 2), dtype=np.int64)
    for position, annotation in enumerate(content["annotations"]):
        try:
            pairs[position] = image_of_id[annotation["image_id"]], label_of_id[annotation["category_id"]]
        except (KeyError, TypeError):
            raise _unknown_id(path, position, annotation, image_of_id) from None
    images, labels, _ = once(pairs[:, 0], pairs[:, 1], len(id_of_name))
    source = (
        f"{path.name}: instance annotations in the format of COCO, {number_of(len(pairs), 'annotation')} of "
        f"{number_of(len(id_of_name), 'category', 'categories')}, those of crowds included."
    )
    annotators = np.ones(len(id_of_path), dtype=np.int64)
    return LabelledPaths(root, list(id_of_path), annotators, images, labels, list(id_of_name), source)


def _read_json(path: Path) -> dict[str, list[Any]]:
    data = read_file(path, "JSON file")
    try:
        content = json.loads(data.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise LabelFileError(f"{path}, line {error.lineno} cannot be read as JSON: {error.msg}.") from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise LabelFileError(
            f"{path} must be a JSON file in UTF-8, got: byte {data[error.start]:#x} in line {line}."
        ) from error
    except (RecursionError, ValueError) as error:
        raise LabelFileError(f"{path} cannot be read as JSON: {error}.") from error
    if not isinstance(content, dict):
        raise LabelFileError(
            f"{path} must contain an object with the keys {listing(_KEYS)}, like the instance annotations of COCO, got "
            f"a {type(content).__name__}."
        )
    for key in _KEYS:
        if not isinstance(content.get(key), list):
            found = f"its keys are {listing(map(quote, content))}" if key not in content else "it is not a list"
            raise LabelFileError(
                f"{path} must have a list {key!r}, like the instance annotations of COCO, but {found}. COCO's files of "
                "captions and of results contain no labels."
            )
    return content


def _value(path: Path, group: str, position: int, entry: Any, key: str, kind: Any) -> Any:
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        named = f" (id {quote(entry['id'])})" if isinstance(entry, dict) and "id" in entry and key != "id" else ""
        raise LabelFileError(
            f"{path}: `{group}[{position}]`{named} must be an object with the key {key!r}, "
            f"{'a text' if kind is str else 'a number or a text'}, got {quote(entry)}."
        )
    return value


def _index(path: Path, group: str, ids: list[Any]) -> dict[Hashable, int]:
    index: dict[Hashable, int] = {}
    for position, key in enumerate(ids):
        if index.setdefault(key, position) != position:
            raise LabelFileError(f"{path}: the id {quote(key)} occurs twice in `{group}`.")
    return index


def _unknown_id(path: Path, position: int, annotation: Any, image_of_id: dict[Hashable, int]) -> LabelFileError:
    """Describe the id of an annotation that is not in the file."""
    key, group = "image_id", "images"
    value = _value(path, "annotations", position, annotation, key, int | str)
    if value in image_of_id:
        key, group = "category_id", "categories"
        value = _value(path, "annotations", position, annotation, key, int | str)
    named = f" (id {quote(annotation['id'])})" if "id" in annotation else ""
    return LabelFileError(
        f"{path}: `annotations[{position}]`{named} has the {key} {quote(value)}, which is not in `{group}`."
    )
