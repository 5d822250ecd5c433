"""The miner against a triple loop, against pytorch-metric-learning on one-hot labels, and on hand-worked batches."""

import copy
import pickle
from collections import Counter, defaultdict
from itertools import combinations

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning import distances, losses
from pytorch_metric_learning.miners import TripletMarginMiner
from scipy import sparse

from mlmetric import similarity as sim
from mlmetric.miners import MultiLabelSemiHardMiner
from mlmetric.miners import _triplet_selection as selection_module
from mlmetric.miners._array_ops import argsort_rows

KINDS = ["hard", "semihard", "all", "easy"]
SIMILARITIES = {
    "inner_product": sim.InnerProduct(),
    "jaccard": sim.Jaccard(),
    "hamming": sim.Hamming(),
    "weighted": sim.Dice(torch.tensor([1.0, 0.3, 0.7, 2.0])),
    "semantic": sim.SoftCosine(0.5 * torch.eye(4) + 0.5),
    "mixed": 0.5 * sim.Jaccard() + 0.5 * sim.Cosine(),
}
DISTANCES = {
    "euclidean": distances.LpDistance(),
    "squared": distances.LpDistance(normalize_embeddings=False, power=2),
    "cosine": distances.CosineSimilarity(),
    "dot": distances.DotProductSimilarity(normalize_embeddings=False),
}


LABEL_KINDS = {
    "array": lambda labels: labels.numpy(),
    "list": lambda labels: labels.tolist(),
    "sparse": lambda labels: sparse.csr_array(labels.numpy()),
    "frame": lambda labels: pd.DataFrame(labels.numpy()).astype("Int64"),
}


def as_set(triplets):
    rows = list(zip(*(part.tolist() for part in triplets), strict=True))
    assert len(set(rows)) == len(rows), "a triplet was returned twice"
    return set(rows)


def loop_triplets(miner, embeddings, labels, ref_emb=None, ref_labels=None):
    """Every triplet that qualifies, as {(anchor, positive): {"partial": [...], "disjoint": [...]}}."""
    same = ref_emb is None
    ref_emb, ref_labels = (embeddings, labels) if same else (ref_emb, ref_labels)
    distance = miner.distance(embeddings, ref_emb)
    distance = -distance if miner.distance.is_inverted else distance
    similarity = miner.similarity(labels, ref_labels)
    found = defaultdict(lambda: {"partial": [], "disjoint": []})
    for a in range(len(labels)):
        for p in range(len(ref_labels)):
            if (same and p == a) or not similarity[a, p] > miner.positive_threshold:
                continue
            for n in range(len(ref_labels)):
                if (same and n == a) or not similarity[a, n] < similarity[a, p]:
                    continue
                gap = (distance[a, n] - distance[a, p]).item()
                margin = torch.tensor(miner.margin, dtype=distance.dtype).item()
                related = {
                    "hard": gap < 0,
                    "semihard": 0 <= gap < margin,
                    "all": gap < margin,
                    "easy": gap >= margin,
                }[miner.type_of_triplets]
                if similarity[a, n] > miner.partial_threshold:
                    if related:
                        found[a, p]["partial"].append(n)
                elif related or miner.disjoint_negatives == "any":
                    found[a, p]["disjoint"].append(n)
    return distance, found


def uncapped(found):
    return {(a, p, n) for (a, p), kinds in found.items() for refs in kinds.values() for n in refs}


def capped_by_loop(miner, distance, found):
    """The one answer under positive_order="farthest" and negative_order="hardest", distances all different."""
    kept, visits = set(), defaultdict(list)
    for a, p in found:
        visits[a].append(p)
    for a, positives in visits.items():
        chosen = []
        for p in sorted(positives, key=lambda p: -distance[a, p].item()):
            for kind, cap in (
                ("partial", miner.max_partial_per_positive),
                ("disjoint", miner.max_disjoint_per_positive),
            ):
                nearest = sorted(found[a, p][kind], key=lambda n: distance[a, n].item())
                chosen += [(a, p, n) for n in nearest[:cap]]
        kept |= set(chosen[: miner.max_triplets_per_anchor])
    return kept


