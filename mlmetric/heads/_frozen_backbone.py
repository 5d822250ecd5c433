"""A pretrained network that is frozen and computes features."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from torch import Tensor, nn

from mlmetric._fingerprint import fingerprint, of_module

if TYPE_CHECKING:  # torchvision is imported where it is used, since it takes long to import
    from torchvision.models import WeightsEnum

_DOWNLOAD_TIMEOUT_SECONDS = 20.0


class WeightsUnavailableError(OSError):
    """Pretrained weights could not be downloaded or read."""


class FrozenBackbone(nn.Module):
    """A network without its classifier, whose weights and statistics do not change.

    Frozen means that no parameter requires a gradient and that `train()` leaves the network in evaluation mode, so that
    batch-norm statistics do not change either. The features are the inputs of the removed classifier; for a feature
    map, as in SqueezeNet, they are its mean over positions. Submodules named in `unfrozen` are trained as in any
    network.

    Args:
        model: Name of a torchvision classification model, such as "resnet50", or any module that maps a batch to
            features `(N, D)` or feature maps `(N, D, ...)`; a module is frozen in place.
        weights: For a name: "DEFAULT" or another member of the model's weights enum, or its name; a file of a state
            dict (`.pth` or `.pt`), whatever its number of classes; or None for random weights. For a module: a file of
            a state dict, or "DEFAULT" for the weights that it has.
        transform: Preprocessing of an image. None for the preprocessing of the weights; for a file or random weights,
            that of the model's first published weights; for a module, none.
        pooling: Pooling of the last feature map over positions: `"avg"` or `"max"`, which detects objects that cover
            little of an image. A torchvision model must pool with a layer of its own to support `"max"`.
        unfrozen: Names of submodules that are trained, as in `named_modules()` of the network: `("layer4",)` is the
            last stage of a ResNet. Their batch-norm statistics change in training mode.

    Attributes:
        name: Name of the model, or the class of the module.
        model: The network.
        weights: Description of the weights: "ResNet50_Weights.IMAGENET1K_V2", the name of a file, "random", or
            "as given" for a module.
        transform: The preprocessing.
        feature_size: D; None for your own module.

    Raises:
        ValueError: If torchvision has no such classification model or weights, a state dict does not match, the network
            has no submodule of a name in `unfrozen`, or it does not support `pooling`.
        WeightsUnavailableError: If weights cannot be downloaded, or their file cannot be read.

    Examples:
        >>> import torch
        >>> from mlmetric.heads import FrozenBackbone
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
                        f"`weights` must be a file ending in .pth or .pt, or 'DEFAULT', for a module, got {weights}."
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
        """Set the mode of unfrozen submodules; all others stay in evaluation mode.

        Args:
            mode: Whether unfrozen submodules are in training mode.

        Returns:
            The backbone.
        """
        super().train(False)
        for part in self.unfrozen:
            self.model.get_submodule(part).train(mode)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Compute features `(N, D)` of a batch of images, of shape `(N, 3, H, W)` for a torchvision model.

        Raises:
            TypeError: If your own module does not return a tensor.
            ValueError: If `pooling` is `"max"`, but your own module does not return feature maps.
        """
        features: Tensor = self.model(images)
        if not isinstance(features, Tensor):
            raise TypeError(
                f"`model` must return a tensor of features, but {self.name} returns {type(features).__name__}. Wrap it "
                "in a module that returns the features only."
            )
        if features.ndim > 2:
            return features.flatten(2).mean(2) if self.pooling == "avg" else features.flatten(2).amax(2)
        if self.pooling == "max" and self.feature_size is None:
            raise ValueError(
                f"`pooling='max'` requires feature maps (N, D, ...), but {self.name} returns {tuple(features.shape)}: "
                "remove its own pooling, or use `pooling='avg'`."
            )
        return features

    def fingerprint(self) -> str:
        """Return a digest of everything that determines the features of a preprocessed image.

        This includes the class of the network, its submodules, weights, statistics and plain attributes, the pooling,
        your own code, and the versions of the installed packages that it uses.

        Returns:
            64 hexadecimal digits.

        Raises:
            TypeError: If the network contains an object whose content cannot be compared, such as an open file; a
                method `fingerprint()` of its class can then describe it.
        """
        irrelevant = ("name", "weights", "transform", "unfrozen")
        parts = {name: part for name, part in of_module(self).items() if name not in irrelevant}
        return fingerprint(backbone=type(self), **parts)

    def extra_repr(self) -> str:
        """Show the settings; the transform is left out."""
        return f"{self.name!r}, weights={self.weights!r}, pooling={self.pooling!r}, unfrozen={self.unfrozen}"


def _torchvision_model(
    name: str, weights: WeightsEnum | str | Path | None
) -> tuple[nn.Module, str, Callable[[Any], Tensor], int]:
    """Return the model without its classifier, the description of its weights, their preprocessing, and D."""
    import torchvision
    from torchvision.models import WeightsEnum, get_model_weights, list_models

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
    classifier_name, classifier = _classifier_layer(model)
    feature_size = classifier.in_features if isinstance(classifier, nn.Linear) else classifier.in_channels
    model.set_submodule(classifier_name, nn.Identity())
    if state_dict is not None:
        features_only = {key: value for key, value in state_dict.items() if not key.startswith(f"{classifier_name}.")}
        _load(model, features_only, description)
    return model, description, transform, feature_size


def _pool_by_maximum(model: nn.Module, name: str) -> None:
    """Replace the average pooling of the last feature map of a torchvision model with maximum pooling."""
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


def _check_parts(model: nn.Module, parts: Sequence[str]) -> tuple[str, ...]:
    known = dict(model.named_modules())
    for part in [parts] if isinstance(parts, str) else parts:
        if not part or part not in known or isinstance(parts, str):
            top = ", ".join(name for name, _ in model.named_children())
            raise ValueError(f"`unfrozen` must name submodules of the network, such as {top}; got {part!r}.")
    return tuple(parts)


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
        with _download_timeout():
            model: nn.Module = get_model(name, weights=weights, progress=False)
    except (OSError, RuntimeError) as error:
        target = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
        raise WeightsUnavailableError(
            f"The weights {weights} of {name!r} could not be downloaded from {weights.url} ({error}). Put that file "
            f"at {target}, or choose other weights: a state-dict file, one of {', '.join(choices.__members__)}, or "
            "None (`--weights none` in the examples) for random weights."
        ) from error
    return model


@contextmanager
def _download_timeout() -> Iterator[None]:
    # torch.hub has no timeout: it would wait forever on a network that drops packets.
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
        # Damaged files, and files of other formats, raise errors of many types.
        raise WeightsUnavailableError(
            f"The weights file {path} could not be read as a torch state dict ({type(error).__name__}). "
            "Save one with `torch.save(model.state_dict(), path)`."
        ) from error
    if not isinstance(state_dict, dict):
        raise ValueError(
            f"`weights` must be a file of a state dict, a dict of tensors by name; {path} contains "
            f"{type(state_dict).__name__}."
        )
    for name, value in state_dict.items():
        kind = _kind_of_weight(name, value)
        if kind is not None:
            raise ValueError(
                f"`weights` must be a file of a state dict, a dict of tensors by name; {path} has {kind} for {name!r}."
            )
    return state_dict


def _kind_of_weight(name: Any, value: Any) -> str | None:
    """Return why an entry of a state dict is unusable as weights, or None."""
    if not isinstance(name, str):
        return "a name that is not a string"
    if not isinstance(value, Tensor):
        return type(value).__name__
    if value.is_meta:
        return "a tensor without data (device meta)"
    if value.layout is not torch.strided:
        return f"a sparse tensor ({value.layout})"
    return f"a tensor of {value.dtype}" if value.is_quantized or value.is_complex() else None


def _load(model: nn.Module, state_dict: dict[str, Tensor], source: str) -> None:
    expected = model.state_dict()
    missing = sorted(expected.keys() - state_dict.keys())
    unexpected = sorted(state_dict.keys() - expected.keys())
    mismatched = sorted(
        key for key in expected.keys() & state_dict.keys() if expected[key].shape != state_dict[key].shape
    )
    if missing or unexpected or mismatched:
        first = (missing + unexpected + mismatched)[0]
        raise ValueError(
            f"`weights` {source} do not match {type(model).__name__}: {len(missing)} tensors are missing, "
            f"{len(unexpected)} are unexpected, {len(mismatched)} have another shape; the first is {first!r}."
        )
    model.load_state_dict(state_dict)
