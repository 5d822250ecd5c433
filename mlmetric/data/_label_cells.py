"""The values of the cells of a CSV file: 0 or 1 in a column for each label, or names in one column."""

from __future__ import annotations

import ast
import json
import re
import unicodedata
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from mlmetric.data._label_table import Integers, Table
from mlmetric.data._label_text import LabelFileError, label_name, listing, quote

SEPARATORS = ("|", ",", ";", "\t")
_NUMBER = re.compile(r"([+-]?)([01])(?:\.0*)?")
_EMPTY, _OTHER = 2, 3  # in place of the values of labels, -1, 0 and 1

_ITEM = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|-?\d+)"""
_LIST = re.compile(rf"[\[({{]\s*(?:{_ITEM}\s*(?:,\s*{_ITEM}\s*)*,?\s*)?[\])}}]", re.DOTALL)
_BRACKETS = {"[": "]", "(": ")", "{": "}"}
# Quotes or brackets of a list in a cell that is read as separated names.
_MARKUP = re.compile(r"""\s*("|'.*'\s*$|\[.*,.*\]\s*$|\{.*,.*\}\s*$|[\[({]\s*(['"]|\d+\s*[,\])}]|[\])}]))""", re.DOTALL)


def cell_value(text: str) -> int:
    """Return 1, 0 or -1 for a cell of a column of one label, `_EMPTY` if it is blank and `_OTHER` for anything else."""
    text = text.strip()
    if text.lower() in ("true", "false"):
        return int(text.lower() == "true")
    if number := _NUMBER.fullmatch(text):
        return -int(number[2]) if number[1] == "-" else int(number[2])
    return _OTHER if text else _EMPTY


def contains_values(table: Table, column: int) -> bool:
    """Return whether all cells of a column are values of a label or empty, and one is not empty."""
    found = {cell_value(table.texts[code]) for code in table.distinct(column)[0]}
    return _OTHER not in found and found != {_EMPTY}


def read_values(table: Table, columns: Sequence[int], guessed: bool) -> tuple[Integers, Integers]:
    """Read a column for each label.

    Args:
        table: The file.
        columns: The columns of the labels.
        guessed: Whether these are all remaining columns rather than columns that were passed; for messages.

    Returns:
        The row in `table` and the position in `columns` of each label that is present, shape `(P,)` each.

    Raises:
        LabelFileError: If a cell is neither 0 nor 1, neither True nor False and neither -1 nor 1, or if the cells
            contain both 0 and -1.
    """
    codes = table.codes[columns]
    values = np.full(len(table.texts), _OTHER, dtype=np.int8)
    occurs = np.zeros(len(table.texts), dtype=bool)
    occurs[codes] = True
    for code in np.flatnonzero(occurs):
        values[code] = cell_value(table.texts[code])
    cells = values[codes]
    wrong = (cells >= _EMPTY).any(axis=0)
    if wrong.any():
        row = int(wrong.argmax())
        column = int((cells[:, row] >= _EMPTY).argmax())
        raise LabelFileError(_wrong_value(table, columns[column], row, bool(cells[column, row] == _EMPTY), guessed))
    if (cells == -1).any() and (cells == 0).any():
        (absent, first), (zero, other) = (np.argwhere((cells == value).T)[0] for value in (-1, 0))
        raise LabelFileError(
            f"{table.path} contains both -1 (line {table.lines[absent]}, {quote(table.header[columns[first]])}) and 0 "
            f"(line {table.lines[zero]}, {quote(table.header[columns[other]])}), one of which may mean that a label is "
            "unknown. Write 1 for each label that is present, and either 0 or -1 for all others."
        )
    columns_of, rows = np.nonzero(cells == 1)
    return rows, columns_of


def _wrong_value(table: Table, column: int, row: int, is_empty: bool, guessed: bool) -> str:
    name = table.header[column]
    if is_empty:
        advice = "Write 0 if the label is absent (in pandas, `frame.fillna(0)`)."
        got = "is empty"
    else:
        advice = "Correct it."
        got = f"must be 0 or 1, True or False, or -1 or 1, got {quote(table.text(column, row))}"
    if guessed:
        advice += f" If the column is not a label, leave it out with `exclude_columns=[{quote(name)}]`"
        distinct, _ = table.distinct(column)
        if 1 < len(distinct) <= 8:
            advice += f", or, if it names the parts of a split, pass `split_column={quote(name)}`"
        advice += f". If it contains names of labels, pass `label_column={quote(name)}`."
    return f"{table.place(row)}: {quote(name)} {got}. {advice}"


def read_names(table: Table, column: int, separator: str | None) -> tuple[Integers, Integers, list[str], str]:
    """Read a column of label names.

    Args:
        table: The file.
        column: The column.
        separator: The text between names; None to find it, or lists, in the column.

    Returns:
        The row in `table` and the label of each label that is present, shape `(P,)` each; the names of the labels,
        sorted; and a description of the format of the cells.

    Raises:
        LabelFileError: If a cell is not a list of names, or names separated by `separator`; if `separator` is None and
            the cells contain several of `SEPARATORS`.
    """
    codes, first_rows = table.distinct(column)
    cells = [(row, table.texts[code]) for code, row in zip(codes.tolist(), first_rows.tolist(), strict=True)]
    for row, text in cells:
        table.check_text(text, row)
    if separator is None and any(_is_bracketed(text) for _, text in cells):
        texts_of_cells = list(_read_lists(table, cells))
        form = "as lists"
    else:
        separator = _find_separator(table, column, cells) if separator is None else separator
        texts_of_cells = [_split(table, row, text, separator) for row, text in cells]
        form = f"separated by {separator!r}" if separator else "one in each line"
    names: dict[str, str] = {}
    for (row, text), texts in zip(cells, texts_of_cells, strict=True):
        for name in texts:
            if name not in names:
                names[name] = label_name(name, f"{table.place(row)}: a name in {quote(text)}")
    label_names = sorted(set(names.values()))
    numbers = {name: label for label, name in enumerate(label_names)}
    label_of = {text: numbers[name] for text, name in names.items()}
    labels_of_codes = [list({label_of[name] for name in texts}) for texts in texts_of_cells]
    rows, columns = _expand(table, column, codes, labels_of_codes)
    return rows, columns, label_names, form


def _expand(table: Table, column: int, codes: Integers, labels_of_codes: list[list[int]]) -> tuple[Integers, Integers]:
    """Return the row and the label of each label that is present, given the labels of each distinct cell."""
    cell_of_code = np.empty(len(table.texts), dtype=np.int64)
    cell_of_code[codes] = np.arange(len(codes))
    cells = cell_of_code[table.codes[column]]
    sizes = np.array([len(labels) for labels in labels_of_codes], dtype=np.int64)
    flat = np.array([label for labels in labels_of_codes for label in labels], dtype=np.int64)
    counts = sizes[cells]
    starts = (np.cumsum(sizes) - sizes)[cells] - (np.cumsum(counts) - counts)
    rows = np.repeat(np.arange(len(cells)), counts)
    return rows, flat[np.repeat(starts, counts) + np.arange(len(rows))]


def _is_bracketed(text: str) -> bool:
    text = text.strip()
    return text[:1] in _BRACKETS and text[-1:] == _BRACKETS[text[:1]]


def _read_lists(table: Table, cells: list[tuple[int, str]]) -> Iterator[list[str]]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", SyntaxWarning)  # an escape that Python does not know
        for row, text in cells:
            yield [] if not text.strip() else _read_list(table, row, text.strip())


def _read_list(table: Table, row: int, text: str) -> list[str]:
    values: object = None
    if _LIST.fullmatch(text):  # unlike Python, which joins the strings of ['a' 'b'], as numpy writes an array
        try:
            values = json.loads(text)
        except ValueError:
            try:
                values = ast.literal_eval(text)
            except (SyntaxError, ValueError):
                values = None
    if not isinstance(values, list | tuple | set):
        raise LabelFileError(
            f"{table.place(row)} must have a list of names like the other lines, as Python or JSON writes it "
            f"(['sea', 'sky'] or [\"sea\", \"sky\"]), got {quote(text)}. If brackets are part of names, pass "
            "`separator`."
        )
    return list(map(str, values))


def _find_separator(table: Table, column: int, cells: list[tuple[int, str]]) -> str:
    """Return the only one of the usual separators that occurs in a column; an empty text if there is none."""
    found = [mark for mark in SEPARATORS if any(mark in text.strip() for _, text in cells)]
    if len(found) > 1:
        lines = [
            f"{mark!r} (line {next(table.lines[row] for row, text in cells if mark in text.strip())})" for mark in found
        ]
        raise LabelFileError(
            f"{table.path}: the names in {quote(table.header[column])} contain {listing(lines)}. Pass the one between "
            "names as `separator`."
        )
    return found[0] if found else ""


def _split(table: Table, row: int, text: str, separator: str) -> list[str]:
    if _MARKUP.match(text):
        raise LabelFileError(
            f"{table.place(row)} must have names separated by {separator or '|'!r}, without brackets and quotes, got "
            f"{quote(text)}. In pandas, frame[column].str.join('|') converts lists to this format."
        )
    parts = text.split(separator) if separator else [text]
    if len(parts) > 1 and not parts[-1].strip():  # a separator after the last name
        parts.pop()
    if not text.strip():
        return []
    return parts


def similar_names(names: Sequence[str]) -> list[str]:
    """List names that differ only in case, spaces, invisible characters or the encoding of accents, for the notes."""
    groups: dict[str, list[str]] = {}
    for name in names:
        visible = (character for character in name if unicodedata.category(character) != "Cf" and character != " ")
        groups.setdefault(unicodedata.normalize("NFKC", "".join(visible)).casefold(), []).append(name)
    return [" and ".join(map(quote, group)) for group in groups.values() if len(group) > 1]


def has_spaces(table: Table, column: int) -> bool:
    """Return whether a cell of a column contains a space between other characters."""
    codes: npt.NDArray[np.int64] = table.distinct(column)[0]
    return any(" " in table.texts[code].strip() for code in codes)
