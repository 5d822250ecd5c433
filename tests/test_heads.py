"""Heads and the frozen backbone: shapes, weights, initialisation and errors."""

import math
import os
import re
import urllib.error
from pathlib import Path

import pandas as pd
import pytest
import torch
import torchvision
from torch import nn

from mlmetric import heads
from mlmetric._random_generators import seeded, without_global_generator
from mlmetric.heads import ClassifierHead, EmbeddingHead, FrozenBackbone, Standardize, WeightsUnavailableError
from mlmetric.heads._dropout import Dropout

# RegNets compute their widths on tensors and cannot be built on the meta device: the two smallest are tested below.
MODELS = [name for name in torchvision.models.list_models(module=torchvision.models) if "regnet" not in name]
# The smallest of each family.
SMALL_MODELS = {"alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "inception_v3", "mnasnet0_5"}
SMALL_MODELS |= {"mobilenet_v3_small", "resnet18", "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t", "vgg11", "vit_b_16"}


def state_of(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in SMALL_MODELS else pytest.mark.slow) for name in MODELS]
)
def test_backbone_removes_the_classifier_of_each_torchvision_classification_model(name):
    with torch.device("meta"):  # shapes without data
        backbone = FrozenBackbone(name, weights=None)
        side = 299 if name == "inception_v3" else 256 if name.startswith("swin_v2") else 224
        features = backbone(torch.zeros(1, 3, side, side))
    assert features.shape == (1, backbone.feature_size)
    assert backbone.feature_size != 1000


@pytest.mark.parametrize(
    ("name", "layer", "size"),
    [
        ("resnet50", "fc", 2048),
        ("squeezenet1_0", "classifier.1", 512),
        ("regnet_x_400mf", "fc", 400),
        ("regnet_y_400mf", "fc", 440),
    ],
)
def test_backbone_features_are_the_inputs_of_the_classifier(name, layer, size, generator, tmp_path):
    whole = torchvision.models.get_model(name, weights=None).eval()
    path = tmp_path / "weights.pth"
    torch.save(whole.state_dict(), path)
    seen = []
    whole.get_submodule(layer).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = torch.rand(2, 3, 96, 96, generator=generator)
    with torch.no_grad():
        whole(images)
    expected = seen[0].flatten(2).mean(2) if seen[0].ndim == 4 else seen[0]
    backbone = FrozenBackbone(name, weights=path)
    features = backbone(images)
    assert features.shape == (2, size)
    assert not features.requires_grad
    torch.testing.assert_close(features, expected)
    assert backbone.weights == "weights.pth"


def test_backbone_does_not_change_while_a_head_is_trained(generator):
    backbone = FrozenBackbone("resnet18", weights=None)
    head = EmbeddingHead(512, (8,))
    model = nn.Sequential(backbone, head)
    before, head_before = state_of(backbone), state_of(head)
    model.train()
    assert not any(module.training for module in backbone.modules())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        model(torch.rand(4, 3, 32, 32, generator=generator)).square().sum().backward()
        optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    assert not torch.equal(head.layers[-1].weight, head_before["layers.0.weight"])


def test_backbone_accepts_any_module_and_averages_feature_maps(generator):
    class Map(nn.Module):
        def forward(self, images):
            return images[:, :2]

    images = torch.rand(3, 3, 4, 5, generator=generator)
    torch.testing.assert_close(FrozenBackbone(Map())(images), images[:, :2].mean((2, 3)))


@pytest.mark.parametrize(("give", "kind"), [(lambda x: (x, x), "tuple"), (lambda x: {"features": x}, "dict")])
def test_module_that_does_not_return_a_tensor_is_an_error(give, kind):
    class Odd(nn.Module):
        def forward(self, images):
            return give(images)

    with pytest.raises(TypeError, match=rf"must return a tensor of features, .*, but Odd returns {kind}\."):
        FrozenBackbone(Odd())(torch.zeros(1, 3))


