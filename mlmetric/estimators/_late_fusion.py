"""Late fusion of members that were trained on one view each: weights of the views, and outputs of missing ones.

The weights are chosen on rows set aside by greedy selection with replacement (Caruana et al., "Ensemble selection from
libraries of models", ICML 2004): starting with one vote for each view, each step adds a vote for the view that gives
the best score; the votes with the best score are the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mlmetric.distributed import on_first_rank
from mlmetric.estimators._label_training import FittedClassifier
from mlmetric.estimators._members import TrainedMembers, cpu_outputs
from mlmetric.estimators._training_data import TrainingData
from mlmetric.estimators._validation_parts import ValidationParts
from mlmetric.heads import EmbeddingEnsemble, LateFusionClassifier, LateFusionHead
from mlmetric.training._trainer import device_of
from mlmetric.training._validation_scores import label_score, retrieval_score

_ROUNDS = 15
_MAX_QUERIES = 1000
_ROUNDING = 1e-10


def fuse_embeddings(members: Mapping[str, TrainedMembers], parts: ValidationParts) -> LateFusionHead:
    """Concatenate the embeddings of views with the weights that give the best NDCG@10 on rows set aside.

    Embeddings of the views are compared at the same scale: the weights are divided by the mean squared distance of the
    training rows from their centre; a view whose embeddings are all the same keeps its scale. The rows that the first
    part sets aside are the queries, its training rows the database; only members that were not trained on the queries
    embed both.

    Args:
        members: The trained members of each view.
        parts: The training rows and validation rows of each member. Without validation rows the weights are equal.

    Returns:
        The head, in evaluation mode.
    """
    heads = {name: members[name].ensemble() for name in _views(parts.data)}
    train, validation = parts[0]
    votes = dict.fromkeys(members, 1.0)
    if validation is not None and validation.has_positive:
        spacing = -(-len(validation.labels) // _MAX_QUERIES)
        queries, target = (rows[::spacing] for rows in validation.hard.pair)
        unseen = {name: EmbeddingEnsemble(members[name].heads[:: len(parts)]) for name in heads}
        head = _fit_head(unseen, train, votes)
        of_views = [
            torch.split(cpu_outputs(head, rows), [size + 1 for size in head.sizes], dim=1)
            for rows in (queries, train.features)
        ]

        def score(votes: Mapping[str, float]) -> float:
            scaled = ([votes[name] ** 0.5 * rows for name, rows in zip(heads, each, strict=True)] for each in of_views)
            rows, refs = (torch.cat(each, dim=1) for each in scaled)
            return retrieval_score(rows, target, refs, train.labels)

        votes = on_first_rank(lambda: _choose_votes(score, members))
    return _fit_head(heads, parts.data, votes)


def _fit_head(heads: Mapping[str, nn.Module], data: TrainingData, votes: Mapping[str, float]) -> LateFusionHead:
    """Return the fused head of the heads of the views, in evaluation mode, on their device."""
    views = _views(data)
    present = {name: ~data.features[:, columns.start].isnan() for name, columns in views.items()}
    rows = {name: _filled(heads[name], data.features[:, columns]) for name, columns in views.items()}
    missing = {name: rows[name][present[name]].mean(dim=0) for name in views}
    spread = {
        name: _mean_square(rows[name][present[name]] - missing[name], of=rows[name][present[name]]) for name in views
    }
    predictors, deviations = {}, {}
    for target in views:
        errors = []
        for source in views:
            if source != target:
                both = present[source] & present[target]
                known, wanted = rows[source][both], rows[target][both]
                layer = _fit_ridge(known, wanted, missing[source], missing[target])
                predictors[source, target] = layer
                errors.append(
                    float((wanted - layer(known)).square().sum(dim=1).mean()) if len(known) else spread[target]
                )
        deviations[target] = (sum(errors) / max(1, len(errors))) ** 0.5
    weights = {name: votes[name] / spread[name] for name in views}
    settings: dict[str, Any] = {"predictors": predictors, "deviations": deviations, "weights": weights}
    head = LateFusionHead(data.features.shape[1], views, heads, missing, **settings)
    return head.to(device_of(head)).eval()


def _fit_ridge(source: Tensor, target: Tensor, source_mean: Tensor, target_mean: Tensor) -> nn.Linear:
    """Fit a ridge regression from the embeddings of a view to those of another.

    The penalty is the mean squared deviation of a column of the source.
    """
    layer = nn.Linear(len(source_mean), len(target_mean), device="meta").to_empty(device="cpu")  # draws no weights
    centered, wanted = (source - source_mean).double(), (target - target_mean).double()
    penalty = centered.square().sum() / max(1, len(source_mean))
    gram = centered.T @ centered + max(float(penalty), _ROUNDING) * torch.eye(len(source_mean), dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.linalg.solve(gram, centered.T @ wanted).T)
        layer.bias.copy_(target_mean - layer.weight @ source_mean)
    return layer.requires_grad_(False)


def fuse_classifiers(
    classifiers: Mapping[str, FittedClassifier], members: Mapping[str, TrainedMembers], parts: ValidationParts
) -> FittedClassifier:
    """Average the logits of the classifiers of views with the weights that give the best mAP on rows set aside.

    Args:
        classifiers: The classifier of each view, with the logits of the validation rows that have the view.
        members: The trained members of each view.
        parts: The training rows and validation rows of each member. Without validation rows the weights are equal.

    Returns:
        The classifier, with the logits of all validation rows.
    """
    views = _views(parts.data)
    modules: dict[str, nn.Module] = {name: fitted.module for name, fitted in classifiers.items()}
    missing = {name: cpu_outputs(modules[name], members[name].parts.data.features).mean(dim=0) for name in modules}
    votes = dict.fromkeys(modules, 1.0)
    validation = None
    held_out = [rows.hard for _, rows in (parts[number] for number in range(len(parts))) if rows is not None]
    if held_out:
        target = torch.cat([rows.labels for rows in held_out])
        logits = {}
        for name, columns in views.items():
            present = torch.cat([~rows.features[:, columns.start].isnan() for rows in held_out])
            logits[name] = missing[name].repeat(len(target), 1)
            if (scored := classifiers[name].validation) is not None:
                logits[name][present] = scored[0]

        def mixed(votes: Mapping[str, float]) -> Tensor:
            weighted = [vote * logits[name] for name, vote in votes.items()]
            return torch.stack(weighted).sum(dim=0) / sum(votes.values())

        if bool((target == 1).any()):
            votes = _choose_votes(lambda votes: label_score(mixed(votes), target), modules)
        validation = mixed(votes), target
    module = LateFusionClassifier(parts.data.features.shape[1], views, modules, missing, weights=votes)
    module.to(device_of(module)).eval()
    histories = [history for fitted in classifiers.values() for history in fitted.histories]
    return FittedClassifier(module, parts.data.labels.shape[1], histories, validation)


def _views(data: TrainingData) -> dict[str, slice]:
    assert data.views is not None
    return data.views


def _mean_square(deviations: Tensor, *, of: Tensor) -> float:
    """Return the mean squared norm of deviations from the mean of `of`; 1 if they are only rounding errors."""
    square, reference = (float(rows.square().sum(dim=1).mean()) for rows in (deviations, of))
    return square if square > _ROUNDING * reference else 1.0


def _filled(module: nn.Module, features: Tensor) -> Tensor:
    """Return the outputs for the features of a view, on the CPU; they are arbitrary for rows without the view."""
    return cpu_outputs(module, features.where(~features.isnan(), 0))


def _choose_votes(score: Callable[[dict[str, float]], float], names: Mapping[str, object]) -> dict[str, float]:
    """Select views one after the other, and return the number of votes for each view that gave the best score."""
    votes = dict.fromkeys(names, 1.0)
    best, best_votes = score(votes), votes
    for _ in range(_ROUNDS):
        candidates = [votes | {name: votes[name] + 1} for name in votes]
        scores = [score(candidate) for candidate in candidates]
        votes = candidates[scores.index(max(scores))]
        if max(scores) > best:
            best, best_votes = max(scores), votes
    return best_votes
