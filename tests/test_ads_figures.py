"""The figures of a run: bounded sizes, and errors that do not end the run."""

import errno
import os
import warnings
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from ads.figures import draw, training_figures
from common import plots

NUM_LABELS = 1800


@pytest.fixture
def drawn(monkeypatch):
    """The axes of each figure that is saved, by file name."""
    axes = {}
    monkeypatch.setattr(plots, "_save", lambda figure, path: axes.setdefault(path.name, figure.axes[0]))
    yield axes
    plt.close("all")


@pytest.fixture
def names():
    return [f"label {number} " + "x" * (200 if number % 7 == 0 else 0) for number in range(NUM_LABELS)]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int8, bool, np.float16, np.float64])
def test_the_most_frequent_labels_are_those_of_the_largest_counts_whatever_the_dtype(dtype):
    labels = np.zeros((300, 5), dtype=dtype)
    for label, count in enumerate((3, 299, 0, 200, 3)):
        labels[:count, label] = 1
    counts = plots.label_counts(labels)
    assert plots.most_frequent(counts).tolist() == [1, 3, 0, 4, 2]
    assert plots.most_frequent(counts, 2).tolist() == [1, 3]
    assert plots.most_frequent(np.array([1, 2, 0], dtype=np.uint64)).tolist() == [1, 0, 2]


@pytest.mark.filterwarnings("ignore:The default learning rate")
@pytest.mark.parametrize("dtype", [np.uint8, bool, np.float32])
def test_the_embedding_is_coloured_by_the_most_frequent_labels(dtype, tmp_path, drawn):
    labels = np.zeros((60, 10), dtype=dtype)
    for label in range(10):
        labels[: 58 - 5 * label, label] = 1
    embeddings = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    plots.plot_embedding(embeddings, labels, [f"label {i}" for i in range(10)], tmp_path / "a.png", seed=0)
    legend = drawn["a.png"].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["none of these"] + [f"label {i}" for i in range(8)]
    assert legend.get_title().get_text() == "rarest of the 8 most\nfrequent labels of these"
    assert drawn["a.png"].get_title() == "Embedding of 60 images"
    labels[:, 3:], labels[:, 0] = 0, 1
    plots.plot_embedding(embeddings, labels, [f"label {i}" for i in range(10)], tmp_path / "b.png", seed=0)
    legend = drawn["b.png"].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == [f"label {i}" for i in range(3)]  # those that occur
    assert legend.get_title().get_text() == "rarest label"


