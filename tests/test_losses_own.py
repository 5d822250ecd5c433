"""The losses of this library against loops of their formulas, pytorch-metric-learning and values computed by hand."""

import copy
import io
import math
import pickle
from dataclasses import dataclass, replace
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pytorch_metric_learning import distances, losses, reducers, regularizers
from scipy import sparse
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mlmetric import similarity as sim
from mlmetric.losses import (
    AsymmetricLoss,
    HyP2Loss,
    LogRatioLoss,
    LossInputs,
    MultiLabelBaseLoss,
    MultiLabelLoss,
    MultiLabelProxyAnchorLoss,
    MultiLabelSupConLoss,
    MultiLabelTripletMarginLoss,
    SimilarityRegressionLoss,
    TwoWayLoss,
)
from mlmetric.miners import MultiLabelSemiHardMiner

NUM_LABELS, SIZE = 5, 5  # as many columns of embeddings as of labels: they serve as logits, too
DEFINITIONS = {
    "SupCon similarity": "similarity",
    "SupCon per_label": "per_label",
    "SupCon any": "any",
}
ON_PAIRS = [*DEFINITIONS, "LogRatio", "Triplet", "SimilarityRegression"]
ON_PROXIES = ["ProxyAnchor", "HyP2"]
ON_EMBEDDINGS = [*ON_PAIRS, *ON_PROXIES]
ON_LOGITS = ["Asymmetric", "TwoWay"]
ALL = [*ON_EMBEDDINGS, *ON_LOGITS]
WITH_SIMILARITY = ["SupCon similarity", "LogRatio", "Triplet", "SimilarityRegression"]


def build(name, num_labels=NUM_LABELS, size=SIZE, **arguments):
    if name in DEFINITIONS:
        loss = MultiLabelSupConLoss(DEFINITIONS[name], **{"temperature": 0.5, **arguments})
    elif name in ON_PROXIES:
        cls, own = {
            "ProxyAnchor": (MultiLabelProxyAnchorLoss, {"alpha": 4.0}),
            "HyP2": (HyP2Loss, {"threshold": 0.1}),
        }[name]
        with torch.random.fork_rng():
            torch.manual_seed(0)
            loss = cls(num_labels, size, **{**own, **arguments})
    else:
        cls = {
            "LogRatio": LogRatioLoss,
            "Triplet": MultiLabelTripletMarginLoss,
            "SimilarityRegression": SimilarityRegressionLoss,
            "Asymmetric": AsymmetricLoss,
            "TwoWay": TwoWayLoss,
        }[name]
        loss = cls(**arguments)
    return loss.double()


@dataclass
class Case:
    """A batch and what it is compared with."""

    x: torch.Tensor
    y: torch.Tensor
    ref: torch.Tensor
    ref_y: torch.Tensor
    own: bool = True
    indices: tuple[torch.Tensor, ...] | None = None

    def call(self, loss):
        if self.ref is self.x:
            return loss(self.x, self.y, self.indices)
        return loss(self.x, self.y, self.indices, self.ref, self.ref_y, ref_includes_query=self.own)

    def leaves(self):
        x = self.x.clone().requires_grad_()
        return replace(self, x=x, ref=x if self.ref is self.x else self.ref.clone().requires_grad_())

    def inputs(self):
        return [self.x] if self.ref is self.x else [self.x, self.ref]

    def tuple_pairs(self):
        """The positive and the negative pairs of the tuple."""
        anchors, positives, *rest = (part.tolist() for part in self.indices)
        negative_anchors, negatives = rest if len(rest) == 2 else (anchors, *rest)
        return list(zip(anchors, positives, strict=True)), list(zip(negative_anchors, negatives, strict=True))

    def refs(self, anchor):
        """The refs that an anchor is compared with."""
        if self.indices is None:
            return [j for j in range(len(self.ref)) if not (self.own and j == anchor)]
        positive, negative = self.tuple_pairs()
        return sorted({j for a, j in positive + negative if a == anchor})

    def positives(self, anchor, is_positive):
        """The refs that the rule calls positive, or that the tuple does."""
        if self.indices is None:
            return [j for j in self.refs(anchor) if is_positive(j)]
        return sorted({j for a, j in self.tuple_pairs()[0] if a == anchor})

    def triplets(self, is_ordered):
        """All triplets that the rule calls ordered, or those of the tuple; of pairs all that share an anchor."""
        if self.indices is None:
            found = ((a, p, n) for a in range(len(self.x)) for p in self.refs(a) for n in self.refs(a))
            return [triplet for triplet in found if is_ordered(*triplet)]
        if len(self.indices) == 3:
            return list(zip(*(part.tolist() for part in self.indices), strict=True))
        positive, negative = self.tuple_pairs()
        return [(a, p, n) for a, p in positive for b, n in negative if a == b]


def draw(generator, rows, *, soft=False):
    """Embeddings, two of them equal, and labels: two empty rows, two equal ones, a label that no row has."""
    x = torch.randn(rows, SIZE, generator=generator, dtype=torch.float64)
    y = (torch.rand(rows, NUM_LABELS, generator=generator) < 0.55).double()
    if soft:
        y *= torch.rand(rows, NUM_LABELS, generator=generator, dtype=torch.float64)
    x[3] = x[4]
    y[0] = y[rows // 2] = 0
    y[2] = y[1]
    y[:, 3] = 0
    return x, y


def draw_tuple(generator, case, kind):
    """Triplets or pairs, some of them twice; positives share a label, negatives may share more."""
    shares = [(a, j) for a in range(len(case.x)) for j in case.refs(a) if jaccard(case.y[a], case.ref_y[j]) > 0]
    every = [(a, j) for a in range(len(case.x)) for j in case.refs(a)]
    if kind == "triplets":
        triplets = [(a, p, n) for a, p in shares for b, n in every if a == b and p != n]
        chosen = torch.randint(len(triplets), (25,), generator=generator)
        return tuple(torch.tensor([triplets[i] for i in chosen]).T)
    positive = torch.tensor([shares[i] for i in torch.randint(len(shares), (8,), generator=generator)])
    negative = torch.tensor([every[i] for i in torch.randint(len(every), (10,), generator=generator)])
    return (*positive.T, *negative.T)


def case_of(seed=0, refs=None, kind=None, *, soft=False, n=7, m=6):
    generator = torch.Generator().manual_seed(seed)
    x, y = draw(generator, n, soft=soft)
    ref, ref_y = x, y
    if refs is not None:
        ref, ref_y = draw(generator, m, soft=soft)
    if refs == "batch first":
        ref, ref_y = torch.cat([x, ref]), torch.cat([y, ref_y])
    case = Case(x, y, ref, ref_y, refs != "others")
    return case if kind is None else replace(case, indices=draw_tuple(generator, case, kind))


def assert_same(ours, theirs, inputs):
    """Compare two values and their gradients, which must not be trivial."""
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)
    assert theirs != 0
    mine, others = (torch.autograd.grad(value, inputs, materialize_grads=True) for value in (ours, theirs))
    for own, other in zip(mine, others, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-7, atol=1e-10)
    assert others[0].abs().sum() > 0


# Loops over the formulas.


def jaccard(y, z):
    union = sum(max(a, b) for a, b in zip(y.tolist(), z.tolist(), strict=True))
    return sum(min(a, b) for a, b in zip(y.tolist(), z.tolist(), strict=True)) / union if union else 0.0


def cosine(a, b):
    return sum(a * b) / (sum(a * a).sqrt() * sum(b * b).sqrt())


def squared(a, b):
    return sum((a - b) * (a - b))


def chord(a, b):
    """The Euclidean distance of two directions."""
    return (a / a.norm() - b / b.norm()).norm()


def mean(terms):
    return sum(terms) / len(terms)


def log_shares(loss, case, anchor, compare):
    """log q(a, j) for each ref j of an anchor."""
    logits = {j: compare(case.x[anchor], case.ref[j]) / loss.temperature for j in case.refs(anchor)}
    total = sum(logit.exp() for logit in logits.values())
    return {j: (logit.exp() / total).log() for j, logit in logits.items()}


def supcon_similarity_by_loop(loss, case, compare=cosine, alike=jaccard):
    terms = []
    for a, y in enumerate(case.y):
        s = [1.0 if loss.empty_rows_match and not y.any() and not z.any() else alike(y, z) for z in case.ref_y]
        positives = case.positives(a, lambda j, s=s: s[j] > loss.positive_threshold)
        if positives:
            log_q = log_shares(loss, case, a, compare)
            terms.append(-sum(s[p] * log_q[p] for p in positives) / len(positives))
    return mean(terms)


