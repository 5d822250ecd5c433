"""Evaluation of embeddings by retrieval, by their nearest rows, and by a linear probe."""

from __future__ import annotations

import math
import operator
import statistics
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mlmetric.data import stratified_split
from mlmetric.evaluation._embedding_evaluation import EmbeddingEvaluation
from mlmetric.evaluation._inputs import EmbeddingsLike, EvaluatedLabels, Rows, read_rows
from mlmetric.evaluation._probes import fit_linear_probe, neighbor_shares
from mlmetric.metrics import RetrievalMetrics, confidence_interval, f1, mean_average_precision
from mlmetric.metrics._bootstrap import check_resampling
from mlmetric.metrics._inputs import check_choice
from mlmetric.metrics._retrieval._retrieval_metrics import EmbeddingMetric
from mlmetric.training._logistic_regression import INVERSE_PENALTIES, read_strengths

_PARTS = ("retrieval", "knn", "linear")


class _Options(NamedTuple):
    """The options of `evaluate_embeddings` that concern one test part."""

    parts: Collection[str]
    k: int | Sequence[int]
    full_ranking: bool
    metric: EmbeddingMetric
    n_neighbors: int
    C: Sequence[float]
    cv: int
    max_predicted: float
    confidence_level: float | None
    n_resamples: int
    seed: int


class _Measured(NamedTuple):
    """The metrics of one test part."""

    values: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    C: float | None


def evaluate_embeddings(
    embeddings: EmbeddingsLike,
    labels: EvaluatedLabels,
    ref_embeddings: EmbeddingsLike | None = None,
    ref_labels: EvaluatedLabels | None = None,
    *,
    parts: Collection[str] = _PARTS,
    metric: EmbeddingMetric = "euclidean",
    k: int | Sequence[int] = 10,
    full_ranking: bool = True,
    n_neighbors: int = 20,
    C: float | Iterable[float] = INVERSE_PENALTIES,
    cv: int = 5,
    max_predicted: float = 1.5,
    n_splits: int = 5,
    test_size: float = 0.3,
    confidence_level: float | None = 0.95,
    n_resamples: int = 1000,
    random_state: int = 0,
    device: torch.device | str | None = None,
) -> EmbeddingEvaluation:
    """Evaluate embeddings of any origin by retrieval, by the labels of their nearest rows, and by a linear probe.

    The rows of `ref_embeddings` are the database of retrieval and the training rows of the probes; the rows of
    `embeddings` are the queries and the test rows. Without `ref_embeddings`, `embeddings` are split `n_splits` times,
    stratified by all labels; split i has the seed `random_state + i`. All rows of a training part are used, and no
    setting is chosen on test rows.

    - `"retrieval"`: the metrics of [RetrievalMetrics][mlmetric.metrics.RetrievalMetrics], with the Jaccard similarity
      as grade, such as `retrieval_ndcg_at_10`, `retrieval_size_ratio_at_10` and `retrieval_map`.
    - `"knn"`: `knn_map`, the mAP over labels, where the score of a label is its share among the nearest training rows.
    - `"linear"`: `linear_map`, `linear_macro_f1` and `linear_of1` (F1 of all entries) of a logistic regression for each
      label. Each training row is scored once by regressions that were trained without its fold. `C` is chosen by the
      mAP of these scores, and the threshold of each label by their F1; the regressions are then trained on all training
      rows.

    Labels without positives in a test part, and queries for which no row of the database is relevant, are excluded from
    the means. Nothing is printed, and the result is the same for the same arguments.

    Args:
        embeddings: Shape `(N, D)`, real numbers: a tensor, an array, a memory map, a list of rows, a scipy sparse
            matrix or a data frame; the path of an .npy file, or of an .npz file with one array or one that is named
            `embeddings`; or a list of such matrices or paths, each of which contains a part of the rows.
        labels: Shape `(N, L)`, 0 or 1, of any kind that [check_labels][mlmetric.labels.check_labels] reads; the label
            names of each row; the path of a file, in which one array may be named `labels`; or a list of parts.
        ref_embeddings: Shape `(M, D)`, of the same kinds; None splits `embeddings`.
        ref_labels: Shape `(M, L)`, of the same kinds. The columns of data frames are reordered as in `labels`.
        parts: What to evaluate, some of `"retrieval"`, `"knn"` and `"linear"`. The linear probe takes by far the
            longest with many labels.
        metric: `"euclidean"`, or `"cosine"`: rows are then ranked by cosine distance, and the linear probe is trained
            on rows of unit length.
        k: Number of retrieved rows that are evaluated: one number or several.
        full_ranking: Whether retrieval includes `map`, `map_at_r`, `r_precision` and `mrr`, for which the whole
            database is ranked for each query.
        n_neighbors: Number of nearest rows of `"knn"`, at most all training rows.
        C: Inverse strengths of the L2 penalty of the linear probe, above 0, of which one is chosen; see
            [fit_logistic_regression][mlmetric.training.fit_logistic_regression]. They refer to embeddings that are
            centred and divided by one number, so that the scale of an embedding has no effect.
        cv: Number of stratified folds of the training rows that choose `C` and the thresholds.
        max_predicted: Largest number of predictions of a label on the training rows, as a multiple of its positives:
            the same limit as in [MetricClassifier][mlmetric.estimators.MetricClassifier].
        n_splits: Number of splits, at least 1; ignored with `ref_embeddings`.
        test_size: Share of the rows in each test part, above 0 and below 1; ignored with `ref_embeddings`.
        confidence_level: Nominal coverage of the bootstrap intervals over test rows, above 0 and below 1; None for no
            intervals. With several splits, deviations are computed instead.
        n_resamples: Number of resamples of the bootstrap, at least 1.
        random_state: Seed of the splits, the folds and the bootstrap, at least 0.
        device: Device to compute on, such as `"cuda"`; None uses the device of `embeddings`.

    Returns:
        The values, their intervals or deviations, and the settings.

    Raises:
        TypeError: If embeddings or labels are not numbers (or labels not names), or a number of rows, folds or splits
            is not an integer.
        ValueError: If shapes or columns do not match, an embedding is not finite (or zero with `metric="cosine"`), a
            label is neither 0 nor 1, there are no positives or fewer rows than folds, a file has another format, or an
            option is out of range.
        FileNotFoundError: If a file does not exist.

    Examples:
        >>> import numpy as np
        >>> from mlmetric.evaluation import evaluate_embeddings
        >>> rng = np.random.default_rng(0)
        >>> labels = rng.integers(0, 2, (200, 3))
        >>> embeddings = labels @ rng.normal(size=(3, 8)) + rng.normal(size=(200, 8))
        >>> result = evaluate_embeddings(embeddings, labels, n_splits=3, full_ranking=False)
        >>> print(f"{result.values['knn_map']:.2f} {result.values['linear_map']:.2f}")
        0.94 0.96

    Source:
        Linear probe: Alain, Bengio, "Understanding intermediate layers using linear classifier probes", ICLR 2017,
        workshop track. Shares of nearest rows as scores: "BRkNN" of Spyromitros, Tsoumakas, Vlahavas, "An empirical
        study of lazy multilabel classification algorithms", SETN 2008. Choice of `C` and of thresholds on held-out
        scores, and the limit `max_predicted`: our own.
    """
    if not parts or isinstance(parts, str) or not set(parts) <= set(_PARTS):
        raise ValueError(f"`parts` must contain some of {', '.join(map(repr, _PARTS))}, got {parts!r}.")
    check_choice(metric, "metric", EmbeddingMetric)
    n_neighbors = _integer(n_neighbors, "n_neighbors", 1)
    cv, n_splits = _integer(cv, "cv", 2), _integer(n_splits, "n_splits", 1)
    seed, n_resamples = _integer(random_state, "random_state", 0), _integer(n_resamples, "n_resamples", 1)
    if not 0 < test_size < 1:
        raise ValueError(f"`test_size` must be above 0 and below 1, got {test_size}.")
    if not max_predicted > 0:
        raise ValueError(f"`max_predicted` must be above 0, got {max_predicted}.")
    if confidence_level is not None:
        check_resampling(confidence_level, n_resamples)
    RetrievalMetrics(k=k)  # checks k before anything is computed
    options = _Options(
        parts=[part for part in _PARTS if part in parts],
        k=k,
        full_ranking=full_ranking,
        metric=metric,
        n_neighbors=n_neighbors,
        C=read_strengths(C),
        cv=cv,
        max_predicted=max_predicted,
        confidence_level=confidence_level,
        n_resamples=n_resamples,
        seed=seed,
    )
    rows, refs = read_rows(embeddings, labels, ref_embeddings, ref_labels, device)
    if metric == "cosine":
        rows = rows.to_unit_length("embeddings")
        refs = None if refs is None else refs.to_unit_length("ref_embeddings")
    if refs is not None:
        return _result([_evaluate(rows, refs, options)], _settings(options, rows, refs))
    if n_splits > 1:
        options = options._replace(confidence_level=None)
    settings = _settings(options, rows, refs) | {"n_splits": n_splits, "test_size": test_size}
    measured = []
    for split in range(n_splits):
        generator = torch.Generator().manual_seed(seed + split)
        train, test = stratified_split(rows.labels.cpu(), (1 - test_size, test_size), generator=generator)
        if not len(train) or not len(test):
            raise ValueError(
                f"`embeddings` must have enough rows for a training part and a test part with `test_size={test_size}`, "
                f"got {len(rows.labels)}."
            )
        measured.append(_evaluate(rows.select(test), rows.select(train), options._replace(seed=seed + split)))
    return _result(measured, settings)


