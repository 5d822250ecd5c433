"""A hook of mkdocs that shows the data files of the benchmarks as tables.

A paragraph that consists of one link to a CSV file is replaced by a table with the content of the file, which readers
can sort. If several rows have the same text in the first column, such as the data set, readers can also select one of
these texts. A column whose name ends with " sd" is the standard deviation of the column before it.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

LINK = re.compile(r"^\[([^\]\n]+)\]\(([\w./-]+\.csv)\)$", re.MULTILINE)


def is_number(cell: str) -> bool:
    """Return whether a cell is a number, with or without sign, separators and unit, or empty."""
    return re.fullmatch(r"([-+]?[\d,]*\.?\d+( ?[%x])?)?", cell) is not None


def table(path: Path, title: str, link: str) -> str:
    """Return the content of a CSV file as a table in Markdown, with a link to the file."""
    with path.open(newline="", encoding="utf-8") as file:
        heads, *rows = csv.reader(file)
    for number, row in enumerate(rows, start=2):
        if len(row) != len(heads):
            raise ValueError(f"{path}, line {number}: {len(row)} cells, but {len(heads)} titles of columns.")
    columns = list(zip(*rows, strict=True))
    numeric = [sum(map(is_number, column)) > len(rows) / 2 for column in columns]
    titles = ["±" if head.endswith(" sd") else head for head in heads]
    lines = [titles, ["---:" if number else "---" for number in numeric], *rows]
    is_filtered = not numeric[0] and len(set(columns[0])) < len(rows)
    filtered = f' data-filter="{heads[0]}"' if is_filtered else ""
    content = "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |" for cells in lines)
    return f'<div class="benchmark"{filtered} markdown="1">\n\n{content}\n\n</div>\n\n[{title} (CSV)]({link})'


def on_page_markdown(markdown: str, *, page: Any, **kwargs: Any) -> str:
    """Replace the links of a page to CSV files by tables."""
    folder = Path(page.file.abs_src_path).parent if page.file.abs_src_path else Path()
    return LINK.sub(lambda match: table(folder / match[2], match[1], match[2]), markdown)
