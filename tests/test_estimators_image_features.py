"""ImageFeatures: paths of all kinds, compatibility with scikit-learn, the cache and errors."""

import copy
import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from torch import nn
from torchvision.transforms import v2

from mlmetric.data import BadImagesError, MultiLabelStratifiedKFold, read_image
from mlmetric.estimators import ImageFeatures, MetricClassifier
from mlmetric.heads import EmbeddingHead, FrozenBackbone

NUM_IMAGES = 40
NAMES = [f"{number}.png" for number in range(NUM_IMAGES)]
TO_TENSOR = v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])
LABELS = np.array([[number % 2, number // 2 % 2] for number in range(NUM_IMAGES)])  # red and green
FAST = MetricClassifier(head=partial(EmbeddingHead, widths=(8, 4)), n_members=1, max_epochs=40, lr=0.02, random_state=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images whose first two channels are bright where the two labels are present."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name, (red, green) in zip(NAMES, LABELS, strict=True):
        noise = rng.integers(0, 60, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(noise + np.array([150 * red, 150 * green, 90], dtype=np.uint8)).save(folder / name)
    return folder


class Counting(nn.Module):
    """Maps of 4 channels; counts the images that it has seen in all copies."""

    seen = 0

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 1, bias=False)
        self.layer.weight.data = torch.tensor([[2.0, 0, 0], [0, 2, 0], [0, 0, 2], [1, 1, 0]])[..., None, None]

    def forward(self, images):
        Counting.seen += len(images)
        return self.layer(images)

    def fingerprint(self):
        return "the same in all copies"


@pytest.fixture
def make(folder):
    Counting.seen = 0

    def make(**options):
        options = {"image_transform": TO_TENSOR, "root": folder, "num_workers": 0, "batch_size": 16, **options}
        return ImageFeatures(options.pop("backbone", Counting()), **options)

    return make


def expected_features(folder, names, pooling="avg"):
    """Of Counting, one image after the other."""
    rows = []
    for name in names:
        pixels = np.asarray(read_image(folder / name)).reshape(-1, 3) / 255
        channels = pixels.mean(0) if pooling == "avg" else pixels.max(0)
        fourth = channels[0] + channels[1] if pooling == "avg" else (pixels[:, 0] + pixels[:, 1]).max()
        rows.append([*(2 * channels), fourth])
    return np.array(rows)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_features_are_those_of_the_network_for_each_path(num_workers, pooling, make, folder):
    features = make(pooling=pooling, num_workers=num_workers).fit_transform(NAMES)
    assert features.dtype == np.float32
    assert features.flags.writeable
    np.testing.assert_allclose(features, expected_features(folder, NAMES, pooling), atol=1e-5)


KINDS = {
    "list": list,
    "column": lambda paths: [[path] for path in paths],
    "pathlib": lambda paths: [Path(path) for path in paths],
    "array": np.array,
    "array of objects": lambda paths: np.array(paths, dtype=object)[:, None],
    "series": pd.Series,
    "frame": lambda paths: pd.DataFrame({"path": paths}, index=[7, 5, 3]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_paths_of_all_kinds_give_the_same_features(kind, make, folder):
    paths = ["3.png", "1.png", "2.png"]
    features = make().fit(NAMES).transform(KINDS[kind](paths))
    np.testing.assert_allclose(features, expected_features(folder, paths), atol=1e-5)


def test_absolute_and_repeated_paths_are_read(make, folder):
    paths = [str(folder / "1.png"), "2.png", "1.png", "2.png"]
    features = make().fit_transform(paths)
    np.testing.assert_allclose(features, expected_features(folder, paths), atol=1e-5)


@pytest.mark.parametrize(
    ("paths", "error", "message"),
    [
        ("1.png", TypeError, r"must be a list of paths, got one path: pass \['1\.png'\]"),
        (Path("1.png"), TypeError, r"must be a list of paths, got one path: pass \['1\.png'\]"),
        ([], ValueError, r"at least one path, shape \(n,\) or \(n, 1\), got list of shape \(0,\)"),
        ([["1.png", "2.png"]], ValueError, r"got list of shape \(1, 2\)"),
        (iter(["1.png"]), ValueError, r"got list_iterator of shape \(\)"),
        (["1.png", None], TypeError, "must contain paths of image files, got None of type NoneType at row 1"),
        (np.zeros((3, 1)), TypeError, r"got 0\.0 of type float at row 0\. Features that are computed already"),
        ([["1.png"], ["2.png", "3.png"]], (TypeError, ValueError), "list"),
    ],
)
def test_anything_but_paths_is_an_error(paths, error, message, make):
    features = make().fit(NAMES)
    for take in (features.transform, make().fit):
        with pytest.raises(error, match=message):
            take(paths)


def test_bad_images_are_all_named_and_the_error_can_be_pickled(make, folder, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    paths = ["0.png", "gone.png", str(tmp_path / "text.png")]
    with pytest.raises(BadImagesError, match=r"2 of 3 images cannot be read") as error:
        make().fit(["0.png"]).transform(paths)
    for message in (str(error.value), str(pickle.loads(pickle.dumps(error.value)))):
        assert f"{folder / 'gone.png'} does not exist. Repair them, or leave them out of `X` and `y`." in message
        assert "The others:\n" in message
        assert "text.png is truncated or not an image" in message
    assert [reason.split()[0] for reason in error.value.reasons] == [str(folder / "gone.png"), paths[2]]


def test_error_of_many_bad_images_shows_twenty():
    message = str(BadImagesError([f"{number}.png does not exist." for number in range(25)], 30))
    assert message.count("does not exist") == 20
    assert message.endswith("\n19.png does not exist.\nand 5 more, in `reasons`.")


def test_transform_before_fit_is_an_error(make):
    with pytest.raises(NotFittedError, match="ImageFeatures instance is not fitted"):
        make().transform(NAMES)


@pytest.mark.parametrize("backbone", [nn.Linear(3, 2), FrozenBackbone(nn.Linear(3, 2))])
def test_network_without_a_known_preprocessing_is_an_error(backbone):
    with pytest.raises(ValueError, match=r"`image_transform` must be given for Linear, .* `torchvision\.models"):
        ImageFeatures(backbone).fit(NAMES)


@pytest.mark.parametrize("options", [{"weights": None}, {"pooling": "max"}])
def test_settings_beside_a_frozen_backbone_are_an_error(options, make):
    with pytest.raises(ValueError, match="`weights` and `pooling` must be set in the FrozenBackbone"):
        make(backbone=FrozenBackbone(Counting()), **options).fit(NAMES)


def test_frozen_backbone_is_copied_and_keeps_its_settings(make, folder):
    backbone = FrozenBackbone(Counting(), transform=TO_TENSOR, pooling="max")
    features = make(backbone=backbone, image_transform=None).fit(NAMES)
    assert features.backbone_ is not backbone
    np.testing.assert_allclose(features.transform(NAMES), expected_features(folder, NAMES, "max"), atol=1e-5)
    own = v2.Compose([v2.Grayscale(3), TO_TENSOR])
    assert make(backbone=backbone, image_transform=own).fit(NAMES).backbone_.transform is own
    assert backbone.transform is TO_TENSOR
    for transform in (np.asarray, own, TO_TENSOR, None, np.asarray):  # a function can replace a module
        backbone.transform = transform
        assert backbone.transform is transform


def test_fit_does_not_change_the_module(make):
    module = Counting()
    make(backbone=module).fit(NAMES)
    assert module.training
    assert module.layer.weight.requires_grad


def test_precision_of_a_frozen_backbone_is_kept_and_has_its_own_cache(make, tmp_path):
    plain = FrozenBackbone(Counting(), transform=TO_TENSOR, pooling="max")
    half = FrozenBackbone(copy.deepcopy(plain.model), transform=TO_TENSOR, pooling="max", autocast="bfloat16")
    options = {"image_transform": None, "cache_dir": tmp_path / "cache"}
    exact, rounded = (make(backbone=backbone, **options).fit_transform(NAMES) for backbone in (plain, half))
    assert rounded.dtype == np.float32
    assert not np.array_equal(rounded, exact)
    np.testing.assert_allclose(rounded, exact, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("use_cache", [True, False])
def test_features_are_kept_where_there_is_a_cache_folder(use_cache, make, tmp_path):
    features = make(cache_dir=tmp_path / "cache" if use_cache else None)
    first = features.fit_transform(NAMES)
    after_one = Counting.seen
    second = clone(features).fit_transform(NAMES)
    assert np.array_equal(first, second)
    assert after_one == NUM_IMAGES + (0 if use_cache else 1)  # `fit` applies a module to one image to find its size
    assert Counting.seen == after_one * (1 if use_cache else 2)


def test_progress_counts_images(make):
    calls = []
    make(progress=lambda done, total: calls.append((done, total))).fit_transform(NAMES)
    assert calls == [(16, NUM_IMAGES), (32, NUM_IMAGES), (NUM_IMAGES, NUM_IMAGES)]


def test_feature_names_are_numbered(make):
    features = make().fit(NAMES)
    assert features.get_feature_names_out().tolist() == [f"imagefeatures{number}" for number in range(4)]
    named = ImageFeatures("squeezenet1_0", weights=None, root=features.root).fit(NAMES)
    assert len(named.get_feature_names_out()) == 512


@pytest.mark.parametrize("make_paths", [list, lambda paths: pd.DataFrame({"path": paths}, index=range(9, 12))])
def test_set_output_gives_a_data_frame(make_paths, make):
    paths = make_paths(NAMES[:3])
    frame = make().set_output(transform="pandas").fit_transform(paths)
    assert frame.columns.tolist() == [f"imagefeatures{number}" for number in range(4)]
    assert frame.index.tolist() == ([9, 10, 11] if isinstance(paths, pd.DataFrame) else [0, 1, 2])


def test_parameters_can_be_got_set_and_cloned(make):
    features = make(pooling="max")
    assert clone(features).get_params().keys() == features.get_params().keys()
    assert clone(features).pooling == "max"
    assert features.set_params(pooling="avg", batch_size=5).batch_size == 5
    assert repr(ImageFeatures(pooling="max")) == "ImageFeatures(pooling='max')"
    assert not hasattr(clone(features.fit(NAMES)), "backbone_")


def test_pickle_has_the_same_features(make):
    features = make().fit(NAMES)
    again = pickle.loads(pickle.dumps(features))
    assert np.array_equal(again.transform(NAMES[:3]), features.transform(NAMES[:3]))


def test_pickle_contains_the_network_on_the_cpu(make, device):
    features = make(device=str(device)).fit(NAMES)
    assert next(features.backbone_.parameters()).device.type == torch.device(device).type
    again = pickle.loads(pickle.dumps(features))
    assert next(again.backbone_.parameters()).device.type == "cpu"
    assert next(features.backbone_.parameters()).device.type == torch.device(device).type
    np.testing.assert_allclose(again.transform(NAMES[:3]), features.transform(NAMES[:3]), atol=1e-5)


def test_tags_say_that_the_input_is_text(make):
    tags = make().__sklearn_tags__()
    assert tags.input_tags.string
    assert tags.input_tags.one_d_array
    assert tags.input_tags.two_d_array
    assert tags.transformer_tags.preserves_dtype == []
    assert not tags.non_deterministic
    assert ImageFeatures(weights=None).__sklearn_tags__().non_deterministic


@pytest.mark.parametrize("last", [FAST, OneVsRestClassifier(LogisticRegression())])
def test_pipeline_is_fitted_on_paths_and_predicts_their_labels(last, make):
    pipeline = make_pipeline(make(), clone(last)).fit(NAMES[:30], LABELS[:30])
    assert (pipeline.predict(NAMES[30:]) == LABELS[30:]).mean() > 0.9
    assert pipeline.predict_proba(NAMES[30:]).shape == (10, 2)
    again = pickle.loads(pickle.dumps(pipeline))
    assert np.array_equal(again.predict(NAMES), pipeline.predict(NAMES))


@pytest.mark.parametrize("as_frame", [True, False])
def test_pipeline_is_cross_validated_on_paths_and_reads_each_image_once(as_frame, make, tmp_path):
    pipeline = make_pipeline(make(cache_dir=tmp_path), OneVsRestClassifier(LogisticRegression(C=100)))
    X = pd.DataFrame({"path": NAMES}) if as_frame else NAMES
    splitter = MultiLabelStratifiedKFold(n_splits=2)
    scores = cross_val_predict(pipeline, X, LABELS, cv=splitter, method="predict_proba")
    assert roc_auc_score(LABELS, scores) > 0.9
    assert Counting.seen == NUM_IMAGES


def test_grid_search_chooses_a_pooling(make, tmp_path):
    pipeline = make_pipeline(make(cache_dir=tmp_path), OneVsRestClassifier(LogisticRegression()))
    grid = {"imagefeatures__pooling": ["avg", "max"]}
    search = GridSearchCV(pipeline, grid, cv=MultiLabelStratifiedKFold(n_splits=2)).fit(NAMES, LABELS)
    assert search.cv_results_["mean_test_score"].shape == (2,)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_estimator_[0].backbone_.pooling == search.best_params_["imagefeatures__pooling"]
