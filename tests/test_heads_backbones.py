"""Backbones of timm and Hugging Face, and outputs with tokens."""

import copy
import json
import pickle
import sys
import types

import huggingface_hub
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from mlmetric._fingerprint import fingerprint
from mlmetric.heads import FrozenBackbone, WeightsUnavailableError

TINY = ["test_vit", "test_convnext", "test_efficientnet", "mobilenetv3_small_050"]
PREFIX_TOKENS = 1  # of test_vit


class Given(nn.Module):
    """A network that returns what it was made with."""

    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, images):
        return self.output


@pytest.fixture
def tokens(generator):
    return torch.randn(2, 5, 3, generator=generator)


# Tokens and other outputs of a module


@pytest.mark.parametrize("pooling", [None, "avg", "max", "cls"])
def test_tokens_are_pooled_over_tokens(pooling, tokens):
    features = FrozenBackbone(Given(tokens), pooling=pooling)(torch.zeros(2))
    for image in range(2):
        for feature in range(3):
            values = [tokens[image, token, feature].item() for token in range(5)]
            expected = {"max": max(values), "cls": values[0]}.get(pooling, sum(values) / 5)
            assert features[image, feature].item() == pytest.approx(expected, abs=1e-6)


def test_maps_have_no_class_token():
    backbone = FrozenBackbone(Given(torch.zeros(2, 3, 4, 5)), pooling="cls")
    message = r"`pooling='cls'` requires tokens \(N, T, D\), but Given returns feature maps \(2, 3, 4, 5\): use 'avg'"
    with pytest.raises(ValueError, match=message):
        backbone(torch.zeros(2))


def test_output_of_fewer_than_two_dimensions_is_an_error():
    with pytest.raises(ValueError, match=r"must return features \(N, D\), .* but Given returns \(4,\)"):
        FrozenBackbone(Given(torch.zeros(4)))(torch.zeros(4))


@pytest.mark.parametrize(
    "make", [lambda state: {"last_hidden_state": state}, lambda state: types.SimpleNamespace(last_hidden_state=state)]
)
@pytest.mark.parametrize("shape", [(2, 5, 3), (2, 3, 4, 4)])
def test_last_hidden_state_of_a_mapping_or_object_is_pooled(make, shape, generator):
    state = torch.randn(shape, generator=generator)
    expected = FrozenBackbone(Given(state), pooling="max")(torch.zeros(2))
    assert torch.equal(FrozenBackbone(Given(make(state)), pooling="max")(torch.zeros(2)), expected)


@pytest.mark.parametrize("make", [lambda: {"last_hidden_state": [1]}, lambda: types.SimpleNamespace(logits=1)])
def test_output_without_a_tensor_is_an_error(make):
    with pytest.raises(TypeError, match=r"must return a tensor of features, .* `last_hidden_state`, but Given returns"):
        FrozenBackbone(Given(make()))(torch.zeros(2))


def test_encoders_of_transformers_are_pooled():
    transformers = pytest.importorskip("transformers", reason="pip install transformers")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=32, patch_size=16
    )
    model = transformers.ViTModel(config)
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        states = model.eval()(images).last_hidden_state
    assert states.shape == (2, 5, 16)
    torch.testing.assert_close(FrozenBackbone(model)(images), states.mean(1))
    torch.testing.assert_close(FrozenBackbone(model, pooling="cls")(images), states[:, 0])
    assert FrozenBackbone(model).fingerprint() == FrozenBackbone(copy.deepcopy(model)).fingerprint()


# Pooling of named torchvision models


@pytest.mark.parametrize(
    ("name", "pooling", "message"),
    [
        ("resnet18", "cls", "None or 'avg' for 'resnet18'"),
        ("vit_b_32", "avg", "None or 'cls' for 'vit_b_32'"),
        ("vgg11", "avg", "None for 'vgg11'"),
        ("alexnet", "cls", "None for 'alexnet'"),
    ],
)
def test_pooling_that_a_torchvision_model_has_not_is_an_error(name, pooling, message):
    with (
        torch.device("meta"),
        pytest.raises(ValueError, match=f"`pooling` must be {message}, which is built that way, got '{pooling}'"),
    ):
        FrozenBackbone(name, weights=None, pooling=pooling)


@pytest.mark.parametrize(("name", "pooling"), [("densenet121", "avg"), ("vit_b_32", "cls")])
def test_own_pooling_of_a_torchvision_model_can_be_named(name, pooling):
    with torch.device("meta"):
        assert FrozenBackbone(name, weights=None, pooling=pooling).pooling == pooling


# timm


