"""The two stages: learning, reproducibility, resuming from checkpoints, and errors."""

import contextlib
import dataclasses
import functools
import math
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import TripletMarginLoss
from scipy import sparse

from helpers import Killed
from mlmetric import similarity
from mlmetric.heads import ClassifierHead, EmbeddingHead
from mlmetric.losses import LogRatioLoss, SimilarityRegressionLoss
from mlmetric.metrics import mean_average_precision, ndcg_at_k
from mlmetric.miners import MultiLabelSemiHardMiner
from mlmetric.training import TrainingConfig, _stages, apply_in_batches, fit_classifier, fit_embedding
from mlmetric.training._checkpoint import read_checkpoint, write_checkpoint

CONFIG = TrainingConfig(max_epochs=3, batch_size=32, lr=0.01, seed=1)


@pytest.fixture
def rows():
    """Features and labels; each label adds a direction to the noise of the features."""
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(200, 4, generator=generator) < 0.35).long()
    directions = torch.randn(4, 12, generator=generator)
    features = labels.float() @ directions + 0.7 * torch.randn(200, 12, generator=generator)
    return features, labels


def make_head(dropout=0.0):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return EmbeddingHead(12, (16, 4), dropout=dropout)


def make_classifier():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ClassifierHead(12, 4)


def embed(rows, head=None, config=CONFIG, **options):
    head = make_head() if head is None else head
    miner = MultiLabelSemiHardMiner(max_triplets_per_anchor=2, positive_order="random")
    features, labels = rows
    history = fit_embedding(head, features, labels, loss=TripletMarginLoss(), miner=miner, config=config, **options)
    return head, history


def same_state(first, second):
    ours, theirs = first.state_dict(), second.state_dict()
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.slow
def test_fit_embedding_improves_retrieval(rows):
    features, labels = rows
    head = make_head()
    before = ndcg_at_k(
        apply_in_batches(head, features[150:]), labels[150:], apply_in_batches(head, features[:150]), labels[:150]
    )
    train = (features[:150], labels[:150])
    _, history = embed(
        train, head, dataclasses.replace(CONFIG, max_epochs=15), validation=(features[150:], labels[150:])
    )
    assert history[-1]["val_ndcg_at_10"] > before + 0.03
    assert [record["epoch"] for record in history] == list(range(1, 16))
    assert all(record["triplets"] > 0 for record in history)


def test_fit_embedding_reports_the_validation_score_of_the_trained_head(rows):
    features, labels = rows
    head, history = embed(rows, validation=(features[:40], labels[:40]))
    expected = ndcg_at_k(apply_in_batches(head, features[:40]), labels[:40], apply_in_batches(head, features), labels)
    assert history[-1]["val_ndcg_at_10"] == pytest.approx(float(expected))


def test_validation_of_large_sets_uses_evenly_spaced_rows(rows, monkeypatch):
    features, labels = rows
    monkeypatch.setattr(_stages, "_MAX_QUERIES", 20)
    monkeypatch.setattr(_stages, "_MAX_DATABASE", 59)
    head, config = make_head(), TrainingConfig(max_epochs=1, keep_best=False, seed=0)
    validation = (features[150:], labels[150:])
    record = fit_embedding(
        head, features[:150], labels[:150], loss=LogRatioLoss(), config=config, validation=validation
    )[-1]
    embedded = apply_in_batches(head, features)
    queries, database = slice(150, None, 3), slice(0, 150, 3)
    expected = ndcg_at_k(embedded[queries], labels[queries], embedded[database], labels[database])
    assert record["val_ndcg_at_10"] == pytest.approx(float(expected))


def test_fit_embedding_without_a_miner_calls_the_loss_with_labels(rows):
    seen = []

    def loss(embeddings, labels):
        seen.append((embeddings.shape, labels.shape))
        return embeddings.square().mean()

    history = fit_embedding(make_head(), *rows, loss=loss, config=dataclasses.replace(CONFIG, max_epochs=1))
    assert seen[0] == ((32, 4), (32, 4))
    assert "triplets" not in history[0]


