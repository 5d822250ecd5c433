"""The data sets of `quality.py`: files, or synthetic sets with wide features and many labels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import make_multilabel_classification
from torch import Tensor

MultiLabelSet = tuple[
    str, Tensor, Tensor, int
]  # name, features, labels, and the number of training rows, which come first


def read_sets(paths: list[Path]) -> Iterator[MultiLabelSet]:
    """Read `.npz` files, and those in folders."""
    files = [file for path in paths for file in (path.glob("*.npz") if path.is_dir() else [path])]
    for path in sorted(files):
        with np.load(path) as data:
            yield arrange(path.stem, data["X"], data["Y"], int(data["n_train"]) if "n_train" in data else None)


def arrange(name: str, X: np.ndarray, y: np.ndarray, n_train: int | None = None) -> MultiLabelSet:
    """Put the training rows first: `n_train` of them, or a random 70 % if it is None."""
    order = np.arange(len(X))
    if n_train is None:
        order, n_train = np.random.default_rng(0).permutation(len(X)), round(0.7 * len(X))
    X, y = X[order].astype(np.float32), y[order].astype(np.float32)
    return name, torch.from_numpy(X), torch.from_numpy(y), n_train


def small_set() -> MultiLabelSet:
    """Generate a small set for a quick check."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 6))
    y = X @ rng.normal(size=(6, 3)) + rng.normal(size=(120, 3)) > [-1, 0, 1]
    return arrange("synthetic", X, y, n_train=90)


def wide_sets() -> Iterator[MultiLabelSet]:
    """Generate two sets of documents: rare words that indicate rare labels, and word counts of scikit-learn."""
    yield arrange("synthetic rare words", *rare_words())
    X, y = make_multilabel_classification(
        n_samples=1500, n_features=1000, n_classes=40, n_labels=3, length=60, random_state=0
    )
    labelled = y.any(axis=1)
    yield arrange("synthetic counts of words", X[labelled], y[labelled])


def rare_words(num_rows: int = 1300, num_words: int = 1200, num_labels: int = 45) -> tuple[np.ndarray, np.ndarray]:
    """Draw labels and words by Zipf's law: 6 of the 25 words of each label, and 25 random words."""
    rng = np.random.default_rng(1)
    label_shares, word_shares = (
        1 / np.arange(1, size + 1) ** power for size, power in ((num_labels, 0.9), (num_words, 1))
    )
    label_shares, word_shares = label_shares / label_shares.sum(), word_shares / word_shares.sum()
    words_of = [rng.choice(num_words, 25, replace=False, p=word_shares) for _ in range(num_labels)]
    X, y = np.zeros((num_rows, num_words)), np.zeros((num_rows, num_labels))
    for row in range(num_rows):
        labels = rng.choice(num_labels, min(1 + rng.poisson(0.8), 6), replace=False, p=label_shares)
        y[row, labels] = 1
        for label in labels:
            X[row, rng.choice(words_of[label], 6)] = 1
        X[row, rng.choice(num_words, 25, p=word_shares)] = 1
    return X, y