def supcon_any_by_loop(loss, case, compare=cosine):
    terms = []
    for a, y in enumerate(case.y):
        positives = case.positives(a, lambda j, y=y: bool(((y > 0) & (case.ref_y[j] > 0)).any()))
        if positives:
            log_q = log_shares(loss, case, a, compare)
            terms.append(-sum(log_q[p] for p in positives) / len(positives))
    return mean(terms)


def supcon_per_label_by_loop(loss, case, compare=cosine):
    terms = []
    for a, y in enumerate(case.y):
        for label, share in enumerate(y.tolist()):
            shares = {p: case.ref_y[p, label].item() for p in case.positives(a, lambda j: True)}
            if share > 0 and sum(shares.values()) > 0:
                log_q = log_shares(loss, case, a, compare)
                terms.append(share * -sum(z * log_q[p] for p, z in shares.items()) / sum(shares.values()))
    return mean(terms)


def log_ratio_by_loop(loss, case, compare=squared):
    def square(a, i, j):
        far = [compare(case.x[a], case.ref[k]) + loss.eps for k in (i, j)]
        labels = [max(1 - jaccard(case.y[a], case.ref_y[k]), loss.min_label_distance) for k in (i, j)]
        return ((far[0] / far[1]).log() - math.log(labels[0] / labels[1])) ** 2

    if case.indices is not None and len(case.indices) == 3:
        return mean([square(*triplet) for triplet in case.triplets(None)])
    anchors = [a for a in range(len(case.x)) if len(case.refs(a)) > 1]
    return mean([mean([square(a, i, j) for i, j in permutations(case.refs(a), 2)]) for a in anchors])


def triplet_by_loop(loss, case, compare=chord, sign=1):
    s = [[jaccard(y, z) for z in case.ref_y] for y in case.y]
    terms = []
    for a, p, n in case.triplets(lambda a, p, n: s[a][p] > s[a][n]):
        near, far = compare(case.x[a], case.ref[p]), compare(case.x[a], case.ref[n])
        terms.append(sign * (near - far) + loss.margin * (s[a][p] - s[a][n]))
    return mean([term for term in terms if term > 0])


def similarity_regression_by_loop(loss, case, compare=cosine):
    rows = []
    for a, y in enumerate(case.y):
        squares = [(compare(case.x[a], case.ref[j]) - jaccard(y, case.ref_y[j])) ** 2 for j in case.refs(a)]
        rows += [mean(squares)] if squares else []
    return mean(rows)


def proxy_anchor_by_loop(loss, case):
    loss = loss.loss
    pull, push = [], []
    for label, proxy in enumerate(loss.proxies):
        near = [(-loss.alpha * (cosine(x, proxy) - loss.margin)).exp() for x in case.x[case.y[:, label] > 0]]
        far = [(loss.alpha * (cosine(x, proxy) + loss.margin)).exp() for x in case.x[case.y[:, label] == 0]]
        pull += [torch.log(1 + sum(near))] if near else []
        push += [torch.log(1 + sum(far))] if far else []
    return mean(pull) + sum(push) / len(loss.proxies)


def hyp2_by_loop(loss, case):
    own, other, apart = [], [], []
    for x, y in zip(case.x, case.y, strict=True):
        for on, proxy in zip(y.tolist(), loss.proxies, strict=True):
            if on:
                own.append(1 - cosine(x, proxy))
            else:
                other.append((cosine(x, proxy) - loss.threshold).clamp(min=0))
    sets = [set(y.nonzero().flatten().tolist()) for y in case.y]
    for i, j in permutations(range(len(sets)), 2):
        if min(len(sets[i]), len(sets[j])) > 1 and not sets[i] & sets[j]:
            apart.append((cosine(case.x[i], case.x[j]) - loss.threshold).clamp(min=0))
    assert sum(apart) > 0
    return mean(own) + mean(other) + loss.beta * mean(apart)


def asymmetric_by_loop(loss, logits, labels):
    """The focusing weights are numbers, through which no gradient goes."""
    total = 0
    for x, y in zip(logits.flatten(), labels.flatten().tolist(), strict=True):
        p = torch.sigmoid(x)
        kept = (p - loss.margin).clamp(min=0)
        total = total - y * (1 - p.item()) ** loss.gamma_pos * p.log()
        total = total - (1 - y) * kept.item() ** loss.gamma_neg * (1 - kept).log()
    return total / len(logits)


def two_way_by_loop(loss, logits, labels):
    def one_way(rows, present):
        terms = []
        for x, on in zip(rows, present, strict=True):
            if on.any():
                high = sum((value / loss.temperature_negative).exp() for value in x[~on])
                low = sum((-value / loss.temperature_positive).exp() for value in x[on])
                # exp(T log sum) is the sum to the power T: 0 where the sum is empty.
                terms.append(torch.log(1 + high**loss.temperature_negative * low**loss.temperature_positive))
        return mean(terms)

    return one_way(logits, labels > 0) + one_way(logits.T, labels.T > 0)


LOOPS = {
    "SupCon similarity": supcon_similarity_by_loop,
    "SupCon per_label": supcon_per_label_by_loop,
    "SupCon any": supcon_any_by_loop,
    "LogRatio": log_ratio_by_loop,
    "Triplet": triplet_by_loop,
    "SimilarityRegression": similarity_regression_by_loop,
    "ProxyAnchor": proxy_anchor_by_loop,
    "HyP2": hyp2_by_loop,
}


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("kind", [None, "triplets", "pairs"])
@pytest.mark.parametrize("refs", [None, "others", "batch first"])
@pytest.mark.parametrize("name", ON_PAIRS)
def test_loss_on_pairs_equals_the_loop_of_its_formula(name, refs, kind, soft):
    case, loss = case_of(1, refs, kind, soft=soft).leaves(), build(name)
    assert_same(case.call(loss), LOOPS[name](loss, case), case.inputs())


@pytest.mark.parametrize(("name", "soft"), [("ProxyAnchor", False), ("HyP2", False), ("HyP2", True)])
def test_loss_on_proxies_equals_the_loop_of_its_formula(name, soft):
    case, loss = case_of(1, soft=soft, n=12).leaves(), build(name)
    assert_same(case.call(loss), LOOPS[name](loss, case), [*case.inputs(), *loss.parameters()])


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("arguments", [(), (0, 0, 0), (2.5, 0, 0.3), (0, 3, 0), (4, 1, 0)])
def test_asymmetric_loss_equals_the_loop_of_its_formula_with_constant_weights(arguments, soft):
    case, loss = case_of(soft=soft).leaves(), AsymmetricLoss(*arguments)
    assert_same(loss(case.x, case.y), asymmetric_by_loop(loss, case.x, case.y), case.inputs())


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("arguments", [(), (1, 1), (0.5, 2.0)])
def test_two_way_loss_equals_the_loop_of_its_formula(arguments, soft):
    case, loss = case_of(soft=soft).leaves(), TwoWayLoss(*arguments)
    assert_same(loss(case.x, case.y), two_way_by_loop(loss, case.x, case.y), case.inputs())


def test_two_way_loss_is_zero_for_a_row_with_all_labels():
    case, loss = case_of(), TwoWayLoss()
    case.y[1] = 1
    case = case.leaves()
    assert_same(loss(case.x, case.y), two_way_by_loop(loss, case.x, case.y), case.inputs())


