"""The classifier with thresholds passes the checks of scikit-learn, on class ids that are one-hot encoded."""

import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.utils.estimator_checks import estimator_checks_generator

from mlmetric.decisions import MultiLabelThresholdClassifier

NOT_MULTI_LABEL = {
    "check_classifier_multioutput": "requires decisions at a probability of 0.5 or a score of 0, without thresholds",
    "check_classifiers_classes": "compares `classes_` with the classes of one column",
    "check_classifiers_train": "requires predictions of shape (n,)",
    "check_classifiers_regression_target": "requires another error message for continuous targets",
    "check_classifier_not_supporting_multiclass": "requires a binary classifier",
}


class OneHotThresholds(MultiLabelThresholdClassifier):
    """Encodes the class ids that the checks pass."""

    def fit(self, X, y, **params):
        ids = np.asarray(y)
        if y is not None and ids.dtype.kind != "f" and (ids.ndim == 1 or not set(ids.flat) <= {0, 1}):
            y = (ids.reshape(-1, 1) == np.unique(ids)).astype(int)
        return super().fit(X, y, **params)


WITH_WEIGHTS = {"check_classifiers_one_label_sample_weights": "requires predictions of shape (n,)"}
OF_PROBABILITIES = {
    "check_estimator_sparse_array": "requires probabilities of two classes",
    "check_estimator_sparse_matrix": "requires probabilities of two classes",
    "check_classifiers_multilabel_output_format_predict_proba": "requires probabilities above 0",
}
CHECKED = [
    (RidgeClassifier(), NOT_MULTI_LABEL | WITH_WEIGHTS),
    (KNeighborsClassifier(3), NOT_MULTI_LABEL | OF_PROBABILITIES),
]


@pytest.mark.filterwarnings("ignore:A column-vector y was passed:sklearn.exceptions.DataConversionWarning")
@pytest.mark.parametrize(
    ("estimator", "check"),
    [
        pair
        for estimator, expected in CHECKED
        for pair in estimator_checks_generator(
            OneHotThresholds(estimator, cv=2), expected_failed_checks=expected, mark="xfail"
        )
    ],
    ids=lambda value: value.func.__name__ if hasattr(value, "func") else type(value.estimator).__name__,
)
def test_estimator_passes_the_checks_of_sklearn(estimator, check):
    check(estimator)
