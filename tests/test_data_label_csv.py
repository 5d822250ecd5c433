"""Labels of images in CSV files: the table, the choice of columns, paths, parts and votes."""

import os

import pandas as pd
import pytest

from mlmetric.data import LabelFileError, read_image_labels


@pytest.fixture
def read(tmp_path):
    """Read a CSV file with this content."""

    def read_content(content, **options):
        path = tmp_path / "labels.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_image_labels(path, **options)

    return read_content


def label_sets(images):
    return {path: set(images.names_of(row)) for row, path in enumerate(images.paths)}


def test_csv_with_a_column_for_each_label_gives_their_labels(read, tmp_path):
    images = read("path,beach,sunset\na/1.jpg,1,0\n2.jpg, 0 ,1\n3.jpg,0,0\n")
    assert images.label_names == ["beach", "sunset"]
    assert label_sets(images) == {"a/1.jpg": {"beach"}, "2.jpg": {"sunset"}, "3.jpg": set()}
    assert (images.root, images.notes, images.parts, images.votes) == (tmp_path, [], None, None)


def test_csv_with_a_column_of_names_gives_their_labels(read):
    images = read("tags,path\nsunset | beach,1.jpg\n,2.jpg\ncafé,3.jpg\n")
    assert images.label_names == ["beach", "café", "sunset"]
    assert label_sets(images) == {"1.jpg": {"beach", "sunset"}, "2.jpg": set(), "3.jpg": {"café"}}


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_csv_delimiter_is_that_of_the_header(read, mark):
    images = read(f"path{mark}a{mark}b\n1.jpg{mark}1{mark}0\n2.jpg{mark}1{mark}1\n")
    assert label_sets(images) == {"1.jpg": {"a"}, "2.jpg": {"a", "b"}}
    assert f"fields separated by {mark!r}" in images.source


