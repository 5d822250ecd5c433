"""Read annotations in the format of the Pittsburgh Ads sentiments (Hussain et al., CVPR 2017).

A set in this format has an annotation file, a label list and a folder of images:

- the annotation file is JSON, `{"0/49380.jpg": [["1", "5"], ["12"], ["21", "Other"]], ...}`: for each image path,
  relative to the image folder, a list of label ids for each annotator;
- the label list has a line for each label, `1. "Active (energetic, playful)" (ABBREVIATION: "active")`, in UTF-8 or
  latin-1.
"""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from mlmetric.labels import votes_to_labels

from .user_files import AnnotationError, image_path, label_name, quote, read_file, shorten

__all__ = ["IMAGE_SUFFIXES", "AdAnnotations", "AnnotationError", "read_annotations", "read_label_list"]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")

# The space before the parenthesis is the byte 0xA0 in the original; some labels have no parenthesis.
_LABEL_LINE = re.compile(r'\s*(\d+)\.\s*"[^"(]+(?:\([^")]*\)\s*)?"\s*\(ABBREVIATION:\s*"([^"]+)"\)\s*')
_LABEL_LINE_EXAMPLE = '1. "Active (energetic, playful)" (ABBREVIATION: "active")'


@dataclass(frozen=True)
class AdAnnotations:
    """Images with the sentiments that annotators chose.

    Attributes:
        paths: The normalised paths of N images, relative to the image folder.
        votes: Number of annotators who chose the label, int32, shape `(N, L)`; column 0 is label id 1.
        num_annotators: Number of annotators, int32, shape `(N,)`, including those whose answer is only free text.
        label_names: The abbreviations of the L labels.
        skipped_answers: The number of occurrences of each free text ("Other") or empty string; these are not votes.
        dropped_images: Number of images that were excluded because they have no label.
        merged_entries: Number of entries of the file that were merged into an earlier entry of the same image.
    """

    paths: list[str]
    votes: torch.Tensor
    num_annotators: torch.Tensor
    label_names: list[str]
    skipped_answers: Counter[str]
    dropped_images: int
    merged_entries: int

    def labels(self, min_votes: int = 1, *, soft: bool = False) -> torch.Tensor:
        """Convert the votes to labels.

        With `min_votes` above 1, the row of an image without agreement is all zero.

        Args:
            min_votes: The number of votes that a label requires: 1 for the union over annotators, 2 for agreement.
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
    r"""Read an annotation file and its label list.

    An id that occurs twice in an answer counts once. Free text and empty strings are counted and skipped. Several
    entries of one image, including different spellings of its path such as `./0/1.jpg` and `0/1.jpg`, are merged: its
    annotators are those of all these entries. It is not checked whether the images exist.

    Args:
        annotations: The annotation file, JSON in UTF-8. A byte of a file name that is not UTF-8 is written as Python's
            `json.dump` does: `"\udce9"` for 0xE9.
        label_list: The label list; the label ids of the annotations are its line numbers, from 1.

    Returns:
        The images in the order of the file, without those that have no label.

    Raises:
        FileNotFoundError: If one of the files does not exist.
        OSError: If one of them cannot be read.
        AnnotationError: If one of them does not have the format described above; the message names the file, the
            position and the remedy.
    """
    entries = _read_entries(Path(annotations))
    label_names = read_label_list(label_list)
    columns = {str(column + 1): column for column in range(len(label_names))}
    votes: dict[str, list[int]] = {}
    num_annotators: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    for key, answers in entries:
        place = f"{annotations}, image {quote(key)}"
        path = image_path(key, place)
        _check_suffix(path, place)
        row = votes.setdefault(path, [0] * len(columns))
        for column in _chosen_columns(answers, columns, skipped, place, str(label_list)):
            row[column] += 1
        num_annotators[path] += len(answers)
    paths = [path for path, row in votes.items() if any(row)]
    return AdAnnotations(
        paths=paths,
        votes=torch.tensor([votes[path] for path in paths], dtype=torch.int32).reshape(len(paths), len(columns)),
        num_annotators=torch.tensor([num_annotators[path] for path in paths], dtype=torch.int32),
        label_names=label_names,
        skipped_answers=skipped,
        dropped_images=len(votes) - len(paths),
        merged_entries=len(entries) - len(votes),
    )


def read_label_list(path: str | Path) -> list[str]:
    """Read the abbreviations of a label list.

    Args:
        path: A file with a line for each label, numbered from 1, in UTF-8, or in latin-1 like the original; the
            synonyms in parentheses are optional, and blank lines are skipped.

    Returns:
        The abbreviations, in the order of the file.

    Raises:
        FileNotFoundError: If the file does not exist.
        OSError: If the file cannot be read.
        AnnotationError: If a line cannot be read, the numbers do not run 1, 2, 3, ..., an abbreviation occurs twice,
            is blank or contains a control character, or the file contains no label.
    """
    path = Path(path)
    names: list[str] = []
    content = read_file(path, "label list")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        if not line.strip():
            continue
        match = _LABEL_LINE.fullmatch(line)
        if match is None:
            raise AnnotationError(
                f"{path}, line {number} must look like {_LABEL_LINE_EXAMPLE}, got {quote(line.strip())}. "
                "Correct the line, or pass the label list of the annotations."
            )
        label_id, name = match[1], label_name(match[2], f"{path}, line {number}: the abbreviation")
        if label_id != str(len(names) + 1):
            raise AnnotationError(
                f"{path}, line {number} must have label number {len(names) + 1}, got {shorten(label_id)}. "
                "Number the labels 1, 2, 3, ... without gaps."
            )
        if name in names:
            raise AnnotationError(
                f"{path}, line {number} must have a unique abbreviation, got {quote(name)} a second time. Rename one."
            )
        names.append(name)
    if not names:
        raise AnnotationError(
            f"{path} must contain at least one label, got none. A line looks like {_LABEL_LINE_EXAMPLE}."
        )
    return names


def _read_entries(path: Path) -> tuple[tuple[str, Any], ...]:
    """Return each image with its answers; an image can occur several times."""
    try:
        # Objects become tuples of pairs, which keep a key that occurs twice.
        entries = json.loads(read_file(path, "annotation file").decode("utf-8-sig"), object_pairs_hook=tuple)
    except RecursionError as error:
        raise AnnotationError(
            f"{path} must contain an object of lists of lists, got lists or objects that are nested too deeply. "
            "Pass a file in the format of Sentiments.json."
        ) from error
    except ValueError as error:
        raise AnnotationError(
            f"{path} must be JSON in UTF-8, got: {error}. If the file is truncated, download it again."
        ) from error
    if not isinstance(entries, tuple):
        raise AnnotationError(
            f"{path} must contain a JSON object of image paths, got {_kind(entries)}. "
            "Pass a file in the format of Sentiments.json."
        )
    return entries


def _check_suffix(path: str, place: str) -> None:
    suffix = PurePosixPath(path).suffix
    if suffix.lower() not in IMAGE_SUFFIXES:
        raise AnnotationError(
            f"{place} must end in one of {', '.join(IMAGE_SUFFIXES)}, got {quote(suffix)}. "
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
                f'{place}, answer {number} must be a list of strings like ["1", "5"], got {quote(answer)}. '
                "Correct or remove the answer."
            )
        for text in {item.strip(): None for item in answer}:
            if text in columns:
                chosen.append(columns[text])
            elif text.isdecimal():
                raise AnnotationError(
                    f"{place}, answer {number} must contain label ids from 1 to {len(columns)}, got {shorten(text)}. "
                    f"Correct the id, or pass the label list that contains it ({label_list} has {len(columns)} labels)."
                )
            else:
                skipped[text] += 1
    return chosen


def _kind(value: Any) -> str:
    names = {tuple: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
