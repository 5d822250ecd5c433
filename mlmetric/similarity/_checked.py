"""A similarity function of whatever origin, called and checked."""

from __future__ import annotations

from torch import Tensor

from mlmetric.similarity._callables import SimilarityFunction


def check_similarity(similarity: SimilarityFunction) -> SimilarityFunction:
    """Check that `similarity` can be called on labels, and return it.

    Args:
        similarity: What is to be a similarity function.

    Returns:
        The same object.

    Raises:
        TypeError: If it is not callable, or a class in place of an instance.
    """
    if isinstance(similarity, type):
        raise TypeError(f"`similarity` must be an instance, got the class: write `{similarity.__name__}()`.")
    if not callable(similarity):
        raise TypeError(f"`similarity` must be a callable, got {type(similarity).__name__}.")
    return similarity


def compare_labels(
    similarity: SimilarityFunction, labels: Tensor, ref_labels: Tensor, *, validate_args: bool = True
) -> Tensor:
    """Call `similarity` and check what it returns: a tensor `(N, M)` on the device of `labels`, without NaN.

    Args:
        similarity: `(labels, ref_labels) -> (N, M)`, larger is more alike.
        labels: Shape `(N, L)`.
        ref_labels: Shape `(M, L)`.
        validate_args: Whether to look for NaN too. On a CUDA tensor that waits for the device.

    Returns:
        The similarities, shape `(N, M)`, in the dtype that the function gives.

    Raises:
        TypeError: If the function returns no tensor.
        ValueError: If the shape is another, or a similarity is NaN.
    """
    result = similarity(labels, ref_labels)
    if not isinstance(result, Tensor):
        raise TypeError(f"`similarity` must return a torch.Tensor, got {type(result).__name__}.")
    expected = (len(labels), len(ref_labels))
    if result.shape != expected:
        raise ValueError(
            f"`similarity` must return shape {expected}, a row for each of `labels` and a column for each of "
            f"`ref_labels`, got {tuple(result.shape)}."
        )
    # A maximum is NaN where any number is, and ten times faster than `isnan().any()`.
    if validate_args and result.is_floating_point() and result.numel() and bool(result.max().isnan()):
        raise ValueError("`similarity` must not return NaN; give rows without labels a number, say 0.")
    return result.to(labels.device)
