"""A logistic regression for each label, on features: the linear probe."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mlmetric._label_matrix import annotated_mask, smoothed_frequencies
from mlmetric.distributed import on_first_rank
from mlmetric.heads import ClassifierHead
from mlmetric.labels import LabelsLike
from mlmetric.training._rows import read_rows, read_validation
from mlmetric.training._trainer import EpochRecord, device_of
from mlmetric.training._validation_scores import label_score

INVERSE_PENALTIES = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
_MAX_ITERATIONS = 100
CLEARLY_LOWER = 1e-3
PATIENCE = 2


def fit_logistic_regression(
    classifier: ClassifierHead,
    features: Tensor,
    labels: LabelsLike,
    *,
    C: float | Iterable[float] = INVERSE_PENALTIES,
    tol: float = 1e-3,
    validation: tuple[Tensor, LabelsLike] | None = None,
) -> list[EpochRecord]:
    """Train a linear classifier as a logistic regression for each label, with an L2 penalty on the weights.

    For each label, the sum of the binary cross entropies times `C`, plus half the squared norm of the weights, is
    minimised; the bias has no penalty. This is the objective of scikit-learn's `LogisticRegression`. L-BFGS solves it
    for all labels at once, from the smallest `C` to the largest, each time starting from the previous solution. It
    stops when the mAP of the validation rows has been more than 0.001 below the best for two values of `C` in a row,
    and keeps the solution of the best `C`.

    With missing labels, the regression of a label uses the rows that are annotated for it; a label without annotated
    rows gets probability 0.5.

    On sparse or wide features, the result is often a better linear classifier than one that
    [fit_classifier][mlmetric.training.fit_classifier] trains with Adam, since the weights of rare features are
    penalised.

    With a process group of torch.distributed, call this function in each process with the same arguments: rank 0
    computes the solution, and all processes end with it.

    Args:
        classifier: A classifier with sigmoid; its linear layer is trained in place, from weights of 0. Fit its
            `standardize` first.
        features: Shape `(N, D)`, on any device.
        labels: Shape `(N, L)`, in [0, 1], of any kind that [check_labels][mlmetric.labels.check_labels] reads; NaN for
            labels that are not annotated.
        C: Inverse strength of the penalty, above 0: one number, or several numbers of which `validation` chooses one.
        tol: The search for a solution ends when no element of the gradient of the mean loss of a label, divided by the
            variance of the label, is larger than this, or after 100 iterations.
        validation: Features and labels 0 or 1, NaN where not annotated, of validation rows, scored by mAP. Required for
            several values of `C`.

    Returns:
        A record for each value of `C` that was tried: `C`, `loss` (mean over the labels of the mean binary cross
        entropy, in nats), and, with `validation`, `val_map` (macro).

    Raises:
        ValueError: If a shape is wrong, a feature is not finite, `C` or `tol` is not above 0, several values of `C` are
            given without `validation`, labels of `validation` are soft, or the classifier has another activation than
            sigmoid.
        TypeError: If features are not tensors, or `C` or labels are not numbers.
        FloatingPointError: If the solution is not finite, as with very large features.

    Examples:
        >>> import torch
        >>> from mlmetric.heads import ClassifierHead
        >>> from mlmetric.training import fit_logistic_regression
        >>> features = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
        >>> labels = torch.tensor([[0, 1], [0, 1], [1, 0], [1, 1]])
        >>> classifier = ClassifierHead(1, num_labels=2)
        >>> fit_logistic_regression(classifier, features, labels, C=1.0)[0]["loss"] < 0.5
        True
    """
    if classifier.activation != "sigmoid":
        raise ValueError(f"A logistic regression needs a classifier with sigmoid, got {classifier.activation!r}.")
    if not 0 < tol < math.inf:
        raise ValueError(f"`tol` must be above 0 and finite, got {tol}.")
    strengths = read_strengths(C)
    target = read_rows(features, labels)
    shape = classifier.linear.in_features, classifier.linear.out_features
    if features.shape[1:] != shape[:1] or target.shape[1:] != shape[1:]:
        raise ValueError(
            f"`features` and `labels` must have shapes (N, {shape[0]}) and (N, {shape[1]}) like the classifier, got "
            f"{tuple(features.shape)} and {tuple(target.shape)}."
        )
    rows = read_validation(validation, features, target, hard=True)
    if rows is None and len(strengths) > 1:
        raise ValueError(f"`validation` rows must choose one of {len(strengths)} values of `C`, got None.")
    records, weight, bias = on_first_rank(lambda: _solve(classifier, features, target, strengths, tol, rows))
    with torch.no_grad():
        classifier.linear.weight.copy_(weight)
        classifier.linear.bias.copy_(bias)
    return records


def read_strengths(C: float | Iterable[float]) -> list[float]:
    values: list[Any] = list(C) if isinstance(C, Iterable) else [C]
    if not all(isinstance(value, Real) for value in values):
        raise TypeError(f"`C` must be a number, or several, got {C!r}.")
    if not values or not all(0 < value < math.inf for value in values):
        raise ValueError(f"`C` must be a number above 0, or several, got {C!r}.")
    return sorted(float(value) for value in values)


def _solve(
    classifier: ClassifierHead,
    features: Tensor,
    labels: Tensor,
    strengths: Sequence[float],
    tol: float,
    validation: tuple[Tensor, Tensor] | None,
) -> tuple[list[EpochRecord], Tensor, Tensor]:
    """Return a record for each `C` that was tried, and the weight and bias of the best solution, on the CPU."""
    device = device_of(classifier)
    with torch.no_grad():
        inputs = classifier.inputs(features.to(device)).contiguous()  # a layout may change the rounding of sums
        center = inputs.mean(dim=0)
        inputs = inputs - center
        held_out = None if validation is None else classifier.inputs(validation[0].to(device)) - center
    if not bool(inputs.isfinite().all()):
        raise ValueError("`features` must be finite, got NaN or infinity.")
    labels = labels.to(device, inputs.dtype).contiguous()
    classifier.init_from_labels(labels)
    linear = classifier.linear
    weight, bias = (part.detach().clone().requires_grad_() for part in (linear.weight, linear.bias))
    records: list[EpochRecord] = []
    best, without_progress = -math.inf, 0
    solution = weight.detach(), bias.detach()
    for strength in strengths:
        loss = minimise(weight, bias, inputs, labels, strength, tol)
        with torch.no_grad():
            if not math.isfinite(loss) or not bool(weight.isfinite().all() & bias.isfinite().all()):
                raise FloatingPointError(
                    f"The logistic regression with C={strength} is not finite: check the features."
                )
            record: EpochRecord = {"C": strength, "loss": loss}
            score = 0.0
            if validation is not None and held_out is not None:
                scores = functional.linear(held_out, weight, bias)
                record["val_map"] = score = label_score(scores, validation[1].to(device))
        records.append(record)
        if score > best or len(records) == 1:
            best = score
            solution = weight.detach().clone(), bias.detach().clone()
        without_progress = without_progress + 1 if score < best - CLEARLY_LOWER else 0
        if without_progress == PATIENCE:
            break
    return records, solution[0].cpu(), (solution[1] - solution[0] @ center).cpu()


def minimise(weight: Tensor, bias: Tensor, inputs: Tensor, labels: Tensor, strength: float, tol: float) -> float:
    """Solve the regressions for one `C` in place, and return the mean binary cross entropy.

    The objective of each label is divided by the variance of the label, which does not change its solution: otherwise
    the gradients of rare labels would be below the tolerance from the start.
    """
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=_MAX_ITERATIONS,
        history_size=10,
        tolerance_grad=tol,
        tolerance_change=1e-7,
        line_search_fn="strong_wolfe",
    )
    frequencies = smoothed_frequencies(labels).to(inputs)
    scale = 1 / (frequencies * (1 - frequencies))
    known = annotated_mask(labels)
    num_rows: Tensor | int = len(inputs)
    if known is not None:
        num_rows, labels = known.sum(dim=0).clamp(min=1), labels.nan_to_num()

    def cross_entropies() -> Tensor:
        logits = functional.linear(inputs, weight, bias)
        entropies = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        return entropies.mean(dim=0) if known is None else (entropies * known).sum(dim=0) / num_rows

    def closure() -> Tensor:
        optimizer.zero_grad()
        penalties = weight.square().sum(dim=1) / (2 * strength * num_rows)
        loss = (scale * (cross_entropies() + penalties)).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        return float(cross_entropies().mean())
