"""Batches that hold positives: what they hold, how evenly labels and items come up, and the report on them."""

import pickle
from collections import Counter
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler, TensorDataset

from mlmetric.samplers import MultiLabelBatchSampler, positive_report
from mlmetric.similarity import Jaccard

PAIRS = torch.tensor([[1, 0], [1, 0], [0, 1], [0, 1]])


def skewed_labels(seed=0, n=3000, num_labels=30):
    """About 4.3 labels an item, the most frequent in nine of ten items, the rarest in one of fifty."""
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


# What a batch holds


@pytest.mark.filterwarnings("ignore:`labels` has no label of two items")
@settings(max_examples=150, deadline=None)
@given(settings_of_a_sampler())
def test_joined_batches_are_full_without_repetition_and_only_of_labelled_items(case):
    labels, options = case
    plans = [list(MultiLabelBatchSampler(labels, rank=rank, **options)) for rank in range(options["num_replicas"])]
    labelled = set(labels.any(1).nonzero().squeeze(1).tolist())
    for plan in plans:
        assert len(plan) == options["num_batches"]
        assert all(type(item) is int for batch in plan for item in batch)
    for shares in zip(*plans, strict=True):
        assert [len(share) for share in shares] == [options["batch_size"]] * options["num_replicas"]
        joined = list(chain(*shares))
        assert len(set(joined)) == len(joined)
        assert set(joined) <= labelled


@pytest.mark.filterwarnings("ignore:`labels` has no label of two items")
@settings(max_examples=100, deadline=None)
@given(settings_of_a_sampler())
def test_batch_gives_each_label_its_items_in_turn(case):
    """Each run of draws for a label ends as the docstring says, told from the batch alone by trying each label."""
    labels, options = case
    options |= {"num_replicas": 1, "rank": 0}
    sizes, m = labels.sum(0), options["items_per_label"]
    for batch in MultiLabelBatchSampler(labels, **options):
        assert explains(batch, labels, sizes, m)


def explains(batch, labels, sizes, m):
    """Whether some order of the labels in the first round, each topped up to m, gives the batch's beginning."""
    pending = [(0, frozenset((sizes > 0).nonzero().squeeze(1).tolist()))]
    tried = set()
    while pending:
        position, left = pending.pop()
        if position == len(batch) or not left:
            return True
        if (position, left) in tried:
            continue
        tried.add((position, left))
        held = labels[batch[:position]].sum(0)
        for label in left:
            missing = max(0, min(m, int(sizes[label])) - int(held[label]))
            drawn = batch[position : position + missing]
            if labels[drawn, label].all():
                pending.append((position + len(drawn), left - {label}))
    return False


def test_batch_with_room_for_all_labels_holds_items_per_label_of_each():
    labels = skewed_labels()
    labels[:, 29] = 0
    labels[[5, 50, 500], 29] = 1
    for batch in MultiLabelBatchSampler(labels, 120, items_per_label=4):
        held = labels[batch].sum(0)
        assert held[29] == 3
        assert (held[:29] >= 4).all()


def test_batch_of_classes_holds_m_per_class():
    labels = one_hot(*[20] * 10)
    classes = labels.argmax(1)
    for batch in MultiLabelBatchSampler(labels, 24, items_per_label=4, num_batches=50):
        assert sorted(Counter(classes[batch].tolist()).values()) == [4] * 6


def test_items_that_other_labels_have_brought_count():
    labels = torch.tensor([[1, 1, 0]] * 20 + [[0, 0, 1]] * 20)
    for batch in MultiLabelBatchSampler(labels, 8, items_per_label=4, num_batches=50):
        assert labels[batch].sum(0).tolist() == [4, 4, 4]


