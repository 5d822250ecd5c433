"""One run, a comparison of all methods, or the four runs of the paper, on the same features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.files import write_atomically
from common.plots import plot_comparison
from mlmetric.distributed import rank

from . import figures
from .config import OPTIONS_OF_METHODS, Config
from .datasets import read_images
from .features import ImageFeatures, compute_features
from .methods import METHODS
from .metric_names import FIGURE_COLUMNS
from .pipeline import run
from .report import comparison_report, comparison_rows, is_pittsburgh, results_of
from .run_folder import open_run_folder
from .texts import check_packages, read_off_images, text_summary

# The settings in which the four runs of the paper differ.
PAPER_RUNS: dict[str, dict[str, Any]] = {
    "paper_run_1": {"epochs": 10, "margin": 1.0, "lr_drops": ()},
    "paper_run_2": {"epochs": 10, "margin": 2.0, "lr_drops": ()},
    "paper_run_3": {"epochs": 20, "margin": 1.0, "lr_drops": (15,)},
    "paper_run_4": {"epochs": 20, "margin": 2.0, "lr_drops": (15,)},
}


def main(config: Config) -> None:
    """Read the images, compute their features, and start one run, a run of each method, or the runs of the paper."""
    check_packages(config)
    images = read_images(config)
    if rank() == 0:
        print(f"Data: {images.title}\n{images.summary()}")
        if config.texts is not None:
            print(text_summary(images))
    with open_run_folder(config) as folder:
        extracted = compute_features(config, images, folder)
        if config.ocr:
            extracted = read_off_images(config, extracted, folder)
            if rank() == 0:
                print(text_summary(extracted.images))
        if config.experiments == "paper":
            settings = {"method": "paper", "undersampler": "cap", "experiments": "one"}
            configs = {name: replace(config, **settings, **options) for name, options in PAPER_RUNS.items()}
            run_all(configs, extracted, folder, title=f"The paper's four runs on {images.title}")
        elif config.compare:
            configs = {name: with_method(config, name) for name in METHODS}
            run_all(configs, extracted, folder, title=f"The methods on {images.title}")
        else:
            metrics = run(config, extracted, folder)
            if metrics:
                results = [*metrics["caveats"], *results_of(metrics)]
                print()
                print(*results, f"Report, figures and checkpoints: {folder}", sep="\n\n")


def with_method(config: Config, method: str) -> Config:
    """Return the options for one method of a comparison: without those that do not apply to it."""
    others = [name for name, methods in OPTIONS_OF_METHODS.items() if method not in methods]
    defaults = {name: () if name == "lr_drops" else None for name in others}
    return replace(config, method=method, compare=False, **defaults)


def run_all(configs: Mapping[str, Config], extracted: ImageFeatures, folder: Path, *, title: str) -> None:
    """Start a run for each configuration, in a subfolder, and print a table of the results."""
    runs = {}
    for number, (name, config) in enumerate(configs.items(), start=1):
        if rank() == 0:
            print(f"Run {number} of {len(configs)}: {name}")
        runs[name] = run(config, extracted, folder / name)
        if rank() == 0:
            measures = runs[name]["test"][runs[name]["title"]]
            shown = [f"{title} {measures[key]:.3f}" for key, title in FIGURE_COLUMNS.items() if key in measures]
            print(f"{name} (test): {', '.join(shown)}")
    if rank() > 0:
        return
    compared = comparison_rows(runs)
    failed = figures.draw({"comparison.png": lambda path: plot_comparison(compared, FIGURE_COLUMNS, path)}, folder)
    report = comparison_report(title, runs, is_pittsburgh=is_pittsburgh(extracted.images), failed_figures=failed)
    write_atomically(folder / "report.md", report)
    printed = "\n\n".join(part for part in report.strip().split("\n\n") if not part.startswith("!["))
    print(f"\n{printed}\n\nReport and figure: {folder}; the reports of the runs are in its subfolders.")
