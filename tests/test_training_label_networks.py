"""The best epochs of an embedding and of the classifier that is trained with it: each by its own score."""

import copy
import dataclasses
import functools
import math

import pytest
import torch
from torch import nn

from helpers import Killed
from mlmetric.heads import ClassifierHead, EmbeddingHead, LabelNetwork
from mlmetric.losses import AsymmetricLoss, LogRatioLoss, SimilarityRegressionLoss
from mlmetric.metrics import mean_average_precision
from mlmetric.training import TrainingConfig, apply_in_batches, fit_classifier, fit_embedding
from mlmetric.training._best_epochs import BestEpochs

CONFIG = TrainingConfig(max_epochs=8, batch_size=32, lr=0.01, seed=3, keep_best=True)


@pytest.fixture
def noise(generator):
    """Training rows and validation rows whose labels are unrelated: scores fluctuate."""
    features = torch.randn(120, 12, generator=generator)
    labels = (torch.rand(120, 4, generator=generator) < 0.4).long()
    return (features[:80], labels[:80]), (features[80:], labels[80:])


def make_network():
    torch.manual_seed(0)
    return LabelNetwork(EmbeddingHead(12, (16, 4), dropout=0.3), ClassifierHead(4, 4))


class Fit:
    """A trained head and its classifier, the network that receives their weights, and the history."""

    def __init__(self, train, validation=None, *, receive=True, weight=0.5, classifier_loss=None, **options):
        self.trained, self.received = make_network(), make_network() if receive else None
        settings = {name: options.pop(name) for name in ("checkpoint", "callback") if name in options}
        self.history = fit_embedding(
            self.trained.head,
            *train,
            loss=SimilarityRegressionLoss(),
            classifier=self.trained.classifier,
            classifier_weight=weight,
            classifier_loss=classifier_loss,
            label_network=self.received,
            config=dataclasses.replace(CONFIG, **options),
            validation=validation,
            **settings,
        )


def epoch_of_best(history, name):
    scores = [record[name] for record in history]
    return 1 + scores.index(max(scores))


def same_state(first, second):
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


# The two best epochs


def test_head_ends_at_the_best_retrieval_and_the_network_at_the_best_labels(noise):
    fit = Fit(*noise)
    epochs = {name: epoch_of_best(fit.history, name) for name in ("val_ndcg_at_10", "val_map")}
    assert len({*epochs.values(), 1, 8}) == 4  # neither is the first or the last
    for network, name in ((fit.trained, "val_ndcg_at_10"), (fit.received, "val_map")):
        stopped = Fit(noise[0], receive=False, keep_best=False, max_epochs=epochs[name])
        assert same_state(network, stopped.trained)
    features, labels = noise[1]
    found = mean_average_precision(apply_in_batches(fit.received, features), labels)
    assert float(found) == pytest.approx(max(record["val_map"] for record in fit.history))


def test_network_that_receives_weights_does_not_change_training(noise):
    fit, without = Fit(*noise), Fit(*noise, receive=False)
    assert fit.history == without.history
    assert same_state(fit.trained, without.trained)


@pytest.mark.parametrize("with_validation", [True, False])
def test_without_keep_best_the_network_receives_the_last_epoch(noise, with_validation):
    fit = Fit(noise[0], noise[1] if with_validation else None, keep_best=False)
    assert same_state(fit.received, fit.trained)
    assert not same_state(fit.received, Fit(*noise).received)


def test_network_receives_the_last_epoch_if_no_score_is_a_number(noise):
    train, (features, labels) = noise
    with pytest.warns(UserWarning, match="Epochs cannot be scored: .* NaN") as caught:
        fit = Fit(train, (features, 0 * labels))
    assert len(caught) == 1
    last = Fit(train, keep_best=False).trained
    assert same_state(fit.trained, last)
    assert same_state(fit.received, last)


def test_network_receives_the_buffers_of_the_head(noise):
    trained = EmbeddingHead(12, (16, 4), batch_norm=True), ClassifierHead(4, 4)
    received = LabelNetwork(*copy.deepcopy(trained))
    history = fit_embedding(
        trained[0],
        *noise[0],
        loss=SimilarityRegressionLoss(),
        classifier=trained[1],
        label_network=received,
        config=dataclasses.replace(CONFIG, keep_best=False),
    )
    assert len(history) == 8
    assert same_state(received, LabelNetwork(*trained))
    assert received.head.layers[1].num_batches_tracked == 8 * 3


def test_network_without_a_classifier_is_an_error(noise):
    network = make_network()
    with pytest.raises(ValueError, match="`label_network` needs a `classifier` that is trained with the head, got"):
        fit_embedding(network.head, *noise[0], loss=SimilarityRegressionLoss(), label_network=network)
    assert same_state(network, make_network())


# Checkpoints


