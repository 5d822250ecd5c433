"""The backbone of a saved model: by reference to public weights, by value, or passed by the user; its transform."""

import json
import re
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from torchvision.models import SqueezeNet1_1_Weights, get_model
from torchvision.transforms import Compose, InterpolationMode, ToTensor
from torchvision.transforms._presets import ImageClassification

from mlmetric.heads import ClassifierHead, EmbeddingHead, FrozenBackbone, WeightsUnavailableError
from mlmetric.models import MultiLabelModel
from mlmetric.models._backbone_config import digest, weights_license

IMAGES = [Image.effect_noise((48, 40), 80), Image.new("RGB", (40, 60), (200, 30, 90))]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder as of torch.hub, with random numbers in place of the published weights of SqueezeNet 1.1."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("hub")
    (folder / "hub" / "checkpoints").mkdir(parents=True)
    name = SqueezeNet1_1_Weights.IMAGENET1K_V1.url.rpartition("/")[2]
    torch.save(get_model("squeezenet1_1", weights=None).state_dict(), folder / "hub" / "checkpoints" / name)
    return folder, folder / "hub" / "checkpoints" / name


@pytest.fixture
def hub(published, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(published[0]))
    return published[1]


def image_model(backbone, size=512):
    model = MultiLabelModel(EmbeddingHead(size, (4,)), ClassifierHead(size, 3), backbone=backbone)
    model.classifier.linear.weight.detach().mul_(20)
    return model


def assert_same(loaded, model, images=IMAGES):
    np.testing.assert_array_equal(loaded.predict_proba(images), model.predict_proba(images))
    np.testing.assert_array_equal(loaded.embed(images), model.embed(images))
    assert loaded.predict_proba(images).std() > 0
    assert repr(loaded) == repr(model)


def saved_backbone(folder):
    config = json.loads((folder / "config.json").read_text())
    return config["backbone"], config["preprocessing"]


def tensors_of_backbone(folder):
    return [name for name in load_file(folder / "model.safetensors") if name.startswith("backbone.")]


# --- public weights


def test_public_weights_are_saved_by_reference(hub, tmp_path):
    model = image_model(FrozenBackbone("squeezenet1_1"))
    model.save_pretrained(tmp_path)
    config, preprocessing = saved_backbone(tmp_path)
    assert (config["kind"], config["weights"]) == ("reference", "SqueezeNet1_1_Weights.IMAGENET1K_V1")
    assert preprocessing["crop_size"] == 224
    assert tensors_of_backbone(tmp_path) == []
    assert_same(MultiLabelModel.from_pretrained(tmp_path), model)


def test_example_in_the_card_of_an_image_model_runs(hub, tmp_path, monkeypatch, capsys):
    image_model(FrozenBackbone("squeezenet1_1")).save_pretrained(tmp_path / "model")
    IMAGES[1].save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    exec(re.search(r"```python\n(.*?)```", (tmp_path / "model" / "README.md").read_text(), re.DOTALL)[1], {})
    assert capsys.readouterr().out.splitlines()[1:] == ["(1, 3)", "(1, 4)"]


def test_public_weights_are_saved_by_value_if_asked(hub, tmp_path, monkeypatch):
    model = image_model(FrozenBackbone("squeezenet1_1", pooling="max"))
    model.save_pretrained(tmp_path, backbone="value")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    loaded = MultiLabelModel.from_pretrained(tmp_path)
    assert_same(loaded, model)
    assert loaded.backbone.weights == "SqueezeNet1_1_Weights.IMAGENET1K_V1"


def test_public_weights_that_the_user_has_unfrozen_are_saved_by_value(hub, tmp_path):
    model = image_model(FrozenBackbone("squeezenet1_1"))
    weight = model.backbone.model.get_parameter("features.12.expand3x3.weight").requires_grad_(True)
    with torch.no_grad():
        weight.mul_(2)
    model.save_pretrained(tmp_path)
    assert saved_backbone(tmp_path)[0]["kind"] == "value"
    assert_same(MultiLabelModel.from_pretrained(tmp_path), model)


def test_public_weights_that_differ_from_those_of_training_are_refused(hub, tmp_path):
    model = image_model(FrozenBackbone("squeezenet1_1"))
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["backbone"]["digest"] = digest(FrozenBackbone("squeezenet1_1", weights=None).model)
    (tmp_path / "config.json").write_text(json.dumps(config))
    message = (
        r"config\.json: the weights SqueezeNet1_1_Weights\.IMAGENET1K_V1 .* are not those .* digests differ\. Pass"
    )
    with pytest.raises(ValueError, match=message):
        MultiLabelModel.from_pretrained(tmp_path)


