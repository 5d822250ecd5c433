"""The text of images as a second view: read from images or a file, its features, and its description in a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.progress import progress_bar
from mlmetric.data import join_views
from mlmetric.distributed import num_ranks, on_first_rank, rank
from mlmetric.estimators import TextFeatures
from mlmetric.text import SentenceEncoder, TextReader

from .config import DEFAULT_TEXT_ENCODER, Config
from .features import ImageFeatures
from .labelled_images import LabelledImages
from .monitoring import collected_warnings, timed
from .run_folder import save_config

_MIN_TRAIN_TEXTS = 2


@dataclass(frozen=True)
class JoinedViews:
    """The features of the images and of their texts.

    Attributes:
        features: Shape `(N, D)`; the features of the text are NaN for an image without text.
        views: The columns of the views "image" and "text".
        text_features: The fitted transformer of the texts.
    """

    features: Tensor
    views: Mapping[str, slice]
    text_features: TextFeatures


def check_packages(config: Config) -> None:
    """Load the packages and models that read or encode text, before anything else is computed.

    Raises:
        ImportError: If a package is not installed; the message says how to install it.
        WeightsUnavailableError: If the model of `--text-encoder` cannot be downloaded or read.
    """
    if config.ocr:
        TextReader().fingerprint()
    encoder = _encoder(config)
    if isinstance(encoder, SentenceEncoder):
        on_first_rank(encoder.fingerprint)


def read_off_images(config: Config, extracted: ImageFeatures, folder: Path) -> ImageFeatures:
    """Read the text on each image, or look it up in the cache.

    Args:
        config: The options.
        extracted: The images that could be read.
        folder: The folder of the run; its `config.json` records the reader.

    Returns:
        The same with `images.texts`.

    Raises:
        ValueError: If there is no text on any image.
    """
    images, reader, seconds = extracted.images, TextReader(), dict(extracted.seconds)
    resolved = {**extracted.resolved, "text_reader": repr(reader)}
    on_first_rank(lambda: save_config(folder, asdict(config), **resolved))
    arguments: dict[str, Any] = {
        "root": images.root,
        "cache_dir": config.cache,
        "num_workers": max(1, config.num_workers),
        "on_bad_image": config.on_bad_image,
    }
    with timed("text", seconds), collected_warnings() as warning_texts:
        with progress_bar("text", unit="images") as progress:
            # Each process reads a part of the images into the cache that all of them share.
            texts = reader.read_files(images.paths[rank() :: num_ranks()], progress=progress.set, **arguments)
        if num_ranks() > 1:
            texts = on_first_rank(lambda: reader.read_files(images.paths, **arguments))
    by_image = {path: [text] if text else [] for path, text in zip(images.paths, texts, strict=True)}
    if not any(by_image.values()):
        raise ValueError(f"There is no text on any of the {len(texts)} images: omit --ocr.")
    return replace(
        extracted,
        images=replace(images, texts=by_image),
        resolved=resolved,
        seconds=seconds,
        warnings=[*extracted.warnings, *warning_texts],
    )


def join_text(config: Config, extracted: ImageFeatures, train: Tensor, kept: Tensor) -> JoinedViews:
    """Encode the texts and join their features with the features of the images.

    Args:
        config: The options.
        extracted: The features of the images, and their texts.
        train: The indices of the training images, on whose texts the encoder is fitted.
        kept: The indices of the training images that undersampling keeps.

    Returns:
        The features of both.

    Raises:
        ValueError: If too few of the training images have text.
    """
    texts = texts_of(extracted.images)
    count = sum(1 for row in kept.tolist() if texts[row])
    if count < _MIN_TRAIN_TEXTS:
        raise ValueError(
            f"{count} of {len(kept)} training images have text, at least {_MIN_TRAIN_TEXTS} are required: omit "
            f"{config.text_option}."
        )
    with progress_bar("text features", unit="distinct texts") as progress:
        text_features = TextFeatures(_encoder(config), cache_dir=config.cache, progress=progress.set)
        text_features.fit([texts[row] for row in train.tolist()])
        of_text = text_features.transform(texts)
    text_features.set_params(progress=None)
    features, views = join_views({"image": extracted.features.numpy(), "text": of_text})
    return JoinedViews(torch.from_numpy(features), views, text_features)


def texts_of(images: LabelledImages) -> list[list[str]]:
    """Return the texts of each image."""
    texts = images.texts or {}
    return [list(texts.get(path, ())) for path in images.paths]


def text_summary(images: LabelledImages) -> str:
    """State in a sentence how many images have text."""
    return f"{sum(map(bool, texts_of(images))):,} of {len(images.paths):,} images have text."


def describe_text(
    config: Config, images: LabelledImages, joined: JoinedViews, parts: Mapping[str, Tensor]
) -> dict[str, Any]:
    """Return the description of the text in a report, as a value of `metrics.json`."""
    present = ~joined.features[:, joined.views["text"].start].isnan()
    description: dict[str, Any] = {
        "source": "--ocr" if config.ocr else str(config.texts),
        "images": int(present.sum()),
        **{name: int(present[rows].sum()) for name, rows in parts.items()},
        "encoder": config.text_encoder or DEFAULT_TEXT_ENCODER,
        "features": joined.views["text"].stop - joined.views["text"].start,
        "is_fitted": not isinstance(joined.text_features.encoder_, SentenceEncoder),
        "unknown_images": len((images.texts or {}).keys() - set(images.paths)),
    }
    if config.ocr and images.headlines is not None:
        read = zip(images.paths, texts_of(images), strict=True)
        exact = [[" ".join(text.split()) for text in texts] == images.headlines[path] for path, texts in read]
        description["headlines_read_exactly"] = sum(exact) / len(exact)
    return description


def _encoder(config: Config) -> str | SentenceEncoder:
    name = config.text_encoder or DEFAULT_TEXT_ENCODER
    return name if name == DEFAULT_TEXT_ENCODER else SentenceEncoder(name, device=config.torch_device())
