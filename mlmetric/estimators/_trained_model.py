"""The trained model of a fitted classifier."""

from __future__ import annotations

import copy
import importlib.metadata
from collections.abc import Sequence
from typing import Any

from mlmetric.heads import FrozenBackbone
from mlmetric.models import MultiLabelModel

_PACKAGES = ("mlmetric", "torch", "torchvision", "scikit-learn", "numpy")


def trained_model(
    classifier: Any,
    *,
    backbone: FrozenBackbone | None,
    label_names: Sequence[str] | None,
    record: dict[str, Any] | None,
) -> MultiLabelModel:
    """Make a model of a fitted `MetricClassifier`.

    Args:
        classifier: The classifier.
        backbone: The backbone whose features were passed to `fit`; None for a model of features.
        label_names: A different name for each label; None for the names that `y` had, or the indices of the labels.
        record: Added to the record of the training, such as `{"metrics": {...}, "data": "..."}`. That contains the
            parameters of the estimator, the numbers of training rows and features, and the versions of the packages.

    Returns:
        The model, with copies of `head_` and `classifier_`, in evaluation mode.

    Raises:
        TypeError: If `backbone` is not a `FrozenBackbone`.
        ValueError: If the backbone has another number of features, or `label_names` do not match the labels.
        NotFittedError: If the classifier is not fitted.
    """
    # Copied together, since with `two_stage` the classifier contains the head.
    embedding, label_network = copy.deepcopy((classifier.head_, classifier.classifier_))
    names = classifier._label_columns.names if label_names is None else label_names
    feature_names = None if backbone is not None else getattr(classifier, "feature_names_in_", None)
    model = MultiLabelModel(
        embedding,
        label_network,
        backbone=backbone,
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
