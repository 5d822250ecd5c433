"""Train a model that labels and searches your own images.

    python examples/own_images.py --images photos --labels labels.csv
    python examples/own_images.py --images photos --labels photos  # a sub-folder for each label

The labels are a CSV file (a column for each label, or one column of label names), COCO or Pascal VOC annotations, or
sub-folders. To continue an interrupted run, repeat the command. `predict.py` and `search.py` use the model and the
index that it writes.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from common.backbone_names import check_backbone
from common.errors import error_text

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--images", type=Path, required=True, help="folder that the image paths are relative to")
parser.add_argument("--labels", type=Path, required=True, help="file or folder of the labels")
parser.add_argument("--path-column", help="CSV: column of the image paths (default: the column of image file names)")
parser.add_argument("--label-column", help="CSV: column of label names (default: found by its values)")
parser.add_argument("--separator", help="CSV: text between label names (default: the one of | , ; tab that occurs)")
parser.add_argument("--delimiter", help="CSV: character between fields (default: the one of , ; tab in the header)")
parser.add_argument("--suffix", help="CSV: extension of the images, such as .jpg, if the paths have none")
parser.add_argument("--split-column", help="CSV: column of the parts; 'test' is for testing, all others train")
parser.add_argument("--exclude-columns", nargs="+", default=(), help="CSV: columns to leave out")
parser.add_argument(
    "--min-votes", type=int, default=1, help="CSV: number of lines of an image that must have a label (default: 1)"
)
parser.add_argument("--min-count", type=int, default=10, help="omit labels with fewer images (default: %(default)s)")
parser.add_argument("--backbone", default="resnet50", help="torchvision model or timm/NAME (default: %(default)s)")
parser.add_argument("--weights", default="DEFAULT", help="weights of the backbone: name, .pth file, or none (random)")
parser.add_argument("--epochs", type=int, default=20, help="epochs of each ensemble member (default: %(default)s)")
parser.add_argument("--output", type=Path, default=Path("runs/own_images"), help="run folder (default: %(default)s)")
LABELS = ["path_column", "label_column", "separator", "delimiter", "suffix", "split_column"]
LABELS += ["exclude_columns", "min_votes", "min_count"]

if __name__ == "__main__":  # the options are checked before the imports below, which take seconds
    options = parser.parse_args()
    try:
        check_backbone(options.backbone, options.weights)
    except ValueError as error:
        parser.error(str(error))
    for path in (options.images, options.labels):
        if not path.exists():
            parser.error(f"{path} does not exist.")

import numpy as np
import torch

from common.plots import plot_ap_by_support, plot_hits
from common.progress import progress_bar, training_progress
from mlmetric.data import ImageDataset, extract_features, read_image_labels, stratified_split
from mlmetric.estimators import MetricClassifier
from mlmetric.heads import FrozenBackbone
from mlmetric.metrics import MultiLabelMetrics, average_precision, mean_average_precision, ndcg_at_k
from mlmetric.search import SearchIndex
from mlmetric.training import apply_in_batches

SEED = 0


def main(options: argparse.Namespace) -> None:
    """Train, measure, save and use a model."""
    output = options.output

    # 1. The labels. Everything is read and checked before anything is computed.
    of_labels = {name: getattr(options, name) for name in LABELS}
    images = read_image_labels(options.labels, images=options.images, **of_labels)
    print(images.summary())
    if images.parts is not None and ("test" not in images.parts or len(images.parts) == 1):
        raise ValueError(f"The column {options.split_column} must contain 'test' and another, got {[*images.parts]}.")

    # 2. The features of a frozen backbone, computed once for each image and cached. Unreadable images are left out.
    torch.manual_seed(SEED)
    backbone = FrozenBackbone(options.backbone, weights=None if options.weights == "none" else options.weights)
    dataset = ImageDataset(images.root, images.paths, transform=backbone.transform)
    with progress_bar("features", unit="images") as bar:
        extracted = extract_features(backbone, dataset, output / "features", on_bad_image="skip", progress=bar.set)
    print("".join(f"Left out: {reason}\n" for reason in extracted.bad_images), end="")
    features, images = torch.from_numpy(np.array(extracted.features)), images.select(extracted.indices)
    labels, names = images.labels, images.label_names
    paths = [images.root / path for path in images.paths]

    # 3. The split of the file, or a stratified one, so that rare labels occur in both parts.
    if images.parts is None:
        train, test = stratified_split(labels, (0.8, 0.2), generator=torch.Generator().manual_seed(SEED))
    else:
        test = images.parts["test"]
        train = torch.cat([rows for part, rows in images.parts.items() if part != "test"])

    # 4. The embedding and the classifier. Each member sets other training images aside to choose its epochs; the images
    #    set aside also choose the thresholds. The checkpoints continue an interrupted fit.
    classifier = MetricClassifier(max_epochs=options.epochs, random_state=SEED)
    checkpoints = output / "checkpoints"
    with training_progress(options.epochs * classifier.n_members, checkpoint_dir=checkpoints) as on_epoch:
        classifier.fit(features[train], labels[train], checkpoint_dir=checkpoints, callback=on_epoch)

    # 5. Results on the test images, which retrieve training images, and the results of a linear probe of the features.
    probabilities, embeddings = classifier.predict_proba(features[test]), classifier.transform(features)
    metrics = MultiLabelMetrics(threshold=classifier.thresholds_)
    metrics.update(probabilities, labels[test])
    report = metrics.report(generator=torch.Generator().manual_seed(SEED))
    ndcg = float(ndcg_at_k(embeddings[test], labels[test], embeddings[train], labels[train], k=10))
    linear_probe = apply_in_batches(classifier.classifier_.members[-1], features[test])  # a part of the classifier
    probe_map = float(mean_average_precision(linear_probe, labels[test]))
    print(f"\n{report}\nNDCG@10 of retrieval: {ndcg:.3f}; mAP of a linear probe: {probe_map:.3f}\n")
    if probe_map > report.values["map"]:
        print("The linear probe has the higher mAP: `python examples/ads --method linear-probe` trains it alone.\n")

    # 6. The model with its backbone, and an index of the training images.
    record = {
        "name": f"Labels of {options.images.name}",
        "data": f"{len(train)} images for training, {len(test)} for testing",
        "metrics": {**report.values, "ndcg_at_10": ndcg},
    }
    model = classifier.to_model(backbone=backbone, label_names=names, record=record)
    model.save_pretrained(output / "model")
    index = SearchIndex(model=model)
    index.add(embeddings[train], ids=[str(paths[row]) for row in train], labels=labels[train])
    index.save(output / "index")

    # 7. The labels of one image, its nearest training images, and two figures.
    chosen = test[:: max(1, len(test) // 5)][:5]
    queries = [paths[row] for row in chosen]
    true_names = [images.names_of(row) for row in chosen.tolist()]
    found = index.search(queries, k=5, labels=true_names)
    predicted = [f"{name} {probability:.2f}" for name, probability in model.predict(queries[0])[0].items()]
    print(
        f"{queries[0]}: predicted {', '.join(predicted) or 'no label'}; true {', '.join(true_names[0]) or 'no label'}"
    )
    for hit in found[0]:
        print(f"  {hit.id}  distance {hit.distance:.2f}  in common: {', '.join(hit.shared) or 'none'}")
    precision = average_precision(probabilities, labels[test]).numpy()
    support = labels[test].sum(0).numpy()
    plot_ap_by_support(precision, support, len(test), names, output / "figures" / "average_precision.png")
    plot_hits(queries, [set(labels) for labels in true_names], found, output / "figures" / "retrieval.png")
    shutil.rmtree(checkpoints)  # the next run can have other labels or options
    print(f"\nTrained on {len(train)} images, measured on {len(test)}. Model, index and figures: {output}")


if __name__ == "__main__":
    try:
        main(options)
    except (ImportError, OSError, ValueError) as error:
        raise SystemExit(f"error: {error_text(error)}") from error
