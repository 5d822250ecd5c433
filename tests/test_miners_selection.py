"""The ways to find candidates and to draw some of them: the same triplets, and the same probabilities."""

import math
from collections import Counter, defaultdict
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning.distances import LpDistance

from mlmetric import similarity as sim
from mlmetric.miners import MultiLabelSemiHardMiner
from mlmetric.miners import _anchor_chunk as chunk_module
from mlmetric.miners import _negative_lists as lists_module
from mlmetric.miners import _triplet_selection as selection_module
from mlmetric.miners._sampling import sample_without_replacement

NEVER, ALWAYS = 2**62, -1
# Constants of the two modules that force a way to find candidates.
WAYS_TO_FIND = {
    "matrix with a table": ({}, {"_RANGE_COST": NEVER}),
    "matrix": ({}, {"_RANGE_COST": NEVER, "_LARGEST_TABLE": 0}),
    "ranges": ({}, {"_RANGE_COST": 0}),
}
# And a way to draw one of them.
WAYS_TO_DRAW = {
    "from all candidates": ({"_DRAW_ELEMENTS": NEVER}, {}),
    "by distance, then exactly": ({"_DRAW_ELEMENTS": ALWAYS}, {"_EXACT_SHARE": 1}),
    "by distance or similarity": ({"_DRAW_ELEMENTS": ALWAYS}, {"_EXACT_SHARE": NEVER, "_ROUNDS": 30}),
    "by all in turn": ({"_DRAW_ELEMENTS": ALWAYS}, {"_EXACT_SHARE": NEVER, "_ROUNDS": 1}),
}


def mine(way, miner, given_batch, elements=None):
    with pytest.MonkeyPatch.context() as patch:
        for module, constants in zip((chunk_module, lists_module), way, strict=True):
            for name, value in constants.items():
                patch.setattr(module, name, value)
        if elements is not None:
            patch.setattr(selection_module, "_CHUNK_ELEMENTS", {"cpu": elements, "cuda": elements})
        return miner(*given_batch)


def random_batch(seed, n, m=None, grid=False):
    generator = torch.Generator().manual_seed(seed)
    batch = []
    for rows in (n,) if m is None else (n, m):
        points = torch.randint(0, 3, (rows, 2), generator=generator).float()
        batch.append(points if grid else torch.randn(rows, 3, generator=generator))
        batch.append((torch.rand(rows, 6, generator=generator) < 0.4).long())
    return batch


OPTIONS = st.fixed_dictionaries(
    {
        "type_of_triplets": st.sampled_from(["hard", "semihard", "all", "easy"]),
        "disjoint_negatives": st.sampled_from(["violating", "any"]),
        "positive_threshold": st.sampled_from([0.0, 0.3]),
        "partial_threshold": st.sampled_from([0.0, 0.4]),
    }
)
BATCHES = st.builds(
    random_batch, st.integers(0, 10**6), st.integers(1, 20), st.one_of(st.none(), st.integers(1, 20)), st.booleans()
)


@settings(max_examples=60, deadline=None)
@given(
    batch=BATCHES,
    options=OPTIONS,
    caps=st.tuples(*[st.sampled_from([None, 0, 1, 2, 5])] * 2, st.sampled_from([None, 1, 3, 8])),
    elements=st.integers(1, 400),
)
def test_ways_to_find_candidates_give_the_same_triplets_in_the_same_order(batch, options, caps, elements):
    miner = MultiLabelSemiHardMiner(
        similarity=sim.Jaccard(),
        margin=0.5,
        max_partial_per_positive=caps[0],
        max_disjoint_per_positive=caps[1],
        max_triplets_per_anchor=caps[2],
        negative_order="hardest",
        distance=LpDistance(normalize_embeddings=False),
        **options,
    )
    expected = torch.stack(miner(*batch))
    for way in WAYS_TO_FIND.values():
        assert torch.equal(torch.stack(mine(way, miner, batch, elements)), expected)


