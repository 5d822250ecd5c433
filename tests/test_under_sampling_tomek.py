import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from imblearn.under_sampling import TomekLinks

from mlmetric.under_sampling import MultiLabelTomekLinks

# On small random data MeanIR often increases a little; other tests check the warnings.
pytestmark = pytest.mark.filterwarnings(r"ignore:\w+ (removed|raised) :UserWarning")

properties = settings(max_examples=50, deadline=None)
label_matrices = hnp.arrays(
    np.int64, st.tuples(st.integers(3, 25), st.integers(1, 4)), elements=st.integers(0, 1), fill=st.nothing()
)

# On a line, with the nearest other row in brackets. Counts 6, 3, 1; IRLbl 1, 2, 6; MeanIR 3; SCUMBLE 0.033 and so
# the automatic threshold 1 / sqrt(3) = 0.58 > 0.5 -> 0.5. Majority labels 0 and 1, minority label 2.
LINE = np.array([[0.0], [1.0], [10.0], [11.0], [20.0], [20.5], [30.0], [30.2], [40.0]])
LINE_LABELS = np.array(
    [
        [1, 0, 0],  # 0 (1): Jaccard 0
        [1, 0, 0],  # 1 (0): 0
        [1, 1, 0],  # 2 (3): 1/2
        [1, 0, 0],  # 3 (2): 1/2
        [1, 0, 0],  # 4 (5): 1
        [0, 1, 0],  # 5 (4): 1
        [0, 0, 1],  # 6 (7): 1
        [1, 1, 0],  # 7 (6): 1
        [0, 0, 0],  # 8 (7): 1
    ]
)


@pytest.mark.parametrize(
    ("parameters", "removed"),
    [
        ({}, [4, 5, 7]),
        ({"mode": "cleaning"}, [4, 5, 6, 7, 8]),
        ({"mode": "cleaning", "mutual": True}, [4, 5, 6, 7]),
        ({"mode": "cleaning", "protect_minority": True}, [4, 5, 7, 8]),
        ({"threshold": 0.49}, [2, 3, 4, 5, 7]),
        ({"threshold": 1.0}, []),
        ({"label_distance": "dice", "threshold": 0.33}, [2, 3, 4, 5, 7]),  # 1 - 2 / 3 between rows 2 and 3
        ({"label_distance": "dice", "threshold": 0.34}, [4, 5, 7]),
        ({"label_distance": "hamming", "threshold": 0.5}, [4, 5, 7]),  # 1/3, 2/3 and, between 6 and 7, 1
        ({"label_distance": "hamming", "threshold": 2 / 3}, [7]),
    ],
)
def test_tomek_links_match_values_computed_by_hand(parameters, removed):
    sampler = MultiLabelTomekLinks(**parameters)
    X_actual, y_actual = sampler.fit_resample(LINE, LINE_LABELS)
    kept = np.setdiff1d(np.arange(9), removed)
    assert sampler.sample_indices_.tolist() == kept.tolist()
    np.testing.assert_array_equal(X_actual, LINE[kept])
    np.testing.assert_array_equal(y_actual, LINE_LABELS[kept])
    assert sampler.removed_per_label_.tolist() == LINE_LABELS[removed].sum(axis=0).tolist()
    assert sampler.mean_ir_before_ == 3


def label_distance_by_sets(first, second, kind, num_labels):
    differing = len(first ^ second)
    size = {"jaccard": len(first | second), "dice": len(first) + len(second), "hamming": num_labels}[kind]
    return differing / size if differing else 0.0


