"""The cross-batch memory against pytorch-metric-learning on one-hot labels, and against a list of past batches."""

import copy
import io
import math
import pickle

import pytest
import torch
from pytorch_metric_learning import distances, losses, miners
from pytorch_metric_learning.utils.distributed import DistributedLossWrapper
from scipy import sparse
from torch.nn.functional import one_hot

from mlmetric import similarity as sim
from mlmetric.losses import MultiLabelCrossBatchMemory, MultiLabelLoss, SimilarityRegressionLoss
from mlmetric.miners import MultiLabelSemiHardMiner

RANKED_LIST = {"margin": 0.5, "Tn": 2}
THEIRS = losses.CrossBatchMemory.supported_losses()
HERE = [*THEIRS, "DynamicSoftMarginLoss", "FastAPLoss", "GenericPairLoss", "PNPLoss", "RankedListLoss"]

pytestmark = pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")


def build(name):
    return getattr(losses, name)(**(RANKED_LIST if name == "RankedListLoss" else {})).double()


def memory_of(loss, memory_size=20, **arguments):
    return MultiLabelCrossBatchMemory(loss, embedding_size=5, num_labels=4, memory_size=memory_size, **arguments)


def recording(seen):
    """Return a loss that records the pairs that it is given."""

    class Recording(losses.ContrastiveLoss):
        def _compute_loss(self, pos_pair_dist, neg_pair_dist, indices_tuple):
            seen.append(indices_tuple)
            return super()._compute_loss(pos_pair_dist, neg_pair_dist, indices_tuple)

    return Recording()


