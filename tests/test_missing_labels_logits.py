"""Losses of logits with missing labels (NaN)."""

import math

import pytest
import torch
from torch.nn.functional import binary_cross_entropy, binary_cross_entropy_with_logits, softplus

from mlmetric import heads, losses
from mlmetric.heads import _label_entropy
from mlmetric.losses import _classification_losses

NAN = math.nan
L, D = 4, 3
SEEDS = range(8)


def draw_labels(seed):
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.rand(8, L, generator=generator) < 0.5).double()
    return labels.masked_fill(torch.rand(8, L, generator=generator) < 0.35, NAN)


def mean(values):
    return sum(values) / len(values) if values else 0.0


def logits_of(seed):
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(8, L, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("loss", [losses.AsymmetricLoss(), losses.ProperAsymmetricLoss(shift_neg=0.5)], ids=repr)
def test_asymmetric_losses_sum_over_annotated_labels(loss):
    for seed in SEEDS:
        logits, labels = logits_of(seed), draw_labels(seed)
        labels[2] = NAN
        rows = [
            float(loss(row[None, ~targets.isnan()], targets[None, ~targets.isnan()]))
            for row, targets in zip(logits, labels, strict=True)
            if not targets.isnan().all()
        ]
        assert float(loss(logits, labels)) == pytest.approx(mean(rows), rel=1e-12)


def test_two_way_loss_is_over_annotated_labels():
    loss = losses.TwoWayLoss()

    def one_way(logits, labels):
        terms = []
        for row, targets in zip(logits, labels, strict=True):
            present, absent = row[targets == 1], row[targets == 0]
            if len(present):
                value = softplus(absent.logsumexp(0) + 4 * (-present / 4).logsumexp(0)) if len(absent) else 0.0
                terms.append(float(value))
        return mean(terms)

    for seed in SEEDS:
        logits, labels = logits_of(seed), draw_labels(seed)
        labels[2], labels[:, 1] = NAN, NAN
        expected = one_way(logits, labels) + one_way(logits.T, labels.T)
        assert float(loss(logits, labels)) == pytest.approx(expected, rel=1e-12)


HEADS = {
    "sigmoid": lambda: heads.ClassifierHead(D, L),
    "softmax": lambda: heads.ClassifierHead(D, L, activation="softmax"),
    "graph": lambda: heads.LabelGraphHead(D, torch.eye(L), torch.eye(L)),
    "semantic": lambda: heads.SemanticProjectionHead(D, torch.eye(L), separation=0.0),
}


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("validate_args", [False, True])
def test_entropy_of_a_head_is_the_mean_over_annotated_labels(name, validate_args):
    head = HEADS[name]()
    for seed in SEEDS:
        logits, labels = logits_of(seed).requires_grad_(), draw_labels(seed)
        annotated = ~labels.isnan()
        if name == "softmax":
            expected = binary_cross_entropy(logits.float().softmax(1)[annotated], labels[annotated].float())
        else:
            expected = binary_cross_entropy_with_logits(logits[annotated], labels[annotated])
        value = head.loss(logits, labels, validate_args=validate_args)
        torch.testing.assert_close(value, expected)
        (gradient,) = torch.autograd.grad(value, logits)
        torch.testing.assert_close(gradient, torch.autograd.grad(expected, logits)[0])
    assert head.loss(logits, torch.full_like(logits, NAN)) == 0


@pytest.mark.parametrize("name", HEADS)
def test_entropy_of_complete_labels_is_the_same_with_and_without_weights(name, monkeypatch):
    head, logits, labels = HEADS[name](), logits_of(0).requires_grad_(), draw_labels(0).nan_to_num(0.3)
    value = head.loss(logits, labels)
    gradient = torch.autograd.grad(value, logits)[0]
    monkeypatch.setattr(_label_entropy, "may_have_missing", lambda labels: True)
    weighted = head.loss(logits, labels)
    assert torch.equal(weighted, value)
    assert torch.equal(torch.autograd.grad(weighted, logits)[0], gradient)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", HEADS)
def test_entropy_in_half_precision_with_one_annotated_label_is_that_of_this_label(name, dtype):
    logits, labels = torch.zeros(70_000 // L, L, dtype=dtype), torch.full((70_000 // L, L), NAN)
    labels[0, 0] = 1
    assert float(HEADS[name]().loss(logits, labels)) == pytest.approx(float(HEADS[name]().loss(logits[:1], labels[:1])))


def test_ranking_loss_of_the_semantic_head_is_over_annotated_labels():
    head, plain = heads.SemanticProjectionHead(D, torch.eye(L), separation=1.0), HEADS["semantic"]()
    for seed in SEEDS:
        logits, labels = logits_of(seed).requires_grad_(), draw_labels(seed)
        labels[2] = NAN
        terms = [
            softplus(row[targets == 0].logsumexp(0) + (-row[targets == 1]).logsumexp(0))
            for row, targets in zip(logits, labels, strict=True)
            if not targets.isnan().all()
        ]
        value = head.loss(logits, labels)
        torch.testing.assert_close(value - plain.loss(logits, labels), sum(terms) / len(terms))
        assert torch.autograd.grad(value, logits)[0].isfinite().all()


def test_asymmetric_loss_of_complete_labels_is_the_same_with_and_without_a_mask(monkeypatch):
    loss, logits, labels = losses.AsymmetricLoss(), logits_of(0), draw_labels(0).nan_to_num(0.3)
    value = loss(logits, labels)
    monkeypatch.setattr(_classification_losses, "may_have_missing", lambda labels: True)
    assert torch.equal(loss(logits, labels), value)