def batch(seed, n=12, m=None, num_labels=4, grid=False):
    generator = torch.Generator().manual_seed(seed)

    def draw(rows):
        if grid:  # few distinct points: exact duplicates and ties of distance
            embeddings = torch.randint(0, 3, (rows, 2), generator=generator).float()
        else:
            embeddings = torch.randn(rows, 3, generator=generator)
        return embeddings, torch.randint(0, 2, (rows, num_labels), generator=generator)

    return (*draw(n), *(draw(m) if m else (None, None)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize(
    "distance",
    ["euclidean", *(pytest.param(name, marks=pytest.mark.slow) for name in DISTANCES if name != "euclidean")],
)
@pytest.mark.parametrize("refs", [None, 9])
def test_miner_without_caps_gives_the_set_of_the_loop(kind, similarity, distance, refs):
    for seed in range(3):
        miner = MultiLabelSemiHardMiner(
            similarity=SIMILARITIES[similarity],
            type_of_triplets=kind,
            margin=0.3,
            positive_threshold=0.2 * (seed == 1),
            partial_threshold=0.4 * (seed == 2),
            distance=DISTANCES[distance],
            disjoint_negatives="any" if seed == 1 else "violating",
        )
        given_batch = batch(seed, m=refs)
        _, found = loop_triplets(miner, *given_batch)
        assert as_set(miner(*given_batch)) == uncapped(found)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 9),
    m=st.one_of(st.none(), st.integers(1, 9)),
    kind=st.sampled_from(KINDS),
    soft=st.booleans(),
    partial_threshold=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
)
def test_miner_with_ties_duplicates_and_empty_rows_gives_the_set_of_the_loop(seed, n, m, kind, soft, partial_threshold):
    embeddings, labels, ref_emb, ref_labels = batch(seed, n, m, grid=True)
    labels = labels / 2 if soft else labels
    miner = MultiLabelSemiHardMiner(
        similarity=sim.Jaccard(),
        type_of_triplets=kind,
        margin=1.0,
        partial_threshold=partial_threshold,
        distance=DISTANCES["squared"],
    )
    _, found = loop_triplets(miner, embeddings, labels, ref_emb, ref_labels)
    assert as_set(miner(embeddings, labels, ref_emb, ref_labels)) == uncapped(found)


@pytest.mark.parametrize("caps", [(1, 1, 1), (1, 1, None), (0, 2, 3), (2, 0, 4), (None, 1, 5), (3, 100, 100)])
@pytest.mark.parametrize("kind", ["hard", pytest.param("all", marks=pytest.mark.slow)])
def test_miner_with_caps_visits_farthest_first_and_keeps_the_nearest(caps, kind):
    partial, disjoint, per_anchor = caps
    for seed in range(6):
        miner = MultiLabelSemiHardMiner(
            similarity=sim.InnerProduct(),
            type_of_triplets=kind,
            max_partial_per_positive=partial,
            max_disjoint_per_positive=disjoint,
            max_triplets_per_anchor=per_anchor,
            negative_order="hardest",
        )
        embeddings, labels, _, _ = batch(seed, n=16)
        distance, found = loop_triplets(miner, embeddings, labels)
        assert as_set(miner(embeddings, labels)) == capped_by_loop(miner, distance, found)


def test_miner_gives_the_same_in_chunks_of_one_pair(monkeypatch):
    miner = MultiLabelSemiHardMiner(
        max_partial_per_positive=2, max_disjoint_per_positive=1, max_triplets_per_anchor=5, negative_order="hardest"
    )
    embeddings, labels, _, _ = batch(3, n=20)
    expected = [part.tolist() for part in miner(embeddings, labels)]
    monkeypatch.setattr(selection_module, "_CHUNK_ELEMENTS", {"cpu": 1})
    assert [part.tolist() for part in miner(embeddings, labels)] == expected


@pytest.mark.parametrize("kind", ["hard", *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[1:])])
@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 24),
    m=st.one_of(st.none(), st.integers(1, 24)),
    caps=st.tuples(*[st.sampled_from([None, 0, 1, 2, 5])] * 2, st.sampled_from([None, 1, 3, 8])),
    thresholds=st.sampled_from([(0.0, 0.0), (0.3, 0.0), (0.0, 0.4), (-0.1, 0.2)]),
    disjoint=st.sampled_from(["violating", "any"]),
    rows_at_once=st.integers(1, 30),
)
def test_miner_with_any_caps_gives_the_triplets_of_the_loop(kind, seed, n, m, caps, thresholds, disjoint, rows_at_once):
    given_batch = batch(seed, n, m)
    miner = MultiLabelSemiHardMiner(
        similarity=sim.Jaccard(),
        type_of_triplets=kind,
        margin=0.3,
        positive_threshold=thresholds[0],
        partial_threshold=thresholds[1],
        max_partial_per_positive=caps[0],
        max_disjoint_per_positive=caps[1],
        max_triplets_per_anchor=caps[2],
        disjoint_negatives=disjoint,
        negative_order="hardest",
        distance=DISTANCES["squared"],
    )
    distance, found = loop_triplets(miner, *given_batch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection_module, "_CHUNK_ELEMENTS", {"cpu": rows_at_once * (m or n)})
        assert as_set(miner(*given_batch)) == capped_by_loop(miner, distance, found)


