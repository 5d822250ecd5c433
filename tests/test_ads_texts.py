"""The application with the text of the images: files of texts, reading off the images, and whole runs."""

import csv
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import transforms

from ads.features import ImageFeatures
from ads.labelled_images import LabelledImages
from ads.methods import METHODS, RunContext, settings_of, undersample
from ads.program import parse
from ads.run_folder import RunInterrupted
from ads.runs import main
from ads.saved_runs import table_of_runs
from ads.text_files import read_texts
from ads.texts import describe_text, join_text
from ads.user_files import AnnotationError
from mlmetric.heads import FrozenBackbone
from mlmetric.models import MultiLabelModel
from mlmetric.text._reading_order import TextBox

NUM_IMAGES = 30
WORDS = ("fizzy", "engine", "lipstick")  # the word of an image is that of its label
TRANSFORM = transforms.Compose([transforms.Resize((8, 8)), transforms.ToTensor()])
QUICK = ["--num-workers", "0", "--weights", "none", "--backbone", "squeezenet1_0"]


@pytest.fixture(autouse=True)
def in_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def text_of(number):
    """The text of an image: none for each tenth."""
    return "" if number % 10 == 9 else f"so {WORDS[number % 3]} {'abcdefghij'[number // 3]}"


@pytest.fixture
def read(monkeypatch):
    """Replace the networks that read text; return the stub and the numbers of the images that it was given.

    The number of an image is its red value, divided by 8.
    """
    numbers = []

    def engine(image):
        number = image.getpixel((0, 0))[0] // 8
        if len(numbers) == engine.fails_after:
            raise KeyboardInterrupt
        numbers.append(number)
        return [TextBox(0, 0, 50, 20, text_of(number), 0.99)] if text_of(number) else []

    engine.fails_after = None
    monkeypatch.setattr("mlmetric.text._text_reader.load_ocr_engine", lambda image_side: engine)
    monkeypatch.setattr("mlmetric.text._text_reader.ocr_engine_version", lambda: "stub 1")
    return SimpleNamespace(numbers=numbers, engine=engine)


@pytest.fixture
def photos(monkeypatch):
    """Write images with the labels of a CSV file; use a small backbone, and draw no figures. Return the options."""

    def load_backbone(config, *, synthetic):
        torch.manual_seed(0)
        return FrozenBackbone(nn.Conv2d(3, 16, 3), transform=TRANSFORM)

    monkeypatch.setattr("ads.features.load_backbone", load_backbone)
    monkeypatch.setattr("ads.figures.draw", lambda figures, folder: {})
    Path("photos").mkdir()
    lines = ["path,tags"]
    for number in range(NUM_IMAGES):
        Image.new("RGB", (40, 40), (8 * number, 255 - 8 * number, 128)).save(f"photos/{number}.png")
        lines.append(f"{number}.png,{WORDS[number % 3]}|{WORDS[number % 2]}")
    Path("labels.csv").write_text("\n".join(lines))
    return ["--images", "photos", "--labels", "labels.csv", "--output", "run", *QUICK]


def write_texts(name="texts.json", **further):
    texts = {f"./{number}.png": [text_of(number)] for number in range(NUM_IMAGES)} | further
    Path(name).write_text(json.dumps(texts))
    return ["--texts", name]


