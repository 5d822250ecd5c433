"""Options of the two stages: the best epoch, mixup, balanced batches, an auxiliary classifier; ensembles of heads."""

import copy
import dataclasses
import functools

import pytest
import torch
from pytorch_metric_learning.losses import ContrastiveLoss, TripletMarginLoss
from torch import nn

from helpers import Killed
from mlmetric import similarity
from mlmetric.heads import ClassifierHead, EmbeddingEnsemble, EmbeddingHead, LabelGraphHead, SemanticProjectionHead
from mlmetric.label_vectors import cooccurrence_vectors
from mlmetric.losses import (
    AsymmetricLoss,
    HyP2Loss,
    LogRatioLoss,
    MultiLabelCrossBatchMemory,
    MultiLabelLoss,
    MultiLabelProxyAnchorLoss,
    MultiLabelSupConLoss,
    MultiLabelTripletMarginLoss,
    SimilarityRegressionLoss,
    TwoWayLoss,
)
from mlmetric.metrics import mean_average_precision, ndcg_at_k
from mlmetric.miners import MultiLabelSemiHardMiner
from mlmetric.samplers import MultiLabelBatchSampler
from mlmetric.training import TrainingConfig, apply_in_batches, fit_classifier, fit_embedding
from mlmetric.training._checkpoint import write_checkpoint

CONFIG = TrainingConfig(max_epochs=3, batch_size=32, lr=0.01, seed=1)


@pytest.fixture
def rows(generator):
    """Features and labels; each label adds a direction to the noise of the features."""
    labels = (torch.rand(200, 4, generator=generator) < torch.tensor([0.5, 0.4, 0.3, 0.1])).long()
    directions = torch.randn(4, 12, generator=generator)
    features = labels.float() @ directions + 0.7 * torch.randn(200, 12, generator=generator)
    return features, labels


@pytest.fixture
def noise(generator):
    """Features and unrelated labels: scores fluctuate, and the last epoch is seldom the best."""
    return torch.randn(120, 12, generator=generator), (torch.rand(120, 4, generator=generator) < 0.4).long()


