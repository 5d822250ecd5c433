"""The application as a user runs it: output files, invalid input, and interrupted and resumed runs."""

import contextlib
import csv
import errno
import fcntl
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import warnings
from dataclasses import fields
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import transforms

import ads
from ads import monitoring
from ads.config import OPTIONS_OF_METHODS, Config
from ads.methods import METHODS, UNDERSAMPLERS, settings_of, undersample
from ads.program import parse
from ads.run_folder import RunInterrupted
from ads.runs import main, with_method
from mlmetric import under_sampling
from mlmetric.data import BadImagesError
from mlmetric.heads import FrozenBackbone, WeightsUnavailableError
from mlmetric.models import MultiLabelModel

EXAMPLES = Path(ads.__file__).parents[1]
QUICK = ["--backbone", "squeezenet1_0", "--weights", "none", "--num-workers", "0", "--image-batch-size", "4"]
FIGURES = {
    "ap_by_support.png",
    "cooccurrence.png",
    "embedding.png",
    "label_counts.png",
    "map.png",
    "retrieval.png",
    "embedding_loss.png",
}
FIGURES_OF_METHODS = {
    "recommended": FIGURES,
    "paper": FIGURES | {"bce.png", "f1.png"},
    "label-graph": FIGURES - {"embedding_loss.png"} | {"bce.png", "f1.png"},
    "semantic": FIGURES - {"embedding_loss.png"} | {"bce.png", "f1.png"},
    "linear-probe": FIGURES - {"embedding_loss.png", "map.png"},
}
MEMBERS = {f"embedding_{number}.pt" for number in range(1, 5)}
FILES_OF_METHODS = {
    "recommended": {*MEMBERS, "classifier_ensemble.pt", "model"},
    "paper": {"embedding_1.pt", "classifier.pt", "model"},
    "label-graph": {"label_graph.pt"},
    "semantic": {"semantic.pt"},
    "linear-probe": set(),
}
FILES = {
    "config.json",
    "figures",
    "metrics.json",
    "predictions.csv",
    "report.md",
    "split.json",
}


@pytest.fixture(autouse=True)
def in_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def without_figures(monkeypatch):
    """Draw no figures, which takes most of the time of a dry run."""
    monkeypatch.setattr("ads.figures.draw", lambda figures, folder: {})


@pytest.fixture
def small_backbone(monkeypatch):
    """Use a convolution in place of a torchvision model."""
    transform = transforms.Compose([transforms.Resize((8, 8)), transforms.ToTensor()])

    def load_backbone(config, *, synthetic):
        torch.manual_seed(0)
        return FrozenBackbone(nn.Conv2d(3, 16, 3), transform=transform)

    monkeypatch.setattr("ads.features.load_backbone", load_backbone)


