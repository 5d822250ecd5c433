"""Losses with one proxy or weight vector per label, on label matrices in place of class ids.

With one-hot labels each equals pytorch-metric-learning's. They use the wrapped loss's parameters, hyper-parameters
and reducer. As there, parameters are cast to the dtype of the embeddings, which is float32 at least: in half precision
they would be rounded for good.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from mlmetric.losses._base import LossDict
from mlmetric.losses._relational import element_loss, log_one_plus_sum_exp


def proxy_anchor(loss: Any, embeddings: Tensor, labels: Tensor, weights: Tensor) -> LossDict:
    """Pull each proxy to the items that carry its label and push it from all others.

    Kim et al., "Proxy anchor loss for deep metric learning", CVPR 2020, which is written on the sets of
    positive and negative items of a proxy and does not ask that an item be positive for one proxy only.
    """
    loss.cast_types(embeddings.dtype, embeddings.device)
    similarity = loss.get_logits(embeddings)
    _check_columns(loss, similarity, labels)
    carries = labels > 0
    shift = weights.unsqueeze(1) - 1
    near = loss.alpha * loss.distance.margin(similarity, loss.margin) + shift
    far = loss.alpha * loss.distance.margin(-loss.margin, similarity) + shift
    proxies = torch.arange(labels.shape[1], device=labels.device)
    loss_dict = {
        "pos_loss": element_loss(log_one_plus_sum_exp(near, carries, dim=0), proxies),
        "neg_loss": element_loss(log_one_plus_sum_exp(far, ~carries, dim=0), proxies),
    }
    loss_dict["pos_loss"]["divisor"] = int(carries.any(0).sum())
    loss_dict["neg_loss"]["divisor"] = len(proxies)
    loss.add_weight_regularization_to_loss_dict(loss_dict, loss.proxies)
    return loss_dict


def margin_softmax(loss: Any, embeddings: Tensor, labels: Tensor, weights: Tensor) -> LossDict:
    """Put the margin of the ArcFace family on each target class, then take the cross entropy."""
    loss.cast_types(embeddings.dtype, embeddings.device)
    cosine = loss.get_cosine(embeddings)
    _check_columns(loss, cosine, labels)
    target = labels > 0
    with_margin = loss.modify_cosine_of_target_classes(cosine[target])
    logits = loss.scale_logits(cosine.masked_scatter(target, with_margin), embeddings)
    return _classification(loss, logits, labels, weights, loss.W)


def normalized_softmax(loss: Any, embeddings: Tensor, labels: Tensor, weights: Tensor) -> LossDict:
    """Take the cross entropy of the products with unit class weights, over the temperature."""
    loss.cast_types(embeddings.dtype, embeddings.device)
    logits = loss.get_logits(embeddings)
    _check_columns(loss, logits, labels)
    return _classification(loss, logits, labels, weights, loss.W)


def soft_triple(loss: Any, embeddings: Tensor, labels: Tensor, weights: Tensor) -> LossDict:
    """Take the margin from the similarity to each target class, then the cross entropy.

    Qian et al., "SoftTriple loss: deep metric learning without triplet sampling", ICCV 2019.
    """
    loss.cast_types(embeddings.dtype, embeddings.device)
    similarity = loss.get_logits(embeddings)
    _check_columns(loss, similarity, labels)
    logits = loss.la * (similarity - loss.margin * (labels > 0).to(similarity.dtype))
    return _classification(loss, logits, labels, weights, loss.fc)


def p2s_grad(loss: Any, embeddings: Tensor, labels: Tensor, weights: Tensor) -> LossDict:
    """Take the mean squared difference of the cosines to the class weights and the labels.

    Zhang et al., "P2SGrad: refined gradients for optimizing deep face models", CVPR 2019, equation 11.
    """
    weight = loss.weight.data.to(embeddings)
    loss.weight.data = weight.renorm(2, 1, 1e-5) * 1e5  # of length 1, rounded as pytorch-metric-learning has it
    cosine = normalize(embeddings) @ loss.weight
    _check_columns(loss, cosine, labels)
    losses = loss.m_loss(cosine.clamp(-1, 1), labels.to(cosine.dtype))
    return {"loss": {"losses": losses, "indices": None, "reduction_type": "already_reduced"}}


def _classification(loss: Any, logits: Tensor, labels: Tensor, weights: Tensor, class_weights: Tensor) -> LossDict:
    labels = labels.to(logits.dtype)
    target = labels / labels.sum(1, keepdim=True).clamp(min=torch.finfo(labels.dtype).tiny)
    losses = cross_entropy(logits, target, reduction="none") * weights
    loss_dict = {"loss": element_loss(losses, torch.arange(len(losses), device=losses.device))}
    loss.add_weight_regularization_to_loss_dict(loss_dict, class_weights.t())
    return loss_dict


def _check_columns(loss: Any, logits: Tensor, labels: Tensor) -> None:
    if labels.shape[1] != logits.shape[1]:
        raise ValueError(
            f"`labels` must have {logits.shape[1]} columns, one for each class of this {type(loss).__name__}, "
            f"got {labels.shape[1]}."
        )
