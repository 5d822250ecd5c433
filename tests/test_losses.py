"""The losses against pytorch-metric-learning on one-hot labels, and against loops of their formulas on label sets."""

import contextlib
import copy
import io
import math
import pickle
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pytest
import torch
from pytorch_metric_learning import distances, losses, reducers, regularizers
from pytorch_metric_learning.utils.distributed import DistributedLossWrapper
from scipy import sparse
from torch.nn.functional import normalize, one_hot

from mlmetric import similarity as sim
from mlmetric._pml import Unsupported, resolve_ref_includes_query
from mlmetric.losses import MultiLabelLoss
from mlmetric.losses import _pml_relation_losses as relation_losses_module
from mlmetric.losses._indices_tuple import all_pairs, miner_weights, to_triplets
from mlmetric.losses._loss_support import GRADED_LOSSES, LOSS_ADAPTERS, UNSUPPORTED_SETTINGS, LossAdapter
from mlmetric.miners import MultiLabelSemiHardMiner

PAGE = Path(__file__).parents[1] / "docs" / "pages" / "guide" / "pml_losses.md"
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
SUPPORTED = sorted(
    cls.__name__
    for cls, adapter in LOSS_ADAPTERS.items()
    if isinstance(adapter, LossAdapter) and cls is not losses.GenericPairLoss
)
ON_LABELS = [name for name in SUPPORTED if LOSS_ADAPTERS[EXPORTED[name]].uses == "labels"]
ON_RELATION = [name for name in SUPPORTED if LOSS_ADAPTERS[EXPORTED[name]].uses == "relation"]
BINARY = [name for name in SUPPORTED if LOSS_ADAPTERS[EXPORTED[name]].indices_tuple == "binary"]
WITH_REFS = [name for name in SUPPORTED if LOSS_ADAPTERS[EXPORTED[name]].supports_refs]
REFS_HERE_ONLY = ["FastAPLoss", "PNPLoss", "RankedListLoss"]
ON_PAIRS = [name for name in SUPPORTED if issubclass(EXPORTED[name], losses.GenericPairLoss)]
TOLERANCE_FACTORS = {
    "HistogramLoss": 1e4
}  # pytorch-metric-learning multiplies numbers of bins by their width in float32
TAKES_TUPLES = [name for name in SUPPORTED if LOSS_ADAPTERS[EXPORTED[name]].indices_tuple != "none"]

pytestmark = [
    pytest.mark.filterwarnings("ignore:Using a non-tuple sequence"),  # raised by HistogramLoss
    pytest.mark.filterwarnings("ignore:__array_wrap__"),  # raised by the constructor of LargeMarginSoftmaxLoss
]


LABEL_KINDS = {
    "array": torch.Tensor.numpy,
    "list": torch.Tensor.tolist,
    "sparse": lambda labels: sparse.csr_array(labels.numpy()),
    "frame": lambda labels: pd.DataFrame(labels.numpy()).astype("Int64"),
}


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
    return MultiLabelLoss(loss, similarity=sim.Jaccard(), positive_threshold=0.4, negative_threshold=0.1, **arguments)


def value_and_gradients(loss, embeddings, *arguments, **keywords):
    embeddings = embeddings.clone().requires_grad_()
    parameters = list(loss.parameters())
    value = loss(embeddings, *arguments, **keywords)
    gradients = torch.autograd.grad(value, [embeddings, *parameters], allow_unused=True)
    return value.detach(), [torch.zeros(()) if part is None else part for part in gradients]


def assert_same(ours, theirs, name=None):
    slack = TOLERANCE_FACTORS.get(name, 1)
    torch.testing.assert_close(ours[0].squeeze(), theirs[0].squeeze(), rtol=1e-9 * slack, atol=1e-11 * slack)
    for mine, other in zip(ours[1], theirs[1], strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-7 * slack, atol=1e-11 * slack)
    assert theirs[0] > 0
    assert theirs[1][0].abs().sum() > 0


# Supported and unsupported classes.


def test_every_loss_of_pytorch_metric_learning_is_supported_or_unsupported():
    assert {cls.__name__ for cls in LOSS_ADAPTERS} == set(EXPORTED)


def rows_of_the_table():
    uses = {
        "pairs": "positive and negative pairs",
        "triplets": "all triplets of a positive and a negative pair",
        "relation": "positives and negatives of each anchor",
        "labels": "a proxy for each label",
    }
    tuples = {
        "graded": "replaces the relation, also with graded triplets",
        "binary": "replaces the relation, if no pair is both positive and negative",
        "positives": "replaces the positive pairs",
        "weights": "determines row weights",
        "none": "not supported",
    }
    yield "| class | uses | `indices_tuple` | `ref_emb`, cross-batch memory |"
    yield "|---|---|---|---|"
    for name in sorted([*SUPPORTED, "GenericPairLoss"]):
        adapter = LOSS_ADAPTERS[EXPORTED[name]]
        text = uses[adapter.uses] + ("" if adapter.supports_soft_labels else "; multi-hot labels only")
        text += ", for your own subclasses" * (name == "GenericPairLoss")
        yield f"| `{name}` | {text} | {tuples[adapter.indices_tuple]} | {'yes' if adapter.supports_refs else 'no'} |"
    yield ""
    yield "| unsupported | because it | use instead |"
    yield "|---|---|---|"
    unsupported = {}
    for name in sorted(EXPORTED):
        if isinstance(LOSS_ADAPTERS[EXPORTED[name]], Unsupported):
            unsupported.setdefault(LOSS_ADAPTERS[EXPORTED[name]], []).append(f"`{name}`")
    for entry, names in unsupported.items():
        yield f"| {', '.join(names)} | {entry.reason} | {entry.alternative} |"
    for setting in UNSUPPORTED_SETTINGS:
        yield f"| `{setting.name}` | {setting.reason} | {setting.alternative} |"


