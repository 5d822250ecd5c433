import json
import os

import pytest
import torch

from ads.reader import AnnotationError, read_annotations, read_label_list

LABEL_LINES = [
    '1. "Active\u00a0(lively, sporty)" (ABBREVIATION: "active")',
    '2. "Jealous" (ABBREVIATION: "jealous")',
    '3. "Calm\u00a0(serene)" (ABBREVIATION: "calm")',
]


@pytest.fixture
def write_set(tmp_path):
    def write(annotations, lines=LABEL_LINES):
        annotation_file, label_list = tmp_path / "Sentiments.json", tmp_path / "Sentiments_List.txt"
        text = annotations if isinstance(annotations, str) else json.dumps(annotations)
        annotation_file.write_text(text, encoding="utf-8")
        label_list.write_bytes("".join(f"{line}\n" for line in lines).encode("latin-1"))
        return annotation_file, label_list

    return write


def thirty_lines():
    return [f'{number}. "Name{number}\u00a0(a, b)" (ABBREVIATION: "name{number}")' for number in range(1, 31)]


def label_ids(row):
    return (row.nonzero().flatten() + 1).tolist()


@pytest.mark.parametrize(
    ("key", "answers", "expected"),
    [
        ("0/80990.jpg", [["4", "6", "11"], ["12", "21", "4"], ["24", "25"]], [4, 6, 11, 12, 21, 24, 25]),
        ("2/97682.jpg", [["30"], ["1", "4"], ["9", "12"], ["4"]], [1, 4, 9, 12, 30]),
    ],
)
def test_reader_on_the_papers_examples_gives_the_union_over_annotators(write_set, key, answers, expected):
    ads = read_annotations(*write_set({key: answers}, thirty_lines()))
    assert ads.paths == [key]
    assert ads.labels().shape == (1, 30)
    assert label_ids(ads.labels()[0]) == expected


def test_reader_counts_votes_agreement_and_shares(write_set):
    ads = read_annotations(*write_set({"0/1.jpg": [["1", "2"], ["1"], ["3"], ["1"]], "10/2.png": [["2"], ["3"]]}))
    assert ads.label_names == ["active", "jealous", "calm"]
    assert ads.votes.tolist() == [[3, 1, 1], [0, 1, 1]]
    assert ads.num_annotators.tolist() == [4, 2]
    assert ads.labels(min_votes=2).tolist() == [[1, 0, 0], [0, 0, 0]]
    torch.testing.assert_close(ads.labels(soft=True), torch.tensor([[0.75, 0.25, 0.25], [0.0, 0.5, 0.5]]))


def test_reader_on_an_id_listed_twice_in_an_answer_counts_it_once(write_set):
    ads = read_annotations(*write_set({"0/1.jpg": [["1", "1", " 1"], ["3"]]}))
    assert ads.votes.tolist() == [[1, 0, 1]]


def test_reader_counts_free_text_and_drops_images_without_labels(write_set):
    ads = read_annotations(
        *write_set({"0/1.jpg": [["1", "bored"], [""], ["3"]], "0/2.jpg": [["bored"], [" "]], "0/3.jpg": []})
    )
    assert ads.skipped_answers == {"bored": 2, "": 2}
    assert ads.paths == ["0/1.jpg"]
    assert ads.dropped_images == 2
    assert ads.num_annotators.tolist() == [3]


def test_reader_without_images_gives_empty_matrices(write_set):
    ads = read_annotations(*write_set({}))
    assert ads.votes.shape == (0, 3)
    assert ads.labels(soft=True).shape == (0, 3)


def test_reader_reads_every_image_type_in_any_case(write_set):
    keys = ["0/1.jpg", "a b/2.JPEG", "10/3.png", "4.webp"]
    assert read_annotations(*write_set({key: [["1"]] for key in keys})).paths == keys


@pytest.mark.parametrize(
    "key", ["../../etc/passwd", "/etc/secret.jpg", "0/../../x.jpg", r"..\x.jpg", r"C:\x.jpg", r"\\host\share\x.jpg"]
)
def test_reader_on_a_path_outside_the_image_folder_raises(write_set, key):
    with pytest.raises(
        AnnotationError, match=r"Sentiments.json, image .* is not a path in the image folder\. The path of"
    ):
        read_annotations(*write_set({key: [["1"]]}))


