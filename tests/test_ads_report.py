"""The report of a run: tables, explanations, and the comparison with the baselines."""

import re

import pytest
import torch

from ads.evaluation import Predictions, behind_baselines, choose_thresholds, measure_labels
from ads.labelled_images import LabelledImages
from ads.metric_names import ALL_NAMES, COLUMNS, explanations
from ads.report import comparison_report, comparison_rows, is_pittsburgh, results_of, run_report
from ads.synthetic import SENTIMENTS
from mlmetric.estimators import MetricClassifier

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
        "settings": {"epochs": 50, "lr_drops": [], "keep_best": True},
        "caveats": [],
        "warnings": [],
        "figures": ["bce.png"],
        "retrieved": [
            {
                "image": "1.png",
                "labels": ["a", "b"],
                "found": [
                    {"image": "2.png", "labels": ["a"], "shares": {"a": 0.75, "b": -0.25}},
                    {"image": "3.png", "labels": ["c"], "shares": {}},
                ],
            }
        ],
        "failed_figures": {},
        "seconds": {"features": 1.0},
        "peak_memory_mb": 100.0,
    } | changes


def test_a_method_behind_a_baseline_is_reported_in_one_sentence_with_what_to_use_then():
    worse = measured(micro_ap=0.614, lrap=0.704, one_error=0.365, map=0.3, of1_chosen=0.399)
    test = {"label frequencies": measured(), PROBE: measured(map=0.301, of1_chosen=0.3), METHOD: worse}
    sentence = behind_baselines(METHOD, test)
    assert sentence == (
        "The recommended embedding is behind the linear probe in mAP (0.300 against 0.301), micro AP (0.614 against "
        "0.658), label-ranking AP (0.704 against 0.745) and one-error (0.365 against 0.173), and behind the label "
        "frequencies, which ignore the image, in overall F1* (0.399 against 0.400), micro AP (0.614 against 0.658), "
        "label-ranking AP (0.704 against 0.745) and one-error (0.365 against 0.173): for these, use `--method "
        "linear-probe`, another backbone or other weights, or more training images."
    )
    assert results_of(metrics(test=test))[-1] == sentence
    assert run_report("A run", metrics(test=test), is_pittsburgh=False).count(sentence) == 1
    report = comparison_report("All", {"a": metrics(test=test)}, is_pittsburgh=False, failed_figures={})
    assert report.count(sentence) == 1


def test_the_advice_depends_on_the_baseline_and_further_metrics_are_counted():
    one = {PROBE: {"map": 0.2902}, METHOD: {"map": 0.281}}
    assert behind_baselines(METHOD, one) == (
        "The recommended embedding is behind the linear probe in mAP (0.281 against 0.290): for these, use `--method "
        "linear-probe`, or more training images."
    )
    keys = ["map", "macro_f1", "of1", "pooled_accuracy", "macro_f1_chosen", "ndcg_at_10"]
    several = {"label frequencies": dict.fromkeys(keys[:5], 0.5), PROBE: dict.fromkeys(keys, 0.25)}
    assert behind_baselines(PROBE, several) == (
        "The linear probe is behind the label frequencies, which ignore the image, in mAP (0.250 against 0.500), macro "
        "F1 (0.250 against 0.500), overall F1 (0.250 against 0.500), pooled acc. (0.250 against 0.500) and 1 other "
        "metric: for these, use another backbone or other weights, or more training images."
    )
    named = {f"paper_run_1: {METHOD}": {"map": 0.1}, PROBE: {"map": 0.2}}
    assert behind_baselines(f"paper_run_1: {METHOD}", named).startswith("paper_run_1: the recommended embedding is beh")


def test_equal_values_undefined_values_and_recall_alone_are_not_behind():
    baseline = measured(coverage_error=3.0, size_ratio_at_10=1.0)
    values = {"micro_ap": 0.6578, "or": 0.1, "coverage_error": 3.0, "size_ratio_at_10": 0.5}  # others are not defined
    assert behind_baselines(METHOD, {"label frequencies": baseline, METHOD: values}) is None
    assert behind_baselines("label frequencies", {"label frequencies": baseline}) is None


@pytest.mark.parametrize("key", ["coverage_error", "ranking_loss", "one_error"])
def test_a_loss_is_behind_when_it_is_larger(key):
    for value, expected in ((0.1, False), (0.3, True)):
        measures = {"label frequencies": {key: 0.2}, METHOD: {key: value}}
        assert (behind_baselines(METHOD, measures) is not None) == expected


def test_thresholds_are_chosen_as_by_the_estimator_and_labels_without_positives_get_the_common_one():
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(60, 3, generator=generator) < 0.4).long()
    labels[:, 2] = 0
    features = labels[:, :2].float() @ torch.randn(2, 8, generator=generator) + torch.randn(60, 8, generator=generator)
    estimator = MetricClassifier(n_members=1, max_epochs=2, random_state=0)
    estimator.fit(features, labels, validation=(features, labels))
    validation = Predictions(torch.from_numpy(estimator.predict_proba(features)), labels)
    thresholds = choose_thresholds(validation)
    assert thresholds.tolist() == estimator.thresholds_.tolist()
    pooled = validation.scores.flatten(), labels.flatten()
    candidates = validation.scores.flatten().sort().values

    def overall_f1(threshold):
        decided = pooled[0] >= threshold
        return 2 * (decided & (pooled[1] > 0)).sum() / (decided.sum() + pooled[1].sum())

    assert overall_f1(thresholds[2]) == max(overall_f1(candidate) for candidate in candidates)
    assert choose_thresholds(Predictions(validation.scores, torch.zeros_like(labels))).tolist() == [0.5, 0.5, 0.5]


