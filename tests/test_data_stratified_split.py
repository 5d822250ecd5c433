import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas import DataFrame
from scipy.sparse import csr_array

from mlmetric.data import stratified_split


def skewed_labels(seed, n=400, num_labels=12):
    generator = torch.Generator().manual_seed(seed)
    frequency = 0.5 / torch.arange(1, num_labels + 1) ** 1.3
    return (torch.rand(n, num_labels, generator=generator) < frequency).long()


def zipf_tags(generator, n=300, num_tags=600):
    frequency = (3 / torch.arange(1, num_tags + 1) / 7).clamp(max=0.9)
    return torch.rand(n, num_tags, generator=generator) < frequency


def frequent_and_tags(generator, rows_a_tag, n=300):
    """Make five frequent labels, and tags of a few rows each, one to each row."""
    frequent = torch.rand(n, 5, generator=generator) < 0.4
    tags = torch.eye(n // rows_a_tag, dtype=torch.bool).repeat(rows_a_tag, 1)
    return torch.cat([frequent, tags[torch.randperm(n, generator=generator)]], dim=1)


def counts_in(labels, parts):
    return torch.stack([labels[part].sum(0) for part in parts])


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(0, 60),
    num_labels=st.integers(0, 12),
    density=st.floats(0, 1),
    weights=st.lists(st.integers(1, 9), min_size=1, max_size=6),
)
def test_split_is_a_partition_with_each_part_within_a_row_of_its_fraction(seed, n, num_labels, density, weights):
    labels = torch.rand(n, num_labels, generator=torch.Generator().manual_seed(seed)) < density
    fractions = [weight / sum(weights) for weight in weights]
    parts = stratified_split(labels, fractions, generator=torch.Generator().manual_seed(seed))
    assert torch.cat(parts).sort().values.tolist() == list(range(n))
    for part, fraction in zip(parts, fractions, strict=True):
        assert part.dtype == torch.int64
        assert part.tolist() == sorted(part.tolist())
        assert abs(len(part) - fraction * n) < 1


@pytest.mark.parametrize(
    ("make", "fractions", "sizes"),
    [
        (lambda generator: torch.eye(100, dtype=torch.uint8), (0.7, 0.2, 0.1), [70, 20, 10]),
        (lambda generator: frequent_and_tags(generator, 3), (0.7, 0.2, 0.1), [210, 60, 30]),
        (lambda generator: frequent_and_tags(generator, 2), (0.7, 0.2, 0.1), [210, 60, 30]),
        (zipf_tags, (0.9, 0.1), [270, 30]),
        (lambda generator: torch.eye(100).repeat(3, 1), (0.1,) * 10, [30] * 10),
        (lambda generator: torch.ones(10, 3), (0.25, 0.25, 0.25, 0.25), [3, 3, 2, 2]),
        (lambda generator: torch.ones(100, 1), (0.29, 0.57, 0.14), [29, 57, 14]),
    ],
)
def test_split_of_many_rare_labels_has_the_sizes_asked_for(make, fractions, sizes):
    generator = torch.Generator().manual_seed(0)
    parts = stratified_split(make(generator), fractions, generator=generator)
    assert [len(part) for part in parts] == sizes


@pytest.mark.parametrize("fractions", [(0.7, 0.2, 0.1), (0.9, 0.1)])
def test_split_of_many_rare_labels_keeps_the_shares_of_frequent_ones(fractions):
    single = torch.zeros(1000, 702, dtype=torch.bool)
    single[:700, :700] = torch.eye(700)  # the largest part alone could take these
    single[700:850, 700] = single[850:, 701] = True
    for labels in (
        single,
        frequent_and_tags(torch.Generator().manual_seed(0), rows_a_tag=3),
        zipf_tags(torch.Generator().manual_seed(0)),
    ):
        parts = stratified_split(labels, fractions, generator=torch.Generator().manual_seed(0))
        frequent = labels.sum(0) >= 30
        shares = counts_in(labels, parts)[:, frequent] / labels[:, frequent].sum(0)
        assert (shares - torch.tensor(fractions)[:, None]).abs().max() < 0.06


def test_split_gives_each_of_equal_parts_as_many_rows_of_each_label_but_for_one():
    labels = torch.nn.functional.one_hot(torch.arange(7).repeat_interleave(torch.tensor([3, 10, 11, 25, 40, 50, 61])))
    counts = counts_in(labels, stratified_split(labels, (0.1,) * 10, generator=torch.Generator().manual_seed(0)))
    assert (counts.amax(0) - counts.amin(0)).tolist() == [1, 0, 1, 1, 0, 0, 1]


