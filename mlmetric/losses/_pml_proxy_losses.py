"""Formulas of the losses of pytorch-metric-learning with a proxy or weight vector for each label, on label matrices.

With one-hot labels the values are those of pytorch-metric-learning. The formulas use the parameters, settings and
reducer of the wrapped loss. As in pytorch-metric-learning, parameters are converted to the dtype of the embeddings,
here float32 or float64: in half precision they would be rounded permanently.

A missing label (NaN) is left out, as if the row were not compared with the class of the label.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from mlmetric._label_matrix import has_missing, known_labels
from mlmetric.losses._base_loss import LossDict, element_loss, reduced_loss, zero_loss_dict
from mlmetric.losses._pml_relation_losses import log_one_plus_sum_exp


def proxy_anchor(loss: Any, embeddings: Tensor, labels: Tensor, weights: Tensor) -> LossDict:
    """Pull each proxy towards the rows with its label, and push it away from all others.

    Kim et al., "Proxy anchor loss for deep metric learning", CVPR 2020. The paper defines the loss by the sets of
    positive and negative rows of each proxy, and a row can be positive for several proxies.
    """
    loss.cast_types(embeddings.dtype, embeddings.device)
    similarity = loss.get_logits(embeddings)
    _check_columns(loss, similarity, labels)
    positive, negative = labels > 0, labels <= 0  # a missing label is neither
    shift = weights.unsqueeze(1) - 1
    near = loss.alpha * loss.distance.margin(similarity, loss.margin) + shift
    far = loss.alpha * loss.distance.margin(-loss.margin, similarity) + shift
    proxies = torch.arange(labels.shape[1], device=labels.device)
    loss_dict = {
        "pos_loss": element_loss(log_one_plus_sum_exp(near, positive, dim=0), proxies),
        "neg_loss": element_loss(log_one_plus_sum_exp(far, negative, dim=0), proxies),
    }
    loss_dict["pos_loss"]["divisor"] = int(positive.any(0).sum())
    loss_dict["neg_loss"]["divisor"] = int((positive | negative).any(0).sum())
    loss.add_weight_regularization_to_loss_dict(loss_dict, loss.proxies)
    return loss_dict


def margin_softmax(loss: Any, embeddings: Tensor, labels: Tensor, weights: Tensor) -> LossDict:
    """Apply the margin of ArcFace and its variants to each target class, then compute the cross entropy."""
    loss.cast_types(embeddings.dtype, embeddings.device)
    cosine = loss.get_cosine(embeddings)
    _check_columns(loss, cosine, labels)
    target = labels > 0
    with_margin = loss.modify_cosine_of_target_classes(cosine[target])
    logits = loss.scale_logits(cosine.masked_scatter(target, with_margin), embeddings)
    return _classification(loss, logits, labels, weights, loss.W)


def normalized_softmax(loss: Any, embeddings: Tensor, labels: Tensor, weights: Tensor) -> LossDict:
    """Compute the cross entropy of the products with normalised class weights, divided by the temperature."""
    loss.cast_types(embeddings.dtype, embeddings.device)
    logits = loss.get_logits(embeddings)
    _check_columns(loss, logits, labels)
    return _classification(loss, logits, labels, weights, loss.W)


def soft_triple(loss: Any, embeddings: Tensor, labels: Tensor, weights: Tensor) -> LossDict:
    """Subtract the margin from the similarity to each target class, then compute the cross entropy.

    Qian et al., "SoftTriple loss: deep metric learning without triplet sampling", ICCV 2019.
    """
    loss.cast_types(embeddings.dtype, embeddings.device)
    similarity = loss.get_logits(embeddings)
    _check_columns(loss, similarity, labels)
    logits = loss.la * (similarity - loss.margin * (labels > 0).to(similarity.dtype))
    return _classification(loss, logits, labels, weights, loss.fc)


def p2s_grad(loss: Any, embeddings: Tensor, labels: Tensor, weights: Tensor) -> LossDict:
    """Compute the mean squared difference between the cosines to the class weights and the labels.

    Zhang et al., "P2SGrad: refined gradients for optimizing deep face models", CVPR 2019, equation 11.
    """
    weight = loss.weight.data.to(embeddings)
    loss.weight.data = weight.renorm(2, 1, 1e-5) * 1e5  # of length 1, with the rounding of pytorch-metric-learning
    cosine = normalize(embeddings) @ loss.weight
    _check_columns(loss, cosine, labels)
    if has_missing(labels):
        known = ~labels.isnan()
        if not bool(known.any()):
            return zero_loss_dict(loss)
        cosine, labels = cosine[known], labels[known]
    losses = loss.m_loss(cosine.clamp(-1, 1), labels.to(cosine.dtype))
    return {"loss": reduced_loss(losses)}


def _classification(loss: Any, logits: Tensor, labels: Tensor, weights: Tensor, class_weights: Tensor) -> LossDict:
    labels = labels.to(logits.dtype)
    rows = torch.arange(len(labels), device=labels.device)
    if has_missing(labels):
        labels, known = known_labels(labels)
        # Finite, since infinity times a target of 0 is NaN.
        logits = logits.masked_fill(~known, torch.finfo(logits.dtype).min / 2)
        rows = known.any(1).nonzero().squeeze(1)
    target = labels / labels.sum(1, keepdim=True).clamp(min=torch.finfo(labels.dtype).tiny)
    losses = cross_entropy(logits, target, reduction="none") * weights
    if len(rows) < len(losses):
        losses = losses[rows]
    loss_dict = {"loss": element_loss(losses, rows)} if len(rows) else zero_loss_dict(loss)
    loss.add_weight_regularization_to_loss_dict(loss_dict, class_weights.t())
    return loss_dict


def _check_columns(loss: Any, logits: Tensor, labels: Tensor) -> None:
    if labels.shape[1] != logits.shape[1]:
        raise ValueError(
            f"`labels` must have {logits.shape[1]} columns, one for each class of the {type(loss).__name__}, "
            f"got {labels.shape[1]}."
        )
