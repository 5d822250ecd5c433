"""Read image and label files, split multi-label data, and compute and cache the features of a frozen network.

`read_image_labels` reads the labels of images, `stratified_split` and the cross-validation classes preserve the
proportion of each label, `extract_features` and `extract_shard` cache features on disk, and `join_views` combines the
features of several views of the same rows, such as an image and its text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlmetric.data._extraction import ExtractedFeatures, extract_features
from mlmetric.data._feature_shards import ExtractedShard, extract_shard, join_shards
from mlmetric.data._image_dataset import BadImagesError, ImageDataset
from mlmetric.data._image_file import BadImageError, read_image
from mlmetric.data._image_labels import ImageLabels
from mlmetric.data._join_views import join_views
from mlmetric.data._joined_features import JoinedFeatures
from mlmetric.data._label_text import LabelFileError
from mlmetric.data._read_image_labels import read_image_labels
from mlmetric.data._stratified_split import stratified_split

if TYPE_CHECKING:
    from mlmetric.data._cv_splitters import MultiLabelStratifiedKFold, MultiLabelStratifiedShuffleSplit

__all__ = [
    "BadImageError",
    "BadImagesError",
    "ExtractedFeatures",
    "ExtractedShard",
    "ImageDataset",
    "ImageLabels",
    "JoinedFeatures",
    "LabelFileError",
    "MultiLabelStratifiedKFold",
    "MultiLabelStratifiedShuffleSplit",
    "extract_features",
    "extract_shard",
    "join_shards",
    "join_views",
    "read_image",
    "read_image_labels",
    "stratified_split",
]


def __getattr__(name: str) -> Any:
    if name in ("MultiLabelStratifiedKFold", "MultiLabelStratifiedShuffleSplit"):
        from mlmetric.data import _cv_splitters  # imports scikit-learn, which the rest does not need

        return getattr(_cv_splitters, name)
    raise AttributeError(f"module 'mlmetric.data' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
