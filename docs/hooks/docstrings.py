"""An extension of griffe that shows docstrings as they are at run time, their doctests as code without prompts."""

from __future__ import annotations

import ast
import doctest
import inspect
import re
from typing import Any

import griffe


class Docstrings(griffe.Extension):  # type: ignore[misc, unused-ignore]
    """Change docstrings before they are rendered.

    griffe reads the source without running it. There a docstring lacks the parameters that
    `mlmetric._docstrings.inherit_docs` copies from other functions and classes on import.
    """

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Replace the docstring of a function or class by that of the imported object, and doctests by blocks."""
        if obj.docstring is None:
            return
        if obj.is_function or obj.is_class:
            found = inspect.getdoc(griffe.dynamic_import(obj.path))
            if found is not None:  # as under `python -OO`
                obj.docstring.value = found
        obj.docstring.value = without_prompts(obj.docstring.value)


def without_prompts(docstring: str) -> str:
    """Replace the doctests of a docstring by a block with their code and a block with what it prints.

    An expression of which a doctest shows the value becomes the argument of `print`, so that the code prints the same
    when it is copied into a file.
    """
    if ">>>" not in docstring:
        return docstring
    parts: list[str] = []
    code: list[str] = []
    printed: list[str] = []
    indent = ""
    for piece in [*doctest.DocTestParser().parse(docstring), "end"]:
        if isinstance(piece, doctest.Example):
            indent = " " * piece.indent
            statement, output = as_script(piece)
            code.append(statement)
            printed.append(output)
        elif code and not piece.strip():
            code.append(piece.replace(" ", ""))  # empty lines between the lines of an example
        else:
            blocks = [fenced("python", "".join(code), indent), fenced("text", "".join(printed), indent)]
            parts += ["\n".join(block for block in blocks if block), piece]
            code, printed = [], []
    return "".join(parts[:-1]).rstrip() + "\n"


def fenced(language: str, content: str, indent: str) -> str:
    """Return a fenced block, or nothing if it is empty."""
    lines = [f"```{language}", *content.rstrip().splitlines(), "```"]
    return "\n".join(indent + line if line else line for line in lines) + "\n" if content.strip() else ""


def as_script(example: doctest.Example) -> tuple[str, str]:
    """Return the code of a doctest as it is in a script, and what the script prints."""
    code = re.sub(r" *# doctest:.*", "", example.source)
    output = re.sub(r"^<BLANKLINE>$", "", example.want, flags=re.MULTILINE)
    statement = ast.parse(code).body[0]
    is_expression = isinstance(statement, ast.Expr) and not code.startswith("print(")
    if not output or not is_expression or example.exc_msg is not None:
        return code, output
    try:
        value = ast.literal_eval(output)
    except (SyntaxError, ValueError):
        value = None
    if isinstance(value, str):
        output = f"{value}\n"  # without the quotation marks
    expression = shown = ast.get_source_segment(code, statement) or ""
    if isinstance(statement.value, ast.Tuple) and not shown.startswith("("):
        shown = f"({shown})"
    if re.match(r"(array|np\.\w+)\(", output):  # `print` shows another text
        shown = f"repr({shown})"
    return code.replace(expression, f"print({shown})", 1), output
