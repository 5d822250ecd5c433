"""Forward passes in flight: the order of their steps, on CUDA and elsewhere, and what is kept when they end early."""

import contextlib

import numpy as np
import pytest
import torch
from torch import nn

from mlmetric.data import _forward_passes as passes_module
from mlmetric.data import extract_features
from mlmetric.data._feature_cache import FeatureCache
from mlmetric.heads import FrozenBackbone


class Numbers:
    """A data set of images that contain their index, and identities that do, too."""

    def __init__(self, num_images, size=2):
        self.num_images, self.size = num_images, size

    def __len__(self):
        return self.num_images

    def __getitem__(self, index):
        return torch.full((3, self.size, self.size), float(index)), None

    def identity(self, index):
        return index.to_bytes(32, "big")


class Mean(nn.Module):
    """A network with a parameter, whose features are the index and what `change` makes of it."""

    def __init__(self, change=lambda features: features):
        super().__init__()
        self.one, self.change, self.seen = nn.Parameter(torch.ones(())), change, []

    def forward(self, images):
        features = self.one * images.mean((2, 3))[:, :2]
        self.seen += features[:, 0].tolist()
        return self.change(features)

    def fingerprint(self):
        return 64 * "0"


def extract(backbone, num_images, cache, **options):
    return extract_features(backbone, Numbers(num_images), cache, **({"batch_size": 2, "num_workers": 0} | options))


def cached(cache):
    return sorted(int.from_bytes(identity, "big") for identity in FeatureCache(cache / (32 * "0")).known())


def test_next_forward_pass_starts_before_features_of_the_previous_one_are_kept(tmp_path, monkeypatch):
    steps = []
    add = FeatureCache.add
    monkeypatch.setattr(
        FeatureCache, "add", lambda cache, *new: (steps.append(f"keep {int(new[1][0, 0])}"), add(cache, *new))[1]
    )
    backbone = Mean(lambda features: (steps.append(f"compute {int(features[0, 0])}"), features)[1])
    extract(backbone, 6, tmp_path, progress=lambda done, total: steps.append(f"{done} of {total}"))
    assert steps == [
        *("compute 0", "compute 2", "keep 0", "2 of 6"),
        *("compute 4", "keep 2", "4 of 6"),
        *("keep 4", "6 of 6"),
    ]


def test_features_in_memory_that_the_network_writes_to_again_are_kept(tmp_path):
    memory = torch.empty(2, 2)
    found = extract(Mean(memory.copy_), 8, tmp_path).features
    assert found[:, 0].tolist() == list(range(8))


def test_parts_are_written_after_eight_batches_and_twenty_times_as_long_as_one_takes(tmp_path, monkeypatch):
    seconds, written = 0.0, []

    class Clock:
        def monotonic(self):
            return seconds

    def batch_takes_a_second(features):
        nonlocal seconds
        seconds += 1
        return features

    def write(cache, *, still_to_come):
        nonlocal seconds
        seconds += 1
        written.append(100 - still_to_come)

    monkeypatch.setattr(passes_module, "time", Clock())
    with monkeypatch.context() as patch:
        patch.setattr(FeatureCache, "write", write)
        with pytest.raises(OSError, match="are not in"):  # since nothing is written
            extract(Mean(batch_takes_a_second), 100, tmp_path, batch_size=1)
    assert written == [8, 28, 48, 68, 88, 100]


def interrupt(_):
    raise KeyboardInterrupt


def nan(features):
    return features / 0 - features / 0


