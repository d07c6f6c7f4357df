"""Normalisation layers by name, and the frozen affine layer for long clips.

Letters: B batch, C channels.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nlnet.errors import NlnetError, did_you_mean
from nlnet.layers.sync_batch_norm import SyncBatchNorm

NORMS = ("batch", "sync", "group", "layer", "affine", "none")
BATCH_NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
MAX_GROUPS = 32
EPS = 1e-5
"""The eps of batch norm: torch's default; the release's 1.0000001e-5 is the next float32."""


def create_norm(kind: str, channels: int, *, ndim: int, zero_init: bool = False) -> nn.Module:
    """Create the norm `kind` for maps with `channels` channels and `ndim` axes (time and space).

    "batch"   BatchNorm{ndim}d, eps 1e-5, momentum 0.1 (0.9 in Caffe2's definition)
    "sync"    batch norm over the joined batch of all processes (`SyncBatchNorm`)
    "group"   GroupNorm with 32 groups, or the largest divisor of `channels` below 32
    "layer"   GroupNorm with one group: all channels and positions of a sample together
    "affine"  y = w x + b, both frozen (`FrozenAffine`); the release's long clips
    "none"    identity

    `zero_init` sets the trainable γ to 0, so that a residual branch that ends in this norm starts at zero; "affine"
    and "none" have no trainable γ and ignore it.

    Raises:
        NlnetError: unknown `kind`, `ndim` not 1, 2 or 3, or fewer than one channel.
    """
    if ndim not in BATCH_NORMS:
        raise NlnetError(f"ndim: got {ndim}, expected 1, 2 or 3")
    if channels < 1:
        raise NlnetError(f"channels: got {channels}, expected at least 1")
    norm: nn.Module
    if kind == "batch":
        norm = BATCH_NORMS[ndim](channels)
    elif kind == "sync":
        norm = SyncBatchNorm(channels)
    elif kind == "group":
        norm = nn.GroupNorm(max(k for k in range(1, MAX_GROUPS + 1) if channels % k == 0), channels)
    elif kind == "layer":
        norm = nn.GroupNorm(1, channels)
    elif kind == "affine":
        norm = FrozenAffine(channels)
    elif kind == "none":
        norm = nn.Identity()
    else:
        near = did_you_mean(kind, NORMS, most=1)
        raise NlnetError(f"norm: got {kind!r}, expected one of {', '.join(NORMS)}{near}")
    if zero_init and has_trainable_scale(norm):
        nn.init.zeros_(norm.get_parameter("weight"))
    return norm


def has_trainable_scale(norm: nn.Module) -> bool:
    """Whether the norm has a γ that is trained (batch, sync, group, layer)."""
    return isinstance(norm._parameters.get("weight"), nn.Parameter)


class FrozenAffine(nn.Module):
    """A fixed factor and shift per channel: y_c = w_c x_c + b_c, with w and b as buffers that are not trained.

    Starts as the identity. The release turns batch norm into this layer (`AffineNd`) to train on long clips: the
    few clips that fit on a device are too few for batch statistics.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))

    def forward(self, x: Float[Tensor, "B C *grid"]) -> Float[Tensor, "B C *grid"]:
        shape = (1, -1) + (1,) * (x.ndim - 2)
        return x * self.weight.to(x.dtype).view(shape) + self.bias.to(x.dtype).view(shape)

    def extra_repr(self) -> str:
        return f"{self.weight.numel()}"


@contextmanager
def untracked_statistics(model: nn.Module) -> Iterator[None]:
    """Inside the context, batch norms in training do not update their running statistics.

    They still normalise by the statistics of the batch.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    saved = [(module, module.momentum, module.num_batches_tracked) for module in norms]
    for module in norms:
        # Momentum 0 keeps them exactly: r ← (1 − 0)·r + 0·batch. Without `track_running_stats` a norm saves fewer
        # tensors for its gradient, and activation checkpointing fails if a recomputation saves other tensors.
        module.momentum, module.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for module, momentum, batches in saved:
            module.momentum, module.num_batches_tracked = momentum, batches
