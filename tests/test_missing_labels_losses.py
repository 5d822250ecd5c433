"""Losses of batches with missing labels (NaN)."""

import math

import pytest
import torch
from pytorch_metric_learning import losses as pml
from torch.nn.functional import normalize

from mlmetric import losses
from mlmetric import similarity as sim
from mlmetric.losses import MultiLabelBaseLoss, MultiLabelCrossBatchMemory, MultiLabelLoss
from mlmetric.losses._loss_support import LOSS_ADAPTERS, LossAdapter
from mlmetric.miners import MultiLabelSemiHardMiner
from mlmetric.relations import LabelRelation

pytestmark = [
    pytest.mark.filterwarnings("ignore:Using a non-tuple sequence"),  # raised by HistogramLoss
    pytest.mark.filterwarnings("ignore:__array_wrap__"),  # raised by the constructor of LargeMarginSoftmaxLoss
]
NAN = math.nan
L, D = 4, 3
SEEDS = range(6)

OWN = {
    "SimilarityRegression": lambda: losses.SimilarityRegressionLoss(),
    "LogRatio": lambda: losses.LogRatioLoss(),
    "TripletMargin": lambda: losses.MultiLabelTripletMarginLoss(margin=1.0),
    "SupCon similarity": lambda: losses.MultiLabelSupConLoss(temperature=0.5),
    "SupCon empty": lambda: losses.MultiLabelSupConLoss(temperature=0.5, empty_rows_match=True),
    "SupCon any": lambda: losses.MultiLabelSupConLoss("any", temperature=0.5),
    "SupCon per_label": lambda: losses.MultiLabelSupConLoss("per_label", temperature=0.5),
    "HyP2": lambda: losses.HyP2Loss(L, D, threshold=-0.2, beta=0.7),
    "ProxyAnchor": lambda: losses.MultiLabelProxyAnchorLoss(L, D, alpha=2.0),
}
SUPPORTED = sorted(
    cls.__name__
    for cls, adapter in LOSS_ADAPTERS.items()
    if isinstance(adapter, LossAdapter) and cls is not pml.GenericPairLoss
)
WITH_SIZES = {name for name in SUPPORTED if LOSS_ADAPTERS[getattr(pml, name)].uses == "labels"} - {"P2SGradLoss"}
ARGUMENTS = {
    "P2SGradLoss": {"descriptors_dim": D, "num_classes": L},
    "HistogramLoss": {"n_bins": 10},
    "RankedListLoss": {"margin": 0.5, "Tn": 2, "Tp": 1, "imbalance": 0.3},
}
SIMILARITY = sim.Jaccard()


