"""Start the application: `python examples/ads --help`, or `torchrun --nproc-per-node 2 examples/ads/__main__.py`.

The pipeline of "From image to emotion: multi-label image classification based on triplet loss" (2021): features of a
frozen backbone; a method, which trains an embedding by metric learning and a classifier of the labels; evaluation and
figures. The default method has the settings that this library recommends; `--method paper` uses those of the paper,
`--compare` compares them with a label graph, a semantic projection and a linear probe, and `--experiments paper` makes
the paper's four runs. Without arguments the images are a generated synthetic set.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    folder = Path(__file__).resolve().parent
    # Python puts this folder first; its modules are imported from the package `ads`, in the folder of the examples.
    sys.path = [str(folder.parent), *(path for path in sys.path if Path(path).resolve() != folder)]

    from ads.program import run_program

    run_program()