def marked(axes):
    """The epochs at which dots are drawn."""
    return [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o"]


@pytest.mark.parametrize("keep_best", [True, False])
def test_curves_mark_the_epochs_that_are_kept(keep_best, tmp_path, drawn):
    ndcg, mean_ap = (0.2, float("nan"), 0.4, 0.4), (0.3, 0.1, 0.2, 0.2)
    records = [
        {"epoch": float(epoch), "loss": 1 / epoch, "val_ndcg_at_10": ndcg[epoch - 1], "val_map": mean_ap[epoch - 1]}
        for epoch in range(1, 5)
    ]
    classifier = [
        {"epoch": float(epoch), "loss": 1.0, "val_loss": 1.0, "val_macro_f1": 0.1, "val_map": 0.1 * epoch}
        for epoch in range(1, 3)
    ]
    figures = training_figures({"embedding_1": records, "classifier": classifier}, keep_best=keep_best)
    assert figures.keys() == {"embedding_loss.png", "bce.png", "f1.png", "map.png"}
    for name, plot in figures.items():
        plot(tmp_path / name)
    assert marked(drawn["embedding_loss.png"]) == ([3] if keep_best else [4])  # the first of two equal scores
    assert marked(drawn["map.png"]) == ([1, 3, 2] if keep_best else [4, 4, 2])
    assert marked(drawn["bce.png"]) == [2, 2]
    legend = [text.get_text() for text in drawn["embedding_loss.png"].get_legend().get_texts()]
    assert legend == ["embedding_1", "epoch that is kept"]


def test_curves_without_a_valid_score_mark_the_last_epoch(tmp_path, drawn):
    records = [{"epoch": float(epoch), "loss": 1.0, "val_ndcg_at_10": float("nan")} for epoch in (1, 2)]
    training_figures({"embedding_1": records}, keep_best=True)["embedding_loss.png"](tmp_path / "a.png")
    assert marked(drawn["a.png"]) == [2]
    plots.plot_curve({f"curve {i}": [(1, 0.5), (2, 0.6)] for i in range(6)}, tmp_path / "b.png", title="", unit="")
    assert marked(drawn["b.png"]) == []


def test_label_counts_without_undersampling_have_one_bar_for_each_label(tmp_path, drawn):
    plots.plot_label_counts(np.array([3, 9]), None, ["a", "b"], tmp_path / "one.png")
    plots.plot_label_counts(np.array([3, 9]), np.array([3, 5]), ["a", "b"], tmp_path / "two.png")
    assert [len(drawn[name].patches) for name in ("one.png", "two.png")] == [2, 4]
    assert drawn["one.png"].get_title() == "Label counts"
    assert [label.get_text() for label in drawn["one.png"].get_xticklabels()] == ["b", "a"]


@pytest.mark.slow
def test_figures_of_many_and_long_labels_are_bounded_and_name_the_number_of_labels(names, tmp_path, monkeypatch):
    counts = np.arange(NUM_LABELS, 0, -1, dtype=np.uint64)
    titles = {}
    save = plots._save

    def keep_title(figure, path):
        titles[path.name] = figure.axes[0].get_title()
        save(figure, path)

    monkeypatch.setattr(plots, "_save", keep_title)
    chance = np.random.default_rng(0).random(NUM_LABELS)
    failed = draw(
        {
            "counts.png": lambda path: plots.plot_label_counts(counts, counts, names, path),
            "cooccurrence.png": lambda path: plots.plot_cooccurrence(np.diag(counts.astype(float)), names, path),
            "ap.png": lambda path: plots.plot_ap_by_support(chance, counts, 2000, names, path),
        },
        tmp_path,
    )
    assert not failed
    for path in tmp_path.iterdir():
        with Image.open(path) as figure:
            assert max(figure.size) < 2500
    assert titles["counts.png"].endswith("(the 40 most frequent of 1800 labels)")
    assert titles["cooccurrence.png"].endswith("(the 40 most frequent of 1800 labels)")
    assert titles["ap.png"].endswith("(40 of 1800 labels are named)")


@pytest.mark.parametrize("error", [MemoryError("17 GB"), OSError(errno.ENOSPC, "No space left"), ValueError("bad")])
def test_a_figure_that_fails_is_logged_and_the_others_are_drawn(error, tmp_path, caplog):
    def fail(path):
        plt.figure()
        raise error

    (tmp_path / "a.png").write_bytes(b"of a previous start")
    figures = {"a.png": fail, "b.png": lambda path: plots.plot_curve({"loss": [(1, 0.5)]}, path, title="", unit="")}
    assert draw(figures, tmp_path) == {"a.png": f"{type(error).__name__}: {error}"}
    assert [path.name for path in tmp_path.iterdir()] == ["b.png"]
    assert "The figure a.png could not be drawn" in caplog.text
    assert not plt.get_fignums()


def test_a_full_disk_leaves_no_partial_figure(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    curve = {"f1.png": lambda path: plots.plot_curve({"loss": [(1, 0.5)]}, path, title="", unit="")}
    assert "f1.png could not be written: No space left on device." in draw(curve, tmp_path)["f1.png"]
    assert not list(tmp_path.iterdir())


def test_labels_with_characters_that_the_font_lacks_are_drawn_with_one_warning(tmp_path, caplog):
    counts, names = np.array([3, 2]), ["海岸", "$a_$"]
    plot = partial(plots.plot_label_counts, counts, counts, names)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # as `python -W error`
        assert not draw({"a.png": plot, "b.png": plot}, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "b.png"}
    assert caplog.messages == [
        "The font of the figures does not contain all characters of the labels: boxes are drawn instead."
    ]
