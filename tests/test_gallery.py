"""The hook of mkdocs that runs the scripts of the gallery and makes their pages, and the scripts."""

import ast
import importlib
from pathlib import Path

import pytest
from matplotlib import pyplot as plt

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "docs" / "gallery").glob("*.py"))
SCRIPT = '''"""A title.

What it shows. More.
"""

# %%
# A text with `code`
# of two lines.

from matplotlib import pyplot as plt

print("some output")

# %%
# Another text.

plt.plot([1, 2])
plt.title("A line\\nof two points")
'''


@pytest.fixture
def gallery(tmp_path, monkeypatch):
    """The hook with folders of its own."""
    hook = importlib.import_module("gallery")
    monkeypatch.setattr(hook, "CACHE", tmp_path / "cache")
    monkeypatch.setenv("MPLBACKEND", "agg")
    yield hook
    plt.close("all")


def test_cells_have_the_text_code_and_line_of_each_part(gallery):
    (first, first_code, first_line), (second, second_code, second_line) = gallery.cells(SCRIPT)
    assert first == "A text with `code`\nof two lines."
    assert first_code == 'from matplotlib import pyplot as plt\n\nprint("some output")'
    assert second == "Another text."
    assert second_code == 'plt.plot([1, 2])\nplt.title("A line\\nof two points")'
    lines = SCRIPT.splitlines()
    assert (lines[first_line], lines[second_line]) == (first_code.splitlines()[0], "plt.plot([1, 2])")


def test_page_has_output_and_figures_and_its_result_is_reused(gallery, tmp_path, monkeypatch):
    script = tmp_path / "line.py"
    script.write_text(SCRIPT)
    result, folder = gallery.result_of(script)
    page = gallery.page("line", result)
    assert page.startswith("# A title\n\nWhat it shows. More.\n\nA text with `code`\nof two lines.\n\n```python\nfrom")
    assert "\n```text\nsome output\n```\n\nAnother text." in page
    assert "\n[![A line of two points](images/line_1.png)](images/line_1.png)\n\n[Download the script](line.py)" in page
    assert (folder / "line_1.png").stat().st_size > 1000

    with monkeypatch.context() as patched:
        patched.setattr(gallery.subprocess, "run", lambda *args, **kwargs: pytest.fail("The script ran again."))
        assert gallery.result_of(script) == (result, folder)

    script.write_text(SCRIPT.replace("some output", "other output"))
    changed, _ = gallery.result_of(script)
    assert changed["cells"][0]["output"] == "other output"
    assert not folder.exists()


def test_index_has_a_card_with_the_first_sentence_for_each_example(gallery):
    cells = [{"text": "", "code": "", "output": "", "figures": [("line_1.png", "A line")]}]
    result = {"title": "A title", "summary": "Above 0.5 it shows this. More.", "cells": cells}
    index = gallery.index(["gallery/index.md", {"Section": ["gallery/line.md"]}], {"line": result})
    assert "## Section\n" in index
    card = "[![A line](images/line_1.png)](line.md)\n\n[**A title**](line.md)\n\nAbove 0.5 it shows this.\n\n</div>"
    assert card in index


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        ('plt.title("A line\\nof two points")', ValueError, "line.py: a figure has no title"),
        ("plt.", ValueError, "line.py draws no figure"),
        ('print("some output")', NameError, "misspelt"),
    ],
)
def test_script_without_title_or_figure_or_with_an_error_raises(gallery, tmp_path, code, error, message):
    script = tmp_path / "line.py"
    replacement = {ValueError: "", NameError: "misspelt"}[error]
    lines = [replacement if line.startswith(code) else line for line in SCRIPT.splitlines()]
    script.write_text("\n".join(lines))
    with pytest.raises(error, match=message) as raised:
        gallery.run(script, tmp_path)
    if error is NameError:
        assert raised.traceback[-1].lineno == lines.index("misspelt")


def test_error_of_a_script_stops_the_build(gallery, tmp_path):
    script = tmp_path / "line.py"
    script.write_text('"""A title.\n\nText.\n"""\n\n# %%\n\nraise RuntimeError("too hot")\n')
    with pytest.raises(RuntimeError, match=r"(?s)The gallery's line.py failed:.*line 8.*too hot"):
        gallery.result_of(script)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_scripts_have_a_title_a_summary_and_links(script):
    source = script.read_text()
    title, empty, summary = ast.get_docstring(ast.parse(source)).split("\n", 2)
    assert title.endswith(".")
    assert empty == ""
    assert len(summary) > 50
    assert source.count("# %%") >= 3
    assert "# See also: [" in source.split("# %%")[-1]
