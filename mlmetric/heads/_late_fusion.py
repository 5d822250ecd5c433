"""Late fusion: a head, or a classifier, for each view of a row, and their outputs joined."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mlmetric._docstrings import inherit_docs
from mlmetric._views import Views, read_views, view_presence


class LateFusionHead(nn.Module):
    """Concatenate the embeddings of several views of a row, each scaled by the square root of its weight.

    Squared distances are then the weighted sums of those of the views. A row lacks a view if a feature of the view is
    NaN; a fixed embedding takes the place of that of the view, such as the mean embedding of the training rows, from
    which all rows have about the same distance.

    Args:
        in_features: D, the number of features of all views.
        views: For each of V views its name and its columns, a slice; each column is in one view.
        members: For each view a module that maps its features `(N, D_v)` to outputs `(N, E_v)`.
        missing: For each view the output of rows that lack it, shape `(E_v,)`.
        weights: For each view its weight, above 0; they are divided by their sum. None for equal weights.

    Attributes:
        in_features: D.
        views: The views, a dictionary from names to slices, in the order of the columns.
        members: The modules, a `ModuleList`, in this order.
        missing: The outputs of missing views, concatenated; a buffer.
        weights: The weights, whose sum is 1, float32, shape `(V,)`; a buffer.

    Raises:
        TypeError: If `views` does not map names to slices.
        ValueError: If `members`, `missing` or `weights` are not those of the views, views overlap or a column is in
            none, or a weight is not finite and above 0.

    Examples:
        >>> import torch
        >>> from mlmetric.heads import LateFusionHead
        >>> views = {"image": slice(0, 2), "text": slice(2, 3)}
        >>> members = {"image": torch.nn.Identity(), "text": torch.nn.Identity()}
        >>> missing = {"image": torch.zeros(2), "text": torch.tensor([5.0])}
        >>> head = LateFusionHead(3, views, members, missing)
        >>> head(torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, torch.nan]])) / 0.5**0.5
        tensor([[1., 2., 3.],
                [1., 2., 5.]])
    """

    missing: Tensor
    weights: Tensor

    def __init__(
        self,
        in_features: int,
        views: Views,
        members: Mapping[str, nn.Module],
        missing: Mapping[str, Tensor],
        weights: Mapping[str, float] | None = None,
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

    @property
    def embedding_size(self) -> int:
        """The sum of the embedding sizes of the views."""
        return sum(self.sizes)

    def forward(self, features: Tensor) -> Tensor:
        """Embed features of shape `(N, D)`, NaN where a view is missing, and return shape `(N, sum of all E_v)`."""
        scales = self.weights.sqrt()
        return torch.cat([scale * rows for scale, rows in zip(scales, self.outputs(features), strict=True)], dim=1)

    def outputs(self, features: Tensor) -> list[Tensor]:
        """Return the outputs of each view, without weights; those of missing views are `missing`.

        Args:
            features: Shape `(N, D)`, NaN where a view is missing.

        Returns:
            For each view its outputs, shape `(N, E_v)`.
        """
        present = view_presence(features, self.views)
        missing = torch.split(self.missing, self.sizes)
        outputs = []
        for number, (columns, member) in enumerate(zip(self.views.values(), self.members, strict=True)):
            has_view = present[:, number : number + 1]
            rows = member(features[:, columns].where(has_view, 0))
            outputs.append(torch.where(has_view, rows, missing[number].to(rows.dtype)))
        return outputs

    def extra_repr(self) -> str:
        """Show views and weights."""
        columns = {name: (view.start, view.stop) for name, view in self.views.items()}
        return f"views={columns}, weights={[round(weight, 4) for weight in self.weights.tolist()]}"


@inherit_docs(LateFusionHead, members="outputs `(N, E_v)`=>logits `(N, L)`", missing="(E_v,)=>(L,)")
class LateFusionClassifier(LateFusionHead):
    """The weighted mean of the logits of classifiers, one for each view of a row.

    A row lacks a view if a feature of the view is NaN; fixed logits take the place of those of the view, such as the
    mean logits of the training rows, so that a missing view changes the logits of no label more than an average row.

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
    """

    def forward(self, features: Tensor) -> Tensor:
        """Compute the mean logits `(N, L)` of features `(N, D)`, NaN where a view is missing."""
        weighted = [weight * rows for weight, rows in zip(self.weights, self.outputs(features), strict=True)]
        return torch.stack(weighted).sum(dim=0)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Convert logits `(N, L)` to probabilities of the same shape with the sigmoid."""
        return logits.sigmoid()