def test_public_weights_that_are_unavailable_are_named_or_come_from_a_file(hub, tmp_path, monkeypatch):
    model = image_model(FrozenBackbone("squeezenet1_1"))
    model.save_pretrained(tmp_path)

    def without_network(name, weights=None, **options):
        if weights is not None:
            raise OSError("no route to host")
        return get_model(name, weights=None, **options)

    monkeypatch.setattr("torchvision.models.get_model", without_network)
    message = r"refers to .* weights=FILE\)`, .*IMAGENET1K_V1 of 'squeezenet1_1' could not be downloaded"
    with pytest.raises(WeightsUnavailableError, match=message) as caught:
        MultiLabelModel.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)
    given = FrozenBackbone("squeezenet1_1", weights=hub)
    loaded = MultiLabelModel.from_pretrained(tmp_path, backbone=given)
    np.testing.assert_array_equal(loaded.predict_proba(IMAGES), model.predict_proba(IMAGES))
    with pytest.raises(ValueError, match=r"`backbone` must pool by .*, as in training, got 'max'"):
        MultiLabelModel.from_pretrained(tmp_path, backbone=FrozenBackbone("squeezenet1_1", weights=hub, pooling="max"))
    with pytest.raises(ValueError, match="digests differ"):
        MultiLabelModel.from_pretrained(tmp_path, backbone=FrozenBackbone("squeezenet1_1", weights=None))


def test_trained_and_converted_weights_are_saved_by_value(hub, tmp_path):
    trained = FrozenBackbone("squeezenet1_1", unfrozen=("features.12",))
    with torch.no_grad():
        trained.model.features[12].squeeze.weight.mul_(2)
    model = image_model(trained).eval()
    model.save_pretrained(tmp_path / "trained")
    assert saved_backbone(tmp_path / "trained")[0]["kind"] == "value"
    loaded = MultiLabelModel.from_pretrained(tmp_path / "trained")
    assert_same(loaded, model)
    assert loaded.backbone.unfrozen == ("features.12",)
    half = image_model(FrozenBackbone("squeezenet1_1")).to(torch.bfloat16)
    half.save_pretrained(tmp_path / "half")
    loaded = MultiLabelModel.from_pretrained(tmp_path / "half")
    assert next(loaded.backbone.parameters()).dtype == torch.bfloat16
    assert_same(loaded, half)


def test_digest_depends_on_the_tensors_only():
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.load_state_dict(first.state_dict())
    assert digest(first) == digest(second)
    for change in (
        lambda: second.bias.data.add_(1),
        second.double,
        lambda: second.register_buffer("b", torch.zeros(0)),
    ):
        before = digest(second)
        change()
        assert digest(second) != before


def test_licence_of_weights_is_shown_if_it_is_stated(hub, tmp_path):
    backbone = FrozenBackbone("squeezenet1_1")
    image_model(backbone).save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "Licence of the backbone's weights, SqueezeNet1_1_Weights.IMAGENET1K_V1: not known to mlmetric" in card
    assert "pipeline_tag: image-classification" in card
    backbone.name, backbone.weights = "regnet_y_16gf", "RegNet_Y_16GF_Weights.IMAGENET1K_SWAG_E2E_V1"
    assert "SWAG/blob/main/LICENSE" in weights_license(backbone)
    backbone.name, backbone.weights = "timm/resnet18", "resnet18.a1_in1k"
    backbone.model.pretrained_cfg = {"license": "apache-2.0"}
    assert weights_license(backbone) == "apache-2.0"
    backbone.weights = "random"
    assert weights_license(backbone) is None


# --- weights without a public name


@pytest.mark.parametrize("from_file", [False, True], ids=["random", "file"])
def test_other_weights_of_a_known_architecture_are_saved_by_value(hub, tmp_path, from_file):
    model = image_model(FrozenBackbone("squeezenet1_1", weights=hub if from_file else None))
    model.save_pretrained(tmp_path)
    assert saved_backbone(tmp_path)[0]["kind"] == "value"
    assert len(tensors_of_backbone(tmp_path)) == len(model.backbone.model.state_dict())
    loaded = MultiLabelModel.from_pretrained(tmp_path)
    assert_same(loaded, model)
    assert loaded.backbone.weights == (hub.name if from_file else "random")


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6))

    def forward(self, images):
        return self.layers(images).mean((2, 3))


