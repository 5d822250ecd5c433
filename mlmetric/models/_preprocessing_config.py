"""The preprocessing of images as JSON: the transforms of torchvision's weights and of timm; code is not saved."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any

from torch import Tensor

from mlmetric._repr import short_repr
from mlmetric.heads import FrozenBackbone
from mlmetric.models._module_recipes import Config

Transform = Callable[[Any], Tensor]

_TORCHVISION = "torchvision.transforms._presets.ImageClassification"
_TIMM = "timm.data.create_transform"
CUSTOM = "custom"
_LARGEST_SIZE = 4096  # pixels; more would take much memory for each image


def describe_transform(backbone: FrozenBackbone) -> Config | None:
    """Describe the transform of a backbone as JSON.

    Args:
        backbone: The backbone. For timm models, `data_config` contains the data configuration from which their own
            transform is made.

    Returns:
        The kind of the transform and its arguments; None without a transform.
    """
    from torchvision.transforms._presets import ImageClassification

    transform: Any = backbone.transform
    if transform is None:
        return None
    if type(transform) is ImageClassification:
        return {
            "kind": _TORCHVISION,
            "crop_size": transform.crop_size[0],
            "resize_size": transform.resize_size[0],
            "mean": list(transform.mean),
            "std": list(transform.std),
            "interpolation": transform.interpolation.value,
            "antialias": transform.antialias,
        }
    data_config = getattr(backbone, "data_config", None)
    # A transform of timm is a list of torchvision's, whose `repr` shows all their settings.
    if data_config is not None and repr(_timm_transform(**data_config)) == repr(transform):
        return {"kind": _TIMM, **data_config}
    return {"kind": CUSTOM, "repr": short_repr(transform)}


def build_transform(config: Any, transform: Transform | None) -> Transform | None:
    """Rebuild the transform of a model.

    Args:
        config: The result of `describe_transform`.
        transform: The transform that the caller passed, which is used instead of the described one; None to use the
            described one.

    Returns:
        The transform; None if the model has none.

    Raises:
        ValueError: If the transform must be passed, or cannot be made from the configuration.
        ImportError: If it is a timm transform and timm is not installed.
    """
    if transform is not None or config is None:
        return transform
    settings = dict(config) if isinstance(config, dict) else {}
    kind = settings.pop("kind", None)
    if kind in (_TORCHVISION, _TIMM):
        _check_settings(settings, _CHECKS[kind])
        try:
            return _torchvision_transform(**settings) if kind == _TORCHVISION else _timm_transform(**settings)
        except (AssertionError, LookupError, TypeError, ValueError) as error:
            raise ValueError(f"`preprocessing` cannot be made from its settings ({error}).") from error
    if kind == CUSTOM:
        raise ValueError(
            f"the images are preprocessed by code of your own, {settings.get('repr')}, which is not saved: pass it as "
            "`transform=`."
        )
    raise ValueError(f"`preprocessing` is of a kind that this mlmetric does not know: {kind!r}.")


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and 1 <= value <= _LARGEST_SIZE


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


_MEANS: dict[str, Callable[[Any], bool]] = {
    "mean": lambda value: isinstance(value, list) and all(map(_is_number, value)) and len(value) in (1, 3),
    "std": lambda value: (
        isinstance(value, list) and all(map(_is_number, value)) and len(value) in (1, 3) and all(value)
    ),
    "interpolation": lambda value: isinstance(value, str),
}
_CHECKS: dict[str, dict[str, Callable[[Any], bool]]] = {
    _TORCHVISION: _MEANS
    | {
        "crop_size": _is_size,
        "resize_size": _is_size,
        "antialias": lambda value: value is None or isinstance(value, bool),
    },
    _TIMM: _MEANS
    | {
        "input_size": lambda value: isinstance(value, list) and len(value) == 3 and all(map(_is_size, value)),
        "crop_pct": lambda value: _is_number(value) and 0.1 <= value <= 10,
        "crop_mode": lambda value: isinstance(value, str),
    },
}


def _check_settings(settings: Config, checks: dict[str, Callable[[Any], bool]]) -> None:
    """Check settings, since a wrong one would be noticed only when an image is read, or would take all memory."""
    for name, value in settings.items():
        if name not in checks or not checks[name](value):
            raise ValueError(f"`preprocessing` cannot be made from its settings: wrong `{name}`, got {value!r:.80}.")


def _torchvision_transform(interpolation: str, **settings: Any) -> Transform:
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms._presets import ImageClassification

    transform: Transform = ImageClassification(interpolation=InterpolationMode(interpolation), **settings)
    return transform


def _timm_transform(**settings: Any) -> Transform:
    try:
        timm_data: Any = importlib.import_module("timm.data")
    except ImportError as error:
        raise ImportError('The images are preprocessed by timm: `pip install "mlmetric[timm]"`.') from error
    data_config = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
    transform: Transform = timm_data.create_transform(**data_config, is_training=False)
    return transform
