"""Networks of torchvision by name, without their classifiers."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mlmetric.heads._backbone_weights import (
    ENDINGS,
    WEIGHTS_FILES,
    NamedNetwork,
    WeightsUnavailableError,
    download_timeout,
    load_state_dict,
    read_state_dict,
)

if TYPE_CHECKING:  # torchvision is imported where it is used, since it takes long to import
    from torchvision.models import WeightsEnum
    from torchvision.transforms._presets import ImageClassification


def torchvision_network(name: str, weights: WeightsEnum | str | Path | None, pooling: str | None) -> NamedNetwork:
    """Build a network of torchvision; the arguments and errors are those of `FrozenBackbone`."""
    import torchvision
    from torchvision.models import WeightsEnum, get_model_weights, list_models

    known = list_models(module=torchvision.models)
    if name not in known:
        close = ", ".join(repr(match) for match in get_close_matches(name, known))
        raise ValueError(
            "`model` must be the name of a torchvision classification model, 'timm/' and the name of a timm model, or "
            f"a module, got {name!r}." + (f" Close names: {close}." if close else "")
        )
    choices = get_model_weights(name)
    transform = next(iter(choices)).transforms()
    state_dict: dict[str, Tensor] | None = None
    if isinstance(weights, str):
        weights = weights.removeprefix(f"{choices.__name__}.")
    if weights is None:
        model, description = _build(name), "random"
    elif isinstance(weights, WeightsEnum) or weights in choices.__members__:
        chosen = choices[weights] if isinstance(weights, str) else weights
        if not isinstance(chosen, choices):
            raise ValueError(f"`weights` must be of {choices.__name__} for {name!r}, got {chosen}.")
        model, description, transform = _download(name, chosen, choices), str(chosen), chosen.transforms()
    elif Path(weights).suffix in WEIGHTS_FILES:
        model, description = _build(name), Path(weights).name
        state_dict = read_state_dict(Path(weights))
    else:
        raise ValueError(
            f"`weights` must be None, {', '.join(choices.__members__)}, or a file ending in {ENDINGS} for {name!r}, "
            f"got {str(weights)!r}."
        )
    classifier_name, classifier = _classifier_layer(model)
    feature_size = classifier.in_features if isinstance(classifier, nn.Linear) else classifier.in_channels
    model.set_submodule(classifier_name, nn.Identity())
    if state_dict is not None:
        features_only = {key: value for key, value in state_dict.items() if not key.startswith(f"{classifier_name}.")}
        load_state_dict(model, features_only, description)
    _set_pooling(model, name, pooling)
    return NamedNetwork(model, description, transform, feature_size)


def imagenet_transform() -> ImageClassification:
    """Return torchvision's preprocessing for ImageNet: resize to 256, crop 224, ImageNet's mean and deviation."""
    from torchvision.models import ResNet50_Weights

    return ResNet50_Weights.IMAGENET1K_V1.transforms()


def _set_pooling(model: nn.Module, name: str, pooling: str | None) -> None:
    """Check `pooling`, and replace the last average pooling of a network with maximum pooling for `"max"`."""
    from torchvision.models import VGG, AlexNet, VisionTransformer

    if pooling == "max":
        _pool_by_maximum(model, name)
    elif pooling is not None:
        own = "cls" if isinstance(model, VisionTransformer) else "avg"
        if isinstance(model, AlexNet | VGG) or pooling != own:
            possible = "None" if isinstance(model, AlexNet | VGG) else f"None or {own!r}"
            raise ValueError(f"`pooling` must be {possible} for {name!r}, which is built that way, got {pooling!r}.")


def _pool_by_maximum(model: nn.Module, name: str) -> None:
    from torchvision.ops import SqueezeExcitation

    names = [
        part_name
        for part_name, part in model.named_modules()
        if isinstance(part, nn.AdaptiveAvgPool2d)
        and part.output_size in (1, (1, 1))
        and not isinstance(model.get_submodule(part_name.rpartition(".")[0]), SqueezeExcitation)
    ]
    if not names:
        raise ValueError(f"`pooling='max'` requires a network with a layer that pools to 1 x 1, got {name!r}.")
    model.set_submodule(names[-1], nn.AdaptiveMaxPool2d(1))


def _build(name: str) -> nn.Module:
    from torchvision.models import get_model

    # With published weights, these two networks convert ImageNet's normalisation to their own.
    options = {"transform_input": True, "init_weights": False} if name in {"googlenet", "inception_v3"} else {}
    model: nn.Module = get_model(name, weights=None, **options)
    return model


def _classifier_layer(model: nn.Module) -> tuple[str, nn.Linear | nn.Conv2d]:
    """Find the last linear or convolution layer, the classifier in each of torchvision's classification models."""
    return [(name, part) for name, part in model.named_modules() if isinstance(part, nn.Linear | nn.Conv2d)][-1]


def _download(name: str, weights: WeightsEnum, choices: type[WeightsEnum]) -> nn.Module:
    from torchvision.models import get_model

    try:
        with download_timeout():
            model: nn.Module = get_model(name, weights=weights, progress=False)
    except (OSError, RuntimeError) as error:
        target = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
        raise WeightsUnavailableError(
            f"The weights {weights} of {name!r} could not be downloaded from {weights.url} ({error}). Put that file "
            f"at {target}, or choose other weights: a state-dict file, one of {', '.join(choices.__members__)}, or "
            "None (`--weights none` in the examples) for random weights."
        ) from error
    return model
