"""Tables of `ads_labels.py`: the labels, and the preprocessing of the paper."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ads.reader import AdAnnotations
from markdown_table import print_table
from mlmetric.data import stratified_split
from mlmetric.imbalance import ImbalanceReport, imbalance_report
from mlmetric.labels import cooccurrence
from mlmetric.under_sampling import LabelCapUnderSampler
from under_sampling_methods import seeded

Array = npt.NDArray[Any]
FRACTIONS = (0.7, 0.2, 0.1)
PAPER_CAPPED = [1, 4, 12, 14, 18]
PAPER_ROWS = {"0/80990.jpg": [4, 6, 11, 12, 21, 24, 25], "2/97682.jpg": [1, 4, 9, 12, 30]}
PAPER_CAPPED_ROW = "2/97682.jpg", [1, 4, 9, 30]


def percent(value: float) -> str:
    """Format a fraction."""
    return f"{100 * value:.1f} %"


def ids_of(labels: Array) -> list[int]:
    """Return the label ids, from 1, of a multi-hot or bool row."""
    return (np.flatnonzero(labels) + 1).tolist()


# 1. Description.


def describe(annotations: AdAnnotations) -> None:
    """Print the size of the set, the measures of imbalance for both definitions of a label, and each label."""
    people = annotations.num_annotators
    groups = ", ".join(f"{count:,} by {number}" for number, count in sorted(Counter(people.tolist()).items()))
    votes = int(annotations.votes.sum())
    print(
        f"\n# Description\n\n{len(annotations.paths):,} images; {int(people.sum()):,} answers ({groups} annotators); "
    )
    print(f"{votes:,} votes, {votes / int(people.sum()):.2f} an answer, {votes / len(people):.2f} an image; ")
    print(f"{annotations.skipped_answers.total():,} free texts, {annotations.dropped_images:,} images without a label")
    matrices = [annotations.labels(min_votes).numpy() for min_votes in (1, 2)]
    reports = [imbalance_report(labels, label_names=annotations.label_names) for labels in matrices]
    sets = [np.unique(labels[labels.any(axis=1)], axis=0, return_counts=True)[1] for labels in matrices]

    def row(title: str, values: list[Any], form: str) -> list[str]:
        return [title, *(f"{value:{form}}" for value in values)]

    print_table(
        ["", "chosen by 1 annotator", "by 2 or more"],
        [
            row("images without a label", [report.num_rows_without_label for report in reports], ",d"),
            row("labels an image", [report.cardinality for report in reports], ".3f"),
            row("different label sets", [len(counts) for counts in sets], ",d"),
            row("of these, sets of one image", [(counts == 1).sum() for counts in sets], ",d"),
            row("images of the most frequent label", [report.counts.max() for report in reports], ",d"),
            row("images of the rarest label", [report.counts.min() for report in reports], ",d"),
            row("MeanIR", [report.mean_ir for report in reports], ".2f"),
            row("CVIR", [report.cvir for report in reports], ".2f"),
            row("SCUMBLE", [report.scumble for report in reports], ".3f"),
        ],
    )
    heads = ["label", "id", "images", "IRLbl", "SCUMBLELbl", "2 or more agree", "IRLbl", "share"]
    print_table(heads, label_rows(*reports))
    pairs = pair_rows(matrices[0], annotations.label_names)
    heads = ["a", "b", "images with both", "P(b given a)", "P(a given b)", "times as often as if independent"]
    print_table(heads, (cells for _, cells in sorted(pairs, key=lambda pair: -pair[0][0])[:12]), num_text=2)
    frequent = [pair for pair in pairs if pair[0][0] >= len(matrices[0]) / 300]
    print_table(heads, (cells for _, cells in sorted(frequent, key=lambda pair: -pair[0][1])[:12]), num_text=2)


def label_rows(union: ImbalanceReport, agreed: ImbalanceReport) -> Iterator[list[str]]:
    """Yield a row for each label, the most frequent first."""
    for label in np.argsort(-union.counts, kind="stable"):
        cells = [union.label_names[label], f"{label + 1}", f"{union.counts[label]:,}", f"{union.ir_lbl[label]:.2f}"]
        cells += [f"{union.scumble_per_label[label]:.3f}", f"{agreed.counts[label]:,}", f"{agreed.ir_lbl[label]:,.1f}"]
        yield [*cells, percent(agreed.counts[label] / union.counts[label])]


def pair_rows(labels: Array, names: list[str]) -> list[tuple[tuple[float, float], list[str]]]:
    """Return a row for each pair of labels, with its count and how much more frequent it is than if independent."""
    both = cooccurrence(labels)
    counts = np.diag(both)
    rows = []
    for a, b in zip(*np.triu_indices(len(counts), 1), strict=True):
        lift = both[a, b] * len(labels) / (counts[a] * counts[b])
        cells = [names[a], names[b], f"{both[a, b]:,.0f}", f"{both[a, b] / counts[a]:.3f}"]
        rows.append(((both[a, b], lift), [*cells, f"{both[a, b] / counts[b]:.3f}", f"{lift:.2f}"]))
    return rows


# 2. The preprocessing of the paper.


def preprocess(annotations: AdAnnotations, num_parts: int = 100, num_seeds: int = 20) -> None:
    """Print the label cap of the paper, on all images and on the training part, beside what the paper states."""
    labels = annotations.labels().numpy()
    training = labels[stratified_split(labels, FRACTIONS, generator=torch.Generator().manual_seed(0))[0].numpy()]
    caps = [LabelCapUnderSampler(random_state=0) for _ in range(2)]
    for cap, part in zip(caps, (labels, training), strict=True):
        cap.fit_resample(part, part)
    rng = np.random.default_rng(0)
    parts = [labels[rng.permutation(len(labels))[: len(training)]].sum(axis=0) for _ in range(num_parts)]
    capped = [np.flatnonzero(counts > 2 * counts.mean()) for counts in parts]
    same = sum(np.array_equal(found, caps[0].capped_labels_) for found in capped)
    top = int(caps[0].counts_before_.argmax())
    left = [cap.counts_after_[top] / cap.counts_before_[top] for cap in caps]
    print("\n# The preprocessing of the paper: a cap of twice the mean count")
    print(f"\nOf {num_parts} random training parts of {len(training):,} images, the capped labels of {same} are those ")
    print("of all images.")
    margins = [int(cap.counts_before_[cap.capped_labels_].min() - cap.cap_) for cap in caps]
    print_table(
        ["", "paper", "all images", "stratified training part"],
        [
            ["images", "30,340", f"{len(labels):,}", f"{len(training):,}"],
            ["mean count of a label", "", *(f"{cap.counts_before_.mean():,.1f}" for cap in caps)],
            ["cap", "", *(f"{cap.cap_:,}" for cap in caps)],
            ["capped labels", f"{PAPER_CAPPED}", *(f"{(cap.capped_labels_ + 1).tolist()}" for cap in caps)],
            ["images of the rarest of them above the cap", "", *(f"{margin:,}" for margin in margins)],
            [f"{annotations.label_names[top]}: positives left", "", *(percent(share) for share in left)],
            [f"{annotations.label_names[top]}: removed", "about 43 %", *(percent(1 - share) for share in left)],
            ["positives removed", "", *(f"{cap.removed_per_label_.sum():,}" for cap in caps)],
            ["images left without a label", "", *(f"{cap.n_emptied_rows_:,}" for cap in caps)],
            ["MeanIR before", "", *(f"{cap.mean_ir_before_:.2f}" for cap in caps)],
            ["MeanIR after", "", *(f"{cap.mean_ir_after_:.2f}" for cap in caps)],
        ],
    )
    counts = np.stack([count for cap in caps for count in (cap.counts_before_, cap.counts_after_)], axis=1)
    print_table(
        ["label", "id", "all images: before", "after", "training part: before", "after"],
        (
            [name, str(number), *(f"{count:,}" for count in row)]
            for number, (name, row) in enumerate(zip(annotations.label_names, counts, strict=True), start=1)
        ),
    )
    worked_rows(annotations, labels, caps[0], num_seeds)


def worked_rows(annotations: AdAnnotations, labels: Array, cap: LabelCapUnderSampler, num_seeds: int) -> None:
    """Print the images that the paper shows, and how often the cap gives the labels that it shows."""
    index = {path: row for row, path in enumerate(annotations.paths)}
    rows = [[path, f"{ids}", f"{ids_of(labels[index[path]])}"] for path, ids in PAPER_ROWS.items() if path in index]
    print_table(["image", "paper", "union of the annotators"], rows, num_text=3)
    path, wanted = PAPER_CAPPED_ROW
    if path in index:
        results = [seeded(cap, seed).fit_resample(labels, labels)[1][index[path]] for seed in range(num_seeds)]
        kept = cap.counts_after_ / cap.counts_before_
        chances = np.where(np.isin(np.arange(1, len(kept) + 1), wanted), kept, 1 - kept)
        print(f"\n{path} has the labels {wanted} after the cap, as in the paper, with ", end="")
        print(f"{sum(ids_of(row) == wanted for row in results)} of {num_seeds} seeds; ", end="")
        print(f"its probability is {chances[labels[index[path]] > 0].prod():.2f}.")