def steps(sizes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for size in sizes:
        embeddings = torch.randn(size, 5, generator=generator, dtype=torch.float64)
        yield embeddings, torch.randint(0, 4, (size,), generator=generator)


def label_sets(sizes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for size in sizes:
        labels = (torch.rand(size, 4, generator=generator) < 0.4).long()
        yield torch.randn(size, 5, generator=generator, dtype=torch.float64), labels


def value_and_gradient(loss, embeddings, *arguments, **keywords):
    embeddings = embeddings.clone().requires_grad_()
    value = loss(embeddings, *arguments, **keywords)
    return value.detach(), torch.autograd.grad(value, embeddings)[0]


SIZES = [8, 8, 8, 5, 7, 8]  # of 20: not a divisor; wraps around within a batch, more than once


# In pytorch-metric-learning, NCALoss uses a row's own entry as its positive, and LiftedStructureLoss interprets
# positions in the memory as rows of the batch.
@pytest.mark.parametrize("name", [name for name in THEIRS if name not in ("NCALoss", "LiftedStructureLoss")])
def test_memory_with_one_hot_labels_equals_pytorch_metric_learning_step_by_step(name):
    theirs = losses.CrossBatchMemory(build(name), embedding_size=5, memory_size=20)
    ours = memory_of(build(name))
    for embeddings, ids in steps(SIZES):
        expected = value_and_gradient(theirs, embeddings, ids)
        torch.testing.assert_close(value_and_gradient(ours, embeddings, one_hot(ids, 4)), expected)
        assert expected[0] > 0
        torch.testing.assert_close(ours.embedding_memory, theirs.embedding_memory)
        assert ours.queue_idx == theirs.queue_idx
        assert ours.has_been_filled == theirs.has_been_filled


def test_memory_with_a_mask_equals_pytorch_metric_learning_step_by_step():
    theirs = losses.CrossBatchMemory(build("NCALoss"), embedding_size=5, memory_size=20)
    ours = memory_of(build("NCALoss"))
    for step, (embeddings, ids) in enumerate(steps([12] * 5)):
        mask = torch.arange(12) % 3 < 1 + step % 2
        expected = value_and_gradient(theirs, embeddings, ids, enqueue_mask=mask)
        torch.testing.assert_close(value_and_gradient(ours, embeddings, one_hot(ids, 4), enqueue_mask=mask), expected)
        assert expected[1][mask].abs().sum() == 0 < expected[1].abs().sum()


def test_supported_losses_are_those_of_pytorch_metric_learning_and_others_that_support_refs():
    assert sorted(MultiLabelCrossBatchMemory.supported_losses()) == sorted(HERE)


@pytest.mark.parametrize("name", [name for name in HERE if name != "GenericPairLoss"])
def test_memory_equals_the_loss_against_a_list_of_the_last_items(name):
    loss = MultiLabelLoss(build(name), similarity=sim.Jaccard(), positive_threshold=0.4, negative_threshold=0.1)
    ours = memory_of(copy.deepcopy(loss))
    past_emb, past_labels = torch.zeros(0, 5, dtype=torch.float64), torch.zeros(0, 4, dtype=torch.int64)
    for embeddings, labels in label_sets(SIZES):
        past_emb, past_labels = past_emb[-(20 - len(labels)) :], past_labels[-(20 - len(labels)) :]
        ref_emb, ref_labels = torch.cat([embeddings, past_emb]), torch.cat([labels, past_labels])
        expected = value_and_gradient(loss, embeddings, labels, None, ref_emb, ref_labels, ref_includes_query=True)
        value = value_and_gradient(ours, embeddings, labels)
        torch.testing.assert_close(value, expected)
        assert value[1].abs().sum() > 0
        past_emb, past_labels = torch.cat([past_emb, embeddings]), torch.cat([past_labels, labels])


def test_memory_excludes_own_entries_before_the_caps_of_a_miner():
    # With this similarity equal label sets are negatives, and the nearest of them is a row's own entry: a cap of one
    # negative would leave nothing if the own entry were removed afterwards.
    distance = distances.LpDistance(normalize_embeddings=False)
    miner = MultiLabelSemiHardMiner(
        similarity=lambda a, b: 1 - 0.5 * (torch.cdist(a.float(), b.float()) == 0).float(),
        positive_threshold=0.9,
        max_partial_per_positive=1,
        negative_order="hardest",
        distance=distance,
    )
    ours, seen = memory_of(losses.TripletMarginLoss(margin=0.1, distance=distance), miner=miner), []
    ours.loss.loss.register_forward_pre_hook(lambda module, arguments: seen.append(arguments))
    for embeddings, labels in label_sets(SIZES):
        labels[:, 1:] = 0
        ours(embeddings, labels)
        _, _, (anchors, positives, negatives), refs = seen[-1]
        assert torch.equal(refs[: len(embeddings)], embeddings)
        assert len(anchors) > 0
        assert (anchors != positives).all()
        assert (anchors != negatives).all()


def test_memory_removes_self_pairs_of_other_miners_afterwards():
    class EveryPair(miners.BaseMiner):
        def __init__(self, triplets):
            super().__init__()
            self.triplets = triplets

        def forward(self, embeddings, labels, ref_emb, ref_labels):
            pairs = torch.cartesian_prod(torch.arange(len(embeddings)), torch.arange(len(ref_emb))).T
            if self.triplets:
                return (*pairs, (pairs[1] + 1) % len(ref_emb))
            return (*pairs, *pairs)

    for triplets in (True, False):
        seen = []
        ours = memory_of(recording(seen), miner=EveryPair(triplets))
        for embeddings, labels in label_sets([6, 6]):
            ours(embeddings, labels)
        expected = [(a, p) for a in range(6) for p in range(12) if p != a]
        if triplets:
            expected = [(a, p, p_next) for a, p in expected if (p_next := (p + 1) % 12) != a]
            anchors, positives, same_anchors, negatives = (part.tolist() for part in seen[-1])
            assert list(zip(anchors, positives, negatives, strict=True)) == expected
            assert same_anchors == anchors
        else:
            for pairs in (seen[-1][:2], seen[-1][2:]):
                assert list(zip(*(part.tolist() for part in pairs), strict=True)) == expected
        mask = torch.tensor([True, False])
        ours(torch.ones(2, 5, dtype=torch.float64), torch.ones(2, 4).long(), enqueue_mask=mask)
        assert len(seen[-1][0]) == 13  # without own entries, each of the refs is another item


@pytest.mark.parametrize("kind", ["pairs", "triplets"])
@pytest.mark.parametrize("mined", ["pairs", "triplets"])
def test_memory_adds_a_tuple_of_the_batch_at_every_step(mined, kind):
    seen = []
    if mined == "pairs":
        ours = memory_of(recording(seen))
    else:
        ours = memory_of(build("TripletMarginLoss"), miner=MultiLabelSemiHardMiner())
        ours.loss.loss.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[2]))
    triplets = (torch.tensor([0, 1]), torch.tensor([2, 3]), torch.tensor([4, 0]))
    pairs = (*triplets[:2], triplets[0], triplets[2])
    for embeddings, labels in label_sets(SIZES):
        copy.deepcopy(ours)(embeddings, labels)
        ours(embeddings, labels, triplets if kind == "triplets" else pairs)
        for alone, part, more in zip(*seen[-2:], pairs if mined == "pairs" else triplets, strict=True):
            assert part.tolist() == alone.tolist() + more.tolist()


