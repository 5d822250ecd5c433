"""Evaluation of embeddings: against scikit-learn and naive loops, on every kind of input, and without test rows."""

import inspect
import json
import math
import statistics
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, f1_score
from sklearn.model_selection import cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import MultiLabelBinarizer, normalize

from mlmetric.data import MultiLabelStratifiedKFold, stratified_split
from mlmetric.estimators import MetricClassifier
from mlmetric.evaluation import EmbeddingEvaluation, evaluate_embeddings
from mlmetric.evaluation._inputs import Rows
from mlmetric.evaluation._probes import fit_linear_probe
from mlmetric.metrics import RetrievalMetrics, best_thresholds, confidence_interval, mean_average_precision, ndcg_at_k

NAMES = ["calm", "happy", "sad", "tense"]
QUICK = {"parts": ("retrieval", "knn"), "n_resamples": 5, "full_ranking": False}


def random_rows(num_rows, *, seed=0, num_columns=5):
    """Embeddings that contain some of their labels, and labels of which each row has at least one."""
    rng = np.random.default_rng(seed)
    labels = rng.random((num_rows, 4)) < [0.5, 0.4, 0.3, 0.2]
    labels[np.arange(num_rows), rng.integers(0, 4, num_rows)] = True
    weights = np.random.default_rng(1).normal(size=(4, num_columns))
    return labels @ weights + rng.normal(size=(num_rows, num_columns)), labels.astype(np.int64)


@pytest.fixture
def test_rows():
    return random_rows(40, seed=2)


@pytest.fixture
def train_rows():
    return random_rows(90, seed=3)


# Values


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("seed", range(3))
def test_retrieval_is_that_of_a_naive_loop(metric, seed):
    (X, Y), (refs, ref_Y) = random_rows(12, seed=seed), random_rows(30, seed=10 + seed)
    values = evaluate_embeddings(X, Y, refs, ref_Y, parts=["retrieval"], k=4, metric=metric, n_resamples=2).values
    found = {"ndcg_at_4": [], "precision_at_4": [], "size_ratio_at_4": [], "map": []}
    for row, labels in zip(X, Y, strict=True):
        if metric == "cosine":
            distances = [1 - row @ ref / math.sqrt((row @ row) * (ref @ ref)) for ref in refs]
        else:
            distances = [((row - ref) ** 2).sum() for ref in refs]
        order = np.argsort(distances)
        grades = np.array([sum(labels & ref) / sum(labels | ref) for ref in ref_Y])
        discounts = [1 / math.log2(rank + 1) for rank in range(1, 5)]
        found["ndcg_at_4"].append((grades[order[:4]] @ discounts) / (np.sort(grades)[::-1][:4] @ discounts))
        found["precision_at_4"].append(np.mean(grades[order[:4]] > 0))
        found["size_ratio_at_4"].append(ref_Y[order[:4]].sum(axis=1).mean() / ref_Y.sum(axis=1).mean())
        hits = np.flatnonzero(grades[order] > 0)
        found["map"].append(np.mean([(place + 1) / (hit + 1) for place, hit in enumerate(hits)]))
    for key, expected in found.items():
        assert values[f"retrieval_{key}"] == pytest.approx(np.mean(expected)), key


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_knn_map_is_that_of_the_neighbours_classifier_of_sklearn(test_rows, train_rows, metric):
    (X, Y), (refs, ref_Y) = test_rows, train_rows
    found = evaluate_embeddings(X, Y, refs, ref_Y, parts=["knn"], n_neighbors=7, metric=metric, n_resamples=2)
    classifier = KNeighborsClassifier(7, metric=metric, algorithm="brute").fit(refs, ref_Y)
    shares = np.stack([shares[:, 1] for shares in classifier.predict_proba(X)], axis=1)
    assert found.values == {"knn_map": pytest.approx(average_precision_score(Y, shares, average="macro"))}


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_linear_probe_is_the_cross_validated_logistic_regression_of_sklearn(test_rows, train_rows, metric):
    (X, Y), (refs, ref_Y), strengths = test_rows, train_rows, (0.001, 0.03, 1.0)
    options = {"C": strengths, "cv": 3, "random_state": 4, "metric": metric, "confidence_level": None}
    found = evaluate_embeddings(X, Y, refs, ref_Y, parts=["linear"], **options)
    if metric == "cosine":
        X, refs = normalize(X), normalize(refs)
    center = refs.mean(axis=0)
    scale = np.sqrt(((refs - center) ** 2).mean())
    X, refs = (X - center) / scale, (refs - center) / scale
    folds = list(MultiLabelStratifiedKFold(3, shuffle=True, random_state=4).split(refs, ref_Y))

    def held_out_scores(C):
        classifier = LogisticRegression(C=C, tol=1e-10, max_iter=10_000)
        scores = [cross_val_predict(classifier, refs, y, cv=folds, method="decision_function") for y in ref_Y.T]
        return np.stack(scores, axis=1)

    best = max(strengths, key=lambda C: average_precision_score(ref_Y, held_out_scores(C), average="macro"))
    thresholds = best_thresholds(held_out_scores(best), ref_Y, max_predicted=1.5).numpy()
    classifiers = [LogisticRegression(C=best, tol=1e-10, max_iter=10_000).fit(refs, y) for y in ref_Y.T]
    scores = np.stack([classifier.decision_function(X) for classifier in classifiers], axis=1)
    assert found.settings["C"] == [best]
    assert found.values["linear_map"] == pytest.approx(average_precision_score(Y, scores, average="macro"), abs=0.005)
    # A score next to a threshold may fall on its other side.
    for key, average in (("linear_macro_f1", "macro"), ("linear_of1", "micro")):
        assert found.values[key] == pytest.approx(f1_score(Y, scores >= thresholds, average=average), abs=0.02)
    probe_rows = Rows(torch.from_numpy(refs), torch.from_numpy(ref_Y).float())
    probe = fit_linear_probe(torch.from_numpy(X), probe_rows, strengths=strengths, cv=3, max_predicted=1.5, seed=4)
    np.testing.assert_allclose(probe.scores, scores, atol=0.03)
    np.testing.assert_allclose(probe.thresholds, thresholds, atol=0.1)


