"""The errors that the examples print: one sentence, without the number of a system error."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from common.errors import error_text

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.ENOSPC, "a.npy could not be written."), "a.npy could not be written."),
        (PermissionError(errno.EACCES, "Permission denied", "a.jpg"), "a.jpg: Permission denied"),
        (FileNotFoundError("There is no index."), "There is no index."),
        (MemoryError(), "MemoryError"),
        (ValueError("wrong"), "wrong"),
    ],
)
def test_text_of_an_error_has_no_number(error, text):
    assert error_text(error) == text


def run(script, *arguments, folder):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, EXAMPLES / script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=environment)


def test_split_without_a_test_part_is_an_error_before_anything_is_computed(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text("path,sea,split\na.png,1,train\n")
    options = ("--images", tmp_path, "--labels", tmp_path / "labels.csv", "--split-column", "split")
    result = run("own_images.py", *options, "--min-count", 1, "--weights", "none", folder=tmp_path)
    assert result.returncode == 1
    assert result.stderr == "error: The column split must contain 'test' and another, got ['train'].\n"


def test_missing_model_is_one_line(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    result = run("predict.py", tmp_path / "model", "a.png", folder=tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: The folder {tmp_path / 'model'} does not exist")
    assert result.stderr.count("\n") == 1