def _integer(value: Any, name: str, lowest: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"`{name}` must be an integer, got {value!r}.") from None
    if number < lowest:
        raise ValueError(f"`{name}` must be at least {lowest}, got {number}.")
    return number


def _evaluate(queries: Rows, refs: Rows, options: _Options) -> _Measured:
    """Evaluate one test part."""
    if "linear" in options.parts:
        if len(refs.labels) < options.cv:
            raise ValueError(f"`cv` must be at most the number of training rows, {len(refs.labels)}, got {options.cv}.")
        if not bool(refs.labels.any()):
            raise ValueError("`labels` must contain a positive in the training part of each split, got none in one.")
    measured = _Measured({}, {}, None)
    if "retrieval" in options.parts:
        _add_retrieval(measured, queries, refs, options)
    if "knn" in options.parts:
        k = min(options.n_neighbors, len(refs.labels))
        shares = neighbor_shares(queries.embeddings, refs, k, options.metric)
        _add(measured, "knn_map", mean_average_precision, shares, queries.labels, options)
    if "linear" in options.parts:
        probe = fit_linear_probe(
            queries.embeddings,
            refs,
            strengths=options.C,
            cv=options.cv,
            max_predicted=options.max_predicted,
            seed=options.seed,
        )
        _add(measured, "linear_map", mean_average_precision, probe.scores, queries.labels, options)
        macro_f1 = partial(f1, threshold=probe.thresholds, average="macro")
        _add(measured, "linear_macro_f1", macro_f1, probe.scores, queries.labels, options)
        of1 = partial(f1, threshold=probe.thresholds, average="micro")
        _add(measured, "linear_of1", of1, probe.scores, queries.labels, options)
        measured = measured._replace(C=probe.C)
    return measured


def _add_retrieval(measured: _Measured, queries: Rows, refs: Rows, options: _Options) -> None:
    metrics = RetrievalMetrics(k=options.k, full_ranking=options.full_ranking, metric=options.metric)
    metrics.update(*queries)
    metrics.update_ref(*refs)
    report = metrics.report(
        confidence_level=options.confidence_level, n_resamples=options.n_resamples, generator=_generator(options)
    )
    measured.values.update({f"retrieval_{key}": value for key, value in report.values.items()})
    measured.intervals.update({f"retrieval_{key}": bounds for key, bounds in (report.intervals or {}).items()})


def _add(
    measured: _Measured, key: str, metric: Callable[..., Tensor], scores: Tensor, labels: Tensor, options: _Options
) -> None:
    """Add a metric of label scores."""
    if options.confidence_level is None:
        measured.values[key] = float(metric(scores, labels))
        return
    found = confidence_interval(
        metric,
        scores,
        labels,
        confidence_level=options.confidence_level,
        n_resamples=options.n_resamples,
        generator=_generator(options),
    )
    measured.values[key] = float(found.value)
    measured.intervals[key] = float(found.low), float(found.high)


def _generator(options: _Options) -> torch.Generator:
    """Return a new generator, so that all metrics have the same resamples."""
    return torch.Generator().manual_seed(options.seed)


def _settings(options: _Options, rows: Rows, refs: Rows | None) -> dict[str, Any]:
    settings = options._asdict()
    settings["random_state"] = settings.pop("seed")
    settings["k"] = list(options.k) if isinstance(options.k, Sequence) else options.k
    del settings["C"]
    sizes = {"n_rows": len(rows.labels)} if refs is None else {"n_test": len(rows.labels), "n_train": len(refs.labels)}
    return settings | sizes | {"n_columns": rows.embeddings.shape[1], "n_labels": rows.labels.shape[1]}


def _result(measured: Sequence[_Measured], settings: dict[str, Any]) -> EmbeddingEvaluation:
    """Return the values of the only test part with their intervals, or the means and deviations of several."""
    settings = settings | {"C": [each.C for each in measured]}
    values = [each.values for each in measured]
    if len(values) == 1:
        return EmbeddingEvaluation(values[0], measured[0].intervals or None, None, values, settings)
    by_key = {key: [each[key] for each in values] for key in values[0]}
    means = {key: math.fsum(each) / len(each) for key, each in by_key.items()}
    deviations = {key: _deviation(each) for key, each in by_key.items()}
    return EmbeddingEvaluation(means, None, deviations, values, settings)


def _deviation(values: Sequence[float]) -> float:
    """Return the standard deviation; NaN if a value is undefined."""
    return math.nan if any(map(math.isnan, values)) else statistics.stdev(values)