def test_search_of_the_penalty_ends_after_two_that_are_clearly_worse(train_rows, monkeypatch):
    tried = []
    scores_of = {0.1: 0.6, 0.2: 0.7, 0.3: 0.6995, 0.4: 0.6, 0.5: 0.6, 0.6: 0.9}
    monkeypatch.setattr(
        "mlmetric.evaluation._probes.mean_average_precision", lambda *_: torch.tensor(scores_of[tried[-1]])
    )
    monkeypatch.setattr("mlmetric.evaluation._probes._Regressions.solve", lambda _self, _rows, _y, C: tried.append(C))
    rows = Rows(*(torch.from_numpy(part).float() for part in train_rows))
    probe = fit_linear_probe(rows.embeddings, rows, strengths=list(scores_of), cv=2, max_predicted=1.5, seed=0)
    assert tried == [0.1, 0.1, 0.2, 0.2, 0.3, 0.3, 0.4, 0.4, 0.5, 0.5, 0.2]
    assert probe.C == 0.2


def test_intervals_are_those_of_confidence_interval(test_rows, train_rows):
    options = {"confidence_level": 0.8, "n_resamples": 50}
    found = evaluate_embeddings(*test_rows, *train_rows, random_state=7, k=3, **options)
    assert found.intervals.keys() == found.values.keys()
    assert found.deviations is None
    generator = torch.Generator().manual_seed(7)
    value, *bounds = confidence_interval(partial(_ndcg, train_rows), *test_rows, generator=generator, **options)
    assert found.values["retrieval_ndcg_at_3"] == pytest.approx(value.item())
    assert found.intervals["retrieval_ndcg_at_3"] == pytest.approx([bound.item() for bound in bounds])
    for key, (low, high) in found.intervals.items():
        assert low < high, key


