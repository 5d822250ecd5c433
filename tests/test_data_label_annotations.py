"""Labels of images in folders and in the annotations of COCO and Pascal VOC."""

import copy
import json
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlmetric.data import LabelFileError, read_image_labels


def label_sets(images):
    return {path: set(images.names_of(row)) for row, path in enumerate(images.paths)}


def touch(*paths, content=None):
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{path}{number}" if content is None else content)


def test_folder_for_each_label(tmp_path):
    touch(*(tmp_path / name for name in ("sky/b.jpg", "sky/a.PNG", "sea/b.jpg", "sun/c.jpeg")))
    (tmp_path / "empty").mkdir()
    (tmp_path / ".cache").mkdir()
    images = read_image_labels(tmp_path)
    assert images.root == tmp_path
    assert label_sets(images) == {
        "sea/b.jpg": {"sea"},
        "sky/a.PNG": {"sky"},
        "sky/b.jpg": {"sky"},
        "sun/c.jpeg": {"sun"},
    }
    assert images.source == f"{tmp_path.name}: a folder with 4 sub-folders, one for each label."
    assert images.notes == ["Labels left out, with no image (`min_count=1`): empty 0."]
    assert read_image_labels(tmp_path, min_count=0).label_names == ["empty", "sea", "sky", "sun"]


def test_folder_of_the_images_can_be_passed_if_it_is_that_of_the_labels(tmp_path):
    (tmp_path / "sea").mkdir()
    (tmp_path / "sea" / "1.jpg").touch()
    images = read_image_labels(tmp_path, images=tmp_path / "sea" / "..")
    assert (images.root, images.paths, images.notes) == (tmp_path, ["sea/1.jpg"], [])
    with pytest.raises(ValueError, match=r"`images` must be .* or None, since .* contain the images, got .*sea"):
        read_image_labels(tmp_path, images=tmp_path / "sea")


def test_copies_and_links_in_several_folders_are_one_image(tmp_path):
    touch(tmp_path / "sea/a.jpg", tmp_path / "sky/a.jpg", content="same")
    touch(tmp_path / "sun/a.jpg", tmp_path / "sun/b.jpg", tmp_path / "sky/b.jpg")
    (tmp_path / "sea/b.jpg").symlink_to("../sun/b.jpg")
    os.link(tmp_path / "sky/b.jpg", tmp_path / "trees.jpg")
    (tmp_path / "trees").mkdir()
    (tmp_path / "trees.jpg").rename(tmp_path / "trees/b.jpg")
    images = read_image_labels(tmp_path)
    assert label_sets(images) == {
        "sea/a.jpg": {"sea", "sky"},
        "sea/b.jpg": {"sea", "sun"},
        "sky/b.jpg": {"sky", "trees"},
        "sun/a.jpg": {"sun"},
    }
    assert images.notes == ["3 files with the name and content of an image of another label: merged."]
    assert images.votes is None


def test_what_is_left_out_of_folders_is_noted(tmp_path):
    touch(*(tmp_path / name for name in ("sea/a.jpg", "sea/Thumbs.db", "sea/notes/x.txt", "cover.jpg", "readme.txt")))
    images = read_image_labels(tmp_path)
    assert images.paths == ["sea/a.jpg"]
    assert images.notes == [
        "Images left out, since they are in no sub-folder: cover.jpg.",
        "Files left out, since they are not images: sea/Thumbs.db.",
    ]


def test_folders_in_folders_raise(tmp_path):
    touch(tmp_path / "sea/a.jpg", tmp_path / "sea/deep/er/b.jpg")
    with pytest.raises(
        LabelFileError, match=r"must have one level of sub-folders, .*sea/deep contains images\. Pass .*sea"
    ):
        read_image_labels(tmp_path)
    touch(tmp_path / "set" / "train/sea/a.jpg")
    with pytest.raises(
        LabelFileError, match=r"train/sea contains images\. Pass .*train if its sub-folders are the labels"
    ):
        read_image_labels(tmp_path / "set", format="folders")


COCO = {
    "info": {},
    "images": [
        {"id": 7, "file_name": "b.jpg"},
        {"id": "x", "file_name": "a/1.jpg"},
        {"id": 9, "file_name": "c.jpg", "width": 3},
    ],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 18, "bbox": [0, 0, 1, 1]},
        {"id": 2, "image_id": "x", "category_id": 3, "iscrowd": 1},
        {"id": 3, "image_id": 7, "category_id": 18},
        {"image_id": 7, "category_id": 3},
    ],
    "categories": [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}, {"id": 1, "name": "bus"}],
}


