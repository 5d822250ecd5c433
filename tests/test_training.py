"""The two stages: they learn, repeat themselves, resume to the bit, and refuse what they cannot do."""

import dataclasses

import pytest
import torch
from pytorch_metric_learning.losses import TripletMarginLoss

from mlmetric.heads import ClassifierHead, EmbeddingHead
from mlmetric.metrics import mean_average_precision, ndcg_at_k
from mlmetric.miners import MultiLabelSemiHardMiner
from mlmetric.training import TrainingConfig, apply_in_batches, fit_classifier, fit_embedding

CONFIG = TrainingConfig(epochs=3, batch_size=32, lr=0.01, seed=1)


@pytest.fixture
def rows():
    """Labels, and features in which each label is a direction among noise."""
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


def test_fit_embedding_retrieves_better_than_before(rows):
    features, labels = rows
    head = make_head()
    before = ndcg_at_k(
        apply_in_batches(head, features[150:]), labels[150:], apply_in_batches(head, features[:150]), labels[:150]
    )
    train = (features[:150], labels[:150])
    _, history = embed(train, head, dataclasses.replace(CONFIG, epochs=15), validation=(features[150:], labels[150:]))
    assert history[-1]["val_ndcg_at_10"] > before + 0.03
    assert [record["epoch"] for record in history] == list(range(1, 16))
    assert all(record["triplets"] > 0 for record in history)


def test_fit_embedding_reports_the_validation_score_of_the_trained_head(rows):
    features, labels = rows
    head, history = embed(rows, validation=(features[:40], labels[:40]))
    expected = ndcg_at_k(apply_in_batches(head, features[:40]), labels[:40], apply_in_batches(head, features), labels)
    assert history[-1]["val_ndcg_at_10"] == pytest.approx(float(expected))


def test_fit_embedding_without_a_miner_gives_the_loss_the_labels(rows):
    seen = []

    def loss(embeddings, labels):
        seen.append((embeddings.shape, labels.shape))
        return embeddings.square().mean()

    history = fit_embedding(make_head(), *rows, loss=loss, config=dataclasses.replace(CONFIG, epochs=1))
    assert seen[0] == ((32, 4), (32, 4))
    assert "triplets" not in history[0]


def test_fit_classifier_learns_and_measures(rows):
    features, labels = rows
    head = make_classifier()
    validation = (features[150:], labels[150:])
    history = fit_classifier(
        head, features[:150], labels[:150], config=dataclasses.replace(CONFIG, epochs=20), validation=validation
    )
    logits = apply_in_batches(head, validation[0])
    assert history[-1]["val_map"] == pytest.approx(float(mean_average_precision(logits, validation[1])))
    assert history[-1]["val_map"] > 0.85
    assert history[-1]["val_loss"] == pytest.approx(float(head.loss(logits, validation[1])))
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    assert 0.7 < history[-1]["val_macro_f1"] <= 1


def test_fit_first_loss_is_the_mean_over_rows_of_the_untrained_head(rows):
    features, labels = rows
    head = make_classifier()
    expected = head.loss(head(features), labels).item()
    one_batch = TrainingConfig(epochs=1, batch_size=200)
    assert fit_classifier(head, features, labels, config=one_batch)[0]["loss"] == pytest.approx(expected, rel=1e-5)


def test_fit_drops_the_learning_rate_where_it_is_told(rows):
    config = TrainingConfig(epochs=4, lr=0.1, lr_drops=(1, 3))
    history = fit_classifier(make_classifier(), *rows, config=config)
    assert [record["lr"] for record in history] == pytest.approx([0.1, 0.01, 0.01, 0.001])


def test_fit_repeats_itself_and_leaves_the_global_generator_alone(rows):
    state = torch.get_rng_state()
    first, first_history = embed(rows, make_head(dropout=0.5))
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(10)
    second, second_history = embed(rows, make_head(dropout=0.5))
    assert same_state(first, second)
    assert first_history == second_history
    other, _ = embed(rows, make_head(dropout=0.5), dataclasses.replace(CONFIG, seed=2))
    assert not same_state(first, other)


class Killed(Exception):  # noqa: N818
    pass