def _ndcg(train_rows, embeddings, labels):
    return ndcg_at_k(embeddings, labels, *train_rows, k=3)


def test_keys_are_those_of_the_metrics(test_rows, train_rows):
    values = evaluate_embeddings(*test_rows, *train_rows, k=(2, 5), n_resamples=2).values
    metrics = RetrievalMetrics(k=(2, 5))
    metrics.update(*test_rows)
    retrieval = [f"retrieval_{key}" for key in metrics.compute() if key != "queries_without_relevant"]
    assert list(values) == [*retrieval, "knn_map", "linear_map", "linear_macro_f1", "linear_of1"]
    assert "retrieval_map" in values
    assert "retrieval_map" not in evaluate_embeddings(*test_rows, *train_rows, **QUICK).values


def test_limit_of_predictions_is_that_of_the_classifier():
    parameters = inspect.signature(evaluate_embeddings).parameters
    assert parameters["max_predicted"].default == MetricClassifier().max_predicted


# The protocol


def test_splits_are_stratified_and_their_mean_and_deviation_are_returned(train_rows):
    X, Y = train_rows
    found = evaluate_embeddings(X, Y, n_splits=3, test_size=0.25, random_state=5, cv=2, C=0.1)
    expected = []
    for seed in (5, 6, 7):
        train, test = stratified_split(Y, (0.75, 0.25), generator=torch.Generator().manual_seed(seed))
        parts = (X[test], Y[test], X[train], Y[train])
        expected.append(evaluate_embeddings(*parts, random_state=seed, cv=2, C=0.1, confidence_level=None).values)
    assert found.split_values == expected
    assert found.intervals is None
    for key, value in found.values.items():
        of_splits = [values[key] for values in expected]
        assert value == pytest.approx(statistics.fmean(of_splits))
        assert found.deviations[key] == pytest.approx(statistics.stdev(of_splits))


def test_one_split_has_intervals(train_rows):
    found = evaluate_embeddings(*train_rows, n_splits=1, **QUICK)
    assert found.deviations is None
    assert found.intervals.keys() == found.values.keys()
    assert len(found.split_values) == 1


def test_scores_and_choices_do_not_depend_on_test_rows(test_rows, train_rows):
    rows = Rows(*(torch.from_numpy(part).float() for part in train_rows))
    queries = torch.from_numpy(test_rows[0]).float()
    options = {"strengths": (0.01, 1.0), "cv": 3, "max_predicted": 1.5, "seed": 0}
    whole, part = fit_linear_probe(queries, rows, **options), fit_linear_probe(queries[:3] * 2, rows, **options)
    assert (whole.C, whole.thresholds.tolist()) == (part.C, part.thresholds.tolist())
    torch.testing.assert_close(fit_linear_probe(queries[:3], rows, **options).scores, whole.scores[:3])


def test_same_arguments_have_the_same_result_and_global_generators_are_not_used(train_rows):
    state = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    first, second = (evaluate_embeddings(*train_rows, n_splits=2, cv=2, C=(0.01, 0.1)) for _ in range(2))
    assert first == second
    assert torch.equal(state[0], torch.get_rng_state())
    assert state[1] == np.random.get_state()[1].tolist()  # noqa: NPY002
    other = evaluate_embeddings(*train_rows, n_splits=2, cv=2, C=(0.01, 0.1), random_state=9)
    assert other.values != first.values


def test_nothing_is_printed(train_rows, capsys):
    evaluate_embeddings(*train_rows, n_splits=2, cv=2)
    assert capsys.readouterr() == ("", "")


def test_scale_and_shift_of_an_embedding_change_nothing(test_rows, train_rows):
    (X, Y), (refs, ref_Y) = test_rows, train_rows
    first = evaluate_embeddings(X, Y, refs, ref_Y, confidence_level=None)
    second = evaluate_embeddings(X * 2e4 + 7e4, Y, refs * 2e4 + 7e4, ref_Y, confidence_level=None)
    assert first.values == pytest.approx(second.values, abs=1e-3)


