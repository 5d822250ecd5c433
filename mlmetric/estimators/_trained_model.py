"""The trained model of a fitted classifier."""

from __future__ import annotations

import copy
import importlib.metadata
from collections.abc import Callable, Sequence
from typing import Any

from mlmetric.heads import FrozenBackbone
from mlmetric.models import MultiLabelModel
from mlmetric.text._text_features import TextFeatures

_PACKAGES = ("mlmetric", "torch", "torchvision", "scikit-learn", "numpy")


def trained_model(
    classifier: Any,
    *,
    backbone: FrozenBackbone | None,
    text_features: TextFeatures | None,
    text_reader: Callable[[Any], str] | None,
    label_names: Sequence[str] | None,
    record: dict[str, Any] | None,
) -> MultiLabelModel:
    """Make a model of a fitted `MetricClassifier`.

    Args:
        classifier: The classifier.
        backbone: The backbone whose features were passed to `fit`; None for a model of features or texts.
        text_features: The fitted `TextFeatures` whose features were the last columns of the features passed to `fit`;
            None for a model without text.
        text_reader: Reads the text on an image (a path or a PIL image) if no texts are passed to the model, such as a
            `mlmetric.text.TextReader`; None to read no text.
        label_names: A different name for each label; None for the names that `y` had, or the indices of the labels.
        record: Added to the record of the training, such as `{"metrics": {...}, "data": "..."}`. The record contains
            the parameters of the estimator, the numbers of training rows and features, and the versions of the
            packages.

    Returns:
        The model, with copies of `head_` and `classifier_`, in evaluation mode.

    Raises:
        TypeError: If `backbone` is not a `FrozenBackbone`, or `text_features` not a `TextFeatures`.
        ValueError: If the numbers of features of the backbone or the text do not match, `label_names` do not match the
            labels, or there is a `text_reader` but no backbone or no text.
        NotFittedError: If the classifier or `text_features` is not fitted.
    """
    # Copied together, since with `two_stage` the classifier contains the head.
    embedding, label_network = copy.deepcopy((classifier.head_, classifier.classifier_))
    names = classifier._label_columns.names if label_names is None else label_names
    feature_names = None if backbone is not None else getattr(classifier, "feature_names_in_", None)
    if feature_names is not None and isinstance(text_features, TextFeatures):
        num_others = classifier.n_features_in_ - len(text_features.get_feature_names_out())
        feature_names = feature_names[:num_others] if num_others > 0 else None
    model = MultiLabelModel(
        embedding,
        label_network,
        backbone=backbone,
        text_features=text_features,
        text_reader=text_reader,
        label_names=names,
        thresholds=classifier.thresholds_,
        in_features=classifier.n_features_in_,
        feature_names=feature_names,
        record=_record(classifier) | ({} if record is None else record),
    )
    device = next((parameter.device for parameter in model.parameters()), None)
    return model.to(device).eval()


def _record(classifier: Any) -> dict[str, Any]:
    return {
        "estimator": type(classifier).__name__,
        "parameters": classifier.get_params(deep=False),
        "training_rows": classifier.n_samples_fit_,
        "features": classifier.n_features_in_,
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }
