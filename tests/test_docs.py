"""Every Python block of the README and the docs runs, and what they say of the project is so."""

import re
import tomllib
from pathlib import Path

import pytest

import mlmetric

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "pages").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", [page for page in PAGES if BLOCK.search(page.read_text())], ids=lambda page: page.name)
def test_python_blocks_of_a_page_run_one_after_the_other(page, capsys):
    namespace = {}
    for block in BLOCK.findall(page.read_text()):
        exec(compile(block, page.name, "exec"), namespace)
    assert capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_a_page_to_files_of_the_project_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_versions_agree():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert mlmetric.__version__ == version
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text()


def test_readme_names_the_two_lines():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert 'pip install -e ".[examples]" && python examples/ad_sentiment.py' in lines
    assert 'pip install -e ".[test]" && pytest' in lines


def test_package_imports_run_one_way():
    """A room imports only from rooms below it."""
    floors = {
        "_modes": 0,
        "distributed": 0,
        "labels": 0,
        "label_vectors": 1,
        "_pml": 1,
        "imbalance": 1,
        "neighbors": 1,
        "similarity": 1,
        "samplers": 1,
        "relations": 2,
        "miners": 3,
        "losses": 3,
        "under_sampling": 2,
        "heads": 2,
        "metrics": 2,
        "data": 2,
        "training": 4,
        "estimators": 5,
    }
    package = ROOT / "mlmetric"
    for path in package.rglob("*.py"):
        room = path.relative_to(package).parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        for imported in re.findall(r"^\s*(?:from|import) mlmetric\.(\w+)", path.read_text(), re.MULTILINE):
            assert imported == room or floors[imported] < floors[room], f"{path.name} imports {imported}"
