"""Warnings for public functions that will be removed.

The public names are listed in the `__all__` of each module. Before version 1.0, a minor version may change or remove
one, after at least one minor version in which its use issues a `FutureWarning` that names the replacement.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def deprecated(*, since: str, removed_in: str, instead: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Mark a public function or method that will be removed; calls still work, and issue a `FutureWarning`.

    Args:
        since: The first version that warns, such as "0.2".
        removed_in: The first version without it, at least one minor version later.
        instead: The replacement, such as "`metrics.f1`".

    Returns:
        A decorator. It adds a note to the docstring.

    Examples:
        >>> from mlmetric._deprecation import deprecated
        >>> @deprecated(since="0.2", removed_in="0.4", instead="`new`")
        ... def old():
        ...     return 1
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def warn_and_call(*args: P.args, **kwargs: P.kwargs) -> T:
            warnings.warn(
                f"`{function.__qualname__}` is deprecated since mlmetric {since} and will be removed in {removed_in}: "
                f"use {instead}.",
                FutureWarning,
                stacklevel=2,
            )
            return function(*args, **kwargs)

        note = f"Deprecated since {since}, removed in {removed_in}: use {instead}."
        warn_and_call.__doc__ = f"{function.__doc__ or ''}\n\n{note}".strip()
        return warn_and_call

    return decorate
