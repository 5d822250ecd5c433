"""The pipeline of `ad_sentiment.py` on your own images, with labels in a CSV file.

With a column for each label (0 or 1):

    path,beach,sunset
    holiday/1.jpg,1,0

    python examples/own_images.py --images photos --labels labels.csv

With a column of label names:

    path,tags
    holiday/1.jpg,beach|sunset

    python examples/own_images.py --images photos --labels labels.csv --label-column tags

Several lines of one image are votes, a line for each annotator; `--min-votes 2` requires two votes for a label.
"""

from __future__ import annotations

from ads.config import DRY_RUN_IMAGES, OwnImagesConfig
from ads.program import run_program

if __name__ == "__main__":
    run_program(OwnImagesConfig)  # checks the options before the slow imports, then calls `main` below

from ad_sentiment import run_methods
from ads.csv_labels import read_csv_labels
from ads.labelled_images import LabelledImages
from ads.run_folder import open_run_folder


def read_labels(config: OwnImagesConfig) -> LabelledImages:
    """Read the CSV file."""
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
    with open_run_folder(config) as folder:
        run_methods(config, images, folder)
