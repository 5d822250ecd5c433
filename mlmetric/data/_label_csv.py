"""Read the labels of images from a CSV file: the role of each column, and the lines of one image as votes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mlmetric.data._label_cells import (
    cell_value,
    contains_values,
    has_spaces,
    read_names,
    read_values,
)
from mlmetric.data._label_table import UNNAMED, Integers, Table, read_table
from mlmetric.data._label_text import (
    IMAGE_SUFFIXES,
    ImagePaths,
    LabelFileError,
    label_name,
    listing,
    number_of,
    quote,
)
from mlmetric.data._labelled_paths import LabelledPaths

_WHOLE_NUMBER = re.compile(r"\d+")


@dataclass
class _Columns:
    """The columns of a file: the paths, the labels, whether the labels are names, and the parts."""

    paths: int
    labels: list[int]
    contain_names: bool
    guessed: bool
    parts: int | None = None
    notes: list[str] = field(default_factory=list)


def read_csv(
    path: Path,
    root: Path,
    *,
    path_column: str | None,
    label_columns: Sequence[str] | None,
    label_column: str | None,
    separator: str | None,
    delimiter: str | None,
    suffix: str | None,
    split_column: str | None,
    exclude_columns: Sequence[str],
) -> LabelledPaths:
    """Read a CSV file; the arguments are those of `read_image_labels`; `root` is the folder of the images."""
    table = read_table(path, delimiter)
    columns = _choose_columns(table, path_column, label_columns, label_column, split_column, exclude_columns)
    paths, images = _read_paths(table, columns.paths, ImagePaths(root, suffix))
    notes = columns.notes
    if columns.contain_names:
        (column,) = columns.labels
        rows, labels, label_names, form = read_names(table, column, separator)
        described = f"names of labels, {form}, in the column {quote(table.header[column])}"
        if form.startswith("one") and has_spaces(table, column):
            notes.append("Names contain spaces. If spaces separate names, pass `separator=' '`.")
    else:
        if separator is not None:
            raise LabelFileError(
                f"`separator` is for a column of label names, but {path} has a column for each label: "
                f"{listing(quote(table.header[column]) for column in columns.labels)}. Pass `label_column`, or omit it."
            )
        rows, labels = read_values(table, columns.labels, columns.guessed)
        label_names = [table.header[column] for column in columns.labels]
        described = f"a column for each of {number_of(len(label_names), 'label')}"
    parts = None if columns.parts is None else _read_parts(table, columns.parts, images)
    annotators = np.bincount(images, minlength=len(paths))
    repeated = int((annotators > 1).sum())
    if repeated:
        lines = int(annotators[annotators > 1].sum())
        notes.append(f"{number_of(repeated, 'image has', 'images have')} several lines ({lines:,}), counted as votes.")
    added = "" if suffix is None else f" and {suffix!r} added where it was missing"
    source = (
        f"{path.name}: {number_of(len(table.lines), 'line')}, fields separated by {table.delimiter!r}; paths in the "
        f"column {quote(table.header[columns.paths])}{added}; {described}."
    )
    return LabelledPaths(root, paths, annotators, images[rows], labels, label_names, source, parts, notes)


def _choose_columns(
    table: Table,
    path_column: str | None,
    label_columns: Sequence[str] | None,
    label_column: str | None,
    split_column: str | None,
    exclude_columns: Sequence[str],
) -> _Columns:
    """Decide what each column contains: by the arguments, otherwise by the contents of the columns."""
    excluded = [table.find(name) for name in exclude_columns]
    named = [*([] if label_column is None else [label_column]), *(label_columns or ())]
    labels = [table.find(name) for name in named]
    parts = None if split_column is None else table.find(split_column)
    chosen = [*labels, *([] if parts is None else [parts])]
    if path_column is not None:
        chosen.append(table.find(path_column))
    if twice := next((column for column in chosen if (chosen + excluded).count(column) > 1), None):
        raise LabelFileError(f"The column {quote(table.header[twice])} of {table.path} was passed for two purposes.")
    notes = [f"Columns left out: {listing(map(quote, exclude_columns))} (`exclude_columns`)."] * bool(excluded)
    unnamed = [column for column, name in enumerate(table.header) if UNNAMED.fullmatch(name)]
    unnamed = [column for column in unnamed if column not in [*excluded, *chosen]]
    notes += [_describe_unnamed(table, column) for column in unnamed]
    left = [column for column in range(len(table.header)) if column not in [*excluded, *unnamed, *chosen]]
    _check_header(table, [column for column in range(len(table.header)) if column not in unnamed])
    if path_column is None:
        if not left:
            raise LabelFileError(f"{table.path} has no column of paths; its columns are {quote(table.header)}.")
        paths = _find_paths(table, left)
        left.remove(paths)
    else:
        paths = table.find(path_column)
    if labels:
        if left:
            notes.append(f"Columns not read: {listing(quote(table.header[column]) for column in left)}.")
        names, guessed = label_column is not None, False
    else:
        if not left:
            raise LabelFileError(
                f"{table.path} contains no label: it must have a column of labels in addition to the paths, "
                f"but with the delimiter {table.delimiter!r} its columns are {quote(table.header)}."
            )
        labels, guessed = left, True
        names = len(left) == 1 and _contains_names(table, left[0])
    if not names:
        for column in labels:
            label_name(table.header[column], f"{table.path}, line {table.header_line}: column {column + 1}")
    return _Columns(paths, labels, names, guessed, parts, notes)


def _check_header(table: Table, columns: Sequence[int]) -> None:
    names = [table.header[column] for column in columns]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise LabelFileError(
            f"{table.path}, line {table.header_line} has two columns {quote(repeated)}. Rename or remove one, or add "
            "the header if it is missing."
        )


def _describe_unnamed(table: Table, column: int) -> str:
    """Describe a column without a name that is the index of a data frame or empty, which is left out."""
    codes, first_rows = table.distinct(column)
    texts = [table.texts[code].strip() for code in codes]
    if texts == [""]:
        return f"Column {column + 1} left out: it has no name and is empty."
    numbers = all(map(_WHOLE_NUMBER.fullmatch, texts))
    if numbers and (len(texts) == len(table.lines) or not set(texts) <= {"0", "1"}):
        return f"Column {column + 1} left out: it has no name and contains row numbers."
    wrong = next((row for row, text in zip(first_rows, texts, strict=True) if not _WHOLE_NUMBER.fullmatch(text)), 0)
    raise LabelFileError(
        f"{table.path}, line {table.header_line}: column {column + 1} has no name, and contains no row numbers but "
        f"{quote(table.text(column, int(wrong)))} in line {table.lines[wrong]}. Give it a name, pass "
        f"`path_column={table.header[column]!r}` if it contains the paths, or leave it out with "
        f"`exclude_columns=[{table.header[column]!r}]`."
    )


def _find_paths(table: Table, columns: Sequence[int]) -> int:
    """Return the only column whose texts all end like the name of an image file, otherwise the first column."""
    images = [column for column in columns if _contains_images(table, column)]
    if len(images) > 1 and columns[0] not in images:
        raise LabelFileError(
            f"{table.path} has several columns of image files: "
            f"{listing(quote(table.header[column]) for column in images)}. Pass one as `path_column`."
        )
    column = images[0] if images else columns[0]
    texts = [table.texts[code] for code in table.distinct(column)[0]]
    if contains_values(table, column):
        raise LabelFileError(
            f"{table.path}: the first column, {quote(table.header[column])}, contains {listing(map(quote, texts))}, "
            "which may be a label. Pass the column of the paths as `path_column`."
        )
    return column


def _contains_images(table: Table, column: int) -> bool:
    if not table.text(column, 0).strip().lower().endswith(IMAGE_SUFFIXES):
        return False
    return all(table.texts[code].strip().lower().endswith(IMAGE_SUFFIXES) for code in table.distinct(column)[0])


def _contains_names(table: Table, column: int) -> bool:
    """Return whether the only remaining column contains names rather than the values of one label."""
    if contains_values(table, column):
        return False
    return any(cell_value(table.texts[code]) not in (-1, 0, 1) for code in table.distinct(column)[0])


def _read_paths(table: Table, column: int, folder: ImagePaths) -> tuple[list[str], Integers]:
    """Return the distinct paths in the order of the file, and the index of the path of each record."""
    codes, first_rows = table.distinct(column)
    row_of_path: dict[str, int] = {}
    for code, row in zip(codes.tolist(), first_rows.tolist(), strict=True):
        text = table.texts[code]
        path = folder.normalise(text, f"{table.place(row)}: the path {quote(text)}")
        if not (text.isascii() and text.isprintable()) and not (folder.root / path).exists():
            table.check_text(text, row)  # the name of a file can contain any bytes
        earlier = row_of_path.setdefault(path, row)
        if earlier != row:
            raise LabelFileError(
                f"{table.place(row)}: the path {quote(text)} is another spelling of "
                f"{quote(table.text(column, earlier))} in line {table.lines[earlier]}. Write a path in the same way in "
                "all lines; if they are not the answers of several annotators, remove one."
            )
    image_of_code = np.empty(len(table.texts), dtype=np.int64)
    image_of_code[codes] = np.arange(len(codes))
    return list(row_of_path), image_of_code[table.codes[column]]


def _read_parts(table: Table, column: int, images: Integers) -> dict[str, Integers]:
    """Return the images of each part, in the order of the file."""
    codes, first_rows = table.distinct(column)
    names = [table.texts[code].strip() for code in codes]
    if "" in names:
        row = int(first_rows[names.index("")])
        raise LabelFileError(f"{table.place(row)}: {quote(table.header[column])} must name a part, but is empty.")
    parts = list(dict.fromkeys(names))
    numbers = {name: part for part, name in enumerate(parts)}
    part_of_code = np.empty(len(table.texts), dtype=np.int64)
    part_of_code[codes] = [numbers[name] for name in names]
    part_of_row = part_of_code[table.codes[column]]
    _, first_row_of_image = np.unique(images, return_index=True)
    differs = part_of_row != part_of_row[first_row_of_image[images]]
    if differs.any():
        row = int(differs.argmax())
        first = int(first_row_of_image[images[row]])
        raise LabelFileError(
            f"{table.place(row)}: the image is in the part {quote(parts[part_of_row[row]])}, but in "
            f"{quote(parts[part_of_row[first]])} in line {table.lines[first]}. All lines of an image must be in one "
            "part."
        )
    part_of_image = part_of_row[first_row_of_image]
    return {name: np.flatnonzero(part_of_image == part) for part, name in enumerate(parts)}