def test_further_rounds_give_each_label_more_whatever_the_batch_holds_of_it():
    labels = torch.cat([torch.tensor([[1, 1]] * 20), torch.tensor([[1, 0]] * 20)])
    for batch in MultiLabelBatchSampler(labels, 12, items_per_label=4, num_batches=50):
        first = 4 if labels[batch[:4], 1].all() else 4 + 4 - int(labels[batch[:4], 1].sum())
        assert labels[batch, 0].sum() == 12
        assert labels[batch, 1].sum() >= (8 if first == 4 else 4)


def test_label_of_few_items_gives_what_it_has():
    labels = one_hot(3, 1, 20)
    held = [labels[batch].sum(0).tolist() for batch in MultiLabelBatchSampler(labels, 10, items_per_label=4)]
    assert held == [[3, 1, 6]] * 2


def test_batch_of_all_labelled_items_is_possible():
    labels = torch.tensor([[1, 0], [0, 0], [1, 1], [0, 1]])
    assert [sorted(batch) for batch in MultiLabelBatchSampler(labels, 3, items_per_label=1)] == [[0, 2, 3]]


def test_soft_labels_are_carried_where_above_zero():
    labels = skewed_labels(n=300)
    sampler = MultiLabelBatchSampler(labels * 0.2, 32)
    assert list(sampler) == list(MultiLabelBatchSampler(labels, 32))


@pytest.mark.parametrize(
    "kind",
    [
        lambda labels: labels.bool(),
        lambda labels: labels.bfloat16(),
        lambda labels: labels.numpy(),
        lambda labels: labels.numpy().astype(np.float32),
        lambda labels: labels.numpy() > 0,
        lambda labels: labels.T.contiguous().T,
    ],
)
def test_labels_of_any_kind_give_the_same_batches(kind):
    labels = skewed_labels(n=300)
    assert list(MultiLabelBatchSampler(kind(labels), 32)) == list(MultiLabelBatchSampler(labels, 32))


# How evenly labels come up


