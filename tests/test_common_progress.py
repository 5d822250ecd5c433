"""The progress of long steps: lines in a pipe, with a fake clock, and the bar of a terminal."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from common import progress
from common.progress import progress_bar, training_progress

EXAMPLES = Path(progress.__file__).parents[1]


class Clock:
    """A clock that a test sets."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock.monotonic)
    return clock


@pytest.fixture
def lines(capsys):
    """Return the lines that have been printed since the last call."""
    return lambda: capsys.readouterr().err.splitlines()


def step(bar, clock, *, seconds, times=1, note=""):
    for _ in range(times):
        clock.now += seconds
        bar.update(1, note)


def test_a_step_prints_one_line_when_it_has_ended_and_none_before_30_seconds(clock, lines):
    with progress_bar("features", total=20, unit="images") as bar:
        step(bar, clock, seconds=1.4, times=20)
        assert lines() == []
    assert lines() == ["features: 20 images in 28.0 s (0.714 images/s)"]


def test_a_long_step_prints_a_line_every_30_seconds_with_counts_rate_and_time_left(clock, lines):
    with progress_bar("features", total=1500, unit="images") as bar:
        step(bar, clock, seconds=0.5, times=60)
        assert lines() == ["features: 60 of 1,500 images, 2 images/s, about 12 min left"]
        step(bar, clock, seconds=0.5, times=59)
        assert lines() == []
        step(bar, clock, seconds=0.5)
        assert lines() == ["features: 120 of 1,500 images, 2 images/s, about 12 min left"]
        step(bar, clock, seconds=0.5, times=1200)
        assert len(lines()) == 20
        step(bar, clock, seconds=0.5, times=179)
        lines()
        step(bar, clock, seconds=40)  # the last item: the line of the end follows at once
    (last,) = lines()
    assert last == "features: 1,500 images in 789.5 s (1.9 images/s)"


def test_the_time_left_follows_the_rate_of_the_last_seconds(clock, lines):
    with progress_bar("training", total=100, unit="epochs") as bar:
        step(bar, clock, seconds=0.1, times=10)
        step(bar, clock, seconds=5, times=20)
        assert lines()[-1] == "training: 28 of 100 epochs, 0.2 epochs/s, about 6 min left"


def test_a_step_whose_items_take_longer_than_30_seconds_prints_a_line_for_each(clock, lines):
    with progress_bar("training", total=4, unit="epochs") as bar:
        step(bar, clock, seconds=60, times=2, note="embedding_1")
    assert lines() == [
        "training: 1 of 4 epochs (embedding_1)",  # one update: no rate yet
        "training: 2 of 4 epochs (embedding_1), 0.0167 epochs/s, about 2 min left",
        "training: 2 epochs in 120.0 s",
    ]


def test_items_of_an_earlier_start_are_counted_but_not_in_the_rate(clock, lines):
    with progress_bar("features", total=1000, unit="images") as bar:
        bar.restore(900)
        step(bar, clock, seconds=1, times=30)
        assert lines() == ["features: 930 of 1,000 images, 1 images/s, about 70 s left"]
        step(bar, clock, seconds=1, times=70)
    assert lines()[-1] == "features: 1,000 images, 900 of them finished before, in 100.0 s (1 images/s)"
    with progress_bar("features", unit="images") as bar:
        bar.restore(48)
    assert lines() == ["features: 48 images, finished before"]


def test_set_is_a_callback_whose_first_count_is_not_in_the_rate(clock, lines):
    with progress_bar("features", unit="images") as bar:
        clock.now += 5
        bar.set(1032, 1100)  # 1,000 of them were in the cache
        clock.now += 30
        bar.set(1064, 1100)
        assert lines() == ["features: 1,064 of 1,100 images, 1.07 images/s, about 34 s left"]


def test_items_are_iterated_over_and_counted(clock, lines):
    assert list(progress_bar("figures", iter("abc"), unit="figures")) == ["a", "b", "c"]
    assert lines() == ["figures: 3 figures in 0.0 s"]