def test_backbone_loads_a_state_dict_into_a_module(tmp_path):
    path = tmp_path / "own.pt"
    source = nn.Linear(3, 2)
    torch.save(source.state_dict(), path)
    backbone = FrozenBackbone(nn.Linear(3, 2), weights=str(path))
    assert torch.equal(backbone.model.weight, source.weight)
    assert not backbone.model.weight.requires_grad


def test_backbone_ignores_the_number_of_classes_of_a_state_dict(tmp_path):
    path = tmp_path / "seven.pth"
    torch.save(torchvision.models.resnet18(num_classes=7).state_dict(), path)
    assert FrozenBackbone("resnet18", weights=path).feature_size == 512


def test_backbone_has_the_preprocessing_of_its_weights():
    assert FrozenBackbone("resnet18", weights=None).transform.crop_size == [224]
    own = torch.nn.Identity()
    assert FrozenBackbone("resnet18", weights=None, transform=own).transform is own


def test_backbone_accepts_a_member_of_the_weights_enum_and_its_name(monkeypatch):
    weights = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
    state_dict = torchvision.models.resnet18().state_dict()
    monkeypatch.setattr(type(weights), "get_state_dict", lambda self, *_, **__: state_dict)
    for given in ("DEFAULT", "IMAGENET1K_V1", weights, str(weights)):
        backbone = FrozenBackbone("resnet18", weights=given)
        assert backbone.weights == "ResNet18_Weights.IMAGENET1K_V1"
        assert torch.equal(backbone.model.conv1.weight, state_dict["conv1.weight"])


def test_backbone_fingerprint_depends_on_weights_and_architecture():
    torch.manual_seed(0)
    first, second = nn.Linear(3, 2), nn.Linear(3, 2)
    same = FrozenBackbone(first).fingerprint()
    assert FrozenBackbone(first).fingerprint() == same
    assert FrozenBackbone(second).fingerprint() != same
    pools = [nn.Sequential(nn.AdaptiveAvgPool2d(1)), nn.Sequential(nn.AdaptiveMaxPool2d(1))]
    assert FrozenBackbone(pools[0]).fingerprint() != FrozenBackbone(pools[1]).fingerprint()


@pytest.mark.slow
def test_backbone_compiles_without_graph_breaks(generator):
    backbone = torch.compile(FrozenBackbone("resnet18", weights=None), fullgraph=True, backend="eager")
    assert backbone(torch.rand(1, 3, 64, 64, generator=generator)).shape == (1, 512)


def test_failed_download_is_an_error_that_names_the_alternatives(monkeypatch):
    def no_network(*_, **__):
        raise urllib.error.URLError("Name or service not known")

    weights = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
    monkeypatch.setattr(type(weights), "get_state_dict", no_network)
    with pytest.raises(
        WeightsUnavailableError,
        match=r"ResNet18_Weights.IMAGENET1K_V1 .* could not be downloaded from "
        r"https://.*resnet18.*Name or service not known.*Put that file at .*--weights none",
    ):
        FrozenBackbone("resnet18")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            ("resnet5", None),
            ValueError,
            r"torchvision classification model, .* got 'resnet5'\. Close names: 'resnet50'",
        ),
        (("qqqqqqq", None), ValueError, r"torchvision classification model, .* got 'qqqqqqq'\.$"),
        (("fcn_resnet50", None), ValueError, "must be the name of a torchvision classification model"),
        (
            (nn.Identity(), None),
            ValueError,
            "a file ending in .pth, .pt or .safetensors, or 'DEFAULT', for a module, got None",
        ),
        (("resnet18", "IMAGENET1K_V9"), ValueError, "`weights` must be None, IMAGENET1K_V1, .* got 'IMAGENET1K_V9'"),
        (
            ("resnet18", torchvision.models.VGG11_Weights.DEFAULT),
            ValueError,
            "of ResNet18_Weights .* got VGG11_Weights",
        ),
        (("resnet18", "nowhere.pth"), WeightsUnavailableError, "nowhere.pth does not exist"),
    ],
)
def test_invalid_arguments_of_the_backbone_are_an_error(arguments, error, message):
    with pytest.raises(error, match=message):
        FrozenBackbone(arguments[0], weights=arguments[1])


