"""MultiLabelModel: the same numbers as the estimator, inputs of all kinds, and checks of its parts."""

import copy
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from imblearn.pipeline import make_pipeline as make_sampling_pipeline
from PIL import Image
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from mlmetric.data import BadImageError, read_image
from mlmetric.estimators import MetricClassifier, MetricEmbedder
from mlmetric.heads import (
    ClassifierEnsemble,
    ClassifierHead,
    EmbeddingHead,
    FrozenBackbone,
    LabelGraphHead,
    LabelNetwork,
)
from mlmetric.models import MultiLabelModel
from mlmetric.under_sampling import LabelCapUnderSampler

FAST = {"head": partial(EmbeddingHead, widths=(8, 4)), "n_members": 2, "max_epochs": 2, "random_state": 0}
NAMES = ["sea", "sky", "sun"]


def rows(number=60, size=6):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, (number, 3))
    return (y @ rng.normal(size=(3, size)) + rng.normal(size=(number, size))).astype(np.float32), y


X, Y = rows()


@pytest.fixture(scope="module", params=[False, True], ids=["members", "two stages"])
def fitted(request):
    return MetricClassifier(two_stage=request.param, **FAST).fit(X, Y)


class MeanColors(nn.Module):
    """A backbone: the mean of each color channel."""

    def forward(self, images):
        return images.mean((2, 3))


def to_tensor(image):
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255


def color_model(transform=to_tensor, **options):
    classifier = ClassifierHead(3, 3)
    with torch.no_grad():
        classifier.linear.weight.copy_(8 * torch.eye(3))
        classifier.linear.bias.fill_(-4)
    embedding = nn.Linear(3, 2, bias=False)
    backbone = FrozenBackbone(MeanColors(), transform=transform)
    return MultiLabelModel(embedding, classifier, backbone=backbone, label_names=["red", "green", "blue"], **options)


def plain(color, size=(4, 3), mode="RGB"):
    return Image.new(mode, size, color)


# --- the estimator's model


def test_model_of_a_classifier_gives_its_probabilities_embeddings_and_decisions(fitted):
    model = fitted.to_model(label_names=NAMES)
    np.testing.assert_array_equal(model.predict_proba(X), fitted.predict_proba(X))
    np.testing.assert_array_equal(model.embed(X), fitted.transform(X))
    found = [[name in row for name in NAMES] for row in model.predict(X)]
    np.testing.assert_array_equal(found, fitted.predict(X) == 1)
    np.testing.assert_array_equal(model.thresholds, fitted.thresholds_.astype(np.float32))
    assert not model.training


def test_probability_at_the_threshold_is_predicted_and_infinity_never():
    classifier = ClassifierHead(2, 3).init_from_labels(np.eye(3))
    probability = classifier.probabilities(classifier(torch.zeros(1, 2)))[0, 0].item()
    above = np.nextafter(np.float32(probability), np.float32(1))
    model = MultiLabelModel(nn.Linear(2, 1), classifier, thresholds=[probability, above, torch.inf], label_names=NAMES)
    assert model.predict(np.zeros((1, 2))) == [{"sea": probability}]


def test_predicted_labels_are_in_the_order_of_their_probabilities():
    classifier = ClassifierHead(2, 3).init_from_labels([[0, 1, 1], [0, 1, 0], [0, 0, 0]])
    names = list(MultiLabelModel(nn.Linear(2, 1), classifier, thresholds=0, label_names=NAMES).predict([[0, 0]])[0])
    assert names == ["sky", "sun", "sea"]


def test_heads_are_copied_together_so_that_the_estimator_is_unaffected(fitted):
    before = fitted.predict_proba(X)
    model = fitted.to_model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    np.testing.assert_array_equal(fitted.predict_proba(X), before)
    assert (getattr(model.classifier, "head", None) is model.embedding) == fitted.two_stage


@pytest.mark.parametrize(
    ("y", "names"),
    [
        (Y, ["0", "1", "2"]),
        (pd.DataFrame(Y, columns=NAMES), NAMES),
        ([[name for name, present in zip(NAMES, row, strict=True) if present] for row in Y], NAMES),
        (pd.DataFrame(Y[:, :2], columns=NAMES[:2]), NAMES[:2]),
    ],
    ids=["no names", "data frame", "lists of names", "two labels"],
)
def test_label_names_are_those_of_the_training(y, names):
    assert MetricClassifier(**FAST).fit(X, y).to_model().label_names == names


