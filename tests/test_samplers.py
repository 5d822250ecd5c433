"""MultiLabelBatchSampler: contents of batches, frequencies of labels and items, processes; and positive_report."""

import pickle
from collections import Counter
from itertools import chain

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.stats import chisquare
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler, TensorDataset

from mlmetric.samplers import MultiLabelBatchSampler, positive_report
from mlmetric.similarity import Jaccard

PAIRS = torch.tensor([[1, 0], [1, 0], [0, 1], [0, 1]])


def sampler_of(labels, batch_size, seed=0, **options):
    return MultiLabelBatchSampler(labels, batch_size, generator=torch.Generator().manual_seed(seed), **options)


def skewed_labels(seed=0, n=3000, num_labels=30):
    """About 4.3 labels per item; 90 % of the items have the most frequent label, 2 % the rarest."""
    generator = torch.Generator().manual_seed(seed)
    frequency = (2.1 / torch.arange(1, num_labels + 1) ** 1.35).clamp(0.02, 0.9)
    return (torch.rand(n, num_labels, generator=generator) < frequency).long()


def one_hot(*class_sizes):
    return torch.eye(len(class_sizes), dtype=torch.long).repeat_interleave(torch.tensor(class_sizes), dim=0)


def epochs_of(sampler, num_epochs):
    for epoch in range(num_epochs):
        sampler.set_epoch(epoch)
        yield list(sampler)


def random_batches(labels, batch_size, seed=0):
    items = RandomSampler(labels, generator=torch.Generator().manual_seed(seed))
    return BatchSampler(items, batch_size, drop_last=True)