@pytest.mark.parametrize("keep", [1, 2, 3])
@pytest.mark.slow
def test_miner_draws_each_set_of_negatives_of_different_similarity_equally_often(keep):
    # Anchor 0 and its positive 1 share three labels; partial negatives 2 to 5 share one or two, and lie in between.
    embeddings = torch.tensor([[0.0], [9.0], [1.0], [2.0], [3.0], [4.0]])
    labels = torch.tensor([[1, 1, 1], [1, 1, 1], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1]])
    miner = MultiLabelSemiHardMiner(
        max_partial_per_positive=keep,
        max_triplets_per_anchor=keep,
        distance=DISTANCES["squared"],
        generator=torch.Generator().manual_seed(keep),
    )
    draws = Counter()
    for _ in range(1200):
        anchors, _, negatives = miner(embeddings, labels)
        draws[frozenset(negatives[anchors == 0].tolist())] += 1
    sets = [frozenset(chosen) for chosen in combinations([2, 3, 4, 5], keep)]
    expected = 1200 / len(sets)
    assert set(draws) == set(sets)
    assert sum((draws[chosen] - expected) ** 2 / expected for chosen in sets) < 20.5  # 0.999 quantile at 5 degrees


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool])
def test_miner_takes_similarities_of_every_dtype(dtype):
    embeddings, labels, _, _ = batch(3, n=20)
    shared = MultiLabelSemiHardMiner(similarity=lambda a, b: (a.float() @ b.float().T).to(dtype))
    plain = MultiLabelSemiHardMiner(
        similarity=(lambda a, b: a.float() @ b.float().T > 0) if dtype == torch.bool else None
    )
    assert as_set(shared(embeddings, labels)) == as_set(plain(embeddings, labels)) != set()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_are_sorted_with_signed_zeros_infinities_and_both_signs(dtype):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(5, 300, generator=generator, dtype=dtype) * 10.0 ** torch.arange(-20, 30, 10)[:, None]
    values[:, :6] = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, 1e-40, -1e-40], dtype=dtype)
    order = torch.from_numpy(argsort_rows(values.numpy()))
    assert torch.equal(order.sort(dim=1).values, torch.arange(300).expand(5, -1))
    assert torch.equal(values.gather(1, order), values.sort(dim=1).values)


def test_miner_returns_anchors_in_order_and_partial_before_disjoint():
    miner = MultiLabelSemiHardMiner(max_triplets_per_anchor=6)
    embeddings, labels, _, _ = batch(5, n=24)
    anchors, positives, negatives = miner(embeddings, labels)
    rows = [part.tolist() for part in (anchors, positives, negatives)]
    assert rows[0] == sorted(rows[0])
    similarity, distance = miner.similarity(labels, labels), miner.distance(embeddings)
    for a in anchors.unique().tolist():
        of_anchor = [(p, n) for i, p, n in zip(*rows, strict=True) if i == a]
        assert len(of_anchor) <= 6
        far = [distance[a, p].item() for p, _ in of_anchor]
        assert far == sorted(far, reverse=True)
        for positive in {p for p, _ in of_anchor}:
            shares = [bool(similarity[a, n] > 0) for p, n in of_anchor if p == positive]
            assert shares == sorted(shares, reverse=True)


@pytest.mark.parametrize("order", ["farthest", "random"])
def test_miner_random_caps_keep_qualifying_triplets_and_exact_numbers(order):
    caps = {"max_partial_per_positive": 2, "max_disjoint_per_positive": 1}
    embeddings, labels, _, _ = batch(7, n=16)
    miner = MultiLabelSemiHardMiner(**caps, positive_order=order, generator=torch.Generator().manual_seed(0))
    _, found = loop_triplets(miner, embeddings, labels)
    kept = as_set(miner(embeddings, labels))
    assert kept <= uncapped(found)
    per_positive = Counter((a, p) for a, p, _ in kept)
    for pair, kinds in found.items():
        assert per_positive[pair] == min(2, len(kinds["partial"])) + min(1, len(kinds["disjoint"]))


@pytest.mark.slow
def test_miner_draws_negatives_and_positives_uniformly():
    # Anchor 0, three positives that share label 0, four disjoint negatives nearer than any of them.
    embeddings = torch.tensor([[0.0], [5.0], [6.0], [7.0], [1.0], [2.0], [3.0], [4.0]])
    labels = torch.tensor([[1, 0]] * 4 + [[0, 1]] * 4)
    miner = MultiLabelSemiHardMiner(
        max_triplets_per_anchor=1,
        positive_order="random",
        distance=DISTANCES["squared"],
        generator=torch.Generator().manual_seed(0),
    )
    draws = Counter()
    for _ in range(1200):
        anchors, positives, negatives = miner(embeddings, labels)
        assert anchors[0] == 0
        draws[positives[0].item(), negatives[0].item()] += 1
    expected = 1200 / 12
    chi_square = sum((draws[p, n] - expected) ** 2 / expected for p in (1, 2, 3) for n in (4, 5, 6, 7))
    assert len(draws) == 12
    assert chi_square < 31.3  # 0.999 quantile at 11 degrees of freedom


def test_miner_with_a_generator_repeats_itself():
    embeddings, labels, _, _ = batch(1, n=30)

    def mine(seed):
        miner = MultiLabelSemiHardMiner(
            max_triplets_per_anchor=2, positive_order="random", generator=torch.Generator().manual_seed(seed)
        )
        return [part.tolist() for part in miner(embeddings, labels)]

    assert mine(0) == mine(0)
    assert mine(0) != mine(1)


