"""The report of a run: tables, notes, and the comparison with the label frequencies."""

import re

import pytest
import torch

from ads.evaluation import below_frequencies
from ads.labelled_images import LabelledImages
from ads.report import COLUMNS, comparison_report, is_pittsburgh, note, run_report
from ads.synthetic import SENTIMENTS

PROBE, METHOD = "raw features, linear probe", "recommended embedding"


def measured(**values):
    return {"micro_ap": 0.658, "lrap": 0.745, "one_error": 0.173, "map": 0.2, "or": 0.9, "of1_chosen": 0.4} | values


def metrics(method="recommended", title=METHOD, test=None, **changes):
    """The content of a small `metrics.json`."""
    test = test or {"label frequencies": measured(), PROBE: measured(map=0.5), title: measured(map=0.6)}
    return {
        "test": test,
        "test_intervals": {name: {key: (0.0, 1.0) for key in values} for name, values in test.items()},
        "train_labels": {"a": {"count_before": 3.0, "count_after": 2.0, "ir_before": 1.0, "ir_after": None}},
        "test_labels": {"a": {"support": 1.0, "average_precision": 0.5, "f1_chosen": 0.5, "threshold": 0.5}},
        "data": {
            **dict.fromkeys(("images", "train", "validation", "test", "train_after"), 10),
            **{"labels": 1, "cardinality": 1.0, "undersampler": "cap", "mean_ir_before": 1.0, "mean_ir_after": 1.0},
            "scumble_before": 0.0,
        },
        "method": method,
        "title": title,
        "caveats": [],
        "warnings": [],
        "figures": ["bce.png"],
        "failed_figures": {},
        "seconds": {"features": 1.0},
        "peak_memory_mb": 100.0,
    } | changes


def test_a_method_below_the_label_frequencies_is_reported_with_each_metric_and_both_values():
    worse = measured(micro_ap=0.614, lrap=0.704, one_error=0.365, map=0.3, of1_chosen=0.399)
    sentences = below_frequencies({"label frequencies": measured(), PROBE: measured(map=0.5), METHOD: worse})
    assert sentences == [
        "Recommended embedding: its classifier is below the label frequencies of the training part, the same "
        "prediction for every image, in micro AP (0.614 against 0.658), label-ranking AP (0.704 against 0.745), "
        "one-error (0.365 against 0.173), OF1 (micro F1)* (0.399 against 0.400)."
    ]
    for report in (
        run_report("A run", metrics(test={"label frequencies": measured(), METHOD: worse}), is_pittsburgh=False),
        comparison_report(
            "All",
            {"recommended": metrics(test={"label frequencies": measured(), METHOD: worse})},
            is_pittsburgh=False,
            failed_figures={},
        ),
    ):
        assert report.count(sentences[0]) == 1


def test_equal_values_undefined_values_and_recall_alone_are_not_below():
    baseline = measured(coverage_error=3.0)
    values = {"micro_ap": 0.6578, "or": 0.1, "coverage_error": 3.0}  # the others are not defined
    assert below_frequencies({"label frequencies": baseline, METHOD: values}) == []


@pytest.mark.parametrize("key", ["coverage_error", "ranking_loss", "one_error"])
def test_a_loss_is_below_when_it_is_larger(key):
    for value, expected in ((0.1, 0), (0.3, 1)):
        assert len(below_frequencies({"label frequencies": {key: 0.2}, METHOD: {key: value}})) == expected


def test_the_results_of_the_paper_are_shown_for_runs_on_the_images_of_the_paper_only():
    table, heading = "| paper, run 1 (10 epochs, margin 1)", '### Results of "From image to emotion: multi-label image'
    for is_pittsburgh_ads in (False, True):
        one = run_report("A run", metrics(), is_pittsburgh=is_pittsburgh_ads)
        several = comparison_report("All", {"a": metrics()}, is_pittsburgh=is_pittsburgh_ads, failed_figures={})
        for report in (one, several):
            assert (table in report) == (heading in report) == is_pittsburgh_ads
            assert "figure 5" not in report


def test_pittsburgh_ads_are_real_images_with_the_thirty_sentiments():
    names = [sentiment.abbreviation for sentiment in SENTIMENTS]
    labels = torch.zeros(0, 30)

    def images(names, *, synthetic):
        return LabelledImages("", None, [], labels, labels, names, synthetic=synthetic)

    assert is_pittsburgh(images(names, synthetic=False))
    assert not is_pittsburgh(images(names, synthetic=True))
    assert not is_pittsburgh(images(names[:-1], synthetic=False))


def test_a_run_with_the_method_of_the_paper_names_the_paper():
    sentence = '"Paper" means "From image to emotion: multi-label image classification based on triplet loss (2021)".'
    assert sentence in run_report("A run", metrics("paper", "paper's triplet embedding"), is_pittsburgh=False)
    assert "paper" not in run_report("A run", metrics(), is_pittsburgh=False).lower()


def test_the_notes_are_those_of_the_columns_of_the_table():
    assert note(["mAP", "macro F1"]) == "Measured on the test part."
    assert "chosen on the validation part" in note(["macro F1*"])
    assert "size ratio" in note(["size ratio@10"])
    assert "size ratio" not in note(COLUMNS.values())
    report = run_report("A run", metrics(), is_pittsburgh=False)
    assert "A retrieved image" not in report.partition("## Every metric")[2]  # this run measured no retrieval


def test_warnings_and_failed_figures_are_listed():
    given = metrics(warnings=["the loss rose\nfrom 1 to 9"], failed_figures={"embedding.png": "ValueError: too few"})
    report = run_report("A run", given, is_pittsburgh=False)
    assert "## Warnings of the run\n\n- the loss rose from 1 to 9\n" in report
    assert "The figure `embedding.png` could not be drawn: ValueError: too few" in report
    assert re.findall(r"figures/(\w+\.png)", report) == ["bce.png"]
    failed = {"comparison.png": "MemoryError: "}
    report = comparison_report("All", {"a": given, "b": given}, is_pittsburgh=False, failed_figures=failed)
    assert report.count("the loss rose") == 1
    assert "(comparison.png)" not in report
    assert "The figure `comparison.png` could not be drawn: MemoryError:" in report