def test_csv_delimiter_among_several_in_the_header_is_the_one_that_fits_or_must_be_passed(read):
    content = 'path;"beach, sand";sea\n1.jpg;1;0\n'
    assert read(content).label_names == ["beach, sand"]
    assert read("path;beach, sand;sea\n1.jpg;1;0\n").label_names == ["beach, sand"]
    content = "path;a,b\n1.jpg;1,0\n"
    with pytest.raises(LabelFileError, match=r"labels\.csv: the header contains ',' and ';'\. Pass .* as `delimiter`"):
        read(content)
    assert read(content.replace("1,0", "1"), delimiter=";").label_names == ["a,b"]
    assert read("path^a\n1.jpg^1\n", delimiter="^").label_names == ["a"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_csv_skips_blank_lines_and_a_byte_order_mark(read, end):
    content = end.join(["\ufeff", "  ", "path,tags", "", "1.jpg,sea", ",", "2.jpg,sky", ""])
    assert label_sets(read(content)) == {"1.jpg": {"sea"}, "2.jpg": {"sky"}}
    with pytest.raises(LabelFileError, match=r"labels\.csv, line 8 must have 2 fields"):
        read(content + "3.jpg")


@pytest.mark.parametrize("suffix", [".tsv", ".TXT", ".csv"])
def test_text_files_are_read_as_csv(tmp_path, suffix):
    (tmp_path / f"labels{suffix}").write_text("path\ta\n1.jpg\t1\n")
    assert read_image_labels(tmp_path / f"labels{suffix}").labels.tolist() == [[1]]


@pytest.mark.parametrize("name", ["", "Unnamed: 0"])
def test_csv_index_column_is_left_out(read, name):
    images = read(f"{name},path,a,b\n7,1.jpg,1,0\n8,2.jpg,0,1\n")
    assert label_sets(images) == {"1.jpg": {"a"}, "2.jpg": {"b"}}
    assert images.notes == ["Column 1 left out: it has no name and contains row numbers."]
    images = read(f"path,a,b,{name}\n1.jpg,1,1,\n2.jpg,0,1,\n")
    assert images.notes == ["Column 4 left out: it has no name and is empty."]


@pytest.mark.parametrize("index", [True, False])
def test_csv_written_by_pandas_is_read(tmp_path, index):
    frame = pd.DataFrame({"file": ["1.jpg", "2.jpg", "2.jpg"], "sea": [True, False, True], "sky": [0.0, 1.0, 1.0]})
    frame.to_csv(tmp_path / "labels.csv", index=index)
    assert label_sets(read_image_labels(tmp_path / "labels.csv")) == {"1.jpg": {"sea"}, "2.jpg": {"sea", "sky"}}


def test_csv_column_without_a_name_that_is_no_index_must_be_passed_or_excluded(read):
    content = ",sea,sky\n1.jpg,1,0\n2.jpg,0,1\n"
    with pytest.raises(
        LabelFileError,
        match=r"line 1: column 1 has no name, and contains no row numbers but '1\.jpg' in line 2\. .*`path_column=''`",
    ):
        read(content)
    assert label_sets(read(content, path_column="")) == {"1.jpg": {"sea"}, "2.jpg": {"sky"}}
    content = "path,sea,\n1.jpg,1,0\n2.jpg,0,0\n3.jpg,0,1\n"
    with pytest.raises(LabelFileError, match=r"column 3 has no name, and contains no row numbers but '0' in line 2"):
        read(content)
    assert read(content, exclude_columns=[""]).label_names == ["sea"]


def test_csv_column_of_image_files_is_that_of_the_paths(read):
    content = "id,file,sea\n7,a.jpg,1\n8,b.PNG,0\n"
    images = read(content, exclude_columns=["id"])
    assert images.paths == ["a.jpg", "b.PNG"]
    assert images.notes == ["Columns left out: 'id' (`exclude_columns`)."]
    with pytest.raises(LabelFileError, match=r"line 2: 'id' must be 0 or 1, .*, got '7'\. .*`exclude_columns=\['id'\]"):
        read(content)
    assert read("id,sea\n7,1\n8,0\n").paths == ["7", "8"]
    assert read("image,mask,sea\n1.jpg,1.png,1\n", exclude_columns=["mask"]).paths == ["1.jpg"]
    assert read("image,mask,sea\n1.jpg,1.png,1\n", label_columns=["sea"]).paths == ["1.jpg"]
    with pytest.raises(
        LabelFileError, match=r"has several columns of image files: 'image', 'mask'\. Pass one as `path"
    ):
        read("id,image,mask,sea\n7,1.jpg,1.png,1\n")


def test_csv_first_column_that_may_be_a_label_is_not_taken_for_the_paths(read):
    content = "sea,sky,id\n1,0,a\n0,1,b\n"
    with pytest.raises(LabelFileError, match=r"first column, 'sea', contains '1', '0', which may be a label\. Pass"):
        read(content)
    assert label_sets(read(content, path_column="id")) == {"a": {"sea"}, "b": {"sky"}}


def test_csv_columns_that_are_not_read_are_named(read):
    content = "path,sea,sky,url\n1.jpg,1,0,u\n2.jpg,1,1,v\n"
    images = read(content, label_columns=["sky"])
    assert label_sets(images) == {"1.jpg": set(), "2.jpg": {"sky"}}
    assert images.notes == ["Columns not read: 'sea', 'url'."]
    assert read(content, label_columns=["sky", "sea"]).label_names == ["sky", "sea"]


def test_csv_suffix_completes_ids(read):
    images = read("id,a\n1,1\nx/2.jpg,0\n", suffix=".jpg")
    assert images.paths == ["1.jpg", "x/2.jpg"]
    assert "in the column 'id' and '.jpg' added where it was missing;" in images.source
    with pytest.raises(LabelFileError, match=r"line 3: the path '1\.jpg' is another spelling of '1' in line 2"):
        read("id,a\n1,1\n1.jpg,0\n", suffix=".jpg")


def test_csv_split_column_gives_the_rows_of_each_part(read):
    images = read("path,sea,split\n1.jpg,1,train\n2.jpg,1, test\n3.jpg,0,train\n1.jpg,1,train\n", split_column="split")
    assert {name: rows.tolist() for name, rows in images.parts.items()} == {"train": [0, 2], "test": [1]}
    assert images.label_names == ["sea"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            "1.jpg,1,train\n2.jpg,1,test\n1.jpg,0,test\n",
            "line 4: the image is in the part 'test', but in 'train' in l.* 2",
        ),
        ("1.jpg,1,train\n2.jpg,1, \n", "line 3: 'split' must name a part, but is empty"),
    ],
)
def test_csv_split_column_with_an_image_in_two_parts_or_in_none_raises(read, lines, message):
    with pytest.raises(LabelFileError, match=message):
        read(f"path,sea,split\n{lines}", split_column="split")


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("path,tags\na.jpg,beach,sunset", {}, r"line 2 must have 2 fields .* ',', got 3\. A"),
        ("path,a,b\n1.jpg,1,0,1", {}, r"line 2 must have 3 fields like the header, separated by ',', got 4"),
        ("path,a,b\n1.jpg,1", {}, r"line 2 must have 3 fields like the header, separated by ',', got 2"),
        ("path,cat,cat\n1.jpg,1,0", {}, r"line 1 has two columns 'cat'\. Rename or remove one, or add the header"),
        ("path,tags, tags\n1.jpg,a,b", {"label_column": "tags"}, r"line 1 has two columns 'tags'"),
        ("\npath,a,path\n1.jpg,1,0", {}, r"line 2 has two columns 'path'"),
        ("path,a\x07b\n1.jpg,1", {}, r"line 1: column 2 must be the name of a label, .* got 'a\\x07b'"),
        ("1.jpg,1,0\n2.jpg,0,1", {}, r"line 1 must be a header, got the image '1\.jpg'"),
        ("path\n1.jpg", {}, r"contains no label: .* in addition to .* its columns are \['path'\]"),
        ("path\n1.jpg", {"exclude_columns": ["path"]}, r"has no column of paths; its columns are \['path'\]"),
        ("path,tags\n1.jpg,\n", {}, "contains no label: no image has one"),
        ("path,a\n1.jpg,0\n", {}, "contains no label: no image has one"),
        ("path,a\n1.jpg,1", {"label_column": "b"}, r"has no column 'b'; it has \['path', 'a'\]\."),
        ("path,a\n1.jpg,1", {"path_column": "file"}, r"has no column 'file'; it has \['path', 'a'\]\."),
        ("path,a\n1.jpg,1", {"exclude_columns": ["b"]}, r"has no column 'b'"),
        ("path,a\n1.jpg,1", {"split_column": "b"}, r"has no column 'b'"),
        ("path,a\n", {}, "must have a header and at least one line below it"),
        ("", {}, "must have a header and at least one line below it"),
        ("path,a\n1.jpg,1\n2\0.jpg,1", {}, "line 3 contains a NUL byte"),
        ("path,a\n1.jpg,1".encode("utf-16"), {}, "line 1 contains a NUL byte"),
    ],
)
def test_csv_in_another_format_raises_with_the_line(read, content, options, message):
    with pytest.raises(LabelFileError, match=rf"labels\.csv.*{message}"):
        read(content, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"path_column": "a", "label_column": "a"},
        {"path_column": "a", "exclude_columns": ["a"]},
        {"split_column": "a", "label_columns": ["a"]},
        {"label_columns": ["a", "a"]},
    ],
)
def test_csv_column_that_is_passed_for_two_purposes_raises(read, options):
    with pytest.raises(LabelFileError, match=r"The column 'a' of .*labels\.csv was passed for two purposes"):
        read("path,a\n1.jpg,1", **options)


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
        LabelFileError, match=rf"labels\.csv, line {line} .*Check for a quote that is not closed"
    ) as raised:
        read("\n".join(["path,tags", *lines]))
    assert len(str(raised.value)) < 1000