def rows_of_differences():
    yield "| class | where | pytorch-metric-learning | here |"
    yield "|---|---|---|---|"
    for part in DIFFERENCES:
        theirs = part.theirs if isinstance(part.theirs, str) else f"{part.theirs:.5g}"
        yield f"| `{part.name}` | {part.where} | {theirs} | {part.ours:.6g} |"


def page_with_tables(page):
    for name, rows in (("table", rows_of_the_table()), ("differences", rows_of_differences())):
        start, end = f"<!-- {name}: start -->", f"<!-- {name}: end -->"
        assert start in page
        before, _, rest = page.partition(start)
        page = "\n".join([before + start, "", *rows, "", end + rest.partition(end)[2]])
    return page


def test_page_contains_the_tables_of_losses_and_differences():
    page = PAGE.read_text()
    assert page == page_with_tables(page), "run `python tests/test_losses.py` to update the tables"


# One-hot labels: the values of pytorch-metric-learning.


@pytest.mark.parametrize("name", SUPPORTED)
def test_loss_with_one_hot_labels_equals_pytorch_metric_learning(name):
    embeddings, ids, _, _ = classes()
    ours = value_and_gradients(MultiLabelLoss(build(name)), embeddings, one_hot(ids, 4))
    assert_same(ours, value_and_gradients(build(name), embeddings, ids), name)


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
    assert_same(ours, value_and_gradients(build(name), embeddings, ids, indices), name)


@pytest.mark.parametrize("variant", losses.PNPLoss.VARIANTS)
def test_pnp_with_one_hot_labels_equals_pytorch_metric_learning_in_every_variant_and_chunk(variant, monkeypatch):
    monkeypatch.setattr(relation_losses_module, "_CHUNK_ELEMENTS", 100)
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


# Cases in which the values may differ, and those in which they do.


def rows_of(*values):
    return torch.tensor(values, dtype=torch.float64)


def indices_of(*parts):
    return tuple(torch.tensor(part, dtype=torch.int64) for part in parts)


def cases():
    """Yield name, embeddings, class ids, index tuple and refs."""
    x, y, ref, ref_y = classes(n=12, m=14)
    refs, none = (ref, ref_y), torch.zeros(0, dtype=torch.int64)
    doubled, doubled_y = x.clone(), y.clone()
    doubled[[3, 5, 7]] = x[[1, 1, 6]]
    doubled_y[[3, 5]] = torch.stack([y[1], (y[1] + 1) % 4])
    empty = x.index_fill(0, torch.tensor([2, 6]), 0)
    pairs = all_pairs((y.unsqueeze(1) == ref_y).long() * 2 - 1)
    own_pairs = all_pairs((y.unsqueeze(1) == y).long() * 2 - 1 - torch.eye(12).long())
    yield "triplets", x, y, tuple(part[::5] for part in to_triplets(own_pairs, 12)), None
    yield "pairs", x, y, tuple(part[::3] for part in own_pairs), None
    yield "refs", x, y, None, refs
    yield "triplets, refs", x, y, tuple(part[::5] for part in to_triplets(pairs, 12)), refs
    yield "pairs, refs", x, y, tuple(part[::3] for part in pairs), refs
    yield "two triplets", x, y, indices_of([0, 3], [1, 4], [2, 5]), None
    yield "triplets twice", x, y, indices_of([0, 0, 3, 3], [1, 1, 4, 4], [2, 2, 5, 6]), None
    yield "positive pairs alone", x, y, (*indices_of([0, 1], [1, 2]), none, none), None
    yield "negative pairs alone", x, y, (none, none, *indices_of([0, 1], [1, 2])), None
    yield "no triplets", x, y, (none,) * 3, None
    yield "no pairs", x, y, (none,) * 4, None
    yield "one triplet", x, y, indices_of([0], [1], [2]), None
    yield "one positive pair", x, y, (*indices_of([0], [1]), none, none), None
    yield "one pair of each kind", x, y, indices_of([0], [1], [2], [3]), None
    yield "no positives", x, torch.arange(12), None, None
    yield "no negatives", x, y * 0, None, None
    yield "no positive refs", x, y * 0, None, (ref, ref_y * 0 + 1)
    yield "no negative refs", x, y * 0, None, (ref, ref_y * 0)
    yield "equal rows", doubled, doubled_y, None, None
    yield "opposite rows", torch.cat([x[:6], -x[:6]]), torch.arange(12) % 6, None, None
    yield "all rows equal", x[:1].expand(12, 5), y, None, None
    yield "zero rows", empty, y, None, None
    yield "equal refs", x, y, None, (x.clone(), y.clone())
    yield "long rows", x * 1e3, y, None, None
    yield "short rows", x * 1e-3, y, None, None
    yield "one row", x[:1], y[:1], None, None
    yield "one row, refs", x[:1], y[:1], None, refs
    yield "one ref", x, y, None, (ref[:1], ref_y[:1])
    yield "three rows", x[:3], torch.tensor([0, 1, 0]), None, None


CASES = list(cases())
ONE_PAIR = ("one triplet", "one positive pair", "one pair of each kind")
PARTS = {
    *(("LiftedStructureLoss", case) for case in ("refs", "triplets, refs", "pairs, refs", "equal refs", "one ref")),
    ("NCALoss", "one row, refs"),
}
FAIL_THERE = ["DynamicSoftMarginLoss", "HistogramLoss", "NCALoss", "P2SGradLoss", "TupletMarginLoss"]
NOT_A_NUMBER_HERE = {("SignalToNoiseRatioContrastiveLoss", "zero rows")}  # whose gradient is none there either


