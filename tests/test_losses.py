"""The losses against pytorch-metric-learning on one-hot labels, and against loops of their formulas on label sets."""

import copy
import io
import math
import pickle
import sys
from pathlib import Path

import pytest
import torch
from pytorch_metric_learning import distances, losses, reducers, regularizers
from pytorch_metric_learning.utils.distributed import DistributedLossWrapper
from torch.nn.functional import normalize, one_hot

from mlmetric import similarity as sim
from mlmetric.losses import MultiLabelLoss
from mlmetric.losses import _relational as relational_module
from mlmetric.losses._registry import GRADED, READINGS, SETTINGS, Reading, Refusal
from mlmetric.losses._tuples import all_pairs, miner_weights, to_triplets
from mlmetric.miners import MultiLabelSemiHardMiner

PAGE = Path(__file__).parents[1] / "docs" / "pages" / "pml_losses.md"
EXPORTED = {name: cls for name, cls in vars(losses).items() if isinstance(cls, type)}
SIZES = {"num_classes": 4, "embedding_size": 5}
ARGUMENTS = {
    "ArcFaceLoss": SIZES,
    "CosFaceLoss": SIZES,
    "HistogramLoss": {"n_bins": 10},
    "LargeMarginSoftmaxLoss": SIZES,
    "NormalizedSoftmaxLoss": SIZES,
    "P2SGradLoss": {"num_classes": 4, "descriptors_dim": 5},
    "ProxyAnchorLoss": SIZES,
    "RankedListLoss": {"margin": 0.5, "Tn": 2, "Tp": 1, "imbalance": 0.3},
    "SoftTripleLoss": SIZES,
    "SphereFaceLoss": SIZES,
    "SubCenterArcFaceLoss": SIZES,
}
READ = sorted(
    cls.__name__
    for cls, reading in READINGS.items()
    if isinstance(reading, Reading) and cls is not losses.GenericPairLoss
)
OF_LABELS = [name for name in READ if READINGS[EXPORTED[name]].given == "labels"]
OF_RELATION = [name for name in READ if READINGS[EXPORTED[name]].given == "relation"]
BINARY = [name for name in READ if READINGS[EXPORTED[name]].tuples == "binary"]
WITH_REFS = [name for name in READ if READINGS[EXPORTED[name]].refs]
REFS_HERE_ONLY = ["FastAPLoss", "PNPLoss", "RankedListLoss"]
TAKES_TUPLES = [name for name in READ if READINGS[EXPORTED[name]].tuples != "none"]

pytestmark = [
    pytest.mark.filterwarnings("ignore:Using a non-tuple sequence"),  # HistogramLoss, in a way of the past
    pytest.mark.filterwarnings("ignore:__array_wrap__"),  # LargeMarginSoftmaxLoss, in its constructor
]


def build(name, **arguments):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return getattr(losses, name)(**ARGUMENTS.get(name, {}), **arguments).double()


