"""Missing labels (NaN): training, validation scores and estimators."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from mlmetric import heads, losses, training
from mlmetric.estimators import MetricClassifier, MetricEmbedder
from mlmetric.estimators._label_training import FittedClassifier
from mlmetric.metrics import best_thresholds, f1, mean_average_precision, ndcg_at_k
from mlmetric.miners import MultiLabelSemiHardMiner
from mlmetric.training._validation_scores import label_score, retrieval_score

NAN = math.nan
RNG = np.random.default_rng(0)
COMPLETE = (RNG.random((90, 3)) < (0.5, 0.3, 0.4)).astype(np.float32)
X = (COMPLETE @ RNG.normal(size=(3, 6)) + RNG.normal(size=(90, 6))).astype(np.float32)
Y = np.where(RNG.random(COMPLETE.shape) < 0.3, NAN, COMPLETE).astype(np.float32)
FEATURES, LABELS = torch.from_numpy(X), torch.from_numpy(Y)
TRAIN, HELD_OUT = (FEATURES[:60], LABELS[:60]), (FEATURES[60:], LABELS[60:])


def config(**settings):
    return training.TrainingConfig(**{"max_epochs": 3, "batch_size": 20, "seed": 0, "keep_best": False} | settings)


def ndcg_by_hand(query, labels, refs, ref_labels):
    """NDCG@10 of a query in the rows with which it has an annotated label in common."""
    grades, distances = [], []
    for ref, row in zip(refs, ref_labels, strict=True):
        both = ~(labels.isnan() | row.isnan())
        if both.any():
            union = torch.maximum(labels, row)[both].sum()
            grades.append(float(torch.minimum(labels, row)[both].sum() / union) if union else 0.0)
            distances.append(float((query - ref).norm()))
    order, grades = np.argsort(distances)[:10], np.array(grades)
    discounts = 1 / np.log2(np.arange(2, 12))
    best = np.sort(grades)[::-1][:10]
    ideal = best @ discounts[: len(best)]
    return grades[order] @ discounts[: len(order)] / ideal if ideal else NAN


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("num_refs", [6, 40])
def test_retrieval_score_ranks_the_rows_with_an_annotated_label_in_common(seed, num_refs):
    generator = torch.Generator().manual_seed(seed)
    embeddings, refs = torch.randn(8, 2, generator=generator), torch.randn(num_refs, 2, generator=generator)
    labels, ref_labels = (
        (torch.rand(rows, 3, generator=generator) < 0.4)
        .double()
        .masked_fill(torch.rand(rows, 3, generator=generator) < 0.5, NAN)
        for rows in (8, num_refs)
    )
    labels[0] = NAN
    values = [ndcg_by_hand(*query, refs, ref_labels) for query in zip(embeddings, labels, strict=True)]
    assert math.isnan(values[0])
    assert retrieval_score(embeddings, labels, refs, ref_labels) == pytest.approx(np.nanmean(values))
    with_unknown = [
        torch.cat([each.nan_to_num(), torch.full((len(each), 1), NAN)], dim=1) for each in (labels, ref_labels)
    ]
    complete = float(ndcg_at_k(embeddings, labels.nan_to_num(), refs, ref_labels.nan_to_num()))
    assert retrieval_score(embeddings, with_unknown[0], refs, with_unknown[1]) == pytest.approx(complete)
    assert retrieval_score(embeddings, labels.nan_to_num(), refs, ref_labels.nan_to_num()) == complete


def test_label_score_is_the_map_of_the_annotated_labels():
    scores = torch.rand(len(Y), 3, generator=torch.Generator().manual_seed(0))
    expected = [
        average_precision_score(column[~np.isnan(column)], each[~np.isnan(column)])
        for column, each in zip(Y.T, scores.T.numpy(), strict=True)
    ]
    assert label_score(scores, LABELS) == pytest.approx(np.mean(expected))
    complete = torch.from_numpy(COMPLETE)
    assert label_score(scores, complete) == float(mean_average_precision(scores, complete))


@pytest.mark.parametrize("strength", [0.1, 1.0])
def test_logistic_regression_of_a_label_is_that_of_its_annotated_rows(strength):
    labels = torch.cat([LABELS, torch.full((len(Y), 1), NAN)], dim=1)
    classifier = heads.ClassifierHead(6, 4)
    training.fit_logistic_regression(classifier, FEATURES, labels, C=strength, tol=1e-6)
    for label in range(3):
        known = ~np.isnan(Y[:, label])
        expected = LogisticRegression(C=strength, tol=1e-8).fit(X[known], Y[known, label])
        found = classifier.linear.weight[label].tolist(), classifier.linear.bias[label].item()
        np.testing.assert_allclose(found[0], expected.coef_[0], rtol=0, atol=2e-3)
        assert found[1] == pytest.approx(expected.intercept_[0], abs=2e-3)
    assert classifier.probabilities(classifier(FEATURES))[:, 3].tolist() == [0.5] * len(Y)


def test_initial_probabilities_are_the_frequencies_among_annotated_rows():
    labels = torch.tensor([[1.0, NAN, 0.0], [1.0, NAN, 1.0], [NAN, NAN, 0.0]])
    for kind in (labels, labels.half(), labels.numpy(), pd.DataFrame(labels.numpy()).astype("Int64")):
        head = heads.ClassifierHead(2, 3).init_from_labels(kind)
        probabilities = head.probabilities(head(torch.zeros(1, 2)))[0]
        torch.testing.assert_close(probabilities, torch.tensor([2.5 / 3, 0.5, 1.5 / 4]))


@pytest.mark.parametrize("loss", [None, losses.AsymmetricLoss(), losses.TwoWayLoss()])
@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_classifier_is_scored_on_annotated_labels(loss, activation):
    head = heads.ClassifierHead(6, 3, activation=activation)
    record = training.fit_classifier(head, *TRAIN, loss=loss, config=config(), validation=HELD_OUT)[-1]
    logits = head(HELD_OUT[0]).detach()
    mask, target = ~HELD_OUT[1].isnan(), HELD_OUT[1].nan_to_num()
    scores = head.probabilities(logits)
    assert record["val_map"] == float(mean_average_precision(scores, target, mask=mask))
    assert record["val_macro_f1"] == float(f1(scores, target, mask=mask, average="macro", zero_division=0))
    assert record["val_loss"] == pytest.approx(float((loss or head.loss)(logits, HELD_OUT[1])))


def test_full_batch_step_of_a_classifier_is_that_of_the_annotated_entries():
    torch.manual_seed(0)
    head = heads.ClassifierHead(6, 3)
    before = head.linear.weight.detach().clone().requires_grad_(), head.linear.bias.detach().clone().requires_grad_()
    training.fit_classifier(head, *TRAIN, config=config(max_epochs=1, batch_size=60, lr=0.01))
    known = ~TRAIN[1].isnan()
    loss = binary_cross_entropy_with_logits(nn.functional.linear(TRAIN[0], *before)[known], TRAIN[1][known])
    optimizer = torch.optim.Adam(before, lr=0.01)
    loss.backward()
    optimizer.step()
    torch.testing.assert_close(head.linear.weight, before[0])
    torch.testing.assert_close(head.linear.bias, before[1])


@pytest.mark.parametrize("miner", [None, MultiLabelSemiHardMiner(type_of_triplets="all")])
@pytest.mark.parametrize("settings", [{}, {"mixup": 0.3}, {"items_per_label": 3}])
def test_embedding_is_scored_on_annotated_labels(miner, settings):
    head, classifier = heads.EmbeddingHead(6, (4,)), heads.ClassifierHead(4, 3)
    loss = losses.MultiLabelTripletMarginLoss() if miner else losses.LogRatioLoss()
    record = training.fit_embedding(
        head, *TRAIN, loss=loss, miner=miner, classifier=classifier, config=config(**settings), validation=HELD_OUT
    )[-1]
    head.eval()
    embeddings, refs = head(HELD_OUT[0]).detach(), head(TRAIN[0]).detach()
    assert record["val_ndcg_at_10"] == pytest.approx(retrieval_score(embeddings, HELD_OUT[1], refs, TRAIN[1]))
    assert record["val_map"] == pytest.approx(label_score(classifier(embeddings).detach(), HELD_OUT[1]))
    assert all(weight.isfinite().all() for weight in head.parameters())


def own_loss(logits, labels):
    return binary_cross_entropy_with_logits(logits, labels)


class OwnHead(nn.Linear):
    probabilities, loss = staticmethod(torch.sigmoid), staticmethod(own_loss)


def test_parts_that_do_not_support_missing_labels_are_named():
    head, loss = heads.EmbeddingHead(6, (4,)), losses.LogRatioLoss()
    classifier = heads.ClassifierHead(4, 3)

    def embed(**parts):
        training.fit_embedding(head, *TRAIN, **{"loss": loss, "config": config()} | parts)

    with pytest.raises(ValueError, match=r"`loss` must support missing labels.*got `own_loss`"):
        embed(loss=own_loss)
    with pytest.raises(ValueError, match=r"`miner` must support missing labels.*got `<lambda>`"):
        embed(miner=lambda embeddings, labels: None)
    with pytest.raises(ValueError, match=r"`classifier_loss` must support missing labels.*got `own_loss`"):
        embed(classifier=classifier, classifier_loss=own_loss)
    with pytest.raises(ValueError, match=r"`loss` must support missing labels.*got `own_loss`"):
        training.fit_classifier(heads.ClassifierHead(6, 3), *TRAIN, loss=own_loss, config=config())
    with pytest.raises(ValueError, match=r"`head` must support missing labels.*got `OwnHead`"):
        training.fit_classifier(OwnHead(6, 3), *TRAIN, config=config())
    complete = FEATURES[:60], torch.from_numpy(COMPLETE[:60])
    with pytest.raises(ValueError, match="`head` must support missing labels"):
        training.fit_classifier(OwnHead(6, 3), *complete, validation=HELD_OUT, config=config())
    assert training.fit_classifier(OwnHead(6, 3), *complete, config=config())


def fitted(y, cls=MetricClassifier, **settings):
    return cls(**{"n_members": 1, "max_epochs": 2, "random_state": 0} | settings).fit(X, y)


def test_all_kinds_of_missing_labels_give_the_same_fit():
    frame = pd.DataFrame(Y, columns=["a", "b", "c"])
    kinds = [LABELS, frame, frame.astype("Int64"), [[None if v != v else v for v in row] for row in Y.tolist()]]
    expected = fitted(Y)
    assert not np.array_equal(expected.predict_proba(X), fitted(np.nan_to_num(Y)).predict_proba(X))
    for kind in kinds:
        classifier = fitted(kind)
        np.testing.assert_array_equal(classifier.predict_proba(X), expected.predict_proba(X))
        np.testing.assert_array_equal(classifier.thresholds_, expected.thresholds_)
    np.testing.assert_array_equal(fitted(LABELS, MetricEmbedder).transform(X), fitted(Y, MetricEmbedder).transform(X))


@pytest.mark.parametrize(
    "settings",
    [
        {"two_stage": True},
        {"validation_fraction": 0.0},
        {"n_members": 2, "items_per_label": 4, "threshold": "micro"},
        {"label_loss": losses.AsymmetricLoss(), "mixup": 0.0},
        {"views": {"first": slice(0, 3), "second": slice(3, 6)}},
    ],
)
def test_classifier_accepts_rows_and_labels_without_annotations(settings):
    labels = np.column_stack([Y, np.full(len(Y), NAN)])
    labels[:5] = NAN
    classifier = fitted(labels, **settings)
    assert np.isfinite(classifier.predict_proba(X)).all()
    assert not np.isnan(classifier.thresholds_).any()
    assert average_precision_score(COMPLETE, classifier.predict_proba(X)[:, :3], average="macro") > 0.75


@pytest.mark.parametrize("average", ["macro", "micro"])
def test_thresholds_are_chosen_on_annotated_labels(average):
    network = heads.LabelNetwork(nn.Identity(), heads.ClassifierHead(3, 3))
    logits = torch.randn(90, 3, generator=torch.Generator().manual_seed(0)) + 2 * torch.from_numpy(COMPLETE)
    found = FittedClassifier(network, 3, [], (logits, LABELS)).thresholds(average, max_predicted=1.5)
    expected = best_thresholds(
        network.probabilities(logits), LABELS.nan_to_num(1), average=average, max_predicted=1.5, mask=~LABELS.isnan()
    )
    assert found.tolist() == expected.tolist()
    unknown = FittedClassifier(network, 3, [], (logits, torch.full_like(LABELS, NAN)))
    assert unknown.thresholds(average, max_predicted=1.5).tolist() == [0.5] * 3


def test_estimators_reject_labels_without_any_annotation_and_scores_of_missing_labels():
    with pytest.raises(ValueError, match="`y` must have at least one annotated label, got only NaN"):
        fitted(np.full_like(Y, NAN))
    with pytest.raises(ValueError, match="not annotated, and `score` does not support missing labels"):
        fitted(Y).score(X, Y)
