"""Texts as a view of the rows: encoders that map each text to a vector, and reading the text off images."""

from mlmetric.text._sentence_encoder import SentenceEncoder
from mlmetric.text._text_reader import TextReader
from mlmetric.text._tfidf_encoder import TfidfEncoder

__all__ = ["SentenceEncoder", "TextReader", "TfidfEncoder"]