def test_miner_paper_settings_give_at_most_one_triplet_an_anchor_at_batch_256():
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(256, 30, generator=generator) < 0.14).long()
    miner = MultiLabelSemiHardMiner(
        max_partial_per_positive=1, max_disjoint_per_positive=1, max_triplets_per_anchor=1, generator=generator
    )
    anchors, _, _ = miner(torch.randn(256, 16, generator=generator), labels)
    assert 200 < len(anchors) <= 256
    assert anchors.bincount().max() == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("refs", [None, 20])
def test_miner_with_one_hot_labels_equals_pytorch_metric_learning_on_class_ids(kind, distance, refs):
    generator = torch.Generator().manual_seed(2)
    classes, ref_classes = torch.randint(0, 5, (2, 24), generator=generator)
    embeddings, ref_emb = torch.randn(2, 24, 8, generator=generator, dtype=torch.float64)
    arguments = (ref_emb[:refs], ref_classes[:refs]) if refs else ()
    theirs = TripletMarginMiner(margin=0.2, type_of_triplets=kind, distance=DISTANCES[distance])
    ours = MultiLabelSemiHardMiner(margin=0.2, type_of_triplets=kind, distance=DISTANCES[distance])
    one_hot = torch.nn.functional.one_hot
    our_arguments = (ref_emb[:refs], one_hot(ref_classes[:refs], 5)) if refs else ()
    expected = as_set(theirs(embeddings, classes, *arguments))
    assert as_set(ours(embeddings, one_hot(classes, 5), *our_arguments)) == expected
    assert expected


def test_miner_drops_self_pairs_only_where_the_labels_are_the_same_object():
    embeddings = torch.tensor([[0.0], [1.0]])
    labels = torch.tensor([[1, 0], [0, 1]])
    miner = MultiLabelSemiHardMiner(type_of_triplets="easy", margin=0.5, distance=DISTANCES["squared"])
    assert as_set(miner(embeddings, labels)) == set()
    assert as_set(miner(embeddings, labels, embeddings, labels)) == set()
    assert as_set(miner(embeddings, labels, embeddings.clone(), labels.clone())) == {(0, 0, 1), (1, 1, 0)}


def test_miner_an_anchor_is_never_its_own_negative_even_if_it_is_less_similar_to_itself():
    embeddings = torch.tensor([[0.0], [1.0]])
    miner = MultiLabelSemiHardMiner(similarity=lambda a, b: 1 - 0.5 * torch.eye(len(a)), distance=DISTANCES["squared"])
    assert as_set(miner(embeddings, torch.ones(2, 1))) == set()


def test_miner_positive_is_above_the_threshold_not_at_it():
    embeddings = torch.tensor([[0.0], [2.0], [3.0], [1.0]])
    labels = torch.tensor([[1, 1], [1, 1], [1, 0], [0, 0]])
    at_one = MultiLabelSemiHardMiner(positive_threshold=1, distance=DISTANCES["squared"])
    assert as_set(at_one(embeddings, labels)) == {(0, 1, 3), (1, 0, 2), (1, 0, 3)}
    assert (0, 2, 3) in as_set(MultiLabelSemiHardMiner(distance=DISTANCES["squared"])(embeddings, labels))


@pytest.mark.parametrize(("p", "q"), [(2, 3), (1, 6), (4, 7), (5, 7), (5, 9), (11, 12)])
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32, torch.float64])
def test_miner_at_a_threshold_that_is_a_fraction_mines_the_same_whatever_the_dtype_of_labels(p, q, dtype):
    # Similar to item 0: item 1 by p/q, item 2 by 1, item 3 by 0.
    labels = torch.tensor([[1] * q, [1] * p + [0] * (q - p), [1] * q, [0] * q]).to(dtype)
    embeddings = torch.tensor([[0.0], [1.0], [3.0], [2.0]])
    options = {"distance": DISTANCES["squared"], "collect_stats": True}
    positive = MultiLabelSemiHardMiner(similarity=sim.Jaccard(), positive_threshold=p / q, **options)
    assert as_set(positive(embeddings, labels)) == {(0, 2, 1), (0, 2, 3), (2, 0, 1), (2, 0, 3)}
    assert positive.partial_share == 0.5
    partial = MultiLabelSemiHardMiner(
        similarity=sim.Jaccard(), partial_threshold=p / q, max_disjoint_per_positive=0, **options
    )
    assert as_set(partial(embeddings, labels)) == set()


def test_miner_all_zero_rows_are_no_positives_and_disjoint_negatives():
    embeddings = torch.tensor([[0.0], [3.0], [1.0], [2.0]])
    labels = torch.tensor([[1, 0], [1, 0], [0, 0], [0, 0]])
    miner = MultiLabelSemiHardMiner(distance=DISTANCES["squared"])
    assert as_set(miner(embeddings, labels)) == {(0, 1, 2), (0, 1, 3), (1, 0, 2), (1, 0, 3)}