def batch(seed=0, n=16, m=None, num_labels=4):
    """Embeddings and label sets, some of them empty; with refs if `m` is given."""
    generator = torch.Generator().manual_seed(seed)

    def draw(rows):
        labels = (torch.rand(rows, num_labels, generator=generator) < 0.4).long()
        labels[rows // 2] = 0
        return torch.randn(rows, 5, generator=generator, dtype=torch.float64), labels

    return (*draw(n), *(draw(m) if m else ()))


def classes(seed=0, n=16, m=12):
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(n + m, 5, generator=generator, dtype=torch.float64)
    ids = torch.randint(0, 4, (n + m,), generator=generator)
    return embeddings[:n], ids[:n], embeddings[n:], ids[n:]


def three_way(loss, **arguments):
    return MultiLabelLoss(loss, sim.Jaccard(), positive_threshold=0.4, negative_threshold=0.1, **arguments)


def value_and_gradients(loss, embeddings, *arguments, **keywords):
    embeddings = embeddings.clone().requires_grad_()
    parameters = list(loss.parameters())
    value = loss(embeddings, *arguments, **keywords)
    gradients = torch.autograd.grad(value, [embeddings, *parameters], allow_unused=True)
    return value.detach(), [torch.zeros(()) if part is None else part for part in gradients]


def assert_same(ours, theirs):
    torch.testing.assert_close(ours[0].squeeze(), theirs[0].squeeze(), rtol=1e-9, atol=1e-11)
    for mine, other in zip(ours[1], theirs[1], strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-7, atol=1e-11)
    assert theirs[0] > 0
    assert theirs[1][0].abs().sum() > 0


# Which classes there are.


def test_every_loss_of_pytorch_metric_learning_is_read_or_refused():
    assert {cls.__name__ for cls in READINGS} == set(EXPORTED)


def rows_of_the_table():
    given = {
        "pairs": "positive and negative pairs",
        "triplets": "all triplets of the relation",
        "relation": "positives and negatives of each anchor",
        "labels": "one proxy for each label",
    }
    tuples = {
        "graded": "replaces the relation, graded triplets too",
        "binary": "replaces the relation, no pair as both",
        "positives": "gives the positive pairs",
        "weights": "weighs the items",
        "none": "no",
    }
    yield "| class | reading | `indices_tuple` | refs, cross-batch memory |"
    yield "|---|---|---|---|"
    for name in sorted([*READ, "GenericPairLoss"]):
        reading = READINGS[EXPORTED[name]]
        text = given[reading.given] + ("" if reading.soft else "; hard labels")
        text += ", for a subclass of yours" * (name == "GenericPairLoss")
        yield f"| `{name}` | {text} | {tuples[reading.tuples]} | {'yes' if reading.refs else 'no'} |"
    yield ""
    yield "| refused | because it | use |"
    yield "|---|---|---|"
    refusals = {}
    for name in sorted(EXPORTED):
        if isinstance(READINGS[EXPORTED[name]], Refusal):
            refusals.setdefault(READINGS[EXPORTED[name]], []).append(f"`{name}`")
    for refusal, names in refusals.items():
        yield f"| {', '.join(names)} | {refusal.reason} | {refusal.instead} |"
    for setting in SETTINGS:
        yield f"| `{setting.name}` | {setting.reason} | {setting.instead} |"


def page_with_table(page):
    start, end = "<!-- table: start -->", "<!-- table: end -->"
    before, _, rest = page.partition(start)
    return "\n".join([before + start, "", *rows_of_the_table(), "", end + rest.partition(end)[2]])


def test_page_holds_the_table_of_the_registry():
    page = PAGE.read_text()
    assert page == page_with_table(page), "run `python tests/test_losses.py` to write the table anew"


# One-hot labels: pytorch-metric-learning itself.


@pytest.mark.parametrize("name", READ)
def test_loss_with_one_hot_labels_equals_pytorch_metric_learning(name):
    embeddings, ids, _, _ = classes()
    ours = value_and_gradients(MultiLabelLoss(build(name)), embeddings, one_hot(ids, 4))
    assert_same(ours, value_and_gradients(build(name), embeddings, ids))


@pytest.mark.parametrize("name", [name for name in WITH_REFS if name not in (*REFS_HERE_ONLY, "LiftedStructureLoss")])
def test_loss_with_one_hot_refs_equals_pytorch_metric_learning(name):
    embeddings, ids, ref_emb, ref_ids = classes()
    given = {"ref_emb": ref_emb, "ref_labels": one_hot(ref_ids, 4)}
    ours = value_and_gradients(MultiLabelLoss(build(name)), embeddings, one_hot(ids, 4), **given)
    theirs = value_and_gradients(build(name), embeddings, ids, ref_emb=ref_emb, ref_labels=ref_ids)
    assert_same(ours, theirs)


@pytest.mark.parametrize("kind", ["pairs", "triplets"])
@pytest.mark.parametrize("name", TAKES_TUPLES)
def test_loss_with_one_hot_labels_and_a_tuple_equals_pytorch_metric_learning(name, kind):
    embeddings, ids, _, _ = classes()
    relation = (ids.unsqueeze(1) == ids).long() * 2 - 1 - torch.eye(16).long()
    pairs = all_pairs(relation)
    if kind == "triplets":
        indices = tuple(part[3::7] for part in to_triplets(pairs, 16))
    else:
        indices = (pairs[0][::3], pairs[1][::3], pairs[2][::5], pairs[3][::5])
    ours = value_and_gradients(MultiLabelLoss(build(name)), embeddings, one_hot(ids, 4), indices)
    assert_same(ours, value_and_gradients(build(name), embeddings, ids, indices))


@pytest.mark.parametrize("variant", losses.PNPLoss.VARIANTS)
def test_pnp_with_one_hot_labels_equals_pytorch_metric_learning_in_every_variant_and_chunk(variant, monkeypatch):
    monkeypatch.setattr(relational_module, "_CHUNK_ELEMENTS", 100)
    embeddings, ids, _, _ = classes()
    loss = build("PNPLoss", variant=variant, b=3, alpha=2, anneal=0.1)
    ours = value_and_gradients(MultiLabelLoss(loss), embeddings, one_hot(ids, 4))
    assert_same(ours, value_and_gradients(loss, embeddings, ids))


def test_dynamic_soft_margin_trains_past_one_step_where_its_own_forward_does_not():
    embeddings, ids, _, _ = classes()
    embeddings.requires_grad_()
    theirs, ours = build("DynamicSoftMarginLoss"), MultiLabelLoss(build("DynamicSoftMarginLoss"))
    theirs(embeddings, ids).backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        theirs(embeddings, ids).backward()
    for _ in range(2):
        ours(embeddings, one_hot(ids, 4)).backward()
    torch.testing.assert_close(ours.loss.hist_, theirs.hist_.detach())


# Label sets: loops over the formulas.


def relation_by_loop(labels, ref_labels, own):
    table = torch.zeros(len(labels), len(ref_labels), dtype=torch.int64)
    for i, row in enumerate(labels):
        for j, ref in enumerate(ref_labels):
            union = int(((row + ref) > 0).sum())
            jaccard = int((row * ref).sum()) / union if union else 0.0
            table[i, j] = 1 if jaccard > 0.4 else -1 if jaccard <= 0.1 else 0
            if own and i == j:
                table[i, j] = 0
    return table


def related(relation, anchor):
    row = relation[anchor].tolist()
    return [j for j, r in enumerate(row) if r == 1], [j for j, r in enumerate(row) if r == -1]


def angular_by_loop(loss, x, ref, relation, own):
    tangent, terms = math.tan(math.radians(40)) ** 2, []
    for i in range(len(x)):
        positives, negatives = related(relation, i)
        for p in positives:
            a, b = normalize(x[i], dim=0), normalize(ref[p], dim=0)
            inside = [4 * tangent * (a + b) @ ref[n] - 2 * (1 + tangent) * a @ b for n in negatives]
            terms.append(torch.log(1 + sum(part.exp() for part in inside)))
    return sum(terms) / len(terms)


def nca_by_loop(loss, x, ref, relation, own):
    distance, terms = loss.distance(x, ref), []
    for i in range(len(x)):
        positives, negatives = related(relation, i)
        if positives:
            near = [(-loss.softmax_scale * distance[i, j]).exp() for j in positives]
            far = [(-loss.softmax_scale * distance[i, j]).exp() for j in negatives]
            terms.append(-torch.log(sum(near) / (sum(near) + sum(far))))
    return sum(terms) / len(terms)


def fast_ap_by_loop(loss, x, ref, relation, own):
    distance, terms, width = loss.distance(x, ref), [], 4 / loss.num_bins
    for i in range(len(x)):
        positives, negatives = related(relation, i)
        if not positives:
            continue
        score = cumulated = hits = 0.0
        for b in range(loss.num_bins + 1):
            h = [sum(max(0, 1 - abs(distance[i, j] - b * width) / width) for j in s) for s in (positives, negatives)]
            hits, cumulated = hits + h[0], cumulated + h[0] + h[1]
            score = score + (h[0] * hits / cumulated if h[0] > 0 else 0)
        terms.append(1 - score / len(positives))
    return sum(terms) / len(terms)


def pnp_by_loop(loss, x, ref, relation, own):
    similarity, terms = loss.distance(x, ref), []
    for i in range(len(x)):
        positives, negatives = related(relation, i)
        if positives:
            before = [
                sum(torch.sigmoid((similarity[i, n] - similarity[i, p]) / loss.anneal) for n in negatives)
                for p in positives + [i] * own
            ]
            terms.append(sum(before) / len(before))
    return sum(terms) / len(terms)


def ranked_list_by_loop(loss, x, ref, relation, own):
    distance, terms = loss.distance(x, ref), []
    for i in range(len(x)):
        positives, negatives = related(relation, i)
        far = [distance[i, p] - (loss.alpha - loss.margin) for p in positives]
        near = [loss.alpha - distance[i, n] for n in negatives]
        for share, gaps, temperature in ((1 - loss.imbalance, far, loss.Tp), (loss.imbalance, near, loss.Tn)):
            gaps = [gap for gap in gaps if gap > 0]
            weights = [(temperature * gap).exp() for gap in gaps]
            mean = sum(w * gap for w, gap in zip(weights, gaps, strict=True)) / (sum(weights) + 1e-5 * len(ref))
            terms.append(share * mean)
    return sum(terms) / len(x)


LOOPS = {
    "AngularLoss": angular_by_loop,
    "FastAPLoss": fast_ap_by_loop,
    "NCALoss": nca_by_loop,
    "PNPLoss": pnp_by_loop,
    "RankedListLoss": ranked_list_by_loop,
}


@pytest.mark.parametrize("refs", [None, "batch first", "others"])
@pytest.mark.parametrize("name", OF_RELATION)
def test_loss_on_a_relation_equals_the_loop_of_its_formula(name, refs):
    embeddings, labels, ref_emb, ref_labels = batch(m=11)
    loss = build(name, **({"anneal": 0.2} if name == "PNPLoss" else {}))
    own = refs != "others"
    if refs is None:
        given, ref_emb, ref_labels = {}, embeddings, labels
    else:
        if own:
            ref_emb, ref_labels = torch.cat([embeddings, ref_emb]), torch.cat([labels, ref_labels])
        given = {"ref_emb": ref_emb, "ref_labels": ref_labels, "batch_first": own}
    relation = relation_by_loop(labels, ref_labels, own)
    assert {-1, 0, 1} == set((relation[~torch.eye(*relation.shape, dtype=torch.bool)]).tolist())
    expected = LOOPS[name](loss, embeddings, ref_emb, relation, own)
    torch.testing.assert_close(three_way(loss)(embeddings, labels, **given), expected)


def cross_entropy_by_loop(logits, labels):
    """The mean over rows of -sum_l y_l / |y| log softmax_l, an all-zero row counting as 0."""
    terms = []
    for row, y in zip(logits, labels.double(), strict=True):
        log_total = torch.log(sum(z.exp() for z in row))
        terms.append(sum(y_l / y.sum() * (log_total - z) for y_l, z in zip(y, row, strict=True) if y_l > 0))
    return sum(terms) / len(labels)


def softmax_logits_by_loop(name, loss, x, labels):
    weights = loss.fc if name == "SoftTripleLoss" else loss.W
    unit, logits = normalize(weights, dim=0), torch.zeros(len(x), labels.shape[1], dtype=x.dtype)
    for i, row in enumerate(x):
        for j, on in enumerate(labels[i].tolist()):
            a = normalize(row, dim=0)
            if name == "NormalizedSoftmaxLoss":
                logits[i, j] = a @ unit[:, j] / loss.temperature
                continue
            if name == "SoftTripleLoss":
                to_centers = torch.stack([a @ unit[:, 10 * j + k] for k in range(10)])
                similarity = (torch.softmax(to_centers * loss.gamma, 0) * to_centers).sum()
                logits[i, j] = loss.la * (similarity - loss.margin * on)
                continue
            count = getattr(loss, "sub_centers", 1)
            cosine = max(a @ unit[:, count * j + k] for k in range(count))
            angle = torch.acos(cosine)
            if on and name == "CosFaceLoss":
                cosine = cosine - loss.margin
            elif on and name in ("ArcFaceLoss", "SubCenterArcFaceLoss"):
                beyond = angle > math.pi - loss.margin
                cosine = cosine - loss.margin * math.sin(loss.margin) if beyond else torch.cos(angle + loss.margin)
            elif on:
                k = math.floor(angle.item() * loss.margin / math.pi)
                cosine = (-1) ** k * torch.cos(loss.margin * angle) - 2 * k
            scale = {"LargeMarginSoftmaxLoss": row.norm() * weights[:, j].norm(), "SphereFaceLoss": row.norm()}
            logits[i, j] = cosine * scale.get(name, 1) * loss.scale
    return logits


@pytest.mark.parametrize("name", [name for name in OF_LABELS if name not in ("ProxyAnchorLoss", "P2SGradLoss")])
def test_softmax_loss_puts_the_margin_on_each_label_and_spreads_the_target_over_them(name):
    embeddings, labels = batch()
    loss = build(name)
    expected = cross_entropy_by_loop(softmax_logits_by_loop(name, loss, embeddings, labels), labels)
    torch.testing.assert_close(MultiLabelLoss(loss)(embeddings, labels), expected)


def test_normalized_softmax_takes_soft_labels_as_their_shares():
    embeddings, labels = batch()
    labels = labels * torch.tensor([0.2, 1.0, 0.5, 0.3])
    loss = build("NormalizedSoftmaxLoss")
    logits = softmax_logits_by_loop("NormalizedSoftmaxLoss", loss, embeddings, labels)
    torch.testing.assert_close(MultiLabelLoss(loss)(embeddings, labels), cross_entropy_by_loop(logits, labels))


def test_proxy_anchor_pulls_the_proxy_of_each_label_and_pushes_all_others():
    embeddings, labels = batch()
    labels[:, 3] = 0  # a label that nobody carries has no pull
    loss = build("ProxyAnchorLoss")
    pull, push, carried = 0, 0, 0
    for j, proxy in enumerate(loss.proxies):
        cosine = [torch.cosine_similarity(row, proxy, dim=0) for row in embeddings]
        near = [(-loss.alpha * (c - loss.margin)).exp() for c, on in zip(cosine, labels[:, j], strict=True) if on]
        far = [(loss.alpha * (c + loss.margin)).exp() for c, on in zip(cosine, labels[:, j], strict=True) if not on]
        carried += bool(near)
        push = push + torch.log(1 + sum(far))
        pull = pull + (torch.log(1 + sum(near)) if near else 0)
    torch.testing.assert_close(MultiLabelLoss(loss)(embeddings, labels), pull / carried + push / 4)


@pytest.mark.parametrize("soft", [False, True])
def test_p2s_grad_is_the_mean_squared_difference_of_cosines_and_labels(soft):
    embeddings, labels = batch()
    labels = labels / 2 if soft else labels
    loss = build("P2SGradLoss")
    squares = [
        (torch.cosine_similarity(embeddings[i], loss.weight[:, j], dim=0) - labels[i, j]) ** 2
        for i in range(len(labels))
        for j in range(4)
    ]
    torch.testing.assert_close(MultiLabelLoss(loss)(embeddings, labels), sum(squares) / len(squares))


@pytest.mark.parametrize("refs", [None, 11])
@pytest.mark.parametrize("name", ["ContrastiveLoss", "MultiSimilarityLoss", "TripletMarginLoss", "MarginLoss"])
def test_loss_on_tuples_is_given_the_pairs_and_triplets_of_a_loop(name, refs):
    embeddings, labels, *given = batch(m=refs)
    relation = relation_by_loop(labels, given[1] if refs else labels, own=not refs)
    positive, negative, triplets = [], [], []
    for a in range(len(labels)):
        positives, negatives = related(relation, a)
        positive += [(a, p) for p in positives]
        negative += [(a, n) for n in negatives]
        triplets += [(a, p, n) for p in positives for n in negatives]
    if READINGS[EXPORTED[name]].given == "pairs":
        indices = (*torch.tensor(positive).T, *torch.tensor(negative).T)
    else:
        indices = tuple(torch.tensor(triplets).T)
    expected = build(name)(embeddings, None, indices, given[0] if refs else None)
    ours = three_way(build(name))(embeddings, labels, None, *given)
    assert expected > 0
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("name", READ)
def test_loss_of_label_sets_is_finite_and_pulls_at_embeddings_and_parameters(name):
    embeddings, labels = batch(seed=1, n=20)
    loss = three_way(build(name))
    value, gradients = value_and_gradients(loss, embeddings, labels)
    assert value.isfinite()
    for gradient in gradients:
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0


@pytest.mark.parametrize("name", READ)
def test_loss_without_any_label_is_finite(name):
    embeddings, labels = batch()
    value, gradients = value_and_gradients(three_way(build(name)), embeddings, torch.zeros_like(labels))
    assert value.isfinite()
    assert gradients[0].isfinite().all()


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize(("n", "m"), [(0, None), (4, 0), (1, None)])
def test_loss_of_next_to_nothing_is_a_differentiable_number(name, n, m):
    if m == 0 and name not in WITH_REFS:
        return
    embeddings, labels = batch(n=4)
    given = () if m is None else (None, embeddings[:0], labels[:0])
    leaf = embeddings[:n].clone().requires_grad_()
    value = MultiLabelLoss(build(name))(leaf, labels[:n], *given)
    value.backward()
    assert value.isfinite()
    if name not in OF_LABELS or n == 0:
        assert value == 0


def nt_xent_by_loop(loss, distance, pairs, own):
    similarity = distance / loss.temperature
    for a, p, negatives, _ in pairs:
        far = [similarity[a, n].exp() for n in negatives]
        yield -torch.log(similarity[a, p].exp() / (similarity[a, p].exp() + sum(far)))


def tuplet_margin_by_loop(loss, distance, pairs, own):
    for a, p, negatives, _ in pairs:
        near = torch.cos(torch.acos(distance[a, p]) - loss.margin)
        yield torch.log(1 + sum((loss.scale * (distance[a, n] - near)).exp() for n in negatives))


def lifted_structure_by_loop(loss, distance, pairs, own):
    for a, p, negatives, of_positive in pairs:
        far = [(loss.neg_margin - distance[a, n]).exp() for n in negatives]
        far += [(loss.neg_margin - distance[p, n]).exp() for n in of_positive] if own else []
        yield max(torch.log(sum(far)) + distance[a, p] - loss.pos_margin, 0) ** 2 / 2


PAIR_LOOPS = {
    "LiftedStructureLoss": lifted_structure_by_loop,
    "NTXentLoss": nt_xent_by_loop,
    "TupletMarginLoss": tuplet_margin_by_loop,
}


@pytest.mark.parametrize("refs", [None, 11])
@pytest.mark.parametrize("name", PAIR_LOOPS)
def test_loss_on_pairs_against_the_negatives_of_an_anchor_equals_the_loop_of_its_formula(name, refs):
    embeddings, labels, *given = batch(m=refs)
    loss, ref_labels = build(name), given[1] if refs else labels
    relation = relation_by_loop(labels, ref_labels, own=not refs)
    distance = loss.distance(embeddings, given[0] if refs else embeddings)
    pairs = []
    for a in range(len(labels)):
        positives, negatives = related(relation, a)
        pairs += [(a, p, negatives, None if refs else related(relation, p)[1]) for p in positives]
    terms = list(PAIR_LOOPS[name](loss, distance, pairs, not refs))
    assert len(terms) > 20
    torch.testing.assert_close(three_way(loss)(embeddings, labels, None, *given), sum(terms) / len(terms))


@pytest.mark.parametrize("name", PAIR_LOOPS)
def test_loss_of_anchors_without_negatives_equals_pytorch_metric_learning(name):
    embeddings, _ = batch()
    indices = (torch.arange(6), torch.arange(6, 12), torch.tensor([0, 0, 1, 9]), torch.tensor([12, 13, 14, 15]))
    ours = value_and_gradients(MultiLabelLoss(build(name)), embeddings, None, indices)
    assert_same(ours, value_and_gradients(build(name), embeddings, None, indices))


# Index tuples.


def test_to_triplets_joins_each_positive_pair_with_each_negative_pair_of_its_anchor_in_order():
    generator = torch.Generator().manual_seed(0)
    a1, p, a2, n = torch.randint(0, 6, (4, 15), generator=generator)
    expected = [(a1[i], p[i], n[j]) for i in range(15) for j in range(15) if a1[i] == a2[j]]
    assert len(expected) > 20
    assert list(zip(*to_triplets((a1, p, a2, n), 6), strict=True)) == expected
    none = torch.zeros(0, dtype=torch.int64)
    assert [len(part) for part in to_triplets((a1, p, none, none), 6)] == [0, 0, 0]


def test_miner_weights_count_an_item_in_every_place_or_as_anchor_only():
    embeddings = torch.zeros(4, 1)
    pairs = (torch.tensor([0, 0]), torch.tensor([1, 2]), torch.tensor([0, 1]), torch.tensor([2, 2]))
    triplets = (torch.tensor([0, 0, 1]), torch.tensor([1, 1, 0]), torch.tensor([2, 2, 2]))
    assert miner_weights(pairs, embeddings, anchors_only=False).tolist() == pytest.approx([1, 2 / 3, 1, 0])
    assert miner_weights(pairs, embeddings, anchors_only=True).tolist() == pytest.approx([1, 1 / 3, 0, 0])
    assert miner_weights(triplets, embeddings, anchors_only=False).tolist() == pytest.approx([1, 1, 1, 0])
    assert miner_weights(triplets, embeddings, anchors_only=True).tolist() == pytest.approx([1, 0.5, 0, 0])
    assert miner_weights(None, embeddings, anchors_only=True).tolist() == [1, 1, 1, 1]
    assert miner_weights(tuple(part[:0] for part in pairs), embeddings, anchors_only=False).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("name", sorted([*GRADED, *BINARY]))
def test_graded_triplets_are_taken_or_refused_as_the_table_says(name):
    embeddings, labels = batch(n=24)
    triplets = MultiLabelSemiHardMiner(sim.Jaccard(), type_of_triplets="all")(embeddings, labels)
    loss = MultiLabelLoss(build(name))
    if name in GRADED:
        ours = value_and_gradients(loss, embeddings, None, triplets)
        assert ours[1][0].abs().sum() > 0
        if name != "DynamicSoftMarginLoss":  # which without labels reads no tuple
            assert_same(ours, value_and_gradients(build(name), embeddings, None, triplets))
    else:
        both = {(a, p) for a, p, _ in zip(*triplets, strict=True)}
        pairs = {(int(a), int(p)) for a, p in both} & {(int(a), int(n)) for a, _, n in zip(*triplets, strict=True)}
        message = f"`{name}` takes a pair .* holds {len(pairs)} pairs as both.*{', '.join(GRADED)}.*MultiLabelMiner"
        with pytest.raises(ValueError, match=message):
            loss(embeddings, labels, triplets)
        loss.validate_args = False
        with pytest.raises(AssertionError, match="either be positive or negative"):
            loss(embeddings, labels, triplets)


def test_tuple_replaces_the_relation_and_needs_no_labels():
    embeddings, labels = batch()
    indices = (torch.tensor([0, 1]), torch.tensor([1, 2]), torch.tensor([3, 4]), torch.tensor([5, 6]))
    loss = MultiLabelLoss(build("ContrastiveLoss"))
    assert loss(embeddings, None, indices) == loss(embeddings, labels, indices) != loss(embeddings, labels)
    assert loss(embeddings, None, indices, embeddings.flip(0)) != loss(embeddings, None, indices)


def test_loss_drops_self_pairs_where_the_labels_are_the_same_object_or_it_is_told_so():
    embeddings, labels = batch()
    loss = MultiLabelLoss(build("ContrastiveLoss", pos_margin=-1.0))
    plain = loss(embeddings, labels)
    copied = embeddings.clone(), labels.clone()
    assert loss(embeddings, labels, None, embeddings, labels) == plain
    assert loss(embeddings, labels, None, *copied) != plain
    assert loss(embeddings, labels, None, *copied, batch_first=True) == plain


# The wrapper as a module.


class Model(torch.nn.Module):
    def __init__(self, criterion):
        super().__init__()
        self.backbone = torch.nn.Linear(5, 5)
        self.criterion = criterion


@pytest.mark.parametrize("name", ["ArcFaceLoss", "ProxyAnchorLoss", "MarginLoss", "TripletMarginLoss"])
def test_state_dicts_of_the_wrapped_and_the_bare_loss_load_into_each_other(name):
    arguments = {"learn_beta": True} if name == "MarginLoss" else {}
    for make in (lambda loss: loss, lambda loss: Model(loss), lambda loss: torch.nn.Sequential(Model(loss))):
        bare, wrapped = make(build(name, **arguments)), make(MultiLabelLoss(build(name, **arguments)))
        assert list(bare.state_dict()) == list(wrapped.state_dict())
        for source, target in ((bare, wrapped), (wrapped, bare)):
            for parameter in source.parameters():
                torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(5))
            for parameter in target.parameters():
                torch.nn.init.zeros_(parameter)
            target.load_state_dict(source.state_dict(), strict=True)
            for key, value in source.state_dict().items():
                torch.testing.assert_close(target.state_dict()[key], value, rtol=0, atol=0)


