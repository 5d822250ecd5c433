"""Ranked label errors: tables, a data frame and a page with images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlmetric._atomic_write import atomic_write
from mlmetric.label_errors._html_page import Card, image_source, page, read_images

HEADINGS = ("Missing labels (annotated 0, probably 1)", "Wrong labels (annotated 1, probably 0)")


@dataclass(frozen=True, eq=False, repr=False)
class LabelErrors:
    """Pairs of a row and a label whose annotation is suspicious, the most suspicious first.

    `len(errors)` is the number of pairs, P. `errors.missing` and `errors.wrong` contain the pairs of one kind of error
    only.

    Attributes:
        rows: Row of each pair, int64, shape `(P,)`.
        labels: Label of each pair, int64, shape `(P,)`.
        scores: How suspicious each pair is, float64, descending, shape `(P,)`: with `score="self_confidence"` the
            probability of the value that was not given, in [0, 1]; with `"adjusted_margin"` in [-2, 2].
        given: Value in the label matrix, 0 or 1, int8, shape `(P,)`.
        label_names: Names of the L labels.
        estimated_errors: Estimated number of wrong annotations of each label, float64, shape `(L, 2)`: among the rows
            annotated with 0, and among those annotated with 1. An inaccurate model makes this number too large;
            embeddings that were trained on the same annotations can make it too small.
        num_annotated: Number of rows annotated with 0 and with 1, int64, shape `(L, 2)`.
        thresholds: Mean probability of value 0 in the rows annotated with 0, and of value 1 in the rows annotated with
            1, float64, shape `(L, 2)`; 1 where there are none.
        confident_joint: Number of rows annotated with i whose label is confidently j, that is, whose probability of j
            is at least its threshold, int64, shape `(L, 2, 2)`. Of two confident values the more probable one counts.
    """

    rows: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]
    given: npt.NDArray[np.int8]
    label_names: list[str]
    estimated_errors: npt.NDArray[np.float64]
    num_annotated: npt.NDArray[np.int64]
    thresholds: npt.NDArray[np.float64]
    confident_joint: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        missing, wrong = self.estimated_errors.sum(axis=0)
        return (
            f"LabelErrors(pairs={len(self)}, num_labels={len(self.label_names)}, "
            f"estimated_missing={missing:.0f}, estimated_wrong={wrong:.0f})"
        )

    def __str__(self) -> str:
        return self.summary()

    @property
    def suggested(self) -> npt.NDArray[np.int8]:
        """The value that each pair probably should have, 0 or 1, int8, shape `(P,)`."""
        return 1 - self.given

    @property
    def missing(self) -> LabelErrors:
        """The pairs that are annotated with 0 and probably should be 1."""
        return self._with_given(0)

    @property
    def wrong(self) -> LabelErrors:
        """The pairs that are annotated with 1 and probably should be 0."""
        return self._with_given(1)

    def summary(self, n: int = 20) -> str:
        """Return the estimated number of errors, and the first pairs of each kind as Markdown tables.

        Args:
            n: Largest number of pairs in each table, at least 0.

        Returns:
            Text of several lines.

        Raises:
            ValueError: If `n` is negative.
        """
        _check_number(n)
        missing, wrong = self.estimated_errors.sum(axis=0)
        lines = [
            f"Estimated errors: {missing:.0f} missing and {wrong:.0f} wrong labels among {self.num_annotated.sum()} "
            "annotations."
        ]
        for value, heading in enumerate(HEADINGS):
            part = self._with_given(value)
            if len(part):
                lines += ["", f"{heading}:", "", *part._table(n)]
        return "\n".join(lines)

    def to_frame(self) -> Any:
        """Return a data frame with one line for each pair.

        Returns:
            A `pandas.DataFrame` with the columns `row`, `label` (the name), `given`, `suggested` and `score`.

        Raises:
            ImportError: If pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError("`to_frame` requires pandas: `pip install pandas`.") from error
        columns = {
            "row": self.rows,
            "label": [self.label_names[label] for label in self.labels],
            "given": self.given,
            "suggested": self.suggested,
            "score": self.scores,
        }
        return pd.DataFrame(columns)

    def write_html(
        self,
        path: str | os.PathLike[str],
        images: Sequence[str | os.PathLike[str]],
        *,
        n: int = 100,
        embed: bool = False,
        title: str = "Probable label errors",
    ) -> None:
        """Write a page that shows the images of the first pairs of each kind, for review in a browser.

        Args:
            path: The HTML file; it is replaced if it exists, and its folder is created.
            images: Image file of each row of the label matrix, shape `(N,)`, or a `data:`, `http:` or `https:` URL,
                which is used as it is.
            n: Largest number of missing labels, and of wrong labels, on the page.
            embed: Whether the page contains the images, so that it can be sent as one file. By default it links to the
                files, relative to the folder of the page, and must stay where it is.
            title: Title of the page.

        Raises:
            FileNotFoundError: If an image file that the page shows does not exist.
            TypeError: If `images` is a single path.
            ValueError: If `n` is negative, or `images` has no entry for a row that the page shows.

        Examples:
            >>> import tempfile
            >>> from pathlib import Path
            >>> from mlmetric.label_errors import rank_label_errors
            >>> errors = rank_label_errors([[1], [0]], probabilities=[[0.1], [0.2]])
            >>> pixel = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="
            >>> path = Path(tempfile.mkdtemp()) / "errors.html"
            >>> errors.write_html(path, [pixel, pixel])
            >>> path.read_text().count("<img")
            2
        """
        _check_number(n)
        path = Path(path)
        names = read_images(images)
        sections = []
        for value, heading in enumerate(HEADINGS):
            part = self._with_given(value)._first(n)
            if len(part) and part.rows.max() >= len(names):
                row = part.rows.max()
                raise ValueError(
                    f"`images` must have one image for each row, got {len(names)} images, none of row {row}."
                )
            cards = [
                Card(
                    image_source(names[row], path.parent, embed=embed),
                    names[row],
                    row,
                    self.label_names[label],
                    score,
                )
                for row, label, score in zip(
                    part.rows.tolist(), part.labels.tolist(), part.scores.tolist(), strict=True
                )
            ]
            sections.append((heading, cards))
        text = page(title, sections)
        with atomic_write(path) as file:
            file.write(text.encode())

    def _with_given(self, value: int) -> LabelErrors:
        return self._select(self.given == value)

    def _first(self, n: int) -> LabelErrors:
        return self._select(slice(n))

    def _select(self, which: Any) -> LabelErrors:
        parts = {name: getattr(self, name)[which] for name in ("rows", "labels", "scores", "given")}
        return replace(self, **parts)

    def _table(self, n: int) -> list[str]:
        part = self._first(n)
        names = [self.label_names[label] for label in part.labels]
        width = max([5, *map(len, names)])
        lines = [f"|  row | {'label':{width}} | score |", f"| ---: | {'-' * width} | ----: |"]
        for row, name, score in zip(part.rows, names, part.scores, strict=True):
            lines.append(f"| {row:4d} | {name:{width}} | {score:.3f} |")
        return lines


def _check_number(n: int) -> None:
    if n < 0:
        raise ValueError(f"`n` must be at least 0, got {n}.")
