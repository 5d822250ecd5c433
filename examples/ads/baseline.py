"""Where a method does no better than the label frequencies, in words.

The label frequencies predict for every image the share of each label in the training part: what can be said without
looking at an image.
"""

from __future__ import annotations

from collections.abc import Mapping

from mlmetric.metrics import METRIC_NAMES

from .evaluation import CHOSEN, DECISIONS

LABEL_FREQUENCIES = "label frequencies"
_ONE_SIDED = {"op", "or", "cp", "cr"}  # precision or recall alone: each can be raised at the expense of the other


def below_frequencies(measures: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Say for each method in which metrics it is below the label frequencies, by as much as three decimals show.

    Args:
        measures: For each method its measures on one part, the label frequencies among them.

    Returns:
        A sentence for each method that is below them in at least one metric.
    """
    baseline = measures[LABEL_FREQUENCIES]
    sentences = []
    for method, values in measures.items():
        if method == LABEL_FREQUENCIES:
            continue
        worse = [
            f"{name} ({values[key]:.3f} against {baseline[key]:.3f})"
            for key, name in _names().items()
            if key in values and key in baseline and _is_worse(key, values[key], baseline[key])
        ]
        if worse:
            sentences.append(
                f"{method[:1].upper()}{method[1:]}: its classifier is below the {LABEL_FREQUENCIES} of the training "
                f"part, the same prediction for every image, in {', '.join(worse)}."
            )
    return sentences


def _names() -> dict[str, str]:
    chosen = {f"{key}{CHOSEN}": f"{METRIC_NAMES[key]}*" for key in DECISIONS if key not in _ONE_SIDED}
    return {key: name for key, name in METRIC_NAMES.items() if key not in _ONE_SIDED} | chosen


def _is_worse(key: str, value: float, baseline: float) -> bool:
    value, baseline = round(value, 3), round(baseline, 3)
    lower_is_better = key.endswith(("_loss", "_error"))
    return value > baseline if lower_is_better else value < baseline