def test_state_dict_with_a_missing_or_an_unknown_key_does_not_load():
    wrapped = MultiLabelLoss(build("ArcFaceLoss"))
    with pytest.raises(RuntimeError, match="Missing key"):
        wrapped.load_state_dict({})
    with pytest.raises(RuntimeError, match="Unexpected key"):
        wrapped.load_state_dict({**wrapped.state_dict(), "other": torch.zeros(1)})


class Learned(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([1.0, 2.0, 0.5, 1.5]))

    def forward(self, labels, ref_labels):
        return (labels * self.weight) @ (ref_labels * self.weight).T


def test_parameters_and_state_are_those_of_the_loss_and_the_similarity_moves_along():
    wrapped = MultiLabelLoss(build("ArcFaceLoss"), Learned())
    assert [id(part) for part in wrapped.parameters()] == [id(part) for part in wrapped.loss.parameters()]
    assert list(wrapped.state_dict()) == ["W"]
    assert wrapped.double().relation.similarity.weight.dtype == torch.float64
    assert wrapped.to("meta").relation.similarity.weight.is_meta
    assert wrapped.loss.W.is_meta


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda loss: pickle.loads(pickle.dumps(loss))])
@pytest.mark.parametrize("name", ["CircleLoss", "ArcFaceLoss", "NCALoss"])
def test_loss_copies_and_pickles(name, copied):
    embeddings, labels = batch()
    wrapped = three_way(build(name))
    other = copied(wrapped)
    assert other.loss is not wrapped.loss
    assert_same(value_and_gradients(other, embeddings, labels), value_and_gradients(wrapped, embeddings, labels))


