"""The features of images: a frozen backbone, computed once for each image and cached."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common.progress import progress_bar
from mlmetric.data import ImageDataset, extract_features
from mlmetric.distributed import on_first_rank, rank
from mlmetric.heads import FrozenBackbone, WeightsUnavailableError

from .config import Config
from .labelled_images import LabelledImages
from .monitoring import collected_warnings, timed
from .run_folder import save_config

MIN_IMAGES = 20


@dataclass(frozen=True)
class ImageFeatures:
    """The features of the images that could be read.

    Attributes:
        features: Shape `(N, D)`.
        images: These N images.
        bad_images: A message for each image that could not be read.
        backbone: The backbone.
        resolved: The weights and the transform of the backbone, and the cache of the features, for `config.json`.
        seconds: The duration, in `seconds["features"]`.
        warnings: The warnings.
    """

    features: Tensor
    images: LabelledImages
    bad_images: list[str]
    backbone: FrozenBackbone
    resolved: Mapping[str, str]
    seconds: Mapping[str, float]
    warnings: list[str]


def compute_features(config: Config, images: LabelledImages, folder: Path) -> ImageFeatures:
    """Compute the features of images, or read them from the cache.

    Args:
        config: The options.
        images: The images.
        folder: The folder of the run; its `config.json` records the backbone, and after the first batch the cache.

    Returns:
        The features.

    Raises:
        ValueError: If there are too few images to train, validate and test.
    """
    seconds: dict[str, float] = {}
    with timed("features", seconds), collected_warnings() as warning_texts:
        backbone = load_backbone(config, synthetic=images.synthetic).to(config.torch_device())
        resolved = {"weights": backbone.weights, "transform": repr(backbone.transform)}
        on_first_rank(lambda: save_config(folder, asdict(config), **resolved))
        resolved["features"] = str(config.cache)
        with progress_bar("features", unit="images") as progress:

            def on_batch(done: int, total: int) -> None:
                if not progress.done and rank() == 0:  # from now on, the run has computed something
                    save_config(folder, asdict(config), **resolved)
                progress.set(done, total)

            extracted = extract_features(
                backbone,
                ImageDataset(images.root, images.paths, transform=backbone.transform),
                config.cache,
                batch_size=config.image_batch_size,
                num_workers=config.num_workers,
                on_bad_image=config.on_bad_image,
                progress=on_batch,
            )
            if not progress.done:  # all of them were in the cache
                progress.restore(len(extracted.indices))
    images = images.select(extracted.indices)
    if len(images.paths) < MIN_IMAGES:
        raise ValueError(
            f"{len(images.paths)} images are too few to train, validate and test: at least {MIN_IMAGES} are required."
        )
    features = torch.from_numpy(np.array(extracted.features))
    return ImageFeatures(features, images, extracted.bad_images, backbone, resolved, seconds, warning_texts)


def load_backbone(config: Config, *, synthetic: bool) -> FrozenBackbone:
    """Load the backbone; on synthetic images, use random weights if the weights cannot be downloaded."""
    torch.manual_seed(config.seed)
    weights = None if config.weights == "none" else config.weights
    try:
        return FrozenBackbone(config.backbone, weights=weights)
    except WeightsUnavailableError as error:
        if not synthetic:
            raise
        logging.warning("%s The run on synthetic images continues with RANDOM weights.", error)
        return FrozenBackbone(config.backbone, weights=None)
