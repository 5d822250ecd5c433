"""The embedding and the prediction of labels, as a scikit-learn classifier."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from mlmetric._docstrings import inherit_docs
from mlmetric._label_columns import LabelsOrNames, read_labels
from mlmetric.estimators._label_training import check_label_settings, fit_frozen_classifier, fit_joint_classifier
from mlmetric.estimators._late_fusion import fuse_classifiers
from mlmetric.estimators._metric_embedder import MetricEmbedder
from mlmetric.estimators._recipes import PAPER_HEAD
from mlmetric.estimators._staged_estimator import RandomState, StageCallback, StageOutputs
from mlmetric.estimators._trained_model import trained_model
from mlmetric.estimators._training_data import read_features
from mlmetric.heads import FrozenBackbone
from mlmetric.models import MultiLabelModel
from mlmetric.text._text_features import TextFeatures
from mlmetric.training import apply_in_batches


@inherit_docs(MetricEmbedder)
class MetricClassifier(ClassifierMixin, MetricEmbedder):
    """Learn an embedding in which neighbours have similar label sets, and predict the labels.

    As in [MetricEmbedder][mlmetric.estimators.MetricEmbedder], the members are heads that are trained together with a
    linear classifier. `transform` returns their embedding, from the epochs with the best retrieval. The same networks,
    at the epochs with the best mAP, predict the labels from the features. The mean logits of the members are mixed with
    the logits of a logistic regression on the clipped features; the share of each is chosen on the validation rows.
    With `two_stage=True`, a linear classifier on the frozen embedding predicts the labels, as in the paper.

    The thresholds of `predict` are chosen on the validation rows. After an undersampler in an imbalanced-learn
    pipeline, these rows have the label frequencies of the rows that it keeps. For the frequencies of all rows, pass
    `validation`, transformed by the previous steps, or set `threshold`.

    Args:
        classifier_weight: Weight of the loss of the classifier that is trained with each member; 0 trains no such
            classifier and requires `two_stage`.
        standardize: Whether to scale features, and with `two_stage` also embeddings, to mean 0 and standard deviation 1
            over all rows of `X`, and to clip the features of the logistic regression at 3. The recommended head clips
            features: without `standardize`, pass standardised features or use another head.
        validation_fraction: Share of the rows that each member sets aside to choose the best epochs. The rows of all
            members together choose the share of the logistic regression and the thresholds. With 0, C of the logistic
            regression is 0.01, and its share is 0.5. Up to `1 / validation_fraction` members set different rows aside;
            with `two_stage`, all members set the same rows aside.
        keep_best: Whether to keep the weights of the epoch with the best NDCG@10 (for labels, the best mAP) on the
            validation rows, if there are any; False keeps the weights of the last epoch.
        two_stage: Whether to train a classifier on the frozen embedding, after the members and with their settings
            except `lr`, `mixup` and `items_per_label`. False uses the classifiers of the members.
        classifier_lr: Learning rate of the second stage; None for `lr`.
        activation: Activation of the classifier: `"sigmoid"`; or `"softmax"`, as in the paper, whose probabilities add
            up to 1 in each row, and which requires `two_stage`.
        label_loss: Loss of the classifiers of the members, or of the second stage, called as `label_loss(logits,
            labels)`, such as `AsymmetricLoss()`; None for the binary cross entropy.
        calibration: Method of [LabelCalibrator][mlmetric.decisions.LabelCalibrator] that calibrates the logits on the
            validation rows, `"temperature"` or `"platt"`; None for no calibration.
        threshold: Lowest probability for which `predict` returns 1; or `"macro"` or `"micro"` for a threshold of each
            label that maximises this average of F1 on the validation rows, or 0.5 if there are no validation rows.
        max_predicted: Largest number of predictions of a label that its threshold may make on the validation rows, as
            a multiple of its positives; see [best_thresholds][mlmetric.metrics.best_thresholds].

    Attributes:
        head_: The trained head, a torch module: an `EmbeddingEnsemble`, with late fusion a `LateFusionHead` of one
            ensemble for each view.
        classifier_: The trained classifier, a torch module that maps features to logits: a `ClassifierEnsemble` of the
            members' networks and the logistic regression, or, with late fusion, a `LateFusionClassifier`; with
            `two_stage` a `LabelNetwork` of `head_` and a `ClassifierHead`; with `calibration` a `CalibratedClassifier`
            of one of these.
        thresholds_: Lowest probabilities, float64, shape `(L,)`; infinity for labels that are never predicted.
        classes_: Sorted label names, or column names of a data frame, shape `(L,)`. For unnamed labels, or fewer than
            three labels, `[0, 1]` for each label, shape `(L, 2)`: scikit-learn's scorers would read two names as
            binary.
        history_: A list of records for each member. Then, with `two_stage`, a list for the second stage; otherwise a
            list for the logistic regression of each choice of validation rows: the first with a record for each `C`
            that was tried, the others for the best `C`. With late fusion, the members and logistic regressions of all
            views.
        n_features_in_, n_samples_fit_: Numbers of columns and of rows of `X`.
        feature_names_in_: Names of the features, if `X` is a data frame whose column names are strings.

    Examples:
        >>> import numpy as np
        >>> from mlmetric.estimators import MetricClassifier
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 2, (60, 3))
        >>> X = y @ rng.normal(size=(3, 8)) + rng.normal(size=(60, 8))
        >>> classifier = MetricClassifier(n_members=1, max_epochs=5, random_state=0).fit(X, y)
        >>> classifier.predict(X).shape, classifier.predict_proba(X).shape
        ((60, 3), (60, 3))

    Source:
        As in `MetricEmbedder`; with `two_stage`, stage two of the paper, by default with sigmoid and chosen thresholds.
    """

    def __init__(
        self,
        *,
        head: Callable[[int], nn.Module] | None = None,
        loss: Any = None,
        miner: Any = None,
        classifier_weight: float = 3.0,
        n_members: int = 4,
        views: Mapping[str, slice] | None = None,
        fusion: Literal["late", "gated", "concat"] = "late",
        standardize: bool = True,
        max_epochs: int = 20,
        batch_size: int = 64,
        lr: float = 0.003,
        lr_drops: tuple[int, ...] = (),
        ema_decay: float = 0.999,
        mixup: float = 0.3,
        items_per_label: int | None = None,
        validation_fraction: float = 0.2,
        keep_best: bool = True,
        patience: int | None = None,
        two_stage: bool = False,
        classifier_lr: float | None = 0.001,
        activation: Literal["sigmoid", "softmax"] = "sigmoid",
        label_loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        calibration: Literal["temperature", "platt"] | None = None,
        threshold: float | Literal["macro", "micro"] = "macro",
        max_predicted: float = 1.5,
        device: str = "cpu",
        random_state: RandomState = None,
    ) -> None:
        super().__init__(
            head=head,
            loss=loss,
            miner=miner,
            classifier_weight=classifier_weight,
            n_members=n_members,
            views=views,
            fusion=fusion,
            standardize=standardize,
            max_epochs=max_epochs,
            batch_size=batch_size,
            lr=lr,
            lr_drops=lr_drops,
            ema_decay=ema_decay,
            mixup=mixup,
            items_per_label=items_per_label,
            validation_fraction=validation_fraction,
            keep_best=keep_best,
            patience=patience,
            device=device,
            random_state=random_state,
        )
        self.two_stage = two_stage
        self.classifier_lr = classifier_lr
        self.activation = activation
        self.label_loss = label_loss
        self.calibration = calibration
        self.threshold = threshold
        self.max_predicted = max_predicted

    @classmethod
    def paper(
        cls,
        *,
        margin: float = 1.0,
        head: Callable[[int], nn.Module] | None = PAPER_HEAD,
        loss: Any = None,
        miner: Any = None,
        classifier_weight: float = 0.0,
        n_members: int = 1,
        views: Mapping[str, slice] | None = None,
        fusion: Literal["late", "gated", "concat"] = "late",
        standardize: bool = True,
        max_epochs: int = 10,
        batch_size: int = 256,
        lr: float = 0.01,
        lr_drops: tuple[int, ...] = (),
        ema_decay: float = 0.0,
        mixup: float = 0.0,
        items_per_label: int | None = None,
        validation_fraction: float = 0.0,
        keep_best: bool = True,
        patience: int | None = None,
        two_stage: bool = True,
        classifier_lr: float | None = None,
        activation: Literal["sigmoid", "softmax"] = "softmax",
        label_loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        calibration: Literal["temperature", "platt"] | None = None,
        threshold: float | Literal["macro", "micro"] = 0.5,
        max_predicted: float = 1.5,
        device: str = "cpu",
        random_state: RandomState = None,
    ) -> Self:
        """Make a classifier with the paper's embedding, `MetricEmbedder.paper()`, and a second stage with softmax."""
        paper: Self = super().paper(
            margin=margin,
            head=head,
            loss=loss,
            miner=miner,
            classifier_weight=classifier_weight,
            n_members=n_members,
            views=views,
            fusion=fusion,
            standardize=standardize,
            max_epochs=max_epochs,
            batch_size=batch_size,
            lr=lr,
            lr_drops=lr_drops,
            ema_decay=ema_decay,
            mixup=mixup,
            items_per_label=items_per_label,
            validation_fraction=validation_fraction,
            keep_best=keep_best,
            patience=patience,
            device=device,
            random_state=random_state,
        )
        paper.set_params(two_stage=two_stage, activation=activation, label_loss=label_loss, calibration=calibration)
        paper.set_params(threshold=threshold, max_predicted=max_predicted, classifier_lr=classifier_lr)
        return paper

    @inherit_docs(MetricEmbedder.fit, checkpoint_dir="metricembedder__=>metricclassifier__")
    def fit(
        self,
        X: npt.ArrayLike,
        y: LabelsOrNames,
        validation: tuple[npt.ArrayLike, LabelsOrNames] | None = None,
        *,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        callback: StageCallback | None = None,
    ) -> Self:
        """Train on features and labels."""
        check_label_settings(self)
        outputs = StageOutputs(checkpoint_dir, callback)
        rows, num_parts = self._read(X, y, validation), 1 if self.two_stage else self.n_members
        members, of_views, parts, seed = self._fit_members(*rows, outputs, num_parts=num_parts)
        if self.two_stage:
            fitted = fit_frozen_classifier(self, parts[0], outputs=outputs, seed=seed)
        else:
            joint = partial(fit_joint_classifier, standardize=self.standardize, device=self.device, seed=seed)
            if of_views is not None:
                fitted = fuse_classifiers({name: joint(part) for name, part in of_views.items()}, of_views, parts)
            elif members is not None:
                fitted = joint(members)
            outputs.save("classifier_ensemble", fitted.module)
        self.history_ += fitted.histories
        fitted = fitted.calibrated(self.calibration)
        self.classifier_ = fitted.module
        self.thresholds_ = fitted.thresholds(self.threshold, max_predicted=self.max_predicted)
        return self

    @inherit_docs(MetricEmbedder.transform)
    def decision_function(self, X: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Compute the logits of the labels.

        Returns:
            float32, shape `(n, L)`, columns as in `y`, or as `classes_` for label names.
        """
        check_is_fitted(self, "classifier_")
        return apply_in_batches(self.classifier_, read_features(self, X)).cpu().numpy()

    @inherit_docs(MetricEmbedder.transform)
    def predict_proba(self, X: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Compute the probabilities of the labels.

        Returns:
            float32, shape `(n, L)`, columns as in `y`, or as `classes_` for label names.
        """
        logits = torch.from_numpy(self.decision_function(X))
        return self.classifier_.probabilities(logits).numpy()

    @inherit_docs(MetricEmbedder.transform)
    def predict(self, X: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Predict the labels: those whose probability is at least their threshold.

        Returns:
            int64, 0 or 1, shape `(n, L)`, columns as in `y`, or as `classes_` for label names:
            `[classifier.classes_[row == 1] for row in classifier.predict(X)]`.
        """
        return (self.predict_proba(X) >= self.thresholds_.astype(np.float32)).astype(np.int64)

    def score(self, X: npt.ArrayLike, y: LabelsOrNames, sample_weight: npt.ArrayLike | None = None) -> float:
        """Compute the subset accuracy of `predict`: the share of the rows whose labels are all predicted correctly.

        Args:
            X: Features, shape `(n, D)`.
            y: Labels, 0 or 1, none of them missing, of any kind that `fit` accepts.
            sample_weight: Weight of each row, shape `(n,)`.

        Returns:
            The accuracy, in [0, 1].
        """
        check_is_fitted(self, "classifier_")
        labels, _ = read_labels(y, columns=self._label_columns, used_by="`score`")
        return float(accuracy_score(labels, self.predict(X), sample_weight=sample_weight))

    @inherit_docs(trained_model)
    def to_model(
        self,
        *,
        backbone: FrozenBackbone | None = None,
        text_features: TextFeatures | None = None,
        text_reader: Callable[[Any], str] | None = None,
        label_names: Sequence[str] | None = None,
        record: dict[str, Any] | None = None,
    ) -> MultiLabelModel:
        """Make a model that predicts labels of images, texts or features, and can be saved without pickle."""
        check_is_fitted(self, "classifier_")
        parts: dict[str, Any] = {"backbone": backbone, "text_features": text_features, "text_reader": text_reader}
        return trained_model(self, **parts, label_names=label_names, record=record)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        tags.classifier_tags.multi_class = False
        return tags


inherit_docs(
    MetricClassifier, MetricEmbedder.paper, loss="`LogRatioLoss()`=>the paper's", miner="no miner=>the paper's"
)(
    MetricClassifier.paper.__func__  # type: ignore[attr-defined]
)
