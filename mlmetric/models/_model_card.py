"""The model card, `README.md`, in the form of the Hugging Face hub."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from mlmetric.models._backbone_config import MODULE
from mlmetric.models._module_config import custom_classes
from mlmetric.models._module_recipes import Config
from mlmetric.models._text_card import kind_of, needs_texts, num_inputs, text_extras, text_section, text_usage

_TAGS = ("multi-label-classification", "metric-learning", "embeddings")
_INPUT_TAGS = {
    "images": ("image-classification", "image-feature-extraction"),
    "texts": ("text-classification", "feature-extraction"),
    "features": (),
}
_SHOWN_ELSEWHERE = ("name", "license", "metrics", "report", "data", "limits")


def model_card(config: Config, *, source: str, backbone_license: str | None) -> str:
    """Write the model card.

    Args:
        config: The content of `config.json`. From its record, the card shows `name`, `license` (of the model), `data`
            (what it was trained and measured on), `metrics` (names and numbers) or `report` (Markdown) in their place,
            `limits`, and all other entries.
        source: What the usage example loads: the name of the folder, or the id on the hub.
        backbone_license: The licence of the weights of the backbone; None if it is not known.

    Returns:
        Markdown with YAML front matter.
    """
    record, backbone = config["record"], config["backbone"]
    extras = ["hub", *(["timm"] if backbone is not None and backbone["name"].startswith("timm/") else [])]
    install = f"mlmetric[{','.join(extras + text_extras(config))}]"
    sections = [
        _front_matter(config),
        f"# {_line(record.get('name') or 'Multi-label model')}\n\n{_summary(config)}",
        f'## Use\n\n```sh\npip install "{install}"\n```\n\n```python\n{_usage(config, source)}\n```',
        *([f"## Text\n\n{text_section(config)}"] if config.get("text") else []),
        f"## Labels\n\n{_LABELS}\n\n{_table(('label', 'threshold'), _labels(config))}",
        f"## Training\n\n{_training(config)}",
        f"## Evaluation\n\n{_evaluation(record)}",
        f"## Limits\n\n{_limits(config)}",
        f"## Licences\n\n{_licences(config, backbone_license)}",
    ]
    return "\n\n".join(sections) + "\n"


_LABELS = (
    "A label is predicted if its probability is at least its threshold; a label with the threshold inf is never "
    "predicted."
)


def _front_matter(config: Config) -> str:
    own_tags = _INPUT_TAGS[kind_of(config)]
    tags = _TAGS + own_tags
    lines = ["library_name: mlmetric"]
    lines += [f"pipeline_tag: {own_tags[0]}"] if own_tags else []
    license_name = config["record"].get("license")
    lines += [f"license: {json.dumps(license_name)}"] if isinstance(license_name, str) else []
    return "\n".join(["---", *lines, "tags:", *(f"- {tag}" for tag in tags), "---"])


def _summary(config: Config) -> str:
    kind = kind_of(config)
    inputs = "texts" if kind == "texts" else f"vectors of {num_inputs(config)} features"
    if config["backbone"] is not None:
        backbone = config["backbone"]
        inputs = f"images, by the features of {_line(backbone['name'])} (weights: {_line(backbone['weights'])})"
    inputs += ", and the texts that belong to them" if config.get("text") and kind != "texts" else ""
    return (
        f"Predicts {len(config['label_names'])} labels, of which each input can have several or none, and computes an "
        f"embedding in which inputs with similar label sets are near each other, from {inputs}. Made with "
        f"mlmetric {config['versions']['mlmetric']}."
    )


def _usage(config: Config, source: str) -> str:
    arguments = [json.dumps(source)]
    backbone, preprocessing = config["backbone"], config["preprocessing"]
    notes = []
    if backbone is not None and backbone["kind"] == MODULE:
        arguments.append("backbone=backbone")
        notes.append(f"# `backbone` is a module of the class {_line(backbone['class'])}.")
    if preprocessing is not None and preprocessing["kind"] == "custom":
        arguments.append("transform=transform")
        notes.append("# `transform` is the function that turns an image into the input of the backbone.")
    custom = sorted(custom_classes(config["embedding"]) | custom_classes(config["classifier"]))
    if custom:
        arguments.append(
            "custom_modules={" + ", ".join(f"{name!r}: {name.rpartition('.')[2]}" for name in custom) + "}"
        )
        notes.append("# The classes of `custom_modules` are the author's own.")
    text_arguments, text_notes = text_usage(config)
    arguments += text_arguments
    notes += text_notes
    kind = kind_of(config)
    inputs = {"images": '["photo.jpg"]', "texts": '["Buy one, get one free"]', "features": "features"}[kind]
    inputs += ', texts=["Buy one, get one free"]' if needs_texts(config) else ""
    if kind == "features":
        notes.append(f"features = np.zeros((1, {num_inputs(config)}), dtype=np.float32)  # in place of your own")
    return "\n".join(
        [
            *(["import numpy as np"] if kind == "features" else []),
            "from mlmetric.models import MultiLabelModel",
            "",
            *notes,
            f"model = MultiLabelModel.from_pretrained({', '.join(arguments)})",
            f"print(model.predict({inputs}))  # for each input the predicted labels with their probabilities",
            f"print(model.predict_proba({inputs}).shape)  # probabilities of all labels",
            f"print(model.embed({inputs}).shape)",
        ]
    )


def _labels(config: Config) -> Iterator[tuple[str, str]]:
    for name, threshold in zip(config["label_names"], config["thresholds"], strict=True):
        yield name, threshold if isinstance(threshold, str) else f"{threshold:.4g}"


def _training(config: Config) -> str:
    record = {"versions": config["versions"]} | config["record"]
    shown = {name: value for name, value in record.items() if name not in _SHOWN_ELSEWHERE}
    data = f"Data: {_line(record['data'])}\n\n" if record.get("data") else ""
    return data + _table(("setting", "value"), _flat(shown))


def _evaluation(record: Mapping[str, Any]) -> str:
    if isinstance(record.get("report"), str):
        return str(record["report"]).strip()
    if not record.get("metrics"):
        return "The record of the model contains no measurements."
    metrics = record["metrics"]
    return _table(("metric", "value"), _flat(metrics if isinstance(metrics, dict) else {"metrics": metrics}))


def _limits(config: Config) -> str:
    lines = [
        "Probabilities and thresholds depend on how frequent the labels were in the training data. Where they are more "
        "or less frequent, choose new thresholds on labelled examples.",
        "A label that is not in the table cannot be predicted.",
    ]
    if config["record"].get("limits"):
        lines.insert(0, _line(config["record"]["limits"]))
    return "\n".join(f"- {line}" for line in lines)


def _licences(config: Config, backbone_license: str | None) -> str:
    license_name = config["record"].get("license")
    lines = [f"Licence of the model: {_line(license_name) if license_name else 'not stated.'}"]
    if config["backbone"] is not None:
        stated = _line(backbone_license) if backbone_license else "not known to mlmetric; ask its publisher."
        lines.append(f"Licence of the backbone's weights, {_line(config['backbone']['weights'])}: {stated}")
    return "\n\n".join(lines)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """List names and values of nested dictionaries, without values that are None."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}: ")
        elif isinstance(value, float):
            yield f"{prefix}{name}", f"{value:.4g}"
        elif value is not None:
            yield f"{prefix}{name}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _table(header: tuple[str, str], rows: Iterator[tuple[str, str]] | list[tuple[str, str]]) -> str:
    lines = [header, ("---", "---"), *((_line(name), _line(value)) for name, value in rows)]
    return "\n".join(f"| {name} | {value} |" for name, value in lines)


def _line(text: Any) -> str:
    """Return a text on one line, without characters that Markdown or HTML would interpret in a table."""
    flat = " ".join(str(text).split())
    for character in "\\|<>*`[]":
        flat = flat.replace(character, f"\\{character}")
    return flat
