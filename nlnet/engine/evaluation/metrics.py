"""Rank of the right class and average precision, as pure functions of tensors.

Letters: N videos (or views), K classes.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def rank_of(scores: Tensor, label: int) -> Tensor:
    """The rank of class `label` in (…, K) scores: 0 is top-1, below 5 is top-5.

    It is the number of classes with a higher score, or with an equal score and a lower number, as in argmax. So a
    network that gives all classes the same score is right about class 0 alone.
    """
    own = scores[..., label : label + 1]
    before = torch.arange(scores.shape[-1], device=scores.device) < label
    return ((scores > own) | ((scores == own) & before)).sum(dim=-1)


def average_precision(scores: Float[Tensor, "N K"], shown: Bool[Tensor, "N K"]) -> Float[Tensor, "K"]:
    """The average precision of each class, in float64; NaN for a class that no video shows.

    With the videos sorted by falling score, AP = (1/P) Σ_n shown_n · P_n/n: the precision P_n/n after the first n
    videos, averaged over the P videos that show the class, not interpolated. Videos of equal score keep their order
    in the list, as in the official evaluation of Charades (Charades_v1_classify.m: a stable sort).
    """
    # stable: equal scores keep the order of the list
    order = scores.argsort(dim=0, descending=True, stable=True)
    hits = shown.gather(0, order).double()
    precision = hits.cumsum(dim=0) / torch.arange(1, len(hits) + 1, dtype=torch.float64)[:, None]
    return (precision * hits).sum(dim=0) / hits.sum(dim=0)


def charades_precision(scores: Float[Tensor, "N K"], shown: Bool[Tensor, "N K"]) -> Float[Tensor, "K"]:
    """The average precision of each class, as the official Charades evaluation computes it.

    A video without any action gets the score −∞ for every class, so it comes last and never lowers precision. (In
    `average_precision` it keeps its scores, as in PySlowFast.)
    """
    without_action = ~shown.any(dim=1, keepdim=True)
    return average_precision(scores.masked_fill(without_action, -torch.inf), shown)
