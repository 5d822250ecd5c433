"""What has no device test beside its other tests: rows and labels on a device give the results of the CPU.

Losses, miners, metrics, neighbours and estimators are tested on devices in their own files, by the fixture `device`.
"""

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_metric_learning import losses
from torch import nn

from mlmetric import (
    imbalance,
    label_vectors,
    labels,
    metrics,
    over_sampling,
    samplers,
    similarity,
    training,
    under_sampling,
)
from mlmetric.data import ImageDataset, extract_features, stratified_split
from mlmetric.heads import (
    ClassifierHead,
    EmbeddingEnsemble,
    EmbeddingHead,
    LabelGraphHead,
    SemanticProjectionHead,
    Standardize,
)
from mlmetric.losses import MultiLabelCrossBatchMemory, MultiLabelLoss, MultiLabelSupConLoss
from mlmetric.miners import MultiLabelSemiHardMiner
from mlmetric.relations import LabelRelation

CPU = torch.device("cpu")


def make_rows(num_rows=40, num_labels=4, size=6):
    generator = torch.Generator().manual_seed(3)
    hot = (torch.rand(num_rows, num_labels, generator=generator) < 0.4).long()
    hot[hot.sum(dim=1) == 0, 0] = 1
    directions = torch.randn(num_labels, size, generator=generator)
    return hot.float() @ directions + 0.5 * torch.randn(num_rows, size, generator=generator), hot


ROWS, LABELS = make_rows()


