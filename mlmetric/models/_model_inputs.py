"""The inputs of a model: images as paths, PIL images or tensors, and features as arrays, tensors or frames."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlmetric.data import read_image
from mlmetric.data._image_file import convert_image
from mlmetric.models._preprocessing_config import Transform

_ACCEPTED = (
    "paths, PIL images, uint8 tensors of shape (3, H, W), or preprocessed tensors of floating-point numbers of shape "
    "(C, H, W)"
)


def list_images(inputs: Any) -> list[Any]:
    """Return the images as a list; one path, PIL image or tensor `(C, H, W)` becomes a list of one image.

    Args:
        inputs: One image, an iterable of images, or a tensor `(N, C, H, W)`.

    Returns:
        Paths, PIL images and tensors `(C, H, W)`.

    Raises:
        TypeError: If an input is none of these.
        ValueError: If a tensor has another shape.
    """
    if isinstance(inputs, Tensor):
        if inputs.ndim not in (3, 4):
            raise ValueError(f"`inputs` must have shape (C, H, W) or (N, C, H, W), got {tuple(inputs.shape)}.")
        images: list[Any] = list(inputs) if inputs.ndim == 4 else [inputs]
    elif isinstance(inputs, str | os.PathLike) or is_pil_image(inputs):
        images = [inputs]
    elif isinstance(inputs, np.ndarray) and (inputs.dtype.kind not in "OU" or not inputs.ndim):
        raise TypeError(
            f"`inputs` must be {_ACCEPTED}, got an array of {inputs.dtype}: convert each image of an array (H, W, 3) "
            "in RGB with `PIL.Image.fromarray`."
        )
    elif isinstance(inputs, Iterable) and not isinstance(inputs, bytes):
        images = list(inputs)
    else:
        raise TypeError(f"`inputs` must be {_ACCEPTED}, one or several, got {type(inputs).__name__}.")
    for number, image in enumerate(images):
        _check_image(image, number)
    return images


def _check_image(image: Any, number: int) -> None:
    if isinstance(image, str | os.PathLike) or is_pil_image(image):
        return
    if not isinstance(image, Tensor):
        raise TypeError(f"`inputs[{number}]` must be one of {_ACCEPTED}, got {type(image).__name__}.")
    if not image.is_floating_point() and image.dtype != torch.uint8:
        raise TypeError(f"`inputs[{number}]` must be one of {_ACCEPTED}, got a tensor of {image.dtype}.")
    if image.ndim != 3 or (image.dtype == torch.uint8 and image.shape[0] != 3):
        raise ValueError(
            f"`inputs[{number}]` must be one of {_ACCEPTED}, got a {image.dtype} tensor of shape {tuple(image.shape)}."
        )


def is_pil_image(value: Any) -> bool:
    """Return whether a value is a PIL image."""
    from PIL import Image

    return isinstance(value, Image.Image)


def image_batches(images: Sequence[Any], transform: Transform | None, *, batch_size: int) -> Iterator[Tensor]:
    """Read and preprocess images in batches.

    Args:
        images: The result of `list_images`.
        transform: The preprocessing; None if all images are preprocessed tensors.
        batch_size: Number of images in a batch.

    Yields:
        Batches `(N, C, H, W)`.

    Raises:
        BadImageError: If an image cannot be read.
        OSError: If the system is the cause, not the image.
        TypeError: If the transform does not return a tensor of floating-point numbers.
        ValueError: If a transform is required but there is none, or images of a batch differ in shape.
    """
    for start in range(0, len(images), batch_size):
        batch = [
            _preprocessed(image, transform, number)
            for number, image in enumerate(images[start : start + batch_size], start=start)
        ]
        for number, image in enumerate(batch, start=start):
            if image.shape != batch[0].shape:
                raise ValueError(
                    "Preprocessed images of a batch must have the same shape, got "
                    f"{tuple(batch[0].shape)} for `inputs[{start}]` and {tuple(image.shape)} for `inputs[{number}]`: "
                    "use a transform that crops them, or `batch_size=1`."
                )
        yield torch.stack([image.to(batch[0].device) for image in batch])


def _preprocessed(image: Any, transform: Transform | None, number: int) -> Tensor:
    if isinstance(image, Tensor) and image.is_floating_point():
        return image
    if transform is None:
        raise ValueError(
            f"`inputs[{number}]` must be preprocessed, since the backbone has no transform: pass tensors of "
            "floating-point numbers, or make it with `FrozenBackbone(module, transform=...)`."
        )
    if isinstance(image, Tensor):
        from torchvision.transforms.functional import to_pil_image

        image = to_pil_image(image.cpu())
    elif isinstance(image, str | os.PathLike):
        image = read_image(os.fspath(image))
    else:
        image = convert_image(image, f"inputs[{number}]")
    output: Any = transform(image)
    if not isinstance(output, Tensor) or not output.is_floating_point():
        kind = f"a tensor of {output.dtype}" if isinstance(output, Tensor) else type(output).__name__
        raise TypeError(f"The transform of the backbone must return a tensor of floating-point numbers, got {kind}.")
    return output


def finite_features(features: Tensor, start: int) -> Tensor:
    """Return the features of a batch that starts with image number `start`.

    Raises:
        ValueError: If a feature is not finite.
    """
    is_finite = features.isfinite().all(dim=1)
    if not bool(is_finite.all()):
        number = start + int((~is_finite).nonzero()[0])
        raise ValueError(f"`inputs[{number}]` must be an image with finite features, but the backbone returns others.")
    return features


def read_features(
    inputs: Any, in_features: int, feature_names: Sequence[str] | None, *, allow_nan: bool = False
) -> Tensor:
    """Check features, as `MetricClassifier.predict_proba` does.

    Args:
        inputs: An array, tensor, data frame or list of shape `(n, D)`.
        in_features: D.
        feature_names: The names of the columns of a data frame; None if they are not checked.
        allow_nan: Whether features may be NaN.

    Returns:
        float32, shape `(n, D)`, on the CPU.

    Raises:
        TypeError: If `inputs` does not contain numbers.
        ValueError: If the shape or the columns are wrong, or a feature is infinite, or NaN where it must not be.
    """
    from sklearn.utils import check_array

    first = inputs[0] if isinstance(inputs, list | tuple) and inputs else inputs
    if isinstance(first, str | os.PathLike) or is_pil_image(first):
        raise ValueError(
            f"`inputs` must be features of shape (n, {in_features}), since the model has no backbone, got images."
        )
    columns = list(map(str, inputs.columns)) if hasattr(inputs, "columns") else None
    if isinstance(inputs, Tensor):
        inputs = inputs.detach().float().cpu().numpy()
    elif isinstance(inputs, list | tuple) and not inputs:
        return torch.empty(0, in_features)
    features = check_array(
        inputs,
        dtype=np.float32,
        ensure_all_finite="allow-nan" if allow_nan else True,
        ensure_min_samples=0,
        ensure_min_features=0,
        input_name="inputs",
    )
    if features.shape[1] != in_features:
        raise ValueError(f"`inputs` must have {in_features} features, got {features.shape[1]}.")
    if columns is not None and feature_names is not None and columns != list(feature_names):
        pairs = zip(columns, feature_names, strict=True)
        found, expected = next((found, expected) for found, expected in pairs if found != expected)
        raise ValueError(
            f"`inputs` must have the columns of training, in that order: the first that differs is {found!r} where "
            f"{expected!r} is expected."
        )
    return torch.from_numpy(features if features.flags.writeable else features.copy())
