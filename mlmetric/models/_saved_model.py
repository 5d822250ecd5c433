"""Saving and loading of a model: its description in JSON, its tensors and its card."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
from torch import Tensor, nn

import mlmetric
from mlmetric.heads import FrozenBackbone
from mlmetric.models import _hub, _text_config
from mlmetric.models._backbone_config import REFERENCE, build_backbone, describe_backbone, weights_license
from mlmetric.models._model_card import model_card
from mlmetric.models._model_parts import check_names, read_thresholds
from mlmetric.models._module_config import CustomModules, build_modules, describe_modules, owned_tensors
from mlmetric.models._module_recipes import Config
from mlmetric.models._preprocessing_config import CUSTOM, Transform, build_transform, describe_transform
from mlmetric.models._pretrained_folder import (
    FORMAT,
    FORMAT_VERSION,
    load_tensors,
    read_config,
    read_terms,
    write_folder,
)
from mlmetric.models._record import thresholds_from_json, thresholds_to_json, to_json
from mlmetric.models._save_check import check_heads
from mlmetric.models._text_inputs import ReadText
from mlmetric.text._text_features import TextFeatures

if TYPE_CHECKING:
    from mlmetric.models._multi_label_model import MultiLabelModel

Model = TypeVar("Model", bound="MultiLabelModel")
Built = TypeVar("Built")


def save_pretrained(
    model: MultiLabelModel,
    folder: str | os.PathLike[str],
    *,
    backbone: Literal["reference", "value"] = "reference",
    source: str | None = None,
) -> None:
    """Save a model.

    Args:
        model: The model.
        folder: The folder, created if it does not exist. A model in it is replaced when all files are complete. If the
            process ends between the replacement of two files, or two processes save to the folder at the same time, the
            folder may contain no model that can be loaded, but never a mixture of two models.
        backbone: `"reference"` saves the name and a digest of the backbone's weights if torchvision or timm publishes
            them and no part was `unfrozen`, and its tensors otherwise; `"value"` always saves its tensors.
        source: The name that the example in the model card loads; None for the name of the folder.

    Raises:
        ValueError: If `backbone` is neither `"reference"` nor `"value"`, a module has a state that is not made of
            tensors, a model made from the files would have other outputs, or names or thresholds that were changed do
            not fit the labels.
        OSError: If a file cannot be written.
        ImportError: If safetensors is not installed.
    """
    if backbone not in ("reference", "value"):
        raise ValueError(f"`backbone` must be 'reference' or 'value', got {backbone!r}.")
    names = check_names(model.label_names, len(model.label_names))  # names and thresholds may have been changed
    heads = describe_modules({"embedding": model.embedding, "classifier": model.classifier})
    check_heads(model, heads)
    text = _text_config.describe_text(model)
    config: Config = {
        "format": FORMAT,
        "format_version": 1 if text.config is None else FORMAT_VERSION,
        "library_name": "mlmetric",
        "versions": {"mlmetric": mlmetric.__version__, "torch": str(torch.__version__)},
        "label_names": names,
        "thresholds": thresholds_to_json(read_thresholds(model.thresholds, len(names))),
        "in_features": model.in_features,
        "feature_names": model.feature_names,
        **heads,
        "backbone": None if model.backbone is None else describe_backbone(model.backbone, backbone),
        "preprocessing": None if model.backbone is None else describe_transform(model.backbone),
        **({} if text.config is None else {"text": text.config}),
        "record": to_json(model.record),
    }
    card = model_card(
        config,
        source=Path(folder).resolve().name if source is None else source,
        backbone_license=None if model.backbone is None else weights_license(model.backbone),
    )
    write_folder(folder, config, {**_saved_tensors(model, config), **text.tensors}, card, text.terms)


def _saved_tensors(model: nn.Module, config: Config) -> dict[str, Tensor]:
    """Return the tensors that `model.safetensors` contains: without thresholds and public weights of a backbone.

    Args:
        model: The model, or a module with its parts.
        config: The content of `config.json`.
    """
    is_reference = config["backbone"] is not None and config["backbone"]["kind"] == REFERENCE
    left_out = ("thresholds", "text_reader.", "backbone." if is_reference else "backbone.transform.")
    return {name: tensor for name, tensor in owned_tensors(model).items() if not name.startswith(left_out)}


def from_pretrained(
    cls: type[Model],
    folder_or_id: str | os.PathLike[str],
    *,
    backbone: nn.Module | None = None,
    transform: Transform | None = None,
    text_features: TextFeatures | None = None,
    text_reader: ReadText | None = None,
    custom_modules: CustomModules | None = None,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
) -> Model:
    """Load a model.

    Args:
        cls: The class of the model.
        folder_or_id: A folder; or, if there is no such folder, the id of a model on the Hugging Face hub,
            "user/name". Files of the hub are kept in a cache.
        backbone: The backbone, or the module in it. Required if it was a module of your own; its tensors are loaded
            into it. With public weights, a backbone that you pass must have the same weights as in training.
        transform: The preprocessing of images. Required if it was code of your own; used instead of the saved one.
        text_features: The fitted `TextFeatures` of training. Required if its encoder was neither a `TfidfEncoder` nor a
            model of sentence-transformers on the Hugging Face hub; used instead of the saved one.
        text_reader: The reader of the text on images. Required if it was code of your own, not a `TextReader`; used
            instead of the saved one.
        custom_modules: For the full name of each class in the embedding or classifier that does not belong to mlmetric
            or torch, such as "my_package.MyHead", a function without arguments that makes such a module, or a module,
            which is copied; its tensors are loaded into it.
        revision: Branch, tag or commit on the hub; None for the main branch.
        cache_dir: Folder of the hub's cache; None for the cache of huggingface_hub.
        local_files_only: Whether to use only files that are already in the cache.
        token: Token of the hub for a private model; None for the saved one.

    Returns:
        The model, on the CPU and in evaluation mode.

    Raises:
        FileNotFoundError: If the folder does not exist, or lacks a file.
        ValueError: If a file is damaged, truncated, or written by another library or a newer version, or a part of your
            own is not given; the message names the file.
        WeightsUnavailableError: If public weights of the backbone, or the encoder of texts, cannot be downloaded.
        OSError: If a file cannot be read, or the model cannot be downloaded.
        ImportError: If safetensors, huggingface_hub, timm or sentence-transformers is required but not installed.
    """
    folder = Path(folder_or_id)
    if not folder.is_dir():
        folder = _hub.download(
            os.fspath(folder_or_id),
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            token=token,
        )
    config = read_config(folder)
    path = folder / "config.json"
    _in_file(path, lambda: _text_config.check_text_config(config))
    terms = read_terms(folder, config)
    with torch.random.fork_rng(devices=[]):  # initial values of tensors are drawn, and then replaced
        parts = _in_file(path, lambda: _build_parts(config, backbone, transform, custom_modules or {}))
    tensors = _in_file(path, lambda: _text_config.text_tensors(config.get("text"), terms))
    parts.register_module("text_features", tensors)
    load_tensors(folder, config, parts, _saved_tensors(parts, config))
    text: dict[str, Any] = _in_file(
        path,
        lambda: {
            "text_features": _text_config.build_text_features(config.get("text"), terms, tensors, text_features),
            "text_reader": _text_config.build_text_reader(config.get("text"), text_reader),
        },
    )
    return _in_file(path, lambda: _assemble(cls, config, parts, text)).eval()


def _in_file(path: Path, build: Callable[[], Built]) -> Built:
    """Call a function, and name the file in its errors."""
    try:
        return build()
    except RecursionError as error:
        raise ValueError(f"{path} is damaged: its modules are nested too deeply.") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _build_parts(
    config: Config, backbone: nn.Module | None, transform: Transform | None, custom_modules: CustomModules
) -> nn.Module:
    """Return a module with the parts of the model, under the same names as in the model."""
    parts = nn.Module()
    heads = build_modules({name: config[name] for name in ("embedding", "classifier")}, custom_modules)
    built: FrozenBackbone | None = None
    if config["backbone"] is not None:
        preprocessing = config["preprocessing"]
        is_custom = preprocessing is not None and preprocessing.get("kind") == CUSTOM
        if transform is None and is_custom and isinstance(backbone, FrozenBackbone):
            transform = backbone.transform
        built = build_backbone(config["backbone"], given=backbone, transform=build_transform(preprocessing, transform))
    elif backbone is not None:
        raise ValueError("the model has no backbone, so `backbone` must be None.")
    for name, part in {"backbone": built, **heads}.items():
        parts.register_module(name, part)
    return parts


def _assemble(cls: type[Model], config: Config, parts: Any, text: dict[str, Any]) -> Model:
    return cls(
        parts.embedding,
        parts.classifier,
        backbone=parts.backbone,
        **text,
        label_names=config["label_names"],
        thresholds=thresholds_from_json(config["thresholds"]),
        in_features=config["in_features"],
        feature_names=config["feature_names"],
        record=config["record"],
    )


def push_to_hub(
    model: MultiLabelModel,
    repo_id: str,
    *,
    backbone: Literal["reference", "value"] = "reference",
    private: bool | None = None,
    token: str | bool | None = None,
    commit_message: str = "Upload a multi-label model",
    revision: str | None = None,
) -> str:
    """Save a model to the Hugging Face hub.

    Args:
        model: The model.
        repo_id: The id of the model, "user/name"; created if it does not exist.
        backbone: How the backbone is saved; see `save_pretrained`.
        private: Whether a new model is private; None for the default of the account.
        token: Token of the hub; None for the saved one.
        commit_message: Message of the commit.
        revision: The branch, created if it does not exist; None for the main branch.

    Returns:
        The address of the commit.

    Raises:
        ImportError: If huggingface_hub or safetensors is not installed.
        OSError: If the upload fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(model, folder, backbone=backbone, source=repo_id)
        return _hub.upload(
            folder, repo_id, private=private, token=token, commit_message=commit_message, revision=revision
        )
