"""Late fusion: a head or a classifier for each view of a row, whose outputs are joined."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mlmetric._docstrings import inherit_docs
from mlmetric._views import Views, read_views, view_presence


class _LateFusion(nn.Module):
    """The members of the views, their weights, and the outputs of rows that lack a view."""

    missing: Tensor
    weights: Tensor

    def __init__(
        self,
        in_features: int,
        views: Views,
        members: Mapping[str, nn.Module],
        missing: Mapping[str, Tensor],
        weights: Mapping[str, float] | None,
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.views = read_views(views, in_features)
        weights = dict.fromkeys(self.views, 1.0) if weights is None else weights
        for name, given in (("members", members), ("missing", missing), ("weights", weights)):
            if given.keys() != self.views.keys():
                raise ValueError(f"`{name}` must have the names of the views, {list(self.views)}, got {list(given)}.")
        if not all(0 < weight < math.inf for weight in weights.values()):
            raise ValueError(f"`weights` must be finite and above 0, got {dict(weights)}.")
        self.members = nn.ModuleList(members[name] for name in self.views)
        self.sizes = [len(missing[name]) for name in self.views]
        values = torch.tensor([weights[name] for name in self.views], dtype=torch.float64)
        self.register_buffer("weights", (values / values.sum()).float())
        self.register_buffer("missing", torch.cat([missing[name].detach() for name in self.views]))

    def outputs(self, features: Tensor) -> list[Tensor]:
        """Return the outputs of each view, without weights; the outputs of missing views are replaced.

        Args:
            features: Shape `(N, D)`, NaN where a view is missing.

        Returns:
            The outputs of each view, shape `(N, E_v)`.
        """
        present = view_presence(features, self.views)
        outputs = [
            member(features[:, columns].where(present[:, view : view + 1], 0))
            for view, (columns, member) in enumerate(zip(self.views.values(), self.members, strict=True))
        ]
        replacements = self._replacements(outputs, present)
        return [
            torch.where(present[:, view : view + 1], rows, replacements[view].to(rows.dtype))
            for view, rows in enumerate(outputs)
        ]

    def _replacements(self, outputs: list[Tensor], present: Tensor) -> Sequence[Tensor]:
        """Return the replacements of each view's output in rows that lack the view."""
        return torch.split(self.missing, self.sizes)

    def extra_repr(self) -> str:
        """Show views and weights."""
        columns = {name: (view.start, view.stop) for name, view in self.views.items()}
        return f"views={columns}, weights={[round(weight, 4) for weight in self.weights.tolist()]}"