def test_memory_detaches_stored_embeddings():
    ours = memory_of(build("ContrastiveLoss"))
    leaves = []
    for embeddings, labels in label_sets([6, 6]):
        leaves.append(embeddings.requires_grad_())
        value = ours(embeddings, labels)
    value.backward()
    assert leaves[0].grad is None
    assert leaves[1].grad.abs().sum() > 0
    assert not ours.embedding_memory.requires_grad


def test_memory_with_an_empty_or_a_full_mask():
    ours = memory_of(build("NCALoss"))
    embeddings, labels = next(label_sets([6]))
    none = torch.zeros(6, dtype=torch.bool)
    assert ours(embeddings, labels, enqueue_mask=none) == 0
    assert (ours.queue_idx, ours.has_been_filled) == (0, False)
    assert ours(embeddings, labels, enqueue_mask=~none) == 0  # no anchors are left
    assert ours.queue_idx == 6
    assert ours(embeddings, labels, enqueue_mask=none) > 0


DTYPES = [torch.bool, torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES)
def test_memory_keeps_soft_labels_after_a_batch_of_labels_of_any_dtype(dtype):
    ours = MultiLabelCrossBatchMemory(SimilarityRegressionLoss(), embedding_size=2, num_labels=2)
    ours(torch.eye(2), torch.tensor([[0.7, 0.3], [0.4, 0.6]]))
    value = ours(torch.tensor([[1.0, 1.0], [0.2, 1.0]]), torch.tensor([[1, 0], [1, 1]]).to(dtype))
    # Each of the two rows against the other one and the two of the past.
    jaccard = [1 / 2, 0.7 / 1.3, 0.4 / 1.6, 1 / 2, 1 / 2, 1 / 2]
    length = math.sqrt(1.04)
    between = 1.2 / math.sqrt(2) / length
    cosines = [between, math.sqrt(0.5), math.sqrt(0.5), between, 0.2 / length, 1 / length]
    expected = sum((c - s) ** 2 for c, s in zip(cosines, jaccard, strict=True)) / 6
    assert value.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("second", DTYPES)
@pytest.mark.parametrize("first", DTYPES)
def test_memory_stores_labels_and_embeddings_of_all_batches_exactly(first, second):
    ours = memory_of(losses.ContrastiveLoss(), memory_size=4)
    entries = []
    for dtype in (first, second):
        embeddings, labels = torch.full((2, 5), 1 / 3), torch.full((2, 4), 0.3)
        embeddings = embeddings.to(dtype) if dtype.is_floating_point else embeddings
        entries.append((embeddings, labels.to(dtype) if dtype.is_floating_point else labels.ceil().to(dtype)))
        ours(*entries[-1])
    for i, (embeddings, labels) in enumerate(entries):
        rows = slice(2 * i, 2 * i + 2)
        torch.testing.assert_close(ours.embedding_memory[rows].double(), embeddings.double(), rtol=0, atol=0)
        torch.testing.assert_close(ours.label_memory[rows].double(), labels.double(), rtol=0, atol=0)
    other = memory_of(losses.ContrastiveLoss(), memory_size=4)
    other.load_state_dict(ours.state_dict())
    torch.testing.assert_close(other.label_memory, ours.label_memory, rtol=0, atol=0)
    torch.testing.assert_close(other.embedding_memory, ours.embedding_memory, rtol=0, atol=0)
    ours.reset_queue()
    ours(*entries[-1])
    assert ours.label_memory.dtype == second


