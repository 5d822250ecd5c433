"""The images of a run: a synthetic set, annotated advertisements, or your own images with a file of labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from common.progress import progress_bar
from mlmetric.data import read_image_labels
from mlmetric.distributed import on_first_rank

from .config import DEFAULT_MIN_COUNT, DRY_RUN_IMAGES, OPTIONS_OF_LABELS, Config
from .labelled_images import LabelledImages
from .reader import read_annotations
from .saved_runs import RUNS
from .synthetic import make_synthetic_ads
from .text_files import read_texts

SYNTHETIC_IMAGES = 1500


def read_images(config: Config) -> LabelledImages:
    """Read the paths and labels of the images; with `--dry-run`, of only a few images.

    Raises:
        FileNotFoundError: If images do not exist and `--on-bad-image` is `error`.
        ValueError: If a file of labels or texts does not have its format, no image has a label, soft labels are
            required and no image was annotated more than once, or texts are given for other images only.
    """
    images = _read_advertisements(config) if config.labels is None else _read_own(config, config.labels)
    if config.texts is not None:
        images = _with_texts(images, config.texts, config.suffix)
    if config.dry_run:
        count = min(DRY_RUN_IMAGES, len(images.paths))
        # Evenly spaced, since the first images may all have the same label.
        images = images.select([number * len(images.paths) // count for number in range(count)])
    if config.on_bad_image == "error":
        _check_exist(images)
    return images


def _with_texts(images: LabelledImages, path: Path, suffix: str | None) -> LabelledImages:
    texts = read_texts(path, images.root, suffix=suffix)
    if not any(texts.values()):
        raise ValueError(f"{path} has no text: the texts of all its {len(texts)} images are empty.")
    if not any(texts.get(image) for image in images.paths):
        raise ValueError(
            f"{path} has texts for none of the {len(images.paths)} images: the first image is {images.paths[0]}, the "
            f"first in the file {next(iter(texts), 'missing')}. Paths must be relative to {images.root}."
        )
    return replace(images, texts=texts)


def _read_own(config: Config, path: Path) -> LabelledImages:
    options = {name: getattr(config, name) for name in OPTIONS_OF_LABELS}
    if config.min_count is None:
        options["min_count"] = DEFAULT_MIN_COUNT
    root = config.images or Path()
    images = read_image_labels(path, images=root, min_votes=config.min_votes, **options)
    if config.soft_labels and images.votes is None:
        raise ValueError(f"--soft-labels requires several annotators of an image: each image occurs once in {path}.")
    return LabelledImages(**vars(images), title=root.resolve().name, soft=config.soft_labels)


def _read_advertisements(config: Config) -> LabelledImages:
    headlines = None
    if config.annotations is None:
        num_images = DRY_RUN_IMAGES if config.dry_run else config.synthetic_images or SYNTHETIC_IMAGES
        synthetic = on_first_rank(
            lambda: make_synthetic_ads(
                RUNS / f"synthetic_ads_{num_images}_seed_{config.seed}",
                num_images=num_images,
                seed=config.seed,
                progress=lambda items: progress_bar("posters", items, unit="posters"),
            )
        )
        annotations, label_list, root = synthetic
        headlines = read_texts(synthetic.slogans, root)
    else:
        annotations, root = config.annotations, config.image_root or Path()
        label_list = config.label_list or annotations.parent / "Sentiments_List.txt"
    ads = read_annotations(annotations, label_list)
    labels = ads.labels(config.min_votes).long()
    labelled = (labels > 0).any(dim=1)
    notes = {
        "answers are free text or empty and were skipped": ads.skipped_answers.total(),
        "entries were merged into an earlier entry of the same image": ads.merged_entries,
        "images have no label and were excluded": ads.dropped_images,
        f"images have no label with {config.min_votes} votes and were excluded": int((~labelled).sum()),
    }
    images = LabelledImages(
        title="synthetic advertisements" if config.annotations is None else f"the advertisements of {annotations.name}",
        root=root,
        paths=ads.paths,
        labels=labels,
        label_names=ads.label_names,
        votes=ads.votes.long(),
        num_annotators=ads.num_annotators.long(),
        source=f"{annotations.name}: {int(ads.num_annotators.sum()):,} answers; {label_list.name}.",
        notes=[f"{count} {what}." for what, count in notes.items() if count],
        soft=config.soft_labels,
        synthetic=config.annotations is None,
        headlines=headlines,
    )
    images = images.select(labelled.nonzero().squeeze(1))
    if not images.paths:
        raise ValueError(f"No image has a label with {config.min_votes} votes: choose a lower --min-votes.")
    return images


def _check_exist(images: LabelledImages) -> None:
    """Report missing files before features are computed, which can take hours."""
    missing = [path for path in images.paths if not (images.root / path).exists()]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(images.paths)} images do not exist; the first: {images.root / missing[0]}. Check "
            "the folder of the images and the paths, or pass --on-bad-image skip."
        )