@st.composite
def settings_of_a_sampler(draw):
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    n, num_labels = draw(st.integers(1, 30)), draw(st.integers(1, 6))
    density = draw(st.sampled_from([0.1, 0.4, 0.9]))
    labels = (torch.rand(n, num_labels, generator=generator) < density).long()
    labels[0, 0] = 1
    num_replicas = draw(st.integers(1, min(3, int(labels.any(1).sum()))))
    return labels, {
        "batch_size": draw(st.integers(1, int(labels.any(1).sum()) // num_replicas)),
        "num_replicas": num_replicas,
        "items_per_label": draw(st.integers(1, 5)),
        "label_weights": draw(st.sampled_from(["uniform", "inverse_frequency"])),
        "num_batches": draw(st.integers(1, 5)),
        "seed": draw(st.integers(0, 10)),
    }


# Contents of a batch


@pytest.mark.filterwarnings("ignore:No label of `labels` has two items")
@settings(max_examples=150, deadline=None)
@given(settings_of_a_sampler())
def test_joint_batches_are_full_without_repetition_and_contain_labelled_items_only(case):
    labels, options = case
    plans = [list(sampler_of(labels, rank=rank, **options)) for rank in range(options["num_replicas"])]
    labelled = set(labels.any(1).nonzero().squeeze(1).tolist())
    for plan in plans:
        assert len(plan) == options["num_batches"]
        assert all(type(item) is int for batch in plan for item in batch)
    for shares in zip(*plans, strict=True):
        assert [len(share) for share in shares] == [options["batch_size"]] * options["num_replicas"]
        joined = list(chain(*shares))
        assert len(set(joined)) == len(joined)
        assert set(joined) <= labelled


@pytest.mark.filterwarnings("ignore:No label of `labels` has two items")
@settings(max_examples=100, deadline=None)
@given(settings_of_a_sampler())
def test_batch_is_filled_label_by_label(case):
    """Check that some order of the labels explains the batch."""
    labels, options = case
    options |= {"num_replicas": 1, "rank": 0}
    sizes, m = labels.sum(0), options["items_per_label"]
    for batch in sampler_of(labels, **options):
        assert explains(batch, labels, sizes, m)


def explains(batch, labels, sizes, m):
    """Return whether the batch starts with m items of each label, in some order of the labels."""
    pending = [(0, frozenset((sizes > 0).nonzero().squeeze(1).tolist()))]
    tried = set()
    while pending:
        position, left = pending.pop()
        if position == len(batch) or not left:
            return True
        if (position, left) in tried:
            continue
        tried.add((position, left))
        present = labels[batch[:position]].sum(0)
        for label in left:
            missing = max(0, min(m, int(sizes[label])) - int(present[label]))
            drawn = batch[position : position + missing]
            if labels[drawn, label].all():
                pending.append((position + len(drawn), left - {label}))
    return False


def test_batch_large_enough_for_all_labels_contains_items_per_label_of_each():
    labels = skewed_labels()
    labels[:, 29] = 0
    labels[[5, 50, 500], 29] = 1
    for batch in sampler_of(labels, 120, items_per_label=4):
        present = labels[batch].sum(0)
        assert present[29] == 3
        assert (present[:29] >= 4).all()


def test_batch_of_classes_has_m_items_per_class():
    labels = one_hot(*[20] * 10)
    classes = labels.argmax(1)
    for batch in sampler_of(labels, 24, items_per_label=4, num_batches=50):
        assert sorted(Counter(classes[batch].tolist()).values()) == [4] * 6


def test_items_added_for_other_labels_count():
    labels = torch.tensor([[1, 1, 0]] * 20 + [[0, 0, 1]] * 20)
    for batch in sampler_of(labels, 8, items_per_label=4, num_batches=50):
        assert labels[batch].sum(0).tolist() == [4, 4, 4]


def test_further_rounds_add_items_of_each_label_beyond_those_in_the_batch():
    labels = torch.cat([torch.tensor([[1, 1]] * 20), torch.tensor([[1, 0]] * 20)])
    for batch in sampler_of(labels, 12, items_per_label=4, num_batches=50):
        first = 4 if labels[batch[:4], 1].all() else 4 + 4 - int(labels[batch[:4], 1].sum())
        assert labels[batch, 0].sum() == 12
        assert labels[batch, 1].sum() >= (8 if first == 4 else 4)


def test_label_with_few_items_contributes_all_of_them():
    labels = one_hot(3, 1, 20)
    present = [labels[batch].sum(0).tolist() for batch in sampler_of(labels, 10, items_per_label=4)]
    assert present == [[3, 1, 6]] * 2


def test_batch_of_all_labelled_items_is_possible():
    labels = torch.tensor([[1, 0], [0, 0], [1, 1], [0, 1]])
    assert [sorted(batch) for batch in sampler_of(labels, 3, items_per_label=1)] == [[0, 2, 3]]


def test_item_has_a_soft_label_where_it_is_above_zero():
    labels = skewed_labels(n=300)
    sampler = sampler_of(labels * 0.2, 32)
    assert list(sampler) == list(sampler_of(labels, 32))


@pytest.mark.parametrize(
    "kind",
    [
        lambda labels: labels.bool(),
        lambda labels: labels.bfloat16(),
        lambda labels: labels.numpy(),
        lambda labels: labels.numpy().astype(np.float32),
        lambda labels: labels.numpy() > 0,
        lambda labels: labels.T.contiguous().T,
        lambda labels: labels.tolist(),
        lambda labels: labels.to_sparse(),
        lambda labels: sparse.csr_array(labels.numpy()),
        lambda labels: pd.DataFrame(labels.numpy()),
        lambda labels: pd.DataFrame(labels.numpy()).convert_dtypes(),
    ],
)
def test_labels_of_any_type_give_the_same_batches_and_report(kind):
    labels = skewed_labels(n=300)
    batches = list(sampler_of(kind(labels), 32))
    assert batches == list(sampler_of(labels, 32))
    assert str(positive_report(batches, kind(labels))) == str(positive_report(batches, labels))


# Frequencies of labels


@pytest.mark.parametrize("law", ["uniform", "inverse_frequency", "given"])
@pytest.mark.slow
def test_labels_are_drawn_by_their_weights_without_replacement(law):
    class_sizes = torch.tensor([40, 20, 10, 5])
    labels = one_hot(*class_sizes.tolist())
    given_weights = torch.tensor([8.0, 1.0, 4.0, 2.0])
    weights = {"uniform": torch.ones(4), "inverse_frequency": 1 / class_sizes.double(), "given": given_weights}
    sampler = sampler_of(
        labels, 4, items_per_label=2, label_weights=given_weights if law == "given" else law, num_batches=3000
    )
    classes = labels.argmax(1)
    pairs = Counter((int(classes[batch[0]]), int(classes[batch[2]])) for batch in sampler)
    orders = [(first, second) for first in range(4) for second in range(4) if first != second]
    for name, weight in weights.items():
        share = weight.double() / weight.sum()
        expected = [3000 * float(share[a] * share[b] / (1 - share[a])) for a, b in orders]
        p_value = chisquare([pairs[order] for order in orders], expected).pvalue
        assert p_value > 1e-3 if name == law else p_value < 1e-9, (name, p_value)


def test_each_label_is_drawn_once_before_a_label_is_drawn_again():
    labels = one_hot(*[30] * 7)
    classes = labels.argmax(1)
    for batch in sampler_of(labels, 28, items_per_label=2, label_weights="inverse_frequency"):
        turns = classes[batch][::2].tolist()
        assert sorted(turns[:7]) == sorted(turns[7:]) == list(range(7))


def test_rare_labels_are_sampled_more_often_than_in_random_batches():
    labels = skewed_labels()
    random = positive_report(random_batches(labels, 64), labels)
    rarest = labels.sum(0).argmin()
    for weights in ("uniform", "inverse_frequency"):
        report = positive_report(sampler_of(labels, 64, label_weights=weights), labels)
        assert report.label_counts[rarest] > 2.5 * random.label_counts[rarest]
        assert report.label_fraction_with_positive[rarest] > 0.95 > 0.85 > random.label_fraction_with_positive[rarest]


def test_inverse_frequency_samples_rare_labels_more_often_than_uniform():
    labels = skewed_labels()
    uniform, inverse = (
        positive_report(sampler_of(labels, 16, label_weights=weights), labels).label_counts
        for weights in ("uniform", "inverse_frequency")
    )
    assert inverse[20:].sum() > 1.1 * uniform[20:].sum()


def test_label_of_weight_zero_is_never_drawn():
    labels = torch.tensor([[1, 0], [1, 1], [0, 1], [0, 1], [1, 0]])
    sampler = sampler_of(labels, 3, label_weights=np.array([0.5, 0.0]), num_batches=5)
    assert [sorted(batch) for batch in sampler] == [[0, 1, 4]] * 5


# Frequencies of items


def test_items_of_a_class_are_sampled_equally_often_up_to_one():
    labels = one_hot(5, 7, 33, 100)
    drawn = torch.zeros(145, dtype=torch.long)
    for batch in sampler_of(labels, 16, items_per_label=4, num_batches=60):
        drawn[batch] += 1
        for label in range(4):
            of_label = drawn[labels[:, label] == 1]
            assert of_label.max() - of_label.min() <= 1


def test_item_is_sampled_again_only_after_all_others_of_one_of_its_labels():
    labels = skewed_labels(n=600).bool()
    drawn = torch.zeros(600, dtype=torch.bool)
    repetitions = 0
    for item in chain(*sampler_of(labels, 64, num_batches=20)):
        if drawn[item]:
            repetitions += 1
            assert any(drawn[labels[:, label]].all() for label in labels[item].nonzero().squeeze(1))
        drawn[item] = True
    assert repetitions > 200


def test_all_labelled_items_are_sampled_over_several_epochs():
    labels = skewed_labels(n=500, num_labels=12)
    sampler = sampler_of(labels, 100, items_per_label=2)
    batches = chain(*epochs_of(sampler, 30))
    unlabelled = (~labels.any(1)).nonzero().squeeze(1)
    assert len(unlabelled) > 0
    assert positive_report(batches, labels).unsampled_items.tolist() == unlabelled.tolist()


def test_epoch_samples_more_items_than_sampling_with_replacement():
    labels = skewed_labels()
    unseen = len(positive_report(sampler_of(labels, 256, items_per_label=1), labels).unsampled_items)
    assert unseen < 0.8 * 3000 / np.e


# Generators, epochs, processes, DataLoader


def test_batches_repeat_with_seed_and_epoch_and_differ_with_another():
    labels = skewed_labels(n=300)

    def plan(seed, epoch):
        sampler = sampler_of(labels, 32, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    plans = {(seed, epoch): plan(seed, epoch) for seed in range(3) for epoch in range(3)}
    assert all(plan(*key) == batches for key, batches in plans.items())
    assert len({str(batches) for batches in plans.values()}) == 9


def test_generator_none_uses_the_global_generator():
    labels = skewed_labels(n=300)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        first, second = (MultiLabelBatchSampler(labels, 32) for _ in range(2))
        torch.manual_seed(3)
        again = MultiLabelBatchSampler(labels, 32)
    assert list(again) == list(first) != list(second)
    assert first.base_seed == sampler_of(labels, 32, 3).base_seed


def test_samplers_of_one_generator_differ():
    labels, generator = skewed_labels(n=300), torch.Generator().manual_seed(3)
    first, second = (MultiLabelBatchSampler(labels, 32, generator=generator) for _ in range(2))
    assert list(first) != list(second)


def test_repr_shows_the_parameters():
    sampler = sampler_of(PAIRS, 2, label_weights=torch.ones(2))
    assert repr(sampler) == (
        "MultiLabelBatchSampler(labels=<shape (4, 2)>, batch_size=2, items_per_label=4, label_weights=<shape (2,)>, "
        "num_batches=2, num_replicas=1, rank=0)"
    )
    assert "label_weights='uniform', num_batches=2" in repr(sampler_of(PAIRS, 2))


def test_sampler_can_be_iterated_repeatedly_and_concurrently():
    sampler = sampler_of(skewed_labels(n=300), 32)
    batches = list(sampler)
    assert [first for first, _ in zip(sampler, sampler, strict=True)] == batches
    assert list(sampler) == batches


def test_iteration_does_not_change_global_random_states():
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    list(sampler_of(skewed_labels(n=300), 32))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002


@pytest.mark.parametrize("num_replicas", [2, 3])
def test_slices_of_the_ranks_join_to_the_batches_of_one_process(num_replicas):
    labels = skewed_labels(n=900)
    samplers = [sampler_of(labels, 32, num_replicas=num_replicas, rank=r) for r in range(num_replicas)]
    alone = sampler_of(labels, 32 * num_replicas)
    for sampler in (*samplers, alone):
        sampler.set_epoch(4)
    assert {len(sampler) for sampler in samplers} == {len(alone)}
    assert [list(chain(*shares)) for shares in zip(*samplers, strict=True)] == list(alone)


def test_joined_processes_use_their_rank_and_the_base_seed_of_rank_0(monkeypatch):
    for name, value in (("is_initialized", True), ("get_world_size", 3), ("get_rank", 2)):
        monkeypatch.setattr(torch.distributed, name, lambda value=value: value)
    labels = skewed_labels(n=300)
    of_rank_0 = sampler_of(labels, 16, num_replicas=3, rank=0)

    def all_gather_object(gathered, own):
        gathered[:] = [of_rank_0.base_seed, 1, own]

    monkeypatch.setattr(torch.distributed, "all_gather_object", all_gather_object)
    for generator in (None, torch.Generator().manual_seed(7)):
        sampler = MultiLabelBatchSampler(labels, 16, generator=generator)
        assert (sampler.num_replicas, sampler.rank, sampler.base_seed) == (3, 2, of_rank_0.base_seed)
        assert list(sampler) == list(sampler_of(labels, 16, num_replicas=3, rank=2))
    assert sampler_of(labels, 16, 7, num_replicas=3, rank=2).base_seed != of_rank_0.base_seed


def test_length_is_the_number_of_full_joint_batches_unless_given():
    labels = torch.ones(100, 2)
    assert len(sampler_of(labels, 100)) == 1
    assert len(sampler_of(labels, 30)) == 3
    assert len(sampler_of(labels, 16, num_replicas=2, rank=1)) == 3
    sampler = sampler_of(labels, 30, num_batches=7)
    assert len(sampler) == len(list(sampler)) == 7


def test_data_loader_accepts_it_as_batch_sampler():
    labels = skewed_labels(n=300)
    sampler = sampler_of(labels, 32)
    loader = DataLoader(TensorDataset(torch.arange(300), labels), batch_sampler=sampler)
    assert len(loader) == 9
    for epoch in range(2):
        sampler.set_epoch(epoch)
        loaded = list(loader)
        assert [items.tolist() for items, _ in loaded] == list(sampler)
        assert all(torch.equal(batch_labels, labels[items]) for items, batch_labels in loaded)


def test_pickled_sampler_yields_the_same_batches():
    sampler = sampler_of(skewed_labels(n=300), 32, seed=3)
    sampler.set_epoch(2)
    assert list(pickle.loads(pickle.dumps(sampler))) == list(sampler)


# The report


def loop_report(batches, labels, threshold):
    """Compute the report from its definitions, pair by pair, for the number of shared labels."""
    anchors, positives, with_positive = 0, 0, 0
    appearances, paired = Counter(), Counter()
    for batch in batches:
        for i, anchor in enumerate(batch):
            others = [item for j, item in enumerate(batch) if j != i]
            shared = [float((labels[anchor] * labels[other]).sum()) for other in others]
            anchors += 1
            positives += sum(value > threshold for value in shared)
            with_positive += any(value > threshold for value in shared)
            for label in np.flatnonzero(labels[anchor] > 0).tolist():
                appearances[label] += 1
                paired[label] += any(labels[other, label] > 0 for other in others)
    counts = [appearances[label] for label in range(labels.shape[1])]
    shares = [paired[label] / count if count else float("nan") for label, count in enumerate(counts)]
    unseen = sorted(set(range(len(labels))) - {item for batch in batches for item in batch})
    return len(batches), anchors, with_positive / anchors, positives / anchors, counts, shares, unseen


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6), soft=st.booleans(), threshold=st.sampled_from([0.0, 0.3, 1.0]), as_array=st.booleans()
)
def test_report_matches_a_loop_from_the_definitions(seed, soft, threshold, as_array):
    rng = np.random.default_rng(seed)
    labels = (rng.random((12, 4)) < 0.3) / (2 if soft else 1)
    batches = [rng.integers(0, 12, size=size).tolist() for size in rng.integers(1, 6, size=4)]
    report = positive_report(batches, labels if as_array else torch.from_numpy(labels), positive_threshold=threshold)
    num_batches, anchors, with_positive, positives, counts, shares, unseen = loop_report(batches, labels, threshold)
    assert (report.num_batches, report.num_anchors) == (num_batches, anchors)
    assert report.fraction_with_positive == pytest.approx(with_positive)
    assert report.positives_per_anchor == pytest.approx(positives)
    assert report.label_counts.tolist() == counts
    assert report.label_fraction_with_positive.tolist() == pytest.approx(shares, nan_ok=True)
    assert report.unsampled_items.tolist() == unseen


def test_report_uses_the_given_similarity():
    labels = torch.tensor([[1, 1, 0], [1, 1, 0], [1, 0, 0]])
    report = positive_report([torch.tensor([0, 1, 2])], labels, similarity=Jaccard(), positive_threshold=0.5)
    assert report.fraction_with_positive == pytest.approx(2 / 3)
    assert positive_report([[0, 1, 2]], labels, similarity=Jaccard()).fraction_with_positive == 1


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_similarity_equal_to_the_threshold_is_not_positive(dtype):
    labels = torch.tensor([[1, 1, 1], [1, 1, 0]]).to(dtype)
    for threshold, share in ((2 / 3, 0), (0.66, 1)):
        report = positive_report([[0, 1]], labels, similarity=Jaccard(), positive_threshold=threshold)
        assert report.fraction_with_positive == share


def test_report_accepts_any_batch_sampler():
    report = positive_report(BatchSampler(SequentialSampler(PAIRS), 3, drop_last=False), PAIRS)
    assert (report.num_batches, report.num_anchors, report.fraction_with_positive) == (2, 4, 0.5)


def test_report_is_a_table_with_the_most_frequent_label_first():
    report = positive_report([[0, 1, 2]], torch.tensor([[0, 1, 0], [0, 1, 0], [1, 0, 0], [0, 0, 0]]))
    assert str(report).splitlines() == [
        "1 batches, 3 anchors, 1 items not sampled.",
        "66.7% of the anchors have a positive, 0.67 positives per anchor.",
        "",
        "| label |   count | with positive |",
        "| ----- | ------: | ------------: |",
        "| 1     |       2 |        100.0% |",
        "| 0     |       1 |          0.0% |",
        "| 2     |       0 |               |",
    ]
    assert repr(report) == (
        "PositiveReport(num_batches=1, num_anchors=3, fraction_with_positive=0.6667, positives_per_anchor=0.6667, "
        "label_counts=<shape (3,)>, label_fraction_with_positive=<shape (3,)>, unsampled_items=<shape (1,)>)"
    )


# Invalid arguments


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "`batch_size` must be an integer of at least 1, got 0"),
        ({"batch_size": 2.0}, r"`batch_size` must be an integer of at least 1, got 2\.0"),
        ({"items_per_label": 0}, "`items_per_label` must be an integer of at least 1, got 0"),
        ({"num_batches": 0}, "`num_batches` must be an integer of at least 1, got 0"),
        ({"num_replicas": 0, "rank": 0}, "`num_replicas` must be an integer of at least 1, got 0"),
        ({"num_replicas": 2, "rank": -1}, "`rank` must be an integer of at least 0, got -1"),
        ({"num_replicas": 2, "rank": 2}, "`rank` must be below `num_replicas`, got 2 of 2"),
        ({"num_replicas": 2}, "`num_replicas` and `rank` must be given together, got 2 and None"),
        ({"rank": 1}, "`num_replicas` and `rank` must be given together, got None and 1"),
        ({"batch_size": 5}, "`batch_size` must be smaller: 5 items in each of 1 processes exceed the 4 items"),
        (
            {"num_replicas": 3, "rank": 0},
            "`batch_size` must be smaller: 2 items in each of 3 processes exceed the 4 items",
        ),
        (
            {"label_weights": torch.tensor([0.0, 0.0])},
            "`batch_size` must be smaller: 2 items in each of 1 processes exceed the 0 items",
        ),
        ({"label_weights": "rare"}, '`label_weights` must be "uniform", "inverse_frequency" or .* got \'rare\''),
        ({"label_weights": torch.ones(3)}, r"`label_weights` must have shape \(2,\), .* got \(3,\)"),
        ({"label_weights": torch.tensor([1.0, -0.5])}, r"finite numbers >= 0, got -0\.5 for label 1"),
        ({"label_weights": np.array([np.nan, 1.0])}, "finite numbers >= 0, got nan for label 0"),
        ({"label_weights": np.array([np.inf, 1.0])}, "finite numbers >= 0, got inf for label 0"),
    ],
)
def test_sampler_with_a_parameter_out_of_range_raises(options, message):
    with pytest.raises(ValueError, match=message):
        sampler_of(PAIRS, **{"batch_size": 2, **options})