@pytest.fixture
def read_coco(tmp_path):
    """Read a JSON file with this content, or text."""

    def read(content, **options):
        content = content if isinstance(content, str | bytes) else json.dumps(content)
        (tmp_path / "instances.json").write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_image_labels(tmp_path / "instances.json", **options)

    return read


def test_coco_categories_of_the_annotations_are_labels(read_coco, tmp_path):
    images = read_coco(COCO)
    assert images.paths == ["b.jpg", "a/1.jpg", "c.jpg"]
    assert images.label_names == ["dog", "car"]
    assert images.labels.tolist() == [[1, 1], [0, 1], [0, 0]]
    assert (images.root, images.votes) == (tmp_path, None)
    assert images.source == (
        "instances.json: instance annotations in the format of COCO, 4 annotations of 3 categories, those of crowds "
        "included."
    )
    assert images.notes == ["Labels left out, with no image (`min_count=1`): bus 0."]


def changed(path, value):
    content = copy.deepcopy(COCO)
    *keys, last = path
    target = content
    for key in keys:
        target = target[key]
    if value is None:
        del target[last]
    else:
        target[last] = value
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            changed(["images", 1, "file_name"], "./b.jpg"),
            r"the images 7 and 'x' have the same `file_name`, '\./b\.jpg'",
        ),
        (
            changed(["images", 1, "file_name"], "../b.jpg"),
            r"`file_name` '\.\./b\.jpg' of the image 'x' is not a path in",
        ),
        (changed(["images", 1, "id"], 7), "the id 7 occurs twice in `images`"),
        (changed(["categories", 1, "id"], 18), "the id 18 occurs twice in `categories`"),
        (changed(["categories", 1, "name"], " dog"), "the categories 18 and 3 have the same name, 'dog'"),
        (changed(["categories", 1, "name"], ""), "`name` of the category 3 must be the name of a label, .* got ''"),
        (changed(["images", 1, "file_name"], None), r"`images\[1\]` \(id 'x'\) must be .* the key 'file_name', a text"),
        (changed(["images", 1, "id"], None), r"`images\[1\]` must be an object with the key 'id', a number or a text"),
        (changed(["images", 1], 5), r"`images\[1\]` must be an object with the key 'file_name', a text, got 5"),
        (changed(["categories", 0, "id"], True), r"`categories\[0\]` must be an object with the key 'id', a number or"),
        (
            changed(["annotations", 1, "image_id"], 8),
            r"`annotations\[1\]` \(id 2\) has the image_id 8, .* not in `images`",
        ),
        (
            changed(["annotations", 3, "category_id"], 4),
            r"`annotations\[3\]` has the category_id 4, .* in `categories`",
        ),
        (
            changed(["annotations", 3, "category_id"], [4]),
            r"`annotations\[3\]` must be .* 'category_id', a number or a",
        ),
        (changed(["annotations", 3, "category_id"], None), r"`annotations\[3\]` must be .* the key 'category_id'"),
        (changed(["annotations", 3], []), r"`annotations\[3\]` must be an object with the key 'image_id'"),
        (changed(["annotations"], []), "contains no label: no image has one"),
        (
            changed(["categories"], None),
            r"must have a list 'categories', .* its keys are 'info', 'images', 'annotations'",
        ),
        (changed(["images"], {}), "must have a list 'images', like .*, but it is not a list"),
        ([], "must contain an object with the keys images, annotations, categories, .* got a list"),
        ('{"images":\n [}', "line 2 cannot be read as JSON: Expecting value"),
        (b'{"images":\n "\xe9"}', "must be a JSON file in UTF-8, got: byte 0xe9 in line 2"),
        ('{"images": ' + "[" * 100_000, "cannot be read as JSON: maximum recursion"),
    ],
)
def test_coco_in_another_format_raises_with_the_id(read_coco, content, message):
    with pytest.raises(LabelFileError, match=rf"instances\.json.*{message}"):
        read_coco(content)


def voc(filename="a.jpg", objects=(), extra=""):
    elements = "".join(
        f"<object><name>{name}</name><part><name>head</name></part>{difficult}</object>" for name, difficult in objects
    )
    return f"<annotation><folder>x</folder><filename>{filename}</filename>{extra}{elements}</annotation>"


@pytest.fixture
def annotations(tmp_path):
    """A folder of annotations of Pascal VOC."""
    folder = tmp_path / "VOC" / "Annotations"
    hard, easy = "<difficult>1</difficult>", "<difficult>0</difficult>"
    touch(folder / "1.xml", content=voc("b.jpg", [("dog", easy), (" car ", hard), ("dog", "")]))
    touch(folder / "2.xml", content=voc("a.jpg", [("car", hard)]))
    touch(folder / "3.XML", content=voc("c.jpg", [("bus", "")]))
    return folder


