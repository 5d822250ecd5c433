import csv
import io
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ads.csv_labels import read_csv_labels
from ads.user_files import AnnotationError


@pytest.fixture
def read(tmp_path):
    """Read a CSV file with this content; images are in the folder photos."""

    def read_content(content, **options):
        path = tmp_path / "labels.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_csv_labels(path, tmp_path / "photos", **options)

    return read_content


def label_sets(images):
    return {path: set(images.names_of(row)) for row, path in enumerate(images.paths)}


def test_csv_with_a_column_for_each_label_gives_their_labels(read):
    images = read("path,beach,sunset\na/1.jpg,1,0\n2.jpg, 0 ,1\n3.jpg,0,0\n")
    assert images.label_names == ["beach", "sunset"]
    assert label_sets(images) == {"a/1.jpg": {"beach"}, "2.jpg": {"sunset"}, "3.jpg": set()}
    assert images.notes == []


def test_csv_with_a_column_of_names_gives_their_labels(read):
    images = read("tags,path\nsunset | beach,1.jpg\n,2.jpg\ncafé,3.jpg\n", path_column="path", label_column="tags")
    assert images.label_names == ["beach", "café", "sunset"]
    assert label_sets(images) == {"1.jpg": {"beach", "sunset"}, "2.jpg": set(), "3.jpg": {"café"}}


@pytest.mark.parametrize("options", [{}, {"label_column": "tags"}])
def test_csv_lines_of_the_same_image_are_votes(read, options):
    rows = [("0/1.jpg", "ab"), ("./0/1.jpg", "bc"), ("2.jpg", "a"), ("0//1.jpg", "b"), ("x/../0/1.jpg", "c")]
    if options:
        lines = ["path,tags", *(f"{path},{'|'.join(names)}" for path, names in rows)]
    else:
        lines = ["path,a,b,c", *(f"{path},{','.join(str(int(n in names)) for n in 'abc')}" for path, names in rows)]
    content = "\n".join(lines)
    union, agreed = read(content, **options), read(content, **options, min_votes=3)
    assert label_sets(union) == {"0/1.jpg": {"a", "b", "c"}, "2.jpg": {"a"}}
    assert label_sets(agreed) == {"0/1.jpg": {"b"}, "2.jpg": set()}
    assert union.notes == ["Lines with the image of an earlier line: 3. They count as votes (--min-votes 1)."]


def test_csv_without_enough_votes_for_any_label_raises(read):
    with pytest.raises(AnnotationError, match=r"labels\.csv contains no label: no image has one with --min-votes 2\."):
        read("path,a\n1.jpg,1\n2.jpg,1\n", min_votes=2)
    with pytest.raises(ValueError, match="`min_votes` must be at least 1, got 0"):
        read("path,a\n1.jpg,1\n", min_votes=0)


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_csv_delimiter_is_that_of_the_header(read, mark):
    images = read(f"path{mark}a{mark}b\n1.jpg{mark}1{mark}0\n2.jpg{mark}1{mark}1\n")
    assert label_sets(images) == {"1.jpg": {"a"}, "2.jpg": {"a", "b"}}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_csv_skips_blank_lines_and_a_byte_order_mark(read, end):
    content = end.join(["\ufeff", "  ", "path,tags", "", "1.jpg,sea", ",", "2.jpg,sky", ""])
    assert label_sets(read(content, label_column="tags")) == {"1.jpg": {"sea"}, "2.jpg": {"sky"}}
    with pytest.raises(AnnotationError, match=r"labels\.csv, line 8 must have 2 fields"):
        read(content + "3.jpg", label_column="tags")