@pytest.mark.parametrize(
    ("name", "distance", "arguments"),
    [
        ("SupCon similarity", distances.LpDistance(), {"compare": lambda a, b: -chord(a, b)}),
        ("SupCon per_label", distances.LpDistance(power=2), {"compare": lambda a, b: -(chord(a, b) ** 2)}),
        ("SupCon any", distances.DotProductSimilarity(normalize_embeddings=False), {"compare": torch.dot}),
        ("LogRatio", distances.LpDistance(), {"compare": chord}),
        ("Triplet", distances.CosineSimilarity(), {"compare": cosine, "sign": -1}),
        ("SimilarityRegression", distances.DotProductSimilarity(normalize_embeddings=False), {"compare": torch.dot}),
    ],
)
def test_loss_with_another_distance_equals_the_loop_of_its_formula(name, distance, arguments):
    case, loss = case_of(2, "others").leaves(), build(name, distance=distance)
    assert_same(case.call(loss), LOOPS[name](loss, case, **arguments), case.inputs())


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("empty_rows_match", [False, True])
@pytest.mark.parametrize("threshold", [0.3, 0.5])
@pytest.mark.parametrize("refs", [None, "others"])
def test_supcon_of_similar_labels_weighs_positives_above_the_threshold(refs, threshold, empty_rows_match, soft):
    loss = MultiLabelSupConLoss(positive_threshold=threshold, empty_rows_match=empty_rows_match).double()
    case = case_of(3, refs, soft=soft, n=10).leaves()
    value = case.call(loss)
    assert_same(value, supcon_similarity_by_loop(loss, case), case.inputs())
    assert value != case.call(MultiLabelSupConLoss(empty_rows_match=empty_rows_match).double())
    assert value != case.call(
        MultiLabelSupConLoss(positive_threshold=threshold, empty_rows_match=not empty_rows_match).double()
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_supcon_takes_no_similarity_that_equals_the_threshold_for_a_positive(threshold, dtype):
    labels = torch.zeros(2, 10, dtype=torch.int64)
    labels[0] = 1
    labels[1, : round(10 * threshold)] = 1
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(3, 4, generator=generator, dtype=dtype)
    labels = torch.cat([labels, torch.zeros(1, 10, dtype=torch.int64)])
    assert MultiLabelSupConLoss(positive_threshold=threshold - 0.01)(embeddings, labels) > 0
    assert MultiLabelSupConLoss(positive_threshold=threshold)(embeddings, labels) == 0


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_supcon_takes_no_similarity_that_equals_a_fraction_for_a_positive(dtype):
    labels = torch.tensor([[1, 1, 1], [1, 1, 0], [0, 0, 0]]).to(dtype)
    embeddings = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    assert MultiLabelSupConLoss(positive_threshold=0.66)(embeddings, labels) > 0
    assert MultiLabelSupConLoss(positive_threshold=2 / 3)(embeddings, labels) == 0


def test_supcon_counts_positives_of_a_negative_similarity():
    def alike(labels, ref_labels):
        return 2 * sim.jaccard(labels, ref_labels) - 1

    loss = MultiLabelSupConLoss(similarity=alike, positive_threshold=-0.5)
    case = case_of(4).leaves()
    expected = supcon_similarity_by_loop(loss, case, alike=lambda y, z: 2 * jaccard(y, z) - 1)
    assert_same(case.call(loss), expected, case.inputs())


@pytest.mark.parametrize("name", WITH_SIMILARITY)
def test_loss_compares_labels_by_the_similarity_given(name):
    case = case_of()
    default = case.call(build(name))
    torch.testing.assert_close(case.call(build(name, similarity=lambda y, z: sim.jaccard(y, z))), default)
    assert case.call(build(name, similarity=sim.Overlap())) != default


def test_log_ratio_of_equal_embeddings_in_float32_is_that_in_float64():
    # Past 25 rows torch takes distances by matrix products, whose rounding exceeds `eps`.
    case = case_of(10, n=40)
    case.x[20:] = case.x[:20].clone()
    exact = LogRatioLoss()(case.x.float().double(), case.y)
    torch.testing.assert_close(LogRatioLoss()(case.x.float(), case.y).double(), exact, rtol=1e-3, atol=0)


@pytest.mark.parametrize("with_refs", [False, True])
def test_log_ratio_in_float32_has_the_second_derivatives_and_the_functional_gradient_of_float64(with_refs):
    case = case_of(11, n=12)
    x = torch.randn(len(case.y), 5, generator=torch.Generator().manual_seed(0))
    refs = (x.flip(1) + 1, case.y) if with_refs else ()

    def penalty(dtype):
        inputs = [part.to(dtype, copy=True).requires_grad_() for part in (x, *refs[:1])]
        loss = LogRatioLoss()(inputs[0], case.y, None, *inputs[1:], *refs[1:])
        gradients = torch.autograd.grad(loss, inputs, create_graph=True)
        return torch.autograd.grad(sum(part.square().sum() for part in gradients), inputs)

    def functional(dtype):
        def loss(embeddings):
            return LogRatioLoss()(embeddings, case.y, None, *(part.to(dtype) for part in refs[:1]), *refs[1:])

        return torch.func.grad(loss)(x.to(dtype))

    for single, double in zip(penalty(torch.float32), penalty(torch.float64), strict=True):
        torch.testing.assert_close(single.double(), double, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(functional(torch.float32).double(), functional(torch.float64), rtol=1e-4, atol=1e-6)


def test_log_ratio_floors_the_distance_of_equal_labels():
    case = case_of()
    values = {floor: case.call(LogRatioLoss(min_label_distance=floor)) for floor in (0.1, 1e-3)}
    for floor, value in values.items():
        torch.testing.assert_close(value, log_ratio_by_loop(LogRatioLoss(min_label_distance=floor), case))
    assert values[1e-3] > values[0.1]


@pytest.mark.parametrize("name", ON_PAIRS)
def test_loss_excludes_self_pairs_if_labels_are_the_same_object_or_ref_includes_query(name):
    case, loss = case_of(), build(name)
    x, y = case.x, case.y
    copied = x.clone(), y.clone()
    plain = loss(x, y)
    assert loss(x, y, None, x, y) == plain
    assert loss(x, y, None, *copied, ref_includes_query=True) == plain
    assert loss(x, y, None, *copied) != plain


# Gradients.


@pytest.mark.parametrize("kind", [None, "triplets", "pairs"])
@pytest.mark.parametrize("refs", [None, "others"])
@pytest.mark.parametrize("name", ON_PAIRS)
def test_loss_on_pairs_has_the_gradient_of_finite_differences(name, refs, kind):
    loss, case = build(name), case_of(5, refs, kind)
    case.x[3] += 0.5  # no two embeddings are equal: a distance has a kink at 0
    case = case.leaves()

    def value(x, ref=None):
        return replace(case, x=x, ref=x if ref is None else ref).call(loss)

    assert torch.autograd.gradcheck(value, case.inputs())


@pytest.mark.parametrize("name", ON_PROXIES)
def test_loss_on_proxies_has_the_gradient_of_finite_differences(name):
    loss, case = build(name), case_of(5, n=12).leaves()
    ((key, proxies),) = loss.named_parameters()

    def value(x, proxies):
        return torch.func.functional_call(loss, {key: proxies}, (x, case.y))

    assert torch.autograd.gradcheck(value, (case.x, proxies.detach().clone().requires_grad_()))


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(
    "loss", [AsymmetricLoss(0, 0, 0), AsymmetricLoss(0, 0, 0.2), TwoWayLoss(), TwoWayLoss(0.5, 2.0)], ids=str
)
def test_loss_on_logits_has_the_gradient_of_finite_differences(loss, soft):
    case = case_of(6, soft=soft).leaves()
    assert torch.autograd.gradcheck(lambda logits: loss(logits, case.y), case.x)


# One-hot labels: the values of pytorch-metric-learning.


def one_hot_case(seed=0, n=16, m=12):
    """Embeddings and class ids; each class has two items or more."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n + m, SIZE, generator=generator, dtype=torch.float64)
    ids = torch.arange(n + m) % 4
    return x[:n].requires_grad_(), ids[:n], x[n:].requires_grad_(), ids[n:]


@pytest.mark.parametrize("positives", ["similarity", "per_label", "any"])
def test_supcon_with_one_hot_labels_equals_pytorch_metric_learning(positives):
    x, ids, ref, ref_ids = one_hot_case()
    ours, theirs = MultiLabelSupConLoss(positives, temperature=0.2), losses.SupConLoss(temperature=0.2)
    assert_same(ours(x, one_hot(ids)), theirs(x, ids), [x])
    with_refs = ours(x, one_hot(ids), None, ref, one_hot(ref_ids)), theirs(x, ids, None, ref, ref_ids)
    assert_same(*with_refs, [x, ref])
    relation = (ids[:, None] == ids) & ~torch.eye(16, dtype=torch.bool)
    indices = (*(part[::2] for part in torch.where(relation)), *(part[::3] for part in torch.where(~relation)))
    assert_same(ours(x, one_hot(ids), indices), theirs(x, ids, indices), [x])


@pytest.mark.parametrize("reducer", [None, reducers.MeanReducer(), reducers.SumReducer()], ids=str)
def test_triplet_loss_with_one_hot_labels_equals_pytorch_metric_learning(reducer):
    x, ids, ref, ref_ids = one_hot_case()
    ours = MultiLabelTripletMarginLoss(margin=0.3, reducer=reducer)
    theirs = losses.TripletMarginLoss(margin=0.3, reducer=reducer)
    assert_same(ours(x, one_hot(ids)), theirs(x, ids), [x])
    with_refs = ours(x, one_hot(ids), None, ref, one_hot(ref_ids)), theirs(x, ids, None, ref, ref_ids)
    assert_same(*with_refs, [x, ref])


def test_proxy_anchor_with_one_hot_labels_equals_pytorch_metric_learning():
    x, ids, _, _ = one_hot_case()
    ours = MultiLabelProxyAnchorLoss(4, SIZE, margin=0.2, alpha=8).double()
    theirs = losses.ProxyAnchorLoss(4, SIZE, margin=0.2, alpha=8).double()
    theirs.load_state_dict(ours.state_dict())
    assert_same(ours(x, one_hot(ids)), theirs(x, ids), [x])
    (gradient,) = torch.autograd.grad(ours(x, one_hot(ids)), list(ours.parameters()))
    torch.testing.assert_close(gradient, torch.autograd.grad(theirs(x, ids), theirs.proxies)[0])


@pytest.mark.parametrize("refs", [None, "others", "batch first"])
def test_supcon_of_any_shared_label_equals_the_wrapped_loss(refs):
    case = case_of(7, refs, n=12).leaves()
    wrapped = MultiLabelLoss(losses.SupConLoss(temperature=0.5))
    assert_same(case.call(build("SupCon any")), case.call(wrapped), case.inputs())


@pytest.mark.parametrize("soft", [False, True])
def test_asymmetric_loss_without_gammas_and_margin_is_the_binary_cross_entropy_summed_over_labels(soft):
    case = case_of(soft=soft).leaves()
    expected = NUM_LABELS * binary_cross_entropy_with_logits(case.x, case.y)
    assert_same(AsymmetricLoss(0, 0, 0)(case.x, case.y), expected, case.inputs())


# Cases worked by hand.

SETS = torch.tensor([[1, 0], [1, 1], [0, 1]])  # Jaccard 1/2, 0 and 1/2
POINTS = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])  # cosines 1, 0 and 0


def softplus(x):
    return math.log1p(math.exp(x))


@pytest.mark.parametrize(
    ("positives", "expected"),
    [
        # -log q: of the first two rows softplus(-1) for each other and softplus(1) for the third, whose own are log 2.
        ("similarity", (softplus(-1) / 2 + (softplus(-1) + softplus(1)) / 4 + math.log(2) / 2) / 3),
        ("per_label", (softplus(-1) + (softplus(-1) + softplus(1)) + math.log(2)) / 4),
        ("any", (softplus(-1) + (softplus(-1) + softplus(1)) / 2 + math.log(2)) / 3),
    ],
)
def test_supcon_of_three_rows_is_that_worked_by_hand(positives, expected):
    assert MultiLabelSupConLoss(positives, temperature=1.0)(POINTS, SETS).item() == pytest.approx(expected)


def test_supcon_with_empty_rows_alike_is_that_worked_by_hand():
    labels = torch.tensor([[0, 0], [0, 0], [1, 1], [1, 0]])
    embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    alike, plain = (
        MultiLabelSupConLoss(empty_rows_match=on, temperature=1.0)(embeddings, labels) for on in (True, False)
    )
    each = math.log(1 + 2 / math.e)  # -log q of the equal row, two others at a right angle
    assert plain.item() == pytest.approx(each / 2)
    assert alike.item() == pytest.approx((each + each + each / 2 + each / 2) / 4)


def test_log_ratio_of_three_rows_is_that_worked_by_hand():
    labels = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 1]])  # label distances 1/2, 1 and 1
    embeddings = torch.tensor([[0.0], [1.0], [3.0]])  # squared distances 1, 9 and 4
    expected = (math.log(2 / 9) ** 2 + math.log(1 / 2) ** 2 + math.log(9 / 4) ** 2) / 3
    assert LogRatioLoss(eps=1e-12)(embeddings, labels).item() == pytest.approx(expected)


def test_log_ratio_of_distances_in_proportion_is_zero_at_any_scale():
    labels = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 1]]).double()  # label distances 1/2, 1 and 1
    embeddings = torch.tensor([[0.0, 0.0], [0.5, 0.5], [-0.5, 0.5]]).double()  # squared distances 1/2, 1/2 and 1
    embeddings[2] = torch.tensor([0.25, 0.25]) + torch.tensor([-1.0, 1.0]) * math.sqrt(0.875 / 2)  # 1 from both
    for scale in (1.0, 7.0):
        assert LogRatioLoss(eps=1e-12)(scale * embeddings, labels).item() == pytest.approx(0, abs=1e-12)


def test_triplet_loss_of_three_rows_is_that_worked_by_hand():
    embeddings = torch.tensor([[0.0], [2.0], [1.0]])
    loss = MultiLabelTripletMarginLoss(margin=2.0, distance=distances.LpDistance(normalize_embeddings=False))
    # (0, 1, 2): 2 - 1 + 2 / 2. (2, 1, 0): 1 - 1 + 2 / 2. To the second row the others are equally similar.
    assert loss(embeddings, SETS).item() == pytest.approx((2 + 1) / 2)


@pytest.mark.parametrize(("third", "expected"), [(3.0, 3 - 1 - 1 / 2), (1.4, 0)])
def test_triplet_loss_of_a_negative_that_is_more_similar_has_a_margin_below_zero(third, expected):
    embeddings = torch.tensor([[0.0], [1.0], [third]])
    loss = MultiLabelTripletMarginLoss(margin=1.0, distance=distances.LpDistance(normalize_embeddings=False))
    triplet = tuple(torch.tensor([[0, 2, 1]]).T)  # similarities 0 and 1/2
    assert loss(embeddings, SETS, triplet).item() == pytest.approx(expected)


def test_similarity_regression_of_three_rows_is_that_worked_by_hand():
    # Differences 1/2 and 0; 1/2 and 1/2; 0 and 1/2.
    expected = (1 / 8 + 1 / 4 + 1 / 8) / 3
    assert SimilarityRegressionLoss()(POINTS, SETS).item() == pytest.approx(expected)


def test_similarity_regression_of_cosines_that_are_the_similarities_is_zero():
    embeddings = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.75**0.5, 0.0], [0.0, 0.0, 0.0]])
    embeddings[2] = torch.tensor([0.0, 0.5 / 0.75**0.5, (1 - 0.25 / 0.75) ** 0.5])  # at 0 and 60 degrees
    assert SimilarityRegressionLoss()(embeddings, SETS).item() == pytest.approx(0, abs=1e-12)


def test_proxy_anchor_of_two_rows_is_that_worked_by_hand():
    loss = MultiLabelProxyAnchorLoss(num_labels=3, embedding_size=2, margin=0.0, alpha=1.0)
    loss.loss.proxies.data = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    pull = (softplus(-1) + softplus(0)) / 2  # of the first row to its two labels
    push = (softplus(0) + softplus(1) + math.log(1 + math.exp(-1) + 1)) / 3  # the third proxy pushes both rows
    value = loss(torch.eye(2), torch.tensor([[1, 1, 0], [0, 0, 0]]))
    assert value.item() == pytest.approx(pull + push)


def test_hyp2_of_three_rows_is_that_worked_by_hand():
    loss = HyP2Loss(num_labels=4, embedding_size=2, threshold=0.25, beta=0.5)
    loss.proxies.data = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    embeddings = torch.tensor([[2.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    labels = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1], [0, 1, 0, 0]])
    positive = (0 + 1 + 1.6 + 1.8 + 0) / 5
    negative = (0.35 + 0.55) / 7
    pair = 0.35  # of the first two rows: the third has one label only
    assert loss(embeddings, labels).item() == pytest.approx(positive + negative + 0.5 * pair)


def test_asymmetric_loss_of_two_rows_is_that_worked_by_hand():
    three = math.log(3)  # probabilities 1/2 and 3/4; 3/4 and 1/4
    logits, labels = torch.tensor([[0.0, three], [three, -three]]), torch.tensor([[1, 0], [1, 0]])
    first = 0.5 * math.log(2) + 0.5**2 * math.log(2)
    second = 0.25 * math.log(4 / 3) + 0  # a negative at the margin counts nothing
    assert AsymmetricLoss(2, 1, 0.25)(logits, labels).item() == pytest.approx((first + second) / 2)


def test_two_way_loss_of_two_rows_is_that_worked_by_hand():
    logits, labels = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[1, 0], [1, 1]])
    # The second row and the first column have all labels: 0. The first row differs by 1, the second column by 2.
    assert TwoWayLoss(1, 1)(logits, labels).item() == pytest.approx(softplus(-1) / 2 + softplus(-2) / 2)
    # With the defaults, two present labels at -1 and one absent at 0.5: 0.5 + 4 log(2 exp(1 / 4)).
    wide = TwoWayLoss()(torch.tensor([[-1.0, -1.0, 0.5]]), torch.tensor([[1, 1, 0]]))
    assert wide.item() == pytest.approx(softplus(0.5 + 4 * math.log(2) + 1))


# Any inputs.


def tensors(data, dtype=torch.float64, min_rows=0, max_rows=6, *, soft=True):
    """Embeddings with as many columns as there are labels, and labels, hard or soft."""
    rows, columns = data.draw(st.integers(min_rows, max_rows)), data.draw(st.integers(1, 4))
    values = st.sampled_from([0, 1, 2, 3, 4]) if soft and data.draw(st.booleans()) else st.sampled_from([0, 4])
    labels = torch.from_numpy(data.draw(hnp.arrays("int64", (rows, columns), elements=values))) / 4
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**16)))
    return torch.randn(rows, columns, generator=generator, dtype=torch.float64).to(dtype), labels.double()


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_loss_does_not_depend_on_the_order_of_the_batch(name, data):
    x, y = tensors(data, soft=name != "ProxyAnchor")
    order = torch.tensor(data.draw(st.permutations(range(len(x)))), dtype=torch.int64)
    loss = build(name, y.shape[1], x.shape[1])
    torch.testing.assert_close(loss(x[order], y[order]), loss(x, y), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ON_PAIRS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_loss_does_not_depend_on_the_order_of_the_refs(name, data):
    ref, ref_y = tensors(data)
    x, y = ref[::2] + 0.5, ref_y[::2].clone()
    order = torch.tensor(data.draw(st.permutations(range(len(ref)))), dtype=torch.int64)
    loss = build(name)
    torch.testing.assert_close(
        loss(x, y, None, ref[order], ref_y[order]), loss(x, y, None, ref, ref_y), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=80, deadline=None)
@given(data=st.data())
@pytest.mark.slow
def test_loss_and_gradient_of_any_batch_are_finite(name, data):
    dtype = data.draw(st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]))
    x, y = tensors(data, dtype, soft=name != "ProxyAnchor")
    repeated = data.draw(st.lists(st.integers(0, max(len(x) - 1, 0)), min_size=len(x), max_size=len(x)))
    x = x[torch.tensor(repeated, dtype=torch.int64)].requires_grad_()
    loss = build(name, y.shape[1], x.shape[1]).float()
    given_refs = ()
    if name in ON_PAIRS and data.draw(st.booleans()):
        given_refs = (None, x.detach()[: data.draw(st.integers(0, len(x)))], y)
        given_refs = (*given_refs[:2], y[: len(given_refs[1])].clone())
    value = loss(x, y, *given_refs)
    gradients = torch.autograd.grad(value, [x, *loss.parameters()], materialize_grads=True)
    for result in (value, *gradients):
        assert result.isfinite().all()
    assert gradients[0].dtype == dtype


def degenerate(kind):
    x, y = (part.clone() for part in (case_of(8).x, case_of(8).y))
    if kind == "no labels":
        y[:] = 0
    elif kind == "all labels":
        y[:] = 1
    elif kind == "one row":
        x, y = x[1:2], y[1:2]
    elif kind == "one label":
        y[:, 1:] = 0
    elif kind == "no positives":
        x, y = x[:5], torch.eye(5, dtype=torch.float64)
    elif kind == "equal labels":
        y[:] = y[1].clone()
    elif kind == "equal embeddings":
        x[:] = x[1].clone()
    elif kind == "zero embeddings":
        x[:] = 0
    elif kind == "equal items":
        x[:], y[:] = x[1].clone(), y[1].clone()
    elif kind == "large embeddings":
        x *= 1e4
    elif kind == "small embeddings":
        x *= 1e-6
    return x, y


KINDS = [
    *("no labels", "all labels", "one row", "one label", "no positives", "equal labels", "equal embeddings"),
    *("zero embeddings", "equal items", "large embeddings", "small embeddings"),
]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ALL)
def test_loss_and_gradient_of_a_degenerate_batch_are_numbers(name, kind, dtype):
    x, y = degenerate(kind)
    loss, leaf = build(name).to(torch.promote_types(dtype, torch.float32)), x.to(dtype).requires_grad_()
    value = loss(leaf, y)
    gradients = torch.autograd.grad(value, [leaf, *loss.parameters()], materialize_grads=True)
    assert value.isfinite()
    for gradient in gradients:
        # That of a direction grows as the length shrinks, past the largest number of float16.
        assert not gradient.isnan().any() if dtype == torch.float16 else gradient.isfinite().all()


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
@pytest.mark.parametrize("name", ALL)
def test_gradient_of_empty_rows_and_absent_anchors_has_no_nan_in_any_step(name):
    x, y = case_of(1).x.requires_grad_(), case_of(1).y
    y[5] = 1
    pairs = tuple(torch.tensor(part) for part in ([1, 2], [2, 1], [1, 1, 2], [4, 5, 6]))
    with torch.autograd.detect_anomaly():
        build(name)(x, y, *([pairs] if name in ON_PAIRS else [])).backward()
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("no rows", ALL),
        ("one row", ON_PAIRS),
        ("two rows", ["LogRatio", "Triplet"]),
        ("no refs", ON_PAIRS),
        ("no triplets", ON_PAIRS),
        ("no pairs", ON_PAIRS),
        ("no labels", [*DEFINITIONS, "Triplet", "TwoWay"]),
        ("all labels", ["Triplet", "TwoWay"]),
        ("no positives", [*DEFINITIONS, "Triplet"]),
    ],
)
def test_loss_of_nothing_to_compare_is_a_zero_that_can_be_differentiated(kind, names):
    x, y = degenerate(kind)
    x, y = {"no rows": (x[:0], y[:0]), "two rows": (x[:2], y[:2])}.get(kind, (x, y))
    none = torch.zeros(0, dtype=torch.int64)
    given_more = {"no refs": (None, x[:0], y[:0]), "no triplets": ((none,) * 3,), "no pairs": ((none,) * 4,)}
    for name in names:
        leaf = x.clone().requires_grad_()
        value = build(name)(leaf, y, *given_more.get(kind, ()))
        assert value == 0
        assert value.shape == ()
        value.backward()
        torch.testing.assert_close(leaf.grad, torch.zeros_like(x))


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int32, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", ALL)
def test_loss_does_not_depend_on_the_dtype_of_hard_labels(name, dtype):
    case, loss = case_of(9, n=12), build(name).float()
    x = case.x.float()
    torch.testing.assert_close(loss(x, case.y.to(dtype)), loss(x, case.y.long()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", [name for name in ALL if name != "ProxyAnchor"])
def test_loss_of_half_precision_is_that_of_the_same_numbers_in_float32(name, dtype):
    case, loss = case_of(9, n=12), build(name).float()
    x = case.x.to(dtype)
    torch.testing.assert_close(loss(x, case.y), loss(x.float(), case.y), rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", [name for name in ALL if name != "ProxyAnchor"])
def test_loss_keeps_its_precision_under_autocast(name):
    case, loss = case_of(9, n=12), build(name).float()
    x = case.x.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(x, case.y)
    torch.testing.assert_close(value, loss(x, case.y), rtol=1e-6, atol=0)


def test_proxy_anchor_takes_half_precision_and_autocast():
    case, loss = case_of(9, n=12), build("ProxyAnchor").float()
    x, exact = case.x.float(), build("ProxyAnchor")(case.x, case.y)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(loss(x, case.y).double(), exact.detach(), rtol=0.02, atol=0)
    for dtype in (torch.float16, torch.bfloat16):
        value = copy.deepcopy(loss)(x.to(dtype), case.y)
        torch.testing.assert_close(value.double(), exact.detach(), rtol=0.02, atol=0)


@pytest.mark.parametrize("name", ALL)
def test_loss_of_strided_input_equals_that_of_a_copy(name):
    case, loss = case_of(9, n=12), build(name)
    x, y = torch.empty(SIZE, 24, dtype=torch.float64).T[::2], torch.empty(NUM_LABELS, 24, dtype=torch.float64).T[::2]
    x.copy_(case.x)
    y.copy_(case.y)
    assert not x.is_contiguous()
    assert not y.is_contiguous()
    leaf = x.requires_grad_()
    copied = case.x.clone().requires_grad_()
    value, expected = loss(leaf, y), loss(copied, case.y)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(torch.autograd.grad(value, leaf), torch.autograd.grad(expected, copied))


@pytest.mark.parametrize("name", ON_PAIRS)
def test_loss_of_many_rows_equals_that_of_a_loop_over_anchors(name):
    # Past 25 rows torch takes distances by matrix products.
    case = case_of(10, n=40)
    reducer = reducers.DoNothingReducer()
    loss = build(name, reducer=reducer)
    whole = loss(case.x, case.y)["loss"]["losses"]
    single = [
        loss(case.x[a : a + 1], case.y[a : a + 1], None, *(torch.cat([t[:a], t[a + 1 :]]) for t in (case.x, case.y)))
        for a in range(40)
    ]
    rows = [row["loss"]["losses"] for row in single if isinstance(row["loss"]["losses"], torch.Tensor)]
    torch.testing.assert_close(whole, torch.cat(rows), rtol=1e-6, atol=1e-7)


# The interface of pytorch-metric-learning.


@pytest.mark.parametrize("kind", [None, "triplets"])
@pytest.mark.parametrize("name", ON_PAIRS)
def test_loss_uses_the_reducer(name, kind):
    case = case_of(11, kind=kind)
    parts = case.call(build(name, reducer=reducers.DoNothingReducer()))
    assert list(parts) == ["loss"]
    values, indices = parts["loss"]["losses"], parts["loss"]["indices"]
    of_triplets = name == "Triplet" or (name == "LogRatio" and kind == "triplets")
    assert parts["loss"]["reduction_type"] == ("triplet" if of_triplets else "element")
    anchors = indices[0] if of_triplets else indices
    assert len(anchors) == len(values)
    torch.testing.assert_close(case.call(build(name, reducer=reducers.MeanReducer())), values.mean())
    torch.testing.assert_close(case.call(build(name, reducer=reducers.SumReducer())), values.sum())
    default = values[values > 0].mean() if name == "Triplet" else values.mean()
    torch.testing.assert_close(case.call(build(name)), default)


@pytest.mark.parametrize("name", ON_PAIRS)
def test_loss_returns_the_anchor_of_each_value(name):
    case = case_of(11)
    loss = build(name, reducer=reducers.DoNothingReducer())
    part = loss(case.x, case.y)["loss"]
    anchors = part["indices"][0] if name == "Triplet" else part["indices"]
    assert len(set(anchors.tolist())) > 3
    if name in DEFINITIONS:
        assert not {0, 3} & set(anchors.tolist())  # rows without labels
    for a in set(anchors.tolist()):
        others = [j for j in range(7) if j != a]
        alone = loss(case.x[a : a + 1], case.y[a : a + 1], None, case.x[others], case.y[others])["loss"]["losses"]
        torch.testing.assert_close(part["losses"][anchors == a], alone)


def test_hyp2_has_three_sub_losses():
    case = case_of(1, n=12)
    parts = case.call(build("HyP2", reducer=reducers.DoNothingReducer()))
    assert list(parts) == ["positive_loss", "negative_loss", "pair_loss"]
    values = [part["losses"] for part in parts.values()]
    assert min(values) > 0
    for reducer in (None, reducers.MeanReducer()):
        torch.testing.assert_close(case.call(build("HyP2", reducer=reducer)), sum(values))
    torch.testing.assert_close(case.call(build("HyP2", beta=0)), sum(values[:2]))


def test_hyp2_has_no_distance():
    with pytest.raises(TypeError, match="distance"):
        build("HyP2", distance=distances.LpDistance())


def test_hyp2_proxies_have_the_variance_of_the_docstring_at_the_start():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        proxies = HyP2Loss(200, 400).proxies
    assert proxies.shape == (200, 400)
    assert proxies.std().item() == pytest.approx(math.sqrt(2 / 200), rel=0.01)


@pytest.mark.parametrize("name", ON_EMBEDDINGS)
def test_loss_adds_the_regularizer_of_embeddings(name):
    case = case_of(1, n=12)
    plain = case.call(build(name))
    with_regularizer = build(name, embedding_regularizer=regularizers.LpRegularizer(), embedding_reg_weight=0.5)
    expected = plain + 0.5 * case.x.norm(dim=1).mean()
    torch.testing.assert_close(case.call(with_regularizer), expected)
    nothing = with_regularizer(case.x, torch.zeros_like(case.y))
    assert nothing.isfinite()


@pytest.mark.parametrize(
    ("name", "recorded"),
    [(name, "temperature") for name in DEFINITIONS] + [("LogRatio", "min_label_distance"), ("Triplet", "margin")],
)
def test_loss_records_its_setting_and_the_statistics_of_its_parts(name, recorded):
    distance = {"LogRatio": distances.LpDistance, "Triplet": distances.LpDistance}.get(name, distances.CosineSimilarity)
    loss = build(
        name,
        collect_stats=True,
        distance=distance(collect_stats=True),
        reducer=reducers.MeanReducer(collect_stats=True),
    )
    case = case_of()
    case.call(loss)
    assert loss.collect_stats
    assert recorded in loss._record_these
    assert loss.distance.initial_avg_query_norm == pytest.approx(case.x.norm(dim=1).mean().item())
    parts = case.call(build(name, distance=distance(), reducer=reducers.DoNothingReducer()))
    assert loss.reducer.losses_size == len(parts["loss"]["losses"])


def through_a_file(loss):
    buffer = io.BytesIO()
    torch.save(loss, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda loss: pickle.loads(pickle.dumps(loss)), through_a_file])
@pytest.mark.parametrize("name", ALL)
def test_loss_copies_pickles_and_saves(name, copied):
    case, loss = case_of(1, n=12).leaves(), build(name)
    other = copied(loss)
    assert other is not loss
    value, expected = other(case.x, case.y), loss(case.x, case.y)
    assert_same(value, expected, case.inputs())
    for mine, theirs in zip(other.parameters(), loss.parameters(), strict=True):
        assert mine is not theirs


@pytest.mark.parametrize("name", ALL)
def test_state_dict_of_a_loss_contains_only_its_proxies(name):
    case, loss = case_of(1, n=12), build(name)
    assert list(loss.state_dict()) == (["proxies"] if name in ON_PROXIES else [])
    buffer = io.BytesIO()
    torch.save(loss.state_dict(), buffer)
    buffer.seek(0)
    other = build(name)
    for parameter in other.parameters():
        torch.nn.init.ones_(parameter)
    assert (other(case.x, case.y) == loss(case.x, case.y)) == (name not in ON_PROXIES)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    assert other(case.x, case.y) == loss(case.x, case.y)


def test_losses_add_up_in_the_container_of_pytorch_metric_learning():
    case = case_of(1, n=12)
    parts = {name.replace(" ", "_"): build(name) for name in ON_EMBEDDINGS}
    weights = {name: 1 + i for i, name in enumerate(parts)}
    expected = sum(weights[name] * loss(case.x, case.y) for name, loss in parts.items())
    torch.testing.assert_close(losses.MultipleLosses(parts, weights=weights)(case.x, case.y), expected)


def test_multiple_losses_of_pytorch_metric_learning_pass_each_loss_its_miner():
    case = case_of(1, n=12)
    miner = MultiLabelSemiHardMiner(similarity=sim.Jaccard(), type_of_triplets="all")
    mined, plain = build("Triplet"), build("LogRatio")
    both = losses.MultipleLosses([mined, plain], miners=[miner, None])
    expected = mined(case.x, case.y, miner(case.x, case.y)) + plain(case.x, case.y)
    torch.testing.assert_close(both(case.x, case.y), expected)


@pytest.mark.parametrize("refs", [None, "others"])
@pytest.mark.parametrize("name", ON_PAIRS)
def test_loss_of_mined_triplets_equals_the_loop_of_its_formula(name, refs):
    case, loss = case_of(12, refs).leaves(), build(name)
    miner = MultiLabelSemiHardMiner(similarity=sim.Jaccard(), type_of_triplets="all", margin=0.3)
    mined = miner(case.x, case.y, case.ref, case.ref_y)
    assert len(mined[0]) > 10
    case = replace(case, indices=mined)
    assert_same(case.call(loss), LOOPS[name](loss, case), case.inputs())


class LargestTensor(TorchDispatchMode):
    """Remember the number of elements of the largest tensor that an operation returns."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.numel = max(
            [self.numel, *(leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor))]
        )
        return result


