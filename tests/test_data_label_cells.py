"""Cells of CSV files with labels: values in a column for each label, names in one column, and votes."""

import csv
import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlmetric.data import LabelFileError, read_image_labels


@pytest.fixture
def read(tmp_path):
    """Read a CSV file with these rows or this content."""

    def read_content(content, **options):
        if not isinstance(content, str):
            text = io.StringIO(newline="")
            csv.writer(text).writerows(content)
            content = text.getvalue()
        (tmp_path / "labels.csv").write_text(content, encoding="utf-8", newline="")
        return read_image_labels(tmp_path / "labels.csv", **options)

    return read_content


def label_sets(images):
    return {path: set(images.names_of(row)) for row, path in enumerate(images.paths)}


VALUES = [("0", "1"), ("False", "True"), ("FALSE", "true"), ("0.0", "1.0"), ("0.", "+1"), ("-1", "1"), ("-1.0", "1.0")]
NAMES = ["a", "b c", "d'e", 'f"g', "é", "(h)", "[k]", "l\\m"]


@pytest.mark.parametrize(("absent", "present"), VALUES)
def test_values_of_a_column_for_each_label(read, absent, present):
    images = read(f"path,a,b\n1.jpg,{present},{absent}\n2.jpg, {absent} ,{present}\n3.jpg,{absent},{absent}\n")
    assert images.labels.tolist() == [[1, 0], [0, 1], [0, 0]]
    assert str(images.labels.dtype) == "torch.int64"


def test_single_column_of_values_is_a_label_and_any_other_contains_names(read):
    assert label_sets(read("path,sea\n1.jpg,1\n2.jpg,0\n")) == {"1.jpg": {"sea"}, "2.jpg": set()}
    assert label_sets(read("path,class\n1.jpg,1\n2.jpg,2\n")) == {"1.jpg": {"1"}, "2.jpg": {"2"}}
    assert read("path,class\n1.jpg,1\n2.jpg,0\n", label_column="class").label_names == ["0", "1"]
    with pytest.raises(LabelFileError, match=r"line 3: 'sea' is empty\. Write 0 .* pass `label_column='sea'`"):
        read("path,sea\n1.jpg,1\n2.jpg,\n")


@pytest.mark.parametrize("cell", ["2", "0.5", "yes", "nan", "1 0", "-", "+-1"])
def test_other_value_in_a_column_for_each_label_raises_with_the_line(read, cell):
    content = f"path,a,b\n1.jpg,1,0\n2.jpg,0,{cell}\n3.jpg,x,1\n"
    with pytest.raises(LabelFileError, match=r"line 3: 'b' must be 0 or 1, .* got '.*'\. .*`exclude_columns=\['b'\]`"):
        read(content)
    with pytest.raises(
        LabelFileError, match=r"line 3: 'b' must be 0 or 1, True or False, or -1 or 1, got .* Correct it\.$"
    ):
        read(content, label_columns=["a", "b"])


def test_empty_cell_in_a_column_for_each_label_raises_with_the_line(read):
    with pytest.raises(LabelFileError, match=r"line 3: 'a' is empty\. Write 0 if the label is absent .*fillna\(0\)"):
        read("path,a,b\n1.jpg,1,0\n2.jpg, ,1\n")


def test_column_of_text_beside_the_labels_raises_with_its_name(read):
    content = "path,split,sea,sky\n1.jpg,train,1,0\n2.jpg,test,0,1\n"
    message = (
        r"line 2: 'split' must be 0 or 1, .* got 'train'\. .*`exclude_columns=\['split'\]`, .*`split_column='split'`"
    )
    with pytest.raises(LabelFileError, match=message):
        read(content)
    assert read(content, exclude_columns=["split"]).label_names == ["sea", "sky"]
    assert list(read(content, split_column="split").parts) == ["train", "test"]
    rows = [["path", "caption", "sea"], *([f"{number}.jpg", f"caption {number}", "1"] for number in range(9))]
    with pytest.raises(LabelFileError, match=r"'caption' must be 0 or 1, .*`label_column='caption'`") as raised:
        read(rows)
    assert "split_column" not in str(raised.value)


@pytest.mark.parametrize("content", ["1.jpg,1,0\n2.jpg,-1,1\n", "1.jpg,1,0\n2.jpg,1,-1\n"])
def test_both_0_and_minus_1_raise_with_their_lines(read, content):
    with pytest.raises(
        LabelFileError, match=r"labels\.csv contains both -1 \(line 3, '[ab]'\) and 0 \(line 2, 'b'\), one of which may"
    ):
        read(f"path,a,b\n{content}")