def both(name, embeddings, ids, indices, refs, num_classes=4, dtype=torch.float64, **settings):
    """Return value and gradient of pytorch-metric-learning, None where it raises or gives no number, and our own."""
    theirs, embeddings = None, embeddings.to(dtype)
    given = () if refs is None else (refs[0].to(dtype), refs[1])
    hot = () if refs is None else (given[0], one_hot(refs[1], num_classes))
    with contextlib.suppress(RuntimeError):
        theirs = value_and_gradients(build(name, **settings).to(dtype), embeddings, ids, indices, *given)
        theirs = theirs if all(part.isfinite().all() for part in (theirs[0], theirs[1][0])) else None
    ours = MultiLabelLoss(build(name, **settings).to(dtype))
    return theirs, value_and_gradients(ours, embeddings, one_hot(ids, num_classes), indices, *hot)


@pytest.mark.parametrize("name", SUPPORTED)
@pytest.mark.slow
def test_loss_differs_from_pytorch_metric_learning_only_where_the_page_states_it(name, monkeypatch):
    monkeypatch.setitem(SIZES, "num_classes", 12)
    monkeypatch.setitem(ARGUMENTS["P2SGradLoss"], "num_classes", 12)
    fails_there = False
    for case, embeddings, ids, indices, refs in CASES:
        if (refs is not None and (name not in WITH_REFS or name in REFS_HERE_ONLY)) or (
            indices is not None and name not in TAKES_TUPLES
        ):
            continue
        theirs, ours = both(name, embeddings, ids, indices, refs, num_classes=12)
        if (name, case) in NOT_A_NUMBER_HERE:
            assert theirs is None
            continue
        assert ours[0].isfinite()
        assert ours[1][0].isfinite().all()
        if theirs is None:
            fails_there = True
        elif (name, case) in PARTS or (name in ON_PAIRS and case in ONE_PAIR):
            if theirs[0] != 0 or ours[0] != 0:
                assert theirs[0].item() != pytest.approx(ours[0].item(), rel=0.05, abs=0), case
        else:
            slack = TOLERANCE_FACTORS.get(name, 1)
            torch.testing.assert_close(ours[0].squeeze(), theirs[0].squeeze(), rtol=1e-8 * slack, atol=1e-9, msg=case)
            largest = 1e-7 * slack * max(1.0, theirs[1][0].abs().max().item())
            torch.testing.assert_close(ours[1][0], theirs[1][0], rtol=0, atol=largest, msg=case)
    assert fails_there == (name in FAIL_THERE)


REDUCERS = [
    reducers.MeanReducer,
    reducers.SumReducer,
    reducers.AvgNonZeroReducer,
    lambda: reducers.ThresholdReducer(low=0.1, high=5),
    reducers.PerAnchorReducer,
    reducers.DoNothingReducer,
]


def parts_of(value):
    """Return the values in the dictionary of a DoNothingReducer, one for each pair, item or triplet."""
    if not isinstance(value, dict):
        return [value]
    return [torch.as_tensor(part["losses"], dtype=torch.float64).flatten() for part in value.values()]


@pytest.mark.parametrize("name", SUPPORTED)
def test_loss_with_one_hot_labels_and_a_reducer_equals_pytorch_metric_learning(name):
    embeddings, ids, ref_emb, ref_ids = classes(n=12, m=9)
    for make in REDUCERS:
        if make is reducers.AvgNonZeroReducer and name == "TupletMarginLoss":
            continue  # which counts here what rounds to zero there
        for refs in (False, True) if name in WITH_REFS and name not in REFS_HERE_ONLY else (False,):
            if refs and name == "LiftedStructureLoss":
                continue
            given = {"ref_emb": ref_emb, "ref_labels": ref_ids} if refs else {}
            hot = {**given, "ref_labels": one_hot(ref_ids, 4)} if refs else {}
            ours = MultiLabelLoss(build(name, reducer=make()))
            try:
                theirs = build(name, reducer=make())(embeddings, ids, **given)
            except NotImplementedError:
                with pytest.raises(NotImplementedError, match="Triplet reduction not supported"):
                    ours(embeddings, one_hot(ids, 4), **hot)
                continue
            except RuntimeError:  # a column of values, which that reducer does not take
                assert name in COLUMNS_THERE
                assert make is reducers.PerAnchorReducer
                assert ours(embeddings, one_hot(ids, 4), **hot).isfinite()
                continue
            values = parts_of(ours(embeddings, one_hot(ids, 4), **hot))
            for value, expected in zip(values, parts_of(theirs), strict=True):
                slack = TOLERANCE_FACTORS.get(name, 1)
                torch.testing.assert_close(value, expected, rtol=1e-9 * slack, atol=1e-11 * slack)


COLUMNS_THERE = ["AngularLoss", "LiftedStructureLoss", "TupletMarginLoss"]


@pytest.mark.parametrize("name", COLUMNS_THERE)
def test_loss_without_reduction_is_one_value_for_each_pair(name):
    embeddings, ids, _, _ = classes()
    loss = build(name, reducer=reducers.DoNothingReducer())
    theirs, ours = loss(embeddings, ids)["loss"], MultiLabelLoss(loss)(embeddings, one_hot(ids, 4))["loss"]
    assert theirs["losses"].shape == (len(ours["losses"]), 1)
    assert ours["losses"].shape == ours["indices"][0].shape


