"""The application on your own images, with their labels."""

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
    own = ["--images", "photos", "--labels", "labels.csv", "--on-bad-image", "skip", "--min-count", "1"]
    return read_images(parse([*own, *options]))


def label_sets(images):
    return {path: images.names_of(row) for row, path in enumerate(images.paths)}


def touch(*names):
    for name in names:
        Path("photos", name).parent.mkdir(parents=True, exist_ok=True)
        Path("photos", name).touch()


def test_lines_of_several_annotators_are_votes_and_soft_labels():
    touch("0.jpg", "1.jpg")
    content = "path,a,b\n0.jpg,1,0\n0.jpg,1,1\n1.jpg,0,1\n0.jpg,1,0\n1.jpg,0,1\n"
    assert label_sets(read(content)) == {"0.jpg": ["a", "b"], "1.jpg": ["b"]}
    agreed = read(content, "--min-votes", "2")
    assert label_sets(agreed) == {"0.jpg": ["a"], "1.jpg": ["b"]}
    assert agreed.targets is agreed.labels
    assert agreed.notes == ["2 images have several lines (5), counted as votes."]
    soft = read(content, "--min-votes", "2", "--soft-labels").select([1, 0])
    assert label_sets(soft) == {"1.jpg": ["b"], "0.jpg": ["a"]}
    torch.testing.assert_close(soft.targets, torch.tensor([[0.0, 1.0], [1.0, 1 / 3]]))
    with pytest.raises(ValueError, match=r"--soft-labels requires several .*: each image occurs once in labels\.csv"):
        read("path,a\n0.jpg,1\n1.jpg,0\n", "--soft-labels")


def test_each_option_of_a_csv_file_is_passed_on():
    touch("x,1.jpg", "x,2.jpg")
    content = "note,c;tags;file;split\n1;sea+sky;x,1;train\n0;sky;x,2;test\n"
    options = ["--delimiter", ";", "--path-column", "file", "--suffix", ".jpg", "--label-column", "tags"]
    options += ["--separator", "+", "--exclude-columns", "note,c", "split"]
    images = read(content, *options)
    assert label_sets(images) == {"x,1.jpg": ["sea", "sky"], "x,2.jpg": ["sky"]}
    assert images.notes == ["Columns left out: 'note,c', 'split' (`exclude_columns`)."]
    assert label_sets(read(content, *options, "--min-count", "2")) == {"x,1.jpg": ["sky"], "x,2.jpg": ["sky"]}


def test_labels_of_fewer_than_ten_images_are_left_out_by_default():
    touch("0.jpg")
    Path("labels.csv").write_text("\n".join(["path,a,b", *(f"{image}.jpg,1,{int(image < 9)}" for image in range(10))]))
    images = read_images(parse(["--images", "photos", "--labels", "labels.csv", "--on-bad-image", "skip"]))
    assert images.label_names == ["a"]
    assert images.notes[-1] == "Labels left out, with fewer than 10 images (`min_count=10`): b 9."


def test_sub_folders_are_labels():
    touch("sea/0.jpg", "sea/1.jpg", "sky/2.jpg")
    images = read_images(parse(["--images", "photos", "--labels", "photos", "--min-count", "1"]))
    assert label_sets(images) == {"sea/0.jpg": ["sea"], "sea/1.jpg": ["sea"], "sky/2.jpg": ["sky"]}
    with pytest.raises(ValueError, match="`min_votes` is for CSV files, but the format is 'folders'"):
        read_images(parse(["--images", "photos", "--labels", "photos", "--min-votes", "2"]))


def test_links_to_files_outside_the_folder_are_read_and_a_pipe_is_rejected():
    Path("elsewhere.jpg").touch()
    Path("photos/0.jpg").symlink_to(Path("elsewhere.jpg").resolve())
    assert label_sets(read("path,a\n0.jpg,1\n")) == {"0.jpg": ["a"]}
    os.mkfifo("pipe.csv")
    with pytest.raises(ValueError, match=r"pipe\.csv must be a folder, not a file, a pipe or a device"):
        read_images(parse(["--images", "photos", "--labels", "pipe.csv"]))


def test_a_dry_run_has_images_from_the_whole_file():
    touch("0.jpg")
    content = "\n".join(["path,a", *(f"{image}.jpg,1" for image in range(100))])
    paths = read(content, "--dry-run").paths
    assert len(set(paths)) == 48
    assert (paths[:3], paths[-1]) == (["0.jpg", "2.jpg", "4.jpg"], "97.jpg")


def test_missing_images_are_an_error_before_anything_is_computed():
    Path("labels.csv").write_text("path,a\n0.jpg,1\n1.jpg,0\n")
    touch("1.jpg")
    with pytest.raises(FileNotFoundError, match=r"^1 of 2 images do not exist; the first: photos/0\.jpg\. Check"):
        main(parse(["--images", "photos", "--labels", "labels.csv", "--min-count", "1", *QUICK]))
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


@pytest.mark.usefixtures("small_backbone")
def test_own_images_are_trained_on_and_the_summary_is_printed_first(capsys):
    sets = [["beach", "sunset"][i % 3 : 1 + i % 3] or ["beach", "sunset"] for i in range(24)]
    arguments = write_own_images("tags,file", [f'"{", ".join(names)}",{i}.jpg' for i, names in enumerate(sets)])
    main(parse(arguments))
    printed = capsys.readouterr().out
    assert printed.startswith(
        "Data: photos\nlabels.csv: 24 lines, fields separated by ','; paths in the column 'file'; "
    )
    assert printed.index("24 images in photos, 2 labels, 1.33 labels per image") < printed.index("Run folder: run")
    metrics = json.loads(Path("run/metrics.json").read_text())
    assert list(metrics["test_labels"]) == ["beach", "sunset"]
    assert metrics["data"]["cardinality"] == pytest.approx(4 / 3)
    report = Path("run/report.md").read_text()
    assert report.startswith("# A run on photos\n")
    assert "as the paper quotes it" not in report


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (["path,a,b", "1.jpg,yes,1"], [], "labels.csv, line 2: 'a' must be 0 or 1"),
        (["path,a,b", "1.jpg,1"], [], "labels.csv, line 2 must have 3 fields like the header, separated by ',', got 2"),
        (["path,a", "../../etc/passwd,1"], [], "line 2: the path '../../etc/passwd' is not a path in photos"),
        (["path,a", "99.jpg,1"], [], "None of 1 image exists in photos, the first is '99.jpg'"),
        (["path,a", "1.jpg,1"], [], "`min_count` must be at most 1"),
        (["path,a", "1.jpg,1"], ["--separator", "|"], "`separator` is for a column of label names, but labels.csv has"),
    ],
)
def test_own_images_with_invalid_labels_is_an_error_with_the_line(rows, options, message):
    arguments = write_own_images(*rows[:1], rows[1:])
    with pytest.raises(ValueError, match=re.escape(message)):
        main(parse([*arguments, *options]))
    assert not Path("run").exists()


@pytest.mark.usefixtures("small_backbone")
def test_own_images_with_too_few_images_is_an_error():
    arguments = write_own_images("path,$a_$", [f"{i}.jpg,{i % 2}" for i in range(6)], num_images=6)
    with pytest.raises(ValueError, match="6 images are too few to train, validate and test: at least 20 are required"):
        main(parse([*arguments, "--min-count", "1"]))


@pytest.mark.usefixtures("small_backbone")
def test_own_images_can_have_any_label_name():
    main(parse(write_own_images("path,$a_$", [f"{i}.jpg,{i % 2}" for i in range(24)])))
    assert "$a_$" in Path("run/report.md").read_text()
