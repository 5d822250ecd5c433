"""The result of reading labels, its summary, and the arguments that all formats share."""

import pytest
import torch

from mlmetric.data import ImageDataset, ImageLabels, LabelFileError, read_image_labels

CONTENT = """path;split;tags
b/1.jpg;train;sea|sky
2.jpg;test;sky
b/1.jpg;train;sky
3.jpg;train;
4.jpg;test;sky|Sea
"""


@pytest.fixture
def path(tmp_path):
    """A CSV file with votes and parts."""
    (tmp_path / "labels.csv").write_text(CONTENT)
    return tmp_path / "labels.csv"


def test_summary_describes_what_was_read(path):
    images = read_image_labels(path, split_column="split")
    assert images.summary().splitlines() == [
        "labels.csv: 5 lines, fields separated by ';'; paths in the column 'path'; names of labels, separated by '|', "
        "in the column 'tags'.",
        f"4 images in {path.parent}, 3 labels, 1.25 labels per image (at most 2); 1 image without label.",
        "Images of each label: sky 3, Sea 1, sea 1.",
        "Images of each part: train 2, test 2.",
        "1 image has several lines (2), counted as votes.",
        "Labels that look alike: 'Sea' and 'sea'.",
    ]
    assert repr(images) == f"ImageLabels({str(path.parent)!r}, 4 paths, labels of shape (4, 3))"


def test_summary_of_many_labels_shows_the_most_and_the_least_frequent(path):
    rows = [f"{number}.jpg,{'|'.join(f'{label:02d}' for label in range(number + 1))}" for number in range(30)]
    path.write_text("\n".join(["path,tags", *rows]))
    assert "label: 00 30, 01 29, 02 28, 03 27, ..., 26 4, 27 3, 28 2, 29 1." in read_image_labels(path).summary()


def test_select_takes_rows_of_everything(path):
    images = read_image_labels(path, split_column="split")
    for rows in ([3, 0], torch.tensor([3, 0]), (3, 0), range(3, -1, -3)):
        chosen = images.select(rows)
        assert chosen.paths == ["4.jpg", "b/1.jpg"]
        assert chosen.labels.tolist() == [[1, 0, 1], [0, 1, 1]]
        assert chosen.votes.tolist() == [[1, 0, 1], [0, 1, 2]]
        assert chosen.num_annotators.tolist() == [1, 2]
        assert {name: rows.tolist() for name, rows in chosen.parts.items()} == {"train": [1], "test": [0]}
        assert chosen.soft_labels().tolist() == [[1, 0, 1], [0, 0.5, 1]]
    assert images.select(torch.tensor([True, False, False, True])).paths == ["b/1.jpg", "4.jpg"]
    assert images.names_of(0) == ["sea", "sky"]
    train = images.select(images.parts["train"])
    assert (train.paths, train.parts["train"].tolist(), train.parts["test"].tolist()) == (
        ["b/1.jpg", "3.jpg"],
        [0, 1],
        [],
    )
    assert (images.label_names, train.label_names, train.notes) == (
        ["Sea", "sea", "sky"],
        images.label_names,
        images.notes,
    )
    for rows in ([], torch.tensor([], dtype=torch.int64)):
        nothing = images.select(rows)
        assert (nothing.paths, nothing.labels.shape) == ([], (0, 3))
        assert "0 images in" in nothing.summary()


def test_without_votes_soft_labels_are_the_labels(path):
    path.write_text("path,a\n1.jpg,1\n2.jpg,0\n")
    images = read_image_labels(path)
    assert (images.votes, images.num_annotators, images.select([0]).parts) == (None, None, None)
    assert torch.equal(images.soft_labels(), torch.tensor([[1.0], [0.0]]))


