"""Which pairs of label sets count as positive, which as negative, and which as neither."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mlmetric.labels import check_labels
from mlmetric.similarity import InnerProduct, SimilarityFunction, check_similarity, compare_labels, exceeds

__all__ = ["LabelRelation"]


class LabelRelation(nn.Module):
    """Call a pair positive, negative or ignored by thresholds on a label similarity; no pair is ever both.

    A pair is positive if its similarity exceeds `positive_threshold`, negative if it does not exceed
    `negative_threshold`, and ignored in between. With one threshold for both, the default, nothing is ignored:
    `LabelRelation()` reads "shares a label" against "shares none". An all-zero row is nobody's positive under the
    similarities of sets, and a negative of all. A row compared with itself is treated as any other pair is.

    Args:
        similarity: Label similarity `(labels, ref_labels) -> (N, M)`, larger is more alike: one of
            [mlmetric.similarity][], a function, an `nn.Module`. The number of shared labels by default.
        positive_threshold: A positive pair is more similar than this, by more than rounding: see
            [`exceeds`][mlmetric.similarity.exceeds]. 0 means "shares something".
        negative_threshold: A negative pair is not more similar than this, at most `positive_threshold`; None for
            `positive_threshold` itself.
        validate_args: Whether each call looks at the values of labels and similarities. On CUDA that waits for the
            device.

    Raises:
        TypeError: If `similarity` is not callable.
        ValueError: If `negative_threshold` exceeds `positive_threshold`, or a threshold is NaN.

    Examples:
        >>> from mlmetric.similarity import Jaccard
        >>> labels = torch.tensor([[1, 1, 0], [1, 1, 1], [0, 1, 1], [0, 0, 1]])
        >>> LabelRelation(Jaccard(), positive_threshold=0.5, negative_threshold=0.0)(labels[:1], labels)
        tensor([[ 1,  1,  0, -1]], dtype=torch.int8)

    Source:
        The readings that users have asked pytorch-metric-learning for (its issues 178, 231, 354, 669, 742): shares
        any, overlaps by at least t, and a gap between positive and negative.
    """

    def __init__(
        self,
        similarity: SimilarityFunction | None = None,
        *,
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
                f"{positive_threshold}: a pair in between would be both."
            )
        self.similarity = similarity
        self.positive_threshold = positive_threshold
        self.negative_threshold = negative_threshold
        self.validate_args = validate_args

    def forward(self, labels: Tensor, ref_labels: Tensor | None = None) -> Tensor:
        """Relate each row of `labels` to each of `ref_labels`.

        Args:
            labels: Shape `(N, L)`, multi-hot or soft.
            ref_labels: Shape `(M, L)`; `labels` itself by default.

        Returns:
            Shape `(N, M)`, int8: 1 for positive, -1 for negative, 0 for ignored pairs.

        Raises:
            TypeError: If labels or similarities are no tensors.
            ValueError: If labels are not two-dimensional or lie outside [0, 1], or `similarity` returns another
                shape or NaN.
        """
        named = {"labels": labels}
        if ref_labels is None:
            ref_labels = labels
        elif ref_labels is not labels:
            named["ref_labels"] = ref_labels
        for name, value in named.items():
            if not isinstance(value, Tensor):
                raise TypeError(f"`{name}` must be a torch.Tensor, got {type(value).__name__}.")
            check_labels(value, name=name, validate_args=self.validate_args)
        with torch.no_grad(), torch.autocast(labels.device.type, enabled=False):
            similarity = compare_labels(self.similarity, labels, ref_labels, validate_args=self.validate_args)
            positive = exceeds(similarity, self.positive_threshold).to(torch.int8)
            negative = ~exceeds(similarity, self.negative_threshold) & ~similarity.isnan()
            return positive - negative.to(torch.int8)