def seeded(make, *arguments, **settings):
    """Make a module on the CPU with the same weights each time."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return make(*arguments, **settings)


def assert_on_device(found, expected, device):
    assert found.device == device
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-5)


SIMILARITIES = {
    "jaccard": similarity.jaccard,
    "weighted": similarity.Jaccard(weights=torch.tensor([1.0, 2.0, 3.0, 4.0])),
    "semantic": similarity.SoftCosine.from_cooccurrence(LABELS),
    "composed": (0.5 * similarity.Dice() + 0.5 * similarity.SoftCosine.from_cooccurrence(LABELS)).clamp(min=0.1),
}


@pytest.mark.parametrize("name", SIMILARITIES)
@pytest.mark.parametrize("refs", [CPU, None], ids=["refs on the CPU", "refs on the device"])
def test_similarity_of_labels_on_a_device(name, refs, device):
    compared = similarity.compare_labels(SIMILARITIES[name], LABELS.to(device), LABELS[:5].to(device))
    assert_on_device(compared, similarity.compare_labels(SIMILARITIES[name], LABELS, LABELS[:5]), device)
    relation = LabelRelation(similarity=SIMILARITIES[name], positive_threshold=0.5, negative_threshold=0.2)
    found = relation(LABELS.to(device), LABELS[:5].to(device))
    assert_on_device(found, relation(LABELS, LABELS[:5]), device)


@pytest.mark.parametrize("name", [*SIMILARITIES, "hamming"])
@pytest.mark.parametrize("max_exact_labels", [1, 12])
def test_shares_of_labels_in_a_similarity_on_a_device(name, max_exact_labels, device):
    compared = SIMILARITIES.get(name, similarity.hamming)
    options = {"max_exact_labels": max_exact_labels, "num_permutations": 10}
    expected = similarity.explain_similarity(compared, LABELS, LABELS.flip(0), **options)
    for ref_labels in (LABELS.flip(0), LABELS.flip(0).to(device)):
        found = similarity.explain_similarity(compared, LABELS.to(device), ref_labels, **options)
        for each, its_expected in zip(found, expected, strict=True):
            assert_on_device(each, its_expected, device)


def test_memory_of_a_loss_follows_the_embeddings(device):
    values = []
    for place in (CPU, device):
        loss = MultiLabelCrossBatchMemory(MultiLabelLoss(losses.ContrastiveLoss()), 6, 4, memory_size=32)
        miner = MultiLabelSemiHardMiner(similarity=similarity.Jaccard())
        batches = zip(ROWS.split(10), LABELS.split(10), strict=True)
        values.append([loss(part.to(place), hot, miner(part.to(place), hot)).item() for part, hot in batches])
        assert loss.embedding_memory.device == place
    assert values[1] == pytest.approx(values[0], rel=1e-4)


HEADS = {
    "embedding": lambda: EmbeddingHead(6, (8, 4)),
    "ensemble": lambda: EmbeddingEnsemble([EmbeddingHead(6, (8, 4)), EmbeddingHead(6, (8, 4))]),
    "standardised": lambda: nn.Sequential(Standardize(6).fit(ROWS), EmbeddingHead(6, (8, 4))),
    "classifier": lambda: ClassifierHead(6, 4).init_from_labels(LABELS),
    "label graph": lambda: LabelGraphHead.from_labels(6, LABELS),
    "semantic": lambda: SemanticProjectionHead(6, label_vectors.cooccurrence_vectors(LABELS)),
}


@pytest.mark.parametrize("name", HEADS)
def test_head_on_a_device(name, device):
    head, expected = seeded(HEADS[name]).to(device).eval(), seeded(HEADS[name]).eval()
    assert_on_device(head(ROWS.to(device)), expected(ROWS), device)
    if hasattr(head, "loss"):
        outputs = head(ROWS.to(device))
        assert_on_device(head.loss(outputs, LABELS.to(device)), expected.loss(expected(ROWS), LABELS), device)
        assert_on_device(head.probabilities(outputs), expected.probabilities(expected(ROWS)), device)


def test_head_is_fitted_to_rows_and_labels_on_a_device(device):
    head = Standardize(6).to(device).fit(ROWS.to(device))
    assert_on_device(head(ROWS.to(device)), Standardize(6).fit(ROWS)(ROWS), device)
    head = ClassifierHead(6, 4).to(device).init_from_labels(LABELS.to(device))
    expected = ClassifierHead(6, 4).init_from_labels(LABELS)
    torch.testing.assert_close(head.state_dict()["linear.bias"].cpu(), expected.state_dict()["linear.bias"])


@pytest.mark.parametrize("rows_on", ["the CPU", "the device"])
def test_head_on_a_device_is_trained_on_rows_of_either(rows_on, device, tmp_path):
    config, results = training.TrainingConfig(max_epochs=3, batch_size=16, lr=0.01, seed=1), []
    for place in (CPU, device):
        head, classifier = (seeded(HEADS[name]).to(place) for name in ("embedding", "classifier"))
        rows = [part.to(CPU if rows_on == "the CPU" else place) for part in (ROWS, LABELS)]
        settings = {"config": config, "validation": rows, "checkpoint": tmp_path / f"{place.type}.pt"}
        loss = {"loss": MultiLabelSupConLoss(), "classifier": seeded(ClassifierHead, 4, 4).to(place)}
        history = training.fit_embedding(head, *rows, **loss, **settings)
        again = seeded(HEADS["embedding"]).to(place)
        loss = {"loss": MultiLabelSupConLoss(), "classifier": seeded(ClassifierHead, 4, 4).to(place)}
        assert training.fit_embedding(again, *rows, **loss, **settings) == history
        assert {value.device for value in again.state_dict().values()} == {place}
        history += training.fit_classifier(
            classifier, *rows, **settings | {"checkpoint": tmp_path / f"{place.type}_classifier.pt"}
        )
        embeddings = training.apply_in_batches(again, rows[0], batch_size=16)
        assert embeddings.device == place
        results.append([history[-1]["loss"], history[0]["loss"], history[0]["val_map"]])
    assert results[1] == pytest.approx(results[0], rel=0.01)


RESAMPLERS = [
    over_sampling.MLSMOTE(random_state=0),
    over_sampling.MLSOL(random_state=0),
    under_sampling.LabelCapUnderSampler(random_state=0),
    under_sampling.LPRUS(random_state=0),
    under_sampling.MLRUS(random_state=0),
    under_sampling.MLUL(random_state=0),
    under_sampling.MLeNN(),
    under_sampling.MultiLabelTomekLinks(),
    under_sampling.RandomLabelUnderSampler(random_state=0),
]


@pytest.mark.filterwarnings(r"ignore:\w+ (removed|raised|left|added) :UserWarning")
@pytest.mark.parametrize("sampler", RESAMPLERS, ids=lambda sampler: type(sampler).__name__)
def test_rows_on_a_device_are_resampled_there(sampler, device):
    found = sampler.fit_resample(ROWS.to(device), LABELS.to(device))
    for part, expected in zip(found, sampler.fit_resample(ROWS, LABELS), strict=True):
        assert part.device == device
        assert torch.equal(part.cpu(), expected)


def test_labels_on_a_device_are_read(device, generator):
    hot = LABELS.to(device)
    assert labels.check_labels(hot) is hot
    assert_on_device(labels.label_counts(hot), labels.label_counts(LABELS), device)
    assert_on_device(labels.cooccurrence(hot), labels.cooccurrence(LABELS), device)
    vectors = label_vectors.cooccurrence_vectors(hot)
    assert vectors.device == device
    assert vectors.shape == label_vectors.cooccurrence_vectors(LABELS).shape
    assert str(imbalance.imbalance_report(hot)) == str(imbalance.imbalance_report(LABELS))
    batches = [index for batch in samplers.MultiLabelBatchSampler(hot, 10) for index in batch]
    assert set(batches) <= set(range(len(hot)))
    parts = stratified_split(hot, (0.5, 0.5), generator=generator)
    assert sorted(int(index) for part in parts for index in part) == list(range(len(hot)))


def test_retrieval_table_of_rows_on_a_device(device):
    values = []
    for place in (CPU, device):
        table = metrics.RetrievalMetrics()
        for part in zip(ROWS.split(10), LABELS.split(10), strict=True):
            table.update(*(rows.to(place) for rows in part))
        values.append(table.compute())
        assert {value.device for value in values[-1].values()} == {place}
    assert {name: value.item() for name, value in values[1].items()} == pytest.approx(
        {name: value.item() for name, value in values[0].items()}, nan_ok=True
    )


class MeanColour(nn.Module):
    """A backbone whose features are the mean of each channel, times a weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, images):
        return images.mean(dim=(2, 3)) * self.weight

    def fingerprint(self):
        return "mean colour"


def test_features_are_extracted_by_a_backbone_on_a_device(device, tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for number, path in enumerate(paths):
        Image.new("RGB", (4, 4), (10 * number, 0, 255)).save(path)
    images = ImageDataset(tmp_path, [path.name for path in paths], transform=to_tensor)
    found = [
        extract_features(MeanColour().to(place), images, tmp_path / place.type, num_workers=0).features
        for place in (CPU, device)
    ]
    assert (found[0] == found[1]).all()


def to_tensor(image):
    return torch.tensor(np.asarray(image), dtype=torch.float32).permute(2, 0, 1)
