"""Fingerprints of objects: digests that are equal in two processes if the objects are equal.

An object is described by its class and its content: attributes, parameters, buffers, the elements of containers, the
bytes of arrays. Functions and classes of installed packages are identified by name and version; your own are identified
by their code and everything that the code refers to. Neither `repr`, which shows what its author chose, nor memory
addresses are used. Objects that cannot be inspected raise an error; a method `fingerprint()` can describe them.

Some content is left out because results do not depend on it: devices, whether a module is in training mode, gradients,
the statistics that pytorch-metric-learning records, values of cached properties, loggers, and weak references apart
from their targets. Of a `torch.Generator` the seed is used, not its state.
"""

from __future__ import annotations

import copyreg
import functools
import io
import logging
import pickle
import weakref
import zipfile
from collections.abc import Iterable, Mapping
from enum import Enum
from itertools import chain
from types import MappingProxyType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mlmetric._callable_parts import (
    ATOMS,
    Description,
    atom,
    callable_parts,
    class_name,
    is_found,
    is_installed,
    release,
    short,
)
from mlmetric._digest import sha256_hex

_NAMED = (torch.dtype, torch.layout, torch.memory_format)
_UNCHANGING = (*_NAMED, torch.device, np.generic)
_OF_EVERY_MODULE = frozenset(vars(nn.Module())) | {"_compiled_call_impl"}
_COUNTS = ("num_triplets", "num_pos_pairs", "num_neg_pairs", "num_pairs", "divisor")
"""Attributes that modules of pytorch-metric-learning set for each batch, even with `collect_stats=False`."""
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


def fingerprint(**objects: Any) -> str:
    """Return a digest of objects.

    Args:
        **objects: The objects; errors name each by its keyword.

    Returns:
        64 hexadecimal digits.

    Raises:
        TypeError: If an object cannot be inspected and has no method `fingerprint()`.
    """
    return _digest(describe(objects))


def _digest(lines: Mapping[str, str]) -> str:
    return sha256_hex(["\n".join(f"{place}: {lines[place]}" for place in sorted(lines))])


def describe(objects: Mapping[str, Any], *, state: Iterable[Tensor] = ()) -> dict[str, str]:
    """Describe objects line by line, so that two descriptions show where they differ.

    Args:
        objects: The objects by name.
        state: Tensors that are described by type and shape only, not by content, because they are trained or restored
            from a checkpoint.

    Returns:
        A description for each path, such as `loss.distance.p`.

    Raises:
        TypeError: If an object cannot be inspected and has no method `fingerprint()`.
    """
    traversal = _Traversal({id(tensor) for tensor in state})
    for name, value in objects.items():
        try:
            traversal.visit(value, name)
        except RecursionError:
            raise TypeError(f"{name} is nested too deeply to be described.") from None
    return traversal.lines


class _CannotInspectError(Exception):
    """The content of an object cannot be inspected; the message gives the reason."""