@pytest.mark.parametrize("mark", ["|", ",", ";", "\t"])
def test_separator_is_the_only_one_in_the_column(read, mark):
    rows = [["path", "tags"], ["1.jpg", f"sea{mark} sky"], ["2.jpg", ""], ["3.jpg", f"sea {mark}"], ["4.jpg", "sun"]]
    images = read(rows)
    assert label_sets(images) == {"1.jpg": {"sea", "sky"}, "2.jpg": set(), "3.jpg": {"sea"}, "4.jpg": {"sun"}}
    assert f"names of labels, separated by {mark!r}, in the column 'tags'" in images.source
    assert images.notes == []


def test_several_separators_raise_unless_one_is_passed(read):
    rows = [["path", "tags"], ["1.jpg", "sea"], ["2.jpg", "sea, wide;sky"]]
    with pytest.raises(LabelFileError, match=r"'tags' contain ',' \(line 3\), ';' \(line 3\)\. Pass .* as `separator`"):
        read(rows)
    assert read(rows, separator=";").label_names == ["sea", "sea, wide", "sky"]
    assert read(rows, separator="; ").label_names == ["sea", "sea, wide;sky"]


def test_separator_without_a_column_of_names_raises(read):
    with pytest.raises(
        LabelFileError, match=r"`separator` is for a column of label names, but .*labels\.csv has .*: 'a', 'b'\. Pass"
    ):
        read("path,a,b\n1.jpg,1,0\n", separator="|")


def test_names_without_a_separator_are_one_in_each_line_and_spaces_are_noted(read):
    assert read("path,tags\n1.jpg,sea\n2.jpg,sky\n").notes == []
    images = read("path,tags\n1.jpg,sea\n2.jpg,traffic light\n")
    assert images.label_names == ["sea", "traffic light"]
    assert images.notes == ["Names contain spaces. If spaces separate names, pass `separator=' '`."]
    assert "names of labels, one in each line, in the column 'tags'" in images.source
    assert read("path,tags\n1.jpg,sea\n2.jpg,traffic light\n", separator=" ").label_names == ["light", "sea", "traffic"]


@pytest.mark.parametrize("cell", ["sea||sky", "|sea", "sea| |", "|", "sea|\x07"])
def test_empty_name_raises_with_the_line(read, cell):
    with pytest.raises(
        LabelFileError, match=r"line 3: a name in '.*' must be the name of a label, without line breaks"
    ):
        read([["path", "tags"], ["1.jpg", "a|b"], ["2.jpg", cell]])


@pytest.mark.parametrize("write", [str, json.dumps, lambda names: str(tuple(names)), lambda names: f" {names}  "])
def test_lists_of_python_and_json_are_read(read, write):
    rows = [["1.jpg", NAMES], ["2.jpg", []], ["3.jpg", ["a"]], ["4.jpg", ["a", "b c", "a"]]]
    images = read([["path", "tags"], *([path, write(names)] for path, names in rows), ["5.jpg", ""]])
    assert label_sets(images) == {**{path: set(names) for path, names in rows}, "5.jpg": set()}
    assert "names of labels, as lists, in the column 'tags'" in images.source


def test_lists_of_numbers_and_sets_are_read(read):
    images = read([["path", "tags"], ["1.jpg", "[3, 12]"], ["2.jpg", "[12,]"], ["3.jpg", "{'x'}"]])
    assert label_sets(images) == {"1.jpg": {"3", "12"}, "2.jpg": {"12"}, "3.jpg": {"x"}}


@pytest.mark.parametrize(
    "cell",
    [
        *("Drama", "'Action'", "['a' 'b']", "[Action, Comedy]", "[['a']]", "[None]", "[True]", "[1.5]", "('a')", "{}"),
        *('{"a": 1}', "['a'] + ['b']", "['a', f'b']", "[__import__('os')]", "['a", r"['\d']", r"['\x']", "[007]"),
    ],
)
def test_cell_that_is_no_list_among_lists_raises_with_the_line(read, cell):
    with pytest.raises(
        LabelFileError, match=r"line 3 must have a list of names like the other lines, as Python or JSON"
    ):
        read([["path", "tags"], ["1.jpg", "['a', 'b']"], ["2.jpg", cell]])


def test_empty_name_in_a_list_raises_with_the_line(read):
    with pytest.raises(LabelFileError, match=r"line 2: a name in .* must be the name of a label, .* got ' '"):
        read([["path", "tags"], ["1.jpg", "['a', ' ']"]])


@pytest.mark.parametrize(
    "cell",
    [
        *("['Action', 'Comedy']", '["Action"]', "[]", "[1, 2]", "('Action',)", "{'Action'}", "'Action'", ' "Action"'),
        *("[Action, Comedy]", "{Action, Comedy}"),
    ],
)
def test_list_or_quotes_with_a_separator_raise_with_the_line(read, cell):
    for separator in (",", "|"):
        with pytest.raises(LabelFileError, match=r"line 3 must have names separated by '.', without brackets and quot"):
            read([["path", "tags"], ["1.jpg", "Drama"], ["2.jpg", cell]], separator=separator)


