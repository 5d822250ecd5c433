"""Fixtures of all tests, the simulated device, and the number of threads of each worker of pytest-xdist."""

# ruff: noqa: E402
import os
import random

# Each of torch, OpenMP and BLAS would otherwise start as many threads as there are cores in every worker.
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
THREADS = max(1, (os.cpu_count() or 1) // WORKERS)
if WORKERS > 1:  # before the first import of NumPy and torch, for them and for the processes that tests start
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(variable, str(THREADS))

import hypothesis
import numpy as np
import pytest
import torch

if WORKERS > 1:
    torch.set_num_threads(THREADS)
# Imported by tests; nothing in them is a test.
collect_ignore = ["documentation.py", "helpers.py", "simulated_device.py"]

# A slow moment of a machine is no failure; how long tests take is not what hypothesis is used for.
hypothesis.settings.register_profile("without deadline", deadline=None)
hypothesis.settings.load_profile("without deadline")


def pytest_collection_modifyitems(items):
    """Let doctests run in an empty namespace, so that each example can be copied into a new session."""
    for item in items:
        if isinstance(item, pytest.DoctestItem):
            item.dtest.globs.clear()


try:
    import simulated_device

    DEVICES = [pytest.param(simulated_device.DEVICE, id="simulated")]
except ImportError:
    reason = "before version 2.10 torch cannot register a device from Python"
    DEVICES = [pytest.param(None, id="simulated", marks=pytest.mark.skip(reason=reason))]
if torch.cuda.is_available():
    DEVICES.append(pytest.param(torch.device("cuda", 0), id="cuda", marks=pytest.mark.cuda))


@pytest.fixture(params=DEVICES)
def device(request):
    """The simulated device, and a CUDA device where there is one."""
    return request.param


@pytest.fixture(autouse=True)
def _seed():
    """Give each test the same random numbers, in whatever order and process it runs."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002, the global state that scikit-learn uses
    torch.manual_seed(0)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)