def to_tensor(image):
    return ToTensor()(image.resize((8, 8)))


def test_module_of_the_user_is_passed_and_gets_its_tensors(tmp_path):
    model = image_model(FrozenBackbone(Small(), transform=to_tensor), size=6)
    model.save_pretrained(tmp_path)
    backbone, preprocessing = saved_backbone(tmp_path)
    assert (backbone["kind"], backbone["class"]) == ("module", f"{Small.__module__}.Small")
    assert preprocessing == {"kind": "custom", "repr": "to_tensor"}
    for given in (Small(), FrozenBackbone(Small())):
        loaded = MultiLabelModel.from_pretrained(tmp_path, backbone=given, transform=to_tensor)
        np.testing.assert_array_equal(loaded.predict_proba(IMAGES), model.predict_proba(IMAGES))
    loaded = MultiLabelModel.from_pretrained(tmp_path, backbone=FrozenBackbone(Small(), transform=to_tensor))
    assert_same(loaded, model)
    with pytest.raises(ValueError, match=r"the backbone is a module of your own, .*Small, whose code .* `backbone=`"):
        MultiLabelModel.from_pretrained(tmp_path, transform=to_tensor)
    with pytest.raises(
        ValueError, match=r"by code of your own, to_tensor, which is not saved: pass it as `transform=`"
    ):
        MultiLabelModel.from_pretrained(tmp_path, backbone=Small())
    with pytest.raises(ValueError, match=r"model\.safetensors does not match config\.json"):
        MultiLabelModel.from_pretrained(tmp_path, backbone=nn.Conv2d(3, 6, 3), transform=to_tensor)
    card = (tmp_path / "README.md").read_text()
    assert f'from_pretrained("{tmp_path.name}", backbone=backbone, transform=transform)' in card


def test_backbone_for_a_model_of_features_is_an_error(tmp_path):
    MultiLabelModel(EmbeddingHead(6, (4,)), ClassifierHead(6, 3)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="the model has no backbone, so `backbone` must be None"):
        MultiLabelModel.from_pretrained(tmp_path, backbone=Small())


# --- transforms


def round_trip(tmp_path, backbone, **options):
    image_model(backbone, size=6).save_pretrained(tmp_path)
    return MultiLabelModel.from_pretrained(tmp_path, backbone=Small(), **options).backbone.transform


def test_presets_of_torchvision_are_saved_with_all_their_fields(tmp_path):
    preset = ImageClassification(
        crop_size=20, resize_size=24, mean=(0.1, 0.2, 0.3), interpolation=InterpolationMode.BICUBIC, antialias=False
    )
    rebuilt = round_trip(tmp_path, FrozenBackbone(Small(), transform=preset))
    fields = {name: value for name, value in vars(preset).items() if not name.startswith("_")}
    assert {name: getattr(rebuilt, name) for name in fields} == fields


class Shift(nn.Module):
    """A transform with a tensor of its own, which is not one of the model."""

    def __init__(self, value):
        super().__init__()
        self.register_buffer("value", torch.tensor(value))

    def forward(self, image):
        return to_tensor(image) + self.value


def test_tensors_of_a_transform_are_not_saved(tmp_path):
    rebuilt = round_trip(tmp_path, FrozenBackbone(Small(), transform=Shift(0.5)), transform=Shift(0.25))
    assert rebuilt.value == 0.25
    assert not [name for name in tensors_of_backbone(tmp_path) if "transform" in name]


def test_model_without_a_transform_is_loaded_without_one(tmp_path):
    backbone = FrozenBackbone(Small())
    backbone.transform = None  # where a convolution of RGB images has got a default
    assert round_trip(tmp_path, backbone) is None
    assert saved_backbone(tmp_path)[1] is None