def test_voc_names_of_objects_are_labels(annotations):
    images = read_image_labels(annotations)
    assert label_sets(images) == {"b.jpg": {"dog", "car"}, "a.jpg": {"car"}, "c.jpg": {"bus"}}
    assert images.label_names == ["bus", "car", "dog"]
    assert images.source == "Annotations: 3 XML files in the format of Pascal VOC; 2 difficult objects included."
    images = read_image_labels(annotations, include_difficult=False)
    assert label_sets(images) == {"b.jpg": {"dog"}, "a.jpg": set(), "c.jpg": {"bus"}}
    assert images.source.endswith("; 2 difficult objects left out (`include_difficult=False`).")


def test_voc_folder_is_found(annotations, monkeypatch):
    assert read_image_labels(annotations).root == annotations
    images = annotations.parent / "JPEGImages"
    touch(images / "b.jpg")
    monkeypatch.chdir(images)
    for path in (annotations, annotations.parent, images, "."):
        assert read_image_labels(path).root == images
        assert read_image_labels(path).labels.shape == (3, 3)
    with pytest.raises(
        LabelFileError, match=r"None of 3 images exists in .*VOC, the first is 'b\.jpg': check `images`\.$"
    ):
        read_image_labels(annotations, images=annotations.parent)
    touch(annotations.parent / "c.jpg")
    read = read_image_labels(annotations, images=annotations.parent)
    assert (read.root, read.notes) == (
        annotations.parent,
        ["Images that do not exist: 2 (b.jpg, a.jpg)."],
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<annotation>", "cannot be read as XML: no element found"),
        ("<html/>", "must be an annotation of Pascal VOC .* got the root element 'html'"),
        ("<annotation/>", "must be an annotation of Pascal VOC .* and in it `filename`"),
        (voc("d.jpg", [("", "")]), "`name` of object 1 must be the name of a label"),
        (voc("../a.jpg"), r"`filename` '\.\./a\.jpg' is not a path in"),
        (voc("c.jpg"), r"has the same `filename` as .*3\.XML: 'c\.jpg'"),
        ("<!DOCTYPE annotation>" + voc(), "must have no document type"),
        ('<!DOCTYPE a [<!ENTITY x "y">]>' + voc(objects=[("&x;", "")]), "must have no document type"),
        ('<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + voc(objects=[("&x;", "")]), "no document type"),
        ('<?xml version="1.0" encoding="utf-16"?><!DOCTYPE a [<!ENTITY x "y">]>' + voc(), "must have no document type"),
        (voc(objects=[("&x;", "")]), "cannot be read as XML: undefined entity"),
        ('<?xml version="1.0" encoding="unknown"?>' + voc(), "cannot be read as XML: unknown encoding"),
    ],
)
def test_voc_in_another_format_raises_with_the_file(annotations, content, message):
    (annotations / "4.xml").write_bytes(content.encode("utf-16" if "utf-16" in content else "utf-8"))
    with pytest.raises(LabelFileError, match=rf"4\.xml.* {message}"):
        read_image_labels(annotations)


@settings(max_examples=25)
@given(
    matrix=st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), min_size=1, max_size=6).filter(
        lambda rows: any(map(any, rows))
    )
)
def test_numbers_of_objects_written_in_each_format_are_read_as_labels(tmp_path_factory, matrix):
    folder, names = tmp_path_factory.mktemp("set"), ["bus", "car", "dog"]
    objects = [(row, label) for row, counts in enumerate(matrix) for label in range(3) for _ in range(counts[label])]
    content = {
        "images": [{"id": 10 + row, "file_name": f"{row}.jpg"} for row in range(len(matrix))],
        "categories": [{"id": 5 - label, "name": name} for label, name in enumerate(names)],
        "annotations": [{"image_id": 10 + row, "category_id": 5 - label} for row, label in reversed(objects)],
    }
    touch(folder / "coco.json", content=json.dumps(content))
    for row, counts in enumerate(matrix):
        of_image = [(names[label], "") for label in range(3) for _ in range(counts[label])]
        touch(folder / "voc" / f"{row}.xml", content=voc(f"{row}.jpg", of_image))
        for label in np.flatnonzero(counts):
            touch(folder / "folders" / names[label] / f"{row}.jpg", content=f"image {row}")
    expected = {f"{row}.jpg": {names[label] for label in np.flatnonzero(counts)} for row, counts in enumerate(matrix)}
    assert label_sets(read_image_labels(folder / "coco.json")) == expected
    assert label_sets(read_image_labels(folder / "voc")) == expected
    of_folders = label_sets(read_image_labels(folder / "folders"))
    assert {path.split("/")[1]: found for path, found in of_folders.items()} == {
        path: chosen for path, chosen in expected.items() if chosen
    }
