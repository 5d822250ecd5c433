"""A check before a model is saved: its configuration and its tensors must be sufficient to rebuild it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import torch
from torch import nn

from mlmetric._evaluation_mode import evaluation_mode
from mlmetric.models._model_parts import reference_tensor
from mlmetric.models._module_config import build_modules, custom_classes, owned_tensors, set_tensor
from mlmetric.models._module_recipes import Config

if TYPE_CHECKING:
    from mlmetric.models._multi_label_model import MultiLabelModel


def check_heads(model: MultiLabelModel, configs: dict[str, Config]) -> None:
    """Rebuild the embedding and the classifier, and compare their outputs with those of the model.

    Heads that contain modules of the user are not checked, since the code that makes them is not known here.

    Args:
        model: The model.
        configs: The configurations, with the keys "embedding" and "classifier".

    Raises:
        ValueError: If they cannot be rebuilt, or the outputs differ.
    """
    if any(map(custom_classes, configs.values())):
        return
    heads = {"embedding": model.embedding, "classifier": model.classifier}
    tensors = owned_tensors(nn.ModuleDict(heads))
    views = list((model.views or {}).values())
    rows = torch.randn(1, model.in_features, generator=torch.Generator().manual_seed(0))
    if len(views) > 1:
        rows = rows.repeat(1 + len(views), 1)
        for row, columns in zip(rows[1:], views, strict=True):
            row[columns] = torch.nan
    rows = rows.to(reference_tensor(model.embedding, model.classifier))
    try:
        rebuilt = nn.ModuleDict(build_modules(json.loads(json.dumps(configs, allow_nan=False)), {})).eval()
        differing = owned_tensors(rebuilt).keys() ^ tensors.keys()
        if differing:
            raise ValueError(f"only one of the two has the tensor {min(differing)!r}")
        for tensor_name, tensor in tensors.items():
            set_tensor(rebuilt, tensor_name, tensor.detach())
        with evaluation_mode(model), torch.no_grad():
            for name, head in heads.items():
                expected, found = head(rows), rebuilt[name](rows)
                if not torch.allclose(expected, found, rtol=1e-3, atol=1e-5, equal_nan=True):
                    raise ValueError(f"the outputs of `{name}` differ by {float((expected - found).abs().max()):.2g}")
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            "The model cannot be saved, because a model made from its layers and tensors differs from it: "
            f"{str(error).rstrip('.')}. Hooks, parametrizations, replaced methods, infinite arguments, and parts that "
            "two heads share are not saved: write a class for them, and pass it as `custom_modules` when the model is "
            "loaded."
        ) from error
