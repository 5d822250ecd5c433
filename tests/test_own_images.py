import os
import re
from pathlib import Path

import pytest

import own_images
from ads.config import OwnImagesConfig
from ads.options import parse


@pytest.fixture(autouse=True)
def in_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    Path("labels.csv").touch()


def read(content, *options):
    Path("labels.csv").write_text(content)
    arguments = ["--images", "photos", "--labels", "labels.csv", *options]
    images = own_images.read_labels(parse(OwnImagesConfig, arguments))
    return {path: images.names_of(row) for row, path in enumerate(images.paths)}


def test_lines_of_several_annotators_are_merged_into_one_image():
    lines = [f"{'./' * annotator}{image}.jpg,1,{annotator % 2}" for annotator in range(3) for image in range(16)]
    content = "\n".join(["path,a,b", *lines])
    assert read(content) == {f"{image}.jpg": ["a", "b"] for image in range(16)}
    assert read(content, "--min-votes", "2") == {f"{image}.jpg": ["a"] for image in range(16)}


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("path,tags\na.jpg,beach,sunset", ["--label-column", "tags", "--separator", ","], "line 2 must have 2 fields"),
        ("path,beach,sunset\na.jpg,1,0,1", [], "line 2 must have 3 fields"),
        ("path,cat,cat\na.jpg,0,1", [], "line 1 has two columns 'cat'"),
        (
            "path,tags\na.jpg,\"['Action', 'Comedy']\"",
            ["--label-column", "tags"],
            "line 2 must have names separated by",
        ),
        (",path,a\n0,a.jpg,1", [], "line 1: column 1 has no name"),
    ],
)
def test_invalid_fields_are_an_error_with_the_line(content, options, message):
    with pytest.raises(ValueError, match=rf"labels\.csv, {re.escape(message)}"):
        read(content, *options)


def test_semicolons_tabs_and_a_blank_first_line_are_read():
    assert read("\npath;tags\na.jpg;sea|sky\n", "--label-column", "tags") == {"a.jpg": ["sea", "sky"]}
    assert read("path\ta\nb.jpg\t1\n") == {"b.jpg": ["a"]}


def test_an_empty_separator_is_rejected_when_options_are_parsed():
    with pytest.raises(ValueError, match="--separator must have at least one character, got ''"):
        parse(OwnImagesConfig, ["--images", "photos", "--label-column", "tags", "--separator", ""])


def test_links_to_files_outside_the_folder_are_read_and_a_pipe_is_rejected():
    Path("elsewhere.jpg").touch()
    Path("photos/0.jpg").symlink_to(Path("elsewhere.jpg").resolve())
    assert read("path,a\n0.jpg,1\n") == {"0.jpg": ["a"]}
    os.mkfifo("pipe.csv")
    with pytest.raises(ValueError, match=r"--labels pipe\.csv is not a file"):
        own_images.read_labels(OwnImagesConfig(images=Path("photos"), labels=Path("pipe.csv")))


def test_a_dry_run_reads_the_first_images():
    content = "\n".join(["path,a", *(f"{image}.jpg,1" for image in range(100))])
    assert list(read(content, "--dry-run")) == [f"{image}.jpg" for image in range(48)]