def test_invalid_weights_file_is_an_error(tmp_path):
    torn = tmp_path / "torn.pth"
    torn.write_bytes(b"PK\x03\x04 not a state dict")
    with pytest.raises(WeightsUnavailableError, match=r"torn\.pth could not be read as a torch state dict"):
        FrozenBackbone("resnet18", weights=torn)
    other = tmp_path / "other.pth"
    torch.save(nn.Linear(2, 2).state_dict(), other)
    with pytest.raises(ValueError, match=r"other\.pth do not match ResNet: missing tensors: 120, unexpected: 2,"):
        FrozenBackbone("resnet18", weights=other)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ([1, 2], "contains list"),
        ({"epoch": 3}, "has int for 'epoch'"),
        ({0: torch.zeros(2)}, "has a name that is not a string for 0"),
        ({"weight": torch.eye(2).to_sparse()}, r"has a sparse tensor \(torch\.sparse_coo\) for 'weight'"),
        ({"weight": torch.zeros(2, dtype=torch.complex64)}, r"has a tensor of torch\.complex64 for 'weight'"),
        ({"weight": torch.empty(2, device="meta")}, r"has a tensor without data \(device meta\) for 'weight'"),
    ],
)
@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants")
def test_file_that_is_not_a_state_dict_is_an_error(content, found, tmp_path):
    path = tmp_path / "other.pth"
    torch.save(content, path)
    with pytest.raises(
        ValueError, match=rf"must be a file of a state dict, a dict of tensors by name; \S*other\.pth {found}"
    ):
        FrozenBackbone(nn.Linear(2, 2), weights=path)


def test_standardize_gives_training_features_mean_0_and_standard_deviation_1(generator):
    features = torch.randn(500, 300, generator=generator) * torch.linspace(0.1, 50, 300) + 1000
    standardized = Standardize(300).fit(features)(features).double()
    torch.testing.assert_close(standardized.mean(0), torch.zeros(300, dtype=torch.float64), atol=5e-3, rtol=0)
    torch.testing.assert_close(
        standardized.std(0, correction=0), torch.ones(300, dtype=torch.float64), atol=1e-3, rtol=0
    )


def test_standardize_does_nothing_before_fit_and_is_in_the_state_dict():
    features = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    fresh = Standardize(2)
    assert torch.equal(fresh(features), features)
    fresh.load_state_dict(Standardize(2).fit(features).state_dict())
    assert fresh(features).tolist() == [[-1.0, 0.0], [1.0, 0.0]]


def test_standardize_scales_small_features_and_accepts_any_floating_dtype():
    small = torch.tensor([[0.0], [1e-8]])
    assert Standardize(1).fit(small)(small).tolist() == [[-1.0], [1.0]]
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        assert EmbeddingHead(4)(torch.zeros(2, 4, dtype=dtype)).dtype == torch.float32


def test_invalid_features_of_standardize_are_an_error():
    with pytest.raises(ValueError, match=r"must have shape \(N, 2\) with N >= 1, got \(3, 4\)"):
        Standardize(2).fit(torch.zeros(3, 4))
    with pytest.raises(ValueError, match="must be finite"):
        Standardize(1).fit(torch.tensor([[float("inf")], [0.0]]))


def test_embedding_head_has_two_layers_and_256_outputs_by_default():
    head = EmbeddingHead(2048)
    assert [layer.out_features for layer in head.layers if isinstance(layer, nn.Linear)] == [512, 256]
    assert head.embedding_size == 256
    assert isinstance(head.layers[-1], nn.Linear)


def test_embedding_head_options_add_layers(generator):
    head = EmbeddingHead(
        6, (5, 4, 3), activation=nn.GELU, batch_norm=True, input_dropout=0.25, dropout=0.5, norm_exponent=0.0
    )
    kinds = [type(layer) for layer in head.layers]
    block = [nn.Linear, nn.BatchNorm1d, nn.GELU, Dropout]
    assert kinds == [Dropout, *block, *block, nn.Linear]
    norms = head(torch.randn(8, 6, generator=generator)).norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(8))