@given(
    label_matrices,
    st.data(),
    st.sampled_from(["jaccard", "dice", "hamming"]),
    st.sampled_from([0.0, 0.25, 0.5]),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["undersampling", "cleaning"]),
)
@properties
def test_tomek_links_match_a_loop_from_the_specification(y, data, kind, threshold, mutual, protect, mode):
    n, num_labels = y.shape
    X = data.draw(hnp.arrays(np.int64, (n, 2), elements=st.integers(0, 4)))
    nearest = [min((((X[i] - X[j]) ** 2).sum(), j) for j in range(n) if j != i)[1] for i in range(n)]
    counts = y.sum(axis=0)
    ratios = {label: counts.max() / counts[label] for label in range(num_labels) if counts[label]}
    mean = sum(ratios.values()) / len(ratios) if ratios else None
    majority = {label for label, ratio in ratios.items() if ratio < mean - 1e-9}
    minority = {label for label, ratio in ratios.items() if ratio > mean + 1e-9}
    sets = [set(np.flatnonzero(row).tolist()) for row in y]
    kept = []
    for i in range(n):
        removed = label_distance_by_sets(sets[i], sets[nearest[i]], kind, num_labels) > threshold
        removed = removed and (mode == "cleaning" or bool(sets[i] & majority))
        removed = removed and (not mutual or nearest[nearest[i]] == i)
        if not removed or (protect and sets[i] & minority):
            kept.append(i)
    sampler = MultiLabelTomekLinks(
        mode=mode, threshold=threshold, mutual=mutual, protect_minority=protect, label_distance=kind
    )
    if not kept:
        with pytest.raises(ValueError, match=f"all {n} rows"):
            sampler.fit_resample(X, y)
        return
    sampler.fit_resample(X, y)
    assert sampler.sample_indices_.tolist() == kept


@pytest.mark.parametrize("num_classes", [2, 4])
def test_mutual_links_between_classes_are_those_of_imblearn(num_classes):
    rng = np.random.default_rng(num_classes)
    X, y = rng.normal(size=(300, 3)), rng.integers(0, num_classes, size=300)
    expected = TomekLinks(sampling_strategy="all")
    X_expected, y_expected = expected.fit_resample(X, y)
    actual = MultiLabelTomekLinks(mode="cleaning", mutual=True)
    X_actual, y_actual = actual.fit_resample(X, y)
    assert len(X_actual) < 300
    np.testing.assert_array_equal(X_actual, X_expected)
    np.testing.assert_array_equal(y_actual, y_expected)


def test_mutual_undersampling_of_two_classes_is_that_of_imblearn():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(300, 3)), (rng.random(300) < 0.3).astype(int)
    expected = TomekLinks().fit_resample(X, y)
    actual = MultiLabelTomekLinks(mutual=True).fit_resample(X, y)
    for ours, theirs in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_duplicates_with_different_labels_are_a_link():
    X = np.array([[0.0], [0.0], [5.0], [6.0], [5.2]])
    y = np.array([[1, 0], [0, 1], [1, 0], [1, 0], [1, 0]])
    sampler = MultiLabelTomekLinks(mutual=True)
    sampler.fit_resample(X, y)
    assert sampler.sample_indices_.tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("counts", "rows_of_both", "expected"),
    [
        ((10, 10), 0, 0.5),  # MeanIR 1: 1
        ((13, 2), 0, 0.5),  # MeanIR 3.75: 0.516
        ((14, 2), 0, 0.3),  # MeanIR 4, 0.5 is not above 0.5
        ((38, 2), 0, 0.3),  # MeanIR 10: 0.316
        ((44, 2), 0, 0.15),  # MeanIR 11.5: 0.295
        ((11, 1), 1, 0.3),  # MeanIR 6, SCUMBLE 1 row in 11 of 0.447
        ((22, 3, 6), 0, 0.3),  # MeanIR 4, slightly less in floating point: 0.5 is not above 0.5
    ],
)
def test_automatic_threshold_depends_on_mean_ir(counts, rows_of_both, expected):
    y = np.zeros((sum(counts) - rows_of_both, len(counts)), dtype=int)
    ends = np.cumsum(counts) - rows_of_both * np.arange(len(counts))
    for label, (end, count) in enumerate(zip(ends, counts, strict=True)):
        y[end - count : end, label] = 1
    sampler = MultiLabelTomekLinks()
    sampler.fit_resample(np.arange(len(y), dtype=float).reshape(-1, 1) ** 2, y)
    assert sampler.threshold_ == expected


def test_automatic_threshold_is_a_half_if_rare_and_frequent_labels_co_occur():
    # Each row but the last pairs label 0 with a label of its own: IRLbl 1, 40, 40, ...; 1 / sqrt(MeanIR) is 0.16.
    y = np.eye(40, 40, k=1, dtype=int)
    y[:, 0] = 1
    sampler = MultiLabelTomekLinks()
    sampler.fit_resample(np.arange(40.0).reshape(-1, 1), y)
    assert sampler.threshold_ == 0.5