def test_counter_of_elements_sees_products_in_both_directions():
    x = torch.ones(3, requires_grad=True)
    with LargestTensor() as largest:
        (x[:, None] * torch.ones(1, 5)).sum().backward()
    assert largest.numel == 15


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("name", [name for name in ALL if name != "Triplet"])
def test_loss_builds_no_tensor_larger_than_that_of_all_pairs(name, soft):
    n, num_labels = 512, 20
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, num_labels, generator=generator).requires_grad_()
    y = (torch.rand(n, num_labels, generator=generator) < 0.2).float()
    if soft and name != "ProxyAnchor":
        y *= torch.rand(n, num_labels, generator=generator)
    loss = build(name, num_labels, num_labels).float()
    with LargestTensor() as largest:
        loss(x, y).backward()
    assert x.grad.abs().sum() > 0
    assert n * num_labels <= largest.numel <= n * n


class MeanDistance(MultiLabelBaseLoss):
    """A custom loss: the mean distance of the compared pairs."""

    def compute_loss(self, inputs):
        assert isinstance(inputs, LossInputs)
        values = inputs.distances(self.distance)[inputs.pairs()]
        return {"loss": {"losses": values.mean(), "indices": None, "reduction_type": "already_reduced"}}


@pytest.mark.parametrize("kind", [None, "triplets", "pairs"])
@pytest.mark.parametrize("refs", [None, "others", "batch first"])
def test_custom_loss_gets_checked_inputs(refs, kind):
    case = case_of(1, refs, kind)
    expected = mean([chord(x, case.ref[j]) for a, x in enumerate(case.x) for j in case.refs(a)])
    torch.testing.assert_close(case.call(MeanDistance()), expected)
    assert MeanDistance()(case.x[:0], case.y[:0]) == 0
    with pytest.raises(ValueError, match=r"`labels` must be given to `MeanDistance`, got None"):
        MeanDistance()(case.x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("refs", [None, "others"])
def test_custom_loss_gets_float32_or_float64_and_its_gradient_has_the_dtype_of_the_embeddings(refs, dtype):
    case, seen = case_of(1, refs), []

    class Recording(MeanDistance):
        def compute_loss(self, inputs):
            autocast = torch.is_autocast_enabled("cpu")
            seen.append((inputs.dtype, inputs.embeddings.dtype, inputs.ref_emb.dtype, autocast))
            return super().compute_loss(inputs)

    leaf = case.x.to(dtype).requires_grad_()
    ref = leaf if refs is None else case.ref.to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = replace(case, x=leaf, ref=ref).call(Recording())
    computed = torch.promote_types(dtype, torch.float32)
    assert seen == [(computed, computed, computed, False)]
    assert value.dtype == computed
    value.backward()
    for part in (leaf, ref):
        assert part.grad.dtype == dtype
        assert part.grad.abs().sum() > 0


def test_loss_inputs_compare_labels_without_gradient():
    x, y = torch.ones(2, 3), torch.tensor([[1, 1], [1, 0]])
    inputs = LossInputs(x, y, x, y, ref_includes_query=True)
    assert inputs.similarity(sim.Jaccard()).tolist() == [[1.0, 0.5], [0.5, 1.0]]
    assert inputs.pairs().tolist() == [[False, True], [True, False]]
    weight = torch.ones(2, requires_grad=True)
    assert not inputs.similarity(lambda a, b: (a * weight) @ b.float().T).requires_grad


# Errors.

EMBEDDINGS, LABELS = torch.zeros(3, SIZE), torch.zeros(3, NUM_LABELS)


@pytest.mark.parametrize("name", ON_EMBEDDINGS)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((EMBEDDINGS,), r"`labels` must be given to `\w+`, got None"),
        ((EMBEDDINGS, torch.zeros(3)), r"`labels` must be a 2-D .* got shape \(3,\).*one_hot"),
        ((EMBEDDINGS, LABELS[:2]), r"`embeddings` must have shape \(2, D\).*got \(3, 5\)"),
        ((EMBEDDINGS[0], LABELS), r"`embeddings` must have shape \(3, D\).*got \(5,\)"),
        ((EMBEDDINGS, LABELS + 2), r"`labels` must contain numbers in \[0, 1\], got 2\.0 at row 0, label 0"),
        ((EMBEDDINGS, LABELS - 1), r"`labels` must contain numbers in \[0, 1\], got -1\.0"),
        ((EMBEDDINGS, LABELS + math.inf), r"`labels` must contain numbers in \[0, 1\], got inf"),
        ((EMBEDDINGS, LABELS, None, None, LABELS), r"`ref_emb` and `ref_labels` .* together, got only `ref_labels`"),
        ((EMBEDDINGS, LABELS, None, EMBEDDINGS[:2], LABELS[:1]), r"`ref_emb` must have shape \(1, D\).*got \(2, 5\)"),
    ],
)
def test_loss_on_embeddings_names_bad_input(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        build(name)(*arguments)


@pytest.mark.parametrize("name", ON_PAIRS)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((EMBEDDINGS, LABELS, None, EMBEDDINGS + 1), r"`ref_labels` must be given to `\w+`, got None"),
        (
            (EMBEDDINGS, LABELS, None, EMBEDDINGS, LABELS + 3),
            r"`ref_labels` must contain numbers in \[0, 1\], got 3\.0",
        ),
        ((EMBEDDINGS, LABELS, None, EMBEDDINGS, LABELS[:, :2]), r"the same number of labels, got 5 and 2"),
        ((EMBEDDINGS, LABELS, (LABELS[0].long(),) * 2), r"three tensors .* or four .* got 2 of them"),
    ],
)
def test_loss_on_pairs_names_bad_input(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        build(name)(*arguments)


@pytest.mark.parametrize("name", [*ON_PAIRS, "HyP2"])
def test_loss_of_embeddings_of_another_length_is_a_value_error(name):
    message = r"`(ref_emb|embeddings)` must have .*5.* got .*3"
    labels = torch.eye(3, NUM_LABELS)
    arguments = (None, EMBEDDINGS[:, :3], labels.clone()) if name in ON_PAIRS else ()
    with pytest.raises(ValueError, match=message):
        build(name)(EMBEDDINGS if arguments else EMBEDDINGS[:, :3], labels, *arguments)


@pytest.mark.parametrize("name", ON_PAIRS)
def test_loss_checks_no_values_without_validate_args(name):
    case = case_of()
    assert build(name, validate_args=False)(case.x, case.y * 1.5) > 0
    assert case.call(build(name, validate_args=False)) == case.call(build(name))


def test_hyp2_checks_no_values_without_validate_args():
    case = case_of()
    assert build("HyP2", validate_args=False)(case.x, case.y * 1.5) == build("HyP2")(case.x, case.y)


@pytest.mark.parametrize("name", ON_EMBEDDINGS)
def test_loss_of_embeddings_that_are_not_tensors_or_of_label_names_raises_a_type_error(name):
    names = [["a"], ["a", "b"], []]
    with pytest.raises(TypeError, match=r"`embeddings` must be a torch\.Tensor, got ndarray"):
        build(name)(EMBEDDINGS.numpy(), LABELS)
    with pytest.raises(TypeError, match=r"`labels` must .*MultiLabelBinarizer"):
        build(name)(EMBEDDINGS, names)
    with pytest.raises(TypeError, match=r"`ref_emb` must be a torch\.Tensor, got list"):
        build(name)(EMBEDDINGS, LABELS, None, EMBEDDINGS.tolist(), LABELS)
    with pytest.raises(TypeError, match=r"`ref_labels` must .*MultiLabelBinarizer"):
        build(name)(EMBEDDINGS, LABELS, None, EMBEDDINGS + 1, names)


@pytest.mark.parametrize("convert", [torch.Tensor.numpy, torch.Tensor.tolist, lambda rows: sparse.csr_array(rows)])
@pytest.mark.parametrize("name", ALL)
def test_loss_takes_labels_of_every_kind(name, convert):
    case, loss = case_of(9, n=12), build(name)
    own = convert(case.y)
    assert loss(case.x, own) == loss(case.x, case.y)
    if name in ON_PAIRS:
        assert loss(case.x, own, None, case.x, own) == loss(case.x, case.y)


@pytest.mark.parametrize(
    ("loss", "parameters"),
    [
        (AsymmetricLoss(), "AsymmetricLoss(gamma_neg=4.0, gamma_pos=1.0, margin=0.05)"),
        (TwoWayLoss(), "TwoWayLoss(temperature_positive=4.0, temperature_negative=1.0)"),
        (HyP2Loss(3, 2), "num_labels=3, embedding_size=2, threshold=0.0, beta=0.5"),
        (MultiLabelProxyAnchorLoss(3, 2), "num_labels=3, embedding_size=2, margin=0.1, alpha=32"),
        (LogRatioLoss(similarity=sim.jaccard), "similarity=jaccard, min_label_distance=0.1, eps=1e-06"),
        (SimilarityRegressionLoss(validate_args=False), "similarity=Jaccard(), validate_args=False"),
        (MultiLabelTripletMarginLoss(), "margin=0.2, similarity=Jaccard()"),
        (
            MultiLabelSupConLoss(),
            "positives='similarity', similarity=Jaccard(), positive_threshold=0.0, empty_rows_match=False, "
            "temperature=0.1",
        ),
    ],
)
def test_loss_representation_shows_its_parameters(loss, parameters):
    assert parameters in [line.strip() for line in str(loss).splitlines()]


def test_hyp2_rejects_refs_index_tuples_and_other_numbers_of_labels():
    loss = build("HyP2")
    with pytest.raises(
        ValueError, match="`HyP2Loss` compares embeddings with its proxies and does not support `ref_emb`"
    ):
        loss(EMBEDDINGS, LABELS, None, EMBEDDINGS + 1, LABELS)
    for count in (3, 4):
        with pytest.raises(ValueError, match=f"`HyP2Loss` does not support `indices_tuple`, got {count} tensors"):
            loss(EMBEDDINGS, LABELS, (torch.zeros(1, dtype=torch.int64),) * count)
    with pytest.raises(ValueError, match=r"`labels` must have 5 columns \(`num_labels`\), got 3"):
        loss(EMBEDDINGS, LABELS[:, :3])


def test_proxy_anchor_rejects_refs_soft_labels_and_other_numbers_of_labels():
    loss = build("ProxyAnchor")
    with pytest.raises(ValueError, match="`ProxyAnchorLoss` does not support `ref_emb`"):
        loss(EMBEDDINGS, LABELS, None, EMBEDDINGS + 1, LABELS)
    with pytest.raises(ValueError, match=r"`labels` must be 0 or 1 for `ProxyAnchorLoss`.* got 0\.25"):
        loss(EMBEDDINGS, LABELS + 0.25)
    with pytest.raises(ValueError, match=r"`labels` must have 5 columns, .* got 3"):
        loss(EMBEDDINGS, LABELS[:, :3])


def test_base_loss_without_compute_loss_raises():
    with pytest.raises(NotImplementedError):
        MultiLabelBaseLoss()(EMBEDDINGS, LABELS)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MultiLabelSupConLoss("all"), "`positives` must be one of similarity, per_label, any, got 'all'"),
        (lambda: MultiLabelSupConLoss(temperature=0), "`temperature` must be above 0, got 0"),
        (lambda: MultiLabelSupConLoss(temperature=math.nan), "`temperature` must be above 0, got nan"),
        (lambda: LogRatioLoss(min_label_distance=0), "`min_label_distance` must be above 0, got 0"),
        (lambda: LogRatioLoss(min_label_distance=math.nan), "`min_label_distance` must be above 0, got nan"),
        (lambda: LogRatioLoss(eps=-1), "`eps` must be above 0, got -1"),
        (lambda: LogRatioLoss(distance=distances.CosineSimilarity()), "must not be inverted.* got CosineSimilarity"),
        (lambda: MultiLabelTripletMarginLoss(margin=0), "`margin` must be above 0, got 0"),
        (lambda: MultiLabelTripletMarginLoss(margin=math.nan), "`margin` must be above 0, got nan"),
        (lambda: SimilarityRegressionLoss(distance=distances.LpDistance()), "must be inverted, .* got LpDistance"),
        (lambda: HyP2Loss(0, 2), "`num_labels` and `embedding_size` must be at least 1, got 0 and 2"),
        (lambda: HyP2Loss(2, 0), "`num_labels` and `embedding_size` must be at least 1, got 2 and 0"),
        (lambda: HyP2Loss(2, 2, threshold=1.5), r"`threshold` must be a cosine, in \[-1, 1\], got 1\.5"),
        (lambda: HyP2Loss(2, 2, threshold=math.nan), r"`threshold` must be a cosine, in \[-1, 1\], got nan"),
        (lambda: HyP2Loss(2, 2, beta=-0.5), r"`beta` must be at least 0, got -0\.5"),
        (lambda: AsymmetricLoss(-1), r"must be at least 0, got -1 and 1\.0"),
        (lambda: AsymmetricLoss(1, -2), "must be at least 0, got 1 and -2"),
        (lambda: AsymmetricLoss(margin=1), r"`margin` must be a probability, in \[0, 1\), got 1"),
        (lambda: AsymmetricLoss(margin=-0.1), r"`margin` must be a probability, in \[0, 1\), got -0\.1"),
        (lambda: TwoWayLoss(0), r"must be above 0, got 0 and 1\.0"),
        (lambda: TwoWayLoss(4, -1), "must be above 0, got 4 and -1"),
        (lambda: TwoWayLoss(math.nan, 1), "must be above 0, got nan and 1"),
        (lambda: TwoWayLoss(4, math.nan), "must be above 0, got 4 and nan"),
    ],
)
def test_loss_with_a_setting_out_of_range_is_rejected(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", WITH_SIMILARITY)
def test_loss_with_a_similarity_that_is_not_callable_is_rejected(name):
    with pytest.raises(TypeError, match="`similarity` must be callable, got int"):
        build(name, similarity=3)
    with pytest.raises(TypeError, match=r"`similarity` must be an instance, got the class: write `Jaccard\(\)`"):
        build(name, similarity=sim.Jaccard)


@pytest.mark.parametrize("name", WITH_SIMILARITY)
def test_loss_with_a_similarity_of_a_wrong_shape_or_nan_is_rejected(name):
    case = case_of()
    with pytest.raises(ValueError, match=r"`similarity` must return shape \(7, 7\).* got \(7, 5\)"):
        case.call(build(name, similarity=lambda labels, ref_labels: labels))
    with pytest.raises(ValueError, match="`similarity` must not return NaN"):
        case.call(build(name, similarity=lambda labels, ref_labels: (labels @ ref_labels.T) * math.nan))


@pytest.mark.parametrize("name", ON_LOGITS)
def test_loss_on_logits_names_labels_of_another_shape(name):
    with pytest.raises(ValueError, match=r"the same shape \(N, L\), got \(3, 5\) and \(3, 2\)"):
        build(name)(EMBEDDINGS, LABELS[:, :2])
    with pytest.raises(ValueError, match=r"`labels` must be a 2-D .* got shape \(3,\)"):
        build(name)(EMBEDDINGS, LABELS[:, 0])


@pytest.mark.parametrize("name", ON_LOGITS)
@pytest.mark.parametrize(("bad", "shown"), [(-1.0, r"-1\.0"), (2.0, r"2\.0")])
def test_loss_on_logits_names_a_label_outside_0_1(name, bad, shown):
    labels = LABELS.float().clone()
    labels[1, 2] = bad
    with pytest.raises(ValueError, match=rf"`labels` must contain numbers in \[0, 1\], got {shown} at row 1, label 2"):
        build(name)(EMBEDDINGS, labels)
    assert build(name, validate_args=False)(EMBEDDINGS, labels).shape == ()


@pytest.mark.parametrize("name", ALL)
def test_loss_on_a_device_equals_the_cpu(name, device):
    case, loss = case_of(1, n=12).leaves(), build(name)
    moved = case.x.detach().to(device).requires_grad_()
    value, expected = copy.deepcopy(loss).to(device)(moved, case.y), loss(case.x, case.y)
    torch.testing.assert_close(value.cpu(), expected)
    gradients = (torch.autograd.grad(*part)[0].cpu() for part in ((value, moved), (expected, case.x)))
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    "loss", [SimilarityRegressionLoss(), MultiLabelSupConLoss(), MultiLabelLoss(losses.TripletMarginLoss())]
)
@pytest.mark.parametrize("name", ["embeddings", "ref_emb"])
def test_losses_of_embeddings_whose_squares_overflow_name_the_row(loss, name):
    rows, labels = torch.eye(3), torch.eye(3, dtype=torch.long)[[0, 0, 1]]
    large = torch.tensor([[1.0, 0, 0], [0, 3e19, 0], [0, 0, 1]])
    batch = {"embeddings": rows, "labels": labels, "ref_emb": rows, "ref_labels": labels.clone()} | {name: large}
    with pytest.raises(ValueError, match=rf"`{name}` must have norms below 9\.2e\+18.*3e\+19 in row 1"):
        loss(**batch)