def test_embedding_head_without_layers_is_an_error():
    with pytest.raises(ValueError, match=r"sizes of at least 1, with at least one layer, got 4 and \(\)"):
        EmbeddingHead(4, ())
    with pytest.raises(ValueError, match=r"got 4 and \(3, 0\)"):
        EmbeddingHead(4, (3, 0))


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_classifier_head_loss_is_binary_cross_entropy_of_its_probabilities(activation, generator):
    head = ClassifierHead(5, 3, activation=activation)
    logits = head(torch.randn(7, 5, generator=generator))
    labels = torch.randint(0, 2, (7, 3), generator=generator)
    p = head.probabilities(logits).double()
    expected = -(labels * p.log() + (1 - labels) * (1 - p).log()).mean()
    torch.testing.assert_close(head.loss(logits, labels).double(), expected, atol=1e-6, rtol=1e-6)
    if activation == "softmax":
        torch.testing.assert_close(p.sum(1), torch.ones(7, dtype=torch.float64), atol=1e-6, rtol=0)


def test_classifier_head_sigmoid_loss_is_finite_at_extreme_logits():
    head = ClassifierHead(1, 2)
    assert head.loss(torch.tensor([[1000.0, -1000.0]]), torch.tensor([[0, 1]])).item() == 1000.0


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_init_from_labels_gives_the_label_frequencies_as_probabilities(activation, generator):
    labels = torch.tensor([[1, 0, 1], [1, 0, 0], [1, 0, 0], [0.5, 0, 0]])
    head = ClassifierHead(5, 3, activation=activation).init_from_labels(labels)
    frequencies = torch.tensor([4.0, 0.5, 1.5]) / 5
    expected = frequencies if activation == "sigmoid" else frequencies / frequencies.sum()
    found = head.probabilities(head(torch.randn(7, 5, generator=generator)))
    torch.testing.assert_close(found, expected.expand(7, 3))
    assert head.linear.weight.requires_grad
    with pytest.raises(ValueError, match=r"`labels` must have shape \(N, 3\), got \(4, 2\)"):
        head.init_from_labels(labels[:, :2])


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.parametrize(("bad", "shown"), [(float("inf"), "inf"), (2.0, r"2\.0"), (-1.0, r"-1\.0")])
def test_labels_of_the_classifier_outside_0_1_are_an_error(activation, bad, shown):
    head, labels = ClassifierHead(5, 2, activation=activation), torch.tensor([[0.0, 1.0], [bad, 1.0]])
    before = state_of(head)
    for take in (head.init_from_labels, lambda labels: head.loss(torch.zeros(2, 2), labels)):
        with pytest.raises(
            ValueError, match=rf"`labels` must contain numbers in \[0, 1\], got {shown} at row 1, label 0"
        ):
            take(labels)
    assert all(torch.equal(value, before[name]) for name, value in head.state_dict().items())


def test_classifier_loss_without_validate_args_does_not_check_values():
    labels = torch.tensor([[2.0, 1.0]])  # binary cross entropy: 2 * 0 - log 2 for each
    loss = ClassifierHead(5, 2).loss(torch.zeros(1, 2), labels, validate_args=False)
    assert loss.item() == pytest.approx(0.6931472)


def test_unknown_activation_of_the_classifier_is_an_error():
    with pytest.raises(ValueError, match="got 'tanh'"):
        ClassifierHead(5, 3, activation="tanh")


def test_activate_last_applies_the_activation_to_the_embedding(generator):
    features = torch.randn(6, 5, generator=generator)
    torch.manual_seed(0)
    plain = EmbeddingHead(5, (4, 3), activation=nn.Tanh)
    torch.manual_seed(0)
    activated = EmbeddingHead(5, (4, 3), activation=nn.Tanh, activate_last=True)
    torch.testing.assert_close(activated(features), plain(features).tanh())


