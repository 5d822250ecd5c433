"""Features of texts, computed in batches and cached on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from mlmetric._digest import sha256_hex
from mlmetric.data._feature_cache import FeatureCache

Encode = Callable[[list[str]], Any]
Progress = Callable[[int, int], None]


def encode_texts(
    encode: Encode, texts: list[str], *, batch_size: int, cache: FeatureCache | None, progress: Progress | None
) -> npt.NDArray[np.float32]:
    """Encode texts in batches; those in the cache are not encoded again.

    A batch is written to the cache as soon as it is encoded: a run that ends early loses only the current batch.

    Args:
        encode: Function from texts to features `(N, D)`: an array, a sparse matrix or a tensor.
        texts: The distinct texts, one or more.
        batch_size: Number of texts in a batch.
        cache: The cache of this encoder; None to keep nothing.
        progress: Called after each batch as `progress(done, total)` with numbers of texts.

    Returns:
        float32, shape `(len(texts), D)`.

    Raises:
        TypeError: If the encoder returns anything but numbers.
        ValueError: If features are not of shape `(N, D)`, are not finite, or differ in D.
        OSError: If the cache cannot be read or written.
    """
    identities = [] if cache is None else [bytes.fromhex(sha256_hex([text])) for text in texts]
    known = {} if cache is None else cache.known()
    missing = [place for place in range(len(texts)) if cache is None or identities[place] not in known]
    done = len(texts) - len(missing)
    batches = []
    for start in range(0, len(missing), batch_size):
        places = missing[start : start + batch_size]
        features = _checked([texts[place] for place in places], encode)
        if cache is None:
            batches.append(features)
        else:
            cache.add([identities[place] for place in places], features)
            cache.write(still_to_come=len(missing) - start - len(places))
        done += len(places)
        if progress is not None:
            progress(done, len(texts))
    if cache is None:
        sizes = sorted({batch.shape[1] for batch in batches})
        if len(sizes) > 1:
            raise ValueError(f"`encoder` must return features of one size, got {sizes[0]} and {sizes[1]}.")
        return np.concatenate(batches)
    cache.merge(identities)
    return cache.gather(identities)


def _checked(texts: list[str], encode: Encode) -> npt.NDArray[np.float32]:
    """Encode a batch; raise an error if the result is not a matrix of finite features."""
    output = encode(texts)
    if sparse.issparse(output):
        output = output.toarray()
    elif hasattr(output, "detach"):  # a tensor, on any device
        output = output.detach().cpu().float().numpy()
    try:
        features = np.asarray(output, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"`encoder` must return a matrix of numbers (N, D), got {type(output).__name__} ({error})."
        ) from error
    if features.ndim != 2 or len(features) != len(texts) or features.shape[1] == 0:
        raise ValueError(
            f"`encoder` must return features of shape ({len(texts)}, D) for {len(texts)} texts, got {features.shape}."
        )
    broken = ~np.isfinite(features).all(axis=1)
    if broken.any():
        raise ValueError(
            f"`encoder` must return finite features, got NaN or infinite ones for {broken.sum()} of {len(texts)} "
            f"texts, the first: {texts[int(broken.argmax())]!r}."
        )
    return features
