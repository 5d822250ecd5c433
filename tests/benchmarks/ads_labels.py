"""The library on the real annotations of Pittsburgh Ads, without images: labels, undersampling, splits, batches.

PYTHONPATH=examples python tests/benchmarks/ads_labels.py --annotations FILE --label-list FILE [--topics FILE]
PYTHONPATH=examples python tests/benchmarks/ads_labels.py --quick    # a synthetic set, whose figures are meaningless

FILE is Sentiments.json and Sentiments_List.txt, or any set in this format (see `examples/ads/reader.py`), and
Topics.json, which gives one topic for each annotator of an image: the features of samplers that use neighbours are the
share of the annotators that chose each topic. Without it these samplers are left out.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import BatchSampler, RandomSampler

from ads.reader import AdAnnotations, read_annotations
from ads.synthetic import make_synthetic_ads
from ads_labels_description import FRACTIONS, describe, percent, preprocess
from annotator_agreement import (
    Answers,
    answer_alphas,
    compare,
    label_alphas,
    pooled_alpha,
    read_answers,
    votes_of_others,
)
from mlmetric.data import stratified_split
from mlmetric.imbalance import mean_ir
from mlmetric.neighbors import kneighbors
from mlmetric.samplers import MultiLabelBatchSampler, positive_report
from mlmetric.similarity import Jaccard
from result_tables import ResultTables, add_write_option
from under_sampling_methods import MAX_NEIGHBORS, NEIGHBOR_SAMPLERS, SAMPLERS, seeded

Array = npt.NDArray[Any]
NUM_TOPICS = 38  # ids above are "Unclear" and topics in the annotator's own words


def read_topics(path: Path, annotations: AdAnnotations) -> tuple[Array, Counter[str]]:
    """Read the share of the annotators that chose each topic, shape `(N, 38)`, and count the other answers."""
    entries = json.loads(path.read_text(encoding="utf-8-sig"))
    ids = {str(number + 1): number for number in range(NUM_TOPICS)}
    votes, others = np.zeros((len(annotations.paths), NUM_TOPICS)), Counter[str]()
    for row, image in enumerate(annotations.paths):
        if image not in entries:
            raise ValueError(f"{path} must contain every annotated image, but {image} is missing. Omit --topics.")
        for topic in entries[image]:
            if topic in ids:
                votes[row, ids[topic]] += 1
            else:
                others[topic] += 1
    return votes / np.array([[len(entries[image])] for image in annotations.paths]), others


def undersample(labels: Array, topics: tuple[Array, Counter[str]] | None, tables: ResultTables) -> None:
    """Print what each sampler removes."""
    print(f"\n# Undersampling: {len(labels):,} images, MeanIR {mean_ir(labels):.2f} before, seed 0")
    searches: dict[str, Array] = {}
    if topics is None:
        print("\nSamplers that use neighbours are left out: they need --topics.")
    else:
        shares, others = topics
        sizes = np.unique(shares, axis=0, return_counts=True)[1]
        start = time.perf_counter()
        searches[""] = kneighbors(shares, MAX_NEIGHBORS)[1]
        seconds = time.perf_counter() - start
        noise = 1e-6 * np.random.default_rng(0).normal(size=shares.shape)  # far below the differences of the shares
        searches[", ties at random"] = kneighbors(shares + noise, MAX_NEIGHBORS)[1]
        duplicates = percent(sizes[sizes > 1].sum() / len(labels))
        print(
            f"\nFeatures: the share of the annotators for each of {NUM_TOPICS} topics; {others.total():,} answers are "
            f"none of these.\n{len(sizes):,} different rows; {duplicates} of the images have the features of another, "
            f"up to {sizes.max():,} images the same features.\nOf equally near rows, the neighbour is the one with the "
            'lowest index or, with "ties at random", any.\nThe search, which the seconds of the samplers do not '
            f"include, took {seconds:.1f} s."
        )
    heads = ["sampler", "images removed", "share of the images", "positives removed", "share of the positives"]
    heads += ["labels lost", "MeanIR after", "seconds"]
    tables.show("ads_undersampling", heads, sampler_rows(labels, searches))


def sampler_rows(labels: Array, searches: dict[str, Array]) -> Iterator[list[str]]:
    """Yield a row for each sampler and, if it uses neighbours, each search."""
    for title, unseeded in SAMPLERS.items():
        uses_neighbors = isinstance(unseeded, NEIGHBOR_SAMPLERS)
        for suffix, neighbors in searches.items() if uses_neighbors else [("", None)]:
            sampler = seeded(unseeded, 0)
            options = {"neighbors": neighbors} if uses_neighbors else {}
            start = time.perf_counter()
            try:
                result = sampler.fit_resample(labels, labels, **options)[1]
            except ValueError as error:
                if "would remove all" not in str(error):
                    raise
                yield [f"`{title}`{suffix}", "all, an error", *[""] * 6]
                continue
            seconds = time.perf_counter() - start
            removed, lost = len(labels) - len(result), sampler.removed_per_label_.sum()
            cells = [f"`{title}`{suffix}", f"{removed:,}", percent(removed / len(labels)), f"{lost:,}"]
            cells += [percent(lost / labels.sum()), str(((sampler.counts_after_ == 0) & labels.any(axis=0)).sum())]
            yield [*cells, f"{sampler.mean_ir_after_:.2f}", f"{seconds:.2f}"]


def split_rows(annotations: AdAnnotations, num_seeds: int = 5) -> Iterator[list[str]]:
    """Yield the quality of stratified and random splits for each definition of a label."""
    for min_votes in (1, 2):
        labels = annotations.labels(min_votes).numpy().astype(np.int64)
        labels = labels[:, labels.any(axis=0)]
        expected = labels.sum(axis=0) * np.array(FRACTIONS)[:, None]
        for kind in ("stratified", "random"):
            shares, images, empty = [], [], []
            for seed in range(num_seeds):
                generator = torch.Generator().manual_seed(seed)
                parts = stratified_split(labels, FRACTIONS, generator=generator)
                if kind == "random":
                    parts = torch.randperm(len(labels), generator=generator).split([len(part) for part in parts])
                counts = np.stack([labels[part.numpy()].sum(axis=0) for part in parts])
                difference = np.abs(counts - expected)
                shares.append(100 * (difference / labels.sum(axis=0)).max())
                images.append(difference.max())
                empty.append((counts == 0).sum())
            cells = [f"{kind}, {min_votes} or more votes"]
            for values, digits in ((shares, 2), (images, 1), (empty, 1)):
                cells += [f"{np.mean(values):.{digits}f}", f"{np.max(values):.{digits}f}"]
            yield cells


def batch_rows(labels: Array) -> Iterator[list[str]]:
    """Yield the statistics of the batches of one epoch, for random batches and batches by label."""
    rarest = int(labels.sum(axis=0).argmin())
    target = torch.from_numpy(labels)
    for title, size, weights in (
        ("random, 64", 64, None),
        ("by label, 64, uniform", 64, "uniform"),
        ("by label, 64, inverse frequency", 64, "inverse_frequency"),
        ("random, 256", 256, None),
        ("by label, 256, uniform", 256, "uniform"),
    ):
        generator = torch.Generator().manual_seed(0)
        sampler: Any = BatchSampler(RandomSampler(range(len(labels)), generator=generator), size, drop_last=True)
        if weights is not None:
            sampler = MultiLabelBatchSampler(labels, size, label_weights=weights, generator=generator)
        start = time.perf_counter()
        batches = list(sampler)
        seconds = time.perf_counter() - start
        report = positive_report(batches, target)
        half = positive_report(batches, target, similarity=Jaccard(), positive_threshold=0.5)
        with_another = report.label_fraction_with_positive
        yield [
            title,
            *(f"{found.fraction_with_positive:.3f}" for found in (report, half)),
            f"{with_another.nanmean():.3f}",
            f"{int(report.label_counts[rarest]):,}",
            f"{with_another[rarest]:.2f}",
            f"{len(report.unsampled_items):,}",
            f"{seconds:.2f}",
        ]


def agreement_rows(answers: Answers) -> Iterator[list[str]]:
    """Yield how well an answer predicts those of the other annotators of its image."""
    others = votes_of_others(answers)
    num_answers = np.bincount(answers.image)[answers.image]
    most_frequent = np.arange(others.shape[1]) == answers.labels.sum(axis=0).argmax()
    for title, target in (("union of the others", others >= 1), ("labels of 2 or more others", others >= 2)):
        defined = target.any(axis=1)
        groups = {f"{size} annotators": defined & (num_answers == size) for size in np.unique(num_answers[defined])}
        predictions = [("the answer", group, answers.labels[rows], target[rows]) for group, rows in groups.items()]
        chosen, target = answers.labels[defined], target[defined]
        random = np.random.default_rng(0).permutation(chosen)
        predictions += [
            ("the answer", "all", chosen, target),
            ("another answer at random", "all", random, target),
            ("the most frequent label", "all", np.tile(most_frequent, (len(target), 1)), target),
        ]
        for name, group, predicted, wanted in predictions:
            values = (f"{value:.3f}" for value in compare(predicted, wanted))
            yield [title, name, group, f"{len(wanted):,}", *values]


def synthetic_set(folder: Path) -> tuple[Path, Path, Path]:
    """Make a small set in the format of the real one, with random topics."""
    files = make_synthetic_ads(folder, num_images=300, size=32)
    rng = np.random.default_rng(0)
    topics = {
        image: rng.integers(1, 41, size=3).astype(str).tolist() for image in json.loads(files.annotations.read_text())
    }
    path = folder / "Topics.json"
    path.write_text(json.dumps(topics))
    return files.annotations, files.label_list, path


def report(tables: ResultTables, annotation_file: Path, label_list: Path, topic_file: Path | None) -> None:
    """Print all tables."""
    annotations = read_annotations(annotation_file, label_list)
    labels = annotations.labels().numpy()
    describe(annotations, tables)
    preprocess(annotations, tables)
    undersample(labels, None if topic_file is None else read_topics(topic_file, annotations), tables)
    print(f"\n# Splits: largest deviation over labels and parts of {FRACTIONS}, mean and largest of 5 seeds")
    heads = ["split, labels", "% of the label", "largest %", "images", "largest number of images"]
    heads += ["parts without a label", "largest number of parts"]
    tables.show("ads_splits", heads, split_rows(annotations))
    print(f"\n# Batches of an epoch; the rarest label has {labels.sum(axis=0).min():,} images.")
    print('"With another of the label" is the mean of the labels; the rarest label has its own column.')
    heads = ["batches", "anchors with a positive", "with Jaccard above 0.5", "with another of the label"]
    heads += ["rarest label occurs", "rarest label with another", "images not sampled", "seconds"]
    tables.show("batches", heads, batch_rows(labels))
    print("\n# Agreement of one annotator with the others of the same image")
    answers = read_answers(annotation_file, annotations)
    heads = ["target", "prediction", "images", "answers", "micro precision", "micro recall", "micro F1", "macro F1"]
    tables.show("agreement", heads, agreement_rows(answers), num_text=3)
    by_label = label_alphas(answers)
    rows = [
        ["one label, mean of the labels", f"{by_label.mean():.3f}"],
        ["all labels, with a pair of image and label as a unit", f"{pooled_alpha(answers):.3f}"],
        *([f"whole answers, 1 - {name}", f"{value:.3f}"] for name, value in answer_alphas(answers).items()),
    ]
    tables.show("agreement_alpha", ["decisions", "Krippendorff's alpha"], rows)
    frequency = answers.labels.mean(axis=0)
    tables.show(
        "agreement_by_label",
        ["label", "answers with it", "Krippendorff's alpha"],
        (
            [annotations.label_names[label], percent(frequency[label]), f"{by_label[label]:.3f}"]
            for label in np.argsort(-by_label)
        ),
    )


def main() -> None:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotations", type=Path, help="annotation file, as Sentiments.json")
    parser.add_argument("--label-list", type=Path, help="label list, as Sentiments_List.txt")
    parser.add_argument("--topics", type=Path, help="topic votes, as Topics.json")
    parser.add_argument("--quick", action="store_true", help="a small synthetic set")
    add_write_option(parser)
    options = parser.parse_args()
    if not options.quick and (options.annotations is None or options.label_list is None):
        parser.error("give --annotations FILE and --label-list FILE, or --quick for a smoke test")
    warnings.filterwarnings("ignore", message=r"\w+ (removed|raised) ")
    tables = ResultTables(options.write)
    if options.quick:
        with tempfile.TemporaryDirectory() as folder:
            report(tables, *synthetic_set(Path(folder)))
    else:
        report(tables, options.annotations, options.label_list, options.topics)


if __name__ == "__main__":
    main()
