"""The examples as a user runs them: output files, invalid input, and interrupted and resumed runs."""

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

import ad_sentiment
import custom_similarity
import own_images
from ads import monitoring
from ads.config import AdsConfig, Config, OwnImagesConfig
from ads.methods import METHODS, UNDERSAMPLERS, undersample
from ads.options import parse
from ads.run_folder import RunInterrupted
from mlmetric import under_sampling
from mlmetric.data import BadImagesError, read_image
from mlmetric.estimators import RECOMMENDED_HEAD
from mlmetric.heads import (
    ClassifierEnsemble,
    ClassifierHead,
    FrozenBackbone,
    LabelNetwork,
    WeightsUnavailableError,
)

EXAMPLES = Path(ad_sentiment.__file__).parent
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
CHECKPOINTS = {
    "recommended": {*MEMBERS, "classifier_ensemble.pt"},
    "paper": {"embedding_1.pt", "classifier.pt"},
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

    monkeypatch.setattr("ad_sentiment.load_backbone", load_backbone)


def run_ads(*arguments):
    ad_sentiment.main(parse(AdsConfig, [*QUICK, *arguments]))


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


def test_ad_sentiment_writes_all_files(finished):
    folder = finished / "run"
    assert {path.name for path in folder.iterdir()} == FILES | CHECKPOINTS["recommended"]
    assert {path.name for path in (folder / "figures").iterdir()} == FIGURES
    for path in (folder / "figures").iterdir():
        with Image.open(path) as figure:
            assert figure.width > 500

    printed = (finished / "printed.txt").read_text()
    assert printed.startswith("Run folder: run\n")
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
    assert metrics["settings"]["epochs"] == 2
    with (folder / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["path"] for row in rows} == {*split["validation"], *split["test"]}
    assert all(0 <= float(row["probability_eager"]) <= 1 for row in rows)
    report = (folder / "report.md").read_text()
    assert "synthetic" in report
    assert "paper" not in report
    assert set(re.findall(r"figures/(\w+\.png)", report)) == FIGURES


def test_the_code_in_the_readme_loads_a_classifier_that_gives_the_predictions(finished_run):
    networks = [LabelNetwork(RECOMMENDED_HEAD(512), ClassifierHead(256, num_labels=30)) for _ in range(4)]
    classifier = ClassifierEnsemble([*networks, ClassifierHead(512, num_labels=30, clip=3.0)])
    classifier.load_state_dict(torch.load("run/classifier_ensemble.pt", weights_only=True)["module"])
    torch.manual_seed(0)  # the seed of the random weights of the run
    backbone = FrozenBackbone("squeezenet1_0", weights=None)
    (root,) = Path("runs").glob("synthetic_ads_*")
    test_labels = json.loads(Path("run/metrics.json").read_text())["test_labels"]
    thresholds = {name: row["threshold"] for name, row in test_labels.items()}
    with Path("run/predictions.csv").open(newline="") as file:
        for row in list(csv.DictReader(file))[:5]:
            image = backbone.transform(read_image(root / row["path"]))[None]
            probabilities = classifier.probabilities(classifier.eval()(backbone(image)))[0]
            written = [float(row[f"probability_{name}"]) for name in thresholds]
            torch.testing.assert_close(probabilities, torch.tensor(written), atol=2e-4, rtol=1e-3)
            predicted = set(row["predicted"].split("|"))
            for (name, threshold), probability in zip(thresholds.items(), written, strict=True):
                if abs(probability - threshold) > 1e-5:  # the file has six digits
                    assert (name in predicted) == (probability > threshold)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Training diverges")  # at the learning rate of the paper
@pytest.mark.usefixtures("posters", "without_figures")
def test_ad_sentiment_runs_the_four_experiments_of_the_paper(capsys):
    run_ads("--dry-run", "--experiments", "paper", "--output", "runs/paper")
    for number in range(1, 5):
        folder = Path(f"runs/paper/paper_run_{number}")
        assert {path.name for path in folder.iterdir()} == FILES - {"figures"} | CHECKPOINTS["paper"]
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
    assert capsys.readouterr().out.count("paper_run_3: ") == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Training diverges")  # at the learning rate of the paper
@pytest.mark.usefixtures("posters")
def test_ad_sentiment_compares_every_method_on_the_same_features(capsys):
    run_ads("--dry-run", "--compare", "--output", "run")
    for method, checkpoints in CHECKPOINTS.items():
        folder = Path("run") / method
        assert {path.name for path in folder.iterdir()} == FILES | checkpoints
        figures = {path.name for path in (folder / "figures").iterdir()}
        assert figures == FIGURES_OF_METHODS[method]
        assert set(re.findall(r"figures/(\w+\.png)", (folder / "report.md").read_text())) == figures
    assert len(list(Path("runs/feature_cache").iterdir())) == 1
    report, printed = Path("run/report.md").read_text(), capsys.readouterr().out
    for method in METHODS.values():
        assert f"| {method.title} " in report
        assert f"| {method.title} " in printed
    with Image.open("run/comparison.png") as figure:
        assert figure.width > 500


@pytest.mark.usefixtures("posters", "without_figures")
@pytest.mark.slow
def test_ad_sentiment_uses_word_vectors_and_the_training_options():
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
def test_ad_sentiment_with_soft_labels_and_other_undersamplers(options):
    run_ads("--dry-run", "--output", "run", *options)
    metrics = json.loads(Path("run/metrics.json").read_text())
    data, counts = metrics["data"], metrics["train_labels"]
    assert data["undersampler"] == options[1]
    assert (data["train_after"] < data["train"]) == (options[1] == "tomek")
    report = Path("run/report.md").read_text()
    name, row = max(counts.items(), key=lambda item: item[1]["count_before"])
    assert row["ir_before"] == 1
    assert f"| {name} | {row['count_before']:g} | {row['count_after']:g} | 1.00 | {row['ir_after']:.2f} |" in report
    assert f"MeanIR {data['mean_ir_before']:.2f}" in report
    assert f"MeanIR {data['mean_ir_after']:.2f}" in report


def test_every_undersampler_of_the_library_is_an_option():
    choices = get_args(get_type_hints(Config)["undersampler"])
    assert set(choices) == {"none", *UNDERSAMPLERS}
    samplers = {name for name in under_sampling.__all__ if not name.startswith("Base")}
    assert {type(sampler).__name__ for sampler in UNDERSAMPLERS.values()} == samplers


@pytest.mark.parametrize("name", ["none", *UNDERSAMPLERS])
@pytest.mark.filterwarnings(r"ignore:\w+ (removed|raised|left) :UserWarning")
def test_each_undersampler_returns_the_same_rows_and_labels_twice(name):
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(80, 4, generator=generator) < torch.tensor([0.7, 0.4, 0.3, 0.1])).to(torch.uint8)
    features = torch.randn(80, 20, generator=generator)
    config = AdsConfig(undersampler=name)
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
def test_ad_sentiment_on_a_set_in_the_format_of_the_real_one(capsys):
    run_ads(*write_real_set(Path("set")), "--output", "run")
    printed = capsys.readouterr().out
    assert "synthetic" not in printed
    assert json.loads(Path("run/metrics.json").read_text())["data"]["labels"] == 3


