"""The examples as a user runs them: what they leave behind, what they say of bad input, and what a kill costs."""

import contextlib
import csv
import errno
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from dataclasses import fields
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import torch
from PIL import Image

import ad_sentiment
import custom_similarity
import own_images
from ads.config import AdsConfig, Config, OwnImagesConfig
from ads.methods import METHODS
from ads.options import parse
from ads.undersampling import UNDERSAMPLERS, undersample
from mlmetric import under_sampling
from mlmetric.data import BadImagesError, read_image
from mlmetric.estimators import RECOMMENDED_HEAD
from mlmetric.heads import ClassifierHead, EmbeddingEnsemble, FrozenBackbone, WeightsUnavailableError

EXAMPLES = Path(ad_sentiment.__file__).parent
QUICK = ["--backbone", "squeezenet1_0", "--weights", "none", "--num-workers", "0"]
FIGURES = {
    "ap_by_support.png",
    "bce.png",
    "cooccurrence.png",
    "embedding.png",
    "f1.png",
    "label_counts.png",
    "map.png",
    "retrieval.png",
    "embedding_loss.png",
}
MEMBERS = {f"embedding_{number}.pt" for number in range(1, 5)}
CHECKPOINTS = {
    "recommended": {*MEMBERS, "classifier.pt"},
    "paper": {"embedding.pt", "classifier.pt"},
    "label-graph": {"label_graph.pt"},
    "semantic": {"semantic.pt"},
    "linear-probe": set(),
}
FILES = {
    "config.json",
    "figures",
    "linear_probe.pt",
    "metrics.json",
    "predictions.csv",
    "report.md",
    "split.json",
}


@pytest.fixture(autouse=True)
def in_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def without_figures(monkeypatch):
    """Draw none: they take most of the time of a dry run."""
    monkeypatch.setattr("ads.figures.draw", lambda figures, folder: {})


def run_ads(*arguments):
    ad_sentiment.main(parse(AdsConfig, [*QUICK, *arguments]))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One dry run for the tests that look at what it leaves behind, or go on from there."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
        patch.chdir(folder)
        run_ads("--dry-run", "--output", "run")
    (folder / "printed.txt").write_text(printed.getvalue())
    return folder


@pytest.fixture
def finished_run(finished):
    """A copy of the finished run, as `run`, of its posters and of its cache, in the folder of the test."""
    shutil.copytree(finished, ".", dirs_exist_ok=True)
    return Path("run")


def test_ad_sentiment_leaves_behind_what_it_promises(finished_run):
    folder = finished_run
    assert {path.name for path in folder.iterdir()} == FILES | CHECKPOINTS["recommended"]
    assert {path.name for path in (folder / "figures").iterdir()} == FIGURES
    for path in (folder / "figures").iterdir():
        with Image.open(path) as figure:
            assert figure.width > 500

    printed = Path("printed.txt").read_text()
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


def test_ad_sentiment_checkpoints_give_the_predictions_by_the_lines_of_the_readme(finished_run):
    members = [RECOMMENDED_HEAD(512) for _ in range(4)]
    for number, member in enumerate(members, start=1):
        member.load_state_dict(torch.load(f"run/embedding_{number}.pt", weights_only=True)["module"])
    embedding, classifier = EmbeddingEnsemble(members), ClassifierHead(4 * 256, num_labels=30)
    classifier.load_state_dict(torch.load("run/classifier.pt", weights_only=True)["module"])
    torch.manual_seed(0)  # that of the run: its random weights
    backbone = FrozenBackbone("squeezenet1_0", weights=None)
    (root,) = Path("runs").glob("synthetic_ads_*")
    test_labels = json.loads(Path("run/metrics.json").read_text())["test_labels"]
    thresholds = {name: row["threshold"] for name, row in test_labels.items()}
    with Path("run/predictions.csv").open(newline="") as file:
        for row in list(csv.DictReader(file))[:5]:
            image = backbone.transform(read_image(root / row["path"]))[None]
            probabilities = classifier.probabilities(classifier.eval()(embedding.eval()(backbone(image))))[0]
            written = [float(row[f"probability_{name}"]) for name in thresholds]
            torch.testing.assert_close(probabilities, torch.tensor(written), atol=2e-4, rtol=1e-3)
            predicted = set(row["predicted"].split("|"))
            for (name, threshold), probability in zip(thresholds.items(), written, strict=True):
                if abs(probability - threshold) > 1e-5:  # six digits are written
                    assert (name in predicted) == (probability > threshold)


