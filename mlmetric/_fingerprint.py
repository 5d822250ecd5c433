"""What tells objects apart, in another process too: a description of all that they are made of.

An object is described by its class and its content: attributes, parameters, buffers, the elements of containers, the
bytes of arrays. Functions and classes of installed packages are known by name and version, those of the user by their
code and whatever that refers to. Nothing goes by `repr`, which shows what its author chose, nor by an address in
memory. What cannot be looked into is refused; a method `fingerprint()` then says what the object is.

Left out, for results do not depend on it: devices, whether a module is in training mode, gradients, the statistics that
pytorch-metric-learning records, values of cached properties, loggers, weak references but for what they refer to. Of a
`torch.Generator` the seed counts, not how much has been drawn.
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
    Described,
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
"""What modules of pytorch-metric-learning note of the last batch even where they collect no statistics."""
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


def fingerprint(**objects: Any) -> str:
    """Digest the description of objects, as 64 hexadecimal digits; errors call each by its keyword."""
    return _digest(describe(objects))


def _digest(lines: Mapping[str, str]) -> str:
    return sha256_hex(["\n".join(f"{place}: {lines[place]}" for place in sorted(lines))])


def describe(objects: Mapping[str, Any], *, state: Iterable[Tensor] = ()) -> dict[str, str]:
    """Describe objects line by line, so that two descriptions show where they differ.

    Args:
        objects: By the name under which each is described.
        state: Tensors of which type and shape count, not the content: what is trained, or restored from elsewhere.

    Returns:
        For each place, such as `loss.distance.p`, what is found there.

    Raises:
        TypeError: If an object cannot be looked into and does not say by a method `fingerprint()` what it is.
    """
    walk = _Walk({id(tensor) for tensor in state})
    for name, value in objects.items():
        try:
            walk.visit(value, name)
        except RecursionError:
            raise TypeError(f"{name} is nested too deeply to be described.") from None
    return walk.lines


class _Unknown(Exception):  # noqa: N818
    """An object whose content cannot be seen; the message says why."""


class _Walk:
    """The places visited so far, and which object was first seen where."""

    def __init__(self, state: set[int], seen: Mapping[int, tuple[str, Any]] = MappingProxyType({})) -> None:
        self.state = state
        self.seen = dict(seen)  # holds the objects, too: the address of one that is gone may be given to another
        self.lines: dict[str, str] = {}

    def visit(self, value: Any, place: str) -> None:
        if type(value) in ATOMS:
            self.lines[place] = atom(value)
            return
        # Whether two places share a value that cannot change is chance.
        if id(value) in self.seen and type(value) is not tuple and not isinstance(value, _UNCHANGING):
            self.lines[place] = f"the object at {self.seen[id(value)][0]}"
            return
        self.seen[id(value)] = (place, value)
        try:
            described = self._look(value, place)
        except _Unknown as error:
            raise TypeError(
                f"What {place} is cannot be compared with what it was in another run: {error}. Give its class, or "
                "that of the object that holds it, a method `fingerprint()` which returns a string, another one "
                "whenever the results would be others."
            ) from error
        self.lines[place] = described.text
        for step, part in described.parts:
            self.visit(part, place + step)

    def _look(self, value: Any, place: str) -> Described:
        if isinstance(value, torch.device):
            return Described("torch.device")
        if isinstance(value, _NAMED):
            return Described(f"{type(value).__name__} {value}")
        if isinstance(value, Tensor):
            return _of_tensor(value, in_state=id(value) in self.state)
        if isinstance(value, Enum):
            return Described(f"{class_name(type(value))}.{value.name}", [(".value", value.value)])
        if type(value) is np.ndarray or isinstance(value, np.generic):
            return _of_array(np.asarray(value), class_name(type(value)))
        if type(value) in (list, tuple):
            return Described(f"{type(value).__name__} of {len(value)}", _numbered(value))
        if type(value) in (dict, MappingProxyType):
            return Described(f"dict of {short(', '.join(map(_step, value)))}", _items(value))
        if type(value) in (set, frozenset):
            elements = sorted(self._of_element(element, place) for element in value)
            return Described(f"{type(value).__name__} of {short(', '.join(elements))}")
        called = callable_parts(value)
        if called is not None:
            return called
        if isinstance(value, ModuleType):
            if not is_installed(value.__name__):
                raise _Unknown(f"it is a module, {value.__name__}, of which anything may be used")
            return Described(f"module {value.__name__} of {release(value.__name__)}")
        if isinstance(value, logging.Logger):
            return Described(f"logger {value.name}")
        if isinstance(value, torch.Generator):
            return Described(f"torch.Generator seeded with {value.initial_seed()}")
        if isinstance(value, weakref.ref):
            return Described("weakref", [("()", value())])
        return self._of_object(value)

    def _of_element(self, element: Any, place: str) -> str:
        """Describe an element of a set, whose order differs between processes, apart from the others."""
        if type(element) in ATOMS:
            return atom(element)
        walk = _Walk(self.state, self.seen)
        walk.visit(element, f"{place}{{}}")
        return _digest(walk.lines)

    def _of_object(self, value: Any) -> Described:
        cls = type(value)
        own_class = [] if is_installed(cls) else [(".<class>", cls)]
        holds_state = bool(self.state) and isinstance(value, nn.Module) and not self.state.isdisjoint(_tensors(value))
        if callable(getattr(cls, "fingerprint", None)) and not holds_state:
            given = value.fingerprint()
            if not isinstance(given, str):
                raise _Unknown(f"its `fingerprint()` must return a string, got {type(given).__name__}")
            return Described(f"{class_name(cls)} with the fingerprint {short(given)}")
        if isinstance(value, torch.jit.ScriptModule):
            return Described(class_name(cls), _of_script(value, with_weights=not holds_state))
        if isinstance(value, nn.Module):
            order = f" of {short(', '.join(value._modules))}" if value._modules else ""
            held = [(f".{name}", part) for name, part in of_module(value).items()]
            return Described(f"{class_name(cls)}{order}", own_class + held)
        return Described(class_name(cls), own_class + _of_reduced(value))


def of_module(module: nn.Module) -> dict[str, Any]:
    """Return what a torch module holds: parts, parameters, buffers, other attributes, hooks.

    A module that torch has compiled stands for the one inside.
    """
    if "_orig_mod" in module._modules:
        return {"_orig_mod": module._modules["_orig_mod"]}
    left_out = set(_OF_EVERY_MODULE)
    if hasattr(module, "reset_stats"):
        left_out |= {*_COUNTS, *getattr(module, "_record_these_stats", ())}
    if isinstance(module, torch.fx.GraphModule):
        left_out |= {"_graph", "_tracer_cls"}  # its class has the code that torch made from the graph
    named = module._parameters | module._buffers | module._modules | _attributes(module)
    held = {name: named[name] for name in sorted(named.keys() - left_out)}
    for kind in _HOOKS:
        held |= {f"{kind}[{number}]": hook for number, hook in enumerate(getattr(module, kind, {}).values())}
    return held


def _of_script(module: torch.jit.ScriptModule, *, with_weights: bool) -> list[tuple[str, Any]]:
    """List the files that TorchScript saves, but for those about lines of the source."""
    archive = zipfile.ZipFile(io.BytesIO(module.save_to_buffer()))
    kinds = ("/code/", "/constants", "/data.pkl") + (("/data/",) if with_weights else ())
    names = (name for name in archive.namelist() if any(kind in name for kind in kinds))
    return [(f"<{name}>", archive.read(name)) for name in sorted(names) if not name.endswith(".debug_pkl")]


def _tensors(module: nn.Module) -> set[int]:
    return {id(tensor) for tensor in chain(module.parameters(), module.buffers())}


def _of_tensor(value: Tensor, *, in_state: bool) -> Described:
    kind = f"{class_name(type(value))} {value.dtype}"
    if torch.nn.parameter.is_lazy(value):
        return Described(f"{kind} without a shape yet")
    kind = f"{kind} {tuple(value.shape)}"
    if in_state:
        return Described(f"{kind} {'trained' if value.requires_grad else 'not trained'}")
    if value.is_meta:
        raise _Unknown("it is a tensor on the device meta, which has no content")
    parts: list[tuple[str, Any]] = []
    if not is_installed(type(value)):
        parts = [(".<class>", type(value)), *((f".{name}", part) for name, part in sorted(vars(value).items()))]
    try:
        values = value.detach()
        if values.is_quantized:
            return Described(f"{kind} quantized", [(".dequantize()", values.dequantize())])
        if values.layout is not torch.strided:
            values = values.to_sparse_coo().coalesce()  # type: ignore[no-untyped-call]
            return Described(f"{kind} sparse", [(".indices()", values.indices()), (".values()", values.values())])
        values = values.cpu().resolve_conj().resolve_neg().contiguous().flatten().view(torch.uint8)
    except (RuntimeError, NotImplementedError) as error:
        raise _Unknown(f"the bytes of this tensor cannot be read ({error})") from error
    return Described(f"{kind} {sha256_hex([values.numpy().data])[:32]}", parts)


def _of_array(value: np.ndarray[Any, Any], kind: str) -> Described:
    if value.dtype.hasobject:
        return Described(f"{kind} of objects {value.shape}", _numbered(value.ravel().tolist()))
    content = sha256_hex([value.tobytes()])[:32]
    return Described(f"{kind} {np.lib.format.dtype_to_descr(value.dtype)} {value.shape} {content}")


def _of_reduced(value: Any) -> list[tuple[str, Any]]:
    """List what pickle would keep of an object, and of one of a class of the user all of its attributes."""
    cls = type(value)
    reduce = copyreg.dispatch_table.get(cls)
    try:
        reduced = value.__reduce_ex__(4) if reduce is None else reduce(value)
    except Exception as error:  # whatever a class raises to say that it cannot be pickled
        raise _Unknown(f"{class_name(cls)} does not show its content ({error})") from error
    if isinstance(reduced, str):  # the name of a global of some module
        module = pickle.whichmodule(value, reduced)  # type: ignore[attr-defined]
        if not is_found(value, module, reduced):
            raise _Unknown(f"{class_name(cls)} shows no more than the name {reduced!r}")
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
    """Join what pickle keeps in two places for a class with slots; None if the state is of another form."""
    parts = state if type(state) is tuple and len(state) == 2 else (state,)
    if not all(part is None or (type(part) is dict and all(type(key) is str for key in part)) for part in parts):
        return None
    return {name: part for of_kind in parts for name, part in (of_kind or {}).items()}


def _numbered(values: Iterable[Any]) -> list[tuple[str, Any]]:
    return [(f"[{number}]", value) for number, value in enumerate(values)]


def _step(key: Any) -> str:
    return atom(key) if type(key) in ATOMS else "<object>"


def _items(values: Mapping[Any, Any]) -> list[tuple[str, Any]]:
    """List the values of a mapping, and those keys that are no plain values."""
    parts = []
    for number, (key, value) in enumerate(values.items()):
        if type(key) in ATOMS:
            parts.append((f"[{_step(key)}]", value))
        else:
            parts += [(f"<key {number}>", key), (f"[<key {number}>]", value)]
    return parts
