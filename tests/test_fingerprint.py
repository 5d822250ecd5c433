"""Fingerprints of objects: different if results differ, equal in another process."""

import copy
import enum
import functools
import importlib
import json
import logging
import os
import re
import subprocess
import sys
import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import ContrastiveLoss, TripletMarginLoss
from pytorch_metric_learning.miners import TripletMarginMiner
from sklearn.linear_model import LogisticRegression
from torch import nn
from torchvision import models, transforms
from torchvision.transforms import v2

from mlmetric import losses, similarity
from mlmetric._fingerprint import describe, fingerprint
from mlmetric.data import ImageDataset
from mlmetric.estimators import MetricClassifier, MetricEmbedder
from mlmetric.heads import ClassifierHead, EmbeddingHead, FrozenBackbone
from mlmetric.miners import MultiLabelSemiHardMiner


class Unshown(nn.Module):
    """A module whose settings its repr does not show."""

    def __init__(self, scale):
        super().__init__()
        self.gain = scale  # by another name than its argument

    def forward(self, images):
        return images * self.gain


class Slotted:
    __slots__ = ("__dict__", "first")

    def __init__(self, first, second):
        self.first, self.second = first, second


class Numbers(list):
    pass


class Side(enum.Enum):
    LEFT = 1
    RIGHT = 2


OFFSET = 1.0


def shifted(images):
    return images + OFFSET


def shifted_twice(images):
    return shifted(shifted(images))


def scaled_by(scale):
    def apply(images):
        return images * scale

    return apply


def class_with(method):
    return type("Preprocessing", (), {"__call__": method})()


def hooked(hook):
    module = nn.Linear(2, 2, bias=False)
    nn.init.ones_(module.weight)
    module.register_forward_hook(hook)
    return module


def ordered(*names):
    return nn.Sequential(OrderedDict((name, nn.ReLU() if name == "a" else nn.Sigmoid()) for name in names))


def with_batch_statistics(mean):
    module = nn.BatchNorm1d(2)
    module.running_mean.fill_(mean)
    return module


def shared(one):
    layer = nn.Identity()
    return [layer, layer if one else nn.Identity()]


DIFFERENT = {
    "lambdas": (lambda x: x, lambda x: 1 - x),
    "constants": (lambda x: x + 1, lambda x: x + 2),
    "kinds of number": (lambda x: x + 1, lambda x: x + 1.0),
    "signs of zero": (0.0, -0.0),
    "zero and False": (0, False),
    "text and bytes": ("a", b"a"),
    "long texts": ("a" * 1000, "a" * 999 + "b"),
    "defaults": (lambda x, p=1: x * p, lambda x, p=2: x * p),
    "keyword defaults": (lambda x, *, p=1: x * p, lambda x, *, p=2: x * p),
    "closures": (scaled_by(1), scaled_by(2)),
    "inner functions": (lambda x: list(map(lambda v: v, x)), lambda x: list(map(lambda v: -v, x))),
    "functions that are called": (lambda x: torch.relu(x), lambda x: torch.sigmoid(x)),
    "own functions that are called": (lambda x: scaled_by(x), lambda x: shifted(x)),
    "sets within code": (lambda x: x in {1, 2}, lambda x: x in {1, 3}),
    "library functions": (nn.functional.relu, nn.functional.gelu),
    "builtin functions": (torch.relu, torch.sigmoid),
    "bound methods": (Unshown(1.0).forward, Unshown(2.0).forward),
    "builtin bound methods": (", ".join, "; ".join),
    "partials": (functools.partial(pow, 2), functools.partial(pow, 3)),
    "keywords of partials": (functools.partial(round, ndigits=1), functools.partial(round, ndigits=2)),
    "cached functions": (functools.lru_cache(scaled_by(1)), functools.lru_cache(scaled_by(2))),
    "classes": (functools.partial(ContrastiveLoss, 1), functools.partial(TripletMarginLoss, 1)),
    "methods of a class": (class_with(lambda self, x: x), class_with(lambda self, x: -x)),
    "attributes": (Unshown(1.0), Unshown(2.0)),
    "slots": (Slotted(1, 2), Slotted(2, 2)),
    "attributes beside slots": (Slotted(1, 2), Slotted(1, 3)),
    "enums": (Side.LEFT, Side.RIGHT),
    "tensors": (torch.zeros(3), torch.tensor([0.0, 1.0, 0.0])),
    "types of tensors": (torch.zeros(4, dtype=torch.int32), torch.zeros(4)),
    "shapes": (torch.zeros(2, 3), torch.zeros(3, 2)),
    "half precision": (torch.ones(2, dtype=torch.bfloat16), torch.full((2,), 1.0078125, dtype=torch.bfloat16)),
    "sparse tensors": (torch.eye(3).to_sparse(), torch.eye(3).flip(0).to_sparse()),
    "arrays": (np.zeros(3), np.array([0.0, 1.0, 0.0])),
    "numbers of numpy": (np.float32(0.25), np.float32(0.5)),
    "arrays of objects": (np.array([1, "a"], dtype=object), np.array([1, "b"], dtype=object)),
    "mappings": ({"margin": 1}, {"margin": 2}),
    "order": ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    "keys": ({Side.LEFT: 1}, {Side.RIGHT: 1}),
    "sets": ({1, 2}, {1, 3}),
    "sets of objects": ({Side.LEFT, 1}, {Side.RIGHT, 1}),
    "lists and tuples": ([1, 2], (1, 2)),
    "lists of a class": (Numbers([1, 2]), Numbers([1, 3])),
    "patterns": (re.compile("a"), re.compile("b")),
    "seeds": (torch.Generator().manual_seed(0), torch.Generator().manual_seed(1)),
    "hooks": (hooked(lambda m, i, o: o), hooked(lambda m, i, o: 2 * o)),
    "order of submodules": (ordered("a", "b"), ordered("b", "a")),
    "statistics": (with_batch_statistics(0.0), with_batch_statistics(1.0)),
    "what is shared": (shared(True), shared(False)),
    "v2.Lambda": (v2.Compose([v2.Lambda(lambda x: x)]), v2.Compose([v2.Lambda(lambda x: 1 - x)])),
    "transforms.Lambda": (transforms.Lambda(lambda x: x), transforms.Lambda(lambda x: 1 - x)),
    "v2.LinearTransformation": (
        v2.LinearTransformation(torch.eye(4), torch.zeros(4)),
        v2.LinearTransformation(2 * torch.eye(4), torch.zeros(4)),
    ),
    "v2.Resize": (v2.Resize(8, antialias=True), v2.Resize(8, antialias=False)),
    "LogRatioLoss": (
        losses.LogRatioLoss(similarity=lambda a, b: a @ b.T),
        losses.LogRatioLoss(similarity=lambda a, b: -a @ b.T),
    ),
    "estimators": (LogisticRegression(C=1.0), LogisticRegression(C=2.0)),
}


