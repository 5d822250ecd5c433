"""Stage one as a scikit-learn transformer."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import TripletMarginLoss
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import nn

from mlmetric._global_generator import seeded_globally
from mlmetric.estimators._rows import Rows, hold_back, read_rows, read_training_rows, read_validation_rows
from mlmetric.heads import ClassifierHead, EmbeddingEnsemble, EmbeddingHead, Standardize
from mlmetric.losses import LogRatioLoss
from mlmetric.miners import MultiLabelSemiHardMiner
from mlmetric.training import TrainingConfig, apply_in_batches, fit_embedding

_MAX_SEED = 2**31 - 1

RECOMMENDED_HEAD = partial(
    EmbeddingHead, widths=(512, 256), clip=3.0, input_dropout=0.25, dropout=0.5, activate_last=True, normalize=0.25
)
"""The head of the recommended recipe, for standardised features; called with their number."""
PAPER_HEAD = partial(EmbeddingHead, widths=(512, 256))
"""The head of the paper; called with the number of features."""


class MetricEmbedder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Learn an embedding whose neighbours carry similar label sets, and whose place tells the labels.

    The defaults are the recommended recipe: two layers with dropout, rectified, on clipped and mixed features;
    distances are brought into the proportions of the Jaccard distances of the labels by the log-ratio loss, and a
    linear classifier is trained along; several such heads are trained apart and joined; of each the epoch is kept that
    did best on rows held back. `MetricEmbedder.paper()` is the paper's recipe.

    Features are standardised inside, by statistics of the training rows.

    Args:
        head: Makes a head from the number of features, such as `functools.partial(EmbeddingHead, dropout=0.2)`; None
            for the recommended one. It is called once for each member.
        loss: A loss on embeddings: of [mlmetric.losses][] or, with a miner, any of pytorch-metric-learning on pairs or
            triplets. It is copied for each member. None for `LogRatioLoss()`. Those that want labels 0 or 1, such as
            `MultiLabelProxyAnchorLoss`, need `mixup=0`.
        miner: Of [mlmetric.miners][], copied for each member; None for none.
        classifier_weight: Of the binary cross entropy of the classifier that is trained along, beside the loss; 0 for
            none.
        n_members: Number of heads that are trained and joined.
        standardize: Whether features are brought to mean 0 and standard deviation 1. The recommended head clips them at
            3 deviations; without this they must come standardised, or be given to another head.
        max_epochs: Passes over the training rows.
        batch_size: Rows of a batch.
        lr: Learning rate of Adam.
        lr_drops: After each of these epochs the learning rate falls to a tenth.
        mixup: As [TrainingConfig][mlmetric.training.TrainingConfig] has it; a remedy for few rows; 0 for none.
        items_per_label: As [TrainingConfig][mlmetric.training.TrainingConfig] has it: label-balanced batches; None for
            random ones.
        validation_fraction: Share of the rows held back, by which the best epoch is chosen; 0 keeps the last epoch.
        patience: Stop after this many epochs without a better score; None trains them all.
        device: Where it is trained and applied, such as "cpu" or "cuda"; a pickle holds the trained heads
            on the CPU.
        random_state: Fixes everything: starts, batches, dropout, mixing, what is held back. These draw from torch's
            global generator, which ends in the state that it was in. Fits in several threads therefore run one after
            the other; a thread must not draw from that generator outside of a fit while another one fits.

    Attributes:
        head_: The trained head, an `EmbeddingEnsemble`; a torch module for features as they come.
        history_: For each member the records of its epochs.
        n_features_in_: Number of features.
        feature_names_in_: Their names, if `X` had any.

    Examples:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 2, (60, 3))
        >>> X = y @ rng.normal(size=(3, 8)) + rng.normal(size=(60, 8))
        >>> embedder = MetricEmbedder(n_members=1, max_epochs=5, random_state=0).fit(X, y)
        >>> embedder.transform(X).shape
        (60, 256)

    Source:
        Stage one of "From image to emotion: multi-label image classification based on triplet loss" (2021), with
        another recipe by default. Its loss: Kim et al., "Deep metric learning beyond binary supervision", CVPR 2019;
        the joined heads: Lakshminarayanan et al., "Simple and scalable predictive uncertainty estimation using deep
        ensembles", NeurIPS 2017; mixing: Zhang et al., "mixup: beyond empirical risk minimization", ICLR 2018, with
        labels compared as soft ones.
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
        device: str = "cpu",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.head = head
        self.loss = loss
        self.miner = miner
        self.classifier_weight = classifier_weight
        self.n_members = n_members
        self.standardize = standardize
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.lr = lr
        self.lr_drops = lr_drops
        self.mixup = mixup
        self.items_per_label = items_per_label
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.device = device
        self.random_state = random_state

    @classmethod
    def paper(cls, *, margin: float = 1.0, **settings: Any) -> Self:
        """Make an estimator with the settings of the paper's first run; with `margin=2.0` those of its second.

        The triplet loss on the squared Euclidean distance, one triplet for each anchor, its positive the farthest one;
        batches of 256 rows, 10 epochs at a learning rate of 0.01; no dropout, nothing held back. Its other two runs
        have `max_epochs=20, lr_drops=(15,)`. On standardised features this rate is often too high: a warning then says
        that training diverges, and 0.001 is better.

        Args:
            margin: Of the triplet loss.
            **settings: Others than these.
        """
        distance = LpDistance(normalize_embeddings=False, power=2)
        paper: dict[str, Any] = {
            "head": PAPER_HEAD,
            "loss": TripletMarginLoss(margin=margin, distance=distance),
            "miner": MultiLabelSemiHardMiner(
                max_partial_per_positive=1,
                max_disjoint_per_positive=1,
                max_triplets_per_anchor=1,
                positive_order="farthest",
                distance=distance,
            ),
            "classifier_weight": 0.0,
            "n_members": 1,
            "max_epochs": 10,
            "batch_size": 256,
            "lr": 0.01,
            "mixup": 0.0,
            "validation_fraction": 0.0,
        }
        return cls(**paper | settings)

    def fit(
        self,
        X: npt.ArrayLike,
        y: npt.ArrayLike,
        validation: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    ) -> Self:
        """Train on features and labels.

        Args:
            X: Shape `(n, D)`, finite numbers.
            y: Shape `(n, L)`, multi-hot, dense or sparse; or soft, in [0, 1]. Soft labels are trained on as they are;
                where rows are held back, epochs scored and thresholds chosen they are present from one half on.
            validation: Features and labels to choose by, in place of a share of `X`, of which then all is trained on.
                A pipeline passes it on as it is: bring it through the steps before this one yourself.

        Returns:
            The estimator.

        Raises:
            ValueError: If a shape does not fit, a feature is not finite, a label lies outside [0, 1], or a setting is
                out of range.
            TypeError: If `head` is a module in place of what makes one.
        """
        self._fit_head(*self._read(X, y, validation))
        return self

    def transform(self, X: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Embed features, shape `(n, D)`: shape `(n, E)`, float32; neighbours are Euclidean ones."""
        check_is_fitted(self, "head_")
        embeddings: npt.NDArray[np.float32] = apply_in_batches(self.head_, read_rows(self, X)).cpu().numpy()
        return embeddings

    def __getstate__(self) -> dict[str, Any]:
        """Leave the device behind, which whoever unpickles may not have."""
        state: dict[str, Any] = dict(super().__getstate__())  # on Python 3.11 it is the estimator's own
        for name, value in state.items():
            if name in ("head_", "classifier_") and any(part.device.type != "cpu" for part in value.parameters()):
                state[name] = copy.deepcopy(value).cpu()
        return state

    def _read(
        self, X: npt.ArrayLike, y: npt.ArrayLike, validation: tuple[npt.ArrayLike, npt.ArrayLike] | None
    ) -> tuple[Rows, Rows | None]:
        rows = read_training_rows(self, X, y)
        if validation is None:
            return rows, None
        held_back = read_validation_rows(self, validation)
        if held_back.labels.shape[1] != rows.labels.shape[1]:
            raise ValueError(
                f"`validation` must have the {rows.labels.shape[1]} labels of `y`, got {held_back.labels.shape[1]}."
            )
        return rows, held_back

    def _fit_head(self, rows: Rows, held_back: Rows | None) -> tuple[Rows, Rows | None, int]:
        """Train the members, and return the rows trained on, those to choose by, and a seed for whatever follows."""
        for name, least in (("n_members", 1), ("classifier_weight", 0), ("max_epochs", 1)):
            if not getattr(self, name) >= least:
                raise ValueError(f"`{name}` must be at least {least}, got {getattr(self, name)!r}.")
        if isinstance(self.head, nn.Module):
            raise TypeError(
                "`head` must make a head from the number of features, such as `functools.partial(EmbeddingHead, "
                f"dropout=0.2)`, one for each member; got a module, {type(self.head).__name__}."
            )
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"`patience` must be None or at least 1, got {self.patience}.")
        generator = check_random_state(self.random_state)
        seed, next_seed = (int(generator.randint(_MAX_SEED)) for _ in range(2))
        if held_back is None:
            rows, held_back = hold_back(rows, self.validation_fraction, seed)
        if self.patience is not None and held_back is None:
            raise ValueError(
                f"`patience` needs rows held back to score epochs by, got none of {len(rows.labels)} rows: raise "
                "`validation_fraction`, or pass `validation`."
            )
        members, self.history_ = [], []
        with seeded_globally(seed):  # heads are made on the CPU
            for number in range(self.n_members):
                member = (RECOMMENDED_HEAD if self.head is None else self.head)(rows.features.shape[1])
                self.history_.append(self._fit_member(member, rows, held_back, seed=seed % 100_000 + number))
                members.append(member)
        self.head_ = EmbeddingEnsemble(members).eval()
        self._n_features_out = apply_in_batches(self.head_, rows.features[:1]).shape[1]
        return rows, held_back, next_seed

    def _fit_member(self, member: nn.Module, rows: Rows, held_back: Rows | None, seed: int) -> list[dict[str, float]]:
        if self.standardize:
            part = getattr(member, "standardize", None)
            if not isinstance(part, Standardize):
                raise ValueError(
                    f"`standardize` needs a head that has `head.standardize`, as those of mlmetric.heads; "
                    f"{type(member).__name__} has none. Pass `standardize=False`."
                )
            part.fit(rows.features)
        member.to(self.device)
        classifier = None
        if self.classifier_weight:
            size = apply_in_batches(member, rows.features[:1]).shape[1]
            classifier = ClassifierHead(size, rows.labels.shape[1])
        return fit_embedding(
            member,
            rows.features,
            rows.labels,
            loss=LogRatioLoss() if self.loss is None else copy.deepcopy(self.loss),
            miner=copy.deepcopy(self.miner),
            classifier=classifier,
            classifier_weight=self.classifier_weight,
            config=self._config(seed, keep_best=held_back is not None),
            validation=None if held_back is None else held_back.hard,
        )

    def _config(self, seed: int, *, keep_best: bool, **others: Any) -> TrainingConfig:
        given: dict[str, Any] = {
            "epochs": self.max_epochs,
            "batch_size": self.batch_size,
            "lr": self.lr,
            "lr_drops": tuple(self.lr_drops),
            "mixup": self.mixup,
            "items_per_label": self.items_per_label,
            "keep_best": keep_best,
            "patience": self.patience,
            "seed": seed,
        }
        return TrainingConfig(**given | others)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.single_output = False
        tags.target_tags.multi_output = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        tags.non_deterministic = self.random_state is None
        return tags