def test_several_processes_without_torch_distributed_require_a_generator():
    with pytest.raises(ValueError, match="`generator` is required with `num_replicas=2`: use the same seed in each"):
        MultiLabelBatchSampler(PAIRS, 1, num_replicas=2, rank=0)


def test_generator_of_another_type_raises():
    with pytest.raises(TypeError, match=r"`generator` must be a torch\.Generator or None, got int"):
        MultiLabelBatchSampler(PAIRS, 1, generator=0)


def test_negative_epoch_raises():
    with pytest.raises(ValueError, match="`epoch` must be an integer of at least 0, got -3"):
        sampler_of(PAIRS, 2).set_epoch(-3)


@pytest.mark.parametrize("read", [lambda labels: sampler_of(labels, 2), lambda labels: positive_report([[0]], labels)])
def test_labels_that_are_not_a_label_matrix_raise(read):
    with pytest.raises(ValueError, match=r"2-D multi-hot matrix of shape \(N, L\), got shape \(4,\)"):
        read(torch.tensor([0, 0, 1, 1]))
    with pytest.raises(ValueError, match=r"must contain numbers in .* got 3\.0 at row 1, label 0"):
        read(torch.tensor([[0, 1], [3, 0]]))
    with pytest.raises(TypeError, match=r"`labels` must contain numbers, 0 or 1 .*MultiLabelBinarizer"):
        read([["sea", "sun"], ["sea"]])


def test_sampler_warns_if_no_label_has_two_items():
    with pytest.warns(UserWarning, match="No label of `labels` has two items"):
        sampler = sampler_of(torch.eye(3), 3)
    assert [sorted(batch) for batch in sampler] == [[0, 1, 2]]


@pytest.mark.parametrize("batches", [[0, 1], [[[0, 1]]]])
def test_batches_that_are_not_lists_of_indices_raise(batches):
    with pytest.raises(ValueError, match=r"`batches` must contain lists of item indices, got (0|\[\[0, 1\]\])\."):
        positive_report(batches, PAIRS)


def test_report_of_no_batches_raises():
    with pytest.raises(ValueError, match="`batches` must contain at least one batch, got 0"):
        positive_report([], PAIRS)


def test_similarity_of_another_shape_raises():
    with pytest.raises(ValueError, match=r"`similarity` must return shape \(2, 2\), .*got \(2,\)"):
        positive_report([[0, 1]], PAIRS, similarity=lambda labels, ref_labels: labels.sum(1))
