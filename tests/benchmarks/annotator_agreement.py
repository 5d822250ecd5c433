"""Agreement of the annotators of multi-label data: each answer compared with the others, and Krippendorff's alpha."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from ads.reader import AdAnnotations
from mlmetric.metrics import f1, precision, recall
from mlmetric.similarity import inner_product, jaccard

Array = npt.NDArray[Any]


class Answers(NamedTuple):
    """The answers of all annotators to all images, without those that contain no label of the list."""

    labels: Array
    """Whether the answer contains the label, bool, shape `(M, L)`."""
    image: Array
    """The index of the image of the answer, ascending, shape `(M,)`."""


def read_answers(path: Path, annotations: AdAnnotations) -> Answers:
    """Read the answers, of which `read_annotations` returns only the sums.

    Args:
        path: The annotation file.
        annotations: What `read_annotations` returned for it.

    Raises:
        ValueError: If the file has several entries of an image, or spells a path in a way that is not normalised.
    """
    entries = json.loads(path.read_text(encoding="utf-8-sig"))
    columns = {str(column + 1): column for column in range(len(annotations.label_names))}
    rows, image = [], []
    for index, name in enumerate(annotations.paths):
        for answer in entries.get(name, []):
            chosen = [columns[text.strip()] for text in answer if text.strip() in columns]
            if chosen:
                rows.append(np.isin(np.arange(len(columns)), chosen))
                image.append(index)
    answers = Answers(np.array(rows).reshape(-1, len(columns)), np.array(image, dtype=np.int64))
    votes = np.zeros(annotations.votes.shape, dtype=np.int64)
    np.add.at(votes, answers.image, answers.labels)
    if not np.array_equal(votes, annotations.votes.numpy()):
        raise ValueError(f"{path} must have one entry for each image, under its normalised path. Merge its entries.")
    return answers


def votes_of_others(answers: Answers) -> Array:
    """Return how many other annotators of its image chose each label, for each answer, int64, shape `(M, L)`."""
    votes = np.zeros((answers.image[-1] + 1, answers.labels.shape[1]), dtype=np.int64)
    np.add.at(votes, answers.image, answers.labels)
    return votes[answers.image] - answers.labels


def compare(predicted: Array, target: Array) -> list[float]:
    """Return precision, recall and F1 of all entries together (micro), and the mean F1 of the labels (macro)."""
    chosen, wanted = torch.from_numpy(predicted).double(), torch.from_numpy(target)
    micro = [function(chosen, wanted, threshold=0.5, average="micro") for function in (precision, recall, f1)]
    return [float(value) for value in (*micro, f1(chosen, wanted, threshold=0.5, average="macro"))]


def krippendorff_alpha(values: Array, units: Array, distances: Array) -> float:
    """Compute Krippendorff's alpha: 1 - observed disagreement / disagreement expected by chance.

    1 is perfect agreement, 0 that of values which do not depend on the unit. With m_u values in unit u, n values in
    all, n_c of them equal to c, and a distance d,

        alpha = 1 - (n - 1) * sum_u [sum_(i != j in u) d(v_i, v_j) / (m_u - 1)] / sum_(c, k) n_c n_k d(c, k).

    A unit with only one value is left out.

    Args:
        values: Row of `distances` of each value, integers, shape `(M,)`.
        units: The unit that each value belongs to, integers, shape `(M,)`.
        distances: Distance of each pair of values, symmetric with zero diagonal, shape `(K, K)`; `1 - np.eye(K)` for
            nominal values.

    Source:
        Krippendorff, "Computing Krippendorff's Alpha-Reliability", University of Pennsylvania, 2011.
    """
    _, unit, sizes = np.unique(units, return_inverse=True, return_counts=True)
    order = np.argsort(unit, kind="stable")
    order = order[sizes[unit[order]] > 1]
    values, unit = values[order], unit[order]
    observed = 0.0
    for step in range(1, sizes.max()):  # each pair of a unit once
        is_pair = unit[step:] == unit[:-step]
        pairs = distances[values[step:][is_pair], values[:-step][is_pair]]
        observed += 2 * (pairs / (sizes[unit[step:][is_pair]] - 1)).sum()
    counts = np.bincount(values, minlength=len(distances)).astype(np.float64)
    return float(1 - (len(values) - 1) * observed / (counts @ distances @ counts))


def label_alphas(answers: Answers) -> Array:
    """Compute alpha of the decisions of the annotators for each label, nominal, shape `(L,)`."""
    decisions = answers.labels.astype(np.int64)
    return np.array([krippendorff_alpha(column, answers.image, 1 - np.eye(2)) for column in decisions.T])


def pooled_alpha(answers: Answers) -> float:
    """Compute alpha of all decisions, nominal, whose units are the pairs of an image and a label."""
    num_images, num_labels = answers.image[-1] + 1, answers.labels.shape[1]
    units = answers.image + num_images * np.arange(num_labels)[:, None]
    return krippendorff_alpha(answers.labels.T.astype(np.int64).ravel(), units.ravel(), 1 - np.eye(2))


def answer_alphas(answers: Answers) -> dict[str, float]:
    """Compute alpha of whole answers, for two distances of label sets: 1 - Jaccard index, and 1 - MASI.

    MASI is the Jaccard index times 1 for equal sets, 2/3 if one contains the other, 1/3 if they overlap otherwise.

    Source:
        Passonneau, "Measuring Agreement on Set-Valued Items (MASI) for Semantic and Pragmatic Annotation", LREC 2006.
    """
    sets, values = np.unique(answers.labels, axis=0, return_inverse=True)
    matrix = torch.from_numpy(sets).double()
    similarity, shared = jaccard(matrix).numpy(), inner_product(matrix).numpy()
    size = sets.sum(axis=1)
    contained = shared == np.minimum(size[:, None], size)
    masi = similarity * np.where(similarity == 1, 1, np.where(contained, 2 / 3, 1 / 3))
    similarities = {"Jaccard": similarity, "MASI": masi}
    return {
        name: krippendorff_alpha(values.ravel(), answers.image, 1 - matrix) for name, matrix in similarities.items()
    }
