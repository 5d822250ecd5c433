"""Train a model that labels and searches images: the sentiments of advertisements.

    python examples/ad_sentiment.py  # on generated posters
    python examples/ad_sentiment.py --annotations ads/Sentiments.json --images ads --backbone resnet50

To continue an interrupted run, repeat the command. `predict.py` and `search.py` use the model and the index that it
writes. `own_images.py` does the same with your own images; `python examples/ads` repeats the runs of the paper.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from common.backbone_names import check_backbone
from common.errors import error_text

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--annotations", type=Path, help="annotations of Pittsburgh Ads (default: generated posters)")
parser.add_argument("--images", type=Path, default=Path(), help="root folder of the images in --annotations")
parser.add_argument("--posters", type=int, default=1000, help="number of generated posters (default: %(default)s)")
parser.add_argument("--backbone", default="resnet18", help="torchvision model or timm/NAME (default: %(default)s)")
parser.add_argument("--weights", default="DEFAULT", help="weights of the backbone: name, .pth file, or none (random)")
parser.add_argument("--undersample", action="store_true", help="undersample the frequent labels, as in the paper")
parser.add_argument("--epochs", type=int, default=20, help="epochs of each ensemble member (default: %(default)s)")
parser.add_argument("--output", type=Path, default=Path("runs/ad_sentiment"), help="run folder (default: %(default)s)")

if __name__ == "__main__":  # the options are checked before the imports below, which take seconds
    options = parser.parse_args()
    try:
        check_backbone(options.backbone, options.weights)
    except ValueError as error:
        parser.error(str(error))
    if missing := [path for path in (options.annotations, options.images) if path and not path.exists()]:
        parser.error(f"{missing[0]} does not exist.")

import numpy as np
import torch

from ads.reader import read_annotations
from ads.synthetic import make_synthetic_ads
from common.plots import plot_ap_by_support, plot_curve, plot_hits
from common.progress import progress_bar, training_progress
from mlmetric.data import ImageDataset, extract_features, stratified_split
from mlmetric.estimators import MetricClassifier
from mlmetric.heads import FrozenBackbone, WeightsUnavailableError
from mlmetric.metrics import MultiLabelMetrics, average_precision, mean_average_precision, ndcg_at_k
from mlmetric.search import SearchIndex
from mlmetric.training import apply_in_batches
from mlmetric.under_sampling import LabelCapUnderSampler

SEED = 0


def main(options: argparse.Namespace) -> None:
    """Train, measure, save and use a model."""
    output = options.output
    # 1. The annotations: an image has each sentiment that an annotator chose.
    if options.annotations is None:
        annotations, label_list, root = make_synthetic_ads(
            output / "posters",
            num_images=options.posters,
            progress=lambda posters: progress_bar("posters", posters, unit="posters"),
        )
    else:
        annotations, root = options.annotations, options.images
        label_list = annotations.with_name("Sentiments_List.txt")
    ads = read_annotations(annotations, label_list)
    names = ads.label_names

    # 2. The features of a frozen backbone, computed once for each image and cached.
    backbone = load_backbone(options)
    dataset = ImageDataset(root, ads.paths, transform=backbone.transform)
    with progress_bar("features", unit="images") as bar:
        extracted = extract_features(backbone, dataset, output / "features", on_bad_image="skip", progress=bar.set)
    print("".join(f"Left out: {reason}\n" for reason in extracted.bad_images), end="")
    features, labels = torch.from_numpy(np.array(extracted.features)), ads.labels()[extracted.indices]
    paths = [root / ads.paths[row] for row in extracted.indices]

    # 3. A stratified split, so that rare labels occur in both parts.
    train, test = stratified_split(labels, (0.8, 0.2), generator=torch.Generator().manual_seed(SEED))
    X, y = features[train].numpy(), labels[train].numpy()
    if options.undersample:
        X, y = LabelCapUnderSampler(random_state=SEED).fit_resample(X, y)

    # 4. The embedding and the classifier. Each member sets other training images aside to choose its epochs; the images
    #    set aside also choose the thresholds. The checkpoints continue an interrupted fit.
    classifier = MetricClassifier(max_epochs=options.epochs, random_state=SEED)
    checkpoints = output / "checkpoints"
    with training_progress(options.epochs * classifier.n_members, checkpoint_dir=checkpoints) as on_epoch:
        classifier.fit(X, y, checkpoint_dir=checkpoints, callback=on_epoch)

    # 5. Results on the test images, which retrieve training images, and the results of a linear probe of the features.
    probabilities, embeddings = classifier.predict_proba(features[test]), classifier.transform(features)
    metrics = MultiLabelMetrics(threshold=classifier.thresholds_)
    metrics.update(probabilities, labels[test])
    report = metrics.report(generator=torch.Generator().manual_seed(SEED))
    ndcg = float(ndcg_at_k(embeddings[test], labels[test], embeddings[train], labels[train], k=10))
    linear_probe = apply_in_batches(classifier.classifier_.members[-1], features[test])  # a part of the classifier
    probe_map = float(mean_average_precision(linear_probe, labels[test]))
    print(f"\n{report}\nNDCG@10 of retrieval: {ndcg:.3f}; mAP of a linear probe: {probe_map:.3f}\n")

    # 6. The model with its backbone, and an index of the training images.
    results = {**report.values, "ndcg_at_10": ndcg}
    record = {"name": "Sentiments of advertisements", "data": f"{len(train)} training images", "metrics": results}
    model = classifier.to_model(backbone=backbone, label_names=names, record=record)
    model.save_pretrained(output / "model")
    index = SearchIndex(model=model)
    index.add(embeddings[train], ids=[str(paths[row]) for row in train], labels=labels[train])
    index.save(output / "index")

    # 7. The labels of one image, and its nearest training images with the labels that both have.
    chosen = test[:: max(1, len(test) // 5)][:5]
    queries, true_names = [paths[row] for row in chosen], [{names[i] for i in labels[row].nonzero()} for row in chosen]
    found = index.search(queries, k=5, labels=[sorted(labels) for labels in true_names])
    predicted = [f"{name} {probability:.2f}" for name, probability in model.predict(queries[0])[0].items()]
    print(f"{queries[0]}: predicted {', '.join(predicted)}; true {', '.join(true_names[0])}")
    for hit in found[0]:
        print(f"  {hit.id}  distance {hit.distance:.2f}  in common: {', '.join(hit.shared) or 'none'}")

    # 8. Figures.
    figures, history, keys = output / "figures", classifier.history_[0], ("val_map", "val_ndcg_at_10")
    curves = {key: [(record["epoch"], record[key]) for record in history] for key in keys}
    kept = {name: max(curve, key=lambda point: point[1])[0] for name, curve in curves.items()}
    plot_curve(curves, figures / "validation.png", title="First member: validation", unit="score", kept=kept)
    precision, support = average_precision(probabilities, labels[test]).numpy(), labels[test].sum(0).numpy()
    plot_ap_by_support(precision, support, len(test), names, figures / "average_precision.png")
    plot_hits(queries, true_names, found, figures / "retrieval.png")
    shutil.rmtree(checkpoints)  # the next run can have other options
    print(f"\nModel, index and figures: {output}")


def load_backbone(options: argparse.Namespace) -> FrozenBackbone:
    """Load the backbone; for generated posters, use random weights if the weights cannot be downloaded."""
    torch.manual_seed(SEED)
    try:
        return FrozenBackbone(options.backbone, weights=None if options.weights == "none" else options.weights)
    except WeightsUnavailableError as error:
        if options.annotations is not None:
            raise
        print(f"{error}\nThe backbone has RANDOM weights: its features are not those of a trained network.")
        return FrozenBackbone(options.backbone, weights=None)


if __name__ == "__main__":
    try:
        main(options)
    except (ImportError, OSError, ValueError) as error:
        raise SystemExit(f"error: {error_text(error)}") from error