DISTANCES = [
    distances.LpDistance,
    lambda: distances.LpDistance(normalize_embeddings=False),
    lambda: distances.LpDistance(power=2),
    lambda: distances.LpDistance(p=1),
    distances.CosineSimilarity,
    lambda: distances.DotProductSimilarity(normalize_embeddings=False),
    distances.SNRDistance,
]


@pytest.mark.parametrize("name", SUPPORTED)
def test_loss_with_one_hot_labels_and_a_distance_equals_pytorch_metric_learning(name):
    embeddings, ids, _, _ = classes(n=12)
    embeddings, equal, beyond_bins = embeddings / 4, 0, []
    for make in DISTANCES:
        try:
            theirs = build(name, distance=make())(embeddings, ids)
        except AssertionError:  # the loss asks for another
            continue
        except RuntimeError:
            beyond_bins.append(make)
            continue
        ours, slack = (
            MultiLabelLoss(build(name, distance=make()))(embeddings, one_hot(ids, 4)),
            TOLERANCE_FACTORS.get(name, 1),
        )
        torch.testing.assert_close(ours.squeeze(), theirs.squeeze(), rtol=1e-9 * slack, atol=1e-11 * slack)
        equal += 1
    assert equal > 0
    for make in beyond_bins:
        loss = MultiLabelLoss(build(name, distance=make()))
        if name == "DynamicSoftMarginLoss":  # whose outermost bins take them
            assert loss(embeddings, one_hot(ids, 4)).isfinite()
        else:
            with pytest.raises(ValueError, match=r"in \[-1, 1\], got \d\.\d+ from \w+. Use `CosineSimilarity`"):
                loss(embeddings, one_hot(ids, 4))
    assert bool(beyond_bins) == (name in ("DynamicSoftMarginLoss", "HistogramLoss"))


THREE_TEXT, NEAR_TEXT = "rows [1, 0], [.8, .7], [.9, .2]", "references [1, 1], [0, 1], [1, .2], classes 0, 1, 1"
FAR_TEXT = "rows [1, 0], [-1, 0], [1, .01], classes 0, 0, 1"
THREE_ROWS = rows_of([1, 0], [0.8, 0.7], [0.9, 0.2])
ONE_TRIPLET = (THREE_ROWS, torch.tensor([0, 0, 1]), indices_of([0], [1], [2]), None)
OF_TRIPLET = f"one positive and one negative pair: {THREE_TEXT}, triplet (0, 1, 2)"
NEAR_REFS = (rows_of([1, 1], [0, 1], [1, 0.2]), torch.tensor([0, 1, 1]))
TWINS = (rows_of([1, 0], [1, 0], [0, 1]), torch.tensor([0, 1, 0]), None, None)
FAR = (rows_of([1, 0], [-1, 0], [1, 0.01]), torch.tensor([0, 0, 1]), None, None)


@dataclass(frozen=True)
class Difference:
    """A case in which the values differ."""

    name: str
    where: str
    theirs: float | str
    ours: float
    case: tuple
    settings: dict = field(default_factory=dict)
    dtype: torch.dtype = torch.float64


DIFFERENCES = [
    *(
        Difference(name, OF_TRIPLET, 0.0, value, ONE_TRIPLET)
        for name, value in (
            ("CircleLoss", 55.533),
            ("ContrastiveLoss", 1.4852),
            ("GeneralizedLiftedStructureLoss", 0.49507),
            ("LiftedStructureLoss", 1.1029),
            ("MultiSimilarityLoss", 0.23742),
            ("NTXentLoss", 3.2346),
            ("SupConLoss", 2.3376),
            ("TupletMarginLoss", 10.344),
        )
    ),
    Difference(
        "DynamicSoftMarginLoss", f"a difference outside the histogram: {FAR_TEXT}", "an index error", 0.99501, FAR
    ),
    Difference("HistogramLoss", "equal rows: [1, 0], [1, 0], [0, 1], classes 0, 1, 0", "an index error", 1.0, TWINS),
    Difference(
        "LiftedStructureLoss",
        f"references, whose indices it interprets as rows of the batch: {THREE_TEXT}, classes 0, 0, 1, {NEAR_TEXT}",
        1.7814,
        0.95365,
        (THREE_ROWS, torch.tensor([0, 0, 1]), None, NEAR_REFS),
    ),
    Difference(
        "NCALoss",
        f"one row and references: [1, 0], class 0, {NEAR_TEXT}",
        0.0,
        1.0889,
        (THREE_ROWS[:1], torch.tensor([0]), None, NEAR_REFS),
    ),
    Difference(
        "NCALoss", f"no positive: {THREE_TEXT}, classes 0, 1, 2", "NaN", 0.0, (THREE_ROWS, torch.arange(3), None, None)
    ),
    Difference(
        "NCALoss",
        f"a share that underflows, `softmax_scale=200`: {FAR_TEXT}",
        0.70320,
        400.34,
        FAR,
        {"softmax_scale": 200},
    ),
    Difference(
        "NTXentLoss",
        f"a share that underflows, `temperature=0.01`, float32: {FAR_TEXT}",
        44.016,
        100.345,
        FAR,
        {"temperature": 0.01},
        torch.float32,
    ),
    Difference(
        "P2SGradLoss",
        "a zero row, whose cosines are 0 here: class 0 of four",
        "NaN",
        0.25,
        (torch.zeros(1, 5, dtype=torch.float64), torch.tensor([0]), None, None),
    ),
    Difference("TupletMarginLoss", f"equal or opposite positives: {FAR_TEXT}", "NaN in the gradient", 64.112, FAR),
    Difference(
        "TupletMarginLoss",
        "`AvgNonZeroReducer`, float32: rows [1, 0], [.9, .2], [.7, .7], [0, 1], classes 0, 0, 1, 1",
        2.2296,
        1.1148,
        (rows_of([1, 0], [0.9, 0.2], [0.7, 0.7], [0, 1]), torch.tensor([0, 0, 1, 1]), None, None),
        {"reducer": reducers.AvgNonZeroReducer()},
        torch.float32,
    ),
]


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda difference: difference.name)
def test_page_states_the_values_of_pytorch_metric_learning_and_of_this_library(difference):
    theirs, ours = both(difference.name, *difference.case, dtype=difference.dtype, **difference.settings)
    assert (None if theirs is None else theirs[0].item()) == (
        None if isinstance(difference.theirs, str) else pytest.approx(difference.theirs, rel=1e-4)
    )
    assert ours[0].item() == pytest.approx(difference.ours, rel=1e-4)
    assert ours[1][0].isfinite().all()


