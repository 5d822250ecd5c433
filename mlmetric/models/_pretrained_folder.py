"""The folder of a saved model: `config.json`, `model.safetensors`, `README.md` and, for some, `text_terms.json`.

None of them contains code.
"""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mlmetric._atomic_write import atomic_write
from mlmetric._digest import sha256_hex
from mlmetric.models._module_config import set_tensor
from mlmetric.models._module_recipes import Config

Terms = dict[str, list[str]]

CONFIG, WEIGHTS, CARD, TERMS = "config.json", "model.safetensors", "README.md", "text_terms.json"
FORMAT, FORMAT_VERSION = "mlmetric.MultiLabelModel", 2
"""Version 2 has the entry `text`; models without text are written in version 1."""
_REQUIRED: dict[str, Any] = {
    "label_names": list,
    "thresholds": list,
    "in_features": int,
    "embedding": dict,
    "classifier": dict,
    "weights": dict,
    "record": dict,
    "feature_names": list | None,
    "backbone": dict | None,
    "preprocessing": dict | None,
}


def write_folder(
    folder: str | os.PathLike[str], config: Config, tensors: dict[str, Tensor], card: str, terms: Terms | None
) -> None:
    """Write the files; `config.json` comes last and contains the digests of tensors and terms.

    All files are complete before the first of them replaces an older one. If the process ends between these
    replacements, there is no `config.json`, or its digest differs from the digest of the new tensors: no part of a
    model can be loaded.

    Args:
        folder: The folder; created if it does not exist.
        config: The content of `config.json`, without the digests.
        tensors: The content of `model.safetensors`.
        card: The content of `README.md`.
        terms: The content of `text_terms.json`; None for no such file.

    Raises:
        OSError: If a file cannot be written.
        ImportError: If safetensors is not installed.
    """
    files = {CARD: card.encode(), WEIGHTS: _serialized(tensors)}
    config = config | {"weights": _identity(WEIGHTS, files[WEIGHTS])}
    if terms is not None:
        files[TERMS] = json.dumps(terms, ensure_ascii=False, indent=0).encode(errors="surrogatepass")
        config |= {"terms": _identity(TERMS, files[TERMS])}
    text = json.dumps(config, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    with ExitStack() as stack:  # renames the last file first
        for name, content in ({CONFIG: text.encode()} | files).items():
            stack.enter_context(atomic_write(Path(folder) / name)).write(content)
    if terms is None:
        (Path(folder) / TERMS).unlink(missing_ok=True)


def _identity(name: str, content: bytes) -> Config:
    return {"file": name, "sha256": sha256_hex([content])}


def _serialized(tensors: dict[str, Tensor]) -> bytes:
    save = _safetensors().save
    separate, seen = {}, set()
    for name, tensor in tensors.items():
        values = tensor.detach().cpu().contiguous()
        memory = values.untyped_storage().data_ptr()
        separate[name] = values.clone() if memory in seen else values  # the format has no shared memory
        seen.add(memory)
    data: bytes = save(separate, metadata={"format": "pt"})
    return data


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ImportError as error:
        raise ImportError('Saved models require safetensors: `pip install "mlmetric[hub]"`.') from error
    return safetensors.torch


def read_config(folder: Path) -> Config:
    """Read and check `config.json`.

    Args:
        folder: The folder of the model.

    Returns:
        Its content, with the keys and types that a model needs.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or was written by another library or a newer version.
        OSError: If it cannot be read.
    """
    path = folder / CONFIG
    try:
        text = path.read_bytes()
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{folder} contains no saved model: {CONFIG} is missing, as in a folder whose writing was interrupted."
        ) from error
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: it is not valid JSON ({error}).") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        library = config.get("library_name") or config.get("model_type") if isinstance(config, dict) else None
        other = f", but of {library!r}" if isinstance(library, str) else ""
        raise ValueError(f"{path} is not the configuration of a model of mlmetric{other}: `format` is not {FORMAT!r}.")
    version = config.get("format_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ValueError(f"{path} is damaged: `format_version` must be a number from 1, got {version!r}.")
    if version > FORMAT_VERSION:
        raise ValueError(
            f"{path} has the format version {version}, but this mlmetric reads up to {FORMAT_VERSION}: install a newer "
            f"mlmetric (the model was saved by {_written_by(config)})."
        )
    for key, kinds in _REQUIRED.items():
        if key not in config or not isinstance(config[key], kinds):
            found = "is missing" if key not in config else f"is a {type(config[key]).__name__}"
            raise ValueError(f"{path} is damaged: `{key}` {found}.")
    names = config["label_names"] + (config["feature_names"] or [])
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"{path} is damaged: a name of a label or feature is not a text.")
    return config


