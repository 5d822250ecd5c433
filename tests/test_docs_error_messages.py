"""The page of error messages: each heading is a message that the library raises."""

import re
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_metric_learning.losses import MultiSimilarityLoss, NPairsLoss, TripletMarginLoss
from torch import nn

from mlmetric.data import BadImagesError, ImageDataset, extract_features
from mlmetric.estimators import MetricClassifier
from mlmetric.heads import ClassifierHead, EmbeddingHead, FrozenBackbone, WeightsUnavailableError
from mlmetric.losses import MultiLabelLoss, MultiLabelProxyAnchorLoss, MultiLabelSupConLoss
from mlmetric.miners import MultiLabelSemiHardMiner
from mlmetric.models import MultiLabelModel
from mlmetric.samplers import MultiLabelBatchSampler
from mlmetric.similarity import Jaccard
from mlmetric.under_sampling import LabelCapUnderSampler

PAGE = Path(__file__).parents[1] / "docs" / "pages" / "guide" / "error_messages.md"
HEADINGS = re.findall(r"^### (.*)$", PAGE.read_text(), re.MULTILINE)
OF_TORCHVISION = "operator torchvision::nms does not exist"  # when it is imported with another build of torch

EMBEDDINGS = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 0]])
X, Y = np.random.default_rng(0).normal(size=(40, 6)), np.eye(3, dtype=int)[np.arange(40) % 3]
classifier = partial(MetricClassifier, n_members=1, max_epochs=1, random_state=0)


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 4)

    def forward(self, features):
        return self.linear(features)


def with_nan(array):
    array = array.astype(float)
    array[0, 0] = np.nan
    return array


def frames():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=list("abcdef"))
    classifier().fit(frame, Y).predict(frame[list("fedcba")])


def with_two_learning_rates(folder):
    for lr in (0.003, 0.01):
        classifier(lr=lr).fit(X, Y, checkpoint_dir=folder)


def download(monkeypatch):
    def get_model(*arguments, **settings):
        raise OSError("no network")

    monkeypatch.setattr("torchvision.models.get_model", get_model)
    FrozenBackbone("resnet18")


def extract(folder):
    backbone = FrozenBackbone("squeezenet1_0", weights=None)
    dataset = ImageDataset(folder, ["gone.jpg"], transform=backbone.transform)
    extract_features(backbone, dataset, folder / "features", num_workers=0)


def load_own_module(folder):
    MultiLabelModel(Head(), ClassifierHead(6, 3)).save_pretrained(folder)
    MultiLabelModel.from_pretrained(folder)


def export_without_onnx(monkeypatch, folder):
    monkeypatch.setitem(sys.modules, "onnx", None)
    MultiLabelModel(Head(), ClassifierHead(6, 3)).export_onnx(folder / "model.onnx")


def export_without_transform(folder):
    backbone = FrozenBackbone(nn.Sequential(nn.Flatten(), nn.Linear(12, 6)))
    MultiLabelModel(Head(), ClassifierHead(6, 3), backbone=backbone).export_onnx(folder / "model.onnx")


def graded():
    return MultiLabelSemiHardMiner(similarity=Jaccard())(EMBEDDINGS, LABELS)


def causes(monkeypatch, folder):
    """For each heading, in the order of the page, a type of error and a call that raises it."""
    loss, miner = MultiLabelSupConLoss(), MultiLabelSemiHardMiner()
    yield ValueError, lambda: loss(EMBEDDINGS, torch.arange(8))
    yield ValueError, lambda: loss(EMBEDDINGS, 2 * LABELS - 1)
    yield ValueError, lambda: loss(EMBEDDINGS, 3 * LABELS)
    yield TypeError, lambda: loss(EMBEDDINGS, [["sea", "sun"]] * 8)
    yield ValueError, lambda: LabelCapUnderSampler().fit_resample(X, with_nan(Y))
    yield ValueError, lambda: TripletMarginLoss()(EMBEDDINGS, LABELS, graded())
    yield ValueError, lambda: MultiLabelLoss(NPairsLoss())
    yield ValueError, lambda: MultiLabelLoss(MultiSimilarityLoss())(EMBEDDINGS, LABELS, graded())
    yield ValueError, lambda: miner(EMBEDDINGS * torch.nan, LABELS)
    yield UserWarning, lambda: MultiLabelBatchSampler(torch.eye(8), 4)
    yield ValueError, lambda: classifier().fit(with_nan(X), Y)
    yield ValueError, lambda: classifier().fit(X, Y).predict(X[:, :3])
    yield ValueError, frames
    yield ValueError, lambda: classifier(loss=MultiLabelProxyAnchorLoss(3, 256)).fit(X, Y)
    yield TypeError, lambda: classifier(head=EmbeddingHead(6)).fit(X, Y)
    yield ValueError, lambda: with_two_learning_rates(folder / "checkpoints")
    yield FloatingPointError, lambda: classifier(lr=1e30, standardize=False).fit(X, Y)
    yield ImportError, None
    yield ValueError, lambda: FrozenBackbone("dinov2")
    yield WeightsUnavailableError, lambda: download(monkeypatch)
    yield BadImagesError, lambda: extract(folder)
    yield ValueError, lambda: MultiLabelModel(Head(), ClassifierHead(6, 3)).predict("photo.jpg")
    yield FileNotFoundError, lambda: MultiLabelModel.from_pretrained(folder)
    yield ValueError, lambda: load_own_module(folder)
    yield ValueError, lambda: export_without_transform(folder)
    yield ImportError, lambda: export_without_onnx(monkeypatch, folder)


def matches(heading, message):
    """Whether a message contains a heading, in which … stands for any text."""
    pattern = ".*?".join(re.escape(part.strip()) for part in heading.split("…"))
    return re.search(pattern, " ".join(message.split())) is not None


def test_headings_are_matched_with_any_text_in_place_of_an_ellipsis():
    assert matches("`x` must be 0, got …", "The error: `x` must be 0, got 7.")
    assert not matches("`x` must be 0, got … of", "`x` must be 0, got 7.")


@pytest.mark.parametrize("number", range(len(HEADINGS)), ids=[heading[:40] for heading in HEADINGS])
@pytest.mark.filterwarnings("ignore:Training diverges")
def test_heading_is_a_message_of_the_library(number, monkeypatch, tmp_path):
    listed = list(causes(monkeypatch, tmp_path))
    assert len(listed) == len(HEADINGS)
    error, cause = listed[number]
    if cause is None:
        assert HEADINGS[number] == OF_TORCHVISION
        return
    with pytest.raises(error) as raised:
        cause()
    assert matches(HEADINGS[number], str(raised.value)), str(raised.value)
