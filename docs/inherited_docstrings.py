"""A griffe extension that shows docstrings as they are at run time."""

import inspect
from typing import Any

import griffe


class InheritedDocstrings(griffe.Extension):  # type: ignore[misc, unused-ignore]
    """Replace docstrings in the source by those of the imported objects.

    griffe reads the source without running it. There a docstring lacks the parameters that
    `mlmetric._docstrings.inherit_docs` copies from other functions and classes on import.
    """

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Replace the docstring of a function or class."""
        if obj.docstring is not None and (obj.is_function or obj.is_class):
            found = inspect.getdoc(griffe.dynamic_import(obj.path))
            if found is not None:  # as under `python -OO`
                obj.docstring.value = found
