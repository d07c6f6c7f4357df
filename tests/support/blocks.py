"""Blocks with random weights, and what they see written out independently."""

import math

import torch
from torch import Tensor

from nlnet.block import NonLocalBlock

PAIRWISE = ("gaussian", "embedded_gaussian", "dot_product", "concatenation")


CONVENTIONS = ("paper", "released", "mmcv")


CHANNELS = 6


def randomise(block: NonLocalBlock) -> NonLocalBlock:
    """Every parameter random: no zero γ that would hide the branch."""
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(std=0.5)
    return block


def pooled(x: Tensor, ndim: int, groups: int) -> Tensor:
    """Max over pairs (1-D, inside each group) or 2×2 squares, an odd last row dropped."""
    if ndim == 1:
        runs = [run[..., : run.shape[-1] // 2 * 2] for run in x.chunk(groups, dim=2)]
        return torch.cat([torch.maximum(run[..., 0::2], run[..., 1::2]) for run in runs], dim=2)
    height, width = x.shape[-2] // 2 * 2, x.shape[-1] // 2 * 2
    corners = [x[..., i:height:2, j:width:2] for i in (0, 1) for j in (0, 1)]
    return torch.stack(corners).amax(0)


def visible(queries: tuple[int, ...], keys: tuple[int, ...], axis: str, groups: int) -> Tensor:
    """(N, M) mask, by coordinates: same run of frames, and same frame or same location where the axis asks."""
    run_q = torch.arange(queries[0]) * groups // queries[0]
    run_k = torch.arange(keys[0]) * groups // keys[0]
    q = torch.cartesian_prod(*[torch.arange(n) for n in queries]).reshape(math.prod(queries), -1)
    k = torch.cartesian_prod(*[torch.arange(n) for n in keys]).reshape(math.prod(keys), -1)
    mask = torch.ones(len(q), len(k), dtype=torch.bool)
    if groups > 1:
        mask &= run_q[q[:, 0]][:, None] == run_k[k[:, 0]]
    if len(queries) == 3 and axis == "space":
        mask &= q[:, :1] == k[:, 0]
    if len(queries) == 3 and axis == "time":
        mask &= (q[:, None, 1:] == k[:, 1:]).all(-1)
    return mask