def test_a_step_without_items_prints_done(lines):
    with progress_bar("linear probe"):
        pass
    (line,) = lines()
    assert re.fullmatch(r"linear probe: done in \d+\.\d s", line)


def test_a_step_that_fails_prints_the_number_of_finished_items(clock, lines):
    def fail():
        with progress_bar("features", total=9, unit="images") as bar:
            step(bar, clock, seconds=1, times=3)
            raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        fail()
    assert lines() == ["features: 3 of 9 images in 3.0 s, not finished"]


def test_one_progress_is_shown_over_the_epochs_of_all_stages_of_a_fit(clock, lines):
    with training_progress(4) as on_epoch:
        for stage in ("embedding_1", "classifier"):
            for epoch in (1, 2):
                clock.now += 31
                on_epoch(stage, {"epoch": epoch})
    assert lines() == [
        "training: 1 of 4 epochs (embedding_1)",
        "training: 2 of 4 epochs (embedding_1), 0.0323 epochs/s, about 62 s left",
        "training: 3 of 4 epochs (classifier), 0.0323 epochs/s, about 31 s left",
        "training: 4 epochs in 124.0 s",
    ]


def test_epochs_that_a_fit_reads_from_its_checkpoints_are_not_in_the_time_left(clock, lines, tmp_path):
    for stage in ("embedding_1", "embedding_2"):
        (tmp_path / f"{stage}.pt").touch()
        os.utime(tmp_path / f"{stage}.pt", (1, 1))
    with training_progress(200, checkpoint_dir=tmp_path) as on_epoch:
        for epoch in range(50):
            on_epoch("embedding_1", {"epoch": epoch})
        for epoch in range(10):
            on_epoch("embedding_2", {"epoch": epoch})
        for epoch in range(10, 26):
            clock.now += 2
            os.utime(tmp_path / "embedding_2.pt", (2 + epoch, 2 + epoch))  # a new checkpoint
            on_epoch("embedding_2", {"epoch": epoch})
    assert lines() == [
        "training: 75 of 200 epochs (embedding_2), 0.5 epochs/s, about 4 min left",
        "training: 76 epochs, 60 of them finished before, in 32.0 s (0.5 epochs/s)",
    ]


PRINTS_TO_A_PIPE = """
import sys, time
from common.progress import progress_bar
with progress_bar("features", total=3, unit="images") as bar:
    bar.update(3)
print("still running", file=sys.stderr, flush=True)
sys.stdin.read()
"""


def test_lines_are_written_to_a_pipe_at_once():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(EXAMPLES), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", PRINTS_TO_A_PIPE]
    pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, text=True, **pipes) as process:
        assert re.fullmatch(r"features: 3 images in \d+\.\d s\n", process.stderr.readline())
        assert process.stderr.readline() == "still running\n"
        process.stdin.close()
        assert process.wait(timeout=60) == 0


def test_a_bar_is_drawn_on_a_terminal_and_shows_the_part(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress_bar("training", total=4, unit="epochs") as bar:
        bar.restore(2, "embedding_1")
        bar.update(1, "embedding_2")
        bar.set(4, 4)
    shown = capsys.readouterr().err
    assert "training: 100%" in shown
    assert " 4/4 " in shown
    assert "epochs/s" in shown
    assert "embedding_1" in shown
    with progress_bar("linear probe"):
        pass
    assert re.search(r"linear probe: 00:00\s*$", capsys.readouterr().err)


def test_only_the_first_process_shows_progress(monkeypatch, capsys):
    monkeypatch.setattr(progress, "rank", lambda: 1)
    with progress_bar("training", total=4, unit="epochs") as bar:
        bar.restore(1)
        bar.update()
        bar.set(4, 4)
    assert (bar.done, bar.total) == (4, 4)
    assert list(progress_bar("figures", range(2))) == [0, 1]
    assert capsys.readouterr().err == ""
