"""Soft cosine measure: a similarity of label sets that counts related labels as partly shared."""

from __future__ import annotations

import torch
from torch import Tensor

from mlmetric.labels import LabelsLike, label_tensor
from mlmetric.similarity._autocast import without_autocast
from mlmetric.similarity._pairwise_sums import PairwiseSums, ratio
from mlmetric.similarity._similarity_classes import Similarity


class SoftCosine(Similarity):
    """Soft cosine measure: related but different labels count as partly shared.

    `S(y, y') = y R y' / sqrt(y R y * y' R y')`, where R contains the similarity of each pair of labels. 1 is the
    highest value. The similarity can be negative if R has negative entries; `.clamp(min=0)` prevents this. An all-zero
    row has similarity 0 to every row. Missing labels are not supported, because related labels would still be compared
    where only one of them is annotated; each pair of rows would need its own R. Disjoint sets of related labels have a
    similarity above 0: with a miner, choose `positive_threshold` and `partial_threshold` accordingly.

    Args:
        label_similarity: R, shape `(L, L)`: symmetric, with a diagonal above 0 (usually 1), and positive semi-definite
            up to rounding errors, as a matrix of cosines is. With the identity matrix the similarity is
            [`cosine`][mlmetric.similarity.cosine].

    Raises:
        ValueError: If `label_similarity` is empty, not square, not finite, not symmetric or not positive semi-definite,
            or has a diagonal entry that is not above 0.

    Examples:
        >>> import torch
        >>> from mlmetric.similarity import SoftCosine
        >>> label_similarity = torch.tensor([[1.0, 0.6, 0.0], [0.6, 1.0, 0.0], [0.0, 0.0, 1.0]])
        >>> SoftCosine(label_similarity)(torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1]]))
        tensor([[1.0000, 0.6000, 0.0000],
                [0.6000, 1.0000, 0.0000],
                [0.0000, 0.0000, 1.0000]])

    Source:
        Sidorov et al., "Soft similarity and soft cosine measure", Computacion y Sistemas 18(3), 2014.
    """

    def __init__(self, label_similarity: Tensor) -> None:
        if label_similarity.ndim != 2 or label_similarity.shape[0] != label_similarity.shape[1]:
            raise ValueError(
                f"`label_similarity` must be a square matrix (L, L), got shape {tuple(label_similarity.shape)}."
            )
        if len(label_similarity) == 0:
            raise ValueError("`label_similarity` must have at least one label, got shape (0, 0).")
        matrix = label_similarity.double()
        if not bool(matrix.isfinite().all()) or not torch.allclose(matrix, matrix.T):
            raise ValueError("`label_similarity` must be finite and symmetric; average it with its transpose.")
        if not bool((matrix.diagonal() > 0).all()):
            raise ValueError(
                f"`label_similarity` must have a diagonal above 0, got {matrix.diagonal().min().item()}: "
                "it is the similarity of a label to itself."
            )
        smallest = float(torch.linalg.eigvalsh(matrix).min())
        if smallest < -1e-6 * float(matrix.diagonal().max()):
            raise ValueError(
                f"`label_similarity` must be positive semi-definite, got an eigenvalue of {smallest:.3g}. "
                "Matrices of cosines are positive semi-definite: use `SoftCosine.from_vectors`."
            )
        self.label_similarity = matrix

    @classmethod
    def from_cooccurrence(cls, labels: LabelsLike) -> SoftCosine:
        """Create a similarity from a label matrix, by the cosines of its columns: co-occurring labels are similar.

        Args:
            labels: Training labels, shape `(N, L)`, multi-hot or soft, of any kind that
                [`check_labels`][mlmetric.labels.check_labels] reads. A label that never occurs is similar to itself
                only.

        Returns:
            A similarity for the same L labels.

        Raises:
            TypeError: If `labels` does not contain numbers.
            ValueError: If `labels` is not a matrix in [0, 1] with at least one label.
        """
        return cls.from_vectors(label_tensor(labels, used_by="`SoftCosine`").double().T)

    @classmethod
    def from_vectors(cls, vectors: Tensor) -> SoftCosine:
        """Create a similarity from label vectors, such as word vectors of the label names, by their cosines.

        Args:
            vectors: Shape `(L, d)`, finite, such as the result of
                [`read_word_vectors`][mlmetric.label_vectors.read_word_vectors]. A label with a zero vector is similar
                to itself only.

        Returns:
            A similarity for the L labels.

        Raises:
            ValueError: If `vectors` is not a matrix with at least one row, or an entry is NaN or infinite.
        """
        if vectors.ndim != 2 or len(vectors) == 0:
            raise ValueError(
                f"`vectors` must have shape (L, d), a vector for each label, and at least one label, "
                f"got {tuple(vectors.shape)}."
            )
        if not bool(vectors.isfinite().all()):
            label = int((~vectors.isfinite()).any(dim=1).int().argmax())
            raise ValueError(f"`vectors` must be finite, got NaN or infinity in the vector of label {label}.")
        unit = torch.nn.functional.normalize(vectors.double())
        cosines = unit @ unit.T
        return cls(((cosines + cosines.T) / 2).fill_diagonal_(1))

    def __call__(self, labels: LabelsLike, ref_labels: LabelsLike | None = None) -> Tensor:
        return self._compare(PairwiseSums(labels, ref_labels, None))

    def _compare_pairs(self, labels: Tensor, ref_labels: Tensor) -> Tensor:
        """Compare row i of `labels` with row i of `ref_labels` only; shape `(N,)`."""
        return self._compare(PairwiseSums(labels, ref_labels, None, paired=True))

    def _compare(self, sums: PairwiseSums) -> Tensor:
        if sums.missing:
            raise ValueError(
                "`labels` must not contain NaN for `SoftCosine`: NaN means that a label is not annotated, and "
                "`SoftCosine` does not support missing labels, because it also compares different labels. Use "
                "`Cosine`, or choose a value for each missing label."
            )
        num_labels, device = sums.labels.shape[1], sums.labels.device
        if num_labels != len(self.label_similarity):
            raise ValueError(
                f"`labels` must have {len(self.label_similarity)} columns like `label_similarity`, got {num_labels}."
            )
        with without_autocast(device):
            matrix = self.label_similarity.to(device)
            values, ref_values = sums.labels.double(), sums.ref_labels.double()
            products = values @ matrix
            squares = (products * values).sum(1).clamp(min=0)
            ref_squares = ((ref_values @ matrix) * ref_values).sum(1).clamp(min=0)
            if sums.paired:
                products = (products * ref_values).sum(1)
            else:
                products, squares = products @ ref_values.T, squares[:, None]
            cosines = ratio(products, (squares * ref_squares).sqrt_())
            # Terms of both signs may cancel up to a rounding error where the cosine is 0.
            return sums.round_result(cosines.masked_fill(cosines.abs() < 1e-12, 0))

    def __repr__(self) -> str:
        size = len(self.label_similarity)
        return f"SoftCosine(label_similarity=tensor of ({size}, {size}))"
