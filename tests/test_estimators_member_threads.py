"""Members that are trained at the same time: equality with separate training, callbacks, errors, interruption."""

import threading
from functools import partial

import numpy as np
import pytest
import torch

from mlmetric.estimators import MetricClassifier, MetricEmbedder, _member_threads, _members
from mlmetric.heads import EmbeddingHead
from mlmetric.losses import AsymmetricLoss, LogRatioLoss
from mlmetric.miners import MultiLabelSemiHardMiner

SETTINGS = {"n_members": 3, "max_epochs": 3, "batch_size": 16, "random_state": 0}
FUSED = {"views": {"image": slice(0, 4), "text": slice(4, 8)}}


@pytest.fixture(autouse=True)
def threads():
    """Two threads, and the same numbers of threads afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def table(num_rows=60):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, (num_rows, 4))
    return (y @ rng.normal(size=(4, 8)) + rng.normal(size=(num_rows, 8))).astype(np.float32), y


def one_by_one(estimator, *rows):
    torch.set_num_threads(1)
    try:
        return estimator.fit(*rows)
    finally:
        torch.set_num_threads(2)


def weights_of(estimator):
    return torch.cat([weight.flatten() for weight in estimator.head_.state_dict().values()])


def thread_names(estimator, monkeypatch):
    names = set()
    train = _members.fit_embedding
    monkeypatch.setattr(
        _members,
        "fit_embedding",
        lambda *arguments, **named: names.add(threading.current_thread().name) or train(*arguments, **named),
    )
    estimator.fit(*table())
    return names


@pytest.mark.parametrize(
    "make",
    [
        MetricEmbedder,
        MetricClassifier,
        partial(MetricClassifier, two_stage=True),
        partial(MetricClassifier, items_per_label=4, validation_fraction=0.0),
        partial(MetricEmbedder, **FUSED, fusion="gated"),
        partial(MetricClassifier, **FUSED, fusion="late"),
    ],
    ids=["embedder", "classifier", "two stages", "balanced batches", "gated", "late"],
)
def test_members_are_those_of_separate_training(make, monkeypatch):
    X, y = table()
    if make(**SETTINGS).views is not None:
        X[:5, 4:] = np.nan
    state = torch.get_rng_state()
    alone, together = one_by_one(make(**SETTINGS), X, y), make(**SETTINGS).fit(X, y)
    assert torch.equal(torch.get_rng_state(), state)
    assert together.history_ == alone.history_
    # Equal bits in the members; what is computed from all of them uses two threads, and is rounded in another way.
    assert torch.allclose(weights_of(together), weights_of(alone), rtol=0, atol=1e-6)
    assert np.allclose(together.transform(X), alone.transform(X), rtol=0, atol=1e-5)
    if hasattr(alone, "predict_proba"):
        assert np.allclose(together.predict_proba(X), alone.predict_proba(X), rtol=0, atol=1e-4)
    assert all(name.startswith("mlmetric-member") for name in thread_names(make(**SETTINGS), monkeypatch))


def test_members_are_trained_at_the_same_time(monkeypatch):
    barrier = threading.Barrier(2, timeout=60)
    train = _members.fit_embedding
    monkeypatch.setattr(
        _members, "fit_embedding", lambda *arguments, **named: barrier.wait() >= 0 and train(*arguments, **named)
    )
    MetricEmbedder(**SETTINGS | {"n_members": 2}).fit(*table())


@pytest.mark.parametrize(
    "settings",
    [
        {"head": partial(EmbeddingHead, widths=(8, 4))},
        {"loss": LogRatioLoss()},
        {"loss": LogRatioLoss(), "miner": MultiLabelSemiHardMiner()},
        {"label_loss": AsymmetricLoss()},
        {"n_members": 1},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_parts_of_the_user_are_used_in_the_calling_thread(settings, monkeypatch):
    assert thread_names(MetricClassifier(**SETTINGS | settings), monkeypatch) == {threading.current_thread().name}


def test_second_fit_at_the_same_time_trains_its_members_in_its_own_thread(monkeypatch):
    assert _member_threads._IN_USE.acquire(blocking=False)
    try:
        names = thread_names(MetricEmbedder(**SETTINGS), monkeypatch)
    finally:
        _member_threads._IN_USE.release()
    assert names == {threading.current_thread().name}


def test_callbacks_run_in_the_calling_thread_and_get_all_records():
    records = {}

    def callback(stage, record):
        assert threading.current_thread() is threading.main_thread()
        records.setdefault(stage, []).append(record)

    embedder = MetricEmbedder(**SETTINGS).fit(*table(), callback=callback)
    assert [records[f"embedding_{number}"] for number in (1, 2, 3)] == embedder.history_


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_error_in_a_callback_stops_all_members_and_a_second_fit_resumes(error, tmp_path):
    X, y = table()
    seen = []

    def callback(stage, record):
        seen.append((stage, record["epoch"]))
        if len(seen) == 3:
            raise error("stop")

    make = partial(MetricClassifier, **SETTINGS | {"max_epochs": 10})
    with pytest.raises(error, match="stop"):
        make().fit(X, y, checkpoint_dir=tmp_path, callback=callback)
    assert len(seen) == 3
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("mlmetric-member")]
    resumed = make().fit(X, y, checkpoint_dir=tmp_path)
    assert np.array_equal(resumed.predict_proba(X), make().fit(X, y).predict_proba(X))


def test_error_of_a_member_stops_the_others_and_is_raised(monkeypatch):
    train = _members.fit_embedding
    ended = threading.Event()
    epochs = []

    def fail(*arguments, **named):
        if named["config"].seed % 2:
            ended.wait(timeout=60)
            raise FloatingPointError("diverged")
        callback = named["callback"]

        def observe(record):
            epochs.append(record["epoch"])
            ended.set()
            callback(record)

        return train(*arguments, **named | {"callback": observe})

    monkeypatch.setattr(_members, "fit_embedding", fail)
    with pytest.raises(FloatingPointError, match="diverged"):
        MetricEmbedder(**SETTINGS | {"n_members": 2, "max_epochs": 10_000}).fit(*table())
    assert len(epochs) < 10_000


def test_members_are_trained_in_the_grad_mode_of_the_calling_thread():
    with torch.no_grad(), pytest.raises(RuntimeError, match="does not require grad"):
        MetricEmbedder(**SETTINGS).fit(*table())