def test_fit_classifier_learns_and_reports_validation_scores(rows):
    features, labels = rows
    head = make_classifier()
    validation = (features[150:], labels[150:])
    history = fit_classifier(
        head, features[:150], labels[:150], config=dataclasses.replace(CONFIG, max_epochs=20), validation=validation
    )
    logits = apply_in_batches(head, validation[0])
    scores = head.probabilities(logits)
    assert history[-1]["val_map"] == pytest.approx(float(mean_average_precision(scores, validation[1])))
    assert history[-1]["val_map"] > 0.85
    assert history[-1]["val_loss"] == pytest.approx(float(head.loss(logits, validation[1])))
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    assert 0.7 < history[-1]["val_macro_f1"] <= 1


def test_fit_first_loss_is_the_mean_over_rows_of_the_untrained_head(rows):
    features, labels = rows
    head = make_classifier()
    expected = head.loss(head(features), labels).item()
    one_batch = TrainingConfig(max_epochs=1, batch_size=200, lr=0.01, seed=0)
    assert fit_classifier(head, features, labels, config=one_batch)[0]["loss"] == pytest.approx(expected, rel=1e-5)


def test_fit_visits_each_row_once_an_epoch_in_a_new_order(rows):
    _, labels = rows
    numbered = torch.arange(200.0)[:, None].expand(-1, 12)
    seen = []

    class Recorder(torch.nn.Linear):
        def forward(self, inputs):
            seen.extend(inputs[:, 0].int().tolist())
            return super().forward(inputs)

    config = dataclasses.replace(CONFIG, max_epochs=2, lr=1e-6)
    fit_embedding(Recorder(12, 4), numbered, labels, loss=lambda embeddings, _: embeddings.mean(), config=config)
    first, second = seen[:200], seen[200:]
    assert sorted(first) == sorted(second) == list(range(200))
    assert first != second


def test_fit_divides_the_learning_rate_after_lr_drops(rows):
    config = TrainingConfig(max_epochs=4, lr=0.1, lr_drops=(1, 3), seed=0)
    history = fit_classifier(make_classifier(), *rows, config=config)
    assert [record["lr"] for record in history] == pytest.approx([0.1, 0.01, 0.01, 0.001])


def test_fit_is_reproducible_and_restores_the_global_generator(rows):
    state = torch.get_rng_state()
    first, first_history = embed(rows, make_head(dropout=0.5))
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(10)
    second, second_history = embed(rows, make_head(dropout=0.5))
    assert same_state(first, second)
    assert first_history == second_history
    other, _ = embed(rows, make_head(dropout=0.5), dataclasses.replace(CONFIG, seed=2))
    assert not same_state(first, other)


def test_fit_without_a_seed_draws_one_from_the_global_generator(rows):
    config = dataclasses.replace(CONFIG, seed=None, max_epochs=1)

    def fit(global_seed):
        with torch.random.fork_rng():
            torch.manual_seed(global_seed)
            return [embed(rows, make_head(dropout=0.5), config)[0] for _ in range(2)]

    first, second = fit(0)
    assert not same_state(first, second)
    assert all(same_state(*heads) for heads in zip(fit(0), (first, second), strict=True))
    assert not same_state(fit(1)[0], first)


def test_fit_without_a_seed_resumes_with_the_seed_of_its_checkpoint(rows, tmp_path):
    config, path = dataclasses.replace(CONFIG, seed=None), tmp_path / "stage.pt"

    def kill(record):
        if record["epoch"] == 2:
            raise Killed

    with torch.random.fork_rng():
        torch.manual_seed(0)
        straight, expected = embed(rows, make_head(dropout=0.5), config)
        torch.manual_seed(0)
        with pytest.raises(Killed):
            embed(rows, make_head(dropout=0.5), config, checkpoint=path, callback=kill)
        torch.manual_seed(1)
        resumed, history = embed(rows, make_head(dropout=0.5), config, checkpoint=path)
    assert history == expected
    assert same_state(resumed, straight)
    with pytest.raises(ValueError, match=r"seed was None and is 3"):
        embed(rows, make_head(dropout=0.5), dataclasses.replace(CONFIG, seed=3), checkpoint=path)