def test_loss_of_one_triplet_is_that_worked_by_hand():
    near, far = 0.8 / math.hypot(0.8, 0.7), 0.9 / math.hypot(0.9, 0.2)  # cosines of the anchor [1, 0]
    to_positive, to_negative = math.sqrt(2 - 2 * near), math.sqrt(2 - 2 * far)
    expected = {
        "ContrastiveLoss": to_positive + 1 - to_negative,
        "LiftedStructureLoss": (1 - to_negative + to_positive) ** 2 / 2,
        "MultiSimilarityLoss": (math.log1p(math.exp(1 - 2 * near)) / 2 + math.log1p(math.exp(50 * far - 25)) / 50) / 3,
        "NTXentLoss": math.log1p(math.exp((far - near) / 0.07)),
        "SupConLoss": math.log1p(math.exp((far - near) / 0.1)),
        "TupletMarginLoss": math.log1p(math.exp(64 * (far - math.cos(math.acos(near) - math.radians(5.73))))),
    }
    embeddings, _, indices, _ = ONE_TRIPLET
    for name, value in expected.items():
        for given in (indices, (*indices[:2], indices[0], indices[2])):
            assert MultiLabelLoss(build(name))(embeddings, None, given).item() == pytest.approx(value)


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
@pytest.mark.parametrize("name", ON_RELATION)
def test_loss_on_a_relation_equals_the_loop_of_its_formula(name, refs):
    embeddings, labels, ref_emb, ref_labels = batch(m=11)
    loss = build(name, **({"anneal": 0.2} if name == "PNPLoss" else {}))
    own = refs != "others"
    if refs is None:
        given, ref_emb, ref_labels = {}, embeddings, labels
    else:
        if own:
            ref_emb, ref_labels = torch.cat([embeddings, ref_emb]), torch.cat([labels, ref_labels])
        given = {"ref_emb": ref_emb, "ref_labels": ref_labels, "ref_includes_query": own}
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


@pytest.mark.parametrize("name", [name for name in ON_LABELS if name not in ("ProxyAnchorLoss", "P2SGradLoss")])
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
    labels[:, 3] = 0  # a label that no row has is not pulled
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
def test_loss_on_pairs_or_triplets_uses_those_of_a_loop(name, refs):
    embeddings, labels, *given = batch(m=refs)
    relation = relation_by_loop(labels, given[1] if refs else labels, own=not refs)
    positive, negative, triplets = [], [], []
    for a in range(len(labels)):
        positives, negatives = related(relation, a)
        positive += [(a, p) for p in positives]
        negative += [(a, n) for n in negatives]
        triplets += [(a, p, n) for p in positives for n in negatives]
    if LOSS_ADAPTERS[EXPORTED[name]].uses == "pairs":
        indices = (*torch.tensor(positive).T, *torch.tensor(negative).T)
    else:
        indices = tuple(torch.tensor(triplets).T)
    expected = build(name)(embeddings, None, indices, given[0] if refs else None)
    ours = three_way(build(name))(embeddings, labels, None, *given)
    assert expected > 0
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("name", SUPPORTED)
def test_loss_of_label_sets_and_its_gradients_are_finite_and_not_zero(name):
    embeddings, labels = batch(seed=1, n=20)
    loss = three_way(build(name))
    value, gradients = value_and_gradients(loss, embeddings, labels)
    assert value.isfinite()
    for gradient in gradients:
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0


@pytest.mark.parametrize("name", SUPPORTED)
def test_loss_without_any_label_is_finite(name):
    embeddings, labels = batch()
    value, gradients = value_and_gradients(three_way(build(name)), embeddings, torch.zeros_like(labels))
    assert value.isfinite()
    assert gradients[0].isfinite().all()


@pytest.mark.parametrize("name", SUPPORTED)
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
    if name not in ON_LABELS or n == 0:
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


@pytest.mark.parametrize("name", sorted([*GRADED_LOSSES, *BINARY]))
def test_graded_triplets_are_supported_or_rejected_as_the_table_states(name):
    embeddings, labels = batch(n=24)
    triplets = MultiLabelSemiHardMiner(similarity=sim.Jaccard(), type_of_triplets="all")(embeddings, labels)
    loss = MultiLabelLoss(build(name))
    if name in GRADED_LOSSES:
        ours = value_and_gradients(loss, embeddings, None, triplets)
        assert ours[1][0].abs().sum() > 0
        if name != "DynamicSoftMarginLoss":  # which without labels reads no tuple
            assert_same(ours, value_and_gradients(build(name), embeddings, None, triplets), name)
    else:
        both = {(a, p) for a, p, _ in zip(*triplets, strict=True)}
        pairs = {(int(a), int(p)) for a, p in both} & {(int(a), int(n)) for a, _, n in zip(*triplets, strict=True)}
        message = (
            f"`{name}` requires that no pair .* {len(pairs)} pairs in .*{', '.join(GRADED_LOSSES)}.*MultiLabelMiner"
        )
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


