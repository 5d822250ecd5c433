"""Missing labels (NaN): splits, batches and measures of imbalance."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from mlmetric import data, imbalance, samplers
from mlmetric import similarity as sim

NAN = math.nan


def draw(seed, rows=60, num_labels=4, missing=0.3):
    rng = np.random.default_rng(seed)
    labels = (rng.random((rows, num_labels)) < rng.uniform(0.1, 0.6, num_labels)).astype(float)
    labels[rng.random(labels.shape) < missing] = NAN
    return labels


def kinds(labels):
    yield labels
    yield torch.from_numpy(labels).to(torch.bfloat16)
    yield sparse.csr_array(labels)
    yield pd.DataFrame(labels).astype("Int64")
    yield [[None if value != value else value for value in row] for row in labels.tolist()]


def as_lists(splits):
    return [[part.tolist() for part in split] for split in splits]


@pytest.mark.parametrize("seed", range(3))
def test_splits_spread_the_rows_that_are_known_to_have_a_label(seed):
    labels = draw(seed)
    known = np.nan_to_num(labels)
    rows = np.zeros((len(labels), 1))
    splitters = (
        data.MultiLabelStratifiedKFold(3, shuffle=True, random_state=seed),
        data.MultiLabelStratifiedShuffleSplit(2, test_size=0.25, random_state=seed),
    )

    def split(y):
        return data.stratified_split(y, (0.5, 0.5), generator=torch.Generator().manual_seed(seed))

    for kind in kinds(labels):
        assert as_lists([split(kind)]) == as_lists([split(known)])
        for splitter in splitters:
            assert as_lists(splitter.split(rows, kind)) == as_lists(splitter.split(rows, known))
    counts = known.sum(axis=0)
    for _, test in splitters[0].split(rows, labels):
        assert (np.abs((labels[test] == 1).sum(axis=0) - counts / 3) <= 1).all()


def test_split_rejects_other_entries_of_a_matrix_with_missing_labels():
    labels = np.array([[NAN, 0.5], [1, 0]])
    for kind in (labels, sparse.csr_array(labels)):
        with pytest.raises(ValueError, match="must be multi-hot"):
            data.stratified_split(kind, (0.5, 0.5))


@pytest.mark.parametrize("weights", ["uniform", "inverse_frequency"])
def test_sampler_does_not_sample_an_item_for_a_missing_label(weights):
    labels = draw(5)
    for kind in kinds(labels):
        batches, expected = (
            list(
                samplers.MultiLabelBatchSampler(
                    y, 12, items_per_label=2, label_weights=weights, generator=torch.Generator().manual_seed(1)
                )
            )
            for y in (kind, np.nan_to_num(labels))
        )
        assert batches == expected
    items = [item for batch in batches for item in batch]
    assert (labels[items] == 1).any(axis=1).all()


@pytest.mark.parametrize("similarity", [None, sim.Hamming()])
def test_positive_report_ignores_pairs_without_a_label_annotated_in_both(similarity):
    labels = draw(6, rows=12, num_labels=3, missing=0.6)
    batches = [[0, 1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 3]]
    report = samplers.positive_report(batches, labels, similarity=similarity, positive_threshold=0.4)
    positives = []
    for batch in batches:
        for anchor in batch:
            common = [~np.isnan(labels[anchor]) & ~np.isnan(labels[item]) for item in batch]
            shared = [
                (labels[anchor] == labels[item])[both].mean()
                if similarity
                else (labels[anchor] * labels[item])[both].sum()
                for item, both in zip(batch, common, strict=True)
                if item != anchor and both.any()
            ]
            positives.append(sum(value > 0.4 for value in shared))
    assert report.positives_per_anchor == pytest.approx(np.mean(positives))
    assert report.fraction_with_positive == pytest.approx(np.mean(np.array(positives) > 0))
    counts = sum((labels[batch] == 1).sum(axis=0) for batch in batches)
    assert report.label_counts.tolist() == counts.tolist()


def ratios_by_hand(labels):
    frequencies = []
    for column in labels.T:
        known = column[~np.isnan(column)]
        frequencies.append(known.mean() if len(known) else 0.0)
    return np.array([max(frequencies) / each if each else NAN for each in frequencies]), np.array(frequencies)


def scumble_by_hand(row, ratios):
    own = ratios[row == 1]
    if np.isnan(row).any():
        return NAN
    return 1 - own.prod() ** (1 / len(own)) / own.mean() if len(own) else 0.0


@pytest.mark.parametrize("seed", range(6))
def test_imbalance_measures_count_what_is_annotated(seed):
    labels = draw(seed, rows=40, missing=0.1)
    if seed == 5:
        labels[:, 1], labels[:, 2] = NAN, np.where(np.isnan(labels[:, 2]), NAN, 0)
    ratios, frequencies = ratios_by_hand(labels)
    scores = np.array([scumble_by_hand(row, ratios) for row in labels])
    with_label = [scores[(labels[:, i] == 1) & ~np.isnan(scores)] for i in range(4)]
    means = [each.mean() if len(each) else NAN for each in with_label]
    for kind in kinds(labels):
        np.testing.assert_allclose(imbalance.ir_lbl(kind), ratios)
        assert imbalance.mean_ir(kind) == pytest.approx(np.nanmean(ratios))
        assert imbalance.cvir(kind) == pytest.approx(np.nanstd(ratios, ddof=1) / np.nanmean(ratios))
        assert imbalance.minority_labels(kind).tolist() == (ratios > np.nanmean(ratios)).tolist()
        assert imbalance.majority_labels(kind).tolist() == (ratios < np.nanmean(ratios)).tolist()
        assert imbalance.label_cardinality(kind) == pytest.approx(frequencies.sum())
        assert imbalance.label_density(kind) == pytest.approx(frequencies.sum() / (3 if seed == 5 else 4))
        np.testing.assert_allclose(imbalance.scumble_per_instance(kind), scores, atol=1e-12)
        if seed == 5:  # no row is annotated for all labels
            assert math.isnan(imbalance.scumble(kind))
        else:
            assert imbalance.scumble(kind) == pytest.approx(np.nanmean(scores))
        np.testing.assert_allclose(imbalance.scumble_per_label(kind), means, atol=1e-12)
        report = imbalance.imbalance_report(kind)
        for name in ("ir_lbl", "mean_ir", "cvir", "scumble", "scumble_per_label"):
            np.testing.assert_array_equal(getattr(report, name), getattr(imbalance, name)(kind))
        assert report.counts.tolist() == (labels == 1).sum(axis=0).tolist()
        assert report.num_annotated.tolist() == (~np.isnan(labels)).sum(axis=0).tolist()
        assert report.annotated_share == pytest.approx((~np.isnan(labels)).mean())
        assert report.num_rows_without_label == sum((row == 0).all() for row in labels)
        assert (report.cardinality, report.density) == (
            imbalance.label_cardinality(kind),
            imbalance.label_density(kind),
        )


def test_imbalance_report_shows_the_annotated_share_only_with_missing_labels():
    labels = np.array([[1, 1, 0], [1, NAN, 0], [0, 0, 1], [NAN, 1, 0]])
    report = imbalance.imbalance_report(labels, label_names=["a", "b", "c"])
    assert "83.3% of the labels annotated." in str(report)
    assert "| a     |       2 |         3 |    1.00 |" in str(report)
    assert "annotated_share=0.8333" in repr(report)
    complete = imbalance.imbalance_report(np.nan_to_num(labels))
    assert complete.annotated_share == 1
    assert "annotated" not in str(complete) + repr(complete)


def test_theoretical_complexity_score_rejects_missing_labels_by_name():
    with pytest.raises(ValueError, match="not annotated, and `tcs` does not support missing labels"):
        imbalance.tcs([[1, None], [0, 1]], num_features=3)
    with pytest.raises(ValueError, match="`tcs` does not support missing labels"):
        imbalance.imbalance_report([[1, None], [0, 1]], num_features=3)


def test_plot_of_counts_with_missing_labels_has_no_line_of_mean_ir():
    pytest.importorskip("matplotlib").use("Agg")
    labels = np.array([[1, 1], [1, NAN], [0, 0]])
    legends = [
        [text.get_text() for text in imbalance.imbalance_report(y).plot().get_legend().get_texts()]
        for y in (labels, np.nan_to_num(labels))
    ]
    assert ["IRLbl = MeanIR" in names for names in legends] == [False, True]