def test_csv_with_line_breaks_in_a_column_that_is_not_read_is_valid(read):
    images = read('path,caption,tags\n1.jpg,"one\ntwo",sea\n2.jpg,"three",sky\n', label_column="tags")
    assert label_sets(images) == {"1.jpg": {"sea"}, "2.jpg": {"sky"}}
    with pytest.raises(LabelFileError, match="line 4 must have 3 fields"):
        read('path,caption,tags\n1.jpg,"one\ntwo",sea\n2.jpg,three\n', label_column="tags")


def test_csv_record_inside_an_unclosed_quote_of_another_column_raises(read):
    with pytest.raises(LabelFileError, match=r"line 2 has a field that contains the record 'b\.jpg,y,foo'"):
        read('path,tags,note\na.jpg,x,"hello\nb.jpg,y,foo\nc.jpg,z,bar"\nd.jpg,u,h\n', label_column="tags")


@pytest.mark.parametrize("path", ["../1.jpg", "/1.jpg", "a/../../1.jpg", r"..\1.jpg", r"C:\1.jpg"])
def test_csv_with_a_path_outside_the_folder_raises(read, path):
    with pytest.raises(LabelFileError, match=r"labels\.csv, line 3: the path '.*' is not a path in "):
        read(f"path,a\n0.jpg,1\n{path},1")


