"""Heads of several views: fused branches, and late fusion."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from mlmetric.heads import (
    ClassifierHead,
    EmbeddingHead,
    FusionHead,
    LabelNetwork,
    LateFusionClassifier,
    LateFusionHead,
    Standardize,
)
from mlmetric.training import TrainingConfig, fit_classifier, fit_logistic_regression

NAN = float("nan")
VIEWS = {"image": slice(0, 4), "text": slice(4, 6), "table": slice(6, 7)}


def rows_with_gaps(num_rows=12, seed=0):
    """Rows of three views; each row lacks up to two of them."""
    rows = torch.randn(num_rows, 7, generator=torch.Generator().manual_seed(seed)) * 3 + 1
    for row, (view, columns) in enumerate(VIEWS.items(), start=1):
        rows[row, columns] = NAN
        for other, others in VIEWS.items():
            if other != view:
                rows[row + 5, others] = NAN
    return rows


def make(fusion, **settings):
    torch.manual_seed(0)
    return FusionHead(7, VIEWS, (5, 3), fusion=fusion, **settings)


def expected(head, rows):
    """Compute the embeddings row by row in NumPy, from the formulas of the docstring."""

    def linear(layer, x):
        return layer.weight.detach().numpy() @ x + layer.bias.detach().numpy()

    mean, scale = head.standardize.mean.numpy(), head.standardize.scale.numpy()
    result = []
    for row in rows.numpy():
        row = (row - mean) / scale
        row = row if head.clip is None else np.clip(row, -head.clip, head.clip)
        parts = [row[columns] for columns in head.views.values()]
        present = [not np.isnan(part).any() for part in parts]
        parts = [
            np.nan_to_num(part) if there else np.zeros_like(part) for part, there in zip(parts, present, strict=True)
        ]
        hidden = [np.maximum(linear(branch[0], part), 0) for branch, part in zip(head.branches, parts, strict=True)]
        if head.fusion == "concat":
            missing = head.missing.detach().numpy()
            fused = np.concatenate([h if there else m for h, there, m in zip(hidden, present, missing, strict=True)])
        else:
            gates = np.exp(linear(head.gates, np.concatenate(parts)).reshape(len(parts), -1))
            gates *= np.array(present)[:, None]
            fused = (gates / np.maximum(gates.sum(0), 1e-30) * hidden).sum(0)
        embedding = linear(head.layers[0], fused)
        norm = np.linalg.norm(embedding)
        result.append(embedding * norm ** (head.norm_exponent - 1))
    return np.stack(result)


@pytest.mark.parametrize("fusion", ["concat", "gated"])
@pytest.mark.parametrize(("clip", "norm_exponent"), [(None, 1.0), (0.5, 0.75)])
def test_fusion_head_follows_its_formula(fusion, clip, norm_exponent):
    head = make(fusion, clip=clip, norm_exponent=norm_exponent).eval()
    if fusion == "concat":
        nn.init.normal_(head.missing)
    rows = rows_with_gaps()
    head.standardize.fit(rows, skip_nan=True)
    np.testing.assert_allclose(head(rows).detach().numpy(), expected(head, rows), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fusion", ["concat", "gated"])
def test_a_missing_view_has_no_influence_and_gradients_are_finite(fusion):
    head = make(fusion, view_dropout=0.0)
    rows = rows_with_gaps()
    rows[0] = NAN  # no view at all
    output = head(rows)
    output.square().sum().backward()
    assert output.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in head.parameters())
    partly = torch.randn(1, 7)
    partly[0, 4:6] = NAN
    head.zero_grad()
    head(partly).sum().backward()
    assert head.branches[1][0].weight.grad.abs().sum() == 0
    assert head.branches[0][0].weight.grad.abs().sum() > 0


def test_view_dropout_drops_views_but_never_all():
    head = make("concat", view_dropout=0.5)
    with torch.no_grad():
        for branch in head.branches:
            branch[0].weight.zero_()
            branch[0].bias.fill_(1.0)
        head.missing.fill_(-1.0)
        head.layers[0].bias.zero_()
        head.layers[0].weight.zero_()
        head.layers[0].weight[:, ::5] = torch.eye(3)  # the embedding shows which branches were used
    shown = head(torch.zeros(4000, 7))
    counts = (shown > 0).sum(dim=1)
    assert counts.min() == 1
    # Each view is kept with probability 1/2; the 1/8 of rows that would lose all keep all.
    assert abs(float((shown > 0).float().mean()) - (0.5 + 1 / 8)) < 0.02
    assert (head.eval()(torch.zeros(5, 7)) > 0).all()
    only_text = torch.full((100, 7), NAN)
    only_text[:, 4:6] = 0
    assert (head.train()(only_text) > 0).int().tolist() == [[0, 1, 0]] * 100


def test_fusion_head_is_trained_with_mixup_and_missing_views():
    torch.manual_seed(0)
    rows = torch.randn(80, 7)
    labels = (rows[:, [0, 4]] > 0).long()
    rows[::4, 4:6] = NAN
    network = LabelNetwork(make("gated"), ClassifierHead(3, 2))
    history = fit_classifier(network, rows, labels, config=TrainingConfig(max_epochs=20, lr=0.02, mixup=0.2, seed=0))
    assert history[-1]["loss"] < 0.85 * history[0]["loss"]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"widths": (5,)}, "at least two layers"),
        ({"widths": (5, 0)}, "at least 1"),
        ({"fusion": "late"}, "'gated' or 'concat'"),
        ({"view_dropout": 1.0}, "`view_dropout` must be in"),
        ({"clip": 0}, "`clip`"),
        ({"norm_exponent": 2}, "`norm_exponent`"),
        ({"views": {"image": slice(0, 3)}}, "column 3 is in no view"),
    ],
)
def test_wrong_settings_of_fusion_head(settings, text):
    with pytest.raises(ValueError, match=text):
        FusionHead(**{"in_features": 7, "views": VIEWS} | settings)


def late(cls, weights=None):
    torch.manual_seed(0)
    members = {name: nn.Linear(columns.stop - columns.start, 2) for name, columns in VIEWS.items()}
    missing = {name: torch.randn(2) for name in VIEWS}
    return cls(7, VIEWS, members, missing, weights=weights).eval(), members, missing


def test_late_fusion_classifier_is_the_weighted_mean():
    classifier, members, missing = late(LateFusionClassifier, {"image": 1.0, "text": 2.0, "table": 5.0})
    rows = rows_with_gaps()
    wanted = []
    for row in rows:
        total = torch.zeros(2)
        for (name, columns), weight in zip(VIEWS.items(), (1, 2, 5), strict=True):
            part = row[columns]
            total += weight / 8 * (missing[name] if part.isnan().any() else members[name](part))
        wanted.append(total)
    torch.testing.assert_close(classifier(rows), torch.stack(wanted))
    torch.testing.assert_close(classifier.probabilities(classifier(rows)), classifier(rows).sigmoid())


def test_late_fusion_head_has_weighted_distances():
    head, members, _ = late(LateFusionHead, {"table": 5.0, "image": 1.0, "text": 2.0})
    rows = torch.randn(2, 7)
    distance = (head(rows)[0] - head(rows)[1]).square().sum()
    parts = [
        weight / 8 * (members[name](rows[:1, columns]) - members[name](rows[1:, columns])).square().sum()
        for (name, columns), weight in zip(VIEWS.items(), (1, 2, 5), strict=True)
    ]
    torch.testing.assert_close(distance, sum(parts))
    assert head.embedding_size == head(rows).shape[1] == 6 + 3
    torch.testing.assert_close(late(LateFusionHead)[0].weights, torch.full((3,), 1 / 3))


def test_late_fusion_head_predicts_missing_views_from_the_present_ones():
    _, members, missing = late(LateFusionHead)
    predictors = {(one, other): nn.Linear(2, 2) for one in VIEWS for other in VIEWS if one != other}
    deviations = {"image": 1.0, "text": 2.0, "table": 3.0}
    head = LateFusionHead(7, VIEWS, members, missing, predictors=predictors, deviations=deviations).eval()
    rows = rows_with_gaps()
    rows[0] = NAN
    for row, embedded in zip(rows, head(rows) * 3**0.5, strict=True):
        known = {name: members[name](row[columns]) for name, columns in VIEWS.items() if not row[columns].isnan().any()}
        wanted = []
        for name in VIEWS:
            others = [predictors[other, name](known[other]) for other in known if other != name]
            guess = torch.stack(others).mean(dim=0) if others else missing[name]
            wanted += [known.get(name, guess), torch.tensor([0.0 if name in known else deviations[name]])]
        torch.testing.assert_close(embedded, torch.cat(wanted))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"predictors": {("image", "text"): nn.Identity()}}, "`predictors` must have the pairs of views"),
        ({"deviations": {"image": 0.0}}, "`deviations` must have the names of the views"),
        ({"members": {"image": nn.Identity()}}, "`members` must have the names of the views"),
        ({"missing": {}}, "`missing` must have"),
        ({"weights": {"image": 1.0, "text": 0.0, "table": 1.0}}, "above 0"),
        ({"weights": {"image": 1.0, "text": NAN, "table": 1.0}}, "above 0"),
    ],
)
def test_wrong_parts_of_late_fusion(changes, text):
    _, members, missing = late(LateFusionHead)
    with pytest.raises(ValueError, match=text):
        LateFusionHead(7, VIEWS, **{"members": members, "missing": missing} | changes)


def test_late_fusion_is_exported():
    head, _, _ = late(LateFusionClassifier)
    for module in (head, make("gated").eval(), make("concat").eval()):
        program = torch.export.export(module, (rows_with_gaps(),), dynamic_shapes=({0: torch.export.Dim("n")},))
        rows = rows_with_gaps(5 + 6, seed=1)
        torch.testing.assert_close(program.module()(rows), module(rows))


def test_standardize_skips_nan():
    rows = rows_with_gaps(40)
    part = Standardize(7).fit(rows, skip_nan=True)
    np.testing.assert_allclose(part.mean, np.nanmean(rows.numpy(), axis=0), rtol=1e-5)
    np.testing.assert_allclose(part.scale, np.nanstd(rows.numpy(), axis=0), rtol=1e-5)
    complete = rows.nan_to_num(2.0)
    torch.testing.assert_close(
        Standardize(7).fit(complete, skip_nan=True).state_dict(), Standardize(7).fit(complete).state_dict()
    )
    with pytest.raises(ValueError, match="must be finite"):
        Standardize(7).fit(rows)
    rows[:, 3] = NAN
    with pytest.raises(ValueError, match="must be finite"):
        Standardize(7).fit(rows, skip_nan=True)


def test_classifier_fills_missing_features_with_the_mean():
    rows = rows_with_gaps(40)
    labels = (rows[:, [0, 4]].nan_to_num() > 1).long()
    probe = ClassifierHead(7, 2, clip=3.0, fill_missing=True)
    probe.standardize.fit(rows, skip_nan=True)
    plain = copy.deepcopy(probe)
    plain.fill_missing = False
    filled = torch.where(rows.isnan(), probe.standardize.mean, rows)
    fit_logistic_regression(probe, rows, labels, C=0.1)
    fit_logistic_regression(plain, filled, labels, C=0.1)
    torch.testing.assert_close(probe(rows), plain(filled))
    with pytest.raises(ValueError, match="must be finite"):
        fit_logistic_regression(plain, rows, labels, C=0.1)


def test_embedding_head_is_unchanged_by_the_shared_norm():
    head = EmbeddingHead(3, (2,), norm_exponent=0.5)
    rows = torch.randn(4, 3)
    raw = head.layers(rows)
    torch.testing.assert_close(head(rows).norm(dim=1), raw.norm(dim=1).sqrt())