@settings(max_examples=30, deadline=None)
@given(
    rows=st.dictionaries(
        st.from_regex(r"[a-z\"',;|é]{1,4}(/[a-z ]{1,4})?\.jpg", fullmatch=True),
        st.sets(st.sampled_from(["a", "b c", "d'e", 'f"g', "é", "(h)", "i, j", "[k]"]), min_size=1),
        min_size=1,
    ),
    mark=st.sampled_from([",", ";", "\t"]),
)
def test_csv_written_by_python_is_read_as_written(tmp_path_factory, rows, mark):
    folder = tmp_path_factory.mktemp("set")
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=mark)
    writer.writerows([["path", "tags"], *([path, "|".join(sorted(names))] for path, names in rows.items())])
    (folder / "labels.csv").write_text(text.getvalue(), encoding="utf-8", newline="")
    images = read_csv_labels(folder / "labels.csv", folder, label_column="tags", separator="|")
    assert label_sets(images) == rows


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("path,tags\na.jpg,beach,sunset", {"label_column": "tags"}, r"line 2 must have 2 fields .* ',', got 3\. A"),
        ("path,a,b\n1.jpg,1,0,1", {}, r"line 2 must have 3 fields like the header, separated by ',', got 4"),
        ("path,a,b\n1.jpg,1", {}, r"line 2 must have 3 fields like the header, separated by ',', got 2"),
        ("path,cat,cat\n1.jpg,1,0", {}, r"line 1 has two columns 'cat'\. Rename or remove one"),
        ("path,tags, tags\n1.jpg,a,b", {"label_column": "tags"}, r"line 1 has two columns 'tags'"),
        ("\npath,a,path\n1.jpg,1,0", {}, r"line 2 has two columns 'path'"),
        (",path,a\n0,1.jpg,1", {}, r"line 1: column 1 has no name, like an index written by pandas\. .*index=False"),
        ("Unnamed: 0,path,a\n0,1.jpg,1", {}, "line 1: column 1 has no name"),
        (",path,a\n0,1.jpg,1", {"path_column": "path"}, "line 1: column 1 has no name"),
        ("path,a,\n1.jpg,1,", {}, "line 1: column 3 has no name"),
        ("path,a\x07b\n1.jpg,1", {}, r"line 1: the name of column 2 must be the name of a label, .* got 'a\\x07b'"),
        ("1.jpg,1,0\n2.jpg,0,1", {}, r"line 1 must be a header, got the image '1\.jpg'"),
        (
            "path,tags\n1.jpg,a",
            {"label_column": "path"},
            "contains no label: it must have a column of labels in addition to",
        ),
        ("path\n1.jpg", {}, "contains no label: it must have a column of labels in addition to"),
        ("path,tags\n1.jpg,\n", {"label_column": "tags"}, "contains no label: no image has one with --min-votes 1"),
        ("path,a\n1.jpg,2", {}, r"line 2: 'a' must be 0 or 1, got '2'\. .*--label-column"),
        ("path,a\n1.jpg,1", {"label_column": "b"}, r"has no column 'b'; it has path, a\."),
        ("path,a\n1.jpg,1", {"path_column": "file"}, r"has no column 'file'; it has path, a\."),
        ("path,a\n", {}, "must have a header and at least one line below it"),
        ("", {}, "must have a header and at least one line below it"),
        ("path,a\n1.jpg,1\n2\0.jpg,1", {}, "line 3 contains a NUL byte"),
        ("path,a\n1.jpg,1".encode("utf-16"), {}, "line 1 contains a NUL byte"),
    ],
)
def test_csv_in_another_format_raises_with_the_line(read, content, options, message):
    with pytest.raises(AnnotationError, match=rf"labels\.csv.*{message}"):
        read(content, **options)


@pytest.mark.parametrize(
    "cell", ["['Action', 'Comedy']", '["Action"]', "[]", "[1, 2]", "('Action',)", "{'Action'}", "'Action'", ' "Action"']
)
def test_csv_with_a_list_or_quotes_in_a_cell_of_names_raises(read, cell):
    text = io.StringIO()
    csv.writer(text).writerows([["path", "tags"], ["1.jpg", "Drama"], ["2.jpg", cell]])
    for separator in (None, ",", "|"):
        with pytest.raises(
            AnnotationError, match=r"line 3 must have names separated by '.', without brackets and quot"
        ):
            read(text.getvalue(), label_column="tags", separator=separator)


def test_csv_with_another_separator_than_the_default_raises_unless_it_is_passed(read):
    content = 'path,tags\n1.jpg,sea\n2.jpg,"sea,sky"\n'
    with pytest.raises(
        AnnotationError,
        match=r"line 3: no line contains the default separator '\|', got 'sea,sky'\. Pass --separator ','",
    ):
        read(content, label_column="tags")
    assert read(content, label_column="tags", separator=",").label_names == ["sea", "sky"]
    assert read(content, label_column="tags", separator="|").label_names == ["sea", "sea,sky"]


@pytest.mark.parametrize(
    ("lines", "line"),
    [
        (['1.jpg,"sea', "2.jpg,sky", '3.jpg,"sun"'], 2),
        (["1.jpg,sea", '2.jpg,"sky', "3.jpg,sun"], 3),
        (["1.jpg,sea", '2.jpg,"sky', '3.jpg,sun"'], 3),
        (["1.jpg,sea", '"2.jpg', '3.jpg",sun'], 3),
        (['1.jpg,"sea"l', "2.jpg,sky"], 2),
        (["1.jpg,sea", '2.jpg,"' + "x" * 200_000 + '"'], 3),
    ],
)
def test_csv_with_an_unclosed_quote_raises_with_the_line_in_which_the_record_begins(read, lines, line):
    with pytest.raises(
        AnnotationError, match=rf"labels\.csv, line {line} .*Check for a quote that is not closed"
    ) as raised:
        read("\n".join(["path,tags", *lines]), label_column="tags")
    assert len(str(raised.value)) < 1000