@pytest.mark.parametrize(("first", "second"), DIFFERENT.values(), ids=DIFFERENT)
def test_fingerprint_differs_where_results_can(first, second):
    assert fingerprint(it=first) != fingerprint(it=second)


@pytest.mark.parametrize("value", [pair[0] for pair in DIFFERENT.values()], ids=DIFFERENT)
def test_fingerprint_of_a_copy_is_the_same(value):
    if not isinstance(value, torch.Generator):  # whose copies are seeded anew
        assert fingerprint(it=copy.deepcopy(value)) == fingerprint(it=value)


def test_fingerprint_follows_globals_that_a_function_reaches_through_another(monkeypatch):
    before = fingerprint(it=shifted_twice)
    assert fingerprint(it=shifted_twice) == before
    monkeypatch.setitem(globals(), "OFFSET", 2.0)
    assert fingerprint(it=shifted_twice) != before


def test_fingerprint_follows_what_is_used_of_a_module_of_the_user(tmp_path, monkeypatch):
    (tmp_path / "own_steps.py").write_text("SCALE = 1\nUNUSED = 1\ndef scale(x):\n    return x * SCALE\n")
    monkeypatch.syspath_prepend(tmp_path)
    own_steps = importlib.import_module("own_steps")
    preprocess = eval("lambda x: own_steps.scale(x)", {"own_steps": own_steps})
    before = fingerprint(it=preprocess)
    own_steps.UNUSED = 2
    assert fingerprint(it=preprocess) == before
    own_steps.SCALE = 2
    assert fingerprint(it=preprocess) != before


def test_fingerprint_of_a_class_does_not_change_when_an_object_of_it_is_copied():
    class Pair:
        pass

    def make(x):
        return Pair()

    before = fingerprint(it=make)
    copy.copy(Pair())  # after which the class has the attribute `__slotnames__`
    assert fingerprint(it=make) == before


def test_fingerprint_does_not_count_docstrings_line_numbers_training_mode_or_statistics():
    def plain(x):
        return x + 3

    first = plain

    def plain(x):
        """Do the same on another line."""
        return x + 3

    assert fingerprint(it=first) == fingerprint(it=plain)
    assert fingerprint(it=nn.Dropout().train()) == fingerprint(it=nn.Dropout().eval())
    miner = TripletMarginMiner(collect_stats=True)
    before = fingerprint(it=miner)
    generator = torch.Generator().manual_seed(0)
    miner(torch.randn(8, 2, generator=generator), torch.arange(8) % 2)
    assert fingerprint(it=miner) == before


