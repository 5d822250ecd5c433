"""Read the labels of images from files and folders in common formats."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from mlmetric.data import _label_voc
from mlmetric.data._image_labels import ImageLabels, to_image_labels
from mlmetric.data._label_coco import read_coco
from mlmetric.data._label_csv import read_csv
from mlmetric.data._label_folders import is_image, read_folders, sub_folders
from mlmetric.data._label_text import IMAGE_SUFFIXES, LabelFileError, listing, number_of, quote
from mlmetric.data._labelled_paths import LabelledPaths

LabelFormat: TypeAlias = Literal["csv", "folders", "coco", "voc"]
_CSV_SUFFIXES = (".csv", ".tsv", ".txt")


def read_image_labels(
    path: str | Path,
    *,
    format: LabelFormat | None = None,
    images: str | Path | None = None,
    path_column: str | None = None,
    label_columns: Sequence[str] | None = None,
    label_column: str | None = None,
    separator: str | None = None,
    delimiter: str | None = None,
    suffix: str | None = None,
    split_column: str | None = None,
    exclude_columns: Sequence[str] | None = (),
    min_votes: int = 1,
    min_count: int = 1,
    include_difficult: bool = True,
) -> ImageLabels:
    r"""Read the labels of images from a CSV file, a folder for each label, or annotations of COCO or Pascal VOC.

    The whole source is read and checked. If it is ambiguous, the error names the line, file or id, and the argument
    that resolves the ambiguity. `print(result.summary())` shows how the source was read.

    - CSV (`.csv`, `.tsv`, `.txt`): a header, then for each image a path and its labels. Either there is a column for
      each label, with 0 or 1, 0.0 or 1.0, True or False, or -1 or 1; or there is one column of names, separated by `|`,
      `,`, `;` or a tab, or in lists as Python or JSON writes them. If only one column is left besides the paths, and it
      does not contain such values, it is read as names. Several lines with the same path are the answers of several
      annotators. A column without a name that contains row numbers, as pandas writes it, is left out.
    - A folder with a sub-folder of images for each label. An image that is in several sub-folders under the same name,
      as a link or a copy, has several labels.
    - COCO (`.json`): instance annotations. A category is a label of an image if at least one annotation has it;
      annotations of crowds count. Images without annotations have no label.
    - Pascal VOC: a folder of XML files, or a folder with `Annotations` in it or next to it. A class is a label of an
      image if an object in the image has it.

    Args:
        path: The file or folder.
        format: `"csv"`, `"folders"`, `"coco"` or `"voc"`; None to recognise it.
        images: The folder that paths of images are relative to. If given, images that do not exist are counted in
            `notes`, and an error is raised if none exists. By default the folder of the file, for Pascal VOC
            `JPEGImages` next to the folder of the XML files, if it exists. With a folder for each label, None or
            `path`.
        path_column: CSV: the column of paths. By default the only column of names of image files, otherwise the first.
        label_columns: CSV: the columns of the labels, one for each label; by default all remaining columns.
        label_column: CSV: the column of label names, if there is one.
        separator: CSV: the text between label names; by default the one of `|`, `,`, `;` and tab that occurs in the
            column, unless it contains lists.
        delimiter: CSV: the character between fields; by default the one of `,`, `;` and tab that divides the header.
        suffix: CSV: the extension of the image files, such as `".jpg"`, added to paths without it.
        split_column: CSV: the column with the name of the part of each image, such as `train` or `test`. All lines of
            an image must be in one part.
        exclude_columns: CSV: columns that are not read.
        min_votes: CSV: the number of votes, lines of the same image, that a label requires: 1 for the union, 2 for
            agreement.
        min_count: The number of images that a label requires. Labels with fewer images are left out and named in
            `notes`; their images stay, possibly without labels. 0 keeps labels without images.
        include_difficult: Pascal VOC: whether objects marked as difficult count as present.

    Returns:
        The images in the order of the file, or of their names for folders and Pascal VOC. Labels are in the order of
        the columns or of COCO's categories, otherwise sorted by name.

    Raises:
        FileNotFoundError: If `path` or `images` does not exist.
        OSError: If a file cannot be read.
        LabelFileError: If the content is not in one of these formats; a subclass of ValueError.
        TypeError: If an argument that must be a string is not one.
        ValueError: If an argument has an invalid value, or is for another format.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from mlmetric.data import read_image_labels
        >>> file = Path(tempfile.mkdtemp()) / "labels.csv"
        >>> _ = file.write_text("path,tags\nholiday/1.jpg,sea|sky\nholiday/2.jpg,sky\n")
        >>> images = read_image_labels(file)
        >>> images.paths, images.label_names, images.labels.tolist()
        (['holiday/1.jpg', 'holiday/2.jpg'], ['sea', 'sky'], [[1, 1], [0, 1]])
        >>> print(images.source)
        labels.csv: 2 lines, fields separated by ','; paths in the column 'path'; names of labels, separated by '|', in
        the column 'tags'.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no file or folder of labels at {path}. Check the path.")
    format = _recognise(path) if format is None else format
    if format not in get_args(LabelFormat):
        raise ValueError(f"`format` must be one of {', '.join(map(repr, get_args(LabelFormat)))}, got {format!r}.")
    options = {
        "path_column": path_column,
        "label_columns": label_columns,
        "label_column": label_column,
        "separator": separator,
        "delimiter": delimiter,
        "suffix": suffix,
        "split_column": split_column,
        "exclude_columns": () if exclude_columns is None else exclude_columns,
    }
    if images is not None and format == "folders" and not (Path(images).exists() and path.samefile(images)):
        raise ValueError(
            f"`images` must be {path} or None, since the folders of the labels contain the images, got {images}."
        )
    _check_arguments(format, options, min_votes=min_votes, min_count=min_count, include_difficult=include_difficult)
    root = None if images is None else Path(images)
    if root is not None and not root.is_dir():
        raise FileNotFoundError(f"`images` must be a folder of images, there is none at {root}. Check the path.")
    if format == "csv":
        read = read_csv(path, root or path.parent, **options)  # type: ignore[arg-type]
    elif format == "coco":
        read = read_coco(path, root or path.parent)
    elif format == "folders":
        _check_folder(path)
        read = read_folders(path)
    else:
        _check_folder(path)
        folder = _label_voc.find_annotations(path)
        if folder is None:
            raise LabelFileError(
                f"{path} contains no XML files of Pascal VOC, nor does `Annotations` in or next to it."
            )
        read = _label_voc.read_voc(folder, root or _label_voc.image_folder(folder), include_difficult=include_difficult)
    if root is not None:
        read.notes.extend(_missing_images(read, format))
    return to_image_labels(path, read, min_votes, min_count)