def test_json_has_a_text_or_several_for_each_image_in_any_spelling_of_its_path():
    root = Path("photos").absolute()
    content = json.dumps({"a/1.jpg": ["one", " ", "two"], f"{root}/a/2.jpg": "three", "b.jpg": None})
    Path("t.json").write_text(content[:-1] + ', "./a//1.jpg": "four", "a/2": []}', encoding="utf-8-sig")
    expected = {"a/1.jpg": ["one", "two", "four"], "a/2.jpg": ["three"], "b.jpg": []}
    assert read_texts(Path("t.json"), Path("photos")) == expected | {"a/2": []}
    assert read_texts(Path("t.json"), Path("photos"), suffix=".jpg") == expected


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_lines_of_an_image_in_a_csv_file_are_its_texts(delimiter):
    rows = [
        ["n", " Image", "TEXT"],
        ["0", "1.jpg", 'Drink, "milk"; now\nor\tlater'],
        ["1", "./1.jpg", "größer"],
        ["2", "2.jpg", ""],
    ]
    with Path("t.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    expected = {"1.jpg": ['Drink, "milk"; now\nor\tlater', "größer"], "2.jpg": []}
    assert read_texts(Path("t.csv"), Path("photos")) == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.json", "{", "t.json must be JSON in UTF-8, such as {"),
        ("t.json", "[" * 100_000, "t.json must be JSON in UTF-8, such as {"),
        ("t.json", "[]", "t.json must contain an object of image paths, such as"),
        ("t.json", '{"1.jpg": 5}', "t.json, image '1.jpg' must have a text, a list of texts or null, got 5. Correct"),
        ("t.json", '{"1.jpg": ["a", null]}', "t.json, image '1.jpg' must have a text, a list of texts or null, got ["),
        ("t.json", '{"1.jpg": {"a": "b"}}', "t.json, image '1.jpg' must have a text, a list of texts or null, got"),
        ("t.json", '{"../1.jpg": "a"}', "t.json, image '../1.jpg' is not a path in the image folder"),
        ("t.csv", "", "t.csv must have one column named path or image or file or filename, got 0; its columns are []"),
        ("t.csv", "path,words\n1.jpg,a", "t.csv must have one column named text, got 0; its columns are ['path', 'wo"),
        ("t.csv", "path,file,text\n", "t.csv must have one column named path or image or file or filename, got 2"),
        ("t.csv", 'path,text\n\n1.jpg,"a\nb"\n2.jpg,c,d\n', "t.csv, line 5 must have 2 fields like the header, sepa"),
        ("t.csv", 'path,text\n1.jpg,"a', "t.csv, line 2 is not valid CSV: unexpected end of data. Correct the line"),
        ("t.csv", "path,text\n1.jpg,a\n,b\n", "t.csv, line 3: the path '' is not a path in the image folder"),
        ("t.csv", b"path,text\n1.jpg,\xff\n", "t.csv must be in UTF-8, got: 'utf-8' codec can't decode"),
    ],
)
def test_a_file_in_another_format_is_an_error_with_the_line_or_image(name, content, message):
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(AnnotationError, match=f"^{re.escape(message)}"):
        read_texts(Path(name), Path("photos"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ocr", "--texts", "t.json"], "--ocr and --texts cannot be combined: choose one."),
        (["--texts", "nowhere.json"], "--texts nowhere.json is not a file."),
        (["--fusion", "late"], "--fusion requires --ocr or --texts."),
        (["--text-encoder", "tfidf"], "--text-encoder requires --ocr or --texts."),
        (["--ocr", "--compare"], "--ocr cannot be combined with --compare, which uses the images alone."),
        (["--texts", "t.json", "--experiments", "paper"], "--texts cannot be combined with --experiments paper, which"),
        (["--ocr", "--method", "semantic"], "--ocr requires --method recommended or paper or linear-probe, got --meth"),
        (["--ocr", "--method", "paper", "--fusion", "late"], "--fusion requires --method recommended, got --method p"),
    ],
)
def test_options_that_do_not_belong_together_are_an_error(options, message):
    Path("t.json").write_text("{}")
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        parse(options)


def test_a_package_or_a_model_that_is_missing_is_reported_before_anything_is_written(photos, monkeypatch):
    def missing():
        raise ImportError('rapidocr is not installed: pip install "mlmetric[ocr]"')

    monkeypatch.setattr("mlmetric.text._text_reader.ocr_engine_version", missing)
    with pytest.raises(ImportError, match="rapidocr is not installed"):
        main(parse([*photos, "--ocr"]))

    def unavailable(self):
        raise OSError(f"{self.name} cannot be loaded")

    monkeypatch.setattr("mlmetric.text.SentenceEncoder.fingerprint", unavailable)
    with pytest.raises(OSError, match="no/model cannot be loaded"):
        main(parse([*photos, *write_texts(), "--text-encoder", "no/model"]))
    assert not Path("run").exists()


def check_model(texts=None):
    """Check that the model of the run gives the probabilities in `predictions.csv`."""
    network = FrozenBackbone(nn.Conv2d(3, 16, 3), transform=TRANSFORM)
    model = MultiLabelModel.from_pretrained("run/model", backbone=network, transform=TRANSFORM)
    with Path("run/predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    given = None if texts is None else [texts(row["path"]) for row in rows]
    probabilities = model.predict_proba([Path("photos", row["path"]) for row in rows], texts=given)
    written = [[float(row[f"probability_{name}"]) for name in model.label_names] for row in rows]
    np.testing.assert_allclose(np.asarray(probabilities), written, atol=1e-4)


def test_a_run_reads_the_text_off_the_images(photos, read, capsys):
    main(parse([*photos, "--ocr", "--epochs", "3"]))
    assert sorted(read.numbers) == list(range(NUM_IMAGES))
    printed = capsys.readouterr()
    assert "\n27 of 30 images have text.\n" in printed.out
    assert re.search(r"^text: 30 images", printed.err, re.MULTILINE)
    metrics = json.loads(Path("run/metrics.json").read_text())
    text = metrics["text"]
    assert (text["source"], text["images"], text["encoder"]) == ("--ocr", 27, "tfidf")
    assert sum(text[part] for part in ("train", "validation", "test")) == 27
    assert "headlines_read_exactly" not in text
    assert {"text", "text features"} <= metrics["seconds"].keys()
    assert metrics["settings"]["fusion"] == settings_of(parse(["--ocr"]))["fusion"]
    report = Path("run/report.md").read_text()
    assert "The text was read from the images (`--ocr`): 27 of 30 images have text (" in report
    config = json.loads(Path("run/config.json").read_text())
    assert config["options"]["ocr"] is True
    assert config["resolved"]["text_reader"].startswith("TextReader(min_confidence=")
    check_model()


def test_text_that_is_interrupted_is_not_read_twice_and_gives_the_same_results(photos, read):
    arguments = [*photos, "--ocr", "--epochs", "1"]
    read.engine.fails_after = 12
    with pytest.raises(RunInterrupted) as error:
        main(parse(arguments))
    assert error.value.folder == Path("run")
    assert len(read.numbers) == 12
    read.engine.fails_after = None
    main(parse(["--resume", "--output", "run"]))
    assert sorted(read.numbers) == list(range(NUM_IMAGES))
    resumed = Path("run/predictions.csv").read_text()
    main(parse([*arguments, "--output", "again", "--cache", "other"]))
    assert len(read.numbers) == 2 * NUM_IMAGES
    assert Path("again/predictions.csv").read_text() == resumed


@pytest.mark.parametrize(
    ("method", "fusion"),
    [("recommended", "gated"), ("recommended", "concat"), ("recommended", "late"), ("paper", "late")],
)
@pytest.mark.filterwarnings("ignore:Training diverges", "ignore:LabelCapUnderSampler")
def test_a_run_with_texts_at_hand(photos, fusion, method, capsys):
    texts = write_texts(**{"99.png": "so unknown", "98.png": "so unknown"})
    options = ["--fusion", fusion] if method == "recommended" else ["--method", method]
    main(parse([*photos, *texts, *options, "--epochs", "2", "--batch-size", "8"]))
    assert "\n27 of 30 images have text.\nRun folder: run\n" in capsys.readouterr().out
    metrics = json.loads(Path("run/metrics.json").read_text())
    assert metrics["settings"]["fusion"] == fusion
    assert (metrics["text"]["images"], metrics["text"]["unknown_images"]) == (27, 2)
    stages = {f"embedding_{view}1" for view in (("image_", "text_") if fusion == "late" else ("",))}
    assert stages <= metrics["history"].keys()
    weights = metrics["text"]["view_weights"]
    assert (weights is not None) == (fusion == "late" and method == "recommended")
    report = Path("run/report.md").read_text()
    assert "The texts are those of `texts.json`: 27 of 30 images have text (" in report
    assert "The texts of 2 other images were not used" in report
    assert ("Weights of the views" in report) == (weights is not None)
    check_model(lambda path: text_of(int(Path(path).stem)) or None)


def test_a_linear_probe_and_soft_labels_with_texts(photos):
    main(parse([*photos, *write_texts(), "--method", "linear-probe"]))
    metrics = json.loads(Path("run/metrics.json").read_text())
    assert metrics["settings"] == {}
    assert all(np.isfinite(value) for value in metrics["test"][metrics["title"]].values())
    assert not Path("run/model").exists()
    assert "--texts texts.json" not in table_of_runs()
    lines = Path("labels.csv").read_text().splitlines()
    Path("labels.csv").write_text("\n".join([*lines, *lines[1::2]]))
    main(parse([*photos, "--texts", "texts.json", "--soft-labels", "--epochs", "1", "--output", "runs/soft"]))
    assert "--texts texts.json" in table_of_runs()


def image_features(texts, num_features=4):
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([[1, 0], [0, 1]]).repeat(len(texts) // 2, 1)
    by_path = {f"{number}.png": [text] if text else [] for number, text in enumerate(texts)}
    images = LabelledImages(Path("photos"), list(by_path), labels, ["a", "b"], texts=by_path)
    return ImageFeatures(torch.randn(len(texts), num_features, generator=generator), images, [], None, {}, {}, [])


def test_the_encoder_is_fitted_on_the_training_part_only():
    Path("t.json").touch()
    config = parse(["--texts", "t.json"])
    extracted = image_features(["red sun", "blue sea", "red sea", "", "green hill", "green field"])
    joined = join_text(config, extracted, torch.arange(4), torch.arange(4))
    assert joined.features[:, joined.views["image"]].equal(extracted.features)
    of_text = joined.features[:, joined.views["text"]]
    assert of_text.isnan().all(dim=1).tolist() == [False, False, False, True, False, False]
    torch.testing.assert_close(of_text[4:], torch.zeros_like(of_text[4:]))  # no word of these is known
    parts = {"train": torch.arange(4), "test": torch.arange(4, 6)}
    text = describe_text(config, extracted.images, joined, parts)
    assert (text["images"], text["train"], text["test"], text["is_fitted"]) == (5, 3, 2, True)


def test_a_linear_probe_reads_image_and_text_of_which_some_are_missing_and_retrieves_by_the_image():
    Path("t.json").touch()
    config = parse(["--texts", "t.json", "--method", "linear-probe"])
    extracted = image_features(["red sun", "blue sea"] * 9 + ["", ""])
    train = torch.arange(18)
    joined = join_text(config, extracted, train, train)
    labels = extracted.images.labels
    settings = ([], train, labels[train], torch.arange(10, 20), {}, Path(), "cpu", 0)
    run = RunContext(joined.features, labels, *settings, views=joined.views)
    result = METHODS["linear-probe"].fit(run)
    assert result.embeddings.equal(extracted.features)
    assert result.scores.isfinite().all()
    assert bool((result.scores[train].round() == labels[train]).all())


def test_an_undersampler_compares_the_features_of_the_images(photos, monkeypatch):
    given = []

    def spy(config, features, targets):
        given.append(features)
        return undersample(config, features, targets)

    monkeypatch.setattr("ads.pipeline.undersample", spy)
    options = ["--method", "linear-probe", "--undersampler", "cap-rows"]
    main(parse([*photos, *write_texts(), *options]))
    (features,) = given
    assert features.shape[1] == 16
    assert not features.isnan().any()


def test_too_little_text_is_an_error(photos, read, monkeypatch):
    Path("none.json").write_text('{"99.png": "so far", "1.png": " "}')
    message = "none.json has texts for none of the 30 images: the first image is 0.png, the first in the file 99.png."
    with pytest.raises(ValueError, match=re.escape(message)):
        main(parse([*photos, "--texts", "none.json"]))
    assert not Path("run").exists()
    Path("one.json").write_text('{"1.png": "so"}')
    with pytest.raises(ValueError, match=r"^[01] of 21 training images have text, at least 2 are required: omit"):
        main(parse([*photos, "--texts", "one.json"]))
    monkeypatch.setitem(globals(), "text_of", lambda number: "")
    with pytest.raises(ValueError, match="There is no text on any of the 30 images: omit --ocr"):
        main(parse([*photos, "--ocr"]))


def test_an_image_that_cannot_be_read_is_excluded_with_its_text(photos, read):
    Path("photos/3.png").write_bytes(b"no image")
    main(parse([*photos, "--ocr", "--method", "linear-probe", "--on-bad-image", "skip"]))
    assert sorted(read.numbers) == [number for number in range(NUM_IMAGES) if number != 3]
    metrics = json.loads(Path("run/metrics.json").read_text())
    assert (metrics["data"]["images"], metrics["text"]["images"]) == (29, 26)


def test_a_pretrained_encoder_is_named_in_the_report_and_not_said_to_be_fitted(photos, monkeypatch):
    monkeypatch.setattr("mlmetric.text.SentenceEncoder.fingerprint", lambda self: "0" * 64)
    monkeypatch.setattr(
        "mlmetric.text.SentenceEncoder.transform",
        lambda self, texts: np.array([[len(text), text.count("e"), 1] for text in texts], dtype=np.float32),
    )
    main(parse([*photos, *write_texts(), "--text-encoder", "small/model", "--method", "linear-probe"]))
    assert "Encoder: `small/model`, 3 features. The linear probe" in Path("run/report.md").read_text()


def test_the_share_of_headlines_that_were_read_exactly_is_reported():
    extracted = image_features(["so red", "so blue", "so\nred", ""])
    headlines = {"0.png": ["so red"], "1.png": ["soblue"], "2.png": ["so red"], "3.png": ["so green"]}
    images = extracted.images.__class__(**vars(extracted.images) | {"headlines": headlines})
    config = parse(["--ocr"])
    joined = join_text(config, extracted, torch.arange(4), torch.arange(4))
    text = describe_text(config, images, joined, {"train": torch.arange(4)})
    assert text["headlines_read_exactly"] == 0.5


@pytest.mark.slow
def test_a_run_on_posters_reads_most_of_their_headlines(monkeypatch):
    pytest.importorskip("rapidocr")
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr("ads.figures.draw", lambda figures, folder: {})
    main(parse(["--dry-run", "--ocr", "--output", "run", *QUICK]))
    text = json.loads(Path("run/metrics.json").read_text())["text"]
    assert text["images"] >= 40
    assert text["headlines_read_exactly"] > 0.7
    report = Path("run/report.md").read_text()
    assert re.search(
        r"The headlines of these synthetic images are known: \d\d\.\d% of them were read exactly\.", report
    )
    (root,) = Path("runs").glob("synthetic_ads_*")
    model = MultiLabelModel.from_pretrained("run/model")
    with Path("run/predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))[:4]
    probabilities = model.predict_proba([root / row["path"] for row in rows])
    written = [[float(row[f"probability_{name}"]) for name in model.label_names] for row in rows]
    np.testing.assert_allclose(np.asarray(probabilities), written, atol=1e-4)
