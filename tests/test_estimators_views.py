"""Estimators on several views of a row, with rows that lack views."""

import pickle
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import Ridge
from sklearn.metrics import average_precision_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from mlmetric.data import join_views
from mlmetric.estimators import MetricClassifier, MetricEmbedder
from mlmetric.estimators._late_fusion import _choose_votes
from mlmetric.heads import (
    ClassifierEnsemble,
    EmbeddingEnsemble,
    EmbeddingHead,
    FusionHead,
    LateFusionClassifier,
    LateFusionHead,
)
from mlmetric.losses import LogRatioLoss
from mlmetric.metrics import best_thresholds

VIEWS = {"image": slice(0, 6), "text": slice(6, 9)}
FUSIONS = ("late", "concat", "gated")


def make_data(num_rows=120, seed=0, missing=0.3):
    """Rows of two views that both tell something of the labels; a share of the rows lacks the text."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, (num_rows, 4))
    maps = np.random.default_rng(1)
    image = y @ maps.normal(size=(4, 6)) + rng.normal(size=(num_rows, 6))
    text = y @ maps.normal(size=(4, 3)) + 0.5 * rng.normal(size=(num_rows, 3))
    text[rng.random(num_rows) < missing] = np.nan
    return np.concatenate([image, text], axis=1), y


def quick(cls=MetricClassifier, **settings):
    return cls(**{"views": VIEWS, "fusion": "late", "n_members": 2, "max_epochs": 3, "random_state": 0} | settings)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("two_stage", [False, True])
def test_each_fusion_predicts_rows_with_and_without_a_view(fusion, two_stage):
    X, y = make_data()
    classifier = quick(fusion=fusion, two_stage=two_stage).fit(X, y)
    only_text = X[~np.isnan(X[:, 6])].copy()
    only_text[:, :6] = np.nan
    for rows in (X, only_text):
        probabilities, embeddings = classifier.predict_proba(rows), classifier.transform(rows)
        assert probabilities.shape == (len(rows), 4)
        assert np.isfinite(probabilities).all()
        assert np.isfinite(embeddings).all()
    assert np.ptp(classifier.predict_proba(only_text), axis=0).min() > 0
    same = pickle.loads(pickle.dumps(classifier))
    np.testing.assert_array_equal(same.predict_proba(X), classifier.predict_proba(X))
    again = clone(classifier).fit(X, y)
    np.testing.assert_array_equal(again.predict_proba(X), classifier.predict_proba(X))


def test_late_fusion_consists_of_estimators_of_the_views():
    """A view without gaps, scored by a classifier of this view alone with the same rows set aside, has its logits."""
    X, y = make_data()
    classifier = quick().fit(X, y)
    assert isinstance(classifier.classifier_, LateFusionClassifier)
    assert isinstance(classifier.head_, LateFusionHead)
    assert all(isinstance(member, ClassifierEnsemble) for member in classifier.classifier_.members)
    assert all(isinstance(member, EmbeddingEnsemble) for member in classifier.head_.members)
    alone = quick(views=None).fit(X[:, :6], y)
    image = torch.from_numpy(X[:, :6].astype(np.float32))
    with torch.no_grad():
        np.testing.assert_allclose(
            classifier.classifier_.members[0](image), alone.decision_function(X[:, :6]), rtol=1e-4
        )
        np.testing.assert_allclose(classifier.head_.members[0](image), alone.transform(X[:, :6]), rtol=1e-4)
    assert len(classifier.history_) == 2 * 2 + 2 * 2  # members, then logistic regressions, of each view
    weights = classifier.classifier_.weights.numpy()
    mixed = weights[0] * alone.decision_function(X[:, :6])
    missing = torch.split(classifier.classifier_.missing, classifier.classifier_.sizes)[1].numpy()
    gaps = np.isnan(X[:, 6])
    np.testing.assert_allclose(classifier.decision_function(X)[gaps], (mixed + weights[1] * missing)[gaps], rtol=1e-3)


def test_missing_views_have_the_mean_logits_of_their_rows():
    X, y = make_data()
    classifier = quick().fit(X, y)
    has_text = ~np.isnan(X[:, 6])
    text = torch.from_numpy(X[has_text, 6:].astype(np.float32))
    with torch.no_grad():
        module = classifier.classifier_
        missing = torch.split(module.missing, module.sizes)[1]
        torch.testing.assert_close(missing, module.members[1](text).mean(0), rtol=1e-4, atol=1e-4)


def test_embeddings_of_missing_views_are_predicted_by_ridge_regression():
    X, y = make_data()
    head = quick(MetricEmbedder, head=partial(EmbeddingHead, widths=(4,)), n_members=1).fit(X, y).head_
    features, has_text = torch.from_numpy(X.astype(np.float32)), ~np.isnan(X[:, 6])
    with torch.no_grad():
        image, text = head.members[0](features[:, :6]).numpy(), head.members[1](features[has_text, 6:]).numpy()
        found = (head(features)[:, 5:] / head.weights[1].sqrt()).numpy()
    center = image.mean(axis=0)
    penalty = np.square(image[has_text] - center).sum() / 4
    ridge = Ridge(alpha=penalty, fit_intercept=False).fit(image[has_text] - center, text - text.mean(axis=0))
    predicted = ridge.predict(image - center) + text.mean(axis=0)
    np.testing.assert_allclose(found[~has_text, :4], predicted[~has_text], rtol=1e-3, atol=1e-4)
    error = np.sqrt(np.square(predicted[has_text] - text).sum(axis=1).mean())
    np.testing.assert_allclose(found[:, 4], np.where(has_text, 0, error), rtol=1e-3)


@pytest.mark.slow
def test_fused_views_predict_better_than_each_alone():
    """On synthetic rows whose views have independent noise."""
    X, y = make_data(400, missing=0.0)
    test, target = make_data(400, seed=5, missing=0.0)

    def score(classifier, columns):
        classifier.fit(X[:, columns], y)
        return average_precision_score(target, classifier.decision_function(test[:, columns]))

    alone = [score(quick(views=None, max_epochs=8), columns) for columns in VIEWS.values()]
    for fusion in FUSIONS:
        assert score(quick(fusion=fusion, max_epochs=8), slice(None)) > max(alone) + 0.01, fusion


def test_view_that_tells_nothing_contributes_least_to_the_logits():
    X, y = make_data(300, missing=0.0)
    X[:, :6] = np.random.default_rng(3).normal(size=(300, 6))
    fused = quick(max_epochs=8).fit(X, y).classifier_
    with torch.no_grad():
        outputs = fused.outputs(torch.from_numpy(X.astype(np.float32)))
    of_noise, of_text = (weight * rows.std(dim=0) for weight, rows in zip(fused.weights, outputs, strict=True))
    assert (of_noise < of_text / 2).all()
    votes = _choose_votes(lambda votes: -abs(votes["a"] / sum(votes.values()) - 0.8), {"a": 0, "b": 0})
    assert votes["a"] / sum(votes.values()) == pytest.approx(0.8, abs=0.01)


def test_constant_view_leaves_the_scale_of_the_embedding():
    X, y = make_data(missing=0.0)
    X[:, 6:] = 5.0
    embedder = quick(MetricEmbedder, n_members=1).fit(X, y)
    embeddings = embedder.transform(X)
    alone = quick(MetricEmbedder, n_members=1, views=None).fit(X[:, :6], y).transform(X[:, :6])
    scale = float(embedder.head_.weights[0]) ** 0.5
    assert scale > 0.1
    np.testing.assert_allclose(embeddings[:, :256], scale * alone, rtol=1e-4, atol=1e-6)
    assert np.ptp(embeddings[:, 256:], axis=0).max() < 1e-6


def test_views_in_grid_search_and_pipeline():
    X, y = make_data(60)
    search = GridSearchCV(quick(n_members=1, max_epochs=1), {"fusion": ["late", "gated"]}, cv=2, scoring="roc_auc_ovr")
    search.fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    swap = ColumnTransformer([("image", "passthrough", list(range(6))), ("text", "passthrough", [6, 7, 8])])
    pipeline = make_pipeline(swap, quick(n_members=1, max_epochs=1)).fit(X, y)
    assert np.isfinite(pipeline.predict_proba(X)).all()


def test_embedder_and_head_of_ones_own():
    X, y = make_data()
    make_head = partial(FusionHead, views=VIEWS, widths=(8, 5), fusion="gated", view_dropout=0.5)
    embedder = quick(MetricEmbedder, fusion="concat", head=make_head).fit(X, y)
    assert embedder.transform(X).shape == (120, 10)
    late = quick(MetricEmbedder, head=partial(EmbeddingHead, widths=(4,))).fit(X, y)
    assert late.transform(X).shape == (120, 2 * (2 * 4 + 1))
    paper = MetricClassifier.paper(views=VIEWS, max_epochs=2, lr=0.001, random_state=0).fit(X, y)
    assert np.isfinite(paper.predict_proba(X)).all()


def test_checkpoints_of_views_are_resumed(tmp_path):
    X, y = make_data(60)
    settings = {"loss": LogRatioLoss(), "n_members": 1}
    whole = quick(**settings).fit(X, y)
    stages = []

    def stop(stage, record):
        stages.append((stage, record["epoch"]))
        if (stage, record["epoch"]) == ("embedding_text_1", 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quick(**settings).fit(X, y, checkpoint_dir=tmp_path, callback=stop)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["embedding_image_1.pt", "embedding_text_1.pt"]
    resumed = quick(**settings).fit(X, y, checkpoint_dir=tmp_path)
    np.testing.assert_array_equal(resumed.predict_proba(X), whole.predict_proba(X))
    image, text = "embedding_image_1", "embedding_text_1"
    assert stages == [(image, 1), (image, 2), (image, 3), (text, 1), (text, 2)]


@pytest.mark.parametrize("fusion", FUSIONS)
def test_validation_rows_may_lack_views(fusion):
    X, y = make_data()
    held_out, target = make_data(30, seed=2, missing=1.0)
    classifier = quick(fusion=fusion).fit(X, y, validation=(held_out, target))
    assert np.isfinite(classifier.thresholds_).any()
    assert np.isfinite(quick(fusion=fusion, validation_fraction=0.0).fit(X, y).predict_proba(X)).all()


@pytest.mark.parametrize("fusion", FUSIONS)
def test_thresholds_are_chosen_by_the_predictions_for_validation_rows(fusion):
    X, y = make_data()
    held_out, target = make_data(60, seed=2)
    held_out[(np.arange(60) % 3 == 0) & ~np.isnan(held_out[:, 6]), :6] = np.nan
    classifier = quick(fusion=fusion).fit(X, y, validation=(held_out, target))
    probabilities = torch.from_numpy(classifier.predict_proba(held_out))
    expected = best_thresholds(probabilities, torch.from_numpy(target), average="macro", max_predicted=1.5)
    np.testing.assert_allclose(classifier.thresholds_, expected, rtol=1e-6)


def test_patience_if_a_view_is_in_no_validation_row():
    """The members of that view are trained for all epochs, those of the other one may end earlier."""
    X, y = make_data()
    held_out = make_data(30, seed=2, missing=1.0)
    settings = {"n_members": 1, "patience": 1, "max_epochs": 25, "lr": 0.003}
    classifier = quick(**settings).fit(X, y, validation=held_out)
    image, text = classifier.history_[:2]
    assert len(image) < len(text) == 25
    assert "val_ndcg_at_10" in image[0]
    assert "val_ndcg_at_10" not in text[0]


def test_wrong_views():
    X, y = make_data()
    with pytest.raises(ValueError, match="Input X contains NaN"):
        quick(views=None).fit(X, y)
    with pytest.raises(ValueError, match="`fusion` must be"):
        quick(fusion="early").fit(X, y)
    with pytest.raises(ValueError, match="column 6 is in no view"):
        quick(views={"image": slice(0, 6)}).fit(X, y)
    broken = X.copy()
    broken[5, 2] = np.nan
    with pytest.raises(ValueError, match="row 5 has 1 NaN in 6 columns of the view 'image'"):
        quick().fit(broken, y)
    with pytest.raises(ValueError, match="infinity"):
        quick().fit(np.where(np.isnan(X), np.inf, X), y)
    classifier = quick(n_members=1, max_epochs=1).fit(X, y)
    with pytest.raises(ValueError, match="the first is row 1"):
        classifier.predict(np.concatenate([X[:1], np.full((1, 9), np.nan)]))
    rare = X.copy()
    rare[1:, 6:] = np.nan
    with pytest.raises(ValueError, match="The view 'text' is in 1 of 120 rows of `X`"):
        quick(fusion="gated").fit(rare, y)
    rare[1, 6:] = 0
    with pytest.raises(ValueError, match="The view 'text' is in 2 of 120 rows, and in 0 of the training rows"):
        quick(validation_fraction=0.5).fit(rare, y)
    with pytest.raises(ValueError, match="`head` must embed rows that lack a view"):
        quick(fusion="concat", head=EmbeddingHead).fit(X, y)


def test_views_of_join_views():
    X, y = make_data(missing=0.0)
    joined, views = join_views({"image": X[:, :6], "text": X[:, 6:]}, present={"text": np.arange(120) % 2 == 0})
    classifier = quick(views=views, n_members=1, max_epochs=1).fit(joined, y)
    assert classifier.n_features_in_ == 9


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("two_stage", [False, True])
def test_views_on_a_device(fusion, two_stage, device):
    X, y = make_data(60)
    settings = {"fusion": fusion, "two_stage": two_stage, "n_members": 1, "max_epochs": 1}
    classifier = quick(**settings, device=str(device)).fit(X, y)
    for module in (classifier.head_, classifier.classifier_):
        assert {value.device for value in module.state_dict().values()} == {device}
    loaded = pickle.loads(pickle.dumps(classifier))
    assert {value.device.type for value in loaded.classifier_.state_dict().values()} == {"cpu"}
    np.testing.assert_allclose(loaded.predict_proba(X), classifier.predict_proba(X), rtol=1e-3, atol=1e-5)