def run_ads(*arguments):
    main(parse([*QUICK, *arguments]))


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The folder of one dry run, with its posters and cached features; created by the first worker that needs it."""
    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "finished_example"
    folder.mkdir(exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "printed.txt").exists():
            with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
                patch.chdir(folder)
                run_ads("--dry-run", "--output", "run")
            (folder / "printed.txt").write_text(printed.getvalue())
    return folder


@pytest.fixture
def posters(finished):
    """The posters of a dry run and the cache of their features, copied into the folder of the test."""
    shutil.copytree(finished / "runs", "runs")


@pytest.fixture
def finished_run(finished, posters):
    """A copy of the finished run, as `run`, with posters and cached features."""
    shutil.copytree(finished / "run", "run")
    return Path("run")


def test_ads_writes_all_files(finished):
    folder = finished / "run"
    assert {path.name for path in folder.iterdir()} == FILES | FILES_OF_METHODS["recommended"]
    assert {path.name for path in (folder / "figures").iterdir()} == FIGURES
    for path in (folder / "figures").iterdir():
        with Image.open(path) as figure:
            assert figure.width > 500

    printed = (finished / "printed.txt").read_text()
    assert printed.startswith("Data: synthetic advertisements\nSentiments.json: ")
    assert re.search(r"^48 images in runs/.*, 30 labels, 4\.46 labels per image", printed, re.MULTILINE)
    assert "\nRun folder: run\n" in printed
    assert "synthetic" in printed
    assert "random weights" in printed
    assert "| recommended embedding" in printed
    assert "checkpoints: run" in printed

    config = json.loads((folder / "config.json").read_text())
    assert config["options"]["backbone"] == "squeezenet1_0"
    assert config["resolved"]["weights"] == "random"
    assert config["versions"]["torch"] == torch.__version__.partition("+")[0]

    metrics = json.loads((folder / "metrics.json").read_text())
    split = json.loads((folder / "split.json").read_text())
    assert [len(split[part]) for part in ("train", "validation", "test")] == [
        metrics["data"][part] for part in ("train", "validation", "test")
    ]
    assert len(metrics["history"]["embedding_4"]) == 2
    assert metrics["settings"] == {"epochs": 2, "batch_size": 16, "lr": 0.003, "lr_drops": [], "keep_best": True}
    assert metrics["data"]["undersampler"] == "none"
    with (folder / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["path"] for row in rows} == {*split["validation"], *split["test"]}
    assert all(0 <= float(row["probability_eager"]) <= 1 for row in rows)
    report = (folder / "report.md").read_text()
    assert "synthetic" in report
    assert "paper" not in report
    assert set(re.findall(r"figures/(\w+\.png)", report)) == FIGURES


def check_saved_model(run):
    """Check that the model of a run on posters has the results of the run, and gives its predictions."""
    (root,) = Path("runs").glob("synthetic_ads_*")
    metrics = json.loads((run / "metrics.json").read_text())
    model = MultiLabelModel.from_pretrained(run / "model")
    assert model.record["metrics"] == pytest.approx(metrics["test"][metrics["title"]])
    assert model.label_names == list(metrics["test_labels"])
    assert "random weights" in model.record["limits"]
    with (run / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))[:5]
    paths = [root / row["path"] for row in rows]
    for row, probabilities, predicted in zip(rows, model.predict_proba(paths), model.predict(paths), strict=True):
        written = torch.tensor([float(row[f"probability_{name}"]) for name in model.label_names])
        torch.testing.assert_close(torch.as_tensor(probabilities), written, atol=1e-4, rtol=0)
        is_certain = (written - model.thresholds).abs() > 1e-4
        for name in [name for name, certain in zip(model.label_names, is_certain, strict=True) if certain]:
            assert (name in predicted) == (name in row["predicted"].split("|"))


def test_the_saved_model_gives_the_predictions(finished_run):
    check_saved_model(finished_run)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Training diverges")  # at the learning rate of the paper
@pytest.mark.usefixtures("posters", "without_figures")
def test_ads_runs_the_four_experiments_of_the_paper(capsys):
    run_ads("--dry-run", "--experiments", "paper", "--output", "runs/paper")
    for number in range(1, 5):
        folder = Path(f"runs/paper/paper_run_{number}")
        assert {path.name for path in folder.iterdir()} == FILES - {"figures"} | FILES_OF_METHODS["paper"]
        options = json.loads((folder / "config.json").read_text())["options"]
        assert (options["method"], options["epochs"]) == ("paper", 10 if number <= 2 else 20)
        settings = json.loads((folder / "metrics.json").read_text())["settings"]
        assert settings["margin"] == (1.0 if number % 2 else 2.0)
        assert settings["lr_drops"] == ([] if number <= 2 else [15])
        assert (settings["activation"], settings["positive_order"]) == ("softmax", "farthest")
        assert settings["lr"] == 0.01
    report = Path("runs/paper/report.md").read_text()
    for part in (
        "paper_run_1: paper's triplet embedding",
        "paper_run_4: paper's",
        '"Paper" means "From image to emotion',
        "synthetic",
        "random weights",
    ):
        assert part in report
    assert "as the paper quotes it" not in report  # these results are of other images
    assert capsys.readouterr().out.count("| paper_run_3: paper's triplet embedding ") == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Training diverges")  # at the learning rate of the paper
@pytest.mark.usefixtures("posters")
def test_ads_compares_every_method_on_the_same_features(capsys):
    run_ads("--dry-run", "--compare", "--output", "run")
    for method, files in FILES_OF_METHODS.items():
        folder = Path("run") / method
        assert {path.name for path in folder.iterdir()} == FILES | files
        figures = {path.name for path in (folder / "figures").iterdir()}
        assert figures == FIGURES_OF_METHODS[method]
        assert set(re.findall(r"figures/(\w+\.png)", (folder / "report.md").read_text())) == figures
    check_saved_model(Path("run/paper"))
    assert len(list(Path("runs/feature_cache").iterdir())) == 1
    report, printed = Path("run/report.md").read_text(), capsys.readouterr().out
    for method in METHODS.values():
        assert f"| {method.title} " in report
        assert f"| {method.title} " in printed
    with Image.open("run/comparison.png") as figure:
        assert figure.width > 500


@pytest.mark.usefixtures("posters", "without_figures")
@pytest.mark.slow
def test_ads_uses_word_vectors_and_the_training_options():
    names = ["Active", "Alarmed", "Sad"]
    Path("words.txt").write_text("".join(f"{name.lower()} {i} 1 0\n" for i, name in enumerate(names, start=1)))
    options = ["--method", "semantic", "--word-vectors", "words.txt", "--lr", "0.01"]
    run_ads("--dry-run", "--output", "run", *options)
    state = torch.load("run/semantic.pt", weights_only=True)["module"]
    assert state["label_vectors"].shape == (30, 3)
    assert 1 <= (state["label_vectors"] != 0).any(1).sum() <= 3
    settings = json.loads(Path("run/metrics.json").read_text())["settings"]
    assert (settings["lr"], settings["batch_size"]) == (0.01, 16)


@pytest.mark.parametrize(
    "options",
    [
        ["--undersampler", "none", "--soft-labels"],
        ["--undersampler", "tomek", "--method", "linear-probe"],
        ["--undersampler", "remedial", "--method", "linear-probe"],
    ],
)
@pytest.mark.filterwarnings("ignore:MultiLabelTomekLinks")
@pytest.mark.usefixtures("posters", "without_figures")
@pytest.mark.slow
def test_ads_with_soft_labels_and_other_undersamplers(options):
    run_ads("--dry-run", "--output", "run", *options)
    metrics = json.loads(Path("run/metrics.json").read_text())
    data, counts = metrics["data"], metrics["train_labels"]
    assert data["undersampler"] == options[1]
    assert (data["train_after"] < data["train"]) == (options[1] == "tomek")
    report = re.sub(" +", " ", Path("run/report.md").read_text())
    name, row = max(counts.items(), key=lambda item: item[1]["count_before"])
    assert row["ir_before"] == 1
    assert f"MeanIR {data['mean_ir_before']:.2f}" in report
    if options[1] == "none":
        assert f"| {name} | {row['count_before']:g} | 1.00 |" in report
        assert "ndersampling" not in report
    else:
        assert f"| {name} | {row['count_before']:g} | {row['count_after']:g} | 1.00 | {row['ir_after']:.2f} |" in report
        assert f"MeanIR {data['mean_ir_after']:.2f}" in report


def test_every_undersampler_of_the_library_is_an_option():
    literal, _ = get_args(get_type_hints(Config)["undersampler"])
    choices = get_args(literal)
    assert set(choices) == {"none", *UNDERSAMPLERS}
    samplers = {name for name in under_sampling.__all__ if not name.startswith("Base")}
    assert {type(sampler).__name__ for sampler in UNDERSAMPLERS.values()} == samplers


@pytest.mark.parametrize("name", UNDERSAMPLERS)
@pytest.mark.filterwarnings(r"ignore:\w+ (removed|raised|left) :UserWarning")
def test_each_undersampler_returns_the_same_rows_and_labels_twice(name):
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(80, 4, generator=generator) < torch.tensor([0.7, 0.4, 0.3, 0.1])).to(torch.uint8)
    features = torch.randn(80, 20, generator=generator)
    config = Config(undersampler=name)
    rows, targets = undersample(config, features, labels)
    assert len(rows) == len(targets)
    assert bool((targets <= labels[rows]).all())
    again = undersample(config, features, labels)
    assert torch.equal(rows, again[0])
    assert torch.equal(targets, again[1])


def write_real_set(folder, num_images=24):
    """Write a set in the format of the real one; return the options that select it."""
    (folder / "0").mkdir(parents=True)
    annotations = {}
    for i in range(num_images):
        Image.new("RGB", (40, 40), (i * 6, 255 - i * 6, 128)).save(folder / "0" / f"{i}.jpg")
        annotations[f"0/{i}.jpg"] = [[str(1 + i % 3)], [str(1 + i % 3), str(1 + i % 2)]]
    (folder / "Sentiments.json").write_text(json.dumps(annotations))
    lines = [f'{i}. "{name}\xa0(so)" (ABBREVIATION: "{name}")' for i, name in enumerate("abc", start=1)]
    (folder / "Sentiments_List.txt").write_text("\n".join(lines), encoding="latin-1")
    return ["--annotations", f"{folder}/Sentiments.json", "--image-root", str(folder), "--epochs", "2"]


@pytest.mark.usefixtures("small_backbone", "without_figures")
def test_ads_on_a_set_in_the_format_of_the_real_one(capsys):
    run_ads(*write_real_set(Path("set")), "--output", "run")
    printed = capsys.readouterr().out
    assert "synthetic" not in printed
    assert json.loads(Path("run/metrics.json").read_text())["data"]["labels"] == 3


@pytest.mark.usefixtures("small_backbone", "without_figures")
def test_ads_with_bad_images_keeps_the_features_of_the_others_and_can_skip_them(capsys):
    arguments = write_real_set(Path("set"))
    Path("set/0/3.jpg").unlink()
    Path("set/0/7.jpg").write_bytes(b"no image")
    with pytest.raises(FileNotFoundError, match=r"^1 of 24 images do not exist; the first: set/0/3\.jpg\. Check"):
        run_ads(*arguments, "--output", "run")
    assert not Path("runs").exists()
    Path("set/0/3.jpg").touch()
    with pytest.raises(BadImagesError, match=r"2 of 24 images cannot be read; the first: set/0/3\.jpg"):
        run_ads(*arguments, "--output", "run")
    assert not Path("run").exists()
    (part,) = Path("runs/feature_cache").glob("*/part-*.npy")
    cached = part.read_bytes()
    run_ads(*arguments, "--output", "run", "--on-bad-image", "skip")
    assert part.read_bytes() == cached
    metrics = json.loads(Path("run/metrics.json").read_text())
    assert metrics["data"]["images"] == 22
    assert ["3.jpg" in metrics["bad_images"][0], "7.jpg" in metrics["bad_images"][1]] == [True, True]
    assert "2 images could not be read and were excluded" in capsys.readouterr().out


def test_ads_on_real_images_without_weights_is_an_error_that_names_the_alternatives(monkeypatch):
    weights = "torchvision.models.SqueezeNet1_0_Weights.get_state_dict"

    def no_network(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(weights, no_network)
    arguments = write_real_set(Path("set"))
    with pytest.raises(WeightsUnavailableError, match=r"could not be downloaded .*--weights none"):
        run_ads(*arguments, "--weights", "DEFAULT", "--output", "run")


@pytest.mark.usefixtures("posters", "without_figures")
def test_ads_on_synthetic_images_warns_and_uses_random_weights(monkeypatch, caplog, capsys):
    def no_network(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("torchvision.models.SqueezeNet1_0_Weights.get_state_dict", no_network)
    run_ads("--dry-run", "--weights", "DEFAULT", "--method", "linear-probe", "--output", "run")
    assert "continues with RANDOM weights" in caplog.text
    assert "random weights" in capsys.readouterr().out
    assert "random weights" in Path("run/report.md").read_text()


def test_a_run_is_not_overwritten_and_not_resumed_with_other_options(finished_run):
    before = (finished_run / "metrics.json").read_bytes()
    with pytest.raises(FileExistsError, match="run already contains a run: add --resume"):
        run_ads("--dry-run", "--output", "run")
    for option, value, saved in (
        ("lr", "0.5", "without --lr"),
        ("undersampler", "tomek", "without --undersampler"),
        ("seed", "1", "with --seed 0"),
    ):
        with pytest.raises(ValueError, match=f"run in run was started {saved}, not with --{option} {value}: omit"):
            run_ads("--output", "run", "--resume", f"--{option}", value)
    assert (finished_run / "metrics.json").read_bytes() == before


@contextlib.contextmanager
def interrupted_at(stage, epoch):
    """Raise KeyboardInterrupt after an epoch of a stage, when its checkpoint is written."""
    monitored = monitoring.monitored_stages

    @contextlib.contextmanager
    def interrupted(*arguments):
        with monitored(*arguments) as on_epoch:

            def callback(name, record):
                on_epoch(name, record)
                if (name, record["epoch"]) == (stage, epoch):
                    raise KeyboardInterrupt

            yield callback

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ads.methods.monitored_stages", interrupted)
        yield


@pytest.mark.usefixtures("posters", "without_figures")
def test_an_interrupted_run_that_is_resumed_equals_an_uninterrupted_one(finished, capsys):
    with interrupted_at("embedding_3", 1), pytest.raises(RunInterrupted) as error:
        run_ads("--dry-run")
    run = error.value.folder
    assert {path.name for path in run.glob("*.pt")} == {f"embedding_{i}.pt" for i in (1, 2, 3)}
    capsys.readouterr()
    main(parse(["--resume"]))  # the latest unfinished run, with its options
    assert f"\nResuming {run}\n" in capsys.readouterr().out
    expected, metrics = (json.loads((folder / "metrics.json").read_text()) for folder in (finished / "run", run))
    for part in ("validation", "test", "test_intervals", "history", "settings", "test_labels", "data"):
        assert metrics[part] == expected[part]
    assert (run / "predictions.csv").read_text() == (finished / "run" / "predictions.csv").read_text()
    options = json.loads((run / "config.json").read_text())["options"]
    assert (options["backbone"], options["dry_run"], options["output"]) == ("squeezenet1_0", True, str(run))
    with pytest.raises(FileNotFoundError, match="no run under runs to resume: 1 are finished, 0 are running, 0 have"):
        parse(["--resume"])


def test_a_failed_start_leaves_no_run_to_resume():
    arguments = write_real_set(Path("set"))
    torch.save({"conv1.weight": torch.zeros(3)}, "other.pth")
    for output in ([], ["--output", "mine/run"]):
        with pytest.raises(ValueError, match=r"`weights` other\.pth do not match SqueezeNet"):
            run_ads(*arguments, "--weights", "other.pth", *output)
    assert sorted(path.name for path in Path().iterdir()) == ["other.pth", "set"]
    with pytest.raises(FileNotFoundError, match="There is no run under runs to resume: 0 are finished, 0 are"):
        parse(["--resume"])
    with pytest.raises(
        FileNotFoundError, match=r"There is no run in mine/run to resume: .*config\.json does not exist"
    ):
        parse(["--resume", "--output", "mine/run"])


@pytest.mark.usefixtures("small_backbone")
def test_an_interruption_before_the_first_features_leaves_no_run_and_a_later_one_a_run_to_resume(monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    arguments = write_real_set(Path("set"))
    with monkeypatch.context() as patch:
        patch.setattr("ads.features.extract_features", interrupt)
        with pytest.raises(RunInterrupted) as error:
            run_ads(*arguments)
    assert error.value.folder is None
    assert not Path("runs").exists()
    monkeypatch.setattr("ads.pipeline.stratified_split", interrupt)
    with pytest.raises(RunInterrupted) as error:
        run_ads(*arguments)
    assert error.value.folder == parse(["--resume"]).output


def test_the_settings_of_a_method_are_the_options_that_apply_to_it():
    for name, method in METHODS.items():
        options = {option for option, methods in OPTIONS_OF_METHODS.items() if name in methods}
        assert options - {"word_vectors", "fusion"} == method.settings.keys() - {"keep_best"}


def test_a_comparison_gives_each_method_the_options_that_apply_to_it_only():
    config = parse(["--compare", "--activation", "sigmoid", "--lr", "0.1", "--lr-drops", "3", *QUICK])
    settings = {name: settings_of(with_method(config, name)) for name in METHODS}
    assert "activation" not in settings["recommended"]
    assert (settings["paper"]["activation"], settings["paper"]["lr"]) == ("sigmoid", 0.1)
    assert (settings["semantic"]["lr"], settings["semantic"]["lr_drops"]) == (0.1, (3,))
    assert settings["linear-probe"] == {}
    samplers = {name: with_method(config, name).chosen_undersampler for name in METHODS}
    assert samplers == dict.fromkeys(METHODS, "none") | {"paper": "cap"}
    config = parse(["--compare", "--undersampler", "tomek", *QUICK])
    assert {with_method(config, name).chosen_undersampler for name in METHODS} == {"tomek"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--epochs", "0"], "--epochs must be at least 1, got 0"),
        (["--method", "linear-probe", "--epochs", "3"], "--epochs requires --method recommended or paper or label-"),
        (["--method", "linear-probe", "--lr", "0.1"], "--lr requires --method recommended or paper or label-graph or"),
        (["--method", "linear-probe", "--lr-drops", "3"], "--lr-drops requires --method recommended or paper or"),
        (["--experiments", "paper", "--undersampler", "tomek"], "--experiments paper sets --undersampler itself"),
        (["--experiments", "paper", "--method", "semantic"], "--experiments paper sets --method itself: omit the"),
        (["--compare", "--method", "paper"], "--compare sets --method itself: omit the option, got --method paper"),
        (["--soft-labels", "--method", "paper"], "--soft-labels requires --undersampler none"),
        (["--soft-labels", "--compare"], "--soft-labels requires --undersampler none"),
        (["--list-runs"], "--list-runs cannot be combined with other options"),
        (["--margin", "2"], "--margin requires --method paper, got --method recommended"),
        (["--method", "semantic", "--positive-order", "random"], "--positive-order requires --method paper, got"),
        (["--experiments", "paper", "--margin", "3"], "--experiments paper sets --margin itself"),
        (["--word-vectors", "a.txt"], "--word-vectors requires --method label-graph or semantic, got"),
        (["--method", "semantic", "--word-vectors", "a.txt"], r"--word-vectors a\.txt is not a file"),
        (["--soft-labels", "--undersampler", "cap"], "--soft-labels requires --undersampler none"),
        (["--annotations", "a.json"], "--annotations requires --image-root"),
        (["--compare", "--experiments", "paper"], "--compare and --experiments paper cannot be combined"),
    ],
)
def test_ads_rejects_options_before_it_writes_anything(options, message):
    with pytest.raises(ValueError, match=message):
        run_ads("--dry-run", *options)
    assert not list(Path().iterdir())


@pytest.mark.usefixtures("posters")
def test_min_votes_that_no_label_reaches_is_an_error_before_a_run_is_started():
    with pytest.raises(ValueError, match="No image has a label with 6 votes"):
        run_ads("--dry-run", "--min-votes", "6", "--output", "run")
    assert not Path("run").exists()


@pytest.mark.slow
def test_failed_figures_and_warnings_are_in_the_report_and_do_not_end_the_run(finished_run, monkeypatch):
    def fails(*_, **__):
        raise ValueError("no figure today")

    def warns(images):
        warnings.warn("the loss rose from 1 to 9", UserWarning, stacklevel=2)
        return 0.0

    with monkeypatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("default")
        patch.setattr("common.plots._save", lambda figure, path: path.write_bytes(b"a figure"))  # saving takes seconds
        patch.setattr("common.plots.plot_embedding", fails)
        patch.setattr("ads.results.scumble", warns)
        run_ads("--dry-run", "--output", "run", "--resume")
    metrics = json.loads((finished_run / "metrics.json").read_text())
    assert metrics["failed_figures"] == {"embedding.png": "ValueError: no figure today"}
    assert not (finished_run / "figures" / "embedding.png").exists()
    report = (finished_run / "report.md").read_text()
    assert "The figure `embedding.png` could not be drawn: ValueError: no figure today" in report
    assert "## Warnings of the run\n\n- the loss rose from 1 to 9\n" in report
    assert set(re.findall(r"figures/(\w+\.png)", report)) == FIGURES - {"embedding.png"}


@pytest.mark.usefixtures("without_figures")
@pytest.mark.slow
def test_a_full_disk_is_an_error_that_names_the_file_and_leaves_no_temporary_file(finished_run, monkeypatch):
    sync = os.fsync

    def full(handle):
        if Path(f"/proc/self/fd/{handle}").readlink().name.startswith("metrics.json"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=r"run/metrics\.json could not be written: No space left on device\.$"):
        run_ads("--dry-run", "--output", "run", "--resume")
    assert {path.name for path in finished_run.iterdir()} == FILES | FILES_OF_METHODS["recommended"]


def environment():
    """The environment of a process with as many threads as this one: another number can round sums differently."""
    python_path = os.pathsep.join([str(EXAMPLES), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONPATH": python_path}


KILLED_AT_AN_EVENT = """
import contextlib, os, signal, sys
from ads import monitoring
from ads.program import run_program
from common.progress import Progress

signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell ignores it
step, number, signal_name = sys.argv.pop(1).split(":")
set_progress, monitored_stages = Progress.set, monitoring.monitored_stages

def kill_at(name, done):
    if (name, done) == (step, int(number)):
        os.kill(os.getpid(), getattr(signal, signal_name))

def set_progress_or_kill(progress, done, total):
    set_progress(progress, done, total)
    kill_at("features", done)

@contextlib.contextmanager
def stages_or_kill(*arguments):
    with monitored_stages(*arguments) as on_epoch:
        def callback(stage, record):
            on_epoch(stage, record)
            kill_at(stage, record["epoch"])
        yield callback

Progress.set, monitoring.monitored_stages = set_progress_or_kill, stages_or_kill
run_program()
"""


@pytest.mark.slow
def test_a_run_that_is_killed_in_each_step_and_resumed_equals_an_uninterrupted_one(finished):
    shutil.copytree(finished / "runs", "runs", ignore=shutil.ignore_patterns("feature_cache"))
    Path("killed.py").write_text(KILLED_AT_AN_EVENT)

    def run_until(event, *arguments):
        command = [sys.executable, "killed.py", event, *arguments]
        return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=200)

    start, resume = [*QUICK, "--dry-run", "--output", "run"], ["--resume", "--output", "run"]
    assert run_until("features:36:SIGKILL", *start).returncode == -signal.SIGKILL
    assert len(list(Path("runs/feature_cache").glob("*/part-*.npy"))) == 1
    for event, checkpoint, return_code in (
        ("embedding_1:1:SIGKILL", "embedding_1.pt", -signal.SIGKILL),
        ("embedding_3:1:SIGINT", "embedding_3.pt", 130),  # what Ctrl-C sends
        ("embedding_4:1:SIGKILL", "embedding_4.pt", -signal.SIGKILL),
    ):
        process = run_until(event, *resume)
        assert process.returncode == return_code, process.stderr
        assert len(torch.load(f"run/{checkpoint}", weights_only=True)["history"]) == 1
        if return_code == 130:
            assert "Traceback" not in process.stderr
            assert process.stderr.endswith(f"\ninterrupted; continue with: python killed.py {' '.join(resume)}\n")
    last = run_until("never:0:SIGKILL", *resume)
    assert last.returncode == 0, last.stderr
    assert "features: 48 images, finished before\n" in last.stderr  # lines, since there is no terminal
    assert re.search(r"^training: 8 epochs, 7 of them finished before, in \d+\.\d s$", last.stderr, re.MULTILINE)

    expected, metrics = (
        json.loads((folder / "metrics.json").read_text()) for folder in (finished / "run", Path("run"))
    )
    for part in ("validation", "test", "history", "test_labels", "data"):
        assert metrics[part] == expected[part]
    assert Path("run/predictions.csv").read_text() == (finished / "run" / "predictions.csv").read_text()


def torchrun(script, *arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", str(script), *QUICK, *arguments]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=200)


FAILS_ON_THE_SECOND_RANK = """
import contextlib
from ads import monitoring
from ads.program import parse, process_group
from mlmetric.distributed import rank

