"""The pipeline of `ad_sentiment.py` on a folder of images of your own and a CSV file of their labels.

With a column for each label (0 or 1):

    path,beach,sunset
    holiday/1.jpg,1,0

    python examples/own_images.py --images photos --labels labels.csv

With one column of separated names:

    path,tags
    holiday/1.jpg,beach|sunset

    python examples/own_images.py --images photos --labels labels.csv --label-column tags

Several lines of one image are votes, a line for each annotator; `--min-votes 2` takes the labels of two or more.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from ad_sentiment import DRY_RUN_IMAGES, Config, run_methods
from ads.csv_labels import read_csv_labels
from ads.labelled_images import LabelledImages
from ads.options import option, parse
from ads.processes import joined_processes
from ads.run_folder import open_run_folder


@dataclass(frozen=True, kw_only=True)
class OwnImagesConfig(Config):
    """The ad-sentiment pipeline on a folder of images of your own and a CSV file of their labels."""

    images: Path = option(Path("images"), "folder that the paths of the CSV file are relative to")
    labels: Path = option(Path("labels.csv"), "CSV file with a header: a column of paths, and the labels")
    path_column: str | None = option(None, "column of the paths; by default the first")
    label_column: str | None = option(None, "one column of names; by default every other column is a label, 0 or 1")
    separator: str | None = option(None, "between the names of --label-column; by default |")
    min_votes: int = option(1, "lines of an image that must give it a label: 1 is the union, 2 agreement")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.separator == "":
            raise ValueError("--separator must be at least one character, got ''.")


def read_labels(config: OwnImagesConfig) -> LabelledImages:
    """Read the CSV file; what does not fit is named by its line."""
    images = read_csv_labels(
        config.labels,
        config.images,
        path_column=config.path_column,
        label_column=config.label_column,
        separator=config.separator,
        min_votes=config.min_votes,
    )
    return images.select(range(min(DRY_RUN_IMAGES, len(images.paths)))) if config.dry_run else images


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