def test_miner_disjoint_negative_is_never_as_similar_as_the_positive():
    # The paper's "bigger than 1": both refs share exactly one label with anchor 0, none is a better positive.
    embeddings = torch.tensor([[0.0], [2.0], [1.0]])
    labels = torch.tensor([[1, 1], [1, 0], [0, 1]])
    miner = MultiLabelSemiHardMiner(partial_threshold=1, distance=DISTANCES["squared"])
    assert as_set(miner(embeddings, labels)) == {(1, 0, 2)}


def test_miner_without_triplets_gives_empty_indices_and_the_loss_a_differentiable_zero():
    embeddings = torch.randn(4, 3, requires_grad=True, generator=torch.Generator().manual_seed(0))
    triplets = MultiLabelSemiHardMiner()(embeddings, torch.zeros(4, 2))
    assert [(part.dtype, part.shape) for part in triplets] == [(torch.int64, (0,))] * 3
    loss = losses.TripletMarginLoss()(embeddings, indices_tuple=triplets)
    loss.backward()
    assert loss.item() == 0
    assert embeddings.grad.abs().sum() == 0


@pytest.mark.parametrize(("n", "m"), [(1, None), (0, None), (3, 0), (0, 3)])
def test_miner_of_next_to_nothing_gives_nothing(n, m):
    embeddings, labels = torch.zeros(n, 2), torch.ones(n, 2)
    refs = () if m is None else (torch.zeros(m, 2), torch.ones(m, 2))
    assert as_set(MultiLabelSemiHardMiner()(embeddings, labels, *refs)) == set()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_miner_takes_every_floating_dtype_and_autocast(dtype):
    embeddings, labels, _, _ = batch(4, n=14)
    embeddings = embeddings.to(dtype)
    miner = MultiLabelSemiHardMiner(distance=DISTANCES["squared"])
    expected = as_set(miner(embeddings.double(), labels))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert as_set(miner(embeddings, labels)) == expected


def test_miner_takes_a_lambda_a_module_and_non_contiguous_tensors():
    embeddings, labels, _, _ = batch(6, n=10)

    class Learned(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.tensor([1.0, 2.0, 0.5, 1.5]))

        def forward(self, labels, ref_labels):
            return (labels * self.weight) @ ref_labels.float().T

    module = Learned()
    by_module = MultiLabelSemiHardMiner(similarity=module)
    by_lambda = MultiLabelSemiHardMiner(similarity=lambda a, b: (a * module.weight) @ b.float().T)
    strided = embeddings.repeat_interleave(2, dim=1)[:, ::2]
    assert as_set(by_module(embeddings, labels)) == as_set(by_lambda(strided, labels)) != set()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda miner: pickle.loads(pickle.dumps(miner))])
def test_miner_copies_and_pickles_with_its_generator(copied):
    embeddings, labels, _, _ = batch(8, n=20)
    miner = MultiLabelSemiHardMiner(
        similarity=sim.Jaccard(), max_triplets_per_anchor=1, generator=torch.Generator().manual_seed(3)
    )
    other = copied(miner)
    assert as_set(other(embeddings, labels)) == as_set(miner(embeddings, labels))


def test_miner_statistics_are_those_of_its_triplets():
    embeddings = torch.tensor([[0.0], [3.0], [1.0], [2.0]])
    labels = torch.tensor([[1, 1], [1, 1], [1, 0], [0, 0]])
    miner = MultiLabelSemiHardMiner(
        similarity=sim.InnerProduct(), distance=distances.LpDistance(normalize_embeddings=False), collect_stats=True
    )
    # anchor 0: (0,1,2) partial, (0,1,3) disjoint; anchor 1: (1,0,2) partial, (1,0,3) disjoint, (1,2,3) disjoint;
    # anchor 2: (2,1,3) disjoint; anchor 3 has no positive.
    assert as_set(miner(embeddings, labels)) == {(0, 1, 2), (0, 1, 3), (1, 0, 2), (1, 0, 3), (1, 2, 3), (2, 1, 3)}
    assert miner.num_triplets == 6
    assert miner.num_anchors_without_triplets == 1
    assert miner.partial_share == pytest.approx(2 / 6)
    assert miner.disjoint_share == pytest.approx(4 / 6)
    assert miner.pos_pair_dist == pytest.approx((3 + 3 + 3 + 3 + 2 + 2) / 6)
    assert miner.neg_pair_dist == pytest.approx((1 + 2 + 2 + 1 + 1 + 1) / 6)
    assert miner.similarity_gap == pytest.approx((1 + 2 + 1 + 2 + 1 + 1) / 6)
    miner(embeddings, torch.zeros(4, 2))
    assert (miner.num_triplets, miner.num_anchors_without_triplets, miner.pos_pair_dist) == (0, 4, 0)