@pytest.mark.parametrize(("key", "suffix"), [("0/1.gif", ".gif"), ("0/jpg", ""), ("0/1.jpg.exe", ".exe")])
def test_reader_on_a_path_that_is_not_an_image_raises(write_set, key, suffix):
    with pytest.raises(AnnotationError, match=rf"{key}' must end in one of .jpg, .jpeg, .png, .webp, got '{suffix}'"):
        read_annotations(*write_set({key: [["1"]]}))


@pytest.mark.parametrize("text", ["31", "0", "05", "9" * 100])
def test_reader_on_an_id_that_is_not_in_the_list_raises(write_set, text):
    match = rf"'0/1.jpg', answer 2 must contain label ids from 1 to 3, got {text}\..*Sentiments_List.txt has 3 labels"
    with pytest.raises(AnnotationError, match=match):
        read_annotations(*write_set({"0/1.jpg": [["1"], [text]]}))


@pytest.mark.parametrize(
    ("annotation", "kind"), [("1", "a string"), ({"1": 1}, "an object"), (None, "null"), (7, "a number")]
)
def test_reader_on_an_annotation_that_is_not_a_list_raises(write_set, annotation, kind):
    with pytest.raises(AnnotationError, match=rf"image '0/1.jpg' must have a list of answers.*got {kind}\. Correct"):
        read_annotations(*write_set({"0/1.jpg": annotation}))


@pytest.mark.parametrize(
    ("answer", "shown"), [("1", "'1'"), ([1], r"\[1\]"), (None, "None"), ([["1"]], r"\[\['1'\]\]")]
)
def test_reader_on_an_answer_that_is_not_a_list_of_strings_raises(write_set, answer, shown):
    with pytest.raises(
        AnnotationError, match=rf"'0/1.jpg', answer 2 must be a list of strings .*got {shown}\. Correct"
    ):
        read_annotations(*write_set({"0/1.jpg": [["1"], answer]}))


@pytest.mark.parametrize(("text", "kind"), [("[]", "a list"), ("3", "a number"), ("true", "a boolean")])
def test_reader_on_json_that_is_not_an_object_raises(write_set, text, kind):
    with pytest.raises(
        AnnotationError, match=rf"Sentiments.json must contain a JSON object of image paths, got {kind}\."
    ):
        read_annotations(*write_set(text))


def test_reader_counts_the_annotators_of_all_entries_of_an_image(write_set):
    text = """{"0/1.jpg": [["1"], ["2"]], "0/2.jpg": [["3"]], "./0/1.jpg": [["2"]], "0/1.jpg": [["2", "3"]],
               "0//2.jpg": [], "1/../0/2.jpg": [["bored"]], "0/3.jpg": [], "./0/3.jpg": [[""]]}"""
    ads = read_annotations(*write_set(text))
    assert ads.paths == ["0/1.jpg", "0/2.jpg"]
    assert ads.votes.tolist() == [[1, 3, 1], [0, 0, 1]]
    assert ads.num_annotators.tolist() == [4, 2]
    assert (ads.merged_entries, ads.dropped_images) == (5, 1)
    assert ads.labels(min_votes=2).tolist() == [[0, 1, 0], [0, 0, 0]]


def test_reader_reads_a_byte_order_mark_and_escapes_of_bytes_that_are_not_utf8(write_set):
    path = os.fsdecode(b"0/caf\xe9.jpg")
    ads = read_annotations(*write_set("\ufeff" + json.dumps({path: [["1"]]})))
    assert ads.paths == [path]


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a.jpg": ' * 100_000, '{"a.jpg": [["1"], ' + "[" * 100_000 + "]" * 100_000 + "]}"]
)
def test_reader_on_deeply_nested_annotations_raises(write_set, text):
    with pytest.raises(
        AnnotationError, match=r"Sentiments.json must contain an object of lists of lists, .*nested too deeply"
    ):
        read_annotations(*write_set(text))


