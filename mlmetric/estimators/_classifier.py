"""Both stages as a scikit-learn classifier."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from numbers import Real
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import ClassifierMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from mlmetric._global_generator import seeded_globally
from mlmetric.estimators._embedder import MetricEmbedder
from mlmetric.estimators._rows import Rows, read_rows
from mlmetric.heads import ClassifierHead
from mlmetric.metrics import best_thresholds
from mlmetric.training import apply_in_batches, fit_classifier


class MetricClassifier(ClassifierMixin, MetricEmbedder):
    """Classify several labels from an embedding that was learnt for neighbours: both stages.

    Stage one is that of [MetricEmbedder][mlmetric.estimators.MetricEmbedder], with the same settings, and `transform`
    gives its embedding. Stage two is a linear classifier on the frozen embedding that begins at the frequencies of the
    labels. The thresholds that `predict` goes by are chosen on the rows held back, those of labels that are rare there
    drawn to a common one.

    Inside imbalanced-learn's pipeline the undersampler before it sees training rows only. What is held back is then a
    share of the rows that it leaves, with its frequencies of labels; for thresholds by those of all rows pass
    `validation`, brought through the steps before, or name thresholds yourself.

    Args:
        head: As `MetricEmbedder` has it, and so the others that are not named here.
        loss: As `MetricEmbedder` has it.
        miner: As `MetricEmbedder` has it.
        classifier_weight: As `MetricEmbedder` has it.
        n_members: As `MetricEmbedder` has it.
        standardize: As `MetricEmbedder` has it; the embedding is standardised for stage two, too.
        max_epochs: Of each stage.
        batch_size: Of each stage.
        lr: Of each stage.
        lr_drops: Of each stage.
        mixup: Of stage one.
        items_per_label: Of stage one.
        validation_fraction: As `MetricEmbedder` has it; the thresholds are chosen on these rows.
        patience: Of each stage.
        activation: Of the classifier: `"sigmoid"`, or `"softmax"`, the paper's, whose probabilities add up to 1.
        label_loss: Of logits and labels in stage two, such as `AsymmetricLoss()`; None for the binary cross entropy.
        threshold: Probability from which `predict` says yes; `"macro"` or `"micro"`: thresholds of each label with the
            highest F1 of that kind on the rows held back, 0.5 where none are.
        shrinkage: How far chosen thresholds of rare labels are drawn to the common one, in positives; see
            [best_thresholds][mlmetric.metrics.best_thresholds].
        device: As `MetricEmbedder` has it.
        random_state: As `MetricEmbedder` has it.

    Attributes:
        head_: The trained head.
        classifier_: The trained `ClassifierHead` on its embedding.
        thresholds_: Float64, shape `(L,)`, of probabilities; infinite for a label that `"micro"` would never predict.
        classes_: `[0, 1]` for each label, shape `(L, 2)`.
        history_: For each member, and at last for stage two, the records of the epochs.
        n_features_in_: Number of features.
        feature_names_in_: Their names, if `X` had any.

    Examples:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 2, (60, 3))
        >>> X = y @ rng.normal(size=(3, 8)) + rng.normal(size=(60, 8))
        >>> classifier = MetricClassifier(n_members=1, max_epochs=5, random_state=0).fit(X, y)
        >>> classifier.predict(X).shape, classifier.predict_proba(X).shape
        ((60, 3), (60, 3))

    Source:
        As `MetricEmbedder`; stage two is the paper's.
    """

    def __init__(
        self,
        *,
        head: Callable[[int], nn.Module] | None = None,
        loss: Any = None,
        miner: Any = None,
        classifier_weight: float = 3.0,
        n_members: int = 4,
        standardize: bool = True,
        max_epochs: int = 50,
        batch_size: int = 64,
        lr: float = 0.001,
        lr_drops: tuple[int, ...] = (),
        mixup: float = 0.4,
        items_per_label: int | None = None,
        validation_fraction: float = 0.2,
        patience: int | None = None,
        activation: Literal["sigmoid", "softmax"] = "sigmoid",
        label_loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        threshold: float | Literal["macro", "micro"] = "macro",
        shrinkage: float = 5.0,
        device: str = "cpu",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        super().__init__(
            head=head,
            loss=loss,
            miner=miner,
            classifier_weight=classifier_weight,
            n_members=n_members,
            standardize=standardize,
            max_epochs=max_epochs,
            batch_size=batch_size,
            lr=lr,
            lr_drops=lr_drops,
            mixup=mixup,
            items_per_label=items_per_label,
            validation_fraction=validation_fraction,
            patience=patience,
            device=device,
            random_state=random_state,
        )
        self.activation = activation
        self.label_loss = label_loss
        self.threshold = threshold
        self.shrinkage = shrinkage

    @classmethod
    def paper(cls, *, margin: float = 1.0, **settings: Any) -> Self:
        """Make a classifier with the settings of the paper's first run: see `MetricEmbedder.paper`, and softmax.

        Args:
            margin: Of the triplet loss.
            **settings: Others than these.
        """
        return super().paper(margin=margin, **{"activation": "softmax", "threshold": 0.5} | settings)

    def fit(
        self,
        X: npt.ArrayLike,
        y: npt.ArrayLike,
        validation: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    ) -> Self:
        """Train both stages on features `(n, D)` and labels `(n, L)`; see `MetricEmbedder.fit`."""
        self._check_settings()
        rows, held_back = self._read(X, y, validation)
        self.classes_ = np.tile([0, 1], (rows.labels.shape[1], 1))
        trained_on, held_back, seed = self._fit_head(rows, held_back)
        embedded, held_back = self._embedded(trained_on), held_back and self._embedded(held_back)
        size = embedded.features.shape[1]
        with seeded_globally(seed):  # the random start is drawn, and replaced
            self.classifier_ = ClassifierHead(size, rows.labels.shape[1], activation=self.activation)
        self.classifier_.init_from_labels(embedded.labels)
        if self.standardize:
            self.classifier_.standardize.fit(embedded.features)
        history = fit_classifier(
            self.classifier_.to(self.device),
            embedded.features,
            embedded.labels,
            loss=copy.deepcopy(self.label_loss),
            config=self._config(seed % 100_000, keep_best=held_back is not None, mixup=0.0, items_per_label=None),
            validation=None if held_back is None else held_back.hard,
        )
        self.history_.append(history)
        self.classifier_.eval()
        self.thresholds_ = self._choose_thresholds(held_back, rows.labels.shape[1])
        return self

    def decision_function(self, X: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Score labels of features `(n, D)`: logits, shape `(n, L)`."""
        check_is_fitted(self, "classifier_")
        logits: npt.NDArray[np.float32] = self._logits(read_rows(self, X)).numpy()
        return logits

    def predict_proba(self, X: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Give the probability of each label being present, shape `(n, L)`."""
        check_is_fitted(self, "classifier_")
        probabilities: npt.NDArray[np.float32] = self._probabilities(read_rows(self, X)).numpy()
        return probabilities

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Decide each label by its threshold: 0 or 1, shape `(n, L)`."""
        return (self.predict_proba(X) >= self.thresholds_.astype(np.float32)).astype(np.int64)

    def _check_settings(self) -> None:
        if self.activation not in ("sigmoid", "softmax"):
            raise ValueError(f"`activation` must be 'sigmoid' or 'softmax', got {self.activation!r}.")
        named = isinstance(self.threshold, str) and self.threshold in ("macro", "micro")
        if not named and (not isinstance(self.threshold, Real) or math.isnan(self.threshold)):
            raise ValueError(f"`threshold` must be a number, 'macro' or 'micro', got {self.threshold!r}.")
        if not 0 <= self.shrinkage < math.inf:
            raise ValueError(f"`shrinkage` must be a number >= 0, got {self.shrinkage!r}.")

    def _embedded(self, rows: Rows) -> Rows:
        return Rows(apply_in_batches(self.head_, rows.features).cpu(), rows.labels)

    def _logits(self, features: Tensor) -> Tensor:
        return apply_in_batches(self.classifier_, apply_in_batches(self.head_, features)).cpu()

    def _probabilities(self, features: Tensor) -> Tensor:
        return self.classifier_.probabilities(self._logits(features))

    def _choose_thresholds(self, held_back: Rows | None, num_labels: int) -> npt.NDArray[np.float64]:
        if not isinstance(self.threshold, str):
            return np.full(num_labels, float(self.threshold))
        if held_back is None:
            return np.full(num_labels, 0.5)
        scores = self.classifier_.probabilities(apply_in_batches(self.classifier_, held_back.features)).cpu()
        average: Literal["macro", "micro"] = "macro" if self.threshold == "macro" else "micro"
        target = held_back.hard.labels
        fallback = None if bool(target.any()) else 0.5
        chosen: npt.NDArray[np.float64] = best_thresholds(
            scores, target, average=average, shrinkage=self.shrinkage, fallback=fallback
        ).numpy()
        return chosen

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        tags.classifier_tags.multi_class = False
        return tags
