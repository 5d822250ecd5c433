"""The folder of a run: locks, clean-up after a failed start, atomic files, records of training and warnings."""

import csv
import errno
import json
import logging
import os
import re
import signal
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from ads import locks
from ads.config import Config
from ads.labelled_images import LabelledImages, save_predictions
from ads.locks import is_locked, locked
from ads.monitoring import collected_warnings, monitored_stages
from ads.run_folder import RunInterrupted, open_run_folder, save_config
from ads.saved_runs import saved_runs
from common.files import write_atomically


@pytest.fixture(autouse=True)
def in_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def files_here():
    return {path.as_posix() for path in Path().rglob("*") if path.is_file()}


def test_a_second_run_with_the_same_output_is_an_error_until_the_first_has_ended():
    config = Config(output=Path("run"))
    with open_run_folder(config):
        with (
            pytest.raises(
                BlockingIOError, match=r"^Another run is using run: wait until it has ended, or choose another --output"
            ),
            open_run_folder(config),
        ):
            pass
        assert files_here() == {"run/.lock", "run/config.json"}
    assert files_here() == {"run/config.json"}
    with open_run_folder(config) as folder:
        assert folder == Path("run")


def test_runs_that_start_in_the_same_second_have_different_folders():
    def start(_):
        with open_run_folder(Config()) as folder:
            (folder / "split.json").touch()
            return folder

    with ThreadPoolExecutor(4) as pool:
        folders = list(pool.map(start, range(8)))
    assert len(set(folders)) == 8
    assert all((folder / "config.json").exists() for folder in folders)


def fail(output, error, *written, **resolved):
    """Fail in the middle of a run that has written these files."""
    with open_run_folder(Config(output=output)) as folder:
        save_config(folder / "paper", {}, **resolved)
        for path in written:
            (folder / path).touch()
        raise error


def test_a_failed_start_removes_its_own_files_only():
    Path("run/photos").mkdir(parents=True)
    for name in ("notes.txt", "photos/config.json", "photos/split.json", "photos/a.jpg"):
        (Path("run") / name).write_text("mine")
    before = files_here()
    for output in (None, Path("new/run"), Path("run")):
        for resolved in ({}, {"weights": "random", "features": "cache"}):  # features are in the cache
            with pytest.raises(ValueError, match="bad image"):
                fail(output, ValueError("bad image"), **resolved)
    assert files_here() == before
    assert sorted(path.name for path in Path().iterdir()) == ["run"]
    assert not Path("run/paper").exists()


def test_a_run_that_fails_after_its_first_checkpoint_keeps_its_folder():
    with pytest.raises(ValueError, match="no space"):
        fail(None, ValueError("no space"), "paper/embedding_1.pt")
    (run,) = saved_runs()
    assert run.state == "unfinished"


def test_an_interrupted_run_keeps_its_folder_if_it_has_computed_features():
    with pytest.raises(RunInterrupted) as interrupted:
        fail(Path("stopped"), KeyboardInterrupt(), weights="random")
    assert interrupted.value.folder is None
    assert files_here() == set()
    with pytest.raises(RunInterrupted) as interrupted:
        fail(Path("stopped"), KeyboardInterrupt(), weights="random", features="cache")
    assert interrupted.value.folder == Path("stopped")
    assert files_here() == {"stopped/config.json", "stopped/paper/config.json"}


def test_the_next_run_removes_the_folders_of_runs_that_were_killed_before_their_first_features():
    for name, resolved in (("killed", {}), ("with_features", {"features": "cache"}), ("running", {})):
        save_config(Path("runs") / f"ads-{name}", {}, **resolved)
        (Path("runs") / f"ads-{name}" / ".lock").touch()
    save_config(Path("runs/my_run"), {})  # named by its user
    Path("runs/ads-starting").mkdir()
    save_config(Path("runs/ads-annotated"), {})
    Path("runs/ads-annotated/notes.txt").touch()
    with locked(Path("runs/ads-running/.lock")), open_run_folder(Config()) as folder:
        pass
    left = {path.name for path in Path("runs").iterdir()}
    assert left == {"ads-with_features", "ads-running", "my_run", "ads-starting", "ads-annotated", folder.name}


def test_the_start_of_a_run_is_kept_when_it_is_resumed():
    with open_run_folder(Config(output=Path("run"))):
        pass
    path = Path("run/config.json")
    path.write_text(path.read_text().replace(json.loads(path.read_text())["started"], "2020-01-01T00:00:00"))
    with open_run_folder(Config(output=Path("run"), resume=True)) as folder:
        assert json.loads((folder / "config.json").read_text())["started"] == "2020-01-01T00:00:00"