def read_terms(folder: Path, config: Config) -> Terms | None:
    """Read `text_terms.json`.

    Args:
        folder: The folder of the model.
        config: The content of `config.json`.

    Returns:
        The terms of each kind; None if the model has no such file.

    Raises:
        FileNotFoundError: If it is missing.
        ValueError: If it is damaged, or not the file that the model was saved with.
        OSError: If it cannot be read.
    """
    if config.get("terms") is None:
        return None
    path = folder / TERMS
    data = _read(path)
    _check_digest(path, data, config["terms"])
    terms = json.loads(data)
    if not isinstance(terms, dict) or not all(isinstance(values, list) for values in terms.values()):
        raise ValueError(f"{path} is damaged: it does not contain lists of terms.")
    return terms


def _written_by(config: Config) -> str:
    versions = config.get("versions")
    return f"mlmetric {versions.get('mlmetric')}" if isinstance(versions, dict) else "an unknown version"


def load_tensors(folder: Path, config: Config, module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Read `model.safetensors` into the tensors of a module, which get the dtypes of the file.

    Args:
        folder: The folder of the model.
        config: The content of `config.json`.
        module: The module.
        tensors: The tensors of the module that the file contains, by name. A tensor on the device meta is replaced.

    Raises:
        FileNotFoundError: If the file is missing.
        ValueError: If it is not a safetensors file, is truncated, has other tensors than the model, or other content
            than when it was saved.
        OSError: If it cannot be read.
        ImportError: If safetensors is not installed.
    """
    path = folder / WEIGHTS
    load = _safetensors().load
    data = _read(path)
    try:
        loaded: dict[str, Tensor] = load(data)
    except Exception as error:  # the errors of safetensors have no common class with those of its conversion to torch
        raise ValueError(
            f"{path} is truncated or not a safetensors file ({error}); files of other formats, such as pickle, are not "
            "loaded."
        ) from error
    missing, unexpected = sorted(tensors.keys() - loaded.keys()), sorted(loaded.keys() - tensors.keys())
    other = [name for name in tensors if name in loaded and _kind(loaded[name]) != _kind(tensors[name])]
    if missing or unexpected or other:
        first = (missing + unexpected + other)[0]
        raise ValueError(
            f"{path} does not match {CONFIG}: missing tensors: {len(missing)}, unexpected: {len(unexpected)}, "
            f"of another shape or type: {len(other)}; the first is {first!r}."
        )
    _check_digest(path, data, config["weights"])
    with torch.no_grad():
        for name, tensor in tensors.items():
            if tensor.is_meta:
                set_tensor(module, name, loaded[name])
            else:
                tensor.data = loaded[name].to(tensor.device)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path.parent} contains no complete model: {path.name} is missing.") from error


def _check_digest(path: Path, data: bytes, identity: Any) -> None:
    if not isinstance(identity, dict) or sha256_hex([data]) != identity.get("sha256"):
        raise ValueError(
            f"{path} is not the file that {CONFIG} was saved with: their digests differ, as after an interrupted save "
            "or damage on the disk. Save or download the model again."
        )


def _kind(tensor: Tensor) -> tuple[torch.Size, bool]:
    return tensor.shape, tensor.is_floating_point()
