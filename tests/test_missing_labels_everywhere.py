"""All functions and classes that take labels support missing ones (NaN), or raise an error that says they do not."""

import inspect
import math
import warnings

import pytest
import torch

from mlmetric import decisions, metrics
from mlmetric.search import SearchIndex, explain_hits
from test_label_dtypes import BATCH, CALLS, FEATURES, RESAMPLERS, ROWS, SLOW, embeddings_for, scores_for

NAN = math.nan
NO_LABELS = {"votes_to_labels", "f1 of labels as scores"}  # votes, and scores
REFUSED_BY_NAME = {
    *RESAMPLERS,
    "inverse_frequency_weights",
    "SoftCosine",
    "cooccurrence_vectors",
    "cooccurrence_adjacency",
    "cooccurrence",
    "label_counts",
    "tcs",
    "RetrievalMetrics",
    "MultiLabelThresholdClassifier",
    "MultiLabelCalibratedClassifier",
    "explain_similarity",
    "evaluate_embeddings",
}
REFUSED = {
    *REFUSED_BY_NAME,
    "check_labels",  # without `allow_missing`
    "MultiLabelMetrics",
    "conformal_fnr_threshold",  # without a mask, like the next two
    "ltt_fdr_threshold",
    "LabelCalibrator",
    "explain_hits",
    "losses of heads",  # a graph of labels; the losses are tested with the missing labels of logits
    *(name for name in metrics.__all__ if inspect.isfunction(getattr(metrics, name))),
}


def draw(matrix, share=0.15):
    unknown = torch.rand(matrix.shape, generator=torch.Generator().manual_seed(0)) < share
    return matrix.float().masked_fill(unknown, NAN)


@pytest.mark.parametrize(
    ("name", "matrix", "call"),
    [
        *(pytest.param(*each, id=each[0]) for each in CALLS if each[0] not in NO_LABELS),
        *(pytest.param(*each, id=each[0], marks=pytest.mark.slow) for each in SLOW),
    ],
)
def test_missing_labels_are_supported_or_refused(name, matrix, call):
    function = name.split()[0]
    torch.manual_seed(0)
    if name not in REFUSED and function not in REFUSED:
        call(draw(matrix))
        return
    with pytest.raises(ValueError, match="not annotated") as error:
        call(draw(matrix))
    if function in REFUSED_BY_NAME:
        assert f"`{function}` does not support missing labels" in str(error.value)


def streamed(y):
    metric = metrics.RetrievalMetrics(k=3, full_ranking=False, streamed=True)
    metric.update(embeddings_for(BATCH), BATCH.float())
    metric.update_ref(embeddings_for(y), y)


def hits_explained(y):
    index = SearchIndex()
    index.add(embeddings_for(BATCH).numpy(), labels=BATCH)
    explain_hits(index, index.search(embeddings_for(BATCH).numpy(), k=2), y)


OTHERS = {
    "SearchIndex": lambda y: SearchIndex().add(embeddings_for(y).numpy(), labels=y),
    "SearchIndex ": hits_explained,
    "RetrievalMetrics": streamed,
    "PredictedCount": lambda y: decisions.PredictedCount().fit(scores_for(y).numpy(), y),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_functions_refuse_missing_labels_by_name(name):
    message = f"NaN means that a label is not annotated, and `{name.strip()}` does not support missing labels"
    with pytest.raises(ValueError, match=message):
        OTHERS[name](draw(BATCH))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        OTHERS[name](BATCH.float())


@pytest.mark.parametrize("function", [decisions.conformal_fnr_threshold, decisions.ltt_fdr_threshold])
def test_guarantees_refuse_missing_labels_without_a_mask(function):
    labels = draw(ROWS)
    with pytest.raises(ValueError, match="exclude entries that were not annotated with `mask`"):
        function(FEATURES[:, :3], labels, alpha=0.4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        function(FEATURES[:, :3], labels, alpha=0.4, mask=~labels.isnan())