def test_fingerprint_does_not_count_draws_loggers_and_cached_values():
    class Cached:
        log = logging.getLogger("anything")

        @functools.cached_property
        def table(self):
            return torch.arange(3)

    generator, cached = torch.Generator().manual_seed(0), Cached()
    before = fingerprint(it=[generator, cached])
    torch.rand(3, generator=generator)
    assert cached.table[2] == 2
    assert fingerprint(it=[generator, cached]) == before


def test_describe_follows_cycles():
    module = Unshown(1.0)
    module.itself = [module.forward]
    lines = describe({"it": module})
    assert lines["it.itself[0].__self__"] == "the object at it"


def test_describe_gives_the_path_of_each_setting():
    loss = TripletMarginLoss(margin=0.3, distance=LpDistance(power=2))
    lines = describe({"loss": loss})
    assert lines["loss.margin"] == "0.3"
    assert lines["loss.distance.power"] == "2"
    assert re.fullmatch(
        r"pytorch_metric_learning\.\S*TripletMarginLoss \(pytorch_metric_learning [\d.]+\).*", lines["loss"]
    )


def test_describe_leaves_the_content_of_trained_tensors_out_and_says_which_are_trained():
    heads = [ClassifierHead(3, 2), ClassifierHead(3, 2)]
    described = [describe({"head": head}, state=head.state_dict(keep_vars=True).values()) for head in heads]
    assert described[0] == described[1]
    assert described[0]["head.linear.weight"].endswith("torch.float32 (2, 3) trained")
    heads[1].linear.weight.requires_grad_(False)
    again = describe({"head": heads[1]}, state=heads[1].state_dict(keep_vars=True).values())
    assert again["head.linear.weight"].endswith("not trained")


def test_fingerprint_uses_the_fingerprint_method_of_an_object():
    class Known:
        def __init__(self, name):
            self.lock, self.name = threading.Lock(), name

        def fingerprint(self):
            return self.name

    assert fingerprint(it=[Known("a")]) == fingerprint(it=[Known("a")]) != fingerprint(it=[Known("b")])


def test_fingerprint_that_an_object_gives_must_be_a_string():
    class Wrong:
        def fingerprint(self):
            return 3

    with pytest.raises(TypeError, match=r"must return a string, got int"):
        fingerprint(it=Wrong())


def test_fingerprint_of_a_compiled_module_is_that_of_the_module_inside():
    first, second = (torch.compile(Unshown(scale), backend="eager") for scale in (1.0, 2.0))
    assert (
        fingerprint(it=first) == fingerprint(it=torch.compile(Unshown(1.0), backend="eager")) != fingerprint(it=second)
    )


@pytest.mark.parametrize("make", [torch.fx.symbolic_trace, torch.jit.script])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_fingerprint_of_a_traced_module_follows_its_graph_and_weights(make):
    def network(activation, weight):
        model = nn.Sequential(nn.Linear(2, 2), activation)
        nn.init.constant_(model[0].weight, weight)
        nn.init.zeros_(model[0].bias)
        return make(model)

    prints = {
        fingerprint(it=network(nn.ReLU(), 1.0)),
        fingerprint(it=network(nn.ReLU(), 2.0)),
        fingerprint(it=network(nn.Sigmoid(), 1.0)),
    }
    assert len(prints) == 3


class Holder:
    def __init__(self, held):
        self.held = held


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (threading.Lock, "lock"),
        (lambda: (number for number in range(3)), "generator"),
        (lambda: torch.empty(2, device="meta"), "on the device meta, which has no content"),
        (lambda: sys.modules[__name__], "is a module"),
        (lambda: np.frompyfunc(lambda x: x, 1, 1), "provides no content except the name"),
    ],
    ids=["lock", "generator", "meta tensor", "module", "name only"],
)
def test_fingerprint_of_an_object_that_cannot_be_inspected_raises_with_its_path(make, named):
    with pytest.raises(TypeError, match=rf"^steps\[1\]\.held cannot be compared .*{named}.* `fingerprint\(\)`"):
        fingerprint(steps=[0, Holder(make())])


def test_fingerprint_of_an_object_nested_too_deeply_raises():
    nested = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(TypeError, match="is nested too deeply to be described"):
        fingerprint(it=nested)
    while nested:  # one level at a time: to free it at once would recurse, too
        nested = nested.pop()