@pytest.mark.filterwarnings("ignore:Training diverges")  # at the paper's learning rate it does
def test_ad_sentiment_runs_the_four_experiments_of_the_paper(capsys):
    run_ads("--dry-run", "--experiments", "paper", "--output", "runs/paper")
    for number in range(1, 5):
        folder = Path(f"runs/paper/paper_run_{number}")
        assert {path.name for path in folder.iterdir()} == FILES | CHECKPOINTS["paper"]
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
    assert "as the paper quotes it" not in report  # its numbers are of other images
    assert capsys.readouterr().out.count("paper_run_3: ") == 1


@pytest.mark.filterwarnings("ignore:Training diverges")  # at the paper's learning rate it does
def test_ad_sentiment_compares_every_method_on_one_cache(capsys):
    run_ads("--dry-run", "--compare", "--output", "run")
    for method, checkpoints in CHECKPOINTS.items():
        folder = Path("run") / method
        assert {path.name for path in folder.iterdir()} == FILES | checkpoints
        figures = {path.name for path in (folder / "figures").iterdir()}
        assert figures == (FIGURES if "embedding" in str(checkpoints) else FIGURES - {"embedding_loss.png"})
        assert set(re.findall(r"figures/(\w+\.png)", (folder / "report.md").read_text())) == figures
    assert len(list(Path("runs/feature_cache").iterdir())) == 1
    report, printed = Path("run/report.md").read_text(), capsys.readouterr().out
    for method in METHODS.values():
        assert f"| {method.title} " in report
        assert f"| {method.title} " in printed
    with Image.open("run/comparison.png") as figure:
        assert figure.width > 500


@pytest.mark.usefixtures("without_figures")
def test_ad_sentiment_takes_word_vectors_and_each_setting_of_a_method():
    names = ["Active", "Alarmed", "Sad"]
    Path("words.txt").write_text("".join(f"{name.lower()} {i} 1 0\n" for i, name in enumerate(names, start=1)))
    options = ["--method", "semantic", "--word-vectors", "words.txt", "--lr", "0.01", "--activation", "softmax"]
    run_ads("--dry-run", "--output", "run", *options)
    state = torch.load("run/semantic.pt", weights_only=True)["module"]
    assert state["label_vectors"].shape == (30, 3)
    assert 1 <= (state["label_vectors"] != 0).any(1).sum() <= 3
    settings = json.loads(Path("run/metrics.json").read_text())["settings"]
    assert (settings["lr"], settings["batch_size"], settings["activation"]) == (0.01, 16, "softmax")


@pytest.mark.parametrize(
    "options",
    [["--undersampler", "none", "--soft-labels"], ["--undersampler", "tomek"], ["--undersampler", "remedial"]],
)
@pytest.mark.filterwarnings("ignore:MultiLabelTomekLinks")
@pytest.mark.usefixtures("without_figures")
def test_ad_sentiment_takes_soft_labels_and_other_undersamplers(options):
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


def test_every_undersampler_of_the_library_can_be_chosen():
    choices = get_args(get_type_hints(Config)["undersampler"])
    assert set(choices) == {"none", *UNDERSAMPLERS}
    samplers = {name for name in under_sampling.__all__ if not name.startswith("Base")}
    assert {type(sampler).__name__ for sampler in UNDERSAMPLERS.values()} == samplers


@pytest.mark.parametrize("name", ["none", *UNDERSAMPLERS])
@pytest.mark.filterwarnings(r"ignore:\w+ (removed|raised) :UserWarning")
def test_each_undersampler_gives_rows_and_their_labels_twice_alike(name):
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


