"""Evaluate embeddings from any source, given as matrices with their labels.

`evaluate_embeddings` measures whether rows that are near each other share labels (retrieval), and how well labels can
be predicted from the embeddings, by the labels of the nearest rows and by a linear probe. Penalties and thresholds are
chosen on training rows.
"""

from mlmetric.evaluation._embedding_evaluation import EmbeddingEvaluation
from mlmetric.evaluation._evaluate_embeddings import evaluate_embeddings

__all__ = ["EmbeddingEvaluation", "evaluate_embeddings"]