def make_seeded(make, *arguments, **settings):
    """Make a module with the same initial weights each time, and restore the global generator."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make(*arguments, **settings)


def make_head(dropout=0.0):
    return make_seeded(EmbeddingHead, 12, (16, 4), dropout=dropout)


def make_classifier(in_features=12):
    return make_seeded(ClassifierHead, in_features, 4)


def changed(**settings):
    return dataclasses.replace(CONFIG, **settings)


def split(rows, at):
    features, labels = rows
    return (features[:at], labels[:at]), (features[at:], labels[at:])


def embed(rows, head=None, config=CONFIG, **options):
    head = make_head() if head is None else head
    history = fit_embedding(head, *rows, **{"loss": SimilarityRegressionLoss()} | options, config=config)
    return head, history


def same_state(first, second):
    ours, theirs = first.state_dict(), second.state_dict()
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


class RecordingHead(nn.Linear):
    """A head that stores its training inputs."""

    def __init__(self, in_features, out_features=4):
        super().__init__(in_features, out_features)
        self.seen = []

    def forward(self, inputs):
        if self.training:
            self.seen.append(inputs.clone())
        return super().forward(inputs.float())


def batches_of(config, labels):
    """Return row indices and labels of each batch; the feature of a row is its index."""
    head, seen = RecordingHead(1), []

    def loss(embeddings, labels):
        seen.append(labels.clone())
        return embeddings.square().mean()

    numbered = torch.arange(float(len(labels)))[:, None]
    fit_embedding(head, numbered, labels, loss=loss, config=config)
    return [inputs.squeeze(1) for inputs in head.seen], seen


# The best epoch


def retrieval(head, train, validation):
    queries, refs = (apply_in_batches(head, features) for features, _ in (validation, train))
    return float(ndcg_at_k(queries, validation[1], refs, train[1]))


def test_keep_best_restores_the_weights_of_the_best_epoch(noise):
    train, validation = split(noise, 80)
    config = changed(max_epochs=8, keep_best=True)
    head, history = embed(train, config=config, validation=validation)
    scores = [record["val_ndcg_at_10"] for record in history]
    assert max(scores) > scores[-1]  # the last epoch is not the best
    assert retrieval(head, train, validation) == pytest.approx(max(scores))
    last, same_history = embed(train, config=changed(max_epochs=8), validation=validation)
    assert same_history == history
    assert retrieval(last, train, validation) == pytest.approx(scores[-1])


def test_keep_best_equals_training_up_to_the_best_epoch(noise):
    train, validation = split(noise, 80)
    best, history = embed(train, config=changed(max_epochs=8, keep_best=True), validation=validation)
    scores = [record["val_ndcg_at_10"] for record in history]
    epochs = 1 + scores.index(max(scores))
    assert 1 < epochs < 8
    stopped, _ = embed(train, config=changed(max_epochs=epochs))
    assert same_state(best, stopped)


def test_keep_best_with_a_classifier_maximises_retrieval_alone(noise):
    train, validation = split(noise, 80)
    classifier = make_classifier(4)
    config = changed(max_epochs=8, lr=0.005, keep_best=True)
    head, history = embed(train, config=config, validation=validation, classifier=classifier)
    best = max(history, key=lambda record: record["val_ndcg_at_10"])
    assert best["epoch"] < len(history)
    assert best["val_map"] < max(record["val_map"] for record in history)  # which another epoch maximises
    assert retrieval(head, train, validation) == pytest.approx(best["val_ndcg_at_10"])
    logits = apply_in_batches(classifier, apply_in_batches(head, validation[0]))
    assert float(mean_average_precision(logits, validation[1])) == pytest.approx(best["val_map"])


def test_keep_best_of_a_classifier_maximises_its_mean_average_precision(noise):
    train, validation = split(noise, 80)
    head = make_classifier()
    history = fit_classifier(head, *train, config=changed(max_epochs=8, keep_best=True), validation=validation)
    scores = [record["val_map"] for record in history]
    assert max(scores) > scores[-1]
    ranked = mean_average_precision(head.probabilities(apply_in_batches(head, validation[0])), validation[1])
    assert float(ranked) == pytest.approx(max(scores))
    best = history[scores.index(max(scores))]
    assert float(head.loss(apply_in_batches(head, validation[0]), validation[1])) == pytest.approx(best["val_loss"])


def test_keep_best_restores_the_parameters_of_the_loss(noise):
    train, validation = split(noise, 80)
    losses = [make_seeded(MultiLabelProxyAnchorLoss, num_labels=4, embedding_size=4) for _ in range(2)]
    options = {"validation": validation}
    _, history = embed(train, config=changed(max_epochs=8, keep_best=True), loss=losses[0], **options)
    scores = [record["val_ndcg_at_10"] for record in history]
    assert max(scores) > scores[-1]
    embed(train, config=changed(max_epochs=1 + scores.index(max(scores))), loss=losses[1])
    assert same_state(*losses)


def test_keep_best_keeps_the_first_of_equal_epochs(rows):
    train, validation = split(rows, 150)
    heads = [make_head() for _ in range(2)]

    def mean_square(embeddings, labels):
        return embeddings.square().mean()

    # The learning rate is too low to change a rank.
    config = changed(max_epochs=4, lr=1e-6, keep_best=True)
    history = fit_embedding(heads[0], *train, loss=mean_square, config=config, validation=validation)
    assert len({record["val_ndcg_at_10"] for record in history}) == 1
    fit_embedding(heads[1], *train, loss=mean_square, config=changed(max_epochs=1, lr=1e-6))
    assert same_state(*heads)


def test_keep_best_ignores_epochs_whose_score_is_nan(rows):
    features, labels = rows
    with pytest.warns(UserWarning, match="Epochs cannot be scored: .* NaN"):
        head, history = embed(rows, config=changed(keep_best=True), validation=(features[:20], 0 * labels[:20]))
    assert all(record["val_ndcg_at_10"] != record["val_ndcg_at_10"] for record in history)  # NaN
    assert same_state(head, embed(rows)[0])


def test_patience_stops_that_many_epochs_after_the_best(noise):
    train, validation = split(noise, 80)
    _, unlimited = embed(train, config=changed(max_epochs=20), validation=validation)
    scores = [record["val_ndcg_at_10"] for record in unlimited]
    for patience in (1, 2, 3):
        _, history = embed(train, config=changed(max_epochs=20, patience=patience), validation=validation)
        assert history == unlimited[: len(history)]
        assert len(history) < 20
        best = scores.index(max(scores[: len(history)]))
        assert len(history) == 1 + best + patience
        # No earlier epoch fulfilled the condition.
        for end in range(1, len(history)):
            assert end - (1 + scores.index(max(scores[:end]))) < patience


def test_patience_of_a_classifier_stops_when_scores_are_constant(rows):
    head = make_classifier()
    config = changed(max_epochs=9, lr=1e-12, patience=2)
    assert len(fit_classifier(head, *rows, config=config, validation=rows)) == 3


def test_patience_does_not_stop_while_scores_rise(rows):
    train, validation = split(rows, 150)
    config = changed(max_epochs=4, patience=1, lr=0.003)
    history = fit_classifier(make_classifier(), *train, config=config, validation=validation)
    scores = [record["val_map"] for record in history]
    assert scores == sorted(set(scores))
    assert len(history) == 4


@pytest.mark.parametrize("setting", [{"keep_best": True}, {"patience": 3}])
def test_keep_best_and_patience_without_validation_are_an_error(rows, setting):
    with pytest.raises(ValueError, match=r"`keep_best` and `patience` require `validation` rows.* got None"):
        fit_classifier(make_classifier(), *rows, config=changed(**setting))
    with pytest.raises(ValueError, match=r"`keep_best` and `patience` require `validation` rows.* got None"):
        embed(rows, config=changed(**setting))


# Averages of weights


@pytest.mark.parametrize("decay", [0.3, 0.999])
def test_fit_returns_the_exponential_moving_average_of_the_weights(rows, decay):
    head = make_head()
    weights = []

    def loss(embeddings, labels):
        weights.append(copy.deepcopy(head.state_dict()))  # before each step
        return SimilarityRegressionLoss()(embeddings, labels)

    def after_each_epoch(record):
        if record["epoch"] == 3:
            weights.append(copy.deepcopy(head.state_dict()))

    fit_embedding(head, *rows, loss=loss, config=changed(ema_decay=decay), callback=after_each_epoch)
    expected = weights[0]
    for step, current in enumerate(weights[1:]):
        share = min(decay, (1 + step) / (10 + step))
        expected = {name: share * expected[name] + (1 - share) * current[name] for name in expected}
    assert len(weights) == 3 * 7 + 1
    torch.testing.assert_close(dict(head.state_dict()), expected)


def test_epochs_are_scored_by_the_average_of_the_weights(rows):
    train, validation = split(rows, 150)
    head, history = embed(train, config=changed(ema_decay=0.9), validation=validation)
    embeddings, refs = (apply_in_batches(head, features) for features in (validation[0], train[0]))
    score = float(ndcg_at_k(embeddings, validation[1], refs, train[1]))
    assert history[-1]["val_ndcg_at_10"] == pytest.approx(score, abs=1e-12)
    plain, _ = embed(train, config=CONFIG, validation=validation)
    assert not torch.equal(plain.layers[0].weight, head.layers[0].weight)


def test_fit_with_an_average_and_keep_best_returns_the_average_of_the_best_epoch(noise):
    train, validation = split(noise, 80)
    head, history = embed(train, config=changed(ema_decay=0.9, keep_best=True, max_epochs=8), validation=validation)
    embeddings, refs = (apply_in_batches(head, features) for features in (validation[0], train[0]))
    score = float(ndcg_at_k(embeddings, validation[1], refs, train[1]))
    assert max(record["val_ndcg_at_10"] for record in history) == pytest.approx(score, abs=1e-12)


def test_fit_with_a_damaged_average_in_the_checkpoint_fails(noise, tmp_path):
    path = tmp_path / "stage.pt"
    config = changed(ema_decay=0.9, max_epochs=2)
    embed(noise, config=config, checkpoint=path)
    state = torch.load(path)
    state["average"]["averages"][0].fill_(float("nan"))
    write_checkpoint(path, state)
    with pytest.raises(OSError, match="does not match the module to train"):
        embed(noise, config=config, checkpoint=path)


# Checkpoints


def kill_after(epoch):
    def kill(record):
        if record["epoch"] == epoch:
            raise Killed

    return kill


OPTIONS = {
    "keep_best": {"keep_best": True},
    "patience": {"patience": 4},
    "mixup": {"mixup": 0.4},
    "ema_decay": {"ema_decay": 0.9},
    "items_per_label": {"items_per_label": 3},
    "all": {
        "keep_best": True,
        "patience": 4,
        "ema_decay": 0.9,
        "mixup": 0.4,
        "items_per_label": 3,
        "lr_drops": (3,),
    },
}


@pytest.mark.parametrize("killed_after", [1, 4])
@pytest.mark.parametrize("settings", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.slow
def test_resumed_embedding_equals_an_uninterrupted_one(noise, settings, killed_after, tmp_path):
    train, validation = split(noise, 80)
    config = changed(max_epochs=7, **settings)

    def fit(**options):
        parts = nn.ModuleList([make_head(dropout=0.3), make_classifier(4)])
        history = fit_embedding(
            parts[0],
            *train,
            loss=SimilarityRegressionLoss(),
            miner=MultiLabelSemiHardMiner(max_triplets_per_anchor=3, positive_order="random"),
            classifier=parts[1],
            classifier_weight=0.5,
            config=config,
            validation=validation,
            **options,
        )
        return parts, history

    straight, expected = fit()
    assert len(expected) > killed_after
    path = tmp_path / "stage.pt"
    with pytest.raises(Killed):
        fit(checkpoint=path, callback=kill_after(killed_after))
    for _ in range(2):  # the second fit only loads the checkpoint
        resumed, history = fit(checkpoint=path)
        assert history == expected
        assert same_state(resumed, straight)


@pytest.mark.parametrize("killed_after", [1, 4])
@pytest.mark.parametrize("settings", OPTIONS.values(), ids=OPTIONS)
def test_resumed_classifier_equals_an_uninterrupted_one(noise, settings, killed_after, tmp_path):
    train, validation = split(noise, 80)
    config = changed(max_epochs=7, **settings)

    def fit(**options):
        head = make_classifier()
        return head, fit_classifier(
            head, *train, loss=AsymmetricLoss(), config=config, validation=validation, **options
        )

    straight, expected = fit()
    assert len(expected) > killed_after
    path = tmp_path / "stage.pt"
    with pytest.raises(Killed):
        fit(checkpoint=path, callback=kill_after(killed_after))
    for _ in range(2):
        resumed, history = fit(checkpoint=path)
        assert history == expected
        assert same_state(resumed, straight)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"mixup": 0.2}, r"mixup was 0\.0 and is 0\.2"),
        ({"items_per_label": 4}, "items_per_label was None and is 4"),
        ({"keep_best": True}, "keep_best was False and is True"),
        ({"patience": 2}, "patience was None and is 2"),
    ],
)
def test_checkpoint_of_other_options_is_an_error(rows, setting, message, tmp_path):
    options = {"validation": rows, "checkpoint": tmp_path / "stage.pt"}
    embed(rows, **options)
    with pytest.raises(ValueError, match=message):
        embed(rows, config=changed(**setting), **options)


def test_checkpoint_of_another_classifier_is_an_error(rows, tmp_path):
    path = tmp_path / "stage.pt"
    embed(rows, classifier=ClassifierHead(4, 4), checkpoint=path)
    with pytest.raises(ValueError, match=r"classifier\.activation was 'sigmoid' and is 'softmax'"):
        embed(rows, classifier=ClassifierHead(4, 4, activation="softmax"), checkpoint=path)
    with pytest.raises(ValueError, match=r"classifier was mlmetric\.heads\S*ClassifierHead .* and is None"):
        embed(rows, checkpoint=path)


def test_checkpoint_of_another_classifier_weight_is_an_error(rows, tmp_path):
    options = {"checkpoint": tmp_path / "stage.pt"}
    embed(rows, classifier=make_classifier(4), classifier_weight=0.5, **options)
    with pytest.raises(ValueError, match="other settings or data"):
        embed(rows, classifier=make_classifier(4), classifier_weight=5.0, **options)


def test_checkpoint_of_other_validation_rows_is_an_error(rows, tmp_path):
    features, labels = rows
    options = {"config": changed(keep_best=True), "checkpoint": tmp_path / "stage.pt"}
    embed(rows, validation=(features[:50], labels[:50]), **options)
    with pytest.raises(ValueError, match="other settings or data"):
        embed(rows, validation=(features[50:], labels[50:]), **options)


def test_checkpoint_contains_the_auxiliary_classifier(rows, tmp_path):
    path, trained = tmp_path / "stage.pt", make_classifier(4)
    embed(rows, classifier=trained, checkpoint=path)
    assert not same_state(trained, make_classifier(4))
    restored = ClassifierHead(4, 4)
    embed(rows, classifier=restored, checkpoint=path)
    assert same_state(restored, trained)


def test_fit_with_a_partial_function_as_loss_resumes(rows, tmp_path):
    features, labels = rows
    bce, weights = nn.functional.binary_cross_entropy_with_logits, torch.full((4,), 2.0)
    options = {"config": CONFIG, "checkpoint": tmp_path / "stage.pt"}
    weighted = functools.partial(bce, pos_weight=weights)
    history = fit_classifier(make_classifier(), features, labels.float(), loss=weighted, **options)
    assert fit_classifier(make_classifier(), features, labels.float(), loss=weighted, **options) == history
    as_a_module = nn.BCEWithLogitsLoss(pos_weight=weights)
    assert fit_classifier(make_classifier(), features, labels.float(), loss=as_a_module, config=CONFIG) == history
    other = functools.partial(bce, pos_weight=2 * weights)
    with pytest.raises(ValueError, match="has other settings or data"):
        fit_classifier(make_classifier(), features, labels.float(), loss=other, **options)


# Mixup


@pytest.fixture
def one_hot_rows():
    """One-hot row indices, as features and labels: a mixed row shows its two rows and their weights."""
    return torch.eye(30)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.uint8, torch.bool])
def test_mixup_averages_features_and_labels_with_the_larger_weight_for_the_row_itself(one_hot_rows, dtype):
    head, seen = RecordingHead(30), []

    def loss(embeddings, labels):
        seen.append(labels.clone())
        return embeddings.square().mean()

    given = one_hot_rows.to(dtype)
    fit_embedding(head, given, given, loss=loss, config=changed(max_epochs=2, batch_size=10, mixup=0.4))
    assert torch.equal(given, one_hot_rows.to(dtype))
    assert len(seen) == len(head.seen) == 6
    for features, labels in zip(head.seen, seen, strict=True):
        assert features.dtype == labels.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert torch.equal(features, labels)
        torch.testing.assert_close(features.sum(dim=1), torch.ones(10, dtype=features.dtype))
        assert ((features > 0).sum(dim=1) <= 2).all()
        assert (features.amax(dim=1) >= 0.5).all()
        # Partners are rows of the batch.
        own_rows = features.argmax(dim=1)
        assert set(features.nonzero()[:, 1].tolist()) <= set(own_rows.tolist())
    mixed = torch.cat(head.seen)
    for epoch in (mixed[:30], mixed[30:]):
        assert sorted(epoch.argmax(dim=1).tolist()) == list(range(30))
    weights = mixed.amax(dim=1)
    assert (weights < 0.99).sum() > 20
    assert len(weights[weights < 1].unique()) > 20
    assert not torch.equal(head.seen[0], head.seen[3])


def test_mixup_with_larger_alpha_gives_weights_closer_to_one_half(one_hot_rows):
    means = []
    for mixup in (0.1, 1.0, 100.0):
        head = RecordingHead(30)
        config = changed(max_epochs=20, mixup=mixup, batch_size=30)
        fit_embedding(head, one_hot_rows, one_hot_rows, loss=lambda embeddings, _: embeddings.mean(), config=config)
        mixtures = torch.cat(head.seen)
        means.append(float(mixtures.amax(dim=1)[(mixtures > 0).sum(dim=1) == 2].mean()))
    assert 0.9 < means[0] < 1
    assert means[1] == pytest.approx(0.75, abs=0.03)  # max(w, 1 - w) for uniform w
    assert 0.5 < means[2] < 0.56


def test_mixup_of_0_does_not_change_rows(rows):
    _, labels = rows
    for config in (CONFIG, changed(mixup=0.0)):
        numbers, seen = batches_of(config, labels)
        for numbers_of_batch, labels_of_batch in zip(numbers, seen, strict=True):
            assert labels_of_batch.dtype == torch.int64
            assert torch.equal(labels_of_batch, labels[numbers_of_batch.long()])


def test_mixup_applies_to_training_but_not_to_validation(rows):
    train, validation = split(rows, 150)
    plain, _ = embed(train)
    mixed, history = embed(train, config=changed(mixup=0.4), validation=validation)
    assert not same_state(plain, mixed)
    assert history[-1]["val_ndcg_at_10"] == pytest.approx(retrieval(mixed, train, validation))


def losses_on_embeddings():
    return {
        "HyP2Loss": HyP2Loss(num_labels=4, embedding_size=4),
        "LogRatioLoss": LogRatioLoss(),
        "MultiLabelCrossBatchMemory": MultiLabelCrossBatchMemory(
            TripletMarginLoss(), embedding_size=4, num_labels=4, memory_size=64, miner=MultiLabelSemiHardMiner()
        ),
        "MultiLabelLoss": MultiLabelLoss(ContrastiveLoss()),
        "MultiLabelSupConLoss": MultiLabelSupConLoss(),
        "MultiLabelTripletMarginLoss": MultiLabelTripletMarginLoss(),
        "SimilarityRegressionLoss": SimilarityRegressionLoss(),
    }


@pytest.mark.parametrize("name", losses_on_embeddings())
def test_all_losses_on_soft_labels_support_mixup(rows, name):
    loss = make_seeded(losses_on_embeddings)[name]
    head, history = embed(rows, loss=loss, config=changed(mixup=0.4, max_epochs=8))
    assert history[-1]["loss"] < history[0]["loss"]
    assert all(value.isfinite().all() for value in head.state_dict().values())


class HardLabelLoss(MultiLabelTripletMarginLoss):
    supports_soft_labels = False


@pytest.mark.parametrize(
    "loss",
    [
        MultiLabelProxyAnchorLoss(num_labels=4, embedding_size=4),
        MultiLabelCrossBatchMemory(HardLabelLoss(), embedding_size=4, num_labels=4, memory_size=64),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_mixup_with_a_loss_that_requires_hard_labels_is_an_error(rows, loss):
    with pytest.raises(ValueError, match=f"`mixup` creates soft labels, which `{type(loss).__name__}` does not"):
        embed(rows, loss=loss, config=changed(mixup=0.4))


@pytest.mark.parametrize(
    "function",
    [similarity.Cosine(), similarity.Dice(), similarity.Hamming(), similarity.Jaccard(), similarity.Overlap()],
    ids=lambda function: type(function).__name__,
)
def test_all_similarities_support_mixup(rows, function):
    miner = MultiLabelSemiHardMiner(similarity=function, positive_threshold=0.2)
    _, history = embed(rows, loss=TripletMarginLoss(), miner=miner, config=changed(mixup=0.4))
    assert all(record["triplets"] > 0 for record in history)
    _, history = embed(
        rows, loss=SimilarityRegressionLoss(similarity=function), config=changed(mixup=0.4, max_epochs=8)
    )
    assert history[-1]["loss"] < history[0]["loss"]


# Batches composed label by label


def test_items_per_label_uses_the_batches_of_the_sampler(rows):
    _, labels = rows
    config = changed(items_per_label=3, batch_size=24)
    numbers, seen = batches_of(config, labels)
    sampler = MultiLabelBatchSampler(
        labels, 24, items_per_label=3, generator=torch.Generator().manual_seed(config.seed)
    )
    expected = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        expected += list(sampler)
    assert [batch.int().tolist() for batch in numbers] == expected
    assert all(torch.equal(batch, labels[numbers_.long()]) for batch, numbers_ in zip(seen, numbers, strict=True))
    per_epoch = len(expected) // 3
    assert expected[:per_epoch] != expected[per_epoch : 2 * per_epoch]
    assert all(batch.sum(dim=0).min() >= 3 for batch in seen)


def test_items_per_label_and_mixup_work_together(rows):
    _, labels = rows
    numbers, _ = batches_of(changed(items_per_label=3, batch_size=24), labels)
    head = RecordingHead(200)
    config = changed(items_per_label=3, batch_size=24, mixup=0.4)
    fit_embedding(head, torch.eye(200), labels, loss=lambda embeddings, _: embeddings.mean(), config=config)
    for batch, mixtures in zip(numbers, head.seen, strict=True):
        assert sorted(mixtures.argmax(dim=1).tolist()) == sorted(batch.int().tolist())


def test_items_per_label_with_fewer_rows_than_a_batch_uses_all_rows(rows):
    _, labels = rows
    labels = labels[labels.any(dim=1)][:20]
    numbers, _ = batches_of(changed(items_per_label=2, batch_size=64), labels)
    assert [sorted(batch.int().tolist()) for batch in numbers] == [list(range(20))] * 3


def test_items_per_label_excludes_rows_without_labels(rows):
    labels = rows[1].clone()
    labels[::4] = 0
    numbers, _ = batches_of(changed(items_per_label=2), labels)
    assert labels[torch.cat(numbers).long()].any(dim=1).all()


def test_items_per_label_with_fewer_labelled_rows_than_a_batch_uses_these(rows):
    labels = rows[1][:60].clone()
    labels[::2] = 0
    numbers, _ = batches_of(changed(items_per_label=2, batch_size=50), labels)
    labelled = labels.any(dim=1).nonzero().squeeze(1).tolist()
    assert len(numbers) >= 3
    assert all(sorted(batch.int().tolist()) == labelled for batch in numbers)


# The auxiliary classifier


def test_auxiliary_classifier_learns(rows):
    train, validation = split(rows, 150)
    classifier = make_classifier(4)
    config = changed(max_epochs=20)
    head, history = embed(train, config=config, classifier=classifier, validation=validation)
    logits = apply_in_batches(classifier, apply_in_batches(head, validation[0]))
    ranked = float(mean_average_precision(logits, validation[1]))
    assert history[-1]["val_map"] == pytest.approx(ranked)
    assert ranked > float(validation[1].float().mean()) + 0.35  # the mAP of random scores
    assert ranked > history[0]["val_map"] + 0.1


def test_classifier_weight_scales_the_loss_of_the_auxiliary_classifier(rows):
    features, labels = rows
    one_batch = TrainingConfig(max_epochs=1, batch_size=200, lr=0.01, seed=0)
    metric = SimilarityRegressionLoss()
    head, classifier = make_head(), make_classifier(4)
    embeddings = head(features)
    parts = metric(embeddings, labels).item(), classifier.loss(classifier(embeddings), labels).item()
    for weight in (0.0, 0.3, 2.0):
        classifier = make_classifier(4)
        _, history = embed(rows, config=one_batch, classifier=classifier, classifier_weight=weight)
        assert history[0]["loss"] == pytest.approx(parts[0] + weight * parts[1], rel=1e-5)
        assert same_state(classifier, make_classifier(4)) == (weight == 0)


def test_auxiliary_classifier_trains_the_head(rows):
    def zero(embeddings, labels):
        return 0 * embeddings.sum()

    train, validation = split(rows, 150)
    head = make_head()
    before = retrieval(head, train, validation)
    embed(train, head, config=changed(max_epochs=20), loss=zero, classifier=make_classifier(4))
    assert retrieval(head, train, validation) > before + 0.03
    still, _ = embed(train, loss=zero)
    assert same_state(still, make_head())


def test_auxiliary_classifier_with_a_triplet_loss_uses_all_rows(rows):
    history = embed(rows, loss=TripletMarginLoss(), miner=MultiLabelSemiHardMiner(), classifier=make_classifier(4))[1]
    assert history[0]["triplets"] > 0
    without = embed(rows, loss=TripletMarginLoss(), miner=MultiLabelSemiHardMiner())[1]
    assert history[0]["loss"] > without[0]["loss"] + 0.5  # of about log 2


# Labels and mined tuples


class RecordingLoss(SimilarityRegressionLoss):
    """A loss that stores the batches that it is called with."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def compute_loss(self, batch):
        self.batches.append(batch)
        return super().compute_loss(batch)


