"""Features of the shards of a data set, computed by any number of processes or machines and joined without a copy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from mlmetric.data._extraction import cache_folder, check_arguments, not_found
from mlmetric.data._feature_cache import FeatureCache
from mlmetric.data._forward_passes import Backbone, compute_missing, grid
from mlmetric.data._image_dataset import BadImagesError
from mlmetric.data._joined_features import JoinedFeatures
from mlmetric.data._reader_processes import IdentifiedImages, name_of

_SHOWN_IMAGES = 5


@dataclass(frozen=True)
class ExtractedShard:
    """The images of a shard whose features are in the cache.

    Attributes:
        indices: Their indices in the data set, int64, shape `(K,)`, ascending.
        bad_images: For each image that could not be read, a message that names it and the reason.
    """

    indices: npt.NDArray[np.int64]
    bad_images: list[str]


def extract_shard(
    backbone: Backbone,
    dataset: IdentifiedImages,
    cache_dir: str | Path,
    *,
    shard: int,
    num_shards: int,
    batch_size: int = 32,
    num_workers: int = 2,
    on_bad_image: Literal["error", "skip"] = "error",
    progress: Callable[[int, int], None] | None = None,
) -> ExtractedShard:
    """Compute the features of one shard of a data set, and write them to a cache.

    The batches of `extract_features` are divided into `num_shards` shards of consecutive images. Processes on one or
    more machines compute the shards, in any order or at the same time, and write to one cache folder or to several. No
    process group and no lock is needed. [join_shards][mlmetric.data.join_shards] then opens all features, and
    [extract_features][mlmetric.data.extract_features] with the same cache folder computes nothing again.

    If a shard was interrupted or is computed again, only missing features are computed, and the result is the same. The
    features of a complete shard are in one file.

    All processes must see each image at the same path, with the same size and modification time, as on a shared file
    system; otherwise its features are not found.

    Args:
        backbone: The network, as for `extract_features`.
        dataset: All images of the data set.
        cache_dir: Folder of the cache. All files in it are read and checked at the start: if there are many more shards
            than processes, give each its own folder.
        shard: The number of the shard, from 0 to `num_shards - 1`.
        num_shards: The number of shards. A shard is empty if there are more shards than batches.
        batch_size: Number of images in a batch; it must be the same for all shards.
        num_workers: Number of worker processes that read and preprocess images; 0 to use this process.
        on_bad_image: `"error"` computes the features of all other images of the shard, then raises an error; `"skip"`
            leaves out images that cannot be read.
        progress: Called after each batch as `progress(done, total)` with numbers of images of the shard.

    Returns:
        The indices of the images whose features are in the cache, and the images that could not be read.

    Raises:
        BadImagesError: If images of the shard cannot be read and `on_bad_image` is `"error"`.
        TypeError: As in `extract_features`.
        ValueError: If `shard` or `num_shards` is out of range; or as in `extract_features`.
        OSError: If the system is the cause, as in `extract_features`.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from mlmetric.data import ImageDataset, extract_shard, join_shards
        >>> from mlmetric.heads import FrozenBackbone
        >>> folder = Path(tempfile.mkdtemp())
        >>> names = [f"{number}.png" for number in range(5)]
        >>> for name in names:
        ...     Image.new("RGB", (30, 20)).save(folder / name)
        >>> backbone = FrozenBackbone("squeezenet1_0", weights=None)
        >>> dataset = ImageDataset(folder, names, transform=backbone.transform)
        >>> options = {"num_shards": 2, "batch_size": 2, "num_workers": 0}
        >>> for shard in range(2):  # each in a process or on a machine of its own
        ...     print(extract_shard(backbone, dataset, folder / "cache", shard=shard, **options).indices.tolist())
        [0, 1]
        [2, 3, 4]
        >>> join_shards(backbone, dataset, folder / "cache")
        JoinedFeatures(shape=(5, 512), dtype=float32, files=2)
    """
    check_arguments(backbone, dataset, batch_size, num_workers, on_bad_image)
    if num_shards < 1:
        raise ValueError(f"`num_shards` must be at least 1, got {num_shards}.")
    if not 0 <= shard < num_shards:
        raise ValueError(f"`shard` must be from 0 to {num_shards - 1}, one below `num_shards`, got {shard}.")
    batches = grid(len(dataset), batch_size)
    own = batches[shard * len(batches) // num_shards : (shard + 1) * len(batches) // num_shards]
    cache = FeatureCache(cache_folder(backbone, cache_dir))
    identities = {index: dataset.identity(index) for batch in own for index in batch}
    cache.close_parts_without(identities.values())
    bad = compute_missing(backbone, dataset, cache, identities, own, num_workers=num_workers, progress=progress)
    bad = not_found(dataset, identities) | bad
    cache.merge_parts_of([identity for identity in identities.values() if identity is not None])
    bad_images = [bad[index] for index in sorted(bad)]
    if bad_images and on_bad_image == "error":
        raise BadImagesError(bad_images, len(identities))
    return ExtractedShard(np.array([index for index in identities if index not in bad], dtype=np.int64), bad_images)


def join_shards(
    backbone: Backbone,
    dataset: IdentifiedImages,
    cache_dirs: str | Path | Sequence[str | Path],
    *,
    on_missing: Literal["error", "skip"] = "error",
) -> JoinedFeatures:
    """Open the features of a data set that are in one or more cache folders, without copying them.

    The result reads features from the files when it is indexed, so that they may exceed the memory. The files are
    checked against their digests once, when they are opened. Each file stays open: the number of files, usually one for
    each shard, must be below the system's limit for open files (`ulimit -n`).

    Args:
        backbone: The network whose features these are; it is not called, and can be on any device.
        dataset: The images, with the same transform as when the features were computed.
        cache_dirs: The cache folder of [extract_shard][mlmetric.data.extract_shard] or
            [extract_features][mlmetric.data.extract_features], or several of them, such as one from each machine.
        on_missing: `"error"` to raise an error if images have no features; `"skip"` to leave them out.

    Returns:
        The features, in the order of the data set, and the indices of their images.

    Raises:
        LookupError: If images have no features and `on_missing` is `"error"`, or no image has features.
        TypeError: If the backbone has no `fingerprint`, or the data set has no `identity`.
        ValueError: If `on_missing` is neither `"error"` nor `"skip"`, there are no folders or no images, or the
            features of the folders differ in D.
        OSError: If a folder does not exist or cannot be read.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from mlmetric.data import ImageDataset, extract_shard, join_shards
        >>> from mlmetric.heads import FrozenBackbone
        >>> folder = Path(tempfile.mkdtemp())
        >>> names = ["sea.png", "sun.png", "tree.png"]
        >>> for name in names:
        ...     Image.new("RGB", (30, 20)).save(folder / name)
        >>> backbone = FrozenBackbone("squeezenet1_0", weights=None)
        >>> dataset = ImageDataset(folder, names, transform=backbone.transform)
        >>> for shard in range(2):
        ...     cache = folder / f"machine {shard}"
        ...     done = extract_shard(backbone, dataset, cache, shard=shard, num_shards=2, batch_size=2, num_workers=0)
        >>> features = join_shards(backbone, dataset, [folder / "machine 0", folder / "machine 1"])
        >>> features[1].shape, features[[2, 0]].shape
        ((512,), (2, 512))
        >>> [(start, block.shape) for start, block in features.blocks(rows=2)]
        [(0, (2, 512)), (2, (1, 512))]
    """
    if on_missing not in ("error", "skip"):
        raise ValueError(f"`on_missing` must be 'error' or 'skip', got {on_missing!r}.")
    check_arguments(backbone, dataset, batch_size=1, num_workers=0, on_bad_image="error")
    folders = [Path(folder) for folder in ([cache_dirs] if isinstance(cache_dirs, str | Path) else cache_dirs)]
    name = cache_folder(backbone, "").name  # once, because the weights are read for it
    if not folders:
        raise ValueError("`cache_dirs` must contain at least one folder, got none.")
    paths: list[Path] = []
    places: dict[bytes, tuple[int, int]] = {}
    sizes: set[int] = set()
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"The cache folder {folder} of `cache_dirs` does not exist or is not a folder.")
        if (folder / name).is_dir():
            cache = FeatureCache(folder / name)
            places |= {identity: (len(paths) + part, row) for identity, (part, row) in cache.known().items()}
            paths += cache.paths
            sizes |= {part["feature"].shape[1] for part in cache.parts}
            del cache  # which keeps each file open
    if len(sizes) > 1:
        raise ValueError(
            f"The features in `cache_dirs` must have one size, got {sorted(sizes)}: `fingerprint` must differ between "
            "networks."
        )
    identities = [dataset.identity(index) for index in range(len(dataset))]
    found = [index for index, identity in enumerate(identities) if identity in places]
    if len(found) < len(identities) and (on_missing == "error" or not found):
        raise LookupError(_missing_message(dataset, identities, set(found), folders, any_part=bool(paths)))
    numbers, rows = np.array([places[identities[index]] for index in found], dtype=np.int64).T  # type: ignore[index]
    used, numbers = np.unique(numbers, return_inverse=True)
    return JoinedFeatures([paths[number] for number in used], numbers, rows, np.array(found, dtype=np.int64))


def _missing_message(
    dataset: IdentifiedImages,
    identities: Sequence[bytes | None],
    found: set[int],
    folders: Sequence[Path],
    *,
    any_part: bool,
) -> str:
    where = ", ".join(map(str, folders))
    if not any_part:
        return (
            f"No features of this `backbone` are in {where}. Its weights and options, and the versions of Python "
            "packages, must be the same as in `extract_shard`; or pass the folders of the shards as `cache_dirs`."
        )
    missing = [index for index in range(len(dataset)) if index not in found]
    names = "; ".join(
        name_of(dataset, index) + ("" if identities[index] else ", which does not exist")
        for index in missing[:_SHOWN_IMAGES]
    )
    more = f"; and {len(missing) - _SHOWN_IMAGES} more" if len(missing) > _SHOWN_IMAGES else ""
    return (
        f"{len(missing)} of {len(dataset)} images have no features in {where}: {names}{more}. Run `extract_shard` "
        "again, which computes only what is missing, or leave them out with `on_missing='skip'`. Images that were "
        "moved or changed, or have another transform, have other features."
    )