def test_csv_with_line_breaks_in_a_column_that_is_not_read_is_valid(read):
    images = read('path,caption,tags\n1.jpg,"one\ntwo",sea\n2.jpg,"three",sky\n', label_column="tags")
    assert label_sets(images) == {"1.jpg": {"sea"}, "2.jpg": {"sky"}}
    with pytest.raises(AnnotationError, match="line 4 must have 3 fields"):
        read('path,caption,tags\n1.jpg,"one\ntwo",sea\n2.jpg,three\n', label_column="tags")


@pytest.mark.parametrize(
    "path", ["../1.jpg", "/1.jpg", "a/../../1.jpg", "", " ", ".", "a/..", r"..\1.jpg", r"C:\1.jpg"]
)
def test_csv_with_a_path_outside_the_folder_raises(read, path):
    with pytest.raises(
        AnnotationError, match=r"labels\.csv, line 3: the path '.*' is not a path in .*photos\. The path of"
    ):
        read(f"path,a\n0.jpg,1\n{path},1")


def test_csv_reads_links_to_files_outside_the_folder(read, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "store.jpg").touch()
    (tmp_path / "photos" / "1.jpg").symlink_to("../store.jpg")
    (tmp_path / "photos" / "linked").symlink_to(tmp_path)
    assert read("path,a\n1.jpg,1\nlinked/store.jpg,1").paths == ["1.jpg", "linked/store.jpg"]


def test_csv_that_is_not_utf8_raises_except_in_the_names_of_images(read, tmp_path):
    with pytest.raises(AnnotationError, match=r"labels\.csv must be a CSV file in UTF-8, got: byte 0xe9 in line 1"):
        read("path,café\n1.jpg,1".encode("latin-1"))
    with pytest.raises(AnnotationError, match=r"in UTF-8, got: byte 0xe9 in line 2"):
        read("path,tags\n1.jpg,café".encode("latin-1"), label_column="tags")
    content = "path,a\ncafé.jpg,1".encode("latin-1")
    with pytest.raises(AnnotationError, match=r"in UTF-8, got: byte 0xe9 in line 2"):
        read(content)
    (tmp_path / "photos").mkdir()
    try:
        (tmp_path / "photos" / os.fsdecode(b"caf\xe9.jpg")).touch()
    except OSError:
        pytest.skip("this file system supports only names in UTF-8")
    (path,) = read(content).paths
    assert os.fsencode(path) == b"caf\xe9.jpg"


@pytest.mark.parametrize("length", [300, 2_000, 1_000_000])
def test_csv_messages_are_short_whatever_the_content(read, length):
    long = "x" * length
    for content, options in [
        (f"path,a\n{long},1", {}),
        (f"path,a\n1.jpg,{long[:100_000]}", {}),
        (f"path,{long[:100_000]}\n1.jpg,2", {}),
        (f"path,{','.join(f'c{number}' for number in range(length // 10))}\n1.jpg,1", {"path_column": "file"}),
    ]:
        with pytest.raises(AnnotationError, match=r"labels\.csv") as raised:
            read(content, **options)
        assert len(str(raised.value)) < 1000


def test_csv_record_inside_an_unclosed_quote_of_another_column_raises(read):
    with pytest.raises(
        AnnotationError, match=r"labels\.csv, line 2 has a field that contains the record 'b\.jpg,y,foo'"
    ):
        read('path,tags,note\na.jpg,x,"hello\nb.jpg,y,foo\nc.jpg,z,bar"\nd.jpg,u,h\n', label_column="tags")
    images = read('path,tags,note\na.jpg,x,"two lines,\nof a note"\nb.jpg,y,\n', label_column="tags")
    assert label_sets(images) == {"a.jpg": {"x"}, "b.jpg": {"y"}}


@pytest.mark.parametrize("cell", ["[Action, Comedy]", "{Action, Comedy}"])
def test_csv_cell_in_brackets_raises(read, cell):
    with pytest.raises(AnnotationError, match=r"line 2 must have names separated by ',', without brackets"):
        read(f'path,tags\na.jpg,"{cell}"\n', label_column="tags", separator=",")