class LateFusionHead(_LateFusion):
    """Concatenate the embeddings of several views of a row, each scaled by the square root of its weight.

    Squared distances are then the weighted sums of the squared distances of the views. A row lacks a view if a feature
    of the view is NaN. The embedding of a missing view is predicted from the embeddings of the other views. One more
    column for each view contains the standard deviation of the prediction error, so that the squared distance to a row
    that has the view is its expected value. Without this column, rows that lack a view would be nearer to all others,
    since predictions vary less than embeddings.

    Args:
        in_features: D, the number of features of all views.
        views: The name of each of V views and its columns, a slice; each column belongs to exactly one view.
        members: For each view, a module that maps its features `(N, D_v)` to outputs `(N, E_v)`.
        missing: For each view, the output of rows that lack it, shape `(E_v,)`, where no prediction is possible.
        predictors: For pairs of views `(source, target)`, all or none, a linear layer that predicts the embedding of
            the target from the embedding of the source. The mean of the predictions from all views of a row is used.
            None to use `missing`.
        deviations: For each view, the value of the additional column in rows that lack the view, at least 0: the square
            root of the mean squared error of the predictions. None for 0.
        weights: The weight of each view, above 0; the weights are divided by their sum. None for equal weights.

    Attributes:
        in_features: D.
        views: The views, a dictionary from names to slices, in the order of the columns.
        members: The modules, a `ModuleList`, in this order.
        predictors: The linear layers, a `ModuleList`: for each target, the layers of its sources; empty if there are
            none.
        missing: The outputs of missing views, concatenated; a buffer.
        deviations: The deviations, float32, shape `(V,)`; a buffer.
        weights: The weights, whose sum is 1, float32, shape `(V,)`; a buffer.

    Raises:
        TypeError: If `views` does not map names to slices.
        ValueError: If an argument does not have an entry for each view, or pair of views, views overlap or a column is
            in none, or a weight is not finite and above 0.

    Examples:
        >>> import torch
        >>> from mlmetric.heads import LateFusionHead
        >>> views = {"image": slice(0, 2), "text": slice(2, 3)}
        >>> members = {"image": torch.nn.Identity(), "text": torch.nn.Identity()}
        >>> missing = {"image": torch.zeros(2), "text": torch.tensor([5.0])}
        >>> head = LateFusionHead(3, views, members, missing, deviations={"image": 1.0, "text": 2.0})
        >>> head(torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, torch.nan]])) / 0.5**0.5
        tensor([[1., 2., 0., 3., 0.],
                [1., 2., 0., 5., 2.]])

    Source:
        Late fusion: Snoek et al., "Early versus late fusion in semantic video analysis", ACM Multimedia 2005. The
        predictions and the additional columns are ours; `MetricEmbedder` fits the predictors by ridge regression.
    """

    deviations: Tensor

    def __init__(
        self,
        in_features: int,
        views: Views,
        members: Mapping[str, nn.Module],
        missing: Mapping[str, Tensor],
        *,
        predictors: Mapping[tuple[str, str], nn.Module] | None = None,
        deviations: Mapping[str, float] | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(in_features, views, members, missing, weights)
        pairs = [(source, target) for target in self.views for source in self.views if source != target]
        if predictors is not None and predictors.keys() != set(pairs):
            raise ValueError(f"`predictors` must have the pairs of views {pairs}, got {list(predictors)}.")
        deviations = dict.fromkeys(self.views, 0.0) if deviations is None else deviations
        if deviations.keys() != self.views.keys():
            raise ValueError(
                f"`deviations` must have the names of the views, {list(self.views)}, got {list(deviations)}."
            )
        self.predictors = nn.ModuleList([] if predictors is None else [predictors[pair] for pair in pairs])
        self.register_buffer("deviations", torch.tensor([float(deviations[name]) for name in self.views]))

    @property
    def embedding_size(self) -> int:
        """The sum of the embedding sizes of the views, and one for each view."""
        return sum(self.sizes) + len(self.sizes)

    def forward(self, features: Tensor) -> Tensor:
        """Embed features of shape `(N, D)`, NaN where a view is missing, and return shape `(N, sum of all E_v + V)`."""
        deviations = (~view_presence(features, self.views)) * self.deviations
        parts = []
        for view, (scale, rows) in enumerate(zip(self.weights.sqrt(), self.outputs(features), strict=True)):
            parts += [scale * rows, scale * deviations[:, view : view + 1].to(rows)]
        return torch.cat(parts, dim=1)

    def _replacements(self, outputs: list[Tensor], present: Tensor) -> Sequence[Tensor]:
        missing = super()._replacements(outputs, present)
        if not self.predictors:
            return missing
        replacements, layers = [], iter(self.predictors)
        for target in range(len(outputs)):
            predicted = []
            for source in range(len(outputs)):
                if source != target:
                    has_source = present[:, source : source + 1]
                    predicted.append(torch.where(has_source, next(layers)(outputs[source]), 0))
            total = present.sum(dim=1, keepdim=True) - present[:, target : target + 1].int()
            mean = torch.stack(predicted).sum(dim=0) / total.clamp(min=1)
            replacements.append(torch.where(total > 0, mean, missing[target].to(mean.dtype)))
        return replacements


@inherit_docs(
    LateFusionHead,
    members="outputs `(N, E_v)`=>logits `(N, L)`",
    missing="(E_v,)`, where no prediction is possible.=>(L,)`.",
)
class LateFusionClassifier(_LateFusion):
    """The weighted mean of the logits of classifiers, one for each view of a row.

    A row lacks a view if a feature of the view is NaN. The logits of the view are then replaced by fixed logits, such
    as the mean logits of the training rows, so that a missing view counts like an average row.

    Attributes:
        in_features: D.
        views: The views, a dictionary from names to slices, in the order of the columns.
        members: The classifiers, a `ModuleList`, in this order.
        missing: The logits of missing views, concatenated; a buffer.
        weights: The weights, whose sum is 1, float32, shape `(V,)`; a buffer.

    Examples:
        >>> import torch
        >>> from mlmetric.heads import LateFusionClassifier
        >>> views = {"image": slice(0, 1), "text": slice(1, 2)}
        >>> members = {"image": torch.nn.Identity(), "text": torch.nn.Identity()}
        >>> missing = {"image": torch.zeros(1), "text": torch.tensor([-3.0])}
        >>> classifier = LateFusionClassifier(2, views, members, missing, weights={"image": 3, "text": 1})
        >>> classifier(torch.tensor([[1.0, 5.0], [1.0, torch.nan]]))
        tensor([[2.],
                [0.]])

    Source:
        Late fusion as in `LateFusionHead`. `MetricClassifier` chooses the weights by greedy selection: Caruana et al.,
        "Ensemble selection from libraries of models", ICML 2004.
    """

    def __init__(
        self,
        in_features: int,
        views: Views,
        members: Mapping[str, nn.Module],
        missing: Mapping[str, Tensor],
        *,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(in_features, views, members, missing, weights)

    def forward(self, features: Tensor) -> Tensor:
        """Compute the mean logits `(N, L)` of features `(N, D)`, NaN where a view is missing."""
        weighted = [weight * rows for weight, rows in zip(self.weights, self.outputs(features), strict=True)]
        return torch.stack(weighted).sum(dim=0)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Convert logits `(N, L)` to probabilities of the same shape with the sigmoid."""
        return logits.sigmoid()
