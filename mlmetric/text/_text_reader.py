"""Reading of the text on images."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mlmetric._digest import sha256_hex
from mlmetric.text._ocr_engine import OcrEngine, load_ocr_engine, ocr_engine_version
from mlmetric.text._reading_order import join_in_reading_order
from mlmetric.text._text_cache import TextCache, content_digest

if TYPE_CHECKING:
    from PIL import Image

_log = logging.getLogger(__name__)
_PROCEDURE = "1"  # changes with the resizing or the reading order, so that texts in older caches are not used
_ADVICE = "Repair or remove them, or skip them (`on_bad_image='skip'`)."
_KEPT = " The texts of all other images are in the cache."


@dataclass(frozen=True, kw_only=True)
class TextReader:
    """A reader of the text on images that uses rapidocr (`pip install "mlmetric[ocr]"`).

    rapidocr contains its networks, so nothing is downloaded; they are loaded when the first image is read.

    Text is joined line by line from top to bottom, and the boxes of a line from left to right. Columns are not
    recognised: lines of two columns at the same height are joined into one. Upside-down text is not read, and narrow
    spaces between words can be missing ("simplyimaginative"). The networks read Latin letters and Chinese characters,
    but not Cyrillic ones.

    Readers can be compared and pickled; a copy loads its own networks. `TextReader(**reader.to_config())` is an equal
    reader. Several threads can use one reader at the same time.

    Args:
        min_confidence: Text whose confidence, the mean probability of its characters, is below this value is left out.
            Textures that are mistaken for single characters have lower confidences than most lettering.
        image_side: An image is resized to the area of a square of this side, in pixels, before text is detected, but at
            most to twice its size. Time is proportional to the square of this side. A larger side finds smaller print:
            with 640, letters are found if their font size is at least 1.5 % of the side of the square.

    Raises:
        ValueError: If `min_confidence` is not in [0, 1], or `image_side` is not a whole number from 32 to 4096.

    Examples:
        >>> from mlmetric.text import TextReader
        >>> reader = TextReader(min_confidence=0.9)
        >>> reader.to_config()
        {'min_confidence': 0.9, 'image_side': 640}
        >>> reader == TextReader(**reader.to_config())
        True
        >>> texts = reader.read_files(["a.jpg", "b.jpg"], root="posters", cache_dir="texts")  # doctest: +SKIP
    """

    min_confidence: float = 0.8
    image_side: int = 640
    _engines: list[OcrEngine] = field(default_factory=list, init=False, repr=False, compare=False)  # not in use

    def __post_init__(self) -> None:
        if not (_is_number(self.min_confidence) and 0 <= self.min_confidence <= 1):
            raise ValueError(f"`min_confidence` must be a number in [0, 1], got {self.min_confidence!r}.")
        if not (isinstance(self.image_side, int) and 32 <= self.image_side <= 4096):
            raise ValueError(f"`image_side` must be a whole number from 32 to 4096, got {self.image_side!r}.")

    def __getstate__(self) -> dict[str, Any]:
        return self.to_config() | {"_engines": []}

    def __call__(self, image: str | Path | Image.Image) -> str:
        """Read the text on an image.

        Args:
            image: An image of any mode, or the path of an image file.

        Returns:
            The text in reading order: the boxes of a line joined by spaces, the lines by line breaks; an empty string
            if there is no text.

        Raises:
            BadImageError: If the image cannot be read; see `mlmetric.data.read_image`.
            ImportError: If rapidocr or onnxruntime is not installed.
            OSError: If the system is the cause, not the image.
            TypeError: If `image` is neither an image nor a path.
        """
        from mlmetric.data._image_file import convert_image, read_image  # imports torch

        if isinstance(image, str | Path):
            converted = read_image(image)
        elif hasattr(image, "convert") and hasattr(image, "mode"):
            converted = convert_image(image, "the image")
        else:
            raise TypeError(f"`image` must be a `PIL.Image.Image` or a path, got {type(image).__name__}.")
        try:
            engine = self._engines.pop()
        except IndexError:  # all are used by other threads
            engine = load_ocr_engine(self.image_side)
        boxes = engine(converted)
        self._engines.append(engine)
        return join_in_reading_order(box for box in boxes if box.confidence >= self.min_confidence)

    def read_files(
        self,
        paths: Sequence[str | Path],
        *,
        root: str | Path = ".",
        cache_dir: str | Path | None = None,
        num_workers: int = 1,
        on_bad_image: Literal["error", "skip"] = "error",
        progress: Callable[[int, int], None] | None = None,
    ) -> list[str]:
        """Read the text on each of many image files, or load it from the cache.

        If the run ends early, even if it is killed, the texts of all images except those being read are in the cache.
        Several runs can share the cache.

        Args:
            paths: The N image files, relative to `root` or absolute.
            root: The folder that `paths` are relative to.
            cache_dir: Folder of the cache; several readers can use the same folder. A text is found by the content of
                the image file, whatever its path. None for no cache.
            num_workers: Number of images that are read at the same time, in threads. Each uses one core and loads its
                own networks.
            on_bad_image: `"error"` reads all other images, then raises an error; `"skip"` returns an empty text for
                images that cannot be read, and logs a warning for each.
            progress: Called after each image as `progress(done, total)`.

        Returns:
            The N texts.

        Raises:
            BadImagesError: If images cannot be read and `on_bad_image` is `"error"`, or if none can be read.
            ImportError: If rapidocr or onnxruntime is not installed.
            OSError: If the system is the cause: the cache cannot be written, or there is not enough memory.
            TypeError: If `paths` is a single path, or contains anything but paths.
            ValueError: If `on_bad_image` is neither `"error"` nor `"skip"`, or `num_workers` is below 1.
        """
        _check_arguments(paths, num_workers, on_bad_image)
        from mlmetric.data._image_dataset import BadImagesError  # imports torch

        cache = None if cache_dir is None else TextCache(Path(cache_dir) / self.fingerprint()[:32])
        files = [Path(root) / path for path in paths]
        unique = list(dict.fromkeys(files))
        found: dict[Path, str | Exception] = {}
        pool = ThreadPoolExecutor(num_workers)
        try:
            for file, result in zip(unique, pool.map(lambda file: self._read_file(file, cache), unique), strict=True):
                found[file] = result
                if progress is not None:
                    progress(len(found), len(unique))
        finally:
            pool.shutdown(cancel_futures=True)
        reasons = [str(result) for result in found.values() if not isinstance(result, str)]
        if reasons and (on_bad_image == "error" or len(reasons) == len(unique)):
            raise BadImagesError(reasons, len(unique), advice=_ADVICE + (_KEPT if cache is not None else ""))
        for reason in reasons:
            _log.warning("%s Its text is empty.", reason)
        results = (found[file] for file in files)
        return [result if isinstance(result, str) else "" for result in results]

    def _read_file(self, file: Path, cache: TextCache | None) -> str | Exception:
        """Return the text on an image, or the error that states why it cannot be read."""
        from mlmetric.data._image_file import BadImageError

        key = None if cache is None else content_digest(file)
        if cache is not None and key is not None and (cached := cache.get(key)) is not None:
            return cached
        try:
            text = self(file)
        except BadImageError as error:
            return error
        except Exception as error:
            error.add_note(f"The image was {file}.")
            raise
        if cache is not None and key is not None:
            cache.put(key, text)
        return text

    def to_config(self) -> dict[str, Any]:
        """Return the parameters, which can be written as JSON."""
        return {"min_confidence": float(self.min_confidence), "image_side": self.image_side}

    def fingerprint(self) -> str:
        """Return a digest of the parameters and the version of rapidocr, which determine a text: 64 hexadecimal digits.

        Raises:
            ImportError: If rapidocr is not installed.
        """
        return sha256_hex([ocr_engine_version(), json.dumps(self.to_config()), _PROCEDURE])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_arguments(paths: Sequence[str | Path], num_workers: int, on_bad_image: str) -> None:
    if isinstance(paths, str | Path):
        raise TypeError(f"`paths` must be a sequence of paths, got a single one, {str(paths)!r}.")
    for number, path in enumerate(paths):
        if not isinstance(path, str | Path):
            raise TypeError(f"`paths[{number}]` must be a path, got {path!r:.100} of type {type(path).__name__}.")
    if on_bad_image not in ("error", "skip"):
        raise ValueError(f"`on_bad_image` must be 'error' or 'skip', got {on_bad_image!r}.")
    if num_workers < 1:
        raise ValueError(f"`num_workers` must be at least 1, got {num_workers}.")