def test_loss_of_mlmetric_is_called_with_labels_and_mined_tuple(rows):
    loss, mined = RecordingLoss(), []
    plain = MultiLabelSemiHardMiner(max_triplets_per_anchor=2)

    def miner(embeddings, labels):
        mined.append(plain(embeddings, labels))
        return mined[-1]

    embed(rows, loss=loss, miner=miner, config=changed(max_epochs=1))
    assert len(loss.batches) == len(mined) == 7
    for batch, indices in zip(loss.batches, mined, strict=True):
        assert batch.labels.shape == (len(batch.embeddings), 4)
        assert len(batch.indices_tuple) == 3
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(batch.indices_tuple, indices, strict=True))
    counts = sum(batch.labels.sum(dim=0) for batch in loss.batches)
    assert counts.tolist() == rows[1].sum(dim=0).tolist()


@pytest.mark.parametrize("name", [name for name in losses_on_embeddings() if name != "HyP2Loss"])
def test_all_losses_on_tuples_accept_the_mined_tuple(rows, name):
    loss = make_seeded(losses_on_embeddings)[name]
    head, history = embed(rows, loss=loss, miner=MultiLabelSemiHardMiner(max_triplets_per_anchor=4))
    assert history[0]["triplets"] > 0
    assert not same_state(head, make_head())


