"""Every miner of pytorch-metric-learning with label sets, against itself on one-hot labels and against loops.

Run as a script, this file writes the table of miners into docs/pages/guide/pml_miners.md.
"""

import copy
import math
import pickle
import re
import sys
from collections import Counter
from itertools import product
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning import distances, losses, miners

from mlmetric import similarity as sim
from mlmetric._pml import Unsupported
from mlmetric.miners import MultiLabelMiner, MultiLabelSemiHardMiner
from mlmetric.miners import _pml_mining_rules as rules_module
from mlmetric.miners._miner_support import MINER_ADAPTERS, MinerAdapter

PAGE = Path(__file__).parents[1] / "docs" / "pages" / "guide" / "pml_miners.md"
EXPORTED = {name: cls for name, cls in vars(miners).items() if isinstance(cls, type)}
DISTANCES = {
    "euclidean": distances.LpDistance(),
    "squared": distances.LpDistance(normalize_embeddings=False, power=2),
    "cosine": distances.CosineSimilarity(),
    "dot": distances.DotProductSimilarity(normalize_embeddings=False),
}
STRATEGIES = [
    strategies
    for strategies in product(["hard", "semihard", "easy", "all"], repeat=2)
    if not (set(strategies) <= {"semihard", "all"} and "semihard" in strategies)
]
# Settings of each class, given a near and a far value of the distance in use.
CASES = {
    "AngularMiner": lambda near, far: {},
    "AngularMiner of a wide angle": lambda near, far: {"angle": 40},
    "BatchHardMiner": lambda near, far: {},
    "BatchHardMiner in ranges": lambda near, far: ranges(near, far),
    "HDCMiner": lambda near, far: {},
    "HDCMiner of few": lambda near, far: {"filter_percentage": 0.13},
    "MultiSimilarityMiner": lambda near, far: {},
    "MultiSimilarityMiner of few": lambda near, far: {"epsilon": -abs(far - near) / 2},
    "MultiSimilarityMiner of many": lambda near, far: {"epsilon": abs(far - near) / 2},
    "PairMarginMiner": lambda near, far: {"pos_margin": near, "neg_margin": far},
    "PairMarginMiner of few": lambda near, far: {"pos_margin": far, "neg_margin": near},
    **{
        f"TripletMarginMiner {kind}": lambda near, far, kind=kind: {
            "margin": abs(far - near) / 3,
            "type_of_triplets": kind,
        }
        for kind in ("all", "hard", "semihard", "easy")
    },
    **{
        f"BatchEasyHardMiner {pos} {neg}": lambda near, far, pos=pos, neg=neg: {
            "pos_strategy": pos,
            "neg_strategy": neg,
        }
        for pos, neg in STRATEGIES
    },
    **{
        f"BatchEasyHardMiner {pos} {neg} in ranges": lambda near, far, pos=pos, neg=neg: {
            "pos_strategy": pos,
            "neg_strategy": neg,
            **ranges(near, far),
        }
        for pos, neg in STRATEGIES
    },
    "UniformHistogramMiner": lambda near, far: {},
    "UniformHistogramMiner of few bins": lambda near, far: {"num_bins": 3, "pos_per_bin": 5, "neg_per_bin": 7},
}
SAMPLED = [name for name in CASES if name.startswith("Uniform")]
DETERMINISTIC = [name for name in CASES if name not in SAMPLED]
CASE_DISTANCES = [
    (case, distance) for case in CASES for distance in DISTANCES if "Angular" not in case or distance == "euclidean"
]


def ranges(near, far):
    """No positive beyond far, and no negative before near; ranges are ordered, inverted distances or not."""
    width = 100 * (far - near)
    return {
        "allowed_pos_range": tuple(sorted((near - width, far))),
        "allowed_neg_range": tuple(sorted((near, far + width))),
    }


def build(case, distance, embeddings, ref_emb=None, **arguments):
    distance = DISTANCES[distance]
    values = distance(embeddings.double(), None if ref_emb is None else ref_emb.double()).flatten()
    near, far = sorted(values.quantile(torch.tensor([0.3, 0.7]).double()).tolist(), reverse=distance.is_inverted)
    return EXPORTED[case.split()[0]](distance=distance, **CASES[case](near, far), **arguments)


