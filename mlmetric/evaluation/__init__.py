"""Evaluation of embeddings that were made elsewhere."""
