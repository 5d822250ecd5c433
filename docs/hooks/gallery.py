"""A hook of mkdocs that runs the scripts of the gallery and makes a page of each, with its output and figures.

A script begins with a docstring: its title, an empty line, and one paragraph. A line `# %%` starts a cell; comments
that follow it directly are its text, in Markdown. Each figure needs a title, which is also its alternative text.
Results are kept in `.cache/gallery` until the script or the library changes.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "docs" / "gallery"
CACHE = ROOT / ".cache" / "gallery"
STYLE = {"axes.spines.right": False, "axes.spines.top": False, "font.size": 11, "legend.frameon": False}
"""Settings of matplotlib for all figures."""


def cells(source: str) -> list[tuple[str, str, int]]:
    """Split a script behind its docstring into texts, codes, and the line at which each code starts."""
    lines = source.splitlines()
    start = ast.parse(source).body[0].end_lineno or 0
    marks = [number for number in range(start, len(lines)) if lines[number].startswith("# %%")]
    found = []
    for first, last in zip([start - 1, *marks], [*marks, len(lines)], strict=True):
        behind = next((n for n in range(first + 1, last) if not lines[n].startswith("#")), last)
        text = "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines[first + 1 : behind])
        behind = next((n for n in range(behind, last) if lines[n].strip()), last)
        found.append((text, "\n".join(lines[behind:last]).rstrip(), behind))
    return [cell for cell in found if cell[0] or cell[1]]


def run(script: Path, folder: Path) -> None:
    """Run a script cell by cell, and write what it prints and draws into a folder."""
    from matplotlib import pyplot as plt

    source = script.read_text(encoding="utf-8")
    namespace: dict[str, Any] = {"__name__": "__main__"}
    done, start = [], time.process_time()
    for text, code, line in cells(source):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("\n" * line + code, script, "exec"), namespace)
        figures = []
        for number in plt.get_fignums():
            figure = plt.figure(number)
            title = figure.get_suptitle() or next((axes.get_title() for axes in figure.axes if axes.get_title()), "")
            if not title:
                raise ValueError(f"{script.name}: a figure has no title, which is needed for its alternative text.")
            name = f"{script.stem}_{sum(len(cell['figures']) for cell in done) + len(figures) + 1}.png"
            figure.savefig(folder / name, dpi=130, bbox_inches="tight")
            figures.append((name, " ".join(title.split())))
        plt.close("all")
        done.append({"text": text, "code": code, "output": printed.getvalue().rstrip(), "figures": figures})
    if not any(cell["figures"] for cell in done):
        raise ValueError(f"{script.name} draws no figure, which the gallery needs.")
    title, _, summary = (ast.get_docstring(ast.parse(source)) or "").partition("\n")
    result = {"title": title.rstrip("."), "summary": " ".join(summary.split()), "cells": done}
    result["seconds"] = time.process_time() - start
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")


def digest(script: Path) -> str:
    """Return a digest of what the result of a script depends on."""
    sources = [script, Path(__file__), *sorted((ROOT / "mlmetric").rglob("*.py"))]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in sources)).hexdigest()[:16]


def result_of(script: Path) -> tuple[dict[str, Any], Path]:
    """Return the result of a script and the folder of its figures; run it unless its result is known."""
    folder = CACHE / f"{script.stem}-{digest(script)}"
    if not (folder / "result.json").exists():
        for former in CACHE.glob(f"{script.stem}-*"):
            shutil.rmtree(former)
        folder.mkdir(parents=True, exist_ok=True)
        settings = {"MPLBACKEND": "agg", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        with tempfile.TemporaryDirectory() as work:
            process = subprocess.run(
                [sys.executable, __file__, script, folder],
                cwd=work,
                env=os.environ | settings,
                capture_output=True,
                text=True,
            )
        if process.returncode:
            raise RuntimeError(f"The gallery's {script.name} failed:\n{process.stderr}")
    return json.loads((folder / "result.json").read_text(encoding="utf-8")), folder


def fenced(language: str, content: str) -> str:
    """Return a fenced block."""
    return f"```{language}\n{content}\n```"


def page(name: str, result: dict[str, Any]) -> str:
    """Return the page of a script in Markdown."""
    parts = [f"# {result['title']}", result["summary"]]
    for cell in result["cells"]:
        parts += [cell["text"], fenced("python", cell["code"]) if cell["code"] else ""]
        parts.append(fenced("text", cell["output"]) if cell["output"] else "")
        parts += [f"[![{title}](images/{figure})](images/{figure})" for figure, title in cell["figures"]]
    parts.append(f"[Download the script]({name}.py), which takes {result['seconds']:.0f} seconds on one CPU core.")
    return "\n\n".join(part for part in parts if part) + "\n"


def index(sections: list[Any], results: dict[str, dict[str, Any]]) -> str:
    """Return the page with a picture of each example, in the sections and the order of the navigation."""
    parts = ["# Gallery", f"{len(results)} short examples, each with its output and figures. None needs a download."]
    for section in sections:
        if not isinstance(section, dict):
            continue
        for title, paths in section.items():
            parts += [f"## {title}", '<div class="gallery" markdown="1">']
            for name in (Path(path).stem for path in paths):
                figure, alternative = next(cell["figures"][0] for cell in results[name]["cells"] if cell["figures"])
                summary = re.split(r"(?<=[.])\s", results[name]["summary"])[0]
                picture = f"[![{alternative}](images/{figure})]({name}.md)"
                card = f"{picture}\n\n[**{results[name]['title']}**]({name}.md)\n\n{summary}"
                parts += ['<div markdown="1">', card, "</div>"]
            parts.append("</div>")
    return "\n\n".join(parts) + "\n"


def on_files(files: Any, *, config: Any) -> Any:
    """Add the pages of the gallery, their figures and the scripts."""
    from mkdocs.structure.files import File

    scripts = sorted(SCRIPTS.glob("*.py"))
    with ThreadPoolExecutor(max_workers=2) as pool:
        results = dict(zip([script.stem for script in scripts], pool.map(result_of, scripts), strict=True))
    for script in scripts:
        result, folder = results[script.stem]
        made = File.generated(config, f"gallery/{script.stem}.md", content=page(script.stem, result))
        made.edit_uri = f"../gallery/{script.name}"
        files.append(made)
        files.append(File.generated(config, f"gallery/{script.name}", abs_src_path=str(script)))
        for figure, _ in (drawn for cell in result["cells"] for drawn in cell["figures"]):
            files.append(File.generated(config, f"gallery/images/{figure}", abs_src_path=str(folder / figure)))
    sections = next(entry["Gallery"] for entry in config["nav"] if isinstance(entry, dict) and "Gallery" in entry)
    content = index(sections, {name: result for name, (result, _) in results.items()})
    made = File.generated(config, "gallery/index.md", content=content)
    made.edit_uri = "../gallery/"
    files.append(made)
    return files


if __name__ == "__main__":
    import matplotlib as mpl

    mpl.rcParams.update(STYLE)
    run(Path(sys.argv[1]), Path(sys.argv[2]))
