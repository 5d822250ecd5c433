"""Read a file of the texts of images: JSON in the format of the Pittsburgh Ads slogans, or a CSV file.

The JSON file is `{"0/49380.jpg": ["I should buy it because it tastes good.", ...], ...}`: for each image path, relative
to the image folder, a text, a list of texts, or null. The CSV file has a column of paths and a column of texts; several
lines of an image are several texts.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .user_files import AnnotationError, image_path, quote, read_file

_PATH_COLUMNS = ("path", "image", "file", "filename")
_TEXT_COLUMNS = ("text",)
_DELIMITERS = ",;\t"
_EXAMPLE = '{"0/49380.jpg": ["Drink milk", "Milk is good"]}'


def read_texts(path: Path, root: Path, *, suffix: str | None = None) -> dict[str, list[str]]:
    """Read the texts of images; texts under different spellings of a path belong to one image.

    Args:
        path: The file, in UTF-8; it is JSON if its name ends in .json, otherwise CSV, with fields separated by commas,
            semicolons or tabs. The columns are found by their names: path, image, file or filename; and text.
        root: The folder of the images. Absolute paths in it are read as relative ones.
        suffix: An extension to append to paths that do not end with it; None to append nothing.

    Returns:
        The texts of each image, without blank ones, by its normalised path; an empty list if it has no text. It is not
        checked whether the images exist.

    Raises:
        FileNotFoundError: If the file does not exist.
        OSError: If it cannot be read.
        AnnotationError: If it does not have one of these formats; the message names the line or the image.
    """
    content = read_file(path, "file of texts")
    try:
        decoded = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise AnnotationError(f"{path} must be in UTF-8, got: {error}. Save it in UTF-8.") from error
    entries = _json_entries(path, decoded) if path.suffix.lower() == ".json" else _csv_entries(path, decoded)
    folder = root.absolute()
    texts: dict[str, list[str]] = {}
    for written, values, place in entries:
        spelling = Path(written)
        relative = spelling.relative_to(folder).as_posix() if spelling.is_relative_to(folder) else written
        image = image_path(relative, place)
        if suffix and not image.lower().endswith(suffix.lower()):
            image += suffix
        texts.setdefault(image, []).extend(text for text in values if text.strip())
    return texts


def _json_entries(path: Path, content: str) -> Iterator[tuple[str, list[str], str]]:
    """Return the path, the texts and the place of each entry; an image can occur several times."""
    try:
        # Objects become tuples of pairs, which keep a key that occurs twice.
        entries = json.loads(content, object_pairs_hook=tuple)
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"{path} must be JSON in UTF-8, such as {_EXAMPLE}, got: {error}.") from error
    if not isinstance(entries, tuple):
        raise AnnotationError(f"{path} must contain an object of image paths, such as {_EXAMPLE}, got no object.")
    for written, value in entries:
        place = f"{path}, image {quote(written)}"
        values: Any = [] if value is None else [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not all(isinstance(text, str) for text in values):
            raise AnnotationError(
                f"{place} must have a text, a list of texts or null, got {quote(value)}. Correct or remove the entry."
            )
        yield written, values, place


def _csv_entries(path: Path, content: str) -> Iterator[tuple[str, list[str], str]]:
    """Return the path, the text and the place of each line."""
    header_line = content.split("\n", 1)[0]
    delimiter = max(_DELIMITERS, key=header_line.count)
    lines = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    try:
        header = [name.strip() for name in next(lines, [])]
        paths, texts = (_find_column(path, header, names) for names in (_PATH_COLUMNS, _TEXT_COLUMNS))
        start = lines.line_num + 1
        for fields in lines:
            place, start = f"{path}, line {start}", lines.line_num + 1
            if not fields:
                continue
            if len(fields) != len(header):
                raise AnnotationError(
                    f"{place} must have {len(header)} fields like the header, separated by {delimiter!r}, got "
                    f"{len(fields)}. Put a text that contains {delimiter!r} into double quotes."
                )
            yield fields[paths].strip(), [fields[texts]], f"{place}: the path {quote(fields[paths])}"
    except csv.Error as error:
        raise AnnotationError(f"{path}, line {lines.line_num} is not valid CSV: {error}. Correct the line.") from error


def _find_column(path: Path, header: list[str], names: tuple[str, ...]) -> int:
    found = [column for column, name in enumerate(header) if name.lower() in names]
    if len(found) != 1:
        raise AnnotationError(
            f"{path} must have one column named {' or '.join(names)}, got {len(found)}; its columns are "
            f"{quote(header)}. Rename a column, or pass a JSON file, whose name ends in .json."
        )
    return found[0]