@pytest.mark.parametrize("kind", [np.asarray, torch.Tensor.tolist, sparse.csr_matrix, pd.DataFrame])
def test_all_kinds_of_labels_give_the_same_fit(rows, kind):
    features, labels = rows
    head, history = embed(rows, validation=(features[:40], labels[:40]))
    other, other_history = embed((features, kind(labels)), validation=(features[:40], kind(labels[:40])))
    assert other_history == history
    assert same_state(other, head)
    classifier, other_classifier = make_classifier(), make_classifier()
    validation = (features[:40], kind(labels[:40]))
    assert fit_classifier(other_classifier, features, kind(labels), config=CONFIG, validation=validation) == (
        fit_classifier(classifier, *rows, config=CONFIG, validation=(features[:40], labels[:40]))
    )
    assert same_state(other_classifier, classifier)


@pytest.mark.parametrize("stage", ["embedding", "classifier"])
def test_fit_resumed_from_a_checkpoint_equals_an_uninterrupted_one(rows, stage, tmp_path):
    config = dataclasses.replace(CONFIG, max_epochs=5, lr_drops=(3,))

    def fit(head, **options):
        if stage == "embedding":
            return embed(rows, head, config, **options)[1]
        return fit_classifier(head, *rows, config=config, **options)

    def make():
        return make_head(dropout=0.5) if stage == "embedding" else make_classifier()

    straight = make()
    expected = fit(straight)

    def kill(record):
        if record["epoch"] == 2:
            raise Killed

    path = tmp_path / "stage.pt"
    with pytest.raises(Killed):
        fit(make(), checkpoint=path, callback=kill)
    resumed, reported = make(), []
    assert fit(resumed, checkpoint=path, callback=reported.append) == expected
    assert reported == expected
    assert same_state(resumed, straight)
    finished = make()
    assert fit(finished, checkpoint=path) == expected
    assert same_state(finished, straight)


def test_checkpoint_has_the_state_dict_of_the_module(rows, tmp_path):
    head, _ = embed(rows, checkpoint=tmp_path / "embedding.pt")
    other = EmbeddingHead(12, (16, 4))
    other.load_state_dict(torch.load(tmp_path / "embedding.pt", weights_only=True)["module"])
    assert same_state(head, other)


def test_checkpoint_of_other_settings_or_data_is_an_error(rows, tmp_path):
    path = tmp_path / "classifier.pt"
    features, labels = rows
    fit_classifier(make_classifier(), features, labels, config=CONFIG, checkpoint=path)
    for changed, name in (
        (
            (make_classifier(), features, labels, dataclasses.replace(CONFIG, lr=0.1)),
            r"lr was 0\.01 and is 0\.1\. Remove",
        ),
        ((make_classifier(), features * 2, labels, CONFIG), "inputs has other values"),
        ((make_classifier(), features, 1 - labels, CONFIG), "labels has other values"),
        ((ClassifierHead(12, 4, activation="softmax"), features, labels, CONFIG), r"module\.activation was"),
    ):
        head, inputs, targets, config = changed
        with pytest.raises(ValueError, match=f"other settings or data: {name}"):
            fit_classifier(head, inputs, targets, config=config, checkpoint=path)


def test_checkpoint_of_another_loss_or_miner_is_an_error(rows, tmp_path):
    embed(rows, checkpoint=tmp_path / "embedding.pt")
    with pytest.raises(ValueError, match=r"loss\.margin was 0\.05 and is 0\.3"):
        fit_embedding(
            make_head(),
            *rows,
            loss=TripletMarginLoss(margin=0.3),
            miner=MultiLabelSemiHardMiner(max_triplets_per_anchor=2, positive_order="random"),
            config=CONFIG,
            checkpoint=tmp_path / "embedding.pt",
        )