@pytest.mark.parametrize("stage", ["embedding", "classifier"])
def test_fit_resumed_from_a_checkpoint_ends_as_one_never_killed(rows, stage, tmp_path):
    config = dataclasses.replace(CONFIG, epochs=5, lr_drops=(3,))

    def fit(head, **options):
        if stage == "embedding":
            return embed(rows, head, config, **options)[1]
        return fit_classifier(head, *rows, config=config, **options)

    def make():
        return make_head(dropout=0.5) if stage == "embedding" else make_classifier()

    straight = make()
    expected = fit(straight)

    def die(record):
        if record["epoch"] == 2:
            raise Killed

    path = tmp_path / "stage.pt"
    with pytest.raises(Killed):
        fit(make(), checkpoint=path, callback=die)
    resumed, reported = make(), []
    assert fit(resumed, checkpoint=path, callback=reported.append) == expected
    assert reported == expected
    assert same_state(resumed, straight)
    finished = make()
    assert fit(finished, checkpoint=path) == expected
    assert same_state(finished, straight)


def test_checkpoint_loads_by_its_module_key(rows, tmp_path):
    head, _ = embed(rows, checkpoint=tmp_path / "embedding.pt")
    other = EmbeddingHead(12, (16, 4))
    other.load_state_dict(torch.load(tmp_path / "embedding.pt", weights_only=True)["module"])
    assert same_state(head, other)


def test_checkpoint_of_other_settings_is_refused(rows, tmp_path):
    path = tmp_path / "classifier.pt"
    fit_classifier(make_classifier(), *rows, config=CONFIG, checkpoint=path)
    with pytest.raises(ValueError, match=r"of other settings: lr was 0\.01 and is 0\.1\. Remove it"):
        fit_classifier(make_classifier(), *rows, config=dataclasses.replace(CONFIG, lr=0.1), checkpoint=path)
    with pytest.raises(ValueError, match="of other settings: rows was 200 and is 100"):
        fit_classifier(make_classifier(), rows[0][:100], rows[1][:100], config=CONFIG, checkpoint=path)


def test_checkpoint_that_is_torn_is_named(rows, tmp_path):
    path = tmp_path / "torn.pt"
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(OSError, match=r"torn\.pt cannot be read .*remove it to train anew"):
        fit_classifier(make_classifier(), *rows, config=CONFIG, checkpoint=path)


def test_checkpoint_that_cannot_be_written_keeps_the_one_before(rows, tmp_path, monkeypatch):
    path = tmp_path / "stage.pt"
    fit_classifier(make_classifier(), *rows, config=CONFIG, checkpoint=path)
    before = path.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mlmetric.training.os.fsync", full)
    path2 = tmp_path / "other.pt"
    with pytest.raises(OSError, match=r"other\.pt could not be written: No space left on device.*Free some space"):
        fit_classifier(make_classifier(), *rows, config=CONFIG, checkpoint=path2)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["stage.pt"]
    assert path.read_bytes() == before


def test_fit_with_a_loss_that_diverges_says_so_and_keeps_the_checkpoint(rows, tmp_path):
    features, labels = rows
    path = tmp_path / "stage.pt"
    with pytest.raises(FloatingPointError, match=r"The loss is nan in epoch 1: lower the learning rate \(0.01\)"):
        fit_classifier(make_classifier(), features * float("inf"), labels, config=CONFIG, checkpoint=path)
    assert not path.exists()


def test_fit_with_batch_norm_takes_a_last_batch_of_one_row(rows):
    features, labels = rows
    head = EmbeddingHead(12, (8, 4), batch_norm=True)
    config = TrainingConfig(epochs=1, batch_size=199)
    _, history = embed((features, labels), head, config)
    assert history[0]["epoch"] == 1


def test_fit_rows_that_do_not_fit_are_named(rows):
    features, labels = rows
    with pytest.raises(ValueError, match=r"got \(200, 12\) and \(199, 4\)"):
        fit_classifier(make_classifier(), features, labels[1:])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": 0}, "`epochs` must be at least 1, got 0"),
        ({"batch_size": 1}, "`batch_size` must be at least 2, got 1"),
        ({"seed": -1}, "`seed` must be at least 0, got -1"),
        ({"lr": 0.0}, r"`lr` must be above 0, got 0\.0"),
    ],
)
def test_training_config_names_what_is_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**arguments)


def test_apply_in_batches_is_one_pass_in_evaluation_mode_and_restores_the_mode(rows):
    head = make_head(dropout=0.5).train()
    in_batches = apply_in_batches(head, rows[0], batch_size=7)
    assert head.training
    assert not in_batches.requires_grad
    torch.testing.assert_close(in_batches, head.eval()(rows[0]).detach())