def test_a_config_of_another_program_is_not_overwritten():
    Path("run").mkdir()
    Path("run/config.json").write_text('{"theme": "dark"}')
    with (
        pytest.raises(
            FileExistsError, match=r"run/config\.json is not a configuration .* not overwritten: choose another"
        ),
        open_run_folder(Config(output=Path("run"))),
    ):
        pass
    assert Path("run/config.json").read_text() == '{"theme": "dark"}'


def test_a_lock_excludes_others_until_its_block_ends(monkeypatch):
    lock = Path("lock")
    assert not is_locked(lock)
    with locked(lock):
        assert is_locked(lock)
        with pytest.raises(BlockingIOError, match="lock is locked by another process"), locked(lock):
            pass
    assert not lock.exists()
    lock.touch()  # of a process that was killed
    assert not is_locked(lock)
    with locked(lock):
        assert is_locked(lock)


HOLDS_A_LOCK_AND_DIES = """
import os, time
from pathlib import Path
from ads.locks import locked

with locked(Path("lock")):
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(theirs, b"started")
        time.sleep(60)
    os.read(ours, 7)
    print(child, flush=True)
    os._exit(9)
"""


def test_a_lock_ends_with_its_process_while_a_child_process_is_still_running():
    environment = {**os.environ, "PYTHONPATH": str(Path(locks.__file__).parents[1])}
    command = [sys.executable, "-c", HOLDS_A_LOCK_AND_DIES]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        child = int(process.stdout.readline())
        try:
            assert process.wait(timeout=60) == 9
            assert Path("lock").exists()
            assert not is_locked(Path("lock"))
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_warning_is_logged_where_locks_are_not_supported(monkeypatch, caplog):
    monkeypatch.setattr(locks, "fcntl", None)
    with locked(Path("lock")):
        assert not is_locked(Path("lock"))
    assert "File locks are not supported here: do not start a second run" in caplog.text


def test_a_file_that_cannot_be_written_is_named_and_keeps_its_content(monkeypatch):
    write_atomically(Path("a/report.md"), "former")

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=r"^\[Errno 28\] a/report\.md could not be written: No space left on device\.$"):
        write_atomically(Path("a/report.md"), "new")
    assert files_here() == {"a/report.md"}
    assert Path("a/report.md").read_text() == "former"


def test_report_and_predictions_contain_any_label_and_file_name_whatever_the_locale(monkeypatch):
    names = ["café", "海, sea"]
    path = os.fsdecode(b"caf\xe9.jpg")  # not UTF-8
    labels = torch.tensor([[1, 1]], dtype=torch.uint8)
    images = LabelledImages(Path(), [path], labels, names)
    monkeypatch.setattr("io.text_encoding", lambda encoding, *_: encoding or "ascii")
    write_atomically(Path("report.md"), f"{names[1]} {path}")
    assert Path("report.md").read_bytes() == "海, sea caf".encode() + b"\xe9.jpg"
    save_predictions(
        Path("predictions.csv"),
        images,
        {"test": torch.tensor([0])},
        torch.tensor([[0.9, 0.1]]),
        torch.tensor([0.5, 0.5]),
    )
    assert b"caf\xe9.jpg,test" in Path("predictions.csv").read_bytes()
    with Path("predictions.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        (row,) = csv.DictReader(file)
    assert row["path"] == path
    assert (row["labels"], row["predicted"]) == ("|".join(names), names[0])
    assert row["probability_海, sea"] == "0.100000"


def test_monitored_stages_show_one_progress_and_keep_the_records_and_seconds_of_each_stage(capsys):
    seconds, histories = {}, {}
    records = [{"epoch": float(epoch), "loss": 1 / epoch} for epoch in (1, 2)]
    with monitored_stages(4, Path(), seconds, histories) as on_epoch:
        for stage in ("embedding_1", "classifier"):
            for record in records:
                on_epoch(stage, record)
    assert histories == {"embedding_1": records, "classifier": records}
    assert list(seconds) == ["embedding_1", "classifier"]
    assert re.fullmatch(r"training: 4 epochs in \d+\.\d s\n", capsys.readouterr().err)


@pytest.mark.filterwarnings("default")
def test_warnings_and_log_messages_are_collected_once_in_each_run(caplog):
    def step():
        for _ in range(2):
            warnings.warn("the loss rose", UserWarning, stacklevel=1)
            logging.getLogger("mlmetric.data").warning("%s is torn", "part-1.npy")
        logging.getLogger("mlmetric.data").info("all is well")

    for _ in range(2):
        with collected_warnings() as texts:
            step()
        assert texts == ["the loss rose", "part-1.npy is torn"]
    assert "the loss rose" in caplog.text
