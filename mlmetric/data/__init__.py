"""Images from records, splits of multi-label data, and features of a frozen network, cached."""

from mlmetric.data._cv_splitters import MultiLabelStratifiedKFold, MultiLabelStratifiedShuffleSplit
from mlmetric.data._features import ExtractedFeatures, extract_features
from mlmetric.data._images import BadImagesError, ImageDataset
from mlmetric.data._read_image import BadImageError, read_image
from mlmetric.data._stratified_split import stratified_split

__all__ = [
    "BadImageError",
    "BadImagesError",
    "ExtractedFeatures",
    "ImageDataset",
    "MultiLabelStratifiedKFold",
    "MultiLabelStratifiedShuffleSplit",
    "extract_features",
    "read_image",
    "stratified_split",
]