def test_loss_excludes_self_pairs_if_labels_are_the_same_object_or_ref_includes_query():
    embeddings, labels = batch()
    loss = MultiLabelLoss(build("ContrastiveLoss", pos_margin=-1.0))
    plain = loss(embeddings, labels)
    copied = embeddings.clone(), labels.clone()
    assert loss(embeddings, labels, None, embeddings, labels) == plain
    assert loss(embeddings, labels, None, *copied) != plain
    assert loss(embeddings, labels, None, *copied, ref_includes_query=True) == plain


def test_loss_with_ref_includes_query_and_fewer_refs_than_rows_is_rejected():
    embeddings, labels = batch()
    with pytest.raises(
        ValueError, match="must begin with the batch if `ref_includes_query=True`, got 2 references for 16"
    ):
        MultiLabelLoss(build("ContrastiveLoss"))(
            embeddings, labels, None, embeddings[:2], labels[:2], ref_includes_query=True
        )


def test_refs_of_another_label_dtype_include_the_query_only_if_the_labels_are_equal(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    embeddings, labels = batch(n=4)
    refs = torch.cat([embeddings, embeddings])
    for dtype in (torch.int64, torch.float32):
        joined = torch.cat([labels, labels]).to(dtype)
        assert resolve_ref_includes_query(embeddings, labels, refs, joined)
        assert not resolve_ref_includes_query(embeddings, labels * 0.9, refs, joined)
        assert not resolve_ref_includes_query(embeddings + 1e-9, labels, refs.float(), joined)


@pytest.mark.parametrize("name", ["DynamicSoftMarginLoss", "HistogramLoss"])
def test_histogram_of_embeddings_that_are_not_finite_is_nan_and_is_not_kept(name):
    embeddings, ids, _, _ = classes()
    loss, labels = MultiLabelLoss(build(name)), one_hot(ids, 4)
    expected = copy.deepcopy(loss)(embeddings, labels)
    assert loss(embeddings.index_fill(0, torch.tensor([3]), math.nan), labels).isnan()
    assert loss(embeddings, labels) == expected


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


def test_parameters_and_state_are_those_of_the_loss_and_the_similarity_moves_with_it():
    wrapped = MultiLabelLoss(build("ArcFaceLoss"), similarity=Learned())
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
    other = MultiLabelLoss(build("ArcFaceLoss"))
    for parameter in other.parameters():
        torch.nn.init.ones_(parameter)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    embeddings, labels = batch()
    assert_same(value_and_gradients(other, embeddings, labels), value_and_gradients(wrapped, embeddings, labels))


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
def test_regularizers_and_reducers_of_the_wrapped_loss_are_used(name):
    embeddings, ids, _, _ = classes()
    arguments = {"embedding_regularizer": regularizers.LpRegularizer()}
    if name in ON_LABELS:
        arguments["weight_regularizer"] = regularizers.RegularFaceRegularizer()
    if name != "ProxyAnchorLoss":
        arguments["reducer"] = reducers.SumReducer()
    ours = value_and_gradients(MultiLabelLoss(build(name, **arguments)), embeddings, one_hot(ids, 4))
    assert_same(ours, value_and_gradients(build(name, **arguments), embeddings, ids))
    assert ours[0] != MultiLabelLoss(build(name))(embeddings, one_hot(ids, 4))


def test_loss_of_no_rows_with_a_regularizer_is_a_zero():
    embeddings, labels = batch()
    for name in ("ContrastiveLoss", "NCALoss", "ArcFaceLoss"):
        loss = MultiLabelLoss(build(name, embedding_regularizer=regularizers.LpRegularizer()))
        assert loss(embeddings[:0], labels[:0]) == 0


def test_angular_loss_goes_through_the_reducer_per_anchor():
    embeddings, labels = batch()
    mean = MultiLabelLoss(build("AngularLoss", reducer=reducers.PerAnchorReducer()))(embeddings, labels)
    assert mean.isfinite()
    assert mean != MultiLabelLoss(build("AngularLoss"))(embeddings, labels)


def test_nca_includes_an_anchor_whose_share_underflows():
    embeddings = torch.tensor([[0.0], [60.0], [1.0]], dtype=torch.float64)
    loss = build("NCALoss", distance=distances.LpDistance(normalize_embeddings=False, power=2))
    value = MultiLabelLoss(loss)(embeddings, torch.tensor([[1, 0], [1, 0], [0, 1]]))
    assert value.item() == pytest.approx(((3600 - 1) + math.log1p(math.exp(3600 - 3481))) / 2)
    assert loss(embeddings, torch.tensor([0, 0, 1])) < 200


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", SUPPORTED)
def test_loss_of_half_precision_is_that_of_the_same_numbers_in_float32(name, dtype):
    embeddings, labels, ref_emb, ref_labels = batch(n=30, m=9)  # of 26 rows and more cdist takes bfloat16 on the CPU
    exact = three_way(build(name).float())
    for rows in (30, 12):
        for refs in (None, ref_emb.to(dtype), ref_emb.float()) if name in WITH_REFS else (None,):
            half, loss = embeddings[:rows].to(dtype), copy.deepcopy(exact)
            given = (labels[:rows],) if refs is None else (labels[:rows], None, refs, ref_labels)
            raised = given if refs is None else (labels[:rows], None, refs.float(), ref_labels)
            value, gradients = value_and_gradients(loss, half, *given)
            expected, exact_gradients = value_and_gradients(copy.deepcopy(exact), half.float(), *raised)
            torch.testing.assert_close(value, expected, rtol=0, atol=0)
            torch.testing.assert_close(gradients[0], exact_gradients[0].to(dtype), rtol=0, atol=0)
            for parameter in loss.parameters():
                assert parameter.dtype == torch.float32


@pytest.mark.parametrize("name", SUPPORTED)
def test_loss_is_that_without_autocast(name):
    embeddings, labels = batch()
    loss = three_way(build(name).float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = copy.deepcopy(loss)(embeddings.float(), labels)
    torch.testing.assert_close(value, loss(embeddings.float(), labels), rtol=0, atol=0)


@pytest.mark.parametrize("name", [name for name in SUPPORTED if name not in ON_LABELS])
def test_loss_of_half_precision_without_pairs_is_a_zero(name):
    leaf = batch()[0][:1].bfloat16().requires_grad_()
    value = MultiLabelLoss(build(name).float())(leaf, torch.ones(1, 4))
    value.backward()
    assert value == 0
    assert leaf.grad.dtype == torch.bfloat16


def test_loss_works_in_the_distributed_wrapper_and_in_multiple_losses():
    embeddings, labels = batch()
    wrapped = three_way(build("ContrastiveLoss"))
    with pytest.warns(UserWarning, match="non-distributed"):
        assert DistributedLossWrapper(wrapped)(embeddings, labels) == wrapped(embeddings, labels)
    several = losses.MultipleLosses([wrapped, MultiLabelLoss(build("ArcFaceLoss"))])
    expected = wrapped(embeddings, labels) + several.losses[1](embeddings, labels)
    torch.testing.assert_close(several(embeddings, labels), expected)


# Errors.


@pytest.mark.parametrize("name", sorted(set(EXPORTED) - set(SUPPORTED) - {"GenericPairLoss"}))
def test_unsupported_loss_is_rejected_with_reason_and_alternative(name):
    cls, entry = EXPORTED[name], LOSS_ADAPTERS[EXPORTED[name]]
    loss = cls.__new__(cls)  # most have required arguments
    with pytest.raises(ValueError) as error:  # noqa: PT011
        MultiLabelLoss(loss)
    assert f"`{cls.__name__}` does not support multi-label data: it {entry.reason}. Use {entry.alternative}." == str(
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
def test_setting_that_requires_class_ids_is_rejected(loss, message):
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


class Doubled(losses.ContrastiveLoss):
    def forward(self, *arguments, **keywords):
        return 2 * super().forward(*arguments, **keywords)


class OwnTriplets(losses.DynamicSoftMarginLoss):
    def compute_loss(self, embeddings, labels, indices_tuple, ref_emb, ref_labels):
        loss = self.distance(embeddings, ref_emb)[indices_tuple[:2]].sum()
        return {"loss": {"losses": loss, "indices": None, "reduction_type": "already_reduced"}}


class DoubledNCA(losses.NCALoss):
    def forward(self, *arguments, **keywords):
        return 2 * super().forward(*arguments, **keywords)


class Unknown(losses.BaseMetricLossFunction):
    pass


class OwnContrast(losses.NTXentLoss):
    def _compute_loss(self, pos_pairs, neg_pairs, indices_tuple):
        return OwnPairs._compute_loss(self, pos_pairs, neg_pairs, indices_tuple)


def test_subclass_is_treated_as_its_nearest_base_class():
    embeddings, ids, _, _ = classes()
    for theirs in (OwnPairs(), OwnContrast(), Doubled(), OwnArcFace(**SIZES).double()):
        ours = MultiLabelLoss(copy.deepcopy(theirs))
        torch.testing.assert_close(ours(embeddings, one_hot(ids, 4)), theirs(embeddings, ids))
    triplets = indices_of([0, 1], [1, 2], [2, 3])
    expected = OwnTriplets()(embeddings, ids, triplets)
    torch.testing.assert_close(MultiLabelLoss(OwnTriplets())(embeddings, one_hot(ids, 4), triplets), expected)


def test_subclass_that_overrides_compute_loss_of_pairs_gets_a_single_pair_of_each_kind():
    embeddings, _, indices, _ = ONE_TRIPLET
    cosine = OwnPairs().distance(embeddings, embeddings)
    expected = cosine[0, 1] - cosine[0, 2]
    torch.testing.assert_close(MultiLabelLoss(OwnPairs())(embeddings, None, indices), expected)


def test_unsupported_subclass_is_rejected():
    with pytest.raises(ValueError, match="`OwnFormula` overrides `compute_loss` of NCALoss"):
        MultiLabelLoss(OwnFormula())
    with pytest.raises(ValueError, match="`DoubledNCA` overrides `forward` of NCALoss"):
        MultiLabelLoss(DoubledNCA())
    with pytest.raises(ValueError, match=r"`Unknown` does not support multi-label data.*`GenericPairLoss`"):
        MultiLabelLoss(Unknown())


@pytest.mark.parametrize(
    ("loss", "got"),
    [(torch.nn.TripletMarginLoss(), "TripletMarginLoss"), (losses.NCALoss, "the class NCALoss itself"), (3, "int")],
)
def test_wrapper_of_another_object_raises_a_type_error(loss, got):
    with pytest.raises(TypeError, match=f"`loss` must be an instance of a loss of .* got {got}"):
        MultiLabelLoss(loss)


def test_wrapper_rejects_bad_thresholds_and_similarities():
    with pytest.raises(ValueError, match=r"must not exceed .* got 1 and 0"):
        MultiLabelLoss(build("NCALoss"), positive_threshold=0, negative_threshold=1)
    with pytest.raises(TypeError, match="`similarity` must be callable, got int"):
        MultiLabelLoss(build("NCALoss"), similarity=3)


EMBEDDINGS, LABELS = torch.zeros(3, 5), torch.zeros(3, 4)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("NCALoss", (EMBEDDINGS, torch.zeros(3)), r"`labels` must be a 2-D .* got shape \(3,\).*one_hot"),
        ("NCALoss", (EMBEDDINGS, LABELS[:2]), r"`embeddings` must have shape \(2, D\).*got \(3, 5\)"),
        ("NCALoss", (EMBEDDINGS[0],), r"`embeddings` must have shape \(N, D\).*got \(5,\)"),
        ("NCALoss", (EMBEDDINGS, LABELS + 2), r"in \[0, 1\], got 2\.0"),
        ("ArcFaceLoss", (EMBEDDINGS, LABELS + 2), r"in \[0, 1\], got 2\.0"),
        ("NCALoss", (EMBEDDINGS,), "`labels` must be given to `NCALoss`, got None"),
        ("ContrastiveLoss", (EMBEDDINGS,), "`labels` must be given to `ContrastiveLoss`, got None"),
        ("ArcFaceLoss", (EMBEDDINGS,), "`labels` must be given to `ArcFaceLoss`, got None"),
        ("NCALoss", (EMBEDDINGS, LABELS, None, EMBEDDINGS + 1), "`ref_labels` must be given to `NCALoss`"),
        ("NCALoss", (EMBEDDINGS, LABELS, None, None, LABELS), "must be given together, got only `ref_labels`"),
        ("NCALoss", (EMBEDDINGS, LABELS, None, EMBEDDINGS[:2], LABELS[:1]), r"`ref_emb` must have shape \(1, D\)"),
        ("ArcFaceLoss", (EMBEDDINGS, LABELS[:, :3]), "must have 4 columns, one for each class .* got 3"),
        ("ArcFaceLoss", (EMBEDDINGS, LABELS + 0.25), "`labels` must be 0 or 1 for `ArcFaceLoss`.* got 0.25"),
        ("ProxyAnchorLoss", (EMBEDDINGS, LABELS + 0.25), "`labels` must be 0 or 1 for `ProxyAnchorLoss`.* got 0.25"),
        ("PNPLoss", (EMBEDDINGS, LABELS, (LABELS[0],) * 3), "does not support `indices_tuple`, got 3 tensors"),
        ("NCALoss", (EMBEDDINGS, LABELS, (LABELS[0],) * 2), r"three tensors .* or four .* got 2 of them"),
        (
            "HistogramLoss",
            (EMBEDDINGS, LABELS, None, EMBEDDINGS + 1, LABELS),
            "`HistogramLoss` does not support `ref_emb`",
        ),
        ("ArcFaceLoss", (EMBEDDINGS, LABELS, None, EMBEDDINGS + 1, LABELS), "`ArcFaceLoss` does not support `ref_emb`"),
        (
            "ThresholdConsistentMarginLoss",
            (EMBEDDINGS, LABELS, None, EMBEDDINGS + 1, LABELS),
            "does not support `ref_emb`",
        ),
    ],
)
def test_loss_names_bad_input(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        MultiLabelLoss(build(name))(*arguments)


@pytest.mark.parametrize("convert", LABEL_KINDS.values(), ids=LABEL_KINDS)
@pytest.mark.parametrize("name", ["NCALoss", "ArcFaceLoss", "ContrastiveLoss"])
def test_loss_takes_labels_of_every_kind(name, convert):
    embeddings, labels, ref_emb, ref_labels = batch(m=9)
    loss, own = MultiLabelLoss(build(name)), convert(labels)
    assert loss(embeddings, own) == loss(embeddings, labels)
    if name in WITH_REFS:
        assert loss(embeddings, own, None, embeddings, own) == loss(embeddings, labels)
        expected = loss(embeddings, labels, None, ref_emb, ref_labels)
        assert loss(embeddings, own, None, ref_emb, convert(ref_labels)) == expected


def test_loss_representation_shows_its_parameters():
    lines = str(three_way(build("ContrastiveLoss"))).splitlines()
    assert lines[:3] == [
        "MultiLabelLoss(",
        "  similarity=Jaccard(), positive_threshold=0.4, negative_threshold=0.1",
        "  (loss): ContrastiveLoss(",
    ]


def test_loss_of_label_names_or_embeddings_that_are_not_tensors_raises_a_type_error():
    with pytest.raises(TypeError, match=r"`labels` must .*MultiLabelBinarizer"):
        MultiLabelLoss(build("NCALoss"))(EMBEDDINGS, [["a"], ["a", "b"], []])
    with pytest.raises(TypeError, match=r"`embeddings` must be a torch\.Tensor, got list"):
        MultiLabelLoss(build("NCALoss"))([[0.0]], LABELS)


def test_triplet_loss_with_swap_does_not_support_refs():
    loss = MultiLabelLoss(build("TripletMarginLoss", swap=True))
    embeddings, labels, *refs = batch(m=9)
    assert loss(embeddings, labels) > 0
    with pytest.raises(ValueError, match="`TripletMarginLoss` with `swap=True` does not support `ref_emb`"):
        loss(embeddings, labels, None, *refs)


@pytest.mark.parametrize("name", SUPPORTED)
def test_loss_on_a_device_equals_the_cpu(name, device):
    embeddings, labels = batch()
    expected = value_and_gradients(three_way(build(name)), embeddings, labels)
    value, gradients = value_and_gradients(three_way(build(name)).to(device), embeddings.to(device), labels)
    assert_same((value.cpu(), [part.cpu() for part in gradients]), expected)


if __name__ == "__main__":
    PAGE.write_text(page_with_tables(PAGE.read_text()))
    sys.exit(0)