def test_a_label_that_is_never_predicted_has_no_threshold_in_json():
    part = Predictions(torch.tensor([[0.5, 0.5]]), torch.tensor([[1, 0]]))
    measured_labels = measure_labels(part, torch.tensor([0.5, torch.inf]), ["a", "b"])
    assert measured_labels["a"] == {"support": 1, "average_precision": 1, "f1_chosen": 1, "threshold": 0.5}
    assert measured_labels["b"]["threshold"] is None


def test_a_comparison_has_a_row_for_each_baseline_and_each_run():
    capped = {"label frequencies": measured(), PROBE: measured(map=0.4), "paper's triplet embedding": measured()}
    probe = {"label frequencies": measured(), PROBE: measured(map=0.5)}
    data = metrics()["data"]
    runs = {
        "recommended": metrics(data=data | {"undersampler": "none"}),
        "paper": metrics("paper", "paper's triplet embedding", capped),
        "linear-probe": metrics("linear-probe", PROBE, probe, data=data | {"undersampler": "none"}),
    }
    rows = comparison_rows(runs)
    assert list(rows) == ["label frequencies", PROBE, METHOD, "paper's triplet embedding"]
    assert rows[PROBE]["map"] == 0.5  # that of its own run, not the one trained on undersampled images
    report = comparison_report("All", runs, is_pittsburgh=False, failed_figures={})
    assert "Undersampler of the training images: `cap` in the run paper, none in the others." in report
    two = {name: metrics("paper", "paper's triplet embedding", capped) for name in ("paper_run_1", "paper_run_2")}
    assert list(comparison_rows(two)) == [
        "label frequencies",
        PROBE,
        "paper_run_1: paper's triplet embedding",
        "paper_run_2: paper's triplet embedding",
    ]
    assert "Undersampler" not in comparison_report("All", two, is_pittsburgh=False, failed_figures={})


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
        return LabelledImages(None, [], labels, names, synthetic=synthetic)

    assert is_pittsburgh(images(names, synthetic=False))
    assert not is_pittsburgh(images(names, synthetic=True))
    assert not is_pittsburgh(images(names[:-1], synthetic=False))


def test_a_run_with_the_method_of_the_paper_names_the_paper():
    sentence = '"Paper" means "From image to emotion: multi-label image classification based on triplet loss (2021)".'
    assert sentence in run_report("A run", metrics("paper", "paper's triplet embedding"), is_pittsburgh=False)
    assert "paper" not in run_report("A run", metrics(), is_pittsburgh=False).lower()


@pytest.mark.parametrize("names", [COLUMNS, ALL_NAMES])
def test_each_column_of_a_table_is_explained_and_no_other(names):
    plain = {key: name for key, name in names.items() if not name.endswith("*")}
    for key, name in plain.items():
        lines = explanations([key], names).splitlines()[2:]
        assert lines[0].startswith(f"- {name}: ")
        assert len(lines) == 1 + lines[-1].startswith("- without *: ")
    everything = explanations(names, names).splitlines()[2:]
    assert len(everything) == len(plain) + 2
    assert everything[-2].startswith("- *: at thresholds chosen on the validation part")
    starred = explanations(["macro_f1_chosen"], names).splitlines()[2:]
    assert [line.partition(":")[0] for line in starred] == ["- macro F1", "- *"]


def test_a_run_without_retrieval_has_no_columns_of_retrieval():
    table, explained = results_of(metrics())[:2]
    assert table.splitlines()[0].split() == ["|", "method", "|", "mAP", "|", "overall", "F1*", "|"]
    assert [line.partition(":")[0] for line in explained.splitlines()[2:]] == [
        *("- label frequencies", "- raw features, linear probe"),
        *("- mAP", "- overall F1", "- *"),
    ]


def test_the_columns_of_undersampling_are_shown_if_there_is_any():
    report = run_report("A run", metrics(), is_pittsburgh=False)
    assert "| images | images after undersampling | IRLbl | IRLbl after undersampling |" in report
    assert "After undersampling (`cap`): 10 images" in report
    without = metrics(data=metrics()["data"] | {"undersampler": "none"})
    report = run_report("A run", without, is_pittsburgh=False)
    assert "| images | IRLbl |" in report
    assert "ndersampling" not in report


def test_the_settings_and_the_epoch_that_is_kept_are_named():
    report = run_report("A run", metrics(), is_pittsburgh=False)
    assert "`recommended`: epochs 50, keep_best True." in report
    assert "the one with the best NDCG@10 on validation images, for a classifier the one with the best mAP" in report
    report = run_report("A run", metrics(settings={"keep_best": False}), is_pittsburgh=False)
    assert "The dot is the epoch whose weights are kept, the last one." in report
    assert "`recommended`, without settings." in run_report("A run", metrics(settings={}), is_pittsburgh=False)


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


def test_the_images_that_were_found_are_listed_with_the_shares_of_the_labels():
    report = run_report("A run", metrics(), is_pittsburgh=False)
    assert "### Why the retrieved images are similar\n\nThe Jaccard index" in report
    listed = "`1.png` (a, b) found\n\n- `2.png`: Jaccard 0.50: a +0.75, b -0.25\n- `3.png`: no label in common"
    assert listed in report
    assert "`1.png` (no label) found" in run_report(
        "A run", metrics(retrieved=[{"image": "1.png", "labels": [], "found": []}]), is_pittsburgh=False
    )
