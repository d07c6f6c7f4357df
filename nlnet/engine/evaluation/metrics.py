"""How good scores are: ranks of the right class, average precision. Pure functions of tensors.

Letters: N videos (or views), K classes.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def rank_of(scores: Tensor, label: int) -> Tensor:
    """How many classes come before `label`: 0 is top-1, below 5 is top-5.

    Those that score higher do, and of equal ones those of lower number, as argmax has it: whoever gives every class
    the same score is right about class 0 alone.
    """
    own = scores[..., label : label + 1]
    before = torch.arange(scores.shape[-1], device=scores.device) < label
    return ((scores > own) | ((scores == own) & before)).sum(dim=-1)


def average_precision(scores: Float[Tensor, "N K"], shown: Bool[Tensor, "N K"]) -> Float[Tensor, "K"]:
    """The average precision of each class, in float64; NaN for a class that no video shows.

    With the videos in order of falling score, AP = (1/P) Σ_n shown_n · P_n/n: the precision P_n/n after the first n
    videos, averaged over the P videos that show the class, not interpolated. Videos of equal score keep their order
    in the list, as in the official evaluation of Charades (Charades_v1_classify.m: a stable sort).
    """
    order = scores.argsort(dim=0, descending=True, stable=True)
    hits = shown.gather(0, order).double()
    precision = hits.cumsum(dim=0) / torch.arange(1, len(hits) + 1, dtype=torch.float64)[:, None]
    return (precision * hits).sum(dim=0) / hits.sum(dim=0)


def charades_precision(scores: Float[Tensor, "N K"], shown: Bool[Tensor, "N K"]) -> Float[Tensor, "K"]:
    """Average precision by class as the official Charades evaluation counts it.

    There a video without any action gets the score −∞ for every class: it stands in the list and comes last, so it
    never costs precision. (`average_precision` alone lets it compete, as PySlowFast does.)
    """
    silent = ~shown.any(dim=1, keepdim=True)
    return average_precision(scores.masked_fill(silent, -torch.inf), shown)