@pytest.mark.parametrize(
    "other",
    [
        MultiLabelSemiHardMiner(similarity=similarity.Hamming(), positive_threshold=0.1),
        MultiLabelSemiHardMiner(
            similarity=similarity.Jaccard(torch.tensor([1.0, 2.0, 1.0, 1.0])), positive_threshold=0.1
        ),
        MultiLabelSemiHardMiner(similarity=similarity.jaccard, positive_threshold=0.1),
        MultiLabelSemiHardMiner(
            similarity=similarity.Jaccard(), positive_threshold=0.1, distance=LpDistance(normalize_embeddings=False)
        ),
    ],
)
def test_checkpoint_of_another_similarity_or_distance_is_an_error(rows, tmp_path, other):
    first = MultiLabelSemiHardMiner(similarity=similarity.Jaccard(), positive_threshold=0.1)
    options = {"loss": TripletMarginLoss(), "config": CONFIG, "checkpoint": tmp_path / "embedding.pt"}
    history = fit_embedding(make_head(), *rows, miner=first, **options)
    with pytest.raises(ValueError, match=r"other settings or data: miner\."):
        fit_embedding(make_head(), *rows, miner=other, **options)
    assert fit_embedding(make_head(), *rows, miner=first, **options) == history


def test_fit_embedding_trains_and_restores_the_parameters_of_a_loss(rows, tmp_path):
    class Proxies(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.proxies = torch.nn.Parameter(torch.ones(4, 4))

        def forward(self, embeddings, labels):
            return (labels.float() @ self.proxies - embeddings).square().mean()

    loss, path = Proxies(), tmp_path / "embedding.pt"
    fit_embedding(make_head(), *rows, loss=loss, config=CONFIG, checkpoint=path)
    assert not torch.equal(loss.proxies, torch.ones(4, 4))
    restored = Proxies()
    fit_embedding(make_head(), *rows, loss=restored, config=CONFIG, checkpoint=path)
    assert torch.equal(restored.proxies, loss.proxies)


def test_truncated_or_foreign_checkpoint_is_an_error(rows, tmp_path):
    path = tmp_path / "truncated.pt"
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(OSError, match=r"truncated\.pt is damaged, .*Remove it to train from scratch"):
        fit_classifier(make_classifier(), *rows, config=CONFIG, checkpoint=path)
    torch.save(make_classifier().state_dict(), path)
    with pytest.raises(OSError, match=r"truncated\.pt is damaged, or was not written by this version"):
        fit_classifier(make_classifier(), *rows, config=CONFIG, checkpoint=path)


def test_checkpoint_that_cannot_be_written_keeps_the_previous_one(rows, tmp_path, monkeypatch):
    path = tmp_path / "new folder" / "stage.pt"
    written = []

    def full_after_two(_):
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        written.append(path)

    monkeypatch.setattr("mlmetric._atomic_write.os.fsync", full_after_two)
    with pytest.raises(OSError, match=r"stage\.pt could not be written: No space left on device.*Free some space"):
        fit_classifier(make_classifier(), *rows, config=CONFIG, checkpoint=path)
    assert [file.name for file in path.parent.iterdir()] == ["stage.pt"]
    assert len(torch.load(path, weights_only=True)["history"]) == 2


def test_loss_that_is_not_finite_is_an_error_and_keeps_the_checkpoint(rows, tmp_path):
    calls = []

    def diverges_in_the_second_epoch(embeddings, labels):
        calls.append(1)
        return embeddings.square().mean() * (1.0 if len(calls) <= 7 else float("nan"))

    path = tmp_path / "stage.pt"
    with pytest.raises(FloatingPointError, match=r"The loss is nan in epoch 2: lower the learning rate \(0\.01\)"):
        fit_embedding(make_head(), *rows, loss=diverges_in_the_second_epoch, config=CONFIG, checkpoint=path)
    assert len(torch.load(path, weights_only=True)["history"]) == 1


def test_last_batch_of_one_row_is_merged_for_batch_norm(rows):
    features, labels = rows
    head = EmbeddingHead(12, (8, 4), batch_norm=True)
    config = TrainingConfig(max_epochs=1, batch_size=199, seed=0)
    _, history = embed((features, labels), head, config)
    assert history[0]["epoch"] == 1


def test_invalid_rows_or_validation_are_an_error_before_training(rows):
    features, labels = rows
    with pytest.raises(ValueError, match=r"`validation` must have .* got 0 and 0"):
        fit_classifier(make_classifier(), features, labels, validation=(features[:0], labels[:0]))
    with pytest.raises(TypeError, match=r"The rows to train on must be a torch\.Tensor, got ndarray"):
        fit_classifier(make_classifier(), features.numpy(), labels)
    with pytest.raises(ValueError, match=r"`labels` must contain numbers in \[0, 1\], got 7"):
        fit_classifier(make_classifier(), features, 7 * labels)


def test_different_numbers_of_rows_and_labels_are_an_error(rows):
    features, labels = rows
    with pytest.raises(ValueError, match=r"got \(200, 12\) and \(199, 4\)"):
        fit_classifier(make_classifier(), features, labels[1:])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_epochs": 0}, "`max_epochs` must be at least 1, got 0"),
        ({"batch_size": 1}, "`batch_size` must be at least 2, got 1"),
        ({"seed": -1}, "`seed` must be None or an integer from 0 to 4294967295, got -1"),
        ({"lr": 0.0}, r"`lr` must be above 0 and finite, got 0\.0"),
        ({"lr": float("inf")}, "`lr` must be above 0 and finite, got inf"),
        ({"lr": float("nan")}, "`lr` must be above 0 and finite, got nan"),
        ({"max_epochs": float("nan")}, "`max_epochs` must be at least 1, got nan"),
        ({"seed": 2**32}, "`seed` must be None or an integer from 0 to 4294967295, got 4294967296"),
        ({"seed": 1.5}, "`seed` must be None or an integer from 0 to 4294967295, got 1.5"),
        ({"seed": True}, "`seed` must be None or an integer from 0 to 4294967295, got True"),
        ({"seed": "1"}, "`seed` must be None or an integer from 0 to 4294967295, got '1'"),
        ({"weight_decay": -0.1}, r"`weight_decay` must be at least 0 and finite, got -0\.1"),
        ({"ema_decay": 1.0}, r"`ema_decay` must be in \[0, 1\), got 1\.0"),
        ({"ema_decay": float("nan")}, r"`ema_decay` must be in \[0, 1\), got nan"),
        ({"mixup": float("inf")}, "`mixup` must be at least 0 and finite, got inf"),
    ],
)
def test_training_config_rejects_values_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**arguments)