def test_record_contains_what_the_estimator_knows_and_what_the_caller_adds(fitted):
    record = fitted.to_model(record={"metrics": {"mAP": np.float64(0.5), "F1": np.nan}}).record
    assert record["estimator"] == "MetricClassifier"
    assert record["parameters"]["threshold"] == "macro"
    assert record["parameters"]["head"] == "partial(EmbeddingHead, widths=(8, 4))"
    assert (record["training_rows"], record["features"]) == (60, 6)
    assert record["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert record["metrics"] == {"mAP": 0.5, "F1": None}


class Features:
    """What is needed of `ImageFeatures`: a fitted transformer that has the backbone of its features."""

    def __init__(self, backbone):
        self.backbone_ = backbone

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return np.array([np.asarray(image).reshape(-1, 3).mean(0) / 255 for image in X], dtype=np.float32)


def test_model_of_a_pipeline_takes_images():
    images = [plain(tuple(int(200 * value) for value in row)) for row in Y]
    backbone = FrozenBackbone(MeanColors(), transform=to_tensor)
    pipeline = make_sampling_pipeline(
        Features(backbone), LabelCapUnderSampler(random_state=0), "passthrough", MetricClassifier(**FAST)
    ).fit(images, Y)
    model = MultiLabelModel.from_estimator(pipeline, label_names=NAMES)
    assert model.backbone is backbone
    np.testing.assert_allclose(model.predict_proba(images), pipeline.predict_proba(images), atol=1e-6)
    with pytest.raises(ValueError, match="`backbone` must be None for a pipeline that starts with one"):
        MultiLabelModel.from_estimator(pipeline, backbone=backbone)


def test_estimators_without_a_model_are_errors(fitted):
    assert MultiLabelModel.from_estimator(fitted).in_features == 6
    scaled = make_pipeline(StandardScaler(), MetricClassifier(**FAST)).fit(X, Y)
    with pytest.raises(TypeError, match=r"has the step 'standardscaler' \(StandardScaler\) before the classifier"):
        MultiLabelModel.from_estimator(scaled)
    with pytest.raises(TypeError, match="must be a MetricClassifier, or a pipeline that ends with one, got MetricEmb"):
        MultiLabelModel.from_estimator(MetricEmbedder())
    with pytest.raises(NotFittedError):
        MetricClassifier().to_model()
    with pytest.raises(NotFittedError):
        MultiLabelModel.from_estimator(make_pipeline(StandardScaler(), MetricClassifier()))
    with pytest.raises(ValueError, match=r"got 6 \(`in_features`\), 512 \(`backbone`\), 6 \(`embedding`\)"):
        fitted.to_model(backbone=FrozenBackbone("squeezenet1_0", weights=None))


# --- features as inputs


def test_features_are_read_as_by_the_estimator(fitted):
    model = fitted.to_model()
    expected = fitted.predict_proba(X)
    for inputs in (X.astype(np.float64), torch.from_numpy(X), X.tolist(), pd.DataFrame(X)):
        np.testing.assert_array_equal(model.predict_proba(inputs), expected)
    np.testing.assert_allclose(model.predict_proba(X, batch_size=7), expected, atol=1e-6)
    with pytest.raises(ValueError, match="`inputs` must have 6 features, got 4"):
        model.predict_proba(X[:, :4])
    with pytest.raises(ValueError, match="inputs contains NaN"):
        model.embed(np.full((1, 6), np.nan))
    with pytest.raises(ValueError, match="Expected 2D array, got 1D array"):
        model.embed(X[0])
    for size in (0, 2.5, "3"):
        with pytest.raises(ValueError, match=f"`batch_size` must be None or a whole number from 1, got {size!r}"):
            model.predict(X, batch_size=size)


@pytest.mark.parametrize("inputs", [[], np.zeros((0, 6)), torch.zeros(0, 6)], ids=["list", "array", "tensor"])
def test_no_rows_give_empty_results(fitted, inputs):
    model = fitted.to_model()
    assert model.predict(inputs) == []
    assert model.predict_proba(inputs).shape == (0, 3)
    assert model.embed(inputs).shape == (0, model.embedding_size)


def test_columns_of_a_data_frame_must_be_those_of_training(fitted):
    names = list("abcdef")
    frame = pd.DataFrame(X, columns=names)
    model = MetricClassifier(**FAST).fit(frame, Y).to_model()
    assert model.feature_names == names
    assert model.predict(frame) == model.predict(X)
    with pytest.raises(ValueError, match=r"the first that differs is 'b' where 'a' is expected"):
        model.predict(frame[["b", "a", *names[2:]]])


def test_progress_is_reported_after_each_batch(fitted):
    calls = []
    fitted.to_model().embed(X, batch_size=25, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(25, 60), (50, 60), (60, 60)]


# --- images as inputs


def test_images_of_all_kinds_give_the_same_result(tmp_path):
    image = plain((200, 100, 0))
    image.save(tmp_path / "a.png")
    path, pixels = tmp_path / "a.png", torch.from_numpy(np.array(image)).permute(2, 0, 1)
    model = color_model()
    expected = 1 / (1 + np.exp(4 - 8 * np.array([[200, 100, 0]]) / 255))
    for inputs in (path, str(path), image, pixels, pixels[None], to_tensor(image), to_tensor(image)[None]):
        for several in (inputs, [inputs]) if getattr(inputs, "ndim", 0) != 4 else (inputs,):
            np.testing.assert_allclose(model.predict_proba(several), expected, atol=1e-6)
    mixed = model.predict_proba(iter([path, image, pixels, to_tensor(image)]), batch_size=3)
    np.testing.assert_allclose(mixed, np.repeat(expected, 4, axis=0), atol=1e-6)
    np.testing.assert_array_equal(model.predict_proba(pd.Series([path, path])), mixed[:2])
    assert mixed.dtype == model.embed(path).dtype == np.float32
    assert model.predict(image) == [{"red": pytest.approx(expected[0, 0])}]


def test_pil_images_are_converted_as_files_are_and_stay_unchanged(tmp_path):
    sixteen = Image.fromarray(np.full((3, 4), 40000, dtype=np.uint16))
    palette = plain((250, 10, 10)).convert("P")
    palette.info["transparency"] = 0
    exif = Image.Exif()
    exif[0x0112] = 6
    rotated = plain((10, 20, 30))
    sizes = []
    model = color_model(transform=lambda image: sizes.append((image.mode, image.size)) or to_tensor(image))
    for number, image in enumerate([sixteen, palette, plain(100, mode="L"), rotated]):
        path = tmp_path / f"{number}.png"
        image.save(path, exif=exif)
        with Image.open(path) as opened:
            before = opened.mode, opened.size, dict(opened.info)
            np.testing.assert_array_equal(model.predict_proba(opened), model.predict_proba(path))
            assert (opened.mode, opened.size, dict(opened.info)) == before
        assert sizes[-2:] == [("RGB", read_image(path).size)] * 2 == [("RGB", (3, 4))] * 2


def test_damaged_exif_data_of_a_pil_image_do_not_matter(monkeypatch):
    def damaged(image, *, in_place):
        raise SyntaxError("not a TIFF file")

    monkeypatch.setattr("PIL.ImageOps.exif_transpose", damaged)
    assert color_model().predict(plain((255, 0, 0)))[0].keys() == {"red"}


def test_no_images_give_empty_results():
    model = color_model()
    assert model.predict([]) == []
    assert model.predict_proba(torch.zeros(0, 3, 4, 4)).shape == (0, 3)
    assert model.embed([]).shape == (0, 2)


def test_batches_of_images_are_reported_and_the_mode_of_the_model_is_restored(tmp_path):
    calls, modes = [], []
    model = color_model(transform=lambda image: modes.append(model.classifier.training) or to_tensor(image)).train()
    model.embed([plain((1, 2, 3))] * 5, batch_size=2, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(2, 5), (4, 5), (5, 5)]
    assert modes == [False] * 5
    assert model.classifier.training


def test_unreadable_images_are_named(tmp_path):
    Image.effect_noise((64, 64), 50).save(tmp_path / "good.jpg")
    data = (tmp_path / "good.jpg").read_bytes()
    (tmp_path / "torn.jpg").write_bytes(data[:-20])
    model = color_model()
    with pytest.raises(BadImageError, match=r"torn\.jpg is truncated or not an image"):
        model.predict([tmp_path / "good.jpg", tmp_path / "torn.jpg"])
    with pytest.raises(BadImageError, match=r"absent\.jpg does not exist"):
        model.predict(tmp_path / "absent.jpg")
    with Image.open(tmp_path / "torn.jpg") as torn, pytest.raises(BadImageError, match=r"inputs\[1\] is truncated"):
        model.predict([plain((1, 2, 3)), torn])
    with pytest.raises(BadImageError, match=r"inputs\[0\] is too thin"):
        model.predict(plain(0, size=(60000, 1)))


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        (3, TypeError, "one or several, got int"),
        (b"a.png", TypeError, "one or several, got bytes"),
        ([None], TypeError, r"`inputs\[0\]` must be one of paths, .* got NoneType"),
        (np.zeros((4, 4, 3), dtype=np.uint8), TypeError, "got an array of uint8: .* `PIL.Image.fromarray`"),
        (torch.zeros(3, 4), ValueError, r"shape \(C, H, W\) or \(N, C, H, W\), got \(3, 4\)"),
        (torch.zeros(4, 4, 3, dtype=torch.uint8), ValueError, r"got a torch.uint8 tensor of shape \(4, 4, 3\)"),
        ([torch.zeros(2, 3, 4, 4)], ValueError, r"`inputs\[0\]` .* tensor of shape \(2, 3, 4, 4\)"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), TypeError, "got a tensor of torch.int64"),
        ([torch.zeros(3, 4, 4), torch.zeros(3, 4, 5)], ValueError, r"\(3, 4, 5\) for `inputs\[1\]`: .* `batch_size=1`"),
    ],
)
def test_inputs_that_are_no_images_are_errors(inputs, error, message):
    with pytest.raises(error, match=message):
        color_model().predict(inputs)


