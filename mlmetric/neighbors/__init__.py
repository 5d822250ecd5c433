"""Exact k nearest neighbours in bounded memory, one engine for the samplers and for what is drawn.

Neighbours are those of float64 differences, never those of a rounded matrix product; a product in float32 finds most of
them, and proves it.
"""

from mlmetric.neighbors._kneighbors import kneighbors

__all__ = ["kneighbors"]