def test_loss_saves_and_loads_through_a_file():
    wrapped, buffer = MultiLabelLoss(build("ArcFaceLoss")), io.BytesIO()
    torch.save(wrapped.state_dict(), buffer)
    buffer.seek(0)
    MultiLabelLoss(build("ArcFaceLoss")).load_state_dict(torch.load(buffer, weights_only=True))


@pytest.mark.parametrize(
    ("name", "stat"),
    [("AngularLoss", "average_angle"), ("ArcFaceLoss", "avg_angle"), ("TupletMarginLoss", "avg_pos_angle")],
)
def test_statistics_of_the_wrapped_loss_are_collected(name, stat):
    embeddings, ids, _, _ = classes()
    theirs, ours = build(name, collect_stats=True), build(name, collect_stats=True)
    theirs(embeddings, ids)
    MultiLabelLoss(ours)(embeddings, one_hot(ids, 4))
    assert getattr(ours, stat) == pytest.approx(getattr(theirs, stat))
    assert getattr(ours, stat) > 0
    if name != "ArcFaceLoss":
        MultiLabelLoss(ours)(embeddings[:0], one_hot(ids, 4)[:0])
        assert getattr(ours, stat) == 0


@pytest.mark.parametrize("name", ["NCALoss", "ArcFaceLoss", "ProxyAnchorLoss", "ContrastiveLoss"])
def test_regularizers_and_reducers_of_the_wrapped_loss_are_in_force(name):
    embeddings, ids, _, _ = classes()
    arguments = {"embedding_regularizer": regularizers.LpRegularizer()}
    if name in OF_LABELS:
        arguments["weight_regularizer"] = regularizers.RegularFaceRegularizer()
    if name != "ProxyAnchorLoss":
        arguments["reducer"] = reducers.SumReducer()
    ours = value_and_gradients(MultiLabelLoss(build(name, **arguments)), embeddings, one_hot(ids, 4))
    assert_same(ours, value_and_gradients(build(name, **arguments), embeddings, ids))
    assert ours[0] != MultiLabelLoss(build(name))(embeddings, one_hot(ids, 4))