def real_set(folder, num_images=40):
    """A set in the form of the real one, with files that are no part of the synthetic maker's."""
    (folder / "0").mkdir(parents=True)
    annotations = {}
    for i in range(num_images):
        Image.new("RGB", (40, 40), (i * 6, 255 - i * 6, 128)).save(folder / "0" / f"{i}.jpg")
        annotations[f"0/{i}.jpg"] = [[str(1 + i % 3)], [str(1 + i % 3), str(1 + i % 2)]]
    (folder / "Sentiments.json").write_text(json.dumps(annotations))
    lines = [f'{i}. "{name}\xa0(so)" (ABBREVIATION: "{name}")' for i, name in enumerate("abc", start=1)]
    (folder / "Sentiments_List.txt").write_text("\n".join(lines), encoding="latin-1")
    return ["--annotations", f"{folder}/Sentiments.json", "--image-root", str(folder), "--epochs", "2"]


@pytest.mark.usefixtures("without_figures")
def test_ad_sentiment_on_a_set_in_the_form_of_the_real_one(capsys):
    run_ads(*real_set(Path("set")), "--output", "run")
    printed = capsys.readouterr().out
    assert "synthetic" not in printed
    assert json.loads(Path("run/metrics.json").read_text())["data"]["labels"] == 3


@pytest.mark.usefixtures("without_figures")
def test_ad_sentiment_with_bad_images_stops_and_loses_nothing_or_skips_them(capsys):
    arguments = real_set(Path("set"))
    Path("set/0/3.jpg").unlink()
    Path("set/0/7.jpg").write_bytes(b"no image")
    with pytest.raises(BadImagesError, match=r"2 of 40 images cannot be read; the first: set/0/3\.jpg does not exist"):
        run_ads(*arguments, "--output", "run")
    (part,) = Path("runs/feature_cache").glob("*/part-*.npy")
    cached = part.read_bytes()
    run_ads(*arguments, "--output", "run", "--resume", "--on-bad-image", "skip")
    assert part.read_bytes() == cached
    metrics = json.loads(Path("run/metrics.json").read_text())
    assert metrics["data"]["images"] == 38
    assert ["3.jpg" in metrics["bad_images"][0], "7.jpg" in metrics["bad_images"][1]] == [True, True]
    assert "2 images could not be read and were left out" in capsys.readouterr().out


