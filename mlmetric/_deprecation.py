"""Warnings of names and arguments that will be removed."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def deprecated(*, since: str, removed_in: str, instead: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Mark a public function or method that will be removed: it warns when it is called, and does what it did.

    Args:
        since: The first version that warns, such as "1.2".
        removed_in: The version without it: at least one minor version later.
        instead: What to use instead, such as "`metrics.f1`".

    Returns:
        A decorator.

    Examples:
        >>> @deprecated(since="1.2", removed_in="1.4", instead="`new`")
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