def test_miner_statistics_count_a_negative_at_the_threshold_as_it_was_mined():
    embeddings = torch.tensor([[0.0], [2.0], [1.0]])
    labels = torch.tensor([[1, 1, 0], [1, 1, 0], [1, 0, 1]])  # Jaccard of the negative: 1/3 in float32
    miner = MultiLabelSemiHardMiner(similarity=sim.Jaccard(), partial_threshold=1 / 3, collect_stats=True)
    miner.distance = distances.LpDistance(normalize_embeddings=False)
    partial = MultiLabelSemiHardMiner(
        similarity=sim.Jaccard(), partial_threshold=1 / 3, max_disjoint_per_positive=0, distance=miner.distance
    )
    miner(embeddings, labels)
    assert miner.partial_share * miner.num_triplets == pytest.approx(len(partial(embeddings, labels)[0]))


def test_miner_takes_a_boolean_similarity_with_statistics():
    miner = MultiLabelSemiHardMiner(similarity=lambda a, b: (a.float() @ b.float().T) >= 1, collect_stats=True)
    embeddings, labels, _, _ = batch(0)
    miner(embeddings, labels)
    assert miner.similarity_gap == 1


@pytest.mark.parametrize("convert", LABEL_KINDS.values(), ids=LABEL_KINDS)
def test_miner_takes_labels_of_every_kind(convert):
    embeddings, labels, ref_emb, ref_labels = batch(0, m=9)
    miner = MultiLabelSemiHardMiner(similarity=sim.Jaccard())
    own = convert(labels)
    assert as_set(miner(embeddings, own)) == as_set(miner(embeddings, labels))
    assert as_set(miner(embeddings, own, embeddings, own)) == as_set(miner(embeddings, labels))
    expected = as_set(miner(embeddings, labels, ref_emb, ref_labels))
    assert as_set(miner(embeddings, own, ref_emb, convert(ref_labels))) == expected


def test_miner_of_label_names_or_embeddings_that_are_not_tensors_raises_a_type_error():
    with pytest.raises(TypeError, match=r"`labels` must .*MultiLabelBinarizer"):
        MultiLabelSemiHardMiner()(torch.zeros(2, 2), [["a"], ["a", "b"]])
    with pytest.raises(TypeError, match=r"`embeddings` must be a torch\.Tensor, got list"):
        MultiLabelSemiHardMiner()([[0.0]], torch.zeros(1, 2))
    with pytest.raises(TypeError, match=r"`ref_emb` must be a torch\.Tensor, got ndarray"):
        MultiLabelSemiHardMiner()(torch.zeros(2, 2), torch.zeros(2, 2), torch.zeros(2, 2).numpy(), torch.zeros(2, 2))


def test_miner_representation_shows_its_parameters():
    generator = torch.Generator().manual_seed(3)
    miner = MultiLabelSemiHardMiner(similarity=0.5 * sim.Jaccard() + sim.jaccard, margin=0.3, generator=generator)
    assert str(miner).splitlines()[1:3] == [
        "  similarity=0.5 * Jaccard() + jaccard, positive_threshold=0.0, partial_threshold=0.0, margin=0.3, "
        "type_of_triplets='hard', positive_order='farthest', disjoint_negatives='violating', negative_order='random', "
        "generator=Generator(initial_seed=3)",
        "  (distance): LpDistance()",
    ]


def test_miner_without_a_generator_samples_from_the_global_one():
    embeddings, labels, _, _ = batch(1, n=30)
    miner = MultiLabelSemiHardMiner(max_triplets_per_anchor=2, positive_order="random")

    def mine(seed):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return [part.tolist() for part in miner(embeddings, labels)]

    assert mine(0) == mine(0)
    assert mine(0) != mine(1)


def test_miner_statistics_of_an_inverted_distance_keep_their_sign():
    embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1]])
    labels = torch.tensor([[1, 0], [1, 0], [0, 1]])
    miner = MultiLabelSemiHardMiner(distance=distances.CosineSimilarity(), collect_stats=True)
    miner(embeddings, labels)
    assert miner.pos_pair_dist == pytest.approx(0.0, abs=1e-6)
    assert miner.neg_pair_dist > 0.09


def test_miner_builds_no_graph_through_a_learned_similarity():
    weight = torch.ones(4, requires_grad=True)
    seen = []

    def learned(labels, ref_labels):
        seen.append((labels * weight) @ ref_labels.float().T)
        return seen[-1]

    embeddings, labels, _, _ = batch(9)
    MultiLabelSemiHardMiner(similarity=learned)(embeddings.requires_grad_(), labels)
    assert not seen[0].requires_grad