@pytest.mark.parametrize("killed_after", [1, 4, 8])
@pytest.mark.parametrize("keep_best", [True, False])
def test_network_of_a_resumed_fit_has_the_bits_of_an_uninterrupted_one(noise, keep_best, killed_after, tmp_path):
    def kill(record):
        if record["epoch"] == killed_after:
            raise Killed

    make = functools.partial(Fit, *noise, keep_best=keep_best, mixup=0.4, classifier_loss=ScaledLoss())
    expected = make()
    with pytest.raises(Killed):
        make(classifier_loss=ScaledLoss(), checkpoint=tmp_path / "stage.pt", callback=kill)
    for _ in range(2):  # the second fit only loads the checkpoint
        resumed = make(classifier_loss=ScaledLoss(), checkpoint=tmp_path / "stage.pt")
        assert resumed.history == expected.history
        assert same_state(resumed.trained, expected.trained)
        assert same_state(resumed.received, expected.received)


def test_checkpoint_of_another_classifier_loss_is_an_error(noise, tmp_path):
    Fit(*noise, checkpoint=tmp_path / "stage.pt", max_epochs=1)
    with pytest.raises(ValueError, match="other settings or data: classifier_loss was None and is"):
        Fit(*noise, checkpoint=tmp_path / "stage.pt", max_epochs=1, classifier_loss=AsymmetricLoss())


def test_checkpoint_of_a_fit_without_a_network_is_an_error(noise, tmp_path):
    Fit(*noise, receive=False, checkpoint=tmp_path / "stage.pt")
    with pytest.raises(ValueError, match=r"other settings or data: keeps_label_network was .*False.* and is .*True"):
        Fit(*noise, checkpoint=tmp_path / "stage.pt")


def test_network_of_another_shape_is_an_error_before_training(noise):
    features, labels = noise[0]
    head, classifier = EmbeddingHead(features.shape[1], (8, 4)), ClassifierHead(4, labels.shape[1])
    settings = {"loss": LogRatioLoss(), "classifier": classifier, "callback": lambda record: pytest.fail("trained")}
    other = LabelNetwork(EmbeddingHead(features.shape[1], (9, 4)), copy.deepcopy(classifier))
    with pytest.raises(ValueError, match=r"`label_network\.head` must be a copy of `head`.* other parameters"):
        fit_embedding(head, features, labels, label_network=other, **settings)
    with pytest.raises(ValueError, match=r"`label_network\.head` must be a copy of `head`.* the same object"):
        fit_embedding(head, features, labels, label_network=LabelNetwork(head, classifier), **settings)


# The loss of the classifier


class HardLoss(nn.Module):
    """A loss that requires labels 0 or 1."""

    supports_soft_labels = False

    def forward(self, logits, labels):
        return logits.sum()


def test_mixup_with_a_classifier_loss_of_hard_labels_is_an_error(noise):
    network = make_network()
    with pytest.raises(ValueError, match=r"`mixup` creates soft labels, which `HardLoss` does not support, got 0\.4"):
        fit_embedding(
            network.head,
            *noise[0],
            loss=LogRatioLoss(),
            classifier=network.classifier,
            classifier_loss=HardLoss(),
            config=TrainingConfig(max_epochs=1, mixup=0.4),
        )


