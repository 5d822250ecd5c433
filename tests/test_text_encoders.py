"""Encoders of texts: features like those of scikit-learn's parts, state without pickle, errors."""

import json
import pickle

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.decomposition import TruncatedSVD
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer

from mlmetric.text import TfidfEncoder

WORDS = [
    "drink",
    "milk",
    "fresh",
    "cold",
    "cars",
    "drive",
    "fast",
    "road",
    "safe",
    "smoke",
    "never",
    "again",
    "buy",
    "now",
    "love",
    "food",
    "taste",
    "great",
    "new",
    "home",
]


def made_texts(number, seed=0):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(2, 7))) for _ in range(number)]


def expected_tfidf(texts, others, max_features=None):
    """In float64, of scikit-learn's vectorisers with their default dtype."""
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\b\w+\b", max_features=max_features)
    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True, max_features=max_features)
    fitted = [words.fit(texts), characters.fit(texts)]
    return [sparse.hstack([one.transform(some) for one in fitted]) / np.sqrt(2) for some in (texts, others)]


@pytest.mark.parametrize("max_features", [10_000, 50])
def test_features_are_those_of_scikit_learns_parts(max_features):
    texts, others = made_texts(60), made_texts(20, seed=1)
    fitted, new = expected_tfidf(texts, others, max_features)
    svd = TruncatedSVD(12, algorithm="arpack", random_state=0).fit(fitted)
    encoder = TfidfEncoder(12, max_features=max_features).fit(texts)
    for some, expected in ((texts, svd.transform(fitted)), (others, svd.transform(new))):
        features = encoder.transform(some)
        assert features.dtype == np.float32
        # Singular vectors have no sign, and randomised ones are not exact: compare what does not depend on these.
        np.testing.assert_allclose(features @ features.T, expected @ expected.T, atol=0.01)


def test_features_of_full_rank_keep_all_similarities_of_the_texts():
    texts = made_texts(40)
    fitted, _ = expected_tfidf(texts, texts)
    features = TfidfEncoder().fit_transform(texts)
    np.testing.assert_allclose(features @ features.T, (fitted @ fitted.T).toarray(), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("texts", "size", "length"),
    [
        (["drink milk"], 1, 1),
        (["drink milk", "drive a car"], 2, 1),
        (["drink milk"] * 9, 1, 1),
        (["drink milk", "drive a car", "buy now"] * 100, 3, 1),
        (["a b", "!!", "  ", "b a"], 3, 1),
        (["!!!", "???"], 2, np.sqrt(0.5)),  # no words at all
    ],
)
def test_there_are_no_more_features_than_the_texts_allow(texts, size, length):
    features = TfidfEncoder(8).fit_transform(texts)
    assert features.shape == (len(texts), size)
    assert np.isfinite(features).all()
    np.testing.assert_allclose(np.linalg.norm(features[:1], axis=1), length, atol=1e-5)


def test_texts_without_known_terms_have_the_feature_zero():
    encoder = TfidfEncoder().fit(made_texts(20))
    assert (encoder.transform(["", "  \n", "χψω 98"]) == 0).all()
    assert (encoder.transform(["milky"]) != 0).any()  # characters of "milk"


def test_features_depend_on_the_text_only_and_fits_can_be_repeated():
    texts = made_texts(50)
    first, second = TfidfEncoder(8).fit(texts), TfidfEncoder(8).fit(pd.Series(texts))
    np.testing.assert_array_equal(first.transform(texts), second.transform(np.array(texts)))
    np.testing.assert_array_equal(first.transform(texts)[7:9], first.transform(texts[7:9]))
    np.testing.assert_array_equal(first.transform(texts), pickle.loads(pickle.dumps(first)).transform(texts))
    assert not np.array_equal(first.projection_, TfidfEncoder(8, random_state=1).fit(texts).projection_)


@pytest.mark.parametrize("texts", [made_texts(60), ["drink milk", "café – Straße 牛奶"], ["!!!", "???"]])
def test_encoder_rebuilt_from_its_state_has_the_same_features(texts):
    encoder = TfidfEncoder(12, word_ngram_range=(1, 1), max_features=100).fit(texts)
    settings, arrays = encoder.get_state()
    assert all(array.dtype == np.float32 for array in arrays.values())
    again = TfidfEncoder.from_state(json.loads(json.dumps(settings)), arrays)
    assert again.get_params() == encoder.get_params()
    others = [*texts, *made_texts(20, seed=1), ""]
    np.testing.assert_array_equal(again.transform(others), encoder.transform(others))
    assert again.get_feature_names_out().tolist() == encoder.get_feature_names_out().tolist()
    assert again.get_state()[0] == settings


def test_state_that_does_not_fit_together_is_an_error():
    settings, arrays = TfidfEncoder(3).fit(made_texts(9)).get_state()
    with pytest.raises(ValueError, match=r"state of a TfidfEncoder must contain terms, projection\."):
        TfidfEncoder.from_state({name: value for name, value in settings.items() if name != "terms"}, {})
    with pytest.raises(ValueError, match=r"must contain idf_words\."):
        TfidfEncoder.from_state(settings, {name: array for name, array in arrays.items() if name != "idf_words"})
    for name in arrays:
        with pytest.raises(ValueError, match=r"must have a row for each of its \d+ terms, got"):
            TfidfEncoder.from_state(settings, {**arrays, name: arrays[name][1:]})


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        ("drink milk", TypeError, "`texts` must be a list of texts, got str"),
        (None, TypeError, "`texts` must be a list of texts, got NoneType"),
        ([], ValueError, "at least one text, got none"),
        (["milk", None], TypeError, "must contain texts only, got None of type NoneType at 1"),
        ([["milk"]], TypeError, "must contain texts only, got .'milk'. of type list at 0"),
    ],
)
def test_anything_but_texts_is_an_error(texts, error, message):
    encoder = TfidfEncoder().fit(["milk", "cars"])
    for take in (TfidfEncoder().fit, encoder.transform):
        with pytest.raises(error, match=message):
            take(texts)


def test_blank_texts_alone_and_invalid_settings_are_errors():
    with pytest.raises(ValueError, match="at least one text that is not blank, got 2 blank ones"):
        TfidfEncoder().fit([" ", ""])
    with pytest.raises(ValueError, match="`n_components` must be at least 1, got 0"):
        TfidfEncoder(0).fit(["milk"])
    with pytest.raises(NotFittedError):
        TfidfEncoder().transform(["milk"])
    with pytest.raises(NotFittedError):
        TfidfEncoder().get_state()


def test_encoder_is_a_scikit_learn_transformer():
    encoder = TfidfEncoder(3, random_state=5)
    assert clone(encoder).get_params() == encoder.get_params()
    frame = encoder.set_output(transform="pandas").fit_transform(made_texts(9))
    assert frame.columns.tolist() == [f"tfidfencoder{number}" for number in range(3)]
    assert encoder.__sklearn_tags__().input_tags.string
