"""The frozen backbone as JSON: a reference to public weights, or its architecture with its tensors in a file."""

from __future__ import annotations

import re
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mlmetric._digest import sha256_hex
from mlmetric.heads import FrozenBackbone, WeightsUnavailableError
from mlmetric.models._module_config import full_name, owned_tensors
from mlmetric.models._module_recipes import Config
from mlmetric.models._preprocessing_config import Transform

REFERENCE, VALUE, MODULE = "reference", "value", "module"
_TIMM = re.compile(r"timm/[\w.-]+")  # timm's other names, with a colon, are addresses of files


def describe_backbone(backbone: FrozenBackbone, store: Literal["reference", "value"]) -> Config:
    """Describe a backbone as JSON.

    Args:
        backbone: The backbone.
        store: `"reference"` for a reference where its weights are public and unchanged; `"value"` for its tensors.

    Returns:
        The configuration. `kind` states how the backbone is stored: `"reference"`, with a digest of its tensors;
        `"value"`, an architecture of torchvision or timm whose tensors are saved; or `"module"`, a class of the user,
        whose tensors are saved.
    """
    config: Config = {
        "kind": MODULE,
        "name": backbone.name,
        "weights": backbone.weights,
        "pooling": backbone.pooling,
        "unfrozen": list(backbone.unfrozen),
    }
    if backbone.autocast is not None:
        config["autocast"] = backbone.autocast
    if backbone.weights == "as given" or not _has_public_architecture(backbone.name):
        return config | {"class": full_name(type(backbone.model))}
    if store == REFERENCE and _has_public_weights(backbone.name, backbone.weights) and _is_unchanged(backbone):
        return config | {"kind": REFERENCE, "digest": digest(backbone.model)}
    return config | {"kind": VALUE}


def digest(model: nn.Module) -> str:
    """Return a digest of the names, shapes, dtypes and bytes of a module's tensors, 64 hexadecimal digits."""

    def blocks(name: str, tensor: Tensor) -> tuple[str, Any]:
        values = tensor.detach().cpu().contiguous().flatten()
        return f"{name} {tensor.dtype} {tuple(tensor.shape)}\n", values.view(torch.uint8).numpy().data

    tensors = owned_tensors(model)
    return sha256_hex(block for name in sorted(tensors) for block in blocks(name, tensors[name]))


def weights_license(backbone: FrozenBackbone) -> str | None:
    """Return the licence of the weights that torchvision or timm states, or None."""
    if _torchvision_weights(backbone.name, backbone.weights) is not None:
        from torchvision.models import get_model_weights

        stated = get_model_weights(backbone.name)[backbone.weights.rpartition(".")[2]].meta.get("license")
    elif _has_public_weights(backbone.name, backbone.weights):
        stated = getattr(backbone.model, "pretrained_cfg", {}).get("license")
    else:
        stated = None
    return stated if isinstance(stated, str) else None


def build_backbone(config: Any, *, given: nn.Module | None, transform: Transform | None) -> FrozenBackbone:
    """Rebuild a backbone; if it is stored by value, its tensors still have initial values.

    Args:
        config: What `describe_backbone` returned.
        given: The backbone or module that the caller passed, which is used instead of a new one.
        transform: The preprocessing.

    Returns:
        The backbone.

    Raises:
        ValueError: If the module must be passed, the configuration is not valid, or public weights differ from the
            weights that the model was trained with.
        WeightsUnavailableError: If public weights cannot be downloaded.
        ImportError: If the backbone is a timm model and timm is not installed.
    """
    if not isinstance(config, dict) or not all(isinstance(config.get(key), str) for key in ("kind", "name", "weights")):
        raise ValueError("`backbone` is not described by kind, name and weights.")
    kind, name, weights = config["kind"], config["name"], config["weights"]
    unfrozen = config.get("unfrozen")
    if not isinstance(unfrozen, list) or not all(isinstance(part, str) for part in unfrozen):
        raise ValueError(f"`unfrozen` of `backbone` must be a list of names, got {unfrozen!r}.")
    autocast = config.get("autocast")
    if autocast not in (None, "bfloat16", "float16"):
        raise ValueError(f"`autocast` of `backbone` must be None, 'bfloat16' or 'float16', got {autocast!r}.")
    settings: Any = {"pooling": config.get("pooling"), "unfrozen": unfrozen, "autocast": autocast}
    if isinstance(given, FrozenBackbone):
        if given.pooling != settings["pooling"]:
            raise ValueError(f"`backbone` must pool by {settings['pooling']!r}, as in training, got {given.pooling!r}.")
        if given.autocast != autocast:
            raise ValueError(
                f"`backbone` must have the precision `autocast={autocast!r}`, as in training, got {given.autocast!r}. "
                "Another can be set after loading: `model.backbone.autocast = ...`."
            )
        backbone = given
    elif given is not None:
        backbone = FrozenBackbone(given, **settings)
    elif kind == MODULE:
        raise ValueError(
            f"the backbone is a module of your own, {config.get('class')}, whose code is not saved: pass it as "
            "`backbone=`; its tensors are loaded into it."
        )
    elif kind == VALUE and _has_public_architecture(name):
        backbone = FrozenBackbone(name, weights=None, **settings)
    elif kind == REFERENCE and _has_public_weights(name, weights):
        backbone = _public_backbone(name, weights, settings)
    else:
        raise ValueError(f"`backbone` is not one that this mlmetric knows: {name!r} with the weights {weights!r}.")
    backbone.transform = transform
    if kind == REFERENCE:
        if digest(backbone.model) != config.get("digest"):
            raise ValueError(
                f"the weights {weights} of {name!r} are not those that the model was trained with: their digests "
                "differ. Pass a backbone with the right weights as `backbone=`."
            )
    else:
        backbone.name, backbone.weights = name, weights
    return backbone


def _public_backbone(name: str, weights: str, settings: Any) -> FrozenBackbone:
    try:
        return FrozenBackbone(name, weights=_torchvision_weights(name, weights) or weights, **settings)
    except WeightsUnavailableError as error:
        raise WeightsUnavailableError(
            "The model refers to the published weights of its backbone: pass a file of them as "
            f"`backbone=FrozenBackbone({name!r}, weights=FILE)`, or save the model with `backbone='value'`. {error}"
        ) from error


def _has_public_architecture(name: str) -> bool:
    import torchvision

    return bool(_TIMM.fullmatch(name)) or name in torchvision.models.list_models(torchvision.models)


def _has_public_weights(name: str, weights: str) -> bool:
    if _TIMM.fullmatch(name):
        return weights not in ("random", "as given") and not weights.endswith((".pth", ".pt", ".safetensors"))
    return _torchvision_weights(name, weights) is not None


def _is_unchanged(backbone: FrozenBackbone) -> bool:
    """Return whether the weights are neither trained, as far as that can be seen, nor converted to another dtype."""
    if any(parameter.requires_grad for parameter in backbone.parameters()):  # also those that the user has unfrozen
        return False
    dtypes = {tensor.dtype for tensor in owned_tensors(backbone.model).values() if tensor.is_floating_point()}
    return not backbone.unfrozen and dtypes <= {torch.float32}


def _torchvision_weights(name: str, weights: str) -> str | None:
    """Return the member of torchvision's weights enum with this description, such as "IMAGENET1K_V2"; None if none."""
    import torchvision
    from torchvision.models import get_model_weights

    if name not in torchvision.models.list_models(torchvision.models):
        return None
    return next((choice.name for choice in get_model_weights(name) if str(choice) == weights), None)