@pytest.mark.parametrize("name", TINY)
def test_features_of_timm_are_the_inputs_of_its_classifier(name, tmp_path):
    whole = timm.create_model(name).eval()
    torch.save(whole.state_dict(), tmp_path / "weights.pth")
    backbone = FrozenBackbone(f"timm/{name}", weights=tmp_path / "weights.pth")
    side = backbone.data_config["input_size"][1]
    images = torch.rand(2, 3, side, side)
    with torch.no_grad():
        expected = whole.forward_head(whole.forward_features(images), pre_logits=True)
    torch.testing.assert_close(backbone(images), expected)
    assert backbone.feature_size == expected.shape[1]
    assert (backbone.name, backbone.weights) == (f"timm/{name}", "weights.pth")
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


@pytest.mark.parametrize("pooling", [None, "avg", "max", "cls"])
def test_tokens_of_timm_are_pooled_without_the_class_token(pooling, tmp_path):
    whole = timm.create_model("test_vit").eval()
    save_file(whole.state_dict(), tmp_path / "model.safetensors")
    backbone = FrozenBackbone("timm/test_vit", weights=tmp_path / "model.safetensors", pooling=pooling)
    images = torch.rand(2, 3, 160, 160)
    with torch.no_grad():
        tokens = whole.forward_features(images)
    patches = tokens[:, PREFIX_TOKENS:]
    expected = {"avg": patches.mean(1), "max": patches.amax(1)}.get(pooling, tokens[:, 0])  # its own pooling is "cls"
    torch.testing.assert_close(backbone(images), expected)


@pytest.mark.parametrize("name", ["test_convnext", "test_efficientnet"])
def test_maps_of_timm_are_pooled_by_their_maximum(name, tmp_path):
    whole = timm.create_model(name, global_pool="max").eval()
    torch.save(whole.state_dict(), tmp_path / "weights.pt")
    images = torch.rand(2, 3, 160, 160)
    with torch.no_grad():
        expected = whole.forward_head(whole.forward_features(images), pre_logits=True)
    features = FrozenBackbone(f"timm/{name}", weights=tmp_path / "weights.pt", pooling="max")(images)
    torch.testing.assert_close(features, expected)
    message = f"`pooling='cls'` is not possible for 'timm/{name}' .*token"
    with pytest.raises(ValueError, match=message):
        FrozenBackbone(f"timm/{name}", weights=None, pooling="cls")


def test_reason_of_timm_against_a_pooling_may_be_empty():
    with pytest.raises(ValueError, match=r"`pooling='max'` is not possible for 'timm/tnt_s_patch16_224'\.$"):
        FrozenBackbone("timm/tnt_s_patch16_224", weights=None, pooling="max")


def test_timm_classifiers_of_two_heads_are_removed(tmp_path):
    state = timm.create_model("deit_tiny_distilled_patch16_224").state_dict()
    assert {"head.weight", "head_dist.weight"} <= state.keys()
    torch.save(state, tmp_path / "weights.pth")
    backbone = FrozenBackbone("timm/deit_tiny_distilled_patch16_224", weights=tmp_path / "weights.pth")
    assert backbone(torch.zeros(1, 3, 224, 224)).shape == (1, 192)


def test_timm_transform_and_data_config_are_those_of_the_model():
    backbone = FrozenBackbone("timm/test_vit", weights=None)
    assert json.loads(json.dumps(backbone.data_config)) == backbone.data_config
    assert backbone.data_config["input_size"] == [3, 160, 160]
    assert backbone.data_config["mean"] == [0.5, 0.5, 0.5]
    image = backbone.transform(Image.new("RGB", (300, 200), "white"))
    assert torch.equal(image, torch.ones(3, 160, 160))  # (1 - 0.5) / 0.5
    assert FrozenBackbone("timm/test_vit", weights=None, transform=len).transform is len
    assert FrozenBackbone("squeezenet1_0", weights=None).data_config is None


def test_timm_fingerprint_depends_on_weights_pooling_and_transform():
    torch.manual_seed(0)
    backbone = FrozenBackbone("timm/test_vit", weights=None)
    same = backbone.fingerprint()
    torch.manual_seed(0)
    assert FrozenBackbone("timm/test_vit", weights=None).fingerprint() == same
    assert pickle.loads(pickle.dumps(backbone)).fingerprint() == same
    assert FrozenBackbone("timm/test_vit", weights=None).fingerprint() != same
    torch.manual_seed(0)
    assert FrozenBackbone("timm/test_vit", weights=None, pooling="avg").fingerprint() != same
    other = FrozenBackbone("timm/test_resnet", weights=None).transform  # bilinear, not bicubic
    assert fingerprint(transform=backbone.transform) != fingerprint(transform=other)


