"""Several processes on one batch do what one process does on all of it.

Run as a script this file starts 2 and then 3 processes; each runs every function of `CASES` and saves what they return.
The tests compare that with one process. A script of its own, so that processes fork before torch has threads.
"""

import os
import subprocess
import sys
from datetime import timedelta
from functools import partial
from itertools import chain, product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import ContrastiveLoss, MultiSimilarityLoss, TripletMarginLoss
from pytorch_metric_learning.miners import MultiSimilarityMiner, PairMarginMiner
from pytorch_metric_learning.reducers import SumReducer
from pytorch_metric_learning.utils.distributed import DistributedLossWrapper, DistributedMinerWrapper
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from helpers import Killed
from mlmetric.data import BadImagesError, ImageDataset, extract_features
from mlmetric.distributed import gather_objects, gather_rows, num_ranks, on_first_rank, rank, sum_over_ranks
from mlmetric.estimators import MetricClassifier
from mlmetric.heads import ClassifierHead, EmbeddingHead
from mlmetric.losses import MultiLabelCrossBatchMemory, MultiLabelLoss
from mlmetric.metrics import MultiLabelMetrics, RetrievalMetrics
from mlmetric.miners import MultiLabelMiner, MultiLabelSemiHardMiner
from mlmetric.samplers import MultiLabelBatchSampler
from mlmetric.training import TrainingConfig, fit_classifier, fit_embedding, fit_logistic_regression