def test_image_labels_of_ones_own_need_no_file(tmp_path):
    images = ImageLabels(tmp_path, ["1.jpg"], torch.tensor([[1, 0]]), ["sea", "sky"])
    assert images.summary().splitlines() == [
        f"1 image in {tmp_path}, 2 labels, 1.00 labels per image (at most 1); 0 images without label.",
        "Images of each label: sea 1, sky 0.",
    ]
    assert len(ImageDataset(images.root, images.paths, images.labels)) == 1


def test_labels_with_too_few_images_are_left_out_and_their_images_stay(path):
    path.write_text("path,a,b,c,d\n1.jpg,1,0,1,0\n2.jpg,1,1,1,0\n3.jpg,1,0,0,0\n4.jpg,0,1,0,0\n5.jpg,0,0,1,0\n")
    images = read_image_labels(path, min_count=3)
    assert images.label_names == ["a", "c"]
    assert images.labels.tolist() == [[1, 1], [1, 1], [1, 0], [0, 0], [0, 1]]
    assert images.notes == ["Labels left out, with fewer than 3 images (`min_count=3`): b 2, d 0."]
    assert read_image_labels(path).notes == ["Labels left out, with no image (`min_count=1`): d 0."]
    assert read_image_labels(path, min_count=0).label_names == ["a", "b", "c", "d"]
    with pytest.raises(ValueError, match=r"`min_count` must be at most 3, the images of .*labels\.csv, got 4"):
        read_image_labels(path, min_count=4)


def test_images_that_do_not_exist_are_noted(path, tmp_path):
    (tmp_path / "photos" / "b").mkdir(parents=True)
    (tmp_path / "photos" / "b" / "1.jpg").touch()
    (tmp_path / "photos" / "2.jpg").mkdir()
    images = read_image_labels(path, split_column="split", images=tmp_path / "photos")
    assert images.root == tmp_path / "photos"
    assert "Images that do not exist: 3 (2.jpg, 3.jpg, 4.jpg)." in images.notes
    (tmp_path / "photos" / "b" / "1.jpg").unlink()
    with pytest.raises(
        LabelFileError, match=r"None of 4 images exists in .*photos, the first is 'b/1\.jpg': check `imag"
    ):
        read_image_labels(path, split_column="split", images=str(tmp_path / "photos"))
    path.write_text("id,a\n1,1\n2,0\n")
    (tmp_path / "photos" / "1.jpeg").touch()
    with pytest.raises(LabelFileError, match=r"None of 2 images .* the first is '1': pass `suffix='\.jpeg'`"):
        read_image_labels(path, images=tmp_path / "photos")


