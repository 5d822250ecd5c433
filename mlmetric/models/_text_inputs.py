"""The texts of a model's inputs: given by the caller or read from the images, and the views that heads can lack."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from mlmetric.heads import FusionHead, LateFusionClassifier, LateFusionHead
from mlmetric.models._model_inputs import is_pil_image
from mlmetric.text._text_features import TextFeatures
from mlmetric.text._text_rows import read_text_rows

if TYPE_CHECKING:
    from mlmetric.models._multi_label_model import MultiLabelModel

ReadText = Callable[[Any], str]


def copied_features(text_features: Any) -> tuple[TextFeatures | None, int]:
    """Return a shallow copy of fitted text features, which another fit does not change, and D_text (0 without text).

    Raises:
        TypeError: If `text_features` is neither None nor a `TextFeatures`.
        NotFittedError: If it is not fitted.
    """
    if text_features is None:
        return None, 0
    if not isinstance(text_features, TextFeatures):
        raise TypeError(
            f"`text_features` must be a `mlmetric.estimators.TextFeatures`, got {type(text_features).__name__}."
        )
    check_is_fitted(text_features, "encoder_")
    return copy.copy(text_features), text_features._n_features_out


def check_text_reader(text_reader: Any, *, reads_images: bool) -> None:
    """Check that a reader is callable, and that the model has images and text.

    Raises:
        TypeError: If the reader is not callable.
        ValueError: If the model has no images or no text.
    """
    if text_reader is None:
        return
    if not callable(text_reader):
        raise TypeError(
            f"`text_reader` must be a function from an image to its text, got {type(text_reader).__name__}."
        )
    if not reads_images:
        raise ValueError("`text_reader` must be None for a model without `backbone` or without `text_features`.")


def missing_views(
    row: Tensor, num_text_features: int, heads: Sequence[nn.Module], apply: Sequence[Callable[[Tensor], Tensor]]
) -> tuple[dict[str, slice] | None, bool]:
    """Find the views that rows may lack, and whether rows may lack the text.

    Args:
        row: A row of finite features, shape `(1, D)`.
        num_text_features: Number of features at the end that belong to the text.
        heads: Embedding and classifier.
        apply: The functions that map features to the embeddings and probabilities of the heads.

    Returns:
        The views of the heads, or None if the heads have none or need all of them; and whether the text may be missing.

    Raises:
        ValueError: If the last view of the heads has another number of features than the text.
    """

    def is_optional(columns: slice) -> bool:
        if columns.stop - columns.start == row.shape[1]:
            return False
        lacking = row.clone()
        lacking[:, columns] = torch.nan
        try:
            return all(bool(head(lacking).isfinite().all()) for head in apply)
        except Exception:  # of a module that reads no NaN
            return False

    size = row.shape[1]
    parts = (part for head in heads for part in head.modules())
    of_heads = (part.views for part in parts if isinstance(part, FusionHead | LateFusionHead | LateFusionClassifier))
    views = next((views for views in of_heads if list(views.values())[-1].stop == size), None)
    text = slice(size - num_text_features, size)
    if views is not None and num_text_features and text not in views.values():
        name, last = list(views.items())[-1]
        raise ValueError(
            f"The last view of the heads, {name!r}, must consist of the {num_text_features} features of "
            f"`text_features`, got {last.stop - last.start}."
        )
    if views is not None and len(views) > 1 and not all(map(is_optional, views.values())):
        views = None
    return views, num_text_features > 0 and is_optional(text)


def inputs_are_texts(model: MultiLabelModel) -> bool:
    """Return whether the inputs of a model are texts: all features belong to the text."""
    return model.num_text_features == model.in_features


def texts_as_features(model: MultiLabelModel, inputs: Any) -> Tensor:
    """Return the features of inputs that are texts.

    Args:
        model: A model of texts alone.
        inputs: One text, or for each input a text or a list of texts.

    Returns:
        float32, shape `(n, D)`.

    Raises:
        TypeError: If an input is anything else.
        ValueError: If an input has no text, or the inputs are images.
    """
    first = inputs[0] if isinstance(inputs, list | tuple) and inputs else inputs
    if is_pil_image(first) or isinstance(first, os.PathLike):
        raise ValueError("`inputs` must be texts, since the model has no backbone, got images.")
    rows = _text_rows(inputs, "inputs")
    for number, texts in enumerate(rows):
        if not texts:
            raise ValueError(
                f"`inputs[{number}]` must contain a text, since the model reads nothing else: leave it out."
            )
    return encode_rows(model, rows)


def given_texts(model: MultiLabelModel, texts: Any, num_inputs: int) -> list[list[str]]:
    """Check the texts that the caller passed.

    Args:
        model: A model with text in addition to images or features.
        texts: For each input a text, a list of texts or None; one text for one input; None for no text at all.
        num_inputs: Number of inputs.

    Returns:
        A list of texts for each input, empty for an input without text.

    Raises:
        TypeError: If there is anything other than texts.
        ValueError: If the numbers of texts and inputs differ, or a text that the heads need is missing.
    """
    rows = [[] for _ in range(num_inputs)] if texts is None else _text_rows(texts, "texts")
    if len(rows) != num_inputs:
        raise ValueError(f"`texts` must have one entry for each of {num_inputs} inputs, got {len(rows)}.")
    check_needed_text(model, rows)
    return rows


def check_needed_text(model: MultiLabelModel, rows: list[list[str]], start: int = 0) -> None:
    """Check that there are texts where the heads need them.

    Raises:
        ValueError: If a row has no text; the message names it.
    """
    if model.text_is_optional or all(rows):
        return
    number = start + next(number for number, texts in enumerate(rows) if not texts)
    raise ValueError(
        f"`inputs[{number}]` has no text, which the heads of this model need: pass `texts`, or train with views "
        "(`MetricClassifier(views=...)`) on rows some of which have no text."
    )


def read_text(image: Any, text_reader: ReadText, number: int) -> list[str]:
    """Read the text of an image.

    Args:
        image: A path, a PIL image or a tensor `(C, H, W)`.
        text_reader: Called with the path or the PIL image.
        number: Number of the image, for error messages.

    Returns:
        A list of the text, empty if there is none.

    Raises:
        TypeError: If the reader returns anything but a text.
        ValueError: If the image is a preprocessed tensor.
    """
    if isinstance(image, Tensor):
        if image.is_floating_point():
            raise ValueError(
                f"`inputs[{number}]` is a preprocessed tensor, from which no text can be read: pass `texts`, with None "
                "for an image without text."
            )
        from torchvision.transforms.functional import to_pil_image

        image = to_pil_image(image.cpu())
    text: Any = text_reader(image)
    if not isinstance(text, str):
        raise TypeError(f"`text_reader` must return a text, got {type(text).__name__} for `inputs[{number}]`.")
    return [text] if text.strip() else []


def encode_rows(model: MultiLabelModel, rows: list[list[str]]) -> Tensor:
    """Return the features of rows of texts, float32, shape `(n, D_text)`; NaN in rows without text."""
    assert model.text_features is not None
    if not rows:
        return torch.empty(0, model.num_text_features)
    return torch.from_numpy(model.text_features.transform(rows))


def join_text(model: MultiLabelModel, features: Tensor, text: Tensor | None) -> Tensor:
    """Append the features of texts to the features of images or to other features.

    Args:
        model: The model.
        features: Shape `(N, D - D_text)`; or `(N, D)` for a model without text, or of texts alone.
        text: Shape `(N, D_text)`; None if all rows lack text, or the model has none to append.

    Returns:
        Shape `(N, D)`.

    Raises:
        ValueError: If `text` is given but the model does not read it, or is not given but required.
    """
    if model.num_text_features == 0 or inputs_are_texts(model):
        if text is not None:
            raise ValueError("`text` must be None for a model without text, or whose inputs are the texts.")
        return features
    if text is None:
        if not model.text_is_optional:
            raise ValueError("`text` must be given, since the heads of this model need the features of the text.")
        text = features.new_full((len(features), model.num_text_features), torch.nan)
    return torch.cat([features, text.to(features)], dim=1)


def _text_rows(texts: Any, name: str) -> list[list[str]]:
    if isinstance(texts, str):
        texts = [texts]
    elif not hasattr(texts, "__array__") and not isinstance(texts, list | tuple) and hasattr(texts, "__next__"):
        texts = list(texts)
    is_empty = isinstance(texts, list | tuple) and not texts
    return [] if is_empty else read_text_rows(texts, name)
