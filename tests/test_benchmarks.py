"""The benchmarks run, print tables and write them; their results are not tested."""

import csv
import runpy
import sys
from pathlib import Path

import pytest

import benchmark_tables

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "tests" / "benchmarks"
PAGES = ROOT / "docs" / "pages" / "benchmarks"
BENCHMARKS = sorted(path for path in FOLDER.glob("*.py") if "__main__" in path.read_text())
CASES = [*((path.stem,) for path in BENCHMARKS), ("calibration", "--own"), ("label_errors", "--embedder")]


def heads_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return next(csv.reader(file))


def has_columns(heads, published):
    """Whether the published columns are among the others, in the same order."""
    return [head for head in heads if head in published] == published


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_benchmark_prints_and_writes_tables_with_the_published_columns(case, monkeypatch, capsys, tmp_path):
    name, *options = case
    path = FOLDER / f"{name}.py"
    monkeypatch.setattr(sys, "argv", [str(path), "--quick", "--write", str(tmp_path), *options])
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out.count("\n|") >= 3
    written = {file.name: heads_of(file) for file in tmp_path.glob("*.csv")}
    published = {file: heads_of(PAGES / "data" / file) for file in written if (PAGES / "data" / file).exists()}
    assert published
    assert {file: heads for file, heads in published.items() if not has_columns(written[file], heads)} == {}


def test_columns_are_compared_in_order():
    assert has_columns(["set", "mAP", "mAP sd"], ["set", "mAP"])
    assert not has_columns(["set", "mAP"], ["set", "AP"])
    assert not has_columns(["set", "mAP"], ["mAP", "set"])


def test_published_data_files_are_shown_on_a_page():
    shown = "".join(page.read_text() for page in PAGES.glob("*.md"))
    assert [file.name for file in (PAGES / "data").glob("*.csv") if f"(data/{file.name})" not in shown] == []


def test_data_file_becomes_a_table_that_can_be_sorted_and_filtered(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text('set,method,mAP,mAP sd\na,x|y,0.5,0.1\na,z,"1,000",\n')
    assert benchmark_tables.table(path, "All figures", "data.csv").splitlines() == [
        '<div class="benchmark" data-filter="set" markdown="1">',
        "",
        "| set | method | mAP | ± |",
        "| --- | --- | ---: | ---: |",
        "| a | x&#124;y | 0.5 | 0.1 |",
        "| a | z | 1,000 |  |",
        "",
        "</div>",
        "",
        "[All figures (CSV)](data.csv)",
    ]
    path.write_text("method,rows\nx,does not fit\ny,2\nz,1 %\n")
    assert "data-filter" not in benchmark_tables.table(path, "", "")
    assert "| --- | ---: |" in benchmark_tables.table(path, "", "")
    path.write_text("method,rows\nx\n")
    with pytest.raises(ValueError, match=r"data\.csv, line 2: 1 cells, but 2 titles of columns\."):
        benchmark_tables.table(path, "", "")


def test_link_to_a_data_file_is_replaced_only_in_a_paragraph_of_its_own():
    assert benchmark_tables.LINK.search("Text.\n\n[All figures](data/methods.csv)\n")
    assert not benchmark_tables.LINK.search("See [all figures](data/methods.csv).")


def test_published_ranks_follow_from_the_published_figures():
    texts = [(PAGES / "data" / name).read_text(encoding="utf-8") for name in ("methods.csv", "ranks.csv")]
    figures, ranks = (list(csv.DictReader(text.splitlines())) for text in texts)
    for rank in ranks:
        rows = {row["method"]: row for row in figures if row["set"] == rank["set"]}
        mean, deviation = rank["metric"], f"{rank['metric']} sd"
        ours = rows.pop("recommended")
        del rows["recommended, one member"]  # another recipe of ours
        leads = {name: float(ours[mean]) - float(row[mean]) for name, row in rows.items()}
        spreads = {name: max(float(ours[deviation]), float(row[deviation])) for name, row in rows.items()}
        assert rank["mean"] == ours[mean]
        assert float(rank["lead"]) == pytest.approx(min(leads.values()), abs=0.0011)  # both are rounded
        assert leads[rank["best other method"]] == pytest.approx(min(leads.values()), abs=0.0011)
        if rank["rank"] == "behind":
            assert any(leads[name] < -spreads[name] + 0.001 for name in leads)
        else:
            assert all(leads[name] >= -spreads[name] - 0.001 for name in leads)
        is_first = all(leads[name] > spreads[name] - 0.001 for name in leads)
        assert is_first or rank["rank"] != "first"
    counts = [sum(rank["rank"] == name for rank in ranks) for name in ("first", "tied ahead", "tied", "behind")]
    assert "first in {} of 30 dataset-metric pairs, tied ahead in {}, tied in {} and behind in {}".format(*counts) in (
        " ".join((PAGES / "methods.md").read_text().split())
    )
