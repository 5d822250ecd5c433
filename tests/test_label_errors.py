"""Ranking of probable label errors, compared with loops over the definitions and with cleanlab."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.multiclass import OneVsRestClassifier

from mlmetric.data import MultiLabelStratifiedKFold
from mlmetric.label_errors import _annotations, neighbor_probabilities, rank_label_errors

SEEDS = range(12)
MISSING = [[1, 0], [np.nan, 1]]


def random_case(seed, *, with_gaps=True):
    """Draw labels with gaps, and probabilities with many ties."""
    rng = np.random.default_rng(seed)
    shape = rng.integers(1, 15), rng.integers(1, 5)
    labels = (rng.random(shape) < rng.random(shape[1])).astype(float)
    if with_gaps:
        labels[rng.random(shape) < rng.choice([0, 0.3])] = np.nan
    steps = 2 ** rng.integers(1, 7)  # 1 - p is exact
    return labels, rng.integers(0, steps + 1, shape) / steps


def pairs(errors):
    """The pairs of a row and a label, in order."""
    return [*zip(errors.rows.tolist(), errors.labels.tolist(), strict=True)]


def loop_thresholds(labels, probabilities):
    """The mean probability of a value in the rows annotated with it, or 1."""
    thresholds = np.ones((labels.shape[1], 2))
    for label in range(labels.shape[1]):
        for value in (0, 1):
            column = zip(labels[:, label], probabilities[:, label], strict=True)
            own = [p if value else 1 - p for y, p in column if y == value]
            if own:
                thresholds[label, value] = sum(own) / len(own)
    return thresholds


def loop_joint(labels, probabilities):
    """Equation 1 of the paper: each row counts for the most probable of its confident values."""
    thresholds = loop_thresholds(labels, probabilities)
    joint = np.zeros((labels.shape[1], 2, 2), dtype=int)
    for row, label in np.argwhere(~np.isnan(labels)):
        both = 1 - probabilities[row, label], probabilities[row, label]
        confident = [value for value in (0, 1) if both[value] >= thresholds[label, value] - 1e-9]
        if confident:
            joint[label, int(labels[row, label]), max(confident, key=lambda value: both[value])] += 1
    return joint


def loop_errors(labels, probabilities):
    """The share of the confident rows that disagree, times the number of rows."""
    joint, errors = loop_joint(labels, probabilities), np.zeros((labels.shape[1], 2))
    for label in range(labels.shape[1]):
        for value in (0, 1):
            if total := joint[label, value].sum():
                errors[label, value] = joint[label, value, 1 - value] / total * (labels[:, label] == value).sum()
    return errors


def loop_ranking(labels, probabilities, score):
    """All annotated entries as (score, row, label, given), sorted."""
    thresholds, entries = loop_thresholds(labels, probabilities), []
    for row, label in np.argwhere(~np.isnan(labels)).tolist():
        given = int(labels[row, label])
        own, other = probabilities[row, label], 1 - probabilities[row, label]
        if given == 0:
            own, other = other, own
        margin = other - thresholds[label, 1 - given] - (own - thresholds[label, given])
        entries.append((other if score == "self_confidence" else margin, row, label, given))
    return sorted(entries, key=lambda entry: (-round(entry[0], 9), *entry[1:]))


def loop_neighbors(labels, embeddings, k):
    result = np.zeros(labels.shape)
    for row in range(len(labels)):
        others = [other for other in range(len(labels)) if other != row]
        nearest = sorted(others, key=lambda other: (abs(embeddings[other] - embeddings[row]), other))[:k]
        for label in range(labels.shape[1]):
            known = [value for value in labels[:, label] if not np.isnan(value)]
            votes = [labels[other, label] for other in nearest if not np.isnan(labels[other, label])]
            frequency = sum(known) / len(known) if known else 0
            result[row, label] = (sum(votes) + frequency) / (len(votes) + 1)
    return result


@pytest.fixture
def chunks(seed, monkeypatch):
    """Chunks of one row, of a few rows, or of all rows, by seed."""
    monkeypatch.setattr(_annotations, "_CHUNK_ENTRIES", (1, 7, 2**20)[seed % 3])


@pytest.mark.parametrize("seed", SEEDS)
def test_counts_of_confident_learning_are_those_of_the_paper(seed, chunks):
    labels, probabilities = random_case(seed)
    errors = rank_label_errors(labels, probabilities=probabilities)
    np.testing.assert_allclose(errors.thresholds, loop_thresholds(labels, probabilities))
    np.testing.assert_array_equal(errors.confident_joint, loop_joint(labels, probabilities))
    np.testing.assert_allclose(errors.estimated_errors, loop_errors(labels, probabilities))
    np.testing.assert_array_equal(errors.num_annotated, np.stack([(labels == 0).sum(0), (labels == 1).sum(0)], axis=1))


@pytest.mark.parametrize("score", ["self_confidence", "adjusted_margin"])
@pytest.mark.parametrize("seed", SEEDS)
def test_all_annotated_entries_are_ranked_by_score(seed, score, chunks):
    labels, probabilities = random_case(seed)
    errors = rank_label_errors(labels, probabilities=probabilities, score=score)
    expected = loop_ranking(labels, probabilities, score)
    assert len(errors) == len(expected) == np.isfinite(labels).sum()
    np.testing.assert_allclose(errors.scores, [entry[0] for entry in expected], atol=1e-9)
    np.testing.assert_array_equal(errors.given, labels[errors.rows, errors.labels])
    np.testing.assert_array_equal(errors.suggested, 1 - errors.given)
    assert set(pairs(errors)) == {entry[1:3] for entry in expected}
    if score == "self_confidence":  # margins of equal entries may differ in the last bit
        assert pairs(errors) == [entry[1:3] for entry in expected]


@pytest.mark.parametrize("max_pairs", [1, 3, 8])
@pytest.mark.parametrize("seed", SEEDS)
def test_max_pairs_keeps_the_first_of_each_kind(seed, max_pairs, chunks):
    labels, probabilities = random_case(seed)
    every = rank_label_errors(labels, probabilities=probabilities)
    some = rank_label_errors(labels, probabilities=probabilities, max_pairs=max_pairs)
    for whole, part in ((every.missing, some.missing), (every.wrong, some.wrong)):
        np.testing.assert_array_equal(part.rows, whole.rows[:max_pairs])
        np.testing.assert_array_equal(part.labels, whole.labels[:max_pairs])
        np.testing.assert_array_equal(part.scores, whole.scores[:max_pairs])
    assert len(some) == len(some.missing) + len(some.wrong)
    np.testing.assert_array_equal(some.estimated_errors, every.estimated_errors)


@pytest.mark.parametrize("seed", SEEDS)
def test_neighbor_probabilities_are_those_of_a_loop(seed, chunks):
    labels = random_case(seed)[0]
    labels = np.concatenate([labels, labels, labels])
    embeddings = np.random.default_rng(seed).integers(0, 9, len(labels)).astype(float)
    k = 1 + seed % (len(labels) - 1)
    found = neighbor_probabilities(labels, embeddings[:, None], k=k)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, loop_neighbors(labels, embeddings, k), atol=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_model_and_neighbours_are_averaged(seed):
    labels, probabilities = random_case(seed)
    labels, probabilities = np.tile(labels, (3, 1)), np.tile(probabilities, (3, 1))
    embeddings = np.random.default_rng(seed).normal(size=(len(labels), 2))
    votes = neighbor_probabilities(labels, embeddings, k=2, metric="cosine")
    both = rank_label_errors(labels, probabilities=probabilities, embeddings=embeddings, k=2, metric="cosine")
    expected = rank_label_errors(labels, probabilities=(probabilities + votes) / 2)
    np.testing.assert_allclose(both.scores, expected.scores, atol=1e-6)
    alone = rank_label_errors(labels, embeddings=torch.from_numpy(embeddings), k=2, metric="cosine")
    np.testing.assert_allclose(alone.scores, rank_label_errors(labels, probabilities=votes).scores, atol=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_mask_is_the_same_as_nan_and_covers_any_value(seed):
    labels, probabilities = random_case(seed)
    mask = ~np.isnan(labels)
    embeddings = np.arange(len(labels) * 2.0).reshape(-1, 2) ** 2
    options = {"embeddings": embeddings, "k": 1} if len(labels) > 1 else {}
    expected = rank_label_errors(labels, probabilities=probabilities, **options)
    for filler in (0, 1, 7):
        filled = np.where(mask, labels, filler)
        found = rank_label_errors(filled, probabilities=probabilities, mask=torch.from_numpy(mask), **options)
        for name in ("rows", "labels", "scores", "given", "estimated_errors"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert mask[expected.rows, expected.labels].all()


def test_any_kind_of_matrix_gives_the_same_result():
    labels = random_case(3, with_gaps=False)[0].astype(int)
    probabilities = random_case(3)[1]
    expected = rank_label_errors(labels, probabilities=probabilities)
    frame = pd.DataFrame(labels, columns=[f"label {i}" for i in range(labels.shape[1])])
    kinds = [labels.tolist(), labels.astype(bool), torch.from_numpy(labels), sparse.csr_array(labels), frame]
    for kind in [*kinds, frame.astype("Int64"), torch.from_numpy(labels).to(torch.uint16)]:
        for values in (probabilities, torch.from_numpy(probabilities), pd.DataFrame(probabilities)):
            found = rank_label_errors(kind, probabilities=values)
            np.testing.assert_array_equal(found.scores, expected.scores)
            np.testing.assert_array_equal(found.rows, expected.rows)
    assert rank_label_errors(frame, probabilities=probabilities).label_names == list(frame.columns)
    assert expected.label_names == [str(i) for i in range(labels.shape[1])]
    half = torch.tensor([[0.5], [0.25]], dtype=torch.bfloat16)
    assert rank_label_errors([[1], [1]], probabilities=half).scores.tolist() == [0.75, 0.5]
    assert rank_label_errors([[None], [1]], probabilities=half).rows.tolist() == [1]
    assert rank_label_errors(pd.DataFrame({"a": [pd.NA, 1]}), probabilities=half).rows.tolist() == [1]


def test_planted_errors_come_first():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (300, 3))
    X = 6 * labels @ np.eye(3, 8) + rng.normal(size=(300, 8))
    wrong = labels.copy()
    planted = {(5, 0), (17, 1), (250, 2), (120, 0)}
    for row, label in planted:
        wrong[row, label] = 1 - wrong[row, label]
    model = OneVsRestClassifier(LogisticRegression())
    folds = MultiLabelStratifiedKFold(5, shuffle=True, random_state=0)
    probabilities = cross_val_predict(model, X, wrong, cv=folds, method="predict_proba")
    for evidence in (
        {"probabilities": probabilities},
        {"embeddings": X},
        {"probabilities": probabilities, "embeddings": X},
    ):
        for score in ("self_confidence", "adjusted_margin"):
            errors = rank_label_errors(wrong, score=score, **evidence)
            assert set(pairs(errors)[:4]) == planted


@pytest.mark.parametrize("seed", range(10))
def test_cleanlab_counts_and_orders_the_same(seed):
    count, rank = pytest.importorskip("cleanlab.count"), pytest.importorskip("cleanlab.rank")
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (60, 3))
    probabilities = (0.35 * labels + 0.65 * rng.random((60, 3))).clip(0, 1)
    errors = rank_label_errors(labels, probabilities=probabilities)
    adjusted = rank_label_errors(labels, probabilities=probabilities, score="adjusted_margin")
    for label, (given, positive) in enumerate(zip(labels.T, probabilities.T, strict=True)):
        both = np.stack([1 - positive, positive], axis=1)
        joint = count.compute_confident_joint(given, both, calibrate=False)
        np.testing.assert_array_equal(errors.confident_joint[label], joint)
        np.testing.assert_allclose(errors.thresholds[label], count.get_confident_thresholds(given, both))
        quality = rank.get_label_quality_scores(given, both, method="self_confidence")
        own = errors.labels == label
        np.testing.assert_allclose(errors.scores[own], 1 - quality[errors.rows[own]])
        quality = rank.get_label_quality_scores(given, both, method="normalized_margin", adjust_pred_probs=True)
        own = adjusted.labels == label
        assert (np.diff(quality[adjusted.rows[own]]) >= -1e-9).all()


@pytest.mark.parametrize(
    ("labels", "options", "error", "message"),
    [
        (MISSING, {}, ValueError, "Pass `probabilities`, `embeddings` or both"),
        ([[0.5]], {}, ValueError, r"`labels` must contain 0 and 1, .* got 0\.5 at row 0, label 0"),
        ([[1, 2]], {}, ValueError, "got 2 at row 0, label 1"),
        ([[np.inf]], {}, ValueError, "got inf at row 0"),
        ([["sea"]], {}, TypeError, "MultiLabelBinarizer"),
        ([1, 0], {}, ValueError, "2-D"),
        (np.zeros((0, 2)), {}, ValueError, r"at least one row and one label, got shape \(0, 2\)"),
        (MISSING, {"probabilities": [[1, 0]]}, ValueError, r"`probabilities` must have the shape .* got \(1, 2\)"),
        (MISSING, {"probabilities": [[1, 0], [2.5, 0]]}, ValueError, r"got 2\.5 at row 1, label 0.*torch\.sigmoid"),
        (MISSING, {"probabilities": [[1, np.nan], [0, 0]]}, ValueError, "got nan at row 0, label 1"),
        (MISSING, {"embeddings": [[0.0]]}, ValueError, "`embeddings` must have 2 rows like `labels`, got 1"),
        (MISSING, {"embeddings": [[0.0], [1.0]]}, ValueError, "`k` must be from 1 to 1"),
        (MISSING, {"mask": [[1, 0]]}, ValueError, r"`mask` must have the shape of `labels`, \(2, 2\)"),
        (MISSING, {"mask": [[1, 0], [2, 0]]}, ValueError, "`mask` must be bool"),
        (MISSING, {"score": "margin"}, ValueError, "`score` must be one of 'self_confidence', 'adjusted_margin'"),
        (MISSING, {"max_pairs": 0}, ValueError, "`max_pairs` must be at least 1, got 0"),
        (MISSING, {"max_pairs": 2.5}, TypeError, r"`max_pairs` must be an integer, got 2\.5"),
        (MISSING, {"label_names": ["sea"]}, ValueError, "`label_names` must name the 2 columns of `labels`, got 1"),
    ],
)
def test_bad_arguments_raise_errors_that_say_what_and_where(labels, options, error, message):
    with pytest.raises(error, match=message):
        rank_label_errors(labels, **options)


def test_no_annotation_of_one_kind_gives_an_empty_report_of_it():
    errors = rank_label_errors([[0], [0]], probabilities=[[0.2], [0.4]])
    assert (len(errors.missing), len(errors.wrong)) == (2, 0)
    assert errors.thresholds[0].tolist() == [pytest.approx(0.7), 1]
    assert len(rank_label_errors([[np.nan]], probabilities=[[0.2]])) == 0
