"""Read annotations in the form of the Pittsburgh Ads sentiments (Hussain et al., CVPR 2017).

A set in this form is an annotation file, a label list and a folder of images:

- the annotation file is JSON, `{"0/49380.jpg": [["1", "5"], ["12"], ["21", "Other"]], ...}`: for each image, named
  relative to the image folder, one list of label ids for each annotator;
- the label list has one line a label, `1. "Active (energetic, playful)" (ABBREVIATION: "active")`, in latin-1.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import torch

from mlmetric.labels import votes_to_labels

__all__ = ["IMAGE_SUFFIXES", "AdAnnotations", "AnnotationError", "read_annotations", "read_label_list"]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")

# The gap before the parenthesis is the byte 0xA0 in the original; some labels have no parenthesis at all.
_LABEL_LINE = re.compile(r'\s*(\d+)\.\s*"[^"(]+(?:\([^")]*\)\s*)?"\s*\(ABBREVIATION:\s*"([^"]+)"\)\s*')
_LABEL_LINE_EXAMPLE = '1. "Active (energetic, playful)" (ABBREVIATION: "active")'


class AnnotationError(ValueError):
    """An annotation file or a label list that does not have the expected form."""


@dataclass(frozen=True)
class AdAnnotations:
    """Images with the sentiments that annotators saw in them.

    Attributes:
        paths: For each of N images its path relative to the image folder, as the annotation file has it.
        votes: How many annotators chose the label, int32, shape `(N, L)`; column 0 is label id 1.
        num_annotators: How many annotators answered, int32, shape `(N,)`. One who wrote free text only counts too.
        label_names: The L abbreviations of the label list.
        skipped_answers: How often each free text ("Other") or empty string occurred; these are no votes.
        dropped_images: How many images were left out because no label remained for them: nothing can be learnt from
            them, and an all-zero row is similar to nothing.
    """

    paths: list[str]
    votes: torch.Tensor
    num_annotators: torch.Tensor
    label_names: list[str]
    skipped_answers: Counter[str]
    dropped_images: int

    def labels(self, min_votes: int = 1, *, soft: bool = False) -> torch.Tensor:
        """Turn the votes into labels.

        With `min_votes` above 1 an image on which nobody agrees keeps its row, all zero.

        Args:
            min_votes: The votes that a label needs: 1 is the union over annotators, 2 agreement.
            soft: Whether to return the share of the annotators who chose the label instead.

        Returns:
            Shape `(N, L)`: uint8 in {0, 1}, or float32 in [0, 1] if `soft`.

        Raises:
            ValueError: If `min_votes` is below 1, or above 1 together with `soft`.
        """
        if soft and min_votes != 1:
            raise ValueError(f"`min_votes` must be 1 for soft labels, got {min_votes}. Threshold hard labels instead.")
        return votes_to_labels(self.votes, self.num_annotators if soft else None, min_votes=min_votes)


def read_annotations(annotations: str | Path, label_list: str | Path) -> AdAnnotations:
    """Read an annotation file and its label list.

    An id that an annotator lists twice counts once. Free text and empty strings are counted and skipped. Whether the
    images exist is not looked at.

    Args:
        annotations: The annotation file, JSON in UTF-8.
        label_list: The label list; the label ids of the annotations are its line numbers, from 1.

    Returns:
        The images in the order of the file, without those that have no label.

    Raises:
        FileNotFoundError: If one of the files does not exist.
        AnnotationError: If one of them does not have the form described above; the message names the file, the place
            and what to do.
    """
    annotations = Path(annotations)
    try:
        images = json.loads(_read(annotations, "annotation file").decode("utf-8"))
    except ValueError as error:
        raise AnnotationError(
            f"{annotations} must be JSON in UTF-8, got: {error}. If the file was cut short, fetch it again."
        ) from error
    if not isinstance(images, dict):
        raise AnnotationError(
            f"{annotations} must hold a JSON object of image paths, got {_kind(images)}. "
            "Pass the file that has the form of Sentiments.json."
        )
    label_names = read_label_list(label_list)
    columns = {str(column + 1): column for column in range(len(label_names))}
    paths: list[str] = []
    votes: list[list[int]] = []
    num_annotators: list[int] = []
    skipped: Counter[str] = Counter()
    for key, answers in images.items():
        place = f"{annotations}, image {key!r}"
        _check_key(key, place)
        row = [0] * len(columns)
        for column in _chosen_columns(answers, columns, skipped, place, str(label_list)):
            row[column] += 1
        if any(row):
            paths.append(key)
            votes.append(row)
            num_annotators.append(len(answers))
    return AdAnnotations(
        paths=paths,
        votes=torch.tensor(votes, dtype=torch.int32).reshape(len(paths), len(columns)),
        num_annotators=torch.tensor(num_annotators, dtype=torch.int32),
        label_names=label_names,
        skipped_answers=skipped,
        dropped_images=len(images) - len(paths),
    )


def read_label_list(path: str | Path) -> list[str]:
    """Read the abbreviations of a label list.

    Args:
        path: A latin-1 file with one line a label, numbered from 1; the parenthesis of synonyms may be missing, and
            blank lines are skipped.

    Returns:
        The abbreviations, in the order of the file.

    Raises:
        FileNotFoundError: If the file does not exist.
        AnnotationError: If a line cannot be read, the numbers do not run 1, 2, 3, ..., an abbreviation occurs twice,
            or there is no label at all.
    """
    path = Path(path)
    names: list[str] = []
    for number, line in enumerate(_read(path, "label list").decode("latin-1").split("\n"), start=1):
        if not line.strip():
            continue
        match = _LABEL_LINE.fullmatch(line)
        if match is None:
            raise AnnotationError(
                f"{path}, line {number} must look like {_LABEL_LINE_EXAMPLE}, got {line.strip()!r}. "
                "Correct the line, or pass the label list that belongs to the annotations."
            )
        label_id, name = match.groups()
        if label_id != str(len(names) + 1):
            raise AnnotationError(
                f"{path}, line {number} must have label number {len(names) + 1}, got {label_id}. "
                "Number the labels 1, 2, 3, ... without gaps."
            )
        if name in names:
            raise AnnotationError(
                f"{path}, line {number} must have an abbreviation of its own, got {name!r} a second time. Rename one."
            )
        names.append(name)
    if not names:
        raise AnnotationError(
            f"{path} must hold at least one label, got none. A line looks like {_LABEL_LINE_EXAMPLE}."
        )
    return names


def _read(path: Path, what: str) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(f"There is no {what} at {path}. Check the path, or unpack the annotations there.")
    return path.read_bytes()


def _check_key(key: str, place: str) -> None:
    # Both flavours, so that a set is refused everywhere or nowhere.
    for path in (PurePosixPath(key), PureWindowsPath(key)):
        if path.is_absolute() or path.anchor or ".." in path.parts:
            raise AnnotationError(
                f"{place} must be a path inside the image folder, got one that leaves it. "
                "Name images relative to that folder, like '0/49380.jpg'."
            )
    if PurePosixPath(key).suffix.lower() not in IMAGE_SUFFIXES:
        raise AnnotationError(
            f"{place} must end in one of {', '.join(IMAGE_SUFFIXES)}, got {PurePosixPath(key).suffix!r}. "
            "Convert the image or remove its entry."
        )


def _chosen_columns(
    answers: Any, columns: dict[str, int], skipped: Counter[str], place: str, label_list: str
) -> list[int]:
    if not isinstance(answers, list):
        raise AnnotationError(
            f"{place} must have a list of answers, one for each annotator, got {_kind(answers)}. "
            "Correct or remove the entry."
        )
    chosen: list[int] = []
    for number, answer in enumerate(answers, start=1):
        if not isinstance(answer, list) or not all(isinstance(item, str) for item in answer):
            raise AnnotationError(
                f'{place}, answer {number} must be a list of strings like ["1", "5"], got {answer!r}. '
                "Correct or remove the answer."
            )
        for text in {item.strip(): None for item in answer}:
            if text in columns:
                chosen.append(columns[text])
            elif text.isdecimal():
                raise AnnotationError(
                    f"{place}, answer {number} must hold label ids from 1 to {len(columns)}, got {text}. "
                    f"Correct the id, or pass the label list that has it ({label_list} has {len(columns)} labels)."
                )
            else:
                skipped[text] += 1
    return chosen


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