def test_training_config_converts_a_numpy_seed():
    assert type(TrainingConfig(seed=np.uint8(7)).seed) is int


def test_apply_in_batches_uses_evaluation_mode_and_restores_the_mode(rows):
    head = make_head(dropout=0.5).train()
    in_batches = apply_in_batches(head, rows[0], batch_size=7)
    assert head.training
    assert not in_batches.requires_grad
    torch.testing.assert_close(in_batches, head.eval()(rows[0]).detach())


def test_apply_in_batches_restores_the_mode_of_each_submodule(rows):
    frozen = torch.nn.Dropout().eval()
    model = torch.nn.Sequential(frozen, torch.nn.Dropout()).train()
    frozen.eval()
    assert torch.equal(apply_in_batches(model, rows[0]), rows[0])
    assert [part.training for part in model.modules()] == [True, False, True]


def test_fit_classifier_validation_of_softmax_ranks_probabilities(rows):
    features, labels = rows
    head = ClassifierHead(12, 4, activation="softmax")
    history = fit_classifier(head, features, labels, config=CONFIG, validation=(features, labels))
    logits = apply_in_batches(head, features)
    by_probability = float(mean_average_precision(head.probabilities(logits), labels))
    assert by_probability != pytest.approx(float(mean_average_precision(logits, labels)))
    assert history[-1]["val_map"] == pytest.approx(by_probability)


def plain_loss(embeddings, labels):
    return embeddings.square().mean()


