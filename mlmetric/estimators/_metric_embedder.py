"""Stage one, the embedding, as a scikit-learn transformer."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch import nn

from mlmetric._docstrings import inherit_docs
from mlmetric._label_columns import LabelsOrNames
from mlmetric.estimators._late_fusion import fuse_embeddings
from mlmetric.estimators._members import FittedMembers, check_member_settings, train_members
from mlmetric.estimators._recipes import PAPER_HEAD, paper_loss, paper_miner
from mlmetric.estimators._staged_estimator import RandomState, StageCallback, StagedEstimator, StageOutputs
from mlmetric.estimators._training_data import TrainingData, read_features
from mlmetric.estimators._validation_parts import ValidationParts, ViewParts
from mlmetric.training import TrainingConfig, apply_in_batches


@inherit_docs(TrainingConfig)
class MetricEmbedder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, StagedEstimator):
    """Learn an embedding in which neighbours have similar label sets and a linear classifier can predict the labels.

    The default is the recommended recipe: a network of two layers with dropout and ReLU, on clipped features with
    mixup; the log-ratio loss, which makes distances proportional to the Jaccard distances of the labels; and the loss
    of a linear classifier that is trained together with it. Several such networks, the members, are trained separately,
    and their embeddings are concatenated. Each member sets different rows aside, which choose its epoch with the best
    retrieval. `MetricEmbedder.paper()` uses the settings of the paper.

    On the CPU, with the default head and loss and without a miner, up to as many members as torch has threads
    (`torch.set_num_threads`) are trained at the same time, each on one or more threads. The result is the same as with
    one thread, up to rounding; an interruption takes effect after the current epoch.

    Args:
        head: Function that makes a head from the number of features, such as
            `functools.partial(EmbeddingHead, dropout=0.2)`; it is called once for each member. None for
            `RECOMMENDED_HEAD`.
        loss: A loss of [mlmetric.losses][] on embeddings, or, with a miner, a pair or triplet loss of
            pytorch-metric-learning; copied for each member. None for `LogRatioLoss()`. Losses that require labels 0 or
            1, such as `MultiLabelProxyAnchorLoss`, require `mixup=0`.
        miner: A miner of [mlmetric.miners][]; copied for each member. None for no miner.
        classifier_weight: Weight of the binary cross entropy of the classifier that is trained with each member; 0
            trains no such classifier.
        n_members: Number of heads that are trained and concatenated; with late fusion, for each view.
        views: The name and the columns, a slice, of each view of a row, such as its image and its text; each column
            belongs to exactly one view. A row lacks a view if all columns of the view are NaN.
            [join_views][mlmetric.data.join_views] returns such a matrix and the slices. None for features without
            views.
        fusion: How views are combined. `"late"` trains members for each view, on the rows that have it, and
            concatenates their embeddings with weights that are chosen on the validation rows; see
            [LateFusionHead][mlmetric.heads.LateFusionHead]. `"gated"` and `"concat"` train members on all views, by
            default with a [FusionHead][mlmetric.heads.FusionHead] with this `fusion`, which takes less time; a `head`
            of your own then receives rows with NaN.
        standardize: Whether to scale features to mean 0 and standard deviation 1, on the rows of `X`, including those
            set aside. The recommended head clips features: without `standardize`, pass standardised features or use
            another head.
        validation_fraction: Share of the rows that each member sets aside to choose the best epoch; 0 keeps the last
            epoch. Up to `1 / validation_fraction` members set different rows aside, so that some members are trained on
            each row.
        keep_best: Whether to keep the weights of the epoch with the best NDCG@10 on the validation rows, if there are
            any; False keeps the weights of the last epoch.
        device: Device of training and prediction, such as "cpu" or "cuda". Pickles contain trained modules on the CPU.
        random_state: Seed of the initial weights, the order of rows, dropout, mixup, and the choice of validation rows.
            An integer gives the same fit each time. None draws a seed from numpy's global generator, as in
            scikit-learn. torch's global generator is restored after a fit; no other thread may draw from it during the
            fit.

    Attributes:
        head_: The trained head, an `EmbeddingEnsemble`, or with late fusion a `LateFusionHead` of one ensemble for each
            view; a torch module whose inputs are features as passed to `fit`.
        classes_: Sorted label names, or column names of a data frame, shape `(L,)`. For unnamed labels, or fewer than
            three labels, `[0, 1]` for each label, shape `(L, 2)`: scikit-learn's scorers would read two names as
            binary.
        history_: A list of epoch records for each member; with late fusion, for each member of the first view, then of
            the second view, and so on, in the order of their columns.
        n_features_in_: Number of features.
        feature_names_in_: Names of the features, if `X` is a data frame whose column names are strings.
        n_samples_fit_: Number of rows of `X`.

    Raises:
        ValueError: If a setting is out of range; raised by `fit`.

    Examples:
        >>> import numpy as np
        >>> from mlmetric.estimators import MetricEmbedder
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 2, (60, 3))
        >>> X = y @ rng.normal(size=(3, 8)) + rng.normal(size=(60, 8))
        >>> embedder = MetricEmbedder(n_members=1, max_epochs=5, random_state=0).fit(X, y)
        >>> embedder.transform(X).shape
        (60, 256)

    Source:
        Stage one of "From image to emotion: multi-label image classification based on triplet loss" (2021), by default
        with another recipe. Loss: Kim et al., "Deep metric learning beyond binary supervision", CVPR 2019; several
        members: Lakshminarayanan et al., "Simple and scalable predictive uncertainty estimation using deep ensembles",
        NeurIPS 2017; mixup: Zhang et al., "mixup: beyond empirical risk minimization", ICLR 2018, where label
        similarities are those of the mixed, soft labels.
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
        device: str = "cpu",
        random_state: RandomState = None,
    ) -> None:
        self.head = head
        self.loss = loss
        self.miner = miner
        self.classifier_weight = classifier_weight
        self.n_members = n_members
        self.views = views
        self.fusion = fusion
        self.standardize = standardize
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.lr = lr
        self.lr_drops = lr_drops
        self.ema_decay = ema_decay
        self.mixup = mixup
        self.items_per_label = items_per_label
        self.validation_fraction = validation_fraction
        self.keep_best = keep_best
        self.patience = patience
        self.device = device
        self.random_state = random_state

    @classmethod
    def paper(  # noqa: D417
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
        device: str = "cpu",
        random_state: RandomState = None,
    ) -> Self:
        """Make an estimator with the settings of the paper's first run.

        It uses the triplet loss on squared Euclidean distances, with one triplet for each anchor and its farthest
        positive. The second run of the paper has `margin=2.0`; the third and fourth have `max_epochs=20` and
        `lr_drops=(15,)` with either margin. On standardised features, the paper's learning rate is often too high: if a
        warning reports that training diverges, use `lr=0.001`.

        Args:
            margin: Margin of the triplet loss.

        Returns:
            The estimator.
        """
        return cls(
            head=head,
            loss=paper_loss(margin) if loss is None else loss,
            miner=paper_miner() if miner is None else miner,
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

    def fit(
        self,
        X: npt.ArrayLike,
        y: LabelsOrNames,
        validation: tuple[npt.ArrayLike, LabelsOrNames] | None = None,
        *,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        callback: StageCallback | None = None,
    ) -> Self:
        """Train on features and labels.

        With a process group of torch.distributed, call `fit` in each process with the same arguments; each process
        computes a part of every batch.

        Args:
            X: Features, shape `(n, D)`, finite numbers; with `views`, NaN in all columns of a view that a row lacks. At
                least two rows must have each view; with late fusion, at least two training rows of each member.
            y: Labels: a matrix `(n, L)` with entries in [0, 1] of any kind that
                [check_labels][mlmetric.labels.check_labels] reads, such as a data frame with a column for each label;
                or a list of label names for each row. NaN for labels that are not annotated. Training uses soft labels
                unchanged; in validation rows, labels of at least 0.5 count as present.
            validation: Features and labels of validation rows, the same for all members, instead of shares of `X`. A
                pipeline passes them unchanged: they are not transformed by the previous steps. Label names must be in
                `classes_`, and a data frame must have the same columns as `y`.
            checkpoint_dir: Folder of the checkpoints, created if missing: `embedding_1.pt`, `embedding_2.pt` and so on
                for the members (with late fusion `embedding_image_1.pt` and so on for a view "image"), and
                `classifier_ensemble.pt`, or `classifier.pt` for a second stage; with `random_state=None` also
                `seeds.json`. The state is saved after each epoch; its entry "module" is the state dict of the trained
                module. A fit with the same settings and data resumes from the checkpoints and gives the same result as
                an uninterrupted one. In a process group, rank 0 reads and writes them. Different fits need different
                folders. In a pipeline, pass it as `metricembedder__checkpoint_dir`.
            callback: Called in this thread as `callback(stage, record)` after each epoch, including those restored from
                a checkpoint. `stage` is the name of the stage: "embedding_1" and so on, or "classifier" with
                `two_stage`. `record` is the [EpochRecord][mlmetric.training.EpochRecord]. The calls of members that are
                trained at the same time alternate.

        Returns:
            The estimator.

        Raises:
            ValueError: If a shape is wrong, a feature is not finite, a row has no view or only a part of one, a label
                is outside [0, 1], a setting is out of range, or a checkpoint has other settings or data.
            TypeError: If `y` contains neither numbers nor names, or `head` is a module instead of a function that
                makes one.
            FloatingPointError: If loss or weights are no longer finite; checkpoints are kept.
            OSError: If a checkpoint cannot be written or read, or is damaged.

        Warns:
            UserWarning: If training diverges, epochs cannot be scored, or soft labels never reach 0.5.
        """
        self._fit_members(
            *self._read(X, y, validation), StageOutputs(checkpoint_dir, callback), num_parts=self.n_members
        )
        return self

    def transform(self, X: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Compute embeddings, to be compared by the Euclidean distance.

        Args:
            X: Features, shape `(n, D)`; with `views`, NaN in all columns of a view that a row lacks.

        Returns:
            float32, shape `(n, E)`; E is the sum of the members' embedding sizes.
        """
        check_is_fitted(self, "head_")
        return apply_in_batches(self.head_, read_features(self, X)).cpu().numpy()

    def _fit_members(
        self,
        data: TrainingData,
        validation: TrainingData | None,
        outputs: StageOutputs,
        *,
        num_parts: int,
    ) -> FittedMembers:
        """Train the members, and set `head_` and `history_`."""
        check_member_settings(self)
        seed, next_seed = outputs.seeds(self.random_state)
        parts = ValidationParts(data, validation, fraction=self.validation_fraction, num_parts=num_parts, seed=seed)
        if self.patience is not None and not parts.has_validation:
            raise ValueError(
                "`patience` requires validation rows, got none: increase `validation_fraction`, or pass `validation`."
            )
        train = partial(train_members, self, outputs=outputs)
        if data.views is None or self.fusion != "late":
            members = train(parts, stage="embedding", seed=seed)
            self.head_: nn.Module = members.ensemble()
            self.history_ = members.histories
            fitted = FittedMembers(members, None, parts, next_seed)
        else:
            of_views = {
                name: train(
                    ViewParts(parts, name, columns), stage=f"embedding_{name}", seed=seed + view * self.n_members
                )
                for view, (name, columns) in enumerate(data.views.items())
            }
            self.head_ = fuse_embeddings(of_views, parts)
            self.history_ = [history for members in of_views.values() for history in members.histories]
            fitted = FittedMembers(None, of_views, parts, next_seed)
        self._n_features_out = apply_in_batches(self.head_, data.features[:1]).shape[1]
        return fitted

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


inherit_docs(MetricEmbedder, loss="`LogRatioLoss()`=>the paper's", miner="no miner=>the paper's")(
    MetricEmbedder.paper.__func__  # type: ignore[attr-defined]
)
