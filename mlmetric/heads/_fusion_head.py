"""The head that embeds several views of a row, such as an image and its text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from mlmetric._random_generators import thread_generator
from mlmetric._views import Views, read_views, view_presence
from mlmetric.heads._dropout import Dropout
from mlmetric.heads._embedding_heads import check_head_settings, rescale_norms
from mlmetric.heads._standardize import Standardize


class FusionHead(nn.Module):
    """Fully connected layers that map several views of a row to one embedding; rows may lack views.

    The features of a row are the features of its views side by side, such as an image and its text. A row lacks a view
    if a feature of the view is NaN. Each view v has a branch, a layer `h_v = activation(W_v x_v + b_v)`; the layers of
    the other widths follow the fusion of the branches. Features first pass through `standardize`, which does nothing
    until `head.standardize.fit(train_features, skip_nan=True)` is called.

    In training, each row loses each of its views with probability `view_dropout`, so that the head also learns to embed
    rows from one view alone. A row that would lose all of its views keeps them.

    Args:
        in_features: D, the number of features of all views.
        views: The name of each view and its columns, a slice; each column belongs to exactly one view.
        widths: Sizes of the layers: the first is the size of each branch, the last is the size of the embedding, E.
        fusion: `"gated"`: a weighted sum of the branches, whose weights depend on the row: `h = sum_v z_v * h_v`, where
            `z` is a softmax, over the views that the row has, of `G_v [x_1, ..., x_V]`, for each hidden unit; missing
            views are 0 in this product. `"concat"`: the branches are concatenated; a learnt vector takes the place of a
            branch whose view is missing.
        view_dropout: Probability with which each view of a row is dropped in training, in [0, 1).
        activation: Called without arguments to make the activation between two layers.
        clip: Standardised features are clipped to the range from `-clip` to `clip`; None does not clip them.
        input_dropout: Dropout probability of the features, in [0, 1).
        dropout: Dropout probability after each activation between layers, in [0, 1).
        activate_last: Whether to apply the activation after the last layer too.
        norm_exponent: The norm of each embedding is raised to this power, in [0, 1], as in
            [EmbeddingHead][mlmetric.heads.EmbeddingHead].

    Attributes:
        in_features: D.
        embedding_size: E.
        views: The views, a dictionary from names to slices, in the order of the columns.

    Raises:
        TypeError: If `views` does not map names to slices.
        ValueError: If there are fewer than two layers, a size is below 1, views overlap or a column is in none,
            `fusion` is neither `"gated"` nor `"concat"`, or another setting is out of range.

    Examples:
        >>> import torch
        >>> from mlmetric.heads import FusionHead
        >>> head = FusionHead(6, {"image": slice(0, 4), "text": slice(4, 6)}, widths=(8, 3)).eval()
        >>> rows = torch.ones(2, 6)
        >>> rows[1, 4:] = torch.nan  # the second row has no text
        >>> head(rows).shape, bool(head(rows).isfinite().all())
        (torch.Size([2, 3]), True)

    Source:
        Gates: Arevalo et al., "Gated multimodal units for information fusion", ICLR workshop 2017. Deviations: a
        softmax over the present views in place of a sigmoid for each, and `activation` in place of tanh.
        Dropout of views: Neverova et al., "ModDrop: adaptive multi-modal gesture recognition", TPAMI 2016.
    """

    def __init__(
        self,
        in_features: int,
        views: Views,
        widths: Sequence[int] = (512, 256),
        *,
        fusion: Literal["gated", "concat"] = "gated",
        view_dropout: float = 0.4,
        activation: Callable[[], nn.Module] = nn.ReLU,
        clip: float | None = None,
        input_dropout: float = 0.0,
        dropout: float = 0.0,
        activate_last: bool = False,
        norm_exponent: float = 1.0,
    ) -> None:
        super().__init__()
        if len(widths) < 2 or min(in_features, *widths) < 1:
            raise ValueError(
                "`in_features` and `widths` must be sizes of at least 1, with at least two layers, "
                f"got {in_features} and {tuple(widths)}."
            )
        if fusion not in ("gated", "concat"):
            raise ValueError(f"`fusion` must be 'gated' or 'concat', got {fusion!r}.")
        if not 0 <= view_dropout < 1:
            raise ValueError(f"`view_dropout` must be in [0, 1), got {view_dropout}.")
        check_head_settings(clip, norm_exponent)
        self.in_features = in_features
        self.embedding_size = widths[-1]
        self.views = read_views(views, in_features)
        self.width = widths[0]
        self.fusion: Literal["gated", "concat"] = fusion
        self.view_dropout = view_dropout
        self.clip = clip
        self.norm_exponent = norm_exponent
        self.standardize = Standardize(in_features)

        def hidden() -> list[nn.Module]:
            return [activation(), *([Dropout(dropout)] if dropout else [])]

        self.branches = nn.ModuleList(
            nn.Sequential(
                *([Dropout(input_dropout)] if input_dropout else []),
                nn.Linear(columns.stop - columns.start, widths[0]),
                *hidden(),
            )
            for columns in self.views.values()
        )
        if fusion == "gated":
            self.gates = nn.Linear(in_features, len(self.views) * widths[0])
            size = widths[0]
        else:
            self.missing = nn.Parameter(torch.zeros(len(self.views), widths[0]))
            size = len(self.views) * widths[0]
        layers: list[nn.Module] = []
        for width in widths[1:-1]:
            layers += [nn.Linear(size, width), *hidden()]
            size = width
        layers.append(nn.Linear(size, widths[-1]))
        layers += [activation()] if activate_last else []
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """Embed features of shape `(N, D)`, NaN where a view is missing, and return shape `(N, E)`."""
        present = view_presence(features, self.views)
        if self.training and self.view_dropout:
            present = _drop_views(present, self.view_dropout)
        features = self.standardize(features)
        if self.clip is not None:
            features = features.clamp(-self.clip, self.clip)
        inputs = [
            torch.where(present[:, view : view + 1], features[:, columns], 0)
            for view, columns in enumerate(self.views.values())
        ]
        branches = torch.stack([branch(rows) for branch, rows in zip(self.branches, inputs, strict=True)], dim=1)
        if self.fusion == "gated":
            scores = self.gates(torch.cat(inputs, dim=1)).view_as(branches)
            scores = scores.masked_fill(~present.unsqueeze(2), torch.finfo(scores.dtype).min)
            fused = (scores.softmax(dim=1) * branches * present.unsqueeze(2)).sum(dim=1)
        else:
            fused = torch.where(present.unsqueeze(2), branches, self.missing).flatten(1)
        return rescale_norms(self.layers(fused), self.norm_exponent)

    def extra_repr(self) -> str:
        """Show the settings that no submodule shows."""
        columns = {name: (view.start, view.stop) for name, view in self.views.items()}
        return (
            f"views={columns}, fusion={self.fusion!r}, view_dropout={self.view_dropout}, clip={self.clip}, "
            f"norm_exponent={self.norm_exponent}"
        )


def _drop_views(present: Tensor, probability: float) -> Tensor:
    """Drop present views at random; a row that would lose all of them keeps all."""
    numbers = torch.rand(present.shape, device=present.device, generator=thread_generator(present.device))
    kept = present & (numbers >= probability)
    return torch.where(kept.any(dim=1, keepdim=True), kept, present)