NUM_ROWS = 12
METRICS = ("euclidean", "cosine")
UNEVEN = {2: [7, 5], 3: [8, 4, 0]}
CAPPED = {"max_partial_per_positive": 1, "max_disjoint_per_positive": 1, "max_triplets_per_anchor": 1}
SETTINGS = {
    "hard": {},
    "hard, capped": CAPPED,
    "all, by the hardest": {"type_of_triplets": "all", "max_disjoint_per_positive": 2},
    "easy, capped": {"type_of_triplets": "easy", "margin": 0.0, **CAPPED},
}
TRAINING = TrainingConfig(max_epochs=4, batch_size=16, seed=1)
SEEDED = [{"random_state": 0}, {"random_state": 0, "n_members": 1, "two_stage": True}]
# Each loss is given the tuple that its miner mined. `MultiLabelLoss` needs none; but `efficient`, without one, has
# pytorch-metric-learning compare the labels, which fails on two dimensions before they come to it.
PAIRS = {
    "contrastive, margin miner": (ContrastiveLoss, PairMarginMiner),
    "contrastive, multi-similarity miner": (ContrastiveLoss, MultiSimilarityMiner),
    "multi-similarity": (MultiSimilarityLoss, MultiSimilarityMiner),
}
COMBINATIONS = [*SETTINGS, *PAIRS]
DTYPES = [
    *(torch.bool, torch.uint8, torch.uint16, torch.uint32, torch.uint64),
    *(torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64, torch.complex128),
]
SUMMED_DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def make_batch(num_rows=NUM_ROWS):
    """Features and labels; the rows 1 and 8 have no label."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(num_rows, 6, generator=generator, dtype=torch.float64)
    labels = (torch.rand(num_rows, 5, generator=generator) < 0.4).long()
    labels[[1, 8]] = 0
    return features, labels


def make_network(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)).double()


def make_distance():
    return LpDistance(normalize_embeddings=False)


def make_miner(setting, **options):
    if setting in PAIRS:
        return MultiLabelMiner(PAIRS[setting][1]())
    settings = {"negative_order": "hardest", **SETTINGS[setting], **options}
    return MultiLabelSemiHardMiner(distance=make_distance(), **settings)


def make_loss(setting, efficient):
    """The mean over triplets, but where each process takes it of its own ones: the sum."""
    reducer = SumReducer() if efficient else None
    if setting in PAIRS:
        return MultiLabelLoss(PAIRS[setting][0](reducer=reducer))
    return TripletMarginLoss(0.3, distance=make_distance(), reducer=reducer)


def gradients(network):
    return [parameter.grad.clone() for parameter in network.parameters()]


def anchor_parts(indices):
    """Which parts of a tuple of triplets or of pairs are anchors."""
    return (0,) if len(indices) == 3 else (0, 2)


# What each process does.


def own_slice():
    size = NUM_ROWS // num_ranks()
    return slice(rank() * size, (rank() + 1) * size)


def in_joined_numbers(indices, efficient):
    """Translate: pytorch-metric-learning puts the rows of a process first, then those of the others."""
    rows = torch.arange(NUM_ROWS)
    own = rows[own_slice()]
    order = torch.cat([own, rows[~torch.isin(rows, own)]])
    anchors = own if efficient else order
    return [(anchors if number in anchor_parts(indices) else order)[part] for number, part in enumerate(indices)]


def wrapped_by_pml(_):
    features, labels = (part[own_slice()] for part in make_batch())
    results = {}
    for setting, efficient in product(COMBINATIONS, (False, True)):
        network = DistributedDataParallel(make_network())
        embeddings = network(features)
        mined = DistributedMinerWrapper(make_miner(setting), efficient=efficient)(embeddings, labels)
        wrapped = DistributedLossWrapper(make_loss(setting, efficient), efficient=efficient)
        loss = wrapped(embeddings, labels if setting in PAIRS else None, mined)
        loss.backward()
        results[setting, efficient] = in_joined_numbers(mined, efficient), loss.item(), gradients(network)
    return results


def take_steps(network, loss, features, labels):
    """Take a loss with a memory of two batches; return the second and its gradients."""
    for step in range(2):
        network.zero_grad()
        result = loss(network(features + step), labels)
        result.backward()
    return result.item(), gradients(network)


def make_memory():
    return MultiLabelCrossBatchMemory(ContrastiveLoss(), 3, 5, memory_size=2 * NUM_ROWS)


def remembered(_):
    features, labels = (part[own_slice()] for part in make_batch())
    network = DistributedDataParallel(make_network())
    return take_steps(network, DistributedLossWrapper(make_memory()), features, labels)


def related(_):
    features, labels = (part[own_slice()] for part in make_batch())
    network, loss = DistributedDataParallel(make_network()), MultiLabelLoss(ContrastiveLoss())
    with pytest.raises(ValueError, match="unpack"):  # in pytorch-metric-learning: see PAIRS
        DistributedLossWrapper(loss, efficient=True)(network(features), labels)
    result = DistributedLossWrapper(loss)(network(features), labels)
    result.backward()
    return result.item(), gradients(network)


def mined_at_random(_):
    features, labels = (part[own_slice()] for part in make_batch())
    embeddings = make_network()(features)
    anchors = []
    for seed in range(20):
        miner = make_miner("easy, capped", positive_order="random", generator=torch.Generator().manual_seed(seed))
        triplets = DistributedMinerWrapper(miner, efficient=True)(embeddings, labels)
        anchors.append(in_joined_numbers(triplets, efficient=True)[0])
    return anchors


def gathered(_):
    parts = [torch.split(part, UNEVEN[num_ranks()])[rank()] for part in make_batch()]
    network = DistributedDataParallel(make_network())
    embeddings, labels = gather_rows(network(parts[0])), gather_rows(parts[1])
    loss = make_loss("hard", False)(embeddings, indices_tuple=make_miner("hard")(embeddings, labels))
    (loss * num_ranks()).backward()
    return loss.item(), gradients(network), labels


def gathered_in_every_dtype(_):
    rows = torch.split(make_batch()[1], UNEVEN[num_ranks()])[rank()]
    sums = [torch.tensor([rank() + 1], dtype=dtype) for dtype in SUMMED_DTYPES]
    sum_over_ranks(sums)
    parts = [rows.to(dtype) for dtype in DTYPES]
    return [gather_rows(part) for part in parts], [gather_rows(part[:, 0]) for part in parts], sums


def refused(_):
    with pytest.raises(ValueError, match=r"same shape on each rank except in the first.*, got \[\(2, 1\), \(2, 2\)"):
        gather_rows(torch.zeros(2, 1 + rank()))
    with pytest.raises(ValueError, match=r"same dtype on each rank, got \[torch\.int64, torch\.int16"):
        gather_rows(torch.zeros(2, 1, dtype=torch.int16 if rank() else torch.int64))
    rows = torch.full((40, 3), float(rank())), torch.ones(40, 2).long()
    head = EmbeddingHead(3, (4, 2))
    with pytest.raises(ValueError, match=r"have the same rows and settings, but inputs differs: .* Pass all rows"):
        fit_embedding(head, *rows, loss=lambda embeddings, _: embeddings.mean())
    head = EmbeddingHead(3, (4, 2), batch_norm=True)
    with pytest.raises(ValueError, match=r"BatchNorm1d\(4.* would see another part of each batch"):
        fit_embedding(head, *make_batch(40), loss=lambda embeddings, _: embeddings.mean())


def first_does(_):
    def fail():
        raise FileExistsError(f"{rank()} was there before")

    with pytest.raises(FileExistsError, match="0 was there before"):
        on_first_rank(fail)
    total = torch.tensor([1.0 + rank()])
    sum_over_ranks([total])
    return rank(), on_first_rank(lambda: f"of {rank()}"), gather_objects(rank()), total.item()


def fit_both(checkpoint=None, dropout=0.0, seed=0):
    """Train both stages on 50 rows: the last batch has two, and a third process none of them."""
    features, labels = make_batch(50)
    features = features.float()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        head = EmbeddingHead(6, (8, 4), dropout=dropout)
        classifier = ClassifierHead(6, 5)
    miner = MultiLabelSemiHardMiner(type_of_triplets="all", positive_order="random", **CAPPED)
    history = fit_embedding(
        head,
        features,
        labels,
        loss=TripletMarginLoss(0.3),
        miner=miner,
        config=TRAINING,
        validation=(features[:9], labels[:9]),
        checkpoint=checkpoint,
        callback=stop_before_the_end if checkpoint is not None and num_ranks() == 1 else None,
    )
    history += fit_classifier(classifier, features, labels, config=TRAINING)
    return history, [*head.state_dict().values(), *classifier.state_dict().values()]


def stop_before_the_end(record):
    if record["epoch"] == 2:
        raise Killed


def fitted(folder):
    checkpoint = folder / f"{num_ranks()}.pt"  # of one process, killed after two epochs
    return fit_both(seed=rank()), fit_both(checkpoint), fit_both(dropout=0.5)


def solved(_):
    """Solve logistic regressions on the rows of the first process, whatever the others have."""
    features, labels = make_batch(50)
    classifier = ClassifierHead(6, 5)
    own = features.float() * (1 + rank())
    history = fit_logistic_regression(classifier, own, labels, validation=(own[:20], labels[:20]))
    try:
        fit_logistic_regression(classifier, own * torch.nan, labels, C=1.0)
    except ValueError as error:
        return history, classifier.state_dict(), str(error)


def make_classifier(**settings):
    head = partial(EmbeddingHead, widths=(8, 4))
    return MetricClassifier(head=head, max_epochs=3, batch_size=16, **{"n_members": 2} | settings)


def estimated(folder):
    features, labels = (part.numpy() for part in make_batch(50))
    np.random.seed(rank())  # noqa: NPY002
    unseeded = make_classifier().fit(features, labels, checkpoint_dir=folder / f"estimator, {num_ranks()}")
    seeded, in_two_stages = (make_classifier(**each).fit(features, labels) for each in SEEDED)
    return [(fitted.history_, fitted.predict_proba(features)) for fitted in (unseeded, seeded, in_two_stages)]


class MeanColour:
    def __init__(self):
        self.seen = 0

    def __call__(self, images):
        self.seen += len(images)
        return images.mean((2, 3))

    def fingerprint(self):
        return "mean colour"


def to_tensor(image):
    return torch.tensor(image.getpixel((0, 0))).float()[:, None, None]


def extracted(folder):
    dataset = ImageDataset(folder, [f"{i}.png" for i in range(11)], transform=to_tensor)
    cache, backbone, progress = folder / f"cache of {num_ranks()}", MeanColour(), []
    options = {"batch_size": 2, "num_workers": 0, "progress": lambda *done: progress.append(done)}
    with pytest.raises(BadImagesError, match=r"1 of 11 images cannot be read; the first: .*4\.png does not exist"):
        extract_features(backbone, dataset, cache, **options)
    seen = backbone.seen
    result = extract_features(backbone, dataset, cache, on_bad_image="skip", **options)
    seen_later, last = backbone.seen, progress[-1]
    parts = list((cache / backbone.fingerprint()).iterdir())
    with pytest.raises(OSError, match=r"[4-8] features of other processes are not in .*alone"):
        extract_features(backbone, dataset, folder / f"alone {num_ranks()}-{rank()}", on_bad_image="skip", **options)
    return torch.from_numpy(result.features.copy()), result.indices.tolist(), seen, seen_later, last, parts


def make_scores():
    """Scores, truth and which entries count: of the first rows, those of the first process, not all."""
    preds, target, mask = torch.rand(3, NUM_ROWS, 5, generator=torch.Generator().manual_seed(0))
    mask[4:] = 0
    preds[1], preds[10] = 0.1, 0.1
    return preds, target < 0.4, mask < 0.8


def measured(_):
    preds, target, mask = (torch.split(part, UNEVEN[num_ranks()])[rank()] for part in make_scores())
    results = {}
    for dtype, threshold in product((torch.float16, torch.float32, torch.float64), (0.1, 0.7)):
        table = MultiLabelMetrics(threshold=threshold)
        if len(preds):
            table.update(preds[:3].to(dtype), target[:3], None if rank() else mask[:3])
            later = preds[3:].to(dtype), target[3:], None if rank() else mask[3:]
            if rank():
                table.update(*later)
            else:  # of its own rows: the others are not asked
                assert table(*later) == MultiLabelMetrics(threshold=threshold)(*later)
        report = table.report(n_resamples=20, generator=torch.Generator().manual_seed(0))
        results[dtype, threshold] = table.compute(), table.per_label(), report.intervals, report.num_averaged
    results["without generator"] = table.report(n_resamples=20).intervals
    table = MultiLabelMetrics()
    if rank() < 2:
        table.update(torch.zeros(2, 2 + rank()), torch.zeros(2, 2 + rank()))
    with pytest.raises(ValueError, match=r"the same columns and dtypes in each process, .*\(2,\).*\(3,\)"):
        table.compute()
    with pytest.raises(ValueError, match="has no rows yet"):
        MultiLabelMetrics().report()
    return results


def retrieved(_):
    features, labels = (torch.split(part, UNEVEN[num_ranks()])[rank()] for part in make_batch())
    within, between = RetrievalMetrics(k=(1, 3)), RetrievalMetrics(k=(1, 3))
    if len(features):
        within.update(features, labels)
        between.update_ref(features[1:], labels[1:])
    if rank() == 1:  # which alone has queries
        between.update(*make_batch())
    return within.compute(), between.compute()


def streamed(_):
    """Values of a database whose parts the processes stream, and the errors where their queries differ."""
    queries, parts = make_batch(), [torch.split(part, UNEVEN[num_ranks()]) for part in make_batch()]
    features, labels = (part[rank()] for part in parts)
    tables = [RetrievalMetrics(k=(1, 3), full_ranking=False, streamed=True, metric=each) for each in METRICS]
    for table in tables:
        table.update(*queries)
        if len(features):
            table.update_ref(features[:2], labels[:2])
            table.update_ref(features[2:], labels[2:])
    soft = RetrievalMetrics(k=(1, 3), full_ranking=False, streamed=True)
    soft.update(queries[0], queries[1].float())
    soft.update_ref(features, labels / (1 + rank()))
    alone = RetrievalMetrics(k=1, full_ranking=False, streamed=True, sync_on_compute=False)
    alone.update(*queries)
    alone.update_ref(queries[0][rank() :], queries[1][rank() :])
    for different in (queries[0] + rank(), None if rank() else queries[0]):
        table = RetrievalMetrics(full_ranking=False, streamed=True)
        if different is not None:
            table.update(different, queries[1])
        with pytest.raises(ValueError, match="`update` must add the same queries in each process"):
            table.compute()
    with pytest.raises(ValueError, match="has no queries yet"):
        RetrievalMetrics(full_ranking=False, streamed=True).compute()
    empty = RetrievalMetrics(full_ranking=False, streamed=True)
    empty.update(*queries)
    with pytest.raises(ValueError, match="`streamed=True` requires a database"):
        empty.compute()
    return [table.compute() for table in (*tables, soft, alone)], tables[0].report(n_resamples=20).intervals


def sampled(_):
    """Batches of samplers whose generators differ between the processes."""
    torch.manual_seed(rank())
    samplers = [MultiLabelBatchSampler(make_batch()[1], 2, items_per_label=1) for _ in range(2)]
    samplers.append(
        MultiLabelBatchSampler(make_batch()[1], 2, items_per_label=1, generator=torch.Generator().manual_seed(rank()))
    )
    for sampler in samplers:
        sampler.set_epoch(1)
    return [list(sampler) for sampler in samplers]


def uneven_in_pml(_):
    features, labels = (torch.split(part, UNEVEN[num_ranks()])[rank()] for part in make_batch())
    return DistributedMinerWrapper(make_miner("hard"))(features, labels)


CASES = [
    wrapped_by_pml,
    related,
    remembered,
    mined_at_random,
    gathered,
    gathered_in_every_dtype,
    refused,
    first_does,
    fitted,
    estimated,
    solved,
    extracted,
    measured,
    retrieved,
    streamed,
    sampled,
]


def work(number, num_processes, folder, cases):
    torch.set_num_threads(1)
    store = f"file://{folder}/store of {num_processes} for {len(cases)}"
    patience = timedelta(seconds=60)
    distributed.init_process_group("gloo", store, patience, num_processes, number)
    results = {case.__name__: case(folder) for case in cases}
    torch.save(results, folder / f"{num_processes}-{number}.pt")
    distributed.destroy_process_group()


def start(num_processes, folder, cases):
    arguments = (num_processes, folder, cases)
    torch.multiprocessing.start_processes(work, arguments, nprocs=num_processes, start_method="fork")


if __name__ == "__main__":
    try:
        start(2, Path(sys.argv[1]), [uneven_in_pml])
    except (torch.multiprocessing.ProcessRaisedException, torch.multiprocessing.ProcessExitedException) as error:
        Path(sys.argv[1], "uneven").write_text(str(error))
    for count in (2, 3):
        start(count, Path(sys.argv[1]), CASES)
    sys.exit()


# What the tests compare.


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each process returned: by how many there were, then by rank, then by case."""
    folder = tmp_path_factory.mktemp("ranks")
    for i in set(range(11)) - {4}:
        Image.new("RGB", (4, 4), (i, 2 * i, 0)).save(folder / f"{i}.png")
    for count in (2, 3):
        with pytest.raises(Killed):
            fit_both(folder / f"{count}.pt")
    subprocess.run(
        [sys.executable, __file__, str(folder)], check=True, timeout=180, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    return {"uneven": folder / "uneven", "folder": folder} | {
        count: [torch.load(folder / f"{count}-{number}.pt", weights_only=False) for number in range(count)]
        for count in (2, 3)
    }


@pytest.fixture(params=[2, 3], ids=lambda count: f"{count} processes")
def joined(ranks, request):
    return ranks[request.param]


def on_one_process(setting, efficient, count):
    """What is mined in the joined batch, its loss and its gradients.

    With `efficient` each process knows its own anchors only, and takes what it got from the others for constants: so
    pytorch-metric-learning documents it. There the gradients are the sum over processes of those of its own anchors,
    with the rows of the others detached; the loss is that of the joined batch all the same.
    """
    features, labels = make_batch()
    network = make_network()
    embeddings = network(features)
    mined = make_miner(setting)(embeddings, labels)
    loss = make_loss(setting, efficient)(embeddings, indices_tuple=mined)
    if not efficient:
        loss.backward()
        return mined, loss.item(), gradients(network)
    rank_of_row = torch.arange(NUM_ROWS) // (NUM_ROWS // count)
    for number in range(count):
        embeddings = network(features)
        seen = torch.where((rank_of_row == number)[:, None], embeddings, embeddings.detach())
        make_loss(setting, efficient)(seen, indices_tuple=of_anchors(mined, rank_of_row == number)).backward()
    return mined, loss.item(), gradients(network)


def of_anchors(indices, chosen):
    """Keep the triplets or pairs of these anchors."""
    first = anchor_parts(indices)
    ends = (*first[1:], len(indices))
    return [part[chosen[indices[a]]] for a, end in zip(first, ends, strict=True) for part in indices[a:end]]


def as_set(indices):
    """The triplets, or the positive and the negative pairs."""
    first = anchor_parts(indices)
    ends = (*first[1:], len(indices))
    listed = [
        (a, *row)
        for a, end in zip(first, ends, strict=True)
        for row in zip(*(part.tolist() for part in indices[a:end]), strict=True)
    ]
    assert len(set(listed)) == len(listed)
    return set(listed)


@pytest.mark.parametrize("efficient", [False, True])
@pytest.mark.parametrize("setting", COMBINATIONS)
def test_wrapped_miner_and_loss_give_tuple_loss_and_gradients_of_the_joined_batch(joined, setting, efficient):
    mined, loss, expected = on_one_process(setting, efficient, len(joined))
    results = [result["wrapped_by_pml"][setting, efficient] for result in joined]
    found = [as_set(result[0]) for result in results]
    if efficient:
        assert set().union(*found) == as_set(mined)
        assert sum(map(len, found)) == len(as_set(mined)) > NUM_ROWS / 2
    else:
        assert all(one == as_set(mined) for one in found)
    # The wrapper multiplies by the number of processes, because the gradients are averaged.
    losses = [result[1] / len(joined) for result in results]
    assert (sum(losses) if efficient else losses[0]) == pytest.approx(loss, rel=1e-12)
    for _, _, found_gradients in results:
        torch.testing.assert_close(found_gradients, expected, rtol=1e-10, atol=1e-12)


def assert_of_joined_batch(found, expected, count):
    assert found[0] / count == pytest.approx(expected[0], rel=1e-12)
    torch.testing.assert_close(found[1], expected[1], rtol=1e-10, atol=1e-12)


def test_wrapped_loss_by_its_relation_is_that_of_the_joined_batch(joined):
    network = make_network()
    features, labels = make_batch()
    loss = MultiLabelLoss(ContrastiveLoss())(network(features), labels)
    loss.backward()
    for result in joined:
        assert_of_joined_batch(result["related"], (loss.item(), gradients(network)), len(joined))


def test_wrapped_memory_is_that_of_the_joined_batches(joined):
    expected = take_steps(make_network(), make_memory(), *make_batch())
    for result in joined:
        assert_of_joined_batch(result["remembered"], expected, len(joined))


def test_efficient_mining_at_random_spends_no_cap_on_the_anchor_itself(joined):
    features, labels = make_batch()
    anchors, _, _ = make_miner("easy, capped")(make_network()(features), labels)
    for draws in zip(*(result["mined_at_random"] for result in joined), strict=True):
        assert torch.cat(draws).sort().values.tolist() == anchors.tolist()


def test_wrapped_miner_of_uneven_batches_ends_the_processes(ranks):
    """Before the miner sees a row; with gloo. `gather_rows` is for them."""
    assert ranks["uneven"].exists()


def test_gathered_rows_of_uneven_batches_give_loss_and_gradients_of_the_joined_batch(joined):
    _, expected_loss, expected = on_one_process("hard", False, len(joined))
    labels = make_batch()[1]
    for result in joined:
        loss, found, joined_labels = result["gathered"]
        assert loss == pytest.approx(expected_loss, rel=1e-12)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
        assert torch.equal(joined_labels, labels)


def test_rows_of_every_dtype_are_gathered_and_numbers_added_up(joined):
    labels, total = make_batch()[1], len(joined) * (len(joined) + 1) / 2
    for result in joined:
        matrices, columns, sums = result["gathered_in_every_dtype"]
        for matrix, column, dtype in zip(matrices, columns, DTYPES, strict=True):
            assert (matrix.dtype, column.dtype) == (dtype, dtype)
            assert matrix.to(torch.complex64).tolist() == labels.tolist()
            assert column.to(torch.complex64).tolist() == labels[:, 0].tolist()
        assert [each.dtype for each in sums] == SUMMED_DTYPES
        assert [each.to(torch.complex64).item() for each in sums] == [total] * len(sums)


def test_first_rank_does_for_all(joined):
    count = len(joined)
    for number, result in enumerate(joined):
        assert result["first_does"] == (number, "of 0", list(range(count)), count * (count + 1) / 2)


def assert_same_fit(found, expected):
    for record, expected_record in zip(found[0], expected[0], strict=True):
        assert record == pytest.approx(expected_record, rel=1e-4)
    torch.testing.assert_close(found[1], expected[1], rtol=1e-4, atol=1e-6)


def test_fit_in_each_process_is_the_fit_of_one(joined):
    expected = fit_both()
    for result in joined:
        straight, resumed, _ = result["fitted"]
        assert_same_fit(straight, expected)
        assert_same_fit(resumed, expected)


def test_fit_with_dropout_ends_with_the_same_module_in_each_process(joined):
    first, *others = (result["fitted"][2] for result in joined)
    assert first[0][0]["loss"] != pytest.approx(fit_both()[0][0]["loss"], rel=1e-3)
    for other in others:
        assert other[0] == first[0]
        torch.testing.assert_close(other[1], first[1], rtol=0, atol=0)


def test_estimator_has_the_same_fit_in_each_process_and_one_of_them_writes_its_checkpoints(joined, ranks):
    features, labels = (part.numpy() for part in make_batch(50))
    expected = [make_classifier(**each).fit(features, labels).predict_proba(features) for each in SEEDED]
    first = joined[0]["estimated"]
    for result in joined:
        for (history, probabilities), (expected_history, expected_probabilities) in zip(
            result["estimated"], first, strict=True
        ):
            assert history == expected_history
            np.testing.assert_array_equal(probabilities, expected_probabilities)
        for (_, probabilities), alone in zip(result["estimated"][1:], expected, strict=True):
            np.testing.assert_allclose(probabilities, alone, rtol=1e-3, atol=1e-5)
    files = (ranks["folder"] / f"estimator, {len(joined)}").iterdir()
    assert sorted(file.name for file in files) == [
        "classifier_ensemble.pt",
        "embedding_1.pt",
        "embedding_2.pt",
        "seeds.json",
    ]


def test_logistic_regression_in_each_process_is_that_of_the_first(joined):
    history, state, _ = solved(None)
    for found, found_state, error in (result["solved"] for result in joined):
        assert found == history
        assert all(torch.equal(found_state[name], value) for name, value in state.items())
        assert error == "`features` must be finite, got NaN or infinity."


def test_extract_computes_each_image_in_one_process_and_gives_all_of_them_to_each(joined):
    kept = [i for i in range(11) if i != 4]
    shares = {2: [6, 5], 3: [4, 4, 3]}[len(joined)]
    for number, result in enumerate(joined):
        features, indices, seen, seen_later, progress, parts = result["extracted"]
        assert indices == kept
        assert features.tolist() == [[i, 2 * i, 0] for i in kept]
        assert seen_later == seen
        assert progress == (shares[number], shares[number])
        assert len(parts) == 1
    assert sum(result["extracted"][2] for result in joined) == 10


@pytest.mark.parametrize("threshold", [0.1, 0.7])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_table_of_uneven_rows_is_that_of_one_process(joined, dtype, threshold):
    preds, target, mask = make_scores()
    table = MultiLabelMetrics(threshold=threshold)
    table.update(preds.to(dtype), target, mask)
    report = table.report(n_resamples=20, generator=torch.Generator().manual_seed(0))
    expected = table.compute(), table.per_label(), report.intervals, report.num_averaged
    for result in joined:
        for found, values in zip(result["measured"][dtype, threshold], expected, strict=True):
            torch.testing.assert_close(found, values, rtol=0, atol=0, equal_nan=True)


def test_report_uses_the_same_resamples_in_all_processes(joined):
    first, *others = [result["measured"]["without generator"] for result in joined]
    assert all(other == first for other in others)


def test_retrieval_of_uneven_rows_is_that_of_one_process(joined):
    features, labels = make_batch()
    within, between = RetrievalMetrics(k=(1, 3)), RetrievalMetrics(k=(1, 3))
    within.update(features, labels)
    between.update(features, labels)
    first = UNEVEN[len(joined)][0]
    kept = [row for row in range(NUM_ROWS) if row not in (0, first)]
    between.update_ref(features[kept], labels[kept])
    for result in joined:
        for found, table in zip(result["retrieved"], (within, between), strict=True):
            torch.testing.assert_close(found, table.compute(), rtol=0, atol=1e-12)


def test_streamed_retrieval_of_parts_is_that_of_one_process(joined):
    (features, labels), sizes = make_batch(), UNEVEN[len(joined)]
    divisors = torch.arange(1, 1 + len(sizes)).repeat_interleave(torch.tensor(sizes))[:, None]
    expected = []
    for options, refs in [
        *(({"metric": metric}, (features, labels)) for metric in METRICS),
        ({}, (features, labels / divisors)),
    ]:
        table = RetrievalMetrics(k=(1, 3), full_ranking=False, **options)
        table.update(features, labels.to(refs[1].dtype))
        table.update_ref(*refs)
        expected.append(table.compute())
    for number, result in enumerate(joined):
        (*values, alone), intervals = result["streamed"]
        torch.testing.assert_close(values, expected, rtol=0, atol=1e-12, equal_nan=True)
        assert intervals == joined[0]["streamed"][1]
        table = RetrievalMetrics(k=1, full_ranking=False)
        table.update(features, labels)
        table.update_ref(features[number:], labels[number:])
        torch.testing.assert_close(alone, table.compute(), rtol=0, atol=1e-12)


def test_batch_samplers_of_all_processes_use_the_base_seed_of_the_first(joined):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        samplers = [MultiLabelBatchSampler(make_batch()[1], 2 * len(joined), items_per_label=1) for _ in range(2)]
    samplers.append(samplers[0])  # the generator with the seed 0 of the first process
    for number, sampler in enumerate(samplers):
        sampler.set_epoch(1)
        slices = zip(*(result["sampled"][number] for result in joined), strict=True)
        assert [list(chain(*parts)) for parts in slices] == list(sampler)
    assert list(samplers[0]) != list(samplers[1])


def test_one_process_that_is_not_joined_is_left_as_it_is():
    rows = torch.ones(2, 3)
    sum_over_ranks([rows])
    assert gather_rows(rows) is rows
    assert (rank(), num_ranks(), gather_objects("a"), on_first_rank(lambda: "b")) == (0, 1, ["a"], "b")
