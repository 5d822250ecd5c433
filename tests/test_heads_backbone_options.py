"""Precision, memory format and compilation of a backbone: what changes, and what stays as without them."""

import copy
import pickle

import pytest
import torch
from torch import nn

from mlmetric.heads import FrozenBackbone


class Network(nn.Module):
    """A convolution and a linear layer; `seen` lists the format of the images and the precision of their features."""

    def __init__(self):
        super().__init__()
        self.convolution, self.linear = nn.Conv2d(3, 4, 3, bias=False), nn.Linear(4, 6)
        self.seen = []

    def forward(self, images):
        features = self.linear(self.convolution(images).mean((2, 3)))
        if not torch.compiler.is_compiling():
            self.seen.append((images.is_contiguous(memory_format=torch.channels_last), features.dtype))
        return features


def make(**options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return FrozenBackbone(Network(), **options)


IMAGES = torch.linspace(-1, 1, 2 * 3 * 8 * 8).view(2, 3, 8, 8).contiguous()


def test_autocast_computes_in_its_precision_and_returns_float32():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = make()(IMAGES).float()
    backbone = make(autocast="bfloat16")
    found = backbone(IMAGES)
    assert (found.dtype, backbone.model.seen) == (torch.float32, [(False, torch.bfloat16)])
    assert torch.equal(found, expected)
    torch.testing.assert_close(found, make()(IMAGES), rtol=0.05, atol=0.05)
    assert not torch.equal(found, make()(IMAGES))
    assert {parameter.dtype for parameter in backbone.parameters()} == {torch.float32}


def test_autocast_may_be_float16():
    backbone = make(autocast="float16")
    assert backbone(IMAGES).dtype == torch.float32
    assert backbone.model.seen == [(False, torch.float16)]


def test_autocast_of_a_device_is_of_that_device(device):
    found = make(autocast="bfloat16").to(device)(IMAGES.to(device))
    assert (found.device.type, found.dtype) == (device.type, torch.float32)
    torch.testing.assert_close(found.cpu(), make()(IMAGES), rtol=0.05, atol=0.05)


def test_autocast_may_be_set_later_and_is_part_of_the_fingerprint():
    backbone = make()
    without = backbone.fingerprint()
    prints = set()
    for autocast in ("bfloat16", "float16"):
        backbone.autocast = autocast
        assert backbone.fingerprint() == make(autocast=autocast).fingerprint()
        prints.add(backbone.fingerprint())
    backbone.autocast = None
    assert backbone.fingerprint() == without
    assert len(prints | {without}) == 3


@pytest.mark.parametrize("autocast", ["float32", torch.bfloat16, True])
def test_autocast_of_another_precision_raises(autocast):
    with pytest.raises(ValueError, match=f"`autocast` must be None, 'bfloat16' or 'float16', got {autocast!r}"):
        make(autocast=autocast)
    backbone = make()
    with pytest.raises(ValueError, match="`autocast` must be None"):
        backbone.autocast = autocast


def test_autocast_trains_unfrozen_parts_in_float32():
    backbone = make(autocast="bfloat16", unfrozen=("linear",))
    backbone(IMAGES).square().mean().backward()
    plain = make(unfrozen=("linear",))
    plain(IMAGES).square().mean().backward()
    gradient = backbone.model.linear.weight.grad
    assert gradient.dtype == torch.float32
    torch.testing.assert_close(gradient, plain.model.linear.weight.grad, rtol=0.1, atol=0.02)


def test_channels_last_changes_the_memory_format_only():
    backbone = make(channels_last=True)
    assert backbone.model.convolution.weight.is_contiguous(memory_format=torch.channels_last)
    assert backbone.fingerprint() == make().fingerprint()
    torch.testing.assert_close(backbone(IMAGES), make()(IMAGES))
    assert [is_last for is_last, _ in backbone.model.seen] == [True]
    restored = make(channels_last=True)
    restored.load_state_dict(make().state_dict())
    assert restored.model.convolution.weight.is_contiguous(memory_format=torch.channels_last)


def test_channels_last_leaves_inputs_of_other_shapes_alone():
    backbone = FrozenBackbone(nn.Linear(3, 2), channels_last=True)
    assert backbone(torch.zeros(4, 3)).shape == (4, 2)


@pytest.fixture
def compiled(monkeypatch):
    """Let torch.compile capture graphs, without the compiler that takes long; a list of the batches compiled for."""
    graphs, compile_ = [], torch.compile

    def backend(graph, examples):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda call, **options: compile_(call, backend=backend, **options))
    yield graphs
    torch.compiler.reset()


def test_compile_compiles_the_network_and_gives_its_features(compiled):
    backbone = make(compile=True)
    assert compiled == []
    with torch.inference_mode():
        assert torch.equal(backbone(IMAGES), make()(IMAGES))
        backbone(IMAGES)
    assert len(compiled) == 1
    assert backbone.model.seen == []
    assert list(backbone.state_dict()) == list(make().state_dict())
    assert backbone.fingerprint() == make().fingerprint()


def copy_by_pickle(backbone):
    return pickle.loads(pickle.dumps(backbone))


@pytest.mark.parametrize("copied", [copy.deepcopy, copy_by_pickle])
def test_copy_of_a_compiled_backbone_compiles_again(copied, compiled):
    backbone = make(compile=True, autocast="bfloat16", channels_last=True)
    backbone(IMAGES)
    again = copied(backbone)
    assert torch.equal(again(IMAGES), backbone(IMAGES))
    assert again.model.seen == []
    assert (again.autocast, again.channels_last, again.compiled) == ("bfloat16", True, True)
    assert again.fingerprint() == backbone.fingerprint()


def test_copy_of_a_backbone_that_is_not_compiled_is_not(compiled):
    again = copy.deepcopy(make())
    again(IMAGES)
    assert (compiled, again.compiled) == ([], False)


def test_state_without_the_options_is_as_before_them():
    assert not {"autocast", "channels_last", "compiled"} & vars(make()).keys()


def test_repr_shows_only_options_that_are_set():
    first = repr(make()).splitlines()[1].strip()
    assert first == "'Network', weights='as given', pooling=None, unfrozen=()"
    shown = repr(make(autocast="bfloat16", channels_last=True)).splitlines()[1].strip()
    assert shown == f"{first}, autocast='bfloat16', channels_last=True"


def test_compiled_backbone_is_exported_as_any(compiled):
    backbone = make(compile=True)
    expected = backbone(IMAGES)
    torch.testing.assert_close(torch.export.export(backbone, (IMAGES,)).module()(IMAGES), expected)


def test_exported_backbone_computes_in_the_precision_of_its_weights():
    program = torch.export.export(make(autocast="bfloat16"), (IMAGES,))
    torch.testing.assert_close(program.module()(IMAGES), make()(IMAGES))
