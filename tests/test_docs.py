"""The README, the documentation and the docstrings: their code runs, and they describe the project as it is."""

import importlib
import inspect
import re
import subprocess
import sys
import tomllib
import types
from html.parser import HTMLParser
from pathlib import Path

import pytest
from torch import nn

import mlmetric
from mlmetric import _docstrings

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "pages").glob("*.md"))]
# A block that must not run has a title (README, which is not built: `notest`) behind the word "python".
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", [page for page in PAGES if BLOCK.search(page.read_text())], ids=lambda page: page.name)
def test_python_blocks_of_a_page_run_one_after_the_other(page, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the example can write files
    namespace = {}
    for block in BLOCK.findall(page.read_text()):
        exec(compile(block, page.name, "exec"), namespace)
    assert capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_a_page_to_files_of_the_project_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_a_page_work_where_it_is_read_unbuilt(page):
    assert re.findall(r".*\]\[.*", re.sub(r"```.*?```|`.*?`", "", page.read_text(), flags=re.DOTALL)) == []


class VisibleText(HTMLParser):
    """What a reader sees of a page's article outside code; `>>>` of a doctest becomes a quotation in Markdown."""

    HIDDEN = ("pre", "code", "script", "style")

    def __init__(self, html):
        super().__init__()
        self.text, self.inside = "", []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        if tag in ("article", *self.HIDDEN):
            self.inside.append(tag)
        self.text += "<blockquote>" if tag == "blockquote" else ""

    def handle_endtag(self, tag):
        if tag in self.inside:
            self.inside.remove(tag)

    def handle_data(self, data):
        if self.inside == ["article"]:
            self.text += data


MARKUP = re.compile(
    r"```|<blockquote>|!!!|\*\*|\]\(|\]\[|\| ?:?--|^ *(?:#+|[-*]|\d+\.) |^ *(?:Args|Source):", re.MULTILINE
)


def markup_shown(html):
    """Lines of a page in which Markdown or a docstring's section is shown as text."""
    return [line for line in VisibleText(html).text.splitlines() if MARKUP.search(line)]


@pytest.mark.parametrize(
    ("html", "shown"),
    [
        ("<p>```python notest\nimport torch</p>", ["```python notest"]),
        ("<blockquote><p>print(1)</p></blockquote>", ["<blockquote>print(1)"]),
        ("<p>Take:\n- one\n- another</p>", ["- one", "- another"]),
        ("<p>| a | b |\n| --- | --- |</p>", ["| --- | --- |"]),
        ("<p>Source: a paper</p>", ["Source: a paper"]),
        ("<p>see [a page](page.md)</p>", ["see [a page](page.md)"]),
        ("<pre><code>- one ```</code></pre><ul><li>one</li></ul><p>so <code>**kwargs</code> - fine</p>", []),
    ],
)
def test_markup_shown_finds_what_was_not_rendered(html, shown):
    assert markup_shown(f"<nav>- menu</nav><article>{html}</article>") == shown


@pytest.mark.slow
def test_site_builds_without_a_warning_and_shows_no_markup_as_text(tmp_path):
    pytest.importorskip("mkdocs", reason='the documentation is built with pip install -e ".[docs]"')
    # Not --quiet: it keeps mkdocs from counting the warnings that --strict stops at.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    build = subprocess.run([*command, "--config-file", ROOT / "docs" / "mkdocs.yml"], capture_output=True, text=True)
    assert build.returncode == 0, build.stderr
    pages = {str(page.relative_to(tmp_path)): markup_shown(page.read_text()) for page in tmp_path.rglob("*.html")}
    assert len(pages) > len(PAGES)
    assert {page: lines for page, lines in pages.items() if lines} == {}


def test_site_shows_the_parameters_that_a_docstring_inherits(tmp_path, monkeypatch):
    griffe = pytest.importorskip("griffe", reason='the documentation is built with pip install -e ".[docs]"')
    (tmp_path / "inheriting.py").write_text(
        "from mlmetric._docstrings import inherit_docs\n"
        "from mlmetric.similarity import exceeds\n\n"
        "@inherit_docs(exceeds)\n"
        'def inheriting(similarity, threshold):\n    """Compare."""\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    extensions = griffe.load_extensions(str(ROOT / "docs" / "inherited_docstrings.py"))
    shown = griffe.load("inheriting", search_paths=[tmp_path], extensions=extensions)["inheriting"].docstring.value
    assert shown.startswith("Compare.\n\nArgs:\n    similarity:")
    assert "\n    threshold:" in shown


def test_versions_agree():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert mlmetric.__version__ == version
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text()


def test_readme_names_the_two_lines():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert 'pip install -e ".[examples]" && python examples/ad_sentiment.py' in lines
    assert 'pip install -e ".[test]" && pytest' in lines


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


def parameters_of(value):
    value = value.__func__ if isinstance(value, classmethod | staticmethod) else value
    return [name for name in inspect.signature(value).parameters if name not in ("self", "cls")]


def is_described_elsewhere(cls, method):
    """Whether scikit-learn made a method, or it has the parameters of the one that it overrides."""
    if method.endswith("_request"):
        return True
    versions = [getattr(base, method) for base in cls.__mro__ if method in vars(base)]
    found = parameters_of(getattr(cls, method))
    return any(found in (parameters_of(other), ["args", "kwargs"]) for other in versions[1:])


def has_own_constructor(cls):
    constructor = next(base for base in cls.__mro__ if {"__init__", "__new__"} & vars(base).keys())
    return is_of_mlmetric(constructor) and not issubclass(cls, Exception)


@pytest.mark.parametrize("name", mlmetric.__all__)
def test_docstrings_describe_every_parameter(name):
    module, problems = importlib.import_module(f"mlmetric.{name}"), {}
    for path, value in public_objects(module):
        cls, _, method = path.rpartition(".")
        if cls and is_described_elsewhere(getattr(module, cls), method):
            continue
        sections = _docstrings._sections(inspect.getdoc(value) or "")
        arguments = _docstrings._entries(sections.get("Args", ""))
        described = arguments.keys() | _docstrings._entries(sections.get("Attributes", "")).keys()
        parameters = [] if inspect.isclass(value) and issubclass(value, Exception) else parameters_of(value)
        if len(parameters) == 1 and re.search(rf"\b{parameters[0]}\b", inspect.getdoc(value) or ""):
            continue  # one sentence, such as "Compute logits `(N, L)` from features `(N, D)`."
        missing = [parameter for parameter in parameters if parameter not in described]
        if inspect.isclass(value) and not has_own_constructor(value):
            missing = []
        unknown = [argument for argument in arguments if argument not in parameters]
        if missing or unknown:
            problems[path] = {"not described": missing, "no parameter": unknown}
    assert problems == {}


def test_methods_of_which_docstrings_are_required_are_found():
    class Network(nn.Module):
        def train(self, mode=True):
            return super().train(mode)

        def forward(self, rows):
            return rows

        def state_dict(self, *args, **kwargs):
            return super().state_dict(*args, **kwargs)

    Network.__module__ = "mlmetric.networks"
    module = types.SimpleNamespace(__all__=["Network", "a_number"], Network=Network, a_number=1)
    required = {path: is_described_elsewhere(Network, path[8:]) for path, _ in public_objects(module) if "." in path}
    assert required == {"Network.forward": False, "Network.state_dict": True, "Network.train": True}


def test_package_imports_run_one_way():
    """A module imports only from modules of lower levels."""
    levels = {
        "_atomic_write": 0,
        "_callable_parts": 1,
        "_deprecation": 0,
        "_digest": 0,
        "_docstrings": 0,
        "_random_generators": 0,
        "_evaluation_mode": 0,
        "_repr": 0,
        "_views": 0,
        "distributed": 0,
        "_label_matrix": -1,
        "labels": 0,
        "_fingerprint": 2,
        "_label_columns": 1,
        "_label_dtypes": 0,
        "_label_rows": 1,
        "label_vectors": 1,
        "imbalance": 2,
        "neighbors": 1,
        "search": 2,
        "similarity": 1,
        "samplers": 2,
        "_pml": 1,
        "relations": 2,
        "miners": 3,
        "losses": 3,
        "under_sampling": 3,
        "heads": 3,
        "metrics": 2,
        "data": 3,
        "text": 4,
        "decisions": 4,
        "label_errors": 4,
        "over_sampling": 4,
        "evaluation": 5,
        "training": 4,
        "models": 5,
        "estimators": 6,
    }
    package = ROOT / "mlmetric"
    for path in package.rglob("*.py"):
        module = path.relative_to(package).parts[0].removesuffix(".py")
        if module == "__init__":
            continue
        for imported in re.findall(r"^\s*(?:from|import) mlmetric\.(\w+)", path.read_text(), re.MULTILINE):
            assert imported == module or levels[imported] < levels[module], f"{path.name} imports {imported}"
