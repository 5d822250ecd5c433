"""How modules are described and rebuilt: heads of mlmetric and layers of torch, with their arguments as JSON."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from mlmetric.heads import (
    CalibratedClassifier,
    ClassifierEnsemble,
    ClassifierHead,
    EmbeddingEnsemble,
    EmbeddingHead,
    FusionHead,
    GraphConvolution,
    LabelGraphHead,
    LabelNetwork,
    LateFusionClassifier,
    LateFusionHead,
    SemanticProjectionHead,
    Standardize,
)
from mlmetric.heads._dropout import Dropout

Config = dict[str, Any]

_LAYERS: tuple[type[nn.Module], ...] = (
    *(nn.Linear, nn.BatchNorm1d, nn.LayerNorm, nn.Dropout, nn.AlphaDropout, nn.Identity, nn.Flatten),
    *(nn.CELU, nn.ELU, nn.GELU, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh, nn.LeakyReLU, nn.LogSigmoid, nn.Mish),
    *(nn.PReLU, nn.ReLU, nn.ReLU6, nn.RReLU, nn.SELU, nn.SiLU, nn.Sigmoid, nn.Softmax, nn.Softplus, nn.Softsign),
    *(nn.Tanh, nn.Tanhshrink),
)


class Recipe(NamedTuple):
    """How a class is described and rebuilt.

    Attributes:
        arguments: Returns the JSON arguments of a module.
        children: Names of the submodules that are described too; None for all.
        build: Makes a module from its arguments, and its children by name. Tensors are filled in afterwards.
    """

    arguments: Callable[[Any], Config]
    children: tuple[str, ...] | None
    build: Callable[..., nn.Module]


def _layer_arguments(layer: nn.Module) -> Config:
    """Read the arguments of a layer of torch from the attributes of the same names; `bias` is a bool."""
    names = [name for name in inspect.signature(type(layer)).parameters if name not in ("device", "dtype")]
    arguments = {name: getattr(layer, name) for name in names if hasattr(layer, name)}
    return {name: value is not None if name == "bias" else value for name, value in arguments.items()}


def _embedding_head(
    in_features: int, embedding_size: int, clip: float | None, norm_exponent: float, layers: nn.Sequential
) -> EmbeddingHead:
    head = EmbeddingHead(in_features, (embedding_size,), clip=clip, norm_exponent=norm_exponent)
    head.layers = layers
    return head


def _fusion_head(
    in_features: int, views: dict[str, list[int]], width: int, embedding_size: int, **parts: Any
) -> FusionHead:
    branches, layers = parts.pop("branches"), parts.pop("layers")
    head = FusionHead(in_features, _to_slices(views), (width, embedding_size), **parts)
    head.branches, head.layers = branches, layers
    return head


def _late_fusion_classifier(
    in_features: int, views: dict[str, list[int]], sizes: list[int], members: nn.ModuleList
) -> LateFusionClassifier:
    missing = {name: torch.zeros(size) for name, size in zip(views, sizes, strict=True)}
    return LateFusionClassifier(in_features, _to_slices(views), dict(zip(views, members, strict=True)), missing)


def _late_fusion_head(
    in_features: int,
    views: dict[str, list[int]],
    sizes: list[int],
    members: nn.ModuleList,
    predictors: nn.ModuleList,
) -> LateFusionHead:
    missing = {name: torch.zeros(size) for name, size in zip(views, sizes, strict=True)}
    head = LateFusionHead(in_features, _to_slices(views), dict(zip(views, members, strict=True)), missing)
    head.predictors = predictors
    return head


def _late_fusion_arguments(module: LateFusionHead | LateFusionClassifier) -> Config:
    return {"in_features": module.in_features, "views": _from_slices(module.views), "sizes": module.sizes}


def _to_slices(views: dict[str, list[int]]) -> dict[str, slice]:
    return {name: slice(*columns) for name, columns in views.items()}


def _from_slices(views: Mapping[str, slice]) -> dict[str, list[int]]:
    return {name: [columns.start, columns.stop] for name, columns in views.items()}


def _label_graph_head(in_features: int, label_vectors: list[int], hidden_features: int) -> LabelGraphHead:
    adjacency = torch.zeros(label_vectors[0], label_vectors[0])
    return LabelGraphHead(in_features, torch.zeros(label_vectors), adjacency, hidden_features=hidden_features)


def _semantic_projection_head(in_features: int, label_vectors: list[int], **settings: Any) -> SemanticProjectionHead:
    return SemanticProjectionHead(in_features, torch.zeros(label_vectors), **settings)


def _graph_convolution(num_labels: int, in_features: int, out_features: int) -> GraphConvolution:
    return GraphConvolution(torch.zeros(num_labels, num_labels), in_features, out_features)


RECIPES: dict[type[nn.Module], Recipe] = {layer: Recipe(_layer_arguments, (), layer) for layer in _LAYERS} | {
    nn.Sequential: Recipe(lambda _: {}, None, lambda **children: nn.Sequential(OrderedDict(children))),
    Dropout: Recipe(_layer_arguments, (), Dropout),  # saved under the name of torch's Dropout, and built for both
    nn.ModuleList: Recipe(lambda _: {}, None, lambda **children: nn.ModuleList(children.values())),
    Standardize: Recipe(lambda part: {"num_features": len(part.mean)}, (), Standardize),
    EmbeddingHead: Recipe(
        lambda head: {
            "in_features": head.in_features,
            "embedding_size": head.embedding_size,
            "clip": head.clip,
            "norm_exponent": head.norm_exponent,
        },
        ("layers",),
        _embedding_head,
    ),
    FusionHead: Recipe(
        lambda head: {
            "in_features": head.in_features,
            "views": _from_slices(head.views),
            "width": head.width,
            "embedding_size": head.embedding_size,
            "fusion": head.fusion,
            "view_dropout": head.view_dropout,
            "clip": head.clip,
            "norm_exponent": head.norm_exponent,
        },
        ("branches", "layers"),
        _fusion_head,
    ),
    EmbeddingEnsemble: Recipe(lambda _: {}, ("members",), EmbeddingEnsemble),
    ClassifierHead: Recipe(
        lambda head: {
            "in_features": head.linear.in_features,
            "num_labels": head.linear.out_features,
            "activation": head.activation,
            "clip": head.clip,
            "fill_missing": head.fill_missing,
        },
        (),
        ClassifierHead,
    ),
    LabelNetwork: Recipe(lambda _: {}, ("head", "classifier"), LabelNetwork),
    ClassifierEnsemble: Recipe(lambda _: {}, ("members",), ClassifierEnsemble),
    CalibratedClassifier: Recipe(
        lambda module: {"num_labels": len(module.slopes)},
        ("classifier",),
        lambda num_labels, classifier: CalibratedClassifier(
            classifier, torch.ones(num_labels), torch.zeros(num_labels)
        ),
    ),
    LateFusionHead: Recipe(_late_fusion_arguments, ("members", "predictors"), _late_fusion_head),
    LateFusionClassifier: Recipe(_late_fusion_arguments, ("members",), _late_fusion_classifier),
    GraphConvolution: Recipe(
        lambda layer: {
            "num_labels": len(layer.adjacency),
            "in_features": layer.weight.shape[0],
            "out_features": layer.weight.shape[1],
        },
        (),
        _graph_convolution,
    ),
    LabelGraphHead: Recipe(
        lambda head: {
            "in_features": len(head.standardize.mean),
            "label_vectors": list(head.label_vectors.shape),
            "hidden_features": head.first.weight.shape[1],
        },
        (),
        _label_graph_head,
    ),
    SemanticProjectionHead: Recipe(
        lambda head: {
            "in_features": len(head.standardize.mean),
            "label_vectors": list(head.label_vectors.shape),
            "distance": head.distance,
            "num_neighbors": head.num_neighbors,
            "separation": head.separation,
        },
        (),
        _semantic_projection_head,
    ),
}
