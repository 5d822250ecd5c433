"""The pipeline of `ad_sentiment.py` on a folder of images of your own and a CSV file of their labels.

With a column for each label (0 or 1):

    path,beach,sunset
    holiday/1.jpg,1,0

    python examples/own_images.py --images photos --labels labels.csv

With one column of separated names:

    path,tags
    holiday/1.jpg,beach|sunset

    python examples/own_images.py --images photos --labels labels.csv --label-column tags
"""

from __future__ import annotations

import csv
import logging
from dataclasses import dataclass
from pathlib import Path

from ad_sentiment import DRY_RUN_IMAGES, Config, run_methods
from ads.labelled_images import LabelledImages
from ads.options import option, parse
from ads.processes import joined_processes
from ads.run_folder import open_run_folder
from mlmetric.labels import binarize


@dataclass(frozen=True, kw_only=True)
class OwnImagesConfig(Config):
    """The ad-sentiment pipeline on a folder of images of your own and a CSV file of their labels."""

    images: Path = option(Path("images"), "folder that the paths of the CSV file are relative to")
    labels: Path = option(Path("labels.csv"), "CSV file with a header: a column of paths, and the labels")
    path_column: str | None = option(None, "column of the paths; by default the first")
    label_column: str | None = option(None, "one column of names; by default every other column is a label, 0 or 1")
    separator: str = option("|", "between the names of --label-column")


def read_labels(config: OwnImagesConfig) -> LabelledImages:
    """Read the CSV file; what does not fit is named by its line."""
    columns, records = _read_csv(config.labels)
    if not records:
        raise ValueError(f"{config.labels} must have a header and at least one line below it.")
    path_column = config.path_column or columns[0]
    for column in (path_column, config.label_column):
        if column is not None and column not in columns:
            raise ValueError(f"{config.labels} has no column {column!r}; it has {', '.join(columns)}.")
    root, paths = config.images.resolve(), []
    for line, record in records:
        path = record[path_column]
        if not path or not (root / path).resolve().is_relative_to(root):
            raise ValueError(f"{config.labels}, line {line}: the path {path!r} is no path in {config.images}.")
        paths.append(path)
    if config.label_column is None:
        names = [column for column in columns if column != path_column]
        sets = [
            [index for index, name in enumerate(names) if _is_one(record[name], name, line, config)]
            for line, record in records
        ]
    else:
        tags = [_names(record[config.label_column], config.separator) for _, record in records]
        names = sorted(set().union(*tags))
        sets = [[names.index(tag) for tag in row] for row in tags]
    if not names:
        raise ValueError(f"{config.labels} names no label.")
    labels = binarize(sets, len(names))
    images = LabelledImages(str(config.images), config.images, paths, labels, labels, names)
    return images.select(range(min(DRY_RUN_IMAGES, len(paths)))) if config.dry_run else images


def _read_csv(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str | None]]]]:
    """Return the columns, and each record with its line."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = list(reader.fieldnames or [])
            return columns, [(reader.line_num, record) for record in reader]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} must be a CSV file in UTF-8, got: {error}.") from error


def _is_one(text: str | None, name: str, line: int, config: OwnImagesConfig) -> bool:
    if text is None or text.strip() not in {"0", "1"}:
        raise ValueError(
            f"{config.labels}, line {line}: {name!r} must be 0 or 1, got {text!r}. For a column of names pass "
            "--label-column."
        )
    return text.strip() == "1"


def _names(text: str | None, separator: str) -> set[str]:
    return {name.strip() for name in (text or "").split(separator)} - {""}


def main(config: OwnImagesConfig) -> None:
    """Read the labels and run the pipeline."""
    images = read_labels(config)
    run_methods(config, images, open_run_folder(config, "own_images"))


if __name__ == "__main__":
    logging.basicConfig(format="%(levelname)s: %(message)s")
    try:
        with joined_processes():
            main(parse(OwnImagesConfig))
    except (ValueError, OSError, FloatingPointError) as error:
        raise SystemExit(f"error: {error}") from error