@settings(max_examples=60, deadline=None)
@given(
    batch=BATCHES,
    options=OPTIONS,
    caps=st.tuples(*[st.sampled_from([0, 1, 2, 3])] * 2, st.sampled_from([None, 1, 3])),
    positive_order=st.sampled_from(["farthest", "random"]),
    elements=st.integers(1, 400),
)
def test_ways_to_draw_take_candidates_and_as_many_of_each_kind(batch, options, caps, positive_order, elements):
    free = MultiLabelSemiHardMiner(
        similarity=sim.Jaccard(), margin=0.5, distance=LpDistance(normalize_embeddings=False), **options
    )
    capped = MultiLabelSemiHardMiner(
        similarity=sim.Jaccard(),
        margin=0.5,
        distance=free.distance,
        max_partial_per_positive=caps[0],
        max_disjoint_per_positive=caps[1],
        max_triplets_per_anchor=caps[2],
        positive_order=positive_order,
        **options,
    )
    labels = batch[1]
    partial = sim.exceeds(sim.jaccard(labels, batch[-1]), free.partial_threshold)

    def kinds(triplets):
        return Counter((a, p, bool(partial[a, n])) for a, p, n in zip(*(t.tolist() for t in triplets), strict=True))

    candidates = torch.stack(free(*batch), 1).tolist()
    available = kinds(free(*batch))
    cap_of = {True: caps[0], False: caps[1]}
    most = {key: min(count, cap_of[key[2]]) for key, count in available.items() if cap_of[key[2]]}
    per_anchor = defaultdict(int)
    for (anchor, _, _), count in most.items():
        per_anchor[anchor] += count
    for way in WAYS_TO_DRAW.values():
        drawn = mine(way, capped, batch, elements)
        assert all(triplet in candidates for triplet in torch.stack(drawn, 1).tolist())
        found = kinds(drawn)
        assert all(count <= most[key] for key, count in found.items())
        if caps[2] is None:
            assert found == most
        else:
            numbers = Counter(drawn[0].tolist())
            assert numbers == {anchor: min(caps[2], count) for anchor, count in per_anchor.items()}


@pytest.mark.parametrize("way", WAYS_TO_DRAW.values(), ids=WAYS_TO_DRAW)
@pytest.mark.parametrize(
    ("kind", "cap"), [("hard", 1), ("hard", 2), ("all", 1), pytest.param("semihard", 1, marks=pytest.mark.slow)]
)
def test_each_set_of_candidates_is_drawn_with_the_same_probability_in_every_way(way, kind, cap):
    batch, options = random_batch(3, 14), {"similarity": sim.Jaccard(), "margin": 0.4, "type_of_triplets": kind}
    labels = batch[1]
    partial = sim.jaccard(labels) > 0
    generator = torch.Generator().manual_seed(1)
    caps = {"max_partial_per_positive": cap, "max_disjoint_per_positive": cap}
    miner = MultiLabelSemiHardMiner(**options, **caps, generator=generator)

    def groups(triplets):
        grouped = defaultdict(list)
        for a, p, n in torch.stack(triplets, 1).tolist():
            grouped[a, p, bool(partial[a, n])].append(n)
        return grouped

    trials, draws = 300, Counter()
    for _ in range(trials):
        for key, negatives in groups(mine(way, miner, batch)).items():
            draws[key, frozenset(negatives)] += 1
    chi_square = degrees = 0
    for key, negatives in groups(MultiLabelSemiHardMiner(**options)(*batch)).items():
        sets = [frozenset(chosen) for chosen in combinations(negatives, min(cap, len(negatives)))]
        expected = trials / len(sets)
        chi_square += sum((draws[key, chosen] - expected) ** 2 / expected for chosen in sets)
        degrees += len(sets) - 1
    assert degrees > 60
    assert chi_square < degrees + 3.3 * math.sqrt(2 * degrees)


def test_draws_of_different_pairs_of_an_anchor_are_independent():
    # Positives 1 and 2 of anchor 0 have the same candidates 3 and 4: each of the four combinations has probability 1/4.
    embeddings = torch.tensor([[0.0], [8.0], [9.0], [1.0], [2.0]])
    labels = torch.tensor([[1, 0]] * 3 + [[0, 1]] * 2)
    miner = MultiLabelSemiHardMiner(
        max_disjoint_per_positive=1,
        distance=LpDistance(normalize_embeddings=False),
        generator=torch.Generator().manual_seed(0),
    )
    for way in WAYS_TO_DRAW.values():
        draws = Counter()
        for _ in range(400):
            anchors, _, negatives = mine(way, miner, (embeddings, labels))
            draws[tuple(negatives[anchors == 0].tolist())] += 1
        assert sum((draws[pair] - 100) ** 2 / 100 for pair in ((3, 3), (3, 4), (4, 3), (4, 4))) < 16.3  # 0.999


