"""Memory of a training step per clip: what autograd saves for the backward pass, with and without checkpointing.

The tensors that a forward pass in training mode saves are counted on the meta device, each storage once, in the
network's own dtype. Non-local softmax is counted as its fused kernels save it (θ, φ, g and y, not the N×M map). Not
counted: the decoding of clips, weights, gradients, momentum, temporary buffers of single operations, and the tiles
that softmax keeps on the CPU (`nlnet.ops.tiled.KEPT` times θ, φ, g and y).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from nlnet.block import NonLocalBlock
from nlnet.models.flops import on_meta
from nlnet.models.resnet import Triple, VideoResNet


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes that autograd holds per clip."""

    kept: int
    """Saved by the forward pass; held all at once at its end."""
    checkpointed: int
    """The most that is held at once with activation checkpointing: the inputs of the stem and of all residual blocks, and
    what the largest of these saves while it is computed again."""


@dataclass
class _SavedTensors:
    """The storages that autograd saves, each with the part of the network (stem or residual block) that saved it first.

    Storages are identified by their address, parts by the id of their first module; None is outside of all parts.
    """

    own: set[int] = field(default_factory=set)
    """Storages of parameters and buffers, which are in memory anyway."""
    block: int | None = None
    """The part that runs now."""
    outside: set[int] = field(default_factory=set)
    """Storages that checkpointing keeps as well: inputs of parts, and what is saved between parts."""
    sizes: dict[int, int] = field(default_factory=dict)
    """Bytes of each storage."""
    blocks: dict[int, int | None] = field(default_factory=dict)
    """The part that saved each storage first."""
    tensors: list[Tensor] = field(default_factory=list)
    """One tensor of each storage, so that no storage is freed and its address used again."""

    def save(self, tensor: Tensor) -> Tensor:
        """Count a tensor that autograd saves (the pack hook of `saved_tensors_hooks`)."""
        storage = tensor.untyped_storage()
        if self.block is None:
            self.outside.add(storage._cdata)
        if storage._cdata not in self.own and storage._cdata not in self.sizes:
            self.sizes[storage._cdata] = storage.nbytes()
            self.blocks[storage._cdata] = self.block
            self.tensors.append(tensor)
        return tensor

    def memory(self) -> Memory:
        """The bytes of all storages, and of those that are in memory at once with checkpointing."""
        always = sum(size for key, size in self.sizes.items() if key in self.outside)
        inside: dict[int, int] = {}
        for key, size in self.sizes.items():
            block = self.blocks[key]
            if block is not None and key not in self.outside:
                inside[block] = inside.get(block, 0) + size
        # the backward pass recomputes one part at a time and frees it before the next: the largest counts
        return Memory(kept=sum(self.sizes.values()), checkpointed=always + max(inside.values(), default=0))


def activation_memory(model: VideoResNet, clip: Triple) -> Memory:
    """Count the bytes that autograd saves for one training clip of (T, H, W), on the meta device."""
    saved = _SavedTensors()

    def enter(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        saved.block = id(module)
        # checkpointing saves the input of a part even if no layer in it needs that for its gradient
        saved.save(inputs[0])
        saved.outside.add(inputs[0].untyped_storage()._cdata)

    def leave(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        saved.block = None

    with on_meta(model, _NormStandIn, training=True) as (network, hooks), fused_attention(network):
        assert isinstance(network, VideoResNet)
        # an ordinary forward pass is counted; what checkpointing would save follows from the parts
        checkpointing, network.checkpointing = network.checkpointing, False
        saved.own = {t.untyped_storage()._cdata for t in (*network.parameters(), *network.buffers())}
        blocks = [block for stage in network.stages for block in network.get_submodule(stage).children()]
        for first, last in [(network.conv1, network.pool1), *zip(blocks, blocks, strict=True)]:
            hooks.append(first.register_forward_pre_hook(enter))
            # registered after the hook that applies a non-local block, so the block counts as a part of its target
            hooks.append(last.register_forward_hook(leave))
        with saved_tensors_hooks(saved.save, lambda tensor: tensor):
            network(torch.empty(1, 3, *clip, device="meta"))
        network.checkpointing = checkpointing
    return saved.memory()


@contextmanager
def fused_attention(network: nn.Module) -> Iterator[None]:
    """Inside the context, softmax blocks run the tiled algorithm, which saves the same tensors as the fused kernels.

    Those do not exist on the meta device.
    """
    blocks = [
        (module, module.algorithm)
        for module in network.modules()
        if isinstance(module, NonLocalBlock) and module.operator.sums_to_one
    ]
    for module, algorithm in blocks:
        module.algorithm = "tiled" if algorithm in ("auto", "sdpa") else algorithm
    try:
        yield
    finally:
        for module, algorithm in blocks:
            module.algorithm = algorithm


class _Normalised(torch.autograd.Function):
    """A stand-in for batch norm: saves its input and two statistics per channel, and computes nothing."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        statistics = x.new_empty(x.shape[1]), x.new_empty(x.shape[1])
        ctx.save_for_backward(x, *statistics)
        return torch.empty_like(x)


class _NormStandIn(nn.Module):
    """`_Normalised` as a module."""

    def forward(self, x: Tensor) -> Tensor:
        return _Normalised.apply(x)
