"""Exact k-nearest-neighbour search in bounded memory.

Distances are computed from float64 differences. A float32 matrix product finds candidates, and error bounds show for
which rows these are certain to include the nearest neighbours; only the other rows are searched for again.
"""

from mlmetric.neighbors._kneighbors import kneighbors

__all__ = ["kneighbors"]