def test_quotes_around_a_name_raise_with_the_line(read):
    with pytest.raises(
        LabelFileError, match=r"line 3 must have names separated by '\|', without brackets and quotes, g"
    ):
        read([["path", "tags"], ["1.jpg", "Drama"], ["2.jpg", "'Action'"]])


@pytest.mark.parametrize("form", ["columns", "names"])
def test_lines_of_the_same_image_are_votes(read, form):
    rows = [("0/1.jpg", "ab"), ("0/1.jpg", "bc"), ("2.jpg", "a"), ("0/1.jpg", "b"), ("0/1.jpg", "c")]
    if form == "names":
        lines = [["path", "tags"], *([path, "|".join(names)] for path, names in rows)]
    else:
        lines = [["path", *"abc"], *([path, *(int(name in names) for name in "abc")] for path, names in rows)]
    union, agreed = read(lines), read(lines, min_votes=3)
    assert label_sets(union) == {"0/1.jpg": {"a", "b", "c"}, "2.jpg": {"a"}}
    assert label_sets(agreed) == {"0/1.jpg": {"b"}, "2.jpg": set()}
    assert union.votes.tolist() == [[1, 3, 2], [1, 0, 0]]
    assert union.num_annotators.tolist() == [4, 1]
    assert union.soft_labels().tolist() == [[0.25, 0.75, 0.5], [1, 0, 0]]
    assert agreed.soft_labels().tolist() == [[0.75], [0]]
    assert union.notes == ["1 image has several lines (4), counted as votes."]


def test_too_few_votes_for_any_label_raise(read):
    with pytest.raises(LabelFileError, match=r"labels\.csv contains no label: no image has one with `min_votes=2`\."):
        read("path,a\n1.jpg,1\n2.jpg,1\n", min_votes=2)


matrices = (
    st.integers(1, 6)
    .flatmap(
        lambda width: st.lists(st.lists(st.integers(0, 1), min_size=width, max_size=width), min_size=1, max_size=9)
    )
    .map(np.array)
)
writers = {
    "lists": str,
    "json": json.dumps,
    **{f"separated by {mark!r}": mark.join for mark in ["|", ",", ";", "\t", " and "]},
}


@settings(max_examples=60)
@given(
    matrix=matrices.filter(lambda matrix: matrix.any()),
    values=st.sampled_from(VALUES),
    mark=st.sampled_from([",", ";", "\t"]),
    with_index=st.booleans(),
    repeats=st.integers(1, 3),
)
def test_matrix_written_as_columns_is_read_as_written(tmp_path_factory, matrix, values, mark, with_index, repeats):
    path = tmp_path_factory.mktemp("set") / "labels.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=mark)
        writer.writerow([*[""] * with_index, "path", *(f'label; {label}, "' for label in range(matrix.shape[1]))])
        for line, (row, labels) in enumerate(list(enumerate(matrix)) * repeats):
            writer.writerow([*[line] * with_index, f'{row}"{mark}.jpg', *(values[value] for value in labels)])
    images = read_image_labels(path, min_count=0, min_votes=repeats)
    assert images.paths == [f'{row}"{mark}.jpg' for row in range(len(matrix))]
    assert images.labels.tolist() == matrix.tolist()
    assert images.soft_labels().tolist() == matrix.tolist()
    assert (images.votes is None) == (repeats == 1)


@settings(max_examples=60)
@given(
    matrix=matrices.filter(lambda matrix: matrix.any()),
    form=st.sampled_from(sorted(writers)),
    mark=st.sampled_from([",", ";", "\t"]),
    min_count=st.integers(1, 3),
)
def test_matrix_written_as_names_is_read_as_written(tmp_path_factory, matrix, form, mark, min_count):
    path = tmp_path_factory.mktemp("set") / "labels.csv"
    names = [f"{name}-" for name in sorted(NAMES)[: matrix.shape[1]]]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=mark)
        writer.writerow(["path", "tags"])
        for row, labels in enumerate(matrix):
            chosen = [name for name, value in zip(names, labels, strict=True) if value]
            writer.writerow([f"{row}.jpg", writers[form](chosen)])
    kept = [label for label in range(matrix.shape[1]) if matrix[:, label].sum() >= min_count]
    separator = " and " if "and" in form else None
    if not kept:
        with pytest.raises(ValueError, match="`min_count` must be at most"):
            read_image_labels(path, min_count=min_count, separator=separator)
        return
    images = read_image_labels(path, min_count=min_count, separator=separator)
    assert images.label_names == [names[label] for label in kept]
    assert images.labels.tolist() == matrix[:, kept].tolist()
