"""The parts of a model in a fitted estimator or pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sklearn.utils.validation import check_is_fitted

from mlmetric.heads import FrozenBackbone
from mlmetric.models._text_inputs import ReadText
from mlmetric.text._text_features import TextFeatures

if TYPE_CHECKING:
    from mlmetric.models._multi_label_model import MultiLabelModel


def of_estimator(
    estimator: Any,
    backbone: FrozenBackbone | None,
    text_features: TextFeatures | None,
    text_reader: ReadText | None,
    label_names: Sequence[str] | None,
    record: dict[str, Any] | None,
) -> MultiLabelModel:
    """Make a model from a fitted classifier, or from a pipeline that ends with one.

    Args:
        estimator: A fitted `MetricClassifier`; or a pipeline that ends with one and may start with an `ImageFeatures`,
            whose backbone becomes the backbone of the model, a `TextFeatures`, or a `ColumnTransformer` of an
            `ImageFeatures` followed by a `TextFeatures`. Undersamplers in between are left out.
        backbone: The backbone whose features the estimator was fitted on; None for a model of features or texts, or for
            the backbone of the pipeline.
        text_features: The fitted `TextFeatures` whose features were the last columns that the estimator was fitted on;
            None for a model without text, or for the `TextFeatures` of the pipeline.
        text_reader: Reads the text on an image (a path or a PIL image) if no texts are passed to the model, such as a
            `mlmetric.text.TextReader`; None to read no text.
        label_names: A different name for each label; None for the names that `y` had, or the indices of the labels.
        record: Added to the record, which contains the parameters of the estimator, the numbers of training rows and
            features, and the versions of the packages.

    Returns:
        The model, in evaluation mode.

    Raises:
        TypeError: If `estimator` is neither a classifier nor such a pipeline, or the pipeline has another step before
            the classifier.
        ValueError: If backbone, text and estimator differ in their numbers of features, a part is both given and in the
            pipeline, `label_names` do not match the labels, or there is a `text_reader` but no backbone or no text.
        NotFittedError: If the estimator is not fitted.
    """
    given = {"backbone": backbone, "text_features": text_features}
    if hasattr(estimator, "steps"):
        estimator, parts = _split(estimator)
        for name in parts:
            if given[name] is not None:
                found = type(given[name]).__name__
                raise ValueError(f"`{name}` must be None for a pipeline that starts with one, got a {found}.")
        given |= parts
    if not hasattr(estimator, "to_model"):
        raise TypeError(
            "`estimator` must be a MetricClassifier, or a pipeline that ends with one, got "
            f"{type(estimator).__name__}. For a search, pass its `best_estimator_`."
        )
    model: MultiLabelModel = estimator.to_model(
        **given, text_reader=text_reader, label_names=label_names, record=record
    )
    return model


def _split(pipeline: Any) -> tuple[Any, dict[str, Any]]:
    """Return the classifier at the end of a pipeline, and the parts of a model at its start by name."""
    *before, (_, classifier) = pipeline.steps
    if hasattr(classifier, "to_model"):
        check_is_fitted(classifier, "classifier_")
    parts = _first_parts(before[0][1]) if before else {}
    for name, step in before[1:] if parts else before:
        if step not in (None, "passthrough") and not (hasattr(step, "fit_resample") and not hasattr(step, "transform")):
            raise TypeError(
                f"`estimator` has the step {name!r} ({type(step).__name__}) before the classifier, which a model does "
                f"not contain. {_advice(step)}"
            )
    return classifier, parts


def _first_parts(step: Any) -> dict[str, Any]:
    """Return the parts of a model that the first step of a pipeline contains."""
    if hasattr(step, "backbone_"):
        return {"backbone": step.backbone_}
    if isinstance(step, TextFeatures):
        return {"text_features": step}
    columns = [(part, names) for _, part, names in getattr(step, "transformers_", ()) if part != "drop"]
    if len(columns) != 2 or step.transformer_weights:
        return {}
    (images, _), (texts, _) = columns
    is_both = hasattr(images, "backbone_") and isinstance(texts, TextFeatures)
    return {"backbone": images.backbone_, "text_features": texts} if is_both else {}


def _advice(step: Any) -> str:
    if hasattr(step, "transformers_"):
        return "Its ColumnTransformer must have ImageFeatures first, then TextFeatures, and nothing else."
    return "MetricClassifier scales features itself: fit it without this step."
