"""A pretrained network that stays as it is and gives features."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Self

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import WeightsEnum, get_model, get_model_weights, list_models
from torchvision.ops import SqueezeExcitation

from mlmetric._fingerprint import fingerprint, of_module

_DOWNLOAD_TIMEOUT_SECONDS = 20.0


class WeightsUnavailableError(OSError):
    """Pretrained weights could not be downloaded or read."""


class FrozenBackbone(nn.Module):
    """A network whose classifier is cut off and whose weights and statistics cannot move.

    Frozen means that no parameter takes a gradient and that `train()` leaves the network in evaluation mode, so
    that batch-norm statistics stay too. The feature is what the classifier layer would see; where that is a map
    (SqueezeNet), its mean over places. Parts that are named in `unfrozen` are trained as in any network.

    Args:
        model: The name of a torchvision classification model ("resnet50", "squeezenet1_0", ...), or any module
            that maps a batch to features `(N, D)` or feature maps `(N, D, ...)`; a module is frozen in place.
        weights: For a name: "DEFAULT" or another member of the model's weights enum, by name or itself; a
            state-dict file (`.pth` or `.pt`), which may have any number of classes; or None for random weights.
            For a module: a state-dict file, or "DEFAULT" for the weights that it has.
        transform: Preprocessing of an image. By default that of the weights; for a file or random weights that
            of the model's first published weights; for a module None.
        pooling: What becomes of the last feature map: `"avg"`, its mean over places, or `"max"`, its maximum, which
            finds what fills little of an image. Networks that do not pool by a layer of their own have no choice.
        unfrozen: Names of submodules that stay trainable, as `named_modules()` of the network has them: `("layer4",)`
            is the last stage of a ResNet. Their batch-norm statistics move in training mode.

    Attributes:
        name: The model's name, or the module's class.
        weights: What the weights are: "ResNet50_Weights.IMAGENET1K_V2", a file's name, "random", "as given".
        transform: The preprocessing.
        feature_size: D; None for a module of your own.

    Raises:
        ValueError: If torchvision has no such classification model or weights, a state dict does not fit, the network
            has no submodule of a name in `unfrozen`, or no last feature map to take the maximum of.
        WeightsUnavailableError: If weights cannot be downloaded or their file cannot be read.

    Examples:
        >>> backbone = FrozenBackbone("squeezenet1_0", weights=None)
        >>> backbone(torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 512])
        >>> backbone.train().training
        False
    """

    def __init__(
        self,
        model: str | nn.Module,
        *,
        weights: WeightsEnum | str | Path | None = "DEFAULT",
        transform: Callable[[Any], Tensor] | None = None,
        pooling: Literal["avg", "max"] = "avg",
        unfrozen: Sequence[str] = (),
    ) -> None:
        super().__init__()
        if pooling not in ("avg", "max"):
            raise ValueError(f"`pooling` must be 'avg' or 'max', got {pooling!r}.")
        self.pooling = pooling
        if isinstance(model, nn.Module):
            self.name = type(model).__name__
            self.model = model
            self.weights, self.transform = "as given", transform
            self.feature_size: int | None = None
            if weights != "DEFAULT":
                if not isinstance(weights, str | Path) or Path(weights).suffix not in {".pth", ".pt"}:
                    raise ValueError(
                        f"`weights` must be a file ending in .pth or .pt for a module, or left alone, got {weights}."
                    )
                self.weights = Path(weights).name
                _load(model, _read_state_dict(Path(weights)), self.weights)
        else:
            self.name = model
            self.model, self.weights, default_transform, self.feature_size = _torchvision_model(model, weights)
            self.transform = default_transform if transform is None else transform
        if pooling == "max" and isinstance(model, str):
            _pool_by_maximum(self.model, model)
        self.unfrozen = _check_parts(self.model, unfrozen)
        self.requires_grad_(False)
        for part in self.unfrozen:
            self.model.get_submodule(part).requires_grad_(True)
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode, whatever `mode` is, but for the parts that are unfrozen."""
        super().train(False)
        for part in self.unfrozen:
            self.model.get_submodule(part).train(mode)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Map a batch of images, `(N, 3, H, W)` for a torchvision model, to features `(N, D)`.

        Raises:
            TypeError: If the module returns anything but a tensor.
            ValueError: If `pooling` is `"max"` and the module returns no feature maps.
        """
        features: Tensor = self.model(images)
        if not isinstance(features, Tensor):
            raise TypeError(
                f"`model` must return a tensor of features, but {self.name} returns {type(features).__name__}. Wrap it "
                "in a module that picks the features out."
            )
        if features.ndim > 2:
            return features.flatten(2).mean(2) if self.pooling == "avg" else features.flatten(2).amax(2)
        if self.pooling == "max" and self.feature_size is None:
            raise ValueError(
                f"`pooling='max'` needs feature maps (N, D, ...), but {self.name} gives {tuple(features.shape)}: cut "
                "off its own pooling, or leave `pooling` alone."
            )
        return features

    def fingerprint(self) -> str:
        """Digest what determines a feature besides the preprocessed image.

        That is the network's class, its submodules, weights, statistics and plain attributes, the code of what is not
        part of an installed package, the versions of the packages that are, and the pooling.

        Raises:
            TypeError: If the network holds something that cannot be looked into, as an open file; a method
                `fingerprint()` of its class then says what it is.
        """
        beside = ("name", "weights", "transform", "unfrozen")
        made_of = {name: part for name, part in of_module(self).items() if name not in beside}
        return fingerprint(backbone=type(self), **made_of)


def _torchvision_model(
    name: str, weights: WeightsEnum | str | Path | None
) -> tuple[nn.Module, str, Callable[[Any], Tensor], int]:
    """Return the model without its classifier, what its weights are, their preprocessing, and the feature's size."""
    if name not in list_models(module=torchvision.models):
        raise ValueError(f"`model` must be the name of a torchvision classification model or a module, got {name!r}.")
    choices = get_model_weights(name)
    transform = next(iter(choices)).transforms()
    state_dict: dict[str, Tensor] | None = None
    if weights is None:
        model, description = _build(name), "random"
    elif isinstance(weights, WeightsEnum) or weights in choices.__members__:
        chosen = choices[weights] if isinstance(weights, str) else weights
        if not isinstance(chosen, choices):
            raise ValueError(f"`weights` must be of {choices.__name__} for {name!r}, got {chosen}.")
        model, description, transform = _download(name, chosen, choices), str(chosen), chosen.transforms()
    elif Path(weights).suffix in {".pth", ".pt"}:
        model, description = _build(name), Path(weights).name
        state_dict = _read_state_dict(Path(weights))
    else:
        raise ValueError(
            f"`weights` must be None, {', '.join(choices.__members__)}, or a file ending in .pth or .pt for {name!r}, "
            f"got {str(weights)!r}."
        )
    place, classifier = _classifier_layer(model)
    feature_size = classifier.in_features if isinstance(classifier, nn.Linear) else classifier.in_channels
    model.set_submodule(place, nn.Identity())
    if state_dict is not None:
        _load(model, {key: value for key, value in state_dict.items() if not key.startswith(f"{place}.")}, description)
    return model, description, transform, feature_size


