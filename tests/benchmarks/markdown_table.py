"""Tables of the benchmarks, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def print_table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, num_text: int = 1) -> None:
    """Print a table, each row as soon as it is known.

    Args:
        heads: Titles of the columns.
        rows: Cells of each row.
        num_text: Number of columns of text; the columns after these are aligned to the right.
    """
    print(f"\n| {' | '.join(heads)} |\n|{' --- |' * num_text}{' ---: |' * (len(heads) - num_text)}")
    for cells in rows:
        print(f"| {' | '.join(cells)} |", flush=True)
