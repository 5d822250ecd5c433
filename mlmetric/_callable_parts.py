"""Descriptions of functions and classes: by name and version in installed packages, otherwise by their code."""

from __future__ import annotations

import builtins
import dis
import functools
import importlib.metadata
import sys
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlmetric._digest import sha256_hex

ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes, type(...), type(NotImplemented)})
"""Types whose `repr` is the whole value."""
_MAX_LENGTH = 200
_IGNORED_NAMES = frozenset(
    {
        *("__abstractmethods__", "__annotate__", "__annotate_func__", "__annotations__", "__annotations_cache__"),
        *("__dataclass_fields__", "__dataclass_params__", "__dict__", "__doc__", "__firstlineno__", "__match_args__"),
        *("__module__", "__orig_bases__", "__parameters__", "__qualname__", "__slotnames__", "__slots__"),
        *("__static_attributes__", "__type_params__", "__weakref__", "_abc_impl"),
    }
)
"""Names in a class that do not affect the behaviour of its instances."""


@dataclass(frozen=True)
class Description:
    """A description of an object and a list of its parts.

    Attributes:
        text: The description, one line.
        parts: Pairs of the path from the object to a part, such as `.weight`, and the part.
    """

    text: str
    parts: list[tuple[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class _Code:
    """The code of a function and its global namespace; None if global names are not described."""

    code: types.CodeType
    namespace: Mapping[str, Any] | None


def atom(value: Any) -> str:
    """Return the text of a value of one of `ATOMS`."""
    if isinstance(value, bytes) and len(value) > _MAX_LENGTH:
        return f"{len(value)} bytes {sha256_hex([value])}"
    return short(repr(value))


def short(text: str) -> str:
    """Replace the end of a long text with a digest."""
    return text if len(text) <= _MAX_LENGTH else f"{text[:40]}... {sha256_hex([text])[:32]}"


@functools.cache
def release(module: str) -> str | None:
    """Return the package and version of an installed or standard module; None for any other module."""
    package = module.partition(".")[0]
    if package in sys.stdlib_module_names:
        return f"Python {sys.version_info[0]}.{sys.version_info[1]}"
    imported = sys.modules.get(package)
    files = [getattr(imported, "__file__", None), *getattr(imported, "__path__", ())]
    installed = any({"site-packages", "dist-packages"} & set(Path(file).parts) for file in files if file)
    if not installed and package != __name__.partition(".")[0]:
        return None
    version = getattr(imported, "__version__", None)
    if not isinstance(version, str):
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return None
    return f"{package} {version.partition('+')[0]}"  # the part after "+" identifies the build


def is_installed(value: Any) -> bool:
    """Return whether a module name, function or class is identified by its name and an installed package."""
    if isinstance(value, str):
        return release(value) is not None
    module = getattr(value, "__module__", None)
    return isinstance(module, str) and release(module) is not None and is_found(value, module, value.__qualname__)


def is_found(value: Any, module: str, name: str) -> bool:
    """Return whether a module has an object under a name, which may contain dots."""
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is value


def class_name(cls: type) -> str:
    """Return the name of a class, with the version of its package if it is installed."""
    name = f"{cls.__module__}.{cls.__qualname__}"
    if cls.__module__ == "builtins":
        return cls.__qualname__
    return f"{name} ({release(cls.__module__)})" if is_installed(cls) else name


def callable_parts(value: Any) -> Description | None:
    """Describe a function, a class, a method or a partial; None for anything else."""
    match value:
        case type():
            return Description(f"class {class_name(value)}", [] if is_installed(value) else _of_class(value))
        case types.FunctionType():
            return _of_function(value)
        case _Code():
            return _of_code(value)
        case types.MethodType():
            return Description("method", [(".__func__", value.__func__), (".__self__", value.__self__)])
        case types.BuiltinFunctionType() | types.MethodWrapperType():
            owner = value.__self__
            named = f"builtin {value.__module__}.{value.__qualname__}"
            return Description(named, [] if isinstance(owner, types.ModuleType | None) else [(".__self__", owner)])
        case types.MethodDescriptorType() | types.WrapperDescriptorType() | types.ClassMethodDescriptorType():
            return Description(f"method {value.__name__}", [(".__objclass__", value.__objclass__)])
        case functools.partial() if type(value) is functools.partial:
            parts = [(".func", value.func), (".args", value.args), (".keywords", value.keywords)]
            return Description("partial", parts + [(f".{name}", part) for name, part in sorted(vars(value).items())])
        case functools._lru_cache_wrapper():
            return Description("cached function", [(".__wrapped__", value.__wrapped__)])
        case staticmethod() | classmethod():
            return Description(type(value).__name__, [(".__func__", value.__func__)])
        case property():
            return Description("property", [(f".{name}", getattr(value, name)) for name in ("fget", "fset", "fdel")])
        case functools.cached_property():
            return Description("cached property", [(".func", value.func)])
    return None


def _of_function(function: types.FunctionType) -> Description:
    name = f"function {function.__module__}.{function.__qualname__}"
    known = release(function.__module__ or "")
    if known is not None and is_installed(function):
        return Description(f"{name} ({known})")
    parts: list[tuple[str, Any]] = [(".<code>", _Code(function.__code__, None if known else function.__globals__))]
    for kind in ("__defaults__", "__kwdefaults__"):
        if getattr(function, kind):
            parts.append((f".{kind}", getattr(function, kind)))
    for free, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            parts.append((f".<closure>.{free}", cell.cell_contents))
        except ValueError:
            parts.append((f".<closure>.{free}", "<empty>"))
    set_on_it = {key: part for key, part in vars(function).items() if key != "__wrapped__"}  # part of the closure
    return Description(name, parts + [(f".{key}", set_on_it[key]) for key in sorted(set_on_it)])


def _of_class(cls: type) -> list[tuple[str, Any]]:
    parts: list[tuple[str, Any]] = [(f".__bases__[{number}]", base) for number, base in enumerate(cls.__bases__)]
    for name, part in sorted(vars(cls).items()):
        if name not in _IGNORED_NAMES and not isinstance(part, types.MemberDescriptorType | types.GetSetDescriptorType):
            parts.append((f".{name}", part))
    return parts


def _of_code(wrapped: _Code) -> Description:
    """Describe code by its instructions; docstrings and line numbers are left out."""
    code = wrapped.code
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    text = repr((code.co_code, code.co_exceptiontable, names, counts))
    parts: dict[str, Any] = {}
    instructions = list(dis.get_instructions(code))
    for number, instruction in enumerate(instructions):
        if instruction.opcode in dis.hasconst:
            constant = code.co_consts[instruction.arg or 0]
            is_code = isinstance(constant, types.CodeType)
            parts[f".<constant {instruction.arg}>"] = _Code(constant, wrapped.namespace) if is_code else constant
        elif instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME") and wrapped.namespace is not None:
            name, value = instruction.argval, wrapped.namespace.get(instruction.argval, _UNDEFINED)
            for following in instructions[number + 1 :]:
                # Only the used parts of a module that is not installed are described.
                if not isinstance(value, types.ModuleType) or is_installed(value.__name__):
                    break
                if following.opname not in ("LOAD_ATTR", "LOAD_METHOD"):
                    break
                name, value = f"{name}.{following.argval}", getattr(value, following.argval, _UNDEFINED)
            if value is not _UNDEFINED or not hasattr(builtins, name):
                parts[f".<global {name}>"] = value
    return Description(f"code {sha256_hex([text])[:32]}", list(parts.items()))


_UNDEFINED = "<undefined>"