def test_angular_loss_goes_through_the_reducer_per_anchor():
    embeddings, labels = batch()
    mean = MultiLabelLoss(build("AngularLoss", reducer=reducers.PerAnchorReducer()))(embeddings, labels)
    assert mean.isfinite()
    assert mean != MultiLabelLoss(build("AngularLoss"))(embeddings, labels)


def test_nca_counts_an_anchor_whose_share_underflows():
    embeddings = torch.tensor([[0.0], [60.0], [1.0]], dtype=torch.float64)
    loss = build("NCALoss", distance=distances.LpDistance(normalize_embeddings=False, power=2))
    value = MultiLabelLoss(loss)(embeddings, torch.tensor([[1, 0], [1, 0], [0, 1]]))
    assert value.item() == pytest.approx(((3600 - 1) + math.log1p(math.exp(3600 - 3481))) / 2)
    assert loss(embeddings, torch.tensor([0, 0, 1])) < 200


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize(
    "name", ["CircleLoss", "MultiSimilarityLoss", "PNPLoss", "ProxyAnchorLoss", "ArcFaceLoss", "SoftTripleLoss"]
)
def test_loss_keeps_the_precision_of_embeddings_and_of_autocast(name, dtype):
    embeddings, labels = batch()
    exact = three_way(build(name, **({"anneal": 0.5} if name == "PNPLoss" else {})))
    expected = exact(embeddings, labels)
    value = copy.deepcopy(exact)(embeddings.to(dtype), labels)
    assert value.dtype == dtype
    torch.testing.assert_close(value.double(), expected, rtol=0.1, atol=0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = copy.deepcopy(exact).float()(embeddings.float(), labels)
    torch.testing.assert_close(cast.double(), expected, rtol=0.1, atol=0.1)


def test_loss_goes_into_the_wrapper_for_joined_processes_and_the_container():
    embeddings, labels = batch()
    wrapped = three_way(build("ContrastiveLoss"))
    with pytest.warns(UserWarning, match="non-distributed"):
        assert DistributedLossWrapper(wrapped)(embeddings, labels) == wrapped(embeddings, labels)
    several = losses.MultipleLosses([wrapped, MultiLabelLoss(build("ArcFaceLoss"))])
    expected = wrapped(embeddings, labels) + several.losses[1](embeddings, labels)
    torch.testing.assert_close(several(embeddings, labels), expected)


# What is refused.


@pytest.mark.parametrize("name", sorted(set(EXPORTED) - set(READ) - {"GenericPairLoss"}))
def test_refused_class_is_named_with_the_reason_and_the_alternative(name):
    cls, reading = EXPORTED[name], READINGS[EXPORTED[name]]
    loss = cls.__new__(cls)  # most need arguments that say nothing here
    with pytest.raises(ValueError) as error:  # noqa: PT011
        MultiLabelLoss(loss)
    assert f"`{cls.__name__}` has no multi-label reading: it {reading.reason}. Use {reading.instead}." == str(
        error.value
    )


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (losses.TripletMarginLoss(triplets_per_anchor=5), "triplets_per_anchor=<int>.*max_triplets_per_anchor"),
        (losses.MarginLoss(triplets_per_anchor=5), "triplets_per_anchor=<int>.*max_triplets_per_anchor"),
        (losses.MarginLoss(num_classes=3), "num_classes=<int>.*one `beta`"),
        (losses.ContrastiveLoss(reducer=reducers.ClassWeightedReducer(torch.ones(3))), "ClassWeightedReducer.*another"),
    ],
)
def test_setting_that_reads_class_ids_is_refused(loss, message):
    with pytest.raises(ValueError, match=f"`{type(loss).__name__}` with .*{message}"):
        MultiLabelLoss(loss)


