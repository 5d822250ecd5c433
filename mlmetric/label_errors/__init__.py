"""Find entries of a label matrix that are probably wrong: labels that are missing, and labels that do not apply.

`rank_label_errors` compares each annotation with the probability of the label according to a model or to the
annotations of similar rows, and returns the least probable annotations first, for a person to review. Entries that are
not annotated are never reported.
"""

from mlmetric.label_errors._label_errors import LabelErrors
from mlmetric.label_errors._neighbor_probabilities import neighbor_probabilities
from mlmetric.label_errors._rank_label_errors import rank_label_errors

__all__ = ["LabelErrors", "neighbor_probabilities", "rank_label_errors"]
