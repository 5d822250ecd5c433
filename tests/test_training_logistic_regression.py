"""The logistic regression: equal to that of scikit-learn, and the choice of the penalty."""

import itertools
import random

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from torch.nn import functional

from mlmetric.heads import ClassifierHead, Standardize
from mlmetric.metrics import mean_average_precision
from mlmetric.training import apply_in_batches, fit_logistic_regression
from mlmetric.training._logistic_regression import INVERSE_PENALTIES


@pytest.fixture
def rows(generator):
    """Standardised features and labels; the last label is rare."""
    labels = (torch.rand(200, 4, generator=generator) < torch.tensor([0.5, 0.4, 0.2, 0.05])).long()
    features = labels.float() @ torch.randn(4, 8, generator=generator) + torch.randn(200, 8, generator=generator)
    return Standardize(8).fit(features)(features), labels


@pytest.fixture
def noise(generator):
    """Training rows and validation rows whose labels are unrelated to the features."""
    features = torch.randn(120, 30, generator=generator)
    labels = (torch.rand(120, 3, generator=generator) < 0.3).long()
    return (features[:60], labels[:60]), (features[60:], labels[60:])


def fitted(features, labels, *, clip=None, **options):
    classifier = ClassifierHead(features.shape[1], np.shape(labels)[1], clip=clip)
    return classifier, fit_logistic_regression(classifier, features, labels, **options)


def weights_of(classifier):
    return classifier.linear.weight.detach(), classifier.linear.bias.detach()


def same_weights(first, second):
    return all(torch.equal(*pair) for pair in zip(weights_of(first), weights_of(second), strict=True))


# The solution


@pytest.mark.parametrize("C", [0.001, 0.1, 1])
def test_coefficients_and_intercept_are_those_of_sklearn(rows, C):
    features, labels = rows
    classifier, (record,) = fitted(features, labels, C=C, tol=1e-5)
    for label in range(4):
        expected = LogisticRegression(C=C, tol=1e-10, max_iter=10_000).fit(features.double(), labels[:, label])
        np.testing.assert_allclose(classifier.linear.weight[label].detach(), expected.coef_[0], atol=0.005)
        np.testing.assert_allclose(classifier.linear.bias[label].detach(), expected.intercept_, atol=0.01)
    loss = functional.binary_cross_entropy_with_logits(classifier(features), labels.float()).item()
    assert record == {"C": C, "loss": pytest.approx(loss, rel=1e-5)}


def test_solution_of_standardised_and_clipped_inputs_is_that_of_sklearn(generator):
    features = torch.randn(150, 5, generator=generator) * torch.tensor([1.0, 20.0, 0.1, 3.0, 1.0]) - 7
    features[:, 0] = features[:, 0].exp() * 1000
    labels = (features[:, 1:3] > torch.tensor([0.0, -7.0])).long()
    classifier = ClassifierHead(5, 2, clip=1.5)
    classifier.standardize.fit(features)
    fit_logistic_regression(classifier, features, labels, C=0.05)
    inputs = ((features - features.mean(0)) / features.std(0, correction=0)).clamp(-1.5, 1.5)
    for label in range(2):
        expected = LogisticRegression(C=0.05, tol=1e-10, max_iter=10_000).fit(inputs.double(), labels[:, label])
        np.testing.assert_allclose(classifier.linear.weight[label].detach(), expected.coef_[0], atol=0.005)
        found = apply_in_batches(classifier, features)[:, label]
        np.testing.assert_allclose(found, expected.decision_function(inputs.double()), atol=0.02)


def test_labels_without_positives_or_negatives_have_finite_weights(rows):
    features, labels = rows
    labels[:, 0], labels[:, 1] = 0, 1
    classifier, records = fitted(features, labels, C=1.0)
    probabilities = classifier.probabilities(classifier(features))
    assert all(part.isfinite().all() for part in weights_of(classifier))
    assert probabilities[:, 0].max() < 0.01
    assert probabilities[:, 1].min() > 0.99
    assert weights_of(classifier)[0][:2].abs().max() < 0.05
    assert records[0]["loss"] < 0.5


def test_gradient_of_soft_labels_vanishes_at_the_solution(rows):
    features, labels = rows
    soft = 0.1 + 0.7 * labels
    classifier, _ = fitted(features, soft, C=0.3)
    weight = classifier.linear.weight
    loss = functional.binary_cross_entropy_with_logits(classifier(features), soft, reduction="sum")
    (0.3 * loss + weight.square().sum() / 2).backward()
    scale = 0.3 * len(features)
    assert weight.grad.abs().max() / scale < 1e-3
    assert classifier.linear.bias.grad.abs().max() / scale < 1e-3
    assert classifier.probabilities(classifier(features)).mean(0).tolist() == pytest.approx(
        soft.mean(0).tolist(), abs=1e-3
    )