def test_row_with_label_distance_equal_to_the_threshold_is_kept():
    # 3 of 10 labels differ; 1 - 7 / 10 is above 0.3 in floating point.
    y = np.ones((2, 10), dtype=int)
    y[0, 7:] = 0
    sampler = MultiLabelTomekLinks(mode="cleaning", threshold=0.3)
    sampler.fit_resample([[0.0], [1.0]], y)
    assert sampler.sample_indices_.tolist() == [0, 1]


def test_tomek_links_warn_if_more_than_half_of_the_rows_are_removed():
    X = [[0.0], [1.0], [10.0], [11.0], [20.0], [21.0], [22.0]]
    y = [[1, 0], [0, 1], [1, 0], [0, 1], [1, 1], [1, 1], [1, 1]]
    with pytest.warns(UserWarning, match="MultiLabelTomekLinks removed 4 of 7 rows, more than half"):
        MultiLabelTomekLinks(mode="cleaning").fit_resample(X, y)


def test_tomek_links_do_not_warn_if_exactly_half_of_the_rows_are_removed(recwarn):
    X = [[0.0], [1.0], [20.0], [21.0]]
    y = [[1, 0], [0, 1], [1, 1], [1, 1]]
    sampler = MultiLabelTomekLinks(mode="cleaning")
    sampler.fit_resample(X, y)
    assert sampler.sample_indices_.tolist() == [2, 3]
    assert not recwarn.list


def test_tomek_links_warn_if_a_label_lost_all_positives():
    X = [[0.0], [1.0], [10.0], [11.0], [20.0]]
    y = [[1, 0, 0], [0, 0, 1], [1, 1, 0], [1, 1, 0], [1, 1, 0]]
    with pytest.warns(UserWarning, match=r"MultiLabelTomekLinks removed all positives of labels \[2\]"):
        MultiLabelTomekLinks(mode="cleaning").fit_resample(X, y)


def test_tomek_links_warn_if_mean_ir_increased():
    # Removing the link of rows 6 and 7 takes one of seven positives of label 0 and one of two of label 1.
    X = np.array([[0.0], [1.0], [10.0], [11.0], [20.0], [21.0], [30.0], [30.4]])
    y = np.array([[1, 0], [1, 0], [1, 0], [1, 0], [1, 0], [1, 1], [1, 0], [0, 1]])
    sampler = MultiLabelTomekLinks(mode="cleaning", threshold=0.9)
    with pytest.warns(UserWarning, match=r"MultiLabelTomekLinks raised MeanIR from 2\.25 to 3\.5") as caught:
        sampler.fit_resample(X, y)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert sampler.mean_ir_after_ > sampler.mean_ir_before_


def test_tomek_links_do_not_warn_if_no_statistic_became_worse(recwarn):
    sampler = MultiLabelTomekLinks()
    sampler.fit_resample(LINE, LINE_LABELS)
    assert sampler.mean_ir_after_ == sampler.mean_ir_before_ == 3
    assert not recwarn.list


def test_tomek_links_that_would_remove_every_row_raise():
    with pytest.raises(ValueError, match="MultiLabelTomekLinks would remove all 2 rows"):
        MultiLabelTomekLinks(mode="cleaning").fit_resample([[0.0], [1.0]], [[1, 0], [0, 1]])


def test_tomek_links_of_one_row_raise():
    with pytest.raises(
        ValueError, match=r"MultiLabelTomekLinks requires at least 2 rows for 1 neighbours .* got 1 rows"
    ):
        MultiLabelTomekLinks().fit_resample([[0.0]], [[1, 0]])


@pytest.mark.parametrize(
    "parameters", [{"mode": "clean"}, {"threshold": 1.5}, {"mutual": "yes"}, {"label_distance": "cosine"}]
)
def test_tomek_links_with_a_parameter_out_of_range_raise(parameters):
    name, value = next(iter(parameters.items()))
    with pytest.raises(ValueError, match=f"The '{name}' parameter of MultiLabelTomekLinks must be .* Got {value!r}"):
        MultiLabelTomekLinks(**parameters).fit_resample(LINE, LINE_LABELS)