class Powered(torch.nn.Module):
    """A loss whose attribute and argument have different names."""

    def __init__(self, exponent):
        super().__init__()
        self.raised_to = exponent

    def forward(self, embeddings, labels):
        return self.power(self.raised_to, embeddings, labels)

    @staticmethod
    def power(exponent, embeddings, labels):
        return embeddings.pow(exponent).mean()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (lambda e, y: e.square().mean(), lambda e, y: (e - 1).square().mean()),
        (
            LogRatioLoss(similarity=lambda a, b: a.double() @ b.double().T),
            LogRatioLoss(similarity=lambda a, b: -(a.double() @ b.double().T)),
        ),
        (Powered(2), Powered(4)),
        (Powered(2).forward, Powered(4).forward),
        (functools.partial(Powered.power, 2), functools.partial(Powered.power, 4)),
    ],
    ids=["lambdas", "similarities of LogRatioLoss", "attributes by another name", "bound methods", "partials"],
)
def test_checkpoint_of_a_loss_with_another_content_is_an_error(rows, first, second, tmp_path):
    options = {"config": CONFIG, "checkpoint": tmp_path / "embedding.pt"}
    history = fit_embedding(make_head(), *rows, loss=first, **options)
    assert fit_embedding(make_head(), *rows, loss=first, **options) == history
    with pytest.raises(
        ValueError, match=r"other settings or data: loss\S* was .* and is .*Remove it to train from scratch"
    ):
        fit_embedding(make_head(), *rows, loss=second, **options)


def test_checkpoint_of_a_head_with_another_attribute_is_an_error(rows, tmp_path):
    class Scaled(torch.nn.Linear):
        def __init__(self, scale):
            super().__init__(12, 4)
            self.gain = scale

        def forward(self, inputs):
            return self.gain * super().forward(inputs)

    options = {"loss": plain_loss, "config": CONFIG, "checkpoint": tmp_path / "embedding.pt"}
    history = fit_embedding(Scaled(1.0), *rows, **options)
    with pytest.raises(ValueError, match=r"module\.gain was 1\.0 and is 2\.0"):
        fit_embedding(Scaled(2.0), *rows, **options)
    assert fit_embedding(Scaled(1.0), *rows, **options) == history  # initial weights are not compared


def test_checkpoint_of_frozen_weights_differs_from_one_of_trained_weights(rows, tmp_path):
    options = {"loss": plain_loss, "config": CONFIG, "checkpoint": tmp_path / "embedding.pt"}
    fit_embedding(make_head(), *rows, **options)
    frozen = make_head()
    frozen.layers[0].requires_grad_(False)
    with pytest.raises(ValueError, match=r"module\.layers\.0\.bias was .* trained and is .* not trained"):
        fit_embedding(frozen, *rows, **options)


def test_fit_resumes_with_a_loss_that_calls_the_trained_head(rows, tmp_path):
    features, labels = rows
    path = tmp_path / "classifier.pt"
    history = None
    for _ in range(2):
        head = ClassifierHead(12, 4)
        again = fit_classifier(
            head, features, labels, loss=lambda z, y, head=head: head.loss(z, y), config=CONFIG, checkpoint=path
        )
        history = again if history is None else history
        assert again == history