def test_cosine_does_not_depend_on_the_length_of_a_row(test_rows, train_rows):
    (X, Y), (refs, ref_Y) = test_rows, train_rows
    first = evaluate_embeddings(X, Y, refs, ref_Y, metric="cosine", confidence_level=None)
    lengths = np.random.default_rng(0).uniform(0.1, 10, (90, 1))
    second = evaluate_embeddings(X * 3, Y, refs * lengths, ref_Y, metric="cosine", confidence_level=None)
    assert first.values == pytest.approx(second.values, abs=1e-3)


# Kinds of input


def test_files_memory_maps_and_parts_have_the_result_of_the_arrays(test_rows, train_rows, tmp_path):
    (X, Y), (refs, ref_Y) = test_rows, train_rows
    expected = evaluate_embeddings(X, Y, refs, ref_Y, **QUICK)
    for name, values in {"X": X, "Y": Y, "first": refs[:50], "second": refs[50:]}.items():
        np.save(tmp_path / f"{name}.npy", values)
    np.savez(tmp_path / "both.npz", embeddings=X, labels=Y, others=np.zeros(2))
    np.savez(tmp_path / "one.npz", ref_Y)
    both, one = tmp_path / "both.npz", str(tmp_path / "one.npz")
    first = np.load(tmp_path / "first.npy", mmap_mode="r")
    before = first[0].tolist()
    parts = [first, tmp_path / "second.npy"]
    assert evaluate_embeddings(both, both, parts, one, **QUICK) == expected
    assert (
        evaluate_embeddings(tmp_path / "X.npy", tmp_path / "Y.npy", refs, [ref_Y[:9], ref_Y[9:]], **QUICK) == expected
    )
    assert first[0].tolist() == before


@pytest.mark.parametrize(
    ("to_rows", "to_labels"),
    [
        (torch.from_numpy, torch.from_numpy),
        (sparse.csr_array, sparse.csr_array),
        (pd.DataFrame, partial(pd.DataFrame, columns=NAMES)),
        (np.ndarray.tolist, np.ndarray.tolist),
        (np.array, MultiLabelBinarizer(classes=NAMES).fit([NAMES]).inverse_transform),
    ],
    ids=["tensors", "sparse", "frames", "lists", "names"],
)
def test_kinds_of_matrices_have_the_result_of_the_arrays(test_rows, train_rows, to_rows, to_labels):
    converted = [
        convert(part)
        for rows in (test_rows, train_rows)
        for convert, part in zip((to_rows, to_labels), rows, strict=True)
    ]
    found = evaluate_embeddings(*converted, **QUICK)
    assert found == evaluate_embeddings(*test_rows, *train_rows, **QUICK)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int32])
def test_dtypes_have_the_result_of_their_numbers(test_rows, train_rows, dtype):
    X, refs = ((10 * torch.from_numpy(rows)).to(dtype) for rows in (test_rows[0], train_rows[0]))
    found = evaluate_embeddings(X, test_rows[1], refs, train_rows[1], **QUICK)
    expected = evaluate_embeddings(X.double(), test_rows[1], refs.double(), train_rows[1], **QUICK)
    assert found.values == pytest.approx(expected.values)


def test_columns_of_frames_are_brought_into_one_order(test_rows, train_rows):
    expected = evaluate_embeddings(*test_rows, *train_rows, **QUICK)
    frame = pd.DataFrame(train_rows[1], columns=NAMES)[NAMES[::-1]]
    found = evaluate_embeddings(test_rows[0], pd.DataFrame(test_rows[1], columns=NAMES), train_rows[0], frame, **QUICK)
    assert found == expected


