"""Time and memory of thresholds, calibration, guarantees, folds and label errors on large synthetic label matrices.

python tests/benchmarks/decisions_at_scale.py            # 100,000 x 1,000, each case in a separate process
python tests/benchmarks/decisions_at_scale.py --quick    # a quick check, without meaning

About 1 % of the entries are positive; scores are float32, and higher for positives. "MB" is the growth of the memory of
the process beyond the inputs.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from measuring import in_own_process, peak_mb, reset_peak_mb, resident_mb
from mlmetric.data import MultiLabelStratifiedKFold
from mlmetric.decisions import LabelCalibrator, MinRecall, conformal_fnr_threshold, ltt_fdr_threshold
from mlmetric.label_errors import rank_label_errors
from mlmetric.metrics import best_thresholds, calibration_error
from result_tables import ResultTables, add_write_option

Inputs = dict[str, np.ndarray]
CASES: dict[str, Callable[[Inputs], Any]] = {
    "`best_thresholds`, F1 of each label": lambda x: best_thresholds(x["scores"], x["y"]),
    "`best_thresholds`, common, micro F1": lambda x: best_thresholds(
        x["scores"], x["y"], average="micro", per_label=False
    ),
    "`best_thresholds`, `MinRecall(0.9)`": lambda x: best_thresholds(x["scores"], x["y"], metric=MinRecall(0.9)),
    "`LabelCalibrator`, temperature": lambda x: calibrated(x, "temperature"),
    "`LabelCalibrator`, Platt": lambda x: calibrated(x, "platt"),
    "`LabelCalibrator`, isotonic": lambda x: calibrated(x, "isotonic"),
    "`calibration_error`": lambda x: calibration_error(x["scores"], x["y"]),
    "`conformal_fnr_threshold`": lambda x: conformal_fnr_threshold(x["scores"], x["y"], alpha=0.1),
    "`ltt_fdr_threshold`": lambda x: ltt_fdr_threshold(x["scores"], x["y"], alpha=0.1),
    "`MultiLabelStratifiedKFold(5)`": lambda x: list(MultiLabelStratifiedKFold(5).split(x["y"], x["y"])),
    "`rank_label_errors`, probabilities": lambda x: rank_label_errors(x["y"], probabilities=x["scores"]),
    "`rank_label_errors`, both": lambda x: rank_label_errors(
        x["y"], probabilities=x["scores"], embeddings=x["embeddings"]
    ),
}


def calibrated(inputs: Inputs, method: Any) -> np.ndarray:
    """Fit a calibration and apply it."""
    calibrator = LabelCalibrator(method, scale="probabilities").fit(inputs["scores"], inputs["y"])
    return calibrator.transform(inputs["scores"])


def make_inputs(num_rows: int, num_labels: int) -> Inputs:
    """Draw labels, scores in (0, 1) and embeddings."""
    rng = np.random.default_rng(0)
    y = (rng.random((num_rows, num_labels), dtype=np.float32) < 0.01).astype(np.int8)
    logits = rng.standard_normal((num_rows, num_labels), dtype=np.float32) + 3 * y - 4
    scores = 1 / (1 + np.exp(-logits))
    return {"y": y, "scores": scores, "embeddings": rng.standard_normal((num_rows, 64), dtype=np.float32)}


def measure(case: str, size: list[int]) -> dict[str, float]:
    """Measure a case, after a small call."""
    torch.set_num_threads(1)
    CASES[case](make_inputs(200, 5))
    inputs = make_inputs(*size)
    reset_peak_mb()
    before, start = resident_mb(), time.process_time()
    CASES[case](inputs)
    return {"seconds": time.process_time() - start, "mb": peak_mb() - before}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=[100_000, 1_000], metavar=("ROWS", "LABELS"))
    parser.add_argument("--only", default="", help="the cases whose name contains this")
    parser.add_argument("--quick", action="store_true", help="a quick check")
    add_write_option(parser)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(**json.loads(arguments.case))))
        return
    size = [500, 20] if arguments.quick else arguments.size
    cases = list(CASES)[::4] if arguments.quick else [case for case in CASES if arguments.only in case]
    measured = ((case, in_own_process(__file__, case=case, size=size)) for case in cases)
    print(f"{size[0]:,} x {size[1]:,}, CPU seconds on one thread, torch {torch.__version__}")
    ResultTables(arguments.write).show(
        "decisions_at_scale",
        ["function", "seconds", "MB"],
        ([case, f"{values['seconds']:.1f}", f"{values['mb']:.0f}"] for case, values in measured),
    )


if __name__ == "__main__":
    main()