def everyday_objects():
    """What users hand over, made anew."""
    return {
        "weights' transform": models.ResNet50_Weights.DEFAULT.transforms(),
        "v1": transforms.Compose([transforms.Resize(8), transforms.ToTensor(), transforms.Normalize([0.5], [0.5])]),
        "v2": v2.Compose([v2.ToImage(), v2.ToDtype({torch.Tensor: torch.float32, "others": None}), v2.Lambda(shifted)]),
        "network": Unshown(torch.arange(3.0)),
        "loss": TripletMarginLoss(distance=LpDistance(power=2)),
        "log ratio": losses.LogRatioLoss(similarity=similarity.Jaccard() + similarity.Cosine()),
        "miner": MultiLabelSemiHardMiner(
            similarity=similarity.SoftCosine(torch.eye(3)), generator=torch.Generator().manual_seed(1)
        ),
        "estimator": MetricEmbedder(head=functools.partial(EmbeddingHead, widths=(8,))),
        "paper": MetricClassifier.paper(),
        "scikit-learn": LogisticRegression(class_weight={0: 1.0, 1: 2.0}),
        "set": {"sea", "sun", "tree", ("a", 1), Side.LEFT},
        "set in code": lambda x: x in {"sea", "sun", "tree"},
        "function": shifted_twice,
    }


@pytest.mark.slow
def test_fingerprint_is_the_same_in_another_process():
    program = (
        f"import importlib, json; t = importlib.import_module({__name__!r}); "
        "print(json.dumps({name: t.fingerprint(it=value) for name, value in t.everyday_objects().items()}))"
    )
    environment = os.environ | {"PYTHONHASHSEED": "123"}
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, env=environment, capture_output=True, text=True, check=True
    )
    theirs = json.loads(done.stdout)
    assert theirs == {name: fingerprint(it=value) for name, value in everyday_objects().items()}
    assert len(set(theirs.values())) == len(theirs)


# Backbones and data sets


class PlainAttribute(nn.Module):
    def __init__(self, power):
        super().__init__()
        self.power = power

    def forward(self, images):
        return images.flatten(2).mean(2) ** self.power


def test_backbone_fingerprint_follows_a_plain_attribute_that_its_forward_reads():
    first, second = (FrozenBackbone(PlainAttribute(power)).fingerprint() for power in (1, 2))
    assert first != second
    assert FrozenBackbone(PlainAttribute(1)).fingerprint() == first


def test_backbone_fingerprint_follows_a_subclass_and_not_what_is_beside_the_feature():
    class Doubled(FrozenBackbone):
        def forward(self, images):
            return 2 * super().forward(images)

    plain = FrozenBackbone(PlainAttribute(1)).fingerprint()
    assert Doubled(PlainAttribute(1)).fingerprint() != plain
    assert FrozenBackbone(PlainAttribute(1), transform=v2.Identity()).fingerprint() == plain


def identity_of(folder, make=ImageDataset, **settings):
    return make(folder, ["a.png"], **settings).identity(0)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.png").write_bytes(b"only its size and time count here")
    return tmp_path


def test_dataset_identity_differs_between_lambdas(folder):
    first, second = (
        identity_of(folder, transform=v2.Compose([v2.ToImage(), v2.Lambda(step)]))
        for step in (lambda image: image, lambda image: 1 - image)
    )
    assert first != second


def test_dataset_identity_notices_a_transform_that_changes(folder):
    transform = Unshown(1.0)
    dataset = ImageDataset(folder, ["a.png"], transform=transform)
    first = dataset.identity(0)
    assert dataset.identity(0) == first
    transform.gain = 2.0
    second = dataset.identity(0)
    assert second != first
    dataset.transform = None
    assert dataset.identity(0) not in (first, second)


def test_dataset_identity_follows_a_subclass_that_reads_images_in_another_way(folder):
    class Flipped(ImageDataset):
        flips = True

        def __getitem__(self, index):
            image, labels = super().__getitem__(index)
            return image.flip(0), labels

    assert identity_of(folder, Flipped) != identity_of(folder)


def test_dataset_identity_raises_for_a_transform_that_cannot_be_inspected(folder):
    with pytest.raises(TypeError, match=r"^transform\.held cannot be compared .*lock.*`fingerprint\(\)`"):
        identity_of(folder, transform=Holder(threading.Lock()))


def test_fingerprint_of_one_object_on_two_devices_is_the_same():
    class OnDevice:
        def __init__(self, device):
            self.device = torch.device(device)

    assert fingerprint(loss=OnDevice("cuda:1")) == fingerprint(loss=OnDevice("cpu"))