def _pool_by_maximum(model: nn.Module, name: str) -> None:
    """Replace the mean over the last feature map of a torchvision model by the maximum."""
    places = [
        place
        for place, part in model.named_modules()
        if isinstance(part, nn.AdaptiveAvgPool2d)
        and part.output_size in (1, (1, 1))
        and not isinstance(model.get_submodule(place.rpartition(".")[0]), SqueezeExcitation)
    ]
    if not places:
        raise ValueError(f"`pooling='max'` needs a network that pools by a layer, to 1 x 1, which {name!r} does not.")
    model.set_submodule(places[-1], nn.AdaptiveMaxPool2d(1))


def _check_parts(model: nn.Module, parts: Sequence[str]) -> tuple[str, ...]:
    known = dict(model.named_modules())
    for part in [parts] if isinstance(parts, str) else parts:
        if not part or part not in known or isinstance(parts, str):
            top = ", ".join(name for name, _ in model.named_children())
            raise ValueError(f"`unfrozen` must name submodules of the network, such as {top}; got {part!r}.")
    return tuple(parts)


def _build(name: str) -> nn.Module:
    # These two turn ImageNet's normalisation into their own inside the network where their weights are published ones.
    options = {"transform_input": True, "init_weights": False} if name in {"googlenet", "inception_v3"} else {}
    model: nn.Module = get_model(name, weights=None, **options)
    return model


