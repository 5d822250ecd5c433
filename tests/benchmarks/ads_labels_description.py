"""Tables of `ads_labels.py`: the labels, and the preprocessing of the paper."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ads.reader import AdAnnotations
from mlmetric.data import stratified_split
from mlmetric.imbalance import ImbalanceReport, imbalance_report
from mlmetric.labels import cooccurrence
from mlmetric.under_sampling import LabelCapUnderSampler
from result_tables import ResultTables
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


# The labels.


def describe(annotations: AdAnnotations, tables: ResultTables) -> None:
    """Print the size of the set, the measures of imbalance for both definitions of a label, and each label."""
    people, votes = annotations.num_annotators.tolist(), int(annotations.votes.sum())
    groups = ", ".join(f"{count:,} by {number}" for number, count in sorted(Counter(people).items()))
    print(
        f"\n# Description\n\n{len(people):,} images ({groups} annotators); {sum(people):,} answers; {votes:,} votes, "
        f"{votes / sum(people):.2f} an answer, {votes / len(people):.2f} an image; "
        f"{annotations.skipped_answers.total():,} free texts; {annotations.dropped_images:,} images without a label"
    )
    matrices = [annotations.labels(min_votes).numpy() for min_votes in (1, 2)]
    reports = [imbalance_report(labels, label_names=annotations.label_names) for labels in matrices]
    sets = [np.unique(labels[labels.any(axis=1)], axis=0, return_counts=True)[1] for labels in matrices]

    def row(title: str, values: list[Any], form: str) -> list[str]:
        return [title, *(f"{value:{form}}" for value in values)]

    tables.show(
        "ads_imbalance",
        ["labels with", "1 or more votes", "2 or more votes"],
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
    heads = [
        "label",
        "id",
        "images",
        "IRLbl",
        "SCUMBLELbl",
        "2 or more votes: images",
        "2 or more votes: IRLbl",
        "share",
    ]
    tables.show("ads_labels", heads, label_rows(*reports))
    print_pairs(matrices[0], annotations.label_names, tables)


def label_rows(union: ImbalanceReport, agreed: ImbalanceReport) -> Iterator[list[str]]:
    """Yield a row for each label, the most frequent first."""
    for label in np.argsort(-union.counts, kind="stable"):
        cells = [union.label_names[label], f"{label + 1}", f"{union.counts[label]:,}", f"{union.ir_lbl[label]:.2f}"]
        cells += [f"{union.scumble_per_label[label]:.3f}", f"{agreed.counts[label]:,}", f"{agreed.ir_lbl[label]:,.1f}"]
        yield [*cells, percent(agreed.counts[label] / union.counts[label])]


def print_pairs(
    labels: Array, names: list[str], tables: ResultTables, num_pairs: int = 10, min_images: int = 100
) -> None:
    """Print the most frequent pairs of labels, and those that are most frequent relative to independent labels."""
    both = cooccurrence(labels)
    given = both / np.diag(both)  # column: the condition
    lift = len(labels) * given / np.diag(both)[:, None]
    first, second = np.triu_indices(len(both), 1)
    is_frequent = both[first, second] >= min_images
    orders = {
        ("ads_pairs", "The most frequent pairs of labels"): np.argsort(-both[first, second], kind="stable"),
        ("ads_related_pairs", f"Pairs of at least {min_images} images, relative to the count of independent labels"): [
            pair for pair in np.argsort(-lift[first, second], kind="stable") if is_frequent[pair]
        ],
    }
    heads = ["a", "b", "images with both", "share of a with b", "share of b with a", "relative to independent labels"]
    for (file, title), order in orders.items():
        print(f"\n{title}:")
        pairs = ((first[pair], second[pair]) for pair in order[:num_pairs])
        rows = (
            [names[a], names[b], f"{both[a, b]:,.0f}", percent(given[b, a]), percent(given[a, b]), f"{lift[a, b]:.2f}"]
            for a, b in pairs
        )
        tables.show(file, heads, rows, num_text=2)


# The preprocessing of the paper.


def preprocess(annotations: AdAnnotations, tables: ResultTables, num_parts: int = 100, num_seeds: int = 100) -> None:
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
    name = annotations.label_names[top]
    left = [cap.counts_after_[top] / cap.counts_before_[top] for cap in caps]
    print("\n# The preprocessing of the paper: a cap of twice the mean count")
    print(
        f"\nIn {same} of {num_parts} random training parts of {len(training):,} images, "
        "the capped labels are those of all images."
    )
    margins = [min(cap.removed_per_label_[cap.capped_labels_], default=0) for cap in caps]
    tables.show(
        "ads_label_cap",
        ["figure", "paper", "all images", "stratified training part"],
        [
            ["images", "30,340", f"{len(labels):,}", f"{len(training):,}"],
            ["mean count of a label", "", *(f"{cap.counts_before_.mean():,.1f}" for cap in caps)],
            ["cap", "", *(f"{cap.cap_:,}" for cap in caps)],
            ["capped labels", f"{PAPER_CAPPED}", *(f"{(cap.capped_labels_ + 1).tolist()}" for cap in caps)],
            ["images above the cap, of the rarest of them", "", *(f"{margin:,}" for margin in margins)],
            [f"{name}: positives left", "", *(percent(share) for share in left)],
            [f"{name}: positives removed", "about 43 %", *(percent(1 - share) for share in left)],
            ["positives removed", "", *(f"{cap.removed_per_label_.sum():,}" for cap in caps)],
            ["images left without a label", "", *(f"{cap.n_emptied_rows_:,}" for cap in caps)],
            ["MeanIR before", "", *(f"{cap.mean_ir_before_:.2f}" for cap in caps)],
            ["MeanIR after", "", *(f"{cap.mean_ir_after_:.2f}" for cap in caps)],
        ],
    )
    counts = np.stack([count for cap in caps for count in (cap.counts_before_, cap.counts_after_)], axis=1)
    tables.show(
        "ads_label_cap_counts",
        ["label", "id", "all images: before", "all images: after", "training part: before", "training part: after"],
        (
            [name, str(number), *(f"{count:,}" for count in row)]
            for number, (name, row) in enumerate(zip(annotations.label_names, counts, strict=True), start=1)
        ),
    )
    worked_rows(annotations, labels, caps[0], num_seeds, tables)


def worked_rows(
    annotations: AdAnnotations, labels: Array, cap: LabelCapUnderSampler, num_seeds: int, tables: ResultTables
) -> None:
    """Print the images that the paper shows, and how often the cap gives the labels that it shows."""
    index = {path: row for row, path in enumerate(annotations.paths)}
    rows = [[path, f"{ids}", f"{ids_of(labels[index[path]])}"] for path, ids in PAPER_ROWS.items() if path in index]
    if rows:
        tables.show("ads_paper_images", ["image", "paper", "union of the annotators"], rows, num_text=3)
    path, wanted = PAPER_CAPPED_ROW
    if path in index:
        results = [seeded(cap, seed).fit_resample(labels, labels)[1][index[path]] for seed in range(num_seeds)]
        kept = cap.counts_after_ / cap.counts_before_
        chances = np.where(np.isin(np.arange(1, len(kept) + 1), wanted), kept, 1 - kept)
        same = sum(ids_of(row) == wanted for row in results)
        print(
            f"\nThe cap of all images leaves {path} with {wanted}, as in the paper, with {same} of {num_seeds} seeds; "
            f"the probability is {chances[labels[index[path]] > 0].prod():.2f}."
        )
