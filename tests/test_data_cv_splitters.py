"""Stratified cross-validation: folds of equal size, labels within one of their share, scikit-learn's rules."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    RandomizedSearchCV,
    ShuffleSplit,
    check_cv,
    cross_val_predict,
    cross_val_score,
)
from sklearn.neighbors import KNeighborsClassifier

from mlmetric.data import MultiLabelStratifiedKFold, MultiLabelStratifiedShuffleSplit, _label_balance
from mlmetric.data._label_balance import balance_labels
from mlmetric.data._stratification import multi_hot_rows, stratify


def random_labels(seed, num_rows, num_labels, density):
    return (np.random.default_rng(seed).random((num_rows, num_labels)) < density).astype(np.int64)


def zipf_labels(num_rows, num_labels, mean_labels=4, seed=0):
    share = 1 / np.arange(1, num_labels + 1)
    share = np.minimum(share / share.sum() * mean_labels, 0.9)
    return random_labels(seed, num_rows, num_labels, share)


def folds_of(splitter, labels):
    return [test for _, test in splitter.split(np.zeros((len(labels), 1)), labels)]


def counts_in(labels, folds):
    return np.stack([labels[fold].sum(axis=0) for fold in folds])


def share_outside(labels, folds):
    """Share of pairs of fold and label whose count is farther than one from its share."""
    return (np.abs(counts_in(labels, folds) - labels.sum(axis=0) / len(folds)) > 1 + 1e-9).mean()


def label_distribution(labels, folds):
    """Measure LD of Sechidis et al.: mean difference of the odds of a label in a fold from those in all rows."""
    positive = counts_in(labels, folds)
    negative = np.array([len(fold) for fold in folds])[:, None] - positive
    total = labels.sum(axis=0)
    return np.abs(positive / negative - total / (len(labels) - total)).mean()


def examples_distribution(labels, folds):
    """Measure ED of Sechidis et al.: mean difference of the size of a fold from that of equal folds."""
    return np.mean([abs(len(fold) - len(labels) / len(folds)) for fold in folds])


def iterative_stratification(labels, num_folds, seed=0):
    """Algorithm 1 of Sechidis et al., as published."""
    rng = np.random.default_rng(seed)
    rows_wanted = np.full(num_folds, len(labels) / num_folds)
    wanted = np.tile(labels.sum(axis=0) / num_folds, (num_folds, 1))
    fold_of = np.full(len(labels), -1)
    while (fold_of < 0).any():
        remaining = labels[fold_of < 0].sum(axis=0)
        if not remaining.any():
            break
        label = np.where(remaining > 0, remaining, len(labels) + 1).argmin()
        for row in np.flatnonzero((fold_of < 0) & (labels[:, label] == 1)):
            order = np.lexsort((rng.random(num_folds), -rows_wanted, -wanted[:, label]))
            fold_of[row] = order[0]
            wanted[order[0]] -= labels[row]
            rows_wanted[order[0]] -= 1
    for row in np.flatnonzero(fold_of < 0):
        fold_of[row] = rows_wanted.argmax()
        rows_wanted[fold_of[row]] -= 1
    return [np.flatnonzero(fold_of == fold) for fold in range(num_folds)]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    num_rows=st.integers(2, 60),
    num_labels=st.integers(0, 12),
    density=st.floats(0, 1),
    num_folds=st.integers(2, 6),
    shuffle=st.booleans(),
)
def test_folds_partition_the_rows_and_differ_in_size_by_one_at_most(
    seed, num_rows, num_labels, density, num_folds, shuffle
):
    labels = random_labels(seed, num_rows, num_labels, density)
    splitter = MultiLabelStratifiedKFold(min(num_folds, num_rows), shuffle=shuffle)
    folds = []
    for train, test in splitter.split(np.zeros((num_rows, 1)), labels):
        assert np.array_equal(np.sort(np.concatenate([train, test])), np.arange(num_rows))
        folds.append(test)
    assert np.array_equal(np.sort(np.concatenate(folds)), np.arange(num_rows))
    sizes = [len(fold) for fold in folds]
    assert max(sizes) - min(sizes) <= 1
    assert len(folds) == splitter.get_n_splits()


def least_excess(labels, num_folds):
    """Try all assignments to folds of equal size; return the least sum of distances to the limits."""
    sizes = np.full(num_folds, len(labels) // num_folds)
    sizes[: len(labels) % num_folds] += 1
    assignments = np.array(list(itertools.product(range(num_folds), repeat=len(labels))))
    in_fold = assignments[:, None] == np.arange(num_folds)[:, None]
    in_fold = in_fold[(in_fold.sum(axis=2) == sizes).all(axis=1)]
    distances = np.abs(in_fold @ labels - labels.sum(axis=0) / num_folds)
    return np.maximum(distances - 1, 0).sum(axis=(1, 2)).min()


@pytest.mark.parametrize("num_folds", [2, 3])
def test_folds_of_few_rows_are_within_one_in_nearly_all_cases_where_an_assignment_is(num_folds):
    rng = np.random.default_rng(0)
    num_within = num_possible = 0
    for seed in range(40):
        num_rows = int(rng.integers(num_folds, 9 if num_folds == 2 else 8))
        labels = random_labels(seed, num_rows, int(rng.integers(2, 25)), rng.uniform(0.15, 0.8))
        num_possible += least_excess(labels, num_folds) < 1e-6
        num_within += share_outside(labels, folds_of(MultiLabelStratifiedKFold(num_folds), labels)) == 0
    assert num_possible >= 30
    assert num_possible - num_within <= 1


def test_folds_of_five_rows_with_all_triples_as_labels_cannot_be_within_one():
    labels = np.array([[row in triple for triple in itertools.combinations(range(5), 3)] for row in range(5)]).astype(
        int
    )
    assert least_excess(labels, 2) == pytest.approx(0.5 * 2)
    counts = counts_in(labels, folds_of(MultiLabelStratifiedKFold(2), labels))
    assert np.abs(counts - 1.5).max() == 1.5
    assert (np.abs(counts - 1.5) > 1).sum() == 2  # the one label with three rows in one fold and none in the other


@pytest.mark.parametrize("num_folds", [3, 5, 10])
@pytest.mark.parametrize(
    "labels",
    [zipf_labels(600, 50), zipf_labels(300, 600), random_labels(0, 500, 12, 0.4), random_labels(1, 601, 20, 0.3)],
    ids=["zipf", "more labels than rows", "frequent", "odd"],
)
def test_folds_have_each_label_within_one_of_its_share(labels, num_folds):
    for splitter in (MultiLabelStratifiedKFold(num_folds), MultiLabelStratifiedKFold(num_folds, shuffle=True)):
        assert share_outside(labels, folds_of(splitter, labels)) == 0


def test_folds_of_single_labels_have_each_label_within_one_row_of_the_others():
    labels = np.eye(4, dtype=int)[np.repeat(np.arange(4), [3, 10, 11, 40])]
    counts = counts_in(labels, folds_of(MultiLabelStratifiedKFold(5), labels))
    assert (counts.max(axis=0) - counts.min(axis=0)).tolist() == [1, 0, 1, 0]


def test_folds_are_closer_to_all_rows_than_those_of_published_iterative_stratification():
    labels = random_labels(0, 1000, 15, 0.5 / np.arange(1, 16))
    labels[:, 1] |= labels[:, 0]  # labels that occur together
    folds = folds_of(MultiLabelStratifiedKFold(10), labels)
    published = iterative_stratification(labels, 10)
    random = folds_of(KFold(10, shuffle=True, random_state=0), labels)
    assert label_distribution(labels, folds) < label_distribution(labels, published)
    assert label_distribution(labels, folds) < 0.25 * label_distribution(labels, random)
    assert examples_distribution(labels, folds) == 0 <= examples_distribution(labels, published)


def test_balance_lowers_the_number_of_counts_outside_and_keeps_sizes():
    labels = random_labels(3, 400, 20, 0.4)
    rows = multi_hot_rows(labels, "labels")
    sizes = np.full(8, 50)
    greedy = stratify(rows, sizes, generator=None)
    shares = np.tile(labels.sum(axis=0) / 8, (8, 1))
    balanced = balance_labels(rows, greedy, shares)
    before, after = (
        share_outside(labels, [np.flatnonzero(part_of == part) for part in range(8)]) for part_of in (greedy, balanced)
    )
    assert before > 0 == after
    assert np.bincount(balanced).tolist() == sizes.tolist()


def test_balance_ends_where_no_assignment_is_within_one(monkeypatch):
    monkeypatch.setattr(_label_balance, "_MAX_STEPS", 30)
    labels = random_labels(0, 60, 400, 0.5)
    folds = folds_of(MultiLabelStratifiedKFold(5), labels)
    assert share_outside(labels, folds) > 0
    assert [len(fold) for fold in folds] == [12] * 5


def test_kfold_without_shuffle_is_the_same_each_time_and_shuffles_by_its_random_state():
    labels = zipf_labels(200, 20)

    def folds(**settings):
        return [fold.tolist() for fold in folds_of(MultiLabelStratifiedKFold(4, **settings), labels)]

    assert folds() == folds()
    assert folds(shuffle=True, random_state=1) == folds(shuffle=True, random_state=1)
    assert folds(shuffle=True, random_state=1) != folds(shuffle=True, random_state=2)
    assert folds(shuffle=True) != folds(shuffle=True)
    states = [np.random.RandomState(3) for _ in range(2)]
    assert folds(shuffle=True, random_state=states[0]) == folds(shuffle=True, random_state=states[1])
    np.random.seed(0)  # noqa: NPY002
    first = folds(shuffle=True)
    np.random.seed(0)  # noqa: NPY002
    assert folds(shuffle=True) == first


@pytest.mark.parametrize(
    "arguments",
    [
        {"n_splits": 1},
        {"n_splits": 2.5},
        {"n_splits": 3, "random_state": 0},
        {"n_splits": 3, "shuffle": 1},
    ],
)
def test_kfold_raises_for_arguments_what_scikit_learn_does(arguments):
    with pytest.raises((TypeError, ValueError)) as expected:
        KFold(**arguments)
    with pytest.raises(type(expected.value)) as raised:
        MultiLabelStratifiedKFold(**arguments)
    assert str(raised.value) == str(expected.value)


def test_kfold_raises_for_too_few_rows_and_for_other_lengths_what_scikit_learn_does():
    for X, y in ((np.zeros((3, 1)), np.ones((3, 2))), (np.zeros((6, 1)), np.ones((5, 2)))):
        with pytest.raises(ValueError, match="number") as expected:
            next(KFold(5).split(X, y))
        with pytest.raises(ValueError, match="number") as raised:
            next(MultiLabelStratifiedKFold(5).split(X, y))
        assert str(raised.value) == str(expected.value)


def test_splitters_warn_that_groups_are_ignored():
    labels = random_labels(0, 20, 3, 0.5)
    for splitter in (MultiLabelStratifiedKFold(2), MultiLabelStratifiedShuffleSplit(2)):
        with pytest.warns(UserWarning, match=f"groups parameter is ignored by {type(splitter).__name__}"):
            list(splitter.split(labels, labels, np.arange(20)))


@pytest.mark.parametrize(
    ("splitter", "name"),
    [(MultiLabelStratifiedKFold(2), "StratifiedKFold"), (MultiLabelStratifiedShuffleSplit(), "StratifiedShuffleSplit")],
)
def test_splitters_raise_for_labels_of_one_dimension_and_name_the_class_for_them(splitter, name):
    for y in (np.array([0, 1, 2, 1]), [0, 1, 2, 1], torch.tensor([0, 1, 2, 1]), list("abba"), pd.Series([0, 1, 2, 1])):
        with pytest.raises(
            ValueError, match=rf"shape \(4,\). For one class per row, use `sklearn.model_selection.{name}`"
        ):
            next(splitter.split(np.zeros((4, 1)), y))
    with pytest.raises(ValueError, match=r"must be a label matrix of shape \(N, L\), got None"):
        next(splitter.split(np.zeros((4, 1)), None))
    with pytest.raises(ValueError, match="must be multi-hot, 0 or 1, got soft labels"):
        next(splitter.split(np.zeros((4, 1)), np.full((4, 2), 0.5)))
    with pytest.raises(TypeError, match="MultiLabelBinarizer"):
        next(splitter.split(np.zeros((4, 1)), [["sea"], ["sea", "sun"], [], ["sun"]]))


@pytest.mark.parametrize(
    "splitter",
    [MultiLabelStratifiedKFold(3), MultiLabelStratifiedShuffleSplit(3, random_state=0)],
    ids=["k", "shuffle"],
)
@pytest.mark.parametrize(
    "kind",
    [
        np.ndarray.tolist,
        torch.from_numpy,
        lambda y: torch.from_numpy(y).to_sparse(),
        lambda y: y.astype(np.float16),
        lambda y: y.astype(bool),
        sparse.csr_array,
        sparse.coo_matrix,
        lambda y: sparse.csr_array(y.astype(float)),
        pd.DataFrame,
        lambda y: pd.DataFrame(y).astype("Int64"),
    ],
    ids=["list", "tensor", "sparse tensor", "half", "bool", "csr", "coo", "sparse floats", "frame", "nullable frame"],
)
def test_splitters_take_labels_of_all_kinds(kind, splitter):
    labels = random_labels(0, 30, 4, 0.4)
    X = np.zeros((30, 1))
    for (train, test), (other_train, other_test) in zip(
        splitter.split(X, labels), splitter.split(X, kind(labels)), strict=True
    ):
        assert np.array_equal(train, other_train)
        assert np.array_equal(test, other_test)


def test_sparse_labels_with_explicit_zeros_and_duplicates_are_left_as_they_are():
    y = sparse.coo_array(([1, 0, 1], ([0, 1, 2], [0, 0, 1])), shape=(4, 2)).tocsr()
    list(MultiLabelStratifiedKFold(2).split(y, y))
    assert y.nnz == 3


def test_splitters_show_their_parameters():
    shown = repr(MultiLabelStratifiedKFold(3))
    assert shown == "MultiLabelStratifiedKFold(n_splits=3, random_state=None, shuffle=False)"
    shown = repr(MultiLabelStratifiedShuffleSplit(3, test_size=0.2, random_state=1))
    assert shown.split() == (
        ["MultiLabelStratifiedShuffleSplit(n_splits=3,", "random_state=1,", "test_size=0.2,", "train_size=None)"]
    )


@pytest.mark.parametrize(
    "splitter", [MultiLabelStratifiedKFold(3), MultiLabelStratifiedShuffleSplit(3, test_size=0.3, random_state=0)]
)
def test_scikit_learn_takes_the_splitters(splitter):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 4)), random_labels(0, 60, 5, 0.4)
    assert check_cv(splitter, y) is splitter
    model = KNeighborsClassifier()
    assert cross_val_score(model, X, y, cv=splitter).shape == (3,)
    for search in (
        GridSearchCV(model, {"n_neighbors": [1, 3]}, cv=splitter),
        RandomizedSearchCV(model, {"n_neighbors": [1, 3]}, n_iter=2, cv=splitter, random_state=0),
    ):
        assert search.fit(X, y).best_params_["n_neighbors"] in (1, 3)
    if isinstance(splitter, MultiLabelStratifiedKFold):
        assert cross_val_predict(model, X, y, cv=splitter).shape == y.shape


@pytest.mark.parametrize(
    "sizes",
    [{}, {"test_size": 0.25}, {"test_size": 7}, {"train_size": 0.6}, {"test_size": 10, "train_size": 20}],
)
def test_shuffle_split_has_the_sizes_of_scikit_learn_and_labels_within_one_of_their_share(sizes):
    labels = zipf_labels(203, 30)
    expected = [(len(train), len(test)) for train, test in ShuffleSplit(4, **sizes, random_state=0).split(labels)]
    splitter = MultiLabelStratifiedShuffleSplit(4, **sizes, random_state=0)
    assert splitter.get_n_splits(labels, labels) == 4
    found = list(splitter.split(labels, labels))
    assert [(len(train), len(test)) for train, test in found] == expected
    for train, test in found:
        assert not set(train) & set(test)
        for part in (train, test):
            assert np.abs(labels[part].sum(axis=0) - labels.sum(axis=0) * len(part) / 203).max() <= 1 + 1e-9
    assert len({tuple(sorted(test)) for _, test in found}) == 4


def test_shuffle_split_repeats_with_its_random_state():
    labels = zipf_labels(100, 10)

    def splits(random_state):
        splitter = MultiLabelStratifiedShuffleSplit(2, random_state=random_state)
        return [(train.tolist(), test.tolist()) for train, test in splitter.split(labels, labels)]

    assert splits(0) == splits(0) == splits(np.random.RandomState(0))
    assert splits(0) != splits(1)
    assert splits(None) != splits(None)


@pytest.mark.parametrize("sizes", [{"test_size": 1.5}, {"test_size": 30}, {"train_size": 0.9, "test_size": 0.2}])
def test_shuffle_split_raises_for_sizes_what_scikit_learn_does(sizes):
    labels = random_labels(0, 20, 3, 0.5)
    with pytest.raises(ValueError, match="size") as expected:
        next(ShuffleSplit(**sizes).split(labels))
    with pytest.raises(ValueError, match="size") as raised:
        next(MultiLabelStratifiedShuffleSplit(**sizes).split(labels, labels))
    assert str(raised.value) == str(expected.value)
