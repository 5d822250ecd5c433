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
