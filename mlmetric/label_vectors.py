"""A vector for each label: from what occurs together, or from a file of word vectors.

Graph heads start from them, and [mlmetric.similarity.Semantic][] compares label sets by them.
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

from mlmetric.labels import cooccurrence, label_counts

__all__ = ["WordVectors", "cooccurrence_vectors", "read_word_vectors"]

_logger = logging.getLogger(__name__)
_MAX_DIGITS = 18


class WordVectors(NamedTuple):
    """Vectors that a file had for labels.

    Attributes:
        vectors: float32, shape `(L, d)`; a zero row for a label of which no word was found, or whose words
            cancel.
        missing: Names of those labels.
        missing_words: Words that the file does not have, of labels that others of their words stand for too.
    """

    vectors: Tensor
    missing: tuple[str, ...]
    missing_words: tuple[str, ...]


def cooccurrence_vectors(labels: Tensor, size: int | None = None) -> Tensor:
    """Make a vector for each label from how often it occurs together with others: PPMI, then a singular value cut.

    Labels that occur with the same others get similar vectors. Two labels that occur together less often than by chance
    count as if they never did. A label that never occurs, or that every row carries, has a zero vector.

    Args:
        labels: Training labels, shape `(N, L)`, multi-hot or soft.
        size: d, the length of the vectors; L at most, which is the default.

    Returns:
        float32, shape `(L, d)`; inner products come as near to the PPMI matrix as d numbers a label allow. Signs are
        fixed by making the largest entry of each dimension positive.

    Raises:
        ValueError: If `labels` is not a matrix in [0, 1], or `size` is not between 1 and L.

    Examples:
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
        embeddings", TACL 3, 2015, for the cut with square roots of the singular values. A label occurs with itself,
        each time that it occurs. Negative eigenvalues, of which inner products know nothing, are cut off.
    """
    together, counts = torch.as_tensor(cooccurrence(labels)), torch.as_tensor(label_counts(labels))
    num_labels = labels.shape[1]
    size = num_labels if size is None else size
    if not 1 <= size <= num_labels:
        raise ValueError(f"`size` must be between 1 and the number of labels, {num_labels}, got {size}.")
    expected = counts[:, None] * counts / max(len(labels), 1)
    ratio = torch.where(expected > 0, together / expected.clamp(min=torch.finfo(torch.float64).tiny), 1)
    ppmi = ratio.clamp(min=1).log()
    values, vectors = torch.linalg.eigh((ppmi + ppmi.T) / 2)
    values, vectors = values.flip(0)[:size], vectors.flip(1)[:, :size]
    rounding = num_labels * torch.finfo(torch.float64).eps * float(values.abs().amax())
    values = torch.where(values > rounding, values, 0)
    largest: Tensor = vectors.gather(0, vectors.abs().argmax(dim=0, keepdim=True))
    scaled: Tensor = vectors * largest.sign() * values.sqrt()
    scaled[~(ppmi > 0).any(dim=1)] = 0  # exactly, where rounding leaves a trace
    return scaled.float()


def read_word_vectors(path: str | Path, label_names: Sequence[str]) -> WordVectors:
    r"""Read the vectors of labels from a file of word vectors: word2vec (text or binary) or GloVe (text).

    The kind is read off the file: word2vec begins with a line of two numbers, the number of words and their length. A
    name that the file has as it is, with spaces as underscores, is taken whole; otherwise the mean over its words that
    the file has, as written or in lower case. A word whose numbers are all 0 says nothing, and counts as one that the
    file does not have. Only the vectors of these words are kept in memory.

    Args:
        path: The file, uncompressed, UTF-8.
        label_names: A name for each label: "angry", "palm tree", "palm_tree", "palm-tree".

    Returns:
        Vectors, and what is missing, which is logged too.

    Raises:
        OSError: If the file cannot be read, or is not a regular file.
        ValueError: If it is not a file of word vectors, ends amid one, has fewer than it announces, a number of one of
            these words is NaN or infinite, or it has none of the words.

    Examples:
        >>> import tempfile
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
        raise ValueError("`label_names` must name the labels, at least one, got none.")
    names = {name: _spellings(name) for name in label_names}
    wanted = {spelling for whole, words in names.values() for group in (whole, *words) for spelling in group}
    found = dict(_vectors(Path(path), wanted))
    if not found:
        raise ValueError(
            f"The file {path} has a vector for none of the {len(label_names)} labels; the first is {label_names[0]!r}."
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
        if not vectors[row].any():  # also where the words of a label cancel
            missing.append(name)
    if missing or missing_words:
        _logger.warning(
            "%s has no vector for %d labels (%s) and %d single words (%s).",
            path,
            len(missing),
            ", ".join(missing),
            len(missing_words),
            ", ".join(missing_words),
        )
    return WordVectors(torch.from_numpy(vectors), tuple(missing), tuple(missing_words))


_Spellings = tuple[str, ...]


def _spellings(name: str) -> tuple[_Spellings, list[_Spellings]]:
    """Return how a file may write a name as a whole, and how each of its words."""
    words = [word for word in re.split(r"[\s_\-/]+", name.strip()) if word]
    joined = "_".join(words)
    forms = (name, joined, " ".join(words), "-".join(words))
    whole = tuple(dict.fromkeys((*forms, *(form.lower() for form in forms))))
    return whole, [tuple(dict.fromkeys((word, word.lower()))) for word in words]


def _first(found: dict[str, npt.NDArray[np.float32]], spellings: _Spellings) -> npt.NDArray[np.float32] | None:
    return next((found[spelling] for spelling in spellings if spelling in found), None)


def _vectors(path: Path, wanted: set[str]) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """Yield the words that are wanted, with vectors that are finite and not all 0."""
    for word, vector in _entries(path, wanted):
        if word not in wanted:
            continue
        if not np.isfinite(vector).all():
            bad = vector[~np.isfinite(vector)][0]
            raise ValueError(f"{path} must have finite numbers, got {bad} for {word!r}.")
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
            if num_words and not 1 <= size <= num_bytes / 2:  # a number takes two bytes or more, whatever the kind
                raise ValueError(
                    f"{path} announces {num_words} words of {size} numbers each, but only {num_bytes} bytes follow."
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
        # From the right: a few words of GloVe's files hold spaces themselves.
        parts = line.rstrip().rsplit(b" ", max(size, 1))
        if size < 1 or len(parts) != size + 1 or (number == 1 and not _is_text(line, size)):
            raise ValueError(
                f"{path} is not a file of word vectors: entry {number} is {line[:40]!r}, expected a word and "
                f"{max(size, 1)} numbers."
            )
        if not line.endswith(b"\n"):
            raise ValueError(
                f"{path} ends in entry {number}, {line[-40:]!r}, without a newline: its last number may be cut off. "
                "Get the file anew, or add the newline if the entry is whole."
            )
        word = parts[0].decode("utf-8", errors="replace")
        if word in wanted:
            try:
                with np.errstate(over="ignore"):  # beyond float32, and refused as infinite
                    vector = np.array(parts[1:], dtype=np.float32)
            except ValueError as error:
                raise ValueError(f"{path} has something else than numbers for {word!r} in entry {number}.") from error
            yield word, vector
    if num_words is not None and num_read < num_words:
        raise ValueError(f"{path} ends after word {num_read} of the {num_words} that it announces.")


def _binary_entries(
    path: Path, file: BinaryIO, num_words: int, size: int
) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    for number in range(1, num_words + 1):
        word = bytearray()
        while (byte := file.read(1)) != b" ":
            if not byte:
                raise ValueError(f"{path} ends in word {number} of the {num_words} that it announces.")
            if byte != b"\n":
                word += byte
        values = file.read(4 * size)
        if len(values) < 4 * size:
            raise ValueError(f"{path} ends in word {number} of the {num_words} that it announces.")
        yield word.decode("utf-8", errors="replace"), np.frombuffer(values, dtype="<f4")