class _Traversal:
    """A traversal of objects: the descriptions so far, and the path at which each object was first visited."""

    def __init__(self, state: set[int], seen: Mapping[int, tuple[str, Any]] = MappingProxyType({})) -> None:
        self.state = state
        self.seen = dict(seen)  # with the objects, so that no id is reused
        self.lines: dict[str, str] = {}

    def visit(self, value: Any, place: str) -> None:
        if type(value) in ATOMS:
            self.lines[place] = atom(value)
            return
        # Whether two paths share an immutable value depends on the interpreter.
        if id(value) in self.seen and type(value) is not tuple and not isinstance(value, _UNCHANGING):
            self.lines[place] = f"the object at {self.seen[id(value)][0]}"
            return
        self.seen[id(value)] = (place, value)
        try:
            description = self._describe(value, place)
        except _CannotInspectError as error:
            raise TypeError(
                f"{place} cannot be compared with its value in another run: {error}. Give its class, or the class of "
                "the object that contains it, a method `fingerprint()` that returns a string, which must change "
                "whenever the results would change."
            ) from error
        self.lines[place] = description.text
        for step, part in description.parts:
            self.visit(part, place + step)

    def _describe(self, value: Any, place: str) -> Description:
        if isinstance(value, torch.device):
            return Description("torch.device")
        if isinstance(value, _NAMED):
            return Description(f"{type(value).__name__} {value}")
        if isinstance(value, Tensor):
            return _of_tensor(value, in_state=id(value) in self.state)
        if isinstance(value, Enum):
            return Description(f"{class_name(type(value))}.{value.name}", [(".value", value.value)])
        if type(value) is np.ndarray or isinstance(value, np.generic):
            return _of_array(np.asarray(value), class_name(type(value)))
        if type(value) in (list, tuple):
            return Description(f"{type(value).__name__} of {len(value)}", _numbered(value))
        if type(value) in (dict, MappingProxyType):
            return Description(f"dict of {short(', '.join(map(_step, value)))}", _items(value))
        if type(value) in (set, frozenset):
            elements = sorted(self._of_element(element, place) for element in value)
            return Description(f"{type(value).__name__} of {short(', '.join(elements))}")
        called = callable_parts(value)
        if called is not None:
            return called
        if isinstance(value, ModuleType):
            if not is_installed(value.__name__):
                raise _CannotInspectError(f"it is a module, {value.__name__}, any part of which may be used")
            return Description(f"module {value.__name__} of {release(value.__name__)}")
        if isinstance(value, logging.Logger):
            return Description(f"logger {value.name}")
        if isinstance(value, torch.Generator):
            return Description(f"torch.Generator seeded with {value.initial_seed()}")
        if isinstance(value, weakref.ref):
            return Description("weakref", [("()", value())])
        return self._of_object(value)

    def _of_element(self, element: Any, place: str) -> str:
        """Describe an element of a set separately, as the order of sets differs between processes."""
        if type(element) in ATOMS:
            return atom(element)
        traversal = _Traversal(self.state, self.seen)
        traversal.visit(element, f"{place}{{}}")
        return _digest(traversal.lines)

    def _of_object(self, value: Any) -> Description:
        cls = type(value)
        own_class = [] if is_installed(cls) else [(".<class>", cls)]
        has_state = bool(self.state) and isinstance(value, nn.Module) and not self.state.isdisjoint(_tensors(value))
        if callable(getattr(cls, "fingerprint", None)) and not has_state:
            given = value.fingerprint()
            if not isinstance(given, str):
                raise _CannotInspectError(f"its `fingerprint()` must return a string, got {type(given).__name__}")
            return Description(f"{class_name(cls)} with the fingerprint {short(given)}")
        if isinstance(value, torch.jit.ScriptModule):
            return Description(class_name(cls), _of_script(value, with_weights=not has_state))
        if isinstance(value, nn.Module):
            order = f" of {short(', '.join(value._modules))}" if value._modules else ""
            attributes_and_parts = [(f".{name}", part) for name, part in of_module(value).items()]
            return Description(f"{class_name(cls)}{order}", own_class + attributes_and_parts)
        return Description(class_name(cls), own_class + _of_reduced(value))


def of_module(module: nn.Module) -> dict[str, Any]:
    """Return the submodules, parameters, buffers, other attributes and hooks of a torch module.

    A compiled module is replaced by the original module.
    """
    if "_orig_mod" in module._modules:
        return {"_orig_mod": module._modules["_orig_mod"]}
    left_out = set(_OF_EVERY_MODULE)
    if hasattr(module, "reset_stats"):
        left_out |= {*_COUNTS, *getattr(module, "_record_these_stats", ())}
    if isinstance(module, torch.fx.GraphModule):
        left_out |= {"_graph", "_tracer_cls"}  # its class contains the code that torch generated from the graph
    named = module._parameters | module._buffers | module._modules | _attributes(module)
    attributes_and_parts = {name: named[name] for name in sorted(named.keys() - left_out)}
    for kind in _HOOKS:
        attributes_and_parts |= {
            f"{kind}[{number}]": hook for number, hook in enumerate(getattr(module, kind, {}).values())
        }
    return attributes_and_parts


def _of_script(module: torch.jit.ScriptModule, *, with_weights: bool) -> list[tuple[str, Any]]:
    """List the files that TorchScript saves, except those about source lines."""
    archive = zipfile.ZipFile(io.BytesIO(module.save_to_buffer()))
    kinds = ("/code/", "/constants", "/data.pkl") + (("/data/",) if with_weights else ())
    names = (name for name in archive.namelist() if any(kind in name for kind in kinds))
    return [(f"<{name}>", archive.read(name)) for name in sorted(names) if not name.endswith(".debug_pkl")]


def _tensors(module: nn.Module) -> set[int]:
    return {id(tensor) for tensor in chain(module.parameters(), module.buffers())}