def test_unfrozen_part_of_a_timm_model_is_trained():
    backbone = FrozenBackbone("timm/test_vit", weights=None, unfrozen=("blocks.1",)).train()
    trained = {name for name, parameter in backbone.model.named_parameters() if parameter.requires_grad}
    assert trained
    assert all(name.startswith("blocks.1.") for name in trained)
    assert backbone.model.blocks[1].training
    assert not backbone.model.blocks[0].training


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "resnet5",
            r"name of a timm model, got 'timm/resnet5'\. Close names: 'timm/resnet50'.* All names: `timm\.list_",
        ),
        ("resnet50.zzz", r"got 'timm/resnet50\.zzz'\. Close names: 'timm/resnet50'"),
        ("zzzzzzzzzzzzzzz", r"got 'timm/zzzzzzzzzzzzzzz'\. All names"),
    ],
)
def test_unknown_timm_name_is_an_error_with_close_names(name, message):
    with pytest.raises(ValueError, match=message):
        FrozenBackbone(f"timm/{name}", weights=None)


def test_weights_that_a_timm_model_has_not_are_an_error():
    with pytest.raises(ValueError, match=r"None, 'DEFAULT', 'test_vit\.r160_in1k' or a file ending in .* got 'a1'"):
        FrozenBackbone("timm/test_vit", weights="a1")
    with pytest.raises(ValueError, match=r"for 'timm/botnet50ts_256': there are no published weights"):
        FrozenBackbone("timm/botnet50ts_256")


def without_network(*_, **__):
    raise ConnectionRefusedError("Connection refused.\nMore lines.")


@pytest.mark.parametrize("where", ["huggingface_hub", "timm"])
def test_failed_download_of_timm_weights_is_an_error_that_names_the_alternatives(where, monkeypatch):
    if where == "huggingface_hub":
        monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", without_network)
        monkeypatch.setattr(timm, "create_model", None)  # is not called: its retries take long
        name, source = "test_vit", r"https://huggingface\.co/timm/test_vit\.r160_in1k"
    else:
        monkeypatch.setattr(timm, "create_model", without_network)
        name, source = "legacy_senet154", r"https://github\.com/\S*senet154\S*"
    message = rf"weights of 'timm/{name}' could not be downloaded from {source} \(Connection refused\)\. .* random"
    with pytest.raises(WeightsUnavailableError, match=message):
        FrozenBackbone(f"timm/{name}")


@pytest.mark.parametrize("weights", ["DEFAULT", "test_vit.r160_in1k"])
@pytest.mark.parametrize("cached", [True, False])
def test_published_timm_weights_are_loaded_and_named_by_their_tag(weights, cached, monkeypatch):
    source = timm.create_model("test_vit").state_dict()
    created = timm.create_model

    def create(name, *, pretrained=False, **options):
        model = created(name, **options)
        if pretrained:
            model.load_state_dict({key: value for key, value in source.items() if not key.startswith("head.")})
        return model

    def answer(url):
        assert url == "https://huggingface.co/timm/test_vit.r160_in1k/resolve/main/model.safetensors"

    monkeypatch.setattr(timm, "create_model", create)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda repository, file: "file" if cached else None)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", without_network if cached else answer)
    backbone = FrozenBackbone("timm/test_vit", weights=weights)
    assert backbone.weights == "test_vit.r160_in1k"
    assert torch.equal(backbone.model.cls_token, source["cls_token"])


@pytest.mark.parametrize(
    ("package", "make"),
    [
        ("timm", lambda path: FrozenBackbone("timm/test_vit", weights=None)),
        ("safetensors.torch", lambda path: FrozenBackbone(nn.Linear(2, 2), weights=path)),
    ],
)
def test_missing_package_is_an_error_with_the_command(package, make, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r'not installed: pip install "mlmetric\[timm\]"'):
        make(tmp_path / "weights.safetensors")


def test_damaged_safetensors_file_is_an_error(tmp_path):
    path = tmp_path / "torn.safetensors"
    save_file(nn.Linear(2, 2).state_dict(), path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(
        WeightsUnavailableError, match=r"torn\.safetensors could not be read as safetensors .*save_file"
    ):
        FrozenBackbone(nn.Linear(2, 2), weights=path)
    with pytest.raises(WeightsUnavailableError, match=r"gone\.safetensors does not exist"):
        FrozenBackbone(nn.Linear(2, 2), weights=tmp_path / "gone.safetensors")