def test_miner_takes_a_similarity_of_ones_own_in_full_precision_under_autocast():
    seen = []

    def shared(labels, ref_labels):
        seen.append(labels.float() @ ref_labels.float().T)
        return seen[-1]

    embeddings, labels, _, _ = batch(9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        MultiLabelSemiHardMiner(similarity=shared)(embeddings, labels)
    assert seen[0].dtype == torch.float32


def test_miner_with_ref_includes_query_excludes_self_pairs_before_the_caps():
    embeddings = torch.tensor([[0.0], [1.0]])
    labels = torch.tensor([[1, 0], [1, 0]])
    ref_emb, ref_labels = torch.tensor([[0.0], [1.0], [9.0]]), torch.tensor([[1, 0], [1, 0], [0, 1]])
    miner = MultiLabelSemiHardMiner(
        max_triplets_per_anchor=1,
        type_of_triplets="easy",
        positive_order="random",
        distance=DISTANCES["squared"],
        generator=torch.Generator().manual_seed(0),
    )
    included = [as_set(miner(embeddings, labels, ref_emb, ref_labels, ref_includes_query=True)) for _ in range(10)]
    assert included == [{(0, 1, 2), (1, 0, 2)}] * 10
    not_included = [as_set(miner(embeddings, labels, ref_emb, ref_labels)) for _ in range(10)]
    assert any((0, 0, 2) in triplets for triplets in not_included)
    with pytest.raises(
        ValueError, match="must begin with the batch if `ref_includes_query=True`, got 1 references for 2"
    ):
        miner(embeddings, labels, ref_emb[:1], ref_labels[:1], ref_includes_query=True)


def test_miner_checks_no_values_without_validate_args():
    embeddings, labels, _, _ = batch(1)
    embeddings[0, 0] = torch.nan
    MultiLabelSemiHardMiner(validate_args=False)(embeddings, 2 * labels)
    with pytest.raises(ValueError, match="contain NaN"):
        MultiLabelSemiHardMiner()(embeddings, labels)


def test_miner_with_the_same_labels_object_and_other_embeddings_checks_their_shape():
    embeddings, labels, _, _ = batch(1)
    with pytest.raises(ValueError, match=r"`ref_emb` must have shape \(12, D\), .* got \(7, 3\)"):
        MultiLabelSemiHardMiner()(embeddings, labels, embeddings[:7], labels)
    moved = as_set(MultiLabelSemiHardMiner()(embeddings, labels, embeddings.clone(), labels))
    assert moved == as_set(MultiLabelSemiHardMiner()(embeddings, labels))


@pytest.mark.parametrize("caps", [{"max_triplets_per_anchor": 10**20}, {"max_partial_per_positive": 10**20}])
def test_miner_caps_above_the_number_of_candidates_exclude_nothing(caps):
    embeddings, labels, _, _ = batch(2, n=30)
    capped = MultiLabelSemiHardMiner(similarity=sim.Jaccard(), **caps)(embeddings, labels)
    free = MultiLabelSemiHardMiner(similarity=sim.Jaccard())(embeddings, labels)
    assert all(torch.equal(a, b) for a, b in zip(capped, free, strict=True))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"similarity": 3}, TypeError, "`similarity` must be callable, got int"),
        ({"distance": "cosine"}, TypeError, "`distance` must be a distance of .* got str"),
        ({"type_of_triplets": "semi-hard"}, ValueError, "`type_of_triplets` must be one of .* got 'semi-hard'"),
        ({"positive_order": "nearest"}, ValueError, "`positive_order` must be one of .* got 'nearest'"),
        ({"negative_order": "easy"}, ValueError, "`negative_order` must be one of .* got 'easy'"),
        ({"disjoint_negatives": "all"}, ValueError, "`disjoint_negatives` must be one of .* got 'all'"),
        ({"margin": -0.1}, ValueError, "`margin` must be a number >= 0, got -0.1"),
        ({"max_partial_per_positive": -1}, ValueError, "`max_partial_per_positive` must be .* >= 0, got -1"),
        ({"max_disjoint_per_positive": -2}, ValueError, "`max_disjoint_per_positive` must be .* >= 0, got -2"),
        ({"max_triplets_per_anchor": 1.5}, ValueError, "`max_triplets_per_anchor` must be .* >= 1, got 1.5"),
        ({"max_triplets_per_anchor": 0}, ValueError, "`max_triplets_per_anchor` must be .* >= 1, got 0"),
        ({"max_triplets_per_anchor": True}, ValueError, "`max_triplets_per_anchor` must be .* >= 1, got True"),
        ({"similarity": sim.Jaccard}, TypeError, r"got the class: write `Jaccard\(\)`"),
        ({"generator": 0}, TypeError, "`generator` must be a torch.Generator, got int"),
        ({"positive_threshold": float("nan")}, ValueError, "`positive_threshold` must be a number, got nan"),
        ({"margin": "0.2"}, ValueError, "`margin` must be a number >= 0, got '0.2'"),
    ],
)
def test_miner_constructor_names_what_is_wrong(arguments, error, message):
    with pytest.raises(error, match=message):
        MultiLabelSemiHardMiner(**arguments)


