"""The parts of the model card about text and views."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from mlmetric.models._module_recipes import Config
from mlmetric.models._text_config import CUSTOM, OCR, SENTENCE_ENCODER, TFIDF


def kind_of(config: Config) -> Literal["images", "features", "texts"]:
    """Return what the inputs of a model are."""
    if config["backbone"] is not None:
        return "images"
    return "features" if num_inputs(config) else "texts"


def num_inputs(config: Config) -> int:
    """Return the number of features, not counting the features of the text."""
    text = config.get("text")
    return int(config["in_features"] - (text["num_features"] if text else 0))


def needs_texts(config: Config) -> bool:
    """Return whether texts must be passed with images or features, since no reader reads them."""
    text = config.get("text")
    return text is not None and text["reader"] is None and kind_of(config) != "texts"


def text_extras(config: Config) -> list[str]:
    """Return the extras of mlmetric that the text requires."""
    text = config.get("text")
    if not text:
        return []
    uses_ocr = text["reader"] is not None and text["reader"]["kind"] == OCR
    uses_model = text["encoder"]["kind"] == SENTENCE_ENCODER
    return [*(["ocr"] if uses_ocr else []), *(["sentence-transformers"] if uses_model else [])]


def text_usage(config: Config) -> tuple[list[str], list[str]]:
    """Return the arguments of `from_pretrained` for the text, and comments on them and on the texts."""
    text = config.get("text")
    if not text:
        return [], []
    encoder, reader = text["encoder"], text["reader"]
    arguments, notes = [], []
    if encoder["kind"] == CUSTOM:
        arguments.append("text_features=text_features")
        notes.append(f"# `text_features` is the fitted TextFeatures of training, by {_name(encoder)}.")
    if reader is not None and reader["kind"] == CUSTOM:
        arguments.append("text_reader=text_reader")
        notes.append(f"# `text_reader` is the function that reads the text on an image, {_name(reader)}.")
    if reader is not None:
        notes.append("# The text is read from the images, unless it is passed as `texts=[...]`.")
    return arguments, notes


def text_section(config: Config) -> str:
    """Describe encoder, reader and views of a model with text."""
    text, kind = config["text"], kind_of(config)
    encoder, reader = text["encoder"], text["reader"]
    encoders = {
        TFIDF: "TF-IDF of words and character n-grams with latent semantic analysis, learnt from the training texts",
        SENTENCE_ENCODER: f"the model {_name(encoder)} of sentence-transformers",
    }
    by = encoders.get(encoder["kind"], f"{_name(encoder)}, which is not saved with the model")
    lines = [f"Texts are encoded as {text['num_features']} features by {by}. Several texts of one input are averaged."]
    if reader is not None:
        by = "OCR (`mlmetric.text.TextReader`)" if reader["kind"] == OCR else f"OCR, by {_name(reader)}"
        lines.append(f"Where no texts are passed, the text on an image is read by {by}.")
    elif kind != "texts":
        lines.append("Texts are passed as `texts`: for each input a text, a list of texts, or None.")
    views = _views(config["embedding"]) or _views(config["classifier"])
    if views:
        listed = ", ".join(f"{_plain(name)} ({stop - start} features)" for name, (start, stop) in views.items())
        lines.append(f"Views: {listed}. An input can lack views, but not all of them.")
    return "\n\n".join(lines)


def _views(config: Config) -> Mapping[str, Any] | None:
    """Return the views of the first head in a configuration that has some."""
    views: Mapping[str, Any] | None = config.get("arguments", {}).get("views")
    return views or next(filter(None, map(_views, config.get("modules", {}).values())), None)


def _name(part: Config) -> str:
    return f"`{_plain(part['name'])}`" if "name" in part else ""


def _plain(name: Any) -> str:
    """Return a name on one line, without characters that Markdown or HTML would interpret."""
    return "".join(character for character in " ".join(str(name).split()) if character not in "\\|<>*`[]")
