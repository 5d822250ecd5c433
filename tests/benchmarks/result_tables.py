"""Tables of the benchmarks: printed in Markdown and, if a folder is given, written as CSV files."""

from __future__ import annotations

import argparse
import csv
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

DEVIATION = re.compile(r"(\S+) \((\S+)\)")


def add_write_option(parser: argparse.ArgumentParser) -> None:
    """Add the option `--write FOLDER` to the options of a benchmark."""
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="folder in which to write the tables as CSV files")


class ResultTables:
    """Print the tables of a benchmark, and write each to the file `NAME.csv` of a folder.

    Cells are written as they are printed, except that a mean with its standard deviation, such as "0.422 (0.002)",
    becomes two columns; the name of the second one ends with " sd". Tables with the same name become one file.

    Args:
        folder: The folder, which is created if necessary; None to print only.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._tables: dict[str, tuple[list[str], list[list[str]]]] = {}

    def show(
        self, name: str, heads: Sequence[str], rows: Iterable[Sequence[str]], *, num_text: int = 1, **group: str
    ) -> None:
        """Print a table, each row as soon as it is known, then write the file.

        Args:
            name: Name of the file, without the suffix.
            heads: Titles of the columns.
            rows: Cells of each row.
            num_text: Number of columns of text; the columns after these are aligned to the right.
            group: First columns of the file with the same value in each row of this table, such as `set="yeast"`.
        """
        print(f"\n| {' | '.join(heads)} |\n|{' --- |' * num_text}{' ---: |' * (len(heads) - num_text)}")
        titles, table = [*group, *heads], []
        for cells in rows:
            print(f"| {' | '.join(cells)} |", flush=True)
            table.append([*group.values(), *cells])
        former, earlier = self._tables.get(name, (titles, []))
        if former != titles or len(set(titles)) < len(titles):
            raise ValueError(f"Titles of the table {name} must differ and be those of its other parts, got {titles}.")
        self._tables[name] = titles, earlier + table
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
                csv.writer(file, lineterminator="\n").writerows(with_deviations(*self._tables[name]))


def with_deviations(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """Return the titles and the rows, with standard deviations in columns of their own."""
    table: list[list[str]] = [[] for _ in range(len(rows) + 1)]
    for column, head in enumerate(heads):
        found = [DEVIATION.fullmatch(row[column]) for row in rows]
        has_deviation = any(found)
        table[0] += [head, f"{head} sd"] if has_deviation else [head]
        for line, row, match in zip(table[1:], rows, found, strict=True):
            if match:
                line += match.groups()
            else:
                line += [row[column], ""] if has_deviation else [row[column]]
    return table
