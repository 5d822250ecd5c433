"""A trained model that maps images, texts or features to labels and embeddings."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mlmetric._docstrings import inherit_docs
from mlmetric._evaluation_mode import evaluation_mode
from mlmetric.heads import FrozenBackbone
from mlmetric.models import _export, _saved_model
from mlmetric.models._estimator_parts import of_estimator
from mlmetric.models._head_outputs import Progress, head_outputs, predicted_labels
from mlmetric.models._model_parts import (
    check_names,
    features_of,
    output_sizes,
    read_thresholds,
    reference_tensor,
)
from mlmetric.models._module_config import CustomModules
from mlmetric.models._preprocessing_config import Transform
from mlmetric.models._record import to_json
from mlmetric.models._text_inputs import ReadText, check_text_reader, copied_features, join_text, missing_views
from mlmetric.text._text_features import TextFeatures


class MultiLabelModel(nn.Module):
    """A trained model that predicts the labels and computes the embeddings of images, texts or features.

    It consists of an optional frozen backbone, which computes features of images, optional features of texts, an
    embedding and a classifier on these features, a threshold for each label, and the names of the labels.
    `MetricClassifier.to_model()` makes one.

    With `text_features`, the last D_text of the D features are the features of the text. The other features come from
    the backbone, or are the inputs if there is no backbone. If there are no other features, the inputs are the texts
    themselves.

    Args:
        embedding: Maps features `(N, D)` to embeddings `(N, E)`.
        classifier: Maps features `(N, D)` to logits `(N, L)`, and these to probabilities by its method
            `probabilities`, such as a `ClassifierEnsemble`, a `ClassifierHead` or a `LabelNetwork`.
        backbone: Maps images to features; None for a model whose inputs are features or texts.
        text_features: Computes the features of texts, fitted; None for a model without text. A shallow copy is kept.
        text_reader: Called with an image (a path or a PIL image) to read the text on it if no texts are passed, such as
            a `mlmetric.text.TextReader`; None to read no text.
        label_names: A different name for each label; None for their indices, "0", "1" and so on.
        thresholds: Lowest probability for which a label is predicted: one number for all labels, or one for each, shape
            `(L,)`; infinity for a label that is never predicted.
        in_features: D; None to read it from backbone or heads.
        feature_names: Names of the features other than those of the text; the columns of a data frame are compared with
            them. None for no names.
        record: How the model was trained and measured. Anything that JSON cannot represent is replaced by its `repr`,
            NaN and infinity by None. The model card shows it; see `save_pretrained`.

    Attributes:
        backbone: The backbone, or None.
        embedding: The embedding.
        classifier: The classifier.
        text_features: The features of texts, or None.
        text_reader: The reader of the text on images, or None.
        thresholds: The thresholds, float32, shape `(L,)`; a buffer.
        label_names: The names of the labels, a list.
        in_features: D.
        num_text_features: D_text, 0 without text; D if the inputs are texts.
        text_is_optional: Whether inputs may lack text.
        views: The views of the features, of which rows may lack some, by name; None if rows must have all features.
        embedding_size: E.
        feature_names: The names of the features, a list, or None.
        record: The record, a dictionary.

    Raises:
        TypeError: If a part is not a torch module, `backbone` not a `FrozenBackbone`, `text_features` not a
            `TextFeatures`, or `classifier` has no method `probabilities`.
        ValueError: If the parts differ in their numbers of features, or this number is not known; if the numbers of
            labels, names and thresholds differ, a name occurs twice, or a threshold is NaN; or if there is a
            `text_reader` but no backbone or no text.
        NotFittedError: If `text_features` is not fitted.

    Examples:
        >>> import torch
        >>> from mlmetric.heads import ClassifierHead, EmbeddingHead
        >>> from mlmetric.models import MultiLabelModel
        >>> classifier = ClassifierHead(8, num_labels=2).init_from_labels([[1, 1], [1, 0], [1, 0], [0, 0]])
        >>> model = MultiLabelModel(EmbeddingHead(8), classifier, label_names=["sea", "sun"])
        >>> model.predict(torch.zeros(1, 8))  # (3 + 0.5) / (4 + 1) and (1 + 0.5) / (4 + 1)
        [{'sea': 0.699...}]
        >>> model.predict_proba(torch.zeros(5, 8)).shape, model.embed(torch.zeros(5, 8)).shape
        ((5, 2), (5, 256))
    """

    thresholds: Tensor

    def __init__(
        self,
        embedding: nn.Module,
        classifier: nn.Module,
        *,
        backbone: FrozenBackbone | None = None,
        text_features: TextFeatures | None = None,
        text_reader: ReadText | None = None,
        label_names: Sequence[str] | None = None,
        thresholds: float | Sequence[float] | npt.ArrayLike | Tensor = 0.5,
        in_features: int | None = None,
        feature_names: Sequence[str] | None = None,
        record: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.text_features, self.num_text_features = copied_features(text_features)
        self.in_features = features_of(
            embedding, classifier, backbone, in_features, feature_names, self.num_text_features
        )
        check_text_reader(text_reader, reads_images=backbone is not None and text_features is not None)
        self.text_reader = text_reader
        self.feature_names = None if feature_names is None else [str(name) for name in feature_names]
        self.backbone = backbone
        self.embedding = embedding
        self.classifier = classifier
        like = reference_tensor(embedding, classifier)
        with evaluation_mode(self), torch.no_grad():
            row = torch.zeros(1, self.in_features).to(like)
            num_labels, self.embedding_size = output_sizes(row, classifier=self._probabilities, embedding=embedding)
            self.views, self.text_is_optional = missing_views(
                row, self.num_text_features, (embedding, classifier), (embedding, self._probabilities)
            )
        self.label_names = check_names(label_names, num_labels)
        self.register_buffer("thresholds", read_thresholds(thresholds, num_labels).to(like.device))
        self.record: dict[str, Any] = to_json({} if record is None else record)

    @staticmethod
    @inherit_docs(of_estimator)
    def from_estimator(
        estimator: Any,
        *,
        backbone: FrozenBackbone | None = None,
        text_features: TextFeatures | None = None,
        text_reader: ReadText | None = None,
        label_names: Sequence[str] | None = None,
        record: dict[str, Any] | None = None,
    ) -> MultiLabelModel:
        """Make a model from a fitted estimator; the heads are copied."""
        return of_estimator(estimator, backbone, text_features, text_reader, label_names, record)

    def forward(self, inputs: Tensor, text: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Compute probabilities `(N, L)` and embeddings `(N, E)`.

        Args:
            inputs: A batch of preprocessed images; or, if there is no backbone, the features other than those of the
                text, or, if there are no other features, the features of texts, `(N, D_text)`.
            text: Features of the texts of images or features, `(N, D_text)`, NaN in rows without text; None for no
                text.

        Returns:
            Probabilities and embeddings.

        Raises:
            ValueError: If `text` is given but the model does not read it, or is not given but required.
        """
        features = join_text(self, inputs if self.backbone is None else self.backbone(inputs), text)
        return self._probabilities(features), self.embedding(features)

    def predict(
        self, inputs: Any, *, texts: Any = None, batch_size: int | None = None, progress: Progress | None = None
    ) -> list[dict[str, float]]:
        """Predict the labels of inputs: those whose probability is at least their threshold.

        Args:
            inputs: With a backbone, one or several images: paths, PIL images, uint8 tensors `(3, H, W)`, or
                preprocessed tensors of floating-point numbers `(C, H, W)`; or a tensor `(N, C, H, W)`. Paths, PIL
                images and uint8 tensors go through the transform of the backbone; floating-point tensors must be what
                it returns, resized and normalised. Without a backbone, features: an array, tensor or data frame
                `(n, D)` without the columns of the text, NaN where a row lacks a view. For a model of texts alone, one
                or several texts, as for `texts`.
            texts: The texts of images or features: for each input a text, a list of texts, or None if it has none; a
                text for a single image. If `texts` is None, `text_reader` reads the text from paths, PIL images and
                uint8 tensors; without a reader, the inputs lack text.
            batch_size: Number of inputs in a batch; None for 32 images, or 4,096 rows of features.
            progress: Called after each batch as `progress(done, total)` with numbers of inputs.

        Returns:
            For each input, the names of its labels with their probabilities, the highest first.

        Raises:
            BadImageError: If an image cannot be read; the message names it.
            OSError: If the system is the cause, not the image, such as not enough memory.
            TypeError: If an input is of another kind, or the transform does not return a tensor of numbers.
            ValueError: If a shape, the number of features or texts, or the columns of a data frame are wrong, a feature
                is not finite (except in missing views), the text is missing but required, an image requires a transform
                but there is none, or `batch_size` is not a whole number from 1.
        """
        probabilities = self.predict_proba(inputs, texts=texts, batch_size=batch_size, progress=progress)
        return predicted_labels(probabilities, self.thresholds, self.label_names)

    @inherit_docs(predict)
    def predict_proba(
        self, inputs: Any, *, texts: Any = None, batch_size: int | None = None, progress: Progress | None = None
    ) -> npt.NDArray[np.float32]:
        """Compute the probabilities of all labels.

        Returns:
            float32, shape `(n, L)`, columns as in `label_names`.
        """
        return head_outputs(self, ["probabilities"], inputs, texts, batch_size, progress)[0]

    @inherit_docs(predict)
    def embed(
        self, inputs: Any, *, texts: Any = None, batch_size: int | None = None, progress: Progress | None = None
    ) -> npt.NDArray[np.float32]:
        """Compute embeddings, to be compared by the Euclidean distance.

        Returns:
            float32, shape `(n, E)`.
        """
        return head_outputs(self, ["embeddings"], inputs, texts, batch_size, progress)[0]

    @inherit_docs(predict)
    def predict_and_embed(
        self, inputs: Any, *, texts: Any = None, batch_size: int | None = None, progress: Progress | None = None
    ) -> tuple[list[dict[str, float]], npt.NDArray[np.float32]]:
        """Predict the labels and compute the embeddings of inputs; each input is read once.

        Returns:
            The results of `predict` and `embed`.
        """
        both = head_outputs(self, ["probabilities", "embeddings"], inputs, texts, batch_size, progress)
        return predicted_labels(both[0], self.thresholds, self.label_names), both[1]

    @inherit_docs(_saved_model.save_pretrained)
    def save_pretrained(
        self,
        folder: str | os.PathLike[str],
        *,
        backbone: Literal["reference", "value"] = "reference",
    ) -> None:
        """Save the model without pickle: `model.safetensors`, `config.json` and the model card `README.md`.

        A model with a `TfidfEncoder` also has `text_terms.json`. The card shows the record: `name` is the title,
        `license` the licence of the model, `data` what it was trained and measured on, and `metrics` a dictionary of
        results. Instead of `metrics`, `report` can be a text in Markdown, such as `str(MultiLabelMetrics.report())`.
        `limits` states what users must know.
        """
        _saved_model.save_pretrained(self, folder, backbone=backbone)

    @classmethod
    @inherit_docs(_saved_model.from_pretrained)
    def from_pretrained(
        cls,
        folder_or_id: str | os.PathLike[str],
        *,
        backbone: nn.Module | None = None,
        transform: Transform | None = None,
        text_features: TextFeatures | None = None,
        text_reader: ReadText | None = None,
        custom_modules: CustomModules | None = None,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
    ) -> Self:
        """Load a saved model from a folder or from the Hugging Face hub; no code of the files is run."""
        hub: Any = {"revision": revision, "cache_dir": cache_dir, "local_files_only": local_files_only, "token": token}
        return _saved_model.from_pretrained(
            cls,
            folder_or_id,
            backbone=backbone,
            transform=transform,
            text_features=text_features,
            text_reader=text_reader,
            custom_modules=custom_modules,
            **hub,
        )

    @inherit_docs(_saved_model.push_to_hub)
    def push_to_hub(
        self,
        repo_id: str,
        *,
        backbone: Literal["reference", "value"] = "reference",
        private: bool | None = None,
        token: str | bool | None = None,
        commit_message: str = "Upload a multi-label model",
        revision: str | None = None,
    ) -> str:
        """Save the model to the Hugging Face hub."""
        hub: Any = {"private": private, "token": token, "commit_message": commit_message, "revision": revision}
        return _saved_model.push_to_hub(self, repo_id, backbone=backbone, **hub)

    @inherit_docs(_export.export_program)
    def export_program(
        self, path: str | os.PathLike[str] | None = None, *, example: Tensor | None = None
    ) -> torch.export.ExportedProgram:
        """Export the model by torch.export: from a batch of inputs to probabilities and embeddings.

        `torch.export.load` reads the file; its extra file "labels.json" contains label names and thresholds.
        """
        return _export.export_program(self, path, example)

    @inherit_docs(_export.export_onnx)
    def export_onnx(self, path: str | os.PathLike[str], *, example: Tensor | None = None) -> None:
        """Export the model as an ONNX file: from "images" or "features" to "probabilities" and "embeddings".

        With text there is also the input "text_features", NaN in rows without text; for a model of texts alone, it is
        the only input.

        The metadata of the file contains `label_names` and `thresholds` as JSON.
        """
        _export.export_onnx(self, path, example)

    def extra_repr(self) -> str:
        """Show the sizes."""
        return (
            f"in_features={self.in_features}, embedding_size={self.embedding_size}, num_labels={len(self.label_names)}"
        )

    def _probabilities(self, features: Tensor) -> Tensor:
        probabilities: Tensor = self.classifier.probabilities(self.classifier(features))  # type: ignore[operator]
        return probabilities