@pytest.mark.parametrize("way", WAYS_TO_DRAW.values(), ids=WAYS_TO_DRAW)
def test_a_seeded_generator_repeats_the_draws_of_every_way(way):
    batch, mined = random_batch(5, 20), []
    for _ in range(2):
        caps = {"max_partial_per_positive": 1, "max_disjoint_per_positive": 1, "positive_order": "random"}
        miner = MultiLabelSemiHardMiner(**caps, generator=torch.Generator().manual_seed(4))
        mined.append(torch.stack(mine(way, miner, batch)))
    assert torch.equal(*mined)


def test_negatives_are_sorted_from_the_nearest_on_in_each_of_the_two_kinds():
    embeddings, labels = random_batch(2, 20)
    miner = MultiLabelSemiHardMiner(similarity=sim.Jaccard())
    distance, similarity = miner.distance(embeddings), sim.jaccard(labels)
    rows = torch.stack(miner(embeddings, labels), 1).tolist()
    order = [(a, -distance[a, p].item(), bool(similarity[a, n] == 0), distance[a, n].item()) for a, p, n in rows]
    assert order == sorted(order)


@pytest.mark.parametrize("way", [*WAYS_TO_FIND.values(), *WAYS_TO_DRAW.values()])
def test_every_way_works_on_a_device(way, device):
    batch = [part.double() for part in random_batch(2, 18, 15)]
    moved = [part.to(device) for part in batch]
    hardest = MultiLabelSemiHardMiner(
        similarity=sim.Jaccard(), max_partial_per_positive=2, max_triplets_per_anchor=9, negative_order="hardest"
    )
    mined = mine(way, hardest, moved)
    assert all(part.device == device for part in mined)
    assert torch.equal(torch.stack(mined).cpu(), torch.stack(hardest(*batch)))
    caps = {"max_partial_per_positive": 1, "max_disjoint_per_positive": 1}
    drawn = torch.stack(mine(way, MultiLabelSemiHardMiner(**caps, positive_order="random"), moved), 1).tolist()
    free = torch.stack(MultiLabelSemiHardMiner()(*batch), 1).tolist()
    assert all(triplet in free for triplet in drawn)
    assert {tuple(pair) for *pair, _ in drawn} == {tuple(pair) for *pair, _ in free}


def uniform(generator):
    return lambda *shape: torch.rand(*shape, generator=generator, dtype=torch.float64).numpy()


@pytest.mark.parametrize(("number", "keep"), [(5, 2), (5, 4), (12, 2), (13, 3), (7, 7)])
def test_samples_without_replacement_are_distinct_and_each_set_has_the_same_probability(number, keep):
    generator, trials = torch.Generator().manual_seed(number * keep), 20_000
    drawn = sample_without_replacement(
        np.full(trials, 100), np.full(trials, number), np.full(trials, keep), uniform(generator)
    )
    drawn = torch.from_numpy(drawn.reshape(trials, keep) - 100).sort(dim=1).values
    assert 0 <= drawn.min() <= drawn.max() < number
    assert (drawn.diff(dim=1) > 0).all()
    sets, counts = drawn.unique(dim=0, return_counts=True)
    num_sets = math.comb(number, keep)
    expected = trials / num_sets
    assert len(sets) == num_sets
    assert ((counts - expected) ** 2 / expected).sum() < num_sets - 1 + 3.3 * math.sqrt(2 * num_sets) + 4


def test_samples_of_populations_of_all_sizes_are_distinct_and_in_range():
    generator = torch.Generator().manual_seed(0)
    number = torch.randint(0, 60, (500,), generator=generator).numpy()
    keep = (torch.rand(500, generator=generator).numpy() * (number + 1)).astype(np.int64)
    first = np.arange(500) * 1000
    drawn = sample_without_replacement(first, number, keep, uniform(generator))
    assert len(drawn) == keep.sum()
    for start, most, row in zip(first, number, np.split(drawn, keep.cumsum()[:-1]), strict=True):
        assert len(set(row)) == len(row)
        assert all(start <= pick < start + most for pick in row)
