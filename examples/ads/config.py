"""The options of the application. Only the last check, of the device, imports torch, which takes seconds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ads.options import check_ranges, flag, option
from common.backbone_names import check_backbone

DRY_RUN_IMAGES = 48
DEFAULT_MIN_COUNT = 10
DEFAULT_METHOD = "recommended"
DEFAULT_TEXT_ENCODER = "tfidf"
_TRAINED_BY_EPOCHS = ("recommended", "paper", "label-graph", "semantic")
OPTIONS_OF_METHODS = {
    "epochs": _TRAINED_BY_EPOCHS,
    "batch_size": _TRAINED_BY_EPOCHS,
    "lr": _TRAINED_BY_EPOCHS,
    "lr_drops": _TRAINED_BY_EPOCHS,
    "activation": ("paper",),
    "margin": ("paper",),
    "positive_order": ("paper",),
    "word_vectors": ("label-graph", "semantic"),
    "fusion": ("recommended",),
}
"""The methods that each of these options applies to."""
OPTIONS_OF_LABELS = (
    *("path_column", "label_column", "separator", "delimiter", "suffix", "exclude_columns", "min_count"),
)
"""The options that only label files of your own have, named as the arguments of `read_image_labels`."""
_METHODS_WITH_TEXT = ("recommended", "paper", "linear-probe")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Train a method of multi-label classification and retrieval on images, or compare all methods.

    The images are advertisements and their sentiments, by default a generated synthetic set. With --images and
    --labels, they are your own images, with labels in a CSV file, in sub-folders, or in COCO or Pascal VOC annotations.
    """

    list_runs: bool = option(False, "list the runs under runs/, with their settings and results, and exit")
    output: Path | None = option(None, "folder of the run (default: a new one under runs/)")
    cache: Path = option(Path("runs/feature_cache"), "folder of the feature cache, which runs share")
    resume: bool = option(
        False,
        "resume the run in --output with its options (default: the newest unfinished run that has computed something)",
    )
    dry_run: bool = option(False, f"a quick trial: {DRY_RUN_IMAGES} images, 2 epochs")

    synthetic_images: int | None = option(None, "number of images of the synthetic set (default: 1500)", least=30)
    annotations: Path | None = option(
        None, "file of annotations in the format of Sentiments.json, for real advertisements"
    )
    label_list: Path | None = option(
        None, "file of labels (default: Sentiments_List.txt in the folder of the annotations)"
    )
    image_root: Path | None = option(None, "folder that the image paths in the annotations are relative to")
    images: Path | None = option(None, "folder of your own images; the paths in --labels are relative to it")
    labels: Path | None = option(None, "file or folder of the labels of your own images")
    path_column: str | None = option(None, "CSV: column of the image paths (default: the column of image file names)")
    label_column: str | None = option(None, "CSV: column of label names (default: found by its values)")
    separator: str | None = option(None, "CSV: text between label names (default: the one of | , ; tab that occurs)")
    delimiter: str | None = option(None, "CSV: character between fields (default: the one of , ; tab in the header)")
    suffix: str | None = option(None, "CSV: extension of the images, such as .jpg, if the paths have none")
    exclude_columns: tuple[str, ...] = option((), "CSV: columns to leave out, such as the column of a split")
    min_count: int | None = option(
        None, f"omit labels in --labels with fewer images (default: {DEFAULT_MIN_COUNT})", least=0
    )
    min_votes: int = option(
        1,
        "number of annotators, or lines of an image in a CSV file, that must have a label: 1 for the union (as in the "
        "paper), 2 for agreement",
        least=1,
    )
    soft_labels: bool = option(
        False, "train on the share of annotators of each label, evaluate with --min-votes; requires --undersampler none"
    )

    backbone: str = option("resnet50", "torchvision classification model that computes the features")
    weights: str = option(
        "DEFAULT", "weights of the backbone: a member of its weights enum, a .pth file, or none for random weights"
    )
    on_bad_image: Literal["error", "skip"] = option("error", "how to treat images that cannot be read")
    undersampler: Literal["none", "cap", "cap-rows", "tomek", "mlrus", "lprus", "mlenn", "mlul", "remedial"] | None = (
        option(None, "undersampler of the training part (default: none; --method paper: cap)")
    )
    method: Literal["recommended", "paper", "label-graph", "semantic", "linear-probe"] = option(
        DEFAULT_METHOD, "method to train; paper: the triplet loss and the settings of the paper"
    )
    compare: bool = option(False, "run every method on the same features, and print one table")
    experiments: Literal["one", "paper"] = option("one", "paper: the four runs of the paper, with its settings")
    epochs: int | None = option(
        None, "epochs of each stage (default: 20; --method paper: 10, label-graph and semantic: 50)", least=1
    )
    batch_size: int | None = option(None, "images in a batch (default: 64; --method paper: 256)", least=2)
    lr: float | None = option(
        None,
        "learning rate of each stage (default: 0.003; --method paper: 0.01, label-graph and semantic: 0.001)",
        above=0,
    )
    lr_drops: tuple[int, ...] = option((), "epochs after which the learning rate is divided by 10", least=1)
    margin: float | None = option(
        None, "margin of the paper's triplet loss, on squared Euclidean distances (default: 1)", least=0
    )
    positive_order: Literal["farthest", "random"] | None = option(
        None, "order in which the paper's miner chooses positives (default: farthest)"
    )
    activation: Literal["sigmoid", "softmax"] | None = option(
        None, "activation of the paper's classifier (default: softmax)"
    )
    word_vectors: Path | None = option(
        None, "word2vec or GloVe file for label-graph and semantic (default: vectors from the co-occurrence of labels)"
    )

    ocr: bool = option(False, "read the text on the images, as a second view")
    texts: Path | None = option(
        None, "file of the texts of the images, as a second view: JSON like Slogans.json, or CSV with path and text"
    )
    text_encoder: str | None = option(
        None,
        f"encoder of the texts: tfidf, or the name or folder of a sentence-transformers model (default: "
        f"{DEFAULT_TEXT_ENCODER})",
    )
    fusion: Literal["late", "gated", "concat"] | None = option(
        None, "how image and text are combined (default: as in MetricClassifier; --method paper: late)"
    )

    image_batch_size: int = option(32, "images in a batch of the backbone", least=1)
    num_workers: int = option(2, "processes that read images for the backbone", least=0)
    device: str = option("auto", "device of the networks: cpu, cuda, cuda:1 or mps; auto: cuda if available")
    seed: int = option(0, "seed of the split, the undersampler, the weights and the batches", least=0, most=2**32 - 1)

    def __post_init__(self) -> None:
        if self.list_runs:
            return
        check_ranges(self)
        self._check_data()
        self._check_method()
        self._check_text()
        self._check_file("word_vectors", self.word_vectors)
        for name in ("output", "cache"):
            folder = getattr(self, name)
            if folder is not None and folder.exists():
                self._check_folder(name, folder)
        check_backbone(self.backbone, self.weights)
        self.torch_device()

    @property
    def chosen_undersampler(self) -> str:
        """The undersampler of the run: by default none, for the paper's method its cap."""
        return self.undersampler or ("cap" if self.method == "paper" else "none")

    @property
    def text_option(self) -> str | None:
        """The option that states where the text is from; None without text."""
        return flag("ocr") if self.ocr else None if self.texts is None else flag("texts")

    def torch_device(self) -> str:
        """Return the device as torch names it.

        Raises:
            ValueError: If the device is not available or not supported.
        """
        if not re.fullmatch(r"auto|cpu|(cuda|mps)(:\d+)?", self.device):
            raise ValueError(f"--device must be auto, cpu, cuda, cuda:N or mps, got {self.device}.")
        if self.device == "cpu":
            return "cpu"
        import torch  # here, since the import takes seconds

        kind, _, number = self.device.partition(":")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if kind == "auto":
            return "cuda" if count else "cpu"
        if kind == "mps":
            count = int(torch.backends.mps.is_available())
        if int(number or 0) >= count:
            raise ValueError(f"--device {self.device} is not available: torch finds {count} devices of type {kind}.")
        return self.device

    @property
    def _several(self) -> str | None:
        """The option that starts several runs; None for one run."""
        return "--compare" if self.compare else "--experiments paper" if self.experiments == "paper" else None

    def _check_data(self) -> None:
        if self.annotations is not None and self.labels is not None:
            raise ValueError("--annotations and --labels cannot be combined: choose one.")
        if self.synthetic_images is not None and (self.annotations or self.labels):
            raise ValueError("--synthetic-images cannot be combined with --annotations or --labels: omit it.")
        if self.annotations is not None and self.image_root is None:
            raise ValueError("--annotations requires --image-root, the folder that the image paths are relative to.")
        if self.annotations is None and (self.label_list or self.image_root):
            raise ValueError("--label-list and --image-root require --annotations.")
        if (self.images is None) != (self.labels is None):
            raise ValueError("--images and --labels require each other: the folder of images, and their labels.")
        for name in OPTIONS_OF_LABELS:
            if getattr(self, name) not in (None, ()) and self.labels is None:
                raise ValueError(f"{flag(name)} requires --labels.")
        self._check_file("annotations", self.annotations)
        if self.annotations is not None:
            self._check_file("label_list", self.label_list or self.annotations.with_name("Sentiments_List.txt"))
        self._check_folder("image_root", self.image_root)
        self._check_folder("images", self.images)
        if self.labels is not None and not self.labels.exists():
            raise ValueError(f"--labels {self.labels} does not exist.")

    def _check_method(self) -> None:
        if self.compare and self.experiments == "paper":
            raise ValueError("--compare and --experiments paper cannot be combined: choose one.")
        allowed = {DEFAULT_METHOD} if self.compare else {DEFAULT_METHOD, "paper"}
        if self._several and self.method not in allowed:
            raise ValueError(f"{self._several} sets --method itself: omit the option, got --method {self.method}.")
        if self.experiments == "paper":
            given = [name for name in OPTIONS_OF_METHODS if getattr(self, name) not in (None, ())]
            given += ["undersampler"] * (self.undersampler not in (None, "cap"))
            if given:
                raise ValueError(
                    f"--experiments paper sets {flag(given[0])} itself: omit the option, or use --method paper, which "
                    "is one run."
                )
        elif not self.compare:
            for name, methods in OPTIONS_OF_METHODS.items():
                if getattr(self, name) not in (None, ()) and self.method not in methods:
                    raise ValueError(
                        f"{flag(name)} requires --method {' or '.join(methods)}, got --method {self.method}."
                    )
        undersamples = self.chosen_undersampler != "none" or (self._several and self.undersampler != "none")
        if self.soft_labels and undersamples:
            raise ValueError("--soft-labels requires --undersampler none: undersamplers do not support soft labels.")

    def _check_text(self) -> None:
        if self.ocr and self.texts is not None:
            raise ValueError("--ocr and --texts cannot be combined: choose one.")
        for name in ("text_encoder", "fusion"):
            if getattr(self, name) is not None and self.text_option is None:
                raise ValueError(f"{flag(name)} requires --ocr or --texts.")
        self._check_file("texts", self.texts)
        if self.text_option is None:
            return
        if self._several:
            raise ValueError(
                f"{self.text_option} cannot be combined with {self._several}, which uses the images alone."
            )
        if self.method not in _METHODS_WITH_TEXT:
            raise ValueError(
                f"{self.text_option} requires --method {' or '.join(_METHODS_WITH_TEXT)}, got --method {self.method}."
            )

    def _check_file(self, name: str, path: Path | None) -> None:
        if path is not None and not path.is_file():
            raise ValueError(f"{flag(name)} {path} is not a file.")

    def _check_folder(self, name: str, path: Path | None) -> None:
        if path is not None and not path.is_dir():
            raise ValueError(f"{flag(name)} {path} is not a folder.")
