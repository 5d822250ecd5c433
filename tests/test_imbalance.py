import math
import sys
from fractions import Fraction
from functools import partial

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

from mlmetric import imbalance

mpl.use("Agg")

# Counts 6, 3, 2, 1, 0; IRLbl 1, 2, 3, 6, none; MeanIR 12 / 4 = 3.
TABLE = np.array(
    [
        [1, 1, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 0, 1, 0, 0],
        [1, 0, 0, 1, 0],
        [1, 0, 0, 0, 0],
        [1, 0, 0, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 0, 0, 0, 0],
    ]
)
NAN = math.nan

label_matrices = hnp.arrays(
    np.int64, st.tuples(st.integers(1, 12), st.integers(1, 5)), elements=st.integers(0, 1), fill=st.nothing()
)
properties = settings(max_examples=50, deadline=None)


def test_measures_match_values_computed_by_hand():
    np.testing.assert_array_equal(imbalance.ir_lbl(TABLE), [1, 2, 3, 6, NAN])
    assert imbalance.mean_ir(TABLE) == 3
    assert imbalance.cvir(TABLE) == pytest.approx(math.sqrt(14 / 3) / 3)  # deviations -2, -1, 0, 3
    assert imbalance.majority_labels(TABLE).tolist() == [True, True, False, False, False]
    assert imbalance.minority_labels(TABLE).tolist() == [False, False, False, True, False]
    rows = [
        1 - math.sqrt(2) / 1.5,
        1 - math.sqrt(2) / 1.5,
        1 - math.sqrt(3) / 2,
        1 - math.sqrt(6) / 3.5,
        0,
        0,
        1 - math.sqrt(6) / 2.5,
        0,
    ]
    np.testing.assert_allclose(imbalance.scumble_per_instance(TABLE), rows, atol=1e-15)
    assert imbalance.scumble(TABLE) == pytest.approx(sum(rows) / 8)
    per_label = [
        (rows[0] + rows[1] + rows[2] + rows[3]) / 6,
        (rows[0] + rows[1] + rows[6]) / 3,
        (rows[2] + rows[6]) / 2,
        rows[3],
        NAN,
    ]
    np.testing.assert_allclose(imbalance.scumble_per_label(TABLE), per_label)
    assert imbalance.tcs(TABLE, num_features=7) == pytest.approx(math.log(7 * 5 * 6))
    assert imbalance.label_cardinality(TABLE) == 12 / 8
    assert imbalance.label_density(TABLE) == 12 / 40


def ratios_by_loop(labels):
    counts = [sum(int(row[label]) for row in labels) for label in range(labels.shape[1])]
    return [Fraction(max(counts), count) if count else None for count in counts]


@given(label_matrices)
@properties
def test_ratios_and_groups_match_a_loop_in_fractions(labels):
    ratios = ratios_by_loop(labels)
    present = [ratio for ratio in ratios if ratio is not None]
    mean = sum(present) / len(present) if present else None
    np.testing.assert_allclose(imbalance.ir_lbl(labels), [NAN if ratio is None else float(ratio) for ratio in ratios])
    np.testing.assert_allclose(imbalance.mean_ir(labels), NAN if mean is None else float(mean))
    assert imbalance.majority_labels(labels).tolist() == [ratio is not None and ratio < mean for ratio in ratios]
    assert imbalance.minority_labels(labels).tolist() == [ratio is not None and ratio > mean for ratio in ratios]
    if len(present) > 1:
        variance = sum((ratio - mean) ** 2 for ratio in present) / (len(present) - 1)
        assert imbalance.cvir(labels) == pytest.approx(math.sqrt(variance) / float(mean), abs=1e-12)
    else:
        assert math.isnan(imbalance.cvir(labels))


@given(label_matrices)
@properties
def test_scumble_matches_a_loop_over_rows(labels):
    ratios = ratios_by_loop(labels)
    rows = []
    for row in labels:
        own = [float(ratio) for ratio, active in zip(ratios, row, strict=True) if active]
        mixed = len(set(own)) > 1
        rows.append(1 - math.prod(own) ** (1 / len(own)) / (sum(own) / len(own)) if mixed else 0.0)
    scores = imbalance.scumble_per_instance(labels)
    np.testing.assert_allclose(scores, rows, atol=1e-12)
    assert all(score == 0 for score, expected in zip(scores, rows, strict=True) if expected == 0)
    assert imbalance.scumble(labels) == pytest.approx(sum(rows) / len(rows), abs=1e-12)
    own_rows = [[rows[i] for i in range(len(rows)) if labels[i, label]] for label in range(labels.shape[1])]
    expected = [sum(scores) / len(scores) if scores else NAN for scores in own_rows]
    np.testing.assert_allclose(imbalance.scumble_per_label(labels), expected, atol=1e-12)


