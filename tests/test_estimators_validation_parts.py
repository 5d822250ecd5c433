"""The rows that the members set aside: disjoint, stratified, of the stated share."""

from itertools import combinations

import pytest
import torch

from mlmetric.data import stratified_split
from mlmetric.estimators._training_data import TrainingData
from mlmetric.estimators._validation_parts import ValidationParts


def make_data(num_rows=200, frequencies=(0.5, 0.3, 0.1)):
    """Return rows whose feature is their number."""
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(num_rows, len(frequencies), generator=generator) < torch.tensor(frequencies)).float()
    return TrainingData(torch.arange(float(num_rows))[:, None], labels)


def make_parts(data=None, *, fraction=0.2, num_parts=4, seed=3, validation=None):
    data = make_data() if data is None else data
    return ValidationParts(data, validation, fraction=fraction, num_parts=num_parts, seed=seed)


def numbers(data):
    return data.features.squeeze(1).long().tolist()


@pytest.mark.parametrize(
    ("fraction", "num_parts", "expected"),
    [
        (0.2, 4, 4),
        (0.2, 5, 5),
        (0.2, 9, 5),
        (0.25, 4, 4),
        (0.3, 4, 3),
        (0.4, 4, 2),
        (0.5, 4, 2),
        (0.6, 4, 1),
        (0.1, 1, 1),
    ],
)
def test_parts_are_disjoint_and_stratified_and_have_the_stated_share(fraction, num_parts, expected):
    data = make_data()
    parts = make_parts(data, fraction=fraction, num_parts=num_parts)
    assert len(parts) == len(parts.rows) == expected
    assert parts.has_validation
    for rows in parts.rows:
        assert len(rows) == pytest.approx(200 * fraction, abs=1)
        assert data.labels[rows].mean(0).tolist() == pytest.approx(data.labels.mean(0).tolist(), abs=0.03)
    for first, second in combinations(parts.rows, 2):
        assert not set(first.tolist()) & set(second.tolist())


def test_members_train_on_all_rows_that_they_do_not_set_aside():
    data = make_data()
    parts = make_parts(data, fraction=0.4)
    for member in range(4):
        train, validation = parts[member]
        assert numbers(validation) == parts.rows[member % 2].tolist()
        assert sorted(numbers(train) + numbers(validation)) == list(range(200))
        for rows in (train, validation):
            assert torch.equal(rows.labels, data.labels[numbers(rows)])


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.37, 0.9])
def test_single_part_is_that_of_a_stratified_split(fraction):
    data = make_data()
    generator = torch.Generator().manual_seed(3)
    train, validation = stratified_split(data.labels, (1 - fraction, fraction), generator=generator)
    part = make_parts(data, fraction=fraction, num_parts=1)[0]
    assert numbers(part.train) == train.tolist()
    assert numbers(part.validation) == validation.tolist()


def test_parts_depend_on_the_seed_alone():
    torch.rand(3)
    first, second, other = make_parts(), make_parts(), make_parts(seed=4)
    assert all(torch.equal(*pair) for pair in zip(first.rows, second.rows, strict=True))
    assert first.rows[0].tolist() != other.rows[0].tolist()


def test_soft_labels_are_stratified_by_those_of_at_least_one_half():
    data = make_data()
    soft = TrainingData(data.features, torch.where(data.labels == 1, 0.5, 0.49))
    assert all(torch.equal(*pair) for pair in zip(make_parts(soft).rows, make_parts(data).rows, strict=True))
    assert torch.equal(make_parts(soft)[0].train.labels, soft.labels[numbers(make_parts(soft)[0].train)])


def test_rows_of_the_validation_argument_are_those_of_all_members():
    data, validation = make_data(), make_data(30)
    for fraction in (0, 0.2):
        parts = make_parts(data, fraction=fraction, validation=validation)
        assert len(parts) == 1
        assert parts.rows == []
        assert parts.has_validation
        for member in range(4):
            assert parts[member].train is data
            assert parts[member].validation is validation


def test_a_share_of_0_sets_no_rows_aside():
    data = make_data()
    parts = make_parts(data, fraction=0)
    assert not parts.has_validation
    assert len(parts) == 1
    assert parts[2] == (data, None)


@pytest.mark.parametrize("num_rows", range(1, 12))
@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.5, 0.99])
def test_few_rows_leave_two_to_train_on_and_one_to_validate(num_rows, fraction):
    data = make_data(num_rows)
    parts = make_parts(data, fraction=fraction)
    assert parts.has_validation == (num_rows >= 3)
    for member in range(4):
        train, validation = parts[member]
        if num_rows < 3:
            assert (train, validation) == (data, None)
        else:
            assert len(train.labels) >= 2
            assert len(validation.labels) >= 1
            assert sorted(numbers(train) + numbers(validation)) == list(range(num_rows))


@pytest.mark.parametrize("fraction", [1.0, -0.1, float("nan")])
def test_share_out_of_range_is_an_error(fraction):
    with pytest.raises(ValueError, match=r"`validation_fraction` must be in \[0, 1\), got"):
        make_parts(fraction=fraction)