def test_memory_of_float64_leaves_the_loss_in_the_dtype_of_the_batch():
    ours = memory_of(build("NCALoss"))
    for embeddings, labels in label_sets([6, 6]):
        ours(embeddings, labels)
    assert ours(embeddings.float(), labels).dtype == torch.float32
    assert ours(embeddings.half(), labels).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_memory_with_few_rows_gives_the_formula_of_the_loss(dtype):
    rows = torch.tensor([[1.0, 0.0], [0.5, 1.0], [-0.25, 1.0]], dtype=dtype)  # in bfloat16, too, these very numbers
    (a, b, c), ids = rows.double().tolist(), torch.tensor([0, 1, 0])
    near, far = (
        sum(x * y for x, y in zip(c, other, strict=True)) / math.hypot(*c) / math.hypot(*other) for other in (a, b)
    )
    expected = {
        "ContrastiveLoss": math.sqrt(2 - 2 * near) + max(0, 1 - math.sqrt(2 - 2 * far)),
        "SupConLoss": math.log1p(math.exp((far - near) / 0.1)),
        "MultiSimilarityLoss": math.log1p(math.exp(-2 * (near - 0.5))) / 2
        + math.log1p(math.exp(50 * (far - 0.5))) / 50,
        "NTXentLoss": math.log1p(math.exp((far - near) / 0.07)),
    }
    for name, value in expected.items():
        ours = MultiLabelCrossBatchMemory(getattr(losses, name)(), embedding_size=2, num_labels=2)
        for row, label in zip(rows.split(1), ids.split(1), strict=True):
            leaf = row.clone().requires_grad_()
            last = ours(leaf, one_hot(label, 2))
        assert last.item() == pytest.approx(value, rel=1e-5)
        last.backward()
        assert leaf.grad.dtype == dtype
        assert leaf.grad.abs().sum() > 0


def test_memory_is_empty_after_a_reset():
    ours = memory_of(build("ContrastiveLoss"))
    embeddings, labels = next(label_sets([8]))
    first = ours(embeddings, labels)
    for more in label_sets(SIZES, seed=1):
        ours(*more)
    ours.reset_queue()
    assert (ours.queue_idx, ours.has_been_filled, ours.label_memory.shape) == (0, False, (20, 4))
    torch.testing.assert_close(ours(embeddings, labels), first)


def through_a_file(memory):
    buffer = io.BytesIO()
    torch.save(memory.state_dict(), buffer)
    buffer.seek(0)
    other = memory_of(build("MarginLoss")).double()
    other.load_state_dict(torch.load(buffer, weights_only=True))
    return other


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda memory: pickle.loads(pickle.dumps(memory)), through_a_file])
@pytest.mark.parametrize("num_steps", [1, 4])
def test_memory_continues_after_a_copy_or_a_checkpoint(copied, num_steps):
    memory = memory_of(build("MarginLoss"))
    *past, (embeddings, labels) = label_sets(SIZES[: num_steps + 1])
    for batch in past:
        memory(*batch)
    other = copied(memory)
    expected = memory(embeddings, labels)
    assert expected > 0
    torch.testing.assert_close(other(embeddings, labels), expected)


def test_memory_state_dict_has_the_keys_of_pytorch_metric_learning_and_the_position():
    loss = losses.MarginLoss(learn_beta=True)
    theirs = losses.CrossBatchMemory(copy.deepcopy(loss), embedding_size=5)
    assert {*memory_of(loss).state_dict()} == {*theirs.state_dict(), "_extra_state"}


def test_memory_works_in_the_distributed_wrapper():
    embeddings, labels = next(label_sets([8]))
    ours = memory_of(build("ContrastiveLoss"))
    assert DistributedLossWrapper(ours).loss is ours
    with pytest.raises(ValueError, match="not currently supported"):
        DistributedLossWrapper(ours, efficient=True)
    assert ours(embeddings, labels) > 0


