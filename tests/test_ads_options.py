"""The options of the application: types, ranges, and the saved options of a run that is resumed."""

import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest

from ads.config import OPTIONS_OF_LABELS, Config
from ads.locks import locked
from ads.options import flag
from ads.program import parse
from ads.saved_runs import LOCK


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
        parse([option, value, *(["--method", "paper"] if option == "--margin" else [])])


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
        (["--images", "x", "--labels", "a.json"], "--images x is not a folder"),
        (["--images", ".", "--labels", "b.csv"], r"--labels b\.csv does not exist"),
    ):
        with pytest.raises(ValueError, match=message):
            parse(arguments)


def test_options_that_do_not_belong_together_are_an_error():
    own = ["--images", ".", "--labels", "a.csv"]
    Path("a.csv").touch()
    for arguments, message in (
        (["--images", "."], "--images and --labels require each other"),
        (["--labels", "a.csv"], "--images and --labels require each other"),
        *(([flag(name), "1"], rf"{flag(name)} requires --labels\.") for name in OPTIONS_OF_LABELS),
        ([*own, "--annotations", "a.json"], "--annotations and --labels cannot be combined: choose one"),
        ([*own, "--synthetic-images", "30"], "--synthetic-images cannot be combined with --annotations or --labels"),
    ):
        with pytest.raises(ValueError, match=message):
            parse(arguments)


def save(folder, config, *, started=0, computed=True):
    """Write the `config.json` of a run that started in this second, and has computed features."""
    folder = Path(folder)
    folder.mkdir(parents=True)
    content = {"program": "ads", "started": f"2026-01-01T00:00:{started:02}", "options": asdict(config)}
    content |= {"resolved": {"features": "cache"} if computed else {}}
    (folder / "config.json").write_text(json.dumps(content, default=str))


def test_resume_uses_the_saved_options_except_those_that_can_change():
    Path("a.csv").touch()
    options = ["--lr", "1", "--lr-drops", "5,9", "--margin", "2", "--seed", "3"]
    options += ["--images", ".", "--labels", "a.csv", "--exclude-columns", "a, b", "c"]
    started = parse(["--output", "run", "--dry-run", "--method", "paper", *options])
    assert started.exclude_columns == ("a, b", "c")
    save("run", started)
    resumed = parse(["--output", "run", "--resume", "--num-workers", "0", "--exclude-columns", "a, b", "c"])
    assert asdict(resumed) == asdict(started) | {"resume": True, "num_workers": 0}
    assert type(resumed.lr) is float
    assert resumed.cache == Path("runs/feature_cache")


@pytest.mark.parametrize(
    ("option", "value", "saved"),
    [
        ("--backbone", "resnet18", "with --backbone resnet50"),
        ("--lr", "0.5", "without --lr"),
        ("--lr-drops", "5", "without --lr-drops"),
        ("--seed", "0", "with --seed 3"),
        ("--exclude-columns", "c", "without --exclude-columns"),
    ],
)
def test_resume_with_an_option_that_contradicts_the_run_is_an_error_that_names_it(option, value, saved):
    save("run", Config(seed=3))
    message = f"The run in run was started {saved}, not with {option} {value}: "
    with pytest.raises(ValueError, match=f"^{re.escape(message)}omit the option"):
        parse(["--output", "run", "--resume", option, value])


def test_resume_without_output_uses_the_latest_run_that_is_neither_finished_nor_running():
    for number, name in enumerate(("ads-8", "ads-7", "ads-6", "my_run")):
        save(f"runs/{name}", Config(seed=number), started=number)
    save("runs/ads-9", Config(seed=9), started=9, computed=False)
    Path("runs/other_program").mkdir()
    Path("runs/other_program/config.json").write_text('{"theme": "dark"}')
    Path("runs/ads-6/report.md").touch()
    with locked(Path("runs/my_run") / LOCK):
        assert parse(["--resume"]).seed == 1
    config = parse(["--resume"])
    assert (config.seed, config.output) == (3, Path("runs/my_run"))
    for name in ("ads-8", "ads-7", "my_run"):
        Path(f"runs/{name}/report.md").touch()
    message = "no run under runs to resume: 4 are finished, 0 are running, 1 have computed nothing"
    with pytest.raises(FileNotFoundError, match=message):
        parse(["--resume"])


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
        parse(["--output", "run", "--resume"])


def test_resume_with_saved_options_out_of_range_is_an_error_that_names_the_run():
    save("run", Config())
    path = Path("run/config.json")
    content = json.loads(path.read_text())
    content["options"]["epochs"] = -1
    path.write_text(json.dumps(content))
    message = r"^The run in run cannot be resumed with its config\.json: --epochs must be at least 1, got -1"
    with pytest.raises(ValueError, match=message):
        parse(["--output", "run", "--resume"])


def test_list_runs_prints_the_runs_with_state_settings_and_results(capsys):
    save("runs/ads-1", Config(seed=3, lr=0.5, lr_drops=(5, 9), dry_run=True, device="cpu"))
    Path("runs/ads-1/report.md").touch()
    measured = {"map": 0.5, "macro_f1_chosen": 0.25, "ndcg_at_10": 0.75}
    metrics = {"title": "recommended embedding", "test": {"recommended embedding": measured, "other": {"map": 0.9}}}
    Path("runs/ads-1/metrics.json").write_text(json.dumps(metrics))
    Path("a.csv").touch()
    own = Config(compare=True, images=Path(), labels=Path("a.csv"), exclude_columns=("a b", "c"))
    save("runs/ads-2", own, started=1)
    save("runs/ads-2/paper", Config(method="paper"), started=2)
    save("runs/ads-3", Config(method="semantic"), started=3, computed=False)
    Path("runs/ads-3/metrics.json").write_text("{")
    Path("runs/broken").mkdir()
    Path("runs/broken/config.json").write_text("{")
    with locked(Path("runs/ads-2") / LOCK), pytest.raises(SystemExit) as end:
        parse(["--list-runs"])
    assert end.value.code == 0
    table, _, notes = capsys.readouterr().out.partition("\n\n")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert len({len(line) for line in table.splitlines()}) == 1
    assert rows[0] == ["run", "started", "state", "images", "method", "mAP", "macro F1*", "NDCG@10", "settings"]
    settings = "--dry-run --lr 0.5 --lr-drops 5,9 --seed 3"
    excluded = "--exclude-columns 'a b' c"
    assert rows[2:] == [
        ["ads-1", "2026-01-01 00:00:00", "finished", "synthetic", "recommended", "0.500", "0.250", "0.750", settings],
        ["ads-2", "2026-01-01 00:00:01", "running", "a.csv", "all", "", "", "", excluded],
        ["paper", "2026-01-01 00:00:02", "running", "synthetic", "paper", "", "", "", ""],
        ["ads-3", "2026-01-01 00:00:03", "nothing computed", "synthetic", "semantic", "", "", "", ""],
    ]
    assert "macro F1*" in notes
