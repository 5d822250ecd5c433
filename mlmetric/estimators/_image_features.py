"""Features of image files as a scikit-learn transformer."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from mlmetric.data import BadImagesError, ImageDataset, extract_features
from mlmetric.heads import FrozenBackbone

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum


class ImageFeatures(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Compute the features of image files with a frozen network, as the first step of a pipeline.

    `make_pipeline(ImageFeatures("resnet50"), MetricClassifier())` is fitted on paths and labels. Nothing is learnt from
    the images: `fit` loads the network, and `transform` computes a feature for each path.

    Cross-validation and grid searches transform the same images many times. Pass `cache_dir` in this case, so that each
    image is read only once for each network and preprocessing.

    Args:
        backbone: The name of a network or a module, as for [FrozenBackbone][mlmetric.heads.FrozenBackbone], or a
            `FrozenBackbone`, such as one with `autocast`. `fit` copies a module.
        weights: The weights of the network, as for `FrozenBackbone`. Random weights (None) differ between fits.
        image_transform: Preprocessing of an image; None for the preprocessing of the network.
        pooling: Pooling of feature maps or tokens, as for `FrozenBackbone`.
        root: The folder that paths are relative to.
        cache_dir: Folder of a cache in which features are looked up in later calls and processes; required in a process
            group of torch.distributed. None for no cache: features are written to a temporary folder during the call.
        batch_size: Number of images in a batch.
        num_workers: Number of worker processes that read images; 0 to read them in this process.
        device: Device of the network, such as "cpu" or "cuda". Pickles contain the network on the CPU.
        progress: Called after each batch as `progress(done, total)` with numbers of images.

    Attributes:
        backbone_: The `FrozenBackbone`, on the device.

    Raises:
        ImportError: If the network requires a package that is not installed; raised by `fit`, as are the other errors.
        ValueError: If an argument of `FrozenBackbone` is not valid, or the network has no preprocessing.
        WeightsUnavailableError: If weights cannot be downloaded, or their file cannot be read.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from mlmetric.estimators import ImageFeatures
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("sea.png", "sun.png"):
        ...     Image.new("RGB", (30, 20)).save(folder / name)
        >>> features = ImageFeatures("squeezenet1_0", weights=None, root=folder, num_workers=0)
        >>> features.fit_transform(["sea.png", "sun.png"]).shape
        (2, 512)
    """

    def __init__(
        self,
        backbone: str | nn.Module = "resnet50",
        *,
        weights: WeightsEnum | str | Path | None = "DEFAULT",
        image_transform: Callable[[Any], Tensor] | None = None,
        pooling: Literal["avg", "max", "cls"] | None = None,
        root: str | Path = ".",
        cache_dir: str | Path | None = None,
        batch_size: int = 32,
        num_workers: int = 2,
        device: str = "cpu",
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.image_transform = image_transform  # not `transform`, which is the method
        self.pooling = pooling
        self.root = root
        self.cache_dir = cache_dir
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.device = device
        self.progress = progress

    def fit(self, X: npt.ArrayLike | Sequence[str | Path], y: Any = None) -> Self:
        """Load the network.

        Args:
            X: Paths of image files, shape `(n,)` or `(n, 1)`: strings or `pathlib.Path` in a list, an array, a series
                or a data frame of one column.
            y: Ignored.

        Returns:
            The transformer.

        Raises:
            TypeError: If `X` contains anything but paths.
            ValueError: If `X` is empty or has another shape, or a setting is not valid.
            BadImagesError: If the first image cannot be read and the network is a module, whose feature size is not
                known otherwise.
        """
        paths = _read_paths(X)
        self.backbone_ = self._make_backbone().to(self.device)
        size = self.backbone_.feature_size
        self._n_features_out = self._extract(paths[:1], num_workers=0).shape[1] if size is None else size
        return self

    def transform(self, X: npt.ArrayLike | Sequence[str | Path]) -> npt.NDArray[np.float32]:
        """Compute the features of images.

        Args:
            X: Paths of image files, as for `fit`.

        Returns:
            float32, shape `(n, D)`.

        Raises:
            TypeError: If `X` contains anything but paths.
            ValueError: If `X` is empty or has another shape; or as in
                [extract_features][mlmetric.data.extract_features].
            BadImagesError: If images cannot be read; its attribute `reasons` names all of them.
            OSError: If the system is the cause, such as a full disk.
        """
        check_is_fitted(self, "backbone_")
        return self._extract(_read_paths(X), num_workers=self.num_workers, progress=self.progress)

    def _make_backbone(self) -> FrozenBackbone:
        module = copy.deepcopy(self.backbone) if isinstance(self.backbone, nn.Module) else self.backbone
        if not isinstance(module, FrozenBackbone):
            backbone = FrozenBackbone(
                module, weights=self.weights, transform=self.image_transform, pooling=self.pooling
            )
        elif self.weights != "DEFAULT" or self.pooling is not None:
            raise ValueError(
                "`weights` and `pooling` must be set in the FrozenBackbone that is passed as `backbone`, got "
                f"weights={self.weights!r} and pooling={self.pooling!r}."
            )
        else:
            backbone = module
            backbone.transform = backbone.transform if self.image_transform is None else self.image_transform
        if backbone.transform is None:
            raise ValueError(
                f"`image_transform` must be given for {backbone.name}, whose preprocessing is not known: a function "
                "from a PIL image to its input, such as `torchvision.models.ResNet50_Weights.DEFAULT.transforms()`."
            )
        return backbone

    def _extract(
        self, paths: list[str], *, num_workers: int, progress: Callable[[int, int], None] | None = None
    ) -> npt.NDArray[np.float32]:
        dataset = ImageDataset(self.root, paths, transform=self.backbone_.transform)
        folder = tempfile.TemporaryDirectory() if self.cache_dir is None else nullcontext(self.cache_dir)
        with folder as cache_dir:
            try:
                extracted = extract_features(
                    self.backbone_,
                    dataset,
                    cache_dir,
                    batch_size=self.batch_size,
                    num_workers=num_workers,
                    progress=progress,
                )
            except BadImagesError as error:
                advice = "Repair them, or leave them out of `X` and `y`."
                raise BadImagesError(error.reasons, error.num_images, advice=advice) from None
            return np.array(extracted.features)  # a memory map could be read-only, and its file removed

    def __getstate__(self) -> dict[str, Any]:
        """Return the state with the network on the CPU, since the device may be missing where it is unpickled."""
        state: dict[str, Any] = dict(super().__getstate__())  # on Python 3.11 this is the estimator's own dict
        backbone = state.get("backbone_")
        if backbone is not None and any(part.device.type != "cpu" for part in backbone.parameters()):
            state["backbone_"] = copy.deepcopy(backbone).cpu()
        return state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.transformer_tags.preserves_dtype = []
        tags.non_deterministic = self.weights is None
        return tags


def _read_paths(X: Any) -> list[str]:
    """Return the paths in a list, an array, a series or a data frame of one column."""
    if isinstance(X, str | os.PathLike):
        raise TypeError(f"`X` must be a list of paths, got one path: pass [{str(X)!r}].")
    values = np.asarray(X, dtype=object)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(
            f"`X` must contain at least one path, shape (n,) or (n, 1), got {type(X).__name__} of shape {values.shape}."
        )
    for row, value in enumerate(values):
        if not isinstance(value, str | os.PathLike):
            raise TypeError(
                f"`X` must contain paths of image files, got {value!r} of type {type(value).__name__} at row {row}. "
                "Features that are computed already are passed to the next step directly."
            )
    return [str(value) for value in values]
