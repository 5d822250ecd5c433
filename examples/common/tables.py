"""Aligned Markdown tables."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, left: Collection[int] = (0,)) -> str:
    """Format cells as an aligned Markdown table.

    Args:
        heads: The heads of the columns.
        rows: The cells of each row, as many as there are heads.
        left: The numbers of the columns that are aligned to the left, from 0; the others are aligned to the right.

    Returns:
        The lines of the table, joined.
    """
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (heads, *rows)]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]

    def line(row: Sequence[str]) -> str:
        texts = (
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return f"| {' | '.join(texts)} |"

    rule = ["-" * width if column in left else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    return "\n".join(map(line, [cells[0], rule, *cells[1:]]))