@pytest.mark.usefixtures("small_backbone", "without_figures")
def test_ad_sentiment_with_bad_images_keeps_the_features_of_the_others_and_can_skip_them(capsys):
    arguments = write_real_set(Path("set"))
    Path("set/0/3.jpg").unlink()
    Path("set/0/7.jpg").write_bytes(b"no image")
    with pytest.raises(BadImagesError, match=r"2 of 24 images cannot be read; the first: set/0/3\.jpg does not exist"):
        run_ads(*arguments, "--output", "run")
    (part,) = Path("runs/feature_cache").glob("*/part-*.npy")
    cached = part.read_bytes()
    run_ads(*arguments, "--output", "run", "--resume", "--on-bad-image", "skip")
    assert part.read_bytes() == cached
    metrics = json.loads(Path("run/metrics.json").read_text())
    assert metrics["data"]["images"] == 22
    assert ["3.jpg" in metrics["bad_images"][0], "7.jpg" in metrics["bad_images"][1]] == [True, True]
    assert "2 images could not be read and were excluded" in capsys.readouterr().out


def test_ad_sentiment_on_real_images_without_weights_is_an_error_that_names_the_alternatives(monkeypatch):
    weights = "torchvision.models.SqueezeNet1_0_Weights.get_state_dict"

    def no_network(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(weights, no_network)
    arguments = write_real_set(Path("set"))
    with pytest.raises(WeightsUnavailableError, match=r"could not be downloaded .*--weights none"):
        run_ads(*arguments, "--weights", "DEFAULT", "--output", "run")


@pytest.mark.usefixtures("posters", "without_figures")
def test_ad_sentiment_on_synthetic_images_warns_and_uses_random_weights(monkeypatch, caplog, capsys):
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
    for option, value, saved in (("lr", "0.5", "None"), ("undersampler", "tomek", "cap"), ("seed", "1", "0")):
        with pytest.raises(ValueError, match=f"run in run was started with --{option} {saved}, not {value}: omit"):
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
    ad_sentiment.main(parse(AdsConfig, ["--resume"]))  # the latest unfinished run, with its options
    assert capsys.readouterr().out.startswith(f"Resuming {run}\n")
    expected, metrics = (json.loads((folder / "metrics.json").read_text()) for folder in (finished / "run", run))
    for part in ("validation", "test", "test_intervals", "history", "settings", "test_labels", "data"):
        assert metrics[part] == expected[part]
    assert (run / "predictions.csv").read_text() == (finished / "run" / "predictions.csv").read_text()
    options = json.loads((run / "config.json").read_text())["options"]
    assert (options["backbone"], options["dry_run"], options["output"]) == ("squeezenet1_0", True, str(run))
    with pytest.raises(FileNotFoundError, match="no run under runs to resume: 1 are finished, 0 are running"):
        parse(AdsConfig, ["--resume"])


def test_a_failed_start_leaves_no_run_to_resume():
    arguments = write_real_set(Path("set"))
    for output in ([], ["--output", "mine/run"]):
        with pytest.raises(
            ValueError, match=r"must be the name of a torchvision classification model .* got 'resnet51'"
        ):
            run_ads(*arguments, "--backbone", "resnet51", *output)
    assert not list(Path().rglob("config.json*"))
    with pytest.raises(FileNotFoundError, match="There is no run under runs to resume: 0 are finished, 0 are running"):
        parse(AdsConfig, ["--resume"])
    with pytest.raises(
        FileNotFoundError, match=r"There is no run in mine/run to resume: .*config\.json does not exist"
    ):
        parse(AdsConfig, ["--resume", "--output", "mine/run"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--epochs", "0"], "--epochs must be at least 1, got 0"),
        (["--margin", "2"], "--margin requires --method paper, got --method recommended"),
        (["--method", "semantic", "--positive-order", "random"], "--positive-order requires --method paper, got"),
        (["--experiments", "paper", "--margin", "3"], "--experiments paper sets --margin itself"),
        (["--word-vectors", "a.txt"], "--word-vectors requires --method label-graph or semantic, got"),
        (["--method", "semantic", "--word-vectors", "a.txt"], r"--word-vectors a\.txt is not a file"),
        (["--soft-labels"], "--soft-labels requires --undersampler none"),
        (["--annotations", "a.json"], "--annotations requires --image-root"),
        (["--compare", "--experiments", "paper"], "--compare and --experiments paper cannot be combined"),
    ],
)
def test_ad_sentiment_rejects_options_before_it_writes_anything(options, message):
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
        patch.setattr("ads.plots._save", lambda figure, path: path.write_bytes(b"a figure"))  # saving takes seconds
        patch.setattr("ads.plots.plot_embedding", fails)
        patch.setattr("ad_sentiment.scumble", warns)
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
    assert {path.name for path in finished_run.iterdir()} == FILES | CHECKPOINTS["recommended"]


def environment():
    """The environment of a process with as many threads as this one: another number can round sums differently."""
    python_path = os.pathsep.join([str(EXAMPLES), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONPATH": python_path}


KILLED_AT_AN_EVENT = """
import contextlib, os, signal, sys
from ads import monitoring
from ads.config import AdsConfig
from ads.program import run_program

step, number, signal_name = sys.argv.pop(1).split(":")
set_progress, monitored_stages = monitoring.set_progress, monitoring.monitored_stages

def kill_at(name, done):
    if (name, done) == (step, int(number)):
        os.kill(os.getpid(), getattr(signal, signal_name))

def set_progress_or_kill(bar, done, total):
    set_progress(bar, done, total)
    kill_at("features", done)

@contextlib.contextmanager
def stages_or_kill(*arguments):
    with monitored_stages(*arguments) as on_epoch:
        def callback(stage, record):
            on_epoch(stage, record)
            kill_at(stage, record["epoch"])
        yield callback

monitoring.set_progress, monitoring.monitored_stages = set_progress_or_kill, stages_or_kill
run_program(AdsConfig)
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
    assert "features: done in " in last.stderr  # lines, since there is no terminal for a progress bar

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
from ads.config import AdsConfig
from ads.options import parse
from ads.program import process_group
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
import ad_sentiment
with process_group():
    ad_sentiment.main(parse(AdsConfig))
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

    resumed = torchrun(EXAMPLES / "ad_sentiment.py", *options, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stdout.count("Report, figures and checkpoints: two") == 1
    assert {path.name for path in Path("two").iterdir()} == FILES | CHECKPOINTS["paper"]
    expected, metrics = (json.loads(Path(folder, "metrics.json").read_text()) for folder in ("one", "two"))
    for part in ("validation", "test", "history", "test_labels", "data"):
        assert_close(metrics[part], expected[part])
    parts = [list(Path(cache).glob("*/*")) for cache in ("cache_of_one", "cache_of_two")]
    names = [[path.name for path in paths] for paths in parts]  # which contain a digest of the content
    assert names[0] == names[1]


def test_invalid_options_are_reported_in_one_line_without_the_slow_imports():
    lines = """
        import sys
        from ads.config import AdsConfig
        from ads.program import run_program
        try:
            run_program(AdsConfig)
        except SystemExit as end:
            print(end)
        print(sorted({"torch", "numpy", "matplotlib", "sklearn", "mlmetric"} & set(sys.modules)))
    """
    Path("program.py").write_text(textwrap.dedent(lines))
    command = [sys.executable, "program.py", "--annotations", "nowhere.json", "--image-root", "."]
    output = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60).stdout
    assert output == "error: --annotations nowhere.json is not a file.\n[]\n"


def test_help_explains_every_option(capsys):
    for config in (AdsConfig, OwnImagesConfig):
        with pytest.raises(SystemExit):
            parse(config, ["--help"])
        help_text = capsys.readouterr().out
        for option in fields(config):
            assert f"--{option.name.replace('_', '-')}" in help_text
            assert len(option.metadata["help"]) > 10


def write_own_images(header, rows, num_images=24):
    Path("photos").mkdir()
    for i in range(num_images):
        Image.new("RGB", (40, 40), (i * 8, 255 - i * 8, 128)).save(f"photos/{i}.jpg")
    Path("labels.csv").write_text("\n".join([header, *rows]) + "\n")
    return ["--images", "photos", "--labels", "labels.csv", "--epochs", "2", "--output", "run", *QUICK]


@pytest.mark.parametrize("form", ["a column for each label", "one column"])
@pytest.mark.usefixtures("small_backbone", "without_figures")
def test_own_images_reads_both_forms_of_csv(form, capsys):
    sets = [{"beach"} if i % 3 == 0 else {"sunset"} if i % 3 == 1 else {"beach", "sunset"} for i in range(24)]
    if form == "a column for each label":
        rows = [f"{i}.jpg,{int('beach' in s)},{int('sunset' in s)}" for i, s in enumerate(sets)]
        arguments = write_own_images("path,beach,sunset", rows)
    else:
        rows = [f'"{", ".join(sorted(s))}",{i}.jpg' for i, s in enumerate(sets)]
        arguments = write_own_images("tags,file", rows)
        arguments += ["--path-column", "file", "--label-column", "tags", "--separator", ","]
    own_images.main(parse(OwnImagesConfig, arguments))
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
        own_images.main(parse(OwnImagesConfig, [*arguments, *options]))


@pytest.mark.usefixtures("small_backbone")
def test_own_images_with_too_few_images_or_another_encoding_is_an_error():
    arguments = write_own_images("path,$a_$", [f"{i}.jpg,{i % 2}" for i in range(6)], num_images=6)
    with pytest.raises(ValueError, match="6 images are too few to train, validate and test: at least 20 are required"):
        own_images.main(parse(OwnImagesConfig, arguments))
    Path("labels.csv").write_bytes("path,caf\xe9\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"labels\.csv must be a CSV file in UTF-8, got: .*0xe9"):
        own_images.main(parse(OwnImagesConfig, arguments))


@pytest.mark.usefixtures("small_backbone", "without_figures")
def test_own_images_with_any_label_name_and_line_numbers_as_in_an_editor():
    arguments = write_own_images("path,$a_$", [f"{i}.jpg,{i % 2}" for i in range(24)])
    own_images.main(parse(OwnImagesConfig, arguments))
    Path("labels.csv").write_text("tags,path\n\na,1.jpg\na\n")
    options = ["--label-column", "tags", "--path-column", "path"]
    with pytest.raises(ValueError, match=r"labels\.csv, line 4 must have 2 fields .*, got 1"):
        own_images.main(parse(OwnImagesConfig, [*arguments, *options]))


def test_own_images_without_lines_is_an_error():
    with pytest.raises(ValueError, match="must have a header and at least one line"):
        own_images.main(parse(OwnImagesConfig, write_own_images("path,a", [])))


def test_custom_similarity_is_that_of_the_lineages():
    labels = torch.nn.functional.one_hot(torch.tensor([0, 0, 1, 3, 26]), 27)
    genus = torch.nn.functional.one_hot(torch.tensor([0, 0, 0, 1, 8]), 9)
    family = torch.nn.functional.one_hot(torch.tensor([0, 0, 0, 0, 2]), 3)
    rows = torch.cat([labels, genus, family], dim=1)
    assert custom_similarity.lineage(rows, rows)[0].tolist() == [1.0, 1.0, 0.5, 0.25, 0.0]


def test_custom_similarity_embedding_retrieves_better_than_the_features(capsys):
    custom_similarity.main()
    features, embedding = (float(number) for number in re.findall(r"(\d\.\d+)$", capsys.readouterr().out, re.MULTILINE))
    assert embedding > features + 0.2
