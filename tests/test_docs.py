"""The README, the documentation and the docstrings: their code runs, and they describe the project as it is."""

import doctest
import importlib
import importlib.util
import inspect
import json
import re
import subprocess
import sys
import textwrap
import tomllib
import types
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from torch import nn

import mlmetric
from mlmetric import _docstrings

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted((DOCS / "pages").rglob("*.md"))]
# A block that must not run has a title (README, which is not built: `notest`) behind the word "python". A block of the
# language "text" that follows directly shows what the code prints.
BLOCK = re.compile(r"^```python\n(.*?)^```(?:\n+```text\n(.*?)^```)?", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d[\d,]*)?\.?\d+(?:e[-+]?\d+)?", re.IGNORECASE)


def name_of(page):
    return str(page.relative_to(ROOT)).removeprefix("docs/pages/")


def without_numbers(text):
    return " ".join(NUMBER.sub("0", text).split())


def numbers(text):
    return [float(number.replace(",", "")) for number in NUMBER.findall(text)]


def is_output(shown, printed):
    """Whether two texts agree, their numbers by 0.03 or 5 % and all spaces alike."""
    return without_numbers(shown) == without_numbers(printed) and numbers(printed) == pytest.approx(
        numbers(shown), rel=0.05, abs=0.03
    )


@pytest.mark.parametrize(
    ("shown", "printed", "agree"),
    [
        ("mAP 0.51\n", "mAP 0.52\n", True),
        ("mAP 0.51\n", "mAP 0.58\n", False),
        ("rows 1,000 x 3", "rows  1,010 x 3", True),
        ("[[0., 1.], [1., 0.5]]", "[[0., 1.],\n [1., 0.5]]", True),
        ("['sky']", "['sea']", False),
        ("1 2", "1 2 3", False),
        ("resnet50", "resnet18", False),
    ],
)
def test_output_of_a_block_is_compared_with_a_tolerance_for_numbers(shown, printed, agree):
    assert is_output(shown, printed) is agree