def test_transform_is_required_for_images_but_not_for_preprocessed_tensors():
    model = color_model(transform=None)
    model.backbone.transform = None  # where a convolution of RGB images has got a default
    assert len(model.predict(torch.zeros(2, 3, 4, 4))) == 2
    with pytest.raises(ValueError, match=r"`inputs\[0\]` must be preprocessed, since the backbone has no transform"):
        model.predict(plain((1, 2, 3)))
    with pytest.raises(TypeError, match="must return a tensor of floating-point numbers, got ndarray"):
        color_model(transform=np.asarray).predict(plain((1, 2, 3)))
    with pytest.raises(TypeError, match=r"got a tensor of torch\.uint8"):
        color_model(transform=lambda image: torch.zeros(3, 4, 4, dtype=torch.uint8)).predict(plain((1, 2, 3)))


# --- the module


@pytest.mark.parametrize("inputs", ["a.jpg", ["a.jpg"], [Image.new("RGB", (4, 4))]], ids=["path", "paths", "image"])
def test_images_for_a_model_without_backbone_are_an_error(fitted, inputs):
    with pytest.raises(ValueError, match=r"features of shape \(n, 6\), since the model has no backbone, got images"):
        fitted.to_model().predict(inputs)


def test_image_without_finite_features_is_named():
    images = torch.zeros(5, 3, 4, 4)
    images[3, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"`inputs\[3\]` must be an image with finite features"):
        color_model().predict(images, batch_size=2)