@given(label_matrices)
@properties
def test_size_measures_match_python_sets(labels):
    sets = [frozenset(np.flatnonzero(row).tolist()) for row in labels]
    assert imbalance.label_cardinality(labels) == pytest.approx(sum(map(len, sets)) / len(sets))
    assert imbalance.label_density(labels) == pytest.approx(sum(map(len, sets)) / len(sets) / labels.shape[1])
    expected = math.log(3 * labels.shape[1] * len(set(sets)))
    assert imbalance.tcs(labels, num_features=3) == pytest.approx(expected)


@pytest.mark.parametrize(
    "convert",
    [
        torch.tensor,
        lambda t: torch.tensor(t).bfloat16(),
        lambda t: torch.tensor(t, dtype=torch.float32, requires_grad=True),
        lambda t: t.astype(bool),
        lambda t: t.tolist(),
        sparse.csr_matrix,
        sparse.coo_array,
        pd.DataFrame,
        lambda t: pd.DataFrame(t).convert_dtypes(),
    ],
    ids=["tensor", "bfloat16", "grad", "bool", "list", "csr_matrix", "coo_array", "frame", "nullable frame"],
)
def test_labels_of_any_type_give_the_same_measures(convert):
    functions = [getattr(imbalance, name) for name in imbalance.__all__ if name not in ("ImbalanceReport", "tcs")]
    for function in [*functions, partial(imbalance.tcs, num_features=3)]:
        expected, actual = function(TABLE), function(convert(TABLE))
        if isinstance(expected, imbalance.ImbalanceReport):
            assert str(actual) == str(expected)
        else:
            np.testing.assert_array_equal(actual, expected)


def test_labels_without_positives_give_nan_and_no_majority_or_minority():
    labels = np.zeros((4, 3))
    assert np.isnan(imbalance.ir_lbl(labels)).all()
    assert math.isnan(imbalance.mean_ir(labels))
    assert math.isnan(imbalance.cvir(labels))
    assert not imbalance.majority_labels(labels).any()
    assert not imbalance.minority_labels(labels).any()
    assert imbalance.scumble(labels) == 0
    assert np.isnan(imbalance.scumble_per_label(labels)).all()


@pytest.mark.parametrize("counts", [(63, 35, 45), (88, 40, 55)])
def test_label_with_the_mean_ratio_is_neither_majority_nor_minority(counts):
    # The third ratio is the mean of the other two, so MeanIR is that too; in floating point it is off by a bit.
    labels = np.arange(counts[0])[:, None] < np.array(counts)
    assert imbalance.ir_lbl(labels)[2] != imbalance.mean_ir(labels)
    assert imbalance.majority_labels(labels).tolist() == [True, False, False]
    assert imbalance.minority_labels(labels).tolist() == [False, True, False]


def test_soft_labels_contribute_their_values():
    labels = torch.tensor([[1.0, 0.5], [0.5, 0.0], [0.5, 0.5]])
    np.testing.assert_array_equal(imbalance.ir_lbl(labels), [1, 2])
    assert imbalance.label_cardinality(labels) == 1


@pytest.mark.parametrize("name", ["scumble", "scumble_per_instance", "scumble_per_label"])
def test_measures_of_label_sets_raise_for_soft_labels(name):
    with pytest.raises(ValueError, match=r"`labels` must be multi-hot, got 0\.25 at row 1, label 0"):
        getattr(imbalance, name)(np.array([[1.0, 0.0], [0.25, 0.0]]))


@pytest.mark.parametrize("num_labels", [1, 7, 8, 9, 65])
def test_tcs_counts_the_distinct_label_sets_for_any_number_of_labels(num_labels):
    rng = np.random.default_rng(num_labels)
    rows = rng.integers(0, 2, (30, num_labels), dtype=np.uint8)
    labels = np.concatenate([rows, rows[::2], np.zeros((1, num_labels), dtype=np.uint8)])
    expected = math.log(3 * num_labels * len({tuple(row) for row in labels.tolist()}))
    assert imbalance.tcs(labels, num_features=3) == pytest.approx(expected)
    assert imbalance.imbalance_report(labels, num_features=3).tcs == pytest.approx(expected)


def test_tcs_without_features_raises():
    with pytest.raises(ValueError, match="`num_features` must be at least 1, got 0"):
        imbalance.tcs(TABLE, num_features=0)


