"""The options of the examples. Torch is imported for the last check only, that of the device: errors come at once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from ads.options import option
from ads.values import check_ranges, flag

DRY_RUN_IMAGES = 48
_OPTIONS_OF_METHODS = {
    "margin": ("paper",),
    "positive_order": ("paper",),
    "word_vectors": ("label-graph", "semantic"),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """What every run can be told, whatever its images."""

    example: ClassVar[str]

    output: Path | None = option(None, "folder of the run; by default a new one under runs/")
    cache: Path = option(Path("runs/feature_cache"), "folder of the feature cache; runs share it")
    resume: bool = option(
        False, "go on with a run, with its options: the one in --output, by default the latest unfinished"
    )
    dry_run: bool = option(False, f"try everything in seconds: {DRY_RUN_IMAGES} images, 2 epochs")
    backbone: str = option("resnet50", "torchvision classification model whose features are used")
    weights: str = option("DEFAULT", "of the backbone: a member of its weights enum, a .pth file, or none for random")
    on_bad_image: Literal["error", "skip"] = option("error", "what to do with images that cannot be read")
    undersampler: Literal["none", "cap", "cap-rows", "tomek", "mlrus", "lprus", "mlenn", "mlul", "remedial"] = option(
        "cap", "applied to the training part; the paper's is cap"
    )
    method: Literal["recommended", "paper", "label-graph", "semantic", "linear-probe"] = option(
        "recommended", "what is trained; paper: its triplets and its settings of what follows"
    )
    compare: bool = option(False, "run every method on one cache, and print one table")
    epochs: int | None = option(None, "of each stage; by default the method's own, 50, the paper's 10", least=1)
    batch_size: int | None = option(None, "by default the method's own, 64, the paper's 256", least=2)
    lr: float | None = option(
        None, "learning rate of each stage; by default the method's own, 0.001, the paper's 0.01", above=0
    )
    lr_drops: tuple[int, ...] = option((), "epochs after which the learning rate falls to a tenth", least=1)
    margin: float | None = option(
        None, "of the paper's triplet loss, on squared Euclidean distance; by default 1", least=0
    )
    positive_order: Literal["farthest", "random"] | None = option(None, "of the paper's miner; by default farthest")
    activation: Literal["sigmoid", "softmax"] | None = option(
        None, "of the classifier and the linear probe; by default sigmoid, the paper's softmax"
    )
    word_vectors: Path | None = option(
        None, "word2vec or GloVe file for label-graph and semantic; by default what labels occur together"
    )
    image_batch_size: int = option(32, "images that pass through the backbone together", least=1)
    num_workers: int = option(2, "processes that read images ahead of the backbone", least=0)
    device: str = option("auto", "where the networks run: cpu, cuda, cuda:1, mps; auto: cuda where there is one")
    seed: int = option(0, "of the split, the undersampler, the heads and the batches", least=0, most=2**32 - 1)

    def __post_init__(self) -> None:
        check_ranges(self)
        for name, methods in _OPTIONS_OF_METHODS.items():
            if getattr(self, name) is not None and not self.compare and self.method not in methods:
                raise ValueError(f"{flag(name)} is for --method {' or '.join(methods)}, got --method {self.method}.")
        self._check_file("word_vectors", self.word_vectors)
        if self.weights.endswith((".pth", ".pt")):
            self._check_file("weights", Path(self.weights))
        for name in ("output", "cache"):
            folder = getattr(self, name)
            if folder is not None and folder.exists():
                self._check_folder(name, folder)
        self.torch_device()

    def torch_device(self) -> str:
        """Return the device in torch's words.

        Raises:
            ValueError: If there is no such device here, or networks cannot run on it.
        """
        if not re.fullmatch(r"auto|cpu|(cuda|mps)(:\d+)?", self.device):
            raise ValueError(f"--device must be auto, cpu, cuda, cuda:N or mps, got {self.device}.")
        if self.device == "cpu":
            return "cpu"
        import torch  # the last check, since it takes seconds

        kind, _, number = self.device.partition(":")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if kind == "auto":
            return "cuda" if count else "cpu"
        if kind == "mps":
            count = int(torch.backends.mps.is_available())
        if int(number or 0) >= count:
            raise ValueError(f"--device {self.device} cannot be used here: torch finds {count} of kind {kind}.")
        return self.device

    def _check_file(self, name: str, path: Path | None) -> None:
        if path is not None and not path.is_file():
            raise ValueError(f"{flag(name)} {path} is not a file.")

    def _check_folder(self, name: str, path: Path | None) -> None:
        if path is not None and not path.is_dir():
            raise ValueError(f"{flag(name)} {path} is not a folder.")


@dataclass(frozen=True, kw_only=True)
class AdsConfig(Config):
    """Sentiments of advertisement images by embeddings that follow label similarity; on a synthetic set by default."""

    example: ClassVar[str] = "ad_sentiment"

    annotations: Path | None = option(None, "Sentiments.json; without it a synthetic set is made and used")
    label_list: Path | None = option(None, "Sentiments_List.txt; by default beside the annotations")
    image_root: Path | None = option(None, "folder that the keys of the annotations are relative to")
    experiments: Literal["one", "paper"] = option("one", "paper: its four runs, with its settings of all the above")
    min_votes: int = option(1, "annotators who must name a label: 1 is the union (the paper's), 2 agreement", least=1)
    soft_labels: bool = option(False, "train on votes / annotators; evaluate on --min-votes; needs --undersampler none")
    synthetic_images: int = option(1500, "size of the synthetic set", least=30)

    def __post_init__(self) -> None:
        if self.experiments == "paper":
            own = ("epochs", "batch_size", "lr", "margin", "positive_order", "activation", "word_vectors")
            given = [name for name in own if getattr(self, name) is not None] + ["lr_drops"] * bool(self.lr_drops)
            if given:
                raise ValueError(
                    f"--experiments paper has settings of its own for {flag(given[0])}: leave it out, or "
                    "take --method paper, which is one run."
                )
        if self.compare and self.experiments == "paper":
            raise ValueError("--compare and --experiments paper are two comparisons: choose one.")
        if self.soft_labels and (self.undersampler != "none" or self.experiments == "paper"):
            raise ValueError("--soft-labels needs --undersampler none: undersamplers count whole labels.")
        if self.annotations is not None and self.image_root is None:
            raise ValueError("--annotations needs --image-root, the folder that its keys are relative to.")
        if self.annotations is None and (self.label_list or self.image_root):
            raise ValueError("--label-list and --image-root are for --annotations, which is not given.")
        self._check_file("annotations", self.annotations)
        if self.annotations is not None:
            self._check_file("label_list", self.label_list or self.annotations.with_name("Sentiments_List.txt"))
        self._check_folder("image_root", self.image_root)
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class OwnImagesConfig(Config):
    """The ad-sentiment pipeline on a folder of images of your own and a CSV file of their labels."""

    example: ClassVar[str] = "own_images"

    images: Path = option(Path("images"), "folder that the paths of the CSV file are relative to")
    labels: Path = option(Path("labels.csv"), "CSV file with a header: a column of paths, and the labels")
    path_column: str | None = option(None, "column of the paths; by default the first")
    label_column: str | None = option(None, "one column of names; by default every other column is a label, 0 or 1")
    separator: str | None = option(None, "between the names of --label-column; by default |")
    min_votes: int = option(1, "lines of an image that must give it a label: 1 is the union, 2 agreement", least=1)

    def __post_init__(self) -> None:
        self._check_folder("images", self.images)
        self._check_file("labels", self.labels)
        if self.separator == "":
            raise ValueError("--separator must be at least one character, got ''.")
        super().__post_init__()