@pytest.mark.parametrize(
    ("similarity", "error", "message"),
    [
        (lambda a, b: (a.float() @ b.float().T)[0], ValueError, r"must return shape \(3, 3\).*got \(3,\)"),
        (lambda a, b: a.float() @ b.float().T / 0.0, ValueError, "must not return NaN"),
        (lambda a, b: a.numpy() @ b.numpy().T, TypeError, "must return a torch.Tensor, got ndarray"),
    ],
)
def test_miner_names_what_a_similarity_does_wrong(similarity, error, message):
    with pytest.raises(error, match=message):
        MultiLabelSemiHardMiner(similarity=similarity)(torch.randn(3, 2), torch.eye(3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(3, 2), torch.zeros(3)), r"`labels` must be a 2-D .* got shape \(3,\).*one_hot"),
        ((torch.zeros(3, 2), torch.zeros(4, 2)), r"`embeddings` must have shape \(4, D\).*got \(3, 2\)"),
        ((torch.zeros(3, 2), torch.full((3, 2), 2.0)), r"in \[0, 1\], got 2\.0"),
        ((torch.zeros(3, 2), torch.zeros(3, 2), torch.zeros(2, 2)), "must be given together"),
        (
            (torch.zeros(3, 2), torch.zeros(3, 2), torch.zeros(2, 2), torch.zeros(1, 2)),
            r"`ref_emb` must have shape \(1",
        ),
        ((torch.full((3, 2), float("nan")), torch.ones(3, 2)), "contain NaN"),
        (
            (torch.tensor([[0.0, 1.0], [3e19, 0.0], [1.0, 1.0]]), torch.ones(3, 2)),
            r"`embeddings` must have norms below 9\.2e\+18, .* overflow torch\.float32; got .* 3e\+19 in row 1",
        ),
        (
            (torch.full((2, 2), -4e30).bfloat16(), torch.ones(2, 2)),
            r"`embeddings` must have norms below 9\.2e\+18, .* got an entry of 4e\+30 in row 0",
        ),
        (
            (torch.zeros(1, 2), torch.ones(1, 2), torch.tensor([[0.0, float("inf")]]), torch.ones(1, 2)),
            r"`ref_emb` must have norms below .* got an entry of inf in row 0",
        ),
        (
            (torch.full((2, 2), 1e160, dtype=torch.float64), torch.ones(2, 2)),
            r"norms below 6\.7e\+153, .* overflow torch\.float64; got an entry of 1e\+160 in row 0",
        ),
    ],
)
def test_miner_names_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        MultiLabelSemiHardMiner()(*arguments)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize(
    ("dtype", "scale"), [(torch.float32, 2.0**60), (torch.bfloat16, 2.0**60), (torch.float64, 2.0**500)]
)
def test_miner_of_long_embeddings_gives_the_triplets_of_short_ones(distance, dtype, scale):
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(30, 4, generator=generator).to(dtype)
    labels = torch.randint(0, 2, (30, 3), generator=generator)
    miner = MultiLabelSemiHardMiner(distance=DISTANCES[distance])
    short = as_set(miner(embeddings, labels))
    assert short
    assert as_set(miner(embeddings * scale, labels)) == short


GRADED = [
    "ContrastiveLoss",
    "HistogramLoss",
    "IntraPairVarianceLoss",
    "LiftedStructureLoss",
    "MarginLoss",
    "NTXentLoss",
    "SignalToNoiseRatioContrastiveLoss",
    "ThresholdConsistentMarginLoss",
    "TripletMarginLoss",
    "TupletMarginLoss",
]
BINARY = ["CircleLoss", "GeneralizedLiftedStructureLoss", "MultiSimilarityLoss", "SupConLoss"]


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")  # raised by HistogramLoss
@pytest.mark.parametrize("name", GRADED + BINARY)
def test_graded_triplets_are_accepted_by_the_losses_that_support_them(name):
    embeddings, labels, _, _ = batch(0, n=24)
    triplets = MultiLabelSemiHardMiner(similarity=sim.Jaccard(), type_of_triplets="all")(embeddings, labels)
    loss = losses.HistogramLoss(n_bins=10) if name == "HistogramLoss" else getattr(losses, name)()
    if name in BINARY:
        with pytest.raises(AssertionError, match="either be positive or negative"):
            loss(embeddings, indices_tuple=triplets)
    else:
        embeddings.requires_grad_()
        loss(embeddings, indices_tuple=triplets).backward()
        assert embeddings.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_miner_on_a_device_gives_the_set_of_the_cpu(kind, device):
    embeddings, labels, ref_emb, ref_labels = (part.double() for part in batch(2, n=24, m=20))
    for similarity in SIMILARITIES.values():
        miner = MultiLabelSemiHardMiner(similarity=similarity, type_of_triplets=kind, margin=0.3)
        expected = as_set(miner(embeddings, labels, ref_emb, ref_labels))
        mined = miner(embeddings.to(device), labels, ref_emb.to(device), ref_labels.to(device))
        assert all(part.device == device for part in mined)
        assert as_set(mined) == expected