class ScaledLoss(nn.Module):
    """The binary cross entropy of logits times a factor that is trained."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, logits, labels):
        return nn.functional.binary_cross_entropy_with_logits(self.factor * logits, labels.float())


def test_classifier_loss_replaces_the_binary_cross_entropy(noise):
    train, _ = noise

    def loss_of_an_untrained_head(loss):
        network = make_network().eval()
        embeddings = network.head(train[0])
        return (SimilarityRegressionLoss()(embeddings, train[1]) + 2 * loss(network.classifier(embeddings))).item()

    def square(logits, labels):
        return (logits - 5 * labels).square().mean()

    options = {"keep_best": False, "max_epochs": 1, "batch_size": 80, "weight": 2.0}
    found = [_first_loss(train, classifier_loss=loss, **options) for loss in (None, square)]
    cross_entropy = functools.partial(make_network().classifier.loss, labels=train[1])
    expected = [loss_of_an_untrained_head(each) for each in (cross_entropy, lambda logits: square(logits, train[1]))]
    assert found == pytest.approx(expected, rel=1e-4)
    assert found[1] > found[0] + 5


def _first_loss(train, *, weight, classifier_loss, **options):
    network = make_network()
    network.head.layers = nn.Sequential(*(part for part in network.head.layers if not isinstance(part, nn.Dropout)))
    return fit_embedding(
        network.head,
        *train,
        loss=SimilarityRegressionLoss(),
        classifier=network.classifier,
        classifier_weight=weight,
        classifier_loss=classifier_loss,
        config=dataclasses.replace(CONFIG, **options),
    )[0]["loss"]


def test_parameters_of_the_classifier_loss_are_trained_and_restored(noise, tmp_path):
    losses = [ScaledLoss() for _ in range(3)]
    fit = Fit(*noise, classifier_loss=losses[0], checkpoint=tmp_path / "stage.pt")
    epoch = epoch_of_best(fit.history, "val_ndcg_at_10")
    assert losses[0].factor.item() != 1
    Fit(noise[0], classifier_loss=losses[1], keep_best=False, max_epochs=epoch)
    assert torch.equal(losses[0].factor, losses[1].factor)
    Fit(*noise, classifier_loss=losses[2], checkpoint=tmp_path / "stage.pt")
    assert torch.equal(losses[0].factor, losses[2].factor)


# Patience, and the first best epoch


def test_patience_counts_epochs_since_either_score_rose(noise):
    unlimited = Fit(*noise, max_epochs=20).history
    scores = [[record[name] for record in unlimited] for name in ("val_ndcg_at_10", "val_map")]
    for patience in (1, 2, 3, 4):
        history = Fit(*noise, max_epochs=20, patience=patience).history
        expected = next(end for end in range(1, 21) if end - last_rise(scores, end) == patience or end == 20)
        assert history == unlimited[:expected]


def last_rise(scores, end):
    return max(1 + each.index(max(each[:end])) for each in scores)


def test_patience_continues_while_labels_improve_and_retrieval_does_not():
    best = BestEpochs(keep_weights=True, warn=True)
    for epoch, scores in enumerate([(0.5, 0.1), (0.4, 0.2), (0.3, 0.3), (0.5, 0.3), (0.2, 0.2)], start=1):
        best.update({"retrieval": scores[0], "labels": scores[1]}, epoch, lambda epoch=epoch: {"epoch": epoch})
    assert best.epochs_without_progress(5) == 2
    assert best.weights() == {"epoch": 1}  # the first of equal ones
    assert best.weights("labels") == {"epoch": 3}


def test_best_epochs_copy_weights_and_prefer_any_score_to_nan():
    weights, best = {"bias": torch.zeros(2)}, BestEpochs(keep_weights=True, warn=True)
    assert best.weights() is None
    assert best.epochs_without_progress(3) == 0  # no epoch is scored
    with pytest.warns(UserWarning, match="Epochs cannot be scored"):
        best.update({"retrieval": math.nan}, 1, lambda: weights)
    best.update({"retrieval": math.nan}, 2, lambda: weights)  # without another warning
    best.update({"retrieval": -1.0}, 3, lambda: weights)
    weights["bias"] += 1
    with pytest.warns(UserWarning, match="Epochs cannot be scored"):
        best.update({"retrieval": math.nan}, 4, lambda: weights)
    assert best.weights()["bias"].tolist() == [0, 0]
    assert best.epochs_without_progress(4) == 1


def test_best_epochs_without_weights_keep_the_scores():
    best = BestEpochs(keep_weights=False, warn=False)
    best.update({"retrieval": 0.5}, 1, lambda: {"bias": torch.zeros(2)})
    best.update({"retrieval": math.nan}, 2, lambda: {"bias": torch.zeros(2)})  # without a warning
    assert best.weights() is None
    assert best.by_score == {"retrieval": (0.5, 1, {})}
    other = BestEpochs(keep_weights=False, warn=False)
    other.load(best.by_score)
    assert other.by_score == best.by_score


def test_network_is_trained_alone_by_fit_classifier_as_before(noise):
    network = make_network()
    history = fit_classifier(network, *noise[0], config=CONFIG, validation=noise[1])
    logits = apply_in_batches(network, noise[1][0])
    best = max(record["val_map"] for record in history)
    assert float(mean_average_precision(logits, noise[1][1])) == pytest.approx(best)


# Devices


@pytest.mark.parametrize("network_on", ["the CPU", "the device"])
def test_network_receives_the_weights_of_a_head_on_a_device(noise, network_on, device):
    trained, received = make_network(), make_network()
    torch.nn.init.zeros_(received.classifier.linear.weight)
    place = torch.device("cpu") if network_on == "the CPU" else device
    received.to(place)
    history = fit_embedding(
        trained.head.to(device),
        *noise[0],
        loss=SimilarityRegressionLoss(),
        classifier=trained.classifier,
        label_network=received,
        config=CONFIG,
        validation=noise[1],
    )
    assert {value.device for value in received.state_dict().values()} == {place}
    assert {value.device for value in trained.state_dict().values()} == {device}
    features, labels = noise[1]
    found = float(mean_average_precision(apply_in_batches(received, features), labels.to(place)))
    assert found == pytest.approx(max(record["val_map"] for record in history), rel=1e-3)
