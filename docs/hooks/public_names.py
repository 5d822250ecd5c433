"""An extension of griffe and a hook of mkdocs that replace what is private on the API pages by what readers know.

A class shows the members that it inherits from private classes as its own, and names those from public classes. Private
bases are replaced by their own bases, private type aliases and constants by what they stand for.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import griffe

PRIVATE_TITLE = re.compile(r' title="[^"<>]*\bmlmetric\.(?:\w+\.)*_(?!_)\w[^"<>]*"')
# Members that torch and scikit-learn call, and no user does.
HIDDEN = ("extra_repr", "get_extra_state", "set_extra_state", "get_metadata_routing")
# Type aliases that stand for too much to be repeated; they are described where they are used.
NAMED = ("TensorLike",)
# The longest default value in a signature, in characters.
LONGEST_VALUE = 60


class PublicNames(griffe.Extension):  # type: ignore[misc, unused-ignore]
    """Change members, bases and annotations before they are rendered."""

    def on_module(self, *, mod: griffe.Module, **kwargs: Any) -> None:
        """Change the classes and functions of a package when all of its modules are known."""
        if mod.parent is not None:
            return
        exported = exported_objects(mod)
        classes = {path: obj for path, obj in exported.items() if obj.is_class}
        members = {path: inherited_members(cls, classes) for path, cls in classes.items()}
        bases = {path: public_bases(cls, classes) for path, cls in classes.items()}
        for path, cls in classes.items():
            cls.bases = bases[path]
            own = members[path].pop(path, {})
            cls.members.update({name: griffe.Alias(name, member, parent=cls) for name, member in own.items()})
            cls.extra["mlmetric"]["inherited"] = {
                exported_as(classes[base]): [name for name, member in found.items() if is_shown(member)]
                for base, found in members[path].items()
                if any(map(is_shown, found.values()))
            }
        for module in all_modules(mod):
            for obj in module.members.values():
                spell_out(obj, exported)


def on_post_page(output: str, **kwargs: Any) -> str:
    """Remove the titles of links and types that show the path of a private module."""
    return PRIVATE_TITLE.sub("", output)


def all_modules(module: griffe.Module) -> list[griffe.Module]:
    """Return a module and the modules in it."""
    children = [child for child in module.members.values() if not child.is_alias and child.is_module]
    return [module, *(found for child in children for found in all_modules(child))]


def exported_objects(package: griffe.Module) -> dict[str, griffe.Object]:
    """Return the objects that the public modules of a package export, by their paths in the source."""
    found = {}
    for module in package.members.values():
        if module.is_alias or not module.is_module or module.name.startswith("_"):
            continue
        for name in map(str, module.exports or []):
            member = module.members[name]
            obj = member.final_target if member.is_alias else member
            obj.extra["mlmetric"]["exported_as"] = f"{module.path}.{name}"
            obj.extra["mlmetric"]["summary"] = first_sentence(obj.docstring.value if obj.docstring else "")
            found[obj.path] = obj
    return found


def first_sentence(text: str) -> str:
    """Return the first sentence of a docstring."""
    paragraph = " ".join(text.partition("\n\n")[0].split())
    return re.split(r"(?<=[.])\s+(?=[A-Z`])", paragraph)[0]


def exported_as(obj: griffe.Object) -> str:
    """Return the path by which users import an object."""
    return obj.extra["mlmetric"]["exported_as"]


def inherited_members(cls: griffe.Class, public: dict[str, griffe.Class]) -> dict[str, dict[str, griffe.Object]]:
    """Return the members that a class inherits, or overrides without a docstring, by the class that shows them.

    Classes are given by their paths. A member of a private class is shown in the first public class that inherits it,
    which can be the class itself.
    """
    members = {name: alias.final_target for name, alias in cls.inherited_members.items()}
    for base in reversed(cls.mro()):
        for name, member in base.members.items():
            if name in cls.members and not has_docstring(cls.members[name]) and has_docstring(member):
                members[name] = member  # described there, whatever the class that implements it
    found: dict[str, dict[str, griffe.Object]] = {}
    for name, member in members.items():
        showing = [base.path for base in cls.mro() if base.path in public and member.parent in [base, *base.mro()]]
        found.setdefault([cls.path, *showing][-1], {})[name] = member
    return found


def has_docstring(member: griffe.Object | griffe.Alias) -> bool:
    """Return whether a member of a class, which is not imported, has a docstring."""
    return not member.is_alias and member.docstring is not None


def is_shown(member: griffe.Object) -> bool:
    """Return whether a member has a docstring, and a name that users know."""
    is_private = member.name.startswith("_") and member.name != "__call__"
    return has_docstring(member) and not is_private and member.name not in HIDDEN


def public_bases(cls: griffe.Class, public: dict[str, griffe.Class]) -> list[str | griffe.Expr]:
    """Return the bases of a class, private classes replaced by their own bases."""
    found: dict[str, str | griffe.Expr] = {}
    for base in cls.bases:
        target = object_of(base, cls)
        is_private = target is not None and target.is_class and target.path not in public
        inner = public_bases(target, public) if is_private else [base]
        found |= {str(expression): expression for expression in inner}
    return list(found.values())


def object_of(expression: Any, scope: griffe.Object) -> griffe.Object | None:
    """Return the object of the package that a name stands for, or None."""
    if not isinstance(expression, griffe.ExprName):
        return None
    try:
        found = scope.modules_collection[expression.canonical_path]
        return found.final_target if found.is_alias else found
    except (KeyError, griffe.AliasResolutionError, griffe.NameResolutionError):
        return None


def spell_out(obj: griffe.Object | griffe.Alias, exported: dict[str, griffe.Object]) -> None:
    """Replace private type aliases and constants in the signature of a function, class or attribute."""
    if obj.is_alias:
        return
    if obj.is_function:
        for parameter in obj.parameters:
            parameter.annotation = spelt_out(parameter.annotation, obj, exported)
            parameter.default = value_of(parameter.default, obj, exported)
        obj.returns = spelt_out(obj.returns, obj, exported)
    elif obj.is_attribute:
        obj.annotation = spelt_out(obj.annotation, obj, exported)
        has_private_name = re.search(r"\b_[A-Za-z]", str(obj.value)) is not None
        obj.value = None if has_private_name else value_of(obj.value, obj, exported)
    elif obj.is_class:
        for member in obj.members.values():
            spell_out(member, exported)


def value_of(expression: Any, scope: griffe.Object, exported: dict[str, griffe.Object]) -> Any:
    """Return the value of a private constant, "..." if it is long; or the expression if it is something else."""
    target = object_of(expression, scope)
    if target is None or not target.is_attribute or target.path in exported or target.value is None:
        return expression
    return value_of(target.value, target, exported) if len(str(target.value)) <= LONGEST_VALUE else "..."


def spelt_out(expression: Any, scope: griffe.Object, exported: dict[str, griffe.Object]) -> Any:
    """Return an annotation in which private type aliases are replaced by their values."""
    target = object_of(expression, scope)
    if target is not None and target.is_attribute and target.path not in exported and target.name not in NAMED:
        is_type = isinstance(target.value, griffe.ExprSubscript | griffe.ExprBinOp)
        return spelt_out(target.value, target, exported) if is_type else expression
    if isinstance(expression, griffe.Expr) and not isinstance(expression, griffe.ExprName):
        for field in dataclasses.fields(expression):
            value = getattr(expression, field.name)
            if isinstance(value, list):
                setattr(expression, field.name, [spelt_out(item, scope, exported) for item in value])
            elif isinstance(value, griffe.Expr):
                setattr(expression, field.name, spelt_out(value, scope, exported))
    return expression