def test_checkpoint_with_a_changed_byte_is_an_error(rows, tmp_path):
    path = tmp_path / "stage.pt"
    fit_classifier(make_classifier(), *rows, config=CONFIG, checkpoint=path)
    content = path.read_bytes()
    for position in range(0, len(content), len(content) // 40):
        altered = bytearray(content)
        altered[position] ^= 1
        path.write_bytes(altered)
        with pytest.raises(OSError, match=r"stage\.pt is damaged, .*Remove it to train from scratch"):
            fit_classifier(make_classifier(), *rows, config=CONFIG, checkpoint=path)
    path.write_bytes(content[:-1])
    with pytest.raises(OSError, match=r"stage\.pt is damaged"):
        fit_classifier(make_classifier(), *rows, config=CONFIG, checkpoint=path)


@pytest.mark.parametrize(
    ("part", "content"),
    [
        ("module", {}),
        ("module", {"linear.weight": torch.zeros(2)}),
        ("optimizer", {"state": {}, "param_groups": []}),
        ("scheduler", {}),
        ("history", None),
        ("history", [3]),
        ("best", (0.5, 1)),
        ("objective", None),
    ],
)
def test_checkpoint_with_an_invalid_entry_is_an_error(rows, part, content, tmp_path):
    path = tmp_path / "stage.pt"
    config = dataclasses.replace(CONFIG, max_epochs=1, keep_best=True)
    fit_classifier(make_classifier(), *rows, config=config, validation=rows, checkpoint=path)
    write_checkpoint(path, torch.load(path, weights_only=True) | {part: content})
    with pytest.raises(
        OSError, match=r"stage\.pt does not match the module to train \(\w+\)\. Remove it to train from scratch"
    ):
        fit_classifier(make_classifier(), *rows, config=config, validation=rows, checkpoint=path)


def test_file_of_a_module_without_settings_is_an_error(rows, tmp_path):
    path = tmp_path / "classifier_ensemble.pt"
    write_checkpoint(path, {"module": make_classifier().state_dict()})
    with pytest.raises(ValueError, match="has other settings or data: max_epochs was absent and is 3"):
        fit_classifier(make_classifier(), *rows, config=CONFIG, checkpoint=path)


def test_checkpoint_that_is_a_folder_is_an_error(rows, tmp_path):
    with pytest.raises(OSError, match=r"is not a regular file: choose another path"):
        fit_classifier(make_classifier(), *rows, config=CONFIG, checkpoint=tmp_path)


def test_diverging_fit_warns_once_and_names_the_learning_rate(rows):
    def distant(embeddings, labels):
        return (embeddings - 3 * labels).square().mean()

    caught = pytest.warns(UserWarning, match=r"Training diverges: .* Lower the learning rate \(3\.0\)")
    with caught:
        history = fit_embedding(make_head(), *rows, loss=distant, config=dataclasses.replace(CONFIG, lr=3.0))
    assert len(caught) == 1
    assert history[0]["loss"] > 100
    assert fit_embedding(make_head(), *rows, loss=distant, config=CONFIG)[0]["loss"] < 30  # without a warning


def test_diverging_fit_whose_first_loss_is_0_warns(rows):
    calls = []

    def grows(embeddings, labels):
        calls.append(1)
        return embeddings.square().mean() * 0 + (0.0 if len(calls) == 1 else 10.0 ** len(calls))

    with pytest.warns(UserWarning, match=r"the loss of epoch 1 is .*, the first loss was 100\. Lower"):
        fit_embedding(make_head(), *rows, loss=grows, config=dataclasses.replace(CONFIG, max_epochs=1))


def test_loss_of_0_in_batches_without_pairs_causes_no_warning(rows):
    calls = []

    def sparse(embeddings, labels):
        calls.append(1)
        return embeddings.square().mean() * 0 + (0.0 if len(calls) % 2 else 8.0)

    fit_embedding(make_head(), *rows, loss=sparse, config=CONFIG)  # warnings are errors in tests


def test_fits_in_threads_equal_those_of_one_thread_and_restore_the_global_generator(rows):
    heads = [make_head(dropout=0.5) for _ in range(8)]

    def fit(number):
        head, seed = heads[number], number % 4
        history = embed(rows, head, dataclasses.replace(CONFIG, seed=seed, mixup=0.3, max_epochs=2))[1]
        return history, head.state_dict()

    alone = [fit(number) for number in range(4)]
    state = torch.get_rng_state()
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(fit, range(4, 8)))
    assert torch.equal(torch.get_rng_state(), state)
    for (history, weights), (expected, expected_weights) in zip(together, alone, strict=True):
        assert history == expected
        assert all(torch.equal(weights[name], expected_weights[name]) for name in weights)


def test_apply_in_batches_keeps_evaluation_mode_while_another_thread_applies_the_module(rows):
    inside, go_on = threading.Barrier(2, timeout=60), threading.Event()

    class WaitingDropout(torch.nn.Dropout):
        def forward(self, inputs):
            outputs = super().forward(inputs)
            if threading.current_thread() is not threading.main_thread():
                inside.wait()
                go_on.wait(60)
                outputs = super().forward(inputs)
            return outputs

    module = torch.nn.Sequential(WaitingDropout(0.9), torch.nn.Dropout().eval()).train()
    module[1].eval()
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(apply_in_batches, module, rows[0])
        inside.wait()
        assert torch.equal(apply_in_batches(module, rows[0]), rows[0])  # while the other thread waits
        go_on.set()
        assert torch.equal(other.result(), rows[0])
    assert [part.training for part in module.modules()] == [True, True, False]


