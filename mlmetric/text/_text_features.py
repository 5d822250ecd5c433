"""Features of texts as a scikit-learn transformer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin, clone
from sklearn.utils.validation import check_is_fitted

from mlmetric._fingerprint import fingerprint
from mlmetric.data._feature_cache import FeatureCache
from mlmetric.text._sentence_encoder import SentenceEncoder
from mlmetric.text._text_extraction import encode_texts
from mlmetric.text._text_rows import mean_by_row, read_text_rows
from mlmetric.text._tfidf_encoder import TfidfEncoder


class TextFeatures(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Compute the features of the texts that belong to each row, such as the text read from an image.

    A row has any number of texts. Its feature is the mean of the features of its texts. A row without text, whose texts
    are all missing or blank, is NaN in each column; [MetricEmbedder][mlmetric.estimators.MetricEmbedder] reads this as
    a view that the row lacks. Each distinct text is encoded once in a call.

    With the name of a pretrained model or a callable, nothing is learnt from the texts. An estimator is fitted on all
    texts that are passed to `fit`: pass only the texts of training rows.

    Args:
        encoder: The encoder of the texts:

            - `"tfidf"`: a [TfidfEncoder][mlmetric.text.TfidfEncoder];
            - the name of a model of sentence-transformers or its folder, such as
              `"sentence-transformers/all-MiniLM-L6-v2"`, as for [SentenceEncoder][mlmetric.text.SentenceEncoder];
            - a `SentenceEncoder`;
            - an estimator that transforms texts, such as a `TfidfEncoder` with other settings or a vectoriser of
              scikit-learn; `fit` fits a clone of it;
            - a callable from a list of texts to their features `(N, D)`, an array, a sparse matrix or a tensor; `fit`
              copies it.
        cache_dir: Folder of a cache in which the features of a pretrained model or a callable are looked up in later
            calls and processes. A run that is killed continues where it ended, apart from the last batch. None for no
            cache. Features of an estimator that is fitted are not cached, since they differ between fits.
        batch_size: Number of texts in a batch, the largest number that is passed to a callable.
        progress: Called after each batch as `progress(done, total)` with numbers of distinct texts.

    Attributes:
        encoder_: The fitted or pretrained encoder.

    Raises:
        ImportError: If sentence-transformers is required but not installed; raised by `fit`, as are the other errors.
        TypeError: If `encoder` is none of these, or `cache_dir` is given and a callable contains an object that cannot
            be inspected; a method `fingerprint()` of its class can then describe it.
        ValueError: If `batch_size` is below 1, or `encoder` is another spelling of "tfidf".
        WeightsUnavailableError: If a model cannot be downloaded or read.

    Examples:
        >>> from mlmetric.estimators import TextFeatures
        >>> features = TextFeatures().fit_transform(["Drink milk", ["Milk is good", "Buy now"], None])
        >>> features.shape
        (3, 3)
        >>> features[2]
        array([nan, nan, nan], dtype=float32)
    """

    def __init__(
        self,
        encoder: Any = "tfidf",
        *,
        cache_dir: str | Path | None = None,
        batch_size: int = 256,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.encoder = encoder
        self.cache_dir = cache_dir
        self.batch_size = batch_size
        self.progress = progress

    def fit(self, X: npt.ArrayLike | Sequence[Any], y: Any = None) -> Self:
        """Fit the encoder on all texts, or load the pretrained model.

        Args:
            X: For each row a text, a list of texts, or None or NaN: a list, an array, a series, or a data frame of one
                column, shape `(n,)` or `(n, 1)`.
            y: Ignored.

        Returns:
            The transformer.

        Raises:
            TypeError: If a row of `X` contains anything else.
            ValueError: If `X` is empty, has several columns or no text in any row, or a setting is not valid.
        """
        if self.batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1, got {self.batch_size}.")
        rows = read_text_rows(X)
        texts = list(chain.from_iterable(rows))
        if not texts:
            raise ValueError(f"`X` must contain at least one text, got {len(rows)} rows without text.")
        encoder = _make_encoder(self.encoder)
        self._fingerprint = None
        if _is_fitted_here(encoder):
            encoder.fit(texts)
        elif self.cache_dir is not None:
            # Before the first call, at which a callable can load its model and so change its content.
            self._fingerprint = fingerprint(encoder=encoder)
        self.encoder_ = encoder
        self._n_features_out = self._encode(texts[:1]).shape[1]
        return self

    def transform(self, X: npt.ArrayLike | Sequence[Any]) -> npt.NDArray[np.float32]:
        """Compute the features of rows.

        Args:
            X: The texts of each row, as for `fit`.

        Returns:
            float32, shape `(n, D)`; NaN in rows without text.

        Raises:
            TypeError: If a row of `X` contains anything else.
            ValueError: If `X` is empty or has several columns, or the encoder returns features that are not finite or
                not of shape `(N, D)`.
            OSError: If the cache cannot be read or written.
        """
        check_is_fitted(self, "encoder_")
        rows = read_text_rows(X)
        texts = list(dict.fromkeys(chain.from_iterable(rows)))
        if not texts:
            return np.full((len(rows), self._n_features_out), np.nan, dtype=np.float32)
        return mean_by_row(rows, texts, self._encode(texts, self.progress))

    @classmethod
    def _of_encoder(cls, encoder: Any, num_features: int, *, batch_size: int) -> Self:
        """Make a transformer from a fitted or pretrained encoder, without fitting or calling it."""
        features = cls(encoder, batch_size=batch_size)
        features.encoder_ = encoder
        features._fingerprint = None
        features._n_features_out = num_features
        return features

    def _encode(self, texts: list[str], progress: Callable[[int, int], None] | None = None) -> npt.NDArray[np.float32]:
        encode = getattr(self.encoder_, "transform", self.encoder_)
        cache = None
        if self.cache_dir is not None and self._fingerprint is not None:
            cache = FeatureCache(Path(self.cache_dir) / self._fingerprint[:32])
        return encode_texts(encode, texts, batch_size=self.batch_size, cache=cache, progress=progress)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = []
        return tags


def _make_encoder(encoder: Any) -> Any:
    """Return a copy of an encoder, so that fitting and calling it do not change the argument."""
    if isinstance(encoder, str) and encoder != "tfidf" and encoder.lower().replace("-", "") == "tfidf":
        raise ValueError(f"`encoder` must be 'tfidf', got {encoder!r}.")
    if isinstance(encoder, str | Path):
        return TfidfEncoder() if encoder == "tfidf" else SentenceEncoder(encoder)
    if isinstance(encoder, SentenceEncoder) or _is_fitted_here(encoder):
        return clone(encoder, safe=False)
    if hasattr(encoder, "encode") and hasattr(encoder, "forward") and not isinstance(encoder, type):
        # A model of sentence-transformers, whose call takes tokens.
        raise TypeError(
            f"`encoder` is a {type(encoder).__name__}: pass its method `encode`, or the name or folder of the model."
        )
    if callable(encoder) and not isinstance(encoder, type):
        try:
            return copy.deepcopy(encoder)
        except Exception:  # its class can raise any error; what cannot be copied is shared
            return encoder
    kind = f"the class {encoder.__name__}" if isinstance(encoder, type) else type(encoder).__name__
    raise TypeError(
        "`encoder` must be 'tfidf', the name or folder of a model of sentence-transformers, an estimator with the "
        f"methods `fit` and `transform`, or a callable from texts to features, got {kind}."
    )


def _is_fitted_here(encoder: Any) -> bool:
    has_methods = hasattr(encoder, "fit") and hasattr(encoder, "transform")
    return has_methods and not isinstance(encoder, SentenceEncoder | type)
