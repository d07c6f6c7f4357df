"""Memory of a training step per clip: what autograd keeps for the backward pass, with and without checkpointing.

Counted, not guessed: the tensors saved by a training-mode forward pass on the meta device, each storage once, in the
network's own dtype. Non-local softmax counts as its fused kernels keep it (θ, φ, g and y, never the N×M map). Not
counted: the clip's decoding, weights, gradients, momentum, the passing buffers of single operations, and what
softmax keeps of a map on the CPU (`nlnet.ops.tiled.KEPT` times the four).
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
    """Bytes per clip."""

    kept: int
    """Saved by the forward pass, all of it at once at its end."""
    checkpointed: int
    """The most at once with `checkpointing`: the inputs of the stem and of residual blocks, and one of them made again."""


@dataclass
class _Ledger:
    """Bytes of saved storages by the stem or residual block that saved them first; None is outside of all."""

    own: set[int] = field(default_factory=set)
    """Storages of parameters and buffers, which are there anyway."""
    block: int | None = None
    outside: set[int] = field(default_factory=set)
    """Storages that are kept in any case: inputs of blocks, and what is saved between blocks."""
    sizes: dict[int, int] = field(default_factory=dict)
    blocks: dict[int, int | None] = field(default_factory=dict)
    alive: list[Tensor] = field(default_factory=list)
    """So that no storage's address is given to another one."""

    def save(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if self.block is None:
            self.outside.add(storage._cdata)
        if storage._cdata not in self.own and storage._cdata not in self.sizes:
            self.sizes[storage._cdata] = storage.nbytes()
            self.blocks[storage._cdata] = self.block
            self.alive.append(tensor)
        return tensor

    def memory(self) -> Memory:
        always = sum(size for key, size in self.sizes.items() if key in self.outside)
        inside: dict[int, int] = {}
        for key, size in self.sizes.items():
            block = self.blocks[key]
            if block is not None and key not in self.outside:
                inside[block] = inside.get(block, 0) + size
        return Memory(kept=sum(self.sizes.values()), checkpointed=always + max(inside.values(), default=0))


def activation_memory(model: VideoResNet, clip: Triple) -> Memory:
    """What one training clip of (T, H, W) makes autograd keep. No arithmetic and no memory are spent on it."""
    ledger = _Ledger()

    def enter(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        ledger.block = id(module)
        ledger.save(inputs[0])
        ledger.outside.add(inputs[0].untyped_storage()._cdata)

    def leave(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        ledger.block = None

    with on_meta(model, _NormStandIn, training=True) as (network, hooks), fused_attention(network):
        assert isinstance(network, VideoResNet)
        checkpointing, network.checkpointing = network.checkpointing, False
        ledger.own = {t.untyped_storage()._cdata for t in (*network.parameters(), *network.buffers())}
        blocks = [block for stage in network.stages for block in network.get_submodule(stage).children()]
        for first, last in [(network.conv1, network.pool1), *zip(blocks, blocks, strict=True)]:
            hooks.append(first.register_forward_pre_hook(enter))
            # after the hook that applies a non-local block
            hooks.append(last.register_forward_hook(leave))
        with saved_tensors_hooks(ledger.save, lambda tensor: tensor):
            network(torch.empty(1, 3, *clip, device="meta"))
        network.checkpointing = checkpointing
    return ledger.memory()


@contextmanager
def fused_attention(network: nn.Module) -> Iterator[None]:
    """Softmax blocks by tiles, which keep what the fused kernels keep: those do not exist on the meta device."""
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
    """In batch norm's place: keeps its input and two statistics per channel."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        statistics = x.new_empty(x.shape[1]), x.new_empty(x.shape[1])
        ctx.save_for_backward(x, *statistics)
        return torch.empty_like(x)


class _NormStandIn(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return _Normalised.apply(x)