@pytest.mark.parametrize("seed", range(5))
def test_split_brings_each_label_with_three_rows_to_each_part(seed):
    labels = skewed_labels(seed, n=1500, num_labels=30)
    parts = stratified_split(labels, generator=torch.Generator().manual_seed(seed))
    counts = counts_in(labels, parts)
    enough = labels.sum(0) >= 3
    assert enough.sum() >= 25
    assert (counts[:, enough] > 0).all()


def test_split_keeps_label_shares_far_closer_than_a_random_one():
    labels = skewed_labels(3, n=1000, num_labels=20)

    def worst(parts):
        total = labels.sum(0)
        shares = torch.stack([labels[part].sum(0) / total for part in parts])
        return (shares - torch.tensor([0.7, 0.2, 0.1])[:, None])[:, total >= 10].abs().max().item()

    generator = torch.Generator().manual_seed(0)
    random = torch.randperm(1000, generator=generator).split([700, 200, 100])
    assert worst(stratified_split(labels, generator=generator)) < 0.5 * worst(random)


def test_split_repeats_with_its_seed_and_differs_with_another():
    labels = skewed_labels(1)

    def split(seed):
        return [part.tolist() for part in stratified_split(labels, generator=torch.Generator().manual_seed(seed))]

    assert split(0) == split(0)
    assert split(0) != split(1)


def test_split_spreads_rows_without_labels():
    parts = stratified_split(torch.zeros(100, 3), (0.5, 0.5), generator=torch.Generator().manual_seed(0))
    assert [len(part) for part in parts] == [50, 50]


def test_split_spreads_rows_without_labels_as_the_sizes_say():
    labels = torch.zeros(1000, 1, dtype=torch.bool)
    labels[:500] = True
    parts = stratified_split(labels, (0.7, 0.2, 0.1), generator=torch.Generator().manual_seed(0))
    assert counts_in(labels, parts).squeeze(1).tolist() == [350, 100, 50]


def test_split_takes_arrays_and_labels_of_any_dtype():
    labels = skewed_labels(2, n=60)
    expected = stratified_split(labels, generator=torch.Generator().manual_seed(0))
    for same in (labels.bool(), labels.to(torch.uint8), labels.half(), labels.numpy().astype(np.int8)):
        parts = stratified_split(same, generator=torch.Generator().manual_seed(0))
        assert [part.tolist() for part in parts] == [part.tolist() for part in expected]


@pytest.mark.parametrize("fractions", [(0.7, 0.2), (1.1, -0.1), (0.0, 1.0), (math.nan, 0.5), (0.5, math.nan), ()])
def test_split_raises_for_fractions_that_are_not_positive_with_the_sum_one(fractions):
    shown = re.escape(str(fractions))
    with pytest.raises(ValueError, match=rf"`fractions` must be above 0 and sum to 1, got {shown}"):
        stratified_split(torch.ones(4, 1), fractions, generator=torch.Generator())


def test_split_raises_for_soft_labels():
    with pytest.raises(ValueError, match="must be multi-hot, 0 or 1, got soft labels"):
        stratified_split(torch.full((4, 1), 0.5), generator=torch.Generator())


@pytest.mark.parametrize("fractions", [[0.7, 0.3], np.array([0.7, 0.3]), torch.tensor([0.7, 0.3], dtype=torch.float64)])
def test_stratified_split_takes_fractions_of_any_kind(fractions):
    parts = stratified_split(torch.eye(10), fractions, generator=torch.Generator().manual_seed(0))
    assert [len(part) for part in parts] == [7, 3]


def test_stratified_split_without_a_generator_draws_from_the_global_one():
    labels = skewed_labels(1)
    torch.manual_seed(0)
    first, second = (torch.cat(stratified_split(labels)).tolist() for _ in range(2))
    assert first != second
    torch.manual_seed(0)
    assert torch.cat(stratified_split(labels)).tolist() == first


@pytest.mark.parametrize("kind", [torch.Tensor.tolist, lambda y: csr_array(y.numpy()), lambda y: DataFrame(y.numpy())])
def test_stratified_split_takes_labels_of_all_kinds(kind):
    labels = skewed_labels(2, n=60)
    expected, found = (
        torch.cat(stratified_split(y, generator=torch.Generator().manual_seed(0))) for y in (labels, kind(labels))
    )
    assert found.tolist() == expected.tolist()


def test_generator_that_is_a_number_is_an_error():
    with pytest.raises(TypeError, match=r"`generator` must be a torch\.Generator or None, got int"):
        stratified_split(torch.eye(4), generator=0)