def test_loss_without_tuples_with_a_miner_is_an_error(rows):
    loss = HyP2Loss(num_labels=4, embedding_size=4)
    with pytest.raises(ValueError, match="`HyP2Loss` does not support `indices_tuple`, got 3 tensors"):
        embed(rows, loss=loss, miner=MultiLabelSemiHardMiner())


def test_loss_of_pytorch_metric_learning_is_called_with_the_mined_tuple_only(rows):
    calls = []

    def loss(*arguments, **settings):
        calls.append((len(arguments), list(settings)))
        return arguments[0].square().mean()

    embed(rows, loss=loss, miner=MultiLabelSemiHardMiner(), config=changed(max_epochs=1))
    assert calls == [(1, ["indices_tuple"])] * 7


# Classifiers with other losses and heads


@pytest.fixture
def separable(generator):
    """Five features, one for each of four labels with little noise, and one of noise; and the labels."""
    labels = (torch.rand(120, 4, generator=generator) < 0.4).long()
    noise = torch.randn(120, 5, generator=generator)
    return torch.cat([2.0 * labels - 1, torch.zeros(120, 1)], dim=1) + 0.2 * noise, labels


def heads_of(labels):
    return {
        "ClassifierHead": make_seeded(ClassifierHead, 5, 4),
        "LabelGraphHead": make_seeded(LabelGraphHead.from_labels, 5, labels, hidden_features=16),
        "SemanticProjectionHead": make_seeded(SemanticProjectionHead, 5, cooccurrence_vectors(labels)),
    }


