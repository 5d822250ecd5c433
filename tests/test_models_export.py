"""Exported models: torch.export and ONNX give the same numbers as the module, for any batch size."""

import json
import sys

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from mlmetric.heads import (
    ClassifierEnsemble,
    ClassifierHead,
    EmbeddingEnsemble,
    EmbeddingHead,
    FrozenBackbone,
    LabelNetwork,
)
from mlmetric.models import MultiLabelModel

NAMES = ["sea", "ciel été"]
TOLERANCE = 1e-4


def feature_model():
    heads = [EmbeddingHead(6, (8, 4), clip=3.0, dropout=0.5, norm_exponent=exponent) for exponent in (0.0, 0.75)]
    networks = [LabelNetwork(head, ClassifierHead(4, 2)) for head in heads]
    classifier = ClassifierEnsemble([*networks, ClassifierHead(6, 2, clip=3.0)])
    return MultiLabelModel(EmbeddingEnsemble(heads), classifier, label_names=NAMES, thresholds=[0.25, torch.inf])


def image_model():
    size = 512
    backbone = FrozenBackbone("squeezenet1_1", weights=None)
    return MultiLabelModel(EmbeddingHead(size, (4,), batch_norm=True), ClassifierHead(size, 2), backbone=backbone)


def inputs_of(model, number):
    generator = torch.Generator().manual_seed(number)
    shape = (number, 6) if model.backbone is None else (number, 3, 224, 224)
    return torch.randn(shape, generator=generator)


def assert_equal(model, inputs, outputs):
    with torch.no_grad():
        expected = model.eval()(inputs)
    for found, tensor in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(np.asarray(found), tensor, atol=TOLERANCE)


def run_onnx(path, name, inputs):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["probabilities", "embeddings"], {name: inputs.numpy()})


def test_program_of_features_equals_the_module(tmp_path):
    model = feature_model().train()
    program = model.export_program(tmp_path / "model.pt2")
    assert model.training
    extra = {"labels.json": ""}
    for exported in (program, torch.export.load(tmp_path / "model.pt2", extra_files=extra)):
        for number in (1, 5, 32):
            inputs = inputs_of(model, number)
            assert_equal(model, inputs, [output.detach() for output in exported.module()(inputs)])
    assert json.loads(extra["labels.json"]) == {"label_names": NAMES, "thresholds": [0.25, "inf"]}


@pytest.mark.slow
def test_onnx_file_of_features_equals_the_module(tmp_path):
    model = feature_model()
    model.export_onnx(tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    for number in (1, 32):
        inputs = inputs_of(model, number)
        assert_equal(model, inputs, run_onnx(tmp_path / "model.onnx", "features", inputs))
    metadata = onnxruntime.InferenceSession(tmp_path / "model.onnx").get_modelmeta().custom_metadata_map
    assert json.loads(metadata["label_names"]) == NAMES
    assert json.loads(metadata["thresholds"]) == [0.25, "inf"]


@pytest.mark.slow
def test_exports_of_an_image_model_equal_the_module(tmp_path):
    model = image_model()
    program = model.export_program()
    model.export_onnx(tmp_path / "model.onnx")
    for number in (1, 32):
        images = inputs_of(model, number)
        assert_equal(model, images, [output.detach() for output in program.module()(images)])
        assert_equal(model, images, run_onnx(tmp_path / "model.onnx", "images", images))


class MeanColors(nn.Module):
    def forward(self, images):
        return images.mean((2, 3))


def test_example_is_required_without_a_transform():
    backbone = FrozenBackbone(MeanColors())
    model = MultiLabelModel(nn.Linear(3, 2), ClassifierHead(3, 2), backbone=backbone)
    with pytest.raises(ValueError, match="`example`, a preprocessed batch of images, is required"):
        model.export_program()
    with pytest.raises(ValueError, match=r"`example` must be a batch .* got torch\.uint8 of shape \(1, 3, 4, 5\)"):
        model.export_program(example=torch.zeros(1, 3, 4, 5, dtype=torch.uint8))
    program = model.export_program(example=torch.zeros(1, 3, 4, 5))
    images = torch.rand(3, 3, 4, 5)
    assert_equal(model, images, [output.detach() for output in program.module()(images)])


@pytest.mark.parametrize("example", [torch.tensor(1.0), torch.zeros(0, 8), torch.zeros(2, 9), torch.zeros(2, 8, 1)])
def test_example_of_another_shape_is_an_error(example):
    model = MultiLabelModel(EmbeddingHead(8), ClassifierHead(8, 2))
    with pytest.raises(ValueError, match=r"must be a batch of at least one input, features \(N, 8\)"):
        model.export_program(example=example)
    with pytest.raises(TypeError, match="`example` must be a tensor, a batch of inputs, got ndarray"):
        model.export_program(example=example.numpy())


def test_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r'requires onnx and onnxscript: `pip install "mlmetric\[onnx\]"`'):
        feature_model().export_onnx(tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []
