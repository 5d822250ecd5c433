"""Models with text: of images, features or texts alone; saving, export, card, and search."""

import copy
import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.pipeline import make_pipeline
from torch import nn

from mlmetric.data import join_views
from mlmetric.estimators import ImageFeatures, MetricClassifier, TextFeatures
from mlmetric.heads import ClassifierHead, EmbeddingHead, FrozenBackbone, FusionHead, WeightsUnavailableError
from mlmetric.models import MultiLabelModel
from mlmetric.search import SearchIndex
from mlmetric.text import SentenceEncoder, TextReader, TfidfEncoder

TEXTS = [
    *("Drink milk", "Drive a car", "Milk is good", "Fast cars", "Bread and milk"),
    *("A car for you", "Eat bread", "Café au lait", "Red cars, cheap", "Good bread"),
]
LABELS = np.array([["milk" in text.lower(), "car" in text.lower()] for text in TEXTS]).astype(int)
NAMES = ["milk", "car"]
FAST = {"head": partial(EmbeddingHead, widths=(4,)), "n_members": 1, "max_epochs": 1, "random_state": 0}
TEXT_FEATURES = TextFeatures().fit(TEXTS)
SIZE = len(TEXT_FEATURES.get_feature_names_out())
VIEWS = {"image": slice(0, 3), "text": slice(3, None)}


class MeanColors(nn.Module):
    """A backbone: the mean of each color channel."""

    def forward(self, images):
        return images.mean((2, 3))


def to_tensor(image):
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255


def backbone():
    return FrozenBackbone(MeanColors(), transform=to_tensor)


def colors(number=10):
    return np.random.default_rng(0).integers(0, 256, (number, 3))


def images(number=10):
    return [Image.new("RGB", (4, 3), tuple(map(int, color))) for color in colors(number)]


def read_stub(image):
    """Read a text that depends on the image: a path or a PIL image."""
    if not isinstance(image, Image.Image):
        with Image.open(image) as opened:
            return read_stub(opened.copy())
    return TEXTS[image.getpixel((0, 0))[0] % len(TEXTS)] if image.getpixel((0, 0))[1] > 100 else " "


def stub_texts(number=10):
    return [read_stub(image) for image in images(number)]


def fusion_model(fusion="gated", **options):
    """A model of three features and the text."""
    X, views = join_views({"image": colors() / 255, "text": TEXT_FEATURES.transform([*TEXTS[:8], None, ""])})
    settings = FAST | ({} if fusion == "late" else {"head": None})
    classifier = MetricClassifier(views=views, fusion=fusion, **settings).fit(X, LABELS)
    return classifier, classifier.to_model(text_features=TEXT_FEATURES, label_names=NAMES, **options)


@pytest.fixture(scope="module")
def of_features():
    return fusion_model()


@pytest.fixture(scope="module")
def of_images():
    return fusion_model(backbone=backbone(), text_reader=read_stub)[1]


@pytest.fixture(scope="module")
def of_texts():
    return make_pipeline(TextFeatures(), MetricClassifier(**FAST)).fit(TEXTS, LABELS)


# --- texts alone


def test_model_of_texts_gives_the_numbers_of_its_pipeline(of_texts):
    model = MultiLabelModel.from_estimator(of_texts, label_names=NAMES)
    inputs = [*TEXTS, "New milk", ["Fast", "Cars"]]
    np.testing.assert_allclose(model.predict_proba(inputs), of_texts.predict_proba(inputs), atol=1e-6)
    embeddings = of_texts[-1].transform(of_texts[0].transform(inputs))
    np.testing.assert_allclose(model.embed(inputs), embeddings, atol=1e-6)
    assert model.predict(TEXTS[0]) == model.predict(TEXTS[:1]) == model.predict(iter(TEXTS[:1]))
    np.testing.assert_array_equal(model.embed(pd.Series(TEXTS)), model.embed(np.array(TEXTS)))
    assert model.predict([]) == []
    assert model.num_text_features == model.in_features == SIZE


@pytest.mark.parametrize("empty", ["", " \n", None, []])
def test_input_without_text_is_named(of_texts, empty):
    with pytest.raises(ValueError, match=r"`inputs\[1\]` must contain a text"):
        MultiLabelModel.from_estimator(of_texts).predict(["Drink milk", empty])


def test_wrong_texts_are_errors(of_texts):
    model = MultiLabelModel.from_estimator(of_texts)
    with pytest.raises(TypeError, match=r"`inputs` must contain a text, .* got 3 of type int at row 0"):
        model.predict([3])
    for inputs in (Path("a.jpg"), [Path("a.jpg")], images(1)[0]):
        with pytest.raises(ValueError, match="`inputs` must be texts, since the model has no backbone, got images"):
            model.predict(inputs)
    with pytest.raises(ValueError, match="`texts` must be None for this model: its inputs are the texts"):
        model.predict(TEXTS, texts=TEXTS)
    with pytest.raises(ValueError, match="`text` must be None"):
        model(torch.zeros(1, SIZE), torch.zeros(1, SIZE))
    with pytest.raises(ValueError, match="`texts` must be None for this model: it has no `text_features`"):
        MultiLabelModel(EmbeddingHead(3), ClassifierHead(3, 2)).predict(np.zeros((1, 3)), texts=["a"])


# --- features and texts


@pytest.mark.parametrize("fusion", ["late", "concat", "gated"])
def test_features_and_texts_give_the_numbers_of_the_estimator(fusion):
    classifier, model = fusion_model(fusion)
    features = (colors() / 255).astype(np.float32)
    features[3] = np.nan
    texts = [*TEXTS[:5], ["Milk", "Car"], None, "", np.nan, "Unknown"]
    X, _ = join_views({"image": colors() / 255, "text": TEXT_FEATURES.transform(texts)})
    X[3, :3] = np.nan
    np.testing.assert_array_equal(model.predict_proba(features, texts=texts), classifier.predict_proba(X))
    np.testing.assert_array_equal(model.embed(features, texts=texts), classifier.transform(X))
    X[:, 3:] = np.nan
    np.testing.assert_array_equal(model.predict_proba(features[:3]), classifier.predict_proba(X[:3]))
    with pytest.raises(ValueError, match=r"1 of 10 have none; the first is row 3\."):
        model.predict(features)


def test_forward_reads_features_of_texts(of_features):
    _, model = of_features
    features = torch.from_numpy(colors() / 255).float()
    text = torch.from_numpy(TEXT_FEATURES.transform(TEXTS))
    np.testing.assert_allclose(model(features, text)[0].detach(), model.predict_proba(features, texts=TEXTS), atol=1e-6)
    np.testing.assert_allclose(model(features)[1].detach(), model.embed(features), atol=1e-5)


def test_number_of_texts_and_columns_must_fit(of_features):
    _, model = of_features
    with pytest.raises(ValueError, match="`texts` must have one entry for each of 2 inputs, got 1"):
        model.predict(np.zeros((2, 3)), texts="one")
    with pytest.raises(TypeError, match=r"`texts` must contain a text, .* got 3 of type int at row 1"):
        model.predict(np.zeros((2, 3)), texts=["one", 3])
    with pytest.raises(ValueError, match=r"`inputs` must have 3 features, got \d+"):
        model.predict(np.zeros((2, 3 + SIZE)), texts=["one", "two"])
    assert model.predict_proba(np.zeros((0, 3)), texts=[]).shape == (0, 2)


def test_columns_of_a_frame_are_those_before_the_text(tmp_path):
    X, views = join_views({"image": colors() / 255, "text": TEXT_FEATURES.transform(TEXTS)})
    frame = pd.DataFrame(X, columns=[f"c{column}" for column in range(X.shape[1])])
    classifier = MetricClassifier(views=views, **FAST).fit(frame, LABELS)
    model = classifier.to_model(text_features=TEXT_FEATURES)
    assert model.feature_names == ["c0", "c1", "c2"]
    np.testing.assert_array_equal(model.embed(frame.iloc[:, :3], texts=TEXTS), classifier.transform(frame))
    model.save_pretrained(tmp_path)
    assert MultiLabelModel.from_pretrained(tmp_path).feature_names == model.feature_names


def test_text_is_required_by_heads_without_views(tmp_path):
    X = np.concatenate([colors() / 255, TEXT_FEATURES.transform(TEXTS)], axis=1)
    model = MetricClassifier(**FAST).fit(X, LABELS).to_model(text_features=TEXT_FEATURES)
    assert not model.text_is_optional
    assert model.predict_proba(X[:, :3], texts=TEXTS).shape == (10, 2)
    for texts, number in ((None, 0), ([*TEXTS[:9], None], 9)):
        with pytest.raises(ValueError, match=rf"`inputs\[{number}\]` has no text, which the heads of this model need"):
            model.predict(X[:, :3], texts=texts)
    with pytest.raises(ValueError, match="`text` must be given"):
        model(torch.zeros(1, 3))


# --- images and texts


def test_text_of_images_is_read_or_passed(of_images, tmp_path):
    expected = of_images.predict_proba(images(), texts=stub_texts())
    paths = []
    for number, image in enumerate(images()):
        paths.append(tmp_path / f"{number}.png")
        image.save(paths[-1])
    pixels = [torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images()]
    for inputs in (images(), paths, pixels):
        np.testing.assert_allclose(of_images.predict_proba(inputs), expected, atol=1e-6)
        np.testing.assert_allclose(of_images.predict_proba(inputs, batch_size=3), expected, atol=1e-6)
    without = of_images.predict_proba(images(), texts=[None] * 10)
    has_text = [bool(text.strip()) for text in stub_texts()]
    assert 0 < sum(has_text) < 10
    np.testing.assert_array_equal((without != expected).any(axis=1), has_text)
    assert of_images.predict(images(1)[0], texts="Drink milk") == of_images.predict(images(1), texts=["Drink milk"])
    assert of_images.predict([]) == []


def test_model_without_reader_reads_no_text():
    _, model = fusion_model(backbone=backbone())
    np.testing.assert_array_equal(model.embed(images()), model.embed(images(), texts=[None] * 10))


def test_preprocessed_images_need_texts(of_images):
    batch = torch.stack([to_tensor(image) for image in images()])
    with pytest.raises(ValueError, match=r"`inputs\[0\]` is a preprocessed tensor, .* pass `texts`"):
        of_images.predict(batch)
    expected = of_images.embed(images(), texts=TEXTS)
    np.testing.assert_allclose(of_images.embed(batch, texts=TEXTS), expected, atol=1e-5)


def test_reader_must_return_a_text():
    _, model = fusion_model(backbone=backbone(), text_reader=lambda image: None)
    with pytest.raises(TypeError, match=r"`text_reader` must return a text, got NoneType for `inputs\[0\]`"):
        model.predict(images(1))


def test_texts_are_read_in_batches_with_progress(of_images):
    calls = []
    of_images.embed(images(5), batch_size=2, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(2, 5), (4, 5), (5, 5)]


# --- parts


def test_pipeline_of_images_and_texts_becomes_one_model(tmp_path):
    for number, image in enumerate(images()):
        image.save(tmp_path / f"{number}.png")
    frame = pd.DataFrame({"path": [str(tmp_path / f"{n}.png") for n in range(10)], "text": [*TEXTS[:8], None, ""]})
    columns = [("image", ImageFeatures(backbone(), num_workers=0), "path"), ("text", TextFeatures(), "text")]
    classifier = MetricClassifier(views=VIEWS, fusion="late", **FAST)
    pipeline = make_pipeline(ColumnTransformer(columns), classifier).fit(frame, LABELS)
    model = MultiLabelModel.from_estimator(pipeline, text_reader=read_stub)
    expected = pipeline.predict_proba(frame)
    np.testing.assert_allclose(model.predict_proba(frame["path"], texts=frame["text"]), expected, atol=1e-5)
    for options, name in (({"backbone": backbone()}, "backbone"), ({"text_features": TEXT_FEATURES}, "text_features")):
        with pytest.raises(ValueError, match=f"`{name}` must be None for a pipeline that starts with one"):
            MultiLabelModel.from_estimator(pipeline, **options)
    swapped = make_pipeline(ColumnTransformer(columns[::-1]), MetricClassifier(**FAST)).fit(frame[:8], LABELS[:8])
    with pytest.raises(TypeError, match=r"has the step 'columntransformer' .* ImageFeatures first, then TextFeatures"):
        MultiLabelModel.from_estimator(swapped)


def test_another_fit_does_not_change_the_model():
    pipeline = make_pipeline(TextFeatures(), MetricClassifier(**FAST)).fit(TEXTS, LABELS)
    model = MultiLabelModel.from_estimator(pipeline)
    before = model.embed(TEXTS)
    pipeline[0].fit(["Something else"])
    np.testing.assert_array_equal(model.embed(TEXTS), before)


def heads(size=3 + SIZE):
    return EmbeddingHead(size, (2,)), ClassifierHead(size, 2)


@pytest.mark.parametrize(
    ("size", "options", "error", "message"),
    [
        (SIZE, {"text_features": "tfidf"}, TypeError, "`text_features` must be a `mlmetric.estimators.TextFeatures`"),
        (SIZE, {"text_features": TextFeatures()}, NotFittedError, "not fitted"),
        (SIZE, {"text_features": TEXT_FEATURES, "text_reader": read_stub}, ValueError, "must be None for a model with"),
        (3, {"backbone": backbone(), "text_reader": read_stub}, ValueError, "must be None for a model without"),
        (
            3 + SIZE,
            {"backbone": backbone(), "text_features": TEXT_FEATURES, "text_reader": 3},
            TypeError,
            "`text_reader` must be a function",
        ),
        (
            2,
            {"text_features": TEXT_FEATURES},
            ValueError,
            r"The last of 2 features are those of the text, .* has \d+",
        ),
        (SIZE, {"text_features": TEXT_FEATURES, "backbone": backbone()}, ValueError, "leaves none to the backbone"),
        (
            SIZE + 3,
            {"text_features": TEXT_FEATURES, "backbone": FrozenBackbone("squeezenet1_0", weights=None)},
            ValueError,
            rf"got {512 + SIZE} \(`backbone`\), .*, with the {SIZE} of the text",
        ),
    ],
)
def test_parts_that_do_not_fit_are_errors(size, options, error, message):
    with pytest.raises(error, match=message):
        MultiLabelModel(*heads(size), **options)


def test_last_view_must_be_the_text():
    size = 3 + SIZE
    head = FusionHead(size, {"image": slice(0, 4), "text": slice(4, size)}, (4, 2))
    message = f"The last view of the heads, 'text', must consist of the {SIZE} features .* got {SIZE - 1}"
    with pytest.raises(ValueError, match=message):
        MultiLabelModel(head, ClassifierHead(size, 2, fill_missing=True), text_features=TEXT_FEATURES)


# --- saving


def edit(folder, change):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def test_model_of_texts_is_loaded_as_it_was(of_texts, tmp_path):
    model = MultiLabelModel.from_estimator(of_texts, label_names=NAMES)
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        *("config.json", "model.safetensors", "README.md", "text_terms.json")
    }
    loaded = MultiLabelModel.from_pretrained(tmp_path)
    inputs = [*TEXTS, "New milk", ["Fast", "Cars"]]
    np.testing.assert_array_equal(loaded.predict_proba(inputs), model.predict_proba(inputs))
    np.testing.assert_array_equal(loaded.embed(inputs), model.embed(inputs))
    loaded.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "config.json").read_bytes() == (tmp_path / "config.json").read_bytes()
    assert json.loads((tmp_path / "config.json").read_text())["format_version"] == 2


