import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlmetric.data import stratified_split


def skewed_labels(seed, n=400, num_labels=12):
    generator = torch.Generator().manual_seed(seed)
    frequency = 0.5 / torch.arange(1, num_labels + 1) ** 1.3
    return (torch.rand(n, num_labels, generator=generator) < frequency).long()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 60), num_labels=st.integers(1, 6))
def test_split_is_a_partition_of_about_the_right_sizes(seed, n, num_labels):
    labels = skewed_labels(seed, n, num_labels)
    parts = stratified_split(labels, generator=torch.Generator().manual_seed(seed))
    assert sorted(torch.cat(parts).tolist()) == list(range(n))
    for part, fraction in zip(parts, (0.7, 0.2, 0.1), strict=True):
        assert part.tolist() == sorted(part.tolist())
        assert abs(len(part) - fraction * n) <= 2 + num_labels


@pytest.mark.parametrize("seed", range(5))
def test_split_brings_each_label_with_three_rows_to_each_part(seed):
    labels = skewed_labels(seed, n=1500, num_labels=30)
    parts = stratified_split(labels, generator=torch.Generator().manual_seed(seed))
    counts = torch.stack([labels[part].sum(0) for part in parts])
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


@pytest.mark.parametrize("fractions", [(0.7, 0.2), (1.1, -0.1), (0.0, 1.0)])
def test_split_fractions_that_are_none_are_refused(fractions):
    with pytest.raises(ValueError, match=r"`fractions` must be above 0 and add up to 1, got \(" + str(fractions[0])):
        stratified_split(torch.ones(4, 1), fractions, generator=torch.Generator())


def test_split_soft_labels_are_refused():
    with pytest.raises(ValueError, match="must be multi-hot, 0 or 1, got soft labels"):
        stratified_split(torch.full((4, 1), 0.5), generator=torch.Generator())
