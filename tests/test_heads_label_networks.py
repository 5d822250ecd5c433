"""Classifiers on features: networks of head and classifier, weighted means of classifiers, clipped inputs."""

import io

import numpy as np
import pytest
import torch
from torch import nn

from mlmetric.heads import ClassifierEnsemble, ClassifierHead, EmbeddingHead, LabelNetwork
from mlmetric.training import TrainingConfig, apply_in_batches, fit_classifier

LABELS = torch.tensor([[1, 0, 1], [0, 1, 0]])


def make_network(activation="sigmoid", dropout=0.0):
    return LabelNetwork(EmbeddingHead(5, (6, 4), dropout=dropout), ClassifierHead(4, 3, activation=activation))


# A head followed by a classifier


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_label_network_is_the_classifier_of_the_embedding(activation, generator):
    network, features = make_network(activation), torch.randn(2, 5, generator=generator)
    logits = network(features)
    assert torch.equal(logits, network.classifier(network.head(features)))
    assert torch.equal(network.probabilities(logits), network.classifier.probabilities(logits))
    assert network.loss(logits, LABELS) == network.classifier.loss(logits, LABELS)
    assert network.loss(logits, LABELS.tolist()) == network.loss(logits, LABELS)


def test_label_network_checks_labels_unless_told_not_to():
    network, labels = make_network(), torch.tensor([[2.0, 1.0, 0.0]])
    with pytest.raises(ValueError, match=r"`labels` must contain numbers in \[0, 1\], got 2\.0 at row 0, label 0"):
        network.loss(torch.zeros(1, 3), labels)
    assert network.loss(torch.zeros(1, 3), labels, validate_args=False).item() == pytest.approx(0.6931472)


def test_label_network_is_trained_by_the_loss_of_its_classifier(generator):
    labels = (torch.rand(80, 3, generator=generator) < 0.4).long()
    features = labels.float() @ torch.randn(3, 5, generator=generator) + torch.randn(80, 5, generator=generator) / 2
    network = make_network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    config = TrainingConfig(max_epochs=20, batch_size=20, lr=0.02, seed=0)
    history = fit_classifier(network, features, labels, config=config)
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    assert network.loss(apply_in_batches(network, features), labels).item() < history[0]["loss"]
    trained = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert trained == {name for name, _ in network.named_parameters()}


# The weighted mean


@pytest.mark.parametrize("weights", [None, [3, 0, 1], (0.5, 1.5, 2.0)])
def test_ensemble_is_the_weighted_mean_of_the_logits(weights, generator):
    members, features = [make_network() for _ in range(3)], torch.randn(7, 5, generator=generator)
    with torch.no_grad():
        found = ClassifierEnsemble(members, weights)(features)
        logits = np.stack([member(features).double().numpy() for member in members])
    np.testing.assert_allclose(found, np.average(logits, axis=0, weights=weights), rtol=1e-5, atol=1e-6)


def test_weights_of_an_ensemble_have_the_sum_1_and_are_in_its_state_dict():
    ensemble = ClassifierEnsemble([nn.Identity(), nn.Identity()], [3, 1])
    assert ensemble.weights.tolist() == [0.75, 0.25]
    assert ensemble.weights.dtype == torch.float32
    assert not list(ensemble.parameters())
    assert ClassifierEnsemble([nn.Identity()] * 4).weights.tolist() == [0.25] * 4
    file = io.BytesIO()
    torch.save(ensemble.state_dict(), file)
    file.seek(0)
    other = ClassifierEnsemble([nn.Identity(), nn.Identity()])
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other.weights, ensemble.weights)


def test_ensemble_accepts_any_iterable_and_gives_probabilities_by_the_sigmoid():
    ensemble = ClassifierEnsemble(nn.Identity() for _ in range(2))
    logits = torch.tensor([[-30.0, 0.0, 2.0]])
    assert len(ensemble.members) == 2
    assert torch.equal(ensemble(logits), logits)
    assert torch.equal(ensemble.probabilities(logits), logits.sigmoid())


def test_gradients_reach_each_member_by_its_weight():
    members = [nn.Linear(2, 1, bias=False) for _ in range(2)]
    ClassifierEnsemble(members, [3, 1])(torch.ones(1, 2)).sum().backward()
    assert [member.weight.grad.tolist() for member in members] == [[[0.75, 0.75]], [[0.25, 0.25]]]


@pytest.mark.parametrize(
    ("count", "weights", "message"),
    [
        (0, None, "`members` must contain at least one classifier, got none"),
        (2, [1.0], "`weights` must have a weight for each of 2 members, got 1"),
        (2, [], "`weights` must have a weight for each of 2 members, got 0"),
        (2, [1.0, -1.0], r"`weights` must be finite and at least 0, .* got \[1\.0, -1\.0\]"),
        (2, [1.0, float("nan")], "`weights` must be finite and at least 0"),
        (2, [1.0, float("inf")], "`weights` must be finite and at least 0"),
        (2, [0.0, 0.0], "and at least one above 0, got"),
    ],
)
def test_members_and_weights_that_give_no_mean_are_an_error(count, weights, message):
    with pytest.raises(ValueError, match=message):
        ClassifierEnsemble([nn.Identity() for _ in range(count)], weights)


# Clipped inputs


def test_classifier_clips_standardised_inputs(generator):
    train = torch.randn(50, 4, generator=generator) * torch.tensor([1.0, 5.0, 0.1, 2.0]) + 3
    features = torch.cat([train[:5], torch.tensor([[100.0, 3.0, -50.0, 3.0]])])
    head = ClassifierHead(4, 3, clip=2.0)
    head.standardize.fit(train)
    standardised = (features - train.mean(0)) / train.std(0, correction=0)
    torch.testing.assert_close(head.inputs(features), standardised.clamp(-2, 2))
    assert head.inputs(features)[-1, [0, 2]].tolist() == [2.0, -2.0]
    torch.testing.assert_close(head(features), head.linear(standardised.clamp(-2, 2)))
    unclipped = ClassifierHead(4, 3)
    unclipped.load_state_dict(head.state_dict())
    torch.testing.assert_close(unclipped(features), head.linear(standardised))


@pytest.mark.parametrize("clip", [0.0, -1.0, float("nan")])
def test_clip_of_the_classifier_that_is_not_positive_is_an_error(clip):
    with pytest.raises(ValueError, match="`clip` must be None or above 0"):
        ClassifierHead(3, 2, clip=clip)


def test_reprs_show_clipping_and_weights():
    assert "activation='sigmoid', clip=3.0" in repr(ClassifierHead(4, 2, clip=3.0))
    assert "weights=[0.6667, 0.3333]" in repr(ClassifierEnsemble([nn.Identity(), nn.Identity()], [2, 1]))


# Devices


def test_networks_on_a_device_give_the_logits_of_the_cpu(device, generator):
    features = torch.randn(7, 5, generator=generator)
    ensemble = ClassifierEnsemble([make_network(), ClassifierHead(5, 3, clip=1.0)], [3, 1])
    with torch.no_grad():
        expected = ensemble(features)
        found = ensemble.to(device)(features.to(device))
    assert found.device == device
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-5)
    loss = ensemble.members[0].loss(found[:2], LABELS.to(device)).cpu()
    torch.testing.assert_close(loss, ensemble.members[0].loss(expected[:2], LABELS), rtol=1e-4, atol=1e-5)