class OwnPairs(losses.GenericPairLoss):
    def __init__(self):
        super().__init__(mat_based_loss=False)

    def _compute_loss(self, pos_pairs, neg_pairs, indices_tuple):
        loss = pos_pairs.mean() - neg_pairs.mean()
        return {"loss": {"losses": loss, "indices": None, "reduction_type": "already_reduced"}}


class OwnArcFace(losses.ArcFaceLoss):
    def scale_logits(self, logits, *_):
        return logits


class OwnFormula(losses.NCALoss):
    def compute_loss(self, *_):
        return self.zero_losses()


class Unknown(losses.BaseMetricLossFunction):
    pass


class OwnContrast(losses.NTXentLoss):
    def _compute_loss(self, pos_pairs, neg_pairs, indices_tuple):
        return OwnPairs._compute_loss(self, pos_pairs, neg_pairs, indices_tuple)


def test_subclass_of_a_users_own_is_read_as_its_nearest_ancestor():
    embeddings, ids, _, _ = classes()
    for theirs in (OwnPairs(), OwnContrast(), OwnArcFace(**SIZES).double()):
        ours = MultiLabelLoss(copy.deepcopy(theirs))
        torch.testing.assert_close(ours(embeddings, one_hot(ids, 4)), theirs(embeddings, ids))