@pytest.mark.parametrize("loss", [None, AsymmetricLoss(), TwoWayLoss()], ids=["own", "asymmetric", "two-way"])
@pytest.mark.parametrize("name", ["ClassifierHead", "LabelGraphHead", "SemanticProjectionHead"])
def test_all_heads_learn_separable_labels_with_all_losses(separable, name, loss):
    train, validation = split(separable, 80)
    head = heads_of(train[1])[name]
    before = float(mean_average_precision(head(validation[0]).detach(), validation[1]))
    config = TrainingConfig(max_epochs=20, batch_size=20, lr=0.06, seed=0)
    history = fit_classifier(head, *train, loss=loss, config=config, validation=validation)
    logits = apply_in_batches(head, validation[0])
    after = float(mean_average_precision(head.probabilities(logits), validation[1]))
    assert before < 0.8
    assert after > 0.95
    assert history[-1]["val_map"] == pytest.approx(after)
    measured = (head.loss if loss is None else loss)(logits, validation[1])
    assert history[-1]["val_loss"] == pytest.approx(measured.item(), rel=1e-5)
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]


@pytest.mark.parametrize("name", ["ClassifierHead", "LabelGraphHead", "SemanticProjectionHead"])
def test_all_heads_learn_with_mixup(separable, name):
    train, validation = split(separable, 80)
    config = TrainingConfig(max_epochs=20, batch_size=20, lr=0.06, mixup=0.4, seed=0)
    history = fit_classifier(heads_of(train[1])[name], *train, config=config, validation=validation)
    assert history[-1]["val_map"] > 0.95