def _classifier_layer(model: nn.Module) -> tuple[str, nn.Linear | nn.Conv2d]:
    """Find the last layer with weights: in each of torchvision's classification models that is the classifier."""
    return [(place, part) for place, part in model.named_modules() if isinstance(part, nn.Linear | nn.Conv2d)][-1]


def _download(name: str, weights: WeightsEnum, choices: type[WeightsEnum]) -> nn.Module:
    try:
        with _download_timeout():
            model: nn.Module = get_model(name, weights=weights, progress=False)
    except (OSError, RuntimeError) as error:
        target = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
        raise WeightsUnavailableError(
            f"The weights {weights} of {name!r} could not be downloaded from {weights.url} ({error}). Put that file at "
            f"{target}, or choose others: a state-dict file, another of {', '.join(choices.__members__)}, or None "
            "(`--weights none` in the examples) for random weights."
        ) from error
    return model


@contextmanager
def _download_timeout() -> Iterator[None]:
    # torch.hub offers no timeout of its own; a network that swallows packets would hang for ever.
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _read_state_dict(path: Path) -> dict[str, Tensor]:
    if path.exists() and not path.is_file():  # opening a named pipe would wait for a writer
        raise WeightsUnavailableError(f"The weights file {path} is not a regular file.")
    try:
        state_dict = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise WeightsUnavailableError(f"The weights file {path} does not exist.") from error
    except Exception as error:
        # torch.load raises whatever unpickling a torn or foreign file happens to hit.
        raise WeightsUnavailableError(
            f"The weights file {path} could not be read as a torch state dict ({type(error).__name__}). "
            "Save one by `torch.save(model.state_dict(), path)`."
        ) from error
    if not isinstance(state_dict, dict):
        raise ValueError(
            f"`weights` must be a file of a state dict, a dict of tensors by name; {path} holds "
            f"{type(state_dict).__name__}."
        )
    for name, value in state_dict.items():
        kind = _kind_of_weight(name, value)
        if kind is not None:
            raise ValueError(
                f"`weights` must be a file of a state dict, a dict of tensors by name; {path} holds {kind} at {name!r}."
            )
    return state_dict


def _kind_of_weight(name: Any, value: Any) -> str | None:
    """Say what an entry of a state dict is if no weights can be taken from it."""
    if not isinstance(name, str):
        return "a name that is not a string"
    if not isinstance(value, Tensor):
        return type(value).__name__
    if value.is_meta:
        return "a tensor without content (device meta)"
    if value.layout is not torch.strided:
        return f"a sparse tensor ({value.layout})"
    return f"a tensor of {value.dtype}" if value.is_quantized or value.is_complex() else None


def _load(model: nn.Module, state_dict: dict[str, Tensor], source: str) -> None:
    expected = model.state_dict()
    missing = sorted(expected.keys() - state_dict.keys())
    unexpected = sorted(state_dict.keys() - expected.keys())
    misshapen = sorted(
        key for key in expected.keys() & state_dict.keys() if expected[key].shape != state_dict[key].shape
    )
    if missing or unexpected or misshapen:
        first = (missing + unexpected + misshapen)[0]
        raise ValueError(
            f"`weights` {source} do not fit {type(model).__name__}: {len(missing)} tensors are missing, "
            f"{len(unexpected)} unexpected, {len(misshapen)} of another shape; the first is {first!r}."
        )
    model.load_state_dict(state_dict)
