"""Search embeddings for the rows nearest to a query, and explain which labels they share with it.

A [`SearchIndex`][mlmetric.search.SearchIndex] searches exactly. It is saved as one folder without pickle, and can be
searched from disk through a memory map. It can be converted to a faiss index for approximate search. `explain_hits`
divides the similarity of the labels of the query and of each row that was found among the labels.
"""

from mlmetric.search._explain_hits import explain_hits
from mlmetric.search._hits import Hit
from mlmetric.search._search_index import SearchIndex

__all__ = ["Hit", "SearchIndex", "explain_hits"]
