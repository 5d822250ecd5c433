"""Exact k-nearest-neighbour search in bounded memory.

Distances are computed from float64 differences. A float32 matrix product finds candidates. Error bounds show for which
rows the candidates include all nearest neighbours; only the other rows are searched for again.
"""

from mlmetric.neighbors._kneighbors import kneighbors

__all__ = ["kneighbors"]
