"""Read the labels of images from annotations in the format of Pascal VOC, an XML file for each image."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from mlmetric.data._label_text import ImagePaths, LabelFileError, label_name, number_of, quote, read_file
from mlmetric.data._labelled_paths import LabelledPaths, once


class _WithoutDoctype(ElementTree.TreeBuilder):
    """Reject a document type, the only place in which XML can declare entities."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        """Raise for any declaration, before the entities in it are read."""
        raise LabelFileError("it must have no document type (DOCTYPE); annotations of Pascal VOC have none")


def xml_files(folder: Path) -> list[Path]:
    """Return the XML files in a folder, sorted by name."""
    found = (path for path in folder.iterdir() if path.suffix.lower() == ".xml" and not path.name.startswith("."))
    return sorted(found)


def find_annotations(folder: Path, *, beside: bool = True) -> Path | None:
    """Return the folder of the XML files: `folder`, `Annotations` in it or next to it; None if there is none.

    Args:
        folder: The folder.
        beside: Whether `Annotations` may be next to it.
    """
    candidates = [folder, folder / "Annotations"]
    if beside:
        candidates.append(folder.absolute().parent / "Annotations")
    return next((path for path in candidates if path.is_dir() and xml_files(path)), None)


def image_folder(annotations: Path) -> Path:
    """Return `JPEGImages` next to the folder of the XML files if it exists, otherwise that folder itself."""
    beside = annotations.absolute().parent / "JPEGImages"
    return beside if beside.is_dir() else annotations


def read_voc(folder: Path, root: Path, *, include_difficult: bool) -> LabelledPaths:
    """Read which classes of objects occur in each image.

    Args:
        folder: The folder of the XML files.
        root: The folder that `filename` is relative to.
        include_difficult: Whether objects marked as difficult count as present.

    Returns:
        The images in the order of the XML files; names of labels are sorted.

    Raises:
        LabelFileError: If a file does not have this format; the message names the file.
        OSError: If a file cannot be read.
    """
    paths = ImagePaths(root)
    file_of_path: dict[str, Path] = {}
    names_of_images: list[set[str]] = []
    difficult = 0
    for file in xml_files(folder):
        annotation = _read_xml(file)
        name = annotation.findtext("filename", "").strip()
        path = paths.normalise(name, f"{file}: `filename` {quote(name)}")
        if path in file_of_path:
            raise LabelFileError(f"{file} has the same `filename` as {file_of_path[path]}: {quote(name)}.")
        file_of_path[path] = file
        names = set()
        for number, element in enumerate(annotation.findall("object"), 1):
            label = label_name(element.findtext("name", ""), f"{file}: `name` of object {number}")
            is_difficult = element.findtext("difficult", "0").strip() == "1"
            difficult += is_difficult
            if include_difficult or not is_difficult:
                names.add(label)
        names_of_images.append(names)
    label_names = sorted(set().union(*names_of_images))
    labels = {name: label for label, name in enumerate(label_names)}
    pairs = [(image, labels[name]) for image, names in enumerate(names_of_images) for name in names]
    chosen = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    images, columns, _ = once(chosen[:, 0], chosen[:, 1], len(label_names))
    treated = "included" if include_difficult else "left out (`include_difficult=False`)"
    source = (
        f"{folder.name}: {number_of(len(file_of_path), 'XML file')} in the format of Pascal VOC; "
        f"{number_of(difficult, 'difficult object')} {treated}."
    )
    annotators = np.ones(len(file_of_path), dtype=np.int64)
    return LabelledPaths(root, list(file_of_path), annotators, images, columns, label_names, source)


def _read_xml(file: Path) -> ElementTree.Element:
    data = read_file(file, "XML file")
    try:
        parser = ElementTree.XMLParser(target=_WithoutDoctype())
        annotation: ElementTree.Element = ElementTree.fromstring(data, parser)
    except LabelFileError as error:
        raise LabelFileError(f"{file} cannot be read: {error}.") from None
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise LabelFileError(f"{file} cannot be read as XML: {error}.") from error
    if annotation.tag != "annotation" or not annotation.findtext("filename", "").strip():
        raise LabelFileError(
            f"{file} must be an annotation of Pascal VOC with the root element `annotation` and in it `filename`, got "
            f"the root element {quote(annotation.tag)}."
        )
    return annotation
