"""The hooks that make the pages of the API: docstrings, examples without prompts, public names."""

import doctest
import importlib
import inspect
import textwrap

import pytest

import mlmetric
from documentation import BLOCK, DOCS, public_objects

API_PAGES = [page for page in (DOCS / "pages" / "api").glob("*.md") if page.stem != "index"]


def hook(name):
    """Import a hook of the documentation."""
    pytest.importorskip("griffe", reason='the documentation is built with pip install -e ".[docs]"')
    return importlib.import_module(name)


def test_doctests_of_a_docstring_become_one_block_of_code_and_one_of_output():
    docstring = """Add.

Examples:
    >>> rows = [1, 2]
    >>> sum(rows)  # doctest: +ELLIPSIS
    3

    >>> for row in rows:
    ...     print(row)
    1
    2

Source: none.
"""
    expected = """Add.

Examples:
    ```python
    rows = [1, 2]
    print(sum(rows))

    for row in rows:
        print(row)
    ```

    ```text
    3
    1
    2
    ```

Source: none.
"""
    assert hook("docstrings").without_prompts(docstring) == expected
    assert hook("docstrings").without_prompts("Add.\n") == "Add.\n"


@pytest.mark.parametrize(
    ("code", "output", "script", "printed"),
    [
        ("2 + 1", "3", "print(2 + 1)", "3"),
        ("name", "'sky'", "print(name)", "sky"),
        ("np.ones(1)", "array([1.])", "print(repr(np.ones(1)))", "array([1.])"),
        ("np.float64(1)", "np.float64(1.0)", "print(repr(np.float64(1)))", "np.float64(1.0)"),
        ("print(1)", "1", "print(1)", "1"),
        ("print('a\\n\\nb')", "a\n<BLANKLINE>\nb", "print('a\\n\\nb')", "a\n\nb"),
        ("x = 1", "", "x = 1", ""),
    ],
)
def test_an_expression_of_a_doctest_is_printed_by_the_script(code, output, script, printed):
    example = doctest.Example(code, output)
    assert [part.rstrip("\n") for part in hook("docstrings").as_script(example)] == [script, printed]


@pytest.mark.slow
@pytest.mark.parametrize("name", mlmetric.__all__)
def test_examples_on_the_site_print_what_is_shown(name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    without_prompts, checker = hook("docstrings").without_prompts, doctest.OutputChecker()
    for path, value in public_objects(importlib.import_module(f"mlmetric.{name}")):
        docstring = inspect.getdoc(value) or ""
        if "doctest: +SKIP" in docstring:
            continue
        namespace = {"__name__": "__main__"}
        blocks = textwrap.dedent("\n".join(without_prompts(docstring).partition("Examples:\n")[2:]))
        for block, shown in BLOCK.findall(blocks.split("\nSource:")[0]):
            exec(compile(block, path, "exec"), namespace)
            printed = capsys.readouterr().out
            flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
            assert checker.check_output(shown, printed, flags), f"{path} shows\n{shown}\nbut prints\n{printed}"


@pytest.fixture
def package(tmp_path):
    """A package whose public class and function use private names, as griffe loads it with the hook."""
    griffe = pytest.importorskip("griffe", reason='the documentation is built with pip install -e ".[docs]"')
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "__init__.py").write_text("")
    (tmp_path / "inner" / "shapes.py").write_text(
        'from inner._base import Base, Square, area\n\n__all__ = ["Base", "Square", "area"]\n'
    )
    (tmp_path / "inner" / "_base.py").write_text(
        "from typing import Literal\n\n"
        'Unit = Literal["m", "cm"]\n'
        'DEFAULT = "m"\n\n'
        "class Root(dict):\n"
        "    def __init__(self, side: float) -> None: ...\n"
        '    def root(self) -> None:\n        """Do."""\n\n'
        "class Base(Root):\n"
        '    """A base. It is public."""\n'
        '    def base(self) -> None:\n        """Do."""\n'
        '    def extra_repr(self) -> str:\n        """Do."""\n\n'
        "class _Middle(Base):\n"
        '    def middle(self) -> None:\n        """Do."""\n\n'
        "class Square(_Middle):\n"
        '    """A square."""\n'
        "    size = 1\n"
        "    def base(self) -> None: ...\n\n"
        "def area(side: float, unit: Unit | None = DEFAULT) -> Unit:\n"
        '    """Compute the\n    area. It is a number."""\n'
    )
    extensions = griffe.load_extensions(str(DOCS / "hooks" / "public_names.py"))
    return griffe.load("inner", search_paths=[tmp_path], extensions=extensions)["shapes"]


def test_api_pages_show_members_of_private_bases_and_link_to_those_of_public_ones(package):
    base, square = package["Base"].final_target, package["Square"].final_target
    assert {"__init__", "root", "base"} <= base.members.keys()
    assert square.members.keys() == {"middle", "size", "base"}
    assert square.extra["mlmetric"]["inherited"] == {"inner.shapes.Base": ["root", "base"]}
    assert ([str(found) for found in base.bases], [str(found) for found in square.bases]) == (["dict"], ["Base"])


def test_api_pages_spell_out_private_names_in_signatures(package):
    expected = "area(side: float, unit: Literal['m', 'cm'] | None = 'm') -> Literal['m', 'cm']"
    assert package["area"].final_target.signature(return_type=True).replace('"', "'") == expected


def test_summaries_of_api_pages_are_first_sentences(package):
    names = ("Base", "area")
    summaries = [package[name].final_target.extra["mlmetric"]["summary"] for name in names]
    assert summaries == ["A base.", "Compute the area."]


def test_titles_with_private_paths_are_removed():
    html = '<a title="Hit (mlmetric.search._hits.Hit)" href="#a">Hit</a> <a title="mlmetric.search.Hit">Hit</a>'
    expected = '<a href="#a">Hit</a> <a title="mlmetric.search.Hit">Hit</a>'
    assert hook("public_names").on_post_page(html) == expected


def test_each_module_has_an_api_page_that_links_to_the_guide():
    assert {page.stem for page in API_PAGES} == set(mlmetric.__all__)
    assert [page.stem for page in API_PAGES if "](../guide/" not in page.read_text()] == []


def test_site_shows_the_parameters_that_a_docstring_inherits(tmp_path, monkeypatch):
    griffe = pytest.importorskip("griffe", reason='the documentation is built with pip install -e ".[docs]"')
    (tmp_path / "inheriting.py").write_text(
        "from mlmetric._docstrings import inherit_docs\n"
        "from mlmetric.similarity import exceeds\n\n"
        "@inherit_docs(exceeds)\n"
        'def inheriting(similarity, threshold):\n    """Compare."""\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    extensions = griffe.load_extensions(str(DOCS / "hooks" / "docstrings.py"))
    shown = griffe.load("inheriting", search_paths=[tmp_path], extensions=extensions)["inheriting"].docstring.value
    assert shown.startswith("Compare.\n\nArgs:\n    similarity:")
    assert "\n    threshold:" in shown