def build(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if name in OWN:
            return OWN[name]().double()
        sizes = {"num_classes": L, "embedding_size": D} if name in WITH_SIZES else {}
        return MultiLabelLoss(getattr(pml, name)(**(sizes | ARGUMENTS.get(name, {}))), similarity=SIMILARITY).double()


def draw(seed, rows=8, missing=0.35):
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(rows, D, generator=generator, dtype=torch.float64)
    labels = (torch.rand(rows, L, generator=generator) < 0.5).double()
    return embeddings, labels.masked_fill(torch.rand(rows, L, generator=generator) < missing, NAN)


def known(*values):
    return [not math.isnan(float(value)) for value in values]


def similarity_of(row, other):
    common = ~(row.isnan() | other.isnan())
    return float(sim.jaccard(row[common][None], other[common][None])) if common.any() else NAN


def others(labels, anchor):
    """The references that can be compared with an anchor, and their similarities."""
    found = {j: similarity_of(labels[anchor], labels[j]) for j in range(len(labels)) if j != anchor}
    return {j: value for j, value in found.items() if not math.isnan(value)}


def mean(values):
    return sum(values) / len(values) if values else 0.0


def similarity_regression(embeddings, labels):
    cosine = normalize(embeddings) @ normalize(embeddings).T
    anchors = [[(cosine[a, j] - s) ** 2 for j, s in others(labels, a).items()] for a in range(len(labels))]
    return mean([mean(values) for values in anchors if values])


def log_ratio(embeddings, labels):
    distance = torch.cdist(embeddings, embeddings).square() + 1e-6
    anchors = []
    for a in range(len(labels)):
        gaps = {j: math.log(max(1 - s, 0.1)) for j, s in others(labels, a).items()}
        terms = [
            (math.log(distance[a, i] / distance[a, j]) - gaps[i] + gaps[j]) ** 2 for i in gaps for j in gaps if i != j
        ]
        anchors += [mean(terms)] if terms else []
    return mean(anchors)


def triplet_margin(embeddings, labels):
    distance = torch.cdist(normalize(embeddings), normalize(embeddings))
    values = [
        float(distance[a, p] - distance[a, n] + s - t)
        for a in range(len(labels))
        for p, s in others(labels, a).items()
        for n, t in others(labels, a).items()
        if s > t
    ]
    return mean([value for value in values if value > 0])


def sup_con(embeddings, labels, kind):
    logits = normalize(embeddings) @ normalize(embeddings).T / 0.5
    terms = []
    for a in range(len(labels)):
        refs = others(labels, a)
        if kind == "per_label":
            for label in range(L):
                compared = [j for j in range(len(labels)) if j != a and known(labels[j, label])[0]]
                positives = [j for j in compared if labels[j, label] == 1]
                if labels[a, label] == 1 and positives:
                    total = logits[a, compared].logsumexp(0)
                    terms.append(-mean([float(logits[a, p] - total) for p in positives]))
            continue
        weights = {
            j: 1.0 if kind == "any" or (kind == "empty" and both_empty(labels[a], labels[j])) else s
            for j, s in refs.items()
            if s > 0 or (kind == "empty" and both_empty(labels[a], labels[j]))
        }
        if weights:
            total = logits[a, list(refs)].logsumexp(0)
            terms.append(-mean([float(w * (logits[a, p] - total)) for p, w in weights.items()]))
    return mean(terms)


def both_empty(row, other):
    common = ~(row.isnan() | other.isnan())
    return bool(common.any()) and not (row[common].any() or other[common].any())


def hyp2(embeddings, labels, loss):
    cosine = normalize(embeddings) @ normalize(loss.proxies.detach()).T
    pairs = normalize(embeddings) @ normalize(embeddings).T
    rows = range(len(labels))
    positive = [float(1 - cosine[i, k]) for i in rows for k in range(L) if labels[i, k] == 1]
    negative = [max(0.0, float(cosine[i, k] + 0.2)) for i in rows for k in range(L) if labels[i, k] == 0]
    disjoint = []
    for i in rows:
        for j in rows:
            common = ~(labels[i].isnan() | labels[j].isnan())
            a, b = labels[i][common], labels[j][common]
            if i != j and min(a.sum(), b.sum()) >= 2 and (a * b).sum() == 0:
                disjoint.append(max(0.0, float(pairs[i, j] + 0.2)))
    return mean(positive) + mean(negative) + 0.7 * mean(disjoint)


def proxy_anchor(embeddings, labels, loss):
    cosine = normalize(embeddings) @ normalize(loss.loss.proxies.detach()).T
    total = {0: [], 1: []}
    for label in range(L):
        for value, sign in ((1, -1), (0, 1)):
            rows = labels[:, label] == value
            term = float(torch.log1p(torch.exp(2.0 * (sign * cosine[rows, label] + 0.1)).sum()))
            if rows.any() or (value == 0 and known(*labels[:, label]).count(True)):
                total[value].append(term)
    return mean(total[1]) + mean(total[0])


BY_HAND = {
    "SimilarityRegression": lambda e, y, _: similarity_regression(e, y),
    "LogRatio": lambda e, y, _: log_ratio(e, y),
    "TripletMargin": lambda e, y, _: triplet_margin(e, y),
    "SupCon similarity": lambda e, y, _: sup_con(e, y, "similarity"),
    "SupCon empty": lambda e, y, _: sup_con(e, y, "empty"),
    "SupCon any": lambda e, y, _: sup_con(e, y, "any"),
    "SupCon per_label": lambda e, y, _: sup_con(e, y, "per_label"),
    "HyP2": hyp2,
    "ProxyAnchor": proxy_anchor,
}


@pytest.mark.parametrize("name", OWN)
def test_loss_is_that_of_the_pairs_and_labels_that_remain_by_hand(name):
    loss, values = build(name), []
    for seed in SEEDS:
        embeddings, labels = draw(seed, missing=(0.1, 0.35, 0.6)[seed % 3])
        values.append(loss(embeddings, labels).item())
        assert values[-1] == pytest.approx(float(BY_HAND[name](embeddings, labels, loss)), rel=1e-6)
    assert min(values) >= 0
    assert max(values) > 0


def test_pair_term_of_hyp2_compares_the_labels_annotated_in_both_rows():
    loss, without = build("HyP2"), losses.HyP2Loss(L, D, threshold=-0.2, beta=0).double()
    without.load_state_dict(loss.state_dict())
    for seed in SEEDS:
        embeddings, drawn = draw(seed, missing=0.1)
        labels = torch.tensor([[1.0, 1, 0, 0], [0, 0, 1, 1]]).double().repeat(4, 1).masked_fill(drawn.isnan(), NAN)
        value = loss(embeddings, labels).item()
        assert value == pytest.approx(hyp2(embeddings, labels, loss), rel=1e-6)
        assert value > without(embeddings, labels).item()


@pytest.mark.parametrize("name", [*OWN, *SUPPORTED])
def test_gradients_are_finite_and_complete_labels_are_not_affected_by_their_dtype(name):
    for seed in SEEDS:
        loss = build(name)
        embeddings, labels = draw(seed)
        labels[0] = NAN
        embeddings.requires_grad_()
        value = loss(embeddings, labels)
        value.sum().backward()
        assert value.isfinite().all()
        for part in (embeddings, *loss.parameters()):
            assert part.grad is None or part.grad.isfinite().all()
    complete = labels.nan_to_num(1)
    assert torch.equal(build(name)(embeddings, complete), build(name)(embeddings, complete.to(torch.uint8)))


@pytest.mark.parametrize("name", [*OWN, *SUPPORTED])
def test_batch_without_annotated_labels_has_the_differentiable_loss_zero(name):
    loss = build(name)
    embeddings = draw(0)[0].requires_grad_()
    value = loss(embeddings, torch.full((8, L), NAN))
    assert value.sum() == 0
    value.sum().backward()
    assert embeddings.grad is None or not embeddings.grad.any()


# The mean of these losses is over all rows of the batch, also those without pairs, with and without missing labels.
OVER_ALL_ROWS = {"GeneralizedLiftedStructureLoss", "MultiSimilarityLoss", "RankedListLoss"}


@pytest.mark.parametrize("name", sorted({*OWN, *SUPPORTED} - OVER_ALL_ROWS))
def test_rows_without_annotated_labels_change_no_loss(name):
    for seed in SEEDS:
        embeddings, labels = draw(seed, missing=0.2)
        more, unknown = draw(99, rows=3, missing=1.0)
        expected = build(name)(embeddings, labels)
        result = build(name)(torch.cat([more, embeddings]), torch.cat([unknown, labels]))
        torch.testing.assert_close(result, expected)


@pytest.mark.parametrize("name", ["ContrastiveLoss", "TripletMarginLoss", "NTXentLoss", "MultiSimilarityLoss"])
def test_loss_on_pairs_uses_those_of_the_relation(name):
    for seed in SEEDS:
        embeddings, labels = draw(seed, missing=0.6)
        relation = [[0 if i == j else similarity_of(a, b) for j, b in enumerate(labels)] for i, a in enumerate(labels)]
        relation = torch.tensor(relation)
        off_diagonal = ~torch.eye(len(labels), dtype=torch.bool)
        pairs = *torch.where(relation > 0), *torch.where((relation == 0) & off_diagonal)
        torch.testing.assert_close(build(name)(embeddings, labels), build(name)(embeddings, indices_tuple=pairs))


@pytest.mark.parametrize("name", ["ArcFaceLoss", "NormalizedSoftmaxLoss", "SoftTripleLoss"])
def test_cross_entropy_is_over_the_annotated_labels_of_each_row(name):
    loss = build(name)
    for seed in SEEDS:
        embeddings, labels = draw(seed)
        labels[1] = NAN
        terms = []
        for row, targets in zip(embeddings, labels, strict=True):
            annotated = ~targets.isnan()
            if not annotated.any():
                continue
            # Logits of the classes without the effect of a softmax: log-probabilities of a complete row.
            logits = log_probabilities(loss, row, targets)[annotated].log_softmax(0)
            present = targets[annotated]
            terms.append(float(-(logits * present).sum() / present.sum().clamp(min=1)))
        assert loss(embeddings, labels).item() == pytest.approx(mean(terms), rel=1e-6)


def log_probabilities(loss, row, targets):
    """Log-probabilities of all classes where the present ones have their margin, from losses with one target each."""
    wrapped, present = loss.loss, targets == 1
    if isinstance(wrapped, pml.ArcFaceLoss):
        cosine = wrapped.get_cosine(row[None])
        cosine[:, present] = wrapped.modify_cosine_of_target_classes(cosine[:, present])
        return wrapped.scale_logits(cosine, row[None])[0].detach()
    logits = wrapped.get_logits(row[None])[0].detach()
    if isinstance(wrapped, pml.SoftTripleLoss):
        return wrapped.la * (logits - wrapped.margin * present)
    return logits


def test_p2s_grad_is_the_mean_over_annotated_labels():
    loss = build("P2SGradLoss")
    embeddings, labels = draw(3)
    cosine = normalize(embeddings) @ normalize(loss.loss.weight.detach(), dim=0)
    annotated = ~labels.isnan()
    expected = (cosine[annotated] - labels[annotated]).square().mean()
    torch.testing.assert_close(loss(embeddings, labels).detach(), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", ["LogRatio", "TripletMargin", "SupCon similarity", "SimilarityRegression"])
def test_pairs_of_an_indices_tuple_without_common_labels_are_omitted(name):
    for seed in SEEDS:
        embeddings, labels = draw(seed, missing=0.65)
        generator = torch.Generator().manual_seed(seed)
        triplets = torch.randint(0, 8, (3, 40), generator=generator)
        keep = [
            all(known(similarity_of(labels[a], labels[p]), similarity_of(labels[a], labels[n])))
            for a, p, n in triplets.T.tolist()
        ]
        if name in ("SupCon similarity", "SimilarityRegression"):  # pairs, each of which may remain by itself
            anchors, positives, negatives = triplets
            kept = [
                [known(similarity_of(labels[a], labels[j]))[0] for a, j in zip(anchors, part, strict=True)]
                for part in (positives, negatives)
            ]
            given = (anchors, positives, anchors, negatives)
            remaining = anchors[kept[0]], positives[kept[0]], anchors[kept[1]], negatives[kept[1]]
        else:
            given, remaining = tuple(triplets), tuple(triplets[:, keep])
        loss = build(name)
        torch.testing.assert_close(loss(embeddings, labels, given), loss(embeddings, labels, remaining))


def test_loss_of_users_rejects_missing_labels_unless_it_states_support():
    class Loss(MultiLabelBaseLoss):
        def compute_loss(self, inputs):
            similarity, pairs = inputs.comparable_pairs(sim.jaccard)
            assert inputs.has_missing_labels
            assert similarity.isfinite().all()
            losses = torch.where(pairs, inputs.distances(self.distance) * similarity, 0).sum()
            return {"loss": {"losses": losses, "indices": None, "reduction_type": "already_reduced"}}

    embeddings, labels = draw(0)
    for arguments in ((embeddings, labels), (embeddings, labels.nan_to_num(0), None, embeddings, labels)):
        with pytest.raises(ValueError, match="`Loss` does not support missing labels"):
            Loss()(*arguments)
    Loss.supports_missing_labels = True
    assert Loss()(embeddings, labels) > 0


@pytest.mark.parametrize("miner", [None, MultiLabelSemiHardMiner()])
def test_memory_keeps_missing_labels(miner):
    loss = pml.TripletMarginLoss()
    memory = MultiLabelCrossBatchMemory(loss, D, L, memory_size=20, miner=miner)
    first, second = draw(0), draw(1)
    memory(first[0], first[1].nan_to_num(0).long())
    result = memory(*second)
    assert memory.label_memory[8:16].isnan().equal(second[1].isnan())
    refs = torch.cat([second[0], first[0]]), torch.cat([second[1], first[1].nan_to_num(0)])
    order = torch.cat([torch.arange(8, 16), torch.arange(8)])
    relation = LabelRelation()(second[1], torch.cat([first[1].nan_to_num(0), second[1]]))[:, order].fill_diagonal_(0)
    if miner is None:
        pairs = *torch.where(relation > 0), *torch.where(relation < 0)
        expected = MultiLabelLoss(loss)(second[0], None, pairs, refs[0])
    else:
        triplets = miner(second[0], second[1], *refs, ref_includes_query=True)
        expected = loss(second[0], None, triplets, refs[0])
    torch.testing.assert_close(result, expected)


def test_memory_rejects_missing_labels_that_its_miner_does_not_support():
    class Miner(MultiLabelSemiHardMiner):
        supports_missing_labels = False

    memory = MultiLabelCrossBatchMemory(pml.TripletMarginLoss(), D, L, memory_size=20, miner=Miner())
    assert not memory.supports_missing_labels
    with pytest.raises(ValueError, match="`Miner` does not support missing labels"):
        memory(*draw(0))
    assert memory.queue_idx == 0
