"""Encode texts as vectors, and read the text in images.

The vectors are a view of the rows: alone, or together with image features, they are the input of the estimators.
"""

from mlmetric.text._sentence_encoder import SentenceEncoder
from mlmetric.text._text_reader import TextReader
from mlmetric.text._tfidf_encoder import TfidfEncoder

__all__ = ["SentenceEncoder", "TextReader", "TfidfEncoder"]