def test_ad_sentiment_on_real_images_without_weights_is_an_error_that_names_the_choices(monkeypatch):
    weights = "torchvision.models.SqueezeNet1_0_Weights.get_state_dict"

    def no_network(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(weights, no_network)
    arguments = real_set(Path("set"))
    with pytest.raises(WeightsUnavailableError, match=r"could not be downloaded .*--weights none"):
        run_ads(*arguments, "--weights", "DEFAULT", "--output", "run")


@pytest.mark.usefixtures("without_figures")
def test_ad_sentiment_on_synthetic_images_goes_on_with_random_weights_and_says_so(monkeypatch, caplog, capsys):
    def no_network(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("torchvision.models.SqueezeNet1_0_Weights.get_state_dict", no_network)
    run_ads("--dry-run", "--weights", "DEFAULT", "--output", "run")
    assert "goes on with RANDOM weights" in caplog.text
    assert "random weights" in capsys.readouterr().out
    assert "random weights" in Path("run/report.md").read_text()


def test_a_run_is_not_overwritten_and_not_resumed_with_other_options(finished_run):
    before = (finished_run / "metrics.json").read_bytes()
    with pytest.raises(FileExistsError, match="run holds a run already: add --resume"):
        run_ads("--dry-run", "--output", "run")
    for option, value, saved in (("lr", "0.5", "None"), ("undersampler", "tomek", "cap"), ("seed", "1", "0")):
        with pytest.raises(ValueError, match=f"run in run was started with --{option} {saved}, not {value}: leave"):
            run_ads("--output", "run", "--resume", f"--{option}", value)
    assert (finished_run / "metrics.json").read_bytes() == before


@pytest.mark.usefixtures("without_figures")
def test_resume_alone_takes_the_latest_unfinished_run_and_its_options(finished_run, capsys):
    run = Path("runs/ad_sentiment-20260101-000000")
    shutil.copytree(finished_run, run)
    with pytest.raises(FileNotFoundError, match="no run under runs to resume: 1 are finished, 0 are running"):
        parse(AdsConfig, ["--resume"])
    expected = json.loads((run / "metrics.json").read_text())
    for file in ("report.md", "metrics.json", "classifier.pt"):
        (run / file).unlink()
    ad_sentiment.main(parse(AdsConfig, ["--resume"]))
    assert capsys.readouterr().out.startswith(f"Resuming {run}\n")
    metrics = json.loads((run / "metrics.json").read_text())
    for part in ("test", "history", "settings", "data"):
        assert metrics[part] == expected[part]
    options = json.loads((run / "config.json").read_text())["options"]
    assert (options["backbone"], options["dry_run"], options["output"]) == ("squeezenet1_0", True, str(run))


def test_a_start_that_failed_leaves_nothing_for_resume_to_adopt():
    arguments = real_set(Path("set"))
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
        (["--margin", "2"], "--margin is for --method paper, got --method recommended"),
        (["--method", "semantic", "--positive-order", "random"], "--positive-order is for --method paper, got"),
        (["--experiments", "paper", "--margin", "3"], "--experiments paper has settings of its own for --margin"),
        (["--word-vectors", "a.txt"], "--word-vectors is for --method label-graph or semantic, got"),
        (["--method", "semantic", "--word-vectors", "a.txt"], r"--word-vectors a\.txt is not a file"),
        (["--soft-labels"], "--soft-labels needs --undersampler none"),
        (["--annotations", "a.json"], "--annotations needs --image-root"),
        (["--compare", "--experiments", "paper"], "are two comparisons"),
        (["--min-votes", "6"], "No image has a label with 6 votes"),
    ],
)
def test_ad_sentiment_refuses_options_before_any_work(options, message):
    with pytest.raises(ValueError, match=message):
        run_ads("--dry-run", *options)
    assert not Path("runs/feature_cache").exists()


def test_what_fails_or_warns_on_the_way_is_named_in_the_report_and_does_not_end_the_run(finished_run, monkeypatch):
    def fails(*_, **__):
        raise ValueError("no figure today")

    def warns(images):
        warnings.warn("the loss rose from 1 to 9", UserWarning, stacklevel=2)
        return 0.0

    with monkeypatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("default")
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
def test_a_full_disk_names_the_file_and_leaves_no_temporary_one(finished_run, monkeypatch):
    sync = os.fsync

    def full(handle):
        if Path(f"/proc/self/fd/{handle}").readlink().name.startswith("metrics.json"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=r"run/metrics\.json could not be written: No space left on device\.$"):
        run_ads("--dry-run", "--output", "run", "--resume")
    assert {path.name for path in finished_run.iterdir()} == FILES | CHECKPOINTS["recommended"]


def start(*arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(EXAMPLES / "ad_sentiment.py"), *arguments]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def stop_when(condition, process, signal_number, seconds=120):
    """Send a signal as soon as a condition holds, and return the output."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, f"ended before it could be stopped:\n{process.stdout.read()}"
        assert time.monotonic() < end, "did not come so far in time"
        time.sleep(0.002)
    os.killpg(process.pid, signal_number)
    return process.communicate(timeout=60)[0]


def test_stopped_in_each_step_and_resumed_ends_as_one_never_stopped():
    num_epochs = 60
    options = [*QUICK, "--synthetic-images", "60", "--epochs", str(num_epochs), "--image-batch-size", "2"]
    straight, stopped = Path("straight"), Path("stopped")
    never_stopped = start(*options, "--output", str(straight), "--cache", "cache_of_straight")
    output, _ = never_stopped.communicate(timeout=120)
    assert never_stopped.returncode == 0, output
    assert "features: 60 images in " in output  # lines, where there is no terminal for a bar

    def parts():
        return list(Path("cache_of_stopped").glob("*/part-*.npy"))

    stop_when(parts, start(*options, "--output", str(stopped), "--cache", "cache_of_stopped"), signal.SIGKILL)
    assert 0 < len(parts()) < 4, "the kill did not come in the middle of feature extraction"
    resume = ["--resume", "--output", str(stopped)]
    for checkpoint, signal_number in (
        ("linear_probe.pt", signal.SIGKILL),
        ("embedding_3.pt", signal.SIGINT),
        ("classifier.pt", signal.SIGKILL),
    ):
        process = start(*resume)
        output = stop_when((stopped / checkpoint).exists, process, signal_number)
        epochs = len(torch.load(stopped / checkpoint, weights_only=True)["history"])
        assert 0 < epochs < num_epochs, "the signal did not come in the middle of a stage"
        if signal_number == signal.SIGINT:  # what Ctrl-C sends
            assert process.returncode == 130
            assert "Traceback" not in output
            command = f"python {EXAMPLES / 'ad_sentiment.py'} {' '.join(resume)}"
            assert output.endswith(f"\ninterrupted; continue with: {command}\n")
    last = start(*resume)
    output, _ = last.communicate(timeout=120)
    assert last.returncode == 0, output

    expected, metrics = (json.loads((folder / "metrics.json").read_text()) for folder in (straight, stopped))
    for part in ("validation", "test", "history", "test_labels", "data"):
        assert metrics[part] == expected[part]
    assert (stopped / "predictions.csv").read_text() == (straight / "predictions.csv").read_text()


def torchrun(script, *arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", str(script), *QUICK, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(EXAMPLES)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


FAILS_ON_THE_SECOND_RANK = """
import ad_sentiment
from ads import methods
from ads.options import parse
from ads.config import AdsConfig
from ads.processes import joined_processes
from mlmetric.distributed import rank
from mlmetric.training import fit_classifier

def fit_or_fail(head, inputs, *arguments, **options):
    if rank() == 1 and inputs.shape[1] == 256:  # after the linear probe and the embedding
        raise SystemExit("error: no space left on rank 1")
    return fit_classifier(head, inputs, *arguments, **options)

