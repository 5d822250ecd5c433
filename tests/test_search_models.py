"""A search index with a model that makes embeddings of images."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from mlmetric.heads import ClassifierHead, EmbeddingHead, FrozenBackbone
from mlmetric.models import MultiLabelModel
from mlmetric.search import Hit, SearchIndex


class Model:
    """Embeds an image, a tensor (3, H, W), as its mean colour, and predicts a label for each bright channel."""

    label_names = ("indoors", "cat", "dog")
    backbone = "any"

    def embed(self, images):
        return self._colours(images).numpy()

    def predict(self, images):
        return [
            {name: 0.9 for name, value in zip(self.label_names, colours, strict=True) if value > 0.5}
            for colours in self._colours(images)
        ]

    def _colours(self, images):
        images = images if isinstance(images, torch.Tensor) else torch.stack(images)
        return (images[None] if images.ndim == 3 else images).mean(dim=(2, 3))


@pytest.fixture
def images():
    return torch.tensor([[0.9, 0.0, 0.0], [0.9, 0.8, 0.0], [0.0, 0.0, 1.0]])[:, :, None, None].expand(3, 3, 4, 4)


def test_images_are_added_and_searched_for_with_predicted_labels(images):
    model = Model()
    index = SearchIndex(model=model)
    index.add(images, ids=["a", "b", "c"], labels=[["indoors"], ["cat", "dog"], ["dog"]])
    assert index.label_names == ["indoors", "cat", "dog"]
    np.testing.assert_array_equal(index.embeddings, model.embed(images))
    expected = [
        Hit("b", pytest.approx(0, abs=1e-6), ("cat", "dog"), {"cat": 1 / 3}),
        Hit("a", pytest.approx(0.8), ("indoors",), {"indoors": 0.5}),
    ]
    assert index.search(images[1], 2) == [expected]  # predicted: indoors, cat
    assert index.search([images[1]], 2) == [expected]
    assert index.search(images[1:2], 2, labels=[["dog"]])[0][0].shared == {"dog": 0.5}
    assert index.search(model.embed(images[1:2]), 2)[0][0].shared == {}
    np.testing.assert_array_equal(index.kneighbors(images, 3)[1], [[0, 1, 2], [1, 0, 2], [2, 0, 1]])


def test_embeddings_can_be_added_to_an_index_with_a_model(images):
    index = SearchIndex(model=Model())
    index.add(Model().embed(images))
    index.add(torch.zeros(1, 3))
    index.add([[0.5, 0.5, 0.5], [1.0, 1.0, 1.0]])
    index.add(list(images[:1]))
    np.testing.assert_allclose(index.embeddings[-1], [0.9, 0.0, 0.0], rtol=1e-6)
    assert len(index) == 7
    assert index.search(images[:1], 1) == [
        [Hit(0, pytest.approx(0, abs=1e-6), (), {})]
    ]  # without labels nothing is predicted


def test_paths_and_pictures_go_to_the_model(tmp_path):
    class OfAnything(Model):
        def embed(self, images):
            return np.full((len(images) if isinstance(images, list) else 1, 3), 0.5)

    index = SearchIndex(model=OfAnything())
    picture = Image.new("L", (4, 4))
    for images in ("a.jpg", tmp_path / "a.jpg", picture, ["a.jpg", tmp_path], [picture] * 2, np.zeros((1, 3, 4, 4))):
        index.add(images)
    assert len(index) == 8


def test_what_a_model_predicts_is_added_only_if_passed(images):
    index = SearchIndex(model=Model())
    index.add(images, labels=Model().predict(images))
    assert index.labels.tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]


def test_predicted_names_are_matched_by_name_if_the_order_differs(images):
    index = SearchIndex(label_names=["dog", "cat", "indoors"], model=Model())
    index.add(images, labels=Model().predict(images))
    assert index.labels.tolist() == [[0, 0, 1], [0, 1, 1], [1, 0, 0]]
    assert index.search(images[1:2], 1)[0][0].shared == {"cat": 0.5, "indoors": 0.5}


def test_repeated_ids_raise_before_images_are_embedded(images):
    class Slow(Model):
        def embed(self, images):
            raise AssertionError("was called")

    with pytest.raises(ValueError, match="unique, got 'a' at row 1"):
        SearchIndex(model=Slow()).add(images, ids=["a", "a", "b"])


def test_loaded_index_takes_a_model(images, tmp_path):
    index = SearchIndex(model=Model())
    index.add(images, labels=Model().predict(images))
    index.save(tmp_path)
    loaded = SearchIndex.load(tmp_path, model=Model())
    assert loaded.search(images, 2) == index.search(images, 2)
    unnamed = SearchIndex()
    unnamed.add([[0.0]], labels=[[1, 0]])
    unnamed.save(tmp_path)
    with pytest.raises(ValueError, match="`model` must have 2 labels like the index, got 3"):
        SearchIndex.load(tmp_path, model=Model())


def test_model_without_its_own_names_takes_those_given(images):
    class Unnamed(Model):
        label_names = property()

    assert SearchIndex(model=Unnamed()).label_names is None
    assert SearchIndex(label_names=["indoors"], model=Unnamed()).label_names == ["indoors"]


def test_invalid_model_raises():
    class OnFeatures(Model):
        backbone = None

    with pytest.raises(TypeError, match="`model` must have the methods `embed` and `predict`, got Linear"):
        SearchIndex(model=torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"a model on features, without backbone: pass `model\.embed\(features\)`"):
        SearchIndex(model=OnFeatures())
    with pytest.raises(ValueError, match="`label_names` must be those of `model`, got 'cow', which one of them lacks"):
        SearchIndex(label_names=["indoors", "cat", "dog", "cow"], model=Model())


def test_images_can_be_an_iterator(images):
    index = SearchIndex(model=Model())
    index.add(iter(images), labels=Model().predict(images))
    assert len(index) == len(images)
    assert index.search(iter(images), 2) == index.search(list(images), 2)


def test_no_images_have_no_hits(images):
    class Empty(Model):
        def embed(self, images):
            return super().embed(images) if len(images) else np.zeros((0, 3))

        def predict(self, images):
            return super().predict(images) if len(images) else []

    index = SearchIndex(model=Empty())
    index.add(images, labels=Model().predict(images))
    assert index.search([], 2) == []


def test_a_model_of_images_reads_each_query_once(tmp_path):
    calls = []

    class Backbone(nn.Module):
        def forward(self, images):
            calls.append(len(images))
            return images.flatten(1)[:, :4]

    backbone = FrozenBackbone(
        Backbone(), transform=lambda image: torch.tensor(np.array(image)).float().permute(2, 0, 1)
    )
    model = MultiLabelModel(EmbeddingHead(4, (3,)), ClassifierHead(4, 2), backbone=backbone, thresholds=0.0)
    images = [Image.fromarray(np.full((8, 8, 3), shade, dtype=np.uint8)) for shade in (10, 90, 200)]
    index = SearchIndex(model=model)
    index.add(images, labels=[["0"], ["1"], ["0", "1"]])
    calls.clear()
    hits = index.search(iter(images[:2]), k=1)
    assert calls == [2]
    assert [row[0].id for row in hits] == [0, 1]
    assert [sorted(row[0].shared) for row in hits] == [["0"], ["1"]]
    labels, embeddings = model.predict_and_embed(images)
    assert labels == model.predict(images)
    np.testing.assert_array_equal(embeddings, model.embed(images))
