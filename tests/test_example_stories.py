"""The examples that people copy, run as they run them: from images to a model, its predictions and a search."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ad_sentiment
from common.image_files import list_images
from mlmetric.models import MultiLabelModel
from mlmetric.search import SearchIndex

EXAMPLES = Path(ad_sentiment.__file__).parent
COLOURS = {"red": (230, 40, 40), "green": (40, 200, 60), "blue": (50, 60, 230)}
SMALL = ["--backbone", "squeezenet1_0", "--weights", "none"]


def run(script, *arguments, **options):
    command = [sys.executable, str(EXAMPLES / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def photos(folder, *, count=60):
    """Write striped images with a colour for each label, and a CSV file of their labels."""
    rng = np.random.default_rng(0)
    lines = ["file,tags"]
    (folder / "photos").mkdir()
    for number in range(count):
        names = [name for name in COLOURS if rng.random() < 0.4] or ["red"]
        pixels = np.zeros((48, 48, 3), dtype=np.uint8)
        for stripe in range(6):
            pixels[stripe * 8 : stripe * 8 + 8] = COLOURS[names[stripe % len(names)]]
        Image.fromarray(pixels).save(folder / "photos" / f"{number}.png")
        lines.append(f"{number}.png,{'|'.join(names)}")
    (folder / "labels.csv").write_text("\n".join(lines))
    return folder / "photos", folder / "labels.csv"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return the folder of the photographs and what the example wrote and printed."""
    folder = tmp_path_factory.mktemp("own_images")
    images, labels = photos(folder)
    arguments = ["--images", images, "--labels", labels, "--output", folder / "run", "--epochs", 3, "--min-count", 2]
    result = run("own_images.py", *arguments, *SMALL)
    assert result.returncode == 0, result.stderr
    return images, folder / "run", result


@pytest.mark.slow
def test_own_images_end_in_a_model_and_an_index(trained):
    images, output, result = trained
    assert "labels.csv: 60 lines" in result.stdout
    assert "NDCG@10 of retrieval" in result.stdout
    assert "features: 60 images" in result.stderr
    model = MultiLabelModel.from_pretrained(output / "model")
    assert model.label_names == ["blue", "green", "red"]
    assert set(model.record["metrics"]) > {"map", "macro_f1", "ndcg_at_10"}
    index = SearchIndex.load(output / "index", model=model)
    assert index.search(images / "0.png", k=3)[0][0].labels
    assert {path.name for path in (output / "figures").iterdir()} == {"average_precision.png", "retrieval.png"}


@pytest.mark.slow
def test_predict_and_search_use_the_saved_model(trained):
    images, output, _ = trained
    predicted = run("predict.py", output / "model", images / "3.png", images / "4.png", "--json")
    assert json.loads(predicted.stdout).keys() == {str(images / "3.png"), str(images / "4.png")}
    table = run("predict.py", output / "model", images)
    assert len(table.stdout.splitlines()) == 60
    found = run("search.py", output / "model", output / "index", images / "3.png", "-k", 4, "--json")
    hits = json.loads(found.stdout)[str(images / "3.png")]
    assert len(hits) == 4
    assert hits == sorted(hits, key=lambda hit: hit["distance"])
    assert "in common" in run("search.py", output / "model", output / "index", images / "3.png").stdout


@pytest.mark.slow
def test_story_of_the_ads_that_is_killed_continues(tmp_path):
    arguments = ["--posters", 60, "--epochs", 3, *SMALL]
    whole = run("ad_sentiment.py", *arguments, "--output", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    command = [sys.executable, EXAMPLES / "ad_sentiment.py", *map(str, arguments), "--output", tmp_path / "killed"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (tmp_path / "killed" / "checkpoints" / "embedding_2.pt").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    resumed = run("ad_sentiment.py", *arguments, "--output", tmp_path / "killed")
    assert resumed.returncode == 0, resumed.stderr

    def report(result):
        return [line for line in result.stdout.splitlines() if line.startswith(("| ", "NDCG"))]

    assert len(report(whole)) > 15
    assert report(resumed) == report(whole)
    names = {path.name for path in (tmp_path / "killed" / "figures").iterdir()}
    assert names == {"validation.png", "average_precision.png", "retrieval.png"}


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("ad_sentiment.py", ["--annotations", "absent.json"], "absent.json does not exist"),
        ("ad_sentiment.py", ["--backbone", "resnet51"], "resnet51. Similar names: resnet50"),
        ("own_images.py", ["--images", ".", "--labels", "absent.csv"], "absent.csv does not exist"),
        ("predict.py", ["model", "absent.jpg"], "absent.jpg does not exist"),
        ("search.py", ["model", "index", "absent.jpg"], "absent.jpg does not exist"),
    ],
)
def test_wrong_option_is_an_error_before_torch_is_imported(script, arguments, message):
    result = run(script, *arguments, env=os.environ | {"PYTHONPROFILEIMPORTTIME": "1"})
    assert result.returncode == 2
    assert message in result.stderr
    assert "| torch\n" not in result.stderr


def test_images_are_listed_from_folders(tmp_path):
    (tmp_path / "inner").mkdir()
    for name in ("b.PNG", "a.jpg", "notes.txt", "inner/c.webp"):
        (tmp_path / name).touch()
    assert [path.name for path in list_images([tmp_path])] == ["a.jpg", "b.PNG", "c.webp"]
    assert list_images([tmp_path / "notes.txt"]) == [tmp_path / "notes.txt"]
    with pytest.raises(FileNotFoundError, match="gone does not exist"):
        list_images([tmp_path / "gone"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no image file in .*empty"):
        list_images([tmp_path / "empty"])
