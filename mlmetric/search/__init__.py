"""Search of embeddings: the nearest rows of an index with their ids and labels, and the labels that they share.

A [`SearchIndex`][mlmetric.search.SearchIndex] searches exactly, is stored in one folder without pickle, and is searched
from disk by memory map. For approximate search it becomes a faiss index. `explain_hits` divides the similarity of the
labels of the query and of each row that was found among the labels.
"""

from mlmetric.search._explain_hits import explain_hits
from mlmetric.search._hits import Hit
from mlmetric.search._search_index import SearchIndex

__all__ = ["Hit", "SearchIndex", "explain_hits"]