def test_forward_returns_probabilities_and_embeddings(fitted):
    model = fitted.to_model()
    probabilities, embeddings = model(torch.from_numpy(X))
    np.testing.assert_array_equal(probabilities.detach(), model.predict_proba(X))
    np.testing.assert_array_equal(embeddings.detach(), model.embed(X))
    images = torch.rand(2, 3, 4, 4)
    probabilities, embeddings = color_model()(images)
    assert (probabilities.shape, embeddings.shape) == ((2, 3), (2, 2))


def test_model_is_a_module_like_any_other(fitted):
    model = fitted.to_model(label_names=NAMES)
    copied = copy.deepcopy(model)
    with torch.no_grad():
        next(iter(copied.parameters())).zero_()
    copied.record["name"] = "another"
    assert "name" not in model.record
    other = MultiLabelModel(copied.embedding, copied.classifier)
    other.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(other.predict_proba(X), model.predict_proba(X))
    np.testing.assert_array_equal(other.thresholds, model.thresholds)
    assert "in_features=6, embedding_size=8, num_labels=3" in repr(model)
    assert model.to(torch.float64).predict_proba(X).dtype == np.float32
    half = model.to(torch.bfloat16)
    np.testing.assert_allclose(half.predict_proba(X), fitted.predict_proba(X), atol=0.05)