def test_labels_of_a_wrong_type_or_shape_raise():
    with pytest.raises(TypeError, match=r"`labels` must contain numbers, 0 or 1 .*MultiLabelBinarizer"):
        imbalance.mean_ir([["sea", "sun"], ["sea"]])
    with pytest.raises(ValueError, match=r"got shape \(3,\)"):
        imbalance.mean_ir(np.ones(3))
    with pytest.raises(ValueError, match=r"at least one row and one label, got shape \(0, 3\)"):
        imbalance.label_cardinality(np.ones((0, 3)))
    with pytest.raises(ValueError, match=r"numbers in \[0, 1\], got 2 at row 0, label 1"):
        imbalance.ir_lbl(np.array([[1, 2]]))


# imbalance_report


def test_report_matches_values_computed_by_hand():
    # Counts 4, 2, 1, 0: IRLbl 1, 2, 4, none; MeanIR 7/3. Row 0 mixes 1 and 2, row 2 mixes 1 and 4.
    y = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
    report = imbalance.imbalance_report(y, label_names=list("abcd"), num_features=10)
    assert report.counts.tolist() == [4, 2, 1, 0]
    np.testing.assert_allclose(report.ir_lbl, [1, 2, 4, np.nan])
    mixed = 1 - np.sqrt(2) / 1.5, 1 - 2 / 2.5
    np.testing.assert_allclose(report.scumble_per_label, [(2 * mixed[0] + mixed[1]) / 4, mixed[0], mixed[1], np.nan])
    assert report.is_majority.tolist() == [True, True, False, False]
    assert report.is_minority.tolist() == [False, False, True, False]
    assert (report.num_rows, report.num_rows_without_label) == (5, 1)
    assert report.cardinality == pytest.approx(7 / 5)
    assert report.density == pytest.approx(7 / 20)
    assert report.mean_ir == pytest.approx(7 / 3)
    assert report.cvir == pytest.approx(np.std([1, 2, 4], ddof=1) / (7 / 3))
    assert report.scumble == pytest.approx((2 * mixed[0] + mixed[1]) / 5)
    assert report.tcs == pytest.approx(np.log(10 * 4 * 4))
    lines = str(report).splitlines()
    assert lines[0] == "5 rows (1 without a label), 4 labels, cardinality 1.40, density 0.350."
    assert lines[1] == "MeanIR 2.33, CVIR 0.65, SCUMBLE 0.063, TCS 5.08."
    assert lines[-2:] == [
        "| c     |       1 |    4.00 |      0.200 | minority |",
        "| d     |       0 |         |            | neither  |",
    ]
    assert len({len(line) for line in lines[3:]}) == 1
    assert repr(report) == (
        "ImbalanceReport(num_rows=5, num_labels=4, num_rows_without_label=1, cardinality=1.4, density=0.35, "
        "mean_ir=2.333, cvir=0.6547, scumble=0.06288, tcs=5.075)"
    )


def test_label_names_are_column_indices_by_default():
    report = imbalance.imbalance_report(sparse.csr_array(TABLE))
    assert report.label_names == [str(i) for i in range(TABLE.shape[1])]
    assert report.tcs is None
    assert "TCS" not in str(report)
    assert str(imbalance.imbalance_report(torch.from_numpy(TABLE))) == str(report)


def test_report_without_positives_can_be_printed_and_plotted():
    report = imbalance.imbalance_report(np.zeros((3, 2)))
    assert "MeanIR nan" in str(report)
    assert [bar.get_height() for bar in report.plot().patches] == [0, 0]


def test_plot_shows_counts_by_group_and_the_count_at_mean_ir():
    y = np.array([[1, 0, 0], [1, 1, 0], [1, 0, 0], [1, 1, 1]])[:, [2, 0, 1]]
    report = imbalance.imbalance_report(y, label_names=["rare", "frequent", "middling"])  # IRLbl 4, 1, 2: MeanIR 7/3
    _, axes = plt.subplots()
    assert report.plot(axes) is axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["frequent", "middling", "rare"]
    heights = {round(bar.get_x() + bar.get_width() / 2): bar.get_height() for bar in axes.patches}
    assert heights == {0: 4, 1: 2, 2: 1}
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["IRLbl = MeanIR", "majority", "minority"]
    assert axes.lines[0].get_ydata()[0] == pytest.approx(4 / (7 / 3))
    plt.close("all")


def test_plot_without_matplotlib_raises(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="`pip install matplotlib`"):
        imbalance.imbalance_report(TABLE).plot()


def test_label_names_of_another_number_raise():
    with pytest.raises(ValueError, match="`label_names` must name the 2 columns of `labels`, got 1 names"):
        imbalance.imbalance_report(np.eye(2), label_names=["a"])
    with pytest.raises(ValueError, match=r"must be multi-hot, got 0\.5 at row 0, label 0"):
        imbalance.imbalance_report(np.array([[0.5, 1.0]]))