def test_label_names_may_occur_in_one_part_only():
    names, ref_names = [["a"], ["b", "c"], ["a", "c"]], [["a"], ["a", "b"], [], ["d"]]
    X, refs = np.arange(6.0).reshape(3, 2), np.arange(8.0).reshape(4, 2)
    encoder = MultiLabelBinarizer(classes=["a", "b", "c", "d"])
    expected = evaluate_embeddings(X, encoder.fit_transform(names), refs, encoder.fit_transform(ref_names), **QUICK)
    found = evaluate_embeddings(X, names, refs, ref_names, **QUICK)
    assert found.to_dict() == expected.to_dict()
    assert found.settings["n_labels"] == 4


def test_labels_without_positives_are_left_out_of_the_means(test_rows, train_rows):
    (X, Y), (refs, ref_Y) = test_rows, train_rows
    expected = evaluate_embeddings(X, Y, refs, ref_Y, parts=["knn", "linear"], C=0.1, confidence_level=None).values
    Y, ref_Y = (np.hstack([labels, np.zeros((len(labels), 1), dtype=int)]) for labels in (Y, ref_Y))
    found = evaluate_embeddings(X, Y, refs, ref_Y, parts=["knn"], confidence_level=None)
    assert found.values["knn_map"] == pytest.approx(expected["knn_map"])
    ref_Y[:5, -1] = 1  # in the training rows only
    found = evaluate_embeddings(X, Y, refs, ref_Y, parts=["linear"], C=0.1, confidence_level=None)
    assert found.values["linear_map"] == pytest.approx(expected["linear_map"], abs=0.05)


def test_embeddings_that_are_all_the_same_have_finite_values():
    Y = random_rows(30)[1]
    values = evaluate_embeddings(np.ones((30, 2)), Y, n_splits=2, cv=2).values
    assert all(map(math.isfinite, values.values()))


def test_rows_are_evaluated_on_a_device(test_rows, train_rows, device):
    X, refs = (torch.from_numpy(rows).float() for rows in (test_rows[0], train_rows[0]))
    expected = evaluate_embeddings(X, test_rows[1], refs, train_rows[1], **QUICK)
    found = evaluate_embeddings(X, test_rows[1], refs, train_rows[1], device=device, **QUICK)
    assert found.values == pytest.approx(expected.values, abs=1e-6)


# The result


@pytest.fixture
def evaluation():
    values = {"retrieval_ndcg_at_10": 0.5, "linear_map": math.nan}
    intervals = {"retrieval_ndcg_at_10": (0.4, 0.6), "linear_map": (math.nan, math.nan)}
    return EmbeddingEvaluation(values, intervals, None, [values], {"confidence_level": 0.9})


def test_summary_shows_intervals_and_leaves_undefined_values_out(evaluation):
    assert str(evaluation).splitlines() == [
        "| metric            | value |  90 % interval |",
        "| ----------------- | ----: | -------------: |",
        "| retrieval NDCG@10 | 0.500 | 0.400 to 0.600 |",
        "| linear probe mAP  |       |                |",
    ]


def test_summary_without_intervals_has_two_columns(test_rows, train_rows):
    options = {"parts": ["knn"], "confidence_level": None}
    lines = str(evaluate_embeddings(*test_rows, *train_rows, **options)).splitlines()
    assert lines[0] == "| metric  | value |"
    assert len(lines) == 3


def test_frame_has_a_row_for_each_metric(evaluation, train_rows):
    frame = evaluation.to_frame()
    assert frame.columns.tolist() == ["value", "low", "high"]
    assert frame.loc["retrieval_ndcg_at_10"].tolist() == [0.5, 0.4, 0.6]
    found = evaluate_embeddings(*train_rows, n_splits=2, **QUICK)
    assert found.to_frame()["deviation"].to_dict() == found.deviations


def test_dict_is_json_without_nan(evaluation, train_rows):
    text = json.dumps(evaluation.to_dict(), allow_nan=False)
    assert json.loads(text)["intervals"] == {"retrieval_ndcg_at_10": [0.4, 0.6], "linear_map": [None, None]}
    found = evaluate_embeddings(*train_rows, n_splits=2, cv=2, k=(1, 2), C=(0.1, 1))
    read = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert read["values"] == found.values
    assert read["settings"]["k"] == [1, 2]
    assert len(read["settings"]["C"]) == 2


