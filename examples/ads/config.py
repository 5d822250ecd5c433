"""The options of the examples. Only the last check, that of the device, imports torch, which takes seconds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from ads.options import check_ranges, flag, option

DRY_RUN_IMAGES = 48
_OPTIONS_OF_METHODS = {
    "activation": ("paper",),
    "margin": ("paper",),
    "positive_order": ("paper",),
    "word_vectors": ("label-graph", "semantic"),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """The options that all runs have in common."""

    example: ClassVar[str]

    output: Path | None = option(None, "folder of the run (default: a new one under runs/)")
    cache: Path = option(Path("runs/feature_cache"), "folder of the feature cache, which runs share")
    resume: bool = option(False, "resume the run in --output with its options (default: the latest unfinished run)")
    dry_run: bool = option(False, f"a quick trial: {DRY_RUN_IMAGES} images, 2 epochs")
    backbone: str = option("resnet50", "torchvision classification model that computes the features")
    weights: str = option(
        "DEFAULT", "weights of the backbone: a member of its weights enum, a .pth file, or none for random weights"
    )
    on_bad_image: Literal["error", "skip"] = option("error", "how to treat images that cannot be read")
    undersampler: Literal["none", "cap", "cap-rows", "tomek", "mlrus", "lprus", "mlenn", "mlul", "remedial"] = option(
        "cap", "undersampler of the training part; the paper uses cap"
    )
    method: Literal["recommended", "paper", "label-graph", "semantic", "linear-probe"] = option(
        "recommended", "method to train; paper: the triplet loss and the settings of the paper"
    )
    compare: bool = option(False, "run every method on the same features, and print one table")
    epochs: int | None = option(None, "epochs of each stage (default: 50, with --method paper 10)", least=1)
    batch_size: int | None = option(None, "rows of a batch (default: 64, with --method paper 256)", least=2)
    lr: float | None = option(None, "learning rate of each stage (default: 0.001, with --method paper 0.01)", above=0)
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
    image_batch_size: int = option(32, "images in a batch of the backbone", least=1)
    num_workers: int = option(2, "processes that read images for the backbone", least=0)
    device: str = option("auto", "device of the networks: cpu, cuda, cuda:1 or mps; auto: cuda if available")
    seed: int = option(0, "seed of the split, the undersampler, the weights and the batches", least=0, most=2**32 - 1)

    def __post_init__(self) -> None:
        check_ranges(self)
        for name, methods in _OPTIONS_OF_METHODS.items():
            if getattr(self, name) is not None and not self.compare and self.method not in methods:
                raise ValueError(f"{flag(name)} requires --method {' or '.join(methods)}, got --method {self.method}.")
        self._check_file("word_vectors", self.word_vectors)
        if self.weights.endswith((".pth", ".pt")):
            self._check_file("weights", Path(self.weights))
        for name in ("output", "cache"):
            folder = getattr(self, name)
            if folder is not None and folder.exists():
                self._check_folder(name, folder)
        self.torch_device()

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

    def _check_file(self, name: str, path: Path | None) -> None:
        if path is not None and not path.is_file():
            raise ValueError(f"{flag(name)} {path} is not a file.")

    def _check_folder(self, name: str, path: Path | None) -> None:
        if path is not None and not path.is_dir():
            raise ValueError(f"{flag(name)} {path} is not a folder.")


@dataclass(frozen=True, kw_only=True)
class AdsConfig(Config):
    """Predict the sentiments of advertisement images from an embedding; by default on a synthetic set."""

    example: ClassVar[str] = "ad_sentiment"

    annotations: Path | None = option(
        None, "file of annotations, Sentiments.json (default: a synthetic set is generated)"
    )
    label_list: Path | None = option(
        None, "file of labels (default: Sentiments_List.txt in the folder of the annotations)"
    )
    image_root: Path | None = option(None, "folder that the image paths in the annotations are relative to")
    experiments: Literal["one", "paper"] = option("one", "paper: the four runs of the paper, with its settings")
    min_votes: int = option(
        1, "number of annotators who must choose a label: 1 for the union (as in the paper), 2 for agreement", least=1
    )
    soft_labels: bool = option(
        False, "train on votes / annotators, evaluate with --min-votes; requires --undersampler none"
    )
    synthetic_images: int = option(1500, "number of images of the synthetic set", least=30)

    def __post_init__(self) -> None:
        if self.experiments == "paper":
            own = ("epochs", "batch_size", "lr", "margin", "positive_order", "activation", "word_vectors")
            given = [name for name in own if getattr(self, name) is not None] + ["lr_drops"] * bool(self.lr_drops)
            if given:
                raise ValueError(
                    f"--experiments paper sets {flag(given[0])} itself: omit the option, or use --method paper, which "
                    "is one run."
                )
        if self.compare and self.experiments == "paper":
            raise ValueError("--compare and --experiments paper cannot be combined: choose one.")
        if self.soft_labels and (self.undersampler != "none" or self.experiments == "paper"):
            raise ValueError("--soft-labels requires --undersampler none: undersamplers do not support soft labels.")
        if self.annotations is not None and self.image_root is None:
            raise ValueError("--annotations requires --image-root, the folder that the image paths are relative to.")
        if self.annotations is None and (self.label_list or self.image_root):
            raise ValueError("--label-list and --image-root require --annotations.")
        self._check_file("annotations", self.annotations)
        if self.annotations is not None:
            self._check_file("label_list", self.label_list or self.annotations.with_name("Sentiments_List.txt"))
        self._check_folder("image_root", self.image_root)
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class OwnImagesConfig(Config):
    """Run the ad-sentiment pipeline on your own images, with labels in a CSV file."""

    example: ClassVar[str] = "own_images"

    images: Path = option(Path("images"), "folder that the paths in the CSV file are relative to")
    labels: Path = option(Path("labels.csv"), "CSV file with a header, a column of paths and the labels")
    path_column: str | None = option(None, "column of the paths (default: the first)")
    label_column: str | None = option(None, "column of label names (default: every other column is a label, 0 or 1)")
    separator: str | None = option(None, "separator of the names in --label-column (default: |)")
    min_votes: int = option(
        1, "number of lines of an image that must have a label: 1 for the union, 2 for agreement", least=1
    )

    def __post_init__(self) -> None:
        self._check_folder("images", self.images)
        self._check_file("labels", self.labels)
        if self.separator == "":
            raise ValueError("--separator must have at least one character, got ''.")
        super().__post_init__()