def test_model_of_images_is_loaded_with_reader(tmp_path):
    _, model = fusion_model(backbone=backbone(), text_reader=TextReader(min_confidence=0.7))
    model.save_pretrained(tmp_path)
    given = {"backbone": MeanColors(), "transform": to_tensor}
    loaded = MultiLabelModel.from_pretrained(tmp_path, **given)
    assert loaded.text_reader == model.text_reader
    texts = [*TEXTS[:5], *[None] * 5]
    np.testing.assert_array_equal(loaded.embed(images(), texts=texts), model.embed(images(), texts=texts))
    assert MultiLabelModel.from_pretrained(tmp_path, text_reader=read_stub, **given).text_reader is read_stub
    edit(tmp_path, lambda config: config["text"]["reader"]["settings"].update(min_confidence=7))
    with pytest.raises(ValueError, match=r"the TextReader cannot be made from its settings .*min_confidence"):
        MultiLabelModel.from_pretrained(tmp_path, **given)


def test_reader_of_ones_own_must_be_passed(of_images, tmp_path):
    of_images.save_pretrained(tmp_path)
    given = {"backbone": MeanColors(), "transform": to_tensor}
    with pytest.raises(ValueError, match=r"code of your own, .*read_stub, .* pass it as `text_reader=`"):
        MultiLabelModel.from_pretrained(tmp_path, **given)
    loaded = MultiLabelModel.from_pretrained(tmp_path, text_reader=read_stub, **given)
    np.testing.assert_array_equal(loaded.embed(images()), of_images.embed(images()))