@pytest.mark.parametrize(
    "annotations",
    [
        {"0/1.jpg": ["1" * 10**6]},
        {"0/1.jpg": [["9" * 10**6]]},
        {"0/1.jpg": [[["1" * 300] * 50] * 50]},
        {"x" * 10**6 + ".jpg": [["1"]]},
        {"0/1." + "x" * 250: [["1"]]},
        '{"0/1.jpg": [' + "[" * 500 + "]" * 500 + "]}",
    ],
)
def test_reader_messages_are_short_whatever_the_content(write_set, annotations):
    with pytest.raises(AnnotationError, match=r"Sentiments.json, image '") as raised:
        read_annotations(*write_set(annotations))
    assert len(str(raised.value)) < 1000


def test_reader_on_a_pipe_raises(write_set, tmp_path):
    annotations, label_list = write_set({})
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(AnnotationError, match=r"The annotation file .*pipe must be a regular file"):
        read_annotations(tmp_path / "pipe", label_list)
    with pytest.raises(AnnotationError, match=r"The label list .*pipe must be a regular file"):
        read_annotations(annotations, tmp_path / "pipe")


def test_reader_on_a_truncated_file_raises(write_set):
    with pytest.raises(AnnotationError, match=r"Sentiments.json must be JSON in UTF-8, got: .*column 25.*truncated"):
        read_annotations(*write_set('{"0/1.jpg": [["1"], ["2"'))


def test_reader_on_a_missing_file_raises(write_set, tmp_path):
    _, label_list = write_set({})
    with pytest.raises(FileNotFoundError, match=r"There is no annotation file at .*nowhere.json\. Check the path"):
        read_annotations(tmp_path / "nowhere.json", label_list)
    with pytest.raises(FileNotFoundError, match=r"There is no label list at .*nowhere.txt\. Check the path"):
        read_label_list(tmp_path / "nowhere.txt")


def test_labels_on_soft_with_min_votes_raises(write_set):
    ads = read_annotations(*write_set({"0/1.jpg": [["1"]]}))
    with pytest.raises(ValueError, match=r"`min_votes` must be 1 for soft labels, got 2"):
        ads.labels(min_votes=2, soft=True)


def test_label_list_reads_the_byte_a0_missing_parentheses_blank_lines_and_any_line_end(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes("\r\n\r\n".join(LABEL_LINES).encode("latin-1"))
    assert path.read_bytes().count(b"\xa0") == 2
    assert read_label_list(path) == ["active", "jealous", "calm"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
def test_label_list_reads_names_that_are_not_ascii_in_either_encoding(tmp_path, encoding):
    (tmp_path / "list.txt").write_bytes('1. "Fröhlich\xa0(so)" (ABBREVIATION: " fröhlich ")\r'.encode(encoding))
    assert read_label_list(tmp_path / "list.txt") == ["fröhlich"]


@pytest.mark.parametrize(
    ("lines", "match"),
    [
        ([LABEL_LINES[0].replace("active", " ")], "line 1: the abbreviation must be the name of a label, .* got ' '"),
        ([LABEL_LINES[0].replace("active", "a\0")], r"line 1: the abbreviation must be .* got 'a\\x00'"),
        (
            [LABEL_LINES[0].replace('"active"', '"active "'), LABEL_LINES[0].replace("1.", "2.")],
            "got 'active' a second",
        ),
        (["x" * 10**6], r"line 1 must look like .*, got 'x{50,60}\.\.\.x{50,60}'\. Correct"),
        (["7" * 10**6 + LABEL_LINES[0][1:]], r"line 1 must have label number 1, got 7{117}\.\.\.\."),
        ([LABEL_LINES[0], "Jealous"], r"Sentiments_List.txt, line 2 must look like 1\. .*got 'Jealous'\. Correct"),
        ([LABEL_LINES[0], LABEL_LINES[2]], "line 2 must have label number 2, got 3. Number the labels"),
        (
            [LABEL_LINES[0], LABEL_LINES[0].replace("1.", "2.")],
            "line 2 must have a unique abbreviation, got 'active'",
        ),
        ([], "Sentiments_List.txt must contain at least one label, got none"),
    ],
)
def test_invalid_label_list_raises(write_set, lines, match):
    _, label_list = write_set({}, lines)
    with pytest.raises(AnnotationError, match=match):
        read_label_list(label_list)
