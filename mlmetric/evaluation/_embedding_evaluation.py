"""The result of `evaluate_embeddings`."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlmetric.metrics._metrics_report import display_name, format_value, markdown_table

_PART_NAMES = {"retrieval": "retrieval", "knn": "kNN", "linear": "linear probe"}


@dataclass(frozen=True)
class EmbeddingEvaluation:
    """Result of `evaluate_embeddings`; `str(result)` is the text of `summary`.

    Attributes:
        values: Value of each metric; with several splits, the mean over the splits. The keys begin with `retrieval_`,
            `knn_` or `linear_`.
        intervals: With one test part, lower and upper bound of the bootstrap interval of each metric; None without
            intervals or with several splits.
        deviations: With several splits, standard deviation of each metric over the splits (divisor `n_splits - 1`);
            otherwise None.
        split_values: The values of each split, to compare two embeddings split by split; a single entry with one test
            part.
        settings: Arguments and numbers of rows, and `C`, the inverse penalty that was chosen in each split.

    Examples:
        >>> from mlmetric.evaluation import EmbeddingEvaluation
        >>> values = {"retrieval_ndcg_at_10": 0.5, "knn_map": 0.25}
        >>> print(EmbeddingEvaluation(values, None, {"retrieval_ndcg_at_10": 0.01, "knn_map": 0.02}, [values], {}))
        | metric            | value | deviation |
        | ----------------- | ----: | --------: |
        | retrieval NDCG@10 | 0.500 |     0.010 |
        | kNN mAP           | 0.250 |     0.020 |
    """

    values: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]] | None
    deviations: Mapping[str, float] | None
    split_values: Sequence[Mapping[str, float]]
    settings: Mapping[str, Any]

    def __str__(self) -> str:
        return self.summary()

    def summary(self) -> str:
        """Return a Markdown table with a row for each metric, and its interval or its deviation over the splits."""
        header = ["metric", "value"]
        if self.intervals is not None:
            header.append(f"{100 * self.settings['confidence_level']:g} % interval")
        elif self.deviations is not None:
            header.append("deviation")
        rows = []
        for key, value in self.values.items():
            cells = [_name(key), format_value(value)]
            if self.intervals is not None:
                low, high = self.intervals[key]
                cells.append("" if math.isnan(low) else f"{format_value(low)} to {format_value(high)}")
            elif self.deviations is not None:
                cells.append(format_value(self.deviations[key]))
            rows.append(cells)
        return markdown_table(header, rows)

    def to_dict(self) -> dict[str, Any]:
        """Return all attributes as values that `json.dumps` accepts; undefined numbers are None."""
        attributes = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: _to_json(value) for name, value in attributes.items()}

    def to_frame(self) -> Any:
        """Return a pandas data frame with a row for each metric.

        Returns:
            The index contains the keys; the columns are `value` and, where they exist, `low` and `high`, or
            `deviation`.

        Raises:
            ImportError: If pandas is not installed.
        """
        columns: dict[str, list[float]] = {"value": list(self.values.values())}
        if self.intervals is not None:
            columns["low"], columns["high"] = ([self.intervals[key][end] for key in self.values] for end in (0, 1))
        elif self.deviations is not None:
            columns["deviation"] = [self.deviations[key] for key in self.values]
        try:
            pandas = importlib.import_module("pandas")
        except ImportError as error:
            raise ImportError("`to_frame` requires pandas: `pip install pandas`, or use `to_dict`.") from error
        return pandas.DataFrame(columns, index=list(self.values))


def _name(key: str) -> str:
    """Return the name of a metric in tables, such as "retrieval NDCG@10" for `retrieval_ndcg_at_10`."""
    part, _, metric = key.partition("_")
    return f"{_PART_NAMES[part]} {display_name(metric)}"


def _to_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _to_json(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(each) for each in value]
    if isinstance(value, np.generic):  # a number that was passed as an argument
        value = value.item()
    return None if isinstance(value, float) and math.isnan(value) else value
