"""What the tests of the documentation share: its pages, the code in them, and the public objects that it describes."""

import inspect
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted((DOCS / "pages").rglob("*.md"))]
# A block that must not run has a title (README, which is not built: `notest`) behind the word "python". A block of the
# language "text" that follows directly shows what the code prints.
BLOCK = re.compile(r"^```python\n(.*?)^```(?:\n+```text\n(.*?)^```)?", re.MULTILINE | re.DOTALL)


def public_objects(module):
    """List the functions and classes that a module exports, and the methods of these classes, with their names."""
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isroutine(value) or inspect.isclass(value):
            yield name, value
        if inspect.isclass(value):
            for method in sorted({method for cls in value.__mro__ if is_of_mlmetric(cls) for method in vars(cls)}):
                if not method.startswith("_") and inspect.isroutine(getattr(value, method)):
                    yield f"{name}.{method}", getattr(value, method)


def is_of_mlmetric(value):
    return value.__module__.split(".")[0] == "mlmetric"
