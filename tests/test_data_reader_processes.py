"""Worker processes that read images: complete batches, errors of images and processes, no process left over."""

import errno
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from mlmetric.data import BadImageError
from mlmetric.data import _reader_processes as reader_processes
from mlmetric.data import _tensor_pipe as tensor_pipe
from mlmetric.data._reader_processes import read_batches

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="local functions reach forked processes only")
BATCHES = [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]


class Numbers:
    """A data set whose images are tensors of their index, made by a function where one is given."""

    def __init__(self, make=lambda index: torch.full((1, 2), float(index))):
        self.make = make
        self.paths = [f"{index}.png" for index in range(10)]

    def __len__(self):
        return 10

    def __getitem__(self, index):
        return self.make(index), None

    def identity(self, index):
        return bytes([index] * 32)


def failing(error, at=5):
    def make(index):
        if index == at:
            raise error
        return torch.full((1, 2), float(index))

    return Numbers(make)


def read(dataset, num_workers):
    return list(read_batches(dataset, BATCHES, num_workers))


@pytest.fixture(params=[0, 1, 3])
def num_workers(request):
    yield request.param
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8, torch.bool, torch.float64])
def test_read_batches_gives_all_images_in_order_whatever_their_dtype(dtype, num_workers):
    batches = read(Numbers(lambda index: torch.full((3, 2, 2), index).to(dtype)), num_workers)
    assert [batch.indices for batch in batches] == BATCHES
    for batch in batches:
        assert torch.equal(batch.images, torch.tensor(batch.indices).view(2, 1, 1, 1).expand(2, 3, 2, 2).to(dtype))


def test_read_batches_by_more_processes_than_batches_starts_one_for_each():
    batches = read_batches(Numbers(), BATCHES[:2], 8)
    next(batches)
    assert len(multiprocessing.active_children()) == 2
    assert next(batches).indices == BATCHES[1]
    assert list(batches) == []
    assert list(read_batches(Numbers(), [], 2)) == []


def test_read_batches_leaves_out_bad_images_with_their_reasons(num_workers):
    batches = read(failing(BadImageError("5.png is truncated.")), num_workers)
    assert batches[2].indices == [4]
    assert batches[2].reasons == {5: "5.png is truncated."}
    (batch,) = read_batches(failing(BadImageError("5.png is truncated.")), [[5]], num_workers)
    assert (batch.indices, batch.images, batch.reasons) == ([], None, {5: "5.png is truncated."})


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (RuntimeError, ("DataLoader worker: too wide",), "^DataLoader worker: too wide"),
        (OSError, (errno.EMFILE, "Too many open files", "5.png"), r"Too many open files: '5\.png'"),
        (KeyError, ("mode",), "mode"),
    ],
)
def test_read_batches_raises_the_error_of_the_data_set_and_names_the_image(kind, arguments, message, num_workers):
    with pytest.raises(kind, match=message) as raised:
        read(failing(kind(*arguments)), num_workers)
    notes = "".join(raised.value.__notes__)
    assert "image 5, 5.png" in notes
    assert num_workers == 0 or "in make" in notes


def test_read_batches_raises_an_error_that_cannot_be_pickled_as_a_runtime_error():
    class TwoArgumentsError(Exception):
        def __init__(self, one, two):
            super().__init__(f"{one} and {two}")

    with pytest.raises(RuntimeError, match="TwoArgumentsError: 1 and 2") as raised:
        read(failing(TwoArgumentsError(1, 2)), 2)
    assert "in make" in "".join(raised.value.__notes__)


def test_read_batches_of_images_of_several_shapes_says_what_to_do(num_workers):
    dataset = Numbers(lambda index: torch.zeros(3, 2, 4 + (index == 5)))
    with pytest.raises(
        ValueError, match=r"one shape in a batch, got image 4, 4\.png: \(3, 2, 4\), image 5, 5\.png: .*5\)"
    ):
        read(dataset, num_workers)


@pytest.mark.parametrize(
    ("die", "how"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "signal 9, Killed"),
        (lambda: os.kill(os.getpid(), signal.SIGTERM), "signal 15, Terminated"),
        (lambda: os._exit(3), "exit code 3"),
    ],
)
def test_read_batches_where_a_process_dies_says_how_after_all_batches_before(die, how):
    batches = read_batches(Numbers(lambda index: die() if index == 5 else torch.zeros(1)), BATCHES, 2)
    assert [next(batches).indices for _ in range(2)] == BATCHES[:2]
    with pytest.raises(OSError, match=rf"A worker process that reads images died \({how}\).*`num_workers=0`"):
        next(batches)
    assert multiprocessing.active_children() == []