@pytest.mark.parametrize("law", ["uniform", "inverse_frequency", "given"])
def test_labels_are_drawn_by_their_weights_without_replacement(law):
    class_sizes = torch.tensor([40, 20, 10, 5])
    labels = one_hot(*class_sizes.tolist())
    given_weights = torch.tensor([8.0, 1.0, 4.0, 2.0])
    weights = {"uniform": torch.ones(4), "inverse_frequency": 1 / class_sizes.double(), "given": given_weights}
    sampler = MultiLabelBatchSampler(
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


def test_each_label_has_its_turn_before_any_comes_again():
    labels = one_hot(*[30] * 7)
    classes = labels.argmax(1)
    for batch in MultiLabelBatchSampler(labels, 28, items_per_label=2, label_weights="inverse_frequency"):
        turns = classes[batch][::2].tolist()
        assert sorted(turns[:7]) == sorted(turns[7:]) == list(range(7))


def test_rare_labels_come_up_far_more_than_in_random_batches():
    labels = skewed_labels()
    random = positive_report(random_batches(labels, 64), labels)
    rarest = labels.sum(0).argmin()
    for weights in ("uniform", "inverse_frequency"):
        report = positive_report(MultiLabelBatchSampler(labels, 64, label_weights=weights), labels)
        assert report.label_counts[rarest] > 2.5 * random.label_counts[rarest]
        assert report.label_paired[rarest] > 0.99 > 0.85 > random.label_paired[rarest]


def test_inverse_frequency_favours_rare_labels_over_uniform():
    labels = skewed_labels()
    uniform, inverse = (
        positive_report(MultiLabelBatchSampler(labels, 16, label_weights=weights), labels).label_counts
        for weights in ("uniform", "inverse_frequency")
    )
    assert inverse[20:].sum() > 1.1 * uniform[20:].sum()


def test_label_of_weight_zero_is_never_drawn():
    labels = torch.tensor([[1, 0], [1, 1], [0, 1], [0, 1], [1, 0]])
    sampler = MultiLabelBatchSampler(labels, 3, label_weights=np.array([0.5, 0.0]), num_batches=5)
    assert [sorted(batch) for batch in sampler] == [[0, 1, 4]] * 5


# How evenly items come up


def test_items_of_a_class_come_up_equally_often_to_within_one():
    labels = one_hot(5, 7, 33, 100)
    drawn = torch.zeros(145, dtype=torch.long)
    for batch in MultiLabelBatchSampler(labels, 16, items_per_label=4, num_batches=60):
        drawn[batch] += 1
        for label in range(4):
            of_label = drawn[labels[:, label] == 1]
            assert of_label.max() - of_label.min() <= 1


def test_no_item_comes_up_again_before_all_others_of_some_label_of_it():
    labels = skewed_labels(n=600).bool()
    drawn = torch.zeros(600, dtype=torch.bool)
    repetitions = 0
    for item in chain(*MultiLabelBatchSampler(labels, 64, num_batches=20)):
        if drawn[item]:
            repetitions += 1
            assert any(drawn[labels[:, label]].all() for label in labels[item].nonzero().squeeze(1))
        drawn[item] = True
    assert repetitions > 200


def test_every_labelled_item_comes_up_over_epochs():
    labels = skewed_labels(n=500, num_labels=12)
    sampler = MultiLabelBatchSampler(labels, 100, items_per_label=2)
    batches = chain(*epochs_of(sampler, 30))
    unlabelled = (~labels.any(1)).nonzero().squeeze(1)
    assert len(unlabelled) > 0
    assert positive_report(batches, labels).unseen.tolist() == unlabelled.tolist()


def test_epoch_sees_more_items_than_drawing_with_repetition_would():
    labels = skewed_labels()
    unseen = len(positive_report(MultiLabelBatchSampler(labels, 256, items_per_label=1), labels).unseen)
    assert unseen < 0.8 * 3000 / np.e


# Seeds, epochs, processes, hosts


def test_batches_repeat_with_seed_and_epoch_and_differ_with_another():
    labels = skewed_labels(n=300)

    def plan(seed, epoch):
        sampler = MultiLabelBatchSampler(labels, 32, seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    plans = {(seed, epoch): plan(seed, epoch) for seed in range(3) for epoch in range(3)}
    assert all(plan(*key) == batches for key, batches in plans.items())
    assert len({str(batches) for batches in plans.values()}) == 9


def test_sampler_can_be_read_again_and_twice_at_once():
    sampler = MultiLabelBatchSampler(skewed_labels(n=300), 32)
    batches = list(sampler)
    assert [first for first, _ in zip(sampler, sampler, strict=True)] == batches
    assert list(sampler) == batches


def test_batches_leave_global_random_state_alone():
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    list(MultiLabelBatchSampler(skewed_labels(n=300), 32))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002


@pytest.mark.parametrize("num_replicas", [2, 3])
def test_shares_of_the_ranks_join_to_the_batches_of_one_process(num_replicas):
    labels = skewed_labels(n=900)
    samplers = [MultiLabelBatchSampler(labels, 32, num_replicas=num_replicas, rank=r) for r in range(num_replicas)]
    alone = MultiLabelBatchSampler(labels, 32 * num_replicas)
    for sampler in (*samplers, alone):
        sampler.set_epoch(4)
    assert {len(sampler) for sampler in samplers} == {len(alone)}
    assert [list(chain(*shares)) for shares in zip(*samplers, strict=True)] == list(alone)


def test_rank_is_by_default_that_of_torch_distributed(monkeypatch):
    for name, value in (("is_initialized", True), ("get_world_size", 3), ("get_rank", 2)):
        monkeypatch.setattr(torch.distributed, name, lambda value=value: value)
    labels = skewed_labels(n=300)
    sampler = MultiLabelBatchSampler(labels, 16)
    assert (sampler.num_replicas, sampler.rank) == (3, 2)
    assert list(sampler) == list(MultiLabelBatchSampler(labels, 16, num_replicas=3, rank=2))


def test_length_is_the_number_of_whole_joined_batches_unless_given():
    labels = torch.ones(100, 2)
    assert len(MultiLabelBatchSampler(labels, 100)) == 1
    assert len(MultiLabelBatchSampler(labels, 30)) == 3
    assert len(MultiLabelBatchSampler(labels, 16, num_replicas=2, rank=1)) == 3
    sampler = MultiLabelBatchSampler(labels, 30, num_batches=7)
    assert len(sampler) == len(list(sampler)) == 7


def test_data_loader_takes_it_as_batch_sampler():
    labels = skewed_labels(n=300)
    sampler = MultiLabelBatchSampler(labels, 32)
    loader = DataLoader(TensorDataset(torch.arange(300), labels), batch_sampler=sampler)
    assert len(loader) == 9
    for epoch in range(2):
        sampler.set_epoch(epoch)
        loaded = list(loader)
        assert [items.tolist() for items, _ in loaded] == list(sampler)
        assert all(torch.equal(batch_labels, labels[items]) for items, batch_labels in loaded)


def test_pickled_sampler_draws_the_same():
    sampler = MultiLabelBatchSampler(skewed_labels(n=300), 32, seed=3)
    sampler.set_epoch(2)
    assert list(pickle.loads(pickle.dumps(sampler))) == list(sampler)


# The report


def loop_report(batches, labels, threshold):
    """The report written from its definitions, one pair at a time, for the number of shared labels."""
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
def test_report_gives_what_the_loop_gives(seed, soft, threshold, as_array):
    rng = np.random.default_rng(seed)
    labels = (rng.random((12, 4)) < 0.3) / (2 if soft else 1)
    batches = [rng.integers(0, 12, size=size).tolist() for size in rng.integers(1, 6, size=4)]
    report = positive_report(batches, labels if as_array else torch.from_numpy(labels), positive_threshold=threshold)
    num_batches, anchors, with_positive, positives, counts, shares, unseen = loop_report(batches, labels, threshold)
    assert (report.num_batches, report.num_anchors) == (num_batches, anchors)
    assert report.anchors_with_positive == pytest.approx(with_positive)
    assert report.positives_per_anchor == pytest.approx(positives)
    assert report.label_counts.tolist() == counts
    assert report.label_paired.tolist() == pytest.approx(shares, nan_ok=True)
    assert report.unseen.tolist() == unseen


def test_report_follows_the_similarity_given():
    labels = torch.tensor([[1, 1, 0], [1, 1, 0], [1, 0, 0]])
    report = positive_report([torch.tensor([0, 1, 2])], labels, similarity=Jaccard(), positive_threshold=0.5)
    assert report.anchors_with_positive == pytest.approx(2 / 3)
    assert positive_report([[0, 1, 2]], labels, similarity=Jaccard()).anchors_with_positive == 1


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_report_counts_no_similarity_that_equals_a_fraction(dtype):
    labels = torch.tensor([[1, 1, 1], [1, 1, 0]]).to(dtype)
    for threshold, share in ((2 / 3, 0), (0.66, 1)):
        report = positive_report([[0, 1]], labels, similarity=Jaccard(), positive_threshold=threshold)
        assert report.anchors_with_positive == share


def test_report_reads_any_batch_sampler():
    report = positive_report(BatchSampler(SequentialSampler(PAIRS), 3, drop_last=False), PAIRS)
    assert (report.num_batches, report.num_anchors, report.anchors_with_positive) == (2, 4, 0.5)


# Bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "`batch_size` must be an integer of at least 1, got 0"),
        ({"batch_size": 2.0}, r"`batch_size` must be an integer of at least 1, got 2\.0"),
        ({"items_per_label": 0}, "`items_per_label` must be an integer of at least 1, got 0"),
        ({"num_batches": 0}, "`num_batches` must be an integer of at least 1, got 0"),
        ({"seed": -1}, "`seed` must be an integer of at least 0, got -1"),
        ({"num_replicas": 0, "rank": 0}, "`num_replicas` must be an integer of at least 1, got 0"),
        ({"num_replicas": 2, "rank": -1}, "`rank` must be an integer of at least 0, got -1"),
        ({"num_replicas": 2, "rank": 2}, "`rank` must be below `num_replicas`, got 2 of 2"),
        ({"num_replicas": 2}, "`num_replicas` and `rank` must be given together, got 2 and None"),
        ({"rank": 1}, "`num_replicas` and `rank` must be given together, got None and 1"),
        ({"batch_size": 5}, "`batch_size` of 5 in each of 1 processes exceeds the 4 items"),
        ({"num_replicas": 3, "rank": 0}, "`batch_size` of 2 in each of 3 processes exceeds the 4 items"),
        ({"label_weights": torch.tensor([0.0, 0.0])}, "`batch_size` of 2 in each of 1 processes exceeds the 0 items"),
        ({"label_weights": "rare"}, '`label_weights` must be "uniform", "inverse_frequency" or .* got \'rare\''),
        ({"label_weights": torch.ones(3)}, r"`label_weights` must have shape \(2,\), .* got \(3,\)"),
        ({"label_weights": torch.tensor([1.0, -0.5])}, r"finite numbers >= 0, got -0\.5 for label 1"),
        ({"label_weights": np.array([np.nan, 1.0])}, "finite numbers >= 0, got nan for label 0"),
        ({"label_weights": np.array([np.inf, 1.0])}, "finite numbers >= 0, got inf for label 0"),
    ],
)
def test_sampler_refuses_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        MultiLabelBatchSampler(PAIRS, **{"batch_size": 2, **options})