def test_fit_classifier_without_a_loss_uses_that_of_the_head(separable):
    class Constant(ClassifierHead):
        def loss(self, logits, labels):
            return (logits - 3).square().mean()

    head = make_seeded(Constant, 5, 4)
    fit_classifier(head, *separable, config=TrainingConfig(max_epochs=60, batch_size=20, lr=0.1, seed=0))
    torch.testing.assert_close(apply_in_batches(head, separable[0]), torch.full((120, 4), 3.0), atol=0.1, rtol=0)


def test_fit_classifier_trains_the_parameters_of_a_loss_and_restores_them(separable, tmp_path):
    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.shift = nn.Parameter(torch.zeros(()))

        def forward(self, logits, labels):
            return nn.functional.binary_cross_entropy_with_logits(logits + self.shift, labels.float())

    loss, restored = Shifted(), Shifted()
    options = {"config": CONFIG, "checkpoint": tmp_path / "stage.pt"}
    fit_classifier(make_classifier(5), *separable, loss=loss, **options)
    assert loss.shift != 0
    fit_classifier(make_classifier(5), *separable, loss=restored, **options)
    assert restored.shift == loss.shift


# Inputs of more than two dimensions


def image_rows(generator):
    """Images of shape (3, 6, 6), in which each label is a pattern, and their labels."""
    labels = (torch.rand(120, 4, generator=generator) < 0.4).long()
    patterns = torch.randn(4, 3, 6, 6, generator=generator)
    noise = torch.randn(120, 3, 6, 6, generator=generator)
    return torch.einsum("nl,lchw->nchw", labels.float(), patterns) + 2 * noise, labels


