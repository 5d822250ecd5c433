"""Measurements of the benchmarks: many cases, cases in separate processes, and the memory of a process."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch


def results(run: Callable[..., Any], cases: Mapping[str, tuple[Any, ...]], *, jobs: int) -> Iterator[tuple[str, Any]]:
    """Call a function with each case, in several processes if `jobs` is above 1, and yield results as they come.

    Args:
        run: A function of a module.
        cases: The arguments by the key of the case.
        jobs: Number of processes.

    Yields:
        The key and the result.
    """
    if jobs == 1:
        yield from ((key, run(*case)) for key, case in cases.items())
        return
    with ProcessPoolExecutor(jobs) as pool:
        futures = {pool.submit(run, *case): key for key, case in cases.items()}
        yield from ((futures[future], future.result()) for future in as_completed(futures))


def in_own_process(script: str, **case: Any) -> dict[str, Any]:
    """Run `script --case JSON` in a new process and return the JSON of its last line.

    The seconds of a case that the system kills are None.
    """
    command = [sys.executable, script, "--case", json.dumps(case)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    if done.returncode < 0:
        return {"seconds": None}
    raise RuntimeError(done.stderr)


def limit_memory() -> None:
    """Limit this process to 90 % of the free memory, so that a larger allocation is an error."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        free = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable"))
    except OSError:  # not Linux
        return
    limit = pages + int(0.9 * 1024 * int(free.split()[1]))
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def resident_mb(device: str = "cpu") -> float:
    """Return the memory in use, in MB."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 1e6
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6
    except OSError:
        return peak_mb(device)


def reset_peak_mb() -> None:
    """Let `peak_mb` measure from now on, where the system supports it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # not Linux, or not permitted
        return


def peak_mb(device: str = "cpu") -> float:
    """Return the largest memory in use so far, in MB."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    try:  # ru_maxrss of a new process can be that of its parent
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.split("VmHWM:")[1].split()[0]) / 1e6
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
