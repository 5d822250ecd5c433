"""The outputs of a model's heads for inputs of all kinds, in batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mlmetric._evaluation_mode import evaluation_mode
from mlmetric._views import check_missing_views
from mlmetric.models._model_inputs import finite_features, image_batches, list_images, read_features
from mlmetric.models._model_parts import reference_tensor
from mlmetric.models._text_inputs import (
    check_needed_text,
    encode_rows,
    given_texts,
    inputs_are_texts,
    read_text,
    texts_as_features,
)

if TYPE_CHECKING:
    from mlmetric.models._multi_label_model import MultiLabelModel

Progress = Callable[[int, int], None]
HeadName = Literal["probabilities", "embeddings"]

_IMAGES_PER_BATCH = 32
_ROWS_PER_BATCH = 4096


def head_outputs(
    model: MultiLabelModel,
    names: Sequence[HeadName],
    inputs: Any,
    texts: Any,
    batch_size: int | None,
    progress: Progress | None,
) -> list[npt.NDArray[np.float32]]:
    """Apply the embedding, the classifier or both to inputs in batches.

    Args:
        model: The model.
        names: The outputs: "probabilities" of the labels, "embeddings", or both.
        inputs: The inputs; this and the other arguments are as for `MultiLabelModel.predict`.
        texts: Their texts.
        batch_size: Number of inputs in a batch.
        progress: Called after each batch.

    Returns:
        For each name, float32, shape `(n, L)` or `(n, E)`.
    """
    if batch_size is not None and not (isinstance(batch_size, int | np.integer) and batch_size >= 1):
        raise ValueError(f"`batch_size` must be None or a whole number from 1, got {batch_size!r}.")
    if texts is not None and (model.text_features is None or inputs_are_texts(model)):
        reason = "it has no `text_features`" if model.text_features is None else "its inputs are the texts"
        raise ValueError(f"`texts` must be None for this model: {reason}.")
    like = reference_tensor(model.embedding, model.classifier)
    heads: dict[HeadName, tuple[Callable[[Tensor], Tensor], int]] = {
        "probabilities": (model._probabilities, len(model.label_names)),
        "embeddings": (model.embedding, model.embedding_size),
    }
    outputs = {name: [torch.empty(0, heads[name][1])] for name in names}
    with evaluation_mode(model), torch.no_grad():
        if model.backbone is None:
            features = _row_features(model, inputs, texts)
            step, report = batch_size or _ROWS_PER_BATCH, progress
        else:
            features = _image_features(model, inputs, texts, batch_size or _IMAGES_PER_BATCH, progress)
            step, report = _ROWS_PER_BATCH, None
        for start in range(0, len(features), step):
            rows = features[start : start + step].to(like)
            for name, batches in outputs.items():
                batches.append(heads[name][0](rows).float().cpu())
            if report is not None:
                report(start + len(rows), len(features))
    return [torch.cat(batches).numpy() for batches in outputs.values()]


def predicted_labels(
    probabilities: npt.NDArray[np.float32], thresholds: Tensor, label_names: Sequence[str]
) -> list[dict[str, float]]:
    """Return the names of the labels of each row that reach their threshold, with their probabilities.

    Args:
        probabilities: Shape `(n, L)`.
        thresholds: Shape `(L,)`.
        label_names: The L names.

    Returns:
        For each row, a dictionary with the highest probability first.
    """
    present = probabilities >= thresholds.detach().float().cpu().numpy()
    order = np.argsort(-probabilities, axis=1, kind="stable")
    return [
        {label_names[label]: float(probabilities[row, label]) for label in order[row] if present[row, label]}
        for row in range(len(probabilities))
    ]


def _row_features(model: MultiLabelModel, inputs: Any, texts: Any) -> Tensor:
    """Return the features of inputs that are features, texts, or features with texts."""
    if inputs_are_texts(model):
        return texts_as_features(model, inputs)
    num_features = model.in_features - model.num_text_features
    features = read_features(inputs, num_features, model.feature_names, allow_nan=model.views is not None)
    if model.text_features is not None:
        rows = given_texts(model, texts, len(features))
        features = torch.cat([features, encode_rows(model, rows)], dim=1)
    if model.views is not None:
        check_missing_views(features, model.views)
    return features


def _image_features(
    model: MultiLabelModel, inputs: Any, texts: Any, batch_size: int, progress: Progress | None
) -> Tensor:
    """Return the features of images, followed by the features of their texts."""
    assert model.backbone is not None
    images, like = list_images(inputs), reference_tensor(model.backbone, model.embedding, model.classifier)
    reader = model.text_reader if texts is None else None
    rows = None
    if model.text_features is not None and reader is None:
        rows = given_texts(model, texts, len(images))
    features = [torch.empty(0, model.in_features)]
    done = 0
    for batch in image_batches(images, model.backbone.transform, batch_size=batch_size):
        of_images = finite_features(model.backbone(batch.to(like)).float().cpu(), done)
        if model.text_features is not None:
            places = range(done, done + len(batch))
            if reader is not None:
                of_batch = [read_text(images[place], reader, place) for place in places]
                check_needed_text(model, of_batch, done)
            else:
                assert rows is not None
                of_batch = [rows[place] for place in places]
            of_images = torch.cat([of_images, encode_rows(model, of_batch)], dim=1)
        features.append(of_images)
        done += len(batch)
        if progress is not None:
            progress(done, len(images))
    return torch.cat(features)
