"""Decide which pairs of rows are positive, negative or ignored, by the similarity of their labels.

[`MultiLabelLoss`][mlmetric.losses.MultiLabelLoss] and [`MultiLabelMiner`][mlmetric.miners.MultiLabelMiner] use such a
relation in place of equal class ids.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mlmetric._label_matrix import has_missing
from mlmetric._repr import parameters_repr
from mlmetric.labels import LabelsLike, label_tensor
from mlmetric.similarity import InnerProduct, SimilarityFunction, check_similarity, compare_labels, exceeds
from mlmetric.similarity._autocast import without_autocast

__all__ = ["LabelRelation"]


class LabelRelation(nn.Module):
    """Relation between label sets: classifies pairs of rows as positive, negative or ignored by label similarity.

    A pair is positive if its similarity exceeds `positive_threshold`, negative if it does not exceed
    `negative_threshold`, and ignored in between. With equal thresholds, the default, no pair is ignored:
    `LabelRelation()` distinguishes pairs that share a label from pairs that do not. An all-zero row is a negative of
    every row, unless its similarity can be above 0, as with `Hamming`. The pair of a row with itself is treated like
    any other pair. Rows with missing labels (NaN) are compared on the labels annotated in both rows; pairs without such
    a label are ignored.

    Args:
        similarity: Label similarity `(labels, ref_labels) -> (N, M)`, larger is more similar: an object or function of
            [mlmetric.similarity][], another function or an `nn.Module`. None for
            [`InnerProduct()`][mlmetric.similarity.InnerProduct], the number of shared labels.
        positive_threshold: A pair is positive if its similarity exceeds this value by more than a rounding error (see
            [`exceeds`][mlmetric.similarity.exceeds]). With the default similarity, 0 means that the rows share a label.
        negative_threshold: A pair is negative if its similarity does not exceed this value; at most
            `positive_threshold`. None for `positive_threshold`, so that no pair is ignored.
        validate_args: Whether to check the values of labels and similarities in each call, which synchronises on CUDA.

    Raises:
        TypeError: If `similarity` is not callable.
        ValueError: If `negative_threshold` exceeds `positive_threshold`, or a threshold is NaN.

    Examples:
        >>> import torch
        >>> from mlmetric.relations import LabelRelation
        >>> from mlmetric.similarity import Jaccard
        >>> relation = LabelRelation(similarity=Jaccard(), positive_threshold=0.5, negative_threshold=0.0)
        >>> labels = torch.tensor([[1, 1, 0], [1, 1, 1], [0, 1, 1], [0, 0, 1]])
        >>> relation(labels[:1], labels)
        tensor([[ 1,  1,  0, -1]], dtype=torch.int8)

    Source:
        The definitions of positive and negative pairs that users of pytorch-metric-learning have asked for (issues 178,
        231, 354, 669 and 742): any shared label, an overlap of at least t, and a gap between positive and negative.
    """

    def __init__(
        self,
        *,
        similarity: SimilarityFunction | None = None,
        positive_threshold: float = 0.0,
        negative_threshold: float | None = None,
        validate_args: bool = True,
    ) -> None:
        super().__init__()
        similarity = InnerProduct() if similarity is None else check_similarity(similarity)
        negative_threshold = positive_threshold if negative_threshold is None else negative_threshold
        if not negative_threshold <= positive_threshold:
            raise ValueError(
                f"`negative_threshold` must not exceed `positive_threshold`, got {negative_threshold} and "
                f"{positive_threshold}: pairs in between would be both positive and negative."
            )
        self.similarity = similarity
        self.positive_threshold = positive_threshold
        self.negative_threshold = negative_threshold
        self.validate_args = validate_args

    def extra_repr(self) -> str:
        """Return the parameters for the `repr` of the module."""
        return parameters_repr(self)

    def forward(self, labels: LabelsLike, ref_labels: LabelsLike | None = None) -> Tensor:
        """Compute the relation of each row of `labels` to each row of `ref_labels`.

        Args:
            labels: Shape `(N, L)`, multi-hot or soft, of any kind that
                [`check_labels`][mlmetric.labels.check_labels] reads; NaN for labels that are not annotated.
            ref_labels: Shape `(M, L)`; None for `labels` itself.

        Returns:
            Shape `(N, M)`, int8: 1 for positive, -1 for negative, 0 for ignored pairs.

        Raises:
            TypeError: If labels do not contain numbers, such as lists of label names, or `similarity` does not return
                a tensor.
            ValueError: If labels are not two-dimensional or not in [0, 1], or if `similarity` returns a wrong shape,
                returns NaN for two rows without missing labels, or does not support missing labels.
        """
        same = ref_labels is None or ref_labels is labels
        labels = label_tensor(labels, validate_args=self.validate_args, allow_missing=True)
        if same or ref_labels is None:
            ref_labels = labels
        else:
            ref_labels = label_tensor(
                ref_labels, name="ref_labels", validate_args=self.validate_args, allow_missing=True
            )
        return self._relate(labels, ref_labels)

    def _relate(self, labels: Tensor, ref_labels: Tensor) -> Tensor:
        """Compute the relation of checked tensors."""
        with torch.no_grad(), without_autocast(labels.device):
            similarity = compare_labels(self.similarity, labels, ref_labels, validate_args=self.validate_args)
            positive = exceeds(similarity, self.positive_threshold)
            equal = self.negative_threshold == self.positive_threshold
            negative = ~(positive if equal else exceeds(similarity, self.negative_threshold))
            # Otherwise there is no NaN.
            if not self.validate_args or has_missing(labels) or has_missing(ref_labels):
                negative &= ~similarity.isnan()
            return positive.to(torch.int8) - negative.to(torch.int8)