methods.fit_classifier = fit_or_fail
with joined_processes():
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
    """As many threads as the ranks have: another number adds in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.filterwarnings("ignore:Training diverges")  # at the paper's learning rate
@pytest.mark.usefixtures("one_thread")
def test_torchrun_in_which_a_rank_fails_ends_and_resumed_gives_the_numbers_of_one_process():
    options = ["--dry-run", "--image-batch-size", "4", "--method", "paper"]  # no dropout, which differs between ranks
    run_ads(*options, "--output", "one", "--cache", "cache_of_one")

    options += ["--output", "two", "--cache", "cache_of_two"]
    Path("fails.py").write_text(FAILS_ON_THE_SECOND_RANK)
    failed = torchrun("fails.py", *options)
    assert failed.returncode != 0
    assert "error: no space left on rank 1" in failed.stderr
    assert Path("two/embedding.pt").exists()
    assert not Path("two/classifier.pt").exists()

    resumed = torchrun(EXAMPLES / "ad_sentiment.py", *options, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stdout.count("Report, figures and checkpoints: two") == 1
    assert {path.name for path in Path("two").iterdir()} == FILES | CHECKPOINTS["paper"]
    expected, metrics = (json.loads(Path(folder, "metrics.json").read_text()) for folder in ("one", "two"))
    for part in ("validation", "test", "history", "test_labels", "data"):
        assert_close(metrics[part], expected[part])
    parts = [list(Path(cache).glob("*/*")) for cache in ("cache_of_one", "cache_of_two")]
    assert [path.name for path in parts[0]] == [path.name for path in parts[1]]  # named by their content


def test_an_error_is_one_sentence_and_no_traceback():
    process = start("--annotations", "nowhere.json", "--image-root", ".")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert output == "error: --annotations nowhere.json is not a file.\n"


def test_what_is_wrong_with_the_options_is_said_without_the_imports_that_take_seconds():
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
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES)}
    output = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60).stdout
    assert output == "error: --annotations nowhere.json is not a file.\n[]\n"


def test_help_explains_every_option(capsys):
    for config in (AdsConfig, OwnImagesConfig):
        with pytest.raises(SystemExit):
            parse(config, ["--help"])
        help_text = capsys.readouterr().out
        for option in fields(config):
            assert f"--{option.name.replace('_', '-')}" in help_text
            assert len(option.metadata["help"]) > 10


def own_folder(header, rows, num_images=30):
    Path("photos").mkdir()
    for i in range(num_images):
        Image.new("RGB", (40, 40), (i * 8, 255 - i * 8, 128)).save(f"photos/{i}.jpg")
    Path("labels.csv").write_text("\n".join([header, *rows]) + "\n")
    return ["--images", "photos", "--labels", "labels.csv", "--epochs", "2", "--output", "run", *QUICK]


@pytest.mark.parametrize("form", ["a column each", "one column"])
@pytest.mark.usefixtures("without_figures")
def test_own_images_takes_both_forms_of_csv(form, capsys):
    sets = [{"beach"} if i % 3 == 0 else {"sunset"} if i % 3 == 1 else {"beach", "sunset"} for i in range(30)]
    if form == "a column each":
        rows = [f"{i}.jpg,{int('beach' in s)},{int('sunset' in s)}" for i, s in enumerate(sets)]
        arguments = own_folder("path,beach,sunset", rows)
    else:
        rows = [f'"{", ".join(sorted(s))}",{i}.jpg' for i, s in enumerate(sets)]
        arguments = own_folder("tags,file", rows)
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
        ("path,a", "../../etc/passwd,1", [], "line 2: the path '../../etc/passwd' is no path in photos"),
        ("path", "1.jpg", [], "labels.csv names no label"),
    ],
)
def test_own_images_names_what_does_not_fit(header, row, options, message):
    arguments = own_folder(header, [row])
    with pytest.raises(ValueError, match=re.escape(message)):
        own_images.main(parse(OwnImagesConfig, [*arguments, *options]))


@pytest.mark.usefixtures("without_figures")
def test_own_images_of_too_few_images_or_another_encoding_is_an_error():
    arguments = own_folder("path,$a_$", [f"{i}.jpg,{i % 2}" for i in range(6)], num_images=6)
    with pytest.raises(ValueError, match="6 images are too few to train, validate and test: give 20 or more"):
        own_images.main(parse(OwnImagesConfig, arguments))
    Path("labels.csv").write_bytes("path,caf\xe9\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"labels\.csv must be a CSV file in UTF-8, got: .*0xe9"):
        own_images.main(parse(OwnImagesConfig, arguments))


@pytest.mark.usefixtures("without_figures")
def test_own_images_takes_any_name_for_a_label_and_counts_lines_as_an_editor_does():
    arguments = own_folder("path,$a_$", [f"{i}.jpg,{i % 2}" for i in range(30)])
    own_images.main(parse(OwnImagesConfig, arguments))
    Path("labels.csv").write_text("tags,path\n\na,1.jpg\na\n")
    options = ["--label-column", "tags", "--path-column", "path"]
    with pytest.raises(ValueError, match=r"labels\.csv, line 4 must have 2 fields .*, got 1"):
        own_images.main(parse(OwnImagesConfig, [*arguments, *options]))


def test_own_images_without_lines_is_an_error():
    with pytest.raises(ValueError, match="must have a header and at least one line"):
        own_images.main(parse(OwnImagesConfig, own_folder("path,a", [])))


def test_custom_similarity_orders_by_lineage():
    labels = torch.nn.functional.one_hot(torch.tensor([0, 0, 1, 3, 26]), 27)
    genus = torch.nn.functional.one_hot(torch.tensor([0, 0, 0, 1, 8]), 9)
    family = torch.nn.functional.one_hot(torch.tensor([0, 0, 0, 0, 2]), 3)
    rows = torch.cat([labels, genus, family], dim=1)
    assert custom_similarity.lineage(rows, rows)[0].tolist() == [1.0, 1.0, 0.5, 0.25, 0.0]


def test_custom_similarity_embedding_retrieves_better_than_the_features(capsys):
    custom_similarity.main()
    features, embedding = (float(number) for number in re.findall(r"(\d\.\d+)$", capsys.readouterr().out, re.MULTILINE))
    assert embedding > features + 0.2
