"""The data sets of `quality.py` and their splits: files, or synthetic sets with wide features and many labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import make_multilabel_classification
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline, make_union

from mlmetric.data import stratified_split


@dataclass(frozen=True)
class MultiLabelSet:
    """A data set.

    Attributes:
        name: Its name.
        features: Features, shape `(N, D)`, or N texts.
        labels: Labels 0 or 1, shape `(N, L)`.
        n_train: The first `n_train` rows are for training, the others for testing; None for another split by each seed.
        n_development: Without `n_train`, the first rows that are training rows of every split, because settings of a
            method were chosen on them.
    """

    name: str
    features: np.ndarray
    labels: torch.Tensor
    n_train: int | None = None
    n_development: int = 0

    def train_and_test(self, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the indices of training rows and test rows, 30 % of all rows unless they are fixed."""
        num_rows = len(self.labels)
        if self.n_train is not None:
            return torch.arange(self.n_train), torch.arange(self.n_train, num_rows)
        others = torch.arange(self.n_development, num_rows)
        share = 0.3 * num_rows / len(others)
        train, test = stratified_split(
            self.labels[others], (1 - share, share), generator=torch.Generator().manual_seed(seed)
        )
        return torch.cat([torch.arange(self.n_development), others[train]]), others[test]

    def standardized(self, train: torch.Tensor) -> torch.Tensor:
        """Return the features, standardised on the training rows; of texts, 300 components of TF-IDF."""
        features = self.features
        if features.dtype.kind == "U":
            features = text_features(features, train.numpy())
        values = torch.from_numpy(features.astype(np.float32))
        mean, deviation = values[train].mean(0), values[train].std(0, correction=0)
        return (values - mean) / torch.where(deviation > 0, deviation, 1)


def text_features(texts: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Return TF-IDF of words and of character n-grams after a truncated SVD, fitted on the training rows."""
    words = TfidfVectorizer(sublinear_tf=True, min_df=2)
    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), min_df=3, sublinear_tf=True)
    svd = TruncatedSVD(300, random_state=0)
    return make_pipeline(make_union(words, characters), svd).fit(texts[train]).transform(texts)


def read_sets(paths: list[Path]) -> Iterator[MultiLabelSet]:
    """Read `.npz` files, and those in folders: `X` or `texts`, `Y`, and if given `n_train` or `n_development`."""
    files = [file for path in paths for file in (path.glob("*.npz") if path.is_dir() else [path])]
    for path in sorted(files):
        with np.load(path) as data:
            if "Y" not in data or not {"X", "texts"} & set(data):
                raise SystemExit(f"{path} must contain the arrays X or texts, and Y, got {', '.join(data)}.")
            features = data["X"] if "X" in data else data["texts"]
            labels = torch.from_numpy(data["Y"].astype(np.float32))
            sizes = {name: int(data[name]) for name in ("n_train", "n_development") if name in data}
            if len(sizes) == 2 or sizes.get("n_development", 0) > 0.7 * len(labels):
                raise SystemExit(f"{path}: n_development must be at most 70 % of the rows, and without n_train.")
            yield MultiLabelSet(path.stem, features, labels, **sizes)


def shuffled(name: str, X: np.ndarray, y: np.ndarray) -> MultiLabelSet:
    """Return a set with shuffled rows, of which the first 70 % are for training."""
    order = np.random.default_rng(0).permutation(len(X))
    return MultiLabelSet(name, X[order], torch.from_numpy(y[order].astype(np.float32)), round(0.7 * len(X)))


def small_set() -> MultiLabelSet:
    """Generate a small set for a quick check."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 6))
    y = X @ rng.normal(size=(6, 3)) + rng.normal(size=(120, 3)) > [-1, 0, 1]
    return MultiLabelSet("synthetic", X, torch.from_numpy(y.astype(np.float32)), 90)


def wide_sets() -> Iterator[MultiLabelSet]:
    """Generate two sets of documents: rare words that indicate rare labels, and word counts of scikit-learn."""
    yield shuffled("synthetic rare words", *rare_words())
    X, y = make_multilabel_classification(
        n_samples=1500, n_features=1000, n_classes=40, n_labels=3, length=60, random_state=0
    )
    labelled = y.any(axis=1)
    yield shuffled("synthetic counts of words", X[labelled], y[labelled])


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