@pytest.mark.parametrize("page", [page for page in PAGES if BLOCK.search(page.read_text())], ids=name_of)
def test_python_blocks_of_a_page_run_and_print_what_is_shown(page, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the example can write files
    namespace, all_printed = {"__name__": "__main__"}, ""
    for block, shown in BLOCK.findall(page.read_text()):
        exec(compile(block, page.name, "exec"), namespace)
        printed = capsys.readouterr().out
        all_printed += printed
        if shown:
            assert is_output(shown, printed), f"The page shows\n{shown}\nbut the code prints\n{printed}"
    assert all_printed


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_of_a_page_to_files_of_the_project_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
        path = (page.parent / target).resolve()
        if path.is_relative_to(DOCS / "pages" / "gallery"):  # made when the site is built
            names = [script.stem for script in (DOCS / "gallery").glob("*.py")]
            stem = re.sub(r"_\d+$", "", path.stem) if path.suffix == ".png" else path.stem
            assert stem in [*names, "index"], target
        else:
            assert path.exists(), target


@pytest.mark.parametrize("page", PAGES, ids=name_of)
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


class References(HTMLParser):
    """The identifiers of a page, its links, the sources of its images, and images without an alternative text."""

    def __init__(self, html):
        super().__init__()
        self.identifiers, self.links, self.without_text = set(), [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.identifiers.add(attrs.get("id"))
        self.links += [attrs[name] for name in ("href", "src") if attrs.get(name)]
        if tag == "img" and not attrs.get("alt"):
            self.without_text.append(attrs.get("src"))


def dead_links(site):
    """Links of a built site to files and anchors that it does not contain, and how many were checked."""
    pages = {path: References(path.read_text()) for path in site.rglob("*.html") if path.name != "404.html"}
    dead, num_links, num_anchors = [], 0, 0
    for path, references in pages.items():
        for link in references.links:
            if re.match(r"[a-z]+:|//", link):
                continue
            target, _, anchor = unquote(link).partition("#")
            file = (path.parent / target).resolve() if target else path
            file = file / "index.html" if file.is_dir() else file
            num_links, num_anchors = num_links + 1, num_anchors + bool(anchor)
            if not file.exists() or (anchor and file in pages and anchor not in pages[file].identifiers):
                dead.append(f"{path.relative_to(site)}: {link}")
    return dead, num_links, num_anchors


def test_dead_links_and_images_without_text_are_found(tmp_path):
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "index.html").write_text('<h1 id="top"></h1><img src="../a.png"><img src="../a.png" alt="A">')
    (tmp_path / "a.png").write_text("")
    links = ["page/", "page/#top", "page/#gone", "gone/", "#here", "https://example.org/gone"]
    (tmp_path / "index.html").write_text("".join(f'<a href="{link}"></a>' for link in links))
    expected = ["index.html: page/#gone", "index.html: gone/", "index.html: #here"]
    assert dead_links(tmp_path) == (expected, 7, 3)
    assert References((tmp_path / "page" / "index.html").read_text()).without_text == ["../a.png"]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site; the build stops at any warning, such as a page outside the navigation."""
    pytest.importorskip("mkdocs", reason='the documentation is built with pip install -e ".[docs]"')
    folder = tmp_path_factory.mktemp("site")
    # Not --quiet: it keeps mkdocs from counting the warnings that --strict stops at.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    build = subprocess.run([*command, "--config-file", DOCS / "mkdocs.yml"], capture_output=True, text=True)
    assert build.returncode == 0, build.stderr
    return folder


@pytest.mark.slow
def test_site_shows_no_markup_as_text(site):
    pages = {str(page.relative_to(site)): markup_shown(page.read_text()) for page in site.rglob("*.html")}
    assert len(pages) > len(PAGES)
    assert {page: lines for page, lines in pages.items() if lines} == {}


@pytest.mark.slow
def test_site_has_no_dead_link_or_anchor(site):
    dead, num_links, num_anchors = dead_links(site)
    print(f"{num_links} links checked, {num_anchors} of them with an anchor")
    assert dead == []
    assert num_anchors > 100


@pytest.mark.slow
def test_images_of_the_site_have_an_alternative_text(site):
    pages = {str(page.relative_to(site)): References(page.read_text()).without_text for page in site.rglob("*.html")}
    assert {page: images for page, images in pages.items() if images} == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("query", "page"), [("export", "guide/saving/"), ("save", "guide/saving/"), ("gpu", "guide/gpu/")]
)
def test_search_finds_titles(site, query, page):
    entries = json.loads((site / "search" / "search_index.json").read_text())["docs"]
    found = {entry["location"].partition("#")[0] for entry in entries if query in entry["title"].lower()}
    assert page in found


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


def test_versions_agree():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert mlmetric.__version__ == version
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text()


def test_addresses_agree():
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
    citation, site = (ROOT / "CITATION.cff").read_text(), (DOCS / "mkdocs.yml").read_text()
    assert f'repository-code: "{urls["Source"]}"\n' in citation
    assert f'url: "{urls["Documentation"]}"\n' in citation
    assert f"repo_url: {urls['Source']}\n" in site
    assert f"site_url: {urls['Documentation']}\n" in site


def test_links_of_the_readme_become_absolute_on_pypi():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    text = "[a](docs/pages/guide/search.md#save) [b](docs/pages/index.md) [c](docs/pages/guide/index.md) [d](LICENSE)"
    text += " ![e](docs/pages/images/a.png) [f](#g) [h](https://example.org)"
    for rule in project["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        text = re.sub(rule["pattern"], rule["replacement"], text)
    site, source = project["project"]["urls"]["Documentation"], project["project"]["urls"]["Source"]
    image = source.replace("github.com", "raw.githubusercontent.com") + "/main/docs/pages/images/a.png"
    assert text == (
        f"[a]({site}guide/search#save) [b]({site}) [c]({site}guide) [d]({source}/blob/main/LICENSE)"
        f" ![e]({image}) [f](#g) [h](https://example.org)"
    )


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


API_PAGES = [page for page in (DOCS / "pages" / "api").glob("*.md") if page.stem != "index"]


def hook(name):
    """Import a hook of the documentation."""
    pytest.importorskip("griffe", reason='the documentation is built with pip install -e ".[docs]"')
    spec = importlib.util.spec_from_file_location(name, DOCS / "hooks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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


@pytest.mark.slow
def test_api_pages_of_the_site_show_all_public_names_and_no_private_path(site):
    for name in mlmetric.__all__:
        html = (site / "api" / name / "index.html").read_text()
        references, exported = References(html), importlib.import_module(f"mlmetric.{name}").__all__
        assert {f"mlmetric.{name}.{public}" for public in exported} <= references.identifiers
        assert html.partition("</table>")[0].count("<tr>") == len(exported) + 1
        assert re.findall(r"mlmetric\.(?:\w+\.)*_(?!_)\w[\w.]*|&gt;&gt;&gt;", html) == []
        assert all(len(line) <= 100 for line in Signatures(html).text.splitlines())


class Signatures(HTMLParser):
    """The signatures of an API page."""

    def __init__(self, html):
        super().__init__()
        self.text, self.inside = "", False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        if tag == "div":
            self.inside = "doc-signature" in (dict(attrs).get("class") or "")

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != "div"

    def handle_data(self, data):
        self.text += data if self.inside else ""
