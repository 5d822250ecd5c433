"""Networks of timm by name, without their classifiers."""

from __future__ import annotations

from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmetric.heads._backbone_weights import (
    ENDINGS,
    WEIGHTS_FILES,
    NamedNetwork,
    WeightsUnavailableError,
    download_timeout,
    load_state_dict,
    read_state_dict,
)

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum

PREFIX = "timm/"
_TIMM_POOLING = {"avg": "avg", "max": "max", "cls": "token"}


def timm_network(name: str, weights: WeightsEnum | str | Path | None, pooling: str | None) -> NamedNetwork:
    """Build a network of timm from a name without the prefix; arguments and errors are those of `FrozenBackbone`."""
    timm = _import_timm()
    _check_name(timm, name)
    published = timm.list_models(f"{name.partition('.')[0]}.*", pretrained=True)
    if weights is None:
        model, description = timm.create_model(name, num_classes=0), "random"
    elif weights == "DEFAULT" or weights in published:
        model = _download(timm, name if weights == "DEFAULT" else str(weights))
        description = f"{model.pretrained_cfg['architecture']}.{model.pretrained_cfg['tag']}".rstrip(".")
    elif isinstance(weights, str | Path) and Path(weights).suffix in WEIGHTS_FILES:
        model, description = timm.create_model(name, num_classes=0), Path(weights).name
        classifiers = model.pretrained_cfg.get("classifier") or ()
        removed = tuple(f"{part}." for part in ([classifiers] if isinstance(classifiers, str) else classifiers))
        state_dict = read_state_dict(Path(weights))
        load_state_dict(
            model, {key: value for key, value in state_dict.items() if not key.startswith(removed)}, description
        )
    else:
        choices = ", ".join(["None", "'DEFAULT'", *map(repr, published)])
        raise ValueError(
            f"`weights` must be {choices} or a file ending in {ENDINGS} for '{PREFIX}{name}', got {str(weights)!r}."
        )
    if pooling is not None:
        _set_pooling(model, name, pooling)
    config = timm.data.resolve_model_data_config(model)
    return NamedNetwork(
        model,
        description,
        timm.data.create_transform(**config, is_training=False),
        getattr(model, "head_hidden_size", model.num_features),  # differs where layers follow the pooling
        {key: list(value) if isinstance(value, tuple) else value for key, value in config.items()},
    )


def _import_timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise ImportError(
            f'Models named "{PREFIX}..." are built by timm, which is not installed: pip install "mlmetric[timm]".'
        ) from error
    return timm


def _check_name(timm: Any, name: str) -> None:
    tagged = timm.list_models(pretrained=True)
    if name in tagged or ("." not in name and timm.is_model(name)):
        return
    close = get_close_matches(name, [*timm.list_models(), *tagged], cutoff=0.7)
    advice = f"Close names: {', '.join(repr(PREFIX + match) for match in close)}. " if close else ""
    raise ValueError(
        f"`model` must be '{PREFIX}' and the name of a timm model, got '{PREFIX}{name}'. {advice}All names: "
        "`timm.list_models(pretrained=True)`."
    )


def _set_pooling(model: Any, name: str, pooling: str) -> None:
    try:
        model.reset_classifier(0, _TIMM_POOLING[pooling])  # unlike an argument of `create_model`, keeps the norm layers
    except AssertionError as error:
        reason = f" ({error})" if str(error) else ""
        raise ValueError(f"`pooling={pooling!r}` is not possible for '{PREFIX}{name}'{reason}.") from error


def _download(timm: Any, name: str) -> Any:
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise ValueError(
            f"`weights` must be None or a file ending in {ENDINGS} for '{PREFIX}{name}': there are no published "
            "weights of this network."
        )
    source = f"https://huggingface.co/{config.hf_hub_id}" if config.hf_hub_id else config.url
    try:
        with download_timeout():
            _check_connection(config)
            return timm.create_model(name, pretrained=True, num_classes=0)
    except Exception as error:  # of the networks' libraries, which have no common base class
        reason = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
        raise WeightsUnavailableError(
            f"The weights of '{PREFIX}{name}' could not be downloaded from {source} ({reason}). Pass a state-dict file "
            f"({ENDINGS}) as `weights`, or None (`--weights none` in the examples) for random weights."
        ) from error


def _check_connection(config: Any) -> None:
    """Raise an error at once if the hub cannot be reached: timm would try each of three files for 15 seconds."""
    if not config.hf_hub_id:
        return
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError

    files = [config.hf_hub_filename] if config.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
    if any(isinstance(try_to_load_from_cache(config.hf_hub_id, file), str) for file in files):
        return
    with suppress(EntryNotFoundError):  # also an answer: timm then looks for other files
        get_hf_file_metadata(hf_hub_url(config.hf_hub_id, files[0]))
