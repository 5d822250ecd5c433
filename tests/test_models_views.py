"""Models whose rows lack views: missing features, saving, and export."""

from functools import partial

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from mlmetric.estimators import MetricClassifier
from mlmetric.heads import ClassifierHead, EmbeddingEnsemble, FusionHead, LateFusionClassifier, LateFusionHead
from mlmetric.models import MultiLabelModel
from mlmetric.models._module_config import input_size

VIEWS = {"image": slice(0, 4), "text": slice(4, 7)}
FUSIONS = ("late", "concat", "gated")


def make_rows(num_rows=60):
    """Rows with both views, with the first only, and with the second only, in turn."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, (num_rows, 2))
    X = (y @ rng.normal(size=(2, 7)) + rng.normal(size=(num_rows, 7))).astype(np.float32)
    X[1::3, 4:] = np.nan
    X[2::3, :4] = np.nan
    return X, y


X, Y = make_rows()


def fit(fusion, **settings):
    settings = {"n_members": 1, "max_epochs": 1, "random_state": 0} | settings
    return MetricClassifier(views=VIEWS, fusion=fusion, **settings).fit(X, Y)


@pytest.fixture(scope="module", params=FUSIONS)
def fitted(request):
    return fit(request.param)


def test_model_reads_rows_that_lack_views_as_the_estimator_does(fitted):
    model = fitted.to_model()
    assert model.views == VIEWS
    np.testing.assert_array_equal(model.predict_proba(X), fitted.predict_proba(X))
    np.testing.assert_array_equal(model.embed(X), fitted.transform(X))
    assert np.isfinite(model.embed(X)).all()


def test_saved_model_is_loaded_as_it_was(fitted, tmp_path):
    model = fitted.to_model()
    model.save_pretrained(tmp_path)
    loaded = MultiLabelModel.from_pretrained(tmp_path)
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))
    np.testing.assert_array_equal(loaded.embed(X), model.embed(X))
    assert loaded.views == VIEWS
    assert repr(loaded) == repr(model)


def test_second_stage_on_fused_embeddings_is_saved(tmp_path):
    model = fit("gated", two_stage=True).to_model()
    model.save_pretrained(tmp_path)
    np.testing.assert_array_equal(MultiLabelModel.from_pretrained(tmp_path).predict_proba(X), model.predict_proba(X))


def test_program_reads_rows_that_lack_views(fitted):
    model = fitted.to_model()
    outputs = model.export_program().module()(torch.from_numpy(X))
    np.testing.assert_allclose(outputs[0].detach(), model.predict_proba(X), atol=1e-5)
    np.testing.assert_allclose(outputs[1].detach(), model.embed(X), atol=1e-4)


@pytest.mark.slow
def test_onnx_file_reads_rows_that_lack_views(fitted, tmp_path):
    model = fitted.to_model()
    model.export_onnx(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    probabilities, embeddings = session.run(["probabilities", "embeddings"], {"features": X})
    np.testing.assert_allclose(probabilities, model.predict_proba(X), atol=1e-5)
    np.testing.assert_allclose(embeddings, model.embed(X), atol=1e-4)


def test_missing_features_are_those_of_whole_views():
    model = fit("concat").to_model()
    partly, nothing, infinite = X[:1].copy(), np.full((2, 7), np.nan), X[:1].copy()
    partly[0, 1], infinite[0, 1] = np.nan, np.inf
    nothing[0] = X[0]
    with pytest.raises(ValueError, match="row 0 has 1 NaN in 4 columns of the view 'image'"):
        model.predict(partly)
    with pytest.raises(ValueError, match=r"1 of 2 have none; the first is row 1\."):
        model.predict(nothing)
    with pytest.raises(ValueError, match="inputs contains infinity"):
        model.predict(infinite)


def test_heads_that_need_all_views_read_no_missing_features():
    model = MultiLabelModel(FusionHead(7, VIEWS, (4, 2)), ClassifierHead(7, 2))
    assert model.views is None
    with pytest.raises(ValueError, match="inputs contains NaN"):
        model.predict(X)
    assert MultiLabelModel(FusionHead(7, VIEWS, (4, 2)), ClassifierHead(7, 2, fill_missing=True)).views == VIEWS


@pytest.mark.parametrize(
    "head",
    [
        FusionHead(7, VIEWS),
        LateFusionHead(7, VIEWS, dict.fromkeys(VIEWS, nn.Identity()), dict.fromkeys(VIEWS, torch.zeros(2))),
        LateFusionClassifier(7, VIEWS, dict.fromkeys(VIEWS, nn.Identity()), dict.fromkeys(VIEWS, torch.zeros(2))),
        EmbeddingEnsemble([FusionHead(7, VIEWS)]),
    ],
    ids=lambda head: type(head).__name__,
)
def test_number_of_features_is_read_from_heads_of_views(head):
    assert input_size(head) == 7


@pytest.mark.parametrize("fusion", ["concat", "gated"])
def test_fusion_head_is_loaded_with_its_settings(tmp_path, fusion):
    activation = partial(nn.LeakyReLU, 0.3)
    settings = {"clip": 2.0, "norm_exponent": 0.5, "dropout": 0.1, "input_dropout": 0.2, "view_dropout": 0.4}
    head = FusionHead(7, VIEWS, (6, 5, 3), fusion=fusion, activation=activation, activate_last=True, **settings)
    model = MultiLabelModel(head, ClassifierHead(7, 2, fill_missing=True)).eval()
    model.save_pretrained(tmp_path)
    loaded = MultiLabelModel.from_pretrained(tmp_path)
    np.testing.assert_array_equal(loaded.embed(X), model.embed(X))
    assert repr(loaded) == repr(model)
