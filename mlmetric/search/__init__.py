"""Search of embeddings: the nearest rows of an index with their ids and labels, and the labels that they share.

A [`SearchIndex`][mlmetric.search.SearchIndex] searches exactly, is stored in one folder without pickle, and is searched
from disk by memory map. For approximate search it becomes a faiss index.
"""

from mlmetric.search._hits import Hit
from mlmetric.search._search_index import SearchIndex

__all__ = ["Hit", "SearchIndex"]
