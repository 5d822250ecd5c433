"""The folder of a run: locks, clean-up after a failed start, atomic files, progress bars and warnings."""

import csv
import errno
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

from ads import files, monitoring
from ads.config import AdsConfig
from ads.files import is_locked, locked, write_atomically
from ads.labelled_images import LabelledImages, save_predictions
from ads.monitoring import collected_warnings, monitored_stages, progress_bar, set_progress
from ads.run_folder import RunInterrupted, open_run_folder, save_config


@pytest.fixture(autouse=True)
def in_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def files_here():
    return {path.as_posix() for path in Path().rglob("*") if path.is_file()}


def test_a_second_run_with_the_same_output_is_an_error_until_the_first_has_ended():
    config = AdsConfig(output=Path("run"))
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
        with open_run_folder(AdsConfig()) as folder:
            return folder

    with ThreadPoolExecutor(4) as pool:
        folders = list(pool.map(start, range(8)))
    assert len(set(folders)) == 8
    assert all((folder / "config.json").exists() for folder in folders)


def test_a_failed_start_removes_its_own_files_only():
    Path("run/photos").mkdir(parents=True)
    for name in ("notes.txt", "photos/config.json", "photos/split.json", "photos/a.jpg"):
        (Path("run") / name).write_text("mine")
    before = files_here()

    def fail(output, error, **resolved):
        with open_run_folder(AdsConfig(output=output)) as folder:
            save_config(folder / "paper", {}, **resolved)
            raise error

    for output in (None, Path("new/run"), Path("run")):
        with pytest.raises(ValueError, match="no weights"):
            fail(output, ValueError("no weights"))
    assert files_here() == before
    assert not list(Path("runs").iterdir())
    assert not Path("run/paper").exists()
    with pytest.raises(ValueError, match="bad image"):
        fail(Path("later"), ValueError("bad image"), weights="random")
    with pytest.raises(RunInterrupted) as interrupted:
        fail(Path("stopped"), KeyboardInterrupt())
    assert interrupted.value.folder == Path("stopped")
    assert {"later/config.json", "stopped/config.json"} <= files_here()


def test_a_config_of_another_program_is_not_overwritten():
    Path("run").mkdir()
    Path("run/config.json").write_text('{"theme": "dark"}')
    with (
        pytest.raises(
            FileExistsError, match=r"run/config\.json is not a configuration .* not overwritten: choose another"
        ),
        open_run_folder(AdsConfig(output=Path("run"))),
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
from ads.files import locked

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
    environment = {**os.environ, "PYTHONPATH": str(Path(files.__file__).parents[1])}
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
    monkeypatch.setattr(files, "fcntl", None)
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
    images = LabelledImages("", Path(), [path], labels, labels, names)
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


def test_a_progress_bar_outside_a_terminal_prints_a_line_every_15_seconds(capsys, monkeypatch):
    seconds = iter([0.0, 5, 20, 21, 60, 61])  # at the start, after each item, at the end
    monkeypatch.setattr(monitoring.time, "monotonic", lambda: next(seconds))
    assert list(progress_bar("features", range(4), unit="images")) == [0, 1, 2, 3]
    lines = ["features: started", "features: 2 of 4 images, about 30 s left", "features: 4 images in 61.0 s"]
    assert capsys.readouterr().err.splitlines() == lines


def test_a_progress_bar_without_items_prints_done(capsys):
    with progress_bar("features", unit="images"):
        pass
    assert re.search(r"^features: done in \d+\.\d s$", capsys.readouterr().err, re.MULTILINE)


def test_the_progress_bar_of_a_failed_step_prints_the_number_of_finished_items(capsys):
    def train():
        with progress_bar("linear_probe", total=9, unit="epochs") as bar:
            set_progress(bar, 3, 9)
            raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        train()
    assert re.search(r"linear_probe: 3 epochs in \d+\.\d s, not finished\n$", capsys.readouterr().err)


def test_monitored_stages_show_a_bar_and_keep_the_records_and_seconds_of_each_stage(capsys):
    seconds, histories = {}, {}
    records = [{"epoch": float(epoch), "loss": 1 / epoch} for epoch in (1, 2)]
    with monitored_stages(2, seconds, histories) as on_epoch:
        for stage in ("embedding_1", "classifier"):
            for record in records:
                on_epoch(stage, record)
    assert histories == {"embedding_1": records, "classifier": records}
    assert list(seconds) == ["embedding_1", "classifier"]
    lines = re.sub(r"\d+\.\d s", "? s", capsys.readouterr().err).splitlines()
    assert lines == [f"{stage}: {text}" for stage in histories for text in ("started", "2 epochs in ? s")]


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
