"""The application on your own images, with labels in a CSV file."""

import json
import os
import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import transforms

from ads.datasets import read_images
from ads.program import parse
from ads.runs import main
from mlmetric.heads import FrozenBackbone

QUICK = ["--backbone", "squeezenet1_0", "--weights", "none", "--num-workers", "0", "--image-batch-size", "4"]


@pytest.fixture(autouse=True)
def in_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    Path("labels.csv").touch()


def read(content, *options):
    Path("labels.csv").write_text(content)
    images = read_images(parse(["--images", "photos", "--labels", "labels.csv", "--on-bad-image", "skip", *options]))
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
        parse(["--images", "photos", "--labels", "labels.csv", "--label-column", "tags", "--separator", ""])


def test_links_to_files_outside_the_folder_are_read_and_a_pipe_is_rejected():
    Path("elsewhere.jpg").touch()
    Path("photos/0.jpg").symlink_to(Path("elsewhere.jpg").resolve())
    assert read("path,a\n0.jpg,1\n") == {"0.jpg": ["a"]}
    os.mkfifo("pipe.csv")
    with pytest.raises(ValueError, match=r"--labels pipe\.csv is not a file"):
        parse(["--images", "photos", "--labels", "pipe.csv"])


def test_a_dry_run_reads_the_first_images():
    content = "\n".join(["path,a", *(f"{image}.jpg,1" for image in range(100))])
    assert list(read(content, "--dry-run")) == [f"{image}.jpg" for image in range(48)]


def test_missing_images_are_an_error_before_anything_is_computed():
    Path("labels.csv").write_text("path,a\n0.jpg,1\n1.jpg,0\n")
    Path("photos/1.jpg").touch()
    with pytest.raises(FileNotFoundError, match=r"^1 of 2 images do not exist; the first: photos/0\.jpg\. Check"):
        main(parse(["--images", "photos", "--labels", "labels.csv", *QUICK]))
    assert not Path("runs").exists()


@pytest.fixture
def small_backbone(monkeypatch):
    """Use a convolution in place of a torchvision model, and draw no figures."""
    transform = transforms.Compose([transforms.Resize((8, 8)), transforms.ToTensor()])

    def load_backbone(config, *, synthetic):
        torch.manual_seed(0)
        return FrozenBackbone(nn.Conv2d(3, 16, 3), transform=transform)

    monkeypatch.setattr("ads.features.load_backbone", load_backbone)
    monkeypatch.setattr("ads.figures.draw", lambda figures, folder: {})


def write_own_images(header, rows, num_images=24):
    for i in range(num_images):
        Image.new("RGB", (40, 40), (i * 8, 255 - i * 8, 128)).save(f"photos/{i}.jpg")
    Path("labels.csv").write_text("\n".join([header, *rows]) + "\n")
    return ["--images", "photos", "--labels", "labels.csv", "--epochs", "2", "--output", "run", *QUICK]


@pytest.mark.parametrize("form", ["a column for each label", "one column"])
@pytest.mark.usefixtures("small_backbone")
def test_own_images_reads_both_forms_of_csv(form, capsys):
    sets = [{"beach"} if i % 3 == 0 else {"sunset"} if i % 3 == 1 else {"beach", "sunset"} for i in range(24)]
    if form == "a column for each label":
        rows = [f"{i}.jpg,{int('beach' in s)},{int('sunset' in s)}" for i, s in enumerate(sets)]
        arguments = write_own_images("path,beach,sunset", rows)
    else:
        rows = [f'"{", ".join(sorted(s))}",{i}.jpg' for i, s in enumerate(sets)]
        arguments = write_own_images("tags,file", rows)
        arguments += ["--path-column", "file", "--label-column", "tags", "--separator", ","]
    main(parse(arguments))
    metrics = json.loads(Path("run/metrics.json").read_text())
    assert list(metrics["test_labels"]) == ["beach", "sunset"]
    assert metrics["data"]["cardinality"] == pytest.approx(4 / 3)
    assert "as the paper quotes it" not in Path("run/report.md").read_text()


@pytest.mark.parametrize(
    ("header", "row", "options", "message"),
    [
        ("path,a", "1.jpg,yes", [], "labels.csv, line 2: 'a' must be 0 or 1, got 'yes'"),
        ("path,a,b", "1.jpg,1", [], "labels.csv, line 2 must have 3 fields like the header, separated by ',', got 2"),
        ("path,a", "1.jpg,1", ["--label-column", "tags"], "labels.csv has no column 'tags'; it has path, a"),
        ("path,a", "../../etc/passwd,1", [], "line 2: the path '../../etc/passwd' is not a path in photos"),
        ("path", "1.jpg", [], "labels.csv contains no label"),
    ],
)
def test_own_images_with_invalid_labels_is_an_error_with_the_line(header, row, options, message):
    arguments = write_own_images(header, [row])
    with pytest.raises(ValueError, match=re.escape(message)):
        main(parse([*arguments, *options]))


@pytest.mark.usefixtures("small_backbone")
def test_own_images_with_too_few_images_or_another_encoding_is_an_error():
    arguments = write_own_images("path,$a_$", [f"{i}.jpg,{i % 2}" for i in range(6)], num_images=6)
    with pytest.raises(ValueError, match="6 images are too few to train, validate and test: at least 20 are required"):
        main(parse(arguments))
    Path("labels.csv").write_bytes("path,caf\xe9\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"labels\.csv must be a CSV file in UTF-8, got: .*0xe9"):
        main(parse(arguments))


@pytest.mark.usefixtures("small_backbone")
def test_own_images_with_any_label_name_and_line_numbers_as_in_an_editor():
    arguments = write_own_images("path,$a_$", [f"{i}.jpg,{i % 2}" for i in range(24)])
    main(parse(arguments))
    Path("labels.csv").write_text("tags,path\n\na,1.jpg\na\n")
    options = ["--label-column", "tags", "--path-column", "path"]
    with pytest.raises(ValueError, match=r"labels\.csv, line 4 must have 2 fields .*, got 1"):
        main(parse([*arguments, *options]))


def test_own_images_without_lines_is_an_error():
    with pytest.raises(ValueError, match="must have a header and at least one line"):
        main(parse(write_own_images("path,a", [])))
