"""Represent labels as vectors, computed from label co-occurrence or read from a file of word vectors.

Label vectors are inputs to the heads with a label graph in [mlmetric.heads][] and to
[`SoftCosine.from_vectors`][mlmetric.similarity.SoftCosine.from_vectors].
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mlmetric.labels import LabelsLike, cooccurrence, label_counts, label_tensor

__all__ = ["WordVectors", "cooccurrence_vectors", "read_word_vectors"]

_logger = logging.getLogger(__name__)
_MAX_DIGITS = 18


class WordVectors(NamedTuple):
    """Word vectors of label names.

    Attributes:
        vectors: float32, shape `(L, d)`; the row of a label is zero if the file contains none of its words, or if their
            vectors sum to zero.
        missing: Names of the labels with a zero row.
        missing_words: Words that the file lacks, from label names of which it contains at least one other word.
    """

    vectors: Tensor
    missing: tuple[str, ...]
    missing_words: tuple[str, ...]


def cooccurrence_vectors(labels: LabelsLike, size: int | None = None) -> Tensor:
    """Compute label vectors from label co-occurrence: a truncated decomposition of the PPMI matrix of the labels.

    PPMI is the positive pointwise mutual information: 0 for labels that occur together less often than by chance.
    Labels that occur together with the same other labels have similar vectors. A label that never occurs, or occurs in
    every row, has a zero vector.

    Args:
        labels: Training labels, shape `(N, L)`, multi-hot or soft, of any kind that
            [`check_labels`][mlmetric.labels.check_labels] reads.
        size: d, the length of the vectors, at most L; None for L.

    Returns:
        float32, shape `(L, d)`: the d-dimensional vectors whose inner products best approximate the PPMI matrix. In
        each dimension, the entry with the largest absolute value is positive, so that the result is unique.

    Raises:
        TypeError: If `labels` does not contain numbers.
        ValueError: If `labels` is not a matrix in [0, 1], or `size` is not between 1 and L.

    Examples:
        >>> import torch
        >>> from mlmetric.label_vectors import cooccurrence_vectors
        >>> labels = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]])
        >>> vectors = cooccurrence_vectors(labels, size=2)
        >>> (vectors @ vectors.T).round(decimals=4)  # log 2 for labels that occur together
        tensor([[0.6931, 0.6931, 0.0000, 0.0000],
                [0.6931, 0.6931, 0.0000, 0.0000],
                [0.0000, 0.0000, 0.6931, 0.6931],
                [0.0000, 0.0000, 0.6931, 0.6931]])

    Source:
        Bullinaria and Levy, "Extracting semantic representations from word co-occurrence statistics", Behavior Research
        Methods 39, 2007, for PPMI; Levy et al., "Improving distributional similarity with lessons learned from word
        embeddings", TACL 3, 2015, for the truncated decomposition with square roots of the singular values. Each
        occurrence of a label counts as a co-occurrence with itself. Negative eigenvalues, which inner products cannot
        represent, are set to 0.
    """
    labels = label_tensor(labels, used_by="`cooccurrence_vectors`")
    pair_counts, counts = cooccurrence(labels), label_counts(labels)
    num_labels = labels.shape[1]
    size = num_labels if size is None else size
    if not 1 <= size <= num_labels:
        raise ValueError(f"`size` must be between 1 and the number of labels, {num_labels}, got {size}.")
    expected = counts[:, None] * counts / max(len(labels), 1)
    ratio = torch.where(expected > 0, pair_counts / expected.clamp(min=torch.finfo(torch.float64).tiny), 1)
    ppmi = ratio.clamp(min=1).log()
    values, vectors = torch.linalg.eigh((ppmi + ppmi.T) / 2)
    values, vectors = values.flip(0)[:size], vectors.flip(1)[:, :size]
    tolerance = num_labels * torch.finfo(torch.float64).eps * float(values.abs().amax())
    values = torch.where(values > tolerance, values, 0)
    largest: Tensor = vectors.gather(0, vectors.abs().argmax(dim=0, keepdim=True))
    scaled: Tensor = vectors * largest.sign() * values.sqrt()
    scaled[~(ppmi > 0).any(dim=1)] = 0  # exactly, without rounding errors
    return scaled.float()


def read_word_vectors(path: str | Path, label_names: Sequence[str]) -> WordVectors:
    r"""Read the vectors of label names from a file of word vectors: word2vec (text or binary) or GloVe (text).

    The format is detected: a word2vec file begins with a line of two numbers, the number of words and the length of the
    vectors. If the file contains the whole name of a label, as written or with spaces, underscores or hyphens between
    its words, the label has the vector of this name. Otherwise its vector is the mean of the vectors of its words that
    the file contains. Names and words are also looked up in lower case. A word with a zero vector counts as missing.
    Only the vectors of these names and words are kept in memory.

    Args:
        path: The file, uncompressed, UTF-8.
        label_names: A name for each label, such as "angry", "palm tree", "palm_tree" or "palm-tree".

    Returns:
        Vectors, missing labels and missing words. A warning is logged if any are missing.

    Raises:
        OSError: If the file cannot be read, or is not a regular file.
        ValueError: If `label_names` is empty, or the file is not in one of these formats, ends within an entry, has
            fewer entries than its first line states, contains NaN or infinity in the vector of one of these words, or
            contains none of them.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from mlmetric.label_vectors import read_word_vectors
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "vectors.txt")
        ...     _ = path.write_text("palm 1 0\ntree 0 1\nsea 2 2\n")
        ...     found = read_word_vectors(path, ["sea", "palm tree", "desert"])
        >>> found.vectors
        tensor([[2.0000, 2.0000],
                [0.5000, 0.5000],
                [0.0000, 0.0000]])
        >>> found.missing
        ('desert',)
    """
    if not label_names:
        raise ValueError("`label_names` must have at least one name, got none.")
    names = {name: _spellings(name) for name in label_names}
    wanted = {spelling for whole, words in names.values() for group in (whole, *words) for spelling in group}
    found = dict(_vectors(Path(path), wanted))
    if not found:
        raise ValueError(
            f"The file {path} contains none of the {len(label_names)} label names; the first is {label_names[0]!r}."
        )
    size = len(next(iter(found.values())))
    vectors = np.zeros((len(label_names), size), dtype=np.float32)
    missing, missing_words = [], []
    for row, name in enumerate(label_names):
        whole, words = names[name]
        parts = [_first(found, whole)]
        if parts[0] is None:
            parts = [_first(found, word) for word in words]
            if any(part is not None for part in parts):
                missing_words += [word[0] for word, part in zip(words, parts, strict=True) if part is None]
        known = [part for part in parts if part is not None]
        if known:
            vectors[row] = np.mean(known, axis=0, dtype=np.float64)
        if not vectors[row].any():  # also if the word vectors of a label sum to zero
            missing.append(name)
    if missing or missing_words:
        _logger.warning(
            "%s has no vector for %d labels (%s), and for %d words of other labels (%s).",
            path,
            len(missing),
            ", ".join(missing),
            len(missing_words),
            ", ".join(missing_words),
        )
    return WordVectors(torch.from_numpy(vectors), tuple(missing), tuple(missing_words))


_Spellings = tuple[str, ...]


def _spellings(name: str) -> tuple[_Spellings, list[_Spellings]]:
    """Return the spellings of a whole name, and of each of its words."""
    words = [word for word in re.split(r"[\s_\-/]+", name.strip()) if word]
    joined = "_".join(words)
    forms = (name, joined, " ".join(words), "-".join(words))
    whole = tuple(dict.fromkeys((*forms, *(form.lower() for form in forms))))
    return whole, [tuple(dict.fromkeys((word, word.lower()))) for word in words]


def _first(found: dict[str, npt.NDArray[np.float32]], spellings: _Spellings) -> npt.NDArray[np.float32] | None:
    return next((found[spelling] for spelling in spellings if spelling in found), None)


def _vectors(path: Path, wanted: set[str]) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """Yield the wanted words whose vectors are not zero, and check that they are finite."""
    for word, vector in _entries(path, wanted):
        if word not in wanted:
            continue
        if not np.isfinite(vector).all():
            bad = vector[~np.isfinite(vector)][0]
            raise ValueError(f"{path} must contain finite numbers, got {bad} for {word!r}.")
        if vector.any():
            yield word, vector


def _entries(path: Path, wanted: set[str]) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(f"{path} is not a regular file.")
    with path.open("rb") as file:
        first = file.readline()
        header = first.split()
        if len(header) == 2 and all(part.isdigit() and len(part) <= _MAX_DIGITS for part in header):
            num_words, size = int(header[0]), int(header[1])
            start = file.tell()
            num_bytes = file.seek(0, os.SEEK_END) - start
            if num_words and not 1 <= size <= num_bytes / 2:  # a number takes at least two bytes in either format
                raise ValueError(
                    f"{path} states {num_words} words of {size} numbers each, but only {num_bytes} bytes follow."
                )
            file.seek(start)
            if _is_text(file.readline(), size):
                file.seek(start)
                yield from _text_entries(path, file, size, wanted, num_words)
            else:
                file.seek(start)
                yield from _binary_entries(path, file, num_words, size)
            return
        file.seek(0)
        yield from _text_entries(path, file, len(header) - 1, wanted)


def _is_text(line: bytes, size: int) -> bool:
    try:
        return len([float(part) for part in line.split()[-size:]]) == size
    except ValueError:
        return False


def _text_entries(
    path: Path, lines: Iterable[bytes], size: int, wanted: set[str], num_words: int | None = None
) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    num_read = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip() and number > 1:
            continue
        num_read += 1
        # Split from the right: a few words in GloVe files contain spaces.
        parts = line.rstrip().rsplit(b" ", max(size, 1))
        if size < 1 or len(parts) != size + 1 or (number == 1 and not _is_text(line, size)):
            raise ValueError(
                f"{path} is not a file of word vectors: entry {number} is {line[:40]!r}, expected a word and "
                f"{max(size, 1)} numbers."
            )
        if not line.endswith(b"\n"):
            raise ValueError(
                f"{path} ends in entry {number}, {line[-40:]!r}, without a newline: its last number may be incomplete. "
                "Download the file again, or add the newline if the entry is complete."
            )
        word = parts[0].decode("utf-8", errors="replace")
        if word in wanted:
            try:
                with np.errstate(over="ignore"):  # overflow in float32 is rejected as infinite
                    vector = np.array(parts[1:], dtype=np.float32)
            except ValueError as error:
                raise ValueError(f"{path} contains text other than numbers for {word!r} in entry {number}.") from error
            yield word, vector
    if num_words is not None and num_read < num_words:
        raise ValueError(f"{path} ends after word {num_read} of the {num_words} that its first line states.")


def _binary_entries(
    path: Path, file: BinaryIO, num_words: int, size: int
) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    for number in range(1, num_words + 1):
        word = bytearray()
        while (byte := file.read(1)) != b" ":
            if not byte:
                raise ValueError(f"{path} ends in word {number} of the {num_words} that its first line states.")
            if byte != b"\n":
                word += byte
        values = file.read(4 * size)
        if len(values) < 4 * size:
            raise ValueError(f"{path} ends in word {number} of the {num_words} that its first line states.")
        yield word.decode("utf-8", errors="replace"), np.frombuffer(values, dtype="<f4")
