"""Modules as JSON: heads of mlmetric and layers of torch by class name and arguments, other modules by class name only.

A module is rebuilt from such a configuration by the constructors listed here. No name in a configuration is imported.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mlmetric.heads import CalibratedClassifier, ClassifierEnsemble, EmbeddingEnsemble, LabelNetwork, Standardize
from mlmetric.models._module_recipes import RECIPES, Config
from mlmetric.models._record import to_json

CustomModules = Mapping[str, nn.Module | Callable[[], nn.Module]]
_DEEPEST = 50

_BY_NAME = {cls.__name__: recipe for cls, recipe in RECIPES.items()}


def describe_modules(modules: Mapping[str, nn.Module]) -> dict[str, Config]:
    """Describe modules as JSON.

    Args:
        modules: The modules by name.

    Returns:
        For each name a configuration: `class`, `arguments` and `modules`, its submodules. A module that occurs twice is
        described once; the second time, `same_as` is the path of its first occurrence. A module of another class has
        only its full `class` name.
    """
    paths: dict[nn.Module, str] = {}
    return {name: _describe(module, name, paths) for name, module in modules.items()}


def _describe(module: nn.Module, path: str, paths: dict[nn.Module, str]) -> Config:
    if module in paths:
        return {"same_as": paths[module]}
    paths[module] = path
    recipe = RECIPES.get(type(module))
    if recipe is None:
        return {"class": full_name(type(module))}
    children = {
        name: _describe(child, f"{path}.{name}", paths)
        for name, child in module._modules.items()
        if child is not None and (recipe.children is None or name in recipe.children)
    }
    described: Config = {"class": type(module).__name__}
    arguments = to_json(recipe.arguments(module))  # sizes can be numpy's integers
    return described | ({"arguments": arguments} if arguments else {}) | ({"modules": children} if children else {})


def custom_classes(config: Config) -> set[str]:
    """Return the names of the classes in a configuration that belong neither to mlmetric nor to torch."""
    children = config.get("modules", {}).values()
    own = {config["class"]} if "." in config.get("class", "") else set()
    return own.union(*map(custom_classes, children))


def full_name(cls: type) -> str:
    """Return the name of a class with its module, such as "my_package.MyHead"."""
    return f"{cls.__module__}.{cls.__qualname__}"


def build_modules(configs: Mapping[str, Config], custom_modules: CustomModules) -> dict[str, nn.Module]:
    """Rebuild modules from their configurations; their tensors are still on the device meta.

    Such a tensor has a shape but no values, so that wrong sizes in a configuration take no memory.

    Args:
        configs: A configuration for each name.
        custom_modules: For the full name of each class that does not belong to mlmetric or torch, a module, or a
            function that makes one. The tensors of these modules have values.

    Returns:
        The modules by name.

    Raises:
        ValueError: If a class is unknown, or cannot be made from its arguments.
        TypeError: If an entry of `custom_modules` neither is nor makes a module.
    """
    built: dict[str, nn.Module] = {}
    return {name: _build(config, name, built, custom_modules) for name, config in configs.items()}


def _build(config: Any, path: str, built: dict[str, nn.Module], custom_modules: CustomModules) -> nn.Module:
    if path.count(".") > _DEEPEST:
        raise ValueError(f"The modules are nested too deeply: at most {_DEEPEST} levels are read.")
    if isinstance(config, dict) and isinstance(config.get("same_as"), str) and config["same_as"] in built:
        return built[config["same_as"]]
    if not isinstance(config, dict) or not isinstance(config.get("class"), str):
        raise ValueError(f"`{path}` is not described by a class name.")
    name = config["class"]
    recipe = _BY_NAME.get(name)
    if recipe is None:
        built[path] = _custom(name, path, custom_modules)
        return built[path]
    arguments, children = config.get("arguments", {}), config.get("modules", {})
    if not isinstance(arguments, dict) or not isinstance(children, dict):
        raise ValueError(f"`{path}`, {name}, has arguments or modules that are not described by name.")
    if not arguments.keys().isdisjoint({"device", "dtype"}):
        raise ValueError(f"`{path}`, {name}, has a device or dtype among its arguments.")
    parts = {child: _build(part, f"{path}.{child}", built, custom_modules) for child, part in children.items()}
    try:
        with torch.device("meta"):
            built[path] = recipe.build(**arguments, **parts)
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"`{path}`, {name}, cannot be made from its arguments ({error}).") from error
    return built[path]


def _custom(name: str, path: str, custom_modules: CustomModules) -> nn.Module:
    given = custom_modules.get(name)
    if given is None:
        short = name.rpartition(".")[2]
        raise ValueError(
            f"`{path}` is of the class {name}, which is not part of this mlmetric: pass `custom_modules={{{name!r}: "
            f"{short}}}` with a function without arguments that makes one, such as the class itself, or with a module."
        )
    # Each occurrence has its own tensors, as a module that is saved once and used twice is described by `same_as`.
    module = copy.deepcopy(given) if isinstance(given, nn.Module) else given()
    if not isinstance(module, nn.Module):
        raise TypeError(f"`custom_modules[{name!r}]` must be a torch module or make one, got {type(module).__name__}.")
    return module


def owned_tensors(model: nn.Module) -> dict[str, Tensor]:
    """List the parameters and persistent buffers of a module by their names in its state dict.

    A submodule that occurs twice is listed once, under its first name.

    Args:
        model: The module.

    Returns:
        The tensors themselves, in the order of the submodules.

    Raises:
        ValueError: If a submodule adds anything other than tensors to its state dict.
    """
    tensors: dict[str, Tensor] = {}
    for path, module in model.named_modules():
        if type(module).get_extra_state is not nn.Module.get_extra_state:
            raise ValueError(
                f"`{path}`, {type(module).__name__}, has a state that is not made of tensors (`get_extra_state`), "
                "which cannot be saved without pickle: register it as buffers."
            )
        persistent = {
            name: buffer for name, buffer in module._buffers.items() if name not in module._non_persistent_buffers_set
        }
        for name, tensor in (module._parameters | persistent).items():
            if tensor is not None:
                tensors[f"{path}.{name}" if path else name] = tensor
    return tensors


def set_tensor(module: nn.Module, name: str, values: Tensor) -> None:
    """Replace a parameter or buffer, even one on the device meta."""
    path, _, name = name.rpartition(".")
    owner = module.get_submodule(path)
    if name in owner._parameters:
        owner.register_parameter(name, nn.Parameter(values))
    else:
        owner.register_buffer(name, values)


def input_size(module: nn.Module) -> int | None:
    """Return the number of features that a head takes; None if it cannot be read from it."""
    size = getattr(module, "in_features", None)
    if isinstance(size, int):
        return size
    part = getattr(module, "standardize", None)
    if isinstance(part, Standardize):
        return len(part.mean)
    if isinstance(module, LabelNetwork):
        return input_size(module.head)
    if isinstance(module, CalibratedClassifier):
        return input_size(module.classifier)
    if isinstance(module, EmbeddingEnsemble | ClassifierEnsemble):
        return next((size for size in map(input_size, module.members) if size is not None), None)
    if isinstance(module, nn.Sequential) and len(module):
        return input_size(module[0])
    return None