def test_solution_does_not_depend_on_the_initial_weights_or_the_mode(rows):
    classifiers = [ClassifierHead(8, 4) for _ in range(2)]
    assert not torch.equal(*(classifier.linear.weight for classifier in classifiers))
    records = [fit_logistic_regression(classifier.eval(), *rows, C=0.1) for classifier in classifiers]
    assert same_weights(*classifiers)
    assert records[0] == records[1]
    assert all(parameter.requires_grad and parameter.grad is None for parameter in classifiers[0].parameters())


def test_fit_does_not_draw_random_numbers(rows):
    classifier = ClassifierHead(8, 4)
    name, keys, *position = np.random.get_state()  # noqa: NPY002
    before = torch.get_rng_state().tolist(), [name, keys.tolist(), *position], random.getstate()
    fit_logistic_regression(classifier, *rows, validation=rows)
    name, keys, *position = np.random.get_state()  # noqa: NPY002
    assert (torch.get_rng_state().tolist(), [name, keys.tolist(), *position], random.getstate()) == before


@pytest.mark.parametrize("kind", [np.asarray, torch.Tensor.tolist, sparse.csr_matrix, pd.DataFrame, np.asfortranarray])
def test_all_kinds_of_labels_give_the_same_bits(rows, kind):
    features, labels = rows
    expected, records = fitted(features, labels, validation=(features[:50], labels[:50]))
    found, found_records = fitted(features, kind(labels), validation=(features[:50], kind(labels[:50])))
    assert same_weights(found, expected)
    assert found_records == records
    transposed = features.T.contiguous().T
    assert same_weights(fitted(transposed, labels, validation=(features[:50], labels[:50]))[0], expected)


def test_rows_and_classifier_are_not_changed_apart_from_the_linear_layer(rows):
    given = [part.clone() for part in rows]
    classifier = ClassifierHead(8, 4)
    classifier.standardize.fit(rows[0] * 3 + 1)
    statistics = classifier.standardize.state_dict()
    before = {name: value.clone() for name, value in statistics.items()}
    fit_logistic_regression(classifier, *rows, C=0.1)
    assert all(torch.equal(*pair) for pair in zip(rows, given, strict=True))
    assert all(torch.equal(value, before[name]) for name, value in statistics.items())


# The choice of the penalty


def test_best_penalty_on_validation_rows_is_kept(noise):
    train, validation = noise
    classifier, records = fitted(*train, validation=validation)
    scores = [record["val_map"] for record in records]
    best = scores.index(max(scores))
    assert best < len(scores) - 1
    logits = apply_in_batches(classifier, validation[0])
    assert float(mean_average_precision(logits, validation[1])) == pytest.approx(scores[best])
    alone, _ = fitted(*train, C=records[best]["C"])
    for found, expected in zip(weights_of(classifier), weights_of(alone), strict=True):
        torch.testing.assert_close(found, expected, atol=0.005, rtol=0)


def test_path_ends_after_two_scores_that_are_clearly_below_the_best(noise):
    train, validation = noise
    _, records = fitted(*train, validation=validation)
    scores = [record["val_map"] for record in records]
    assert [record["C"] for record in records] == list(INVERSE_PENALTIES[: len(records)])
    assert 3 <= len(records) < len(INVERSE_PENALTIES)
    is_below = [score < max(scores[: end + 1]) - 0.001 for end, score in enumerate(scores)]
    assert is_below[-2:] == [True, True]
    assert (True, True) not in itertools.pairwise(is_below[:-1])  # it had no reason to end before


def test_rare_label_is_trained():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(4000, 6, generator=generator)
    labels = torch.zeros(4000, 2)
    labels[features[:, 0].topk(6).indices, 0] = 1
    labels[features[:, 1] > 0, 1] = 1
    classifier, _ = fitted(features, labels, C=1.0)
    for label in range(2):
        expected = LogisticRegression(C=1.0, tol=1e-8, max_iter=10_000).fit(features.double(), labels[:, label])
        torch.testing.assert_close(
            classifier.linear.weight[label].norm().item(), float(np.linalg.norm(expected.coef_)), rtol=0.02, atol=0
        )


def test_features_far_from_zero_have_the_solution_of_centred_ones(rows):
    features, labels = rows
    expected, _ = fitted(features, labels, C=0.1)
    found, _ = fitted(features + 1000, labels, C=0.1)
    torch.testing.assert_close(found.linear.weight, expected.linear.weight, atol=0.01, rtol=0)


def test_penalties_are_tried_from_the_strongest_in_any_order_given(rows):
    train, validation = [part[:120] for part in rows], [part[120:] for part in rows]
    expected, records = fitted(*train, C=(0.001, 0.01, 0.1), validation=validation)
    found, found_records = fitted(*train, C=[0.1, 0.001, 0.01], validation=validation)
    assert [record["C"] for record in records] == [0.001, 0.01, 0.1]
    assert found_records == records
    assert same_weights(found, expected)
    losses = [record["loss"] for record in records]
    assert losses == sorted(losses, reverse=True)


def test_single_penalty_is_scored_on_validation_rows(rows):
    classifier, (record,) = fitted(*rows, C=0.1, validation=rows)
    logits = apply_in_batches(classifier, rows[0])
    assert record["val_map"] == pytest.approx(float(mean_average_precision(logits, rows[1])))
    assert same_weights(classifier, fitted(*rows, C=(0.1,))[0])