def test_sampler_refuses_an_epoch_below_zero():
    with pytest.raises(ValueError, match="`epoch` must be an integer of at least 0, got -3"):
        MultiLabelBatchSampler(PAIRS, 2).set_epoch(-3)


@pytest.mark.parametrize(
    "read", [lambda labels: MultiLabelBatchSampler(labels, 2), lambda labels: positive_report([[0]], labels)]
)
def test_labels_that_are_no_label_matrix_are_refused(read):
    with pytest.raises(ValueError, match=r"2-D multi-hot matrix of shape \(N, L\), got shape \(4,\)"):
        read(torch.tensor([0, 0, 1, 1]))
    with pytest.raises(ValueError, match=r"must hold numbers in .* got 3\.0 at row 1, label 0"):
        read(torch.tensor([[0, 1], [3, 0]]))
    with pytest.raises(TypeError, match=r"must be a torch\.Tensor or numpy\.ndarray, got list"):
        read([[0, 1], [1, 0]])


def test_sampler_warns_where_no_label_has_two_items():
    with pytest.warns(UserWarning, match="`labels` has no label of two items"):
        sampler = MultiLabelBatchSampler(torch.eye(3), 3)
    assert [sorted(batch) for batch in sampler] == [[0, 1, 2]]


@pytest.mark.parametrize("batches", [[0, 1], [[[0, 1]]]])
def test_report_refuses_what_is_no_list_of_batches(batches):
    with pytest.raises(ValueError, match=r"`batches` must hold lists of item numbers, got (0|\[\[0, 1\]\])\."):
        positive_report(batches, PAIRS)


def test_report_refuses_no_batch_at_all():
    with pytest.raises(ValueError, match="`batches` must hold at least one batch, got 0"):
        positive_report([], PAIRS)


def test_report_refuses_a_similarity_of_another_shape():
    with pytest.raises(ValueError, match=r"`similarity` must return shape \(2, 2\), got \(2,\)"):
        positive_report([[0, 1]], PAIRS, similarity=lambda labels, ref_labels: labels.sum(1))
