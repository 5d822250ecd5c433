"""Label images with a saved model: python examples/predict.py MODEL IMAGE...

MODEL is a folder that `save_pretrained` wrote, such as `runs/own_images/model`, or the name of a model on the Hugging
Face hub. A folder in place of an image means all images in it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from common.errors import error_text
from common.image_files import list_images

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("model", help="folder of the model, or its name on the hub")
parser.add_argument("images", nargs="+", type=Path, help="image files, or folders of them")
parser.add_argument("--json", action="store_true", help="print JSON instead of a table")

if __name__ == "__main__":  # before the imports below, which take seconds
    options = parser.parse_args()
    try:
        paths = list_images(options.images)
    except FileNotFoundError as error:
        parser.error(str(error))

from common.progress import progress_bar
from mlmetric.data import BadImageError
from mlmetric.models import MultiLabelModel


def main(options: argparse.Namespace, paths: list[Path]) -> None:
    """Print the labels of each image, with their probabilities."""
    model = MultiLabelModel.from_pretrained(options.model)
    labels, unreadable = {}, []
    for path in progress_bar("images", paths, unit="images"):
        try:
            labels[str(path)] = model.predict(path)[0]
        except BadImageError as error:
            unreadable.append(f"error: {error}")
    if options.json:
        print(json.dumps(labels, indent=1))
    else:
        width = max(map(len, labels), default=0)
        for name, found in labels.items():
            print(f"{name:{width}}  " + (", ".join(f"{label} {p:.2f}" for label, p in found.items()) or "no label"))
    if unreadable:
        raise SystemExit("\n".join(unreadable))


if __name__ == "__main__":
    try:
        main(options, paths)
    except (ImportError, OSError, ValueError) as error:
        raise SystemExit(f"error: {error_text(error)}") from error