def test_format_is_recognised_or_must_be_passed(path, tmp_path):
    (tmp_path / "labels.dat").write_text("path,a\n1.jpg,1\n")
    with pytest.raises(LabelFileError, match=r"labels\.dat must be a CSV file \(\.csv, \.tsv, \.txt\) or a JSON file"):
        read_image_labels(tmp_path / "labels.dat")
    assert read_image_labels(tmp_path / "labels.dat", format="csv").paths == ["1.jpg"]
    with pytest.raises(
        LabelFileError, match=r"contains neither sub-folders .*Pass a file of labels, such as .*labels\.c"
    ):
        read_image_labels(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(LabelFileError, match=r"contains neither sub-folders with images .* XML files of Pascal VOC\.$"):
        read_image_labels(tmp_path / "empty")
    with pytest.raises(LabelFileError, match="must have a sub-folder for each label with images in it; there is none"):
        read_image_labels(tmp_path / "empty", format="folders")
    with pytest.raises(
        LabelFileError, match="contains no XML files of Pascal VOC, nor does `Annotations` in or next to"
    ):
        read_image_labels(tmp_path / "empty", format="voc")
    for name in ("folders", "voc"):
        with pytest.raises(LabelFileError, match=r"labels\.csv must be a folder, not a file"):
            read_image_labels(path, format=name)
    with pytest.raises(LabelFileError, match=r"The JSON file .*empty must be a regular file"):
        read_image_labels(tmp_path / "empty", format="coco")


def test_what_does_not_exist_raises(path, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no file or folder of labels at .*nowhere\.csv"):
        read_image_labels(tmp_path / "nowhere.csv")
    with pytest.raises(FileNotFoundError, match=r"`images` must be a folder of images, there is none at .*nowhere"):
        read_image_labels(path, images=tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "xml"}, "`format` must be one of 'csv', 'folders', 'coco', 'voc', got 'xml'"),
        ({"min_votes": 0}, "`min_votes` must be a whole number of at least 1, got 0"),
        ({"min_votes": "2"}, "`min_votes` must be a whole number of at least 1, got .2."),
        ({"label_columns": []}, "`label_columns` must name at least one column"),
        ({"min_count": -1}, "`min_count` must be a whole number of at least 0, got -1"),
        ({"label_columns": "tags"}, "`label_columns` must be a list of columns, got the text 'tags'"),
        ({"exclude_columns": "tags"}, "`exclude_columns` must be a list of columns, got the text 'tags'"),
        (
            {"label_columns": ["a"], "label_column": "b"},
            "Pass either `label_columns`, .* or `label_column`, .*, not both",
        ),
        ({"separator": ""}, "`separator` must have at least one character, got ''"),
        ({"delimiter": ", "}, "`delimiter` must be one character, no quote or line break, got ', '"),
        ({"delimiter": '"'}, "`delimiter` must be one character, no quote or line break, got '\"'"),
        ({"suffix": "jpg"}, r"`suffix` must be a file name extension like '\.jpg', got 'jpg'"),
        ({"suffix": "."}, r"`suffix` must be a file name extension like '\.jpg', got '\.'"),
        ({"include_difficult": False}, "`include_difficult` is for Pascal VOC, but the format is 'csv'"),
        ({"format": "coco", "suffix": ".jpg"}, "`suffix` is for CSV files, but the format is 'coco'"),
        ({"format": "voc", "exclude_columns": ["a"]}, "`exclude_columns` is for CSV files, but the format is 'voc'"),
        (
            {"format": "folders", "images": "elsewhere"},
            "`images` must be .* or None, since the folders .* got elsewhere",
        ),
        ({"format": "folders", "min_votes": 2}, "`min_votes` is for CSV files, but the format is 'folders'"),
    ],
)
def test_invalid_arguments_raise(path, options, message):
    with pytest.raises(ValueError, match=message):
        read_image_labels(path, **options)


def test_options_of_another_type_raise(path):
    for name in ("path_column", "label_column", "separator", "delimiter", "suffix", "split_column"):
        with pytest.raises(TypeError, match=f"`{name}` must be a text, got int"):
            read_image_labels(path, **{name: 3})
    assert read_image_labels(path, split_column="split", exclude_columns=None).label_names == ["Sea", "sea", "sky"]


def test_names_that_look_alike_are_noted(path):
    path.write_text("path,tags,split\n1.jpg,caf\u00e9|sea,test\n2.jpg,cafe\u0301|sea\u200b,Test\n")
    notes = read_image_labels(path, split_column="split").notes
    assert notes == [
        "Labels that look alike: 'cafe\u0301' and 'caf\u00e9', 'sea' and 'sea\\u200b'.",
        "Parts that look alike: 'test' and 'Test'.",
    ]


def test_folders_of_parts_are_named(tmp_path):
    for name in ("train/sea/1.jpg", "test/sea/2.jpg"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    with pytest.raises(LabelFileError, match=r"one for each label, .* .*test has such sub-folders: pass it\.$"):
        read_image_labels(tmp_path)


def test_links_to_images_that_do_not_exist_are_images(tmp_path):
    for label in ("sea", "sky"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "1.jpg").symlink_to("nowhere")
    assert read_image_labels(tmp_path).paths == ["sea/1.jpg", "sky/1.jpg"]
