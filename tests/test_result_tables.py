"""Tables of the benchmarks: what is printed, and what the CSV files contain."""

import csv

import pytest

from result_tables import ResultTables


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_table_is_printed_in_markdown_and_no_file_is_needed(capsys):
    ResultTables().show("speed", ["method", "seconds"], [["ours", "0.10"]])
    assert capsys.readouterr().out == "\n| method | seconds |\n| --- | ---: |\n| ours | 0.10 |\n"


def test_mean_and_deviation_become_two_columns(tmp_path):
    rows = [["ours", "0.422 (0.002)", "5"], ["none", "", "6"], ["one seed", "0.4", "7"]]
    ResultTables(tmp_path / "new").show("quality", ["method", "mAP", "rows"], rows)
    assert read(tmp_path / "new" / "quality.csv") == [
        ["method", "mAP", "mAP sd", "rows"],
        ["ours", "0.422", "0.002", "5"],
        ["none", "", "", "6"],
        ["one seed", "0.4", "", "7"],
    ]


def test_tables_of_several_sets_become_one_file(tmp_path):
    tables = ResultTables(tmp_path)
    for name, value in (("emotions", "0.5 (0.1)"), ("yeast", "0.4")):
        tables.show("quality", ["method", "mAP"], [["ours", value]], set=name)
    assert read(tmp_path / "quality.csv") == [
        ["set", "method", "mAP", "mAP sd"],
        ["emotions", "ours", "0.5", "0.1"],
        ["yeast", "ours", "0.4", ""],
    ]


def test_cells_are_written_as_they_are_printed(tmp_path):
    cells = ['`average="macro"`, 1/1', "1,668", "+0.0 %", "0.50"]
    ResultTables(tmp_path).show("cells", ["rule", "rows", "change", "value"], [cells])
    assert read(tmp_path / "cells.csv")[1] == cells


def test_titles_that_differ_or_occur_twice_are_refused(tmp_path):
    tables = ResultTables(tmp_path)
    with pytest.raises(ValueError, match=r"Titles of the table a must differ.*got \['n', 's', 's'\]"):
        tables.show("a", ["n", "s", "s"], [])
    tables.show("b", ["n", "s"], [])
    with pytest.raises(ValueError, match=r"Titles of the table b must .*got \['n', 'ms'\]"):
        tables.show("b", ["n", "ms"], [])
