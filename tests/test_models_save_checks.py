"""Saved models: forged configurations, and models that cannot be made again from their files."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mlmetric.heads import ClassifierHead, EmbeddingHead, FrozenBackbone
from mlmetric.models import MultiLabelModel

ROWS = torch.from_numpy(np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32))


def edit(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def loading(folder, message):
    with pytest.raises(ValueError, match=message) as caught:
        MultiLabelModel.from_pretrained(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


# --- forged configurations


@pytest.mark.parametrize(
    ("embedding", "message"),
    [
        ({"class": "Linear", "arguments": {"in_features": 6, "out_features": 10**13}}, "does not match"),
        ({"class": "Linear", "arguments": {"in_features": 6, "out_features": 4, "device": "cpu"}}, "a device or dtype"),
        (
            {
                "class": "LabelGraphHead",
                "arguments": {"in_features": 6, "label_vectors": [10**7] * 2, "hidden_features": 4},
            },
            "does not match",
        ),
    ],
    ids=["size", "device", "graph"],
)
def test_sizes_in_a_configuration_take_no_memory(tmp_path, embedding, message):
    MultiLabelModel(EmbeddingHead(6), ClassifierHead(6, 3)).save_pretrained(tmp_path)
    edit(tmp_path, embedding=embedding)
    loading(tmp_path, message)


def test_modules_that_are_nested_too_deeply_are_an_error(tmp_path):
    MultiLabelModel(EmbeddingHead(6), ClassifierHead(6, 3)).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"embedding": "HERE"}
    for depth in (60, 100_000):  # more than is read, and more than Python can parse
        text = '{"class": "Sequential", "modules": {"0": ' * depth + '{"class": "Identity"}' + "}}" * depth
        (tmp_path / "config.json").write_text(json.dumps(config).replace('"HERE"', text))
        loading(tmp_path, r"(does not match config\.json|not valid JSON|nested too deeply)")


# --- models that cannot be made again


def share_standardize(model):
    model.classifier.standardize = model.embedding.standardize


def add_hook(model):
    model.embedding.register_forward_hook(lambda module, inputs, output: 2 * output)


def add_parametrization(model):
    nn.utils.spectral_norm(model.embedding.layers[0])


def add_infinity(model):
    model.embedding.layers.append(nn.Hardtanh(0, float("inf")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (share_standardize, "only one of the two has the tensor 'classifier.standardize.mean'"),
        (add_hook, "the outputs of `embedding` differ by"),
        (add_parametrization, "only one of the two has the tensor 'embedding.layers.0.weight'"),
        (add_infinity, "Hardtanh, cannot be made from its arguments"),
    ],
)
def test_model_that_cannot_be_made_again_is_not_saved(tmp_path, change, message):
    model = MultiLabelModel(EmbeddingHead(6, (2,)), ClassifierHead(6, 3))
    model.save_pretrained(tmp_path / "saved")
    change(model)
    with pytest.raises(ValueError, match=f"cannot be saved, because .* differs from it: .*{message}"):
        model.save_pretrained(tmp_path / "not")
    assert not (tmp_path / "not").exists()


def test_names_and_thresholds_that_were_changed_are_checked(tmp_path):
    model = MultiLabelModel(EmbeddingHead(6, (2,)), ClassifierHead(6, 3))
    model.label_names = ["a", "a", "b"]
    with pytest.raises(ValueError, match="must be different, but 'a' occurs 2 times"):
        model.save_pretrained(tmp_path)
    model.label_names = ["a", "b", "c"]
    model.thresholds = torch.full((2,), 0.5)
    with pytest.raises(ValueError, match=r"`thresholds` must be a number or have shape \(3,\)"):
        model.save_pretrained(tmp_path)
    model.thresholds = torch.tensor(0.25)
    model.save_pretrained(tmp_path)
    assert MultiLabelModel.from_pretrained(tmp_path).thresholds.tolist() == [0.25] * 3


def test_sizes_can_be_integers_of_numpy(tmp_path):
    embedding, classifier = nn.Linear(np.int64(6), np.int32(4)), ClassifierHead(6, np.int64(3))
    model = MultiLabelModel(embedding, classifier, in_features=np.int64(6))
    model.save_pretrained(tmp_path)
    assert np.array_equal(MultiLabelModel.from_pretrained(tmp_path).embed(ROWS), model.embed(ROWS))
    for size in (0, 6.5, "6"):
        with pytest.raises(ValueError, match="`in_features` must be a whole number from 1"):
            MultiLabelModel(nn.Identity(), Scores(), in_features=size)


class Scores(nn.Module):
    def forward(self, features):
        return features

    def probabilities(self, logits):
        return logits.sigmoid()


def test_texts_that_utf8_cannot_encode(tmp_path):
    parts = EmbeddingHead(6, (2,)), ClassifierHead(6, 3)
    with pytest.raises(ValueError, match="`label_names` must be texts that UTF-8 can encode, got 'b"):
        MultiLabelModel(*parts, label_names=["a", "b\udcff", "c"])
    MultiLabelModel(*parts, record={"data": "caf\udce9", "k\udce9y": Path("\udce9")}).save_pretrained(tmp_path)
    assert MultiLabelModel.from_pretrained(tmp_path).record == {"data": r"caf\udce9", r"k\udce9y": r"\udce9"}


# --- forged preprocessing


@pytest.fixture(scope="module")
def model_of_images(tmp_path_factory):
    backbone = FrozenBackbone("squeezenet1_0", weights=None)
    model = MultiLabelModel(EmbeddingHead(512, (2,)), ClassifierHead(512, 3), backbone=backbone)
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    "change",
    [
        *({"crop_size": 10**6}, {"crop_size": None}, {"resize_size": "x"}, {"std": [0, 0, 0]}, {"std": [0.5, 0.5]}),
        *({"mean": [0.5, "x", 1]}, {"interpolation": 3}, {"interpolation": "x"}, {"antialias": "no"}, {"other": 1}),
    ],
    ids=str,
)
def test_wrong_preprocessing_is_named_when_the_model_is_loaded(tmp_path, model_of_images, change):
    config = json.loads((model_of_images / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"preprocessing": config["preprocessing"] | change}))
    loading(tmp_path, f"`preprocessing` cannot be made from its settings.*({next(iter(change))}|is not a valid)")
