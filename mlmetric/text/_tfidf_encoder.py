"""Features of texts from the words and character n-grams that they contain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.utils.extmath import randomized_svd
from sklearn.utils.validation import check_is_fitted

from mlmetric.text._text_rows import check_texts

_TOKEN_PATTERN = r"(?u)\b\w+\b"  # scikit-learn's leaves out words of one letter
_SETTINGS = ("n_components", "word_ngram_range", "char_ngram_range", "max_features", "random_state")

_NEGLIGIBLE = 1e-5
"""Singular values below this share of the largest are rounding errors in float32."""


class TfidfEncoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Encode texts by TF-IDF and latent semantic analysis, learnt from the texts passed to `fit`.

    The terms of a text are its words and sequences of words, and the sequences of characters within its words, which
    misspelt and inflected forms of a word have in common. For each of the two kinds, a vector has the weight
    `(1 + log(count)) * idf` for each term and is divided by its length. The two vectors, divided by `sqrt(2)`, are
    concatenated and projected on the first singular vectors. No pretrained model is needed.

    Features are not scaled to unit length: their length is at most 1, and smaller for texts of which the projection
    keeps less. The features of a text without any known term are 0.

    Args:
        n_components: D, the number of features. There are fewer if the rank of the TF-IDF matrix, which is at most the
            number of distinct texts, is lower.
        word_ngram_range: The minimum and maximum number of words in a term.
        char_ngram_range: The minimum and maximum number of characters in a term. Spaces at the ends of a word count.
        max_features: The maximum number of terms of each of the two kinds: the most frequent ones are kept.
        random_state: Seed of the randomised singular value decomposition; the same seed gives the same features.

    Attributes:
        vectorizers_: scikit-learn's `TfidfVectorizer` for each kind of terms, "words" and "characters". A kind of which
            the texts have no term is left out.
        projection_: The singular vectors, float32, shape `(number of terms, D)`, words first.

    Raises:
        ValueError: If a setting is not valid; raised by `fit`.

    Examples:
        >>> from mlmetric.text import TfidfEncoder
        >>> encoder = TfidfEncoder().fit(["Drink milk", "Milk is good", "Drive a car"])
        >>> features = encoder.transform(["milk", "cars"])
        >>> features.shape
        (2, 3)
    """

    def __init__(
        self,
        n_components: int = 256,
        *,
        word_ngram_range: tuple[int, int] = (1, 2),
        char_ngram_range: tuple[int, int] = (3, 5),
        max_features: int = 10_000,
        random_state: int = 0,
    ) -> None:
        self.n_components = n_components
        self.word_ngram_range = word_ngram_range
        self.char_ngram_range = char_ngram_range
        self.max_features = max_features
        self.random_state = random_state

    def fit(self, texts: Sequence[str], y: Any = None) -> Self:
        """Learn the terms, their weights and the projection.

        Args:
            texts: The texts, one or more.
            y: Ignored.

        Returns:
            The encoder.

        Raises:
            TypeError: If `texts` contains anything but texts.
            ValueError: If there are no texts or all of them are blank, or a setting is not valid.
        """
        if self.n_components < 1:
            raise ValueError(f"`n_components` must be at least 1, got {self.n_components}.")
        texts = check_texts(texts)
        vectorizers = {
            kind: vectorizer
            for kind, vectorizer in self._make_vectorizers().items()
            if any(map(vectorizer.build_analyzer(), texts))
        }
        if not vectorizers:
            raise ValueError(f"`texts` must contain at least one text that is not blank, got {len(texts)} blank ones.")
        tfidf = _joined([vectorizer.fit_transform(texts) for vectorizer in vectorizers.values()])
        self.vectorizers_ = vectorizers
        self.projection_ = self._learn_projection(tfidf)
        return self

    def transform(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Encode texts.

        Args:
            texts: The texts, one or more.

        Returns:
            float32, shape `(N, D)`.

        Raises:
            TypeError: If `texts` contains anything but texts.
            ValueError: If there are no texts.
        """
        check_is_fitted(self, "projection_")
        texts = check_texts(texts)
        tfidf = _joined([vectorizer.transform(texts) for vectorizer in self.vectorizers_.values()])
        return np.asarray(tfidf @ self.projection_, dtype=np.float32)

    def get_state(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[np.float32]]]:
        """Return the state from which `from_state` rebuilds the fitted encoder, without pickle.

        Returns:
            Settings and terms, which can be written as JSON; and arrays by name: the weights of the terms of each kind,
            `idf_words` and `idf_characters`, and `projection`.
        """
        check_is_fitted(self, "projection_")
        settings: dict[str, Any] = {name: getattr(self, name) for name in _SETTINGS}
        settings |= {name: list(settings[name]) for name in ("word_ngram_range", "char_ngram_range")}
        settings["terms"] = {kind: one.get_feature_names_out().tolist() for kind, one in self.vectorizers_.items()}
        arrays = {f"idf_{kind}": one.idf_.astype(np.float32) for kind, one in self.vectorizers_.items()}
        return settings, {**arrays, "projection": self.projection_}

    @classmethod
    def from_state(cls, settings: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[np.float32]]) -> Self:
        """Rebuild a fitted encoder that returns exactly the features of the original.

        Args:
            settings: The settings and terms from `get_state`.
            arrays: The arrays from `get_state`.

        Returns:
            The encoder.

        Raises:
            ValueError: If something is missing, or the number of terms differs from the number in the arrays.
        """
        expected = {*(f"idf_{kind}" for kind in settings.get("terms", ())), "projection"}
        missing = sorted({*_SETTINGS, "terms"} - settings.keys()) + sorted(expected - arrays.keys())
        if missing:
            raise ValueError(f"The state of a TfidfEncoder must contain {', '.join(missing)}.")
        values: dict[str, Any] = {name: settings[name] for name in _SETTINGS}
        values |= {name: tuple(values[name]) for name in ("word_ngram_range", "char_ngram_range")}
        encoder = cls(**values)
        terms = settings["terms"]
        sizes = [len(terms[kind]) for kind in terms]
        projection = np.ascontiguousarray(arrays["projection"], dtype=np.float32)
        if [len(arrays[f"idf_{kind}"]) for kind in terms] != sizes or projection.shape[:-1] != (sum(sizes),):
            raise ValueError(
                f"The arrays of a TfidfEncoder must have a row for each of its {sum(sizes)} terms, got "
                f"{ {name: np.shape(array) for name, array in arrays.items()} }."
            )
        encoder.vectorizers_ = {
            kind: one.set_params(vocabulary=terms[kind])
            for kind, one in encoder._make_vectorizers().items()
            if kind in terms
        }
        for kind, vectorizer in encoder.vectorizers_.items():
            vectorizer.idf_ = np.asarray(arrays[f"idf_{kind}"], dtype=np.float32)
        encoder.projection_ = projection
        return encoder

    @property
    def _n_features_out(self) -> int:
        return int(self.projection_.shape[1])

    def _make_vectorizers(self) -> dict[str, TfidfVectorizer]:
        common = {"sublinear_tf": True, "max_features": self.max_features, "dtype": np.float32}
        return {
            "words": TfidfVectorizer(ngram_range=self.word_ngram_range, token_pattern=_TOKEN_PATTERN, **common),
            "characters": TfidfVectorizer(analyzer="char_wb", ngram_range=self.char_ngram_range, **common),
        }

    def _learn_projection(self, tfidf: sparse.csr_matrix) -> npt.NDArray[np.float32]:
        size = min(self.n_components, *tfidf.shape)
        _, values, vectors = randomized_svd(tfidf, size, random_state=self.random_state)
        rank = int((values > _NEGLIGIBLE * values[0]).sum())
        return np.ascontiguousarray(vectors[:rank].T, dtype=np.float32)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.transformer_tags.preserves_dtype = []
        return tags


def _joined(parts: list[sparse.csr_matrix]) -> sparse.csr_matrix:
    return sparse.hstack(parts, format="csr", dtype=np.float32) * np.float32(np.sqrt(0.5))