def seeded(miner, *arguments):
    """Mine with a fixed seed of torch's global generator, from which pytorch-metric-learning samples."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return miner(*arguments)


def counted(mined):
    """The mined tuples as multisets: of triplets, or of positive and of negative pairs."""
    assert all(part.dtype == torch.int64 for part in mined)
    parts = [mined] if len(mined) == 3 else [mined[:2], mined[2:]]
    return [Counter(zip(*(column.tolist() for column in part), strict=True)) for part in parts]


def batch(seed, n=14, m=None, num_labels=5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)

    def draw(rows):
        labels = (torch.rand(rows, num_labels, generator=generator) < 0.4).long()
        return torch.randn(rows, 4, generator=generator, dtype=dtype), labels

    return (*draw(n), *(draw(m) if m else ()))


# 1. One-hot labels: the tuples of pytorch-metric-learning.


@pytest.mark.parametrize("refs", [None, 20])
@pytest.mark.parametrize(("case", "distance"), CASE_DISTANCES)
def test_wrapped_miner_with_one_hot_labels_mines_what_the_miner_mines_on_class_ids(case, distance, refs):
    one_hot = torch.nn.functional.one_hot
    some = False
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        classes, ref_classes = torch.randint(0, 4, (2, 24), generator=generator)
        embeddings, ref_emb = torch.randn(2, 24, 6, generator=generator, dtype=torch.float64)
        their_refs = (ref_emb[:refs], ref_classes[:refs]) if refs else ()
        our_refs = (ref_emb[:refs], one_hot(ref_classes[:refs], 4)) if refs else ()
        theirs = build(case, distance, embeddings)
        expected = counted(seeded(theirs, embeddings, classes, *their_refs))
        assert counted(seeded(MultiLabelMiner(theirs), embeddings, one_hot(classes, 4), *our_refs)) == expected
        some |= all(expected)
    assert some


# 2. Multi-hot labels and three kinds of pairs: loops written from the definitions.


def loop_mined(miner, embeddings, relation, ref_emb):
    """What a miner mines, by its definition: a set of triplets, or one of positive and one of negative pairs."""
    sign = -1 if miner.distance.is_inverted else 1
    own = miner.distance(embeddings, ref_emb).tolist()
    d = [[sign * value for value in row] for row in own]
    anchors = range(len(own))
    positives = [[j for j, kind in enumerate(row) if kind == 1] for row in relation]
    negatives = [[j for j, kind in enumerate(row) if kind == -1] for row in relation]
    triplets = [(a, p, n) for a in anchors for p in positives[a] for n in negatives[a]]

    if isinstance(miner, miners.AngularMiner):

        def angle(a, p, n):
            center = (embeddings[a] + ref_emb[p]) / 2
            return math.atan2((embeddings[a] - ref_emb[p]).norm(), 2 * (ref_emb[n] - center).norm())

        return [{triplet for triplet in triplets if angle(*triplet) > miner.angle}]

    if isinstance(miner, miners.TripletMarginMiner):
        fits = {
            "all": lambda gap: gap < miner.margin,
            "hard": lambda gap: gap < 0,
            "semihard": lambda gap: 0 <= gap < miner.margin,
            "easy": lambda gap: gap >= miner.margin,
        }[miner.type_of_triplets]
        return [{(a, p, n) for a, p, n in triplets if fits(d[a][n] - d[a][p])}]

    if isinstance(miner, miners.PairMarginMiner):
        return [
            {(a, p) for a in anchors for p in positives[a] if d[a][p] > sign * miner.pos_margin},
            {(a, n) for a in anchors for n in negatives[a] if d[a][n] < sign * miner.neg_margin},
        ]

    if isinstance(miner, miners.MultiSimilarityMiner):
        return [
            {(a, p) for a, p, n in triplets if d[a][p] + miner.epsilon > d[a][n]},
            {(a, n) for a, p, n in triplets if d[a][n] - miner.epsilon < d[a][p]},
        ]

    if isinstance(miner, miners.HDCMiner):
        pairs = [[(a, p) for a in anchors for p in positives[a]], [(a, n) for a in anchors for n in negatives[a]]]
        numbers = [math.ceil(miner.filter_percentage * len(part)) for part in pairs]
        farthest, nearest = (sorted(part, key=lambda pair: d[pair[0]][pair[1]]) for part in pairs)
        return [set(farthest[len(farthest) - numbers[0] :]), set(nearest[: numbers[1]])]

    assert isinstance(miner, miners.BatchEasyHardMiner)
    pos, neg = miner.pos_strategy, miner.neg_strategy
    found = [set(), set()]
    triplets = set()

    def nearest(a, refs):
        return min(refs, key=lambda j: d[a][j], default=None)

    def farthest(a, refs):
        return max(refs, key=lambda j: d[a][j], default=None)

    for a in anchors:

        def allowed(refs, limits, a=a):
            return [j for j in refs if limits is None or limits[0] <= own[a][j] <= limits[1]]

        of_a, against_a = allowed(positives[a], miner.allowed_pos_range), allowed(negatives[a], miner.allowed_neg_range)
        p = nearest(a, of_a) if pos == "easy" else farthest(a, of_a)
        n = farthest(a, against_a) if neg == "easy" else nearest(a, against_a)
        if pos == "semihard" and n is not None:
            p = farthest(a, [j for j in of_a if d[a][j] < d[a][n]])
        if neg == "semihard" and p is not None:
            n = nearest(a, [j for j in against_a if d[a][j] > d[a][p]])
        if "all" not in (pos, neg) and None in (p, n):
            continue
        found[0] |= {(a, j) for j in positives[a]} if pos == "all" else {(a, p)} - {(a, None)}
        found[1] |= {(a, j) for j in negatives[a]} if neg == "all" else {(a, n)} - {(a, None)}
        triplets.add((a, p, n))
    return [triplets] if isinstance(miner, miners.BatchHardMiner) else found


def loop_relation(similarity, self_pairs, positive=0.45, negative=0.15):  # equal to no share of small sets
    def relate(i, j, value):
        if (self_pairs and i == j) or negative < value <= positive:
            return 0
        return 1 if value > positive else -1

    return [[relate(i, j, value) for j, value in enumerate(row)] for i, row in enumerate(similarity.tolist())]


def three_way(miner, similarity=None, **arguments):
    similarity = sim.Jaccard() if similarity is None else similarity
    return MultiLabelMiner(miner, similarity=similarity, positive_threshold=0.45, negative_threshold=0.15, **arguments)


def assert_mined(mined, miner, embeddings, relation, ref_emb):
    """Assert that a miner mined what the loop mines, and return that."""
    expected = loop_mined(miner, embeddings, relation, ref_emb)
    if isinstance(miner, miners.HDCMiner):  # (i, j) and (j, i) tie, and the last place may go to either
        own = miner.distance(embeddings, ref_emb)
        for part, kind, pairs in zip(counted(mined), (1, -1), expected, strict=True):
            assert all(relation[i][j] == kind and number == 1 for (i, j), number in part.items())
            assert sorted(own[pair].item() for pair in part) == pytest.approx(
                sorted(own[pair].item() for pair in pairs)
            )
    else:
        assert counted(mined) == [Counter(part) for part in expected]
    return expected


def assert_mines_what_the_loop_mines(case, distance, embeddings, labels, *refs):
    miner = build(case, distance, embeddings, *refs[:1])
    ref_emb, ref_labels = refs or (embeddings, labels)
    relation = loop_relation(sim.jaccard(labels, ref_labels), self_pairs=not refs)
    return assert_mined(three_way(miner)(embeddings, labels, *refs), miner, embeddings, relation, ref_emb)


@pytest.mark.parametrize("refs", [None, 9])
@pytest.mark.parametrize(
    ("case", "distance"), [(case, distance) for case, distance in CASE_DISTANCES if case in DETERMINISTIC]
)
def test_wrapped_miner_with_multi_hot_labels_mines_what_the_loop_mines(case, distance, refs):
    expected = [assert_mines_what_the_loop_mines(case, distance, *batch(seed, m=refs)) for seed in range(3)]
    assert any(any(parts) for parts in expected)


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 9),
    m=st.one_of(st.none(), st.integers(1, 9)),
    num_labels=st.integers(1, 5),
    case_distance=st.sampled_from([(case, distance) for case, distance in CASE_DISTANCES if case in DETERMINISTIC]),
)
def test_wrapped_miner_of_any_batch_mines_what_the_loop_mines(seed, n, m, num_labels, case_distance):
    assert_mines_what_the_loop_mines(*case_distance, *batch(seed, n, m, num_labels))


def related_pairs(mined):
    """Yield 1 or -1 and an (anchor, ref) for each positive and negative pair in a tuple."""
    pairs = mined if len(mined) == 4 else (mined[0], mined[1], mined[0], mined[2])
    for kind, part in ((1, pairs[:2]), (-1, pairs[2:])):
        for pair in zip(*(column.tolist() for column in part), strict=True):
            yield kind, pair


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 9),
    m=st.one_of(st.none(), st.integers(1, 9)),
    case_distance=st.sampled_from(CASE_DISTANCES),
    ref_includes_query=st.booleans(),
)
def test_wrapped_miner_of_duplicates_never_mines_an_ignored_pair(seed, n, m, case_distance, ref_includes_query):
    m = max(n, m) if m and ref_includes_query else m
    generator = torch.Generator().manual_seed(seed)
    points = torch.randint(0, 2, (18, 2), generator=generator).double()  # exact ties and duplicates
    labels = torch.randint(0, 2, (18, 4), generator=generator)
    refs = () if m is None else (points[:m], labels[:m])
    miner = build(*case_distance, points[:n], *refs[:1])
    ref_labels = labels[: n if m is None else m]
    relation = loop_relation(sim.jaccard(labels[:n], ref_labels), self_pairs=ref_includes_query)
    for kind, (i, j) in related_pairs(
        three_way(miner)(points[:n], labels[:n], *refs, ref_includes_query=ref_includes_query)
    ):
        assert relation[i][j] == kind


@pytest.mark.parametrize(("case", "distance"), CASE_DISTANCES)
def test_wrapped_miner_leaves_out_self_pairs_of_refs_that_begin_with_the_batch(case, distance):
    embeddings, labels, more, more_labels = batch(3, n=6, m=9)
    ref_emb, ref_labels = torch.cat([embeddings, more]), torch.cat([labels, more_labels])
    miner = build(case, distance, embeddings, ref_emb)
    relation = torch.tensor(loop_relation(sim.jaccard(labels, ref_labels), self_pairs=True))
    mined = three_way(miner)(embeddings, labels, ref_emb, ref_labels, ref_includes_query=True)
    pairs = list(related_pairs(mined))
    assert pairs
    assert all(relation[pair] == kind for kind, pair in pairs)
    if case in DETERMINISTIC:
        assert_mined(mined, miner, embeddings, relation.tolist(), ref_emb)


# 3. Properties of single classes.


def test_wrapped_multi_similarity_miner_emits_no_ignored_pair_where_its_own_mask_would():
    embeddings = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.8, 0.3], [0.0, 1.0]])
    labels = torch.tensor([[1, 1, 1], [1, 1, 1], [1, 0, 0], [0, 0, 0]])
    miner = three_way(miners.MultiSimilarityMiner(epsilon=10))
    assert counted(miner(embeddings, labels)) == [
        Counter([(0, 1), (1, 0)]),
        Counter([(0, 3), (1, 3)]),  # items 2 and 3 have no positive to compare a negative with
    ]


def test_wrapped_angular_miner_of_three_equal_points_has_no_angle():
    labels = torch.tensor([[1, 0], [1, 0], [0, 1]])
    assert counted(MultiLabelMiner(miners.AngularMiner())(torch.ones(3, 4), labels)) == [Counter()]
    assert counted(MultiLabelMiner(miners.AngularMiner(angle=0))(torch.ones(3, 4), labels)) == [Counter()]


def test_wrapped_angular_miner_of_a_negative_at_the_center_has_a_right_angle():
    embeddings = torch.tensor([[0.0, 1.0], [0.0, 3.0], [0.0, 2.0]])
    labels = torch.tensor([[1, 0], [1, 0], [0, 1]])
    mined = MultiLabelMiner(miners.AngularMiner(angle=89))(embeddings, labels)
    assert counted(mined) == [Counter([(0, 1, 2), (1, 0, 2)])]


def test_wrapped_angular_miner_keeps_small_differences_far_from_the_origin():
    points = torch.tensor([[0.0, 0.0], [0.01, 0.0], [0.005, 0.02]] + [[5.0, 5.0]] * 30)
    labels = torch.tensor([[1, 0]] * 2 + [[0, 1]] + [[0, 0]] * 30)  # an angle of atan(0.01 / 0.04), 14 degrees
    for angle, number in ((13, 2), (15, 0)):
        miner = MultiLabelMiner(miners.AngularMiner(angle=angle))
        assert len(miner(points + 100, labels)[0]) == number


def test_wrapped_angular_miner_gives_the_same_in_chunks_of_one_pair(monkeypatch):
    embeddings, labels, ref_emb, ref_labels = batch(5, m=11)
    miner = three_way(miners.AngularMiner())
    expected = [part.tolist() for part in miner(embeddings, labels, ref_emb, ref_labels)]
    monkeypatch.setattr(rules_module, "_CHUNK_ELEMENTS", 1)
    assert [part.tolist() for part in miner(embeddings, labels, ref_emb, ref_labels)] == expected
    assert expected[0]


@pytest.mark.parametrize("kind", ["hard", "semihard", "all", "easy"])
def test_wrapped_triplet_margin_miner_mines_what_the_semi_hard_miner_mines_of_two_kinds(kind):
    embeddings, labels, _, _ = batch(6, m=1)
    ours = MultiLabelSemiHardMiner(similarity=lambda a, b: (a @ b.T) > 0, type_of_triplets=kind)
    assert counted(MultiLabelMiner(miners.TripletMarginMiner(type_of_triplets=kind))(embeddings, labels)) == counted(
        ours(embeddings, labels)
    )


ON_A_LINE = torch.tensor([[0.0], [1.0], [-1.0], [2.0]])  # squared distances of item 0: positive 1, negatives 1 and 4


def mined_of_item_0(miner):
    mined = MultiLabelMiner(miner)(ON_A_LINE, torch.tensor([[1, 0], [1, 0], [0, 1], [0, 1]]))
    return [{pair for pair in part if pair[0] == 0} for part in counted(mined)]


def test_wrapped_triplet_margin_miner_decides_ties_by_half_open_intervals():
    mined = {
        kind: mined_of_item_0(miners.TripletMarginMiner(margin=3, type_of_triplets=kind, distance=DISTANCES["squared"]))
        for kind in ("hard", "semihard", "all", "easy")
    }
    assert mined == {"hard": [set()], "semihard": [{(0, 1, 2)}], "all": [{(0, 1, 2)}], "easy": [{(0, 1, 3)}]}


def test_wrapped_pair_margin_miner_leaves_out_a_distance_at_the_margin():
    assert mined_of_item_0(miners.PairMarginMiner(1, 4, distance=DISTANCES["squared"])) == [set(), {(0, 2)}]
    assert mined_of_item_0(miners.PairMarginMiner(0, 1, distance=DISTANCES["squared"])) == [{(0, 1)}, set()]


def test_wrapped_multi_similarity_miner_leaves_out_a_gap_of_epsilon():
    assert mined_of_item_0(miners.MultiSimilarityMiner(0, distance=DISTANCES["squared"])) == [set(), set()]
    assert mined_of_item_0(miners.MultiSimilarityMiner(3, distance=DISTANCES["squared"])) == [{(0, 1)}, {(0, 2)}]


def test_wrapped_batch_easy_hard_miner_calls_a_tie_not_semihard():
    negative = miners.BatchEasyHardMiner("hard", "semihard", distance=DISTANCES["squared"])
    assert mined_of_item_0(negative) == [{(0, 1)}, {(0, 3)}]
    positive = miners.BatchEasyHardMiner("semihard", "hard", distance=DISTANCES["squared"])
    assert mined_of_item_0(positive) == [set(), set()]


def test_wrapped_hdc_miner_takes_pairs_that_were_set_externally_and_leaves_them():
    generator = torch.Generator().manual_seed(1)
    embeddings = torch.randn(12, 4, generator=generator, dtype=torch.float64)
    classes = torch.randint(0, 3, (12,), generator=generator)
    external = tuple(torch.randperm(12, generator=generator) for _ in range(4))
    theirs = miners.HDCMiner()
    wrapped = MultiLabelMiner(copy.deepcopy(theirs))
    for miner in (theirs, wrapped.miner):
        miner.set_idx_externally(external, classes)
    expected = counted(theirs(embeddings, classes))
    one_hot = torch.nn.functional.one_hot(classes)
    assert counted(wrapped(embeddings, one_hot)) == expected
    assert counted(wrapped(embeddings, one_hot)) == expected
    wrapped.miner.reset_idx()
    assert counted(wrapped(embeddings, one_hot)) == counted(miners.HDCMiner()(embeddings, classes))


@pytest.mark.parametrize("distance", DISTANCES)
def test_wrapped_uniform_histogram_miner_samples_the_same_number_from_each_non_empty_bin(distance):
    embeddings, labels, _, _ = batch(2, m=1)
    miner = miners.UniformHistogramMiner(num_bins=5, pos_per_bin=3, neg_per_bin=4, distance=DISTANCES[distance])
    relation = loop_relation(sim.jaccard(labels), self_pairs=True)
    own = miner.distance(embeddings)
    mined = list(related_pairs(three_way(miner)(embeddings, labels)))
    for kind, per_bin in ((1, 3), (-1, 4)):
        candidates = {
            (i, j): own[i, j].item() for i, row in enumerate(relation) for j, k in enumerate(row) if k == kind
        }
        lowest, width = min(candidates.values()), (max(candidates.values()) - min(candidates.values())) / 5
        bins = {pair: min(4, int((value - lowest) / width)) for pair, value in candidates.items()}
        drawn = Counter(bins[pair] for drawn_kind, pair in mined if drawn_kind == kind)
        assert drawn == dict.fromkeys(set(bins.values()), per_bin)


def test_wrapped_uniform_histogram_miner_of_equal_distances_draws_from_one_bin():
    miner = miners.UniformHistogramMiner(pos_per_bin=2, neg_per_bin=3)
    labels = torch.tensor([[1, 0], [1, 0], [0, 1], [0, 1]])
    mined = MultiLabelMiner(miner)(torch.ones(4, 2), labels)
    assert [len(part) for part in mined] == [2, 2, 3, 3]


def test_wrapped_uniform_histogram_miner_draws_uniformly_within_a_bin():
    labels = torch.tensor([[1, 0]] * 3 + [[0, 1]])
    miner = miners.UniformHistogramMiner(num_bins=1, pos_per_bin=1200, neg_per_bin=1)
    embeddings, _, _, _ = batch(0, n=4, m=1)
    positives, _ = counted(seeded(MultiLabelMiner(miner), embeddings, labels))
    assert len(positives) == 6
    assert sum((number - 200) ** 2 / 200 for number in positives.values()) < 20.5  # 0.999 quantile at 5 degrees


def test_wrapped_packaged_triplets_are_rows_that_follow_one_another():
    miner = MultiLabelMiner(miners.EmbeddingsAlreadyPackagedAsTriplets())
    embeddings, labels, _, _ = batch(0, n=6, m=1)
    assert [part.tolist() for part in miner(embeddings, labels)] == [[0, 3], [1, 4], [2, 5]]
    assert counted(miner(embeddings, torch.zeros(6, 1))) == counted(miner.miner(embeddings, torch.zeros(6)))
    with pytest.raises(
        ValueError, match=r"must consist of triplets of rows.*EmbeddingsAlreadyPackagedAsTriplets; got 5 rows"
    ):
        miner(embeddings[:5], labels[:5])
    with pytest.raises(ValueError, match="got `ref_emb`"):
        miner(embeddings, labels, embeddings.clone(), labels.clone())


# 4. Properties of all classes.


def any_miner(case, embeddings):
    return EXPORTED[case]() if case not in CASES else build(case, "euclidean", embeddings)


@pytest.mark.parametrize("case", [*CASES, "EmbeddingsAlreadyPackagedAsTriplets"])
@pytest.mark.parametrize(("n", "m"), [(0, None), (3, 0), (0, 3), (0, 0)])
def test_wrapped_miner_of_nothing_gives_nothing(case, n, m):
    miner = any_miner(case, torch.randn(3, 2, generator=torch.Generator().manual_seed(0)))
    refs = () if m is None else (torch.zeros(m, 2), torch.ones(m, 2))
    mined = MultiLabelMiner(miner)(torch.zeros(n, 2), torch.ones(n, 2), *refs)
    assert not any(counted(mined))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("labels", [torch.zeros(1, 3), torch.zeros(5, 3), torch.ones(1, 3)])
def test_wrapped_miner_without_positives_gives_no_triplet_and_the_loss_a_differentiable_zero(case, labels):
    embeddings = torch.randn(len(labels), 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    mined = MultiLabelMiner(build(case, "euclidean", embeddings.detach()))(embeddings, labels)
    assert not counted(mined)[0]
    assert all(part.device == embeddings.device for part in mined)
    loss = losses.TripletMarginLoss()(embeddings, indices_tuple=mined)
    loss.backward()
    assert (loss.item(), embeddings.grad.abs().sum()) == (0, 0)


def test_wrapped_miner_calls_an_all_zero_row_a_negative():
    embeddings = torch.tensor([[0.0], [3.0], [1.0]])
    labels = torch.tensor([[1, 1], [1, 0], [0, 0]])
    miner = MultiLabelMiner(miners.BatchHardMiner(distance=DISTANCES["squared"]))
    assert counted(miner(embeddings, labels)) == [Counter([(0, 1, 2), (1, 0, 2)])]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_wrapped_miner_takes_half_precision_and_autocast_without_its_rounding(case, dtype):
    embeddings, labels, _, _ = batch(4, m=1)
    half = embeddings.to(dtype)
    miner = three_way(build(case, "euclidean", embeddings))
    expected = counted(seeded(miner, half.float(), labels))
    assert counted(seeded(miner, half, labels)) == expected
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert counted(seeded(miner, half.float(), labels)) == expected


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda miner: pickle.loads(pickle.dumps(miner))])
def test_wrapped_miner_copies_pickles_and_has_no_state(case, copied):
    embeddings, labels, _, _ = batch(8, m=1)
    miner = three_way(build(case, "euclidean", embeddings))
    other = copied(miner)
    assert counted(seeded(other, embeddings, labels)) == counted(seeded(miner, embeddings, labels))
    assert not miner.state_dict()
    assert [name for name, _ in miner.named_children()] == ["miner", "relation"]


def test_wrapped_miner_reads_settings_of_the_miner_at_the_call():
    embeddings, labels, _, _ = batch(1, m=1)
    miner = three_way(miners.PairMarginMiner())
    miner(embeddings, labels)
    miner.miner.pos_margin, miner.miner.neg_margin = 1.0, 1.1
    fresh = three_way(miners.PairMarginMiner(pos_margin=1.0, neg_margin=1.1))
    assert counted(miner(embeddings, labels)) == counted(fresh(embeddings, labels))


@pytest.mark.parametrize("distance", DISTANCES)
def test_wrapped_miner_statistics_are_those_of_what_it_mined(distance):
    embeddings, labels, _, _ = batch(3, m=1)
    own = DISTANCES[distance](embeddings)
    for case in ("PairMarginMiner", "BatchHardMiner"):
        miner = three_way(build(case, distance, embeddings, collect_stats=True))
        mined = miner(embeddings, labels)
        kinds = {kind: [own[pair].item() for k, pair in related_pairs(mined) if k == kind] for kind in (1, -1)}
        assert miner.pos_pair_dist == pytest.approx(sum(kinds[1]) / len(kinds[1]))
        assert miner.neg_pair_dist == pytest.approx(sum(kinds[-1]) / len(kinds[-1]))
        numbers = (miner.num_triplets, miner.num_pos_pairs, miner.num_neg_pairs)
        assert numbers == ((0, len(kinds[1]), len(kinds[-1])) if len(mined) == 4 else (len(kinds[1]), 0, 0))
        miner(embeddings, torch.zeros_like(labels))
        assert (miner.num_triplets, miner.num_pos_pairs, miner.pos_pair_dist) == (0, 0, 0)


def test_wrapped_miner_collects_no_statistics_unless_the_miner_does():
    embeddings, labels, _, _ = batch(3, m=1)
    miner = three_way(miners.PairMarginMiner())
    miner(embeddings, labels)
    assert not hasattr(miner, "pos_pair_dist")


def test_wrapped_miner_does_not_build_a_graph():
    embeddings, labels, _, _ = batch(9, m=1)
    embeddings.requires_grad_()
    assert not any(part.requires_grad for part in three_way(miners.AngularMiner())(embeddings, labels))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(3, 2), torch.zeros(3)), r"`labels` must be a 2-D .* got shape \(3,\).*one_hot"),
        ((torch.zeros(3, 2), torch.zeros(4, 2)), r"`embeddings` must have shape \(4, D\).*got \(3, 2\)"),
        ((torch.zeros(3, 2), torch.full((3, 2), 2.0)), r"in \[0, 1\], got 2\.0"),
        ((torch.zeros(3, 2), torch.zeros(3, 2), torch.zeros(2, 2)), "must be given together"),
    ],
)
def test_wrapped_miner_names_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        MultiLabelMiner(miners.PairMarginMiner())(*arguments)


@pytest.mark.parametrize("case", [*CASES, "EmbeddingsAlreadyPackagedAsTriplets"])
def test_wrapped_miner_of_nan_names_it(case):
    miner = any_miner(case, torch.randn(3, 2, generator=torch.Generator().manual_seed(0)))
    with pytest.raises(ValueError, match="contain NaN"):
        MultiLabelMiner(miner)(torch.full((3, 2), torch.nan), torch.ones(3, 2))


def test_wrapped_miner_names_what_a_similarity_does_wrong():
    miner = MultiLabelMiner(miners.PairMarginMiner(), similarity=lambda a, b: (a @ b.T)[0])
    with pytest.raises(ValueError, match=r"must return shape \(3, 3\).*got \(3,\)"):
        miner(torch.randn(3, 2, generator=torch.Generator().manual_seed(0)), torch.eye(3))


# 5. Errors of the constructor.


@pytest.mark.parametrize("cls", [cls for cls, entry in MINER_ADAPTERS.items() if isinstance(entry, Unsupported)])
def test_wrapper_rejects_an_unsupported_miner_with_reason_and_alternative(cls):
    entry = MINER_ADAPTERS[cls]
    message = f"`{cls.__name__}` does not support multi-label data: it {entry.reason}. Use {entry.alternative}."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        MultiLabelMiner(cls())


class Eager(miners.MultiSimilarityMiner):
    def __init__(self):
        super().__init__(epsilon=0.3)

    def get_default_distance(self):
        return distances.LpDistance()


class OfMyOwn(miners.BaseMiner):
    def mine(self, embeddings, labels, ref_emb, ref_labels):
        return ()


class OtherMine(miners.PairMarginMiner):
    def mine(self, embeddings, labels, ref_emb, ref_labels):
        return ()


class OtherPart(miners.BatchHardMiner):
    def get_negatives(self, *args, **kwargs):
        return ()


class Weighted(miners.DistanceWeightedMiner):
    pass


def test_wrapper_treats_a_subclass_as_its_base_class():
    embeddings, labels, _, _ = batch(1, m=1)
    ancestor = miners.MultiSimilarityMiner(epsilon=0.3, distance=distances.LpDistance())
    assert counted(three_way(Eager())(embeddings, labels)) == counted(three_way(ancestor)(embeddings, labels))


@pytest.mark.parametrize(
    ("miner", "error", "message"),
    [
        (OfMyOwn(), ValueError, "`OfMyOwn` does not support multi-label data: it is an abstract base class"),
        (Weighted(), ValueError, "`Weighted` does not support multi-label data: it samples by class"),
        (OtherMine(), ValueError, "`OtherMine` overrides `mine` of PairMarginMiner.*Use PairMarginMiner"),
        (OtherPart(), ValueError, "`OtherPart` overrides `get_negatives` of BatchHardMiner"),
        (MultiLabelSemiHardMiner(), TypeError, "got MultiLabelSemiHardMiner, which already accepts label matrices"),
        (MultiLabelMiner(miners.HDCMiner()), TypeError, "got MultiLabelMiner, which already accepts label matrices"),
        (miners.PairMarginMiner, TypeError, "must be an instance of a miner .* got the class PairMarginMiner itself"),
        (losses.TripletMarginLoss(), TypeError, "must be an instance of a miner .* got TripletMarginLoss"),
        (None, TypeError, "must be an instance of a miner .* got NoneType"),
        (miners.TripletMarginMiner(margin=-0.1), ValueError, r"`margin` of TripletMarginMiner must be .* got -0\.1"),
        (
            miners.TripletMarginMiner(type_of_triplets="semi-hard"),
            ValueError,
            "`type_of_triplets` of TripletMarginMiner must be one of 'hard', .* got 'semi-hard'",
        ),
    ],
)
def test_wrapper_rejects_what_it_does_not_support(miner, error, message):
    with pytest.raises(error, match=message):
        MultiLabelMiner(miner)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"similarity": 3}, TypeError, "`similarity` must be callable, got int"),
        ({"negative_threshold": 0.5}, ValueError, r"must not exceed `positive_threshold`, got 0\.5 and 0\.0"),
    ],
)
def test_wrapper_names_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        MultiLabelMiner(miners.PairMarginMiner(), **arguments)


# 6. The table.


def test_every_miner_that_pytorch_metric_learning_exports_is_classified():
    assert set(MINER_ADAPTERS) == set(EXPORTED.values()), "add the class to mlmetric/miners/_miner_support.py"


def test_every_supported_miner_is_tested_here():
    supported = {cls.__name__ for cls, entry in MINER_ADAPTERS.items() if isinstance(entry, MinerAdapter)}
    assert {case.split()[0] for case in CASES} | {"EmbeddingsAlreadyPackagedAsTriplets"} == supported


def tables():
    supported = [
        f"| `{cls.__name__}` | {entry.output} | {entry.description} |"
        for cls, entry in MINER_ADAPTERS.items()
        if isinstance(entry, MinerAdapter)
    ]
    unsupported = [
        f"| `{cls.__name__}` | {entry.reason} | {entry.alternative} |"
        for cls, entry in MINER_ADAPTERS.items()
        if isinstance(entry, Unsupported)
    ]
    return "\n".join(
        [
            "| class | result | what is selected |",
            "|---|---|---|",
            *supported,
            "",
            "| unsupported | because it | use instead |",
            "|---|---|---|",
            *unsupported,
        ]
    )


def page_with_tables(page):
    return re.sub(
        r"(<!-- table: start -->\n).*?(<!-- table: end -->)",
        lambda marks: f"{marks[1]}\n{tables()}\n\n{marks[2]}",
        page,
        flags=re.DOTALL,
    )


def test_page_contains_the_table_of_miners():
    page = PAGE.read_text()
    assert page == page_with_tables(page), "run `python tests/test_miners_wrapped.py` to update the table"
    assert tables() in page


@pytest.mark.parametrize(("case", "distance"), CASE_DISTANCES)
def test_wrapped_miner_on_a_device_mines_what_it_mines_on_the_cpu(case, distance, device):
    embeddings, labels, ref_emb, ref_labels = batch(2, n=24, m=20)
    miner = three_way(build(case, distance, embeddings, ref_emb))
    expected = counted(miner(embeddings, labels, ref_emb, ref_labels))
    mined = miner(embeddings.to(device), labels, ref_emb.to(device), ref_labels.to(device))
    assert all(part.device == device for part in mined)
    if case in SAMPLED:  # from another generator
        assert [sum(part.values()) for part in counted(mined)] == [sum(part.values()) for part in expected]
    else:
        assert counted(mined) == expected


if __name__ == "__main__":
    PAGE.write_text(page_with_tables(PAGE.read_text()))
    sys.exit(0)
