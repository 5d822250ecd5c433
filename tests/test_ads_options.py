"""The options of the examples: types, ranges, and the saved options of a run that is resumed."""

import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest

from ads.config import AdsConfig, OwnImagesConfig
from ads.files import locked
from ads.options import LOCK, parse


@pytest.fixture(autouse=True)
def in_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--epochs", "0", "at least 1, got 0"),
        ("--batch-size", "1", "at least 2, got 1"),
        ("--epochs", "99999999999", "at least 1 and at most 2147483647, got 99999999999"),
        ("--lr", "0", "above 0, got 0.0"),
        ("--lr", "inf", "above 0 and finite, got inf"),
        ("--lr", "nan", "above 0 and finite, got nan"),
        ("--lr-drops", "5,0", "at least 1, got 0"),
        ("--margin", "-1", "at least 0, got -1.0"),
        ("--margin", "nan", "at least 0 and finite, got nan"),
        ("--image-batch-size", "0", "at least 1, got 0"),
        ("--num-workers", "-1", "at least 0, got -1"),
        ("--seed", "-1", "at least 0 and at most 4294967295, got -1"),
        ("--seed", "4294967296", "at least 0 and at most 4294967295, got 4294967296"),
        ("--min-votes", "0", "at least 1, got 0"),
        ("--synthetic-images", "29", "at least 30, got 29"),
        ("--device", "meta", "auto, cpu, cuda, cuda:N or mps, got meta"),
        ("--device", "cuda:99", None),
    ],
)
def test_a_number_out_of_range_or_an_unavailable_device_is_an_error_that_names_the_option(option, value, expected):
    message = f"{option} must be {expected}." if expected else f"{option} {value} is not available: torch finds"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        parse(AdsConfig, [option, value, *(["--method", "paper"] if option == "--margin" else [])])


def test_a_missing_file_or_folder_is_an_error_that_names_the_option():
    Path("a.json").write_text("{}")
    for arguments, message in (
        (["--annotations", "b.json", "--image-root", "."], r"--annotations b\.json is not a file"),
        (["--annotations", "a.json", "--image-root", "a.json"], r"--label-list Sentiments_List\.txt is not a file"),
        (["--annotations", "a.json", "--image-root", "x", "--label-list", "a.json"], "--image-root x is not a folder"),
        (["--image-root", "."], "--label-list and --image-root require --annotations"),
        (["--weights", "w.pth"], r"--weights w\.pth is not a file"),
        (["--output", "a.json"], r"--output a\.json is not a folder"),
        (["--cache", "a.json"], r"--cache a\.json is not a folder"),
    ):
        with pytest.raises(ValueError, match=message):
            parse(AdsConfig, arguments)
    for arguments, message in (
        (["--images", "x"], "--images x is not a folder"),
        (["--images", "."], r"--labels labels\.csv is not a file"),
        (
            ["--images", ".", "--labels", "a.json", "--separator", ""],
            "--separator must have at least one character, got ''",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            parse(OwnImagesConfig, arguments)


def save(folder, config):
    """Write the `config.json` of a run."""
    folder = Path(folder)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"options": asdict(config)}, default=str))


def test_resume_uses_the_saved_options_except_those_that_can_change():
    numbers = ["--lr", "1", "--lr-drops", "5,9", "--margin", "2", "--seed", "3"]
    started = parse(AdsConfig, ["--output", "run", "--dry-run", "--method", "paper", *numbers])
    save("run", started)
    resumed = parse(AdsConfig, ["--output", "run", "--resume", "--num-workers", "0", "--seed", "3"])
    assert asdict(resumed) == asdict(started) | {"resume": True, "num_workers": 0}
    assert type(resumed.lr) is float
    assert resumed.cache == Path("runs/feature_cache")


@pytest.mark.parametrize(
    ("option", "value", "saved"),
    [("--backbone", "resnet18", "resnet50"), ("--lr", "0.5", "None"), ("--lr-drops", "5", "()"), ("--seed", "0", "3")],
)
def test_resume_with_an_option_that_contradicts_the_run_is_an_error_that_names_it(option, value, saved):
    save("run", AdsConfig(seed=3))
    message = f"The run in run was started with {option} {saved}, not "
    with pytest.raises(ValueError, match=f"^{re.escape(message)}.* omit the option"):
        parse(AdsConfig, ["--output", "run", "--resume", option, value])


def test_resume_without_output_uses_the_latest_run_that_is_neither_finished_nor_running():
    for number in range(4):
        save(f"runs/ad_sentiment-{number}", AdsConfig(seed=number))
    save("runs/own_images-9", AdsConfig())
    Path("runs/ad_sentiment-2/report.md").touch()
    with locked(Path("runs/ad_sentiment-3") / LOCK):
        assert parse(AdsConfig, ["--resume"]).seed == 1
    config = parse(AdsConfig, ["--resume"])
    assert (config.seed, config.output) == (3, Path("runs/ad_sentiment-3"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "JSONDecodeError"),
        ("[" * 100_000, "RecursionError"),
        ("[]", "TypeError"),
        ('{"options": []}', "AttributeError"),
        ('{"options": {"speed": 1}}', "there is no option --speed"),
        ('{"options": {"example": 1}}', "there is no option --example"),
        ('{"options": {"seed": "x"}}', "--seed cannot be 'x'"),
        ('{"options": {"seed": true}}', "--seed cannot be True"),
        ('{"options": {"seed": null}}', "--seed cannot be None"),
        ('{"options": {"method": "best"}}', "--method cannot be 'best'"),
        ('{"options": {"method": ["paper"]}}', "--method cannot be ['paper']"),
        ('{"options": {"lr_drops": [1.5]}}', "--lr-drops cannot be [1.5]"),
    ],
)
def test_resume_with_an_invalid_config_is_an_error_that_names_the_file(text, reason):
    Path("run").mkdir()
    Path("run/config.json").write_text(text)
    with pytest.raises(ValueError, match=rf"^run/config\.json is not a configuration of .*{re.escape(reason)}"):
        parse(AdsConfig, ["--output", "run", "--resume"])


def test_resume_with_saved_options_out_of_range_is_an_error_that_names_the_run():
    save("run", AdsConfig())
    path = Path("run/config.json")
    content = json.loads(path.read_text())
    content["options"]["epochs"] = -1
    path.write_text(json.dumps(content))
    message = r"^The run in run cannot be resumed with its config\.json: --epochs must be at least 1, got -1"
    with pytest.raises(ValueError, match=message):
        parse(AdsConfig, ["--output", "run", "--resume"])
