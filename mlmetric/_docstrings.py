"""Docstrings that include inherited parameters, so that `help` shows all of them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, TypeVar

Documented = TypeVar("Documented", bound=Callable[..., Any])

_SECTION = re.compile(r"^(\w+):\n((?:[ \t]+\S.*\n?|\n(?=[ \t]))+)", re.MULTILINE)
_ENTRY = re.compile(r"^    (\*{0,2}\w+):(?:.*\n?)(?:^(?:     +.*|)\n?)*", re.MULTILINE)


def inherit_docs(*sources: Callable[..., Any], **phrases: str) -> Callable[[Documented], Documented]:
    """Complete the docstring of a function or class from the docstrings of others.

    If the `Args` section lacks a parameter of the signature, its description is copied from the first source that has
    one. The parameters then follow the order of the signature. If the docstring has no section `Returns` or `Raises`,
    the section is copied from the first source that has it.

    Args:
        *sources: Functions or classes with docstrings in Google style.
        **phrases: For a parameter, a text in the inherited description and its replacement, such as
            `k="looked at=>searched"`.

    Returns:
        A decorator that changes the `__doc__` of an object and returns the object.

    Raises:
        ValueError: If no docstring describes a parameter, or an inherited description lacks the text to replace.

    Examples:
        >>> from mlmetric._docstrings import inherit_docs
        >>> def first(rows):
        ...     '''Return the first row.
        ...
        ...     Args:
        ...         rows: Shape `(N, D)`.
        ...     '''
        >>> @inherit_docs(first)
        ... def last(rows):
        ...     '''Return the last row.'''
        >>> print(last.__doc__)
        Return the last row.
        <BLANKLINE>
        Args:
            rows: Shape `(N, D)`.
        <BLANKLINE>
    """

    def decorate(target: Documented) -> Documented:
        doc = inspect.getdoc(target)
        if doc is None:  # under `python -OO`
            return target
        parents = [_sections(inspect.getdoc(source) or "") for source in sources]
        sections = _sections(doc)
        described = _entries(sections.get("Args", ""))
        inherited: dict[str, str] = {}
        for parent in reversed(parents):
            inherited |= _entries(parent.get("Args", ""))
        for name, phrase in phrases.items():
            old, new = phrase.split("=>")
            if old not in inherited[name]:
                raise ValueError(f"{target.__qualname__}: no {old!r} in the inherited description of `{name}`.")
            inherited[name] = inherited[name].replace(old, new)
        entries = {}
        for name in _parameters(target):
            if name not in described and name not in inherited:
                raise ValueError(f"{target.__qualname__}: `{name}` is described neither here nor in {sources}.")
            entries[name] = described.get(name, inherited.get(name, ""))
        parts = {"Args": "".join(entries.values())}
        for title in ("Returns", "Raises"):
            for parent in parents:
                if title in parent:
                    parts.setdefault(title, parent[title])
        summary = doc[: min((m.start() for m in _SECTION.finditer(doc)), default=len(doc))].rstrip()
        ordered: list[str] = [
            title for title in ("Args", "Returns", "Attributes", "Raises", "Warns") if title in parts | sections
        ]
        ordered += [title for title in sections if title not in ordered]
        merged = parts | {title: text for title, text in sections.items() if title != "Args"}
        target.__doc__ = summary + "".join(f"\n\n{title}:\n{merged[title].rstrip()}" for title in ordered) + "\n"
        return target

    return decorate


def _sections(doc: str) -> dict[str, str]:
    return {match[1]: match[2] for match in _SECTION.finditer(doc)}


def _entries(section: str) -> dict[str, str]:
    return {match[1].lstrip("*"): match[0].rstrip("\n") + "\n" for match in _ENTRY.finditer(section)}


def _parameters(target: Callable[..., Any]) -> list[str]:
    return [name for name in inspect.signature(target).parameters if name not in ("self", "cls")]
