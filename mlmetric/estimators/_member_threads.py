"""Threads that train several members at the same time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from mlmetric._random_generators import without_global_generator

_IN_USE = threading.Lock()
_POLL_SECONDS = 0.5  # Windows delivers no Ctrl-C during an unlimited wait


class Caller:
    """The thread that waits for other threads: it runs callbacks for them, and can stop them between two epochs."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._stopped = False

    def run(self, function: Callable[..., Any] | None, *arguments: Any) -> None:
        """Run a function, if given, in the waiting thread; the other threads call this after each epoch.

        Raises:
            InterruptedError: If that thread has stopped waiting.
        """
        done: Future[None] = Future()
        if function is None:
            done.set_result(None)
        else:
            self._calls.put((done, lambda: function(*arguments)))
        while not self._stopped:
            try:
                return done.result(timeout=_POLL_SECONDS)
            except TimeoutError:
                continue
        raise InterruptedError("Another member, or the thread that called `fit`, has failed or was interrupted.")

    def wait_for(self, futures: Sequence[Future[Any]]) -> None:
        """Run the functions of the other threads until all futures are done or one has failed."""
        for future in futures:
            future.add_done_callback(lambda _: self._calls.put(None))
        try:
            while not all(future.done() for future in futures):
                if any(future.done() and future.exception() for future in futures):
                    break
                self._run_next()
        finally:
            self._stopped = True
            for future in futures:
                future.cancel()

    def _run_next(self) -> None:
        try:
            call = self._calls.get(timeout=_POLL_SECONDS)
        except queue.Empty:
            return
        if call is not None:
            done, function = call
            function()
            done.set_result(None)


def run_in_threads(tasks: Sequence[Callable[[Caller], Any]], *, parallel: bool) -> list[Any]:
    """Run tasks at the same time, and divide among them the threads that torch uses for one operation.

    Tasks run one after the other in this thread if torch uses one thread, or if another thread is in this function.

    Args:
        tasks: Each task is called with the waiting thread. In its own thread, it draws random numbers only from the
            generator of that thread.
        parallel: Whether the tasks can run at the same time.

    Returns:
        Their results, in order.
    """
    num_threads = torch.get_num_threads()
    num_workers = min(len(tasks), num_threads)
    if not parallel or num_workers == 1 or not _IN_USE.acquire(blocking=False):
        return [task(_ThisThread()) for task in tasks]
    caller = Caller()
    try:
        with ThreadPoolExecutor(
            num_workers, "mlmetric-member", initializer=torch.set_num_threads, initargs=(num_threads // num_workers,)
        ) as executor:
            futures = [executor.submit(_run_alone, task, caller, torch.is_grad_enabled()) for task in tasks]
            caller.wait_for(futures)
    finally:
        torch.set_num_threads(num_threads)
        _IN_USE.release()
    errors = [future.exception() for future in futures if not future.cancelled()]
    for error in sorted(filter(None, errors), key=lambda error: isinstance(error, InterruptedError)):
        raise error
    return [future.result() for future in futures]


class _ThisThread(Caller):
    """Runs callbacks in the thread of the task."""

    def run(self, function: Callable[..., Any] | None, *arguments: Any) -> None:
        """Run a function, if any."""
        if function is not None:
            function(*arguments)


def _run_alone(task: Callable[[Caller], Any], caller: Caller, grad_enabled: bool) -> Any:
    with without_global_generator(), torch.set_grad_enabled(grad_enabled):  # each thread has its own setting
        return task(caller)
