"""The README, the documentation and the docstrings: their code runs, and they describe the project as it is."""

import importlib
import inspect
import re
import tomllib
import types

import pytest
from torch import nn

import mlmetric
from documentation import BLOCK, DOCS, PAGES, ROOT, is_of_mlmetric, public_objects
from mlmetric import _docstrings

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