@pytest.mark.parametrize("path", ["", " ", ".", "a/.."])
def test_csv_with_a_path_of_no_file_raises(read, path):
    with pytest.raises(LabelFileError, match=r"labels\.csv, line 3: the path '.*' is not the path of a file"):
        read(f"path,a\n0.jpg,1\n{path},1")


@pytest.mark.parametrize("other", ["./a.jpg", "b/../a.jpg"])
def test_csv_with_another_spelling_of_a_path_raises_with_both_lines(read, other):
    with pytest.raises(LabelFileError, match=rf"line 4: the path '{other}' is another spelling of 'a\.jpg' in line 2"):
        read(f"path,a\na.jpg,1\nb.jpg,1\n{other},1")


def test_csv_reads_links_to_files_outside_the_folder(read, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "store.jpg").touch()
    (tmp_path / "photos" / "1.jpg").symlink_to("../store.jpg")
    (tmp_path / "photos" / "linked").symlink_to(tmp_path)
    images = read("path,a\n1.jpg,1\nlinked/store.jpg,1", images=tmp_path / "photos")
    assert (images.paths, images.notes) == (["1.jpg", "linked/store.jpg"], [])


def test_csv_that_is_not_utf8_raises_except_in_the_names_of_images(read, tmp_path):
    with pytest.raises(LabelFileError, match=r"labels\.csv must be a CSV file in UTF-8, got: byte 0xe9 in line 1"):
        read("path,café\n1.jpg,1".encode("latin-1"))
    with pytest.raises(LabelFileError, match=r"in UTF-8, got: byte 0xe9 in line 2"):
        read("path,tags\n1.jpg,café".encode("latin-1"))
    content = "path,a\ncafé.jpg,1".encode("latin-1")
    with pytest.raises(LabelFileError, match=r"in UTF-8, got: byte 0xe9 in line 2"):
        read(content)
    try:
        (tmp_path / os.fsdecode(b"caf\xe9.jpg")).touch()
    except OSError:
        pytest.skip("this file system supports only names in UTF-8")
    (path,) = read(content).paths
    assert os.fsencode(path) == b"caf\xe9.jpg"


@pytest.mark.parametrize("length", [300, 2_000, 1_000_000])
def test_csv_messages_are_short_whatever_the_content(read, length):
    long = "x" * length
    for content, options in [
        (f"path,a\n{long},1", {}),
        (f"path,a,b\n1.jpg,1,{long[:100_000]}", {}),
        (f"path,b,{long[:100_000]}\n1.jpg,2,1", {}),
        (f"path,{','.join(f'c{number}' for number in range(length // 10))}\n1.jpg,1", {"path_column": "file"}),
    ]:
        with pytest.raises(LabelFileError, match=r"labels\.csv") as raised:
            read(content, **options)
        assert len(str(raised.value)) < 1000
