"""A pretrained network that is frozen and computes features."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from torch import Tensor, nn

from mlmetric._fingerprint import fingerprint, of_module
from mlmetric.heads._backbone_weights import ENDINGS, WEIGHTS_FILES, load_state_dict, read_state_dict
from mlmetric.heads._feature_pooling import POOLINGS, pooled_features
from mlmetric.heads._timm_backbones import PREFIX, timm_network
from mlmetric.heads._torchvision_backbones import imagenet_transform, torchvision_network

if TYPE_CHECKING:  # torchvision is imported where it is used, since it takes long to import
    from torchvision.models import WeightsEnum

_log = logging.getLogger(__name__)
_AUTOCAST_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class FrozenBackbone(nn.Module):
    """A network without its classifier, with frozen weights and batch-norm statistics.

    Frozen means that no parameter requires a gradient and that `train()` leaves the network in evaluation mode, so that
    batch-norm statistics do not change either. Submodules named in `unfrozen` are trained as in any network.

    The features of a named model are the inputs of the removed classifier. A module of your own returns a tensor, or an
    object or mapping that has the tensor `last_hidden_state`, as the vision encoders of Hugging Face do. The tensor has
    one of these shapes:

    - `(N, D)`: the features;
    - `(N, T, D)`: T tokens of each image, as transformers return, pooled over tokens;
    - `(N, D, H, W)`, or with another number of position axes: feature maps, pooled over positions.

    The token mean of your own module includes its class and register tokens, since their number is unknown; for timm
    models, the mean leaves them out. The `pooler_output` of Hugging Face is not used: many checkpoints have no weights
    for it.

    Args:
        model: Name of a torchvision classification model, such as "resnet50"; or "timm/" and the name of a timm model,
            such as "timm/vit_small_patch14_dinov2.lvd142m" (`pip install "mlmetric[timm]"`); or any module that maps a
            batch to one of the outputs above, such as `AutoModel.from_pretrained("facebook/dinov2-small")` of
            transformers; a module is frozen in place.
        weights: For a name: "DEFAULT" or another member of the model's weights enum, or its name (for timm, the name of
            the model with the tag of the weights); a file of a state dict (`.pth`, `.pt` or `.safetensors`), whatever
            its number of classes; or None for random weights. For a module: a file of a state dict, or "DEFAULT" for
            the weights that it has.
        transform: Preprocessing of an image. None for the preprocessing of the weights (timm: of the model's data
            configuration); for a file or random weights, the preprocessing of the model's first published weights. For
            a module whose first layer is a convolution of 3 channels, None means torchvision's for ImageNet: resize to
            256, crop 224, ImageNet's mean and standard deviation; this is logged as INFO. For other modules, None means
            no preprocessing. For an encoder of Hugging Face, pass its own: with its `AutoImageProcessor` as
            `processor`, `lambda image: processor(image, return_tensors="pt")["pixel_values"][0]`.
        pooling: `"avg"` for the mean over positions or tokens; `"max"` for their maximum, which detects objects that
            cover little of an image; `"cls"` for the first token, the class token. None for the network's own pooling,
            or `"avg"` if its output still has positions or tokens. A torchvision model must pool with a layer of its
            own to support `"max"`.
        unfrozen: Names of submodules that are trained, as in `named_modules()` of the network: `("layer4",)` is the
            last stage of a ResNet. Their batch-norm statistics change in training mode.
        autocast: `"bfloat16"` or `"float16"` to compute in this precision where `torch.autocast` does, which is faster
            on GPUs with tensor cores; weights and returned features are float32. None for the precision of the weights.
            The features of ResNet-50 change by 0.5 % and 0.06 %, so the fingerprint, and with it the cache, differs. In
            training, float16 requires a `torch.amp.GradScaler`. An exported model computes in the precision of its
            weights.
        channels_last: Whether weights and images are stored with the channels as the last dimension, which is faster
            for convolutional networks on GPUs with tensor cores, in particular with `autocast`. Features differ only in
            their last bits, as between devices: the fingerprint stays the same.
        compile: Whether the network is compiled by `torch.compile` when it is first called, which takes up to a few
            minutes in each process, and again for the first batch of another size. Features differ only in their last
            bits: the fingerprint stays the same. A copy, and a backbone loaded by pickle, compile again; the backbone
            of a model that `mlmetric.models` loads is not compiled.

    Attributes:
        name: Name of the model, or the class of the module.
        model: The network.
        weights: Description of the weights: "ResNet50_Weights.IMAGENET1K_V2" or "resnet50.a1_in1k" (timm), which the
            argument `weights` accepts; the name of a file, "random", or "as given" for a module.
        transform: The preprocessing; None for a module without a transform or a default.
        data_config: For a timm model the data configuration that `transform` follows by default, a dictionary of
            numbers, strings and lists; otherwise None.
        feature_size: D; None for your own module.
        autocast: The argument; it may be set later.
        channels_last: The argument.
        compiled: The argument `compile`.

    Raises:
        ImportError: If timm, or safetensors for a `.safetensors` file, is required but not installed.
        ValueError: If torchvision or timm has no such model or weights, a state dict does not match, the network has no
            submodule of a name in `unfrozen`, it does not support `pooling`, or `autocast` is neither of these
            precisions.
        WeightsUnavailableError: If the weights cannot be downloaded, or their file cannot be read.

    Examples:
        >>> import torch
        >>> from mlmetric.heads import FrozenBackbone
        >>> backbone = FrozenBackbone("squeezenet1_0", weights=None)
        >>> backbone(torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 512])
        >>> backbone.train().training
        False
    """

    # Set in the instance only where they differ, so that other backbones have the same state as without these options.
    autocast: Literal["bfloat16", "float16"] | None = None
    channels_last: bool = False
    compiled: bool = False

    def __init__(
        self,
        model: str | nn.Module,
        *,
        weights: WeightsEnum | str | Path | None = "DEFAULT",
        transform: Callable[[Any], Tensor] | None = None,
        pooling: Literal["avg", "max", "cls"] | None = None,
        unfrozen: Sequence[str] = (),
        autocast: Literal["bfloat16", "float16"] | None = None,
        channels_last: bool = False,
        compile: bool = False,
    ) -> None:
        super().__init__()
        if pooling is not None and pooling not in POOLINGS:
            raise ValueError(f"`pooling` must be None, 'avg', 'max' or 'cls', got {pooling!r}.")
        self.pooling = pooling
        self.transform = transform
        self.feature_size: int | None = None
        self.data_config: dict[str, Any] | None = None
        if isinstance(model, nn.Module):
            self.name = type(model).__name__
            self.model = model
            self.weights = _load_given(model, weights)
            if transform is None and _reads_rgb(model):
                self.transform = imagenet_transform()
                _log.info("%s has no transform of its own: images are preprocessed as for ImageNet.", self.name)
        else:
            self.name = model
            build, name = (
                (timm_network, model[len(PREFIX) :]) if model.startswith(PREFIX) else (torchvision_network, model)
            )
            network = build(name, weights, pooling)
            self.model, self.weights = network.model, network.weights
            self.feature_size, self.data_config = network.feature_size, network.data_config
            self.transform = network.transform if transform is None else transform
        self.unfrozen = _check_parts(self.model, unfrozen)
        self.requires_grad_(False)
        for part in self.unfrozen:
            self.model.get_submodule(part).requires_grad_(True)
        self.train()
        if autocast is not None:
            self.autocast = autocast
        if channels_last:
            self.channels_last = True
            self.model.to(memory_format=torch.channels_last)
        if compile:
            self.compiled = True
            self.model.compile()

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "autocast" and value not in (None, *_AUTOCAST_DTYPES):
            raise ValueError(f"`autocast` must be None, 'bfloat16' or 'float16', got {value!r}.")
        if name == "transform":  # a module is stored apart, and torch lets no function replace it
            self._modules.pop(name, None)
        super().__setattr__(name, value)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        if self.compiled:  # compiled code is not part of a state
            self.model.compile()

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
        """Compute features `(N, D)` of a batch of images, of shape `(N, 3, H, W)` for a named model.

        Raises:
            TypeError: If your own module returns neither a tensor nor an object with the tensor `last_hidden_state`.
            ValueError: If its output cannot be pooled as `pooling` says.
        """
        if self.channels_last and images.ndim == 4:
            images = images.contiguous(memory_format=torch.channels_last)
        if self.autocast is None or torch.compiler.is_exporting():
            return self._features(images)
        with torch.autocast(images.device.type, dtype=_AUTOCAST_DTYPES[self.autocast]):
            return self._features(images).float()

    def _features(self, images: Tensor) -> Tensor:
        is_pooled = self.feature_size is not None  # by the network
        return pooled_features(self.model(images), None if is_pooled else self.pooling, self.name)

    def fingerprint(self) -> str:
        """Return a digest of everything that determines the features of a preprocessed image.

        This includes the class of the network, its submodules, weights, statistics and plain attributes, the pooling,
        `autocast`, your own code, and the versions of the installed packages that it uses. It excludes what changes
        only the last bits: the device, `channels_last` and `compile`.

        Returns:
            64 hexadecimal digits.

        Raises:
            TypeError: If the network contains an object whose content cannot be compared, such as an open file; a
                method `fingerprint()` of its class can then describe it.
        """
        irrelevant = {"name", "weights", "transform", "data_config", "unfrozen", "channels_last", "compiled"}
        if self.autocast is None:
            irrelevant.add("autocast")
        parts = {name: part for name, part in of_module(self).items() if name not in irrelevant}
        return fingerprint(backbone=type(self), **parts)

    def extra_repr(self) -> str:
        """Show the settings; the transform is left out."""
        shown = f"{self.name!r}, weights={self.weights!r}, pooling={self.pooling!r}, unfrozen={self.unfrozen}"
        options = {"autocast": self.autocast, "channels_last": self.channels_last, "compile": self.compiled}
        return ", ".join([shown, *(f"{name}={value!r}" for name, value in options.items() if value)])


def _load_given(model: nn.Module, weights: WeightsEnum | str | Path | None) -> str:
    """Load the weights of a file into a module; return their description."""
    if weights == "DEFAULT":
        return "as given"
    if not isinstance(weights, str | Path) or Path(weights).suffix not in WEIGHTS_FILES:
        raise ValueError(f"`weights` must be a file ending in {ENDINGS}, or 'DEFAULT', for a module, got {weights}.")
    load_state_dict(model, read_state_dict(Path(weights)), Path(weights).name)
    return Path(weights).name


def _reads_rgb(model: nn.Module) -> bool:
    """Return whether the first layer with a weight is a convolution of 3 channels."""
    first = next((part for part in model.modules() if isinstance(getattr(part, "weight", None), Tensor)), None)
    return isinstance(first, nn.Conv2d) and first.in_channels == 3


def _check_parts(model: nn.Module, parts: Sequence[str]) -> tuple[str, ...]:
    known = dict(model.named_modules())
    for part in [parts] if isinstance(parts, str) else parts:
        if not part or part not in known or isinstance(parts, str):
            top = ", ".join(name for name, _ in model.named_children())
            raise ValueError(f"`unfrozen` must name submodules of the network, such as {top}; got {part!r}.")
    return tuple(parts)