def test_model_runs_on_the_device_of_its_parameters(fitted, device):
    model = fitted.to_model().to(device)
    assert model.thresholds.device.type == device.type
    np.testing.assert_allclose(model.predict_proba(X), fitted.predict_proba(X), atol=1e-6)
    assert model.predict(torch.from_numpy(X).to(device)) == model.predict(X)
    images = color_model().to(device)
    found = images.predict([plain((255, 0, 0)), torch.zeros(3, 3, 4, device=device)])
    assert [list(labels) for labels in found] == [["red"], []]


class Custom(nn.Module):
    def forward(self, features):
        return features[:, :2]


class CustomClassifier(Custom):
    def probabilities(self, logits):
        return logits.sigmoid()


def test_number_of_features_is_read_from_the_parts():
    head, classifier = EmbeddingHead(5, (2,)), ClassifierHead(5, 2)
    graph = LabelGraphHead(5, torch.eye(2), torch.eye(2), hidden_features=3)
    ensemble = ClassifierEnsemble([CustomClassifier(), LabelNetwork(head, ClassifierHead(2, 2))])
    for embedding, labels in [
        (head, CustomClassifier()),
        (Custom(), classifier),
        (Custom(), graph),
        (Custom(), ensemble),
    ]:
        assert MultiLabelModel(embedding, labels).in_features == 5
    assert MultiLabelModel(nn.Sequential(nn.Linear(5, 2)), CustomClassifier()).in_features == 5
    assert MultiLabelModel(Custom(), CustomClassifier(), in_features=7).in_features == 7
    assert MultiLabelModel(Custom(), CustomClassifier(), feature_names=["a", "b"]).in_features == 2
    with pytest.raises(ValueError, match=r"`in_features` is required: .* read from Custom and CustomClassifier"):
        MultiLabelModel(Custom(), CustomClassifier())


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"embedding": None}, TypeError, "`embedding` must be a torch module, got NoneType"),
        (
            {"classifier": nn.Linear(4, 2)},
            TypeError,
            r"must have a method `probabilities\(logits\)`, .* Linear has none",
        ),
        ({"backbone": MeanColors()}, TypeError, "must be a `mlmetric.heads.FrozenBackbone`, got MeanColors"),
        ({"embedding": nn.Linear(3, 2)}, ValueError, r"got 3 \(`embedding`\), 4 \(`classifier`\)"),
        ({"label_names": ["a"]}, ValueError, "must name the 2 labels of the classifier, got 1 names"),
        ({"label_names": ["a", "a"]}, ValueError, "must be different, but 'a' occurs 2 times"),
        ({"label_names": "ab"}, TypeError, "must be a list of names, got the text 'ab'"),
        ({"thresholds": [0.5]}, ValueError, r"a number or have shape \(2,\), one for each label, got \(1,\)"),
        ({"thresholds": [0.5, np.nan]}, ValueError, "must not be NaN, got NaN for label 1"),
        (
            {"embedding": nn.Sequential(nn.ReLU(), nn.Linear(3, 2))},
            ValueError,
            "`embedding` cannot be applied to a row of 4",
        ),
        ({"embedding": nn.Flatten(0), "in_features": 4}, ValueError, r"`embedding` must map .* got \(4,\)"),
    ],
)
def test_parts_that_do_not_match_are_errors(change, error, message):
    parts = {"embedding": nn.Linear(4, 3), "classifier": ClassifierHead(4, 2)} | change
    with pytest.raises(error, match=message):
        MultiLabelModel(parts.pop("embedding"), parts.pop("classifier"), **parts)
