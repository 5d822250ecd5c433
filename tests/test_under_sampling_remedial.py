from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mlmetric.imbalance import scumble
from mlmetric.under_sampling import REMEDIAL, RandomLabelUnderSampler

# On small random data SCUMBLE can increase; another test checks the warning.
pytestmark = pytest.mark.filterwarnings(r"ignore:\w+ (removed|raised) :UserWarning")

label_matrices = hnp.arrays(
    np.int64, st.tuples(st.integers(1, 15), st.integers(1, 4)), elements=st.integers(0, 1), fill=st.nothing()
)


def test_remedial_matches_values_computed_by_hand():
    # Counts 8, 4, 1, 1: IRLbl 1, 2, 8, 8; MeanIR 4.75; minority labels 2 and 3.
    # SCUMBLE: {0, 1} 1 - sqrt(2) / 1.5 = 0.06, {0, 2} 1 - sqrt(8) / 4.5 = 0.37, {1, 3} 1 - 4 / 5 = 0.2; mean 0.074.
    y = np.array(
        [[1, 0, 0, 0]] * 5 + [[1, 1, 0, 0]] * 2 + [[1, 0, 1, 0], [0, 1, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0]], dtype=int
    )
    X = np.arange(11).reshape(-1, 1)
    sampler = REMEDIAL()
    X_actual, y_actual = sampler.fit_resample(X, y)
    assert sampler.source_indices_.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 7, 8, 8, 9, 10]
    np.testing.assert_array_equal(X_actual, X[sampler.source_indices_])
    assert y_actual[:7].tolist() == y[:7].tolist()
    assert y_actual[7:].tolist() == [[0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert sampler.n_unsplit_rows_ == 0
    assert sampler.removed_per_label_.tolist() == [0, 0, 0, 0]
    assert sampler.mean_ir_after_ == sampler.mean_ir_before_ == 4.75
    assert sampler.scumble_before_ == scumble(y)
    assert sampler.scumble_after_ == scumble(y_actual) < sampler.scumble_before_


def test_row_above_the_mean_without_minority_label_is_not_split_but_counted():
    # Label 2 is the minority label; row 3 mixes labels 0 and 1 only.
    y = np.array([[1, 0, 0], [1, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [1, 0, 1]])
    sampler = REMEDIAL()
    _, y_actual = sampler.fit_resample(np.zeros((6, 1)), y)
    assert sampler.source_indices_.tolist() == [0, 1, 2, 3, 4, 5, 5]
    assert y_actual[3].tolist() == [1, 1, 0]
    assert sampler.n_unsplit_rows_ == 1


@given(label_matrices)
@settings(max_examples=80, deadline=None)
def test_remedial_matches_a_loop_from_the_specification(y):
    counts = [int(column.sum()) for column in y.T]
    ratios = [Fraction(max(counts), size) if size else None for size in counts]
    present = [ratio for ratio in ratios if ratio is not None]
    mean = sum(present) / len(present) if present else 0
    mixed = []
    for row in y:
        own = [float(ratios[label]) for label in np.flatnonzero(row)]
        mixed.append(1 - np.prod(own) ** (1 / len(own)) / np.mean(own) if own else 0.0)
    expected, source = [], []
    for i, row in enumerate(y):
        rare = [int(value and ratios[label] > mean) for label, value in enumerate(row)]
        rest = [int(value) - half for value, half in zip(row, rare, strict=True)]
        halves = [rare, rest] if mixed[i] > np.mean(mixed) + 1e-9 and any(rare) and any(rest) else [row.tolist()]
        expected += halves
        source += [i] * len(halves)
    sampler = REMEDIAL()
    X_actual, y_actual = sampler.fit_resample(np.arange(len(y)).reshape(-1, 1), y)
    assert sampler.source_indices_.tolist() == source == X_actual.ravel().tolist()
    assert y_actual.tolist() == expected


def test_remedial_warns_if_scumble_increased():
    # IRLbl 1, 4, 6, 6, 6; MeanIR 4.6. A row with all labels has 1 - 864^(1/5) / 4.6 = 0.16, its half {0, 1} has 0.2.
    y = np.array([[1, 1, 1, 1, 1]] * 2 + [[1, 0, 0, 0, 0]] * 10 + [[0, 1, 0, 0, 0]])
    with pytest.warns(UserWarning, match=r"REMEDIAL raised SCUMBLE from 0\.02454 to 0\.02667") as caught:
        REMEDIAL().fit_resample(np.zeros((13, 1)), y)
    assert caught[0].filename == __file__


def test_class_ids_are_not_split():
    X, y = REMEDIAL().fit_resample(np.arange(6).reshape(-1, 1), list("aaabbc"))
    assert y == list("aaabbc")
    assert len(X) == 6


def test_remedial_before_random_label_under_sampler_keeps_rare_labels():
    y = np.array([[1, 0]] * 12 + [[1, 1]] * 3 + [[0, 0]] * 3)
    X = np.zeros((18, 1))
    lost = {"alone": 0, "after splitting": 0}
    for seed in range(30):
        cap = RandomLabelUnderSampler(cap_ratio=0.6, random_state=seed)
        cap.fit_resample(X, y)
        lost["alone"] += cap.removed_per_label_[1]
        cap.fit_resample(*REMEDIAL().fit_resample(X, y))
        lost["after splitting"] += cap.removed_per_label_[1]
    assert lost["after splitting"] == 0 < lost["alone"]