def test_transforms_of_timm_are_saved_as_their_data_configuration(tmp_path):
    timm_data = pytest.importorskip("timm.data", reason="the package of the extra `timm`")
    config = {"input_size": [3, 32, 32], "interpolation": "bicubic", "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5]}
    tuples = {name: tuple(value) if isinstance(value, list) else value for name, value in config.items()}
    backbone = FrozenBackbone(Small(), transform=timm_data.create_transform(**tuples, is_training=False))
    backbone.data_config = config
    rebuilt = round_trip(tmp_path, backbone)
    assert saved_backbone(tmp_path)[1] == {"kind": "timm.data.create_transform", **config}
    assert torch.equal(rebuilt(IMAGES[1]), backbone.transform(IMAGES[1]))
    backbone.transform = Compose([to_tensor])
    with pytest.raises(ValueError, match="code of your own"):
        round_trip(tmp_path, backbone)


def test_transform_of_timm_without_timm_is_named(tmp_path, monkeypatch):
    image_model(FrozenBackbone(Small(), transform=to_tensor), size=6).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"preprocessing": {"kind": "timm.data.create_transform"}}))
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setitem(sys.modules, "timm.data", None)
    with pytest.raises(ImportError, match=r'preprocessed by timm: `pip install "mlmetric\[timm\]"`'):
        MultiLabelModel.from_pretrained(tmp_path, backbone=Small())


@pytest.mark.parametrize(
    ("preprocessing", "message"),
    [
        ({"kind": "pickle"}, "of a kind that this mlmetric does not know: 'pickle'"),
        ({}, "of a kind that this mlmetric does not know: None"),
        (
            {"kind": "torchvision.transforms._presets.ImageClassification", "interpolation": "cubist"},
            "`preprocessing` cannot be made from its settings .*cubist",
        ),
        ({"kind": "torchvision.transforms._presets.ImageClassification"}, "`preprocessing` cannot be made"),
    ],
)
def test_preprocessing_that_cannot_be_rebuilt_is_named(tmp_path, preprocessing, message):
    image_model(FrozenBackbone(Small(), transform=to_tensor), size=6).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"preprocessing": preprocessing}))
    with pytest.raises(ValueError, match=rf"config\.json: .*{message}"):
        MultiLabelModel.from_pretrained(tmp_path, backbone=Small())


def test_precision_of_a_backbone_is_saved_and_restored(hub, tmp_path):
    model = image_model(FrozenBackbone("squeezenet1_1", autocast="bfloat16", channels_last=True)).eval()
    model.save_pretrained(tmp_path)
    assert saved_backbone(tmp_path)[0]["autocast"] == "bfloat16"
    loaded = MultiLabelModel.from_pretrained(tmp_path)
    assert (loaded.backbone.autocast, loaded.backbone.channels_last) == ("bfloat16", False)
    np.testing.assert_allclose(loaded.predict_proba(IMAGES), model.predict_proba(IMAGES), atol=0.02)
    given = MultiLabelModel.from_pretrained(tmp_path, backbone=FrozenBackbone("squeezenet1_1", autocast="bfloat16"))
    np.testing.assert_array_equal(given.predict_proba(IMAGES), loaded.predict_proba(IMAGES))
    message = r"`backbone` must have the precision `autocast='bfloat16'`, as in training, got None.* after loading"
    with pytest.raises(ValueError, match=message):
        MultiLabelModel.from_pretrained(tmp_path, backbone=FrozenBackbone("squeezenet1_1"))


def test_backbone_without_autocast_is_saved_as_before_there_was_one(hub, tmp_path):
    image_model(FrozenBackbone("squeezenet1_1")).save_pretrained(tmp_path)
    assert "autocast" not in saved_backbone(tmp_path)[0]


def test_precision_that_is_unknown_is_refused(hub, tmp_path):
    image_model(FrozenBackbone("squeezenet1_1", autocast="float16")).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"float16"', '"float8"'))
    with pytest.raises(
        ValueError, match="`autocast` of `backbone` must be None, 'bfloat16' or 'float16', got 'float8'"
    ):
        MultiLabelModel.from_pretrained(tmp_path)


def test_compiled_backbone_in_channels_last_is_saved_by_value(tmp_path, monkeypatch):
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda call, **options: compile_(call, backend="eager", **options))
    backbone = FrozenBackbone("squeezenet1_1", weights=None, compile=True, channels_last=True)
    model = image_model(backbone).eval()
    probabilities = model.predict_proba(IMAGES)
    model.save_pretrained(tmp_path)
    loaded = MultiLabelModel.from_pretrained(tmp_path)
    assert not loaded.backbone.compiled
    np.testing.assert_allclose(loaded.predict_proba(IMAGES), probabilities, atol=1e-5)
    torch.compiler.reset()