class Module(nn.Module):
    """A reader with tensors, which are not those of the model."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, image):
        return read_stub(image)


def test_reader_that_is_a_module_is_not_saved(tmp_path):
    _, model = fusion_model(backbone=backbone(), text_reader=Module())
    model.save_pretrained(tmp_path)
    given = {"backbone": MeanColors(), "transform": to_tensor, "text_reader": Module()}
    loaded = MultiLabelModel.from_pretrained(tmp_path, **given)
    np.testing.assert_array_equal(loaded.embed(images()), model.embed(images()))


def count_letters(texts):
    return np.array([[text.count(letter) for letter in "abc"] for text in texts], dtype=np.float32)


@pytest.mark.parametrize(
    ("encoder", "name"), [(CountVectorizer(), "CountVectorizer"), (count_letters, r"test_models_text\.count_letters")]
)
def test_other_encoders_must_be_passed(tmp_path, encoder, name):
    features = TextFeatures(encoder).fit(TEXTS)
    size = len(features.get_feature_names_out())
    model = MultiLabelModel(*heads(size), text_features=features).eval()
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=rf"encoded by .*{name}, which is not saved: .* as `text_features=`"):
        MultiLabelModel.from_pretrained(tmp_path)
    loaded = MultiLabelModel.from_pretrained(tmp_path, text_features=features)
    np.testing.assert_array_equal(loaded.embed(TEXTS), model.embed(TEXTS))
    other = TextFeatures(TfidfEncoder(2)).fit(TEXTS)
    with pytest.raises(ValueError, match=f"`text_features` must have {size} features, as in training, got 2"):
        MultiLabelModel.from_pretrained(tmp_path, text_features=other)


def sentence_model(monkeypatch, digest="a" * 64, name="user/model-of-sentences"):
    monkeypatch.setattr(SentenceEncoder, "fingerprint", lambda encoder: digest)
    monkeypatch.setattr(SentenceEncoder, "transform", lambda encoder, texts: count_letters(texts))
    features = TextFeatures(SentenceEncoder(name, batch_size=7)).fit(TEXTS)
    return MultiLabelModel(*heads(3), text_features=features).eval()


def test_sentence_encoder_is_saved_by_name_and_digest(tmp_path, monkeypatch):
    model = sentence_model(monkeypatch)
    model.save_pretrained(tmp_path)
    loaded = MultiLabelModel.from_pretrained(tmp_path)
    assert loaded.text_features.encoder_.get_params() == model.text_features.encoder_.get_params()
    np.testing.assert_array_equal(loaded.embed(TEXTS), model.embed(TEXTS))
    assert "sentence-transformers" in (tmp_path / "README.md").read_text()
    monkeypatch.setattr(SentenceEncoder, "fingerprint", lambda encoder: "b" * 64)
    with pytest.raises(ValueError, match=r"the encoder 'user/model-of-sentences' is not the one .* `text_features=`"):
        MultiLabelModel.from_pretrained(tmp_path)
    MultiLabelModel.from_pretrained(tmp_path, text_features=model.text_features)

    def fail(encoder):
        raise WeightsUnavailableError("No network.")

    monkeypatch.setattr(SentenceEncoder, "fingerprint", fail)
    with pytest.raises(WeightsUnavailableError, match=r"encodes texts by .* `text_features=`. No network\."):
        MultiLabelModel.from_pretrained(tmp_path)


def test_folder_of_a_sentence_encoder_is_not_read_from_a_configuration(tmp_path, monkeypatch):
    model = sentence_model(monkeypatch, name=str(tmp_path))
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="encoded by SentenceEncoder"):
        MultiLabelModel.from_pretrained(tmp_path / "model")
    sentence_model(monkeypatch).save_pretrained(tmp_path / "other")
    edit(tmp_path / "other", lambda config: config["text"]["encoder"].update(name=str(tmp_path)))
    with pytest.raises(ValueError, match="is not the name of a model on the Hugging Face hub"):
        MultiLabelModel.from_pretrained(tmp_path / "other")


def test_terms_of_an_older_model_are_removed(of_texts, tmp_path):
    MultiLabelModel.from_estimator(of_texts).save_pretrained(tmp_path)
    MultiLabelModel(*heads(3)).save_pretrained(tmp_path)
    assert not (tmp_path / "text_terms.json").exists()
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["format_version"] == 1
    assert not {"text", "terms"} & config.keys()
    assert MultiLabelModel.from_pretrained(tmp_path).text_features is None
    for part in ("text_features", "text_reader"):
        with pytest.raises(ValueError, match=f"`{part}` must be None"):
            MultiLabelModel.from_pretrained(tmp_path, **{part: {"text_features": TEXT_FEATURES}.get(part, read_stub)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: config.update(text=[]), "`text` is not described by `num_features`"),
        (lambda config: config["text"].update(num_features="3"), "`text` is not described by `num_features`"),
        (lambda config: config["text"].update(num_features=4), "model.safetensors does not match"),
        (lambda config: config["text"].update(encoder=None), "`encoder` of `text` is not described"),
        (lambda config: config["text"].update(reader={"kind": "TextReader"}), "`reader` of `text` is not described"),
        (
            lambda config: config["text"]["encoder"].update(kind="bert", name="x"),
            "`terms` must describe",
        ),
        (lambda config: config.pop("terms"), "`terms` must describe"),
        (lambda config: config.update(terms=3), "their digests differ"),
        (lambda config: config["text"]["encoder"]["settings"].pop("max_features"), "cannot be made"),
        (
            lambda config: config["text"]["encoder"]["settings"].update(word_ngram_range=3),
            "cannot be made",
        ),
    ],
)
def test_damaged_configuration_is_one_sentence(of_texts, tmp_path, change, message):
    MultiLabelModel.from_estimator(of_texts).save_pretrained(tmp_path)
    edit(tmp_path, change)
    with pytest.raises(ValueError, match=message) as caught:
        MultiLabelModel.from_pretrained(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damaged_or_missing_terms_are_found(of_texts, tmp_path):
    MultiLabelModel.from_estimator(of_texts).save_pretrained(tmp_path)
    path = tmp_path / "text_terms.json"
    content = path.read_bytes()
    for damaged in (content[:-20], content.replace(b"milk", b"silk")):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"text_terms\.json is not the file that config\.json was saved with"):
            MultiLabelModel.from_pretrained(tmp_path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"contains no complete model: text_terms\.json is missing"):
        MultiLabelModel.from_pretrained(tmp_path)


# --- card


def card_code(folder):
    return re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[1]


def test_code_of_the_card_runs(of_texts, of_features, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, model in {"texts": MultiLabelModel.from_estimator(of_texts), "features": of_features[1]}.items():
        model.save_pretrained(name)
        exec(card_code(tmp_path / name), {})
    assert capsys.readouterr().out.count("(1, 2)") == 2


def test_card_of_images_names_reader_and_views(of_images, tmp_path):
    of_images.save_pretrained(tmp_path / "own")
    code, card = card_code(tmp_path / "own"), (tmp_path / "own" / "README.md").read_text()
    assert "text_reader=text_reader" in code
    assert 'model.predict(["photo.jpg"])' in code
    assert f"Views: image (3 features), text ({SIZE} features)." in card
    model = copy.deepcopy(of_images)
    model.text_reader = TextReader()
    model.save_pretrained(tmp_path / "ocr")
    card = (tmp_path / "ocr" / "README.md").read_text()
    assert "text_reader" not in card_code(tmp_path / "ocr")
    assert 'pip install "mlmetric[hub,ocr]"' in card
    assert "is read by OCR (`mlmetric.text.TextReader`)" in card


# --- export


def check_exports(model, inputs, path, names):
    """Compare a program and, with a path, an ONNX file with the module."""
    with torch.no_grad():
        expected = model.eval()(*inputs)
    outputs = [output.detach() for output in model.export_program().module()(*inputs)]
    found = [outputs]
    if path is not None:
        model.export_onnx(path)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        arrays = dict(zip(names, map(np.asarray, inputs), strict=True))
        found.append(session.run(["probabilities", "embeddings"], arrays))
    for probabilities, embeddings in found:
        assert np.isfinite(np.asarray(embeddings)).all()
        np.testing.assert_allclose(probabilities, expected[0], atol=1e-5)
        np.testing.assert_allclose(embeddings, expected[1], atol=1e-4)


def text_inputs():
    return torch.from_numpy(TEXT_FEATURES.transform([*TEXTS[:5], *[None] * 5]))


@pytest.mark.parametrize("onnx", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_exports_of_features_and_texts_have_two_inputs(of_features, tmp_path, onnx):
    features = torch.from_numpy(colors() / 255).float()
    path = tmp_path / "model.onnx" if onnx else None
    check_exports(of_features[1], (features, text_inputs()), path, ["features", "text_features"])


@pytest.mark.parametrize("onnx", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_exports_of_images_and_texts_have_two_inputs(of_images, tmp_path, onnx):
    batch = torch.rand(10, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    path = tmp_path / "model.onnx" if onnx else None
    check_exports(of_images, (batch, text_inputs()), path, ["images", "text_features"])


@pytest.mark.parametrize("onnx", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_exports_of_texts_have_one_input(of_texts, tmp_path, onnx):
    path = tmp_path / "model.onnx" if onnx else None
    check_exports(MultiLabelModel.from_estimator(of_texts), (text_inputs()[:5],), path, ["text_features"])


# --- search


def test_search_index_reads_images_with_their_text(of_images):
    index = SearchIndex(model=of_images)
    index.add(images())
    np.testing.assert_allclose(index.embeddings, of_images.embed(images(), texts=stub_texts()), atol=1e-5)
    np.testing.assert_array_equal(index.kneighbors(images(), 1)[0] < 1e-3, True)


def test_search_index_takes_the_embeddings_of_texts(of_texts):
    model = MultiLabelModel.from_estimator(of_texts)
    with pytest.raises(ValueError, match=r"without backbone: pass `model\.embed"):
        SearchIndex(model=model)
    index = SearchIndex()
    index.add(model.embed(TEXTS))
    assert index.search(model.embed(TEXTS[3]), 1)[0][0].id == 3


def test_text_features_of_another_fit_are_refused_at_loading(tmp_path):
    texts = ["red sky", "blue sea", "green tree", "red sea"]
    others = ["a1 b1", "c1 d1", "e1 f1", "a1 d1"]
    fitted, other = (TextFeatures(CountVectorizer()).fit(rows) for rows in (texts, others))
    size = len(fitted.get_feature_names_out())
    assert len(other.get_feature_names_out()) == size
    model = MultiLabelModel(EmbeddingHead(size, (3,)), ClassifierHead(size, 2), text_features=fitted)
    model.save_pretrained(tmp_path / "model")
    loaded = MultiLabelModel.from_pretrained(tmp_path / "model", text_features=fitted)
    np.testing.assert_array_equal(loaded.embed(texts), model.embed(texts))
    with pytest.raises(ValueError, match="must be those of training"):
        MultiLabelModel.from_pretrained(tmp_path / "model", text_features=other)