class ConvolutionalClassifier(ClassifierHead):
    """A convolution and a classifier."""

    def __init__(self):
        super().__init__(8, 4)
        self.before = nn.Sequential(nn.Conv2d(3, 8, 5), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten())

    def forward(self, images):
        return super().forward(self.before(images))


@pytest.mark.parametrize("mixup", [0.0, 0.4])
def test_embedding_of_images_learns(generator, mixup):
    train, validation = split(image_rows(generator), 80)
    head = make_seeded(lambda: nn.Sequential(nn.Conv2d(3, 8, 5), nn.ReLU(), nn.Flatten(), nn.Linear(32, 8)))
    before = retrieval(head, train, validation)
    config = changed(max_epochs=15, mixup=mixup)
    _, history = embed(train, head, config=config, validation=validation)
    assert history[-1]["val_ndcg_at_10"] == pytest.approx(retrieval(head, train, validation))
    assert history[-1]["val_ndcg_at_10"] > before + 0.1


def test_classifier_of_images_learns_and_resumes(generator, tmp_path):
    rows = image_rows(generator)
    train, validation = split(rows, 80)
    config = changed(max_epochs=20, mixup=0.2, keep_best=True)
    head = make_seeded(ConvolutionalClassifier)
    history = fit_classifier(head, *train, config=config, validation=validation)
    assert max(record["val_map"] for record in history) > float(validation[1].float().mean()) + 0.2
    options = {"config": config, "validation": validation, "checkpoint": tmp_path / "stage.pt"}
    with pytest.raises(Killed):
        fit_classifier(make_seeded(ConvolutionalClassifier), *train, callback=kill_after(3), **options)
    resumed = make_seeded(ConvolutionalClassifier)
    assert fit_classifier(resumed, *train, **options) == history
    assert same_state(resumed, head)


def test_mixup_of_images_equals_that_of_flattened_images(generator):
    images, labels = image_rows(generator)
    heads = RecordingHead(108), RecordingHead(108)

    class Flat(nn.Module):
        def __init__(self, head):
            super().__init__()
            self.head = head

        def forward(self, inputs):
            return self.head(inputs.flatten(1))

    for head, inputs in zip(heads, (images, images.flatten(1)), strict=True):
        fit_embedding(
            Flat(head), inputs, labels, loss=lambda embeddings, _: embeddings.mean(), config=changed(mixup=0.4)
        )
    assert all(torch.equal(first, second) for first, second in zip(heads[0].seen, heads[1].seen, strict=True))


def test_one_dimensional_rows_are_an_error(rows):
    features, labels = rows
    with pytest.raises(ValueError, match=r"\(N, D\) \(or \(N, \.\.\.\)\) .* got \(200,\) and \(200, 4\)"):
        embed((features[:, 0], labels))


# Errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mixup": -0.1}, r"`mixup` must be at least 0 and finite, got -0\.1"),
        ({"mixup": float("nan")}, "`mixup` must be at least 0 and finite, got nan"),
        ({"items_per_label": 0}, "`items_per_label` must be None or at least 1, got 0"),
        ({"patience": 0}, "`patience` must be None or at least 1, got 0"),
        ({"patience": -3}, "`patience` must be None or at least 1, got -3"),
    ],
)
def test_training_config_rejects_options_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**arguments)


def test_fit_classifier_of_a_head_that_is_not_a_module_is_an_error(rows):
    with pytest.raises(TypeError, match="`head` must be a torch module that scores labels, got function"):
        fit_classifier(lambda inputs: inputs, *rows)


def test_different_numbers_of_validation_rows_and_labels_are_an_error(rows):
    features, labels = rows
    with pytest.raises(
        ValueError, match=r"`validation` must have rows and labels of the same length, .*, got 10 and 9"
    ):
        embed(rows, validation=(features[:10], labels[:9]))


# Ensembles


def test_squared_distance_of_an_ensemble_is_the_mean_of_those_of_its_members(generator):
    members = [EmbeddingHead(12, (8, size)) for size in (2, 5, 3)]
    inputs = torch.randn(20, 12, generator=generator)
    squares = torch.stack([torch.cdist(member(inputs), member(inputs)).square() for member in members])
    ensemble = EmbeddingEnsemble(members)
    embeddings = ensemble(inputs)
    assert embeddings.shape == (20, ensemble.embedding_size) == (20, 10)
    torch.testing.assert_close(torch.cdist(embeddings, embeddings).square(), squares.mean(dim=0), atol=1e-4, rtol=1e-3)


def test_ensemble_of_one_member_equals_it_and_accepts_any_iterable(generator):
    head = make_head()
    inputs = torch.randn(5, 12, generator=generator)
    assert torch.equal(EmbeddingEnsemble(head for _ in range(1))(inputs), head(inputs))


def test_ensemble_of_unit_embeddings_has_unit_length(generator):
    members = [EmbeddingHead(12, (8, 4), norm_exponent=0.0) for _ in range(3)]
    embeddings = EmbeddingEnsemble(members)(torch.randn(20, 12, generator=generator))
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(20))