def test_temporary_file_of_a_killed_process_is_removed_by_the_next_save(rows, tmp_path):
    path, left = tmp_path / "stage[1].pt", tmp_path / f"stage[1].pt.{'0' * 32}.tmp"
    left.write_bytes(b"half")
    (tmp_path / "other.tmp").write_bytes(b"unrelated")
    fit_classifier(make_classifier(), *rows, config=CONFIG, checkpoint=path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["other.tmp", "stage[1].pt"]


@pytest.fixture
def interrupted(rows, tmp_path):
    """A checkpoint after two of three epochs, its state, and the configuration."""
    path = tmp_path / "stage.pt"
    epochs = []

    def stop(record):
        epochs.append(record)
        if len(epochs) == 2:
            raise KeyboardInterrupt

    config = dataclasses.replace(CONFIG, max_epochs=3)
    with pytest.raises(KeyboardInterrupt):
        fit_classifier(make_classifier(), *rows, config=config, checkpoint=path, callback=stop)
    return path, read_checkpoint(path, torch.device("cpu")), config


def adam_state(change):
    return lambda state: change(state["optimizer"]["state"][0])


@pytest.mark.parametrize(
    "change",
    [
        adam_state(lambda first: first.update(exp_avg=torch.zeros(3))),  # a fused step would write out of bounds
        adam_state(lambda first: first.update(exp_avg=first["exp_avg"].double())),
        adam_state(lambda first: first.update(exp_avg_sq=-1 - first["exp_avg_sq"])),
        adam_state(lambda first: first.update(exp_avg_sq=first["exp_avg_sq"] * math.nan)),
        adam_state(lambda first: first.update(exp_avg="x")),
        adam_state(lambda first: first.pop("exp_avg")),
        adam_state(lambda first: first.update(step=torch.zeros(3))),
        adam_state(lambda first: first.update(step=torch.tensor(-1.0))),
        lambda state: state["optimizer"]["state"].update({0: []}),
        lambda state: state["optimizer"]["state"].clear(),
        lambda state: state["optimizer"]["param_groups"][0].update(lr=1e6),
        lambda state: state["optimizer"]["param_groups"][0].update(eps=1.0),
        lambda state: state["history"].clear(),
        lambda state: state["history"].append(state["history"][-1]),
        lambda state: state.update(history={}),
        lambda state: state["module"]["linear.weight"].fill_(math.nan),
    ],
)
def test_checkpoint_with_an_invalid_state_is_an_error(change, rows, interrupted):
    path, state, config = interrupted
    change(state)
    write_checkpoint(path, state)
    with pytest.raises(
        OSError, match=r"stage\.pt does not match the module to train .*Remove it to train from scratch"
    ):
        fit_classifier(make_classifier(), *rows, config=config, checkpoint=path)


def test_fit_with_lr_drops_resumes_after_each_epoch(rows, tmp_path):
    config = dataclasses.replace(CONFIG, max_epochs=3, lr_drops=(1, 2))
    path, whole = tmp_path / "stage.pt", make_classifier()
    fit_classifier(whole, *rows, config=config)
    for _ in range(4):  # killed after each epoch
        resumed, epochs = make_classifier(), []
        known = len(torch.load(path)["history"]) if path.exists() else 0

        def stop(record, epochs=epochs, last=known + 1):
            epochs.append(record)
            if len(epochs) == last < 3:
                raise KeyboardInterrupt

        with contextlib.suppress(KeyboardInterrupt):
            fit_classifier(resumed, *rows, config=config, checkpoint=path, callback=stop)
    assert all(torch.equal(part, whole.state_dict()[name]) for name, part in resumed.state_dict().items())


@pytest.mark.parametrize("lr", [1e20, 1e38])
def test_weights_that_overflow_are_an_error_that_names_the_learning_rate(rows, lr):
    config = dataclasses.replace(CONFIG, lr=lr, batch_size=len(rows[0]))  # one step, whose loss is finite
    with pytest.raises(FloatingPointError, match=rf"lower the learning rate \({re.escape(str(lr))}\)"):
        fit_embedding(
            make_head(), *rows, loss=SimilarityRegressionLoss(validate_args=False), config=config, validation=rows
        )
