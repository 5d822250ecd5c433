"""How the labels are predicted: by the networks of the members with a logistic regression, or in two stages."""

import copy
import pickle
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from mlmetric.decisions import LabelCalibrator
from mlmetric.estimators import MetricClassifier, MetricEmbedder
from mlmetric.estimators._label_training import fit_joint_classifier
from mlmetric.estimators._members import TrainedMembers
from mlmetric.estimators._staged_estimator import StageOutputs
from mlmetric.estimators._training_data import TrainingData
from mlmetric.estimators._validation_parts import ValidationParts
from mlmetric.heads import ClassifierEnsemble, ClassifierHead, EmbeddingHead, LabelNetwork
from mlmetric.losses import LogRatioLoss
from mlmetric.metrics import best_thresholds, mean_average_precision
from mlmetric.models import MultiLabelModel
from mlmetric.training import TrainingConfig, apply_in_batches, fit_classifier, fit_embedding, fit_logistic_regression

TINY = partial(EmbeddingHead, widths=(8, 4))
FAST = {"head": TINY, "n_members": 3, "max_epochs": 3, "batch_size": 32, "lr": 0.01, "random_state": 0}


def table(num_rows=160, seed=0):
    """Return features and labels, the last one rare; each label adds a direction to the noise of the features."""
    rng = np.random.default_rng(seed)
    y = (rng.random((num_rows, 4)) < [0.5, 0.4, 0.3, 0.1]).astype(int)
    X = y @ rng.normal(size=(4, 10)) + rng.normal(size=(num_rows, 10))
    return X.astype(np.float32), y


