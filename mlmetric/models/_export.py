"""Export of a model by torch.export, and to ONNX."""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mlmetric._atomic_write import atomic_write
from mlmetric._evaluation_mode import evaluation_mode
from mlmetric.models._model_parts import reference_tensor
from mlmetric.models._record import thresholds_to_json
from mlmetric.models._text_inputs import inputs_are_texts

if TYPE_CHECKING:
    from mlmetric.models._multi_label_model import MultiLabelModel

_LABELS_FILE = "labels.json"


def export_program(
    model: MultiLabelModel, path: str | os.PathLike[str] | None, example: Tensor | None
) -> torch.export.ExportedProgram:
    """Export a model by torch.export.

    Args:
        model: The model.
        path: File to write, usually ending in `.pt2`; None to write no file.
        example: A batch of preprocessed images, which fixes their shape; None for the shape that the transform of the
            backbone returns. Models of features or texts need no example.

    Returns:
        The program. Its batch size is dynamic. With text in addition to images or features, its second input is the
        features of the text, as for `MultiLabelModel.forward`.

    Raises:
        TypeError: If `example` is not a tensor.
        ValueError: If `example` is required because the backbone has no transform, or is not a batch of floating-point
            numbers.
        OSError: If the file cannot be written.
    """
    inputs = _example_inputs(model, example)
    with _exporting(model):
        program = torch.export.export(model, tuple(inputs.values()), dynamic_shapes=_dynamic_batch(inputs))
    if path is not None:
        with atomic_write(Path(path)) as file:
            torch.export.save(program, file, extra_files={_LABELS_FILE: json.dumps(_labels(model))})
    return program


def export_onnx(model: MultiLabelModel, path: str | os.PathLike[str], example: Tensor | None) -> None:
    """Write a model as an ONNX file.

    Args:
        model: The model.
        path: File to write. Its batch size is dynamic.
        example: A batch of preprocessed images, which fixes their shape; None for the shape that the transform of the
            backbone returns. Models of features or texts need no example.

    Raises:
        TypeError: If `example` is not a tensor.
        ValueError: If `example` is required because the backbone has no transform, or is not a batch of floating-point
            numbers.
        OSError: If the file cannot be written.
        ImportError: If onnx or onnxscript is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError('Export to ONNX requires onnx and onnxscript: `pip install "mlmetric[onnx]"`.') from error
    inputs = _example_inputs(model, example)
    with _exporting(model):
        program: Any = torch.onnx.export(
            model,
            tuple(inputs.values()),
            dynamo=True,
            dynamic_shapes=_dynamic_batch(inputs),
            input_names=list(inputs),
            output_names=["probabilities", "embeddings"],
            verbose=False,
        )
    for name, value in _labels(model).items():
        program.model.metadata_props[name] = json.dumps(value, ensure_ascii=False)
    with tempfile.TemporaryDirectory() as folder, atomic_write(Path(path)) as file:
        program.save(Path(folder) / "model.onnx", external_data=False)
        file.write((Path(folder) / "model.onnx").read_bytes())


def _labels(model: MultiLabelModel) -> dict[str, Any]:
    return {"label_names": model.label_names, "thresholds": thresholds_to_json(model.thresholds)}


def _dynamic_batch(inputs: dict[str, Tensor]) -> tuple[dict[int, Any], ...]:
    batch = torch.export.Dim("batch")
    return tuple({0: batch} for _ in inputs)


def _example_inputs(model: MultiLabelModel, example: Tensor | None) -> dict[str, Tensor]:
    """Return a batch of two inputs by their names in an ONNX file."""
    batch = _example(model, example)
    if inputs_are_texts(model):
        return {"text_features": batch}
    inputs = {"features" if model.backbone is None else "images": batch}
    if model.num_text_features:
        inputs["text_features"] = torch.zeros(2, model.num_text_features).to(reference_tensor(model))
    return inputs


def _example(model: MultiLabelModel, example: Tensor | None) -> Tensor:
    """Return a batch of two inputs: if none is given, zeros as features, or black images preprocessed."""
    like = reference_tensor(model)
    num_features = model.in_features if inputs_are_texts(model) else model.in_features - model.num_text_features
    if example is not None:
        if not isinstance(example, Tensor):
            raise TypeError(f"`example` must be a tensor, a batch of inputs, got {type(example).__name__}.")
        of_images = model.backbone is not None
        fits = example.ndim == 4 if of_images else example.ndim == 2 and example.shape[1] == num_features
        if not fits or not example.is_floating_point() or len(example) == 0:
            what = "images (N, C, H, W)" if of_images else f"features (N, {num_features})"
            raise ValueError(
                f"`example` must be a batch of at least one input, {what}, of floating-point numbers, got "
                f"{example.dtype} of shape {tuple(example.shape)}."
            )
        # With a batch of one, the exporter would take the size of the batch for a constant.
        return torch.cat([example, example])[:2].to(like)
    if model.backbone is None:
        return torch.zeros(2, num_features).to(like)
    if model.backbone.transform is None:
        raise ValueError("`example`, a preprocessed batch of images, is required: the backbone has no transform.")
    from PIL import Image

    image = model.backbone.transform(Image.new("RGB", (256, 256)))
    return torch.stack([image, image]).to(like)


@contextmanager
def _exporting(model: MultiLabelModel) -> Iterator[None]:
    with evaluation_mode(model), torch.no_grad(), warnings.catch_warnings():
        # Deprecations inside torch's exporters, which the caller cannot avoid.
        for category in (DeprecationWarning, FutureWarning, PendingDeprecationWarning):
            warnings.filterwarnings("ignore", category=category, module=r"(torch|onnx|onnxscript|onnx_ir|copyreg)\b")
        warnings.filterwarnings("ignore", message=".*axis name: batch will not be used")  # of the second input
        yield