def test_read_batches_where_a_process_was_killed_while_it_had_nothing_to_do_says_so():
    batches = read_batches(Numbers(), BATCHES, 2)
    next(batches)
    for process in multiprocessing.active_children():
        process.kill()
        process.join()
    with pytest.raises(OSError, match=r"died \(signal 9, Killed\)"):
        list(batches)


def test_read_batches_where_a_process_is_killed_while_it_answers_says_so(monkeypatch):
    dataset = Numbers(lambda index: torch.zeros(2_000_000))  # more than a pipe takes
    batches = read_batches(dataset, BATCHES, 1)
    next(batches)
    (process,) = multiprocessing.active_children()
    wait = reader_processes._Reader._wait

    def wait_and_kill(reader):
        wait(reader)
        process.kill()

    monkeypatch.setattr(reader_processes._Reader, "_wait", wait_and_kill)
    with pytest.raises(OSError, match=r"died \(signal 9, Killed\)"):
        next(batches)


def test_read_batches_where_a_process_hangs_ends_with_an_error(monkeypatch):
    monkeypatch.setattr(reader_processes, "_TIMEOUT_SECONDS", 0.2)
    dataset = Numbers(lambda index: time.sleep(600) if index == 5 else torch.zeros(1))
    with pytest.raises(TimeoutError, match=r"has not responded for 0\.2 seconds.*`num_workers=0`"):
        read(dataset, 2)
    assert multiprocessing.active_children() == []


def test_read_batches_where_no_process_can_be_started_says_so(monkeypatch):
    def fail(*_, **__):
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", fail)
    with pytest.raises(OSError, match=r"No worker process could be started to read images.*Resource.*`num_workers=0`"):
        read(Numbers(), 2)


def test_read_batches_closed_early_ends_its_processes():
    batches = read_batches(Numbers(), BATCHES, 2)
    next(batches)
    assert len(multiprocessing.active_children()) == 2
    batches.close()
    assert multiprocessing.active_children() == []


def test_read_batches_beside_threads_that_draw_random_numbers_does_not_wait_for_their_lock(monkeypatch):
    monkeypatch.setattr(reader_processes, "_TIMEOUT_SECONDS", 60.0)
    drawing = threading.Event()
    drawing.set()

    def draw():
        numbers = torch.empty(500_000)
        while drawing.is_set():
            numbers.normal_()

    threads = [threading.Thread(target=draw) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            assert len(read(Numbers(), 2)) == 5
    finally:
        drawing.clear()
        for thread in threads:
            thread.join()


def test_reading_processes_end_with_the_one_that_asks(monkeypatch):
    monkeypatch.setattr(reader_processes, "_POLL_SECONDS", 0.05)
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)

    def ask():
        large = Numbers(lambda index: torch.zeros(100_000))  # more than a pipe takes: one waits while it answers
        batches = read_batches(large, BATCHES, 2)
        next(batches)
        theirs.send([process.pid for process in multiprocessing.active_children()])
        time.sleep(600)

    process = context.Process(target=ask)
    process.start()
    pids = ours.recv()
    process.kill()
    process.join()
    assert len(pids) == 2
    deadline = time.monotonic() + 30
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < deadline, "the processes go on without the one that asks"
        time.sleep(0.05)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_answers_are_whole_pickles_of_what_was_read_and_its_images():
    answer, images = reader_processes._answer(Numbers(), [3])
    assert pickle.loads(answer) == ([3], {}, (torch.float32, torch.Size([1, 1, 2])))
    assert images.tolist() == [[[3.0, 3.0]]]


@pytest.mark.parametrize("is_stream", [True, False])
def test_batches_larger_than_a_pipe_and_without_content_arrive_whole(is_stream, monkeypatch):
    monkeypatch.setattr(tensor_pipe, "_IS_STREAM", is_stream)
    numbers = torch.arange(2_000_000, dtype=torch.int32)
    for batch in read(Numbers(lambda index: numbers + index), 2):
        assert torch.equal(batch.images, torch.stack([numbers + index for index in batch.indices]))
    assert [batch.images.shape for batch in read(Numbers(lambda index: torch.zeros(3, 0)), 2)] == [(2, 3, 0)] * 5


def test_batches_are_received_in_pinned_memory_if_asked(monkeypatch):
    empty, pinned = torch.empty, []

    def note(*shape, pin_memory=False, **options):
        pinned.append(pin_memory)
        return empty(*shape, **options)

    monkeypatch.setattr(torch, "empty", note)
    for pin_memory in (True, False):
        pinned.clear()
        assert len(list(read_batches(Numbers(), BATCHES, 2, pin_memory=pin_memory))) == 5
        assert pinned == [pin_memory] * 5