@pytest.mark.parametrize(
    ("changes", "error", "message", "kept"),
    [
        ({4: interrupt}, KeyboardInterrupt, "^$", [0, 1, 2, 3]),
        ({4: lambda features: features[0]}, ValueError, r"shape \(2, D\) for 2 images, got \(2,\)", [0, 1, 2, 3]),
        ({2: nan}, ValueError, "2 of 2 images, the first: image 2", [0, 1]),
        ({2: nan, 4: nan}, ValueError, "2 of 2 images, the first: image 2", [0, 1]),
        ({2: nan, 4: lambda features: features[0]}, ValueError, "2 of 2 images, the first: image 2", [0, 1]),
        ({2: nan, 4: interrupt}, KeyboardInterrupt, "^$", [0, 1]),
        ({2: lambda features: features[:, :1]}, ValueError, "features of one size, got 2 and 1", [0, 1]),
    ],
)
def test_extraction_that_ends_early_keeps_all_features_before_the_error(changes, error, message, kept, tmp_path):
    backbone = Mean(lambda features: changes.get(int(features[0, 0]), lambda same: same)(features))
    with pytest.raises(error, match=message):
        extract(backbone, 10, tmp_path)
    assert cached(tmp_path) == kept


def test_ctrl_c_while_features_are_read_keeps_them(tmp_path, monkeypatch):
    check = passes_module._check_finite

    def interrupted_once(*arguments):
        monkeypatch.setattr(passes_module, "_check_finite", check)
        raise KeyboardInterrupt

    monkeypatch.setattr(passes_module, "_check_finite", interrupted_once)
    with pytest.raises(KeyboardInterrupt):
        extract(Mean(), 10, tmp_path)
    assert cached(tmp_path) == [0, 1, 2, 3]


def test_error_of_progress_keeps_the_batch_in_flight(tmp_path):
    def progress(done, total):
        raise RuntimeError("the caller's")

    with pytest.raises(RuntimeError, match="the caller's"):
        extract(Mean(), 10, tmp_path, progress=progress)
    assert cached(tmp_path) == [0, 1, 2, 3]


class FakeCuda:
    """Functions of `torch.cuda` that note their calls, for tensors on the CPU that are taken for tensors on CUDA."""

    def __init__(self):
        self.calls = []

    def patch(self, monkeypatch):
        calls, current = self.calls, self

        class Stream:
            def __init__(self, device):
                calls.append("new stream")

        class Event:
            def record(self, stream):
                assert stream is current
                calls.append("record event")

            def synchronize(self):
                calls.append("wait for event")

        def record_stream(tensor, stream):
            assert stream is current
            calls.append(f"keep memory of {tuple(tensor.shape)}")

        def pin(tensor):
            calls.append(f"pin {tensor.dtype}")
            return tensor

        @contextlib.contextmanager
        def stream(entered):
            assert isinstance(entered, Stream)
            calls.append("copy")
            yield

        monkeypatch.setattr(passes_module, "_is_cuda", lambda tensor: True)
        monkeypatch.setattr(torch.cuda, "Stream", Stream)
        monkeypatch.setattr(torch.cuda, "Event", Event)
        monkeypatch.setattr(torch.cuda, "stream", stream)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: self)
        monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
        monkeypatch.setattr(torch.Tensor, "record_stream", record_stream)

    def wait_stream(self, stream):
        self.calls.append("wait for copy")


def test_on_cuda_copies_are_pinned_and_features_are_read_after_the_next_start(tmp_path, monkeypatch):
    fake = FakeCuda()
    with monkeypatch.context() as patch:
        fake.patch(patch)
        found = extract(Mean().bfloat16(), 4, tmp_path).features
    start = ["pin torch.bfloat16", "copy", "wait for copy", "keep memory of (2, 3, 2, 2)", "record event"]
    assert fake.calls == ["new stream", *start, *start, "wait for event", "wait for event"]
    np.testing.assert_array_equal(found[:, 0], range(4))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_features_on_a_device_are_those_on_the_cpu(device, num_workers, tmp_path):
    backbone = FrozenBackbone(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), channels_last=True)
    options = {"num_workers": num_workers, "batch_size": 3}
    expected = extract_features(backbone, Numbers(50, 8), tmp_path / "cpu", **options).features
    found = extract_features(backbone.to(device), Numbers(50, 8), tmp_path / "device", **options).features
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