def test_without_a_positive_validation_row_the_strongest_penalty_is_kept(rows):
    features, labels = rows
    classifier, records = fitted(features, labels, validation=(features, 0 * labels))
    assert [record["C"] for record in records] == list(INVERSE_PENALTIES)
    assert all(np.isnan(record["val_map"]) for record in records)
    assert same_weights(classifier, fitted(features, labels, C=INVERSE_PENALTIES[0])[0])


# Errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"C": 0.0}, "`C` must be a number above 0, or several, got 0"),
        ({"C": -1}, "`C` must be a number above 0, or several, got -1"),
        ({"C": float("nan")}, "`C` must be a number above 0, or several, got nan"),
        ({"C": float("inf")}, "`C` must be a number above 0, or several, got inf"),
        ({"C": (0.1, 0.0)}, r"`C` must be a number above 0, or several, got \(0\.1, 0\.0\)"),
        ({"C": ()}, r"`C` must be a number above 0, or several, got \(\)"),
        ({"tol": 0.0}, r"`tol` must be above 0 and finite, got 0\.0"),
        ({"tol": float("nan")}, "`tol` must be above 0 and finite, got nan"),
        ({"C": INVERSE_PENALTIES}, "`validation` rows must choose one of 8 values of `C`, got None"),
        ({"C": (0.1, 1.0)}, "`validation` rows must choose one of 2 values of `C`, got None"),
        ({"features": torch.zeros(200, 7)}, r"shapes \(N, 8\) and \(N, 4\) like the classifier, got \(200, 7\)"),
        ({"features": torch.zeros(200, 8, 1)}, r"like the classifier, got \(200, 8, 1\)"),
        ({"labels": torch.zeros(200, 3)}, r"like the classifier, got \(200, 8\) and \(200, 3\)"),
        ({"labels": torch.zeros(199, 4)}, r"got \(200, 8\) and \(199, 4\)"),
        ({"labels": 2 * torch.ones(200, 4)}, r"must contain numbers in \[0, 1\], got 2\.0 at row 0, label 0"),
        ({"validation": (torch.zeros(9, 7), torch.zeros(9, 4))}, r"rows of `validation` must have shape \(N, 8\)"),
        ({"validation": (torch.zeros(9, 8), torch.full((9, 4), 0.6))}, "`validation` must have labels 0 or 1"),
        ({"features": torch.full((200, 8), torch.nan)}, "`features` must be finite, got NaN or infinity"),
        ({"features": torch.full((200, 8), torch.inf)}, "`features` must be finite, got NaN or infinity"),
    ],
)
def test_invalid_arguments_are_an_error_and_leave_the_classifier_unchanged(rows, options, message):
    classifier = ClassifierHead(8, 4)
    before = [part.clone() for part in weights_of(classifier)]
    arguments = {"features": rows[0], "labels": rows[1], "C": 0.1} | options
    with pytest.raises(ValueError, match=message):
        fit_logistic_regression(classifier, **arguments)
    assert all(torch.equal(*pair) for pair in zip(weights_of(classifier), before, strict=True))


def test_several_penalties_are_the_default(rows):
    with pytest.raises(ValueError, match="`validation` rows must choose one of 8 values of `C`, got None"):
        fit_logistic_regression(ClassifierHead(8, 4), *rows)


def test_arguments_of_another_kind_are_an_error(rows):
    features, labels = rows
    with pytest.raises(ValueError, match="A logistic regression needs a classifier with sigmoid, got 'softmax'"):
        fit_logistic_regression(ClassifierHead(8, 4, activation="softmax"), features, labels, C=0.1)
    for C in ("balanced", None, [0.1, "1"]):
        with pytest.raises(TypeError, match="`C` must be a number, or several, got "):
            fitted(*rows, C=C)
    with pytest.raises(TypeError, match=r"must be a torch\.Tensor, got ndarray"):
        fit_logistic_regression(ClassifierHead(8, 4), features.numpy(), labels, C=0.1)


# Devices


@pytest.mark.parametrize("rows_on", ["the CPU", "the device"])
def test_classifier_on_a_device_has_the_solution_of_the_cpu(rows, rows_on, device):
    train, validation = [part[:120] for part in rows], [part[120:] for part in rows]
    expected, records = fitted(*train, C=(0.001, 0.01), validation=validation)
    classifier = ClassifierHead(8, 4).to(device)
    if rows_on == "the device":
        train, validation = ([part.to(device) for part in parts] for parts in (train, validation))
    found = fit_logistic_regression(classifier, *train, C=(0.001, 0.01), validation=validation)
    assert {value.device for value in classifier.state_dict().values()} == {device}
    for weight, expected_weight in zip(weights_of(classifier), weights_of(expected), strict=True):
        torch.testing.assert_close(weight.cpu(), expected_weight, atol=0.005, rtol=0)
    for record, expected_record in zip(found, records, strict=True):
        assert record == pytest.approx(expected_record, rel=0.01)
