"""The examples that people copy: from images to a model, its predictions and a search; started anew after a kill."""

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ad_sentiment
import own_images
import predict
import search
from common.image_files import list_images
from mlmetric.models import MultiLabelModel
from mlmetric.search import SearchIndex

EXAMPLES = Path(ad_sentiment.__file__).parent
COLOURS = {"red": (230, 40, 40), "green": (40, 200, 60), "blue": (50, 60, 230)}
SMALL = ["--backbone", "squeezenet1_0", "--weights", "none"]


def run(script, *arguments, **options):
    """Run an example in a process of its own, as users do."""
    command = [sys.executable, EXAMPLES / script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def printed_by(script, *arguments):
    """Call the main function of an example in this process; return what it prints, and its progress."""
    options = script.parser.parse_args(list(map(str, arguments)))
    images = [list_images(options.images)] if script in (predict, search) else []
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as progress:
        script.main(options, *images)
    return out.getvalue(), progress.getvalue()


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
    """Return the folder of the photographs, what the example wrote, and what it printed."""
    folder = tmp_path_factory.mktemp("own_images")
    images, labels = photos(folder)
    arguments = ["--images", images, "--labels", labels, "--output", folder / "run", "--epochs", 2, "--min-count", 2]
    return images, folder / "run", *printed_by(own_images, *arguments, *SMALL)


@pytest.mark.slow
def test_own_images_end_in_a_model_and_an_index(trained):
    images, output, printed, progress = trained
    assert printed.startswith("labels.csv: 60 lines")
    assert "NDCG@10 of retrieval" in printed
    assert "features: 60 images" in progress
    model = MultiLabelModel.from_pretrained(output / "model")
    assert model.label_names == ["blue", "green", "red"]
    assert set(model.record["metrics"]) > {"map", "macro_f1", "ndcg_at_10"}
    index = SearchIndex.load(output / "index", model=model)
    assert index.search(images / "0.png", k=3)[0][0].labels
    assert {path.name for path in (output / "figures").iterdir()} == {"average_precision.png", "retrieval.png"}


@pytest.mark.slow
def test_predict_and_search_use_the_saved_model(trained):
    images, output, *_ = trained
    paths = [str(images / "3.png"), str(images / "4.png")]
    predicted = run("predict.py", str(output / "model"), *paths, "--json")
    assert json.loads(predicted.stdout).keys() == set(paths)
    table, _ = printed_by(predict, output / "model", images)
    assert len(table.splitlines()) == 60
    arguments = [output / "model", output / "index", images / "3.png"]
    found = json.loads(printed_by(search, *arguments, "-k", 4, "--json")[0])[str(images / "3.png")]
    model = MultiLabelModel.from_pretrained(output / "model")
    assert found["predicted"] == list(model.predict(images / "3.png")[0])
    hits = found["hits"]
    assert len(hits) == 4
    assert hits == sorted(hits, key=lambda hit: hit["distance"])
    for hit in hits:
        assert set(hit["shares"]) <= {*found["predicted"], *hit["labels"]}
        assert {name for name, share in hit["shares"].items() if share > 0} == set(hit["shared"])
        assert sum(hit["shares"].values()) == pytest.approx(sum(hit["shared"].values()))
    assert re.search(r"Jaccard \d\.\d\d: \w+ \+|no label in common", printed_by(search, *arguments)[0])


@pytest.mark.slow
@pytest.mark.parametrize("script", [predict, search])
def test_unreadable_image_does_not_keep_others_from_their_result(trained, script, tmp_path, capsys):
    images, output, *_ = trained
    (tmp_path / "broken.png").write_text("no image")
    folders = [output / "model"] + [output / "index"] * (script is search)
    options = script.parser.parse_args([*map(str, folders), str(tmp_path / "broken.png"), str(images / "3.png")])
    with pytest.raises(SystemExit, match=r"broken\.png is truncated or not an image"):
        script.main(options, list_images(options.images))
    assert "3.png" in capsys.readouterr().out


@pytest.mark.slow
def test_story_of_the_ads_that_is_killed_continues(tmp_path):
    arguments = ["--posters", 60, "--epochs", 2, *SMALL]
    whole, _ = printed_by(ad_sentiment, *arguments, "--output", tmp_path / "whole")
    for name in ("posters", "features"):  # which take half of the time
        shutil.copytree(tmp_path / "whole" / name, tmp_path / "killed" / name)
    arguments += ["--output", tmp_path / "killed"]
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # another number can round sums differently
    command = [sys.executable, EXAMPLES / "ad_sentiment.py", *map(str, arguments)]
    process = subprocess.Popen(command, env=os.environ | threads, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (tmp_path / "killed" / "checkpoints" / "embedding_2.pt").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed" / "model").exists()
    resumed, progress = printed_by(ad_sentiment, *arguments)
    assert re.search(r"training: 8 epochs, [3-7] of them finished before", progress)

    def report(printed):
        return [line for line in printed.splitlines() if line.startswith(("| ", "NDCG"))]

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
