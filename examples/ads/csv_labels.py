"""Read the labels of images from a CSV file with a column for each label, or a column of label names."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import torch

from mlmetric.labels import votes_to_labels

from .labelled_images import LabelledImages
from .reader import IMAGE_SUFFIXES
from .user_files import AnnotationError, image_path, label_name, quote, read_file, shorten

__all__ = ["read_csv_labels"]

_NOT_UTF8 = re.compile("[\udc80-\udcff]")
_UNNAMED = re.compile(r"|Unnamed: \d+")  # the name that pandas gives to a column without one
# A Python or JSON list, or quotes that are not CSV quotes.
_LIST = re.compile(r"""\s*("|'.*'\s*$|\[.*,.*\]\s*$|\{.*,.*\}\s*$|[\[({]\s*(['"]|\d+\s*[,\])}]|[\])}]))""", re.DOTALL)


def read_csv_labels(
    path: Path,
    images: Path,
    *,
    path_column: str | None = None,
    label_column: str | None = None,
    separator: str | None = None,
    min_votes: int = 1,
) -> LabelledImages:
    """Read a CSV file of image paths and labels.

    The first line that is not blank is the header. The delimiter is the comma; if the header contains no comma, the
    semicolon; if it contains neither, the tab. Each line is the answer of one annotator: several lines with the same
    image, including different spellings of its path such as `./1.jpg` and `1.jpg`, are its votes.

    Args:
        path: The file, in UTF-8; image paths may contain other bytes if the names of the image files do.
        images: The folder that image paths are relative to.
        path_column: The column of image paths; by default the first.
        label_column: A column of label names; by default every column except that of the paths is a label, 0 or 1.
        separator: The separator of the names in `label_column`, at least one character; by default `|`.
        min_votes: The number of votes that a label requires: 1 for the union over the lines of an image, 2 for
            agreement.

    Returns:
        The images in the order of the file, including those without labels. Names from `label_column` are sorted.

    Raises:
        FileNotFoundError: If the file does not exist.
        OSError: If it cannot be read.
        AnnotationError: If it does not have this format; the message gives the line in which the record begins.
        ValueError: If `min_votes` is below 1.
    """
    (header_line, header), *records = _read_records(path)
    path_index, label_indices = _choose_columns(path, header_line, header, path_column, label_column)
    votes: dict[str, list[str]] = {}
    for line, fields in records:
        names = votes.setdefault(_image(fields[path_index], images, path, line), [])
        if label_column is None:
            names += [header[index] for index in label_indices if _is_one(fields[index], header[index], path, line)]
        else:
            names += _names(fields[label_indices[0]], "|" if separator is None else separator, path, line)
    if label_column is None:
        label_names = [header[index] for index in label_indices]
    else:
        label_names = sorted(set().union(*votes.values()))
        if separator is None:
            _check_default_separator([(line, fields[label_indices[0]]) for line, fields in records], path)

    columns = {name: column for column, name in enumerate(label_names)}
    chosen = [torch.tensor([columns[name] for name in names], dtype=torch.int64) for names in votes.values()]
    counts = torch.stack([torch.bincount(row, minlength=len(columns)).int() for row in chosen])
    labels = votes_to_labels(counts, min_votes=min_votes)
    if not label_names or not labels.any():
        raise AnnotationError(f"{path} contains no label: no image has one with --min-votes {min_votes}.")
    repeated = len(records) - len(votes)
    note = f"Lines with the image of an earlier line: {repeated}. They count as votes (--min-votes {min_votes})."
    return LabelledImages(str(images), images, list(votes), labels, labels, label_names, notes=[note] * bool(repeated))


def _read_records(path: Path) -> list[tuple[int, list[str]]]:
    """Return the header and the other records that are not blank, each with the line in which it begins."""
    text = read_file(path, "CSV file").decode("utf-8-sig", "surrogateescape")
    first = next((line for line in io.StringIO(text, newline="") if line.strip()), "")
    delimiter = next((mark for mark in ",;\t" if mark in first), ",")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    records: list[tuple[int, list[str]]] = []
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            raise AnnotationError(
                f"{path}, line {line} cannot be read as CSV: {error}. Check for a quote that is not closed."
            ) from error
        if not any(field.strip() for field in fields):
            continue
        if any("\0" in field for field in fields):
            raise AnnotationError(f"{path}, line {line} contains a NUL byte. Save the file as CSV in UTF-8.")
        _check_lines(fields, delimiter, len(records[0][1]) if records else len(fields), path, line)
        if not records:
            fields = [_check_text(name, path, line).strip() for name in fields]
        elif len(fields) != len(records[0][1]):
            raise AnnotationError(
                f"{path}, line {line} must have {len(records[0][1])} fields like the header, separated by "
                f"{delimiter!r}, got {len(fields)}. A field that contains {delimiter!r} must be quoted."
            )
        records.append((line, fields))
    if len(records) < 2:
        raise AnnotationError(f"{path} must have a header and at least one line below it.")
    return records


def _check_lines(fields: list[str], delimiter: str, num_columns: int, path: Path, line: int) -> None:
    """Reject a field that contains whole records, as after a quote that is not closed; allow other line breaks."""
    for field in fields:
        for inner in field.splitlines()[1:]:
            if num_columns > 1 and inner.count(delimiter) >= num_columns - 1:
                raise AnnotationError(
                    f"{path}, line {line} has a field that contains the record {quote(inner)}. Check for a quote that "
                    "is not closed."
                )


def _choose_columns(
    path: Path, line: int, header: list[str], path_column: str | None, label_column: str | None
) -> tuple[int, list[int]]:
    """Return the index of the column of paths and the indices of the columns of labels."""
    for column in (path_column, label_column):
        if column is not None and column not in header:
            raise AnnotationError(f"{path} has no column {quote(column)}; it has {shorten(', '.join(header))}.")
    path_index = 0 if path_column is None else header.index(path_column)
    if label_column is None:
        label_indices = [index for index in range(len(header)) if index != path_index]
    else:
        label_indices = [header.index(label_column)]
    if label_indices in ([], [path_index]):
        raise AnnotationError(
            f"{path} contains no label: it must have a column of labels in addition to that of the paths."
        )
    for index in sorted([path_index] * (path_column is None) + label_indices * (label_column is None)):
        if _UNNAMED.fullmatch(header[index]):
            raise AnnotationError(
                f"{path}, line {line}: column {index + 1} has no name, like an index written by pandas. Remove it (in "
                "pandas, write with index=False), or pass --path-column and --label-column."
            )
        if index != path_index:
            label_name(header[index], f"{path}, line {line}: the name of column {index + 1}")
        elif header[index].lower().endswith(IMAGE_SUFFIXES):
            raise AnnotationError(f"{path}, line {line} must be a header, got the image {quote(header[index])}.")
    for index in (path_index, *label_indices):
        if header.count(header[index]) > 1:
            raise AnnotationError(f"{path}, line {line} has two columns {quote(header[index])}. Rename or remove one.")
    return path_index, label_indices


def _check_text(text: str, path: Path, line: int) -> str:
    if byte := _NOT_UTF8.search(text):
        raise AnnotationError(
            f"{path} must be a CSV file in UTF-8, got: byte {ord(byte[0]) - 0xDC00:#x} in line {line}. Convert it."
        )
    if "\n" in text or "\r" in text:
        raise AnnotationError(
            f"{path}, line {line} has a field that continues in the next line: {quote(text)}. Check for a quote that "
            "is not closed."
        )
    return text


def _image(text: str, images: Path, path: Path, line: int) -> str:
    image = image_path(text, f"{path}, line {line}: the path {quote(text)}", str(images))
    try:
        _check_text(text, path, line)
    except AnnotationError:
        if not (images / image).exists():  # the name of a file can contain any bytes
            raise
    return image


def _is_one(text: str, name: str, path: Path, line: int) -> bool:
    if text.strip() not in {"0", "1"}:
        raise AnnotationError(
            f"{path}, line {line}: {quote(name)} must be 0 or 1, got {quote(text)}. For a column of label names, pass "
            "--label-column."
        )
    return text.strip() == "1"


def _names(text: str, separator: str, path: Path, line: int) -> set[str]:
    if _LIST.match(_check_text(text, path, line)):
        raise AnnotationError(
            f"{path}, line {line} must have names separated by {separator!r}, without brackets and quotes, got "
            f"{quote(text)}. In pandas, frame[column].str.join({separator!r}) converts lists to this format."
        )
    return {label_name(name, f"{path}, line {line}: a name") for name in text.split(separator) if name.strip()}


def _check_default_separator(cells: list[tuple[int, str]], path: Path) -> None:
    if any("|" in text for _, text in cells):
        return
    for line, text in cells:
        if mark := next((mark for mark in ",;" if mark in text), None):
            raise AnnotationError(
                f"{path}, line {line}: no line contains the default separator '|', got {quote(text)}. Pass "
                f"--separator '{mark}', or --separator '|' if this is a single name."
            )