def noise(num_rows=120):
    """Return many features and unrelated labels, which a network can memorise but not predict."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(num_rows, 60)).astype(np.float32)
    return X, (rng.random((num_rows, 3)) < 0.3).astype(int)


def data_of(X, y):
    return TrainingData(torch.tensor(X), torch.tensor(y, dtype=torch.float32))


def parts_of(classifier, X, y):
    """Return the training rows and validation rows of each member of a classifier."""
    seed, _ = StageOutputs(None, None).seeds(classifier.random_state)
    fraction, num_parts = classifier.validation_fraction, classifier.n_members
    return ValidationParts(data_of(X, y), None, fraction=fraction, num_parts=num_parts, seed=seed)


def score(logits, y):
    return float(mean_average_precision(logits, y))


class Expected:
    """What a fitted classifier should consist of, apart from its networks, computed part by part."""

    def __init__(self, fitted, X, y):
        *networks, probe = fitted.classifier_.members
        parts = parts_of(fitted, X, y)
        of_networks, of_probes, targets, weights = [], [], [], []
        for number in range(len(parts)):
            train, validation = parts[number]
            unseen = networks[number :: len(parts)]
            logits = torch.stack([apply_in_batches(network, validation.features) for network in unseen])
            own = ClassifierHead(X.shape[1], y.shape[1], clip=3.0)
            own.standardize.fit(torch.tensor(X))
            if number == 0:
                self.histories = [fit_logistic_regression(own, *train.pair, validation=validation.pair)]
                best = max(self.histories[0], key=lambda record: record["val_map"])
            else:
                self.histories.append(
                    fit_logistic_regression(own, *train.pair, C=best["C"], validation=validation.pair)
                )
            of_networks.append(logits.mean(0))
            of_probes.append(apply_in_batches(own, validation.features))
            targets.append(validation.labels)
            weights.append(own.linear.weight.detach())
        self.weight = torch.stack(weights).mean(0)
        self.target = torch.cat(targets)
        of_networks, of_probes = torch.cat(of_networks), torch.cat(of_probes)
        shares = [step / 20 for step in range(21)]
        mixtures = [share * of_networks + (1 - share) * of_probes for share in shares]
        self.scores = [score(mixture, self.target) for mixture in mixtures]
        best = max(range(21), key=lambda step: (self.scores[step], -abs(step - 10)))
        self.share, self.logits = shares[best], mixtures[best]
        self.probe = probe


# The members and the logistic regression


@pytest.mark.parametrize(
    "settings",
    [{}, {"validation_fraction": 0.4}, {"n_members": 1}, {"n_members": 4, "validation_fraction": 0.25}],
    ids=["three members", "two parts for three", "one member", "all rows set aside"],
)
def test_share_and_thresholds_are_chosen_from_the_logits_of_networks_that_have_not_seen_the_row(settings):
    X, y = table(seed=3)
    fitted = MetricClassifier(**FAST | {"max_epochs": 10, "lr": 0.02} | settings).fit(X, y)
    expected, num_members = Expected(fitted, X, y), fitted.n_members
    weights = [expected.share / num_members] * num_members + [1 - expected.share]
    assert fitted.classifier_.weights.tolist() == pytest.approx(weights)
    torch.testing.assert_close(expected.probe.linear.weight, nn.Parameter(expected.weight))
    assert fitted.history_[num_members:] == expected.histories
    chosen = best_thresholds(expected.logits.sigmoid(), expected.target, average="macro", max_predicted=1.5)
    np.testing.assert_allclose(fitted.thresholds_, chosen, rtol=1e-5)


def test_memorised_noise_does_not_look_predictable():
    X, y = noise()
    settings = {"head": partial(EmbeddingHead, widths=(64, 32)), "max_epochs": 15, "mixup": 0.0, "keep_best": False}
    fitted = MetricClassifier(**FAST | settings | {"n_members": 4, "validation_fraction": 0.25}).fit(X, y)
    expected = Expected(fitted, X, y)
    networks = ClassifierEnsemble(list(fitted.classifier_.members)[:-1])
    assert score(apply_in_batches(networks, torch.tensor(X)), y) > 0.95  # three of four members memorise each row
    assert len(expected.target) == len(X)
    assert score(expected.logits, expected.target) < y.mean() + 0.15
    on_seen_rows = best_thresholds(fitted.predict_proba(X), y, average="macro")
    assert np.abs(fitted.thresholds_ - on_seen_rows.numpy()).max() > 0.05


def test_each_network_has_the_weights_of_its_best_epoch_by_map():
    X, y = table()
    fitted = MetricClassifier(**FAST | {"max_epochs": 12, "lr": 0.05, "ema_decay": 0.0}).fit(X, y)
    parts, epochs = parts_of(fitted, X, y), []
    for number, network in enumerate(fitted.classifier_.members[:-1]):
        records, (_, validation) = fitted.history_[number], parts[number]
        scores = [record["val_map"] for record in records]
        assert score(apply_in_batches(network, validation.features), validation.labels) == pytest.approx(max(scores))
        by_retrieval = [record["val_ndcg_at_10"] for record in records]
        epochs.append((scores.index(max(scores)), by_retrieval.index(max(by_retrieval))))
        same = torch.equal(network.head.layers[0].weight, fitted.head_.members[number].layers[0].weight)
        assert same == (epochs[-1][0] == epochs[-1][1])
    assert any(by_map != by_retrieval for by_map, by_retrieval in epochs)


@pytest.mark.parametrize("two_stage", [False, True])
def test_classifier_maps_features_to_the_decision_function(two_stage):
    X, y = table()
    fitted = MetricClassifier(**FAST, two_stage=two_stage).fit(X, y)
    assert not any(part.training for part in fitted.classifier_.modules())
    with torch.no_grad():
        logits = fitted.classifier_(torch.tensor(X))
    np.testing.assert_allclose(logits, fitted.decision_function(X), rtol=1e-5, atol=1e-6)
    if not two_stage:
        assert isinstance(fitted.classifier_, ClassifierEnsemble)
        assert [type(part) for part in fitted.classifier_.members] == 3 * [LabelNetwork] + [ClassifierHead]


def test_all_shares_are_possible():
    X, y = table()
    parts = ValidationParts(data_of(X, y), None, fraction=0.25, num_parts=1, seed=0)
    head, classifier = nn.Identity(), ClassifierHead(10, 4)
    nn.init.zeros_(classifier.linear.weight)
    settings = {"standardize": True, "device": "cpu", "seed": 0}
    constant = fit_joint_classifier(TrainedMembers(parts, [head], [LabelNetwork(head, classifier)], []), **settings)
    assert constant.module.weights.tolist() == [0.5, 0.5]  # the most even of equal shares
    assert constant.validation[0].std(0).min() > 0
    better = copy.deepcopy(classifier)
    fit_logistic_regression(better, *parts[0].validation.pair, C=0.1)  # on these rows better than one of other rows
    better.linear.weight.data *= 1e-6  # next to which any share of the logistic regression decides
    faint = fit_joint_classifier(TrainedMembers(parts, [head], [LabelNetwork(head, better)], []), **settings)
    assert faint.module.weights.tolist() == [1, 0]
    features = torch.tensor(X)
    torch.testing.assert_close(apply_in_batches(faint.module, features), apply_in_batches(better, features))


@pytest.mark.parametrize("standardize", [True, False])
def test_without_validation_rows_both_have_the_same_share_and_a_fixed_penalty(standardize):
    X, y = table()
    fitted = MetricClassifier(**FAST, validation_fraction=0, standardize=standardize).fit(X, y)
    assert fitted.classifier_.weights.tolist() == pytest.approx([1 / 6, 1 / 6, 1 / 6, 1 / 2])
    expected = ClassifierHead(10, 4, clip=3.0 if standardize else None)
    if standardize:
        expected.standardize.fit(torch.tensor(X))
    records = fit_logistic_regression(expected, *data_of(X, y).pair, C=0.01)
    assert fitted.history_[3:] == [records]
    assert torch.equal(fitted.classifier_.members[-1].linear.weight, expected.linear.weight)
    assert fitted.thresholds_.tolist() == [0.5] * 4


def test_validation_argument_chooses_share_and_thresholds_for_all_members():
    X, y = table(240)
    fitted = MetricClassifier(**FAST).fit(X[:160], y[:160], validation=(X[160:], y[160:]))
    assert len(fitted.history_) == 3 + 1  # one logistic regression
    *networks, probe = fitted.classifier_.members
    features = torch.tensor(X[160:])
    of_networks = torch.stack([apply_in_batches(network, features) for network in networks]).mean(0)
    of_probe = apply_in_batches(probe, features)
    scores = [score(step / 20 * of_networks + (1 - step / 20) * of_probe, y[160:]) for step in range(21)]
    best = max(range(21), key=lambda step: (scores[step], -abs(step - 10)))  # of equal ones the most even
    assert fitted.classifier_.weights[-1].item() == pytest.approx(1 - best / 20)
    chosen = best_thresholds(fitted.predict_proba(X[160:]), y[160:], average="macro")
    np.testing.assert_allclose(fitted.thresholds_, chosen, rtol=1e-5)


@pytest.mark.parametrize("two_stage", [False, True])
def test_validation_rows_without_positives_warn_and_choose_nothing(two_stage):
    X, y = table()
    with pytest.warns(UserWarning, match="Epochs cannot be scored"):
        fitted = MetricClassifier(**FAST, two_stage=two_stage).fit(X, y, validation=(X[:40], 0 * y[:40]))
    assert fitted.thresholds_.tolist() == [0.5] * 4
    assert np.isfinite(fitted.decision_function(X)).all()
    if not two_stage:
        assert fitted.classifier_.weights[-1].item() == 0.5
        last = MetricClassifier(**FAST | {"keep_best": False}).fit(X, y, validation=(X[:40], y[:40]))
        assert torch.equal(fitted.classifier_.members[0].head.layers[0].weight, last.head_.members[0].layers[0].weight)


@pytest.mark.filterwarnings("ignore:Epochs cannot be scored")
@pytest.mark.parametrize(
    ("X", "y"),
    [
        (table()[0], table()[1][:, :1]),
        (table()[0], (np.arange(160) == 7)[:, None].astype(int)),
        (table()[0], np.column_stack([table()[1], np.zeros(160), np.ones(160)])),
        (table()[0], np.column_stack([table()[1][:, :2], np.arange(160) == 7])),
        (table()[0], np.zeros((160, 2))),
        (table()[0][:2], table()[1][:2]),
        (table()[0][:3], table()[1][:3]),
        (table()[0][:6], table()[1][:6]),
    ],
    ids=[
        "one label",
        "one positive",
        "constant labels",
        "a label of one row",
        "no label",
        "2 rows",
        "3 rows",
        "6 rows",
    ],
)
def test_several_members_can_be_fitted_to_unusual_labels(X, y):
    fitted = MetricClassifier(**FAST | {"n_members": 4}).fit(X, y)
    probabilities = fitted.predict_proba(X)
    assert probabilities.shape == y.shape
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    assert np.isfinite(fitted.thresholds_).all()
    assert fitted.predict(X).shape == y.shape
    assert fitted.classifier_.weights.sum().item() == pytest.approx(1)


def test_label_loss_is_copied_for_each_member_and_stays_as_it_is():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = nn.Parameter(torch.ones(()))

        def forward(self, logits, labels):
            return nn.functional.binary_cross_entropy_with_logits(self.factor * logits, labels)

    X, y = table()
    loss = Scaled()
    fitted = MetricClassifier(**FAST, label_loss=loss).fit(X, y)
    assert loss.factor.item() == 1
    assert fitted.label_loss is loss
    plain = MetricClassifier(**FAST).fit(X, y)
    assert fitted.history_[0][0]["loss"] != plain.history_[0][0]["loss"]  # the factor of the copy is trained


# Two stages


def test_two_stages_are_an_embedder_and_a_classifier_on_its_embeddings():
    X, y = table()
    settings = {name: value for name, value in FAST.items() if name != "n_members"}
    fitted = MetricClassifier(**settings, n_members=1, two_stage=True, mixup=0.4).fit(X, y)
    embedder = MetricEmbedder(**settings, n_members=1, mixup=0.4).fit(X, y)
    train, validation = parts_of(embedder, X, y)[0]
    embeddings, held_out = (torch.from_numpy(embedder.transform(part.features)) for part in (train, validation))
    classifier = ClassifierHead(4, 4).init_from_labels(train.labels)
    classifier.standardize.fit(embeddings)
    _, seed = StageOutputs(None, None).seeds(0)
    config = TrainingConfig(max_epochs=3, batch_size=32, lr=0.001, ema_decay=0.999, keep_best=True, seed=seed % 100_000)
    validation_of_stage = held_out, validation.labels
    records = fit_classifier(classifier, embeddings, train.labels, config=config, validation=validation_of_stage)
    assert fitted.history_ == [*embedder.history_, records]
    found = fitted.classifier_.classifier.state_dict()
    assert all(torch.equal(found[name], value) for name, value in classifier.state_dict().items())
    expected = apply_in_batches(classifier, torch.from_numpy(embedder.transform(X)))
    np.testing.assert_allclose(fitted.decision_function(X), expected, rtol=1e-5, atol=1e-6)
    assert fitted.classifier_.head is fitted.head_


def test_two_stages_need_no_classifier_of_the_members():
    X, y = table()
    settings = FAST | {"classifier_weight": 0.0, "two_stage": True}
    fitted = MetricClassifier(**settings).fit(X, y)
    assert "val_map" not in fitted.history_[0][0]
    assert score(fitted.decision_function(X), y) > y.mean() + 0.1


def test_joint_member_is_that_of_fit_embedding():
    X, y = table()
    fitted = MetricClassifier(**FAST | {"n_members": 1, "mixup": 0.0, "classifier_weight": 0.5}).fit(X, y)
    train, validation = parts_of(fitted, X, y)[0]
    first, second = StageOutputs(None, None).seeds(0)
    assert first != second
    with torch.random.fork_rng():
        torch.manual_seed(first)
        head, classifier = TINY(10), ClassifierHead(4, 4)
    head.standardize.fit(torch.tensor(X))
    network = LabelNetwork(copy.deepcopy(head), copy.deepcopy(classifier))
    records = fit_embedding(
        head,
        *train.pair,
        loss=LogRatioLoss(),
        classifier=classifier,
        classifier_weight=0.5,
        label_network=network,
        config=TrainingConfig(
            max_epochs=3, batch_size=32, lr=0.01, ema_decay=0.999, keep_best=True, seed=first % 100_000
        ),
        validation=validation.pair,
    )
    assert fitted.history_[0] == records
    found = fitted.classifier_.members[0].state_dict()
    assert all(torch.equal(found[name], value) for name, value in network.state_dict().items())


# Pickles


@pytest.mark.parametrize("two_stage", [False, True])
def test_pickled_modules_are_on_the_cpu_and_predict_the_same(two_stage, device):
    X, y = table()
    fitted = MetricClassifier(**FAST, two_stage=two_stage, device=str(device)).fit(X, y)
    expected = fitted.predict_proba(X)
    loaded = pickle.loads(pickle.dumps(fitted))
    for name, place in (("classifier_", "cpu"), ("head_", "cpu")):
        assert {value.device.type for value in getattr(loaded, name).state_dict().values()} == {place}
        assert {value.device for value in getattr(fitted, name).state_dict().values()} == {device}
    np.testing.assert_allclose(loaded.predict_proba(X), expected, rtol=1e-3, atol=1e-5)


def test_label_loss_that_cannot_be_called_is_an_error():
    with pytest.raises(TypeError, match="`label_loss` must be None or a loss of logits and labels, got 'bce'"):
        MetricClassifier(**FAST, label_loss="bce").fit(*table())


@pytest.mark.parametrize("two_stage", [False, True])
@pytest.mark.parametrize("method", ["temperature", "platt"])
def test_calibration_is_fitted_to_the_validation_rows(method, two_stage, tmp_path):
    X, y = table(200)
    rest = slice(120, None)
    settings = {"n_members": 2, "max_epochs": 3, "two_stage": two_stage, "random_state": 0}
    plain, calibrated = (
        MetricClassifier(**settings, calibration=each).fit(X[:120], y[:120], validation=(X[rest], y[rest]))
        for each in (None, method)
    )
    logits = plain.decision_function(X[rest])
    expected = LabelCalibrator(method).fit(logits, y[rest])
    assert np.allclose(calibrated.predict_proba(X), expected.transform(plain.decision_function(X)), atol=1e-5)
    assert np.allclose(calibrated.thresholds_, best_thresholds(expected.transform(logits), y[rest], max_predicted=1.5))
    assert np.array_equal(calibrated.transform(X), plain.transform(X))
    assert len(calibrated.history_) == len(plain.history_)
    calibrated.to_model().save_pretrained(tmp_path / "model")
    loaded = MultiLabelModel.from_pretrained(tmp_path / "model")
    assert np.array_equal(loaded.predict_proba(X), calibrated.to_model().predict_proba(X))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"calibration": "isotonic"}, "`calibration` must be None, 'temperature' or 'platt', .* got 'isotonic'"),
        ({"calibration": "platt", "two_stage": True, "activation": "softmax"}, "None with `activation='softmax'`"),
        ({"calibration": "platt", "validation_fraction": 0.0}, "`calibration='platt'` requires validation rows"),
    ],
)
def test_calibration_that_is_not_possible_is_an_error(settings, message):
    with pytest.raises(ValueError, match=message):
        MetricClassifier(n_members=1, max_epochs=1, random_state=0, **settings).fit(*table(60))