def _recognise(path: Path) -> LabelFormat:
    if path.is_file():
        if path.suffix.lower() in _CSV_SUFFIXES:
            return "csv"
        if path.suffix.lower() == ".json":
            return "coco"
        raise LabelFileError(
            f"{path} must be a CSV file ({', '.join(_CSV_SUFFIXES)}) or a JSON file (.json). If it is, pass `format`."
        )
    _check_folder(path)
    if _label_voc.find_annotations(path, beside=False):
        return "voc"
    if any(map(_contains_images, sub_folders(path))):
        return "folders"
    if _label_voc.find_annotations(path):
        return "voc"
    files = [str(file) for file in sorted(path.iterdir()) if file.suffix.lower() in (*_CSV_SUFFIXES, ".json")]
    hint = f" Pass a file of labels, such as {files[0]}." if files else ""
    parts = [folder for folder in sub_folders(path) if any(map(_contains_images, sub_folders(folder)))]
    hint = f" {parts[0]} has such sub-folders: pass it." if parts else hint
    raise LabelFileError(
        f"{path} contains neither sub-folders with images ({listing(IMAGE_SUFFIXES, 20)}), one for each label, nor XML "
        f"files of Pascal VOC.{hint}"
    )


def _contains_images(folder: Path) -> bool:
    return any(map(is_image, folder.iterdir()))


def _check_folder(path: Path) -> None:
    if not path.is_dir():
        raise LabelFileError(f"{path} must be a folder, not a file, a pipe or a device.")


def _check_arguments(
    format: LabelFormat,
    options: dict[str, Any],
    *,
    min_votes: int,
    min_count: int,
    include_difficult: bool,
) -> None:
    for name, value, lowest in (("min_votes", min_votes, 1), ("min_count", min_count, 0)):
        if not isinstance(value, int | np.integer) or value < lowest:
            raise ValueError(f"`{name}` must be a whole number of at least {lowest}, got {value!r}.")
    for name in ("label_columns", "exclude_columns"):
        if isinstance(options[name], str):
            raise ValueError(f"`{name}` must be a list of columns, got the text {options[name]!r}.")
    if options["label_columns"] is not None and not len(options["label_columns"]):
        raise ValueError("`label_columns` must name at least one column, got none. Pass None for all that are left.")
    for name in ("path_column", "label_column", "separator", "delimiter", "suffix", "split_column"):
        if options[name] is not None and not isinstance(options[name], str):
            raise TypeError(f"`{name}` must be a text, got {type(options[name]).__name__}.")
    given = [name for name, value in options.items() if value is not None and value != ()]
    given += ["min_votes"] * (min_votes != 1)
    if given and format != "csv":
        raise ValueError(f"`{given[0]}` is for CSV files, but the format is {format!r}.")
    if not include_difficult and format != "voc":
        raise ValueError(f"`include_difficult` is for Pascal VOC, but the format is {format!r}.")
    if options["label_columns"] is not None and options["label_column"] is not None:
        raise ValueError("Pass either `label_columns`, one for each label, or `label_column`, with names, not both.")
    if options["separator"] == "":
        raise ValueError("`separator` must have at least one character, got ''.")
    if options["delimiter"] is not None and (len(options["delimiter"]) != 1 or options["delimiter"] in '"\r\n'):
        raise ValueError(f"`delimiter` must be one character, no quote or line break, got {options['delimiter']!r}.")
    if options["suffix"] is not None and (options["suffix"][:1] != "." or len(options["suffix"]) < 2):
        raise ValueError(f"`suffix` must be a file name extension like '.jpg', got {options['suffix']!r}.")


def _missing_images(read: LabelledPaths, format: LabelFormat) -> list[str]:
    """Describe the images that do not exist, and raise if none exists."""
    missing = [path for path in read.paths if not os.path.isfile(os.path.join(read.root, path))]  # noqa: PTH113, PTH118
    if not missing:
        return []
    if len(missing) == len(read.paths):
        hint = "check `images`"
        if format == "csv":
            suffixes = (suffix for suffix in IMAGE_SUFFIXES if (read.root / (missing[0] + suffix)).is_file())
            suffix = next(suffixes, None)
            hint = f"pass `suffix={suffix!r}`" if suffix else f"{hint}, `path_column` and `suffix`"
        raise LabelFileError(
            f"None of {number_of(len(missing), 'image')} exists in {read.root}, the first is {quote(missing[0])}: "
            f"{hint}."
        )
    return [f"Images that do not exist: {len(missing):,} ({listing(missing, 4)})."]
