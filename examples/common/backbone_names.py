"""Check the name of a backbone and of its weights without importing torchvision, which takes seconds."""

from __future__ import annotations

import ast
import zipfile
from difflib import get_close_matches
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_KNOWN = "resnet50"  # in every version of torchvision; if it is not found, the source has another form


@cache
def torchvision_backbones() -> dict[str, tuple[str, ...]]:
    """Read the names of torchvision's classification models from its source, without importing it.

    Returns:
        For each model the names of its weights. Empty if torchvision is not installed, or if its source cannot be read
        or does not have the form in which torchvision 0.14 and later registers models.
    """
    spec = find_spec("torchvision")
    if spec is None or spec.origin is None:
        return {}
    found: dict[str, tuple[str, ...]] = {}
    for path in sorted((Path(spec.origin).parent / "models").glob("*.py")):
        try:
            text = path.read_text(encoding="utf-8")
            module = ast.parse(text if "register_model" in text else "")
        except (OSError, ValueError, SyntaxError, SystemError):  # the last in threads, by a defect of Python 3.11
            return {}
        found |= _registered_models(module)
    return found if _KNOWN in found else {}


def check_backbone(name: str, weights: str) -> None:
    """Check the name of a torchvision model, and the name or the file of its weights, before the slow imports.

    Names with a slash, such as "timm/NAME", belong to other libraries and are not checked here, nor is any name if the
    source of torchvision cannot be read; `FrozenBackbone` checks them.

    Args:
        name: The name of the model.
        weights: The name of its weights, "none" for random weights, or a file that ends in .pth or .pt.

    Raises:
        ValueError: If torchvision has no such model, the model has no such weights, or the file does not exist, is not
            one that `torch.save` writes, or is truncated.
    """
    if weights.endswith((".pth", ".pt")):
        _check_weights_file(Path(weights))
    models = torchvision_backbones()
    if "/" in name or not models:
        return
    if name not in models:
        similar = get_close_matches(name, models, n=3)
        raise ValueError(
            f"--backbone must be the name of a torchvision classification model, such as {_KNOWN}, got {name}."
            + (f" Similar names: {', '.join(similar)}." if similar else "")
        )
    if weights != "none" and not weights.endswith((".pth", ".pt")) and weights not in models[name]:
        raise ValueError(
            f"--weights must be {', '.join(models[name])}, none, or a file ending in .pth or .pt for {name}, got "
            f"{weights}."
        )


def _registered_models(module: ast.Module) -> dict[str, tuple[str, ...]]:
    """Return the models that a module of torchvision registers, with the names of their weights."""
    weights = {
        node.name: tuple(
            target.id
            for statement in node.body
            if isinstance(statement, ast.Assign)
            for target in statement.targets
            if isinstance(target, ast.Name)
        )
        for node in module.body
        if isinstance(node, ast.ClassDef) and any(_name(base) == "WeightsEnum" for base in node.bases)
    }
    models = {}
    for node in module.body:
        if isinstance(node, ast.FunctionDef) and any(_name(part) == "register_model" for part in node.decorator_list):
            arguments = {argument.arg: argument.annotation for argument in node.args.kwonlyargs}
            annotation = arguments.get("weights")
            parts = [_name(part) for part in ast.walk(annotation)] if annotation else []
            models[node.name] = next((weights[part] for part in parts if part in weights), ())
    return models


def _name(node: ast.AST) -> str:
    """Return the name of a variable, or of a function that is called; otherwise an empty string."""
    node = node.func if isinstance(node, ast.Call) else node
    return node.id if isinstance(node, ast.Name) else ""


def _check_weights_file(path: Path) -> None:
    if not path.is_file():
        raise ValueError(f"--weights {path} is not a file.")
    with path.open("rb") as file:
        is_pickle = file.read(1) == b"\x80"  # the format of torch before version 1.6
    if not is_pickle and not zipfile.is_zipfile(path):
        raise ValueError(f"--weights {path} is not a file that torch.save wrote, or it is truncated.")
