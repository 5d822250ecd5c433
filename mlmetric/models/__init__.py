"""Save, load, export and share a trained model.

A model is one module and one folder: backbone, embedding, classifier, thresholds and label names.
"""

from mlmetric.models._multi_label_model import MultiLabelModel

__all__ = ["MultiLabelModel"]
