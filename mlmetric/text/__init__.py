"""Texts as features: encoders that map each text to a vector."""

from mlmetric.text._sentence_encoder import SentenceEncoder
from mlmetric.text._tfidf_encoder import TfidfEncoder

__all__ = ["SentenceEncoder", "TfidfEncoder"]