def _of_tensor(value: Tensor, *, in_state: bool) -> Description:
    kind = f"{class_name(type(value))} {value.dtype}"
    if torch.nn.parameter.is_lazy(value):
        return Description(f"{kind} without a shape yet")
    kind = f"{kind} {tuple(value.shape)}"
    if in_state:
        return Description(f"{kind} {'trained' if value.requires_grad else 'not trained'}")
    if value.is_meta:
        raise _CannotInspectError("it is a tensor on the device meta, which has no content")
    parts: list[tuple[str, Any]] = []
    if not is_installed(type(value)):
        parts = [(".<class>", type(value)), *((f".{name}", part) for name, part in sorted(vars(value).items()))]
    try:
        values = value.detach()
        if values.is_quantized:
            return Description(f"{kind} quantized", [(".dequantize()", values.dequantize())])
        if values.layout is not torch.strided:
            values = values.to_sparse_coo().coalesce()  # type: ignore[no-untyped-call]
            return Description(f"{kind} sparse", [(".indices()", values.indices()), (".values()", values.values())])
        values = values.cpu().resolve_conj().resolve_neg().contiguous().flatten().view(torch.uint8)
    except (RuntimeError, NotImplementedError) as error:
        raise _CannotInspectError(f"the bytes of this tensor cannot be read ({error})") from error
    return Description(f"{kind} {sha256_hex([values.numpy().data])[:32]}", parts)


def _of_array(value: np.ndarray[Any, Any], kind: str) -> Description:
    if value.dtype.hasobject:
        return Description(f"{kind} of objects {value.shape}", _numbered(value.ravel().tolist()))
    content = sha256_hex([value.tobytes()])[:32]
    return Description(f"{kind} {np.lib.format.dtype_to_descr(value.dtype)} {value.shape} {content}")


def _of_reduced(value: Any) -> list[tuple[str, Any]]:
    """List what pickle would store of an object, and all attributes if its class is not of an installed package."""
    cls = type(value)
    reduce = copyreg.dispatch_table.get(cls)
    try:
        reduced = value.__reduce_ex__(4) if reduce is None else reduce(value)
    except Exception as error:  # a class can raise any error when it cannot be pickled
        raise _CannotInspectError(f"{class_name(cls)} has content that cannot be read ({error})") from error
    if isinstance(reduced, str):  # the name of a global of some module
        module = pickle.whichmodule(value, reduced)  # type: ignore[attr-defined]
        if not is_found(value, module, reduced):
            raise _CannotInspectError(f"{class_name(cls)} provides no content except the name {reduced!r}")
        return [("<name>", f"{module}.{reduced} ({release(module)})")]
    make, arguments, state, elements, pairs = (*reduced, None, None, None)[:5]
    parts = [("<made by>", make)] if make is not cls and getattr(make, "__module__", None) != "copyreg" else []
    parts += [(f"<argument>{step}", part) for step, part in _numbered(arguments) if part is not cls]
    attributes = _flat(state)
    if attributes is None:
        attributes = {}
        parts.append(("<state>", state))
    if not is_installed(cls):
        attributes = attributes | _attributes(value)
    cached = {name for name in attributes if isinstance(getattr(cls, name, None), functools.cached_property)}
    parts += [(f".{name}", attributes[name]) for name in sorted(attributes.keys() - cached)]
    return parts + _numbered(elements or ()) + _items(dict(pairs or ()))


def _attributes(value: Any) -> dict[str, Any]:
    """Return the attributes of an object, in its `__dict__` or its slots."""
    return _flat(object.__getstate__(value)) or {}


def _flat(state: Any) -> dict[str, Any] | None:
    """Merge the two dictionaries in which pickle stores attributes and slots; None if the state has another form."""
    parts = state if type(state) is tuple and len(state) == 2 else (state,)
    if not all(part is None or (type(part) is dict and all(type(key) is str for key in part)) for part in parts):
        return None
    return {name: part for of_kind in parts for name, part in (of_kind or {}).items()}


def _numbered(values: Iterable[Any]) -> list[tuple[str, Any]]:
    return [(f"[{number}]", value) for number, value in enumerate(values)]


def _step(key: Any) -> str:
    return atom(key) if type(key) in ATOMS else "<object>"


def _items(values: Mapping[Any, Any]) -> list[tuple[str, Any]]:
    """List the values of a mapping, and the keys that are not plain values."""
    parts = []
    for number, (key, value) in enumerate(values.items()):
        if type(key) in ATOMS:
            parts.append((f"[{_step(key)}]", value))
        else:
            parts += [(f"<key {number}>", key), (f"[<key {number}>]", value)]
    return parts
