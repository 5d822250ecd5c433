"""Features of texts from pretrained models of sentence-transformers."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, TransformerMixin

from mlmetric.text._text_rows import check_texts

_MODELS_KEPT = 2


class SentenceEncoder(TransformerMixin, BaseEstimator):
    """Encode texts with a pretrained model of sentence-transformers.

    The model is loaded when it is first used, from its folder or from the download cache of the Hugging Face Hub, to
    which it is downloaded once. Encoders of the same name and device share one model in memory. Copies and pickles
    contain only the name: where a pickle is loaded, the model must be available. Changes to a folder take effect only
    in a new process.

    Args:
        name: The name of a model on the Hugging Face Hub, such as "sentence-transformers/all-MiniLM-L6-v2", or the
            folder of a model.
        device: Device of the model, such as "cpu" or "cuda".
        batch_size: Number of texts in a batch. Another size can change the last bits of the features.

    Examples:
        >>> from mlmetric.text import SentenceEncoder
        >>> encoder = SentenceEncoder("sentence-transformers/all-MiniLM-L6-v2")
        >>> encoder.transform(["Drink milk", "Drive a car"]).shape  # doctest: +SKIP
        (2, 384)
    """

    def __init__(self, name: str | Path, *, device: str = "cpu", batch_size: int = 32) -> None:
        self.name = name
        self.device = device
        self.batch_size = batch_size

    def fit(self, texts: Any = None, y: Any = None) -> Self:
        """Do nothing: the model is pretrained.

        Args:
            texts: Ignored.
            y: Ignored.

        Returns:
            The encoder.
        """
        return self

    def transform(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Encode texts; the end of a text that exceeds the model's maximum length is ignored.

        Args:
            texts: The texts, one or more.

        Returns:
            float32, shape `(N, D)`.

        Raises:
            TypeError: If `texts` contains anything but texts.
            ValueError: If there are no texts.
            ImportError: If sentence-transformers is not installed.
            WeightsUnavailableError: If the model cannot be downloaded or read.
        """
        texts = check_texts(texts)
        model = _load(str(self.name), self.device)
        features = model.encode(texts, batch_size=self.batch_size, show_progress_bar=False, convert_to_numpy=True)
        return np.asarray(features, dtype=np.float32)

    def fingerprint(self) -> str:
        """Return a digest of what determines the feature of a text: weights, tokenizer, settings and package version.

        Returns:
            64 hexadecimal digits.

        Raises:
            ImportError: If sentence-transformers is not installed.
            WeightsUnavailableError: If the model cannot be downloaded or read.
        """
        return _fingerprint(str(self.name), self.device)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.transformer_tags.preserves_dtype = []
        return tags


@functools.lru_cache(maxsize=_MODELS_KEPT)
def _load(name: str, device: str) -> Any:
    """Load a model, from the network only if it is neither a folder nor in the download cache."""
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise ImportError(
            f"The model {name!r} is loaded by sentence-transformers, which is not installed: "
            'pip install "mlmetric[sentence-transformers]".'
        ) from error
    from mlmetric.heads import WeightsUnavailableError

    try:
        try:
            model = SentenceTransformer(name, device="cpu", local_files_only=True)
        except Exception:
            if Path(name).exists():
                raise
            _check_connection(name)
            model = SentenceTransformer(name, device="cpu")
    except Exception as error:  # of several libraries, which have no common base class
        reason = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
        raise WeightsUnavailableError(
            f"The model {name!r} could not be loaded by sentence-transformers ({reason}). Pass the name of a model on "
            "https://huggingface.co, or the folder of a model that was saved or downloaded before."
        ) from error
    return model.to(device)


def _check_connection(name: str) -> None:
    """Raise an error at once if the hub cannot be reached: each file would be tried for half a minute."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError

    with suppress(HfHubHTTPError):  # also an answer: sentence-transformers then looks for other files
        get_hf_file_metadata(hf_hub_url(name, "modules.json"))


@functools.lru_cache(maxsize=_MODELS_KEPT)
def _fingerprint(name: str, device: str) -> str:
    from mlmetric._fingerprint import fingerprint

    model = _load(name, device)
    return fingerprint(
        model=type(model),  # with the version of its package
        modules=repr(model),  # with their settings
        weights=dict(model.state_dict()),
        tokenizer=_describe_tokenizer(model.tokenizer),
        max_seq_length=model.max_seq_length,
        prompts=(dict(model.prompts), model.default_prompt_name),
    )


def _describe_tokenizer(tokenizer: Any) -> Any:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:  # one in pure Python
        return type(tokenizer), tokenizer.get_vocab()
    state = json.loads(backend.to_str())
    return {name: part for name, part in state.items() if name not in ("truncation", "padding")}  # set by each batch
