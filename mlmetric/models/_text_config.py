"""The text of a model as JSON: how texts are encoded, and how they are read from images."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mlmetric.heads import WeightsUnavailableError
from mlmetric.models._module_config import full_name
from mlmetric.models._module_recipes import Config
from mlmetric.models._pretrained_folder import TERMS, Terms
from mlmetric.models._record import to_json
from mlmetric.models._text_inputs import ReadText
from mlmetric.text import SentenceEncoder, TextReader, TfidfEncoder
from mlmetric.text._text_features import TextFeatures

if TYPE_CHECKING:
    from mlmetric.models._multi_label_model import MultiLabelModel

TFIDF, SENTENCE_ENCODER, CUSTOM, OCR = "tfidf", "sentence_encoder", "custom", "TextReader"
_KINDS_OF_TERMS = {"words", "characters"}
_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")
_EXAMPLE_SIZE = 32


class SavedText(NamedTuple):
    """The saved description of the text of a model.

    Attributes:
        config: The entry `text` of `config.json`; None without text.
        terms: The terms of a `TfidfEncoder` by kind; None for other encoders.
        tensors: The tensors of a `TfidfEncoder` by their names in `model.safetensors`.
    """

    config: Config | None
    terms: Terms | None = None
    tensors: Mapping[str, Tensor] = {}


def describe_text(model: MultiLabelModel) -> SavedText:
    """Describe how a model encodes and reads texts.

    Args:
        model: The model.

    Returns:
        A `TfidfEncoder` by value, a model of sentence-transformers on the Hugging Face hub by its name and a digest,
        and any other encoder only by its name; a `TextReader` by its parameters, and any other reader by its name.

    Raises:
        ImportError: If the encoder requires sentence-transformers, which is not installed.
        WeightsUnavailableError: If the model of a `SentenceEncoder` cannot be loaded.
    """
    if model.text_features is None:
        return SavedText(None)
    encoder, terms, tensors = model.text_features.encoder_, None, {}
    described: Config = {"kind": CUSTOM, "name": _name_of(encoder)}
    if type(encoder) is TfidfEncoder:
        settings, arrays = encoder.get_state()
        terms = settings.pop("terms")
        described = {"kind": TFIDF, "settings": to_json(settings)}
        tensors = {f"text_features.{name}": torch.from_numpy(array) for name, array in arrays.items()}
    elif type(encoder) is SentenceEncoder and not Path(encoder.name).exists():
        described = {
            "kind": SENTENCE_ENCODER,
            "name": str(encoder.name),
            "batch_size": int(encoder.batch_size),
            "digest": encoder.fingerprint(),
            "version": importlib.metadata.version("sentence-transformers"),
        }
    reader: Config | None = None
    if type(model.text_reader) is TextReader:
        reader = {"kind": OCR, "settings": model.text_reader.to_config()}
    elif model.text_reader is not None:
        reader = {"kind": CUSTOM, "name": _name_of(model.text_reader)}
    config = {
        "num_features": model.num_text_features,
        "batch_size": int(model.text_features.batch_size),
        "encoder": described,
        "reader": reader,
        "example": _example(model.text_features),
    }
    return SavedText(config, terms, tensors)


def _example(text_features: TextFeatures) -> Config:
    """Return a text and its first features, which check text features that are passed when the model is loaded."""
    names = getattr(text_features.encoder_, "get_feature_names_out", None)
    terms = [] if names is None else [str(name) for name in names()[:_EXAMPLE_SIZE]]
    text = " ".join(["Buy one, get one free.", *terms])
    return {"text": text, "features": text_features.transform([text])[0, :_EXAMPLE_SIZE].tolist()}


def check_text_config(config: Config) -> None:
    """Check the entry `text` of a configuration, which models without text lack.

    Raises:
        ValueError: If it is damaged.
    """
    text = config.get("text")
    if text is None:
        return
    if not isinstance(text, dict) or not all(_is_size(text.get(key)) for key in ("num_features", "batch_size")):
        raise ValueError("`text` is not described by `num_features` and `batch_size`, whole numbers from 1.")
    example = text.get("example")
    if not isinstance(example, dict) or not isinstance(example.get("text"), str) or "features" not in example:
        raise ValueError("`example` of `text` is not described by a text and its features.")
    for key in ("encoder", "reader"):
        part = text.get(key)
        if part is None and key == "reader":
            continue
        described = part if isinstance(part, dict) else {}
        kind = described.get("kind")
        detail, cls = ("settings", dict) if kind in (TFIDF, OCR) else ("name", str)
        if not isinstance(kind, str) or not isinstance(described.get(detail), cls):
            raise ValueError(f"`{key}` of `text` is not described by its kind and its {detail}.")
    if (text["encoder"]["kind"] == TFIDF) != (config.get("terms") is not None):
        raise ValueError(f"`terms` must describe {TERMS} for the encoder {TFIDF!r}, and for no other.")


def text_tensors(config: Config | None, terms: Terms | None) -> nn.Module:
    """Return a module with the tensors of a `TfidfEncoder`, on the device meta; with no tensors for other encoders.

    Raises:
        ValueError: If the terms are of other kinds.
    """
    module = nn.Module()
    if config is not None and terms is not None:
        if not terms.keys() <= _KINDS_OF_TERMS:
            raise ValueError(f"{TERMS} must contain the kinds of terms {sorted(_KINDS_OF_TERMS)}, got {sorted(terms)}.")
        with torch.device("meta"):
            for kind, values in terms.items():
                module.register_buffer(f"idf_{kind}", torch.empty(len(values)))
            num_terms = sum(map(len, terms.values()))
            module.register_buffer("projection", torch.empty(num_terms, config["num_features"]))
    return module


def build_text_features(
    config: Config | None, terms: Terms | None, tensors: nn.Module, given: TextFeatures | None
) -> TextFeatures | None:
    """Rebuild the text features of a model.

    Args:
        config: The entry `text` of `config.json`.
        terms: The terms of a `TfidfEncoder`, or None.
        tensors: The module that `text_tensors` returned, with values.
        given: The text features that the caller passed, which are used instead of the saved ones.

    Returns:
        The text features; None for a model without text.

    Raises:
        ValueError: If the text features must be passed, have another number of features, or cannot be rebuilt.
        WeightsUnavailableError: If a model of sentence-transformers cannot be loaded.
        ImportError: If sentence-transformers is required but not installed.
    """
    if config is None:
        if given is not None:
            raise ValueError("the model has no text, so `text_features` must be None.")
        return None
    size = config["num_features"]
    if given is not None:
        found = len(given.get_feature_names_out())
        if found != size:
            raise ValueError(f"`text_features` must have {size} features, as in training, got {found}.")
        example = config["example"]
        values = given.transform([example["text"]])[0, :_EXAMPLE_SIZE]
        if not np.allclose(values, example["features"], rtol=1e-3, atol=1e-4):
            raise ValueError(
                f"`text_features` must be those of training, but the features of {example['text']!r:.100} differ."
            )
        return given
    encoder = config["encoder"]
    if encoder["kind"] == TFIDF:
        arrays = {name: tensor.numpy() for name, tensor in tensors.named_buffers()}
        try:
            built: Any = TfidfEncoder.from_state({**encoder["settings"], "terms": terms}, arrays)
        except (LookupError, TypeError, ValueError) as error:
            raise ValueError(f"the TfidfEncoder cannot be made from its settings ({error}).") from error
    elif encoder["kind"] == SENTENCE_ENCODER:
        built = _sentence_encoder(encoder)
    elif encoder["kind"] == CUSTOM:
        raise ValueError(
            f"the texts are encoded by {encoder['name']}, which is not saved: pass the fitted TextFeatures of training "
            "as `text_features=`."
        )
    else:
        raise ValueError(f"`text` has an encoder of a kind that this mlmetric does not know: {encoder['kind']!r}.")
    return TextFeatures._of_encoder(built, size, batch_size=config["batch_size"])


def build_text_reader(config: Config | None, given: ReadText | None) -> ReadText | None:
    """Rebuild the reader of the text on images.

    Args:
        config: The entry `text` of `config.json`.
        given: The reader that the caller passed, which is used instead of the saved one.

    Returns:
        The reader; None if there is none.

    Raises:
        ValueError: If the reader must be passed, or cannot be made from its settings.
    """
    reader = None if config is None else config["reader"]
    if given is not None or reader is None:
        return given
    if reader["kind"] == OCR:
        try:
            return TextReader(**reader["settings"])
        except (TypeError, ValueError) as error:
            raise ValueError(f"the TextReader cannot be made from its settings ({error}).") from error
    if reader["kind"] == CUSTOM:
        raise ValueError(
            f"the text on images is read by code of your own, {reader['name']}, which is not saved: pass it as "
            "`text_reader=`."
        )
    raise ValueError(f"`text` has a reader of a kind that this mlmetric does not know: {reader['kind']!r}.")


def _sentence_encoder(config: Config) -> SentenceEncoder:
    name, batch_size = config["name"], config.get("batch_size")
    other = "or pass the TextFeatures of training as `text_features=`"
    if not _HUB_NAME.fullmatch(name) or Path(name).exists():  # code in a folder can be run when it is loaded
        raise ValueError(f"the encoder {name!r} is not the name of a model on the Hugging Face hub: use one, {other}.")
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"`batch_size` of the encoder must be a whole number from 1, got {batch_size!r}.")
    encoder = SentenceEncoder(name, batch_size=batch_size)
    try:
        digest = encoder.fingerprint()
    except WeightsUnavailableError as error:
        raise WeightsUnavailableError(
            f"The model encodes texts by {name!r}: make it available, {other}. {error}"
        ) from error
    if digest != config.get("digest"):
        raise ValueError(
            f"the encoder {name!r} is not the one that the model was trained with: its weights or settings, or the "
            f"version of sentence-transformers (then {config.get('version')}, now "
            f"{importlib.metadata.version('sentence-transformers')}) differ. Install that version, {other}."
        )
    return encoder


def _name_of(value: Any) -> str:
    """Return the name of a function, or of the class of another object, with its module."""
    if isinstance(value, SentenceEncoder):
        return f"SentenceEncoder({str(value.name)!r})"
    qualname = getattr(value, "__qualname__", None)
    return f"{value.__module__}.{qualname}" if isinstance(qualname, str) else full_name(type(value))


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