def test_subclass_that_cannot_be_read_is_refused():
    with pytest.raises(ValueError, match="`OwnFormula` overrides `compute_loss` of NCALoss"):
        MultiLabelLoss(OwnFormula())
    with pytest.raises(ValueError, match=r"`Unknown` has no multi-label reading.*`GenericPairLoss`"):
        MultiLabelLoss(Unknown())


@pytest.mark.parametrize(
    ("loss", "got"),
    [(torch.nn.TripletMarginLoss(), "TripletMarginLoss"), (losses.NCALoss, "the class NCALoss itself"), (3, "int")],
)
def test_wrapper_of_no_loss_is_a_type_error(loss, got):
    with pytest.raises(TypeError, match=f"`loss` must be an instance of a loss of .* got {got}"):
        MultiLabelLoss(loss)


def test_wrapper_passes_bad_thresholds_and_similarities_on_to_the_relation():
    with pytest.raises(ValueError, match=r"must not exceed .* got 1 and 0"):
        MultiLabelLoss(build("NCALoss"), positive_threshold=0, negative_threshold=1)
    with pytest.raises(TypeError, match="`similarity` must be a callable, got int"):
        MultiLabelLoss(build("NCALoss"), 3)


EMBEDDINGS, LABELS = torch.zeros(3, 5), torch.zeros(3, 4)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("NCALoss", (EMBEDDINGS, torch.zeros(3)), r"`labels` must be a 2-D .* got shape \(3,\).*one_hot"),
        ("NCALoss", (EMBEDDINGS, LABELS[:2]), r"`embeddings` must have shape \(2, D\).*got \(3, 5\)"),
        ("NCALoss", (EMBEDDINGS[0],), r"`embeddings` must have shape \(N, D\).*got \(5,\)"),
        ("NCALoss", (EMBEDDINGS, LABELS + 2), r"in \[0, 1\], got 2\.0"),
        ("ArcFaceLoss", (EMBEDDINGS, LABELS + 2), r"in \[0, 1\], got 2\.0"),
        ("NCALoss", (EMBEDDINGS,), "`labels` must be given to `NCALoss` here, got None"),
        ("ContrastiveLoss", (EMBEDDINGS,), "`labels` must be given to `ContrastiveLoss` here, got None"),
        ("ArcFaceLoss", (EMBEDDINGS,), "`labels` must be given to `ArcFaceLoss`, got None"),
        ("NCALoss", (EMBEDDINGS, LABELS, None, EMBEDDINGS + 1), "`ref_labels` must be given to `NCALoss` here"),
        ("NCALoss", (EMBEDDINGS, LABELS, None, None, LABELS), "must be given together, got only `ref_labels`"),
        ("NCALoss", (EMBEDDINGS, LABELS, None, EMBEDDINGS[:2], LABELS[:1]), r"`ref_emb` must have shape \(1, D\)"),
        ("ArcFaceLoss", (EMBEDDINGS, LABELS[:, :3]), "must have 4 columns, one for each class .* got 3"),
        ("ArcFaceLoss", (EMBEDDINGS, LABELS + 0.25), "`labels` must be 0 or 1 for `ArcFaceLoss`.* got 0.25"),
        ("ProxyAnchorLoss", (EMBEDDINGS, LABELS + 0.25), "`labels` must be 0 or 1 for `ProxyAnchorLoss`.* got 0.25"),
        ("PNPLoss", (EMBEDDINGS, LABELS, (LABELS[0],) * 3), "takes no `indices_tuple`, got one of 3 tensors"),
        ("NCALoss", (EMBEDDINGS, LABELS, (LABELS[0],) * 2), r"three tensors .* or four .* got 2 of them"),
        ("HistogramLoss", (EMBEDDINGS, LABELS, None, EMBEDDINGS + 1, LABELS), "`HistogramLoss` takes no `ref_emb`"),
        ("ArcFaceLoss", (EMBEDDINGS, LABELS, None, EMBEDDINGS + 1, LABELS), "`ArcFaceLoss` takes no `ref_emb`"),
        ("ThresholdConsistentMarginLoss", (EMBEDDINGS, LABELS, None, EMBEDDINGS + 1, LABELS), "takes no `ref_emb`"),
    ],
)
def test_loss_names_bad_input(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        MultiLabelLoss(build(name))(*arguments)


def test_loss_of_arrays_is_a_type_error():
    with pytest.raises(TypeError, match=r"`labels` must be a torch\.Tensor, got ndarray"):
        MultiLabelLoss(build("NCALoss"))(EMBEDDINGS, LABELS.numpy())
    with pytest.raises(TypeError, match=r"`embeddings` must be a torch\.Tensor, got list"):
        MultiLabelLoss(build("NCALoss"))([[0.0]], LABELS)


def test_triplet_loss_with_swap_takes_no_refs():
    loss = MultiLabelLoss(build("TripletMarginLoss", swap=True))
    embeddings, labels, *refs = batch(m=9)
    assert loss(embeddings, labels) > 0
    with pytest.raises(ValueError, match="`TripletMarginLoss` with `swap=True` takes no `ref_emb`"):
        loss(embeddings, labels, None, *refs)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", READ)
def test_loss_on_cuda_equals_the_cpu(name):
    embeddings, labels = batch()
    expected = value_and_gradients(three_way(build(name)), embeddings, labels)
    value, gradients = value_and_gradients(three_way(build(name)).cuda(), embeddings.cuda(), labels)
    assert_same((value.cpu(), [part.cpu() for part in gradients]), expected)


if __name__ == "__main__":
    PAGE.write_text(page_with_table(PAGE.read_text()))
    sys.exit(0)