def test_embedding_head_clips_standardised_features(generator):
    train = torch.randn(50, 4, generator=generator) * torch.tensor([1.0, 5.0, 0.1, 2.0]) + 3
    features = torch.cat([train[:5], torch.tensor([[100.0, 3.0, -50.0, 3.0]])])
    head = EmbeddingHead(4, (3,), clip=2.0)
    head.standardize.fit(train)
    clipped = ((features - train.mean(0)) / train.std(0, correction=0)).clamp(-2, 2)
    assert clipped[-1, [0, 2]].tolist() == [2.0, -2.0]
    torch.testing.assert_close(head(features), head.layers(clipped))


@pytest.mark.parametrize("clip", [0.0, -1.0, float("nan")])
def test_clip_that_is_not_positive_is_an_error(clip):
    with pytest.raises(ValueError, match="`clip` must be None or above 0"):
        EmbeddingHead(3, (2,), clip=clip)


def test_weights_that_are_a_named_pipe_are_an_error(tmp_path):
    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(WeightsUnavailableError, match=r"pipe\.pth is not a regular file"):
        FrozenBackbone("squeezenet1_0", weights=tmp_path / "pipe.pth")


def test_reprs_show_the_settings():
    backbone = FrozenBackbone("squeezenet1_0", weights=None, unfrozen=("features.12",))
    expected = "FrozenBackbone(\n  'squeezenet1_0', weights='random', pooling=None, unfrozen=('features.12',)\n"
    assert repr(backbone).startswith(expected)
    assert "clip=3.0, norm_exponent=0.75" in repr(EmbeddingHead(4, (3,), clip=3.0, norm_exponent=0.75))
    assert repr(Standardize(4)) == "Standardize(num_features=4)"
    assert "activation='softmax'" in repr(ClassifierHead(4, 2, activation="softmax"))


def test_heads_import_torchvision_and_optional_packages_inside_functions_only():
    for path in Path(heads.__file__).parent.glob("*.py"):
        imports = r"^(?:import|from) (?:torchvision|timm|safetensors|huggingface_hub)"
        assert re.findall(imports, path.read_text(), re.MULTILINE) == [], path.name


@pytest.mark.parametrize("make", [torch.Tensor.tolist, torch.Tensor.numpy, lambda labels: pd.DataFrame(labels)])
@pytest.mark.parametrize(
    "head",
    [
        ClassifierHead(4, 3),
        ClassifierHead(4, 3, activation="softmax"),
        heads.LabelGraphHead(4, torch.eye(3), torch.eye(3)),
        heads.SemanticProjectionHead(4, torch.eye(3)),
    ],
    ids=lambda head: type(head).__name__,
)
def test_loss_reads_labels_of_every_kind(head, make):
    logits, labels = torch.randn(2, 3), torch.tensor([[1, 0, 1], [0, 1, 0]])
    assert head.loss(logits, make(labels)) == head.loss(logits, labels)
    with pytest.raises(TypeError, match=r"`labels` must .*MultiLabelBinarizer"):
        head.loss(logits, [["sea"], ["sun", "sky"]])


def test_dropout_draws_from_the_generator_of_its_thread_only_in_training():
    layer, ones = Dropout(0.25), torch.ones(400, 50, requires_grad=True)
    state = torch.get_rng_state()
    with seeded(0), without_global_generator():
        first, second = layer(ones), layer(ones)
    with seeded(0):
        assert torch.equal(layer(ones), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(first, second)
    assert sorted(first.unique().tolist()) == pytest.approx([0, 4 / 3])
    assert float((first == 0).float().mean()) == pytest.approx(0.25, abs=5 * math.sqrt(0.25 * 0.75 / ones.numel()))
    (gradient,) = torch.autograd.grad(first.sum(), ones)
    assert torch.equal(gradient, first.detach())
    assert torch.equal(layer.eval()(ones), ones)
    with seeded(0):
        assert not bool(Dropout(1.0)(ones).any())