monitored_stages = monitoring.monitored_stages

@contextlib.contextmanager
def stages_or_fail(*arguments):
    with monitored_stages(*arguments) as on_epoch:
        def callback(stage, record):
            on_epoch(stage, record)
            if rank() == 1 and (stage, record["epoch"]) == ("embedding_1", 2):
                raise SystemExit("error: no space left on rank 1")
        yield callback

monitoring.monitored_stages = stages_or_fail
from ads.runs import main
with process_group():
    main(parse())
"""


def assert_close(found, expected):
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert_close(found[key], value)
    elif isinstance(expected, list):
        for pair in zip(found, expected, strict=True):
            assert_close(*pair)
    else:
        assert found == (pytest.approx(expected, rel=1e-4, abs=1e-5) if isinstance(expected, float) else expected)


@pytest.fixture
def one_thread():
    """Use one thread, like each rank: another number can round sums differently."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Training diverges")  # at the learning rate of the paper
@pytest.mark.usefixtures("posters", "one_thread", "without_figures")
def test_torchrun_ends_if_a_rank_fails_and_the_resumed_run_equals_that_of_one_process():
    options = ["--dry-run", "--method", "paper"]  # without dropout, which differs between ranks
    run_ads(*options, "--output", "one", "--cache", "cache_of_one")

    options += ["--output", "two", "--cache", "cache_of_two"]
    Path("fails.py").write_text(FAILS_ON_THE_SECOND_RANK)
    failed = torchrun("fails.py", *options)
    assert failed.returncode != 0
    assert "error: no space left on rank 1" in failed.stderr
    assert Path("two/embedding_1.pt").exists()
    assert not Path("two/classifier.pt").exists()

    resumed = torchrun(EXAMPLES / "ads" / "__main__.py", *options, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stdout.count("Report, figures and checkpoints: two") == 1
    assert {path.name for path in Path("two").iterdir()} == FILES | FILES_OF_METHODS["paper"]
    expected, metrics = (json.loads(Path(folder, "metrics.json").read_text()) for folder in ("one", "two"))
    for part in ("validation", "test", "history", "test_labels", "data"):
        assert_close(metrics[part], expected[part])
    parts = [list(Path(cache).glob("*/*")) for cache in ("cache_of_one", "cache_of_two")]
    names = [[path.name for path in paths] for paths in parts]  # which contain a digest of the content
    assert names[0] == names[1]


def test_invalid_options_are_reported_in_one_line_without_the_slow_imports():
    lines = """
        import sys
        from ads.program import run_program
        try:
            run_program()
        except SystemExit as end:
            print(end)
        print(sorted({"torch", "torchvision", "numpy", "matplotlib", "sklearn", "mlmetric"} & set(sys.modules)))
    """
    Path("program.py").write_text(textwrap.dedent(lines))
    for arguments, printed in (
        (["--annotations", "nowhere.json", "--image-root", "."], "error: --annotations nowhere.json is not a file."),
        (
            ["--backbone", "resnet51"],
            "error: --backbone must be the name of a torchvision classification model, such",
        ),
        (["--weights", "IMAGENET1K_V9"], "error: --weights must be IMAGENET1K_V1, IMAGENET1K_V2, DEFAULT, none, or a"),
        (["--weights", "nowhere.pth"], "error: --weights nowhere.pth is not a file."),
        (["--list-runs"], "There are no runs under runs/."),
    ):
        command = [sys.executable, "program.py", *arguments]
        output = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60).stdout
        assert output.startswith(printed)
        assert output.endswith("\n[]\n")


@pytest.mark.parametrize("start", [EXAMPLES / "ads", EXAMPLES / "ads" / "__main__.py"])
@pytest.mark.parametrize("folder", [None, EXAMPLES / "ads"])
def test_the_application_starts_from_any_folder(start, folder):
    without_examples = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, str(start), "--resume", "--output", "no_such_run"]
    run = subprocess.run(command, env=without_examples, cwd=folder, capture_output=True, text=True, timeout=60)
    message = "error: There is no run in no_such_run to resume: no_such_run/config.json does not exist.\n"
    assert (run.returncode, run.stdout, run.stderr) == (1, "", message)


def test_help_explains_every_option(capsys):
    with pytest.raises(SystemExit):
        parse(["--help"])
    help_text = capsys.readouterr().out
    for option in fields(Config):
        assert f"--{option.name.replace('_', '-')}" in help_text
        assert len(option.metadata["help"]) > 10
