"""Find the most similar images: python examples/search.py MODEL INDEX IMAGE...

MODEL and INDEX are the folders that an example wrote, such as `runs/own_images/model` and `runs/own_images/index`. A
folder in place of an image means all images in it. The Jaccard index of the predicted labels of the image and the
labels of a retrieved image is divided among the labels (Shapley values). Labels that both images have raise it; labels
that only one of them has lower it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from common.errors import error_text
from common.image_files import list_images

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("model", help="folder of the model, or its name on the hub")
parser.add_argument("index", type=Path, help="folder of the index")
parser.add_argument("images", nargs="+", type=Path, help="image files, or folders of them")
parser.add_argument("-k", type=int, default=5, help="number of images to find for each image (default: %(default)s)")
parser.add_argument("--json", action="store_true", help="print JSON instead of a table")

if __name__ == "__main__":  # before the imports below, which take seconds
    options = parser.parse_args()
    try:
        paths = list_images(options.images)
    except FileNotFoundError as error:
        parser.error(str(error))

from common.label_shares import similarity_text
from common.progress import progress_bar
from mlmetric.data import BadImageError
from mlmetric.models import MultiLabelModel
from mlmetric.search import SearchIndex, explain_hits


def main(options: argparse.Namespace, paths: list[Path]) -> None:
    """Print the images nearest to each image, and the share of each label in the similarity of their labels."""
    model = MultiLabelModel.from_pretrained(options.model)
    index = SearchIndex.load(options.index, model=model)
    found, unreadable = {}, []
    for path in progress_bar("images", paths, unit="images"):
        try:
            labels = list(model.predict(path)[0])
            hits = index.search(path, options.k, labels=[labels])
            found[str(path)] = labels, hits[0], explain_hits(index, hits, [labels])[0]
        except BadImageError as error:
            unreadable.append(f"error: {error}")
    if options.json:
        rows = {
            path: {
                "predicted": labels,
                "hits": [hit._asdict() | {"shares": each} for hit, each in zip(hits, shares, strict=True)],
            }
            for path, (labels, hits, shares) in found.items()
        }
        print(json.dumps(rows, indent=1))
    else:
        for name, (labels, hits, shares) in found.items():
            print(f"{name}  predicted: {', '.join(labels) or 'no label'}")
            width = max(len(str(hit.id)) for hit in hits)
            for hit, each in zip(hits, shares, strict=True):
                print(f"  {hit.id!s:{width}}  distance {hit.distance:.3f}  {similarity_text(each.items())}")
    if unreadable:
        raise SystemExit("\n".join(unreadable))


if __name__ == "__main__":
    try:
        main(options, paths)
    except (ImportError, OSError, ValueError) as error:
        raise SystemExit(f"error: {error_text(error)}") from error
