"""Read a CSV file into a table of codes, one for each distinct text, with the line of each record for messages."""

from __future__ import annotations

import csv
import functools
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mlmetric.data._label_text import IMAGE_SUFFIXES, LabelFileError, quote, read_file

Integers: TypeAlias = npt.NDArray[np.int64]
DELIMITERS = (",", ";", "\t")
UNNAMED = re.compile(r"|Unnamed: \d+")  # the name that pandas gives to a column without one
_NOT_UTF8 = re.compile("[\udc80-\udcff]")
_CELLS_AT_A_TIME = 1_000_000
_SNIFFED_RECORDS = 20


class _Codes(dict[str, int]):
    """The code of each text: 0 for the first, 1 for the next one that differs from it."""

    def __missing__(self, text: str) -> int:
        code = self[text] = len(self)
        return code


@dataclass(frozen=True)
class Table:
    """The records of a CSV file.

    Attributes:
        path: The file.
        delimiter: The character between the fields.
        header: The names of C columns.
        header_line: The line of the header.
        lines: The line in which each of N records begins, shape `(N,)`.
        codes: For each column and record the index of its text, int32, shape `(C, N)`.
        texts: The distinct texts.
    """

    path: Path
    delimiter: str
    header: list[str]
    header_line: int
    lines: Integers
    codes: npt.NDArray[np.int32]
    texts: list[str]

    def text(self, column: int, row: int) -> str:
        """Return the text of a field."""
        return self.texts[int(self.codes[column, row])]

    def place(self, row: int) -> str:
        """Return the file and the line of a record, for messages."""
        return f"{self.path}, line {self.lines[row]}"

    def distinct(self, column: int) -> tuple[Integers, Integers]:
        """Return the distinct codes of a column and the first row of each, in the order of these rows."""
        first = np.full(len(self.texts), -1, dtype=np.int64)
        first[self.codes[column, ::-1]] = np.arange(len(self.lines))[::-1]  # the last assignment counts
        codes = np.flatnonzero(first >= 0)
        order = np.argsort(first[codes])
        return codes[order], first[codes[order]]

    def find(self, name: str) -> int:
        """Return the index of a column.

        Raises:
            LabelFileError: If no column, or more than one, has this name.
        """
        if self.header.count(name) > 1:
            raise LabelFileError(f"{self.path}, line {self.header_line} has two columns {quote(name)}.")
        if name not in self.header:
            raise LabelFileError(f"{self.path} has no column {quote(name)}; it has {quote(self.header)}.")
        return self.header.index(name)

    def check_text(self, text: str, row: int) -> None:
        """Check a text that is a path or contains names of labels.

        Raises:
            LabelFileError: If it contains bytes that are not UTF-8, or a line break.
        """
        _check_text(text, self.path, int(self.lines[row]))


def read_table(path: Path, delimiter: str | None) -> Table:
    """Read a CSV file in UTF-8, whose header is the first line that is not blank.

    Args:
        path: The file. Bytes that are not UTF-8 become surrogate escapes.
        delimiter: The character between the fields; None to find it in the header.

    Returns:
        The table.

    Raises:
        FileNotFoundError: If the file does not exist.
        OSError: If it cannot be read.
        LabelFileError: If it is not a CSV file with a header and records with the same number of fields.
    """
    text = read_file(path, "CSV file").decode("utf-8-sig", "surrogateescape")
    if "\0" in text:
        line = next(number for number, line in enumerate(io.StringIO(text, newline=""), 1) if "\0" in line)
        raise LabelFileError(f"{path}, line {line} contains a NUL byte. Save the file as CSV in UTF-8.")
    delimiter = _find_delimiter(path, text) if delimiter is None else delimiter
    records = _records(path, text, delimiter)
    header_line, header = next(records, (1, []))
    header = [_check_header(name, path, header_line) for name in header]
    codes = _Codes()
    code_of = codes.__getitem__
    lines: list[int] = []
    chunks: list[npt.NDArray[np.int32]] = []
    while chunk := list(islice(records, max(1, _CELLS_AT_A_TIME // len(header)) if header else 1)):
        for line, fields in chunk:
            if len(fields) != len(header):
                raise LabelFileError(
                    f"{path}, line {line} must have {len(header)} fields like the header, separated by {delimiter!r}, "
                    f"got {len(fields)}. A field that contains {delimiter!r} must be quoted."
                )
            lines.append(line)
        cells = map(code_of, chain.from_iterable(fields for _, fields in chunk))
        chunks.append(np.fromiter(cells, np.int32, len(chunk) * len(header)).reshape(len(chunk), len(header)))
    if not chunks:
        raise LabelFileError(f"{path} must have a header and at least one line below it.")
    table = np.ascontiguousarray(np.concatenate(chunks).T)
    return Table(path, delimiter, header, header_line, np.array(lines, dtype=np.int64), table, list(codes))


def _records(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the records that are not blank, each with the line in which it begins."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    num_columns = 0
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise LabelFileError(
                f"{path}, line {line} cannot be read as CSV: {error}. Check for a quote that is not closed."
            ) from error
        if not any(map(str.strip, fields)):
            continue
        num_columns = num_columns or len(fields)
        if reader.line_num > line:
            _check_lines(fields, delimiter, num_columns, path, line)
        yield line, fields


def _check_lines(fields: list[str], delimiter: str, num_columns: int, path: Path, line: int) -> None:
    """Reject a field that contains whole records, as happens after an unclosed quote; allow other line breaks."""
    for field in fields:
        for inner in field.splitlines()[1:]:
            if num_columns > 1 and inner.count(delimiter) >= num_columns - 1:
                raise LabelFileError(
                    f"{path}, line {line} has a field that contains the record {quote(inner)}. Check for a quote that "
                    "is not closed."
                )


def _find_delimiter(path: Path, text: str) -> str:
    """Return the delimiter that divides the header, and the records below it into the same number of fields."""

    @functools.cache
    def widths(delimiter: str) -> list[int]:
        try:
            return [len(fields) for _, fields in islice(_records(path, text, delimiter), _SNIFFED_RECORDS)]
        except LabelFileError:
            return []

    found = [mark for mark in DELIMITERS if widths(mark)[:1] > [1]]
    if len(found) > 1:
        regular = [mark for mark in found if len(set(widths(mark))) == 1]
        if len(regular) != 1:
            raise LabelFileError(
                f"{path}: the header contains {' and '.join(map(repr, found))}. Pass the one between the fields as "
                "`delimiter`."
            )
        return regular[0]
    return found[0] if found else next((mark for mark in DELIMITERS if mark in _first_line(text)), ",")


def _first_line(text: str) -> str:
    return next((line for line in io.StringIO(text, newline="") if line.strip()), "")


def _check_header(name: str, path: Path, line: int) -> str:
    _check_text(name, path, line)
    if name.strip().lower().endswith(IMAGE_SUFFIXES):
        raise LabelFileError(f"{path}, line {line} must be a header, got the image {quote(name)}.")
    return name.strip()


def _check_text(text: str, path: Path, line: int) -> None:
    if byte := _NOT_UTF8.search(text):
        raise LabelFileError(
            f"{path} must be a CSV file in UTF-8, got: byte {ord(byte[0]) - 0xDC00:#x} in line {line}. Convert it."
        )
    if "\n" in text or "\r" in text:
        raise LabelFileError(
            f"{path}, line {line} has a field that continues in the next line: {quote(text)}. Check for a quote that "
            "is not closed."
        )