def test_ensemble_can_be_trained_and_has_a_state_dict(rows):
    ensemble = make_seeded(lambda: EmbeddingEnsemble([EmbeddingHead(12, (8, 4)) for _ in range(2)]))
    before = copy.deepcopy(ensemble)
    embed(rows, ensemble)
    assert not any(
        torch.equal(ours, theirs) for ours, theirs in zip(ensemble.parameters(), before.parameters(), strict=True)
    )
    before.load_state_dict(ensemble.state_dict())
    assert same_state(before, ensemble)


def test_ensemble_without_members_is_an_error():
    with pytest.raises(ValueError, match="`members` must contain at least one head, got none"):
        EmbeddingEnsemble([])


# Partial normalisation


def heads_with_norm_exponents(*exponents, dtype=torch.float32):
    return [make_seeded(EmbeddingHead, 12, (8, 4), norm_exponent=exponent).to(dtype) for exponent in exponents]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_norm_exponent_of_one_half_keeps_directions_and_takes_square_roots_of_norms(generator, dtype):
    inputs = 50 * torch.randn(30, 12, generator=generator, dtype=dtype)
    unchanged, half = (head(inputs) for head in heads_with_norm_exponents(1.0, 0.5, dtype=dtype))
    assert half.dtype == dtype
    torch.testing.assert_close(half.norm(dim=1), unchanged.norm(dim=1).sqrt())
    torch.testing.assert_close(nn.functional.normalize(half), nn.functional.normalize(unchanged))
    assert unchanged.norm(dim=1).max() > 2 * unchanged.norm(dim=1).min()


def test_norm_exponent_of_0_gives_unit_length_and_1_is_the_default(generator):
    inputs = torch.randn(30, 12, generator=generator)
    unit, unchanged, default = (head(inputs) for head in (*heads_with_norm_exponents(0, 1), make_small_head()))
    torch.testing.assert_close(unit, nn.functional.normalize(unchanged))
    assert torch.equal(unchanged, default)


def make_small_head():
    return make_seeded(EmbeddingHead, 12, (8, 4))


@pytest.mark.parametrize("exponent", [0.1, 0.75, 0.9])
def test_norm_exponent_is_the_power_of_the_norms(generator, exponent):
    inputs = 5 * torch.randn(30, 12, generator=generator)
    unchanged, head = (head(inputs) for head in heads_with_norm_exponents(1.0, exponent))
    torch.testing.assert_close(head.norm(dim=1), unchanged.norm(dim=1) ** exponent)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("exponent", [0.0, 0.1, 0.5, 1.0])
def test_zero_embedding_is_zero_with_a_finite_gradient_for_each_norm_exponent(exponent, dtype):
    head = heads_with_norm_exponents(exponent, dtype=dtype)[0]
    nn.init.zeros_(head.layers[-1].weight)
    nn.init.zeros_(head.layers[-1].bias)
    inputs = torch.ones(3, 12, dtype=dtype, requires_grad=True)
    embeddings = head(inputs)
    assert torch.equal(embeddings, torch.zeros(3, 4, dtype=dtype))
    (embeddings.sum() + embeddings.square().sum()).backward()
    assert inputs.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in head.parameters())


def test_norm_exponent_of_one_half_has_the_right_gradient(generator):
    head = heads_with_norm_exponents(0.5, dtype=torch.float64)[0]
    inputs = torch.randn(4, 12, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(head, (inputs,))


@pytest.mark.parametrize("exponent", [-0.1, 1.5, 2, float("nan")])
def test_norm_exponent_outside_0_to_1_is_an_error(exponent):
    with pytest.raises(ValueError, match=rf"`norm_exponent` must be in \[0, 1\], got {exponent}"):
        EmbeddingHead(12, norm_exponent=exponent)


def test_norm_exponent_is_compared_with_a_checkpoint(rows, tmp_path):
    first, second = heads_with_norm_exponents(0.5, 0.75)
    embed(rows, first, checkpoint=tmp_path / "stage.pt")
    with pytest.raises(ValueError, match=r"module\.norm_exponent was 0\.5 and is 0\.75"):
        embed(rows, second, checkpoint=tmp_path / "stage.pt")


def test_soft_validation_labels_of_a_classifier_are_an_error(rows):
    features, labels = rows
    soft = (features[:20], 0.3 * labels[:20])
    classifier = ClassifierHead(make_head().embedding_size, labels.shape[1])
    with pytest.raises(ValueError, match="`validation` must have labels 0 or 1"):
        embed(rows, validation=soft, classifier=classifier)
    with pytest.raises(ValueError, match="`validation` must have labels 0 or 1"):
        fit_classifier(ClassifierHead(features.shape[1], labels.shape[1]), *rows, validation=soft)
    _, history = embed(rows, validation=soft)  # retrieval supports soft labels
    assert all(0 < record["val_ndcg_at_10"] <= 1 for record in history)


def test_training_on_the_cpu_does_not_change_the_generator_of_a_device(rows, device):
    module = torch.get_device_module(device)
    before = module.get_rng_state()
    embed(rows)
    assert torch.equal(module.get_rng_state(), before)


def test_validation_of_another_shape_than_the_training_rows_is_an_error(rows):
    features, labels = rows
    for validation, error, message in (
        ((features, [["sun"]] * 200), TypeError, r"`validation\[1\]` must contain numbers, .*MultiLabelBinarizer"),
        ((features.numpy(), labels), TypeError, "rows of `validation` must be a torch.Tensor, got ndarray"),
        ((features, labels[:, :3]), ValueError, r"labels of `validation` must have shape \(N, 4\) .* got \(200, 3\)"),
        ((features[:, :5], labels), ValueError, r"rows of `validation` must have shape \(N, 12\) .* got \(200, 5\)"),
    ):
        with pytest.raises(error, match=message):
            embed(rows, validation=validation)