def test_dict_of_numbers_of_numpy_is_json(train_rows):
    options = {"k": np.int64(2), "test_size": np.float32(0.25), "max_predicted": np.float32(2)}
    found = evaluate_embeddings(*train_rows, parts=["knn"], n_splits=2, cv=np.int64(2), **options)
    settings = json.loads(json.dumps(found.to_dict()))["settings"]
    assert (settings["k"], settings["test_size"], settings["max_predicted"]) == (2, 0.25, 2)


# Errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parts": ["map"]}, r"`parts` must contain some of 'retrieval', 'knn', 'linear', got \['map'\]"),
        ({"parts": "knn"}, "`parts` must contain some of .* got 'knn'"),
        ({"parts": []}, r"`parts` must contain some of .* got \[\]"),
        ({"metric": "l2"}, "`metric` must be one of 'euclidean', 'cosine', got 'l2'"),
        ({"k": 0}, "`k` must be at least 1, got 0"),
        ({"n_neighbors": 0}, "`n_neighbors` must be at least 1, got 0"),
        ({"cv": 1}, "`cv` must be at least 2, got 1"),
        ({"cv": 64}, "`cv` must be at most the number of training rows, 63, got 64"),
        ({"n_splits": 0}, "`n_splits` must be at least 1, got 0"),
        ({"random_state": -1}, "`random_state` must be at least 0, got -1"),
        ({"test_size": 1.0}, "`test_size` must be above 0 and below 1, got 1.0"),
        ({"test_size": 0.001}, "enough rows for a training part and a test part with `test_size=0.001`, got 90"),
        ({"max_predicted": 0}, "`max_predicted` must be above 0, got 0"),
        ({"confidence_level": 1}, "`confidence_level` must be above 0 and below 1, got 1"),
        ({"n_resamples": 0}, "`n_resamples` must be at least 1, got 0"),
        ({"C": [0.1, 0]}, r"`C` must be a number above 0, or several, got \[0.1, 0\]"),
    ],
)
def test_option_out_of_range_is_an_error(train_rows, options, message):
    with pytest.raises(ValueError, match=message):
        evaluate_embeddings(*train_rows, **options)


@pytest.mark.parametrize("name", ["n_neighbors", "cv", "n_splits", "random_state", "k"])
def test_number_that_is_no_integer_is_an_error(train_rows, name):
    with pytest.raises(TypeError, match=f"`{name}` must be an integer, got 2.5"):
        evaluate_embeddings(*train_rows, **{name: 2.5})