@pytest.mark.parametrize("convert", [torch.Tensor.numpy, torch.Tensor.tolist, lambda rows: sparse.csr_array(rows)])
def test_memory_takes_labels_of_every_kind(convert):
    of_tensors, of_others = memory_of(build("ContrastiveLoss")), memory_of(build("ContrastiveLoss"))
    for embeddings, labels in label_sets([6, 6]):
        assert of_others(embeddings, convert(labels)) == of_tensors(embeddings, labels)
    with pytest.raises(TypeError, match=r"`labels` must .*MultiLabelBinarizer"):
        of_others(embeddings, [["a"], ["a", "b"]])


def test_memory_representation_shows_its_parameters():
    lines = str(memory_of(build("ContrastiveLoss"), miner=MultiLabelSemiHardMiner())).splitlines()
    assert lines[1] == "  embedding_size=5, num_labels=4, memory_size=20"
    assert "    similarity=InnerProduct(), positive_threshold=0.0, negative_threshold=0.0" in lines


LOSS = losses.ContrastiveLoss()


@pytest.mark.parametrize(
    ("loss", "arguments", "error", "message"),
    [
        (losses.HistogramLoss(), {}, ValueError, "`HistogramLoss` does not support `ref_emb`"),
        (losses.ThresholdConsistentMarginLoss(), {}, ValueError, "`ThresholdConsistentMarginLoss` does not support"),
        (losses.ProxyAnchorLoss(3, 5), {}, ValueError, "`ProxyAnchorLoss` does not support `ref_emb`"),
        (losses.TripletMarginLoss(swap=True), {}, ValueError, "`swap=True` does not support `ref_emb`"),
        (losses.NPairsLoss(), {}, ValueError, "`NPairsLoss` does not support multi-label data.*`NTXentLoss`"),
        (losses.PNPLoss(), {"miner": MultiLabelSemiHardMiner()}, ValueError, "`miner` must be None for `PNPLoss`"),
        (torch.nn.L1Loss(), {}, TypeError, "got L1Loss"),
        (LOSS, {"miner": 3}, TypeError, "`miner` must be a miner, got int"),
        (LOSS, {"memory_size": 0}, ValueError, "`memory_size` must be an integer >= 1, got 0"),
        (LOSS, {"positive_threshold": 0, "negative_threshold": 1}, ValueError, "must not exceed .* got 1 and 0"),
        (MultiLabelLoss(LOSS), {"positive_threshold": 1.0}, ValueError, "must be set in the MultiLabelLoss"),
        (MultiLabelLoss(LOSS), {"similarity": sim.Jaccard()}, ValueError, "must be set in the MultiLabelLoss"),
    ],
)
def test_memory_constructor_names_what_is_wrong(loss, arguments, error, message):
    with pytest.raises(error, match=message):
        memory_of(loss, **arguments)


EMBEDDINGS, LABELS, MASK = torch.zeros(3, 5), torch.zeros(3, 4), torch.zeros(3, dtype=torch.bool)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((EMBEDDINGS, LABELS[0]), r"`labels` must be a 2-D .* got shape \(4,\)"),
        ((EMBEDDINGS, LABELS[:, :3]), r"must have 4 columns \(`num_labels`\), got 3"),
        ((EMBEDDINGS[:, :4], LABELS), r"`embeddings` must have shape \(3, 5\), got \(3, 4\)"),
        ((EMBEDDINGS, LABELS, (MASK.long(),) * 3, MASK), "must not both be given, got both"),
        ((EMBEDDINGS, LABELS, None, MASK.long()), r"must be bool of shape \(3,\), got torch.int64"),
        ((EMBEDDINGS, LABELS, None, MASK[:2]), r"must be bool of shape \(3,\), got torch.bool of shape \(2,\)"),
        (
            (EMBEDDINGS.repeat(7, 1), LABELS.repeat(7, 1)),
            "`memory_size` must be at least the number of rows added, 21, got 20",
        ),
    ],
)
def test_memory_names_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        memory_of(LOSS)(*arguments)


@pytest.mark.parametrize("bad", [2.0, math.inf])
def test_memory_does_not_store_labels_that_raise_an_error(bad):
    memory = memory_of(build("ContrastiveLoss"))
    with pytest.raises(ValueError, match=rf"`labels` must contain numbers in \[0, 1\], got {bad} at row 0, label 0"):
        memory(EMBEDDINGS, torch.full_like(LABELS, bad))
    assert memory.queue_idx == 0
    assert not memory.label_memory.any()
