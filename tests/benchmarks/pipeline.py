"""Time and memory of the pipeline at full size: feature extraction, and both stages with the settings of the paper.

python tests/benchmarks/pipeline.py            # ResNet-50 on synthetic images, 30,340 x 2,048 synthetic features
python tests/benchmarks/pipeline.py --quick    # a quick check, without meaning
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import TripletMarginLoss
from torch import Tensor

from mlmetric.data import ImageDataset, extract_features, stratified_split
from mlmetric.heads import ClassifierHead, EmbeddingHead, FrozenBackbone
from mlmetric.miners import MultiLabelSemiHardMiner
from mlmetric.training import TrainingConfig, apply_in_batches, fit_classifier, fit_embedding
from result_tables import ResultTables, add_write_option

BATCH_SIZE = 32


def seconds(call: Callable[[], object]) -> float:
    """Time one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def bench_extraction(
    tables: ResultTables,
    backbone_name: str,
    num_images: int,
    rounds: int,
    num_workers: int,
    *,
    device: str = "cpu",
    batch_size: int = BATCH_SIZE,
    **options: Any,
) -> None:
    """Time feature extraction from JPEG files and, alternating, the forward pass on as many preloaded images."""
    backbone = FrozenBackbone(backbone_name, weights=None, **options).to(device)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        names = [f"{i}.jpg" for i in range(num_images)]
        for name in names:  # smooth noise, which takes as long to decode as a photograph of this size
            coarse = Image.fromarray(rng.integers(0, 255, (32, 40, 3), dtype=np.uint8))
            coarse.resize((500, 400), Image.Resampling.BICUBIC).save(Path(folder) / name, quality=90)
        dataset = ImageDataset(folder, names, transform=backbone.transform)
        batch = torch.stack([dataset[i][0] for i in range(min(batch_size, num_images))]).to(device)

        def forward() -> None:
            with torch.inference_mode():
                for start in range(0, num_images, batch_size):
                    features = backbone(batch[: num_images - start])
                features.cpu()  # waits for the device

        def extract(cache: str) -> None:
            extract_features(backbone, dataset, cache, batch_size=batch_size, num_workers=num_workers)

        forward()
        forward_seconds, extract_seconds = [], []
        for number in range(rounds):
            forward_seconds.append(seconds(forward))
            extract_seconds.append(seconds(lambda number=number: extract(f"{folder}/cache{number}")))  # type: ignore[misc]
    ratios = [first / second for first, second in zip(forward_seconds, extract_seconds, strict=True)]
    settings = f"{num_images} images of 500 x 400, {num_workers} workers, median of {rounds} alternating rounds"
    print(f"\n{backbone_name} on {device}, batches of {batch_size}, {options}, {settings}")
    heads = [
        "workers",
        "forward pass: images/s",
        "extract_features: images/s",
        "ratio",
        "lowest ratio",
        "highest ratio",
    ]
    speeds = (num_images / statistics.median(times) for times in (forward_seconds, extract_seconds))
    cells = [f"{num_workers}", *(f"{speed:.2f}" for speed in speeds)]
    cells += [f"{ratio:.3f}" for ratio in (statistics.median(ratios), min(ratios), max(ratios))]
    tables.show("feature_extraction", heads, [cells], num_text=0)


def random_rows(num_rows: int, num_features: int) -> tuple[Tensor, Tensor]:
    """Generate random features, and 30 labels with the cardinality of the real set."""
    generator = torch.Generator().manual_seed(0)
    frequency = torch.linspace(0.4, 0.005, 30).pow(1.3)
    labels = (torch.rand(num_rows, 30, generator=generator) < frequency * 4.3 / frequency.sum()).to(torch.uint8)
    return torch.rand(num_rows, num_features, generator=generator), labels


def bench_stages(tables: ResultTables, num_rows: int, num_features: int, epochs: int) -> None:
    """Time both stages with the settings of the paper on random rows."""
    features, labels = random_rows(num_rows, num_features)
    times = {}
    start = time.perf_counter()
    train, validation, _ = stratified_split(labels, generator=torch.Generator().manual_seed(0))
    times["split"] = time.perf_counter() - start
    distance = LpDistance(normalize_embeddings=False, power=2)
    miner = MultiLabelSemiHardMiner(
        max_partial_per_positive=1, max_disjoint_per_positive=1, max_triplets_per_anchor=1, distance=distance
    )
    config = TrainingConfig(max_epochs=epochs, batch_size=256, lr=0.01, lr_drops=(15,), seed=0)
    head = EmbeddingHead(num_features)
    head.standardize.fit(features[train])
    train_features, held_out = features[train], (features[validation], labels[validation])
    loss = TripletMarginLoss(margin=1.0, distance=distance)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        fit_embedding(
            head,
            train_features,
            labels[train],
            loss=loss,
            miner=miner,
            config=config,
            validation=held_out,
            checkpoint=f"{folder}/embedding.pt",
        )
        times["stage one"] = time.perf_counter() - start
        start = time.perf_counter()
        embeddings = apply_in_batches(head, features)
        classifier = ClassifierHead(head.embedding_size, 30)
        classifier.standardize.fit(embeddings[train])
        fit_classifier(
            classifier,
            embeddings[train],
            labels[train],
            config=config,
            validation=(embeddings[validation], labels[validation]),
            checkpoint=f"{folder}/classifier.pt",
        )
        times["stage two"] = time.perf_counter() - start
    print(f"\n{num_rows} x {num_features} synthetic features, {len(train)} training rows, {epochs} epochs")
    tables.show("stages", ["step", "seconds"], ([step, f"{value:.1f}"] for step, value in times.items()))


def peak_memory_gb() -> float:
    """Return the largest resident set of this process so far, in GB (10^9 bytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main() -> None:
    """Run the stages first, while the process uses little memory, then the extraction."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a quick check")
    add_write_option(parser)
    parser.add_argument("--extraction-only", action="store_true")
    parser.add_argument("--backbone", default="resnet50", help="torchvision classification model")
    parser.add_argument("--images", type=int, default=192, help="images in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--num-workers", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="device of the extraction")
    parser.add_argument("--batch-size", type=int, default=BATCH_SIZE)
    parser.add_argument("--autocast", choices=["bfloat16", "float16"])
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    tables = ResultTables(arguments.write)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {peak_memory_gb():.2f} GB at the start")
    if arguments.quick:
        bench_stages(tables, 300, 32, epochs=2)
        bench_extraction(tables, "squeezenet1_0", 4, rounds=1, num_workers=0)
    else:
        if not arguments.extraction_only:
            bench_stages(tables, 30_340, 2048, epochs=20)
            print(f"\nPeak memory: {peak_memory_gb():.2f} GB")
        names = ("device", "batch_size", "autocast", "channels_last", "compile")
        options = {name: getattr(arguments, name) for name in names}
        sizes = (arguments.images, arguments.rounds, arguments.num_workers)
        bench_extraction(tables, arguments.backbone, *sizes, **options)


if __name__ == "__main__":
    main()