X, Y = random_rows(6)
NAN, ZERO = X.copy(), X.copy()
NAN[2, 1], ZERO[4] = math.nan, 0


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ((X, Y, X), ValueError, "must be passed together, .* got `ref_embeddings` without `ref_labels`"),
        ((X, Y, None, Y), ValueError, "must be passed together, .* got `ref_labels` without `ref_embeddings`"),
        ((X, Y, X[:, :3], Y), ValueError, "`embeddings` and `ref_embeddings` must have the same .* got 5 and 3"),
        (
            (X, Y, X, Y[:, :2]),
            ValueError,
            "`labels` and `ref_labels` must have the same number of columns, got 4 and 2",
        ),
        ((X, Y[:5]), ValueError, "`embeddings` and `labels` must have the same number of rows, got 6 and 5"),
        ((X, Y, X, Y[:5]), ValueError, "`ref_embeddings` and `ref_labels` must have the same .* got 6 and 5"),
        ((X[0], Y), ValueError, r"`embeddings` must have shape \(N, D\) with N and D above 0, got \(5,\)"),
        ((X * 1e200, Y), ValueError, "`embeddings` must contain numbers of at most 1e.15, .* got .*e.200"),
        ((NAN, Y), ValueError, "`embeddings` must be finite, got nan at row 2, column 1"),
        ((X, Y, NAN, Y), ValueError, "`ref_embeddings` must be finite, got nan at row 2, column 1"),
        (([["a"]], Y), TypeError, "`embeddings` must contain real numbers"),
        ((X, Y / 2), ValueError, "`labels` must contain 0 and 1 only, got 0.5. .* `labels >= 0.5`"),
        ((X, Y, X, Y / 2), ValueError, "`ref_labels` must contain 0 and 1 only, got 0.5"),
        ((X, 0 * Y), ValueError, r"`labels` must contain at least one positive, got none in shape \(6, 4\)"),
        ((X, Y[:, 0]), ValueError, r"`labels` must be a 2-D .* got shape \(6,\)"),
        ((X, 2 * Y), ValueError, r"`labels` must .*2"),
        (([X, X[:, :2]], Y), ValueError, r"parts of `embeddings` must have the same number of columns, got \[5, 2\]"),
        ((X, [Y[:3], Y[3:, :2]]), ValueError, "parts of `labels` must have the same columns"),
        (("rows.csv", Y), ValueError, "`embeddings` must be an .npy or .npz file if it is a path, got 'rows.csv'"),
        (("absent.npy", Y), FileNotFoundError, "`embeddings` cannot be read from 'absent.npy'"),
    ],
)
def test_rows_that_do_not_fit_are_an_error(rows, error, message):
    with pytest.raises(error, match=message):
        evaluate_embeddings(*rows, **QUICK)


def test_split_without_positives_in_the_training_part_is_an_error():
    labels = np.zeros((20, 2))
    labels[3, 0] = 1
    with pytest.raises(ValueError, match="`labels` must contain a positive in the training part of each split"):
        evaluate_embeddings(random_rows(20)[0], labels, test_size=0.8, cv=2, **{**QUICK, "parts": ["linear"]})


def test_zero_row_is_an_error_with_cosine():
    with pytest.raises(ValueError, match=r"`embeddings` must contain no zero row .* at row 4"):
        evaluate_embeddings(ZERO, Y, metric="cosine")
    with pytest.raises(ValueError, match=r"`ref_embeddings` must contain no zero row .* at row 4"):
        evaluate_embeddings(X, Y, ZERO, Y, metric="cosine")


def test_other_columns_of_a_frame_are_an_error():
    frames = pd.DataFrame(Y, columns=NAMES), pd.DataFrame(Y, columns=[*NAMES[:3], "angry"])
    with pytest.raises(ValueError, match="must have the same label names, got 'angry' in one of them only"):
        evaluate_embeddings(X, frames[0], X, frames[1])


def test_file_with_several_other_arrays_is_an_error(tmp_path):
    np.savez(tmp_path / "rows.npz", a=X, b=Y)
    with pytest.raises(
        ValueError, match=r"must contain one array, or one that is named 'embeddings', got \['a', 'b'\]"
    ):
        evaluate_embeddings(tmp_path / "rows.npz", Y)


def test_file_that_is_no_array_is_an_error(tmp_path):
    (tmp_path / "rows.npy").write_text("text")
    with pytest.raises(ValueError, match=r"`embeddings` cannot be read from '.*rows.npy'"):
        evaluate_embeddings(tmp_path / "rows.npy", Y)


def test_map_of_the_linear_probe_is_that_of_its_scores(test_rows, train_rows):
    rows = Rows(*(torch.from_numpy(part).float() for part in train_rows))
    queries, labels = (torch.from_numpy(part).float() for part in test_rows)
    probe = fit_linear_probe(queries, rows, strengths=(0.1,), cv=2, max_predicted=1.5, seed=3)
    found = evaluate_embeddings(queries, labels, *rows, parts=["linear"], C=0.1, cv=2, random_state=3)
    assert found.values["linear_map"] == mean_average_precision(probe.scores, labels).item()
